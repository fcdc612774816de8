"""Drawn pictures: pen drawings, comics, shapes and charts, all with smooth edges."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw

from dreamsr.drawing.canvas import Canvas, Colour, Point, between, times

BLACK: Colour = (0, 0, 0)


def pen_drawing(canvas: Canvas) -> Image.Image:
    """Curves of constant width and hatching, dark on light or the other way."""
    paper = canvas.paper()
    ink = canvas.ink_on(paper)
    strokes = [(_curve(canvas), canvas.real(0.8, 5)) for _ in range(canvas.whole(3, 10))]
    if canvas.chance(0.5):
        strokes = [(points, strokes[0][1]) for points, _ in strokes]
    hatched = [_hatching(canvas) for _ in range(canvas.whole(0, 3))]

    def paint(pen: ImageDraw.ImageDraw, fine: int) -> None:
        for points, width_px in strokes:
            _stroke(pen, points, width_px, ink, fine)
        for lines, width_px in hatched:
            for line in lines:
                _stroke(pen, line, width_px, ink, fine)

    return canvas.smooth(paint, canvas.ground(paper))


def comic(canvas: Canvas) -> Image.Image:
    """Flat fills with black outlines, a screen of dots or hatching here and there, a balloon with capitals."""
    width_px = canvas.real(1.2, 4.5)
    blobs = [(_blob(canvas), canvas.bright()) for _ in range(canvas.whole(3, 8))]
    lines = [_curve(canvas) for _ in range(canvas.whole(1, 6))]
    hatched = _hatching(canvas) if canvas.chance(0.4) else None
    dots = _dots(canvas) if canvas.chance(0.3) else None
    ground = Image.new(
        "RGB", (canvas.side, canvas.side), canvas.one_of([(255, 255, 255), canvas.bright(), (240, 230, 200)])
    )
    balloon = canvas.chance(0.35)
    middle, wide, high = canvas.point(0), canvas.real(0.25, 0.5) * canvas.side, canvas.real(0.12, 0.25) * canvas.side

    def paint(pen: ImageDraw.ImageDraw, fine: int) -> None:
        for points, fill in blobs:
            pen.polygon(times(points, fine), fill)
            _stroke(pen, [*points, points[0], points[1]], width_px, BLACK, fine)
        if dots is not None:
            for (x, y), radius in dots:
                pen.ellipse(((x - radius) * fine, (y - radius) * fine, (x + radius) * fine, (y + radius) * fine), BLACK)
        for line in (*lines, *(hatched[0] if hatched else ())):
            _stroke(pen, line, width_px, BLACK, fine)
        if balloon:
            box = (middle[0] - wide, middle[1] - high, middle[0] + wide, middle[1] + high)
            pen.ellipse(tuple(fine * n for n in box), (255, 255, 255), BLACK, round(fine * width_px))

    image = canvas.smooth(paint, ground)
    if balloon:
        comic_fonts = [font for font in canvas.fonts if font.comic]
        text = "\n".join(canvas.words(canvas.whole(1, 3)).upper() for _ in range(2))
        font = canvas.font(canvas.size_px(12, 44), comic_fonts)
        ImageDraw.Draw(image).multiline_text(middle, text, BLACK, font, anchor="mm", align="center")
    return image


def shapes(canvas: Canvas) -> Image.Image:
    """Ellipses, boxes and polygons of plain colours over each other on any ground."""
    drawn = [(canvas.whole(0, 3), canvas.point(), canvas.point(), canvas.colour(), canvas.real(0, 6)) for _ in range(9)]
    outline = canvas.colour() if canvas.chance(0.5) else None

    def paint(pen: ImageDraw.ImageDraw, fine: int) -> None:
        for kind, first, second, fill, width_px in drawn:
            x, y = zip(*times((first, second), fine), strict=True)
            box, width = (min(x), min(y), max(x), max(y)), round(fine * width_px)
            if kind == 0:
                pen.ellipse(box, fill, outline, width)
            elif kind == 1:
                pen.rectangle(box, fill, outline, width)
            elif kind == 2:
                pen.rounded_rectangle(box, min(max(x) - min(x), max(y) - min(y)) / 4, fill, outline, width)
            else:
                pen.polygon([(x[0], y[0]), (x[1], y[1]), (x[0], y[1])], fill, outline)

    return canvas.smooth(paint, canvas.ground(canvas.paper()))


def chart(canvas: Canvas) -> Image.Image:
    """Axes with numbers and a grid; lines, bars or slices in few colours, and a legend."""
    paper: Colour = (255, 255, 255) if canvas.chance(0.8) else canvas.paper()
    ink, side = canvas.ink_on(paper), canvas.side
    left, bottom, step = canvas.whole(10, 60), side - canvas.whole(10, 50), canvas.whole(18, 60)
    colours, pie = [canvas.bright() for _ in range(4)], canvas.chance(0.2)
    bars, width_px = canvas.chance(0.45), canvas.real(1, 3.5)
    series = np.cumsum(canvas.draw.normal(0, 14, (3, side // 8 + 2)), axis=1) + canvas.draw.uniform(30, 140, (3, 1))
    slices, middle = np.cumsum(canvas.draw.dirichlet([2] * 4)) * 360, canvas.point(-0.25)

    def paint(pen: ImageDraw.ImageDraw, fine: int) -> None:
        for n in range(0, side, step):
            _stroke(
                pen,
                [(left, bottom - n), (side, bottom - n)],
                1,
                between(paper, ink, 1 / 3),
                fine,
            )
        if pie:
            box = tuple(fine * (m + sign * side * 0.3) for sign in (-1, 1) for m in middle)
            for first, last, colour in zip((0, *slices[:-1]), slices, colours, strict=True):
                pen.pieslice(box, first, last, colour, paper)
        elif bars:
            for n, height in enumerate(np.abs(series[0])):
                x = left + n * step * 0.7
                pen.rectangle(
                    (fine * x, fine * (bottom - height), fine * (x + step * 0.5), fine * bottom), colours[n % 2]
                )
        else:
            for values, colour in zip(series, colours, strict=False):
                _stroke(pen, [(left + 8 * n, bottom - value) for n, value in enumerate(values)], width_px, colour, fine)
        _stroke(pen, [(left, 0), (left, bottom), (side, bottom)], 1.3, ink, fine)

    image = canvas.smooth(paint, Image.new("RGB", (side, side), paper))
    pen, font = ImageDraw.Draw(image), canvas.font(canvas.size_px(9, 32))
    for n in range(0, side, step):
        pen.text((left - 4, bottom - n), f"{n * canvas.whole(1, 9) / 10:g}", ink, font, anchor="rm")
        pen.text((left + n, bottom + 4), canvas.words(1), ink, font, anchor="mt")
    for n, colour in enumerate(colours[: canvas.whole(0, 3)]):
        y = canvas.whole(4, 12) + 18 * n
        pen.rectangle((side // 2, y, side // 2 + 10, y + 10), colour)
        pen.text((side // 2 + 15, y - 2), canvas.words(2), ink, font)
    return image


def _stroke(pen: ImageDraw.ImageDraw, points: list[Point], width_px: float, ink: Colour, fine: int) -> None:
    pen.line(times(points, fine), ink, max(1, round(fine * width_px)), joint="curve")


def _curve(canvas: Canvas) -> list[Point]:
    """A cubic Bezier curve, or at times a straight line."""
    if canvas.chance(0.2):
        return [canvas.point(), canvas.point()]
    ends = np.asarray([canvas.point(0.3) for _ in range(4)])
    t = np.linspace(0, 1, 24)[:, None]
    weights = np.hstack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3])  # [24,4]
    return [(float(x), float(y)) for x, y in weights @ ends]


def _blob(canvas: Canvas) -> list[Point]:
    """A closed line about a point: round with waves, or with corners."""
    x, y = canvas.point()
    corners = canvas.whole(3, 7) if canvas.chance(0.3) else 40
    angle = np.linspace(0, 2 * math.pi, corners, endpoint=False)
    waves = sum(canvas.real(0, 0.25) * np.sin(n * angle + canvas.real(0, 6)) for n in (1, 2, 3))
    radius = canvas.real(0.1, 0.4) * canvas.side * (1 + waves)
    return [(float(a), float(b)) for a, b in zip(x + radius * np.cos(angle), y + radius * np.sin(angle), strict=True)]


def _hatching(canvas: Canvas) -> tuple[list[list[Point]], float]:
    """Parallel strokes within a disc, and their width in px."""
    (x, y), radius, angle = canvas.point(0), canvas.real(0.1, 0.35) * canvas.side, canvas.real(0, math.pi)
    width_px, gap_px = canvas.real(0.7, 2.5), canvas.real(3, 10)
    (c, s), lines = (math.cos(angle), math.sin(angle)), []
    for away in np.arange(-radius, radius, gap_px + width_px):
        half = math.sqrt(max(0.0, radius**2 - away**2))
        lines.append(
            [(x + away * c - half * s, y + away * s + half * c), (x + away * c + half * s, y + away * s - half * c)]
        )
    return lines, width_px


def _dots(canvas: Canvas) -> list[tuple[Point, float]]:
    """A screen of dots that grow to one side, over half of the canvas."""
    gap, size = canvas.real(4, 10), canvas.real(0.2, 0.5)
    count = int(canvas.side / gap)
    first = canvas.whole(0, count // 2)
    return [
        (((column + row % 2 / 2) * gap, row * gap), size * gap * (0.4 + 0.6 * column / count))
        for row in range(first, first + count // 2)
        for column in range(count)
    ]
