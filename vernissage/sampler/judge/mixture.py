"""Whether the mixture of experts is real: each expert alone and taken away, routers that know less, and who acts where.

All answer the same requests at the same prices, so that only differences remain, and requests are what is resampled.
The questions are answered in words: does anything adapt to the sample, does the mixture beat its best expert, does it
beat the static program, which experts are useless? An interval that contains 0 is never called a gain.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from vernissage.core.errors import BadInput, BadParams
from vernissage.core.progress import Progress
from vernissage.core.seeds import derive_seed, numpy_generator
from vernissage.sampler.learn.expert_statistics import ExpertStatistics
from vernissage.sampler.learn.experts import ACTIONS, EXPERTS, SPEED, STATIC
from vernissage.sampler.learn.features import SAMPLE_FEATURES, STATE_FREE
from vernissage.sampler.learn.policies import EmbeddedError, Fixed, Shuffled, StateFree, Static, mean_features, roll
from vernissage.sampler.learn.rewards import saturated

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vernissage.sampler.domain.denoiser import Denoiser
    from vernissage.sampler.learn.book import ProgramBook
    from vernissage.sampler.learn.controller import SteeringController
    from vernissage.sampler.learn.policies import Decision, Policy, Rolled
    from vernissage.sampler.learn.rewards import Requests
    from vernissage.sampler.learn.slots import Student

#: Rows beside one for each expert alone, in the order of the tables.
STATIC_ARM, CONTROLLER = "static", "controller"
BEST_SINGLE, ORACLE = "best single expert", "hindsight oracle"
RANDOM, SHUFFLED, STATE_FREE_ARM, EMBEDDED = "random router", "state shuffled", "state-free", "embedded error"

#: What routing may follow.
KNOWN = ("noise level", "price", "class", "guidance scale")
#: The part of the sample's own state that noise level, request and calls so far do not tell.
SAMPLE = "sample"
OPENING = "opening"

#: What a knock-out says of an expert: its loss costs, its loss is a gain, no cost can be shown, or it never acted.
NEEDED, HARMFUL, USELESS, NEVER_USED = "needed", "harmful", "useless", "never used"
#: What it says where nothing was knocked out: the controller has no say at any of the prices; there is no student, so
#: that the static program acts in the place of `SpeedDemon`.
NOT_ASKED, ABSENT = "not asked", "absent"

_LOW, _HIGH = 0.025, 0.975
_LEAST_REQUESTS = 20
_LEAST_PERMUTATIONS = 19
# Cells of a table of decisions should not be much emptier than this.
_LEAST_LEAF = 12
_LEAVES_OF_PLACES, _LEAVES_OF_SAMPLES = 48, 8
# Of requests, for a jackknife.
_GROUPS = 20
# What chance gives as seldom as this is no chance.
_RARE = 0.05
# A difference of values below this is rounding: the same answer in another batch.
_NOTHING = 1e-5
# Part of an action that names the expert.
_ROUTER = 1


@dataclass(frozen=True)
class MixtureSettings:
    """How thoroughly the mixture is examined; the defaults are some 15,000 requests in all.

    Attributes:
        requests: Requests of the bank, the first ones.
        slots: Of them under way at once.
        sigma_bins: Bins of the noise level, evenly in its logarithm.
        resamples: Of the requests, behind each interval.
        permutations: Behind each baseline of a mutual information.
        seed: Of all that is drawn.

    Raises:
        BadParams: If a value is out of its range.
    """

    requests: int = 256
    slots: int = 256
    sigma_bins: int = 8
    resamples: int = 2000
    permutations: int = 99
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"requests": _LEAST_REQUESTS, "slots": 1, "sigma_bins": 2, "resamples": 100}
        for name, low in {**least, "permutations": _LEAST_PERMUTATIONS}.items():
            if getattr(self, name) < low:
                raise BadParams(f"mixture: {name} = {getattr(self, name)}, expected at least {low}")


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval.

    Attributes:
        mean: Over all requests.
        low: Lower end.
        high: Upper end.
    """

    mean: float
    low: float
    high: float

    @property
    def sign(self) -> int:
        """1 or -1 where the whole interval is on one side of 0, else 0."""
        return int(self.low > _NOTHING) - int(self.high < -_NOTHING)

    def __str__(self) -> str:
        """For example ``+0.0123 [+0.0051, +0.0196]``."""
        return f"{self.mean:+.4f} [{self.low:+.4f}, {self.high:+.4f}]"


@dataclass(frozen=True)
class Information:
    """How much two things tell of each other, in bits.

    Attributes:
        plain: Mutual information of the counts, which is never below 0 and too large by chance.
        baseline: Its mean where one of the two is dealt out at random: what chance alone gives.
        bits: The first less the second; may be a little below 0.
        low: Lower end of its 95 % interval.
        high: Upper end.
        chance: Share of the random deals that gave as much or more (with the real one counted, Phipson and Smyth 2010).
    """

    plain: float
    baseline: float
    bits: float
    low: float
    high: float
    chance: float


