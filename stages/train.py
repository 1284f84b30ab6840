"""Stage `train@<system>`: learns, resuming from a checkpoint where there is one."""

from __future__ import annotations

from stages.systems import SYSTEMS
from vernissage.pipeline.systems import run_system_stage

if __name__ == "__main__":
    run_system_stage("train", SYSTEMS, lambda system, params, folders: system.train(params, folders), torch=True)
