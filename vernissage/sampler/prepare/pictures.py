"""Pictures by class, small and of one size: the digits inside scikit-learn, or any folder or zip of pictures.

A zip is read in memory, entry by entry; nothing of it is ever written to disk. What cannot be read is left out with its
reason. Splits hang on the pixels alone, so that equal pictures are never on both sides, and a picture that is added
moves no other.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import zipfile
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Protocol

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from vernissage.core.colour_profiles import to_srgb
from vernissage.core.decoders import check_size, opened
from vernissage.core.errors import BadInput, BadParams, CorruptArtifact, MissingArtifact, RejectedImage
from vernissage.core.progress import track
from vernissage.core.weights import load_weights, save_weights

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from numpy.typing import NDArray

SPLITS = ("train", "val", "test")
DIGITS = "digits"

MAX_FILE_BYTES = 64 << 20
MAX_PIXELS = 50_000_000
MAX_PICTURES = 1_000_000

_FILE = "pictures"
_SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".jp2", ".avif")
)
# What operating systems leave in folders and archives.
_CLUTTER = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})
_LEAST_OF_A_CLASS = 2
_DIGITS_FILE, _DIGITS_SIDE, _DIGITS_TOP = "datasets/data/digits.csv.gz", 8, 16


@dataclass(frozen=True)
class Rejected:
    """A picture that was left out.

    Attributes:
        name: Its path inside the source.
        reason: Why, in one short line.
    """

    name: str
    reason: str


@dataclass(frozen=True)
class ClassPictures:
    """Pictures of one size with their classes and splits.

    Attributes:
        pictures: (N, C, H, W) uint8, C is 1 or 3, H equals W.
        labels: (N,) long, numbers of ``class_names``.
        splits: (N,) uint8, numbers of ``SPLITS``.
        class_names: Name of each class.
        rejected: What was left out.
    """

    pictures: torch.Tensor
    labels: torch.Tensor
    splits: torch.Tensor
    class_names: tuple[str, ...]
    rejected: tuple[Rejected, ...] = ()

    def __post_init__(self) -> None:
        shape = tuple(self.pictures.shape)
        if self.pictures.dtype != torch.uint8 or len(shape) != 4 or shape[1] not in (1, 3) or shape[2] != shape[3]:
            raise BadInput(
                f"pictures of {self.pictures.dtype} {shape}: expected uint8 (N, C, H, W), C 1 or 3, H equal to W"
            )
        for name, numbers, limit in (
            ("labels", self.labels, len(self.class_names)),
            ("splits", self.splits, len(SPLITS)),
        ):
            if numbers.shape != shape[:1]:
                raise BadInput(f"{name} of shape {tuple(numbers.shape)}: expected one per picture, ({shape[0]},)")
            if len(numbers) and not 0 <= int(numbers.min()) <= int(numbers.max()) < limit:
                raise BadInput(f"{name} from {int(numbers.min())} to {int(numbers.max())}: expected 0 to {limit - 1}")

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.pictures)

    def of_split(self, split: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the pictures and labels of ``train``, ``val`` or ``test``.

        Raises:
            BadInput: If there is no split of that name.
        """
        if split not in SPLITS:
            raise BadInput(f"split {split!r}: expected one of {', '.join(SPLITS)}")
        chosen = self.splits == SPLITS.index(split)
        return self.pictures[chosen], self.labels[chosen]

    def save(self, folder: Path) -> None:
        """Write ``pictures.safetensors`` and ``pictures.json``."""
        tensors = {"pictures": self.pictures, "labels": self.labels, "splits": self.splits}
        facts = {
            "class_names": list(self.class_names),
            "rejected": [[one.name, one.reason] for one in self.rejected],
        }
        save_weights(folder, tensors, facts, name=_FILE)

    @staticmethod
    def load(folder: Path) -> ClassPictures:
        """Read what :meth:`save` wrote.

        Raises:
            MissingArtifact: If there are none.
            CorruptArtifact: If they are not what was written.
        """
        tensors, facts = load_weights(folder, name=_FILE)
        try:
            return ClassPictures(
                pictures=tensors["pictures"],
                labels=tensors["labels"],
                splits=tensors["splits"],
                class_names=tuple(facts["class_names"]),
                rejected=tuple(Rejected(name, reason) for name, reason in facts["rejected"]),
            )
        except (KeyError, TypeError, ValueError, BadInput) as error:
            raise CorruptArtifact(
                f"{folder}: not pictures of this version ({error}); make them with `dvc repro denoiser`"
            ) from error


