"""Files of sculptures: all that belong to one are written and read back before the first of them gets its name."""

from __future__ import annotations

import errno
import re
import shutil
import tempfile
import unicodedata
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vernissage.core.errors import BadInput, BadParams, CorruptArtifact, NotEnoughDisk
from vernissage.core.files import (
    atomic_path,
    atomic_write_json,
    atomic_write_text,
    read_json,
    require_writable,
    safe_file_name,
)
from vernissage.sculptor.domain.formats import FORMATS, WRITABLE, verify_written, write_structure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from vernissage.sculptor.use.sculpt import Sculpted

PICTURE, PAGE, RECORD = "png", "html", "json"
#: Formats of structures, then what is for people and programs.
OUTPUTS: dict[str, str] = {suffix.removeprefix("."): FORMATS[suffix].title for suffix in WRITABLE} | {
    PICTURE: "picture",
    PAGE: "page to turn it, with the steps that built it",
    RECORD: "all that is known about it, enough to build it again",
}
RECORD_FORMAT = 1

# Room for "_seed" with 19 digits, a number and a suffix below the 120 bytes of a safe name.
_STEM_BYTES = 80
_NAMELESS = "structure"
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True)
class Written:
    """What became of one sculpture.

    Attributes:
        name: Of its files, without suffix.
        files: Those that were written, in the order of the formats.
        warnings: Why formats are missing that cannot hold a structure without blocks.
        failed: Why others are missing: this structure has no form in them.
    """

    name: str
    files: tuple[Path, ...]
    warnings: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()


def read_formats(text: str) -> tuple[str, ...]:
    """Read names of formats, such as `schem,png`.

    Raises:
        BadParams: One is unknown, or there is none; the message lists all.
    """
    names = dict.fromkeys(name.strip().lower().removeprefix(".") for name in text.split(","))
    wanted = tuple(name for name in names if name)
    unknown = [name for name in wanted if name not in OUTPUTS]
    if unknown or not wanted:
        found = ", ".join(repr(name[:40]) for name in unknown) or "none"
        raise BadParams(f"format {found}: expected some of {','.join(OUTPUTS)}")
    return wanted


def sculpture_name(prompt: str, seed: int) -> str:
    """Return a name for files, such as `tall-oak-tree-with-thick-trunk_seed7`."""
    words = re.findall(r"\w+", unicodedata.normalize("NFC", prompt).lower())
    stem = ""
    for word in words:
        longer = f"{stem}-{word}" if stem else word
        if len(longer.encode("utf-8", "replace")) > _STEM_BYTES:
            break
        stem = longer
    # A single word may be longer than all that has room.
    cut = stem or "".join(words)[:_STEM_BYTES].encode("utf-8", "replace")[:_STEM_BYTES].decode("utf-8", "ignore")
    return safe_file_name(f"{cut or _NAMELESS}_seed{seed}")


def write_sculptures(
    sculptures: Sequence[Sculpted], folder: Path, formats: Sequence[str], *, protected: Sequence[Path] = ()
) -> list[Written]:
    """Write sculptures; files of an earlier run with the same names are replaced.

    No two of them share a name: the later gets ``-2``, ``-3``... A structure without a block has no form as blocks:
    these formats are left out with a warning, and its record is written whether it was asked for or not.

    Args:
        sculptures: With frames where pages shall show them.
        folder: Made if it is not there.
        formats: Keys of `OUTPUTS`.
        protected: Files that are not replaced: results get another name then.

    Raises:
        BadParams: A format is unknown.
        BadInput: The folder cannot be written.
        NotEnoughDisk: The disk is full. In these and all other cases a sculpture has all its files or those of before.
        CorruptArtifact: What was written is not what is read back.
    """
    formats = read_formats(",".join(formats))
    require_writable(folder)
    taken, results = {path.resolve() for path in protected}, []
    for sculpted in sculptures:
        results.append(_write(sculpted, folder, formats, taken))
        taken |= {path.resolve() for path in results[-1].files}
    return results


def record_of(sculpted: Sculpted) -> dict[str, Any]:
    """Return all that is known about a sculpture, as JSON values; `asked` and `model` build it again."""
    from importlib.metadata import version

    return {"format": RECORD_FORMAT, "vernissage": version("vernissage"), **sculpted.facts}


