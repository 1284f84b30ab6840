"""What the stages of the sculptor leave: the benchmark's tables, facts and shown grids, and what stands beside them."""

from __future__ import annotations

import math
import zipfile
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from vernissage.core.errors import CorruptArtifact, MissingArtifact
from vernissage.core.files import atomic_path, atomic_write_json, fresh_folder, read_json
from vernissage.sculptor.domain.roles import ROLES
from vernissage.sculptor.judge.arms import OURS
from vernissage.sculptor.judge.tables import MEASURES, SUMMED

if TYPE_CHECKING:
    from pathlib import Path

    from vernissage.core.folders import SystemFolders

FACTS_FILE, GRIDS_FILE, SHOWN_FILE = "facts.json", "shown.npz", "shown.csv"
CASES_FILE = "cases.csv"
_NORMAL = "normal"
_REMEDY = "run `dvc repro benchmark@sculptor`"
_DECIMALS = 6


@dataclass(frozen=True)
class Shown:
    """One structure on a sheet of pictures.

    Attributes:
        sheet: Name of the sheet.
        row: What it belongs to there: an arm.
        caption: What stands below it.
        species: Whose palette it is shown in; None for roles in plain colours.
        grid: (Y, Z, X) uint8.
    """

    sheet: str
    row: str
    caption: str
    species: str | None
    grid: np.ndarray


@dataclass(frozen=True)
class Benchmark:
    """Everything that a benchmark measured.

    Attributes:
        tables: `items` (a row per arm, training and structure), `summary` (per arm and size), `species`, `paired`
            (against ours), `novelty`, `steps`, `fidelity`, `real`, `buckets`, `directional`, `diversity`, `clock`; a
            table without rows was not measured.
        facts: Plain JSON values.
        shown: Structures for the sheets.
    """

    tables: dict[str, pd.DataFrame]
    facts: dict[str, Any] = field(default_factory=dict)
    shown: list[Shown] = field(default_factory=list)

    def table(self, name: str) -> pd.DataFrame:
        """Return a table; an empty one where it was not measured."""
        return self.tables.get(name, pd.DataFrame())

    def save(self, folder: Path) -> None:
        """Replace what is in a folder."""
        with fresh_folder(folder) as fresh:
            for name, table in self.tables.items():
                if len(table):
                    with atomic_path(fresh / f"{name}.csv") as path:
                        table.round(_DECIMALS).to_csv(path, index=False, lineterminator="\n")
            atomic_write_json(fresh / FACTS_FILE, plain(self.facts))
            grids = [shown.grid for shown in self.shown]
            voxels = np.concatenate([grid.ravel() for grid in grids]) if grids else np.zeros(0, np.uint8)
            shapes = np.array([grid.shape for grid in grids], np.uint16).reshape(-1, 3)
            with atomic_path(fresh / GRIDS_FILE) as path:
                np.savez_compressed(path, voxels=voxels.astype(np.uint8), shapes=shapes)
            columns = ["sheet", "row", "caption", "species"]
            rows = [[getattr(shown, name) for name in columns] for shown in self.shown]
            with atomic_path(fresh / SHOWN_FILE) as path:
                pd.DataFrame(rows, columns=columns).to_csv(path, index=False, lineterminator="\n")

    @staticmethod
    def load(folder: Path) -> Benchmark:
        """Read what :meth:`save` wrote.

        Raises:
            MissingArtifact: There is none.
            CorruptArtifact: A file is damaged.
        """
        facts = read_json(folder / FACTS_FILE)
        if not isinstance(facts, dict):
            raise CorruptArtifact(f"{folder / FACTS_FILE}: holds {type(facts).__name__}, expected facts; {_REMEDY}")
        found = {path.stem: read_table(path) for path in sorted(folder.glob("*.csv")) if path.name != SHOWN_FILE}
        if "summary" not in found:
            raise MissingArtifact(f"{folder / 'summary.csv'}: no such file; {_REMEDY}")
        return Benchmark(found, facts, _load_shown(folder))


def read_table(path: Path) -> pd.DataFrame:
    """Read a table.

    Raises:
        MissingArtifact: It is not there.
        CorruptArtifact: It is no table.
    """
    try:
        return pd.read_csv(path)
    except FileNotFoundError as error:
        raise MissingArtifact(f"{path}: no such file; {_REMEDY}") from error
    except (ValueError, OSError) as error:  # EmptyDataError, ParserError and UnicodeDecodeError are ValueErrors
        raise CorruptArtifact(f"{path}: not a table ({error}); {_REMEDY}") from error


