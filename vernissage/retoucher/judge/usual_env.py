"""The construction that our environment is compared with: what one usually builds, as quick as it can be made.

One photo per process in stable-baselines3's ``SubprocVecEnv``; Pillow edits the 8-bit picture of the step before;
``multiprocessing`` queues carry each picture to one juror process and its score back. Where there was a choice, it is
the quick one: plain queues and no manager, no thread but one in any process, modules loaded once for all processes, and
what our environment computes for its observations besides the picture is not computed at all.
"""

from __future__ import annotations

import multiprocessing
from contextlib import contextmanager
from multiprocessing.reduction import ForkingPickler
from typing import TYPE_CHECKING, Any, ClassVar

import gymnasium as gym
import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageFilter
from stable_baselines3.common.vec_env import SubprocVecEnv

from vernissage.retoucher.domain.sliders import SLIDERS, slider_index
from vernissage.retoucher.learn.environment import observation_space

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.queues import Queue

    from vernissage.retoucher.learn.actions import ActionTable
    from vernissage.retoucher.learn.juror import Juror
    from vernissage.retoucher.learn.scenes import Starts

_PATIENCE = 120.0
_STOP = None
_ENCODING_GAMMA = 2.4
_LEVELS = np.arange(256, dtype=np.float32) / 255


def pillow_edit(picture: Image.Image, slider: str, amount: float) -> Image.Image:
    """Do with Pillow about what a slider does.

    Args:
        picture: RGB, 8 bits.
        slider: Name of the slider.
        amount: How far it moves, in the slider's unit.

    Returns:
        Another RGB picture of that size.
    """
    enhancers = {
        "exposure": ImageEnhance.Brightness,
        "contrast": ImageEnhance.Contrast,
        "saturation": ImageEnhance.Color,
    }
    if slider in enhancers:
        # The sRGB curve is close to a power of 2.4 over most of its range, and brightness multiplies encoded values.
        return enhancers[slider](picture).enhance(2 ** (amount / _ENCODING_GAMMA if slider == "exposure" else amount))
    if slider == "sharpen":
        return ImageEnhance.Sharpness(picture).enhance(1 + amount)
    if slider == "denoise":
        return picture.filter(ImageFilter.GaussianBlur(10 * max(0.0, amount)))
    if slider in {"highlights", "shadows"}:
        weight = _LEVELS if slider == "highlights" else 1 - _LEVELS
        return picture.point(_table(_LEVELS + amount * _LEVELS * (1 - _LEVELS) * weight) * 3)
    gain = 2 ** (amount / _ENCODING_GAMMA)
    gains = (gain, 1.0, 1 / gain) if slider == "temperature" else (1.0, 1 / gain, 1.0)
    return picture.point([level for one in gains for level in _table(_LEVELS * one)])


def _table(levels: np.ndarray) -> list[int]:
    table: list[int] = (levels * 255).round().clip(0, 255).astype(int).tolist()
    return table


