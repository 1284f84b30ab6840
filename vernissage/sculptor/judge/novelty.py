"""Whether structures are new or copies: the training structure that shares most voxels with each, however it stands."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vernissage.sculptor.domain.anatomy import bounding_box
from vernissage.sculptor.domain.plan import SYMMETRIES, turned_grid
from vernissage.sculptor.domain.trunk import solid_mask

if TYPE_CHECKING:
    from collections.abc import Sequence

# Steps that a turned structure may be moved in z and in x, either way.
REACH = 2
# An IoU above this is a copy.
COPY = 0.95
_SIDE = 2 * REACH + 1
# Candidates that are packed and compared at once. The first few nearly always hold the nearest one.
_AT_ONCE = 64


@dataclass(frozen=True, eq=False)
class Standing:
    """A structure without the room around it, and the point that it stands on.

    Attributes:
        roles: (Y, Z, X) uint8, cropped; (0, 0, 0) for an empty grid.
        solid: (Y, Z, X) bool, where there is a block.
        base: z and x of the middle of the lowest layer's blocks, rounded, halves up.
    """

    roles: np.ndarray
    solid: np.ndarray
    base: tuple[int, int]

    @property
    def reach(self) -> int:
        """Largest distance along z or x from the base to a voxel of the cropped grid."""
        return max(
            max(start, length - 1 - start) for start, length in zip(self.base, self.solid.shape[1:], strict=True)
        )


def stand(grid: np.ndarray) -> Standing:
    """Crop a structure and find its base.

    Args:
        grid: (Y, Z, X) uint8, any role grid.
    """
    roles = grid[bounding_box(solid_mask(grid))]
    solid = solid_mask(roles)
    if not roles.size:
        return Standing(roles, solid, (0, 0))
    # Whole numbers: a mean that is a half in one form of a structure must not round as 0.4999 in another.
    z, x = ((2 * int(places.sum()) + len(places)) // (2 * len(places)) for places in np.nonzero(solid[0]))
    return Standing(roles, solid, (z, x))


def on_window(
    values: np.ndarray, base: tuple[int, int], height: int, reach: int, shift: tuple[int, int] = (0, 0)
) -> np.ndarray:
    """Put a cropped grid onto a window with its base in the middle; what lies outside is cut off.

    Args:
        values: (Y, Z, X), one value for each voxel.
        base: z and x of its base.
        height: Layers of the window.
        reach: How far the window goes from its middle in z and x.
        shift: How far the base is moved from the middle, in z and x.

    Returns:
        (height, 2 reach + 1, 2 reach + 1) of the same type, 0 where nothing was put.
    """
    side = 2 * reach + 1
    window = np.zeros((height, side, side), values.dtype)
    starts = [reach - middle + move for middle, move in zip(base, shift, strict=True)]
    layers = slice(0, min(height, values.shape[0]))
    target, source = [layers], [layers]
    for start, length in zip(starts, values.shape[1:], strict=True):
        low, high = max(start, 0), min(start + length, side)
        if low >= high:
            return window
        target.append(slice(low, high))
        source.append(slice(low - start, high - start))
    window[tuple(target)] = values[tuple(source)]
    return window


@dataclass(frozen=True)
class Nearest:
    """The structure of an index that is most like a given one.

    Attributes:
        iou: Voxels that hold a block in both / voxels that hold a block in either, in [0, 1]; 0 for an empty grid.
        index: Which one it is: the first of equally near ones.
        symmetry: How the given one was turned, as of `turned_grid`.
        shift: How far the turned one was then moved in z and x from where both bases meet.
        same_cells: The same share if a voxel counts only where both have the same role.
    """

    iou: float
    index: int
    symmetry: int
    shift: tuple[int, int]
    same_cells: float


class NearestIndex:
    """Finds the nearest of many structures: over eight symmetries, and shifts of up to two voxels in z and x.

    Bases are aligned first: lowest layer with lowest layer, middle with middle. The search is exact. No position lets
    two structures share more than the smaller number of blocks in each layer; this bound leaves few to look at.

    Args:
        grids: (Y, Z, X) uint8 role grids of any sizes.

    Raises:
        ValueError: There are none.
    """

    def __init__(self, grids: Sequence[np.ndarray]) -> None:
        if not len(grids):
            raise ValueError("nearest structure: found no structures to search, expected at least one")
        self._standing = [stand(grid) for grid in grids]
        self._layers = np.zeros((len(grids), max(len(each.solid) for each in self._standing)), np.int64)
        for row, each in enumerate(self._standing):
            self._layers[row, : len(each.solid)] = each.solid.sum(axis=(1, 2))
        self._totals = self._layers.sum(axis=1)

    def __len__(self) -> int:
        return len(self._standing)

    def nearest(self, grid: np.ndarray) -> Nearest:
        """Return the nearest structure.

        Args:
            grid: (Y, Z, X) uint8, any role grid.
        """
        query = _Query(grid)
        if not query.total:
            return Nearest(0.0, 0, 0, (0, 0), 0.0)
        height = min(query.height, self._layers.shape[1])
        most = np.minimum(self._layers[:, :height], query.layers[:height]).sum(axis=1)
        bounds = _iou(most, query.total, self._totals)
        order = np.argsort(-bounds, kind="stable")
        best, index = 0.0, 0
        for start in range(0, len(order), _AT_ONCE):
            chosen = order[start : start + _AT_ONCE]
            chosen = chosen[bounds[chosen] >= best]
            if not len(chosen):
                break
            packed = np.stack([query.pack(self._standing[row]) for row in chosen])
            ious = query.largest_ious(packed, self._totals[chosen], most[chosen], best)
            first = int(chosen[ious == ious.max()].min())
            if ious.max() > best or (ious.max() == best and first < index):
                best, index = float(ious.max()), first
        return query.place_on(self._standing[index], index)


class _Query:
    """One structure in all the positions in which it is compared, a bit for each voxel."""

    def __init__(self, grid: np.ndarray) -> None:
        self._forms = [stand(turned_grid(grid, symmetry)) for symmetry in range(SYMMETRIES)]
        self.layers = self._forms[0].solid.sum(axis=(1, 2))
        self.total = int(self.layers.sum())
        self.height = len(self.layers)
        self._reach = max(form.reach for form in self._forms) + REACH
        if not self.total:
            return
        moves = range(-REACH, REACH + 1)
        self._positions = [(symmetry, (z, x)) for symmetry in range(SYMMETRIES) for z in moves for x in moves]
        self._packed = np.stack([self.pack(self._forms[symmetry], shift) for symmetry, shift in self._positions])
        # What any of the five moves along x covers: one comparison with it may spare five.
        self._rows = np.bitwise_or.reduce(self._packed.reshape(-1, _SIDE, self._packed.shape[1]), axis=1)

    def pack(self, standing: Standing, shift: tuple[int, int] = (0, 0)) -> np.ndarray:
        """Return (words,) uint64 of what a structure holds in the window around this one."""
        window = on_window(standing.solid, standing.base, self.height, self._reach, shift)
        octets = np.packbits(window)
        return np.pad(octets, (0, -len(octets) % 8)).view(np.uint64)

    def largest_ious(self, packed: np.ndarray, totals: np.ndarray, most: np.ndarray, least: float) -> np.ndarray:
        """Return (C,) the largest IoU of each candidate; any smaller number where that is below `least`.

        Args:
            packed: (C, words) uint64.
            totals: (C,) their blocks.
            most: (C,) upper bound of the blocks they can share with this structure.
            least: What no longer matters.
        """
        found = np.zeros(len(packed))
        for row, any_of_row in enumerate(self._rows):
            bounds = _iou(np.minimum(_shared(packed, any_of_row), most), self.total, totals)
            open_ones = np.flatnonzero((bounds > found) & (bounds >= least))
            if not len(open_ones):
                continue
            candidates, blocks = packed[open_ones], totals[open_ones]
            shared = [_shared(candidates, position) for position in self._packed[row * _SIDE : (row + 1) * _SIDE]]
            found[open_ones] = np.maximum(found[open_ones], _iou(np.max(shared, axis=0), self.total, blocks))
            least = max(least, float(found.max()))
        return found

    def place_on(self, other: Standing, index: int) -> Nearest:
        """Return the position of the largest IoU; of equally good ones the first that shares most roles."""
        shared = _shared(self._packed, self.pack(other))
        either = self.total + int(other.solid.sum()) - shared
        ious = shared / either
        theirs = on_window(other.roles, other.base, self.height, self._reach)
        equal: dict[int, int] = {}
        for number in map(int, np.flatnonzero(ious == ious.max())):
            symmetry, shift = self._positions[number]
            form = self._forms[symmetry]
            mine = on_window(form.roles, form.base, self.height, self._reach, shift)
            equal[number] = int(((mine == theirs) & solid_mask(mine)).sum())
        best = max(equal, key=equal.__getitem__)
        symmetry, shift = self._positions[best]
        return Nearest(float(ious[best]), index, symmetry, shift, equal[best] / int(either[best]))


def mann_whitney_z(first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray) -> float:
    """Say how far the values of one sample tend to be above those of another (Mann and Whitney 1947).

    For the nearest IoUs of built and of held-out structures: near 0 where both are equally far from the training
    structures, far above 0 where what is built is copied, below where it is farther than real variety goes.

    Args:
        first: (n,) numbers.
        second: (m,) numbers.

    Returns:
        U less its mean, over its standard deviation with the correction for ties; without correction for continuity.
        0 where all values are equal.

    Raises:
        ValueError: One of them is empty or holds what is not a finite number.
    """
    from scipy.stats import rankdata, tiecorrect

    n, m = len(first), len(second)
    pooled = np.concatenate([np.asarray(first, np.float64), np.asarray(second, np.float64)])
    if not n or not m or not np.isfinite(pooled).all():
        raise ValueError(f"Mann-Whitney: found {n} and {m} values, expected finite ones in both")
    ranks = rankdata(pooled)
    spread = math.sqrt(tiecorrect(ranks) * n * m * (n + m + 1) / 12)
    u = float(ranks[:n].sum()) - n * (n + 1) / 2
    return (u - n * m / 2) / spread if spread else 0.0


def copied_share(ious: Sequence[float] | np.ndarray, above: float = COPY) -> float:
    """Return the share of nearest IoUs above a limit; NaN without any."""
    return float(np.mean(np.asarray(ious, np.float64) > above)) if len(ious) else math.nan


def _shared(packed: np.ndarray, position: np.ndarray) -> np.ndarray:
    """(C,) int64: the bits that rows of words have in common with one row."""
    return np.asarray(np.bitwise_count(packed & position).sum(axis=1, dtype=np.int64))


def _iou(shared: np.ndarray, total: int, totals: np.ndarray) -> np.ndarray:
    return np.asarray(shared / (total + totals - shared))
