"""Robustness of promises: requests that cannot be are refused in words, and budgets are kept."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from vernissage.core.errors import VernissageError
from vernissage.core.seeds import numpy_generator, torch_generator
from vernissage.sampler.domain.denoiser import NULL
from vernissage.sampler.domain.sampling import run_program
from vernissage.sampler.judge.runs import Run, Tasks, fill, scripted, static_steer
from vernissage.sampler.judge.trials import Bench, Case, Outcome, gaps
from vernissage.sampler.learn.book import evaluations_of
from vernissage.sampler.learn.experts import STOP
from vernissage.sampler.learn.slots import Slots

if TYPE_CHECKING:
    from collections.abc import Callable

    from vernissage.sampler.domain.denoiser import Denoiser

_FEW, _MORE = 8, 16
_FAR = 1_000_000
_BUDGETS = (1, 2, 3, 64)


def complaint(call: Callable[..., object], *told: Any, **options: Any) -> str:
    """What a call is refused with; empty where it is not. Any other error goes through."""
    try:
        call(*told, **options)
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
        ways: dict[str, Callable[[], object]] = {"": partial(_ask_for, bench, run, label)}
        if subject.draw is not None:
            ways["drawing "] = partial(subject.draw, [label], [0], price=0.02, scale=1.0)
        for way, ask in ways.items():
            message = complaint(ask)
            if str(label) not in message:
                return Outcome(passed=False, note=f"{way}class {label}: {message or 'not refused'}")
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
        if not complaint(draw, [0], [0], price=0.02, scale=1.0, budget=0):
            return Outcome(passed=False, note="drawing with a budget of 0: not refused")
        if not complaint(draw, [0], [0], price=-1.0, scale=1.0):
            return Outcome(passed=False, note="drawing at a price of -1: not refused")
        spent = int(draw([0], [0], price=0.0, scale=1.0, budget=_BUDGETS[2]).nfe.max())
        if spent > _BUDGETS[2]:
            return Outcome(passed=False, note=f"drawing takes {spent} of {_BUDGETS[2]} evaluations")
    return Outcome(passed=True, note=f"quality by budget {', '.join(good)}")


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
    asks: dict[str, Callable[[], object]] = {}
    for name, wrong in starts.items():
        asks[name] = partial(_start, bench, tasks.but(start=wrong))
        if wrong.is_floating_point():
            asks[f"{name}, as a program"] = partial(run_program, subject.denoiser, wrong, tasks.requests.asked, program)
    for part in ("labels", "scales"):
        short = {part: getattr(tasks.requests, part)[:1]}
        asks[f"too few {part}"] = partial(_start, bench, tasks.but(**short))
    asks["too few prices"] = partial(_start, bench, replace(tasks, prices=tasks.prices[:1]))
    asked = tasks.requests.asked
    if asked is not None:
        asks["too few conditions"] = partial(_start, bench, tasks.but(asked=asked.rows(torch.tensor([0]))))
    channels, height, width = subject.denoiser.shape
    student: Any = SimpleNamespace(shape=(channels, height + 1, width), sigma_max=subject.denoiser.sigma_max)
    asks["a student of another size"] = partial(Slots, subject.denoiser, subject.book, 1, student=student)
    for name, ask in asks.items():
        message = complaint(ask)
        if "expected" not in message and "as the denoiser" not in message and "made from it" not in message:
            return Outcome(passed=False, note=f"{name}: {message or 'not refused'}")
    return Outcome(passed=True, value=float(len(asks)), note=f"{len(asks)} mistakes refused")


def _ask_for(bench: Bench, run: Run, label: int) -> None:
    """Put a request for a class into slots that are under way."""
    labels = torch.full((1,), label, device=bench.tasks.requests.labels.device)
    changed = bench.tasks.rows([0]).but(labels=labels, asked=bench.subject.conditions(labels))
    fill(run.slots, torch.tensor([0]), changed)


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
        message = complaint(_start, bench, replace(tasks, budgets=wanted).rows([row]))
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
    return made


STRANGE_CLASSES = Case(
    6,
    "strange classes",
    "Classes that there are not are refused by number, and requests under way stay as they are; no class and a class "
    "that was never learned give finite samples.",
    strange_classes,
)


BUDGETS = Case(
    11,
    "budgets 1, 2, 3, 64 and too small",
    "No request takes more than its budget, all are finite, charges are what networks were asked; a budget below the "
    "first call is refused and the least one is named.",
    budgets,
)


WRONG_SHAPES = Case(17, "wrong shapes", "Each is refused with what was found and what is expected.", wrong_shapes)
