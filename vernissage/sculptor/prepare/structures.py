"""Makes the dataset: trees that are grown by rules, and the user's own structures, measured and split."""

from __future__ import annotations

import json
import logging
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from vernissage.core.devices import thread_count
from vernissage.core.errors import BadInput, BadParams, CorruptArtifact, MissingArtifact
from vernissage.core.files import fresh_folder, sha256_file
from vernissage.core.progress import Progress
from vernissage.sculptor.domain.anatomy import judge_anatomy
from vernissage.sculptor.domain.attributes import measure_attributes
from vernissage.sculptor.domain.blocks import species_of, structure_to_roles
from vernissage.sculptor.domain.dataset import Dataset, measured_columns, table_of
from vernissage.sculptor.domain.formats import read_structure
from vernissage.sculptor.domain.sizes import SIZES, size_class
from vernissage.sculptor.prepare.grower import grow_any
from vernissage.sculptor.prepare.manifest import MANIFEST_FILE, ListedStructure, read_manifest
from vernissage.sculptor.prepare.processes import in_processes
from vernissage.sculptor.prepare.series import SPLITS, split_series
from vernissage.sculptor.prepare.symmetry import symmetry_key

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

log = logging.getLogger(__name__)

# A process is asked for as many voxels of canvas at a time, so that no chunk takes much longer than another.
_CHUNK_VOXELS = 1 << 18
_OWN_CHUNK = 16
#: Where duplicates are kept: held-out structures stay what they are, however many there are to train with.
_KEPT_FIRST = ("test", "val", "train")


@dataclass(frozen=True)
class StructureSettings:
    """What the dataset is made of.

    Attributes:
        train: Name of a size to the number of trees to grow for it.
        val: The same for choosing the best training step.
        test: The same for the benchmark.
        seed: Of everything that is drawn.
        own_only: Whether no tree is grown.
        val_share: Share of the series of own structures that go to `val`.
        test_share: Share of the series of own structures that go to `test`.
        workers: Processes; changes the speed and never the result. None takes as many as stages have threads.

    Raises:
        BadParams: A size has no name that is known, a number is negative, or there is nothing to make.
    """

    train: Mapping[str, int]
    val: Mapping[str, int] = field(default_factory=dict)
    test: Mapping[str, int] = field(default_factory=dict)
    seed: int = 0
    own_only: bool = False
    val_share: float = 0.1
    test_share: float = 0.1
    workers: int | None = None

    def __post_init__(self) -> None:
        for split in SPLITS:
            for size, count in self.counts(split).items():
                if size not in SIZES or count < 0:
                    raise BadParams(
                        f"structures.{split}: {size} = {count}, expected {', '.join(SIZES)} with a number from 0"
                    )
        if not self.own_only and not any(self.train.values()):
            raise BadParams("structures.train: no tree to grow, expected a number above 0; or set structures.own_only")
        if min(self.val_share, self.test_share) < 0 or self.val_share + self.test_share >= 1:
            raise BadParams(
                f"structures: val_share {self.val_share:g} and test_share {self.test_share:g}, expected shares from 0 "
                "with a sum below 1: training sees only the rest"
            )

    def counts(self, split: str) -> Mapping[str, int]:
        """Size name to number of grown trees."""
        counts: Mapping[str, int] = getattr(self, split)
        return counts


@dataclass(frozen=True)
class _Sample:
    """One structure on its way into the dataset."""

    row: dict[str, Any]
    grid: np.ndarray
    key: str


@dataclass(frozen=True)
class _GrowTask:
    """Neighbouring numbers of one split and size."""

    seed: int
    split: str
    size: str
    numbers: range

    def __len__(self) -> int:
        return len(self.numbers)


@dataclass(frozen=True)
class _ReadTask:
    """Some of the user's files with their splits."""

    folder: Path
    listed: tuple[tuple[ListedStructure, str], ...]

    def __len__(self) -> int:
        return len(self.listed)


def make_structures(own_folder: Path, out: Path, settings: StructureSettings) -> Dataset:
    """Grow trees, take in the user's own structures, and write both as a dataset.

    Every grown tree has a generator of its own, so that neither the number of trees nor that of processes changes any.
    Own structures are split by series. What looks the same, but for turning and mirroring, is never in two splits.

    Args:
        own_folder: Where `vernissage ingest-structures` keeps the user's structures; may be missing or empty.
        out: Folder of the dataset; replaced as a whole.
        settings: What to make.

    Raises:
        BadInput: No tree is to be grown and none of the own structures can be used.
        MissingArtifact: A listed file is not there.
        CorruptArtifact: A listed file is not the one that was ingested.
    """
    manifest = read_manifest(own_folder)
    speakable = [one for one in manifest if one.speakable]
    splits = split_series(
        [(one.series, one.shape) for one in speakable],
        seed=settings.seed,
        val_share=settings.val_share,
        test_share=settings.test_share,
    )
    own = [(one, splits[one.series]) for one in speakable if one.accepted]
    _say_what_is_own(manifest, own)
    tasks: list[_GrowTask | _ReadTask] = [*_read_tasks(own_folder, own)]
    if not settings.own_only:
        tasks += _grow_tasks(settings)
    samples = _gather(tasks, settings.workers or thread_count())
    if not samples:
        raise BadInput(
            f"{own_folder / MANIFEST_FILE}: {_why_none(manifest)}; expected some of a tree, since structures.own_only "
            "is set: `vernissage ingest-structures FOLDER`, or unset it"
        )
    kept = _without_leaks(samples)
    if leaked := len(samples) - len(kept):
        log.info("%d left out: the same structure, turned or mirrored, is in another split", leaked)
    dataset = Dataset(tuple(sample.grid for sample in kept), table_of([sample.row for sample in kept]))
    with fresh_folder(out) as folder:
        dataset.save(folder)
    return dataset


