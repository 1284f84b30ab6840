"""What an arm must spend to be as good as another: evaluations at equal quality, equivalence, and the frontier.

An arm is a way to sample, measured with several budgets on the same noises. Its frontier is the curve of error against
network evaluations (NFE). Noises, not arms, are resampled, so what makes one noise harder than another cancels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import pandas as pd

from vernissage.core.errors import BadInput
from vernissage.core.seeds import numpy_generator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

#: How the errors of all noises become one number; a mean is ruled by the few samples that became another picture.
Statistic = Literal["median", "mean"]

RESAMPLES = 2000
NOT_REACHED = "not reached"
_LEAST_NOISES, _LEAST_SEEDS = 20, 3
_LOW, _HIGH = 0.025, 0.975


@dataclass(frozen=True, eq=False)
class Arm:
    """One way to sample, measured with several budgets.

    Attributes:
        name: As printed in tables.
        nfe: (K, N) evaluations that each sample took with each budget; (K,) where all samples take as many.
        errors: (K, N) error of each noise with each budget, above 0; the noises in the same order for all arms.

    Raises:
        BadInput: Shapes that do not fit, too few noises, two budgets of the same NFE, or a value that is not above 0.
    """

    name: str
    nfe: Floats
    errors: Floats

    def __post_init__(self) -> None:
        errors = np.array(self.errors, dtype=np.float64)
        nfe = np.array(self.nfe, dtype=np.float64)
        if errors.ndim != 2 or not len(errors):
            raise BadInput(f"{self.name}: errors of shape {errors.shape}, expected (budgets, noises)")
        _enough_noises(self.name, errors.shape[1])
        if nfe.shape not in {errors.shape, errors.shape[:1]}:
            raise BadInput(
                f"{self.name}: NFE of shape {nfe.shape}, expected {errors.shape[:1]} or {errors.shape} like the errors"
            )
        nfe = np.array(np.broadcast_to(nfe if nfe.ndim == 2 else nfe[:, None], errors.shape))
        _above_zero(self.name, "NFE", nfe)
        _above_zero(self.name, "error", errors)
        order = np.argsort(nfe.mean(axis=1), kind="stable")
        means = nfe.mean(axis=1)[order]
        same = np.flatnonzero(np.diff(means) == 0)
        if len(same):
            raise BadInput(f"{self.name}: two budgets take {means[same[0]]:g} NFE, expected each once; leave one out")
        object.__setattr__(self, "nfe", nfe[order])
        object.__setattr__(self, "errors", errors[order])

    @property
    def noises(self) -> int:
        """Number of noises."""
        return int(self.errors.shape[1])

    def at(self, nfe: float) -> Arm:
        """The arm with one of its budgets alone, as a reference for others.

        Raises:
            BadInput: It has no such budget.
        """
        means = self.nfe.mean(axis=1)
        row = int(np.abs(means - nfe).argmin())
        if not math.isclose(means[row], nfe, rel_tol=1e-6):
            known = ", ".join(f"{mean:g}" for mean in means)
            raise BadInput(f"{self.name}: no budget of {nfe:g} NFE, expected one of {known}")
        return Arm(self.name, self.nfe[row : row + 1], self.errors[row : row + 1])


@dataclass(frozen=True)
class EqualQuality:
    """What an arm spends to be as good as a reference.

    Nothing is extrapolated. None stands for "not reached": more than the arm's largest budget. At the other end, where
    the smallest budget is good enough already, that budget is what is given: the true value is at most that.

    Attributes:
        nfe: Evaluations at equal quality.
        ratio: The same over the evaluations of the reference.
        low: Lower end of the 95 % interval of the ratio.
        high: Its upper end.
        reached: Share of the resamplings in which the arm got there.
        at_most: Whether ``nfe`` is the smallest budget, which is good enough already.
    """

    nfe: float | None
    ratio: float | None
    low: float | None
    high: float | None
    reached: float
    at_most: bool

    def __str__(self) -> str:
        """For example ``0.79 [0.75, 0.84]``, ``at most 0.5 [0.5, 0.52]``, ``0.97 [0.94, not reached]``."""
        if self.ratio is None:
            return NOT_REACHED
        low, high = (NOT_REACHED if end is None else f"{end:.3g}" for end in (self.low, self.high))
        return f"{'at most ' if self.at_most else ''}{self.ratio:.3g} [{low}, {high}]"


@dataclass(frozen=True)
class Equivalence:
    """Whether two arms are equally good, within a margin that was stated before.

    Attributes:
        difference: First minus second; above 0 where the first has the larger error.
        low: Lower end of its 95 % interval.
        high: Its upper end.
        margin: What still counts as equal.
        equivalent: Whether the interval lies inside the margin on both sides. An interval of 95 % makes this two
            one-sided tests at 2.5 % each (Schuirmann 1987), which is stricter than the usual 5 %.
        not_worse: Whether the first is not worse by the margin; it may be better by any amount.
    """

    difference: float
    low: float
    high: float
    margin: float
    equivalent: bool
    not_worse: bool


def equal_quality(
    arm: Arm, reference: Arm, *, seed: int, statistic: Statistic = "median", resamples: int = RESAMPLES
) -> EqualQuality:
    """Find the evaluations at which an arm is as good as a reference, with a bootstrap interval over noises.

    The arm's error is made to fall with the NFE (isotonic regression of the logarithms, Barlow et al. 1972), then read
    off between its budgets by straight lines in log error against log NFE, on which power laws are exact. Each
    resampling draws the same noises for arm and reference; the interval is the percentile one (Efron and Tibshirani
    1993, section 13.3).

    Args:
        arm: Two budgets or more say something; one says only whether it is good enough.
        reference: An arm with one budget, see :meth:`Arm.at`, on the same noises.
        seed: Draws the resamplings.
        statistic: What quality is.
        resamples: Number of resamplings.

    Raises:
        BadInput: Different noises, or a reference with several budgets.
    """
    _check_pair(arm, reference)
    _check_resamples(resamples)
    found, at_most = _crossing(arm, reference, np.arange(arm.noises), statistic)
    spent = float(reference.nfe.mean())
    rng = numpy_generator(seed, "equal quality", statistic)
    ratios = np.empty(resamples)
    for turn in range(resamples):
        picked = rng.integers(arm.noises, size=arm.noises)
        ratios[turn] = _crossing(arm, reference, picked, statistic)[0] / reference.nfe[0, picked].mean()
    # Ends are values that occurred: between a number and infinity there is nothing to interpolate.
    low = float(np.quantile(ratios, _LOW, method="lower"))
    high = float(np.quantile(ratios, _HIGH, method="higher"))
    return EqualQuality(
        nfe=_finite(found),
        ratio=_finite(found / spent),
        low=_finite(low),
        high=_finite(high),
        reached=float(np.isfinite(ratios).mean()),
        at_most=at_most,
    )


def equivalence(
    first: Floats,
    second: Floats,
    margin: float,
    *,
    seed: int,
    statistic: Statistic = "median",
    resamples: int = RESAMPLES,
) -> Equivalence:
    """Test whether two arms are equally good on the same noises, by a paired bootstrap.

    Args:
        first: (N,) errors.
        second: (N,) errors from the same noises.
        margin: Largest difference that still counts as equal, in units of the errors, stated beforehand.
        seed: Draws the resamplings.
        statistic: What is compared.
        resamples: Number of resamplings.

    Raises:
        BadInput: Too few noises, different lengths, a value that is not finite, or a margin that is not above 0.
    """
    one, other = _pairs(first, second)
    _enough_noises("equivalence", len(one))
    _check_resamples(resamples)
    rng = numpy_generator(seed, "equivalence", statistic)
    differences = np.empty(resamples)
    for turn in range(resamples):
        picked = rng.integers(len(one), size=len(one))
        differences[turn] = _summed_up(one[picked], statistic) - _summed_up(other[picked], statistic)
    low, high = np.quantile(differences, (_LOW, _HIGH))
    return _verdict(float(_summed_up(one, statistic) - _summed_up(other, statistic)), float(low), float(high), margin)


def equivalence_of_seeds(first: Floats, second: Floats, margin: float) -> Equivalence:
    """Test whether two arms are equally good by figures of whole sets, such as Frechet distances, one per seed.

    A bootstrap of five numbers has too short an interval; this is the paired t interval instead.

    Args:
        first: (S,) one figure per seed of the noise.
        second: (S,) of the same seeds.
        margin: Largest difference that still counts as equal, stated beforehand.

    Raises:
        BadInput: Fewer than 3 seeds, different lengths, a value that is not finite, or a margin that is not above 0.
    """
    from scipy.stats import t

    one, other = _pairs(first, second)
    if len(one) < _LEAST_SEEDS:
        raise BadInput(f"equivalence: found {len(one)} seeds, a paired interval needs at least {_LEAST_SEEDS}")
    off = one - other
    difference = float(off.mean())
    half = float(t.ppf(_HIGH, len(off) - 1) * off.std(ddof=1) / math.sqrt(len(off)))
    return _verdict(difference, difference - half, difference + half, margin)


@dataclass(frozen=True, eq=False)
class Frontier:
    """Several arms on the same noises.

    Attributes:
        arms: The arms, each under its own name.
        seed: Draws the resamplings.
        statistic: What quality is.
        resamples: Number of resamplings behind each interval.

    Raises:
        BadInput: No arms, two of one name, or different noises.
    """

    arms: Sequence[Arm]
    seed: int
    statistic: Statistic = "median"
    resamples: int = RESAMPLES

    def __post_init__(self) -> None:
        names = [arm.name for arm in self.arms]
        if not names or len(set(names)) < len(names):
            raise BadInput(f"frontier: arms {', '.join(names) or '(none)'}; expected at least one, each name once")
        for arm in self.arms:
            _same_noises(arm, self.arms[0])
        _check_resamples(self.resamples)

    def table(self) -> pd.DataFrame:
        """Every arm with every budget.

        Returns:
            Columns ``arm``, ``nfe`` (mean), ``median``, ``p95``, ``mean``, the 95 % interval ``low`` to ``high`` of the
            statistic, and ``on_frontier``: no other row is as good for as little, and better or cheaper. By NFE, the
            least error first where it is equal.
        """
        rows = [self._row(arm, budget) for arm in self.arms for budget in range(len(arm.nfe))]
        table = pd.DataFrame(rows).sort_values(["nfe", self.statistic, "arm"], ignore_index=True)
        spent, errors = table["nfe"].to_numpy(), table[self.statistic].to_numpy()
        no_worse = (spent[:, None] <= spent) & (errors[:, None] <= errors)
        better = (spent[:, None] < spent) | (errors[:, None] < errors)
        table["on_frontier"] = ~(no_worse & better).any(axis=0)
        return table

    def against(self, reference: Arm) -> pd.DataFrame:
        """What each arm spends to be as good as a reference.

        Args:
            reference: An arm with one budget, see :meth:`Arm.at`.

        Returns:
            Columns ``arm``, ``nfe``, ``ratio``, ``low``, ``high`` (NaN where not reached), ``reached`` (share of the
            resamplings) and ``verdict`` as text. The cheapest first, those that did not get there last.

        Raises:
            BadInput: Different noises, or a reference with several budgets.
        """
        found = [
            (
                arm.name,
                equal_quality(arm, reference, seed=self.seed, statistic=self.statistic, resamples=self.resamples),
            )
            for arm in self.arms
        ]
        rows = [
            {
                "arm": name,
                "nfe": _or_nan(equal.nfe),
                "ratio": _or_nan(equal.ratio),
                "low": _or_nan(equal.low),
                "high": _or_nan(equal.high),
                "reached": equal.reached,
                "verdict": str(equal),
            }
            for name, equal in found
        ]
        return pd.DataFrame(rows).sort_values(["nfe", "arm"], na_position="last", ignore_index=True)

    def _row(self, arm: Arm, budget: int) -> dict[str, Any]:
        errors = arm.errors[budget]
        # The same noises are drawn for all rows.
        rng = numpy_generator(self.seed, "frontier", self.statistic)
        sums = [
            _summed_up(errors[rng.integers(len(errors), size=len(errors))], self.statistic)
            for _ in range(self.resamples)
        ]
        low, high = np.quantile(sums, (_LOW, _HIGH))
        median, p95 = np.quantile(errors, (0.5, 0.95))
        return {
            "arm": arm.name,
            "nfe": float(arm.nfe[budget].mean()),
            "median": float(median),
            "p95": float(p95),
            "mean": float(errors.mean()),
            "low": float(low),
            "high": float(high),
        }


def _crossing(arm: Arm, reference: Arm, picked: NDArray[np.int64], statistic: Statistic) -> tuple[float, bool]:
    """NFE at which the arm is as good, infinite if never; and whether the smallest budget is more than enough."""
    from scipy.optimize import isotonic_regression

    spent = arm.nfe[:, picked].mean(axis=1)
    errors = _summed_up(arm.errors[:, picked], statistic)
    # Mean NFE of budgets that adapt to the noise may change places in a resampling.
    order = np.argsort(spent, kind="stable")
    x = np.log(spent[order])
    y = np.asarray(isotonic_regression(np.log(errors[order]), increasing=False).x)
    wanted = math.log(float(_summed_up(reference.errors[:, picked], statistic)[0]))
    good = np.flatnonzero(y <= wanted + 1e-12)
    if not len(good):
        return math.inf, False
    first = int(good[0])
    if not first:
        return math.exp(x[0]), bool(y[0] < wanted - 1e-12)
    share = (y[first - 1] - wanted) / (y[first - 1] - y[first])
    return math.exp(x[first - 1] + min(1.0, float(share)) * (x[first] - x[first - 1])), False


def _summed_up(errors: Floats, statistic: Statistic) -> Floats:
    """Median or mean of the last axis."""
    if statistic not in {"median", "mean"}:
        raise BadInput(f"statistic = {statistic!r}: expected median or mean")
    return cast("Floats", np.median(errors, axis=-1) if statistic == "median" else np.mean(errors, axis=-1))


def _verdict(difference: float, low: float, high: float, margin: float) -> Equivalence:
    if not margin > 0 or not math.isfinite(margin):
        raise BadInput(f"margin = {margin}: expected a number above 0, in units of what is compared")
    return Equivalence(
        difference, low, high, margin, equivalent=-margin < low and high < margin, not_worse=high < margin
    )


def _pairs(first: Floats, second: Floats) -> tuple[Floats, Floats]:
    one, other = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if one.ndim != 1 or one.shape != other.shape:
        raise BadInput(f"pairs: shapes {one.shape} and {other.shape}, expected (N,) twice, from the same noises")
    for values in (one, other):
        if not np.isfinite(values).all():
            raise BadInput(
                f"pairs: value {int(np.flatnonzero(~np.isfinite(values))[0])} is not finite; leave it out of both"
            )
    return one, other


def _check_pair(arm: Arm, reference: Arm) -> None:
    _same_noises(arm, reference)
    if len(reference.nfe) != 1:
        raise BadInput(f"{reference.name}: {len(reference.nfe)} budgets, a reference has one; pick it with `at`")


def _same_noises(arm: Arm, other: Arm) -> None:
    if arm.noises != other.noises:
        raise BadInput(
            f"{arm.name}: {arm.noises} noises, {other.name} has {other.noises}; expected the same ones, in one order"
        )


def _enough_noises(name: str, found: int) -> None:
    if found < _LEAST_NOISES:
        raise BadInput(f"{name}: found {found} noises, a bootstrap over noises needs at least {_LEAST_NOISES}")


def _check_resamples(resamples: int) -> None:
    if resamples < 100:
        raise BadInput(f"resamples = {resamples}: a 95 % interval needs at least 100")


def _above_zero(name: str, what: str, values: Floats) -> None:
    wrong = np.argwhere(~(np.isfinite(values) & (values > 0)))
    if len(wrong):
        budget, noise = (int(number) for number in wrong[0])
        raise BadInput(
            f"{name}: {what} {values[budget, noise]} of noise {noise} with budget {budget}, expected finite and above 0"
        )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
