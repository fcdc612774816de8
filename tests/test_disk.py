"""Files are whole or absent: failures, interrupts and kills leave nothing, or what the next run removes."""

import errno
import hashlib
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from dreamsr import disk
from dreamsr.disk import ensure_folder, file_sha256, parse_json, remove_stale_temps, write_bytes_atomically
from dreamsr.errors import OutputError
from dreamsr.pictures import write
from dreamsr.pictures.picture import Picture
from dreamsr.pictures.write import write_picture

posix_only = pytest.mark.skipif(os.name != "posix", reason="signals and permissions of POSIX")
PICTURE = Picture(np.zeros((4, 4, 3), np.uint8))


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_writes_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    for data in (b"one", b"", b"three" * 1000):
        write_bytes_atomically(path, data)
        assert path.read_bytes() == data
    write_bytes_atomically(str(path), b"as a string")
    assert names(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), MemoryError()])
@pytest.mark.parametrize("step", ["replace", "fsync"])
def test_a_failing_step_leaves_the_old_file(
    step: str, error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(disk.os, step, fail)
    expected = OutputError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected) as caught:
        write_bytes_atomically(path, b"new")
    if expected is OutputError:
        assert "No space left" in str(caught.value)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.bin"]


def test_a_failing_encoder_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> bytes:
        raise ValueError("no\nway")

    monkeypatch.setattr(write, "_saved", fail)
    with pytest.raises(OutputError, match=r"\(no way\)"):
        write_picture(tmp_path / "a.webp", PICTURE)
    assert names(tmp_path) == []


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"there is no folder.*create it"):
        write_picture(tmp_path / "none" / "a.png", PICTURE)
    with pytest.raises(OutputError, match="is a folder"):
        write_bytes_atomically(tmp_path, b"")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError):
        write_picture(tmp_path / "file" / "a.png", PICTURE)
    with pytest.raises(OutputError):
        write_picture(tmp_path / ("x" * 300 + ".png"), PICTURE)
    with pytest.raises(OutputError):
        write_picture(tmp_path / "a\0b.png", PICTURE)
    assert names(tmp_path) == ["file"]


@posix_only
def test_links_and_permissions_are_respected(tmp_path: Path) -> None:
    real = tmp_path / "real.bin"
    real.write_bytes(b"old")
    real.chmod(0o640)
    link = tmp_path / "link.bin"
    link.symlink_to(real)
    write_bytes_atomically(link, b"new")
    assert link.is_symlink()
    assert real.read_bytes() == b"new"
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    before = os.umask(0o022)
    try:
        write_bytes_atomically(tmp_path / "fresh", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "fresh").stat().st_mode) == 0o644


@posix_only
def test_devices_are_written_not_replaced() -> None:
    write_bytes_atomically(os.devnull, b"gone")
    assert stat.S_ISCHR(Path(os.devnull).stat().st_mode)


WRITER = """
import os, sys, time
from pathlib import Path
from dreamsr import disk
disk.os.replace = lambda *_: (print("ready", flush=True), time.sleep(60))
disk.write_bytes_atomically(Path(sys.argv[1]), b"x" * 1000)
"""


@posix_only
def test_temps_of_killed_writers_go_and_of_living_ones_stay(tmp_path: Path) -> None:
    root = Path(disk.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, "-c", WRITER, str(tmp_path / "out.png")]
    others = [".out.png.dreamsr-1-2.tmp", "out.tmp", f".a.dreamsr-00000000-{2**22 + 1}-00000000.tmp", "a.png"]
    for name in others:
        (tmp_path / name).write_bytes(b"")
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert remove_stale_temps(tmp_path) == 0
        assert len(names(tmp_path)) == len(others) + 1
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert remove_stale_temps(tmp_path) == 1
    assert names(tmp_path) == sorted(others)
    assert remove_stale_temps(tmp_path / "none") == 0


@posix_only
def test_an_interrupted_writer_cleans_up(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(disk.__file__).parents[1])}
    command = [sys.executable, "-c", WRITER, str(tmp_path / "out.png")]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + 20
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        process.kill()
    assert names(tmp_path) == []


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_without_fsync_loses_nothing(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(disk.os, "fsync", refuse)
    write_bytes_atomically(tmp_path / "a.bin", b"new")
    assert (tmp_path / "a.bin").read_bytes() == b"new"


def test_long_names_in_any_locale_get_a_temporary_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk.os, "fsencode", lambda text: text.encode("latin-1", "surrogateescape"))
    name = "照片.png".encode().decode("latin-1")  # as a name arrives where the locale is Latin-1
    assert disk._temp_name(name).startswith(f".{name}.dreamsr-")
    assert len(os.fsencode(disk._temp_name("ü" * 251 + ".png"))) <= 255


@posix_only
def test_private_folders_go_at_the_end_and_those_of_the_dead_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    host, dead = disk._host(), done.stdout.strip()
    stale = tmp_path / f"kind-{host}-{dead}-abcdefgh"
    kept = [
        tmp_path / f"kind-{host}-{os.getpid()}-abcdefgh",
        tmp_path / f"kind-00000000-{dead}-abcdefgh",
        tmp_path / f"other-{host}-{dead}-abcdefgh",
    ]
    for folder in (stale, *kept):
        folder.mkdir()
        (folder / "a").write_text("x")
    (tmp_path / f"kind-{host}-{dead}-12345678").symlink_to(kept[2])  # as another user might lay it
    with disk.private_folder("kind") as folder:
        assert not stale.exists()
        assert folder.parent == tmp_path
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        (folder / "b" / "c").mkdir(parents=True)
    assert not folder.exists()
    assert [(one / "a").read_text() for one in kept] == ["x"] * 3
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    with pytest.raises(OutputError, match="set TMPDIR"), disk.private_folder("kind"):
        pass


def test_folders_are_made_with_those_above_them(tmp_path: Path) -> None:
    for _ in range(2):
        ensure_folder(tmp_path / "a" / "b")
        assert (tmp_path / "a" / "b").is_dir()


def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match=r"below: cannot be made \(Not a directory\); choose another --out$"):
        ensure_folder(tmp_path / "file" / "below", advice="choose another --out")
    with pytest.raises(OutputError, match=r"file: cannot be made \(File exists\)$"):
        ensure_folder(tmp_path / "file")


def test_the_sha256_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(range(256)) * 9999)
    assert file_sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_json_is_read_with_one_rule() -> None:
    assert parse_json(b'{"a": [1, 2.5, null, "inf"]}') == {"a": [1, 2.5, None, "inf"]}


@pytest.mark.parametrize("text", ["NaN", "[-Infinity]", '{"a": 1, "a": 1}', "[" * 200_000, "{", ""])
def test_what_is_no_strict_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_json(text)
