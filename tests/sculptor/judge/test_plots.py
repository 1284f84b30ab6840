"""Figures say nothing where there is nothing to say, and sheets show what was built."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from PIL import Image

from vernissage.sculptor.domain.roles import Role
from vernissage.sculptor.judge.plots import (
    arms_figure,
    buckets_figure,
    epochs_figure,
    first_figure,
    save_figure,
    save_sheet,
    species_figure,
    steps_figure,
)
from vernissage.sculptor.judge.results import Shown

if TYPE_CHECKING:
    from pathlib import Path


def _stick() -> np.ndarray:
    grid = np.zeros((6, 5, 5), np.uint8)
    grid[:4, 2, 2] = Role.WOOD
    grid[4:, 1:4, 1:4] = Role.LEAF
    return grid


def test_nothing_is_drawn_of_nothing() -> None:
    empty = pd.DataFrame()
    figures = [epochs_figure(empty), steps_figure(empty, {}), arms_figure(empty, {"whole": "Whole"})]
    assert [*figures, species_figure(empty), buckets_figure(empty), first_figure(empty)] == [None] * 6


def test_figures_are_1200_pixels_wide(tmp_path: Path) -> None:
    steps = pd.DataFrame(
        {"steps": [1, 4], "whole": [0.2, 0.9], "whole_low": [0.1, 0.8], "whole_high": [0.3, 1.0], "ms": 1}
    )
    figure = steps_figure(steps, {"whole": 1.0})
    assert figure is not None
    save_figure(figure, tmp_path / "steps.png")
    with Image.open(tmp_path / "steps.png") as picture:
        assert picture.width == 1200


def test_a_sheet_shows_blocks_roles_and_nothing(tmp_path: Path) -> None:
    nothing = np.zeros((4, 4, 4), np.uint8)
    shown = [
        Shown("sheet", "ours", "an oak", "oak", _stick()),
        Shown("sheet", "ours", "something", None, _stick()),
        Shown("sheet", "all air", "nothing", "oak", nothing),
    ]
    save_sheet(shown, tmp_path / "sheet.png", 3, named=True)
    with Image.open(tmp_path / "sheet.png") as picture:
        levels = np.asarray(picture.convert("RGB")).astype(int)
    thirds = np.array_split(levels[: levels.shape[0] // 2], 3, axis=1)
    busy = [int((np.abs(third - levels[0, 0]).sum(-1) > 60).sum()) for third in thirds]
    assert busy[0] > 500
    assert busy[1] > 500
    assert busy[2] < 50
    assert not np.array_equal(thirds[0], thirds[1])
