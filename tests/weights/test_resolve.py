"""What a name stands for when no network is needed: bundled weights, files, runs, and names that are nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from dreamsr.errors import DownloadError, WeightsError
from dreamsr.weights import registry as registry_module
from dreamsr.weights import resolve as module
from dreamsr.weights.registry import WeightsEntry, bundled_file, table
from dreamsr.weights.resolve import Reference, local_file, parse_reference, resolve_weights
from tests.weights.hub_machine import NAME, Machine

# Without a network


def with_registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *entries: WeightsEntry) -> None:
    path = tmp_path / "weights.toml"
    path.write_text("\n".join(table(entry) for entry in entries))
    monkeypatch.setattr(registry_module, "registry_file", lambda: path)


def test_a_name_that_is_not_published_yet_says_so(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = dataclasses.replace(machine.entry, repo="", revision="")
    with_registry(monkeypatch, machine.folder, entry)
    with pytest.raises(DownloadError, match="cannot be downloaded yet") as caught:
        resolve_weights(NAME)
    assert "404" not in str(caught.value)
    assert module.local_copy(entry) is None


def test_bundled_weights_are_checked(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = dataclasses.replace(machine.entry, bundled=True, repo="", revision="")
    with_registry(monkeypatch, machine.folder, entry)
    place = machine.folder / "bundled.safetensors"
    monkeypatch.setattr(module, "bundled_file", lambda _: place)
    with pytest.raises(WeightsError, match="missing; install dreamsr again"):
        resolve_weights(NAME)
    place.write_bytes(machine.content)
    assert resolve_weights(NAME) == place
    assert module.local_copy(entry) == place
    place.write_bytes(machine.content[:-1] + b"\0")
    with pytest.raises(WeightsError, match="damaged; install dreamsr again"):
        resolve_weights(NAME)
    assert bundled_file(NAME).name == f"{NAME}.safetensors"


def test_local_files_and_runs(tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "runs" / "x"
    run.mkdir(parents=True)
    with pytest.raises(WeightsError, match=r"holds no model\.safetensors"):
        resolve_weights("runs/x")
    (run / "model.safetensors").write_bytes(content)
    assert resolve_weights("runs/x") == Path("runs/x/model.safetensors")
    assert resolve_weights(str(run / "model.safetensors")) == run / "model.safetensors"
    (tmp_path / "old.pth").write_bytes(b"")
    with pytest.raises(WeightsError, match="pickles above all"):
        resolve_weights("old.pth")
    for name in ("./none", "/none", "none.safetensors", "runs/none.safetensors", "a\\b", "~/none\n"):
        with pytest.raises(WeightsError, match="no such file or folder"):
            resolve_weights(name)
    assert local_file("clean-x9") is None


@pytest.mark.parametrize(
    "name",
    [
        "clean-x9",
        " ",
        "a/b/c",
        "user/repo@",
        "user/repo:",
        "us er/repo",
        "https://a/b",
        "a/b@../x",
        "a--b/c",
        "a/b@-x",
    ],
)
def test_unknown_names_get_the_list(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match="known names"):
        resolve_weights(name)


def test_references_are_read() -> None:
    assert parse_reference("user/repo") == Reference("user/repo", "main", "model.safetensors")
    assert parse_reference("user/repo@v1.0") == Reference("user/repo", "v1.0", "model.safetensors")
    assert parse_reference("user/repo@refs/pr/1:a/b.safetensors") == Reference(
        "user/repo", "refs/pr/1", "a/b.safetensors"
    )
    assert parse_reference("user/repo:b.safetensors") == Reference("user/repo", "main", "b.safetensors")
    for file in ("model.pth", "../a.safetensors", "/a.safetensors", "a//b.safetensors"):
        with pytest.raises(WeightsError, match="other formats are not read"):
            parse_reference(f"user/repo:{file}")
