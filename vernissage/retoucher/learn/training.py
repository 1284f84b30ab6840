"""Trains the retoucher: a plan through the renderer, lessons by the oracle, then learning by reward.

Each phase is a loop of small updates with a checkpoint now and then. The plan ends as the running mean of its weights.
From there on validation runs the same greedy policy as the benchmark on the stored pairs of the validation split, and
its figure alone chooses the weights, the untouched plan among them: the training reward rises long after a policy has
begun to fit its few photos. Lessons and reward each begin with the best weights so far.
"""

from __future__ import annotations

import math
import shutil
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vernissage.core.devices import choose_device
from vernissage.core.progress import Progress
from vernissage.core.seeds import derive_seed, numpy_generator
from vernissage.retoucher.domain.colour import srgb_to_linear
from vernissage.retoucher.domain.render import render_linear
from vernissage.retoucher.learn.checkpoints import (
    Checkpoint,
    load_checkpoint,
    optimiser_tensors,
    random_state,
    restore_optimiser,
    restore_random_state,
    save_checkpoint,
    with_prefix,
    without_prefix,
)
from vernissage.retoucher.learn.environment import RetouchEnv
from vernissage.retoucher.learn.extractors import load_first_weights
from vernissage.retoucher.learn.network import PolicyNet, PolicySpec
from vernissage.retoucher.learn.oracle import OracleTrainer, OracleTraining
from vernissage.retoucher.learn.planner import PlannerTrainer, PlannerTraining, slider_sensitivity
from vernissage.retoucher.learn.reinforcement import Learner, Reinforcement, start_learner
from vernissage.retoucher.learn.rewards import Reward, came_closer, reference_error
from vernissage.retoucher.learn.rollout import run_policy
from vernissage.retoucher.learn.scenes import Pictures, SceneStarts, Starts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from vernissage.retoucher.learn.juror import Juror


_LOOKS_AT_PLAN, _LOOKS_AT_LESSONS = 20, 4

#: Share of what the classic corrections suggest that the plan begins with; training moves it either way.
_FIRST_TRUST = 0.9

_CURVE_COLUMNS = ("phase", "update", "loss", "reward", "objective", "gain", "worse", "edits")


@dataclass(frozen=True)
class RetoucherTraining:
    """Settings of one training; the typed parameters say what each is for.

    Attributes:
        spec: Sizes of the network.
        planner: How the plan is taught.
        oracle: How the oracle teaches.
        reinforcement: How the policy learns by reward.
        reward: How edits are paid.
        validate_every: Iterations of learning by reward between validations and checkpoints; the plan is looked at
            about twenty times, the lessons four times.
        scene_variation: See :class:`SceneStarts`.
        full_range_share: See :class:`SceneStarts`.
        stored_share: See :class:`SceneStarts`.
        clean_share: Share of fresh beginnings without a fault.
        faults: Fewest and most faults.
        kinds: Which faults there are.
        taken_at: Long edge at which faults happen, pixels.
        seed: Root of all randomness.
    """

    spec: PolicySpec
    planner: PlannerTraining
    oracle: OracleTraining
    reinforcement: Reinforcement
    reward: Reward
    validate_every: int
    scene_variation: float
    full_range_share: float
    stored_share: float
    clean_share: float
    faults: tuple[int, int]
    kinds: tuple[str, ...]
    taken_at: int
    seed: int


@dataclass
class _Best:
    """The weights that validated best so far."""

    objective: float = -float("inf")
    phase: str = "start"
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)

    def offer(self, objective: float, phase: str, network: PolicyNet) -> bool:
        """Keep the weights where they are better; says whether they were."""
        if objective <= self.objective:
            return False
        self.objective, self.phase = objective, phase
        self.tensors = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
        return True


@dataclass(frozen=True)
class Trained:
    """Result of a training: the network, curves for plots, facts for the record."""

    network: PolicyNet
    curves: list[dict[str, Any]]
    summary: dict[str, Any]