@dataclass(frozen=True)
class Shares:
    """How many pictures are held out.

    Attributes:
        val: Share that chooses weights.
        test: Share that nothing looks at before the benchmark. Where the source has folders ``val`` or ``test``, these
            take the place of the shares.

    Raises:
        BadParams: If they leave nothing to learn from.
    """

    val: float = 0.1
    test: float = 0.2

    def __post_init__(self) -> None:
        if not (self.val >= 0 and self.test >= 0 and self.val + self.test < 1):
            raise BadParams(f"shares val {self.val} and test {self.test}: expected 0 or more, together below 1")

    def split_of(self, picture: NDArray[np.uint8], by_folder: Collection[str] = ()) -> str:
        """Return the split that a picture's pixels ask for; never one of those that folders decide."""
        place = int.from_bytes(hashlib.sha256(picture.tobytes()).digest()[:8], "big") / 2**64
        if place < self.val and "val" not in by_folder:
            return "val"
        return "test" if place >= 1 - self.test and "test" not in by_folder else "train"


def load_pictures(source: str | Path, side: int, channels: int, shares: Shares | None = None) -> ClassPictures:
    """Read pictures by class.

    Args:
        source: ``digits`` for the handwritten digits inside scikit-learn, which are 8 by 8 and grey by nature; else a
            folder or zip with ``<class>/...``, or with ``train/<class>/...`` and beside it ``val`` or ``test``.
        side: Height and width to bring them to, pixels; what is not square is cut to its middle.
        channels: 1 for grey, 3 for RGB.
        shares: What is held out; ``Shares()`` where it is left out.

    Raises:
        MissingArtifact: If there is no such source.
        BadInput: If it holds no class folders, too few pictures of a class, or too many files.
        BadParams: If ``side`` or ``channels`` are out of range.
    """
    if not 1 <= side <= 4096 or channels not in (1, 3):
        raise BadParams(f"pictures of side {side} with {channels} channels: expected 1 to 4096 pixels, 1 or 3 channels")
    shares = shares or Shares()
    if str(source) == DIGITS:
        return _digits(side, channels, shares)
    path = Path(source)
    with _opened_source(path) as files:
        return _read_classes(path, files, side, channels, shares)


# --- digits -----------------------------------------------------------------------------------------------------------


def _digits(side: int, channels: int, shares: Shares) -> ClassPictures:
    # Importing scikit-learn takes seconds; the file is all that is needed.
    package = find_spec("sklearn")
    folders = list(package.submodule_search_locations or []) if package else []
    path = Path(folders[0]) / _DIGITS_FILE if folders else Path(_DIGITS_FILE)
    try:
        with gzip.open(path, "rt", encoding="ascii") as file:
            table = np.loadtxt(file, delimiter=",", ndmin=2)
    except FileNotFoundError as error:
        raise MissingArtifact(f"{path}: scikit-learn's digits are not there; install scikit-learn again") from error
    except (OSError, EOFError, ValueError) as error:
        raise CorruptArtifact(f"{path}: not readable ({error}); install scikit-learn again") from error
    levels = np.rint(table[:, :-1] * (255 / _DIGITS_TOP)).astype(np.uint8)
    rows = levels.reshape(-1, _DIGITS_SIDE, _DIGITS_SIDE)
    pictures = [_fitted(Image.fromarray(row), side, channels) for row in rows]
    labels = [str(int(label)) for label in table[:, -1]]
    return _gathered(Path(DIGITS), pictures, labels, [shares.split_of(picture) for picture in pictures], labels, ())


# --- folders and archives ---------------------------------------------------------------------------------------------


class _Files(Protocol):
    """Files by name, whether in a folder or in an archive."""

    def names(self) -> Sequence[str]:
        """Paths of the plain files, with forward slashes."""
        ...

    def read(self, name: str) -> bytes:
        """Return one file's bytes, or raise RejectedImage."""
        ...


class _Folder:
    def __init__(self, path: Path) -> None:
        self._path = path

    def names(self) -> list[str]:
        found = []
        for folder, _, files in os.walk(self._path):
            place = Path(folder).relative_to(self._path)
            found += [(place / name).as_posix() for name in files]
        return found

    def read(self, name: str) -> bytes:
        path = self._path / name
        if not path.is_file():
            raise RejectedImage("not a plain file, or a link to nowhere")  # a pipe could block for ever
        _check_bytes(path.stat().st_size)
        with path.open("rb") as file:
            return _bounded(file)