class PillowRetouchEnv(gym.Env):
    """One photo that is edited with Pillow and judged behind a queue; observations as of `RetouchEnv`.

    Args:
        starts: Photos to begin from, as (M, V, V, 3) uint8 faulty and original ones and (M, S) suggestions.
        actions: The action table.
        horizon: Most edits of one episode.
        line: Questions to the juror, its answers, and the number under which to ask.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}

    def __init__(
        self,
        starts: tuple[np.ndarray, np.ndarray, np.ndarray],
        actions: ActionTable,
        horizon: int,
        line: tuple[Queue[Any], Queue[Any], int],
    ) -> None:
        self._faulty, self._originals, self._suggestions = starts
        self._actions, self._horizon = actions, horizon
        self._questions, self._answers, self._number = line
        self.observation_space = observation_space(self._faulty.shape[1], actions)
        self.action_space = gym.spaces.Discrete(actions.count)
        # What only our own environment computes costs this one nothing.
        self._constant = {
            key: np.zeros(space.shape, space.dtype) for key, space in self.observation_space.spaces.items()
        }
        self._deltas = actions.deltas.numpy()
        self._next = self._number

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Begin with the next photo."""
        super().reset(seed=seed, options=options)
        row = self._row = self._next % len(self._faulty)
        self._next += 1
        self._picture = Image.fromarray(self._faulty[row])
        self._target = self._originals[row].astype(np.float32) / 255
        self._settings = np.zeros(len(SLIDERS), np.float32)
        self._edits, self._last = 0, -1
        self._error, self._score = self._distance(), self._judge()
        return self._observe(), {}

    def step(self, action: int) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Apply one action."""
        self._last = int(action)
        if self._last == self._actions.stop:
            return self._observe(), 0.0, True, False, {}
        slider = self._actions.slider_of(self._last)
        index = slider_index(str(slider))
        change = float(self._deltas[self._last, index])
        self._picture = pillow_edit(self._picture, str(slider), SLIDERS[index].amount(change))
        self._settings[index] = np.clip(self._settings[index] + change, SLIDERS[index].low, SLIDERS[index].high)
        self._edits += 1
        error, score = self._distance(), self._judge()
        reward = self._error - error + (score - self._score) / 5
        self._error, self._score = error, score
        return self._observe(), reward, False, self._edits >= self._horizon, {}

    def _distance(self) -> float:
        difference = np.asarray(self._picture, np.float32) / 255 - self._target
        return 10 * float(np.sqrt(np.mean(difference * difference)))

    def _judge(self) -> float:
        self._questions.put((self._number, np.asarray(self._picture)))
        return float(self._answers.get(timeout=_PATIENCE))

    def _observe(self) -> dict[str, np.ndarray]:
        last = np.zeros(self._actions.count, np.float32)
        if self._last >= 0:
            last[self._last] = 1
        return {
            **self._constant,
            "original": self._faulty[self._row].transpose(2, 0, 1),
            "view": np.asarray(self._picture).transpose(2, 0, 1),
            "suggestions": self._suggestions[self._row],
            "settings": self._settings.copy(),
            "progress": np.array([self._edits / self._horizon], np.float32),
            "last_action": last,
        }


@contextmanager
def usual_environment(
    factory: Callable[[], Juror], starts: Starts, actions: ActionTable, *, processes: int, horizon: int
) -> Iterator[SubprocVecEnv]:
    """The usual construction, running.

    Args:
        factory: Makes the juror in its process.
        starts: Photos to begin from.
        actions: The action table.
        processes: Environment processes, each with one photo; the juror's comes on top.
        horizon: Most edits of one episode.

    Yields:
        stable-baselines3's environment over all of them.
    """
    # Starts processes from one that has the modules loaded and no thread, so that eight of them start in a moment.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    questions, answers = context.Queue(), [context.Queue() for _ in range(processes)]
    juror = context.Process(target=_judge_from_queue, args=(factory, questions, answers), daemon=True)
    juror.start()
    faulty, originals = (
        (t * 255).round().byte().permute(0, 2, 3, 1).numpy() for t in (starts.faulty, starts.reference)
    )
    photos = (np.ascontiguousarray(faulty), np.ascontiguousarray(originals), starts.suggestions.numpy())
    lines = [_Line(questions, answers[number], number) for number in range(processes)]
    makers = [_Maker(photos, actions, horizon, line) for line in lines]
    environment = SubprocVecEnv(list(makers), start_method="forkserver")
    try:
        yield environment
    finally:
        environment.close()
        questions.put(_STOP)
        juror.join(_PATIENCE)
        for queue in (questions, *answers):
            queue.close()
            queue.join_thread()


class _Line:
    """A client's ends of the queues; stable-baselines3 packs what it sends in a way that queues refuse."""

    def __init__(self, questions: Queue[Any], answers: Queue[Any], number: int) -> None:
        self.ends = (questions, answers, number)

    def __reduce__(self) -> tuple[Callable[[bytes], _Line], tuple[bytes]]:
        return _unpacked_line, (bytes(ForkingPickler.dumps(self.ends)),)


def _unpacked_line(packed: bytes) -> _Line:
    return _Line(*ForkingPickler.loads(packed))


class _Maker:
    """Makes one environment in its process."""

    def __init__(
        self, photos: tuple[np.ndarray, np.ndarray, np.ndarray], actions: ActionTable, horizon: int, line: _Line
    ) -> None:
        self._parts = photos, actions, horizon, line

    def __call__(self) -> PillowRetouchEnv:
        torch.set_num_threads(1)
        photos, actions, horizon, line = self._parts
        return PillowRetouchEnv(photos, actions, horizon, line.ends)


def _judge_from_queue(factory: Callable[[], Juror], questions: Queue[Any], answers: list[Queue[Any]]) -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    juror = factory()
    while (question := questions.get()) is not _STOP:
        number, picture = question
        image = torch.from_numpy(picture).permute(2, 0, 1)[None].float().div_(255)
        answers[number].put(float(juror.score(image)))
