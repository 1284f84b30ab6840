"""Puts the trained sampler before the judges: which arms, on what, with which classifiers; and the robustness cases."""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from vernissage.core.errors import BadParams
from vernissage.core.files import atomic_write_json, fresh_folder
from vernissage.core.parallel import in_parts
from vernissage.core.progress import Progress
from vernissage.core.seeds import derive_seed
from vernissage.core.tables import write_csv
from vernissage.sampler.domain.sampling import Sampled
from vernissage.sampler.domain.unet import levels_to_samples
from vernissage.sampler.judge.arms import (
    HEUN_CALLS,
    CountedStudent,
    Requests,
    SamplerArm,
    ancestral_arm,
    family_arm,
    heun_arm,
    price_arm,
    stock_arms,
    student_arm,
)
from vernissage.sampler.judge.benchmark import BenchmarkSettings, RealPictures, count_results, measure
from vernissage.sampler.judge.plots import save_sheets
from vernissage.sampler.judge.wall_clock import wall_clock
from vernissage.sampler.learn.book import FAMILIES
from vernissage.sampler.learn.classifiers import ClassifierSpec, RandomFeatures, train_classifier
from vernissage.sampler.learn.features import FEATURES
from vernissage.sampler.learn.policies import Shuffled, roll

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vernissage.core.params import Params
    from vernissage.sampler.domain.denoiser import Denoiser
    from vernissage.sampler.judge.mixture import MixtureReport
    from vernissage.sampler.judge.runs import Draw
    from vernissage.sampler.learn.book import Entry, ProgramBook
    from vernissage.sampler.learn.cascade import Cascade
    from vernissage.sampler.learn.classifiers import Classifier, Embedding
    from vernissage.sampler.learn.consistency import Student
    from vernissage.sampler.learn.controller import SteeringController
    from vernissage.sampler.learn.policies import Policy
    from vernissage.sampler.prepare.models import Network
    from vernissage.sampler.prepare.pictures import ClassPictures
    from vernissage.sampler.prepare.teacher_bank import Bank

log = logging.getLogger(__name__)

# Where equal quality is asked for.
_BAR_CALLS = (5, 6, 7, 8)
_DIAL_PRICES = 4
_MIXTURE_PRICES = 3
_WALL_BATCHES = (1, 16, 64, 256)
# Stock settings need so many calls before they are where the tuned ones are.
_STOCK_CALLS = (8, 12, 20)
_LARGEST_SEEN = 64


