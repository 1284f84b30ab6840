"""How far generated pictures are from what they should be: as a set, one by one, and from the training pictures.

Everything works on rows: features (N, F), or pictures (N, C, H, W), which are flattened. Sums are in float64 and in
blocks, so that memory stays small. No distance depends on the order of the rows: where subsets are drawn, they are
drawn with a seed from the rows in a canonical order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vernissage.core.errors import BadInput
from vernissage.core.seeds import numpy_generator, torch_generator

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    #: (N, F) features or (N, C, H, W) pictures.
    Rows = torch.Tensor | NDArray[Any]

#: Neighbours of precision, recall, density and coverage (Naeem et al. 2020, section 5).
NEIGHBOURS = 5
# Numbers in one block of a matrix of distances: 128 MiB of float64.
_BLOCK = 1 << 24


# --- Frechet distance -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Moments:
    """All that the Frechet distance knows of a set.

    Attributes:
        mean: (F,) float64.
        covariance: (F, F) float64.
    """

    mean: torch.Tensor
    covariance: torch.Tensor


@dataclass(frozen=True)
class Extrapolated:
    """The Frechet distance of infinitely many samples.

    Attributes:
        value: Where the line through the measurements meets 1/N = 0; chance can take it slightly below 0.
        slope: Rise per 1/N: how biased the distance of few samples is.
        error: Standard error of ``value`` as a fit of a line gives it. The subsets overlap, so the true one is larger.
        counts: Sizes of the subsets.
        distances: Frechet distance of each subset.
    """

    value: float
    slope: float
    error: float
    counts: tuple[int, ...]
    distances: tuple[float, ...]


def moments(features: Rows, name: str = "features") -> Moments:
    """Mean and unbiased covariance.

    Args:
        features: (N, F), more rows than columns: otherwise the covariance is singular whatever the set.
        name: What to call them in errors.

    Raises:
        BadInput: Too few rows, or a row that is not finite.
    """
    rows = _rows(features, name, 2)
    _enough(len(rows), rows.shape[1] + 1, name, f"a covariance in {rows.shape[1]} dimensions")
    return _moments(rows)


def frechet_distance(generated: Rows | Moments, real: Rows | Moments) -> float:
    """Squared Frechet distance of two sets taken for Gaussians (Dowson and Landau 1982; Heusel et al. 2017).

    ``|m1 - m2|^2 + tr(C1) + tr(C2) - 2 tr((C1^1/2 C2 C1^1/2)^1/2)``, where the last trace is the sum of the singular
    values of ``C1^1/2 C2^1/2``. Roots are symmetric ones by eigenvalues, so nothing imaginary comes up and nothing is
    added to a diagonal. Only where a covariance is singular, eigenvalues below ``F eps`` times the largest are rounding
    and count as zero. The distance is biased upwards by about 1/N: compare sets of one size, or see
    :func:`frechet_at_infinity`.

    Args:
        generated: (N, F), or its moments.
        real: (M, F), or its moments.

    Returns:
        At least 0.

    Raises:
        BadInput: Too few rows, different widths, or a row that is not finite.
    """
    first = generated if isinstance(generated, Moments) else moments(generated, "generated features")
    second = real if isinstance(real, Moments) else moments(real, "real features")
    _same_width(first.mean, second.mean)
    return _frechet(first, second, _root(second.covariance))


def frechet_at_infinity(generated: Rows, real: Rows | Moments, *, seed: int, points: int = 15) -> Extrapolated:
    """Frechet distance for infinitely many generated samples (FD-infinity, Chong and Forsyth 2020, section 4).

    A line in 1/N is fitted to the distances of ``points`` random subsets, whose sizes grow evenly from a tenth of the
    samples (or from F + 1, where that is more) to all of them. The bias that comes from the number of real samples
    stays: it is the same for all that are compared with the same ones.

    Args:
        generated: (N, F) with N at least 2 (F + 1).
        real: (M, F), or its moments.
        seed: Draws the subsets.
        points: Number of subsets, at least 3.

    Raises:
        BadInput: Too few rows or points, different widths, or a row that is not finite.
    """
    name = "generated features"
    rows = _rows(generated, name, 2)
    count, width = rows.shape
    _enough(count, 2 * (width + 1), name, f"an extrapolation in {width} dimensions")
    _enough(points, 3, "points", "the error of a line")
    second = real if isinstance(real, Moments) else moments(real, "real features")
    _same_width(rows, second.mean)
    rows, root = _canonical(rows), _root(second.covariance)
    rng = numpy_generator(seed, "frechet at infinity")
    counts = np.linspace(max(width + 1, count // 10), count, points).round().astype(int)
    distances = [_frechet(_moments(rows[_draw(rng, count, int(size))]), second, root) for size in counts]
    value, slope, error = _line(1 / counts, np.array(distances))
    return Extrapolated(value, slope, error, tuple(map(int, counts)), tuple(distances))


def _moments(rows: torch.Tensor) -> Moments:
    mean = rows.mean(dim=0)
    off = rows - mean
    return Moments(mean, off.T @ off / (len(rows) - 1))


def _root(covariance: torch.Tensor) -> torch.Tensor:
    """Symmetric square root of a (F, F) covariance."""
    values, vectors = torch.linalg.eigh((covariance + covariance.T) / 2)
    dust = len(values) * torch.finfo(values.dtype).eps * values.abs().max()
    roots = torch.where(values > dust, values, torch.zeros_like(values)).sqrt()
    root: torch.Tensor = (vectors * roots) @ vectors.T
    return root


def _frechet(first: Moments, second: Moments, root_of_second: torch.Tensor) -> float:
    overlap = torch.linalg.svdvals(_root(first.covariance) @ root_of_second.to(first.covariance)).sum()
    means = (first.mean - second.mean.to(first.mean)).square().sum()
    traces = first.covariance.trace() + second.covariance.trace().to(first.mean)
    return max(0.0, float(means + traces - 2 * overlap))


def _line(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float, float]:
    """Least squares: value at 0, slope, standard error of the value."""
    off = x - x.mean()
    slope = float(off @ y / (off @ off))
    value = float(y.mean() - slope * x.mean())
    spread = float(np.sum((y - value - slope * x) ** 2)) / (len(x) - 2)
    return value, slope, math.sqrt(spread * (1 / len(x) + float(x.mean()) ** 2 / float(off @ off)))


# --- kernel distance --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class KernelDistance:
    """The kernel distance over subsets.

    Attributes:
        value: Mean; unbiased, so it lies around 0, on both sides, for sets of one distribution.
        spread: Standard deviation between the subsets.
        subsets: Their number.
        size: Samples of each.
    """

    value: float
    spread: float
    subsets: int
    size: int


def kernel_distance(
    generated: Rows, real: Rows, *, seed: int, subsets: int = 100, size: int | None = None
) -> KernelDistance:
    """Kernel distance (KID, Binkowski et al. 2018): unbiased squared MMD with the kernel ``(x.y / F + 1)^3``.

    Args:
        generated: (N, F).
        real: (M, F).
        seed: Draws the subsets.
        subsets: Number of subsets, at least 2.
        size: Samples of each; 1000, or all of the smaller set where that has fewer.

    Raises:
        BadInput: Fewer rows than ``size`` or than 2, different widths, or a row that is not finite.
    """
    first, second = _rows(generated, "generated features", 2), _rows(real, "real features", 2)
    _same_width(first, second)
    _enough(subsets, 2, "subsets", "a spread")
    chosen = min(1000, len(first), len(second)) if size is None else size
    _enough(chosen, 2, "size", "an unbiased kernel distance")
    for rows, name in ((first, "generated features"), (second, "real features")):
        _enough(len(rows), chosen, name, f"subsets of {chosen}")
    first, second = _canonical(first), _canonical(second)
    rng = numpy_generator(seed, "kernel distance")
    values = [
        _squared_mmd(first[_draw(rng, len(first), chosen)], second[_draw(rng, len(second), chosen)])
        for _ in range(subsets)
    ]
    return KernelDistance(float(np.mean(values)), float(np.std(values, ddof=1)), subsets, chosen)


def _squared_mmd(first: torch.Tensor, second: torch.Tensor) -> float:
    count, width = first.shape

    def kernel(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a @ b.T / width + 1).pow(3)

    def within(rows: torch.Tensor) -> torch.Tensor:
        values = kernel(rows, rows)
        return (values.sum() - values.trace()) / (count * (count - 1))

    return float(within(first) + within(second) - 2 * kernel(first, second).mean())


# --- neighbourhoods ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Neighbourhoods:
    """How far two sets cover each other.

    Attributes:
        precision: Share of the generated samples that lie near a real one, 0 to 1.
        recall: Share of the real samples that lie near a generated one, 0 to 1; outliers flatter it.
        density: How many real neighbourhoods a generated sample lies in, over k: 1 where the sets agree, more where the
            generated ones crowd together in the middle of the real ones.
        coverage: Share of the real samples with a generated one in their neighbourhood, 0 to 1; falls where a part of
            the real ones is never generated.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def neighbourhoods(generated: Rows, real: Rows, k: int = NEIGHBOURS) -> Neighbourhoods:
    """Precision and recall (Kynkaanniemi et al. 2019), density and coverage (Naeem et al. 2020, section 3).

    The neighbourhood of a sample is the open ball that reaches to its k-th nearest neighbour in its own set.

    Args:
        generated: (N, F).
        real: (M, F).
        k: Neighbours that a neighbourhood reaches to.

    Raises:
        BadInput: Fewer than k + 1 rows, different widths, or a row that is not finite.
    """
    _enough(k, 1, "k", "a neighbourhood")
    first, second = _rows(generated, "generated features", 1), _rows(real, "real features", 1)
    _same_width(first, second)
    for rows, name in ((first, "generated features"), (second, "real features")):
        _enough(len(rows), k + 1, name, f"neighbourhoods of k = {k}")
    reach_of_generated, reach_of_real = _reach(first, k), _reach(second, k)
    around = torch.zeros(len(first), dtype=torch.long, device=first.device)
    recalled = covered = 0
    for start, distances in _squared_distances(second, first):
        reach = reach_of_real[start : start + len(distances), None]
        around += (distances < reach).sum(dim=0)
        covered += int((distances < reach).any(dim=1).sum())
        recalled += int((distances < reach_of_generated).any(dim=1).sum())
    return Neighbourhoods(
        precision=float((around > 0).double().mean()),
        recall=recalled / len(second),
        density=float(around.double().mean()) / k,
        coverage=covered / len(second),
    )


