"""What the pipeline asks of a wing, and the main of every stage that exists once per system.

The pipeline imports no wing. `stages/systems.py` holds the table of rows and hands it over:

    run_system_stage("train", SYSTEMS, lambda system, params, folders: system.train(params, folders), torch=True)
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from vernissage.core.errors import BadParams
from vernissage.core.folders import SystemFolders
from vernissage.core.typed_yaml import suggestion
from vernissage.pipeline.harness import run_stage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from vernissage.core.gate_spec import Gate
    from vernissage.core.params import Params


class System(Protocol):
    """One wing as the pipeline sees it. Every step reads and writes the folders it is given and nothing else."""

    @property
    def name(self) -> str:
        """The key in `systems:` of params.yaml and in every folder name."""

    def prepare(self, params: Params, folders: SystemFolders) -> None:
        """Make the dataset in `folders.ready`."""

    def gate(self, params: Params, folders: SystemFolders) -> Gate:
        """Return what must hold for the dataset before training may start."""

    def train(self, params: Params, folders: SystemFolders) -> None:
        """Learn; write `folders.model` and `folders.training`."""

    def benchmark(self, params: Params, folders: SystemFolders) -> None:
        """Compare with the baselines on the test split; write `folders.benchmark`."""

    def robustness(self, params: Params, folders: SystemFolders) -> None:
        """Try awkward input; write `folders.robustness`."""

    def report(self, params: Params, folders: SystemFolders) -> None:
        """Sum up in `folders.metrics` and `folders.plots`; takes seconds."""

    def load(self, folders: SystemFolders) -> Any:
        """Return the trained agent, ready for use.

        Raises:
            MissingArtifact: It has not been trained or pulled.
            CorruptArtifact: A file differs from what training wrote.
        """


def choose_system(systems: Mapping[str, System], name: str) -> System:
    """Return the system of that name.

    Raises:
        BadParams: There is none; the message lists those that there are.
    """
    if name not in systems:
        known = ", ".join(systems) or "none"
        raise BadParams(f"system {name!r} is unknown, expected one of: {known}{suggestion(name, list(systems))}")
    return systems[name]


def run_system_stage(
    stage: str,
    systems: Mapping[str, System],
    step: Callable[[System, Params, SystemFolders], None],
    *,
    torch: bool = False,
    disk_gb: float = 0.5,
    arguments: Sequence[str] | None = None,
) -> NoReturn:
    """Run one step of the system named on the command line (`python -m stages.train retoucher`) and end the process.

    Args:
        stage: The group as DVC names it, such as `train`.
        systems: Name to system.
        step: What to do with it.
        torch: As for `run_stage`.
        disk_gb: As for `run_stage`.
        arguments: The command line without the program; None reads the process's own.

    Raises:
        SystemExit: Always, as for `run_stage`; 2 when the command line does not name exactly one known system.
    """
    words = sys.argv[1:] if arguments is None else arguments
    if len(words) != 1:
        given = " ".join(words) or "nothing"
        sys.stderr.write(f"{stage}: expected the name of one system ({', '.join(systems)}), found {given}\n")
        sys.exit(BadParams.exit_code)
    name = words[0]
    try:
        system = choose_system(systems, name)
    except BadParams as error:
        sys.stderr.write(f"{stage}: {error}\n")
        sys.exit(error.exit_code)
    folders = SystemFolders(name)
    run_stage(f"{stage}@{name}", lambda params: step(system, params, folders), torch=torch, disk_gb=disk_gb)
