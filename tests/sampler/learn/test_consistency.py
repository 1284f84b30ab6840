"""The student: starts as its denoiser, learns endpoints of guided trajectories, resumes to the bit, takes steps."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from vernissage.core.errors import BadInput, BadParams, CorruptArtifact
from vernissage.core.progress import Progress
from vernissage.sampler.domain.denoiser import ClassLabels
from vernissage.sampler.domain.programs import heun
from vernissage.sampler.domain.sampling import per_seed_noise, run_program
from vernissage.sampler.domain.schedules import karras
from vernissage.sampler.domain.unet import EdmDenoiser, UNetSpec
from vernissage.sampler.learn import consistency
from vernissage.sampler.learn.consistency import (
    Student,
    StudentTraining,
    draw_trajectories,
    many_steps,
    nearer,
    one_step,
    pseudo_huber,
    train_student,
    tune_middle,
    two_step,
    usual_program,
)
from vernissage.sampler.learn.denoiser_training import DenoiserTraining, train_denoiser
from vernissage.sampler.prepare.pictures import ClassPictures
from vernissage.sampler.prepare.teacher_bank import RequestMix, make_bank

if TYPE_CHECKING:
    from pathlib import Path

    from vernissage.sampler.domain.denoiser import Condition

QUICK = StudentTraining(
    updates=6, batch=4, warm_up=2, looks=2, checkpoint_every=4, lot=8, reuse=1.5, lots_kept=2, consistency_share=0.5,
    critic_weight=0.1, dropout=0.1, scales=(1.0, 2.0), validation_requests=8, seed=3,
)  # fmt: skip


def bars(count: int = 60) -> ClassPictures:
    """Bright bars on dark ground, lying in class 0 and standing in class 1."""
    generator = torch.Generator().manual_seed(4)
    pictures = torch.full((count, 1, 8, 8), 30, dtype=torch.uint8)
    labels = torch.arange(count) % 2
    places = torch.randint(8, (count,), generator=generator).tolist()
    for picture, label, place in zip(pictures[:, 0], labels.tolist(), places, strict=True):
        (picture.T if label else picture)[place] = 220
    splits = torch.zeros(count, dtype=torch.uint8)
    splits[:12] = 1
    return ClassPictures(pictures, labels, splits, ("lying", "standing"))


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory: pytest.TempPathFactory) -> EdmDenoiser:
    settings = DenoiserTraining(steps=60, batch=16, lr=5e-3, warm_up=5, looks=1, width=8)
    return train_denoiser(bars(), settings, tmp_path_factory.mktemp("denoiser") / "checkpoint")[0]


def asked(count: int, seed: int = 0) -> tuple[torch.Tensor, ClassLabels, torch.Tensor]:
    scales = torch.tensor([1.0, 2.0]).repeat_interleave(2).repeat(count)[:count]
    return per_seed_noise(range(seed, seed + count), (1, 8, 8)), ClassLabels(torch.arange(count) % 2), scales


def same_weights(one: EdmDenoiser, other: EdmDenoiser) -> bool:
    mine, its = one.state_dict(), other.state_dict()
    return mine.keys() == its.keys() and all(torch.equal(mine[name], its[name]) for name in mine)


class Killed(BaseException):
    """What ends a process in the tests."""


def killed_after(updates: int) -> type[Progress]:
    class Mortal(Progress):
        def advance(self, n: int = 1, **fields: float | str) -> None:
            super().advance(n, **fields)
            if self.done >= updates:
                raise Killed

    return Mortal


def train_until_killed(monkeypatch: pytest.MonkeyPatch, updates: int, denoiser: EdmDenoiser, folder: Path) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(consistency, "Progress", killed_after(updates))
        with pytest.raises(Killed):
            train_student(denoiser, QUICK, folder, pictures=bars())


def test_a_fresh_student_answers_as_its_denoiser_whatever_the_scale(denoiser: EdmDenoiser) -> None:
    student = Student.of(denoiser)
    noise, condition, scales = asked(6)
    sigma = torch.tensor([80.0, 10.0, 2.0, 0.9, 0.2, 0.01])
    x = noise * sigma.view(-1, 1, 1, 1)
    with torch.no_grad():
        expected = denoiser(x, sigma, condition)
        assert torch.equal(student(x, sigma, condition), expected)
        assert torch.equal(student(x, sigma, condition, scales), expected)
        assert torch.equal(student(x, sigma, None, scales), denoiser(x, sigma, None))
        answers, features = student.call_with_features(x, sigma, condition, scales)
    assert torch.equal(answers, expected)
    assert features.shape == (6, student.feature_width)
    assert (student.shape, student.sigma_min, student.sigma_max) == ((1, 8, 8), 0.002, 80.0)
    assert student.sigma_data == denoiser.sigma_data


def scaled_student(denoiser: EdmDenoiser) -> Student:
    """One whose answers depend on the scale."""
    student = Student.of(denoiser, middle=1.3)
    with torch.no_grad():
        weights = student.get_parameter("network.classes.scale.weight")
        weights.copy_(torch.randn(weights.shape, generator=torch.Generator().manual_seed(1)))
    return student


def test_the_scale_matters_once_it_was_learned_but_not_at_scale_one(denoiser: EdmDenoiser) -> None:
    student = scaled_student(denoiser)
    noise, condition, scales = asked(4)
    answers = one_step(student, noise, condition, scales)
    plain = one_step(student, noise, condition, None)
    assert torch.allclose(answers[:2], plain[:2], atol=1e-6)
    assert not torch.allclose(answers[2:], plain[2:], atol=1e-2)


def test_a_batch_of_one_equals_its_row(denoiser: EdmDenoiser) -> None:
    student = scaled_student(denoiser)
    noise, condition, scales = asked(5)
    whole = two_step(student, noise, condition, scales, deterministic=False, seeds=range(5))
    row = torch.tensor([3])
    alone = two_step(student, noise[row], condition.rows(row), scales[row], deterministic=False, seeds=row.tolist())
    assert torch.allclose(whole[row], alone, atol=1e-5)


def test_it_is_saved_and_loaded(tmp_path: Path, denoiser: EdmDenoiser) -> None:
    student = scaled_student(denoiser)
    student.save(tmp_path, {"note": "x"})
    loaded = Student.load(tmp_path)
    assert same_weights(student, loaded)
    assert loaded.middle == 1.3
    denoiser.save(tmp_path / "denoiser")
    with pytest.raises(CorruptArtifact, match="not a student"):
        Student.load(tmp_path / "denoiser")
    with pytest.raises(CorruptArtifact, match="not a denoiser"):
        EdmDenoiser.load(tmp_path)


@pytest.mark.parametrize("scales", [torch.ones(3), torch.tensor([1.0, math.nan])], ids=["too many", "nan"])
def test_strange_scales_are_refused(denoiser: EdmDenoiser, scales: torch.Tensor) -> None:
    noise, condition, _ = asked(2)
    with pytest.raises(BadInput, match="guidance scales of shape"):
        Student.of(denoiser)(noise, torch.ones(2), condition, scales)


class Bell:
    """A denoiser of one Gaussian, whose trajectories are known."""

    shape, sigma_min, sigma_max, sigma_data = (1, 2, 2), 0.002, 80.0, 0.5
    centre, width = 0.3, 0.4

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor, condition: Condition | None) -> torch.Tensor:
        s = sigma.view(-1, 1, 1, 1)
        return self.centre + self.width**2 / (self.width**2 + s**2) * (x - self.centre)

    def at(self, noise: torch.Tensor, start: float, sigma: torch.Tensor) -> torch.Tensor:
        grown = ((self.width**2 + sigma.view(-1, 1, 1, 1) ** 2) / (self.width**2 + start**2)).sqrt()
        return self.centre + (noise * start - self.centre) * grown


def test_states_between_the_levels_of_a_trajectory_lie_on_it() -> None:
    bell, count = Bell(), 400
    noise = torch.randn((8, 1, 2, 2), generator=torch.Generator().manual_seed(0))
    program = heun(karras(60, 0.02, 80.0))
    drawn = draw_trajectories(bell, noise, torch.zeros(8, dtype=torch.long), torch.ones(8), program)
    assert len(drawn.levels) == 60
    assert torch.equal(drawn.states[0], noise * 80)
    rows, places = torch.arange(count) % 8, torch.linspace(0, 60, count)
    states, sigma = drawn.between(rows, places)
    assert (sigma.diff() < 1e-6).all()
    assert sigma[0] == 80
    assert sigma[-1] == 0
    assert torch.allclose(states, bell.at(noise[rows], 80.0, sigma), atol=4e-3)
    assert torch.allclose(states[-1], drawn.endpoints[rows[-1]])


def test_endpoints_are_those_of_the_program_and_guidance_counts(denoiser: EdmDenoiser) -> None:
    noise, condition, scales = asked(6)
    program = usual_program(denoiser)
    drawn = draw_trajectories(denoiser, noise, condition.labels, scales, program)
    expected = run_program(denoiser, noise, condition, program, scales).samples
    assert torch.allclose(drawn.endpoints, expected, atol=1e-4)
    assert drawn.levels[0] == 80.0
    assert len(drawn.levels) == program.steps + 1


def test_trajectories_that_break_are_left_out_and_all_broken_is_an_error() -> None:
    class Breaks(Bell):
        def __call__(self, x: torch.Tensor, sigma: torch.Tensor, condition: Condition | None) -> torch.Tensor:
            assert isinstance(condition, ClassLabels)
            return (
                super().__call__(x, sigma, condition).masked_fill((condition.labels == 1).view(-1, 1, 1, 1), math.nan)
            )

    noise, program = torch.randn(4, 1, 2, 2), usual_program(Bell())
    drawn = draw_trajectories(Breaks(), noise, torch.tensor([0, 1, 0, 1]), torch.ones(4), program)
    assert torch.equal(drawn.noise, noise[[0, 2]])
    with pytest.raises(BadInput, match="no trajectory"):
        draw_trajectories(Breaks(), noise, torch.ones(4, dtype=torch.long), torch.ones(4), program)


def test_the_nearer_level_follows_the_formula() -> None:
    t = torch.tensor([0.01, 0.5, 2.0, 80.0])
    assert nearer(t, 0)[:2].tolist() == [0, 0]  # ordinary denoising where noise is small
    expected = 2.0 * (1 - (1 + 8 / (1 + math.exp(2.0))) / 2**4)
    assert nearer(t, 3)[2].item() == pytest.approx(expected)
    assert (nearer(t, 7) / t > 0.95).all()


def test_the_loss_is_quadratic_near_zero_and_linear_far_off() -> None:
    sizes = torch.tensor([0.0, 0.001, 10.0]).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    zero, small, large = pseudo_huber(sizes, 0.1).tolist()
    assert zero == pytest.approx(0, abs=1e-8)
    assert small == pytest.approx(0.001**2 / 0.2, rel=1e-2)
    assert large == pytest.approx(9.9, rel=1e-3)


def test_it_learns_to_end_where_the_program_does(tmp_path: Path, denoiser: EdmDenoiser) -> None:
    settings = replace(
        QUICK, updates=45, batch=16, lr=4e-3, lot=48, reuse=6.0, looks=3, validation_requests=32, dropout=0.0,
        consistency_share=0.0, critic_weight=0.0,
    )  # fmt: skip
    bank = make_bank(
        denoiser, "val", 32, RequestMix((1.0, 1.0), (1.0, 2.0)), teacher=usual_program(denoiser), check_requests=1
    )
    before = _errors(Student.of(denoiser), bank)
    student, curves = train_student(denoiser, settings, tmp_path / "checkpoint")
    after = _errors(student, bank)
    assert [row["step"] for row in curves] == [15, 30, 45]
    assert after[0] < 0.8 * before[0]
    assert after[1] < 0.6 * before[1]
    assert after[1] < after[0]
    assert not student.training
    middle, table = tune_middle(student, bank)
    assert middle in [row["middle"] for row in table]
    assert min(row["value"] for row in table) <= after[1] + 1e-6
    judged, _ = tune_middle(student, bank, [0.5, 0.9], judge=lambda samples: float(samples.std()))
    assert judged in {0.5, 0.9}


def _errors(student: Student, bank: Any) -> list[float]:
    made = (step(student, bank.noise(), bank.condition(), bank.scales) for step in (one_step, two_step))
    return [float((samples - bank.endpoints).square().mean(dim=(1, 2, 3)).sqrt().mean()) for samples in made]


@pytest.mark.parametrize("updates", [2, 5], ids=["before any checkpoint", "after one"])
def test_a_training_that_was_killed_ends_with_the_same_weights(
    tmp_path: Path, denoiser: EdmDenoiser, monkeypatch: pytest.MonkeyPatch, updates: int
) -> None:
    whole, curves = train_student(denoiser, QUICK, tmp_path / "whole", pictures=bars())
    train_until_killed(monkeypatch, updates, denoiser, tmp_path / "checkpoint")
    torch.rand(5)  # somebody else's draws in between
    resumed, resumed_curves = train_student(denoiser, QUICK, tmp_path / "checkpoint", pictures=bars())
    assert same_weights(whole, resumed)
    assert resumed_curves == curves
    assert not (tmp_path / "checkpoint").exists()


def test_a_checkpoint_of_other_settings_is_not_taken_up(
    tmp_path: Path, denoiser: EdmDenoiser, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_until_killed(monkeypatch, 5, denoiser, tmp_path / "checkpoint")
    settings = replace(QUICK, lr=1e-3)
    fresh, _ = train_student(denoiser, settings, tmp_path / "fresh", pictures=bars())
    found, _ = train_student(denoiser, settings, tmp_path / "checkpoint", pictures=bars())
    assert same_weights(fresh, found)


def test_cached_pairs_pictures_and_critic_each_have_a_say(tmp_path: Path, denoiser: EdmDenoiser) -> None:
    bank = make_bank(denoiser, "train", 12, RequestMix((1.0, 1.0)), teacher=usual_program(denoiser), check_requests=1)
    short = replace(QUICK, updates=3, looks=1, pairs_share=0.5)
    alone, _ = train_student(denoiser, short, tmp_path / "a", pictures=bars())
    with_bank, _ = train_student(denoiser, short, tmp_path / "a", pictures=bars(), pairs=bank)
    no_pictures, _ = train_student(denoiser, replace(short, consistency_share=0.0), tmp_path / "a")
    no_critic, _ = train_student(denoiser, replace(short, critic_weight=0.0), tmp_path / "a", pictures=bars())
    assert not any(same_weights(alone, other) for other in (with_bank, no_pictures, no_critic))


def test_the_denoiser_stays_as_it_was(tmp_path: Path, denoiser: EdmDenoiser) -> None:
    before = {name: tensor.clone() for name, tensor in denoiser.state_dict().items()}
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    train_student(denoiser, replace(QUICK, updates=2, looks=1), tmp_path / "a", pictures=bars())
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(before[name], tensor) for name, tensor in denoiser.state_dict().items())


def test_levels_and_seeds_of_sampling_are_checked(denoiser: EdmDenoiser) -> None:
    student = Student.of(denoiser)
    noise, condition, scales = asked(2)
    for levels in ((90.0,), (1.0, 1.0), (0.0,), (math.nan,)):
        with pytest.raises(BadInput, match="expected falling ones"):
            many_steps(student, noise, condition, scales, levels)
    with pytest.raises(BadInput, match="needs as many seeds"):
        two_step(student, noise, condition, scales, deterministic=False)
    three = many_steps(student, noise, condition, scales, (2.0, 0.5))
    assert three.shape == noise.shape


def test_fresh_noise_depends_on_the_seed_alone(denoiser: EdmDenoiser) -> None:
    student = Student.of(denoiser)
    noise, condition, scales = asked(2)
    one, same, other = (
        two_step(student, noise, condition, scales, deterministic=False, seeds=seeds)
        for seeds in ((1, 2), (1, 2), (1, 3))
    )
    assert torch.equal(one, same)
    assert torch.equal(one[0], other[0])
    assert not torch.equal(one[1], other[1])


@pytest.mark.parametrize(
    "change",
    [
        {"updates": 0}, {"lr": 0.0}, {"huber": math.nan}, {"scales": ()}, {"scale_weights": (1.0,)}, {"q": 1.0},
        {"decay_share": 1.2}, {"dropout": 1.0}, {"class_weights": (1.0, -1.0)}, {"reuse": 0.0}, {"ema_width": 0.3},
        {"critic_weight": -0.1},
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused_by_name(change: dict[str, Any]) -> None:
    with pytest.raises(BadParams, match=f"student: {next(iter(change))} = "):
        replace(QUICK, **change)


def test_what_cannot_be_learned_from_is_refused(tmp_path: Path, denoiser: EdmDenoiser) -> None:
    with pytest.raises(BadInput, match="Bell cannot be copied"):
        train_student(Bell(), QUICK, tmp_path)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="needs pictures"):
        train_student(denoiser, QUICK, tmp_path)
    with pytest.raises(BadInput, match="3 class weights"):
        train_student(denoiser, replace(QUICK, class_weights=(1.0, 1.0, 1.0)), tmp_path, pictures=bars())
    with pytest.raises(BadInput, match="the loss is"):
        train_student(denoiser, replace(QUICK, lr=1e30), tmp_path / "a", pictures=bars())


def test_a_spec_of_other_sizes_is_refused(tmp_path: Path) -> None:
    Student(UNetSpec(1, 8, 2, width=8)).save(tmp_path)
    text = (tmp_path / "model.json").read_text(encoding="utf-8")
    (tmp_path / "model.json").write_text(text.replace('"width": 8', '"width": 16'), encoding="utf-8")
    with pytest.raises(CorruptArtifact, match="not a student"):
        Student.load(tmp_path)
