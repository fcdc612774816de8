"""What the numbers of a picture mean where no ICC profile says it: code points, gamma, chromaticities, EXIF.

Every meaning becomes an ICC profile of a matrix and curves, so that from here on there is one way to carry colours.
Source: ITU-T H.273 (2024) tables 2 and 3; ICC.1:2022 sections 7, 9.2, 10.18 and annex E (Bradford);
PNG third edition 4.3 and 11.3.2; TIFF 6.0 section 20; Exif 3.0 4.6.5; DCF 2.0 (R03); Adobe RGB (1998) 4.3.
"""

from __future__ import annotations

import struct
from numbers import Real
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dreamsr.errors import ImageError
from dreamsr.pictures import heic
from dreamsr.pictures.colours.av1 import codes_of
from dreamsr.pictures.colours.bmp import calibration, embedded_profile
from dreamsr.pictures.colours.boxes import Nclx, nclx_of, properties_of_main, stream_of_main
from dreamsr.pictures.colours.icc import fitting_profile
from dreamsr.pictures.exif import is_adobe_rgb
from dreamsr.pictures.png import chunks

Point = tuple[float, float]  # CIE x, y
Curve = tuple[float, ...]  # g, or g a b c d: Y = (aX + b)^g from X = d on, cX before


class Primaries(NamedTuple):
    """Chromaticities of white and of the three colours."""

    white: Point
    red: Point
    green: Point
    blue: Point


WHITE_POINT, CHROMATICITIES = 318, 319  # of TIFF

