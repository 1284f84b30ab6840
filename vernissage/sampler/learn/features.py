"""What a controller sees of a sample: 64 numbers without units, almost all of them for free.

Noise levels come as logarithms, changes of the prediction in standard deviations of the pictures or relative to each
other, counts as logarithms. So the same numbers mean the same with pictures of any size and range. No pixel is among
them. All lie within [-5, 5]. Numbers that say something of the sample itself are 0 before its first prediction, and
those of changes before there are two or three.
"""

from __future__ import annotations

import math
from itertools import pairwise
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

#: Names of the features, in their order, with meaning and range. D is the present prediction, D' the one before.
#:
#: ==================== ===========================================================================================
#: log_sigma            log(sigma / sigma_data) / 2: the noise level; about [-3, 3]
#: log_remaining        log(sigma / last level of the program) / 2: how far there is to go; [-1, 5]
#: last_step            log(sigma before / sigma after) of the last step; [0, 5], below 0 after added noise
#: previous_step        that of the step before it
#: evaluations          log(1 + network evaluations so far); [0, 5]
#: budget_left          log(1 + evaluations that are left); [0, 5], the latter without a budget
#: length               log(calls of the static program); [0, 5]
#: rate                 log10(0.001 + |D - D'| / sigma_data / last step) + 1, of root mean squares; [-2, 2]
#: previous_rate        that of the change before it
#: disagreement         log10(0.0001 + |first order - second order| / sigma_data) + 2 after a static step; [-2, 3]
#: rate_ratio           log10(rate / previous rate); [-4, 4]
#: turn                 cosine between the last two changes of the prediction; [-1, 1]
#: mean                 mean of D / sigma_data; about [-2, 2]
#: spread               standard deviation of D / sigma_data; [0, 3]
#: largest              largest |D|; about 1 where pictures lie in [-1, 1]
#: clipped              share of D outside [-1, 1]; [0, 1]
#: residual             |x - D| / (sigma sqrt d): about 1 where the noise is what it should be; [0, 5]
#: progress             network calls of the static program that are behind, over all of them; [0, 1]
#: on_program           1 as long as all calls were at the program's own points
#: change_00 to _33     mean of D - D' in 4 x 4 cells, over its root mean square: where it changes; [-4, 4]
#: encoded_0 to _7      deepest activations of the denoiser, projected; 0 where it does not tell them; [-5, 5]
#: was_...              1 for the expert that acted last (8)
#: broken               1 if the last answer of the network was not finite; such a request is over
#: log_price            log10(price) + 2.5, prices below 1e-5 as that; [-2.5, 5], 2.5 for a price of 1
#: guidance             arcsinh(guidance scale - 1): 0 without guidance; [-5, 5]
#: class_0 to class_9   1 for the class, modulo 10; all 0 without one
#: ==================== ===========================================================================================
FEATURES: tuple[str, ...] = (
    "log_sigma",
    "log_remaining",
    "last_step",
    "previous_step",
    "evaluations",
    "budget_left",
    "length",
    "rate",
    "previous_rate",
    "disagreement",
    "rate_ratio",
    "turn",
    "mean",
    "spread",
    "largest",
    "clipped",
    "residual",
    "progress",
    "on_program",
    *(f"change_{row}{column}" for row in range(CELLS) for column in range(CELLS)),
    *(f"encoded_{number}" for number in range(ENCODED)),
    *(f"was_{name}" for name in EXPERTS),
    "broken",
    "log_price",
    "guidance",
    *(f"class_{number}" for number in range(CLASSES)),
)

_EVALUATIONS, _RATE, _RATIO, _TURN = (FEATURES.index(name) for name in ("evaluations", "rate", "rate_ratio", "turn"))
_MEAN, _RESIDUAL, _PROGRESS = (FEATURES.index(name) for name in ("mean", "residual", "progress"))
_CELLS, _ENCODED, _WAS = FEATURES.index("change_00"), FEATURES.index("encoded_0"), FEATURES.index(f"was_{EXPERTS[0]}")
_BROKEN, _PRICE = FEATURES.index("broken"), FEATURES.index("log_price")

#: Which of them depend on the state of the sample: those that differ between two samples with equal requests and calls.
SAMPLE_FEATURES: tuple[int, ...] = (*range(_RATE, _PROGRESS), *range(_CELLS, _WAS), _BROKEN)
#: The others: request, noise level, calls so far.
STATE_FREE: tuple[int, ...] = tuple(place for place in range(len(FEATURES)) if place not in SAMPLE_FEATURES)

