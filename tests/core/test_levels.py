"""Levels and floats: the nearest level, there and back without loss, and nothing copied that is right already."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vernissage.core.levels import as_floats, strips, to_uint8, to_uint16


def test_rounding_goes_to_the_nearest_level_and_clips() -> None:
    assert to_uint8(np.array([-1, 0, 0.4 / 255, 0.6 / 255, 254.4 / 255, 1, 7])).tolist() == [0, 0, 0, 1, 254, 255, 255]
    assert to_uint16(np.array([-1, 0.4 / 65535, 0.6 / 65535, 1, 7])).tolist() == [0, 0, 1, 65535, 65535]


@pytest.mark.parametrize(("dtype", "convert"), [(np.uint8, to_uint8), (np.uint16, to_uint16)])
def test_every_level_survives_as_a_float(dtype: type, convert: object) -> None:
    levels = np.arange(np.iinfo(dtype).max + 1).astype(dtype)
    floats = as_floats(levels)
    assert floats.dtype == np.float32
    assert (floats[0], floats[-1]) == (0, 1)
    np.testing.assert_array_equal(convert(floats), levels)


def test_between_depths_the_nearest_level_is_taken() -> None:
    shallow = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(to_uint8(to_uint16(shallow)), shallow)
    deep = np.arange(65536, dtype=np.uint16)
    np.testing.assert_array_equal(to_uint8(deep), np.rint(deep / 257))


@pytest.mark.parametrize(("dtype", "convert"), [(np.uint8, to_uint8), (np.uint16, to_uint16), (np.float32, as_floats)])
def test_what_is_right_already_is_not_copied(dtype: type, convert: object) -> None:
    array = np.ones((2, 2), dtype)
    assert convert(array) is array


@given(height=st.integers(1, 50), width=st.integers(1, 50), pixels=st.integers(1, 300))
def test_strips_cover_every_row_once(height: int, width: int, pixels: int) -> None:
    rows = [row for strip in strips(height, width, pixels) for row in range(strip.start, strip.stop)]
    assert rows == list(range(height))
    assert all((strip.stop - strip.start) * width <= max(pixels, width) for strip in strips(height, width, pixels))
