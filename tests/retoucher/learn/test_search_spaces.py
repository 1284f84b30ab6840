"""Search spaces: every entry is a real parameter within its bounds; what is printed is read back as it was tried."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from tests.retoucher.learn.worlds import PROPERTY
from vernissage.core.errors import BadParams
from vernissage.core.params import describe, load_params, parse_override
from vernissage.retoucher.learn.search_spaces import (
    MEASURE_KEYS,
    SEARCH_SPACES,
    Choice,
    SearchSpace,
    Span,
    check_space,
    choose_space,
    override_text,
    overrides_of,
)

SHIPPED = Path(__file__).parents[3] / "params.yaml"
LR_SCALE = "train.retoucher.lr_scale"
VALUES = {row.key: row.value for row in describe(load_params(SHIPPED))}


def trial_of(space: SearchSpace, seed: int) -> optuna.Trial:
    return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed)).ask()


@pytest.mark.parametrize("name", SEARCH_SPACES)
def test_every_entry_is_a_real_parameter_and_every_bound_is_accepted(name: str) -> None:
    space = choose_space(name)
    for dimension in space.dimensions:
        for value in dimension.bounds():
            load_params(SHIPPED, overrides=[override_text(dimension.key, value), "train.retoucher.slots=1024"])
        assert dimension.key not in MEASURE_KEYS


@pytest.mark.parametrize("name", SEARCH_SPACES)
def test_whatever_is_drawn_can_be_trained_with(name: str) -> None:
    space = choose_space(name)
    for seed in range(40):
        values = space.suggest(trial_of(space, seed))
        params = load_params(SHIPPED, overrides=overrides_of({**values, **space.chosen, **space.meanwhile}))
        found = {row.key: row.value for row in describe(params)}
        assert {key: list(v) if isinstance(v := found[key], tuple) else v for key in values} == values


def test_the_spaces_share_the_planner_and_choose_their_algorithm() -> None:
    keys = {name: {dimension.key for dimension in space.dimensions} for name, space in SEARCH_SPACES.items()}
    assert keys["planner"] < keys["ppo"] & keys["dqn"]
    assert keys["ppo"] - keys["dqn"]
    assert all("dqn" in key for key in keys["dqn"] - keys["ppo"])
    for name in ("ppo", "dqn"):
        assert SEARCH_SPACES[name].chosen == {"train.retoucher.algorithm": name}


def problem(*dimensions: Any, **fixed: Any) -> str:
    with pytest.raises(BadParams) as caught:
        check_space(SearchSpace("mine", "", dimensions, **fixed))
    return str(caught.value)


@pytest.mark.parametrize(
    ("dimension", "text"),
    [
        (Span("train.retoucher.lr_scalee", 1.0, 2.0), "is no parameter; did you mean train.retoucher.lr_scale?"),
        (Span("train.retoucher.clip", 0.1, 1.0), "1.0: expected number above 0 and below 1"),
        (Span(LR_SCALE, 0.0, 2.0), "0.0: expected number above 0"),
        (Span(LR_SCALE, 3.0, 2.0), "expected the smaller number first"),
        (Span("train.retoucher.entropy", 0.0, 1.0, log=True), "expected low above 0 and no step"),
        (Span(LR_SCALE, 1.0, 2.0, step=-1.0), "step = -1.0: expected a number above 0"),
        (Span("train.retoucher.rollout", 1, 8), "is a whole number: low, high and step must be whole"),
        (Choice("train.retoucher.algorithm", ("ppo", "a2c")), "'a2c': expected one of ppo, dqn"),
        (Choice("train.retoucher.widths", ((8, 16), (0, 1))), "[0, 1]: expected a list of whole numbers from 1"),
        (Choice("train.retoucher.rollout", (8,)), "expected two or more, all different"),
        (Choice("train.retoucher.rollout", (8, 8)), "expected two or more, all different"),
        (Span("train.retoucher.harm_aversion", 0.1, 2.0), "changes what the objective means"),
    ],
)
def test_what_does_not_fit_the_registry_is_refused(dimension: Any, text: str) -> None:
    message = problem(dimension)
    assert message.startswith(f"search space mine: {dimension.key}: ")
    assert text in message


def test_keys_at_odds_are_refused() -> None:
    span = Span(LR_SCALE, 0.5, 2.0)
    assert "appears twice" in problem(span, span)
    assert "searched and fixed at once" in problem(span, meanwhile={LR_SCALE: 1.0})
    assert "no parameter" in problem(chosen={"train.retoucher.algorithmm": "ppo"})


def test_an_unknown_space_lists_those_that_there_are() -> None:
    with pytest.raises(
        BadParams, match=r"algorithm 'ppoo': .*ppo \(planner and PPO together\), dqn.*did you mean ppo\?"
    ):
        choose_space("ppoo")


def read_by_yaml_1_1(text: str) -> Any:
    reader = YAML(typ="safe", pure=True)
    reader.version = (1, 1)
    return reader.load(text)


@PROPERTY
@given(st.floats(1e-12, 1e12, allow_nan=False))
def test_numbers_are_numbers_for_every_reader(value: float) -> None:
    key, _, written = override_text("train.retoucher.entropy", value).partition("=")
    assert parse_override(f"{key}={written}") == ("train.retoucher.entropy", value)
    found = read_by_yaml_1_1(written)
    assert isinstance(found, float)
    assert found == value


def test_the_shape_of_written_values() -> None:
    assert override_text("a", 5e-05) == "a=0.00005"
    assert override_text("a", 3.0) == "a=3.0"
    assert override_text("a", [16, 32]) == "a=[16,32]"
    assert override_text("a", "dqn") == "a=dqn"
    # Words that YAML takes for something else stay in quotes.
    assert override_text("a", "null") == 'a="null"'
    assert override_text("a", "3") == 'a="3"'


@PROPERTY
@given(st.floats(0.01, 100.0))
def test_a_logarithmic_span_settles_on_three_digits_within_its_bounds(value: float) -> None:
    span = Span(LR_SCALE, 0.0123456, 98.7654, log=True)
    settled = span.value(min(max(value, span.low), span.high))
    assert span.low <= settled <= span.high
    assert span.value(settled) == settled
    assert math.isclose(settled, min(max(value, span.low), span.high), rel_tol=0.006)


def test_values_survive_being_stored() -> None:
    for space in SEARCH_SPACES.values():
        trial = trial_of(space, 5)
        values = space.suggest(trial)
        assert space.values(trial.params) == values
        assert space.values(space.stored(values)) == values


def test_a_space_is_widened_by_the_values_in_use() -> None:
    space = SearchSpace(
        "mine",
        "",
        (
            Span(LR_SCALE, 0.5, 2.0, log=True),
            Span("train.retoucher.entropy", 1e-4, 1e-2, log=True),
            Choice("train.retoucher.rollout", (8, 32)),
            Choice("train.retoucher.widths", ((8, 16), (16, 32))),
        ),
    )
    present = {
        LR_SCALE: 7.0,
        "train.retoucher.entropy": 0.0,
        "train.retoucher.rollout": 16,
        "train.retoucher.widths": (4, 8),
    }
    wide = space.around(present)
    assert wide.dimensions[0] == Span(LR_SCALE, 0.5, 7.0, log=True)
    # No logarithmic scale reaches zero.
    assert wide.dimensions[1] == space.dimensions[1]
    assert wide.dimensions[2] == Choice("train.retoucher.rollout", (8, 16, 32))
    assert wide.dimensions[3] == Choice("train.retoucher.widths", ((8, 16), (16, 32), (4, 8)))
    assert set(wide.stored(present)) == set(present) - {"train.retoucher.entropy"}
    assert wide.around(present) == wide


@pytest.mark.parametrize("name", SEARCH_SPACES)
def test_the_shipped_parameters_are_a_trial_of_every_space(name: str) -> None:
    space = choose_space(name)
    present = {dimension.key: VALUES[dimension.key] for dimension in space.dimensions}
    wide = space.around(present)
    check_space(wide)
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in present.items()}
    assert wide.values(wide.stored(present)) == plain


def test_a_value_between_the_steps_cannot_be_chosen() -> None:
    span = Span("train.retoucher.gamma", 0.9, 1.0, step=0.01)
    assert span.stored(0.95) == 0.95
    assert span.stored(0.955) is None
    assert span.stored(1.5) is None
    whole = Span("train.retoucher.ppo_epochs", 1, 9, step=2)
    assert (whole.stored(5), whole.stored(4)) == (5, None)
