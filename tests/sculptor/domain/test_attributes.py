from __future__ import annotations

from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vernissage.sculptor.domain.attributes import ATTRIBUTES, Attributes, Crown, crown_measure, measure_attributes
from vernissage.sculptor.domain.roles import LEAVES, MASK, OUTSIDE, Role
from vernissage.sculptor.domain.sizes import SIZES

TREES = Path(__file__).parents[4] / "shared" / "data" / "trees"
GRIDS = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=3, max_dims=3, max_side=6), elements=st.integers(0, MASK))

SIDE = 15
MIDDLE = SIDE // 2


def with_crown(
    height: int, base: int, radii: list[float], *, trunk: int = 1, inner: list[float] | None = None
) -> np.ndarray:
    """A trunk and layers of leaves: discs, or rings where there is an inner radius."""
    z, x = np.indices((SIDE, SIDE)) - MIDDLE
    distance = np.hypot(z, x)
    roles = np.zeros((max(height, base + len(radii)), SIDE, SIDE), np.uint8)
    for layer, radius in enumerate(radii):
        inside = distance <= radius
        if inner is not None:
            inside &= distance >= inner[layer]
        roles[base + layer][inside] = Role.LEAF
    roles[:height, MIDDLE : MIDDLE + trunk, MIDDLE : MIDDLE + trunk] = Role.WOOD
    return roles


def ball(base: int = 4, radius: int = 5) -> np.ndarray:
    offsets = np.arange(-radius, radius + 1)
    return with_crown(base + radius, base, list(np.sqrt((radius + 0.5) ** 2 - offsets**2)))


CROWNS = {
    "round": ball(),
    "conical": with_crown(13, 3, [6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 0]),
    "flat": with_crown(10, 9, [6, 6.5, 5]),
    "columnar": with_crown(14, 3, [1.5, *[2.5] * 10, 1.5]),
    "weeping": with_crown(8, 1, [6.5] * 6 + [6, 4], inner=[5.5] * 5 + [4, 0, 0]),
    "leafless": with_crown(9, 9, []),
}


def turned(roles: np.ndarray, turns: int, *, mirrored: bool) -> np.ndarray:
    rotated = np.rot90(roles, turns, (1, 2))
    return rotated[:, :, ::-1] if mirrored else rotated


def test_attributes_are_the_fields_of_the_table() -> None:
    assert [field.name for field in fields(Attributes)] == list(ATTRIBUTES)


@pytest.mark.parametrize("shape", ATTRIBUTES["crown"])
def test_a_drawn_crown_has_its_shape(shape: str) -> None:
    assert measure_attributes(CROWNS[shape]).crown == shape
    assert crown_measure(CROWNS[shape]).shape == shape


@pytest.mark.parametrize("shape", ["round", "conical", "columnar", "flat", "weeping"])
def test_a_crown_with_ragged_leaves_keeps_its_shape(shape: str) -> None:
    rng = np.random.default_rng(3)
    roles = CROWNS[shape]
    leaves = np.isin(roles, LEAVES)
    kept = [np.where(leaves & (rng.random(roles.shape) < 0.05), Role.AIR, roles) for _ in range(50)]
    assert sum(crown_measure(ragged.astype(np.uint8)).shape == shape for ragged in kept) >= 48


@pytest.mark.parametrize("shape", ["round", "conical", "columnar", "weeping"])
def test_one_stray_leaf_does_not_change_a_crown(shape: str) -> None:
    stray = CROWNS[shape].copy()
    stray[0, 0, 0] = Role.LEAF_2
    assert crown_measure(stray).shape == shape


def test_a_crown_is_measured_in_the_layers_of_its_grid() -> None:
    z, x = np.indices((SIDE, SIDE)) - MIDDLE
    roles = np.pad(with_crown(5, 4, [4.0, 4.0, 4.0]), ((2, 3), (0, 0), (0, 0)), constant_values=OUTSIDE)
    crown = crown_measure(roles)
    assert (crown.base, crown.top) == (6, 8)
    distances = np.sort(np.hypot(z, x)[np.hypot(z, x) <= 4])
    assert distances[int(0.9 * len(distances))] <= crown.radius <= 4


