from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vernissage.sculptor.domain.attributes import Attributes
from vernissage.sculptor.domain.roles import MASK, Role
from vernissage.sculptor.judge.diversity import agreeing, compare_diversity, diversity, pair_distances
from vernissage.sculptor.judge.novelty import stand

GRIDS = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=3, max_dims=3, max_side=6), elements=st.integers(0, MASK))


def pole(height: int, *, role: Role = Role.WOOD) -> np.ndarray:
    return np.full((height, 1, 1), role, np.uint8)


EMPTY = np.zeros((3, 3, 3), np.uint8)


def places_of(grid: np.ndarray) -> set[tuple[int, ...]]:
    """Places from the base, written down one by one."""
    each = stand(grid)
    return {(int(y), int(z) - each.base[0], int(x) - each.base[1]) for y, z, x in np.argwhere(each.solid)}


@given(st.lists(GRIDS, min_size=1, max_size=4))
def test_a_distance_is_what_the_sets_of_places_do_not_share(grids: list[np.ndarray]) -> None:
    distances = pair_distances(grids)
    places = [places_of(grid) for grid in grids]
    for i, mine in enumerate(places):
        for j, theirs in enumerate(places):
            expected = 1 - len(mine & theirs) / len(mine | theirs) if mine | theirs else 0
            assert distances[i, j] == pytest.approx(expected, abs=1e-12)


def test_poles_share_what_the_shorter_one_has() -> None:
    np.testing.assert_allclose(
        pair_distances([pole(4), pole(1), np.pad(pole(4), 2), EMPTY, EMPTY])[0], [0, 0.75, 0, 1, 1]
    )
    assert pair_distances([EMPTY, EMPTY])[0, 1] == 0
    assert pair_distances([]).shape == (0, 0)


def test_each_prompt_counts_once_however_many_seeds_it_has() -> None:
    found = diversity([[pole(2), pole(4)], [pole(1)] * 20, [pole(3)], []])
    assert found.distance == (0.5 + 0) / 2
    assert (found.groups, found.structures) == (2, 22)


def test_duplicates_are_equal_role_for_role() -> None:
    leafy = pole(3, role=Role.LEAF)
    found = diversity([[pole(3), np.pad(pole(3), 1), leafy, leafy, pole(2)], [pole(3), pole(3)]])
    assert found.duplicates == 2 + 1
    assert diversity([[pole(3), pole(3).reshape(1, 3, 1)]]).duplicates == 0


def test_nothing_to_compare_is_not_a_number() -> None:
    assert math.isnan(diversity([[pole(2)]]).distance)
    assert math.isnan(compare_diversity([[pole(2)]], [[pole(1), pole(2)]]).ratio)
    assert math.isnan(compare_diversity([[pole(2), pole(1)]], [[pole(1), pole(1)]]).ratio)


def test_the_ratio_is_about_prompts_that_both_have_pairs_for() -> None:
    built = [[pole(4), pole(3)], [pole(1), pole(9)]]
    data = [[pole(4), pole(2)], [pole(1)]]
    found = compare_diversity(built, data)
    assert found.ratio == pytest.approx(0.25 / 0.5)
    assert found.prompts == 1
    assert found.built.groups == 2


def test_structures_compared_with_themselves_have_the_ratio_one() -> None:
    group = [pole(4), pole(3), pole(7)]
    assert compare_diversity([group], [group]).ratio == 1


def test_prompts_of_both_sides_must_be_the_same() -> None:
    with pytest.raises(ValueError, match="shorter"):
        compare_diversity([[pole(1)]], [])


def test_a_structure_agrees_if_it_has_all_that_was_said() -> None:
    measured = [
        Attributes(species="oak", height="tall", trunk="thin"),
        Attributes(species="oak", height="short"),
        Attributes(species="birch", height="tall"),
    ]
    assert agreeing(Attributes(species="oak", height="tall"), measured) == [0]
    assert agreeing(Attributes(height="tall"), measured) == [0, 2]
    assert agreeing(Attributes(), measured) == [0, 1, 2]
    assert agreeing(Attributes(trunk="massive"), measured) == []
