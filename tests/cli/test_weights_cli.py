"""`dreamsr weights` as a user sees it: what it prints, its exit codes, one line for every error."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from dreamsr.cli import main
from dreamsr.weights import inventory, registry, resolve
from dreamsr.weights.registry import WeightsEntry, parse_registry, table


@pytest.fixture
def shelf(tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A registry of three weights (one bundled, one published, one not yet); returns the bundled file."""
    content = tiny_weights.read_bytes()
    bundled = WeightsEntry(
        name="tiny-x4",
        description="a tiny net",
        backbone="refiner",
        scale=4,
        degradation="bicubic",
        steps=2,
        sha256=hashlib.sha256(content).hexdigest(),
        size_bytes=len(content),
        licence="cc0-1.0",
        training_data="noise",
        training_data_licence="cc0-1.0",
        bundled=True,
    )
    published = replace(bundled, name="far-x4", bundled=False, repo="user/far", revision="0" * 40)
    planned = replace(bundled, name="later-x4", bundled=False)
    (tmp_path / "weights.toml").write_text("\n".join(table(entry) for entry in (bundled, published, planned)))
    place = tmp_path / "tiny-x4.safetensors"
    place.write_bytes(content)
    monkeypatch.setattr(registry, "registry_file", lambda: tmp_path / "weights.toml")
    monkeypatch.setattr(resolve, "_cached", lambda _: None)
    for module in (resolve, inventory):
        monkeypatch.setattr(module, "bundled_file", lambda _: place)
    monkeypatch.chdir(tmp_path)
    return place


@pytest.mark.usefixtures("shelf")
def test_list_shows_what_is_here_and_what_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "list"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "-x4" in line]
    for line, (name, state) in zip(
        lines, [("tiny-x4", "bundled"), ("far-x4", "remote"), ("later-x4", "not published yet")], strict=True
    ):
        assert name in line
        assert state in line
        assert "cc0-1.0" in line


def test_list_as_json(shelf: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve, "_cached", lambda _: shelf)
    assert main(["weights", "list", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["name"], row["state"], row["path"]) for row in rows] == [
        ("tiny-x4", "bundled", str(shelf)),
        ("far-x4", "cached", str(shelf)),
        ("later-x4", "not published yet", None),
    ]
    assert rows[0]["training_data_licence"] == "cc0-1.0"


def test_info_of_a_name_is_its_table(shelf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "info", "tiny-x4"]) == 0
    printed = capsys.readouterr().out
    assert parse_registry(printed, source="printed")["tiny-x4"].licence == "cc0-1.0"
    assert f"# state: bundled, {shelf}" in printed
    assert main(["weights", "info", "later-x4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["state"] == "not published yet"


def test_info_of_a_file_is_its_header(shelf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "info", "./tiny-x4.safetensors"]) == 0
    assert "backbone: refiner\nscale: 4" in capsys.readouterr().out
    assert main(["weights", "info", str(shelf), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["facts"] == {"default_steps": 2}


def test_path_and_pull_of_bundled_weights(shelf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["path", "tiny-x4"], ["pull", "tiny-x4"], ["pull", "-q", "tiny-x4"]):
        assert main(["weights", *command]) == 0
        assert capsys.readouterr() == (f"{shelf}\n", "")


def test_verify_finds_damage(shelf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "verify"]) == 0
    assert capsys.readouterr().out == f"tiny-x4: ok, {shelf}\n"
    assert main(["weights", "verify", "far-x4"]) == 0
    assert "nothing to check" in capsys.readouterr().err
    content = shelf.read_bytes()
    shelf.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert main(["weights", "verify", "tiny-x4"]) == 1
    assert "not those of weights.toml" in capsys.readouterr().err
    shelf.unlink()
    assert main(["weights", "verify"]) == 1
    assert "is missing" in capsys.readouterr().err


@pytest.mark.usefixtures("shelf")
def test_verify_finds_a_table_that_does_not_fit_its_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (tmp_path / "weights.toml").read_text()
    (tmp_path / "other.toml").write_text(text.replace("scale = 4", "scale = 2"))
    monkeypatch.setattr(registry, "registry_file", lambda: tmp_path / "other.toml")
    assert main(["weights", "verify"]) == 1
    assert "is refiner x4, weights.toml says refiner x2" in capsys.readouterr().err


@pytest.mark.usefixtures("shelf")
@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["info", "tiny-x5"], 1, "did you mean tiny-x4?"),
        (["path", "later-x4"], 1, "cannot be downloaded yet"),
        (["verify", "nothing"], 1, "known names: tiny-x4, far-x4, later-x4"),
        (["pull", "./none.safetensors"], 1, "no such file or folder"),
        (["pull"], 2, "NAME"),
        (["push", "runs/none", "user/repo"], 2, "--licence"),
        (["nothing"], 2, "nothing"),
    ],
)
def test_errors_are_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, reason: str) -> None:
    assert main(["weights", *arguments]) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert reason in printed.err
    assert printed.err.startswith("error: ")
    assert len(printed.err.splitlines()) == 1


@pytest.mark.usefixtures("shelf")
def test_a_push_can_be_staged_without_a_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = ["--licence", "mit", "--data", "noise", "--data-licence", "cc0-1.0", "--stage", "staged"]
    assert main(["weights", "push", "tiny-x4.safetensors", "user/tiny", *said]) == 0
    printed = capsys.readouterr()
    (entry,) = parse_registry(printed.out, source="printed").values()
    assert (entry.name, entry.published) == ("tiny", False)
    assert "nothing was uploaded" in printed.err
    assert {path.name for path in (tmp_path / "staged").iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
        "sample.png",
        "weights.toml",
    }


def test_help_and_list_need_neither_torch_nor_the_hub(tmp_path: Path) -> None:
    code = (
        "import sys; from dreamsr.cli import main; main(['weights', '--help']); main(['weights', 'push', '--help'])\n"
        "assert not {'torch', 'huggingface_hub', 'safetensors'} & set(sys.modules)\n"
    )
    root = str(Path(__file__).parents[2])
    environment = {"PYTHONPATH": root, "HF_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "push" in done.stdout
