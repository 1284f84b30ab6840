"""What a controller sees of a sample: 64 numbers without units, almost all of them for free.

Noise levels come as logarithms, changes of the prediction in standard deviations of the pictures or relative to each
other, counts as logarithms. So the same numbers mean the same with pictures of any size and range. No pixel is among
them. All lie within [-5, 5]. Numbers that say something of the sample itself are 0 before its first prediction, and
those of changes before there are two or three.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from vernissage.core.seeds import torch_generator
from vernissage.sampler.learn.experts import EXPERTS

#: Classes that are told apart; a label is taken modulo this.
CLASSES = 10
#: Cells along each side of the map of changes.
CELLS = 4
#: Projections of what the denoiser's encoder saw.
ENCODED = 8
#: All features are clipped here.
LIMIT = 5.0

_CELL_NAMES = tuple(f"change_{row}{column}" for row in range(CELLS) for column in range(CELLS))

#: Names of the features, in their order, with meaning and range:
#:
#: ==================== ===========================================================================================
#: log_sigma            log(sigma / sigma_data) / 2: the noise level; about [-3, 3]
#: log_remaining        log(sigma / last level of the program) / 2: how far there is to go; [0, 5]
#: evaluations          log(1 + network evaluations so far); [0, 5]
#: budget_left          log(1 + evaluations that are left); [0, 5], the latter without a budget
#: log_price            log10(price) + 2.5, prices below 1e-5 as that; [-2.5, 3.5], 2.5 for a price of 1
#: guidance             arcsinh(guidance scale - 1): 0 without guidance; [-5, 5]
#: class_0 to class_9   1 for the class, modulo 10; all 0 without one
#: last_step            log(sigma before / sigma after) of the last step; [0, 5]
#: previous_step        that of the step before it
#: rate                 log10(0.001 + |D - D'| / sigma_data / last step) + 1, root mean squares; [-2, 2]
#: previous_rate        that of the step before it
#: rate_ratio           log(rate / previous rate), of the rates themselves; [-5, 5]
#: turn                 cosine between the last two changes of the prediction D; [-1, 1]
#: disagreement         log10(0.0001 + difference of first and second order after a static step / sigma_data) + 2
#: mean                 mean of D / sigma_data; about [-2, 2]
#: spread               standard deviation of D / sigma_data; [0, 3]
#: largest              largest |D|; about 1 where pictures lie in [-1, 1]
#: clipped              share of D outside [-1, 1]; [0, 1]
#: residual             |x - D| / (sigma sqrt d): about 1 where the noise is what it should be; [0, 5]
#: change_00 to _33     |D - D'| in 4 x 4 cells over its mean, less 1: where it changes; [-1, 5]
#: encoded_0 to _7      normalised deepest activations of the denoiser, projected; 0 if it does not tell them; [-5, 5]
#: was_...              1 for the expert that acted last (8)
#: broken               1 if the last answer of the network was not finite; such a request is over
#: progress             position along the static program over its calls; [0, 1]
#: length               log(calls of the static program); [0, 5]
#: on_program           1 as long as all calls were at the program's own points
#: ==================== ===========================================================================================
FEATURES: tuple[str, ...] = (
    "log_sigma",
    "log_remaining",
    "evaluations",
    "budget_left",
    "log_price",
    "guidance",
    *(f"class_{number}" for number in range(CLASSES)),
    "last_step",
    "previous_step",
    "rate",
    "previous_rate",
    "rate_ratio",
    "turn",
    "disagreement",
    "mean",
    "spread",
    "largest",
    "clipped",
    "residual",
    *_CELL_NAMES,
    *(f"encoded_{number}" for number in range(ENCODED)),
    *(f"was_{name}" for name in EXPERTS),
    "broken",
    "progress",
    "length",
    "on_program",
)

_RATE, _RESIDUAL, _BROKEN = FEATURES.index("rate"), FEATURES.index("residual"), FEATURES.index("broken")
_CELLS, _ENCODED = FEATURES.index("change_00"), FEATURES.index("encoded_0")
_WAS, _PROGRESS, _PRICE = _ENCODED + ENCODED, FEATURES.index("progress"), FEATURES.index("log_price")

#: Which of them depend on the state of the sample: those that differ between two samples with equal requests and calls.
SAMPLE_FEATURES: tuple[int, ...] = (*range(_RATE, _WAS), _BROKEN)
#: The others: request, noise level, calls so far.
STATE_FREE: tuple[int, ...] = tuple(place for place in range(len(FEATURES)) if place not in SAMPLE_FEATURES)

_LEAST_PRICE, _PRICE_SHIFT = 1e-5, 2.5
_UNLIMITED = 140.0
_TINY = 1e-12


def request_features(labels: np.ndarray, scales: np.ndarray, prices: np.ndarray) -> np.ndarray:
    """What does not change while a request is under way.

    Args:
        labels: (N,) int, below 0 for no class.
        scales: (N,) guidance scales.
        prices: (N,), 0 or more.

    Returns:
        (64, N) float32 with all other features 0.
    """
    rows = np.zeros((len(FEATURES), len(labels)), dtype=np.float32)
    rows[_PRICE] = np.clip(np.log10(np.maximum(prices, _LEAST_PRICE)) + _PRICE_SHIFT, -LIMIT, LIMIT)
    rows[_PRICE + 1] = np.clip(np.arcsinh(scales - 1), -LIMIT, LIMIT)
    known = np.flatnonzero(labels >= 0)
    rows[_PRICE + 2 + labels[known] % CLASSES, known] = 1
    return rows


def prices_of(observations: np.ndarray) -> np.ndarray:
    """Prices of one network evaluation, (N,) float64, as (N, 64) observations have them; the least one counts as 0."""
    told = np.asarray(observations)[:, _PRICE].astype(np.float64) - _PRICE_SHIFT
    return np.where(told <= np.log10(_LEAST_PRICE) + 1e-6, 0.0, 10**told)


class Course(NamedTuple):
    """Where each of N slots is, as far as its picture has nothing to do with it.

    Attributes:
        open: (N,) bool, whether it has a request.
        log_sigmas: (3, N) logarithms of the sigmas of the last predictions, the latest first.
        log_last: (N,) that of the last level of its program.
        known: (N,) int, predictions that its history has.
        evaluations: (N,) network evaluations so far.
        budgets: (N,) most evaluations; infinite without a budget.
        position: (N,) along its program.
        length: (N,) calls of its program.
        expert: (N,) int, which one acted last; -1 before the first.
        on_program: (N,) bool.
        broken: (N,) bool, whether its last answer was not finite.
    """

    open: np.ndarray
    log_sigmas: np.ndarray
    log_last: np.ndarray
    known: np.ndarray
    evaluations: np.ndarray
    budgets: np.ndarray
    position: np.ndarray
    length: np.ndarray
    expert: np.ndarray
    on_program: np.ndarray
    broken: np.ndarray


class Sums(NamedTuple):
    """Figures of N pictures, from :class:`Measures`.

    Attributes:
        residual: (N,) root mean square of x - D; not finite where the state is not.
        change: (N,) that of D - D', the last change of the prediction.
        previous: (N,) that of the change before it.
        size: (N,) that of D; not finite where D is not.
        turn: (N,) mean product of the last two changes.
        largest: (N,) of |D|.
        mean: (N,) of D.
        clipped: (N,) share of D outside [-1, 1].
        cells: (N, 16) means of the last |D - D'|.
        encoded: (N, 8) what the encoder saw.
    """

    residual: np.ndarray
    change: np.ndarray
    previous: np.ndarray
    size: np.ndarray
    turn: np.ndarray
    largest: np.ndarray
    mean: np.ndarray
    clipped: np.ndarray
    cells: np.ndarray
    encoded: np.ndarray


class Measures:
    """Figures of the pictures in all slots, computed where they are and fetched in one go.

    Args:
        size: Slots, N.
        shape: (C, H, W) of one picture, d numbers.
        device: Where they are.
        kind: Their type.

    Attributes:
        present: (N, d) predictions, to be written before :meth:`measure`.
    """

    def __init__(self, size: int, shape: tuple[int, int, int], device: torch.device, kind: torch.dtype) -> None:
        channels, height, width = shape
        values = channels * height * width
        self._size, self._values = size, values
        # Residual, last change, change before it (these two take turns), D, |last change|, where |D| > 1.
        self._planes = torch.zeros((6, size, values), dtype=kind, device=device)
        self.present = self._planes[3]
        self._turn = 0
        cells = F.adaptive_avg_pool2d(torch.eye(height * width).view(-1, 1, height, width), CELLS).flatten(1)
        # 16 cells, and the mean.
        pooling = torch.cat((cells.repeat(channels, 1) / channels, torch.full((values, 1), 1 / values)), dim=1)
        self._pooling = pooling.to(device, kind)
        wide = CELLS**2 + 1
        shapes = ((4, size), (size,), (size,), (3 * size, wide), (size, ENCODED))
        ends = np.cumsum([0, *(int(np.prod(one)) for one in shapes)]).tolist()
        # Views of one stretch of memory, which is fetched as a whole.
        self._told = torch.zeros(ends[-1], dtype=kind, device=device)
        self._places = [(slice(a, b), one) for a, b, one in zip(ends, ends[1:], shapes, strict=False)]
        self._views = [self._told[place].view(one) for place, one in self._places]
        self._projection: torch.Tensor | None = None

    def see(self, slots: torch.Tensor, features: torch.Tensor) -> None:
        """Take in what the denoiser's encoder saw: (M, F) features of (M,) slots."""
        if self._projection is None:
            generator = torch_generator(0, "slots", "encoder projection")
            drawn = torch.randn((features.shape[1], ENCODED), generator=generator)
            self._projection = drawn.div(features.shape[1] ** 0.5).to(self._told)
        normal = F.layer_norm(features.to(self._told), features.shape[1:])
        self._views[4].index_copy_(0, slots, torch.mm(normal, self._projection))

    def measure(self, states: torch.Tensor, before: torch.Tensor) -> Sums:
        """Measure all slots after a prediction.

        Args:
            states: (N, d) noisy pictures that the network was asked about.
            before: (N, d) predictions before the present ones.

        Returns:
            Figures on the host, valid until the next call.
        """
        planes, present, (norms, turns, largest, pooled, _) = self._planes, self.present, self._views
        self._turn ^= 1
        last, previous = planes[1 + self._turn], planes[2 - self._turn]
        torch.sub(present, before, out=last)
        torch.sub(states, present, out=planes[0])
        torch.abs(last, out=planes[4])
        size = torch.abs(present, out=planes[5])
        torch.amax(size, dim=1, out=largest)
        torch.gt(size, 1, out=size)
        torch.linalg.vector_norm(planes[:4], dim=2, out=norms)
        torch.linalg.vecdot(last, previous, out=turns)
        torch.mm(planes[3:].view(-1, self._values), self._pooling, out=pooled)
        told = self._told.cpu().numpy()
        four, turn, most, means, encoded = (told[place].reshape(one) for place, one in self._places)
        four = four * self._values**-0.5
        means = means.reshape(3, self._size, -1)
        return Sums(
            residual=four[0],
            change=four[1 + self._turn],
            previous=four[2 - self._turn],
            size=four[3],
            turn=turn / self._values,
            largest=most,
            mean=means[0, :, -1],
            clipped=means[2, :, -1],
            cells=means[1, :, :-1],
            encoded=encoded,
        )

    def nothing(self) -> Sums:
        """Figures of slots without predictions."""
        none = np.zeros(self._size)
        cells, encoded = np.zeros((self._size, CELLS**2)), np.zeros((self._size, ENCODED))
        return Sums(none, none, none, none, none, none, none, none, cells, encoded)

    def forget(self, slots: torch.Tensor) -> None:
        """Clear what (M,) slots left, so that nothing that is not finite stays."""
        self._planes[:, slots] = 0
        self._views[4][slots] = 0


