"""Pictures in and out: known answers, round trips, and a zoo of bad files none of which may raise anything else."""

from __future__ import annotations

import io
import os
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.core.made_pictures import (
    ADOBE_RGB,
    DISPLAY_P3,
    as_file,
    cmyk_profile,
    deep_array,
    gray_profile,
    matrix_profile,
    photo_array,
    srgb_profile,
)
from vernissage.core import png16
from vernissage.core.errors import CorruptArtifact, MissingArtifact, RejectedImage
from vernissage.core.images import load_rgb8, read_photo, save_png, to_uint8

if TYPE_CHECKING:
    from pathlib import Path

RNG = np.random.default_rng(7)


def reason(path: Path, **options: int) -> str:
    with pytest.raises(RejectedImage) as caught:
        read_photo(path, **options)
    assert str(path) in str(caught.value)
    return caught.value.reason


# --- what is read, and how it looks afterwards -------------------------------------------------------------------


@pytest.mark.parametrize(("suffix", "format_name"), [("png", "PNG"), ("tif", "TIFF"), ("bmp", "BMP"), ("ppm", "PPM")])
def test_lossless_formats_give_their_exact_levels(tmp_path: Path, suffix: str, format_name: str) -> None:
    array = photo_array()
    photo = read_photo(as_file(tmp_path / f"a.{suffix}", Image.fromarray(array)))
    assert photo.pixels.dtype == np.float32
    assert photo.pixels.flags.c_contiguous
    assert np.array_equal(to_uint8(photo.pixels), array)
    assert (photo.bit_depth, photo.alpha, photo.history, photo.format) == (8, None, (), format_name)


@pytest.mark.parametrize(
    ("suffix", "options"), [("jpg", {"quality": 95}), ("webp", {"quality": 95}), ("avif", {"quality": 95})]
)
def test_lossy_formats_come_close(tmp_path: Path, suffix: str, options: dict[str, int]) -> None:
    array = photo_array()
    photo = read_photo(as_file(tmp_path / f"a.{suffix}", Image.fromarray(array), **options))
    assert np.abs(photo.pixels * 255 - array).mean() < 3


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_every_exif_orientation_is_made_upright(tmp_path: Path, orientation: int, suffix: str) -> None:
    upright = Image.fromarray(photo_array())
    # What a camera held that way stores: the inverse of what the viewer has to do.
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation in undo else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "Maker"
    options = {"lossless": True} if suffix == "webp" else {}
    photo = read_photo(as_file(tmp_path / f"a.{suffix}", stored, exif=exif, **options))
    assert photo.pixels.shape == (24, 36, 3)
    assert np.abs(photo.pixels * 255 - photo_array()).max() < (12 if suffix == "jpg" else 0.01)
    assert photo.history == (() if orientation == 1 else (f"exif-rotated {orientation}",))
    kept = Image.Exif()
    kept.load(photo.exif)
    assert (kept[0x0112], kept[0x010F]) == (1, "Maker")


@pytest.mark.parametrize("orientation", [0, 9, 255])
def test_an_orientation_that_does_not_exist_means_upright(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = read_photo(as_file(tmp_path / "a.png", Image.fromarray(photo_array()), exif=exif))
    assert np.array_equal(to_uint8(photo.pixels), photo_array())


@pytest.mark.parametrize("orientation", [6, 8])
def test_a_deep_picture_and_its_alpha_turn_together(tmp_path: Path, orientation: int) -> None:
    samples = deep_array(4, 6, 9)
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "a.png").write_bytes(png16.encode(samples, exif=exif.tobytes()))
    photo = read_photo(tmp_path / "a.png")
    expected = np.rot90(samples, k=-1 if orientation == 6 else 1)
    assert np.array_equal(np.rint(photo.pixels * 65535), expected[..., :3])
    assert photo.alpha is not None
    assert np.array_equal(np.rint(photo.alpha * 65535), expected[..., 3])


