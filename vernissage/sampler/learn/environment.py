"""The decision process as stable-baselines3 wants it: N slots, one batched network call for each step of all of them.

A slot that is done takes the next request at once, so the batch stays full. An episode is one request; it ends when its
answer is there. A used-up budget is such an end, too: the answer is given, nothing is left to come, and so no value may
be bootstrapped onto it as onto an episode that was cut off (no ``TimeLimit.truncated``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.vec_env import VecEnv

from vernissage.core.errors import BadParams
from vernissage.core.seeds import numpy_generator
from vernissage.sampler.learn.experts import ACTIONS, EXPERTS, STATIC
from vernissage.sampler.learn.features import FEATURES
from vernissage.sampler.learn.rewards import Discriminator, StaticAnswers, errors_to, features_of, reward_of
from vernissage.sampler.learn.slots import Slots

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn

    from vernissage.sampler.domain.denoiser import Denoiser
    from vernissage.sampler.learn.book import Entry, ProgramBook
    from vernissage.sampler.learn.classifiers import Embedding
    from vernissage.sampler.learn.rewards import Requests
    from vernissage.sampler.learn.slots import Outcome, Student

# Requests that are drawn at a time, at least: their static programs share batches.
_DECK = 256


@dataclass(frozen=True)
class State:
    """Tensors by name, and everything else as JSON values."""

    tensors: dict[str, torch.Tensor]
    facts: dict[str, Any]


@dataclass(frozen=True)
class Episodes:
    """How episodes are drawn and paid.

    Attributes:
        slots: Requests under way at once, N.
        prices: Lowest and highest price of a network evaluation; each episode draws one between them, evenly in its
            logarithm.
        budget_share: Share of the episodes that have a budget. It is drawn between the evaluations of the cheapest and
            the dearest program for the request; the static program is then the best one that it pays for.
        likeness_weight: Of the discriminator's term in the reward; 0 leaves it out.
        seed: Of all that is drawn.

    Raises:
        BadParams: If a value is out of its range.
    """

    slots: int = 256
    prices: tuple[float, float] = (0.002, 0.1)
    budget_share: float = 0.1
    likeness_weight: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        low, high = self.prices
        if self.slots < 1 or not 0 < low <= high < math.inf or not 0 <= self.budget_share <= 1:
            raise BadParams(
                f"episodes: {self.slots} slots, prices {low} to {high}, {self.budget_share} with a budget; expected at "
                "least one slot, prices above 0 from low to high, and a share from 0 to 1"
            )


@dataclass(frozen=True)
class Finished:
    """Means over the episodes that ended since the last look.

    Attributes:
        episodes: How many.
        reward: What was learned from, per episode.
        improvement: Value of the answers less that of the static programs' ones.
        quality: Its part from the error.
        nfe: Network evaluations.
        static_nfe: Those of the static programs.
        failed: Share whose network gave something that is not finite.
        not_static: Share of all decisions since then that were not STATIC.
    """

    episodes: int
    reward: float
    improvement: float
    quality: float
    nfe: float
    static_nfe: float
    failed: float
    not_static: float


@dataclass
class _Deck:
    """Requests that come next, and how far it is dealt."""

    rows: np.ndarray
    places: np.ndarray
    prices: np.ndarray
    budgets: np.ndarray
    dealt: int = 0


class SteeringEnv(VecEnv):
    """Requests of a bank, answered by whoever acts, compared with what their static programs answer.

    Infos of slots that are done carry ``terminal_observation`` (that of the last decision: after it there is nothing to
    see), ``nfe``, ``error``, ``static_nfe``, ``static_error``, ``price``, ``reward``, ``improvement``, ``reason``,
    ``request`` (row of the bank), ``failed`` and ``experts`` (decisions of each of ``EXPERTS``).

    Args:
        denoiser: The network.
        book: Programs to follow or to leave.
        requests: A bank; it says on which device all happens.
        episodes: How episodes are drawn and paid.
        student: Answers in one evaluation, where there is one.
        embedding: What the discriminator looks at; needed where its term has a weight.
        static: Answers of the static programs to this bank, where they are there already.

    Attributes:
        discriminator: Refresh it between updates of the policy.

    Raises:
        BadParams: If the discriminator has a weight and nothing to look at.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        book: ProgramBook,
        requests: Requests,
        episodes: Episodes,
        *,
        student: Student | None = None,
        embedding: Embedding | None = None,
        static: StaticAnswers | None = None,
    ) -> None:
        if episodes.likeness_weight and embedding is None:
            raise BadParams("episodes: the discriminator has a weight, but no embedding to look at; give one")
        self.episodes, self.book, self.requests = episodes, book, requests
        self.discriminator = Discriminator(episodes.likeness_weight)
        self._embedding = embedding if episodes.likeness_weight else None
        self.static = StaticAnswers(denoiser, book, requests, self._embedding) if static is None else static
        self._labels, self._scales = requests.labels, requests.scales.cpu().numpy().astype(np.float64)
        self._rng = numpy_generator(episodes.seed, "steering", "episodes")
        self._denoiser, self._student = denoiser, student
        self.slots = self._empty_slots()
        self.render_mode = None
        super().__init__(
            episodes.slots,
            gym.spaces.Box(-np.inf, np.inf, (len(FEATURES),), np.float32),
            gym.spaces.MultiDiscrete(ACTIONS),
        )
        self._actions: np.ndarray | None = None
        self._observation: np.ndarray | None = None
        nothing = np.zeros(0, np.int64)
        self._deck = _Deck(nothing, nothing, np.zeros(0), np.zeros(0))
        # Of the request in each slot.
        self._rows = np.zeros(episodes.slots, np.int64)
        self._places = np.zeros(episodes.slots, np.int64)
        self._prices = np.zeros(episodes.slots)
        self._used = np.zeros((episodes.slots, len(EXPERTS)), np.int64)
        self._ended: list[tuple[float, ...]] = []
        self._decisions = self._not_static = 0

    def reset(self) -> VecEnvObs:
        """Begin a new request in every slot; what was under way is dropped, nothing else depends on it."""
        self.slots = self._empty_slots()
        self._begin(np.arange(self.num_envs))
        self._observation = self.slots.observe().copy()
        return self._observation.copy()

    def step_async(self, actions: np.ndarray) -> None:
        """Remember the actions, (N, 4)."""
        self._actions = np.asarray(actions, dtype=np.int64)

    def step_wait(self) -> VecEnvStepReturn:
        """Let every slot act: one batched network call.

        Returns:
            Observations (N, 64), rewards (N,), dones (N,) and an info for each slot.

        Raises:
            RuntimeError: If it is not after :meth:`reset` and :meth:`step_async`.
        """
        actions, before = self._actions, self._observation
        if actions is None or before is None:
            raise RuntimeError("step_wait: call reset and step_async before it")
        self._actions = None
        outcome = self.slots.act(actions)
        self._decisions += len(actions)
        self._not_static += int((actions != STATIC).any(axis=1).sum())
        self._used[np.arange(self.num_envs), outcome.used] += 1
        done = outcome.done
        rewards, infos = np.zeros(self.num_envs, np.float32), [dict[str, Any]() for _ in range(self.num_envs)]
        if done.any():
            slots = np.flatnonzero(done)
            self._pay(slots, outcome, before, rewards, infos)
            self._begin(slots)
        self._observation = self.slots.observe().copy()
        return self._observation.copy(), rewards, done, infos

    def take(self) -> Finished:
        """Sum up the episodes that ended since the last call; nan where there is none."""
        ended = np.array(self._ended, dtype=np.float64).reshape(-1, 6)
        means = ended.mean(axis=0) if len(ended) else np.full(6, math.nan)
        reward, improvement, quality, nfe, static_nfe, failed = means.tolist()
        not_static = self._not_static / max(1, self._decisions)
        found = Finished(len(ended), reward, improvement, quality, nfe, static_nfe, failed, not_static)
        self._ended.clear()
        self._decisions = self._not_static = 0
        return found

    def state(self) -> State:
        """All that a :meth:`reset` and what follows depend on, for a checkpoint; requests under way are not part of it.

        So whoever wants to go on exactly where a checkpoint was written resets after writing as well as after reading.
        """
        deck = self._deck
        tensors = {
            "deck/rows": torch.from_numpy(deck.rows.copy()),
            "deck/places": torch.from_numpy(deck.places.copy()),
            "deck/prices": torch.from_numpy(deck.prices.copy()),
            "deck/budgets": torch.from_numpy(deck.budgets.copy()),
            **{f"static/{name}": tensor for name, tensor in self.static.state().items()},
            **{f"discriminator/{name}": tensor for name, tensor in self.discriminator.state().items()},
        }
        return State(tensors, {"dealt": deck.dealt, "random": self._rng.bit_generator.state})

    def restore(self, state: State) -> None:
        """Put back what :meth:`state` returned; call :meth:`reset` next."""
        parts = dict[str, dict[str, torch.Tensor]]()
        for name, tensor in state.tensors.items():
            part, _, rest = name.partition("/")
            parts.setdefault(part, {})[rest] = tensor
        deck = {name: tensor.numpy().copy() for name, tensor in parts["deck"].items()}
        self._deck = _Deck(**deck, dealt=int(state.facts["dealt"]))
        self._rng.bit_generator.state = state.facts["random"]
        self.static.restore(parts["static"])
        self.discriminator.restore(parts["discriminator"])
        self._observation = None
        self.take()

    def close(self) -> None:
        """Nothing is held open."""

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Read an attribute of the one environment behind all slots."""
        return [getattr(self, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Refused: slots share one environment.

        Raises:
            ValueError: Always.
        """
        raise ValueError(f"set_attr({attr_name!r}) to {value!r} at {indices}: the slots share one environment")

    def env_method(self, method_name: str, *args: Any, indices: VecEnvIndices = None, **kwargs: Any) -> list[Any]:
        """Call a method of the one environment behind all slots, once."""
        result = getattr(self, method_name)(*args, **kwargs)
        return [result] * len(list(self._get_indices(indices)))

    def env_is_wrapped(self, wrapper_class: type, indices: VecEnvIndices = None) -> list[bool]:
        """No wrapper is ever within, whatever its class."""
        del wrapper_class
        return [False] * len(list(self._get_indices(indices)))

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Draw from here on as an environment with this seed does; nothing changes without one."""
        if seed is not None:
            self._rng = numpy_generator(seed, "steering", "episodes")
            self._deck.dealt = len(self._deck.rows)
        return [seed] * self.num_envs

    def _begin(self, slots: np.ndarray) -> None:
        """Put the next requests of the deck into some slots."""
        rows, places, prices, budgets = self._deal(len(slots))
        entries = [self.static.entries[place] for place in places.tolist()]
        index = torch.from_numpy(rows).to(self._labels.device)
        condition = None if self.static.condition is None else self.static.condition.rows(index)
        self.slots.fill(
            torch.from_numpy(slots),
            self.static.noise[index],
            condition,
            self._labels[index],
            self.requests.scales[index],
            torch.from_numpy(prices),
            torch.from_numpy(budgets),
            entries,
        )
        self._rows[slots], self._places[slots], self._prices[slots] = rows, places, prices
        self._used[slots] = 0

    def _deal(self, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        dealt: list[_Deck] = []
        while count:
            if self._deck.dealt == len(self._deck.rows):
                self._deck = self._draw()
            deck, first = self._deck, self._deck.dealt
            deck.dealt = min(len(deck.rows), first + count)
            count -= deck.dealt - first
            part = slice(first, deck.dealt)
            dealt.append(_Deck(deck.rows[part], deck.places[part], deck.prices[part], deck.budgets[part]))
        rows, places, prices, budgets = (
            np.concatenate([getattr(deck, name) for deck in dealt]) for name in ("rows", "places", "prices", "budgets")
        )
        return rows, places, prices, budgets

    def _draw(self) -> _Deck:
        """Draw requests, and let their static programs answer those that are new, all in few batches."""
        count = max(self.num_envs, _DECK)
        rows = self._rng.integers(len(self.requests), size=count)
        chance = self._rng.random((count, 3))
        low, high = np.log(self.episodes.prices)
        prices = np.exp(low + chance[:, 0] * (high - low))
        limited = chance[:, 1] < self.episodes.budget_share
        places, budgets = np.empty(count, np.int64), np.full(count, np.inf)
        for card in range(count):
            scale, price = float(self._scales[rows[card]]), float(prices[card])
            entry = self.book.for_price(price, scale)
            if limited[card]:
                entry, budgets[card] = self._within_budget(price, scale, chance[card, 2])
            places[card] = self.static.place(entry)
        self.static.errors(rows, places)
        return _Deck(rows, places, prices, budgets)

    def _within_budget(self, price: float, scale: float, chance: float) -> tuple[Entry, int]:
        """A budget, and the best program that it pays for."""
        known = self.book.of_scale(scale)
        costs = [entry.nfe(scale) for entry in known]
        budget = min(costs) + int(chance * (max(costs) - min(costs) + 1))
        paid = [entry for entry, cost in zip(known, costs, strict=True) if cost <= budget]
        return min(paid, key=lambda entry: entry.score.saturated + price * entry.nfe(scale)), budget

    def _pay(
        self,
        slots: np.ndarray,
        outcome: Outcome,
        before: np.ndarray,
        rewards: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        """Write rewards and infos of the slots that are done."""
        rows, places, prices = self._rows[slots], self._places[slots], self._prices[slots]
        index = torch.from_numpy(slots).to(outcome.samples.device)
        samples = outcome.samples[index]
        errors = errors_to(samples, self.requests.endpoints[torch.from_numpy(rows).to(index.device)])
        nfe = outcome.evaluations[slots]
        failed = outcome.failed[slots]
        static_errors = self.static.errors(rows, places)
        scales = self._scales[rows]
        pairs = zip(places.tolist(), scales.tolist(), strict=True)
        static_nfe = np.array([self.static.entries[place].nfe(scale) for place, scale in pairs])
        likeness = None
        if self._embedding is not None:
            ours = features_of(self._embedding, samples)
            likeness = self.discriminator.term(ours, self.static.features(rows, places))
            self.discriminator.remember(ours, self.static.endpoint_features(rows))
        reward = reward_of(errors, nfe, static_errors, static_nfe, prices, self.book.tau, likeness)
        rewards[slots] = reward.total
        for number, slot in enumerate(slots.tolist()):
            infos[slot] = {
                "terminal_observation": before[slot].copy(),
                "nfe": int(nfe[number]),
                "error": float(errors[number]),
                "static_nfe": int(static_nfe[number]),
                "static_error": float(static_errors[number]),
                "price": float(prices[number]),
                "reward": float(reward.total[number]),
                "improvement": float(reward.improvement[number]),
                "reason": outcome.reasons[slot],
                "request": int(rows[number]),
                "failed": int(failed[number]),
                "experts": self._used[slot].tolist(),
            }
        columns = (reward.total, reward.improvement, reward.quality, nfe, static_nfe, failed >= 0)
        self._ended += [tuple(map(float, row)) for row in zip(*columns, strict=True)]

    def _empty_slots(self) -> Slots:
        device = self.requests.endpoints.device
        return Slots(self._denoiser, self.book, self.episodes.slots, student=self._student, device=device)
