from __future__ import annotations

import math
from collections import deque
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vernissage.sculptor.domain.anatomy import bounding_box, judge_anatomy
from vernissage.sculptor.domain.roles import LEAVES, MASK, OUTSIDE, ROLES, WOODS, Role

TREES = Path(__file__).parents[4] / "shared" / "data" / "trees"
GRIDS = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=3, max_dims=3, max_side=5), elements=st.integers(0, MASK))

Places = set[tuple[int, ...]]


def grid(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.uint8)


def small_oak() -> np.ndarray:
    roles = grid(7, 7, 7)
    roles[3:5, 1:6, 1:6] = Role.LEAF
    roles[5:7, 2:5, 2:5] = Role.LEAF_2
    roles[:6, 3, 3] = Role.WOOD
    return roles


def places(mask: np.ndarray) -> Places:
    return {tuple(place) for place in np.argwhere(mask).tolist()}


def parts_of(left: Places, reach: int) -> list[Places]:
    """Flood fill by hand: `reach` is the largest number of coordinates in which two neighbours differ."""
    steps = [step for step in product((-1, 0, 1), repeat=3) if 0 < sum(map(abs, step)) <= reach]
    left, found = set(left), []
    while left:
        part, front = set(), [left.pop()]
        while front:
            here = front.pop()
            part.add(here)
            beside = {tuple(a + b for a, b in zip(here, step, strict=True)) for step in steps} & left
            left -= beside
            front.extend(beside)
        found.append(part)
    return found


def test_a_small_oak_is_whole() -> None:
    oak = judge_anatomy(small_oak())
    assert oak.connectivity == oak.connectivity6 == oak.leaf_survival == oak.crown_above == oak.verticality == 1
    assert (oak.parts, oak.voxels, oak.wood, oak.leaves, oak.height) == (1, 71, 6, 65, 7)
    assert oak.whole
    assert oak.cast_success
    assert oak.one_trunk


def test_a_floating_crown_is_what_does_not_stand() -> None:
    roles = small_oak()
    roles[2] = Role.AIR
    broken = judge_anatomy(roles)
    assert broken.parts == 2
    assert not broken.whole
    assert not broken.cast_success
    assert broken.connectivity == 2 / 70


def test_edges_and_corners_hold_together_but_are_no_faces() -> None:
    roles = grid(4, 4, 4)
    roles[range(4), range(4), range(4)] = Role.WOOD
    leaning = judge_anatomy(roles)
    assert (leaning.connectivity, leaning.connectivity6) == (1, 0.25)
    assert leaning.cast_success


def test_verticality_is_known_for_a_lean() -> None:
    roles = grid(8, 8, 8)
    for y in range(8):
        roles[y, 0, y] = Role.WOOD
    # The lower half moves by 3, the base has one voxel: 1 - min(1, 3 / 2).
    assert judge_anatomy(roles).verticality == 0
    roles = grid(8, 3, 8)
    roles[:3, 1, 1] = roles[3:, 1, 2] = Role.WOOD
    assert judge_anatomy(roles).verticality == 0.5


def test_two_feet_are_not_one_trunk() -> None:
    roles = small_oak()
    roles[:3, 3, 5] = Role.WOOD
    assert not judge_anatomy(roles).one_trunk
    roles[0, 3, 4] = Role.WOOD
    assert judge_anatomy(roles).one_trunk


def test_leaves_live_six_steps_from_wood() -> None:
    roles = grid(1, 1, 10)
    roles[0, 0, 0] = Role.WOOD
    roles[0, 0, 1:] = Role.LEAF
    assert judge_anatomy(roles).leaf_survival == 6 / 9


def test_a_crown_below_its_wood_is_not_above() -> None:
    roles = grid(4, 1, 1)
    roles[:, 0, 0] = [Role.WOOD, Role.LEAF, Role.WOOD, Role.WOOD]
    judged = judge_anatomy(roles)
    assert judged.crown_above == 0
    assert judged.crown_lift == pytest.approx((1 - 5 / 3) / 4)


def test_measures_that_make_no_sense_are_nan() -> None:
    bare = grid(3, 1, 1) + np.uint8(Role.WOOD)
    assert math.isnan(judge_anatomy(bare).leaf_survival)
    assert math.isnan(judge_anatomy(bare).crown_above)
    green = judge_anatomy(grid(3, 1, 1) + np.uint8(Role.LEAF))
    assert math.isnan(green.verticality)
    assert math.isnan(green.crown_above)
    assert green.leaf_survival == 0
    assert not green.cast_success
    assert not green.one_trunk


