"""Flat colours of blocks: a rule on the name where a family has one, a table for the rest, a stable guess for unknowns.

The colours are our own, picked to tell blocks apart at a glance; no texture of the game is involved.
"""

from __future__ import annotations

import colorsys
import re
import zlib
from functools import lru_cache
from typing import Literal, NamedTuple

RGB = tuple[int, int, int]
Face = Literal["up", "down", "north", "south", "east", "west"]

#: Namespace of voxels of which only the colour is known: `unknown:rrggbb`.
UNKNOWN = "unknown"

#: Light that falls on a face, as a share of full light: the sun stands high, a little to the south and north.
_LIGHT: dict[Face, float] = {"up": 1.0, "down": 0.5, "north": 0.8, "south": 0.8, "east": 0.62, "west": 0.62}


class _Tree(NamedTuple):
    """Colours of one species, as 0xRRGGBB."""

    bark: int
    stripped: int
    planks: int
    leaves: int


_TREES: dict[str, _Tree] = {
    "oak": _Tree(0x6E5633, 0xB39259, 0xA5854F, 0x4C8A2B),
    "spruce": _Tree(0x3F2A16, 0x77593A, 0x745534, 0x3A5F3C),
    "birch": _Tree(0xD9D7CE, 0xC6B27A, 0xC2B07B, 0x74A048),
    "jungle": _Tree(0x574A20, 0xAC8557, 0xA2744F, 0x428C2C),
    "acacia": _Tree(0x68625A, 0xB05E3D, 0xAA5B32, 0x6C9A2C),
    "dark_oak": _Tree(0x40311D, 0x4B3A26, 0x452C15, 0x3B7520),
    "pale_oak": _Tree(0x5A504D, 0xF0E6E3, 0xE4D9D7, 0x78807A),
    "mangrove": _Tree(0x55452B, 0x78373A, 0x763632, 0x549023),
    "cherry": _Tree(0x382330, 0xD8928F, 0xE2B2AC, 0xE9B0CB),
    "crimson": _Tree(0x5C1A20, 0x8A3A5B, 0x663147, 0x77070A),
    "warped": _Tree(0x3B3A4E, 0x3A9895, 0x2C6A64, 0x17787A),
    "bamboo": _Tree(0x7F8E3B, 0xC2A950, 0xC3AD52, 0x6F9A2D),
    "azalea": _Tree(0x6E5633, 0xB39259, 0xA5854F, 0x5B7A2D),
    "flowering_azalea": _Tree(0x6E5633, 0xB39259, 0xA5854F, 0x8A7A55),
}

_DYES: dict[str, int] = {
    "white": 0xE9ECEC,
    "light_gray": 0x8E8E86,
    "gray": 0x3F4447,
    "black": 0x16161B,
    "brown": 0x734829,
    "red": 0xA02722,
    "orange": 0xF07613,
    "yellow": 0xF8C627,
    "lime": 0x70B919,
    "green": 0x546D1B,
    "cyan": 0x158991,
    "light_blue": 0x3AAFD9,
    "blue": 0x35399D,
    "purple": 0x792AAC,
    "magenta": 0xBD44B3,
    "pink": 0xED8DAC,
}

#: What a dyed block is made of: its own colour, and how much of it shows through the dye.
_DYED: dict[str, tuple[int, float]] = {
    "wool": (0xFFFFFF, 0.0),
    "carpet": (0xFFFFFF, 0.0),
    "concrete": (0x000000, 0.12),
    "concrete_powder": (0xFFFFFF, 0.15),
    "terracotta": (0x985E43, 0.6),
    "glazed_terracotta": (0xFFFFFF, 0.1),
    "stained_glass": (0xFFFFFF, 0.25),
    "stained_glass_pane": (0xFFFFFF, 0.25),
    "candle": (0xFFFFFF, 0.1),
    "shulker_box": (0x000000, 0.08),
    "bed": (0xFFFFFF, 0.0),
    "banner": (0xFFFFFF, 0.0),
    "wall_banner": (0xFFFFFF, 0.0),
}

