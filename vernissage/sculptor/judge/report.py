"""Sums up training, benchmark and robustness of the sculptor: numbers, tables and pictures that git keeps, and a page.

Nothing is measured here. What a stage has not left is said to be missing; the tables of the benchmark alone must be
there.
"""

from __future__ import annotations

import json
import math
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from vernissage.core.files import atomic_path, atomic_write_text, fresh_folder
from vernissage.sculptor.judge import plots
from vernissage.sculptor.judge.arms import HELD_OUT, OURS
from vernissage.sculptor.judge.demands import PUBLISHED_GUIDED, PUBLISHED_PLAIN, judge
from vernissage.sculptor.judge.page import PAGE_FILE, page
from vernissage.sculptor.judge.results import by_training, passes, plain, read_results, retained
from vernissage.sculptor.judge.tables import ALL_SIZES

if TYPE_CHECKING:
    from pathlib import Path

    from vernissage.core.folders import SystemFolders
    from vernissage.sculptor.judge.demands import Demand
    from vernissage.sculptor.judge.results import Results

GENERATIONS = "generations"
_NORMAL = "normal"
_SHOWN = (
    "connectivity",
    "whole",
    "sound",
    "parts",
    "one_trunk",
    "cast_success",
    "crown_above",
    "leaf_survival",
    "adherence",
    "voxel_ratio",
    "ms",
    "evaluations",
)
# In the file the macro mean is the adherence: attributes count alike, however often they are said.
_COLUMN = {"adherence": "macro_adherence"}
_MOST_GENERATIONS = 12
_SHEETS = {"structures": 5, "compared": 6, "worst": 4}


def write_report(folders: SystemFolders) -> None:
    """Write `metrics/sculptor.json`, and tables, pictures and `summary.html` in `plots/sculptor`.

    Args:
        folders: Where training, benchmark and robustness left their results.

    Raises:
        MissingArtifact: There is no benchmark.
        CorruptArtifact: A result is damaged.
    """
    results = read_results(folders)
    demands = judge(results)
    with fresh_folder(folders.plots) as folder:
        _write_tables(folder, results)
        images = folder / "images"
        images.mkdir()
        _draw(images, folders, results)
        atomic_write_text(folder / PAGE_FILE, page(results, demands, headline(results), images))
    folders.metrics.parent.mkdir(parents=True, exist_ok=True)
    # The order is ours: what decides stands first.
    text = json.dumps(_rounded(plain(metrics(results, demands))), indent=2, ensure_ascii=False, allow_nan=False)
    atomic_write_text(folders.metrics, text + "\n")


# --- numbers ----------------------------------------------------------------------------------------------------------


def headline(results: Results) -> dict[str, Any]:
    """The few numbers that decide, flat; at the normal size where none is named."""
    facts = results.benchmark.facts
    ours, held_out = results.row(OURS) or {}, results.row(HELD_OUT) or {}
    numbers: dict[str, Any] = {"steps": facts.get("steps")}
    for name in (
        "connectivity",
        "whole",
        "sound",
        "parts",
        "one_trunk",
        "cast_success",
        "crown_above",
        "leaf_survival",
    ):
        numbers[name] = ours.get(name)
    numbers |= {f"whole_{end}": ours.get(f"whole_{end}") for end in ("low", "high")}
    numbers |= {f"{name}_held_out": held_out.get(name) for name in ("sound", "crown_above", "cast_success")}
    numbers["cast_success_published"] = PUBLISHED_GUIDED
    numbers["adherence"], numbers["adherence_by_chance"] = ours.get("macro_adherence"), facts.get("chance_adherence")
    numbers["voxel_ratio"] = ours.get("voxel_ratio")
    for size in ("big", "huge"):
        numbers[f"whole_{size}"] = (results.row(OURS, size) or {}).get("whole")
    novelty, clock = results.benchmark.table("novelty"), results.benchmark.table("clock")
    if len(novelty):
        own = novelty[(novelty["arm"] == OURS) & (novelty["size"] == _NORMAL)]
        numbers |= {"nearest_z": _only(own, "z"), "copied": _only(own, "copied")}
    if len(clock):
        own = clock[clock["size"] == _NORMAL]
        numbers["ms_per_structure"] = None if own.empty else float(own.loc[own["batch"].idxmax(), "ms"])
    if len(results.cases):
        numbers["robustness_passed"] = int(passes(results.cases).sum())
        numbers["quality_retained"] = retained(results.cases)
    return numbers


