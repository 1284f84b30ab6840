"""Stage `resize`: one standard size, upright, sRGB; what cannot be used stands in rejected.csv with its reason."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vernissage.pipeline.harness import run_stage
from vernissage.retoucher.prepare.resize import resize_photos

if TYPE_CHECKING:
    from vernissage.core.params import Params


def main(params: Params) -> None:
    """Run the stage."""
    raw, out = Path("data/raw/photos"), Path("data/resized")
    resize_photos(raw, out, params.resize, params.photos, reports=Path("reports"))


if __name__ == "__main__":
    run_stage("resize", main)
