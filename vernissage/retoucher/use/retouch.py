"""Edits photo files at full size: beside each result lie its recipe as JSON and a contact sheet of the steps."""

from __future__ import annotations

import os
import secrets
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from vernissage.core.errors import BadInput, MissingArtifact, RejectedImage, VernissageError
from vernissage.core.files import atomic_path, atomic_write_text, safe_file_name
from vernissage.core.images import read_photo, save_png, write_photo
from vernissage.core.progress import track
from vernissage.retoucher.domain.full_size import render_full_size, thumbnail
from vernissage.retoucher.domain.pictures import step_mosaic
from vernissage.retoucher.domain.recipe import Recipe, Step
from vernissage.retoucher.domain.render import render
from vernissage.retoucher.domain.sliders import SLIDERS, Slider, slider_index
from vernissage.retoucher.learn.juror import RankJuror
from vernissage.retoucher.learn.network import PolicyNet
from vernissage.retoucher.learn.rollout import Rollout, run_policy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from vernissage.core.images import Photo
    from vernissage.retoucher.learn.juror import Juror

Status = Literal["edited", "unchanged", "failed"]

#: Long edge of the pictures on the contact sheet.
SHEET_EDGE = 320
JPEG_QUALITY = 95
#: Where a folder is given, the files in it that are taken for photos.
PHOTO_SUFFIXES = frozenset(
    {
        ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".tif", ".tiff", ".webp", ".gif", ".bmp", ".ppm",
        ".pgm", ".pnm", ".jp2", ".avif",
    }
)  # fmt: skip
_RECIPE_SUFFIX, _SHEET_SUFFIX = ".recipe.json", ".steps.png"
_DEEP_SUFFIXES = frozenset({".png", ".tif", ".tiff"})
_OPAQUE_SUFFIXES = frozenset({".jpg", ".jpeg"})
_WRITABLE_SUFFIXES = _DEEP_SUFFIXES | _OPAQUE_SUFFIXES | {".webp"}
# Slider.meaning says what turning a slider up does; these say it for turning it down.
_TURNED_DOWN = {
    "exposure": "less light, as with a shorter exposure",
    "contrast": "bright and dark tones closer together",
    "highlights": "darkens the bright tones only",
    "shadows": "darkens the dark tones only",
    "temperature": "cooler: less red, more blue",
    "tint": "less magenta, more green",
    "saturation": "quieter colours",
    "denoise": "takes smoothing back",
    "sharpen": "takes sharpening back",
}


@dataclass(frozen=True)
class RetouchResult:
    """What became of one photo.

    Attributes:
        path: The photo as it was given.
        status: ``edited``; ``unchanged``: nothing to improve, the file was copied byte for byte; or ``failed``.
        message: One line for people.
        outputs: The files that were written, the photo first.
        explanation: One sentence for each step.
    """

    path: Path
    status: Status
    message: str
    outputs: tuple[Path, ...] = ()
    explanation: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """Where the results of one photo go.

    Attributes:
        source: The photo.
        folder: The output folder.
        stem: Name of the results without suffix; no two photos of a run share it.
    """

    source: Path
    folder: Path
    stem: str

    def output(self, suffix: str) -> Path:
        """Path of one result."""
        return self.folder / f"{self.stem}{suffix}"

    def all_outputs(self) -> set[Path]:
        """Every path that this photo may write."""
        suffixes = {self.source.suffix, ".png", _RECIPE_SUFFIX, _SHEET_SUFFIX}
        return {self.output(suffix) for suffix in suffixes}


@dataclass(frozen=True)
class Agent:
    """Who edits and who judges.

    Attributes:
        network: The policy.
        juror: Scores each step for recipe and sheet; it decides nothing.
    """

    network: PolicyNet
    juror: Juror

    @staticmethod
    def load(model_folder: Path, juror_folder: Path) -> Agent:
        """Load both.

        Raises:
            MissingArtifact: If one is not there; the message says what to run.
            CorruptArtifact: If a file is damaged.
        """
        network = PolicyNet.load(model_folder)
        if not (juror_folder / "juror.json").is_file():
            remedy = "make it with `dvc repro juror`, or fetch it with `dvc pull`"
            raise MissingArtifact(f"{juror_folder / 'juror.json'}: no such file; {remedy}")
        return Agent(network, RankJuror.load(juror_folder))


@dataclass(frozen=True)
class Edit:
    """What the agent decided for one photo.

    Attributes:
        recipe: Settings, steps and scores.
        pictures: (T + 2, 3, h, w) thumbnails: before, after each of T steps, result.
    """

    recipe: Recipe
    pictures: torch.Tensor


