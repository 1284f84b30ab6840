"""DQN of stable-baselines3 on the policy network, whose logits are read as action values."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from stable_baselines3 import DQN
from stable_baselines3.common.buffers import DictReplayBuffer
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.dqn.policies import DQNPolicy
from torch import nn

from vernissage.retoucher.learn.checkpoints import (
    optimiser_tensors,
    restore_optimiser,
    with_prefix,
    without_prefix,
)
from vernissage.retoucher.learn.network import MASKED_LOGIT
from vernissage.retoucher.learn.reinforcement import PacedRates, edits_left, parameter_groups
from vernissage.retoucher.learn.sb3_adapter import Sb3RetouchEnv

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stable_baselines3.common.type_aliases import PyTorchObs, Schedule

    from vernissage.retoucher.learn.actions import ActionTable
    from vernissage.retoucher.learn.environment import RetouchEnv
    from vernissage.retoucher.learn.network import PolicyNet
    from vernissage.retoucher.learn.reinforcement import Reinforcement

#: What an episode never changes: held once per edit, not once before and once after it.
_CONSTANT = ("original", "original_statistics", "suggestions")


class PlanQNet(nn.Module):
    """Action values from a policy's logits: ``Q(s, a) = (logit(s, a) - logit(s, stop)) / sharpness``.

    Before any learning this is the plan's price of each action: what it takes off the error, less its cost. Stopping
    earns nothing, whatever the photo, and this form never has to learn that. As values are logits but for a positive
    factor and a shift per photo, the greedy policy of both is the same, and what is learned is an ordinary policy.

    Args:
        network: The policy.
        stop: Index of the stop action.
    """

    def __init__(self, network: PolicyNet, stop: int) -> None:
        super().__init__()
        self.network, self.stop = network, stop
        self.sharpness: torch.Tensor
        self.register_buffer("sharpness", torch.exp(network.log_sharpness.detach().clone()))

    def forward(self, obs: PyTorchObs) -> torch.Tensor:
        """(N, A) values of observations; those of masked actions are far below any other, stop's is zero.

        Where no edit is left, only stop is open: a truncated episode is bootstrapped from there.
        """
        logits, _ = self.network(obs)
        # Without a gradient, or what is learned of one action would move the values of all others.
        values = (logits - logits[:, self.stop : self.stop + 1].detach()) / self.sharpness
        closed = ~edits_left(obs).unsqueeze(1).repeat(1, values.shape[1])
        closed[:, self.stop] = False
        return values.masked_fill(closed, MASKED_LOGIT)

    def set_training_mode(self, mode: bool) -> None:
        """As every network of stable-baselines3."""
        self.train(mode)


class PlanQPolicy(DQNPolicy):
    """Hands observations as they are to a :class:`PlanQNet`, and keeps a copy of it as the target.

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
        network, plan, pace = self._given
        self.q_net = PlanQNet(network, int(self.action_space.n) - 1)
        self.q_net_target = copy.deepcopy(self.q_net).requires_grad_(requires_grad=False)
        self.q_net_target.set_training_mode(False)
        groups = parameter_groups(self.q_net, plan, pace)
        self.optimizer = self.optimizer_class(groups, lr=lr_schedule(1), **self.optimizer_kwargs)

    def _predict(self, obs: PyTorchObs, deterministic: bool = True) -> torch.Tensor:
        return self.q_net(obs).argmax(dim=1)


