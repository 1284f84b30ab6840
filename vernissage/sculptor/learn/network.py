"""The network that says what every undecided voxel may be: a 3-D U-Net that looks at patches of two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from vernissage.sculptor.domain.plan import FIELDS
from vernissage.sculptor.domain.roles import ROLES
from vernissage.sculptor.learn.guide import PLAN_CHANNELS
from vernissage.sculptor.learn.noise import INPUTS

if TYPE_CHECKING:
    from torch import Tensor

PATCH = 2
_SHORTEST = 4


@dataclass(frozen=True)
class NetworkShape:
    """What the network is made of.

    Attributes:
        channels: Of each level; every level has half the side of the one before, the first one half the canvas's.
        num_res_blocks: Residual blocks of each level, on the way down and on the way up.
        attention_levels: Levels, counted from 0, whose voxels attend to each other.
        fine: Channels at full resolution.
        guide: Channels of the guide.
        text: Width of the prompt's vector.
        condition: Width of the vector that every block is modulated by.
        plan: Whether the values of a plan are part of the condition.
    """

    channels: tuple[int, ...] = (48, 96)
    num_res_blocks: int = 1
    attention_levels: tuple[int, ...] = (1,)
    fine: int = 16
    guide: int = PLAN_CHANNELS
    text: int = 64
    condition: int = 128
    plan: bool = True

    @property
    def multiple(self) -> int:
        """What every side of a canvas is a multiple of."""
        return int(PATCH * 2 ** (len(self.channels) - 1))


class _Convolution(nn.Conv3d):
    """3 x 3 x 3, in float32 where a side is short: oneDNN's gradients in bfloat16 are wrong for two layers."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, Y, Z, X) -> (B, outputs, Y, Z, X)."""
        if x.device.type != "cpu" or min(x.shape[2:]) >= _SHORTEST or not torch.is_autocast_enabled("cpu"):
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.float())


