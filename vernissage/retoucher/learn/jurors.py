"""Which juror: makes the kind that the parameters name, and loads whichever kind a folder holds.

What only the making needs is imported there, so that loading stays quick.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, cast

from vernissage.core.errors import BadParams, CorruptArtifact, MissingArtifact
from vernissage.core.files import atomic_write_json, fresh_folder, read_json
from vernissage.retoucher.learn import siglip
from vernissage.retoucher.learn.juror import RankJuror
from vernissage.retoucher.learn.siglip import SiglipJuror, save_siglip

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from vernissage.core.params import Params
    from vernissage.retoucher.learn.juror import Juror
    from vernissage.retoucher.learn.juror_training import JurorTraining

log = logging.getLogger(__name__)

#: What a ``juror.json`` without a kind is.
RANK = "rank"
KINDS = (RANK, siglip.KIND)

_REMEDY = "make it again with `dvc repro juror`"


def load_juror(folder: Path) -> Juror:
    """Load what the ``juror`` stage wrote, whichever kind it is.

    Args:
        folder: Holds ``juror.json``.

    Returns:
        The juror; besides ``score`` it has ``spread`` and ``member_scores``, as everything that this stage writes.

    Raises:
        MissingArtifact: If there is no juror, or a network that it names is not there.
        CorruptArtifact: If a file does not match its hash or specification, or the kind is unknown.
    """
    path = folder / "juror.json"
    if not path.is_file():
        raise MissingArtifact(f"{path}: no such file; make it with `dvc repro juror`, or fetch it with `dvc pull`")
    spec = read_json(path)
    kind = spec.get("kind", RANK) if isinstance(spec, dict) else None
    loaders: dict[str, Callable[[Path], Juror]] = {RANK: RankJuror.load, siglip.KIND: SiglipJuror.load}
    if kind not in KINDS:
        raise CorruptArtifact(f"{path}: juror of kind {kind!r}, expected one of {', '.join(KINDS)}; {_REMEDY}")
    return loaders[kind](folder)


def make_any_juror(annotations: Path, resized: Path, out: Path, params: Params) -> dict[str, Any]:
    """Make the juror that ``juror.kind`` names, judge it on the test split and save it.

    Args:
        annotations: COCO file with the splits.
        resized: Folder that its file names are relative to.
        out: Folder for the juror, ``evaluation.json`` and ``curves.csv``.
        params: All parameters.

    Returns:
        The evaluation on the test split.

    Raises:
        BadParams: If the kind is unknown.
        MissingArtifact: If pictures, network or head are not there.
        CorruptArtifact: If one of them cannot be read or does not fit.
    """
    from vernissage.retoucher.learn.juror_training import make_juror

    makers = {RANK: make_juror, siglip.KIND: make_siglip_juror}
    kind = params.juror.kind
    if kind not in makers:
        raise BadParams(f"juror.kind = {kind!r}: expected one of {', '.join(makers)}")
    return makers[kind](annotations, resized, out, params)


def make_siglip_juror(annotations: Path, resized: Path, out: Path, params: Params) -> dict[str, Any]:
    """Save a juror of the named SigLIP network and head, and judge it as the ``rank`` juror is judged; none learns.

    Args:
        annotations: COCO file with the splits.
        resized: Folder that its file names are relative to.
        out: Folder for ``juror.json``, the head, ``evaluation.json`` and ``curves.csv``.
        params: All parameters.

    Returns:
        The evaluation on the test split.

    Raises:
        MissingArtifact: If pictures, network or head are not there.
        CorruptArtifact: If one of them cannot be read or does not fit.
    """
    from vernissage.core.tables import write_csv
    from vernissage.retoucher.learn.dataset import photos_of_split
    from vernissage.retoucher.learn.juror_training import evaluate_juror

    section = params.juror
    with fresh_folder(out) as folder:
        juror = save_siglip(folder, section.siglip_model, section.siglip_head)
        # As large as the network looks, but never larger than the photos are: enlarging them shows nothing new.
        side = min(juror.preparation.side, params.resize.long_edge)
        photos = photos_of_split(annotations, resized, "test", side)
        settings = _evaluation(params)
        log.info("siglip juror: %s on %s, judged at %d px", juror.name, juror.device, side)
        # Judging asks for nothing but the scores of the members.
        judged = cast("RankJuror", juror)
        evaluation = evaluate_juror(judged, photos, settings, settings.ladders)
        atomic_write_json(folder / "evaluation.json", evaluation)
        nothing_learned = {"member": 0, "epoch": 0, "ranking_loss": float("nan"), "scale_loss": float("nan")}
        write_csv(folder / "curves.csv", [nothing_learned])
    log.info(
        "held out: %.0f %% of ordered pairs ranked right, rank correlation with colour difference %.2f",
        100 * (evaluation["pairs_right"] or 0),
        evaluation["rank_correlation"] or 0,
    )
    return evaluation


def _evaluation(params: Params) -> JurorTraining:
    """What drawing ladders for the evaluation asks for; nothing is trained by it."""
    from vernissage.retoucher.learn.juror_training import JurorTraining
    from vernissage.retoucher.learn.ladders import AXES

    section = params.juror
    return JurorTraining(
        members=1,
        ladders=max(len(AXES), min(20 * len(AXES), section.ladders)),
        epochs=0,
        batch=section.batch,
        lr=0.0,
        scene_variation=0.0,
        taken_at=params.resize.long_edge,
        seed=params.seed,
    )
