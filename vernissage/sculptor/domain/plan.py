"""Plans: the decisions that concern a whole structure, drawn before any voxel, and measured on any structure.

A plan says the box that the structure fills, where its base stands in it, how the trunk runs and how wide the crown is
at four heights. Drawing these first is what keeps a structure in one piece: voxels that are drawn side by side cannot
agree on them. Positions are in half-blocks, so that an even trunk has a centre and mirroring is exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vernissage.sculptor.domain.attributes import ATTRIBUTES, crown_measure, measure_attributes, trunk_thickness
from vernissage.sculptor.domain.roles import LEAVES, OUTSIDE, WOODS
from vernissage.sculptor.domain.sizes import SIZES
from vernissage.sculptor.domain.trunk import trunk_run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vernissage.sculptor.domain.attributes import Attributes

MOST = SIZES["huge"]
SPECIES = (*ATTRIBUTES["species"], "other")
SHAPES = ATTRIBUTES["crown"]
# Wood voxels per layer of the trunk: the least count of each class; 0 is no trunk at all.
TRUNK_COUNTS = (0, 1, 2, 3, 4, 5, 7, 9, 12, 16, 21, 27, 35, 45)
DENSITIES = 10
QUARTERS = 4
LEAFLESS = MOST.height
# Directions from above, an eighth of a turn each: towards +X first, then turning to +Z.
OCTANTS = 8
FURTHEST = 17
# How far a limb's tip may lie beside the middle line of its octant, in blocks to either side.
ASIDE = 7
FURTHEST_DRIFT = 12
STEPS_PER_AXIS = 5
MOVES = STEPS_PER_AXIS**2

# Every value and how many it can be, in the order in which they are drawn: what prompts speak of comes first.
FIELDS: dict[str, int] = {
    "species": len(SPECIES),
    "height": MOST.height + 1,
    "trunk": len(TRUNK_COUNTS),
    "shape": len(SHAPES),
    "width": MOST.width + 1,
    "depth": MOST.depth + 1,
    "base_x": 2 * MOST.width - 1,
    "base_z": 2 * MOST.depth - 1,
    "run": MOST.height + 1,
    "drift": FURTHEST_DRIFT + 1,
    "crown_base": LEAFLESS + 1,
    **{f"radius_{quarter}": FURTHEST + 1 for quarter in range(QUARTERS)},
    "density": DENSITIES,
    "roots": 2,
    "branches": 2,
    **{f"limb_{octant}": FURTHEST + 1 for octant in range(OCTANTS)},
    **{f"limb_height_{octant}": MOST.height for octant in range(OCTANTS)},
    **{f"limb_side_{octant}": 2 * ASIDE + 1 for octant in range(OCTANTS)},
    **{f"limb_start_{octant}": MOST.height for octant in range(OCTANTS)},
    **{f"reach_{octant}": FURTHEST + 1 for octant in range(OCTANTS)},
}
NAMES = tuple(FIELDS)
INDEX = {name: index for index, name in enumerate(NAMES)}


# Values of which there is one for each octant.
OF_OCTANTS = ("limb", "limb_height", "limb_side", "limb_start", "reach")


@dataclass(frozen=True)
class Plan:
    """What is decided about a structure before its voxels.

    Attributes:
        values: (fields,) int64, in the order of `FIELDS`. `height`, `width` and `depth` are the box in blocks;
            `base_x` and `base_z` the centre of the base in half-blocks from the box's first column; `run` the layers
            of the trunk; `crown_base` the lowest layer of leaves, `LEAFLESS` where there are none; `radius_*` the
            largest distance of leaves from the trunk's axis in each quarter of the crown from below, in blocks;
            `drift` how far its end lies from its base; `limb_*` the distance of the furthest wood in each octant,
            `limb_height_*` its layer, `limb_side_*` how far it lies beside the middle line of the octant (`ASIDE` is on
            it), and `limb_start_*` the layer where wood leaves the axis there; `reach_*` the distance of the furthest
            leaves in each octant.
        path: (height, 2) int64, the centre (z, x) of the trunk in each layer, in half-blocks; above the trunk it stays
            where the trunk ended.
    """

    values: np.ndarray
    path: np.ndarray

    def __getitem__(self, name: str) -> int:
        """Return the value of a field."""
        return int(self.values[INDEX[name]])

    @property
    def shape(self) -> tuple[int, int, int]:
        """(Y, Z, X) of the box."""
        return self["height"], self["depth"], self["width"]

    @property
    def species(self) -> str:
        """Name of the species."""
        return SPECIES[self["species"]]

    def turned(self, symmetry: int) -> Plan:
        """Return the plan of the structure after `turned_grid(grid, symmetry)`."""
        values, path = self.values.copy(), self.path.copy()
        x, z, width, depth = (INDEX[name] for name in ("base_x", "base_z", "width", "depth"))
        if symmetry & 1:
            path[:, 1] = 2 * (values[width] - 1) - path[:, 1]
            values[x] = 2 * (values[width] - 1) - values[x]
        if symmetry & 2:
            path[:, 0] = 2 * (values[depth] - 1) - path[:, 0]
            values[z] = 2 * (values[depth] - 1) - values[z]
        if symmetry & 4:
            path = path[:, ::-1].copy()
            values[[x, z, width, depth]] = values[[z, x, depth, width]]
        octants = turned_octants(symmetry)
        for name in OF_OCTANTS:
            first = INDEX[f"{name}_0"]
            turned = values[first + octants]
            mirrored = name == "limb_side" and symmetry.bit_count() % 2
            values[first : first + OCTANTS] = 2 * ASIDE - turned if mirrored else turned
        return Plan(values, path)


SYMMETRIES = 8


def turned_grid(grid: np.ndarray, symmetry: int) -> np.ndarray:
    """Return one of the eight turned and mirrored forms of a (Y, Z, X) grid, up staying up.

    Args:
        grid: (Y, Z, X).
        symmetry: 0 to 7; bit 0 mirrors X, bit 1 mirrors Z, bit 2 then exchanges both.
    """
    if symmetry & 1:
        grid = grid[:, :, ::-1]
    if symmetry & 2:
        grid = grid[:, ::-1]
    if symmetry & 4:
        grid = grid.transpose(0, 2, 1)
    return grid


def turned_octants(symmetry: int) -> np.ndarray:
    """Return (OCTANTS,) for each octant after `turned_grid(grid, symmetry)` the one that it was before."""
    octants = np.arange(OCTANTS)
    # Read backwards: what was done last is undone first.
    if symmetry & 4:
        octants = (OCTANTS // 4 - octants) % OCTANTS
    if symmetry & 2:
        octants = -octants % OCTANTS
    if symmetry & 1:
        octants = (OCTANTS // 2 - octants) % OCTANTS
    return octants


def octant_of(dz: np.ndarray, dx: np.ndarray) -> np.ndarray:
    """Return the number of the octant that each offset lies in."""
    return np.rint(np.arctan2(dz, dx) * (OCTANTS / (2 * np.pi))).astype(np.int64) % OCTANTS


def measure_plan(roles: np.ndarray, *, species: str | None = None, attributes: Attributes | None = None) -> Plan:
    """Measure the plan of a structure, with the code that also judges structures.

    Args:
        roles: (Y, Z, X) role grid, cropped to its blocks and at most 24 x 64 x 24.
        species: Name of the species where it is known.
        attributes: What was measured of it, where that was done before.

    Raises:
        ValueError: The grid is larger, or has no blocks.
    """
    height, depth, width = roles.shape
    if height > MOST.height or max(depth, width) > MOST.width:
        raise ValueError(f"a grid of {width}x{height}x{depth}, expected at most {MOST}")
    solid = (roles > 0) & (roles < OUTSIDE)
    if not solid.any():
        raise ValueError("a grid without blocks has no plan")
    run, crown = trunk_run(roles), crown_measure(roles)
    attributes = attributes or measure_attributes(roles)
    if len(run.centres):
        halves = np.rint(2 * run.centres).astype(np.int64)
    else:
        lowest = np.argwhere(solid[int(np.argwhere(solid.any((1, 2)))[0, 0])])
        halves = np.rint(2 * lowest.mean(0, keepdims=True)).astype(np.int64)
    path = _stepwise(halves, height)
    leaves = np.isin(roles, LEAVES)
    leafless = attributes.crown == "leafless" or not leaves.any()
    count = trunk_thickness(run, height if leafless else crown.base) or 0.0
    values = {
        "species": SPECIES.index(species) if species in SPECIES else len(SPECIES) - 1,
        "height": height,
        "width": width,
        "depth": depth,
        "base_x": int(path[0, 1]),
        "base_z": int(path[0, 0]),
        "trunk": int(np.searchsorted(TRUNK_COUNTS, count, side="right")) - 1,
        "run": len(run.counts),
        "drift": min(FURTHEST_DRIFT, round(float(np.hypot(*(path[-1] - path[0]))) / 2)),
        "crown_base": LEAFLESS if leafless else crown.base,
        "shape": SHAPES.index(attributes.crown or "round"),
        "density": min(DENSITIES - 1, int(crown.density * DENSITIES)) if not leafless else 0,
        "roots": int(attributes.roots == "roots"),
        "branches": int(attributes.branches == "branches"),
    }
    radii = np.zeros(QUARTERS, np.int64) if leafless else _radii(leaves, path, crown.base, height)
    values |= {f"radius_{quarter}": int(radius) for quarter, radius in enumerate(radii)}
    limbs = _limbs(np.isin(roles, WOODS), path)
    reaches = _limbs(leaves & (not leafless), path)
    for octant in range(OCTANTS):
        measured = zip(("limb", "limb_height", "limb_side", "limb_start"), limbs[octant], strict=True)
        values |= {f"{name}_{octant}": int(value) for name, value in measured}
        values[f"reach_{octant}"] = int(reaches[octant, 0])
    return Plan(np.array([values[name] for name in NAMES], np.int64), path)


def _stepwise(halves: np.ndarray, height: int) -> np.ndarray:
    """The path as it can be drawn: at most one block a layer along each axis, and held above its end."""
    path = np.empty((height, 2), np.int64)
    reach = STEPS_PER_AXIS // 2
    here = halves[0]
    for layer in range(height):
        if layer < len(halves):
            here = here + np.clip(halves[layer] - here, -reach, reach)
        path[layer] = here
    return path


def _radii(leaves: np.ndarray, path: np.ndarray, base: int, height: int) -> np.ndarray:
    y, z, x = np.nonzero(leaves)
    distance = np.hypot(z - path[y, 0] / 2, x - path[y, 1] / 2)
    quarter = np.clip((y - base) * QUARTERS // max(1, height - base), 0, QUARTERS - 1)
    radii = np.zeros(QUARTERS)
    np.maximum.at(radii, quarter, distance)
    return np.minimum(np.ceil(radii), FURTHEST).astype(np.int64)


def _limbs(mask: np.ndarray, path: np.ndarray) -> np.ndarray:
    """(OCTANTS, 4) int64: distance, layer and side of the furthest voxel from the axis, and the layer of the nearest.

    Distance 0, the lowest layer and no side where there is none. Voxels within a block of the axis are the trunk's.
    """
    y, z, x = np.nonzero(mask)
    dz, dx = z - path[y, 0] / 2, x - path[y, 1] / 2
    distance, turn = np.hypot(dz, dx), np.arctan2(dz, dx) * (OCTANTS / (2 * np.pi))
    octant = octant_of(dz, dx)
    found = np.zeros((OCTANTS, 4), np.int64)
    found[:, 2] = ASIDE
    for number in range(OCTANTS):
        here = np.flatnonzero((octant == number) & (distance >= 1))
        if not len(here):
            continue
        # Of equally distant ones the highest; on both sides of the middle line there may be two, whose mean it is.
        last = here[np.lexsort((y[here], np.round(distance[here], 6)))[-1]]
        tips = here[(np.abs(distance[here] - distance[last]) < 1e-6) & (y[here] == y[last])]
        asides = distance[tips] * np.sin((turn[tips] - np.rint(turn[tips])) * (2 * np.pi / OCTANTS))
        aside = float(np.mean(asides))
        near = here[np.lexsort((np.abs(y[here] - y[last]), np.round(distance[here], 6)))[0]]
        # Half a block to one side must be half a block to the other when it is mirrored.
        side = int(np.sign(aside)) * int(abs(aside) + 0.5 - 1e-9)
        found[number] = (
            min(FURTHEST, round(float(distance[last]))),
            y[last],
            ASIDE + int(np.clip(side, -ASIDE, ASIDE)),
            y[near],
        )
    return found


def moves_of(path: np.ndarray, run: int) -> np.ndarray:
    """Return (run - 1,) numbers of the moves from layer to layer along the trunk; empty where there is none."""
    steps = np.diff(path[: max(run, 1)], axis=0) + STEPS_PER_AXIS // 2
    return steps[:, 0] * STEPS_PER_AXIS + steps[:, 1]


def path_of(base: tuple[int, int], moves: np.ndarray, height: int) -> np.ndarray:
    """Return the (height, 2) path that begins at `base` (z, x) and makes these moves, then stays."""
    path = np.tile(np.array(base, np.int64), (height, 1))
    if len(moves):
        steps = np.stack([moves // STEPS_PER_AXIS, moves % STEPS_PER_AXIS], 1) - STEPS_PER_AXIS // 2
        walked = path[0] + np.cumsum(steps, 0)
        last = min(height, len(moves) + 1)
        path[1:last] = walked[: last - 1]
        path[last:] = walked[last - 2] if last > 1 else path[0]
    return path


def plan_of(values: Mapping[str, int], path: np.ndarray) -> Plan:
    """Return the plan with these values by name."""
    return Plan(np.array([values[name] for name in NAMES], np.int64), path)
