"""Crowns of the grower: which voxels want to be leaves, before wood decides which of them survive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vernissage.sculptor.prepare.grower_shapes import face_path, smooth_noise, stamp

if TYPE_CHECKING:
    from collections.abc import Callable

_GOLDEN_ANGLE = 2.39996


@dataclass(frozen=True)
class CrownSpace:
    """Where a crown may go.

    Attributes:
        shape: Of the grid, (Y, Z, X).
        axis: (Y, 2) float z, x of the crown's axis in every layer.
        base: Its lowest layer.
        radius: Its largest radius in blocks.
    """

    shape: tuple[int, int, int]
    axis: np.ndarray
    base: int
    radius: float

    @property
    def top(self) -> int:
        """Its highest layer."""
        return self.shape[0] - 1

    @property
    def share(self) -> np.ndarray:
        """(layers of the crown,) how far up each one is, from 0 to 1."""
        return (np.arange(self.base, self.top + 1) - self.base) / max(1, self.top - self.base)


@dataclass(frozen=True)
class Crown:
    """What is drawn of a crown.

    Attributes:
        leaves: (Y, Z, X) bool.
        anchors: (n, 3) float places that a branch should lead to.
    """

    leaves: np.ndarray
    anchors: np.ndarray


NO_ANCHORS = np.zeros((0, 3))


def draw_crown(form: str, space: CrownSpace, rng: np.random.Generator) -> Crown:
    """Draw the crown of a form named in `grower_species.FORMS`."""
    if form == "none":
        return Crown(np.zeros(space.shape, bool), NO_ANCHORS)
    if form in _PROFILES:
        return Crown(_turned(space, _PROFILES[form](space.share, rng), rng), NO_ANCHORS)
    composed: dict[str, Callable[[CrownSpace, np.random.Generator], Crown]] = {
        "puffs": _puffs,
        "pads": _pads,
        "curtain": _curtain,
        "fronds": _fronds,
    }
    return composed[form](space, rng)


def _turned(space: CrownSpace, profile: np.ndarray, rng: np.random.Generator, rough: float = 0.16) -> np.ndarray:
    """Turn a profile (radius of every layer of the crown, in crown radii) around the axis, lopsided and rough."""
    layers = slice(space.base, space.top + 1)
    axis = space.axis[layers].astype(np.float32)
    z = np.arange(space.shape[1], dtype=np.float32)[None, :, None] - axis[:, 0, None, None]
    x = np.arange(space.shape[2], dtype=np.float32)[None, None, :] - axis[:, 1, None, None]
    distance = np.hypot(z, x)
    one, two = rng.uniform(0, 2 * np.pi, 2)
    side = (z * np.float32(np.cos(one)) + x * np.float32(np.sin(one))) / np.maximum(distance, 0.5)
    oval = (z * np.float32(np.cos(two)) + x * np.float32(np.sin(two))) / np.maximum(distance, 0.5)
    lopsided, flattened = rng.uniform(0, 0.16), rng.uniform(0, 0.14)
    radii = np.maximum(0.45, profile * space.radius).astype(np.float32)
    limit = radii[:, None, None] * (1 + lopsided * side + flattened * (1 - 2 * oval**2))
    # A quarter of a block more rounds the small circles as players draw them.
    limit += 0.25 + rough * (0.7 + 0.45 * limit) * smooth_noise(distance.shape, 2.2, rng)
    leaves = np.zeros(space.shape, bool)
    leaves[layers] = distance <= limit
    return leaves


def _ball(share: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    flat = rng.uniform(0.7, 0.95)
    return np.sqrt(1 - flat * (2 * share - 1) ** 2)


def _egg(share: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    widest = rng.uniform(0.25, 0.45)
    low, high = (widest - share) / widest, (share - widest) / (1 - widest)
    return np.sqrt(1 - np.where(share < widest, 0.7 * low**2, 0.94 * high**2))


def _dome(share: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.sqrt(1 - rng.uniform(0.6, 0.9) * share**2) * np.where(share == 0, rng.uniform(0.75, 0.95), 1)


def _mound(share: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return (1 - share ** rng.uniform(1.6, 3.2)) ** 0.6 * 0.9 + 0.1


def _cone(share: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    slope = (1 - share) ** rng.uniform(0.85, 1.25)
    return np.where((share == 0) & (len(share) > 8), rng.uniform(0.6, 0.95) * slope, slope)


def _tiers(share: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    slope = (1 - share) ** rng.uniform(0.8, 1.15)
    period = int(rng.integers(2, 3 + (len(share) > 12) + (len(share) > 24)))
    below_top = np.arange(len(share))[::-1]
    phase = (below_top + int(rng.integers(period))) % period
    return slope * (1 - rng.uniform(0.3, 0.5) * (1 - phase / max(1, period - 1)))


def _column(share: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    below, above = rng.uniform(0.08, 0.2), rng.uniform(0.15, 0.35)
    return np.sqrt(np.clip(np.minimum((share + 0.06) / below, (1 - share + 0.03) / above), 0.1, 1))


def _umbrella(share: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return 1 - rng.uniform(0.25, 0.45) * share ** rng.uniform(1.2, 2.2)


_PROFILES: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "ball": _ball,
    "egg": _egg,
    "dome": _dome,
    "mound": _mound,
    "cone": _cone,
    "tiers": _tiers,
    "column": _column,
    "umbrella": _umbrella,
}


def add_blob(leaves: np.ndarray, centre: np.ndarray, half: np.ndarray, rng: np.random.Generator) -> None:
    """Add an ellipsoid with a rough surface; `half` are its half axes along y, z, x."""
    shape = np.array(leaves.shape)
    low = np.maximum(0, np.floor(centre - half - 1)).astype(int)
    high = np.minimum(shape, np.ceil(centre + half + 2)).astype(int)
    if (high <= low).any():
        return
    y, z, x = (
        ((np.arange(start, stop) - middle) / radius) ** 2
        for start, stop, middle, radius in zip(low, high, centre, half, strict=True)
    )
    far = y[:, None, None] + z[None, :, None] + x[None, None, :]
    window = tuple(slice(start, stop) for start, stop in zip(low, high, strict=True))
    leaves[window] |= far <= 1 + 0.4 * smooth_noise(far.shape, 2.2, rng)


def _around(space: CrownSpace, count: int, reach: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """(count, 2) float z, x offsets spread around the axis, `reach` crown radii away."""
    angle = rng.uniform(0, 2 * np.pi) + _GOLDEN_ANGLE * np.arange(count) + rng.uniform(-0.4, 0.4, count)
    return (rng.uniform(*reach, count) * space.radius)[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)


def _puffs(space: CrownSpace, rng: np.random.Generator) -> Crown:
    """Balls of leaves around a larger one at the top."""
    leaves = np.zeros(space.shape, bool)
    height = space.top - space.base + 1
    count = int(rng.integers(3, 5 + min(6, int(space.radius / 2.5))))
    away = _around(space, count, (0.5, 0.7), rng)
    centres, size = [], space.radius * rng.uniform(0.5, 0.62)
    tall = max(1.2, min(size, 0.3 * height))
    middle = np.array([space.top - tall + 0.3, *space.axis[space.top]])
    add_blob(leaves, middle, np.array([tall, size, size]), rng)
    for number, offset in enumerate(away):
        radius = space.radius * rng.uniform(0.36, 0.5)
        flat = max(1.1, min(radius * rng.uniform(0.6, 0.9), 0.3 * height))
        share = (number + rng.uniform(0.2, 0.8)) / count * 0.8
        y = space.base + flat * 0.7 + share * max(0.0, height - 2 * flat)
        centre = np.array([y, *(space.axis[min(space.top, int(y))] + offset)])
        add_blob(leaves, centre, np.array([flat, max(radius, 1.2), max(radius, 1.2)]), rng)
        centres.append(centre)
    return Crown(leaves, np.stack(centres))


def _pads(space: CrownSpace, rng: np.random.Generator) -> Crown:
    """Flat pads of leaves at different heights, the largest one on top."""
    leaves = np.zeros(space.shape, bool)
    height = space.top - space.base + 1
    thick = max(0.75, min(0.2 * space.radius, 0.3 * height))
    size = max(1.4, space.radius * rng.uniform(0.6, 0.95))
    tops = [np.array([space.top - thick + 0.5, *space.axis[space.top]])]
    add_blob(leaves, tops[0], np.array([thick, size, size]), rng)
    for offset in _around(space, int(rng.integers(1, 3 + min(4, int(space.radius / 4)))), (0.5, 0.72), rng):
        radius = max(1.3, space.radius * rng.uniform(0.35, 0.6))
        y = rng.uniform(space.base, max(space.base + 0.1, space.top - thick))
        centre = np.array([y, *(space.axis[int(y)] + offset)])
        add_blob(leaves, centre, np.array([thick, radius, radius]), rng)
        tops.append(centre)
    return Crown(leaves, np.stack(tops[1:]))


def _curtain(space: CrownSpace, rng: np.random.Generator) -> Crown:
    """A dome with strands of leaves that hang from its rim, and nothing under it."""
    share, height = space.share, space.top - space.base + 1
    dome = _turned(space, np.sqrt(1 - rng.uniform(0.7, 0.92) * share**2), rng, rough=0.1)
    if space.radius < 2:
        return Crown(dome, NO_ANCHORS)
    z = np.arange(space.shape[1])[:, None] - space.axis[space.base, 0]
    x = np.arange(space.shape[2])[None, :] - space.axis[space.base, 1]
    away = np.hypot(z, x) / space.radius
    columns = dome.any(0)
    lowest = np.where(columns, dome.argmax(0), space.shape[0])
    clumps = smooth_noise((1, *away.shape), 1.8, rng)[0] + 0.45 * rng.uniform(-1, 1, away.shape)
    rim = columns & (away > rng.uniform(0.58, 0.72)) & (clumps > rng.uniform(-0.3, 0.1))
    longest = min(space.base - 1, max(2.0, 0.9 * height)) * rng.uniform(0.7, 1.0)
    length = np.where(rim, np.rint(longest * np.clip(0.45 + 0.6 * clumps, 0.1, 1)), 0)
    y = np.arange(space.shape[0])[:, None, None]
    strands = (y < lowest) & (y >= np.maximum(1, lowest - length))
    # What hangs under the middle would hide the trunk and fill the tree.
    hollow = (away < rng.uniform(0.58, 0.72)) & (y < space.base + max(1, round(rng.uniform(0.3, 0.5) * height)))
    limbs = _around(space, int(rng.integers(3, 5)) + int(space.radius // 3), (0.6, 0.72), rng)
    shoulder = space.base + 0.35 * height
    ends = np.column_stack([np.full(len(limbs), shoulder), limbs + space.axis[int(shoulder)]])
    return Crown((dome & ~hollow) | strands, ends if space.radius > 4 else NO_ANCHORS)


def _fronds(space: CrownSpace, rng: np.random.Generator) -> Crown:
    """Long leaves that rise from the top of the trunk and bend down; the longer ones have a rib of wood."""
    leaves = np.zeros(space.shape, bool)
    top = np.array([space.top - 1.0, *space.axis[space.top]])
    count = int(rng.integers(5, 9)) + int(space.radius > 6) * 2
    turn = rng.uniform(0, 2 * np.pi)
    ribs = []
    along = np.linspace(0, 1, 9)
    rise, fall = rng.uniform(0.4, 1.0), rng.uniform(0.55, 0.95) * space.radius
    for number in range(count):
        angle = turn + 2 * np.pi * number / count + rng.uniform(-0.25, 0.25)
        length = space.radius * rng.uniform(0.85, 1.15)
        away = along * length
        droop = np.maximum(
            rise * 4 * along * (1 - along) - fall * rng.uniform(0.8, 1.2) * along**2, space.base - top[0]
        )
        points = np.column_stack(
            [top[0] + droop, top[1] + away * np.cos(angle), top[2] + away * np.sin(angle)],
        )
        path = face_path(points)
        stamp(leaves, path)
        if space.radius > 5:
            broad = path[: int(0.7 * len(path))]
            stamp(leaves, broad + np.array([0, round(-np.sin(angle)), round(np.cos(angle))]))
            ribs.append(points[4])
    add_blob(leaves, top + np.array([0.3, 0, 0]), np.array([1.1, 1.7, 1.7]), rng)
    return Crown(leaves, np.stack(ribs) if ribs else NO_ANCHORS)
