"""Weights files: what is written comes back, and nothing that a file can hold does harm."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamsr.config import to_mapping
from dreamsr.core.backbones.refiner import RefinerConfig
from dreamsr.core.model import ModelConfig, build_net
from dreamsr.core.process import ProcessConfig
from dreamsr.errors import DreamsrError, WeightsError
from dreamsr.weights import file as module
from dreamsr.weights.file import FORMAT, load_weights, save_weights
from tests.conftest import TINY

SMALLEST = ModelConfig(
    scale=2, sizes=RefinerConfig(encoder_channels=4, encoder_blocks=0, channels=(4,), blocks_per_level=1)
)
FUZZ_CASES = 5000


def saved(path: Path, config: ModelConfig = SMALLEST, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """Write a net of `config` with random parameters; returns them."""
    generator = torch.Generator().manual_seed(1)
    state = {key: torch.randn(v.shape, generator=generator) for key, v in build_net(config).state_dict().items()}
    save_weights(path, state, config, facts={"steps": 3, "note": "ä\n"}, dtype=dtype)
    return state


def taken_apart(content: bytes) -> tuple[dict[str, Any], bytes]:
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def put_together(header: object, body: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


@pytest.fixture
def whole(tmp_path: Path) -> bytes:
    saved(tmp_path / "whole.safetensors")
    return (tmp_path / "whole.safetensors").read_bytes()


@pytest.mark.parametrize("config", [SMALLEST, TINY])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_what_is_saved_comes_back(tmp_path: Path, config: ModelConfig, dtype: torch.dtype) -> None:
    path = tmp_path / "model.safetensors"
    state = saved(path, config, dtype)
    loaded = load_weights(path)
    assert loaded.config == config
    assert loaded.facts == {"steps": 3, "note": "ä\n"}
    assert not loaded.net.training
    for key, value in loaded.net.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, state[key].to(dtype).float())


def test_a_file_from_before_the_parametrisation_is_plain(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    saved(path, dataclasses.replace(SMALLEST, parametrisation="centred"))
    assert load_weights(path).config.parametrisation == "centred"
    header, body = taken_apart(path.read_bytes())
    config = json.loads(header["__metadata__"]["config"])
    assert config.pop("parametrisation") == "centred"
    header["__metadata__"]["config"] = json.dumps(config)
    path.write_bytes(put_together(header, body))
    assert load_weights(path).config == SMALLEST


def test_saving_twice_gives_the_same_bytes(tmp_path: Path, whole: bytes) -> None:
    saved(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == whole


def refused(tmp_path: Path, content: bytes) -> str:
    """The message with which a file of these bytes is refused; it must be one line that names the file."""
    path = tmp_path / "given.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError) as caught:
        load_weights(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert message.isprintable()
    assert len(message) < len(str(path)) + 400
    return message


Change = Callable[[dict[str, Any]], object]


def first(header: dict[str, Any]) -> dict[str, Any]:
    return header[sorted(key for key in header if key != "__metadata__")[0]]


def with_config(**values: Any) -> Change:
    def change(header: dict[str, Any]) -> None:
        config = {**to_mapping(SMALLEST), **values}
        header["__metadata__"]["config"] = json.dumps(config)

    return change


CHANGES: dict[str, tuple[Change, str]] = {
    "no metadata": (lambda h: h.pop("__metadata__"), "not dreamsr weights"),
    "other format": (lambda h: h["__metadata__"].update(format="dreamsr-9"), "need 'dreamsr-1'"),
    "metadata not text": (lambda h: h["__metadata__"].update(facts=1), "not dreamsr weights"),
    "no config": (lambda h: h["__metadata__"].pop("config"), "configuration is damaged"),
    "config no JSON": (lambda h: h["__metadata__"].update(config="{"), "configuration is damaged"),
    "config no table": (lambda h: h["__metadata__"].update(config="[]"), "not a table"),
    "config deep": (lambda h: h["__metadata__"].update(config="[" * 100_000), "damaged"),
    "facts no table": (lambda h: h["__metadata__"].update(facts="3"), "facts is damaged"),
    "NaN": (lambda h: h["__metadata__"].update(facts='{"a": NaN}'), "NaN is not a number"),
    "unknown key": (with_config(colour="red"), "configuration is damaged"),
    "unknown backbone": (with_config(backbone="os.system"), "configuration is damaged"),
    "infinite": (with_config(refiner={**to_mapping(SMALLEST)["refiner"], "residual_gain": "inf"}), "inf"),
    "many timesteps": (with_config(process={"timesteps": 10**12}), "timesteps"),
    "empty process": (with_config(process={"schedule": "geometric", "sqrt_eta_first": 0.0}), "process"),
    "larger net": (with_config(refiner={"encoder_channels": 64, "channels": [64, 64]}), "missing or unknown"),
    "other scale": (with_config(scale=16), "its configuration says"),
    "extra tensor": (lambda h: h.update(evil=dict(first(h))), "overlap"),
    "extra empty tensor": (lambda h: h.update(evil={**first(h), "shape": [0], "data_offsets": [0, 0]}), "first 'evil'"),
    "renamed tensor": (lambda h: h.update({"x" * 5000: h.pop("base.bias")}), "missing or unknown"),
    "float64": (lambda h: first(h).update(dtype="F64"), "possible: F16, BF16, F32"),
    "dtype no text": (lambda h: first(h).update(dtype=["F32"]), "possible: F16"),
    "other shape": (lambda h: first(h).update(shape=[1]), "its shape needs"),
    "huge shape": (lambda h: first(h).update(shape=[2**62, 2**62]), "no usable shape"),
    "shape turned": (lambda h: first(h).update(shape=[1, *first(h)["shape"]]), "its configuration says"),
    "offsets swapped": (lambda h: first(h).update(data_offsets=first(h)["data_offsets"][::-1]), "its shape needs"),
    "offsets negative": (lambda h: first(h).update(data_offsets=[-8, 8]), "no usable place"),
    "offsets texts": (lambda h: first(h).update(data_offsets=["0", "8"]), "no usable place"),
    "offsets huge": (lambda h: first(h).update(data_offsets=[0, 10**4000]), "no usable place"),
    "offsets shared": (lambda h: h["unet.enter.bias"].update(**h["encoder.head.bias"]), "overlap"),
    "extra fact": (lambda h: first(h).update(strides=[1]), "not described by"),
    "tensor no table": (lambda h: h.update({"base.bias": 3}), "not described by"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_wrong_headers_are_refused_with_the_reason(tmp_path: Path, whole: bytes, name: str) -> None:
    change, reason = CHANGES[name]
    header, body = taken_apart(whole)
    change(header)
    assert reason in refused(tmp_path, put_together(header, body))


def test_wrong_frames_are_refused(tmp_path: Path, whole: bytes) -> None:
    header, body = taken_apart(whole)
    assert "(0 bytes)" in refused(tmp_path, b"")
    assert "(7 bytes)" in refused(tmp_path, whole[:7])
    assert "header alone" in refused(tmp_path, whole[:50])
    assert "cut off" in refused(tmp_path, whole[:-1])
    assert "promises" in refused(tmp_path, whole + b"\0")
    assert "header is larger" in refused(tmp_path, struct.pack("<Q", 2**63) + whole[8:])
    assert "header is larger" in refused(tmp_path, put_together({**header, "pad": "x" * (1 << 20)}, body))
    assert "stands twice" in refused(tmp_path, put_together(b'{"a": 1, "a": 2}', body))
    assert "damaged" in refused(tmp_path, put_together(b"\xff\xfe" * 10, body))
    assert "damaged" in refused(tmp_path, put_together(b"9" * 100_000, body))


def test_a_pickle_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(3)}, tmp_path / "model.pt")
    assert "not a safetensors file" in refused(tmp_path, (tmp_path / "model.pt").read_bytes())


def test_values_that_are_no_numbers_are_refused(tmp_path: Path, whole: bytes) -> None:
    header, body = taken_apart(whole)
    assert "not numbers" in refused(tmp_path, put_together(header, b"\xff" * 4 + body[4:]))


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, reason in ((tmp_path, "not a file"), (tmp_path / "pipe", "not a file"), (tmp_path / "no", "no such")):
        with pytest.raises(WeightsError, match=reason):
            load_weights(path)


def test_a_large_header_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sparse file that claims to hold a header of 4 GB costs nothing."""
    path = tmp_path / "sparse.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 4 << 30))
        file.truncate(5 << 30)
    monkeypatch.setattr(module, "_json", lambda *_: pytest.fail("the header was read"))
    with pytest.raises(WeightsError, match="header is larger"):
        load_weights(path)