def test_palette_with_transparency(tmp_path: Path) -> None:
    image = Image.new("P", (4, 2))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putdata([0, 1, 0, 1, 1, 1, 1, 1])
    photo = read_photo(as_file(tmp_path / "a.png", image, transparency=0))
    assert photo.history == ("palette->rgb",)
    assert photo.alpha is not None
    assert photo.alpha.tolist() == [[0, 1, 0, 1], [1, 1, 1, 1]]
    assert photo.pixels[1, 0].tolist() == [0, 0, 1]
    assert photo.pixels[0, 0].tolist() == [1, 0, 0]


def test_gray_with_alpha(tmp_path: Path) -> None:
    array = np.array([[[10, 0], [20, 255]]], np.uint8)
    photo = read_photo(as_file(tmp_path / "a.png", Image.fromarray(array, "LA")))
    assert photo.history == ("gray->rgb",)
    assert to_uint8(photo.pixels).tolist() == [[[10] * 3, [20] * 3]]
    assert photo.alpha is not None
    assert photo.alpha.tolist() == [[0, 1]]


def test_colour_under_full_transparency_is_kept(tmp_path: Path) -> None:
    array = np.array([[[10, 20, 30, 0], [40, 50, 60, 128]]], np.uint8)
    photo = read_photo(as_file(tmp_path / "a.png", Image.fromarray(array)))
    assert np.array_equal(to_uint8(photo.pixels), array[..., :3])
    assert photo.alpha is not None
    assert np.array_equal(to_uint8(photo.alpha), array[..., 3])


def test_one_bit_and_one_pixel(tmp_path: Path) -> None:
    assert read_photo(as_file(tmp_path / "a.png", Image.new("1", (1, 1), 1))).pixels.tolist() == [[[1, 1, 1]]]
    assert read_photo(as_file(tmp_path / "b.jpg", Image.new("RGB", (1, 1)))).pixels.shape == (1, 1, 3)


def test_names_of_all_alphabets_and_a_wrong_suffix(tmp_path: Path) -> None:
    path = tmp_path / "Äpfel 写真 🌳.png"
    Image.fromarray(photo_array()).save(path, format="JPEG")
    assert read_photo(path).format == "JPEG"


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("a.jpg", np.uint8),
        ("a.png", np.uint8),
        ("gray.png", np.uint8),
        ("deep.png", np.uint16),
        ("deep.tif", np.uint16),
        ("swapped.tif", np.uint16),
        ("profiled.tif", np.uint16),
        ("float.tif", np.float32),
    ],
)
def test_samples_are_as_deep_as_the_file_and_may_be_written_over(tmp_path: Path, name: str, dtype: type) -> None:
    path, deep = tmp_path / name, deep_array(3, 6, 8)
    if name == "deep.png":
        path.write_bytes(png16.encode(deep))
    elif name.endswith("tif"):
        array = deep / np.float32(65535) if name == "float.tif" else deep
        profile = matrix_profile(ADOBE_RGB, 2.2) if name == "profiled.tif" else None
        order = ">" if name == "swapped.tif" else "<"
        tifffile.imwrite(path, array, photometric="rgb", byteorder=order, iccprofile=profile)
    else:
        Image.fromarray(photo_array()).convert("L" if name == "gray.png" else "RGB").save(path)
    photo = read_photo(path)
    assert photo.samples.dtype == dtype
    assert photo.samples.dtype.isnative
    assert photo.samples.flags.c_contiguous
    assert photo.samples.flags.writeable
    assert photo.pixels.dtype == np.float32
    assert photo.pixels.max() <= 1


def test_exif_names_the_sides_of_the_upright_picture(tmp_path: Path) -> None:
    for orientation, expected in ((1, (36, 24)), (3, (36, 24)), (6, (24, 36)), (8, (24, 36))):
        exif = Image.Exif()
        exif[0x0112] = orientation
        exif.get_ifd(0x8769).update({0xA002: 36, 0xA003: 24})
        photo = read_photo(as_file(tmp_path / "a.jpg", Image.fromarray(photo_array()), exif=exif))
        kept = Image.Exif()
        kept.load(photo.exif or b"")
        details = kept.get_ifd(0x8769)
        assert (details[0xA002], details[0xA003]) == expected == photo.samples.shape[1::-1]


