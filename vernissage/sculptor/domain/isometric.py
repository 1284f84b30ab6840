"""Isometric drawing: blocks in flat colours become a shaded picture that is smooth at its edges.

All three axes of an isometric view are equally long and add up to nothing on the screen, so block edges fall on one
lattice of triangles and no triangle ever shows two faces. What is seen is settled per triangle, nearest block last;
pixels only look up their triangle. Source of the projection: J. D. Foley et al., Computer Graphics: Principles and
Practice, 2nd edition, section 6.1.3.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from vernissage.core.errors import BadInput

Colour = tuple[int, int, int]

_SHADOW_INK: Colour = (52, 49, 45)

_FINER = 2
_MARGIN = 0.07
# A lone block should not fill the picture: no block is drawn larger than this share of it.
_LARGEST_BLOCK = 1 / 9
_HALF = math.sqrt(3) / 2
# Top, +z (left) and +x (right) face: how much light comes from there.
_LIGHT = (1.0, 0.66, 0.83)
_CREASE, _ROOF, _UNEVEN, _SHADOW, _SHADOW_HEIGHT = 0.075, 0.035, 0.045, 0.42, 10
_DEEPEST_ROOF = 7
# Steps from black to beyond the colour itself, which is the last but a few: single blocks may be lighter.
_SHADES, _LIGHTEST = 256, 240


class _Triangle(NamedTuple):
    """One of the six triangles of a block's outline.

    Attributes:
        face: 0 top, 1 +z, 2 +x.
        across, down: Its cell of the lattice, counted from the block's own, (p, q) = (x - y, z - y).
        half: 0 where the cell's first fraction is the smaller one, 1 where it is the larger one.
        corners: (y, z, x) of its vertices on the block, in the order of the cell: origin, side, opposite.
    """

    face: int
    across: int
    down: int
    half: int
    corners: tuple[tuple[int, int, int], tuple[int, int, int], tuple[int, int, int]]


_TRIANGLES = (
    _Triangle(0, -1, -1, 0, ((1, 0, 0), (1, 1, 0), (1, 1, 1))),
    _Triangle(0, -1, -1, 1, ((1, 0, 0), (1, 0, 1), (1, 1, 1))),
    _Triangle(1, -1, 0, 1, ((1, 1, 0), (1, 1, 1), (0, 1, 0))),
    _Triangle(1, 0, 0, 0, ((1, 1, 1), (0, 1, 0), (0, 1, 1))),
    _Triangle(2, 0, -1, 0, ((1, 0, 1), (1, 1, 1), (0, 0, 1))),
    _Triangle(2, 0, 0, 1, ((1, 1, 1), (0, 0, 1), (0, 1, 1))),
)


class _View(NamedTuple):
    """Where the picture lies on the screen, whose unit is a block's edge and whose origin its lowest, rearmost corner.

    Attributes:
        columns, rows: Pixels.
        left, top: Of the first pixel's corner, in block edges.
        scale: Pixels a block edge.
    """

    columns: int
    rows: int
    left: float
    top: float
    scale: float


class _Lattice(NamedTuple):
    """What is seen in each half of each cell (p, q) that the picture covers.

    Attributes:
        number: (P, Q, 2) int32, 0 where nothing is seen, else the row below.
        colours: (C, 3) float32 levels.
        colour: (N,) int32, `_SHADES` times the colour's number.
        light: (3, N) float32 at the three vertices, `_LIGHTEST` is the colour itself.
        first: The p and q of cell [0, 0].
    """

    number: np.ndarray
    colours: np.ndarray
    colour: np.ndarray
    light: np.ndarray
    first: tuple[int, int]


def draw(blocks: np.ndarray, colours: np.ndarray, edge: int, background: Colour | None) -> Image.Image:
    """Draw blocks from the side of +x and +z, slightly from above.

    Args:
        blocks: (Y, Z, X) integers, 0 is air.
        colours: (N, 3) float32 levels in [0, 255], one row for each of the integers.
        edge: Longer edge of the picture in pixels; what is only a few blocks large gets a smaller picture.
        background: Colour behind the blocks; None is transparent.

    Returns:
        RGB, or RGBA without background.

    Raises:
        BadInput: `edge` is less than 16.
    """
    if edge < 16:
        raise BadInput(f"a picture of {edge} pixels: expected an edge of at least 16")
    places = np.argwhere(blocks != 0)
    if not len(places):
        return _on(Image.new("RGBA", (edge, edge)), background)
    low, high = places.min(0), places.max(0) + 1
    blocks = blocks[low[0] : high[0], low[1] : high[1], low[2] : high[2]]
    view = _view_of(places - low, edge)
    image = _ground_shadow(blocks != 0, view)
    image.alpha_composite(_pixels(_seen(blocks, colours, view), view))
    return _on(image, background)


def _on(image: Image.Image, background: Colour | None) -> Image.Image:
    if background is None:
        return image
    paper = Image.new("RGBA", image.size, (*background, 255))
    return Image.alpha_composite(paper, image).convert("RGB")


def _view_of(places: np.ndarray, edge: int) -> _View:
    """Fit blocks at (N, 3) places y, z, x into a picture whose longer edge has at most `edge` pixels."""
    y, z, x = places.T
    left, right = ((x - z).min() - 1) * _HALF, ((x - z).max() + 1) * _HALF
    top, bottom = ((x + z) / 2 - y).min() - 1, ((x + z) / 2 - y).max() + 1
    scale = min(edge * (1 - 2 * _MARGIN) / max(right - left, bottom - top), edge * _LARGEST_BLOCK)
    columns, rows = (round(extent * scale + 2 * _MARGIN * edge) for extent in (right - left, bottom - top))
    return _View(columns, rows, (left + right) / 2 - columns / 2 / scale, (top + bottom) / 2 - rows / 2 / scale, scale)


def _seen(blocks: np.ndarray, colours: np.ndarray, view: _View) -> _Lattice:
    """Settle what each triangle shows, and how light it is there."""
    places = np.argwhere(blocks != 0)
    # Along a line of sight the sum of the coordinates grows towards the eye.
    places = places[np.argsort(places.sum(1), kind="stable")]
    y, z, x = places.T[:, :, None]
    cells = np.array([(each.across, each.down, each.half) for each in _TRIANGLES])
    p, q, shape = _cells_of(view)
    cell = np.ravel_multi_index((x - y + cells[:, 0] - p, z - y + cells[:, 1] - q, cells[:, 2] + 0 * x), shape)
    shown = np.full(math.prod(shape), -1, np.int32)
    # Of several values for one cell the last stays: the nearest block.
    shown[cell.ravel()] = np.arange(cell.size, dtype=np.int32)
    seen = np.flatnonzero(shown >= 0)
    number = np.zeros(shape, np.int32)
    number.ravel()[seen] = np.arange(1, len(seen) + 1)
    block, kind = np.divmod(shown[seen], len(_TRIANGLES))
    place = places[block]
    light = _light(blocks != 0, place, kind) * _unevenness(place)[:, None] * _LIGHTEST
    used, colour = np.unique(blocks[tuple(place.T)], return_inverse=True)
    # Row 0 stands for nothing.
    light = np.pad(np.clip(light, 0, _SHADES - 1), ((1, 0), (0, 0))).astype(np.float32)
    return _Lattice(
        number, colours[used], np.pad(colour * _SHADES, (1, 0)).astype(np.int32), np.ascontiguousarray(light.T), (p, q)
    )


def _cells_of(view: _View) -> tuple[int, int, tuple[int, int, int]]:
    """The first p and q of the cells that a picture covers, and how many there are."""
    half = 1 / (2 * _HALF)
    right, bottom = view.left + view.columns / view.scale, view.top + view.rows / view.scale
    p, q = math.floor(view.top + view.left * half), math.floor(view.top - right * half)
    return p, q, (math.floor(bottom + right * half) - p + 2, math.floor(bottom - view.left * half) - q + 2, 2)


def _light(solid: np.ndarray, place: np.ndarray, kind: np.ndarray) -> np.ndarray:
    """How light it is at the vertices (N, 3) of the triangles of a `kind` (N,) of blocks at a `place` (N, 3)."""
    occupied = np.pad(solid, 1).astype(np.float32)
    above = np.cumsum(occupied[::-1], axis=0)[::-1] - occupied
    crease, roof = _around_vertices(occupied), _around_vertices(np.minimum(above, _DEEPEST_ROOF) / 4)
    light = np.empty((len(place), 3), np.float32)
    for number, triangle in enumerate(_TRIANGLES):
        rows = np.flatnonzero(kind == number)
        for vertex, corner in enumerate(triangle.corners):
            at = place[rows] + corner
            # The layer that the face looks into, one further out in the padded grid.
            at[:, triangle.face] += 1
            index = tuple(at.T)
            dark = (1 - _CREASE * crease[triangle.face][index]) * (1 - _ROOF * roof[triangle.face][index])
            light[rows, vertex] = _LIGHT[triangle.face] * dark
    return light


def _around_vertices(values: np.ndarray) -> list[np.ndarray]:
    """Sum, per axis, the four voxels of a layer across that axis that meet in a vertex."""
    sums = []
    for axis in range(3):
        total = values
        for other in {0, 1, 2} - {axis}:
            size = total.shape[other]
            total = np.take(total, range(size - 1), other) + np.take(total, range(1, size), other)
        sums.append(total)
    return sums


def _unevenness(place: np.ndarray) -> np.ndarray:
    """Brightness (N,) around 1 that makes single blocks of one colour tell apart, the same at each drawing."""
    mixed = (place * (73_856_093, 19_349_663, 83_492_791)).sum(1)
    mixed ^= mixed >> 13
    return 1 + _UNEVEN * ((mixed * 1_274_126_177 >> 8 & 1023) / 511.5 - 1)


def _pixels(lattice: _Lattice, view: _View) -> Image.Image:
    """Look up every pixel's triangle, finer than the picture, and shrink."""
    step = 1 / (view.scale * _FINER)
    across = (view.left + (np.arange(view.columns * _FINER) + 0.5) * step) / (2 * _HALF)
    down = (view.top + (np.arange(view.rows * _FINER) + 0.5) * step)[:, None]
    p = (down - lattice.first[0]).astype(np.float32) + across.astype(np.float32)
    q = (down - lattice.first[1]).astype(np.float32) - across.astype(np.float32)
    i, j = p.astype(np.int32), q.astype(np.int32)
    p -= i
    q -= j
    i *= lattice.number.shape[1]
    i += j
    i *= 2
    i += p > q
    number = lattice.number.ravel()[i]
    shown = np.flatnonzero(number)
    number, p, q = number.ravel()[shown], p.ravel()[shown], q.ravel()[shown]
    low, high = np.minimum(p, q), np.maximum(p, q)
    shade = lattice.light[0][number] * (1 - high)
    shade += lattice.light[1][number] * (high - low)
    shade += lattice.light[2][number] * low
    entry = lattice.colour[number] + shade.astype(np.int32)
    levels = np.zeros(view.rows * view.columns * _FINER * _FINER, np.uint32)
    levels[shown] = _shades(lattice.colours)[entry]
    # Colours are weighted by cover, so that edges do not take on the colour of nothing.
    size = (view.columns * _FINER, view.rows * _FINER)
    return Image.frombytes("RGBa", size, levels.tobytes()).reduce(_FINER).convert("RGBA")


