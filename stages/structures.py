"""Stage `structures`: captioned block structures, grown and of the user's own."""

from __future__ import annotations

from vernissage.core.folders import SystemFolders
from vernissage.pipeline.harness import run_stage
from vernissage.sculptor.system import SculptorSystem

if __name__ == "__main__":
    run_stage("structures", lambda params: SculptorSystem().prepare(params, SystemFolders("sculptor")))
