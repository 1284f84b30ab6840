"""Freshly made picture files for the tests of the data room."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from vernissage.core.params import Annotate, Degrade, Photos, Resize
from vernissage.retoucher.domain.faults import FAULTS

if TYPE_CHECKING:
    from pathlib import Path

PHOTOS = Photos(sample_crops=3, sample_crop_share=(0.5, 0.9), max_pixels=1_000_000, max_reject_fraction=0.9)
RESIZE = Resize(long_edge=48, min_edge=16)
ANNOTATE = Annotate(phash_distance=6, val_share=0.2, test_share=0.25)
DEGRADE = Degrade(draws=3, faults_min=1, faults_max=5, clean_share=0.25, kinds=tuple(FAULTS), writers=3)


def picture(seed: int, width: int = 72, height: int = 54, *, grey: bool = False) -> np.ndarray:
    """(height, width, 3) uint8: gradients, discs and a little grain, another scene for each seed."""
    rng = np.random.default_rng(seed)
    y, x = np.meshgrid((np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width, indexing="ij")
    planes = rng.uniform(0.2, 0.7, 3) + np.einsum(
        "hwk,kc->hwc", np.stack((x, y), axis=2) - 0.5, rng.normal(0, 0.3, (2, 3))
    )
    for _ in range(10):
        cx, cy, radius = *rng.uniform(0, 1, 2), rng.uniform(0.05, 0.3)
        planes += rng.normal(0, 0.25, 3) * (np.hypot(x - cx, y - cy) < radius)[..., np.newaxis]
    planes += rng.normal(0, 0.01, planes.shape)
    if grey:
        planes = np.repeat(planes.mean(axis=2, keepdims=True), 3, axis=2)
    return (np.clip(planes, 0, 1) * 255).round().astype(np.uint8)


def write_picture(path: Path, seed: int, width: int = 72, height: int = 54, *, grey: bool = False) -> Path:
    """A picture file in the format of its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(seed, width, height, grey=grey)).save(path)
    return path


class MeanJuror:
    """Scores brightness; its ensemble agrees to a tenth."""

    def score(self, images: torch.Tensor) -> torch.Tensor:
        return 10 * images.mean(dim=(1, 2, 3))

    def spread(self, images: torch.Tensor) -> torch.Tensor:
        return torch.full((len(images),), 0.1)


def tree_bytes(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its bytes."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
