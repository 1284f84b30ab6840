"""Reads a YAML file into typed sections, and says in one line per problem what is wrong with it."""

from __future__ import annotations

import difflib
import json
import math
import types
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from vernissage.core.errors import BadParams

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path


_LONGEST_VALUE = 60


class Section(BaseModel):
    """A part of a YAML file: known keys only, exact types, never changed after loading."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, hide_input_in_errors=True)


AnySection = TypeVar("AnySection", bound=Section)


def _float_from_text(value: object) -> object:
    # Hydra writes 5e-05, which readers of YAML 1.1 (dvc among them) take for text and hand on in quotes.
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _tuple_from_list(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


Real = Annotated[float, BeforeValidator(_float_from_text)]
"""A finite number; whole numbers and text such as "5e-05" are taken too."""

LIST_AS_TUPLE = BeforeValidator(_tuple_from_list)
"""Makes a YAML list fit a field of a tuple type, as in `Annotated[tuple[Real, Real], LIST_AS_TUPLE]`."""


def knob(
    meaning: str,
    *,
    stages: str | Sequence[str] = (),
    unit: str = "",
    gt: float | None = None,
    ge: float | None = None,
    lt: float | None = None,
    le: float | None = None,
    alias: str | None = None,
) -> Any:
    """Describe one value of a section.

    Args:
        meaning: One sentence: what it does and why one would change it.
        stages: The stage or stages that read it.
        unit: Unit in which the value is counted, such as `px`; empty for plain numbers.
        gt: The value must be above this.
        ge: The value must be this or above.
        lt: The value must be below this.
        le: The value must be this or below.
        alias: The key in the file where the attribute needs another name (`validate`, for one, belongs to pydantic).
    """
    extra: dict[str, Any] = {"unit": unit, "stage": [stages] if isinstance(stages, str) else list(stages)}
    return Field(description=meaning, gt=gt, ge=ge, lt=lt, le=le, alias=alias, json_schema_extra=extra)


@dataclass(frozen=True)
class ParamRow:
    """One line of the table that `vernissage params` prints.

    Attributes:
        key: Dotted key, as `dvc exp run -S` takes it.
        value: The value that was loaded.
        type: In words, such as `whole number`.
        unit: Such as `px`; empty for plain numbers.
        stages: The stages that read the value.
        meaning: What it does and why one would change it.
        default_range: The values that are accepted, such as `from 0 to 1`; empty where there is no bound.
    """

    key: str
    value: Any
    type: str
    unit: str
    stages: tuple[str, ...]
    meaning: str
    default_range: str


def read_tree(path: Path) -> dict[str, Any]:
    """Return a YAML 1.2 file as plain dicts, lists and scalars.

    Raises:
        BadParams: The file is missing, not UTF-8, not YAML, says a key twice, or is not a mapping.
    """
    try:
        tree = _yaml().load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadParams(f"{path}: no such file; run this in the project's folder") from error
    except (OSError, UnicodeDecodeError) as error:
        raise BadParams(f"{path}: cannot be read ({error}); expected a UTF-8 text file") from error
    except (YAMLError, ValueError, RecursionError) as error:
        raise BadParams(f"{path}: {_yaml_problem(error)}") from error
    if not isinstance(tree, dict):
        raise BadParams(f"{path}: expected sections with keys, found {_shown(tree)}")
    return tree


def parse_override(text: str) -> tuple[str, Any]:
    """Split `a.b=1e-3` into its dotted key and its typed value (read as YAML).

    Raises:
        BadParams: There is no `=`, the key has an empty part, or the value is not YAML.
    """
    key, equals, written = text.partition("=")
    key = key.strip()
    if not equals or not all(key.split(".")):
        raise BadParams(f"override {text!r}: expected key=value with a dotted key, for example resize.long_edge=384")
    try:
        return key, _yaml().load(written)
    except (YAMLError, ValueError, RecursionError) as error:
        raise BadParams(f"override {text!r}: {_yaml_problem(error)}") from error


def format_override(key: str, value: Any) -> str:
    """Return `a.b=value` such that `parse_override` and `dvc exp run -S` both read the same value back."""
    return f"{key}={json.dumps(value, ensure_ascii=False, separators=(',', ':'))}"


def with_overrides(tree: Mapping[str, Any], overrides: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Return a copy of `tree` in which each dotted key has its new value.

    Raises:
        BadParams: A key leads through a plain value.
    """
    result = deepcopy(dict(tree))
    for key, value in overrides.items():
        *parents, last = key.split(".")
        place = result
        for depth, name in enumerate(parents, start=1):
            below = place.setdefault(name, {})
            if not isinstance(below, dict):
                raise BadParams(f"{source}: {key}: {'.'.join(parents[:depth])} is a value, not a section with keys")
            place = below
        place[last] = value
    return result