# --- 16 bits -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bit_png_keeps_every_level(tmp_path: Path, channels: int) -> None:
    samples = deep_array(channels)
    (tmp_path / "a.png").write_bytes(png16.encode(samples))
    photo = read_photo(tmp_path / "a.png")
    colours = 1 if channels < 3 else 3
    assert photo.bit_depth == 16
    assert "16-bit" in photo.history
    assert ("gray->rgb" in photo.history) == (colours == 1)
    assert np.array_equal(np.rint(photo.pixels * 65535)[..., :colours], samples[..., :colours])
    assert len(np.unique(photo.pixels)) == len(np.unique(samples[..., :colours])) > 5000
    if channels in (2, 4):
        assert photo.alpha is not None
        assert np.array_equal(np.rint(photo.alpha * 65535), samples[..., -1])


def test_16_bit_gray_png_of_another_writer(tmp_path: Path) -> None:
    samples = deep_array(1, 8, 50)[..., 0]
    photo = read_photo(as_file(tmp_path / "a.png", Image.fromarray(samples)))
    assert np.array_equal(np.rint(photo.pixels[..., 2] * 65535), samples)
    assert photo.history == ("16-bit", "gray->rgb")


def test_16_bit_png_with_a_transparent_colour(tmp_path: Path) -> None:
    samples = deep_array(3, 2, 5)
    data = png16.encode(samples)
    key = png16._chunk(b"tRNS", samples[1, 2].astype(">u2").tobytes())
    (tmp_path / "a.png").write_bytes(data[:33] + key + data[33:])
    alpha = read_photo(tmp_path / "a.png").alpha
    assert alpha is not None
    assert np.argwhere(alpha == 0).tolist() == [[1, 2]]


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_16_bit_tiff_keeps_every_level(tmp_path: Path, compression: str | None, planar: str, byteorder: str) -> None:
    samples = deep_array(3)
    stored = np.moveaxis(samples, -1, 0) if planar == "separate" else samples
    tifffile.imwrite(
        tmp_path / "a.tif",
        stored,
        photometric="rgb",
        planarconfig=planar,
        compression=compression,
        predictor=bool(compression),
        byteorder=byteorder,
    )
    photo = read_photo(tmp_path / "a.tif")
    assert (photo.bit_depth, photo.history, photo.format) == (16, ("16-bit",), "TIFF")
    assert np.array_equal(np.rint(photo.pixels * 65535), samples)


def test_16_bit_gray_tiff_white_is_zero(tmp_path: Path) -> None:
    samples = deep_array(1, 4, 30)[..., 0]
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="miniswhite")
    photo = read_photo(tmp_path / "a.tif")
    assert np.array_equal(np.rint(photo.pixels[..., 0] * 65535), 65535 - samples)


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits"])
@pytest.mark.parametrize("layout", ["one strip", "strips", "tiles", "planes"])
def test_16_bit_tiff_in_packings_of_editors(tmp_path: Path, compression: str, layout: str) -> None:
    samples = deep_array(3, 40, 30)
    (tmp_path / "a.tif").write_bytes(editors_tiff(samples, compression, layout))
    photo = read_photo(tmp_path / "a.tif")
    assert (photo.bit_depth, photo.history) == (16, ("16-bit",))
    assert np.array_equal(np.rint(photo.pixels * 65535), samples)


