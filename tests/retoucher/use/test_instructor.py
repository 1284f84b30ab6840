"""The instructor's numbers are those of the juror and the renderer, in every form that it gives them."""

from __future__ import annotations

import json

import pytest
import torch

from tests.retoucher.domain.procedural import scene
from vernissage.retoucher.domain.recipe import Recipe, Step
from vernissage.retoucher.domain.render import render
from vernissage.retoucher.domain.sliders import SLIDER_COUNT, slider_index
from vernissage.retoucher.domain.statistics import photo_statistics
from vernissage.retoucher.use.instructor import Explanation, explain
from vernissage.retoucher.use.reasons import reason_for


class LightMeter:
    """A juror that anyone can check: ten times the mean of all values."""

    def score(self, images: torch.Tensor) -> torch.Tensor:
        """(N,) in [0, 10]."""
        return 10 * images.flatten(1).mean(dim=1)


METER = LightMeter()
PHOTO = scene(96, 128, 2) * 0.5
MOVES = (("exposure", 0.3), ("saturation", 0.2), ("exposure", -0.05), ("shadows", 0.3))


def score_of(settings: list[float]) -> float:
    return float(METER.score(render(PHOTO, torch.tensor([settings])))[0])


def recipe_of(*moves: tuple[str, float]) -> Recipe:
    settings, steps = [0.0] * SLIDER_COUNT, []
    for name, change in moves:
        settings[slider_index(name)] += change
        steps.append(Step(name, change, round(score_of(settings), 4)))
    final = tuple(round(setting, 6) for setting in settings)
    return Recipe(final, tuple(steps), round(score_of([0.0] * SLIDER_COUNT), 4), round(score_of(settings), 4))


@pytest.fixture(scope="module")
def explanation() -> Explanation:
    return explain(recipe_of(*MOVES), PHOTO, METER, long_edge=4000)


def test_every_step_gets_its_lesson(explanation: Explanation) -> None:
    assert [(lesson.number, lesson.slider, lesson.change) for lesson in explanation.lessons] == [
        (number, *move) for number, move in enumerate(MOVES, start=1)
    ]
    first = explanation.lessons[0]
    assert (first.amount, first.lightroom, first.darktable) == ("+0.60 EV", "Exposure +0.60", "exposure: +0.60 EV")
    # Programs are told where the slider stands in the end, not by how much it moved.
    assert explanation.lessons[2].lightroom == "Exposure +0.50"
    assert "sky" in first.look_at
    assert "close up" in explanation.lessons[2].look_at


def test_gains_are_differences_of_scores(explanation: Explanation) -> None:
    recipe = recipe_of(*MOVES)
    scores = [recipe.score_before, *(step.score for step in recipe.steps)]
    for lesson, before, after in zip(explanation.lessons, scores[:-1], scores[1:], strict=True):
        assert (lesson.score_before, lesson.score_after) == (before, after)
        assert lesson.gain == pytest.approx(after - before, abs=1e-4)
    assert sum(lesson.gain for lesson in explanation.lessons) == pytest.approx(
        explanation.score_after - explanation.score_before, abs=1e-3
    )


def test_leaving_a_step_out_is_rendered_and_scored(explanation: Explanation) -> None:
    full = list(recipe_of(*MOVES).settings)
    for lesson, (name, change) in zip(explanation.lessons, MOVES, strict=True):
        without = list(full)
        without[slider_index(name)] -= change
        assert lesson.gain_in_the_end == pytest.approx(score_of(full) - score_of(without), abs=2e-4)
    assert explanation.most_useful.number == 1


def test_reasons_are_measured_before_and_after_the_step(explanation: Explanation) -> None:
    path = recipe_of(*MOVES).path()
    pictures = render(PHOTO.expand(len(path), -1, -1, -1), path)
    statistics = photo_statistics(pictures)
    last = explanation.lessons[-1]
    assert last.reason == reason_for("shadows", 0.3, statistics[-2], statistics[-1])
    assert explanation.lessons[0].reason.before == pytest.approx(statistics[0]["luma_p50"], abs=1e-6)


def test_a_step_back_is_called_one(explanation: Explanation) -> None:
    assert [lesson.takes_back for lesson in explanation.lessons] == [None, None, 1, None]
    assert explanation.lessons[2].correction == "It takes back part of step 1."
    assert explanation.lessons[0].correction == ""


def test_the_text_holds_every_part(explanation: Explanation) -> None:
    text = explanation.to_text()
    for lesson in explanation.lessons:
        for part in (lesson.headline, lesson.reason.text, lesson.reason.effect, lesson.look_at, lesson.lightroom):
            assert part in text
        assert lesson.gains in text
    assert text.count("\n") == 5 * len(MOVES) - 1
    assert explanation.lessons[0].headline.startswith(
        "exposure +0.60 EV: more light, as with a longer exposure (score "
    )
    assert explanation.lessons[2].headline.startswith(
        "exposure -0.10 EV: less light, as with a shorter exposure (score "
    )


def test_the_sentence_on_gains_agrees_with_the_numbers(explanation: Explanation) -> None:
    first, third = explanation.lessons[0], explanation.lessons[2]
    assert first.gains == (
        f"The juror gave it {first.gain:+.2f}; without it the result would score {first.gain_in_the_end:.2f} lower."
    )
    assert third.gain < 0
    assert f"score {-third.gain_in_the_end:.2f} higher" in third.gains
    # What nobody can measure is called the same, not "0.00 lower".
    idle = explain(recipe_of(("exposure", 0.3), ("exposure", 0.00001)), PHOTO, METER, long_edge=10).lessons[1]
    assert idle.gains.endswith("would score the same.")


def test_the_summary_fits_a_caption_field(explanation: Explanation) -> None:
    assert explanation.summary.startswith("Retouched by Vernissage: 1. exposure +0.60 EV (+")
    assert "\n" not in explanation.summary
    assert explanation.summary.endswith("of 10.")


def test_json_says_all_of_it(explanation: Explanation) -> None:
    document = json.loads(explanation.to_json())
    assert document["score_before"] == explanation.score_before
    assert [step["slider"] for step in document["steps"]] == [name for name, _ in MOVES]
    first = document["steps"][0]
    assert first["reason"]["supports"] == explanation.lessons[0].reason.supports
    assert first["gain_in_the_end"] == explanation.lessons[0].gain_in_the_end
    assert {"amount", "meaning", "look_at", "lightroom", "darktable", "headline", "gains"} <= set(first)


def test_nothing_done_is_explained_too() -> None:
    nothing = explain(Recipe((0.0,) * SLIDER_COUNT, (), 7.5, 7.5), PHOTO, METER, long_edge=100)
    assert nothing.lessons == ()
    assert nothing.to_text() == "nothing to improve (score 7.5)"
    assert "nothing to improve" in nothing.summary
    assert json.loads(nothing.to_json())["steps"] == []


def test_without_scores_there_is_nothing_to_explain() -> None:
    with pytest.raises(ValueError, match="no scores"):
        explain(Recipe((0.0,) * SLIDER_COUNT), PHOTO, METER, long_edge=100)
