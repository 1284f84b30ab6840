"""Robustness of promises: strange requests are refused, broken networks and controllers harm no neighbour, all ends."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from vernissage.core.errors import VernissageError
from vernissage.core.seeds import numpy_generator, torch_generator
from vernissage.sampler.domain.denoiser import NULL
from vernissage.sampler.domain.sampling import run_program
from vernissage.sampler.judge.probes import BrokenOnce
from vernissage.sampler.judge.trials import (
    Answers,
    Bench,
    Case,
    Outcome,
    Run,
    Steer,
    Tasks,
    fill,
    gaps,
    scripted,
    static_steer,
    steered_by,
)
from vernissage.sampler.learn.book import evaluations_of
from vernissage.sampler.learn.experts import ACTIONS, EXPERTS, MOST_RISES, SPEED, STATIC, STOP
from vernissage.sampler.learn.slots import Slots

if TYPE_CHECKING:
    from collections.abc import Callable

    from vernissage.sampler.domain.denoiser import Denoiser

_FEW, _MORE = 8, 16
_FAR = 1_000_000
_BUDGETS = (1, 2, 3, 64)
_SLACK = 1e-6
_HIGH_PRICE = 0.1


def complaint(call: Callable[[], object]) -> str:
    """What a call is refused with; empty where it is not. Any other error goes through."""
    try:
        call()
    except VernissageError as error:
        return str(error)
    return ""


def strange_classes(bench: Bench) -> Outcome:
    """Ask for classes that there are not, for none, and for one that was never learned."""
    subject, tasks = bench.subject, bench.tasks.rows(range(min(_MORE, len(bench.tasks))))
    asked = tasks.requests.asked
    if asked is None or not subject.classes:
        return Outcome(passed=True, note="this network knows no classes")
    run = Run(subject, tasks.rows(range(_FEW)), bench.steer)
    run.turn()
    for label in (subject.classes, _FAR, -2):

        def ask(label: int = label) -> None:
            strange = torch.full((1,), label, device=tasks.requests.labels.device)
            changed = tasks.rows([0]).but(labels=strange, asked=subject.conditions(strange))
            fill(run.slots, torch.tensor([0]), changed)

        message = complaint(ask)
        if str(label) not in message:
            return Outcome(passed=False, note=f"class {label}: {message or 'not refused'}")
        if subject.draw is not None:
            message = complaint(lambda label=label: subject.draw([label], [0], price=0.02, scale=1.0))  # type: ignore[misc]
            if str(label) not in message:
                return Outcome(passed=False, note=f"drawing class {label}: {message or 'not refused'}")
    gap = float(gaps(run.finish().samples, bench.clean.samples[:_FEW]).max())
    if gap > bench.rounding:
        return Outcome(passed=False, value=gap, note="requests under way changed when a strange class was refused")
    null = bench.with_reference(tasks.but(asked=asked.null(), labels=torch.full_like(tasks.requests.labels, NULL)))
    made = bench.ours(null)
    retained = bench.retained_of(float(bench.quality(made.samples, null).mean()), range(len(null)))
    unlearned = _with_unlearned_class(subject.denoiser, subject.classes, bench.seed)
    note = "no table of classes, so none without learning" if unlearned is None else ""
    finite = made.finite and (unlearned is None or bench.ours(tasks, denoiser=unlearned).finite)
    return Outcome(finite, gap, retained, note)


def broken_network(bench: Bench) -> Outcome:
    """Let the network answer one sample once with what is no number; start one sample from no number."""
    rows = range(min(_MORE, len(bench.tasks)))
    tasks, clean = bench.tasks.rows(rows), bench.clean.samples[list(rows)]
    spent, worst = bench.clean.evaluations[list(rows)], 0.0
    trials: list[tuple[str, int, Callable[[], Answers]]] = []
    for call, value in ((0, torch.nan), (1, torch.nan), (1, torch.inf)):
        broken = BrokenOnce(bench.subject.denoiser, call, value)
        trials.append((f"{value} at call {call}", call, lambda broken=broken: bench.ours(tasks, denoiser=broken)))  # type: ignore[misc]
    start = tasks.requests.start.clone()
    start[0] = torch.nan
    trials.append(("nan in a start", 0, lambda: bench.ours(tasks.but(start=start))))
    for name, call, run in trials:
        made = run()
        if made.failed.tolist() != [call, *[-1] * (len(tasks) - 1)] or made.reasons[0] != "failed":
            return Outcome(passed=False, note=f"{name}: failed {made.failed.tolist()}, reason {made.reasons[0]!r}")
        if bool(made.samples[0].isfinite().all()) != (call > 0):
            return Outcome(passed=False, note=f"{name}: the sample is not its last finite prediction")
        worst = max(worst, float(gaps(made.samples[1:], clean[1:]).max()))
        if worst > bench.rounding or not torch.equal(made.evaluations[1:], spent[1:]):
            return Outcome(passed=False, value=worst, note=f"{name}: neighbours changed")
    problem = _broken_student(bench, tasks)
    return Outcome(not problem, worst, note=problem)


def budgets(bench: Bench) -> Outcome:
    """Allow 1, 2, 3 and 64 evaluations, random numbers of them, and fewer than a call costs."""
    tasks = bench.tasks.rows(range(min(_MORE, len(bench.tasks))))
    least = torch.tensor([_first_cost(bench, tasks, row) for row in range(len(tasks))])
    drawn = torch.from_numpy(numpy_generator(bench.seed, "budgets").integers(2, 13, size=len(tasks)))
    good = []
    for budget in (*_BUDGETS, None):
        wanted = drawn if budget is None else torch.full((len(tasks),), budget)
        problem = _not_refused(bench, tasks, wanted, least)
        enough = (wanted >= least).nonzero().flatten()
        if len(enough) and not problem:
            problem, mine = _over_budget(bench, replace(tasks, budgets=wanted).rows(enough))
            good += [] if budget is None else [f"{budget}: {mine:.2f}"]
        if problem:
            return Outcome(passed=False, note=f"budget {budget or 'drawn'}: {problem}")
    for budget in (0, -1):
        problem = _not_refused(bench, tasks.rows([0]), torch.tensor([budget]), least[:1])
        if problem:
            return Outcome(passed=False, note=f"budget {budget}: {problem}")
    draw = bench.subject.draw
    if draw is not None:
        if not complaint(lambda: draw([0], [0], price=0.02, scale=1.0, budget=0)):
            return Outcome(passed=False, note="drawing with a budget of 0: not refused")
        if not complaint(lambda: draw([0], [0], price=-1.0, scale=1.0)):
            return Outcome(passed=False, note="drawing at a price of -1: not refused")
    return Outcome(passed=True, note=f"quality by budget {', '.join(good)}")


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
    rows = range(min(_MORE, len(bench.tasks)))
    tasks = bench.tasks.rows(rows)
    limits = torch.from_numpy(numpy_generator(bench.seed, "limits").integers(4, 17, size=len(tasks)))
    limited = replace(tasks, budgets=limits)
    # At high prices programs are short, and so is what is made of them.
    dear = replace(limited, prices=torch.full_like(tasks.prices, _HIGH_PRICE)).rows(rows[: _FEW // 2])
    trials = [(name, steer, limited) for name, steer in _ruthless(bench.seed, len(tasks)).items()]
    trials += [(name, steer, dear) for name, steer in _constant().items()]
    for name, steer, asked in trials:
        made = bench.ours(asked, steer=steer)
        if not made.finite or asked.budgets is None or bool((made.evaluations > asked.budgets).any()):
            return Outcome(passed=False, note=f"{name}: not finite, or over the budget")
    static = bench.ours(tasks, steer=static_steer)
    kept, worst = 1.0, 0.0
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
        if "expected" not in complaint(lambda run=run, wrong=wrong: run.slots.act(wrong)):  # type: ignore[misc]
            return Outcome(passed=False, note=f"actions of shape {wrong.shape}: not refused")
    return Outcome(passed=True, value=worst, retained=bench.retained_of(kept, rows))


def wrong_shapes(bench: Bench) -> Outcome:
    """Hand over grey for colour, another resolution, a missing dimension, whole numbers and too few of something."""
    subject, tasks = bench.subject, bench.tasks.rows([0, 1])
    start = tasks.requests.start
    channels = 3 if start.shape[1] == 1 else 1
    program = subject.book.family(subject.book.shipped)[0].program
    starts = {
        "grey or colour": start[:, :1].repeat(1, channels, 1, 1),
        "another height": torch.cat((start, start[:, :, :1]), dim=2),
        "three dimensions": start[:, 0],
        "whole numbers": start.long(),
    }
    asks: dict[str, Callable[[], Any]] = {}
    for name, wrong in starts.items():
        asks[name] = lambda wrong=wrong: _start(bench, tasks.but(start=wrong))
        if wrong.is_floating_point():
            asks[f"{name}, as a program"] = lambda wrong=wrong: run_program(
                subject.denoiser, wrong, tasks.requests.asked, program
            )
    for part in ("labels", "scales"):
        short = getattr(tasks.requests, part)[:1]
        asks[f"too few {part}"] = lambda part=part, short=short: _start(bench, tasks.but(**{part: short}))
    asks["too few prices"] = lambda: _start(bench, replace(tasks, prices=tasks.prices[:1]))
    asked = tasks.requests.asked
    if asked is not None:
        asks["too few conditions"] = lambda: _start(bench, tasks.but(asked=asked.rows(torch.tensor([0]))))
    channels, height, width = subject.denoiser.shape
    student: Any = SimpleNamespace(shape=(channels, height + 1, width), sigma_max=subject.denoiser.sigma_max)
    asks["a student of another size"] = lambda: Slots(subject.denoiser, subject.book, 1, student=student)
    for name, ask in asks.items():
        message = complaint(ask)
        if "expected" not in message and "as the denoiser" not in message and "made from it" not in message:
            return Outcome(passed=False, note=f"{name}: {message or 'not refused'}")
    return Outcome(passed=True, value=float(len(asks)), note=f"{len(asks)} mistakes refused")


# --- parts ------------------------------------------------------------------------------------------------------------


def _start(bench: Bench, tasks: Tasks) -> None:
    """Put requests into fresh slots."""
    slots = Slots(bench.subject.denoiser, bench.subject.book, max(1, len(tasks)), device=tasks.requests.start.device)
    fill(slots, torch.arange(len(tasks)), tasks)


def _first_cost(bench: Bench, tasks: Tasks, row: int) -> int:
    """Evaluations of the first call of a request's static program."""
    scale = float(tasks.requests.scales[row])
    entry = bench.subject.book.for_price(float(tasks.prices[row]), scale)
    return evaluations_of(1 + (scale - 1) * entry.shares[0])


