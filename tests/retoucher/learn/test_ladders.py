"""Ladders and contests: every version is rated by how far it is from its photo, and over-editing is among them."""

from __future__ import annotations

import numpy as np
import torch

from tests.retoucher.learn.worlds import photos
from vernissage.retoucher.domain.faults import AppliedFault, apply_faults
from vernissage.retoucher.domain.quality import delta_e
from vernissage.retoucher.domain.render import render
from vernissage.retoucher.domain.sliders import HIGHS, LOWS, SLIDER_COUNT
from vernissage.retoucher.learn.juror import ORIGINAL_SCORE, anchored_score
from vernissage.retoucher.learn.ladders import (
    AXES,
    CONTESTANTS,
    RUNGS,
    make_contests,
    make_ladders,
    random_recipes,
    rated_versions,
    render_in_parts,
    undoing,
)

SIDE = 32


def test_ladders_begin_with_the_photo_and_get_worse_rung_by_rung() -> None:
    pictures = photos(len(AXES), side=SIDE)
    ladders = make_ladders(pictures, np.arange(len(AXES)), np.random.default_rng(0), taken_at=64)
    assert ladders.pictures.shape == (len(AXES), RUNGS, 3, SIDE, SIDE)
    torch.testing.assert_close(ladders.pictures[:, 0].float() / 255, pictures, atol=1e-5, rtol=0)
    assert (ladders.targets[:, 0] == ORIGINAL_SCORE).all()
    assert not ladders.difference[:, 0].any()
    assert ladders.axis.tolist() == list(range(len(AXES)))
    for index, axis in enumerate(AXES):
        assert (ladders.targets[index].diff() <= 0).all(), axis.name
        assert (ladders.difference[index].diff() > 0).all(), axis.name
        assert ladders.targets[index, -1] < 6.5, axis.name
    assert (ladders.targets >= 0.2).all()


def test_over_editing_is_among_the_ways_of_getting_worse() -> None:
    names = {axis.name for axis in AXES if axis.over_edit}
    assert {"over-saturated", "crushed", "haloed", "plastic", "posterised"} <= names
    assert len({axis.name for axis in AXES}) == len(AXES)


def test_a_grey_photo_loses_nothing_by_becoming_pale() -> None:
    pale = next(index for index, axis in enumerate(AXES) if axis.name == "pale")
    grey = photos(1, side=SIDE).mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
    ladders = make_ladders(grey, np.array([pale]), np.random.default_rng(0), taken_at=64)
    assert (ladders.targets == ORIGINAL_SCORE).all()


def test_a_stride_measures_the_same_differences_roughly() -> None:
    pictures = photos(len(AXES), side=SIDE)
    whole, thin = (
        make_ladders(pictures, np.arange(len(AXES)), np.random.default_rng(0), taken_at=64, stride=stride)
        for stride in (1, 2)
    )
    assert torch.equal(whole.pictures, thin.pictures)
    torch.testing.assert_close(thin.difference, whole.difference, rtol=0.15, atol=0.3)


def test_contests_begin_with_a_ladder_and_go_on_with_what_an_agent_meets() -> None:
    pictures = photos(2 * len(AXES), side=SIDE)
    contests = make_contests(pictures, np.random.default_rng(3), taken_at=64)
    assert contests.pictures.shape == (2 * len(AXES), CONTESTANTS, 3, SIDE, SIDE)
    assert torch.equal(contests.pictures[:, 0], (pictures * 255).round().to(torch.uint8))
    assert (contests.targets[:, 0] == ORIGINAL_SCORE).all()
    assert ((contests.targets > 0) & (contests.targets <= ORIGINAL_SCORE)).all()
    faulty, good, partial, poor = contests.targets[:, RUNGS : RUNGS + 4].mean(dim=0).tolist()
    # What was repaired on purpose is better than the fault, and the better the more of it was done.
    assert good > partial > faulty
    assert good > poor
    # Yet some repairs went wrong, or nothing would be learned from them.
    assert (contests.targets[:, RUNGS + 1 : RUNGS + 4] < contests.targets[:, RUNGS : RUNGS + 1]).any()


def test_contests_repeat_by_their_generator() -> None:
    one, two, other = (
        make_contests(photos(4, side=16), np.random.default_rng(seed), taken_at=64) for seed in (1, 1, 2)
    )
    assert torch.equal(one.pictures, two.pictures)
    assert torch.equal(one.targets, two.targets)
    assert not torch.equal(one.pictures, other.pictures)
    both = one.joined(other)
    assert torch.equal(both.targets, torch.cat((one.targets, other.targets)))
    assert torch.equal(both.pictures[4:], other.pictures)


def test_versions_are_rated_by_their_distance() -> None:
    originals = photos(3, side=SIDE)
    darker = render(originals, torch.eye(SLIDER_COUNT)[:1].expand(3, -1) * -0.3)
    rated = rated_versions(originals, [originals, darker])
    assert rated.targets[:, 0].tolist() == [ORIGINAL_SCORE] * 3
    thin = anchored_score(delta_e(darker[..., ::2, ::2], originals[..., ::2, ::2]))
    torch.testing.assert_close(rated.targets[:, 1], thin)
    assert torch.equal(rated.pictures[:, 1], (darker * 255).round().to(torch.uint8))


def test_undoing_a_fault_brings_the_photo_nearer() -> None:
    originals = photos(6, side=SIDE).clamp(0.15, 0.75)
    for fault in (
        AppliedFault("exposure", -0.8), AppliedFault("exposure", 0.4), AppliedFault("temperature", 0.5),
        AppliedFault("temperature", -0.4), AppliedFault("tint", 0.3), AppliedFault("tint", -0.3),
        AppliedFault("contrast", 0.6), AppliedFault("saturation", 0.4), AppliedFault("saturation", 1.4),
        AppliedFault("gamma", 1.5),
    ):  # fmt: skip
        row = [(fault,)] * len(originals)
        faulty = apply_faults(originals, row, [np.random.default_rng(0)] * len(originals))
        before, after = (delta_e(a, originals) for a in (faulty, render(faulty, undoing(row))))
        assert (after < 0.6 * before).all(), fault
    assert not undoing([()]).any()


def test_recipes_stay_in_range_and_leave_most_sliders_alone() -> None:
    recipes = random_recipes(400, np.random.default_rng(0), 0.5)
    assert recipes.shape == (400, SLIDER_COUNT)
    assert (recipes >= torch.tensor(LOWS)).all()
    assert (recipes <= torch.tensor(HIGHS)).all()
    moved = (recipes != 0).float().mean(dim=0)
    assert ((moved > 0.05) & (moved < 0.45)).all()
    assert not random_recipes(5, np.random.default_rng(0), 0.0).any()


def test_rendering_in_parts_is_rendering_in_eight_bits() -> None:
    pictures, recipes = photos(70, side=8), random_recipes(70, np.random.default_rng(1), 0.3)
    expected = torch.round(render(pictures, recipes) * 255) / 255
    # A value half-way between two levels may fall either way.
    assert (render_in_parts(pictures, recipes) - expected).abs().max() <= 1 / 255 + 1e-6
