"""Makes the book of programs: grid, fitted noise levels, fitted coefficients, one for each guidance, less guidance.

Each step starts from what the one before has found and keeps it where nothing is better on validation requests. Numbers
of network calls are independent of each other: they are worked on side by side, one thread each, and those that are
done are kept in the scratch folder, so that a training that was killed goes on with the next.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
import torch

from vernissage.core.errors import BadInput, BadParams, VernissageError
from vernissage.core.files import atomic_write_json, read_json
from vernissage.core.parallel import in_parts
from vernissage.core.progress import Progress
from vernissage.sampler.learn.book import Entry, ProgramBook
from vernissage.sampler.learn.fitting import FitSettings, fit_coefficients, fit_sigmas
from vernissage.sampler.learn.grid import (
    Course,
    GridSearch,
    Pairs,
    reported,
    solver_of,
    tune_grid,
    usual_tau,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from vernissage.sampler.domain.denoiser import Denoiser
    from vernissage.sampler.domain.programs import Program
    from vernissage.sampler.learn.grid import GridRow, Score

log = logging.getLogger(__name__)

_BOOK_FORMAT = 1
# Requests that decide which calls go without guidance.
_MASK_PAIRS = 64


class Requests(Pairs, Protocol):
    """Pairs of noise and endpoint of which some can be picked out, as a bank of the teacher has them."""

    def rows(self, index: torch.Tensor) -> Self:
        """Some requests, by (N,) bool."""
        ...


@dataclass(frozen=True)
class BookMaking:
    """How much work a book is.

    Attributes:
        budgets: Numbers of network calls that there shall be programs for.
        grid: How thoroughly the grid is searched.
        grid_pairs: Requests that the grid is searched on, the first ones.
        sigma_steps: Updates that fit the noise levels.
        coefficient_steps: Updates that fit all coefficients, for all guidance scales together.
        guidance_steps: Updates that fit them for each guidance scale by itself; 0 leaves that out.
        less_guidance_steps: Updates that fit them once more, with the guidance of some calls left out where that pays.
        batch: Pairs per update.
        recompute: See :class:`vernissage.sampler.learn.fitting.FitSettings`.
        call_batch: Samples that go through the network at once where nothing is fitted.
        seed: Root of all randomness.

    Raises:
        BadParams: If there are no budgets or one is below 2.
    """

    budgets: tuple[int, ...] = (3, 4, 5, 6, 8)
    grid: GridSearch = field(default_factory=GridSearch)
    grid_pairs: int = 192
    sigma_steps: int = 20
    coefficient_steps: int = 60
    guidance_steps: int = 0
    less_guidance_steps: int = 20
    batch: int = 32
    recompute: bool = False
    call_batch: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.budgets or min(self.budgets) < 2 or len(set(self.budgets)) != len(self.budgets):
            raise BadParams(f"programs: budgets {self.budgets}, expected different numbers of network calls from 2")

    def fit(self, steps: int) -> FitSettings:
        """Settings of one fit."""
        return FitSettings(
            steps=steps,
            batch=self.batch,
            looks=max(2, min(20, steps // 15)),
            recompute=self.recompute,
            validation_batch=self.call_batch,
            seed=self.seed,
        )


def make_book(
    denoiser: Denoiser,
    train: Requests,
    val: Requests,
    settings: BookMaking,
    scratch: Path,
    beside: Sequence[Callable[[], None]] = (),
) -> tuple[ProgramBook, list[dict[str, Any]]]:
    """Search and fit programs.

    Args:
        denoiser: The network; differentiable in state and noise level.
        train: Requests to tune and fit on.
        val: Requests that decide between what was found.
        settings: How much work to do.
        scratch: Folder of this training; programs that are there already are not made again.
        beside: Other work, done meanwhile on a thread of its own.

    Returns:
        The book, and one row for each entry with what its fit did, for a table.

    Raises:
        BadInput: If there are no requests, or a guidance scale occurs in one part only.
        VernissageError: If the network cannot be differentiated.
    """
    scales = sorted(set(train.scales.tolist()))
    if sorted(set(val.scales.tolist())) != scales:
        raise BadInput(
            f"requests: guidance scales {scales} to fit on and {sorted(set(val.scales.tolist()))} to choose by, "
            "expected the same ones; make a bank with more requests"
        )
    tau = usual_tau(denoiser, train, batch=settings.call_batch)
    # The longest first, so that no thread is left alone with them.
    budgets = sorted(settings.budgets, reverse=True)
    threads = None if train.endpoints.device.type == "cpu" else 1
    with Progress("programs", total=sum(budgets), unit="network calls") as progress:

        def programs(calls: int) -> list[Entry]:
            made = _of_budget(denoiser, train, val, scales, calls, tau, settings, scratch)
            progress.advance(calls)
            return made

        def other(work: Callable[[], None]) -> list[Entry]:
            work()
            return []

        jobs = [*(partial(other, work) for work in beside), *(partial(programs, calls) for calls in budgets)]
        done = in_parts(lambda rows: [job() for job in jobs[rows]], len(jobs), 1, threads=threads)
    entries = [entry for part in done for made in part for entry in made]
    entries.sort(key=lambda entry: (entry.calls, entry.scale))
    shipped = "less guidance" if any(entry.made_by == "less guidance" for entry in entries) else "fitted coefficients"
    return ProgramBook(tuple(entries), tau, shipped), [_row(entry) for entry in entries]


def _of_budget(
    denoiser: Denoiser,
    train: Requests,
    val: Requests,
    scales: Sequence[float],
    calls: int,
    tau: float,
    settings: BookMaking,
    scratch: Path,
) -> list[Entry]:
    """Entries with one number of calls, from the scratch folder where they are there."""
    kept = scratch / f"programs-{calls}.json"
    if kept.is_file():
        try:
            document = read_json(kept)
            if document["format"] == _BOOK_FORMAT:
                return [Entry.from_dict(entry) for entry in document["entries"]]
        except (KeyError, TypeError, ValueError, VernissageError) as error:
            log.warning("%s is not usable (%s); these programs are made again", kept, error)
    entries = _Maker(denoiser, train, val, scales, calls, tau, settings).entries()
    atomic_write_json(kept, {"format": _BOOK_FORMAT, "entries": [entry.to_dict() for entry in entries]})
    return entries


class _Maker:
    """The work for one number of calls."""

    def __init__(
        self,
        denoiser: Denoiser,
        train: Requests,
        val: Requests,
        scales: Sequence[float],
        calls: int,
        tau: float,
        settings: BookMaking,
    ) -> None:
        self.denoiser, self.calls, self.tau, self.settings, self.scales = denoiser, calls, tau, settings, scales
        self.train, self.val = train, val
        self.train_of = {scale: train.rows(train.scales == scale) for scale in scales}
        self.val_of = {scale: val.rows(val.scales == scale) for scale in scales}

    def entries(self) -> list[Entry]:
        settings, network = self.settings, self.denoiser
        tuned_on = self.train.rows(torch.arange(len(self.train)) < settings.grid_pairs)
        found = tune_grid(network, tuned_on, self.calls, settings.grid, tau=self.tau)
        entries = [self._best_of_grid(found, tuned_on, scale) for scale in self.scales]

        best = found[0]
        program = best.program
        if best.solver != "stock":
            solver = solver_of(best.solver, best.ending)
            fit = settings.fit(settings.sigma_steps)
            program = fit_sigmas(network, self.train, self.val, program, solver, fit, tau=self.tau).program
        entries += self._for_all(program, "fitted sigmas")
        fit = settings.fit(settings.coefficient_steps)
        program = fit_coefficients(network, self.train, self.val, program, fit, tau=self.tau).program
        entries += self._for_all(program, "fitted coefficients")
        if list(self.scales) == [1.0]:
            return entries
        shared = entries[-len(self.scales) :]
        if settings.guidance_steps:
            steps = settings.guidance_steps
            shared = [self._fitted_again(entry, entry.shares, steps, "per guidance") for entry in shared]
            entries += shared
        return [*entries, *map(self._less_guidance, shared)]

    def _for_all(self, program: Program, made_by: str) -> list[Entry]:
        """One program as the entry of every scale."""
        return [self._entry(program, scale, (1.0,) * self.calls, made_by) for scale in self.scales]

    def _entry(self, program: Program, scale: float, shares: Sequence[float], made_by: str) -> Entry:
        return Entry(program, scale, tuple(shares), made_by, self._scores([program], self.val_of[scale], shares)[0])

    def _scores(self, programs: Sequence[Program], pairs: Pairs, shares: Sequence[float]) -> list[Score]:
        course = Course(self.denoiser, pairs, self.tau, shares=shares, batch=self.settings.call_batch)
        return course.scores(programs)

    def _best_of_grid(self, found: Sequence[GridRow], tuned_on: Requests, scale: float) -> Entry:
        """The grid's finalist that is best with this scale: a user would choose so, too."""
        finalists = [row.program for row in found if row.score.pairs == found[0].score.pairs]
        own = tuned_on.rows(tuned_on.scales == scale)
        scores = self._scores(finalists, own if len(own) else self.train_of[scale], (1.0,) * self.calls)
        best = min(range(len(finalists)), key=lambda place: reported(scores[place]))
        return self._entry(finalists[best], scale, (1.0,) * self.calls, "grid")

    def _fitted_again(self, entry: Entry, shares: Sequence[float], steps: int, made_by: str) -> Entry:
        """Fit an entry's program to its own scale with some shares of guidance."""
        train, val, fit = self.train_of[entry.scale], self.val_of[entry.scale], self.settings.fit(steps)
        fitted = fit_coefficients(self.denoiser, train, val, entry.program, fit, tau=self.tau, shares=shares)
        return Entry(fitted.program, entry.scale, tuple(shares), made_by, fitted.after)

    def _less_guidance(self, entry: Entry) -> Entry:
        """Leave the guidance of some calls out where that saves more evaluations than the error is worth.

        What an error is worth in evaluations cannot be read off one number of calls: on the networks that were looked
        at, errors fall about as the square of the evaluations, and so they are weighed.
        """
        masks = [entry.shares] if entry.scale in (0.0, 1.0) else [entry.shares, *_masks(self.calls)]
        train = self.train_of[entry.scale]
        train = train.rows(torch.arange(len(train)) < _MASK_PAIRS)
        worth = [_worth(self._scores([entry.program], train, mask)[0], mask) for mask in masks]
        best = masks[min(range(len(masks)), key=worth.__getitem__)]
        candidate = self._fitted_again(entry, best, self.settings.less_guidance_steps, "less guidance")
        better = _worth(candidate.score, candidate.shares) <= _worth(entry.score, entry.shares)
        return candidate if better else replace(entry, made_by="less guidance")


def _masks(calls: int) -> list[tuple[float, ...]]:
    """Which calls obey guidance: not the last ones, and of long programs not the first one either."""
    masks = [(1.0,) * (calls - dropped) + (0.0,) * dropped for dropped in range(1, max(1, math.ceil(calls / 2)) + 1)]
    if calls >= 6:
        masks += [(0.0, *mask[1:]) for mask in masks]
    return masks


def _worth(score: Score, shares: Sequence[float]) -> float:
    """Error times the square of the evaluations, as a logarithm; less is better."""
    evaluations = sum(1 + (share != 0) for share in shares)
    return math.log(max(score.mean, 1e-12)) + 2 * math.log(evaluations)


def _row(entry: Entry) -> dict[str, Any]:
    score: Mapping[str, float] = vars(entry.score)
    finite = {key: value if math.isfinite(value) else None for key, value in score.items()}
    return {
        "made_by": entry.made_by,
        "program": entry.program.name,
        "scale": entry.scale,
        "calls": entry.calls,
        "nfe": entry.nfe(),
        "sigma_max": entry.program.sigmas[0],
        "sigma_min": entry.program.sigmas[-2],
        "inconsistency": float(np.abs(entry.program.inconsistency()).max()),
        **finite,
    }
