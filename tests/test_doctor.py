"""The doctor tells the truth, also about what is wrong."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from dreamsr import cli, doctor
from dreamsr.errors import WeightsError
from dreamsr.weights.registry import WeightsEntry

ENTRY = WeightsEntry(
    name="some-x4",
    description="",
    backbone="refiner",
    scale=4,
    degradation="",
    steps=4,
    sha256="",
    size_bytes=1,
    licence="",
    training_data="",
    training_data_licence="",
    bundled=True,
)


def see(monkeypatch: pytest.MonkeyPatch, path: Path | None, *, bundled: bool = True, repo: str = "") -> None:
    entry = replace(ENTRY, bundled=bundled, repo=repo, sha256=hashlib.sha256(b"right").hexdigest())
    monkeypatch.setattr(doctor, "registry", lambda: {entry.name: entry})
    monkeypatch.setattr(doctor, "local_copy", lambda _: path)


def test_everything_is_plain_and_told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "registry", dict)
    assert cli.main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["libraries"]["torch"]
    assert found["devices"][-1]["name"] == "cpu"
    assert found["dtype"] in ("bfloat16", "float32")
    assert found["why"]
    assert 0 < found["memory_bytes"]["free"] <= found["memory_bytes"]["total"]
    assert found["problems"] == []


@pytest.mark.parametrize(
    ("data", "state", "code"), [(b"right", "ok", 0), (b"wrong", "damaged", 1), (None, "missing", 1)]
)
def test_bundled_weights_are_checked(
    data: bytes | None,
    state: str,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if data is not None:
        (tmp_path / "w").write_bytes(data)
    see(monkeypatch, None if data is None else tmp_path / "w")
    assert cli.main(["doctor"]) == code
    said = capsys.readouterr()
    assert f"some-x4: {state}" in said.out
    assert ("warning: the weights some-x4 are" in said.err) == bool(code)


def test_weights_to_be_fetched_are_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    see(monkeypatch, None, bundled=False, repo="user/repo")
    found = doctor.examine()
    assert found["weights"][0]["state"].startswith("not here")
    assert found["problems"] == []


def test_a_broken_registry_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise WeightsError("weights.toml is missing; install dreamsr again")

    monkeypatch.setattr(doctor, "registry", broken)
    assert doctor.examine()["problems"] == ["weights.toml is missing; install dreamsr again"]