def test_a_large_body_is_not_read_before_its_header_is_right(tmp_path: Path, whole: bytes) -> None:
    path = tmp_path / "sparse.safetensors"
    path.write_bytes(whole)
    with path.open("r+b") as file:
        file.truncate(5 << 30)
    began = time.process_time()
    with pytest.raises(WeightsError, match="promises"):
        load_weights(path)
    assert time.process_time() - began < 1


@given(st.binary(max_size=400), st.booleans())
@settings(max_examples=150, deadline=None)
def test_any_bytes_give_a_typed_error(tmp_path_factory: pytest.TempPathFactory, content: bytes, framed: bool) -> None:
    refused(tmp_path_factory.getbasetemp(), put_together(content, b"") if framed else content)


VALUES = (None, True, -1, 0, 3, 2**63, 10**30, 1.5, 1e999, "", "F32", "BF16", "inf", "\ud800\x00\x1b[31m", [], [[]], {})


def mutated(value: Any, draw: random.Random) -> Any:
    """`value` with one random change somewhere in it."""
    if isinstance(value, dict) and value and draw.random() < 0.85:
        key = draw.choice(list(value))
        kind = draw.random()
        rest = {k: v for k, v in value.items() if k != key}
        if kind < 0.1:
            return rest
        if kind < 0.2:
            return {**rest, draw.choice(("x", key + "x", "__metadata__", "")): value[key]}
        if key == "config" and isinstance(value[key], str) and kind < 0.9:
            return {**value, key: json.dumps(mutated(json.loads(value[key]), draw))}
        return {**value, key: mutated(value[key], draw)}
    if isinstance(value, list) and value and draw.random() < 0.7:
        at = draw.randrange(len(value))
        return [*value[:at], mutated(value[at], draw), *value[at + 1 :]]
    if isinstance(value, int) and draw.random() < 0.5:
        return value + draw.choice((-8, -4, -1, 1, 4, 1 << 40))
    return draw.choice(VALUES)