def _write(sculpted: Sculpted, folder: Path, formats: tuple[str, ...], taken: set[Path]) -> Written:
    wanted, warnings = formats, []
    if sculpted.empty:
        wanted = tuple(name for name in formats if name in {PICTURE, PAGE, RECORD})
        warnings = [f"{name}: not written, there is no block" for name in formats if name not in wanted]
        wanted = wanted if RECORD in wanted else (*wanted, RECORD)
    name = _free_name(sculpted, folder, wanted, taken)
    failed = []
    with _one_error(folder), tempfile.TemporaryDirectory(prefix=".tmp-", dir=folder) as scratch:
        staged = []
        for kind in wanted:
            path = Path(scratch) / f"{name}.{kind}"
            try:
                _write_one(sculpted, path, kind)
            except BadInput as error:
                failed.append(f"{kind}: not written, {str(error).removeprefix(f'{path}: ')}")
            else:
                staged.append(path)
        files = _move_all(staged, folder)
    return Written(name, tuple(files), tuple(warnings), tuple(failed))


def _free_name(sculpted: Sculpted, folder: Path, formats: tuple[str, ...], taken: set[Path]) -> str:
    first = name = sculpture_name(sculpted.prompt, sculpted.seed)
    number = 1
    while not taken.isdisjoint((folder / f"{name}.{kind}").resolve() for kind in formats):
        number += 1
        name = f"{first}-{number}"
    return name


def _write_one(sculpted: Sculpted, path: Path, kind: str) -> None:
    """Write one file and read it back."""
    if kind in _OTHERS:
        _OTHERS[kind](sculpted, path)
        return
    write_structure(sculpted.structure, path, title=sculpted.prompt)
    verify_written(sculpted.structure, path)


def _write_picture(sculpted: Sculpted, path: Path) -> None:
    from PIL import Image

    from vernissage.sculptor.domain.pictures import picture

    drawn = picture(sculpted.structure)
    with atomic_path(path) as temporary:
        drawn.save(temporary, format="PNG")
    with Image.open(path) as found:
        _agree(path, same=found.size == drawn.size and found.convert(drawn.mode).tobytes() == drawn.tobytes())


def _write_page(sculpted: Sculpted, path: Path) -> None:
    from vernissage.sculptor.use.view import view_page

    page = view_page(
        sculpted.structure,
        title=sculpted.prompt.strip() or "structure",
        facts=_shown_facts(sculpted),
        frames=sculpted.frames,
        palette=sculpted.palette,
    )
    atomic_write_text(path, page)
    _agree(path, same=path.read_bytes() == page.encode("utf-8"))


def _write_record(sculpted: Sculpted, path: Path) -> None:
    record = record_of(sculpted)
    atomic_write_json(path, record)
    _agree(path, same=read_json(path) == record)


_OTHERS: dict[str, Callable[[Sculpted, Path], None]] = {
    PICTURE: _write_picture,
    PAGE: _write_page,
    RECORD: _write_record,
}


def _shown_facts(sculpted: Sculpted) -> dict[str, str]:
    facts, anatomy = sculpted.facts, sculpted.facts["anatomy"]
    plan = facts["plan"] or {}
    shown = {
        "read as": facts["asked"]["read_as"] or "a tree of any kind",
        "seed": str(sculpted.seed),
        "size": str(sculpted.structure.size),
        "blocks": str(int(sculpted.structure.solid.sum())),
        "parts": "one" if anatomy["whole"] else str(anatomy["parts"]),
        "plan": ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in plan.items()),
        "network calls": str(facts["evaluations"]),
        "model": f"{facts['model']['checkpoint']}, {facts['model']['sha256'][:12]}",
        "remarks": "; ".join(sculpted.warnings),
    }
    return {name: value for name, value in shown.items() if value}


def _agree(path: Path, *, same: bool) -> None:
    if not same:
        raise CorruptArtifact(f"{path}: what is read back is not what was written; the disk may be failing")


def _move_all(staged: Sequence[Path], folder: Path) -> list[Path]:
    """Give the files their names; where one cannot have it, the others get none either."""
    targets = [folder / path.name for path in staged]
    for target in targets:
        if target.is_dir():
            raise BadInput(f"{target}: there is a folder of this name; move it away, or choose another: -o DIR")
    before = Path(tempfile.mkdtemp(prefix=".tmp-", dir=folder))
    moved: list[Path] = []
    try:
        for path, target in zip(staged, targets, strict=True):
            if target.exists():
                shutil.copy2(target, before / target.name)
            moved.append(target)
            path.replace(target)
    except BaseException:
        for target in moved:
            old = before / target.name
            if old.exists():
                old.replace(target)
            else:
                target.unlink(missing_ok=True)
        raise
    finally:
        shutil.rmtree(before, ignore_errors=True)
    return targets


@contextmanager
def _one_error(folder: Path) -> Iterator[None]:
    """Say in our own words what the file system refuses."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in _NO_SPACE:
            raise NotEnoughDisk(
                f"{folder}: the disk is full ({reason}); free some space, or choose another folder: -o DIR"
            ) from error
        raise BadInput(f"{folder}: cannot write there ({reason}); choose another folder: -o DIR") from error
