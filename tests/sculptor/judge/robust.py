"""A sculptor that learned for seconds, its data and a bench, for the tests of the robustness cases."""

from __future__ import annotations

import copy
import tempfile
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from vernissage.core.parallel import threads_for_parts
from vernissage.sculptor.judge.robustness import CASES, CaseResult, run_robustness
from vernissage.sculptor.judge.trials import Bench, RobustnessSettings, set_up, short_training
from vernissage.sculptor.learn.building import Building
from vernissage.sculptor.learn.training import SculptorTraining, train_sculptor
from vernissage.sculptor.prepare.structures import StructureSettings, make_structures

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from vernissage.sculptor.domain.dataset import Dataset
    from vernissage.sculptor.learn.model import Sculptor

SETTINGS = RobustnessSettings(structures=2, batch=40, together=8)


@dataclass(frozen=True)
class Subject:
    """What is put to the test."""

    sculptor: Sculptor
    dataset: Dataset
    training: SculptorTraining

    def run(self, *numbers: int, settings: RobustnessSettings = SETTINGS) -> dict[int, CaseResult]:
        """Run some cases."""
        cases = [case for case in CASES if case.number in numbers]
        results = run_robustness(self.sculptor, self.dataset, settings, training=self.training, cases=cases)
        assert [result.number for result in results] == sorted(numbers)
        return {result.number: result for result in results}

    def failed(self, *numbers: int) -> dict[int, str]:
        """Run some cases and say what those found that fail."""
        return {number: result.found for number, result in self.run(*numbers).items() if not result.passed}

    def bench(self, folder: Path) -> Bench:
        """The bench of one case."""
        with threads_for_parts():
            return set_up(self.sculptor, self.dataset, self.training, SETTINGS, folder)

    def but(self, spoil: Callable[[Sculptor], Any]) -> Subject:
        """Another sculptor, with a defect."""
        spoilt = copy.deepcopy(self.sculptor)
        spoil(spoilt)
        return replace(self, sculptor=spoilt)


@cache
def subject() -> Subject:
    """A small sculptor whose planner knows how large trees are; its network knows little."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        counts = StructureSettings(train={"normal": 24}, val={"normal": 2}, test={"normal": 24}, workers=1)
        dataset = make_structures(folder / "own", folder / "dataset", counts)
        settings = short_training(
            SculptorTraining(),
            epochs=1,
            updates=60,
            lr=5e-3,
            ema=0.9,
            voxels=3000,
            first_updates=50,
            first_batch=32,
            first_lr=5e-3,
        )
        sculptor = train_sculptor(dataset, settings, folder / "work").sculptor
    # What learned for seconds would rather have air everywhere: looks that change much would leave nothing to measure.
    return Subject(sculptor, dataset, SculptorTraining(building=Building(edits=0, wood_edits=0, doubt_share=0.0)))