_LEAST_PRICE, _PRICE_SHIFT = 1e-5, 2.5
_UNLIMITED = 140.0
_TINY = 1e-12


def _predictions_needed() -> np.ndarray:
    """How many predictions there must be for each feature to mean anything, (64,) int."""
    needed = np.zeros(len(FEATURES), dtype=np.int64)
    needed[_MEAN:_PROGRESS] = 1
    needed[_ENCODED:_WAS] = 1
    for names in (("last_step", "rate", "disagreement"), FEATURES[_CELLS:_ENCODED]):
        needed[[FEATURES.index(name) for name in names]] = 2
    needed[[FEATURES.index(name) for name in ("previous_step", "previous_rate", "rate_ratio", "turn")]] = 3
    return needed


# (5, 64): what counts with -1 (no request) to 3 predictions.
_MASKS = (np.arange(-1, 4)[:, None] >= _predictions_needed()).astype(np.float32)


def request_features(labels: np.ndarray, scales: np.ndarray, prices: np.ndarray) -> np.ndarray:
    """What does not change while a request is under way: the last features, from ``log_price`` on.

    Args:
        labels: (N,) int, below 0 for no class.
        scales: (N,) guidance scales.
        prices: (N,), 0 or more.

    Returns:
        (12, N) float32.
    """
    rows = np.zeros((len(FEATURES) - _PRICE, len(labels)), dtype=np.float32)
    rows[0] = np.clip(np.log10(np.maximum(prices, _LEAST_PRICE)) + _PRICE_SHIFT, -LIMIT, LIMIT)
    rows[1] = np.clip(np.arcsinh(scales - 1), -LIMIT, LIMIT)
    known = np.flatnonzero(labels >= 0)
    rows[2 + labels[known] % CLASSES, known] = 1
    return rows


def prices_of(observations: np.ndarray) -> np.ndarray:
    """Prices of one network evaluation, (N,) float64, as (N, 64) observations have them; the least one counts as 0."""
    told = np.asarray(observations)[:, _PRICE].astype(np.float64) - _PRICE_SHIFT
    return np.where(told <= math.log10(_LEAST_PRICE) + 1e-6, 0.0, 10**told)


class Course(NamedTuple):
    """Where each of N slots is, as far as its picture has nothing to do with it.

    Attributes:
        known: (N,) int, predictions that its history has, at most 3; -1 for slots without a request.
        logs: (3, N) logarithms of the sigmas of the last predictions, the latest first.
        anchors: (2, N) logarithms of sigma_data and of the last level of its program.
        evaluations: (N,) network evaluations so far.
        budgets: (N,) most evaluations; infinite without a budget.
        position: (N,) along its program; -1 before the first call.
        lengths: (N,) calls of its program.
        expert: (N,) int, which one acted last; -1 before the first.
        on_program: (N,) bool.
        broken: (N,) bool, whether its last answer was not finite.
    """

    known: np.ndarray
    logs: np.ndarray
    anchors: np.ndarray
    evaluations: np.ndarray
    budgets: np.ndarray
    position: np.ndarray
    lengths: np.ndarray
    expert: np.ndarray
    on_program: np.ndarray
    broken: np.ndarray


class Sums(NamedTuple):
    """Figures of N pictures, from :class:`Measures`.

    Attributes:
        norms: (3, N) root mean squares of x - D, of D - D' and of the change before that.
        turn: (N,) mean product of both changes.
        square: (N,) mean square of D.
        mean: (N,) of D.
        largest: (N,) of |D|.
        clipped: (N,) share of D outside [-1, 1].
        cells: (16, N) means of D - D'.
        encoded: (8, N) what the encoder saw.
        sound: Whether all states and predictions are finite, those of free slots among them.
    """

    norms: np.ndarray
    turn: np.ndarray
    square: np.ndarray
    mean: np.ndarray
    largest: np.ndarray
    clipped: np.ndarray
    cells: np.ndarray
    encoded: np.ndarray
    sound: bool


