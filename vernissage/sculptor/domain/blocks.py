"""What blocks are for: from block states to roles by their names, and from roles back to blocks."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from vernissage.core.errors import BadInput
from vernissage.sculptor.domain.block_states import AIR_NAMES, block_name, block_path, canonical_state, parse_state
from vernissage.sculptor.domain.placing import placed_states
from vernissage.sculptor.domain.roles import ROLES, Role
from vernissage.sculptor.domain.species_palettes import (
    DEFAULT_PALETTE,
    SPECIES_OF_LEAF,
    SPECIES_OF_PAIR,
    SPECIES_OF_WOOD,
    SPECIES_PALETTES,
)
from vernissage.sculptor.domain.structure import AIR_STATE, Structure

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "SPECIES_PALETTES",
    "Roles",
    "canonical_state",
    "parse_state",
    "role_kind",
    "roles_to_structure",
    "species_of",
    "structure_to_roles",
]

_WOOD_FORMS = frozenset({"log", "logs", "wood", "stem", "hyphae", "trunk", "bark", "branch"})
_WOOD_PATHS = frozenset({"mangrove_roots", "muddy_mangrove_roots", "bamboo_block", "stripped_bamboo_block"})
_TIMBER = frozenset({"fence", "fence_gate", "slab", "stairs", "trapdoor"})
_TREES = frozenset(
    {
        *("oak", "birch", "spruce", "jungle", "acacia", "dark_oak"),
        *("mangrove", "cherry", "bamboo", "pale_oak", "crimson", "warped"),
    }
)
_CROPS = frozenset({"melon", "pumpkin"})
_LEAF_FORMS = frozenset({"leaves", "leaf", "foliage", "needles"})
_LEAF_PATHS = frozenset({"nether_wart_block", "warped_wart_block", "shroomlight", "azalea", "flowering_azalea"})
_THIN = frozenset({"carpet", "litter", "pile", "door", "trapdoor", "sign", "button", "plate"})
_HANGING_FORMS = frozenset({"vine", "vines", "lichen", "moss", "cocoa", "propagule"})
_HANGING_PATHS = frozenset({"hanging_roots", "moss_carpet", "pale_moss_carpet", "spore_blossom", "resin_clump"})
_SNOW_PATHS = frozenset({"snow", "snow_block", "powder_snow"})
_GROUND_FORMS = frozenset({"dirt", "sand", "gravel", "soil", "nylium", "mud", "clay"})
_GROUND_PATHS = frozenset(
    {
        *("grass_block", "podzol", "mycelium", "farmland", "dirt_path", "moss_block", "pale_moss_block"),
        *("stone", "cobblestone", "mossy_cobblestone", "andesite", "granite", "diorite", "deepslate"),
        *("tuff", "calcite", "sandstone", "red_sandstone", "netherrack", "end_stone", "terracotta"),
    }
)
_SIBLINGS = {Role.WOOD_2: Role.WOOD, Role.WOOD: Role.WOOD_2, Role.LEAF_2: Role.LEAF, Role.LEAF: Role.LEAF_2}
_SINGLE_ROLES = {
    "air": Role.AIR,
    "snow": Role.SNOW,
    "hanging": Role.HANGING,
    "ground": Role.GROUND,
    "other": Role.OTHER,
}


@dataclass(frozen=True)
class Roles:
    """A structure as roles, with the blocks that they stand for.

    Attributes:
        grid: (Y, Z, X) uint8 of `Role`.
        palette: For every role that is there, air excepted, the most frequent block, in the state it has
            most often.
        counts: Voxels of each block state, air excepted, the most frequent first.
    """

    grid: np.ndarray
    palette: dict[Role, str]
    counts: dict[str, int]

    @property
    def others(self) -> dict[str, int]:
        """Voxels of each block state that became `Role.OTHER`, as no rule knows its name."""
        return {state: count for state, count in self.counts.items() if role_kind(state) == "other"}


@lru_cache(maxsize=4096)
def role_kind(state: str) -> str:
    """Return `air`, `wood`, `leaf`, `snow`, `hanging`, `ground` or `other`, by rules on the words of the block's name.

    Planks, fences, slabs and stairs of a tree's wood are wood, as builders make thin branches of them.

    Raises:
        BadInput: It is no block state.
    """
    name, _ = parse_state(state)
    path = block_path(name)
    words = path.replace("/", "_").split("_")
    rules = (
        ("air", name in AIR_NAMES),
        ("snow", path in _SNOW_PATHS),
        ("leaf", path in _LEAF_PATHS or (_holds(words, _LEAF_FORMS) and not _holds(words, _THIN))),
        ("wood", path in _WOOD_PATHS or _is_wood(path, words)),
        ("hanging", path in _HANGING_PATHS or path.removesuffix("_plant").split("_")[-1] in _HANGING_FORMS),
        ("ground", path in _GROUND_PATHS or words[-1] in _GROUND_FORMS),
    )
    return next((kind for kind, holds in rules if holds), "other")


def structure_to_roles(structure: Structure) -> Roles:
    """Say what every block of a structure is for.

    The most frequent kind of wood is `Role.WOOD`, all others are `Role.WOOD_2`; logs and all-bark blocks of one tree
    are one kind, stripped logs and timber are kinds of their own. Leaves likewise, by name.
    """
    occupied = np.bincount(structure.blocks.ravel(), minlength=len(structure.palette)).tolist()
    counts = {state: count for state, count in zip(structure.palette, occupied, strict=True) if count}
    mains = {_main_wood(counts), _most_frequent(_of_kind(counts, "leaf"), block_name)}
    roles = {state: _role_of(state, mains) for state in counts}
    lookup = np.array([roles.get(state, Role.AIR) for state in structure.palette], np.uint8)
    present: list[Role] = sorted({role for role in roles.values() if role != Role.AIR})
    palette: dict[Role, str] = {
        role: _usual({state: counts[state] for state in counts if roles[state] == role}) for role in present
    }
    blocks = [state for state in counts if roles[state] != Role.AIR]
    ordered = sorted(blocks, key=lambda state: (-counts[state], state))
    return Roles(lookup[structure.blocks], palette, {state: counts[state] for state in ordered})


def roles_to_structure(roles: np.ndarray, palette: Mapping[Role, str]) -> Structure:
    """Return the structure of a (Y, Z, X) role grid; a role without an entry gets its sibling's block or oak's.

    Logs lie along their neighbours, leaves do not decay (`persistent=true`), vines cling to what is beside them.

    Raises:
        BadInput: The grid holds something that is no role, or an entry is no block state.
    """
    if roles.ndim != 3 or roles.size == 0 or int(roles.min()) < 0 or int(roles.max()) >= ROLES:
        raise BadInput(f"a role grid of shape {roles.shape}: expected (Y, Z, X) with roles 0 to {ROLES - 1}")
    solid: list[Role] = [role for role in Role if role != Role.AIR]
    states = {role: canonical_state(*parse_state(_state_for(role, palette))) for role in solid}
    numbers = {AIR_STATE: 0}
    blocks = np.zeros(roles.shape, np.uint16)
    for state, here in placed_states(roles, states):
        if here.any() and role_kind(state) != "air":
            blocks[here] = numbers.setdefault(state, len(numbers))
    return Structure(blocks, tuple(numbers))


def species_of(structure: Structure) -> str | None:
    """Return the species that the names of wood and leaves say, `other` for one that no caption speaks of.

    Players build pines of spruce, willows of oak and palms of jungle wood: such a tree is called by its blocks, unless
    the mixture is one of `SPECIES_PALETTES`. None where there is neither wood nor leaf.
    """
    palette = structure_to_roles(structure).palette
    wood = _family(block_path(palette[Role.WOOD])) if Role.WOOD in palette else None
    leaf = block_path(palette[Role.LEAF]) if Role.LEAF in palette else None
    if wood is None and leaf is None:
        return None
    if (wood, leaf) in SPECIES_OF_PAIR:
        return SPECIES_OF_PAIR[wood, leaf]
    # Spruce wood is every builder's brown trunk, and what is stripped may be anybody's: there the leaves decide.
    vague = wood is None or wood == "spruce" or wood.startswith("stripped_")
    if leaf is not None and vague:
        return SPECIES_OF_LEAF.get(leaf, "other")
    return SPECIES_OF_WOOD.get((wood or "").removeprefix("stripped_"), "other")


def _holds(words: list[str], forms: frozenset[str]) -> bool:
    return not forms.isdisjoint(words)


def _is_wood(path: str, words: list[str]) -> bool:
    if words[-1] in _WOOD_FORMS:
        return not _holds(words, _CROPS)
    if words[-1] == "planks":
        return True
    return any(path.endswith(f"_{form}") and path.removesuffix(f"_{form}") in _TREES for form in _TIMBER)


def _family(path: str) -> str:
    """Return the tree that a wood is of: `spruce` for `spruce_log` and `spruce_wood`, else the full path."""
    head, _, form = path.rpartition("_")
    return head if head and form in _WOOD_FORMS else path


def _wood_family(state: str) -> str:
    return _family(block_path(state))


def _of_kind(counts: Mapping[str, int], kind: str) -> dict[str, int]:
    return {state: count for state, count in counts.items() if role_kind(state) == kind}


def _most_frequent(counts: Mapping[str, int], group: Callable[[str], str]) -> str | None:
    """Return the group with most voxels, of equals the first by name; None of nothing."""
    totals: Counter[str] = Counter()
    for state, count in counts.items():
        totals[group(state)] += count
    return min(totals, key=lambda name: (-totals[name], name), default=None)


def _main_wood(counts: Mapping[str, int]) -> str | None:
    """Return the main family of logs; of timber only where there is no log, as fences are branches, not trunks."""
    wood = _of_kind(counts, "wood")
    logs = {state: count for state, count in wood.items() if _wood_family(state) != block_path(state)}
    return _most_frequent(logs or wood, _wood_family)


def _role_of(state: str, mains: set[str | None]) -> Role:
    kind = role_kind(state)
    if kind == "wood":
        return Role.WOOD if _wood_family(state) in mains else Role.WOOD_2
    if kind == "leaf":
        return Role.LEAF if block_name(state) in mains else Role.LEAF_2
    return _SINGLE_ROLES[kind]


def _usual(counts: Mapping[str, int]) -> str:
    """Return the most frequent state of the most frequent block, so that the axes of a log do not compete."""
    name = _most_frequent(counts, block_name)
    states = {state: count for state, count in counts.items() if block_name(state) == name}
    return min(states, key=lambda state: (-states[state], state))


def _state_for(role: Role, palette: Mapping[Role, str]) -> str:
    sibling = _SIBLINGS.get(role, role)
    return palette.get(role) or palette.get(sibling) or DEFAULT_PALETTE[role]
