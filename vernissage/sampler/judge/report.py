"""Sums up training, benchmark and robustness of the sampler: numbers, tables and pictures that git keeps, and one page.

Nothing is measured here. What a stage has not left is said to be missing, on the page and in the numbers; the table of
the benchmark alone must be there.
"""

from __future__ import annotations

import base64
import csv
import json
import math
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from vernissage.core.errors import CorruptArtifact
from vernissage.core.files import atomic_write_text, fresh_folder, read_json
from vernissage.core.tables import write_csv
from vernissage.sampler.judge.benchmark import TABLE_FILE, finite
from vernissage.sampler.judge.plots import (
    attribution_figure,
    curves_figure,
    dial_figure,
    frontier_figure,
    save_figure,
    usage_figure,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vernissage.core.folders import SystemFolders

PAGE_FILE, TEMPLATE = "summary.html", "report.html"
#: What the benchmark may leave beside its table: times, facts of the mixture, and sheets of samples.
WALL_CLOCK_FILE, MIXTURE_FILE, PICTURES = "wall_clock.csv", "mixture.json", "pictures"
CASES_FILE, GATE_FILE = "cases.csv", "gate.csv"

#: What was asked for, stated before anything was measured.
SAVING_AGAINST_STOCK, SAVING_AGAINST_GRID, STRETCH_AGAINST_GRID = 0.42, 0.20, 0.30
TIMES_FEWER_THAN_HEUN, OVER_TEACHER, CONTROLLER_SHARE, CONTROLLER_BATCH, CASES = 5.0, 0.05, 0.03, 64, 20

MET, DOUBTFUL, MISSED, NOT_MEASURED = "met", "met, not beyond doubt", "missed", "not measured"
#: Our least budget is good enough already, so what is known is a bound that lies short of the target.
OPEN = "open, smaller budgets are needed"
_MARKS = {
    MET: "met",
    DOUBTFUL: "open",
    MISSED: "missed",
    NOT_MEASURED: "open",
    OPEN: "open",
    "not worse": "met",
    "worse": "missed",
    "undecided": "open",
    "passed": "passed",
    "failed": "failed",
    "needed": "met",
    "harmful": "missed",
    "useless": "open",
}
_NOTHING = "–"
_EXPERT_LEAD = ("expert", "share", "cost", "low", "high", "verdict")
# Columns of rows of experts' usage that are no expert.
_NOT_EXPERTS = frozenset({"low", "high", "class", "price", "scale", "decisions", "code", "sigma"})


@dataclass(frozen=True)
class Demand:
    """One thing that was asked for.

    Attributes:
        demand: In words.
        measured: In words, with its interval.
        verdict: ``MET``, ``DOUBTFUL`` (the interval reaches beyond the target), ``MISSED``, ``OPEN`` or
            ``NOT_MEASURED``.
    """

    demand: str
    measured: str
    verdict: str


@dataclass(frozen=True)
class Table:
    """A table of texts for the page.

    Attributes:
        heads: Names of the columns.
        rows: Cells as texts.
        caption: Above it.
        folded: Where given, it is folded away under this line.
    """

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    folded: str = ""

    def is_number(self, column: int) -> bool:
        """Whether all cells of a column are numbers, so that they stand to the right."""
        cells = [row[column] for row in self.rows if row[column] != _NOTHING]
        return bool(cells) and all(_is_number(cell) for cell in cells)


@dataclass(frozen=True)
class Picture:
    """A picture inside the page: what it shows, and PNG as base64."""

    alt: str
    data: str


@dataclass
class Part:
    """One part of the page."""

    title: str
    words: list[str] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Results:
    """What the stages have left.

    Attributes:
        table: The benchmark's.
        curves: Training tables by name, ``gate`` among them.
        summary: The training's.
        clock: Times.
        mixture: Facts of the mixture of experts.
        cases: Robustness, one row per case.
        missing: What was not there, and which stage makes it.
    """

    table: dict[str, Any]
    curves: dict[str, pd.DataFrame]
    summary: dict[str, Any]
    clock: list[dict[str, Any]]
    mixture: dict[str, Any]
    cases: list[dict[str, str]]
    missing: list[str]


def write_report(folders: SystemFolders) -> None:
    """Write ``metrics/sampler.json``, tables and pictures in ``plots/sampler``, and ``plots/sampler/summary.html``.

    Args:
        folders: Where training, benchmark and robustness left their results.

    Raises:
        MissingArtifact: If there is no benchmark.
        CorruptArtifact: If a result is damaged.
    """
    results = read_results(folders)
    demands = judge(results)
    with fresh_folder(folders.plots) as folder:
        _write_tables(folder, folders, results)
        images = folder / "images"
        images.mkdir()
        _draw(images, folders, results)
        atomic_write_text(folder / PAGE_FILE, page(results, demands, images))
    folders.metrics.parent.mkdir(parents=True, exist_ok=True)
    # The order is ours: what decides stands first.
    text = json.dumps(_rounded(finite(metrics(results, demands))), indent=2, ensure_ascii=False, allow_nan=False)
    atomic_write_text(folders.metrics, text + "\n")


def read_results(folders: SystemFolders) -> Results:
    """Read what the stages have left, and note what is missing.

    Raises:
        MissingArtifact: If there is no benchmark.
        CorruptArtifact: If a result is damaged.
    """
    table = read_json(folders.benchmark / TABLE_FILE)
    for key in ("rows", "floors", "savings", "attribution", "dial", "settings"):
        if key not in table:
            raise CorruptArtifact(
                f"{folders.benchmark / TABLE_FILE}: no {key!r}; make it again with `dvc repro benchmark@{folders.name}`"
            )
    missing: list[str] = []

    def optional(path: Path, stage: str, what: str) -> Any:
        if path.is_file():
            return read_json(path) if path.suffix == ".json" else _records(_frame(path))
        missing.append(f"{what}: no {path.name}; `dvc repro {stage}@{folders.name}` makes it where it can")
        return None

    curves = {path.stem: _frame(path) for path in sorted(folders.training.glob("*.csv"))}
    if not curves:
        missing.append(f"training curves: nothing in {folders.training}; run `dvc repro train@{folders.name}`")
    elif "gate" not in curves:
        missing.append("release gate: training left none, so no controller was compared with the static programs")
    cases_file = folders.robustness / CASES_FILE
    if not cases_file.is_file():
        missing.append(f"robustness: no {cases_file}; run `dvc repro robustness@{folders.name}`")
    if not any((folders.benchmark / PICTURES).glob("*.png")):
        missing.append("sheets of samples: the benchmark left none")
    attributed = table["attribution"]
    if attributed["missing"]:
        missing.append(f"attribution: no arm for {', '.join(attributed['missing'])}")
    return Results(
        table=table,
        curves=curves,
        summary=optional(folders.training / "summary.json", "train", "training summary") or {},
        clock=optional(folders.benchmark / WALL_CLOCK_FILE, "benchmark", "wall clock") or [],
        mixture=optional(folders.benchmark / MIXTURE_FILE, "benchmark", "mixture of experts") or {},
        cases=_cases(cases_file) if cases_file.is_file() else [],
        missing=missing,
    )


# --- what decides -----------------------------------------------------------------------------------------------------


def judge(results: Results) -> list[Demand]:
    """Compare what was measured with what was asked for."""
    found = [
        _saving_demand(results, "stock", SAVING_AGAINST_STOCK, "stock settings of DPM++ 2M and UniPC"),
        _saving_demand(results, "grid", SAVING_AGAINST_GRID, "the best tuned grid solver"),
        _saving_demand(results, "grid", STRETCH_AGAINST_GRID, "that solver (the stretch, on the guided request mix)"),
        _heun_demand(results),
        *_student_demands(results),
        _controller_demand(results),
    ]
    passed = sum(_passed(row) for row in results.cases)
    text = f"{passed} of {len(results.cases)}" if results.cases else _NOTHING
    verdict = MET if passed >= CASES else MISSED
    found.append(Demand(f"{CASES} of {CASES} robustness cases", text, verdict if results.cases else NOT_MEASURED))
    return found


def headline(results: Results) -> dict[str, Any]:
    """The few numbers that decide, flat, each saving with its 95 % interval."""
    table = results.table
    numbers: dict[str, Any] = {"ours": table.get("ours")}
    for bar in ("stock", "grid"):
        found = _saving(table, bar) or {}
        numbers |= {f"saving_against_{bar}{end}": found.get(f"saving{end}") for end in ("", "_low", "_high")}
        numbers[f"fd_against_{bar}"] = (found.get("fd") or {}).get("verdict")
    heun = table.get("heun") or {}
    numbers |= {f"times_fewer_than_heun{end}": heun.get(key) for end, key in _ENDS_OF_FACTOR}
    two = table.get("two_evaluations") or {}
    keys = {"two_evaluations_fd": "fd", "grid_at_five_fd": "bar_fd", "two_less_grid_fd": "difference"}
    keys |= {f"two_less_grid_fd_{end}": f"difference_{end}" for end in ("low", "high")}
    numbers |= {name: two.get(key) for name, key in keys.items()}
    one = _student_row(table, 1)
    numbers |= {"one_evaluation_fd": None if one is None else one["fd"], "teacher_fd": _teacher_fd(table)}
    numbers["controller_share"] = _controller_share(results)
    cases = results.cases
    numbers["robustness_passed"] = sum(_passed(row) for row in cases) if cases else None
    numbers["quality_retained"] = _retained(cases)
    return numbers


_ENDS_OF_FACTOR = (("", "factor"), ("_low", "low"), ("_high", "high"))


def metrics(results: Results, demands: Sequence[Demand]) -> dict[str, Any]:
    """What ``metrics/sampler.json`` says, the headline first."""
    table = results.table
    steps = {
        row["role"]: {key: row[key] for key in ("nfe", "ratio", "low", "high", "step", "share")}
        for row in table["attribution"]["rows"]
    }
    gate = results.curves.get("gate")
    rows = _shown_rows(table["rows"])
    return {
        "headline": headline(results),
        "demands": {demand.demand: f"{demand.verdict}: {demand.measured}" for demand in demands},
        "attribution": steps,
        "by_scale": {
            f"{row['bar']}, scale {row['scale']:g}": {key: row[key] for key in ("saving", "saving_low", "saving_high")}
            for row in table.get("by_scale", [])
        },
        "floors": {
            name: None if floor is None else {key: value for key, value in floor.items() if key != "fd_seeds"}
            for name, floor in table["floors"].items()
        },
        "ships": {} if gate is None else {f"price {row['price']:g}": row["ships"] for row in _gate_rows(gate)},
        "useless_experts": results.mixture.get("useless"),
        "robustness": {
            "passed": sum(_passed(row) for row in results.cases),
            "cases": len(results.cases),
            "retained": _retained(results.cases),
        },
        "noises": table.get("noises"),
        "system": "sampler",
        "order": list(rows),
        "rows": rows,
        "missing": results.missing,
    }


def _shown_rows(measured: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """What a terminal shows: arms with numbers of calls, the fewest evaluations first."""
    shown = [row for row in measured if row["dial"] == "calls" and row["role"] != "context"]
    return {
        f"{row['arm']}, {row['budget']:g} calls": {
            "nfe": row["nfe"],
            "error": {key: row[f"error_mean{end}"] for key, end in (("mean", ""), ("low", "_low"), ("high", "_high"))},
            "fd": row["fd"],
            "class_accuracy": row["class_accuracy"],
        }
        for row in sorted(shown, key=lambda row: (row["nfe"], row["error_mean"] or math.inf))
    }


def _saving(table: Mapping[str, Any], bar: str) -> dict[str, Any] | None:
    """What ours saves against a bar."""
    for row in table["savings"]:
        if row["arm"] == table.get("ours") and row["bar"] == bar:
            found: dict[str, Any] = row
            return found
    return None


def _saving_demand(results: Results, bar: str, target: float, what: str) -> Demand:
    demand = f"at least {100 * target:.0f} % fewer evaluations than {what}, at equal paired error with FD not worse"
    found = _saving(results.table, bar)
    if found is None:
        return Demand(demand, _NOTHING, NOT_MEASURED)
    if found["saving"] is None:
        return Demand(demand, "the quality of the bar is not reached with any budget", MISSED)
    fd = (found["fd"] or {}).get("verdict", "not compared")
    bound = "at least " if found["at_most"] else ""
    measured = f"{bound}{_percent(found['saving'])} [{_percent(found['saving_low'])}, {_percent(found['saving_high'])}]"
    verdict = _verdict(found["saving"], found["saving_low"], target, bound=found["at_most"])
    # An interval that is too wide for a verdict is no proof of either.
    verdict = MISSED if fd == "worse" else DOUBTFUL if fd != "not worse" and verdict == MET else verdict
    return Demand(demand, f"{measured}; FD {fd}", verdict)


def _heun_demand(results: Results) -> Demand:
    demand = f"at least {TIMES_FEWER_THAN_HEUN:g} times fewer evaluations than Heun's method with 35 calls"
    heun = results.table.get("heun")
    if heun is None:
        return Demand(demand, _NOTHING, NOT_MEASURED)
    by_fd = "" if heun["fd_factor"] is None else f"; by FD {heun['fd_factor']:.3g} times"
    if heun["factor"] is None:
        return Demand(demand, f"its error is not reached with any of our budgets{by_fd}", MISSED)
    low, high = _text(heun["low"]), _text(heun["high"])
    bound = "at least " if heun["at_least"] else ""
    measured = f"{bound}{heun['factor']:.3g} times [{low}, {high}] by error{by_fd}"
    return Demand(
        demand, measured, _verdict(heun["factor"], heun["low"], TIMES_FEWER_THAN_HEUN, bound=heun["at_least"])
    )


def _student_demands(results: Results) -> list[Demand]:
    demand = "two evaluations no worse in FD than the best tuned grid solver at five"
    nearer = f"two evaluations within {100 * OVER_TEACHER:.0f} % of the teacher's FD"
    two, teacher = results.table.get("two_evaluations"), _teacher_fd(results.table)
    if two is None or two["fd"] is None or two["bar_fd"] is None:
        return [Demand(demand, _NOTHING, NOT_MEASURED), Demand(nearer, _NOTHING, NOT_MEASURED)]
    ends = f"[{_text(two['difference_low'])}, {_text(two['difference_high'])}]"
    measured = f"FD {two['fd']:.3g} against {two['bar_fd']:.3g}; by noise seed {_text(two['difference'])} {ends}"
    verdict = {"not worse": MET, "worse": MISSED}.get(
        two["verdict"], DOUBTFUL if two["fd"] <= two["bar_fd"] else MISSED
    )
    found = [Demand(demand, f"{measured}, {two['verdict']}", verdict)]
    if not teacher:
        return [*found, Demand(nearer, _NOTHING, NOT_MEASURED)]
    one = _student_row(results.table, 1)
    alone = "" if one is None or one["fd"] is None else f"; one evaluation {one['fd'] / teacher:.2f} times"
    measured = f"{two['fd'] / teacher:.2f} times the teacher's {teacher:.3g}{alone}"
    return [*found, Demand(nearer, measured, MET if two["fd"] <= (1 + OVER_TEACHER) * teacher else MISSED)]


def _controller_demand(results: Results) -> Demand:
    demand = f"controller at most {100 * CONTROLLER_SHARE:.0f} % of a network call at batch {CONTROLLER_BATCH}"
    share = _controller_share(results)
    if share is None:
        return Demand(demand, _NOTHING, NOT_MEASURED)
    return Demand(demand, f"{100 * share:.2f} %", MET if share <= CONTROLLER_SHARE else MISSED)


def _controller_share(results: Results) -> float | None:
    shares = [row["controller_share"] for row in results.clock if row["batch"] == CONTROLLER_BATCH]
    return max((share for share in shares if share is not None), default=None)


def _verdict(value: float, low: float | None, target: float, *, bound: bool) -> str:
    if value < target:
        return OPEN if bound else MISSED
    return MET if low is not None and low >= target else DOUBTFUL


def _teacher_fd(table: Mapping[str, Any]) -> float | None:
    value = (table["floors"].get("teacher") or {}).get("fd")
    return None if value is None else float(value)


def _student_row(table: Mapping[str, Any], budget: float) -> dict[str, Any] | None:
    for row in table["rows"]:
        if row["role"] == "consistency" and row["budget"] == budget:
            found: dict[str, Any] = row
            return found
    return None


def _passed(row: Mapping[str, str]) -> bool:
    return row["passed"] == "True"


def _retained(cases: Sequence[Mapping[str, str]]) -> float | None:
    """Mean quality under perturbation as a share of the normal one, over the cases that are about quality."""
    known = [float(row["retained"]) for row in cases if row.get("retained")]
    return sum(known) / len(known) if known else None


# --- tables and pictures ----------------------------------------------------------------------------------------------


def _write_tables(folder: Path, folders: SystemFolders, results: Results) -> None:
    for name in results.curves:
        shutil.copyfile(folders.training / f"{name}.csv", folder / f"{name}.csv")
    table = results.table
    rows = [{key: value for key, value in row.items() if key != "fd_seeds"} for row in table["rows"]]
    tables = {
        "frontier": rows,
        "attribution": table["attribution"]["rows"],
        "savings": [_flat_saving(row) for row in [*table["savings"], *table.get("by_scale", [])]],
        "dial": table["dial"],
        "wall-clock": results.clock,
        "experts": results.mixture.get("experts", []),
        "knock-outs": results.mixture.get("knock_outs", []),
    }
    for name, content in tables.items():
        if content:
            write_csv(
                folder / f"{name}.csv", [{key: _csv_cell(value) for key, value in row.items()} for row in content]
            )
    if results.cases:
        shutil.copyfile(folders.robustness / CASES_FILE, folder / "robustness.csv")


def _flat_saving(row: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("arm", "bar", "scale", "saving", "saving_low", "saving_high", "ratio", "at_most", "noises")
    return {key: row[key] for key in keys} | {"fd": (row["fd"] or {}).get("verdict")}


def _csv_cell(value: Any) -> Any:
    return "" if value is None else value


def _draw(images: Path, folders: SystemFolders, results: Results) -> None:
    table = results.table
    figures = {
        "frontier": frontier_figure(table["rows"], _teacher_fd(table)),
        "attribution": attribution_figure(table["attribution"]),
        "prices": dial_figure(table["dial"]),
        "experts": usage_figure(results.mixture.get("usage", {}), _experts(results.mixture)),
    }
    figures |= {f"training-{name}": curves_figure(name, curve) for name, curve in results.curves.items()}
    for name, figure in figures.items():
        if figure is not None:
            save_figure(figure, images / f"{name}.png")
    for picture in sorted((folders.benchmark / PICTURES).glob("*.png")):
        shutil.copyfile(picture, images / picture.name)


def _experts(mixture: Mapping[str, Any]) -> list[str]:
    named = [str(row["expert"]) for row in mixture.get("experts", [])]
    if named:
        return named
    rows = [row for rows in mixture.get("usage", {}).values() for row in rows]
    return list(dict.fromkeys(key for row in rows for key in row if key not in _NOT_EXPERTS))


# --- the page ---------------------------------------------------------------------------------------------------------


def page(results: Results, demands: Sequence[Demand], images: Path) -> str:
    """The summary as one page that needs nothing else.

    Args:
        results: What the stages have left.
        demands: What :func:`judge` says.
        images: Folder of the pictures; they are put inside the page.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    parts = [
        _demands_part(demands),
        _frontier_part(results, images),
        _equal_part(results),
        _attribution_part(results, images),
        _samples_part(images),
        _prices_part(results, images),
        _experts_part(results, images),
        _student_part(results),
        _clock_part(results),
        _robustness_part(results),
        _training_part(results, images),
        _method_part(results),
    ]
    return environment.get_template(TEMPLATE).render(
        lead=_lead(results), parts=parts, missing=results.missing, marks=_MARKS
    )


def _lead(results: Results) -> list[str]:
    table = results.table
    ours = table.get("ours")
    asked = table.get("noises", 0)
    told = (
        f"{asked} requests that nothing was tuned on, answered by every arm from the same noise; errors are to what "
        "the teacher makes of it in many steps."
    )
    lines = [told]
    if ours is None:
        return [*lines, "No arm of ours was measured."]
    for bar, what in (("stock", "stock settings"), ("grid", "the best tuned grid solver")):
        found = _saving(table, bar)
        if found is not None and found["saving"] is not None:
            ends = f"[{_percent(found['saving_low'])}, {_percent(found['saving_high'])}]"
            fewer = f"{'at least ' if found['at_most'] else ''}{_percent(found['saving'])} {ends} fewer evaluations"
            lines.append(f"“{ours}”, which ships, takes {fewer} than {what} at equal paired error.")
    return lines


def _demands_part(demands: Sequence[Demand]) -> Part:
    rows = [(one.demand, one.measured, one.verdict) for one in demands]
    return Part("Demanded and measured", tables=[Table(("demanded", "measured", "verdict"), rows)])


def _frontier_part(results: Results, images: Path) -> Part:
    part = Part("Frontier", pictures=_pictures(images, frontier="Error and Fréchet distance against evaluations"))
    part.words.append(
        "Lower and further left is better. Bands are 95 % intervals: of errors over requests, of Fréchet distances "
        "over noise seeds."
    )
    floors = results.table["floors"]
    rows = [
        (
            name.replace("_", " "),
            _text(floor.get("pictures")),
            _text(floor.get("fd")),
            _text(floor.get("class_accuracy")),
        )
        for name, floor in floors.items()
        if floor
    ]
    heads = ("floor", "pictures of each", "FD", "class accuracy")
    part.tables.append(Table(heads, rows, "What no arm can be expected to beat"))
    shown = {
        "arm": "arm",
        "budget": "budget",
        "nfe": "NFE",
        "nfe_p95": "p95",
        "nfe_max": "max",
        "error_mean": "error",
        "error_median": "median",
        "error_p95": "p95 ",
        "saturated": "saturating",
        "fd": "FD",
        "fd_infinity": "FD∞",
        "kid": "KID",
        "density": "density",
        "coverage": "coverage",
        "fd_random": "FD random",
        "sliced_wasserstein": "SW",
        "class_accuracy": "class right",
        "copied": "copied",
        "failed": "failed",
        "requests": "requests",
    }
    order = sorted(results.table["rows"], key=lambda row: (row["nfe"], row["error_mean"] or math.inf))
    cells = [[_text(row.get(key)) for key in shown] for row in order]
    part.tables.append(Table(list(shown.values()), cells, folded=f"All {len(cells)} rows, the cheapest first"))
    return part


def _equal_part(results: Results) -> Part:
    part = Part("Evaluations at equal quality")
    part.words.append(
        "How much less is spent for the same mean paired error, read off between budgets and averaged over those of "
        "the bar; intervals by resampling requests. The bar is the best arm of its kind at each budget, chosen on "
        "these very requests. Fréchet distances are those of the least budget that is as good."
    )
    heads = ("arm", "against", "scale", "saving", "95 %", "FD", "budget by budget: ratio")
    savings = [*results.table["savings"], *results.table.get("by_scale", [])]
    rows = []
    for row in savings:
        by_budget = ", ".join(f"{one['budget']:g}: {_ratio(one)}" for one in row["budgets"])
        ends = f"{_percent(row['saving_low'])} to {_percent(row['saving_high'])}"
        saved = f"{'at least ' if row['at_most'] else ''}{_percent(row['saving'])}"
        fd = (row["fd"] or {}).get("verdict", _NOTHING)
        scale = "all" if row["scale"] is None else _text(row["scale"])
        rows.append((row["arm"], row["bar"], scale, saved, ends, fd, by_budget))
    if rows:
        part.tables.append(Table(heads, rows))
    else:
        part.words.append("Missing: no arm of ours and no bar were measured on the same requests.")
    return part


def _attribution_part(results: Results, images: Path) -> Part:
    found = results.table["attribution"]
    part = Part("What each step was worth", pictures=_pictures(images, attribution="Evaluations step by step"))
    if found["reference"] is None:
        part.words.append("Missing: the tuned grid was not measured.")
        return part
    heads = ("step", "arm", "NFE", "ratio to grid", "change", "95 %", "share of the saving")
    rows = [
        (
            row["role"],
            row["arm"],
            _text(row["nfe"]),
            _text(row["ratio"]) if row["ratio"] is not None else "not reached",
            _change(row["step"]),
            _NOTHING if row["step"] is None else f"{_change(row['step_low'])} to {_change(row['step_high'])}",
            _NOTHING if row["share"] is None else _percent(row["share"]),
        )
        for row in found["rows"]
    ]
    part.words.append(
        f"NFE is what each step takes for the mean paired error of the grid with {found['reference']['budget']:g} "
        "calls; ratio, change and share are over all bar budgets. Shares are of the steps that get to that quality "
        "with a budget that was measured."
    )
    part.tables.append(Table(heads, rows))
    if found["missing"]:
        part.words.append(f"Left out, because no arm was measured: {', '.join(found['missing'])}.")
    return part


def _samples_part(images: Path) -> Part:
    part = Part("Samples", pictures=_pictures(images, samples="Samples of the same noise", worst="Where it errs most"))
    if not part.pictures:
        part.words.append("Missing: the benchmark left no sheets.")
    return part


def _prices_part(results: Results, images: Path) -> Part:
    part = Part("Prices: controller or static program", pictures=_pictures(images, prices="What a price buys"))
    gate = results.curves.get("gate")
    if gate is None:
        part.words.append("Missing: no release gate; where there is no controller, the static programs ship.")
    else:
        rows = _gate_rows(gate)
        static = [f"{row['price']:g}" for row in rows if row["ships"] != "controller"]
        part.words.append(
            f"The static program ships at the prices {', '.join(static)}: there the controller's value is not above it "
            "beyond doubt on validation requests."
            if static
            else "The controller ships at every price: its value is above the static program's beyond doubt."
        )
        part.tables.append(_generic(rows, "Release gate, on validation requests"))
    if results.table["dial"]:
        part.tables.append(_generic(results.table["dial"], "On the test requests"))
    return part


def _experts_part(results: Results, images: Path) -> Part:
    mixture = results.mixture
    part = Part("Experts", pictures=_pictures(images, experts="Which expert acts where"))
    if not mixture:
        part.words.append("Missing: the mixture was not examined.")
        return part
    part.words += [str(line) for line in mixture.get("verdicts", {}).values()]
    if mixture.get("useless"):
        part.words.append(f"Useless, harmful or never used: {', '.join(mixture['useless'])}.")
    for key, caption in (("experts", "What each has done"), ("arms", "Routers and single experts")):
        if mixture.get(key):
            part.tables.append(_generic(mixture[key], caption))
    if mixture.get("knock_outs"):
        rows = [{key: row.get(key) for key in _EXPERT_LEAD} for row in mixture["knock_outs"]]
        part.tables.append(_generic(rows, "What is lost without each"))
    return part


def _student_part(results: Results) -> Part:
    part = Part("One and two evaluations")
    rows = [row for row in results.table["rows"] if row["role"] == "consistency"]
    if not rows:
        part.words.append("Missing: no student was measured.")
        return part
    keys = ("arm", "budget", "nfe", "error_mean", "fd", "fd_infinity", "class_accuracy")
    part.tables.append(_generic([{key: row.get(key) for key in keys} for row in rows]))
    cascade = results.curves.get("cascade")
    if cascade is not None:
        part.tables.append(_generic(_records(cascade), "Cascade: a verifier decides who gets more"))
    return part


def _clock_part(results: Results) -> Part:
    part = Part("Wall clock")
    if not results.clock:
        part.words.append("Missing: nothing was timed.")
        return part
    part.words.append("Medians in milliseconds; overhead is all that is not the network, over the network.")
    part.tables.append(_generic(results.clock))
    return part


def _robustness_part(results: Results) -> Part:
    part = Part("Robustness")
    if not results.cases:
        part.words.append("Missing: the cases were not run.")
        return part
    passed, retained = sum(_passed(row) for row in results.cases), _retained(results.cases)
    kept = "" if retained is None else f" Where a case is about quality, {_percent(retained)} of it is retained."
    part.words.append(f"{passed} of {len(results.cases)} cases passed.{kept}")
    rows = [
        [
            "passed" if _passed(row) else "failed",
            row["name"],
            row["criterion"],
            *(_number(row.get(key, "")) for key in ("value", "retained")),
            row.get("note", ""),
        ]
        for row in results.cases
    ]
    part.tables.append(Table(("", "case", "criterion", "value", "retained", "note"), rows))
    return part


def _training_part(results: Results, images: Path) -> Part:
    part = Part("Training")
    for name in results.curves:
        part.pictures += _pictures(images, **{f"training-{name}": f"Training curves: {name}"})
    if not part.pictures:
        part.words.append("Missing: no training curves.")
    flat = [(key.replace("_", " "), _text(value)) for key, value in results.summary.items() if _is_plain(value)]
    if flat:
        part.tables.append(Table(("", ""), flat, "Summary"))
    return part


def _method_part(results: Results) -> Part:
    settings = results.table["settings"]
    rows = [(key.replace("_", " "), _text(value)) for key, value in settings.items()]
    words = (
        "Evaluations are counted where the network is called; a guided call counts two. FD is the Fréchet distance in "
        "the features of a classifier of ours, to all real pictures; class accuracy is another classifier's. An FD is "
        "not worse where the whole 95 % interval of the difference by noise seed is below the margin, which is the "
        "bar's standard deviation between noise seeds unless another one is set."
    )
    return Part("How it was measured", [words], tables=[Table(("setting", "value"), rows, folded="Settings")])


# --- texts ------------------------------------------------------------------------------------------------------------


def _pictures(images: Path, **named: str) -> list[Picture]:
    """Those that there are, inside the page."""
    found = []
    for name, alt in named.items():
        path = images / f"{name}.png"
        if path.is_file():
            found.append(Picture(alt, base64.b64encode(path.read_bytes()).decode("ascii")))
    return found


def _generic(rows: Sequence[Mapping[str, Any]], caption: str = "") -> Table:
    """All columns as they are."""
    heads = list(dict.fromkeys(key for row in rows for key in row))
    return Table(
        [head.replace("_", " ") for head in heads], [[_text(row.get(head)) for head in heads] for row in rows], caption
    )


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in finite(frame.to_dict(orient="records"))]


def _gate_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    missing = {"price", "ships"} - set(frame.columns)
    if missing:
        raise CorruptArtifact(f"{GATE_FILE}: no column {', '.join(sorted(missing))}; run `dvc repro train@sampler`")
    return _records(frame)


def _frame(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path)
    except (ValueError, OSError) as error:  # EmptyDataError and ParserError are ValueErrors
        raise CorruptArtifact(f"{path}: not a table ({error}); run its stage again or `dvc checkout`") from error


def _cases(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not all({"name", "criterion", "passed"} <= set(row) for row in rows):
        raise CorruptArtifact(f"{path}: columns name, criterion and passed are missing; run `dvc repro robustness`")
    return rows


def _rounded(value: Any) -> Any:
    """The same with six digits of each number: more is noise in what git compares."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _text(value: Any) -> str:
    """A value as short text for people."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return _NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    return str(value)


def _number(text: str) -> str:
    return f"{float(text):.4g}" if _is_number(text) else text


def _percent(value: float | None) -> str:
    return "not reached" if value is None else f"{100 * value:.1f} %"


def _change(ratio: float | None) -> str:
    return _NOTHING if ratio is None else f"{100 * (ratio - 1):+.1f} %"


def _ratio(row: Mapping[str, Any]) -> str:
    if row["ratio"] is None:
        return "not reached"
    return f"{'at most ' if row['at_most'] else ''}{row['ratio']:.3g}"


def _is_number(text: str) -> bool:
    try:
        float(text.removesuffix(" %"))
    except ValueError:
        return False
    return True


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str)
