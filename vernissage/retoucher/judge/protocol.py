"""The fixed protocol by which retouchers are compared on any folder of photos, whatever they were trained on.

Photos of 160 pixels, one to five random faults of exposure, temperature, tint, contrast and saturation in random order,
stored in 8 bits; the photos themselves are the clean items. Every draw has a seed of its own, so that any part of a run
can be made again. Results are measured as an 8-bit file would hold them.
"""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from vernissage.core.errors import BadInput, RejectedImage
from vernissage.core.images import read_photo
from vernissage.core.seeds import numpy_generator
from vernissage.retoucher.domain.faults import AppliedFault, apply_faults, draw_faults
from vernissage.retoucher.domain.pictures import comparison_grid
from vernissage.retoucher.domain.quality import delta_e, psnr
from vernissage.retoucher.judge.benchmark import (
    as_rows,
    paired_gains,
    score_results,
    search_beats_policy,
    spread_evenly,
    summarise,
)
from vernissage.retoucher.judge.intervals import cluster_bootstrap
from vernissage.retoucher.prepare.resize import shrink

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from vernissage.retoucher.judge.baselines import Baseline
    from vernissage.retoucher.learn.juror import Juror

#: Long edge of the photos, in pixels.
LONG_EDGE = 160
KINDS = ("exposure", "temperature", "tint", "contrast", "saturation")
FEWEST_FAULTS, MOST_FAULTS = 1, len(KINDS)
#: Draws per photo from which a mean is steady enough to be quoted: with 8 it moves by 0.3 dB.
HEADLINE_DRAWS = 32
#: A photo counts as improved or worse when its CIEDE2000 to the original changed by more than this.
WORSE_MARGIN = 0.5
#: Below this CIEDE2000 a faulty photo hardly looks faulty.
LARGE_FAULT = 4.0
#: A clean photo that is changed by more than this was harmed.
CLEAN_HARM = 3.0
#: PSNR of the input, in dB, that part the bands of the table by difficulty.
BANDS = (18.0, 22.0, 27.0)
#: Faulty photos on which slow methods are measured.
SLOW_ITEMS = 96

_CLEAN = -1
_MIN_EDGE = 32
_RESAMPLES = 1000


@dataclass(frozen=True)
class Source:
    """One photo of the folder.

    Attributes:
        index: Place among the files, which seeds its faults.
        name: File name.
        pixels: (1, 3, H, W) float in [0, 1], on the 8-bit grid.
    """

    index: int
    name: str
    pixels: torch.Tensor


@dataclass(frozen=True)
class Items:
    """The faulty copies of one photo and, last, the photo itself.

    Attributes:
        source: The photo.
        draws: Number of each draw; -1 is the clean item.
        faults: What was done, in order.
        faulty: (N, 3, H, W) float in [0, 1].
    """

    source: Source
    draws: tuple[int, ...]
    faults: tuple[tuple[AppliedFault, ...], ...]
    faulty: torch.Tensor

    @property
    def original(self) -> torch.Tensor:
        """(N, 3, H, W), the photo as often as there are items."""
        return self.source.pixels.expand_as(self.faulty)

    def facts(self, place: int) -> dict[str, Any]:
        """What is known of one item."""
        faults = self.faults[place]
        return {
            "pair_id": f"{self.source.index}:{'clean' if self.draws[place] == _CLEAN else self.draws[place]}",
            "photo": self.source.name,
            "draw": self.draws[place],
            "n_faults": len(faults),
            "faults": json.dumps([asdict(fault) for fault in faults]),
        }


