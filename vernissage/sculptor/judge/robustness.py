"""Puts the sculptor to the test with awkward input; every case states its criterion before it runs."""

from __future__ import annotations

import re
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from vernissage.core.parallel import threads_for_parts
from vernissage.core.seeds import derive_seed
from vernissage.sculptor.judge import file_cases, measure_cases, prompt_cases, request_cases, training_cases
from vernissage.sculptor.judge.trials import Bench, Case, Outcome, RobustnessSettings, set_up

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vernissage.core.progress import Progress
    from vernissage.sculptor.domain.dataset import Dataset
    from vernissage.sculptor.learn.model import Sculptor
    from vernissage.sculptor.learn.training import SculptorTraining

__all__ = ["CASES", "CaseResult", "RobustnessSettings", "retained_quality", "rows_of", "run_robustness"]

CASES: tuple[Case, ...] = (
    prompt_cases.EMPTY,
    prompt_cases.UNSEEN,
    prompt_cases.CONTRADICTIONS,
    prompt_cases.ODD_TEXT,
    request_cases.STEPS,
    request_cases.GUIDANCE,
    request_cases.SAMENESS,
    request_cases.MANY,
    request_cases.ODD_SIZES,
    training_cases.RESUME,
    file_cases.DAMAGED_MODELS,
    file_cases.IMPORT,
    file_cases.EXPORT,
    file_cases.NOTHING_BUILT,
    request_cases.FIXED_BLOCKS,
    training_cases.ODD_FOLDERS,
    training_cases.INTERRUPTIONS,
    measure_cases.LEAKS,
    measure_cases.SHUFFLED,
    measure_cases.SCRAMBLED,
)


@dataclass(frozen=True)
class CaseResult:
    """One row of the table.

    Attributes:
        number: Of the case, 1 to 20.
        name: Its name.
        criterion: What had to hold.
        passed: Whether it does.
        retained: Mean connectivity as a share of that of the plain prompt; None where the case is not about it.
        found: What was found; for a case that broke, how.
    """

    number: int
    name: str
    criterion: str
    passed: bool
    retained: float | None
    found: str


def run_robustness(
    sculptor: Sculptor,
    dataset: Dataset,
    settings: RobustnessSettings | None = None,
    *,
    training: SculptorTraining,
    folder: Path | None = None,
    progress: Progress | None = None,
    cases: Sequence[Case] = CASES,
) -> list[CaseResult]:
    """Run every case; a case that breaks has failed and never stops the others.

    Args:
        sculptor: What is put to the test; nothing of it is changed.
        dataset: What it was trained on, with its held-out structures.
        settings: How the cases are run.
        training: How the sculptor was trained.
        folder: For files that cases make; without it a temporary one, which is removed.
        progress: Advanced by one for each case.
        cases: Which cases.

    Returns:
        One result for each case, in their order.
    """
    with tempfile.TemporaryDirectory(prefix="robustness-") as scratch, threads_for_parts():
        torch.set_flush_denormal(True)
        place = Path(scratch) if folder is None else folder
        bench: Bench | None = None
        results = []
        for case in cases:
            try:
                bench = bench or set_up(sculptor, dataset, training, settings or RobustnessSettings(), place)
                outcome = case.run(_own(bench, case, place))
            except Exception as error:  # noqa: BLE001 - that the sculptor breaks on some input is what the table has to say
                outcome = Outcome(passed=False, found=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
            retained = None if outcome.retained is None else round(outcome.retained, 6)
            results.append(
                CaseResult(case.number, case.name, case.criterion, bool(outcome.passed), retained, outcome.found)
            )
            if progress is not None:
                progress.advance()
    return results


def retained_quality(results: Sequence[CaseResult]) -> float | None:
    """Mean share of the quality that is retained, over the cases that have one; None without any."""
    shares = [result.retained for result in results if result.retained is not None]
    return sum(shares) / len(shares) if shares else None


def rows_of(results: Sequence[CaseResult]) -> list[dict[str, Any]]:
    """The results as rows of a table; what has no number is empty."""
    return [asdict(result) | {"retained": "" if result.retained is None else result.retained} for result in results]


def _own(bench: Bench, case: Case, place: Path) -> Bench:
    """The bench with a folder and a seed of one case."""
    folder = place / f"{case.number:02}-{re.sub(r'[^a-z0-9]+', '-', case.name.lower()).strip('-')}"
    folder.mkdir(parents=True, exist_ok=True)
    return replace(bench, folder=folder, seed=derive_seed(bench.settings.seed, "robustness", case.number))
