"""What a BMP says of its colours, which Pillow does not read: headers of version 4 and 5.

Source: [MS-WMF] 2.2.2.4 and 2.2.2.5 (BITMAPV4HEADER, BITMAPV5HEADER).
"""

import struct

HEADER_AT, V4_BYTES, V5_BYTES = 14, 108, 124
CALIBRATED, EMBEDDED = 0, 0x4D424544
Points = tuple[tuple[float, float], ...]


def embedded_profile(data: bytes) -> bytes | None:
    """The ICC profile in the file, unchecked."""
    if _space(data, V5_BYTES) != EMBEDDED:
        return None
    at, length = struct.unpack_from("<LL", data, HEADER_AT + 112)
    return data[HEADER_AT + at : HEADER_AT + at + length] or None


def calibration(data: bytes) -> tuple[Points, float] | None:
    """x, y of red, green and blue, and the exponent that takes codes to light; None where the file has none sound."""
    if _space(data, V4_BYTES) != CALIBRATED:
        return None
    values = struct.unpack_from("<9l3L", data, HEADER_AT + 60)
    triples = [values[i : i + 3] for i in (0, 3, 6)]
    gammas = [value / 65536 for value in values[9:]]
    if any(sum(triple) <= 0 or min(triple) < 0 for triple in triples) or not all(1 <= g <= 4 for g in gammas):
        return None
    return tuple((x / (x + y + z), y / (x + y + z)) for x, y, z in triples), gammas[1]


def _space(data: bytes, least_bytes: int) -> int | None:
    if data[:2] != b"BM" or len(data) < HEADER_AT + least_bytes:
        return None
    (header_bytes,) = struct.unpack_from("<L", data, HEADER_AT)
    if header_bytes < least_bytes:
        return None
    return int(struct.unpack_from("<L", data, HEADER_AT + 56)[0])