def read_sources(files: Sequence[Path]) -> tuple[list[Source], list[tuple[Path, str]]]:
    """Read photos and bring them to the size of the protocol as the pipeline does.

    Args:
        files: The photos, in the order that seeds their faults.

    Returns:
        What could be read; and what could not, with the reason.

    Raises:
        BadInput: If no photo can be used.
    """
    sources: list[Source] = []
    rejected: list[tuple[Path, str]] = []
    for index, file in enumerate(files):
        try:
            pixels = shrink(read_photo(file), LONG_EDGE)
        except RejectedImage as error:
            rejected.append((file, error.reason))
            continue
        height, width = pixels.shape[:2]
        if min(height, width) < _MIN_EDGE:
            rejected.append((file, f"too small: {width}x{height} px after resizing, expected {_MIN_EDGE} px or more"))
            continue
        plane = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
        # Names may hold bytes that are no text, tables may not.
        name = file.name.encode("utf-8", "replace").decode("utf-8")
        sources.append(Source(index, name, plane.unsqueeze(0).float() / 255))
    if not sources:
        reasons = "; ".join(f"{file}: {reason}" for file, reason in rejected[:3])
        raise BadInput(f"no photo to measure on{f' ({reasons})' if reasons else ''}; expected a folder with photos")
    return sources, rejected


def draw_items(source: Source, draws: int, seed: int) -> Items:
    """Damage one photo, each draw from a seed of its own.

    Args:
        source: The photo.
        draws: Faulty copies; fewer are the first of more.
        seed: Root of the randomness.

    Returns:
        The copies and the clean photo.
    """
    rngs = [numpy_generator(seed, "bench", source.index, draw) for draw in range(draws)]
    faults = [draw_faults(rng, FEWEST_FAULTS, MOST_FAULTS, KINDS) for rng in rngs]
    faulty = apply_faults(source.pixels.expand(draws, -1, -1, -1), faults, rngs)
    return Items(source, (*range(draws), _CLEAN), (*faults, ()), torch.cat((faulty, source.pixels)))


