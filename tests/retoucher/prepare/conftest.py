"""A small dataset that has gone through all stages of the room, made once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.retoucher.prepare.pictures import ANNOTATE, DEGRADE, PHOTOS, RESIZE, MeanJuror, write_picture
from vernissage.retoucher.prepare.annotate import annotate
from vernissage.retoucher.prepare.collect import collect
from vernissage.retoucher.prepare.degrade import degrade
from vernissage.retoucher.prepare.ingest import ingest
from vernissage.retoucher.prepare.resize import resize_photos
from vernissage.retoucher.prepare.score import score_photos

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders mine, ingest, raw, resized, annotated, scored and ready."""
    root = tmp_path_factory.mktemp("dataset")
    for seed in range(12):
        size = (72, 54) if seed % 3 else (40, 60)
        write_picture(root / "mine" / ("hills", "rooms")[seed % 2] / f"{seed}.png", seed, *size, grey=seed >= 9)
    ingest(root / "mine", root / "ingest", report=root / "reports" / "ingest.csv")
    collect(root / "ingest", root / "raw", PHOTOS, seed=0)
    resize_photos(root / "raw", root / "resized", RESIZE, PHOTOS, reports=root / "reports")
    annotate(root / "resized", root / "annotated", ANNOTATE, seed=0)
    score_photos(root / "annotated", root / "resized", root / "scored", MeanJuror())
    degrade(root / "resized", root / "scored", root / "ready", DEGRADE, seed=0)
    return root
