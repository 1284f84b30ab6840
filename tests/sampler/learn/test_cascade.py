"""The cascade: its verifier tells bad answers from good ones, evaluations are all counted, and it says if it pays."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from vernissage.core.errors import BadInput, BadParams, CorruptArtifact, MissingArtifact
from vernissage.sampler.domain.denoiser import ClassLabels, Counted
from vernissage.sampler.domain.programs import ipndm
from vernissage.sampler.domain.sampling import per_seed_noise, run_program
from vernissage.sampler.domain.schedules import log_snr
from vernissage.sampler.domain.unet import EdmDenoiser, UNetSpec
from vernissage.sampler.learn.book import Entry, ProgramBook
from vernissage.sampler.learn.cascade import (
    ALWAYS,
    EVIDENCE,
    NEVER,
    Cascade,
    Thresholds,
    Verifier,
    _Table,
    answered,
    area_under_curve,
    make_cascade,
    probed,
    train_verifier,
)
from vernissage.sampler.learn.consistency import Student, one_step, two_step
from vernissage.sampler.learn.grid import Score

if TYPE_CHECKING:
    from pathlib import Path

    from vernissage.sampler.domain.denoiser import Condition

SHAPE = (1, 8, 8)


class Requests:
    """Requests whose endpoints are answers of a student, some of them spoilt where the answer itself shows it."""

    def __init__(self, student: Student, count: int = 120, *, seed: int = 0, hint: bool = True) -> None:
        self._noise = per_seed_noise(range(seed, seed + count), SHAPE)
        self._condition = ClassLabels(torch.arange(count) % 2)
        self.scales = torch.tensor([1.0, 2.0]).repeat((count + 1) // 2)[:count]
        second = two_step(student, self._noise, self._condition, self.scales)
        first = one_step(student, self._noise, self._condition, self.scales)
        sign = first.flatten(1).mean(dim=1) if hint else torch.randn(count, generator=torch.Generator().manual_seed(5))
        self.bad = sign > sign.quantile(0.7)
        self.endpoints = torch.where(self.bad.view(-1, 1, 1, 1), second + 1.0, second)

    def __len__(self) -> int:
        return len(self._noise)

    def noise(self) -> torch.Tensor:
        return self._noise

    def condition(self) -> Condition:
        return self._condition


@pytest.fixture(scope="module")
def denoiser() -> EdmDenoiser:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = EdmDenoiser(UNetSpec(1, 8, 2, width=8))
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    return network.eval()


@pytest.fixture(scope="module")
def student(denoiser: EdmDenoiser) -> Student:
    return Student.of(denoiser)


@pytest.fixture(scope="module")
def book() -> ProgramBook:
    entries = []
    for calls, saturated in ((2, 0.5), (4, 0.1)):
        program = ipndm(log_snr(calls, 0.1, 5.0), order=2)
        entries += [
            Entry(program, scale, (1.0,) * calls, "grid", Score(saturated, 0.1, 0.1, 10)) for scale in (1.0, 2.0)
        ]
    return ProgramBook(tuple(entries), tau=0.2, shipped="grid")


def test_evidence_is_that_of_the_call_that_answered(student: Student, denoiser: EdmDenoiser) -> None:
    requests = Requests(student, 6)
    noise, condition, scales = requests.noise(), requests.condition(), requests.scales
    first = answered(student, noise, condition, scales)
    second = answered(student, noise, condition, scales, first)
    assert torch.allclose(first.samples, one_step(student, noise, condition, scales), atol=1e-5)
    assert torch.allclose(second.samples, two_step(student, noise, condition, scales), atol=1e-5)
    assert (first.evaluations, second.evaluations) == (1, 2)
    assert first.evidence.shape == (6, len(EVIDENCE) + student.feature_width)
    change = (second.samples - first.samples).square().mean(dim=(1, 2, 3)).sqrt()
    assert torch.allclose(second.evidence[:, EVIDENCE.index("change")], change, atol=1e-6)
    assert (first.evidence[:, EVIDENCE.index("change")] == 0).all()
    counted = Counted(denoiser)
    residual = probed(counted, first, noise, condition, 0.2).evidence[:, EVIDENCE.index("residual")]
    assert counted.evaluations == 6
    assert (residual > 0).all()


def test_a_verifier_finds_what_can_be_seen_and_admits_what_cannot(student: Student, denoiser: EdmDenoiser) -> None:
    seen = train_verifier(denoiser, student, Requests(student, 200), worst=0.3)
    assert seen.facts["auc_1"] > 0.85
    assert seen.facts["requests"] == 200
    unseen = train_verifier(denoiser, student, Requests(student, 200, hint=False), worst=0.3)
    assert 0.25 < unseen.facts["auc_1"] < 0.75
    assert unseen.facts["auc_1_train"] > unseen.facts["auc_1"] - 0.05


def test_the_area_under_the_curve_of_known_ranks() -> None:
    bad = np.array([True, True, False, False])
    assert area_under_curve(np.array([3.0, 4.0, 1.0, 2.0]), bad) == 1
    assert area_under_curve(np.array([1.0, 2.0, 3.0, 4.0]), bad) == 0
    assert area_under_curve(np.array([1.0, 4.0, 2.0, 3.0]), bad) == 0.5
    assert area_under_curve(np.zeros(4), bad) == 0.5
    assert area_under_curve(np.zeros(4), np.zeros(4, dtype=bool)) == 0.5


def test_a_verifier_is_saved_and_loaded_and_knows_its_student(
    tmp_path: Path, student: Student, denoiser: EdmDenoiser
) -> None:
    requests = Requests(student, 60)
    verifier = train_verifier(denoiser, student, requests, probe=0.2)
    verifier.save(tmp_path)
    loaded = Verifier.load(tmp_path)
    answer = answered(student, requests.noise(), requests.condition(), requests.scales)
    assert torch.equal(loaded.risk(answer), verifier.risk(answer))
    assert (loaded.probe, loaded.evaluations, loaded.large, loaded.facts) == (0.2, 1, verifier.large, verifier.facts)
    wider = Student(UNetSpec(1, 8, 2, width=16))
    with pytest.raises(BadInput, match="of its student"):
        loaded.risk(answered(wider, requests.noise(), requests.condition(), requests.scales))
    student.save(tmp_path / "student")
    (tmp_path / "student" / "model.json").rename(tmp_path / "student" / "verifier.json")
    (tmp_path / "student" / "model.safetensors").rename(tmp_path / "student" / "verifier.safetensors")
    with pytest.raises(CorruptArtifact, match="not a verifier"):
        Verifier.load(tmp_path / "student")


@pytest.mark.parametrize(
    ("limits", "stage", "student_part", "verifying"),
    [
        (Thresholds(NEVER, NEVER), 1, 1, 0),
        (Thresholds(ALWAYS, NEVER), 2, 2, 0),
        (Thresholds(ALWAYS, ALWAYS), 3, 2, 0),
        (Thresholds(1.0, NEVER), 1, 1, 1),
        (Thresholds(0.0, 1.0), 2, 2, 2),
        (Thresholds(0.0, 0.0), 3, 2, 2),
    ],
)
def test_all_evaluations_are_counted(
    student: Student,
    denoiser: EdmDenoiser,
    book: ProgramBook,
    limits: Thresholds,
    stage: int,
    student_part: int,
    verifying: int,
) -> None:
    requests = Requests(student, 40)
    verifier = train_verifier(denoiser, student, requests, probe=0.2)
    cascade = Cascade(student, verifier, book, {0.01: limits})
    counted = Counted(denoiser)
    noise, condition, scales = requests.noise()[:6], requests.condition().rows(torch.arange(6)), requests.scales[:6]
    made = cascade(counted, noise, condition, scales, 0.01)
    assert (made.stages == stage).all()
    entry = book.for_price(0.01, 1.0)
    taken = torch.tensor([entry.nfe(float(scale)) if stage == 3 else 0 for scale in scales])
    assert torch.equal(made.evaluations, student_part + verifying + taken)
    assert counted.evaluations == int((verifying + taken).sum())
    if stage == 3:
        expected = run_program(denoiser, noise, condition, entry.program, scales).samples
    else:
        expected = (one_step if stage == 1 else two_step)(student, noise, condition, scales)
    assert torch.allclose(made.samples, expected, atol=1e-4)


def test_mixed_decisions_keep_samples_in_their_places(
    student: Student, denoiser: EdmDenoiser, book: ProgramBook
) -> None:
    requests = Requests(student, 60)
    requests.endpoints = torch.randn(requests.endpoints.shape, generator=torch.Generator().manual_seed(3))
    verifier = train_verifier(denoiser, student, requests)
    noise, condition, scales = requests.noise(), requests.condition(), requests.scales
    first = answered(student, noise, condition, scales)
    middle = float(verifier.risk(first).median())
    onwards = verifier.risk(first) > middle
    late = float(verifier.risk(answered(student, noise, condition, scales, first))[onwards].median())
    cascade = Cascade(student, verifier, book, {0.01: Thresholds(middle, late)})
    made = cascade(denoiser, noise, condition, scales, 0.01)
    assert set(made.stages.tolist()) == {1, 2, 3}
    one, two = one_step(student, noise, condition, scales), two_step(student, noise, condition, scales)
    assert torch.allclose(made.samples[made.stages == 1], one[made.stages == 1], atol=1e-4)
    assert torch.allclose(made.samples[made.stages == 2], two[made.stages == 2], atol=1e-4)
    row = torch.tensor([7])
    alone = cascade(denoiser, noise[row], condition.rows(row), scales[row], 0.01)
    assert torch.allclose(alone.samples, made.samples[row], atol=1e-4)
    assert torch.equal(alone.evaluations, made.evaluations[row])


def test_it_says_whether_it_pays(student: Student, denoiser: EdmDenoiser, book: ProgramBook) -> None:
    requests = Requests(student, 80)
    verifier = train_verifier(denoiser, student, Requests(student, 80, seed=500))
    cascade = make_cascade(denoiser, student, verifier, book, requests, (0.0, 0.02, 0.9))
    assert [row["price"] for row in cascade.facts] == [0.0, 0.02, 0.9]
    for row in cascade.facts:
        assert row["pays"] == (row["gain_low"] > 0)
        assert row["gain"] == pytest.approx(row[row["best_single"]] - row["cascade"])
        assert row["gain_low"] <= row["gain"] <= row["gain_high"]
        assert sum(row["shares"]) == pytest.approx(1)
        assert row["requests"] == 40
    # Where evaluations are dear nothing but a single one is worth it, and that is no gain.
    dear = cascade.facts[-1]
    assert cascade.for_price(5.0) == Thresholds(NEVER, NEVER)
    assert (dear["best_single"], dear["gain"], dear["pays"]) == ("one", 0.0, False)
    json.dumps(cascade.facts)


def test_thresholds_pay_where_the_verifier_knows_and_not_where_it_guesses() -> None:
    rng = np.random.default_rng(0)
    bad = rng.random(200) < 0.3
    first, second, program = np.where(bad, 0.8, 0.05), np.where(bad, 0.8, 0.04), np.full(200, 0.03)
    taken, halves = np.full(200, 6.0), (np.arange(100), np.arange(100, 200))
    gains = {}
    for name, risk in (("knows", bad + 0.1 * rng.random(200)), ("guesses", rng.random(200))):
        table = _Table(first, second, program, taken, risk / 1.2, risk / 1.2, 0, 0.02)
        row = table.facts(table.choose(halves[0]), *halves)
        gains[name] = row["gain"]
        assert row["pays"] == (name == "knows")
        assert row["best_single"] == "program"
    # 8 evaluations for the bad ones and 1 for the others, against 6 for all of them.
    share = float(bad[100:].mean())
    best = 0.03 + 0.02 * 6 - share * (0.03 + 0.02 * 8) - (1 - share) * (0.05 + 0.02)
    assert gains["knows"] == pytest.approx(best, abs=0.01)
    dear = _Table(first, second, program, taken, bad * 1.0, bad * 1.0, 1, 0.02)
    assert dear.costs(Thresholds(0.5, NEVER), np.array([0]))[1][0] == (3 if bad[0] else 2)


def test_it_is_saved_and_loaded(tmp_path: Path, student: Student, denoiser: EdmDenoiser, book: ProgramBook) -> None:
    requests = Requests(student, 40)
    verifier = train_verifier(denoiser, student, requests)
    cascade = make_cascade(denoiser, student, verifier, book, requests, (0.01, 0.1))
    cascade.save(tmp_path)
    loaded = Cascade.load(tmp_path)
    assert (loaded.thresholds, loaded.facts, loaded.book) == (cascade.thresholds, cascade.facts, book)
    asked = requests.noise(), requests.condition(), requests.scales, 0.01
    assert torch.equal(loaded(denoiser, *asked).samples, cascade(denoiser, *asked).samples)
    (tmp_path / "cascade.json").write_text('{"format": 1, "thresholds": [[1]]}', encoding="utf-8")
    with pytest.raises(CorruptArtifact, match="not a cascade"):
        Cascade.load(tmp_path)
    with pytest.raises(MissingArtifact, match=r"cascade\.json"):
        Cascade.load(tmp_path / "nowhere")


@pytest.mark.parametrize("price", [-0.1, math.nan, math.inf])
def test_prices_that_are_none_are_refused(
    student: Student, denoiser: EdmDenoiser, book: ProgramBook, price: float
) -> None:
    verifier = train_verifier(denoiser, student, Requests(student, 40))
    with pytest.raises(BadInput, match="price = "):
        Cascade(student, verifier, book, {0.1: Thresholds(NEVER, NEVER)}).for_price(price)


@pytest.mark.parametrize("change", [{"worst": 0.0}, {"held_out": 1.0}, {"ridge": 0.0}, {"probe": -1.0}])
def test_settings_out_of_range_are_refused(student: Student, denoiser: EdmDenoiser, change: dict[str, Any]) -> None:
    with pytest.raises(BadParams, match="verifier: "):
        train_verifier(denoiser, student, Requests(student, 20), **change)


def test_too_few_requests_are_refused(student: Student, denoiser: EdmDenoiser, book: ProgramBook) -> None:
    with pytest.raises(BadInput, match="too few"):
        train_verifier(denoiser, student, Requests(student, 8))
    verifier = train_verifier(denoiser, student, Requests(student, 40))
    with pytest.raises(BadInput, match="no thresholds"):
        Cascade(student, verifier, book, {})
    with pytest.raises(BadInput, match="3 requests"):
        make_cascade(denoiser, student, verifier, book, Requests(student, 3), (0.1,))
