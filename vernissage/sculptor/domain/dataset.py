"""The dataset of the sculptor: role grids and one table with a row for each, on disk as three checked files."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import pandas as pd

from vernissage.core.errors import CorruptArtifact, MissingArtifact
from vernissage.core.files import atomic_path, atomic_write_json, read_json, sha256_file
from vernissage.sculptor.domain.attributes import ATTRIBUTES, Attributes
from vernissage.sculptor.domain.roles import ROLES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

GRIDS_FILE, TABLE_FILE, FACTS_FILE = "grids.npz", "structures.csv", "dataset.json"
#: A species that captions do not name.
OTHER_SPECIES = "other"

ANATOMY_COLUMNS = {
    "connectivity": "float64",
    "whole": "bool",
    "one_trunk": "bool",
    "crown_above": "float64",
    "leaf_survival": "float64",
    "cast_success": "bool",
    "voxels": "int64",
    "wood": "int64",
    "leaves": "int64",
}
COLUMNS = ("structure_id", "source", "series", "split", "size", *ATTRIBUTES, *ANATOMY_COLUMNS, "palette")
_REMEDY = "run its stage again or `dvc checkout`"


@dataclass(frozen=True)
class Dataset:
    """Structures to learn from and to measure by.

    Attributes:
        grids: Role grids, (Y, Z, X) uint8 each, cropped to their bounding box.
        table: One row per grid, with `COLUMNS`: `source` is `grown` or `own`, `split` is `train`, `val` or `test`,
            `size` names the smallest size that holds the grid (for grown ones: the one that it was grown for); then
            the attributes, None where they cannot be said; the anatomy; and for own ones `palette`, the most frequent
            block state of every role as JSON.

    Raises:
        ValueError: Grids and table do not belong together.
    """

    grids: tuple[np.ndarray, ...]
    table: pd.DataFrame

    def __post_init__(self) -> None:
        if len(self.grids) != len(self.table):
            raise ValueError(f"{len(self.grids)} grids, but a table of {len(self.table)} rows: expected one row each")
        if tuple(self.table.columns) != COLUMNS:
            raise ValueError(f"a table with the columns {list(self.table.columns)}, expected {list(COLUMNS)}")

    def __len__(self) -> int:
        return len(self.grids)

    def part(self, split: str, size: str | None = None, source: str | None = None) -> Dataset:
        """Return the structures of a split, or only those of one size or source; empty where there are none."""
        chosen = np.ones(len(self), bool)
        for column, value in (("split", split), ("size", size), ("source", source)):
            if value is not None:
                chosen = chosen & (self.table[column] == value).to_numpy(bool)
        grids = tuple(self.grids[index] for index in np.flatnonzero(chosen))
        return Dataset(grids, self.table[chosen].reset_index(drop=True))

    def attributes(self) -> list[Attributes]:
        """Return what a caption may say of each structure; a species without a word for it is None."""
        columns = [self.table[name].tolist() for name in ATTRIBUTES]
        rows = (dict(zip(ATTRIBUTES, values, strict=True)) for values in zip(*columns, strict=True))
        return [Attributes(**row | {"species": _spoken(row["species"])}) for row in rows]

    def save(self, folder: Path) -> None:
        """Write `grids.npz`, `structures.csv`, and `dataset.json` with their hashes; same data, same bytes.

        Args:
            folder: Made if it is not there.
        """
        shapes = np.array([grid.shape for grid in self.grids], np.uint16).reshape(-1, 3)
        voxels = np.concatenate([grid.ravel() for grid in self.grids]) if self.grids else np.zeros(0, np.uint8)
        with atomic_path(folder / GRIDS_FILE) as path:
            np.savez_compressed(path, voxels=voxels.astype(np.uint8, copy=False), shapes=shapes)
        with atomic_path(folder / TABLE_FILE) as path:
            self.table.to_csv(path, index=False, lineterminator="\n")
        hashes = {name: sha256_file(folder / name) for name in (GRIDS_FILE, TABLE_FILE)}
        atomic_write_json(folder / FACTS_FILE, {"sha256": hashes, "structures": len(self)})

    @staticmethod
    def load(folder: Path) -> Dataset:
        """Read what :meth:`save` wrote.

        Raises:
            MissingArtifact: If a file is not there.
            CorruptArtifact: If a hash, a length, a column or a role is not what was written.
        """
        _require_hashes(folder)
        grids = _read_grids(folder / GRIDS_FILE)
        table = _read_table(folder / TABLE_FILE)
        if len(grids) != len(table):
            _corrupt(folder / TABLE_FILE, f"has {len(table)} rows, but {GRIDS_FILE} has {len(grids)} grids")
        return Dataset(grids, table)


def measured_columns(attributes: Attributes, anatomy: object) -> dict[str, Any]:
    """Return the table's columns that are measured on a structure.

    Args:
        attributes: Of the structure; without a species it is `other`.
        anatomy: Of the structure, see :func:`vernissage.sculptor.domain.anatomy.judge_anatomy`.
    """
    said = {name: getattr(attributes, name) for name in ATTRIBUTES}
    measured = {name: getattr(anatomy, name) for name in ANATOMY_COLUMNS}
    return said | {"species": attributes.species or OTHER_SPECIES} | measured


def table_of(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return rows as the table of a dataset, with the types that it has after it was read."""
    return pd.DataFrame({name: pd.Series([row[name] for row in rows], dtype=kind) for name, kind in _types().items()})


