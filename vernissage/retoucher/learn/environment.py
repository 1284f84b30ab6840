"""The retoucher's world: N photos are one tensor, so a step is one render and one juror call for all of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from vernissage.core.errors import CorruptArtifact
from vernissage.core.parallel import in_parts, threads_for_parts
from vernissage.retoucher.domain.colour import luma, srgb_to_linear
from vernissage.retoucher.domain.render import render_levels
from vernissage.retoucher.domain.sliders import HIGHS, LOWS, SLIDER_COUNT
from vernissage.retoucher.domain.statistics import CLIP_HIGH, CLIP_LOW, histograms
from vernissage.retoucher.learn.juror import HISTOGRAM_BINS, PICTURE_STATISTICS, picture_statistics
from vernissage.retoucher.learn.rewards import STRATEGIES, Reward, Standing, reference_error
from vernissage.retoucher.learn.suggestions import SUGGESTIONS

if TYPE_CHECKING:
    from vernissage.retoucher.learn.actions import ActionTable
    from vernissage.retoucher.learn.juror import Juror
    from vernissage.retoucher.learn.scenes import Starts, StartSource

# Photos that are developed at a time: what they need fits into a core's cache.
_CACHEFUL = 96
# Beginnings that are described at a time; there are few in one step.
_FEW = 16
Observation = dict[str, np.ndarray]

#: Histograms of R, G, B and luma; clipped shares; means, spreads and ends of the channels; mean saturation.
VIEW_STATISTICS = 4 * HISTOGRAM_BINS + 2 + 4 * 3 + 1


def observation_space(view: int, actions: ActionTable) -> gym.spaces.Dict:
    """What the agent sees of one photo.

    Args:
        view: Side of the thumbnails in pixels.
        actions: The action table.

    Returns:
        ``original`` and ``view``: (3, V, V) uint8 thumbnails before the first and after the last edit;
        ``original_statistics``: (PICTURE_STATISTICS,) of the original, see :func:`juror.picture_statistics`;
        ``view_statistics``: (VIEW_STATISTICS,) of the view, see :func:`view_statistics`;
        ``suggestions``: what classic corrections would set in the original; ``settings``:
        (K,) sliders; ``progress``: (1,) share of the horizon used; ``last_action``: (A,) one-hot, all zero at first.
    """
    box = gym.spaces.Box
    return gym.spaces.Dict(
        {
            "original": box(0, 255, (3, view, view), np.uint8),
            "view": box(0, 255, (3, view, view), np.uint8),
            "original_statistics": box(-np.inf, np.inf, (PICTURE_STATISTICS,), np.float32),
            "view_statistics": box(0, np.inf, (VIEW_STATISTICS,), np.float32),
            "suggestions": box(-1.5, 1.5, (SUGGESTIONS,), np.float32),
            "settings": box(np.asarray(LOWS, np.float32), np.asarray(HIGHS, np.float32)),
            "progress": box(0, 1, (1,), np.float32),
            "last_action": box(0, 1, (actions.count,), np.float32),
        }
    )


def to_bytes(images: torch.Tensor) -> torch.Tensor:
    """(N, 3, H, W) float in [0, 1] to uint8."""
    return (images * 255).round().to(torch.uint8)


def original_statistics(originals: torch.Tensor) -> torch.Tensor:
    """What a network would compute from the original at every look, computed once: it never changes.

    Args:
        originals: (N, 3, V, V) uint8.

    Returns:
        (N, PICTURE_STATISTICS) float.
    """
    return picture_statistics(originals.float() / 255)


def view_statistics(views: torch.Tensor) -> torch.Tensor:
    """Histogram and statistics of the picture as it is now: what the edits so far have done to it, in little time.

    Args:
        views: (N, 3, V, V) uint8.

    Returns:
        (N, VIEW_STATISTICS) float from 0 to about 4.
    """
    # Every second row and column tell the same histogram at a quarter of the price.
    images = views[..., ::2, ::2].float() / 255
    grey = luma(images).flatten(1)
    clipped = torch.stack(((grey <= CLIP_LOW).float().mean(dim=1), (grey >= CLIP_HIGH).float().mean(dim=1)), dim=1)
    planes = images.flatten(2)
    means = planes.mean(dim=2)
    spreads = (planes - means.unsqueeze(2)).square().mean(dim=2).sqrt()
    channels = (means, spreads, planes.amin(dim=2), planes.amax(dim=2))
    saturation = (images.amax(dim=1) - images.amin(dim=1)).flatten(1).mean(dim=1, keepdim=True)
    return torch.cat((histograms(images, HISTOGRAM_BINS).flatten(1) * 4, clipped, *channels, saturation), dim=1)


@dataclass
class _Slots:
    """State of the N photos that are being edited."""

    original: torch.Tensor
    original_statistics: torch.Tensor
    reference: torch.Tensor
    suggestions: torch.Tensor
    view: torch.Tensor
    view_statistics: torch.Tensor
    settings: torch.Tensor
    edits: torch.Tensor
    last_action: torch.Tensor
    first_error: torch.Tensor
    first_score: torch.Tensor
    error: torch.Tensor
    score: torch.Tensor
    weights: torch.Tensor
    earned: torch.Tensor

    def standing(self) -> Standing:
        """What rewards look at."""
        return Standing(self.error, self.first_error, self.score, self.first_score, self.edits)


class RetouchEnv(VectorEnv):
    """Gymnasium vector environment over N photos, with automatic reset within the step.

    An episode ends by the stop action (terminated) or when the horizon is used up (truncated: nobody chose to end it).
    ``infos`` carry ``final_obs`` of ended episodes, and for these
    ``gain_error``, ``gain_score`` and ``edits``.

    Args:
        source: Draws beginnings.
        juror: Scores pictures; a juror that fails raises, it never counts as a score.
        reward: How edits are paid.
        actions: The action table.
        slots: Number of photos N.
        horizon: Most edits of one episode.
        view: Side of the thumbnails.

    Attributes:
        training_done: Share of the training that is over, in [0, 1]; episodes begin with the reward's weights of then.
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
        self.training_done = 0.0
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
        starts = self._draw(self.num_envs)
        self._slots = self._begin(starts, self._scores(starts.faulty))
        return self.observation(), {}

    def step(self, actions: np.ndarray) -> tuple[Observation, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Apply one action per slot; ended episodes are replaced by new ones.

        Whatever the juror raises comes out of here and leaves the environment as before its first reset: nothing goes
        on from half a step.

        Args:
            actions: (N,) action indices.

        Returns:
            Observations, (N,) rewards, (N,) terminated, (N,) truncated, infos.

        Raises:
            RuntimeError: If called before :meth:`reset`.
            ValueError: If the actions do not fit.
            CorruptArtifact: If a score is not a number.
        """
        if self._slots is None:
            raise RuntimeError("RetouchEnv.step was called before reset, or after a step that failed")
        chosen = torch.as_tensor(np.asarray(actions), dtype=torch.long)
        if chosen.shape != (self.num_envs,) or not bool(((chosen >= 0) & (chosen < self.actions.count)).all()):
            raise ValueError(
                f"actions: got {actions!r}, expected ({self.num_envs},) from 0 to {self.actions.count - 1}"
            )
        slots, self._slots = self._slots, None
        with threads_for_parts():
            return self._step(slots, chosen)

    def _step(
        self, slots: _Slots, chosen: torch.Tensor
    ) -> tuple[Observation, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        stopped = chosen == self.actions.stop
        slots.settings = self.actions.apply(slots.settings, chosen)
        slots.edits = slots.edits + (~stopped).long()
        slots.last_action = torch.nn.functional.one_hot(chosen, self.actions.count).float()
        truncated = ~stopped & (slots.edits >= self.horizon)
        before = slots.earned
        fresh = self._develop(slots, ~stopped, stopped | truncated)
        rewards = slots.earned - before
        self._slots = slots
        infos = self._restart(stopped | truncated, fresh)
        return self.observation(), rewards.numpy().astype(np.float32), stopped.numpy(), truncated.numpy(), infos

    def state(self) -> dict[str, torch.Tensor]:
        """Everything that the slots hold, for a checkpoint; empty before the first reset."""
        return {} if self._slots is None else {name: value.clone() for name, value in vars(self._slots).items()}

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        """Put back what :meth:`state` returned."""
        self._slots = _Slots(**{name: value.clone() for name, value in state.items()}) if state else None

    def observation(self) -> Observation:
        """What the agent sees now.

        Raises:
            RuntimeError: If called before :meth:`reset`.
        """
        slots = self._slots
        if slots is None:
            raise RuntimeError("RetouchEnv has no photos before reset")
        return {
            "original": slots.original.numpy().copy(),
            "view": slots.view.numpy().copy(),
            "original_statistics": slots.original_statistics.numpy().copy(),
            "view_statistics": slots.view_statistics.numpy().copy(),
            "suggestions": slots.suggestions.numpy().copy(),
            "settings": slots.settings.numpy().copy(),
            "progress": (slots.edits.float() / self.horizon).unsqueeze(1).numpy(),
            "last_action": slots.last_action.numpy().copy(),
        }

    def truth(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What only a teacher may see: originals in linear light, what was meant, and the present settings.

        Raises:
            RuntimeError: If called before :meth:`reset`.
        """
        slots = self._slots
        if slots is None:
            raise RuntimeError("RetouchEnv has no photos before reset")
        return srgb_to_linear(slots.original.float() / 255), slots.reference.clone(), slots.settings.clone()

    @property
    def begun(self) -> bool:
        """Whether there are photos to edit: after a reset and no failed step since."""
        return self._slots is not None

    def fresh_slots(self) -> np.ndarray:
        """(N,) bool: slots whose episode has just begun."""
        slots = self._slots
        return np.ones(self.num_envs, bool) if slots is None else (slots.last_action.sum(dim=1) == 0).numpy()

    def _scores(self, images: torch.Tensor) -> torch.Tensor:
        scores = self.juror.score(images)
        if scores.shape != (len(images),):
            raise ValueError(f"juror: got scores of shape {tuple(scores.shape)}, expected ({len(images)},)")
        broken = int((~torch.isfinite(scores)).sum())
        if broken:
            raise CorruptArtifact(
                f"juror: {broken} of {len(images)} scores are not numbers; make it again with `dvc repro juror`"
            )
        return scores

    def _draw(self, count: int) -> Starts:
        """Draw beginnings in 8 bits, as the agent sees them."""
        starts = self.source.draw(count)
        return replace(starts, faulty=to_bytes(starts.faulty).float() / 255)

    def _begin(self, starts: Starts, score: torch.Tensor) -> _Slots:
        count = len(starts.faulty)
        error = reference_error(starts.faulty, starts.reference)
        shown = to_bytes(starts.faulty)
        return _Slots(
            original=shown,
            original_statistics=torch.cat(in_parts(lambda rows: original_statistics(shown[rows]), count, _FEW)),
            # Whoever drew them may keep them.
            reference=starts.reference.clone(),
            suggestions=starts.suggestions.clone(),
            view=shown.clone(),
            view_statistics=view_statistics(shown),
            settings=torch.zeros(count, SLIDER_COUNT),
            edits=torch.zeros(count, dtype=torch.long),
            last_action=torch.zeros(count, self.actions.count),
            first_error=error,
            first_score=score,
            error=error.clone(),
            score=score.clone(),
            weights=self.reward_rule.weights(self.training_done).expand(count, len(STRATEGIES)).clone(),
            earned=torch.zeros(count),
        )

    def _develop(self, slots: _Slots, edited: torch.Tensor, ended: torch.Tensor) -> _Slots | None:
        """Render and score the photos that were edited, and in the same call of the juror those that come next."""
        rows = edited.nonzero().flatten()
        starts = self._draw(int(ended.sum())) if bool(ended.any()) else None
        originals, settings, references = slots.original[rows], slots.settings[rows], slots.reference[rows]

        def develop(part: slice) -> tuple[torch.Tensor, ...]:
            views = render_levels(originals[part], settings[part])
            shown = to_bytes(views)
            return views, shown, view_statistics(shown), reference_error(views, references[part])

        parts = in_parts(develop, len(rows), _CACHEFUL)
        pictures = [part[0] for part in parts] + ([] if starts is None else [starts.faulty])
        scores = self._scores(torch.cat(pictures)) if pictures else torch.empty(0)
        if parts:
            shown, statistics, error = (torch.cat(column) for column in list(zip(*parts, strict=True))[1:])
            slots.view[rows], slots.view_statistics[rows], slots.error[rows] = shown, statistics, error
            slots.score[rows] = scores[: len(rows)]
        slots.earned = torch.where(edited, self.reward_rule.earned(slots.standing(), slots.weights), slots.earned)
        return None if starts is None else self._begin(starts, scores[len(rows) :])

    def _restart(self, ended: torch.Tensor, fresh: _Slots | None) -> dict[str, Any]:
        slots = self._slots
        if slots is None or fresh is None:
            return {}
        infos = {
            "final_obs": self.observation(),
            "_final_obs": ended.numpy(),
            "gain_error": (slots.first_error - slots.error).numpy().copy(),
            "gain_score": (slots.score - slots.first_score).numpy().copy(),
            "edits": slots.edits.numpy().copy(),
        }
        for name, value in vars(fresh).items():
            getattr(slots, name)[ended] = value
        return infos
