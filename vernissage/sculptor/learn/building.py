"""Builds structures: voxels in a dozen steps, then the network looks at what it made and revises what it doubts.

Every function takes a state and gives the next one; all draws are float64 and come from one generator a structure. The
network runs on batches of one fixed shape a canvas, so that a structure does not depend on those built beside it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch

from vernissage.core.errors import BadInput, BadParams
from vernissage.sculptor.domain.roles import MASK, OUTSIDE, ROLES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

Order = Literal["random", "confidence", "entropy", "outward"]


@dataclass(frozen=True)
class Building:
    """How structures are built.

    Attributes:
        steps: Network calls that decide voxels.
        order: Which undecided voxels are decided first: any (`random`), those the network is surest of (`confidence`),
            or those nearest to the axis of the trunk (`outward`).
        order_noise: How much chance there is in the orders that are not random: temperature of Gumbel noise on the
            log-probability, or blocks by which a distance may be mistaken.
        doubt: A decided voxel is undone when the network gives its role less than this, in every step but the last.
        doubt_share: At most this share of the decided voxels is undone a step; 0 undoes none.
        edits: Looks at the finished structure; each lets the worst-rated voxels take what the network expects there.
        edit_below: Only voxels whose role has less than this probability are edited.
        edit_share: At most this share of the voxels is edited a look.
        temperature: Of the draws.
        guidance: Scale of classifier-free guidance at the end; it rises from 1 over the second half of the steps,
            because early guidance does harm (arXiv 2507.08965).
        schedule: `cosine` decides few voxels first, `linear` as many in every step.
    """

    steps: int = 12
    order: Order = "random"
    order_noise: float = 1.0
    doubt: float = 0.1
    doubt_share: float = 0.05
    edits: int = 2
    edit_below: float = 0.2
    edit_share: float = 0.05
    temperature: float = 1.0
    guidance: float = 1.0
    schedule: Literal["cosine", "linear", "even"] = "cosine"

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= 4096:
            raise BadParams(f"sampling steps = {self.steps}, expected 1 to 4096")
        if not (math.isfinite(self.guidance) and 0 <= self.guidance <= 100):
            raise BadParams(f"guidance = {self.guidance}, expected 0 to 100")
        if not 0 <= self.temperature <= 100:
            raise BadParams(f"temperature = {self.temperature}, expected 0 to 100")

    def undecided(self, step: int) -> float:
        """Share of voxels that are undecided after a step, counted from 0."""
        done = (step + 1) / self.steps
        return math.cos(math.pi / 2 * done) if self.schedule == "cosine" else 1 - done


@dataclass(frozen=True)
class State:
    """A batch of canvases under way.

    Attributes:
        tokens: (B, N) int64: roles, `MASK` where undecided, `OUTSIDE` beyond the box.
        fixed: (B, N) bool: what never changes: beyond the box, or given by the user.
    """

    tokens: Tensor
    fixed: Tensor


Rating = "Callable[[Tensor, float], Tensor]"


def build(
    rate: Callable[[Tensor, float], Tensor],
    start: State,
    building: Building,
    generators: Sequence[torch.Generator],
    *,
    distance: Tensor | None = None,
    watch: Callable[[Tensor], None] | None = None,
) -> Tensor:
    """Decide every voxel.

    Args:
        rate: Takes (B, N) tokens and a guidance scale, gives (B, N, ROLES) logits.
        start: Where to begin.
        building: How to build.
        generators: One for each row.
        distance: (B, N) blocks from the trunk's axis, for the order `outward`.
        watch: Is shown the tokens after every step.

    Returns:
        (B, N) int64 without `MASK`.
    """
    state = start
    decidable = (~start.fixed).sum(1)
    for step in range(building.steps):
        scale = _guidance_at(building, step)
        log_p = _log_probabilities(rate(state.tokens, scale), building.temperature)
        last = step == building.steps - 1
        left = (decidable.double() * (0.0 if last else building.undecided(step))).floor().long()
        doubted = _doubted(state, log_p, building.doubt_share, building.doubt)
        budget = 1 / (building.steps - step) if building.schedule == "even" else None
        state = _decide(state, log_p, left, building, _uniform(generators, state.tokens.shape[1], 2), distance, budget)
        if not last:
            state = replace(state, tokens=state.tokens.masked_fill(doubted, MASK))
        if watch is not None:
            watch(state.tokens)
    for _ in range(building.edits):
        log_p = _log_probabilities(rate(state.tokens, building.guidance), 1.0)
        state = _edit(state, log_p, building)
        if watch is not None:
            watch(state.tokens)
    return state.tokens


def start_state(inside: Tensor, given: Tensor | None = None) -> State:
    """Return undecided canvases.

    Args:
        inside: (B, N) bool: the boxes.
        given: (B, N) int64 roles that the user fixes, `MASK` where free.
    """
    tokens = torch.where(inside, MASK, OUTSIDE)
    fixed = ~inside
    if given is not None:
        held = (given != MASK) & inside
        tokens, fixed = torch.where(held, given, tokens), fixed | held
    return State(tokens, fixed)


def _guidance_at(building: Building, step: int) -> float:
    rising = max(0.0, 2 * (step + 1) / building.steps - 1)
    return 1 + (building.guidance - 1) * rising


def _log_probabilities(logits: Tensor, temperature: float) -> Tensor:
    if not bool(torch.isfinite(logits).all()):
        raise BadInput(
            "the sculptor's network gave values that are no numbers; its weights are damaged: train it again"
        )
    return torch.log_softmax(logits.double() / max(temperature, 1e-3), -1)


def _uniform(generators: Sequence[torch.Generator], voxels: int, draws: int) -> Tensor:
    return torch.stack([torch.rand(draws, voxels, generator=own, dtype=torch.float64) for own in generators])


def _decide(
    state: State,
    log_p: Tensor,
    left: Tensor,
    building: Building,
    uniform: Tensor,
    distance: Tensor | None,
    budget: float | None = None,
) -> State:
    """Draw undecided voxels, those first that the order says, until `left` (B,) are undecided."""
    undecided = state.tokens == MASK
    drawn = _draw(log_p, uniform[:, 0])
    chance = uniform[:, 1].clamp(1e-12, 1 - 1e-12)
    if building.order == "random":
        rank = chance
    elif building.order == "confidence":
        sure = log_p.gather(2, drawn[..., None])[..., 0]
        rank = -(sure - building.order_noise * torch.log(-torch.log(chance)))
    elif building.order == "entropy":
        rank = _entropy(log_p) + building.order_noise * 0.1 * chance
    else:
        if distance is None:
            raise BadInput("order outward: expected distances from a trunk's axis, which only plans give")
        rank = distance + building.order_noise * chance
    rank = rank.masked_fill(~undecided, torch.inf)
    by_rank = rank.argsort(dim=1, stable=True)
    place = by_rank.argsort(1)
    if budget is None or budget == 1:
        chosen = undecided & (place < (undecided.sum(1) - left)[:, None])
    else:
        doubt = _entropy(log_p).masked_fill(~undecided, 0.0)
        spent = doubt.gather(1, by_rank).cumsum(1).gather(1, place)
        chosen = undecided & ((spent <= doubt.sum(1, keepdim=True) * budget) | (place == 0))
    return replace(state, tokens=torch.where(chosen, drawn, state.tokens))


def _entropy(log_p: Tensor) -> Tensor:
    return -(log_p.exp() * log_p).sum(2)


def _draw(log_p: Tensor, uniform: Tensor) -> Tensor:
    """(B, N, ROLES), (B, N) -> (B, N) by the inverse of the distribution function."""
    rising = log_p.exp().cumsum(2)
    return (uniform[..., None] * rising[..., -1:] >= rising).sum(2).clamp(max=ROLES - 1)


def _doubted(state: State, log_p: Tensor, share: float, below: float) -> Tensor:
    """(B, N) bool: the worst-rated share of the decided voxels, and of these only those rated below a probability.

    That is remasking as in ReMDM (arXiv 2503.00307) with a threshold: improbable is not wrong, the edges of a crown
    always are, and a fixed quota would strip them.
    """
    free = ~state.fixed & (state.tokens != MASK)
    rating = log_p.gather(2, state.tokens.clamp(max=ROLES - 1)[..., None])[..., 0].masked_fill(~free, torch.inf)
    most = (free.sum(1).double() * share).ceil().long()
    place = rating.argsort(dim=1, stable=True).argsort(1)
    return (place < most[:, None]) & (rating < math.log(below))


def _edit(state: State, log_p: Tensor, building: Building) -> State:
    """Let the worst-rated voxels take what the network expects there."""
    doubted = _doubted(state, log_p, building.edit_share, building.edit_below)
    return replace(state, tokens=torch.where(doubted, log_p.argmax(2), state.tokens))
