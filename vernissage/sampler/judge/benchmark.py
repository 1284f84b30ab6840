"""Compares arms on the same held-out requests: error to the teacher, distances of sets, evaluations at equal quality.

Measuring runs every arm at each of its budgets on one bank per noise seed and sums up. Comparing works on the items
alone: noises are resampled, the same ones for all arms, so what makes one noise harder than another cancels.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from vernissage.core.errors import BadInput, BadParams, CorruptArtifact
from vernissage.core.files import atomic_write_json, read_json
from vernissage.core.parallel import in_parts
from vernissage.core.seeds import numpy_generator
from vernissage.sampler.judge.arms import HEUN_CALLS, LADDER, BankLike, Requests, SamplerArm
from vernissage.sampler.judge.distances import (
    frechet_at_infinity,
    frechet_distance,
    kernel_distance,
    memorisation,
    moments,
    neighbourhoods,
    saturating,
    sliced_wasserstein,
)
from vernissage.sampler.judge.equal_quality import equivalence_of_seeds

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from vernissage.core.progress import Progress
    from vernissage.sampler.domain.denoiser import Denoiser
    from vernissage.sampler.domain.sampling import Sampled
    from vernissage.sampler.judge.distances import Moments
    from vernissage.sampler.learn.classifiers import Classifier, Embedding

    Floats = NDArray[np.float64]

ITEMS_FILE, TABLE_FILE = "items.parquet", "table.json"

#: What is known of each sample.
COLUMNS = ("arm", "budget", "noise_seed", "seed", "label", "scale", "error", "nfe", "failed", "class_right")

#: Distances of sets, in the order in which rows have them.
FIGURES = (
    "fd",
    "fd_seed_mean",
    "fd_seed_sd",
    "fd_infinity",
    "fd_infinity_error",
    "kid",
    "kid_spread",
    "precision",
    "recall",
    "density",
    "coverage",
    "fd_random",
    "sliced_wasserstein",
    "nearer_to_train",
    "copied",
)

_LOW, _HIGH = 0.025, 0.975
_LEAST_SEEDS = 3
_LEAST_TEST = 100
#: Errors below this count as this, so that a sample that is exact has a logarithm.
_LEAST_ERROR = 1e-9
_BLOCK = 64


@dataclass(frozen=True)
class BenchmarkSettings:
    """How thoroughly is measured, and what is compared; stated before anything is measured.

    Attributes:
        tau: Scale of the saturating error, in units of the pixels: the book's.
        seed: Draws resamplings, subsets and directions.
        resamples: Resamplings behind each interval.
        bar_budgets: Numbers of calls of a bar at which equal quality is asked for; ratios are averaged over them.
        reference_budget: The one of them that attribution shows evaluations for.
        fd_margin: By how much a Frechet distance may be larger and still count as not worse; the standard deviation of
            the bar between noise seeds where left out.
        infinity_points: Subsets of the extrapolated Frechet distance; 0 leaves it out.
        kernel_subsets: Subsets of the kernel distance; 0 leaves it out.
        kernel_size: Samples of each.
        neighbour_rows: Most samples and most real pictures for density, coverage and memorisation, whose work grows
            with the square; 0 leaves them out.
        directions: Directions of the sliced Wasserstein distance; 0 leaves it out.

    Raises:
        BadParams: If a value is out of its range.
    """

    tau: float
    seed: int = 0
    resamples: int = 1000
    bar_budgets: tuple[int, ...] = (5, 6, 7, 8)
    reference_budget: int = 6
    fd_margin: float | None = None
    infinity_points: int = 15
    kernel_subsets: int = 10
    kernel_size: int = 500
    neighbour_rows: int = 1000
    directions: int = 128

    def __post_init__(self) -> None:
        if not 0 < self.tau < math.inf:
            raise BadParams(f"benchmark: tau = {self.tau}, expected a number above 0")
        if self.resamples < 100 or not self.bar_budgets:
            raise BadParams(
                f"benchmark: {self.resamples} resamplings and bar budgets {self.bar_budgets}, expected at least 100 "
                "and at least one budget"
            )
        if self.fd_margin is not None and not 0 < self.fd_margin < math.inf:
            raise BadParams(f"benchmark: fd_margin = {self.fd_margin}, expected a number above 0, or none")


@dataclass(frozen=True, eq=False)
class RealPictures:
    """Real pictures, (N, C, H, W) float in [-1, 1].

    Attributes:
        train: What the network was taught.
        test: What it never saw.
    """

    train: torch.Tensor
    test: torch.Tensor

    @property
    def all(self) -> torch.Tensor:
        """Both: what distances of sets are measured to."""
        return torch.cat((self.train, self.test))


@dataclass(frozen=True, eq=False)
class Measured:
    """What was measured.

    Attributes:
        items: One row per arm, budget and request; see ``COLUMNS``. Errors are root mean square errors to the teacher's
            endpoint; nan for samples that are not finite.
        rows: One per arm and budget, see :func:`measure`.
        floors: ``teacher`` (its own endpoints as if they were an arm's), ``teacher_halved`` and ``real`` (Frechet
            distances of as many endpoints and as many real test pictures to equally many real training pictures).
        settings: What was measured and compared.
    """

    items: pd.DataFrame
    rows: list[dict[str, Any]]
    floors: dict[str, Any]
    settings: BenchmarkSettings

    def row(self, arm: str, budget: float) -> dict[str, Any]:
        """The row of an arm at a budget.

        Raises:
            BadInput: If that was not measured.
        """
        for row in self.rows:
            if row["arm"] == arm and row["budget"] == budget:
                return row
        raise BadInput(f"benchmark: no row of {arm} at {budget:g}; it was not measured")

    def of_role(self, role: str) -> list[dict[str, Any]]:
        """Rows of the arms with a role."""
        return [row for row in self.rows if row["role"] == role]

    def save(self, folder: Path, ours: str | None = None) -> dict[str, Any]:
        """Write items and table into a folder.

        Args:
            folder: Is made.
            ours: The arm whose savings are the headline; see :func:`benchmark_table`.

        Returns:
            The table.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.items.to_parquet(folder / ITEMS_FILE, index=False)
        table = benchmark_table(self, ours)
        atomic_write_json(folder / TABLE_FILE, table)
        return table

    @staticmethod
    def load(folder: Path) -> Measured:
        """Read what :meth:`save` wrote.

        Raises:
            MissingArtifact: If there is nothing.
            CorruptArtifact: If it is not what was written.
        """
        document = read_json(folder / TABLE_FILE)
        try:
            settings = dict(document["settings"])
            settings["bar_budgets"] = tuple(settings["bar_budgets"])
            items = pd.read_parquet(folder / ITEMS_FILE)
            return Measured(items, document["rows"], document["floors"], BenchmarkSettings(**settings))
        except (KeyError, TypeError, ValueError, OSError, BadParams) as error:
            raise CorruptArtifact(
                f"{folder}: not a benchmark of the sampler ({error}); run `dvc repro benchmark@sampler`"
            ) from error


