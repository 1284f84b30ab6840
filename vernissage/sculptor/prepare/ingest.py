"""Takes the user's structures in: copies them once by content, lists them in a manifest, tells what became of all."""

from __future__ import annotations

import hashlib
import os
import stat
import unicodedata
from collections import deque
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vernissage.core.devices import thread_count
from vernissage.core.errors import BadInput, MissingArtifact
from vernissage.core.files import atomic_path, require_free_space, sha256_file
from vernissage.core.progress import Progress
from vernissage.sculptor.domain.anatomy import judge_anatomy
from vernissage.sculptor.domain.blocks import species_of, structure_to_roles
from vernissage.sculptor.domain.formats import read_structure
from vernissage.sculptor.domain.formats.limits import Limits
from vernissage.sculptor.domain.sizes import SIZES, size_class
from vernissage.sculptor.prepare.manifest import (
    ANATOMY_COLUMNS,
    FILES_FOLDER,
    MANIFEST_COLUMNS,
    MANIFEST_FILE,
    SUFFIXES,
    ListedStructure,
    Status,
    read_manifest,
    write_rows,
)
from vernissage.sculptor.prepare.processes import in_processes
from vernissage.sculptor.prepare.series import series_of
from vernissage.sculptor.prepare.symmetry import symmetry_key

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from vernissage.sculptor.domain.structure import Structure

REJECTED_FILE = "rejected.csv"
REJECTED_COLUMNS = ("file", "reason")

_LARGEST = SIZES["huge"]
_COPY_BLOCK = 1 << 20
_SPARE_BYTES = 64 << 20
_SHOWN_UNKNOWN = 5


@dataclass(frozen=True)
class Outcome:
    """What became of one file of the ingested folder.

    Attributes:
        file: Path relative to the ingested folder, with slashes.
        status: `added`; `duplicate`: the same structure, turned or mirrored, is there under another name; `known`: its
            bytes are listed; or `rejected`.
        reason: Why it was not added; empty if it was.
        series: Which it belongs to; empty for a rejected one.
    """

    file: str
    status: Status
    reason: str = ""
    series: str = ""


@dataclass(frozen=True)
class IngestReport:
    """What became of all structure files of the ingested folder.

    Attributes:
        outcomes: One per file, in the order of their paths.
        listed: The manifest after this run.
        others: Files of other formats, which were not looked at.
    """

    outcomes: tuple[Outcome, ...]
    listed: tuple[ListedStructure, ...]
    others: int

    def count(self, status: Status) -> int:
        """Number of files with a status."""
        return sum(outcome.status is status for outcome in self.outcomes)

    @property
    def kept(self) -> int:
        """Number of structures in the dataset."""
        return sum(one.accepted for one in self.listed)


@dataclass(frozen=True)
class _Found:
    """A file of the source folder, or why it or its folder cannot be opened."""

    path: Path
    shown: str
    problem: str = ""


@dataclass(frozen=True)
class _Inspected:
    """A file after it was read: its hash, shape and measures, or why it cannot be used."""

    found: _Found
    sha256: str = ""
    size: int = 0
    shape: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""


