"""PNG chunks, raw: what Pillow does not tell of, and what has to be written byte for byte.

Source: PNG, third edition (W3C 2025), sections 5 and 11.
"""

import struct
import zlib
from collections.abc import Iterator

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and content of every whole chunk up to the end chunk, damaged ones left out."""
    at = len(SIGNATURE)
    while data.startswith(SIGNATURE) and at + 12 <= len(data):
        length, name = struct.unpack_from(">L4s", data, at)
        end = at + 12 + length
        if end > len(data) or name == b"IEND":
            return
        content = data[at + 8 : end - 4]
        if zlib.crc32(content, zlib.crc32(name)) == struct.unpack_from(">L", data, end - 4)[0]:
            yield name, content
        at = end


def chunk(name: bytes, content: bytes) -> bytes:
    """The chunk with its length and checksum."""
    return struct.pack(">L", len(content)) + name + content + struct.pack(">L", zlib.crc32(content, zlib.crc32(name)))