class EpisodeReplay(DictReplayBuffer):
    """Replay memory of N slots; what stays the same throughout an episode is held once per edit.

    An edit at 64 px takes 40 kB: three thumbnails of 12 kB (the original, the view before and after) and 3 kB of
    numbers; 4096 edits take 0.16 GB, and so does each checkpoint. Thumbnails stay bytes until they are looked at.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in _CONSTANT:
            self.next_observations[name] = self.observations[name]

    def _columns(self) -> dict[str, np.ndarray]:
        after = {f"next/{name}": rows for name, rows in self.next_observations.items() if name not in _CONSTANT}
        now = {f"now/{name}": rows for name, rows in self.observations.items()}
        rest = {name: getattr(self, name) for name in ("actions", "rewards", "dones", "timeouts")}
        return {**now, **after, **rest}

    def nbytes(self) -> int:
        """Bytes that the memory takes when it is full."""
        return sum(column.nbytes for column in self._columns().values())

    def state(self) -> dict[str, torch.Tensor]:
        """All edits that are remembered, and where the next one goes."""
        filled = self.buffer_size if self.full else self.pos
        columns = {name: torch.from_numpy(column[:filled]) for name, column in self._columns().items()}
        return {**columns, "place": torch.tensor([self.pos, int(self.full)])}

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        """Put back what :meth:`state` returned."""
        self.pos, full = (int(value) for value in state["place"])
        self.full = bool(full)
        for name, column in self._columns().items():
            column[: len(state[name])] = state[name].numpy()


class MaskedDQN(PacedRates, DQN):
    """DQN that explores slot by slot, and only among actions that would move a slider.

    The original tosses one coin for all slots and then draws from all actions, also those that are masked. How much is
    explored is set from outside, as the whole training's share of time decides.
    """

    def __init__(self, *args: Any, table: ActionTable, **kwargs: Any) -> None:
        self.table = table
        self.exploration_rate = 0.0
        super().__init__(*args, **kwargs)

    def predict(
        self,
        observation: dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """Greedy actions, some of them replaced by random allowed ones.

        Args:
            observation: Of N photos.
            state: Not used.
            episode_start: Not used.
            deterministic: Whether to leave out exploration.

        Returns:
            (N,) actions and the unchanged state.
        """
        greedy, state = self.policy.predict(observation, state, episode_start, deterministic=True)
        if deterministic:
            return greedy, state
        allowed = self.table.allowed(torch.from_numpy(observation["settings"])).numpy()
        explore = np.random.rand(len(allowed)) < self.exploration_rate  # noqa: NPY002 - as all of stable-baselines3
        drawn = (np.random.rand(*allowed.shape) * allowed).argmax(axis=1)  # noqa: NPY002
        return np.where(explore, drawn, greedy), state

    def _sample_action(
        self, learning_starts: int, action_noise: Any = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        actions, _ = self.predict(self._last_obs)
        return actions, actions

    def _on_step(self) -> None:
        rate = self.exploration_rate
        super()._on_step()
        self.exploration_rate = rate


class DqnLearner:
    """Deep Q-learning (Mnih et al. 2015) as one rollout and its updates at a time.

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
        self.dqn = MaskedDQN(
            PlanQPolicy,
            self.adapter,
            table=env.actions,
            learning_rate=settings.lr,
            buffer_size=settings.dqn_buffer,
            learning_starts=0,
            batch_size=settings.batch,
            tau=1.0,
            gamma=settings.gamma,
            train_freq=(settings.rollout, "step"),
            gradient_steps=max(1, settings.per_iteration * settings.epochs // settings.batch),
            replay_buffer_class=EpisodeReplay,
            target_update_interval=max(settings.dqn_target_every, settings.slots),
            policy_kwargs={"network": network, "plan": plan, "plan_pace": settings.plan_pace},
            device=device,
        )

    def iterate(self, done: float) -> float:
        """One rollout and its updates; see :class:`Learner`."""
        first, last = self.settings.dqn_exploration
        self.env.training_done = done
        self.dqn.exploration_rate = first + done * (last - first)
        self.dqn.learn(self.settings.per_iteration, reset_num_timesteps=False, log_interval=None)
        return self.adapter.take_mean_reward()

    def state(self) -> dict[str, torch.Tensor]:
        """Moments of the optimiser, the target network, the unit of values, and the whole replay memory."""
        return {
            **with_prefix("adam", optimiser_tensors(self.dqn.policy.optimizer)),
            **with_prefix("target", self.dqn.q_net_target.state_dict()),
            "sharpness": self.dqn.q_net.sharpness,
            **with_prefix("replay", self._replay.state()),
        }

    def restore(self, state: dict[str, torch.Tensor], iterations: int) -> None:
        """See :class:`Learner`."""
        restore_optimiser(self.dqn.policy.optimizer, without_prefix("adam", state))
        self.dqn.q_net_target.load_state_dict(without_prefix("target", state))
        self.dqn.q_net.sharpness.copy_(state["sharpness"])
        self._replay.restore(without_prefix("replay", state))
        # stable-baselines3 keeps the observation between two rollouts to itself; a resumed run must begin with it.
        self.dqn._last_obs = self.env.observation()  # noqa: SLF001
        self.dqn._last_episode_starts = self.env.fresh_slots()  # noqa: SLF001
        self.dqn.num_timesteps = iterations * self.settings.per_iteration
        self.dqn._n_calls = iterations * self.settings.rollout  # noqa: SLF001

    @property
    def _replay(self) -> EpisodeReplay:
        memory = self.dqn.replay_buffer
        assert isinstance(memory, EpisodeReplay)  # noqa: S101 - made so above
        return memory
