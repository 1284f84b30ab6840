"""Whether built structures look like held-out ones as a set: numbers of each, compared as distributions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vernissage.sculptor.domain.anatomy import bounding_box
from vernissage.sculptor.domain.trunk import leaf_mask, solid_mask, wood_mask

if TYPE_CHECKING:
    from collections.abc import Sequence

SLABS = 8
#: What is measured on a structure: four numbers in voxels, then two profiles over eight slabs of equal height, from
#: the ground up: the share of all blocks in each slab, and how far from the axis they are.
FEATURES: tuple[str, ...] = (
    "height",
    "width",
    "logs",
    "leaves",
    *(f"layers_{slab}" for slab in range(1, SLABS + 1)),
    *(f"radius_{slab}" for slab in range(1, SLABS + 1)),
)


@dataclass(frozen=True)
class Fidelity:
    """How a set of structures compares with a reference.

    Attributes:
        nearest_accuracy: How well the nearest neighbour tells whether a structure was built; .5 is ideal, 1 means that
            the sets lie apart, below .5 that the built ones sit beside single structures of the reference.
        wasserstein: Wasserstein-1 distance of each of `FEATURES`, in standard deviations of the reference.
        wasserstein_mean: Their mean.
        voxel_ratio: Mean number of blocks of what was built / mean number of the reference; 1 is ideal.
    """

    nearest_accuracy: float
    wasserstein: dict[str, float]
    wasserstein_mean: float
    voxel_ratio: float


def fidelity(built: Sequence[np.ndarray], reference: Sequence[np.ndarray]) -> Fidelity:
    """Compare a set of structures with a reference; both should have been asked for by the same mix of prompts.

    Args:
        built: Role grids, (Y, Z, X) uint8 each, of any sizes.
        reference: Likewise.

    Raises:
        ValueError: One of the sets has fewer than two structures.
    """
    from scipy.stats import wasserstein_distance

    if len(built) < 2 or len(reference) < 2:
        raise ValueError(f"fidelity: found {len(built)} and {len(reference)} structures, expected at least 2 of each")
    mine, theirs = standardised(features_of(built), features_of(reference))
    distances = {
        name: float(wasserstein_distance(mine[:, column], theirs[:, column])) for column, name in enumerate(FEATURES)
    }
    return Fidelity(
        nearest_accuracy=nearest_accuracy(mine, theirs),
        wasserstein=distances,
        wasserstein_mean=float(np.mean(list(distances.values()))),
        voxel_ratio=voxel_ratio(built, reference),
    )


def features_of(grids: Sequence[np.ndarray]) -> np.ndarray:
    """Measure structures.

    Args:
        grids: n role grids, (Y, Z, X) uint8 each; room around a structure makes no difference.

    Returns:
        (n, 20) float64, columns as in `FEATURES`: height, largest horizontal extent, wood and leaves in voxels; the
        shares; and the mean horizontal distance from the middle of the base, in widths, 0 in a slab without blocks. A
        slab that ends inside a layer has its part of it. All are 0 for an empty grid.
    """
    return np.array([_features(grid) for grid in grids], np.float64).reshape(-1, len(FEATURES))


def standardised(built: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both in standard deviations of the reference from its mean; a column that is constant there stays as far.

    Args:
        built: (n, F) features.
        reference: (m, F) features.
    """
    spread = reference.std(axis=0)
    # What rounding leaves of a constant is no spread.
    constant = spread <= 1e-9 * np.maximum(1, np.abs(reference).max(axis=0))
    spread = np.where(constant, 1.0, spread)
    mean = reference.mean(axis=0)
    return (built - mean) / spread, (reference - mean) / spread


def nearest_accuracy(built: np.ndarray, reference: np.ndarray) -> float:
    """Say how well the nearest neighbour, leave-one-out, tells two samples apart (Lopez-Paz and Oquab 2017, 1-NN).

    Args:
        built: (n, F).
        reference: (m, F).

    Returns:
        The mean of both samples' accuracies, so that unequal sizes do not matter much. Of equally near neighbours each
        has its part of the vote.
    """
    from scipy.spatial.distance import cdist

    rows = np.concatenate([built, reference])
    is_built = np.arange(len(rows)) < len(built)
    distances = cdist(rows, rows)
    np.fill_diagonal(distances, math.inf)
    nearest = distances == distances.min(axis=1, keepdims=True)
    same = is_built[:, None] == is_built
    right = (nearest & same).sum(axis=1) / nearest.sum(axis=1)
    return float((right[is_built].mean() + right[~is_built].mean()) / 2)


def voxel_ratio(built: Sequence[np.ndarray], reference: Sequence[np.ndarray]) -> float:
    """Return the mean number of blocks / that of the reference; NaN where there is nothing to divide."""
    mine, theirs = ([int(solid_mask(grid).sum()) for grid in grids] for grids in (built, reference))
    return float(np.mean(mine) / np.mean(theirs)) if mine and sum(theirs) else math.nan


def _features(grid: np.ndarray) -> list[float]:
    roles = grid[bounding_box(solid_mask(grid))]
    if not roles.size:
        return [0.0] * len(FEATURES)
    solid = solid_mask(roles)
    height, depth, width = solid.shape
    base_z, base_x = (float(places.mean()) for places in np.nonzero(solid[0]))
    z, x = np.indices((depth, width))
    distance = np.hypot(z - base_z, x - base_x)
    blocks = solid.sum(axis=(1, 2)).astype(np.float64)
    far = np.where(solid, distance, 0.0).sum(axis=(1, 2))
    slabs = _slabs(height)
    in_slab = slabs @ blocks
    radii = np.divide(slabs @ far, in_slab, out=np.zeros(SLABS), where=in_slab > 0) / max(depth, width)
    numbers = (height, max(depth, width), int(wood_mask(roles).sum()), int(leaf_mask(roles).sum()))
    return [*numbers, *(in_slab / blocks.sum()), *radii]


def _slabs(height: int) -> np.ndarray:
    """Return (SLABS, height): which part of each layer lies in each slab; the columns sum to 1."""
    edges = np.linspace(0, height, SLABS + 1)
    layers = np.arange(height)
    low = np.maximum(edges[:-1, None], layers)
    high = np.minimum(edges[1:, None], layers + 1)
    return np.maximum(high - low, 0.0)
