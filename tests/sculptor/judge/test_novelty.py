from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import mannwhitneyu

from vernissage.sculptor.domain.plan import turned_grid
from vernissage.sculptor.domain.roles import MASK, OUTSIDE, ROLES, Role
from vernissage.sculptor.domain.sizes import SIZES
from vernissage.sculptor.judge.novelty import (
    REACH,
    Nearest,
    NearestIndex,
    copied_share,
    mann_whitney_z,
    stand,
)
from vernissage.sculptor.prepare.grower import grow_any

GRIDS = hnp.arrays(
    np.uint8,
    hnp.array_shapes(min_dims=3, max_dims=3, max_side=6),
    elements=st.sampled_from([0, 0, 0, int(Role.WOOD), int(Role.LEAF), MASK]),
)


def tree() -> np.ndarray:
    """A trunk with a crown that no turn and no mirror maps onto itself."""
    roles = np.zeros((6, 5, 5), np.uint8)
    roles[:4, 2, 2] = Role.WOOD
    roles[3:, 1:4, 1:5] = Role.LEAF
    roles[5, 1, 1] = Role.AIR
    roles[4, 3, 0] = Role.LEAF
    return roles


def voxels_of(grid: np.ndarray) -> dict[tuple[int, int, int], int]:
    """Places from the middle of the base and the lowest layer, and their roles."""
    places = [tuple(map(int, place)) for place in np.argwhere((grid > 0) & (grid < ROLES))]
    if not places:
        return {}
    y0 = min(y for y, _, _ in places)
    base = [(z, x) for y, z, x in places if y == y0]
    middle = [math.floor(sum(place[axis] for place in base) / len(base) + 0.5) for axis in (0, 1)]
    return {(y - y0, z - middle[0], x - middle[1]): int(grid[y, z, x]) for y, z, x in places}


def nearest_by_hand(grid: np.ndarray, others: list[np.ndarray]) -> tuple[float, int, float]:
    """The largest IoU, the first structure that has it, and the most voxels of equal role in such a position."""
    best = (0.0, 0, 0.0)
    for index, other in enumerate(others):
        theirs = voxels_of(other)
        for symmetry, dz, dx in product(range(8), range(-REACH, REACH + 1), range(-REACH, REACH + 1)):
            mine = {(y, z + dz, x + dx): role for (y, z, x), role in voxels_of(turned_grid(grid, symmetry)).items()}
            either = len(mine.keys() | theirs.keys())
            if not mine or not either:
                continue
            iou = len(mine.keys() & theirs.keys()) / either
            same = len(mine.items() & theirs.items()) / either
            best = max(best, (iou, -index, same))
    return best[0], -best[1], best[2]


@given(GRIDS, st.lists(GRIDS, min_size=1, max_size=4))
@hypothesis_settings(max_examples=40)
def test_the_search_finds_what_trying_everything_finds(grid: np.ndarray, others: list[np.ndarray]) -> None:
    found = NearestIndex(others).nearest(grid)
    assert (found.iou, found.index, found.same_cells) == nearest_by_hand(grid, others)


def test_the_search_finds_what_trying_everything_finds_among_grown_trees() -> None:
    rng = np.random.default_rng(0)
    trees = [grow_any(SIZES["normal"], rng)[1] for _ in range(75)]
    index = NearestIndex(trees[:70])
    pool = [voxels_of(each) for each in trees[:70]]
    for query in trees[70:]:
        found = index.nearest(query)
        ious = []
        for symmetry, dz, dx in product(range(8), range(-REACH, REACH + 1), range(-REACH, REACH + 1)):
            mine = {(y, z + dz, x + dx) for y, z, x in voxels_of(turned_grid(query, symmetry))}
            ious.append([len(mine & theirs.keys()) / len(mine | theirs.keys()) for theirs in pool])
        assert found.iou == np.max(ious)
        assert found.index == np.max(ious, axis=0).argmax()


def test_the_first_of_equally_near_ones_is_found_though_others_look_more_promising() -> None:
    pole = np.ones((3, 1, 1), np.uint8)
    # Both share one voxel of five with the pole; the layers of the second would let it share all.
    plain, promising = np.zeros((4, 1, 2), np.uint8), np.zeros((3, 1, 19), np.uint8)
    plain[0, 0, 0] = plain[3, 0, 0] = plain[3, 0, 1] = Role.WOOD
    promising[0, 0, 9] = promising[1, 0, 18] = promising[2, 0, 0] = Role.WOOD
    found = NearestIndex([plain] + [promising] * 100).nearest(pole)
    assert (found.iou, found.index) == (0.2, 0)
    assert NearestIndex([promising] * 100 + [plain]).nearest(pole).index == 0


@given(GRIDS, st.lists(GRIDS, min_size=1, max_size=3))
@hypothesis_settings(max_examples=30)
def test_the_position_that_is_told_has_the_iou_that_is_told(grid: np.ndarray, others: list[np.ndarray]) -> None:
    found = NearestIndex(others).nearest(grid)
    dz, dx = found.shift
    assert max(abs(dz), abs(dx)) <= REACH
    mine = {(y, z + dz, x + dx) for y, z, x in voxels_of(turned_grid(grid, found.symmetry))}
    theirs = voxels_of(others[found.index]).keys()
    assert found.iou == (len(mine & theirs) / len(mine | theirs) if mine else 0)


