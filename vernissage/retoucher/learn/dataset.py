"""Reads what the stages before wrote: thumbnails of photos by split, and the pairs."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vernissage.core.errors import BadInput, MissingArtifact
from vernissage.core.files import read_json
from vernissage.core.images import load_rgb8
from vernissage.retoucher.domain.filters import resize_square
from vernissage.retoucher.learn.environment import to_bytes
from vernissage.retoucher.learn.scenes import Pictures, Starts
from vernissage.retoucher.learn.suggestions import classic_suggestions, pixel_sample

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path


# Sides of crops as shares of the photo's: smaller ones show too little to tell what a scene is.
_CROP_SHARES = (0.45, 0.9)


@dataclass(frozen=True)
class Pair:
    """One faulty photo and its original.

    Attributes:
        pair_id: Number in ``pairs.csv``.
        split: ``train``, ``val`` or ``test``.
        group: Source photo; groups are never shared between splits.
        category: Category of the photo.
        original: Path of the original.
        faulty: Path of the faulty copy.
        n_faults: Number of faults; 0 is a clean pair.
        faults: The faults as JSON text.
    """

    pair_id: int
    split: str
    group: str
    category: str
    original: Path
    faulty: Path
    n_faults: int
    faults: str


def read_pairs(ready: Path, split: str) -> list[Pair]:
    """Read one split of ``pairs.csv``.

    Args:
        ready: Folder of the pairs.
        split: ``train``, ``val`` or ``test``.

    Returns:
        The pairs in the order of the file.

    Raises:
        MissingArtifact: If there is no table.
        BadInput: If the split is empty.
    """
    table = ready / "pairs.csv"
    if not table.is_file():
        raise MissingArtifact(f"{table} is missing; make it with `dvc repro degrade-split`")
    with table.open(newline="", encoding="utf-8") as file:
        pairs = [
            Pair(
                int(row["pair_id"]),
                row["split"],
                row["group"],
                row["category"],
                ready / row["original"],
                ready / row["faulty"],
                int(row["n_faults"]),
                row["faults"],
            )
            for row in csv.DictReader(file)
            if row["split"] == split
        ]
    if not pairs:
        raise BadInput(f"{table}: split {split!r} is empty; ingest more photos or change annotate.{split}_share")
    return pairs


def load_photo(path: Path) -> torch.Tensor:
    """Read one PNG of the data set as (1, 3, H, W) float in [0, 1]."""
    pixels = np.ascontiguousarray(load_rgb8(path).transpose(2, 0, 1))
    return torch.from_numpy(pixels).unsqueeze(0).float() / 255


def load_thumbnails(paths: Iterable[Path], view: int) -> torch.Tensor:
    """Read photos as square thumbnails on the 8-bit grid.

    Args:
        paths: PNG files of the data set.
        view: Side in pixels.

    Returns:
        (N, 3, V, V) float in [0, 1].
    """
    return torch.cat([to_bytes(resize_square(load_photo(path), view)) for path in paths]).float() / 255


def load_starts(pairs: Sequence[Pair], view: int) -> Starts:
    """Thumbnails of pairs, with suggestions measured on the stored photos.

    Args:
        pairs: What to load.
        view: Side of the thumbnails in pixels.

    Returns:
        N beginnings of episodes.
    """
    thumbnails, suggestions = [], []
    for pair in pairs:
        photo = load_photo(pair.faulty)
        thumbnails.append(to_bytes(resize_square(photo, view)))
        suggestions.append(classic_suggestions(photo))
    reference = load_thumbnails((pair.original for pair in pairs), view)
    return Starts(torch.cat(thumbnails).float() / 255, reference, torch.cat(suggestions))


def unique_originals(pairs: Sequence[Pair], view: int) -> Pictures:
    """The originals behind pairs, each once, as thumbnails and pixel samples of one size."""
    photos = [load_photo(path) for path in _originals(pairs)]
    return _as_pictures(photos, view)


def cropped_originals(pairs: Sequence[Pair], view: int, each: int, rng: np.random.Generator) -> Pictures:
    """Random crops of the originals behind pairs: more scenes to learn from, and proof that not all reach the ends.

    Args:
        pairs: Whose originals.
        view: Side of thumbnails and samples in pixels.
        each: Crops of each photo.
        rng: Source of randomness.

    Returns:
        The crops, with sides of 45 to 90 percent of the photo's.
    """
    crops = []
    for photo in map(load_photo, _originals(pairs)):
        height, width = photo.shape[-2:]
        for share in rng.uniform(*_CROP_SHARES, size=each):
            rows, columns = max(1, round(share * height)), max(1, round(share * width))
            top, left = int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))
            crops.append(photo[..., top : top + rows, left : left + columns])
    return _as_pictures(crops, view)


def _originals(pairs: Sequence[Pair]) -> list[Path]:
    return list(dict.fromkeys(pair.original for pair in pairs))


def _as_pictures(photos: Sequence[torch.Tensor], view: int) -> Pictures:
    if not photos:
        return Pictures.of_thumbnails(torch.zeros(0, 3, view, view))
    thumbnails = torch.cat([to_bytes(resize_square(photo, view)) for photo in photos]).float() / 255
    return Pictures(thumbnails, torch.cat([pixel_sample(photo, view) for photo in photos]))


def photos_of_split(annotations: Path, resized: Path, split: str, view: int) -> torch.Tensor:
    """Thumbnails of one split of the COCO file.

    Args:
        annotations: ``annotations.json``.
        resized: Folder that its file names are relative to.
        split: ``train``, ``val`` or ``test``.
        view: Side in pixels.

    Returns:
        (N, 3, V, V) float in [0, 1].

    Raises:
        BadInput: If the split is empty.
    """
    document: dict[str, Any] = read_json(annotations)
    files = [image["file_name"] for image in document["images"] if image["split"] == split]
    if not files:
        raise BadInput(f"{annotations}: split {split!r} is empty; ingest more photos or change annotate.{split}_share")
    return load_thumbnails((resized / file for file in files), view)