class Window(NamedTuple):
    """Views of a film whose planes are states and predictions of N slots, d numbers each.

    Attributes:
        states: (N, d), the plane where the view begins.
        history: (N, 1 + J, d), states and J predictions, the latest first.
        present: (N, d) the last prediction.
        newer: (3, N, d) states and the last two predictions.
        older: (3, N, d) the last three predictions.
    """

    states: torch.Tensor
    history: torch.Tensor
    present: torch.Tensor
    newer: torch.Tensor
    older: torch.Tensor

    @staticmethod
    def at(film: torch.Tensor, head: int, memory: int) -> Window:
        """The window that begins at a plane of a film, (planes, N, d), for J predictions."""
        history = film[head : head + 1 + memory].transpose(0, 1)
        return Window(film[head], history, film[head + 1], film[head : head + 3], film[head + 1 : head + 4])


class Measures:
    """Figures of the pictures in all slots, computed where they are and fetched in one go.

    Args:
        size: Slots, N.
        shape: (C, H, W) of one picture, d numbers.
        device: Where they are.
        kind: Their type.
    """

    def __init__(self, size: int, shape: tuple[int, int, int], device: torch.device, kind: torch.dtype) -> None:
        channels, height, width = shape
        self._size, self._values = size, channels * height * width
        # x - D, both changes, D, and where |D| > 1.
        self._planes = planes = torch.zeros((5, size, self._values), dtype=kind, device=device)
        self._differences, self._present, self._beyond = planes[:3], planes[3], planes[4]
        self._four, self._turned = planes[:4].transpose(0, 1), planes[:4].permute(1, 2, 0)
        self._pooled_planes = planes[1:].view(-1, self._values).T
        cells = F.adaptive_avg_pool2d(torch.eye(height * width).view(-1, 1, height, width), CELLS).flatten(1)
        # 16 cells, and the mean.
        pooling = torch.cat((cells.repeat(channels, 1) / channels, torch.full((self._values, 1), 1 / self._values)), 1)
        self._pooling = pooling.T.contiguous().to(device, kind)
        # All figures lie in one stretch of memory, which is fetched as a whole.
        shapes = ((size, 16), (size,), (CELLS**2 + 1, 4 * size), (size, ENCODED))
        ends = np.cumsum([0, *(math.prod(one) for one in shapes)]).tolist()
        self._told = torch.zeros(ends[-1], dtype=kind, device=device)
        self._places = [(slice(*pair), one) for pair, one in zip(pairwise(ends), shapes, strict=True)]
        products, self._largest, self._pooled, self._encoded = (self._told[at].view(one) for at, one in self._places)
        self._products = products.view(size, 4, 4)
        # On the host, what was fetched once shows what is there now.
        self._shared = device.type == "cpu"
        self._fetched = self._fetch()
        self._projection: torch.Tensor | None = None

    def see(self, slots: torch.Tensor, features: torch.Tensor) -> None:
        """Take in what the denoiser's encoder saw: (M, F) features of (M,) slots."""
        if self._projection is None:
            generator = torch_generator(0, "slots", "encoder projection")
            drawn = torch.randn((features.shape[1], ENCODED), generator=generator)
            self._projection = drawn.div(features.shape[1] ** 0.5).to(self._told)
        if features.dtype != self._told.dtype:
            features = features.to(self._told.dtype)
        self._encoded.index_copy_(0, slots, torch.mm(features, self._projection))

    def measure(self, window: Window) -> Sums:
        """Measure all slots after a prediction.

        Args:
            window: The noisy pictures that the network was asked about, and its predictions.

        Returns:
            Figures on the host, until the next measure.
        """
        beyond, count = self._beyond, self._size
        torch.sub(window.newer, window.older, out=self._differences)
        self._present.copy_(window.present)
        torch.bmm(self._four, self._turned, out=self._products)
        torch.abs(window.present, out=beyond)
        torch.amax(beyond, dim=1, out=self._largest)
        torch.gt(beyond, 1, out=beyond)
        torch.mm(self._pooling, self._pooled_planes, out=self._pooled)
        products, largest, pooled, encoded = self._fetched if self._shared else self._fetch()
        # Squares of x - D, both changes and D are every fifth; the product of both changes is beside theirs.
        squares = products[::5] / self._values
        return Sums(
            norms=np.sqrt(squares[:3]),
            turn=products[6] / self._values,
            square=squares[3],
            mean=pooled[-1, 2 * count : 3 * count],
            largest=largest,
            clipped=pooled[-1, 3 * count :],
            cells=pooled[:-1, :count],
            encoded=encoded,
            sound=math.isfinite(squares.sum()),
        )

    def _fetch(self) -> tuple[np.ndarray, ...]:
        """Products (16, N), largest (N,), pooled (17, 4 N) and encoded (8, N) on the host."""
        told = self._told.cpu().numpy()
        products, largest, pooled, encoded = (told[at].reshape(one) for at, one in self._places)
        return products.T, largest, pooled, encoded.T

    def nothing(self) -> Sums:
        """Figures of slots without predictions."""
        none = np.zeros(self._size)
        cells, encoded = np.zeros((CELLS**2, self._size)), np.zeros((ENCODED, self._size))
        return Sums(np.zeros((3, self._size)), none, none, none, none, none, cells, encoded, sound=True)

    def forget(self, slots: torch.Tensor) -> None:
        """Clear what (M,) slots left, so that nothing that is not finite stays."""
        self._planes[:, slots] = 0
        self._encoded[slots] = 0


