"""Stage `robustness@<system>`: awkward input, one row per case."""

from __future__ import annotations

from stages.systems import SYSTEMS
from vernissage.pipeline.systems import run_system_stage

if __name__ == "__main__":
    run_system_stage(
        "robustness", SYSTEMS, lambda system, params, folders: system.robustness(params, folders), torch=True
    )
