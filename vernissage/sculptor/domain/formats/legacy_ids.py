"""Block numbers of Minecraft 1.12 and earlier, as block states of 1.13 and later: trees' blocks and what is near trees.

Source: https://minecraft.wiki/w/Java_Edition_data_values/Pre-flattening. What is not here becomes `unknown:ID_DATA`, so
that it is kept apart and counted.
"""

from __future__ import annotations

_WOODS = ("oak", "spruce", "birch", "jungle")
_LATER_WOODS = ("acacia", "dark_oak")
_ALL_WOODS = (*_WOODS, *_LATER_WOODS)
_COLOURS = (
    *("white", "orange", "magenta", "light_blue", "yellow", "lime", "pink", "gray"),
    *("light_gray", "cyan", "purple", "blue", "brown", "green", "red", "black"),
)
_FLOWERS = (
    *("poppy", "blue_orchid", "allium", "azure_bluet"),
    *("red_tulip", "orange_tulip", "white_tulip", "pink_tulip", "oxeye_daisy"),
)
_LOG_AXES = ("y", "x", "z")
_COCOA_FACINGS = ("south", "west", "north", "east")
_VINE_SIDES = ("south", "west", "north", "east")
_STAIR_FACINGS = ("east", "west", "south", "north")
_CAP_SIDES = ("east", "south", "west", "north", "up", "down")

# Blocks whose data says nothing that a state needs.
_PLAIN = {
    0: "air",
    2: "grass_block[snowy=false]",
    4: "cobblestone",
    7: "bedrock",
    8: "water[level=0]",
    9: "water[level=0]",
    10: "lava[level=0]",
    11: "lava[level=0]",
    13: "gravel",
    14: "gold_ore",
    15: "iron_ore",
    16: "coal_ore",
    20: "glass",
    30: "cobweb",
    32: "dead_bush",
    37: "dandelion",
    39: "brown_mushroom",
    40: "red_mushroom",
    41: "gold_block",
    42: "iron_block",
    45: "bricks",
    47: "bookshelf",
    48: "mossy_cobblestone",
    49: "obsidian",
    79: "ice",
    80: "snow_block",
    82: "clay",
    85: "oak_fence",
    86: "carved_pumpkin[facing=south]",
    87: "netherrack",
    88: "soul_sand",
    89: "glowstone",
    91: "jack_o_lantern[facing=south]",
    102: "glass_pane",
    103: "melon",
    110: "mycelium[snowy=false]",
    111: "lily_pad",
    112: "nether_bricks",
    113: "nether_brick_fence",
    121: "end_stone",
    165: "slime_block",
    172: "terracotta",
    173: "coal_block",
    174: "packed_ice",
    188: "spruce_fence",
    189: "birch_fence",
    190: "jungle_fence",
    191: "dark_oak_fence",
    192: "acacia_fence",
    208: "dirt_path",
}
# Blocks whose data is an index.
_BY_DATA = {
    1: ("stone", "granite", "polished_granite", "diorite", "polished_diorite", "andesite", "polished_andesite"),
    3: ("dirt", "coarse_dirt", "podzol[snowy=false]"),
    5: tuple(f"{wood}_planks" for wood in _ALL_WOODS),
    12: ("sand", "red_sand"),
    19: ("sponge", "wet_sponge"),
    24: ("sandstone", "chiseled_sandstone", "cut_sandstone"),
    31: ("dead_bush", "short_grass", "fern"),
    35: tuple(f"{colour}_wool" for colour in _COLOURS),
    38: _FLOWERS,
    95: tuple(f"{colour}_stained_glass" for colour in _COLOURS),
    98: ("stone_bricks", "mossy_stone_bricks", "cracked_stone_bricks", "chiseled_stone_bricks"),
    139: ("cobblestone_wall", "mossy_cobblestone_wall"),
    159: tuple(f"{colour}_terracotta" for colour in _COLOURS),
    160: tuple(f"{colour}_stained_glass_pane" for colour in _COLOURS),
    171: tuple(f"{colour}_carpet" for colour in _COLOURS),
    179: ("red_sandstone", "chiseled_red_sandstone", "cut_red_sandstone"),
    251: tuple(f"{colour}_concrete" for colour in _COLOURS),
    252: tuple(f"{colour}_concrete_powder" for colour in _COLOURS),
}
_STAIRS = {53: "oak", 134: "spruce", 135: "birch", 136: "jungle", 163: "acacia", 164: "dark_oak", 67: "cobblestone"}
_LOGS = {17: _WOODS, 162: _LATER_WOODS}
_LEAVES = {18: _WOODS, 161: _LATER_WOODS}
_WOODEN_SLABS = (125, 126)
_CAPS = {99: "brown_mushroom_block", 100: "red_mushroom_block"}


