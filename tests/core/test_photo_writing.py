"""Photos are written whole, in their own colours and depth, with EXIF and XMP, and read back the same."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.core.made_pictures import (
    ADOBE_RGB,
    DISPLAY_P3,
    as_file,
    cmyk_profile,
    gray_profile,
    matrix_profile,
    photo_array,
    srgb_profile,
)
from vernissage.core import photo_writing
from vernissage.core.errors import BadInput
from vernissage.core.images import read_photo, write_photo

if TYPE_CHECKING:
    from pathlib import Path

RNG = np.random.default_rng(7)
FORMATS = [(".png", 8), (".jpg", 8), (".tif", 8), (".webp", 8), (".png", 16), (".tif", 16)]
GAMMA = 2.19921875
PACKET = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    'xmlns:dc="http://purl.org/dc/elements/1.1/" dc:source="Füße 写真"/></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
).encode()


@pytest.mark.parametrize("suffix", [".png", ".tif", ".TIFF"])
@pytest.mark.parametrize("bit_depth", [8, 16])
@pytest.mark.parametrize("with_alpha", [False, True])
def test_lossless_round_trip(tmp_path: Path, suffix: str, bit_depth: int, with_alpha: bool) -> None:
    top = 2**bit_depth - 1
    levels = RNG.integers(0, top + 1, (11, 13, 4))
    alpha = (levels[..., 3] / top).astype(np.float32) if with_alpha else None
    path = tmp_path / f"a{suffix}"
    write_photo(path, (levels[..., :3] / top).astype(np.float32), alpha=alpha, bit_depth=bit_depth)
    photo = read_photo(path)
    assert photo.bit_depth == bit_depth
    assert np.array_equal(np.rint(photo.pixels * top), levels[..., :3])
    assert (photo.alpha is not None) == with_alpha
    if photo.alpha is not None:
        assert np.array_equal(np.rint(photo.alpha * top), levels[..., 3])
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [path.name]


@pytest.mark.parametrize(("suffix", "bit_depth"), FORMATS)
def test_profile_and_exif_are_embedded(tmp_path: Path, suffix: str, bit_depth: int) -> None:
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    path = tmp_path / f"a{suffix}"
    pixels = photo_array().astype(np.float32) / 255
    write_photo(path, pixels, bit_depth=bit_depth, icc=srgb_profile(), exif=exif.tobytes())
    photo = read_photo(path)
    assert photo.icc == srgb_profile()
    assert photo.exif is not None
    kept = Image.Exif()
    kept.load(photo.exif)
    assert kept[0x010F] == "Maker"


def test_a_photo_survives_reading_and_writing_with_its_exif(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif.get_ifd(0x8769)[0x9003] = "2024:05:01 10:00:00"
    exif.get_ifd(0x8825)[1] = "N"
    first = as_file(tmp_path / "a.jpg", Image.fromarray(photo_array()), exif=exif)
    photo = read_photo(first)
    for suffix in (".jpg", ".png", ".tif", ".webp"):
        write_photo(tmp_path / f"b{suffix}", photo.pixels, exif=photo.exif)
        again = read_photo(tmp_path / f"b{suffix}")
        assert again.history == ()  # upright already, so nothing turns it twice
        assert again.pixels.shape == photo.pixels.shape
        with Image.open(tmp_path / f"b{suffix}") as image:
            assert image.getexif().get_ifd(0x8769)[0x9003] == "2024:05:01 10:00:00"
            assert image.getexif().get_ifd(0x8825)[1] == "N"


def test_jpeg_lays_transparency_over_white(tmp_path: Path) -> None:
    write_photo(tmp_path / "a.jpg", np.zeros((8, 8, 3)), alpha=np.full((8, 8), 0.25))
    assert read_photo(tmp_path / "a.jpg").pixels[4, 4].tolist() == pytest.approx([0.75] * 3, abs=0.01)


def test_writing_refuses_what_cannot_be_kept(tmp_path: Path) -> None:
    pixels = np.zeros((4, 4, 3), np.float32)
    with pytest.raises(BadInput, match=r"\.gif"):
        write_photo(tmp_path / "a.gif", pixels)
    with pytest.raises(BadInput, match="JPEG with 16 bits"):
        write_photo(tmp_path / "a.jpg", pixels, bit_depth=16)
    with pytest.raises(BadInput, match="12 bits"):
        write_photo(tmp_path / "a.png", pixels, bit_depth=12)
    with pytest.raises(BadInput, match="20000 x 1 pixels as WEBP"):
        write_photo(tmp_path / "a.webp", np.zeros((1, 20_000, 3)))
    with pytest.raises(ValueError, match=r"expected \(H, W, 3\)"):
        write_photo(tmp_path / "a.png", np.zeros((3, 4, 4)))
    with pytest.raises(ValueError, match="alpha of shape"):
        write_photo(tmp_path / "a.png", pixels, alpha=np.zeros((4, 5)))
    with pytest.raises(ValueError, match="nan"):
        write_photo(tmp_path / "a.png", np.full((4, 4, 3), np.nan))
    assert list(tmp_path.iterdir()) == []


def test_the_same_picture_gives_the_same_bytes(tmp_path: Path) -> None:
    pixels = RNG.random((9, 9, 3))
    for name, depth in (("png", 8), ("png", 16), ("tif", 8), ("tif", 16), ("jpg", 8), ("webp", 8)):
        write_photo(tmp_path / f"a.{name}", pixels, bit_depth=depth)
        write_photo(tmp_path / f"b.{name}", pixels, bit_depth=depth)
        assert (tmp_path / f"a.{name}").read_bytes() == (tmp_path / f"b.{name}").read_bytes()


def test_levels_are_written_as_they_are(tmp_path: Path) -> None:
    deep = RNG.integers(0, 65536, (9, 11, 3), dtype=np.uint16)
    for levels, depth in ((photo_array(), 8), (deep, 16)):
        for suffix in (".png", ".tif"):
            before = levels.copy()
            write_photo(tmp_path / f"a{suffix}", levels, bit_depth=depth)
            np.testing.assert_array_equal(read_photo(tmp_path / f"a{suffix}").samples, levels)
            np.testing.assert_array_equal(levels, before)
    write_photo(tmp_path / "b.png", photo_array(), bit_depth=16)
    np.testing.assert_array_equal(read_photo(tmp_path / "b.png").samples, photo_array() * np.uint16(257))
    write_photo(tmp_path / "c.png", deep)
    np.testing.assert_array_equal(read_photo(tmp_path / "c.png").samples, np.rint(deep / 257))


def test_strips_leave_no_seam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photo_writing, "_STRIP_PIXELS", 100)
    levels, alpha = photo_array(40, 30), np.linspace(0, 1, 1200, dtype=np.float32).reshape(40, 30)
    for depth in (8, 16):
        write_photo(tmp_path / "a.png", levels, alpha=alpha, bit_depth=depth)
        photo = read_photo(tmp_path / "a.png")
        assert np.abs(photo.pixels - levels / 255).max() < 1e-6
        assert photo.alpha is not None
        assert np.abs(photo.alpha - alpha).max() <= 0.51 / (2**depth - 1)


def test_a_large_photo_is_read_and_written_without_a_copy_in_floats(tmp_path: Path) -> None:
    levels = np.broadcast_to(RNG.integers(0, 256, (1, 2000, 3), dtype=np.uint8), (3000, 2000, 3)).copy()
    tracemalloc.start()
    write_photo(tmp_path / "a.jpg", levels, profile=matrix_profile(DISPLAY_P3, GAMMA))
    _, written = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    photo = read_photo(tmp_path / "a.jpg")
    _, read = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert written < levels.nbytes / 2
    assert read < levels.nbytes * 1.5
    assert photo.samples.nbytes == levels.nbytes


# --- XMP --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("suffix", "bit_depth"), FORMATS)
@pytest.mark.parametrize("with_exif", [False, True])
def test_xmp_is_embedded_byte_for_byte(tmp_path: Path, suffix: str, bit_depth: int, with_exif: bool) -> None:
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    exif.get_ifd(0x8769)[0x9003] = "2024:05:01 10:00:00"
    path = tmp_path / f"a{suffix}"
    write_photo(path, photo_array(), bit_depth=bit_depth, xmp=PACKET, exif=exif.tobytes() if with_exif else None)
    with Image.open(path) as image:
        image.load()
        assert image.info["xmp"] == PACKET
        if with_exif:
            assert image.getexif()[0x010F] == "Maker"
        if with_exif and (suffix, bit_depth) != (".tif", 16):
            assert image.getexif().get_ifd(0x8769)[0x9003] == "2024:05:01 10:00:00"
    photo = read_photo(path)
    assert photo.xmp == PACKET
    assert np.abs(photo.pixels * 255 - photo_array()).max() < (0.01 if suffix in (".png", ".tif") else 12)


def test_xmp_lies_where_the_formats_say(tmp_path: Path) -> None:
    for name, depth in (("a.jpg", 8), ("a.png", 8), ("b.png", 16), ("a.tif", 8), ("b.tif", 16)):
        write_photo(tmp_path / name, photo_array(), bit_depth=depth, xmp=PACKET)
    # XMP specification, part 3: 1.1.3 (JPEG), 1.1.5 (PNG), 1.1.4 (TIFF).
    identifier = b"http://ns.adobe.com/xap/1.0/\0"
    length = (2 + len(identifier) + len(PACKET)).to_bytes(2, "big")
    assert b"\xff\xe1" + length + identifier + PACKET in (tmp_path / "a.jpg").read_bytes()
    for name in ("a.png", "b.png"):
        assert b"iTXtXML:com.adobe.xmp\0\0\0\0\0" + PACKET in (tmp_path / name).read_bytes()
    for name in ("a.tif", "b.tif"):
        with tifffile.TiffFile(tmp_path / name) as file:
            assert bytes(file.pages[0].tags[700].value) == PACKET


def test_a_packet_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="XMP data is too long"):
        write_photo(tmp_path / "a.jpg", photo_array(), xmp=b" " * 65_505)
    write_photo(tmp_path / "b.jpg", photo_array(), xmp=b" " * 65_504)
    with pytest.raises(BadInput, match="not UTF-8"):
        write_photo(tmp_path / "a.png", photo_array(), xmp=b"\xff\xfe<")
    assert [path.name for path in tmp_path.iterdir()] == ["b.jpg"]


# --- colour profiles --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("suffix", "bit_depth"), FORMATS)
@pytest.mark.parametrize("matrix", [ADOBE_RGB, DISPLAY_P3], ids=["adobe", "p3"])
def test_a_photo_goes_back_into_its_own_profile(
    tmp_path: Path, suffix: str, bit_depth: int, matrix: list[list[float]]
) -> None:
    profile = matrix_profile(matrix, GAMMA)
    # Muted enough to lie within sRGB.
    levels = 100 + photo_array() // 4
    first = as_file(tmp_path / "first.png", Image.fromarray(levels), icc_profile=profile)
    photo = read_photo(first)
    assert not np.array_equal(photo.samples, levels)
    path = tmp_path / f"a{suffix}"
    write_photo(path, photo.samples, bit_depth=bit_depth, profile=photo.icc)
    with Image.open(path) as image:
        assert image.info["icc_profile"] == profile
        stored = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(stored - levels).max() <= (1 if suffix in (".png", ".tif") else 8)
    again = read_photo(path)
    assert np.abs(again.pixels - photo.pixels).max() <= (2 if suffix in (".png", ".tif") else 12) / 255


def test_colours_beyond_srgb_are_clipped(tmp_path: Path) -> None:
    profile = matrix_profile(DISPLAY_P3, GAMMA)
    first = as_file(tmp_path / "a.png", Image.new("RGB", (2, 2), (0, 255, 0)), icc_profile=profile)
    write_photo(tmp_path / "b.png", read_photo(first).samples, profile=profile)
    with Image.open(tmp_path / "b.png") as image:
        # sRGB's green in Display P3: the second column of the matrix between both, encoded.
        expected = 255 * np.array([0.17754, 0.96681, 0.07240]) ** (1 / GAMMA)
        assert np.abs(np.array(image.getpixel((0, 0))) - expected).max() < 1.5


@pytest.mark.parametrize("bit_depth", [8, 16])
@pytest.mark.parametrize("profile", [gray_profile(1.8), cmyk_profile(), b"broken"], ids=["gray", "inks", "broken"])
def test_a_profile_that_rgb_cannot_be_in_is_left_out(tmp_path: Path, profile: bytes, bit_depth: int) -> None:
    write_photo(tmp_path / "a.png", photo_array(), bit_depth=bit_depth, profile=profile)
    photo = read_photo(tmp_path / "a.png")
    assert photo.icc is None
    assert np.abs(photo.pixels * 255 - photo_array()).max() < 0.01


def test_an_srgb_profile_is_kept_and_changes_nothing(tmp_path: Path) -> None:
    write_photo(tmp_path / "a.png", photo_array(), profile=srgb_profile())
    photo = read_photo(tmp_path / "a.png")
    assert photo.icc == srgb_profile()
    np.testing.assert_array_equal(photo.samples, photo_array())


def test_transparency_is_not_converted(tmp_path: Path) -> None:
    alpha = np.linspace(0, 1, 24 * 36, dtype=np.float32).reshape(24, 36)
    for depth in (8, 16):
        write_photo(
            tmp_path / "a.png", photo_array(), alpha=alpha, bit_depth=depth, profile=matrix_profile(DISPLAY_P3, GAMMA)
        )
        read = read_photo(tmp_path / "a.png").alpha
        assert read is not None
        assert np.abs(read - alpha).max() <= 0.51 / (2**depth - 1)


def test_pixels_are_in_one_profile_or_go_into_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give one"):
        write_photo(tmp_path / "a.png", photo_array(), icc=srgb_profile(), profile=srgb_profile())
