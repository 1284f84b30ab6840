"""What a user could pick instead of the agent: nothing, chance, the classic corrections, a search, a regressor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from vernissage.retoucher.domain.quality import psnr
from vernissage.retoucher.domain.render import render
from vernissage.retoucher.judge.classics import DEFAULTS, GRIDS, Method, classic_method
from vernissage.retoucher.judge.searches import juror_search, oracle_search, random_edits
from vernissage.retoucher.learn.dataset import Pair, load_photo
from vernissage.retoucher.learn.search import BEAM_WIDTH

if TYPE_CHECKING:
    from vernissage.retoucher.learn.juror import Juror
    from vernissage.retoucher.learn.network import PolicySpec
    from vernissage.retoucher.learn.regressor import Regressor

NO_EDIT = "no edit"
ONE_STEP_SEARCH, GREEDY_SEARCH, BEAM_SEARCH = "one-step juror search", "greedy juror search", "beam juror search"
#: Searches that could stand in for the policy; where one of them is better, the table says so.
SEARCHES = (ONE_STEP_SEARCH, GREEDY_SEARCH, BEAM_SEARCH)
REGRESSOR, ORACLE = "one-shot regressor", "oracle greedy (upper bound)"

# Results and edits of faulty photos, given their originals.
_WithOriginals = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Baseline:
    """One way to edit photos, the agent included, so that all run through the same code.

    Attributes:
        name: As printed in tables.
        classic: Whether it is one of the automatic corrections that photo programs offer.
        run: The method; it sees nothing but the photos.
        cheat: Set where the method is given the originals: an upper bound, which never counts as a baseline.
        slow: Whether it is measured on an evenly spread part of the pairs only.
    """

    name: str
    classic: bool
    run: Method
    cheat: _WithOriginals | None = None
    slow: bool = False

    @property
    def upper_bound(self) -> bool:
        """Whether it knows the originals."""
        return self.cheat is not None

    def results(self, faulty: torch.Tensor, originals: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Edit faulty photos; only an upper bound looks at the originals.

        Args:
            faulty: (N, 3, H, W) float in [0, 1].
            originals: Same shape.

        Returns:
            (N, 3, H, W) results and (N,) numbers of edits.
        """
        return self.run(faulty) if self.cheat is None else self.cheat(faulty, originals)


def no_edit(photos: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Leave photos as they are."""
    return photos, torch.zeros(len(photos))


def regressor_method(regressor: Regressor) -> Baseline:
    """The one-shot slider regressor."""

    def run(photos: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        settings = regressor.decide(photos)
        return render(photos, settings), (settings != 0).any(dim=1).float()

    return Baseline(REGRESSOR, classic=False, run=run)


@dataclass(frozen=True)
class TunedClassics:
    """The classic corrections, each with one setting.

    Attributes:
        baselines: Ready to run.
        chosen: Name to setting.
    """

    baselines: list[Baseline]
    chosen: dict[str, float]

    @staticmethod
    def with_settings(chosen: dict[str, float]) -> TunedClassics:
        """The corrections with given settings."""
        methods = [Baseline(name, classic=True, run=classic_method(name, value)) for name, value in chosen.items()]
        return TunedClassics(methods, chosen)


def default_classics() -> TunedClassics:
    """The classic corrections as programs have them out of the box."""
    return TunedClassics.with_settings(dict(DEFAULTS))


def tuned_classics(pairs: Sequence[Pair], at_most: int = 128) -> TunedClassics:
    """Choose the setting of each classic correction on pairs of the validation split, by mean PSNR.

    Args:
        pairs: Validation pairs.
        at_most: Look at no more than this many, evenly spread.

    Returns:
        The corrections.
    """
    faulty = [pair for pair in pairs if pair.n_faults] or list(pairs)
    loaded = [(load_photo(p.faulty), load_photo(p.original)) for p in faulty[:: -(-len(faulty) // at_most)]]
    chosen: dict[str, float] = {}
    for name, grid in GRIDS.items():
        means = {
            setting: np.mean([float(psnr(classic_method(name, setting)(a)[0], b)) for a, b in loaded])
            for setting in grid
        }
        chosen[name] = max(grid, key=lambda setting, means=means: means[setting])  # type: ignore[misc]
    return TunedClassics.with_settings(chosen)


def all_baselines(
    spec: PolicySpec,
    juror: Juror | None,
    classics: TunedClassics,
    rng: np.random.Generator,
    *,
    regressor: Regressor | None = None,
    slow: bool = False,
) -> list[Baseline]:
    """Every baseline of the benchmark.

    Args:
        spec: The agent's actions, horizon and view, which the searches share.
        juror: The juror that the searches ask; without one there are none.
        classics: The tuned classic corrections.
        rng: Source of randomness of the random baseline.
        regressor: The one-shot regressor, where there is one.
        slow: Whether to include the searches and the upper bound, which are measured on a part of the pairs.

    Returns:
        The baselines, "no edit" first, the upper bound last.
    """
    return [
        Baseline(NO_EDIT, classic=False, run=no_edit),
        Baseline("random", classic=False, run=random_edits(spec.actions(), spec.horizon, rng)),
        *classics.baselines,
        *([regressor_method(regressor)] if regressor else []),
        *(searches(spec, juror) if slow else []),
    ]


def searches(spec: PolicySpec, juror: Juror | None) -> list[Baseline]:
    """The searches that could stand in for the policy, and the one that knows the answer.

    Args:
        spec: The agent's actions, horizon and view.
        juror: Leads all but the last; without one there is only the last.

    Returns:
        Three searches and the upper bound.
    """
    actions = spec.actions()
    found = []
    if juror is not None:
        reach = {ONE_STEP_SEARCH: (1, 1), GREEDY_SEARCH: (spec.horizon, 1), BEAM_SEARCH: (spec.horizon, BEAM_WIDTH)}
        for name, (far, wide) in reach.items():
            run = juror_search(actions, juror, spec.view, horizon=far, width=wide)
            found.append(Baseline(name, classic=False, run=run, slow=True))
    oracle = Baseline(ORACLE, classic=False, run=no_edit, cheat=oracle_search(actions, spec.horizon), slow=True)
    return [*found, oracle]
