"""Programs: everything that a deterministic solver does with a network, as numbers.

Every linear multistep rule is ``x' = (sigma' / sigma) x + sum_j c_j D_j`` over the network's predictions D so far, the
present one first. So a program is its noise levels and one row of coefficients for each network call, whichever solver
wrote them; rows that were fitted are just other numbers. Rules in predictions of the picture (DPM-Solver++, UniPC) need
few earlier ones; rules in directions ``(x - D) / sigma`` (DEIS, iPNDM) need all of them, because an earlier direction
is the present one less what was added since.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from vernissage.core.errors import BadInput, CorruptArtifact
from vernissage.sampler.domain.schedules import vp_time

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PROGRAM_FORMAT = 1

#: How a multistep solver ends: orders fall to 1 (`lowered`), the last step alone has order 1 (`plain`), or they stay
#: (`kept`).
Ending = Literal["lowered", "plain", "kept"]
#: In which variable DEIS draws its polynomial: the time of the variance preserving process (tAB of the paper), sigma
#: (rhoAB), or its logarithm (as in `diffusers`).
Variable = Literal["time", "sigma", "log-sigma"]


@dataclass(frozen=True)
class Program:
    """What a solver does, as numbers.

    Attributes:
        name: Who wrote the numbers, for reports.
        sigmas: K + 1 noise levels, strictly decreasing, the last of them 0.
        coefficients: One row for each of E network calls: of the present prediction, of the one before, and so on. Row
            e has 1 to e + 1 numbers; earlier predictions that it does not name count nothing.
        corrections: Which network calls, increasing, correct the state at their noise level instead of stepping to the
            next one; each is the second one at its level or later. Heun's method has one after every step but the last.
        told: Noise level that the network is told at each call, E numbers; empty where it is the state's own. Where
            steps are long a state carries more or less error than noise alone, and another level fits it better.
    """

    name: str
    sigmas: tuple[float, ...]
    coefficients: tuple[tuple[float, ...], ...]
    corrections: tuple[int, ...] = ()
    told: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        _check_sigmas(self.name, self.sigmas)
        calls, steps = len(self.coefficients), len(self.sigmas) - 1
        if calls - len(self.corrections) != steps:
            raise BadInput(
                f"program {self.name}: {calls} rows of coefficients, {len(self.corrections)} of them corrections, for "
                f"{steps} steps; expected one row for each step and each correction"
            )
        for number, row in enumerate(self.coefficients):
            if not 1 <= len(row) <= number + 1:
                raise BadInput(
                    f"program {self.name}: network call {number} has {len(row)} coefficients, expected 1 to "
                    f"{number + 1}: there are no more predictions by then"
                )
            if not all(map(math.isfinite, row)):
                raise BadInput(f"program {self.name}: network call {number} has coefficients {row}, expected numbers")
        increasing = all(a < b for a, b in pairwise(self.corrections))
        if not increasing or any(not 1 <= number < calls - 1 for number in self.corrections):
            raise BadInput(
                f"program {self.name}: corrections at network calls {self.corrections}, expected increasing numbers "
                f"from 1 to {calls - 2}: the first call has nothing to correct and the last one ends at sigma 0"
            )

        if self.told and (len(self.told) != calls or not all(0 < level < math.inf for level in self.told)):
            raise BadInput(
                f"program {self.name}: the network is told {list(self.told)}, expected a noise level above 0 for each "
                f"of {calls} calls, or none at all"
            )

    @property
    def steps(self) -> int:
        """K, the number of noise levels above 0."""
        return len(self.sigmas) - 1

    @property
    def evaluations(self) -> int:
        """Network calls per sample without guidance, E."""
        return len(self.coefficients)

    @property
    def memory(self) -> int:
        """How many earlier predictions must be kept."""
        return max(map(len, self.coefficients)) - 1

    @property
    def levels(self) -> tuple[float, ...]:
        """Noise level of each network call, E numbers."""
        return tuple(self.sigmas[place] for place, _ in self._places())

    @property
    def asked(self) -> tuple[float, ...]:
        """Noise level that the network is told at each call, E numbers."""
        return self.told or self.levels

    @property
    def targets(self) -> tuple[float, ...]:
        """Noise level after each network call, E numbers, the last of them 0."""
        return tuple(self.sigmas[place] for _, place in self._places())

    def table(self, width: int | None = None) -> np.ndarray:
        """Coefficients with zeros to the right of shorter rows.

        Args:
            width: Columns; as many as are needed where not given.

        Returns:
            (E, width) float64.

        Raises:
            BadInput: If rows are longer than that.
        """
        wide = self.memory + 1 if width is None else width
        if wide < self.memory + 1:
            raise BadInput(
                f"program {self.name}: rows of {self.memory + 1} coefficients do not fit into {wide} columns"
            )
        table = np.zeros((self.evaluations, wide))
        for row, values in zip(table, self.coefficients, strict=True):
            row[: len(values)] = values
        return table

    def inconsistency(self) -> np.ndarray:
        """By how much each row misses what keeps a picture that the network is sure of, (E,) float64.

        Solvers have zeros here up to rounding; fitted rows may trade that for a smaller error elsewhere.
        """
        ratios = np.array(self.targets) / np.array(self.levels)
        missed: np.ndarray = self.table().sum(axis=1) - (1 - ratios)
        return missed

    def to_dict(self) -> dict[str, Any]:
        """The program as plain values for JSON."""
        return {
            "format": PROGRAM_FORMAT,
            "name": self.name,
            "sigmas": list(self.sigmas),
            "coefficients": [list(row) for row in self.coefficients],
            "corrections": list(self.corrections),
            "told": list(self.told),
        }

    def to_json(self) -> str:
        """The program as JSON text; reading it back gives the same numbers to the last bit."""
        return json.dumps(self.to_dict(), allow_nan=False) + "\n"

    @staticmethod
    def from_dict(document: Mapping[str, Any]) -> Program:
        """Read what :meth:`to_dict` wrote.

        Raises:
            CorruptArtifact: If these are not the values of a program; the message says what is wrong.
        """
        try:
            _whole(document["format"], "format", expected=PROGRAM_FORMAT)
            return Program(
                _text(document["name"], "name"),
                _numbers(document["sigmas"], "sigmas"),
                tuple(_numbers(row, "coefficients") for row in document["coefficients"]),
                tuple(_whole(number, "corrections") for number in document["corrections"]),
                _numbers(document.get("told", ()), "told"),
            )
        except (KeyError, TypeError, AttributeError, OverflowError, BadInput) as error:
            raise CorruptArtifact(f"program: {error}; expected what `Program.to_json` writes") from error

    @staticmethod
    def from_json(text: str) -> Program:
        """Read what :meth:`to_json` wrote.

        Raises:
            CorruptArtifact: If the text is not a program; the message says what is wrong.
        """
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise CorruptArtifact(f"program: {error}; expected what `Program.to_json` writes") from error
        return Program.from_dict(document)

    def _places(self) -> list[tuple[int, int]]:
        """Which sigma each network call is at and which it leads to."""
        corrections, place, places = set(self.corrections), 0, []
        for number in range(self.evaluations):
            onwards = place if number in corrections else place + 1
            places.append((place, onwards))
            place = onwards
        return places


class Solver(Protocol):
    """A way to write a program for given noise levels."""

    def __call__(self, sigmas: Sequence[float]) -> Program:
        """Write it for K + 1 strictly decreasing sigmas, the last of them 0."""
        ...


def euler(sigmas: Sequence[float]) -> Program:
    """Euler's method, which is DDIM without noise (Song et al. 2021, equation 12): K network calls for K steps.

    Raises:
        BadInput: If the sigmas are not strictly decreasing to 0.
    """
    levels = _levels("euler", sigmas)
    return _program("euler", levels, [[1 - ratio] for ratio in levels[1:] / levels[:-1]])


def heun(sigmas: Sequence[float]) -> Program:
    """Heun's method (Karras et al. 2022, algorithm 1): 2 K - 1 network calls for K steps, the last of which is Euler's.

    Raises:
        BadInput: If the sigmas are not strictly decreasing to 0.
    """
    levels = _levels("heun", sigmas)
    rows: list[list[float]] = []
    for here, there in pairwise(levels.tolist()):
        rows.append([1 - there / here])
        if there > 0:
            # Half the difference of both directions, over the step: the states in them cancel but for the predictions.
            half = (here - there) / (2 * there)
            rows.append([half, -half])
    return _program("heun", levels, rows, tuple(range(1, len(rows) - 1, 2)))


def dpmpp(sigmas: Sequence[float], order: int = 2, *, ending: Ending = "lowered") -> Program:
    """DPM-Solver++ in its multistep form, the midpoint variant (Lu et al. 2022, algorithm 2; 3M as in their code).

    The third order's last term has half of its Taylor weight there, in `diffusers` and in k-diffusion; so it has here,
    and converges with order 2 and a smaller constant. The step to sigma 0 is infinitely long in log-SNR and always
    plain, so that `kept` means `plain`.

    Args:
        sigmas: K + 1 strictly decreasing noise levels, the last of them 0.
        order: 1 (which is Euler's method) to 3; the first steps have lower ones.
        ending: How orders end.

    Raises:
        BadInput: If the sigmas, the order or the ending are none.
    """
    name = f"dpmpp-{order}m"
    levels = _levels(name, sigmas)
    orders = _orders(name, len(levels) - 1, order, 3, "plain" if ending == "kept" else ending)
    return _program(name, levels, [_dpmpp_row(levels, k, now).tolist() for k, now in enumerate(orders)])


def unipc(sigmas: Sequence[float], order: int = 2, *, ending: Ending = "lowered", corrector: bool = True) -> Program:
    """UniPC with B(h) = e^h - 1, on predictions of the picture (Zhao et al. 2023, algorithms 5 and 6, `bh2`).

    The corrector uses the prediction that the next step needs anyway, so that it costs no network call; it moves the
    state by a sum of predictions, which is added to the row of that next step. As in `diffusers`, weights of order 2
    without and of order 1 with the present prediction are 1/2. The step to sigma 0 is always plain, so that `kept`
    means `plain`.

    Args:
        sigmas: K + 1 strictly decreasing noise levels, the last of them 0.
        order: 1 to 3; the first steps have lower ones. The corrector adds about one.
        ending: How orders end.
        corrector: Whether to correct at all.

    Raises:
        BadInput: If the sigmas, the order or the ending are none.
    """
    name = f"unipc-{order}"
    levels = _levels(name, sigmas)
    steps = len(levels) - 1
    logs = -np.log(levels[:-1])
    orders = _orders(name, steps, order, 3, "plain" if ending == "kept" else ending)
    # Columns are network calls here: row k may use columns 0 to k.
    rows, predictor = np.zeros((steps, steps)), np.zeros((steps, steps))
    for k, now in enumerate(orders):
        ratio = levels[k + 1] / levels[k]
        used = np.arange(k, k - now, -1)
        if k < steps - 1:
            predictor[k, used] = _unified(logs[used], logs[k + 1] - logs[k], None)
        else:
            predictor[k, k] = 1.0
        rows[k] = predictor[k]
        if corrector and k > 0:
            known = np.arange(k - 1, k - 1 - orders[k - 1], -1)
            weights = _unified(logs[known], logs[k] - logs[k - 1], 1.0)
            corrected = np.zeros(steps)
            corrected[[k, *known]] = weights
            rows[k] += ratio * (corrected - predictor[k - 1])
    return _program(name, levels, [rows[k, k::-1].tolist() for k in range(steps)])


def deis(
    sigmas: Sequence[float], order: int = 3, *, variable: Variable = "time", ending: Ending = "lowered"
) -> Program:
    """DEIS: the polynomial through the last directions, integrated exactly (Zhang and Chen 2023, equation 15).

    Args:
        sigmas: K + 1 strictly decreasing noise levels, the last of them 0.
        order: 1 (which is Euler's method) to 4, the number of directions; the first steps have lower ones.
        variable: In which variable the polynomial is drawn; `time` is the paper's tAB.
        ending: How orders end.

    Raises:
        BadInput: If the sigmas, the order, the variable or the ending are none.
    """
    name = f"deis-{order}" if variable == "time" else f"deis-{order}-{variable}"
    if variable not in {"time", "sigma", "log-sigma"}:
        raise BadInput(f"program {name}: variable {variable!r}, expected time, sigma or log-sigma")
    levels = _levels(name, sigmas)
    orders = _orders(name, len(levels) - 1, order, 4, ending)
    weights = [_integrals(levels[k + 1], levels[np.arange(k, k - now, -1)], variable) for k, now in enumerate(orders)]
    return _from_directions(name, levels, weights)


def ipndm(sigmas: Sequence[float], order: int = 4, *, ending: Ending = "kept") -> Program:
    """IPNDM: Adams-Bashforth weights as if all steps were equally long (Zhang and Chen 2023, appendix H.2).

    Args:
        sigmas: K + 1 strictly decreasing noise levels, the last of them 0.
        order: 1 (which is Euler's method) to 4; the first steps have lower ones.
        ending: How orders end; which way is best depends on K.

    Raises:
        BadInput: If the sigmas, the order or the ending are none.
    """
    name = f"ipndm-{order}"
    levels = _levels(name, sigmas)
    orders = _orders(name, len(levels) - 1, order, 4, ending)
    weights = [np.array(_ADAMS_BASHFORTH[now - 1]) * (levels[k + 1] - levels[k]) for k, now in enumerate(orders)]
    return _from_directions(name, levels, weights)


#: The solvers that a grid search goes through, by name, each with its usual ending.
SOLVERS: Mapping[str, Solver] = {
    "euler": euler,
    "heun": heun,
    "dpmpp-2m": partial(dpmpp, order=2),
    "dpmpp-3m": partial(dpmpp, order=3),
    "unipc-2": partial(unipc, order=2),
    "unipc-3": partial(unipc, order=3),
    "deis-2": partial(deis, order=2),
    "deis-3": partial(deis, order=3),
    "ipndm-1": partial(ipndm, order=1),
    "ipndm-2": partial(ipndm, order=2),
    "ipndm-3": partial(ipndm, order=3),
    "ipndm-4": partial(ipndm, order=4),
}

_ADAMS_BASHFORTH = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


def _program(
    name: str, levels: np.ndarray, rows: Sequence[Sequence[float]], corrections: tuple[int, ...] = ()
) -> Program:
    """Without the zeros at the ends of rows."""
    trimmed = []
    for row in rows:
        used = max((number for number, value in enumerate(row) if value), default=0)
        trimmed.append(tuple(map(float, row[: used + 1])))
    return Program(name, tuple(levels.tolist()), tuple(trimmed), corrections)


def _levels(name: str, sigmas: Sequence[float]) -> np.ndarray:
    _check_sigmas(name, sigmas)
    return np.array(sigmas, dtype=np.float64)


def _check_sigmas(name: str, sigmas: Sequence[float]) -> None:
    if len(sigmas) < 2 or sigmas[-1] != 0:
        raise BadInput(f"program {name}: sigmas {tuple(sigmas)}, expected at least one above 0 and 0 at the end")
    if not math.isfinite(sigmas[0]):
        raise BadInput(f"program {name}: the first sigma is {sigmas[0]}, expected a finite number")
    for place, (here, there) in enumerate(pairwise(sigmas)):
        if not here > there:
            raise BadInput(
                f"program {name}: sigma {place + 1} is {there} after {here}, expected strictly decreasing sigmas"
            )


def _orders(name: str, steps: int, order: int, highest: int, ending: Ending) -> list[int]:
    """Order of each step: what there are predictions for, and what the ending allows."""
    if not 1 <= order <= highest:
        raise BadInput(f"program {name}: order {order}, expected 1 to {highest}")
    orders = [min(order, k + 1) for k in range(steps)]
    if ending == "lowered":
        return [min(now, steps - k) for k, now in enumerate(orders)]
    if ending == "plain":
        return [*orders[:-1], 1]
    if ending == "kept":
        return orders
    raise BadInput(f"program {name}: ending {ending!r}, expected lowered, plain or kept")


def _dpmpp_row(levels: np.ndarray, k: int, order: int) -> np.ndarray:
    """Coefficients of DPM-Solver++ for step k, (order,) float64."""
    gain = 1 - levels[k + 1] / levels[k]
    row = np.zeros(order)
    row[0] = gain
    if order == 1:
        return row
    # Lengths in log-SNR, and differences of predictions over them in units of this step; as in the paper from here on.
    h = math.log(levels[k] / levels[k + 1])
    r0 = math.log(levels[k - 1] / levels[k]) / h
    row_d1 = np.zeros(order)
    row_d1[:2] = np.array([1, -1]) / r0
    if order == 2:
        row += gain / 2 * row_d1
        return row
    r1 = math.log(levels[k - 2] / levels[k - 1]) / h
    row_d2 = (row_d1 - np.array([0, 1, -1]) / r1) / (r0 + r1)
    row_d1 += r0 * row_d2
    row += (1 - gain / h) * row_d1 - ((h - gain) / h**2 - 0.5) * row_d2
    return row


def _unified(logs: np.ndarray, h: float, present: float | None) -> np.ndarray:
    """Weights of UniP (`present` None) or UniC (1: the prediction at the step's end is known), that one first.

    Args:
        logs: (p,) minus log sigma of the known predictions, latest first; the step starts at the first of them.
        h: The step's length in that measure.
        present: Where in the step the further prediction is.

    Returns:
        (p,) or (p + 1,) float64, without the state's share.
    """
    places = (logs[1:] - logs[0]) / h
    if present is not None:
        places = np.append(places, present)
    gain = -math.expm1(-h)
    count = len(places)
    # b_i of the paper: integrals of powers over the step, by their recursion, over B(h) = -gain.
    integrals, phi, factorial = [], -gain / -h - 1, 1.0
    for i in range(1, count + 1):
        integrals.append(phi * factorial / -gain)
        factorial *= i + 1
        phi = phi / -h - 1 / factorial
    if count == 1:
        shares = np.array([0.5])
    else:
        shares = np.linalg.solve(np.vander(places, count, increasing=True).T, np.array(integrals))
    per_point = gain * shares / places
    known = np.array([gain - per_point.sum(), *per_point[: len(logs) - 1]])
    return known if present is None else np.array([per_point[-1], *known])


def _from_directions(name: str, levels: np.ndarray, weights: Sequence[np.ndarray]) -> Program:
    """Rows in predictions of ``x' = x + sum_j w_j d_j`` with directions ``d = (x - D) / sigma``, the present one first.

    An earlier state over its sigma is the present one over its own, less the predictions added in between; `added` has
    their sum up to each step.
    """
    steps = len(weights)
    rows, added = np.zeros((steps, steps)), np.zeros((steps + 1, steps))
    for k, row_weights in enumerate(weights):
        for back, weight in enumerate(row_weights):
            rows[k, k - back] -= weight / levels[k - back]
            rows[k] -= weight * (added[k] - added[k - back])
        if k < steps - 1:
            added[k + 1] = added[k] + rows[k] / levels[k + 1]
    return _program(name, levels, [rows[k, k::-1].tolist() for k in range(steps)])


def _integrals(target: float, nodes: np.ndarray, variable: Variable) -> np.ndarray:
    """Integrals over sigma, from the first node to `target`, of the Lagrange polynomials through the nodes.

    Args:
        target: Where the step ends.
        nodes: (p,) sigmas of the directions, the latest first.
        variable: In which variable they are polynomials.

    Returns:
        (p,) float64; their sum is the step.
    """
    if variable == "log-sigma":
        # Polynomials in log(sigma / start); integrals of its powers are known, also down to 0.
        at = np.log(nodes / nodes[0])
        ratio = target / nodes[0]
        moments, log_ratio = [ratio - 1], math.log(ratio) if ratio > 0 else 0.0
        for power in range(1, len(nodes)):
            moments.append(ratio * log_ratio**power - power * moments[-1])
        return np.linalg.solve(np.vander(at, increasing=True).T, nodes[0] * np.array(moments))
    # Both other variables are smooth in sigma down to 0.
    points, shares = np.polynomial.legendre.leggauss(128)
    inside = nodes[0] + (target - nodes[0]) * (points + 1) / 2
    at, along = (vp_time(nodes), vp_time(inside)) if variable == "time" else (nodes, inside)
    lagrange = np.ones((len(nodes), len(inside)))
    for own, place in enumerate(at):
        for other in np.delete(at, own):
            lagrange[own] *= (along - other) / (place - other)
    integrals: np.ndarray = lagrange @ shares * (target - nodes[0]) / 2
    return integrals


def _numbers(values: Any, what: str) -> tuple[float, ...]:
    if not isinstance(values, list | tuple):
        raise TypeError(f"{what} = {values!r}, expected a list of numbers")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"{what} with {value!r}, expected numbers")
    return tuple(map(float, values))


def _whole(value: Any, what: str, *, expected: int | None = None) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or expected not in {None, value}:
        raise TypeError(f"{what} with {value!r}, expected {'whole numbers' if expected is None else expected}")
    return value


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{what} = {value!r}, expected text")
    return value
