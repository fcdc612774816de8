"""`dreamsr upscale` as people use it."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dreamsr import cli
from dreamsr.cli import upscale_view
from dreamsr.folders import Source
from dreamsr.pictures.read import read_picture
from dreamsr.upscaling.plan import Job

Run = Callable[..., int]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    for name in ("RANK", "WORLD_SIZE", "DREAMSR_TRACEBACK"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def upscale(tiny_weights: Path) -> Run:
    def run(*arguments: str) -> int:
        return cli.main(["upscale", "--weights", str(tiny_weights), "--device", "cpu", *arguments])

    return run


def draw(name: str, size: tuple[int, int] = (12, 9), mode: str = "RGB", seed: int = 0, **options: Any) -> Path:
    rng = np.random.default_rng(seed)
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (size[1], size[0], 4), np.uint8)).convert(mode).save(path, **options)
    return path


def size_of(path: str) -> tuple[int, int]:
    picture = read_picture(path)
    return picture.width, picture.height


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def tree(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


# --- one picture ------------------------------------------------------------------------------------------------------


def test_one_picture(upscale: Run, capsys: pytest.CaptureFixture[str]) -> None:
    draw("a.png")
    assert upscale("a.png") == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("a.png -> a_x4.png  12x9 to 48x36 in ")
    assert size_of("a_x4.png") == (48, 36)


@pytest.mark.parametrize(
    ("options", "size"),
    [
        (["-s", "1.5"], (18, 14)),
        (["--scale", "16"], (192, 144)),
        (["--width", "40"], (40, 30)),
        (["--height", "30"], (40, 30)),
        (["--width", "40", "--height", "40"], (40, 40)),
        (["--max-side", "100"], (100, 75)),
    ],
)
def test_sizes(upscale: Run, options: Sequence[str], size: tuple[int, int]) -> None:
    draw("a.png")
    assert upscale("a.png", *options, "-o", "b.png", "-q") == 0
    assert size_of("b.png") == size


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (17, 3)])
@pytest.mark.parametrize(
    ("mode", "ending", "expected"),
    [
        ("1", "png", "L"),
        ("L", "png", "L"),
        ("L", "jpg", "L"),
        ("L", "tif", "L"),
        ("L", "avif", "L"),
        ("LA", "png", "LA"),
        ("P", "png", "RGBA"),
        ("RGB", "png", "RGB"),
        ("RGB", "bmp", "RGB"),
        ("RGB", "webp", "RGB"),
        ("RGB", "avif", "RGB"),
        ("RGBA", "png", "RGBA"),
        ("RGBA", "webp", "RGBA"),
        ("RGBA", "tif", "RGBA"),
        ("CMYK", "jpg", "RGB"),
        ("CMYK", "tif", "RGB"),
        ("I;16", "png", "I;16"),
        ("I;16", "tif", "I;16"),
    ],
)
def test_every_mode_comes_back(upscale: Run, mode: str, ending: str, expected: str, size: tuple[int, int]) -> None:
    if mode == "I;16":
        deep = np.random.default_rng(0).integers(0, 65536, (size[1], size[0]), np.uint16)
        Image.fromarray(deep).save(f"a.{ending}")
    else:
        draw(f"a.{ending}", size, mode)
    assert upscale(f"a.{ending}", "--steps", "1", "-s", "3") == 0
    with Image.open(f"a_x3.{ending}") as result:
        assert (result.mode, result.size) == (expected, (3 * size[0], 3 * size[1]))


def test_sixteen_bit_colour_stays(upscale: Run) -> None:
    from dreamsr.pictures.picture import Picture
    from dreamsr.pictures.write import write_picture

    deep = np.random.default_rng(0).integers(0, 65536, (9, 9, 3), np.uint16)
    write_picture("a.png", Picture(deep))
    assert upscale("a.png", "-s", "2") == 0
    assert read_picture("a_x2.png").pixels.dtype == np.uint16


def test_losing_depth_is_told(upscale: Run, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 999).save("a.png")
    assert upscale("a.png", "-o", "a.jpg", "--json") == 0
    said = capsys.readouterr()
    assert "16 bit became 8 bit" in said.err
    assert lines(said.out)[0]["notes"] == ["16 bit became 8 bit, which is all that JPEG holds"]


def test_metadata_stays_or_goes(upscale: Run) -> None:
    exif = Image.Exif()
    exif[0x010F] = "Camera"
    exif[0x0112] = 6
    draw("a.jpg", exif=exif)
    assert upscale("a.jpg") == 0
    assert upscale("a.jpg", "--strip", "-o", "bare.jpg") == 0
    with Image.open("a_x4.jpg") as kept, Image.open("bare.jpg") as bare:
        assert (kept.getexif()[0x010F], kept.size) == ("Camera", (36, 48))
        assert kept.getexif().get(0x0112, 1) == 1
        assert not bare.getexif()


def test_transparency_needs_a_format_that_holds_it(upscale: Run, capsys: pytest.CaptureFixture[str]) -> None:
    draw("a.png", mode="RGBA")
    assert upscale("a.png", "-o", "a.jpg") == 1
    assert "transparency, which JPEG cannot hold" in capsys.readouterr().err
    assert not Path("a.jpg").exists()


def test_quality_changes_the_size(upscale: Run) -> None:
    draw("a.png", (40, 40))
    assert upscale("a.png", "-o", "low.jpg", "--quality", "20") == upscale("a.png", "-o", "high.jpg") == 0
    assert Path("low.jpg").stat().st_size < Path("high.jpg").stat().st_size


@pytest.mark.parametrize("options", [["--steps", "1"], ["--steps", "50", "--fidelity", "0.5"], ["--tile", "72"]])
def test_same_seed_same_bytes(upscale: Run, options: Sequence[str]) -> None:
    draw("a.png", (30, 20))
    for name in ("1.png", "2.png"):
        assert upscale("a.png", "-o", name, "--seed", "3", *options) == 0
    assert upscale("a.png", "-o", "3.png", "--seed", "4", *options) == 0
    assert Path("1.png").read_bytes() == Path("2.png").read_bytes() != Path("3.png").read_bytes()


def test_consistency_is_told(upscale: Run, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(np.full((20, 20, 3), 90, np.uint8) + np.arange(20, dtype=np.uint8)[:, None]).save("a.png")
    assert upscale("a.png", "--json", "--consistency") == 0
    assert lines(capsys.readouterr().out)[0]["consistency_db"] > 40


# --- many pictures ----------------------------------------------------------------------------------------------------


def test_folders_keep_their_tree(upscale: Run, folder: Path) -> None:
    for name in ("in/a.jpg", "in/a.png", "in/deep/b.webp"):
        draw(name)
    assert upscale("in", "-r", "-o", "out", "--format", "png", "-s", "2") == 0
    assert tree(folder / "out") == ["a_jpg_x2.png", "a_png_x2.png", "deep/b_x2.png"]


def test_bad_files_are_passed_over(upscale: Run, capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    draw("in/a.png")
    draw("in/z.png")
    (folder / "in/bad.png").write_bytes(b"nothing")
    whole = draw("in/cut.jpg", (200, 200)).read_bytes()
    (folder / "in/cut.jpg").write_bytes(whole[: len(whole) // 2])
    assert upscale("in", "gone.png", "-o", "out", "--json") == 1
    said = capsys.readouterr()
    found = {entry["input"]: entry["status"] for entry in lines(said.out)}
    assert found == {
        "in/a.png": "done",
        "in/z.png": "done",
        "in/bad.png": "failed",
        "in/cut.jpg": "failed",
        "gone.png": "failed",
    }
    assert said.err.count("error: ") == 3
    assert said.err.splitlines()[-1].startswith("2 done, 3 failed in ")
    assert tree(folder / "out") == ["a_x4.png", "z_x4.png"]


def test_json_has_one_line_per_file_and_nothing_else(upscale: Run, capsys: pytest.CaptureFixture[str]) -> None:
    draw("a.png")
    draw("b.png")
    assert upscale("a.png", "b.png", "--json", "-q") == 0
    said = capsys.readouterr()
    assert said.err == ""
    first = lines(said.out)[0]
    assert first.pop("seconds") >= 0
    assert first.pop("weights").endswith(".safetensors")
    assert first == {
        "input": "a.png",
        "output": "a_x4.png",
        "status": "done",
        "input_width": 12,
        "input_height": 9,
        "width": 48,
        "height": 36,
        "format": "PNG",
    }


def test_skipping_takes_only_what_is_whole(upscale: Run, capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        draw(f"in/{name}", (30, 30))
    assert upscale("in", "-o", "out") == 0
    before = {name: (folder / "out" / name).read_bytes() for name in tree(folder / "out")}
    (folder / "out/b_x4.png").write_bytes(before["b_x4.png"][:-20])
    (folder / "out/c_x4.png").unlink()
    capsys.readouterr()
    assert upscale("in", "-o", "out", "--if-exists", "skip", "--json") == 0
    assert [entry["status"] for entry in lines(capsys.readouterr().out)] == ["skipped", "done", "done"]
    assert {name: (folder / "out" / name).read_bytes() for name in tree(folder / "out")} == before


def test_skipping_does_not_take_a_picture_of_another_size(upscale: Run, capsys: pytest.CaptureFixture[str]) -> None:
    draw("a.png")
    mine = draw("b.png", (3, 3)).read_bytes()
    assert upscale("a.png", "-o", "b.png", "--if-exists", "skip") == 1
    assert "exists with 3x3 instead of 48x36 px" in capsys.readouterr().err
    assert Path("b.png").read_bytes() == mine


def test_existing_results_are_never_replaced_unasked(upscale: Run, capsys: pytest.CaptureFixture[str]) -> None:
    draw("a.png")
    draw("a_x4.png", (2, 2))
    assert upscale("a.png") == 1
    assert capsys.readouterr().err.startswith("error: a_x4.png exists already; choose --if-exists")
    assert upscale("a.png", "--if-exists", "rename") == 0
    assert size_of("a_x4_2.png") == (48, 36)
    assert size_of("a_x4.png") == (2, 2)
    assert upscale("a.png", "--if-exists", "overwrite") == 0
    assert size_of("a_x4.png") == (48, 36)


def test_an_input_is_never_touched(upscale: Run, capsys: pytest.CaptureFixture[str]) -> None:
    before = draw("a.png").read_bytes()
    assert upscale("a.png", "-o", "a.png", "--if-exists", "overwrite") == 1
    assert "is an input" in capsys.readouterr().err
    assert Path("a.png").read_bytes() == before


def test_a_dry_run_shows_all_and_does_nothing(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    draw("in/a.png")
    (folder / "in/bad.png").write_bytes(b"?")
    assert cli.main(["upscale", "in", "-o", "out", "--dry-run", "--weights", "there/are/none"]) == 1
    said = capsys.readouterr().err
    assert "in/a.png -> out/a_x4.png  12x9 to 48x36, PNG" in said
    assert "1 planned, 1 failed" in said
    assert tree(folder) == ["in/a.png", "in/bad.png"]
    assert not (folder / "out").exists()


def test_odd_names_survive(upscale: Run, capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    for name in ("bücher & [brackets].png", "new\nline.png", "-dash.png", "日本.png", "a.b.c.png"):
        draw("in/x.png")
        (folder / "in/x.png").rename(folder / "in" / name)
    os.rename(draw("in/y.png"), b"in/\xff\xfe.png")  # noqa: PTH104 - a name that is no text
    assert upscale("in", "-o", "out", "--json") == 0
    said = capsys.readouterr()
    assert len(lines(said.out)) == 6
    assert "new\\nline" in said.err
    assert len(tree(folder / "out")) == 6
    assert upscale("--json", "-o", "o2", "--", "in/-dash.png") == 0


def test_weights_that_do_not_exist_stop_everything(capsys: pytest.CaptureFixture[str]) -> None:
    draw("a.png")
    draw("b.png")
    assert cli.main(["upscale", "a.png", "b.png", "--weights", "no-such-weights"]) == 1
    said = capsys.readouterr().err
    assert said.count("error: ") == 1
    assert "no-such-weights" in said


def test_a_missing_device_stops_everything(tiny_weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw("a.png")
    assert cli.main(["upscale", "a.png", "--weights", str(tiny_weights), "--device", "cuda:77"]) == 1
    assert "cuda:77" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made(upscale: Run, capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    draw("a.png")
    (folder / "file").write_bytes(b"")
    assert upscale("a.png", "-o", "file/out/") == 1
    assert "cannot be made" in capsys.readouterr().err


def test_a_full_disk_is_one_line_and_leaves_nothing(
    upscale: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    draw("in/a.png")
    draw("in/b.png")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    assert upscale("in", "-o", "out") == 1
    said = capsys.readouterr().err
    assert said.count("No space left on device") == 2
    assert tree(folder / "out") == []


def test_an_internal_error_in_one_file_does_not_stop_the_others(
    upscale: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dreamsr.upscaling import stages

    draw("a.png")
    draw("b.png")
    inner = stages.read_picture

    def breaks(path: Path, **more: Any) -> Any:
        if str(path) == "a.png":
            raise ZeroDivisionError("oh")
        return inner(path, **more)

    monkeypatch.setattr(stages, "read_picture", breaks)
    assert upscale("a.png", "b.png") == 1
    assert "a.png: internal error (ZeroDivisionError: oh)" in capsys.readouterr().err
    assert Path("b_x4.png").exists()


# --- streams and the rest of the machine ------------------------------------------------------------------------------


def test_streams(tiny_weights: Path) -> None:
    data = draw("a.png").read_bytes()
    command = [sys.executable, "-m", "dreamsr", "upscale", "-", "-w", str(tiny_weights), "--device", "cpu"]
    done = subprocess.run([*command, "--format", "webp", "-s", "2"], input=data, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    with Image.open(io.BytesIO(done.stdout)) as result:
        assert (result.format, result.size) == ("WEBP", (24, 18))
    done = subprocess.run(command, input=b"", capture_output=True, timeout=120)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"error: ")


def test_json_and_a_picture_do_not_share_standard_output(upscale: Run, capsys: pytest.CaptureFixture[str]) -> None:
    draw("a.png")
    assert upscale("a.png", "-o", "-", "--json") == 2
    assert "standard output" in capsys.readouterr().err


def test_a_reader_that_goes_away_ends_with_141(tiny_weights: Path) -> None:
    draw("a.png", (300, 300))
    command = [sys.executable, "-m", "dreamsr", "upscale", "a.png", "-o", "-", "-w", str(tiny_weights), "--steps", "1"]
    process = subprocess.Popen([*command, "--device", "cpu"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    said = process.stderr.read()
    process.stderr.close()
    assert process.wait(120) == 141
    assert b"Traceback" not in said
    assert b"error" not in said


def test_a_bomb_is_refused_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    header = b"IHDR" + struct.pack(">LLBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    body = b"IDAT" + zlib.compress(bytes(800_000))
    chunks = [struct.pack(">L", len(c) - 4) + c + struct.pack(">L", zlib.crc32(c)) for c in (header, body, b"IEND")]
    Path("bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    assert Path("bomb.png").stat().st_size < 1024
    cli.main(["upscale", "gone.png"])  # what is imported once is not the bomb's
    began = time.process_time()
    assert cli.main(["upscale", "bomb.png"]) == 1
    assert time.process_time() - began < 1
    assert "bomb.png has too many pixels" in capsys.readouterr().err


def test_no_network_is_used(upscale: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    draw("a.png")
    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert upscale("a.png") == 0


# --- side outputs and the environment ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
@pytest.mark.parametrize(
    ("page", "message"),
    [
        ("a.png", "must end in .html"),
        ("r.png", "must end in .html"),
        ("page.html", "exists already"),
        ("a.html", "is an input"),
        ("file/page.html", "cannot be made"),
        ("x" * 251 + ".html", "255 bytes"),
        ("folder.html", "is a folder"),
    ],
)
def test_a_page_destroys_nothing(
    upscale: Run, capsys: pytest.CaptureFixture[str], folder: Path, page: str, message: str, dry: tuple[str, ...]
) -> None:
    draw("a.png")
    (folder / "page.html").write_text("my notes")
    (folder / "file").write_text("")
    (folder / "folder.html").mkdir()
    os.link("a.png", "a.html")
    before = {name: (folder / name).read_bytes() for name in tree(folder)}
    assert upscale("a.png", "-o", "r.png", "--compare", page, *dry) == 1
    assert message in capsys.readouterr().err
    assert {name: (folder / name).read_bytes() for name in tree(folder)} == before


def test_a_page_obeys_the_policy(upscale: Run, folder: Path) -> None:
    draw("a.png")
    (folder / "page.html").write_text("<!doctype html>mine")
    assert upscale("a.png", "--compare", "page.html", "--if-exists", "skip") == 0
    assert (folder / "page.html").read_text() == "<!doctype html>mine"
    assert upscale("a.png", "--compare", "page.html", "--if-exists", "rename") == 0
    assert (folder / "page.html").read_text() == "<!doctype html>mine"
    assert "before and after" in (folder / "page_2.html").read_text()
    assert upscale("a.png", "--compare", "page.html", "--if-exists", "overwrite") == 0
    assert "before and after" in (folder / "page.html").read_text()
    draw("picture.png").rename("picture.html")
    assert upscale("a.png", "--compare", "picture.html", "--if-exists", "overwrite") == 1


def test_places_are_looked_at_before_the_work(
    upscale: Run, capsys: pytest.CaptureFixture[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw("a.png")
    assert upscale("a.png", "-o", "x" * 252 + ".png", "--dry-run") == 1
    assert "255 bytes" in capsys.readouterr().err
    assert upscale("a.png", "-o", "x" * 251 + ".png") == 0
    monkeypatch.setattr(os, "access", lambda path, _: Path(path).resolve() != folder.resolve())
    assert upscale("a.png", "-o", "new/r.png", "--dry-run") == 1
    assert "read-only" in capsys.readouterr().err


def test_an_unusable_input_is_not_replaced(upscale: Run, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw("a.png")
    (folder / "a_x4.png").write_bytes(b"no picture, but mine")
    assert upscale("a.png", "a_x4.png", "--if-exists", "overwrite") == 1
    assert "is an input" in capsys.readouterr().err
    assert (folder / "a_x4.png").read_bytes() == b"no picture, but mine"


def test_a_file_replaced_after_planning_is_planned_anew(
    upscale: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    draw("a.png", (12, 9))
    monkeypatch.setattr("dreamsr.upscaling.files.remove_stale_temps", lambda _: draw("a.png", (9, 12)))
    assert upscale("a.png", "--json") == 0
    said = capsys.readouterr()
    assert size_of("a_x4.png") == (36, 48)
    assert "was 12x9 px when the work was planned and 9x12 when it was read" in said.err
    told = lines(said.out)[0]
    assert (told["input_width"], told["input_height"], told["width"], told["height"]) == (9, 12, 36, 48)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--width", "60"], "name of its result tells the size"),
        (["--width", "60", "-o", "{stem}_{height}.png"], "name of its result tells the size"),
        (["--width", "10", "-o", "b.png"], "does not enlarge"),
    ],
)
def test_a_file_replaced_after_planning_is_told_where_the_plan_does_not_fit(
    upscale: Run,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    options: Sequence[str],
    message: str,
) -> None:
    draw("a.png", (9, 6))
    monkeypatch.setattr("dreamsr.upscaling.files.remove_stale_temps", lambda _: draw("a.png", (12, 9)))
    assert upscale("a.png", *options) == 1
    assert message in capsys.readouterr().err
    assert [path.name for path in Path().iterdir()] == ["a.png"]


@pytest.mark.skipif(os.name != "posix", reason="shell redirections")
@pytest.mark.parametrize(
    ("redirection", "options", "code"),
    [
        (">&-", "", 0),
        ("2>&-", "", 0),
        (">&- 2>&-", "", 0),
        (">&-", "--json", 1),
        ("> /dev/full", "--json", 1),
        ("2> /dev/full", "", 0),
        (">&-", "-o -", 2),
    ],
)
def test_streams_that_fail_lose_no_picture(tiny_weights: Path, redirection: str, options: str, code: int) -> None:
    if "/dev/full" in redirection and not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    draw("a.png")
    line = f"{sys.executable} -m dreamsr upscale a.png -w {tiny_weights} --device cpu {options} {redirection}"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=120)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert "internal error" not in done.stderr
    assert "Exception ignored" not in done.stderr
    if code:
        assert done.stderr.count("error: ") == 1
    if options in ("", "--json"):
        assert size_of("a_x4.png") == (48, 36)


def test_threads_are_as_many_as_asked_for(upscale: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    asked: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    draw("a.png")
    assert upscale("a.png", "--threads", "3") == 0
    assert upscale("a.png", "-o", "b.png") == 0
    assert asked == [3]


# --- progress ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upscale_view, "EVERY_SECONDS", {"lines": 0.0, "json": 0.0})


@pytest.mark.usefixtures("impatient")
def test_without_a_terminal_lines_tell_how_far_it_is(upscale: Run, capsys: pytest.CaptureFixture[str]) -> None:
    draw("a.png")
    draw("b.png")
    assert upscale("a.png", "b.png", "--steps", "2") == 0
    told = capsys.readouterr().err
    assert re.search(r"^a\.png \(1 of 2\): \d+%, about \d+ s left$", told, re.M)
    assert re.search(r"^b\.png \(2 of 2\): 100%, about 0 s left$", told, re.M)
    for silent in (["--quiet"], ["--progress", "none"]):
        assert upscale("a.png", "--steps", "2", "--if-exists", "overwrite", *silent) == 0
        assert "%" not in capsys.readouterr().err


@pytest.mark.usefixtures("impatient")
def test_progress_for_programs_is_one_event_a_line(upscale: Run, capsys: pytest.CaptureFixture[str]) -> None:
    draw("a.png")
    assert upscale("a.png", "--steps", "2", "--json", "--progress", "json") == 0
    *events, result = lines(capsys.readouterr().out)
    assert result["status"] == "done"
    assert [event["event"] for event in events] == ["progress"] * len(events)
    assert events[-1]["fraction"] == 1
    assert events[-1] | {"seconds_left": 0.0} == events[-1]
    assert events[0]["files"] == 1


def test_lines_come_every_thirty_seconds(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    monkeypatch.setattr(upscale_view.time, "monotonic", lambda: now[0])
    report = upscale_view.UpscaleReport(None, as_json=False, quiet=False)
    job = Job(Source(Path("a.png")), Path("b.png"), "PNG", 10, 10, 40, 40)
    report.planned([job], [])
    report.started(job)
    for second in range(1, 91):
        now[0] = float(second)
        report.progressed(job, second / 300)
    told = capsys.readouterr().err.splitlines()
    assert told == [f"a.png: {share}%, about 4 min left" for share in (10, 20, 30)]


def test_a_word_comes_where_planning_takes_more_than_a_second(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(upscale_view.time, "monotonic", lambda: now[0])
    report = upscale_view.UpscaleReport(None, as_json=False, quiet=False)
    report.planning(20_000)
    assert capsys.readouterr().err == ""
    for now[0] in (1.1, 2.2):
        report.planning(20_000)
    assert capsys.readouterr().err == "looking at 20000 files\n"


def test_a_word_comes_where_finding_files_takes_more_than_a_second(
    upscale: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(upscale_view, "SILENT_SECONDS", -1.0)
    draw("in/a.png")
    draw("in/b.png")
    assert upscale("in", "-o", "out", "--dry-run") == 0
    assert capsys.readouterr().err.startswith("finding pictures\nlooking at 2 files\n")


def test_an_interrupted_batch_says_how_to_go_on(
    upscale: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.png", "b.png", "c.png"):
        draw(name)

    def interrupt(_: Any, job: Job) -> None:
        if job.source.label == "b.png":
            raise KeyboardInterrupt

    monkeypatch.setattr(upscale_view.UpscaleReport, "started", interrupt)
    assert upscale("a.png", "b.png", "c.png") == 130
    assert "1 of 3 done; go on with --if-exists skip\n" in capsys.readouterr().err
    assert not Path("b_x4.png").exists()


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGHUP", 129), ("SIGINT", 130)])
def test_what_ends_it_from_outside_leaves_no_claim(tiny_weights: Path, folder: Path, name: str, code: int) -> None:
    draw("in/a.png", (90, 90))
    draw("in/b.png", (90, 90))
    command = [sys.executable, "-m", "dreamsr", "upscale", "in", "-o", "out", "--if-exists", "skip", "--steps", "1000"]
    process = subprocess.Popen(
        [*command, "-w", str(tiny_weights), "--device", "cpu"], stderr=subprocess.PIPE, text=True, env=os.environ
    )
    deadline = time.monotonic() + 100
    while not list(folder.glob("out/.*.claim")) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert list(folder.glob("out/.*.claim"))
    process.send_signal(getattr(signal, name))
    said = process.communicate(timeout=100)[1]
    # Python ends itself by a SIGINT that came while an import ran exec: a shell reads 130 from that, too.
    assert process.returncode == code or (name, process.returncode) == ("SIGINT", -signal.SIGINT)
    assert "0 of 2 done; go on with --if-exists skip" in said
    assert tree(folder / "out") == []


@pytest.mark.parametrize("kind", ["json", "dots"])
def test_progress_that_cannot_be(upscale: Run, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    draw("a.png")
    assert upscale("a.png", "-o", "-", "--progress", kind) == 2
    assert capsys.readouterr().out == ""
