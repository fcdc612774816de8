"""The code points in an AV1 stream itself, which count where an AVIF has no colour box.

Source: AV1 bitstream specification (2019), sections 5.3, 5.5 and 5.9.30; AV1-ISOBMFF 2.3.3.
"""

from __future__ import annotations

from dreamsr.pictures.colours.boxes import Nclx

SEQUENCE_HEADER = 1


class _Bits:
    """A reader of numbers of any number of bits. Raises IndexError at the end."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> int:
        value = 0
        for _ in range(count):
            value = value << 1 | self.data[self.at // 8] >> 7 - self.at % 8 & 1
            self.at += 1
        return value

    def take_uvlc(self) -> int:
        zeros = 0
        while not self.take(1):
            zeros += 1
        return (1 << zeros) - 1 + self.take(zeros)


def codes_of(stream: bytes) -> Nclx | None:
    """What the sequence header among the first units of `stream` says; None where it says nothing."""
    at = 0
    try:
        while at < len(stream):
            head = stream[at]
            at += 2 if head & 4 else 1  # an extension
            size, shift = len(stream) - at, 0
            if head & 2:
                size = 0
                while True:
                    byte = stream[at]
                    at += 1
                    size |= (byte & 127) << shift
                    shift += 7
                    if byte < 128 or shift > 56:
                        break
            if head >> 3 & 15 == SEQUENCE_HEADER:
                return _colour_config(_Bits(stream[at : at + size]))
            at += size
    except IndexError:
        pass
    return None


def _colour_config(bits: _Bits) -> Nclx | None:
    profile = bits.take(3)
    bits.take(1)
    is_reduced = bool(bits.take(1))
    if is_reduced:
        bits.take(5)
    else:
        _skip_operating_points(bits)
    widths = bits.take(4) + 1, bits.take(4) + 1
    bits.take(sum(widths))
    if not is_reduced and bits.take(1):
        bits.take(7)  # frame numbers
    bits.take(3)
    if not is_reduced:
        _skip_tools(bits)
    bits.take(3)
    is_deep = bits.take(1)
    if profile == 2 and is_deep:
        bits.take(1)
    if profile != 1:
        bits.take(1)  # monochrome
    if not bits.take(1):
        return None
    return Nclx(bits.take(8), bits.take(8), bits.take(8), full_range=True)  # the decoder undoes matrix and range


def _skip_operating_points(bits: _Bits) -> None:
    delay_bits = 0
    if bits.take(1):  # timing
        bits.take(64)
        if bits.take(1):
            bits.take_uvlc()
        if bits.take(1):  # decoder model
            delay_bits = bits.take(5) + 1
            bits.take(42)
    has_display_delay = bits.take(1)
    for _ in range(bits.take(5) + 1):
        bits.take(12)
        if bits.take(5) > 7:
            bits.take(1)
        if delay_bits and bits.take(1):
            bits.take(2 * delay_bits + 1)
        if has_display_delay and bits.take(1):
            bits.take(4)


def _skip_tools(bits: _Bits) -> None:
    bits.take(4)
    has_order_hint = bits.take(1)
    if has_order_hint:
        bits.take(2)
    screen_content = 2 if bits.take(1) else bits.take(1)
    if screen_content > 0 and not bits.take(1):
        bits.take(1)
    if has_order_hint:
        bits.take(3)
