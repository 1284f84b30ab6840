"""Guides: what the network is told about every voxel before any is drawn, made from plans or coarse grids."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from vernissage.sculptor.domain.plan import ASIDE, INDEX, LEAFLESS, OCTANTS, QUARTERS, TRUNK_COUNTS

if TYPE_CHECKING:
    from torch import Tensor

# Distances are told in units of so many blocks, and clipped beyond so many units.
_UNIT, _FURTHEST = 8.0, 2.0
PLAN_CHANNELS = 31


def plan_guide(values: Tensor, path: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Return what a plan says of every voxel.

    Args:
        values: (B, fields) int64, in the order of `plan.FIELDS`.
        path: (B, Y, 2) int64, centre (z, x) of the trunk in half-blocks, layer by layer.
        shape: (Y, Z, X) of the canvas; boxes may be smaller, they lie at its origin.

    Returns:
        (B, PLAN_CHANNELS, Y, Z, X) float32: offsets from the trunk's axis, heights over the ground, below the top, over
        the crown's base and below the trunk's end, distances to the sides of the box, how far inside trunk and crown a
        voxel lies, how far it is from the end of the limb and of the leaves in its octant, and from the limb's line.
    """
    height, depth, width = shape
    y = torch.arange(height, device=values.device).view(1, -1, 1, 1).float()
    z = torch.arange(depth, device=values.device).view(1, 1, -1, 1).float()
    x = torch.arange(width, device=values.device).view(1, 1, 1, -1).float()

    def field(name: str) -> Tensor:
        return values[:, INDEX[name]].view(-1, 1, 1, 1).float()

    axis = path[:, :height].float() / 2
    dz, dx = z - axis[:, :, 0, None, None], x - axis[:, :, 1, None, None]
    across, reach = torch.hypot(dz, dx), torch.maximum(dz.abs(), dx.abs())
    counts = torch.tensor(TRUNK_COUNTS, device=values.device, dtype=torch.float32)[values[:, INDEX["trunk"]]]
    half_trunk = counts.sqrt().view(-1, 1, 1, 1) / 2
    tall, run, base = field("height"), field("run"), field("crown_base")
    leafy = (base < LEAFLESS).float()
    crown_height = (tall - base).clamp(min=1)
    radius = _radius_at((y - base) / crown_height, values)
    in_crown = leafy * (y >= base).float() * (y < tall).float()
    turn = torch.atan2(dz, dx) * (OCTANTS / (2 * math.pi))
    octant = turn.round().long() % OCTANTS
    off_line = across * torch.sin((turn - turn.round()) * (2 * math.pi / OCTANTS))
    limb, limb_height, reach_there = (_of_octant(name, octant, values) for name in ("limb", "limb_height", "reach"))
    off_limb, along = _limb_line(octant, values, y.expand_as(across), across, off_line)
    has_limb, has_leaves = (limb > 0).float(), (reach_there > 0).float()
    channels = [
        dz / _UNIT,
        dx / _UNIT,
        across / _UNIT,
        y / _UNIT,
        (tall - 1 - y) / _UNIT,
        (y + 0.5) / tall,
        (run - 1 - y) / _UNIT,
        leafy * (y - base) / _UNIT,
        z / _UNIT,
        x / _UNIT,
        (field("depth") - 1 - z) / _UNIT,
        (field("width") - 1 - x) / _UNIT,
        ((half_trunk + 0.01 - reach) * 2).clamp(-1, 1) * (y < run).float(),
        (y < run).float(),
        in_crown,
        in_crown * (radius - across) / _UNIT,
        in_crown * ((radius - across) * 2).clamp(-1, 1),
        in_crown * across / (radius + 0.5),
        (y == 0).float(),
        (y == run - 1).float(),
        has_limb,
        has_limb * (limb - across) / _UNIT,
        has_limb * ((limb + 0.5 - across) * 2).clamp(-1, 1),
        has_limb * (y - limb_height) / _UNIT,
        has_limb * (y == limb_height).float(),
        off_line / _UNIT,
        has_limb * off_limb / _UNIT,
        has_limb * (2 - off_limb * 2).clamp(-1, 1),
        has_limb * along,
        has_leaves * (reach_there - across) / _UNIT,
        has_leaves * ((reach_there + 0.5 - across) * 2).clamp(-1, 1),
    ]
    whole = [torch.broadcast_to(channel, (len(values), height, depth, width)) for channel in channels]
    return torch.stack(whole, 1).clamp(-_FURTHEST, _FURTHEST)


def _limb_line(octant: Tensor, values: Tensor, y: Tensor, across: Tensor, off_line: Tensor) -> tuple[Tensor, Tensor]:
    """Distance from the line of the octant's limb, from the axis where it starts to its tip, and share of the way.

    Args:
        octant: (B, Y, Z, X) int64.
        values: (B, fields).
        y: (B, Y, Z, X) layers.
        across: (B, Y, Z, X) distances from the axis.
        off_line: (B, Y, Z, X) distances from the middle line of the octant, to one side positive.
    """
    reach, tip, start = (_of_octant(name, octant, values) for name in ("limb", "limb_height", "limb_start"))
    side = _of_octant("limb_side", octant, values) - ASIDE
    out = (across**2 - off_line**2).clamp(min=0).sqrt()
    tip_out = (reach**2 - side**2).clamp(min=0).sqrt()
    # In the frame of the octant: outwards, aside, upwards; the line runs from (0, 0, start) to the tip.
    way = torch.stack([tip_out, side, tip - start])
    here = torch.stack([out, off_line, y - start])
    along = ((way * here).sum(0) / (way**2).sum(0).clamp(min=1)).clamp(0, 1)
    return (here - along * way).norm(dim=0), along


def _of_octant(name: str, octant: Tensor, values: Tensor) -> Tensor:
    """(B, Y, Z, X): what the plan says of the octant that each voxel lies in."""
    table = values[:, INDEX[f"{name}_0"] : INDEX[f"{name}_0"] + OCTANTS].float()
    return torch.gather(table, 1, octant.flatten(1)).view(octant.shape)


def _radius_at(share: Tensor, values: Tensor) -> Tensor:
    """Radius of the crown at a height given as share of the crown's: of the quarter that the height lies in."""
    quarter = (share * QUARTERS).long().clamp(0, QUARTERS - 1)
    radii = values[:, INDEX["radius_0"] : INDEX["radius_0"] + QUARTERS].float()
    return torch.gather(radii, 1, quarter.flatten(1)).view(quarter.shape)
