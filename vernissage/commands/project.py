"""Finds the project that a command is about, from any folder inside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vernissage.core.errors import BadInput

if TYPE_CHECKING:
    from pathlib import Path

_LANDMARK = "dvc.yaml"


def find_project(start: Path, given: Path | None = None) -> Path:
    """Return the project's root as an absolute path: `given`, else the nearest folder upwards that has a dvc.yaml.

    Raises:
        BadInput: There is none.
    """
    if given is not None:
        if not (given / _LANDMARK).is_file():
            raise BadInput(f"--project {given}: holds no {_LANDMARK}; expected the root folder of the project")
        return given.resolve()
    start = start.resolve()
    for folder in (start, *start.parents):
        if (folder / _LANDMARK).is_file():
            return folder
    raise BadInput(f"{start}: no {_LANDMARK} here or above; go into the project's folder, or name it: --project DIR")