def ingest_structures(
    source: Path,
    target: Path,
    *,
    rejected: Path | None = None,
    workers: int | None = None,
    limits: Limits | None = None,
) -> IngestReport:
    """Copy the structures of a folder into the dataset and list them; nothing in the folder changes.

    A structure need not be a tree nor hang together: the manifest says what it is. It must hold a block, and fit
    24 x 64 x 24 when cropped. A second run adds what is new and loses nothing.

    Args:
        source: The user's folder, searched with all sub-folders.
        target: Folder of the dataset; gets ``files/`` and ``manifest.csv``.
        rejected: CSV file that gets the files of this run that cannot be used; by default ``rejected.csv`` in it.
        workers: Processes that read files; None takes as many as stages have threads.
        limits: What a file may promise before it is refused.

    Raises:
        BadInput: If the folder is missing, has no structure file, or overlaps with the dataset.
        MissingArtifact: If listed structures are not on disk, since `dvc add` would then forget them.
        NotEnoughDisk: If the copies do not fit.
    """
    _require_usable(source, target)
    walked = list(_walk(source))
    found = [file for file in walked if file.problem or file.path.suffix.lower() in SUFFIXES]
    if not found:
        raise BadInput(f"{source}: none of {len(walked)} files is a structure; expected {', '.join(SUFFIXES)}")
    library = _Library(target)
    outcomes = []
    inspect = partial(_inspect, known=frozenset(library.listed), limits=limits or Limits())
    try:
        with Progress("ingest structures", total=len(found), unit="files") as progress:
            for inspected in in_processes(inspect, found, workers or thread_count()):
                outcomes.append(library.take(inspected, root=source.resolve().name))
                progress.advance()
    finally:
        # After an error or Ctrl-C too: what was copied so far is then listed, and the next run goes on from there.
        library.write_manifest()
    outcomes.sort(key=lambda outcome: outcome.file)
    refused = [{"file": one.file, "reason": one.reason} for one in outcomes if one.status is Status.REJECTED]
    write_rows(rejected or target / REJECTED_FILE, REJECTED_COLUMNS, refused)
    return IngestReport(tuple(outcomes), tuple(library.listed.values()), len(walked) - len(found))