@dataclass(frozen=True, eq=False)
class MixtureReport:
    """What was found.

    Attributes:
        arms: One row per arm: ``arm``, ``nfe`` (mean), ``error`` (mean root mean square error to the teacher's endpoint
            of answers that are finite) and ``median``, ``saturated`` (mean ``phi(e)``), ``failed`` (requests whose
            network gave something that is not finite, over all prices), ``value`` (mean), ``difference`` (paired, of
            values to those of the static program) with ``low`` and ``high``, all of them means over the prices; and
            ``value at P`` for each price P.
        by_price: The same for each arm at each ``price``, in its own rows.
        knock_outs: One row per expert: ``share`` of the controller's decisions that it made, ``cost`` (value that is
            lost without it, over the prices) with ``low`` and ``high``, ``cost at P`` for each price, ``nfe`` (mean
            change) and ``verdict``: one of ``NEEDED``, ``HARMFUL``, ``USELESS``, ``NEVER_USED``, ``NOT_ASKED`` and
            ``ABSENT``. Only prices at which the controller has a say count. Each interval is for itself: of eight
            experts that do nothing, one in three tables has one that seems to cost or to gain.
        usage: Shares of the experts in the controller's decisions: tables ``sigma`` (bins from ``low`` to ``high``,
            only decisions after the first call), ``opening`` (those before it), ``class``, ``price`` and ``scale``; all
            with ``decisions`` and a column for each of ``EXPERTS``.
        information: One row per pair of ``routing`` (the ``expert``, or the whole ``action``) and ``of`` (``KNOWN`` or
            ``SAMPLE``), with the fields of :class:`Information`.
        statistics: Record of the experts under the controller.
        verdicts: A sentence for each question.
        useless: Experts that nothing is lost without.
        facts: Everything as plain values for JSON.
    """

    arms: pd.DataFrame
    by_price: pd.DataFrame
    knock_outs: pd.DataFrame
    usage: dict[str, pd.DataFrame]
    information: pd.DataFrame
    statistics: ExpertStatistics
    verdicts: dict[str, str]
    useless: tuple[str, ...]
    facts: dict[str, Any] = field(default_factory=dict)


# --- intervals and information ----------------------------------------------------------------------------------------


def paired_interval(differences: np.ndarray, *, seed: int, resamples: int = 2000) -> Interval:
    """Mean of paired differences with the percentile bootstrap interval (Efron and Tibshirani 1993, section 13.3).

    Args:
        differences: (N,) one for each request.
        seed: Draws the resamplings; the same requests are drawn for all differences of one seed and length.
        resamples: How many.

    Raises:
        BadInput: If there are none, or one is not finite.
    """
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise BadInput(f"interval: differences of shape {values.shape}, expected finite numbers, one for each request")
    picked = numpy_generator(seed, "paired interval").integers(len(values), size=(resamples, len(values)))
    low, high = np.quantile(values[picked].mean(axis=1), (_LOW, _HIGH))
    return Interval(float(values.mean()), float(low), float(high))


def entropy(shares: np.ndarray) -> np.ndarray:
    """Entropy of (..., K) shares that sum to 1, in bits, (...)."""
    shares = np.asarray(shares, dtype=np.float64)
    logs = np.log2(shares, out=np.zeros_like(shares), where=shares > 0)
    return np.asarray(-(shares * logs).sum(axis=-1))


def mutual_information(first: np.ndarray, second: np.ndarray, within: np.ndarray | None = None) -> float:
    """Mutual information of the counts of two codes, in bits; within the values of a third one, their weighted mean.

    Args:
        first: (M,) int.
        second: (M,) int.
        within: (M,) int; what is asked is what both tell of each other once this is known (Cover and Thomas 2006,
            equation 2.61).
    """
    if not len(first):
        return 0.0
    a, b = (np.unique(code, return_inverse=True)[1] for code in (first, second))
    s = np.zeros_like(a) if within is None else np.unique(within, return_inverse=True)[1]
    wide_a, wide_b = int(a.max()) + 1, int(b.max()) + 1
    cells = (s * wide_a + a) * wide_b + b
    counts = np.bincount(cells, minlength=(int(s.max()) + 1) * wide_a * wide_b).reshape(-1, wide_a, wide_b)
    both = counts / len(a)
    expected = both.sum(axis=2, keepdims=True) * both.sum(axis=1, keepdims=True)
    whole = both.sum(axis=(1, 2), keepdims=True)
    there = both > 0
    ratio = np.divide(both * whole, expected, out=np.ones_like(both), where=there)
    return float((both * np.log2(ratio, out=np.zeros_like(both), where=there)).sum())


