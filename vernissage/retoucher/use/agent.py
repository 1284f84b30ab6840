"""Who edits: the trained policy, the juror that scores its steps, and the ways in which the two can decide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import torch

from vernissage.retoucher.domain.full_size import thumbnail
from vernissage.retoucher.domain.recipe import Recipe, Step
from vernissage.retoucher.domain.render import render
from vernissage.retoucher.domain.sliders import slider_index
from vernissage.retoucher.learn.jurors import load_juror
from vernissage.retoucher.learn.network import PolicyNet
from vernissage.retoucher.learn.rollout import Rollout, run_policy
from vernissage.retoucher.learn.siglip import SiglipJuror
from vernissage.retoucher.use.reasons import MEASURED_EDGE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vernissage.core.images import Photo
    from vernissage.retoucher.learn.juror import Juror

#: `fast` asks the policy alone. `quality` also lets a beam search look for edits that the juror likes better, and takes
#: whichever of the two the juror scores higher.
Mode = Literal["fast", "quality"]
MODES: tuple[Mode, ...] = get_args(Mode)


@dataclass(frozen=True)
class Agent:
    """Who edits and who judges.

    Attributes:
        network: The policy.
        juror: Scores each step for recipe, sheet and explanation; in `quality` mode it also chooses.
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
        return Agent(PolicyNet.load(model_folder), load_juror(juror_folder))


@dataclass(frozen=True)
class Decision:
    """What the agent wants done with one photo.

    Attributes:
        recipe: Settings, steps and scores.
        judged: (1, 3, h, w) float in [0, 1]: the thumbnail that the scores belong to.
    """

    recipe: Recipe
    judged: torch.Tensor


def decide(photo: Photo, agent: Agent, mode: Mode = "fast") -> Decision:
    """Let the agent look at a photo, and the juror at every step.

    Args:
        photo: The photo at full size.
        agent: Who edits and who judges.
        mode: How to decide, see `Mode`.
    """
    spec = agent.network.spec
    judged, sides = seen_by(agent.juror, photo), {"long_edge": spec.standard, "short_edge": spec.view}
    # Shrinking a large photo takes longer than deciding about it, and mostly both see the same.
    small = judged if sides == _sight(agent.juror) else thumbnail(photo.samples, **sides)
    recipe = _judged_recipe(run_policy(agent.network, small), judged, agent)
    if mode == "quality":
        # Looked for where it is wanted only: a search renders and scores hundreds of pictures.
        from vernissage.retoucher.learn.search import BEAM_WIDTH, search_edits

        found = search_edits(spec.actions(), agent.juror, judged, horizon=spec.horizon, width=BEAM_WIDTH)
        searched = _judged_recipe(found, judged, agent)
        # Where both are worth the same, the one that was trained on originals and not by the juror's taste alone.
        recipe = max(recipe, searched, key=lambda one: one.score_after or 0.0)
    return Decision(recipe, judged)


def seen_by(juror: Juror, photo: Photo) -> torch.Tensor:
    """The thumbnail of a photo that a juror scores and that statistics are measured on.

    Args:
        juror: The juror; some look at larger pictures than others.
        photo: The photo at full size.

    Returns:
        (1, 3, h, w) float in [0, 1]; both sides have the pixels that the juror can see, where the photo had them. It
        depends on the juror alone, so that every command gives a photo the same score.
    """
    return thumbnail(photo.samples, **_sight(juror))


def _sight(juror: Juror) -> dict[str, int]:
    """Edges of the thumbnail that a juror gets."""
    side = juror.preparation.side if isinstance(juror, SiglipJuror) else int(getattr(juror, "size", 1))
    return {"long_edge": max(MEASURED_EDGE, side), "short_edge": side}


def _judged_recipe(rollout: Rollout, judged: torch.Tensor, agent: Agent) -> Recipe:
    settings = _path_of_edits(rollout)
    pictures = render(judged.expand(len(settings), -1, -1, -1), settings)
    scores = [round(score, 4) for score in agent.juror.score(pictures).tolist()]
    return _recipe(settings, rollout, agent, scores)


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
