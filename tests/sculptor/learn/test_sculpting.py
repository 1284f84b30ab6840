"""From requests to structures: each alone as among others, in its grid, around what the user fixed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from tests.sculptor.learn.small import FIRSTS, small_sculptor
from vernissage.core.errors import BadInput
from vernissage.sculptor.domain.plan import LEAFLESS, MOST, measure_plan
from vernissage.sculptor.domain.roles import MASK, ROLES, Role
from vernissage.sculptor.domain.sizes import LARGEST, SIZES, Size
from vernissage.sculptor.learn.building import Building
from vernissage.sculptor.learn.sculpting import Request, Sculpture, sculpt, with_steps

if TYPE_CHECKING:
    from vernissage.sculptor.domain.dataset import Dataset
    from vernissage.sculptor.learn.blueprints import First
    from vernissage.sculptor.learn.model import Sculptor

QUICK = Building(steps=3, edits=1, wood_edits=1)
PROMPTS = ("tall oak tree", "", "thick trunk", "something never heard of", "oak")
ODD = (Size(5, 9, 7), Size(1, 1, 1), SIZES["normal"], Size(9, 20, 3), Size(16, 12, 16))


@pytest.fixture(scope="module")
def sculptors() -> dict[First, Sculptor]:
    return {first: small_sculptor(first) for first in FIRSTS}


def requests(count: int) -> list[Request]:
    return [Request(PROMPTS[n % 5], ODD[n * n % 5], seed=n) for n in range(count)]


def assert_same(one: Sculpture, other: Sculpture) -> None:
    np.testing.assert_array_equal(one.roles, other.roles)
    assert one.corner == other.corner
    assert (one.plan is None) == (other.plan is None)
    if one.plan is not None and other.plan is not None:
        np.testing.assert_array_equal(one.plan.values, other.plan.values)
        np.testing.assert_array_equal(one.plan.path, other.plan.path)


def box_of(sculpture: Sculpture) -> tuple[slice, ...]:
    assert sculpture.plan is not None
    return tuple(slice(at, at + side) for at, side in zip(sculpture.corner, sculpture.plan.shape, strict=True))


@pytest.mark.parametrize("first", FIRSTS)
def test_a_request_is_built_alike_alone_and_among_others(first: First, sculptors: dict[First, Sculptor]) -> None:
    building = replace(QUICK, guidance=2.0)
    asked = requests(20)
    together = sculpt(sculptors[first], asked, building, plan_guidance=1.5)
    assert len({sculpture.roles.tobytes() for sculpture in together}) > 12
    for rows in (slice(2, 3), slice(7, 8), slice(4, 7), slice(9, 16)):
        alone = sculpt(sculptors[first], asked[rows], building, plan_guidance=1.5)
        for pair in zip(alone, together[rows], strict=True):
            assert_same(*pair)


@pytest.mark.parametrize("first", FIRSTS)
def test_grids_of_any_size_are_filled_with_roles(first: First, sculptors: dict[First, Sculptor]) -> None:
    asked = [Request("oak", size, seed=3) for size in (*ODD, Size(24, 3, 24))]
    for request, sculpture in zip(asked, sculpt(sculptors[first], asked, QUICK), strict=True):
        assert sculpture.roles.shape == request.size.shape
        assert sculpture.roles.dtype == np.uint8
        assert (sculpture.roles < ROLES).all()


def test_the_largest_grid_has_a_structure_no_larger_than_those_that_were_learned_from(
    sculptors: dict[First, Sculptor],
) -> None:
    fixed = {"width": MOST.width, "depth": 5, "height": 6}
    (sculpture,) = sculpt(sculptors["plan"], [Request("oak", LARGEST, fixed=fixed)], Building(steps=1, edits=0))
    assert sculpture.roles.shape == LARGEST.shape
    assert np.argwhere(sculpture.roles).max(0)[0] < 6
    assert sculpture.plan is not None
    assert sculpture.plan.shape == (6, 5, MOST.width)
    # The base stands in the middle.
    z, x = sculpture.corner[1] + sculpture.plan["base_z"] / 2, sculpture.corner[2] + sculpture.plan["base_x"] / 2
    assert max(abs(z - 31.5), abs(x - 31.5)) <= 0.5


def test_other_seeds_build_other_structures_and_the_same_one_the_same(sculptors: dict[First, Sculptor]) -> None:
    for sculptor in sculptors.values():
        asked = [Request("oak", Size(8, 8, 8), seed=seed) for seed in (1, 2, 3, 1)]
        found = sculpt(sculptor, asked, QUICK)
        assert len({sculpture.roles.tobytes() for sculpture in found}) == 3
        assert_same(found[0], found[3])


def test_another_prompt_builds_another_structure(sculptors: dict[First, Sculptor]) -> None:
    for sculptor in sculptors.values():
        one, other = sculpt(sculptor, [Request(text, Size(8, 8, 8), seed=1) for text in PROMPTS[:2]], QUICK)
        assert not np.array_equal(one.roles, other.roles)


@pytest.mark.parametrize("first", FIRSTS)
def test_frames_show_every_step_and_end_in_the_result(first: First, sculptors: dict[First, Sculptor]) -> None:
    building = Building(steps=4, wood_share=0.5, edits=2, wood_edits=1)
    asked = [Request("oak", Size(9, 10, 7), seed=seed) for seed in range(2)]
    silent = sculpt(sculptors[first], asked, building)
    for sculpture, same in zip(sculpt(sculptors[first], asked, building, frames=True), silent, strict=True):
        assert_same(sculpture, same)
        assert same.frames == ()
        assert len(sculpture.frames) == sculpture.evaluations == 4 + 2 + 1
        np.testing.assert_array_equal(sculpture.frames[-1], sculpture.roles)
        assert (sculpture.frames[0] == MASK).any()
        assert all(((frame < ROLES) | (frame == MASK)).all() for frame in sculpture.frames)


def test_guidance_costs_a_second_look_in_the_second_half(sculptors: dict[First, Sculptor]) -> None:
    building = Building(steps=4, wood_share=0, edits=1, guidance=2.0)
    (sculpture,) = sculpt(sculptors["plan"], [Request("oak", Size(8, 8, 8))], building)
    assert sculpture.evaluations == 2 + 2 * 2 + 2
    (plain,) = sculpt(sculptors["plan"], [Request("oak", Size(8, 8, 8))], replace(building, guidance=1.0))
    assert plain.evaluations == 5
    assert not np.array_equal(plain.roles, sculpture.roles)


@pytest.mark.parametrize("first", FIRSTS)
def test_given_blocks_stay_wherever_they_are(first: First, sculptors: dict[First, Sculptor]) -> None:
    size = Size(12, 14, 10)
    rng = np.random.default_rng(2)
    given = np.where(rng.random(size.shape) < 0.2, rng.integers(0, ROLES, size.shape), MASK).astype(np.uint8)
    asked = [Request("oak", size, seed=seed, given=given) for seed in range(3)]
    building = replace(QUICK, doubt=0.9, doubt_share=0.5, edit_below=0.9, edit_share=0.5)
    for sculpture in sculpt(sculptors[first], asked, building, frames=True):
        for grid in (sculpture.roles, *sculpture.frames):
            np.testing.assert_array_equal(grid[given != MASK], given[given != MASK])
    # What was fixed is seen: elsewhere the structure is another.
    bare = sculpt(sculptors[first], [replace(request, given=None) for request in asked], building)
    free = given == MASK
    built = sculpt(sculptors[first], asked, building)
    assert any((one.roles[free] != other.roles[free]).any() for one, other in zip(built, bare, strict=True))


def test_a_grid_that_is_given_altogether_comes_back(sculptors: dict[First, Sculptor]) -> None:
    given = np.random.default_rng(0).integers(0, ROLES, (6, 5, 7)).astype(np.uint8)
    (sculpture,) = sculpt(sculptors["plan"], [Request("", Size(7, 6, 5), given=given)], QUICK)
    np.testing.assert_array_equal(sculpture.roles, given)


def test_given_blocks_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(4, 4, 4\), expected that of the grid: \(16, 16, 16\)"):
        Request("oak", given=np.zeros((4, 4, 4), np.uint8))


def test_a_plan_that_is_given_is_used(sculptors: dict[First, Sculptor], trees: Dataset) -> None:
    plans = [measure_plan(roles) for roles in trees.grids[:3]]
    asked = [Request("oak", SIZES["normal"], seed=7, plan=plan) for plan in plans]
    for plan, sculpture in zip(plans, sculpt(sculptors["plan"], asked, QUICK), strict=True):
        assert sculpture.plan is plan
        outside = np.ones(SIZES["normal"].shape, bool)
        outside[box_of(sculpture)] = False
        assert (sculpture.roles[outside] == Role.AIR).all()
        assert sculpture.roles[box_of(sculpture)].any()
    assert len({s.roles.tobytes() for s in sculpt(sculptors["plan"], asked, QUICK)}) == 3


def test_a_plan_of_the_same_values_that_were_drawn_builds_the_same(sculptors: dict[First, Sculptor]) -> None:
    asked = Request("oak", SIZES["normal"], seed=4)
    (drawn,) = sculpt(sculptors["plan"], [asked], QUICK)
    (again,) = sculpt(sculptors["plan"], [replace(asked, plan=drawn.plan)], QUICK)
    assert_same(drawn, again)


def test_what_is_fixed_of_a_plan_holds(sculptors: dict[First, Sculptor]) -> None:
    fixed = {"species": 4, "height": 11, "width": 7, "depth": 9, "crown_base": LEAFLESS, "base_x": 0, "base_z": 16}
    (sculpture,) = sculpt(sculptors["plan"], [Request("oak", SIZES["normal"], fixed=fixed)], QUICK)
    assert sculpture.plan is not None
    assert {name: sculpture.plan[name] for name in fixed} == fixed
    blocks = np.argwhere(sculpture.roles)
    assert (blocks.min(0) >= sculpture.corner).all()
    assert (blocks.max(0) < np.add(sculpture.corner, (11, 9, 7))).all()
    with pytest.raises(BadInput, match="plan value 'colour'"):
        sculpt(sculptors["plan"], [Request("oak", fixed={"colour": 1})], QUICK)


@pytest.mark.parametrize("order", ["random", "confidence"])
def test_every_kind_of_first_decision_takes_orders_that_need_no_plan(
    order: str, sculptors: dict[First, Sculptor]
) -> None:
    for sculptor in sculptors.values():
        building = replace(QUICK, order=order)  # type: ignore[arg-type]
        assert sculpt(sculptor, [Request("oak", Size(6, 6, 6))], building)


def test_outward_is_an_order_for_plans_alone(sculptors: dict[First, Sculptor]) -> None:
    outward = replace(QUICK, order="outward")
    assert sculpt(sculptors["plan"], [Request("oak", Size(6, 6, 6))], outward)
    for first in ("coarse", "none"):
        with pytest.raises(BadInput, match="order outward"):
            sculpt(sculptors[first], [Request("oak", Size(6, 6, 6))], outward)


def test_everybody_is_told_how_many_are_ready(sculptors: dict[First, Sculptor]) -> None:
    ready: list[int] = []
    sculpt(sculptors["plan"], requests(15), Building(steps=1, edits=0), done=ready.append)
    assert sum(ready) == 15
    assert min(ready) >= 1
    assert sculpt(sculptors["plan"], [], QUICK) == []


def test_damaged_weights_are_not_built_with() -> None:
    sculptor = small_sculptor()
    sculptor.network.head.bias[0] = torch.nan  # type: ignore[index]
    with pytest.raises(BadInput, match="its weights are damaged"):
        sculpt(sculptor, [Request("oak", Size(6, 6, 6))], QUICK)


def test_building_learns_nothing(sculptors: dict[First, Sculptor]) -> None:
    before = {name: tensor.clone() for name, tensor in sculptors["plan"].state_dict().items()}
    torch_draws = torch.get_rng_state()
    sculpt(sculptors["plan"], requests(3), QUICK)
    assert torch.equal(torch_draws, torch.get_rng_state())
    assert all(torch.equal(tensor, before[name]) for name, tensor in sculptors["plan"].state_dict().items())


def test_another_number_of_steps_is_otherwise_the_same_way_to_build() -> None:
    building = Building(steps=12, order="random", guidance=2.5)
    assert with_steps(building, 3) == replace(building, steps=3)
