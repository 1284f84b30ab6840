"""Brings all raw photos to one standard: upright, sRGB, 8 bits, one size; the others are listed with a reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from vernissage.core.devices import usable_cores
from vernissage.core.errors import BadInput, GateFailed, MissingArtifact, RejectedImage
from vernissage.core.files import fresh_folder, sha256_file
from vernissage.core.images import Photo, read_photo, save_png, to_uint8
from vernissage.core.progress import Progress
from vernissage.retoucher.prepare.collect import COLLECTED_TABLE
from vernissage.retoucher.prepare.flow import ordered_map
from vernissage.retoucher.prepare.tables import (
    COLLECTED_COLUMNS,
    PHOTO_COLUMNS,
    REJECTED_COLUMNS,
    Row,
    read_table,
    write_table,
)

if TYPE_CHECKING:
    from pathlib import Path

    from vernissage.core.params import Photos, Resize

# A photo of 50 megapixels takes about 2 GB while it is decoded.
_MOST_READERS = 2


@dataclass(frozen=True)
class ResizeReport:
    """How many photos made it.

    Attributes:
        accepted: Photos in the dataset.
        rejected: Photos in ``rejected.csv``.
    """

    accepted: int
    rejected: int


@dataclass(frozen=True)
class _Resized:
    """One raw photo after its worker thread: pixels, or the reason why there are none."""

    row: dict[str, str]
    pixels: np.ndarray | None = None
    original_size: tuple[int, int] = (0, 0)
    history: tuple[str, ...] = ()
    reason: str = ""


def resize_photos(raw: Path, out: Path, resize: Resize, photos: Photos, *, reports: Path) -> ResizeReport:
    """Resize every raw photo; one bad file never stops the others.

    Args:
        raw: Folder with ``collected.csv``.
        out: Folder that gets ``photos/``, ``photos.csv`` and ``rejected.csv``, made anew.
        resize: Parameters ``resize``.
        photos: Parameters ``photos``.
        reports: Folder that gets a copy of ``rejected.csv``, which stays when the stage fails.

    Returns:
        Counts for the log.

    Raises:
        GateFailed: If a larger share than ``photos.max_reject_fraction`` was rejected.
        BadInput: If no photo is left.
        MissingArtifact: If ``collected.csv`` is not there.
    """
    rows = read_table(raw / COLLECTED_TABLE, COLLECTED_COLUMNS)
    accepted: list[Row] = []
    rejected: list[Row] = []
    with fresh_folder(out) as folder, Progress("resize", total=len(rows), unit="photos") as progress:
        (folder / "photos").mkdir()
        threads = min(_MOST_READERS, usable_cores())
        for item in ordered_map(lambda row: _resize_file(raw, row, resize, photos), rows, threads=threads):
            if item.pixels is None:
                rejected.append({"file": item.row["file"], "reason": item.reason, "sha256": item.row["sha256"]})
            else:
                accepted.append(_store(folder, len(accepted) + 1, item, item.pixels))
            progress.advance(1, rejected=len(rejected))
        write_table(folder / "photos.csv", PHOTO_COLUMNS, accepted)
        for place in (folder, reports):
            write_table(place / "rejected.csv", REJECTED_COLUMNS, rejected)
        _require_enough(len(accepted), rejected, photos.max_reject_fraction, reports / "rejected.csv")
    return ResizeReport(len(accepted), len(rejected))


def shrink(photo: Photo, long_edge: int) -> np.ndarray:
    """Resample a photo so that its longer side has at most ``long_edge`` pixels; smaller photos keep their size.

    Transparent parts are laid over white, as a page would show them.

    Args:
        photo: The photo.
        long_edge: Pixels.

    Returns:
        (h, w, 3) uint8.
    """
    pixels = photo.samples
    if photo.alpha is not None:
        opacity = photo.alpha[..., np.newaxis]
        pixels = photo.pixels * opacity + (1 - opacity)
    height, width = pixels.shape[:2]
    scale = long_edge / max(height, width)
    picture = to_uint8(pixels)
    if scale >= 1:
        return picture
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))


def _resize_file(raw: Path, row: dict[str, str], resize: Resize, photos: Photos) -> _Resized:
    try:
        if not (raw / row["file"]).exists():
            raise MissingArtifact(f"{raw / row['file']}: listed in {COLLECTED_TABLE} but not here; `dvc repro collect`")
        photo = read_photo(raw / row["file"], max_pixels=photos.max_pixels)
        pixels = shrink(photo, resize.long_edge)
        _require_large_enough(pixels, photo, resize.min_edge)
    except RejectedImage as error:
        return _Resized(row, reason=error.reason)
    height, width = photo.samples.shape[:2]
    history = (*photo.history, "alpha over white") if photo.alpha is not None else photo.history
    return _Resized(row, pixels, (width, height), history)


def _require_large_enough(pixels: np.ndarray, photo: Photo, min_edge: int) -> None:
    height, width = pixels.shape[:2]
    if min(height, width) >= min_edge:
        return
    was = f"{photo.samples.shape[1]}x{photo.samples.shape[0]}"
    now = f"{width}x{height}"
    size = f"{was} px" if was == now else f"{was} px, {now} px after resizing"
    raise RejectedImage(f"too small: {size}; the shorter side must have at least {min_edge} px")


def _store(folder: Path, image_id: int, item: _Resized, pixels: np.ndarray) -> Row:
    file = f"photos/{image_id:06d}.png"
    save_png(folder / file, pixels)
    return {
        "image_id": image_id,
        "file": file,
        "category": item.row["category"],
        "group": item.row["group"],
        "source_file": item.row["file"],
        "sha256": sha256_file(folder / file),
        "width": pixels.shape[1],
        "height": pixels.shape[0],
        "original_width": item.original_size[0],
        "original_height": item.original_size[1],
        "history": ";".join(item.history),
    }


def _require_enough(accepted: int, rejected: list[Row], most: float, report: Path) -> None:
    total = accepted + len(rejected)
    examples = "; ".join(f"{row['file']}: {row['reason']}" for row in rejected[:3])
    if total == 0:
        raise BadInput("resize: no photos were collected; bring your own with `vernissage ingest FOLDER`")
    share = len(rejected) / total
    if share > most:
        raise GateFailed(
            f"resize: {len(rejected)} of {total} photos were rejected ({share:.0%}), at most {most:.0%} are allowed by "
            f"photos.max_reject_fraction ({examples}); all of them with reasons: {report}"
        )
    if accepted == 0:
        raise BadInput(f"resize: all {total} photos were rejected ({examples}); all of them with reasons: {report}")
