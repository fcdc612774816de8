"""JPEG markers: how a picture is coded, without decoding it.

Source: ITU-T T.81 (1992), annex B; TIFF technical note 2 (1995) for tables that strips share.
"""

import struct

START_OF_SCAN, START_OF_IMAGE, END_OF_IMAGE = 0xDA, b"\xff\xd8", b"\xff\xd9"
CODINGS = {0xC0: "", 0xC1: "", 0xC2: "", 0xC3: "lossless", 0xC9: "", 0xCA: "", 0xCB: "lossless"} | dict.fromkeys(
    (0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF), "hierarchical"
)


def unread_coding(data: bytes) -> str:
    """What about the coding no decoder of ours reads ("12-bit"); "" where it is read, or where nothing tells."""
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in CODINGS:
            bits = data[at + 4]
            return CODINGS[marker] or (f"{bits}-bit" if bits != 8 else "")
        if marker == START_OF_SCAN:
            break
        at += 1 if marker == 0xFF else 2 + struct.unpack_from(">H", data, at + 2)[0]
    return ""


def is_ended(data: bytes) -> bool:
    """Whether an end marker stands behind the last pixels; neither marker occurs within coded ones."""
    return data.rfind(END_OF_IMAGE) > data.rfind(bytes([0xFF, START_OF_SCAN]))


def with_tables(tables: bytes, part: bytes) -> bytes:
    """A strip or tile of a TIFF as a JPEG of its own, with the tables that it shares with the others."""
    return (tables.removesuffix(END_OF_IMAGE) or START_OF_IMAGE) + part.removeprefix(START_OF_IMAGE)
