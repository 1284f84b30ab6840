"""Training: what is kept validates best, and a run that was killed ends with the weights of one that was not."""

from __future__ import annotations

import math
import pickle
import re
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from tests.retoucher.learn.worlds import REWARD, darkened, photos, policy, policy_spec, untrained_juror
from vernissage.core.tables import fingerprint
from vernissage.retoucher.domain.faults import FAULTS
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
from vernissage.retoucher.learn.environment import RetouchEnv
from vernissage.retoucher.learn.oracle import OracleTrainer, OracleTraining
from vernissage.retoucher.learn.planner import PlannerTrainer, PlannerTraining
from vernissage.retoucher.learn.reinforcement import Reinforcement
from vernissage.retoucher.learn.rewards import Reward
from vernissage.retoucher.learn.scenes import Pictures, Starts
from vernissage.retoucher.learn.training import RetoucherTrainer, RetoucherTraining, Thumbnails, Trained, validate

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

VIEW = 16
SETTINGS = RetoucherTraining(
    spec=policy_spec(view=VIEW, horizon=3),
    planner=PlannerTraining(images=9 * 4, batch=4, lr=0.005, harm_aversion=0.5),
    oracle=OracleTraining(images=4 * 4, batch=4, lr=1e-3, plan_pace=0.5),
    reinforcement=Reinforcement(
        algorithm="ppo",
        steps=6 * 16,
        slots=4,
        rollout=4,
        epochs=2,
        batch=8,
        lr=1e-3,
        plan_pace=1.0,
        gamma=1.0,
        gae_lambda=0.9,
        clip=0.2,
        sharpness=20.0,
        entropy=0.002,
        # One rollout more than fits, so that old edits are written over.
        dqn_buffer=5 * 16,
        dqn_target_every=32,
        dqn_exploration=(0.5, 0.1),
    ),
    reward=Reward({**REWARD.mixture, "reference_distance": (1.0, 0.4), "success_bonus": (0.0, 0.1)}, REWARD.terms),
    validate_every=2,
    scene_variation=0.5,
    full_range_share=0.5,
    stored_share=0.3,
    clean_share=0.2,
    faults=(1, 3),
    kinds=tuple(FAULTS),
    taken_at=32,
    seed=3,
)
DQN = replace(SETTINGS, reinforcement=replace(SETTINGS.reinforcement, algorithm="dqn"))
PHOTOS = photos(4, side=VIEW)
DATA = Thumbnails(Pictures.of_thumbnails(PHOTOS), darkened(PHOTOS), darkened(photos(3, side=VIEW, first=20)))


class Watched(RetoucherTrainer):
    """Remembers the weights that the training ended with, which are not always the ones that it keeps."""

    def _look(self, *arguments: Any, **options: Any) -> str:
        self.last = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}
        return super()._look(*arguments, **options)


def train(folder: Path, settings: RetoucherTraining = SETTINGS) -> tuple[Trained, dict[str, torch.Tensor]]:
    trainer = Watched(DATA, untrained_juror(1, VIEW), settings, folder)
    trained = trainer.train()
    return trained, trainer.last


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trained, dict[str, torch.Tensor]]:
    return train(tmp_path_factory.mktemp("whole") / "checkpoint")


@pytest.fixture(scope="module")
def uninterrupted_dqn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trained, dict[str, torch.Tensor]]:
    return train(tmp_path_factory.mktemp("whole") / "checkpoint", DQN)


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


