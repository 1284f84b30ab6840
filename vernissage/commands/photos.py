"""What the commands on photos share: which weights they use, what can be chosen, and names that any screen can show."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from rich.markup import escape

from vernissage.core.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


# The rooms that do the work have the same names as literal types; importing those would import torch for `--help`.
class Mode(StrEnum):
    """How the agent decides."""

    FAST = "fast"
    QUALITY = "quality"


class XmpForm(StrEnum):
    """How XMP says tone and saturation."""

    PORTABLE = "portable"
    LIGHTROOM = "lightroom"


@dataclass(frozen=True)
class Models:
    """Folders of the weights that are needed: who edits, and who judges the edits for the explanation."""

    retoucher: Path
    juror: Path


def choose_models(project: Callable[[], Path], model: Path | None) -> Models:
    """Return the models of the project, or the one that was named with the juror that lies beside it.

    Args:
        project: Finds the project's folder; asked only when needed, so that a named model works anywhere.
        model: Folder of a trained retoucher.

    Raises:
        BadInput: `model` is no folder, or no project is found where one is needed.
    """
    if model is None:
        models = project() / "models"
        return Models(models / "retoucher", models / "juror")
    if not model.is_dir():
        raise BadInput(f"--model {model}: no such folder; expected one with model.safetensors and model.json")
    beside = model.resolve().parent / "juror"
    return Models(model, beside if beside.is_dir() else project() / "models" / "juror")


def choose_juror(project: Callable[[], Path], juror: Path | None) -> Path:
    """Return the juror of the project, or the one that was named.

    Raises:
        BadInput: `juror` is no folder, or no project is found where one is needed.
    """
    if juror is None:
        return project() / "models" / "juror"
    if not juror.is_dir():
        raise BadInput(f"--juror {juror}: no such folder; expected one with juror.json")
    return juror


def printable(text: object) -> str:
    """A text for rich, whatever it holds: file names may hold bytes that are no text, or what looks like markup."""
    return escape(str(text).encode("utf-8", "replace").decode("utf-8"))
