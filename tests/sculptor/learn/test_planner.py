"""The planner: its plans fit, hold what was fixed, do not depend on their batch, and it learns who wanted what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sculptor.learn.small import PLANNER, shaken
from vernissage.core.errors import BadInput
from vernissage.sculptor.domain.attributes import ATTRIBUTES, Attributes
from vernissage.sculptor.domain.plan import (
    FIELDS,
    INDEX,
    LEAFLESS,
    MOST,
    MOVES,
    NAMES,
    STEPS_PER_AXIS,
    Plan,
    measure_plan,
)
from vernissage.sculptor.domain.sizes import LARGEST, SIZES, Size
from vernissage.sculptor.learn.planner import (
    DRAWS,
    Planner,
    allowed_values,
    draw_known,
    draw_plans,
    planner_loss,
    said_values,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vernissage.sculptor.domain.dataset import Dataset

ODD = [Size(1, 1, 1), Size(5, 9, 7), LARGEST, *SIZES.values(), Size(24, 1, 3)]
SIZE = st.builds(Size, *(st.integers(1, side) for side in LARGEST))
FIXED = st.dictionaries(st.sampled_from(NAMES), st.integers(-5, 200), max_size=6)


def made(seed: int = 0, size: float = 0.3) -> Planner:
    torch.manual_seed(seed)
    planner: Planner = shaken(Planner(PLANNER), size)
    return planner.eval().requires_grad_(requires_grad=False)


PLANNERS = {"even": made(size=0.0), "wild": made(1, 1.0)}


def draws(batch: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(batch, DRAWS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def text(batch: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, PLANNER.text, generator=torch.Generator().manual_seed(seed))


def plans_of(planner: Planner, sizes: Sequence[Size], seed: int = 0, **more: Any) -> list[Plan]:
    return draw_plans(planner, text(len(sizes)), text(1, 9), sizes, draws(len(sizes), seed), **more)


def assert_same(one: Plan, other: Plan) -> None:
    np.testing.assert_array_equal(one.values, other.values)
    np.testing.assert_array_equal(one.path, other.path)


def assert_fits(plan: Plan, size: Size) -> None:
    height, depth, width = plan.shape
    assert size.holds(Size(width, height, depth))
    assert MOST.holds(Size(width, height, depth))
    values = dict(zip(NAMES, plan.values.tolist(), strict=True))
    for name, count in FIELDS.items():
        assert 0 <= plan[name] < count
        assert allowed_values(name, values, Size(*map(min, size, MOST)))[plan[name]], name
    assert plan["crown_base"] < height or plan["crown_base"] == LEAFLESS
    assert plan.path.shape == (height, 2)
    assert plan.path[0].tolist() == [plan["base_z"], plan["base_x"]]
    assert (plan.path >= 0).all()
    assert (plan.path <= [2 * depth - 2, 2 * width - 2]).all()
    assert (np.abs(np.diff(plan.path, axis=0)) <= STEPS_PER_AXIS // 2).all()
    above = plan.path[max(0, plan["run"] - 1) :]
    assert (above == above[:1]).all()


@pytest.mark.parametrize("kind", PLANNERS)
def test_plans_fit_into_their_sizes(kind: str) -> None:
    sizes = ODD * 3
    plans = plans_of(PLANNERS[kind], sizes)
    for plan, size in zip(plans, sizes, strict=True):
        assert_fits(plan, size)
    # Otherwise nothing was tried.
    assert max(plan["run"] for plan in plans) > 10
    assert any((np.ptp(plan.path, axis=0) > 4).any() for plan in plans)


@settings(max_examples=15)
@given(SIZE, FIXED, st.integers(0, 999), st.sampled_from([0.0, 0.3, 1.0, 5.0]), st.sampled_from([0.0, 1.0, 4.0]))
def test_whatever_is_fixed_the_plan_fits_and_has_it_as_far_as_that_goes(
    size: Size, fixed: Mapping[str, int], seed: int, temperature: float, guidance: float
) -> None:
    (plan,) = plans_of(PLANNERS["wild"], [size], seed, fixed=[fixed], temperature=temperature, guidance=guidance)
    assert_fits(plan, size)
    within = Size(*map(min, size, MOST))
    values = dict(zip(NAMES, plan.values.tolist(), strict=True))
    for name, wanted in fixed.items():
        allowed = np.flatnonzero(allowed_values(name, values, within))
        # What it cannot have is made the nearest that it can, given the size and the box.
        first = np.flatnonzero(allowed_values(name, {}, within))
        possible = int(first[np.abs(first - wanted).argmin()])
        assert abs(plan[name] - possible) == np.abs(allowed - possible).min(), name


def test_what_is_fixed_and_fits_is_held_exactly() -> None:
    fixed = {"species": 3, "height": 12, "width": 9, "depth": 7, "base_x": 11, "base_z": 4, "run": 8, "crown_base": 5}
    (plan,) = plans_of(PLANNERS["wild"], [SIZES["normal"]], fixed=[fixed])
    assert {name: plan[name] for name in fixed} == fixed
    (bare,) = plans_of(PLANNERS["wild"], [SIZES["normal"]], fixed=[{"crown_base": LEAFLESS}])
    assert bare["crown_base"] == LEAFLESS


@pytest.mark.parametrize(
    ("name", "value", "held"), [("height", 40, 16), ("width", 0, 1), ("base_x", 99, 30), ("run", 500, 16)]
)
def test_what_does_not_fit_is_made_to(name: str, value: int, held: int) -> None:
    fixed = [{"width": 16, "height": 16} | {name: value}]
    (plan,) = plans_of(PLANNERS["even"], [SIZES["normal"]], fixed=fixed)
    assert plan[name] == held


def test_an_unknown_value_is_refused() -> None:
    with pytest.raises(BadInput, match=r"plan value 'colour': expected one of species, height"):
        plans_of(PLANNERS["even"], [SIZES["normal"]], fixed=[{"colour": 1}])


def test_what_is_fixed_is_known_to_all_other_values() -> None:
    """A planner that follows what it knows draws other plans beside another fixed value."""
    one, other = (plans_of(PLANNERS["wild"], ODD, fixed=[{"reach_7": reach}] * len(ODD)) for reach in (0, 17))
    apart = [(a.values != b.values)[: INDEX["reach_7"]].sum() for a, b in zip(one, other, strict=True)]
    assert sum(apart) > 0


@pytest.mark.parametrize("guidance", [1.0, 2.5])
@pytest.mark.parametrize("kind", PLANNERS)
def test_a_plan_is_the_same_alone_and_among_others(kind: str, guidance: float) -> None:
    fixed: list[dict[str, int]] = [{}, {"height": 5}, {}, {"species": 2, "run": 3}, {}, {}, {"width": 3}]
    together = plans_of(PLANNERS[kind], ODD, fixed=fixed, guidance=guidance)
    for row, size in enumerate(ODD):
        rows = slice(row, row + 1)
        (alone,) = draw_plans(
            PLANNERS[kind],
            text(len(ODD))[rows],
            text(1, 9),
            [size],
            draws(len(ODD))[rows],
            fixed=fixed[rows],
            guidance=guidance,
        )
        assert_same(alone, together[row])


def test_the_same_numbers_draw_the_same_plan_and_others_another() -> None:
    one, again, other = (plans_of(PLANNERS["even"], ODD, seed) for seed in (1, 1, 2))
    for pair in zip(one, again, strict=True):
        assert_same(*pair)
    assert any((a.values != b.values).any() for a, b in zip(one, other, strict=True))


def test_without_guidance_the_empty_prompt_is_not_looked_at() -> None:
    nothing = torch.full((1, PLANNER.text), torch.nan)
    found = draw_plans(PLANNERS["wild"], text(len(ODD)), nothing, ODD, draws(len(ODD)), guidance=1.0)
    for pair in zip(found, plans_of(PLANNERS["wild"], ODD), strict=True):
        assert_same(*pair)
    guided = plans_of(PLANNERS["wild"], ODD, guidance=4.0)
    assert any((a.values != b.values).any() for a, b in zip(found, guided, strict=True))


def test_guidance_of_nought_does_not_look_at_the_prompt_for_what_it_speaks_of() -> None:
    spoken = [INDEX[name] for name in ("species", "height", "trunk", "shape", "width", "depth")]
    bare = text(1, 9)
    one, other = (
        draw_plans(PLANNERS["wild"], of, bare, ODD, draws(len(ODD)), guidance=0.0) for of in (text(7), text(7, 5))
    )
    for mine, theirs in zip(one, other, strict=True):
        np.testing.assert_array_equal(mine.values[spoken], theirs.values[spoken])


def test_the_coldest_draw_is_the_most_probable_one() -> None:
    one, other = (plans_of(PLANNERS["wild"], ODD, seed, temperature=0.0) for seed in (1, 2))
    for pair in zip(one, other, strict=True):
        assert_same(*pair)


def test_draws_are_as_frequent_as_the_planner_says() -> None:
    """An untrained head with a bias of our own: the first value is drawn with just these shares."""
    planner = made(size=0.0)
    count = FIELDS["species"]
    shares = torch.linspace(1, 3, count, dtype=torch.float64)
    shares /= shares.sum()
    planner.heads[0].get_parameter("weight").zero_()
    planner.heads[0].get_parameter("bias").copy_(shares.log())
    sizes = [Size(2, 2, 2)] * 700
    plans = draw_plans(planner, text(1).expand(700, -1), text(1), sizes, draws(700))
    found = np.bincount([plan["species"] for plan in plans], minlength=count)
    expected = shares.numpy() * 700
    # Chi-square with 11 degrees of freedom is above 42 once in 60,000 times.
    assert ((found - expected) ** 2 / expected).sum() < 42


def test_measured_plans_are_among_those_that_can_be_drawn(trees: Dataset) -> None:
    for roles, size in zip(trees.grids, trees.table["size"], strict=True):
        assert_fits(measure_plan(roles), SIZES[size])


def full(path: np.ndarray) -> np.ndarray:
    return np.concatenate([path, np.repeat(path[-1:], MOST.height - len(path), 0)])


def loss_on(
    planner: Planner, plans: Sequence[Plan], known: torch.Tensor, *, prompts: torch.Tensor | None = None, said: int = 0
) -> torch.Tensor:
    return planner_loss(
        planner,
        text(len(plans)) if prompts is None else prompts,
        torch.arange(len(plans)) % len(SIZES),
        torch.from_numpy(np.stack([plan.values for plan in plans])),
        torch.from_numpy(np.stack([full(plan.path) for plan in plans])),
        known,
        torch.full((len(plans), len(ATTRIBUTES)), said),
    )


def learnt(updates: int, plans: Sequence[Plan], prompts: torch.Tensor) -> Planner:
    torch.manual_seed(3)
    planner = Planner(PLANNER)
    optimiser = torch.optim.Adam(planner.parameters(), lr=1e-2)
    for update in range(updates):
        known = draw_known(len(plans), torch.Generator().manual_seed(update))
        loss = loss_on(planner, plans, known, prompts=prompts)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return planner.eval().requires_grad_(requires_grad=False)


def test_it_learns_whose_plan_is_asked_for(trees: Dataset) -> None:
    """Two groups with a plan each: the prompt says which; without one, what is fixed does."""
    plans = [measure_plan(roles, species=name) for roles, name in zip(trees.grids[:2], ("oak", "palm"), strict=True)]
    assert (plans[0].values != plans[1].values).sum() > 10
    nobody = torch.zeros(1, PLANNER.text)
    prompts = torch.cat([text(1, 1), text(1, 2), nobody, nobody])
    rows = [row % 4 for row in range(30)]
    planner = learnt(80, [plans[row % 2] for row in rows], prompts[rows])
    sizes = [SIZES["normal"]] * 12

    def right(prompt: torch.Tensor, of: Plan, fixed: Mapping[str, int]) -> float:
        found = draw_plans(planner, prompt.expand(12, -1), nobody, sizes, draws(12), fixed=[fixed] * 12)
        return float(np.mean([(plan.values == of.values).mean() for plan in found]))

    for number, plan in enumerate(plans):
        assert right(prompts[[number]], plan, {}) > 0.85
        fixed = {name: plan[name] for name in ("species", "height", "width", "density")}
        assert right(nobody, plan, fixed) > 0.75


def zeroed(planner: Planner) -> Planner:
    """Knows nothing: every value is as likely as any other."""
    for head in (*planner.heads, *planner.said, planner.move_head):
        for parameter in head.parameters():
            parameter.zero_()
    return planner


def test_the_loss_of_a_planner_that_knows_nothing_is_that_of_guessing(trees: Dataset) -> None:
    """Each value that is not shown costs the entropy of its classes, each move that of all moves."""
    planner = zeroed(made(size=0.0))
    plan = measure_plan(next(roles for roles in trees.grids if measure_plan(roles)["run"] > 3))
    guess = np.log(list(FIELDS.values()))
    # Moves and words are asked for whatever is shown; silence on an attribute is one thing more to say of it.
    rest = np.log(MOVES) + np.mean([np.log(len(values) + 1) for values in ATTRIBUTES.values()])
    nothing = torch.zeros(2, len(NAMES), dtype=torch.bool)
    assert float(loss_on(planner, [plan] * 2, ~nothing)) == pytest.approx(rest, rel=1e-5)
    for name in ("height", "reach_3"):
        one_open = ~nothing
        one_open[:, INDEX[name]] = False
        assert float(loss_on(planner, [plan] * 2, one_open)) == pytest.approx(guess[INDEX[name]] + rest, rel=1e-5)
    assert guess.min() < float(loss_on(planner, [plan] * 2, nothing)) - rest < guess.max()


def test_words_are_learned_by_what_they_say() -> None:
    """The prompt's vector alone must tell it; what is not said counts as well."""
    planner = zeroed(made(size=0.0))
    for column, head in enumerate(planner.said):
        head.get_parameter("bias")[2 if column == 0 else 0] = 20
    plan = Plan(np.zeros(len(NAMES), np.int64), np.zeros((1, 2), np.int64))
    everything = torch.ones(1, len(NAMES), dtype=torch.bool)
    wrong = [float(loss_on(planner, [plan], everything, said=said)) for said in (0, 2)]
    assert wrong == pytest.approx([20 / len(ATTRIBUTES), 20 * (len(ATTRIBUTES) - 1) / len(ATTRIBUTES)], rel=1e-3)


