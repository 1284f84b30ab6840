"""Runs a gate: checks tables with Great Expectations and says what failed, in which rows, as JSON and as one page."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from vernissage.core.errors import GateFailed
from vernissage.core.files import atomic_write_text
from vernissage.core.logs import telemetry_off

if TYPE_CHECKING:
    from pandas import DataFrame

    from vernissage.core.gate_spec import Gate, TableExpectation

FINDINGS_FILE = "gate.json"
PAGE_FILE = "gate.html"
_SHOWN_ROWS = 10
# Tables of sums (one row per split, say) have no ids; their few columns are shown whole.
_NARROW_TABLE = 3
_SHOWN_IN_MESSAGE = 3
_LONGEST_TEXT = 120
_PERCENT_DIGITS = 4


@dataclass(frozen=True)
class Finding:
    """What one expectation found.

    Attributes:
        table: Name of the table.
        expectation: Type in the words of Great Expectations, such as `expect_column_values_to_be_unique`.
        column: The column or columns (joined by a comma); empty when it is about the whole table.
        meaning: What must hold, from the gate.
        passed: Whether it holds.
        observed: What was seen: the statistic, or the first unexpected values.
        unexpected_count: Rows that break it; None when it is not about single rows.
        unexpected_percent: The same as a share of the rows that have a value, in percent.
        rows: The first unexpected rows: number from 0, ids, and the columns in question (narrow tables: every column).
        problem: Why it could not be checked at all (a missing column, say); None when it was.
    """

    table: str
    expectation: str
    column: str
    meaning: str
    passed: bool
    observed: Any
    unexpected_count: int | None
    unexpected_percent: float | None
    rows: tuple[Mapping[str, Any], ...]
    problem: str | None


@dataclass(frozen=True)
class GateResult:
    """What a gate found; the same tables always give the same result, byte for byte.

    Attributes:
        name: What was judged.
        table_rows: Table name to its number of rows.
        findings: One per expectation, in the gate's order.
    """

    name: str
    table_rows: Mapping[str, int]
    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        """Whether every expectation holds."""
        return all(finding.passed for finding in self.findings)

    @property
    def failed_findings(self) -> tuple[Finding, ...]:
        """The findings that stop what is behind the gate."""
        return tuple(finding for finding in self.findings if not finding.passed)

    def to_json(self) -> str:
        """Return the findings as JSON text (sorted keys; no times, no random names)."""
        content = {
            "name": self.name,
            "passed": self.passed,
            "tables": dict(self.table_rows),
            "findings": [asdict(finding) for finding in self.findings],
        }
        return json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"

    def to_html(self) -> str:
        """Return the findings as one page that needs nothing else: no script, no remote file; failing ones first."""
        pages = Environment(
            loader=FileSystemLoader(Path(__file__).parent),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        ordered = [*self.failed_findings, *(finding for finding in self.findings if finding.passed)]
        return pages.get_template(PAGE_FILE).render(result=self, findings=ordered, shown=_shown) + "\n"


def run_gate(gate: Gate) -> GateResult:
    """Check every expectation of a gate and return what was found.

    Raises:
        ValueError: The gate expects nothing, or expects something of a table that it does not have.
    """
    if not gate.expectations:
        raise ValueError(f"gate {gate.name}: has no expectations, so it would let everything through")
    by_table: dict[str, list[int]] = {}
    for position, item in enumerate(gate.expectations):
        if item.table not in gate.tables:
            raise ValueError(f"gate {gate.name}: no table {item.table!r}, there are {', '.join(gate.tables)}")
        by_table.setdefault(item.table, []).append(position)
    findings: dict[int, Finding] = {}
    for table, positions in by_table.items():
        chosen = {position: gate.expectations[position] for position in positions}
        findings |= _check_table(gate.tables[table], chosen)
    return GateResult(
        name=gate.name,
        table_rows={name: len(table) for name, table in gate.tables.items()},
        findings=tuple(findings[position] for position in range(len(gate.expectations))),
    )


def write_gate(result: GateResult, folder: Path | str) -> None:
    """Write `gate.json` and `gate.html` into `folder`."""
    atomic_write_text(Path(folder) / PAGE_FILE, result.to_html())
    atomic_write_text(Path(folder) / FINDINGS_FILE, result.to_json())


def require_passed(result: GateResult, page: Path | str | None = None) -> None:
    """Stop what is behind the gate unless everything holds.

    Args:
        result: What the gate found.
        page: Where the whole page was written, to be named in the message.

    Raises:
        GateFailed: Something does not hold; the message shows what, and in which rows.
    """
    if result.passed:
        return
    failed = result.failed_findings
    lines = [f"gate {result.name}: {len(failed)} of {len(result.findings)} expectations failed"]
    for finding in failed:
        lines += _message_lines(finding)
    lines.append(f"Mend the data or the stage that made it, then run again.{f' All findings: {page}' if page else ''}")
    raise GateFailed("\n".join(lines))


def _check_table(table: DataFrame, expectations: Mapping[int, TableExpectation]) -> dict[int, Finding]:
    telemetry_off()
    # Importing this takes seconds, which only stages with a gate should pay.
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    # Row numbers are how unexpected rows are found again, whatever index the table came with.
    table = table.reset_index(drop=True)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("tables").add_dataframe_asset("table")
    batch = asset.add_batch_definition_whole_dataframe("all rows")
    # Results come back in another order; the position travels along in the free `meta` field.
    marked = [item.expectation.copy(update={"meta": {"position": place}}) for place, item in expectations.items()]
    suite = context.suites.add(gx.ExpectationSuite(name="suite", expectations=marked))
    validation = context.validation_definitions.add(gx.ValidationDefinition(name="validation", data=batch, suite=suite))
    outcome = validation.run(
        batch_parameters={"dataframe": table},
        result_format={"result_format": "SUMMARY", "partial_unexpected_count": _SHOWN_ROWS},
    )
    findings: dict[int, Finding] = {}
    for result in outcome.results:
        position = result.expectation_config.meta["position"]
        findings[position] = _finding(expectations[position], result, table)
    return findings


def _finding(item: TableExpectation, result: Any, table: DataFrame) -> Finding:
    details: Mapping[str, Any] = result.result or {}
    columns = _columns(result.expectation_config.kwargs)
    percent = _plain(details.get("unexpected_percent"))
    numbers = details.get("partial_unexpected_index_list") or ()
    return Finding(
        table=item.table,
        expectation=result.expectation_config.type,
        column=", ".join(columns),
        meaning=item.meaning,
        passed=bool(result.success),
        observed=_observed(details),
        unexpected_count=details.get("unexpected_count"),
        unexpected_percent=None if percent is None else round(percent, _PERCENT_DIGITS),
        rows=() if result.success else tuple(_row(table, number, columns) for number in sorted(numbers)),
        problem=_problem(result.exception_info),
    )


def _columns(kwargs: Mapping[str, Any]) -> list[str]:
    single = [kwargs[key] for key in ("column", "column_A", "column_B") if kwargs.get(key) is not None]
    several = kwargs.get("column_list") or kwargs.get("column_set") or ()
    # A set has no order of its own, and the findings must have one.
    listed = sorted(several) if isinstance(several, set | frozenset) else list(several)
    return [str(name) for name in [*single, *listed]]


def _observed(details: Mapping[str, Any]) -> Any:
    seen = details.get("observed_value")
    return _plain(details.get("partial_unexpected_list") if seen is None else seen)


def _row(table: DataFrame, number: int, columns: Sequence[str]) -> Mapping[str, Any]:
    narrow = len(table.columns) <= _NARROW_TABLE
    ids = [name for name in table.columns if narrow or str(name) in {"id", "file"} or str(name).endswith("_id")]
    shown = dict.fromkeys([*ids, *(name for name in columns if name in table.columns)])
    values = table.iloc[number]
    return {"row": int(number), **{str(name): _plain(values[name]) for name in shown}}


def _problem(info: Mapping[str, Any] | None) -> str | None:
    # One expectation may have several metrics that failed, each with its own entry.
    entries: Iterable[Any] = [info, *info.values()] if info else ()
    messages = {
        str(entry["exception_message"])
        for entry in entries
        if isinstance(entry, Mapping) and entry.get("raised_exception")
    }
    return "; ".join(sorted(messages)) or None


def _plain(value: Any) -> Any:
    """Return a value that JSON can hold and that looks the same on every machine."""
    if hasattr(value, "tolist"):  # numpy scalars and arrays
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted((_plain(item) for item in value), key=str)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return _plain_scalar(value)


def _plain_scalar(value: Any) -> bool | int | float | str | None:
    if isinstance(value, bool | int | str):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    text = str(value)
    return None if text in {"None", "nan", "NaT", "<NA>"} else text


def _shown(value: Any) -> str:
    """Return a value as short text for people."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.6g}"
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else str(value)
    return text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 1] + "…"


def _message_lines(finding: Finding) -> list[str]:
    place = f"{finding.table}.{finding.column}" if finding.column else finding.table
    if finding.problem:
        found = f"could not be checked: {finding.problem}"
    elif finding.unexpected_count is not None and finding.unexpected_percent is not None:
        found = f"{finding.unexpected_count} unexpected ({finding.unexpected_percent:.3g} %)"
    else:
        found = f"found {_shown(finding.observed)}"
    lines = [f"  {place}: {finding.meaning} [{finding.expectation}]: {found}"]
    shown = (", ".join(f"{name} {_shown(value)}" for name, value in row.items()) for row in finding.rows)
    lines += [f"      {row}" for row in islice(shown, _SHOWN_IN_MESSAGE)]
    hidden = (finding.unexpected_count or 0) - _SHOWN_IN_MESSAGE
    if finding.rows and hidden > 0:
        lines.append(f"      and {hidden} more")
    return lines
