"""What must hold for the retoucher's pairs before anything is learned from them, as expectations for the gate."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import great_expectations.expectations as gxe
import numpy as np
import pandas as pd

from vernissage.core.devices import usable_cores
from vernissage.core.errors import CorruptArtifact, MissingArtifact
from vernissage.core.files import sha256_file
from vernissage.core.gate_spec import Gate, TableExpectation
from vernissage.core.images import load_rgb8
from vernissage.core.progress import Progress
from vernissage.retoucher.domain.faults import FAULTS
from vernissage.retoucher.prepare.degrade import PAIRS_TABLE
from vernissage.retoucher.prepare.flow import ordered_map
from vernissage.retoucher.prepare.score import HIGHEST_SCORE, LOWEST_SCORE
from vernissage.retoucher.prepare.splits import SPLITS
from vernissage.retoucher.prepare.tables import PAIR_COLUMNS, read_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

GATE_NAME = "retoucher"
_NUMBERS = ("pair_id", "image_id", "n_faults", "seed", "delta_e", "psnr", "width", "height", "score")
_FAULT_KEYS = {"name", "value", "unit"}
# A monochrome photo never gets a saturation fault, so this kind may be as rare as colour photos are.
_KINDS_OF_COLOUR = frozenset({"saturation"})
_STANDARD_ERRORS = 4
_MOST_READERS = 4


@dataclass(frozen=True)
class GateLimits:
    """Where the gate draws its lines.

    Attributes:
        long_edge: Longest side of a photo in pixels (``resize.long_edge``).
        faults_max: Most faults in a copy (``degrade.faults_max``).
        clean_share: Wanted share of clean pairs (``degrade.clean_share``).
        kinds: Faults that there may be (``degrade.kinds``).
        clean_tolerance: How far the share of clean pairs may be from it.
        max_category_share: Largest share of the pairs that one category may have where there are several.
        kind_tolerance: How much more or less often than the others a kind of fault may occur, as a share of what is
            expected and beyond four standard errors.
    """

    long_edge: int
    faults_max: int
    clean_share: float
    kinds: tuple[str, ...] = tuple(FAULTS)
    clean_tolerance: float = 0.05
    max_category_share: float = 0.95
    kind_tolerance: float = 0.25


@dataclass(frozen=True)
class _Files:
    """What was found on disk for one pair; None where a question makes no sense because the answer before it was no."""

    original_exists: bool
    faulty_exists: bool
    original_matches: bool | None
    faulty_matches: bool | None
    decodes: bool | None
    size_matches: bool | None
    clean_is_equal: bool | None


def retoucher_gate(ready: Path, limits: GateLimits) -> Gate:
    """Look at the pairs and their files, and say what must hold for them.

    Args:
        ready: Folder with ``pairs.csv``, ``original/`` and ``faulty/``.
        limits: Where the lines are.

    Returns:
        Tables ``pairs`` (one row per pair with what was found on disk), ``groups`` and ``originals`` (one row each,
        with the number of splits), ``splits``, ``categories``, ``faults`` (one row per fault), ``kinds``, ``dataset``.

    Raises:
        MissingArtifact: If ``pairs.csv`` is not there.
        CorruptArtifact: If ``pairs.csv`` is not a table of pairs, or lists none.
    """
    pairs = read_pairs(ready)
    return Gate(
        GATE_NAME, gate_tables(pairs, look_at_files(ready, pairs), limits.kinds), expectations(limits, len(pairs))
    )


def read_pairs(ready: Path) -> pd.DataFrame:
    """Load ``pairs.csv`` with numbers as numbers; what is no number becomes empty, which the gate reports.

    Args:
        ready: Folder of the pairs.

    Raises:
        MissingArtifact: If the file is not there.
        CorruptArtifact: If it has other columns, or no rows.
    """
    rows = read_table(ready / PAIRS_TABLE, PAIR_COLUMNS)
    if not rows:
        raise CorruptArtifact(f"{ready / PAIRS_TABLE}: lists no pairs; run `dvc repro degrade-split`")
    pairs = pd.DataFrame(rows, columns=list(PAIR_COLUMNS), dtype=object)
    for column in _NUMBERS:
        pairs[column] = pd.to_numeric(pairs[column], errors="coerce")
    return pairs


def look_at_files(ready: Path, pairs: pd.DataFrame) -> pd.DataFrame:
    """Hash and decode the files of every pair.

    Args:
        ready: Folder of the pairs.
        pairs: As :func:`read_pairs` returns it.

    Returns:
        One row per pair: existence, hash, decoding, size and equality as True, False or None (not applicable).
    """
    # Pairs of one photo stand together: its original is then read once.
    photos = [list(rows) for _, rows in groupby(pairs.to_dict("records"), key=lambda row: str(row["original"]))]
    found: list[_Files] = []
    with Progress("validate", total=len(pairs), unit="pairs") as progress:
        for files in ordered_map(
            lambda rows: _look_at(ready, rows), photos, threads=min(_MOST_READERS, usable_cores())
        ):
            found += files
            progress.advance(len(files))
    return pd.DataFrame([vars(files) for files in found], dtype=object)


def gate_tables(
    pairs: pd.DataFrame, files: pd.DataFrame, kinds: Sequence[str] = tuple(FAULTS)
) -> dict[str, pd.DataFrame]:
    """Derive the tables that the expectations are about; no file is touched.

    Args:
        pairs: As :func:`read_pairs` returns it.
        files: As :func:`look_at_files` returns it.
        kinds: Faults that there may be.

    Returns:
        Table name to table.
    """
    lists = [_read_faults(text) for text in pairs["faults"]]
    faults = _fault_rows(pairs, lists)
    full = pairs.assign(**{column: list(files[column]) for column in files.columns})
    full["empty_cells"] = [_empty_cells(row) for row in pairs.to_dict("records")]
    full["faults_problem"] = ["" if found is not None else "not a list of faults" for found in lists]
    # Empty where the list cannot be read, which is reported by itself.
    full["n_listed"] = [np.nan if found is None else len(found) for found in lists]
    full["repeated_faults"] = [np.nan if found is None else _repeated(found) for found in lists]
    full["long_edge"] = pairs[["width", "height"]].max(axis=1)
    # Empty where the other kind is meant, so that each expectation is about its own pairs.
    full["faulty_delta_e"] = pairs["delta_e"].where(pairs["n_faults"] > 0)
    full["clean_delta_e"] = pairs["delta_e"].where(pairs["n_faults"] == 0)
    return {
        "pairs": full,
        "groups": _splits_of(pairs, "group"),
        "originals": _splits_of(pairs, "original_sha256"),
        "splits": pd.DataFrame({"split": list(SPLITS), "pairs": [int((pairs["split"] == s).sum()) for s in SPLITS]}),
        "categories": _shares(pairs["category"], "category"),
        "faults": faults,
        "kinds": _kind_shares(faults, kinds),
        "dataset": pd.DataFrame({"pairs": [len(pairs)], "clean_share": [float((pairs["n_faults"] == 0).mean())]}),
    }


def expectations(limits: GateLimits, n_pairs: int) -> list[TableExpectation]:
    """All that must hold, in the order in which findings are reported.

    Args:
        limits: Where the lines are.
        n_pairs: Number of pairs.
    """
    return [
        *_expect_of_rows(limits, n_pairs),
        *_expect_of_files(),
        *_expect_of_faults(limits),
        *_expect_of_dataset(limits, n_pairs),
    ]


def _expect_of_rows(limits: GateLimits, n_pairs: int) -> list[TableExpectation]:
    return [
        _that("pairs", "every cell is filled with a value of its type", gxe.ExpectColumnValuesToBeInSet(
            column="empty_cells", value_set=[""])),
        _that("pairs", "pair numbers are unique", gxe.ExpectColumnValuesToBeUnique(column="pair_id")),
        _that("pairs", "pair numbers run from 1 to the number of pairs", gxe.ExpectColumnValuesToBeBetween(
            column="pair_id", min_value=1, max_value=n_pairs)),
        _that("pairs", "scores lie between 0 and 10", gxe.ExpectColumnValuesToBeBetween(
            column="score", min_value=LOWEST_SCORE, max_value=HIGHEST_SCORE)),
        _that("pairs", "splits are train, val and test", gxe.ExpectColumnValuesToBeInSet(
            column="split", value_set=list(SPLITS))),
        _that("pairs", "widths are positive", gxe.ExpectColumnValuesToBeBetween(column="width", min_value=1)),
        _that("pairs", "heights are positive", gxe.ExpectColumnValuesToBeBetween(column="height", min_value=1)),
        _that("pairs", "no photo is larger than resize.long_edge", gxe.ExpectColumnValuesToBeBetween(
            column="long_edge", max_value=limits.long_edge)),
    ]  # fmt: skip


def _expect_of_files() -> list[TableExpectation]:
    meanings = {
        "original_exists": "the original is on disk",
        "faulty_exists": "the faulty copy is on disk",
        "original_matches": "the original has the hash that was written down",
        "faulty_matches": "the faulty copy has the hash that was written down",
        "decodes": "both pictures can be decoded",
        "size_matches": "both pictures have the width and height that were written down",
        "clean_is_equal": "a copy without faults equals its original, pixel by pixel",
    }
    return [
        _that("pairs", meaning, gxe.ExpectColumnValuesToBeInSet(column=column, value_set=[True]))
        for column, meaning in meanings.items()
    ]


def _expect_of_faults(limits: GateLimits) -> list[TableExpectation]:
    return [
        _that("pairs", "the list of faults can be read", gxe.ExpectColumnValuesToBeInSet(
            column="faults_problem", value_set=[""])),
        _that("pairs", "no more faults than degrade.faults_max", gxe.ExpectColumnValuesToBeBetween(
            column="n_faults", min_value=0, max_value=limits.faults_max)),
        _that("pairs", "the number of faults is that of the list", gxe.ExpectColumnPairValuesToBeEqual(
            column_A="n_faults", column_B="n_listed", ignore_row_if="either_value_is_missing")),
        _that("pairs", "no fault happens twice to one copy", gxe.ExpectColumnValuesToBeInSet(
            column="repeated_faults", value_set=[0])),
        _that("faults", "every kind of fault is known", gxe.ExpectColumnValuesToBeInSet(
            column="name", value_set=list(limits.kinds))),
        _that("faults", "every fault's amount lies in the range of its kind", gxe.ExpectColumnValuesToBeInSet(
            column="in_range", value_set=[True])),
        _that("pairs", "a faulty copy differs from its original", gxe.ExpectColumnValuesToBeBetween(
            column="faulty_delta_e", min_value=0, strict_min=True)),
        _that("pairs", "a clean copy does not", gxe.ExpectColumnValuesToBeInSet(
            column="clean_delta_e", value_set=[0.0])),
    ]  # fmt: skip


def _expect_of_dataset(limits: GateLimits, n_pairs: int) -> list[TableExpectation]:
    # Each split rounds its number of clean pairs, which shows in a small dataset.
    tolerance = limits.clean_tolerance + len(SPLITS) / (2 * n_pairs)
    low, high = limits.clean_share - tolerance, limits.clean_share + tolerance
    return [
        _that("splits", "every split has pairs", gxe.ExpectColumnValuesToBeBetween(column="pairs", min_value=1)),
        _that("groups", "no group of related photos is in two splits", gxe.ExpectColumnValuesToBeInSet(
            column="splits", value_set=[1])),
        _that("originals", "no original is in two splits", gxe.ExpectColumnValuesToBeInSet(
            column="splits", value_set=[1])),
        _that("categories", "no category outweighs the others", gxe.ExpectColumnValuesToBeBetween(
            column="share", max_value=limits.max_category_share)),
        _that("kinds", "every kind of fault has its fair share", gxe.ExpectColumnValuesToBeBetween(
            column="deviation", max_value=limits.kind_tolerance)),
        _that("dataset", "the share of clean pairs is about degrade.clean_share", gxe.ExpectColumnValuesToBeBetween(
            column="clean_share", min_value=max(0.0, low), max_value=min(1.0, high))),
    ]  # fmt: skip


def _that(table: str, meaning: str, expectation: Any) -> TableExpectation:
    return TableExpectation(table, expectation, meaning)


def _look_at(ready: Path, rows: Sequence[Mapping[str, Any]]) -> list[_Files]:
    """Files of pairs that share an original."""
    original = ready / str(rows[0]["original"])
    original_sha256, original_pixels = _hash_and_pixels(original)
    found = []
    for row in rows:
        sha256, pixels = _hash_and_pixels(ready / str(row["faulty"]))
        both = original_sha256 is not None and sha256 is not None
        size_matches = clean_is_equal = None
        if original_pixels is not None and pixels is not None:
            size_matches = original_pixels.shape == pixels.shape == (row["height"], row["width"], 3)
            if row["n_faults"] == 0 and original_pixels.shape == pixels.shape:
                clean_is_equal = bool(np.array_equal(original_pixels, pixels))
        found.append(
            _Files(
                original_exists=original_sha256 is not None,
                faulty_exists=sha256 is not None,
                original_matches=None if original_sha256 is None else original_sha256 == row["original_sha256"],
                faulty_matches=None if sha256 is None else sha256 == row["faulty_sha256"],
                decodes=(original_pixels is not None and pixels is not None) if both else None,
                size_matches=size_matches,
                clean_is_equal=clean_is_equal,
            )
        )
    return found


def _hash_and_pixels(path: Path) -> tuple[str | None, np.ndarray | None]:
    """A file's hash, None where there is no file; its pixels, None where they cannot be decoded."""
    try:
        sha256 = sha256_file(path)
        return sha256, load_rgb8(path)
    except MissingArtifact:
        return None, None
    except CorruptArtifact:
        return sha256, None


