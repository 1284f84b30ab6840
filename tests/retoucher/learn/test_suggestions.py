"""Suggestions: in slider units, they do what the classic corrections do."""

from __future__ import annotations

import pytest
import torch

from tests.retoucher.domain.procedural import flat, noise
from tests.retoucher.learn.worlds import photos
from vernissage.retoucher.domain.colour import srgb_to_linear
from vernissage.retoucher.domain.render import render
from vernissage.retoucher.domain.sliders import SLIDER_COUNT, slider_index
from vernissage.retoucher.learn.suggestions import (
    BALANCE_COLUMNS,
    SETTINGS,
    SUGGESTIONS,
    TONE_COLUMNS,
    classic_suggestions,
    pixel_sample,
)

GRAY_WORLD = BALANCE_COLUMNS[-1]


def ramp(low: float, high: float) -> torch.Tensor:
    return torch.linspace(low, high, 256).expand(1, 3, 4, 256).clone()


def settings(**sliders: torch.Tensor | float) -> torch.Tensor:
    row = torch.zeros(1, SLIDER_COUNT)
    for name, value in sliders.items():
        row[0, slider_index(name)] = value
    return row


def test_a_ramp_from_black_to_white_needs_nothing() -> None:
    suggested = classic_suggestions(ramp(0, 1))
    assert suggested.shape == (1, SUGGESTIONS)
    exact = [*range(TONE_COLUMNS[0], TONE_COLUMNS[0] + 6), GRAY_WORLD, GRAY_WORLD + 1]
    torch.testing.assert_close(suggested[0, exact], torch.zeros(len(exact)), atol=1e-3, rtol=0)
    # Where two percent may clip at each end there is a little to stretch.
    assert float(suggested[0, :SETTINGS].abs().max()) < 0.06


@pytest.mark.parametrize(("low", "high"), [(0.2, 0.8), (0.1, 0.7), (0.3, 0.9), (0.0, 0.8), (0.05, 0.5)])
@pytest.mark.parametrize("column", [TONE_COLUMNS[0], TONE_COLUMNS[3]])
def test_exposure_and_contrast_stretch_a_flat_ramp_to_its_ends(low: float, high: float, column: int) -> None:
    exposure, contrast = classic_suggestions(ramp(low, high))[0, column : column + 2]
    result = render(ramp(low, high), settings(exposure=exposure, contrast=contrast))
    assert float(result.min()) == pytest.approx(0, abs=0.005)
    assert float(result.max()) == pytest.approx(1, abs=0.005)


def test_auto_levels_find_a_cast_that_happened_before_the_contrast_was_lost() -> None:
    cast = render(ramp(0, 0.8), settings(temperature=0.3, tint=0.2))
    warm, magenta = classic_suggestions(cast)[0, BALANCE_COLUMNS[0] : BALANCE_COLUMNS[0] + 2]
    assert float(warm) == pytest.approx(-0.3, abs=0.01)
    assert float(magenta) == pytest.approx(-0.2, abs=0.01)


def test_the_evidence_says_where_the_ends_lie_and_how_much_lies_there() -> None:
    picture = ramp(0.1, 0.7)
    picture[:, :, :, 200:] = 0.6
    low, gap, at_white, at_black = classic_suggestions(picture)[0, SETTINGS:-1].view(4, 4)
    torch.testing.assert_close(low, torch.full((4,), 0.1), atol=1e-4, rtol=0)
    torch.testing.assert_close(gap, torch.full((4,), 0.4), atol=1e-4, rtol=0)
    assert float(at_white.min()) > float(at_black.max())
    assert float(at_white.max()) < 0.5


def test_temperature_and_tint_undo_a_cast_in_light() -> None:
    cast = render(ramp(0.1, 0.7), settings(temperature=0.25, tint=-0.3))
    warm, magenta = classic_suggestions(cast)[0, GRAY_WORLD : GRAY_WORLD + 2]
    assert float(warm) == pytest.approx(-0.25, abs=0.01)
    assert float(magenta) == pytest.approx(0.3, abs=0.01)
    means = srgb_to_linear(render(cast, settings(temperature=warm, tint=magenta))).mean(dim=(0, 2, 3))
    assert float(means.max() / means.min()) < 1.02


def test_a_mirrored_photo_gets_the_same_and_a_row_does_not_depend_on_its_batch() -> None:
    pictures = photos(4)
    suggested = classic_suggestions(pictures)
    torch.testing.assert_close(classic_suggestions(pictures.flip(-1)), suggested)
    for row in range(4):
        torch.testing.assert_close(classic_suggestions(pictures[row : row + 1])[0], suggested[row])


@pytest.mark.parametrize("picture", [flat(0, 0, 0), flat(1, 1, 1), flat(1, 0, 0), noise(1, 1, 1), noise(1, 3, 40)])
def test_odd_pictures_get_finite_suggestions_within_the_declared_range(picture: torch.Tensor) -> None:
    suggested = classic_suggestions(picture)
    assert torch.isfinite(suggested).all()
    assert suggested.abs().max() <= 1.5


@pytest.mark.parametrize("size", [(40, 60), (16, 16), (5, 300)])
def test_a_pixel_sample_has_the_ends_of_the_photo_and_leaves_it_alone(size: tuple[int, int]) -> None:
    photo = 0.2 + 0.5 * noise(1, *size)
    photo[0, :, 3, 4], photo[0, :, 2, 1] = 0.01, 0.99
    before = photo.clone()
    sample = pixel_sample(photo, 16)
    assert sample.shape == (1, 3, 16, 16)
    assert torch.equal(photo, before)
    torch.testing.assert_close(sample.amin(dim=(2, 3)), photo.amin(dim=(2, 3)))
    torch.testing.assert_close(sample.amax(dim=(2, 3)), photo.amax(dim=(2, 3)))
    assert float(sample.mean()) == pytest.approx(float(photo.mean()), abs=0.06)
    known = {tuple(pixel) for pixel in photo.flatten(2)[0].T.tolist()}
    assert {tuple(pixel) for pixel in sample.flatten(2)[0].T.tolist()} <= known
