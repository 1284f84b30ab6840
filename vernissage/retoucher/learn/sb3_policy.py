"""PPO of stable-baselines3 on the policy network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from stable_baselines3 import PPO
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import FlattenExtractor

from vernissage.retoucher.learn.checkpoints import optimiser_tensors, restore_optimiser
from vernissage.retoucher.learn.reinforcement import PacedRates, edits_left, parameter_groups
from vernissage.retoucher.learn.sb3_adapter import Sb3RetouchEnv

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stable_baselines3.common.distributions import CategoricalDistribution, Distribution
    from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
    from torch import nn

    from vernissage.retoucher.learn.environment import RetouchEnv
    from vernissage.retoucher.learn.network import PolicyNet
    from vernissage.retoucher.learn.reinforcement import Reinforcement

#: An update ends early when the policy has moved this far (mean KL divergence) from the one that tried the edits.
_TARGET_KL = 0.03


class PlanPolicy(ActorCriticPolicy):
    """Hands observations as they are to a :class:`PolicyNet`: the network owns scaling and masking.

    Masked actions have the probability zero, so they are never sampled.

    Args:
        network: The network to train, warm-started or fresh.
        plan: Its weights that make the plan.
        plan_pace: Their learning rate as a multiple; 0 leaves them as they are.
    """

    def __init__(
        self,
        *args: Any,
        network: PolicyNet,
        plan: Sequence[nn.Parameter] = (),
        plan_pace: float = 1.0,
        **kwargs: Any,
    ) -> None:
        # In a tuple: torch takes no module before the base class is made, and that one already builds.
        self._given = (network, tuple(plan), plan_pace)
        super().__init__(*args, features_extractor_class=FlattenExtractor, net_arch=[], **kwargs)

    def _build(self, lr_schedule: Schedule) -> None:
        self.network, plan, pace = self._given
        groups = parameter_groups(self.network, plan, pace)
        self.optimizer = self.optimizer_class(groups, lr=lr_schedule(1), **self.optimizer_kwargs)

    def _distribution(self, logits: torch.Tensor) -> CategoricalDistribution:
        return self.action_dist.proba_distribution(action_logits=logits)

    def forward(self, obs: PyTorchObs, deterministic: bool = False) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Actions, values and log-probabilities."""
        logits, values = self.network(obs)
        distribution = self._distribution(logits)
        actions = distribution.get_actions(deterministic=deterministic)
        return actions, values.unsqueeze(1), distribution.log_prob(actions)

    def evaluate_actions(
        self, obs: PyTorchObs, actions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Values, log-probabilities and entropies of given actions."""
        logits, values = self.network(obs)
        distribution = self._distribution(logits)
        return values.unsqueeze(1), distribution.log_prob(actions), distribution.entropy()

    def get_distribution(self, obs: PyTorchObs) -> Distribution:
        """Distribution over the actions."""
        return self._distribution(self.network(obs)[0])

    def predict_values(self, obs: PyTorchObs) -> torch.Tensor:
        """Values, (N, 1); what a truncated episode is bootstrapped from, so zero where no edit is left."""
        left = edits_left(obs)
        if not left.any():  # asked so for every episode that ran out of edits, one at a time
            return torch.zeros(len(left), 1, device=left.device)
        return (self.network(obs)[1] * left).unsqueeze(1)


class PacedPPO(PacedRates, PPO):
    """PPO whose groups of weights learn at their own pace."""


class PpoLearner:
    """Proximal policy optimisation (Schulman et al. 2017) as one rollout and update at a time.

    Args:
        network: The policy, changed in place.
        plan: Its weights that make the plan.
        env: Where edits are tried.
        settings: How to learn.
        device: Where the network computes.
    """

    def __init__(
        self,
        network: PolicyNet,
        plan: Sequence[nn.Parameter],
        env: RetouchEnv,
        settings: Reinforcement,
        device: torch.device,
    ) -> None:
        self.settings, self.env, self.adapter = settings, env, Sb3RetouchEnv(env)
        self.ppo = PacedPPO(
            PlanPolicy,
            self.adapter,
            learning_rate=settings.lr,
            n_steps=settings.rollout,
            batch_size=settings.batch,
            n_epochs=settings.epochs,
            gamma=settings.gamma,
            gae_lambda=settings.gae_lambda,
            clip_range=settings.clip,
            ent_coef=settings.entropy,
            target_kl=_TARGET_KL,
            policy_kwargs={"network": network, "plan": plan, "plan_pace": settings.plan_pace},
            device=device,
        )

    def iterate(self, done: float) -> float:
        """One rollout and its update; see :class:`Learner`."""
        self.env.training_done = done
        self.ppo.learn(self.settings.per_iteration, reset_num_timesteps=False)
        return self.adapter.take_mean_reward()

    def state(self) -> dict[str, torch.Tensor]:
        """Moments of the optimiser."""
        return optimiser_tensors(self.ppo.policy.optimizer)

    def restore(self, state: dict[str, torch.Tensor], iterations: int) -> None:
        """See :class:`Learner`."""
        restore_optimiser(self.ppo.policy.optimizer, state)
        # stable-baselines3 keeps the observation between two rollouts to itself; a resumed run must begin with it.
        self.ppo._last_obs = self.env.observation()  # noqa: SLF001
        self.ppo._last_episode_starts = self.env.fresh_slots()  # noqa: SLF001
        self.ppo.num_timesteps = iterations * self.settings.per_iteration
