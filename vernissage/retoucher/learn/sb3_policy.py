"""The policy network as a stable-baselines3 actor-critic policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import FlattenExtractor

if TYPE_CHECKING:
    import torch
    from stable_baselines3.common.distributions import CategoricalDistribution, Distribution
    from stable_baselines3.common.type_aliases import PyTorchObs, Schedule

    from vernissage.retoucher.learn.network import PolicyNet


class PlanPolicy(ActorCriticPolicy):
    """Hands observations as they are to a :class:`PolicyNet`: the network owns scaling and masking.

    Args:
        network: The network to train, warm-started or fresh.
    """

    def __init__(self, *args: Any, network: PolicyNet, **kwargs: Any) -> None:
        # In a tuple: torch takes no module before the base class is made, and that one already builds.
        self._given = (network,)
        super().__init__(*args, features_extractor_class=FlattenExtractor, net_arch=[], **kwargs)

    def _build(self, lr_schedule: Schedule) -> None:
        (self.network,) = self._given
        self.optimizer = self.optimizer_class(self.network.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)

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
        """Values, (N, 1)."""
        return self.network(obs)[1].unsqueeze(1)