class _Archive:
    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive

    def names(self) -> list[str]:
        return [entry.filename for entry in self._archive.infolist() if not entry.is_dir()]

    def read(self, name: str) -> bytes:
        _check_bytes(self._archive.getinfo(name).file_size)
        # What the directory says of a size may be a lie, so reading has a limit of its own.
        with self._archive.open(name) as file:
            return _bounded(file)


@contextmanager
def _opened_source(path: Path) -> Iterator[_Files]:
    if path.is_dir():
        yield _Folder(path)
    elif path.is_file():
        try:
            archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise BadInput(f"{path}: neither a folder nor a readable zip ({error})") from error
        with archive:
            yield _Archive(archive)
    else:
        raise MissingArtifact(f"{path}: no such folder or zip; name one with a folder of pictures per class")


@dataclass(frozen=True)
class _Found:
    """A file that should be a picture: its name, its class and, where folders say so, its split."""

    name: str
    label: str
    split: str | None


def _read_classes(path: Path, files: _Files, side: int, channels: int, shares: Shares) -> ClassPictures:
    found, rejected = _sorted_out(path, files.names())
    read: list[tuple[_Found, NDArray[np.uint8]]] = []
    for one in track(found, description="pictures", unit="pictures"):
        try:
            read.append((one, _picture(files, one.name, side, channels)))
        except RejectedImage as error:
            rejected.append(_left_out(one.name, error.reason))
    held_out = {picture.tobytes(): one.split for one, picture in read if one.split == "val"}
    held_out |= {picture.tobytes(): one.split for one, picture in read if one.split == "test"}
    by_folder = {one.split for one in found if one.split is not None}
    chosen, labels, splits = [], [], []
    for one, picture in read:
        other = held_out.get(picture.tobytes(), one.split)
        if other != one.split:
            rejected.append(_left_out(one.name, f"the same picture is in the folder {other}"))
            continue
        chosen.append(picture)
        labels.append(one.label)
        splits.append(one.split if one.split in ("val", "test") else shares.split_of(picture, by_folder))
    return _gathered(path, chosen, labels, splits, [one.label for one in found], tuple(rejected))


def _sorted_out(path: Path, names: Sequence[str]) -> tuple[list[_Found], list[Rejected]]:
    """Tell classes and splits from the names alone."""
    if len(names) > MAX_PICTURES:
        raise BadInput(f"{path}: {len(names):,} files, at most {MAX_PICTURES:,} are read")
    rejected, parts_of = [], {}
    for name in sorted(set(names)):
        parts = PurePosixPath(name).parts
        if PurePosixPath(name).suffix.lower() not in _SUFFIXES:
            continue
        if _leads_outside(name):
            rejected.append(_left_out(name, "a path that leads out of the archive"))
        elif not any(part.startswith(".") or part in _CLUTTER for part in parts):
            parts_of[name] = parts
    skipped = _outer_folders(list(parts_of.values()))
    # A class may be called "train" too; the folder of a split has folders inside.
    folders_split = any(
        parts[skipped : skipped + 1] == ("train",) and len(parts) > skipped + 2 for parts in parts_of.values()
    )
    found = []
    for name, parts in parts_of.items():
        inside = parts[skipped:]
        if len(inside) < (3 if folders_split else 2):
            rejected.append(_left_out(name, "not inside the folder of a class"))
        elif not folders_split:
            found.append(_Found(name, _writable(inside[0]), None))
        elif inside[0] in SPLITS:
            found.append(_Found(name, _writable(inside[1]), inside[0]))
        else:
            rejected.append(_left_out(name, f"in none of the folders {', '.join(SPLITS)}"))
    if not found:
        raise BadInput(
            f"{path}: no pictures inside class folders{_told(rejected)}; expected <class>/picture.png, or "
            "train/<class>/picture.png and test/<class>/picture.png"
        )
    return found, rejected


def _leads_outside(name: str) -> bool:
    plain = name.replace("\\", "/")
    return plain.startswith("/") or ".." in plain.split("/") or plain[1:2] == ":" or "\0" in plain


def _outer_folders(parts: list[tuple[str, ...]]) -> int:
    """How many folders lie around all classes, as an archive of one folder has."""
    skipped = 0
    while True:
        inside = [one[skipped:] for one in parts if len(one) > skipped + 1]
        deeper = [one for one in inside if len(one) > 2]
        several = len({one[1] for one in deeper}) > 1
        if len({one[0] for one in inside}) != 1 or inside[0][0] == "train" or not (several or deeper == inside):
            return skipped
        skipped += 1


