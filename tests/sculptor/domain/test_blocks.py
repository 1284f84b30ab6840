"""Block states, roles by name, and structures there and back."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vernissage.core.errors import BadInput
from vernissage.sculptor.domain.blocks import (
    SPECIES_PALETTES,
    canonical_state,
    parse_state,
    role_kind,
    roles_to_structure,
    species_of,
    structure_to_roles,
)
from vernissage.sculptor.domain.formats import read_structure
from vernissage.sculptor.domain.roles import MASK, ROLES, WOODS, Role
from vernissage.sculptor.domain.structure import AIR_STATE, Structure

TREES = Path(__file__).parents[4] / "shared" / "data" / "trees"


def shared_trees(suffix: str) -> list[dict[str, str]]:
    manifest = TREES / "manifest.csv"
    if not manifest.is_file():
        pytest.skip("the shared trees are not beside the project")
    with manifest.open(encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if row["file"].endswith(suffix)]


# --- spelling ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_state", "canonical"),
    [
        ("oak_log", "minecraft:oak_log"),
        ("minecraft:oak_log[axis=y]", "minecraft:oak_log[axis=y]"),
        ("oak_leaves[persistent=true,distance=3]", "minecraft:oak_leaves[distance=3,persistent=true]"),
        ("some-mod.x:deep/tree_1", "some-mod.x:deep/tree_1"),
        ("minecraft:stone[]", "minecraft:stone"),
        ("unknown:17_3", "unknown:17_3"),
    ],
)
def test_states_have_one_spelling(given_state: str, canonical: str) -> None:
    assert canonical_state(*parse_state(given_state)) == canonical


@pytest.mark.parametrize(
    "state",
    [
        *("", "Oak_Log", "oak log", "a:b:c", ":oak_log", "oak_log[axis]", "oak_log[axis=]", "oak_log[=y]"),
        *("oak_log[axis=y", "oak_log]", "oak_log[axis=y][axis=x]", "oak_log[axis=y,axis=x]", "chest[a=b]{Items:[]}"),
        *("oak_log\n", "ök:log", "../etc/pass wd", "x" * 5000, "minecraft:"),
    ],
)
def test_nonsense_is_no_state(state: str) -> None:
    with pytest.raises(BadInput, match=r"expected|pass"):
        canonical_state(*parse_state(state))


@given(
    name=st.from_regex(r"[a-z0-9_.-]{1,9}:[a-z0-9_/.-]{1,20}", fullmatch=True),
    properties=st.dictionaries(
        st.from_regex(r"[a-z0-9_]{1,8}", fullmatch=True), st.from_regex(r"[a-z0-9_]{1,8}", fullmatch=True), max_size=4
    ),
)
def test_parsing_undoes_spelling(name: str, properties: dict[str, str]) -> None:
    state = canonical_state(name, properties)
    assert parse_state(state) == (name, properties)
    assert canonical_state(*parse_state(state)) == state


# --- what a name says -------------------------------------------------------------------------------------------------

KINDS = {
    "air": "air cave_air void_air structure_void",
    "wood": (
        "oak_log dark_oak_wood stripped_spruce_log crimson_stem warped_hyphae mushroom_stem mangrove_roots oak_planks "
        "spruce_fence jungle_fence_gate acacia_slab birch_stairs bamboo_block somemod:fir_log terra:logs/ash_log"
    ),
    "leaf": "oak_leaves azalea_leaves nether_wart_block warped_wart_block shroomlight azalea somemod:maple_leaves_red",
    "snow": "snow snow_block powder_snow",
    "hanging": "vine cave_vines_plant weeping_vines hanging_roots glow_lichen moss_carpet pale_hanging_moss cocoa",
    "ground": "dirt coarse_dirt grass_block podzol stone sand red_sand gravel mud cobblestone crimson_nylium",
    "other": (
        "bee_nest lantern melon_stem attached_pumpkin_stem nether_brick_fence stone_slab oak_door leaf_litter redstone "
        "brown_mushroom_block spruce_sapling bookshelf glass_pane unknown:17_9 crimson_roots big_dripleaf"
    ),
}


@pytest.mark.parametrize(("kind", "state"), [(kind, state) for kind, names in KINDS.items() for state in names.split()])
def test_kind_follows_from_the_name(kind: str, state: str) -> None:
    assert role_kind(state) == kind


def structure(states: list[str]) -> Structure:
    """Return a row of blocks along x, one for each state given."""
    palette = list(dict.fromkeys([AIR_STATE, *states]))
    row = np.array([palette.index(state) for state in states], np.uint16)
    return Structure(row[None, None], tuple(palette))


def test_the_most_frequent_wood_and_leaves_are_the_first_ones() -> None:
    log, lying, bark = "minecraft:spruce_log[axis=y]", "minecraft:spruce_log[axis=x]", "minecraft:spruce_wood[axis=y]"
    birch, leaves, needles = "minecraft:birch_log[axis=y]", "minecraft:oak_leaves", "minecraft:spruce_leaves"
    row = [log, log, lying, bark, *[birch] * 3, leaves, needles, needles, "mod:odd_thing"]
    roles = structure_to_roles(structure(row))
    assert [Role(role).name for role in roles.grid[0, 0]] == (
        ["WOOD"] * 4 + ["WOOD_2"] * 3 + ["LEAF_2", "LEAF", "LEAF", "OTHER"]
    )
    assert roles.palette == {
        Role.WOOD: log,
        Role.WOOD_2: birch,
        Role.LEAF: needles,
        Role.LEAF_2: leaves,
        Role.OTHER: "mod:odd_thing",
    }
    assert roles.others == {"mod:odd_thing": 1}
    assert sum(roles.counts.values()) == len(row)


def test_axes_of_a_log_do_not_compete_with_another_block() -> None:
    axes = [f"minecraft:oak_log[axis={axis}]" for axis in "xxyyzz"]
    assert (
        structure_to_roles(structure([*axes, *["minecraft:oak_wood"] * 3]))
        .palette[Role.WOOD]
        .startswith("minecraft:oak_log")
    )


def test_fences_are_branches_unless_there_is_no_log() -> None:
    log, fence = "minecraft:oak_log[axis=y]", "minecraft:oak_fence"
    assert structure_to_roles(structure([log, fence, fence])).grid.ravel().tolist() == [Role.WOOD, *[Role.WOOD_2] * 2]
    assert structure_to_roles(structure([fence, fence])).grid.ravel().tolist() == [Role.WOOD, Role.WOOD]


def test_air_only_has_no_palette() -> None:
    roles = structure_to_roles(structure([AIR_STATE, AIR_STATE]))
    assert (roles.palette, roles.counts, int(roles.grid.max())) == ({}, {}, Role.AIR)


# --- from roles to blocks ---------------------------------------------------------------------------------------------


@given(
    roles=arrays(np.uint8, (5, 4, 6), elements=st.integers(0, ROLES - 1)), species=st.sampled_from([*SPECIES_PALETTES])
)
def test_blocks_stand_where_roles_stand(roles: np.ndarray, species: str) -> None:
    built = roles_to_structure(roles, SPECIES_PALETTES[species])
    kinds = {Role.WOOD: "wood", Role.WOOD_2: "wood", Role.LEAF: "leaf", Role.LEAF_2: "leaf", Role.SNOW: "snow"}
    kinds |= {Role.AIR: "air", Role.HANGING: "hanging", Role.GROUND: "ground"}
    for role in Role:
        states = {built.palette[index] for index in np.unique(built.blocks[roles == role])}
        if role in kinds:
            assert {role_kind(state) for state in states} <= {kinds[role]}
        else:
            assert states <= {SPECIES_PALETTES[species][role]}
        assert all("persistent=true" in state for state in states if role_kind(state) == "leaf")


@given(roles=arrays(np.uint8, (4, 4, 4), elements=st.integers(0, ROLES - 1)))
def test_reading_what_was_built_gives_the_roles_up_to_which_wood_comes_first(roles: np.ndarray) -> None:
    built = roles_to_structure(roles, SPECIES_PALETTES["oak"])
    again = structure_to_roles(built).grid
    for pair in (WOODS, (Role.LEAF, Role.LEAF_2)):
        assert (np.isin(roles, pair) == np.isin(again, pair)).all()
    single = ~np.isin(roles, (*WOODS, Role.LEAF, Role.LEAF_2))
    assert (again[single] == roles[single]).all()


def states_of(built: Structure, y: int, z: int, x: int) -> str:
    return built.palette[built.blocks[y, z, x]]


def test_logs_lie_along_their_run() -> None:
    roles = np.zeros((4, 5, 5), np.uint8)
    roles[:3, 2, 2] = Role.WOOD  # a trunk
    roles[2, 2, 3:] = Role.WOOD  # a branch to the east
    roles[3, :2, 2] = Role.WOOD  # one to the north, a step higher
    built = roles_to_structure(roles, SPECIES_PALETTES["oak"])
    assert states_of(built, 1, 2, 2) == states_of(built, 2, 2, 2) == "minecraft:oak_log[axis=y]"
    assert states_of(built, 2, 2, 3) == states_of(built, 2, 2, 4) == "minecraft:oak_log[axis=x]"
    assert states_of(built, 3, 0, 2) == states_of(built, 3, 1, 2) == "minecraft:oak_log[axis=z]"


def test_only_known_blocks_get_properties() -> None:
    palette = {Role.WOOD: "mod:fir_log", Role.LEAF: "mod:fir_leaves", Role.OTHER: "minecraft:bone_block[axis=z]"}
    roles = np.array([[[Role.WOOD, Role.LEAF, Role.OTHER]]], np.uint8)
    assert roles_to_structure(roles, palette).palette[1:] == ("mod:fir_log", "mod:fir_leaves", palette[Role.OTHER])


def test_leaves_of_a_file_do_not_decay_any_more() -> None:
    state = "minecraft:oak_leaves[distance=4,persistent=false,waterlogged=false]"
    built = roles_to_structure(np.full((1, 1, 1), Role.LEAF, np.uint8), {Role.LEAF: state})
    assert built.palette[1] == "minecraft:oak_leaves[persistent=true,waterlogged=false]"


def test_vines_cling_to_what_is_beside_them_and_continue_downwards() -> None:
    roles = np.zeros((3, 1, 3), np.uint8)
    roles[2, 0, 0] = Role.LEAF
    roles[:, 0, 1] = Role.HANGING
    built = roles_to_structure(roles, {})
    assert {states_of(built, y, 0, 1) for y in range(3)} == {
        "minecraft:vine[east=false,north=false,south=false,up=false,west=true]"
    }


def test_a_role_without_a_block_gets_its_siblings() -> None:
    roles = np.array([[[Role.WOOD_2, Role.LEAF_2]]], np.uint8)
    built = roles_to_structure(roles, {Role.WOOD: "mod:fir_log", Role.LEAF: "mod:fir_leaves"})
    assert built.palette[1:] == ("mod:fir_log", "mod:fir_leaves")


def test_an_unfinished_grid_is_refused() -> None:
    with pytest.raises(BadInput, match="roles 0 to 8"):
        roles_to_structure(np.full((2, 2, 2), MASK, np.uint8), {})


@pytest.mark.parametrize("species", SPECIES_PALETTES)
def test_a_built_species_is_known_again(species: str) -> None:
    roles = np.array([[[Role.WOOD, Role.LEAF]]], np.uint8)
    assert species_of(roles_to_structure(roles, SPECIES_PALETTES[species])) == species


@pytest.mark.parametrize(
    ("names", "species"),
    [
        (["mangrove_log", "mangrove_leaves"], "other"),
        (["spruce_wood", "oak_leaves"], "oak"),
        (["dark_oak_wood", "oak_leaves"], "dark oak"),
        (["birch_log"], "birch"),
        (["jungle_leaves"], "jungle"),
        (["stone"], None),
    ],
)
def test_species_follows_from_the_names(names: list[str], species: str | None) -> None:
    assert species_of(structure([f"minecraft:{name}" for name in names])) == species


# --- real trees -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".nbt", ".iob"])
def test_real_trees_count_as_in_their_manifest(suffix: str) -> None:
    rows = shared_trees(suffix)
    assert rows
    for row in rows:
        tree = read_structure(TREES / row["file"]).cropped()
        roles = structure_to_roles(tree)
        kinds: Counter[str] = Counter()
        for state, count in roles.counts.items():
            # the manifest does not count mangrove roots as logs
            kinds["other" if "mangrove_roots" in state else role_kind(state)] += count
        found = (*tree.size, tree.solid.sum(), kinds["wood"], kinds["leaf"])
        assert found == tuple(int(row[name]) for name in ("dx", "dy", "dz", "blocks", "logs", "leaves")), row["file"]
        rebuilt = structure_to_roles(roles_to_structure(roles.grid, roles.palette)).grid
        assert (np.isin(rebuilt, WOODS) == np.isin(roles.grid, WOODS)).all(), row["file"]