@pytest.mark.parametrize("roles", [grid(0, 0, 0), grid(1, 1, 1), grid(5, 9, 7), np.full((2, 2, 2), MASK, np.uint8)])
def test_nothing_is_not_connected(roles: np.ndarray) -> None:
    nothing = judge_anatomy(roles)
    assert (nothing.connectivity, nothing.connectivity6, nothing.parts, nothing.voxels) == (0, 0, 0, 0)
    assert not nothing.whole


def test_room_around_a_structure_makes_no_difference() -> None:
    roles = np.pad(small_oak(), ((3, 2), (1, 4), (0, 5)), constant_values=OUTSIDE)
    assert judge_anatomy(roles) == judge_anatomy(small_oak())


@given(GRIDS)
def test_parts_are_those_of_a_flood_fill(roles: np.ndarray) -> None:
    solid = (roles != Role.AIR) & (roles < ROLES)
    judged = judge_anatomy(roles)
    if not solid.any():
        assert judged.connectivity == 0
        return
    base = int(np.argwhere(solid)[:, 0].min())
    for reach, measured in ((3, judged.connectivity), (1, judged.connectivity6)):
        standing = [part for part in parts_of(places(solid), reach) if any(place[0] == base for place in part)]
        assert measured == max(map(len, standing)) / solid.sum()
    assert judged.parts == len(parts_of(places(solid), 3))
    wood_parts = parts_of(places(np.isin(roles, WOODS)), 3)
    assert judged.cast_success == (len(wood_parts) == 1 and any(place[0] == base for place in wood_parts[0]))


@given(GRIDS)
def test_leaves_that_live_are_those_of_a_breadth_first_search(roles: np.ndarray) -> None:
    leaves = places(np.isin(roles, LEAVES))
    distance = dict.fromkeys(places(np.isin(roles, WOODS)), 0)
    queue = deque(distance)
    while queue:
        y, z, x = here = queue.popleft()
        for near in ((y + 1, z, x), (y - 1, z, x), (y, z + 1, x), (y, z - 1, x), (y, z, x + 1), (y, z, x - 1)):
            if near in leaves and near not in distance and distance[here] < 6:
                distance[near] = distance[here] + 1
                queue.append(near)
    judged = judge_anatomy(roles)
    assert judged.leaves == len(leaves)
    if leaves:
        assert judged.leaf_survival == len(leaves & distance.keys()) / len(leaves)


@settings(deadline=None)
@given(GRIDS, st.integers(0, 3), st.booleans())
def test_turning_and_mirroring_make_no_difference(roles: np.ndarray, turns: int, mirrored: bool) -> None:
    turned = np.rot90(roles, turns, (1, 2))
    turned = turned[:, :, ::-1] if mirrored else turned
    assert vars(judge_anatomy(turned)) == pytest.approx(vars(judge_anatomy(roles)), nan_ok=True)


def test_a_bounding_box_holds_all_and_no_more() -> None:
    mask = np.zeros((4, 5, 6), bool)
    assert mask[bounding_box(mask)].size == 0
    mask[1, 2, 3] = mask[2, 2, 5] = True
    assert bounding_box(mask) == (slice(1, 3), slice(2, 3), slice(3, 6))


def test_real_trees_are_whole_and_scrambled_ones_are_dust() -> None:
    if not TREES.is_dir():
        pytest.skip("the shared trees are not on this machine")
    from vernissage.sculptor.domain.blocks import structure_to_roles
    from vernissage.sculptor.domain.formats import read_structure

    files = sorted(TREES.rglob("*.nbt"))[::3] + sorted(TREES.rglob("*.iob"))[::20]
    rng = np.random.default_rng(20)
    real, scrambled = [], []
    for file in files:
        roles = structure_to_roles(read_structure(file)).grid
        real.append(judge_anatomy(roles))
        canvas = np.zeros(np.maximum(roles.shape, (64, 24, 24)), np.uint8)
        canvas[: roles.shape[0], : roles.shape[1], : roles.shape[2]] = roles
        scrambled.append(judge_anatomy(rng.permutation(canvas.ravel()).reshape(canvas.shape)))
    assert len(real) > 60
    assert min(tree.connectivity for tree in real) == 1
    assert np.nanmean([tree.leaf_survival for tree in real]) > 0.99
    assert np.nanmean([tree.crown_above for tree in real]) > 0.9
    assert np.mean([tree.connectivity for tree in scrambled]) < 0.05
