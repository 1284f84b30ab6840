"""Small worlds for the tests of the learning room: photographs, faults, jurors and environments of known content."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import settings

from tests.retoucher.domain.procedural import scene
from vernissage.retoucher.domain.faults import AppliedFault, apply_faults
from vernissage.retoucher.learn.actions import ActionTable
from vernissage.retoucher.learn.environment import RetouchEnv
from vernissage.retoucher.learn.juror import RankJuror, RankNet
from vernissage.retoucher.learn.network import PolicyNet, PolicySpec
from vernissage.retoucher.learn.rewards import Reward
from vernissage.retoucher.learn.scenes import Pictures, SceneStarts, Starts
from vernissage.retoucher.learn.suggestions import classic_suggestions

VIEW = 24
#: Machines are busy: an example that takes long says nothing about the code.
PROPERTY = settings(deadline=None, max_examples=60)
ACTIONS = ActionTable((0.1, 0.3))
REWARD = Reward(juror_share=0.3, harm_aversion=0.5, step_cost=0.02)


class StoredStarts:
    """Gives the pairs of a list, in turn: so that nothing is drawn at random."""

    def __init__(self, faulty: torch.Tensor, reference: torch.Tensor) -> None:
        if faulty.shape != reference.shape or not len(faulty):
            raise ValueError(f"got {tuple(faulty.shape)} and {tuple(reference.shape)}: expected equal, not empty")
        self._faulty, self._reference = faulty, reference
        self._next = 0

    def draw(self, count: int) -> Starts:
        """Give the next ``count`` pairs, from the first again after the last."""
        rows = (self._next + torch.arange(count)) % len(self._faulty)
        self._next = int((self._next + count) % len(self._faulty))
        return Starts(self._faulty[rows], self._reference[rows])


def photos(count: int, side: int = VIEW, first: int = 0) -> torch.Tensor:
    """(count, 3, side, side), another scene each, on the 8-bit grid like everything that is stored."""
    return torch.cat([(scene(side, side, first + i) * 255).round() / 255 for i in range(count)])


def darkened(originals: torch.Tensor, stops: float = -1.0) -> Starts:
    """Pairs whose only fault is the exposure."""
    rngs = [np.random.default_rng(row) for row in range(len(originals))]
    faults = [(AppliedFault("exposure", stops),)] * len(originals)
    return Starts(apply_faults(originals, faults, rngs), originals)


def untrained_juror(members: int = 2, size: int = VIEW) -> RankJuror:
    """A real juror whose taste is arbitrary, the same on every call."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return RankJuror([RankNet() for _ in range(members)], size)


def stored_env(starts: Starts, *, slots: int, horizon: int = 4, reward: Reward = REWARD) -> RetouchEnv:
    """An environment that begins with the given pairs, in turn."""
    source = StoredStarts(starts.faulty, starts.reference)
    view = starts.faulty.shape[-1]
    return RetouchEnv(source, untrained_juror(), reward, ACTIONS, slots=slots, horizon=horizon, view=view)


def scene_source(seed: int = 0, **changes: object) -> SceneStarts:
    """Fresh faults on four scenes, with the training's own machinery."""
    originals = photos(4)
    settings = {
        "scene_variation": 0.5,
        "stored_share": 0.3,
        "clean_share": 0.2,
        "faults": (1, 3),
        "taken_at": 2 * VIEW,
        **changes,
    }
    return SceneStarts(
        Pictures.of_thumbnails(originals), darkened(originals), rng=np.random.default_rng(seed), **settings
    )


def policy_spec(**changes: object) -> PolicySpec:
    """A network that is built in a blink."""
    values = {"view": VIEW, "standard": VIEW, "horizon": 8, "strengths": ACTIONS.strengths, "widths": (4, 8)}
    return PolicySpec(**{**values, "step_cost": 0.02, **changes})


def policy(wanted: dict[int, float] | None = None, seed: int = 0, **changes: object) -> PolicyNet:
    """A fresh network; ``wanted`` sets sliders that it proposes for whatever photo."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = PolicyNet(policy_spec(**changes))
    with torch.no_grad():
        for slider, setting in (wanted or {}).items():
            network.plan_head[-1].bias[slider] = torch.atanh(torch.tensor(setting))
    return network


def plan(network: PolicyNet, images: torch.Tensor) -> torch.Tensor:
    """(N, K) what the network proposes for photos of its own size."""
    return network.plan(images, classic_suggestions(images))
