"""What a finished request is worth to the controller: its answer against that of the static program, evaluations paid.

Both answer the same noise, so what makes one noise harder than another is no part of the reward: whoever follows the
static program earns nothing and loses nothing. A small term asks whether the answer looks like one of the teacher's:
to become another picture is cheap where that is a good one, and dear where it is none. No classifier has a say in it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np
import torch
import torch.nn.functional as F

from vernissage.core.errors import BadInput, BadParams
from vernissage.sampler.domain.sampling import run_program
from vernissage.sampler.learn.classifiers import Embedding, RandomFeatures
from vernissage.sampler.learn.grid import Pairs, saturating

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vernissage.sampler.domain.denoiser import Condition, Denoiser
    from vernissage.sampler.learn.book import Entry, ProgramBook

#: Weight of the discriminator's term unless told otherwise.
LIKENESS_WEIGHT = 0.05

_NEWTON_STEPS = 12
# A verdict is never more certain than this many units of log-odds.
_MOST_CERTAIN = 6.0


class Requests(Pairs, Protocol):
    """Requests with endpoints, as a bank of the teacher has them."""

    @property
    def labels(self) -> torch.Tensor:
        """(N,) long classes, or numbers of prompts."""
        ...

    def rows(self, index: torch.Tensor) -> Self:
        """Some requests, by (M,) long or (N,) bool."""
        ...


@dataclass(frozen=True, eq=False)
class Reward:
    """Rewards of M finished requests, and what they are made of.

    Attributes:
        quality: (M,) ``phi(e_static) - phi(e)``, above 0 where the answer is nearer to the teacher's than the static
            program's; -1 to 1.
        cost: (M,) ``price (NFE - NFE_static)``.
        likeness: (M,) what the discriminator adds, weight included.
    """

    quality: np.ndarray
    cost: np.ndarray
    likeness: np.ndarray

    @property
    def improvement(self) -> np.ndarray:
        """(M,) value of the answer less that of the static program's, where value is ``-phi(e) - price NFE``."""
        return np.asarray(self.quality - self.cost)

    @property
    def total(self) -> np.ndarray:
        """(M,) what is learned from."""
        return np.asarray(self.quality - self.cost + self.likeness)


def saturated(errors: np.ndarray, tau: float) -> np.ndarray:
    """``1 - exp(-e^2 / (2 tau^2))`` of (...) root mean square errors; 1 where an error is infinite."""
    squared = torch.from_numpy(np.square(np.asarray(errors, dtype=np.float64)))
    return saturating(squared, tau).numpy()


def reward_of(
    errors: np.ndarray,
    evaluations: np.ndarray,
    static_errors: np.ndarray,
    static_evaluations: np.ndarray,
    prices: np.ndarray,
    tau: float,
    likeness: np.ndarray | None = None,
) -> Reward:
    """Compare answers with those of the static program to the same noise (a control variate).

    Args:
        errors: (M,) root mean square errors to the teacher's endpoint, infinite for samples that are not finite.
        evaluations: (M,) network evaluations that were taken.
        static_errors: (M,) errors of the static programs.
        static_evaluations: (M,) their evaluations.
        prices: (M,) what one evaluation costs, in units of the saturating error.
        tau: Scale of the saturation.
        likeness: (M,) what a discriminator adds; nothing where left out.

    Raises:
        BadInput: If lengths differ.
    """
    parts = (errors, evaluations, static_errors, static_evaluations, prices)
    lengths = [len(part) for part in parts] + ([] if likeness is None else [len(likeness)])
    if len(set(lengths)) != 1:
        raise BadInput(f"reward: parts of lengths {lengths}, expected one number of each for every request")
    quality = saturated(static_errors, tau) - saturated(errors, tau)
    cost = prices * (np.asarray(evaluations, dtype=np.float64) - static_evaluations)
    return Reward(quality, cost, np.zeros(len(quality)) if likeness is None else np.asarray(likeness, dtype=np.float64))


def errors_to(samples: torch.Tensor, endpoints: torch.Tensor) -> np.ndarray:
    """Root mean square errors over the pixels of each sample.

    Args:
        samples: (M, C, H, W).
        endpoints: (M, C, H, W).

    Returns:
        (M,) float64, infinite for samples that are not finite.
    """
    squared = (samples.double() - endpoints.double()).square().flatten(1).mean(dim=1)
    found: np.ndarray = squared.where(squared.isfinite(), torch.inf).sqrt().cpu().numpy()
    return found


class Pooled:
    """An embedding for pictures of any shape: means of a coarse grid, and the spread of each channel.

    Args:
        shape: (C, H, W) of one picture.
        side: Cells of the grid along each side, at most.
    """

    def __init__(self, shape: tuple[int, int, int], side: int = 4) -> None:
        self.shape = shape
        self._grid = (min(side, shape[1]), min(side, shape[2]))

    @torch.no_grad()
    def features(self, pictures: torch.Tensor) -> torch.Tensor:
        """Embed (N, C, H, W) pictures as (N, F) float32."""
        values = pictures.float()
        means = F.adaptive_avg_pool2d(values, self._grid).flatten(1)
        return torch.cat((means, values.flatten(2).std(dim=2)), dim=1)


