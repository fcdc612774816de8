"""What stands beside the pixels: kept, corrected, or dropped with a note, never false and never silently gone."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, PngImagePlugin, features

from dreamsr.pictures.losses import not_read, not_written
from dreamsr.pictures.picture import FORMATS, Metadata, Picture
from dreamsr.pictures.png import chunks
from dreamsr.pictures.read import read_picture
from dreamsr.pictures.write import encode_picture, to_pil
from dreamsr.pictures.xmp import true_xmp, xmp_for_size

IPTC = b"\x1c\x02x\x00\x0bmy caption!"
COMMENT = "geschrieben von Jörg".encode()
TEXT = {"parameters": "a cup\nSteps: 20, Seed: 1", "Title": "Kaffee ☕", "Copyright": "(c) José"}


def resource(code: int, data: bytes, name: bytes = b"") -> bytes:
    pascal = bytes([len(name)]) + name
    pascal += bytes(len(pascal) % 2)
    return b"8BIM" + struct.pack(">H", code) + pascal + struct.pack(">L", len(data)) + data + bytes(len(data) % 2)


def saved(format: str = "JPEG", *, mode: str = "RGB", **options: object) -> bytes:
    file = io.BytesIO()
    Image.effect_noise((24, 16), 40).convert(mode).save(file, format, **options)
    return file.getvalue()


def jpeg(*segments: tuple[int, bytes], behind: bytes = b"") -> bytes:
    data = saved()
    parts = [struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content for marker, content in segments]
    return data[:2] + b"".join(parts) + data[2:] + behind


def with_xmp(*inside: str, attributes: str = "") -> bytes:
    spaces = {
        "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
        "dc": "http://purl.org/dc/elements/1.1/",
        "xmp": "http://ns.adobe.com/xap/1.0/",
        "gcam": "http://ns.google.com/photos/1.0/camera/",
        "hdrgm": "http://ns.adobe.com/hdr-gain-map/1.0/",
        "Container": "http://ns.google.com/photos/1.0/container/",
        "Item": "http://ns.google.com/photos/1.0/container/item/",
        "GPano": "http://ns.google.com/photos/1.0/panorama/",
        "mwg-rs": "http://www.metadataworkinggroup.com/schemas/regions/",
        "stDim": "http://ns.adobe.com/xap/1.0/sType/Dimensions#",
        "tiff": "http://ns.adobe.com/tiff/1.0/",
        "exif": "http://ns.adobe.com/exif/1.0/",
    }
    declared = " ".join(f'xmlns:{prefix}="{space}"' for prefix, space in spaces.items())
    body = f'<rdf:Description rdf:about="" {declared} {attributes}>{"".join(inside)}</rdf:Description>'
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        f'<rdf:RDF xmlns:rdf="{spaces["rdf"]}">{body}</rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
    ).encode()


CREATOR = "<dc:creator><rdf:Seq><rdf:li>Jos\u00e9 &amp; Co</rdf:li></rdf:Seq></dc:creator>"


# --- text, comments, IPTC ---------------------------------------------------------------------------------------------


def png_with_text(mode: str = "RGB") -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", TEXT["parameters"])
    info.add_itxt("Title", TEXT["Title"], lang="de", tkey="Titel")
    info.add_text("Copyright", TEXT["Copyright"], zip=True)
    info.add_text("Thumb::Image::Width", "24")
    info.add(b"tEXt", b"Comment\0late", after_idat=True)
    return saved("PNG", mode=mode, pnginfo=info)


@pytest.mark.parametrize("deep", [False, True])
def test_png_text_stays_byte_for_byte(deep: bool) -> None:
    given = png_with_text()
    picture = read_picture(given)
    if deep:
        picture = replace(picture, pixels=picture.pixels.astype(np.uint16) * 257)
    written = encode_picture(picture, format="PNG")
    wanted = [one for one in chunks(given) if one[0][1:] in (b"EXt", b"TXt") and not one[1].startswith(b"Thumb")]
    assert len(wanted) == 4
    assert [one for one in chunks(written) if one[0][1:] in (b"EXt", b"TXt")] == wanted
    with Image.open(io.BytesIO(written)) as image:
        image.load()
        assert {key: image.info[key] for key in TEXT} == TEXT
    assert not_written(picture, "PNG") == ()
    assert not any(b"EXt" in name for name, _ in chunks(encode_picture(picture, format="PNG", strip=True)))


def test_png_text_becomes_jpeg_comments() -> None:
    written = read_picture(encode_picture(read_picture(png_with_text()), format="JPEG"))
    expected = [b"late"] + [f"{key}: {value}".encode() for key, value in TEXT.items()]
    assert sorted(written.metadata.comments) == sorted(expected)


def test_a_packed_text_that_grows_without_end_is_no_comment() -> None:
    bomb = b"Bomb\0\0" + zlib.compress(bytes(1 << 20))
    picture = Picture(np.zeros((2, 2, 3), np.uint8), metadata=Metadata(texts=((b"zTXt", bomb), (b"zTXt", b"Bad\0\0x"))))
    assert read_picture(encode_picture(picture, format="JPEG")).metadata.comments == ()
    assert not_written(picture, "JPEG") == ("text dropped, for which JPEG has no room",)


def test_comment_and_iptc_of_a_jpeg() -> None:
    stale = resource(0x03ED, bytes(16), b"odd") + resource(0x040C, b"\1thumbnail")
    blocks = stale + resource(0x0404, IPTC) + resource(0x040A, b"\1")
    data = jpeg((0xED, b"Photoshop 3.0\0" + blocks), (0xFE, COMMENT), (0xFE, b"and again"))
    picture = read_picture(data)
    for format in ("JPEG", "PNG", "TIFF"):
        written = encode_picture(picture, format=format)
        assert b"thumbnail" not in written
        if format == "PNG":
            with Image.open(io.BytesIO(written)) as image:
                image.load()
                assert image.info["Comment"] == "and again"
                digits = "".join(image.info["Raw profile type iptc"].split("\n")[3:])
                assert bytes.fromhex(digits) == picture.metadata.resources
            continue
        with Image.open(io.BytesIO(written)) as image:
            if format == "TIFF":
                assert image.tag_v2[33723] == IPTC
            else:
                assert image.info["photoshop"] == {0x0404: IPTC, 0x040A: b"\1"}
        again = read_picture(written).metadata
        assert again.resources == picture.metadata.resources
    assert read_picture(encode_picture(picture, format="JPEG")).metadata.comments == (COMMENT, b"and again")
    assert not_written(picture, "WEBP") == ("comment, IPTC dropped, for which WEBP has no room",)
    assert not_written(picture, "WEBP", strip=True) == ()
    stripped = encode_picture(picture, format="JPEG", strip=True)
    assert b"again" not in stripped
    assert b"caption" not in stripped


def test_iptc_longer_than_a_segment() -> None:
    blocks = resource(0x0404, IPTC * 9000)
    parts = [(0xED, b"Photoshop 3.0\0" + blocks[at : at + 60_000]) for at in range(0, len(blocks), 60_000)]
    picture = read_picture(jpeg(*parts))
    assert picture.metadata.resources == blocks
    assert read_picture(encode_picture(picture, format="JPEG")).metadata.resources == blocks


def test_iptc_of_a_tiff_reaches_a_jpeg() -> None:
    picture = read_picture(saved("TIFF", tiffinfo={33723: IPTC}))
    with Image.open(io.BytesIO(encode_picture(picture, format="JPEG"))) as image:
        assert image.info["photoshop"] == {0x0404: IPTC}


def test_old_comments_in_latin_1_become_text() -> None:
    picture = read_picture(jpeg((0xFE, "Jörg\0".encode("latin-1"))))
    with Image.open(io.BytesIO(encode_picture(picture, format="PNG"))) as image:
        image.load()
        assert image.info["Comment"] == "Jörg"


@pytest.mark.parametrize("format", FORMATS)
def test_nothing_goes_without_a_note(format: str) -> None:
    exif, xmp = b"Exif\0\0MM\0*" + bytes(70_000), b"<x/>" + bytes(70_000)
    metadata = Metadata(None, exif, xmp, ((b"tEXt", b"a\0b"),), (b"c",), resource(0x0404, IPTC))
    (note,) = not_written(Picture(np.zeros((2, 2, 3), np.uint8), metadata=metadata), format) or ("",)
    held = {"PNG": "", "TIFF": "text, comment", "JPEG": "EXIF, XMP", "BMP": "EXIF, XMP, text, comment, IPTC"}
    assert note.split(" dropped")[0] == held.get(format, "text, comment, IPTC")


# --- XMP --------------------------------------------------------------------------------------------------------------


def test_sizes_in_xmp_are_corrected_and_the_rest_untouched() -> None:
    regions = (
        '<mwg-rs:Regions rdf:parseType="Resource"><mwg-rs:AppliedToDimensions stDim:w="24" stDim:h="16" '
        'stDim:unit="pixel"/></mwg-rs:Regions>'
    )
    attributes = 'tiff:ImageWidth="24" exif:PixelXDimension="24" tiff:Orientation="1"'
    xmp = with_xmp(
        CREATOR,
        regions,
        "<tiff:ImageLength>16</tiff:ImageLength><exif:PixelYDimension>16</exif:PixelYDimension>",
        attributes=attributes,
    )
    assert true_xmp(xmp, 24, 16) == (xmp, ())
    large = xmp_for_size(xmp, 96, 64)
    expected = xmp.replace(b'"24"', b'"96"').replace(b'"16"', b'"64"').replace(b">16<", b">64<")
    assert large == expected


PANORAMA = (
    'GPano:ProjectionType="equirectangular" GPano:CroppedAreaImageWidthPixels="24" GPano:FullPanoWidthPixels="48" '
    'GPano:CroppedAreaImageHeightPixels="16" GPano:FullPanoHeightPixels="24" GPano:CroppedAreaLeftPixels="12" '
    'GPano:CroppedAreaTopPixels="4" GPano:PoseHeadingDegrees="350.0"'
)


def test_a_panorama_grows_with_its_picture() -> None:
    xmp = with_xmp(attributes=PANORAMA)
    assert true_xmp(xmp, 24, 16) == (xmp, ())
    large = xmp_for_size(xmp, 72, 48).decode()
    for name, value in {
        "CroppedAreaImageWidthPixels": 72,
        "FullPanoWidthPixels": 144,
        "CroppedAreaImageHeightPixels": 48,
        "FullPanoHeightPixels": 72,
        "CroppedAreaLeftPixels": 36,
        "CroppedAreaTopPixels": 12,
    }.items():
        assert f'GPano:{name}="{value}"' in large
    assert 'PoseHeadingDegrees="350.0"' in large


def test_a_panorama_of_another_size_is_dropped() -> None:
    for size in ((25, 16), (16, 24)):
        kept, notes = true_xmp(with_xmp(CREATOR, attributes=PANORAMA), *size)
        assert kept is not None
        assert b"GPano:" not in kept.replace(b"xmlns:GPano", b"")
        assert "José &amp; Co".encode() in kept
        assert notes == ("what XMP said of a panorama of another size was dropped",)


def test_films_and_gain_maps_go_and_the_rest_stays() -> None:
    directory = (
        '<Container:Directory><rdf:Seq><rdf:li rdf:parseType="Resource"><Container:Item Item:Mime="image/jpeg" '
        'Item:Semantic="GainMap" Item:Length="4000"/></rdf:li></rdf:Seq></Container:Directory>'
    )
    xmp = with_xmp(
        CREATOR,
        directory,
        "<gcam:MotionPhotoPresentationTimestampUs>5</gcam:MotionPhotoPresentationTimestampUs>",
        '<xmp:Thumbnails><rdf:Alt><rdf:li xmp:image="4AAQ"/></rdf:Alt></xmp:Thumbnails>',
        attributes='gcam:MotionPhoto="1" gcam:Shot="2" hdrgm:Version="1.0" xmp:Rating="5"',
    )
    kept, notes = true_xmp(xmp, 24, 16)
    assert kept is not None
    text = kept.decode()
    for word in ("MotionPhoto", "Directory", "GainMap", "hdrgm", "hdr-gain-map", "Thumbnails", "4AAQ"):
        assert word not in text
    for word in ("José &amp; Co", 'gcam:Shot="2"', 'xmp:Rating="5"', "<?xpacket begin=", '<?xpacket end="w"?>'):
        assert word in text
    assert notes == ("what XMP said of a film, a gain map, other files inside the file was dropped",)


@pytest.mark.parametrize(
    "xmp",
    [
        b"<x hdrgm:Version='1'",
        b"<!DOCTYPE x [<!ENTITY a 'b'>]><x MotionPhoto='&a;'/>",
        b"<a>" * 5000 + b"GPano" + b"</a>" * 5000,
        b"<x MotionPhoto='1'/>" + bytes(9 << 20),
    ],
)
def test_packets_that_cannot_be_read_go_whole(xmp: bytes) -> None:
    assert true_xmp(xmp, 24, 16) == (None, ("XMP that cannot be read was dropped",))


def test_undeclared_prefixes_mean_the_usual() -> None:
    kept, notes = true_xmp(b'<x><y GCamera:MicroVideoOffset="4000" other="1"/></x>', 24, 16)
    assert kept == b'<x><y other="1"/></x>'
    assert notes == ("what XMP said of a film was dropped",)


def test_a_motion_photo_is_noted_and_nothing_false_is_written() -> None:
    packet = b"http://ns.adobe.com/xap/1.0/\0" + with_xmp(attributes='gcam:MotionPhoto="1"')
    picture = read_picture(jpeg((0xE1, packet), behind=b"\0\0\0\x18ftypmp42" + bytes(2000)))
    assert picture.notes == ("the film in the file was left out", "what XMP said of a film was dropped")
    for format in FORMATS:
        assert b"MotionPhoto" not in encode_picture(picture, format=format)


def test_xmp_in_files_is_corrected() -> None:
    packet = b"http://ns.adobe.com/xap/1.0/\0" + with_xmp(attributes='tiff:ImageWidth="24"')
    picture = read_picture(jpeg((0xE1, packet)))
    large = replace(picture, pixels=picture.pixels.repeat(4, axis=0).repeat(4, axis=1))
    written = read_picture(encode_picture(large, format="PNG")).metadata.xmp
    assert written is not None
    assert b'tiff:ImageWidth="96"' in written


def test_content_credentials_are_noted() -> None:
    picture = read_picture(jpeg((0xEB, b"JP\0\1\0\0\0\1\0\0\0\x20jumb c2pa.assertions c2pa.claim")))
    (note,) = picture.notes
    assert "C2PA" in note
    assert b"c2pa" not in encode_picture(picture, format="JPEG")


def test_pillow_images_carry_the_comment() -> None:
    assert to_pil(read_picture(jpeg((0xFE, COMMENT)))).info["comment"] == COMMENT


# --- depth ------------------------------------------------------------------------------------------------------------


def test_deep_cmyk_is_noted() -> None:
    ink = np.random.default_rng(0).integers(0, 65536, (4, 5, 4), dtype="<u2")
    tags = [(256, 5), (257, 4), (259, 1), (262, 5), (273, 8), (277, 4), (278, 4), (279, ink.nbytes), (284, 1)]
    at = 8 + ink.nbytes
    entries = [struct.pack("<HHLL", tag, 4, 1, value) for tag, value in tags]
    entries.insert(2, struct.pack("<HHLL", 258, 3, 4, at + 2 + 10 * 12 + 4))
    data = b"II*\0" + struct.pack("<L", at) + ink.tobytes() + struct.pack("<H", 10) + b"".join(entries) + bytes(4)
    picture = read_picture(data + struct.pack("<4H", 16, 16, 16, 16))
    assert picture.notes == ("16-bit CMYK became 8 bit as it was read",)
    assert read_picture(saved("TIFF", mode="CMYK")).notes == ()


@pytest.mark.skipif(not features.check("avif"), reason="Pillow without AVIF")
def test_deep_avif_is_noted() -> None:
    data = saved("AVIF")
    assert read_picture(data).notes == ()
    deep = data.replace(b"pixi\0\0\0\0\3\x08\x08\x08", b"pixi\0\0\0\0\3\x0a\x0a\x0a")
    assert deep != data
    with Image.open(io.BytesIO(data)) as image:  # Pillow writes none with 10 bits, and would not read this one
        notes = not_read(image, deep, is_deep=False, dtype=np.dtype(np.uint8))
    assert notes == ("10-bit AVIF became 8 bit as it was read",)