def editors_tiff(samples: np.ndarray, compression: str, layout: str) -> bytes:
    """A TIFF of 16 bits as photo editors write it: LZW with differences between neighbours, or PackBits without."""
    height, width, channels = samples.shape
    rows, columns = (16, 16) if layout == "tiles" else (height if layout == "one strip" else 16, width)
    planes = np.split(samples, channels, axis=-1) if layout == "planes" else [samples]
    parts = [
        plane[top : top + rows, left : left + columns]
        for plane in planes
        for top in range(0, height, rows)
        for left in range(0, width, columns)
    ]
    if layout == "tiles":
        parts = [np.pad(part, ((0, 16 - part.shape[0]), (0, 16 - part.shape[1]), (0, 0))) for part in parts]
    packed = [_pack_by_libtiff(part, compression) for part in parts]
    offsets, sizes = np.cumsum([8, *map(len, packed)])[:-1].tolist(), [len(part) for part in packed]
    places = [(324, 4, offsets), (325, 4, sizes)] if layout == "tiles" else [(273, 4, offsets), (279, 4, sizes)]
    shape = [(322, 3, [16]), (323, 3, [16])] if layout == "tiles" else [(278, 4, [rows])]
    tags = [
        (256, 4, [width]),
        (257, 4, [height]),
        (258, 3, [16] * channels),
        (259, 3, [5 if compression == "tiff_lzw" else 32773]),
        (262, 3, [2]),
        (277, 3, [channels]),
        (284, 3, [2 if layout == "planes" else 1]),
        (317, 3, [2 if compression == "tiff_lzw" else 1]),
        *places,
        *shape,
    ]
    return _tiff(sorted(tags), b"".join(packed))


def _pack_by_libtiff(part: np.ndarray, compression: str) -> bytes:
    deltas = part.copy()
    if compression == "tiff_lzw":
        deltas[:, 1:] -= part[:, :-1]
    row_bytes = deltas.astype("<u2").view(np.uint8).reshape(len(part), -1)
    buffer = io.BytesIO()
    Image.fromarray(row_bytes).save(buffer, format="TIFF", compression=compression, tiffinfo={278: len(part)})
    buffer.seek(0)
    with tifffile.TiffFile(buffer) as file:
        page = file.pages[0]
        assert len(page.dataoffsets) == 1
        return buffer.getvalue()[page.dataoffsets[0] :][: page.databytecounts[0]]


def _tiff(tags: list[tuple[int, int, list[int]]], data: bytes) -> bytes:
    start = 8 + len(data)
    extra_at = start + 2 + 12 * len(tags) + 4
    entries, extra = b"", b""
    for tag, kind, values in tags:
        packed = struct.pack(f"<{len(values)}{'HI'[kind - 3]}", *values)
        if len(packed) > 4:
            field = struct.pack("<I", extra_at + len(extra))
            extra += packed + bytes(len(packed) % 2)
        else:
            field = packed.ljust(4, b"\0")
        entries += struct.pack("<HHI", tag, kind, len(values)) + field
    return b"II*\0" + struct.pack("<I", start) + data + struct.pack("<H", len(tags)) + entries + bytes(4) + extra


def test_16_bit_inks_are_read_at_8_bits_and_said(tmp_path: Path) -> None:
    inks = np.zeros((8, 9, 4), np.uint16)
    inks[..., 1:3] = 65535
    tifffile.imwrite(tmp_path / "a.tif", inks, photometric="separated")
    photo = read_photo(tmp_path / "a.tif")
    assert (photo.bit_depth, photo.history) == (8, ("16-bit read as 8-bit", "cmyk->srgb without profile"))
    assert photo.pixels[0, 0].tolist() == [1, 0, 0]


@pytest.mark.parametrize("associated", [False, True])
def test_16_bit_tiff_with_alpha_gives_straight_colours(tmp_path: Path, associated: bool) -> None:
    colour, alpha = np.full((4, 5, 3), 40_000, np.uint16), np.full((4, 5, 1), 32_768, np.uint16)
    stored = (colour * (32_768 / 65_535)).round().astype(np.uint16) if associated else colour
    kind = "assocalpha" if associated else "unassalpha"
    tifffile.imwrite(
        tmp_path / "a.tif", np.concatenate([stored, alpha], axis=-1), photometric="rgb", extrasamples=[kind]
    )
    photo = read_photo(tmp_path / "a.tif")
    assert np.abs(photo.pixels * 65535 - 40_000).max() < 2
    assert photo.alpha is not None
    assert np.array_equal(np.rint(photo.alpha * 65535), alpha[..., 0])


def test_a_deep_tiff_is_turned_upright(tmp_path: Path) -> None:
    samples = deep_array(3, 6, 9)
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="rgb", extratags=[(274, 3, 1, 6, True)])
    photo = read_photo(tmp_path / "a.tif")
    assert photo.history == ("16-bit", "exif-rotated 6")
    assert np.array_equal(np.rint(photo.pixels * 65535), np.rot90(samples, k=-1))


