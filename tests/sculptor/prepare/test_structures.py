"""The dataset: the same whatever the machine does, every tree sound, nothing seen twice where it would matter."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.sculptor.prepare.trees import stick, stone, turned, write_all
from vernissage.core.errors import BadInput, BadParams, CorruptArtifact, MissingArtifact
from vernissage.sculptor.domain.blocks import SPECIES_PALETTES, roles_to_structure
from vernissage.sculptor.domain.dataset import Dataset
from vernissage.sculptor.domain.sizes import SIZES, Size
from vernissage.sculptor.prepare.ingest import ingest_structures
from vernissage.sculptor.prepare.structures import StructureSettings, make_structures

if TYPE_CHECKING:
    from pathlib import Path

    from vernissage.sculptor.domain.structure import Structure

SETTINGS = StructureSettings({"normal": 80, "big": 9, "huge": 3}, {"normal": 4}, {"normal": 4, "big": 1}, workers=1)
FEW = StructureSettings({"normal": 3}, {"normal": 1}, {"normal": 1}, workers=1)


def make(folder: Path, settings: StructureSettings, own: dict[str, Structure] | None = None) -> Dataset:
    if own:
        write_all(folder / "mine", own)
        ingest_structures(folder / "mine", folder / "own", workers=1)
    return make_structures(folder / "own", folder / "ready", settings)


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Path]:
    folder = tmp_path_factory.mktemp("grown")
    return make(folder, SETTINGS), folder / "ready"


def test_what_is_written_is_what_is_returned(grown: tuple[Dataset, Path]) -> None:
    loaded = Dataset.load(grown[1])
    assert loaded.table.equals(grown[0].table)
    assert all(map(np.array_equal, loaded.grids, grown[0].grids))


def test_counts_and_sizes_are_as_asked_for(grown: tuple[Dataset, Path]) -> None:
    dataset = grown[0]
    for split in ("train", "val", "test"):
        for name, size in SIZES.items():
            part = dataset.part(split, name)
            assert len(part) == SETTINGS.counts(split).get(name, 0)
            for grid in part.grids:
                height, depth, width = grid.shape
                assert size.holds(Size(width, height, depth))
    assert dataset.table["structure_id"].is_unique
    assert dataset.table["whole"].all()
    assert (dataset.table["leaf_survival"].dropna() == 1).all()
    assert dataset.table["palette"].isna().all()


def test_attributes_are_measured_against_the_canvas_that_a_tree_was_grown_for(grown: tuple[Dataset, Path]) -> None:
    for name in ("big", "huge"):
        part = grown[0].part("train", name)
        for grid, said in zip(part.grids, part.attributes(), strict=True):
            assert (said.height == "tall") == (len(grid) / SIZES[name].height > 0.75)


def test_neither_processes_nor_numbers_change_a_tree(grown: tuple[Dataset, Path], tmp_path: Path) -> None:
    make(tmp_path, replace(SETTINGS, workers=2))
    for file in grown[1].iterdir():
        assert (tmp_path / "ready" / file.name).read_bytes() == file.read_bytes()
    fewer = make(tmp_path, FEW).table
    more = grown[0].table
    same = more[more["structure_id"].isin(fewer["structure_id"])]
    assert fewer.equals(same.reset_index(drop=True))


def test_another_seed_grows_other_trees(grown: tuple[Dataset, Path], tmp_path: Path) -> None:
    other = make(tmp_path, replace(FEW, seed=1))
    first = grown[0].grids[0]
    assert not any(np.array_equal(first, grid) for grid in other.grids)
    train, val = other.part("train").grids[0], other.part("val").grids[0]
    assert not np.array_equal(train, val), "splits have their own draws"


def test_own_structures_join(tmp_path: Path) -> None:
    series = {f"s{number}/a{member}.schem": stick(3 + number, tip=member) for number in range(12) for member in (1, 2)}
    dataset = make(tmp_path, replace(FEW, val_share=0.2, test_share=0.2), series | {"rock.schem": stone()})
    own = dataset.table[dataset.table["source"] == "own"]
    assert len(own) == 24, "a rock has nothing that captions speak of"
    assert set(own["split"]) == {"train", "val", "test"}
    assert (own.groupby("series")["split"].nunique() == 1).all()
    assert set(own["species"]) == {"oak"}
    assert own["palette"].iloc[0] == '{"LEAF": "minecraft:oak_leaves", "WOOD": "minecraft:oak_log[axis=y]"}'
    assert len(dataset.part("train", source="grown")) == 3


def test_one_structure_of_your_own_is_trained_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "vernissage"):
        dataset = make(tmp_path, FEW, {"a1.schem": stick(), "a2.schem": turned(stick(), 1), "rock.schem": stone()})
    (split,) = dataset.table[dataset.table["source"] == "own"]["split"]
    assert split == "train"
    assert "1 of 3 used (1 repeat others, 1 have neither wood nor leaves)" in caplog.text
    assert "too few series" in caplog.text


def test_bushes_alone_are_enough(tmp_path: Path) -> None:
    blocks = stick().blocks[-1:]
    bush = replace(stick(), blocks=blocks).cropped()
    dataset = make(tmp_path, replace(FEW, own_only=True), {"bush1.schem": bush})
    assert dataset.table["split"].tolist() == ["train"]
    assert dataset.table["wood"].tolist() == [0]
    assert dataset.attributes()[0].trunk is None


def test_own_only_grows_nothing_and_says_so_if_there_is_nothing_else(tmp_path: Path) -> None:
    settings = StructureSettings({}, own_only=True, workers=1)
    with pytest.raises(BadInput, match="lists no structure"):
        make(tmp_path, settings)
    with pytest.raises(BadInput, match="none of the 1 structures has wood or leaves"):
        make(tmp_path, settings, {"rock.schem": stone()})
    assert not (tmp_path / "ready").exists()
    assert make(tmp_path, settings, {"a.schem": stick()}).table["source"].tolist() == ["own"]


def test_what_is_in_two_splits_is_kept_in_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A user's file that is, turned, a tree of the test split must not be trained on."""
    tested = make(tmp_path, FEW).part("test")
    species = tested.attributes()[0].species
    copy = turned(roles_to_structure(tested.grids[0], SPECIES_PALETTES[str(species)]), 1, mirrored=True)
    with caplog.at_level(logging.INFO, "vernissage"):
        dataset = make(tmp_path, FEW, {"copy.schem": copy, "other.schem": stick()})
    assert dataset.part("test").table["structure_id"].tolist() == tested.table["structure_id"].tolist()
    own = dataset.table[dataset.table["source"] == "own"]
    assert own["series"].tolist() == ["mine/other"]
    assert "1 left out" in caplog.text


def test_files_that_are_not_those_that_were_ingested_are_refused(tmp_path: Path) -> None:
    make(tmp_path, FEW, {"a.schem": stick()})
    before = (tmp_path / "ready" / "dataset.json").read_bytes()
    (file,) = (tmp_path / "own" / "files").iterdir()
    file.write_bytes(b"x")
    with pytest.raises(CorruptArtifact, match=r"ingested as a\.schem"):
        make(tmp_path, FEW)
    shutil.rmtree(tmp_path / "own" / "files")
    with pytest.raises(MissingArtifact, match=r"lists it as a\.schem"):
        make(tmp_path, FEW)
    assert (tmp_path / "ready" / "dataset.json").read_bytes() == before, "what was there stays"


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"train": {"tiny": 3}}, "structures.train: tiny"),
        ({"test": {"big": -1}}, "structures.test: big = -1"),
        ({"train": {"normal": 0}}, "no tree to grow"),
        ({"val_share": 0.6, "test_share": 0.4}, "sum below 1"),
        ({"val_share": -0.1}, "from 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(values: dict[str, object], match: str) -> None:
    with pytest.raises(BadParams, match=match):
        replace(SETTINGS, **values)