def _spoken(species: str | None) -> str | None:
    return None if species == OTHER_SPECIES else species


def _corrupt(path: Path, problem: str) -> NoReturn:
    raise CorruptArtifact(f"{path}: {problem}; {_REMEDY}")


def _require_hashes(folder: Path) -> None:
    facts = read_json(folder / FACTS_FILE)
    hashes = facts.get("sha256") if isinstance(facts, dict) else None
    if not isinstance(hashes, dict):
        _corrupt(folder / FACTS_FILE, "has no hashes, expected `sha256` with one for each file")
    for name in (GRIDS_FILE, TABLE_FILE):
        if not (folder / name).is_file():
            raise MissingArtifact(f"{folder / name}: no such file; run the stage that makes it, or `dvc pull`")
        if (found := sha256_file(folder / name)) != hashes.get(name):
            _corrupt(folder / name, f"has the hash {found[:12]}, but {FACTS_FILE} says {str(hashes.get(name))[:12]}")


def _read_grids(path: Path) -> tuple[np.ndarray, ...]:
    try:
        with np.load(path, allow_pickle=False) as file:
            voxels, shapes = file["voxels"], file["shapes"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise CorruptArtifact(f"{path}: not readable as role grids ({error}); {_REMEDY}") from error
    if voxels.dtype != np.uint8 or voxels.ndim != 1 or shapes.dtype != np.uint16 or shapes.shape[1:] != (3,):
        _corrupt(path, f"holds voxels {voxels.dtype} {voxels.shape} and shapes {shapes.dtype} {shapes.shape}")
    ends = np.cumsum(shapes.astype(np.int64).prod(axis=1))
    if int(ends[-1] if len(ends) else 0) != len(voxels) or (shapes == 0).any():
        _corrupt(path, f"holds {len(voxels)} voxels, but shapes that need {int(ends[-1]) if len(ends) else 0}")
    if len(voxels) and int(voxels.max()) >= ROLES:
        _corrupt(path, f"holds the role {int(voxels.max())}, expected roles from 0 to {ROLES - 1}")
    parts = np.split(voxels, ends[:-1])
    return tuple(part.reshape(shape) for part, shape in zip(parts, map(tuple, shapes.tolist()), strict=False))


def _read_table(path: Path) -> pd.DataFrame:
    # Python's own reading of floats is exact, unlike the fast one of pandas.
    types = {name: "object" if kind == "float64" else kind for name, kind in _types().items()}
    try:
        table = pd.read_csv(path, dtype=types, keep_default_na=False, na_values=[""], encoding="utf-8")
        table = table.astype({name: kind for name, kind in _types().items() if name in table.columns})
    except (ValueError, TypeError, OSError) as error:  # ParserError and UnicodeDecodeError are ValueErrors
        raise CorruptArtifact(f"{path}: not readable as the table of a dataset ({error}); {_REMEDY}") from error
    if tuple(table.columns) != COLUMNS:
        _corrupt(path, f"has the columns {list(table.columns)}, expected {list(COLUMNS)}")
    for name in COLUMNS:
        if name not in ANATOMY_COLUMNS:
            table[name] = table[name].where(table[name].notna(), None)
    return table


def _types() -> dict[str, str]:
    return {name: ANATOMY_COLUMNS.get(name, "object") for name in COLUMNS}