_BLOCKS: dict[str, int] = {
    "amethyst_block": 0x8561BF,
    "ancient_debris": 0x5F423A,
    "andesite": 0x888889,
    "basalt": 0x505156,
    "bedrock": 0x555555,
    "bee_nest": 0xCAA04B,
    "beehive": 0xB4925A,
    "big_dripleaf": 0x6F8E33,
    "blackstone": 0x2A2429,
    "blue_ice": 0x74A8FD,
    "bone_block": 0xE0DBC4,
    "bookshelf": 0x7A5F3C,
    "bricks": 0x966153,
    "brown_mushroom": 0x9A745C,
    "brown_mushroom_block": 0x957051,
    "cactus": 0x557F2B,
    "calcite": 0xDFE0DC,
    "campfire": 0xC98A3A,
    "cave_vines": 0x5B6E2A,
    "cave_vines_plant": 0x5B6E2A,
    "chest": 0x9A6F2C,
    "chiseled_stone_bricks": 0x777677,
    "chorus_flower": 0x977997,
    "chorus_plant": 0x5E395E,
    "clay": 0xA0A6B3,
    "coal_block": 0x101010,
    "coal_ore": 0x696968,
    "coarse_dirt": 0x77553B,
    "cobbled_deepslate": 0x4D4D51,
    "cobblestone": 0x7F7F7F,
    "cobweb": 0xE4E9EA,
    "cocoa": 0x9A6430,
    "copper_block": 0xC06B4F,
    "crafting_table": 0x815C3A,
    "creaking_heart": 0x5F4A43,
    "dandelion": 0xE8C93A,
    "dead_bush": 0x6B4F28,
    "deepslate": 0x505053,
    "diamond_block": 0x62EDE4,
    "diorite": 0xBCBCBC,
    "dirt": 0x866043,
    "dirt_path": 0x947A41,
    "dripstone_block": 0x866B5C,
    "emerald_block": 0x2ACB57,
    "end_stone": 0xDBDE9E,
    "farmland": 0x8F6646,
    "fern": 0x6A9A45,
    "firefly_bush": 0x62813F,
    "flowering_azalea": 0x70793F,
    "glass": 0xD6ECEF,
    "glass_pane": 0xD6ECEF,
    "glow_lichen": 0x70837A,
    "glowstone": 0xE8BE6A,
    "gold_block": 0xF6D03D,
    "granite": 0x956755,
    "grass": 0x6FA33F,
    "grass_block": 0x6A9B3A,
    "gravel": 0x837F7E,
    "hanging_roots": 0xA1735C,
    "hay_block": 0xA68B0C,
    "honey_block": 0xF4A62A,
    "honeycomb_block": 0xE5941E,
    "ice": 0x91B7FD,
    "iron_bars": 0x88898A,
    "iron_block": 0xDCDCDC,
    "iron_chain": 0x333A4B,
    "chain": 0x333A4B,
    "jack_o_lantern": 0xD8931D,
    "ladder": 0x7C6136,
    "lantern": 0xE0A75A,
    "lapis_block": 0x1F438C,
    "large_fern": 0x6A9A45,
    "lava": 0xD45A12,
    "leaf_litter": 0x8A6A42,
    "lily_pad": 0x2F7A2B,
    "lily_of_the_valley": 0xDDE8D0,
    "magma_block": 0x8E3F20,
    "mangrove_roots": 0x4B3C26,
    "melon": 0x729221,
    "moss_block": 0x596E2D,
    "moss_carpet": 0x596E2D,
    "mud": 0x3C393D,
    "mud_bricks": 0x89674F,
    "muddy_mangrove_roots": 0x463A31,
    "mushroom_stem": 0xCBC4B9,
    "mycelium": 0x6F6366,
    "nether_bricks": 0x2C161A,
    "nether_wart_block": 0x730302,
    "netherrack": 0x622626,
    "obsidian": 0x0F0B19,
    "ochre_froglight": 0xF7E9B5,
    "packed_ice": 0x8EB4FA,
    "packed_mud": 0x8E6B50,
    "pale_hanging_moss": 0x8B918A,
    "pale_moss_block": 0x6B7069,
    "pale_moss_carpet": 0x6B7069,
    "pearlescent_froglight": 0xF5F0F0,
    "podzol": 0x5F4221,
    "polished_deepslate": 0x484849,
    "poppy": 0xC8332B,
    "powder_snow": 0xF8FDFD,
    "prismarine": 0x639C97,
    "pumpkin": 0xC67718,
    "purpur_block": 0xAA7EAA,
    "quartz_block": 0xECE6DF,
    "red_mushroom": 0xCB4237,
    "red_mushroom_block": 0xC82F2D,
    "red_sand": 0xBE6721,
    "red_sandstone": 0xBB631D,
    "redstone_block": 0xB01905,
    "redstone_lamp": 0x6D3F24,
    "redstone_torch": 0xD64A32,
    "rooted_dirt": 0x90674C,
    "sand": 0xDBCFA3,
    "sandstone": 0xD8CB9B,
    "sculk": 0x0D1E24,
    "sea_lantern": 0xACC8BE,
    "short_grass": 0x6FA33F,
    "shroomlight": 0xF09346,
    "smooth_stone": 0x9E9E9E,
    "snow": 0xF5FAFA,
    "snow_block": 0xF9FEFE,
    "soul_sand": 0x513E33,
    "soul_soil": 0x4B392E,
    "spore_blossom": 0xCF72A8,
    "stone": 0x7D7D7D,
    "stone_bricks": 0x7A7A7A,
    "sugar_cane": 0x94C065,
    "tall_grass": 0x6FA33F,
    "terracotta": 0x985E43,
    "torch": 0xF4C14E,
    "tuff": 0x6C6D66,
    "twisting_vines": 0x148F7C,
    "twisting_vines_plant": 0x148F7C,
    "verdant_froglight": 0xE5F4E4,
    "vine": 0x4A7A25,
    "warped_wart_block": 0x177879,
    "water": 0x3F66C9,
    "weeping_vines": 0x8A2A1C,
    "weeping_vines_plant": 0x8A2A1C,
}

