"""Stage `juror-score`: a score from 0 to 10 for every photo, into the COCO file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vernissage.pipeline.harness import run_stage
from vernissage.retoucher.learn.jurors import load_juror
from vernissage.retoucher.prepare.score import score_photos

if TYPE_CHECKING:
    from vernissage.core.params import Params


def main(_params: Params) -> None:
    """Run the stage."""
    juror = load_juror(Path("models/juror"))
    score_photos(Path("data/annotated"), Path("data/resized"), Path("data/scored"), juror)


if __name__ == "__main__":
    run_stage("juror-score", main, torch=True)
