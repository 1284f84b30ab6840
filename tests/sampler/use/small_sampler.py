"""A sampler in miniature: a book of programs, a controller that does what it is told, networks with random weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tests.sampler.mixture import Mixture
from vernissage.sampler.domain.programs import Program, dpmpp
from vernissage.sampler.domain.schedules import karras
from vernissage.sampler.domain.unet import EdmDenoiser, UNetSpec
from vernissage.sampler.learn.book import Entry, ProgramBook
from vernissage.sampler.learn.consistency import Student
from vernissage.sampler.learn.controller import SteeringController
from vernissage.sampler.learn.experts import EXPERTS, STATIC
from vernissage.sampler.learn.grid import Score
from vernissage.sampler.learn.policies import Decision
from vernissage.sampler.use.model import SamplerModel

if TYPE_CHECKING:
    from collections.abc import Callable

CALLS = (3, 4, 6, 8)
SPEC = UNetSpec(channels=1, side=8, classes=3, width=8, attention_side=0)


def small_book() -> ProgramBook:
    """Programs of 3 to 8 calls for two guidance scales; with guidance the last call goes without."""
    entries = []
    for scale in (1.0, 2.0):
        for calls in CALLS:
            program = dpmpp(karras(calls, 0.02, 20.0))
            named = Program(f"small-{calls}", program.sigmas, program.coefficients)
            shares = (*(1.0,) * (calls - 1), 1.0 if scale == 1 else 0.0)
            entries.append(Entry(named, scale, shares, "less guidance", Score(0.6 / calls, 0.1, 0.1, 100)))
    return ProgramBook(tuple(entries), 0.1)


class Told:
    """A controller that follows a rule: (N, 64) observations to (N, 4) actions.

    Args:
        rule: What to do; STATIC where left out.
        prices: It has a say at these only, or at all.
        gates: (8,) weights of experts for all.
    """

    def __init__(
        self,
        rule: Callable[[np.ndarray], np.ndarray] | None = None,
        *,
        prices: tuple[float, ...] | None = None,
        gates: np.ndarray | None = None,
    ) -> None:
        self._rule, self._prices, self._gates = rule, prices, gates
        self.seen: list[int] = []

    def steers_at(self, price: float) -> bool:
        return self._prices is None or price in self._prices

    def decide(self, observations: np.ndarray) -> Decision:
        count = len(observations)
        self.seen.append(count)
        actions = np.tile(STATIC, (count, 1)) if self._rule is None else self._rule(observations)
        gates = None if self._gates is None else np.tile(self._gates, (count, 1))
        return Decision(actions, gates, np.full(count, 0.75))


def always(expert: str) -> Callable[[np.ndarray], np.ndarray]:
    """One expert alone."""
    action = STATIC.copy()
    action[1] = EXPERTS.index(expert)
    return lambda seen: np.tile(action, (len(seen), 1))


def closed_form(controller: Any = None, **parts: Any) -> SamplerModel:
    """With a denoiser whose answers are exact."""
    denoiser = parts.pop("denoiser", None) or Mixture()
    return SamplerModel(denoiser, small_book(), controller, classes=4, **parts)


def random_network(seed: int = 0) -> EdmDenoiser:
    """All weights random, those of the last layers too, so that answers depend on everything."""
    generator = torch.Generator().manual_seed(seed)
    denoiser = EdmDenoiser(SPEC).eval()
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return denoiser


def small_model(*, steered: bool = True, student: bool = True) -> SamplerModel:
    """With networks that can be saved."""
    denoiser = random_network()
    controller = None
    if steered:
        # Flat heads: what it does differs from STATIC and from sample to sample.
        controller = SteeringController(static_share=0.2, static_prices=[[0.5, 0.6]], seed=3).eval()
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for head in controller.heads:
                head.weight.copy_(torch.randn(head.weight.shape, generator=generator))
    return SamplerModel(
        denoiser,
        small_book(),
        controller,
        Student.of(denoiser) if student else None,
        names=("cat", "dog", "2"),
        facts={"note": "small"},
    )