def test_what_is_said_is_counted_from_one_and_silence_is_nought() -> None:
    silent = dict.fromkeys(ATTRIBUTES)
    assert said_values(Attributes(**silent)) == [0] * len(ATTRIBUTES)
    for column, (name, values) in enumerate(ATTRIBUTES.items()):
        for number, value in enumerate(values, start=1):
            assert said_values(Attributes(**silent | {name: value}))[column] == number
    assert said_values(Attributes(**silent | {"species": "other"})) == [0] * len(ATTRIBUTES)


def test_what_is_not_shown_does_not_shine_through(trees: Dataset) -> None:
    """The first value is asked for with all others hidden: these may be anything."""
    planner, plan = made(), measure_plan(trees.grids[0])
    hidden = [
        planner.hidden(text(1), torch.zeros(1, dtype=torch.long), values, torch.zeros(1, len(NAMES), dtype=torch.bool))
        for values in (torch.from_numpy(plan.values)[None], torch.zeros(1, len(NAMES), dtype=torch.long))
    ]
    assert torch.equal(*hidden)


def test_half_of_the_plans_are_shown_as_they_are_drawn_and_the_others_in_parts() -> None:
    known = draw_known(4000, torch.Generator().manual_seed(0))
    assert known.shape == (4000, len(NAMES))
    in_order = (known[:, :-1] >= known[:, 1:]).all(1)
    assert 0.48 < float(in_order.float().mean()) < 0.6
    assert not known.all(1).any() or float(known.all(1).float().mean()) < 0.05
    # In both halves any share is shown, so that the first values and the last are learned alike.
    shares = known.float().mean(1)
    for half in (in_order, ~in_order):
        assert shares[half].min() < 0.1
        assert shares[half].max() > 0.9
        assert float(shares[half].mean()) == pytest.approx(0.5, abs=0.06)


def test_gradients_reach_all_of_it(trees: Dataset) -> None:
    torch.manual_seed(0)
    planner: Planner = shaken(Planner(PLANNER))
    plans = [measure_plan(roles) for roles in trees.grids]
    loss_on(planner, plans, draw_known(len(plans), torch.Generator().manual_seed(0))).backward()
    for name, parameter in planner.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("run", [0, 1])
def test_a_structure_without_a_trunk_has_no_path_to_learn(run: int) -> None:
    values = np.zeros(len(NAMES), np.int64)
    values[INDEX["run"]], values[INDEX["height"]] = run, 5
    planner = made(size=0.0)
    planner.move_head.bias.fill_(torch.nan)  # asked for a move, it would tell
    plan = Plan(values, np.full((5, 2), 6))
    assert torch.isfinite(loss_on(planner, [plan] * 4, torch.zeros(4, len(NAMES), dtype=torch.bool)))
