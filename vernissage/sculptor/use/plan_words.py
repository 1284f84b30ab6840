"""Plans in the user's words: `height=12`, `trunk=4`, `species=dark oak` to values of a plan, and back."""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import TYPE_CHECKING

from vernissage.core.errors import BadInput
from vernissage.sculptor.domain.plan import FIELDS, LEAFLESS, MOST, SHAPES, SPECIES, TRUNK_COUNTS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from vernissage.sculptor.domain.plan import Plan
    from vernissage.sculptor.domain.sizes import Size

_QUARTERS = ("lowest", "second", "third", "highest")
# As `domain.plan` numbers them; the same on a compass, where -Z is north.
_TOWARDS = ("east", "south-east", "south", "south-west", "west", "north-west", "north", "north-east")
_SPOKEN = {
    "species": f"one of {', '.join(SPECIES)}",
    "height": "blocks from the ground to the top, at least 1",
    "width": "blocks along x, at least 1",
    "depth": "blocks along z, at least 1",
    "trunk": "blocks of wood in a layer of the trunk, or none, thin, thick, massive",
    "trunk_height": "layers of the trunk",
    "crown": f"one of {', '.join(SHAPES)}",
    "crown_base": "the lowest layer with leaves, counted from 0, or none",
    "density": "tenths of the crown that are filled, or sparse, dense",
    "roots": "yes or no",
    "branches": "yes or no",
    "base_x": "half-blocks along x from the tree's first block to the middle of its base",
    "base_z": "half-blocks along z from the tree's first block to the middle of its base",
    **{f"radius_{n}": f"blocks to the furthest leaves, in the {which} quarter" for n, which in enumerate(_QUARTERS)},
    **{f"limb_{n}": f"blocks to the furthest wood, {where} of the trunk" for n, where in enumerate(_TOWARDS)},
    **{f"limb_height_{n}": f"the layer of the furthest wood, {where} of the trunk" for n, where in enumerate(_TOWARDS)},
    **{f"limb_side_{n}": f"blocks that it lies beside the line {where}, plus 7" for n, where in enumerate(_TOWARDS)},
    **{f"limb_start_{n}": f"the layer where wood leaves the trunk {where}" for n, where in enumerate(_TOWARDS)},
    "drift": "blocks from the trunk's base to its end, seen from above",
    **{f"reach_{n}": f"blocks to the furthest leaves, {where} of the trunk" for n, where in enumerate(_TOWARDS)},
}
_FIELDS = {"trunk_height": "run", "crown": "shape"}
_NAMES = {field: name for name, field in _FIELDS.items()}
#: What can be asked for, and what a value means; every field of a plan has a name.
PLAN_NAMES: dict[str, str] = {
    name: _SPOKEN.get(name, "a whole number") for name in (_NAMES.get(field, field) for field in FIELDS)
}
_NUMBER = re.compile(r"\d{1,6}", re.ASCII)
_NONE = "none"
# A trunk of 2 x 2 is what builders call thick, one of 3 x 3 massive.
_TRUNKS = {_NONE: 0, "thin": 1, "thick": 4, "massive": 9}
_DENSITIES = {"sparse": 6, "dense": 9}
_SWITCHES = {"yes": 1, "no": 0, "true": 1, "false": 0, "1": 1, "0": 0}
_LEAST = {"height": 1, "width": 1, "depth": 1}
_SHOWN = 60


