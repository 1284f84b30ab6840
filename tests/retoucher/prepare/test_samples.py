from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.retoucher.prepare.pictures import picture
from vernissage.core.errors import MissingArtifact
from vernissage.retoucher.prepare.samples import (
    LONGEST_CROP_EDGE,
    SAMPLE_PHOTOS,
    SamplePhoto,
    cut_crops,
    read_sample,
    sample_crops,
)


@given(
    st.integers(8, 200), st.integers(8, 200), st.floats(0.2, 1), st.floats(0.2, 1), st.integers(0, 99)
)  # fmt: skip
@settings(max_examples=50, deadline=None)
def test_crops_lie_inside_the_photo(width: int, height: int, one: float, other: float, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    for crop in cut_crops(pixels, 4, (min(one, other), max(one, other)), np.random.default_rng(seed)):
        assert 1 <= crop.shape[0] <= height
        assert 1 <= crop.shape[1] <= width
        # A crop of noise is found where it was cut: its first row is a row of the photo.
        rows = np.lib.stride_tricks.sliding_window_view(pixels, (1, crop.shape[1], 3)).reshape(-1, crop.shape[1], 3)
        assert (rows == crop[0]).all(axis=(1, 2)).any()


def test_crops_differ_in_shape_and_large_ones_are_shrunk() -> None:
    crops = cut_crops(picture(0, 1500, 1000), 30, (0.5, 0.9), np.random.default_rng(0))
    assert len({round(crop.shape[1] / crop.shape[0], 1) for crop in crops}) >= 5
    assert max(max(crop.shape[:2]) for crop in crops) == LONGEST_CROP_EDGE


def test_samples_are_deterministic_and_monochrome_ones_fewer() -> None:
    first, second = list(sample_crops(3, (0.5, 0.9), seed=0)), list(sample_crops(3, (0.5, 0.9), seed=0))
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(first, second, strict=True))
    other = list(sample_crops(3, (0.5, 0.9), seed=1))
    assert not np.array_equal(first[0].pixels, other[0].pixels)
    counts = Counter(crop.photo.name for crop in first)
    assert set(counts) == {photo.name for photo in SAMPLE_PHOTOS}
    assert counts["motorcycle"] == counts["astronaut"] == 3  # two views are one scene
    assert counts["brick"] == 1
    assert len({crop.name for crop in first}) == len(first)
    grey = {crop.photo.name for crop in first if np.ptp(crop.pixels.astype(int), axis=2).max() == 0}
    assert grey == {photo.name for photo in SAMPLE_PHOTOS if photo.share < 1}


def test_a_photo_that_is_not_installed_says_so() -> None:
    with pytest.raises(MissingArtifact, match=r"came without data/unicorn\.png"):
        read_sample(SamplePhoto("unicorn", "animals", "skimage", ("data/unicorn.png",), "none"))
    with pytest.raises(MissingArtifact, match="no_such_package is not installed"):
        read_sample(SamplePhoto("unicorn", "animals", "no_such_package", ("unicorn.png",), "none"))
