"""Geometry of the grower: paths that touch face to face, footprints of trunks, smooth noise, reach of leaves."""

from __future__ import annotations

import numpy as np

LEAF_REACH = 6


def face_path(points: np.ndarray) -> np.ndarray:
    """Draw a polyline as cells of which every two successive ones share a face.

    Args:
        points: (n, 3) float corners as y, z, x, n >= 1.

    Returns:
        (m, 3) int cells from the first corner to the last one, both rounded; never outside the box that holds them all.
    """
    corners = np.asarray(points, float)
    if len(corners) > 1:
        # Two samples a block along the longest axis: no step then moves more than one block on any axis.
        pieces = np.maximum(1, np.ceil(2 * np.abs(np.diff(corners, axis=0)).max(1))).astype(int)
        marks = np.repeat(np.arange(len(pieces)), pieces)
        share = (np.arange(len(marks)) - np.repeat(np.cumsum(pieces) - pieces, pieces)) / pieces[marks]
        dense = corners[marks] + share[:, None] * (corners[marks + 1] - corners[marks])
        corners = np.concatenate([dense, corners[-1:]])
    return _face_steps(np.floor(corners + 0.5).astype(int))


def face_curve(start: np.ndarray, pull: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Draw the quadratic Bézier curve of three points (y, z, x) as `face_path` draws a polyline."""
    # The curve is nowhere faster than twice its longer leg: no step then moves more than one block on any axis.
    steps = int(2 * max(np.abs(pull - start).max(), np.abs(end - pull).max())) + 2
    t = np.linspace(0, 1, steps)[:, None]
    points = (1 - t) ** 2 * start + 2 * t * (1 - t) * pull + t**2 * end
    return _face_steps(np.floor(points + 0.5).astype(int))


def _face_steps(cells: np.ndarray) -> np.ndarray:
    """Put cells between those (n, 3) that do not share a face; each may be at most one block away on every axis."""
    step = cells[1:] - cells[:-1]
    partial = np.repeat(cells[:-1, None], 3, axis=1)
    # Sideways before upwards: a leaning trunk then keeps its steps flat.
    partial[:, :, 1] += step[:, None, 1]
    partial[:, 1:, 2] += step[:, None, 2]
    partial[:, 2:, 0] += step[:, None, 0]
    fresh = np.concatenate([[[True]], step[:, [1, 2, 0]].reshape(-1, 1) != 0])[:, 0]
    return np.concatenate([cells[:1], partial.reshape(-1, 3)])[fresh]


def footprint(cells: int) -> np.ndarray:
    """Return about that many (z, x) offsets of a trunk's cross-section, (0, 0) first.

    The set is 4-connected, and so is every beginning of it: cutting its end tapers a trunk without breaking it.
    """
    small = {1: ((0, 0),), 2: ((0, 0), (0, 1)), 3: ((0, 0), (0, 1), (1, 0))}
    if cells in small:
        return np.array(small[cells])
    radius = np.sqrt(cells / np.pi)
    # Even widths have their centre on a corner, odd ones on a cell.
    centre = 0.5 if round(2 * radius) % 2 == 0 else 0.0
    reach = np.arange(-int(radius) - 2, int(radius) + 3)
    z, x = (axis.ravel() for axis in np.meshgrid(reach, reach, indexing="ij"))
    order = np.lexsort((x, z, np.round((z - centre) ** 2 + (x - centre) ** 2, 6)))[:cells]
    picked = np.stack([z[order], x[order]], 1)
    return picked[np.argsort(np.abs(picked).sum(1), kind="stable")]


def smooth_noise(shape: tuple[int, int, int], cell: float, rng: np.random.Generator) -> np.ndarray:
    """Draw noise that changes over about `cell` blocks: (Y, Z, X) float32 in [-1, 1], mean 0."""
    spread = [_between(length, cell, float(rng.random())) for length in shape]
    noise = rng.uniform(-1, 1, tuple(matrix.shape[1] for matrix in spread)).astype(np.float32)
    noise = np.tensordot(spread[0], noise, (1, 0))
    noise = np.tensordot(noise, spread[1], (1, 1))
    return np.tensordot(noise, spread[2], (1, 1))


def _between(length: int, cell: float, phase: float) -> np.ndarray:
    """(length, knots) float32 weights of linear interpolation between knots that lie `cell` apart."""
    place = np.arange(length) / cell + phase
    knots = np.arange(int(place[-1]) + 2)
    return np.maximum(0, 1 - np.abs(place[:, None] - knots)).astype(np.float32)


def inside(cells: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the cells (n, 3) that lie in a grid of that shape."""
    return cells[np.all((cells >= 0) & (cells < np.array(shape)), axis=1)]


def stamp(grid: np.ndarray, cells: np.ndarray) -> None:
    """Set those of the cells (n, 3) that lie in the bool grid."""
    kept = inside(cells, grid.shape)
    grid[kept[:, 0], kept[:, 1], kept[:, 2]] = True


def grown(mask: np.ndarray) -> np.ndarray:
    """Return the mask and all its face neighbours."""
    out = mask.copy()
    out[1:] |= mask[:-1]
    out[:-1] |= mask[1:]
    out[:, 1:] |= mask[:, :-1]
    out[:, :-1] |= mask[:, 1:]
    out[:, :, 1:] |= mask[:, :, :-1]
    out[:, :, :-1] |= mask[:, :, 1:]
    return out


def reached(wood: np.ndarray, leaves: np.ndarray, steps: int = LEAF_REACH) -> np.ndarray:
    """Return the leaves within `steps` face-steps through leaves of wood: those that the game would not let decay."""
    front = wood
    passable = leaves | wood
    for _ in range(steps):
        front = grown(front) & passable
    return front & leaves & ~wood
