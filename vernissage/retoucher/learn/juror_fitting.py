"""Fits the members of an ensemble to contests: ordered pairs first, an anchored scale second (Liu et al. 2017)."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from vernissage.core.devices import thread_count
from vernissage.core.seeds import numpy_generator
from vernissage.retoucher.learn.juror import rank_features

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vernissage.core.progress import Progress
    from vernissage.retoucher.learn.ladders import Contests

#: Versions whose targets differ by less are not called ordered.
TIE = 0.15
#: How much steeper than a logistic curve a pair is judged: members should be sure of pairs that are a point apart.
_STEEPNESS = 4.0
_SCALE_WEIGHT = 0.3
_MEAN_DECAY = 0.98


@dataclass(frozen=True)
class Lessons:
    """Contests with what a member knows of their pictures besides the pixels.

    Attributes:
        contests: L contests of R pictures.
        features: (L, R, RANK_FEATURES).
    """

    contests: Contests
    features: torch.Tensor

    @staticmethod
    def of(contests: Contests) -> Lessons:
        """Measure the features once: mirroring a picture does not change them."""
        with torch.no_grad():
            rows = [rank_features(part.float() / 255) for part in contests.pictures.flatten(0, 1).split(256)]
        return Lessons(contests, torch.cat(rows).view(*contests.targets.shape, -1))

    def joined(self, other: Lessons) -> Lessons:
        """Both, one after the other; R has to be the same."""
        return Lessons(self.contests.joined(other.contests), torch.cat((self.features, other.features)))

    def __len__(self) -> int:
        return len(self.contests.targets)


@dataclass(frozen=True)
class Pace:
    """How long and how fast to learn.

    Attributes:
        epochs: Times to go through the lessons.
        batch: Contests of one update.
        lr: Peak learning rate.
        warm_up: Share of the updates in which the rate rises to its peak; afterwards it falls by a cosine.
    """

    epochs: int
    batch: int
    lr: float
    warm_up: float

    def rate(self, done: float) -> float:
        """Learning rate after a share of the updates in [0, 1]."""
        if done < self.warm_up:
            return self.lr * (0.04 + 0.96 * done / self.warm_up)
        falling = (done - self.warm_up) / (1 - self.warm_up)
        return self.lr * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * falling)))


def contest_loss(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Logistic loss over all ordered pairs of a contest, and the squared error to the anchored scale.

    Args:
        logits: (L, R) raw outputs.
        targets: (L, R) scores in [0, 10].

    Returns:
        Both losses as scalars.
    """
    gap = targets.unsqueeze(2) - targets.unsqueeze(1)
    ordered = (gap > TIE).to(logits.dtype)
    margin = logits.unsqueeze(2) - logits.unsqueeze(1)
    ranking = (F.softplus(-_STEEPNESS * margin) * ordered).sum() / ordered.sum().clamp_min(1)
    scale = F.mse_loss(10 * torch.sigmoid(logits), targets)
    return ranking, scale


def fit_members(
    members: Sequence[nn.Module],
    lessons: Lessons,
    pace: Pace,
    seeds: Sequence[int],
    progress: Progress,
    extra: Lessons | None = None,
) -> list[list[tuple[float, float]]]:
    """Train members side by side, each in an order of its own; they end as the running mean of their weights.

    Args:
        members: Networks, changed in place.
        lessons: What to learn.
        pace: How long and how fast.
        seeds: One for each member.
        progress: Is advanced by one for each update of a member.
        extra: Lessons that are gone through alongside, half a batch in every update, as often as that takes.

    Returns:
        For each member and epoch the mean ranking loss and the mean scale loss on ``lessons``.
    """
    threads = torch.get_num_threads()

    def fit(index: int) -> list[tuple[float, float]]:
        torch.set_num_threads(1)
        return _fit(members[index], lessons, extra, pace, seeds[index], progress.advance)

    # The networks are too small to keep two cores busy, so members train side by side on one thread each.
    with ThreadPoolExecutor(max_workers=min(len(members), thread_count())) as pool:
        losses = list(pool.map(fit, range(len(members))))
    torch.set_num_threads(threads)
    return losses


def updates(lessons: Lessons, pace: Pace) -> int:
    """Number of updates of one member."""
    return pace.epochs * -(-len(lessons) // pace.batch)


def _fit(
    network: nn.Module, lessons: Lessons, extra: Lessons | None, pace: Pace, seed: int, advance: Callable[..., None]
) -> list[tuple[float, float]]:
    rng = numpy_generator(seed, "order")
    parameters = list(network.parameters())
    optimiser = torch.optim.AdamW(parameters, lr=pace.lr, weight_decay=1e-3)
    # Running mean of the weights (Polyak and Juditsky 1992): which batch came last is a matter of chance.
    means = [parameter.detach().clone() for parameter in parameters]
    steps, total, losses = updates(lessons, pace) // pace.epochs, updates(lessons, pace), []
    network.train()
    for epoch in range(pace.epochs):
        sums = np.zeros(2)
        own = np.array_split(rng.permutation(len(lessons)), steps)
        alongside = _in_turn(len(extra), steps, -(-pace.batch // 2), rng) if extra is not None else None
        for step in range(steps):
            mirrored = bool(rng.random() < 0.5)
            ranking, scale = _loss(network, lessons, own[step], mirrored)
            loss = ranking + _SCALE_WEIGHT * scale
            if extra is not None and alongside is not None:
                further = _loss(network, extra, alongside[step], mirrored)
                loss = loss + further[0] + _SCALE_WEIGHT * further[1]
            update = epoch * steps + step
            for group in optimiser.param_groups:
                group["lr"] = pace.rate(update / total)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            decay = min(_MEAN_DECAY, (2 + update) / (11 + update))
            with torch.no_grad():
                for mean, parameter in zip(means, parameters, strict=True):
                    mean.lerp_(parameter, 1 - decay)
            last = (ranking.item(), scale.item())
            sums += last
            advance(1, epoch=epoch, ranking=last[0], scale=last[1])
        losses.append((float(sums[0] / steps), float(sums[1] / steps)))
    with torch.no_grad():
        for mean, parameter in zip(means, parameters, strict=True):
            parameter.copy_(mean)
    network.eval()
    return losses


def _in_turn(count: int, steps: int, batch: int, rng: np.random.Generator) -> np.ndarray:
    """(steps, batch) rows: all of them in random order, and again."""
    rounds = -(-steps * batch // count)
    return np.concatenate([rng.permutation(count) for _ in range(rounds)])[: steps * batch].reshape(steps, batch)


def _loss(network: nn.Module, lessons: Lessons, rows: np.ndarray, mirrored: bool) -> tuple[torch.Tensor, torch.Tensor]:
    pictures = lessons.contests.pictures[rows].flatten(0, 1)
    if mirrored:
        pictures = pictures.flip(-1)
    views = (pictures.float() / 255).contiguous(memory_format=torch.channels_last)
    targets = lessons.contests.targets[rows]
    logits = network(views, lessons.features[rows].flatten(0, 1)).view(targets.shape)
    return contest_loss(logits, targets)
