"""Takes the user's photos in: copies them once, lists them in a manifest, and tells what became of every file."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
import unicodedata
from collections import Counter, deque
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from vernissage.core.devices import usable_cores
from vernissage.core.errors import BadInput, CorruptArtifact, MissingArtifact, RejectedImage, VernissageError
from vernissage.core.files import atomic_path, require_free_space, safe_file_name, sha256_file
from vernissage.core.images import read_photo
from vernissage.core.progress import Progress
from vernissage.retoucher.prepare.flow import ordered_map
from vernissage.retoucher.prepare.tables import INGEST_COLUMNS, INGEST_REPORT_COLUMNS, read_table, write_table

if TYPE_CHECKING:
    from collections.abc import Iterator

DEFAULT_CATEGORY = "photos"
#: Where `dvc add` is pointed at, relative to the repository.
TRACKED_FOLDER = Path("data/ingest/photos")
#: Litter of file managers; files and folders that start with a dot are litter too.
_LITTER = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx"})
# Names that `atomic_path` gives to files that are not finished yet.
_UNFINISHED = ".tmp-"
_COPY_BLOCK = 1 << 20
_SPARE_BYTES = 64 << 20
# A photo of 50 megapixels takes about 2 GB while it is decoded.
_MOST_READERS = 2
_DIGITS_IN_NAME = 8
# The manifest is written after as many new photos, so that even a killed run leaves few to be looked at again.
_PHOTOS_PER_MANIFEST = 200


class Status(StrEnum):
    """What became of a file."""

    ADDED = "added"
    DUPLICATE = "duplicate"
    REJECTED = "rejected"
    IGNORED = "ignored"


@dataclass(frozen=True)
class Outcome:
    """What became of one file of the ingested folder.

    Attributes:
        file: Path relative to the ingested folder, with slashes.
        status: Added, duplicate, rejected or ignored.
        category: Category that it has or would have.
        reason: Why it was not added; empty for most added files.
    """

    file: str
    status: Status
    category: str
    reason: str = ""


@dataclass(frozen=True)
class IngestReport:
    """What became of all files of the ingested folder.

    Attributes:
        outcomes: One per file, in the order of their paths.
        photos_in_all: Photos in the dataset after this run.
    """

    outcomes: tuple[Outcome, ...]
    photos_in_all: int

    def count(self, status: Status) -> int:
        """Number of files with a status."""
        return sum(outcome.status is status for outcome in self.outcomes)

    @property
    def added(self) -> int:
        """Number of new photos."""
        return self.count(Status.ADDED)

    @property
    def duplicates(self) -> int:
        """Number of files whose bytes were there already."""
        return self.count(Status.DUPLICATE)

    @property
    def rejected(self) -> int:
        """Number of files that are no usable photo."""
        return self.count(Status.REJECTED)

    @property
    def ignored(self) -> int:
        """Number of hidden files and folders."""
        return self.count(Status.IGNORED)


@dataclass(frozen=True)
class IngestedPhoto:
    """One line of manifest.csv.

    Attributes:
        file: Path relative to the photo folder, with slashes.
        category: Category.
        sha256: Hash of the file's bytes.
        size: Bytes.
        source: Path relative to the folder it came from; empty for an adopted file.
    """

    file: str
    category: str
    sha256: str
    size: int
    source: str


@dataclass(frozen=True)
class _Found:
    """A file of the source folder that must be looked at, or a path of which the fate is known."""

    path: Path
    shown: str
    category: str
    status: Status | None = None
    reason: str = ""


@dataclass(frozen=True)
class _Inspected:
    """A file after its worker thread: its hash, or why it cannot be used."""

    found: _Found
    sha256: str = ""
    size: int = 0
    problem: str = ""


def ingest(source: Path, target: Path, *, report: Path, max_pixels: int = 200_000_000) -> IngestReport:
    """Copy the photos of a folder into the dataset and list them; nothing in the folder changes.

    The first level of sub-folders becomes the category. A file whose bytes are there already is a duplicate, so a
    second run adds nothing. A photo is listed after it was copied: what an interrupted run left is adopted by the next.

    Args:
        source: The user's folder, searched with all sub-folders.
        target: Folder of the dataset; gets ``photos/`` and ``manifest.csv``.
        report: CSV file that gets one line per file.
        max_pixels: Photos with more are rejected before they are decoded.

    Returns:
        What became of every file.

    Raises:
        BadInput: If the folder is missing, empty, or overlaps with the dataset.
        MissingArtifact: If listed photos are not on disk, since `dvc add` would then forget them.
        NotEnoughDisk: If the copies do not fit.
    """
    _require_usable(source, target)
    found = list(_walk(source))
    if not any(file.status is not Status.IGNORED for file in found):
        raise BadInput(f"{source}: no files in this folder (hidden ones are not counted); expected photos in it")
    library = _Library(target)
    outcomes = list(library.adopt_strays(max_pixels))
    try:
        outcomes += _take_in(found, library, max_pixels)
    finally:
        # After an error or Ctrl-C too: what was copied so far is then listed, and the next run goes on from there.
        library.write_manifest()
    outcomes.sort(key=lambda outcome: outcome.file)
    write_table(report, INGEST_REPORT_COLUMNS, [vars(outcome) for outcome in outcomes])
    return IngestReport(tuple(outcomes), len(library.photos))


def read_manifest(target: Path) -> list[IngestedPhoto]:
    """Read the list of ingested photos; without one there are none.

    Args:
        target: Folder of the dataset.

    Raises:
        CorruptArtifact: If the file is not what :func:`ingest` writes.
    """
    path = target / "manifest.csv"
    if not path.exists():
        return []
    return [_listed(path, row) for row in read_table(path, INGEST_COLUMNS)]


def track_with_dvc(repo_root: Path) -> str:
    """Put the ingested photos under DVC's care (`dvc add data/ingest/photos`).

    Args:
        repo_root: Folder with ``.dvc``.

    Returns:
        What DVC said.

    Raises:
        VernissageError: If DVC refuses; the message is DVC's own.
    """
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", "add", TRACKED_FOLDER.as_posix()]
    done = subprocess.run(
        command,
        cwd=repo_root,
        env={**os.environ, "DVC_NO_ANALYTICS": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise VernissageError(
            f"dvc add {TRACKED_FOLDER.as_posix()}: DVC stopped with code {done.returncode}: {' / '.join(said[-4:])}; "
            "the photos are copied and listed; run that command again when this is mended"
        )
    return done.stdout.strip()


def _listed(manifest: Path, row: dict[str, str]) -> IngestedPhoto:
    file = PurePosixPath(row["file"])
    # The manifest comes with the repository, which may be a stranger's: a line must not reach outside the photo folder.
    if file.is_absolute() or ".." in file.parts or not file.parts or not row["bytes"].isdecimal():
        raise CorruptArtifact(f"{manifest}: line {','.join(row.values())!r} is not one that `vernissage ingest` writes")
    return IngestedPhoto(row["file"], row["category"], row["sha256"], int(row["bytes"]), row["source"])


class _Library:
    """The photos of the dataset while a run adds to them."""

    def __init__(self, target: Path) -> None:
        self.folder = target / "photos"
        self._manifest = target / "manifest.csv"
        self.photos = {photo.sha256: photo for photo in read_manifest(target)}
        self._require_complete()
        self._taken = {_name_key(photo.file) for photo in self.photos.values()}
        self._adopted: set[str] = set()

    def adopt_strays(self, max_pixels: int) -> Iterator[Outcome]:
        """List what lies in the photo folder without being in the manifest: copied by a run that was interrupted."""
        listed = {photo.file for photo in self.photos.values()}
        for path in sorted(self.folder.rglob("*")):
            if path.name.startswith(_UNFINISHED) and path.is_file():
                path.unlink(missing_ok=True)
                continue
            file = path.relative_to(self.folder).as_posix()
            if path.name.startswith(".") or not path.is_file() or file in listed:
                continue
            category = file.split("/")[0] if "/" in file else DEFAULT_CATEGORY
            stray = _inspect(_Found(path, file, category), max_pixels, known=frozenset(self.photos))
            if stray.problem or stray.sha256 in self.photos:
                reason = stray.problem or f"same bytes as {self.photos[stray.sha256].file}"
                why = f"lies in the dataset's folder without being listed: {reason}"
                yield Outcome(path.as_posix(), Status.REJECTED, category, why)
                continue
            self._list(IngestedPhoto(file, category, stray.sha256, stray.size, ""))
            self._adopted.add(stray.sha256)

    def add(self, photo: _Inspected) -> Outcome:
        """Copy one readable photo, unless its bytes are here already."""
        found = photo.found
        known = self.photos.get(photo.sha256)
        if known is not None and photo.sha256 in self._adopted:
            self._adopted.remove(photo.sha256)
            self.photos[photo.sha256] = replace(known, source=found.shown)
            return Outcome(found.shown, Status.ADDED, known.category, "was copied by an interrupted run")
        if known is not None:
            came_from = f", which came from {known.source}" if known.source else ""
            return Outcome(found.shown, Status.DUPLICATE, found.category, f"same bytes as {known.file}{came_from}")
        file = self._free_name(found, photo.sha256)
        require_free_space(self.folder, photo.size + _SPARE_BYTES)
        try:
            _copy(found.path, self.folder / file, photo.sha256)
        except RejectedImage as error:
            return Outcome(found.shown, Status.REJECTED, found.category, error.reason)
        self._list(IngestedPhoto(file, found.category, photo.sha256, photo.size, found.shown))
        if len(self.photos) % _PHOTOS_PER_MANIFEST == 0:
            self.write_manifest()
        return Outcome(found.shown, Status.ADDED, found.category)

    def write_manifest(self) -> None:
        """Write the list, sorted by file."""
        rows = [
            {"file": p.file, "category": p.category, "sha256": p.sha256, "bytes": p.size, "source": p.source}
            for p in sorted(self.photos.values(), key=lambda photo: photo.file)
        ]
        self.folder.mkdir(parents=True, exist_ok=True)
        write_table(self._manifest, INGEST_COLUMNS, rows)

    def _list(self, photo: IngestedPhoto) -> None:
        self.photos[photo.sha256] = photo
        self._taken.add(_name_key(photo.file))

    def _free_name(self, found: _Found, sha256: str) -> str:
        name = Path(safe_file_name(_shown(found.path.name)))
        file = f"{found.category}/{name}"
        digits = _DIGITS_IN_NAME
        while _name_key(file) in self._taken or (self.folder / file).exists():
            file = f"{found.category}/{name.stem}-{sha256[:digits]}{name.suffix}"
            digits += _DIGITS_IN_NAME
        return file

    def _require_complete(self) -> None:
        missing = [photo.file for photo in self.photos.values() if not (self.folder / photo.file).is_file()]
        if missing:
            raise MissingArtifact(
                f"{self.folder}: {len(missing)} of {len(self.photos)} photos of {self._manifest.name} are not here "
                f"(the first is {missing[0]}); fetch them with `dvc checkout {TRACKED_FOLDER.as_posix()}.dvc` or "
                f"`dvc pull`, or take their lines out of {self._manifest} if you deleted them on purpose"
            )


def _require_usable(source: Path, target: Path) -> None:
    if not source.exists():
        raise BadInput(f"{source}: no such folder; expected a folder with photos")
    if not source.is_dir():
        raise BadInput(f"{source}: is a file; expected a folder with photos")
    origin, dataset = source.resolve(), target.resolve()
    if origin.is_relative_to(dataset):
        raise BadInput(f"{source}: lies inside the dataset {target}; expected a folder of your own")
    if dataset.is_relative_to(origin):
        raise BadInput(f"{source}: contains the dataset {target} itself; expected a folder with nothing but photos")


def _walk(source: Path) -> Iterator[_Found]:
    """All files below a folder, each folder once; links come last, so that the real path gives the category."""
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
            reason = f"folder cannot be opened: {error.strerror or error}"
            yield _found(source, folder, Status.REJECTED, reason)
            continue
        for entry in entries:
            path = folder / entry.name
            if entry.name.startswith(".") or entry.name.lower() in _LITTER:
                yield _found(source, path, Status.IGNORED, "hidden, or a file manager's own")
            elif entry.is_dir():
                (links if entry.is_symlink() else queue).append(path)
            else:
                yield _found(source, path)


def _found(source: Path, path: Path, status: Status | None = None, reason: str = "") -> _Found:
    parts = path.relative_to(source).parts
    category = safe_file_name(_shown(parts[0])) if len(parts) > 1 else DEFAULT_CATEGORY
    return _Found(path, "/".join(_shown(part) for part in parts), category, status, reason)


def _shown(name: str) -> str:
    """A file name as text that can be written: bytes that are not UTF-8 become replacement characters."""
    return unicodedata.normalize("NFC", os.fsencode(name).decode("utf-8", errors="replace"))


def _name_key(file: str) -> str:
    """Equal for names that some file system takes for the same."""
    return unicodedata.normalize("NFC", file).casefold()


def _take_in(found: list[_Found], library: _Library, max_pixels: int) -> list[Outcome]:
    known = frozenset(library.photos)
    outcomes = []
    tally: Counter[Status] = Counter()
    threads = min(_MOST_READERS, usable_cores())
    with Progress("ingest", total=len(found), unit="files") as progress:
        for photo in ordered_map(lambda file: _inspect(file, max_pixels, known), found, threads=threads):
            if photo.found.status is not None:
                outcome = Outcome(photo.found.shown, photo.found.status, photo.found.category, photo.found.reason)
            elif photo.problem:
                outcome = Outcome(photo.found.shown, Status.REJECTED, photo.found.category, photo.problem)
            else:
                outcome = library.add(photo)
            outcomes.append(outcome)
            tally[outcome.status] += 1
            progress.advance(1, **{status.value: count for status, count in tally.items()})
    return outcomes


def _inspect(found: _Found, max_pixels: int, known: frozenset[str]) -> _Inspected:
    """Hash a file and, where its bytes are new, decode it once: what cannot be decoded must not enter the dataset."""
    if found.status is not None:
        return _Inspected(found)
    try:
        status = found.path.stat()
        if not stat.S_ISREG(status.st_mode):
            return _Inspected(found, problem="not a regular file")
        sha256 = sha256_file(found.path)
        if sha256 not in known:
            read_photo(found.path, max_pixels=max_pixels)
    except RejectedImage as error:
        return _Inspected(found, problem=error.reason)
    except MissingArtifact:
        return _Inspected(found, problem="vanished while it was read")
    except OSError as error:
        problem = "broken link" if found.path.is_symlink() else f"cannot be read: {error.strerror or error}"
        return _Inspected(found, problem=problem)
    return _Inspected(found, sha256, status.st_size)


def _copy(source: Path, target: Path, expected: str) -> None:
    """Copy a file atomically and check the hash on the way."""
    digest = hashlib.sha256()
    try:
        with atomic_path(target) as temporary:
            with source.open("rb") as reader, temporary.open("wb") as writer:
                while block := reader.read(_COPY_BLOCK):
                    digest.update(block)
                    writer.write(block)
            if digest.hexdigest() != expected:
                raise RejectedImage("changed while it was read", source)
    except FileNotFoundError:
        raise RejectedImage("vanished while it was read", source) from None
