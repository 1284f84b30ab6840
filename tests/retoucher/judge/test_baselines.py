"""The alternatives to the agent: textbook answers, and nothing odd on odd photos."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.retoucher.domain.procedural import flat, noise
from tests.retoucher.judge.made_pairs import write_pairs
from tests.retoucher.learn.worlds import ACTIONS, VIEW, darkened, photos, policy_spec, untrained_juror
from vernissage.retoucher.domain.colour import luma, srgb_to_linear
from vernissage.retoucher.domain.quality import psnr
from vernissage.retoucher.judge.baselines import (
    all_baselines,
    auto_levels,
    autocontrast,
    clahe,
    classic_method,
    gray_world,
    greedy_juror_search,
    no_edit,
    random_edits,
    tuned_classics,
)
from vernissage.retoucher.learn.juror import RankJuror

if TYPE_CHECKING:
    from pathlib import Path

CLASSICS = {"autocontrast": 0.005, "auto levels": 0.005, "gray-world": 1.0, "CLAHE": 0.01}


def ramp(low: float, high: float, steps: int = 256) -> torch.Tensor:
    """(1, 3, 8, steps) grey values from low to high."""
    return torch.linspace(low, high, steps).expand(1, 3, 8, steps).clone()


def test_no_edit_leaves_photos_alone() -> None:
    result, edits = no_edit(photos(3))
    assert torch.equal(result, photos(3))
    assert edits.tolist() == [0, 0, 0]


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


def test_random_edits_belong_to_their_generator() -> None:
    pictures = photos(6)
    result, edits = random_edits(ACTIONS, 4, np.random.default_rng(1))(pictures)
    again, edits_again = random_edits(ACTIONS, 4, np.random.default_rng(1))(pictures)
    other, _ = random_edits(ACTIONS, 4, np.random.default_rng(2))(pictures)
    assert torch.equal(result, again)
    assert torch.equal(edits, edits_again)
    assert not torch.equal(result, other)
    assert ((edits >= 1) & (edits <= 4)).all()
    assert result.min() >= 0
    assert result.max() <= 1


@pytest.mark.parametrize("margin", [0.0, 0.02])
def test_greedy_search_never_lowers_the_score(margin: float) -> None:
    # Firmer in its arbitrary taste than an untrained network is.
    juror = RankJuror(untrained_juror().members, VIEW, [(40.0, 0.0)] * 2)
    pictures = photos(6)
    result, edits = greedy_juror_search(ACTIONS, juror, VIEW, margin)(pictures)
    before, after = juror.score(pictures), juror.score(result)
    edited = edits > 0
    assert edited.any()
    assert torch.equal(result[~edited], pictures[~edited])
    assert (after[edited] >= before[edited] + margin - 1e-4).all()


def test_greedy_search_asks_for_its_margin() -> None:
    result, edits = greedy_juror_search(ACTIONS, untrained_juror(), VIEW, margin=20.0)(photos(3))
    assert torch.equal(result, photos(3))
    assert not edits.any()


def test_greedy_search_finds_the_one_edit_that_helps() -> None:
    class Brightness:
        """Likes a mean of one half."""

        def score(self, images: torch.Tensor) -> torch.Tensor:
            return 10 - 20 * (images.mean(dim=(1, 2, 3)) - 0.5).abs()

    result, edits = greedy_juror_search(ACTIONS, Brightness(), VIEW)(flat(0.2, 0.2, 0.2, size=VIEW))
    assert edits.tolist() == [1]
    assert result.mean() > 0.23


def test_classic_settings_are_those_that_suit_the_validation_pairs(tmp_path: Path) -> None:
    starts = darkened(photos(4), stops=-1.0)
    pairs = write_pairs(tmp_path, starts.faulty, starts.reference, faults=[1, 1, 1, 0])
    tuned = tuned_classics(pairs)
    assert {baseline.name: baseline.classic for baseline in tuned.baselines} == dict.fromkeys(CLASSICS, True)
    assert tuned.chosen.keys() == CLASSICS.keys()
    for name in ("autocontrast", "gray-world"):
        scores = {
            setting: float(psnr(classic_method(name, setting)(starts.faulty[:3])[0], starts.reference[:3]).mean())
            for setting in (tuned.chosen[name], CLASSICS[name])
        }
        assert scores[tuned.chosen[name]] >= scores[CLASSICS[name]]
    baselines = all_baselines(policy_spec(), untrained_juror(), tuned, np.random.default_rng(0))
    names = [baseline.name for baseline in baselines]
    assert names[0] == "no edit"
    assert len(set(names)) == len(names)
    assert {baseline.name for baseline in baselines if baseline.classic} == set(CLASSICS)
    for baseline in baselines:
        result, edits = baseline.run(starts.faulty)
        assert result.shape == starts.faulty.shape
        assert edits.shape == (4,)
