"""Colours go back into a photo's own profile: known answers, there and back, and profiles that lead nowhere."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import ImageCms

from tests.core.made_pictures import (
    ADOBE_RGB,
    DISPLAY_P3,
    cmyk_profile,
    gray_profile,
    matrix_profile,
    srgb_profile,
    table_profile,
)
from vernissage.core.colour_profiles import IntoProfile, deep_to_srgb, is_srgb

RNG = np.random.default_rng(5)
GAMMA = 2.19921875
# Linear sRGB to linear Display P3, from the primaries and white of both (SMPTE EG 432-1, IEC 61966-2-1).
SRGB_TO_P3 = np.array([[0.82246, 0.17754, 0.0], [0.03319, 0.96681, 0.0], [0.01708, 0.07240, 0.91052]])


def into(profile: bytes) -> IntoProfile:
    conversion = IntoProfile.open(profile)
    assert conversion is not None
    assert conversion.profile == profile
    return conversion


def test_srgb_primaries_in_display_p3() -> None:
    conversion = into(matrix_profile(DISPLAY_P3, GAMMA))
    levels = np.eye(3, dtype=np.uint8)[None] * 255
    expected = SRGB_TO_P3.T ** (1 / GAMMA)
    assert np.abs(conversion.levels(levels)[0] - 255 * expected).max() < 1.5
    assert np.abs(conversion.deep(levels.astype(np.float32) / 255)[0] - expected).max() < 2e-3
    assert np.abs(conversion.deep(levels * np.uint16(257))[0] / 65535 - expected).max() < 2e-3


MATRICES = [matrix_profile(DISPLAY_P3, GAMMA), matrix_profile(ADOBE_RGB, 1.8)]


@pytest.mark.parametrize("profile", [*MATRICES, table_profile()])
def test_shallow_and_deep_conversion_agree(profile: bytes) -> None:
    levels = RNG.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    before = levels.copy()
    shallow, deep = into(profile).levels(levels), into(profile).deep(levels * np.uint16(257))
    assert (shallow.dtype, deep.dtype) == (np.uint8, np.uint16)
    assert np.abs(shallow - deep / 257).max() < 1.6
    np.testing.assert_array_equal(levels, before)


@pytest.mark.parametrize("profile", MATRICES)
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_there_and_back_nothing_is_lost_but_rounding(profile: bytes, dtype: type) -> None:
    levels = RNG.integers(0, 65536, (30, 40, 3), dtype=np.uint16)
    srgb = levels if dtype == np.uint16 else levels.astype(np.float32) / np.float32(65535)
    own = into(profile).deep(srgb)
    back = deep_to_srgb(own, profile, [])
    assert back.dtype == dtype
    # Near black the curve of sRGB is steeper than the other: one level of 16 bits there is a few here.
    assert np.abs(back.astype(float) - srgb).max() <= (12 if dtype == np.uint16 else 12 / 65535)
    assert np.abs(back.astype(float) - srgb).mean() <= (1 if dtype == np.uint16 else 1 / 65535)


def test_srgb_stays_as_it_is() -> None:
    conversion = into(srgb_profile())
    levels = RNG.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    np.testing.assert_array_equal(conversion.levels(levels), levels)
    np.testing.assert_array_equal(conversion.deep(levels * np.uint16(257)), levels * np.uint16(257))
    assert is_srgb(srgb_profile())
    assert not is_srgb(matrix_profile(DISPLAY_P3, GAMMA))


@pytest.mark.parametrize(
    "profile",
    [
        gray_profile(1.8),
        cmyk_profile(),
        b"",
        b"broken",
        bytes(16) + b"RGB " + bytes(300),
        ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes(),
        table_profile().replace(b"B2A", b"X2X"),
    ],
    ids=["gray", "inks", "empty", "broken", "damaged", "lab", "one way"],
)
def test_other_profiles_lead_nowhere(profile: bytes) -> None:
    assert IntoProfile.open(profile) is None


def test_a_matrix_that_loses_a_colour_leads_nowhere() -> None:
    flat = [[0.4, 0.4, 0.2], [0.4, 0.4, 0.2], [0.4, 0.4, 0.2]]
    conversion = IntoProfile.open(matrix_profile(flat, GAMMA))
    if conversion is not None:  # LittleCMS may find a way where there is none; ours must not divide by zero
        assert np.isfinite(conversion.deep(np.full((1, 1, 3), 0.5, np.float32))).all()
