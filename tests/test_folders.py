"""Which files a command line means."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from dreamsr.folders import Source, find_sources, identity


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("b.png", "a.JPG", "note.txt", ".hidden.png", "in/c.webp", "in/deep/d.tif", ".git/e.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path


def names(*inputs: str, recursive: bool = False) -> list[str]:
    return [source.path.as_posix() for source in find_sources(inputs, recursive=recursive)[0]]


@pytest.mark.usefixtures("folder")
def test_folders_give_their_pictures_and_with_recursive_those_below() -> None:
    assert names(".") == ["a.JPG", "b.png"]
    assert names(".", recursive=True) == ["a.JPG", "b.png", "in/c.webp", "in/deep/d.tif"]


def test_sources_know_their_place_below_the_named_folder(folder: Path) -> None:
    sources, _ = find_sources([str(folder)], recursive=True)
    assert [source.tree.as_posix() for source in sources] == [".", ".", "in", "in/deep"]
    assert not any(source.named for source in sources)


@pytest.mark.usefixtures("folder")
def test_globs_are_expanded_for_shells_that_do_not() -> None:
    assert names("*.png") == ["b.png"]
    assert names("**/*.tif") == ["in/deep/d.tif"]
    assert names("i*") == []
    assert names("i*", recursive=True) == ["in/c.webp", "in/deep/d.tif"]


def test_a_file_with_brackets_in_its_name_is_itself(folder: Path) -> None:
    (folder / "x[1].png").write_bytes(b"x")
    assert names("x[1].png") == ["x[1].png"]


def test_each_file_is_taken_once_also_through_links(folder: Path) -> None:
    (folder / "link.png").symlink_to("b.png")
    assert names("b.png", "./b.png", "b.png") == ["b.png"]
    assert names("link.png", "b.png") == ["link.png"]


def test_loops_of_links_end(folder: Path) -> None:
    (folder / "in" / "loop").symlink_to(folder)
    assert len(names(".", recursive=True)) == 4


@pytest.mark.parametrize(
    ("name", "reason"), [("*.bmp", "matches no file"), ("empty", "holds no pictures"), ("empty", "`recursive`")]
)
def test_nothing_found_is_a_problem(folder: Path, name: str, reason: str) -> None:
    (folder / "empty").mkdir()
    sources, problems = find_sources([name, "b.png"], recursive=False)
    assert [source.path.name for source in sources] == ["b.png"]
    assert problems[0].name == name
    assert reason in problems[0].reason


@pytest.mark.usefixtures("folder")
def test_missing_files_are_left_for_the_reader_to_refuse() -> None:
    assert names("missing.png", "a\0b") == ["missing.png", "a\0b"]


def test_standard_input_is_a_source() -> None:
    assert find_sources(["-"], recursive=False)[0] == [Source(Path("-"))]
    assert find_sources(["-"], recursive=False)[0][0].label == "standard input"


def test_identity_levels_case_accents_and_links(folder: Path) -> None:
    assert identity(folder / "A.png") == identity(folder / "a.PNG")
    assert identity(folder / "\u00e9.png") == identity(folder / "e\u0301.png")
    (folder / "way").symlink_to(folder / "in", target_is_directory=True)
    assert identity(folder / "way" / "c.webp") == identity(Path(os.path.join(folder, "in", "c.webp")))  # noqa: PTH118


def left_out(*inputs: str, recursive: bool = False) -> list[str]:
    kinds: list[str] = []
    find_sources(inputs, recursive=recursive, on_left_out=kinds.append)
    return sorted(kinds)


def test_what_folders_hold_besides_is_told_by_kind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "scan").write_bytes(b"x")
    (folder / "in" / "b.GIF").write_bytes(b"x")
    (folder / "link").symlink_to(folder / "in")
    assert left_out(".") == [".txt", "file without ending", "folder in it", "folder in it"]
    assert left_out(".", recursive=True) == [".gif", ".txt", "file without ending", "linked folder"]
    assert left_out("b.png") == []

    def refuse(path: str) -> Any:
        raise PermissionError(13, "no", path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert left_out("in", recursive=True) == ["unreadable folder"]


def test_a_pipe_in_a_folder_is_not_opened(folder: Path) -> None:
    os.mkfifo(folder / "pipe.png")
    (folder / "nowhere.png").symlink_to("missing")
    assert names(".") == ["a.JPG", "b.png", "nowhere.png"]
    assert "pipe or device" in left_out(".")


def test_folders_with_brackets_in_their_names_hold_globs(folder: Path) -> None:
    for place in ("x[1]/[y]/1.png", "x1/[y]/2.png"):
        (folder / place).parent.mkdir(parents=True)
        (folder / place).write_bytes(b"x")
    assert names("x[1]/[y]/*.png") == ["x[1]/[y]/1.png"]
    assert names("x[12]/*/*.png") == ["x1/[y]/2.png"]
    assert names(str(folder / "x[1]" / "**" / "?.png")) == [(folder / "x[1]/[y]/1.png").as_posix()]


def test_a_folder_that_cannot_be_read_is_not_called_empty(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "shut").mkdir()
    monkeypatch.setattr(os, "access", lambda path, _: path != "shut")
    _, (problem,) = find_sources(["shut"], recursive=True)
    assert "cannot be read" in problem.reason
