"""The trained sculptor on disk: the same answers bit by bit, and nothing that is another's or damaged."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from tests.sculptor.learn.small import FIRSTS, NETWORK, VOCABULARY, small_sculptor, small_shape
from vernissage.core.errors import CorruptArtifact, MissingArtifact
from vernissage.sculptor.domain.plan import FIELDS
from vernissage.sculptor.domain.roles import Role
from vernissage.sculptor.learn.blueprints import GUIDE_CHANNELS
from vernissage.sculptor.learn.model import Sculptor, SculptorShape
from vernissage.sculptor.learn.noise import INPUTS
from vernissage.sculptor.learn.planner import PlannerShape

if TYPE_CHECKING:
    from pathlib import Path

    from vernissage.sculptor.learn.blueprints import First

SPEC, WEIGHTS = "model.json", "model.safetensors"


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    small_sculptor().save(tmp_path / "m")
    return tmp_path / "m"


def rewrite(folder: Path, change: Any) -> None:
    record = json.loads((folder / SPEC).read_text("utf-8"))
    change(record["spec"])
    (folder / SPEC).write_text(json.dumps(record), "utf-8")


def answers(sculptor: Sculptor) -> list[torch.Tensor]:
    """Logits of every network, and the vectors of prompts behind them."""
    generator = torch.Generator().manual_seed(0)
    shape = sculptor.shape.network
    tokens = torch.randint(INPUTS, (1, 8, 8, 8), generator=generator)
    guide = torch.randn(1, shape.guide, 8, 8, 8, generator=generator)
    values = torch.stack([torch.randint(count, (1,), generator=generator) for count in FIELDS.values()], 1)
    words = sculptor.words(["tall oak", "strange thing", ""])
    condition = sculptor.network.condition(words[:1], values if shape.plan else None)
    found = [words, sculptor.network(tokens, guide, condition)]
    if sculptor.first_words is None:
        return found
    text = sculptor.first_words(["tall oak"])
    if sculptor.planner is not None:
        known = torch.ones_like(values, dtype=torch.bool)
        hidden = sculptor.planner.hidden(text, torch.zeros(1, dtype=torch.long), values, known)
        found += [hidden, sculptor.planner.value_logits(hidden, 3)]
    if sculptor.coarse is not None:
        cells = torch.zeros(1, 4, 4, 4, dtype=torch.long)
        found.append(sculptor.coarse(cells, text, torch.zeros(1, dtype=torch.long)))
    return found


@pytest.mark.parametrize("first", FIRSTS)
def test_what_is_read_answers_as_what_was_written(first: First, tmp_path: Path) -> None:
    sculptor = small_sculptor(first)
    sculptor.facts["epoch"] = 3
    sculptor.save(tmp_path)
    loaded = Sculptor.load(tmp_path)
    assert loaded.shape == sculptor.shape
    assert loaded.facts == {"epoch": 3}
    assert loaded.first == first
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    for one, other in zip(answers(sculptor), answers(loaded), strict=True):
        assert torch.equal(one, other)


def test_the_same_weights_are_written_as_the_same_bytes(saved: Path, tmp_path: Path) -> None:
    Sculptor.load(saved).save(tmp_path / "again")
    for name in (SPEC, WEIGHTS):
        assert (saved / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_the_words_are_kept_with_the_weights(saved: Path) -> None:
    """A later version with other words still gives those of the training their vectors."""
    assert Sculptor.load(saved).shape.vocabulary == VOCABULARY
    fewer = [word for word in VOCABULARY if word != "oak"]
    rewrite(saved, lambda spec: spec["shape"].update(vocabulary=fewer))
    with pytest.raises(CorruptArtifact, match="not the weights of a sculptor"):
        Sculptor.load(saved)


@pytest.mark.parametrize("first", FIRSTS)
def test_a_sculptor_has_what_comes_first_and_nothing_else(first: First) -> None:
    sculptor = small_sculptor(first)
    assert (sculptor.planner is not None) == (first == "plan")
    assert (sculptor.coarse is not None) == (first == "coarse")
    assert (sculptor.first_words is not None) == (first != "none")
    assert sculptor.shape.network.guide == GUIDE_CHANNELS[first]
    assert sculptor.shape.network.plan == (first == "plan")


@pytest.mark.parametrize("first", FIRSTS)
def test_a_shape_survives_json(first: First) -> None:
    shape = small_shape(first, network=replace(NETWORK, channels=(8, 16, 24), attention_levels=()))
    assert SculptorShape.of(json.loads(json.dumps(asdict(shape)))) == shape


@pytest.mark.parametrize(
    "change",
    [
        lambda spec: spec["tables"].update(roles=[role.name for role in reversed(Role)]),
        lambda spec: spec["tables"]["roles"].append("LAVA"),
        lambda spec: spec["tables"]["fields"].update(height=3),
        lambda spec: spec["tables"]["fields"].pop("run"),
        lambda spec: spec.pop("tables"),
    ],
)
def test_weights_of_other_tables_are_refused(saved: Path, change: Any) -> None:
    rewrite(saved, change)
    with pytest.raises(CorruptArtifact, match=r"roles or plan values are not those of this version.*train again"):
        Sculptor.load(saved)


@pytest.mark.parametrize(
    "change",
    [
        lambda spec: spec.pop("shape"),
        lambda spec: spec.pop("facts"),
        lambda spec: spec["shape"].pop("planner"),
        lambda spec: spec["shape"].update(first="coarse"),
        lambda spec: spec["shape"].update(first="anything"),
        lambda spec: spec["shape"].update(network=3),
        lambda spec: spec["shape"]["network"].update(channels=[16, 64]),
        lambda spec: spec["shape"]["network"].update(fine="wide"),
        lambda spec: spec["shape"]["network"].update(unheard_of=1),
        lambda spec: spec["shape"]["planner"].update(asdict(PlannerShape())),
    ],
)
def test_weights_of_another_shape_are_refused(saved: Path, change: Any) -> None:
    rewrite(saved, change)
    with pytest.raises(CorruptArtifact, match=r"not the weights of a sculptor.*train again"):
        Sculptor.load(saved)


@pytest.mark.parametrize("keep", [0, 100, -1])
def test_truncated_weights_are_refused(saved: Path, keep: int) -> None:
    data = (saved / WEIGHTS).read_bytes()
    (saved / WEIGHTS).write_bytes(data[:keep])
    with pytest.raises(CorruptArtifact, match=r"model\.safetensors: its hash is"):
        Sculptor.load(saved)


@pytest.mark.parametrize("name", [SPEC, WEIGHTS])
def test_missing_weights_are_missed_by_name(saved: Path, name: str) -> None:
    (saved / name).unlink()
    with pytest.raises(MissingArtifact, match=name):
        Sculptor.load(saved)
