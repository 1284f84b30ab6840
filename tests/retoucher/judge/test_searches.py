"""Chance and search as methods: they belong to their generator, follow their juror, and keep their margin."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.retoucher.domain.procedural import flat
from tests.retoucher.learn.worlds import ACTIONS, VIEW, darkened, photos, untrained_juror
from vernissage.retoucher.domain.quality import psnr
from vernissage.retoucher.judge.searches import juror_search, oracle_search, random_edits
from vernissage.retoucher.learn.juror import RankJuror


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


@pytest.mark.parametrize("horizon", [1, 3])
@pytest.mark.parametrize("margin", [0.0, 0.02])
def test_a_search_never_lowers_the_score(margin: float, horizon: int) -> None:
    # Firmer in its arbitrary taste than an untrained network is.
    juror = RankJuror(untrained_juror().members, VIEW, [(40.0, 0.0)] * 2)
    pictures = photos(6)
    result, edits = juror_search(ACTIONS, juror, VIEW, horizon=horizon, margin=margin)(pictures)
    before, after = juror.score(pictures), juror.score(result)
    edited = edits > 0
    assert edited.any()
    assert torch.equal(result[~edited], pictures[~edited])
    assert edits.max() == horizon
    assert (after[edited] >= before[edited] + margin * edits[edited] - 1e-4).all()


def test_a_search_asks_for_its_margin() -> None:
    result, edits = juror_search(ACTIONS, untrained_juror(), VIEW, horizon=4, width=2, margin=20.0)(photos(3))
    assert torch.equal(result, photos(3))
    assert not edits.any()


def test_one_step_finds_the_one_edit_that_helps() -> None:
    class Brightness:
        """Likes a mean of one half."""

        def score(self, images: torch.Tensor) -> torch.Tensor:
            return 10 - 20 * (images.mean(dim=(1, 2, 3)) - 0.5).abs()

    result, edits = juror_search(ACTIONS, Brightness(), VIEW, horizon=1)(flat(0.2, 0.2, 0.2, size=VIEW))
    assert edits.tolist() == [1]
    assert result.mean() > 0.23


def test_what_is_found_on_thumbnails_is_done_to_the_photos() -> None:
    large = photos(2, side=3 * VIEW)
    result, edits = juror_search(
        ACTIONS, RankJuror(untrained_juror().members, VIEW, [(40.0, 0.0)] * 2), VIEW, horizon=2
    )(large)
    assert result.shape == large.shape
    assert edits.any()


def test_the_oracle_comes_nearer_than_anyone_and_counts_its_edits() -> None:
    starts = darkened(photos(4), stops=-1.0)
    result, edits = oracle_search(ACTIONS, 4)(starts.faulty, starts.reference)
    assert (psnr(result, starts.reference) > psnr(starts.faulty, starts.reference) + 10).all()
    assert ((edits >= 1) & (edits <= 4)).all()
    untouched, none = oracle_search(ACTIONS, 4)(starts.reference, starts.reference)
    assert torch.equal(untouched, starts.reference)
    assert not none.any()
