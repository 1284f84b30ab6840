"""A blur gathered strip by strip is the blur of the whole, wherever the cuts fall."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vernissage.retoucher.domain.filters import gaussian_blur, smaller_copy_factor
from vernissage.retoucher.domain.wide_blur import WideBlur


def planes_of(channels: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((channels, height, width), dtype=np.float32)


def whole(planes: np.ndarray, sigma: float) -> np.ndarray:
    return gaussian_blur(torch.from_numpy(planes)[None], sigma)[0].numpy()


@given(
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    channels=st.integers(1, 3),
    sigma=st.floats(4.01, 70),
    rows=st.integers(1, 60),
    cut=st.integers(0, 90),
)
@settings(max_examples=80, deadline=None)
def test_any_size_and_any_strips(size: tuple[int, int], channels: int, sigma: float, rows: int, cut: int) -> None:
    planes = planes_of(channels, *size)
    blur = WideBlur(channels, *size, sigma)
    for part, strip in blur.strips(rows):
        blur.add(part, planes[:, strip])
    blur.finish()
    cut = min(cut, size[0])
    result = np.concatenate([blur.rows(slice(0, cut)), blur.rows(slice(cut, size[0]))], axis=1)
    assert result.dtype == np.float32
    assert np.abs(result - whole(planes, sigma)).max() < 1e-5


def test_threads_may_add_and_ask_at_once() -> None:
    planes = planes_of(3, 700, 90)
    blur = WideBlur(3, 700, 90, 9.0)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda strip: blur.add(strip[0], planes[:, strip[1]]), blur.strips(16)))
        blur.finish()
        parts = list(pool.map(lambda top: blur.rows(slice(top, top + 7)), range(0, 700, 7)))
    assert np.abs(np.concatenate(parts, axis=1) - whole(planes, 9.0)).max() < 1e-5


def test_a_flat_picture_stays_flat() -> None:
    blur = WideBlur(1, 50, 33, 20.0)
    for part, strip in blur.strips(10):
        blur.add(part, np.full((1, strip.stop - strip.start, 33), 0.25, np.float32))
    blur.finish()
    np.testing.assert_allclose(blur.rows(slice(0, 50)), 0.25, atol=1e-6)


def test_narrow_blurs_are_left_to_others() -> None:
    assert [smaller_copy_factor(sigma) for sigma in (0.5, 4.0, 4.001, 8.0, 8.001, 36.0)] == [1, 1, 2, 2, 4, 16]
    with pytest.raises(ValueError, match="too narrow"):
        WideBlur(1, 10, 10, 4.0)
