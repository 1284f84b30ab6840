"""Cases about training: they pass, and what was cut off or damaged is noticed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from tests.sculptor.judge.robust import subject
from vernissage.core.weights import save_weights
from vernissage.sculptor.judge.training_cases import _broken_states, _differ, at_call
from vernissage.sculptor.judge.trials import small_shape
from vernissage.sculptor.learn.network import VoxelNetwork
from vernissage.sculptor.learn.training import STATES

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("number", [10, 16])
def test_trainings_that_are_killed_or_starved_pass(number: int) -> None:
    result = subject().run(number)[number]
    assert result.passed, result.found
    assert result.retained is None


def test_something_is_done_before_the_nth_call_that_learns() -> None:
    network = VoxelNetwork(small_shape("plan").network)
    shape = network.shape
    inputs = (
        torch.zeros(1, 4, 4, 4, dtype=torch.long),
        torch.zeros(1, shape.guide, 4, 4, 4),
        torch.zeros(1, shape.condition),
    )
    done: list[int] = []
    with at_call(2, lambda: done.append(1)):
        with torch.no_grad():
            network(*inputs)
            network(*inputs)
        network(*inputs)
        assert done == []
        network(*inputs)
        assert done == [1]
        network(*inputs)
    network(*inputs)
    assert done == [1]


def test_weights_that_differ_are_counted() -> None:
    one = {"a": torch.zeros(2), "b": torch.ones(2)}
    assert _differ("x", one, one) == ""
    assert _differ("x", one | {"b": torch.zeros(2)}, one) == "x: 1 of 2 tensors differ"
    assert _differ("x", {"a": one["a"]}, one) == "x: 1 of 2 tensors differ"


def test_states_that_are_cut_off_or_rubbish_are_noticed(tmp_path: Path) -> None:
    assert _broken_states(tmp_path) == [f"{tmp_path.name}: no state is left"]
    save_weights(tmp_path / STATES / "epoch-0000", {"w": torch.zeros(8)}, {})
    assert _broken_states(tmp_path) == []
    save_weights(tmp_path / STATES / "epoch-0001", {"w": torch.full((8,), torch.nan)}, {})
    assert "no number" in _broken_states(tmp_path)[0]
    weights = tmp_path / STATES / "epoch-0000" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    assert len(_broken_states(tmp_path)) == 2