def _not_refused(bench: Bench, tasks: Tasks, wanted: torch.Tensor, least: torch.Tensor) -> str:
    """What is wrong with how budgets below the first call's cost are refused; two of them are tried."""
    for row in (wanted < least).nonzero().flatten().tolist()[:2]:
        one = replace(tasks, budgets=wanted).rows([row])
        message = complaint(lambda one=one: _start(bench, one))  # type: ignore[misc]
        if f"at least {int(least[row])}" not in message:
            return message or "not refused"
    return ""


def _over_budget(bench: Bench, tasks: Tasks) -> tuple[str, float]:
    """What is wrong with how requests keep their budgets, and the mean quality of ours."""
    script = scripted(bench.seed, len(tasks), without=(STOP,))
    mine = 0.0
    for name, steer in (("script", script), ("static", static_steer), ("ours", bench.steer)):
        made = bench.ours(tasks, steer=steer)
        if not made.finite or tasks.budgets is None or bool((made.evaluations > tasks.budgets).any()):
            return f"{name} takes {made.evaluations.tolist()}", mine
        if int(made.evaluations.sum()) != made.asked:
            return f"{name} charges {int(made.evaluations.sum())}, networks were asked for {made.asked}", mine
        mine = float(bench.quality(made.samples, tasks).mean())
    return "", mine