class _Block(nn.Module):
    """Residual block, modulated by the condition (FiLM, Perez et al. 2018)."""

    def __init__(self, inputs: int, outputs: int, condition: int) -> None:
        super().__init__()
        self.norm_in, self.norm_out = _norm(inputs), _norm(outputs)
        self.conv_in = _Convolution(inputs, outputs)
        self.conv_out = _Convolution(outputs, outputs)
        self.film = nn.Linear(condition, 2 * outputs)
        self.skip = nn.Conv3d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(B, inputs, ...), (B, condition) -> (B, outputs, ...)."""
        scale, shift = self.film(condition)[:, :, None, None, None].chunk(2, 1)
        hidden = self.conv_in(F.silu(self.norm_in(x)))
        hidden = self.norm_out(hidden) * (1 + scale) + shift
        skipped: Tensor = self.skip(x)
        return skipped + self.conv_out(F.silu(hidden))


class _Attention(nn.Module):
    """Every voxel of a level attends to all others."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = max(1, channels // 32)
        self.norm = _norm(channels)
        self.qkv, self.out = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, Y, Z, X) -> the same."""
        batch, channels = x.shape[:2]
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(tokens).view(batch, -1, 3, self.heads, channels // self.heads).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return x + self.out(attended).transpose(1, 2).view_as(x)


class VoxelNetwork(nn.Module):
    """Says for every voxel of a canvas how likely each role is, given those that are decided.

    It is not told the share of undecided voxels: an absorbing process needs no time input (MDLM, Sahoo et al. 2024).
    """

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__()
        self.shape = shape
        fine, channels, condition = shape.fine, shape.channels, shape.condition
        self.tokens = nn.Embedding(INPUTS, fine)
        self.guide = nn.Conv3d(shape.guide, fine, 1)
        self.fine_in = _Convolution(fine, fine)
        self.stem = nn.Linear(fine * PATCH**3, channels[0])
        if shape.plan:
            self.values = nn.ModuleList(nn.Embedding(count, condition) for count in FIELDS.values())
        self.text = nn.Linear(shape.text, condition)
        self.mix = nn.Sequential(nn.SiLU(), nn.Linear(condition, condition), nn.SiLU())
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        self.shrink, self.grow, self.attention = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for level, width in enumerate(channels):
            self.down.append(nn.ModuleList(_Block(width, width, condition) for _ in range(shape.num_res_blocks)))
            self.attention.append(_Attention(width) if level in shape.attention_levels else nn.Identity())
            self.up.append(
                nn.ModuleList(
                    _Block(2 * width if block == 0 else width, width, condition)
                    for block in range(shape.num_res_blocks)
                )
            )
            if level:
                self.shrink.append(nn.Linear(channels[level - 1] * 8, width))
                self.grow.append(nn.Linear(width, channels[level - 1] * 8))
        self.bottom = _Block(channels[-1], channels[-1], condition)
        self.unpatch = nn.Linear(channels[0], fine * PATCH**3)
        self.fine_norm = _norm(2 * fine)
        self.fine_out = _Convolution(2 * fine, fine)
        self.head = nn.Conv3d(fine, ROLES, 1)

    def condition(self, text: Tensor, values: Tensor | None) -> Tensor:
        """Return (B, condition): what every block is modulated by.

        Args:
            text: (B, text) vectors of the prompts.
            values: (B, fields) values of the plans, where the network knows plans.
        """
        vector = self.text(text)
        if self.shape.plan and values is not None:
            for column, table in enumerate(self.values):
                vector = vector + table(values[:, column])
        mixed: Tensor = self.mix(vector)
        return mixed

    def forward(self, tokens: Tensor, guide: Tensor, condition: Tensor) -> Tensor:
        """Return (B, ROLES, Y, Z, X) logits.

        Args:
            tokens: (B, Y, Z, X) int64: roles, `MASK` or `NOT_WOOD` where undecided, `OUTSIDE` beyond the box; sides are
                multiples of `shape.multiple`.
            guide: (B, guide, Y, Z, X).
            condition: (B, condition), from :meth:`condition`.
        """
        expected = (len(tokens), self.shape.guide, *tokens.shape[1:])
        if guide.shape != expected:
            raise ValueError(f"a guide of shape {tuple(guide.shape)}, expected {expected}")
        fine = F.silu(self.tokens(tokens).permute(0, 4, 1, 2, 3) + self.guide(guide))
        fine = fine + self.fine_in(fine)
        x = _gather(fine, self.stem)
        kept: list[Tensor] = []
        for level, blocks in enumerate(self.down):
            if level:
                x = _gather(x, self.shrink[level - 1])
            for block in blocks:  # type: ignore[attr-defined]
                x = block(x, condition)
            x = self.attention[level](x)
            kept.append(x)
        x = self.bottom(x, condition)
        for level in range(len(kept) - 1, -1, -1):
            x = torch.cat([x, kept[level]], 1)
            for block in self.up[level]:  # type: ignore[attr-defined]
                x = block(x, condition)
            if level:
                x = _scatter(x, self.grow[level - 1])
        fine = torch.cat([_scatter(x, self.unpatch), fine], 1)
        fine = self.fine_out(F.silu(self.fine_norm(fine)))
        logits: Tensor = self.head(F.silu(fine))
        return logits


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(max(1, channels // 16), channels)


def _gather(x: Tensor, linear: nn.Module) -> Tensor:
    """(B, C, Y, Z, X) -> (B, C', Y/2, Z/2, X/2): every patch of 2 x 2 x 2 becomes one voxel."""
    batch, channels, height, depth, width = x.shape
    patches = x.view(batch, channels, height // 2, 2, depth // 2, 2, width // 2, 2).permute(0, 2, 4, 6, 1, 3, 5, 7)
    gathered: Tensor = linear(patches.reshape(batch, height // 2, depth // 2, width // 2, channels * 8))
    return gathered.permute(0, 4, 1, 2, 3).contiguous()


def _scatter(x: Tensor, linear: nn.Module) -> Tensor:
    """(B, C, Y, Z, X) -> (B, C', 2Y, 2Z, 2X): every voxel becomes a patch of 2 x 2 x 2."""
    batch, _, height, depth, width = x.shape
    patches: Tensor = linear(x.permute(0, 2, 3, 4, 1))
    channels = patches.shape[-1] // 8
    patches = patches.view(batch, height, depth, width, channels, 2, 2, 2).permute(0, 4, 1, 5, 2, 6, 3, 7)
    return patches.reshape(batch, channels, 2 * height, 2 * depth, 2 * width)
