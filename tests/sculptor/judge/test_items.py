"""Rows of single structures have known answers."""

from __future__ import annotations

import math

import numpy as np

from vernissage.sculptor.domain.attributes import Attributes
from vernissage.sculptor.domain.roles import Role
from vernissage.sculptor.domain.sizes import SIZES
from vernissage.sculptor.judge.arms import BenchRequest, Built, evenly
from vernissage.sculptor.judge.held_out import Question
from vernissage.sculptor.judge.items import anatomy_of, item_rows
from vernissage.sculptor.judge.novelty import NearestIndex


def _tree(*, leaves: bool = True, gap: bool = False) -> np.ndarray:
    grid = np.zeros((9, 5, 5), np.uint8)
    grid[:7, 2, 2] = Role.WOOD
    if leaves:
        grid[6:9, 1:4, 1:4] = np.where(grid[6:9, 1:4, 1:4] == 0, Role.LEAF, grid[6:9, 1:4, 1:4])
    if gap:
        grid[3, 2, 2] = Role.AIR
    return grid


def test_what_a_sound_tree_is() -> None:
    ball = np.zeros((5, 5, 5), np.uint8)
    ball[:, 1:4, 1:4] = Role.LEAF
    upside_down = _tree()[::-1]
    found = {
        "tree": anatomy_of(_tree()),
        "bare": anatomy_of(_tree(leaves=False)),
        "broken": anatomy_of(_tree(gap=True)),
        "ball": anatomy_of(ball),
        "upside down": anatomy_of(upside_down),
        "nothing": anatomy_of(np.zeros((2, 2, 2), np.uint8)),
    }
    assert {name: row["sound"] for name, row in found.items()} == {
        "tree": 1.0,
        "bare": 1.0,
        "broken": 0.0,
        "ball": 0.0,
        "upside down": 0.0,
        "nothing": 0.0,
    }
    assert {name: row["whole"] for name, row in found.items()}["ball"] == 1.0


def test_a_row_says_what_was_asked_and_what_is_there() -> None:
    said = Attributes(species="oak", height="tall", lean="leaning")
    request = BenchRequest("tall leaning oak", said, SIZES["normal"], 0)
    questions = [Question(request, "normal", place, _tree(), "oak") for place in range(3)]
    built = Built((_tree(), _tree(leaves=False), _tree()), ("oak", "birch", None), evenly(3.0, 3), (14,) * 3)
    index = {"normal": NearestIndex([_tree()])}
    rows = item_rows("ours", 0, questions, built, index, 2)
    assert [row["has_species"] for row in rows] == [1.0, 0.0, 0.0]
    assert rows[0]["has_height"] == 0.0
    assert math.isnan(rows[0]["has_crown"])
    # The mean over what was said, the species apart.
    assert rows[0]["adherence"] == 0.0
    assert math.isnan(rows[0]["verticality"])
    assert (rows[0]["seconds"], rows[0]["evaluations"]) == (1.0, 14)
    assert rows[0]["held_out_voxels"] == rows[0]["voxels"]
    assert rows[0]["nearest_iou"] == 1.0
    assert 0 < rows[1]["nearest_iou"] < 1
    assert math.isnan(rows[2]["nearest_iou"])
