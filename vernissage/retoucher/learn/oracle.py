"""Teaches by the greedy oracle: we made the fault, so we know what every action would gain, the chosen one or not.

No critic and no sampling noise: the policy moves its probability to actions with a gain, and to stopping where none has
one. It is short-sighted, which learning by reward can mend afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from vernissage.retoucher.domain.render import render_linear
from vernissage.retoucher.domain.sliders import slider_index
from vernissage.retoucher.learn.environment import RetouchEnv
from vernissage.retoucher.learn.reinforcement import parameter_groups
from vernissage.retoucher.learn.rewards import came_closer, reference_error

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from vernissage.retoucher.learn.actions import ActionTable
    from vernissage.retoucher.learn.network import PolicyNet
    from vernissage.retoucher.learn.rewards import Reward
    from vernissage.retoucher.learn.scenes import StartSource

_PIXELS = 128
_PATCH_SHARE = 0.25
_SPATIAL = [slider_index("denoise"), slider_index("sharpen")]


@dataclass(frozen=True)
class OracleTraining:
    """Settings of the lessons.

    Attributes:
        images: Number of views that the oracle prices; 0 leaves the lessons out.
        batch: Views of one update.
        lr: Learning rate.
        plan_pace: Learning rate of the plan as a multiple; 0 keeps the plan as it was taught.
    """

    images: int
    batch: int
    lr: float
    plan_pace: float

    @property
    def updates(self) -> int:
        """Number of updates."""
        return -(-self.images // self.batch)


def action_gains(
    linear: torch.Tensor,
    reference: torch.Tensor,
    settings: torch.Tensor,
    table: ActionTable,
    rng: np.random.Generator,
    *,
    harm_aversion: float,
    price: float,
) -> torch.Tensor:
    """Price every action on some of the pixels, in the units of the reward.

    Sliders that work pixel by pixel are tried on scattered pixels, those that look at neighbours on one patch.

    Args:
        linear: (N, 3, V, V) originals in linear light.
        reference: (N, 3, V, V) what was meant, encoded.
        settings: (N, K) present settings.
        table: The actions.
        rng: Chooses the pixels.
        harm_aversion: Extra weight of ending farther away than the photo began.
        price: What an edit costs.

    Returns:
        (N, A) what each action earns by coming closer to the reference, less its cost; exactly zero for stop.
    """
    side = linear.shape[-1]
    spatial = (table.deltas[:-1, _SPATIAL] != 0).any(dim=1)
    places = torch.from_numpy(rng.integers(side * side, size=min(_PIXELS, side * side)))
    patch = max(1, round(_PATCH_SHARE * side))
    top, left = (int(corner) for corner in rng.integers(side - patch + 1, size=2))

    def scattered(image: torch.Tensor) -> torch.Tensor:
        return image.flatten(2)[:, :, places].unsqueeze(2)

    def near(image: torch.Tensor) -> torch.Tensor:
        return image[:, :, top : top + patch, left : left + patch]

    after = table.apply(settings.repeat_interleave(table.count, dim=0), torch.arange(table.count).repeat(len(settings)))
    after = after.view(len(settings), table.count, -1)
    # Without neighbours, the sliders that need them stay out of both sides of the comparison.
    alone = after[:, [*(~spatial).nonzero().flatten(), table.stop]]
    alone[:, :, _SPATIAL] = 0
    worth = _worth(scattered(linear), scattered(reference), alone, side, harm_aversion)
    gains = torch.zeros(len(settings), table.count)
    gains[:, :-1][:, ~spatial] = worth[:, :-1] - worth[:, -1:] - price
    both = after[:, [*spatial.nonzero().flatten(), table.stop]]
    worth = _worth(near(linear), near(reference), both, side, harm_aversion)
    gains[:, :-1][:, spatial] = worth[:, :-1] - worth[:, -1:] - price
    return gains


def _worth(
    linear: torch.Tensor, reference: torch.Tensor, settings: torch.Tensor, side: int, harm_aversion: float
) -> torch.Tensor:
    """(N, T) how much closer to the reference than the original (N, T, K) settings come."""
    tried = torch.cat((settings, torch.zeros_like(settings[:, :1])), dim=1)
    each = tried.shape[1]
    rendered = render_linear(linear.repeat_interleave(each, dim=0), tried.flatten(0, 1), long_edge=side)
    errors = reference_error(rendered, reference.repeat_interleave(each, dim=0)).view(-1, each)
    return came_closer(errors[:, :-1], errors[:, -1:].expand_as(errors[:, :-1]), harm_aversion)


def gain_loss(logits: torch.Tensor, gains: torch.Tensor) -> torch.Tensor:
    """Minus the gain that the policy can expect, over all actions at once.

    Args:
        logits: (N, A), masked ones far below the others.
        gains: (N, A), see :func:`action_gains`.

    Returns:
        Scalar.
    """
    return -(torch.softmax(logits, dim=1) * gains).sum(dim=1).mean()


class Unasked:
    """Stands where a juror is expected and its score does not matter."""

    def score(self, images: torch.Tensor) -> torch.Tensor:
        """(N,) the middle of the scale."""
        return torch.full((len(images),), 5.0)


class OracleTrainer:
    """Gives lessons, one update at a time, so that the caller can checkpoint between them.

    The policy itself walks through the photos, so it is taught where it comes by.

    Args:
        network: The policy, changed in place.
        plan: Its weights that make the plan.
        source: Draws beginnings.
        reward: Says what harm and an edit cost at first; the juror is not asked.
        settings: How to teach.
        rng: Chooses the pixels.
    """

    def __init__(
        self,
        network: PolicyNet,
        plan: Sequence[nn.Parameter],
        source: StartSource,
        reward: Reward,
        settings: OracleTraining,
        rng: np.random.Generator,
    ) -> None:
        self.network, self.settings, self.reward, self.rng = network, settings, reward, rng
        spec = network.spec
        self.env = RetouchEnv(
            source, Unasked(), reward, spec.actions(), slots=settings.batch, horizon=spec.horizon, view=spec.view
        )
        self.optimiser = torch.optim.Adam(parameter_groups(network, plan, settings.plan_pace), lr=settings.lr)
        for group in self.optimiser.param_groups:
            group["lr"] = settings.lr * group["pace"]
        self.update = 0

    def step(self) -> float:
        """Do one update and return the gain that the policy could expect before it."""
        env = self.env
        shown = env.observation() if env.begun else env.reset()[0]
        logits = self.network({name: torch.from_numpy(value) for name, value in shown.items()})[0]
        gains = action_gains(
            *env.truth(),
            env.actions,
            self.rng,
            harm_aversion=self.reward.terms.harm_aversion,
            price=self.reward.price(),
        )
        loss = gain_loss(logits, gains)
        self.optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimiser.step()
        self.update += 1
        env.step(torch.distributions.Categorical(logits=logits.detach()).sample().numpy())
        return -loss.item()