def build(
    model: type[AnySection], tree: Mapping[str, Any], *, source: str, origins: Mapping[str, str] | None = None
) -> AnySection:
    """Return `tree` as a typed section.

    Args:
        model: What the tree must look like.
        tree: Plain dicts, lists and scalars.
        source: What to put in front of each problem: the file's name.
        origins: For dotted keys that did not come from the file, what to put in front instead.

    Raises:
        BadParams: One line per problem, each with the key, what was found and what was expected.
    """
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        lines = {_problem(model, dict(item), source, origins or {}): None for item in error.errors()}
        raise BadParams("\n".join(lines)) from error


def describe_section(section: Section) -> list[ParamRow]:
    """Return one row per value, in the order in which the fields are declared; mappings give one row per key."""
    rows: list[ParamRow] = []
    for key, info, value in _values(section, ""):
        extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
        stages = extra.get("stage", ())
        row = ParamRow(
            key=key,
            value=value,
            type=type_words(info.annotation),
            unit=str(extra.get("unit", "")),
            stages=tuple(str(stage) for stage in stages) if isinstance(stages, list) else (),
            meaning=info.description or "",
            default_range=range_words(info),
        )
        rows.append(row)
    return rows


def fields_of(model: type[Section], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield the dotted key and the field of every value below `model`, in declaration order."""
    for name, info in model.model_fields.items():
        key = prefix + (info.alias or name)
        nested = _section_type(info.annotation)
        if nested is None:
            yield key, info
        else:
            yield from fields_of(nested, f"{key}.")


def suggestion(word: str, known: Sequence[str]) -> str:
    """Return `; did you mean x?` for the nearest known word, or nothing when none is near."""
    near = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def type_words(annotation: Any) -> str:
    """Return a type in words, such as `whole number`."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_words(arguments[0])
    if origin is Literal:
        return "one of " + ", ".join(str(choice) for choice in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join("nothing" if part is type(None) else type_words(part) for part in arguments)
    if origin in (tuple, list):
        return _sequence_words(arguments)
    if origin is dict:
        return type_words(arguments[1])
    plain = {bool: "true or false", int: "whole number", float: "number", str: "text"}
    return plain.get(annotation, "value")


def range_words(info: FieldInfo) -> str:
    """Return the bounds of a field in words, such as `from 0 to 1` or `above 0`; empty where there are none."""
    metadata = list(info.metadata)
    if get_origin(info.annotation) in (tuple, list):
        # All items of our lists share one set of bounds, written at the item.
        metadata += _item_metadata(info)
    return _bounds_words(metadata)


def _item_metadata(info: FieldInfo) -> list[Any]:
    parts = get_args(get_args(info.annotation)[0])[1:]
    return [bound for part in parts for bound in (part.metadata if isinstance(part, FieldInfo) else [part])]


def _yaml() -> YAML:
    # The pure Python reader follows YAML 1.2, in which 5e-05 is a number and `no` is a word.
    return YAML(typ="safe", pure=True)


def _yaml_problem(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
    where = "" if mark is None else f" in line {mark.line + 1}, column {mark.column + 1}"
    return f"not valid YAML{where}: {problem}"


def _section_type(annotation: Any) -> type[Section] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else None


def _values(section: Section, prefix: str) -> Iterator[tuple[str, FieldInfo, Any]]:
    for name, info in type(section).model_fields.items():
        key, value = prefix + (info.alias or name), getattr(section, name)
        if isinstance(value, Section):
            yield from _values(value, f"{key}.")
        elif isinstance(value, dict):
            for inner, item in value.items():
                if isinstance(item, Section):
                    yield from _values(item, f"{key}.{inner}.")
                else:
                    yield f"{key}.{inner}", info, item
        else:
            yield key, info, value


def _problem(model: type[Section], item: Mapping[str, Any], source: str, origins: Mapping[str, str]) -> str:
    location, kind = item["loc"], item["type"]
    key = _dotted(location)
    where = _origin(key, origins) if key else _all_origins(source, origins)
    where = where or source
    place = f"{where}: {key}" if key else where
    if kind == "extra_forbidden":
        return f"{place}: unknown key{_near_key(model, location)}"
    if kind == "value_error":
        return f"{place}: {item['ctx']['error']}"
    expected = _expected(model, location)
    if kind == "missing":
        return f"{place}: missing, expected {expected}"
    return f"{place} = {_shown(item['input'])}: expected {expected}{_near_choice(item)}"


def _dotted(location: Sequence[int | str]) -> str:
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in location if part != "[key]"]
    return "".join(parts).removeprefix(".")


def _origin(key: str, origins: Mapping[str, str]) -> str | None:
    # A wrong key or item lies above or below the override that brought it.
    for name, origin in origins.items():
        if key == name or name.startswith(f"{key}.") or key.startswith((f"{name}.", f"{name}[")):
            return origin
    return None


def _all_origins(source: str, origins: Mapping[str, str]) -> str:
    # Two values that are at odds with each other may have come from different places.
    return " with ".join([source, *dict.fromkeys(origins.values())])


def _near_key(model: type[Section], location: Sequence[int | str]) -> str:
    parents, last = location[:-1], str(location[-1])
    section = _field_at(model, parents) if parents else model
    nested = section if isinstance(section, type) else _section_type(section.annotation if section else None)
    siblings = _keys(nested) if nested else []
    near = difflib.get_close_matches(last, siblings, n=1)
    if near:
        return f"; did you mean {_dotted([*parents, near[0]])}?"
    # The right name in the wrong section, or under the wrong parent.
    elsewhere = [key for key, _ in fields_of(model) if key.rpartition(".")[2] == last]
    return f"; did you mean {elsewhere[0]}?" if elsewhere else ""


def _near_choice(item: Mapping[str, Any]) -> str:
    if item["type"] != "literal_error" or not isinstance(item["input"], str):
        return ""
    choices = [choice.strip("'") for choice in item["ctx"]["expected"].replace(" or ", ", ").split(", ")]
    return suggestion(item["input"], choices)


def _keys(model: type[Section]) -> list[str]:
    return [info.alias or name for name, info in model.model_fields.items()]


def _field_at(model: type[Section], location: Sequence[int | str]) -> FieldInfo | None:
    current: type[Section] | None = model
    info: FieldInfo | None = None
    for part in location:
        if current is None:
            break  # the rest of the way leads into a list or a mapping
        names = {field.alias or name: field for name, field in current.model_fields.items()}
        info = names.get(str(part))
        current = _section_type(info.annotation) if info is not None else None
    return info


def _expected(model: type[Section], location: Sequence[int | str]) -> str:
    info = _field_at(model, location)
    if info is None:
        return "text as a key"
    nested = _section_type(info.annotation)
    if nested is not None:
        return "a section with the keys " + ", ".join(
            field.alias or name for name, field in nested.model_fields.items()
        )
    words = type_words(info.annotation)
    if isinstance(location[-1], int):
        words = type_words(get_args(info.annotation)[0])
    if get_origin(info.annotation) is dict:
        words = f"names, each with {'keys and values' if words == 'value' else words}"
    article = "a " if words in {"whole number", "number"} else ""
    return f"{article}{words} {range_words(info)}".rstrip()


def _sequence_words(arguments: tuple[Any, ...]) -> str:
    item = type_words(arguments[0])
    plural = {"number": "numbers", "whole number": "whole numbers", "text": "texts"}.get(item, item)
    count = len([part for part in arguments if part is not Ellipsis])
    return f"a list of {plural}" if count < 2 else f"a list of {count} {plural}"


def _bounds_words(metadata: Sequence[Any]) -> str:
    # Pydantic keeps each bound as an object with one attribute named after it.
    bounds = {
        name: getattr(part, name) for part in metadata for name in ("ge", "gt", "le", "lt") if hasattr(part, name)
    }
    low = f"from {_short_number(bounds['ge'])}" if "ge" in bounds else ""
    low = f"above {_short_number(bounds['gt'])}" if "gt" in bounds else low
    high = f"to {_short_number(bounds['le'])}" if "le" in bounds else ""
    high = f"below {_short_number(bounds['lt'])}" if "lt" in bounds else high
    if low.startswith("above") and high.startswith("to "):
        high = "up " + high
    if not low and high.startswith("to "):
        high = "up " + high
    if low.startswith("from") and not high:
        low += " upwards"
    joint = " and " if high.startswith("below") and low else " "
    return f"{low}{joint}{high}".strip()


def _short_number(value: Any) -> str:
    if isinstance(value, int) and (value < 10**6 or value % 10**6):
        return str(value)
    return f"{value:g}".replace("e+0", "e").replace("e+", "e")


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    text = repr(value)
    if len(text) > _LONGEST_VALUE:
        text = text[: _LONGEST_VALUE - 1] + "…"
    if isinstance(value, float) and not math.isfinite(value):
        return f"{text} (not finite)"
    return f"{text} ({type(value).__name__})"
