"""Sums up training, benchmark, robustness and juror in the small files that git keeps."""

from __future__ import annotations

import csv
import shutil
from typing import TYPE_CHECKING, Any

from vernissage.core.errors import CorruptArtifact
from vernissage.core.files import atomic_write_json, fresh_folder, read_json
from vernissage.core.tables import write_csv

if TYPE_CHECKING:
    from pathlib import Path

    from vernissage.core.folders import SystemFolders

AGENT = "retoucher"


def write_report(folders: SystemFolders, juror: Path) -> None:
    """Write ``metrics/retoucher.json`` and ``plots/retoucher``.

    Args:
        folders: Where training, benchmark and robustness left their results.
        juror: Folder of the juror.

    Raises:
        MissingArtifact: If a result is missing.
        CorruptArtifact: If a result has no row for the agent.
    """
    table = read_json(folders.benchmark / "table.json")
    cases = _read_csv(folders.robustness / "cases.csv")
    evaluation = read_json(juror / "evaluation.json")
    if AGENT not in table["rows"]:
        raise CorruptArtifact(f"{folders.benchmark / 'table.json'}: no row {AGENT!r}; run `dvc repro benchmark` again")
    with fresh_folder(folders.plots) as folder:
        for phase in ("plan", "reinforcement"):
            shutil.copyfile(folders.training / f"{phase}.csv", folder / f"{phase}.csv")
        shutil.copyfile(juror / "curves.csv", folder / "juror.csv")
        write_csv(folder / "methods.csv", _method_rows(table["rows"]))
        write_csv(folder / "juror-faults.csv", [{"fault": k, **v} for k, v in evaluation["per_fault"].items()])
        shutil.copyfile(folders.robustness / "cases.csv", folder / "robustness.csv")
        shutil.copytree(folders.benchmark / "pictures", folder / "images")
    folders.metrics.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_json(
        folders.metrics,
        {
            "system": AGENT,
            "headline": headline(table),
            "rows": table["rows"],
            **{key: table[key] for key in ("strongest", "upper_bounds", "search_beats_policy")},
            "robustness": {"passed": sum(row["passed"] == "True" for row in cases), "cases": len(cases)},
            "juror": {key: value for key, value in evaluation.items() if key != "per_fault"},
        },
    )


def headline(table: dict[str, Any]) -> dict[str, Any]:
    """The few numbers that decide: the agent, and how far it is ahead of no edit and of the best classic correction.

    Args:
        table: The benchmark's table.

    Returns:
        Flat numbers, rounded as in the table.
    """
    rows, agent = table["rows"], table["rows"][AGENT]
    strongest = max(table["classics"], key=lambda name: rows[name]["psnr"]["mean"])
    nearest = min(table["classics"], key=lambda name: rows[name]["delta_e"]["mean"])
    return {
        "psnr": agent["psnr"]["mean"],
        "delta_e": agent["delta_e"]["mean"],
        "psnr_over_no_edit": table["ahead_of"]["no edit"]["psnr"]["mean"],
        "psnr_over_best_classic": table["ahead_of"][strongest]["psnr"]["mean"],
        "delta_e_over_best_classic": table["ahead_of"][nearest]["delta_e"]["mean"],
        "clean_delta_e": agent.get("clean_delta_e", {}).get("mean"),
        "worsened": agent["worsened"]["mean"],
    }


def _method_rows(rows: dict[str, Any]) -> list[dict[str, Any]]:
    ordered = sorted(rows, key=lambda method: rows[method]["psnr"]["mean"], reverse=True)
    return [
        {
            "method": method,
            **{metric: rows[method][metric]["mean"] for metric in ("psnr", "delta_e", "ssim", "improved")},
        }
        for method in ordered
    ]


def _read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
