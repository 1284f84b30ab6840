"""`vernissage ingest FOLDER`: takes photos in, says what became of each, and what to type next."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from vernissage.commands.screen import screen
from vernissage.core.errors import BadInput
from vernissage.core.params import load_params
from vernissage.retoucher.prepare.ingest import IngestReport, Status, ingest, track_with_dvc

_SHOWN_REJECTIONS = 10
_REPORT = Path("reports/ingest.csv")
_NEXT = """next:
  git add data/ingest && git commit -m "Photos"     keep which photos these are
  dvc repro                                         build everything from them"""


def take_in(project: Path, folder: Path) -> None:
    """Copy the photos of a folder into the dataset, track them with DVC, and print what became of every file.

    Raises:
        BadInput: The folder cannot be used or holds no usable photo.
    """
    max_pixels = load_params(project / "params.yaml").photos.max_pixels
    report = ingest(folder, project / "data" / "ingest", report=project / _REPORT, max_pixels=max_pixels)
    console = screen()
    console.print(_table(report))
    rejected = [outcome for outcome in report.outcomes if outcome.status is Status.REJECTED]
    for outcome in rejected[:_SHOWN_REJECTIONS]:
        console.print(f"  rejected {escape(outcome.file)}: {escape(outcome.reason)}", soft_wrap=True)
    if len(rejected) > _SHOWN_REJECTIONS:
        console.print(f"  and {len(rejected) - _SHOWN_REJECTIONS} more")
    console.print(f"what became of every file: {escape(str(_REPORT))}", soft_wrap=True)
    if not report.photos_in_all:
        raise BadInput(f"{folder}: holds no photo that can be used; the reasons stand above and in {_REPORT}")
    track_with_dvc(project)
    console.print(_NEXT, markup=False)


def _table(report: IngestReport) -> Table:
    counts = Counter((outcome.category, outcome.status) for outcome in report.outcomes)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("category")
    for status in Status:
        table.add_column(status.value, justify="right")
    for category in sorted({outcome.category for outcome in report.outcomes}):
        table.add_row(escape(category or "–"), *(str(counts[category, status]) for status in Status))
    table.add_section()
    table.add_row("in all", *(str(report.count(status)) for status in Status), style="bold")
    table.caption = f"{report.photos_in_all} photos in the dataset now"
    table.caption_justify = "left"
    return table