class Observer:
    """Puts together what a controller sees.

    Args:
        size: Slots, N.
        sigma_data: Standard deviation of the pictures.
    """

    def __init__(self, size: int, sigma_data: float) -> None:
        self._size, self._sigma_data = size, sigma_data
        self._experts = np.arange(len(EXPERTS))[:, None]
        # Logarithms of (value + offset), times a factor, plus a shift: from `evaluations` to `disagreement`.
        tens = 1 / math.log(10)
        offsets, factors = (1.0, 1.0, 0.0, 1e-3, 1e-3, 1e-4), (1.0, 1.0, 1.0, tens, tens, tens)
        shifts = (0.0, 0.0, 0.0, 1.0, 1.0, 2.0)
        self._offsets, self._factors, self._shifts = (np.array(part)[:, None] for part in (offsets, factors, shifts))

    def observe(self, request: np.ndarray, course: Course, sums: Sums, errors: np.ndarray) -> np.ndarray:
        """Put it together.

        Args:
            request: (12, N) from :func:`request_features`.
            course: Of the slots.
            sums: Of their pictures.
            errors: (N,) differences of first and second order after a static step, in units of ``sigma_data``.

        Returns:
            (N, 64) float32; slots without a request have zeros, but for ``broken``.
        """
        # A row for each feature here, because rows are quicker to write.
        seen = np.empty((len(FEATURES), self._size), dtype=np.float32)
        logs = course.logs
        np.multiply(logs[0] - course.anchors, 0.5, out=seen[:2])
        steps = np.subtract(logs[1:], logs[:2])
        seen[2:_EVALUATIONS] = steps
        amounts = np.empty((len(self._offsets), self._size))
        amounts[0] = course.evaluations
        np.minimum(course.budgets - course.evaluations, _UNLIMITED, out=amounts[1])
        amounts[2] = course.lengths
        norms = sums.norms
        np.divide(norms[1:], np.maximum(steps, 1e-6) * self._sigma_data, out=amounts[3:5])
        amounts[5] = errors
        amounts += self._offsets
        np.log(amounts, out=amounts)
        amounts *= self._factors
        amounts += self._shifts
        seen[_EVALUATIONS:_RATIO] = amounts
        np.subtract(amounts[3], amounts[4], out=seen[_RATIO], casting="same_kind")
        np.divide(sums.turn, norms[1] * norms[2] + _TINY, out=seen[_TURN], casting="same_kind")
        seen[_MEAN] = sums.mean
        seen[_MEAN + 1] = np.sqrt(np.maximum(sums.square - sums.mean * sums.mean, 0))
        seen[_MEAN : _MEAN + 2] *= 1 / self._sigma_data
        seen[_MEAN + 2], seen[_MEAN + 3] = sums.largest, sums.clipped
        np.multiply(norms[0], np.exp(-logs[0]), out=seen[_RESIDUAL], casting="same_kind")
        np.divide(course.position + 1, course.lengths, out=seen[_PROGRESS], casting="same_kind")
        seen[_PROGRESS + 1] = course.on_program
        np.divide(sums.cells, norms[1] + _TINY, out=seen[_CELLS:_ENCODED], casting="same_kind")
        seen[_ENCODED:_WAS] = sums.encoded
        np.equal(self._experts, course.expert, out=seen[_WAS:_BROKEN], casting="unsafe")
        seen[_BROKEN] = 0
        seen[_PRICE:] = request
        unbounded = seen[:_WAS]
        np.minimum(unbounded, LIMIT, out=unbounded)
        np.maximum(unbounded, -LIMIT, out=unbounded)
        seen *= _MASKS.take(course.known + 1, axis=0).T
        seen[_BROKEN] = course.broken
        return np.ascontiguousarray(seen.T)