def _picture(files: _Files, name: str, side: int, channels: int) -> NDArray[np.uint8]:
    """(C, side, side) of one file."""
    try:
        with opened(io.BytesIO(files.read(name))) as image:
            check_size(*image.size, MAX_PIXELS)
            image.load()
            upright = ImageOps.exif_transpose(image)
            return _fitted(_eight_bits(upright, image.info.get("icc_profile")), side, channels)
    except RejectedImage:
        raise
    except UnidentifiedImageError as error:
        raise RejectedImage("not a picture, or damaged from its start on") from error
    except MemoryError as error:
        raise RejectedImage("not enough memory to decode it") from error
    except Exception as error:
        # Decoders raise whatever their authors thought of; a damaged file must cost one picture, never the others.
        raise RejectedImage(f"cannot be read: {' '.join(str(error).split())[:160] or type(error).__name__}") from error


def _eight_bits(image: Image.Image, profile: bytes | None) -> Image.Image:
    """The picture in 8 bits per channel, sRGB, over white where it is transparent."""
    if image.mode == "I" or image.mode.startswith("I;16"):
        levels = np.asarray(image).astype(np.int64)
        return Image.fromarray((levels.clip(0, 65535) // 257).astype(np.uint8))
    if image.mode == "F":
        raise RejectedImage("floats without a unit: expected 8 or 16 bits per channel")
    if image.has_transparency_data:
        full = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", full.size, (255, 255, 255, 255)), full).convert("RGB")
    return image if image.mode == "L" and profile is None else to_srgb(image, profile, [])


def _fitted(image: Image.Image, side: int, channels: int) -> NDArray[np.uint8]:
    """(C, side, side): the middle square, scaled."""
    image = image.convert("L" if channels == 1 else "RGB")
    square = min(image.size)
    left, top = (image.width - square) // 2, (image.height - square) // 2
    # Cut first: the filter would reach over the edge of a box.
    image = image.crop((left, top, left + square, top + square))
    if square != side:
        image = image.resize((side, side), Image.Resampling.LANCZOS)
    levels = np.asarray(image, np.uint8)
    return np.ascontiguousarray(levels.reshape(side, side, channels).transpose(2, 0, 1))


def _check_bytes(size: int) -> None:
    if size == 0:
        raise RejectedImage("empty file")
    if size > MAX_FILE_BYTES:
        raise RejectedImage(f"too large: {size:,} bytes; at most {MAX_FILE_BYTES:,} are read")


def _bounded(file: IO[bytes]) -> bytes:
    data = file.read(MAX_FILE_BYTES + 1)
    _check_bytes(len(data))
    return data


def _gathered(
    path: Path,
    pictures: list[NDArray[np.uint8]],
    labels: list[str],
    splits: list[str],
    expected: list[str],
    rejected: tuple[Rejected, ...],
) -> ClassPictures:
    """Put all together, and refuse classes that cannot be learned; ``expected`` names the classes there should be."""
    names = tuple(sorted({*expected}))
    counts = Counter(labels)
    for name in names:
        if counts[name] < _LEAST_OF_A_CLASS:
            raise BadInput(
                f"{path}: pictures of class {name!r}: {counts[name]}, expected at least {_LEAST_OF_A_CLASS}"
                f"{_told(rejected)}; add pictures or take the folder away"
            )
    taught = {label for label, split in zip(labels, splits, strict=True) if split == "train"}
    for name in names:
        if name not in taught:
            raise BadInput(
                f"{path}: all {counts[name]} pictures of class {name!r} are held out, none is left to learn from; "
                "add pictures of it"
            )
    number = {name: position for position, name in enumerate(names)}
    return ClassPictures(
        pictures=torch.from_numpy(np.stack(pictures)),
        labels=torch.tensor([number[label] for label in labels]),
        splits=torch.tensor([SPLITS.index(split) for split in splits], dtype=torch.uint8),
        class_names=names,
        rejected=rejected,
    )


def _left_out(name: str, reason: str) -> Rejected:
    return Rejected(_writable(name), _writable(reason))


def _writable(text: str) -> str:
    # Names that are no UTF-8 reach us with surrogates, which no file of ours can hold.
    return text.encode("utf-8", "replace").decode("utf-8")


def _told(rejected: Sequence[Rejected]) -> str:
    if not rejected:
        return ""
    return f" ({len(rejected)} left out; the first: {rejected[0].name}: {rejected[0].reason})"
