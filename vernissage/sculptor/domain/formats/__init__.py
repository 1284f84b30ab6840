"""Files of structures, one module a format; which one is told by the suffix."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from vernissage.core.errors import BadInput, CorruptArtifact
from vernissage.core.files import atomic_write_bytes
from vernissage.sculptor.domain.formats.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Callable

    from vernissage.sculptor.domain.structure import Structure

    Reader = Callable[[bytes, Limits], Structure]


@dataclass(frozen=True)
class Format:
    """A kind of structure file.

    Attributes:
        title: What people call it.
        module: The module of this package that has its `read` and `write`; it is imported when first used.
        reads: Whether it can be read.
        writes: Whether it can be written.
        keeps_states: Whether a written file says the same block states when it is read again.
    """

    title: str
    module: str
    reads: bool = True
    writes: bool = True
    keeps_states: bool = True

    @property
    def read(self) -> Reader | None:
        """`read(data, limits) -> Structure`, or None."""
        return import_module(f"{__name__}.{self.module}").read if self.reads else None

    @property
    def write(self) -> Callable[..., bytes] | None:
        """`write(structure, *, title) -> bytes`, or None."""
        return import_module(f"{__name__}.{self.module}").write if self.writes else None


FORMATS: dict[str, Format] = {
    ".schem": Format("Sponge schematic (WorldEdit)", "sponge"),
    ".schematic": Format("schematic of Minecraft 1.12 and earlier", "schematic", writes=False),
    ".nbt": Format("structure template (structure block)", "structure_nbt"),
    ".litematic": Format("litematic (Litematica)", "litematic"),
    ".iob": Format("Iris object", "iob"),
    ".vox": Format("MagicaVoxel model", "vox", keeps_states=False),
    ".glb": Format("3D mesh", "glb", reads=False, keeps_states=False),
}
READABLE = tuple(suffix for suffix, known in FORMATS.items() if known.reads)
WRITABLE = tuple(suffix for suffix, known in FORMATS.items() if known.writes)
_DEFAULT_LIMITS = Limits()
_LONGEST_TITLE = 200


def read_structure(path: Path | str, limits: Limits = _DEFAULT_LIMITS) -> Structure:
    """Read a structure file, the whole box that it declares.

    Raises:
        BadInput: There is no such file, its suffix is not one of `READABLE`, or what is in it cannot be used.
    """
    source = Path(path)
    read = _format(source, READABLE).read
    assert read is not None  # noqa: S101 - READABLE holds only those that have one
    try:
        return read(_bytes_of(source, limits), limits)
    except BadInput as error:
        raise BadInput(f"{source}: {error}") from error


def write_structure(structure: Structure, path: Path | str, *, title: str = "") -> None:
    """Write a structure file in the format of the path's suffix, wholly or not at all.

    Raises:
        BadInput: The suffix is not one of `WRITABLE`, or the format cannot hold this structure.
        OSError: The folder cannot be written.
    """
    target = Path(path)
    write = _format(target, WRITABLE).write
    assert write is not None  # noqa: S101 - WRITABLE holds only those that have one
    try:
        data = write(structure, title=_plain(title))
    except BadInput as error:
        raise BadInput(f"{target}: {error}") from error
    atomic_write_bytes(target, data)


def verify_written(structure: Structure, path: Path | str) -> None:
    """Read a file back and compare it with what was to be written: every state, or where there are blocks (.vox).

    A format that cannot be read (.glb) passes.

    Raises:
        CorruptArtifact: It cannot be read, or says something else.
        BadInput: The suffix is not one of `WRITABLE`.
    """
    kind = _format(Path(path), WRITABLE)
    if not kind.reads:
        return
    try:
        found = read_structure(path)
    except BadInput as error:
        raise CorruptArtifact(f"{error}: expected the structure that was just written; write it again") from error
    if not _agree(structure, found, kind):
        raise CorruptArtifact(
            f"{path}: holds {int(found.solid.sum()):,} blocks in {found.size}, not the {int(structure.solid.sum()):,} "
            f"in {structure.size} that were written, or other ones; write it again"
        )


def _plain(title: str) -> str:
    # The game reads text as Java's modified UTF-8, which writes zero bytes and characters beyond 16 bits differently.
    return "".join(letter for letter in title if letter.isprintable() and ord(letter) < 2**16)[:_LONGEST_TITLE]


def _agree(written: Structure, found: Structure, kind: Format) -> bool:
    if kind.keeps_states:
        return found.same_as(written)
    mine, theirs = written.cropped().solid, found.cropped().solid
    return mine.shape == theirs.shape and bool((mine == theirs).all())


def _format(path: Path, suffixes: tuple[str, ...]) -> Format:
    suffix = path.suffix.lower()
    if suffix not in suffixes:
        raise BadInput(f"{path}: suffix {suffix or 'missing'}, expected one of {', '.join(suffixes)}")
    return FORMATS[suffix]


def _bytes_of(path: Path, limits: Limits) -> bytes:
    # A folder, a pipe or a device under that name would otherwise end in a traceback or never.
    if not path.is_file():
        raise BadInput("no such file: expected a structure file")
    with path.open("rb") as file:
        data = file.read(limits.max_bytes + 1)
    if len(data) > limits.max_bytes:
        raise BadInput(f"more than {limits.max_bytes:,} bytes: no more than that pass")
    return data
