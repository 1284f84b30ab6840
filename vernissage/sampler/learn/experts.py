"""The experts: eight ways to go on from a sample's present state, under one interface.

Each says how far it goes, with which linear multistep rule, and what happens next. Rules are rows of coefficients over
predictions of the picture, as in a :class:`~vernissage.sampler.domain.programs.Program`, so that a gate can mix those
of several experts for the same target without a further network call.

How far is counted along the static program of the request: a position u is a network call of that program where it is
a whole number, between two calls the noise level is interpolated in its logarithm, and from u = E on it is 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

#: Factors on an expert's own stride, the first part of an action.
STRIDES = (0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0)
#: Guidance of the next call: as the static program has it, the last correction once more, or the condition only.
GUIDANCE = ("full", "reuse", "skip")
#: How much noise :class:`NoiseAdaptive` adds.
NOISE = ("none", "small", "medium")

#: By how much each kind of ``NOISE`` raises sigma.
RISES = (1.0, 1.1, 1.25)
#: How often it may do so in one request.
MOST_RISES = 2
#: Error of a first-order step that :class:`DefaultAdaptive` aims at, in standard deviations of the pictures.
ADAPTIVE_TOLERANCE = 0.03
#: Least and longest step of :class:`DefaultAdaptive`.
ADAPTIVE_STRIDES = (0.5, 2.0)
#: The measured noise level may be this far from the nominal one.
LEVEL_FACTORS = (0.5, 2.0)

# Earlier steps count as at least this share of the present one: extrapolation is at most tenfold.
_LEAST_RATIO = 0.1

#: Parts that a rule may consist of: plain, second order, third order, and the program's own row.
PLAIN, SECOND, THIRD, OWN = range(4)


class Expert:
    """What all experts have in common.

    Attributes:
        name: As in ``EXPERTS``.
        stride: How far it goes, in calls of the static program.
        rule: ``PLAIN``, ``SECOND``, ``THIRD`` or ``OWN``.
        then: What happens at the target: the network is called, the student is called and the request ends, or the
            request ends without a call.
        gated: Whether a gate may mix its coefficients with those of others.
        ladder: Which program it takes at the opening: that with more (1) or fewer (-1) calls, or the static one (0).
    """

    name: ClassVar[str]
    stride: ClassVar[float] = 1.0
    rule: ClassVar[int] = SECOND
    then: ClassVar[Literal["call", "student", "stop"]] = "call"
    gated: ClassVar[bool] = True
    ladder: ClassVar[int] = 0

    def coefficients(self, levels: np.ndarray, known: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Coefficients of its rule away from the program's own points.

        Args:
            levels: (N, 3) sigmas of the last predictions, the latest first; the step starts at the first of them.
            known: (N,) int, how many of them there are, 1 to 3; the order falls to that.
            targets: (N,) sigmas after the step, below the first level; 0 makes the step plain.

        Returns:
            (N, 3) float64 coefficients of these predictions; their sum is ``1 - target / level``.
        """
        weights = np.zeros((len(levels), 4))
        weights[:, SECOND if self.rule == OWN else self.rule] = 1
        logs = np.log(levels)
        with np.errstate(divide="ignore"):
            return multistep_rows(logs.T, known, np.log(targets), weights)


class BalancedMaster(Expert):
    """The static program itself; away from its points the second-order multistep rule.

    On the program's points and with its history this is the fitted row of coefficients (as in S4S, arXiv 2502.17423),
    anywhere else DPM-Solver++ (2M) with steps of any length (Lu et al. 2022, algorithm 2), which is what
    ``DPMSolverMultistepScheduler`` of `diffusers` does by default.
    """

    name = "BalancedMaster"
    rule = OWN


class QualityMaster(Expert):
    """Half strides with the third-order rule, DPM-Solver++ (3M): twice the network calls for a smaller error.

    The rule is ``DPMSolverMultistepScheduler(solver_order=3)`` of `diffusers`. At the opening it takes the program with
    more calls.
    """

    name = "QualityMaster"
    stride = 0.5
    rule = THIRD
    ladder = 1


