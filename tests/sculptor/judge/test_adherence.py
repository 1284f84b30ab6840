from __future__ import annotations

import math
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vernissage.sculptor.domain.attributes import ATTRIBUTES, Attributes
from vernissage.sculptor.domain.roles import Role
from vernissage.sculptor.domain.sizes import SIZES
from vernissage.sculptor.judge.adherence import (
    SWAPS,
    Swap,
    adherence,
    chance_adherence,
    height_of,
    macro_adherence,
    matches,
    measured,
    right_moves,
    shuffled_macros,
)
from vernissage.sculptor.prepare.grower import grow_any, grow_like

NORMAL = SIZES["normal"]
EMPTY = np.zeros(NORMAL.shape, np.uint8)
SWAP_OF = {swap.attribute: swap for swap in SWAPS}
SAID = st.builds(
    Attributes, **{name: st.none() | st.sampled_from(ATTRIBUTES[name][:2]) for name in ("species", "height", "width")}
)


def pole(height: int, *, side: int = 1, lean: int = 0) -> np.ndarray:
    roles = np.zeros((height, side + lean, side), np.uint8)
    for y in range(height):
        start = lean * y // max(1, height - 1)
        roles[y, start : start + side] = Role.WOOD
    return roles


def crowned(height: int, radius: int) -> np.ndarray:
    """A pole in a box of leaves."""
    roles = np.full((height + 2, 2 * radius + 1, 2 * radius + 1), Role.LEAF, np.uint8)
    roles[:2] = Role.AIR
    roles[: height + 1, radius, radius] = Role.WOOD
    return roles