def usual_embedding(shape: tuple[int, int, int], seed: int = 0) -> Embedding:
    """An embedding that needs no training: random convolutions, or coarse means where those do not fit the shape."""
    try:
        return RandomFeatures(shape, seed, features=64)
    except BadParams:
        return Pooled(shape)


class StaticAnswers:
    """What the programs of a book answer to the requests of a bank, asked for when needed and then kept.

    Args:
        denoiser: The network.
        book: Programs; those of the family that is shipped count.
        requests: A bank, on the network's device.
        embedding: Features of the answers are kept as well; none where left out.
        batch: Samples that go through the network at once.

    Attributes:
        entries: The programs, P of them.
        noise: (N, C, H, W) of the requests.
        condition: Of the requests.
        requests: The bank.
        evaluations: Rows of network calls that were spent here.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        book: ProgramBook,
        requests: Requests,
        embedding: Embedding | None = None,
        *,
        batch: int = 512,
    ) -> None:
        if not len(requests):
            raise BadInput("static answers: no requests, expected at least one; make a bank with more of them")
        self.entries: tuple[Entry, ...] = book.family(book.shipped)
        self.book, self.requests, self.evaluations = book, requests, 0
        self.noise = requests.noise().to(requests.endpoints)
        self.condition: Condition | None = requests.condition()
        self._denoiser, self._embedding, self._batch = denoiser, embedding, batch
        self._places = {id(entry): place for place, entry in enumerate(self.entries)}
        self._errors = np.full((len(requests), len(self.entries)), np.nan)
        self._endpoint_features = None if embedding is None else embedding.features(requests.endpoints).cpu()
        width = 0 if self._endpoint_features is None else self._endpoint_features.shape[1]
        self._features = torch.zeros(len(requests), len(self.entries), width)

    def place(self, entry: Entry) -> int:
        """Which of ``entries`` it is.

        Raises:
            BadInput: If it is none of them.
        """
        if id(entry) not in self._places:
            raise BadInput(f"static answers: program {entry.program.name} is not one that this book ships")
        return self._places[id(entry)]

    def errors(self, rows: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Errors of programs.

        Args:
            rows: (M,) requests.
            places: (M,) which of ``entries``, one for each.

        Returns:
            (M,) float64, infinite where a sample is not finite.
        """
        self._answer(rows, places)
        return np.asarray(self._errors[rows, places])

    def features(self, rows: np.ndarray, places: np.ndarray) -> torch.Tensor:
        """(M, F) float32 features of the answers, on the CPU; zeros for samples that are not finite."""
        self._answer(rows, places)
        return self._features[torch.from_numpy(rows), torch.from_numpy(places)]

    def endpoint_features(self, rows: np.ndarray) -> torch.Tensor:
        """(M, F) float32 features of the teacher's endpoints, on the CPU.

        Raises:
            BadInput: If there is no embedding.
        """
        if self._endpoint_features is None:
            raise BadInput("static answers: no embedding was given, so there are no features")
        return self._endpoint_features[torch.from_numpy(rows)]

    def state(self) -> dict[str, torch.Tensor]:
        """Answers so far, for a checkpoint: what is asked again is rounded as it was then."""
        rows, places = (torch.from_numpy(index) for index in np.nonzero(~np.isnan(self._errors)))
        errors = torch.from_numpy(self._errors[rows.numpy(), places.numpy()])
        return {"rows": rows, "places": places, "errors": errors, "features": self._features[rows, places]}

    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        """Put back what :meth:`state` returned."""
        self._errors[:] = np.nan
        self._errors[state["rows"].numpy(), state["places"].numpy()] = state["errors"].numpy()
        self._features[state["rows"], state["places"]] = state["features"]

    def _answer(self, rows: np.ndarray, places: np.ndarray) -> None:
        unknown = np.isnan(self._errors[rows, places])
        asked = np.unique(np.stack((rows[unknown], places[unknown]), axis=1), axis=0)
        for first in range(0, len(asked), self._batch):
            self._run(*asked[first : first + self._batch].T)

    def _run(self, rows: np.ndarray, places: np.ndarray) -> None:
        index = torch.from_numpy(rows.copy()).to(self.noise.device)
        chosen = [self.entries[place] for place in places.tolist()]
        condition = None if self.condition is None else self.condition.rows(index)
        guidance = None if condition is None else _guidance(chosen, self.requests.scales[index])
        programs = [entry.program for entry in chosen]
        sampled = run_program(self._denoiser, self.noise[index], condition, programs, guidance)
        self.evaluations += int(sampled.evaluations.sum())
        self._errors[rows, places] = errors_to(sampled.samples, self.requests.endpoints[index])
        if self._embedding is not None:
            features = features_of(self._embedding, sampled.samples)
            self._features[torch.from_numpy(rows.copy()), torch.from_numpy(places.copy())] = features


