"""Stage `teacher-bank`: fixed noises with the endpoints that the denoiser reaches in many steps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vernissage.pipeline.harness import run_stage
from vernissage.sampler.system import make_teacher_bank

if TYPE_CHECKING:
    from vernissage.core.params import Params


def main(params: Params) -> None:
    """Run the stage."""
    make_teacher_bank(Path("models/denoiser"), Path("data/sampler/ready"), params)


if __name__ == "__main__":
    run_stage("teacher-bank", main, torch=True)
