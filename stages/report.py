"""Stage `report@<system>`: the numbers and plots that git keeps."""

from __future__ import annotations

from stages.systems import SYSTEMS
from vernissage.pipeline.systems import run_system_stage

if __name__ == "__main__":
    run_system_stage("report", SYSTEMS, lambda system, params, folders: system.report(params, folders), torch=True)
