"""Stage `benchmark@<system>`: per-item tables against the baselines on the test split."""

from __future__ import annotations

from stages.systems import SYSTEMS
from vernissage.pipeline.systems import run_system_stage

if __name__ == "__main__":
    run_system_stage(
        "benchmark", SYSTEMS, lambda system, params, folders: system.benchmark(params, folders), torch=True
    )
