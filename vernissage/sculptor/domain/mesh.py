"""Meshes of block structures: the faces between a block and air, two triangles each."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vernissage.sculptor.domain.colours import RGB, colour_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from vernissage.sculptor.domain.structure import Structure


class Mesh(NamedTuple):
    """Triangles with colours; one unit is one block, Y is up.

    Attributes:
        vertices: (N, 3) float32 x, y, z. Each quad has four of its own, so that its colour and normal are flat.
        faces: (M, 3) int64 indices into `vertices`, counter-clockwise seen from outside; rows 2k and 2k + 1 are a quad.
        colours: (N, 3) uint8 sRGB, one a vertex.
    """

    vertices: np.ndarray
    faces: np.ndarray
    colours: np.ndarray


def exposed_faces(structure: Structure, colour: Callable[[str], RGB] = colour_of) -> Mesh:
    """Return the surface of a structure: every face with a block on one side and air, or the border, on the other.

    After equal vertices are merged the surface is closed: every edge belongs to an even number of triangles, two unless
    blocks touch along that edge only.

    Args:
        structure: What to mesh; its voxel (y, z, x) fills the unit cube whose lowest corner is (x, y, z).
        colour: Gives the colour of a block state.
    """
    solid = structure.solid
    open_to = np.pad(~solid, 1, constant_values=True)
    height, depth, width = solid.shape
    quads, blocks = [], []
    for axis in range(3):
        for side in (0, 1):
            step = [0, 0, 0]
            step[axis] = 1 if side else -1
            x, y, z = step
            beyond = open_to[1 + y : 1 + y + height, 1 + z : 1 + z + depth, 1 + x : 1 + x + width]
            at = np.argwhere(solid & beyond)
            quads.append(at[:, None, [2, 0, 1]] + _corners(axis, side))
            blocks.append(structure.blocks[tuple(at.T)])
    vertices = np.concatenate(quads).reshape(-1, 3).astype(np.float32)
    palette = np.array([colour(state) for state in structure.palette], np.uint8)
    colours = np.repeat(palette[np.concatenate(blocks)], 4, axis=0)
    firsts = np.arange(0, len(vertices), 4)[:, None, None]
    faces = (firsts + np.array([[0, 1, 2], [0, 2, 3]])).reshape(-1, 3)
    return Mesh(vertices, faces, colours)


def _corners(axis: int, side: int) -> np.ndarray:
    """Return the (4, 3) corners x, y, z of a face of the unit cube, counter-clockwise seen from outside."""
    around = [(0, 0), (1, 0), (1, 1), (0, 1)]
    corners = np.zeros((4, 3), int)
    corners[:, axis] = side
    # The next two axes, in cyclic order, turn counter-clockwise around the positive direction of the first.
    corners[:, [(axis + 1) % 3, (axis + 2) % 3]] = around if side else around[::-1]
    return corners
