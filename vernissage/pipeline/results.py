"""The numbers of `metrics/<system>.json` as a table for people: ours, then the baselines from the strongest down."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

_ABSENT = "–"
_METHOD_WIDTH = 10
_COLUMNS_SIDE_BY_SIDE = 7


@dataclass(frozen=True)
class Column:
    """How one metric is shown.

    Attributes:
        key: Its name in the metrics file.
        title: What stands above it, with the unit and an arrow to the better side.
        better: 1 when more is better, -1 when less is, 0 when neither.
        digits: Digits after the point.
        percent: Whether the value is a share to be shown in percent.
    """

    key: str
    title: str
    better: int = 0
    digits: int = 2
    percent: bool = False


# The field's usual order and writing; a metric that is not listed follows with its plain name.
COLUMNS = (
    Column("psnr_before", "input [dB]"),
    Column("psnr", "PSNR [dB] ↑", 1),
    Column("gain", "gain [dB] ↑", 1),
    Column("delta_e", "ΔE00 ↓", -1),
    Column("ssim", "SSIM ↑", 1, digits=3),
    Column("improved", "improved ↑", 1, digits=0, percent=True),
    Column("improved_large", "improved ≥4 ↑", 1, digits=0, percent=True),
    Column("unchanged", "unchanged", 0, digits=0, percent=True),
    Column("worsened", "worsened ↓", -1, digits=0, percent=True),
    Column("juror_gain", "juror gain ↑", 1),
    Column("hack_gap", "hack gap ↓", -1),
    Column("clean_delta_e", "clean ΔE00 ↓", -1),
    Column("clean_max", "clean max ↓", -1, digits=1),
    Column("clean_over", "clean >3 ↓", -1, digits=0),
    Column("nfe", "NFE", 0, digits=1),
    Column("error", "paired error ↓", -1, digits=4),
    Column("fd", "FD ↓", -1),
    Column("class_accuracy", "class right ↑", 1, digits=1, percent=True),
    Column("connectivity", "connectivity ↑", 1, digits=3),
    Column("whole", "whole ↑", 1, digits=0, percent=True),
    Column("sound", "sound ↑", 1, digits=0, percent=True),
    Column("parts", "parts ↓", -1),
    Column("one_trunk", "one trunk ↑", 1, digits=0, percent=True),
    Column("cast_success", "wood in one ↑", 1, digits=0, percent=True),
    Column("crown_above", "crown above", 0, digits=0, percent=True),
    Column("leaf_survival", "leaves stay ↑", 1, digits=0, percent=True),
    Column("adherence", "as asked ↑", 1, digits=0, percent=True),
    Column("voxel_ratio", "voxels", 0),
    Column("ms", "ms", 0, digits=0),
    Column("evaluations", "calls", 0, digits=0),
    Column("steps", "steps", 0, digits=1),
    Column("n", "pairs", 0, digits=0),
    Column("photos", "photos", 0, digits=0),
)


def results_table(metrics: Mapping[str, Any]) -> Group:
    """Return the metrics of one system as tables; what a row does not have is shown as –.

    More columns than fit a terminal go on in a second table with the same rows.
    """
    columns = _columns(metrics)
    parts = max(1, math.ceil(len(columns) / _COLUMNS_SIDE_BY_SIDE))
    size = max(1, math.ceil(len(columns) / parts))
    tables = [_table(metrics, columns, columns[part * size : (part + 1) * size]) for part in range(parts)]
    tables[0].title, tables[0].title_justify = Text(_title(metrics), style="bold"), "left"
    tables[-1].caption, tables[-1].caption_justify = Text("\n".join(_notes(metrics))), "left"
    return Group(*tables)


def _table(metrics: Mapping[str, Any], columns: Sequence[Column], shown: Sequence[Column]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    # Text, not str: rich would read [dB] as a style.
    table.add_column("method", overflow="fold", min_width=_METHOD_WIDTH)
    for column in shown:
        table.add_column(Text(column.title.replace(" ", "\n", 1)), justify="right", no_wrap=True, vertical="top")
    own, others = _ordered_methods(metrics, columns)
    for method in [*own, *others]:
        cells = [_stacked(metrics["rows"][method].get(column.key), column) for column in shown]
        style = "bold" if method in own else None
        table.add_row(Text(method), *cells, style=style, end_section=bool(own) and method == own[-1])
    return table


def results_text(metrics: Mapping[str, Any]) -> str:
    """Return the same as plain lines for a log: no colours, no frames, one line per method."""
    columns = _columns(metrics)
    own, others = _ordered_methods(metrics, columns)
    cells_of = {
        method: [_cell(metrics["rows"][method].get(column.key), column) for column in columns]
        for method in own + others
    }
    rows = [
        ["method", *(column.title for column in columns)],
        *([method, *cells] for method, cells in cells_of.items()),
    ]
    widths = [max(len(row[place]) for row in rows) for place in range(len(columns) + 1)]
    lines = [_title(metrics)]
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join([*lines, *_notes(metrics)])


def strongest_baseline(metrics: Mapping[str, Any]) -> str | None:
    """Return the strongest baseline; None when there is none to compare.

    It is the one that the benchmark found pair by pair, else the one with the best mean of the leading metric; what
    knows the original is an upper bound and no baseline.
    """
    if (named := metrics.get("strongest")) in _rows(metrics):
        return str(named)
    columns = _columns(metrics)
    _, others = _ordered_methods({**metrics, "order": None}, columns)
    leading, bounds = _leading(metrics, columns), metrics.get("upper_bounds") or ()
    rivals = [method for method in others if method not in bounds]
    return rivals[0] if rivals and leading and _mean(metrics["rows"][rivals[0]].get(leading.key)) is not None else None


def _title(metrics: Mapping[str, Any]) -> str:
    return str(metrics.get("title") or f"{metrics.get('system', 'results')} on the test split")


def _columns(metrics: Mapping[str, Any]) -> list[Column]:
    rows = _rows(metrics)
    present = list(dict.fromkeys(key for row in rows.values() for key in row))
    known = [column for column in COLUMNS if column.key in present]
    listed = {column.key for column in known}
    return known + [Column(key, key.replace("_", " ")) for key in present if key not in listed]


def _rows(metrics: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    rows = metrics.get("rows") or {}
    return {method: row for method, row in rows.items() if isinstance(row, Mapping)}


def _leading(metrics: Mapping[str, Any], columns: Sequence[Column]) -> Column | None:
    wanted = metrics.get("primary")
    directed = [column for column in columns if column.better]
    return next((column for column in directed if column.key == wanted), directed[0] if directed else None)


def _ordered_methods(metrics: Mapping[str, Any], columns: Sequence[Column]) -> tuple[list[str], list[str]]:
    """Ours, then the others from the strongest down; or all as `order` has them."""
    rows, system = _rows(metrics), metrics.get("system")
    if metrics.get("order"):
        return [], [method for method in metrics["order"] if method in rows]
    leading = _leading(metrics, columns)

    def strength(method: str) -> float:
        value = _mean(rows[method].get(leading.key)) if leading else None
        return -math.inf if value is None or leading is None else value * leading.better

    # Sorting is stable: equally strong methods stay in the file's order.
    own = [method for method in rows if method == system]
    return own, sorted((method for method in rows if method != system), key=strength, reverse=True)


def _mean(value: Any) -> float | None:
    if isinstance(value, Mapping):
        value = value.get("mean")
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _cell(value: Any, column: Column) -> str:
    interval = _interval(value, column, between=", ")
    return f"{_value(value, column)} [{interval}]" if interval else _value(value, column)


def _stacked(value: Any, column: Column) -> Text:
    """Return a cell with the interval below the value, which keeps the table narrow enough for a terminal."""
    interval = _interval(value, column, between="…")
    return Text(_value(value, column)).append(f"\n{interval}" if interval else "", style="dim not bold")


def _value(value: Any, column: Column) -> str:
    mean = _mean(value)
    if mean is not None:
        return _number(mean, column)
    return value if isinstance(value, str) else _ABSENT


def _interval(value: Any, column: Column, *, between: str) -> str:
    if not isinstance(value, Mapping):
        return ""
    low, high = _mean(value.get("low")), _mean(value.get("high"))
    if low is None or high is None:
        return ""
    return f"{_number(low, column, unit=False)}{between}{_number(high, column, unit=False)}"


def _number(value: float, column: Column, *, unit: bool = True) -> str:
    if column.percent:
        return f"{100 * value:.{column.digits}f}{' %' if unit else ''}"
    return f"{value:.{column.digits}f}"


def _notes(metrics: Mapping[str, Any]) -> list[str]:
    notes = []
    if (best := strongest_baseline(metrics)) is not None and metrics.get("system") in _rows(metrics):
        notes.append(f"strongest baseline: {best}")
    if metrics.get("upper_bounds"):
        notes.append(f"knows the original, so an upper bound and no rival: {', '.join(metrics['upper_bounds'])}")
    if isinstance(metrics.get("search_beats_policy"), Mapping):
        notes.append(_search_note(metrics["search_beats_policy"]))
    if any(isinstance(value, Mapping) and "low" in value for row in _rows(metrics).values() for value in row.values()):
        notes.append("the two numbers beside or below a mean: its bootstrap interval")
    if len({row["n"] for row in _rows(metrics).values() if "n" in row}) > 1:
        notes.append("rows with fewer pairs were measured on an evenly spread part; compare them pair by pair only")
    cases = metrics.get("robustness")
    if isinstance(cases, Mapping) and "cases" in cases:
        notes.append(f"robustness: {cases.get('passed', _ABSENT)} of {cases['cases']} cases passed")
    for section in ("headline", "juror"):
        values = metrics.get(section)
        if isinstance(values, Mapping) and values:
            notes.append(f"{section}: " + ", ".join(_named(key, value) for key, value in values.items()))
    return [*notes, *map(str, metrics.get("notes") or ())]


def _search_note(found: Mapping[str, Any]) -> str:
    """Say whether search or policy finds the better edits, with the paired difference."""
    lead = found["psnr"]
    if found["beats"]:
        verdict = "search beats the policy"
    else:
        verdict = "the policy beats search" if lead["high"] < 0 else "search does not beat the policy"
    difference, colour = (
        f"{one['mean']:+.2f} [{one['low']:+.2f}, {one['high']:+.2f}]" for one in (lead, found["delta_e"])
    )
    return f"{verdict}: {found['search']} minus policy {difference} dB, ΔE00 {colour}, on the same {found['n']} pairs"


def _named(key: str, value: Any) -> str:
    words = key.replace("_", " ")
    mean = _mean(value)
    if mean is not None:
        return f"{words} {mean:.4g}"
    if isinstance(value, Mapping):
        inner = ", ".join(_named(name, item) for name, item in value.items())
        return f"{words} ({inner})" if inner else words
    return f"{words} {_ABSENT if value is None else value}"
