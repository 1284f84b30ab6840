"""What comes first is taught: plans turn many at a time as one does, and sizes get their share."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from tests.sculptor.learn.small import small_shape, small_training
from vernissage.core.checkpoints import load_checkpoint
from vernissage.core.errors import BadInput
from vernissage.sculptor.domain.plan import MOST, SYMMETRIES, Plan
from vernissage.sculptor.learn.examples import examples_of
from vernissage.sculptor.learn.first import FIRST_STATE, train_first, turned_plans
from vernissage.sculptor.learn.model import Sculptor

if TYPE_CHECKING:
    from pathlib import Path

    from vernissage.sculptor.domain.dataset import Dataset
    from vernissage.sculptor.learn.blueprints import First


def full(path: np.ndarray) -> np.ndarray:
    return np.concatenate([path, np.repeat(path[-1:], MOST.height - len(path), 0)])


def test_many_plans_turn_as_each_of_them_does(trees: Dataset) -> None:
    plans = [b.plan for b in examples_of(trees, "plan", captions=0, seed=0).blueprints if b.plan is not None]
    rows = np.repeat(np.arange(len(plans)), SYMMETRIES)
    symmetries = np.tile(np.arange(SYMMETRIES), len(plans))
    values = np.stack([plans[row].values for row in rows])
    paths = np.stack([full(plans[row].path) for row in rows])
    given = values.copy(), paths.copy()
    turned_values, turned_paths = turned_plans(values, paths, symmetries)
    for place, (row, symmetry) in enumerate(zip(rows, symmetries, strict=True)):
        expected = Plan(plans[row].values, full(plans[row].path)).turned(int(symmetry))
        np.testing.assert_array_equal(turned_values[place], expected.values)
        np.testing.assert_array_equal(turned_paths[place], expected.path)
    np.testing.assert_array_equal(values, given[0])
    np.testing.assert_array_equal(paths, given[1])


def taught(trees: Dataset, folder: Path, first: First, updates: int) -> tuple[Sculptor, list[dict[str, float]]]:
    examples = examples_of(trees, first, captions=1, seed=0)
    torch.manual_seed(1)
    sculptor = Sculptor(small_shape(first))
    settings = small_training(first, first_updates=updates, first_batch=12, first_lr=1e-2)
    return sculptor, train_first(sculptor, examples, settings, folder, f"identity {updates}")


@pytest.mark.parametrize("first", ["plan", "coarse"])
def test_it_learns(first: First, trees: Dataset, tmp_path: Path) -> None:
    sculptor, rows = taught(trees.part("train", "normal"), tmp_path, first, 30)
    assert [row["update"] for row in rows] == sorted({row["update"] for row in rows})
    assert rows[-1]["update"] == 30
    losses = [row["loss"] for row in rows]
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    rates = [row["lr"] for row in rows]
    assert max(rates) <= 1e-2
    assert rates[-1] < 0.1 * max(rates)
    assert rates[0] < max(rates)
    # The network of voxels is not touched.
    torch.manual_seed(1)
    fresh = Sculptor(small_shape(first))
    untouched = {name: t for name, t in fresh.state_dict().items() if name.startswith(("network.", "words."))}
    assert all(torch.equal(tensor, sculptor.state_dict()[name]) for name, tensor in untouched.items())


def test_where_nothing_comes_first_nothing_is_taught(trees: Dataset, tmp_path: Path) -> None:
    _, rows = taught(trees, tmp_path, "none", 5)
    assert rows == []
    assert not list(tmp_path.iterdir())


def test_a_second_call_takes_over_what_was_taught(trees: Dataset, tmp_path: Path) -> None:
    once, rows = taught(trees, tmp_path, "plan", 4)
    assert (tmp_path / FIRST_STATE).is_dir()
    assert load_checkpoint(tmp_path / FIRST_STATE, "identity 4") is not None
    again, same_rows = taught(trees, tmp_path, "plan", 4)
    assert rows == same_rows
    assert all(torch.equal(t, again.state_dict()[name]) for name, t in once.state_dict().items())
    _, others = taught(trees, tmp_path, "plan", 2)
    assert [row["update"] for row in others] == [1, 2]


@pytest.mark.parametrize("first", ["plan", "coarse"])
def test_a_loss_that_is_no_number_ends_it(first: First, trees: Dataset, tmp_path: Path) -> None:
    examples = examples_of(trees, first, captions=1, seed=0)
    settings = small_training(first, first_lr=1e30)
    with pytest.raises(BadInput, match=rf"the {first}'s loss is (nan|inf) at update [1-3]; lower lr"):
        train_first(Sculptor(small_shape(first)), examples, settings, tmp_path, "x")


def test_every_size_gets_its_share_of_the_structures(trees: Dataset) -> None:
    from vernissage.sculptor.learn.first import _chances

    examples = examples_of(trees, "none", captions=0, seed=0)
    examples = replace(examples, own=tuple(number % 3 == 0 for number in range(len(examples))))
    mix = {"normal": 0.2, "big": 0.5, "huge": 0.3}
    chances = _chances(examples, small_training(mix=mix, own_share=0.25))
    assert chances.sum() == pytest.approx(1)
    by_size: Counter[str] = Counter()
    own: Counter[str] = Counter()
    for chance, size, mine in zip(chances, examples.sizes, examples.own, strict=True):
        by_size[size] += chance
        own[size] += chance * mine
    assert dict(by_size) == pytest.approx(mix)
    assert own["normal"] == pytest.approx(0.25 * mix["normal"])
    with pytest.raises(BadInput, match="the mix gives none of them a share"):
        _chances(examples, small_training(mix={}))