def observations(
    request: np.ndarray, course: Course, sums: Sums, embedded: np.ndarray, sigma_data: float
) -> np.ndarray:
    """Put together what a controller sees.

    Args:
        request: (64, N) from :func:`request_features`.
        course: Of the slots.
        sums: Of their pictures.
        embedded: (N,) errors between first and second order, in units of ``sigma_data``.
        sigma_data: Standard deviation of the pictures.

    Returns:
        (N, 64) float32; slots without a request have zeros, but for ``broken``.
    """
    # A row for each feature here, because rows are quicker to write.
    seen = request.copy()
    logs, known = course.log_sigmas, course.known
    once, twice, thrice = known > 0, known > 1, known > 2
    # Where history is too short for them, they may be anything, and count nothing below.
    steps = np.maximum(logs[1:] - logs[:2], _TINY)
    seen[0] = (logs[0] - math.log(sigma_data)) * 0.5
    seen[1] = (logs[0] - course.log_last) * 0.5
    seen[2] = np.log1p(course.evaluations)
    seen[3] = np.log1p(np.minimum(course.budgets - course.evaluations, _UNLIMITED))
    seen[16] = steps[0] * twice
    seen[17] = steps[1] * thrice
    _look(seen, sums, steps, logs[0], sigma_data)
    seen[_RATE + 4] = np.log10(embedded + 1e-4) + 2
    seen[_RATE : _RATE + 5] *= twice
    seen[_RATE + 1 : _RATE + 4] *= thrice
    seen[_RATE + 5 : _CELLS] *= once
    seen[_CELLS:_ENCODED] *= twice
    seen[_ENCODED:_WAS] *= once
    expert = course.expert
    acted = np.flatnonzero(expert >= 0)
    seen[_WAS + expert[acted], acted] = 1
    seen[_PROGRESS] = course.position / course.length
    seen[_PROGRESS + 1] = np.log(course.length)
    seen[_PROGRESS + 2] = course.on_program
    np.minimum(seen, LIMIT, out=seen)
    np.maximum(seen, -LIMIT, out=seen)
    seen *= course.open
    seen[_BROKEN] = course.broken
    return np.ascontiguousarray(seen.T)