def features_of(embedding: Embedding, samples: torch.Tensor) -> torch.Tensor:
    """(M, F) float32 features on the CPU, zeros for samples that are not finite."""
    finite = samples.flatten(1).isfinite().all(dim=1)
    # Zeros stand in, so that a batch without a finite sample has a width, too.
    found = embedding.features(samples.where(finite.view(-1, 1, 1, 1), 0)).float().cpu()
    return found * finite.cpu().unsqueeze(1)


def _guidance(entries: list[Entry], scales: torch.Tensor) -> torch.Tensor | None:
    """(M, E) scale of each call of M programs, ones where shorter programs have none."""
    if bool((scales == 1).all()):
        return None
    shares = torch.zeros(len(entries), max(entry.calls for entry in entries))
    for row, entry in zip(shares, entries, strict=True):
        row[: entry.calls] = torch.tensor(entry.shares)
    return 1 + (scales[:, None] - 1) * shares.to(scales)


class Discriminator:
    """Logistic regression between the teacher's endpoints and our samples, over features that do not learn.

    What it knows is fitted anew now and then, on the latest requests: endpoints and samples of the same ones, so no
    class or guidance tells them apart. Its verdict is the probability that a sample is the teacher's.

    Args:
        weight: Of its term in the reward; 0 leaves it out.
        keep: Latest samples that it is fitted on.
        ridge: Squared penalty on the weights for standardised features, per sample.

    Raises:
        BadParams: If a setting is out of its range.
    """

    def __init__(self, weight: float = LIKENESS_WEIGHT, *, keep: int = 2048, ridge: float = 0.01) -> None:
        if not 0 <= weight <= 1 or keep < 2 or not 0 < ridge < math.inf:
            raise BadParams(
                f"discriminator: weight = {weight}, keep = {keep}, ridge = {ridge}; expected a weight from 0 to 1, at "
                "least 2 samples and a penalty above 0"
            )
        self.weight, self.keep, self.ridge = weight, keep, ridge
        self._ours = self._theirs = torch.zeros(0, 0)
        self._model: dict[str, torch.Tensor] = {}

    @property
    def fitted(self) -> bool:
        """Whether it has a verdict; before, it gives one half to everything."""
        return bool(self._model)

    def remember(self, ours: torch.Tensor, theirs: torch.Tensor) -> None:
        """Keep (M, F) features of our samples and of the teacher's endpoints of the same requests for the next fit."""
        first = not self._ours.numel()
        self._ours = (ours if first else torch.cat((self._ours, ours)))[-self.keep :].clone()
        self._theirs = (theirs if first else torch.cat((self._theirs, theirs)))[-self.keep :].clone()

    def refresh(self) -> None:
        """Fit what is remembered, by Newton's method; without samples nothing happens."""
        if not len(self._ours):
            return
        seen = torch.cat((self._theirs, self._ours)).double()
        mean, spread = seen.mean(dim=0), seen.std(dim=0).clamp_min(1e-6)
        inputs = torch.cat(((seen - mean) / spread, torch.ones(len(seen), 1, dtype=torch.float64)), dim=1)
        truth = torch.cat((torch.ones(len(self._theirs)), torch.zeros(len(self._ours)))).double()
        penalty = torch.full((inputs.shape[1],), self.ridge * len(seen), dtype=torch.float64)
        weights = torch.zeros_like(penalty)
        for _ in range(_NEWTON_STEPS):
            probability = (inputs @ weights).clamp(-_MOST_CERTAIN, _MOST_CERTAIN).sigmoid()
            slope = inputs.T @ (probability - truth) + penalty * weights
            curvature = (inputs.T * (probability * (1 - probability))) @ inputs + penalty.diag()
            weights = weights - torch.linalg.solve(curvature, slope)
        self._model = {"mean": mean, "spread": spread, "weights": weights}

    def verdict(self, features: torch.Tensor) -> np.ndarray:
        """(M,) float64 probabilities, 0 to 1, that (M, F) features are the teacher's."""
        if not self._model:
            return np.full(len(features), 0.5)
        inputs = (features.double() - self._model["mean"]) / self._model["spread"]
        odds = inputs @ self._model["weights"][:-1] + self._model["weights"][-1]
        found: np.ndarray = odds.clamp(-_MOST_CERTAIN, _MOST_CERTAIN).sigmoid().numpy()
        return found

    def term(self, ours: torch.Tensor, static: torch.Tensor) -> np.ndarray:
        """What it adds to rewards: its verdict on (M, F) our samples less that on the static program's, weighted."""
        return np.asarray(self.weight * (self.verdict(ours) - self.verdict(static)))

    def state(self) -> dict[str, torch.Tensor]:
        """What it knows and remembers, for a checkpoint."""
        return {"ours": self._ours, "theirs": self._theirs, **self._model}

    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        """Put back what :meth:`state` returned."""
        self._ours, self._theirs = state["ours"].clone(), state["theirs"].clone()
        self._model = {key: value.clone() for key, value in state.items() if key not in {"ours", "theirs"}}
