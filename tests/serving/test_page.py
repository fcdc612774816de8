"""The page in a browser, used as a person uses it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dreamsr.cli import main
from tests.browser import Browser
from tests.serving.conftest import Patient, Serve, Visitor

CARD = "document.querySelectorAll('.card')[{}]"


def pictures(folder: Path, *names: str) -> list[Path]:
    """Small pictures of noise."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for name in names:
        Image.fromarray(rng.integers(0, 256, (30, 40, 3), np.uint8)).save(folder / name)
    return [folder / name for name in names]


def opened(browser: Browser, visitor: Visitor) -> None:
    """The page, as the address given on the command line shows it."""
    browser.open(visitor.address, wanted="#weights-about")
    browser.wait_for("document.querySelector('#weights-about').textContent !== ''")


def card(number: int, state: str) -> str:
    """Whether the list shows a picture in that state."""
    return f"{CARD.format(number)}?.dataset.state === {state!r}"


def text(browser: Browser, selector: str, number: int = 0) -> Any:
    """What a part of a card says."""
    return browser.evaluate(f"{CARD.format(number)}.querySelector({selector!r}).textContent")


def downloaded(folder: Path, name: str) -> bytes:
    """A file that the browser has saved."""
    deadline = time.monotonic() + 60
    while not (folder / name).exists() or list(folder.glob("*.crdownload")):
        assert time.monotonic() < deadline, list(folder.iterdir())
        time.sleep(0.05)
    return (folder / name).read_bytes()


@pytest.mark.slow
def test_drop_wait_compare_and_save(browser: Browser, visitor: Visitor, tmp_path: Path, tiny_weights: Path) -> None:
    (picture,) = pictures(tmp_path / "mine", "a b.png")
    opened(browser, visitor)
    browser.drop([picture], "#drop")
    browser.wait_for(card(0, "done"))
    assert text(browser, ".name") == "a b.png"
    assert "40 × 30 → 160 × 120 px" in text(browser, ".facts")
    assert text(browser, ".state").startswith("done in ")
    assert browser.evaluate("document.querySelector('#told').textContent").startswith("a b.png: done")

    inside = "document.querySelector('#frame').contentDocument"
    border = f"{inside}?.querySelector('.pair input')"
    browser.click(".card .compare")
    browser.wait_for(f"{border} && {border} === {inside}.activeElement")
    browser.press("ArrowRight", 5)
    browser.wait_for(f"{border}.value === '55'")
    browser.press("2")
    browser.wait_for(f"{inside}.querySelector('.pair').getBoundingClientRect().width === 320")
    assert browser.evaluate(f"{inside}.querySelector('img').naturalWidth") == 160
    browser.press("Escape")
    browser.wait_for("!document.querySelector('#view').open")
    browser.wait_for("document.activeElement.className === 'compare'")

    saved = tmp_path / "saved"
    browser.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(saved))
    browser.click(".card .save")
    result = downloaded(saved, "a b_x4.png")
    machine = ["--device", "cpu", "--precision", "fp32", "-q"]
    assert main(["upscale", str(picture), "-o", str(tmp_path / "own.png"), "-w", str(tiny_weights), *machine]) == 0
    assert result == (tmp_path / "own.png").read_bytes()


