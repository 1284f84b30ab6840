"""Makes the pairs that the retoucher learns from: faulty copies of each photo, and clean ones to be left alone."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vernissage.core.errors import BadInput
from vernissage.core.files import fresh_folder, read_json, require_free_space
from vernissage.core.progress import Progress
from vernissage.core.seeds import derive_seed, numpy_generator
from vernissage.retoucher.domain.faults import FAULTS, AppliedFault, apply_faults, draw_faults
from vernissage.retoucher.domain.quality import delta_e, psnr
from vernissage.retoucher.prepare.annotate import ANNOTATIONS_FILE, is_monochrome
from vernissage.retoucher.prepare.flow import equal_size_batches, load_batch, to_pixels
from vernissage.retoucher.prepare.splits import SPLITS
from vernissage.retoucher.prepare.tables import PAIR_COLUMNS, Row, write_table
from vernissage.retoucher.prepare.writers import PictureWriters

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from vernissage.core.params import Degrade

PAIRS_TABLE = "pairs.csv"
_BATCH = 32
_DIGITS = 6
# A drawn set of faults can leave a photo as it is (say, less contrast on flat mid-grey); then another set is drawn.
_MOST_TRIES = 20


@dataclass(frozen=True)
class DegradeReport:
    """What pairs there are.

    Attributes:
        pairs: Number of pairs.
        clean: Number of pairs without a fault.
        pairs_of_split: Split to number of pairs.
        mean_delta_e: Mean colour difference (CIEDE2000) of the faulty pairs.
        mean_psnr: Mean peak signal-to-noise ratio of the faulty pairs, in dB.
    """

    pairs: int
    clean: int
    pairs_of_split: Mapping[str, int]
    mean_delta_e: float
    mean_psnr: float


@dataclass(frozen=True)
class PlannedPair:
    """A pair before its picture is made.

    Attributes:
        pair_id: From 1, without gaps.
        image: The COCO image.
        category: Its category.
        draw: Which copy of the photo it is, from 0; clean copies count on after the faulty ones.
        faulty: Whether it gets faults.
    """

    pair_id: int
    image: Mapping[str, Any]
    category: str
    draw: int
    faulty: bool


@dataclass(frozen=True)
class _MadePair:
    """A damaged copy: its faults and how far it is from the original."""

    faults: tuple[AppliedFault, ...]
    delta_e: float
    psnr: float


def degrade(resized: Path, scored: Path, out: Path, params: Degrade, seed: int) -> DegradeReport:
    """Write originals, damaged copies and the table of pairs.

    Two runs give the same bytes: each pair has its own generator, keyed by the photo's hash and the number of the copy,
    so a photo's faults do not depend on the other photos either.

    Args:
        resized: Folder that the COCO file's names are relative to.
        scored: Folder with ``annotations.json``.
        out: Folder that gets ``pairs.csv``, ``original/`` and ``faulty/``, made anew.
        params: Parameters ``degrade``.
        seed: Root of the randomness.

    Returns:
        Numbers for the log.

    Raises:
        MissingArtifact: If a file is not there.
        NotEnoughDisk: If the pairs do not fit.
    """
    plan = plan_pairs(read_json(scored / ANNOTATIONS_FILE), params.draws, params.clean_share)
    require_free_space(out, sum(3 * pair.image["width"] * pair.image["height"] for pair in plan))
    with fresh_folder(out) as folder:
        originals = _copy_originals(resized, folder, plan)
        (folder / "faulty").mkdir()
        with PictureWriters(params.writers) as writers, Progress("degrade-split", total=len(plan), unit="pairs") as bar:
            made: dict[int, _MadePair] = {}
            for batch in _batches(plan):
                made |= _make_batch(folder, originals, batch, params=params, seed=seed, writers=writers)
                bar.advance(len(batch))
        hashes = writers.hashes()
        rows = [_row(pair, made[pair.pair_id], hashes[pair.pair_id], seed) for pair in plan]
        write_table(folder / PAIRS_TABLE, PAIR_COLUMNS, rows)
    return _report(plan, made)


def plan_pairs(document: Mapping[str, Any], draws: int, clean_share: float) -> list[PlannedPair]:
    """Decide which pairs there will be.

    Args:
        document: A scored COCO file.
        draws: Faulty copies of each photo.
        clean_share: Share of clean pairs among all; kept within one pair in every split.

    Returns:
        Pairs in the order of their numbers: by photo, faulty copies first.
    """
    names = {category["id"]: category["name"] for category in document["categories"]}
    category_of = {row["image_id"]: names[row["category_id"]] for row in document["annotations"]}
    clean_per_photo = draws * clean_share / (1 - clean_share)
    seen = dict.fromkeys(SPLITS, 0)
    pairs: list[PlannedPair] = []
    for image in sorted(document["images"], key=lambda image: int(image["id"])):
        before = seen[image["split"]]
        seen[image["split"]] += 1
        clean = round((before + 1) * clean_per_photo) - round(before * clean_per_photo)
        for draw in range(draws + clean):
            pairs.append(PlannedPair(len(pairs) + 1, image, category_of[image["id"]], draw, faulty=draw < draws))
    return pairs


def _copy_originals(resized: Path, folder: Path, plan: Sequence[PlannedPair]) -> dict[int, Path]:
    (folder / "original").mkdir()
    paths: dict[int, Path] = {}
    for pair in plan:
        image_id = int(pair.image["id"])
        if image_id not in paths:
            paths[image_id] = folder / "original" / f"{image_id}.png"
            shutil.copyfile(resized / pair.image["file_name"], paths[image_id])
    return paths


def _batches(plan: Sequence[PlannedPair]) -> Iterator[list[PlannedPair]]:
    sizes = [(int(pair.image["width"]), int(pair.image["height"])) for pair in plan]
    for positions in equal_size_batches(sizes, _BATCH):
        yield [plan[position] for position in positions]


def _make_batch(
    folder: Path,
    originals: Mapping[int, Path],
    batch: Sequence[PlannedPair],
    *,
    params: Degrade,
    seed: int,
    writers: PictureWriters,
) -> dict[int, _MadePair]:
    image_ids = list(dict.fromkeys(int(pair.image["id"]) for pair in batch))
    photos = load_batch([originals[image_id] for image_id in image_ids])
    original = photos[[image_ids.index(int(pair.image["id"])) for pair in batch]]
    damaged, faults, distances = _damage(original, batch, params, seed)
    ratios = psnr(damaged, original).tolist()
    made: dict[int, _MadePair] = {}
    for pair, pixels, row_faults, distance, ratio in zip(
        batch, to_pixels(damaged), faults, distances.tolist(), ratios, strict=True
    ):
        # A copy of its own: the queue must not keep the whole batch alive.
        writers.write(pair.pair_id, folder / "faulty" / f"{pair.pair_id}.png", np.array(pixels))
        made[pair.pair_id] = _MadePair(row_faults, round(distance, _DIGITS), round(ratio, _DIGITS))
    return made


def _damage(
    original: torch.Tensor, batch: Sequence[PlannedPair], params: Degrade, seed: int
) -> tuple[torch.Tensor, list[tuple[AppliedFault, ...]], torch.Tensor]:
    """Draw and apply faults; rows on which they leave no trace are drawn again from their own generators.

    Returns the damaged photos (N, 3, H, W), their faults, and their colour difference from the originals (N,).
    """
    rngs = [numpy_generator(seed, "degrade", pair.image["sha256"], pair.draw) for pair in batch]
    faults: list[tuple[AppliedFault, ...]] = [() for _ in batch]
    damaged = original.clone()
    distances = torch.zeros(len(batch))
    rows = [row for row, pair in enumerate(batch) if pair.faulty]
    for _ in range(_MOST_TRIES):
        if not rows:
            break
        for row in rows:
            kinds = _kinds(params.kinds, batch[row].image["statistics"])
            faults[row] = draw_faults(rngs[row], params.faults_min, params.faults_max, kinds)
        damaged[rows] = apply_faults(original[rows], [faults[row] for row in rows], [rngs[row] for row in rows])
        distances[rows] = delta_e(damaged[rows], original[rows])
        rows = [row for row in rows if distances[row] < 10.0**-_DIGITS]
    if rows:
        file = batch[rows[0]].image["file_name"]
        raise BadInput(f"degrade: {_MOST_TRIES} sets of faults left {file} as it is; take that photo out")
    return damaged, faults, distances


def _kinds(wanted: Sequence[str], statistics: Mapping[str, float]) -> tuple[str, ...]:
    """Kinds of fault that show on a photo: saturation does nothing to a monochrome one and could not be undone."""
    return tuple(name for name in wanted if not (name == "saturation" and is_monochrome(statistics)))


def _row(pair: PlannedPair, made: _MadePair, faulty_sha256: str, seed: int) -> Row:
    image = pair.image
    faults = [{"name": f.name, "value": f.value, "unit": FAULTS[f.name].unit} for f in made.faults]
    return {
        "pair_id": pair.pair_id,
        "image_id": image["id"],
        "split": image["split"],
        "group": image["group"],
        "category": pair.category,
        "original": f"original/{image['id']}.png",
        "faulty": f"faulty/{pair.pair_id}.png",
        "original_sha256": image["sha256"],
        "faulty_sha256": faulty_sha256,
        "n_faults": len(faults),
        "faults": json.dumps(faults, ensure_ascii=False),
        "seed": derive_seed(seed, "degrade", image["sha256"], pair.draw),
        "delta_e": made.delta_e,
        "psnr": made.psnr,
        "width": image["width"],
        "height": image["height"],
        "score": image["score"],
    }


def _report(plan: Sequence[PlannedPair], made: Mapping[int, _MadePair]) -> DegradeReport:
    faulty = [made[pair.pair_id] for pair in plan if pair.faulty]
    count = max(len(faulty), 1)
    return DegradeReport(
        pairs=len(plan),
        clean=len(plan) - len(faulty),
        pairs_of_split={split: sum(pair.image["split"] == split for pair in plan) for split in SPLITS},
        mean_delta_e=sum(pair.delta_e for pair in faulty) / count,
        mean_psnr=sum(pair.psnr for pair in faulty) / count,
    )
