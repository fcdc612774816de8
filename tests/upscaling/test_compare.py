"""The compare page: self-contained, correct, and working in a browser without a network."""

from __future__ import annotations

import errno
import io
import os
import re
import tracemalloc
from base64 import b64decode
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dreamsr.errors import OutputError
from dreamsr.pictures.lanczos import resized
from dreamsr.pictures.picture import Metadata, Picture
from dreamsr.upscaling.compare import CROP_PX, ComparePage, Slider, is_page, make_slider
from tests.browser import Browser


def pair(height: int = 20, width: int = 30, *, alpha: bool = False, dtype: type = np.uint8) -> tuple[Picture, Picture]:
    """A grey small picture and a black result, so that a screenshot tells which is seen."""
    peak = int(np.iinfo(dtype).max)
    mask = np.full((height, width), peak, dtype) if alpha else None
    wide = np.full((4 * height, 4 * width), peak, dtype) if alpha else None
    small = Picture(np.full((height, width, 3), peak, dtype), mask)
    return small, Picture(np.zeros((4 * height, 4 * width, 3), dtype), wide)


def write_page(path: Path, sliders: Sequence[Slider]) -> None:
    page = ComparePage(path)
    for slider in sliders:
        page.add(slider)
    page.finish()


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


def test_the_page_is_whole_after_every_picture(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text("an earlier page")
    page = ComparePage(path)
    assert path.read_text() == "an earlier page"  # until there is something to show
    for number in range(1, 4):
        page.add(make_slider(f"{number}.png", *pair()))
        text = path.read_text("utf-8")
        assert text.count("<figure>") == text.count("</figure>") == number
        assert text.endswith("</figure>\n")
        assert is_page(path)
    page.finish()
    assert path.read_text("utf-8") == text
    assert [one.name for one in tmp_path.iterdir()] == ["page.html"]


def test_an_interrupted_page_goes_on_behind_its_last_whole_picture(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    write_page(path, [make_slider("a.png", *pair()), make_slider("b.png", *pair())])
    whole = path.read_bytes()
    inside = (whole.index(b"a.png"), whole.index(b"b.png") + 700)
    for cut, left in ((len(whole), 2), (len(whole) - 1, 1), (inside[1], 1), (inside[0], 0)):
        path.write_bytes(whole[:cut])
        page = ComparePage(path, goes_on=True)
        page.add(make_slider("c.png", *pair()))
        page.finish()
        titles = re.findall(r"<strong>(.*?)</strong>", path.read_text("utf-8"))
        assert titles == [*["a.png", "b.png"][:left], "c.png"]
    path.write_text("<!doctype html>mine")
    assert not is_page(path)


def test_parts_of_other_processes_are_taken_in(tmp_path: Path) -> None:
    page, part = ComparePage(tmp_path / "page.html"), ComparePage(tmp_path / "part", part=True)
    part.add(make_slider("b.png", *pair()))
    page.add(make_slider("a.png", *pair()))
    page.take_in(part.path)
    page.finish()
    assert re.findall(r"<strong>(.*?)</strong>", page.path.read_text("utf-8")) == ["a.png", "b.png"]
    assert not part.path.exists()


def test_memory_does_not_grow_with_the_page(tmp_path: Path) -> None:
    one = Slider("a.png", "", bytes(200_000), bytes(200_000), 8, 8)
    page = ComparePage(tmp_path / "page.html")
    page.add(one)
    tracemalloc.start()
    for _ in range(40):
        page.add(one)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert page.path.stat().st_size > 20_000_000
    assert peak < 8_000_000


def test_a_full_disk_costs_the_page_alone_and_is_told_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = ComparePage(tmp_path / "page.html")
    page.add(make_slider("a.png", *pair()))
    before = page.path.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    page.add(make_slider("b.png", *pair()))
    monkeypatch.undo()
    assert page.path.read_bytes() == before  # what was written of it is cut off again
    with pytest.raises(OutputError, match="No space left"):
        page.finish()


# --- in a browser -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_dragging_moves_the_border_between_before_and_after(browser: Browser, tmp_path: Path) -> None:
    write_page(tmp_path / "page.html", [make_slider("a.png", *pair(60, 150)), make_slider("b.png", *pair(60, 150))])
    browser.open((tmp_path / "page.html").as_uri(), wanted=".pair")
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
    browser.open((tmp_path / "page.html").as_uri(), wanted=".pair")
    browser.evaluate("document.querySelector('input').focus()")
    browser.press("ArrowRight", 3)
    assert browser.evaluate("parseFloat(document.querySelector('.pair').style.getPropertyValue('--at'))") > 50


def test_a_page_cut_at_any_place_still_shows_what_is_whole(browser: Browser, tmp_path: Path) -> None:
    write_page(tmp_path / "whole.html", [make_slider("a.png", *pair(60, 150)), make_slider("b.png", *pair(60, 150))])
    whole = (tmp_path / "whole.html").read_bytes()
    second = whole.index(b"b.png")
    for cut in (second - 30, second + 2, whole.index(b"base64,", second) + 90, len(whole) - 12):
        (tmp_path / "page.html").write_bytes(whole[:cut])
        browser.open((tmp_path / "page.html").as_uri(), wanted=".pair input")
        browser.press("p")
        browser.press("Home")
        browser.press("s")
        assert browser.evaluate("document.querySelector('input').getAttribute('aria-valuetext')") == "100 % bicubic"
        assert browser.evaluate("pairs()[0].querySelector('input').value") == "0"
        assert browser.evaluate("document.querySelector('img').naturalWidth") == 600


class Patterned:
    """A page with two large pictures of which every part can be told: noise before, other noise after."""

    def __init__(self, browser: Browser, folder: Path) -> None:
        rng = np.random.default_rng(0)
        small = Picture(rng.integers(100, 256, (240, 300, 3), np.uint8))
        large = Picture(np.repeat(np.repeat(rng.integers(0, 100, (120, 150, 3), np.uint8), 8, 0), 8, 1))
        self.slider = make_slider("a.png", small, large)
        self.before, self.after = (decoded(data) for data in (self.slider.before, self.slider.after))  # [960,1200,3]
        write_page(folder / "page.html", [self.slider, make_slider("b.png", *pair(60, 150))])
        browser.open((folder / "page.html").as_uri(), wanted=".pair")
        self.browser = browser

    def view(self) -> tuple[np.ndarray, int, int]:
        """What the window onto the first picture shows [h,w,3], without labels and bars, and how far it is moved."""
        box = "document.querySelector('.scroller')"
        corner = f"[{box}.getBoundingClientRect().x, {box}.getBoundingClientRect().y]"
        sizes = f"[{box}.clientWidth, {box}.clientHeight, {box}.scrollLeft, {box}.scrollTop]"
        (x, y), (width, height, left, top) = self.browser.evaluate(corner), self.browser.evaluate(sizes)
        seen = self.browser.screenshot()[round(y) : round(y) + height - 60, round(x) : round(x) + width]
        return seen[20:], round(left), round(top) + 20

    def shows(self, wanted: np.ndarray, zoom: int) -> None:
        """The window shows just that part of `wanted`, a pixel for `zoom` x `zoom` of the screen's."""
        seen, left, top = self.view()
        scaled = np.repeat(np.repeat(wanted, zoom, 0), zoom, 1)
        part = scaled[top : top + seen.shape[0], left : left + seen.shape[1]]
        assert np.abs(seen.astype(int) - part).mean() < 2


@pytest.mark.slow
def test_zoom_shows_a_pixel_as_one_or_four_and_swap_exchanges_the_sides(browser: Browser, tmp_path: Path) -> None:
    page = Patterned(browser, tmp_path)
    whole = browser.evaluate("(({width, height}) => [width, height])(pairs()[0].getBoundingClientRect())")
    assert whole[0] / whole[1] == pytest.approx(1200 / 960, rel=0.01)
    assert whole[1] < browser.evaluate("innerHeight")
    browser.evaluate("document.querySelector('input').focus()")
    browser.press("End")
    browser.press("1")
    page.shows(page.before, 1)
    browser.press("s")
    page.shows(page.after, 1)
    browser.press("ArrowRight", 2, shift=True)
    browser.press("ArrowDown", shift=True)
    page.shows(page.after, 1)
    moved = page.view()[1:]
    browser.press("ArrowLeft", shift=True)
    assert page.view()[1:] == (moved[0] - 80, moved[1])
    browser.press("Home")
    page.shows(page.before, 1)
    browser.press("2")
    page.shows(page.before, 2)
    assert browser.evaluate("document.querySelector('input').getAttribute('aria-valuetext')") == "100 % bicubic"
    browser.press("0")
    assert browser.evaluate("pairs()[0].getBoundingClientRect().width") == whole[0]


@pytest.mark.slow
def test_next_and_previous_go_from_picture_to_picture(browser: Browser, tmp_path: Path) -> None:
    Patterned(browser, tmp_path)
    said = "document.querySelector('output').value"
    focused = "pairs().indexOf(document.activeElement.closest('.pair'))"
    browser.press("n")
    assert browser.evaluate(focused) == 1
    assert browser.evaluate(said) == "2 of 2: b.png, whole, bicubic left"
    assert browser.evaluate("scrollY") > 100
    browser.press("n")
    assert browser.evaluate(focused) == 1
    browser.press("p")
    assert browser.evaluate(focused) == 0
    top = browser.evaluate("document.querySelector('figure').getBoundingClientRect().y")
    assert top >= browser.evaluate("document.querySelector('nav').getBoundingClientRect().bottom")


@pytest.mark.slow
def test_all_can_be_done_by_tab_and_enter_and_is_named(browser: Browser, tmp_path: Path) -> None:
    write_page(tmp_path / "page.html", [make_slider("a.png", *pair(60, 150))])
    browser.open((tmp_path / "page.html").as_uri(), wanted=".pair")
    names = []
    for _ in range(7):
        browser.press("Tab")
        names.append(browser.evaluate("document.activeElement.ariaLabel ?? document.activeElement.innerText"))
        if names[-1] == "2 200 %":
            browser.press("Enter")
    assert names == ["P previous", "N next", "0 whole", "1 100 %", "2 200 %", "S swap sides",
                     "Border between bicubic and dreamsr in a.png"]  # fmt: skip
    assert browser.evaluate("pairs()[0].getBoundingClientRect().width") == 1200
    tree = browser.call("Accessibility.getFullAXTree")["nodes"]
    told = {(node["role"]["value"], node["name"]["value"]) for node in tree if "role" in node and "name" in node}
    assert ("slider", "Border between bicubic and dreamsr in a.png") in told
    assert ("image", "a.png, enlarged") in told
    assert ("navigation", "View") in told
    pressed = "[...document.querySelectorAll('[aria-pressed=true]')].map((button) => button.dataset.level)"
    assert browser.evaluate(pressed) == ["2"]