#: Endings of shapes that are cut from another block, and of its treated or split forms.
_SHAPES = re.compile(
    r"_(?:slab|stairs|wall|fence|fence_gate|pressure_plate|button|block|tile|tiles|brick|bricks|ore|pillar)$"
)
_TREATED = re.compile(r"^(?:mossy|cracked|chiseled|polished|smooth|cut|infested|waxed|exposed|weathered|suspicious)_")

#: Words by which a block of a mod is recognised: saturation, value and the range of hues, in degrees, it may take.
_WORDS: tuple[tuple[str, tuple[float, float, float, float]], ...] = (
    (r"leaves|leaf|needles|foliage|frond", (0.55, 0.52, 75, 130)),
    (r"log|wood|stem|hyphae|trunk|bark|branch|root|roots", (0.48, 0.40, 22, 38)),
    (r"planks|slab|stairs|fence", (0.45, 0.65, 24, 42)),
    (r"vine|vines|moss|grass|fern|bush|sapling|plant|kelp", (0.55, 0.48, 75, 120)),
    (r"dirt|soil|mud", (0.45, 0.45, 18, 34)),
    (r"sand", (0.30, 0.85, 40, 55)),
    (r"snow|ice|frost", (0.06, 0.97, 185, 215)),
    (r"stone|rock|cobble|ore", (0.04, 0.50, 0, 360)),
)


def shade(face: Face) -> float:
    """Return the light that falls on a face, as a share of full light; `north` is -z and `east` is +x."""
    return _LIGHT[face]