def slow_part(sources: Sequence[Source], draws: int) -> tuple[set[int], int]:
    """Where slow methods are measured: which photos, and the first how many draws of each."""
    photos = {sources[place].index for place in spread_evenly(len(sources), SLOW_ITEMS)}
    return photos, max(1, min(draws, SLOW_ITEMS // len(photos)))


def run_protocol(
    sources: Sequence[Source],
    methods: Sequence[Baseline],
    *,
    draws: int,
    seed: int,
    juror: Juror | None,
    advance: Callable[[int], None],
) -> pd.DataFrame:
    """Run every method on every item, one photo after the other, so that memory does not grow with the folder.

    Args:
        sources: The photos.
        methods: Agents and baselines.
        draws: Faulty copies of each photo.
        seed: Root of the randomness.
        juror: Scores before and after, where there is one.
        advance: Told how many results are done.

    Returns:
        One row per method and item: ``method, pair_id, photo, draw, n_faults, faults, psnr_before, delta_e_before,
        psnr, ssim, delta_e, steps``, with a juror also ``juror_before`` and ``juror``.
    """
    photos, few = slow_part(sources, draws)
    tables: dict[str, list[dict[str, Any]]] = {method.name: [] for method in methods}
    for source in sources:
        items = draw_items(source, draws, seed)
        before = {"psnr_before": psnr(items.faulty, items.original)}
        before["delta_e_before"] = delta_e(items.faulty, items.original)
        if juror is not None:
            with torch.no_grad():
                before["juror_before"] = juror.score(items.faulty)
        for method in methods:
            places = [place for place, draw in enumerate(items.draws) if not method.slow or draw < few]
            if method.slow and source.index not in photos:
                continue
            measures = score_results(method, items.faulty[places], items.original[places], juror, in_8_bits=True)
            columns = {name: column[places] for name, column in before.items()} | measures
            rows = as_rows([items.facts(place) for place in places], columns)
            tables[method.name] += [{"method": method.name, **row} for row in rows]
            advance(len(places))
    return pd.DataFrame([row for rows in tables.values() for row in rows])


def count_protocol(sources: Sequence[Source], methods: Sequence[Baseline], draws: int) -> int:
    """How many results :func:`run_protocol` takes, for a progress bar."""
    photos, few = slow_part(sources, draws)
    return sum(len(photos) * (few + 1) if method.slow else len(sources) * (draws + 1) for method in methods)


@dataclass(frozen=True)
class Contest:
    """Who takes part.

    Attributes:
        methods: All of them.
        agents: Names of the agents by mode; several trainings of one agent stand side by side.
    """

    methods: tuple[Baseline, ...]
    agents: dict[str, tuple[str, ...]]

    @property
    def own(self) -> list[str]:
        """Names of all agents."""
        return [name for names in self.agents.values() for name in names]

    @property
    def rivals(self) -> list[Baseline]:
        """What an agent has to beat: no agent, no upper bound."""
        return [method for method in self.methods if method.name not in self.own and not method.upper_bound]


def protocol_result(items: pd.DataFrame, contest: Contest, *, seed: int) -> dict[str, Any]:
    """Sum up a run.

    Args:
        items: What :func:`run_protocol` returned.
        contest: Who took part.
        seed: Root of the randomness of the intervals.

    Returns:
        ``rows`` by method; their ``order``: the strongest baseline, the agents, the others from the strongest down, the
        upper bounds; ``strongest``; ``ahead_of`` by agent and method; ``search_beats_policy`` for the first agent;
        ``spread`` over several trainings by mode; and ``groups`` by fault, number of faults and difficulty.
    """
    rng = numpy_generator(seed, "bench", "bootstrap")
    rows = protocol_rows(items, rng)
    ahead_of = {name: paired_gains(items, resamples=_RESAMPLES, rng=rng, agent=name) for name in contest.own}
    # By the gain over no edit: methods that were measured on a part of the items are no better or worse for its faults.
    others = sorted((method.name for method in contest.rivals), key=lambda name: -rows[name]["gain"]["mean"])
    bounds = [method.name for method in contest.methods if method.upper_bound]
    order = [*others[:1], *contest.own, *others[1:], *bounds]
    return {
        "rows": rows,
        "order": order,
        "strongest": others[0] if others else None,
        "upper_bounds": bounds,
        "agents": contest.own,
        "ahead_of": ahead_of,
        "search_beats_policy": search_beats_policy(ahead_of[contest.own[0]]) if contest.own else None,
        "spread": {mode: spread_of(rows, names) for mode, names in contest.agents.items() if len(names) > 1},
        "groups": group_rows(items),
    }


def protocol_rows(items: pd.DataFrame, rng: np.random.Generator) -> dict[str, Any]:
    """Method to metric to ``mean, low, high`` by a bootstrap over photos; counts and maxima are plain numbers.

    Besides what :func:`summarise` gives: ``gain`` in PSNR over no edit, ``improved_large`` among photos with an input
    CIEDE2000 of 4 or more, ``clean_max``, and ``clean_over``: clean photos that were changed by more than 3.

    Args:
        items: What :func:`run_protocol` returned.
        rng: Source of randomness.

    Returns:
        The rows, in the order of the items.
    """
    rows = summarise(items, worse_margin=WORSE_MARGIN, resamples=_RESAMPLES, rng=rng)
    for name, table in items.groupby("method", sort=False):
        row, faulty, clean = rows[str(name)], table[table["n_faults"] > 0], table[table["n_faults"] == 0]
        large = faulty[faulty["delta_e_before"] >= LARGE_FAULT]
        columns = {
            "gain": (faulty, faulty["psnr"] - faulty["psnr_before"]),
            "improved_large": (large, (large["delta_e"] < large["delta_e_before"] - WORSE_MARGIN).astype(float)),
        }
        for key, (part, values) in columns.items():
            if len(values):
                row[key] = cluster_bootstrap(values.to_numpy(), part["photo"].to_numpy(), _RESAMPLES, rng)
        if len(clean):
            row["clean_max"] = round(float(clean["delta_e"].max()), 4)
            row["clean_over"] = int((clean["delta_e"] > CLEAN_HARM).sum())
    return rows


def spread_of(rows: dict[str, Any], names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation of several trainings of one agent, metric by metric.

    Args:
        rows: What :func:`protocol_rows` returned.
        names: Rows of the trainings, two or more.

    Returns:
        Metric to ``mean`` and ``sd`` (sample standard deviation).
    """
    metrics = [key for key in rows[names[0]] if key != "n"]
    found = {}
    for metric in metrics:
        values = [rows[name][metric] for name in names]
        means = [value["mean"] if isinstance(value, dict) else float(value) for value in values]
        found[metric] = {"mean": round(statistics.fmean(means), 4), "sd": round(statistics.stdev(means), 4)}
    return found


def group_rows(items: pd.DataFrame) -> list[dict[str, Any]]:
    """How each method does by kind of a single fault, by number of faults, and by PSNR of the input.

    Args:
        items: What :func:`run_protocol` returned.

    Returns:
        Rows with ``group, method, n, psnr_before, psnr, improved, worsened``.
    """
    faulty = items[items["n_faults"] > 0]
    singles = faulty[faulty["n_faults"] == 1]
    kinds = singles["faults"].map(lambda text: json.loads(text)[0]["name"])
    edges = (-np.inf, *BANDS, np.inf)
    bands = [f"input under {BANDS[0]:g} dB"]
    bands += [f"input {low:g} to {high:g} dB" for low, high in pairwise(BANDS)]
    bands += [f"input over {BANDS[-1]:g} dB"]
    parts = [(f"only {kind}", singles[kinds == kind]) for kind in KINDS]
    parts += [
        (f"{number} fault{'s' if number > 1 else ''}", faulty[faulty["n_faults"] == number])
        for number in range(FEWEST_FAULTS, MOST_FAULTS + 1)
    ]
    parts += [
        (band, faulty[(faulty["psnr_before"] >= low) & (faulty["psnr_before"] < high)])
        for band, (low, high) in zip(bands, pairwise(edges), strict=True)
    ]
    rows = []
    for group, part in parts:
        for method, table in part.groupby("method", sort=False):
            change = table["delta_e"] - table["delta_e_before"]
            rows.append(
                {
                    "group": group,
                    "method": str(method),
                    "n": len(table),
                    "psnr_before": round(float(table["psnr_before"].mean()), 4),
                    "psnr": round(float(table["psnr"].mean()), 4),
                    "improved": round(float((change < -WORSE_MARGIN).mean()), 4),
                    "worsened": round(float((change > WORSE_MARGIN).mean()), 4),
                }
            )
    return rows


def before_after(
    sources: Sequence[Source], items: pd.DataFrame, agent: Baseline, rival: Baseline, *, seed: int, rows: int
) -> NDArray[np.uint8]:
    """Faulty photos as agent and rival leave them, from the largest gain to the largest loss at even distances.

    Args:
        sources: The photos.
        items: What :func:`run_protocol` returned.
        agent: Whose gain orders the rows.
        rival: Stands beside it.
        seed: As in the run.
        rows: Most photos.

    Returns:
        (H, W, 3) uint8.
    """
    faulty = items[(items["method"] == agent.name) & (items["n_faults"] > 0)].copy()
    faulty["change"] = faulty["delta_e"] - faulty["delta_e_before"]
    ranked = faulty.sort_values(["change", "pair_id"])
    count = min(rows, len(ranked))
    chosen = ranked.iloc[[round(place * (len(ranked) - 1) / max(1, count - 1)) for place in range(count)]]
    by_name = {source.index: source for source in sources}
    pictures, notes = [], []
    for item in chosen.to_dict("records"):
        source = by_name[int(item["pair_id"].partition(":")[0])]
        made = draw_items(source, item["draw"] + 1, seed)
        photo = made.faulty[item["draw"] : item["draw"] + 1]
        with torch.no_grad():
            results = [torch.round(method.results(photo, source.pixels)[0] * 255) / 255 for method in (agent, rival)]
        pictures.append([photo[0], results[0][0], results[1][0], source.pixels[0]])
        distances = [float(delta_e(picture, source.pixels)) for picture in (photo, *results)]
        notes.append([*(f"dE00 {distance:.1f}" for distance in distances), source.name])
    columns = ("faulty", agent.name, rival.name, "original")
    title = "From the largest gain to the largest loss, at even distances"
    return comparison_grid(pictures, columns, notes=notes, title=title, cell=200)
