"""Plans: measured alike however a structure is turned, within what can be drawn, and of anything that was built."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vernissage.sculptor.domain.plan import (
    FIELDS,
    INDEX,
    LEAFLESS,
    MOST,
    MOVES,
    NAMES,
    OCTANTS,
    QUARTERS,
    SPECIES,
    STEPS_PER_AXIS,
    SYMMETRIES,
    TRUNK_COUNTS,
    Plan,
    measure_plan,
    moves_of,
    octant_of,
    path_of,
    plan_of,
    turned_grid,
    turned_octants,
)
from vernissage.sculptor.domain.roles import MASK, OUTSIDE, Role
from vernissage.sculptor.domain.sizes import SIZES
from vernissage.sculptor.prepare.grower import grow_any

GRIDS = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=3, max_dims=3, max_side=7), elements=st.integers(0, MASK))


@cache
def trees() -> list[tuple[str, np.ndarray]]:
    rng = np.random.default_rng(7)
    return [
        grow_any(SIZES[size], rng) for size, count in (("normal", 24), ("big", 6), ("huge", 4)) for _ in range(count)
    ]


def grid(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.uint8)


def assert_same(one: Plan, other: Plan) -> None:
    told = zip(NAMES, one.values.tolist(), other.values.tolist(), strict=True)
    assert {name: pair for name, *pair in told if pair[0] != pair[1]} == {}
    np.testing.assert_array_equal(one.path, other.path)


def assert_can_be_drawn(plan: Plan, roles: np.ndarray) -> None:
    """Every value has a class, and the path is one that moves can make."""
    assert plan.shape == roles.shape
    for name, count in FIELDS.items():
        assert 0 <= plan[name] < count, name
    assert plan.path.shape == (roles.shape[0], 2)
    assert (plan.path >= 0).all()
    assert (plan.path <= 2 * np.array(roles.shape[1:]) - 2).all()
    assert plan.path[0].tolist() == [plan["base_z"], plan["base_x"]]
    moves = moves_of(plan.path, plan["run"])
    assert ((moves >= 0) & (moves < MOVES)).all()
    np.testing.assert_array_equal(path_of((plan["base_z"], plan["base_x"]), moves, plan["height"]), plan.path)


@pytest.mark.parametrize("symmetry", range(SYMMETRIES))
def test_the_plan_of_a_turned_tree_is_the_turned_plan(symmetry: int) -> None:
    for species, roles in trees():
        plan = measure_plan(roles, species=species)
        assert_same(measure_plan(turned_grid(roles, symmetry), species=species), plan.turned(symmetry))


@settings(max_examples=60)
@given(GRIDS.filter(lambda roles: bool(((roles > 0) & (roles < OUTSIDE)).any())), st.integers(0, SYMMETRIES - 1))
def test_any_structure_has_a_plan_that_turns_with_it(roles: np.ndarray, symmetry: int) -> None:
    plan = measure_plan(roles)
    assert_can_be_drawn(plan, roles)
    assert_same(measure_plan(turned_grid(roles, symmetry)), plan.turned(symmetry))


def test_the_plan_of_a_tree_is_one_that_can_be_drawn() -> None:
    for species, roles in trees():
        plan = measure_plan(roles, species=species)
        assert plan.species == species
        assert_can_be_drawn(plan, roles)


def test_the_eight_symmetries_are_different_and_the_first_changes_nothing() -> None:
    roles = np.arange(1, 9, dtype=np.uint8).reshape(2, 2, 2)
    forms = {turned_grid(roles, symmetry).tobytes() for symmetry in range(SYMMETRIES)}
    assert len(forms) == SYMMETRIES == 8
    np.testing.assert_array_equal(turned_grid(roles, 0), roles)
    for symmetry in range(SYMMETRIES):
        np.testing.assert_array_equal(np.sort(turned_grid(roles, symmetry)[0].ravel()), roles[0].ravel())


@pytest.mark.parametrize("symmetry", range(SYMMETRIES))
def test_octants_turn_as_the_blocks_in_them_do(symmetry: int) -> None:
    z, x = np.nonzero(np.ones((13, 13)))
    numbers = octant_of(z - 6, x - 6).reshape(13, 13).astype(np.uint8)
    after = turned_grid(numbers[None], symmetry)[0]
    moved = turned_octants(symmetry)
    off_centre = (z != 6) | (x != 6)
    np.testing.assert_array_equal(moved[numbers.ravel()][off_centre], after.ravel()[off_centre])


@pytest.mark.parametrize(
    ("dz", "dx", "octant"), [(0, 5, 0), (5, 5, 1), (5, 0, 2), (0, -5, 4), (-5, 0, 6), (-5, 5, 7), (1, 5, 0), (3, 5, 1)]
)
def test_octants_begin_towards_x_and_turn_to_z(dz: int, dx: int, octant: int) -> None:
    assert octant_of(np.array(dz), np.array(dx)) == octant


def test_a_tree_made_by_hand_has_the_plan_that_one_reads_off_it() -> None:
    """A trunk of 7 with a limb towards +X, and a slab of leaves that reaches further towards -Z."""
    roles = grid(9, 8, 9)
    roles[5:9, 0:7, 3:6] = Role.LEAF
    roles[:7, 4, 4] = Role.WOOD
    roles[4, 4, 5:9] = Role.WOOD
    plan = measure_plan(roles, species="birch")
    assert plan.species == "birch"
    expected = {"height": 9, "width": 9, "depth": 8, "base_x": 8, "base_z": 8, "run": 7, "crown_base": 5, "branches": 1}
    assert {name: plan[name] for name in expected} == expected
    assert TRUNK_COUNTS[plan["trunk"]] == 1
    assert plan["limb_0"] == 4
    assert plan["limb_height_0"] == 4
    assert [plan[f"limb_{octant}"] for octant in range(1, OCTANTS)] == [0] * 7
    assert plan["reach_6"] == 4
    assert plan["reach_2"] == 2
    assert [plan[f"radius_{quarter}"] for quarter in range(QUARTERS)] == [5] * QUARTERS
    # In the limb's own layer its first block is as good a trunk as any.
    assert (plan.path[[0, 1, 2, 3, 5, 6, 7, 8]] == 8).all()


@pytest.mark.parametrize(("side", "least"), [(1, 1), (2, 4), (3, 9), (4, 16), (5, 21)])
def test_a_trunk_is_of_the_class_whose_least_count_it_reaches(side: int, least: int) -> None:
    roles = grid(10, 8, 8)
    roles[:, 2 : 2 + side, 2 : 2 + side] = Role.WOOD
    plan = measure_plan(roles)
    assert TRUNK_COUNTS[plan["trunk"]] == least
    assert plan.path.tolist() == [[3 + side, 3 + side]] * 10


def test_a_tree_without_leaves_has_no_crown() -> None:
    roles = grid(8, 5, 5)
    roles[:, 2, 2] = Role.WOOD
    roles[5, 2, 3:] = Role.WOOD_2
    plan = measure_plan(roles, species="dead")
    assert plan["crown_base"] == LEAFLESS
    assert plan["density"] == 0
    assert all(plan[f"radius_{quarter}"] == 0 for quarter in range(QUARTERS))
    assert all(plan[f"reach_{octant}"] == 0 for octant in range(OCTANTS))


def a_wall() -> np.ndarray:
    return np.full((12, 1, 16), Role.OTHER, np.uint8)


def one_block(role: int) -> np.ndarray:
    return np.full((1, 1, 1), role, np.uint8)


def a_floating_crown() -> np.ndarray:
    roles = grid(10, 6, 6)
    roles[0, 0, 0] = Role.GROUND
    roles[6:, 1:5, 1:5] = Role.LEAF
    return roles


@pytest.mark.parametrize(
    "roles",
    [
        a_wall(),
        *(one_block(role) for role in (Role.WOOD, Role.LEAF, Role.GROUND, Role.OTHER)),
        a_floating_crown(),
        np.full(MOST.shape, Role.WOOD, np.uint8),
        np.full(MOST.shape, Role.LEAF, np.uint8),
        np.full((MOST.height, 1, 1), Role.WOOD, np.uint8),
    ],
)
def test_what_is_no_tree_has_a_plan_too(roles: np.ndarray) -> None:
    assert_can_be_drawn(measure_plan(roles), roles)


def test_what_stands_on_no_wood_has_no_trunk() -> None:
    for roles in (a_wall(), a_floating_crown()):
        plan = measure_plan(roles)
        assert plan["run"] == 0
        assert TRUNK_COUNTS[plan["trunk"]] == 0
        assert moves_of(plan.path, plan["run"]).size == 0
    assert (measure_plan(a_wall()).path == [0, 15]).all()


def test_a_species_without_a_number_is_another() -> None:
    assert measure_plan(one_block(Role.WOOD)).species == SPECIES[-1] == "other"
    assert measure_plan(one_block(Role.WOOD), species="baobab").species == "other"


@pytest.mark.parametrize("shape", [(65, 1, 1), (1, 25, 1), (1, 1, 25), (64, 64, 24)])
def test_what_is_too_large_is_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=f"expected at most {MOST}"):
        measure_plan(np.ones(shape, np.uint8))


@pytest.mark.parametrize("fill", [Role.AIR, OUTSIDE, MASK])
def test_nothing_has_no_plan(fill: int) -> None:
    with pytest.raises(ValueError, match="no plan"):
        measure_plan(np.full((3, 3, 3), fill, np.uint8))


@given(
    st.integers(1, MOST.height).flatmap(
        lambda height: st.tuples(st.just(height), st.lists(st.integers(0, MOVES - 1), max_size=height - 1))
    )
)
def test_moves_make_the_path_that_they_are_read_from(drawn: tuple[int, list[int]]) -> None:
    height, moves = drawn
    path = path_of((30, 31), np.array(moves, np.int64), height)
    assert path.shape == (height, 2)
    np.testing.assert_array_equal(moves_of(path, len(moves) + 1), moves)
    assert (np.abs(np.diff(path, axis=0)) <= STEPS_PER_AXIS // 2).all()
    assert (path[len(moves) :] == path[len(moves)]).all()


def test_a_tree_that_leans_has_the_path_of_its_trunk() -> None:
    roles = grid(6, 7, 7)
    for y in range(6):
        roles[y, y, 6 - y] = Role.WOOD
    plan = measure_plan(roles)
    assert plan.path.tolist() == [[2 * y, 12 - 2 * y] for y in range(6)]


def test_values_by_name_are_read_back_by_name() -> None:
    wanted = {name: number % count for number, (name, count) in enumerate(FIELDS.items())}
    plan = plan_of(wanted, np.zeros((1, 2), np.int64))
    assert {name: plan[name] for name in NAMES} == wanted
    assert [INDEX[name] for name in NAMES] == list(range(len(NAMES)))
