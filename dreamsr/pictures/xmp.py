"""XMP packets: what an enlarged picture must correct in them, and what it must not repeat.

Sizes are corrected in place, so that the rest of a packet stays byte for byte; only packets that speak of what was
left behind (a film, a gain map, a depth map) are written anew without it.
Source: XMP part 1 (ISO 16684-1); Google's Motion Photo 1.0, Photo Sphere and Container; Adobe's gain map 1.0.
"""

import re
from collections.abc import Iterator
from xml.dom import Node, expatbuilder, minidom
from xml.parsers.expat import ExpatError

GOOGLE = "http://ns.google.com/photos/1.0/"
# What a name space speaks of that no result holds, and its usual prefix, for packets that do not declare it.
FALSE: dict[str, tuple[str, str]] = {
    "http://ns.adobe.com/hdr-gain-map/1.0/": ("hdrgm", "a gain map"),
    "http://ns.apple.com/HDRGainMap/1.0/": ("HDRGainMap", "a gain map"),
    "http://ns.apple.com/pixeldatainfo/1.0/": ("apdi", "a gain map"),
    GOOGLE + "container/": ("Container", "other files inside the file"),
    GOOGLE + "container/item/": ("Item", "other files inside the file"),
    GOOGLE + "depthmap/": ("GDepth", "a depth map"),
    GOOGLE + "image/": ("GImage", "another picture"),
    GOOGLE + "audio/": ("GAudio", "a sound"),
    "http://ns.adobe.com/xmp/note/": ("xmpNote", "more XMP"),
}
DEPTH_PREFIX = "http://ns.google.com/photos/dd/1.0/"
PANORAMA, CAMERA, BASIC = GOOGLE + "panorama/", GOOGLE + "camera/", "http://ns.adobe.com/xap/1.0/"
PREFIXES = {prefix: space for space, (prefix, _) in FALSE.items()} | {
    "GPano": PANORAMA,
    "GCamera": CAMERA,
    "xmp": BASIC,
}
FILM = ("MotionPhoto", "MicroVideo")
SUSPECT = re.compile(
    rb"hdr-gain-map|hdrgm:|HDRGainMap|pixeldatainfo|Container|GDepth|depthmap|GImage|GAudio|HasExtendedXMP|photos/dd/|"
    rb"GPano|MotionPhoto|MicroVideo|:Thumbnails"
)
LARGEST_BYTES = 8 << 20

_VALUE = rb"(\s*(?:=\s*[\"']|>)\s*)"  # of an attribute, or of an element
_PANORAMA = re.compile(
    rb"(GPano:(?:CroppedAreaImage|FullPano|CroppedArea|LargestValidInteriorRect)(Width|Left|Height|Top)(?:Pixels)?)"
    + _VALUE
    + rb"([0-9]+)"
)


def upright_xmp(xmp: bytes) -> bytes:
    """The packet with its orientation, where it states one, set to 1."""
    return re.sub(rb"(tiff:Orientation\s*(?:=\s*[\"']|>)\s*)[0-9]", rb"\g<1>1", xmp)


def xmp_for_size(xmp: bytes, width: int, height: int) -> bytes:
    """The packet with every size it states, in px, set to `width` x `height`; a panorama's in proportion."""
    for names, size in (
        (rb"tiff:ImageWidth|exif:PixelXDimension", width),
        (rb"tiff:ImageLength|exif:PixelYDimension", height),
    ):
        xmp = re.sub(rb"((?:" + names + rb")" + _VALUE + rb")[0-9]+", rb"\g<1>%d" % size, xmp)
    xmp = re.sub(
        rb"AppliedToDimensions\b.{0,400}?(?:/>|AppliedToDimensions>)",
        lambda found: _dimensions(found[0], width, height),
        xmp,
        flags=re.DOTALL,
    )
    stated = {found[1]: int(found[4]) for found in _PANORAMA.finditer(xmp)}
    across = stated.get(b"GPano:CroppedAreaImageWidthPixels", 0)
    down = stated.get(b"GPano:CroppedAreaImageHeightPixels", 0)
    if not across or not down:
        return xmp

    def scaled(found: re.Match[bytes]) -> bytes:
        factor = width / across if found[2] in (b"Width", b"Left") else height / down
        return b"%s%s%d" % (found[1], found[3], round(int(found[4]) * factor))

    return _PANORAMA.sub(scaled, xmp)


