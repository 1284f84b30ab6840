"""`vernissage ingest-structures FOLDER`: takes structures in, says what became of each, and what to type next."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from vernissage.commands.screen import screen
from vernissage.core.errors import BadInput, VernissageError
from vernissage.sculptor.prepare.ingest import IngestReport, ingest_structures
from vernissage.sculptor.prepare.manifest import FILES_FOLDER, Status

if TYPE_CHECKING:
    from rich.console import Console

#: The dataset's folder, relative to the project.
OWN_FOLDER = Path("data/structures")
_REJECTED = Path("reports/rejected-structures.csv")
_SHOWN_REJECTIONS = 10
_SHOWN_SERIES = 20
_NEXT = """next:
  git add data/structures && git commit -m "Structures"     keep which structures these are
  dvc repro                                                 build everything from them"""


def take_in_structures(project: Path, folder: Path, out: Path | None = None) -> None:
    """Copy the structures of a folder into the dataset, track them with DVC, and print what became of every file.

    Args:
        project: The project's folder.
        folder: The user's folder.
        out: Dataset of its own, which DVC is not told about; by default the project's.

    Raises:
        BadInput: The folder cannot be used or holds no usable structure.
    """
    target = out or project / OWN_FOLDER
    rejected = project / _REJECTED if out is None else out / _REJECTED.name
    report = ingest_structures(folder, target, rejected=rejected)
    console = screen()
    console.print(_table(report))
    _print_rejected(console, report, rejected)
    console.print(_summary(report), markup=False, soft_wrap=True)
    if not report.kept:
        raise BadInput(f"{folder}: holds no structure that can be used; the reasons stand above and in {rejected}")
    if out is None:
        _track_with_dvc(project)
        console.print(_NEXT, markup=False)


def _table(report: IngestReport) -> Table:
    counts = Counter((outcome.series, outcome.status) for outcome in report.outcomes)
    series = sorted({outcome.series for outcome in report.outcomes if outcome.series})
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("series")
    for status in Status:
        table.add_column(status.value, justify="right")
    for name in series[:_SHOWN_SERIES]:
        table.add_row(escape(name), *(str(counts[name, status]) for status in Status))
    if len(series) > _SHOWN_SERIES:
        table.add_row(f"and {len(series) - _SHOWN_SERIES} more")
    table.add_section()
    table.add_row("in all", *(str(report.count(status)) for status in Status), style="bold")
    return table


def _print_rejected(console: Console, report: IngestReport, path: Path) -> None:
    found = [outcome for outcome in report.outcomes if outcome.status is Status.REJECTED]
    for outcome in found[:_SHOWN_REJECTIONS]:
        console.print(f"  rejected {escape(outcome.file)}: {escape(outcome.reason)}", soft_wrap=True)
    if found:
        console.print(f"all that were rejected: {escape(str(path))}", soft_wrap=True)


def _summary(report: IngestReport) -> str:
    kept = [one for one in report.listed if one.accepted]
    whole = sum(one.facts["whole"] == "True" for one in kept)
    treelike = sum(one.speakable for one in kept)
    sizes = Counter(one.facts["size_class"] for one in kept)
    species = Counter(one.facts["species"] or "other" for one in kept)
    unknown = sum(one.facts["unknown"] != "0" for one in kept)
    series = len({one.series for one in kept})
    lines = [
        f"{len(kept)} structures of {series} series are in the dataset now, {whole} of them in one piece",
        f"{treelike} have wood or leaves; what has neither is not learned from",
        f"sizes: {_listing(sizes)}; species: {_listing(species)}",
    ]
    if unknown:
        lines.append(f"{unknown} hold blocks that no rule knows; they keep their names and have the role `other`")
    if report.others:
        lines.append(f"{report.others} files of other formats were not looked at")
    return "\n".join(lines)


def _listing(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "none"


def _track_with_dvc(project: Path) -> None:
    """Put the files under DVC's care; the manifest stays in git."""
    tracked = (OWN_FOLDER / FILES_FOLDER).as_posix()
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "--wait-for-lock", "add", tracked],
        cwd=project,
        env={**os.environ, "DVC_NO_ANALYTICS": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise VernissageError(
            f"dvc add {tracked}: DVC stopped with code {done.returncode}: {' / '.join(said[-4:])}; the structures are "
            "copied and listed; run that command again when this is mended"
        )
