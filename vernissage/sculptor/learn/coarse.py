"""Draws coarse grids from prompts: what every cell of 4 x 4 x 4 voxels holds, before any voxel.

The general form of deciding the large things first (Pyramid Discrete Diffusion, Liu et al. 2023, arXiv 2311.12085): it
needs no trunk and no crown. The coarse grid is drawn by masked diffusion, as the voxels are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from vernissage.sculptor.domain.sizes import SIZES, Size, size_class
from vernissage.sculptor.learn.blueprints import COARSE_CELL, COARSE_KINDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

_MASK, _OUTSIDE = COARSE_KINDS, COARSE_KINDS + 1
_SIZE_NAMES = tuple(SIZES)
_LARGEST_WEIGHT = 10.0


@dataclass(frozen=True)
class CoarseShape:
    """What the network of coarse grids is made of.

    Attributes:
        text: Width of the prompt's vector.
        channels: Hidden values of every cell.
        blocks: Residual blocks.
        steps: Network calls that decide a grid.
    """

    text: int = 96
    channels: int = 64
    blocks: int = 3
    steps: int = 8


class _Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(4, channels)
        self.conv_in, self.conv_out = (nn.Conv3d(channels, channels, 3, padding=1) for _ in range(2))
        self.film = nn.Linear(channels, 2 * channels)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.film(condition)[:, :, None, None, None].chunk(2, 1)
        hidden = self.conv_in(F.silu(self.norm(x) * (1 + scale) + shift))
        changed: Tensor = self.conv_out(F.silu(hidden))
        return x + changed


class CoarseNetwork(nn.Module):
    """Says for every cell how likely each kind is, given those that are decided."""

    def __init__(self, shape: CoarseShape) -> None:
        super().__init__()
        self.shape = shape
        self.cells = nn.Embedding(COARSE_KINDS + 2, shape.channels)
        self.place = nn.Conv3d(4, shape.channels, 1)
        self.text, self.size = nn.Linear(shape.text, shape.channels), nn.Embedding(len(_SIZE_NAMES), shape.channels)
        self.blocks = nn.ModuleList(_Block(shape.channels) for _ in range(shape.blocks))
        self.head = nn.Conv3d(shape.channels, COARSE_KINDS, 1)

    def forward(self, cells: Tensor, text: Tensor, size: Tensor) -> Tensor:
        """Return (B, COARSE_KINDS, Y, Z, X) logits.

        Args:
            cells: (B, Y, Z, X) int64 kinds, the mask where undecided, the outside beyond the box.
            text: (B, text).
            size: (B,) numbers of size classes.
        """
        condition = F.silu(self.text(text) + self.size(size))
        x = self.cells(cells).permute(0, 4, 1, 2, 3) + self.place(_places(cells))
        for block in self.blocks:
            x = block(x, condition)
        logits: Tensor = self.head(F.silu(x))
        return logits


def _places(cells: Tensor) -> Tensor:
    """(B, 4, Y, Z, X): height, offsets from the middle of the box, and which cells are in it."""
    inside = cells != _OUTSIDE
    batch, height, depth, width = cells.shape
    extents = [inside.any(3).any(2).sum(1), inside.any(3).any(1).sum(1), inside.any(2).any(1).sum(1)]
    shapes = ((1, -1, 1, 1), (1, 1, -1, 1), (1, 1, 1, -1))
    y, z, x = (
        torch.arange(side, device=cells.device).view(form).float()
        for side, form in zip((height, depth, width), shapes, strict=True)
    )
    _, deep, wide = (extent.view(-1, 1, 1, 1).float() for extent in extents)
    channels = [y / 8, (z - (deep - 1) / 2) / 2, (x - (wide - 1) / 2) / 2, inside.float()]
    return torch.stack([channel.expand(batch, height, depth, width) for channel in channels], 1)


def coarse_loss(
    network: CoarseNetwork,
    text: Tensor,
    sizes: Sequence[str],
    grids: Sequence[np.ndarray],
    generator: torch.Generator,
) -> Tensor:
    """Cross-entropy of masked cells, weighed by 1 / t (MDLM, Sahoo et al. 2024), in nats.

    Args:
        network: The network.
        text: (B, text).
        sizes: Names of the sizes.
        grids: B coarse grids, (Y, Z, X) uint8.
        generator: Of the CPU.
    """
    cells = _stacked(grids).to(text.device)
    t = 1 - (torch.rand(1, generator=generator) + torch.arange(len(grids)) / len(grids)) % 1
    masked = (torch.rand(cells.shape, generator=generator) < t.view(-1, 1, 1, 1)).to(text.device) & (cells != _OUTSIDE)
    logits = network(cells.masked_fill(masked, _MASK), text, _numbers(sizes, text.device))
    losses = F.cross_entropy(logits.float(), cells.clamp(max=COARSE_KINDS - 1), reduction="none")
    weight = masked / t.clamp(min=1 / _LARGEST_WEIGHT).view(-1, 1, 1, 1).to(text.device)
    return (losses * weight).sum() / (cells != _OUTSIDE).sum()


@torch.no_grad()
def draw_coarse(
    network: CoarseNetwork, text: Tensor, no_text: Tensor, sizes: Sequence[Size], seeds: Sequence[int], guidance: float
) -> list[np.ndarray]:
    """Draw coarse grids, one at a time, so that a grid does not depend on those drawn beside it.

    Args:
        network: The network.
        text: (B, text) vectors of the prompts.
        no_text: (1, text) vector of the empty prompt.
        sizes: B sizes.
        seeds: B seeds.
        guidance: Scale of classifier-free guidance on the logits.

    Returns:
        (Y, Z, X) uint8 kinds of cells each; never without wood or leaves on the ground.
    """
    return [
        _draw_one(network, text[row : row + 1], no_text, size, seed, guidance)
        for row, (size, seed) in enumerate(zip(sizes, seeds, strict=True))
    ]


def _draw_one(
    network: CoarseNetwork, text: Tensor, no_text: Tensor, size: Size, seed: int, guidance: float
) -> np.ndarray:
    generator = torch.Generator().manual_seed(seed)
    shape = tuple(-(-side // COARSE_CELL) for side in size.shape)
    cells = torch.full((1, *shape), _MASK, device=text.device)
    number = _numbers([size_class(size)], text.device)
    order = torch.rand(cells.numel(), generator=generator, dtype=torch.float64).argsort().to(text.device)
    decided = 0
    for step in range(network.shape.steps):
        logits = network(cells, text, number).double()
        if guidance != 1:
            bare = network(cells, no_text, number).double()
            logits = bare + guidance * (logits - bare)
        if step == 0:
            # A structure stands on something: XCube's coarse stage could be empty, and its fine stage then failed.
            logits = _grounded(logits)
        share = torch.softmax(logits, 1).flatten(2)[0].T
        uniform = torch.rand(len(share), 1, generator=generator, dtype=torch.float64).to(text.device)
        drawn = (uniform >= share.cumsum(1)).sum(1).clamp(max=COARSE_KINDS - 1)
        upto = len(order) - math.floor(len(order) * math.cos(math.pi / 2 * (step + 1) / network.shape.steps) + 1e-9)
        if step == 0:
            middle = torch.zeros(shape, dtype=torch.bool)
            middle[0, shape[1] // 2, shape[2] // 2] = True
            place = int(middle.flatten().nonzero()[0, 0])
            cells.view(-1)[place] = drawn[place]
        chosen = order[decided:upto]
        chosen = chosen[cells.view(-1)[chosen] == _MASK]
        cells.view(-1)[chosen] = drawn[chosen]
        decided = max(decided, upto)
    return cells[0].cpu().numpy().astype(np.uint8)


def _grounded(logits: Tensor) -> Tensor:
    """Forbid that the cell in the middle of the ground has neither wood nor leaves."""
    _, _, _, depth, width = logits.shape
    logits = logits.clone()
    logits[:, [0, 4], 0, depth // 2, width // 2] = -torch.inf
    return logits


def _numbers(sizes: Sequence[str], device: torch.device) -> Tensor:
    return torch.tensor([_SIZE_NAMES.index(size) for size in sizes], device=device)


def _stacked(grids: Sequence[np.ndarray]) -> Tensor:
    shape = tuple(max(grid.shape[axis] for grid in grids) for axis in range(3))
    cells = torch.full((len(grids), *shape), _OUTSIDE)
    for row, grid in enumerate(grids):
        height, depth, width = grid.shape
        cells[row, :height, :depth, :width] = torch.from_numpy(grid.astype(np.int64))
    return cells
