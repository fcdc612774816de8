"""Opening pictures: a look at the first bytes and the header, with every limit checked before pixels are decoded."""

import contextlib
import io
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from PIL import Image, ImageFile, UnidentifiedImageError

from dreamsr.errors import DreamsrError, ImageError, printable
from dreamsr.pictures import heic
from dreamsr.pictures.decoding.jpeg import unread_coding
from dreamsr.pictures.decoding.planes import main_page, refuse_kind, refuse_unopened
from dreamsr.pictures.picture import FORMATS, HEIC_HINT
from dreamsr.pictures.png import mended
from dreamsr.pictures.sniff import HEAD_BYTES, seems_to_be

BYTES_PER_PIXEL_LIMIT = 8  # no sound file is larger than its pixels at 16-bit RGBA, but for some metadata
METADATA_LIMIT_BYTES = 256 << 20
PIPE_LIMIT_BYTES = 2 << 30
JPEG_HEADER_BYTES = 1 << 20  # what precedes the frame header, with all metadata, as a rule
RAW_EXTENSIONS = frozenset(
    {".dng", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".cr2", ".cr3", ".pef", ".srw", ".3fr", ".erf", ".kdc", ".iiq"}
)
POSSIBLE = f"possible are {', '.join(FORMATS)}"

_open_lock = threading.Lock()
_quiet_lock = threading.Lock()
_quiet_depth = 0
_quiet_state: contextlib.AbstractContextManager[object] = contextlib.nullcontext()


def name_of(source: Path | str | bytes) -> str:
    return "the given data" if isinstance(source, bytes) else printable(source)


@contextlib.contextmanager
def stream_of(source: Path | str | bytes, name: str) -> Iterator[IO[bytes]]:
    """The bytes of `source`, after a look at the first of them. Raises ImageError."""
    if isinstance(source, bytes):
        _refuse_other_kinds(source[:HEAD_BYTES], name, "")
        yield io.BytesIO(source)
        return
    with _opened_file(Path(source), name) as file:
        head = file.read(HEAD_BYTES)
        _refuse_other_kinds(head, name, Path(source).suffix.lower())
        if file.seekable():
            file.seek(0)
            yield file
        else:
            yield io.BytesIO(head + file.read(PIPE_LIMIT_BYTES))


def _opened_file(path: Path, name: str) -> IO[bytes]:
    try:
        if path.is_dir():
            raise ImageError(f"{name} is a folder, and a picture is needed; name one of the pictures in it.")
        return path.open("rb")
    except FileNotFoundError as error:
        raise ImageError(f"{name} does not exist; check the path.") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ImageError(f"{name} cannot be read: {printable(reason)}; check the path and its permissions.") from error


def limit_for(max_pixels: int) -> int:
    """How many bytes a file of so many pixels may have."""
    return max_pixels * BYTES_PER_PIXEL_LIMIT + METADATA_LIMIT_BYTES


def all_bytes(source: Path | str | bytes, name: str, max_pixels: int) -> bytes:
    limit_bytes = limit_for(max_pixels)
    with decoding(name), stream_of(source, name) as stream:
        file_bytes = stream.seek(0, io.SEEK_END)
        if file_bytes > limit_bytes:
            raise ImageError(
                f"{name} has {file_bytes} bytes, and {max_pixels} pixels need {limit_bytes} at most; shrink it."
            )
        stream.seek(0)
        return stream.read()


def _refuse_other_kinds(head: bytes, name: str, extension: str) -> None:
    if not head:
        raise ImageError(f"{name} is empty; {POSSIBLE}.")
    kind = seems_to_be(head)
    if kind == "TIFF" and extension in RAW_EXTENSIONS:
        kind = "a camera raw file"
    if kind == "HEIC" and kind not in FORMATS:
        raise ImageError(
            f"{name} is a HEIC picture, and what reads those is not installed: {HEIC_HINT}; "
            f"without it {POSSIBLE}: convert it first."
        )
    if kind not in FORMATS:
        what = f"seems to be {kind}, which is not read" if kind else "is not a picture of a known format"
        raise ImageError(f"{name} {what}; {POSSIBLE}: convert it first.")


