"""The published way to sample, re-created on our network: probabilities are updated, nothing is ever drawn.

What it re-creates: a published voxel generator starts from the uniform vector over its block classes, replaces it step
by step with what its network expects, deterministically, and takes the arg-max at the end. Its network was trained on
mixtures from which the answer can be read off; that training is not repeated here. So the uniform start becomes what a
network of an absorbing process knows as "nothing is decided", and each step is that of ancestral sampling with every
draw replaced by its mean (a mean field):

    state of a voxel = u_n of the mask + sum over i < n of (u_i - u_{i+1}) p_i,    p_i = softmax(network(state_i))

with u_n = cos(pi n / 2 N) the share that is undecided. The network sees the embedding of each state: the mean of the
tokens' embeddings with these weights. Where ours decides the wood first, so does this, in the same share of the steps,
with an arg-max at the end of either level: otherwise it would ask the network what it hardly learned. Prompts, plans
and weights are those of our own sampler; the plan is drawn from the seed, everything after it is the same for every
seed.
"""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from vernissage.core.errors import BadParams
from vernissage.sculptor.domain.roles import MASK, OUTSIDE
from vernissage.sculptor.judge.canvases import CanvasBatch, on_canvases
from vernissage.sculptor.learn.building import Building
from vernissage.sculptor.learn.noise import INPUTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from torch import Tensor

    from vernissage.sculptor.judge.arms import BenchRequest
    from vernissage.sculptor.learn.model import Sculptor
    from vernissage.sculptor.learn.network import VoxelNetwork
    from vernissage.sculptor.learn.noise import Level


def soft_mixture(
    sculptor: Sculptor, requests: Sequence[BenchRequest], updates: int, *, wood_share: float = 0.0
) -> list[np.ndarray]:
    """Build structures without a single draw.

    Args:
        sculptor: The model.
        requests: What is asked for, with the plans.
        updates: How often probabilities are replaced, each with one look of the network.
        wood_share: Share of the updates that decide the wood alone; 0 decides all roles at once.

    Returns:
        A (Y, Z, X) uint8 role grid of each plan's box.

    Raises:
        BadParams: There is no update.
        BadInput: A request has no plan though plans come first.
    """
    if updates < 1:
        raise BadParams(f"soft mixture: {updates} updates, expected at least 1")
    levels = Building(steps=updates, wood_share=wood_share).levels

    def fill(batch: CanvasBatch) -> Tensor:
        network = ExpectedTokens(sculptor.network)
        tokens = torch.where(batch.guides.inside, MASK, OUTSIDE)
        for level, steps, _ in levels:
            tokens = _decided(network, batch, tokens, level, steps)
        return tokens

    return on_canvases(sculptor.network, sculptor.words, sculptor.first, requests, fill)


def _decided(network: ExpectedTokens, batch: CanvasBatch, tokens: Tensor, level: Level, steps: int) -> Tensor:
    """(B, Y, Z, X) tokens -> the same, what is undecided at this level replaced by the arg-max of its last state."""
    undecided = (tokens == level.undecided)[..., None]
    mask = F.one_hot(torch.tensor(level.undecided, device=tokens.device), INPUTS).float()
    state = F.one_hot(tokens, INPUTS).float()
    for step in range(steps):
        logits = network(state, tokens, batch.guides.channels, batch.condition)
        shares = level.outcomes(torch.log_softmax(logits.permute(0, 2, 3, 4, 1), -1)).exp()
        decided = _undecided_share(step, steps) - _undecided_share(step + 1, steps)
        state = state + decided * (shares - mask) * undecided
    # What rounding leaves of the mask is none of the outcomes.
    state = state - undecided * mask
    return torch.where(undecided[..., 0], state.argmax(-1), tokens)


def _undecided_share(step: int, steps: int) -> float:
    return math.cos(math.pi / 2 * step / steps)


class ExpectedTokens:
    """A copy of a network of voxels that sees mixtures of tokens instead of tokens."""

    def __init__(self, network: VoxelNetwork) -> None:
        self.network = copy.deepcopy(network)
        self.embeddings = network.tokens.weight
        self.seen = _Shown()
        self.network.register_module("tokens", self.seen)

    def __call__(self, state: Tensor, tokens: Tensor, guide: Tensor, condition: Tensor) -> Tensor:
        """Return (B, ROLES, Y, Z, X) logits.

        Args:
            state: (B, Y, Z, X, INPUTS) weights with sum 1.
            tokens: (B, Y, Z, X) int64, of which only the shape matters.
            guide: As of the network.
            condition: As of the network.
        """
        self.seen.embedded = state @ self.embeddings
        logits: Tensor = self.network(tokens, guide, condition)
        return logits


class _Shown(nn.Module):
    """Stands where tokens are embedded, and gives what was put there."""

    def __init__(self) -> None:
        super().__init__()
        self.embedded = torch.empty(0)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, Y, Z, X) -> (B, Y, Z, X, fine)."""
        return self.embedded.expand(*tokens.shape, -1)
