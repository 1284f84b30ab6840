"""Builds structures: voxels in a dozen steps, then the network looks at what it made and revises what it doubts.

Every function takes a state and gives the next one; all draws are float64 and come from one generator a structure. The
network runs on batches of one fixed shape a canvas, so that a structure does not depend on those built beside it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

import torch

from vernissage.core.errors import BadInput, BadParams
from vernissage.sculptor.domain.roles import MASK, OUTSIDE, ROLES
from vernissage.sculptor.learn.noise import INPUTS, NOT_WOOD, Level, is_wood

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

Order = Literal["random", "confidence", "outward"]
Schedule = Literal["even", "cosine", "linear"]


@dataclass(frozen=True)
class Building:
    """How structures are built.

    Attributes:
        steps: Network calls that decide voxels.
        wood_share: Share of the steps that decide the wood alone, the others decide the rest around it; 0 decides all
            roles at once, and so does a single step.
        order: Which undecided voxels are decided first: any (`random`), those the network is surest of (`confidence`),
            or those nearest to the axis of the trunk (`outward`).
        order_noise: How much chance there is in the orders that are not random: temperature of Gumbel noise on the
            log-probability, or blocks by which a distance may be mistaken.
        schedule: How many voxels a step decides: `even` so many that each step left has an equal share of the entropy
            that is left (what voxels that are drawn side by side can disagree about); `cosine` few at first, `linear`
            as many in every step.
        doubt: A decided voxel is undone when the network gives its token less than this, in every step but the last.
        doubt_share: At most this share of the decided voxels is undone a step; 0 undoes none.
        edits: Looks at the finished structure; each lets the worst-rated voxels take what the network expects there.
        wood_edits: Looks at the finished wood before the rest is decided.
        edit_below: Only voxels whose token has less than this probability are edited.
        edit_share: At most this share of the voxels is edited a look.
        temperature: Of the draws.
        guidance: Scale of classifier-free guidance at the end; it rises from 1 over the second half of the steps,
            because early guidance does harm (arXiv 2507.08965).
    """

    steps: int = 12
    wood_share: float = 0.5
    order: Order = "confidence"
    order_noise: float = 1.0
    schedule: Schedule = "even"
    doubt: float = 0.1
    doubt_share: float = 0.05
    edits: int = 2
    wood_edits: int = 1
    edit_below: float = 0.5
    edit_share: float = 0.1
    temperature: float = 1.0
    guidance: float = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= 4096:
            raise BadParams(f"sampling steps = {self.steps}, expected 1 to 4096")
        if not (math.isfinite(self.guidance) and 0 <= self.guidance <= 100):
            raise BadParams(f"guidance = {self.guidance}, expected 0 to 100")
        if not 0 <= self.temperature <= 100:
            raise BadParams(f"temperature = {self.temperature}, expected 0 to 100")
        for name in ("wood_share", "doubt", "doubt_share", "edit_below", "edit_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise BadParams(f"{name} = {getattr(self, name)}, expected a share from 0 to 1")
        if min(self.edits, self.wood_edits) < 0:
            raise BadParams(f"edits = {self.edits} and wood_edits = {self.wood_edits}, expected numbers from 0")
        if not 0 <= self.order_noise < math.inf:
            raise BadParams(f"order_noise = {self.order_noise}, expected a number from 0")
        for name, kinds in (("order", get_args(Order)), ("schedule", get_args(Schedule))):
            if getattr(self, name) not in kinds:
                raise BadParams(f"{name} = {getattr(self, name)!r}, expected one of {', '.join(kinds)}")

    @property
    def levels(self) -> list[tuple[Level, int, int]]:
        """What is decided, one after another: the level, its steps and the looks that follow."""
        wood = min(self.steps - 1, max(1, round(self.steps * self.wood_share))) if self.wood_share else 0
        if not wood:
            return [(Level.ALL, self.steps, self.edits)]
        return [(Level.WOOD, wood, self.wood_edits), (Level.REST, self.steps - wood, self.edits)]


@dataclass(frozen=True)
class State:
    """A batch of canvases under way.

    Attributes:
        tokens: (B, N) int64: roles, `MASK` or `NOT_WOOD` where undecided, `OUTSIDE` beyond the box.
        fixed: (B, N) bool: what never changes: beyond the box, or given by the user.
    """

    tokens: Tensor
    fixed: Tensor


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
        watch: Is shown the tokens after every step, `MASK` for all that is undecided.

    Returns:
        (B, N) int64 roles, and `OUTSIDE`.

    Raises:
        BadInput: The order is `outward` without distances, or the network's answers are no numbers.
    """
    state, done = start, 0

    def show() -> None:
        if watch is not None:
            watch(torch.where(state.tokens == NOT_WOOD, MASK, state.tokens))

    for level, steps, looks in building.levels:
        for step in range(steps):
            logits = rate(_as_learned(state.tokens, level), _guidance_at(building, done))
            log_p = level.outcomes(_log_probabilities(logits, building.temperature))
            doubted = _doubted(state, log_p, level, building.doubt_share, building.doubt)
            uniform = _uniform(generators, state.tokens.shape[1], 2)
            state = _decide(state, log_p, level, building, (step, steps), uniform, distance)
            if step < steps - 1:
                state = replace(state, tokens=state.tokens.masked_fill(doubted, level.undecided))
            done += 1
            show()
        looked_at = Level.WOOD if level is Level.WOOD else Level.ALL
        for _ in range(looks):
            logits = rate(_as_learned(state.tokens, looked_at), _guidance_at(building, done - 1))
            log_p = looked_at.outcomes(_log_probabilities(logits, 1.0))
            doubted = _doubted(state, log_p, looked_at, building.edit_share, building.edit_below)
            state = replace(state, tokens=torch.where(doubted, log_p.argmax(2), state.tokens))
            show()
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


