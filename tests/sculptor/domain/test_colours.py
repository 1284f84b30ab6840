from __future__ import annotations

import colorsys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vernissage.sculptor.domain.colours import RGB, colour_of, shade, unknown_state

SPECIES = (
    "oak",
    "spruce",
    "birch",
    "jungle",
    "acacia",
    "dark_oak",
    "pale_oak",
    "mangrove",
    "cherry",
)
DYES = [
    "white",
    "light_gray",
    "gray",
    "black",
    "brown",
    "red",
    "orange",
    "yellow",
    "lime",
    "green",
    "cyan",
    "light_blue",
    "blue",
    "purple",
    "magenta",
    "pink",
]


def hsv(state: str) -> tuple[float, float, float]:
    """Hue in degrees, saturation, value."""
    hue, saturation, value = colorsys.rgb_to_hsv(*(channel / 255 for channel in colour_of(state)))
    return 360 * hue, saturation, value


def distance(a: RGB, b: RGB) -> int:
    return sum(abs(x - y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("species", [name for name in SPECIES if name not in ("cherry", "pale_oak")])
def test_leaves_are_green_and_wood_is_not(species: str) -> None:
    leaves, log = colour_of(f"minecraft:{species}_leaves"), colour_of(f"minecraft:{species}_log")
    assert 70 <= hsv(f"minecraft:{species}_leaves")[0] <= 140
    assert log[0] >= log[1] >= log[2]
    assert distance(leaves, log) > 40


@pytest.mark.parametrize("species", SPECIES)
def test_log_and_wood_of_a_species_are_one_colour_and_stripped_or_sawn_wood_is_another(species: str) -> None:
    bark = colour_of(f"minecraft:{species}_log[axis=y]")
    assert bark == colour_of(f"minecraft:{species}_wood[axis=x]")
    sawn = colour_of(f"minecraft:{species}_planks")
    assert sawn != bark
    assert colour_of(f"minecraft:stripped_{species}_log") == colour_of(f"minecraft:stripped_{species}_wood") != bark
    for shape in ("slab", "stairs", "fence", "fence_gate", "door", "trapdoor", "button", "sign"):
        assert colour_of(f"minecraft:{species}_{shape}") == sawn


def test_a_longer_species_name_is_not_taken_for_the_one_it_contains() -> None:
    assert colour_of("minecraft:dark_oak_log") != colour_of("minecraft:oak_log")
    assert colour_of("minecraft:flowering_azalea_leaves") != colour_of("minecraft:azalea_leaves")
    assert colour_of("minecraft:light_blue_wool") != colour_of("minecraft:blue_wool")


@pytest.mark.parametrize("material", ["wool", "concrete", "terracotta", "stained_glass"])
def test_each_dye_has_its_own_colour_in_each_material(material: str) -> None:
    assert len({colour_of(f"minecraft:{dye}_{material}") for dye in DYES}) == len(DYES)
    if material != "terracotta":  # its clay shows through
        assert 190 <= hsv(f"minecraft:light_blue_{material}")[0] <= 210
        assert 80 <= hsv(f"minecraft:lime_{material}")[0] <= 100


@pytest.mark.parametrize(
    ("shape", "material"),
    [
        ("cobblestone_wall", "cobblestone"),
        ("stone_brick_slab", "stone_bricks"),
        ("mossy_stone_bricks", "stone_bricks"),
        ("polished_andesite_stairs", "andesite"),
        ("smooth_sandstone_slab", "sandstone"),
        ("infested_stone", "stone"),
        ("waxed_copper_block", "copper_block"),
        ("quartz_stairs", "quartz_block"),
        ("deepslate_tile_wall", "deepslate"),
    ],
)
def test_what_is_cut_from_a_block_has_its_colour(shape: str, material: str) -> None:
    assert colour_of(f"minecraft:{shape}") == colour_of(f"minecraft:{material}")


def test_properties_and_the_default_namespace_do_not_matter() -> None:
    assert (
        colour_of("minecraft:snow[layers=3]")
        == colour_of("minecraft:snow")
        == colour_of("snow")
        == colour_of("snow[layers=1]")
    )


@pytest.mark.parametrize(
    ("state", "hues"),
    [
        ("natures_spirit:redwood_leaves[distance=2]", (70, 135)),
        ("some_mod:ancient_frost_log", (15, 45)),
        ("some_mod:glow_vine", (70, 125)),
    ],
)
def test_blocks_of_mods_are_recognised_by_a_word_of_their_name(state: str, hues: tuple[float, float]) -> None:
    assert hues[0] <= hsv(state)[0] <= hues[1]


def test_unknown_blocks_have_known_stable_colours_that_differ() -> None:
    assert colour_of("some_mod:gizmo") == (107, 207, 145)
    names = [f"some_mod:gizmo{number}" for number in range(50)]
    assert len({colour_of(name) for name in names}) > 45
    for name in names:
        _, saturation, value = hsv(name)
        assert 0.3 <= saturation <= 0.6
        assert 0.6 <= value <= 0.85


@given(st.text(max_size=40))
def test_any_text_has_a_colour(state: str) -> None:
    colour = colour_of(state)
    assert len(colour) == 3
    assert all(type(channel) is int and 0 <= channel <= 255 for channel in colour)


@given(st.tuples(*[st.integers(0, 255)] * 3))
def test_the_state_of_a_bare_colour_has_that_colour(colour: RGB) -> None:
    assert colour_of(unknown_state(colour)) == colour


def test_top_is_lightest_and_bottom_darkest() -> None:
    sides = [shade("north"), shade("south"), shade("east"), shade("west")]
    assert shade("up") == 1 > max(sides)
    assert 0 < shade("down") < min(sides)
    assert len(set(sides)) == 2  # two sides that meet in a corner can be told apart
