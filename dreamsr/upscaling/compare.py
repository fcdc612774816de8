"""A page with a slider between plain bicubic and the result: one file, no network, nothing to install."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dreamsr.disk import write_bytes_atomically
from dreamsr.pictures.bleed import bleed
from dreamsr.pictures.lanczos import resized
from dreamsr.pictures.picture import Metadata, Picture, to_8_bit
from dreamsr.pictures.write import encode_picture

if TYPE_CHECKING:
    from dreamsr.core.pixels import Pixels

WHOLE_UP_TO_PX = 2048
CROP_PX = (1200, 1600)
"""Height and width of what is shown of larger results, pixel by pixel: shrinking them would hide the difference."""
QUALITY = 92


@dataclass(frozen=True)
class Slider:
    """Two pictures of one size, as WebP files, and what to write above them."""

    title: str
    caption: str
    before: bytes
    after: bytes
    width: int
    height: int


def make_slider(title: str, small: Picture, large: Picture) -> Slider:
    """The whole of `large`, or its most detailed part, and the same part of `small` by bicubic."""
    top, left, height, width = _part(small, large)
    y, x = small.height / large.height, small.width / large.width
    box = (left * x, top * y, (left + width) * x, (top + height) * y)
    pixels = small.pixels if small.alpha is None else bleed(small.pixels, small.alpha)
    before = replace(
        small,
        pixels=resized(pixels, height, width, box=box, kernel="bicubic"),
        alpha=None
        if small.alpha is None
        else resized(small.alpha[..., None], height, width, box=box, kernel="bicubic")[..., 0],
    )
    window = slice(top, top + height), slice(left, left + width)
    after = replace(large, pixels=large.pixels[window], alpha=None if large.alpha is None else large.alpha[window])
    size = f"{small.width}\u2009×\u2009{small.height} → {large.width}\u2009×\u2009{large.height} px"
    whole = (height, width) == (large.height, large.width)
    return Slider(title, size if whole else f"{size}, a part", _webp(before), _webp(after), width, height)


def _part(small: Picture, large: Picture) -> tuple[int, int, int, int]:
    """(top, left, height, width) in pixels of `large`."""
    if max(large.height, large.width) <= WHOLE_UP_TO_PX:
        return 0, 0, large.height, large.width
    height, width = min(CROP_PX[0], large.height), min(CROP_PX[1], large.width)
    y, x = large.height / small.height, large.width / small.width
    top, left = _most_detailed(small.pixels, max(1, int(height / y)), max(1, int(width / x)))
    return min(round(top * y), large.height - height), min(round(left * x), large.width - width), height, width


def _most_detailed(pixels: Pixels, height: int, width: int) -> tuple[int, int]:
    """Where the window of height x width with the largest sum of gradients begins."""
    grey = pixels.mean(axis=2, dtype=np.float32)
    detail = np.abs(np.diff(grey, axis=0, append=grey[-1:])) + np.abs(np.diff(grey, axis=1, append=grey[:, -1:]))
    sums = np.pad(detail.cumsum(axis=0, dtype=np.float64).cumsum(axis=1), ((1, 0), (1, 0)))
    inside = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    top, left = np.unravel_index(int(inside.argmax()), inside.shape)
    return int(top), int(left)


def _webp(picture: Picture) -> bytes:
    """An 8-bit WebP in sRGB, so that every browser shows the same."""
    eight = replace(
        picture,
        pixels=np.ascontiguousarray(to_8_bit(picture.pixels)),
        alpha=None if picture.alpha is None else np.ascontiguousarray(to_8_bit(picture.alpha)),
        metadata=Metadata(icc=picture.metadata.icc),
    )
    return encode_picture(eight, format="WEBP", quality=QUALITY, strip=True)


def write_page(path: Path, sliders: Sequence[Slider]) -> None:
    """One self-contained HTML file with all sliders. Raises OutputError."""
    body = "\n".join(_figure(slider) for slider in sliders) or "<p>No picture was enlarged.</p>"
    write_bytes_atomically(path, PAGE.replace("<!--figures-->", body).encode("utf-8", "backslashreplace"))


def _figure(slider: Slider) -> str:
    title = html.escape(slider.title)
    before, after = (base64.b64encode(data).decode("ascii") for data in (slider.before, slider.after))
    return f"""<figure>
