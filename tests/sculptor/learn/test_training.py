"""The training: a killed one goes on to the same weights, bit for bit, and what cannot be learned from is refused."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import torch

from tests.sculptor.learn.small import FIRSTS, small_training
from vernissage.core.checkpoints import load_checkpoint
from vernissage.core.errors import BadInput, BadParams
from vernissage.core.progress import Progress
from vernissage.sculptor.domain.dataset import Dataset
from vernissage.sculptor.learn.building import Building
from vernissage.sculptor.learn.looks import GENERATIONS
from vernissage.sculptor.learn.model import Sculptor
from vernissage.sculptor.learn.sculpting import Request, sculpt
from vernissage.sculptor.learn.training import (
    CHECKPOINTS,
    STATES,
    SculptorTraining,
    Trained,
    _computes_in_bfloat16,
    train_sculptor,
)

if TYPE_CHECKING:
    from pathlib import Path

    from vernissage.sculptor.learn.blueprints import First

SETTINGS = small_training()


class _Killed(Exception):  # noqa: N818 - nobody made an error
    """What a power cut would be."""


@pytest.fixture(scope="module")
def few(trees: Dataset) -> Dataset:
    """The smallest trees only, for speed."""
    by_size = sorted(range(len(trees)), key=lambda row: trees.grids[row].size)
    chosen: list[int] = []
    for split, count in (("train", 8), ("val", 3)):
        of_split = [row for row in by_size if tuple(trees.table.loc[row, ["split", "size"]]) == (split, "normal")]
        chosen += of_split[:count]
    return Dataset(tuple(trees.grids[row] for row in chosen), trees.table.iloc[chosen].reset_index(drop=True))


@pytest.fixture(scope="module")
def whole(few: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Trained, Path]:
    """A training that nobody disturbed, and its folder."""
    folder = tmp_path_factory.mktemp("whole")
    return train_sculptor(few, SETTINGS, folder), folder


def train_until(
    dataset: Dataset, settings: SculptorTraining, folder: Path, description: str, done: int, patch: pytest.MonkeyPatch
) -> None:
    """Train, and be killed when so many units of a task are done."""
    advance = Progress.advance

    def advanced(self: Progress, n: int = 1, **fields: float | str) -> None:
        advance(self, n, **fields)
        if self.description == description and self.done >= done:
            raise _Killed

    with patch.context() as context:
        context.setattr(Progress, "advance", advanced)
        with pytest.raises(_Killed):
            train_sculptor(dataset, settings, folder)


def assert_same(one: Trained, other: Trained) -> None:
    assert one.epochs == other.epochs
    assert one.buckets == other.buckets
    assert one.first == other.first
    assert one.best_epoch == other.best_epoch
    ours, theirs = one.sculptor.state_dict(), other.sculptor.state_dict()
    assert ours.keys() == theirs.keys()
    assert [name for name, tensor in ours.items() if not torch.equal(tensor, theirs[name])] == []


def _identity(folder: Path, epoch: int) -> str:
    record = json.loads((folder / STATES / f"epoch-{epoch:04d}" / "model.json").read_text("utf-8"))
    return str(record["spec"]["identity"])


def states(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / STATES).iterdir())


def test_only_the_seed_and_what_is_learned_from_have_a_say(
    few: Dataset, whole: tuple[Trained, Path], tmp_path: Path
) -> None:
    """Neither others' random numbers, which are left alone, nor the test structures."""
    first = few.table.iloc[:1].assign(split="test", structure_id="x")
    more = Dataset((*few.grids, few.grids[0]), pd.concat([few.table, first], ignore_index=True))
    assert len(more.part("test")) == 1
    torch.manual_seed(12345)
    before = torch.get_rng_state()
    assert_same(train_sculptor(more, SETTINGS, tmp_path / "again"), whole[0])
    assert torch.equal(before, torch.get_rng_state())
    other = train_sculptor(few, replace(SETTINGS, seed=1, epochs=1, updates=1), tmp_path / "other")
    assert other.epochs[0] != whole[0].epochs[0]


