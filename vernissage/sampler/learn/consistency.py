"""A copy of the denoiser that answers with the end of the guided process: pictures in one or two evaluations.

It learns from trajectories that a good program draws while it learns, from fresh noise, classes and guidance scales:
from pure noise to the endpoint, from its own first answer with the noise put back (what it will meet at the second
evaluation), and from any level in between. Pictures, where there are any, teach it consistency beside that (Geng et
al. 2024, "Consistency models made easy"), without guidance only: the end of a guided process is no picture's. Trained
on cached pairs alone such a network learns them by heart, which is why trajectories are drawn anew.

Every step draws from random numbers of its own, named by the seed and the step, and every lot of trajectories from
some named by its number. So a checkpoint holds no random state and no trajectories, and a training that was killed
goes on to the weights that it would have had, bit for bit, on the same kind of machine with as many threads.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import shutil
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import nn

from vernissage.core.devices import choose_device
from vernissage.core.errors import BadInput, BadParams, CorruptArtifact, MissingArtifact
from vernissage.core.files import fresh_folder
from vernissage.core.progress import Progress
from vernissage.core.seeds import derive_seed, numpy_generator, torch_generator
from vernissage.core.weights import load_weights, save_weights
from vernissage.sampler.domain.denoiser import NULL, ClassLabels, Condition, guided
from vernissage.sampler.domain.programs import Program, ipndm
from vernissage.sampler.domain.sampling import linear_step
from vernissage.sampler.domain.schedules import log_snr
from vernissage.sampler.domain.unet import EdmDenoiser, UNetSpec, levels_to_samples
from vernissage.sampler.learn.denoiser_training import power_of_width

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from vernissage.sampler.domain.denoiser import Denoiser
    from vernissage.sampler.learn.denoiser_training import LabelledPictures
    from vernissage.sampler.learn.grid import Pairs

#: Second noise level of a student whose level was not tuned, in units of the pictures' standard deviation.
USUAL_MIDDLE = 1.2
#: Calls, first and last noise level (in units of the pictures' standard deviation) of the usual program.
_CALLS, _FIRST, _LAST = 8, 26.0, 0.05
_SCALE_WAVES = (1.0, 2.0, 4.0)
_GRADIENT_NORM = 1.0
_BATCH = 256


class Student(EdmDenoiser):
    """A denoiser's double that answers with the endpoint of the guided process, in one evaluation whatever the scale.

    Made from a denoiser it answers as that does without guidance, until it learns.

    Args:
        spec: Sizes, those of the denoiser.
        middle: Noise level of the second evaluation.

    Attributes:
        middle: Noise level of the second evaluation.
    """

    def __init__(self, spec: UNetSpec, middle: float | None = None) -> None:
        super().__init__(spec)
        self.middle = USUAL_MIDDLE * spec.sigma_data if middle is None else float(middle)
        self.network.add_module("classes", _ClassAndScale(self.network.classes))

    @staticmethod
    def of(denoiser: EdmDenoiser, middle: float | None = None) -> Student:
        """Copy a denoiser."""
        with torch.random.fork_rng(devices=[]):  # first weights, which do not stay
            student = Student(denoiser.spec, middle)
        tensors = {
            name.replace("network.classes.", "network.classes.classes."): tensor
            for name, tensor in denoiser.state_dict().items()
        }
        scale = "network.classes.scale.weight"
        student.load_state_dict({**tensors, scale: student.state_dict()[scale]})
        return student.to(next(denoiser.parameters()).device).eval()

    def forward(
        self,
        x: torch.Tensor,
        sigma: torch.Tensor,
        condition: Condition | None = None,
        scales: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Answer with endpoints.

        Args:
            x: (N, C, H, W) float states of the process.
            sigma: (N,) their noise levels, above 0.
            condition: :class:`ClassLabels`; none asks for no class in particular.
            scales: (N,) guidance scales; none for 1.

        Returns:
            (N, C, H, W).

        Raises:
            BadInput: If shapes, noise levels, classes or scales are not what this model knows.
        """
        return self._call(x, sigma, _with_scales(condition, scales))[0]

    def call_with_features(
        self,
        x: torch.Tensor,
        sigma: torch.Tensor,
        condition: Condition | None = None,
        scales: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Do the same, and tell what the network saw: its deepest activations, averaged over the picture.

        Returns:
            (N, C, H, W) answers, (N, :attr:`feature_width`) float32 features.

        Raises:
            BadInput: As in a plain call.
        """
        answer, deepest = self._call(x, sigma, _with_scales(condition, scales))
        return answer, deepest.mean(dim=(2, 3))

    def _classes(self, count: int, condition: Condition | None) -> torch.Tensor:
        """(N, 2) float: rows of the class table, and guidance scales."""
        if not isinstance(condition, _Scaled):
            rows = super()._classes(count, condition)
            return torch.stack((rows.float(), torch.ones_like(rows, dtype=torch.float32)), dim=1)
        scales = condition.scales
        if scales.shape != (count,) or not bool(scales.isfinite().all()):
            raise BadInput(f"guidance scales of shape {tuple(scales.shape)}: expected ({count},) finite numbers")
        rows = super()._classes(count, condition.condition)
        return torch.stack((rows.to(scales.device).float(), scales.float()), dim=1)

    def save(self, folder: Path, extra: Mapping[str, Any] | None = None) -> None:
        """Write ``model.safetensors`` and ``model.json``.

        Args:
            folder: Made if it is not there.
            extra: More facts for the JSON.
        """
        save_weights(folder, self.state_dict(), {"student": asdict(self.spec), "middle": self.middle, **(extra or {})})

    @staticmethod
    def load(folder: Path) -> Student:
        """Read what :meth:`save` wrote.

        Raises:
            MissingArtifact: If there is no student.
            CorruptArtifact: If hash, specification or weights are not those of a student.
        """
        tensors, facts = load_weights(folder)
        try:
            fields = dict(facts["student"])
            fields["multipliers"] = tuple(fields["multipliers"])
            student = Student(UNetSpec(**fields), facts["middle"])
            student.load_state_dict(tensors)
        except (KeyError, TypeError, ValueError, RuntimeError, BadParams) as error:
            raise CorruptArtifact(
                f"{folder}: not a student of this version ({error!r}); train one with `dvc repro train@sampler`"
            ) from error
        return student.eval()


@dataclass(frozen=True)
class _Scaled:
    """A condition with guidance scales, on its way to the table of classes."""

    condition: Condition | None
    scales: torch.Tensor


def _with_scales(condition: Condition | None, scales: torch.Tensor | None) -> Condition | None:
    # The denoiser hands it on to `_classes` unseen.
    return condition if scales is None else cast("Condition", _Scaled(condition, scales))


class _ClassAndScale(nn.Module):
    """Rows of the class table plus what the guidance scale adds: nothing at scale 1, nor before any learning."""

    def __init__(self, classes: nn.Embedding) -> None:
        super().__init__()
        self.classes = classes
        self.scale = nn.Linear(2 + 2 * len(_SCALE_WAVES), classes.embedding_dim, bias=False)
        nn.init.zeros_(self.scale.weight)

    def forward(self, asked: torch.Tensor) -> torch.Tensor:
        # Logarithmic for large scales, linear near 1.
        place = torch.asinh(asked[:, 1:] - 1)
        angles = place * place.new_tensor(_SCALE_WAVES)
        known = torch.cat((place, place.square(), angles.sin(), angles.cos() - 1), dim=1)
        embedding: torch.Tensor = self.classes(asked[:, 0].long())
        return embedding + cast("torch.Tensor", self.scale(known.to(embedding.dtype)))


@torch.no_grad()
def one_step(
    student: Student, noise: torch.Tensor, condition: Condition | None, scales: torch.Tensor | None
) -> torch.Tensor:
    """One evaluation, at the highest noise level.

    Args:
        student: The network.
        noise: (N, C, H, W) normal with variance 1.
        condition: N conditions.
        scales: (N,) guidance scales; none for 1.

    Returns:
        (N, C, H, W).
    """
    return many_steps(student, noise, condition, scales, ())


@torch.no_grad()
def two_step(
    student: Student,
    noise: torch.Tensor,
    condition: Condition | None,
    scales: torch.Tensor | None,
    middle: float | None = None,
    *,
    deterministic: bool = True,
    seeds: Sequence[int] | None = None,
) -> torch.Tensor:
    """Two evaluations: at the highest noise level, and at the middle one with noise put back.

    Args:
        student: The network.
        noise: (N, C, H, W) normal with variance 1.
        condition: N conditions.
        scales: (N,) guidance scales; none for 1.
        middle: Noise level of the second evaluation; the student's own where left out.
        deterministic: Put the same noise back, as the student was trained; or fresh noise, from `seeds`.
        seeds: N of them, if fresh noise is asked for.

    Returns:
        (N, C, H, W).

    Raises:
        BadInput: If the middle level or the seeds are none.
    """
    level = student.middle if middle is None else middle
    return many_steps(student, noise, condition, scales, (level,), deterministic=deterministic, seeds=seeds)


@torch.no_grad()
def many_steps(
    student: Student,
    noise: torch.Tensor,
    condition: Condition | None,
    scales: torch.Tensor | None,
    levels: Sequence[float],
    *,
    deterministic: bool = True,
    seeds: Sequence[int] | None = None,
) -> torch.Tensor:
    """One evaluation and another one at each further level (Song et al. 2023, "Consistency models", algorithm 1).

    Args:
        student: The network.
        noise: (N, C, H, W) normal with variance 1.
        condition: N conditions.
        scales: (N,) guidance scales; none for 1.
        levels: Strictly decreasing noise levels, above 0 and below the highest one.
        deterministic: Put the same noise back each time, or fresh noise from `seeds`.
        seeds: N of them, if fresh noise is asked for.

    Returns:
        (N, C, H, W).

    Raises:
        BadInput: If the levels or the seeds are none.
    """
    ladder = (student.sigma_max, *levels)
    if any(not 0 < there < here for here, there in pairwise(ladder)):
        raise BadInput(
            f"student: noise levels {tuple(levels)} after {student.sigma_max}, expected falling ones, all above 0"
        )
    if levels and not deterministic and (seeds is None or len(seeds) != len(noise)):
        raise BadInput(f"student: fresh noise for {len(noise)} samples needs as many seeds; give them, or none of it")
    answer = student(noise * ladder[0], noise.new_full((len(noise),), ladder[0]), condition, scales)
    for number, level in enumerate(levels):
        again = noise if deterministic or seeds is None else _fresh(seeds, number, noise)
        answer = student(answer + level * again, noise.new_full((len(noise),), level), condition, scales)
    return answer


def tune_middle(
    student: Student,
    pairs: Pairs,
    levels: Sequence[float] | None = None,
    *,
    judge: Callable[[torch.Tensor], float] | None = None,
) -> tuple[float, list[dict[str, float]]]:
    """Try noise levels for the second evaluation.

    Args:
        student: The network; its own level stays as it is.
        pairs: Requests with endpoints.
        levels: What to try; some around the student's own level where left out.
        judge: What to make small of (N, C, H, W) samples, such as a Frechet distance; the mean root mean square error
            to the endpoints where left out.

    Returns:
        The level that did best, and a row for each one with ``middle`` and ``value``.

    Raises:
        BadInput: If there is nothing to try or to judge on.
    """
    tried = [student.middle * factor for factor in (0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0)] if levels is None else levels
    if not len(tried) or not len(pairs):
        raise BadInput(f"middle level: {len(tried)} levels and {len(pairs)} pairs to tune it on, expected some")
    noise, condition = pairs.noise(), pairs.condition()
    rows = []
    for level in tried:
        samples = _in_batches(student, noise, condition, pairs.scales, (float(level),))
        value = _error(samples, pairs.endpoints) if judge is None else judge(samples)
        rows.append({"middle": float(level), "value": value})
    best = min(rows, key=lambda row: row["value"])
    return best["middle"], rows


@dataclass(frozen=True)
class StudentTraining:
    """Settings of one training; the defaults suit the digits and take about 40 seconds on one core.

    Attributes:
        updates: Updates of the weights.
        batch: Trajectories per update; each is learned from at its noise and at the middle level.
        lr: Learning rate after the warm-up.
        warm_up: Updates over which it rises from 0.
        decay_share: Share of the updates, at the end, over which it falls to 0 again.
        weight_decay: Of AdamW.
        ema_width: Width of the running mean of the weights, see :class:`DenoiserTraining`.
        middle: Noise level of the second evaluation, in units of the pictures' standard deviation.
        first_weight: Weight of the first evaluation's loss; the second one's is 1.
        through: Whether the second evaluation's loss also moves the first answer.
        levels_share: Further rows at any level of the trajectories, as a share of `batch`.
        consistency_share: Further rows for consistency on pictures, as a share of `batch`.
        stages: How often consistency comes closer, from ordinary denoising on.
        q: By which factor, see :func:`nearer`.
        log_t_mean: Mean of ln t, of the noise for consistency.
        log_t_std: Its standard deviation.
        huber: Where the loss turns from quadratic to linear, as root mean square error per pixel.
        lot: Trajectories drawn at once.
        reuse: How often each one is learned from, on average.
        lots_kept: So many lots are learned from at a time.
        pairs_share: Share of the trajectories replaced by cached pairs, where there are any.
        scales: Guidance scales to learn.
        scale_weights: One weight for each of them; equal ones where left out.
        class_weights: One weight for each class; equal ones where left out.
        looks: How many times the running mean is validated; the best is kept.
        validation_requests: Held-out trajectories to validate on.
        checkpoint_every: Updates between checkpoints; there is one at every look as well.
        dropout: As :class:`UNetSpec`; what was learned with it need not be what this is learned with.
        critic_weight: Weight of what the critic says of answers; 0 for none. It learns to tell answers from endpoints.
        critic_penalty: Weight of its squared gradients at both.
        critic_lr: Its learning rate.
        seed: Root of all randomness.

    Raises:
        BadParams: If a value is out of its range.
    """

    updates: int = 220
    batch: int = 48
    lr: float = 3e-3
    warm_up: int = 20
    decay_share: float = 0.7
    weight_decay: float = 0.0
    ema_width: float = 0.05
    middle: float = USUAL_MIDDLE
    first_weight: float = 0.5
    through: bool = True
    levels_share: float = 0.25
    consistency_share: float = 0.0
    stages: int = 4
    q: float = 2.0
    log_t_mean: float = -1.1
    log_t_std: float = 2.0
    huber: float = 0.03
    lot: int = 256
    reuse: float = 4.0
    lots_kept: int = 8
    pairs_share: float = 0.1
    scales: tuple[float, ...] = (1.0,)
    scale_weights: tuple[float, ...] | None = None
    class_weights: tuple[float, ...] | None = None
    looks: int = 3
    validation_requests: int = 128
    checkpoint_every: int = 100
    dropout: float = 0.0
    critic_weight: float = 0.1
    critic_penalty: float = 1.0
    critic_lr: float = 2e-3
    seed: int = 0

    def __post_init__(self) -> None:
        weights = {"scale_weights": self.scale_weights, "class_weights": self.class_weights}
        rules = [
            *((name, getattr(self, name) >= 1, "at least 1") for name in _COUNTS),
            *((name, 0 < getattr(self, name) < math.inf, "a number above 0") for name in _POSITIVE),
            *((name, 0 <= getattr(self, name) < math.inf, "at least 0") for name in _NOT_NEGATIVE),
            ("decay_share", 0 <= self.decay_share <= 1, "a share from 0 to 1"),
            ("pairs_share", 0 <= self.pairs_share <= 1, "a share from 0 to 1"),
            ("dropout", 0 <= self.dropout < 1, "a share from 0 to below 1"),
            ("ema_width", self.ema_width < 0.28, "a number above 0 and below 0.28"),
            ("q", self.q > 1, "more than 1"),
            ("scales", bool(self.scales) and all(map(math.isfinite, self.scales)), "finite guidance scales"),
            ("scale_weights", self.scale_weights is None or len(self.scale_weights) == len(self.scales), "one a scale"),
            *((name, w is None or all(0 < v < math.inf for v in w), "numbers above 0") for name, w in weights.items()),
        ]
        for name, holds, expected in rules:
            if not holds:
                raise BadParams(f"student: {name} = {getattr(self, name)}, expected {expected}")


_COUNTS = ("updates", "batch", "stages", "lot", "lots_kept", "looks", "validation_requests", "checkpoint_every")
_POSITIVE = ("lr", "ema_width", "middle", "log_t_std", "huber", "reuse", "critic_lr")
_NOT_NEGATIVE = (
    "warm_up", "weight_decay", "first_weight", "levels_share", "consistency_share", "critic_weight", "critic_penalty",
)  # fmt: skip


def usual_program(denoiser: Denoiser, calls: int = _CALLS) -> Program:
    """What draws trajectories where nothing better is given: third-order iPNDM, evenly spaced in log-SNR.

    Its first level is below the highest one: there, pure noise and the state are the same but for a mean.
    """
    first = min(denoiser.sigma_max, _FIRST * denoiser.sigma_data)
    last = max(denoiser.sigma_min, _LAST * denoiser.sigma_data)
    return ipndm(log_snr(calls, last, first), order=3, ending="plain")


@dataclass(frozen=True, eq=False)
class Trajectories:
    """What a program made of some noise, at all its levels.

    Attributes:
        noise: (N, C, H, W) normal with variance 1.
        labels: (N,) long.
        scales: (N,) guidance scales.
        levels: (K,) falling noise levels, the first of them the highest that there is.
        states: (K, N, C, H, W) at these levels.
        slopes: (K, N, C, H, W) ``(x - D) / sigma`` there.
        endpoints: (N, C, H, W).
    """

    noise: torch.Tensor
    labels: torch.Tensor
    scales: torch.Tensor
    levels: torch.Tensor
    states: torch.Tensor
    slopes: torch.Tensor
    endpoints: torch.Tensor

    def __len__(self) -> int:
        """N."""
        return len(self.noise)

    def condition(self) -> ClassLabels:
        """What was asked for."""
        return ClassLabels(self.labels)

    def between(self, rows: torch.Tensor, places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """States at any place: cubic in sigma between levels, as states and slopes there say; straight after the last.

        Args:
            rows: (M,) long, which trajectories.
            places: (M,) float from 0, the first level, to K, the endpoint; levels are even in between.

        Returns:
            (M, C, H, W) states, (M,) noise levels.
        """
        last = len(self.levels) - 1
        here = places.long().clamp(0, last)
        there = (here + 1).clamp(max=last)
        share = (places - here).to(self.levels)
        high = self.levels[here]
        low = torch.where(here == last, high.new_zeros(()), self.levels[there])
        # Even in the logarithm between levels, and in sigma itself after the last.
        sigma = torch.where(here == last, high * (1 - share), high * (low.clamp(min=1e-12) / high) ** share)
        t, length = ((sigma - high) / (low - high)).view(-1, 1, 1, 1), (low - high).view(-1, 1, 1, 1)
        start, end = self.states[here, rows], self.states[there, rows]
        start_slope, end_slope = self.slopes[here, rows], self.slopes[there, rows]
        # Hermite's basis.
        cubic = (
            (2 * t**3 - 3 * t**2 + 1) * start
            + (t**3 - 2 * t**2 + t) * length * start_slope
            + (3 * t**2 - 2 * t**3) * end
            + (t**3 - t**2) * length * end_slope
        )
        straight = start + t * (self.endpoints[rows] - start)
        return torch.where((here == last).view(-1, 1, 1, 1), straight, cubic), sigma


@torch.no_grad()
def draw_trajectories(
    denoiser: Denoiser, noise: torch.Tensor, labels: torch.Tensor, scales: torch.Tensor, program: Program
) -> Trajectories:
    """Run a program and keep what it goes through.

    Args:
        denoiser: The network.
        noise: (N, C, H, W) normal with variance 1.
        labels: (N,) long classes.
        scales: (N,) guidance scales.
        program: Any program; where it corrects, the corrected state counts.

    Returns:
        Those of them that are finite to the end.

    Raises:
        BadInput: If none is.
    """
    condition, plain = ClassLabels(labels), bool((scales == 1).all())
    x, past = noise * program.levels[0], list[torch.Tensor]()
    kept: dict[float, tuple[torch.Tensor, torch.Tensor]] = {}
    table = torch.tensor(program.table(), dtype=torch.float64)
    for call, (level, target) in enumerate(zip(program.levels, program.targets, strict=True)):
        sigma = x.new_full((len(x),), level)
        prediction = denoiser(x, sigma, condition) if plain else guided(denoiser, x, sigma, condition, scales)
        kept[level] = (x, (x - prediction) / level)
        past = [prediction, *past][: program.memory + 1]
        x = linear_step(x, past, sigma.new_full((len(x),), target / level), table[call].expand(len(x), -1).to(x.device))
    finite = x.isfinite().flatten(1).all(dim=1)
    if not finite.any():
        raise BadInput(f"student: no trajectory of {program.name} is finite; the network is broken or the program is")
    levels = list(kept)
    states, slopes = [kept[level][0][finite] for level in levels], [kept[level][1][finite] for level in levels]
    if levels[0] < denoiser.sigma_max:  # above its first level a program takes the state for pure noise
        levels, states = [denoiser.sigma_max, *levels], [noise[finite] * denoiser.sigma_max, *states]
        slopes = [noise[finite], *slopes]
    return Trajectories(
        noise[finite],
        labels[finite],
        scales[finite],
        torch.tensor(levels, dtype=noise.dtype, device=noise.device),
        torch.stack(states),
        torch.stack(slopes),
        x[finite],
    )


def nearer(t: torch.Tensor, stage: int, q: float = 2.0) -> torch.Tensor:
    """Noise level that must agree with t: ``r = t (1 - (1 + 8 sigmoid(-t)) / q^(stage + 1))``, at least 0.

    Geng et al. 2024, section 3 and their code.

    Args:
        t: (N,) noise levels.
        stage: From 0; each halves the distance if q is 2.
        q: More than 1.

    Returns:
        (N,), 0 where agreement with the picture itself is asked for.
    """
    return (t * (1 - (1 + 8 * torch.sigmoid(-t)) / q ** (stage + 1))).clamp(min=0)


def pseudo_huber(difference: torch.Tensor, corner: float) -> torch.Tensor:
    """``sqrt(e^2 + c^2) - c`` of each sample's root mean square error e (Song and Dhariwal 2024, section 3.3).

    Args:
        difference: (N, C, H, W).
        corner: c, above 0.

    Returns:
        (N,).
    """
    return (difference.square().flatten(1).mean(dim=1) + corner**2).sqrt() - corner


def train_student(
    denoiser: EdmDenoiser,
    settings: StudentTraining,
    checkpoints: Path,
    *,
    pictures: LabelledPictures | None = None,
    pairs: Pairs | None = None,
    program: Program | None = None,
) -> tuple[Student, list[dict[str, Any]]]:
    """Train a student; go on where a training of the same things was cut off.

    Args:
        denoiser: Whose double it is.
        settings: How to train.
        checkpoints: Folder outside DVC; removed at the end.
        pictures: For consistency; learned from is ``train`` alone.
        pairs: Cached pairs of noise and endpoint, such as the bank's part for training; conditions are classes.
        program: Draws the trajectories; :func:`usual_program` where left out.

    Returns:
        The student with the running mean that validated best, on the CPU; a row per look with ``step``, ``lr``, mean
        training ``loss``, ``error_1`` and ``error_2``, mean root mean square errors after one and two evaluations on
        held-out requests, whether it was ``kept``.

    Raises:
        BadInput: If the denoiser is none that can be copied, there is nothing to learn from, or the loss is no number.
    """
    if not isinstance(denoiser, EdmDenoiser):
        raise BadInput(f"student: {type(denoiser).__name__} cannot be copied, expected the embedded denoiser")
    if settings.consistency_share and pictures is None:
        raise BadInput("student: consistency_share above 0 needs pictures; give them, or set it to 0")
    if settings.class_weights is not None and len(settings.class_weights) != denoiser.spec.classes:
        raise BadInput(
            f"student: {len(settings.class_weights)} class weights, this denoiser has {denoiser.spec.classes} classes"
        )
    torch.set_flush_denormal(True)
    return _Trainer(denoiser, settings, checkpoints, pictures, pairs, program or usual_program(denoiser)).train()


@dataclass
class _Best:
    """The running mean that validated best so far."""

    error: float = math.inf
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)


class _Trainer:
    """One training; the state that a checkpoint holds is in its attributes."""

    def __init__(
        self,
        denoiser: EdmDenoiser,
        settings: StudentTraining,
        folder: Path,
        pictures: LabelledPictures | None,
        pairs: Pairs | None,
        program: Program,
    ) -> None:
        self.settings, self.folder, self.program, self.device = settings, folder, program, choose_device()
        self.teacher = copy.deepcopy(denoiser).to(self.device).eval().requires_grad_(requires_grad=False)
        self.student = Student.of(self.teacher, settings.middle * denoiser.sigma_data).requires_grad_()
        self.mean = copy.deepcopy(self.student).requires_grad_(requires_grad=False)
        for part in self.student.modules():
            if isinstance(part, nn.Dropout):
                part.p = settings.dropout
        self.student.train()
        self.optimiser = torch.optim.AdamW(
            self.student.parameters(), lr=settings.lr, betas=(0.9, 0.99), weight_decay=settings.weight_decay
        )
        self.power = power_of_width(settings.ema_width)
        self.critic = _Critic(denoiser.spec, settings, self.device) if settings.critic_weight else None
        self.cached = None if pairs is None or not len(pairs) else _Cached(pairs, self.device)
        self.samples = self.labels = torch.empty(0)
        if pictures is not None and settings.consistency_share:
            levels, labels = pictures.of_split("train")
            if not len(levels):
                raise BadInput("student: no pictures in the split train; add some, or set consistency_share to 0")
            self.samples, self.labels = levels_to_samples(levels).to(self.device), labels.to(self.device)
        self.identity = _identity(settings, program, denoiser, self.cached, self.samples, self.labels)
        self.lots: dict[int, Trajectories] = {}
        self.held_out = self._draw("validation", 0, settings.validation_requests)
        self.step, self.loss_sum, self.loss_count = 0, 0.0, 0
        self.best, self.curves = _Best(), list[dict[str, Any]]()

    def train(self) -> tuple[Student, list[dict[str, Any]]]:
        """Train to the end and return the weights that validated best."""
        settings = self.settings
        looks = {round(settings.updates * look / settings.looks) for look in range(1, settings.looks + 1)}
        with Progress("student", total=settings.updates, unit="updates") as progress:
            if self._restore():
                progress.message(f"goes on after update {self.step}")
                progress.advance(self.step)
            while self.step < settings.updates:
                loss = self._update()
                if self.step in looks:
                    self._look()
                if self.step in looks or self.step % settings.checkpoint_every == 0:
                    self._save()
                shown = {} if math.isinf(self.best.error) else {"validation": self.best.error}
                progress.advance(1, loss=loss, **shown)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.mean.load_state_dict(self.best.tensors)
        return self.mean.to("cpu").eval(), self.curves

    def _update(self) -> float:
        for group in self.optimiser.param_groups:
            group["lr"] = self._rate(self.step)
        generator = torch_generator(self.settings.seed, "student step", self.step)
        with _draws_of(derive_seed(self.settings.seed, "student dropout", self.step), self.device):
            loss = self._trajectory_loss(generator)
        if len(self.samples):
            loss = loss + self._consistency_loss(generator)
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.student.parameters(), _GRADIENT_NORM)
        self.optimiser.step()
        if self.critic is not None:
            self.critic.learn(self._rate(self.step) / self.settings.lr)
        self.step += 1
        share = 1 - (1 - 1 / self.step) ** (self.power + 1)
        means: list[torch.Tensor] = list(self.mean.parameters())
        weights: list[torch.Tensor] = list(self.student.parameters())
        with torch.no_grad():
            torch._foreach_lerp_(means, weights, share)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise BadInput(f"student: the loss is {value} at update {self.step}; lower lr (now {self.settings.lr})")
        self.loss_sum, self.loss_count = self.loss_sum + value, self.loss_count + 1
        return value

    def _trajectory_loss(self, generator: torch.Generator) -> torch.Tensor:
        """Loss from pure noise, from the first answer with its noise put back, and from levels in between."""
        settings, student = self.settings, self.student
        lots = self._lots()
        lot = lots[int(torch.randint(len(lots), (1,), generator=generator))]
        rows = torch.randint(len(lot), (settings.batch,), generator=generator).to(self.device)
        noise, labels, scales, ends = lot.noise[rows], lot.labels[rows], lot.scales[rows], lot.endpoints[rows]
        if self.cached is not None and (few := round(settings.pairs_share * settings.batch)):
            known = torch.randint(len(self.cached.noise), (few,), generator=generator).to(self.device)
            noise, labels, scales, ends = (
                torch.cat((own[few:], cached[known]))
                for own, cached in zip((noise, labels, scales, ends), self.cached.all(), strict=True)
            )
        count, more = len(noise), round(settings.levels_share * settings.batch)
        x, sigma = student.sigma_max * noise, noise.new_full((count,), student.sigma_max)
        asked, targets = labels, ends
        guidance = scales
        if more:
            others = torch.randint(len(lot), (more,), generator=generator).to(self.device)
            places = torch.rand(more, generator=generator).to(self.device) * len(lot.levels)
            states, levels = lot.between(others, places)
            x, sigma = torch.cat((x, states)), torch.cat((sigma, levels.clamp(min=student.sigma_min)))
            asked, guidance = torch.cat((labels, lot.labels[others])), torch.cat((scales, lot.scales[others]))
            targets = torch.cat((ends, lot.endpoints[others]))
        answers = student(x, sigma, ClassLabels(asked), guidance)
        losses = pseudo_huber(answers - targets, settings.huber)
        first = answers[:count] if settings.through else answers[:count].detach()
        again = first + student.middle * noise
        second = student(again, noise.new_full((count,), student.middle), ClassLabels(labels), scales)
        loss = pseudo_huber(second - ends, settings.huber).mean() + settings.first_weight * losses[:count].mean()
        if self.critic is not None:
            loss = loss + settings.critic_weight * self.critic.judge(answers[:count], second, ends, labels)
        return loss + settings.levels_share * losses[count:].mean() if more else loss

    def _consistency_loss(self, generator: torch.Generator) -> torch.Tensor:
        """Agreement of two noise levels of one picture and one direction of noise, without guidance."""
        settings, student = self.settings, self.student
        count = max(1, round(settings.consistency_share * settings.batch))
        rows = torch.randint(len(self.samples), (count,), generator=generator).to(self.device)
        pictures, labels = self.samples[rows], ClassLabels(self.labels[rows])
        noise = torch.randn(pictures.shape, generator=generator).to(self.device)
        logs = settings.log_t_mean + settings.log_t_std * torch.randn(count, generator=generator)
        t = logs.exp().clamp(student.sigma_min, student.sigma_max).to(self.device)
        r = nearer(t, self.step * settings.stages // settings.updates, settings.q)
        clean = (r < student.sigma_min).view(-1, 1, 1, 1)
        seed = derive_seed(settings.seed, "student dropout, consistency", self.step)
        with torch.no_grad(), _draws_of(seed, self.device):
            near = pictures + r.view(-1, 1, 1, 1) * noise
            there = torch.where(clean, pictures, student(near, r.clamp(min=student.sigma_min), labels))
        with _draws_of(seed, self.device):
            here = student(pictures + t.view(-1, 1, 1, 1) * noise, t, labels)
        losses = pseudo_huber(here - there, settings.huber) / (t - r)
        return settings.consistency_share * losses.mean()

    def _rate(self, step: int) -> float:
        settings = self.settings
        rising = min(1.0, (step + 1) / (settings.warm_up + 1))
        falling = settings.decay_share * settings.updates
        left = (settings.updates - step) / falling if falling else 1.0
        return settings.lr * rising * min(1.0, left)

    def _lots(self) -> list[Trajectories]:
        """The lots that are learned from at this step, the newest last; those that are missing are drawn."""
        settings = self.settings
        newest = int(self.step * settings.batch / (settings.lot * settings.reuse))
        wanted = range(max(0, newest + 1 - settings.lots_kept), newest + 1)
        self.lots = {
            number: self.lots[number] if number in self.lots else self._draw("student lot", number, settings.lot)
            for number in wanted
        }
        return list(self.lots.values())

    def _draw(self, purpose: str, number: int, count: int) -> Trajectories:
        settings, spec = self.settings, self.teacher.spec
        generator = torch_generator(settings.seed, purpose, number)
        noise = torch.randn((count, *spec.shape), generator=generator)
        classes = torch.tensor(settings.class_weights or (1.0,) * spec.classes)
        labels = torch.multinomial(classes, count, replacement=True, generator=generator)
        weights = torch.tensor(settings.scale_weights or (1.0,) * len(settings.scales))
        chosen = torch.multinomial(weights, count, replacement=True, generator=generator)
        scales = torch.tensor(settings.scales)[chosen]
        noise, labels, scales = (tensor.to(self.device) for tensor in (noise, labels, scales))
        return draw_trajectories(self.teacher, noise, labels, scales, self.program)

    def _look(self) -> None:
        held = self.held_out
        errors = [
            _error(_in_batches(self.mean, held.noise, held.condition(), held.scales, levels), held.endpoints)
            for levels in ((), (self.mean.middle,))
        ]
        kept = errors[1] < self.best.error
        if kept:
            self.best = _Best(errors[1], {name: tensor.clone() for name, tensor in self.mean.state_dict().items()})
        self.curves.append(
            {
                "step": self.step,
                "lr": self._rate(self.step - 1),
                "loss": self.loss_sum / max(1, self.loss_count),
                "error_1": errors[0],
                "error_2": errors[1],
                "kept": kept,
            }
        )
        self.loss_sum, self.loss_count = 0.0, 0

    def _save(self) -> None:
        parts = {
            "weights": self.student.state_dict(),
            "mean": self.mean.state_dict(),
            "best": self.best.tensors,
            "moments": _moments(self.optimiser),
        }
        if self.critic is not None:
            parts["critic"] = self.critic.network.state_dict()
            parts["critic moments"] = _moments(self.critic.optimiser)
        tensors = {f"{part}/{name}": tensor for part, named in parts.items() for name, tensor in named.items()}
        facts = {
            "identity": self.identity,
            "step": self.step,
            "loss_sum": self.loss_sum,
            "loss_count": self.loss_count,
            "best_error": None if math.isinf(self.best.error) else self.best.error,
            "curves": self.curves,
        }
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with fresh_folder(self.folder) as fresh:
            save_weights(fresh, tensors, facts)

    def _restore(self) -> bool:
        """Take up the checkpoint; one that is missing, damaged or of another training counts as none."""
        try:
            tensors, facts = load_weights(self.folder)
        except (MissingArtifact, CorruptArtifact):
            return False
        if facts.get("identity") != self.identity:
            return False
        parts: dict[str, dict[str, torch.Tensor]] = {}
        for name, tensor in tensors.items():
            part, _, own = name.partition("/")
            parts.setdefault(part, {})[own] = tensor
        self.student.load_state_dict(parts["weights"])
        self.mean.load_state_dict(parts["mean"])
        _take_up(self.optimiser, parts["moments"], torch.channels_last)
        if self.critic is not None:
            self.critic.network.load_state_dict(parts["critic"])
            _take_up(self.critic.optimiser, parts["critic moments"], torch.contiguous_format)
        self.step, self.curves = facts["step"], facts["curves"]
        self.loss_sum, self.loss_count = facts["loss_sum"], facts["loss_count"]
        if facts["best_error"] is not None:
            best = {name: tensor.to(self.device) for name, tensor in parts["best"].items()}
            self.best = _Best(facts["best_error"], best)
        return True


class _Judgement(nn.Module):
    """One number for a picture and its class: how much like an endpoint it looks."""

    def __init__(self, spec: UNetSpec, width: int = 16) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(spec.channels, width, 3, padding=1), nn.LeakyReLU(0.2)]
        side = spec.side
        while side > 4:
            layers += [nn.Conv2d(width, min(2 * width, 32), 3, stride=2, padding=1), nn.LeakyReLU(0.2)]
            width, side = min(2 * width, 32), (side + 1) // 2
        layers += [nn.Conv2d(width, width, 3, padding=1), nn.LeakyReLU(0.2), nn.Flatten()]
        self.trunk = nn.Sequential(*layers)
        self.head = nn.Linear(width * side * side, 64)
        self.classes = nn.Embedding(spec.classes + 1, 64)
        self.strange = spec.classes

    def forward(self, pictures: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        known = self.classes(labels.masked_fill(labels == NULL, self.strange))
        judged: torch.Tensor = (self.head(self.trunk(pictures)) * (1 + known)).mean(dim=1)
        return judged


class _Critic:
    """Tells answers from the endpoints of the same requests.

    A relativistic loss with squared gradients penalised on both sides, which keeps it from running away (Huang et al.
    2024, "The GAN is dead; long live the GAN!").
    """

    def __init__(self, spec: UNetSpec, settings: StudentTraining, device: torch.device) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(settings.seed, "critic"))
            self.network = _Judgement(spec).to(device)
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=settings.critic_lr, betas=(0.0, 0.99))
        self.settings = settings
        self.seen: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None

    def judge(
        self, first: torch.Tensor, second: torch.Tensor, ends: torch.Tensor, labels: torch.Tensor
    ) -> torch.Tensor:
        """What answers lose by looking less like endpoints than endpoints do; remembers them for :meth:`learn`."""
        answers, labels = torch.cat((first, second)), torch.cat((labels, labels))
        self.network.requires_grad_(requires_grad=False)
        real = self.network(ends, labels[: len(ends)]).repeat(2)
        losses = F.softplus(real - self.network(answers, labels))
        self.network.requires_grad_(requires_grad=True)
        self.seen = answers.detach(), ends, labels
        return self.settings.first_weight * losses[: len(ends)].mean() + losses[len(ends) :].mean()

    def learn(self, share: float) -> None:
        """One update on what was judged last, with a share of the learning rate."""
        if self.seen is None:
            return
        answers, ends, labels = self.seen
        pictures = torch.cat((answers, ends)).requires_grad_()
        judged = self.network(pictures, torch.cat((labels, labels[: len(ends)])))
        (slopes,) = torch.autograd.grad(judged.sum(), pictures, create_graph=True)
        fake, real = judged[: len(answers)], judged[len(answers) :].repeat(2)
        loss = F.softplus(fake - real).mean()
        loss = loss + self.settings.critic_penalty * slopes.square().flatten(1).sum(dim=1).mean()
        for group in self.optimiser.param_groups:
            group["lr"] = self.settings.critic_lr * share
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.optimiser.step()
        self.seen = None


class _Cached:
    """Cached pairs where the training is."""

    def __init__(self, pairs: Pairs, device: torch.device) -> None:
        condition = pairs.condition()
        if condition is not None and not isinstance(condition, ClassLabels):
            raise BadInput(f"student: cached pairs with {type(condition).__name__}, expected classes")
        labels = torch.full((len(pairs),), NULL) if condition is None else condition.labels
        self.noise, self.labels = pairs.noise().float().to(device), labels.to(device)
        self.scales, self.endpoints = pairs.scales.float().to(device), pairs.endpoints.float().to(device)

    def all(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Noise, labels, scales and endpoints."""
        return self.noise, self.labels, self.scales, self.endpoints


def _moments(optimiser: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """What an optimiser remembers, by the number of the weight and the name of the moment."""
    return {
        f"{number}.{key}": torch.as_tensor(value)
        for number, row in optimiser.state_dict()["state"].items()
        for key, value in row.items()
    }


def _take_up(
    optimiser: torch.optim.Optimizer, moments: Mapping[str, torch.Tensor], layout: torch.memory_format
) -> None:
    """Give it back what it remembered, images of weights laid out as the weights are."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in moments.items():
        number, key = name.split(".")
        own = layout if tensor.ndim == 4 else torch.contiguous_format
        state.setdefault(int(number), {})[key] = tensor.contiguous(memory_format=own)
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def _in_batches(
    student: Student,
    noise: torch.Tensor,
    condition: Condition | None,
    scales: torch.Tensor,
    levels: Sequence[float],
) -> torch.Tensor:
    answers = []
    for rows in torch.arange(len(noise), device=noise.device).split(_BATCH):
        asked = None if condition is None else condition.rows(rows)
        answers.append(many_steps(student, noise[rows], asked, scales[rows].to(noise.device), levels))
    return torch.cat(answers)


def _error(samples: torch.Tensor, endpoints: torch.Tensor) -> float:
    """Mean root mean square error."""
    return float((samples - endpoints).double().square().flatten(1).mean(dim=1).sqrt().mean())


def _fresh(seeds: Sequence[int], number: int, like: torch.Tensor) -> torch.Tensor:
    """Noise of which each sample depends on its own seed and the number of the evaluation only."""
    rows = [
        numpy_generator(seed, "student noise", number).standard_normal(like.shape[1:], dtype="float32")
        for seed in seeds
    ]
    return torch.stack([torch.from_numpy(row) for row in rows]).to(like)


def _identity(
    settings: StudentTraining, program: Program, denoiser: EdmDenoiser, cached: _Cached | None, *tensors: torch.Tensor
) -> str:
    """What a checkpoint must agree in to be taken up."""
    facts = [asdict(settings), program.to_dict(), asdict(denoiser.spec)]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for tensor in (*denoiser.state_dict().values(), *tensors, *(() if cached is None else cached.all())):
        digest.update(repr(tuple(tensor.shape)).encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def _draws_of(seed: int, device: torch.device) -> Iterator[None]:
    """Let dropout draw from a seed of its own, and leave everybody else's random numbers as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
