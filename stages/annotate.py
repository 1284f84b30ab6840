"""Stage `annotate`: a COCO file with categories, photographic statistics, groups of near duplicates and splits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vernissage.pipeline.harness import run_stage
from vernissage.retoucher.prepare.annotate import annotate

if TYPE_CHECKING:
    from vernissage.core.params import Params


def main(params: Params) -> None:
    """Run the stage."""
    annotate(Path("data/resized"), Path("data/annotated"), params.annotate, params.seed)


if __name__ == "__main__":
    run_stage("annotate", main, torch=True)