# --- measuring --------------------------------------------------------------------------------------------------------


def count_results(arms: Iterable[SamplerArm], banks: Mapping[int, BankLike]) -> int:
    """How many samples :func:`measure` takes, for a progress bar."""
    total = sum(len(bank) for bank in banks.values())
    return sum(len(arm.budgets) * (total if arm.limit is None else min(arm.limit, total)) for arm in arms)


def measure(
    arms: Sequence[SamplerArm],
    denoiser: Denoiser,
    banks: Mapping[int, BankLike],
    *,
    classifier: Embedding,
    second: Classifier | None,
    random_features: Embedding | None,
    real: RealPictures,
    settings: BenchmarkSettings,
    progress: Progress | None = None,
) -> Measured:
    """Run every arm at every budget on every bank.

    Args:
        arms: Each name once.
        denoiser: The network.
        banks: Noise seed to requests with endpoints that nothing was tuned on; all of one size, so that distances of
            sets compare.
        classifier: Its features carry the Frechet distance.
        second: Says whether a picture shows the class that was asked for; none where requests have no classes.
        random_features: A second space of features.
        real: Real pictures.
        settings: How thoroughly.
        progress: Told how many samples are done.

    Returns:
        Items, and rows with ``arm, role, dial, budget, requests, failed``; ``nfe`` (mean), ``nfe_p50, nfe_p95,
        nfe_max``; ``error_mean, error_median, error_p95, saturated``, each with ``_low`` and ``_high``; ``fd`` of all
        noise seeds together, ``fd_seeds`` one by one with ``fd_seed_mean`` and ``fd_seed_sd``; ``fd_infinity, kid,
        kid_spread, precision, recall, density, coverage, fd_random, sliced_wasserstein``; ``class_accuracy``; and
        ``nearer_to_train, copied`` of memorisation. None where something was not or could not be measured.

    Raises:
        BadInput: No arms or banks, two of one name, banks of different sizes, or an arm that charges too little.
    """
    names = [arm.name for arm in arms]
    if not names or len(set(names)) < len(names):
        raise BadInput(f"benchmark: arms {', '.join(names) or '(none)'}; expected at least one, each name once")
    sizes = {len(bank) for bank in banks.values()}
    if len(sizes) != 1 or not min(sizes):
        raise BadInput(f"benchmark: banks of {sorted(sizes)} requests, expected one size for all noise seeds")
    drawn = {seed: Requests.of(bank) for seed, bank in banks.items()}
    there = next(iter(drawn.values())).endpoints.device
    sets = _Sets(classifier, random_features, RealPictures(real.train.to(there), real.test.to(there)), settings)
    frames: list[pd.DataFrame] = []
    rows: list[dict[str, Any]] = []
    for arm in arms:
        asked = _limited(drawn, arm.limit)
        for budget in arm.budgets:
            answers = _answers(arm, denoiser, asked, budget, progress)
            frame = pd.concat(
                [_items(arm.name, budget, seed, asked[seed], answers[seed], second) for seed in asked],
                ignore_index=True,
            )
            frames.append(frame)
            facts = {"arm": arm.name, "role": arm.role, "dial": arm.dial, "budget": float(budget)}
            rows.append(
                facts | _summary(frame, settings) | sets.figures([answer.samples for answer in answers.values()])
            )
    floors = {
        "teacher": sets.figures([requests.endpoints for requests in drawn.values()])
        | {"class_accuracy": _accuracy(second, drawn.values())},
        **sets.halves(torch.cat([requests.endpoints for requests in drawn.values()])),
    }
    return Measured(pd.concat(frames, ignore_index=True), rows, floors, settings)


