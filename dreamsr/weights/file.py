"""Weights files: safetensors with the model's configuration in the header, checked before anything is built.

A file is judged from its header alone, which must stay small: names, shapes, dtypes and sizes have to be exactly
those of the net that the configuration describes, and the bytes exactly as many as they promise. Only then is
the rest read.
"""

from __future__ import annotations

import dataclasses
import json
import math
import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from dreamsr.config import from_mapping, to_mapping
from dreamsr.core.denoiser import Traits
from dreamsr.core.model import ModelConfig, build_net
from dreamsr.core.process import build_process
from dreamsr.disk import json_text, parse_json, write_bytes_atomically
from dreamsr.errors import ConfigError, WeightsError, printable

FORMAT = "dreamsr-1"
FILE_NAME = "model.safetensors"
MAX_HEADER_BYTES = 1 << 20
MAX_TIMESTEPS = 100_000
BYTES_PER_VALUE = {"F16": 2, "BF16": 2, "F32": 4}
MAX_DIMENSIONS = 8
MAX_SIZE = 1 << 48
LENGTH_BYTES = 8  # the header's length, little-endian, stands before the header


@dataclass(frozen=True)
class Weights:
    """One loaded file: how the net is built, its parameters in float32, and what else the header told."""

    config: ModelConfig
    net: nn.Module
    facts: Mapping[str, Any]

    @property
    def traits(self) -> Traits:
        """What training made of the net, as its settings in the header tell; a clean, unfinished one if they do not."""
        settings = self.facts.get("train")
        settings = settings if isinstance(settings, dict) else {}
        finish = settings.get("finish")
        steps = finish.get("steps", 0) if isinstance(finish, dict) else 0
        return Traits.of(degradation=settings.get("degradation", "bicubic"), finish_steps=steps)


class _Unfit(Exception):
    """Why a file is refused, without its name."""


def save_weights(
    path: Path, state: Mapping[str, Tensor], config: ModelConfig, *, facts: Mapping[str, Any], dtype: torch.dtype
) -> None:
    """Write parameters as `dtype` with `config` and `facts` (JSON values) in the header, atomically.

    Same arguments, same bytes. Raises OutputError, and WeightsError for facts too long to be read back.
    """
    tensors = {name: value.detach().to("cpu", dtype).contiguous() for name, value in state.items()}
    header = {"format": FORMAT, "config": json_text(to_mapping(config)), "facts": json_text(facts)}
    write_bytes_atomically(path, _ordered(save(tensors, metadata=header)))


