"""Files that are either wholly there or not there at all: hashes, atomic writes, folder swaps, free space."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import unicodedata
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vernissage.core.errors import BadInput, CorruptArtifact, MissingArtifact, NotEnoughDisk

if TYPE_CHECKING:
    from collections.abc import Iterator

_HASH_BLOCK = 1 << 20
_MAX_NAME_BYTES = 120
_MAX_SUFFIX_BYTES = 16
_RESERVED_CHARACTERS = frozenset('<>:"/\\|?*')
_RESERVED_STEMS = frozenset(
    {"con", "prn", "aux", "nul", *(f"com{digit}" for digit in range(1, 10)), *(f"lpt{digit}" for digit in range(1, 10))}
)


def sha256_file(path: Path | str) -> str:
    """Return the SHA-256 of a file's bytes as 64 hexadecimal digits.

    Raises:
        MissingArtifact: There is no such file.
    """
    digest = hashlib.sha256()
    try:
        with Path(path).open("rb") as file:
            while block := file.read(_HASH_BLOCK):
                digest.update(block)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise MissingArtifact(f"{path}: no such file, so it has no hash") from error
    return digest.hexdigest()


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path` (same suffix); it becomes `path` on success and vanishes on failure.

    The bytes reach the disk before the name changes, so a crash or power cut leaves the old file or the new one,
    never half of either.

    Raises:
        OSError: The folder cannot be written.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = _sibling(target, target.suffix)
    try:
        yield temporary
        _sync_file(temporary)
        temporary.replace(target)
        _sync_folder(target.parent)
    finally:
        # After success the name is gone already; an error here must not hide the one that brought us here.
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def atomic_write_bytes(path: Path | str, data: bytes) -> None:
    """Write `data` so that a reader sees the old file or the whole new one."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def atomic_write_text(path: Path | str, text: str) -> None:
    """Write `text` as UTF-8 with its line ends as they are, atomically."""
    atomic_write_bytes(path, text.encode("utf-8"))


def atomic_write_json(path: Path | str, obj: Any) -> None:
    """Write `obj` as JSON (sorted keys, two spaces, newline at the end), atomically.

    Raises:
        ValueError: `obj` holds nan or infinity, which JSON cannot say; nothing is written.
        TypeError: `obj` holds something that JSON has no form for; nothing is written.
    """
    try:
        text = json.dumps(obj, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise ValueError(f"{path}: not written, JSON has no form for nan or infinity ({error})") from error
    atomic_write_text(path, text + "\n")


def read_json(path: Path | str) -> Any:
    """Return what a JSON file says.

    Raises:
        MissingArtifact: There is no such file.
        CorruptArtifact: The file is not UTF-8 JSON.
    """
    try:
        return json.loads(Path(path).read_bytes())
    except (FileNotFoundError, IsADirectoryError) as error:
        raise MissingArtifact(f"{path}: no such file; run the stage that makes it, or `dvc pull`") from error
    except (ValueError, RecursionError) as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        raise CorruptArtifact(
            f"{path}: not readable as JSON ({error}); run its stage again or `dvc checkout`"
        ) from error


@contextmanager
def fresh_folder(path: Path | str) -> Iterator[Path]:
    """Yield an empty folder beside `path`; it takes the place of `path` on success and vanishes on failure.

    On failure the old folder stays as it was. Between the two renames of the swap there is a moment in which `path`
    is not there (POSIX cannot exchange folders portably); nobody ever sees a mixture.

    Raises:
        NotADirectoryError: `path` is a file.
        OSError: The parent folder cannot be written.
    """
    target = Path(path)
    if target.exists() and not target.is_dir():
        raise NotADirectoryError(f"{target}: is a file, expected a folder (or nothing); move it away first")
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = _sibling(target, ".new")
    fresh.mkdir()
    try:
        yield fresh
        _swap_folder(fresh, target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def require_writable(folder: Path) -> None:
    """Make the output folder and try to write in it.

    Raises:
        BadInput: If that fails.
    """
    probe = folder / f".tmp-{secrets.token_hex(8)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        reason = error.strerror or str(error)
        raise BadInput(f"{folder}: cannot write there ({reason}); expected a folder for the results: -o DIR") from error


def require_free_space(path: Path | str, needed_bytes: int) -> None:
    """Check that the disk under `path` (which need not exist yet) has `needed_bytes` free.

    Raises:
        NotEnoughDisk: It has less.
    """
    place = Path(path).absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed_bytes:
        raise NotEnoughDisk(
            f"{path}: {_gibibytes(free)} free on this disk, {_gibibytes(needed_bytes)} needed; "
            "free some space (`dvc gc --workspace` drops cached data that nothing here uses) and run again"
        )


def safe_file_name(name: str) -> str:
    """Return a file name made from `name` that every common file system accepts.

    Letters of all alphabets stay (NFC); separators, control and reserved characters become `_`; leading and trailing
    dots and spaces go. The result is never empty, at most 120 bytes in UTF-8, and keeps a short suffix when cut.
    Applying it twice changes nothing.
    """
    text = unicodedata.normalize("NFC", name)
    text = "".join("_" if _is_unsafe(character) else character for character in text)
    text = _trim_bytes(text.strip(" ."))
    stem, _, _ = text.partition(".")
    if stem.rstrip(" ").lower() in _RESERVED_STEMS:
        text = _trim_bytes(f"_{text}")
    return text or "_"


def _is_unsafe(character: str) -> bool:
    # Categories C* are controls, surrogates, private use and direction marks; Zl and Zp break lines.
    category = unicodedata.category(character)
    return character in _RESERVED_CHARACTERS or category[0] == "C" or category in {"Zl", "Zp"}


def _trim_bytes(text: str) -> str:
    if len(text.encode("utf-8")) <= _MAX_NAME_BYTES:
        return text
    stem, dot, suffix = text.rpartition(".")
    if not stem or len(suffix.encode("utf-8")) > _MAX_SUFFIX_BYTES:
        stem, dot, suffix = text, "", ""
    room = _MAX_NAME_BYTES - len((dot + suffix).encode("utf-8"))
    short = stem.encode("utf-8")[:room].decode("utf-8", errors="ignore")
    return (short.rstrip(" .") + dot + suffix) or "_"


def _sibling(target: Path, suffix: str) -> Path:
    # Hidden and random: folder listings skip it, and two writers of one file never share it. The name is not
    # derived from the target's, which may already be as long as the file system allows.
    return target.with_name(f".tmp-{secrets.token_hex(8)}{suffix}")


def _swap_folder(fresh: Path, target: Path) -> None:
    if not target.exists():
        fresh.replace(target)
    else:
        old = _sibling(target, ".old")
        target.replace(old)
        try:
            fresh.replace(target)
        except OSError:
            old.replace(target)
            raise
        shutil.rmtree(old, ignore_errors=True)
    _sync_folder(target.parent)


def _sync_file(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    # Windows cannot open a folder for this, and some network file systems refuse; the rename stands all the same.
    with suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _gibibytes(count: int) -> str:
    return f"{count / 2**30:.2f} GiB"
