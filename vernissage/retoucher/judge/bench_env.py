"""How many edits a second an agent can try: our environment beside the usual construction, in one run.

Both get the same photos, size of observations, horizon, action table and random actions, the same juror, and
stable-baselines3's interface. Each is measured with several settings, and its best one counts: processes for the usual
construction, torch's threads and photos side by side for ours. Every process of the usual one has one thread: with more
than there are cores, they wait for each other and both constructions become many times slower.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
import torch

from vernissage.core.devices import usable_cores
from vernissage.core.seeds import numpy_generator
from vernissage.retoucher.domain.render import render
from vernissage.retoucher.domain.sliders import SLIDER_COUNT
from vernissage.retoucher.judge.bench_pool import fresh_rank_juror
from vernissage.retoucher.judge.stopwatch import Speed, Stopwatch
from vernissage.retoucher.judge.usual_env import usual_environment
from vernissage.retoucher.learn.actions import ActionTable
from vernissage.retoucher.learn.environment import RetouchEnv
from vernissage.retoucher.learn.imagined import imagine_scenes
from vernissage.retoucher.learn.rewards import Reward, Terms
from vernissage.retoucher.learn.sb3_adapter import Sb3RetouchEnv
from vernissage.retoucher.learn.scenes import Starts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stable_baselines3.common.vec_env import VecEnv

OURS, USUAL = "RetouchEnv", "SubprocVecEnv, Pillow, juror behind a queue"
PROCESSES = (2, 4, 8)
TURNS = 3
_PHOTOS = 64
_FAULT = 0.4


@dataclass(frozen=True)
class EnvRow:
    """One measurement.

    Attributes:
        construction: Ours or the usual one.
        setting: What it was run with.
        photos: Photos that are edited side by side.
        rate: Edits per second, the median of the turns.
        cpu_ms: Processor time of one edit in milliseconds, in all processes together, the median of the turns.
        turns: Edits per second in each turn.
    """

    construction: str
    setting: str
    photos: int
    rate: float
    cpu_ms: float
    turns: tuple[float, ...]


@dataclass(frozen=True)
class EnvBench:
    """What is the same for both.

    Attributes:
        view: Side of the pictures in pixels.
        slots: Photos side by side in our environment; twice as many are measured as well.
        horizon: Most edits of one episode.
        strengths: Step sizes of the action table.
        seconds: Length of one turn of one measurement.
        seed: Decides photos and actions.
    """

    view: int
    slots: int
    horizon: int
    strengths: tuple[float, ...]
    seconds: float
    seed: int

    @property
    def actions(self) -> ActionTable:
        """The action table."""
        return ActionTable(self.strengths)


class CyclingStarts:
    """Begins with each of some photos in turn, which costs next to nothing.

    Args:
        starts: The photos.
    """

    def __init__(self, starts: Starts) -> None:
        self._starts, self._next = starts, 0

    def draw(self, count: int) -> Starts:
        """Give the next ``count`` photos."""
        rows = (self._next + torch.arange(count)) % len(self._starts.faulty)
        self._next += count
        return Starts(self._starts.faulty[rows], self._starts.reference[rows], self._starts.suggestions[rows])


def made_up_starts(view: int, seed: int) -> Starts:
    """Imagined scenes with every slider out of place, on the 8-bit grid."""
    rng = numpy_generator(seed, "bench-env")
    scenes = imagine_scenes(_PHOTOS, view, rng)
    settings = torch.from_numpy(rng.uniform(-_FAULT, _FAULT, (_PHOTOS, SLIDER_COUNT)).astype(np.float32))
    return Starts((render(scenes, settings) * 255).round() / 255, scenes)


def bench_env(bench: EnvBench, *, processes: Sequence[int] = PROCESSES, advance: Callable[[], None]) -> list[EnvRow]:
    """Measure both constructions, in turns.

    Args:
        bench: What is the same for both.
        processes: Numbers of environment processes of the usual construction.
        advance: Called after each measurement; there are :func:`measurements` of them.

    Returns:
        One row per construction and setting.
    """
    starts = made_up_starts(bench.view, bench.seed)
    before = torch.get_num_threads()
    turns: dict[tuple[str, str, int], list[Speed]] = {}
    try:
        for _ in range(TURNS):
            for threads in thread_counts():
                torch.set_num_threads(threads)
                for slots in slot_counts(bench):
                    key = (OURS, f"{threads} {_plural('thread', threads)}", slots)
                    turns.setdefault(key, []).append(_speed(_ours(bench, starts, slots), bench))
                    advance()
            torch.set_num_threads(1)
            for count in processes:
                key = (USUAL, f"{count} {_plural('process', count)}", count)
                with usual_environment(
                    fresh_rank_juror, starts, bench.actions, processes=count, horizon=bench.horizon
                ) as environment:
                    turns.setdefault(key, []).append(_speed(environment, bench))
                advance()
    finally:
        torch.set_num_threads(before)
    return [
        EnvRow(*key, median(s.rate for s in taken), median(s.cpu_ms for s in taken), tuple(s.rate for s in taken))
        for key, taken in turns.items()
    ]


def thread_counts() -> list[int]:
    """Numbers of threads with which ours is measured: 1, 2, 4, ... as far as there are cores."""
    return [2**power for power in range(usable_cores().bit_length())]


def slot_counts(bench: EnvBench) -> list[int]:
    """Numbers of photos side by side with which ours is measured."""
    return [bench.slots, 2 * bench.slots]


def measurements(processes: Sequence[int] = PROCESSES) -> int:
    """How often :func:`bench_env` measures."""
    return TURNS * (2 * len(thread_counts()) + len(processes))


def ratios(rows: Sequence[EnvRow]) -> dict[str, float]:
    """How many times more edits ours tries, each with its best setting: per second, and per second of processor."""
    fast = {name: max(row.rate for row in rows if row.construction == name) for name in (OURS, USUAL)}
    frugal = {name: min(row.cpu_ms for row in rows if row.construction == name) for name in (OURS, USUAL)}
    return {"rate": fast[OURS] / fast[USUAL], "cpu": frugal[USUAL] / frugal[OURS]}


def _ours(bench: EnvBench, starts: Starts, slots: int) -> Sb3RetouchEnv:
    names = ("reference_distance", "score_difference", "step_penalty")
    reward = Reward(dict.fromkeys(names, (1.0, 1.0)), Terms(harm_aversion=0.0, step_cost=0.01, success_margin=0.5))
    environment = RetouchEnv(
        CyclingStarts(starts),
        fresh_rank_juror(),
        reward,
        bench.actions,
        slots=slots,
        horizon=bench.horizon,
        view=bench.view,
    )
    return Sb3RetouchEnv(environment)


def _speed(environment: VecEnv, bench: EnvBench) -> Speed:
    """Edits with random actions, after a short time to warm up."""
    rng, actions = numpy_generator(bench.seed, "actions"), bench.actions
    environment.reset()
    _edit_for(environment, actions, rng, bench.seconds / 4)
    return _edit_for(environment, actions, rng, bench.seconds)


def _edit_for(environment: VecEnv, actions: ActionTable, rng: np.random.Generator, seconds: float) -> Speed:
    edits, watch = 0, Stopwatch()
    while watch.seconds < seconds:
        chosen = rng.integers(actions.count, size=environment.num_envs)
        environment.step(chosen)
        edits += int((chosen != actions.stop).sum())
    return watch.speed(edits)


def _plural(noun: str, count: int) -> str:
    return noun if count == 1 else noun + ("es" if noun.endswith("s") else "s")