def _answers(
    arm: SamplerArm, denoiser: Denoiser, asked: Mapping[int, Requests], budget: float, progress: Progress | None
) -> dict[int, Sampled]:
    """What an arm makes of each bank, one thread for each; networks of its own count for one bank at a time."""
    seeds = list(asked)

    def answer(rows: slice) -> list[Sampled]:
        made = []
        for seed in seeds[rows]:
            made.append(arm.sample(denoiser, asked[seed], budget))
            if progress is not None:
                progress.advance(len(asked[seed]), arm=arm.name, budget=budget)
        return made

    alone = bool(arm.networks) or asked[seeds[0]].endpoints.device.type != "cpu"
    parts = in_parts(answer, len(seeds), 1, threads=1 if alone else None)
    return dict(zip(seeds, (sampled for part in parts for sampled in part), strict=True))


def _limited(drawn: Mapping[int, Requests], limit: int | None) -> dict[int, Requests]:
    """The first requests of the first banks, at most so many in all."""
    if limit is None:
        return dict(drawn)
    chosen: dict[int, Requests] = {}
    for seed, requests in drawn.items():
        if limit > 0:
            chosen[seed] = requests.first(limit)
            limit -= len(chosen[seed])
    return chosen


def _items(
    arm: str, budget: float, noise_seed: int, requests: Requests, sampled: Sampled, second: Classifier | None
) -> pd.DataFrame:
    samples, endpoints = sampled.samples, requests.endpoints
    squared = (samples.double() - endpoints.double()) if samples.device.type != "mps" else samples - endpoints
    error = squared.square().flatten(1).mean(dim=1).sqrt()
    return pd.DataFrame(
        {
            "arm": arm,
            "budget": float(budget),
            "noise_seed": noise_seed,
            "seed": requests.seeds.tolist(),
            "label": requests.labels.tolist(),
            "scale": requests.scales.double().tolist(),
            "error": error.double().cpu().numpy(),
            "nfe": sampled.evaluations.cpu().numpy(),
            "failed": sampled.failed.cpu().numpy(),
            "class_right": _class_right(second, samples, requests.labels),
        }
    )


def _class_right(second: Classifier | None, samples: torch.Tensor, labels: torch.Tensor) -> Floats:
    """(N,) 1 where the class is the one that was asked for; nan where nobody can tell."""
    right = np.full(len(samples), np.nan)
    if second is None:
        return right
    told = (samples.flatten(1).isfinite().all(dim=1) & (labels.to(samples.device) >= 0)).nonzero().flatten()
    if len(told):
        named = second.probabilities(samples[told]).argmax(dim=1)
        right[told.cpu().numpy()] = (named.cpu() == labels[told.to(labels.device)].cpu()).numpy()
    return right


def _accuracy(second: Classifier | None, drawn: Iterable[Requests]) -> float | None:
    right = [_class_right(second, requests.endpoints, requests.labels) for requests in drawn]
    return _mean(np.concatenate(right))


def _summary(frame: pd.DataFrame, settings: BenchmarkSettings) -> dict[str, Any]:
    """What the items of one arm at one budget say."""
    nfe, failed = frame["nfe"].to_numpy(np.float64), frame["failed"].to_numpy()
    error = frame["error"].to_numpy(np.float64)
    known = error[np.isfinite(error)]
    # A sample that is not finite is as wrong as a picture can be.
    phi = np.where(np.isfinite(error), saturating(np.nan_to_num(error), settings.tau), 1.0)
    row: dict[str, Any] = {
        "requests": len(frame),
        "failed": int((failed != -1).sum()),
        "nfe": float(nfe.mean()),
        "nfe_p50": float(np.quantile(nfe, 0.5)),
        "nfe_p95": float(np.quantile(nfe, 0.95)),
        "nfe_max": float(nfe.max()),
        "class_accuracy": _mean(frame["class_right"].to_numpy(np.float64)),
    }
    for name, values in (("error_mean", known), ("saturated", phi)):
        row |= _interval(name, _mean_interval(values, settings))
    for name, q in (("error_median", 0.5), ("error_p95", 0.95)):
        row |= _interval(name, _quantile_interval(known, q))
    return row