def retouch_files(
    paths: Sequence[Path], output: Path, *, model_folder: Path, juror_folder: Path
) -> list[RetouchResult]:
    """Edit photos; one bad photo never stops the others, and the photos themselves stay as they are.

    Args:
        paths: Photos, or folders whose photos are meant (not those in their sub-folders).
        output: Folder for the results, made if it is not there.
        model_folder: Folder of the trained policy.
        juror_folder: Folder of the juror.

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
    return [_retouch_or_say_why(plan, agent) for plan in track(plans, description="retouch", unit="photos")]


def expand(paths: Sequence[Path]) -> list[Path]:
    """Replace folders by the photos in them, in the order of their names; what is named twice counts once."""
    found: dict[Path, Path] = {}
    for path in paths:
        inside = [path]
        if path.is_dir():
            # A folder without photos stays in the list, so that it is reported.
            inside = sorted(file for file in path.iterdir() if _looks_like_photo(file)) or inside
        for file in inside:
            found.setdefault(file.resolve(), file)
    return list(found.values())


def plan_outputs(photos: Sequence[Path], output: Path) -> list[Plan]:
    """Choose names such that no result replaces a photo of this run or another result: the later gets ``-2``, ``-3``...

    Args:
        photos: The photos.
        output: Folder for the results.

    Returns:
        One plan for each photo.
    """
    # Some file systems do not tell upper from lower case.
    taken = {_same_file_key(photo) for photo in photos}
    plans = []
    for photo in photos:
        stem, number = safe_file_name(photo.stem), 1
        plan = Plan(photo, output, stem)
        while not taken.isdisjoint(keys := {_same_file_key(path) for path in plan.all_outputs()}):
            number += 1
            plan = Plan(photo, output, f"{stem}-{number}")
        taken |= keys
        plans.append(plan)
    return plans


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


def decide(photo: Photo, agent: Agent) -> Edit:
    """Let the agent look at a photo, and the juror at every step.

    Args:
        photo: The photo at full size.
        agent: Who edits and who judges.

    Returns:
        The decision with thumbnails of every step.
    """
    spec = agent.network.spec
    small = thumbnail(photo.pixels, long_edge=spec.standard, short_edge=spec.view)
    rollout = run_policy(agent.network, small)
    settings = _path_of_edits(rollout)
    judged = render(small.expand(len(settings), -1, -1, -1), settings)
    scores = [round(score, 4) for score in agent.juror.score(judged).tolist()]
    recipe = _recipe(settings, rollout, agent, scores)
    shown = thumbnail(photo.pixels, long_edge=SHEET_EDGE)
    pictures = render(shown.expand(len(settings), -1, -1, -1), settings)
    return Edit(recipe, torch.cat((pictures, pictures[-1:])))


def explain(recipe: Recipe) -> str:
    """Say what was done: one line per step, such as ``exposure +0.70 EV: more light (score 6.1 -> 6.9)``.

    Args:
        recipe: The recipe with its steps.

    Returns:
        Lines without a final line break; one line that says so where nothing was done.
    """
    if not recipe.steps:
        return "nothing to improve"
    befores = [recipe.score_before, *(step.score for step in recipe.steps)]
    lines = []
    for step, before in zip(recipe.steps, befores, strict=False):
        slider = SLIDERS[slider_index(step.slider)]
        meaning = slider.meaning if step.change > 0 else _TURNED_DOWN[slider.name]
        lines.append(f"{slider.name} {amount_text(slider, step.change)}: {meaning} ({_scores(before, step.score)})")
    return "\n".join(lines)


def amount_text(slider: Slider, change: float) -> str:
    """The change of a setting in the slider's unit, short enough for a caption."""
    amount = slider.amount(change)
    if "EV" in slider.unit:
        return f"{amount:+.2f} EV"
    if slider.unit == "log2 gain":
        return f"x{2**amount:.2f}"
    return f"{amount:+.2f}"


def _looks_like_photo(file: Path) -> bool:
    own_sheet = file.name.lower().endswith(_SHEET_SUFFIX)
    return file.suffix.lower() in PHOTO_SUFFIXES and not file.name.startswith(".") and not own_sheet and file.is_file()


def _same_file_key(path: Path) -> str:
    return os.fspath(path.resolve()).casefold()


def _retouch_or_say_why(plan: Plan, agent: Agent) -> RetouchResult:
    written: list[Path] = []
    try:
        return _retouch(plan, agent, written.append)
    except RejectedImage as error:
        reason = error.reason
    except (VernissageError, OSError, ValueError, RuntimeError, MemoryError) as error:
        # Torch reports a failed allocation as RuntimeError; a photo that is too much must not end the batch.
        reason = " ".join(str(error).split()) or type(error).__name__
    for path in written:
        # A recipe without its photo would look like a result.
        path.unlink(missing_ok=True)
    return RetouchResult(plan.source, "failed", reason)


