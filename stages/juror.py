"""Stage `juror`: makes the juror that `juror.kind` names and judges it on the test split."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vernissage.pipeline.harness import run_stage
from vernissage.retoucher.learn.jurors import make_any_juror

if TYPE_CHECKING:
    from vernissage.core.params import Params


def main(params: Params) -> None:
    """Run the stage."""
    make_any_juror(Path("data/annotated/annotations.json"), Path("data/resized"), Path("models/juror"), params)


if __name__ == "__main__":
    run_stage("juror", main, torch=True)
