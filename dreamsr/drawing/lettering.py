"""Drawn pictures: text as on pages, signs and over photos."""

from __future__ import annotations

from PIL import Image, ImageDraw

from dreamsr.drawing.canvas import Canvas
from dreamsr.drawing.fonts import sized

SMALLEST_PX, LARGEST_PX = 8, 60


def text_page(canvas: Canvas) -> Image.Image:
    """Lines of one size and font, ragged or cut by the border; at times on a slant."""
    paper = canvas.paper()
    ink = canvas.ink_on(paper)
    image = canvas.ground(paper)
    if canvas.chance(0.15):
        side = round(1.5 * canvas.side)
        mask = Image.new("L", (side, side))
        _lines(canvas, ImageDraw.Draw(mask), side, 255)
        turned = mask.rotate(canvas.real(-30, 30), Image.Resampling.BICUBIC)
        edge = (side - canvas.side) // 2
        image.paste(ink, (0, 0), turned.crop((edge, edge, edge + canvas.side, edge + canvas.side)))
        return image
    pen = ImageDraw.Draw(image)
    if canvas.chance(0.06):
        pen.fontmode = "1"  # no grey steps, as on old screens
    _lines(canvas, pen, canvas.side, ink)
    return image


def headline(canvas: Canvas) -> Image.Image:
    """Few large words, outlined or with a shadow, each line in a size and font of its own."""
    paper = canvas.paper()
    image = canvas.ground(paper)
    pen = ImageDraw.Draw(image)
    y = canvas.whole(-20, 20)
    while y < canvas.side:
        size = canvas.size_px(18, LARGEST_PX)
        font, ink, text = canvas.font(size), canvas.ink_on(paper), canvas.words(canvas.whole(1, 4))
        text = text.upper() if canvas.chance(0.4) else text
        at = (canvas.whole(-size, canvas.side // 3), y)
        style = canvas.draw.random()
        if style < 0.3:
            pen.text(at, text, ink, font, stroke_width=max(1, size // 16), stroke_fill=canvas.ink_on(ink))
        else:
            if style < 0.5:
                away = max(1, size // 14)
                pen.text((at[0] + away, at[1] + away), text, tuple(n // 2 for n in paper), font)
            pen.text(at, text, ink, font)
        y += round(canvas.real(1.1, 1.8) * size)
    return image


def _lines(canvas: Canvas, pen: ImageDraw.ImageDraw, side: int, ink: int | tuple[int, int, int]) -> None:
    """Fills a square with text."""
    font, size = canvas.one_of(canvas.fonts), _size_px(canvas)
    foreign = font.many_scripts and canvas.chance(0.25)
    step = round(canvas.real(1.1, 1.7) * size) + 1
    left, y = canvas.whole(-size, side // 4), canvas.whole(-step, step)
    words = side // (3 * size) + 2
    while y < side:
        if not canvas.chance(0.1):
            pen.text(
                (left, y), canvas.words(words if canvas.chance(0.8) else 1, foreign=foreign), ink, sized(font, size)
            )
            if canvas.chance(0.06):
                pen.line(
                    (left, y + 1.15 * size, left + canvas.whole(1, 8) * size, y + 1.15 * size), ink, max(1, size // 14)
                )
        y += step


def _size_px(canvas: Canvas) -> int:
    """Any size, but half of the time one that can still be read at a quarter of it."""
    return canvas.whole(24, LARGEST_PX) if canvas.chance(0.5) else canvas.size_px(SMALLEST_PX, LARGEST_PX)