@pytest.mark.parametrize("symmetry", range(8))
def test_a_turned_copy_with_room_around_it_is_found(symmetry: int) -> None:
    rng = np.random.default_rng(1)
    trees = [grow_any(SIZES["normal"], rng)[1] for _ in range(30)]
    copy = np.pad(turned_grid(trees[17], symmetry), ((3, 0), (1, 4), (2, 2)))
    found = NearestIndex(trees).nearest(copy)
    assert (found.iou, found.index, found.same_cells) == (1, 17, 1)


@pytest.mark.parametrize("moved", [(2, 0), (0, -2), (-1, 2)])
def test_a_structure_whose_base_is_off_by_two_voxels_is_the_same(moved: tuple[int, int]) -> None:
    ground, other = np.zeros((7, 13, 13), np.uint8), np.zeros((7, 13, 13), np.uint8)
    ground[1:, 4:9, 4:9] = other[1:, 4:9, 4:9] = tree()
    ground[0, 6, 6] = other[0, 6 + moved[0], 6 + moved[1]] = Role.GROUND
    found = NearestIndex([ground]).nearest(other)
    blocks = int((tree() > 0).sum())
    assert found.iou == blocks / (blocks + 2)


def test_only_the_share_of_equal_roles_tells_wood_from_leaves() -> None:
    changed = tree()
    changed[:3, 2, 2] = Role.LEAF
    found = NearestIndex([changed]).nearest(tree())
    blocks = int((tree() > 0).sum())
    assert found.iou == 1
    assert found.same_cells == (blocks - 3) / blocks


def test_of_equally_good_positions_the_one_with_most_equal_roles_is_taken() -> None:
    square = np.full((1, 2, 2), Role.LEAF, np.uint8)
    square[0, 0, 0] = Role.WOOD
    assert NearestIndex([square]).nearest(square[:, ::-1, ::-1]).same_cells == 1


def test_an_empty_grid_is_near_nothing() -> None:
    empty = np.zeros((4, 4, 4), np.uint8)
    assert NearestIndex([empty, tree()]).nearest(empty) == Nearest(0.0, 0, 0, (0, 0), 0.0)
    assert NearestIndex([empty]).nearest(tree()).iou == 0


def test_what_is_no_role_is_no_block() -> None:
    framed = np.where(tree() == 0, OUTSIDE, tree()).astype(np.uint8)
    framed[0, 0, 0] = MASK
    assert NearestIndex([tree()]).nearest(framed).iou == 1


def test_an_index_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="found no structures"):
        NearestIndex([])


def test_structures_of_any_size_share_an_index() -> None:
    rng = np.random.default_rng(2)
    trees = [grow_any(SIZES[size], rng)[1] for size in ("normal", "big", "huge", "normal", "huge")]
    index = NearestIndex(trees)
    assert len(index) == 5
    assert [index.nearest(each).index for each in trees] == list(range(5))


@pytest.mark.parametrize(("columns", "base"), [([2], (2, 2)), ([2, 3], (2, 3)), ([1, 2, 3], (2, 2))])
def test_a_base_between_two_voxels_is_rounded_up(columns: list[int], base: tuple[int, int]) -> None:
    roles = np.zeros((2, 5, 5), np.uint8)
    roles[0, 2, columns] = Role.WOOD
    roles[1] = Role.LEAF
    assert stand(roles).base == base


SAMPLES = st.lists(st.integers(0, 6).map(lambda value: value / 6), min_size=2, max_size=25)


@given(SAMPLES, SAMPLES)
def test_z_has_the_p_value_of_the_textbook_test(first: list[float], second: list[float]) -> None:
    z = mann_whitney_z(first, second)
    if len(set(first + second)) == 1:
        assert z == 0
        return
    expected = mannwhitneyu(first, second, use_continuity=False, method="asymptotic").pvalue
    assert math.erfc(abs(z) / math.sqrt(2)) == pytest.approx(expected)


@given(SAMPLES, SAMPLES)
def test_z_changes_its_sign_with_the_order(first: list[float], second: list[float]) -> None:
    assert mann_whitney_z(first, second) == pytest.approx(-mann_whitney_z(second, first), abs=1e-9)


def test_copies_have_a_large_z() -> None:
    rng = np.random.default_rng(0)
    held_out = rng.uniform(0.4, 0.8, 100)
    assert mann_whitney_z(np.ones(100), held_out) > 10
    assert abs(mann_whitney_z(rng.uniform(0.4, 0.8, 100), held_out)) < 3


@pytest.mark.parametrize("first", [[], [math.nan, 0.5]])
def test_z_needs_numbers(first: list[float]) -> None:
    with pytest.raises(ValueError, match="Mann-Whitney"):
        mann_whitney_z(first, [0.5])


def test_copies_are_counted_above_the_limit() -> None:
    assert copied_share([0.95, 0.951, 1.0, 0.2]) == 0.5
    assert math.isnan(copied_share([]))
