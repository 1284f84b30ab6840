"""Properties that a block has because of its neighbours: the axis of logs, the sides that vines cling to.

Grids are (Y, Z, X); east is +x, south is +z.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from vernissage.sculptor.domain.block_states import block_name, canonical_state, parse_state
from vernissage.sculptor.domain.roles import WOODS, Role

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_LOG = re.compile(r"minecraft:\w+_(log|wood|hyphae)|minecraft:(crimson|warped|stripped_crimson|stripped_warped)_stem")
_LEAVES = re.compile(r"minecraft:\w+_leaves")
_VINE = "minecraft:vine"
_SIDES = {"east": (0, 0, 1), "west": (0, 0, -1), "south": (0, 1, 0), "north": (0, -1, 0), "up": (1, 0, 0)}


def placed_states(roles: np.ndarray, states: Mapping[Role, str]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each block state that a role grid needs, with the (Y, Z, X) bool mask of where it stands.

    Args:
        roles: (Y, Z, X) of `Role`.
        states: A canonical state for every role but air.
    """
    axes = _axes(np.isin(roles, WOODS))
    for role, state in states.items():
        here = roles == role
        if not here.any():
            continue
        name, properties = parse_state(state)
        if role in WOODS and ("axis" in properties or _LOG.fullmatch(name)):
            for axis in "yxz":
                yield canonical_state(name, properties | {"axis": axis}), here & (axes == axis)
        elif name == _VINE:
            yield from _vines(here, solid=(roles != Role.AIR) & (roles != Role.HANGING))
        else:
            yield _lasting(state), here


def _lasting(state: str) -> str:
    """Return leaves that do not decay; everything else as it is."""
    name, properties = parse_state(state)
    if "persistent" not in properties and not _LEAVES.fullmatch(name):
        return state
    # The game counts the distance to the next log itself; an old number would only split the palette.
    kept = {key: value for key, value in properties.items() if key != "distance"}
    return canonical_state(name, kept | {"persistent": "true"})


def _axes(wood: np.ndarray) -> np.ndarray:
    """Return (Y, Z, X) of `x`, `y` or `z`: up where wood stands on wood, else along the run that it is part of."""
    upright = _neighbour(wood, (1, 0, 0)) | _neighbour(wood, (-1, 0, 0))
    along_x = _neighbour(wood, (0, 0, 1)).astype(int) + _neighbour(wood, (0, 0, -1))
    along_z = _neighbour(wood, (0, 1, 0)).astype(int) + _neighbour(wood, (0, -1, 0))
    lying = np.where(along_x > along_z, "x", np.where(along_z > along_x, "z", "y"))
    return np.where(upright, "y", lying)


def _vines(here: np.ndarray, solid: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Give vines the sides where something solid is; one that hangs freely continues the vine above it."""
    sides = np.zeros(here.shape, np.uint8)
    for bit, step in enumerate(_SIDES.values()):
        sides |= (_neighbour(solid, step) & here).astype(np.uint8) << bit
    for y in range(here.shape[0] - 2, -1, -1):
        free = here[y] & (sides[y] == 0)
        sides[y] = np.where(free, sides[y + 1], sides[y])
    sides[here & (sides == 0)] = 1  # a vine without any side is not drawn
    for code in np.unique(sides[here]):
        properties = {side: str(bool(code >> bit & 1)).lower() for bit, side in enumerate(_SIDES)}
        yield canonical_state(block_name(_VINE), properties), here & (sides == code)


def _neighbour(mask: np.ndarray, step: tuple[int, int, int]) -> np.ndarray:
    """Return for each voxel what the mask says one step (y, z, x) away; outside is False."""
    moved = np.zeros_like(mask)
    target = tuple(slice(max(-move, 0), length - max(move, 0)) for move, length in zip(step, mask.shape, strict=True))
    source = tuple(slice(max(move, 0), length - max(-move, 0)) for move, length in zip(step, mask.shape, strict=True))
    moved[target] = mask[source]
    return moved