def information(
    routing: np.ndarray,
    state: np.ndarray,
    requests: np.ndarray,
    *,
    seed: int,
    within: np.ndarray | None = None,
    parts: np.ndarray | None = None,
    permutations: int = 99,
) -> Information:
    """What routing and state tell of each other, beyond what chance gives, with an interval.

    The counts alone give too much: about (A - 1)(B - 1) / (2 M ln 2) bits (Miller 1955). So what random deals give is
    subtracted. Given `within`, states are dealt out inside its values; else a state that is one for a whole request is
    dealt out among requests, one that is one for each part of a request among its parts, any other among the decisions
    of its part. The interval is that of a jackknife over groups of requests, because decisions of one request are not
    independent (Efron and Tibshirani 1993, chapter 11).

    Args:
        routing: (M,) int, what was decided.
        state: (M,) int.
        requests: (M,) int, which request a decision belongs to.
        seed: Draws the deals.
        within: (M,) int; what is asked is what both tell of each other once this is known.
        parts: (M,) int, of requests that were answered several times; requests are whole where left out.
        permutations: Random deals.
    """
    from scipy.stats import t

    if not len(routing):
        return Information(0.0, 0.0, 0.0, 0.0, 0.0, 1.0)
    rng = numpy_generator(seed, "information")
    deal = _dealer(state, requests, requests if parts is None else parts, within)
    plain = mutual_information(routing, state, within)
    dealt = np.array([mutual_information(routing, deal(rng), within) for _ in range(permutations)])
    bits = plain - float(dealt.mean())

    groups = np.unique(requests, return_inverse=True)[1] % _GROUPS
    folds = int(groups.max()) + 1
    without = np.full(folds, plain)
    for group in range(folds if folds > 1 else 0):
        kept = groups != group
        without[group] = mutual_information(routing[kept], state[kept], None if within is None else within[kept])
    spread = math.sqrt((folds - 1) / folds * float(((without - without.mean()) ** 2).sum()))
    half = spread * float(t.ppf(_HIGH, max(1, folds - 1)))
    # Whether a deal gave as much as the real one must not hang on the last bit of a sum.
    chance = (1 + int((dealt >= plain - 1e-12).sum())) / (1 + permutations)
    return Information(plain, float(dealt.mean()), bits, bits - half, bits + half, chance)


def _dealer(
    state: np.ndarray, requests: np.ndarray, parts: np.ndarray, within: np.ndarray | None
) -> Callable[[np.random.Generator], np.ndarray]:
    """A way to deal states out at random, see :func:`information`."""
    if within is not None:
        return lambda rng: _dealt(state, within, rng)
    everyone = np.zeros(len(state), dtype=np.int64)
    for units, inside in ((requests, everyone), (parts, requests)):
        _, first, unit = np.unique(units, return_index=True, return_inverse=True)
        own, group = state[first], inside[first]
        if (own[unit] == state).all():
            return lambda rng: _dealt(own, group, rng)[unit]
    return lambda rng: _dealt(state, parts, rng)


