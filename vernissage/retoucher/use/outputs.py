"""Which files a run reads and writes: folders become photos, and no result ever replaces a photo or another result."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vernissage.core.files import safe_file_name

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

#: Where a folder is given, the files in it that are taken for photos.
PHOTO_SUFFIXES = frozenset(
    {
        ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".tif", ".tiff", ".webp", ".gif", ".bmp", ".ppm",
        ".pgm", ".pnm", ".jp2", ".avif",
    }
)  # fmt: skip
#: Names of RAW files. What can be read in one is a preview; rendering it would pass off a preview as the photo.
RAW_SUFFIXES = frozenset(
    {
        ".3fr", ".arw", ".cr2", ".cr3", ".dcr", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".mos", ".mrw", ".nef", ".nrw",
        ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f",
    }
)  # fmt: skip
RECIPE, SHEET, CUBE, LESSONS, PAGE, SIDECAR = ".recipe.json", ".steps.png", ".cube", ".explained.json", ".html", ".xmp"
#: Sidecars for untouched photos lie apart from edited ones: darktable reads `photo.xmp` beside *any* `photo.jpg`, and
#: beside the edited one it would edit a second time.
SIDECAR_FOLDER = "sidecars"


@dataclass(frozen=True)
class Plan:
    """Where the results of one photo go.

    Attributes:
        source: The photo.
        folder: The output folder.
        stem: Name of the results without suffix; no two photos of a run share it.
    """

    source: Path
    folder: Path
    stem: str

    @property
    def is_raw(self) -> bool:
        """Whether the photo calls itself a RAW file."""
        return self.source.suffix.lower() in RAW_SUFFIXES

    def output(self, suffix: str) -> Path:
        """Path of one result."""
        return self.folder / f"{self.stem}{suffix}"

    @property
    def sidecar(self) -> Path:
        """Path of the XMP for the untouched photo."""
        return self.folder / SIDECAR_FOLDER / f"{self.stem}{SIDECAR}"

    def all_outputs(self) -> set[Path]:
        """Every path that this photo may write."""
        suffixes = {self.source.suffix, ".png", RECIPE, SHEET, CUBE, LESSONS, PAGE, SIDECAR}
        return {*(self.output(suffix) for suffix in suffixes), self.sidecar}


def expand(paths: Sequence[Path]) -> list[Path]:
    """Replace folders by the photos in them, in the order of their names; what is named twice counts once."""
    found: dict[Path, Path] = {}
    for path in paths:
        inside = [path]
        if path.is_dir():
            # A folder without photos stays in the list, so that it is reported.
            inside = sorted(file for file in path.iterdir() if _looks_like_photo(file)) or inside
        for file in inside:
            found.setdefault(file.resolve(), file)
    return list(found.values())


def plan_outputs(photos: Sequence[Path], output: Path) -> list[Plan]:
    """Choose names such that no result replaces a photo of this run or another result: the later gets ``-2``, ``-3``...

    Args:
        photos: The photos.
        output: Folder for the results.

    Returns:
        One plan for each photo.
    """
    # Some file systems do not tell upper from lower case.
    taken = {_same_file_key(photo) for photo in photos}
    plans = []
    for photo in photos:
        stem, number = safe_file_name(photo.stem), 1
        plan = Plan(photo, output, stem)
        while not taken.isdisjoint(keys := {_same_file_key(path) for path in plan.all_outputs()}):
            number += 1
            plan = Plan(photo, output, f"{stem}-{number}")
        taken |= keys
        plans.append(plan)
    return plans


def _looks_like_photo(file: Path) -> bool:
    own_sheet = file.name.lower().endswith(SHEET)
    return file.suffix.lower() in PHOTO_SUFFIXES and not file.name.startswith(".") and not own_sheet and file.is_file()


def _same_file_key(path: Path) -> str:
    return os.fspath(path.resolve()).casefold()
