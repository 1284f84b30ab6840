"""Sheets: every sample in its place, enlarged exactly, oddities visible instead of fatal."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vernissage.sampler.domain.sheets import sample_sheet


def test_samples_lie_row_by_row_enlarged_without_smoothing() -> None:
    rows = [torch.full((2, 1, 8, 8), -1.0), torch.full((1, 1, 8, 8), 1.0)]
    sheet = np.asarray(sample_sheet(rows))
    assert sheet.shape == (2 * 50 + 2, 2 * 50 + 2, 3)
    assert (sheet[2:50, 2:50] == 0).all()
    assert (sheet[2:50, 52:100] == 0).all()
    assert (sheet[52:100, 2:50] == 255).all()
    paper = sheet[0, 0]
    assert (sheet[52:100, 52:100] == paper).all()


def test_colour_stays_and_what_is_no_number_shows_as_paper() -> None:
    picture = torch.full((1, 3, 64, 64), -1.0)
    picture[:, 0] = 1.0
    picture[:, :, 0, 0] = torch.nan
    sheet = np.asarray(sample_sheet([picture]))
    assert sheet.shape == (68, 68, 3)
    assert sheet[10, 10].tolist() == [255, 0, 0]
    assert (sheet[2, 2] == sheet[0, 0]).all()


@pytest.mark.parametrize("rows", [[], [torch.zeros(0, 1, 8, 8)]])
def test_nothing_to_show_is_said(rows: list[torch.Tensor]) -> None:
    with pytest.raises(ValueError, match="at least one"):
        sample_sheet(rows)