def test_without_leaves_the_crown_is_where_the_wood_ends() -> None:
    assert crown_measure(CROWNS["leafless"]) == Crown(8, 8, 0.0, "leafless", 0.0)
    assert crown_measure(np.zeros((3, 3, 3), np.uint8)) == Crown(0, 0, 0.0, "leafless", 0.0)


def test_few_leaves_are_no_crown() -> None:
    roles = with_crown(14, 14, [], trunk=3)
    roles[10, MIDDLE - 1, MIDDLE] = Role.LEAF
    measured = measure_attributes(roles)
    assert measured.crown == "leafless"
    assert measured.density is None


@pytest.mark.parametrize(
    ("height", "expected"), [(8, "short"), (9, "medium"), (12, "medium"), (13, "tall"), (16, "tall")]
)
def test_height_is_told_by_the_grid(height: int, expected: str) -> None:
    pole = with_crown(height, height, [])
    assert measure_attributes(pole).height == expected
    assert measure_attributes(pole, size=SIZES["huge"]).height == "short"


@pytest.mark.parametrize(
    ("height", "expected"), [(17, "medium"), (24, "medium"), (25, "tall"), (33, "medium"), (49, "tall")]
)
def test_a_higher_structure_is_measured_against_a_larger_grid(height: int, expected: str) -> None:
    assert measure_attributes(with_crown(height, height, [])).height == expected


@pytest.mark.parametrize(("width", "expected"), [(8, "narrow"), (9, "medium"), (12, "medium"), (13, "wide")])
def test_width_is_the_larger_extent(width: int, expected: str) -> None:
    roles = np.zeros((4, 16, 16), np.uint8)
    roles[:, 0, 0] = Role.WOOD
    roles[3, :width, 0] = Role.LEAF
    assert measure_attributes(roles).width == expected


@pytest.mark.parametrize(("trunk", "expected"), [(1, "thin"), (2, "thick"), (3, "massive")])
def test_a_trunk_is_as_thick_as_its_layers(trunk: int, expected: str) -> None:
    measured = measure_attributes(with_crown(12, 7, [4.0] * 4, trunk=trunk))
    assert (measured.trunk, measured.lean, measured.roots, measured.branches) == (
        expected,
        "straight",
        "no roots",
        "no branches",
    )


def test_a_thin_trunk_that_leans_in_steps_is_thin() -> None:
    roles = np.zeros((8, 3, 9), np.uint8)
    for y in range(8):
        roles[y, 1, y : y + 2] = Role.WOOD
    measured = measure_attributes(roles)
    assert (measured.trunk, measured.lean, measured.branches) == ("thin", "leaning", "no branches")


@pytest.mark.parametrize(("move", "expected"), [(1, "straight"), (2, "leaning"), (3, "leaning")])
def test_a_trunk_leans_from_two_voxels_on(move: int, expected: str) -> None:
    roles = np.zeros((8, 3, 9), np.uint8)
    for y in range(8):
        roles[y, 1, 1 + min(y, move)] = Role.WOOD
    assert measure_attributes(roles).lean == expected


def test_roots_are_wood_on_the_ground_and_no_branches() -> None:
    roles = ball(base=6)
    roles[0, MIDDLE - 2 : MIDDLE + 3, MIDDLE] = Role.WOOD
    roles[0, MIDDLE, MIDDLE - 2 : MIDDLE + 3] = Role.WOOD
    measured = measure_attributes(roles)
    assert (measured.trunk, measured.roots, measured.branches) == ("thin", "roots", "no branches")


def test_branches_are_wood_away_from_the_trunk() -> None:
    roles = ball(base=6)
    roles[8, MIDDLE, MIDDLE : MIDDLE + 4] = Role.WOOD
    measured = measure_attributes(roles)
    assert (measured.roots, measured.branches) == ("no roots", "branches")