<figcaption><strong>{title}</strong> <span>{html.escape(slider.caption)}</span></figcaption>
<div class="pair" style="--width:{slider.width}px;aspect-ratio:{slider.width}/{slider.height}">
<img src="data:image/webp;base64,{after}" width="{slider.width}" height="{slider.height}" alt="{title}, enlarged">
<img src="data:image/webp;base64,{before}" width="{slider.width}" height="{slider.height}" alt="{title}, bicubic"
 class="before">
<span class="label left">bicubic</span><span class="label right">dreamsr</span>
<div class="bar"></div>
<input type="range" min="0" max="100" step="1" value="50" aria-label="How much of {title} shows bicubic, in percent">
</div>
</figure>"""


PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>dreamsr: before and after</title>
<style>
:root { color-scheme: light dark; }
body { margin: 2rem auto; padding: 0 1rem; max-width: 120rem; font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.25rem; font-weight: 600; margin: 0; }
p { margin: .25rem 0 1.5rem; opacity: .75; }
figure { margin: 0 0 3rem; }
figcaption { margin-bottom: .5rem; overflow-wrap: anywhere; }
figcaption span { opacity: .65; margin-left: .5rem; font-variant-numeric: tabular-nums; }
.pair { --at: 50%; position: relative; width: min(100%, max(var(--width), 20rem)); overflow: hidden;
  border-radius: .4rem; background: repeating-conic-gradient(#bbb 0 25%, #eee 0 50%) 0 0 / 1.5rem 1.5rem; }
.pair img { position: absolute; inset: 0; width: 100%; height: 100%; display: block; }
.before { background: inherit; clip-path: inset(0 calc(100% - var(--at)) 0 0); }
.bar { position: absolute; top: 0; bottom: 0; left: var(--at); width: 2px; margin-left: -1px;
  background: #fff; box-shadow: 0 0 4px #0009; pointer-events: none; }
.bar::after { content: "\\2194"; position: absolute; top: 50%; left: 50%; translate: -50% -50%; width: 2.25rem;
  line-height: 2.25rem; text-align: center; border-radius: 50%; background: #fff; color: #222;
  box-shadow: 0 0 6px #0009; }
.label { position: absolute; bottom: .6rem; padding: .1rem .6rem; border-radius: 1rem; font-size: .8rem;
  color: #fff; background: #000a; pointer-events: none; }
.left { left: .6rem; } .right { right: .6rem; }
.pair input { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; opacity: 0; cursor: ew-resize;
  touch-action: pan-y; }
.pair:focus-within { outline: 3px solid Highlight; outline-offset: 2px; }
</style>
</head>
<body>
<h1>Before and after</h1>
<p>Drag over a picture, or use the arrow keys: bicubic on the left, dreamsr on the right.</p>
<!--figures-->
<script>
for (const pair of document.querySelectorAll(".pair")) {
  const range = pair.querySelector("input");
  const show = (percent) => pair.style.setProperty("--at", Math.min(100, Math.max(0, percent)) + "%");
  const follow = (event) => {
    const box = pair.getBoundingClientRect();
    const percent = 100 * (event.clientX - box.left) / box.width;
    range.value = percent;
    show(percent);
  };
  range.addEventListener("input", () => show(range.value));
  pair.addEventListener("pointerdown", (event) => { range.setPointerCapture(event.pointerId); follow(event); });
  pair.addEventListener("pointermove", (event) => { if (event.buttons & 1) follow(event); });
}
</script>
</body>
</html>
"""