def fuzzed(content: bytes, draw: random.Random) -> bytes:
    """One hostile or damaged relative of a good file."""
    kind = draw.randrange(8)
    if kind == 0:  # bytes of the frame and the header change
        changed = bytearray(content)
        for _ in range(draw.randint(1, 6)):
            changed[draw.randrange(min(len(changed), 3000))] = draw.randrange(256)
        return bytes(changed)
    if kind == 1:
        return content[: draw.randrange(len(content))]
    if kind == 2:
        return content + draw.randbytes(draw.randint(1, 64))
    if kind == 3:  # bits anywhere
        at = draw.randrange(len(content))
        return content[:at] + bytes([content[at] ^ (1 << draw.randrange(8))]) + content[at + 1 :]
    if kind == 4:
        return struct.pack("<Q", draw.choice((0, 1, 7, 2**31, 2**64 - 1, len(content)))) + content[8:]
    header, body = taken_apart(content)
    for _ in range(draw.randint(1, 3)):
        header = mutated(header, draw)
    return put_together(header, body)


def test_five_thousand_fuzzed_files_give_only_typed_errors(tmp_path: Path, whole: bytes) -> None:
    draw = random.Random(0)
    path = tmp_path / "fuzzed.safetensors"
    outcomes, messages = {"refused": 0, "loaded": 0}, set()
    began = time.process_time()
    for _ in range(FUZZ_CASES):
        path.write_bytes(fuzzed(whole, draw))
        try:
            net = load_weights(path).net
            outcomes["loaded"] += 1
            assert all(bool(torch.isfinite(value).all()) for value in net.state_dict().values())
        except WeightsError as error:
            messages.add(str(error).removeprefix(str(path)))
            outcomes["refused"] += 1
    assert sum(outcomes.values()) == FUZZ_CASES
    assert all(message.isprintable() and len(message) < 400 for message in messages)
    assert outcomes["refused"] > 0.8 * FUZZ_CASES  # what is left are bits of parameters and of free texts
    assert time.process_time() - began < 60


def test_every_reason_is_a_dreamsr_error() -> None:
    assert issubclass(WeightsError, DreamsrError)
    assert FORMAT == "dreamsr-1"
    assert ProcessConfig().timesteps <= module.MAX_TIMESTEPS
