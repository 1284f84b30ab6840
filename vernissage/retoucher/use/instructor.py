"""The instructor: explains every step of a retouch with what was measured, what it gained and where to look."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from vernissage.retoucher.domain.amounts import amount_text, darktable_text, lightroom_text, meaning_of
from vernissage.retoucher.domain.filters import resize_area
from vernissage.retoucher.domain.render import render
from vernissage.retoucher.domain.sliders import SLIDERS, slider_index
from vernissage.retoucher.domain.statistics import photo_statistics
from vernissage.retoucher.domain.xmp_packets import EXPLANATION_START
from vernissage.retoucher.use.reasons import MEASURED_EDGE, Reason, reason_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vernissage.retoucher.domain.recipe import Recipe, Step
    from vernissage.retoucher.learn.juror import Juror

EXPLANATION_FORMAT = 1
NOTHING_TO_DO = "nothing to improve"

# Where an edit does harm first, by slider, turned up and turned down.
_LOOK_AT = {
    "exposure": (
        "the brightest parts: sky, lamps and white cloth must keep their texture",
        "the darkest parts: hair and dark cloth must not close up",
    ),
    "contrast": (
        "both ends at once: neither black cloth nor bright sky may turn into a patch",
        "the middle tones: the picture must not look veiled",
    ),
    "highlights": (
        "clouds and white cloth: their texture must stay",
        "the whites: they must not turn grey",
    ),
    "shadows": (
        "the dark parts: look for grain that comes up with them",
        "hair and dark cloth: detail must stay in them",
    ),
    "temperature": (
        "what is known to be white or grey, such as paper, teeth and walls: it must not turn yellow",
        "what is known to be white or grey, such as paper, teeth and walls: it must not turn blue",
    ),
    "tint": (
        "skin and grey surfaces: they must not turn pink",
        "skin and grey surfaces: they must not turn green",
    ),
    "saturation": (
        "skin and the strongest colour in the picture: neither may glow as a flat patch",
        "skin and leaves: they must not look faded",
    ),
    "denoise": (
        "hair, grass and cloth at full size: they must not look like wax",
        "smooth sky and skin at full size: grain must not come back",
    ),
    "sharpen": (
        "hard edges at full size: no bright seams along them",
        "eyes and fine print at full size: they must stay clear",
    ),
}


@dataclass(frozen=True)
class Lesson:
    """One step, explained.

    Attributes:
        number: Counted from 1.
        slider: Name of the slider.
        change: By how much it moved, normalised.
        amount: The same in the slider's unit, such as ``+0.70 EV``.
        meaning: What it does, in a photographer's words.
        reason: What was measured before and after.
        takes_back: Number of the last earlier step that moved the slider the other way; None where there is none.
        score_before: The juror's score before the step, 0 to 10.
        score_after: And after it.
        gain: What the juror gave the step where it was made: the difference of the two.
        gain_in_the_end: Score of the full recipe minus score of the recipe without this step. Exact: a photo is
            rendered from its original by settings, so leaving a step out is one more render.
        look_at: Where the edit would do harm first.
        lightroom: Lightroom's slider and where it stands after this step.
        darktable: darktable's module and the values that stand for the slider after this step.
    """

    number: int
    slider: str
    change: float
    amount: str
    meaning: str
    reason: Reason
    takes_back: int | None
    score_before: float
    score_after: float
    gain: float
    gain_in_the_end: float
    look_at: str
    lightroom: str
    darktable: str

    @property
    def headline(self) -> str:
        """The step in one line: ``exposure +0.70 EV: more light, as with a longer exposure (score 6.1 -> 6.9)``."""
        scores = f"score {self.score_before:.1f} -> {self.score_after:.1f}"
        return f"{self.slider} {self.amount}: {self.meaning} ({scores})"

    @property
    def gains(self) -> str:
        """Both gains as one sentence."""
        left_out = -self.gain_in_the_end
        verdict = f"{abs(left_out):.2f} {'higher' if left_out > 0 else 'lower'}"
        if abs(left_out) < 0.005:
            verdict = "the same"
        return f"The juror gave it {self.gain:+.2f}; without it the result would score {verdict}."

    @property
    def correction(self) -> str:
        """That the step takes an earlier one back, as a sentence; empty where it does not."""
        return "" if self.takes_back is None else f"It takes back part of step {self.takes_back}."


@dataclass(frozen=True)
class Explanation:
    """What was done to one photo, and why.

    Attributes:
        lessons: One for each step, in order; empty where nothing was done.
        score_before: Score of the photo as it came.
        score_after: Score of the result.
    """

    lessons: tuple[Lesson, ...]
    score_before: float
    score_after: float

    @property
    def most_useful(self) -> Lesson:
        """The step that the result would miss most.

        Raises:
            ValueError: There is no step.
        """
        return max(self.lessons, key=lambda lesson: lesson.gain_in_the_end)

    @property
    def summary(self) -> str:
        """One paragraph for a caption field, which programs show beside the photo."""
        steps = " ".join(
            f"{lesson.number}. {lesson.slider} {lesson.amount} ({lesson.gain:+.1f}). {lesson.reason.text}"
            for lesson in self.lessons
        )
        scores = f"Score {self.score_before:.1f} -> {self.score_after:.1f} of 10."
        return f"{EXPLANATION_START} {steps or NOTHING_TO_DO + '.'} {scores}"

    def to_text(self) -> str:
        """The explanation for a terminal or a letter; no line break at the end."""
        if not self.lessons:
            return f"{NOTHING_TO_DO} (score {self.score_before:.1f})"
        lines = []
        for lesson in self.lessons:
            why = " ".join(part for part in (lesson.reason.text, lesson.correction) if part)
            lines += [
                f"{lesson.number}. {lesson.headline}",
                f"   why: {why}",
                f"   effect: {lesson.reason.effect} {lesson.gains}",
                f"   look at {lesson.look_at}",
                f"   Lightroom: {lesson.lightroom}; darktable, {lesson.darktable}",
            ]
        return "\n".join(lines)

    def to_json(self) -> str:
        """The explanation as JSON: every number and every sentence."""
        document: dict[str, Any] = {
            "format": EXPLANATION_FORMAT,
            "score_before": self.score_before,
            "score_after": self.score_after,
            "summary": self.summary,
            "steps": [asdict(lesson) | {"headline": lesson.headline, "gains": lesson.gains} for lesson in self.lessons],
        }
        return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def explain(recipe: Recipe, original: torch.Tensor, juror: Juror, *, long_edge: int) -> Explanation:
    """Explain a recipe by measuring the photo before and after every step.

    Args:
        recipe: Settings and steps; its scores are the juror's, on `original`.
        original: (1, 3, H, W) float in [0, 1]: the thumbnail that the recipe was decided on.
        juror: Scores the result without each step.
        long_edge: Long edge of the photo at full size, in pixels.

    Raises:
        ValueError: The recipe holds no score of the original.
    """
    if recipe.score_before is None or recipe.score_after is None:
        raise ValueError("explanation: the recipe has no scores, expected the juror's before and after")
    lessons = _lessons(recipe, original, juror, long_edge) if recipe.steps else ()
    return Explanation(lessons, recipe.score_before, recipe.score_after)


def _lessons(recipe: Recipe, original: torch.Tensor, juror: Juror, long_edge: int) -> tuple[Lesson, ...]:
    path = recipe.path()
    statistics = photo_statistics(resize_area(_rendered(original, path), MEASURED_EDGE))
    # The full recipe goes along: scores of one batch are compared with each other and with nothing else.
    skipped = juror.score(_rendered(original, torch.cat((recipe.as_tensor(), recipe.without_each_step())))).tolist()
    befores = [recipe.score_before or 0.0, *(step.score for step in recipe.steps)]
    lessons = []
    for index, step in enumerate(recipe.steps):
        slider = SLIDERS[slider_index(step.slider)]
        setting = float(path[index + 1, slider_index(step.slider)])
        lessons.append(
            Lesson(
                number=index + 1,
                slider=slider.name,
                change=step.change,
                amount=amount_text(slider, step.change),
                meaning=meaning_of(slider, step.change),
                reason=reason_for(slider.name, step.change, statistics[index], statistics[index + 1]),
                takes_back=_taken_back(recipe.steps, index),
                score_before=befores[index],
                score_after=step.score,
                gain=round(step.score - befores[index], 4),
                gain_in_the_end=round(skipped[0] - skipped[index + 1], 4),
                look_at=_LOOK_AT[slider.name][0 if step.change > 0 else 1],
                lightroom=lightroom_text(slider, setting),
                darktable=darktable_text(slider, setting, long_edge=long_edge),
            )
        )
    return tuple(lessons)


def _rendered(original: torch.Tensor, settings: torch.Tensor) -> torch.Tensor:
    return render(original.expand(len(settings), -1, -1, -1), settings)


def _taken_back(steps: Sequence[Step], index: int) -> int | None:
    step = steps[index]
    for number in range(index, 0, -1):
        earlier = steps[number - 1]
        if earlier.slider == step.slider and earlier.change * step.change < 0:
            return number
    return None
