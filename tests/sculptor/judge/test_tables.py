"""Sums have known answers."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest

from vernissage.sculptor.judge.arms import HELD_OUT, OURS
from vernissage.sculptor.judge.items import SAID, UNTRAINED
from vernissage.sculptor.judge.tables import (
    MEASURES,
    novelty_table,
    paired_table,
    species_table,
    steps_table,
    summary_table,
)


def _row(arm: str, place: int, whole: float = 1.0, **more: Any) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys([*MEASURES, *SAID.values()], math.nan)
    row |= {"arm": arm, "training": UNTRAINED if arm == HELD_OUT else 0, "size": "normal", "species": "oak"}
    row |= {"prompt": f"tree {place}", "place": place, "whole": whole, "connectivity": whole, "voxels": 100.0}
    row |= {"held_out_voxels": 200.0, "seconds": 0.5, "evaluations": 14, "leaf_survival": 1.0, "adherence": 1.0}
    return row | more


def _summed(rows: list[dict[str, Any]]) -> pd.Series:
    return summary_table(pd.DataFrame(rows), resamples=200, seed=0).iloc[0]


def test_a_summary_has_means_and_their_intervals() -> None:
    row = _summed([_row(OURS, place, whole=float(place % 2)) for place in range(40)])
    assert (row["n"], row["whole"], row["ms"], row["voxel_ratio"]) == (40, 0.5, 500.0, 0.5)
    assert 0.3 < row["whole_low"] < 0.5 < row["whole_high"] < 0.7


def test_macro_adherence_counts_attributes_alike() -> None:
    rows = [_row(OURS, place, has_height=1.0, has_trunk=0.0 if not place else math.nan) for place in range(5)]
    row = _summed([{**each, "has_species": 0.0} for each in rows])
    assert row["macro_adherence"] == pytest.approx(0.5)
    assert row["macro_with_species"] == pytest.approx(1 / 3)
    assert row["macro_adherence_low"] <= row["macro_adherence"] <= row["macro_adherence_high"]


def test_all_sizes_together_have_a_row() -> None:
    rows = [_row(OURS, 0), _row(OURS, 1, whole=0.0, size="big")]
    table = summary_table(pd.DataFrame(rows), resamples=10, seed=0).set_index("size")
    assert table["whole"].to_dict() == {"normal": 1.0, "big": 0.0, "all": 0.5}


def test_pairs_are_the_same_questions() -> None:
    ours = [_row(OURS, place, whole=0.0) for place in range(6)]
    other = [_row("other", place) for place in range(3)]
    held_out = [_row(HELD_OUT, place) for place in range(6)]
    table = paired_table(pd.DataFrame([*ours, *other, *held_out]), resamples=20, seed=0).set_index("arm")
    assert table["n"].to_dict() == {"other": 3, HELD_OUT: 6}
    assert table.loc["other", ["whole", "whole_low", "whole_high"]].tolist() == [1.0, 1.0, 1.0]


def test_steps_are_compared_on_the_same_questions() -> None:
    ours = [_row(OURS, place, whole=float(place < 2)) for place in range(8)]
    fewer = [_row("ours in 1", place, whole=0.0) for place in range(2)]
    table = steps_table(pd.DataFrame([*ours, *fewer]), (1, 12), 12, resamples=10, seed=0).set_index("steps")
    assert table["whole"].to_dict() == {1: 0.0, 12: 1.0}
    assert table["n"].to_dict() == {1: 2, 12: 2}
    assert steps_table(pd.DataFrame(ours), (12,), 12, resamples=10, seed=0).empty


def test_copies_are_nearer_than_held_out_structures() -> None:
    ours = [_row(OURS, place, nearest_iou=0.96 + place / 1000, nearest_same=0.9) for place in range(9)]
    held_out = [_row(HELD_OUT, place, nearest_iou=0.5 + place / 1000, nearest_same=0.4) for place in range(9)]
    table = novelty_table(pd.DataFrame([*ours, *held_out])).set_index("arm")
    assert table.loc[OURS, "copied"] == 1
    assert table.loc[OURS, "z"] > 3
    assert table.loc[HELD_OUT, ["copied", "z"]].tolist() == [0, 0]


def test_species_stand_beside_the_held_out_ones() -> None:
    rows = [_row(OURS, 0, whole=0.0), _row(HELD_OUT, 0), _row("other", 0), _row(OURS, 1, species="birch")]
    table = species_table(pd.DataFrame(rows)).set_index(["species", "arm"])
    assert table["whole"].to_dict() == {("birch", OURS): 1.0, ("oak", OURS): 0.0, ("oak", HELD_OUT): 1.0}
