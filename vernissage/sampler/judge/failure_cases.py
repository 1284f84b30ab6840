"""Robustness against what breaks: networks that answer no numbers, controllers that decide anything at all."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vernissage.core.seeds import numpy_generator
from vernissage.sampler.judge.contract_cases import complaint
from vernissage.sampler.judge.probes import BrokenOnce
from vernissage.sampler.judge.runs import Run, Steer, Tasks, scripted, static_steer, steered_by
from vernissage.sampler.judge.trials import Bench, Case, Outcome, gaps
from vernissage.sampler.learn.experts import ACTIONS, EXPERTS, MOST_RISES, SPEED, STATIC, STOP

if TYPE_CHECKING:
    from collections.abc import Callable

    from vernissage.sampler.domain.denoiser import Denoiser

_FEW, _MORE = 8, 16
_SLACK = 1e-6
_HIGH_PRICE = 0.1


def broken_network(bench: Bench) -> Outcome:
    """Let the network answer one sample once with what is no number; start one sample from no number."""
    rows = range(min(_MORE, len(bench.tasks)))
    tasks, clean = bench.tasks.rows(rows), bench.clean.samples[list(rows)]
    spent, worst = bench.clean.evaluations[list(rows)], 0.0
    spoilt = tasks.requests.start.clone()
    spoilt[0] = torch.nan
    trials: list[tuple[str, int, Tasks, Denoiser | None]] = [("nan in a start", 0, tasks.but(start=spoilt), None)]
    for call, value in ((0, torch.nan), (1, torch.nan), (1, torch.inf)):
        broken = BrokenOnce(bench.subject.denoiser, call, value)
        trials.append((f"{value} at call {call}", call, tasks, broken))
    for name, call, asked, network in trials:
        made = bench.ours(asked, denoiser=network)
        if made.failed.tolist() != [call, *[-1] * (len(tasks) - 1)] or made.reasons[0] != "failed":
            return Outcome(passed=False, note=f"{name}: failed {made.failed.tolist()}, reason {made.reasons[0]!r}")
        if bool(made.samples[0].isfinite().all()) != (call > 0):
            return Outcome(passed=False, note=f"{name}: the sample is not its last finite prediction")
        worst = max(worst, float(gaps(made.samples[1:], clean[1:]).max()))
        if worst > bench.rounding or not torch.equal(made.evaluations[1:], spent[1:]):
            return Outcome(passed=False, value=worst, note=f"{name}: neighbours changed")
    problem = _broken_student(bench, tasks)
    return Outcome(not problem, worst, note=problem)


def falling_levels(bench: Bench) -> Outcome:
    """Follow the noise levels of ours and of scripts that try everything."""
    tasks = bench.tasks.rows(range(min(2 * _MORE, len(bench.tasks))))
    count = len(tasks)
    steers = {
        "ours": bench.steer,
        "any action": scripted(bench.seed, count),
        "long ways": scripted(bench.seed + 1, count, without=(STOP, SPEED)),
    }
    decisions = 0
    for name, steer in steers.items():
        made = bench.ours(tasks, steer=steer)
        decisions += sum(map(len, made.levels))
        for row, (levels, rose) in enumerate(zip(made.levels, made.rose, strict=True)):
            problem = _level_problem(levels, rose, made.reasons[row])
            if problem:
                return Outcome(passed=False, note=f"{name}, request {row}: {problem}")
    return Outcome(passed=True, value=float(decisions), note=f"{decisions} decisions")


def adversarial_controllers(bench: Bench) -> Outcome:
    """Hand decisions to those who have none or always the same, with budgets."""
    tasks = bench.tasks.rows(range(min(_MORE, len(bench.tasks))))
    limits = torch.from_numpy(numpy_generator(bench.seed, "limits").integers(4, 17, size=len(tasks)))
    limited = replace(tasks, budgets=limits)
    # At high prices programs are short, and so is what is made of them.
    dear = replace(limited, prices=torch.full_like(tasks.prices, _HIGH_PRICE)).rows(range(_FEW // 2))
    trials = [(name, steer, limited) for name, steer in _ruthless(bench.seed, len(tasks)).items()]
    trials += [(name, steer, dear) for name, steer in _constant().items()]
    for name, steer, asked in trials:
        made = bench.ours(asked, steer=steer)
        if not made.finite or asked.budgets is None or bool((made.evaluations > asked.budgets).any()):
            return Outcome(passed=False, note=f"{name}: not finite, or over the budget")
    static = bench.ours(tasks, steer=static_steer)
    usual = float(bench.quality(static.samples, tasks).mean())
    kept, worst = usual, 0.0
    for name, steer in _no_decisions(bench).items():
        made = bench.ours(tasks, steer=steer)
        worst = max(worst, float(gaps(made.samples, static.samples).max()))
        kept = min(kept, float(bench.quality(made.samples, tasks).mean()))
        if worst > bench.rounding or not torch.equal(made.evaluations, static.evaluations):
            return Outcome(passed=False, value=worst, note=f"{name}: not what static makes")
        if name != "nan weights" and made.refused == 0:
            return Outcome(passed=False, note=f"{name}: refused decisions are not counted")
    for wrong in (np.zeros((1, 3), dtype=np.int64), np.zeros((2, len(ACTIONS)), dtype=np.int64)):
        run = Run(bench.subject, tasks.rows([0]), static_steer)
        if "expected" not in complaint(run.slots.act, wrong):
            return Outcome(passed=False, note=f"actions of shape {wrong.shape}: not refused")
    return Outcome(passed=True, value=worst, retained=kept / max(usual, 1e-6))


def _broken_student(bench: Bench, tasks: Tasks) -> str:
    """What is wrong when the student gives one sample what is no number."""
    student = bench.subject.student
    if student is None:
        return ""

    def broken(*asked: Any) -> torch.Tensor:
        made = student(*asked).clone()
        made[0] = torch.nan
        return made

    def steer(seen: np.ndarray, owner: np.ndarray, turn: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        actions = static_steer(seen, owner, turn)[0]
        actions[turn == 1, 1] = SPEED
        return actions, None

    stand_in: Any = _Student(broken, student.shape, student.sigma_max)
    whole = Run(bench.subject, tasks, steer).finish()
    made = Run(replace(bench.subject, student=stand_in), tasks, steer).finish()
    lost = (made.failed >= 0).nonzero().flatten().tolist()
    if len(lost) != 1 or not made.finite:
        return f"a student that breaks once: failed {made.failed.tolist()}"
    off = gaps(made.samples, whole.samples)
    off[lost] = 0
    return "" if off.max() <= bench.rounding else "a student that breaks once: neighbours changed"


class _Student:
    """Another function in the place of a student."""

    def __init__(self, function: Callable[..., torch.Tensor], shape: tuple[int, int, int], sigma_max: float) -> None:
        self._function, self.shape, self.sigma_max = function, shape, sigma_max

    def __call__(self, *asked: Any) -> torch.Tensor:
        return self._function(*asked)


def _level_problem(levels: tuple[float, ...], rose: tuple[float, ...], reason: str) -> str:
    """What is wrong with the noise levels of a request; empty where nothing is."""
    rises = 0
    # The first decision goes to the first level, from nowhere.
    for (here, there), factor in zip(pairwise(levels), rose[1:], strict=True):
        if there < here:
            continue
        rises += 1
        if factor == 1 or there > here * factor * (1 + _SLACK):
            return f"sigma {there:.4g} after {here:.4g}, with at most {factor:g} times as much declared"
    if rises > MOST_RISES:
        return f"sigma rose {rises} times, at most {MOST_RISES} are declared"
    if levels[-1] != 0 and reason != "speed":
        return f"ended ({reason}) at sigma {levels[-1]:.4g}, expected 0"
    return ""


def _ruthless(seed: int, count: int) -> dict[str, Steer]:
    return {"random": scripted(seed, count), "random and long": scripted(seed + 1, count, without=(STOP, SPEED))}


def _constant() -> dict[str, Steer]:
    """Every expert, always, with the shortest and the longest strides and everything else at its other end, too."""
    found: dict[str, Steer] = {}
    for expert, name in enumerate(EXPERTS):
        for end in (0, -1):
            action = np.array([range(limit)[end] for limit in ACTIONS])
            action[1] = expert
            found[f"always {name}, {action.tolist()}"] = _always(action)
    return found


def _always(action: np.ndarray, gates: np.ndarray | None = None) -> Steer:
    def steer(seen: np.ndarray, owner: np.ndarray, turn: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:  # noqa: ARG001
        return np.tile(action, (len(seen), 1)), None if gates is None else np.tile(gates, (len(seen), 1))

    return steer


def _no_decisions(bench: Bench) -> dict[str, Steer]:
    """Those whose decisions are none, so that static is what must come out."""
    adrift = STATIC.copy()
    adrift[0] = 0
    found = {
        "nan actions": _always(np.full(len(ACTIONS), np.nan)),
        "huge actions": _always(np.full(len(ACTIONS), 2**40)),
        "negative actions": _always(np.full(len(ACTIONS), -1)),
        "nan gates": _always(adrift, np.full(len(EXPERTS), np.nan)),
        "infinite gates": _always(adrift, np.full(len(EXPERTS), np.inf)),
        "negative gates": _always(adrift, np.full(len(EXPERTS), -1.0)),
    }
    controller = bench.subject.controller
    if controller is not None:
        broken = copy.deepcopy(controller)
        with torch.no_grad():
            for weight in broken.parameters():
                weight.fill_(torch.nan)
        found["nan weights"] = steered_by(broken)
    return found


BROKEN_NETWORK = Case(
    10,
    "nan and infinity",
    "The sample alone is reported as failed, with its last finite prediction if there was one; neighbours and their "
    "evaluations are as without it.",
    broken_network,
)


FALLING_LEVELS = Case(
    15,
    "noise levels fall",
    "Whatever is decided, levels fall strictly but for declared rises (10 or 25 %, twice at most), reach 0 unless the "
    "student ends the request, and all requests end.",
    falling_levels,
)


ADVERSARIAL = Case(
    16,
    "adversarial controllers",
    "With random and constant decisions samples are finite and within budget; decisions that are none make what static "
    "makes and are counted; wrong shapes are refused.",
    adversarial_controllers,
)
