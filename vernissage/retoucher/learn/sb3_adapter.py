"""Shows a :class:`RetouchEnv` to stable-baselines3, which has its own vector environment contract."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from stable_baselines3.common.vec_env import VecEnv

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn

    from vernissage.retoucher.learn.environment import RetouchEnv


class Sb3RetouchEnv(VecEnv):
    """Thin adapter: reset happens inside ``step_wait``, the last observation of an episode travels in its info.

    stable-baselines3 bootstraps the value of an episode with ``TimeLimit.truncated`` from ``terminal_observation``;
    what it then finds for a photo without edits left is decided in :func:`reinforcement.edits_left`.
    """

    def __init__(self, env: RetouchEnv) -> None:
        # Before the base class, which already asks for the render mode.
        self.env = env
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)
        self._actions: np.ndarray | None = None
        self._paid: list[float] = []

    def take_mean_reward(self) -> float:
        """Mean reward of all edits since the last call; stable-baselines3 adds bootstrapped values to what it stores.

        Raises:
            RuntimeError: If there was no step since.
        """
        if not self._paid:
            raise RuntimeError("take_mean_reward: no step since the last call")
        mean = sum(self._paid) / len(self._paid)
        self._paid.clear()
        return mean

    def reset(self) -> VecEnvObs:
        """Begin new episodes and return only observations."""
        return self.env.reset()[0]

    def step_async(self, actions: np.ndarray) -> None:
        """Remember the actions."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Step all slots.

        Raises:
            RuntimeError: If no actions were given.
        """
        if self._actions is None:
            raise RuntimeError("step_wait was called before step_async")
        observations, rewards, terminated, truncated, infos = self.env.step(self._actions)
        self._actions = None
        self._paid.append(float(rewards.mean()))
        dones = terminated | truncated
        rows: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for slot in np.flatnonzero(dones):
            rows[slot] = {
                "terminal_observation": {key: value[slot] for key, value in infos["final_obs"].items()},
                "TimeLimit.truncated": bool(truncated[slot] and not terminated[slot]),
                "gain_error": float(infos["gain_error"][slot]),
                "gain_score": float(infos["gain_score"][slot]),
                "edits": int(infos["edits"][slot]),
            }
        return observations, rewards, dones, rows

    def close(self) -> None:
        """Nothing is held open."""

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Read an attribute of the one environment behind all slots."""
        return [getattr(self.env, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Refused: slots share one environment.

        Raises:
            ValueError: Always.
        """
        raise ValueError(f"set_attr({attr_name!r}): the slots share one environment, set it there")

    def env_method(self, method_name: str, *args: Any, indices: VecEnvIndices = None, **kwargs: Any) -> list[Any]:
        """Call a method of the one environment behind all slots, once."""
        result = getattr(self.env, method_name)(*args, **kwargs)
        return [result] * len(list(self._get_indices(indices)))

    def env_is_wrapped(self, wrapper_class: type, indices: VecEnvIndices = None) -> list[bool]:
        """No wrapper is ever between."""
        return [False] * len(list(self._get_indices(indices)))

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """The start source owns the randomness; nothing to seed here."""
        return [None] * self.num_envs