class _Sets:
    """Real pictures in both spaces of features, embedded once, and distances to them."""

    def __init__(
        self, classifier: Embedding, random_features: Embedding | None, real: RealPictures, settings: BenchmarkSettings
    ) -> None:
        self._classifier, self._random, self._real, self._settings = classifier, random_features, real, settings
        self._train = classifier.features(real.train)
        self._test = classifier.features(real.test) if len(real.test) else self._train[:0]
        self._features = torch.cat((self._train, self._test))
        self._moments = _moments_or_none(self._features)
        self._random_moments = None if random_features is None else _moments_or_none(random_features.features(real.all))
        # What is shown is clipped; of latents nobody knows the range but from real ones.
        self._range = (float(real.all.min()), float(real.all.max()))

    def figures(self, parts: Sequence[torch.Tensor]) -> dict[str, Any]:
        """Distances of samples, one (N, C, H, W) per noise seed; those that are not finite are left out."""
        finite = [part[part.flatten(1).isfinite().all(dim=1)] for part in parts]
        pictures = torch.cat(finite)
        found: dict[str, Any] = dict.fromkeys(FIGURES) | {"fd_seeds": []}
        if not len(pictures):
            return found
        settings = self._settings
        features = [self._classifier.features(part) if len(part) else self._features[:0] for part in finite]
        pooled = torch.cat(features)
        width = pooled.shape[1]
        if self._moments is not None:
            if len(pooled) > width:
                found["fd"] = frechet_distance(pooled, self._moments)
            # One noise seed that is too small for a covariance would leave a list that pairs with no other.
            if all(len(part) > width for part in features) and len(features) > 1:
                seeds = found["fd_seeds"] = [frechet_distance(part, self._moments) for part in features]
                found |= {"fd_seed_mean": float(np.mean(seeds)), "fd_seed_sd": float(np.std(seeds, ddof=1))}
            if settings.infinity_points and len(pooled) >= 2 * (width + 1):
                far = frechet_at_infinity(pooled, self._moments, seed=settings.seed, points=settings.infinity_points)
                found |= {"fd_infinity": far.value, "fd_infinity_error": far.error}
        size = min(settings.kernel_size, len(pooled), len(self._features))
        if settings.kernel_subsets > 1 and size > 1:
            kernel = kernel_distance(
                pooled, self._features, seed=settings.seed, subsets=settings.kernel_subsets, size=size
            )
            found |= {"kid": kernel.value, "kid_spread": kernel.spread}
        return found | self._near(pictures, pooled) | self._elsewhere(pictures)

    def _near(self, pictures: torch.Tensor, features: torch.Tensor) -> dict[str, Any]:
        """Density and coverage, and memorisation, on a part of the rows."""
        rows = self._settings.neighbour_rows
        found: dict[str, Any] = {}
        if not rows:
            return found
        chosen = _spread(len(features), rows)
        if len(chosen) > 5:
            near = neighbourhoods(features[chosen], self._features[_spread(len(self._features), rows)])
            found |= asdict(near)
        real = self._real
        if len(real.test) >= _LEAST_TEST:
            train, test = real.train[_spread(len(real.train), rows)], real.test[_spread(len(real.test), rows)]
            kept = memorisation(pictures[chosen].clamp(*self._range), train, test)
            found |= {"nearer_to_train": kept.nearer_to_train, "copied": kept.copied}
        return found

    def _elsewhere(self, pictures: torch.Tensor) -> dict[str, Any]:
        """Distances outside the classifier's features."""
        found: dict[str, Any] = {}
        if self._random is not None and self._random_moments is not None:
            features = self._random.features(pictures)
            if len(features) > features.shape[1]:
                found["fd_random"] = frechet_distance(features, self._random_moments)
        if self._settings.directions:
            found["sliced_wasserstein"] = sliced_wasserstein(
                pictures.clamp(*self._range),
                self._real.all,
                seed=self._settings.seed,
                directions=self._settings.directions,
            )
        return found

    def halves(self, endpoints: torch.Tensor) -> dict[str, Any]:
        """What real pictures and the teacher are from as many real training pictures as there are test pictures."""
        count = min(len(self._train), len(self._test), len(endpoints))
        if count <= self._train.shape[1]:
            return {"real": None, "teacher_halved": None}
        # Training pictures may come in the order of their classes.
        train = self._train[_spread(len(self._train), count)]
        test, teacher = self._test[_spread(len(self._test), count)], endpoints[_spread(len(endpoints), count)]
        return {
            "real": {"fd": frechet_distance(test, train), "pictures": count},
            "teacher_halved": {"fd": frechet_distance(self._classifier.features(teacher), train), "pictures": count},
        }


def _moments_or_none(features: torch.Tensor) -> Moments | None:
    """Mean and covariance; none where there are too few pictures for one."""
    return moments(features) if len(features) > features.shape[1] else None


def _spread(count: int, at_most: int) -> torch.Tensor:
    """At most so many of ``count`` indices, at even distances."""
    chosen = min(count, at_most)
    return torch.from_numpy(((np.arange(chosen) + 0.5) * count / max(1, chosen)).astype(np.int64))


# --- intervals --------------------------------------------------------------------------------------------------------


def resampled_means(values: Floats, resamples: int, seed: int) -> Floats:
    """Means of resamplings of the columns, the same columns for all rows.

    Args:
        values: (K, N) finite numbers.
        resamples: R.
        seed: Draws them.

    Returns:
        (R + 1, K); the first row has the means of all columns as they are.
    """
    count = values.shape[1]
    rng = numpy_generator(seed, "resampled means", count)
    means = np.empty((resamples + 1, len(values)))
    means[0] = values.mean(axis=1)
    for start in range(0, resamples, _BLOCK):
        some = min(_BLOCK, resamples - start)
        drawn = rng.integers(count, size=(some, count)) + count * np.arange(some)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=some * count).reshape(some, count)
        means[start + 1 : start + 1 + some] = weights @ values.T / count
    return means


def _mean_interval(values: Floats, settings: BenchmarkSettings) -> tuple[float, float, float] | None:
    if not len(values):
        return None
    means = resampled_means(values[None], settings.resamples, settings.seed)[:, 0]
    low, high = np.quantile(means[1:], (_LOW, _HIGH))
    return float(means[0]), float(low), float(high)


def _quantile_interval(values: Floats, q: float) -> tuple[float, float, float] | None:
    """A quantile with the percentile interval that a bootstrap has in the limit of infinitely many resamplings.

    The share of a resampling below a value is binomial, so nothing need be drawn (Efron 1979, section 3).
    """
    from scipy.stats import binom

    if not len(values):
        return None
    ranked, count = np.sort(values), len(values)
    low, high = (int(rank) for rank in np.clip(binom.ppf((_LOW, _HIGH), count, q), 0, count - 1))
    return float(np.quantile(ranked, q)), float(ranked[low]), float(ranked[high])


def _interval(name: str, found: tuple[float, float, float] | None) -> dict[str, Any]:
    return dict(zip((name, f"{name}_low", f"{name}_high"), found or (None, None, None), strict=True))


