"""The forward process: tokens are absorbed in two levels, and some of those that stay are made wrong.

Absorbing-state diffusion with the objective of MDLM (Sahoo et al. 2024, arXiv 2406.07524, equation 10): a token is
absorbed with probability t, and the cross-entropy of the absorbed ones weighs 1 / t. There are two levels, as in
Pyramid Discrete Diffusion (arXiv 2311.12085), but of meaning instead of size: first all that is not wood becomes
`NOT_WOOD`, then every token becomes `MASK`. Backwards the wood is decided alone, and then the rest around it: limbs
that are drawn among leaves have gaps, as nothing tells that they belong together. The likelihood is the product of
both levels.

Unlike in MDLM, a share of the visible tokens is replaced and learned from as well, as in GIDD (von Rütte et al. 2025,
arXiv 2503.04482), so that the network can rate what it sees.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

import torch

from vernissage.sculptor.domain.roles import MASK, OUTSIDE, ROLES, TOKENS, WOODS, Role

if TYPE_CHECKING:
    from torch import Tensor

MASK_BUCKETS = (0.0, 0.25, 0.5, 0.75, 0.95, 1.0)
# Seen by the network only: known not to be wood, and nothing else.
NOT_WOOD = TOKENS
INPUTS = TOKENS + 1
SOFT_ROLES = tuple(role for role in Role if role not in WOODS)


class Level(IntEnum):
    """What is being decided: everything at once, the wood, or the rest around it."""

    ALL = 0
    WOOD = 1
    REST = 2

    @property
    def undecided(self) -> int:
        """The token of what is not decided yet."""
        return NOT_WOOD if self is Level.REST else MASK

    def outcomes(self, log_p: Tensor) -> Tensor:
        """Return the log-probabilities of the tokens that a voxel of this level may become.

        Args:
            log_p: (..., ROLES) log-probabilities of roles.

        Returns:
            (..., INPUTS), -inf where a token is none of them.
        """
        out = log_p.new_full((*log_p.shape[:-1], INPUTS), -torch.inf)
        wood, soft = list(map(int, WOODS)), list(map(int, SOFT_ROLES))
        if self is Level.ALL:
            out[..., :ROLES] = log_p
        elif self is Level.WOOD:
            out[..., wood] = log_p[..., wood]
            out[..., NOT_WOOD] = log_p[..., soft].logsumexp(-1)
        else:
            out[..., soft] = log_p[..., soft].log_softmax(-1)
        return out


@dataclass(frozen=True)
class Corruption:
    """How the forward process treats tokens.

    Attributes:
        wood: Share of structures of which the wood is learned, without the rest.
        rest: Share of structures of which the rest is learned around the wood; of what is left, all roles at once.
        wrong: Largest share of visible tokens that are replaced; each structure draws its own share from 0 to this.
        untouched: Share of structures of which none is replaced.
        own: Share of the replaced tokens that become what the network itself drew there earlier; the others become a
            random role of the data.
        visible_weight: What the loss of a visible token counts.
        wood_weight: What the loss counts where the wood is learned: nearly all of it can be known, unlike the edges of
            crowns, whose chance would else be most of what the weights follow.
        largest_weight: Where 1 / t is cut off.
    """

    wood: float = 0.5
    rest: float = 0.42
    wrong: float = 0.1
    untouched: float = 0.15
    own: float = 0.5
    visible_weight: float = 0.25
    wood_weight: float = 3.0
    largest_weight: float = 5.0

    def __post_init__(self) -> None:
        if min(self.wood, self.rest) < 0 or self.wood + self.rest > 1:
            raise ValueError(f"shares of wood {self.wood} and rest {self.rest}: expected a sum of at most 1")


@dataclass(frozen=True)
class Noised:
    """A batch after the forward process.

    Attributes:
        tokens: (B, Y, Z, X) int64, what the network sees.
        levels: (B,) int64 levels.
        t: (B,) shares of absorbed tokens that were asked for.
        weight: (B, Y, Z, X) float32, what the cross-entropy of each voxel counts; 0 outside the boxes.
    """

    tokens: Tensor
    levels: Tensor
    t: Tensor
    weight: Tensor


def even_times(count: int, generator: torch.Generator) -> Tensor:
    """Draw (count,) times spread evenly over (0, 1]: their mean loss jumps less than that of free draws."""
    return 1 - (torch.rand(1, generator=generator) + torch.arange(count) / count) % 1


def draw_levels(count: int, corruption: Corruption, generator: torch.Generator) -> Tensor:
    """Draw (count,) int64 levels."""
    place = torch.rand(count, generator=generator)
    levels = torch.full((count,), int(Level.ALL))
    levels[place < corruption.wood + corruption.rest] = Level.REST
    levels[place < corruption.wood] = Level.WOOD
    return levels


def is_wood(tokens: Tensor) -> Tensor:
    """Where there is wood."""
    return (tokens == WOODS[0]) | (tokens == WOODS[1])


def noised(
    x0: Tensor,
    t: Tensor,
    levels: Tensor,
    corruption: Corruption,
    generator: torch.Generator,
    *,
    drawn: Tensor,
    roles: Tensor,
) -> Noised:
    """Absorb and corrupt a batch.

    Args:
        x0: (B, Y, Z, X) int64 roles, `OUTSIDE` beyond the boxes.
        t: (B,) in (0, 1].
        levels: (B,) of each structure.
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

    level, inside = levels.view(-1, 1, 1, 1), x0 != OUTSIDE
    absorbable = inside & ((level != Level.REST) | ~is_wood(x0))
    masked = (uniform(*shape) < t.view(-1, 1, 1, 1)) & absorbable
    share = uniform(batch) * corruption.wrong * (uniform(batch) >= corruption.untouched)
    replaced = (uniform(*shape) < share.view(-1, 1, 1, 1)) & inside & ~masked
    random = roles[(uniform(*shape) * len(roles)).long().clamp(max=len(roles) - 1)]
    own = (uniform(*shape) < corruption.own) & (drawn < ROLES)
    tokens = torch.where(replaced, torch.where(own, drawn, random), x0)
    tokens = torch.where((level == Level.WOOD) & inside & ~is_wood(tokens), NOT_WOOD, tokens)
    tokens = torch.where(masked, torch.where(level == Level.REST, NOT_WOOD, MASK), tokens)
    weight = masked / t.clamp(min=1 / corruption.largest_weight).view(-1, 1, 1, 1)
    weight = weight + corruption.visible_weight * (inside & ~masked)
    weight = weight * torch.where(level == Level.WOOD, corruption.wood_weight, 1.0)
    return Noised(tokens, levels, t, weight)


