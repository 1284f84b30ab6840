"""Hacking: the gap counts what was not deserved, and adversaries find what a juror likes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.retoucher.learn.worlds import ACTIONS, PROPERTY, photos, untrained_juror
from vernissage.retoucher.domain.render import render
from vernissage.retoucher.domain.sliders import HIGHS, LOWS, SLIDER_COUNT, slider_index
from vernissage.retoucher.learn.hacking import climb, hack_gap, hacked_share, wander


class LikesLight:
    """Wants a mean of encoded values, and nothing else."""

    def __init__(self, wanted: float) -> None:
        self.wanted = wanted

    def cautious_logit(self, images: torch.Tensor) -> torch.Tensor:
        return -(images.mean(dim=(1, 2, 3)) - self.wanted).abs()

    def cautious_score(self, images: torch.Tensor) -> torch.Tensor:
        return 10 * (1 + self.cautious_logit(images))


class Indifferent:
    """Likes everything as well."""

    def cautious_logit(self, images: torch.Tensor) -> torch.Tensor:
        return 0 * images.mean(dim=(1, 2, 3))

    def cautious_score(self, images: torch.Tensor) -> torch.Tensor:
        return self.cautious_logit(images) + 5


def test_hack_gap_known_answers() -> None:
    gain = torch.tensor([2.0, 1.0, -1.0, 0.5])
    before, after = torch.tensor([5.0, 5.0, 5.0, 5.0]), torch.tensor([6.0, 4.0, 9.0, 5.0])
    # The first is a hack, the second deserved, the third lost points, the fourth gained for what changed nothing.
    assert hack_gap(gain, before, after) == pytest.approx((2 + 0.5) / 4)
    assert hacked_share(gain, before, after) == pytest.approx(1 / 4)


values = st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=8)


@PROPERTY
@given(values, st.integers(0, 99))
def test_properties_of_the_gap(gains: list[float], seed: int) -> None:
    gain = torch.tensor(gains)
    rng = np.random.default_rng(seed)
    before, after = (torch.from_numpy(rng.uniform(0, 30, len(gains))) for _ in range(2))
    gap = hack_gap(gain, before, after)
    assert 0 <= gap <= float(gain.clamp_min(0).mean()) + 1e-5
    assert hack_gap(gain, before, before - 1) == 0
    assert hack_gap(gain, before, before + 1) == pytest.approx(float(gain.clamp_min(0).mean()), abs=1e-5)
    assert hack_gap(gain + 1, before, after) >= gap
    order = torch.from_numpy(rng.permutation(len(gains)))
    assert hack_gap(gain[order], before[order], after[order]) == pytest.approx(gap, abs=1e-5)
    assert 0 <= hacked_share(gain, before, after) <= 1


def test_a_gap_of_nothing_is_refused() -> None:
    one = torch.zeros(1)
    with pytest.raises(ValueError, match="hack gap"):
        hack_gap(torch.zeros(0), torch.zeros(0), torch.zeros(0))
    with pytest.raises(ValueError, match="hack gap"):
        hack_gap(torch.zeros(2), one, one)


def test_a_climb_reaches_what_the_juror_wants() -> None:
    pictures = photos(5) * 0.8
    settings = climb(LikesLight(0.6), pictures, torch.zeros(5, SLIDER_COUNT), steps=40)
    reached = render(pictures, settings).mean(dim=(1, 2, 3))
    assert reached.tolist() == pytest.approx([0.6] * 5, abs=0.02)
    assert (settings[:, slider_index("exposure")] > 0).any()


def test_a_climb_stays_in_range_and_never_ends_below_its_start() -> None:
    pictures = photos(4)
    first = torch.zeros(4, SLIDER_COUNT)
    first[:, 0] = 0.9
    settings = climb(LikesLight(5.0), pictures, first, steps=25)
    assert (settings >= torch.tensor(LOWS)).all()
    assert (settings <= torch.tensor(HIGHS)).all()
    juror = untrained_juror(2)
    found = climb(juror, pictures, first, steps=25)
    rise = juror.cautious_logit(render(pictures, found)) - juror.cautious_logit(render(pictures, first))
    assert (rise > -1e-3).all()
    assert (rise > 0.01).any()


def test_a_climb_without_steps_or_slope_stays_where_it_is() -> None:
    first = torch.full((3, SLIDER_COUNT), 0.1)
    assert torch.equal(climb(untrained_juror(1), photos(3), first, steps=0), first)
    assert torch.equal(climb(Indifferent(), photos(3), first, steps=5), first)


def test_black_and_grey_pictures_have_a_slope_too() -> None:
    # Chroma has none where it is nought: without care one black pixel hides the slope of a whole picture.
    pictures = photos(2)
    pictures[:, :, :4] = 0.0
    first = torch.zeros(2, SLIDER_COUNT)
    assert (climb(untrained_juror(2), pictures, first, steps=2) != 0).any(dim=1).all()


def test_a_climb_does_not_train_the_juror() -> None:
    juror = untrained_juror(2)
    climb(juror, photos(2), torch.zeros(2, SLIDER_COUNT), steps=2)
    assert all(weight.grad is None for member in juror.members for weight in member.parameters())


def test_each_photo_is_attacked_as_if_it_were_alone() -> None:
    juror, pictures = untrained_juror(2), photos(70, side=16)
    first = torch.zeros(70, SLIDER_COUNT)
    together = climb(juror, pictures, first, steps=2)
    alone = climb(juror, pictures[66:67], first[:1], steps=2)
    torch.testing.assert_close(together[66:67], alone, atol=0.02, rtol=0)


def test_wandering_takes_only_edits_that_the_juror_likes() -> None:
    rng = np.random.default_rng(0)
    pictures = photos(6) * 0.7
    juror = LikesLight(0.6)
    settings = wander(juror, ACTIONS, pictures, rng, steps=4, tries=12)
    before, after = juror.cautious_score(pictures), juror.cautious_score(render(pictures, settings))
    assert (after >= before).all()
    assert (after > before + 0.2).all()
    assert not wander(Indifferent(), ACTIONS, pictures, rng, steps=2, tries=3).any()


def test_wandering_repeats_by_its_generator() -> None:
    one, two = (
        wander(untrained_juror(2), ACTIONS, photos(3), np.random.default_rng(4), steps=2, tries=4) for _ in range(2)
    )
    assert torch.equal(one, two)
