"""What a file seems to be, from its first bytes; only so that a refusal can name it."""

MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"\xff\xd8\xff", "JPEG"),
    (8, b"WEBP", "WEBP"),
    (8, b"CR\x02\x00", "a Canon camera raw file"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "TIFF"),
    (0, b"MM\0+", "TIFF"),
    (0, b"BM", "BMP"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftypavis", "AVIF"),
    (0, b"GIF8", "a GIF"),
    (0, b"8BPS", "a Photoshop file (PSD)"),
    (4, b"ftyphei", "HEIC"),
    (4, b"ftyphev", "HEIC"),
    (4, b"ftypcrx", "a Canon camera raw file"),
    (4, b"ftypqt", "a video"),
    (4, b"ftyp", "a video or an unsupported HEIF picture"),
    (0, b"\xff\x0a", "a JPEG XL picture"),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL picture"),
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000 picture"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (0, b"\x76\x2f\x31\x01", "an OpenEXR picture"),
    (0, b"#?RADIANCE", "a Radiance HDR picture"),
    (0, b"FUJIFILMCCD-RAW", "a Fujifilm camera raw file"),
    (0, b"IIRO", "an Olympus camera raw file"),
    (0, b"IIU\0", "a Panasonic camera raw file"),
    (0, b"DDS ", "a DDS texture"),
    (0, b"qoif", "a QOI picture"),
    (0, b"\0\0\1\0", "an icon (ICO)"),
    (0, b"%PDF", "a PDF"),
    (0, b"%!PS", "a PostScript file"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"\x1aE\xdf\xa3", "a video"),
    (8, b"AVI ", "a video"),
)
HEAD_BYTES = 512


def seems_to_be(head: bytes) -> str:
    """A key of FORMATS, words for another known kind ("a GIF"), or "" for the unknown."""
    if head[4:12] in (b"ftypmif1", b"ftypmsf1"):  # the general brands: what follows tells AVIF from HEIC
        return "AVIF" if b"avif" in head[12:64] or b"avis" in head[12:64] else "HEIC"
    for at, magic, name in MAGIC:
        if head.startswith(magic, at):
            return name
    if head[:1] == b"P" and head[1:2] in b"123456" and head[2:3] in (b"\n", b"\r", b" ", b"\t"):
        return "a PNM picture"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(b"<svg") or (text.startswith(b"<?xml") and b"<svg" in text):
        return "an SVG drawing"
    if text.startswith((b"<!doctype html", b"<html")):
        return "a web page"
    return ""