@pytest.mark.parametrize("settings", [SETTINGS, DQN], ids=["ppo", "dqn"])
def test_a_training_runs_through_all_phases_and_leaves_no_checkpoint(
    settings: RetoucherTraining, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, algorithm = tmp_path / "checkpoint", settings.reinforcement.algorithm
    trained, last = train(folder, settings)
    assert not folder.exists()
    phases = [(row["phase"], row["update"]) for row in trained.curves]
    lessons = [("oracle", n) for n in range(5)]
    assert phases == [("plan", n) for n in range(1, 10)] + lessons + [(algorithm, n) for n in (0, 2, 4, 6)]
    for row in trained.curves:
        paid = "loss" if row["phase"] == "plan" else "reward"  # one table for all that is in units of reward
        assert list(row) == ["phase", "update", paid, "objective", "gain", "worse", "edits"]
        assert 0 <= row["worse"] <= 1
        assert 0 <= row["edits"] <= 3
    assert (trained.summary["algorithm"], trained.summary["iterations"]) == (algorithm, 6)
    assert (trained.summary["plan_updates"], trained.summary["oracle_updates"]) == (9, 4)
    assert not trained.network.training
    assert all(weights.requires_grad for weights in trained.network.parameters())
    # The weights that are kept are those that validated best as a policy.
    stepping = [row["objective"] for row in trained.curves if row["phase"] != "plan"]
    assert trained.summary["objective"] == pytest.approx(max(stepping), abs=1e-6)
    assert trained.summary["validation"]["objective"] == pytest.approx(max(stepping), abs=1e-6)
    # Learning by reward begins with the best weights of the lessons.
    assert trained.curves[14]["objective"] == max(row["objective"] for row in trained.curves[9:14])
    start = policy(view=VIEW, horizon=3).state_dict()
    for part in ("trunk.", "plan_head.", "residual."):
        assert any(not torch.equal(last[name], start[name]) for name in start if name.startswith(part))
    said = capsys.readouterr().out
    number, share = r"[+-]\d\.\d{4}", r"\d+\.\d%"
    looked = rf"objective {number}( \(best\))?, gain {number}, worse {share}"
    assert re.search(rf"{algorithm}: look at 6: {looked}, \d\.\d edits, [\d.e+]+ edits/s\n", said)
    assert re.search(rf"oracle: look at 0: {looked}, \d\.\d edits\n", said)
    assert re.search(rf"oracle: look at 4: {looked}, \d\.\d edits, [\d.e+]+ views/s\n", said)
    assert re.search(rf"plan: look at 9: {looked}, [\d.e+]+ photos/s\n", said)


def test_a_long_plan_is_looked_at_about_twenty_times(tmp_path: Path) -> None:
    settings = replace(
        SETTINGS,
        planner=replace(SETTINGS.planner, images=43 * 4),
        oracle=replace(SETTINGS.oracle, images=0),
        reinforcement=replace(SETTINGS.reinforcement, steps=0),
    )
    trained, _ = train(tmp_path / "checkpoint", settings)
    looks = [("plan", n) for n in (*range(2, 43, 2), 43)]
    assert [(row["phase"], row["update"]) for row in trained.curves] == [*looks, ("ppo", 0)]
    assert trained.summary["kept_from"] == "plan"
    assert (trained.summary["oracle_updates"], trained.summary["iterations"]) == (0, 0)


def test_the_plan_can_be_kept_as_it_was_taught(tmp_path: Path) -> None:
    still = replace(
        SETTINGS,
        oracle=replace(SETTINGS.oracle, plan_pace=0.0),
        reinforcement=replace(SETTINGS.reinforcement, plan_pace=0.0),
    )
    taught: dict[str, torch.Tensor] = {}

    def remember(phase: str, update: int, seen: dict[str, float]) -> None:
        if (phase, update) == ("oracle", 0):
            taught.update({name: tensor.clone() for name, tensor in trainer.network.state_dict().items()})

    trainer = Watched(DATA, untrained_juror(1, VIEW), still, tmp_path / "checkpoint", remember)
    trainer.train()
    changed = {name.partition(".")[0] for name, tensor in taught.items() if not torch.equal(tensor, trainer.last[name])}
    assert not changed & {"trunk", "plan_head", "trust"}
    assert {"residual", "critic", "log_sharpness"} <= changed


def test_after_every_look_the_caller_hears_what_was_seen_while_the_network_holds_those_weights(tmp_path: Path) -> None:
    heard: list[tuple[str, int]] = []

    def listen(phase: str, update: int, seen: dict[str, float]) -> None:
        heard.append((phase, update))
        again = validate(trainer.network, DATA.held_out, REWARD.terms.harm_aversion, plan_only=phase == "plan")
        assert again == seen

    trainer = RetoucherTrainer(DATA, untrained_juror(1, VIEW), SETTINGS, tmp_path / "checkpoint", on_look=listen)
    trained = trainer.train()
    assert heard == [(row["phase"], row["update"]) for row in trained.curves]


def test_a_listener_may_end_the_training(tmp_path: Path) -> None:
    class Pruned(Exception):  # noqa: N818
        pass

    def prune(phase: str, update: int, seen: dict[str, float]) -> None:
        if (phase, update) == ("ppo", 2):
            raise Pruned

    with pytest.raises(Pruned):
        RetoucherTrainer(DATA, untrained_juror(1, VIEW), SETTINGS, tmp_path / "checkpoint", prune).train()


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
        (PlannerTrainer, "step", 5),
        (PlannerTrainer, "step", 9),
        (OracleTrainer, "step", 1),
        (OracleTrainer, "step", 3),
        (RetouchEnv, "step", 6),
        (RetouchEnv, "step", 15),
        (RetouchEnv, "step", 27),
        (RetoucherTrainer, "_save", 16),
    ],
    ids=[
        "before any checkpoint",
        "plan",
        "last plan update",
        "first lesson",
        "lessons",
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
    assert folder.exists() == ((owner, call) != (PlannerTrainer, 1))
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
    assert steps == ({1: 9, 5: 5, 9: 1}[call] if owner is PlannerTrainer else 0)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("owner", "name", "call"),
    [(RetouchEnv, "step", 6), (RetouchEnv, "step", 15), (RetouchEnv, "step", 27), (RetoucherTrainer, "_save", 16)],
    ids=["first rollout", "memory not full", "memory full", "last checkpoint"],
)
def test_dqn_goes_on_with_its_memory_and_its_target(
    owner: type,
    name: str,
    call: int,
    uninterrupted_dqn: tuple[Trained, dict[str, torch.Tensor]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "checkpoint"
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, killed_at(call, getattr(owner, name)))
        with pytest.raises(KeyboardInterrupt):
            train(folder, DQN)
    torch.rand(7)
    np.random.rand(5)  # noqa: NPY002
    assert_equal_runs(train(folder, DQN), uninterrupted_dqn)
    assert not folder.exists()


def test_a_training_may_be_killed_in_every_phase(
    uninterrupted: tuple[Trained, dict[str, torch.Tensor]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "checkpoint"
    deaths = ((PlannerTrainer, 4), (PlannerTrainer, 4), (OracleTrainer, 2), (RetouchEnv, 12), (RetouchEnv, 9))
    for owner, call in deaths:
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
        patch.setattr(RetouchEnv, "step", killed_at(15, RetouchEnv.step))
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
        patch.setattr(RetouchEnv, "step", killed_at(15, RetouchEnv.step))
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
        replace(SETTINGS, oracle=replace(SETTINGS.oracle, images=17)),
        replace(SETTINGS, reinforcement=replace(SETTINGS.reinforcement, gamma=0.9)),
        replace(SETTINGS, reinforcement=replace(SETTINGS.reinforcement, dqn_exploration=(0.5, 0.2))),
        DQN,
        replace(SETTINGS, reward=replace(SETTINGS.reward, terms=replace(SETTINGS.reward.terms, step_cost=0.03))),
        replace(SETTINGS, reward=replace(SETTINGS.reward, mixture={"reference_distance": (1.0, 0.5)})),
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
