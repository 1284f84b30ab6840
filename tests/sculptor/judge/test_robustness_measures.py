"""Cases about measures: they pass on real data, and fail where data or captions are rubbish."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tests.sculptor.judge.robust import Subject, subject
from vernissage.sculptor.domain.attributes import ATTRIBUTES
from vernissage.sculptor.judge.measure_cases import _alike, strewn
from vernissage.sculptor.learn.blueprints import Blueprint


def with_test_part(mine: Subject, grids: tuple[np.ndarray, ...] | None = None, roll: int = 0) -> Subject:
    """The same subject with other held-out structures, or with their attributes dealt to others."""
    held = mine.dataset.part("test")
    table = held.table.copy()
    for name in ATTRIBUTES:
        table[name] = np.roll(table[name].to_numpy(object), roll)
    return replace(mine, dataset=replace(held, grids=grids or held.grids, table=table))


def test_shuffled_captions_and_scrambled_structures_pass() -> None:
    results = subject().run(19, 20)
    assert {number: result.found for number, result in results.items() if not result.passed} == {}


def test_leaks_and_copies_pass() -> None:
    result = subject().run(18)[18]
    assert result.passed, result.found


def test_captions_that_do_not_hold_of_their_structures_fail() -> None:
    assert "expected all" in with_test_part(subject(), roll=5).failed(19)[19]


def test_held_out_structures_that_are_rubbish_fail() -> None:
    rng = np.random.default_rng(0)
    rubbish = tuple(strewn(grid, rng) for grid in subject().dataset.part("test").grids)
    assert "real structures have a connectivity of 0.0" in with_test_part(subject(), rubbish).failed(20)[20]


def test_strewn_blocks_are_the_same_blocks() -> None:
    grid = subject().dataset.part("test").grids[0]
    room = strewn(grid, np.random.default_rng(1))
    assert np.array_equal(np.bincount(room[room > 0]), np.bincount(grid[grid > 0]))
    assert room.size >= 50 * (grid > 0).sum()


def test_the_smallest_canvas_that_enough_share_is_taken() -> None:
    boxes = [(4, 4, 4)] * 3 + [(8, 4, 4)] * 8 + [(12, 8, 8)] * 9
    canvas, rows = _alike([Blueprint(box) for box in boxes], 4)
    assert canvas == (8, 4, 4)
    assert rows == list(range(3, 11))
    assert _alike([Blueprint(box) for box in boxes[:3]], 4) == ((4, 4, 4), [0, 1, 2])