@torch.no_grad()
def validate(network: PolicyNet, pairs: Starts, harm_aversion: float, *, plan_only: bool = False) -> dict[str, float]:
    """Judge the greedy policy, or only its plan, on pairs that it does not learn from.

    Args:
        network: The policy.
        pairs: Thumbnails of the validation pairs.
        harm_aversion: Extra weight of making a photo worse.
        plan_only: Render the plan in one shot instead of stepping towards it.

    Returns:
        ``objective`` (mean reward of the episodes without the juror's share and without prices), ``gain`` (mean fall of
        the error), share ``worse``, ``edits``.
    """
    network.eval()
    if plan_only:
        settings, edits = network.plan(pairs.faulty, pairs.suggestions), 0.0
    else:
        rollout = run_policy(network, pairs.faulty, pairs.suggestions)
        settings, edits = rollout.settings, float(rollout.edits.float().mean())
    before = reference_error(pairs.faulty, pairs.reference)
    after = reference_error(render_linear(srgb_to_linear(pairs.faulty), settings), pairs.reference)
    untouched = (settings == 0).all(dim=1)
    after = torch.where(untouched, before, after)
    earned = came_closer(after, before, harm_aversion)
    network.train()
    return {
        "objective": float(earned.mean()),
        "gain": float((before - after).mean()),
        "worse": float((after > before + 0.05).float().mean()),
        "edits": edits,
    }


@dataclass(frozen=True)
class Thumbnails:
    """What a training looks at.

    Attributes:
        originals: Photos of the train split.
        stored: Stored train pairs.
        held_out: Stored validation pairs.
    """

    originals: Pictures
    stored: Starts
    held_out: Starts