def _load_shown(folder: Path) -> list[Shown]:
    captions = read_table(folder / SHOWN_FILE)
    path = folder / GRIDS_FILE
    try:
        with np.load(path, allow_pickle=False) as file:
            voxels, shapes = file["voxels"], file["shapes"].astype(np.int64)
    except FileNotFoundError as error:
        raise MissingArtifact(f"{path}: no such file; {_REMEDY}") from error
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise CorruptArtifact(f"{path}: not readable as role grids ({error}); {_REMEDY}") from error
    ends = np.cumsum(shapes.prod(axis=1)) if shapes.ndim == 2 else np.zeros(0)
    whole = int(ends[-1]) if len(ends) else 0
    if len(shapes) != len(captions) or whole != voxels.size or (voxels.size and int(voxels.max()) >= ROLES):
        raise CorruptArtifact(
            f"{path}: {len(shapes)} grids with {voxels.size} voxels, expected {len(captions)} with {whole}; {_REMEDY}"
        )
    parts = np.split(voxels, ends[:-1]) if len(ends) else []
    rows = captions.where(captions.notna(), None).to_dict(orient="records")
    return [
        Shown(str(row["sheet"]), str(row["row"]), str(row["caption"] or ""), row["species"], part.reshape(shape))
        for row, part, shape in zip(rows, parts, shapes.tolist(), strict=True)
    ]


def plain(value: Any) -> Any:
    """The same as JSON can say it: what is no number becomes None."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True)
class Results:
    """What the stages have left.

    Attributes:
        benchmark: Its tables and facts.
        training: Name to a table of the training: `epochs`, `buckets`, `first`.
        summary: Of the training.
        cases: Of robustness; empty where it was not run.
        missing: What was not there, and what makes it.
    """

    benchmark: Benchmark
    training: dict[str, pd.DataFrame]
    summary: dict[str, Any]
    cases: pd.DataFrame
    missing: list[str]

    def row(self, arm: str, size: str = _NORMAL) -> dict[str, Any] | None:
        """Return the summary of an arm; None where it was not measured."""
        summary = self.benchmark.table("summary")
        found = summary[(summary["arm"] == arm) & (summary["size"] == size)]
        return None if found.empty else dict(found.iloc[0])


def read_results(folders: SystemFolders) -> Results:
    """Read what the stages have left, and note what is missing.

    Raises:
        MissingArtifact: There is no benchmark.
        CorruptArtifact: A result is damaged.
    """
    benchmark = Benchmark.load(folders.benchmark)
    summary = benchmark.table("summary")
    absent = [name for name in ("arm", "size", "n", *MEASURES, *SUMMED) if name not in summary]
    if summary.empty or absent:
        problem = f"no column {', '.join(absent)}" if absent else "no rows"
        raise CorruptArtifact(f"{folders.benchmark / 'summary.csv'}: {problem}; {_REMEDY}")
    missing = []
    training = {}
    for name in ("epochs", "buckets", "first"):
        path = folders.training / f"{name}.csv"
        if path.is_file() and path.stat().st_size > 1:
            training[name] = read_table(path)
        elif name != "first":
            missing.append(f"training: no {name}.csv; `dvc repro train@{folders.name}` makes it")
    facts: dict[str, Any] = {}
    try:
        facts = read_json(folders.training / "summary.json")
    except MissingArtifact:
        missing.append(f"training: no summary.json; `dvc repro train@{folders.name}` makes it")
    cases = pd.DataFrame()
    if (folders.robustness / CASES_FILE).is_file():
        cases = read_table(folders.robustness / CASES_FILE)
        if not {"name", "criterion", "passed"} <= set(cases):
            raise CorruptArtifact(f"{folders.robustness / CASES_FILE}: columns are missing; run `dvc repro robustness`")
    else:
        missing.append(f"robustness: no {CASES_FILE}; `dvc repro robustness@{folders.name}` makes it")
    missing += [
        f"benchmark: {name} was not measured"
        for name in ("directional", "diversity", "clock", "buckets")
        if benchmark.table(name).empty
    ]
    return Results(benchmark, training, facts, cases, missing)


def by_training(results: Results) -> pd.DataFrame:
    """Return connectivity and share of whole structures of ours at the normal size, a row for each training."""
    items = results.benchmark.table("items")
    if items.empty:
        return items
    own = items[(items["arm"] == OURS) & (items["size"] == _NORMAL)]
    return own.groupby("training")[["connectivity", "whole"]].mean().reset_index()


def passes(cases: pd.DataFrame) -> pd.Series:
    """Return which cases passed."""
    return cases["passed"].astype(str) == "True"


def retained(cases: pd.DataFrame) -> float | None:
    """Mean share of the quality that is retained, over the cases that are about quality."""
    shares = pd.to_numeric(cases["retained"], errors="coerce").dropna() if "retained" in cases else []
    return float(np.mean(shares)) if len(shares) else None
