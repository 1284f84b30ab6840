"""Trains the controller by PPO (Schulman et al. 2017), and lets it act only at prices where it is better than static.

It starts as the static program and is paid for what it does better. At the end validation requests choose how sure the
router must be; other validation requests, which nothing was chosen by, decide price by price whether it is released.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import VecNormalize

from vernissage.core.errors import BadInput, BadParams, CorruptArtifact, MissingArtifact
from vernissage.core.files import fresh_folder
from vernissage.core.progress import Progress
from vernissage.core.seeds import derive_seed, numpy_generator
from vernissage.core.weights import load_weights, save_weights
from vernissage.sampler.learn.controller import LIMIT, SteeringController, static_bias
from vernissage.sampler.learn.environment import Episodes, State, SteeringEnv
from vernissage.sampler.learn.experts import ACTIONS, STATIC
from vernissage.sampler.learn.features import FEATURES, SAMPLE_FEATURES
from vernissage.sampler.learn.policies import roll
from vernissage.sampler.learn.rewards import StaticAnswers, reward_of, saturated, usual_embedding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from gymnasium import spaces

    from vernissage.sampler.domain.denoiser import Denoiser
    from vernissage.sampler.learn.book import ProgramBook
    from vernissage.sampler.learn.classifiers import Embedding
    from vernissage.sampler.learn.policies import Policy
    from vernissage.sampler.learn.rewards import Requests
    from vernissage.sampler.learn.slots import Student

#: A difference of values below this is rounding.
_NOTHING = 1e-6
_WARM_UP_STEPS = 12
# Features that hardly move are not blown up beyond this.
_LEAST_SPREAD = 0.05


@dataclass(frozen=True)
class Choice:
    """How a trained router is read; validation chooses among a few.

    Attributes:
        temperature: Of the router.
        confidence_floor: Probability that its first choice needs; the slot follows STATIC below.
        soft: Whether multistep experts are mixed.
    """

    temperature: float = 1.0
    confidence_floor: float = 0.0
    soft: bool = False


@dataclass(frozen=True)
class SteeringTraining:
    """Settings of the training; the defaults take about a minute of one core on 8 by 8 pictures.

    Attributes:
        decisions: In all; rounded up to whole updates.
        slots: Requests under way at once.
        rollout: Decisions of each slot between two updates.
        epochs: Times that each decision is learned from.
        batch: Decisions of one gradient step.
        lr: Learning rate.
        gae_lambda: How far advantages trust rewards (1) or the critic (0).
        clip: PPO's clip range.
        entropy: Weight of the entropy bonus.
        target_kl: An update ends early when the policy has moved this far.
        hidden: Width of the two layers.
        static_share: Probability of the static choice in each head at the start: how seldom others are tried.
        prices: Lowest and highest price of a network evaluation.
        budget_share: Share of the episodes that have a budget.
        likeness_weight: Of the discriminator's term in the reward.
        state_free: Hide all that depends on the sample, for a baseline that knows request, sigma and calls only.
        choices: How the router may be read.
        choosing_prices: Prices that a choice is made by.
        gate_prices: Prices at which it is compared with the static program, spread evenly in their logarithm.
        resamples: Of the requests, for an interval.
        steering_cost: What steering itself costs, as a share of the network evaluations; less gain is none.
        checkpoint_every: Updates between checkpoints.
        batch_requests: Requests that are under way at once on validation.
        seed: Root of all randomness.

    Raises:
        BadParams: If a value is out of its range.
    """

    decisions: int = 40_960
    slots: int = 128
    rollout: int = 16
    epochs: int = 6
    batch: int = 512
    lr: float = 3e-3
    gae_lambda: float = 0.95
    clip: float = 0.2
    entropy: float = 0.001
    target_kl: float = 0.03
    hidden: int = 64
    static_share: float = 0.85
    prices: tuple[float, float] = (0.003, 0.3)
    budget_share: float = 0.1
    likeness_weight: float = 0.05
    state_free: bool = False
    choices: tuple[Choice, ...] = (Choice(), Choice(confidence_floor=0.7), Choice(soft=True))
    choosing_prices: int = 3
    gate_prices: int = 8
    resamples: int = 2000
    steering_cost: float = 0.03
    checkpoint_every: int = 4
    batch_requests: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        counts = ("decisions", "slots", "rollout", "epochs", "batch", "hidden", "choosing_prices", "gate_prices")
        for name in (*counts, "resamples", "checkpoint_every", "batch_requests"):
            if getattr(self, name) < 1:
                raise BadParams(f"steering: {name} = {getattr(self, name)}, expected at least 1")
        if self.slots * self.rollout < 2 or not self.choices:
            raise BadParams("steering: expected at least two decisions per update, and one choice of the router")
        if not 0 < self.lr < 1 or not 0 < self.static_share < 1 or not 0 <= self.gae_lambda <= 1:
            raise BadParams(
                f"steering: lr = {self.lr}, static_share = {self.static_share}, gae_lambda = {self.gae_lambda}; "
                "expected a rate and a share between 0 and 1, and a factor from 0 to 1"
            )
        self.episodes()

    @property
    def per_update(self) -> int:
        """Decisions between two updates."""
        return self.slots * self.rollout

    @property
    def updates(self) -> int:
        """Rollouts, each with its update."""
        return -(-self.decisions // self.per_update)

    def episodes(self) -> Episodes:
        """How episodes are drawn and paid."""
        return Episodes(self.slots, self.prices, self.budget_share, self.likeness_weight, self.seed)

    def spread_prices(self, count: int) -> np.ndarray:
        """(count,) prices over the range, evenly in their logarithm."""
        return np.geomspace(*self.prices, count)


@dataclass(frozen=True)
class Steered:
    """A trained controller.

    Attributes:
        controller: With the prices of the gate in its configuration.
        curves: One row per update: ``update``, ``decisions``, ``episodes``, ``reward``, ``improvement`` (value over the
            static program's, as the exploring policy found it), ``quality``, ``nfe``, ``static_nfe``, ``not_static``
            (share of decisions), ``entropy``, ``kl``.
        gate: One row per price, see :func:`release_gate`.
        choices: One row per way to read the router: the choice, its ``improvement`` and whether it was ``chosen``.
    """

    controller: SteeringController
    curves: list[dict[str, Any]] = field(default_factory=list)
    gate: list[dict[str, Any]] = field(default_factory=list)
    choices: list[dict[str, Any]] = field(default_factory=list)


def train_controller(
    denoiser: Denoiser,
    book: ProgramBook,
    train: Requests,
    val: Requests,
    settings: SteeringTraining,
    checkpoints: Path,
    student: Student | None = None,
    *,
    embedding: Embedding | None = None,
) -> Steered:
    """Train, choose how the router is read, and pass the gate.

    Args:
        denoiser: The network.
        book: Programs; its scores chose the static program of each price, on requests that may be those of ``val``.
        train: Requests to learn on.
        val: Requests to choose and to compare on; every second one for each.
        settings: How to train.
        checkpoints: Folder of this training, outside DVC; one that was killed goes on from there, to the same weights.
            Removed at the end.
        student: Answers in one evaluation, where there is one.
        embedding: What the discriminator looks at; random features where left out.

    Returns:
        The controller, curves and tables.

    Raises:
        BadInput: If there are fewer than two validation requests.
        BadParams: If the training diverged.
    """
    if len(val) < 2:
        raise BadInput(f"steering: {len(val)} validation requests, expected at least 2; make a larger bank")
    looks_at = embedding if embedding is not None else usual_embedding(denoiser.shape, settings.seed)
    with _own_randomness(derive_seed(settings.seed, "steering")):
        learner = _Learner(denoiser, book, train, settings, checkpoints, student, looks_at)
        actor, curves = learner.run()
    even, odd = torch.arange(0, len(val), 2), torch.arange(1, len(val), 2)
    best, choices = _choose(denoiser, book, val.rows(even), actor, settings, student)
    gate = release_gate(
        denoiser,
        book,
        val.rows(odd),
        best,
        settings.spread_prices(settings.gate_prices).tolist(),
        student=student,
        slots=settings.batch_requests,
        resamples=settings.resamples,
        steering_cost=settings.steering_cost,
        seed=settings.seed,
    )
    controller = best.configured(static_prices=static_intervals(gate, settings.prices))
    shutil.rmtree(checkpoints, ignore_errors=True)
    return Steered(controller, curves, gate, choices)


class Standardised(BaseFeaturesExtractor):
    """Observations less their mean, in units of their spread, clipped; what has the scale 0 is not seen.

    Args:
        observation_space: (64,) numbers.
        mean: (64,).
        scale: (64,) one over the spread, or 0.
    """

    def __init__(self, observation_space: spaces.Box, mean: torch.Tensor, scale: torch.Tensor) -> None:
        super().__init__(observation_space, len(mean))
        self.register_buffer("mean", mean.clone())
        self.register_buffer("scale", scale.clone())

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """(N, 64) to (N, 64)."""
        return ((observations - self.mean) * self.scale).clamp(-LIMIT, LIMIT)


class _Learner:
    """PPO on the environment, one rollout and update at a time; what a checkpoint holds is in here."""

    def __init__(
        self,
        denoiser: Denoiser,
        book: ProgramBook,
        requests: Requests,
        settings: SteeringTraining,
        folder: Path,
        student: Student | None,
        embedding: Embedding,
    ) -> None:
        self.settings, self.folder = settings, folder
        self.identity = _identity(settings, book, requests, student)
        self.env = SteeringEnv(denoiser, book, requests, settings.episodes(), student=student, embedding=embedding)
        self.normalised = VecNormalize(self.env, norm_obs=False, norm_reward=True, gamma=1.0)
        mean, scale = torch.zeros(len(FEATURES)), torch.ones(len(FEATURES))
        saved = self._saved()
        if saved is None:
            mean, scale = self._warm_up()
        self.ppo = PPO(
            "MlpPolicy",
            self.normalised,
            learning_rate=settings.lr,
            n_steps=settings.rollout,
            batch_size=min(settings.batch, settings.per_update),
            n_epochs=settings.epochs,
            gamma=1.0,
            gae_lambda=settings.gae_lambda,
            clip_range=settings.clip,
            ent_coef=settings.entropy,
            target_kl=settings.target_kl,
            policy_kwargs={
                "net_arch": {"pi": [settings.hidden] * 2, "vf": [settings.hidden] * 2},
                "activation_fn": torch.nn.Tanh,
                "features_extractor_class": Standardised,
                "features_extractor_kwargs": {"mean": mean, "scale": scale},
            },
            device="cpu",
        )
        self.ppo.set_logger(Logger(folder=None, output_formats=[]))
        with torch.no_grad():
            self.ppo.policy.action_net.bias.copy_(torch.cat(static_bias(settings.static_share)))
        self.update, self.curves = 0, list[dict[str, Any]]()
        if saved is not None:
            self._restore(*saved)

    def run(self) -> tuple[SteeringController, list[dict[str, Any]]]:
        """Train to the end."""
        settings = self.settings
        with Progress("steering", total=settings.updates * settings.per_update, unit="decisions") as progress:
            if self.update:
                progress.message(f"goes on after update {self.update}")
                progress.advance(self.update * settings.per_update)
            while self.update < settings.updates:
                row = self._iterate()
                if self.update % settings.checkpoint_every == 0 or self.update == settings.updates:
                    self._save()
                    self._begin_again()
                shown = {} if math.isnan(row["improvement"]) else {"improvement": row["improvement"]}
                progress.advance(settings.per_update, **shown, not_static=row["not_static"])
        config = {"static_share": settings.static_share, "price_range": list(settings.prices), "seed": settings.seed}
        return SteeringController.from_policy(self.ppo.policy, **config), self.curves

    def _iterate(self) -> dict[str, Any]:
        self.ppo.learn(self.settings.per_update, reset_num_timesteps=False, log_interval=None)
        self.update += 1
        told = self.ppo.logger.name_to_value
        ended = self.env.take()
        row: dict[str, Any] = {
            "update": self.update,
            "decisions": self.update * self.settings.per_update,
            **asdict(ended),
            "entropy": -float(told["train/entropy_loss"]),
            "kl": float(told["train/approx_kl"]),
        }
        if not all(bool(weights.isfinite().all()) for weights in self.ppo.policy.parameters()):
            raise BadParams(
                f"steering: the training diverged at update {self.update}; expected a lower lr than "
                f"{self.settings.lr:g}"
            )
        self.curves.append(row)
        self.env.discriminator.refresh()
        return row

    def _warm_up(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and scale of the observations on the way of the static programs, and a little beside it."""
        settings, rng = self.settings, numpy_generator(self.settings.seed, "steering", "warm up")
        seen = [self.env.reset()]
        for _ in range(_WARM_UP_STEPS):
            other = rng.random((settings.slots, len(ACTIONS))) > settings.static_share
            actions = np.where(other, rng.integers(ACTIONS, size=other.shape), STATIC)
            seen.append(self.env.step(actions)[0])
        self.env.take()
        self.env.discriminator.refresh()
        observations = torch.from_numpy(np.concatenate(seen))
        spread = observations.std(dim=0)
        # What never moves is hidden: it would be far out the first time that it does.
        scale = torch.where(spread > 0, 1 / spread.clamp_min(_LEAST_SPREAD), 0.0)
        if settings.state_free:
            scale[list(SAMPLE_FEATURES)] = 0
        return observations.mean(dim=0), scale

    def _save(self) -> None:
        env, randomness = self.env.state(), _random_state()
        moments = {
            f"{number}/{key}": torch.as_tensor(value)
            for number, row in self.ppo.policy.optimizer.state_dict()["state"].items()
            for key, value in row.items()
        }
        tensors = {
            **_named("policy", self.ppo.policy.state_dict()),
            **_named("moments", moments),
            **_named("env", env.tensors),
            **_named("random", randomness.tensors),
        }
        spread = self.normalised.ret_rms
        facts = {
            "identity": self.identity,
            "update": self.update,
            "curves": [{key: None if value != value else value for key, value in row.items()} for row in self.curves],  # noqa: PLR0124
            "env": env.facts,
            "random": randomness.facts,
            "returns": [float(spread.mean), float(spread.var), float(spread.count)],
            "n_updates": self.ppo._n_updates,  # noqa: SLF001
        }
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with fresh_folder(self.folder) as fresh:
            save_weights(fresh, tensors, facts)

    def _saved(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
        """The checkpoint; one that is missing, damaged or of another training counts as none."""
        try:
            tensors, facts = load_weights(self.folder)
        except (MissingArtifact, CorruptArtifact):
            return None
        return (tensors, facts) if facts.get("identity") == self.identity else None

    def _restore(self, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any]) -> None:
        self.ppo.policy.load_state_dict(_picked("policy", tensors))
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in _picked("moments", tensors).items():
            number, key = name.split("/")
            moments.setdefault(int(number), {})[key] = tensor.clone()
        optimizer = self.ppo.policy.optimizer
        optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
        self.env.restore(State(_picked("env", tensors), facts["env"]))
        self.normalised.ret_rms.mean, self.normalised.ret_rms.var, self.normalised.ret_rms.count = facts["returns"]
        self.ppo._n_updates = facts["n_updates"]  # noqa: SLF001
        self.update, self.ppo.num_timesteps = facts["update"], facts["update"] * self.settings.per_update
        self.curves = [
            {key: math.nan if value is None else value for key, value in row.items()} for row in facts["curves"]
        ]
        # Last of all: building an algorithm draws random numbers.
        _restore_random_state(State(_picked("random", tensors), facts["random"]))
        self._begin_again()

    def _begin_again(self) -> None:
        """Fresh requests in all slots: a checkpoint holds none that are under way."""
        # stable-baselines3 keeps what it saw last between two rollouts to itself.
        self.ppo._last_obs = self.normalised.reset()  # noqa: SLF001
        self.ppo._last_episode_starts = np.ones(self.settings.slots, dtype=bool)  # noqa: SLF001


def release_gate(
    denoiser: Denoiser,
    book: ProgramBook,
    bank: Requests,
    policy: Policy,
    prices: Sequence[float],
    *,
    student: Student | None = None,
    slots: int = 256,
    resamples: int = 2000,
    steering_cost: float = 0.0,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Compare a policy with the static program of each request, price by price, on the same noises.

    It is released at a price only where the 95 % interval of the mean difference of values, by resampling requests,
    lies above what steering itself costs; value is ``-phi(e) - price NFE``.

    Args:
        denoiser: The network.
        book: Programs.
        bank: Requests that nothing was chosen by.
        policy: Who decides.
        prices: To compare at.
        student: Answers in one evaluation, where there is one.
        slots: Requests under way at once.
        resamples: Of the requests.
        steering_cost: What steering itself costs, as a share of the network evaluations.
        seed: Of the resampling.

    Returns:
        One row per price: ``price``, ``requests``, ``improvement`` (mean difference of values), ``low`` and ``high`` of
        its interval, ``error`` and ``static_error`` (mean saturating errors), ``nfe`` and ``static_nfe``,
        ``not_static`` (share of decisions with another action; gates do not count), ``failed`` (share of requests),
        ``ships``: ``controller`` or ``static``.
    """
    static = StaticAnswers(denoiser, book, bank, batch=slots)
    rng = numpy_generator(seed, "steering", "gate")
    draws = rng.integers(len(bank), size=(resamples, len(bank)))
    rows = []
    with Progress("steering, gate", total=len(prices), unit="prices") as progress:
        for price in prices:
            row, improvement = _compared(denoiser, book, bank, policy, float(price), static, student, slots)
            low, high = np.quantile(improvement[draws].mean(axis=1), (0.025, 0.975)).tolist()
            worth = max(_NOTHING, steering_cost * price * row["static_nfe"])
            ships = "controller" if low > worth else "static"
            rows.append({**row, "low": low, "high": high, "ships": ships})
            progress.advance(1)
    return rows


def _compared(
    denoiser: Denoiser,
    book: ProgramBook,
    bank: Requests,
    policy: Policy,
    price: float,
    static: StaticAnswers,
    student: Student | None,
    slots: int,
) -> tuple[dict[str, Any], np.ndarray]:
    """Means of policy and static program at one price, and (N,) differences of values."""
    scales = bank.scales.tolist()
    entries = [book.for_price(price, scale) for scale in scales]
    rolled = roll(denoiser, book, bank, policy, price, student=student, slots=slots, entries=entries)
    errors = static.errors(np.arange(len(bank)), np.array([static.place(entry) for entry in entries]))
    nfe = np.array([entry.nfe(scale) for entry, scale in zip(entries, scales, strict=True)])
    reward = reward_of(rolled.errors, rolled.nfe, errors, nfe, rolled.prices, book.tau)
    row = {
        "price": price,
        "requests": len(bank),
        "improvement": float(reward.improvement.mean()),
        "error": float(saturated(rolled.errors, book.tau).mean()),
        "static_error": float(saturated(errors, book.tau).mean()),
        "nfe": float(rolled.nfe.mean()),
        "static_nfe": float(nfe.mean()),
        "not_static": rolled.not_static,
        "failed": float((rolled.failed >= 0).mean()),
    }
    return row, reward.improvement


def _choose(
    denoiser: Denoiser,
    book: ProgramBook,
    bank: Requests,
    actor: SteeringController,
    settings: SteeringTraining,
    student: Student | None,
) -> tuple[SteeringController, list[dict[str, Any]]]:
    """The way to read the router that is worth most, the first one of equals; and a row for each."""
    static = StaticAnswers(denoiser, book, bank, batch=settings.batch_requests)
    prices = settings.spread_prices(settings.choosing_prices)
    read, rows = [], []
    for choice in settings.choices:
        read.append(actor.configured(**asdict(choice)))
        worth = [
            _compared(denoiser, book, bank, read[-1], float(price), static, student, settings.batch_requests)[0]
            for price in prices
        ]
        improvement = float(np.mean([row["improvement"] for row in worth]))
        rows.append({**asdict(choice), "improvement": improvement, "chosen": False})
    # What differs by rounding only is equal.
    best = int(np.argmax(np.round([row["improvement"] for row in rows], 6)))
    rows[best]["chosen"] = True
    return read[best], rows


def static_intervals(gate: Sequence[Mapping[str, Any]], prices: tuple[float, float]) -> list[list[float]]:
    """Prices at which the static program ships: each tested one speaks for those that are nearer to it than to others.

    Args:
        gate: Rows of :func:`release_gate`, prices increasing.
        prices: Lowest and highest price of the range.

    Returns:
        Pairs of a lowest and a highest price, increasing, neighbours joined.
    """
    tested = [float(row["price"]) for row in gate]
    edges = [prices[0], *(math.sqrt(a * b) for a, b in pairwise(tested)), prices[1]]
    found: list[list[float]] = []
    for row, (low, high) in zip(gate, pairwise(edges), strict=True):
        if row["ships"] == "controller":
            continue
        if found and found[-1][1] == low:
            found[-1][1] = high
        else:
            found.append([low, high])
    return found


def _identity(settings: SteeringTraining, book: ProgramBook, requests: Requests, student: Student | None) -> str:
    """What a checkpoint must agree in to be taken up."""
    programs = [entry.to_dict() for entry in book.family(book.shipped)]
    known = [asdict(settings), programs, book.tau, student is not None, list(FEATURES), list(ACTIONS)]
    digest = hashlib.sha256(json.dumps(known, sort_keys=True).encode())
    for tensor in (requests.endpoints, requests.scales, requests.labels):
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def _own_randomness(seed: int) -> Iterator[None]:
    """Let torch and numpy, whose global numbers stable-baselines3 draws, begin with a seed; then as they were."""
    before = np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(before)  # noqa: NPY002


def _random_state() -> State:
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002
    tensors = {"torch": torch.get_rng_state(), "numpy": torch.from_numpy(np.asarray(keys).astype(np.int64))}
    return State(tensors, {"numpy": [str(name), int(position), int(has_gauss), float(cached)]})


def _restore_random_state(state: State) -> None:
    torch.set_rng_state(state.tensors["torch"])
    name, position, has_gauss, cached = state.facts["numpy"]
    keys = state.tensors["numpy"].numpy().astype(np.uint32)
    np.random.set_state((name, keys, position, has_gauss, cached))  # noqa: NPY002


def _named(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def _picked(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(f"{prefix}/"): t for name, t in tensors.items() if name.startswith(f"{prefix}/")}