class RetoucherTrainer:
    """Runs all phases and resumes where the last checkpoint left off.

    Args:
        data: Photos and pairs.
        juror: Scores pictures in the reward.
        settings: How to train.
        checkpoint: Folder of the checkpoint, outside DVC, one per data and settings.
        on_look: Called after every look at the validation pairs with the phase (``plan``, ``oracle``, ``ppo`` or
            ``dqn``), the update and what was seen, while ``network`` holds the weights that were looked at. What it
            raises ends the training, as a pruned trial does; a resumed training does not repeat the calls of before.
    """

    def __init__(
        self,
        data: Thumbnails,
        juror: Juror,
        settings: RetoucherTraining,
        checkpoint: Path,
        on_look: Callable[[str, int, dict[str, float]], None] | None = None,
    ) -> None:
        self.settings, self.held_out, self.checkpoint, self.on_look = settings, data.held_out, checkpoint, on_look
        torch.manual_seed(derive_seed(settings.seed, "retoucher") % 2**63)
        np.random.seed(derive_seed(settings.seed, "sb3") % 2**32)  # noqa: NPY002 - stable-baselines3 draws from it
        self.source = SceneStarts(
            data.originals,
            data.stored,
            scene_variation=settings.scene_variation,
            full_range_share=settings.full_range_share,
            stored_share=settings.stored_share,
            clean_share=settings.clean_share,
            faults=settings.faults,
            kinds=settings.kinds,
            taken_at=settings.taken_at,
            rng=numpy_generator(settings.seed, "starts"),
        )
        self.network = PolicyNet(settings.spec, slider_sensitivity(data.originals.thumbnails[:256]))
        load_first_weights(self.network.trunk, settings.spec.extractor)
        self.network.trust_classics(_FIRST_TRUST)
        with torch.no_grad():
            self.network.log_sharpness.fill_(math.log(settings.reinforcement.sharpness))
        self.planner = PlannerTrainer(self.network, self.source, settings.planner)
        self.plan = [weights for group in self.planner.optimiser.param_groups for weights in group["params"]]
        self.oracle = OracleTrainer(
            self.network, self.plan, self.source, settings.reward, settings.oracle, self.source.rng
        )
        self.env = RetouchEnv(
            self.source,
            juror,
            settings.reward,
            settings.spec.actions(),
            slots=settings.reinforcement.slots,
            horizon=settings.spec.horizon,
            view=settings.spec.view,
        )
        self.best = _Best()
        self.curves: list[dict[str, Any]] = []
        self.iteration = 0

    def train(self) -> Trained:
        """Train to the end and return the weights that validated best."""
        saved = load_checkpoint(self.checkpoint)
        if saved is not None:
            self._restore(saved)
        phase = "plan" if saved is None else saved.facts["phase"]
        if phase == "plan":
            self._teach_plan()
        with _held_still(self.plan, hold=self.settings.oracle.plan_pace == 0):
            if phase in {"plan", "oracle"}:
                self._give_lessons(saved if phase == "oracle" else None)
        with _held_still(self.plan, hold=self.settings.reinforcement.plan_pace == 0):
            self._reinforce(saved if phase == self.settings.reinforcement.algorithm else None)
        self.network.to("cpu").load_state_dict(self.best.tensors)
        shutil.rmtree(self.checkpoint, ignore_errors=True)
        summary = {
            "kept_from": self.best.phase,
            "objective": round(self.best.objective, 6),
            "plan_updates": self.planner.update,
            "oracle_updates": self.oracle.update,
            "algorithm": self.settings.reinforcement.algorithm,
            "iterations": self.iteration,
            "validation": validate(self.network, self.held_out, self.settings.reward.terms.harm_aversion),
            "weights": sum(parameter.numel() for parameter in self.network.parameters()),
            "settings": asdict(self.settings),
        }
        return Trained(self.network.eval(), self.curves, summary)

    def _teach_plan(self) -> None:
        total = self.settings.planner.updates
        # About twenty looks, whatever the length: each costs little, and the peak is often early.
        every = max(1, total // _LOOKS_AT_PLAN)
        with Progress("plan", total=total, unit="updates") as progress:
            progress.advance(self.planner.update)
            losses: list[float] = []
            clock = _Clock()
            while self.planner.update < total:
                losses.append(self.planner.step())
                clock.count(self.settings.planner.batch)
                progress.advance(1, loss=losses[-1])
                if self.planner.update % every == 0 or self.planner.update == total:
                    row = {"loss": float(np.mean(losses))}
                    self.planner.swap_mean()
                    line = self._look("plan", self.planner.update, row, plan_only=True)
                    self.planner.swap_mean()
                    progress.message(f"{line}, {clock.speed()} photos/s")
                    losses = []
                    self._save("plan", {})
        # The mean of the weights at the end of the schedule, not the look that validated best: with a handful of photos
        # in the validation split, the best of twenty looks is mostly luck.
        self.planner.swap_mean()
        self.best = _Best()

    def _give_lessons(self, saved: Checkpoint | None) -> None:
        oracle, total = self.oracle, self.settings.oracle.updates
        if not total:
            return
        if saved is not None:
            restore_optimiser(oracle.optimiser, without_prefix("lesson-adam", saved.tensors))
            oracle.env.restore(without_prefix("lesson-env", saved.tensors))
            oracle.update = saved.facts["oracle_update"]
            self._restore_chance(saved)
        every = max(1, total // _LOOKS_AT_LESSONS)
        with Progress("oracle", total=total, unit="updates") as progress:
            if saved is None:
                # What the plan validates at as a stepping policy: the mark that lessons have to beat.
                progress.message(self._look("oracle", 0, {"reward": float("nan")}))
            progress.advance(oracle.update)
            gains: list[float] = []
            clock = _Clock()
            while oracle.update < total:
                gains.append(oracle.step())
                clock.count(self.settings.oracle.batch)
                progress.advance(1, reward=gains[-1])
                if oracle.update % every == 0 or oracle.update == total:
                    # What the policy can expect of an edit, in the units of the reward that follows.
                    line = self._look("oracle", oracle.update, {"reward": float(np.mean(gains))})
                    progress.message(f"{line}, {clock.speed()} views/s")
                    gains = []
                    lesson = with_prefix("lesson-adam", optimiser_tensors(oracle.optimiser))
                    self._save("oracle", {**lesson, **with_prefix("lesson-env", oracle.env.state())})
        self.network.load_state_dict(self.best.tensors)

    def _reinforce(self, saved: Checkpoint | None) -> None:
        s = self.settings.reinforcement
        learner = start_learner(self.network, self.plan, self.env, s, choose_device())
        if saved is not None:
            self._restore_learner(saved, learner)
        with Progress(s.algorithm, total=s.iterations * s.per_iteration, unit="edits") as progress:
            if saved is None:
                # What the policy validates at before: the mark that learning by reward has to beat.
                progress.message(self._look(s.algorithm, 0, {"reward": float("nan")}))
            progress.advance(self.iteration * s.per_iteration)
            clock = _Clock()
            while self.iteration < s.iterations:
                reward = learner.iterate(self.iteration / s.iterations)
                self.iteration += 1
                clock.count(s.per_iteration)
                progress.advance(s.per_iteration, reward=reward)
                if self.iteration % self.settings.validate_every == 0 or self.iteration == s.iterations:
                    line = self._look(s.algorithm, self.iteration, {"reward": reward})
                    progress.message(f"{line}, {clock.speed()} edits/s")
                    learned = with_prefix("learner", learner.state())
                    self._save(s.algorithm, {**learned, **with_prefix("env", self.env.state())})

    def _look(self, phase: str, update: int, row: dict[str, float], *, plan_only: bool = False) -> str:
        """Validate, keep what is best, and return a line for the log."""
        device = next(self.network.parameters()).device
        self.network.to("cpu")
        seen = validate(self.network, self.held_out, self.settings.reward.terms.harm_aversion, plan_only=plan_only)
        # Before its first update a phase shows what it was given.
        better = self.best.offer(seen["objective"], phase if update else "plan", self.network)
        self.curves.append({"phase": phase, "update": update, **row, **seen})
        if self.on_look is not None:
            self.on_look(phase, update, dict(seen))
        self.network.to(device)
        edits = "" if plan_only else f", {seen['edits']:.1f} edits"
        return (
            f"look at {update}: objective {seen['objective']:+.4f}{' (best)' if better else ''}, "
            f"gain {seen['gain']:+.4f}, worse {seen['worse']:.1%}{edits}"
        )

    def _save(self, phase: str, extra: dict[str, torch.Tensor]) -> None:
        chance = random_state(self.source.rng)
        tensors = {
            **with_prefix("network", self.network.state_dict()),
            **with_prefix("best", self.best.tensors),
            **with_prefix("plan-adam", optimiser_tensors(self.planner.optimiser)),
            **{f"plan-mean/{number}": tensor for number, tensor in enumerate(self.planner.mean)},
            **with_prefix("chance", chance.tensors),
            **extra,
        }
        facts = {
            "phase": phase,
            "plan_update": self.planner.update,
            "oracle_update": self.oracle.update,
            "iteration": self.iteration,
            "best": [self.best.objective, self.best.phase],
            "curves": [{k: (None if v != v else v) for k, v in row.items()} for row in self.curves],  # noqa: PLR0124
            "chance": chance.facts,
        }
        save_checkpoint(self.checkpoint, Checkpoint(tensors, facts))

    def _restore(self, saved: Checkpoint) -> None:
        self.network.load_state_dict(without_prefix("network", saved.tensors))
        self.best = _Best(saved.facts["best"][0], saved.facts["best"][1], without_prefix("best", saved.tensors))
        self.planner.update = saved.facts["plan_update"]
        restore_optimiser(self.planner.optimiser, without_prefix("plan-adam", saved.tensors))
        self.planner.mean = [saved.tensors[f"plan-mean/{number}"].clone() for number in range(len(self.planner.mean))]
        self.oracle.update, self.iteration = saved.facts["oracle_update"], saved.facts["iteration"]
        self.curves = [_curve_row(row) for row in saved.facts["curves"]]
        self._restore_chance(saved)

    def _restore_learner(self, saved: Checkpoint, learner: Learner) -> None:
        self.env.restore(without_prefix("env", saved.tensors))
        learner.restore(without_prefix("learner", saved.tensors), self.iteration)
        self._restore_chance(saved)

    def _restore_chance(self, saved: Checkpoint) -> None:
        """Last of all: building a network or an algorithm draws random numbers."""
        restore_random_state(
            Checkpoint(without_prefix("chance", saved.tensors), saved.facts["chance"]), self.source.rng
        )


class _Clock:
    """Counts what is done per second between two looks."""

    def __init__(self) -> None:
        self._done, self._started = 0, time.perf_counter()

    def count(self, done: int) -> None:
        self._done += done

    def speed(self) -> str:
        """Per second since the last call, rounded; starts again."""
        seconds = time.perf_counter() - self._started
        text = f"{self._done / seconds:.3g}" if seconds > 0 else "?"
        self._done, self._started = 0, time.perf_counter()
        return text


@contextmanager
def _held_still(weights: list[torch.nn.Parameter], *, hold: bool) -> Iterator[None]:
    """Keep weights as they are, and save the time of their gradients."""
    held = [parameter for parameter in weights if hold and parameter.requires_grad]
    for parameter in held:
        parameter.requires_grad = False
    try:
        yield
    finally:
        for parameter in held:
            parameter.requires_grad = True


def _curve_row(stored: dict[str, Any]) -> dict[str, Any]:
    """A row as it was before JSON sorted it and took its NaN: the table of a resumed run is to be the same file."""
    return {name: float("nan") if stored[name] is None else stored[name] for name in _CURVE_COLUMNS if name in stored}
