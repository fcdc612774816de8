"""Words beside the pixels: PNG's text chunks, JPEG's comments, and IPTC in Photoshop's resources.

They stay the bytes they are in the file, and go into other formats where those have a place that readers know.
Source: PNG third edition 11.3.3; JPEG (T.81) B.2.4.5; IPTC-IIM 4.2; Adobe's Photoshop file format, image resources.
"""

import contextlib
import struct
import zlib
from collections.abc import Iterator

from PIL import Image

from dreamsr.pictures.picture import Metadata
from dreamsr.pictures.png import chunks
from dreamsr.pictures.tiff import UNDEFINED, Entry, Node, read_directory, read_header

TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt")
XMP_KEYWORD = b"XML:com.adobe.xmp"
IPTC_KEYWORD = b"Raw profile type iptc"
# Carried as EXIF, XMP and ICC themselves, or about the size the picture had.
ELSEWHERE = (b"Raw profile type exif", b"Raw profile type APP1", b"Raw profile type xmp", b"Raw profile type ic")
OUTDATED = (b"Thumb::", b"png:", b"exif:")
PHOTOSHOP = b"Photoshop 3.0\0"
IPTC, IPTC_DIGEST, COPYRIGHT_FLAG, COPYRIGHT_URL = 0x0404, 0x0425, 0x040A, 0x040B
RESOURCES = (IPTC, IPTC_DIGEST, COPYRIGHT_FLAG, COPYRIGHT_URL)  # the others speak of the former size, print and screen
IPTC_TAG, PHOTOSHOP_TAG = 33723, 34377
SEGMENT_BYTES = 65_533
COMMENT_BYTES = SEGMENT_BYTES - 81  # behind a keyword


def texts_of(data: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """PNG's text chunks, name and content, that hold more than what is carried otherwise."""
    return tuple((name, content) for name, content in chunks(data) if name in TEXT_CHUNKS and _is_lasting(content))


def _is_lasting(content: bytes) -> bool:
    keyword = _keyword(content)
    return keyword != XMP_KEYWORD and not keyword.startswith(ELSEWHERE + OUTDATED)


def _keyword(content: bytes) -> bytes:
    return content.partition(b"\0")[0]


def comments_of(image: Image.Image) -> tuple[bytes, ...]:
    """JPEG's comments, all of them where the file was opened here."""
    found = [content for name, content in getattr(image, "applist", []) if name == "COM"]
    last = image.info.get("comment")
    if not found and isinstance(last, bytes) and image.format in ("JPEG", "MPO", None):
        found = [last]
    return tuple(content for content in found if content)


def resources_of(image: Image.Image, data: bytes) -> bytes | None:
    """Photoshop's resources that hold IPTC and copyright, from a JPEG or TIFF."""
    if image.format == "TIFF":
        header = read_header(data)
        tags = read_directory(data, *header) if header else {}
        found = dict(_resources(tags[PHOTOSHOP_TAG].value)) if PHOTOSHOP_TAG in tags else {}
        if IPTC_TAG in tags:
            found[IPTC] = tags[IPTC_TAG].value
    else:
        segments = [content for name, content in getattr(image, "applist", []) if name == "APP13"]
        found = dict(_resources(b"".join(part[len(PHOTOSHOP) :] for part in segments if part.startswith(PHOTOSHOP))))
    kept = [
        struct.pack(">4sHHL", b"8BIM", code, 0, len(found[code])) + found[code] for code in RESOURCES if code in found
    ]
    return b"".join(block + bytes(len(block) % 2) for block in kept) or None


def _resources(block: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and content of each resource; the first of each number counts least, as readers do it."""
    at = 0
    with contextlib.suppress(struct.error, IndexError):
        while block[at : at + 4] == b"8BIM":
            (code,) = struct.unpack_from(">H", block, at + 4)
            at += 6 + (block[at + 6] + 2) // 2 * 2  # a name, padded together with its length
            (size,) = struct.unpack_from(">L", block, at)
            yield code, block[at + 4 : at + 4 + size]
            at += 4 + size + size % 2


# --- into files -------------------------------------------------------------------------------------------------------


def png_texts(metadata: Metadata) -> list[tuple[bytes, bytes]]:
    """Text chunks: XMP, those of a PNG as they were, JPEG's comments and IPTC under the keywords readers know."""
    texts = [(b"iTXt", XMP_KEYWORD + bytes(5) + metadata.xmp)] if metadata.xmp else []
    texts += metadata.texts
    for comment in metadata.comments:
        texts.append(_text_chunk(b"Comment", comment))
    if metadata.resources:
        digits = metadata.resources.hex()
        lines = "".join(f"{digits[i : i + 72]}\n" for i in range(0, len(digits), 72))
        profile = f"\niptc\n{len(metadata.resources):8}\n{lines}".encode("ascii")
        texts.append((b"zTXt", IPTC_KEYWORD + b"\0\0" + zlib.compress(profile)))
    return texts


def _text_chunk(keyword: bytes, text: bytes) -> tuple[bytes, bytes]:
    text = text.rstrip(b"\0").replace(b"\0", b" ")
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return b"tEXt", keyword + b"\0" + text  # Latin-1 by definition, as old cameras wrote it
    return (b"tEXt", keyword + b"\0" + text) if text.isascii() else (b"iTXt", keyword + bytes(5) + text)


def jpeg_segments(metadata: Metadata) -> bytes:
    """Comments and IPTC as JPEG segments; PNG's texts become comments, `keyword: text`."""
    comments = list(metadata.comments)
    for name, content in metadata.texts:
        text = plain_text(name, content)
        if text is not None:
            keyword = _keyword(content)
            comments.append(text if keyword == b"Comment" else keyword + b": " + text)
    parts = [_segment(0xFE, comment) for comment in comments if len(comment) <= SEGMENT_BYTES]
    room = SEGMENT_BYTES - len(PHOTOSHOP)
    resources = metadata.resources or b""
    parts += [_segment(0xED, PHOTOSHOP + resources[at : at + room]) for at in range(0, len(resources), room)]
    return b"".join(parts)


def _segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def plain_text(name: bytes, content: bytes) -> bytes | None:
    """The text of a chunk; None where it cannot be unpacked, or would not fit a comment."""
    _, _, rest = content.partition(b"\0")
    packed = name == b"zTXt"
    if name == b"iTXt":
        packed, rest = rest[:1] == b"\1", rest[2:].partition(b"\0")[2].partition(b"\0")[2]
    elif packed:
        rest = rest[1:]
    if packed:
        unpacker = zlib.decompressobj()
        try:
            rest = unpacker.decompress(rest, COMMENT_BYTES + 1)
        except zlib.error:
            return None
        if not unpacker.eof:
            return None
    text = rest if name == b"iTXt" else rest.decode("latin-1").encode("utf-8")
    return text if len(text) <= COMMENT_BYTES else None


def tiff_entries(metadata: Metadata) -> dict[int, Node]:
    """IPTC as entries of a TIFF's directory."""
    if not metadata.resources:
        return {}
    entries: dict[int, Node] = {PHOTOSHOP_TAG: Entry(UNDEFINED, metadata.resources)}
    iptc = dict(_resources(metadata.resources)).get(IPTC)
    if iptc:
        entries[IPTC_TAG] = Entry(UNDEFINED, iptc)
    return entries