@pytest.fixture(scope="module")
def trees() -> list[tuple[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [grow_any(NORMAL, rng) for _ in range(40)]


def test_a_tree_is_all_that_was_measured_on_it(trees: list[tuple[str, np.ndarray]]) -> None:
    results = [adherence(measured(roles, species, NORMAL), roles, species, NORMAL) for species, roles in trees]
    assert all(all(result.values()) for result in results)
    found = macro_adherence(results)
    assert (found.macro, found.macro_with_species) == (1, 1)
    assert found.counts["height"] == len(trees)


def test_only_what_was_said_is_judged() -> None:
    result = adherence(Attributes(height="tall", trunk="thin", species="oak"), pole(5), "birch", NORMAL)
    assert result == {"species": False, "height": False, "trunk": True}
    assert list(result) == ["species", "height", "trunk"]


def test_the_grid_that_was_asked_for_says_what_is_tall() -> None:
    said = Attributes(height="tall")
    assert adherence(said, pole(14), "oak", NORMAL) == {"height": True}
    assert adherence(said, pole(14), "oak", SIZES["huge"]) == {"height": False}


def test_an_empty_grid_is_nothing_that_was_said() -> None:
    said = Attributes(species="oak", crown="leafless", branches="no branches")
    assert not any(adherence(said, EMPTY, "oak", NORMAL).values())


def test_what_cannot_be_measured_is_not_as_said() -> None:
    leaves = np.full((2, 2, 2), Role.LEAF, np.uint8)
    assert adherence(Attributes(trunk="thin"), leaves, "bush", NORMAL) == {"trunk": False}


def test_rare_attributes_count_as_much_as_frequent_ones() -> None:
    results = [{"species": True, "height": True}, {"height": True}, {"height": False}, {"height": False, "crown": True}]
    found = macro_adherence(results)
    assert found.by_attribute == {"species": 1, "height": 0.5, "crown": 1}
    assert found.counts == {"species": 1, "height": 4, "crown": 1}
    assert found.macro == 0.75
    assert found.macro_with_species == pytest.approx(2.5 / 3)


def test_without_anything_said_there_is_no_adherence() -> None:
    assert math.isnan(macro_adherence([{}, {}]).macro)
    assert math.isnan(macro_adherence([{"species": True}]).macro)
    assert math.isnan(chance_adherence([Attributes()], [Attributes()]).macro)
    assert np.isnan(shuffled_macros([Attributes()], [Attributes()], np.random.default_rng(0), 3)).all()


@given(st.lists(st.tuples(SAID, SAID), min_size=1, max_size=4))
def test_chance_is_the_mean_over_every_order_of_the_prompts(pairs: list[tuple[Attributes, Attributes]]) -> None:
    said, found = [list(each) for each in zip(*pairs, strict=True)]
    orders = [
        macro_adherence([matches(each, found[place]) for each, place in zip(said, order, strict=True)])
        for order in permutations(range(len(found)))
    ]
    chance = chance_adherence(said, found)
    for name in ("macro", "macro_with_species"):
        expected = np.mean([getattr(order, name) for order in orders])
        assert getattr(chance, name) == pytest.approx(expected, nan_ok=True)
    assert chance.counts == orders[0].counts


def test_shuffled_prompts_fall_to_chance(trees: list[tuple[str, np.ndarray]]) -> None:
    found = [measured(roles, species, NORMAL) for species, roles in trees]
    right = macro_adherence([matches(each, each) for each in found])
    shuffled = shuffled_macros(found, found, np.random.default_rng(1), 400)
    chance = chance_adherence(found, found)
    assert shuffled.shape == (400,)
    assert shuffled.mean() == pytest.approx(chance.macro, abs=0.01)
    assert shuffled.max() < 0.8 < right.macro


def test_one_structure_for_all_prompts_is_no_better_than_chance() -> None:
    said = [Attributes(height=height) for height in ("short", "tall", "tall")]
    found = [measured(pole(15), "oak", NORMAL)] * 3
    assert chance_adherence(said, found).macro == pytest.approx(2 / 3)
    assert shuffled_macros(said, found, np.random.default_rng(0), 5) == pytest.approx([2 / 3] * 5)


def test_each_structure_needs_a_prompt() -> None:
    with pytest.raises(ValueError, match="found 1 prompts and 0 structures"):
        chance_adherence([Attributes()], [])


def test_swaps_use_words_of_the_attributes() -> None:
    for swap in SWAPS:
        assert {swap.low, swap.high} <= set(ATTRIBUTES[swap.attribute])


PAIRS = {
    "height": (pole(4), pole(9)),
    "trunk": (pole(9), pole(9, side=3)),
    "width": (pole(9), pole(9, side=2)),
    "lean": (pole(9), pole(9, lean=4)),
    "crown": (crowned(3, 4), crowned(9, 2)),
}


@pytest.mark.parametrize("attribute", PAIRS)
def test_a_measure_rises_with_what_the_word_says(attribute: str) -> None:
    low, high = PAIRS[attribute]
    assert right_moves(SWAP_OF[attribute], [(low, high)]) == 1
    assert right_moves(SWAP_OF[attribute], [(high, low)]) == 0
    assert right_moves(SWAP_OF[attribute], [(low, high), (high, low), (low, low), (low, high)]) == 2.5 / 4


def test_holes_make_a_crown_less_dense() -> None:
    dense = crowned(9, 4)
    sparse = np.where((dense == Role.LEAF) & (np.indices(dense.shape).sum(axis=0) % 3 == 0), 0, dense).astype(np.uint8)
    assert right_moves(SWAP_OF["density"], [(sparse, dense)]) == 1


@pytest.mark.parametrize("swap", SWAPS, ids=lambda swap: swap.attribute)
def test_what_cannot_be_measured_never_moves_the_right_way(swap: Swap) -> None:
    tree = crowned(9, 2)
    assert right_moves(swap, [(EMPTY, tree), (tree, EMPTY), (EMPTY, EMPTY)]) == 0


def test_known_measures() -> None:
    room = np.pad(pole(7, side=2, lean=3), ((2, 3), (1, 1), (0, 4)))
    assert height_of(room) == 7
    assert SWAP_OF["width"].measure(room) == 5
    assert SWAP_OF["trunk"].measure(room) == 4
    assert SWAP_OF["lean"].measure(room) == 3
    assert math.isnan(SWAP_OF["crown"].measure(room))
    assert math.isnan(right_moves(SWAP_OF["lean"], []))


def test_the_trunk_within_the_crown_does_not_count() -> None:
    roles = np.pad(crowned(9, 2), ((6, 0), (0, 0), (0, 0)))
    roles[:6, 1:3, 1:3] = Role.WOOD
    assert SWAP_OF["trunk"].measure(roles) == 4


@pytest.mark.parametrize("attribute", ["height", "trunk", "width", "lean"])
def test_the_grower_moves_the_right_way(attribute: str) -> None:
    swap = SWAP_OF[attribute]
    base = Attributes(species="oak")
    pairs = []
    for seed in range(6):
        low, high = (
            grow_like(replace(base, **{attribute: word}), NORMAL, np.random.default_rng(seed), tries=16)[1]
            for word in (swap.low, swap.high)
        )
        pairs.append((low, high))
    assert right_moves(swap, pairs) > 0.8
