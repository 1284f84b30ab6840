"""What each expert has done: how often it acted, how good, quick and cheap the requests were that it had a share in.

It is a running record: training, a judge and use add to it, two records merge, and nothing but sums is kept, so that
adding in parts gives what adding at once gives. Use has no teacher; what nobody measured counts towards neither quality
nor success.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from vernissage.core.errors import BadInput, CorruptArtifact, MissingArtifact
from vernissage.core.files import atomic_write_json, read_json
from vernissage.sampler.learn.experts import EXPERTS
from vernissage.sampler.learn.rewards import saturated

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from numpy.typing import ArrayLike

    from vernissage.sampler.learn.policies import Rolled

STATISTICS_FILE = "experts.json"
STATISTICS_FORMAT = 1

#: Sums that are kept of each expert, in the order of their rows.
SUMS = (
    "uses",
    "decisions",
    "led",
    "nfe",
    "distance",
    "shares",
    "quality",
    "quality_squared",
    "share_squared",
    "request_nfe",
    "judged",
    "succeeded",
    "asked",
    "confidence",
)

_Z = 1.959964
# Values that differ by less are equal: the same answer in another batch is rounded otherwise.
_ROUNDING = 1e-5


@dataclass(frozen=True, eq=False)
class Decisions:
    """What was decided in R requests, M decisions in all.

    Attributes:
        request: (M,) int, 0 to R - 1, which request a decision belongs to; in the order of time within a request.
        expert: (M,) int, place in ``EXPERTS`` of the expert that acted.
        nfe: (M,) network evaluations that the decision took, 0 or more.
        distance: (M,) by how much ln sigma fell, in e-foldings; below 0 where noise was added. A step to sigma 0 counts
            down to the least noise level of the network.
        quality: (R,) ``1 - phi(e)``, 0 to 1; nan where nobody knows the teacher's endpoint. None knows any if left out.
        success: (R,) 1 where the value of the answer, ``-phi(e) - price NFE``, was at least that of the static program,
            0 where it was less, nan where nobody compared; none was compared if left out.
        confidence: (M,) probability that the router gave to its first choice, nan where no router was asked; none was
            asked if left out.

    Raises:
        BadInput: If lengths differ, or a number is out of its range.
    """

    request: np.ndarray
    expert: np.ndarray
    nfe: np.ndarray
    distance: np.ndarray
    quality: np.ndarray | None = None
    success: np.ndarray | None = None
    confidence: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name in ("request", "expert"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=np.int64))
        for name in ("nfe", "distance", "quality", "success", "confidence"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=np.float64))
        count = len(self.request)
        for name in ("expert", "nfe", "distance", "confidence"):
            values = getattr(self, name)
            if values is not None and values.shape != (count,):
                raise BadInput(f"decisions: {name} of shape {values.shape}, expected ({count},), one for each decision")
        _within("request", self.request, 0, self.requests - 1)
        _within("expert", self.expert, 0, len(EXPERTS) - 1)
        _within("nfe", self.nfe, 0, math.inf)
        _within("distance", self.distance, -math.inf, math.inf)
        for name in ("quality", "success", "confidence"):
            values = getattr(self, name)
            if values is not None:
                _within(name, values[~np.isnan(values)], 0, 1)

    @staticmethod
    def of(
        rolled: Rolled, *, sigma_min: float, tau: float | None = None, static: np.ndarray | None = None
    ) -> Decisions:
        """Those of requests that were answered under a policy.

        Args:
            rolled: R requests.
            sigma_min: Least noise level of the network.
            tau: Scale of the saturating error; quality is unknown where left out.
            static: (R,) values of the static program's answers to the same requests; success is unknown where left out.

        Raises:
            BadInput: If there are values but no tau, or not one for each request.
        """
        if static is not None and (tau is None or static.shape != (len(rolled),)):
            raise BadInput(
                f"decisions: tau = {tau} and {static.shape} values of the static program, expected a tau and "
                f"({len(rolled)},), one value for each request"
            )
        taken = rolled.experts >= 0
        # The opening goes nowhere: it is counted from its own noise level.
        before = np.concatenate((rolled.sigmas[:, :1], rolled.sigmas[:, :-1]), axis=1)
        success = None if static is None or tau is None else rolled.values(tau) >= static - _ROUNDING
        return Decisions(
            np.nonzero(taken)[0],
            rolled.experts[taken],
            rolled.spent[taken],
            log_distance(before[taken], rolled.sigmas[taken], sigma_min),
            None if tau is None else 1 - saturated(rolled.errors, tau),
            None if success is None else success.astype(np.float64),
            rolled.confidence[taken],
        )

    @property
    def requests(self) -> int:
        """R: as many as there are qualities or successes, else as many as decisions name."""
        known = [len(values) for values in (self.quality, self.success) if values is not None]
        if len(set(known)) > 1:
            raise BadInput(f"decisions: {known[0]} qualities and {known[1]} successes, expected one each per request")
        return known[0] if known else int(self.request.max(initial=-1)) + 1


def _within(name: str, values: np.ndarray, low: float, high: float) -> None:
    wrong = values[~(np.isfinite(values) & (values >= low) & (values <= high))]
    if len(wrong):
        raise BadInput(f"decisions: {name} {wrong[0]}, expected finite numbers from {low} to {high}")


@dataclass(eq=False)
class ExpertStatistics:
    """Sums over all decisions and requests so far, a column for each expert of ``EXPERTS``.

    Attributes:
        sums: (``len(SUMS)``, experts) float64.
        requests: Requests so far.
    """

    sums: np.ndarray = field(default_factory=lambda: np.zeros((len(SUMS), len(EXPERTS))))
    requests: int = 0

    def update(
        self, rolled: Rolled, *, sigma_min: float, tau: float | None = None, static: np.ndarray | None = None
    ) -> None:
        """Add requests that were answered under a policy; see :meth:`Decisions.of`."""
        self.record(Decisions.of(rolled, sigma_min=sigma_min, tau=tau, static=static))

    def record(self, decisions: Decisions) -> None:
        """Add what was decided in some requests.

        A request is led by the expert that made most of its decisions; of several by the one that acted last.
        """
        requests, experts = decisions.requests, len(EXPERTS)
        place = decisions.request * experts + decisions.expert

        def summed(weights: np.ndarray | None = None) -> np.ndarray:
            counted = np.bincount(place, weights=weights, minlength=requests * experts)
            return counted.reshape(requests, experts).astype(np.float64)

        counts, nfe = summed(), summed(decisions.nfe)
        last = np.full((requests, experts), -1)
        np.maximum.at(last, (decisions.request, decisions.expert), np.arange(len(decisions.request)))
        acted = counts.sum(axis=1) > 0
        leader = np.lexsort((last, counts), axis=1)[:, -1] if requests else np.zeros(0, dtype=np.int64)
        led = np.eye(experts)[leader] * acted[:, None]
        shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))

        quality, of_known = _known(decisions.quality, requests)
        success, of_compared = _known(decisions.success, requests)
        confidence, of_asked = _known(decisions.confidence, len(place))
        known = shares * of_known[:, None]
        added = {
            "uses": (counts > 0).sum(axis=0),
            "decisions": counts.sum(axis=0),
            "led": led.sum(axis=0),
            "nfe": nfe.sum(axis=0),
            "distance": summed(decisions.distance).sum(axis=0),
            "shares": known.sum(axis=0),
            "quality": known.T @ quality,
            "quality_squared": known.T @ quality**2,
            "share_squared": (known**2).sum(axis=0),
            "request_nfe": known.T @ nfe.sum(axis=1),
            "judged": led.T @ of_compared,
            "succeeded": led.T @ (success * of_compared),
            "asked": summed(of_asked).sum(axis=0),
            "confidence": summed(confidence * of_asked).sum(axis=0),
        }
        self.sums = self.sums + np.stack([added[name] for name in SUMS])
        self.requests += int(acted.sum())

    def add(
        self,
        experts: ArrayLike,
        nfe: ArrayLike,
        sigmas: ArrayLike,
        *,
        sigma_min: float,
        quality: float | None = None,
        success: bool | None = None,
        confidence: ArrayLike | None = None,
    ) -> None:
        """Add one request, as use has it at hand.

        Args:
            experts: (M,) place in ``EXPERTS`` of the expert that acted, decision by decision.
            nfe: (M,) network evaluations of each decision.
            sigmas: (M,) noise level after each decision; the first decision is counted from its own.
            sigma_min: Least noise level of the network; lower ones, and sigma 0, count as this.
            quality: ``1 - phi(e)`` where the teacher's endpoint is known.
            success: Whether its value was at least the static program's, where that was compared.
            confidence: (M,) probability that the router gave to its first choice.

        Raises:
            BadInput: If lengths differ, or a number is out of its range.
        """
        acted = np.asarray(experts, dtype=np.int64).ravel()
        levels = np.asarray(sigmas, dtype=np.float64).ravel()
        self.record(
            Decisions(
                np.zeros(len(acted), dtype=np.int64),
                acted,
                np.asarray(nfe, dtype=np.float64).ravel(),
                log_distance(np.concatenate((levels[:1], levels[:-1])), levels, sigma_min),
                None if quality is None else np.array([quality], dtype=np.float64),
                None if success is None else np.array([success], dtype=np.float64),
                None if confidence is None else np.asarray(confidence, dtype=np.float64).ravel(),
            )
        )

    def merge(self, other: ExpertStatistics) -> ExpertStatistics:
        """Both together, as a new record."""
        return ExpertStatistics(self.sums + other.sums, self.requests + other.requests)

    def table(self) -> pd.DataFrame:
        """One row per expert; nan where there is nothing to divide by.

        Returns:
            Columns:

            - ``expert``, its name;
            - ``uses``, requests in which it made a decision or more; ``decisions``, how many it made; ``led``, requests
              in which it made most;
            - ``quality``, mean of ``1 - phi(e)`` of requests weighted by its share of their decisions, 0 to 1, and
              ``quality_error``, standard error of that;
            - ``nfe``, network evaluations per decision of its own;
            - ``speed``, e-foldings of sigma per network evaluation of its own decisions; nan for an expert that has
              taken none, such as one that only ends requests;
            - ``efficiency``, quality per network evaluation: mean quality over mean evaluations of whole requests, both
              weighted as quality is;
            - ``success``, share of the requests that it led whose value was at least the static program's, with
              ``success_low`` and ``success_high``, the 95 % interval of Wilson (1927);
            - ``confidence``, mean probability of the router's first choice in the decisions that it made; where the
              router was too unsure to be followed, that is another expert.
        """
        import pandas as pd

        of = dict(zip(SUMS, self.sums, strict=True))
        quality = _divided(of["quality"], of["shares"])
        # Weighted mean: variance of the values over the effective number of them (Kish 1965).
        spread = np.maximum(0.0, _divided(of["quality_squared"], of["shares"]) - quality**2)
        effective = _divided(of["shares"] ** 2, of["share_squared"])
        success = _divided(of["succeeded"], of["judged"])
        low, high = _wilson(success, of["judged"])
        return pd.DataFrame(
            {
                "expert": list(EXPERTS),
                "uses": of["uses"].astype(np.int64),
                "decisions": of["decisions"].astype(np.int64),
                "led": of["led"].astype(np.int64),
                "quality": quality,
                "quality_error": np.sqrt(_divided(spread, effective - 1)),
                "nfe": _divided(of["nfe"], of["decisions"]),
                "speed": _divided(of["distance"], of["nfe"]),
                "efficiency": _divided(quality, _divided(of["request_nfe"], of["shares"])),
                "success": success,
                "success_low": low,
                "success_high": high,
                "confidence": _divided(of["confidence"], of["asked"]),
            }
        )

    def facts(self) -> list[dict[str, Any]]:
        """The table as plain values for JSON, None for nan."""
        rows = self.table().to_dict(orient="records")
        return [
            {str(key): None if isinstance(value, float) and math.isnan(value) else value for key, value in row.items()}
            for row in rows
        ]

    def to_dict(self) -> dict[str, Any]:
        """The sums as plain values for JSON."""
        sums = {
            expert: dict(zip(SUMS, column, strict=True))
            for expert, column in zip(EXPERTS, self.sums.T.tolist(), strict=True)
        }
        return {"format": STATISTICS_FORMAT, "requests": self.requests, "experts": sums}

    def save(self, folder: Path) -> None:
        """Write ``experts.json``, wholly or not at all."""
        atomic_write_json(folder / STATISTICS_FILE, self.to_dict())

    @staticmethod
    def load(folder: Path) -> ExpertStatistics:
        """Read what :meth:`save` wrote.

        Raises:
            MissingArtifact: If there is no record.
            CorruptArtifact: If it is damaged, or of other experts.
        """
        path = folder / STATISTICS_FILE
        if not path.is_file():
            raise MissingArtifact(f"{path}: no such file; `dvc repro benchmark@sampler` makes it, or `dvc pull`")
        document = read_json(path)
        try:
            return _read(document)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CorruptArtifact(
                f"{path}: not a record of experts ({error}); delete it, and a new one is begun"
            ) from error


def log_distance(before: ArrayLike, after: ArrayLike, sigma_min: float) -> np.ndarray:
    """By how much ln sigma falls from one noise level to another, in e-foldings.

    Args:
        before: (M,) noise levels.
        after: (M,) noise levels.
        sigma_min: Lower ones, and 0, count as this, because the logarithm of 0 is none.

    Returns:
        (M,) float64.

    Raises:
        BadInput: If the least level is not above 0.
    """
    if not 0 < sigma_min < math.inf:
        raise BadInput(f"sigma_min = {sigma_min}: expected a number above 0")
    higher, lower = (np.maximum(np.asarray(level, dtype=np.float64), sigma_min) for level in (before, after))
    return np.asarray(np.log(higher / lower))


def _read(document: Any) -> ExpertStatistics:
    """What :meth:`ExpertStatistics.to_dict` wrote; ValueError, KeyError or TypeError at anything else."""
    if document["format"] != STATISTICS_FORMAT:
        raise ValueError(f"format {document['format']}, expected {STATISTICS_FORMAT}")
    if set(document["experts"]) != set(EXPERTS):
        raise ValueError(f"experts {', '.join(document['experts'])}, expected {', '.join(EXPERTS)}")
    sums = np.array([[float(document["experts"][expert][name]) for expert in EXPERTS] for name in SUMS])
    requests = int(document["requests"])
    if not np.isfinite(sums).all() or requests < 0 or (np.delete(sums, SUMS.index("distance"), axis=0) < 0).any():
        raise ValueError("a sum is below 0 or no number")
    return ExpertStatistics(sums, requests)


def _known(values: np.ndarray | None, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Values with 0 where there is none, and (count,) 1 where there is one."""
    if values is None:
        return np.zeros(count), np.zeros(count)
    return np.nan_to_num(values, nan=0.0), (~np.isnan(values)).astype(np.float64)


def _divided(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Quotients, nan where there is nothing to divide by."""
    return np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0)


def _wilson(share: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """95 % interval of shares (Wilson 1927), nan where there are none."""
    count = np.where(count > 0, count, np.nan)
    centre = (share + _Z**2 / (2 * count)) / (1 + _Z**2 / count)
    half = _Z / (1 + _Z**2 / count) * np.sqrt(share * (1 - share) / count + _Z**2 / (4 * count**2))
    return centre - half, centre + half
