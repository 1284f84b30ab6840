"""The trunk of a structure: the wood that leads up from the ground, layer by layer, until it has become branches."""

from __future__ import annotations

import math
from bisect import insort
from dataclasses import dataclass

import numpy as np

from vernissage.sculptor.domain.roles import LEAVES, ROLES, WOODS, Role

_CODES = np.arange(np.iinfo(np.uint8).max + 1)
_WOOD = np.isin(_CODES, WOODS)
_LEAF = np.isin(_CODES, LEAVES)
# OUTSIDE, MASK and whatever else no role has stand for nothing that was built.
_SOLID = (_CODES != Role.AIR) & (_CODES < ROLES)
# A way up that ends much earlier than another is a root or a stub, however near it is.
STUB_SHARE = 0.5
_NEAR_SLACK = 1e-6
_DECIMALS = 9


def solid_mask(roles: np.ndarray) -> np.ndarray:
    """(Y, Z, X) bool: where something was built."""
    return np.asarray(_SOLID[roles])


def wood_mask(roles: np.ndarray) -> np.ndarray:
    """(Y, Z, X) bool: where there is wood of either kind."""
    return np.asarray(_WOOD[roles])


def leaf_mask(roles: np.ndarray) -> np.ndarray:
    """(Y, Z, X) bool: where there are leaves of either kind."""
    return np.asarray(_LEAF[roles])


@dataclass(frozen=True)
class TrunkRun:
    """The trunk, from the lowest layer up.

    Attributes:
        centres: (n, 2) float64, mean z and x of the run's wood in each of its layers, in voxels of the grid.
        counts: (n,) int64, wood voxels that belong to the run in that layer; at least 1.
        base: The grid's layer that the run begins in; 0 where there is no run.
        voxels: (Y, Z, X) bool: the run's wood.
    """

    centres: np.ndarray
    counts: np.ndarray
    base: int
    voxels: np.ndarray

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def move(self) -> float:
        """Horizontal distance in voxels between the centres of the lowest and the highest layer."""
        if not len(self):
            return 0.0
        (z0, x0), (z1, x1) = self.centres[0], self.centres[-1]
        # Rounded, so that a turned structure stays on the same side of every threshold.
        return round(math.hypot(z1 - z0, x1 - x0), _DECIMALS)


def trunk_run(roles: np.ndarray) -> TrunkRun:
    """Follow the trunk of a structure.

    The run begins with the largest 8-connected region of wood in the lowest layer, which may be roots: all wood that
    touches it from above may be the trunk. In each layer above that one the run goes on with the wood that touches its
    part in the layer below (26-connected) and is not farther from that part's centre than a trunk of this width can
    move in one layer. Where that is several regions, the nearest one of those that lead up far enough is the trunk;
    where two are equally near, the trunk has become branches and the run ends.

    Args:
        roles: (Y, Z, X) uint8, any role grid.

    Returns:
        The run, which has no layers where there is no wood in the lowest layer that is filled.
    """
    filled = np.flatnonzero(solid_mask(roles).any(axis=(1, 2)))
    base = int(filled[0]) if len(filled) else 0
    layers = _Layers(wood_mask(roles)[base:])
    voxels = np.zeros(roles.shape, bool)
    centres, counts = [], []
    for offset, part in enumerate(_follow(layers)):
        places = layers.places(part)
        rows, columns = zip(*places, strict=True)
        voxels[base + offset, rows, columns] = True
        centres.append(_centre(places))
        counts.append(len(places))
    return TrunkRun(
        np.array(centres, np.float64).reshape(-1, 2), np.array(counts, np.int64), base if counts else 0, voxels
    )


