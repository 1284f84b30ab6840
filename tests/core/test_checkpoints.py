"""Checkpoints: a training that goes on from one makes the very next step, and no other training takes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from vernissage.core.checkpoints import (
    Checkpoint,
    load_checkpoint,
    optimiser_tensors,
    restore_optimiser,
    save_checkpoint,
    with_prefix,
    without_prefix,
)

if TYPE_CHECKING:
    from pathlib import Path

FACTS = {"identity": "mine", "update": 7, "rows": [{"loss": 0.1 + 0.2}]}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    folder = tmp_path / "states" / "epoch-0001"
    save_checkpoint(folder, Checkpoint({"weight": torch.arange(6.0)}, FACTS))
    return folder


def test_what_is_read_is_what_was_written(saved: Path) -> None:
    found = load_checkpoint(saved, "mine")
    assert found is not None
    assert found.facts == FACTS
    assert torch.equal(found.tensors["weight"], torch.arange(6.0))


def test_a_later_one_takes_the_place_of_an_earlier_one(saved: Path) -> None:
    save_checkpoint(saved, Checkpoint({"other": torch.ones(1)}, FACTS | {"update": 8}))
    found = load_checkpoint(saved, "mine")
    assert found is not None
    assert found.facts["update"] == 8
    assert set(found.tensors) == {"other"}
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_one_that_cannot_be_written_leaves_the_one_before(saved: Path) -> None:
    with pytest.raises(ValueError, match="nan"):
        save_checkpoint(saved, Checkpoint({"weight": torch.zeros(1)}, {"identity": "mine", "loss": float("nan")}))
    found = load_checkpoint(saved, "mine")
    assert found is not None
    assert found.facts == FACTS
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_where_there_is_none_there_is_none(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "nowhere", "mine") is None


def test_that_of_another_training_is_left_alone(saved: Path) -> None:
    assert load_checkpoint(saved, "theirs") is None
    assert load_checkpoint(saved, "mine") is not None


@pytest.mark.parametrize("name", ["model.safetensors", "model.json"])
def test_a_damaged_one_is_taken_away(saved: Path, name: str) -> None:
    data = (saved / name).read_bytes()
    (saved / name).write_bytes(data[: len(data) // 2])
    assert load_checkpoint(saved, "mine") is None
    assert not saved.exists()


def test_prefixes_go_on_and_come_off() -> None:
    tensors = {"a": torch.ones(1), "b/c": torch.zeros(2)}
    both = with_prefix("now", tensors) | with_prefix("mean", {"a": torch.full((1,), 2.0)})
    assert set(both) == {"now/a", "now/b/c", "mean/a"}
    assert without_prefix("now", both).keys() == tensors.keys()
    assert without_prefix("mean", both)["a"] == 2
    assert without_prefix("me", both) == {}


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD, torch.optim.RMSprop])
def test_an_optimiser_that_was_restored_makes_the_same_step(kind: type[torch.optim.Optimizer], tmp_path: Path) -> None:
    def fresh() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 1))
        return network, kind(network.parameters(), lr=0.01)

    def step(network: torch.nn.Module, optimiser: torch.optim.Optimizer, number: int) -> None:
        optimiser.zero_grad()
        network(torch.randn(5, 3, generator=torch.Generator().manual_seed(number))).pow(2).mean().backward()
        optimiser.step()

    network, optimiser = fresh()
    for number in range(3):
        step(network, optimiser, number)
    tensors = with_prefix("network", network.state_dict()) | with_prefix("moments", optimiser_tensors(optimiser))
    save_checkpoint(tmp_path / "state", Checkpoint(tensors, FACTS))
    step(network, optimiser, 3)

    again, other = fresh()
    found = load_checkpoint(tmp_path / "state", "mine")
    assert found is not None
    again.load_state_dict(without_prefix("network", found.tensors))
    restore_optimiser(other, without_prefix("moments", found.tensors))
    step(again, other, 3)
    assert all(torch.equal(*pair) for pair in zip(network.parameters(), again.parameters(), strict=True))


def test_an_optimiser_that_has_not_stepped_has_nothing_to_keep() -> None:
    optimiser = torch.optim.AdamW(torch.nn.Linear(2, 2).parameters())
    assert optimiser_tensors(optimiser) == {}
    restore_optimiser(optimiser, {})
    assert optimiser_tensors(optimiser) == {}