def _gather(tasks: Sequence[_GrowTask | _ReadTask], workers: int) -> list[_Sample]:
    samples: list[_Sample] = []
    with Progress("structures", total=sum(map(len, tasks)), unit="structures") as progress:
        for task, found in zip(tasks, in_processes(_make, tasks, workers), strict=True):
            samples += found
            progress.advance(len(task))
    return samples


def _make(task: _GrowTask | _ReadTask) -> list[_Sample]:
    return _grow(task) if isinstance(task, _GrowTask) else _read(task)


def _grow_tasks(settings: StructureSettings) -> list[_GrowTask]:
    return [
        _GrowTask(settings.seed, split, name, range(first, min(first + step, count)))
        for split in SPLITS
        for name in SIZES
        if (count := settings.counts(split).get(name, 0))
        for step in [max(1, _CHUNK_VOXELS // int(np.prod(SIZES[name])))]
        for first in range(0, count, step)
    ]


def _read_tasks(folder: Path, own: Sequence[tuple[ListedStructure, str]]) -> list[_ReadTask]:
    return [_ReadTask(folder, tuple(own[first : first + _OWN_CHUNK])) for first in range(0, len(own), _OWN_CHUNK)]


def _grow(task: _GrowTask) -> list[_Sample]:
    place = (SPLITS.index(task.split), list(SIZES).index(task.size))
    samples = []
    for number in task.numbers:
        species, grid = grow_any(SIZES[task.size], np.random.default_rng([task.seed, *place, number]))
        name = f"grown-{task.split}-{task.size}-{number:06d}"
        row = {"structure_id": name, "source": "grown", "series": name, "split": task.split, "size": task.size}
        samples.append(_measured(row, grid, species))
    return samples


def _say_what_is_own(manifest: Sequence[ListedStructure], own: Sequence[tuple[ListedStructure, str]]) -> None:
    if not manifest:
        log.info("no structures of your own; `vernissage ingest-structures FOLDER` takes some in")
        return
    repeats = sum(not one.accepted for one in manifest)
    counts = Counter(split for _, split in own)
    log.info(
        "own structures: %d of %d used (%d repeat others, %d have neither wood nor leaves), %d series; %s",
        len(own),
        len(manifest),
        repeats,
        len(manifest) - repeats - len(own),
        len({one.series for one, _ in own}),
        ", ".join(f"{counts[split]} {split}" for split in SPLITS),
    )
    if own and not (counts["val"] and counts["test"]):
        log.info("own structures are of too few series for every split; what is held out is grown, if anything")


def _why_none(manifest: Sequence[ListedStructure]) -> str:
    kept = sum(one.accepted for one in manifest)
    return f"none of the {kept} structures has wood or leaves" if kept else "lists no structure"


def _read(task: _ReadTask) -> list[_Sample]:
    return [_read_own(task.folder, listed, split) for listed, split in task.listed]


def _read_own(folder: Path, listed: ListedStructure, split: str) -> _Sample:
    path = folder / listed.stored
    if not path.is_file():
        raise MissingArtifact(
            f"{path}: no such file, though {MANIFEST_FILE} lists it as {listed.file}; `dvc pull`, or ingest it again"
        )
    if sha256_file(path) != listed.sha256:
        raise CorruptArtifact(
            f"{path}: not the bytes that were ingested as {listed.file}; `dvc checkout`, or ingest it again"
        )
    structure = read_structure(path).cropped()
    roles = structure_to_roles(structure)
    grid = np.ascontiguousarray(roles.grid, np.uint8)
    palette = {role.name: state for role, state in sorted(roles.palette.items())}
    row = {
        "structure_id": f"own-{listed.sha256[:16]}",
        "source": "own",
        "series": listed.series,
        "split": split,
        "size": size_class(structure.size),
        "palette": json.dumps(palette, sort_keys=True),
    }
    return _measured(row, grid, species_of(structure))


def _measured(row: Mapping[str, Any], grid: np.ndarray, species: str | None) -> _Sample:
    # A tree that was grown for a larger canvas than it needs is short there, whatever it would be elsewhere.
    attributes = measure_attributes(grid, species=species, size=SIZES[row["size"]])
    measured = measured_columns(attributes, judge_anatomy(grid))
    return _Sample({"palette": None} | dict(row) | measured, grid, symmetry_key(grid))


def _without_leaks(samples: Sequence[_Sample]) -> list[_Sample]:
    """Drop what another split has already; repetition within a split stays, it is how often such a thing comes."""
    home: dict[str, str] = {}
    for sample in sorted(samples, key=lambda sample: _KEPT_FIRST.index(sample.row["split"])):
        home.setdefault(sample.key, sample.row["split"])
    return [sample for sample in samples if home[sample.key] == sample.row["split"]]
