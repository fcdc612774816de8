"""Hostile pictures and hostile command lines: nothing may crash, hang or grow.

    python -m tests.fuzz --images 20000 --arguments 5000 --seed 0

Every case is a pure function of (seed, number), so a reported number can be run again alone with --only.
Pictures are read, enlarged by a stand-in for the net, and encoded; command lines run in this process.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import resource
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dreamsr import cli
from dreamsr.errors import DreamsrError
from dreamsr.pictures.bleed import bleed
from dreamsr.pictures.lanczos import resized
from dreamsr.pictures.picture import FORMATS, Picture
from dreamsr.pictures.read import is_complete_picture, probe_picture, read_picture
from dreamsr.pictures.write import encode_picture
from dreamsr.upscaling import upscaler as engine

LIMIT_SECONDS = 10
MAX_PIXELS = 4_000_000
ALLOWED_CODES = (0, 1, 2, 130, 141)
INTERESTING = (0, 1, 2, 127, 128, 254, 255)
OPTIONS = (
    "-s", "--scale", "--width", "--height", "--max-side", "--steps", "--fidelity", "--seed", "-o", "--output", "-w",
    "--weights", "--format", "--quality", "--if-exists", "--max-pixels", "--device", "--precision", "--tile",
    "--compare", "-i", "--unknown", "--help-me",
)  # fmt: skip
FLAGS = ("--strip", "-r", "--recursive", "--dry-run", "--json", "-q", "--quiet", "--match", "--no-match",
         "--consistency", "--version", "--", "-rq", "-h")  # fmt: skip
VALUES = (
    "", "0", "1", "2", "4", "-1", "1.5", "16", "17", "1e9", "1e400", "nan", "inf", "-inf", "9" * 40, "auto", "cpu",
    "cuda", "cuda:99", "mps", "meta", "bf16", "fp32", "png", "JPEG", "gif", "skip", "overwrite", "rename", "error",
    "out", "out/", "out.png", "out.jpg", "out.xyz", "{stem}.{ext}", "{stem}_{scale}", "{", "}", "{}", "{stem!r}",
    "{stem.__class__}", "{0}", "%s", "-", "--", ".", "..", "/no/place", "/dev/null", "/dev/full", "a.png", "b.jpg",
    "tree", "*.png", "**", "[", "?", "a\0b", "ä", "\udcff", "new\nline", " ", "a" * 300, "x/" * 60, "~", "$HOME",
    "\u202e.png", "no/such/repo", "user/repo@rev:x.safetensors", "tiny.safetensors", "a_x4.png", "100", "64", "72", "8",
    "0.5",
)  # fmt: skip
COMMANDS = ("upscale", "upscale", "upscale", "upscale", "upscale", "doctor", "upscal", "", "--version", "-h")


class StandIn:
    """Enlarges as fast as possible, in place of a net."""

    scales, continuous, default_steps = (4,), False, 1

    def __init__(self, *_: object, **__: object) -> None: ...

    def enlarge_strips(
        self,
        picture: Picture,
        height: int,
        width: int,
        settings: object,  # noqa: ARG002 - as an Upscaler has them
        *,
        on_progress: object = None,  # noqa: ARG002
        on_choice: object = None,  # noqa: ARG002
    ) -> Iterator[Picture]:
        """A picture of height x width, as `Upscaler.enlarge_strips` gives it, in one."""
        if height * width > 16 * MAX_PIXELS:
            raise DreamsrError("too large for this test")
        pixels = picture.pixels if picture.alpha is None else bleed(picture.pixels, picture.alpha)
        alpha = None if picture.alpha is None else resized(picture.alpha[..., None], height, width)[..., 0]
        yield replace(picture, pixels=resized(pixels, height, width), alpha=alpha)


@dataclass
class Report:
    """What happened: endings by name, and every case that broke a promise."""

    endings: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    slowest_seconds: float = 0.0


class TooSlow(BaseException):
    """A case took longer than it may; no `except Exception` can swallow it."""


@contextlib.contextmanager
def limited() -> Iterator[None]:
    """Raise TooSlow inside after LIMIT_SECONDS of wall-clock time."""

    def stop(*_: object) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(LIMIT_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def judge(report: Report, name: str, case: Callable[[], str]) -> None:
    """Run one case, count its ending, and note what must not happen."""
    began = time.monotonic()
    try:
        with limited():
            report.endings[case()] += 1
    except TooSlow:
        report.broken.append(f"{name}: took longer than {LIMIT_SECONDS} s")
    except BaseException as error:
        report.broken.append(f"{name}: {type(error).__name__}: {error}")
    report.slowest_seconds = max(report.slowest_seconds, time.monotonic() - began)


# --- pictures ---------------------------------------------------------------------------------------------------------


def seed_files() -> list[bytes]:
    """Small sound files of all formats, modes and depths that the mutations start from."""
    rng = np.random.default_rng(0)
    files = []
    for height, width in ((1, 1), (7, 13), (40, 33)):
        for dtype in (np.uint8, np.uint16):
            for channels in (1, 3):
                peak = int(np.iinfo(dtype).max)
                pixels = rng.integers(0, peak + 1, (height, width, channels)).astype(dtype)
                alpha = rng.integers(0, peak + 1, (height, width)).astype(dtype)
                for format in FORMATS:
                    for picture in (Picture(pixels), Picture(pixels, alpha)):
                        with contextlib.suppress(DreamsrError):
                            files.append(encode_picture(picture, format=format))
    return files + _pillow_files(rng)


def _pillow_files(rng: np.random.Generator) -> list[bytes]:
    """What other programs write: palettes, CMYK, one bit, progressive, interlaced, compressed, several frames, EXIF."""
    base = Image.fromarray(rng.integers(0, 256, (21, 17, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "camera"
    kinds: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (base.convert("P"), "PNG", {"transparency": 3}),
        (base.convert("1"), "PNG", {}),
        (base.convert("1"), "TIFF", {"compression": "group4"}),
        (base.convert("CMYK"), "JPEG", {}),
        (base.convert("CMYK"), "TIFF", {"compression": "tiff_lzw"}),
        (base.convert("LAB"), "TIFF", {}),
        (base.convert("F"), "TIFF", {}),
        (base.convert("P"), "BMP", {}),
        (base, "JPEG", {"progressive": True, "exif": exif.tobytes()}),
        (base, "TIFF", {"compression": "tiff_adobe_deflate"}),
        (base, "TIFF", {"compression": "jpeg"}),
        (base, "WEBP", {"lossless": True, "exif": exif.tobytes()}),
        (base, "WEBP", {"save_all": True, "append_images": [base.rotate(90, expand=False)]}),
        (base, "GIF", {}),
        (base, "PNG", {"exif": exif.tobytes()}),
    ]
    files = []
    for image, format, options in kinds:
        out = io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image.save(out, format, **options)
        files.append(out.getvalue())
    return files


def mutated(data: bytes, rng: np.random.Generator, others: list[bytes]) -> bytes:
    """One to several changes of the kinds that break parsers."""
    result = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        reach = len(result) if rng.random() < 0.5 else min(64, len(result))  # headers break more than pixels
        at = int(rng.integers(0, reach + 1))
        kind = int(rng.integers(0, 8))
        if kind == 0 and at < len(result):
            result[at] ^= 1 << int(rng.integers(0, 8))
        elif kind == 1 and at < len(result):
            result[at] = INTERESTING[int(rng.integers(0, len(INTERESTING)))]
        elif kind == 2:
            result[at : at + 4] = rng.choice([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\0\0\xc3\x50"])
        elif kind == 3:
            del result[at:]
        elif kind == 4:
            del result[at : at + int(rng.integers(1, 32))]
        elif kind == 5:
            result[at:at] = bytes(rng.integers(0, 256, int(rng.integers(1, 32)), np.uint8))
        elif kind == 6:
            result[at : at + 16] = result[at // 2 : at // 2 + 16]
        else:
            other = others[int(rng.integers(0, len(others)))]
            result[at:] = other[min(at, len(other)) :]
    return bytes(result)


def picture_case(data: bytes, rng: np.random.Generator) -> str:
    """Read, enlarge and encode as `upscale` does; the ending in one word."""
    try:
        info = probe_picture(data, max_pixels=MAX_PIXELS)
        picture = read_picture(data, max_pixels=MAX_PIXELS)
        if (picture.width, picture.height) != (info.width, info.height):
            raise AssertionError(f"probed {info.width}x{info.height}, read {picture.width}x{picture.height}")
        if picture.width * picture.height > 250_000:
            return "large"
        large = next(StandIn().enlarge_strips(picture, picture.height * 2, picture.width * 2, None))
        format = str(rng.choice([info.format, *FORMATS]))
        encoded = encode_picture(large, format=format, strip=bool(rng.random() < 0.3))
        again = read_picture(encoded)
        if (again.width, again.height) != (large.width, large.height):
            raise AssertionError(f"wrote {large.width}x{large.height}, read {again.width}x{again.height}")
    except DreamsrError as error:
        if "\n" in str(error) or not str(error):
            raise AssertionError(f"a message of several lines: {error!s}") from None
        return type(error).__name__
    return "ok"


def fuzz_pictures(count: int, seed: int, report: Report, folder: Path, *, only: int | None = None) -> None:
    """`count` mutated files; every fiftieth also as a file in `folder`, judged as a result to be skipped."""
    seeds = seed_files()
    for number in range(count) if only is None else [only]:
        rng = np.random.default_rng([seed, 0, number])
        data = mutated(seeds[int(rng.integers(0, len(seeds)))], rng, seeds)
        judge(report, f"picture {number}", lambda data=data, rng=rng: picture_case(data, rng))  # type: ignore[misc]
        if number % 50 == 0:
            path = folder / "candidate"
            path.write_bytes(data)
            judge(report, f"picture {number} as a file", lambda path=path: f"whole: {is_complete_picture(path)}")  # type: ignore[misc]


# --- command lines ----------------------------------------------------------------------------------------------------


def command_line(rng: np.random.Generator) -> list[str]:
    """Words that a user, a script or a cat might type."""
    words = [str(rng.choice(COMMANDS))]
    for _ in range(int(rng.integers(0, 8))):
        kind = rng.random()
        if kind < 0.35:
            words += [OPTIONS[int(rng.integers(0, len(OPTIONS)))], VALUES[int(rng.integers(0, len(VALUES)))]]
        elif kind < 0.6:
            words.append(FLAGS[int(rng.integers(0, len(FLAGS)))])
        else:
            words.append(VALUES[int(rng.integers(0, len(VALUES)))])
    return words


def command_case(words: list[str]) -> str:
    """Run one command line in this process; the exit code as the ending."""
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.TextIOWrapper(io.BytesIO(), "utf-8")
    before = sys.stdin
    sys.stdin = io.TextIOWrapper(io.BytesIO(b"no picture"), "utf-8")
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = cli.main(words)
    finally:
        sys.stdin = before
    err.flush()
    said = err.buffer.getvalue().decode("utf-8", "replace")  # type: ignore[attr-defined]
    if code not in ALLOWED_CODES:
        raise AssertionError(f"exit code {code}")
    if "Traceback" in said or "internal error" in said:
        raise AssertionError(next(line for line in said.splitlines() if "Traceback" in line or "internal" in line))
    if code != 0 and not said and "--help" not in words:
        raise AssertionError(f"exit code {code} without a word")
    return f"exit {code}"


def fuzz_arguments(count: int, seed: int, report: Report, folder: Path, *, only: int | None = None) -> None:
    """`count` random command lines, in a folder that is set up anew after each that changed it."""
    before = Path.cwd(), os.environ.get("HF_HUB_OFFLINE")
    os.environ["HF_HUB_OFFLINE"] = "1"
    upscaler = engine.Upscaler
    engine.Upscaler = StandIn  # type: ignore[assignment, misc]
    try:
        for number in range(count) if only is None else [only]:
            place = folder / str(number)
            _furnish(place)
            os.chdir(place)
            words = command_line(np.random.default_rng([seed, 1, number]))
            judge(report, f"arguments {number} {words}", lambda words=words: command_case(words))  # type: ignore[misc]
            os.chdir(before[0])
            _remove(place)
    finally:
        engine.Upscaler = upscaler  # type: ignore[misc]
        os.chdir(before[0])
        if before[1] is None:
            del os.environ["HF_HUB_OFFLINE"]


def _furnish(place: Path) -> None:
    (place / "tree" / "in").mkdir(parents=True)
    Image.new("RGB", (5, 4), "red").save(place / "a.png")
    Image.new("L", (4, 3), 9).save(place / "b.jpg")
    (place / "tree" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    (place / "tree" / "in" / "a.png").write_bytes((place / "a.png").read_bytes())


def _remove(place: Path) -> None:
    for path in sorted(place.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    place.rmdir()


# --- the run ----------------------------------------------------------------------------------------------------------


def peak_mb() -> float:
    """The most memory this process has used so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def main() -> int:
    """Run what the arguments ask for; 1 if a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000, help="mutated pictures")
    parser.add_argument("--arguments", type=int, default=5_000, help="random command lines")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="run this one number of each kind, and let its error through")
    chosen = parser.parse_args()
    report, began = Report(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        fuzz_pictures(chosen.images, chosen.seed, report, Path(folder), only=chosen.only)
        between = peak_mb()
        fuzz_arguments(chosen.arguments, chosen.seed, report, Path(folder), only=chosen.only)
    lines = [*report.broken, f"endings: {dict(report.endings.most_common())}"]
    lines.append(
        f"{chosen.images} pictures and {chosen.arguments} command lines in {time.monotonic() - began:.0f} s; "
        f"{len(report.broken)} broken promises, slowest case {report.slowest_seconds:.2f} s, "
        f"peak memory {between:.0f} MB after the pictures, {peak_mb():.0f} MB at the end"
    )
    sys.stdout.write("\n".join(lines) + "\n")
    return 1 if report.broken else 0


if __name__ == "__main__":
    sys.exit(main())
