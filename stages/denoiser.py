"""Stage `denoiser`: teaches the embedded diffusion model that the sampler steers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vernissage.core.folders import scratch_folder
from vernissage.pipeline.harness import run_stage
from vernissage.sampler.system import make_denoiser

if TYPE_CHECKING:
    from vernissage.core.params import Params


def main(params: Params) -> None:
    """Run the stage."""
    make_denoiser(Path("data/pictures"), Path("models/denoiser"), scratch_folder("denoiser"), params)


if __name__ == "__main__":
    run_stage("denoiser", main, torch=True)
