"""Potentials and rewards: pure functions of how good a picture is, before and after an edit.

The reward of a step is the difference of a potential minus a price per edit (Ng, Harada and Russell 1999): whatever
the path, an episode earns the final potential minus the first one minus the price of its edits, so nothing can be
farmed, and stopping at once earns nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

#: Brings root mean square errors of encoded values (0.02 to 0.3) to the order of one.
ERROR_SCALE = 10.0
#: Scaled errors well below this (about 43 dB) count as none.
SMALL_ERROR = 0.07
# First error at which the logarithm has half of its weight.
_HALF_WEIGHT = 0.2


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


@dataclass(frozen=True)
class Reward:
    """How an edit is paid.

    Attributes:
        juror_share: Weight of the juror's score in [0, 1]; the rest weighs the distance to the reference, which
            cannot be hacked.
        harm_aversion: Extra weight of ending farther from the reference than the episode began.
        step_cost: Price of one edit, in potential units; stopping is free.
    """

    juror_share: float
    harm_aversion: float
    step_cost: float

    def __post_init__(self) -> None:
        if not 0 <= self.juror_share <= 1 or self.harm_aversion < 0 or self.step_cost < 0:
            raise ValueError(f"reward: got {self}, expected a share in [0, 1] and no negative weight")

    def potential(self, error: torch.Tensor, first_error: torch.Tensor, score: torch.Tensor) -> torch.Tensor:
        """How good the present picture is.

        Args:
            error: (N,) distance to the reference now.
            first_error: (N,) distance when the episode began.
            score: (N,) juror's score in [0, 10]; ten points count as much as a full scale of error.

        Returns:
            (N,).
        """
        harm = (error - first_error).clamp_min(0)
        left = distance(error, first_error) + self.harm_aversion * harm
        return -(1 - self.juror_share) * left + self.juror_share * score / 5

    def step(self, before: torch.Tensor, after: torch.Tensor, edited: torch.Tensor) -> torch.Tensor:
        """Pay one step.

        Args:
            before: (N,) potential before the action.
            after: (N,) potential after it.
            edited: (N,) bool, false where the action was stop.

        Returns:
            (N,).
        """
        return after - before - self.step_cost * edited.to(after.dtype)