@pytest.mark.parametrize("done", [1, 3])
def test_a_killed_training_goes_on_to_the_same_weights(
    done: int, few: Dataset, whole: tuple[Trained, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the first look, and after it."""
    train_until(few, SETTINGS, tmp_path, "sculptor", done, monkeypatch)
    assert states(tmp_path) == ["epoch-0000", "epoch-0001"][: 1 + done // 2]
    assert_same(train_sculptor(few, SETTINGS, tmp_path), whole[0])


@pytest.mark.parametrize("first", ["plan", "coarse"])
def test_a_training_that_is_killed_before_the_voxels_goes_on_there(
    first: First, few: Dataset, whole: tuple[Trained, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = small_training(first, epochs=2 if first == "plan" else 1, updates=2 if first == "plan" else 1)
    expected = whole[0] if first == "plan" else train_sculptor(few, settings, tmp_path / "undisturbed")
    train_until(few, settings, tmp_path / "killed", first, 3, monkeypatch)
    assert not (tmp_path / "killed" / STATES).exists()
    assert_same(train_sculptor(few, settings, tmp_path / "killed"), expected)


def test_a_training_that_is_done_is_read_back(
    few: Dataset, whole: tuple[Trained, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(whole[1], tmp_path / "copy")
    # Nothing is taught: the first update would end it.
    steps: list[int] = []
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda *_, **__: steps.append(1))
    assert_same(train_sculptor(few, SETTINGS, tmp_path / "copy"), whole[0])
    assert steps == []


def test_a_damaged_state_gives_way_to_the_one_before(few: Dataset, whole: tuple[Trained, Path], tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(whole[1], folder)
    last = folder / STATES / "epoch-0002" / "model.safetensors"
    data = bytearray(last.read_bytes())
    data[len(data) // 2] ^= 1
    last.write_bytes(data)
    assert_same(train_sculptor(few, SETTINGS, folder), whole[0])
    for state in (folder / STATES).iterdir():
        (state / "model.json").unlink()
    assert_same(train_sculptor(few, SETTINGS, folder), whole[0])


def test_what_a_training_with_other_settings_left_is_not_taken_over(
    few: Dataset, whole: tuple[Trained, Path], tmp_path: Path
) -> None:
    shutil.copytree(whole[1], tmp_path / "copy")
    settings = replace(SETTINGS, epochs=1, updates=1, lr=1e-4)
    expected = train_sculptor(few, settings, tmp_path / "fresh")
    assert_same(train_sculptor(few, settings, tmp_path / "copy"), expected)
    assert _identity(tmp_path / "copy", 1) == _identity(tmp_path / "fresh", 1) != _identity(whole[1], 1)


def test_what_a_training_on_other_structures_left_is_not_taken_over(
    few: Dataset, whole: tuple[Trained, Path], tmp_path: Path
) -> None:
    shutil.copytree(whole[1], tmp_path / "copy")
    grids = (few.grids[0].copy(), *few.grids[1:])
    grids[0][-1, 0, 0] = 3
    train_sculptor(Dataset(grids, few.table), replace(SETTINGS, epochs=1, updates=1), tmp_path / "copy")
    assert states(tmp_path / "copy") == ["epoch-0000", "epoch-0001"]
    assert _identity(tmp_path / "copy", 1) != _identity(whole[1], 1)


@pytest.mark.parametrize("first", FIRSTS)
def test_a_training_leaves_weights_pictures_and_a_sculptor_that_builds(
    first: First, few: Dataset, whole: tuple[Trained, Path], tmp_path: Path
) -> None:
    trained, folder = whole
    if first != "plan":
        trained, folder = train_sculptor(few, small_training(first, epochs=1, updates=1), tmp_path), tmp_path
    assert trained.sculptor.first == first
    assert not trained.sculptor.training
    names = ["epoch-0001", "epoch-0002"][: 2 if first == "plan" else 1]
    assert sorted(path.name for path in (folder / CHECKPOINTS).iterdir()) == names
    assert sorted(path.stem for path in (folder / GENERATIONS).iterdir()) == names
    kept = Sculptor.load(folder / CHECKPOINTS / f"epoch-{trained.best_epoch:04d}")
    ours = trained.sculptor.state_dict()
    assert all(torch.equal(tensor, ours[name]) for name, tensor in kept.state_dict().items())
    request = Request("tall oak", seed=1)
    one, other = (sculpt(sculptor, [request], Building(steps=2))[0] for sculptor in (kept, trained.sculptor))
    np.testing.assert_array_equal(one.roles, other.roles)
    assert trained.sculptor.facts["epoch"] == trained.best_epoch
    json.dumps(trained.sculptor.facts, allow_nan=False)


def test_the_tables_have_a_row_for_every_look(whole: tuple[Trained, Path]) -> None:
    trained, _ = whole
    assert [row["epoch"] for row in trained.epochs] == [1, 2]
    assert {row["epoch"] for row in trained.buckets} == {1, 2}
    assert [row["update"] for row in trained.first] == [1, 2, 3, 4]
    columns = {"epoch", "lr", "loss", "masked_loss", "masked_accuracy", "connectivity", "whole", "objective", "kept"}
    for row in trained.epochs:
        assert row.keys() >= columns
        assert row.keys() == trained.epochs[0].keys()
        assert math.isfinite(row["loss"])
    assert [row["epoch"] for row in trained.epochs if row["kept"]] == [trained.best_epoch]
    assert max(trained.epochs, key=lambda row: row["objective"])["epoch"] == trained.best_epoch
    summary = trained.summary()
    assert summary["epoch"] == trained.best_epoch
    json.dumps(summary, allow_nan=False)


def test_looks_come_every_so_many_epochs_and_at_the_end(few: Dataset, tmp_path: Path) -> None:
    settings = replace(SETTINGS, epochs=3, updates=1, checkpoint_every=2, first_updates=1)
    assert [row["epoch"] for row in train_sculptor(few, settings, tmp_path).epochs] == [2, 3]


def test_patience_ends_a_training_that_gets_no_better(few: Dataset, tmp_path: Path) -> None:
    """Nothing is learned at such a rate: every look is as good as the first."""
    settings = replace(SETTINGS, epochs=9, updates=1, patience=1, lr=1e-30, first_updates=1)
    trained = train_sculptor(few, settings, tmp_path)
    assert [row["epoch"] for row in trained.epochs] == [1, 2]
    assert trained.best_epoch == 1
    assert len({row["objective"] for row in trained.epochs}) == 1
    again = train_sculptor(few, settings, tmp_path)
    assert_same(again, trained)


def test_it_learns(trees: Dataset, tmp_path: Path) -> None:
    """After some dozen updates structures that it never saw are easier to guess than after a few."""
    settings = replace(
        SETTINGS, epochs=10, updates=4, checkpoint_every=3, lr=5e-3, ema=0.8, validation=6, generations=0
    )
    first, *_, last = train_sculptor(trees, settings, tmp_path).epochs
    assert last["loss"] < first["loss"]
    assert last["masked_loss"] < 0.95 * first["masked_loss"]


def test_the_mean_of_the_weights_is_what_is_kept(whole: tuple[Trained, Path]) -> None:
    """The last weights differ from their running mean; what is not learned with the voxels is in both."""
    _, folder = whole
    state = load_checkpoint(folder / STATES / "epoch-0002", _identity(folder, 2))
    assert state is not None
    last = {n.removeprefix("sculptor/"): t for n, t in state.tensors.items() if n.startswith("sculptor/")}
    mean = {n.removeprefix("mean/"): t for n, t in state.tensors.items() if n.startswith("mean/")}
    assert any(not torch.equal(mean[name], tensor) for name, tensor in last.items() if name.startswith("network."))
    for name, tensor in mean.items():
        if name.startswith(("planner.", "first_words.")):
            assert torch.equal(tensor, last[name]), name


def test_a_loss_that_is_no_number_ends_it_and_leaves_what_was_learned(few: Dataset, tmp_path: Path) -> None:
    settings = replace(SETTINGS, updates=4, lr=1e30)
    with pytest.raises(BadInput, match=r"the loss is (nan|inf) at update [1-3].*lower lr \(now 1e\+30\)") as caught:
        train_sculptor(few, settings, tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert states(tmp_path) == ["epoch-0000"]
    assert load_checkpoint(tmp_path / STATES / "epoch-0000", "") is None
    assert (tmp_path / STATES / "epoch-0000").is_dir()


def test_without_structures_to_learn_from_or_to_validate_on_it_does_not_begin(few: Dataset, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no structures to validate on; raise structures\.val"):
        train_sculptor(few.part("train"), SETTINGS, tmp_path)
    with pytest.raises(BadInput, match="no structures to learn from"):
        train_sculptor(few.part("val"), SETTINGS, tmp_path)
    with pytest.raises(BadInput, match=r"the mix .* gives none of them a share"):
        train_sculptor(few, replace(SETTINGS, mix={"huge": 1.0}), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        *(({name: 0}, f"{name} = 0, expected at least 1") for name in ("epochs", "updates", "checkpoint_every")),
        *(({name: -3}, f"{name} = -3") for name in ("voxels", "captions", "first_batch", "validation")),
        ({"lr": 0.0}, "lr = 0.0, expected a number above 0"),
        ({"first_lr": math.nan}, "first_lr = nan"),
        ({"lr": math.inf}, "lr = inf"),
    ],
)
def test_settings_out_of_range_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(BadParams, match=rf"train\.sculptor: {said}"):
        SculptorTraining(**changes)


def test_bfloat16_is_taken_where_it_is_quick_or_asked_for(few: Dataset, tmp_path: Path) -> None:
    cpu = torch.device("cpu")
    assert _computes_in_bfloat16("bfloat16", cpu)
    assert not _computes_in_bfloat16("float32", cpu)
    quick = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    assert _computes_in_bfloat16("auto", cpu) == quick
    settings = replace(SETTINGS, epochs=1, updates=1, first_updates=1)
    rows = [
        train_sculptor(few, replace(settings, precision=name), tmp_path / name).epochs[0]["loss"]
        for name in ("float32", "bfloat16")
    ]
    assert rows[0] != rows[1]
    assert rows[1] == pytest.approx(rows[0], rel=0.05)
