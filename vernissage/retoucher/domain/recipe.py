"""A recipe: the slider settings of one photo, the steps that led there, and their JSON form."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from vernissage.core.errors import CorruptArtifact
from vernissage.retoucher.domain.render import clamp_settings
from vernissage.retoucher.domain.sliders import SLIDER_COUNT, SLIDERS, slider_index

if TYPE_CHECKING:
    from collections.abc import Mapping

RECIPE_FORMAT = 1


@dataclass(frozen=True)
class Step:
    """One edit: which slider moved by how much, and the juror's score after it."""

    slider: str
    change: float
    score: float


@dataclass(frozen=True)
class Recipe:
    """Slider settings of one photo.

    Attributes:
        settings: K normalised settings in the order of ``SLIDERS``; all zero means untouched.
        steps: The edits in order.
        score_before: Juror score of the original, in [0, 10].
        score_after: Juror score of the result, in [0, 10].
    """

    settings: tuple[float, ...]
    steps: tuple[Step, ...] = field(default=())
    score_before: float | None = None
    score_after: float | None = None

    def __post_init__(self) -> None:
        if len(self.settings) != SLIDER_COUNT:
            raise ValueError(f"recipe: got {len(self.settings)} settings, expected {SLIDER_COUNT}")
        for slider, setting in zip(SLIDERS, self.settings, strict=True):
            if not slider.low - 1e-6 <= setting <= slider.high + 1e-6:
                raise ValueError(f"recipe: {slider.name} = {setting}, expected {slider.low} to {slider.high}")

    @property
    def is_neutral(self) -> bool:
        """Whether the photo stays as it is."""
        return all(setting == 0 for setting in self.settings)

    def as_tensor(self) -> torch.Tensor:
        """Settings as (1, K) float."""
        return torch.tensor([self.settings], dtype=torch.float32)

    def path(self) -> torch.Tensor:
        """Settings before the first step and after each, (T + 1, K) float; the last row is exactly the recipe's."""
        rows = torch.zeros(len(self.steps) + 1, SLIDER_COUNT)
        for number, step in enumerate(self.steps):
            rows[number + 1 :, slider_index(step.slider)] += step.change
        # Six digits, as in the JSON: sums of steps carry dust that is no edit. Adding zero turns -0 into 0.
        rows = clamp_settings(torch.round(rows, decimals=6) + 0.0)
        rows[-1] = self.as_tensor()[0]
        return rows

    def without_each_step(self) -> torch.Tensor:
        """The final settings had a step been left out, one row for each of T steps, (T, K) float."""
        rows = self.as_tensor().repeat(len(self.steps), 1)
        for number, step in enumerate(self.steps):
            rows[number, slider_index(step.slider)] -= step.change
        return clamp_settings(torch.round(rows, decimals=6) + 0.0)

    def to_json(self) -> str:
        """The recipe as JSON text, with amounts in photographic units beside the settings."""
        document = {
            "format": RECIPE_FORMAT,
            "settings": {
                slider.name: {
                    "setting": round(setting, 6),
                    "amount": round(slider.amount(setting), 6),
                    "unit": slider.unit,
                }
                for slider, setting in zip(SLIDERS, self.settings, strict=True)
            },
            "steps": [
                {"slider": s.slider, "change": round(s.change, 6), "score": round(s.score, 4)} for s in self.steps
            ],
            "score_before": self.score_before,
            "score_after": self.score_after,
        }
        return json.dumps(document, indent=2, ensure_ascii=False) + "\n"

    @staticmethod
    def from_json(text: str) -> Recipe:
        """Read what :meth:`to_json` wrote.

        Raises:
            CorruptArtifact: If the text is not a recipe of this format; the message says which part.
        """
        try:
            document: Mapping[str, Any] = json.loads(text)
            if document["format"] != RECIPE_FORMAT:
                raise CorruptArtifact(f"recipe: format {document['format']}, expected {RECIPE_FORMAT}")
            settings = [0.0] * SLIDER_COUNT
            for name, entry in document["settings"].items():
                settings[slider_index(name)] = _number(entry["setting"], name)
            steps = tuple(_step(step) for step in document["steps"])
            before, after = (
                None if document[key] is None else _number(document[key], key)
                for key in ("score_before", "score_after")
            )
            return Recipe(tuple(settings), steps, before, after)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CorruptArtifact(f"recipe: {error}; expected the JSON that `vernissage retouch` writes") from error


def _step(entry: Mapping[str, Any]) -> Step:
    slider_index(entry["slider"])
    return Step(entry["slider"], _number(entry["change"], "change"), _number(entry["score"], "score"))


def _number(value: Any, name: str) -> float:
    # Python's JSON reader lets nan and infinity through, and float() would take texts and booleans.
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name} = {value!r}, expected a finite number")
    return float(value)