@lru_cache(maxsize=4096)
def colour_of(state: str) -> RGB:
    """Return the flat sRGB colour, 0 to 255, of a block state such as `minecraft:oak_log[axis=y]`.

    Properties do not matter. A voxel that was read from a picture format, `unknown:rrggbb`, has the colour it names. A
    block that no rule knows gets a colour by a hash of its name: the same on every machine.
    """
    space, colon, name = state.partition("[")[0].rpartition(":")
    if space == UNKNOWN and re.fullmatch("[0-9a-f]{6}", name):
        return _rgb(int(name, 16))
    plain = _by_name(name) if not colon or space == "minecraft" else None
    return _rgb(plain) if plain is not None else _guess(f"{space}:{name}", name)


def unknown_state(colour: RGB) -> str:
    """Return the block state that stands for a voxel of which only the colour is known."""
    return f"{UNKNOWN}:" + "".join(f"{channel:02x}" for channel in colour)


def _by_name(name: str) -> int | None:
    """Return the colour of a block of the game as 0xRRGGBB."""
    if name in _BLOCKS:
        return _BLOCKS[name]
    for found in (_of_tree(name), _of_dye(name)):
        if found is not None:
            return found
    for base in (_TREATED.sub("", name), _SHAPES.sub("", name)):
        if base != name:
            for candidate in (base, f"{base}s", f"{base}_block"):
                found = _BLOCKS.get(candidate)
                if found is not None:
                    return found
            found = _by_name(base)
            if found is not None:
                return found
    return None


def _of_tree(name: str) -> int | None:
    """Return the colour of what is made of a tree."""
    stripped = name.startswith("stripped_")
    species = max((tree for tree in _TREES if name.removeprefix("stripped_").startswith(tree)), key=len, default=None)
    if species is None:
        return None
    part = name.removeprefix("stripped_").removeprefix(species).removeprefix("_")
    tree = _TREES[species]
    if re.fullmatch(r"log|wood|stem|hyphae|block|", part):
        # Azaleas are the only species that are a plant by themselves.
        return tree.stripped if stripped else tree.leaves if "azalea" in species else tree.bark
    if re.fullmatch(r"leaves|sapling|propagule|roots|fungus|nylium|wart_block", part):
        return tree.leaves
    return tree.planks


def _of_dye(name: str) -> int | None:
    """Return the colour of what is dyed."""
    dye = max((dye for dye in _DYES if name.startswith(f"{dye}_")), key=len, default=None)
    if dye is None or (material := name.removeprefix(f"{dye}_")) not in _DYED:
        return None
    under, share = _DYED[material]
    mixed = (round(a * (1 - share) + b * share) for a, b in zip(_rgb(_DYES[dye]), _rgb(under), strict=True))
    red, green, blue = mixed
    return red << 16 | green << 8 | blue


def _guess(key: str, name: str) -> RGB:
    """Return a colour by a hash: of the hues that the name's words allow, else any muted one."""
    number = zlib.crc32(key.encode("utf-8", "replace"))
    low, high, saturation, value = (
        0.0,
        360.0,
        0.35 + 0.2 * ((number >> 16 & 255) / 255),
        0.62 + 0.2 * (number >> 24) / 255,
    )
    words = set(re.split(r"[_/.\-]", name))
    for pattern, (usual_saturation, usual_value, first, last) in _WORDS:
        if words & set(pattern.split("|")):
            low, high, saturation, value = first, last, usual_saturation, usual_value
            break
    hue = (low + (high - low) * (number & 0xFFFF) / 0xFFFF) / 360
    red, green, blue = (round(255 * channel) for channel in colorsys.hsv_to_rgb(hue % 1.0, saturation, value))
    return red, green, blue


def _rgb(number: int) -> RGB:
    """Split 0xRRGGBB."""
    return number >> 16, number >> 8 & 255, number & 255
