"""Pictures of the benchmark: before and after beside the strongest baseline, and the steps of single photos."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from vernissage.core.images import save_png
from vernissage.retoucher.domain.amounts import amount_text
from vernissage.retoucher.domain.pictures import comparison_grid, step_mosaic
from vernissage.retoucher.domain.render import render
from vernissage.retoucher.domain.sliders import SLIDERS
from vernissage.retoucher.judge.benchmark import AGENT
from vernissage.retoucher.learn.dataset import Pair, load_photo
from vernissage.retoucher.learn.rollout import run_policy

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from vernissage.retoucher.judge.baselines import Baseline
    from vernissage.retoucher.learn.juror import Juror
    from vernissage.retoucher.learn.network import PolicyNet


# Wide enough for a photo of the standard size and for its caption.
_CELL = 200


def save_sheets(
    folder: Path,
    network: PolicyNet,
    juror: Juror,
    rival: Baseline,
    items: pd.DataFrame,
    pairs: Sequence[Pair],
    rows: int,
) -> None:
    """Write ``before-after.png``, ``worst.png`` and ``steps.png``.

    The first shows pairs from the best to the worst gain at even distances, so that it cannot flatter; the second the
    photos that the agent harmed most.

    Args:
        folder: Is made.
        network: The agent.
        juror: Scores the steps.
        rival: The strongest baseline, shown beside.
        items: The benchmark's items.
        pairs: The test pairs.
        rows: Photos per sheet.
    """
    folder.mkdir(parents=True, exist_ok=True)
    agent = items[(items["method"] == AGENT) & (items["n_faults"] > 0)].copy()
    if agent.empty or not rows:
        return
    agent["gain"] = agent["delta_e_before"] - agent["delta_e"]
    ranked = agent.sort_values("gain", ascending=False)["pair_id"].tolist()
    by_id = {pair.pair_id: pair for pair in pairs}
    spread = [ranked[round(i * (len(ranked) - 1) / max(1, rows - 1))] for i in range(min(rows, len(ranked)))]
    title = "From the largest gain to the largest loss, at even distances"
    save_png(folder / "before-after.png", _sheet(network, rival, [by_id[i] for i in spread], items, title))
    worst = [by_id[i] for i in ranked[::-1][:rows]]
    save_png(folder / "worst.png", _sheet(network, rival, worst, items, "Where the agent did most harm"))
    save_png(folder / "steps.png", _steps(network, juror, by_id[ranked[len(ranked) // 10]]))


def _sheet(
    network: PolicyNet, rival: Baseline, pairs: Sequence[Pair], items: pd.DataFrame, title: str
) -> NDArray[np.uint8]:
    columns = ("faulty", AGENT, rival.name, "original")
    table = items.set_index(["method", "pair_id"])
    rows, notes = [], []
    for pair in pairs:
        faulty, original = load_photo(pair.faulty), load_photo(pair.original)
        agent = render(faulty, run_policy(network, faulty).settings)
        rows.append([faulty[0], agent[0], rival.run(faulty)[0][0], original[0]])
        before = table.loc[(AGENT, pair.pair_id), "delta_e_before"]
        after = [table.loc[(name, pair.pair_id), "delta_e"] for name in (AGENT, rival.name)]
        notes.append([f"dE00 {before:.1f}", *(f"dE00 {value:.1f}" for value in after), ""])
    return comparison_grid(rows, columns, notes=notes, title=title, cell=_CELL)


def _steps(network: PolicyNet, juror: Juror, pair: Pair) -> NDArray[np.uint8]:
    faulty = load_photo(pair.faulty)
    rollout = run_policy(network, faulty)
    edits = int(rollout.edits[0])
    path = rollout.path[0, : edits + 1]
    pictures = torch.cat([render(faulty, settings.unsqueeze(0)) for settings in path])
    scores = juror.score(pictures).tolist()
    captions = [f"faulty, juror {scores[0]:.1f}"]
    for step in range(edits):
        change = path[step + 1] - path[step]
        slider = SLIDERS[int(change.abs().argmax())]
        amount = amount_text(slider, float(change.abs().max() * change.sum().sign()))
        captions.append(f"{step + 1} {slider.name} {amount}, juror {scores[step + 1]:.1f}")
    pictures = torch.cat((pictures, load_photo(pair.original)))
    return step_mosaic(pictures, [*captions, "the original"], title="Step by step", cell=_CELL)
