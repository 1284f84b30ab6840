"""Puts the sampler to the test with awkward input; every case states its criterion before it runs."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from vernissage.core.parallel import threads_for_parts
from vernissage.core.seeds import derive_seed
from vernissage.sampler.judge import contract_cases, failure_cases, quality_cases, sameness_cases
from vernissage.sampler.judge.runs import Subject
from vernissage.sampler.judge.trials import Bench, Case, Outcome, RobustnessSettings, check_bank, set_up

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vernissage.core.progress import Progress

__all__ = ["CASES", "CaseResult", "RobustnessSettings", "Subject", "retained_quality", "run_cases"]

CASES: tuple[Case, ...] = (
    quality_cases.SCALED_START,
    quality_cases.SHIFTED_START,
    quality_cases.STRANGE_START,
    quality_cases.WRONG_SIGMA_MAX,
    quality_cases.STRANGE_GUIDANCE,
    contract_cases.STRANGE_CLASSES,
    quality_cases.MIXED_CONDITIONS,
    quality_cases.OTHER_WEIGHTS,
    quality_cases.NARROW_TYPES,
    failure_cases.BROKEN_NETWORK,
    contract_cases.BUDGETS,
    sameness_cases.BATCH_SIZES,
    sameness_cases.SAME_AGAIN,
    sameness_cases.NOTHING_STALE,
    failure_cases.FALLING_LEVELS,
    failure_cases.ADVERSARIAL,
    contract_cases.WRONG_SHAPES,
    quality_cases.OTHER_MIX,
    sameness_cases.TYPES_AND_DEVICES,
    sameness_cases.ROUND_TRIPS,
)


@dataclass(frozen=True)
class CaseResult:
    """One row of the table.

    Attributes:
        number: Of the case, 1 to 20.
        name: Its name.
        criterion: What had to hold.
        passed: Whether it does.
        value: The number that the criterion is about, where there is one.
        retained: Quality as a share of that in the normal case; none where the case is not about quality.
        note: What else a reader should know; for a case that broke, how.
    """

    number: int
    name: str
    criterion: str
    passed: bool
    value: float | None
    retained: float | None
    note: str


@torch.no_grad()
def run_cases(
    subject: Subject,
    settings: RobustnessSettings,
    progress: Progress | None = None,
    cases: Sequence[Case] = CASES,
) -> list[CaseResult]:
    """Run every case; a case that breaks has failed and never stops the others.

    Args:
        subject: What is put to the test; nothing of it is changed.
        settings: How.
        progress: Advanced by one for each case.
        cases: Which cases.

    Returns:
        One result for each case, in their order.

    Raises:
        BadInput: If the bank has too few requests.
    """
    check_bank(subject)
    # Pictures are small: two threads of one operation would wait for each other most of the time.
    with threads_for_parts():
        return _run(subject, settings, progress, cases)


def retained_quality(results: Sequence[CaseResult]) -> float | None:
    """Mean share of the quality that is retained, over the cases that are about quality; none without any."""
    shares = [result.retained for result in results if result.retained is not None]
    return sum(shares) / len(shares) if shares else None


def _run(
    subject: Subject, settings: RobustnessSettings, progress: Progress | None, cases: Sequence[Case]
) -> list[CaseResult]:
    bench: Bench | None = None
    results = []
    for case in cases:
        try:
            bench = bench or set_up(subject, settings)
            folder = subject.folder / f"{case.number:02}-{re.sub(r'[^a-z0-9]+', '-', case.name.lower()).strip('-')}"
            folder.mkdir(parents=True, exist_ok=True)
            seed = derive_seed(settings.seed, "robustness", case.number)
            outcome = case.run(replace(bench, folder=folder, seed=seed))
        except Exception as error:  # noqa: BLE001 - that the sampler breaks on some input is what the table has to say
            outcome = Outcome(passed=False, note=f"{type(error).__name__}: {' '.join(str(error).split())}")
        value, retained = (None if number is None else round(number, 6) for number in (outcome.value, outcome.retained))
        results.append(
            CaseResult(case.number, case.name, case.criterion, bool(outcome.passed), value, retained, outcome.note)
        )
        if progress is not None:
            progress.advance()
    return results
