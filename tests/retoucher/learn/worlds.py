"""Small worlds for the tests of the learning room: photographs, faults, jurors and environments of known content."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import settings

from tests.retoucher.domain.procedural import scene
from vernissage.retoucher.domain.faults import FAULTS, AppliedFault, apply_faults
from vernissage.retoucher.learn.actions import ActionTable
from vernissage.retoucher.learn.environment import RetouchEnv
from vernissage.retoucher.learn.juror import RankJuror, RankNet
from vernissage.retoucher.learn.network import PolicyNet, PolicySpec
from vernissage.retoucher.learn.reinforcement import Reinforcement
from vernissage.retoucher.learn.rewards import Reward, Terms
from vernissage.retoucher.learn.scenes import Pictures, SceneStarts, Starts
from vernissage.retoucher.learn.suggestions import classic_suggestions

VIEW = 24


def mixture(
    *, harm_aversion: float = 0.5, step_cost: float = 0.02, success_margin: float = 0.5, **weights: float
) -> Reward:
    """A reward whose weights stay as they are."""
    terms = Terms(harm_aversion, step_cost, success_margin)
    return Reward({name: (weight, weight) for name, weight in weights.items()}, terms)


#: Machines are busy: an example that takes long says nothing about the code.
PROPERTY = settings(deadline=None, max_examples=60)
ACTIONS = ActionTable((0.1, 0.3))
REWARD = mixture(reference_distance=0.7, score_difference=0.3, step_penalty=1.0)


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
        "kinds": tuple(FAULTS),
        "full_range_share": 0.5,
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


class ValleyJuror:
    """Knows grey photos by their brightness: one strong step up looks worse, a second one looks far better."""

    def score(self, images: torch.Tensor) -> torch.Tensor:
        """5 for the photo as it is (0.25), 4 up to 0.32, 9 above."""
        light = images.mean(dim=(1, 2, 3))
        return torch.where(light < 0.26, 5.0, torch.where(light < 0.32, 4.0, 9.0))


def valley_env(*, slots: int, horizon: int = 2) -> RetouchEnv:
    """Photos where the first step towards the better picture costs 0.2 and the second one pays 1.0."""
    grey = torch.full((1, 3, VIEW, VIEW), 64 / 255)
    reward = mixture(score_difference=1.0)
    source = StoredStarts(grey, grey)
    return RetouchEnv(source, ValleyJuror(), reward, ACTIONS, slots=slots, horizon=horizon, view=VIEW)


def undecided(likely: dict[int, float], value: float = 0.0) -> PolicyNet:
    """A network without a plan: these logits, -30 for all other actions, and one value everywhere."""
    network = policy(step_cost=0.0)
    with torch.no_grad():
        network.sensitivity.zero_()
        bias = network.residual[-1].bias
        bias.fill_(-30.0)
        for action, logit in likely.items():
            bias[action] = logit
        network.critic[-1].bias.fill_(value)
    return network


class TableNet(torch.nn.Module):
    """What a policy network promises, with one row of logits and one value per number of edits: nothing is shared."""

    def __init__(self, likely: dict[int, float], horizon: int = 2) -> None:
        super().__init__()
        logits = torch.full((horizon + 1, ACTIONS.count), -30.0)
        for action, logit in likely.items():
            logits[:, action] = logit
        self.horizon = horizon
        self.logits = torch.nn.Parameter(logits)
        self.values = torch.nn.Parameter(torch.zeros(horizon + 1))
        self.log_sharpness = torch.nn.Parameter(torch.tensor(0.0))

    def forward(self, observation: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, A) logits and (N,) values of the row that the progress names."""
        row = (observation["progress"].squeeze(1) * self.horizon).round().long()
        return self.logits[row], self.values[row]


def reinforcement(**changes: object) -> Reinforcement:
    """Learning by reward in seconds."""
    values = {
        "algorithm": "ppo", "steps": 64, "slots": 4, "rollout": 4, "epochs": 1, "batch": 16, "lr": 1e-3,
        "plan_pace": 0.0, "gamma": 1.0, "gae_lambda": 1.0, "clip": 0.2, "sharpness": 20.0, "entropy": 0.0,
        "dqn_buffer": 256, "dqn_target_every": 16, "dqn_exploration": (0.0, 0.0),
    }  # fmt: skip
    return Reinforcement(**{**values, **changes})
