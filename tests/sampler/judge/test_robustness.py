"""The robustness suite finds what it is there to find: samplers with a known defect fail their case."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from tests.sampler.mixture import Mixture
from vernissage.core.errors import BadInput, BadParams
from vernissage.sampler.domain.denoiser import ClassLabels
from vernissage.sampler.domain.programs import Program, dpmpp
from vernissage.sampler.domain.sampling import per_seed_noise
from vernissage.sampler.domain.schedules import log_snr
from vernissage.sampler.domain.unet import EdmDenoiser, UNetSpec
from vernissage.sampler.judge import runs, sameness_cases
from vernissage.sampler.judge.probes import Averaged, Both, BrokenOnce, Probe, with_noise, with_rounded_weights
from vernissage.sampler.judge.robustness import (
    CASES,
    CaseResult,
    RobustnessSettings,
    Subject,
    retained_quality,
    run_cases,
)
from vernissage.sampler.judge.runs import Run, Tasks, scripted, static_steer
from vernissage.sampler.judge.trials import Bench, Case, Outcome, gaps, quality, set_up
from vernissage.sampler.learn.book import Entry, ProgramBook
from vernissage.sampler.learn.controller import SteeringController
from vernissage.sampler.learn.experts import ADAPTIVE_NOISE, SPEED, STATIC, STOP
from vernissage.sampler.learn.grid import Course
from vernissage.sampler.learn.policies import Decision
from vernissage.sampler.learn.slots import Outcome as Decided
from vernissage.sampler.learn.slots import Slots
from vernissage.sampler.prepare.teacher_bank import RequestMix, make_bank
from vernissage.sampler.use.steered_scheduler import SteeredScheduler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from vernissage.sampler.prepare.teacher_bank import Bank

BY_NUMBER = {case.number: case for case in CASES}
COMPARED = (1, 2, 3, 4, 7, 8, 18)
SETTINGS = RobustnessSettings(requests=32, prices=(0.005, 0.02), resamples=200)


class Strict(Mixture):
    """Knows its classes, as the embedded network does."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = SimpleNamespace(classes=self.classes)

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor, condition: Any) -> torch.Tensor:
        if isinstance(condition, ClassLabels):
            condition.check(self.classes)
        return super().__call__(x, sigma, condition)


def small_book(denoiser: Any, bank: Bank, calls: Iterable[int] = (2, 4, 6, 9)) -> ProgramBook:
    entries = []
    for scale in (1.0, 2.0):
        rows = (bank.scales == scale).nonzero().flatten()
        for count in calls:
            program = dpmpp(log_snr(count, 0.05, 10.0))
            shares = (1.0,) * (count - 1) + (0.0,)
            score = Course(denoiser, bank.rows(rows), 0.1, shares=shares).scores([program])[0]
            entries.append(Entry(program, scale, shares, "less guidance", score))
    return ProgramBook(tuple(entries), 0.1)


def scheduler_of(entry: Entry) -> Any:
    return SteeredScheduler(programs=[entry.program.to_dict()])


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    denoiser = Strict()
    mix = RequestMix((2.0, 1.0, 1.0, 1.0), scales=(1.0, 2.0))
    bank = make_bank(denoiser, "test", 48, mix, teacher=dpmpp(log_snr(48, 0.005, 80.0), order=3), check_requests=1)
    book = small_book(denoiser, bank)
    folder = tmp_path_factory.mktemp("robustness")
    return Subject(denoiser, book, bank, folder, classes=4, scheduler_from=scheduler_of)


def judge(subject: Subject, *numbers: int) -> dict[int, CaseResult]:
    cases = [BY_NUMBER[number] for number in numbers] or CASES
    results = run_cases(subject, SETTINGS, cases=cases)
    assert [result.number for result in results] == [case.number for case in cases]
    return {result.number: result for result in results}


def failed(subject: Subject, *numbers: int) -> dict[int, str]:
    return {number: result.note for number, result in judge(subject, *numbers).items() if not result.passed}


def test_there_are_twenty_cases_and_each_states_its_criterion() -> None:
    assert [case.number for case in CASES] == list(range(1, 21))
    assert len({case.name for case in CASES}) == 20
    for case in CASES:
        assert case.criterion.endswith("."), case.name
        assert case.criterion[0].isupper(), case.name


