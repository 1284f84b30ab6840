from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vernissage.core.errors import CorruptArtifact
from vernissage.retoucher.domain.recipe import Recipe, Step
from vernissage.retoucher.domain.sliders import HIGHS, LOWS, SLIDER_COUNT, SLIDER_NAMES

RECIPE = Recipe(
    tuple(0.25 if low == 0 else -0.25 for low in LOWS), (Step("exposure", 0.1, 6.5), Step("tint", -0.05, 7.0)), 6.0, 7.0
)


@given(st.tuples(*(st.floats(low, high) for low, high in zip(LOWS, HIGHS, strict=True))))
def test_json_round_trip(values: tuple[float, ...]) -> None:
    rounded = tuple(round(value, 6) for value in values)
    recipe = Recipe(rounded, RECIPE.steps, 5.5, None)
    assert Recipe.from_json(recipe.to_json()) == recipe


def test_json_tells_amounts_and_units() -> None:
    exposure = json.loads(RECIPE.to_json())["settings"]["exposure"]
    assert exposure == {"setting": -0.25, "amount": -0.5, "unit": "EV"}


def test_neutral_and_tensor() -> None:
    assert Recipe((0.0,) * SLIDER_COUNT).is_neutral
    assert not RECIPE.is_neutral
    assert tuple(RECIPE.as_tensor().shape) == (1, SLIDER_COUNT)
    assert Recipe.from_json(Recipe((0.0,) * SLIDER_COUNT).to_json()).is_neutral


MOVED = Recipe(
    (0.25, *(0.0,) * 6, 0.1, 0.0),
    (Step("exposure", 0.3, 6.5), Step("denoise", 0.1, 6.6), Step("exposure", -0.05, 6.7)),
    6.0,
    6.7,
)


def test_the_path_leads_step_by_step_to_the_settings() -> None:
    path = MOVED.path()
    assert tuple(path.shape) == (4, SLIDER_COUNT)
    assert path[:, 0].tolist() == pytest.approx([0, 0.3, 0.3, 0.25])
    assert path[:, 7].tolist() == pytest.approx([0, 0, 0.1, 0.1])
    assert torch.equal(path[-1:], MOVED.as_tensor())
    assert Recipe((0.0,) * SLIDER_COUNT).path().tolist() == [[0.0] * SLIDER_COUNT]


def test_a_step_left_out_leaves_the_others() -> None:
    without = MOVED.without_each_step()
    assert without[:, 0].tolist() == pytest.approx([-0.05, 0.25, 0.3])
    assert without[:, 7].tolist() == pytest.approx([0.1, 0, 0.1])
    # Taking smoothing back makes no sense where there was none.
    taken_back = Recipe((0.0,) * 7 + (0.1, 0.0), (Step("denoise", 0.3, 6.0), Step("denoise", -0.2, 6.1)), 5.0, 6.1)
    assert taken_back.without_each_step()[:, 7].tolist() == pytest.approx([0, 0.3])


def test_settings_outside_the_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"exposure = 1\.5"):
        Recipe((1.5, *RECIPE.settings[1:]))
    with pytest.raises(ValueError, match="expected 9"):
        Recipe((0.0,))


def _document() -> dict:
    return json.loads(RECIPE.to_json())


def _with(**changes: object) -> str:
    return json.dumps(_document() | changes)


def _without(key: str) -> str:
    document = _document()
    del document[key]
    return json.dumps(document)


def _setting(name: str, entry: object) -> str:
    document = _document()
    document["settings"][name] = entry
    return json.dumps(document)


CORRUPT = {
    "empty": "",
    "not json": "exposure: 1",
    "cut off": RECIPE.to_json()[:-20],
    "a list": "[]",
    "a number": "3",
    "null": "null",
    "another format": _with(format=2),
    **{f"no {key}": _without(key) for key in ("format", "settings", "steps", "score_before", "score_after")},
    "settings are a list": _with(settings=[1, 2]),
    "steps are a number": _with(steps=4),
    "a step is a text": _with(steps=["exposure"]),
    "a step of an unknown slider": _with(steps=[{"slider": "glamour", "change": 0.1, "score": 5}]),
    "a step without a change": _with(steps=[{"slider": "tint", "score": 5}]),
    "a step of nan": _with(steps=[{"slider": "tint", "change": float("nan"), "score": 5}]),
    "a score is a text": _with(score_before="good"),
    "a score is true": _with(score_after=True),
    "a score is nan": _with(score_after=float("nan")),
    "unknown slider": _setting("glamour", {"setting": 0.1}),
    "setting out of range": _setting("exposure", {"setting": 3.0}),
    "setting is nan": _setting("exposure", {"setting": float("nan")}),
    "setting is infinite": _setting("exposure", {"setting": float("inf")}),
    "setting is a text": _setting("exposure", {"setting": "high"}),
    "setting is true": _setting("exposure", {"setting": True}),
    "setting is a number as text": _setting("exposure", {"setting": "0.5"}),
    "nested too deeply": "[" * 100_000,
    "setting is null": _setting("exposure", {"setting": None}),
    "setting without its value": _setting("exposure", {"amount": 1.0}),
    "setting is a plain number": _setting("exposure", 0.5),
}


@pytest.mark.parametrize("text", CORRUPT.values(), ids=CORRUPT)
def test_corrupt_json_is_refused(text: str) -> None:
    with pytest.raises(CorruptArtifact, match="recipe"):
        Recipe.from_json(text)


def test_sliders_of_a_recipe_are_all_known() -> None:
    assert tuple(_document()["settings"]) == SLIDER_NAMES