def test_thousands_of_channels_are_refused_before_they_fill_the_memory(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif", np.zeros((4, 5, 40), np.uint16), photometric="minisblack", planarconfig="contig"
    )
    assert "40 channels" in reason(tmp_path / "a.tif")


def test_float_tiff(tmp_path: Path) -> None:
    values = np.linspace(0, 1, 6 * 8 * 3, dtype=np.float32).reshape(6, 8, 3)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb")
    photo = read_photo(tmp_path / "a.tif")
    assert photo.history == ("float",)
    assert np.array_equal(photo.pixels, values)
    tifffile.imwrite(tmp_path / "b.tif", values * 1.2, photometric="rgb")
    clipped = read_photo(tmp_path / "b.tif")
    assert clipped.history == ("float", "clipped to 0..1")
    assert clipped.pixels.max() == 1
    tifffile.imwrite(tmp_path / "c.tif", values * 255, photometric="rgb")
    assert "from 0 to 255" in reason(tmp_path / "c.tif")
    values[2, 3, 1] = np.nan
    tifffile.imwrite(tmp_path / "d.tif", values, photometric="rgb")
    assert "nan" in reason(tmp_path / "d.tif")


def test_signed_tiff_is_rejected(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 4), np.int16), photometric="minisblack")
    assert "int16" in reason(tmp_path / "a.tif")


def test_raw_files_of_cameras_are_rejected_and_not_taken_for_their_preview(tmp_path: Path) -> None:
    preview = np.zeros((4, 6, 3), np.uint8)
    tifffile.imwrite(tmp_path / "a.dng", preview, photometric="rgb", extratags=[(50706, 1, 4, (1, 4, 0, 0), True)])
    tifffile.imwrite(tmp_path / "b.nef", preview, photometric="rgb", subfiletype=1)
    assert "raw" in reason(tmp_path / "a.dng")
    assert "raw" in reason(tmp_path / "b.nef")


# --- colour profiles ---------------------------------------------------------------------------------------------


def test_an_srgb_profile_changes_nothing(tmp_path: Path) -> None:
    photo = read_photo(as_file(tmp_path / "a.png", Image.fromarray(photo_array()), icc_profile=srgb_profile()))
    assert np.array_equal(to_uint8(photo.pixels), photo_array())
    assert photo.history == ()
    assert photo.icc == srgb_profile()


def test_display_p3_known_answer(tmp_path: Path) -> None:
    # P3 green lies outside sRGB, P3 gray is the same gray; the third is worked out from both matrices with gamma 2.2.
    array = np.array([[[0, 255, 0], [128, 128, 128], [200, 100, 100]]], np.uint8)
    profile = matrix_profile(DISPLAY_P3, 2.19921875, "Display P3")
    photo = read_photo(as_file(tmp_path / "a.png", Image.fromarray(array), icc_profile=profile))
    levels = to_uint8(photo.pixels)[0].astype(int)
    assert photo.history == ("icc Display P3->srgb",)
    assert levels[0].tolist() == [0, 255, 0]
    assert np.abs(levels[1] - 128).max() <= 1
    assert levels[2][0] > 205
    assert levels[2][1] < 100


@pytest.mark.parametrize("matrix", [ADOBE_RGB, DISPLAY_P3])
def test_deep_colour_conversion_agrees_with_littlecms(tmp_path: Path, matrix: list[list[float]]) -> None:
    profile = matrix_profile(matrix, 2.19921875)
    levels = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    shallow = read_photo(as_file(tmp_path / "a.png", Image.fromarray(levels), icc_profile=profile))
    (tmp_path / "b.png").write_bytes(png16.encode(levels.astype(np.uint16) * 257, icc=profile))
    deep = read_photo(tmp_path / "b.png")
    assert np.abs(shallow.pixels - deep.pixels).max() < 1.6 / 255
    assert deep.history == ("16-bit", "icc Test RGB->srgb")


