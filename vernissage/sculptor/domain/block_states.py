"""How block states are spelled: `namespace:name[key=value,...]`.

Source: https://minecraft.wiki/w/Block_states, names as in Java Edition 1.13 and later.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from vernissage.core.errors import BadInput
from vernissage.sculptor.domain.structure import AIR_STATE

if TYPE_CHECKING:
    from collections.abc import Mapping

AIR_NAMES = frozenset({AIR_STATE, "minecraft:cave_air", "minecraft:void_air", "minecraft:structure_void"})

_NAME = re.compile(r"(?:[a-z0-9_.-]+:)?[a-z0-9_/.-]+")
_KEY = re.compile(r"[a-z0-9_]+")
_VALUE = re.compile(r"[a-z0-9_.+-]+")
_STATE = re.compile(r"([^\[\]]*)(?:\[([^\[\]]*)\])?")
_SHOWN = 80
_LONGEST = 4096  # an NBT string holds 65,535 bytes; no block of any mod comes near


def canonical_state(name: str, properties: Mapping[str, str] | None = None) -> str:
    """Return a block state with its properties in alphabetical order; `minecraft` is the namespace where none is given.

    Raises:
        BadInput: The name, a property or a value has characters that no block state may have, or all is too long.
    """
    if len(name) + sum(len(key) + len(value) + 2 for key, value in (properties or {}).items()) > _LONGEST:
        raise BadInput(f"block name {name[:_SHOWN]!r}...: longer than {_LONGEST:,} letters, no longer ones pass")
    if _NAME.fullmatch(name) is None:
        raise BadInput(f"block name {name[:_SHOWN]!r}: expected namespace:name in lower case, such as {AIR_STATE}")
    full = name if ":" in name else f"minecraft:{name}"
    if not properties:
        return full
    for key, value in properties.items():
        if _KEY.fullmatch(key) is None or _VALUE.fullmatch(value) is None:
            raise BadInput(f"block {full}, property {f'{key}={value}'[:_SHOWN]!r}: expected key=value in lower case")
    return f"{full}[{','.join(f'{key}={properties[key]}' for key in sorted(properties))}]"


def parse_state(state: str) -> tuple[str, dict[str, str]]:
    """Return the name, with its namespace, and the properties of a block state.

    Raises:
        BadInput: It is no block state, or names a property twice.
    """
    name, properties = _parsed(state)
    return name, dict(properties)


def block_name(state: str) -> str:
    """Return a canonical state without its properties."""
    return state.partition("[")[0]


def block_path(state: str) -> str:
    """Return the name in a canonical state without namespace and properties."""
    return block_name(state).partition(":")[2]


@lru_cache(maxsize=4096)
def _parsed(state: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    match = _STATE.fullmatch(state)
    if match is None:
        raise BadInput(f"block state {state[:_SHOWN]!r}: expected namespace:name or namespace:name[key=value,...]")
    name, inside = match.groups()
    properties: dict[str, str] = {}
    for pair in inside.split(",") if inside else ():
        key, _, value = pair.partition("=")
        if key in properties:
            raise BadInput(f"block state {state[:_SHOWN]!r} says {key} twice: expected every property once")
        properties[key] = value
    return block_name(canonical_state(name, properties)), tuple(properties.items())
