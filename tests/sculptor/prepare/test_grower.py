from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from vernissage.core.errors import BadInput
from vernissage.sculptor.domain.attributes import Attributes, measure_attributes
from vernissage.sculptor.domain.roles import Role
from vernissage.sculptor.domain.sizes import LARGEST, SIZES, Size
from vernissage.sculptor.prepare.grower import SPECIES_NAMES, grow, grow_any, grow_like

FACES = ndimage.generate_binary_structure(3, 1)
CORNERS = ndimage.generate_binary_structure(3, 3)
SQUARE = np.ones((3, 3), bool)
ODD = [Size(5, 9, 7), Size(1, 1, 1), Size(1, 7, 1), Size(2, 2, 3), Size(17, 31, 16), Size(9, 40, 3), Size(24, 3, 24)]
SEEDS = st.integers(0, 2**32 - 1)


def check_standing(roles: np.ndarray, size: Size) -> None:
    """Assert everything that is promised of any tree, by other means than the grower's own."""
    assert roles.dtype == np.uint8
    height, depth, width = roles.shape
    assert size.holds(Size(width, height, depth))
    solid = roles != Role.AIR
    for axis in range(3):
        assert solid.take(0, axis).any()
        assert solid.take(-1, axis).any()

    wood, leaves = roles == Role.WOOD, roles == Role.LEAF
    assert wood[0].any()
    assert ndimage.label(wood, FACES)[1] == 1
    assert ndimage.label(wood[0], SQUARE)[1] == 1
    assert ndimage.label(solid, CORNERS)[1] == 1
    alive = wood
    if leaves.any():
        alive = ndimage.binary_dilation(wood, FACES, iterations=6, mask=wood | leaves)
    assert not (leaves & ~alive).any()
    assert set(np.unique(roles)) <= {Role.AIR, Role.WOOD, Role.LEAF, Role.HANGING}


@pytest.mark.parametrize("species", SPECIES_NAMES)
@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, size=st.sampled_from([*SIZES.values(), *ODD]))
def test_every_tree_stands(species: str, seed: int, size: Size) -> None:
    check_standing(grow(species, size, np.random.default_rng(seed)), size)


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, size=st.builds(Size, st.integers(1, 20), st.integers(1, 30), st.integers(1, 20)))
def test_any_tree_stands_in_any_grid(seed: int, size: Size) -> None:
    species, roles = grow_any(size, np.random.default_rng(seed))
    assert species in SPECIES_NAMES
    check_standing(roles, size)


@pytest.mark.parametrize("species", ["oak", "willow", "palm", "dead"])
def test_the_largest_grid_holds_standing_trees(species: str) -> None:
    roles = grow(species, LARGEST, np.random.default_rng(3))
    check_standing(roles, LARGEST)
    assert roles.shape[0] > 24


def test_a_grid_of_one_voxel_holds_one_block_of_wood() -> None:
    for species in SPECIES_NAMES:
        roles = grow(species, Size(1, 1, 1), np.random.default_rng(0))
        assert roles.tolist() == [[[Role.WOOD]]]


@pytest.mark.parametrize("name", SIZES)
def test_equal_seeds_grow_equal_trees_and_others_do_not(name: str) -> None:
    grown = [grow_any(SIZES[name], np.random.default_rng(seed)) for seed in range(40)]
    again = [grow_any(SIZES[name], np.random.default_rng(seed)) for seed in range(40)]
    for (species, roles), (same_species, same_roles) in zip(grown, again, strict=True):
        assert species == same_species
        assert np.array_equal(roles, same_roles)
    assert len({(roles.shape, roles.tobytes()) for _, roles in grown}) == len(grown)


@pytest.mark.parametrize("species", SPECIES_NAMES)
def test_trees_of_a_species_differ(species: str) -> None:
    """Half of all pairs share less than half of their voxels, whichever way the grids are laid on one another."""
    trees = []
    for seed in range(14):
        canvas = np.zeros(SIZES["normal"].shape, bool)
        roles = grow(species, SIZES["normal"], np.random.default_rng(seed))
        offset = (SIZES["normal"].depth - roles.shape[1]) // 2, (SIZES["normal"].width - roles.shape[2]) // 2
        view = canvas[: roles.shape[0], offset[0] : offset[0] + roles.shape[1], offset[1] : offset[1] + roles.shape[2]]
        view[:] = roles != Role.AIR
        trees.append(canvas)
    overlap = [(a & b).sum() / (a | b).sum() for n, a in enumerate(trees) for b in trees[:n]]
    assert np.median(overlap) < 0.5