def _dealt(values: np.ndarray, groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Values exchanged at random inside each group."""
    dealt = np.empty_like(values)
    # Both sorted by group; random keys order the second inside it.
    dealt[np.argsort(groups, kind="stable")] = values[np.lexsort((rng.random(len(values)), groups))]
    return dealt


def sample_states(observations: np.ndarray, routing: np.ndarray, requests: np.ndarray, *, seed: int) -> np.ndarray:
    """Codes of the place and of the sample of each decision, learned on the other half of the requests.

    The place is a leaf of a tree that tells routing from request, noise level and calls so far; the sample is a leaf of
    a small tree that tells it from the sample's own features, less their mean at the place. Both meet decisions that
    they have not grown on, so what they tell is not what they remember.

    Args:
        observations: (M, 64).
        routing: (M,) int.
        requests: (M,) int.
        seed: Of the trees.

    Returns:
        (2, M) int: places and samples.
    """
    from sklearn.tree import DecisionTreeClassifier

    half = np.unique(requests, return_inverse=True)[1] % 2
    free, own = observations[:, list(STATE_FREE)], observations[:, list(SAMPLE_FEATURES)]
    codes = np.zeros((2, len(routing)), dtype=np.int64)
    for side in (0, 1):
        grown, asked = half != side, half == side
        if not grown.any() or not asked.any():
            continue
        trees = [
            DecisionTreeClassifier(
                max_leaf_nodes=leaves,
                min_samples_leaf=_LEAST_LEAF,
                random_state=derive_seed(seed, "tree", side) % 2**31,
            )
            for leaves in (_LEAVES_OF_PLACES, _LEAVES_OF_SAMPLES)
        ]
        trees[0].fit(free[grown], routing[grown])
        leaf = trees[0].apply(free)
        means = np.zeros((int(leaf.max()) + 1, own.shape[1]))
        np.add.at(means, leaf[grown], own[grown])
        means /= np.maximum(1, np.bincount(leaf[grown], minlength=len(means)))[:, None]
        centred = own - means[leaf]
        trees[1].fit(centred[grown], routing[grown])
        # Leaves of the two halves are different places.
        codes[0, asked] = 2 * leaf[asked] + side
        codes[1, asked] = trees[1].apply(centred[asked])
    return codes


# --- the examination --------------------------------------------------------------------------------------------------


def without_expert(controller: SteeringController, expert: str) -> SteeringController:
    """The same controller, whose router gives an expert the probability 0 and the others their shares of the rest.

    Where it follows the static program (unsure, or at a price where that was found best) it goes on to do so.

    Raises:
        BadInput: If there is no such expert.
    """
    if expert not in EXPERTS:
        raise BadInput(f"expert {expert!r}: expected one of {', '.join(EXPERTS)}")
    made = controller.configured()
    with torch.no_grad():
        made.router.bias[EXPERTS.index(expert)] = -math.inf
    return made


def router_probabilities(controller: SteeringController, observations: np.ndarray) -> np.ndarray:
    """(M, 8) probabilities that the router gives to the experts, by (M, 64) observations."""
    with torch.no_grad():
        seen = torch.from_numpy(np.ascontiguousarray(observations)).to(controller.mean)
        logits = controller(seen)[_ROUTER].double() / controller.config["temperature"]
        found: np.ndarray = logits.softmax(dim=1).cpu().numpy()
    return found


class RandomRouter:
    """The static program's stride and guidance, and any expert, each as likely.

    Args:
        seed: Of the draws; they go on from decision to decision.
    """

    def __init__(self, seed: int = 0) -> None:
        self._rng = numpy_generator(seed, "random router")

    def decide(self, observations: np.ndarray) -> np.ndarray:
        """Draw experts, (N, 4) actions."""
        actions = np.tile(STATIC, (len(observations), 1))
        actions[:, _ROUTER] = self._rng.integers(len(EXPERTS), size=len(observations))
        return actions


def examine(
    denoiser: Denoiser,
    book: ProgramBook,
    bank: Requests,
    controller: SteeringController,
    prices: Sequence[float],
    *,
    student: Student | None = None,
    state_free: Policy | None = None,
    settings: MixtureSettings | None = None,
) -> MixtureReport:
    """Examine a mixture of experts.

    The best single expert is chosen price by price on one half of the requests and answers the other half, so that its
    row has no luck in it. The hindsight oracle takes the best of the eight for each request, and counts luck.

    Args:
        denoiser: The network.
        book: Programs.
        bank: Requests that nothing was trained on or chosen by, on the network's device.
        controller: Whom to examine.
        prices: What one network evaluation costs, some of them; all figures are means over these.
        student: Answers in one evaluation, where there is one; without one `SpeedDemon` is no expert of its own.
        state_free: A policy that was trained without the sample's state; where left out, the controller is shown
            averages in place of that.
        settings: How thoroughly.

    Raises:
        BadInput: If there are too few requests, or no prices, or one twice.
    """
    settings = settings or MixtureSettings()
    asked = [float(price) for price in prices]
    if not asked or len(set(asked)) < len(asked) or not all(0 <= price < math.inf for price in asked):
        raise BadInput(f"mixture: prices {asked}, expected at least one number of 0 or more, each once")
    if len(bank) < _LEAST_REQUESTS:
        raise BadInput(f"mixture: {len(bank)} requests, an interval needs at least {_LEAST_REQUESTS}")
    kept = bank.rows(torch.arange(min(settings.requests, len(bank))))
    ask = _Asking(denoiser, book, kept, student, settings.slots)
    found = _Examination(ask, controller, sorted(asked), state_free, settings)
    return found.report()


@dataclass(frozen=True, eq=False)
class _Answers:
    """Of one arm at all prices: P prices, N requests.

    Attributes:
        values: (P, N).
        nfe: (P, N).
        errors: (P, N), infinite where not finite.
        saturated: (P, N).
        failed: (P, N) 1 where the network gave something that is not finite.
    """

    values: np.ndarray
    nfe: np.ndarray
    errors: np.ndarray
    saturated: np.ndarray
    failed: np.ndarray

    @staticmethod
    def of(rolls: Sequence[Rolled], tau: float) -> _Answers:
        """Of requests that were answered under a policy, price by price."""
        return _Answers(
            np.stack([rolled.values(tau) for rolled in rolls]),
            np.stack([rolled.nfe.astype(np.float64) for rolled in rolls]),
            np.stack([rolled.errors for rolled in rolls]),
            np.stack([saturated(rolled.errors, tau) for rolled in rolls]),
            np.stack([(rolled.failed >= 0) | ~np.isfinite(rolled.errors) for rolled in rolls]).astype(np.float64),
        )

    @staticmethod
    def picked(several: Sequence[_Answers], which: np.ndarray) -> _Answers:
        """For each price and request those of one of several arms, by (P, N) int."""
        parts = [
            np.take_along_axis(np.stack([getattr(one, name) for one in several]), which[None], axis=0)[0]
            for name in ("values", "nfe", "errors", "saturated", "failed")
        ]
        return _Answers(*parts)


@dataclass(frozen=True, eq=False)
class _Asking:
    """Whom to ask what."""

    denoiser: Denoiser
    book: ProgramBook
    bank: Requests
    student: Student | None
    slots: int

    def roll(self, policy: Policy, price: float, *, keep: bool = False) -> Rolled:
        """Answer all requests at a price."""
        return roll(
            self.denoiser,
            self.book,
            self.bank,
            policy,
            price,
            student=self.student,
            slots=self.slots,
            keep_observations=keep,
        )


@dataclass(frozen=True, eq=False)
class _Taken:
    """M decisions of the controller, at all prices.

    Attributes:
        request: (M,) row of the bank, the same at all prices.
        price: (M,) which of the prices.
        later: (M,) bool, after the opening.
        expert: (M,) who acted.
        action: (M,) code of all four parts of what the policy said.
        sigma: (M,) noise level at which it was decided.
        observation: (M, 64).
    """

    request: np.ndarray
    price: np.ndarray
    later: np.ndarray
    expert: np.ndarray
    action: np.ndarray
    sigma: np.ndarray
    observation: np.ndarray

    @staticmethod
    def of(rolls: Sequence[Rolled]) -> _Taken:
        """Of requests that were answered under a policy, price by price."""
        parts: list[list[np.ndarray]] = []
        for place, rolled in enumerate(rolls):
            if rolled.observations is None:
                raise BadInput("mixture: the controller's observations were not kept")
            taken = rolled.experts >= 0
            request, number = np.nonzero(taken)
            before = np.concatenate((rolled.sigmas[:, :1], rolled.sigmas[:, :-1]), axis=1)
            actions = rolled.actions[taken].astype(np.int64)
            parts.append(
                [
                    request,
                    np.full(len(request), place),
                    number > 0,
                    rolled.experts[taken].astype(np.int64),
                    np.ravel_multi_index(tuple(np.clip(actions, 0, np.array(ACTIONS) - 1).T), ACTIONS),
                    before[taken],
                    rolled.observations[taken],
                ]
            )
        return _Taken(*(np.concatenate(column) for column in zip(*parts, strict=True)))


class _Examination:
    """All arms on the same requests, and what follows from that."""

    def __init__(
        self,
        ask: _Asking,
        controller: SteeringController,
        prices: list[float],
        state_free: Policy | None,
        settings: MixtureSettings,
    ) -> None:
        self.ask, self.controller, self.prices, self.settings = ask, controller, prices, settings
        self.tau, self.trained_state_free = ask.book.tau, state_free is not None
        self.steered = np.array([controller.steers_at(price) for price in prices])
        self.chosen: list[list[str]] = []
        self.done: dict[tuple[int, ...], _Answers] = {}
        with Progress("mixture", total=len(prices) * (6 + 2 * len(EXPERTS)), unit="arms") as self.progress:
            self.rolls = self._rolls(lambda _: controller, keep=True)
            self.taken = _Taken.of(self.rolls)
            self.answers = self._arms(state_free)
            self.knocked = self._knock_outs()
        self.differences = {
            name: self.interval(self.answers[name].values - self.answers[STATIC_ARM].values) for name in self.answers
        }

    def interval(self, differences: np.ndarray) -> Interval:
        """Of (P, N) paired differences, means over the prices."""
        return paired_interval(
            np.atleast_2d(differences).mean(axis=0), seed=self.settings.seed, resamples=self.settings.resamples
        )

    def between(self, first: str, second: str) -> Interval:
        """Value of one arm less that of another."""
        return self.interval(self.answers[first].values - self.answers[second].values)

    # --- arms ---

    def _rolls(self, policy: Callable[[int], Policy], *, keep: bool = False) -> list[Rolled]:
        """Answer at each price, with a policy for the price's place."""
        rolls = []
        for place, price in enumerate(self.prices):
            rolls.append(self.ask.roll(policy(place), price, keep=keep))
            self.progress.advance(price=price)
        return rolls

    def _arms(self, state_free: Policy | None) -> dict[str, _Answers]:
        seed = derive_seed(self.settings.seed, "mixture")
        averages = [mean_features(self._seen(place)) for place in range(len(self.prices))]
        routers: dict[str, Callable[[int], Policy]] = {
            RANDOM: lambda place: RandomRouter(derive_seed(seed, place)),
            SHUFFLED: lambda place: Shuffled(self.controller, derive_seed(seed, place)),
            STATE_FREE_ARM: lambda place: state_free or StateFree(self.controller, averages[place]),
        }
        answers = {STATIC_ARM: self._fixed(Static()), CONTROLLER: _Answers.of(self.rolls, self.tau)}
        answers |= {name: _Answers.of(self._rolls(policy), self.tau) for name, policy in routers.items()}
        answers[EMBEDDED] = self._fixed(EmbeddedError())
        singles = {name: self._fixed(Fixed.expert(name)) for name in EXPERTS}
        several = list(singles.values())
        answers[BEST_SINGLE] = _Answers.picked(several, self._best_of_other_half(several))
        answers[ORACLE] = _Answers.picked(several, np.stack([one.values for one in several]).argmax(axis=0))
        return answers | singles

    def _fixed(self, policy: Fixed) -> _Answers:
        """Of a policy that does the same everywhere; some of them do the same as others."""
        action = tuple(policy.action.tolist())
        if action in self.done:
            self.progress.advance(len(self.prices))
        else:
            self.done[action] = _Answers.of(self._rolls(lambda _: policy), self.tau)
        return self.done[action]

    def _best_of_other_half(self, several: list[_Answers]) -> np.ndarray:
        """(P, N) which of the experts is best at a price on the half of the requests that a request is not in."""
        values = np.stack([one.values for one in several])
        half = np.arange(values.shape[2]) % 2
        best = np.empty(values.shape[1:], dtype=np.int64)
        for side in (0, 1):
            best[:, half == side] = values[:, :, half != side].mean(axis=2).argmax(axis=0)[:, None]
        self.chosen = [sorted({EXPERTS[place] for place in row}) for row in best]
        return best

    def _knock_outs(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Cost in value and change of NFE, (P, N) each, of taking each expert away; nan where it is not steered."""
        whole = self.answers[CONTROLLER]
        found = {}
        for name in EXPERTS:
            without = without_expert(self.controller, name)
            cost, nfe = np.zeros_like(whole.values), np.zeros_like(whole.nfe)
            for at, price in enumerate(self.prices):
                if not self.steered[at]:
                    cost[at] = nfe[at] = np.nan
                elif self._differs(without, at):
                    rolled = self.ask.roll(without, price)
                    cost[at] = whole.values[at] - rolled.values(self.tau)
                    nfe[at] = rolled.nfe - whole.nfe[at]
                self.progress.advance(price=price)
            found[name] = (cost, nfe)
        return found

    def _differs(self, other: SteeringController, price: int) -> bool:
        """Whether another controller decides anything else on the way; where it does not, its answers are the same."""
        seen = self._seen(price)
        here, there = self.controller.decide(seen), other.decide(seen)
        if here.gates is not None and there.gates is not None and not np.array_equal(here.gates, there.gates):
            return True
        return not np.array_equal(here.actions, there.actions)

    def _seen(self, price: int) -> np.ndarray:
        return self.taken.observation[self.taken.price == price]

    # --- tables ---

    def report(self) -> MixtureReport:
        """Everything."""
        arms, by_price = self._arm_table(), self._price_table()
        knock_outs, usage, information_table = self._knock_out_table(), self._usage(), self._information()
        routing = self._routing()
        useless = tuple(knock_outs["expert"][knock_outs["verdict"].isin([USELESS, NEVER_USED, HARMFUL])])
        verdicts = _Words(self, knock_outs, information_table, routing).all()
        statistics = ExpertStatistics()
        for rolled, values in zip(self.rolls, self.answers[STATIC_ARM].values, strict=True):
            statistics.update(rolled, sigma_min=self.ask.denoiser.sigma_min, tau=self.tau, static=values)
        facts = {
            "requests": len(self.ask.bank),
            "prices": self.prices,
            "tau": self.tau,
            "seed": self.settings.seed,
            "student": self.ask.student is not None,
            "state_free_trained": self.trained_state_free,
            "steered_prices": [price for price, steers in zip(self.prices, self.steered, strict=True) if steers],
            "best_single": dict(zip((f"{price:g}" for price in self.prices), self.chosen, strict=True)),
            "arms": plain_rows(arms),
            "by_price": plain_rows(by_price),
            "knock_outs": plain_rows(knock_outs),
            "usage": {name: plain_rows(table) for name, table in usage.items()},
            "information": plain_rows(information_table),
            "routing": routing,
            "experts": statistics.facts(),
            "verdicts": verdicts,
            "useless": list(useless),
        }
        return MixtureReport(
            arms, by_price, knock_outs, usage, information_table, statistics, verdicts, useless, _plain(facts)
        )

    def _figures(self, name: str, rows: slice | int) -> dict[str, float]:
        """Means of an arm over some prices."""
        own = self.answers[name]
        errors = own.errors[rows].ravel()
        finite = errors[np.isfinite(errors)]
        gain = self.interval(own.values[rows] - self.answers[STATIC_ARM].values[rows])
        return {
            "nfe": float(own.nfe[rows].mean()),
            "error": float(finite.mean()) if len(finite) else math.nan,
            "median": float(np.median(errors)),
            "saturated": float(own.saturated[rows].mean()),
            "failed": int(own.failed[rows].sum()),
            "value": float(own.values[rows].mean()),
            "difference": gain.mean,
            "low": gain.low,
            "high": gain.high,
        }

    def _arm_table(self) -> pd.DataFrame:
        rows = []
        for name, own in self.answers.items():
            at = {f"value at {price:g}": values.mean() for price, values in zip(self.prices, own.values, strict=True)}
            rows.append({"arm": name, **self._figures(name, slice(None)), **at})
        return pd.DataFrame(rows)

    def _price_table(self) -> pd.DataFrame:
        return pd.DataFrame(
            [
                {"arm": name, "price": price, **self._figures(name, place)}
                for name in self.answers
                for place, price in enumerate(self.prices)
            ]
        )

    def _knock_out_table(self) -> pd.DataFrame:
        rows = []
        for place, name in enumerate(EXPERTS):
            share = float((self.taken.expert == place).mean())
            cost, nfe = (part[self.steered] for part in self.knocked[name])
            at = {
                f"cost at {price:g}": float(values.mean())
                for price, values in zip(self.prices, self.knocked[name][0], strict=True)
            }
            absent = place == SPEED and self.ask.student is None
            if absent or not self.steered.any():
                empty = dict.fromkeys(("cost", "low", "high", "nfe"), math.nan)
                rows.append({"expert": name, "share": share, **empty, **at, "verdict": ABSENT if absent else NOT_ASKED})
                continue
            interval = self.interval(cost)
            verdict = {1: NEEDED, -1: HARMFUL, 0: USELESS}[interval.sign]
            rows.append(
                {
                    "expert": name,
                    "share": share,
                    "cost": interval.mean,
                    "low": interval.low,
                    "high": interval.high,
                    "nfe": float(nfe.mean()),
                    **at,
                    "verdict": NEVER_USED if share == 0 and not cost.any() else verdict,
                }
            )
        return pd.DataFrame(rows)

    def _usage(self) -> dict[str, pd.DataFrame]:
        taken, later = self.taken, self.taken.later
        labels, scales = self._of_requests()
        bins, edges = self._bins()
        tables = {
            OPENING: _shares(np.zeros(int((~later).sum()), dtype=np.int64), taken.expert[~later]).drop(columns="code"),
            "sigma": _shares(bins[later], taken.expert[later]),
            "class": _shares(labels[taken.request], taken.expert).rename(columns={"code": "class"}),
            "price": _shares(taken.price, taken.expert).rename(columns={"code": "price"}),
            "scale": _shares(scales[taken.request], taken.expert).rename(columns={"code": "scale"}),
        }
        sigma = tables["sigma"]
        code = sigma.pop("code").to_numpy(dtype=np.int64)
        sigma.insert(0, "low", edges[code])
        sigma.insert(1, "high", edges[code + 1])
        tables["price"]["price"] = [self.prices[int(place)] for place in tables["price"]["price"]]
        return tables

    def _of_requests(self) -> tuple[np.ndarray, np.ndarray]:
        """(N,) classes and (N,) guidance scales."""
        return self.ask.bank.labels.cpu().numpy(), self.ask.bank.scales.cpu().numpy().astype(np.float64)

    def _bins(self) -> tuple[np.ndarray, np.ndarray]:
        """(M,) bin of the noise level of each decision, and the bins' edges."""
        sigmas = self.taken.sigma
        # The last digits of a level must not decide its bin: bins end a little beyond the outermost levels.
        low, high = float(sigmas.min()) * 0.999, float(sigmas.max()) * 1.001
        edges = np.geomspace(low, high, self.settings.sigma_bins + 1)
        return np.clip(np.searchsorted(edges, sigmas, side="right") - 1, 0, self.settings.sigma_bins - 1), edges

    def _information(self) -> pd.DataFrame:
        taken, later = self.taken, self.taken.later
        labels, scales = self._of_requests()
        whole = np.ones(len(later), dtype=bool)
        # A request at another price is another request: its decisions are dealt out for themselves.
        begun = taken.request * len(self.prices) + taken.price
        states = {
            "noise level": (self._bins()[0], later),
            "price": (taken.price, whole),
            "class": (labels[taken.request], whole),
            "guidance scale": (scales[taken.request], whole),
        }
        rows = []
        for routing, codes in (("expert", taken.expert), ("action", taken.action)):
            for of, (state, which) in states.items():
                found = self._informed(codes[which], state[which], taken.request[which], begun[which], of)
                rows.append({"routing": routing, "of": of, **vars(found)})
            places, samples = sample_states(
                taken.observation[later], codes[later], taken.request[later], seed=self.settings.seed
            )
            found = information(
                codes[later],
                samples,
                taken.request[later],
                seed=derive_seed(self.settings.seed, routing, SAMPLE),
                within=places,
                permutations=self.settings.permutations,
            )
            rows.append({"routing": routing, "of": SAMPLE, **vars(found)})
        return pd.DataFrame(rows)

    def _informed(
        self, codes: np.ndarray, state: np.ndarray, request: np.ndarray, begun: np.ndarray, of: str
    ) -> Information:
        return information(
            codes,
            np.unique(state, return_inverse=True)[1],
            request,
            parts=begun,
            seed=derive_seed(self.settings.seed, of),
            permutations=self.settings.permutations,
        )

    def _routing(self) -> dict[str, float]:
        """Entropies in bits, confidence, and what hangs on the sample's own state."""
        taken = self.taken
        by_price = [_counted(taken.expert[taken.price == place]) for place in range(len(self.prices))]
        weights = np.array([(taken.price == place).mean() for place in range(len(self.prices))])
        router = router_probabilities(self.controller, taken.observation)
        changed, later = np.zeros(len(taken.request), dtype=bool), taken.later
        for place in range(len(self.prices)):
            mine = taken.price == place
            seen = taken.observation[mine]
            exchanged = Shuffled(self.controller, derive_seed(self.settings.seed, "exchanged", place))
            first, second = self.controller.decide(seen).actions, _actions(exchanged.decide(seen))
            changed[mine] = (first != second).any(axis=1)
        return {
            "entropy": float(entropy(_counted(taken.expert))),
            "entropy_within_price": float(weights @ entropy(np.stack(by_price))),
            "router_entropy": float(entropy(router).mean()),
            "most_entropy": math.log2(len(EXPERTS)),
            "confidence": float(router.max(axis=1).mean()),
            "not_static": float(np.mean([rolled.not_static for rolled in self.rolls])),
            "changed_by_sample": float(changed[later].mean()) if later.any() else 0.0,
        }


class _Words:
    """The answers, in sentences that say no more than the intervals do."""

    def __init__(
        self, found: _Examination, knock_outs: pd.DataFrame, informed: pd.DataFrame, routing: dict[str, float]
    ) -> None:
        self.found, self.knock_outs, self.informed, self.routing = found, knock_outs, informed, routing

    def all(self) -> dict[str, str]:
        """A sentence or two for each question."""
        return {
            "adaptive": self.adaptive(),
            "best single": self.compared(
                BEST_SINGLE, "the best single expert", f" ({self._singles()}, chosen on other requests)"
            ),
            "static": self.compared(STATIC_ARM, "the static program"),
            "random": self.compared(RANDOM, "a random router"),
            "state": self.compared(
                STATE_FREE_ARM,
                "a router that was trained without the sample's state"
                if self.found.trained_state_free
                else "the same router shown average samples",
            ),
            "oracle": self.oracle(),
            "experts": self.experts(),
        }

    def adaptive(self) -> str:
        """Is anything adaptive happening?"""
        found = self.found
        if not found.steered.any():
            return (
                "Nothing adapts: the controller follows the static program at all prices asked, because nothing better "
                "was found there."
            )
        changed = self.routing["changed_by_sample"]
        if changed == 0:
            return "Nothing adapts to the sample: no decision changes when its state is exchanged with another's."
        gain = found.between(CONTROLLER, SHUFFLED)
        own = "with the sample's own state instead of another sample's, the value is"
        says = {
            1: f"Yes: {own} higher, by {gain}.",
            0: f"Not to any use that could be shown: {own} {gain} off, which may be 0.",
            -1: f"To no good: {own} lower, by {gain}.",
        }[gain.sign]
        return f"{says} {_percent(changed)} of the decisions hang on the sample's state. {self._bits()}"

    def compared(self, other: str, named: str, note: str = "") -> str:
        """Does the mixture beat something?"""
        gain = self.found.between(CONTROLLER, other)
        if max(abs(gain.low), abs(gain.high)) < _NOTHING:
            return f"No: the mixture and {named}{note} are worth the same."
        return {
            1: f"Yes: the mixture beats {named}{note}; its value differs by {gain}.",
            0: f"Not shown: the value of the mixture differs from that of {named}{note} by {gain}, which may be 0.",
            -1: f"No: the mixture is worse than {named}{note}; its value differs by {gain}.",
        }[gain.sign]

    def oracle(self) -> str:
        """What is the most that choosing among single experts could give?"""
        gap = self.found.between(ORACLE, CONTROLLER)
        return (
            f"Hindsight over the eight single experts is {gap} in value from the mixture. It counts luck: the best of "
            "eight is better than each of them even where nobody can know beforehand which one that is."
        )

    def experts(self) -> str:
        """Which experts are useless?"""
        if not self.found.steered.any():
            return "No expert was knocked out: the controller has no say at the prices asked."
        said = []
        for row in self.knock_outs.itertuples():
            change = str(Interval(-row.cost, -row.high, -row.low))
            said.append(
                {
                    NEEDED: f"{row.expert} is needed: without it the value changes by {change}",
                    HARMFUL: f"{row.expert} is worse than useless: without it the value rises, {change}",
                    USELESS: f"{row.expert} is useless here: without it the value changes by {change}, which may be 0",
                    NEVER_USED: f"{row.expert} is useless here: it is never used",
                    ABSENT: f"{row.expert} was not examined: there is no student",
                }[row.verdict]
            )
        return "; ".join(said) + "."

    def _singles(self) -> str:
        return ", ".join(dict.fromkeys(name for names in self.found.chosen for name in names))

    def _bits(self) -> str:
        rows = self.informed[(self.informed["of"] == SAMPLE) & (self.informed["routing"] == "action")]
        row = rows.iloc[0]
        told = f"{row['bits']:.4f} bits [{row['low']:.4f}, {row['high']:.4f}]"
        real = row["low"] > 0 and row["chance"] <= _RARE
        if real:
            return f"Decisions and the sample's own state share {told} beyond request, noise level and chance."
        return f"That decisions and the sample's own state share more than chance gives is not shown: {told}."


def _actions(decided: np.ndarray | Decision) -> np.ndarray:
    """Actions of what a policy returned, (N, 4)."""
    return decided if isinstance(decided, np.ndarray) else decided.actions


def _counted(experts: np.ndarray) -> np.ndarray:
    """(8,) shares of the experts in some decisions; zeros where there are none."""
    counts = np.bincount(experts, minlength=len(EXPERTS)).astype(np.float64)
    return np.asarray(counts / max(1.0, counts.sum()))


def _shares(codes: np.ndarray, experts: np.ndarray) -> pd.DataFrame:
    """One row per code: ``code``, ``decisions``, and the shares of the experts in them."""
    rows = []
    for code in np.unique(codes):
        mine = experts[codes == code]
        rows.append({"code": code, "decisions": len(mine), **dict(zip(EXPERTS, _counted(mine), strict=True))})
    return pd.DataFrame(rows, columns=["code", "decisions", *EXPERTS])


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def plain_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """A table as plain values for JSON, None for what is not finite."""
    return [_plain(row) for row in table.to_dict(orient="records")]


def _plain(value: Any) -> Any:
    """The same with Python's own types; JSON has no nan."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
