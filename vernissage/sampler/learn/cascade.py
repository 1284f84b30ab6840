"""One evaluation, two, or a whole program: a verifier looks at what the student answered and says whether to go on.

It judges the output, never the noise it came from: which mode a noise will land in cannot be told beforehand, but an
answer between two modes looks like one. What verifying costs is counted, and where a cascade is no better than always
doing the same, its own facts say so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vernissage.core.errors import BadInput, BadParams, CorruptArtifact, MissingArtifact
from vernissage.core.files import atomic_write_json, read_json
from vernissage.core.seeds import numpy_generator
from vernissage.core.weights import load_weights, save_weights
from vernissage.sampler.domain.sampling import run_program
from vernissage.sampler.learn.book import ProgramBook
from vernissage.sampler.learn.consistency import Student
from vernissage.sampler.learn.grid import saturating

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from vernissage.sampler.domain.denoiser import Condition, Denoiser
    from vernissage.sampler.learn.grid import Pairs

CASCADE_FILE, CASCADE_FORMAT = "cascade.json", 1
#: Thresholds that no risk exceeds, and that all do; with either nothing is verified.
NEVER, ALWAYS = 2.0, -1.0
#: What is measured of an answer beside the network's own features.
EVIDENCE = ("scale", "mean", "spread", "variation", "excess", "change", "residual")

_BATCH = 256
_QUANTILES = 17


@dataclass(frozen=True, eq=False)
class Answer:
    """What the student made of some requests.

    Attributes:
        samples: (N, C, H, W).
        evidence: (N, F) float: ``EVIDENCE``, then the student's deepest features in the same call.
        evaluations: Network evaluations per sample so far, without those of any verifier.
    """

    samples: torch.Tensor
    evidence: torch.Tensor
    evaluations: int


@torch.no_grad()
def answered(
    student: Student,
    noise: torch.Tensor,
    condition: Condition | None,
    scales: torch.Tensor,
    before: Answer | None = None,
) -> Answer:
    """First answer, or second one after it; the residual among the evidence is left 0.

    Args:
        student: The network.
        noise: (N, C, H, W) normal with variance 1.
        condition: N conditions.
        scales: (N,) guidance scales.
        before: The first answer.
    """
    level = student.sigma_max if before is None else student.middle
    x = noise * level if before is None else before.samples + level * noise
    sigma = noise.new_full((len(noise),), level)
    samples, features = student.call_with_features(x, sigma, condition, scales)
    change = torch.zeros_like(scales) if before is None else _root_mean_square(samples - before.samples)
    flat = samples.flatten(1)
    across, down = samples.diff(dim=3).abs().flatten(1).mean(dim=1), samples.diff(dim=2).abs().flatten(1).mean(dim=1)
    plain = (
        torch.asinh(scales - 1),
        flat.mean(dim=1),
        flat.std(dim=1),
        across + down,
        (flat.abs() - 1).clamp(min=0).mean(dim=1),
        change,
        torch.zeros_like(scales),
    )
    evidence = torch.cat((torch.stack([value.float() for value in plain], dim=1), features.float()), dim=1)
    return Answer(samples, evidence, 1 if before is None else before.evaluations + 1)


@torch.no_grad()
def probed(
    denoiser: Denoiser, answer: Answer, noise: torch.Tensor, condition: Condition | None, sigma: float
) -> Answer:
    """Add the residual to the evidence: how far the denoiser moves an answer with a little noise on it.

    Args:
        denoiser: The network that the student was copied from; one evaluation for each sample.
        answer: Any answer.
        noise: (N, C, H, W), the noise of the requests.
        condition: N conditions; the residual is without guidance.
        sigma: How much noise.
    """
    level = noise.new_full((len(noise),), sigma)
    moved = denoiser(answer.samples + sigma * noise, level, condition) - answer.samples
    evidence = answer.evidence.clone()
    evidence[:, EVIDENCE.index("residual")] = (_root_mean_square(moved) / sigma).log1p().float()
    return Answer(answer.samples, evidence, answer.evaluations)


@dataclass(frozen=True, eq=False)
class Verifier:
    """Logistic regression on the evidence, one for first answers and one for second ones.

    Attributes:
        weights: (2, F + 1) float64, for evidence scaled to mean 0 and variance 1; the last one is the offset.
        means: (2, F) float64.
        spreads: (2, F) float64 above 0.
        large: (2,) errors above which an answer counts as bad, in units of the pixels.
        probe: Noise level of the residual, one evaluation each time; none does without.
        facts: Areas under the receiver's curve and more.
    """

    weights: torch.Tensor
    means: torch.Tensor
    spreads: torch.Tensor
    large: tuple[float, float]
    probe: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        width = self.means.shape[-1]
        fits = self.weights.shape == (2, width + 1) and self.means.shape == self.spreads.shape == (2, width)
        if not fits or len(self.large) != 2 or not bool((self.spreads > 0).all()):
            raise BadInput(
                f"verifier: weights, means and spreads of shapes {tuple(self.weights.shape)}, "
                f"{tuple(self.means.shape)} and {tuple(self.spreads.shape)}, expected (2, F + 1) and twice (2, F)"
            )

    @property
    def evaluations(self) -> int:
        """Network evaluations that looking at one answer takes."""
        return 0 if self.probe is None else 1

    def risk(self, answer: Answer) -> torch.Tensor:
        """Probability that each answer is bad, (N,) float64 where it is.

        Raises:
            BadInput: If the evidence is that of another student.
        """
        width = self.means.shape[1]
        if answer.evidence.shape[1] != width:
            raise BadInput(f"verifier: {answer.evidence.shape[1]} values of evidence, expected {width} of its student")
        stage = 0 if answer.evaluations == 1 else 1
        weights, means, spreads = (
            tensor[stage].to(answer.evidence.device) for tensor in (self.weights, self.means, self.spreads)
        )
        return ((answer.evidence.double() - means) / spreads @ weights[:-1] + weights[-1]).sigmoid()

    def save(self, folder: Path) -> None:
        """Write ``verifier.safetensors`` and ``verifier.json``."""
        tensors = {"weights": self.weights, "means": self.means, "spreads": self.spreads}
        facts = {"verifier": {"large": list(self.large), "probe": self.probe}, "facts": dict(self.facts)}
        save_weights(folder, tensors, facts, name="verifier")

    @staticmethod
    def load(folder: Path) -> Verifier:
        """Read what :meth:`save` wrote.

        Raises:
            MissingArtifact: If there is none.
            CorruptArtifact: If it is damaged or something else.
        """
        tensors, facts = load_weights(folder, name="verifier")
        try:
            fields = facts["verifier"]
            first, second = map(float, fields["large"])
            probe = None if fields["probe"] is None else float(fields["probe"])
            weights, means, spreads = (tensors[name] for name in ("weights", "means", "spreads"))
            return Verifier(weights, means, spreads, (first, second), probe, facts["facts"])
        except (KeyError, TypeError, ValueError, BadInput) as error:
            raise CorruptArtifact(
                f"{folder}: not a verifier of this version ({error!r}); train one with `dvc repro train@sampler`"
            ) from error


def train_verifier(
    denoiser: Denoiser,
    student: Student,
    pairs: Pairs,
    *,
    probe: float | None = None,
    worst: float = 0.25,
    held_out: float = 0.3,
    ridge: float = 10.0,
    seed: int = 0,
) -> Verifier:
    """Learn which answers are bad, from requests that the student did not learn from.

    Args:
        denoiser: Network for the residual.
        student: Whose answers.
        pairs: Requests with endpoints, of the part for training.
        probe: Noise level of the residual, in units of the pixels; none does without it and without its evaluation.
        worst: Share of the answers that counts as bad, those with the largest errors.
        held_out: Share of the requests that areas under the curve are measured on.
        ridge: Weight of the squared coefficients against the sum of the losses.
        seed: Chooses the requests held out.

    Returns:
        The verifier; its facts have ``auc_1`` and ``auc_2`` on the requests held out, ``auc_1_train`` and
        ``auc_2_train`` on the others, ``requests``, ``worst``.

    Raises:
        BadInput: If there are too few requests.
        BadParams: If a setting is out of its range.
    """
    for name, value in (("worst", worst), ("held_out", held_out)):
        if not 0 < value < 1:
            raise BadParams(f"verifier: {name} = {value}, expected a share between 0 and 1")
    if not ridge > 0 or (probe is not None and not probe > 0):
        raise BadParams(f"verifier: ridge = {ridge} and probe = {probe}, expected numbers above 0")
    count = len(pairs)
    order = torch.from_numpy(numpy_generator(seed, "verifier").permutation(count))
    tested, learned = order[: round(held_out * count)], order[round(held_out * count) :]
    if min(len(tested), len(learned)) * min(worst, 1 - worst) < 2:
        raise BadInput(f"verifier: {count} requests are too few to learn from and to test on; make a larger bank")
    weights, means, spreads, large = [], [], [], []
    facts: dict[str, Any] = {"requests": count, "worst": worst}
    for stage, (answer, errors) in enumerate(_both_answers(denoiser, student, pairs, probe)):
        evidence = answer.evidence.double().cpu()
        bound = float(errors[learned].quantile(1 - worst))
        bad = (errors > bound).double()
        mean, spread = evidence[learned].mean(dim=0), evidence[learned].std(dim=0)
        spread = torch.where(spread > 1e-9, spread, torch.ones_like(spread))
        scaled = (evidence - mean) / spread
        row = _logistic(scaled[learned], bad[learned], ridge)
        risk = scaled @ row[:-1] + row[-1]
        facts[f"auc_{stage + 1}"] = area_under_curve(risk[tested].numpy(), bad[tested].numpy() > 0)
        facts[f"auc_{stage + 1}_train"] = area_under_curve(risk[learned].numpy(), bad[learned].numpy() > 0)
        weights.append(row)
        means.append(mean)
        spreads.append(spread)
        large.append(bound)
    return Verifier(torch.stack(weights), torch.stack(means), torch.stack(spreads), (large[0], large[1]), probe, facts)


def area_under_curve(values: np.ndarray, bad: np.ndarray) -> float:
    """Chance that a bad one has a higher value than a good one, ties counted half; 0.5 where one kind is missing.

    Args:
        values: (N,) float.
        bad: (N,) bool.
    """
    ours, others = values[bad], np.sort(values[~bad])
    if not len(ours) or not len(others):
        return 0.5
    below, up_to = np.searchsorted(others, ours, side="left"), np.searchsorted(others, ours, side="right")
    return float((below + up_to).mean() / (2 * len(others)))


@dataclass(frozen=True)
class Thresholds:
    """When to go on: with a second evaluation, and with a program.

    Attributes:
        first: Risk of the first answer above which there is a second one.
        second: Risk of the second answer above which the program runs.
    """

    first: float
    second: float


@dataclass(frozen=True, eq=False)
class Cascaded:
    """What came out, sample by sample.

    Attributes:
        samples: (N, C, H, W).
        evaluations: (N,) long, all of them: student, verifier, program with its guidance.
        stages: (N,) long: 1 or 2, evaluations of the student that were enough; 3 where the program ran.
    """

    samples: torch.Tensor
    evaluations: torch.Tensor
    stages: torch.Tensor


class Cascade:
    """One evaluation, verify, two, verify, program.

    Args:
        student: Answers in one or two evaluations.
        verifier: Judges answers.
        book: Programs for the rest.
        thresholds: By price; between prices the nearest counts.
        facts: What :func:`make_cascade` found out.

    Raises:
        BadInput: If there are no thresholds.
    """

    def __init__(
        self,
        student: Student,
        verifier: Verifier,
        book: ProgramBook,
        thresholds: Mapping[float, Thresholds],
        facts: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        if not thresholds:
            raise BadInput("cascade: no thresholds, expected some for at least one price; see make_cascade")
        self.student, self.verifier, self.book = student, verifier, book
        self.thresholds = dict(thresholds)
        self.facts = [dict(row) for row in facts]

    def for_price(self, price: float) -> Thresholds:
        """Thresholds of the nearest price.

        Raises:
            BadInput: If the price is negative or no number.
        """
        if not 0 <= price < math.inf:
            raise BadInput(f"price = {price}: expected 0 or more, what one network evaluation costs")
        return self.thresholds[min(self.thresholds, key=lambda known: (abs(known - price), known))]

    @torch.no_grad()
    def __call__(
        self, denoiser: Denoiser, noise: torch.Tensor, condition: Condition, scales: torch.Tensor, price: float
    ) -> Cascaded:
        """Answer requests.

        Args:
            denoiser: For programs and the verifier's residual.
            noise: (N, C, H, W) normal with variance 1.
            condition: N conditions.
            scales: (N,) guidance scales.
            price: What one network evaluation costs.

        Returns:
            Samples and what they took.
        """
        limits, each = self.for_price(price), self.verifier.evaluations
        answer = answered(self.student, noise, condition, scales)
        samples = answer.samples.clone()
        evaluations = torch.ones(len(noise), dtype=torch.long, device=noise.device)
        stages = torch.ones_like(evaluations)
        evaluations += each if _looks(limits.first) else 0
        rows = self._flagged(denoiser, answer, noise, condition, limits.first).nonzero().flatten()
        if len(rows):
            before = Answer(answer.samples[rows], answer.evidence[rows], 1)
            own = condition.rows(rows)
            answer = answered(self.student, noise[rows], own, scales[rows], before)
            samples[rows], stages[rows] = answer.samples, 2
            evaluations[rows] += 1 + (each if _looks(limits.second) else 0)
            rows = rows[self._flagged(denoiser, answer, noise[rows], own, limits.second)]
        if len(rows):
            made, taken = _by_program(denoiser, self.book, noise[rows], condition.rows(rows), scales[rows], price)
            samples[rows], stages[rows] = made, 3
            evaluations[rows] += taken
        return Cascaded(samples, evaluations, stages)

    def save(self, folder: Path) -> None:
        """Write ``student/``, ``verifier/``, ``book.json`` and ``cascade.json``."""
        self.student.save(folder / "student")
        self.verifier.save(folder / "verifier")
        self.book.save(folder)
        thresholds = [[price, limits.first, limits.second] for price, limits in sorted(self.thresholds.items())]
        atomic_write_json(
            folder / CASCADE_FILE, {"format": CASCADE_FORMAT, "thresholds": thresholds, "facts": self.facts}
        )

    @staticmethod
    def load(folder: Path) -> Cascade:
        """Read what :meth:`save` wrote.

        Raises:
            MissingArtifact: If a part of it is not there.
            CorruptArtifact: If one is damaged.
        """
        path = folder / CASCADE_FILE
        if not path.is_file():
            raise MissingArtifact(f"{path}: no such file; make it with `dvc repro train@sampler`, or `dvc pull`")
        document = read_json(path)
        parts = Student.load(folder / "student"), Verifier.load(folder / "verifier"), ProgramBook.load(folder)
        try:
            if document["format"] != CASCADE_FORMAT:
                raise ValueError(f"format {document['format']}, expected {CASCADE_FORMAT}")  # noqa: TRY301
            thresholds = {
                float(price): Thresholds(float(first), float(second)) for price, first, second in document["thresholds"]
            }
            return Cascade(*parts, thresholds, document["facts"])
        except (KeyError, TypeError, ValueError, BadInput) as error:
            raise CorruptArtifact(
                f"{path}: not a cascade of this version ({error!r}); make it again with `dvc repro train@sampler`"
            ) from error

    def _flagged(
        self, denoiser: Denoiser, answer: Answer, noise: torch.Tensor, condition: Condition | None, limit: float
    ) -> torch.Tensor:
        """Which answers are not good enough, (N,) bool."""
        if not _looks(limit):
            return torch.full((len(noise),), limit == ALWAYS, device=noise.device)
        if self.verifier.probe is not None:
            answer = probed(denoiser, answer, noise, condition, self.verifier.probe)
        return self.verifier.risk(answer) > limit


def make_cascade(
    denoiser: Denoiser,
    student: Student,
    verifier: Verifier,
    book: ProgramBook,
    pairs: Pairs,
    prices: Sequence[float],
    *,
    seed: int = 0,
) -> Cascade:
    """Choose thresholds for each price on half of the validation requests, and say on the others what they are worth.

    The cost of an answer is its saturating error plus the price of its evaluations. A cascade is held against always
    taking one evaluation, always two, and always the program of this price. The first two are among the thresholds to
    choose from; the program alone is not, because by way of the student it costs two evaluations more: where that is
    the best single way, do not cascade.

    Args:
        denoiser: For programs and the verifier's residual.
        student: Answers in one or two evaluations.
        verifier: Judges answers.
        book: Programs, and the scale of the saturating error.
        pairs: Validation requests with endpoints.
        prices: Prices of one evaluation.
        seed: Chooses the halves.

    Returns:
        The cascade. Its facts have a row for each price: costs on the other half (``cascade``, ``one``, ``two``,
        ``program``), ``best_single`` of the three on the first half, ``gain`` (its cost less the cascade's) with its
        95 % interval ``gain_low`` to ``gain_high``, whether the cascade ``pays`` (the interval is above 0), its mean
        ``evaluations``, shares of requests that ended at each stage, ``first`` and ``second`` threshold.

    Raises:
        BadInput: If there are fewer than four requests, no prices, or one below 0.
    """
    if len(pairs) < 4 or not prices:
        raise BadInput(f"cascade: {len(pairs)} requests and {len(prices)} prices, expected at least 4 and 1")
    noise, condition, scales = pairs.noise(), pairs.condition(), pairs.scales
    (first, first_errors), (second, second_errors) = _both_answers(denoiser, student, pairs, verifier.probe)
    losses = [saturating(errors.square(), book.tau).numpy() for errors in (first_errors, second_errors)]
    risks = [verifier.risk(answer).cpu().numpy() for answer in (first, second)]
    order = numpy_generator(seed, "cascade").permutation(len(pairs))
    halves = order[: len(order) // 2], order[len(order) // 2 :]
    thresholds, facts, known = {}, [], dict[tuple[Any, ...], tuple[np.ndarray, np.ndarray]]()
    for price in prices:
        names = tuple(id(book.for_price(price, float(scale))) for scale in scales.unique().tolist())
        if names not in known:
            made, counts = _by_program(denoiser, book, noise, condition, scales, price)
            squared = (made - pairs.endpoints).square().flatten(1).mean(dim=1).cpu()
            known[names] = saturating(squared, book.tau).nan_to_num(1.0).numpy(), counts.cpu().numpy()
        made_loss, taken = known[names]
        table = _Table(losses[0], losses[1], made_loss, taken, risks[0], risks[1], verifier.evaluations, price)
        limits = table.choose(halves[0])
        thresholds[float(price)] = limits
        facts.append(table.facts(limits, *halves))
    return Cascade(student, verifier, book, thresholds, facts)


@dataclass(frozen=True, eq=False)
class _Table:
    """Requests with what each way to answer them would cost; (N,) arrays."""

    first: np.ndarray
    second: np.ndarray
    program: np.ndarray
    taken: np.ndarray
    first_risk: np.ndarray
    second_risk: np.ndarray
    verifying: int
    price: float

    def costs(self, limits: Thresholds, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Cost, evaluations and last stage of some requests."""
        looks = [self.verifying if _looks(limit) else 0 for limit in (limits.first, limits.second)]
        onwards = self.first_risk[rows] > limits.first
        further = onwards & (self.second_risk[rows] > limits.second)
        evaluations = 1.0 + looks[0] + onwards * (1 + looks[1]) + further * self.taken[rows]
        loss = np.where(further, self.program[rows], np.where(onwards, self.second[rows], self.first[rows]))
        return loss + self.price * evaluations, evaluations, 1 + onwards.astype(int) + further

    def choose(self, rows: np.ndarray) -> Thresholds:
        """The thresholds that cost least; simple ones where others are no better."""
        tried = [(NEVER, NEVER), (ALWAYS, NEVER), (ALWAYS, ALWAYS)]
        places = np.linspace(0, 1, _QUANTILES)[1:-1]
        firsts = [ALWAYS, *np.quantile(self.first_risk[rows], places).tolist()]
        seconds = [NEVER, ALWAYS, *np.quantile(self.second_risk[rows], places).tolist()]
        tried += [(one, other) for one in firsts for other in seconds]
        return min((Thresholds(*pair) for pair in tried), key=lambda limits: float(self.costs(limits, rows)[0].mean()))

    def facts(self, limits: Thresholds, chosen_on: np.ndarray, rows: np.ndarray) -> dict[str, Any]:
        """What the cascade costs on some requests, beside always doing the same."""
        singles = {
            "one": self.first + self.price,
            "two": self.second + 2 * self.price,
            "program": self.program + self.price * self.taken,
        }
        best = min(singles, key=lambda name: float(singles[name][chosen_on].mean()))
        costs, evaluations, stages = self.costs(limits, rows)
        gains = singles[best][rows] - costs
        mean, half = float(gains.mean()), 1.96 * float(gains.std(ddof=1)) / math.sqrt(len(rows))
        return {
            "price": float(self.price),
            "first": limits.first,
            "second": limits.second,
            "cascade": float(costs.mean()),
            **{name: float(values[rows].mean()) for name, values in singles.items()},
            "best_single": best,
            "gain": mean,
            "gain_low": mean - half,
            "gain_high": mean + half,
            "pays": mean - half > 0,
            "evaluations": float(evaluations.mean()),
            "shares": [float((stages == stage).mean()) for stage in (1, 2, 3)],
            "requests": len(rows),
        }


def _looks(limit: float) -> bool:
    """Whether the risk has any say."""
    return limit not in {NEVER, ALWAYS}


def _both_answers(
    denoiser: Denoiser, student: Student, pairs: Pairs, probe: float | None
) -> list[tuple[Answer, torch.Tensor]]:
    """First and second answers to all requests with evidence, and their root mean square errors, (N,) float64."""
    noise, condition, scales = pairs.noise(), pairs.condition(), pairs.scales
    lots: tuple[list[Answer], list[Answer]] = ([], [])
    for rows in torch.arange(len(noise), device=noise.device).split(_BATCH):
        own = None if condition is None else condition.rows(rows)
        answer = None
        for lot in lots:
            answer = answered(student, noise[rows], own, scales[rows].to(noise), answer)
            lot.append(answer if probe is None else probed(denoiser, answer, noise[rows], own, probe))
    both = []
    for lot in lots:
        whole = Answer(torch.cat([a.samples for a in lot]), torch.cat([a.evidence for a in lot]), lot[0].evaluations)
        both.append((whole, _root_mean_square(whole.samples - pairs.endpoints).double().cpu()))
    return both


def _by_program(
    denoiser: Denoiser,
    book: ProgramBook,
    noise: torch.Tensor,
    condition: Condition | None,
    scales: torch.Tensor,
    price: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Samples by the programs of a price, and evaluations that they took."""
    samples = torch.empty_like(noise)
    evaluations = torch.zeros(len(noise), dtype=torch.long, device=noise.device)
    for scale in scales.unique().tolist():
        entry, of_scale = book.for_price(price, scale), (scales == scale).nonzero().flatten()
        for rows in of_scale.split(_BATCH):
            own = None if condition is None else condition.rows(rows)
            sampled = run_program(denoiser, noise[rows], own, entry.program, entry.guidance(scales[rows]))
            samples[rows], evaluations[rows] = sampled.samples.to(samples), sampled.evaluations
    return samples, evaluations


def _root_mean_square(values: torch.Tensor) -> torch.Tensor:
    return values.square().flatten(1).mean(dim=1).sqrt()


def _logistic(scaled: torch.Tensor, bad: torch.Tensor, ridge: float) -> torch.Tensor:
    """Coefficients and offset of a logistic regression with a penalty on the former, (F + 1,), by Newton's method."""
    design = torch.cat((scaled, torch.ones(len(scaled), 1, dtype=scaled.dtype)), dim=1)
    penalty = torch.full((design.shape[1],), ridge, dtype=scaled.dtype)
    penalty[-1] = 1e-9
    row = torch.zeros(design.shape[1], dtype=scaled.dtype)
    for _ in range(25):
        chance = (design @ row).sigmoid()
        gradient = design.T @ (chance - bad) + penalty * row
        curvature = (design.T * (chance * (1 - chance)).clamp(min=1e-6)) @ design + penalty.diag()
        step = torch.linalg.solve(curvature, gradient)
        row = row - step
        if float(step.abs().max()) < 1e-8:
            break
    return row