def test_a_crown_with_holes_is_sparse_and_its_hidden_hollow_is_not_seen() -> None:
    full = ball()
    assert measure_attributes(full).density == "dense"
    hollow = full.copy()
    hollow[6:12, MIDDLE - 2 : MIDDLE + 3, MIDDLE - 2 : MIDDLE + 3] = Role.AIR
    hollow[:9, MIDDLE, MIDDLE] = Role.WOOD
    assert measure_attributes(hollow).density == "dense"
    rng = np.random.default_rng(0)
    holes = np.where((full == Role.LEAF) & (rng.random(full.shape) < 0.35), Role.AIR, full).astype(np.uint8)
    assert measure_attributes(holes).density == "sparse"
    assert crown_measure(holes).density < crown_measure(hollow).density < crown_measure(full).density


def test_what_makes_no_sense_is_not_said() -> None:
    assert measure_attributes(np.zeros((0, 0, 0), np.uint8), species="oak") == Attributes(species="oak")
    assert measure_attributes(np.full((2, 2, 2), MASK, np.uint8)) == Attributes()
    bush = measure_attributes(np.full((3, 5, 5), Role.LEAF, np.uint8), species="bush")
    assert bush.species == "bush"
    assert (bush.trunk, bush.lean, bush.roots, bush.branches) == (None, None, None, None)
    assert (bush.height, bush.width, bush.density) == ("short", "narrow", "dense")
    floating = ball()
    floating[:4] = Role.AIR
    floating[0, 0, 0] = Role.LEAF
    assert measure_attributes(floating).trunk is None


@given(GRIDS)
def test_only_words_of_the_table_are_said(roles: np.ndarray) -> None:
    for name, word in asdict(measure_attributes(roles)).items():
        assert word is None or word in ATTRIBUTES[name]
    crown = crown_measure(roles)
    assert 0 <= crown.base <= crown.top < len(roles)
    assert 0 <= crown.density <= 1


@given(GRIDS, st.integers(0, 3), st.booleans())
def test_turning_and_mirroring_change_nothing(roles: np.ndarray, turns: int, mirrored: bool) -> None:
    other = turned(roles, turns, mirrored=mirrored)
    assert measure_attributes(other) == measure_attributes(roles)
    assert crown_measure(other) == crown_measure(roles)


@given(GRIDS, st.tuples(*[st.tuples(st.integers(0, 3), st.integers(0, 3))] * 3), st.sampled_from([Role.AIR, OUTSIDE]))
def test_room_around_a_structure_changes_nothing(
    roles: np.ndarray, room: tuple[tuple[int, int], ...], filler: int
) -> None:
    padded = np.pad(roles, room, constant_values=filler)
    assert measure_attributes(padded) == measure_attributes(roles)
    crown, moved = crown_measure(roles), crown_measure(padded)
    lift = room[0][0] if moved.top else 0
    assert replace(moved, base=moved.base - lift, top=moved.top - lift) == crown


def test_real_spruces_are_pointed_and_turning_them_changes_nothing() -> None:
    if not TREES.is_dir():
        pytest.skip("the shared trees are not on this machine")
    from vernissage.sculptor.domain.blocks import structure_to_roles
    from vernissage.sculptor.domain.formats import read_structure

    crowns: dict[str, list[str | None]] = {"spruce": [], "oak": []}
    rng = np.random.default_rng(0)
    for kind, found in crowns.items():
        for file in sorted((TREES / "iris-overworld" / kind).glob("*.iob"))[::4]:
            roles = structure_to_roles(read_structure(file)).grid
            measured = measure_attributes(roles)
            found.append(measured.crown)
            assert measured == measure_attributes(turned(roles, int(rng.integers(4)), mirrored=bool(rng.integers(2))))
    pointed = {kind: np.mean([shape in {"conical", "columnar"} for shape in found]) for kind, found in crowns.items()}
    assert pointed["spruce"] > 0.7
    assert pointed["oak"] < 0.3
