"""Training: what is kept validates best, and a run that was killed ends with the weights of one that was not."""

from __future__ import annotations

import math
import pickle
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from tests.retoucher.learn.worlds import REWARD, darkened, photos, policy, policy_spec, untrained_juror
from vernissage.retoucher.domain.render import render
from vernissage.retoucher.domain.sliders import SLIDERS, slider_index
from vernissage.retoucher.learn.checkpoints import (
    Checkpoint,
    load_checkpoint,
    optimiser_tensors,
    random_state,
    restore_optimiser,
    restore_random_state,
    save_checkpoint,
    with_prefix,
    without_prefix,
)
from vernissage.retoucher.learn.dataset import fingerprint
from vernissage.retoucher.learn.environment import RetouchEnv
from vernissage.retoucher.learn.planner import PlannerTrainer, PlannerTraining
from vernissage.retoucher.learn.scenes import Pictures, Starts
from vernissage.retoucher.learn.training import RetoucherTrainer, RetoucherTraining, Thumbnails, Trained, validate

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

VIEW = 16
SETTINGS = RetoucherTraining(
    spec=policy_spec(view=VIEW, horizon=3),
    planner=PlannerTraining(images=44 * 4, batch=4, lr=0.005, harm_aversion=0.5),
    reward=REWARD,
    lr=1e-3,
    slots=4,
    rollout=4,
    steps=6 * 16,
    epochs=2,
    batch=8,
    gamma=1.0,
    clip=0.2,
    entropy=0.002,
    validate_every=2,
    scene_variation=0.5,
    stored_share=0.3,
    clean_share=0.2,
    faults=(1, 3),
    taken_at=32,
    seed=3,
)
PHOTOS = photos(4, side=VIEW)
DATA = Thumbnails(Pictures.of_thumbnails(PHOTOS), darkened(PHOTOS), darkened(photos(3, side=VIEW, first=20)))


class Watched(RetoucherTrainer):
    """Remembers the weights that the training ended with, which are not always the ones that it keeps."""

    def _look(self, *arguments: Any, **options: Any) -> dict[str, float]:
        self.last = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}
        return super()._look(*arguments, **options)


def train(folder: Path, settings: RetoucherTraining = SETTINGS) -> tuple[Trained, dict[str, torch.Tensor]]:
    trainer = Watched(DATA, untrained_juror(1, VIEW), settings, folder)
    trained = trainer.train()
    return trained, trainer.last


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trained, dict[str, torch.Tensor]]:
    return train(tmp_path_factory.mktemp("whole") / "checkpoint")