class Trained(Protocol):
    """A sampler as it is shipped."""

    @property
    def denoiser(self) -> Denoiser:
        """The network."""
        ...

    @property
    def book(self) -> ProgramBook:
        """Its programs."""
        ...

    @property
    def controller(self) -> SteeringController | None:
        """Who steers."""
        ...

    @property
    def student(self) -> Student | None:
        """Answers in one or two evaluations."""
        ...

    @property
    def cascade(self) -> Cascade | None:
        """One evaluation, two, or a program."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        ...


@dataclass(frozen=True, eq=False)
class _Judges:
    """Who looks at samples.

    Attributes:
        first: Its features carry the Frechet distance.
        second: Says which class a picture shows; none where there are no classes.
        random: A second space of features.
        real: What samples are compared with.
    """

    first: Embedding
    second: Classifier | None
    random: Embedding
    real: RealPictures


def run_benchmark(
    model: Trained,
    network: Network,
    bank: Bank,
    pictures: ClassPictures | None,
    out: Path,
    params: Params,
) -> None:
    """Measure every arm on the test part, examine the experts, take the time, and write it all down.

    Args:
        model: The trained sampler.
        network: The network that it steers.
        bank: Test part.
        pictures: What the embedded network was taught, with its test split; none for a pipeline.
        out: Folder for ``items.parquet``, ``table.json``, ``mixture.json``, ``experts.json``, ``wall_clock.csv`` and
            ``pictures``.
        params: All parameters.

    Raises:
        BadParams: If the test part cannot be cut into as many parts as are asked for.
    """
    section, device = params.benchmark.sampler, model.device
    if len(bank) < 2 * section.noise_seeds:
        raise BadParams(
            f"benchmark.sampler.noise_seeds = {section.noise_seeds} with {len(bank)} test requests: expected at least "
            "two requests for each; raise teacher_bank.test"
        )
    judges = _judges(network, bank, pictures, section.classifier_epochs, params.seed)
    bank = bank.to(device)
    each = len(bank) // section.noise_seeds
    banks = {seed: bank.rows(torch.arange(each) * section.noise_seeds + seed) for seed in range(section.noise_seeds)}
    low, high = params.train.sampler.prices
    prices = np.geomspace(low, high, _DIAL_PRICES).round(6).tolist()
    arms = _arms(model, prices, section.ancestral, params)
    middle = any(budget in _BAR_CALLS for budget in model.book.budgets)
    budgets = _BAR_CALLS if middle else model.book.budgets[-2:]
    settings = BenchmarkSettings(
        tau=model.book.tau,
        seed=params.seed,
        resamples=section.bootstrap,
        bar_budgets=budgets,
        reference_budget=min(budgets, key=lambda budget: abs(budget - 6)),
    )
    with Progress("benchmark", total=count_results(arms, banks), unit="samples") as progress:
        measured = measure(
            arms,
            network.denoiser,
            banks,
            classifier=judges.first,
            second=judges.second,
            random_features=judges.random,
            real=judges.real,
            settings=settings,
            progress=progress,
        )
    with fresh_folder(out) as folder:
        measured.save(folder, ours=model.book.shipped)
        if model.controller is not None:
            report = _mixture(model, network, bank, low, high, params)
            atomic_write_json(folder / "mixture.json", report.facts)
            report.statistics.save(folder)
        shown = Requests.of(bank)
        write_csv(folder / "wall_clock.csv", _wall_clock(model, network, shown, arms))
        save_sheets(
            folder / "pictures",
            _shown_arms(model, arms),
            network.denoiser,
            shown,
            class_names=network.names,
            pictures=network.pictures,
        )


def run_robustness(
    model: Trained,
    network: Network,
    bank: Bank,
    pictures: ClassPictures | None,
    params: Params,
    draw: Draw,
    scheduler_from: Callable[[Entry], Any],
) -> list[Any]:
    """Run the 20 cases.

    Args:
        model: The trained sampler.
        network: The network that it steers.
        bank: Test part.
        pictures: What the embedded network was taught; none for a pipeline.
        params: All parameters.
        draw: What a user calls.
        scheduler_from: Makes a scheduler of `diffusers` of a program.

    Returns:
        One result per case.
    """
    from vernissage.sampler.judge.robustness import run_cases
    from vernissage.sampler.judge.trials import RobustnessSettings, Subject

    section = params.robustness.sampler
    judges = _judges(network, bank, pictures, 0, params.seed)

    scratch = Path(tempfile.mkdtemp(prefix="robustness-"))
    try:
        subject = Subject(
            network.denoiser,
            model.book,
            bank.to(model.device),
            scratch,
            controller=model.controller,
            student=model.student,
            conditions=network.conditions,
            classes=network.classes,
            real=judges.real.all,
            features=judges.first,
            draw=draw,
            scheduler_from=scheduler_from,
        )
        settings = RobustnessSettings(requests=section.requests, seed=params.seed)
        with Progress("robustness", total=20, unit="cases") as progress:
            return run_cases(subject, settings, progress)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@dataclass(eq=False)
class _Decoded:
    """Random features of the pictures that samples become, at a size that these know.

    Attributes:
        shape: (C, H, W) of one sample.
        pictures: Makes pictures of samples.
        random: Looks at pictures.
    """

    shape: tuple[int, int, int]
    pictures: Callable[[torch.Tensor], torch.Tensor]
    random: RandomFeatures

    def features(self, pictures: torch.Tensor) -> torch.Tensor:
        """(N, F) features of (N, C, H, W) samples."""
        shown = self.pictures(pictures)
        return self.random.features(torch.nn.functional.interpolate(shown, self.random.shape[1:], mode="area"))


def _judges(network: Network, bank: Bank, pictures: ClassPictures | None, epochs: int, seed: int) -> _Judges:
    """Two classifiers taught on the train split, or random features where there are no pictures with classes."""
    if pictures is None:
        channels, side = network.pictures(bank.endpoints[:1].to(device_of(network))).shape[1:3]
        shape = (int(channels), *(2 * (min(int(side), _LARGEST_SEEN),)))
        sample = (int(bank.endpoints.shape[1]), int(bank.endpoints.shape[2]), int(bank.endpoints.shape[3]))
        first, second = (
            _Decoded(sample, network.pictures, RandomFeatures(shape, seed=_small(seed, "features", number)))
            for number in ("first", "second")
        )
        half = len(bank) // 2
        return _Judges(first, None, second, RealPictures(bank.endpoints[:half], bank.endpoints[half:]))
    (train, labels), (test, _) = (pictures.of_split(split) for split in ("train", "test"))
    real = RealPictures(levels_to_samples(train), levels_to_samples(test))
    size = (int(train.shape[1]), int(train.shape[2]), int(train.shape[3]))
    random = RandomFeatures(size, seed=_small(seed, "features"))
    if not epochs:
        return _Judges(random, None, random, real)
    classes = len(pictures.class_names)
    specs = [
        ClassifierSpec(size, classes, "plain", epochs=epochs),
        ClassifierSpec(size, classes, "residual", epochs=epochs),
    ]
    with Progress("classifiers", total=2 * epochs, unit="epochs") as progress:

        def teach(rows: slice) -> Classifier:
            spec = specs[rows.start]
            own = _small(seed, "classifier", spec.architecture)
            return train_classifier(
                real.train, labels, spec, own, after_epoch=lambda loss: progress.advance(1, loss=loss)
            )

        plain, residual = in_parts(teach, 2, 1)
    return _Judges(plain, residual, random, real)


def _small(seed: int, *purpose: str) -> int:
    return derive_seed(seed, *purpose) % 2**31


def _arms(model: Trained, prices: list[float], ancestral: int, params: Params) -> list[SamplerArm]:
    """All arms, the strongest rivals among them."""
    book, batch = model.book, params.sampler.batch
    families = [family for family in FAMILIES if book.family(family)]
    network = model.denoiser
    arms = [
        *stock_arms(network, _STOCK_CALLS, batch=batch),
        *(family_arm(book, family, batch=batch) for family in families),
        heun_arm(network, (HEUN_CALLS,), batch=batch),
        price_arm(book, prices, batch=batch),
    ]
    if model.controller is not None:
        shuffled = Shuffled(model.controller, derive_seed(params.seed, "shuffled") % 2**31)
        arms += [
            _policy_arm("router", model, model.controller, prices, "router"),
            _policy_arm("router, state shuffled", model, shuffled, prices, "router, state shuffled"),
        ]
    if model.student is not None:
        arms.append(student_arm(model.student, batch=batch))
    if model.cascade is not None:
        arms.append(_cascade_arm(model, prices))
    if ancestral:
        arms.append(ancestral_arm(network, requests=ancestral, batch=batch))
    return arms


def _shown_arms(model: Trained, arms: Sequence[SamplerArm]) -> list[tuple[SamplerArm, float]]:
    """Rows of the sample sheets: few evaluations first, ours beside the bar with as many calls."""
    named = {arm.name: arm for arm in arms}
    shown = [(named["consistency"], float(budget)) for budget in (1, 2) if "consistency" in named]
    for calls in map(float, model.book.budgets[:3]):
        shown += [(named["grid"], calls), (named[model.book.shipped], calls)]
    return shown


def _policy_arm(name: str, model: Trained, policy: Policy, prices: list[float], role: Any) -> SamplerArm:
    student = None if model.student is None else CountedStudent(model.student)

    def run(denoiser: Denoiser, requests: Requests, budget: float) -> Sampled:
        rolled = roll(denoiser, model.book, requests, policy, budget, student=student)  # type: ignore[arg-type]
        device = requests.endpoints.device
        return Sampled(
            rolled.samples.to(device),
            torch.from_numpy(rolled.nfe).to(device),
            torch.from_numpy(rolled.failed).to(device),
        )

    networks = () if student is None else (student,)
    return SamplerArm(name, tuple(sorted(prices)), run, role, dial="price", networks=networks)


def _cascade_arm(model: Trained, prices: list[float]) -> SamplerArm:
    from vernissage.sampler.learn.cascade import Cascade

    cascade = model.cascade
    assert cascade is not None  # noqa: S101 - the only caller has looked
    student = CountedStudent(cascade.student)
    counted = Cascade(student, cascade.verifier, model.book, cascade.thresholds)  # type: ignore[arg-type]

    def run(denoiser: Denoiser, requests: Requests, budget: float) -> Sampled:
        noise, condition = requests.noise(), requests.condition()
        if condition is None:
            raise BadParams("cascade: this network takes no classes")
        made = counted(denoiser, noise, condition, requests.scales.to(noise), budget)
        finite = made.samples.flatten(1).isfinite().all(dim=1)
        return Sampled(made.samples, made.evaluations, torch.where(finite, -1, made.evaluations - 1))

    return SamplerArm("cascade", tuple(sorted(prices)), run, "other", dial="price", networks=(student,))


def _mixture(model: Trained, network: Network, bank: Bank, low: float, high: float, params: Params) -> MixtureReport:
    from vernissage.sampler.judge.mixture import MixtureSettings, examine

    assert model.controller is not None  # noqa: S101 - the only caller has looked
    settings = MixtureSettings(
        requests=params.benchmark.sampler.mixture_requests,
        resamples=params.benchmark.sampler.bootstrap,
        seed=params.seed,
    )
    prices = np.geomspace(low, high, _MIXTURE_PRICES).round(6).tolist()
    began = time.monotonic()
    report = examine(
        network.denoiser, model.book, bank, model.controller, prices, student=model.student, settings=settings
    )
    log.info("the experts were examined in %.0f s", time.monotonic() - began)
    return report


def _wall_clock(
    model: Trained, network: Network, requests: Requests, arms: Sequence[SamplerArm]
) -> list[dict[str, Any]]:
    """Milliseconds of the shipped programs and of the controller, with the controller's share of a network call."""
    named = {arm.name: arm for arm in arms}
    middle = model.book.budgets[len(model.book.budgets) // 2]
    timed: list[tuple[SamplerArm, float]] = [(named[model.book.shipped], float(middle))]
    controller: Callable[[int], object] | None = None
    if model.controller is not None:
        router = named["router"]
        timed.append((router, router.budgets[len(router.budgets) // 2]))
        seen = np.zeros((max(_WALL_BATCHES), len(FEATURES)), dtype=np.float32)
        steering = model.controller
        controller = lambda batch: steering.decide(seen[:batch])  # noqa: E731 - one line, used once
    timings = wall_clock(
        timed, network.denoiser, requests, batches=_WALL_BATCHES, repeats=5, warm_up=1, controller=controller
    )
    return [asdict(timing) for timing in timings]


def device_of(network: Network) -> torch.device:
    """Where a network computes."""
    parameters = getattr(network.denoiser, "parameters", None)
    if callable(parameters):
        return next((tensor.device for tensor in parameters()), torch.device("cpu"))
    return torch.device(getattr(network.denoiser, "device", "cpu"))
