"""Stage `collect`: the user's ingested photos, or the sample photos, into data/raw/photos."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vernissage.pipeline.harness import run_stage
from vernissage.retoucher.prepare.collect import collect

if TYPE_CHECKING:
    from vernissage.core.params import Params


def main(params: Params) -> None:
    """Run the stage."""
    collect(Path("data/ingest"), Path("data/raw/photos"), params.photos, params.seed)


if __name__ == "__main__":
    run_stage("collect", main)
