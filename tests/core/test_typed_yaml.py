"""Typed sections from YAML, on a small made-up model: what is taken, and what each refusal says."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError, model_validator

from vernissage.core.errors import BadParams
from vernissage.core.typed_yaml import (
    LIST_AS_TUPLE,
    Real,
    Section,
    build,
    describe_section,
    fields_of,
    format_override,
    knob,
    parse_override,
    read_tree,
    with_overrides,
)

if TYPE_CHECKING:
    from pathlib import Path

Percent = Annotated[Real, Field(ge=0, le=100)]


class Oven(Section):
    """How hot."""

    heat: int = knob("Heat.", stages="bake", unit="°C", ge=50, le=10**9)
    fan: bool = knob("Fan.", stages=("bake", "cool"))
    mode: Literal["upper", "lower"] = knob("Which side.")
    shares: Annotated[tuple[Percent, Percent], LIST_AS_TUPLE] = knob("From and to.")


class Kitchen(Section):
    """A model of one section, one mapping, one alias, one optional value."""

    salt: Real = knob("Salt.", unit="g", gt=0)
    note: str | None = knob("Note.")
    oven: Oven
    validate_: bool = knob("A name that pydantic has taken.", alias="validate")
    labels: dict[str, str] = knob("Labels.")
    tags: list[int] = knob("Tags.")

    @model_validator(mode="after")
    def _salt_is_sane(self) -> Self:
        if self.salt > self.oven.heat:
            raise ValueError(f"salt = {self.salt:g} is above oven.heat = {self.oven.heat}")
        return self


def tree(**changes: Any) -> dict[str, Any]:
    plain = {
        "salt": 1.5,
        "note": None,
        "oven": {"heat": 200, "fan": True, "mode": "upper", "shares": [0, 50.5]},
        "validate": False,
        "labels": {"a": "b"},
        "tags": [1, 2],
    }
    return with_overrides(plain, changes, "test")


def problem(**changes: Any) -> str:
    with pytest.raises(BadParams) as caught:
        build(Kitchen, tree(**changes), source="k.yaml")
    return str(caught.value)


def test_a_good_tree() -> None:
    kitchen = build(Kitchen, tree(), source="k.yaml")
    assert (kitchen.oven.shares, kitchen.validate_, kitchen.labels) == ((0.0, 50.5), False, {"a": "b"})
    with pytest.raises(ValidationError):
        kitchen.salt = 3.0


@pytest.mark.parametrize(("written", "value"), [("5e-05", 5e-05), (" 3 ", 3.0), (2, 2.0), ("1_0", 10.0), (0.25, 0.25)])
def test_numbers_may_be_text_or_whole(written: object, value: float) -> None:
    salt = build(Kitchen, tree(salt=written), source="k.yaml").salt
    assert (salt, type(salt)) == (value, float)


@pytest.mark.parametrize("written", ["nan", "inf", "-inf", math.nan, math.inf, True, "", "x", None, [1], "0x10"])
def test_what_is_no_number(written: object) -> None:
    assert problem(salt=written).startswith("k.yaml: salt = ")
    assert problem(salt=written).endswith(": expected a number above 0")


@pytest.mark.parametrize("written", ["200", 200.0, True, None, "many", [200]])
def test_whole_numbers_are_strict(written: object) -> None:
    assert "expected a whole number from 50 to 1e9" in problem(**{"oven.heat": written})


@pytest.mark.parametrize("written", ["true", 1, 0, None, "yes"])
def test_true_and_false_are_strict(written: object) -> None:
    assert problem(**{"oven.fan": written}).endswith("expected true or false")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"oven.heat": "many"}, "k.yaml: oven.heat = 'many' (str): expected a whole number from 50 to 1e9"),
        ({"oven.heat": 10}, "k.yaml: oven.heat = 10 (int): expected a whole number from 50 to 1e9"),
        ({"oven.haet": 3}, "k.yaml: oven.haet: unknown key; did you mean oven.heat?"),
        ({"heat": 3}, "k.yaml: heat: unknown key; did you mean oven.heat?"),
        ({"xyzzy": 3}, "k.yaml: xyzzy: unknown key"),
        ({"oven": None}, "k.yaml: oven = nothing: expected a section with the keys heat, fan, mode, shares"),
        ({"oven": [1]}, "k.yaml: oven = [1] (list): expected a section with the keys heat, fan, mode, shares"),
        ({"oven.mode": "uper"}, "k.yaml: oven.mode = 'uper' (str): expected one of upper, lower; did you mean upper?"),
        ({"oven.shares": [1]}, "k.yaml: oven.shares[1]: missing, expected a number from 0 to 100"),
        ({"oven.shares": [1, 200]}, "k.yaml: oven.shares[1] = 200 (int): expected a number from 0 to 100"),
        (
            {"oven.shares": [1, 2, 3]},
            "k.yaml: oven.shares = (1, 2, 3) (tuple): expected a list of 2 numbers from 0 to 100",
        ),
        ({"validate": 3}, "k.yaml: validate = 3 (int): expected true or false"),
        ({"note": 3}, "k.yaml: note = 3 (int): expected text or nothing"),
        ({"labels": 3}, "k.yaml: labels = 3 (int): expected names, each with text"),
        ({"labels": {"a": 3}}, "k.yaml: labels.a = 3 (int): expected names, each with text"),
        ({"tags": ["x"]}, "k.yaml: tags[0] = 'x' (str): expected a whole number"),
        ({"salt": 300}, "k.yaml: salt = 300 is above oven.heat = 200"),
    ],
)
def test_each_problem_is_said_in_one_line(changes: dict[str, Any], text: str) -> None:
    assert problem(**changes) == text


def test_all_problems_are_said_at_once() -> None:
    broken = tree(salt="x", extra=1)
    del broken["oven"]["fan"]
    with pytest.raises(BadParams) as caught:
        build(Kitchen, broken, source="k.yaml")
    assert str(caught.value).split("\n") == [
        "k.yaml: salt = 'x' (str): expected a number above 0",
        "k.yaml: oven.fan: missing, expected true or false",
        "k.yaml: extra: unknown key",
    ]


def test_long_values_are_cut() -> None:
    assert len(problem(salt="y" * 500)) < 130


@pytest.mark.parametrize("key", [1, None, True, 2.5])
def test_a_key_that_is_no_text_is_a_problem_and_no_crash(key: object) -> None:
    broken = tree()
    broken["oven"][key] = 1
    with pytest.raises(BadParams, match=r"k\.yaml"):
        build(Kitchen, broken, source="k.yaml")


def test_origins_name_who_brought_a_value() -> None:
    origins = {"oven.heat": "profile hot", "labels": "override"}
    with pytest.raises(BadParams) as caught:
        build(Kitchen, tree(**{"oven.heat": 1, "labels": {"a": 1}, "note": 2}), source="k.yaml", origins=origins)
    assert [line.split(":")[0] for line in str(caught.value).split("\n")] == ["k.yaml", "profile hot", "override"]
    with pytest.raises(BadParams, match=r"^k\.yaml with profile hot with override: salt = 300"):
        build(Kitchen, tree(salt=300), source="k.yaml", origins=origins)


def test_description() -> None:
    rows = {row.key: row for row in describe_section(build(Kitchen, tree(), source="k.yaml"))}
    assert list(rows) == [
        "salt", "note", "oven.heat", "oven.fan", "oven.mode", "oven.shares", "validate", "labels.a", "tags",
    ]  # fmt: skip
    heat = rows["oven.heat"]
    assert (heat.value, heat.type, heat.unit, heat.stages) == (200, "whole number", "°C", ("bake",))
    assert (heat.meaning, heat.default_range) == ("Heat.", "from 50 to 1e9")
    assert rows["oven.fan"].stages == ("bake", "cool")
    assert (rows["oven.shares"].type, rows["oven.shares"].default_range) == ("a list of 2 numbers", "from 0 to 100")
    assert rows["tags"].type == "a list of whole numbers"
    assert [key for key, _ in fields_of(Kitchen)][-3:] == ["validate", "labels", "tags"]


def test_files_are_yaml_1_2(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("a: 5e-05\nb: no\nc: 1e3\nd: &x [1]\ne: *x\n")
    assert read_tree(path) == {"a": 5e-05, "b": "no", "c": 1000.0, "d": [1], "e": [1]}


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"a: 1\na: 2\n", 'line 2, column 1: found duplicate key "a"'),
        (b"a: [1\n", "not valid YAML"),
        (b"a:\tb: c", "not valid YAML"),
        (b"- 1\n", "expected sections"),
        (b"", "found nothing"),
        (b"\xff\xfe\x00", "expected a UTF-8 text file"),
        (b"a: !!python/object:os.system {}", "not valid YAML"),
        (b"a: *nowhere", "undefined alias"),
        (b"[" * 5000, "not valid YAML"),
        (b"a: \0", "not valid YAML"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, data: bytes, text: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(data)
    with pytest.raises(BadParams) as caught:
        read_tree(path)
    assert str(path) in str(caught.value)
    assert text in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadParams, match="no such file"):
        read_tree(tmp_path / "a.yaml")
    with pytest.raises(BadParams, match="cannot be read"):
        read_tree(tmp_path)


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("a.b=1e-3", "a.b", 1e-3),
        ("lr=5e-05", "lr", 5e-05),
        (" a = 3 ", "a", 3),
        ("a=[0.5, 0.9]", "a", [0.5, 0.9]),
        ("a=b=c", "a", "b=c"),
        ("a=", "a", None),
        ("a='1'", "a", "1"),
        ("a=true", "a", True),
    ],
)
def test_overrides(text: str, key: str, value: object) -> None:
    assert parse_override(text) == (key, value)
    assert type(parse_override(text)[1]) is type(value)


@pytest.mark.parametrize("text", ["a", "=1", ".a=1", "a..b=1", "a.=1", "", "a=[1", "a='"])
def test_broken_overrides(text: str) -> None:
    with pytest.raises(BadParams, match="override"):
        parse_override(text)


@given(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["C", "Zl", "Zp"]))
    | st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=3)
)
def test_formatted_overrides_are_read_back(value: object) -> None:
    key, again = parse_override(format_override("a.b", value))
    assert (key, again) == ("a.b", value)


def test_overrides_do_not_touch_the_tree_they_came_from() -> None:
    before = {"a": {"b": 1}}
    assert with_overrides(before, {"a.b": 2, "c.d": 3}, "x") == {"a": {"b": 2}, "c": {"d": 3}}
    assert before == {"a": {"b": 1}}
    with pytest.raises(BadParams, match=r"x: a\.b\.c: a\.b is a value"):
        with_overrides(before, {"a.b.c": 2}, "x")
