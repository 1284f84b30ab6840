"""A real study of real trainings, each of which takes a blink: tiny photos, a tiny network, a few updates.

As a program it runs trials in a folder until it is killed: `python -m tests.retoucher.learn.small_study FOLDER TRIALS`.
"""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tests.retoucher.learn.worlds import darkened, photos, untrained_juror
from vernissage.core.params import Params, load_params
from vernissage.retoucher.learn.scenes import Pictures
from vernissage.retoucher.learn.search_spaces import Choice, SearchSpace, Span
from vernissage.retoucher.learn.training import RetoucherTrainer, Thumbnails
from vernissage.retoucher.learn.tuning import StudyPlan, Tuner, running_study
from vernissage.retoucher.system import training_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

SHIPPED = Path(__file__).parents[3] / "params.yaml"
VIEW = 16
TINY = (
    *(f"train.retoucher.{text}" for text in ("view=16", "horizon=3", "widths=[4,8]", "imagined_scenes=0")),
    *(
        f"train.retoucher.{text}"
        for text in ("planner_images=40", "planner_batch=4", "ppo_steps=32", "oracle_images=0")
    ),
    *(f"train.retoucher.{text}" for text in ("slots=4", "rollout=4", "batch=8", "validate_every=1")),
    "train.retoucher.algorithm=ppo",
)
SPACE = SearchSpace(
    "ppo",
    "a few of the parameters",
    (
        # The upper end is far beyond what a training survives.
        Span("train.retoucher.planner_lr_scale", 1.0, 3000.0, log=True),
        Span("train.retoucher.ppo_epochs", 1, 3, step=1),
        Choice("train.retoucher.widths", ((4, 8), (4, 4))),
        Span("train.retoucher.gamma", 0.9, 1.0, step=0.01),
    ),
)
PRESENT = {
    "train.retoucher.planner_lr_scale": 7.0,
    "train.retoucher.ppo_epochs": 2,
    "train.retoucher.widths": (4, 8),
    "train.retoucher.gamma": 1.0,
}


def load(overrides: Sequence[str] = ()) -> Params:
    """The shipped parameters, made tiny, changed by a trial."""
    return load_params(SHIPPED, overrides=[*TINY, *overrides])


def small_plan(root: Path, **changes: Any) -> StudyPlan:
    """A study of these trainings."""
    values = {
        "name": "small",
        "folder": root / "small",
        "scratch": root / "scratch",
        "space": SPACE,
        "objective": "objective",
        "present": PRESENT,
        "about": {"train.retoucher.view": VIEW, "pairs": "made"},
        "code": "here",
        "seed": 3,
        "startup": 3,
        **changes,
    }
    return StudyPlan(**values)


@cache
def made_data() -> Thumbnails:
    """Four photos to learn from, three to look at."""
    originals, others = photos(4, side=VIEW), photos(3, side=VIEW, first=20)
    return Thumbnails(Pictures.of_thumbnails(originals), darkened(originals), darkened(others))


def train_one(
    params: Params, checkpoint: Path, on_look: Callable[[str, int, dict[str, float]], None]
) -> Mapping[str, float]:
    """One real training, with its checkpoint."""
    trainer = RetoucherTrainer(
        made_data(), untrained_juror(1, VIEW), training_settings(params), checkpoint, on_look=on_look
    )
    return trainer.train().summary["validation"]


def small_tuner(study: Any, plan: StudyPlan, train: Any = train_one, said: list[str] | None = None) -> Tuner:
    """Runs the trials; `said` collects the lines."""
    lines = [] if said is None else said
    return Tuner(study, plan, load=load, settings_of=training_settings, train_one=train, say=lines.append)


if __name__ == "__main__":
    torch.set_num_threads(1)
    the_plan = small_plan(Path(sys.argv[1]))
    with running_study(the_plan) as the_study:
        small_tuner(the_study, the_plan).run(int(sys.argv[2]))
