"""Which blocks each species is built of, and which species a mixture of wood and leaves is called by.

The game has no pine, willow, palm, dead tree or bush; builders make them of other trees' blocks. Each mixture here is
one that no other species has, so that a written tree is known again when it is read.
"""

from __future__ import annotations

from vernissage.sculptor.domain.roles import Role

_EXTRAS = {
    Role.SNOW: "minecraft:snow[layers=1]",
    Role.HANGING: "minecraft:vine",
    Role.GROUND: "minecraft:coarse_dirt",
    Role.OTHER: "minecraft:brown_mushroom_block",
}


def _palette(wood: str, leaf: str, *, wood_2: str, leaf_2: str) -> dict[Role, str]:
    names = {Role.WOOD: wood, Role.WOOD_2: wood_2, Role.LEAF: leaf, Role.LEAF_2: leaf_2}
    return {role: f"minecraft:{name}" for role, name in names.items()} | _EXTRAS


SPECIES_PALETTES: dict[str, dict[Role, str]] = {
    "oak": _palette("oak_log", "oak_leaves", wood_2="stripped_oak_log", leaf_2="azalea_leaves"),
    "birch": _palette("birch_log", "birch_leaves", wood_2="stripped_birch_log", leaf_2="oak_leaves"),
    "spruce": _palette("spruce_log", "spruce_leaves", wood_2="stripped_spruce_log", leaf_2="dark_oak_leaves"),
    "pine": _palette("dark_oak_log", "spruce_leaves", wood_2="spruce_log", leaf_2="oak_leaves"),
    "jungle": _palette("jungle_log", "jungle_leaves", wood_2="stripped_jungle_log", leaf_2="oak_leaves"),
    "acacia": _palette("acacia_log", "acacia_leaves", wood_2="stripped_acacia_log", leaf_2="oak_leaves"),
    "dark oak": _palette("dark_oak_log", "dark_oak_leaves", wood_2="stripped_dark_oak_log", leaf_2="oak_leaves"),
    "willow": _palette("oak_log", "birch_leaves", wood_2="stripped_oak_log", leaf_2="oak_leaves"),
    "palm": _palette("stripped_jungle_log", "jungle_leaves", wood_2="jungle_log", leaf_2="oak_leaves"),
    # Acacia bark is gray; only its cut ends are orange, so all-bark blocks.
    "dead": _palette("acacia_wood", "oak_leaves", wood_2="stripped_birch_wood", leaf_2="azalea_leaves"),
    "bush": _palette("oak_wood", "azalea_leaves", wood_2="stripped_oak_wood", leaf_2="flowering_azalea_leaves"),
}
DEFAULT_PALETTE = SPECIES_PALETTES["oak"]

SPECIES_OF_PAIR: dict[tuple[str | None, str | None], str] = {
    ("dark_oak", "spruce_leaves"): "pine",
    ("oak", "birch_leaves"): "willow",
    ("stripped_jungle", "jungle_leaves"): "palm",
    ("acacia", "oak_leaves"): "dead",
    ("acacia", None): "dead",
    ("oak", "azalea_leaves"): "bush",
}
_IN_GAME = ("oak", "birch", "spruce", "jungle", "acacia", "dark oak")
SPECIES_OF_WOOD = {species.replace(" ", "_"): species for species in _IN_GAME}
SPECIES_OF_LEAF = {f"{wood}_leaves": species for wood, species in SPECIES_OF_WOOD.items()}
