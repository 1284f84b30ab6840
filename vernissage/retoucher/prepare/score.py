"""Lets the juror score every photo and writes the scores into the COCO file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch

from vernissage.core.errors import CorruptArtifact
from vernissage.core.files import atomic_write_json, read_json
from vernissage.core.progress import Progress
from vernissage.retoucher.prepare.annotate import ANNOTATIONS_FILE
from vernissage.retoucher.prepare.flow import equal_size_batches, load_batch

if TYPE_CHECKING:
    from pathlib import Path

LOWEST_SCORE, HIGHEST_SCORE = 0.0, 10.0
_BATCH = 64
_DIGITS = 4


class ScoresPhotos(Protocol):
    """What this stage asks of a juror; where it has a ``spread`` too, that is kept beside the score."""

    def score(self, images: torch.Tensor) -> torch.Tensor:
        """Score photos, (N, 3, H, W) float in [0, 1], from 0 to 10: (N,)."""
        ...


@dataclass(frozen=True)
class ScoreReport:
    """How the photos were scored.

    Attributes:
        photos: Number of photos.
        mean: Mean score, 0 to 10.
        lowest: Smallest score.
        highest: Largest score.
        mean_spread: Mean disagreement of the ensemble, in points; 0 for a juror that is none.
    """

    photos: int
    mean: float
    lowest: float
    highest: float
    mean_spread: float


def score_photos(annotated: Path, resized: Path, out: Path, juror: ScoresPhotos) -> ScoreReport:
    """Add ``score`` and ``score_spread`` (0 where the juror is no ensemble) to every image of the COCO file.

    Args:
        annotated: Folder with ``annotations.json``.
        resized: Folder that its file names are relative to.
        out: Folder that gets the new ``annotations.json``.
        juror: Scores batches of equally large photos.

    Returns:
        Numbers for the log.

    Raises:
        MissingArtifact: If a file is not there.
        CorruptArtifact: If the juror returns anything but finite scores from 0 to 10.
    """
    document: dict[str, Any] = read_json(annotated / ANNOTATIONS_FILE)
    images = document["images"]
    sizes = [(image["width"], image["height"]) for image in images]
    with Progress("juror-score", total=len(images), unit="photos") as progress, torch.inference_mode():
        for batch in equal_size_batches(sizes, _BATCH):
            photos = load_batch([resized / images[position]["file_name"] for position in batch])
            scores, spreads = juror.score(photos), _spread(juror, photos)
            _require_scores(scores, spreads, len(batch))
            for position, score, spread in zip(batch, scores.tolist(), spreads.tolist(), strict=True):
                images[position]["score"] = round(score, _DIGITS)
                images[position]["score_spread"] = round(spread, _DIGITS)
            progress.advance(len(batch))
    atomic_write_json(out / ANNOTATIONS_FILE, document)
    values = torch.tensor([image["score"] for image in images])
    spread = torch.tensor([image["score_spread"] for image in images])
    return ScoreReport(
        len(images), values.mean().item(), values.min().item(), values.max().item(), spread.mean().item()
    )


def _spread(juror: ScoresPhotos, photos: torch.Tensor) -> torch.Tensor:
    """How far the members of an ensemble disagree about each photo, in points: (N,)."""
    spread = getattr(juror, "spread", None)
    return torch.zeros(len(photos)) if spread is None else spread(photos)


def _require_scores(scores: torch.Tensor, spreads: torch.Tensor, count: int) -> None:
    for name, values in (("scores", scores), ("spreads", spreads)):
        if tuple(values.shape) != (count,) or not bool(torch.isfinite(values).all()):
            raise CorruptArtifact(
                f"juror: {name} of shape {tuple(values.shape)} for {count} photos, or not all finite; expected "
                f"({count},) finite numbers; train it again with `dvc repro juror`"
            )
    if bool((scores < LOWEST_SCORE).any()) or bool((scores > HIGHEST_SCORE).any()):
        raise CorruptArtifact(
            f"juror: scores from {scores.min().item():g} to {scores.max().item():g}; expected {LOWEST_SCORE:g} to "
            f"{HIGHEST_SCORE:g}; train it again with `dvc repro juror`"
        )
