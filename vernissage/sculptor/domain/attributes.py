"""What captions say about a structure, measured on it: how high, how thick, which shape its crown has."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from vernissage.sculptor.domain.anatomy import bounding_box
from vernissage.sculptor.domain.sizes import SIZES, Size, size_class
from vernissage.sculptor.domain.trunk import TrunkRun, leaf_mask, solid_mask, trunk_run, wood_mask

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "species": ("oak", "birch", "spruce", "pine", "jungle", "acacia", "dark oak", "willow", "palm", "dead", "bush"),
    "height": ("short", "medium", "tall"),
    "trunk": ("thin", "thick", "massive"),
    "lean": ("straight", "leaning"),
    "crown": ("round", "conical", "flat", "columnar", "weeping", "leafless"),
    "width": ("narrow", "medium", "wide"),
    "density": ("sparse", "dense"),
    "roots": ("no roots", "roots"),
    "branches": ("no branches", "branches"),
}

# Upper ends of all classes but the last. Shares of the grid: half of it is what nobody calls tall or wide, and a tree
# seldom fills the width of a grid as fully as its height.
HEIGHT_ENDS = (0.5, 0.75)
WIDTH_ENDS = (0.5, 0.8)
# Wood voxels in a layer: one voxel is thin, up to 2 x 2 is thick; a median of an even number may lie between.
TRUNK_ENDS = (1.5, 4.5)
# A move of one voxel is what an uneven base does; a high trunk may wander by more before it seems to lean.
LEAN_LEAST = 2.0
LEAN_SHARE = 0.25
# A trunk of fewer layers has no direction.
LEAN_LAYERS = 3
# A few leaves on a dead tree are no crown.
LEAFLESS_SHARE = 0.03
# Stray leaves must not decide where a crown begins and ends, nor how wide it is.
CROWN_CUT = 0.02
CROWN_RADIUS = 0.95
# An umbrella is less than half as high as it is wide; the crown of the game's own small oak is .6.
FLAT_RATIO = 0.45
COLUMN_RATIO = 1.5
# Mean radius of the upper over that of the lower 40 % of layers, and the mean height of the leaves, as a share of the
# crown's: a full cone has .25 and .25, a hollow one .25 and .33, half a ball .58 and .38, a ball 1 and .5. A palm has
# the first without the second, a tiered spruce comes close to half a ball in the first.
CONE_PART = 0.4
CONE_TAPER = 0.65
CONE_MIDDLE = 0.4
# Inner and outer columns of leaves meet here, as a share of the radius.
RIM = 0.6
# A curtain: how much lower the outer columns end and how many leaves they hold, both as a share of the crown's height,
# and how far out the lowest third of the crown lies. Branches that hang have the first but are thin.
WEEPING_LAYERS = 4
WEEPING_DROOP = 0.15
WEEPING_STRAND = 0.3
WEEPING_RIM = 0.72
# A gap has three of its six faces covered; a full crown has few, one with holes or ragged leaves has many.
GAP_FACES = 3
DENSE_SHARE = 0.8
# Roots make the base clearly wider than the trunk: a thin one needs three voxels more.
ROOT_FACTOR = 1.5
ROOT_EXTRA = 2.0
# Wood beside the trunk is roots up to this share of its layers.
ROOT_ZONE = 0.15
# A single knot is no branch, nor is the rough bark of a massive trunk.
BRANCH_LEAST = 2
BRANCH_SHARE = 0.04


@dataclass(frozen=True)
class Attributes:
    """What can be said about a structure: a word of `ATTRIBUTES` each, None where it cannot be said."""

    species: str | None = None
    height: str | None = None
    trunk: str | None = None
    lean: str | None = None
    crown: str | None = None
    width: str | None = None
    density: str | None = None
    roots: str | None = None
    branches: str | None = None


@dataclass(frozen=True)
class Crown:
    """The leaves of a structure.

    Attributes:
        base: Lowest layer of the grid with leaves. Without leaves this and `top` are the highest layer that is filled
            (0 in an empty grid): where the wood ends.
        top: Highest layer with leaves.
        radius: 95th percentile of the leaves' horizontal distance from their middle, in voxels; 0 without leaves.
        shape: A word of `ATTRIBUTES["crown"]`.
        density: Leaves / (leaves + gaps), in [0, 1]; a gap is a place without a block beside a leaf that blocks cover
            from at least three of its six sides. The hollow of a crown that is a closed shell hardly counts: nobody
            sees it. 0 without leaves.
    """

    base: int
    top: int
    radius: float
    shape: str
    density: float


def measure_attributes(roles: np.ndarray, *, species: str | None = None, size: Size | None = None) -> Attributes:
    """Say of a structure what a caption could.

    Args:
        roles: (Y, Z, X) uint8, any role grid; room around the structure makes no difference.
        species: What it is, which roles do not tell.
        size: The grid that height and width are compared with; by default the smallest named size that holds the
            structure.

    Returns:
        A word for each attribute; None where it makes no sense: all of an empty grid, the trunk, lean and roots of what
        has no trunk, the branches of what has no wood, and the density of what has no crown.
    """
    roles = roles[bounding_box(solid_mask(roles))]
    if not roles.size:
        return Attributes(species=species)
    height, depth, width = roles.shape
    grid = size or SIZES[size_class(Size(width, height, depth))]
    wood = wood_mask(roles)
    run = trunk_run(roles)
    crown = _crown(roles)
    bare = crown.shape == "leafless"
    thickness = trunk_thickness(run, len(roles) if bare else crown.base)
    return Attributes(
        species=species,
        height=_class_of("height", height / grid.height, HEIGHT_ENDS),
        trunk=None if thickness is None else _class_of("trunk", thickness, TRUNK_ENDS),
        lean=_lean(run),
        crown=crown.shape,
        width=_class_of("width", max(width, depth) / min(grid.width, grid.depth), WIDTH_ENDS),
        density=None if bare else ATTRIBUTES["density"][crown.density > DENSE_SHARE],
        roots=None if thickness is None else ATTRIBUTES["roots"][_has_roots(wood, thickness)],
        branches=ATTRIBUTES["branches"][_has_branches(wood, run)] if wood.any() else None,
    )


def crown_measure(roles: np.ndarray) -> Crown:
    """Measure the crown of a structure.

    Args:
        roles: (Y, Z, X) uint8, any role grid.
    """
    ys, zs, xs = bounding_box(solid_mask(roles))
    cropped = roles[ys, zs, xs]
    if not cropped.size:
        return Crown(0, 0, 0.0, "leafless", 0.0)
    crown = _crown(cropped)
    return replace(crown, base=crown.base + ys.start, top=crown.top + ys.start)


def _crown(roles: np.ndarray) -> Crown:
    """Measure the crown of a structure that is cropped and not empty."""
    leaves, solid = leaf_mask(roles), solid_mask(roles)
    places = np.argwhere(leaves)
    if not len(places):
        return Crown(len(roles) - 1, len(roles) - 1, 0.0, "leafless", 0.0)
    ys, distances = places[:, 0], _distances(places[:, 1:])
    radius = _ranked(distances, CROWN_RADIUS)
    bare = len(places) < LEAFLESS_SHARE * int(solid.sum())
    shape = "leafless" if bare else _shape(leaves, places, distances, radius)
    return Crown(int(ys[0]), int(ys[-1]), radius, shape, _density(solid, leaves))


def _distances(places: np.ndarray) -> np.ndarray:
    """Return the distance of each place (n, 2) from their middle.

    Squares are summed as whole numbers, so that turning or mirroring the places changes no bit of the result.
    """
    offsets = len(places) * places - places.sum(axis=0)
    return np.asarray(np.sqrt((offsets**2).sum(axis=1)) / len(places))


def _ranked(values: np.ndarray, share: float) -> float:
    """Return the value that this share of the values does not exceed."""
    return float(np.sort(values)[math.ceil(share * (len(values) - 1))])


def _density(solid: np.ndarray, leaves: np.ndarray) -> float:
    """Return leaves / (leaves + gaps) as in `Crown`."""
    gaps = (_covered_faces(solid) >= GAP_FACES) & (_covered_faces(leaves) > 0)
    gaps[1:-1, 1:-1, 1:-1] &= ~solid
    total = int(leaves.sum())
    return total / (total + int(gaps.sum()))


def _covered_faces(mask: np.ndarray) -> np.ndarray:
    """Return (Y + 2, Z + 2, X + 2) uint8: the set ones of six neighbours, one place around the mask included."""
    height, depth, width = mask.shape
    faces = np.zeros((height + 2, depth + 2, width + 2), np.uint8)
    for shift in (0, 2):
        faces[shift : shift + height, 1:-1, 1:-1] += mask
        faces[1:-1, shift : shift + depth, 1:-1] += mask
        faces[1:-1, 1:-1, shift : shift + width] += mask
    return faces


def _shape(leaves: np.ndarray, places: np.ndarray, distances: np.ndarray, radius: float) -> str:
    """Return the class of a crown, by how its leaves are spread over height and distance from the middle."""
    ys = places[:, 0]
    cut = int(CROWN_CUT * len(ys))
    base, top = int(ys[cut]), int(ys[len(ys) - 1 - cut])
    height = top - base + 1
    ratio = height / (2 * radius + 1)
    if ratio < FLAT_RATIO:
        return "flat"
    if _narrows(places, base, height):
        return "conical"
    if _hangs(leaves, places, distances / max(radius, 0.5), base, height):
        return "weeping"
    return "columnar" if ratio > COLUMN_RATIO else "round"


def _narrows(places: np.ndarray, base: int, height: int) -> bool:
    """Whether the layers become smaller upwards and most leaves are low."""
    if height < 2:
        return False
    radii = _layer_radii(places)[base : base + height]
    part = max(1, round(CONE_PART * height))
    taper = radii[-part:].mean() / radii[:part].mean()
    middle = np.clip((places[:, 0] - base) / (height - 1), 0, 1).mean()
    return bool(taper <= CONE_TAPER and middle <= CONE_MIDDLE)


def _hangs(leaves: np.ndarray, places: np.ndarray, distances: np.ndarray, base: int, height: int) -> bool:
    """Whether the leaves of the rim hang down like a curtain: long columns that end low, and little else down there.

    Args:
        leaves: (Y, Z, X) bool.
        places: (n, 3) of the leaves, from the lowest up.
        distances: (n,) of the leaves from their middle, in radii.
        base: Lowest layer of the crown.
        height: Its layers.
    """
    rows, columns = places[:, 1], places[:, 2]
    ends = leaves.argmax(axis=0)[rows, columns] == places[:, 0]
    inner, outer = ends & (distances <= RIM), ends & (distances > RIM)
    if height < WEEPING_LAYERS or not inner.any() or not outer.any():
        return False
    droop = places[inner, 0].mean() - places[outer, 0].mean()
    strand = leaves.sum(axis=0)[rows[outer], columns[outer]].mean()
    lowest_third = np.sort(distances[places[:, 0] < base + height / 3])  # sorted: the sum's order must not matter
    return bool(
        droop >= WEEPING_DROOP * height and strand >= WEEPING_STRAND * height and lowest_third.mean() >= WEEPING_RIM
    )


def _layer_radii(places: np.ndarray) -> np.ndarray:
    """Return the radius of each layer's leaves: that of the disc which is spread as far, and half a voxel."""
    ys, flat = places[:, 0], places[:, 1:]
    counts = np.bincount(ys)
    squares = np.bincount(ys, (flat**2).sum(axis=1))
    sums = [np.bincount(ys, flat[:, axis]) ** 2 for axis in (0, 1)]
    # Whole numbers up to the root, as in `_distances`; a disc of radius r has a variance of r squared / 2.
    spread = counts * squares - (sums[0] + sums[1])
    return np.where(counts > 0, np.sqrt(2 * spread) / np.maximum(counts, 1) + 0.5, 0.0)


