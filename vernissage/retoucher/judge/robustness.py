"""Puts the agent to the test with awkward input; every case states its criterion before it runs."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from vernissage.core.errors import BadInput
from vernissage.core.seeds import numpy_generator
from vernissage.retoucher.judge.file_cases import FILE_CASES
from vernissage.retoucher.judge.picture_cases import PICTURE_CASES
from vernissage.retoucher.judge.trials import Bench, Case, Outcome, set_up

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np

    from vernissage.core.progress import Progress
    from vernissage.retoucher.learn.juror import Juror
    from vernissage.retoucher.learn.network import PolicyNet

CASES: tuple[Case, ...] = (*FILE_CASES, *PICTURE_CASES)


@dataclass(frozen=True)
class CaseResult:
    """One row of the table.

    Attributes:
        name: Name of the case.
        criterion: What had to hold.
        passed: Whether it does.
        value: The number that the criterion is about, where there is one.
        retained: Gain in PSNR as a share of the gain in the normal case, where that makes sense; 1 is as good.
        note: What else a reader should know; for a case that broke, how.
    """

    name: str
    criterion: str
    passed: bool
    value: float | None
    retained: float | None
    note: str


@torch.no_grad()
def run_cases(
    network: PolicyNet,
    juror: Juror,
    photos: Sequence[torch.Tensor],
    scratch: Path,
    rng: np.random.Generator,
    progress: Progress | None = None,
    cases: Sequence[Case] = CASES,
) -> list[CaseResult]:
    """Run every case; a case that breaks has failed and never stops the others.

    Args:
        network: The agent.
        juror: Scores pictures.
        photos: Photos that nothing learned from, (1, 3, H, W) float in [0, 1] each, of any sizes.
        scratch: Folder for the files that cases write.
        rng: Source of randomness; every case gets its own, so none depends on which others run.
        progress: Advanced by one for each case.
        cases: Which cases.

    Returns:
        One result for each case, in their order.

    Raises:
        BadInput: If there are no photos.
    """
    if not photos:
        raise BadInput("robustness: got no photos, expected some of the test split")
    bench = set_up(network, juror, photos, scratch, rng)
    seed, results = int(rng.integers(2**63)), []
    for case in cases:
        folder = scratch / re.sub(r"\W+", "-", case.name)
        folder.mkdir(parents=True, exist_ok=True)
        results.append(_run(case, replace(bench, folder=folder, rng=numpy_generator(seed, case.name))))
        if progress is not None:
            progress.advance()
    return results


def _run(case: Case, bench: Bench) -> CaseResult:
    try:
        outcome = case.run(bench)
    except Exception as error:  # noqa: BLE001 - that the agent breaks on some input is what the table has to say
        outcome = Outcome(passed=False, note=f"{type(error).__name__}: {' '.join(str(error).split())}")
    value, retained = (None if number is None else round(number, 4) for number in (outcome.value, outcome.retained))
    return CaseResult(case.name, case.criterion, bool(outcome.passed), value, retained, outcome.note)
