"""Where the files of a system lie: the same places for every system, so that dvc.yaml can loop over names."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

SCRATCH_VARIABLE = "VERNISSAGE_SCRATCH"


def scratch_folder(stage: str) -> Path:
    """Return the folder for what a stage keeps outside DVC (status, checkpoints): `scratch/<stage>`.

    The environment variable VERNISSAGE_SCRATCH names another place than `scratch`.
    """
    return Path(os.environ.get(SCRATCH_VARIABLE) or "scratch") / stage


@dataclass(frozen=True)
class SystemFolders:
    """Where the files of one system lie: the same places for every system, so that dvc.yaml can loop over names.

    Attributes:
        name: The system, such as `retoucher`.
        root: The project's folder; stages run inside it.
    """

    name: str
    root: Path = Path()

    @property
    def ready(self) -> Path:
        """The dataset that training reads."""
        return self.root / "data" / self.name / "ready"

    @property
    def gate(self) -> Path:
        """What the gate found in the dataset."""
        return self.root / "data" / self.name / "gate"

    @property
    def model(self) -> Path:
        """The trained weights."""
        return self.root / "models" / self.name

    @property
    def training(self) -> Path:
        """Curves and summary of the training."""
        return self.root / "runs" / self.name / "train"

    @property
    def benchmark(self) -> Path:
        """Per-item tables against the baselines."""
        return self.root / "runs" / self.name / "benchmark"

    @property
    def robustness(self) -> Path:
        """One row per robustness case."""
        return self.root / "runs" / self.name / "robustness"

    @property
    def metrics(self) -> Path:
        """The numbers that git keeps."""
        return self.root / "metrics" / f"{self.name}.json"

    @property
    def plots(self) -> Path:
        """The curves and pictures that git keeps."""
        return self.root / "plots" / self.name

    def scratch(self, stage: str) -> Path:
        """Return the folder outside DVC for checkpoints of `stage` (`train`, say) of this system."""
        return scratch_folder(f"{stage}@{self.name}")