def test_static_programs_in_slots_pass_every_case(mixture: Subject) -> None:
    results = judge(mixture)
    assert {number: result.note for number, result in results.items() if not result.passed} == {}
    # In slots they are what they are as programs.
    assert [results[number].value for number in COMPARED] == pytest.approx([0] * len(COMPARED), abs=1e-4)
    shares = {number: result.retained for number, result in results.items() if result.retained is not None}
    assert set(shares) == {*COMPARED, 5, 6, 9, 16}
    assert retained_quality(list(results.values())) == pytest.approx(sum(shares.values()) / len(shares))
    assert shares[9] == pytest.approx(1, abs=0.05)
    assert shares[16] == pytest.approx(1, abs=1e-3)


def test_two_runs_agree_and_no_case_depends_on_the_others(mixture: Subject) -> None:
    together = judge(mixture, 2, 11, 18)
    assert judge(mixture, 18, 11, 2) == dict(reversed(together.items()))


def test_a_case_that_breaks_has_failed_and_the_others_go_on(mixture: Subject) -> None:
    def broken(_: Bench) -> Outcome:
        raise IndexError("out of\nrange")

    counted = SimpleNamespace(done=0)
    progress: Any = SimpleNamespace(advance=lambda: setattr(counted, "done", counted.done + 1))
    cases = [Case(0, "broken", "It works.", broken), BY_NUMBER[17]]
    results = run_cases(mixture, SETTINGS, progress, cases)
    assert results[0] == CaseResult(0, "broken", "It works.", False, None, None, "IndexError: out of range")
    assert results[1].passed
    assert counted.done == 2


def test_a_sampler_that_cannot_do_the_normal_case_fails_every_case(mixture: Subject) -> None:
    def nothing(*_: Any) -> torch.Tensor:
        raise RuntimeError("no network")

    broken: Any = Altered(mixture.denoiser, nothing)
    results = run_cases(replace(mixture, denoiser=broken), SETTINGS)
    assert not any(result.passed for result in results)
    assert {result.note for result in results} == {"RuntimeError: no network"}
    assert retained_quality(results) is None


def test_what_cannot_be_judged_is_refused(mixture: Subject) -> None:
    with pytest.raises(BadInput, match="a bank of 9 requests"):
        run_cases(replace(mixture, bank=mixture.bank.rows(torch.arange(9))), SETTINGS)
    with pytest.raises(BadParams, match="2 requests"):
        RobustnessSettings(requests=2)
    with pytest.raises(BadParams, match="margin 0"):
        RobustnessSettings(margin=0)
    with pytest.raises(BadParams, match="prices"):
        RobustnessSettings(prices=(2.0,))


# --- samplers with a defect -------------------------------------------------------------------------------------------


class Altered(Strict):
    """Another answer in the place of a network's."""

    def __init__(self, denoiser: Any, answer: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self._ask, self._answer = denoiser, answer

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor, condition: Any) -> torch.Tensor:
        return self._answer(self._ask(x, sigma, condition), sigma)


class Always:
    """A controller that always says the same."""

    def __init__(self, expert: int, noise: int = 0, after: int = 0) -> None:
        self.action = np.array([3, expert, 0, noise])

    def decide(self, observations: np.ndarray) -> Decision:
        return Decision(np.tile(self.action, (len(observations), 1)), None, np.ones(len(observations)))


