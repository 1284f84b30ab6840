"""Compares the agent with every baseline on the test split, pair by pair."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from vernissage.retoucher.domain.quality import delta_e, psnr, ssim
from vernissage.retoucher.domain.render import render
from vernissage.retoucher.judge.baselines import Baseline
from vernissage.retoucher.judge.intervals import cluster_bootstrap
from vernissage.retoucher.learn.dataset import Pair, load_photo
from vernissage.retoucher.learn.rollout import run_policy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np

    from vernissage.retoucher.learn.juror import Juror
    from vernissage.retoucher.learn.network import PolicyNet

AGENT = "retoucher"
_BATCH = 32


@dataclass(frozen=True)
class Batch:
    """Pairs of one size.

    Attributes:
        pairs: N pairs.
        faulty: (N, 3, H, W) float in [0, 1].
        original: Same shape.
    """

    pairs: list[Pair]
    faulty: torch.Tensor
    original: torch.Tensor


def load_batches(pairs: Sequence[Pair], batch: int = _BATCH) -> Iterator[Batch]:
    """Load pairs in batches of equal size, in an order that depends on the pairs alone.

    Args:
        pairs: What to load.
        batch: Most pairs of a batch.

    Yields:
        The batches.
    """
    by_size: dict[tuple[int, ...], list[tuple[Pair, torch.Tensor]]] = {}
    for pair in pairs:
        faulty = load_photo(pair.faulty)
        group = by_size.setdefault(tuple(faulty.shape), [])
        group.append((pair, faulty))
        if len(group) == batch:
            yield _as_batch(by_size.pop(tuple(faulty.shape)))
    for group in by_size.values():
        yield _as_batch(group)


def _as_batch(group: list[tuple[Pair, torch.Tensor]]) -> Batch:
    pairs = [pair for pair, _ in group]
    return Batch(pairs, torch.cat([faulty for _, faulty in group]), torch.cat([load_photo(p.original) for p in pairs]))


def agent_method(network: PolicyNet) -> Baseline:
    """The trained agent in the form of a baseline, so that every method runs through the same code."""

    def run(photos: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        rollout = run_policy(network, photos)
        return render(photos, rollout.settings), rollout.edits.float()

    return Baseline(AGENT, classic=False, run=run)


@torch.no_grad()
def measure(
    methods: Sequence[Baseline], pairs: Sequence[Pair], juror: Juror, advance: Callable[[int], None]
) -> pd.DataFrame:
    """Run every method on every pair.

    Args:
        methods: The agent and the baselines.
        pairs: Pairs of a split that nothing learned from.
        juror: Scores pictures before and after.
        advance: Told how many results are done.

    Returns:
        One row per method and pair: ``method, pair_id, photo, group, category, n_faults, psnr, ssim, delta_e,
        delta_e_before, juror, juror_before, steps``.
    """
    rows: list[dict[str, Any]] = []
    for batch in load_batches(pairs):
        before = delta_e(batch.faulty, batch.original)
        score_before = juror.score(batch.faulty)
        for method in methods:
            result, steps = method.run(batch.faulty)
            columns = {
                "psnr": psnr(result, batch.original),
                "ssim": ssim(result, batch.original),
                "delta_e": delta_e(result, batch.original),
                "delta_e_before": before,
                "juror": juror.score(result),
                "juror_before": score_before,
                "steps": steps,
            }
            lists = {name: column.double().tolist() for name, column in columns.items()}
            for index, pair in enumerate(batch.pairs):
                rows.append(
                    {
                        "method": method.name,
                        "pair_id": pair.pair_id,
                        "photo": pair.original.stem,
                        "group": pair.group,
                        "category": pair.category,
                        "n_faults": pair.n_faults,
                        **{name: values[index] for name, values in lists.items()},
                    }
                )
            advance(len(batch.pairs))
    frame = pd.DataFrame(rows)
    order = {method.name: place for place, method in enumerate(methods)}
    frame["order"] = frame["method"].map(order)
    return frame.sort_values(["order", "pair_id"], ignore_index=True).drop(columns="order")


def summarise(items: pd.DataFrame, *, worse_margin: float, resamples: int, rng: np.random.Generator) -> dict[str, Any]:
    """Sum up the items of each method.

    "Improved" and "worsened" mean that the colour difference to the original changed by more than ``worse_margin``;
    clean photos are counted apart, as how much a method changes them.

    Args:
        items: What :func:`measure` returned.
        worse_margin: In CIEDE2000.
        resamples: Resamplings of each interval.
        rng: Source of randomness.

    Returns:
        Method to metric to ``mean, low, high``.
    """
    rows: dict[str, Any] = {}
    for method, table in items.groupby("method", sort=False):
        faulty, clean = table[table["n_faults"] > 0], table[table["n_faults"] == 0]
        change = faulty["delta_e"] - faulty["delta_e_before"]
        columns = {
            "psnr": faulty["psnr"],
            "delta_e": faulty["delta_e"],
            "ssim": faulty["ssim"],
            "improved": (change < -worse_margin).astype(float),
            "unchanged": (change.abs() <= worse_margin).astype(float),
            "worsened": (change > worse_margin).astype(float),
            "juror_gain": faulty["juror"] - faulty["juror_before"],
            "steps": faulty["steps"],
        }
        row = {
            name: cluster_bootstrap(values.to_numpy(), faulty["photo"].to_numpy(), resamples, rng)
            for name, values in columns.items()
            if len(values)
        }
        if len(clean):
            values, photos = clean["delta_e"].to_numpy(), clean["photo"].to_numpy()
            row["clean_delta_e"] = cluster_bootstrap(values, photos, resamples, rng)
        rows[str(method)] = row
    return rows


def paired_gains(items: pd.DataFrame, *, resamples: int, rng: np.random.Generator) -> dict[str, Any]:
    """How far the agent is ahead of each other method on the same pairs.

    Args:
        items: What :func:`measure` returned.
        resamples: Resamplings of each interval.
        rng: Source of randomness.

    Returns:
        Method to ``psnr`` and ``delta_e`` differences; above zero in PSNR and below zero in CIEDE2000 the agent wins.
    """
    faulty = items[items["n_faults"] > 0]
    agent = faulty[faulty["method"] == AGENT].set_index("pair_id")
    gains: dict[str, Any] = {}
    for method, table in faulty.groupby("method", sort=False):
        if method == AGENT:
            continue
        other = table.set_index("pair_id").loc[agent.index]
        gains[str(method)] = {
            metric: cluster_bootstrap(
                (agent[metric] - other[metric]).to_numpy(), agent["photo"].to_numpy(), resamples, rng
            )
            for metric in ("psnr", "delta_e")
        }
    return gains
