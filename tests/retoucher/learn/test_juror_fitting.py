"""Fitting: the loss knows order and scale, the pace rises and falls, and members learn what they are shown."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.retoucher.learn.worlds import PROPERTY, photos
from vernissage.core.progress import Progress
from vernissage.retoucher.learn.juror import RankNet, rank_features
from vernissage.retoucher.learn.juror_fitting import Lessons, Pace, contest_loss, fit_members, updates
from vernissage.retoucher.learn.ladders import CONTESTANTS, Contests, make_contests

SIDE = 16


def lessons(count: int, seed: int = 0) -> Lessons:
    return Lessons.of(make_contests(photos(count, side=SIDE, first=seed), np.random.default_rng(seed), taken_at=64))


def member(seed: int = 0) -> RankNet:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return RankNet()


def fitted(taught: Lessons, pace: Pace, extra: Lessons | None = None) -> tuple[RankNet, list[tuple[float, float]]]:
    network = member()
    with Progress("test", total=updates(taught, pace)) as progress:
        losses = fit_members([network], taught, pace, [7], progress, extra)[0]
        assert progress.done == updates(taught, pace)
    return network, losses


def test_contest_loss_known_answers() -> None:
    targets = torch.tensor([[8.0, 6.0, 4.0, 2.0]])
    ranking, scale = contest_loss(torch.zeros(1, 4), targets)
    assert float(ranking) == pytest.approx(np.log(2))
    assert float(scale) == pytest.approx((9 + 1 + 1 + 9) / 4)
    right, exact = contest_loss(torch.logit(targets / 10), targets)
    assert float(exact) == pytest.approx(0, abs=1e-8)
    wrong, _ = contest_loss(torch.logit(targets.flip(1) / 10), targets)
    assert float(right) < 0.05 < np.log(2) < 2 < float(wrong)
    tied, _ = contest_loss(torch.randn(2, 4), torch.tensor([[8.0, 8.0, 7.9, 8.0], [5.0, 5.0, 5.1, 5.0]]))
    assert float(tied) == 0


def test_a_contest_in_another_order_costs_the_same() -> None:
    logits, targets = torch.randn(3, 4), torch.rand(3, 4) * 10
    order = torch.tensor([2, 0, 3, 1])
    pairs = zip(contest_loss(logits, targets), contest_loss(logits[:, order], targets[:, order]), strict=True)
    for a, b in pairs:
        torch.testing.assert_close(a, b)


@PROPERTY
@given(st.floats(0, 1), st.floats(0.01, 0.9))
def test_the_rate_rises_to_its_peak_and_falls_to_almost_nothing(done: float, warm_up: float) -> None:
    pace = Pace(epochs=1, batch=1, lr=0.5, warm_up=warm_up)
    assert 0 < pace.rate(done) <= 0.5
    assert pace.rate(warm_up) == pytest.approx(0.5)
    assert pace.rate(1.0) == pytest.approx(0.005)
    earlier, later = sorted((done, (done + warm_up) / 2))
    if later <= warm_up:
        assert pace.rate(earlier) <= pace.rate(later) + 1e-12
    elif earlier >= warm_up:
        assert pace.rate(earlier) >= pace.rate(later) - 1e-12


def test_features_are_those_of_each_picture() -> None:
    taught = lessons(5)
    assert len(taught) == 5
    picture = taught.contests.pictures[3, 2][None].float() / 255
    torch.testing.assert_close(taught.features[3, 2], rank_features(picture)[0])
    both = taught.joined(lessons(2, seed=9))
    assert len(both) == 7
    assert torch.equal(both.features[:5], taught.features)
    assert torch.equal(both.contests.targets[:5], taught.contests.targets)


def test_updates_count_the_last_smaller_batch_too() -> None:
    assert updates(lessons(5), Pace(epochs=3, batch=2, lr=1.0, warm_up=0.3)) == 9


def test_a_member_learns_by_heart_what_it_is_shown_often() -> None:
    taught = lessons(6)
    network, losses = fitted(taught, Pace(epochs=40, batch=3, lr=3e-3, warm_up=0.3))
    assert len(losses) == 40
    assert losses[-1][0] < 0.5 * losses[0][0]
    assert losses[-1][1] < losses[0][1]
    assert not network.training
    with torch.no_grad():
        pictures = taught.contests.pictures.flatten(0, 1).float() / 255
        logits = network(pictures).view(-1, CONTESTANTS)
    gap = taught.contests.targets.unsqueeze(2) - taught.contests.targets.unsqueeze(1)
    right = (logits.unsqueeze(2) > logits.unsqueeze(1))[gap > 0.5]
    assert right.float().mean() > 0.9


def test_a_fit_repeats_and_its_seed_matters() -> None:
    taught, pace = lessons(4), Pace(epochs=2, batch=2, lr=1e-3, warm_up=0.3)
    pictures = photos(3, side=SIDE)
    with torch.no_grad():
        one, two = (fitted(taught, pace)[0](pictures) for _ in range(2))
        assert torch.equal(one, two)
        members = [member(), member()]
        fit_members(members, taught, pace, [7, 8], Progress("test"))
        assert torch.equal(members[0](pictures), one)
        assert not torch.equal(members[1](pictures), one)


def test_what_is_taught_alongside_is_learned_too() -> None:
    taught, pace = lessons(4), Pace(epochs=60, batch=2, lr=3e-3, warm_up=0.3)
    # Alongside: one picture that is worth nothing, whatever the lessons would say of it.
    picture = photos(1, side=SIDE, first=50)
    shown = torch.stack((picture, picture.flip(-2)), dim=1)
    worthless = Lessons.of(Contests((shown * 255).round().to(torch.uint8), torch.tensor([[0.5, 0.5]])))
    with torch.no_grad():
        without = fitted(taught, pace)[0](picture)
        told = fitted(taught, pace, worthless)[0](picture)
    assert float(told) < float(without) - 0.5