def test_deep_colour_conversion_keeps_more_than_256_levels(tmp_path: Path) -> None:
    profile = matrix_profile(ADOBE_RGB, 2.19921875)
    tifffile.imwrite(tmp_path / "a.tif", deep_array(3), photometric="rgb", iccprofile=profile)
    assert len(np.unique(read_photo(tmp_path / "a.tif").pixels)) > 5000


def test_gray_profile_of_gamma_one_is_brightened(tmp_path: Path) -> None:
    # Linear 0.2140 is sRGB 0.5 (IEC 61966-2-1).
    samples = np.full((2, 2, 1), round(0.21404 * 65535), np.uint16)
    (tmp_path / "a.png").write_bytes(png16.encode(samples, icc=gray_profile(1.0)))
    assert read_photo(tmp_path / "a.png").pixels[0, 0].tolist() == pytest.approx([0.5] * 3, abs=1e-4)
    Image.fromarray(np.full((2, 2), 55, np.uint8)).save(tmp_path / "b.png", icc_profile=gray_profile(1.0))
    assert read_photo(tmp_path / "b.png").pixels[0, 0].tolist() == pytest.approx([0.5] * 3, abs=0.01)


@pytest.mark.parametrize("profile", [b"broken", bytes(200), b"x" * 3000])
@pytest.mark.parametrize("deep", [False, True])
def test_a_broken_profile_is_ignored_and_said(tmp_path: Path, profile: bytes, deep: bool) -> None:
    path = tmp_path / "a.png"
    if deep:
        path.write_bytes(png16.encode(photo_array().astype(np.uint16) * 257, icc=profile))
    else:
        Image.fromarray(photo_array()).save(path, icc_profile=profile)
    photo = read_photo(path)
    assert np.array_equal(to_uint8(photo.pixels), photo_array())
    assert any("icc ignored" in note for note in photo.history)


def test_a_profile_for_another_kind_of_picture_is_ignored(tmp_path: Path) -> None:
    photo = read_photo(as_file(tmp_path / "a.png", Image.fromarray(photo_array()), icc_profile=gray_profile(1.8)))
    assert np.array_equal(to_uint8(photo.pixels), photo_array())
    assert any("icc ignored" in note for note in photo.history)


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_cmyk_without_profile(tmp_path: Path, suffix: str) -> None:
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    photo = read_photo(as_file(tmp_path / f"a.{suffix}", image))
    assert photo.history == ("cmyk->srgb without profile",)
    assert photo.pixels[4, 4] == pytest.approx([1, 0, 0], abs=0.02)


def test_cmyk_with_profile_uses_it(tmp_path: Path) -> None:
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    photo = read_photo(as_file(tmp_path / "a.jpg", image, icc_profile=cmyk_profile(), quality=100))
    assert photo.history == ("icc test inks->srgb", "cmyk->srgb")
    # The profile says that every colour is Lab (50, 0, 0), a middle gray of 119 in sRGB.
    assert np.abs(to_uint8(photo.pixels).astype(int) - 119).max() <= 2


# --- several pictures in one file --------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif"])
def test_the_first_of_several_pictures_is_taken(tmp_path: Path, suffix: str) -> None:
    first, second = Image.new("RGB", (9, 7), (250, 10, 10)), Image.new("RGB", (9, 7), (10, 10, 250))
    options = {"lossless": True} if suffix == "webp" else {}
    photo = read_photo(as_file(tmp_path / f"a.{suffix}", first, save_all=True, append_images=[second], **options))
    assert ("multi-page: first page" if suffix == "tif" else "animated: first frame") in photo.history
    assert to_uint8(photo.pixels[0, 0]).tolist() == [250, 10, 10]


def test_mpo_gives_its_first_picture(tmp_path: Path) -> None:
    first, second = Image.new("RGB", (16, 8), (250, 10, 10)), Image.new("RGB", (8, 8))
    photo = read_photo(as_file(tmp_path / "a.mpo", first, save_all=True, append_images=[second]))
    assert (photo.format, photo.history) == ("MPO", ("mpo: first picture",))
    assert photo.pixels.shape == (8, 16, 3)