def killed_at(call: int, function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, until the run is killed at one of its calls."""
    calls = 0

    def run(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            raise KeyboardInterrupt
        return function(*arguments)

    return run


def assert_equal_runs(a: tuple[Trained, dict[str, torch.Tensor]], b: tuple[Trained, dict[str, torch.Tensor]]) -> None:
    for one, other in ((a[0].network.state_dict(), b[0].network.state_dict()), (a[1], b[1])):
        assert one.keys() == other.keys()
        assert [name for name in one if not torch.equal(one[name], other[name])] == []
    assert a[0].summary == b[0].summary
    # As text, because NaN is not equal to itself: the tables that are written from them are to be the same files.
    assert repr(a[0].curves) == repr(b[0].curves)


def test_a_training_runs_through_both_phases_and_leaves_no_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    trained, last = train(folder)
    assert not folder.exists()
    phases = [(row["phase"], row["update"]) for row in trained.curves]
    assert phases == [("plan", n) for n in range(2, 45, 2)] + [("ppo", n) for n in (0, 2, 4, 6)]
    for row in trained.curves:
        assert {"objective", "gain", "worse", "edits"} <= row.keys()
        assert 0 <= row["worse"] <= 1
        assert 0 <= row["edits"] <= 3
    assert trained.summary["ppo_iterations"] == 6
    assert trained.summary["plan_updates"] == 44
    assert not trained.network.training
    # The weights that are kept are those that validated best as a policy.
    stepping = [row["objective"] for row in trained.curves if row["phase"] == "ppo"]
    assert trained.summary["objective"] == pytest.approx(max(stepping), abs=1e-6)
    assert trained.summary["validation"]["objective"] == pytest.approx(max(stepping), abs=1e-6)
    start = policy(view=VIEW, horizon=3).state_dict()
    for part in ("trunk.", "plan_head.", "residual.", "critic."):
        assert any(not torch.equal(last[name], start[name]) for name in start if name.startswith(part))


def test_two_trainings_with_one_seed_are_equal_and_with_another_are_not(
    uninterrupted: tuple[Trained, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    assert_equal_runs(train(tmp_path / "a"), uninterrupted)
    other = train(tmp_path / "b", replace(SETTINGS, seed=4))
    assert not torch.equal(other[1]["plan_head.0.weight"], uninterrupted[1]["plan_head.0.weight"])


@pytest.mark.parametrize(
    ("owner", "name", "call"),
    [
        (PlannerTrainer, "step", 1),
        (PlannerTrainer, "step", 17),
        (PlannerTrainer, "step", 44),
        (RetouchEnv, "step", 2),
        (RetouchEnv, "step", 11),
        (RetouchEnv, "step", 23),
        (RetoucherTrainer, "_save", 25),
    ],
    ids=[
        "before any checkpoint",
        "plan",
        "last plan update",
        "first rollout",
        "ppo",
        "last rollout",
        "last checkpoint",
    ],
)
def test_a_training_that_was_killed_ends_with_the_weights_of_one_that_was_not(
    owner: type,
    name: str,
    call: int,
    uninterrupted: tuple[Trained, dict[str, torch.Tensor]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "checkpoint"
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, killed_at(call, getattr(owner, name)))
        with pytest.raises(KeyboardInterrupt):
            train(folder)
    assert folder.exists() == (call != 1)
    # Whatever the process has drawn since must not matter.
    torch.rand(7)
    np.random.rand(5)  # noqa: NPY002
    steps = 0
    step = PlannerTrainer.step

    def counted(trainer: PlannerTrainer) -> float:
        nonlocal steps
        steps += 1
        return step(trainer)

    monkeypatch.setattr(PlannerTrainer, "step", counted)
    assert_equal_runs(train(folder), uninterrupted)
    assert steps == {1: 44, 17: 44 - 16, 44: 2}.get(call if owner is PlannerTrainer else 0, 0)
    assert not folder.exists()


def test_a_training_may_be_killed_in_both_phases(
    uninterrupted: tuple[Trained, dict[str, torch.Tensor]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "checkpoint"
    for owner, call in ((PlannerTrainer, 9), (PlannerTrainer, 9), (RetouchEnv, 9), (RetouchEnv, 9)):
        with monkeypatch.context() as patch:
            patch.setattr(owner, "step", killed_at(call, owner.step))
            with pytest.raises(KeyboardInterrupt):
                train(folder)
    assert_equal_runs(train(folder), uninterrupted)


def test_a_damaged_checkpoint_counts_as_none(
    uninterrupted: tuple[Trained, dict[str, torch.Tensor]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "checkpoint"
    with monkeypatch.context() as patch:
        patch.setattr(RetouchEnv, "step", killed_at(11, RetouchEnv.step))
        with pytest.raises(KeyboardInterrupt):
            train(folder)
    file = folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert_equal_runs(train(folder), uninterrupted)


def test_no_pickle_is_read_on_the_way_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "checkpoint"
    with monkeypatch.context() as patch:
        patch.setattr(RetouchEnv, "step", killed_at(11, RetouchEnv.step))
        with pytest.raises(KeyboardInterrupt):
            train(folder)

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a pickle was read")

    for name in ("Unpickler", "load", "loads"):
        monkeypatch.setattr(pickle, name, refuse)
    assert {file.name for file in folder.iterdir()} == {"model.safetensors", "model.json"}
    train(folder)


def test_every_setting_and_every_file_names_another_checkpoint() -> None:
    here = fingerprint(SETTINGS, "pairs", "juror")
    assert here == fingerprint(replace(SETTINGS), "pairs", "juror")
    assert len(here) == 16
    others = {fingerprint(SETTINGS, "other pairs", "juror"), fingerprint(SETTINGS, "pairs", "other juror")}
    for field in fields(SETTINGS):
        value = getattr(SETTINGS, field.name)
        if isinstance(value, int | float):
            others.add(fingerprint(replace(SETTINGS, **{field.name: value + 1}), "pairs", "juror"))
    nested = (
        replace(SETTINGS, spec=replace(SETTINGS.spec, widths=(4, 16))),
        replace(SETTINGS, planner=replace(SETTINGS.planner, lr=0.006)),
        replace(SETTINGS, reward=replace(SETTINGS.reward, step_cost=0.03)),
        replace(SETTINGS, faults=(1, 4)),
    )
    others |= {fingerprint(settings, "pairs", "juror") for settings in nested}
    numbers = sum(isinstance(getattr(SETTINGS, field.name), int | float) for field in fields(SETTINGS))
    assert len(others - {here}) == 2 + numbers + len(nested)


def earned_by_hand(starts: Starts, slider: int, setting: float) -> float:
    """Mean fall of error and weighed logarithm, with half again for harm, when one slider is set."""
    settings = torch.zeros(len(starts.faulty), len(SLIDERS))
    settings[:, slider] = setting
    earned = []
    for faulty, reference, result in zip(starts.faulty, starts.reference, render(starts.faulty, settings), strict=True):
        first, last = (10 * float(((x - reference) ** 2).mean()) ** 0.5 for x in (faulty, result))
        weight = 0.5 * first / (first + 0.2)
        left = [error + weight * math.log10(1 + error / 0.07) for error in (first, last)]
        earned.append(left[0] - left[1] - 0.5 * max(0.0, last - first))
    return sum(earned) / len(earned)


def test_validation_known_answers() -> None:
    starts = darkened(photos(3, side=VIEW), stops=-1.0)
    nothing = validate(policy(view=VIEW), starts, 0.5)
    assert nothing == {"objective": 0.0, "gain": 0.0, "worse": 0.0, "edits": 0.0}
    exposure = slider_index("exposure")
    good = validate(policy({exposure: 0.5}, view=VIEW), starts, 0.5)
    assert good["edits"] == 3
    assert good["worse"] == 0
    assert good["objective"] == pytest.approx(earned_by_hand(starts, exposure, 0.5), rel=1e-4)
    assert good["gain"] > 1
    bad = validate(policy({exposure: -0.3}, view=VIEW), starts, 0.5)
    assert bad["worse"] == 1
    assert bad["gain"] < 0
    assert bad["objective"] == pytest.approx(earned_by_hand(starts, exposure, -0.3), rel=1e-4)
    clean = validate(policy(view=VIEW), Starts(starts.reference, starts.reference), 0.5)
    assert clean["worse"] == clean["gain"] == 0
    plan = validate(policy({exposure: 0.5}, view=VIEW), starts, 0.5, plan_only=True)
    assert plan["gain"] == pytest.approx(good["gain"], abs=1e-3)


def test_checkpoints_come_back_bit_for_bit(tmp_path: Path) -> None:
    tensors = {"a/weight": torch.rand(3, 4).T, "a/steps": torch.tensor(7), "b/flags": torch.tensor([True, False])}
    save_checkpoint(tmp_path / "deep" / "checkpoint", Checkpoint(tensors, {"phase": "plan", "best": [0.1, "ppo"]}))
    loaded = load_checkpoint(tmp_path / "deep" / "checkpoint")
    assert loaded is not None
    assert loaded.facts == {"phase": "plan", "best": [0.1, "ppo"]}
    assert loaded.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(loaded.tensors[name], tensor)
        assert loaded.tensors[name].dtype == tensor.dtype
    assert without_prefix("a", loaded.tensors).keys() == {"weight", "steps"}
    assert with_prefix("b", {"x": torch.ones(1)}).keys() == {"b/x"}


def test_a_crash_while_saving_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    save_checkpoint(folder, Checkpoint({"w": torch.ones(2)}, {"update": 1}))
    with pytest.raises(ValueError, match=r"(?i)nan|finite"):
        save_checkpoint(folder, Checkpoint({"w": torch.zeros(2)}, {"update": float("nan")}))
    loaded = load_checkpoint(folder)
    assert loaded is not None
    assert loaded.facts == {"update": 1}
    assert torch.equal(loaded.tensors["w"], torch.ones(2))
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


@pytest.mark.parametrize("damage", ["tensors", "json", "half", "nothing there"])
def test_what_cannot_be_trusted_is_no_checkpoint(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "checkpoint"
    if damage != "nothing there":
        save_checkpoint(folder, Checkpoint({"w": torch.ones(2)}, {}))
    if damage == "tensors":
        (folder / "model.safetensors").write_bytes(b"12345678 not what was written")
    if damage == "json":
        (folder / "model.json").write_text("{")
    if damage == "half":
        (folder / "model.safetensors").unlink()
    assert load_checkpoint(folder) is None
    save_checkpoint(folder, Checkpoint({"w": torch.zeros(1)}, {}))
    assert load_checkpoint(folder) is not None


def test_an_optimiser_goes_on_where_it_was() -> None:
    def run(steps: int, weights: torch.nn.Parameter, optimiser: torch.optim.Optimizer) -> None:
        for _ in range(steps):
            optimiser.zero_grad()
            ((weights - torch.arange(3.0)) ** 2).sum().backward()
            optimiser.step()

    whole = torch.nn.Parameter(torch.zeros(3))
    optimiser = torch.optim.AdamW([whole], lr=0.1)
    run(3, whole, optimiser)
    half = torch.nn.Parameter(whole.detach().clone())
    kept = {name: tensor.clone() for name, tensor in optimiser_tensors(optimiser).items()}
    run(4, whole, optimiser)
    resumed = torch.optim.AdamW([half], lr=0.1)
    restore_optimiser(resumed, kept)
    run(4, half, resumed)
    assert torch.equal(whole, half)
    restore_optimiser(torch.optim.AdamW([half], lr=0.1), {})


def test_all_randomness_goes_on_where_it_was(tmp_path: Path) -> None:
    def draw(source: np.random.Generator) -> list[float]:
        legacy = np.random.standard_normal(3)  # noqa: NPY002 - stable-baselines3 draws from the global one
        return [*torch.rand(3).tolist(), *legacy.tolist(), *np.random.permutation(5).tolist(), *source.random(3)]  # noqa: NPY002

    source = np.random.default_rng(5)
    draw(source)
    save_checkpoint(tmp_path / "chance", random_state(source))
    expected = draw(source)
    loaded = load_checkpoint(tmp_path / "chance")
    assert loaded is not None
    other = np.random.default_rng(0)
    restore_random_state(loaded, other)
    assert draw(other) == expected