def read_assignments(texts: Sequence[str]) -> dict[str, str]:
    """Read `NAME=VALUE` texts.

    Raises:
        BadInput: One is written in another way, or a name is there twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign:
            raise BadInput(f"plan {_cut(text)}: expected NAME=VALUE, such as height=12")
        if (name := _plain(name)) in found:
            raise BadInput(f"plan value {_cut(name)} is given twice: expected it once")
        found[name] = value.strip()
    return found


def read_plan_words(words: Mapping[str, str | int]) -> dict[str, int]:
    """Return values of a plan by field, as `learn.sculpting.Request.fixed` takes them.

    Args:
        words: Values by the names of `PLAN_NAMES`; the names that `domain.plan.FIELDS` has for the same pass as well.

    Raises:
        BadInput: There is no such name, it is there twice, or its value cannot be read.
    """
    found: dict[str, int] = {}
    for asked, value in words.items():
        plain = _plain(asked)
        name = _NAMES.get(plain, plain)
        if name not in PLAN_NAMES:
            raise BadInput(f"plan value {_cut(asked)}: no such name, expected one of {_listed()}")
        field = _FIELDS.get(name, name)
        if field in found:
            raise BadInput(f"plan value {name} is given twice: expected it once")
        read = _READERS.get(name, _number)
        number = read(" ".join(str(value).lower().split()))
        if number is None or number < _LEAST.get(name, 0):
            raise BadInput(f"plan value {name} = {_cut(str(value))}: expected {PLAN_NAMES[name]}")
        found[field] = number
    return found


def plan_in_words(plan: Plan) -> dict[str, str | int]:
    """Return all values of a plan in words that :func:`read_plan_words` reads as the same plan."""
    return {name: value_in_words(_FIELDS.get(name, name), plan[_FIELDS.get(name, name)]) for name in PLAN_NAMES}


def value_in_words(field: str, value: int) -> str | int:
    """Return the word for a value of a field of `domain.plan.FIELDS`, or the number that a user would give."""
    match field:
        case "species" | "shape":
            return (SPECIES if field == "species" else SHAPES)[value]
        case "trunk":
            return TRUNK_COUNTS[value]
        case "roots" | "branches":
            return "yes" if value else "no"
        case "crown_base" if value == LEAFLESS:
            return _NONE
        case _:
            return value


def within(fixed: Mapping[str, int], size: Size) -> dict[str, int]:
    """Return the values as a planner takes them for a grid; it makes the others fit by itself.

    A crown's base is the exception: what is nearest to one that is too high is no crown at all.
    """
    if fixed.get("crown_base", LEAFLESS) == LEAFLESS:
        return dict(fixed)
    highest = min(size.height, MOST.height, fixed.get("height", MOST.height)) - 1
    return {**fixed, "crown_base": min(fixed["crown_base"], highest)}


def clamped(fixed: Mapping[str, int], plan: Plan, size: Size) -> tuple[str, ...]:
    """Return a sentence on the values that did not fit into a grid or to each other; none where all did."""
    changed = [
        f"{_NAMES.get(field, field)} {value_in_words(field, value)} became {value_in_words(field, plan[field])}"
        for field, value in fixed.items()
        if plan[field] != value
    ]
    return (f"the plan was clamped: {', '.join(changed)}, in a grid of {size}",) if changed else ()


def _plain(name: str) -> str:
    return name.strip().lower().replace("-", "_")


def _number(text: str) -> int | None:
    return int(text) if _NUMBER.fullmatch(text) else None


def _one_of(words: Sequence[str]) -> Callable[[str], int | None]:
    def read(text: str) -> int | None:
        text = text.replace("_", " ")
        return words.index(text) if text in words else None

    return read


def _trunk(text: str) -> int | None:
    count = _TRUNKS[text] if text in _TRUNKS else _number(text)
    return None if count is None else bisect_right(TRUNK_COUNTS, count) - 1


def _crown_base(text: str) -> int | None:
    if text == _NONE:
        return LEAFLESS
    number = _number(text)
    # The number that stands for "none" must not be met by accident.
    return None if number is None else min(number, LEAFLESS - 1)


def _density(text: str) -> int | None:
    return _DENSITIES[text] if text in _DENSITIES else _number(text)


def _listed() -> str:
    """All names, those that only differ in a number as one."""
    families: dict[str, list[str]] = {}
    for name in PLAN_NAMES:
        families.setdefault(name.rstrip("0123456789"), []).append(name)
    return ", ".join(names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}" for names in families.values())


def _cut(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")


_READERS: dict[str, Callable[[str], int | None]] = {
    "species": _one_of(SPECIES),
    "crown": _one_of(SHAPES),
    "trunk": _trunk,
    "crown_base": _crown_base,
    "density": _density,
    "roots": _SWITCHES.get,
    "branches": _SWITCHES.get,
}