def _ordered(content: bytes) -> bytes:
    """The same file with the metadata sorted: safetensors writes it in a random order."""
    end = LENGTH_BYTES + struct.unpack("<Q", content[:LENGTH_BYTES])[0]
    header = json.loads(content[LENGTH_BYTES:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors stay aligned
    if len(text) > MAX_HEADER_BYTES:
        raise WeightsError(f"the facts about these weights take {len(text)} bytes; possible: {MAX_HEADER_BYTES}")
    return struct.pack("<Q", len(text)) + text + content[end:]


def load_weights(path: Path) -> Weights:
    """Read and check one file. Raises WeightsError for anything that is not exactly what its header promises."""
    try:
        with _open(path) as file:
            header, size = _read_header(file)
            config, facts = _read_model(header.pop("__metadata__", None))
            _check_places(header, size)
            _check_process(config)
            net = _empty_net(config)
            _check_shapes(header, net)
            file.seek(0)
            # A copy, not a map: a file that shrinks while it is mapped would kill the process.
            data = file.read()
        net.load_state_dict(_tensors(data), assign=True)
    except FileNotFoundError:
        raise WeightsError(f"{printable(path)}: no such weights file") from None
    except _Unfit as reason:
        raise WeightsError(f"{printable(path)}: {reason}") from None
    except (OSError, ValueError) as error:
        raise WeightsError(f"{printable(path)}: cannot be read ({_brief(error)})") from None
    return Weights(config, net.eval().requires_grad_(False), facts)


def _open(path: Path) -> BinaryIO:
    if not stat.S_ISREG(path.stat().st_mode):  # a pipe or a device could be read forever
        raise _Unfit("not a file")
    return path.open("rb")


def _read_header(file: BinaryIO) -> tuple[dict[str, Any], int]:
    """(the header, how many bytes of tensors follow it); the file's length is trusted, its content is not."""
    size = file.seek(0, 2)
    file.seek(0)
    if size < LENGTH_BYTES:
        raise _Unfit(f"not a safetensors file ({size} bytes)")
    (length,) = struct.unpack("<Q", file.read(LENGTH_BYTES))
    if length > MAX_HEADER_BYTES:
        raise _Unfit(f"not a safetensors file, or its header is larger than {MAX_HEADER_BYTES} bytes")
    if length > size - LENGTH_BYTES:
        raise _Unfit(f"cut off: the header alone takes {length} bytes, the file has {size}")
    header = _json(file.read(length), "the header")
    return header, size - LENGTH_BYTES - length


def _json(text: str | bytes, what: str) -> dict[str, Any]:
    """A JSON object without duplicate keys and without numbers that are none."""
    try:
        value = parse_json(text)
    except ValueError as error:
        raise _Unfit(f"{what} is damaged ({_brief(error)})") from None
    if not isinstance(value, dict):
        raise _Unfit(f"{what} is damaged (not a table)")
    return value


def _read_model(header: object) -> tuple[ModelConfig, Mapping[str, Any]]:
    if not isinstance(header, dict) or not all(isinstance(value, str) for value in header.values()):
        raise _Unfit(f"not dreamsr weights (no header of format {FORMAT!r})")
    if header.get("format") != FORMAT:
        raise _Unfit(f"not dreamsr weights (header format is {_brief(header.get('format'))}, need {FORMAT!r})")
    values = _json(header.get("config", ""), "the header's configuration")
    facts = _json(header.get("facts", "{}"), "the header's facts")
    try:
        config = from_mapping(ModelConfig, values, source="header")
    except (ConfigError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise _Unfit(f"the header's configuration is damaged ({_brief(error)})") from None
    if not _is_finite(dataclasses.asdict(config)):
        raise _Unfit("the header's configuration holds an infinite number")
    return config, facts


def _is_finite(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_is_finite(inner) for inner in value.values())
    return not isinstance(value, float) or math.isfinite(value)


def _check_process(config: ModelConfig) -> None:
    """The tables over time must be buildable, of bearable size, and made of numbers."""
    steps = config.process.timesteps
    if steps > MAX_TIMESTEPS:
        raise _Unfit(f"process.timesteps is {steps}, possible: 1..{MAX_TIMESTEPS}")
    try:
        process = build_process(config.process)
        times = torch.arange(1, steps + 1, dtype=torch.float64)
        values = torch.cat([process.std(times), process.signal(times), process.level(times)])
    except (RuntimeError, ValueError, TypeError, ArithmeticError) as error:
        raise _Unfit(f"no process can be built from the header's configuration ({_brief(error)})") from None
    if not bool(torch.isfinite(values).all()):
        raise _Unfit("the header's process gives values that are not numbers")


def _empty_net(config: ModelConfig) -> nn.Module:
    """The net with shapes but without memory, to compare the file against."""
    try:
        with torch.device("meta"):
            return build_net(config)
    except (RuntimeError, ValueError, TypeError, ArithmeticError) as error:
        raise _Unfit(f"no net can be built from the header's configuration ({_brief(error)})") from None


def _check_places(tensors: Mapping[str, Any], size: int) -> None:
    """Every byte after the header belongs to exactly one tensor."""
    end = 0
    for begin, stop in sorted(_span(name, facts) for name, facts in tensors.items()):
        if begin != end:
            raise _Unfit(f"tensors overlap or leave a gap at byte {_brief(min(begin, end))}")
        end = stop
    if end != size:
        raise _Unfit(f"holds {size} bytes of tensors, its header promises {_brief(end)}; cut off or damaged")


def _span(name: str, facts: object) -> tuple[int, int]:
    """Where a tensor begins and ends, after its dtype, shape and size were found to agree."""
    if not isinstance(facts, dict) or set(facts) != {"dtype", "shape", "data_offsets"}:
        raise _Unfit(f"{_brief(name)} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = facts["dtype"], facts["shape"], facts["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BYTES_PER_VALUE:
        raise _Unfit(f"{_brief(name)} is stored as {_brief(dtype)}, possible: {', '.join(BYTES_PER_VALUE)}")
    if not _are_sizes(shape) or len(shape) > MAX_DIMENSIONS:
        raise _Unfit(f"{_brief(name)} has no usable shape ({_brief(shape)})")
    if not _are_sizes(offsets) or len(offsets) != 2:
        raise _Unfit(f"{_brief(name)} has no usable place ({_brief(offsets)})")
    begin, stop = offsets
    wanted = math.prod(shape) * BYTES_PER_VALUE[dtype]
    if stop - begin != wanted:
        raise _Unfit(f"{_brief(name)} takes {_brief(stop - begin)} bytes, its shape needs {_brief(wanted)}")
    return begin, stop


def _are_sizes(values: object) -> TypeGuard[list[int]]:
    return isinstance(values, list) and all(type(value) is int and 0 <= value <= MAX_SIZE for value in values)


def _check_shapes(tensors: Mapping[str, Any], net: nn.Module) -> None:
    """Exactly the tensors of the net that the configuration describes, in exactly their shapes."""
    expected = {name: list(value.shape) for name, value in net.state_dict().items()}
    odd = sorted(set(tensors) ^ set(expected))
    if odd:
        raise _Unfit(f"{len(odd)} tensors missing or unknown, first {_brief(odd[0])}")
    for name, shape in expected.items():
        if tensors[name]["shape"] != shape:
            raise _Unfit(f"{name} is {_brief(tensors[name]['shape'])}, its configuration says {shape}")


def _tensors(data: bytes) -> dict[str, Tensor]:
    try:
        state = {name: value.float() for name, value in load(data).items()}
    except SafetensorError as error:
        raise _Unfit(f"not a readable safetensors file ({_brief(error)})") from None
    bad = [name for name, value in state.items() if not bool(torch.isfinite(value).all())]
    if bad:
        raise _Unfit(f"{bad[0]} holds values that are not numbers")
    return state


def _brief(value: object) -> str:
    """What a stranger's file says, fit for one line."""
    text = printable(str(value) if isinstance(value, Exception) else repr(value))
    return text if len(text) <= 100 else text[:97] + "..."
