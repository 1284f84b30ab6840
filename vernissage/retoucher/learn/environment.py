"""The retoucher's world: N photos are one tensor, so a step is one render and one juror call for all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from vernissage.retoucher.domain.colour import srgb_to_linear
from vernissage.retoucher.domain.render import render_linear
from vernissage.retoucher.domain.sliders import HIGHS, LOWS, SLIDER_COUNT
from vernissage.retoucher.learn.rewards import Reward, reference_error
from vernissage.retoucher.learn.suggestions import SUGGESTIONS

if TYPE_CHECKING:
    from vernissage.retoucher.learn.actions import ActionTable
    from vernissage.retoucher.learn.juror import Juror
    from vernissage.retoucher.learn.scenes import StartSource

Observation = dict[str, np.ndarray]


def observation_space(view: int, actions: ActionTable) -> gym.spaces.Dict:
    """What the agent sees of one photo.

    Args:
        view: Side of the thumbnails in pixels.
        actions: The action table.

    Returns:
        ``original`` and ``view``: (3, V, V) uint8 thumbnails before the first and after the last edit;
        ``suggestions``: what classic corrections would set in the original; ``settings``:
        (K,) sliders; ``progress``: (1,) share of the horizon used; ``last_action``: (A,) one-hot, all zero at first.
    """
    box = gym.spaces.Box
    return gym.spaces.Dict(
        {
            "original": box(0, 255, (3, view, view), np.uint8),
            "view": box(0, 255, (3, view, view), np.uint8),
            "suggestions": box(-1.5, 1.5, (SUGGESTIONS,), np.float32),
            "settings": box(np.asarray(LOWS, np.float32), np.asarray(HIGHS, np.float32)),
            "progress": box(0, 1, (1,), np.float32),
            "last_action": box(0, 1, (actions.count,), np.float32),
        }
    )


def to_bytes(images: torch.Tensor) -> torch.Tensor:
    """(N, 3, H, W) float in [0, 1] to uint8."""
    return (images * 255).round().to(torch.uint8)


@dataclass
class _Slots:
    """State of the N photos that are being edited."""

    original: torch.Tensor
    linear: torch.Tensor
    reference: torch.Tensor
    suggestions: torch.Tensor
    view: torch.Tensor
    settings: torch.Tensor
    edits: torch.Tensor
    last_action: torch.Tensor
    first_error: torch.Tensor
    first_score: torch.Tensor
    error: torch.Tensor
    score: torch.Tensor
    potential: torch.Tensor


class RetouchEnv(VectorEnv):
    """Gymnasium vector environment over N photos, with automatic reset within the step.

    An episode ends by the stop action (terminated) or when the horizon is used up (truncated: the photo could have been
    edited further, so its value is not zero). ``infos`` carry ``final_obs`` of ended episodes, and for these
    ``gain_error``, ``gain_score`` and ``edits``.

    Args:
        source: Draws beginnings.
        juror: Scores pictures; a juror that fails raises, it never counts as a score.
        reward: How an edit is paid.
        actions: The action table.
        slots: Number of photos N.
        horizon: Most edits of one episode.
        view: Side of the thumbnails.
    """

    metadata: ClassVar[dict[str, Any]] = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": []}

    def __init__(
        self,
        source: StartSource,
        juror: Juror,
        reward: Reward,
        actions: ActionTable,
        *,
        slots: int,
        horizon: int,
        view: int,
    ) -> None:
        self.source, self.juror, self.reward_rule, self.actions = source, juror, reward, actions
        self.num_envs, self.horizon, self.view_side = slots, horizon, view
        self.single_observation_space = observation_space(view, actions)
        self.single_action_space = gym.spaces.Discrete(actions.count)
        self.observation_space = batch_space(self.single_observation_space, slots)
        self.action_space = batch_space(self.single_action_space, slots)
        self.render_mode = None
        self._slots: _Slots | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin new episodes in every slot; randomness belongs to the source, so a seed is refused.

        Raises:
            ValueError: If a seed or options are given.
        """
        if seed is not None or options:
            raise ValueError("RetouchEnv.reset: the start source owns the randomness; seed it where it is made")
        self._slots = self._begin(self.num_envs)
        return self._observe(), {}

    def step(self, actions: np.ndarray) -> tuple[Observation, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Apply one action per slot; ended episodes are replaced by new ones.

        Args:
            actions: (N,) action indices.

        Returns:
            Observations, (N,) rewards, (N,) terminated, (N,) truncated, infos.

        Raises:
            RuntimeError: If called before :meth:`reset`.
            ValueError: If the actions do not fit.
        """
        slots = self._slots
        if slots is None:
            raise RuntimeError("RetouchEnv.step was called before reset")
        chosen = torch.as_tensor(np.asarray(actions), dtype=torch.long)
        if chosen.shape != (self.num_envs,) or not bool(((chosen >= 0) & (chosen < self.actions.count)).all()):
            raise ValueError(
                f"actions: got {actions!r}, expected ({self.num_envs},) from 0 to {self.actions.count - 1}"
            )
        stopped = chosen == self.actions.stop
        slots.settings = self.actions.apply(slots.settings, chosen)
        slots.edits = slots.edits + (~stopped).long()
        slots.last_action = torch.nn.functional.one_hot(chosen, self.actions.count).float()
        before = slots.potential
        self._judge(slots, (~stopped).nonzero().flatten())
        rewards = self.reward_rule.step(before, slots.potential, ~stopped)
        truncated = ~stopped & (slots.edits >= self.horizon)
        infos = self._restart(stopped | truncated)
        return self._observe(), rewards.numpy().astype(np.float32), stopped.numpy(), truncated.numpy(), infos

    def state(self) -> dict[str, torch.Tensor]:
        """Everything that the slots hold, for a checkpoint; empty before the first reset."""
        return {} if self._slots is None else {name: value.clone() for name, value in vars(self._slots).items()}

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        """Put back what :meth:`state` returned."""
        self._slots = _Slots(**{name: value.clone() for name, value in state.items()})

    def observation(self) -> Observation:
        """What the agent sees now.

        Raises:
            RuntimeError: If called before :meth:`reset`.
        """
        return self._observe()

    def fresh_slots(self) -> np.ndarray:
        """(N,) bool: slots whose episode has just begun."""
        slots = self._slots
        return np.ones(self.num_envs, bool) if slots is None else (slots.last_action.sum(dim=1) == 0).numpy()

    def _begin(self, count: int) -> _Slots:
        starts = self.source.draw(count)
        error = reference_error(starts.faulty, starts.reference)
        score = self.juror.score(starts.faulty)
        return _Slots(
            original=starts.faulty,
            linear=srgb_to_linear(starts.faulty),
            reference=starts.reference,
            suggestions=starts.suggestions,
            view=starts.faulty.clone(),
            settings=torch.zeros(count, SLIDER_COUNT),
            edits=torch.zeros(count, dtype=torch.long),
            last_action=torch.zeros(count, self.actions.count),
            first_error=error,
            first_score=score,
            error=error.clone(),
            score=score.clone(),
            potential=self.reward_rule.potential(error, error, score),
        )

    def _judge(self, slots: _Slots, rows: torch.Tensor) -> None:
        """Render and score the photos that were edited."""
        if not len(rows):
            return
        slots.view[rows] = render_linear(slots.linear[rows], slots.settings[rows])
        slots.error[rows] = reference_error(slots.view[rows], slots.reference[rows])
        slots.score[rows] = self.juror.score(slots.view[rows])
        slots.potential = self.reward_rule.potential(slots.error, slots.first_error, slots.score)

    def _restart(self, ended: torch.Tensor) -> dict[str, Any]:
        slots = self._slots
        rows = ended.nonzero().flatten()
        if slots is None or not len(rows):
            return {}
        final = self._observe()
        infos = {
            "final_obs": final,
            "_final_obs": ended.numpy(),
            "gain_error": (slots.first_error - slots.error).numpy().copy(),
            "gain_score": (slots.score - slots.first_score).numpy().copy(),
            "edits": slots.edits.numpy().copy(),
        }
        fresh = self._begin(len(rows))
        for name, value in vars(fresh).items():
            # A new tensor per slot list: observations handed out before must not change under their owner.
            column = getattr(slots, name).clone()
            column[rows] = value
            setattr(slots, name, column)
        return infos

    def _observe(self) -> Observation:
        slots = self._slots
        if slots is None:
            raise RuntimeError("RetouchEnv has no photos before reset")
        return {
            "original": to_bytes(slots.original).numpy(),
            "view": to_bytes(slots.view).numpy(),
            "suggestions": slots.suggestions.numpy().copy(),
            "settings": slots.settings.numpy().copy(),
            "progress": (slots.edits.float() / self.horizon).unsqueeze(1).numpy(),
            "last_action": slots.last_action.numpy().copy(),
        }
