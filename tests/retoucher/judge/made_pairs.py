"""Writes made pairs as the data stages do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vernissage.core.images import save_png, to_uint8
from vernissage.retoucher.learn.dataset import Pair

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch


def write_pairs(
    folder: Path, faulty: torch.Tensor, originals: torch.Tensor, *, faults: Sequence[int], first: int = 1
) -> list[Pair]:
    """Store pairs as PNG files; every photo is a group of its own."""
    pairs = []
    folder.mkdir(parents=True, exist_ok=True)
    for row, count in enumerate(faults):
        number = first + row
        files = (folder / f"photo{number:03d}.png", folder / f"faulty{number:03d}.png")
        for file, picture in zip(files, (originals[row], faulty[row]), strict=True):
            save_png(file, to_uint8(picture.permute(1, 2, 0).numpy()))
        pairs.append(Pair(number, "test", f"group{number}", "hills", *files, count, "[]"))
    return pairs
