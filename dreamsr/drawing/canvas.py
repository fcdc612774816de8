"""What all drawn pictures are made with: one stream of draws, colours that can be told apart, grounds, and text."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dreamsr.drawing.fonts import Font, sized

Colour = tuple[int, int, int]
Point = tuple[float, float]
Item = TypeVar("Item")

FINE = 3
"""Smooth shapes are drawn so many times larger and then averaged."""
LATIN = (
    "the of and to in is for on with that open save file edit view help settings search cancel apply close next back "
    "Sunday street coffee market Price total 2024 12:45 km/h 100% 3.14 No. Mr. & $19.99 (see) A4 x64 river mountain "
    "Größe Übung Straße für où élève garçon niño señor año città perché São coração Łódź žluťoučký kůň årsmøte "
    "quick brown fox jumps over lazy dog WARNING SALE EXIT Chapter figure table result image model light window "
    "user@example.org www.example.com +44 20 7946 #42 i.e. e.g. 'quoted' end. why? yes! well; so, [1] {2} 5/8"
)
OTHER = "привет мир улица дом Москва книга время Ελλάδα λόγος ημέρα θάλασσα Αθήνα нет да вода город"
WORDS, FOREIGN = LATIN.split(), OTHER.split()
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


@dataclass(frozen=True)
class Canvas:
    """A square picture in the making: its draws, its side in px and the fonts at hand."""

    draw: np.random.Generator
    side: int
    fonts: Sequence[Font]

    def chance(self, probability: float) -> bool:
        return bool(self.draw.random() < probability)

    def whole(self, low: int, high: int) -> int:
        """A whole number, both ends possible."""
        return int(self.draw.integers(low, high, endpoint=True))

    def real(self, low: float, high: float) -> float:
        return float(self.draw.uniform(low, high))

    def size_px(self, low: int, high: int) -> int:
        """Small ones are the more frequent: even in the logarithm."""
        return round(math.exp(self.draw.uniform(math.log(low), math.log(high))))

    def one_of(self, items: Sequence[Item]) -> Item:
        return items[int(self.draw.integers(len(items)))]

    def point(self, beyond: float = 0.1) -> Point:
        """Anywhere on the canvas, or up to a share of it beyond."""
        x, y = self.draw.uniform(-beyond * self.side, (1 + beyond) * self.side, size=2)
        return float(x), float(y)

    # colours

    def colour(self, low: int = 0, high: int = 255) -> Colour:
        r, g, b = self.draw.integers(low, high, size=3, endpoint=True)
        return int(r), int(g), int(b)

    def bright(self) -> Colour:
        """A full colour, as in drawings and on buttons."""
        hue, low, high = self.real(0, 6), self.whole(0, 120), self.whole(150, 255)
        levels = [min(1.0, max(0.0, abs((hue + shift) % 6 - 3) - 1)) for shift in (0, 4, 2)]
        r, g, b = (round(low + (high - low) * level) for level in levels)
        return r, g, b

    def ink_on(self, paper: Colour) -> Colour:
        """Black or white as `paper` asks for, or a colour that stands out from it."""
        dark_paper = luma(paper) < 128
        if self.chance(0.5):
            grey = self.whole(215, 255) if dark_paper else self.whole(0, 60)
            return grey, grey, grey
        for _ in range(8):
            ink = self.colour()
            if abs(luma(ink) - luma(paper)) > 70:
                return ink
        return (255, 255, 255) if dark_paper else (0, 0, 0)

    def paper(self) -> Colour:
        """White or nearly, dark, or any colour."""
        kind = self.draw.random()
        if kind < 0.5:
            grey = self.whole(225, 255)
            return (255, 255, 255) if self.chance(0.5) else (grey, grey, self.whole(215, 255))
        if kind < 0.7:
            grey = self.whole(0, 50)
            return grey, grey, min(255, grey + self.whole(0, 12))
        return self.colour()

    # grounds

    def ground(self, paper: Colour) -> Image.Image:
        """Plain mostly, else a gradient or like a photo out of focus, about the colour of `paper`."""
        kind = self.draw.random()
        if kind < 0.6:
            return Image.new("RGB", (self.side, self.side), paper)
        reach = self.whole(10, 60)
        cells = 2 if kind < 0.8 else self.whole(3, 14)
        change = self.draw.integers(-reach, reach, size=(cells, cells, 3), endpoint=True)
        small = np.clip(np.asarray(paper) + change, 0, 255).astype(np.uint8)
        image = Image.fromarray(small).resize((self.side, self.side), Image.Resampling.BICUBIC)
        if kind < 0.9:
            return image
        grain = self.draw.normal(0, self.real(1, 10), (self.side, self.side, 1))
        return Image.fromarray(np.clip(np.asarray(image) + grain, 0, 255).astype(np.uint8))

    def smooth(self, paint: Callable[[ImageDraw.ImageDraw, int], None], ground: Image.Image) -> Image.Image:
        """What `paint(pen, times)` draws at `times` the size on `ground`, averaged to its size."""
        side = FINE * self.side
        large = ground.resize((side, side), Image.Resampling.NEAREST)
        paint(ImageDraw.Draw(large), FINE)
        return large.reduce(FINE)

    # text

    def font(self, size_px: int, fonts: Sequence[Font] = ()) -> ImageFont.FreeTypeFont:
        return sized(self.one_of(fonts or self.fonts), size_px)

    def words(self, count: int, *, foreign: bool = False) -> str:
        """Known words, numbers and some of chance letters."""
        chosen = []
        for _ in range(count):
            if self.chance(0.15):
                length = self.whole(2, 9)
                chosen.append("".join(LETTERS[n] for n in self.draw.integers(len(LETTERS), size=length)))
            else:
                chosen.append(self.one_of(FOREIGN if foreign and self.chance(0.5) else WORDS))
        return " ".join(chosen)


def luma(colour: Colour) -> float:
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def between(first: Colour, second: Colour, share: float) -> Colour:
    """`first` with a share of `second` in it."""
    r, g, b = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return r, g, b


def times(points: Sequence[Point], factor: float) -> list[Point]:
    return [(factor * x, factor * y) for x, y in points]