def _dimensions(part: bytes, width: int, height: int) -> bytes:
    """Sizes that regions of a picture (faces) refer to."""
    for name, size in ((rb"w", width), (rb"h", height)):
        part = re.sub(rb"(stDim:" + name + _VALUE + rb")[0-9.]+", rb"\g<1>%d" % size, part)
    return part


def true_xmp(xmp: bytes, width: int, height: int) -> tuple[bytes | None, tuple[str, ...]]:
    """The packet without what is not true of the picture alone, width x height px, and what was dropped.

    None where it is no sound XML and seems to speak of such things.
    """
    if not SUSPECT.search(xmp):
        return xmp, ()
    try:
        if len(xmp) > LARGEST_BYTES or b"<!DOCTYPE" in xmp:
            raise ValueError("no packet for a parser")
        document = expatbuilder.parseString(xmp.strip(b"\0"), namespaces=False)
        dropped = _pruned(document, width, height)
        if not dropped:
            return xmp, ()
        text = "".join(node.toxml() for node in document.childNodes)
    except (ExpatError, ValueError, RecursionError):
        return None, ("XMP that cannot be read was dropped",)
    notes = sorted(dropped - {""})
    return text.encode("utf-8"), (f"what XMP said of {', '.join(notes)} was dropped",) if notes else ()


def _pruned(document: minidom.Document, width: int, height: int) -> set[str]:
    """Takes false statements out of `document` and says of what they spoke; "" stands for old thumbnails."""
    spaces = dict(PREFIXES)
    elements = list(_elements(document))
    for element in elements:
        for name, value in element.attributes.items():
            if name.startswith("xmlns:"):
                spaces[name[6:]] = value
    panorama = _panorama_size(elements, spaces)
    is_whole = panorama in (None, (width, height))
    dropped: set[str] = set()
    for element in elements:
        what = _falsehood(element.tagName, spaces, is_whole)
        parent = element.parentNode
        if what is not None and isinstance(parent, minidom.Element):
            parent.removeChild(element)
            dropped.add(what)
            continue
        for name in list(element.attributes.keys()):
            what = _falsehood(name, spaces, is_whole)
            if what is not None:
                element.removeAttribute(name)
                dropped.add(what)
    for element in elements if dropped else ():
        for name, value in list(element.attributes.items()):
            if name.startswith("xmlns:") and (value in FALSE or value.startswith(DEPTH_PREFIX)):
                element.removeAttribute(name)
    return dropped


def _elements(node: minidom.Document | minidom.Element) -> Iterator[minidom.Element]:
    for child in node.childNodes:
        if child.nodeType == Node.ELEMENT_NODE:
            yield child
            yield from _elements(child)


def _falsehood(name: str, spaces: dict[str, str], is_whole: bool) -> str | None:
    """What a statement of this name speaks of, if it cannot be true of the picture any more."""
    prefix, colon, local = name.partition(":")
    space = spaces.get(prefix, "")
    if not colon or prefix in ("xmlns", "xml"):
        return None
    if space in FALSE:
        return FALSE[space][1]
    if space.startswith(DEPTH_PREFIX):
        return "a depth map"
    if space == CAMERA and local.startswith(FILM):
        return "a film"
    if space == PANORAMA and not is_whole:
        return "a panorama of another size"
    return "" if space == BASIC and local == "Thumbnails" else None


def _panorama_size(elements: list[minidom.Element], spaces: dict[str, str]) -> tuple[int, int] | None:
    """The size of the picture that a panorama's entries are about; (0, 0) where they do not say it whole."""
    found: dict[str, str] = {}
    for element in elements:
        children = "".join(node.data for node in element.childNodes if node.nodeType == Node.TEXT_NODE)
        for name, value in [*element.attributes.items(), (element.tagName, children)]:
            prefix, _, local = name.partition(":")
            if spaces.get(prefix) == PANORAMA:
                found[local] = value.strip()
    if not found:
        return None
    sizes = [found.get(f"CroppedAreaImage{side}Pixels", "") for side in ("Width", "Height")]
    return (int(sizes[0]), int(sizes[1])) if all(size.isdecimal() for size in sizes) else (0, 0)
