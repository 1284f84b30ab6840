"""The classic corrections: textbook answers, and nothing odd on odd photos."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.exposure import equalize_adapthist

from tests.retoucher.domain.procedural import flat, noise, scene
from tests.retoucher.learn.worlds import photos
from vernissage.retoucher.domain.colour import luma, srgb_to_linear
from vernissage.retoucher.judge.classics import (
    DEFAULTS,
    GRIDS,
    _clip,
    auto_levels,
    autocontrast,
    clahe,
    classic_method,
    gray_world,
)

CLASSICS = {"autocontrast": 0.005, "auto levels": 0.005, "gray-world": 1.0, "CLAHE": 0.01}


def ramp(low: float, high: float, steps: int = 256) -> torch.Tensor:
    """(1, 3, 8, steps) grey values from low to high."""
    return torch.linspace(low, high, steps).expand(1, 3, 8, steps).clone()


def test_autocontrast_brings_a_flat_ramp_back_to_black_and_white() -> None:
    full = ramp(0.0, 1.0)
    result, edits = autocontrast(0.25 + 0.5 * full, 0.0)
    torch.testing.assert_close(result, full, atol=1e-5, rtol=0)
    assert edits.tolist() == [1]
    clipped, _ = autocontrast(0.25 + 0.5 * full, 0.05)
    torch.testing.assert_close(clipped, ((full - 0.05) / 0.9).clamp(0, 1), atol=0.01, rtol=0)
    kept, _ = autocontrast(full, 0.0)
    torch.testing.assert_close(kept, full)


def test_autocontrast_keeps_a_cast_and_auto_levels_removes_it() -> None:
    full = ramp(0.0, 1.0)
    cast = full * torch.tensor([0.9, 0.7, 0.5]).view(1, 3, 1, 1) + 0.05
    balanced, _ = auto_levels(cast, 0.0)
    torch.testing.assert_close(balanced, full, atol=1e-5, rtol=0)
    stretched, _ = autocontrast(cast, 0.0)
    assert (stretched[:, 0] - stretched[:, 2]).max() > 0.3


def test_each_photo_is_stretched_on_its_own() -> None:
    pictures = torch.cat((ramp(0.2, 0.4), ramp(0.0, 1.0)))
    for method in (autocontrast, auto_levels):
        together, _ = method(pictures, 0.005)
        for row in range(2):
            torch.testing.assert_close(method(pictures[row : row + 1], 0.005)[0][0], together[row])


def test_gray_world_neutralises_the_cast_of_a_grey_picture() -> None:
    grey = srgb_to_linear(ramp(0.1, 0.6))
    cast = grey * torch.tensor([1.3, 1.0, 0.7]).view(1, 3, 1, 1)
    encoded = torch.where(cast <= 0.0031308, 12.92 * cast, 1.055 * cast ** (1 / 2.4) - 0.055)
    result, _ = gray_world(encoded, 1.0)
    assert (result.amax(dim=1) - result.amin(dim=1)).max() < 1e-4
    before, after = (luma(srgb_to_linear(p)).mean() for p in (encoded, result))
    assert float(after) == pytest.approx(float(before), rel=1e-3)
    half, _ = gray_world(encoded, 0.5)

    def cast_of(picture: torch.Tensor) -> float:
        means = srgb_to_linear(picture).mean(dim=(0, 2, 3))
        return float(torch.log(means[0] / means[2]))

    assert cast_of(half) == pytest.approx(cast_of(encoded) / 2, rel=0.01)
    assert torch.equal(gray_world(encoded, 0.0)[0], gray_world(encoded, 0.0)[0])


def test_gray_world_leaves_a_neutral_picture() -> None:
    torch.testing.assert_close(gray_world(ramp(0.1, 0.9), 1.0)[0], ramp(0.1, 0.9), atol=1e-5, rtol=0)


def test_clahe_gives_a_flat_picture_contrast_and_keeps_its_hue() -> None:
    picture = 0.4 + 0.1 * photos(1, side=32)
    result, _ = clahe(picture, 0.01)
    assert result.shape == picture.shape
    assert result.min() >= 0
    assert result.max() <= 1
    assert luma(result).std() > 2 * luma(picture).std()
    grey = luma(picture).expand(-1, 3, -1, -1)
    equalised, _ = clahe(grey, 0.01)
    assert (equalised.amax(dim=1) - equalised.amin(dim=1)).max() < 1e-6


@pytest.mark.parametrize("level", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("name", ["autocontrast", "auto levels", "gray-world"])
def test_a_plain_grey_comes_back_as_it_was(name: str, level: float) -> None:
    plain = flat(level, level, level)
    torch.testing.assert_close(classic_method(name, CLASSICS[name])(plain)[0], plain, atol=1e-5, rtol=0)


@pytest.mark.parametrize("level", [0.0, 0.4])
def test_clahe_leaves_a_picture_without_contrast(level: float) -> None:
    plain = flat(level, level, level)
    torch.testing.assert_close(clahe(plain, 0.01)[0], plain, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["autocontrast", "auto levels"])
def test_a_plain_colour_has_nothing_to_stretch(name: str) -> None:
    colour = flat(0.8, 0.3, 0.1)
    assert torch.equal(classic_method(name, 0.005)(colour)[0], colour)


@settings(deadline=None, max_examples=25)
@given(st.sampled_from(sorted(CLASSICS)), st.integers(8, 40), st.integers(8, 40), st.floats(0, 1), st.integers(0, 99))
def test_results_are_pictures_whatever_the_photo(name: str, height: int, width: int, spread: float, seed: int) -> None:
    pictures = noise(2, height, width, seed) * spread
    result, edits = classic_method(name, CLASSICS[name])(pictures)
    assert result.shape == pictures.shape
    assert torch.isfinite(result).all()
    assert result.min() >= 0
    assert result.max() <= 1
    assert edits.tolist() == [1, 1]


@pytest.mark.parametrize("share", [0.05, 0.2, 1.0])
@pytest.mark.parametrize(("height", "width"), [(96, 64), (53, 80), (40, 41)])
def test_clahe_is_that_of_the_reference_where_little_is_clipped(height: int, width: int, share: float) -> None:
    picture = scene(height, width, 3) * 0.6 + 0.1
    grey = luma(picture)
    equalised = equalize_adapthist(grey[0, 0].numpy().astype(np.float64), clip_limit=share)
    expected = (picture + torch.from_numpy(equalised).float() - grey).clamp(0, 1)
    result, _ = clahe(picture, share)
    assert (result - expected).abs().mean() < 0.015
    assert (expected - picture).abs().mean() > 0.05


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 60), min_size=16, max_size=16), st.floats(1, 40))
def test_clipping_loses_no_pixel_and_keeps_the_limit(counts: list[int], limit: float) -> None:
    histogram = torch.tensor([counts], dtype=torch.float32)
    clipped = _clip(histogram, limit)
    assert clipped.max() <= limit
    held = min(sum(counts), 16 * limit)
    assert float(clipped.sum()) == pytest.approx(held, rel=1e-3, abs=1e-3)
    # What rises, rises alike.
    raised = (clipped - histogram)[(clipped < limit - 1e-3) & (histogram <= limit)]
    assert not raised.numel() or float(raised.max() - raised.min()) < 1e-3


def test_a_lower_limit_changes_less() -> None:
    # Tiles of 400 pixels: one pixel in each of 256 bins is an even histogram, and only the final stretch is left.
    picture = scene(160, 160, 1) * 0.5 + 0.2
    stretched, _ = clahe(picture, 1e-6)
    distances = [float((clahe(picture, share)[0] - stretched).abs().mean()) for share in (0.02, 0.05, 0.3)]
    assert 0 < distances[0] < distances[1] < distances[2]
    grey, plain = luma(stretched), luma(picture)
    torch.testing.assert_close(grey, (plain - plain.min()) / (plain.max() - plain.min()), atol=0.04, rtol=0)


def test_photos_are_equalised_each_on_its_own() -> None:
    pictures = photos(3, side=40)
    together, _ = clahe(pictures, 0.02)
    for row in range(3):
        torch.testing.assert_close(clahe(pictures[row : row + 1], 0.02)[0][0], together[row])


def test_a_picture_of_one_pixel_survives() -> None:
    assert torch.equal(clahe(flat(0.3, 0.6, 0.2, size=1), 0.01)[0], flat(0.3, 0.6, 0.2, size=1))


def test_every_classic_has_a_grid_and_a_usual_setting() -> None:
    assert GRIDS.keys() == DEFAULTS.keys() == CLASSICS.keys()
