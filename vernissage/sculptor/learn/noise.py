"""The forward process: tokens are absorbed by a mask, and some of those that stay are made wrong.

Absorbing-state diffusion with the objective of MDLM (Sahoo et al. 2024, arXiv 2406.07524, equation 10): the linear
schedule masks a token with probability t, and the cross-entropy of the masked ones weighs 1 / t. Unlike there, a share
of the visible tokens is replaced and learned from as well, as in GIDD (von Rütte et al. 2025, arXiv 2503.04482), so
that the network can rate what it sees.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from vernissage.sculptor.domain.roles import MASK, OUTSIDE, ROLES

if TYPE_CHECKING:
    from torch import Tensor

MASK_BUCKETS = (0.0, 0.25, 0.5, 0.75, 0.95, 1.0)


@dataclass(frozen=True)
class Corruption:
    """How the forward process treats tokens.

    Attributes:
        wrong: Largest share of visible tokens that are replaced; each structure draws its own share from 0 to this.
        untouched: Share of structures of which none is replaced.
        own: Share of the replaced tokens that become what the network itself drew there earlier; the others become a
            random role of the data.
        visible_weight: What the loss of a visible token counts.
        largest_weight: Where 1 / t is cut off.
    """

    wrong: float = 0.1
    untouched: float = 0.15
    own: float = 0.5
    visible_weight: float = 0.25
    largest_weight: float = 10.0


@dataclass(frozen=True)
class Noised:
    """A batch after the forward process.

    Attributes:
        tokens: (B, Y, Z, X) int64, what the network sees.
        t: (B,) shares of masked tokens that were asked for.
        weight: (B, Y, Z, X) float32, what the cross-entropy of each voxel counts; 0 outside the boxes.
    """

    tokens: Tensor
    t: Tensor
    weight: Tensor


def even_times(count: int, generator: torch.Generator) -> Tensor:
    """Draw (count,) times spread evenly over (0, 1]: their mean loss jumps less than that of free draws."""
    return 1 - (torch.rand(1, generator=generator) + torch.arange(count) / count) % 1


def noised(
    x0: Tensor, t: Tensor, corruption: Corruption, generator: torch.Generator, *, drawn: Tensor, roles: Tensor
) -> Noised:
    """Mask and corrupt a batch.

    Args:
        x0: (B, Y, Z, X) int64 roles, `OUTSIDE` beyond the boxes.
        t: (B,) in (0, 1].
        corruption: How.
        generator: Of the CPU.
        drawn: (B, Y, Z, X) int64 roles that the network drew for these structures earlier.
        roles: (R,) int64 roles that occur in the data.

    Returns:
        What the network is to learn from.
    """
    shape, batch = x0.shape, len(x0)

    def uniform(*of: int) -> Tensor:
        return torch.rand(of, generator=generator)

    inside = x0 != OUTSIDE
    masked = (uniform(*shape) < t.view(-1, 1, 1, 1)) & inside
    share = uniform(batch) * corruption.wrong * (uniform(batch) >= corruption.untouched)
    replaced = (uniform(*shape) < share.view(-1, 1, 1, 1)) & inside & ~masked
    random = roles[(uniform(*shape) * len(roles)).long().clamp(max=len(roles) - 1)]
    own = (uniform(*shape) < corruption.own) & (drawn < ROLES)
    tokens = torch.where(replaced, torch.where(own, drawn, random), x0).masked_fill(masked, MASK)
    weight = masked / t.clamp(min=1 / corruption.largest_weight).view(-1, 1, 1, 1)
    weight = weight + corruption.visible_weight * (inside & ~masked)
    return Noised(tokens, t, weight)


def weighted_loss(logits: Tensor, x0: Tensor, weight: Tensor) -> Tensor:
    """Mean cross-entropy over the voxels inside the boxes, in nats.

    Args:
        logits: (B, ROLES, Y, Z, X).
        x0: (B, Y, Z, X) int64, `OUTSIDE` beyond the boxes.
        weight: (B, Y, Z, X).
    """
    inside = x0 != OUTSIDE
    loss = F.cross_entropy(logits.float(), x0.masked_fill(~inside, 0), reduction="none")
    return (loss * weight).sum() / inside.sum()
