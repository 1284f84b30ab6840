"""`vernissage retouch PHOTO... -o DIR`: edits photos at full size with the trained retoucher."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.markup import escape

from vernissage.commands.screen import screen
from vernissage.core.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path


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


def retouch_photos(photos: Sequence[Path], output: Path, models: Models) -> bool:
    """Edit photos, print one line for each, and return whether all went well.

    Raises:
        MissingArtifact: There is no trained model.
        CorruptArtifact: A model file is damaged.
    """
    # These import torch: only after the folders were found.
    from vernissage.core.devices import configure_torch
    from vernissage.retoucher.use.retouch import retouch_files

    configure_torch()
    results = retouch_files(photos, output, model_folder=models.retoucher, juror_folder=models.juror)
    console = screen()
    failed = [result for result in results if result.status == "failed"]
    for result in results:
        mark = "[red]✗[/red]" if result.status == "failed" else "[green]✓[/green]"
        console.print(f"{mark} {_shown(result.path)}: {_shown(result.message)}", soft_wrap=True)
        for line in result.explanation:
            console.print(f"    {_shown(line)}", soft_wrap=True)
        for written in result.outputs:
            console.print(f"    {_shown(written)}", soft_wrap=True)
    if failed:
        console.print(f"{len(failed)} of {len(results)} photos failed, the others are in {_shown(output)}")
    return not failed


def _shown(text: object) -> str:
    # File names may hold bytes that are no text; they must not end the listing of all the others.
    return escape(str(text).encode("utf-8", "replace").decode("utf-8"))
