"""The dataset on disk: what was saved comes back to the bit, and whatever is not what was saved is refused."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from vernissage.core.errors import CorruptArtifact, MissingArtifact
from vernissage.core.files import sha256_file
from vernissage.sculptor.domain.anatomy import judge_anatomy
from vernissage.sculptor.domain.attributes import ATTRIBUTES, measure_attributes
from vernissage.sculptor.domain.dataset import COLUMNS, Dataset, measured_columns, table_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SPECIES = ("oak", None, "dark oak")


def a_grid(number: int) -> np.ndarray:
    rng = np.random.default_rng(number)
    return rng.integers(0, 9, size=tuple(rng.integers(1, 7, size=3)), dtype=np.uint8)


def a_row(number: int, grid: np.ndarray) -> dict[str, Any]:
    attributes = measure_attributes(grid, species=SPECIES[number % 3])
    row = {
        "structure_id": f"s{number}",
        "source": "own" if number % 4 == 0 else "grown",
        "series": 'a, "b"' if number % 5 == 0 else f"NA/{number}",
        "split": ("train", "train", "val", "test")[number % 4],
        "size": ("normal", "big", "huge")[number % 3],
        "palette": json.dumps({"WOOD": "minecraft:oak_log[axis=y]"}) if number % 4 == 0 else None,
    }
    return row | measured_columns(attributes, judge_anatomy(grid))


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    # One without any tree: nothing about it can be said, and most measures are nan.
    grids = (*(a_grid(number) for number in range(23)), np.zeros((1, 1, 1), np.uint8))
    return Dataset(grids, table_of([a_row(number, grid) for number, grid in enumerate(grids)]))


def test_what_was_saved_comes_back(dataset: Dataset, tmp_path: Path) -> None:
    dataset.save(tmp_path)
    loaded = Dataset.load(tmp_path)
    assert loaded.table.equals(dataset.table)
    assert (loaded.table.dtypes == dataset.table.dtypes).all()
    assert all(a.dtype == np.uint8 and np.array_equal(a, b) for a, b in zip(loaded.grids, dataset.grids, strict=True))
    assert loaded.attributes() == dataset.attributes()


def test_the_same_data_has_the_same_bytes(dataset: Dataset, tmp_path: Path) -> None:
    dataset.save(tmp_path / "a")
    dataset.save(tmp_path / "b")
    Dataset.load(tmp_path / "a").save(tmp_path / "c")
    for file in (tmp_path / "a").iterdir():
        assert (
            file.read_bytes() == (tmp_path / "b" / file.name).read_bytes() == (tmp_path / "c" / file.name).read_bytes()
        )


def test_an_empty_dataset_comes_back(tmp_path: Path) -> None:
    Dataset((), table_of([])).save(tmp_path)
    loaded = Dataset.load(tmp_path)
    assert len(loaded) == 0
    assert tuple(loaded.table.columns) == COLUMNS


def test_parts(dataset: Dataset) -> None:
    parts = [dataset.part(split) for split in ("train", "val", "test")]
    assert sum(map(len, parts)) == len(dataset)
    narrow = dataset.part("train", size="normal", source="own")
    assert 0 < len(narrow) < len(parts[0])
    for grid, name in zip(narrow.grids, narrow.table["structure_id"], strict=True):
        assert grid is dataset.grids[int(name[1:])]
    assert len(dataset.part("train", size="tiny")) == 0


def test_attributes_are_those_that_were_measured(dataset: Dataset) -> None:
    for number, (grid, attributes) in enumerate(zip(dataset.grids, dataset.attributes(), strict=True)):
        assert attributes == measure_attributes(grid, species=SPECIES[number % 3])
        assert all(value is None or value in ATTRIBUTES[name] for name, value in asdict(attributes).items())
    assert dataset.table["species"].tolist()[1] == "other"


def test_grids_and_table_must_belong_together(dataset: Dataset) -> None:
    with pytest.raises(ValueError, match="one row each"):
        Dataset(dataset.grids[1:], dataset.table)
    with pytest.raises(ValueError, match="expected"):
        Dataset(dataset.grids, dataset.table.drop(columns="palette"))


@pytest.mark.parametrize("name", ["grids.npz", "structures.csv"])
def test_a_changed_byte_is_noticed(dataset: Dataset, tmp_path: Path, name: str) -> None:
    dataset.save(tmp_path)
    data = bytearray((tmp_path / name).read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / name).write_bytes(data)
    with pytest.raises(CorruptArtifact, match=f"{name}: has the hash"):
        Dataset.load(tmp_path)


@pytest.mark.parametrize("name", ["grids.npz", "structures.csv", "dataset.json"])
def test_a_missing_file_is_named(dataset: Dataset, tmp_path: Path, name: str) -> None:
    dataset.save(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(MissingArtifact, match=name):
        Dataset.load(tmp_path)


def _grids(**arrays: np.ndarray) -> Callable[[Path], object]:
    return lambda folder: np.savez(folder / "grids.npz", **arrays)


def _table(change: Callable[[str], str]) -> Callable[[Path], object]:
    def forge(folder: Path) -> None:
        path = folder / "structures.csv"
        path.write_text(change(path.read_text()))

    return forge


ONE = np.ones((1, 3), np.uint16)
FORGERIES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "no archive": ("not readable as role grids", lambda folder: (folder / "grids.npz").write_bytes(b"PK")),
    "no voxels": ("not readable as role grids", _grids(shapes=ONE)),
    "objects": ("not readable as role grids", _grids(voxels=np.array([{}], object), shapes=ONE)),
    "another type": ("holds voxels", _grids(voxels=np.ones(1, np.int64), shapes=ONE)),
    "too few voxels": ("holds 1 voxels", _grids(voxels=np.ones(1, np.uint8), shapes=2 * ONE)),
    "a side of nothing": ("holds 0 voxels", _grids(voxels=np.ones(0, np.uint8), shapes=0 * ONE)),
    "a mask": ("holds the role 10", _grids(voxels=np.full(1, 10, np.uint8), shapes=ONE)),
    "fewer grids": ("has 24 rows", _grids(voxels=np.ones(1, np.uint8), shapes=ONE)),
    "another column": ("has the columns", _table(lambda text: text.replace("palette", "pallet", 1))),
    "a word for a number": ("not readable as the table", _table(lambda text: text.replace(",1,", ",one,"))),
    "nothing in it": ("not readable as the table", _table(lambda text: "")),
    "no facts": ("has no hashes", lambda folder: (folder / "dataset.json").write_text("[]")),
}


@pytest.mark.parametrize(("message", "forge"), FORGERIES.values(), ids=FORGERIES)
def test_what_has_a_right_hash_and_wrong_content_is_refused(dataset, tmp_path: Path, message: str, forge) -> None:
    dataset.save(tmp_path)
    forge(tmp_path)
    facts = json.loads((tmp_path / "dataset.json").read_text())
    if facts:
        facts["sha256"] = {name: sha256_file(tmp_path / name) for name in facts["sha256"]}
        (tmp_path / "dataset.json").write_text(json.dumps(facts))
    with pytest.raises(CorruptArtifact, match=message):
        Dataset.load(tmp_path)


def test_twenty_thousand_are_fast(tmp_path: Path) -> None:
    grid = np.zeros((12, 10, 10), np.uint8)
    grid[:, 4, 4] = 1
    row = a_row(0, grid)
    rows = [row | {"structure_id": str(number)} for number in range(20_000)]
    Dataset((grid,) * len(rows), table_of(rows)).save(tmp_path)
    before = time.process_time()
    assert len(Dataset.load(tmp_path)) == 20_000
    assert time.process_time() - before < 2
