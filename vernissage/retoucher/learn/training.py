"""Trains the retoucher: a plan through the renderer, then PPO; the weights that validate best are kept.

Two phases, each a loop of small updates with a checkpoint now and then. The plan ends as the running mean of its
weights. From there on validation runs the same greedy policy as the benchmark on the stored pairs of the validation
split, and its figure alone chooses the weights, the untouched plan among them: the training reward rises long after a
policy has begun to fit its few photos.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from stable_baselines3 import PPO

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
from vernissage.retoucher.learn.network import PolicyNet, PolicySpec
from vernissage.retoucher.learn.planner import PlannerTrainer, PlannerTraining, slider_sensitivity
from vernissage.retoucher.learn.rewards import Reward, reference_error
from vernissage.retoucher.learn.rollout import run_policy
from vernissage.retoucher.learn.sb3_adapter import Sb3RetouchEnv
from vernissage.retoucher.learn.sb3_policy import PlanPolicy
from vernissage.retoucher.learn.scenes import Pictures, SceneStarts, Starts

if TYPE_CHECKING:
    from pathlib import Path

    from vernissage.retoucher.learn.juror import Juror


#: Share of what the classic corrections suggest that the plan begins with; training moves it either way.
_FIRST_TRUST = 0.99

_CURVE_COLUMNS = ("phase", "update", "loss", "reward", "objective", "gain", "worse", "edits")


@dataclass(frozen=True)
class RetoucherTraining:
    """Settings of one training; the typed parameters say what each is for.

    Attributes:
        spec: Sizes of the network.
        planner: How the plan is taught.
        reward: How edits are paid.
        lr: Learning rate of PPO.
        slots: Photos edited side by side.
        rollout: Edits per slot between two updates.
        steps: Edits in all.
        epochs: Passes over each rollout.
        batch: Edits of one gradient step.
        gamma: Discount.
        clip: PPO's clip range.
        entropy: Weight of the entropy bonus.
        validate_every: PPO updates between validations and checkpoints; the plan is looked at about twenty times.
        scene_variation: See :class:`SceneStarts`.
        stored_share: See :class:`SceneStarts`.
        clean_share: Share of fresh beginnings without a fault.
        faults: Fewest and most faults.
        taken_at: Long edge at which faults happen, pixels.
        seed: Root of all randomness.
    """

    spec: PolicySpec
    planner: PlannerTraining
    reward: Reward
    lr: float
    slots: int
    rollout: int
    steps: int
    epochs: int
    batch: int
    gamma: float
    clip: float
    entropy: float
    validate_every: int
    scene_variation: float
    stored_share: float
    clean_share: float
    faults: tuple[int, int]
    taken_at: int
    seed: int


@dataclass
class _Best:
    """The weights that validated best so far."""

    objective: float = -float("inf")
    phase: str = "start"
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)

    def offer(self, objective: float, phase: str, network: PolicyNet) -> None:
        if objective > self.objective:
            self.objective, self.phase = objective, phase
            self.tensors = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


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
    without_juror = Reward(juror_share=0.0, harm_aversion=harm_aversion, step_cost=0.0)
    no_score = torch.zeros_like(before)
    earned = without_juror.potential(after, before, no_score) - without_juror.potential(before, before, no_score)
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
    """Runs both phases and resumes where the last checkpoint left off.

    Args:
        data: Photos and pairs.
        juror: Scores pictures in the reward.
        settings: How to train.
        checkpoint: Folder of the checkpoint, outside DVC, one per data and settings.
    """

    def __init__(self, data: Thumbnails, juror: Juror, settings: RetoucherTraining, checkpoint: Path) -> None:
        self.settings, self.held_out, self.checkpoint = settings, data.held_out, checkpoint
        torch.manual_seed(derive_seed(settings.seed, "retoucher") % 2**63)
        np.random.seed(derive_seed(settings.seed, "sb3") % 2**32)  # noqa: NPY002 - stable-baselines3 shuffles with it
        self.source = SceneStarts(
            data.originals,
            data.stored,
            scene_variation=settings.scene_variation,
            stored_share=settings.stored_share,
            clean_share=settings.clean_share,
            faults=settings.faults,
            taken_at=settings.taken_at,
            rng=numpy_generator(settings.seed, "starts"),
        )
        self.network = PolicyNet(settings.spec, slider_sensitivity(data.originals.thumbnails[:256]))
        self.network.trust_classics(_FIRST_TRUST)
        self.planner = PlannerTrainer(self.network, self.source, settings.planner)
        self.env = RetouchEnv(
            self.source,
            juror,
            settings.reward,
            settings.spec.actions(),
            slots=settings.slots,
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
            self._restore_plan(saved)
        if saved is None or saved.facts["phase"] == "plan":
            self._teach_plan()
        ppo = self._start_ppo()
        if saved is not None and saved.facts["phase"] == "ppo":
            self._restore_ppo(saved, ppo)
        self._reinforce(ppo)
        self.network.to("cpu").load_state_dict(self.best.tensors)
        shutil.rmtree(self.checkpoint, ignore_errors=True)
        summary = {
            "kept_from": self.best.phase,
            "objective": round(self.best.objective, 6),
            "plan_updates": self.planner.update,
            "ppo_iterations": self.iteration,
            "validation": validate(self.network, self.held_out, self.settings.reward.harm_aversion),
            "weights": sum(parameter.numel() for parameter in self.network.parameters()),
            "settings": asdict(self.settings),
        }
        return Trained(self.network.eval(), self.curves, summary)

    def _teach_plan(self) -> None:
        total = self.settings.planner.updates
        # About twenty looks, whatever the length: each costs little, and the peak is often early.
        every = max(1, total // 20)
        with Progress("plan", total=total, unit="updates") as progress:
            progress.advance(self.planner.update)
            losses: list[float] = []
            while self.planner.update < total:
                losses.append(self.planner.step())
                progress.advance(1, loss=losses[-1])
                if self.planner.update % every == 0 or self.planner.update == total:
                    self.planner.swap_mean()
                    seen = self._look("plan", self.planner.update, {"loss": float(np.mean(losses))}, plan_only=True)
                    self.planner.swap_mean()
                    progress.message(_line("plan", self.planner.update, seen))
                    losses = []
                    self._save("plan", {})
        # The mean of the weights at the end of the schedule, not the look that validated best: with a handful of photos
        # in the validation split, the best of twenty looks is mostly luck.
        self.planner.swap_mean()

    def _start_ppo(self) -> PPO:
        s = self.settings
        adapter = Sb3RetouchEnv(self.env)
        return PPO(
            PlanPolicy,
            adapter,
            learning_rate=s.lr,
            n_steps=s.rollout,
            batch_size=s.batch,
            n_epochs=s.epochs,
            gamma=s.gamma,
            clip_range=s.clip,
            ent_coef=s.entropy,
            target_kl=0.03,
            policy_kwargs={"network": self.network},
            device=choose_device(),
        )

    def _reinforce(self, ppo: PPO) -> None:
        s = self.settings
        per_iteration = s.slots * s.rollout
        total = -(-s.steps // per_iteration)
        if self.iteration == 0:
            # What the plan validates at as a stepping policy: the mark that reinforcement learning has to beat.
            self.best = _Best()
            self._look("ppo", 0, {"reward": float("nan")})
        with Progress("ppo", total=total * per_iteration, unit="edits") as progress:
            progress.advance(self.iteration * per_iteration)
            while self.iteration < total:
                ppo.learn(per_iteration, reset_num_timesteps=False)
                self.iteration += 1
                reward = float(ppo.rollout_buffer.rewards.mean())
                progress.advance(per_iteration, reward=reward)
                if self.iteration % s.validate_every == 0 or self.iteration == total:
                    seen = self._look("ppo", self.iteration, {"reward": reward})
                    progress.message(_line("ppo", self.iteration, seen))
                    self._save("ppo", with_prefix("adam", optimiser_tensors(ppo.policy.optimizer)))

    def _look(self, phase: str, update: int, row: dict[str, float], *, plan_only: bool = False) -> dict[str, float]:
        device = next(self.network.parameters()).device
        self.network.to("cpu")
        seen = validate(self.network, self.held_out, self.settings.reward.harm_aversion, plan_only=plan_only)
        self.best.offer(seen["objective"], phase, self.network)
        self.network.to(device)
        self.curves.append({"phase": phase, "update": update, **row, **seen})
        return seen

    def _save(self, phase: str, extra: dict[str, torch.Tensor]) -> None:
        chance = random_state(self.source.rng)
        tensors = {
            **with_prefix("network", self.network.state_dict()),
            **with_prefix("best", self.best.tensors),
            **with_prefix("plan-adam", optimiser_tensors(self.planner.optimiser)),
            **{f"plan-mean/{number}": tensor for number, tensor in enumerate(self.planner.mean)},
            **with_prefix("chance", chance.tensors),
            **with_prefix("env", self.env.state()),
            **extra,
        }
        facts = {
            "phase": phase,
            "plan_update": self.planner.update,
            "iteration": self.iteration,
            "best": [self.best.objective, self.best.phase],
            "curves": [{k: (None if v != v else v) for k, v in row.items()} for row in self.curves],  # noqa: PLR0124
            "chance": chance.facts,
        }
        save_checkpoint(self.checkpoint, Checkpoint(tensors, facts))

    def _restore_plan(self, saved: Checkpoint) -> None:
        self.network.load_state_dict(without_prefix("network", saved.tensors))
        self.best = _Best(saved.facts["best"][0], saved.facts["best"][1], without_prefix("best", saved.tensors))
        self.planner.update = saved.facts["plan_update"]
        restore_optimiser(self.planner.optimiser, without_prefix("plan-adam", saved.tensors))
        self.planner.mean = [saved.tensors[f"plan-mean/{number}"].clone() for number in range(len(self.planner.mean))]
        self.iteration = saved.facts["iteration"]
        self.curves = [_curve_row(row) for row in saved.facts["curves"]]
        restore_random_state(
            Checkpoint(without_prefix("chance", saved.tensors), saved.facts["chance"]), self.source.rng
        )

    def _restore_ppo(self, saved: Checkpoint, ppo: PPO) -> None:
        restore_optimiser(ppo.policy.optimizer, without_prefix("adam", saved.tensors))
        self.env.restore(without_prefix("env", saved.tensors))
        # stable-baselines3 keeps the observation between two rollouts to itself; a resumed run must begin with it.
        ppo._last_obs = self.env.observation()  # noqa: SLF001
        ppo._last_episode_starts = self.env.fresh_slots()  # noqa: SLF001
        ppo.num_timesteps = self.iteration * self.settings.slots * self.settings.rollout
        restore_random_state(
            Checkpoint(without_prefix("chance", saved.tensors), saved.facts["chance"]), self.source.rng
        )


def _curve_row(stored: dict[str, Any]) -> dict[str, Any]:
    """A row as it was before JSON sorted it and took its NaN: the table of a resumed run is to be the same file."""
    return {name: float("nan") if stored[name] is None else stored[name] for name in _CURVE_COLUMNS if name in stored}


def _line(phase: str, update: int, seen: dict[str, float]) -> str:
    return (
        f"{phase} {update}: validation gain {seen['gain']:.3f}, worse {seen['worse']:.0%}, "
        f"objective {seen['objective']:.3f}, {seen['edits']:.1f} edits"
    )
