"""Who decides: the interface of all policies, those that a controller must beat, and requests run under any of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import torch

from vernissage.core.errors import BadInput
from vernissage.core.progress import Progress
from vernissage.core.seeds import numpy_generator
from vernissage.sampler.learn.experts import ACTIONS, EXPERTS, STATIC
from vernissage.sampler.learn.features import FEATURES, SAMPLE_FEATURES
from vernissage.sampler.learn.rewards import errors_to, saturated
from vernissage.sampler.learn.slots import Slots

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vernissage.sampler.domain.denoiser import Denoiser
    from vernissage.sampler.learn.book import Entry, ProgramBook
    from vernissage.sampler.learn.rewards import Requests
    from vernissage.sampler.learn.slots import Outcome, Student

_EVALUATIONS, _GUIDANCE = FEATURES.index("evaluations"), FEATURES.index("guidance")
_SAMPLE = np.array(SAMPLE_FEATURES)


class Decision(NamedTuple):
    """What a controller says of N slots.

    Attributes:
        actions: (N, 4) int64: stride, expert, guidance, noise.
        gates: (N, 8) shares of the experts in the coefficients of a multistep step; none where one expert acts alone.
        confidence: (N,) probability of the expert that the router finds best.
    """

    actions: np.ndarray
    gates: np.ndarray | None
    confidence: np.ndarray


class Policy(Protocol):
    """Anything that decides."""

    def decide(self, observations: np.ndarray) -> np.ndarray | Decision:
        """Choose actions.

        Args:
            observations: (N, 64) float32 of slots that have a request.

        Returns:
            (N, 4) int64 actions, or these with gates.
        """
        ...


class Fixed:
    """The same action everywhere.

    Args:
        action: Stride, expert, guidance and noise.

    Raises:
        BadInput: If there is no such action.
    """

    def __init__(self, action: Sequence[int]) -> None:
        chosen = np.array(action, dtype=np.int64)
        if chosen.shape != (len(ACTIONS),) or not ((chosen >= 0) & (chosen < ACTIONS)).all():
            raise BadInput(f"action {list(action)}: expected {len(ACTIONS)} numbers, each from 0 to below {ACTIONS}")
        self.action = chosen

    @classmethod
    def expert(cls, name: str) -> Fixed:
        """One expert alone, with its own stride and the static program's guidance.

        Raises:
            BadInput: If there is none of that name.
        """
        if name not in EXPERTS:
            raise BadInput(f"expert {name!r}: expected one of {', '.join(EXPERTS)}")
        return cls((int(STATIC[0]), EXPERTS.index(name), int(STATIC[2]), int(STATIC[3])))

    def decide(self, observations: np.ndarray) -> np.ndarray:
        """Repeat the action."""
        return np.tile(self.action, (len(observations), 1))


class Static(Fixed):
    """The static program of each request: what a controller must beat."""

    def __init__(self) -> None:
        super().__init__(STATIC.tolist())


class EmbeddedError(Fixed):
    """Classical adaptive sampling: steps by the embedded error, everywhere (Jolicoeur-Martineau et al. 2021)."""

    def __init__(self) -> None:
        super().__init__(Fixed.expert("DefaultAdaptive").action.tolist())


class Random:
    """Any action, each as likely.

    Args:
        seed: Of the draws; they go on from decision to decision.
    """

    def __init__(self, seed: int = 0) -> None:
        self._rng = numpy_generator(seed, "policy", "random")

    def decide(self, observations: np.ndarray) -> np.ndarray:
        """Draw actions."""
        return self._rng.integers(ACTIONS, size=(len(observations), len(ACTIONS)))


class StateFree:
    """A policy that is shown averages in place of all that depends on the sample.

    What it then loses is what the state of a sample is worth to it; request, noise level and calls so far stay. For the
    best policy without the state, train one that never sees it.

    Args:
        policy: Any.
        means: (64,) averages of the features, or (K, 64) of samples with 0, 1, ... evaluations so far; see
            :func:`mean_features`.

    Raises:
        BadInput: If the shape is another one.
    """

    def __init__(self, policy: Policy, means: np.ndarray) -> None:
        self._means = np.atleast_2d(np.asarray(means, dtype=np.float32))
        if self._means.ndim != 2 or self._means.shape[1] != len(FEATURES) or not len(self._means):
            raise BadInput(f"means of features: shape {np.shape(means)}, expected (K, {len(FEATURES)})")
        self._policy = policy

    def decide(self, observations: np.ndarray) -> np.ndarray | Decision:
        """Ask the policy about average samples."""
        shown = observations.copy()
        rows = np.minimum(evaluations_of(observations), len(self._means) - 1)
        shown[:, _SAMPLE] = self._means[rows][:, _SAMPLE]
        return self._policy.decide(shown)


class Shuffled:
    """A policy that is shown other samples' states: if that costs nothing, it makes no use of them.

    What depends on the sample goes round among slots with as many evaluations so far and the same guidance scale.

    Args:
        policy: Any.
        seed: Of the draws; they go on from decision to decision.
    """

    def __init__(self, policy: Policy, seed: int = 0) -> None:
        self._policy, self._rng = policy, numpy_generator(seed, "policy", "shuffled")

    def decide(self, observations: np.ndarray) -> np.ndarray | Decision:
        """Ask the policy about samples with exchanged states."""
        shown = observations.copy()
        _, groups = np.unique(observations[:, (_EVALUATIONS, _GUIDANCE)].round(4), axis=0, return_inverse=True)
        groups = groups.ravel()
        # Sorted by group both times, in a random order within it.
        there = np.lexsort((self._rng.random(len(groups)), groups))
        here = np.lexsort((self._rng.random(len(groups)), groups))
        shown[here[:, None], _SAMPLE] = observations[there[:, None], _SAMPLE]
        return self._policy.decide(shown)


def evaluations_of(observations: np.ndarray) -> np.ndarray:
    """(N,) int64 network evaluations so far, as (N, 64) observations have them."""
    told: np.ndarray = np.rint(np.expm1(np.nan_to_num(observations[:, _EVALUATIONS]))).astype(np.int64)
    return np.maximum(told, 0)


def mean_features(observations: np.ndarray) -> np.ndarray:
    """Average features of samples by their evaluations so far, for :class:`StateFree`.

    Args:
        observations: (N, 64).

    Returns:
        (K, 64) float32; where no sample has so many evaluations, the average of all.

    Raises:
        BadInput: If there are none.
    """
    if not len(observations):
        raise BadInput("means of features: no observations, expected at least one")
    counts = evaluations_of(observations)
    rows = np.tile(observations.mean(axis=0), (int(counts.max()) + 1, 1))
    for count in np.unique(counts):
        rows[count] = observations[counts == count].mean(axis=0)
    return rows.astype(np.float32)


@dataclass(frozen=True, eq=False)
class Rolled:
    """Requests of a bank, answered under a policy. M is the most decisions that one of them took.

    Attributes:
        errors: (N,) root mean square errors to the endpoints, infinite for samples that are not finite.
        nfe: (N,) int64 network evaluations, guidance included.
        samples: (N, C, H, W).
        failed: (N,) int64, the call whose answer was not finite, -1 for those that came through.
        prices: (N,) float64 that they were asked with.
        reasons: Why each ended.
        experts: (N, M) int8, who acted in each decision; -1 after the end.
        sigmas: (N, M) noise level after each decision; nan after the end.
        spent: (N, M) int16 network evaluations of each decision; 0 after the end.
        actions: (N, M, 4) int8, what the policy said; -1 after the end.
        confidence: (N, M) float32 of the router; nan where there is none.
        observations: (N, M, 64) float32 where they were asked for, else none.
        refused: Decisions that were no actions and became STATIC.
    """

    errors: np.ndarray
    nfe: np.ndarray
    samples: torch.Tensor
    failed: np.ndarray
    prices: np.ndarray
    reasons: tuple[str, ...]
    experts: np.ndarray
    sigmas: np.ndarray
    spent: np.ndarray
    actions: np.ndarray
    confidence: np.ndarray
    observations: np.ndarray | None
    refused: int

    def __len__(self) -> int:
        """Number of requests, N."""
        return len(self.errors)

    @property
    def decisions(self) -> np.ndarray:
        """(N,) int64, decisions of each request."""
        return np.asarray((self.experts >= 0).sum(axis=1))

    @property
    def not_static(self) -> float:
        """Share of the decisions that were not STATIC."""
        taken = self.experts >= 0
        return float((self.actions != STATIC).any(axis=2)[taken].mean()) if taken.any() else 0.0

    def values(self, tau: float) -> np.ndarray:
        """(N,) ``-phi(e) - price NFE`` with the saturating error phi of scale tau."""
        return np.asarray(-saturated(self.errors, tau) - self.prices * self.nfe)


def roll(
    denoiser: Denoiser,
    book: ProgramBook,
    bank: Requests,
    policy: Policy,
    prices: float | np.ndarray,
    *,
    student: Student | None = None,
    slots: int = 256,
    entries: Sequence[Entry] | None = None,
    budgets: np.ndarray | None = None,
    keep_observations: bool = False,
    progress: str | None = None,
) -> Rolled:
    """Answer all requests of a bank under a policy; slots that are done take the next request.

    Args:
        denoiser: The network.
        book: Programs.
        bank: Requests, on the network's device.
        policy: Who decides; it is shown slots with a request only.
        prices: What one evaluation costs, for all or (N,).
        student: Answers in one evaluation, where there is one.
        slots: Requests under way at once.
        entries: Static program of each request; by its price where left out.
        budgets: (N,) most evaluations of each request; none where left out.
        keep_observations: Return what the policy saw.
        progress: What is being done, to say how far it is; silent where left out.

    Returns:
        Answers in the order of the bank.

    Raises:
        BadInput: If there are no requests, lengths do not fit, or a price or budget is none.
    """
    run = _Run(denoiser, book, bank, policy, prices, student, slots, entries, budgets, keep=keep_observations)
    if progress is None:
        while run.under_way:
            run.step()
    else:
        with Progress(progress, total=len(bank), unit="requests") as said:
            while run.under_way:
                said.advance(run.step())
    return run.result()


class _Run:
    """Requests of a bank on their way through slots."""

    def __init__(
        self,
        denoiser: Denoiser,
        book: ProgramBook,
        bank: Requests,
        policy: Policy,
        prices: float | np.ndarray,
        student: Student | None,
        slots: int,
        entries: Sequence[Entry] | None,
        budgets: np.ndarray | None,
        *,
        keep: bool,
    ) -> None:
        count = len(bank)
        self._prices = np.broadcast_to(np.asarray(prices, dtype=np.float64), (count,)).copy() if count else np.zeros(0)
        lengths = [len(part) for part in (entries, budgets) if part is not None]
        if not count or slots < 1 or any(length != count for length in lengths):
            raise BadInput(
                f"requests: {count} of them, {slots} slots, {lengths} programs or budgets; expected at least one of "
                "each, and as many programs and budgets as requests"
            )
        self._bank, self._policy, self._entries, self._budgets = bank, policy, entries, budgets
        self._noise, self._condition = bank.noise().to(bank.endpoints), bank.condition()
        self._size = min(slots, count)
        self._slots = Slots(denoiser, book, self._size, student=student, device=bank.endpoints.device)
        self._next = 0
        # Which request is in each slot, -1 for none, and what it has spent.
        self._request, self._spent = np.full(self._size, -1), np.zeros(self._size, dtype=np.int64)
        self._samples = torch.full_like(bank.endpoints, torch.nan, dtype=torch.float32)
        self._nfe, self._failed = np.zeros(count, dtype=np.int64), np.full(count, -1)
        self._reasons = [""] * count
        self._steps: list[tuple[np.ndarray, ...]] = []
        self._keep = keep
        self._fill()

    @property
    def under_way(self) -> bool:
        """Whether a request has no answer yet."""
        return bool((self._request >= 0).any())

    def step(self) -> int:
        """Let the policy decide and the slots act; return how many requests ended."""
        slots = np.flatnonzero(self._request >= 0)
        seen = self._slots.observe()[slots]
        said = self._policy.decide(seen)
        decision = said if isinstance(said, Decision) else Decision(said, None, np.full(len(slots), np.nan))
        actions = np.tile(STATIC, (self._size, 1))
        actions[slots] = decision.actions
        gates = None
        if decision.gates is not None:
            gates = np.tile(np.eye(len(EXPERTS))[STATIC[1]], (self._size, 1))
            gates[slots] = decision.gates
        outcome = self._slots.act(actions, gates)
        self._write(slots, outcome, decision, seen)
        done = np.flatnonzero(_host(outcome.done))
        self._finish(done, outcome)
        self._fill()
        return len(done)

    def result(self) -> Rolled:
        """All answers."""
        requests = np.concatenate([step[0] for step in self._steps])
        # The number of each decision within its request: steps are in the order of time.
        order = np.argsort(requests, kind="stable")
        counts = np.bincount(requests, minlength=len(self._bank))
        places = np.empty_like(requests)
        places[order] = np.arange(len(requests)) - np.repeat(np.cumsum(counts) - counts, counts)
        longest = int(counts.max())

        def table(column: int, filler: float, kind: type[np.generic]) -> np.ndarray:
            values = np.concatenate([step[column] for step in self._steps])
            whole = np.full((len(self._bank), longest, *values.shape[1:]), filler, dtype=kind)
            whole[requests, places] = values
            return whole

        return Rolled(
            errors=errors_to(self._samples, self._bank.endpoints),
            nfe=self._nfe,
            samples=self._samples,
            failed=self._failed,
            prices=self._prices,
            reasons=tuple(self._reasons),
            experts=table(1, -1, np.int8),
            sigmas=table(2, np.nan, np.float64),
            spent=table(3, 0, np.int16),
            actions=table(4, -1, np.int8),
            confidence=table(5, np.nan, np.float32),
            observations=table(6, np.nan, np.float32) if self._keep else None,
            refused=int(self._slots.refused),
        )

    def _write(self, slots: np.ndarray, outcome: Outcome, decision: Decision, seen: np.ndarray) -> None:
        spent = _host(outcome.evaluations)[slots]
        step = (
            self._request[slots],
            _host(outcome.used)[slots],
            _host(outcome.sigmas)[slots],
            spent - self._spent[slots],
            np.asarray(decision.actions),
            decision.confidence,
            seen if self._keep else np.zeros(len(slots)),
        )
        self._steps.append(step)
        self._spent[slots] = spent

    def _finish(self, done: np.ndarray, outcome: Outcome) -> None:
        if not len(done):
            return
        requests, index = self._request[done], torch.from_numpy(done).to(outcome.samples.device)
        self._samples[torch.from_numpy(requests).to(self._samples.device)] = outcome.samples[index].float()
        self._nfe[requests] = _host(outcome.evaluations)[done]
        self._failed[requests] = _host(outcome.failed)[done]
        for slot, request in zip(done.tolist(), requests.tolist(), strict=True):
            self._reasons[request] = outcome.reasons[slot]
        self._request[done] = -1

    def _fill(self) -> None:
        free = np.flatnonzero(self._request < 0)[: len(self._bank) - self._next]
        if not len(free):
            return
        requests = np.arange(self._next, self._next + len(free))
        self._next += len(free)
        index = torch.from_numpy(requests).to(self._noise.device)
        condition = None if self._condition is None else self._condition.rows(index)
        self._slots.fill(
            torch.from_numpy(free),
            self._noise[index],
            condition,
            self._bank.labels[index],
            self._bank.scales[index],
            torch.from_numpy(self._prices[requests]),
            None if self._budgets is None else torch.from_numpy(self._budgets[requests]),
            None if self._entries is None else [self._entries[request] for request in requests.tolist()],
        )
        self._request[free], self._spent[free] = requests, 0


def _host(values: torch.Tensor | np.ndarray) -> np.ndarray:
    return values.cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
