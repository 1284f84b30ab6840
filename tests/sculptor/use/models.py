"""Small sculptors for tests: one that was never trained and so builds noise, and one that builds nothing."""

from __future__ import annotations

from functools import cache

import torch

from vernissage.sculptor.domain.roles import Role
from vernissage.sculptor.learn.model import Sculptor, SculptorShape
from vernissage.sculptor.learn.network import NetworkShape
from vernissage.sculptor.learn.planner import PlannerShape
from vernissage.sculptor.use.model import SculptorModel


def new_sculptor(first: str = "plan", seed: int = 0) -> Sculptor:
    shape = SculptorShape(
        first=first,
        network=NetworkShape(channels=(16, 32), fine=8, text=16, condition=32),
        planner=PlannerShape(text=16, width=32, blocks=1, path=16),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Sculptor(shape, {"epoch": seed}).eval().requires_grad_(requires_grad=False)


@cache
def noisy(first: str = "plan") -> SculptorModel:
    return SculptorModel(new_sculptor(first), digest="0" * 64)


@cache
def airy(bias: float = 1000.0) -> SculptorModel:
    """Builds nothing; with a smaller bias, loose blocks."""
    sculptor = new_sculptor()
    sculptor.network.head.bias[Role.AIR] = bias
    return SculptorModel(sculptor, digest="1" * 64)
