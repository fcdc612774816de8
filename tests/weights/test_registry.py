"""weights.toml: the shipped tables are true, and a wrong table is refused with the reason."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamsr.core.backbones import config_classes
from dreamsr.errors import WeightsError
from dreamsr.weights import registry as module
from dreamsr.weights.file import load_weights
from dreamsr.weights.registry import (
    WeightsEntry,
    bundled_file,
    describe_weights,
    parse_registry,
    registry,
    registry_file,
    table,
    unknown_weights,
)

GOOD = WeightsEntry(
    name="photo-x4",
    description="four times",
    backbone="refiner",
    scale=4,
    degradation="MATLAB bicubic",
    steps=4,
    sha256="ab" * 32,
    size_bytes=1000,
    licence="apache-2.0",
    training_data="photos",
    training_data_licence="CC0-1.0",
    repo="user/photo-x4",
    revision="0" * 40,
    metrics=({"dataset": "Set14", "protocol": "Y, 4 px shaved", "psnr_db": 28.5, "steps": 4},),
)
SHIPPED = list(registry().values())


def test_the_shipped_registry_is_found_and_read() -> None:
    assert registry_file().name == "weights.toml"
    assert list(registry()) == [entry.name for entry in SHIPPED]


@pytest.mark.parametrize("entry", SHIPPED, ids=lambda entry: entry.name)
def test_every_shipped_table_is_complete_and_its_bundled_bytes_match(entry: WeightsEntry) -> None:
    assert entry.backbone in config_classes()
    assert re.fullmatch("[0-9a-f]{64}", entry.sha256)
    assert entry.licence.strip()
    assert entry.training_data.strip()
    assert entry.training_data_licence.strip()
    assert not entry.repo or re.fullmatch("[0-9a-f]{40}", entry.revision)
    assert describe_weights(entry.name) == entry
    if entry.bundled:
        content = bundled_file(entry.name).read_bytes()
        assert len(content) == entry.size_bytes
        assert hashlib.sha256(content).hexdigest() == entry.sha256
        config = load_weights(bundled_file(entry.name)).config
        assert (config.backbone, config.scale) == (entry.backbone, entry.scale)


def test_no_bundled_file_is_without_a_table() -> None:
    folder = bundled_file("any").parent
    found = {path.stem for path in folder.glob("*.safetensors")}
    assert found == {entry.name for entry in SHIPPED if entry.bundled}


def test_the_backbones_of_the_registry_are_those_that_can_be_built() -> None:
    for name in config_classes():
        entry = dataclasses.replace(GOOD, backbone=name)
        assert parse_registry(table(entry), source="test") == {"photo-x4": entry}


def test_a_table_is_read_back_as_it_was_written() -> None:
    assert parse_registry(table(GOOD), source="test") == {"photo-x4": GOOD}
    dotted = dataclasses.replace(GOOD, name="photo-1.5x")
    assert parse_registry(table(dotted) + "\n" + table(GOOD), source="test") == {"photo-1.5x": dotted, "photo-x4": GOOD}


TEXT = st.text(min_size=1).filter(str.strip)


@given(TEXT, TEXT, st.floats(allow_nan=False, allow_infinity=False), st.text())
@settings(max_examples=100, deadline=None)
def test_any_text_survives_the_table(description: str, dataset: str, value: float, key: str) -> None:
    metrics = ({"dataset": dataset, "protocol": "p", f"_{key}": value},)
    entry = dataclasses.replace(GOOD, description=description, metrics=metrics)
    assert parse_registry(table(entry), source="test") == {"photo-x4": entry}


WRONG = {
    "no TOML": ("= 1", "not TOML"),
    "no table": ('photo-x4 = "a"', "must be a table"),
    "bad name": (table(GOOD).replace("photo-x4]", '"Photo x4"]', 1), "a name is made of"),
    "unknown key": (table(GOOD).replace("steps =", "colour = 1\nsteps =", 1), "colour is unknown"),
    "missing": (table(GOOD).replace('licence = "apache-2.0"', ""), "licence is missing"),
    "type": (table(GOOD).replace("scale = 4", 'scale = "4"'), "must be of type int"),
    "bool for int": (table(GOOD).replace("scale = 4", "scale = true"), "must be of type int"),
    "backbone": (table(GOOD).replace('"refiner"', '"esrgan"'), "possible: refiner"),
    "scale": (table(GOOD).replace("scale = 4", "scale = 0"), "1 or more"),
    "sha256": (table(GOOD).replace("ab" * 32, "AB" * 32), "64 hexadecimal"),
    "repo": (table(GOOD).replace("user/photo-x4", "https://example.org/a"), "user/repo"),
    "revision": (table(GOOD).replace("0" * 40, "main"), "40 hexadecimal"),
    "file": (table(GOOD).replace("model.safetensors", "../a.safetensors"), "must be a .safetensors"),
    "pickle": (table(GOOD).replace("model.safetensors", "model.pth"), "must be a .safetensors"),
    "empty licence": (table(GOOD).replace("apache-2.0", " "), "licence is empty"),
    "metrics no tables": (table(GOOD).split("[[")[0] + "metrics = 3", "must be tables"),
    "metrics nested": (table(GOOD).replace("psnr_db = 28.5", "psnr_db = [1]"), "texts and finite numbers"),
    "metrics nan": (table(GOOD).replace("psnr_db = 28.5", "psnr_db = nan"), "texts and finite numbers"),
    "metrics bare": (table(GOOD).replace("protocol =", "other ="), "dataset and protocol"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_tables_are_refused_with_the_reason(name: str) -> None:
    text, reason = WRONG[name]
    with pytest.raises(WeightsError, match=re.escape(reason)) as caught:
        parse_registry(text, source="weights.toml")
    assert str(caught.value).startswith("weights.toml: ")


def test_an_unknown_name_gets_a_hint_and_the_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights.toml"
    path.write_text(table(GOOD))
    monkeypatch.setattr(module, "registry_file", lambda: path)
    message = str(unknown_weights("foto-x4"))
    assert "did you mean photo-x4?" in message
    assert "known names: photo-x4" in message
    assert "user/repo" in message
    assert "did you mean" not in str(unknown_weights("zzz"))


def test_a_missing_or_unreadable_registry_is_a_typed_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "registry_file", lambda: tmp_path / "none.toml")
    with pytest.raises(WeightsError, match="cannot be read"):
        registry()
    monkeypatch.undo()
    monkeypatch.setattr(module, "files", lambda _: tmp_path / "dreamsr")
    with pytest.raises(WeightsError, match="install dreamsr again"):
        registry_file()


def test_an_installed_registry_goes_before_one_beside_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dreamsr").mkdir()
    monkeypatch.setattr(module, "files", lambda _: tmp_path / "dreamsr")
    (tmp_path / "weights.toml").write_text("")
    assert registry_file() == tmp_path / "weights.toml"
    (tmp_path / "dreamsr" / "weights.toml").write_text("")
    assert registry_file() == tmp_path / "dreamsr" / "weights.toml"


def test_an_entry_can_be_shown_as_json() -> None:
    assert json.loads(json.dumps(dataclasses.asdict(GOOD)))["metrics"][0]["psnr_db"] == 28.5