# --- Pillow -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def decoding(name: str) -> Iterator[None]:
    """Inside, warnings are silent and every foreign exception becomes an ImageError."""
    try:
        with _quiet():
            yield
    except DreamsrError:
        raise
    except MemoryError as error:
        raise ImageError(f"{name} needs more memory than there is; free some, or shrink the picture.") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name} has too many pixels; shrink it, or raise the limit on pixels.") from error
    except Exception as error:
        # Decoders of hostile bytes raise anything at all: SyntaxError, struct.error, zlib.error, KeyError...
        reason = " ".join(str(error).split()) or type(error).__name__
        if reason.startswith("Unsupported "):  # Pillow's word for kinds of BMP
            raise ImageError(
                f"{name} is of a kind within its format that is not read ({printable(reason)}); save it again as PNG."
            ) from error
        raise ImageError(f"{name} is damaged or incomplete ({printable(reason)}); get a whole copy of it.") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences warnings while any thread is inside; catch_warnings alone would restore in the wrong order."""
    global _quiet_depth, _quiet_state
    with _quiet_lock:
        if _quiet_depth == 0:
            _quiet_state = warnings.catch_warnings()
            _quiet_state.__enter__()
            warnings.simplefilter("ignore")
        _quiet_depth += 1
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_depth -= 1
            if _quiet_depth == 0:
                _quiet_state.__exit__(None, None, None)


def opened(stream: IO[bytes], name: str, max_pixels: int) -> ImageFile.ImageFile:
    """The header, read; sizes over the limit are refused before anything is allocated for pixels."""
    kind = seems_to_be(head := stream.read(HEAD_BYTES))
    if kind == "JPEG":
        _refuse_coding(head + stream.read(JPEG_HEADER_BYTES), name)
    stream.seek(0)
    if kind == "TIFF":
        stream = main_page(stream, name)
    with _open_lock:  # Pillow's own limit is a global; it is ours for as long as the header is read
        before = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = max_pixels
        try:
            image = _identified(stream, kind)
        except UnidentifiedImageError as error:
            if kind == "TIFF":
                refuse_unopened(stream, name)
            raise ImageError(
                f"{name} is damaged, or of a kind within its format that is not read; {POSSIBLE}: get a whole copy, "
                "or save it again as PNG."
            ) from error
        finally:
            Image.MAX_IMAGE_PIXELS = before
    width, height = image.size
    if width < 1 or height < 1:
        raise ImageError(f"{name} has no pixels ({width}x{height}); get a whole copy of it.")
    if width * height > max_pixels:
        raise ImageError(
            f"{name} has {width}x{height} = {width * height} pixels, more than the {max_pixels} allowed; "
            "shrink it, or raise the limit on pixels."
        )
    return image


def _plugins(stream: IO[bytes]) -> list[str]:
    """Pillow's names for the formats that are read, HEIC's where it is one."""
    is_heic = seems_to_be(stream.read(HEAD_BYTES)) == "HEIC" and "HEIC" in FORMATS
    stream.seek(0)
    if is_heic:
        heic.register()
        return [heic.PLUGIN]
    return [name for name in FORMATS if name != "HEIC"]


def _identified(stream: IO[bytes], kind: str) -> ImageFile.ImageFile:
    """The header, of a PNG even where a chunk that no pixel needs is damaged. Raises UnidentifiedImageError."""
    try:
        return Image.open(stream, formats=_plugins(stream))
    except UnidentifiedImageError:
        if kind != "PNG":
            raise
        stream.seek(0)
        whole = mended(data := stream.read())
        if whole == data:
            raise
        return Image.open(io.BytesIO(whole), formats=[kind])


def format_of(image: Image.Image) -> str:
    if image.format == heic.PLUGIN:
        return "HEIC"
    # MPO is a JPEG with previews, depth or gain maps behind it: the first picture is the photograph.
    return "JPEG" if image.format == "MPO" else image.format or ""


def refuse_frames(image: ImageFile.ImageFile, name: str) -> None:
    """Raises ImageError for more pictures than one, and for kinds of TIFF that are not read rightly."""
    if image.format == "TIFF":  # whose pages were looked at before it was opened
        refuse_kind(getattr(image, "tag_v2", {}), name)
        return
    frames = int(getattr(image, "n_frames", 1))
    if frames > 1 and image.format not in ("MPO", heic.PLUGIN):  # which name their main picture
        raise ImageError(
            f"{name} has {frames} frames, and only single pictures can be used; split it into frames first."
        )


def _refuse_coding(head: bytes, name: str) -> None:
    """Raises ImageError for a JPEG of a kind that no decoder of ours reads."""
    coding = unread_coding(head)
    if coding:
        raise ImageError(f"{name} is a {coding} JPEG, which is not read; save it as an 8-bit JPEG, or as PNG.")