@pytest.mark.slow
def test_choices_are_told_checked_and_kept_for_what_comes_next(
    browser: Browser, visitor: Visitor, tmp_path: Path
) -> None:
    one, two = pictures(tmp_path / "mine", "1.png", "2.png")
    opened(browser, visitor)
    assert browser.evaluate("document.querySelector('#denoise_myself').disabled")  # the tiny weights have no partner
    choose = (
        "((name, value) => { const field = document.forms.choices.elements[name]; field.value = value;"
        "for (const kind of ['input', 'change']) field.dispatchEvent(new Event(kind, {bubbles: true})); })"
    )
    browser.evaluate(f"{choose}('weights', 'auto')")
    assert browser.evaluate("chosen().denoise") is None
    browser.click("#denoise_myself")
    assert browser.evaluate("chosen().denoise") == 1
    browser.evaluate(f"{choose}('weights', {json.dumps(visitor.weights)})")
    browser.evaluate(f"{choose}('scale', '20')")
    problem = "document.querySelector('#problem').textContent"
    browser.wait_for(f"{problem}.startsWith('“scale” is 20, but it must be above 1')")
    browser.evaluate(f"{choose}('scale', '2')")
    browser.wait_for(f"{problem} === ''")
    browser.evaluate(f"{choose}('fidelity', '0.5')")
    browser.evaluate(f"{choose}('format', 'webp')")
    root = browser.call("DOM.getDocument")["root"]["nodeId"]
    field = browser.call("DOM.querySelector", nodeId=root, selector="#files")["nodeId"]
    browser.call("DOM.setFileInputFiles", nodeId=field, files=[str(one), str(two)])
    browser.wait_for(card(1, "done"))
    told = [(entry["name"], entry["choices"]["scale"], entry["choices"]["fidelity"]) for entry in visitor.list()]
    assert told == [("1.png", 2, 0.5), ("2.png", 2, 0.5)]
    assert [entry["result"]["name"] for entry in visitor.list()] == ["1_x2.webp", "2_x2.webp"]


@pytest.mark.slow
def test_progress_cancel_errors_and_remove(browser: Browser, serve: Serve, patient: Patient, tmp_path: Path) -> None:
    good = pictures(tmp_path / "mine", "1.png", "2.png")
    (tmp_path / "mine" / "<i>bad.png").write_bytes(b"no picture")
    with serve(patient) as visitor:
        opened(browser, visitor)
        browser.drop([*good, tmp_path / "mine" / "<i>bad.png"], "#drop")
        browser.wait_for(card(2, "failed"))
        assert "is not a picture of a known format" in text(browser, ".state", 2)
        browser.wait_for(f"{CARD.format(0)}.querySelector('progress').value === 0.25")
        assert "25 %, about" in text(browser, ".state", 0)
        assert text(browser, ".state", 1) == "waiting, 1 before it"
        assert browser.evaluate("document.title") == "25 % – dreamsr"
        browser.click(".card:nth-child(2) .cancel")
        browser.wait_for(card(1, "cancelled"))
        browser.click(".card:nth-child(1) .cancel")
        browser.wait_for(card(0, "cancelled"))
        for left in (2, 1, 0):
            browser.click(".card .remove")
            browser.wait_for(f"document.querySelectorAll('.card').length === {left}")
        browser.wait_for("document.activeElement.id === 'files'")
        assert visitor.list() == []
    browser.evaluate("look()")
    browser.wait_for("document.querySelector('#sending').textContent.startsWith('dreamsr does not answer')")


@pytest.mark.slow
def test_what_is_too_large_is_told_before_it_is_sent(
    browser: Browser, visitor: Visitor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dreamsr.serving.app import Site

    monkeypatch.setattr(Site, "limit_bytes", 100)
    opened(browser, visitor)
    browser.drop(pictures(tmp_path / "mine", "a.png"), "#drop")
    browser.wait_for(card(0, "failed"))
    assert text(browser, ".state") == "a.png is larger than the 100 bytes a picture may have; shrink it."
    assert visitor.list() == []


@pytest.mark.slow
@pytest.mark.parametrize("width", [1200, 360])
def test_everything_has_a_name_and_fits_the_window(
    browser: Browser, visitor: Visitor, tmp_path: Path, width: int
) -> None:
    opened(browser, visitor)
    browser.call("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 500)
    browser.drop(pictures(tmp_path / "mine", "a" * 150 + ".png"), "#drop")
    browser.wait_for(card(0, "done"))
    assert browser.evaluate("document.documentElement.scrollWidth") == width
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    roles = ("button", "link", "slider", "spinbutton", "combobox", "checkbox")
    unnamed = [node["role"]["value"] for node in nodes if node.get("role", {}).get("value") in roles
               and not node.get("ignored") and not node.get("name", {}).get("value")]  # fmt: skip
    assert unnamed == []
    names = {node["name"]["value"] for node in nodes if not node.get("ignored") and "name" in node}
    assert {"Weights", "Fidelity", f"Save {'a' * 150}.png", "Accept damaged pictures"} <= names