def voxel_losses(logits: Tensor, x0: Tensor, levels: Tensor) -> Tensor:
    """Return (B, Y, Z, X) cross-entropies in nats of what each level decides: wood or not, or the role.

    Args:
        logits: (B, ROLES, Y, Z, X).
        x0: (B, Y, Z, X) int64; what `OUTSIDE` gives does not matter.
        levels: (B,).
    """
    log_p = torch.log_softmax(logits.float(), 1)
    of_role: Tensor = -log_p.gather(1, x0.clamp(max=ROLES - 1)[:, None])[:, 0]
    soft = list(map(int, SOFT_ROLES))
    of_wood = torch.where(is_wood(x0), of_role, -log_p[:, soft].logsumexp(1))
    return torch.where((levels == Level.WOOD).view(-1, 1, 1, 1), of_wood, of_role)


def draw_again(logits: Tensor, x0: Tensor, levels: Tensor, uniform: Tensor) -> Tensor:
    """Return (B, Y, Z, X) int64 roles as the network would have drawn them, to learn from its mistakes.

    Where only wood is decided, what it does not take for wood keeps its role; wood that it misses becomes leaves.

    Args:
        logits: (B, ROLES, Y, Z, X).
        x0: (B, Y, Z, X) int64.
        levels: (B,).
        uniform: (B, Y, Z, X) from [0, 1).
    """
    rising = torch.softmax(logits.float(), 1).cumsum(1)
    drawn = (uniform[:, None] >= rising).sum(1).clamp(max=ROLES - 1)
    kept = torch.where(is_wood(x0), int(Role.LEAF), x0)
    return torch.where((levels == Level.WOOD).view(-1, 1, 1, 1) & ~is_wood(drawn), kept, drawn)


def weighted_loss(logits: Tensor, x0: Tensor, seen: Noised, rows: slice = slice(None)) -> Tensor:
    """Mean weighed cross-entropy over the voxels inside the boxes, in nats.

    Args:
        logits: (B, ROLES, Y, Z, X).
        x0: (B, Y, Z, X) int64, `OUTSIDE` beyond the boxes.
        seen: What the forward process made of a batch.
        rows: Which rows of that batch these are.
    """
    losses = voxel_losses(logits, x0, seen.levels[rows].to(x0.device))
    return (losses * seen.weight[rows].to(x0.device)).sum() / (x0 != OUTSIDE).sum()