def _empty_cells(row: Mapping[str, Any]) -> str:
    """Names of the columns in which a row has nothing, or no number where one belongs."""
    return " ".join(name for name, value in row.items() if pd.isna(value) or value == "")


def _read_faults(text: str) -> list[dict[str, Any]] | None:
    """The list of faults in a cell, None where there is no such list."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    if not isinstance(found, list):
        return None
    if not all(isinstance(item, dict) and set(item) == _FAULT_KEYS for item in found):
        return None
    return found if all(isinstance(item["value"], int | float) for item in found) else None


def _repeated(faults: Sequence[Mapping[str, Any]]) -> int:
    return len(faults) - len({fault["name"] for fault in faults})


def _fault_rows(pairs: pd.DataFrame, lists: Sequence[list[dict[str, Any]] | None]) -> pd.DataFrame:
    rows = [
        {
            "pair_id": pair_id,
            "name": fault["name"],
            "value": float(fault["value"]),
            "in_range": FAULTS[fault["name"]].contains(fault["value"]) if fault["name"] in FAULTS else None,
        }
        for pair_id, faults in zip(pairs["pair_id"], lists, strict=True)
        for fault in faults or []
    ]
    return pd.DataFrame(rows, columns=["pair_id", "name", "value", "in_range"]).astype({"in_range": object})


def _splits_of(pairs: pd.DataFrame, column: str) -> pd.DataFrame:
    """One row per value of a column: in how many splits it occurs, and in which pairs first."""
    grouped = pairs.groupby(column, sort=True)
    return pd.DataFrame(
        {
            "example_pair_id": grouped["pair_id"].first(),
            "splits": grouped["split"].nunique(),
            "in_splits": grouped["split"].agg(lambda splits: " ".join(sorted(set(splits)))),
        }
    ).reset_index()


def _shares(values: pd.Series, name: str) -> pd.DataFrame:
    """One row per value with its share of all, which is empty where one value stands alone: nothing to balance."""
    counts = values.value_counts(sort=False).sort_index()
    shares = counts / counts.sum() if len(counts) > 1 else counts * np.nan
    return pd.DataFrame({name: counts.index, "pairs": counts.to_numpy(), "share": shares.to_numpy()})


def _kind_shares(faults: pd.DataFrame, kinds: Sequence[str]) -> pd.DataFrame:
    """One row per kind: how often it occurs, and how far that is from an equal share beyond what chance explains."""
    counts = faults["name"].value_counts().reindex(list(kinds), fill_value=0).astype(float)
    expected = max(float(counts.sum()) / len(kinds), 1e-9)
    off = counts - expected
    for kind in _KINDS_OF_COLOUR.intersection(kinds):
        off[kind] = max(0.0, off[kind])
    deviation = (off.abs() - _STANDARD_ERRORS * np.sqrt(expected)).clip(lower=0) / expected
    return pd.DataFrame({"kind": counts.index, "faults": counts.to_numpy(), "deviation": deviation.to_numpy()})