def _as_learned(tokens: Tensor, level: Level) -> Tensor:
    """What the network is shown: while it decides the wood, all else that the user fixed is only known as no wood."""
    if level is not Level.WOOD:
        return tokens
    return torch.where((tokens < ROLES) & ~is_wood(tokens), NOT_WOOD, tokens)


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
    level: Level,
    building: Building,
    place_of_step: tuple[int, int],
    uniform: Tensor,
    distance: Tensor | None,
) -> State:
    """Draw undecided voxels, those first that the order says, as many as the schedule says.

    Args:
        state: Of the batch.
        log_p: (B, N, INPUTS) log-probabilities of the level's outcomes.
        level: What is decided.
        building: How.
        place_of_step: The step, counted from 0, and how many there are.
        uniform: (B, 2, N) from [0, 1): what is drawn, and in which order.
        distance: (B, N) blocks from the trunk's axis.
    """
    undecided = state.tokens == level.undecided
    share = log_p.exp()
    drawn = _draw(share, uniform[:, 0])
    rank = _rank(log_p, drawn, building, uniform[:, 1], distance).masked_fill(~undecided, torch.inf)
    by_rank = rank.argsort(dim=1, stable=True)
    place = by_rank.argsort(1)
    step, steps = place_of_step
    if step == steps - 1:
        chosen = undecided
    elif building.schedule == "even":
        entropy = -(share * log_p.clamp(min=-1e9)).sum(2).masked_fill(~undecided, 0.0)
        spent = entropy.gather(1, by_rank).cumsum(1).gather(1, place)
        chosen = undecided & ((spent <= entropy.sum(1, keepdim=True) / (steps - step)) | (place == 0))
    else:
        done = (step + 1) / steps
        left = math.cos(math.pi / 2 * done) if building.schedule == "cosine" else 1 - done
        open_to = (~state.fixed & (undecided | log_p.gather(2, state.tokens[..., None])[..., 0].isfinite())).sum(1)
        chosen = undecided & (place < undecided.sum(1, keepdim=True) - (open_to * left).floor().long()[:, None])
    return replace(state, tokens=torch.where(chosen, drawn, state.tokens))


def _rank(log_p: Tensor, drawn: Tensor, building: Building, uniform: Tensor, distance: Tensor | None) -> Tensor:
    """(B, N): the lower, the earlier."""
    chance = uniform.clamp(1e-12, 1 - 1e-12)
    if building.order == "random":
        return chance
    if building.order == "confidence":
        sure = log_p.gather(2, drawn[..., None])[..., 0]
        return building.order_noise * torch.log(-torch.log(chance)) - sure
    if distance is None:
        raise BadInput("order outward: expected distances from a trunk's axis, which only plans give")
    return distance + building.order_noise * chance


def _draw(share: Tensor, uniform: Tensor) -> Tensor:
    """(B, N, INPUTS) probabilities, (B, N) -> (B, N) by the inverse of the distribution function."""
    rising = share.cumsum(2)
    drawn = (uniform[..., None] * rising[..., -1:] >= rising).sum(2)
    # Rounding may lead beyond the last token that is possible.
    last = INPUTS - 1 - (share.flip(2) > 0).long().argmax(2)
    return torch.minimum(drawn, last)


def _doubted(state: State, log_p: Tensor, level: Level, share: float, below: float) -> Tensor:
    """(B, N) bool: the worst-rated share of the decided voxels, and of these only those rated below a probability.

    That is remasking as in ReMDM (arXiv 2503.00307) with a threshold: improbable is not wrong, the edges of a crown
    always are, and a fixed quota would strip them.
    """
    rating = log_p.gather(2, state.tokens[..., None])[..., 0]
    # What is no outcome of this level was decided before, or is not decided yet.
    free = ~state.fixed & (state.tokens != level.undecided) & rating.isfinite()
    rating = rating.masked_fill(~free, torch.inf)
    most = (free.sum(1).double() * share).ceil().long()
    place = rating.argsort(dim=1, stable=True).argsort(1)
    return (place < most[:, None]) & (rating < math.log(max(below, 1e-300)))
