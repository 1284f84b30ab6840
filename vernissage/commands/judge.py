"""`vernissage judge PHOTO...`: what the juror thinks of photos, and the numbers of a histogram panel."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.table import Table

from vernissage.commands.photos import printable
from vernissage.commands.screen import screen

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vernissage.retoucher.use.judge import Verdict


def judge_photos(photos: Sequence[Path], juror: Path, *, as_json: bool) -> bool:
    """Score photos, print them as a table or as JSON, and return whether every photo could be read.

    Raises:
        MissingArtifact: There is no juror.
        CorruptArtifact: One of its files is damaged.
    """
    # These import torch: only after the folder was found.
    from vernissage.core.devices import configure_torch
    from vernissage.retoucher.use.judge import judge_files

    configure_torch()
    verdicts = judge_files(photos, juror_folder=juror, progress=not as_json)
    if as_json:
        # Names that are no text cannot be said in JSON either; they get a sign for what is missing.
        text = json.dumps([_plain(verdict) for verdict in verdicts], indent=2, ensure_ascii=False)
        print(text.encode("utf-8", "replace").decode("utf-8"))  # noqa: T201 - for programs, without rich's folding
    else:
        _print_table(verdicts)
    return not any(verdict.problem for verdict in verdicts)


def _plain(verdict: Verdict) -> dict[str, Any]:
    return asdict(verdict) | {"path": str(verdict.path)}


def _print_table(verdicts: Sequence[Verdict]) -> None:
    console = screen()
    table = Table(box=None, pad_edge=False)
    table.add_column("photo", overflow="fold")
    for title in ("score", "± spread", "median luma", "blown out", "blocked up", "chroma", "noise", "pixels"):
        table.add_column(title, justify="right", no_wrap=True)
    failed = [verdict for verdict in verdicts if verdict.problem]
    for verdict in verdicts:
        if not verdict.problem:
            table.add_row(printable(verdict.path), *_cells(verdict))
    if len(failed) < len(verdicts):
        console.print(table)
    for verdict in failed:
        console.print(f"[red]✗[/red] {printable(verdict.path)}: {printable(verdict.problem)}", soft_wrap=True)
    if failed:
        console.print(f"{len(failed)} of {len(verdicts)} photos could not be judged")


def _cells(verdict: Verdict) -> list[str]:
    numbers = verdict.statistics
    return [
        f"{verdict.score:.2f}",
        "" if verdict.spread is None else f"{verdict.spread:.2f}",
        f"{numbers['luma_p50']:.2f}",
        f"{100 * numbers['clipped_high']:.1f} %",
        f"{100 * numbers['clipped_low']:.1f} %",
        f"{numbers['saturation_mean']:.2f}",
        f"{numbers['noise']:.3f}",
        "x".join(map(str, verdict.size or ())),
    ]