@pytest.mark.parametrize(("name", "lowest", "most_below"), [("normal", 2, 5), ("big", 4, 13), ("huge", 8, 24)])
def test_trees_use_the_height_of_their_grid(name: str, lowest: int, most_below: int) -> None:
    size = SIZES[name]
    grown = [grow_any(size, np.random.default_rng([1, seed])) for seed in range(80)]
    heights = np.array([roles.shape[0] for species, roles in grown if species != "bush"])
    assert heights.min() >= lowest
    assert (heights < most_below).mean() < 0.05
    assert heights.max() > 0.95 * size.height


@pytest.mark.parametrize("name", SIZES)
def test_every_word_of_proportion_occurs_at_every_size(name: str) -> None:
    said: dict[str, Counter[str | None]] = {}
    for seed in range(120):
        species, roles = grow_any(SIZES[name], np.random.default_rng([2, seed]))
        measured = measure_attributes(roles, species=species, size=SIZES[name])
        for attribute in ("height", "width", "trunk", "lean", "density", "roots", "branches"):
            said.setdefault(attribute, Counter())[getattr(measured, attribute)] += 1
        said.setdefault("crown", Counter())[measured.crown] += 1
    for attribute, values in {
        "height": ("short", "medium", "tall"),
        "width": ("narrow", "medium", "wide"),
        "trunk": ("thin", "thick", "massive"),
        "lean": ("straight", "leaning"),
        "density": ("sparse", "dense"),
        "roots": ("no roots", "roots"),
        "branches": ("no branches", "branches"),
    }.items():
        assert min(said[attribute][value] for value in values) >= 5, (attribute, said[attribute])
    assert {"round", "conical", "flat", "columnar", "weeping", "leafless"} <= set(said["crown"])


@pytest.mark.parametrize(
    ("species", "crown"),
    [("spruce", "conical"), ("acacia", "flat"), ("dead", "leafless"), ("willow", "weeping"), ("dark oak", "round")],
)
def test_species_have_the_crown_they_are_known_for(species: str, crown: str) -> None:
    size = SIZES["big"]
    measured = [
        measure_attributes(grow(species, size, np.random.default_rng([4, seed])), size=size).crown for seed in range(60)
    ]
    assert Counter(measured).most_common(1)[0][0] == crown


def test_gaps_of_a_sparse_crown_are_clumps() -> None:
    """Leaves that are left have more leaf neighbours than if as many had been dropped one by one."""
    rng = np.random.default_rng(0)
    _, sparse = grow_like(Attributes(species="oak", height="tall", width="wide", density="sparse"), SIZES["big"], rng)
    leaves = sparse == Role.LEAF
    hull = ndimage.binary_closing(np.pad(leaves, 3), CORNERS, iterations=2)[3:-3, 3:-3, 3:-3] | leaves
    alone = hull & (rng.random(hull.shape) < leaves.sum() / hull.sum())

    def neighbours(mask: np.ndarray) -> float:
        return float((ndimage.convolve(mask.astype(int), FACES.astype(int), mode="constant")[mask] - 1).mean())

    assert neighbours(leaves) > neighbours(alone) + 0.3


@pytest.mark.parametrize(
    "wanted",
    [
        Attributes(species="oak", height="tall", trunk="thick"),
        Attributes(species="spruce", height="short", trunk="massive"),
        Attributes(species="palm", lean="leaning", height="tall"),
        Attributes(species="birch", crown="conical", roots="roots"),
        Attributes(crown="leafless", branches="branches", width="wide"),
        Attributes(species="acacia", crown="flat", branches="no branches", width="narrow"),
    ],
)
def test_a_tree_that_is_asked_for_is_grown(wanted: Attributes) -> None:
    size = SIZES["normal"]
    for seed in range(3):
        species, roles = grow_like(wanted, size, np.random.default_rng(seed))
        check_standing(roles, size)
        measured = measure_attributes(roles, species=species, size=size)
        for name, value in vars(wanted).items():
            assert value is None or getattr(measured, name) == value


def test_a_tree_that_cannot_be_is_as_near_as_the_tries_come() -> None:
    wanted = Attributes(species="oak", height="tall", crown="leafless", density="dense")
    species, roles = grow_like(wanted, SIZES["normal"], np.random.default_rng(0), tries=8)
    measured = measure_attributes(roles, species=species, size=SIZES["normal"])
    assert (measured.species, measured.height) == ("oak", "tall")


def test_what_is_not_known_is_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(BadInput, match=r"'baobab'.*oak, birch"):
        grow("baobab", SIZES["normal"], rng)
    with pytest.raises(BadInput, match="at least 1"):
        grow_like(Attributes(), SIZES["normal"], rng, tries=0)