class _Layers:
    """Layers of wood as whole numbers with a bit for each place: neighbours are then a few shifts away."""

    def __init__(self, wood: np.ndarray) -> None:
        # A free place around each layer keeps shifted bits from coming in at the other side.
        framed = np.pad(wood, ((0, 0), (1, 1), (1, 1)))
        self._stride = framed.shape[2]
        packed = np.packbits(framed.reshape(len(wood), math.prod(framed.shape[1:])), axis=1, bitorder="little")
        self._masks = [int.from_bytes(layer.tobytes(), "little") for layer in packed]

    def __getitem__(self, layer: int) -> int:
        """Return the wood of a layer; none above the highest."""
        return self._masks[layer] if layer < len(self._masks) else 0

    def __len__(self) -> int:
        return len(self._masks)

    def grown(self, mask: int) -> int:
        """Add the eight neighbours of every place."""
        row = mask | mask << 1 | mask >> 1
        return row | row << self._stride | row >> self._stride

    def places(self, mask: int) -> list[tuple[int, int]]:
        """Return z and x of every place."""
        found = []
        while mask:
            lowest = mask & -mask
            z, x = divmod(lowest.bit_length() - 1, self._stride)
            found.append((z - 1, x - 1))
            mask ^= lowest
        return found

    def near(self, mask: int, centre: tuple[float, float], limit: float) -> int:
        """Return the places that are not farther from the centre than the limit."""
        near = [place for place in self.places(mask) if math.dist(place, centre) <= limit]
        return sum(1 << (z + 1) * self._stride + x + 1 for z, x in near)

    def centre(self, mask: int) -> tuple[float, float]:
        """Return the mean z and x."""
        return _centre(self.places(mask))

    def regions(self, mask: int) -> list[int]:
        """Split the places of a layer into its 8-connected regions."""
        found = []
        while mask:
            region = mask & -mask
            while (larger := self.grown(region) & mask) != region:
                region = larger
            found.append(region)
            mask ^= region
        return found

    def climb(self, region: int, layer: int) -> int:
        """Return how many layers above this one a way up from the region reaches."""
        start = layer
        while region := self.grown(region) & self[layer + 1]:
            layer += 1
        return layer - start


def _follow(layers: _Layers) -> list[int]:
    """Return the run's places in each layer from the lowest up."""
    parts: list[int] = []
    counts: list[int] = []
    part = _base_region(layers)
    while part:
        parts.append(part)
        insort(counts, part.bit_count())
        # Branches that leave the trunk widen its part for a layer or two: the usual width tells what belongs to it.
        width = math.sqrt(min(part.bit_count(), counts[len(counts) // 2]))
        # The farthest corner of a width x width trunk that moved by one voxel in both directions. The base may be
        # roots, whose centre tells little.
        limit = (width + 1) / math.sqrt(2) + _NEAR_SLACK if len(parts) > 1 else math.inf
        part = _part_above(layers, part, len(parts), limit)
    return parts


def _base_region(layers: _Layers) -> int:
    """Return the largest region of the lowest layer; of equal ones the nearest to the middle of all wood, or all."""
    found = layers.regions(layers[0])
    largest = [region for region in found if region.bit_count() == max(map(int.bit_count, found))]
    if len(largest) > 1:
        middle = _centre([place for layer in range(len(layers)) for place in layers.places(layers[layer])])
        largest = _nearest(layers, largest, middle)
    return sum(largest)


def _part_above(layers: _Layers, part: int, layer: int, limit: float) -> int:
    """Return what the run is made of in this layer, above its part in the one below; nothing where it ends."""
    centre = layers.centre(part)
    found = layers.regions(layers.near(layers.grown(part) & layers[layer], centre, limit))
    if len(found) > 1:
        climbs = [layers.climb(region, layer) for region in found]
        leading = [r for r, climb in zip(found, climbs, strict=True) if climb >= STUB_SHARE * max(climbs)]
        found = _nearest(layers, leading, centre)
    return found[0] if len(found) == 1 else 0


def _nearest(layers: _Layers, regions: list[int], centre: tuple[float, float]) -> list[int]:
    """Return the regions whose middle is nearest to the centre: one, or more that are equally near."""
    distances = [round(math.dist(layers.centre(region), centre), _DECIMALS) for region in regions]
    return [region for region, distance in zip(regions, distances, strict=True) if distance == min(distances)]


def _centre(places: list[tuple[int, int]]) -> tuple[float, float]:
    """Return the mean z and x."""
    rows, columns = zip(*places, strict=True)
    return sum(rows) / len(rows), sum(columns) / len(columns)
