"""Reward strategies: pure functions of how far an episode has come, and their mixture.

Every strategy says what an episode has *earned so far*, compared with where it began; a step is paid the difference
(potentials, Ng, Harada and Russell 1999). So whatever the path, an episode earns what its end is worth, nothing can be
farmed by going back and forth, and stopping at once earns exactly nothing, the bonuses included: they begin a margin
above the first score, are taken back when the score falls again, and are never paid for the act of stopping.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from vernissage.core.errors import BadParams

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: Brings root mean square errors of encoded values (0.02 to 0.3) to the order of one.
ERROR_SCALE = 10.0
#: Scaled errors well below this (about 43 dB) count as none.
SMALL_ERROR = 0.07
# First error at which the logarithm has half of its weight.
_HALF_WEIGHT = 0.2
# Points of the juror that weigh as much as a full scale of error.
_POINTS = 5.0


def reference_error(view: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Root mean square error to the picture that was meant, scaled to the order of one.

    Args:
        view: (N, 3, H, W) float in [0, 1].
        reference: Same shape.

    Returns:
        (N,).
    """
    return ERROR_SCALE * torch.sqrt(((view - reference) ** 2).flatten(1).mean(dim=1))


def distance(error: torch.Tensor, first_error: torch.Tensor) -> torch.Tensor:
    """What is left to mend: the error, and its logarithm, so that the last bit of a fault still counts.

    Without the logarithm a policy is content when a photo is roughly right. Its weight falls to zero for photos that
    were right from the start, where it would make any touch unforgivable.

    Args:
        error: (N,) scaled error now.
        first_error: (N,) scaled error when the episode began.

    Returns:
        (N,), zero for no error, growing with it.
    """
    weight = first_error / (first_error + _HALF_WEIGHT)
    return error + 0.5 * weight * torch.log10(1 + error / SMALL_ERROR)


def came_closer(error: torch.Tensor, first_error: torch.Tensor, harm_aversion: float) -> torch.Tensor:
    """Fall of the distance to what was meant, harm weighed extra.

    Args:
        error: (N,) scaled error now.
        first_error: (N,) scaled error when the episode began.
        harm_aversion: Extra weight of ending farther away than the episode began.

    Returns:
        (N,), zero for no change, negative for harm.
    """
    harm = (error - first_error).clamp_min(0)
    return distance(first_error, first_error) - distance(error, first_error) - harm_aversion * harm


@dataclass(frozen=True)
class Standing:
    """Where N episodes stand, and where they began.

    Attributes:
        error: (N,) scaled distance to the picture that was meant, see :func:`reference_error`.
        first_error: (N,) the same when the episode began.
        score: (N,) the juror's score in [0, 10].
        first_score: (N,) the same when the episode began.
        edits: (N,) number of edits so far.
    """

    error: torch.Tensor
    first_error: torch.Tensor
    score: torch.Tensor
    first_score: torch.Tensor
    edits: torch.Tensor


@dataclass(frozen=True)
class Terms:
    """The numbers inside the strategies.

    Attributes:
        harm_aversion: Extra weight of ending farther from the reference than the episode began.
        step_cost: Price of one edit, in units of error; stopping is free.
        success_margin: Points by which the juror's score has to rise before an edit counts as a success.
    """

    harm_aversion: float
    step_cost: float
    success_margin: float


def reference_distance(standing: Standing, terms: Terms) -> torch.Tensor:
    """(N,) how much nearer to the reference, harm weighed extra; no juror is asked, so it cannot be hacked."""
    return came_closer(standing.error, standing.first_error, terms.harm_aversion)


def score_difference(standing: Standing, terms: Terms) -> torch.Tensor:  # noqa: ARG001 - strategies share a signature
    """(N,) how much higher the score; five points count as much as a full scale of error."""
    return (standing.score - standing.first_score) / _POINTS


def step_penalty(standing: Standing, terms: Terms) -> torch.Tensor:
    """(N,) minus the price of all edits so far."""
    return -terms.step_cost * standing.edits.to(standing.error.dtype)


def success_bonus(standing: Standing, terms: Terms) -> torch.Tensor:
    """(N,) one where the score has risen by the margin, else zero."""
    return (standing.score - standing.first_score >= terms.success_margin).to(standing.score.dtype)


def sigmoid_bonus(standing: Standing, terms: Terms) -> torch.Tensor:
    """(N,) the same with a soft edge: nothing for no rise, almost a half at the margin, up to one; a fall costs."""
    rise = (standing.score - standing.first_score) / terms.success_margin
    nothing = torch.sigmoid(torch.full_like(rise, -2.0))
    return (torch.sigmoid(2 * rise - 2) - nothing) / (1 - nothing)


#: Every strategy by its name in params.yaml.
STRATEGIES: dict[str, Callable[[Standing, Terms], torch.Tensor]] = {
    strategy.__name__: strategy
    for strategy in (reference_distance, score_difference, step_penalty, success_bonus, sigmoid_bonus)
}


@dataclass(frozen=True)
class Reward:
    """A mixture of strategies whose weights go from one value to another while the agent learns.

    An episode keeps the weights with which it began, so that it telescopes although they change.

    Attributes:
        mixture: Weight of each strategy at the beginning and at the end of reinforcement learning; what is left out
            weighs nothing.
        terms: The numbers inside the strategies.
    """

    mixture: Mapping[str, tuple[float, float]]
    terms: Terms

    def __post_init__(self) -> None:
        unknown = sorted(set(self.mixture) - set(STRATEGIES))
        if unknown:
            raise BadParams(f"reward: unknown strategy {', '.join(unknown)}; expected some of {', '.join(STRATEGIES)}")
        numbers = [weight for weights in self.mixture.values() for weight in weights]
        if any(not 0 <= number < math.inf for number in (*numbers, self.terms.harm_aversion, self.terms.step_cost)):
            raise BadParams(f"reward: got {self}, expected finite weights from 0 upwards")
        if not 0 < self.terms.success_margin < math.inf:
            raise BadParams(
                f"reward: success_margin = {self.terms.success_margin}: expected a number of points above 0; "
                "without a margin, leaving the photo alone would be a success"
            )

    def weights(self, done: float) -> torch.Tensor:
        """Weights at one point of the schedule.

        Args:
            done: Share of reinforcement learning that is over, in [0, 1].

        Returns:
            (S,) in the order of ``STRATEGIES``.

        Raises:
            ValueError: If the share is outside of [0, 1].
        """
        if not 0 <= done <= 1:
            raise ValueError(f"reward schedule: got {done}, expected a share from 0 to 1")
        pairs = [self.mixture.get(name, (0.0, 0.0)) for name in STRATEGIES]
        return torch.tensor([first + done * (last - first) for first, last in pairs])

    def price(self, done: float = 0.0) -> float:
        """What one edit costs at one point of the schedule."""
        return self.terms.step_cost * float(self.weights(done)[list(STRATEGIES).index("step_penalty")])

    def earned(self, standing: Standing, weights: torch.Tensor) -> torch.Tensor:
        """What episodes have earned so far; the reward of a step is the difference.

        Args:
            standing: Where they stand.
            weights: (N, S) weights with which each episode began, or (S,) for all.

        Returns:
            (N,), exactly zero where nothing has been edited.
        """
        parts = [strategy(standing, self.terms) for strategy in STRATEGIES.values()]
        return (torch.stack(parts, dim=-1) * weights.to(parts[0].dtype)).sum(dim=-1)