def _class_of(attribute: str, value: float, ends: tuple[float, ...]) -> str:
    """Return the first class whose upper end the value does not exceed; the last one has none."""
    return ATTRIBUTES[attribute][sum(value > end for end in ends)]


def trunk_thickness(run: TrunkRun, crown_base: int) -> float | None:
    """Return the usual wood voxels per layer of the trunk below the crown, or of its lower half if that is more.

    Only wood that goes on in the layer above counts: roots that lie on the ground, the beginnings of branches and the
    sideways steps of a leaning trunk do not make it thicker.
    """
    if not len(run):
        return None
    layers = run.voxels[run.base : run.base + len(run)]
    shared = (layers[:-1] & layers[1:]).sum(axis=(1, 2)) if len(run) > 1 else run.counts
    lower = shared[: max(crown_base, (len(run) + 1) // 2)]
    return max(1.0, float(np.median(lower)))


def _lean(run: TrunkRun) -> str | None:
    if len(run) < LEAN_LAYERS:
        return None
    return ATTRIBUTES["lean"][run.move >= max(LEAN_LEAST, LEAN_SHARE * len(run))]


def _has_roots(wood: np.ndarray, thickness: float) -> bool:
    """Whether the base is much wider than the trunk."""
    return int(wood[0].sum()) >= ROOT_FACTOR * thickness + ROOT_EXTRA


def _has_branches(wood: np.ndarray, run: TrunkRun) -> bool:
    """Whether there is wood beside the trunk, above its roots."""
    beside = wood & ~run.voxels
    above_roots = math.ceil(ROOT_ZONE * len(run))
    return int(beside[above_roots:].sum()) >= max(BRANCH_LEAST, BRANCH_SHARE * int(wood.sum()))