def looks_at_the_batch(made: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    return made + 1e-3 * len(made)


def mixes_the_batch(made: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    return made + 0 * made.mean(dim=0)


def throws_dice(made: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    return made + 1e-4 * torch.rand(len(made), 1, 1, 1)


def hates_double(made: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    return made + 0.01 if made.dtype == torch.float64 else made


def remembers() -> Callable[..., torch.Tensor]:
    last = [torch.zeros(())]

    def answer(made: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        before, last[0] = last[0], made.mean()
        return made + 1e-5 * before

    return answer


@pytest.mark.parametrize(
    ("answer", "failing"),
    [
        (looks_at_the_batch, 12),
        (looks_at_the_batch, 19),
        (throws_dice, 13),
        (hates_double, 9),
        (remembers(), 14),
    ],
)
def test_a_network_with_a_defect_fails_the_case_for_it(
    mixture: Subject, answer: Callable[..., torch.Tensor], failing: int
) -> None:
    altered: Any = Altered(mixture.denoiser, answer)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        result = judge(replace(mixture, denoiser=altered), failing)[failing]
    assert not result.passed, result
    assert "Error" not in result.note


def test_a_controller_that_stops_at_once_is_worse_than_static_and_said_so(mixture: Subject) -> None:
    lazy: Any = Always(STOP)
    results = judge(replace(mixture, controller=lazy), *COMPARED)
    assert not any(result.passed for result in results.values())
    assert all(result.value is not None and result.value > SETTINGS.margin for result in results.values())


def test_few_requests_are_enough_to_try_everything(mixture: Subject) -> None:
    few = replace(mixture, bank=mixture.bank.rows(torch.arange(10)))
    assert failed(few, *COMPARED, 14) == {}


def test_a_controller_that_is_as_good_passes(mixture: Subject) -> None:
    assert failed(replace(mixture, controller=SteeringController()), *COMPARED, 12, 16) == {}


def test_a_network_without_a_check_of_classes_fails_the_case_for_it(mixture: Subject) -> None:
    careless: Any = Mixture()
    assert "not refused" in failed(replace(mixture, denoiser=careless), 6)[6]


class Overcharging(Slots):
    def act(self, actions: Any, gates: Any = None) -> Decided:
        outcome = super().act(actions, gates)
        return outcome._replace(evaluations=outcome.evaluations + 1)


class Spendthrift(Slots):
    def fill(self, *told: Any, budgets: Any = None, entries: Any = None) -> None:
        super().fill(*told, budgets=None, entries=entries)


class Rising(Slots):
    def act(self, actions: Any, gates: Any = None) -> Decided:
        outcome = super().act(actions, gates)
        return outcome._replace(sigmas=np.where(outcome.done, 0, 1.0))


class Endless(Slots):
    def act(self, actions: Any, gates: Any = None) -> Decided:
        outcome = super().act(actions, gates)
        return outcome._replace(done=np.zeros_like(outcome.done))


class Forgiving(Slots):
    @property
    def refused(self) -> int:
        return 0

    @refused.setter
    def refused(self, _: int) -> None:
        pass


class Shapeless(Slots):
    def _check_slots(self, slots: np.ndarray, noise: torch.Tensor) -> None:
        pass


class Contagious(Slots):
    ill = False

    def act(self, actions: Any, gates: Any = None) -> Decided:
        outcome = super().act(actions, gates)
        self.ill |= bool((outcome.failed >= 0).any())
        return outcome._replace(samples=outcome.samples + 0.1 * self.ill)


class Unwashed(Slots):
    fills = 0

    def fill(self, rows: Any, noise: torch.Tensor, *told: Any, **options: Any) -> None:
        super().fill(rows, noise + 0.1 * self.fills, *told, **options)
        self.fills += 1


@pytest.mark.parametrize(
    ("slots", "failing"),
    [
        (Overcharging, 5),
        (Overcharging, 11),
        (Spendthrift, 11),
        (Spendthrift, 16),
        (Rising, 15),
        (Forgiving, 16),
        (Shapeless, 17),
        (Contagious, 10),
        (Unwashed, 14),
    ],
)
def test_slots_with_a_defect_fail_the_case_for_it(
    mixture: Subject, slots: type[Slots], failing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (runs, sameness_cases):
        monkeypatch.setattr(module, "Slots", slots)
    monkeypatch.setattr("vernissage.sampler.judge.contract_cases.Slots", slots)
    note = failed(mixture, failing)[failing]
    assert "TypeError" not in note
    assert "AttributeError" not in note


def test_a_request_that_never_ends_is_found(mixture: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "Slots", Endless)
    assert "is not done after" in failed(mixture, 15)[15]


def test_a_scheduler_with_other_levels_is_found(mixture: Subject) -> None:
    def other(entry: Entry) -> Any:
        sigmas = (1.1 * entry.program.sigmas[0], *entry.program.sigmas[1:])
        return SteeredScheduler(programs=[replace(entry.program, sigmas=sigmas).to_dict()])

    assert "levels" in failed(replace(mixture, scheduler_from=other), 20)[20]


def test_a_scheduler_that_remembers_is_found(mixture: Subject) -> None:
    shared: dict[int, Any] = {}

    def same(entry: Entry) -> Any:
        return shared.setdefault(entry.calls, scheduler_of(entry))

    result = judge(replace(mixture, scheduler_from=same), 14)[14]
    assert not result.passed


# --- what users call --------------------------------------------------------------------------------------------------


def drawing(mixture: Subject, **defects: bool) -> Any:
    """Draws as a user's function does, or with defects."""

    def draw(labels: Any, seeds: Any, *, price: float, scale: float, budget: int | None = None) -> Any:
        if budget == 0 and not defects.get("generous"):
            raise BadInput("budget 0")
        if price < 0:
            raise BadInput("price")
        asked = torch.tensor(list(labels))
        if not defects.get("careless"):
            ClassLabels(asked).check(4)
        start = per_seed_noise(list(seeds), (1, 4, 4))
        nfe = torch.full((len(start),), 4 if defects.get("wasteful") or budget is None else min(4, budget))
        return SimpleNamespace(sample=start + len(start) * bool(defects.get("crowded")), nfe=nfe)

    return replace(mixture, draw=draw)


def test_what_users_call_is_tried_as_well(mixture: Subject) -> None:
    assert failed(drawing(mixture), 6, 11, 12, 13) == {}
    assert "drawing class 4: not refused" in failed(drawing(mixture, careless=True), 6)[6]
    assert "budget of 0" in failed(drawing(mixture, generous=True), 11)[11]
    assert "takes 4 of 3" in failed(drawing(mixture, wasteful=True), 11)[11]
    assert 12 in failed(drawing(mixture, crowded=True), 12)


# --- a network with weights -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(mixture: Subject) -> Subject:
    """A tiny network with random weights, with a controller and a student."""
    from vernissage.sampler.learn.consistency import Student

    spec = UNetSpec(1, 8, 3, width=8, multipliers=(1,), attention_side=4)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        denoiser = EdmDenoiser(spec)
        for weight in denoiser.parameters():
            weight.data.add_(0.05 * torch.randn_like(weight))
    mix = RequestMix((1.0, 1.0, 1.0), scales=(1.0, 2.0))
    bank = make_bank(denoiser, "test", 24, mix, teacher=dpmpp(log_snr(16, 0.02, 80.0)), check_requests=1)
    book = small_book(denoiser, bank, (2, 3))
    controller: Any = SteeringController(static_share=0.3, seed=3)
    return Subject(denoiser.eval(), book, bank, mixture.folder, controller, Student.of(denoiser), classes=3)


def test_another_process_answers_the_same_from_files(trained: Subject) -> None:
    results = judge(trained, 6, 9, 10, 13, 15, 16, 19)
    assert {number: result.note for number, result in results.items() if not result.passed} == {}
    assert results[13].note == ""
    assert (trained.folder / "13-same-again" / "elsewhere" / "answers.safetensors").is_file()


# --- parts ------------------------------------------------------------------------------------------------------------


def test_a_run_takes_notes(mixture: Subject) -> None:
    bench = set_up(mixture, SETTINGS)
    made = Run(mixture, bench.tasks, static_steer, size=5).finish()
    assert gaps(made.samples, bench.static(bench.tasks).samples).max() < 1e-4
    entries = [
        mixture.book.for_price(price, scale)
        for price, scale in zip(bench.tasks.prices.tolist(), bench.tasks.requests.scales.tolist(), strict=True)
    ]
    assert [list(levels) for levels in made.levels] == [
        pytest.approx([*entry.program.levels, 0.0]) for entry in entries
    ]
    assert made.evaluations.tolist() == [
        entry.nfe(scale) for entry, scale in zip(entries, bench.tasks.requests.scales.tolist(), strict=True)
    ]
    assert made.asked == int(made.evaluations.sum())
    assert made.types == {torch.float32}
    assert made.refused == 0


def test_scripts_belong_to_requests(mixture: Subject) -> None:
    steer = scripted(3, 10, without=(STOP, SPEED))
    seen = np.zeros((3, 64), dtype=np.float32)
    actions, gates = steer(seen, np.array([4, -1, 2]), np.array([0, 0, 5]))
    assert gates is None
    assert (actions[1] == STATIC).all()
    assert (actions[0] == steer(seen[:1], np.array([4]), np.array([0]))[0][0]).all()
    every = np.concatenate([steer(seen[:1], np.array([r]), np.array([t]))[0] for r in range(10) for t in range(20)])
    assert not np.isin(every[:, 1], (STOP, SPEED)).any()
    assert (every[:, 1] == ADAPTIVE_NOISE).any()


def test_quality_is_one_less_the_saturating_error() -> None:
    endpoints = torch.zeros(3, 1, 4, 4)
    samples = torch.stack([torch.zeros(1, 4, 4), torch.full((1, 4, 4), 0.1), torch.full((1, 4, 4), torch.nan)])
    assert quality(samples, endpoints, 0.1).tolist() == pytest.approx([1, np.exp(-0.5), 0])
    assert gaps(samples, samples).tolist() == [0, 0, 0]
    assert gaps(samples, endpoints).tolist() == [0, pytest.approx(0.1), np.inf]


def test_networks_around_a_network() -> None:
    inside = Mixture()
    x, sigma = torch.randn(4, 1, 4, 4, generator=torch.Generator().manual_seed(0)), torch.full((4,), 2.0)
    labels = ClassLabels(torch.tensor([0, 1, 2, 3]))
    plain = inside(x, sigma, labels)
    probe = Probe(inside)
    assert torch.equal(probe(x, sigma, labels), plain)
    assert (probe.evaluations, probe.types, probe.classes) == (4, {torch.float32}, 4)
    assert not hasattr(probe, "call_with_features")
    broken = BrokenOnce(inside, 1)
    assert [bool(broken(x, sigma, labels).isfinite().all()) for _ in range(3)] == [True, False, True]
    other = ClassLabels(torch.tensor([1, 2, 3, 0]))
    both = Averaged(inside)(x, sigma, Both(labels, other))
    assert torch.allclose(both, (plain + inside(x, sigma, other)) / 2, atol=1e-6)
    noisy, rounded = (
        made(x, sigma, labels) for made in (with_noise(inside, 0.01, 0), with_rounded_weights(inside, torch.float16))
    )
    assert 0 < float((noisy - plain).abs().max()) < 0.1
    assert 0 < float((rounded - plain).abs().max()) < 0.01


def test_features_show_through_and_are_counted() -> None:
    network = EdmDenoiser(UNetSpec(1, 8, 3, width=8, multipliers=(1,)))
    probe = Probe(network)
    x, sigma = torch.zeros(2, 1, 8, 8), torch.ones(2)
    made, features = probe.call_with_features(x, sigma, None)
    assert torch.equal(made, network(x, sigma))
    assert features.shape == (2, network.feature_width)
    assert probe.evaluations == 2


def test_weights_are_changed_in_a_copy() -> None:
    network = EdmDenoiser(UNetSpec(1, 8, 3, width=8, multipliers=(1,)))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    noisy: Any = with_noise(network, 0.01, 0)
    rounded: Any = with_rounded_weights(network, torch.float16)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    weight = network.network.enter.weight.detach()
    change = (noisy.network.enter.weight.detach() - weight).square().mean().sqrt() / weight.square().mean().sqrt()
    assert float(change) == pytest.approx(0.01, rel=0.3)
    assert torch.equal(rounded.network.enter.weight, weight.half().float())


def test_a_program_that_begins_elsewhere_keeps_its_steps_whole() -> None:
    from vernissage.sampler.judge.quality_cases import _begun_at

    program = dpmpp(log_snr(4, 0.1, 10.0))
    for factor, first in ((2.0, 20.0), (0.5, 5.0), (0.01, 1.05 * program.sigmas[1])):
        moved: Program = _begun_at(program, factor)
        assert moved.sigmas == pytest.approx((first, *program.sigmas[1:]))
        assert abs(moved.inconsistency()[0]) < 1e-12
        assert moved.coefficients[1:] == program.coefficients[1:]


def test_tasks_are_shared_out() -> None:
    def rows(tasks: Tasks) -> list[int]:
        return tasks.requests.seeds.tolist()

    from vernissage.sampler.judge.arms import Requests

    count = 21
    requests = Requests(
        torch.arange(count), torch.zeros(count).long(), torch.ones(count), *[torch.zeros(count, 1, 4, 4)] * 2, None
    )
    tasks = Tasks(requests, torch.arange(count) / 10, torch.arange(count))
    assert [rows(tasks.share(part, 2))[:3] for part in range(2)] == [[0, 2, 4], [1, 3, 5]]
    assert tasks.share(1, 2).prices.tolist()[:2] == pytest.approx([0.1, 0.3])
    assert rows(tasks.rows(range(19)).share(1, 2)) == list(range(19))
    assert len(tasks.rows([])) == 0
    assert tasks.but(labels=torch.ones(count).long()).requests.labels.tolist() == [1] * count
