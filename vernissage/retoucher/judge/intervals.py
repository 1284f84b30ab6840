"""Bootstrap intervals over photos: pairs of one photo stay together, because they are not independent."""

from __future__ import annotations

import numpy as np


def cluster_bootstrap(
    values: np.ndarray, clusters: np.ndarray, resamples: int, rng: np.random.Generator
) -> dict[str, float]:
    """Mean with a 95 % percentile interval (Efron and Tibshirani 1993, section 13.3), resampling whole clusters.

    Args:
        values: (n,) one number per pair.
        clusters: (n,) which photo each pair belongs to.
        resamples: Number of resamplings.
        rng: Source of randomness.

    Returns:
        ``mean``, ``low`` and ``high``, rounded to four digits.

    Raises:
        ValueError: If there are no values or the lengths differ.
    """
    if not len(values) or len(values) != len(clusters):
        raise ValueError(f"bootstrap: got {len(values)} values and {len(clusters)} clusters, expected equal, not empty")
    _, index = np.unique(clusters, return_inverse=True)
    sums = np.bincount(index, weights=values)
    counts = np.bincount(index).astype(float)
    picked = rng.integers(len(sums), size=(resamples, len(sums)))
    means = sums[picked].sum(axis=1) / counts[picked].sum(axis=1)
    low, high = np.percentile(means, (2.5, 97.5))
    return {"mean": round(float(np.mean(values)), 4), "low": round(float(low), 4), "high": round(float(high), 4)}
