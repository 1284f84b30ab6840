"""Edits photo files: decides, explains and delivers, photo by photo; what is delivered, `deliveries` tells."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from vernissage.core.errors import BadInput, RejectedImage, VernissageError
from vernissage.core.files import atomic_path, require_writable
from vernissage.core.images import read_photo
from vernissage.core.progress import track
from vernissage.retoucher.domain.xmp import FORMS
from vernissage.retoucher.use import outputs
from vernissage.retoucher.use.agent import MODES, Agent, decide
from vernissage.retoucher.use.deliveries import Delivery
from vernissage.retoucher.use.instructor import explain
from vernissage.retoucher.use.outputs import Plan, expand, plan_outputs

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vernissage.retoucher.domain.xmp import Form
    from vernissage.retoucher.use.agent import Decision, Mode

Status = Literal["edited", "unchanged", "failed"]


@dataclass(frozen=True)
class RetouchResult:
    """What became of one photo.

    Attributes:
        path: The photo as it was given.
        status: ``edited``; ``unchanged``: nothing to improve, the file was copied byte for byte; or ``failed``.
        message: One line for people.
        outputs: The files that were written, the photo first.
        explanation: One line for each step.
    """

    path: Path
    status: Status
    message: str
    outputs: tuple[Path, ...] = ()
    explanation: tuple[str, ...] = ()


@dataclass(frozen=True)
class Wishes:
    """What a run shall do and write.

    Attributes:
        mode: How the agent decides, see `agent.Mode`.
        form: How XMP says tone and saturation, see `xmp.Form`.
        editable: Whether to leave the pixels alone and pass the edit on as develop settings.
        extras: Whether to write anything beside the photo itself (and, where `editable`, its sidecar).

    Raises:
        BadInput: Mode or form is unknown; the message lists the valid ones.
    """

    mode: Mode = "fast"
    form: Form = "portable"
    editable: bool = False
    extras: bool = True

    def __post_init__(self) -> None:
        for option, given, known in (("mode", self.mode, MODES), ("XMP form", self.form, FORMS)):
            if given not in known:
                raise BadInput(f"{option} {given!r}: unknown, expected one of: {', '.join(known)}")


def retouch_files(
    paths: Sequence[Path], output: Path, *, model_folder: Path, juror_folder: Path, wishes: Wishes | None = None
) -> list[RetouchResult]:
    """Edit photos; one bad photo never stops the others, and the photos themselves stay as they are.

    Args:
        paths: Photos, or folders whose photos are meant (not those in their sub-folders).
        output: Folder for the results, made if it is not there.
        model_folder: Folder of the trained policy.
        juror_folder: Folder of the juror.
        wishes: What to do and to write; the defaults where it is left out.

    Returns:
        One result for each photo, in the order of ``paths``.

    Raises:
        MissingArtifact: If a model is not there.
        CorruptArtifact: If a model file is damaged.
        BadInput: If the output folder cannot be made or written.
    """
    agent = Agent.load(model_folder, juror_folder)
    require_writable(output)
    plans = plan_outputs(expand(paths), output)
    wanted = wishes or Wishes()
    return [_retouch_or_say_why(plan, agent, wanted) for plan in track(plans, description="retouch", unit="photos")]


def _retouch_or_say_why(plan: Plan, agent: Agent, wishes: Wishes) -> RetouchResult:
    try:
        return _retouch(plan, agent, wishes)
    except RejectedImage as error:
        reason = error.reason
    except (VernissageError, OSError, ValueError, RuntimeError, MemoryError) as error:
        # Torch reports a failed allocation as RuntimeError; a photo that is too much must not end the batch.
        reason = " ".join(str(error).split()) or type(error).__name__
    return RetouchResult(plan.source, "failed", reason)


def _retouch(plan: Plan, agent: Agent, wishes: Wishes) -> RetouchResult:
    photo = read_photo(plan.source)
    decision = decide(photo, agent, wishes.mode)
    if decision.recipe.is_neutral:
        return _unchanged(plan, decision)
    explanation = explain(decision.recipe, decision.judged, agent.juror, long_edge=max(photo.samples.shape[:2]))
    delivery = Delivery(plan, photo, decision.recipe, explanation, wishes.form)
    try:
        notes = (*photo.history, *_deliver(delivery, wishes))
    except BaseException:
        # A recipe without its photo would look like a result.
        for path in delivery.written:
            path.unlink(missing_ok=True)
        raise
    edits = "1 edit" if len(decision.recipe.steps) == 1 else f"{len(decision.recipe.steps)} edits"
    scores = f"score {explanation.score_before:.1f} -> {explanation.score_after:.1f}"
    message = f"{edits}, {scores}" + (f" ({', '.join(notes)})" if notes else "")
    lines = tuple(f"{lesson.headline}. {lesson.reason.text}" for lesson in explanation.lessons)
    return RetouchResult(plan.source, "edited", message, tuple(reversed(delivery.written)), lines)


def _deliver(delivery: Delivery, wishes: Wishes) -> tuple[str, ...]:
    """Write the files, the photo last; returns what there is to say about them."""
    plan = delivery.plan
    if wishes.extras:
        delivery.extras()
    if plan.is_raw:
        delivery.sidecar(plan.sidecar)
        return ("settings only: all that can be read in a RAW file is a preview",)
    if wishes.editable:
        delivery.sidecar(plan.output(outputs.SIDECAR))
        inside = delivery.editable()
        return ("pixels as they were" if inside else "pixels as they were, settings in the sidecar only",)
    if wishes.extras:
        delivery.sidecar(plan.sidecar)
    delivery.rendered()
    return ()


def _unchanged(plan: Plan, decision: Decision) -> RetouchResult:
    # Programs take a sidecar for an edit, so a photo that needs none gets none, nor anything else.
    message = f"unchanged, score {decision.recipe.score_before:.1f}"
    if plan.is_raw:
        return RetouchResult(plan.source, "unchanged", message)
    target = plan.output(plan.source.suffix)
    with atomic_path(target) as temporary:
        shutil.copyfile(plan.source, temporary)
    return RetouchResult(plan.source, "unchanged", f"{message}; copied as it is", (target,))
