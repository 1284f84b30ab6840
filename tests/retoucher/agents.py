"""Small agents of known behaviour for the tests of judge and use: they plan the same edit for every photo."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from vernissage.core.files import atomic_write_json
from vernissage.core.weights import save_weights
from vernissage.retoucher.domain.sliders import SLIDER_COUNT, slider_index
from vernissage.retoucher.learn.juror import RankJuror, RankNet
from vernissage.retoucher.learn.network import PolicyNet, PolicySpec

if TYPE_CHECKING:
    from pathlib import Path

SPEC = PolicySpec(view=32, standard=64, horizon=6, strengths=(0.1, 0.3), widths=(8, 16), step_cost=0.02)


def agent_with_plan(plan: dict[str, float] | None = None) -> PolicyNet:
    """A policy that moves the named sliders to the given settings, whatever the photo; none leaves all as they are."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = PolicyNet(SPEC)
    settings = torch.zeros(SLIDER_COUNT)
    for name, setting in (plan or {}).items():
        settings[slider_index(name)] = setting
    with torch.no_grad():
        network.plan_head[-1].bias.copy_(torch.atanh(settings))
    return network.eval()


def tiny_juror() -> RankJuror:
    """A real juror whose taste is arbitrary, the same on every call."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        return RankJuror([RankNet() for _ in range(2)], 32)


def save_models(folder: Path, network: PolicyNet) -> tuple[Path, Path]:
    """Save the policy and a juror as their stages do; returns both folders."""
    juror = tiny_juror()
    names = [f"member-{index}" for index in range(len(juror.members))]
    for name, member in zip(names, juror.members, strict=True):
        save_weights(folder / "juror", member.state_dict(), {"network": "RankNet"}, name=name)
    spec = {"members": names, "size": juror.size, "calibration": [list(row) for row in juror.calibration]}
    atomic_write_json(folder / "juror" / "juror.json", spec)
    network.save(folder / "retoucher")
    return folder / "retoucher", folder / "juror"
