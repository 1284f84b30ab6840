"""What search finds instead of the agent: by chance, by the juror in one step or many, by the original itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from vernissage.retoucher.domain.filters import resize_square
from vernissage.retoucher.domain.render import render
from vernissage.retoucher.domain.sliders import SLIDER_COUNT
from vernissage.retoucher.learn.search import MARGIN, oracle_edits, search_edits

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from vernissage.retoucher.judge.classics import Method
    from vernissage.retoucher.learn.actions import ActionTable
    from vernissage.retoucher.learn.juror import Juror


def random_edits(actions: ActionTable, horizon: int, rng: np.random.Generator) -> Method:
    """Take up to ``horizon`` random edits."""

    def run(photos: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        settings = torch.zeros(len(photos), SLIDER_COUNT)
        edits = torch.from_numpy(rng.integers(1, horizon + 1, size=len(photos)))
        for step in range(horizon):
            chosen = torch.from_numpy(rng.integers(actions.stop, size=len(photos)))
            settings = actions.apply(settings, torch.where(edits > step, chosen, actions.stop))
        return render(photos, settings), edits.float()

    return run


def juror_search(
    actions: ActionTable, juror: Juror, view: int, *, horizon: int, width: int = 1, margin: float = MARGIN
) -> Method:
    """Search for the edits that the juror likes best, on thumbnails; see :func:`search_edits`.

    Args:
        actions: What can be done.
        juror: Leads the search.
        view: Side of the thumbnails in pixels.
        horizon: Most edits.
        width: States kept of each photo.
        margin: Points that one more edit must gain.

    Returns:
        The method.
    """

    def run(photos: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        thumbnails = resize_square(photos, view)
        found = search_edits(actions, juror, thumbnails, horizon=horizon, width=width, margin=margin)
        return render(photos, found.settings), found.edits.float()

    return run


def oracle_search(
    actions: ActionTable, horizon: int
) -> Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
    """Step greedily towards the original, which nobody has when a photo is to be edited.

    Args:
        actions: What can be done.
        horizon: Most edits.

    Returns:
        Takes faulty photos and their originals, gives results and numbers of edits.
    """

    def run(photos: torch.Tensor, originals: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found = oracle_edits(actions, photos, originals, horizon=horizon)
        return render(photos, found.settings), found.edits.float()

    return run
