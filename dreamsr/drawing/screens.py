"""Drawn pictures: parts of screenshots. Edges lie on whole pixels, as screens draw them."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from dreamsr.drawing.canvas import FINE, Canvas, Colour, between

INDENT = 4


def code(canvas: Canvas) -> Image.Image:
    """An editor: letters of one width, words in some colours, numbers of lines."""
    dark = canvas.chance(0.6)
    paper: Colour = canvas.colour(15, 50) if dark else canvas.colour(245, 255)
    plain: Colour = (212, 212, 212) if dark else (30, 30, 30)
    colours = [plain, plain, *(canvas.colour(130, 255) if dark else canvas.colour(0, 150) for _ in range(4))]
    image = Image.new("RGB", (canvas.side, canvas.side), paper)
    pen, size = ImageDraw.Draw(image), canvas.size_px(10, 48)
    font = canvas.font(size, [font for font in canvas.fonts if font.even])
    step, x0, depth = round(canvas.real(1.2, 1.6) * size), canvas.whole(-60, 30), 0
    letter = font.getlength("m")
    for number, y in enumerate(range(canvas.whole(-step, 0), canvas.side, step), canvas.whole(1, 400)):
        if canvas.chance(0.05):
            pen.rectangle((0, y, canvas.side, y + step - 1), tuple(min(255, n + 18) if dark else n - 18 for n in paper))
        pen.text((x0, y), f"{number:>4}", (128, 128, 128), font)
        depth = min(4, max(0, depth + canvas.whole(-1, 1)))
        x = x0 + letter * (6 + INDENT * depth)
        for _ in range(canvas.whole(0, 7)):
            word = canvas.words(1) + canvas.one_of(["", "", "(", "):", " =", ",", ".", "[0]", ";", " ->", " {"])
            pen.text((x, y), word, canvas.one_of(colours), font)
            x += letter * (len(word) + 1)
    return image


@dataclass(frozen=True)
class _Look:
    """How one window is drawn: picture and pen, height of letters, font and colours."""

    image: Image.Image
    pen: ImageDraw.ImageDraw
    size_px: int
    font: ImageFont.FreeTypeFont
    base: Colour
    accent: Colour
    ink: Colour


def window(canvas: Canvas) -> Image.Image:
    """Rows of buttons, fields, tables, icons and text, perhaps below a title bar."""
    base: Colour = (
        canvas.colour(30, 60) if canvas.chance(0.3) else canvas.one_of([(255, 255, 255), canvas.colour(225, 255)])
    )
    image, size_px = Image.new("RGB", (canvas.side, canvas.side), base), canvas.size_px(10, 44)
    pen = ImageDraw.Draw(image)
    look = _Look(image, pen, size_px, canvas.font(size_px), base, canvas.bright(), canvas.ink_on(base))
    y = canvas.whole(-30, 30)
    if canvas.chance(0.5):
        y = max(0, y)
        pen.rectangle((0, y, canvas.side, y + 2 * size_px), look.accent)
        pen.text((8, y + size_px), canvas.words(4), canvas.ink_on(look.accent), look.font, anchor="lm")
        y += 2 * size_px + 6
    while y < canvas.side:
        y += canvas.one_of((_buttons, _fields, _table, _icons, _paragraph))(canvas, look, y) + canvas.whole(3, 14)
    return image


def _buttons(canvas: Canvas, look: _Look, y: int) -> int:
    """A row of buttons; like all rows it returns its height in px."""
    x, round_px = canvas.whole(-20, 20), canvas.whole(0, look.size_px // 2)
    while x < canvas.side:
        text = canvas.words(canvas.whole(1, 2))
        width = round(look.font.getlength(text)) + 2 * look.size_px
        fill, border = (look.accent, None) if canvas.chance(0.4) else (look.base, look.ink)
        look.pen.rounded_rectangle((x, y, x + width, y + 2 * look.size_px), round_px, fill, border)
        look.pen.text((x + look.size_px, y + look.size_px), text, canvas.ink_on(fill), look.font, anchor="lm")
        x += width + canvas.whole(4, 20)
    return 2 * look.size_px


def _fields(canvas: Canvas, look: _Look, y: int) -> int:
    """A name with a box to tick, a field to fill or a bar of progress behind it."""
    x, side = canvas.whole(-10, 30), look.size_px
    text = canvas.words(2)
    look.pen.text((x + 2 * side, y), text, look.ink, look.font)
    look.pen.rectangle((x, y, x + side, y + side), look.base, look.ink)
    if canvas.chance(0.5):
        look.pen.line((x + 2, y + side // 2, x + side // 2, y + side - 3, x + side - 2, y + 2), look.accent, 2)
    first = round(x + 3 * side + look.font.getlength(text))
    if canvas.chance(0.5):
        look.pen.rectangle((first, y + 2, first + canvas.side // 2, y + side - 2), between(look.base, look.ink, 0.15))
        look.pen.rectangle((first, y + 2, canvas.whole(first, first + canvas.side // 2), y + side - 2), look.accent)
    else:
        look.pen.rectangle((first, y - 2, first + 8 * side, y + side + 3), look.base, between(look.base, look.ink, 0.4))
        look.pen.text((first + 4, y), canvas.words(2), look.ink, look.font)
    return side + 6


def _table(canvas: Canvas, look: _Look, y: int) -> int:
    """Rows in two shades, columns between thin lines."""
    step, columns = round(1.6 * look.size_px), canvas.whole(5, 9) * look.size_px
    first, rows, rule = canvas.whole(-30, 20), canvas.whole(2, 6), between(look.base, look.ink, 0.3)
    for row in range(rows):
        top = y + row * step
        shade = 0.25 if row == 0 else 0.06 * (row % 2)
        look.pen.rectangle((first, top, canvas.side, top + step), between(look.base, look.ink, shade))
        look.pen.line((first, top, canvas.side, top), rule)
        for x in range(first, canvas.side, columns):
            text = canvas.words(1) if canvas.chance(0.6) else f"{canvas.real(0, 1000):.{canvas.whole(0, 2)}f}"
            look.pen.text((x + 4, top + step // 2), text, look.ink, look.font, anchor="lm")
    for x in range(first, canvas.side, columns):
        look.pen.line((x, y, x, y + rows * step), rule)
    return rows * step


def _icons(canvas: Canvas, look: _Look, y: int) -> int:
    """Small signs of few colours with smooth edges."""
    side = canvas.whole(14, 36)
    for x in range(canvas.whole(-side, side), canvas.side, side + canvas.whole(6, 24)):
        large = Image.new("RGB", (FINE * side, FINE * side), look.base)
        pen, whole = ImageDraw.Draw(large), FINE * side
        if canvas.chance(0.5):
            pen.rounded_rectangle((0, 0, whole - 1, whole - 1), whole / 5, canvas.bright())
        for _ in range(canvas.whole(1, 3)):
            a, b = sorted(int(n) for n in canvas.draw.integers(whole // 8, whole * 7 // 8, size=2))
            kind, ink = canvas.whole(0, 3), canvas.one_of([look.ink, look.accent, (255, 255, 255)])
            if kind == 0:
                pen.ellipse((a, a, b, b), ink)
            elif kind == 1:
                pen.rectangle((a, whole - b, b, whole - a), None, ink, 2 * FINE)
            elif kind == 2:
                pen.polygon(((a, a), (b, (a + b) // 2), (a, b)), ink)
            else:
                pen.line((a, b, b, a), ink, 2 * FINE)
        look.image.paste(large.reduce(FINE), (x, y))
    return side


def _paragraph(canvas: Canvas, look: _Look, y: int) -> int:
    step, x, lines = round(1.35 * look.size_px), canvas.whole(-30, 20), canvas.whole(1, 4)
    for line in range(lines):
        look.pen.text((x, y + line * step), canvas.words(8), look.ink, look.font)
    return lines * step
