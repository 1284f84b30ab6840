"""Stage `degrade-split`: faulty and original pairs as train, val and test, without a shared group."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vernissage.pipeline.harness import run_stage
from vernissage.retoucher.prepare.degrade import degrade

if TYPE_CHECKING:
    from vernissage.core.params import Params


def main(params: Params) -> None:
    """Run the stage."""
    degrade(Path("data/resized"), Path("data/scored"), Path("data/retoucher/ready"), params.degrade, params.seed)


if __name__ == "__main__":
    run_stage("degrade-split", main, torch=True)
