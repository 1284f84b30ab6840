"""What is decided before the voxels, in one form for the network: a plan, a coarse grid, or only the grid's size.

All three give a box, a guide for every voxel in it and, where it is a plan, values for the condition. Which one a
model works with is part of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch.nn import functional as F

from vernissage.sculptor.domain.plan import SYMMETRIES, Plan, measure_plan, turned_grid
from vernissage.sculptor.domain.roles import LEAVES, OUTSIDE, WOODS
from vernissage.sculptor.domain.sizes import SIZES, Size, size_class
from vernissage.sculptor.learn.guide import PLAN_CHANNELS, plan_guide

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from vernissage.sculptor.domain.attributes import Attributes

First = Literal["plan", "coarse", "none"]
COARSE_CELL = 4
# What a cell of a coarse grid holds: nothing, wood but no leaves, leaves but no wood, both, other blocks only.
COARSE_KINDS = 5
_PLACE_CHANNELS = 8
GUIDE_CHANNELS: dict[str, int] = {
    "plan": PLAN_CHANNELS,
    "coarse": COARSE_KINDS + _PLACE_CHANNELS,
    "none": _PLACE_CHANNELS,
}


@dataclass(frozen=True)
class Blueprint:
    """What is decided about one structure before its voxels.

    Attributes:
        box: (Y, Z, X) that voxels may be in.
        plan: Where a plan came first.
        coarse: (Y / 4, Z / 4, X / 4) uint8 kinds of cells, rounded up, where a coarse grid came first.
    """

    box: tuple[int, int, int]
    plan: Plan | None = None
    coarse: np.ndarray | None = None

    def canvas(self, multiple: int) -> tuple[int, int, int]:
        """Return the shape that the network works on: square from above, sides a multiple of what it needs."""
        height, depth, width = (-(-side // multiple) * multiple for side in self.box)
        return height, max(depth, width), max(depth, width)


def blueprint_of(
    roles: np.ndarray, first: First, *, species: str | None = None, attributes: Attributes | None = None
) -> tuple[Blueprint, np.ndarray]:
    """Measure what would have been decided about a structure, and put it into that box.

    Args:
        roles: (Y, Z, X) role grid, cropped.
        first: What comes first.
        species: Name of the species where it is known.
        attributes: What was measured of it, where that was done before.

    Returns:
        The blueprint and the (Y, Z, X) role grid in its box.
    """
    if first == "plan":
        plan = measure_plan(roles, species=species, attributes=attributes)
        return Blueprint(plan.shape, plan), roles
    height, depth, width = roles.shape
    grid = placed(roles, SIZES[size_class(Size(width, height, depth))])
    return Blueprint(grid.shape, coarse=coarse_of(grid) if first == "coarse" else None), grid


def placed(roles: np.ndarray, size: Size) -> np.ndarray:
    """Return the grid in one of this size: on the ground, its base in the middle as far as its sides allow."""
    lowest = np.argwhere(roles[0] > 0)
    centre = lowest.mean(0) if len(lowest) else np.array(roles.shape[1:]) / 2
    out = np.zeros(size.shape, np.uint8)
    starts = [
        int(np.clip(round(whole / 2 - 0.5 - middle), 0, whole - part))
        for whole, part, middle in zip(size.shape[1:], roles.shape[1:], centre, strict=True)
    ]
    out[: roles.shape[0], starts[0] : starts[0] + roles.shape[1], starts[1] : starts[1] + roles.shape[2]] = roles
    return out


def coarse_of(roles: np.ndarray) -> np.ndarray:
    """Return the (Y / 4, Z / 4, X / 4) uint8 kinds of cells of a (Y, Z, X) role grid, sides rounded up."""
    padded = np.pad(roles, [(0, -side % COARSE_CELL) for side in roles.shape])
    height, depth, width = (side // COARSE_CELL for side in padded.shape)
    cells = padded.reshape(height, COARSE_CELL, depth, COARSE_CELL, width, COARSE_CELL)

    def holds(wanted: np.ndarray) -> np.ndarray:
        return np.asarray(wanted.any((1, 3, 5)))

    wood, leaf, any_block = holds(np.isin(cells, WOODS)), holds(np.isin(cells, LEAVES)), holds(cells > 0)
    kinds = np.where(wood, 1, 0) + np.where(leaf, 2, 0)
    return np.where((kinds == 0) & any_block, 4, kinds).astype(np.uint8)


def turned(blueprint: Blueprint, roles: np.ndarray, symmetry: int) -> tuple[Blueprint, np.ndarray]:
    """Return the blueprint and the structure turned and mirrored alike.

    Args:
        blueprint: What to turn.
        roles: (Y, Z, X) role grid of its box.
        symmetry: 0 to 7, see :func:`turned_grid`.
    """
    if not 0 <= symmetry < SYMMETRIES:
        raise ValueError(f"symmetry {symmetry}, expected 0 to {SYMMETRIES - 1}")
    grid = turned_grid(roles, symmetry)
    return (
        Blueprint(
            (grid.shape[0], grid.shape[1], grid.shape[2]),
            None if blueprint.plan is None else blueprint.plan.turned(symmetry),
            None if blueprint.coarse is None else turned_grid(blueprint.coarse, symmetry),
        ),
        grid,
    )


@dataclass(frozen=True)
class Guides:
    """What the network is told about a batch.

    Attributes:
        channels: (B, channels, Y, Z, X) float32.
        values: (B, fields) int64 values of the plans, where there are any.
        inside: (B, Y, Z, X) bool: the boxes; they lie at the origin of the canvas.
        axis_distance: (B, Y, Z, X) float64 blocks from the axis of the trunk, where plans say where it is.
    """

    channels: Tensor
    values: Tensor | None
    inside: Tensor
    axis_distance: Tensor | None = None


def guides_of(blueprints: Sequence[Blueprint], canvas: tuple[int, int, int], first: First) -> Guides:
    """Return what the network is told.

    Args:
        blueprints: All of the same kind.
        canvas: (Y, Z, X) at least as large as every box.
        first: Their kind.
    """
    boxes = torch.tensor([blueprint.box for blueprint in blueprints])
    inside = _inside(boxes, canvas)
    if first == "plan":
        plans = [blueprint.plan for blueprint in blueprints if blueprint.plan is not None]
        values = torch.from_numpy(np.stack([plan.values for plan in plans]))
        paths = torch.from_numpy(np.stack([_lengthened(plan.path, canvas[0]) for plan in plans]))
        return Guides(plan_guide(values, paths, canvas), values, inside, _axis_distance(paths, canvas))
    place = _place(boxes, canvas)
    if first == "none":
        return Guides(place, None, inside)
    cells = torch.zeros(len(blueprints), *(-(-side // COARSE_CELL) for side in canvas), dtype=torch.long)
    for row, blueprint in enumerate(blueprints):
        if blueprint.coarse is not None:
            height, depth, width = blueprint.coarse.shape
            cells[row, :height, :depth, :width] = torch.from_numpy(blueprint.coarse.astype(np.int64))
    for axis in (1, 2, 3):
        cells = cells.repeat_interleave(COARSE_CELL, axis)
    kinds = F.one_hot(cells[:, : canvas[0], : canvas[1], : canvas[2]], COARSE_KINDS).permute(0, 4, 1, 2, 3).float()
    return Guides(torch.cat([kinds, place], 1), None, inside)


def _axis_distance(paths: Tensor, canvas: tuple[int, int, int]) -> Tensor:
    _, z, x = _axes(canvas)
    axis = paths[:, : canvas[0], None, None].double() / 2
    return torch.hypot(z - axis[..., 0], x - axis[..., 1])


def _lengthened(path: np.ndarray, height: int) -> np.ndarray:
    return np.concatenate([path, np.repeat(path[-1:], max(0, height - len(path)), 0)])[:height]


def _axes(canvas: tuple[int, int, int]) -> tuple[Tensor, Tensor, Tensor]:
    shapes = ((1, -1, 1, 1), (1, 1, -1, 1), (1, 1, 1, -1))
    y, z, x = (torch.arange(side).view(shape) for side, shape in zip(canvas, shapes, strict=True))
    return y, z, x


def _inside(boxes: Tensor, canvas: tuple[int, int, int]) -> Tensor:
    y, z, x = _axes(canvas)
    height, depth, width = (boxes[:, axis].view(-1, 1, 1, 1) for axis in range(3))
    return (y < height) & (z < depth) & (x < width)


def _place(boxes: Tensor, canvas: tuple[int, int, int]) -> Tensor:
    y, z, x = (axis.float() for axis in _axes(canvas))
    height, depth, width = (boxes[:, axis].view(-1, 1, 1, 1).float() for axis in range(3))
    dz, dx = z - (depth - 1) / 2, x - (width - 1) / 2
    channels = [dz / 8, dx / 8, torch.hypot(dz, dx) / 8, y / 8, (height - 1 - y) / 8, y / height, (y == 0).float()]
    channels.append((torch.maximum(dz.abs(), dx.abs()) < 1).float())
    return torch.stack([torch.broadcast_to(channel, (len(boxes), *canvas)) for channel in channels], 1).clamp(-2, 2)


def on_canvas(roles: np.ndarray, canvas: tuple[int, int, int]) -> np.ndarray:
    """Return the grid at the origin of a canvas, `OUTSIDE` beyond it."""
    out = np.full(canvas, OUTSIDE, np.uint8)
    height, depth, width = roles.shape
    out[:height, :depth, :width] = roles
    return out