def _shades(colours: np.ndarray) -> np.ndarray:
    """Opaque pixels (N * _SHADES,) uint32 of colours (N, 3) in every shade, dark to light."""
    shares = np.arange(_SHADES, dtype=np.float32) / _LIGHTEST
    levels = np.full((len(colours), _SHADES, 4), 255, np.uint8)
    levels[..., :3] = np.minimum(colours[:, None] * shares[:, None] + 0.5, 255)
    return levels.view(np.uint32).ravel()


def _ground_shadow(solid: np.ndarray, view: _View) -> Image.Image:
    """A soft shadow on the ground below, the lighter the higher above it the blocks are."""
    fine, around = 4, 4
    height = np.arange(len(solid))[:, None, None]
    columns = (solid * np.exp(-height / _SHADOW_HEIGHT)).max(0)
    soft = np.kron(np.pad(columns, around), np.ones((fine, fine)))
    shadow = Image.fromarray((soft * 255 * _SHADOW).astype(np.uint8)).filter(ImageFilter.GaussianBlur(fine * 1.2))
    step, half = 1 / view.scale, 1 / (2 * _HALF)
    x, z = view.top + view.left * half + around, view.top - view.left * half + around
    plane = (step * half * fine, step * fine, x * fine, -step * half * fine, step * fine, z * fine)
    size = (view.columns, view.rows)
    dark = np.asarray(shadow.transform(size, Image.Transform.AFFINE, plane, Image.Resampling.BILINEAR))
    # Let it run out before the picture's edge cuts it off.
    alpha = dark * _fading(view.rows)[:, None] * _fading(view.columns)
    image = Image.new("RGBA", size, (*_SHADOW_INK, 0))
    image.putalpha(Image.fromarray((alpha + 0.5).astype(np.uint8)))
    return image


def _fading(count: int) -> np.ndarray:
    """Shares (count,) float that rise from 0 at either end to 1 in the middle, without a bend."""
    near_edge = np.minimum(np.arange(count), np.arange(count)[::-1]) / (2.2 * _MARGIN * count)
    ramp = np.minimum(near_edge, 1)
    return ramp * ramp * (3 - 2 * ramp)