D65, ILLUMINANT_C, DCI_WHITE = (0.3127, 0.3290), (0.310, 0.316), (0.314, 0.351)
SRGB = Primaries(D65, (0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
ADOBE_RGB = Primaries(D65, (0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
SMPTE_C = Primaries(D65, (0.630, 0.340), (0.310, 0.595), (0.155, 0.070))
PRIMARIES = {
    1: SRGB,
    2: SRGB,  # unspecified
    4: Primaries(ILLUMINANT_C, (0.67, 0.33), (0.21, 0.71), (0.14, 0.08)),
    5: Primaries(D65, (0.64, 0.33), (0.29, 0.60), (0.15, 0.06)),
    6: SMPTE_C,
    7: SMPTE_C,
    8: Primaries(ILLUMINANT_C, (0.681, 0.319), (0.243, 0.692), (0.145, 0.049)),
    9: Primaries(D65, (0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),  # BT.2020
    11: Primaries(DCI_WHITE, (0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    12: Primaries(D65, (0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),  # Display P3
    22: Primaries(D65, (0.630, 0.340), (0.295, 0.605), (0.155, 0.077)),
}
SRGB_CURVE: Curve = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
# The curves of television cameras (1, 6, 14, 15) are shown as sRGB: so do browsers, so were such files written.
CURVES: dict[int, Curve] = dict.fromkeys((1, 2, 6, 13, 14, 15), SRGB_CURVE) | {
    4: (2.2,),
    5: (2.8,),
    7: (1 / 0.45, 1 / 1.1115, 0.1115 / 1.1115, 0.25, 0.0912),
    8: (1.0,),
    17: (2.6,),
}
ADOBE_CURVE: Curve = (563 / 256,)
PQ_PROFILE = b"ITUR_2100_PQ_FULL\0"
"""The name by which PNG files said PQ before there was cICP (W3C note "Using ITU BT.2100 PQ with PNG")."""
HDR = {16: "PQ", 18: "HLG"}

BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
D50_XYZ = np.array([0.9642, 1.0, 0.8249])


def profile_of(image: Image.Image, data: bytes, exif: bytes | None, *, is_grey: bool, name: str) -> bytes | None:
    """The profile of the pixels of `image`, read from `data` (b"" where unknown): embedded or stated otherwise.

    None means sRGB, and pixels that were converted to it. Raises ImageError for HDR and for unknown meanings.
    """
    if image.mode in ("CMYK", "LAB", "HSV"):
        return None
    embedded = image.info.get("icc_profile") or embedded_profile(data)
    icc = fitting_profile(embedded, is_grey=is_grey) if isinstance(embedded, bytes) else None
    codes = _codes(image, data)
    # PNG puts cICP above a profile, the AVIF and HEIC readers a profile above nclx.
    if icc is not None and (codes is None or image.format != "PNG"):
        return icc
    if codes is not None:
        primaries, curve = _of_codes(codes, name, is_decoded=image.format != "PNG")
    elif (stated := _of_format(image, data)) is not None:
        primaries, curve = stated
    elif is_adobe_rgb(exif):
        primaries, curve = ADOBE_RGB, ADOBE_CURVE
    else:
        return None
    if curve == SRGB_CURVE and (is_grey or primaries == SRGB):
        return None
    return made_profile(primaries, curve, is_grey=is_grey)


def refuse_hdr(image: Image.Image, head: bytes, name: str) -> None:
    """Raises ImageError as `profile_of` would, from the beginning of the file."""
    codes = _codes(image, head)
    if codes is not None and not (image.format != "PNG" and "icc_profile" in image.info):
        _of_codes(codes, name, is_decoded=image.format != "PNG")


def _codes(image: Image.Image, data: bytes) -> Nclx | None:
    if image.format == "PNG":
        found = None
        for name, content in chunks(data):
            if name == b"IDAT":
                break
            if name == b"cICP" and len(content) == 4:
                return Nclx(content[0], content[1], content[2], content[3] == 1)
            if name == b"iCCP" and content.startswith(PQ_PROFILE):
                found = Nclx(9, 16, 0, True)
        return found
    if image.format not in ("AVIF", heic.PLUGIN):
        return None
    found = nclx_of(properties_of_main(data))
    return codes_of(stream_of_main(data)) if found is None and image.format == "AVIF" else found


def _of_codes(codes: Nclx, name: str, *, is_decoded: bool) -> tuple[Primaries, Curve]:
    """`is_decoded`: the decoder has undone matrix and range already. Raises ImageError."""
    if not is_decoded and not (codes.full_range and codes.matrix == 0):
        raise ImageError(f"{name} holds the narrow range of video, which is not read; convert it to full range first.")
    if codes.transfer in HDR:
        raise ImageError(
            f"{name} is an HDR picture ({HDR[codes.transfer]}), whose brightness would be lost; "
            "convert it to a picture in standard range (sRGB or Display P3) first."
        )
    if codes.primaries not in PRIMARIES or codes.transfer not in CURVES:
        raise ImageError(
            f"{name} has colours of an unknown meaning (code points {codes.primaries}/{codes.transfer}); "
            "convert it to sRGB first."
        )
    return PRIMARIES[codes.primaries], CURVES[codes.transfer]


def _of_format(image: Image.Image, data: bytes) -> tuple[Primaries, Curve] | None:
    """What entries of the format's own say, other than code points."""
    if image.format == "BMP":
        calibrated = calibration(data)
        points = () if calibrated is None else (*D65, *(value for point in calibrated[0] for value in point))
        primaries = _sound_primaries(points)
        return None if calibrated is None or primaries is None else (primaries, (calibrated[1],))
    if image.format == "TIFF":
        tags = getattr(image, "tag_v2", {})
        primaries = _sound_primaries((*_numbers(tags.get(WHITE_POINT, D65)), *_numbers(tags.get(CHROMATICITIES))))
        return None if primaries is None else (primaries, SRGB_CURVE)
    return _of_png(image)


def _numbers(value: object) -> tuple[float, ...]:
    """The values of a TIFF entry; () for what are no numbers."""
    return tuple(float(one) for one in value if isinstance(one, Real)) if isinstance(value, tuple) else ()


def _of_png(image: Image.Image) -> tuple[Primaries, Curve] | None:
    """What PNG's chunks sRGB, gAMA and cHRM say, in this order; None where none of them stands there."""
    if "srgb" in image.info:
        return SRGB, SRGB_CURVE
    gamma, points = image.info.get("gamma"), image.info.get("chromaticity")
    primaries = _sound_primaries(points) if isinstance(points, tuple) else None
    curve = (1 / gamma,) if isinstance(gamma, float) and 0.1 <= gamma <= 4 else None
    if primaries is None and curve is None:
        return None
    return primaries or SRGB, curve or SRGB_CURVE


def _sound_primaries(points: tuple[float, ...]) -> Primaries | None:
    """White, red, green, blue as x, y each; None for what spans no colours."""
    if len(points) != 8:
        return None
    primaries = Primaries(*((points[i], points[i + 1]) for i in range(0, 8, 2)))
    if any(not (0 <= x <= 1 and 0 < y <= 1) for x, y in primaries):
        return None
    if np.abs(np.array(primaries) - np.array(SRGB)).max() < 2e-3:
        return SRGB  # as rounded by the writer
    try:
        return primaries if np.isfinite(_colorants(primaries)).all() else None
    except np.linalg.LinAlgError:
        return None


# --- profiles ---------------------------------------------------------------------------------------------------------


def made_profile(primaries: Primaries, curve: Curve, *, is_grey: bool) -> bytes:
    """A display profile, ICC version 4."""
    tone = _parametric(curve)
    tags = {b"desc": _text("dreamsr: as stated by the picture"), b"cprt": _text("CC0"), b"wtpt": _xyz(D50_XYZ)}
    if is_grey:
        tags[b"kTRC"] = tone
    else:
        columns = _colorants(primaries).T  # [3 colours, XYZ]
        tags |= {name: _xyz(column) for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns, strict=True)}
        tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), tone)
        tags[b"chad"] = b"sf32\0\0\0\0" + _fixed(_adaptation(primaries.white).ravel())
    return _assembled(tags, b"GRAY" if is_grey else b"RGB ")


def _colorants(primaries: Primaries) -> NDArray[np.float64]:
    """Columns red, green, blue in XYZ, adapted to D50, [3,3]."""
    columns = np.array([_to_xyz(point) for point in primaries[1:]]).T
    result: NDArray[np.float64] = columns * np.linalg.solve(columns, _to_xyz(primaries.white))
    return _adaptation(primaries.white) @ result


def _adaptation(white: Point) -> NDArray[np.float64]:
    """From colours under `white` to the same under D50, [3,3]."""
    gains = (BRADFORD @ D50_XYZ) / (BRADFORD @ _to_xyz(white))
    result: NDArray[np.float64] = np.linalg.inv(BRADFORD) @ np.diag(gains) @ BRADFORD
    return result


def _to_xyz(point: Point) -> NDArray[np.float64]:
    x, y = point
    return np.array([x / y, 1.0, (1 - x - y) / y], dtype=np.float64)


def _fixed(values: NDArray[np.float64] | Curve) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))


def _xyz(values: NDArray[np.float64]) -> bytes:
    return b"XYZ \0\0\0\0" + _fixed(values)


def _parametric(curve: Curve) -> bytes:
    return b"para\0\0\0\0" + struct.pack(">HH", 3 if len(curve) > 1 else 0, 0) + _fixed(curve)


def _text(text: str) -> bytes:
    encoded = text.encode("utf-16-be")
    return b"mluc\0\0\0\0" + struct.pack(">LL2s2sLL", 1, 12, b"en", b"US", len(encoded), 28) + encoded


def _assembled(tags: dict[bytes, bytes], space: bytes) -> bytes:
    places: dict[bytes, int] = {}
    body, table = b"", b""
    start = 132 + 12 * len(tags)
    for name, content in tags.items():
        if content not in places:  # equal curves are stored once
            places[content] = start + len(body)
            body += content + bytes(-len(content) % 4)
        table += struct.pack(">4sLL", name, places[content], len(content))
    head = struct.pack(">L4xL4s4s4s", start + len(body), 0x04300000, b"mntr", space, b"XYZ ")
    head += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp").ljust(44, b"\0") + _fixed(D50_XYZ)
    return head.ljust(128, b"\0") + struct.pack(">L", len(tags)) + table + body