def metrics(results: Results, demands: list[Demand]) -> dict[str, Any]:
    """What `metrics/sculptor.json` says, the headline first."""
    rows = _shown_rows(results)
    tables = ("novelty", "fidelity", "diversity", "directional", "clock", "buckets")
    keys = {"directional": "attribute", "clock": "size", "buckets": "mask_ratio"}
    more = {name: _nested(results.benchmark.table(name), keys.get(name, "arm")) for name in tables}
    facts = {key: value for key, value in results.benchmark.facts.items() if key != "seconds"}
    return {
        "headline": headline(results),
        "demands": {demand.demand: f"{demand.verdict}: {demand.measured}" for demand in demands},
        "trainings": {
            str(int(row["training"])): {"connectivity": row["connectivity"], "whole": row["whole"]}
            for _, row in by_training(results).iterrows()
        },
        **more,
        "published": {"cast_success_plain": PUBLISHED_PLAIN, "cast_success_guided": PUBLISHED_GUIDED},
        "facts": facts,
        "training": results.summary,
        "robustness": {
            "passed": int(passes(results.cases).sum()) if len(results.cases) else 0,
            "cases": len(results.cases),
            "retained": retained(results.cases) if len(results.cases) else None,
        },
        "system": "sculptor",
        "title": "sculptor: captions of held-out structures, 16x16x16 where no size is named",
        "order": list(rows),
        "rows": rows,
        "missing": results.missing,
    }


def _shown_rows(results: Results) -> dict[str, dict[str, Any]]:
    """A row for each arm at the normal size, and for ours and the held-out structures at the others."""
    summary = results.benchmark.table("summary")
    found = {}
    for _, row in summary.iterrows():
        arm, size = str(row["arm"]), str(row["size"])
        if size == ALL_SIZES or (size != _NORMAL and arm not in {OURS, HELD_OUT}):
            continue
        cells: dict[str, Any] = {"structures": int(row["n"])}
        for name in _SHOWN:
            column = _COLUMN.get(name, name)
            value = float(row[column])
            low = row.get(f"{column}_low")
            ends = {} if low is None else {"low": float(low), "high": float(row[f"{column}_high"])}
            cells[name] = {"mean": value, **ends} if ends else value
        found[arm if size == _NORMAL else f"{arm}, {size}"] = cells
    order = sorted(found, key=lambda name: [name.split(",")[0] != arm for arm in (OURS, HELD_OUT)])
    return {name: found[name] for name in order}


def _nested(table: pd.DataFrame, key: str) -> dict[str, Any]:
    """Rows by their key; several with the same one are told apart by their size or batch."""
    found: dict[str, Any] = {}
    for _, row in table.iterrows():
        name = str(row[key])
        for other in ("size", "batch"):
            if other in table and other != key and table[other].nunique() > 1:
                name += f", {other} {row[other]}" if other == "batch" else f", {row[other]}"
        found[name] = {column: value for column, value in row.items() if column not in {key, "arm"}}
    return found


def _only(rows: pd.DataFrame, name: str) -> float | None:
    return None if rows.empty else float(rows.iloc[0][name])


def _rounded(value: Any) -> Any:
    """The same with six digits of each number: more is noise in what git compares."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) and math.isfinite(value) else value


# --- tables and pictures ----------------------------------------------------------------------------------------------


def _write_tables(folder: Path, results: Results) -> None:
    named = {name: table for name, table in results.benchmark.tables.items() if name not in {"items", "summary"}}
    named |= {"arms": results.benchmark.table("summary"), "trainings": by_training(results)}
    named |= {f"training-{name}" if name == "buckets" else name: table for name, table in results.training.items()}
    if len(results.cases):
        named["robustness"] = results.cases
    for name, table in named.items():
        if len(table):
            with atomic_path(folder / f"{name}.csv") as path:
                table.to_csv(path, index=False, lineterminator="\n")


def _draw(images: Path, folders: SystemFolders, results: Results) -> None:
    benchmark, empty = results.benchmark, pd.DataFrame()
    summary = benchmark.table("summary")
    measures = {"whole": "Whole", "sound": "Sound", "connectivity": "Connectivity"}
    measures |= {"macro_adherence": "Adherence to the prompt"}
    held_out = {name: value for name, value in (results.row(HELD_OUT) or {}).items() if not isinstance(value, str)}
    figures = {
        "epochs": plots.epochs_figure(results.training.get("epochs", empty)),
        "first": plots.first_figure(results.training.get("first", empty)),
        "steps": plots.steps_figure(benchmark.table("steps"), held_out),
        "arms": plots.arms_figure(summary[summary["size"] == _NORMAL], measures),
        "species": plots.species_figure(benchmark.table("species")),
        "buckets": plots.buckets_figure(benchmark.table("buckets")),
    }
    for name, figure in figures.items():
        if figure is not None:
            plots.save_figure(figure, images / f"{name}.png")
    for sheet, columns in _SHEETS.items():
        shown = [each for each in benchmark.shown if each.sheet == sheet]
        if sheet == "compared" and shown:
            columns = max(sum(each.row == row for each in shown) for row in {each.row for each in shown})  # noqa: PLW2901
        if shown:
            plots.save_sheet(shown, images / f"{sheet}.png", columns, named=sheet == "compared")
    generations = sorted((folders.training / GENERATIONS).glob("*.png"))
    for place in sorted({round(number) for number in np.linspace(0, len(generations) - 1, _MOST_GENERATIONS)}):
        if generations:
            shutil.copyfile(generations[place], images / f"generations-{generations[place].name}")