def _reach(rows: torch.Tensor, k: int) -> torch.Tensor:
    """(N,) squared distance to the k-th nearest other row."""
    parts = []
    for start, distances in _squared_distances(rows, rows):
        here = torch.arange(len(distances), device=rows.device)
        distances[here, start + here] = -1.0  # a row comes before all of its neighbours
        parts.append(distances.kthvalue(k + 1, dim=1).values)
    return torch.cat(parts)


# --- sliced Wasserstein -----------------------------------------------------------------------------------------------


def sliced_wasserstein(generated: Rows, real: Rows, *, seed: int, directions: int = 512) -> float:
    """Sliced 2-Wasserstein distance (Rabin et al. 2011; Bonneel et al. 2015), on pixels where pictures are given.

    The root of the mean, over random directions, of the squared distance of the projections. Directions are drawn in
    orthonormal sets, so where their number is a multiple of the dimensions, a shift by v gives exactly ``|v| /
    sqrt(dimensions)``: the root mean square shift of a pixel.

    Args:
        generated: (N, C, H, W) or (N, F).
        real: (M, C, H, W) or (M, F); M may differ from N.
        seed: Draws the directions.
        directions: Their number.

    Raises:
        BadInput: No rows, no directions, different widths, or a row that is not finite.
    """
    first, second = _rows(generated, "generated pictures", 1), _rows(real, "real pictures", 1)
    _same_width(first, second)
    _enough(directions, 1, "directions", "a slice")
    second = second.to(first.device)
    width = first.shape[1]
    levels, left, right = _shared_quantiles(len(first), len(second))
    levels, left, right = (part.to(first.device) for part in (levels, left, right))
    total, generator = 0.0, torch_generator(seed, "sliced wasserstein")
    at_once = max(1, _BLOCK // (len(first) + len(second)))
    for start in range(0, directions, width):
        some = _orthonormal(width, min(width, directions - start), generator).to(first.device)
        for block in torch.split(some, at_once, dim=1):
            a, b = (first @ block).sort(dim=0).values, (second @ block).sort(dim=0).values
            total += float((levels @ (a[left] - b[right]).square()).sum())
    return math.sqrt(total / directions)


def _orthonormal(width: int, count: int, generator: torch.Generator) -> torch.Tensor:
    """(width, count) orthonormal columns of random directions."""
    drawn = torch.randn(width, count, generator=generator, dtype=torch.float64)
    columns: torch.Tensor = torch.linalg.qr(drawn).Q
    return columns


def _shared_quantiles(first: int, second: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pieces on which the quantile functions of two samples are both constant: weights, and ranks in either."""
    # In units of 1 / (first * second), so that nothing is rounded.
    ends = torch.unique(torch.cat((torch.arange(1, first + 1) * second, torch.arange(1, second + 1) * first)))
    weights = torch.diff(ends, prepend=torch.zeros(1, dtype=torch.long)).double() / (first * second)
    return weights, (ends - 1) // second, (ends - 1) // first


# --- pairs ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PairedError:
    """Errors of samples to a reference from the same noises.

    Attributes:
        median: Of the root mean square errors.
        p95: Their 95th percentile.
        mean: Their mean; a few samples that became another picture rule it.
        saturated: Mean of the saturating errors, 0 to 1, see :func:`saturating`.
        tau: Scale of the saturation.
    """

    median: float
    p95: float
    mean: float
    saturated: float
    tau: float


def paired_errors(samples: Rows, reference: Rows) -> NDArray[np.float64]:
    """Root mean square error of each sample to the reference from the same noise.

    Args:
        samples: (N, C, H, W) or (N, F).
        reference: Same shape, same order.

    Returns:
        (N,) in units of the pixels.

    Raises:
        BadInput: No samples, different shapes, or a row that is not finite.
    """
    if tuple(samples.shape) != tuple(reference.shape):
        raise BadInput(
            f"samples: shape {tuple(samples.shape)}, expected that of the reference {tuple(reference.shape)}"
        )
    first, second = _rows(samples, "samples", 1), _rows(reference, "reference", 1)
    errors = (first - second.to(first.device)).square().mean(dim=1).sqrt()
    return np.asarray(errors.cpu().numpy(), dtype=np.float64)


def saturating(errors: NDArray[np.float64], tau: float) -> NDArray[np.float64]:
    """``1 - exp(-e^2 / (2 tau^2))``: small errors count by their square, and being another picture costs 1 at most.

    Args:
        errors: Any shape, at least 0.
        tau: Error at which it has reached 0.39; such as the median error of a good static sampler.

    Raises:
        BadInput: ``tau`` is not above 0.
    """
    if not tau > 0 or not math.isfinite(tau):
        raise BadInput(f"tau = {tau}: expected a number above 0, such as the median error of a static sampler")
    return -np.expm1(-(np.asarray(errors, dtype=np.float64) ** 2) / (2 * tau**2))


def paired_error(errors: NDArray[np.float64], tau: float) -> PairedError:
    """Sum up what :func:`paired_errors` gave.

    Raises:
        BadInput: No errors, or ``tau`` is not above 0.
    """
    _enough(len(errors), 1, "errors", "a median")
    median, p95 = np.quantile(errors, (0.5, 0.95))
    saturated = float(saturating(errors, tau).mean())
    return PairedError(float(median), float(p95), float(np.mean(errors)), saturated, tau)


# --- memorisation -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Memorisation:
    """Whether samples are nearer to the pictures that were learned from than they should be.

    Attributes:
        to_train: Median distance of a sample to the nearest training picture, root mean square per pixel.
        to_test: The same to the nearest test picture. Where there are fewer of these, it is larger for that alone.
        test_to_train: The same of test pictures to the nearest training picture: what ``to_train`` should not be below.
        nearer_to_train: Chance that the nearest of equally many training and test pictures is a training picture: 0.5
            where nothing was memorised.
        copied: Share of the samples nearer to a training picture than all but one in a hundred test pictures are: 0.01
            where nothing was memorised.
    """

    to_train: float
    to_test: float
    test_to_train: float
    nearer_to_train: float
    copied: float


def nearest_distances(samples: Rows, others: Rows) -> NDArray[np.float64]:
    """Distance of each sample to the nearest of other pictures, root mean square per pixel.

    Args:
        samples: (N, C, H, W) or (N, F).
        others: (M, C, H, W) or (M, F).

    Returns:
        (N,).

    Raises:
        BadInput: No rows, different widths, or a row that is not finite.
    """
    first, second = _rows(samples, "samples", 1), _rows(others, "other pictures", 1)
    _same_width(first, second)
    return _per_pixel(_nearest(first, second), first)


def memorisation(samples: Rows, train: Rows, test: Rows) -> Memorisation:
    """Compare the distances of samples to training and to test pictures (after Meehan et al. 2020).

    A larger set has nearer neighbours. The comparison therefore draws as many pictures from the larger set as the
    smaller one has; the chance over all such draws is exact (hypergeometric), nothing is drawn.

    Args:
        samples: (N, C, H, W) or (N, F).
        train: (M, ...), what was learned from.
        test: (T, ...), of the same kind, never learned from; at least 100, for one in a hundred to mean something.

    Raises:
        BadInput: Too few rows, different widths, or a row that is not finite.
    """
    names = ("samples", "training pictures", "test pictures")
    first, seen, unseen = (_rows(rows, name, 1) for rows, name in zip((samples, train, test), names, strict=True))
    _same_width(first, seen)
    _same_width(first, unseen)
    _enough(len(unseen), 100, "test pictures", "one in a hundred")
    to_train, to_test, between = _nearest(first, seen), _nearest(first, unseen), _nearest(unseen, seen)
    expected = _per_pixel(between, first)
    found = _per_pixel(to_train, first)
    return Memorisation(
        to_train=float(np.median(found)),
        to_test=float(np.median(_per_pixel(to_test, first))),
        test_to_train=float(np.median(expected)),
        nearer_to_train=_nearer_to_train(first, seen, unseen, to_train, to_test),
        copied=float(np.mean(found < np.quantile(expected, 0.01))),
    )


def _nearer_to_train(
    samples: torch.Tensor, train: torch.Tensor, test: torch.Tensor, to_train: torch.Tensor, to_test: torch.Tensor
) -> float:
    larger, smaller, limit = (train, test, to_test) if len(train) >= len(test) else (test, train, to_train)
    none = np.concatenate(
        [
            _chance_of_none(
                len(larger), (distances < limit[start : start + len(distances), None]).sum(dim=1), len(smaller)
            )
            for start, distances in _squared_distances(samples, larger)
        ]
    )
    # A sample that is equally far from both counts half.
    tied = (to_train == to_test).cpu().numpy()
    nearer = 1 - none if larger is train else none
    return float(np.where(tied, 0.5, nearer).mean())


def _chance_of_none(total: int, marked: torch.Tensor, drawn: int) -> NDArray[np.float64]:
    """Chance that none of ``drawn`` out of ``total`` is marked: ``C(total - marked, drawn) / C(total, drawn)``."""
    from scipy.special import gammaln

    count = marked.cpu().numpy().astype(np.float64)
    possible = count <= total - drawn
    rest = np.where(possible, total - count, drawn)
    logs = gammaln(rest + 1) - gammaln(rest - drawn + 1) - gammaln(total + 1) + gammaln(total - drawn + 1)
    return np.where(possible, np.exp(np.minimum(logs, 0.0)), 0.0)


def _nearest(rows: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """(N,) squared distance to the nearest of the others."""
    return torch.cat([distances.amin(dim=1) for _, distances in _squared_distances(rows, others)])


def _per_pixel(squared: torch.Tensor, rows: torch.Tensor) -> NDArray[np.float64]:
    return np.asarray((squared / rows.shape[1]).sqrt().cpu().numpy(), dtype=np.float64)


# --- rows -------------------------------------------------------------------------------------------------------------


def _rows(values: Rows, name: str, least: int) -> torch.Tensor:
    """(N, F) float64 on the device of the values, or on the CPU where that has no float64."""
    tensor = values.detach() if isinstance(values, torch.Tensor) else torch.from_numpy(np.array(values, np.float64))
    if tensor.ndim < 2 or not math.prod(tensor.shape[1:]):
        raise BadInput(f"{name}: shape {tuple(tensor.shape)}, expected (N, F) or (N, C, H, W)")
    _enough(len(tensor), least, name, "this distance")
    rows = (tensor.cpu() if tensor.device.type == "mps" else tensor).flatten(1).double()
    finite = rows.isfinite().all(dim=1)
    if not finite.all():
        first = int((~finite).nonzero()[0])
        raise BadInput(f"{name}: row {first} is not finite, nor are {int((~finite).sum()) - 1} others; leave them out")
    return rows


def _enough(found: int, needed: int, name: str, purpose: str) -> None:
    if found < needed:
        raise BadInput(f"{name}: found {found}, {purpose} needs at least {needed}; give more")


def _same_width(first: torch.Tensor, second: torch.Tensor) -> None:
    if first.shape[-1] != second.shape[-1]:
        raise BadInput(f"rows of {first.shape[-1]} and of {second.shape[-1]} numbers: expected the same space for both")


def _canonical(rows: torch.Tensor) -> torch.Tensor:
    """Rows in lexicographic order, so that a seed draws the same ones in whatever order they came."""
    order = np.lexsort(rows.cpu().numpy().T[::-1])
    return rows[torch.from_numpy(order).to(rows.device)]


def _draw(rng: np.random.Generator, count: int, size: int) -> torch.Tensor:
    return torch.from_numpy(rng.permutation(count)[:size])


def _squared_distances(rows: torch.Tensor, others: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield (first row, (B, M) squared distances) block by block."""
    others = others.to(rows.device)
    squares = others.square().sum(dim=1)
    start = 0
    for block in torch.split(rows, max(1, _BLOCK // len(others))):
        lengths = block.square().sum(dim=1, keepdim=True)
        yield start, torch.addmm(lengths + squares, block, others.T, alpha=-2).clamp_min_(0)
        start += len(block)
