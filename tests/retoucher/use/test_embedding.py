"""A packet goes into a copy of a file whose picture stays byte for byte, and never into a file that is damaged."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from vernissage.core.errors import BadInput
from vernissage.retoucher.use.embedding import JPEG_LARGEST, with_packet

PACKET = b"<?xpacket begin='' id='W5M0MpCehiHzreSzNTczkc9d'?><x/><?xpacket end='w'?>"
PICTURE = Image.fromarray(np.arange(48 * 64 * 3, dtype=np.uint32).reshape(48, 64, 3).astype(np.uint8))


def saved(kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    PICTURE.save(file, format=kind, **options)  # type: ignore[arg-type]
    return file.getvalue()


def exif_with(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


FILES = {
    "jpeg": saved("JPEG"),
    "jpeg with exif": saved("JPEG", exif=exif_with(6)),
    "jpeg with xmp": saved("JPEG", exif=exif_with(6), xmp=b"<old/>"),
    "progressive jpeg": saved("JPEG", progressive=True),
    "jpeg with fillers": saved("JPEG").replace(b"\xff\xdb", b"\xff\xff\xff\xdb"),
    "jpeg with a second picture behind it": saved("JPEG") + saved("JPEG"),
    "png": saved("PNG"),
    "png with exif": saved("PNG", exif=exif_with(6)),
}


@pytest.mark.parametrize("photo", FILES.values(), ids=FILES)
def test_the_packet_is_found_and_the_rest_is_as_it_was(photo: bytes) -> None:
    copy = with_packet(photo, PACKET)
    assert copy is not None
    with Image.open(io.BytesIO(photo)) as before, Image.open(io.BytesIO(copy)) as after:
        assert after.info["xmp"] == PACKET
        assert dict(after.getexif()) == dict(before.getexif())
        np.testing.assert_array_equal(np.asarray(before), np.asarray(after))
    assert b"<old/>" not in copy
    # Nothing but the packet came in: without it the file is the old one.
    again = with_packet(copy, PACKET)
    assert again == copy


def test_the_coded_picture_is_not_touched() -> None:
    photo = FILES["jpeg with exif"]
    scan = photo[photo.index(b"\xff\xda") :]
    assert (with_packet(photo, PACKET) or b"").endswith(scan)
    data = FILES["png"]
    assert (with_packet(data, PACKET) or b"").endswith(data[data.index(b"IDAT") - 4 :])


def test_an_older_packet_of_a_png_goes() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", "<old/>")
    info.add_text("Title", "stays")
    copy = with_packet(saved("PNG", pnginfo=info), PACKET) or b""
    assert b"<old/>" not in copy
    with Image.open(io.BytesIO(copy)) as image:
        assert (image.info["xmp"], image.info["Title"]) == (PACKET, "stays")


@pytest.mark.parametrize("kind", ["TIFF", "WEBP", "GIF", "BMP"])
def test_other_kinds_are_left_alone(kind: str) -> None:
    assert with_packet(saved(kind), PACKET) is None


@given(st.sampled_from(sorted(FILES)), st.floats(0, 0.5))
@settings(max_examples=60, deadline=None)
def test_a_file_that_ends_in_its_header_is_left_alone_or_stays_as_far_as_it_goes(name: str, share: float) -> None:
    photo = FILES[name]
    cut = photo[: int(len(photo) * share)]
    copy = with_packet(cut, PACKET)
    if copy is not None:
        picture = cut.index(b"\xff\xda") if "jpeg" in name else cut.index(b"IDAT") - 4
        assert copy.endswith(cut[picture:])


JPEG, PNG = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize("odd", [b"", JPEG, JPEG + b"\xff\xe0\0\0", JPEG + b"\xff\xd9", PNG, PNG + b"\xff" * 40])
def test_what_only_begins_like_a_photo_is_left_alone(odd: bytes) -> None:
    assert with_packet(odd, PACKET) is None


def test_a_packet_that_no_jpeg_holds_is_refused() -> None:
    assert with_packet(FILES["jpeg"], b"x" * JPEG_LARGEST) is not None
    with pytest.raises(BadInput, match=str(JPEG_LARGEST)):
        with_packet(FILES["jpeg"], b"x" * (JPEG_LARGEST + 1))
    assert with_packet(FILES["png"], b"x" * (JPEG_LARGEST + 1)) is not None
