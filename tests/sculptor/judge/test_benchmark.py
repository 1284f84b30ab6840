"""A benchmark asks every arm the same, measures all it built, and leaves what it measured on disk."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from tests.sculptor.judge.small import SETTINGS, benchmark, dataset, sculptor
from vernissage.core.errors import BadInput, CorruptArtifact, MissingArtifact
from vernissage.sculptor.judge.arms import ALL_AIR, GROWER, HELD_OUT, OURS, RETRIEVAL, sculptor_arm
from vernissage.sculptor.judge.benchmark import run_benchmark
from vernissage.sculptor.judge.results import FACTS_FILE, GRIDS_FILE, Benchmark

if TYPE_CHECKING:
    from pathlib import Path

BARE = replace(
    SETTINGS,
    structures={"normal": 2},
    ablations=False,
    novelty=0,
    directional_pairs=0,
    diversity_prompts=0,
    buckets=1,
    batches={},
)


def test_every_arm_is_measured() -> None:
    items = benchmark().table("items")
    counts = items.groupby("arm").size().to_dict()
    assert {arm: counts[arm] for arm in (OURS, HELD_OUT, ALL_AIR, GROWER, RETRIEVAL)} == dict.fromkeys(
        (OURS, HELD_OUT, ALL_AIR, GROWER, RETRIEVAL), 6
    )
    few = {"soft mixture 3", "ancestral 3", "+ wood first", "+ doubt", "confidence 3", "ours in 1"}
    assert {arm: counts[arm] for arm in few} == dict.fromkeys(few, 3)
    assert {counts[arm] for arm in ("ancestral 128", "soft mixture 100")} == {1}


def test_known_answers_of_the_references() -> None:
    summary = benchmark().table("summary").set_index(["arm", "size"])
    held_out, air = summary.loc[HELD_OUT, "normal"], summary.loc[ALL_AIR, "normal"]
    assert held_out[["connectivity", "whole", "leaf_survival", "adherence", "voxel_ratio"]].tolist() == [1, 1, 1, 1, 1]
    assert air[["connectivity", "whole", "macro_adherence", "voxels"]].tolist() == [0, 0, 0, 0]
    assert 0.8 < benchmark().facts["air_share"] < 1


def test_arms_with_plans_have_the_same_ones() -> None:
    items = benchmark().table("items")
    ours = items[items["arm"] == OURS].set_index("prompt")["built_as"]
    other = items[items["arm"] == "+ wood first"].set_index("prompt")["built_as"]
    assert (ours[other.index] == other).all()


def test_probes_have_their_rows() -> None:
    assert len(benchmark().table("directional")) == 6
    diversity = benchmark().table("diversity").set_index("arm")
    assert diversity.loc["soft mixture 3, one plan", "distance"] == 0
    assert diversity.loc["soft mixture 3, one plan", "duplicates"] == 1
    assert benchmark().table("clock")["ms"].min() > 0
    assert len(benchmark().table("buckets")) == 5
    assert set(benchmark().table("steps")["steps"]) == {1, 3}


def test_the_same_sculptor_has_the_same_numbers() -> None:
    first, second = (run_benchmark({0: sculptor()}, dataset(), BARE).table("items") for _ in range(2))
    pd.testing.assert_frame_equal(first.drop(columns="seconds"), second.drop(columns="seconds"))


def test_several_trainings_and_rivals() -> None:
    rival = sculptor_arm("anything", sculptor(1), SETTINGS.building)
    found = run_benchmark({0: sculptor(), 1: sculptor(1)}, dataset(), BARE, {"no plan": rival})
    items = found.table("items")
    assert items[items["arm"] == OURS].groupby("training").size().to_dict() == {0: 2, 1: 2}
    assert items[items["arm"] == "no plan"]["training"].tolist() == [0, 0]
    paired = found.table("paired").set_index("arm")
    assert paired.loc["no plan", "n"] == 2
    # A held-out structure stands beside what each training built for it.
    assert paired.loc[HELD_OUT, "n"] == 4


def test_save_and_load(tmp_path: Path) -> None:
    benchmark().save(tmp_path / "benchmark")
    loaded = Benchmark.load(tmp_path / "benchmark")
    assert {name for name, table in benchmark().tables.items() if len(table)} == set(loaded.tables)
    assert loaded.table("summary")["whole"].to_list() == pytest.approx(benchmark().table("summary")["whole"].to_list())
    assert [shown.caption for shown in loaded.shown] == [shown.caption for shown in benchmark().shown]
    assert [shown.species for shown in loaded.shown] == [shown.species for shown in benchmark().shown]
    for one, other in zip(loaded.shown, benchmark().shown, strict=True):
        np.testing.assert_array_equal(one.grid, other.grid)


def test_damaged_results_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingArtifact):
        Benchmark.load(tmp_path)
    folder = tmp_path / "benchmark"
    benchmark().save(folder)
    (folder / GRIDS_FILE).write_bytes(b"no grids")
    with pytest.raises(CorruptArtifact, match="role grids"):
        Benchmark.load(folder)
    np.savez(folder / GRIDS_FILE, voxels=np.zeros(3, np.uint8), shapes=np.array([[1, 1, 2]], np.uint16))
    with pytest.raises(CorruptArtifact, match="expected"):
        Benchmark.load(folder)
    (folder / FACTS_FILE).write_text("[]")
    with pytest.raises(CorruptArtifact, match="facts"):
        Benchmark.load(folder)
    benchmark().save(folder)
    (folder / "summary.csv").unlink()
    with pytest.raises(MissingArtifact, match=r"summary\.csv"):
        Benchmark.load(folder)


def test_nothing_to_ask_or_to_answer() -> None:
    with pytest.raises(BadInput, match="no sculptor"):
        run_benchmark({}, dataset(), BARE)
    with pytest.raises(BadInput, match="no test structures"):
        run_benchmark({0: sculptor()}, dataset(), replace(BARE, structures={"huge": 3}))
