"""The report as one page: self-contained, nothing loaded from elsewhere, what is written in it escaped."""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from vernissage.sculptor.judge.demands import Demand
    from vernissage.sculptor.judge.results import Results

PAGE_FILE, TEMPLATE = "summary.html", "report.html"
_NOTHING = "–"
_LONG_TABLE = 16


@dataclass(frozen=True)
class Table:
    """A table of texts: heads, rows, and a line above it; a long one is folded away."""

    caption: str
    heads: list[str]
    rows: list[list[str]]

    @property
    def folded(self) -> bool:
        """Whether it is folded away."""
        return len(self.rows) > _LONG_TABLE


@dataclass
class Part:
    """One part of the page."""

    title: str
    words: str = ""
    pictures: list[tuple[str, str]] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)


def page(results: Results, demands: Sequence[Demand], numbers: Mapping[str, Any], images: Path) -> str:
    """Return the page.

    Args:
        results: What the stages have left.
        demands: What was asked for.
        numbers: The headline.
        images: Where the pictures are.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(TEMPLATE).render(
        demands=demands,
        headline=[(key.replace("_", " "), _text(value)) for key, value in numbers.items()],
        parts=_parts(results, images),
        missing=results.missing,
    )


def _parts(results: Results, images: Path) -> list[Part]:
    benchmark = results.benchmark
    parts = [
        Part(
            "What it builds",
            "Prompts are captions of held-out structures that no training sentence was; none is picked by its result.",
            _pictures(images, structures="Structures that the sculptor built, with their prompts"),
        ),
        Part(
            "Beside others",
            "The same prompts for all; what works with a plan has the same one. Sound is what is whole, stands on one "
            "trunk, has its crown above its wood and leaves that survive.",
            _pictures(images, compared="The same prompts built by several arms", arms="Means of all arms"),
            [_table("All arms", benchmark.table("summary")), _table("Above ours", benchmark.table("paired"))],
        ),
        Part(
            "Where it fails",
            "The least connected structures.",
            _pictures(images, worst="The worst structures"),
            [_table("By species", benchmark.table("species"))],
        ),
        Part(
            "Steps and time",
            "",
            _pictures(images, steps="Quality over steps"),
            [_table("Wall clock", benchmark.table("clock"))],
        ),
        Part(
            "Is it new, varied, alike",
            "z compares how near structures are to training ones with how near held-out ones are; far above 0 is "
            "copying. A nearest-neighbour accuracy of .5 means that nothing tells built from held-out ones.",
            [],
            [
                _table("Nearest training structures", benchmark.table("novelty")),
                _table("Variety within a prompt", benchmark.table("diversity")),
                _table("Likeness to held-out structures", benchmark.table("fidelity")),
                _table("One word exchanged", benchmark.table("directional")),
            ],
        ),
        Part(
            "Training",
            "",
            _pictures(
                images,
                epochs="Anatomy over epochs",
                first="Loss of what is decided first",
                buckets="Accuracy by share of masked voxels",
                species="By species",
            ),
            [_table("The network on test structures", benchmark.table("buckets"))],
        ),
        Part("Robustness", "", [], [_table("Cases", results.cases)]),
    ]
    real = benchmark.table("real")
    if len(real):
        parts[1].tables.append(_table("Your own structures", real))
    for part in parts:
        part.tables = [table for table in part.tables if table.rows]
    return [part for part in parts if part.pictures or part.tables]


def _pictures(images: Path, **named: str) -> list[tuple[str, str]]:
    """Those that there are: what they show, and PNG as base64."""
    found = []
    for name, alt in named.items():
        path = images / f"{name}.png"
        if path.is_file():
            found.append((alt, base64.b64encode(path.read_bytes()).decode("ascii")))
    return found


def _table(caption: str, frame: pd.DataFrame) -> Table:
    """A table without the ends of intervals, which stand beside their means."""
    shown = [name for name in frame if not str(name).endswith(("_low", "_high"))]
    rows = []
    for _, row in frame.iterrows():
        cells = []
        for name in shown:
            text = _text(row[name])
            if f"{name}_low" in frame and text != _NOTHING:
                text += f" [{_text(row[f'{name}_low'])}, {_text(row[f'{name}_high'])}]"
            cells.append(text)
        rows.append(cells)
    return Table(caption, [str(name).replace("_", " ") for name in shown], rows)


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return _NOTHING
    return f"{value:.4g}" if isinstance(value, float) else str(value)
