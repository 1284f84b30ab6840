"""Compares the agent with every baseline on the test split, pair by pair."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from vernissage.retoucher.domain.quality import delta_e, psnr, ssim
from vernissage.retoucher.domain.render import render
from vernissage.retoucher.judge.baselines import SEARCHES, Baseline
from vernissage.retoucher.judge.intervals import cluster_bootstrap
from vernissage.retoucher.judge.searches import juror_search
from vernissage.retoucher.learn.dataset import Pair, load_photo
from vernissage.retoucher.learn.hacking import hack_gap
from vernissage.retoucher.learn.rollout import run_policy
from vernissage.retoucher.learn.search import BEAM_WIDTH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np

    from vernissage.retoucher.learn.juror import Juror
    from vernissage.retoucher.learn.network import PolicyNet

AGENT = "retoucher"
#: Slow methods are measured on this many pairs, evenly spread over all: a beam search renders and scores a thousand
#: pictures for one. The protocol of `vernissage bench retoucher` gives them more.
SLOW_PAIRS = 24
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


def agent_method(network: PolicyNet, name: str = AGENT) -> Baseline:
    """The trained agent in the form of a baseline, so that every method runs through the same code."""

    def run(photos: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        rollout = run_policy(network, photos)
        return render(photos, rollout.settings), rollout.edits.float()

    return Baseline(name, classic=False, run=run)


def quality_method(network: PolicyNet, juror: Juror, name: str) -> Baseline:
    """What ``--mode quality`` does: the policy's edits or those of a beam search, whichever the juror scores higher."""
    spec, fast = network.spec, agent_method(network)
    search = juror_search(spec.actions(), juror, spec.view, horizon=spec.horizon, width=BEAM_WIDTH)

    def run(photos: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        (own, own_edits), (found, found_edits) = fast.run(photos), search(photos)
        better = juror.score(found) > juror.score(own)
        return torch.where(better.view(-1, 1, 1, 1), found, own), torch.where(better, found_edits, own_edits)

    return Baseline(name, classic=False, run=run)


def spread_evenly(count: int, at_most: int) -> list[int]:
    """At most ``at_most`` of ``count`` indices, at even distances, the same every time."""
    chosen = min(count, at_most)
    return [int((place + 0.5) * count / chosen) for place in range(chosen)]


@torch.no_grad()
def score_results(
    method: Baseline, faulty: torch.Tensor, original: torch.Tensor, juror: Juror | None, *, in_8_bits: bool = False
) -> dict[str, torch.Tensor]:
    """Run one method and take its measures.

    Args:
        method: The method.
        faulty: (N, 3, H, W) float in [0, 1].
        original: Same shape.
        juror: Scores the results, where there is one.
        in_8_bits: Measure what a file would hold of the results.

    Returns:
        ``psnr, ssim, delta_e, steps`` and with a juror ``juror``, (N,) each.
    """
    result, steps = method.results(faulty, original)
    if in_8_bits:
        result = torch.round(result * 255) / 255
    measures = {
        "psnr": psnr(result, original),
        "ssim": ssim(result, original),
        "delta_e": delta_e(result, original),
        "steps": steps,
    }
    if juror is not None:
        measures["juror"] = juror.score(result)
    return measures


@torch.no_grad()
def measure(
    methods: Sequence[Baseline],
    pairs: Sequence[Pair],
    juror: Juror,
    advance: Callable[[int], None],
    *,
    slow_pairs: int = SLOW_PAIRS,
) -> pd.DataFrame:
    """Run every method on every pair, slow methods on an evenly spread part.

    Args:
        methods: The agent and the baselines.
        pairs: Pairs of a split that nothing learned from.
        juror: Scores pictures before and after.
        advance: Told how many results are done.
        slow_pairs: Pairs for slow methods.

    Returns:
        One row per method and pair: ``method, pair_id, photo, group, category, n_faults, psnr_before, delta_e_before,
        juror_before, psnr, ssim, delta_e, steps, juror``.
    """
    rows: list[dict[str, Any]] = []
    part = {pairs[place].pair_id for place in spread_evenly(len(pairs), slow_pairs)}
    for batch in load_batches(pairs):
        before = {
            "psnr_before": psnr(batch.faulty, batch.original),
            "delta_e_before": delta_e(batch.faulty, batch.original),
            "juror_before": juror.score(batch.faulty),
        }
        places = torch.arange(len(batch.pairs))
        in_part = torch.tensor([pair.pair_id in part for pair in batch.pairs])
        for method in methods:
            chosen = places[in_part] if method.slow else places
            if not len(chosen):
                continue
            after = score_results(method, batch.faulty[chosen], batch.original[chosen], juror)
            columns = {name: column[chosen] for name, column in before.items()} | after
            facts = [_facts(batch.pairs[place]) for place in chosen.tolist()]
            rows += [{"method": method.name, **row} for row in as_rows(facts, columns)]
            advance(len(chosen))
    frame = pd.DataFrame(rows)
    order = {method.name: place for place, method in enumerate(methods)}
    frame["order"] = frame["method"].map(order)
    return frame.sort_values(["order", "pair_id"], ignore_index=True).drop(columns="order")


def count_results(methods: Sequence[Baseline], pairs: int, slow_pairs: int = SLOW_PAIRS) -> int:
    """How many results :func:`measure` takes, for a progress bar."""
    return sum(min(pairs, slow_pairs) if method.slow else pairs for method in methods)


def _facts(pair: Pair) -> dict[str, Any]:
    return {
        "pair_id": pair.pair_id,
        "photo": pair.original.stem,
        "group": pair.group,
        "category": pair.category,
        "n_faults": pair.n_faults,
    }


def as_rows(facts: Sequence[dict[str, Any]], columns: dict[str, torch.Tensor]) -> list[dict[str, Any]]:
    """Join what is known of each item with its measures, (N,) each."""
    lists = {name: column.double().tolist() for name, column in columns.items()}
    return [{**known, **{name: values[index] for name, values in lists.items()}} for index, known in enumerate(facts)]


def summarise(items: pd.DataFrame, *, worse_margin: float, resamples: int, rng: np.random.Generator) -> dict[str, Any]:
    """Sum up the items of each method.

    "Improved" and "worsened" mean that the colour difference to the original changed by more than ``worse_margin``;
    clean photos are counted apart, as how much a method changes them.

    Args:
        items: What :func:`measure` returned; columns of a juror may be missing.
        worse_margin: In CIEDE2000.
        resamples: Resamplings of each interval.
        rng: Source of randomness.

    Returns:
        Method to metric to ``mean, low, high``; ``hack_gap`` and the number ``n`` of faulty photos are plain numbers.
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
            "steps": faulty["steps"],
        }
        if "juror" in faulty:
            columns["juror_gain"] = faulty["juror"] - faulty["juror_before"]
        row: dict[str, Any] = {
            name: cluster_bootstrap(values.to_numpy(), faulty["photo"].to_numpy(), resamples, rng)
            for name, values in columns.items()
            if len(values)
        }
        if len(faulty):
            row["n"] = len(faulty)
        if len(faulty) and "juror_gain" in columns:
            gains = (columns["juror_gain"], faulty["delta_e_before"], faulty["delta_e"])
            row["hack_gap"] = round(hack_gap(*(torch.tensor(column.to_numpy()) for column in gains)), 4)
        if len(clean):
            values, photos = clean["delta_e"].to_numpy(), clean["photo"].to_numpy()
            row["clean_delta_e"] = cluster_bootstrap(values, photos, resamples, rng)
        rows[str(method)] = row
    return rows


def paired_gains(
    items: pd.DataFrame, *, resamples: int, rng: np.random.Generator, agent: str = AGENT
) -> dict[str, Any]:
    """How far the agent is ahead of each other method on the same pairs.

    Args:
        items: What :func:`measure` returned.
        resamples: Resamplings of each interval.
        rng: Source of randomness.
        agent: Whose lead it is.

    Returns:
        Method to ``psnr`` and ``delta_e`` differences; above zero in PSNR and below zero in CIEDE2000 the agent wins.
        ``n`` is the number of pairs that both were measured on.
    """
    faulty = items[items["n_faults"] > 0]
    own = faulty[faulty["method"] == agent].set_index("pair_id")
    gains: dict[str, Any] = {}
    for method, table in faulty.groupby("method", sort=False):
        other = table.set_index("pair_id")
        common = own.index.intersection(other.index, sort=False)
        if method == agent or common.empty:
            continue
        mine, theirs = own.loc[common], other.loc[common]
        gains[str(method)] = {
            metric: cluster_bootstrap(
                (mine[metric] - theirs[metric]).to_numpy(), mine["photo"].to_numpy(), resamples, rng
            )
            for metric in ("psnr", "delta_e")
        } | {"n": len(common)}
    return gains


def strongest(methods: Sequence[Baseline], ahead_of: dict[str, Any], *, everywhere: bool = False) -> Baseline | None:
    """The baseline that the agent is least ahead of in PSNR, pair by pair, so that parts of the pairs are no advantage.

    Args:
        methods: All methods; upper bounds do not count.
        ahead_of: What :func:`paired_gains` returned.
        everywhere: Only those that were measured on every pair.

    Returns:
        The strongest; None where nothing was compared.
    """
    rivals = [
        method
        for method in methods
        if method.name in ahead_of and not method.upper_bound and not (everywhere and method.slow)
    ]
    return min(rivals, key=lambda method: ahead_of[method.name]["psnr"]["mean"], default=None)


def search_beats_policy(ahead_of: dict[str, Any]) -> dict[str, Any] | None:
    """Whether a search by the same juror finds better edits than the policy.

    Args:
        ahead_of: What :func:`paired_gains` returned.

    Returns:
        The best ``search``, the number ``n`` of pairs, how far it is ahead of the policy in ``psnr`` and ``delta_e``
        (above and below zero it is better), and ``beats``: whether its lead in PSNR is beyond doubt, with the whole
        interval above zero. None where no search was measured.
    """
    searches = [name for name in SEARCHES if name in ahead_of]
    if not searches:
        return None
    best = min(searches, key=lambda name: ahead_of[name]["psnr"]["mean"])
    turned = {metric: _turned(ahead_of[best][metric]) for metric in ("psnr", "delta_e")}
    return {"search": best, "n": ahead_of[best]["n"], **turned, "beats": turned["psnr"]["low"] > 0}


def _turned(difference: dict[str, float]) -> dict[str, float]:
    """The same difference seen from the other side; adding zero turns -0 into 0."""
    return {"mean": 0.0 - difference["mean"], "low": 0.0 - difference["high"], "high": 0.0 - difference["low"]}


def benchmark_table(
    items: pd.DataFrame, methods: Sequence[Baseline], *, worse_margin: float, resamples: int, rng: np.random.Generator
) -> dict[str, Any]:
    """Everything that the items say.

    Args:
        items: What :func:`measure` returned.
        methods: The methods that were measured.
        worse_margin: In CIEDE2000.
        resamples: Resamplings of each interval.
        rng: Source of randomness.

    Returns:
        ``rows`` and ``ahead_of`` by method, ``search_beats_policy``, the name of the ``strongest`` baseline, names of
        ``classics`` and ``upper_bounds``, and how many ``pairs``, ``photos`` and ``groups`` there were.
    """
    rows = summarise(items, worse_margin=worse_margin, resamples=resamples, rng=rng)
    ahead_of = paired_gains(items, resamples=resamples, rng=rng)
    best = strongest(methods, ahead_of)
    return {
        "rows": rows,
        "ahead_of": ahead_of,
        "search_beats_policy": search_beats_policy(ahead_of),
        "strongest": best.name if best else None,
        "classics": [method.name for method in methods if method.classic],
        "upper_bounds": [method.name for method in methods if method.upper_bound],
        "pairs": int(items["pair_id"].nunique()),
        "photos": int(items["photo"].nunique()),
        "groups": sorted(items["group"].unique()),
    }
