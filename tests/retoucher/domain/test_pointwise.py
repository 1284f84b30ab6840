"""Tables say what the renderer says, at every level; what they are not made for is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vernissage.retoucher.domain.pointwise import pointwise_of
from vernissage.retoucher.domain.render import render
from vernissage.retoucher.domain.sliders import HIGHS, LOWS, SLIDER_COUNT, slider_index

SPATIAL = [slider_index("denoise"), slider_index("sharpen")]
ANY_SETTINGS = st.tuples(*(st.floats(low, high, width=32) for low, high in zip(LOWS, HIGHS, strict=True)))


def levels(dtype: type, height: int, width: int, seed: int = 0) -> np.ndarray:
    top = np.iinfo(dtype).max + 1
    samples = np.random.default_rng(seed).integers(0, top, (height, width, 3)).astype(dtype)
    # Every level of 8 bits occurs, and the ends of both depths.
    ramp = np.arange(width) * (top - 1) // max(1, width - 1)
    samples[0] = ramp[:, None]
    return samples


def as_images(samples: np.ndarray) -> torch.Tensor:
    floats = samples / np.float32(np.iinfo(samples.dtype).max)
    return torch.from_numpy(floats.astype(np.float32)).permute(2, 0, 1)[None]


@given(values=ANY_SETTINGS, dtype=st.sampled_from([np.uint8, np.uint16]), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_any_settings_at_any_level(values: tuple[float, ...], dtype: type, seed: int) -> None:
    samples, row = levels(dtype, 7, 256, seed), torch.tensor([values])
    without = row.clone()
    without[:, SPATIAL] = 0
    planes = pointwise_of(row, samples.dtype)(samples)
    assert planes.shape == (3, 7, 256)
    assert planes.dtype == np.float32
    assert np.abs(planes - render(as_images(samples), without)[0].numpy()).max() < 2e-5
    assert 0 <= planes.min() <= planes.max() <= 1


def test_one_stop_more_doubles_the_light() -> None:
    row = torch.zeros(1, SLIDER_COUNT)
    row[0, slider_index("exposure")] = 0.5
    samples = np.array([[[0, 55, 188]]], np.uint8)
    planes = pointwise_of(row, samples.dtype)(samples)[:, 0, 0]
    # Linear light of the levels: 0, 0.03820, 0.50289; twice that, encoded by hand (IEC 61966-2-1), and clipped at 1.
    assert planes.tolist() == pytest.approx([0, 0.30632, 1], abs=1e-4)


def test_full_desaturation_steps_towards_the_luma() -> None:
    row = torch.zeros(1, SLIDER_COUNT)
    row[0, slider_index("saturation")] = -1
    samples = np.array([[[255, 0, 0]]], np.uint8)
    share = 2**-1.5
    expected = [0.2126 + share * (1 - 0.2126), 0.2126 * (1 - share), 0.2126 * (1 - share)]
    assert pointwise_of(row, samples.dtype)(samples)[:, 0, 0].tolist() == pytest.approx(expected, abs=1e-6)


def test_neutral_settings_give_every_level_back() -> None:
    for dtype in (np.uint8, np.uint16):
        samples = levels(dtype, 2, 256)
        planes = pointwise_of(torch.zeros(1, SLIDER_COUNT), samples.dtype)(samples)
        top = np.iinfo(dtype).max
        np.testing.assert_array_equal(np.rint(planes * top), samples.transpose(2, 0, 1))


def test_settings_are_not_changed_and_strips_may_be_views() -> None:
    row = torch.full((1, SLIDER_COUNT), 0.25)
    samples = levels(np.uint8, 9, 256)
    whole = pointwise_of(row, samples.dtype)(samples)
    assert bool((row == 0.25).all())
    np.testing.assert_array_equal(pointwise_of(row, samples.dtype)(samples[::2, ::3]), whole[:, ::2, ::3])


def test_other_types_are_refused() -> None:
    with pytest.raises(ValueError, match="int32: expected uint8"):
        pointwise_of(torch.zeros(1, SLIDER_COUNT), np.dtype(np.int32))
