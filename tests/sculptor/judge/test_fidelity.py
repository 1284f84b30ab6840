from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vernissage.sculptor.domain.plan import turned_grid
from vernissage.sculptor.domain.roles import MASK, Role
from vernissage.sculptor.domain.sizes import SIZES
from vernissage.sculptor.judge.fidelity import (
    FEATURES,
    SLABS,
    features_of,
    fidelity,
    nearest_accuracy,
    standardised,
    voxel_ratio,
)
from vernissage.sculptor.prepare.grower import grow, grow_any

GRIDS = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=3, max_dims=3, max_side=6), elements=st.integers(0, MASK))
EMPTY = np.zeros((3, 3, 3), np.uint8)


def grown(count: int, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [grow_any(SIZES["normal"], rng)[1] for _ in range(count)]


def features(grid: np.ndarray) -> dict[str, float]:
    return dict(zip(FEATURES, features_of([grid])[0].tolist(), strict=True))


def test_a_pole_with_a_flat_crown_has_known_features() -> None:
    roles = np.zeros((16, 6, 5), np.uint8)
    roles[:14, 2, 2] = Role.WOOD
    roles[14:, 2, 2:5] = Role.LEAF_2
    found = features(roles)
    assert (found["height"], found["width"], found["logs"], found["leaves"]) == (16, 3, 14, 6)
    assert [found[f"layers_{slab}"] for slab in range(1, 9)] == pytest.approx([2 / 20] * 7 + [6 / 20])
    assert [found[f"radius_{slab}"] for slab in range(1, 9)] == pytest.approx([0] * 7 + [1 / 3])


def test_three_layers_are_shared_out_among_eight_slabs() -> None:
    roles = np.zeros((3, 3, 3), np.uint8)
    roles[:, 1, 1] = Role.WOOD
    roles[2] = Role.LEAF
    shares = [features(roles)[f"layers_{slab}"] for slab in range(1, SLABS + 1)]
    # Slab 3 is .75 to 1.125 layers from the ground, slab 6 is 1.875 to 2.25: a third and two thirds of it each.
    one = 3 / 8 / 11
    assert shares == pytest.approx([one, one, one, one, one, (1 / 8 + 9 / 4) / 11, 9 * one, 9 * one])


@given(GRIDS, st.integers(0, 7), st.integers(0, 3))
def test_room_and_turns_change_no_feature(grid: np.ndarray, symmetry: int, room: int) -> None:
    changed = np.pad(turned_grid(grid, symmetry), room)
    np.testing.assert_allclose(features_of([changed]), features_of([grid]), atol=1e-12)


@given(GRIDS)
def test_shares_of_slabs_sum_to_one(grid: np.ndarray) -> None:
    found = features(grid)
    shares = sum(found[f"layers_{slab}"] for slab in range(1, SLABS + 1))
    assert shares == pytest.approx(1 if found["height"] else 0)
    assert all(0 <= found[f"radius_{slab}"] <= math.sqrt(2) for slab in range(1, SLABS + 1))


def test_standardised_by_the_reference_alone() -> None:
    reference = np.array([[1.0, 5.0, 0.1], [3.0, 5.0, 0.1], [5.0, 5.0, 0.1]])
    built, theirs = standardised(np.array([[3.0, 7.0, 0.1]]), reference)
    np.testing.assert_allclose(built, [[0, 2, 0]], atol=1e-12)
    np.testing.assert_allclose(theirs.std(axis=0), [1, 0, 0], atol=1e-12)


def test_samples_of_one_distribution_cannot_be_told_apart() -> None:
    rng = np.random.default_rng(0)
    accuracy = nearest_accuracy(rng.normal(size=(400, 4)), rng.normal(size=(400, 4)))
    assert accuracy == pytest.approx(0.5, abs=0.05)
    unequal = nearest_accuracy(rng.normal(size=(100, 4)), rng.normal(size=(600, 4)))
    assert unequal == pytest.approx(0.5, abs=0.07)


def test_samples_that_lie_apart_are_told_apart() -> None:
    rng = np.random.default_rng(0)
    assert nearest_accuracy(rng.normal(size=(50, 3)), rng.normal(size=(50, 3)) + 20) == 1


def test_copies_of_the_reference_are_betrayed_by_an_accuracy_of_zero() -> None:
    reference = np.random.default_rng(0).normal(size=(30, 3))
    assert nearest_accuracy(reference.copy(), reference) == 0


def test_rows_that_are_all_equal_vote_in_parts() -> None:
    assert nearest_accuracy(np.zeros((10, 2)), np.zeros((10, 2))) == pytest.approx(9 / 19)


def test_grown_trees_are_like_other_grown_trees() -> None:
    found = fidelity(grown(150, 1), grown(150, 2))
    assert found.nearest_accuracy == pytest.approx(0.5, abs=0.1)
    assert found.wasserstein_mean < 0.25
    assert found.voxel_ratio == pytest.approx(1, abs=0.25)
    assert list(found.wasserstein) == list(FEATURES)


def test_one_species_for_all_is_unlike_all_species() -> None:
    rng = np.random.default_rng(3)
    palms = [grow("palm", SIZES["normal"], rng) for _ in range(100)]
    reference = grown(100, 4)
    found = fidelity(palms, reference)
    assert found.nearest_accuracy > 0.75
    assert found.wasserstein_mean > 2 * fidelity(grown(100, 5), reference).wasserstein_mean


def test_a_reference_beside_itself_has_no_distance() -> None:
    trees = grown(20, 6)
    found = fidelity(trees, trees)
    assert found.wasserstein_mean == 0
    assert found.voxel_ratio == 1


def test_the_distance_of_a_shift_is_the_shift() -> None:
    short, high = ([np.ones((height + more, 1, 1), np.uint8) for height in (4, 8)] for more in (0, 2))
    # The heights 4 and 8 have the standard deviation 2.
    assert fidelity(high, short).wasserstein["height"] == pytest.approx(1)


def test_empty_grids_are_judged_and_not_refused() -> None:
    found = fidelity([EMPTY, EMPTY], grown(10, 7))
    assert found.nearest_accuracy == pytest.approx(1, abs=0.2)
    assert found.voxel_ratio == 0


def test_a_ratio_needs_something_to_divide() -> None:
    assert voxel_ratio([np.ones((2, 2, 2), np.uint8)], [np.ones((2, 2, 1), np.uint8)]) == 2
    assert math.isnan(voxel_ratio([], grown(1, 0)))
    assert math.isnan(voxel_ratio(grown(1, 0), [EMPTY]))


def test_single_structures_have_no_neighbours() -> None:
    with pytest.raises(ValueError, match="found 1 and 2"):
        fidelity(grown(1, 0), grown(2, 0))