class _Library:
    """The structures of the dataset while a run adds to them."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self.listed = {one.sha256: one for one in read_manifest(target)}
        self._shapes = {(one.shape, one.facts["species"]): one for one in self.listed.values() if one.accepted}
        missing = [one for one in self.listed.values() if one.accepted and not (target / one.stored).is_file()]
        if missing:
            raise MissingArtifact(
                f"{target / FILES_FOLDER}: {len(missing)} of {len(self.listed)} structures of {MANIFEST_FILE} are not "
                f"here (the first is {missing[0].file}); `dvc pull`, or take their lines out of {MANIFEST_FILE} if you "
                "deleted them on purpose"
            )

    def take(self, inspected: _Inspected, root: str) -> Outcome:
        """List one file and keep a copy, unless it cannot be used or is here already."""
        file = inspected.found.shown
        if inspected.problem:
            return Outcome(file, Status.REJECTED, inspected.problem)
        series = series_of(file, root)
        if (known := self.listed.get(inspected.sha256)) is not None:
            return Outcome(file, Status.KNOWN, f"same bytes as {known.file}", known.series)
        shape = (inspected.shape, inspected.facts["species"])
        twin = self._shapes.get(shape)
        status = Status.ADDED if twin is None else Status.DUPLICATE
        twin_file = twin.file if twin is not None else ""
        one = ListedStructure(file, inspected.sha256, series, status.value, twin_file, inspected.shape, inspected.facts)
        if twin is None:
            require_free_space(self._target, inspected.size + _SPARE_BYTES)
            try:
                _copy(inspected.found.path, self._target / one.stored, one.sha256)
            except BadInput as error:
                return Outcome(file, Status.REJECTED, str(error))
            self._shapes[shape] = one
        self.listed[one.sha256] = one
        return Outcome(file, status, f"same structure as {twin_file}" if twin_file else "", series)

    def write_manifest(self) -> None:
        """Write the list, in the order in which structures came: the first of duplicates is the one that is kept."""
        write_rows(self._target / MANIFEST_FILE, MANIFEST_COLUMNS, [one.row() for one in self.listed.values()])


def _require_usable(source: Path, target: Path) -> None:
    if not source.exists():
        raise BadInput(f"{source}: no such folder; expected a folder with structures")
    if not source.is_dir():
        raise BadInput(f"{source}: is a file; expected a folder with structures")
    origin, dataset = source.resolve(), target.resolve()
    if origin.is_relative_to(dataset):
        raise BadInput(f"{source}: lies inside the dataset {target}; expected a folder of your own")
    if dataset.is_relative_to(origin):
        raise BadInput(f"{source}: contains the dataset {target} itself; expected a folder with nothing but structures")


def _walk(source: Path) -> Iterator[_Found]:
    """All files below a folder, each folder once however links lead to it, hidden ones left out."""
    visited: set[tuple[int, int]] = set()
    queue, links = deque([source]), deque[Path]()
    while queue or links:
        folder = queue.popleft() if queue else links.popleft()
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in visited:
                continue
            visited.add((status.st_dev, status.st_ino))
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            yield _found(source, folder, f"folder cannot be opened: {error.strerror or error}")
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            path = folder / entry.name
            if entry.is_dir():
                (links if entry.is_symlink() else queue).append(path)
            else:
                yield _found(source, path)


def _found(source: Path, path: Path, problem: str = "") -> _Found:
    return _Found(path, "/".join(_shown(part) for part in path.relative_to(source).parts), problem)


def _shown(name: str) -> str:
    """A file name as text for one cell: what is not UTF-8, and what breaks lines, becomes a replacement character."""
    text = unicodedata.normalize("NFC", os.fsencode(name).decode("utf-8", errors="replace"))
    return "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(one) in {"Cc", "Zl", "Zp"} else one for one in text
    )


def _inspect(found: _Found, *, known: frozenset[str], limits: Limits) -> _Inspected:
    """Hash a file and, where its bytes are new, read and measure it."""
    try:
        size = _require_readable(found, limits)
        sha256 = sha256_file(found.path)
        if sha256 in known:
            return _Inspected(found, sha256, size)
        shape, facts = _measure(_require_fitting(read_structure(found.path, limits).cropped()))
    except BadInput as error:
        return _Inspected(found, problem=_plain(error, found.path))
    except MissingArtifact:
        return _Inspected(found, problem="vanished while it was read")
    except OSError as error:
        problem = "broken link" if found.path.is_symlink() else f"cannot be read: {error.strerror or error}"
        return _Inspected(found, problem=problem)
    return _Inspected(found, sha256, size, shape, facts)


def _require_readable(found: _Found, limits: Limits) -> int:
    if found.problem:
        raise BadInput(found.problem)
    status = found.path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise BadInput("not a regular file")
    if status.st_size > limits.max_bytes:
        raise BadInput(f"{status.st_size:,} bytes: at most {limits.max_bytes:,} pass")
    return status.st_size


def _require_fitting(structure: Structure) -> Structure:
    if not structure.solid.any():
        raise BadInput("holds no block, only air")
    if not _LARGEST.holds(structure.size):
        raise BadInput(f"{structure.size} blocks without the air around: at most {_LARGEST} fit")
    return structure


def _measure(structure: Structure) -> tuple[str, dict[str, str]]:
    roles = structure_to_roles(structure)
    grid = np.ascontiguousarray(roles.grid, np.uint8)
    anatomy = asdict(judge_anatomy(grid))
    facts: dict[str, Any] = {
        "size": structure.size,
        "size_class": size_class(structure.size),
        "species": species_of(structure) or "",
        "voxels": anatomy["voxels"],
        "wood": anatomy["wood"],
        "leaves": anatomy["leaves"],
        "unknown": sum(roles.others.values()),
        "unknown_blocks": " ".join(list(roles.others)[:_SHOWN_UNKNOWN]),
    }
    facts |= {name: anatomy[name] for name in ANATOMY_COLUMNS}
    return symmetry_key(grid), {name: _text(value) for name, value in facts.items()}


def _text(value: object) -> str:
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:.6g}"
    return str(value)


def _plain(error: Exception, path: Path) -> str:
    """The message as one line without the path in front of it, which the table names in its own column."""
    text = " ".join(str(error).split())
    return text.removeprefix(str(path)).lstrip(": ").replace(str(path), path.name)


def _copy(source: Path, target: Path, expected: str) -> None:
    """Copy a file atomically and check the hash on the way.

    Raises:
        BadInput: The file is not what was looked at any more.
    """
    digest = hashlib.sha256()
    try:
        with source.open("rb") as reader, atomic_path(target) as temporary:
            with temporary.open("wb") as writer:
                while block := reader.read(_COPY_BLOCK):
                    digest.update(block)
                    writer.write(block)
            _require_same(digest.hexdigest(), expected)
    except FileNotFoundError:
        raise BadInput("vanished while it was read") from None


def _require_same(found: str, expected: str) -> None:
    if found != expected:
        raise BadInput("changed while it was read")
