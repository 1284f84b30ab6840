"""Every plan can be said in words and read from them; whatever else is said is refused by name."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vernissage.core.errors import BadInput
from vernissage.sculptor.domain.plan import FIELDS, LEAFLESS, SPECIES, Plan, plan_of
from vernissage.sculptor.domain.sizes import SIZES
from vernissage.sculptor.use.plan_words import (
    PLAN_NAMES,
    clamped,
    plan_in_words,
    read_assignments,
    read_plan_words,
    within,
)

LEAST = {"height": 1, "width": 1, "depth": 1}
plans = st.fixed_dictionaries({name: st.integers(LEAST.get(name, 0), count - 1) for name, count in FIELDS.items()}).map(
    lambda values: plan_of(values, np.zeros((values["height"], 2), np.int64))
)


def plan(**values: int) -> Plan:
    return plan_of(dict.fromkeys(FIELDS, 1) | values, np.zeros((1, 2), np.int64))


@given(plans)
def test_words_for_a_plan_read_as_that_plan(made: Plan) -> None:
    words = plan_in_words(made)
    assert set(words) == set(PLAN_NAMES)
    assert read_plan_words(words) == {name: made[name] for name in FIELDS}
    assert read_plan_words({name: str(value) for name, value in words.items()}) == read_plan_words(words)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("species", "Dark_Oak", {"species": SPECIES.index("dark oak")}),
        ("species", "birch", {"species": SPECIES.index("birch")}),
        ("height", 12, {"height": 12}),
        (" Height ", " 12 ", {"height": 12}),
        ("height", 999, {"height": 999}),
        ("trunk", "thin", {"trunk": 1}),
        ("trunk", 4, {"trunk": 4}),
        ("trunk", "massive", {"trunk": 7}),
        ("trunk", 100, {"trunk": 13}),
        ("trunk-height", 5, {"run": 5}),
        ("run", 5, {"run": 5}),
        ("crown", "flat", {"shape": 2}),
        ("crown_base", "none", {"crown_base": LEAFLESS}),
        ("crown_base", LEAFLESS, {"crown_base": LEAFLESS - 1}),
        ("density", "dense", {"density": 9}),
        ("roots", "yes", {"roots": 1}),
        ("branches", "No", {"branches": 0}),
    ],
)
def test_words_mean(name: str, value: str | int, expected: dict[str, int]) -> None:
    assert read_plan_words({name: value}) == expected


@pytest.mark.parametrize("name", ["hight", "", "values", "radius_9", "x" * 1000, "h\ud800"])
def test_unknown_names_are_refused_with_the_list(name: str) -> None:
    with pytest.raises(
        BadInput, match=r"no such name, expected one of species, height, .* radius_0 to radius_3"
    ) as caught:
        read_plan_words({name: 1})
    assert len(str(caught.value)) < 400


def test_every_field_says_what_its_value_means() -> None:
    assert "a whole number" not in PLAN_NAMES.values()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("height", value) for value in ("0", "-3", "1.5", "", "tall", "1e3", "٣", "9" * 50, "0x10", "1_0")],
        *[("species", value) for value in ("oaks", "0", "")],
        *[("trunk", value) for value in ("fat", "-1")],
        *[("roots", value) for value in ("maybe", "2")],
        ("crown", "leafles"),
    ],
)
def test_values_that_mean_nothing_are_refused(name: str, value: str) -> None:
    with pytest.raises(BadInput, match=f"plan value {name} = .*expected "):
        read_plan_words({name: value})


def test_a_value_is_given_once() -> None:
    with pytest.raises(BadInput, match="twice"):
        read_plan_words({"crown": "flat", "shape": "round"})
    with pytest.raises(BadInput, match="twice"):
        read_assignments(["crown-base=1", "crown_base=2"])


def test_assignments() -> None:
    assert read_assignments(["height=12", " Trunk = thick", "species=a=b"]) == {
        "height": "12",
        "trunk": "thick",
        "species": "a=b",
    }
    with pytest.raises(BadInput, match="expected NAME=VALUE, such as height=12"):
        read_assignments(["height"])


def test_a_high_crown_base_stays_a_crown() -> None:
    normal = SIZES["normal"]
    assert within({"crown_base": 50}, normal) == {"crown_base": 15}
    assert within({"crown_base": 50, "height": 8}, normal) == {"crown_base": 7, "height": 8}
    assert within({"crown_base": LEAFLESS, "height": 8}, normal) == {"crown_base": LEAFLESS, "height": 8}
    assert within({"crown_base": 63}, SIZES["huge"]) == {"crown_base": 63}


def test_what_was_clamped_is_said() -> None:
    fixed = {"height": 40, "species": 0, "run": 3}
    assert clamped(fixed, plan(height=16, species=0, run=3), SIZES["normal"]) == (
        "the plan was clamped: height 40 became 16, in a grid of 16x16x16",
    )
    assert clamped(fixed, plan(height=40, species=0, run=2), SIZES["huge"]) == (
        "the plan was clamped: trunk_height 3 became 2, in a grid of 24x64x24",
    )
    assert clamped(fixed, plan(height=40, species=0, run=3), SIZES["huge"]) == ()
