"""Both ways to decide lead to recipes that their scores belong to; `quality` is never worse in the juror's eyes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.retoucher.agents import SPEC, agent_with_plan
from tests.retoucher.use.test_retouch import save_photo
from vernissage.core.images import read_photo
from vernissage.retoucher.domain.full_size import thumbnail
from vernissage.retoucher.domain.render import render
from vernissage.retoucher.domain.sliders import slider_index
from vernissage.retoucher.learn.rollout import run_policy
from vernissage.retoucher.use.agent import Agent, Mode, decide

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from vernissage.core.images import Photo


class LikesGrey:
    """A juror that anyone can check: ten points for a mean of one half, none for black and white."""

    def score(self, images: torch.Tensor) -> torch.Tensor:
        """(N,) in [0, 10]."""
        return 10 - 20 * (images.flatten(1).mean(dim=1) - 0.5).abs()


@pytest.fixture
def photo(tmp_path: Path) -> Photo:
    return read_photo(save_photo(tmp_path / "a.png"))


def test_fast_asks_the_policy(photo: Photo) -> None:
    agent = Agent(agent_with_plan({"exposure": 0.4, "tint": -0.1}), LikesGrey())
    decision = decide(photo, agent)
    rollout = run_policy(agent.network, thumbnail(photo.samples, long_edge=SPEC.standard, short_edge=SPEC.view))
    assert decision.recipe.settings == pytest.approx(rollout.settings[0].tolist(), abs=1e-6)
    assert len(decision.recipe.steps) == int(rollout.edits[0])


@pytest.mark.parametrize("mode", ["fast", "quality"])
def test_scores_are_the_jurors_for_the_pictures_of_the_path(photo: Photo, mode: Mode) -> None:
    juror = LikesGrey()
    decision = decide(photo, Agent(agent_with_plan({"exposure": 0.3, "contrast": 0.1}), juror), mode)
    recipe, path = decision.recipe, decision.recipe.path()
    scores = juror.score(render(decision.judged.expand(len(path), -1, -1, -1), path)).tolist()
    told = [recipe.score_before, *(step.score for step in recipe.steps)]
    assert told == pytest.approx(scores, abs=1e-3)
    assert recipe.score_after == told[-1]


def test_quality_finds_what_the_juror_likes_better(photo: Photo) -> None:
    agent = Agent(agent_with_plan({"exposure": -0.5}), LikesGrey())
    fast, quality = decide(photo, agent).recipe, decide(photo, agent, "quality").recipe
    assert fast.score_after is not None
    assert quality.score_after is not None
    assert fast.settings[slider_index("exposure")] < 0
    assert quality.score_after > 9.5 > fast.score_after


def test_quality_keeps_the_policys_edits_where_search_finds_none_better(photo: Photo) -> None:
    class Stubborn:
        """Likes one brightness and nothing near it, so that no single edit is worth its margin."""

        def score(self, images: torch.Tensor) -> torch.Tensor:
            means = images.flatten(1).mean(dim=1)
            return 5 + 5 * ((means - wanted).abs() < 0.002).float()

    network = agent_with_plan({"exposure": 0.4, "saturation": 0.2, "tint": 0.1})
    settings = decide(photo, Agent(network, LikesGrey())).recipe
    wanted = float(render(decide(photo, Agent(network, LikesGrey())).judged, settings.as_tensor()).mean())
    agent = Agent(network, Stubborn())
    assert decide(photo, agent, "quality").recipe == decide(photo, agent).recipe
