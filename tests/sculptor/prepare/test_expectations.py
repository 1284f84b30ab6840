"""The gate: a sound dataset passes, and every damage is found by the expectation that is about it and by no other."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import great_expectations as gx
import numpy as np
import pytest
from great_expectations.data_context.types.base import ProgressBarsConfig

from tests.sculptor.prepare.trees import stick, write_all
from vernissage.core.errors import GateFailed
from vernissage.pipeline.gates import require_passed, run_gate, write_gate
from vernissage.sculptor.domain.dataset import Dataset
from vernissage.sculptor.prepare.expectations import GateLimits, expectations, gate_tables, sculptor_gate
from vernissage.sculptor.prepare.ingest import ingest_structures
from vernissage.sculptor.prepare.structures import StructureSettings, make_structures

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pandas as pd

LIMITS = GateLimits()


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("sound")
    write_all(folder / "mine", {f"s{number}.schem": stick(number) for number in range(3, 7)})
    ingest_structures(folder / "mine", folder / "own", workers=1)
    settings = StructureSettings({"normal": 250}, {"normal": 10}, {"normal": 10}, workers=1)
    return make_structures(folder / "own", folder / "ready", settings)


@pytest.fixture(scope="module")
def failed(sound: Dataset) -> Callable[[dict[str, pd.DataFrame], GateLimits], list[str]]:
    """The meanings of what fails; columns that are as in the sound dataset are not looked at again."""
    tables_before = gate_tables(sound)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("tables").add_dataframe_asset("table")
    whole = asset.add_batch_definition_whole_dataframe("all rows")

    def check(tables: dict[str, pd.DataFrame], limits: GateLimits) -> list[str]:
        found = []
        for item in expectations(limits):
            table, column = tables[item.table], item.expectation.column
            limited = limits != LIMITS and item.table in {"species", "values", "own"}
            if not limited and table[column].equals(tables_before[item.table][column]):
                continue
            if not whole.get_batch({"dataframe": table}).validate(item.expectation).success:
                found.append(item.meaning)
        return found

    return check


def test_a_sound_dataset_passes(sound: Dataset) -> None:
    gate = sculptor_gate(sound, LIMITS)
    result = run_gate(gate)
    assert result.passed, result.failed_findings
    assert len(result.findings) == len(expectations(LIMITS))
    # An expectation about a column of nothing would pass whatever happens.
    for item in gate.expectations:
        assert gate.tables[item.table][item.expectation.column].notna().all(), item.meaning
    assert len(gate.tables["species"]) == 11
    assert len(gate.tables["values"]) == 34
    (observed,) = (finding.observed for finding in result.findings if finding.column == "whole_share")
    assert observed == 1, "the share is told whether it fails or not"


def _cell(column: str, value: object, row: int = 7) -> Callable[[Dataset], Dataset]:
    def damage(dataset: Dataset) -> Dataset:
        table = dataset.table.copy()
        table.loc[row, column] = value
        return Dataset(dataset.grids, table)

    return damage


def _all(column: str, value: object, where: Callable[[pd.DataFrame], pd.Series]) -> Callable[[Dataset], Dataset]:
    def damage(dataset: Dataset) -> Dataset:
        table = dataset.table.copy()
        table.loc[where(table), column] = value
        return Dataset(dataset.grids, table)

    return damage


def _ends(values: pd.Series) -> np.ndarray:
    """The first row and the last, which is of another split."""
    return np.isin(np.arange(len(values)), [4, len(values) - 1])


def _grid(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Dataset], Dataset]:
    def damage(dataset: Dataset) -> Dataset:
        grids = [*dataset.grids]
        grids[7] = change(grids[7])
        return Dataset(tuple(grids), dataset.table)

    return damage


def _on_leaves(grid: np.ndarray) -> np.ndarray:
    grid = grid.copy()
    grid[0][grid[0] > 0] = 3
    return grid


def _with_roof(grid: np.ndarray) -> np.ndarray:
    return np.concatenate([grid, np.full((17 - len(grid), *grid.shape[1:]), 3, np.uint8)])


def _leak(dataset: Dataset) -> Dataset:
    """A held-out tree, turned, stands in for a train tree."""
    table = dataset.table
    held_out, taught = (int(np.flatnonzero(table["split"] == split)[0]) for split in ("test", "train"))
    grids = [*dataset.grids]
    grids[taught] = np.rot90(grids[held_out], axes=(1, 2))
    return Dataset(tuple(grids), table)


def _without(column: str, value: str) -> Callable[[Dataset], Dataset]:
    """Every tree that shows the value shows another one instead."""
    return lambda dataset: _all(column, _other(dataset, column, value), lambda table: table[column] == value)(dataset)


def _other(dataset: Dataset, column: str, value: str) -> str:
    return next(found for found in dataset.table[column] if found not in {value, None})


def _torn(dataset: Dataset) -> Dataset:
    return _all("whole", value=False, where=lambda table: table["source"] == "own")(dataset)


BREAKS: dict[str, tuple[set[str], Callable[[Dataset], Dataset]]] = {
    "an id twice": ({"no id comes twice"}, lambda data: _cell("structure_id", data.table["structure_id"][8])(data)),
    "an unknown split": ({"every split is train, val or test"}, _cell("split", "dev")),
    "too high": ({"every structure fits its size"}, _grid(_with_roof)),
    "an unknown size": ({"every structure fits its size"}, _cell("size", "tiny")),
    "room above": ({"every structure is cropped"}, _grid(lambda grid: np.pad(grid, ((0, 1), (0, 0), (0, 0))))),
    "room below": (
        {"every structure is cropped", "every grown tree stands on wood"},
        _grid(lambda grid: np.pad(grid, ((1, 0), (0, 0), (0, 0)))),
    ),
    "room beside": ({"every structure is cropped"}, _grid(lambda grid: np.pad(grid, ((0, 0), (0, 0), (1, 0))))),
    "on leaves": ({"every grown tree stands on wood"}, _grid(_on_leaves)),
    "a series in two splits": (
        {"no series is in two splits"},
        _all("series", "a", lambda table: _ends(table["split"])),
    ),
    "a tree in two splits": ({"no structure is in two splits"}, _leak),
    "in two parts": ({"every grown tree is one piece"}, _cell("whole", value=False)),
    "leaves that decay": ({"all leaves of grown trees"}, _cell("leaf_survival", 0.99)),
    "no palms": ({"no species is rarer", "grown train trees show every value"}, _without("species", "palm")),
    "no weeping crowns": ({"grown train trees show every value"}, _without("crown", "weeping")),
    "torn own structures": ({"enough of the own structures"}, _torn),
    "nothing to train with": (
        {"the train split has structures", "no species is rarer", "grown train trees show every value"},
        _all("split", "val", lambda table: table["split"] == "train"),
    ),
}


@pytest.mark.parametrize(("meanings", "damage"), BREAKS.values(), ids=BREAKS)
def test_a_damage_fails_its_expectation_and_no_other(sound, failed, meanings: set[str], damage) -> None:
    found = failed(gate_tables(damage(sound)), LIMITS)
    assert len(found) == len(meanings), found
    for meaning in meanings:
        assert any(one.startswith(meaning) for one in found), found


def test_every_expectation_has_a_damage_that_it_finds() -> None:
    tested = set().union(*(meanings for meanings, _ in BREAKS.values()))
    for item in expectations(LIMITS):
        assert any(item.meaning.startswith(meaning) for meaning in tested), item.meaning
        assert ", or " in item.meaning, "says why, too"


def test_a_bush_may_stand_on_leaves(sound: Dataset, failed) -> None:
    tables = gate_tables(_cell("species", "bush")(_grid(_on_leaves)(sound)))
    assert not [meaning for meaning in failed(tables, LIMITS) if meaning.startswith("every grown tree stands")]


def test_limits_are_limits(sound: Dataset, failed) -> None:
    rarest = gate_tables(sound)["species"]["share"].min()
    assert failed(gate_tables(sound), replace(LIMITS, least_species_share=float(rarest))) == []
    (found,) = failed(gate_tables(sound), replace(LIMITS, least_species_share=float(rarest) + 1e-6))
    assert "least_species_share" in found
    (found,) = failed(gate_tables(sound), replace(LIMITS, least_value_count=251))
    assert "least_value_count" in found
    assert failed(gate_tables(_torn(sound)), replace(LIMITS, least_own_whole=0.0)) == []


def test_a_gate_without_grown_or_own_structures(sound: Dataset) -> None:
    own = sound.part("train", source="own")
    gate = sculptor_gate(own, LIMITS)
    assert not {"grown", "species", "values"} & {*gate.tables}
    assert run_gate(gate).passed
    grown = sound.part("train", source="grown")
    assert "own" not in gate_tables(grown)


def test_a_failing_gate_shows_which_trees(sound: Dataset, tmp_path: Path) -> None:
    result = run_gate(sculptor_gate(_leak(_cell("whole", value=False)(sound)), LIMITS))
    write_gate(result, tmp_path)
    assert json.loads((tmp_path / "gate.json").read_text())["passed"] is False
    with pytest.raises(GateFailed, match=r"grown-train-normal-0000") as error:
        require_passed(result)
    assert "no structure is in two splits" in str(error.value)
