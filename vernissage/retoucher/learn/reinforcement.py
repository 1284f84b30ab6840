"""Learning by reward, whatever the algorithm: its settings, and what the training asks of an algorithm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

from vernissage.core.errors import BadParams

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch
    from torch import nn

    from vernissage.retoucher.learn.environment import RetouchEnv
    from vernissage.retoucher.learn.network import PolicyNet

Algorithm = Literal["ppo", "dqn"]


@dataclass(frozen=True)
class Reinforcement:
    """Settings of learning by reward; the typed parameters say what each is for.

    Attributes:
        algorithm: ``ppo`` or ``dqn``.
        steps: Edits in all; 0 leaves the policy as it was taught.
        slots: Photos edited side by side.
        rollout: Edits per slot between two updates.
        epochs: Times that each edit is learned from, for DQN on average.
        batch: Edits of one gradient step.
        lr: Learning rate.
        plan_pace: Learning rate of the plan as a multiple of ``lr``; 0 keeps the plan as it was taught.
        gamma: Discount.
        gae_lambda: PPO: how far advantages trust rewards (1) or the critic (0).
        clip: PPO's clip range.
        sharpness: Logits per unit of price when lessons and reward begin: how seldom poor edits are tried.
        entropy: PPO: weight of the entropy bonus.
        dqn_buffer: DQN: edits that are remembered.
        dqn_target_every: DQN: edits between two copies of the network to the target network.
        dqn_exploration: DQN: share of random edits at the beginning and at the end.
    """

    algorithm: Algorithm
    steps: int
    slots: int
    rollout: int
    epochs: int
    batch: int
    lr: float
    plan_pace: float
    gamma: float
    gae_lambda: float
    clip: float
    sharpness: float
    entropy: float
    dqn_buffer: int
    dqn_target_every: int
    dqn_exploration: tuple[float, float]

    @property
    def per_iteration(self) -> int:
        """Edits between two updates."""
        return self.slots * self.rollout

    @property
    def iterations(self) -> int:
        """Number of rollouts, each with its update."""
        return -(-self.steps // self.per_iteration)


class Learner(Protocol):
    """An algorithm that improves a network in place, one rollout and update at a time."""

    def iterate(self, done: float) -> float:
        """Try edits and learn from them.

        Args:
            done: Share of the iterations that are over, in [0, 1).

        Returns:
            Mean reward of the edits that were tried.
        """
        ...

    def state(self) -> dict[str, torch.Tensor]:
        """All that the next iteration depends on, besides network, environment and random numbers."""
        ...

    def restore(self, state: dict[str, torch.Tensor], iterations: int) -> None:
        """Put back what :meth:`state` returned after so many iterations; the environment is restored before."""
        ...


def start_learner(
    network: PolicyNet, plan: Sequence[nn.Parameter], env: RetouchEnv, settings: Reinforcement, device: torch.device
) -> Learner:
    """Start the algorithm that the settings name.

    Args:
        network: The policy, warm-started or fresh; it is changed in place.
        plan: Its weights that make the plan, which learn at their own pace.
        env: Where edits are tried.
        settings: How to learn.
        device: Where the network computes.

    Returns:
        The algorithm before its first iteration.

    Raises:
        BadParams: If there is no such algorithm.
    """
    if settings.algorithm not in get_args(Algorithm):
        known = ", ".join(get_args(Algorithm))
        raise BadParams(f"train.retoucher.algorithm = {settings.algorithm!r}, expected one of {known}")
    if settings.algorithm == "dqn":
        from vernissage.retoucher.learn.sb3_dqn import DqnLearner

        return DqnLearner(network, plan, env, settings, device)
    from vernissage.retoucher.learn.sb3_policy import PpoLearner

    return PpoLearner(network, plan, env, settings, device)


def edits_left(observation: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Where another edit may follow; what follows where none may is worth nothing, and that need not be learned.

    No episode begins without edits left, so no update ever corrects what a network says of such a view. Bootstrapping
    from that guess feeds it back into itself: without a discount it grows without end (Pardo et al. 2018, section 3: an
    agent that sees the time must take the limit for what it is).

    Args:
        observation: With ``progress`` (N, 1).

    Returns:
        (N,) bool.
    """
    return observation["progress"].squeeze(1) < 1


def parameter_groups(network: nn.Module, plan: Sequence[nn.Parameter], pace: float) -> list[dict[str, Any]]:
    """Groups for an optimiser: the plan at its own pace, or not at all.

    Args:
        network: All weights.
        plan: Those of the plan.
        pace: Their learning rate as a multiple; 0 leaves them out.

    Returns:
        Groups with ``params`` and ``pace``.
    """
    slow = {id(parameter) for parameter in plan}
    others = [p for p in network.parameters() if id(p) not in slow and p.requires_grad]
    groups: list[dict[str, Any]] = [{"params": others, "pace": 1.0}]
    if pace > 0:
        groups.append({"params": [p for p in plan if p.requires_grad], "pace": pace})
    return groups


class PacedRates:
    """Mixed into an algorithm of stable-baselines3, which would give all groups of weights one learning rate."""

    def _update_learning_rate(self, optimizers: Any) -> None:
        super()._update_learning_rate(optimizers)  # type: ignore[misc]
        for optimizer in optimizers if isinstance(optimizers, list) else [optimizers]:
            for group in optimizer.param_groups:
                group["lr"] *= group["pace"]
