"""The compare page: self-contained, correct, and working in a browser without a network."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import time
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dreamsr.pictures.lanczos import resized
from dreamsr.pictures.picture import Metadata, Picture
from dreamsr.upscaling.compare import CROP_PX, Slider, make_slider, write_page

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((found for name in NAMES if (found := shutil.which(name))), "")


def pair(height: int = 20, width: int = 30, *, alpha: bool = False, dtype: type = np.uint8) -> tuple[Picture, Picture]:
    """A grey small picture and a black result, so that a screenshot tells which is seen."""
    peak = int(np.iinfo(dtype).max)
    mask = np.full((height, width), peak, dtype) if alpha else None
    wide = np.full((4 * height, 4 * width), peak, dtype) if alpha else None
    small = Picture(np.full((height, width, 3), peak, dtype), mask)
    return small, Picture(np.zeros((4 * height, 4 * width, 3), dtype), wide)


def decoded(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def test_before_is_bicubic_and_after_is_the_result() -> None:
    rng = np.random.default_rng(0)
    small = Picture(np.repeat(np.repeat(rng.integers(0, 256, (6, 8, 3), np.uint8), 4, 0), 4, 1))
    large = Picture(rng.integers(100, 110, (96, 128, 3), np.uint8))
    slider = make_slider("a", small, large)
    assert (slider.width, slider.height) == (128, 96)
    before, after = decoded(slider.before), decoded(slider.after)
    assert np.abs(before.astype(int) - resized(small.pixels, 96, 128, kernel="bicubic")).mean() < 4
    assert np.abs(after.astype(int) - large.pixels).mean() < 4


def test_of_large_results_the_most_detailed_part_is_shown_pixel_by_pixel() -> None:
    pixels = np.full((700, 900, 3), 128, np.uint8)
    pixels[500:600, 100:300] = np.random.default_rng(0).integers(0, 256, (100, 200, 3))
    slider = make_slider("a", Picture(pixels), Picture(resized(pixels, 2800, 3600)))
    assert (slider.height, slider.width) == CROP_PX
    assert slider.caption.endswith("a part")
    before, after = decoded(slider.before), decoded(slider.after)
    assert after.std() > 20
    assert np.abs(before.astype(int) - after).mean() < 12  # the same part: Lanczos and bicubic differ little


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("alpha", [False, True])
def test_all_kinds_of_pictures_can_be_shown(dtype: type, alpha: bool) -> None:
    small, large = pair(alpha=alpha, dtype=dtype)
    slider = make_slider("a", small, large)
    assert decoded(slider.before).min() > 250
    assert decoded(slider.after).max() < 5


def test_grey_and_single_pixels_can_be_shown() -> None:
    grey = Picture(np.full((1, 1, 1), 9, np.uint8), metadata=Metadata(exif=b"Exif\0\0"))
    assert make_slider("a", grey, Picture(np.full((4, 4, 1), 9, np.uint8))).width == 4


def test_the_page_asks_the_network_for_nothing(tmp_path: Path) -> None:
    write_page(tmp_path / "page.html", [make_slider("a.png", *pair()), make_slider("b.png", *pair())])
    page = (tmp_path / "page.html").read_text("utf-8")
    assert page.count("<figure>") == 2
    assert "default-src 'none'" in page
    assert not re.search(r"https?://|//[a-z]|@import|<link|src=\"(?!data:)", page)
    for data in re.findall(r"base64,([^\"]+)", page):
        b64decode(data, validate=True)


def test_names_cannot_break_the_page(tmp_path: Path) -> None:
    nasty = "<script>alert(1)</script>\"'&.png\udcff"
    write_page(tmp_path / "page.html", [Slider(nasty, "", b"x", b"y", 1, 1)])
    page = (tmp_path / "page.html").read_text("utf-8")
    assert "<script>alert" not in page
    assert "&lt;script&gt;" in page


def test_a_page_without_pictures_says_so(tmp_path: Path) -> None:
    write_page(tmp_path / "page.html", [])
    assert "No picture was enlarged" in (tmp_path / "page.html").read_text("utf-8")


# --- in a browser -----------------------------------------------------------------------------------------------------


class Browser:
    """Chromium's debugging protocol over two pipes: JSON messages that end with a null byte."""

    def __init__(self, profile: Path) -> None:
        read_theirs, self.write_ours = os.pipe()
        self.read_ours, write_theirs = os.pipe()
        command = (
            f'exec "$0" --headless --no-sandbox --disable-gpu --remote-debugging-pipe --user-data-dir="$1" '
            f"--window-size=900,700 about:blank 3<&{read_theirs} 4>&{write_theirs}"
        )
        self.process = subprocess.Popen(
            ["/bin/bash", "-c", command, CHROMIUM, str(profile)],
            pass_fds=(read_theirs, write_theirs),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_theirs)
        os.close(write_theirs)
        self.number = 0
        self.buffer = b""
        self.session: str | None = None

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command and its answer; events in between are passed over."""
        self.number += 1
        message: dict[str, Any] = {"id": self.number, "method": method, "params": parameters}
        if self.session is not None:
            message["sessionId"] = self.session
        os.write(self.write_ours, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self.buffer:
                part = os.read(self.read_ours, 1 << 20)
                assert part, "the browser went away"
                self.buffer += part
            first, self.buffer = self.buffer.split(b"\0", 1)
            answer: dict[str, Any] = json.loads(first)
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        return answer["result"].get("value")

    def open(self, page: Path) -> None:
        """Load a file and wait until it is drawn."""
        target = self.call("Target.createTarget", url=page.as_uri())["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        deadline = time.monotonic() + 60
        # A new target shows an empty page first, and that is complete, too.
        ready = "document.readyState === 'complete' && document.querySelector('.pair') !== null"
        while not self.evaluate(ready) and time.monotonic() < deadline:
            time.sleep(0.1)
        self.evaluate("Promise.all([...document.images].map((image) => image.decode()))")

    def screenshot(self) -> np.ndarray:
        """What is seen, [H,W,3]."""
        return decoded(b64decode(self.call("Page.captureScreenshot")["data"]))

    def mouse(self, kind: str, x: float, y: float) -> None:
        """Press, move or release the left button."""
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.write_ours)
        os.close(self.read_ours)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    if not CHROMIUM:
        pytest.skip("no chromium on PATH: apt-get install chromium runs this test")
    with contextlib.closing(Browser(tmp_path / "profile")) as opened:
        yield opened


@pytest.mark.slow
def test_dragging_moves_the_border_between_before_and_after(browser: Browser, tmp_path: Path) -> None:
    write_page(tmp_path / "page.html", [make_slider("a.png", *pair(60, 150)), make_slider("b.png", *pair(60, 150))])
    browser.open(tmp_path / "page.html")
    boxes = "[...document.querySelectorAll('.pair')].map((p) => (({x, y, width, height}) => [x, y, width, height])"
    (left, top, width, height), second = browser.evaluate(f"{boxes}(p.getBoundingClientRect()))")
    assert (width, height) == (600, 240)
    row = int(top + height * 0.25)

    def share_of_before(at: int) -> float:
        line = browser.screenshot()[at, int(left) + 1 : int(left + width) - 1]
        return float((line.mean(axis=1) > 128).mean())

    assert share_of_before(row) == pytest.approx(0.5, abs=0.02)
    browser.mouse("mousePressed", left + 300, row)
    browser.mouse("mouseMoved", left + 450, row)
    assert share_of_before(row) == pytest.approx(0.75, abs=0.02)
    browser.mouse("mouseMoved", left + 2000, row)
    assert share_of_before(row) == pytest.approx(1, abs=0.02)
    browser.mouse("mouseMoved", left + 60, row)
    browser.mouse("mouseReleased", left + 60, row)
    browser.mouse("mouseMoved", left + 60, row)
    assert share_of_before(row) == pytest.approx(0.1, abs=0.02)
    assert share_of_before(int(second[1] + height * 0.25)) == pytest.approx(0.5, abs=0.02)  # the other stays


@pytest.mark.slow
def test_keys_move_it_too(browser: Browser, tmp_path: Path) -> None:
    write_page(tmp_path / "page.html", [make_slider("a.png", *pair(60, 150))])
    browser.open(tmp_path / "page.html")
    browser.call("Emulation.setFocusEmulationEnabled", enabled=True)
    browser.evaluate("document.querySelector('input').focus()")
    arrow = {"key": "ArrowRight", "code": "ArrowRight", "windowsVirtualKeyCode": 39, "nativeVirtualKeyCode": 39}
    for _ in range(3):
        browser.call("Input.dispatchKeyEvent", type="rawKeyDown", **arrow)
        browser.call("Input.dispatchKeyEvent", type="keyUp", **arrow)
    assert browser.evaluate("parseFloat(document.querySelector('.pair').style.getPropertyValue('--at'))") > 50
