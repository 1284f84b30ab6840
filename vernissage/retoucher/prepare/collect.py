"""Chooses the raw photos of the dataset: the user's own where there are any, else the built-in samples."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vernissage.core.errors import CorruptArtifact, MissingArtifact
from vernissage.core.files import fresh_folder, sha256_file
from vernissage.core.images import save_png
from vernissage.core.progress import Progress
from vernissage.retoucher.prepare.ingest import TRACKED_FOLDER, IngestedPhoto, read_manifest
from vernissage.retoucher.prepare.samples import sample_crops
from vernissage.retoucher.prepare.tables import COLLECTED_COLUMNS, Row, write_table

if TYPE_CHECKING:
    from pathlib import Path

    from vernissage.core.params import Photos

COLLECTED_TABLE = "collected.csv"
_OWN_LICENCE = "the user's own photo, terms not stated"
_GROUP_DIGITS = 16


@dataclass(frozen=True)
class CollectReport:
    """What the raw photos are.

    Attributes:
        origin: ``ingested`` or ``samples``.
        photos: Number of pictures.
        groups: Number of source photos.
    """

    origin: str
    photos: int
    groups: int


def collect(ingested: Path, out: Path, photos: Photos, seed: int) -> CollectReport:
    """Fill the folder of raw photos and list them in ``collected.csv``.

    Args:
        ingested: Folder that `vernissage ingest` fills; need not exist.
        out: Folder of raw photos, made anew.
        photos: Parameters ``photos``.
        seed: Root of the randomness of sample crops.

    Returns:
        Counts for the log.

    Raises:
        MissingArtifact: If an ingested photo, or an installed sample photo, is not on disk.
        CorruptArtifact: If an ingested photo has other bytes than when it was ingested.
    """
    manifest = read_manifest(ingested)
    with fresh_folder(out) as folder:
        own = ingested / "photos"
        rows = _copy_ingested(own, manifest, folder) if manifest else _cut_samples(folder, photos, seed)
        write_table(folder / COLLECTED_TABLE, COLLECTED_COLUMNS, rows)
    groups = len({row["group"] for row in rows})
    return CollectReport("ingested" if manifest else "samples", len(rows), groups)


def _copy_ingested(source: Path, manifest: list[IngestedPhoto], folder: Path) -> list[Row]:
    rows: list[Row] = []
    with Progress("collect", total=len(manifest), unit="photos") as progress:
        for photo in manifest:
            target = folder / photo.file
            target.parent.mkdir(parents=True, exist_ok=True)
            _copy_verified(source / photo.file, target, photo.sha256)
            rows.append(
                {
                    "file": photo.file,
                    "category": photo.category,
                    "group": photo.sha256[:_GROUP_DIGITS],
                    "source": photo.source or photo.file,
                    "licence": _OWN_LICENCE,
                    "sha256": photo.sha256,
                }
            )
            progress.advance()
    return rows


def _copy_verified(source: Path, target: Path, expected: str) -> None:
    fetch = f"`dvc checkout {TRACKED_FOLDER.as_posix()}.dvc`, or `dvc pull` from your remote"
    try:
        shutil.copyfile(source, target)
    except FileNotFoundError:
        raise MissingArtifact(f"{source}: listed in manifest.csv but not here; fetch it with {fetch}") from None
    found = sha256_file(target)
    if found != expected:
        raise CorruptArtifact(
            f"{source}: sha256 is {found[:12]}..., manifest.csv says {expected[:12]}...; bring it back with {fetch}"
        )


def _cut_samples(folder: Path, photos: Photos, seed: int) -> list[Row]:
    rows: list[Row] = []
    with Progress("collect", unit="crops") as progress:
        for crop in sample_crops(photos.sample_crops, photos.sample_crop_share, seed):
            file = f"{crop.photo.category}/{crop.name}.png"
            (folder / crop.photo.category).mkdir(exist_ok=True)
            save_png(folder / file, crop.pixels)
            rows.append(
                {
                    "file": file,
                    "category": crop.photo.category,
                    "group": crop.photo.name,
                    "source": crop.photo.source,
                    "licence": crop.photo.licence,
                    "sha256": sha256_file(folder / file),
                }
            )
            progress.advance()
    return rows