def _with_unlearned_class(denoiser: Denoiser, classes: int, seed: int) -> Denoiser | None:
    """A copy with random numbers for all classes; none where there is no table of them."""
    if not isinstance(denoiser, nn.Module):
        return None
    made: Any = copy.deepcopy(denoiser)
    tables = [part for part in made.modules() if isinstance(part, nn.Embedding) and part.num_embeddings >= classes]
    if not tables:
        return None
    generator = torch_generator(seed, "classes")
    for table in tables:
        weight = table.weight.data[:classes]
        weight.copy_(weight.std() * torch.randn(weight.shape, generator=generator).to(weight))
    return made  # type: ignore[no-any-return]


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


STRANGE_CLASSES = Case(
    6,
    "strange classes",
    "Classes that there are not are refused by number, and requests under way stay as they are; no class and a class "
    "that was never learned give finite samples.",
    strange_classes,
)
BROKEN_NETWORK = Case(
    10,
    "nan and infinity",
    "The sample alone is reported as failed, with its last finite prediction if there was one; neighbours and their "
    "evaluations are as without it.",
    broken_network,
)
BUDGETS = Case(
    11,
    "budgets 1, 2, 3, 64 and too small",
    "No request takes more than its budget, all are finite, charges are what networks were asked; a budget below the "
    "first call is refused and the least one is named.",
    budgets,
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
WRONG_SHAPES = Case(17, "wrong shapes", "Each is refused with what was found and what is expected.", wrong_shapes)
