"""What must hold for the sculptor's structures before anything is learned from them, as expectations for the gate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import great_expectations.expectations as gxe
import numpy as np
import pandas as pd

from vernissage.core.gate_spec import Gate, TableExpectation
from vernissage.sculptor.domain.attributes import ATTRIBUTES
from vernissage.sculptor.domain.roles import LEAVES, WOODS
from vernissage.sculptor.domain.sizes import SIZES, Size
from vernissage.sculptor.prepare.series import SPLITS
from vernissage.sculptor.prepare.symmetry import symmetry_key

if TYPE_CHECKING:
    from vernissage.sculptor.domain.dataset import Dataset

GATE_NAME = "sculptor"


@dataclass(frozen=True)
class GateLimits:
    """Where the gate draws its lines.

    Attributes:
        least_species_share: Smallest share of the grown train trees that each species must have.
        least_value_count: How many grown train trees must show each value of each attribute.
        least_own_whole: Smallest share of the own structures that must be in one piece.
    """

    least_species_share: float = 0.02
    least_value_count: int = 1
    least_own_whole: float = 0.5


def sculptor_gate(dataset: Dataset, limits: GateLimits) -> Gate:
    """Look at the dataset and say what must hold for it.

    Args:
        dataset: From the stage `structures`.
        limits: Where the lines are.

    Returns:
        Tables ``structures`` and ``grown`` (one row each), ``series`` and ``shapes`` (one row for each, with the number
        of splits), ``splits``, and, where trees were grown, ``species`` and ``values``; where there are own
        structures, ``own``.
    """
    tables = gate_tables(dataset)
    return Gate(GATE_NAME, tables, [item for item in expectations(limits) if item.table in tables])


def gate_tables(dataset: Dataset) -> dict[str, pd.DataFrame]:
    """Derive the tables that the expectations are about; no file is touched.

    Returns:
        Table name to table. Those about grown or own structures are left out where there are none.
    """
    structures = _structures(dataset)
    tables = {
        "structures": structures,
        "series": _splits_of(structures, "series"),
        "shapes": _splits_of(structures, "shape"),
        "splits": pd.DataFrame({"split": ["train"], "structures": [int((structures["split"] == "train").sum())]}),
    }
    grown = structures[structures["source"] == "grown"]
    if len(grown):
        train = dataset.table[(dataset.table["source"] == "grown") & (dataset.table["split"] == "train")]
        tables |= {"grown": grown.reset_index(drop=True), "species": _species(train), "values": _values(train)}
    own = structures[structures["source"] == "own"]
    if len(own):
        tables["own"] = pd.DataFrame({"structures": [len(own)], "whole_share": [float(own["whole"].mean())]})
    return tables


def expectations(limits: GateLimits) -> list[TableExpectation]:
    """All that must hold, in the order in which findings are reported.

    Args:
        limits: Where the lines are.
    """
    return [
        _that("structures", "no id comes twice, or one structure would stand for two",
            gxe.ExpectColumnValuesToBeUnique(column="structure_id")),
        _that("structures", "every split is train, val or test, or nobody sees the structure",
            gxe.ExpectColumnValuesToBeInSet(column="split", value_set=list(SPLITS))),
        _that("structures", "every structure fits its size, or the canvas would cut it",
            gxe.ExpectColumnValuesToBeInSet(column="fits", value_set=[True])),
        _that("structures", "every structure is cropped to what it holds, or the canvas would place it by its air",
            gxe.ExpectColumnValuesToBeInSet(column="cropped", value_set=[True])),
        _that("splits", "the train split has structures, or nothing can be learned",
            gxe.ExpectColumnValuesToBeBetween(column="structures", min_value=1)),
        _that("series", "no series is in two splits, or variants of one build make remembering look like learning",
            gxe.ExpectColumnValuesToBeInSet(column="splits", value_set=[1])),
        _that("shapes", "no structure is in two splits, turned or mirrored ones included, or what is held out was seen",
            gxe.ExpectColumnValuesToBeInSet(column="splits", value_set=[1])),
        _that("grown", "every grown tree is one piece, or floating parts are what is taught",
            gxe.ExpectColumnValuesToBeInSet(column="whole", value_set=[True])),
        _that("grown", "every grown tree stands on wood, a bush on leaves at least, or trees would hover",
            gxe.ExpectColumnValuesToBeInSet(column="grounded", value_set=[True])),
        _that("grown", "all leaves of grown trees are within six steps of wood, or the game would let them decay",
            gxe.ExpectColumnValuesToBeBetween(column="leaf_survival", min_value=1.0)),
        _that("species", "no species is rarer among grown train trees than validate.sculptor.least_species_share, or "
            "it is not learned", gxe.ExpectColumnValuesToBeBetween(
                column="share", min_value=limits.least_species_share)),
        _that("values", "grown train trees show every value that captions speak of "
            "(validate.sculptor.least_value_count), or the word means nothing",
            gxe.ExpectColumnValuesToBeBetween(column="trees", min_value=limits.least_value_count)),
        _that("own", "enough of the own structures are one piece (validate.sculptor.least_own_whole), or floating "
            "parts are what is learned from them",
            gxe.ExpectColumnMeanToBeBetween(column="whole_share", min_value=limits.least_own_whole)),
    ]  # fmt: skip


def _that(table: str, meaning: str, expectation: Any) -> TableExpectation:
    return TableExpectation(table, expectation, meaning)


def _structures(dataset: Dataset) -> pd.DataFrame:
    """One row per structure; what can be seen on the grid is looked at again rather than believed."""
    columns = ["structure_id", "source", "series", "split", "size", "species", "whole", "leaf_survival"]
    table = dataset.table[columns].copy()
    sizes = table["size"].tolist()
    table["fits"] = [_fits(grid, size) for grid, size in zip(dataset.grids, sizes, strict=True)]
    table["cropped"] = [_is_cropped(grid) for grid in dataset.grids]
    table["grounded"] = [
        _stands(grid, species) for grid, species in zip(dataset.grids, table["species"].tolist(), strict=True)
    ]
    table["shape"] = [symmetry_key(grid) for grid in dataset.grids]
    # Without leaves there are none that could decay.
    table["leaf_survival"] = table["leaf_survival"].fillna(1.0)
    return table


def _fits(grid: np.ndarray, size: str) -> bool:
    height, depth, width = grid.shape
    return size in SIZES and SIZES[size].holds(Size(width, height, depth))


def _is_cropped(grid: np.ndarray) -> bool:
    ends = (index for axis in range(3) for index in (grid.take(0, axis), grid.take(-1, axis)))
    return all(bool(end.any()) for end in ends)


def _stands(grid: np.ndarray, species: str) -> bool:
    carrying = [*WOODS, *LEAVES] if species == "bush" else [*WOODS]
    return bool(np.isin(grid[0], carrying).any())


def _splits_of(structures: pd.DataFrame, column: str) -> pd.DataFrame:
    """One row per value: in how many splits it is, and in which."""
    grouped = structures.groupby(column, sort=True)["split"]
    found = pd.DataFrame(
        {
            "splits": grouped.nunique(),
            "in_splits": grouped.agg(lambda splits: " ".join(sorted(set(splits)))),
            "first_id": structures.groupby(column, sort=True)["structure_id"].first(),
        }
    )
    return found.reset_index(names=f"{column}_id")


def _species(train: pd.DataFrame) -> pd.DataFrame:
    names = ATTRIBUTES["species"]
    counts = [int((train["species"] == name).sum()) for name in names]
    shares = [count / max(1, len(train)) for count in counts]
    return pd.DataFrame({"species_id": list(names), "trees": counts, "share": shares})


def _values(train: pd.DataFrame) -> pd.DataFrame:
    rows = [
        {"value_id": f"{name}: {value}", "trees": int((train[name] == value).sum())}
        for name, values in ATTRIBUTES.items()
        for value in values
    ]
    return pd.DataFrame(rows)