def test_multi_page_deep_tiff(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.stack([deep_array(3), deep_array(3)[::-1]]), photometric="rgb")
    photo = read_photo(tmp_path / "a.tif")
    assert photo.history == ("multi-page: first page", "16-bit")
    assert photo.pixels[0, 0, 0] == 0


# --- what is rejected --------------------------------------------------------------------------------------------


def test_files_that_are_not_there_or_not_files(tmp_path: Path) -> None:
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "link.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    assert reason(tmp_path / "folder.jpg") == "a folder, expected a picture"
    assert reason(tmp_path / "empty.jpg") == "empty file"
    assert reason(tmp_path / "link.jpg") == "a link to a file that is not there"
    assert reason(tmp_path / "pipe.jpg") == "not a plain file"
    assert reason(tmp_path / "missing.jpg") == "no such file"
    reason(tmp_path / "loop.jpg")
    with pytest.raises(RejectedImage):
        read_photo("null\0byte.jpg")


def test_text_named_jpg(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("Dear diary, today I was not a photo.")
    assert reason(tmp_path / "a.jpg").startswith("not a picture")


def test_heic_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    assert "export it as JPEG" in reason(tmp_path / "a.heic")


def test_programs_are_never_started_for_a_picture(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n")
    assert reason(tmp_path / "a.jpg").startswith("not a picture")


@pytest.mark.parametrize("keep", [0.03, 0.5, 0.9])
@pytest.mark.parametrize("kind", ["jpg", "png", "tif", "webp", "bmp", "png16", "tif16", "tif-packed"])
def test_truncated_files(tmp_path: Path, kind: str, keep: float) -> None:
    path = tmp_path / f"a.{kind}"
    noise = RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    if kind == "png16":
        path.write_bytes(png16.encode(noise.astype(np.uint16) * 257))
    elif kind == "tif16":
        tifffile.imwrite(path, noise.astype(np.uint16) * 257, photometric="rgb")
    elif kind == "tif-packed":
        path.write_bytes(editors_tiff(noise.astype(np.uint16), "tiff_lzw", "strips"))
    else:
        Image.fromarray(noise).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    reason(path)


@pytest.mark.parametrize("where", [0.3, 0.6, 0.9])
def test_flipped_bits_in_a_deep_png_are_noticed(tmp_path: Path, where: float) -> None:
    data = bytearray(png16.encode(deep_array(3)))
    data[int(len(data) * where)] ^= 0xFF
    (tmp_path / "a.png").write_bytes(data)
    reason(tmp_path / "a.png")


def test_a_header_that_promises_too_much_is_refused_before_decoding(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunks = png16._chunk(b"IHDR", header) + png16._chunk(b"IDAT", zlib.compress(bytes(10_000)))
    (tmp_path / "a.png").write_bytes(png16.SIGNATURE + chunks + png16._chunk(b"IEND", b""))
    assert reason(tmp_path / "a.png").startswith("too large: the header says 60000 x 60000")


def test_max_pixels_is_exact_and_independent_of_pillows_own_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = as_file(tmp_path / "a.png", Image.fromarray(photo_array(10, 10)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3)
    assert read_photo(path, max_pixels=100).pixels.shape == (10, 10, 3)
    assert Image.MAX_IMAGE_PIXELS == 3
    assert reason(path, max_pixels=99).startswith("too large")


def test_many_threads_read_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3)
    paths = [as_file(tmp_path / f"{index}.png", Image.fromarray(photo_array() // (index + 1))) for index in range(6)]
    with ThreadPoolExecutor(4) as pool:
        photos = list(pool.map(read_photo, paths * 10))
    for index, photo in enumerate(photos):
        assert np.array_equal(to_uint8(photo.pixels), photo_array() // (index % 6 + 1))
    assert Image.MAX_IMAGE_PIXELS == 3


def test_max_pixels_holds_for_deep_tiff(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", deep_array(3), photometric="rgb")
    assert reason(tmp_path / "a.tif", max_pixels=6399).startswith("too large")


def test_broken_exif_does_not_cost_the_photo(tmp_path: Path) -> None:
    Image.fromarray(photo_array()).save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f garbage")
    photo = read_photo(tmp_path / "a.jpg")
    assert photo.pixels.shape == (24, 36, 3)


SIGNATURES = [
    b"\xff\xd8\xff\xe0",
    b"\xff\xd8\xff\xe1\x00\x20Exif\0\0II*\0",
    png16.SIGNATURE,
    png16.SIGNATURE + png16._chunk(b"IHDR", struct.pack(">IIBBBBB", 5, 5, 16, 2, 0, 0, 0)),
    png16.SIGNATURE + png16._chunk(b"IHDR", struct.pack(">IIBBBBB", 5, 5, 8, 3, 0, 0, 1)),
    b"GIF89a\x05\0\x05\0",
    b"II*\0\x08\0\0\0",
    b"MM\0*\0\0\0\x08",
    b"II+\0\x08\0\0\0\x10\0\0\0\0\0\0\0",
    b"RIFF\x40\0\0\0WEBPVP8 ",
    b"RIFF\x40\0\0\0WEBPVP8X",
    b"BM",
    b"P6 5 5 255\n",
    b"\0\0\0\x0cjP  \r\n\x87\n",
    b"\0\0\0\x18ftypavif",
]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(head=st.sampled_from(SIGNATURES), tail=st.binary(max_size=200))
def test_random_bytes_are_a_photo_or_rejected(tmp_path: Path, head: bytes, tail: bytes) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(head + tail)
    try:
        photo = read_photo(path, max_pixels=1_000_000)
    except RejectedImage as error:
        assert error.reason  # noqa: PT017 - both ways out are right, each has its own claim
    else:
        assert photo.pixels.ndim == 3
        assert np.isfinite(photo.pixels).all()


def _samples_of_all_kinds() -> list[bytes]:
    result = [png16.encode(deep_array(4, 6, 7)), editors_tiff(deep_array(3, 20, 18), "tiff_lzw", "tiles")]
    exif = Image.Exif()
    exif[0x0112] = 6
    for kind in ("JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP"):
        buffer = io.BytesIO()
        Image.fromarray(photo_array(9, 11)).save(
            buffer, format=kind, exif=exif, icc_profile=matrix_profile(ADOBE_RGB, 2.2)
        )
        result.append(buffer.getvalue())
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, deep_array(3, 6, 7), photometric="rgb", compression="zlib", predictor=True)
    return [*result, buffer.getvalue()]


SAMPLES = _samples_of_all_kinds()


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_real_files_are_a_photo_or_rejected(tmp_path: Path, data: st.DataObject) -> None:
    blob = bytearray(data.draw(st.sampled_from(SAMPLES)))
    for position, value in data.draw(
        st.lists(st.tuples(st.integers(0, len(blob) - 1), st.integers(0, 255)), min_size=1, max_size=8)
    ):
        blob[position] = value
    path = tmp_path / "a.jpg"
    path.write_bytes(blob)
    try:
        photo = read_photo(path, max_pixels=1_000_000)
    except RejectedImage:
        return
    assert np.isfinite(photo.pixels).all()
    assert photo.pixels.min() >= 0
    assert photo.pixels.max() <= 1


# --- our own files ----------------------------------------------------------------------------------------------------


def test_own_png_files(tmp_path: Path) -> None:
    array = photo_array()
    save_png(tmp_path / "sub" / "a.png", array)
    assert np.array_equal(load_rgb8(tmp_path / "sub" / "a.png"), array)
    assert load_rgb8(tmp_path / "sub" / "a.png").flags.writeable
    save_png(tmp_path / "gray.png", array[..., 0], compress_level=9)
    with pytest.raises(CorruptArtifact, match="mode L"):
        load_rgb8(tmp_path / "gray.png")
    with pytest.raises(MissingArtifact):
        load_rgb8(tmp_path / "none.png")
    data = (tmp_path / "sub" / "a.png").read_bytes()
    (tmp_path / "half.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(CorruptArtifact):
        load_rgb8(tmp_path / "half.png")
    with pytest.raises(ValueError, match="float64"):
        save_png(tmp_path / "b.png", np.zeros((3, 3)))  # type: ignore[arg-type]