def legacy_state(number: int, data: int) -> str:
    """Return the block state of a block number (0 to 4095) and its data (0 to 15)."""
    text = _PLAIN.get(number) or _indexed(number, data) or _computed(number, data)
    return f"minecraft:{text}" if text else f"unknown:{number}_{data}"


def _indexed(number: int, data: int) -> str | None:
    names = _BY_DATA.get(number, ())
    return names[data] if data < len(names) else None


def _computed(number: int, data: int) -> str | None:
    if number in _LOGS:
        return _log(_LOGS[number], data)
    if number in _LEAVES:
        return _leaves(_LEAVES[number], data)
    if number in _WOODEN_SLABS:
        return _wooden_slab(data, double=number == 125)
    if number in _STAIRS:
        half = "top" if data & 4 else "bottom"
        return f"{_STAIRS[number]}_stairs[facing={_STAIR_FACINGS[data & 3]},half={half},shape=straight]"
    return _mushroom(_CAPS[number], data) if number in _CAPS else _attached(number, data)


def _attached(number: int, data: int) -> str | None:
    if number == 6 and data & 7 < len(_ALL_WOODS):
        return f"{_ALL_WOODS[data & 7]}_sapling[stage={data >> 3}]"
    if number == 78:
        return f"snow[layers={(data & 7) + 1}]"
    if number == 106:
        return f"vine[{_flags(_VINE_SIDES, [bool(data >> bit & 1) for bit in range(4)])}]"
    if number == 127:
        return f"cocoa[age={min(data >> 2, 2)},facing={_COCOA_FACINGS[data & 3]}]"
    return f"hay_block[axis={_axis(data)}]" if number == 170 else None


def _log(woods: tuple[str, ...], data: int) -> str | None:
    if data & 3 >= len(woods):
        return None
    wood = woods[data & 3]
    return f"{wood}_wood[axis=y]" if data >> 2 == 3 else f"{wood}_log[axis={_axis(data)}]"


def _axis(data: int) -> str:
    return _LOG_AXES[data >> 2] if data >> 2 < len(_LOG_AXES) else "y"


def _leaves(woods: tuple[str, ...], data: int) -> str | None:
    # Bit 4 is set where a player placed the leaves, which then do not decay.
    return f"{woods[data & 3]}_leaves[persistent={_word(data & 4)}]" if data & 3 < len(woods) else None


def _wooden_slab(data: int, *, double: bool) -> str | None:
    half = "double" if double else "top" if data & 8 else "bottom"
    return f"{_ALL_WOODS[data & 7]}_slab[type={half}]" if data & 7 < len(_ALL_WOODS) else None


def _mushroom(cap: str, data: int) -> str | None:
    """Return a part of a huge mushroom: the data is the place in a 3 x 3 cap counted by rows from the north-west."""
    if data in (10, 15):
        return f"mushroom_stem[{_flags(_CAP_SIDES, [True, True, True, True, data == 15, data == 15])}]"
    if data in (0, 14):
        return f"{cap}[{_flags(_CAP_SIDES, [data == 14] * 6)}]"
    if data > 9:
        return None
    row, column = divmod(data - 1, 3)
    return f"{cap}[{_flags(_CAP_SIDES, [column == 2, row == 2, column == 0, row == 0, True, False])}]"


def _flags(names: tuple[str, ...], values: list[bool]) -> str:
    return ",".join(f"{name}={_word(value)}" for name, value in sorted(zip(names, values, strict=True)))


def _word(value: object) -> str:
    return "true" if value else "false"