class SpeedDemon(Expert):
    """A plain step, then one call of the student, a consistency-tuned copy, which ends the request.

    At the opening the student is called at its highest level and then, whatever the next decision says, at its middle
    level: two evaluations in all (Song et al. 2023, "Consistency models", algorithm 1; tuned as in Geng et al. 2024,
    arXiv 2406.14548). A student without a middle level answers once, and so does one whose budget is one evaluation.
    """

    name = "SpeedDemon"
    rule = PLAIN
    then = "student"
    gated = False


class EarlyStopper(Expert):
    """Return the present prediction at once, without a further call.

    It is what `diffusers` users do with a callback that takes ``pred_original_sample`` and interrupts the pipeline.
    """

    name = "EarlyStopper"
    stride = 0.0
    rule = PLAIN
    then = "stop"
    gated = False


class NoiseAdaptive(Expert):
    """Balanced steps, with the network told the noise level that was measured instead of the one that should be.

    The measure is the residual ``|x - D| / (sigma sqrt d)``; see :func:`level_factors`. With noise, it raises sigma by
    10 or 25 % instead of stepping, with fresh noise of that size (churn, Karras et al. 2022, algorithm 2; Restart
    sampling, Xu et al. 2023); two times at most.
    """

    name = "NoiseAdaptive"
    rule = OWN


class DefaultAdaptive(Expert):
    """Traditional: a second-order rule whose step keeps the embedded error at a fixed tolerance.

    The error is the difference between the rules of first and second order; a local error of order 2 in the step gives
    the square root (Hairer, Norsett and Wanner 1993, section II.4; for diffusion Jolicoeur-Martineau et al. 2021,
    "Gotta go fast", and ``sample_dpm_adaptive`` of k-diffusion).
    """

    name = "DefaultAdaptive"

    @staticmethod
    def strides(errors: np.ndarray) -> np.ndarray:
        """How far it goes.

        Args:
            errors: (N,) embedded errors of a step of stride 1, in standard deviations of the pictures.

        Returns:
            (N,) strides.
        """
        return np.clip(np.sqrt(ADAPTIVE_TOLERANCE / np.maximum(errors, 1e-9)), *ADAPTIVE_STRIDES)


class Fast(Expert):
    """Traditional: Euler's method, ``EulerDiscreteScheduler`` or DDIM without noise, with strides of one and a half.

    At the opening it takes the program with fewer calls.
    """

    name = "Fast"
    stride = 1.5
    rule = PLAIN
    ladder = -1


class Quality(Expert):
    """Traditional: DPM-Solver++ (3M), with strides of 0.7.

    At the opening it takes the program with more calls.
    """

    name = "Quality"
    stride = 0.7
    rule = THIRD
    ladder = 1


#: All experts, in the order in which actions and gates name them.
BANK: tuple[Expert, ...] = (
    BalancedMaster(),
    QualityMaster(),
    SpeedDemon(),
    EarlyStopper(),
    NoiseAdaptive(),
    DefaultAdaptive(),
    Fast(),
    Quality(),
)
#: Their names.
EXPERTS = tuple(expert.name for expert in BANK)
BALANCED, QUALITY_MASTER, SPEED, STOP, ADAPTIVE_NOISE, ADAPTIVE_STEP, FAST, QUALITY = range(len(BANK))

#: Choices of each part of an action: stride, expert, guidance, noise.
ACTIONS = (len(STRIDES), len(BANK), len(GUIDANCE), len(NOISE))
#: The action that follows the static program.
STATIC = np.array([STRIDES.index(1.0), BALANCED, 0, 0])
STATIC.setflags(write=False)