def _retouch(plan: Plan, agent: Agent, note: Callable[[Path], None]) -> RetouchResult:
    photo = read_photo(plan.source)
    edit = decide(photo, agent)
    recipe = edit.recipe
    sheet, text = plan.output(_SHEET_SUFFIX), plan.output(_RECIPE_SUFFIX)
    save_png(sheet, _sheet(edit, plan.source.name))
    note(sheet)
    atomic_write_text(text, recipe.to_json())
    note(text)
    if recipe.is_neutral:
        target = plan.output(plan.source.suffix)
        with atomic_path(target) as temporary:
            shutil.copyfile(plan.source, temporary)
        status: Status = "unchanged"
        message = f"unchanged, {_score(recipe.score_before)}; copied as it is"
    else:
        target = plan.output(_suffix_for(plan.source, photo))
        _write_edited(target, photo, recipe)
        status = "edited"
        edits = "1 edit" if len(recipe.steps) == 1 else f"{len(recipe.steps)} edits"
        converted = f" ({', '.join(photo.history)})" if photo.history else ""
        message = f"{edits}, {_scores(recipe.score_before, recipe.score_after)}{converted}"
    explanation = tuple(explain(recipe).splitlines()) if status == "edited" else ()
    return RetouchResult(plan.source, status, message, (target, text, sheet), explanation)


def _write_edited(target: Path, photo: Photo, recipe: Recipe) -> None:
    # The original pixels are not needed any more: rendering over them halves the memory of a large photo.
    pixels = render_full_size(photo.pixels, recipe.as_tensor(), out=photo.pixels)
    depth = photo.bit_depth if target.suffix.lower() in _DEEP_SUFFIXES else 8
    # Pixels are sRGB by now, which is what everyone assumes without a profile: the file's own would be wrong.
    write_photo(target, pixels, alpha=photo.alpha, bit_depth=depth, exif=photo.exif, quality=JPEG_QUALITY)


def _suffix_for(source: Path, photo: Photo) -> str:
    suffix = source.suffix.lower()
    loses_alpha = photo.alpha is not None and suffix in _OPAQUE_SUFFIXES
    return source.suffix if suffix in _WRITABLE_SUFFIXES and not loses_alpha else ".png"


def _path_of_edits(rollout: Rollout) -> torch.Tensor:
    """(T + 1, K) settings before and after each of T edits, rounded as a recipe's JSON holds them."""
    edits = int(rollout.edits[0])
    exact = rollout.path[0, : edits + 1]
    # Adding zero turns -0 into 0; steps that cancel out leave dust that is no edit.
    return torch.tensor([[round(setting, 6) + 0.0 for setting in row] for row in exact.tolist()])


def _recipe(settings: torch.Tensor, rollout: Rollout, agent: Agent, scores: Sequence[float]) -> Recipe:
    table = agent.network.spec.actions()
    steps = []
    for turn, action in enumerate(rollout.actions[0, : len(settings) - 1].tolist()):
        slider = table.slider_of(action)
        if slider is None:
            raise ValueError(f"rollout: step {turn + 1} is a stop, expected an edit")
        index = slider_index(slider)
        change = float(settings[turn + 1, index] - settings[turn, index])
        steps.append(Step(slider, round(change, 6), scores[turn + 1]))
    final = tuple(round(setting, 6) for setting in settings[-1].tolist())
    return Recipe(final, tuple(steps), scores[0], scores[-1])


def _sheet(edit: Edit, name: str) -> NDArray[np.uint8]:
    recipe = edit.recipe
    if recipe.is_neutral:
        return step_mosaic(edit.pictures[:1], [f"unchanged  {_number(recipe.score_before)}"], title=name)
    befores = [recipe.score_before, *(step.score for step in recipe.steps)]
    captions = [f"original  {_number(recipe.score_before)}"]
    for number, (step, before) in enumerate(zip(recipe.steps, befores, strict=False), start=1):
        amount = amount_text(SLIDERS[slider_index(step.slider)], step.change)
        captions.append(f"{number} {step.slider} {amount}  {_number(before)} -> {_number(step.score)}")
    captions.append(f"result  {_number(recipe.score_after)}")
    return step_mosaic(edit.pictures, captions, title=name)


def _number(score: float | None) -> str:
    return "" if score is None else f"{score:.1f}"


def _score(score: float | None) -> str:
    return "not scored" if score is None else f"score {_number(score)}"


def _scores(before: float | None, after: float | None) -> str:
    return _score(after) if before is None else f"score {_number(before)} -> {_number(after)}"
