"""Guides made from plans: they turn with the plan, and mark the parts that it speaks of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from vernissage.sculptor.domain.plan import INDEX, MOST, SYMMETRIES, Plan, measure_plan, turned_grid
from vernissage.sculptor.domain.roles import Role
from vernissage.sculptor.learn.guide import PLAN_CHANNELS, plan_guide

if TYPE_CHECKING:
    from vernissage.sculptor.domain.dataset import Dataset


def guide(plan: Plan, shape: tuple[int, int, int] | None = None) -> torch.Tensor:
    """(channels, Y, Z, X), by default of the plan's own box."""
    values, path = torch.from_numpy(plan.values), torch.from_numpy(plan.path)
    return plan_guide(values[None], path[None], shape or plan.shape)[0]


def axis_offsets(plan: Plan) -> np.ndarray:
    """(Y, Z, X) distance from the trunk's axis."""
    height, depth, width = plan.shape
    _, z, x = np.indices((height, depth, width))
    return np.hypot(z - plan.path[:, 0, None, None] / 2, x - plan.path[:, 1, None, None] / 2)


def test_every_voxel_is_told_finite_numbers_of_one_size(trees: Dataset) -> None:
    for roles in trees.grids:
        told = guide(measure_plan(roles))
        assert told.shape == (PLAN_CHANNELS, *roles.shape)
        assert torch.isfinite(told).all()
        assert told.abs().max() <= 2
    # No channel is silent, none says what another says already.
    flat = torch.cat([guide(measure_plan(roles)).flatten(1) for roles in trees.grids], 1)
    assert (flat.std(1) > 0).all()
    alike = torch.corrcoef(flat).abs().fill_diagonal_(0)
    assert alike.max() < 0.9999


@pytest.mark.parametrize("symmetry", range(1, SYMMETRIES))
def test_the_guide_of_a_turned_plan_is_the_turned_guide(symmetry: int, trees: Dataset) -> None:
    """Every channel becomes itself or another one, its sign may change; but for the axis itself, which has no side."""
    for roles in trees.grids[::4]:
        plan = measure_plan(roles)
        off_axis = turned_grid(axis_offsets(plan), symmetry) > 0.1
        before = np.stack([turned_grid(channel, symmetry) for channel in guide(plan).numpy()])[:, off_axis]
        after = guide(plan.turned(symmetry)).numpy()[:, off_axis]
        for number, channel in enumerate(after):
            apart = np.minimum(np.abs(before - channel).max(1), np.abs(before + channel).max(1))
            assert apart.min() < 1e-4, number


def test_what_lies_beyond_the_box_changes_nothing_in_it(trees: Dataset) -> None:
    for roles in trees.grids[:6]:
        plan = measure_plan(roles)
        box = (slice(None), *(slice(side) for side in plan.shape))
        path = np.concatenate([plan.path, np.repeat(plan.path[-1:], MOST.height - len(plan.path), 0)])
        larger = guide(Plan(plan.values, path), (64, 24, 24))
        assert torch.equal(larger[box], guide(plan))


CHANGES = {"run": -2, "crown_base": 1, "radius_1": 1, "trunk": 3, "limb_3": 1, "limb_height_3": 1, "reach_5": 1}


@pytest.mark.parametrize("name", CHANGES)
def test_all_that_a_plan_says_of_trunk_crown_and_limbs_is_told(name: str) -> None:
    """Another value, another guide: what the network is not told it could not follow."""
    roles = np.zeros((12, 9, 9), np.uint8)
    roles[6:, 1:8, 1:8] = Role.LEAF
    roles[:9, 4, 4] = Role.WOOD
    roles[4, 5, 3] = roles[5, 6, 2] = Role.WOOD
    plan = measure_plan(roles)
    values = plan.values.copy()
    values[INDEX[name]] += CHANGES[name]
    assert not torch.equal(guide(Plan(values, plan.path)), guide(plan))


@pytest.mark.parametrize("side", [1, 2, 3, 4])
def test_some_channel_says_exactly_where_the_trunk_is(side: int) -> None:
    roles = np.zeros((9, 8, 8), np.uint8)
    roles[6:] = Role.LEAF
    roles[:7, 2 : 2 + side, 3 : 3 + side] = Role.WOOD
    told = guide(measure_plan(roles)).numpy()
    assert any(np.array_equal(channel > 0, roles == Role.WOOD) for channel in told)


def test_a_tree_without_leaves_is_told_of_no_crown() -> None:
    roles = np.zeros((8, 5, 5), np.uint8)
    roles[:, 2, 2] = Role.WOOD
    bare = guide(measure_plan(roles))
    roles[6:, 1:4, 1:4] = Role.LEAF
    roles[:, 2, 2] = Role.WOOD
    leafy = guide(measure_plan(roles))
    of_crown = (bare != leafy).flatten(1).any(1)
    assert of_crown.any()
    assert (bare[of_crown] == 0).all()