def _look(seen: np.ndarray, sums: Sums, steps: np.ndarray, log_sigma: np.ndarray, sigma_data: float) -> None:
    """Write what the pictures say, whether there are enough predictions or not."""
    last, previous = np.maximum(sums.change, _TINY), np.maximum(sums.previous, _TINY)
    rates = seen[_RATE : _RATE + 2]
    np.divide(last, steps[0] * sigma_data + _TINY, out=rates[0], casting="same_kind")
    np.divide(previous, steps[1] * sigma_data + _TINY, out=rates[1], casting="same_kind")
    seen[_RATE + 2] = np.log(rates[0] / rates[1])
    rates += 1e-3
    np.log10(rates, out=rates)
    rates += 1
    seen[_RATE + 3] = sums.turn / (last * previous)
    seen[_RATE + 5] = sums.mean / sigma_data
    seen[_RATE + 6] = np.sqrt(np.maximum(sums.size**2 - sums.mean**2, 0)) / sigma_data
    seen[_RATE + 7] = sums.largest
    seen[_RATE + 8] = sums.clipped
    seen[_RESIDUAL] = sums.residual * np.exp(-log_sigma)
    cells = sums.cells
    seen[_CELLS:_ENCODED] = (cells / (cells.mean(axis=1, keepdims=True) + _TINY) - 1).T
    seen[_ENCODED:_WAS] = sums.encoded.T
