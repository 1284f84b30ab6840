"""Scores photo files: what the juror thinks of each, how sure it is, and the numbers that a histogram panel shows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vernissage.core.errors import RejectedImage, VernissageError
from vernissage.core.images import read_photo
from vernissage.core.progress import track
from vernissage.retoucher.domain.filters import resize_area
from vernissage.retoucher.domain.statistics import photo_statistics
from vernissage.retoucher.learn.jurors import load_juror
from vernissage.retoucher.use.agent import seen_by
from vernissage.retoucher.use.outputs import expand
from vernissage.retoucher.use.reasons import MEASURED_EDGE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from vernissage.retoucher.learn.juror import Juror


@dataclass(frozen=True)
class Verdict:
    """What the juror says about one photo.

    Attributes:
        path: The photo as it was given.
        score: 0 to 10; about 8 is a photo as it was delivered. None where the photo could not be read.
        spread: Standard deviation between the members of the juror, in points; None where it has no members.
        size: Width and height in pixels.
        statistics: `photo_statistics` of the photo at `MEASURED_EDGE`.
        problem: Why there is no score; empty where there is one.
    """

    path: Path
    score: float | None = None
    spread: float | None = None
    size: tuple[int, int] | None = None
    statistics: Mapping[str, float] = field(default_factory=dict)
    problem: str = ""


def judge_files(paths: Sequence[Path], *, juror_folder: Path, progress: bool = True) -> list[Verdict]:
    """Score photos; one bad photo never stops the others.

    Args:
        paths: Photos, or folders whose photos are meant (not those in their sub-folders).
        juror_folder: Folder of the juror.
        progress: Whether to show how far it is; that is printed, so not where results are printed for programs.

    Returns:
        One verdict for each photo, in the order of ``paths``.

    Raises:
        MissingArtifact: If the juror is not there.
        CorruptArtifact: If one of its files is damaged.
    """
    juror = load_juror(juror_folder)
    photos = expand(paths)
    shown = track(photos, description="judge", unit="photos") if progress else photos
    return [_verdict_or_why_not(path, juror) for path in shown]


def _verdict_or_why_not(path: Path, juror: Juror) -> Verdict:
    try:
        return _verdict(path, juror)
    except RejectedImage as error:
        reason = error.reason
    except (VernissageError, OSError, ValueError, RuntimeError, MemoryError) as error:
        # Torch reports a failed allocation as RuntimeError; a photo that is too much must not end the batch.
        reason = " ".join(str(error).split()) or type(error).__name__
    return Verdict(path, problem=reason)


def _verdict(path: Path, juror: Juror) -> Verdict:
    photo = read_photo(path)
    height, width = photo.samples.shape[:2]
    # As `retouch` shows photos to the juror, so that both print one score.
    seen = seen_by(juror, photo)
    spread = getattr(juror, "spread", None)
    return Verdict(
        path,
        score=round(float(juror.score(seen)[0]), 4),
        spread=None if spread is None else round(float(spread(seen)[0]), 4),
        size=(width, height),
        statistics={
            name: round(value, 4) for name, value in photo_statistics(resize_area(seen, MEASURED_EDGE))[0].items()
        },
    )
