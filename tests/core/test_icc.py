"""Curve-and-matrix profiles: every curve type against its formula, LittleCMS as witness, damage never raises."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ImageCms

from vernissage.core import icc

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def fixed(*values: float) -> bytes:
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def gray(curve: bytes) -> bytes:
    head = bytearray(128)
    head[16:24] = b"GRAYXYZ "
    return bytes(head) + struct.pack(">I4sII", 1, b"kTRC", 144, len(curve)) + curve


def para(kind: int, *values: float) -> bytes:
    return b"para" + bytes(4) + struct.pack(">HH", kind, 0) + fixed(*values)


def curv(*values: int) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">I", len(values)) + struct.pack(f">{len(values)}H", *values)


X = np.linspace(0, 1, 65536)


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        (curv(), X),
        (curv(round(1.8 * 256)), X ** (round(1.8 * 256) / 256)),
        (curv(0, 65535), X),
        (curv(0, 0, 65535), np.maximum(0, 2 * X - 1)),
        (para(0, 2.2), X**2.2),
        (para(1, 2.0, 1.25, -0.25), np.where(X >= 0.2, np.maximum(1.25 * X - 0.25, 0) ** 2, 0)),
        (para(2, 2.0, 0.5, 0.25, 0.25), (0.5 * X + 0.25) ** 2 + 0.25),
        (para(2, 1.0, 1.25, -0.5, 0.125), np.where(X >= 0.4, 1.25 * X - 0.5, 0) + 0.125),
        (para(3, 2.0, 0.75, 0.25, 0.5, 0.25), np.where(X >= 0.25, (0.75 * X + 0.25) ** 2, 0.5 * X)),
        (
            para(4, 2.0, 0.5, 0.25, 0.25, 0.5, 0.125, 0.0625),
            np.where(X >= 0.5, (0.5 * X + 0.25) ** 2 + 0.125, 0.25 * X + 0.0625),
        ),
    ],
)
def test_every_curve_type_against_its_formula(curve: bytes, expected: np.ndarray) -> None:
    profile = icc.parse(gray(curve))
    assert profile is not None
    assert np.abs(profile.curves[0] - expected).max() < 5e-5


def test_srgb_is_recognised_and_its_conversion_is_the_identity() -> None:
    profile = icc.parse(SRGB)
    assert profile is not None
    assert profile.is_srgb()
    pixels = np.random.default_rng(0).random((300, 4, 3)).astype(np.float32)
    assert np.abs(profile.to_srgb(pixels) - pixels).max() < 0.5 / 255


@pytest.mark.parametrize(
    "curve",
    [curv(256), curv(round(1.8 * 256)), para(0, 2.6), para(3, 2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)],
)
def test_back_into_a_curve_is_its_inverse(curve: bytes) -> None:
    profile = icc.parse(gray(curve))
    assert profile is not None
    codes = np.linspace(0, 1, 4001, dtype=np.float32).reshape(-1, 1, 1)
    assert np.abs(profile.from_srgb(profile.to_srgb(codes)) - codes).max() < 3e-5
    # Nearer to black some of these curves have more levels than sRGB.
    levels = np.arange(4096, 65536, 7, dtype=np.uint16).reshape(-1, 1, 1)
    assert np.abs(profile.from_srgb(profile.to_srgb(levels)).astype(int) - levels).max() <= 2


def test_a_curve_that_turns_back_leads_one_way_only() -> None:
    # A step back by less than a thousandth is the rounding of a join, as in the profiles of several makers.
    joined = icc.parse(gray(curv(0, 30000, 29950, 65535)))
    assert joined is not None
    assert joined.is_invertible
    profile = icc.parse(gray(curv(0, 40000, 30000, 65535)))
    assert profile is not None
    assert not profile.is_invertible
    with pytest.raises(ValueError, match="sRGB only"):
        profile.from_srgb(np.zeros((1, 1, 1), np.float32))


def test_a_gray_profile_of_another_gamma_is_not_srgb() -> None:
    profile = icc.parse(gray(curv(256)))
    assert profile is not None
    assert not profile.is_srgb()


def test_rows_do_not_depend_on_each_other() -> None:
    profile = icc.parse(gray(para(0, 1.8)))
    assert profile is not None
    pixels = np.random.default_rng(0).random((600, 2, 1)).astype(np.float32)
    assert np.array_equal(profile.to_srgb(pixels)[431:432], profile.to_srgb(pixels[431:432]))


@pytest.mark.parametrize("name", ["LAB", "XYZ"])
def test_other_kinds_of_profile_are_left_to_littlecms(name: str) -> None:
    assert icc.parse(ImageCms.ImageCmsProfile(ImageCms.createProfile(name)).tobytes()) is None


@given(st.binary(max_size=300))
def test_rubbish_is_no_profile(data: bytes) -> None:
    assert icc.parse(data) is None


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(SRGB) - 1), st.integers(0, 255)), min_size=1, max_size=6))
def test_a_damaged_profile_gives_finite_colours_or_none(damage: list[tuple[int, int]]) -> None:
    data = bytearray(SRGB)
    for position, value in damage:
        data[position] = value
    profile = icc.parse(bytes(data))
    if profile is not None:
        result = profile.to_srgb(np.linspace(0, 1, 30, dtype=np.float32).reshape(2, 5, 3))
        assert np.isfinite(result).all()
        assert result.min() >= 0
        assert result.max() <= 1


def test_an_infinite_tag_table_is_refused() -> None:
    assert icc.parse(bytes(128) + b"\xff\xff\xff\xff" + bytes(64)) is None