@dataclass(frozen=True)
class BankTables:
    """The bank as arrays, for many samples at once.

    Attributes:
        strides: (8,) own strides.
        rules: (8, 4) one-hot rules.
        gated: (8, 4) the same, zeros where a gate may not mix.
        own: (8,) the last column of rules.
        mixing: (8,) bool, whether a gate may mix for its target.
        ladder: (8,) int.
    """

    strides: np.ndarray
    rules: np.ndarray
    gated: np.ndarray
    own: np.ndarray
    mixing: np.ndarray
    ladder: np.ndarray


def _tables() -> BankTables:
    rules = np.eye(4)[[expert.rule for expert in BANK]]
    return BankTables(
        strides=np.array([expert.stride for expert in BANK]),
        rules=rules,
        gated=rules * np.array([[float(expert.gated)] for expert in BANK]),
        own=rules[:, OWN].copy(),
        mixing=np.array([expert.gated for expert in BANK]),
        ladder=np.array([expert.ladder for expert in BANK]),
    )


TABLES = _tables()


def multistep_rows(logs: np.ndarray, known: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mixed coefficients of the multistep rules of order 1 to 3 for steps of any length, many samples at once.

    They are those of :func:`~vernissage.sampler.domain.programs.dpmpp` (Lu et al. 2022, DPM-Solver++, and their code
    for the third order). A step to sigma 0 is plain.

    Args:
        logs: (3, N) logarithms of the sigmas of the last predictions, the latest first.
        known: (N,) int, how many of them there are; the order falls to that.
        targets: (N,) logarithms of the sigmas after the step; minus infinity for 0.
        weights: (N, 4) shares of ``PLAIN``, ``SECOND`` and ``THIRD``; that of ``OWN`` is ignored.

    Returns:
        (N, 3) float64, coefficients of the predictions.
    """
    plain, second, third, _ = weights.T
    onwards = targets > -math.inf
    h = np.where(onwards, logs[0] - targets, 1.0)
    # The share of the predictions, 1 - sigma' / sigma.
    gain = np.where(onwards, -np.expm1(-h), 1.0)
    h = np.maximum(h, 1e-12)
    r0 = np.maximum((logs[1] - logs[0]) / h, _LEAST_RATIO)
    r1 = np.maximum((logs[2] - logs[1]) / h, _LEAST_RATIO)
    whole = plain + second + third
    known = np.where(onwards, known, 1)
    highest = third * (known > 2)
    slope = 1 - gain / h
    # Of the first and of the second difference of predictions; see `dpmpp`.
    first = (second + third - highest) * (known > 1) * gain * 0.5 + highest * slope
    bend = highest * (slope * r0 - slope / h + 0.5) / (r0 + r1)
    rows = np.empty((len(h), 3))
    rows[:, 2] = far = bend / r1
    near = (first + bend) / r0
    rows[:, 1] = -near - far
    rows[:, 0] = whole * gain + near
    return rows


def level_factors(residuals: np.ndarray, sigmas: np.ndarray, sigma_data: float, values: int) -> np.ndarray:
    """How far the noise in a state seems to be from its nominal level.

    A perfect network leaves a residual below 1, because it takes part of the noise for picture: at least
    ``sigma / sqrt(sigma^2 + sigma_data^2)``, where the pictures are white noise themselves, and at most 1, where it
    knows them. What lies between, with one standard deviation of d squared normal numbers above it, says nothing.

    Args:
        residuals: (N,) ``|x - D| / (sigma sqrt d)``.
        sigmas: (N,) nominal noise levels.
        sigma_data: Standard deviation of the pictures.
        values: d, numbers in one sample.

    Returns:
        (N,) factors, within ``LEVEL_FACTORS``; 1 where the residual is explained.
    """
    least = sigmas / np.hypot(sigmas, sigma_data)
    most = 1 + 1 / math.sqrt(2 * values)
    return np.clip(residuals / np.clip(residuals, np.maximum(least, 1e-3), most), *LEVEL_FACTORS)
