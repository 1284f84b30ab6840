"""Writes the COCO file: categories, photographic statistics, groups of near duplicates, and the split by group."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vernissage.core.errors import BadInput
from vernissage.core.files import atomic_write_json
from vernissage.core.images import load_rgb8
from vernissage.core.progress import Progress
from vernissage.retoucher.domain.statistics import photo_statistics
from vernissage.retoucher.prepare.flow import equal_size_batches, to_tensor
from vernissage.retoucher.prepare.splits import SPLITS, Fingerprint, SplitGroup, choose_splits, fingerprint, unite
from vernissage.retoucher.prepare.tables import PHOTO_COLUMNS, read_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from vernissage.core.params import Annotate

ANNOTATIONS_FILE = "annotations.json"
#: Photos whose mean chroma is below 1 (in units of CIELAB, here over 100) have no colour to speak of.
MONOCHROME_CHROMA = 0.01
_BATCH = 32
_DIGITS = 6


@dataclass(frozen=True)
class AnnotateReport:
    """What the dataset consists of.

    Attributes:
        photos: Number of photos.
        groups: Number of groups that share nothing.
        photos_of_split: Split to number of photos.
        groups_of_split: Split to number of groups.
    """

    photos: int
    groups: int
    photos_of_split: Mapping[str, int]
    groups_of_split: Mapping[str, int]


def annotate(resized: Path, out: Path, params: Annotate, seed: int) -> AnnotateReport:
    """Describe and split the resized photos.

    Args:
        resized: Folder with ``photos.csv`` and ``photos/``.
        out: Folder that gets ``annotations.json``.
        params: Parameters ``annotate``.
        seed: Root of the split.

    Returns:
        Counts for the log.

    Raises:
        BadInput: If there are fewer than three groups of photos.
        MissingArtifact: If the resized photos are not there.
    """
    rows = read_table(resized / "photos.csv", PHOTO_COLUMNS)
    if not rows:
        raise BadInput(f"{resized / 'photos.csv'}: lists no photos; bring your own with `vernissage ingest FOLDER`")
    statistics, fingerprints = _look_at(resized, rows)
    numbers = unite(
        [row["group"] for row in rows], [row["sha256"] for row in rows], fingerprints, params.phash_distance
    )
    # A united group bears the first of its members' names, whatever order the photos came in.
    names: dict[int, str] = {}
    for number, row in zip(numbers.tolist(), rows, strict=True):
        names[number] = min(names.get(number, row["group"]), row["group"])
    splits = choose_splits(
        _split_groups([names[number] for number in numbers.tolist()], statistics),
        params.val_share,
        params.test_share,
        seed,
    )
    images = [
        _image(
            row,
            number=number,
            group=names[number],
            split=splits[names[number]],
            phash=mark.phash,
            statistics=values,
        )
        for row, number, mark, values in zip(rows, numbers.tolist(), fingerprints, statistics, strict=True)
    ]
    atomic_write_json(out / ANNOTATIONS_FILE, coco_document(images, [row["category"] for row in rows]))
    return AnnotateReport(
        photos=len(images),
        groups=len(names),
        photos_of_split={split: sum(image["split"] == split for image in images) for split in SPLITS},
        groups_of_split={split: sum(value == split for value in splits.values()) for split in SPLITS},
    )


def coco_document(images: Sequence[Mapping[str, Any]], categories: Sequence[str]) -> dict[str, Any]:
    """Build a COCO detection file in which each photo is one object that fills it.

    Source: the COCO data format (cocodataset.org, "Data format", object detection).

    Args:
        images: COCO images with ``id``, ``width`` and ``height``.
        categories: Category name of each image.

    Returns:
        The document, ready for JSON.
    """
    category_ids = {name: number for number, name in enumerate(sorted(set(categories)), start=1)}
    annotations = [
        {
            "id": image["id"],
            "image_id": image["id"],
            "category_id": category_ids[category],
            "bbox": [0, 0, image["width"], image["height"]],
            "area": image["width"] * image["height"],
            "iscrowd": 0,
            "segmentation": [],
        }
        for image, category in zip(images, categories, strict=True)
    ]
    return {
        # No date and no machine: two runs on the same photos write the same bytes.
        "info": {"description": "Photos of the retoucher, resized", "version": "1"},
        "licenses": [{"id": 1, "name": "as listed for each photo in data/raw/photos/collected.csv", "url": ""}],
        "images": list(images),
        "annotations": annotations,
        "categories": [{"id": number, "name": name, "supercategory": "photo"} for name, number in category_ids.items()],
    }


def _look_at(resized: Path, rows: Sequence[Mapping[str, str]]) -> tuple[list[dict[str, float]], list[Fingerprint]]:
    """Statistics and fingerprint of each photo, each file read once."""
    sizes = [(int(row["width"]), int(row["height"])) for row in rows]
    statistics: dict[int, dict[str, float]] = {}
    fingerprints: dict[int, Fingerprint] = {}
    with Progress("annotate", total=len(rows), unit="photos") as progress:
        for batch in equal_size_batches(sizes, _BATCH):
            pixels = np.stack([load_rgb8(resized / rows[position]["file"]) for position in batch])
            for position, values, picture in zip(batch, photo_statistics(to_tensor(pixels)), pixels, strict=True):
                statistics[position] = {name: round(value, _DIGITS) for name, value in values.items()}
                fingerprints[position] = fingerprint(picture)
            progress.advance(len(batch))
    everyone = range(len(rows))
    return [statistics[position] for position in everyone], [fingerprints[position] for position in everyone]


def is_monochrome(statistics: Mapping[str, float]) -> bool:
    """Whether a photo with these statistics has no colour: faults of saturation leave it as it is."""
    return statistics["saturation_mean"] < MONOCHROME_CHROMA


def _split_groups(names: Sequence[str], statistics: Sequence[Mapping[str, float]]) -> list[SplitGroup]:
    photos = Counter(names)
    grey = Counter(name for name, values in zip(names, statistics, strict=True) if is_monochrome(values))
    return [SplitGroup(name, count, 2 * grey[name] > count) for name, count in photos.items()]


def _image(
    row: Mapping[str, str], *, number: int, group: str, split: str, phash: str, statistics: Mapping[str, float]
) -> dict[str, Any]:
    return {
        "id": int(row["image_id"]),
        "file_name": row["file"],
        "width": int(row["width"]),
        "height": int(row["height"]),
        "license": 1,
        "sha256": row["sha256"],
        "source_file": row["source_file"],
        "group": group,
        "phash": phash,
        "phash_group": number,
        "split": split,
        "statistics": dict(statistics),
        "history": [entry for entry in row["history"].split(";") if entry],
    }
