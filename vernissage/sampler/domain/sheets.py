"""Sheets of samples: what a glance at a generator wants to see."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from PIL import Image

from vernissage.sampler.domain.unet import samples_to_levels

if TYPE_CHECKING:
    from collections.abc import Sequence

_GAP, _PAPER = 2, 235
_LARGE_ENOUGH = 48


def sample_sheet(rows: Sequence[torch.Tensor]) -> Image.Image:
    """Lay out samples, a row of the sheet for each batch; small ones enlarged without smoothing.

    Args:
        rows: (N, C, H, W) float in [-1, 1] each, C 1 or 3, all of one C, H and W; what is not a number shows as paper.

    Returns:
        An RGB picture.

    Raises:
        ValueError: If there is nothing to show.
    """
    if not rows or not all(len(row) for row in rows):
        raise ValueError("sample sheet: got no samples for a row, expected at least one")
    side = rows[0].shape[-1]
    factor = max(1, -(-_LARGE_ENOUGH // side))
    step_down, step_across = rows[0].shape[-2] * factor + _GAP, side * factor + _GAP
    columns = max(len(row) for row in rows)
    sheet = torch.full((len(rows) * step_down + _GAP, columns * step_across + _GAP, 3), _PAPER, dtype=torch.uint8)
    for down, row in enumerate(rows):
        finite = torch.isfinite(row)
        levels = torch.where(finite, samples_to_levels(torch.where(finite, row, 0.0)), _PAPER).expand(-1, 3, -1, -1)
        large = levels.repeat_interleave(factor, dim=2).repeat_interleave(factor, dim=3)
        for across, picture in enumerate(large):
            top, left = down * step_down + _GAP, across * step_across + _GAP
            sheet[top : top + picture.shape[1], left : left + picture.shape[2]] = picture.permute(1, 2, 0)
    return Image.fromarray(sheet.numpy())
