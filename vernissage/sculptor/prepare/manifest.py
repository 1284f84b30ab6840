"""The list of the user's structures, which git keeps: where each came from, what it is, and whether it is kept."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from vernissage.core.errors import CorruptArtifact
from vernissage.core.files import atomic_write_text
from vernissage.core.tables import write_csv

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

#: Formats that are looked for.
SUFFIXES = (".schem", ".schematic", ".nbt", ".litematic", ".iob")
MANIFEST_FILE, FILES_FOLDER = "manifest.csv", "files"
_IDENTITY = ("file", "sha256", "series", "status", "duplicate_of", "shape")
MEASURED_COLUMNS = ("size", "size_class", "species", "voxels", "wood", "leaves", "unknown", "unknown_blocks")
ANATOMY_COLUMNS = ("connectivity", "whole", "one_trunk", "crown_above", "leaf_survival", "cast_success")
MANIFEST_COLUMNS = (*_IDENTITY, *MEASURED_COLUMNS, *ANATOMY_COLUMNS)

_HASH = re.compile(r"[0-9a-f]{64}")


class Status(StrEnum):
    """What became of a file."""

    ADDED = "added"
    DUPLICATE = "duplicate"
    KNOWN = "known"
    REJECTED = "rejected"


@dataclass(frozen=True)
class ListedStructure:
    """One line of the manifest.

    Attributes:
        file: Path relative to the folder that it came from, with slashes.
        sha256: Hash of the file's bytes.
        series: Variants of one build, see :func:`vernissage.sculptor.prepare.series.series_of`.
        status: `added` or `duplicate`; duplicates are listed and not kept.
        duplicate_of: The file that it repeats; empty for others.
        shape: Name of its role grid, the same for what is turned or mirrored.
        facts: The measured columns, as texts.
    """

    file: str
    sha256: str
    series: str
    status: str
    duplicate_of: str
    shape: str
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def accepted(self) -> bool:
        """Whether the file is kept."""
        return self.status == Status.ADDED

    @property
    def speakable(self) -> bool:
        """Whether it has wood or leaves: captions have no words for anything else."""
        return any(self.facts[name] not in {"", "0"} for name in ("wood", "leaves"))

    @property
    def stored(self) -> str:
        """Path of the copy relative to the dataset, with slashes."""
        return f"{FILES_FOLDER}/{self.sha256}{PurePosixPath(self.file).suffix.lower()}"

    def row(self) -> dict[str, str]:
        """Return it as a line of the manifest."""
        identity = {name: str(getattr(self, name)) for name in _IDENTITY}
        return identity | {name: self.facts.get(name, "") for name in (*MEASURED_COLUMNS, *ANATOMY_COLUMNS)}


def read_manifest(target: Path) -> list[ListedStructure]:
    """Read the list of ingested structures, in the order in which they came; without one there are none.

    Args:
        target: Folder of the dataset.

    Raises:
        CorruptArtifact: If the file is not what :func:`ingest_structures` writes.
    """
    path = target / MANIFEST_FILE
    if not path.exists():
        return []
    try:
        lines = list(csv.reader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline="")))
    except (UnicodeDecodeError, csv.Error) as error:
        raise CorruptArtifact(f"{path}: not readable as CSV ({error}); `git checkout` it") from error
    if not lines or lines[0] != list(MANIFEST_COLUMNS):
        raise CorruptArtifact(f"{path}: found the columns {lines[:1]}, expected {list(MANIFEST_COLUMNS)}")
    return [_listed(path, line) for line in lines[1:]]


def _listed(manifest: Path, line: Sequence[str]) -> ListedStructure:
    row = dict(zip(MANIFEST_COLUMNS, line, strict=False))
    # The manifest comes with the repository, which may be a stranger's: a line must not reach outside the folder.
    sound = (
        len(line) == len(MANIFEST_COLUMNS)
        and _HASH.fullmatch(row["sha256"]) is not None
        and PurePosixPath(row["file"]).suffix.lower() in SUFFIXES
        and row["status"] in {Status.ADDED, Status.DUPLICATE}
    )
    if not sound:
        raise CorruptArtifact(
            f"{manifest}: line {','.join(line)[:200]!r} is not one that `vernissage ingest-structures` writes"
        )
    facts = {name: row[name] for name in (*MEASURED_COLUMNS, *ANATOMY_COLUMNS)}
    return ListedStructure(**{name: row[name] for name in _IDENTITY}, facts=facts)


def write_rows(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows as CSV, with the header even where there is no row."""
    if rows:
        write_csv(path, rows)
    else:
        atomic_write_text(path, ",".join(columns) + "\n")
