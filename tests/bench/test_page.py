"""Charts and the HTML page, also as a browser shows it."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dreamsr.bench.benchmark import Report, bench
from dreamsr.bench.request import BenchRequest
from tests.browser import CHROMIUM

pytest.importorskip("matplotlib", reason="charts need matplotlib, the extra dreamsr[bench]")

from dreamsr.bench.page import page
from dreamsr.bench.plots import Plot, plots

PICTURES = Path(__file__).parents[1] / "pictures"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> Report:
    folder = tmp_path_factory.mktemp("page")
    data = folder / "a <b>photo & more"
    data.mkdir()
    Image.open(PICTURES / "astronaut.png").convert("RGB").crop((60, 0, 156, 96)).save(data / "astro.png")
    Image.open(PICTURES / "cat.png").convert("RGB").crop((40, 30, 136, 126)).save(data / "cat.png")
    request = BenchRequest(
        data=(str(data),), weights=(f"tiny={tiny_weights}",), steps=(1, 2, 4), seeds=2, device="cpu", lpips=()
    )
    return bench(request, work=folder / "work", command_line="dreamsr bench <script>alert(1)</script>")


@pytest.fixture(scope="module")
def figures(report: Report) -> list[Plot]:
    return plots(report.summary, report.results)


@pytest.fixture(scope="module")
def html(report: Report, figures: list[Plot]) -> str:
    return page(report, figures).decode()


class Tags(HTMLParser):
    """All tags with their attributes, and whether they are balanced."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_charts_come_as_svg_and_png_with_readable_text(figures: list[Plot]) -> None:
    assert [f.name for f in figures] == ["perception-distortion", "quality-steps", "quality-seconds", "per-image"]
    for figure in figures:
        assert figure.png.startswith(b"\x89PNG")
        text = figure.svg.decode()
        assert "tiny" in text
        assert "PSNR-Y, dB" in text
        assert not re.search(r'(href|src)="(?!#|data:)', text)
    assert "SSIM stands in" in figures[0].caption


def test_charts_are_the_same_bytes_every_time(report: Report, figures: list[Plot]) -> None:
    again = plots(report.summary, report.results)
    assert [(f.svg, f.png) for f in again] == [(f.svg, f.png) for f in figures]


def test_lpips_is_the_perceptual_axis_where_there_is_one(report: Report) -> None:
    summary = [
        replace(entry, metrics={**entry.metrics, "lpips_alex": replace(entry.metrics["ssim_y"], mean=0.1 * number)})
        for number, entry in enumerate(report.summary)
    ]
    assert b"LPIPS" in plots(summary, report.results)[0].svg


def test_a_report_without_weights_still_has_charts(report: Report) -> None:
    summary = [entry for entry in report.summary if entry.method in ("bicubic", "lanczos")]
    results = [result for result in report.results if result.method in ("bicubic", "lanczos")]
    assert [f.name for f in plots(summary, results)] == ["perception-distortion", "quality-seconds", "per-image"]


def test_the_page_needs_nothing_else_and_shows_names_as_text(html: str) -> None:
    tags = Tags(html).found
    sources = [a["src"] for t, a in tags if t == "img"]
    assert all(source is not None and source.startswith("data:image/") for source in sources)
    assert not [t for t, _ in tags if t in ("script", "iframe", "object", "b")]
    assert {a.get("href") for t, a in tags if t == "link"} == {"data:,"}
    assert "a &lt;b&gt;photo &amp; more" in html
    assert "dreamsr bench &lt;script&gt;" in html


def test_the_table_comes_first_then_charts_then_crops(html: str) -> None:
    places = [html.index(text) for text in ("<table>", "<details>", 'class="plot"', 'class="crops"', "Protocol</h2>")]
    assert places == sorted(places)


def test_the_page_holds_tables_crops_and_origin(html: str, report: Report) -> None:
    tags = Tags(html).found
    assert sum(t == "table" for t, _ in tags) == 3
    captions = re.findall(r"<figcaption>([^<]*)</figcaption></figure>", html)
    assert captions[:2] == ["truth", "small image"]
    assert [c.split(":")[0] for c in captions[2:7]] == [
        "bicubic",
        "lanczos",
        "tiny, steps 1",
        "tiny, steps 2",
        "tiny, steps 4",
    ]
    assert report.data["weights"][0]["sha256"] in html
    assert "MATLAB rgb2ycbcr" in html
    assert report.data["environment"]["torch"] in html


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="no chromium, chromium-browser or google-chrome on PATH")
def test_a_browser_shows_charts_and_crops(html: str, report: Report, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(html)
    shot = tmp_path / "page.png"
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1200,4200"]
    subprocess.run(
        [CHROMIUM, *options, f"--user-data-dir={tmp_path}", f"--screenshot={shot}", str(tmp_path / "page.html")],
        check=True,
        capture_output=True,
        timeout=240,
    )
    seen = np.array(Image.open(shot).convert("RGB")).astype(int)  # [H,W,3]
    assert seen.shape == (4200, 1200, 3)
    blue = np.abs(seen - np.array([0x00, 0x72, 0xB2])).max(axis=2) < 8
    assert blue.sum() > 300, "the line of the weights is in no chart"
    item = report.datasets[0].item(0)
    shown = item.show(item.truth).astype(int)
    patch = np.repeat(np.repeat(shown, 2, axis=0), 2, axis=1)[20:60, 20:60]  # crops are shown at twice their size
    red = patch[..., 0]
    rows, columns = np.nonzero(np.abs(seen[:-40, :-40] - patch[0, 0]).max(axis=2) <= 2)
    fits = [np.abs(seen[y : y + 40, x : x + 40, 0] - red).mean() for y, x in zip(rows, columns, strict=True)]
    assert min(fits, default=99) < 4, "the crop of the truth is not on the page"