# --- equal quality ----------------------------------------------------------------------------------------------------


def crossings(spent: Floats, errors: Floats, wanted: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Evaluations at which arms are as good as wanted, for many resamplings at once.

    The same as :func:`vernissage.sampler.judge.equal_quality.equal_quality` for one of them: errors are made to fall
    with the evaluations (isotonic regression of the logarithms, by its min-max formula) and read off by straight lines
    in log error against log NFE.

    Args:
        spent: (R, K) mean evaluations.
        errors: (R, K) errors above 0.
        wanted: (R,) errors to reach.

    Returns:
        (R,) evaluations, infinite where not reached; and (R,) whether the least budget is more than good enough.
    """
    order = np.argsort(spent, axis=1, kind="stable")
    x = np.log(np.take_along_axis(spent, order, axis=1))
    y = _falling(np.log(np.take_along_axis(errors, order, axis=1)))
    goal = np.log(wanted)
    good = y <= goal[:, None] + 1e-12
    first, rows = good.argmax(axis=1), np.arange(len(y))
    before = np.maximum(first - 1, 0)
    drop = y[rows, before] - y[rows, first]
    share = np.where(first > 0, (y[rows, before] - goal) / np.where(drop > 0, drop, 1.0), 0.0).clip(0.0, 1.0)
    found = np.exp(x[rows, before] + share * (x[rows, first] - x[rows, before]))
    at_most = (first == 0) & (y[:, 0] < goal - 1e-12)
    return np.where(good.any(axis=1), found, np.inf), at_most & good.any(axis=1)


def _falling(values: Floats) -> Floats:
    """Closest rows that never rise: ``min over s <= i of max over t >= i of mean(s..t)`` (Barlow et al. 1972)."""
    count = values.shape[1]
    sums = np.concatenate((np.zeros((len(values), 1)), values.cumsum(axis=1)), axis=1)
    fitted = np.full_like(values, np.inf)
    for start in range(count):
        means = (sums[:, start + 1 :] - sums[:, start : start + 1]) / np.arange(1, count - start + 1)
        largest = np.maximum.accumulate(means[:, ::-1], axis=1)[:, ::-1]
        fitted[:, start:] = np.minimum(fitted[:, start:], largest)
    return fitted


@dataclass(eq=False)
class Curves:
    """Mean errors and evaluations of all arms on the same noises, as they are and resampled.

    Attributes:
        measured: What they come from.
        scale: Only requests with this guidance scale; all where left out.
        places: (arm, budget) to column.
        spent: (R + 1, columns) mean evaluations, the first row as they are.
        errors: (R + 1, columns) mean errors.
        noises: How many requests all arms have a finite error of.
        left_out: How many they do not.
    """

    measured: Measured
    scale: float | None = None
    places: dict[tuple[str, float], int] = field(init=False)
    spent: Floats = field(init=False)
    errors: Floats = field(init=False)
    noises: int = field(init=False)
    left_out: int = field(init=False)

    def __post_init__(self) -> None:
        settings, rows = self.measured.settings, self.measured.rows
        most = max(row["requests"] for row in rows)
        compared = {row["arm"] for row in rows if row["requests"] == most and row["role"] != "context"}
        items = self.measured.items
        items = items[items["arm"].isin(compared)]
        if self.scale is not None:
            items = items[items["scale"] == self.scale]
        wide = items.pivot(index=["noise_seed", "seed"], columns=["arm", "budget"], values=["error", "nfe"])
        if not len(wide):
            raise BadInput("benchmark: no arm was measured on all requests, so nothing can be compared")
        error, nfe = wide["error"], wide["nfe"]
        known = np.isfinite(error.to_numpy()).all(axis=1)
        self.noises, self.left_out = int(known.sum()), int((~known).sum())
        if not self.noises:
            raise BadInput("benchmark: no request was answered by all arms, so nothing can be compared")
        self.places = {(str(arm), float(budget)): place for place, (arm, budget) in enumerate(error.columns)}
        both = np.concatenate(
            (np.maximum(error.to_numpy()[known].T, _LEAST_ERROR), nfe[error.columns].to_numpy()[known].T)
        )
        means = resampled_means(both.astype(np.float64), settings.resamples, settings.seed)
        self.errors, self.spent = means[:, : len(self.places)], means[:, len(self.places) :]

    def columns(self, arm: str) -> list[int]:
        """Columns of an arm, one for each budget.

        Raises:
            BadInput: If it is not compared.
        """
        own = [place for (name, _), place in self.places.items() if name == arm]
        if not own:
            raise BadInput(f"benchmark: arm {arm} was not measured on all requests, so it cannot be compared")
        return own

    def bar(self, role: str, budget: float) -> tuple[str, float] | None:
        """The arm of a role that is best at a budget, by the mean error on these very requests; none if there is none.

        Choosing on the requests that are reported on favours the bar, never us.
        """
        names = {row["arm"] for row in self.measured.of_role(role)}
        there = [key for key in self.places if key[0] in names and key[1] == budget]
        return min(there, key=lambda key: self.errors[0, self.places[key]], default=None)

    def ratio(self, arm: str, bar: tuple[str, float]) -> tuple[Floats, bool]:
        """Evaluations of an arm over those of a bar at equal error: (R + 1,), and whether that is a bound only."""
        own, place = self.columns(arm), self.places[bar]
        nfe, at_most = crossings(self.spent[:, own], self.errors[:, own], self.errors[:, place])
        return nfe / self.spent[:, place], bool(at_most[0])


def saving(curves: Curves, arm: str, role: str, budgets: Sequence[float] | None = None) -> dict[str, Any] | None:
    """What an arm saves against the best arm of a role, at equal mean paired error.

    Args:
        curves: All arms.
        arm: Ours.
        role: The bar's.
        budgets: Budgets of the bar; those of the settings where left out.

    Returns:
        ``arm, bar``; ``ratio, low, high`` (geometric mean over the budgets, None where one of them is not reached) and
        ``saving, saving_low, saving_high``; ``at_most``, whether a least budget is good enough already, so that the
        true ratio is lower; ``budgets``, one row each with the bar's name, ``bar_nfe, ratio, low, high, reached`` and
        the Frechet distances at the least budget of ours that is as good (``swap``); and ``fd``, whether they are worse
        over all budgets. None where the bar was not measured at any of the budgets.
    """
    settings = curves.measured.settings
    found: list[tuple[float, tuple[str, float]]] = []
    for budget in settings.bar_budgets if budgets is None else budgets:
        bar = curves.bar(role, budget)
        if bar is not None:
            found.append((budget, bar))
    if not found:
        return None
    rows, logs, bound = [], np.zeros(len(curves.errors)), False
    for budget, bar in found:
        ratios, at_most = curves.ratio(arm, bar)
        bound |= at_most
        logs += np.log(ratios) / len(found)
        rows.append(
            {"budget": budget, "bar": bar[0], "bar_nfe": float(curves.spent[0, curves.places[bar]])}
            | _ratio_facts(ratios)
            | {"at_most": at_most, "swap": _swap(curves, arm, bar)}
        )
    overall = _ratio_facts(np.exp(logs))
    kept = {"saving": overall["ratio"], "saving_low": overall["high"], "saving_high": overall["low"]}
    return (
        {"arm": arm, "bar": role, "scale": curves.scale, "noises": curves.noises, "at_most": bound}
        | overall
        | {key: None if value is None else 1 - value for key, value in kept.items()}
        | {"budgets": rows, "fd": _fd_over_budgets(curves, rows)}
    )


def _ratio_facts(ratios: Floats) -> dict[str, Any]:
    # Neither of two arms got there: nobody knows, which is no better than not reached.
    ratios = np.where(np.isnan(ratios), np.inf, ratios)
    # Ends are values that occurred: between a number and infinity there is nothing to interpolate.
    low = float(np.quantile(ratios[1:], _LOW, method="lower"))
    high = float(np.quantile(ratios[1:], _HIGH, method="higher"))
    reached = float(np.isfinite(ratios[1:]).mean())
    return {"ratio": _finite(ratios[0]), "low": _finite(low), "high": _finite(high), "reached": reached}


def _swap(curves: Curves, arm: str, bar: tuple[str, float]) -> dict[str, Any] | None:
    """The least budget of ours that is as good by error, and how its Frechet distance compares; none if there is none.

    Between budgets nobody can sample, so Frechet distances are those of a budget that exists.
    """
    if curves.scale is not None:  # distances of sets are of all scales together
        return None
    place = curves.places[bar]
    good = [
        key
        for key in curves.places
        if key[0] == arm and curves.errors[0, curves.places[key]] <= curves.errors[0, place]
    ]
    if not good:
        return None
    key = min(good, key=lambda one: float(curves.spent[0, curves.places[one]]))
    nfe = float(curves.spent[0, curves.places[key]])
    ours, theirs = curves.measured.row(*key), curves.measured.row(*bar)
    return {
        "budget": key[1],
        "nfe": nfe,
        "ratio": nfe / float(curves.spent[0, place]),
        "fd": ours["fd"],
        "bar_fd": theirs["fd"],
        "fd_seeds": ours["fd_seeds"],
        "bar_fd_seeds": theirs["fd_seeds"],
        **compare_fd(ours, theirs, curves.measured.settings),
    }


def compare_fd(ours: Mapping[str, Any], theirs: Mapping[str, Any], settings: BenchmarkSettings) -> dict[str, Any]:
    """Compare Frechet distances of two rows noise seed by noise seed.

    Returns:
        ``difference`` (ours less theirs), ``difference_low, difference_high, margin`` and a ``verdict``: `not worse`
        where the whole interval is below the margin, `worse` where all of it is above, else `undecided`; `too few noise
        seeds` for fewer than three.
    """
    return _fd_verdict(ours["fd_seeds"], theirs["fd_seeds"], theirs["fd_seed_sd"], settings)


def _fd_verdict(
    ours: Sequence[float], theirs: Sequence[float], spread: float | None, settings: BenchmarkSettings
) -> dict[str, Any]:
    if len(ours) != len(theirs) or len(ours) < _LEAST_SEEDS:
        empty = dict.fromkeys(("difference", "difference_low", "difference_high", "margin"))
        return empty | {"verdict": "too few noise seeds"}
    margin = max(spread or 0.0, _LEAST_ERROR) if settings.fd_margin is None else settings.fd_margin
    found = equivalence_of_seeds(np.array(ours), np.array(theirs), margin)
    verdict = "not worse" if found.not_worse else "worse" if found.low > margin else "undecided"
    return {
        "difference": found.difference,
        "difference_low": found.low,
        "difference_high": found.high,
        "margin": margin,
        "verdict": verdict,
    }


def _fd_over_budgets(curves: Curves, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The same over all budgets: mean Frechet distances of each noise seed."""
    swaps = [row["swap"] for row in rows]
    if not all(swaps) or not all(len(swap["fd_seeds"]) == len(swap["bar_fd_seeds"]) > 1 for swap in swaps):
        return None
    ours = np.mean([swap["fd_seeds"] for swap in swaps], axis=0)
    theirs = np.mean([swap["bar_fd_seeds"] for swap in swaps], axis=0)
    spread = float(np.mean([np.std(swap["bar_fd_seeds"], ddof=1) for swap in swaps]))
    return _fd_verdict(ours.tolist(), theirs.tolist(), spread, curves.measured.settings)


# --- what the items say -----------------------------------------------------------------------------------------------


def attribution(curves: Curves, *, arms: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What each step of the work was worth: evaluations at the quality of the tuned grid, from stock to consistency.

    Stock needs many calls for that quality: give its arms budgets up to three times the largest bar budget.

    Args:
        curves: All arms.
        arms: Role to the arm that stands for it; the best one at the reference budget where left out.

    Returns:
        ``reference`` (the grid's budget and evaluations), ``rows`` and ``missing`` (roles without an arm). Rows have
        ``role, arm``; ``nfe`` at the reference, ``ratio, low, high`` to the grid over all bar budgets; ``step``, the
        ratio to the row before, with ``step_low, step_high``; and ``share`` of the whole saving, by logarithms, so that
        shares add up to 1. A row that does not reach the grid's quality has None there, and the next one is compared
        with the last that does.
    """
    settings = curves.measured.settings
    budgets = [budget for budget in settings.bar_budgets if curves.bar("grid", budget) is not None]
    if not budgets:
        return {"reference": None, "rows": [], "missing": list(LADDER)}
    reference = min(budgets, key=lambda budget: (abs(budget - settings.reference_budget), budget))
    at = curves.bar("grid", reference)
    if at is None:  # it was there a moment ago
        raise BadInput("benchmark: the grid has no reference budget")
    rows: list[dict[str, Any]] = []
    missing, before, logs = [], None, []
    for role in LADDER:
        chosen = _stands_for(curves, role, reference, (arms or {}).get(role))
        if not chosen:
            missing.append(role)
            continue
        ratios = _ladder_ratios(curves, role, chosen, budgets)
        row: dict[str, Any] = {"role": role, "arm": chosen, **_ratio_facts(ratios)}
        row["nfe"] = _finite(
            float(_ladder_ratios(curves, role, chosen, [reference])[0] * curves.spent[0, curves.places[at]])
        )
        row |= dict.fromkeys(("step", "step_low", "step_high", "share"))
        if np.isfinite(ratios[0]):
            if before is not None:
                with np.errstate(invalid="ignore"):
                    step = _ratio_facts(ratios / before)
                row |= {"step": step["ratio"], "step_low": step["low"], "step_high": step["high"]}
                logs.append((row, -math.log(float(ratios[0] / before[0]))))
            before = ratios
        rows.append(row)
    total = sum(gain for _, gain in logs)
    for row, gain in logs:
        row["share"] = gain / total if total > 0 else None
    nfe = float(curves.spent[0, curves.places[at]])
    return {"reference": {"budget": reference, "nfe": nfe, "budgets": budgets}, "rows": rows, "missing": missing}


def _stands_for(curves: Curves, role: str, reference: float, given: str | None) -> str | None:
    names = list(dict.fromkeys(row["arm"] for row in curves.measured.of_role(role)))
    names = [name for name in names if any(name == arm for arm, _ in curves.places)]
    if given is not None or not names:
        return given if given in names else None
    best = curves.bar(role, reference)
    return names[0] if best is None else best[0]


def _ladder_ratios(curves: Curves, role: str, arm: str, budgets: Sequence[float]) -> Floats:
    """(R + 1,) geometric mean ratio to the grid; stock is the best of its arms at each of its own budgets."""
    logs = np.zeros(len(curves.errors))
    own = curves.columns(arm)
    if role == "stock":
        counts = sorted({budget for (name, budget) in curves.places if name == arm})
        bars = [curves.bar(role, budget) for budget in counts]
        own = [curves.places[bar] for bar in bars if bar is not None]
    for budget in budgets:
        bar = curves.bar("grid", budget)
        if bar is not None:
            place = curves.places[bar]
            nfe, _ = crossings(curves.spent[:, own], curves.errors[:, own], curves.errors[:, place])
            logs += np.log(nfe / curves.spent[:, place]) / len(budgets)
    ratios: Floats = np.exp(logs)
    return ratios


def price_dial(measured: Measured) -> list[dict[str, Any]]:
    """What arms with prices as their dial do at each: evaluations, error, and the value that is paid for.

    Returns:
        Rows ``price, arm, role, nfe, saturated, error, value, value_low, value_high``, where a request's value is
        ``-phi(e) - price NFE``; and for all but the static arm their ``difference`` to it with ``difference_low,
        difference_high`` and ``better``: whether the whole interval is above zero. Where it is not, the static program
        is what should ship.
    """
    settings, rows = measured.settings, []
    dialled = [row for row in measured.rows if row["dial"] == "price"]
    values: dict[tuple[str, float], pd.Series] = {}
    for row in dialled:
        items = measured.items
        own = items[(items["arm"] == row["arm"]) & (items["budget"] == row["budget"])]
        own = own.set_index(["noise_seed", "seed"])
        error = own["error"].to_numpy(np.float64)
        phi = np.where(np.isfinite(error), saturating(np.nan_to_num(error), settings.tau), 1.0)
        values[row["arm"], row["budget"]] = pd.Series(
            -phi - row["budget"] * own["nfe"].to_numpy(np.float64), index=own.index
        )
    static = {row["budget"]: row["arm"] for row in dialled if row["role"] == "static"}
    for row in sorted(dialled, key=lambda one: (one["budget"], one["role"] != "static", one["arm"])):
        price, own_values = row["budget"], values[row["arm"], row["budget"]]
        found = _mean_interval(own_values.to_numpy(), settings)
        entry = {"price": price, **{key: row[key] for key in ("arm", "role", "nfe", "saturated")}}
        entry |= {"error": row["error_mean"]} | _interval("value", found)
        entry |= dict.fromkeys(("difference", "difference_low", "difference_high", "better"))
        if row["role"] != "static" and price in static:
            apart = (own_values - values[static[price], price]).dropna()
            difference = _mean_interval(apart.to_numpy(), settings)
            entry |= _interval("difference", difference)
            entry["better"] = difference is not None and difference[1] > 0
        rows.append(entry)
    return rows


def two_evaluations(measured: Measured, budget: float = 2, bar_budget: float = 5) -> dict[str, Any] | None:
    """The Frechet distance of two evaluations of a student against the tuned grid at five; none without both."""
    ours = [row for row in measured.of_role("consistency") if row["budget"] == budget]
    grid = [row for row in measured.of_role("grid") if row["budget"] == bar_budget]
    if not ours or not grid:
        return None
    one, other = (min(rows, key=lambda row: math.inf if row["fd"] is None else row["fd"]) for rows in (ours, grid))
    return {
        "arm": one["arm"],
        "nfe": one["nfe"],
        "fd": one["fd"],
        "bar": other["arm"],
        "bar_nfe": other["nfe"],
        "bar_fd": other["fd"],
        **compare_fd(one, other, measured.settings),
    }


def against_heun(curves: Curves, arm: str, calls: int = HEUN_CALLS) -> dict[str, Any] | None:
    """How many times fewer evaluations an arm takes than Heun's method with so many calls; none if that is missing.

    By error where the arm gets as near to the teacher; by Frechet distance, the cheapest budget that is not worse.
    """
    by_error = saving(curves, arm, "heun", [calls])
    if by_error is None:
        return None
    found = {
        "factor": None if by_error["ratio"] is None else 1 / by_error["ratio"],
        "low": None if by_error["high"] is None else 1 / by_error["high"],
        "high": None if by_error["low"] is None else 1 / by_error["low"],
        "at_least": by_error["at_most"],
    }
    bar = next(row for row in curves.measured.of_role("heun") if row["budget"] == calls)
    own = sorted((row for row in curves.measured.rows if row["arm"] == arm), key=lambda row: float(row["nfe"]))
    for row in own:
        compared = compare_fd(row, bar, curves.measured.settings)
        if compared["verdict"] == "not worse":
            return found | {"fd_factor": bar["nfe"] / row["nfe"], "fd_nfe": row["nfe"], "fd": compared}
    return found | {"fd_factor": None, "fd_nfe": None, "fd": None}


def benchmark_table(measured: Measured, ours: str | None = None) -> dict[str, Any]:
    """Everything that the items say.

    Args:
        measured: What was measured.
        ours: The arm whose savings are the headline: the one that ships. The last static family where left out.

    Returns:
        ``ours, rows, floors, settings``; ``savings`` of every arm of ours against stock and grid, ``by_scale`` of the
        shipped one for each guidance scale; ``attribution, dial, heun, two_evaluations``; and ``noises`` compared with
        how many were ``left_out`` because an arm has no finite answer. Every number is finite or None.
    """
    curves = Curves(measured)
    arms = list(dict.fromkeys(arm for arm, _ in curves.places))
    roles = {row["arm"]: row["role"] for row in measured.rows}
    ladder = [arm for role in LADDER[1:] for arm in arms if roles[arm] == role]
    chosen = ours
    if chosen is None:
        static = LADDER[1 : LADDER.index("less guidance") + 1]
        chosen = next((arm for role in reversed(static) for arm in arms if roles[arm] == role), None)
    if chosen is not None and chosen not in arms:
        raise BadInput(f"benchmark: our arm {chosen!r} was not measured on all requests, expected one of {arms}")
    savings = [
        found
        for arm in ladder
        for bar in ("stock", "grid")
        if roles[arm] != bar and (found := saving(curves, arm, bar)) is not None
    ]
    scales = sorted(set(measured.items["scale"]))
    by_scale = []
    if chosen is not None and len(scales) > 1:
        for scale in scales:
            own = Curves(measured, scale)
            by_scale += [found for bar in ("stock", "grid") if (found := saving(own, chosen, bar)) is not None]
    return finite(
        {
            "ours": chosen,
            "rows": measured.rows,
            "floors": measured.floors,
            "settings": asdict(measured.settings),
            "savings": savings,
            "by_scale": by_scale,
            "attribution": attribution(curves),
            "dial": price_dial(measured),
            "heun": None if chosen is None else against_heun(curves, chosen),
            "two_evaluations": two_evaluations(measured),
            "noises": curves.noises,
            "left_out": curves.left_out,
        }
    )


def finite(value: Any) -> Any:
    """The same with None in place of every number that is not finite, as JSON wants it."""
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _mean(values: Floats) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None
