"""Robustness of sameness: batch, run, process, thread, file, type, device and schedule change nothing."""

from __future__ import annotations

import copy
import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from vernissage.core.seeds import numpy_generator
from vernissage.core.weights import load_weights, save_weights
from vernissage.sampler.domain.denoiser import ClassLabels
from vernissage.sampler.domain.programs import Program
from vernissage.sampler.domain.sampling import run_program
from vernissage.sampler.domain.training_schedule import TrainingSchedule
from vernissage.sampler.domain.unet import EdmDenoiser
from vernissage.sampler.judge.runs import Answers, Run, Steer, Tasks, scripted, static_steer
from vernissage.sampler.judge.trials import Bench, Case, Outcome, gaps
from vernissage.sampler.learn.slots import Slots

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vernissage.sampler.learn.book import Entry

_FEW, _MORE, _MOST = 5, 16, 64
_CLOSE = 1e-3
_HIGH_PRICE = 0.1
_PROCESS_SECONDS, _LOG = 120, "elsewhere.log"
#: Another device computes with other roundings, which grow along the way.
_DEVICE_SHARE = 0.1


def batch_sizes(bench: Bench) -> Outcome:
    """Answer requests alone, seven at a time, 64 at a time and in another order."""
    tasks = bench.tasks.rows(range(min(_MOST, len(bench.tasks))))
    count, worst = len(tasks), 0.0
    order = numpy_generator(bench.seed, "order").permutation(count)
    for name, steer in (("ours", bench.steer), ("script", scripted(bench.seed, count))):
        whole = bench.ours(tasks, steer=steer)
        for size, rows in ((1, range(_FEW // 2)), (7, range(min(3 * 7, count))), (count, order.tolist())):
            part = bench.ours(tasks.rows(rows), steer=_renumbered(steer, rows), size=size)
            worst = max(worst, float(gaps(part.samples, whole.samples[list(rows)]).max()))
            if worst > bench.rounding or not torch.equal(part.evaluations, whole.evaluations[list(rows)]):
                return Outcome(passed=False, value=worst, note=f"{name}: {size} at a time differ from {count}")
    draw = bench.subject.draw
    if draw is not None:
        labels = (tasks.requests.labels[:_FEW]).tolist()
        together = draw(labels, range(_FEW), price=0.02, scale=1.0)
        alone = [draw([label], [seed], price=0.02, scale=1.0).sample for seed, label in enumerate(labels)]
        worst = max(worst, float(gaps(torch.cat(alone), together.sample).max()))
    return Outcome(worst <= bench.rounding, worst)


def same_again(bench: Bench) -> Outcome:
    """Run again, with another number of threads, and in another process from files."""
    tasks = bench.tasks.rows(range(min(_MORE, len(bench.tasks))))
    steers = {"ours": bench.steer, "script": scripted(bench.seed, len(tasks))}
    first = {name: bench.ours(tasks, steer=steer) for name, steer in steers.items()}
    process = _another_process(bench, tasks)
    try:
        for name, steer in steers.items():
            again = bench.ours(tasks, steer=steer)
            if not _identical(first[name], again):
                return Outcome(passed=False, note=f"{name}: a second run differs")
        worst = _with_other_threads(bench)
        if worst > bench.rounding:
            return Outcome(passed=False, value=worst, note="another number of threads makes a difference")
        draw = bench.subject.draw
        if draw is not None:
            one, other = (draw([0, 0], [5, 6], price=0.02, scale=1.0).sample for _ in range(2))
            if not torch.equal(one, other):
                return Outcome(passed=False, value=worst, note="drawing twice differs")
        if process is None:
            return Outcome(passed=True, value=worst, note="this network cannot be saved: no other process was tried")
        process.wait(timeout=_PROCESS_SECONDS)
        if process.returncode:
            return Outcome(passed=False, value=worst, note=f"another process: {_last_line(bench.folder / _LOG)}")
        elsewhere = load_weights(bench.folder / "elsewhere", name="answers")[0]
        found = first["ours"]
        here = {"samples": found.samples.cpu(), "evaluations": found.evaluations}
        differ = [name for name, tensor in here.items() if not torch.equal(tensor, elsewhere[name])]
        return Outcome(not differ, worst, note=f"another process differs in {', '.join(differ)}" if differ else "")
    finally:
        if process is not None and process.poll() is None:
            process.kill()
            process.wait()


def nothing_stale(bench: Bench) -> Outcome:
    """Use slots again in the middle of other requests, two at a time, and in two threads."""
    tasks = bench.tasks.rows(range(min(_MORE, len(bench.tasks))))
    other = bench.tasks.rows(list(range(len(tasks)))[::-1])
    script = scripted(bench.seed, len(tasks))
    alone = bench.ours(tasks, steer=script), bench.ours(other)
    left = Run(bench.subject, other, scripted(bench.seed + 1, len(tasks)))
    left.turn()
    left.turn()
    again = Run(bench.subject, tasks, script, slots=left.slots).finish()
    worst = float(gaps(again.samples, alone[0].samples).max())
    if worst > bench.rounding or not torch.equal(again.evaluations, alone[0].evaluations):
        return Outcome(passed=False, value=worst, note="slots left in the middle of other requests remember them")
    runs = Run(bench.subject, tasks, script), Run(bench.subject, other, bench.steer)
    # Not `any`: both must have their turn.
    while sum([run.turn() for run in runs]):
        pass
    if not all(_identical(run.answers(), expected) for run, expected in zip(runs, alone, strict=True)):
        return Outcome(passed=False, note="two samplers that take turns disturb each other")
    with ThreadPoolExecutor(max_workers=2) as pool:
        started = [pool.submit(bench.ours, tasks, steer=script), pool.submit(bench.ours, other)]
        found = [future.result() for future in started]
    if not all(_identical(made, expected) for made, expected in zip(found, alone, strict=True)):
        return Outcome(passed=False, note="two samplers in two threads disturb each other")
    forget = _schedulers_forget(bench)
    return Outcome(forget, worst, note="" if forget else "a scheduler remembers")


def types_devices_and_counts(bench: Bench) -> Outcome:
    """Move the network to another type and back, and to another device; ask for nothing, and for one."""
    subject, tasks = bench.subject, bench.tasks.rows(range(min(_MORE, len(bench.tasks))))
    clean = bench.clean.samples[: len(tasks)]
    nothing = tasks.rows([])
    made = bench.ours(nothing)
    program = subject.book.family(subject.book.shipped)[0].program
    static = run_program(subject.denoiser, nothing.requests.start, nothing.requests.asked, program)
    idle = Slots(subject.denoiser, subject.book, 2, device=tasks.requests.start.device)
    done = idle.act(static_steer(idle.observe(), np.full(2, -1), np.zeros(2))[0]).done
    if len(made.samples) or len(static.samples) or made.asked or idle.evaluations or done.any():
        return Outcome(passed=False, note="nothing was asked for, but something came out or was paid")
    worst = float(gaps(bench.ours(tasks.rows([0])).samples, clean[:1]).max())
    narrow = tasks.but(start=tasks.requests.start.half())
    wide = tasks.but(start=tasks.requests.start.half().double())
    worst = max(worst, float(gaps(bench.ours(narrow).samples, bench.ours(wide).samples).max()))
    moved: Any = copy.deepcopy(subject.denoiser)
    if isinstance(moved, nn.Module):
        worst = max(worst, float(gaps(bench.ours(tasks, denoiser=moved.double().float()).samples, clean).max()))
    if worst > bench.rounding:
        return Outcome(passed=False, value=worst, note="one alone, or a move to another type and back, differs")
    if not torch.cuda.is_available() or not isinstance(moved, nn.Module):
        return Outcome(passed=True, value=worst, note="no other device to move to")
    there = torch.device("cpu" if tasks.requests.start.is_cuda else "cuda")
    student: Any = copy.deepcopy(subject.student)
    student = student.to(there) if isinstance(student, nn.Module) else None
    elsewhere = replace(subject, student=student)
    network: Any = moved.to(there)
    made = Run(elsewhere, _moved(tasks, there), bench.steer, denoiser=network).finish()
    off = (made.samples.to(clean).double() - clean.double()).square().flatten(1).mean(dim=1).sqrt()
    share = float(off.median()) / subject.book.tau
    return Outcome(share <= _DEVICE_SHARE, worst, note=f"{there.type}: median difference {share:.4f} tau")


def schedule_round_trips(bench: Bench) -> Outcome:
    """Send programs through JSON, noise levels through timesteps, and back."""
    subject = bench.subject
    entries = subject.book.family(subject.book.shipped)
    for entry in entries:
        if Program.from_json(entry.program.to_json()) != entry.program:
            return Outcome(passed=False, note=f"{entry.program.name}: JSON changes it")
    make = subject.scheduler_from
    config = {"beta_schedule": "linear"} if make is None else dict(make(entries[0]).config)
    training = TrainingSchedule.from_config(config)
    times = torch.linspace(0, len(training) - 1, 301, dtype=training.log_sigmas.dtype)
    worst = float((training.timesteps_at(training.sigmas_at(times)) - times).abs().max()) / len(training)
    if make is None or worst > _CLOSE:
        return Outcome(worst <= _CLOSE, worst, note="no scheduler was given" if make is None else "training schedule")
    low, high = (float(end) for end in training.log_sigmas[[0, -1]].exp())
    for entry in entries:
        off, problem = _round_trip(make(entry), entry.program, low, high)
        worst = max(worst, off)
        if problem or worst > _CLOSE:
            return Outcome(passed=False, value=worst, note=f"{entry.program.name}: {problem or 'levels differ'}")
    for entry in {entry.calls: entry for entry in entries}.values():
        gap = _through_scheduler(bench, entry)
        if gap > bench.rounding:
            return Outcome(passed=False, value=gap, note=f"{entry.program.name}: the scheduler makes something else")
    return Outcome(passed=True, value=worst, note=f"{len(entries)} programs")


# --- parts ------------------------------------------------------------------------------------------------------------


def _identical(one: Answers, other: Answers) -> bool:
    """Whether two runs gave the same, bit for bit."""
    same = torch.equal(one.samples.nan_to_num(math.inf), other.samples.nan_to_num(math.inf))
    return same and torch.equal(one.evaluations, other.evaluations) and one.levels == other.levels


def _renumbered(steer: Steer, rows: Sequence[int]) -> Steer:
    """Steer a selection of requests as all of them are steered."""
    numbers = np.array([*rows, -1])

    def renumbered(seen: np.ndarray, owner: np.ndarray, turn: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        # -1 finds the -1 at the end.
        return steer(seen, numbers[owner], turn)

    return renumbered


def _with_other_threads(bench: Bench) -> float:
    """Largest difference that another number of threads makes; infinite where evaluations differ."""
    tasks = bench.tasks.rows(range(_FEW))
    # At a high price programs are short: a thread too many is slow where others need the cores.
    tasks = replace(tasks, prices=torch.full_like(tasks.prices, _HIGH_PRICE))
    first, before = bench.ours(tasks), torch.get_num_threads()
    torch.set_num_threads(1 if before > 1 else 2)
    try:
        made = bench.ours(tasks)
    finally:
        torch.set_num_threads(before)
    same = torch.equal(made.evaluations, first.evaluations)
    return float(gaps(made.samples, first.samples).max()) if same else math.inf


def _another_process(bench: Bench, tasks: Tasks) -> subprocess.Popen[bytes] | None:
    """Begin to answer requests in a fresh process from files; none for networks that cannot be saved."""
    subject, asked = bench.subject, tasks.requests.asked
    savable = type(subject.denoiser) is EdmDenoiser and isinstance(asked, ClassLabels)
    if not savable or not (subject.student is None or hasattr(subject.student, "save")):
        return None
    folder = bench.folder / "elsewhere"
    subject.denoiser.save(folder / "denoiser")  # type: ignore[attr-defined]
    subject.book.save(folder)
    if subject.controller is not None:
        subject.controller.save_pretrained(folder / "controller", safe_serialization=True)
    if subject.student is not None:
        subject.student.save(folder / "student")
    requests = tasks.requests
    tensors = {
        "start": requests.start, "labels": requests.labels, "scales": requests.scales, "prices": tasks.prices,
    }  # fmt: skip
    facts = {"threads": torch.get_num_threads(), "device": str(requests.start.device)}
    save_weights(folder, {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, facts, name="requests")
    command = [sys.executable, "-m", "vernissage.sampler.judge.elsewhere", str(folder)]
    with (bench.folder / _LOG).open("wb") as file:
        return subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=_environment())


def _environment() -> dict[str, str]:
    """Ours, so that a process that it starts finds the same modules."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def _last_line(path: Path) -> str:
    said = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return said[-1] if said else "it ended without a word"


def _moved(tasks: Tasks, device: torch.device) -> Tasks:
    asked: Any = tasks.requests.asked
    if isinstance(asked, ClassLabels):
        asked = ClassLabels(asked.labels.to(device))
    names = ("labels", "scales", "endpoints", "start")
    moved = {name: getattr(tasks.requests, name).to(device) for name in names}
    return replace(tasks.but(asked=asked, **moved), prices=tasks.prices.to(device))


def _schedulers_forget(bench: Bench) -> bool:
    """Whether schedulers that take turns, or are used again, do what fresh ones do."""
    make = bench.subject.scheduler_from
    if make is None:
        return True
    entry = bench.subject.book.family(bench.subject.book.shipped)[-1]
    one, other = bench.tasks.rows(range(_FEW)), bench.tasks.rows(range(_FEW, 2 * _FEW))
    expected = [list(_scheduled(bench, make(entry), entry, tasks))[-1] for tasks in (one, other)]
    schedulers = make(entry), make(entry)
    # One is used again after it was left in the middle.
    next(_scheduled(bench, schedulers[0], entry, other))
    ways = [
        _scheduled(bench, scheduler, entry, tasks) for scheduler, tasks in zip(schedulers, (one, other), strict=True)
    ]
    last = list(zip(*ways, strict=True))[-1]
    return all(torch.equal(made, wanted) for made, wanted in zip(last, expected, strict=True))


def _scheduled(bench: Bench, scheduler: Any, entry: Entry, tasks: Tasks) -> Any:
    """Yield the states of a loop as pipelines have it, without guidance, in float32."""
    denoiser, asked = bench.subject.denoiser, tasks.requests.asked
    scheduler.set_timesteps(entry.calls)
    state = tasks.requests.start * scheduler.init_noise_sigma
    kind = getattr(scheduler.config, "prediction_type", "epsilon")
    for level, time in zip(entry.program.asked, scheduler.timesteps, strict=True):
        root = math.sqrt(1 + level**2)
        x = state * root
        with torch.no_grad():
            seen = denoiser(x, torch.full((len(x),), level, device=x.device), asked)
        answer = {"epsilon": (x - seen) / level, "sample": seen, "v_prediction": (state / root - seen) * root / level}
        state = scheduler.step(answer[kind], time, state).prev_sample
        yield state


def _through_scheduler(bench: Bench, entry: Entry) -> float:
    """Largest difference between a scheduler's samples and those of its program."""
    make = bench.subject.scheduler_from
    if make is None or entry.program.corrections:
        return 0.0
    tasks = bench.tasks.rows(range(_FEW))
    made = list(_scheduled(bench, make(entry), entry, tasks))[-1]
    expected = run_program(bench.subject.denoiser, tasks.requests.start, tasks.requests.asked, entry.program)
    return float(gaps(made, expected.samples).max())


def _round_trip(scheduler: Any, program: Program, low: float, high: float) -> tuple[float, str]:
    """By how much noise levels differ after a way through timesteps, relatively; and what else is wrong."""
    scheduler.set_timesteps(program.evaluations)
    levels = torch.tensor(program.levels)
    sigmas, times = scheduler.sigmas[:-1].clone().cpu(), scheduler.timesteps.clone().cpu()
    off = float((sigmas / levels - 1).abs().max())
    if program.corrections:
        return off, ""
    if not bool((sigmas.diff() < 0).all()) or float(scheduler.sigmas[-1]) != 0:
        return off, "levels do not fall to 0"
    # Timesteps are those of the levels that the network is told.
    told = torch.tensor(program.asked)
    if not bool((told.diff() < 0).all()):
        return off, ""
    scheduler.set_timesteps(sigmas=[*program.asked, 0.0])
    if not torch.allclose(scheduler.timesteps.cpu().double(), times.double()):
        return off, "its levels, given as such, have other timesteps"
    # Beyond the training there is no timestep to come back from.
    inside = (told >= low) & (told <= high)
    if bool((times.diff() >= 0).any()):
        return off, "" if not bool(inside.all()) else "timesteps do not fall"
    scheduler.set_timesteps(timesteps=times.tolist())
    back = scheduler.sigmas[:-1].cpu()
    return max(off, float((back / told - 1).abs()[inside].max()) if bool(inside.any()) else 0.0), ""


BATCH_SIZES = Case(
    12,
    "alone or in a batch",
    "One, seven or 64 at a time and in any order, samples are equal within rounding and cost the same.",
    batch_sizes,
)
SAME_AGAIN = Case(
    13,
    "same again",
    "A second run, and another process that reads everything from files, give the same bit for bit; another number of "
    "threads within rounding.",
    same_again,
)
NOTHING_STALE = Case(
    14,
    "used again, by turns and in threads",
    "Two samplers that take turns, two in threads, and schedulers that are used again give the same bit for bit; slots "
    "that are used again, which keep predictions in another order, within rounding.",
    nothing_stale,
)
TYPES_AND_DEVICES = Case(
    19,
    "types, devices, none and one",
    "Nothing comes of no requests, one alone equals its row, a type and back changes nothing beyond rounding, another "
    "device at most a tenth of tau at the median.",
    types_devices_and_counts,
)
ROUND_TRIPS = Case(
    20,
    "schedules there and back",
    "Programs survive JSON bit for bit; levels come back from timesteps within 0.1 %, fall, and give the program's "
    "samples within rounding.",
    schedule_round_trips,
)
