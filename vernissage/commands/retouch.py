"""`vernissage retouch PHOTO... -o DIR`: edits photos at full size with the trained retoucher."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vernissage.commands.photos import printable
from vernissage.commands.screen import screen

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vernissage.commands.photos import Mode, Models, XmpForm


def retouch_photos(
    photos: Sequence[Path], output: Path, models: Models, *, mode: Mode, form: XmpForm, editable: bool, extras: bool
) -> bool:
    """Edit photos, print one line for each and one for each step, and return whether all went well.

    Raises:
        MissingArtifact: There is no trained model.
        CorruptArtifact: A model file is damaged.
        BadInput: The output folder cannot be written.
    """
    # These import torch: only after the folders were found.
    from vernissage.core.devices import configure_torch
    from vernissage.retoucher.use.retouch import Wishes, retouch_files

    configure_torch()
    wishes = Wishes(mode=mode.value, form=form.value, editable=editable, extras=extras)
    results = retouch_files(photos, output, model_folder=models.retoucher, juror_folder=models.juror, wishes=wishes)
    console = screen()
    failed = [result for result in results if result.status == "failed"]
    for result in results:
        mark = "[red]✗[/red]" if result.status == "failed" else "[green]✓[/green]"
        console.print(f"{mark} {printable(result.path)}: {printable(result.message)}", soft_wrap=True)
        for number, line in enumerate(result.explanation, start=1):
            console.print(f"    {number}. {printable(line)}", soft_wrap=True)
        for written in result.outputs:
            console.print(f"    {printable(written)}", soft_wrap=True)
    if failed:
        console.print(f"{len(failed)} of {len(results)} photos failed, the others are in {printable(output)}")
    return not failed
