"""Stage `validate@<system>`: the gate in front of training; when it fails, nothing behind it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stages.systems import SYSTEMS
from vernissage.pipeline.gates import require_passed, run_gate, write_gate
from vernissage.pipeline.systems import run_system_stage

if TYPE_CHECKING:
    from vernissage.core.folders import SystemFolders
    from vernissage.core.params import Params
    from vernissage.pipeline.systems import System


def main(system: System, params: Params, folders: SystemFolders) -> None:
    """Run the stage."""
    result = run_gate(system.gate(params, folders))
    write_gate(result, folders.gate)
    require_passed(result, folders.gate / "gate.html")


if __name__ == "__main__":
    run_system_stage("validate", SYSTEMS, main)
