"""Examples and batches: every size gets its share, structures are turned and back, and nothing else decides."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from tests.sculptor.learn.small import FIRSTS
from vernissage.core.errors import BadInput
from vernissage.sculptor.domain.dataset import Dataset
from vernissage.sculptor.domain.plan import SYMMETRIES, measure_plan, turned_grid
from vernissage.sculptor.domain.roles import OUTSIDE, Role
from vernissage.sculptor.learn.blueprints import coarse_of, guides_of
from vernissage.sculptor.learn.examples import Batches, Examples, examples_of

if TYPE_CHECKING:
    from vernissage.sculptor.learn.blueprints import First

MIX = {"normal": 0.5, "big": 0.3, "huge": 0.2}


def examples(trees: Dataset, first: First = "plan", captions: int = 2, seed: int = 0) -> Examples:
    return examples_of(trees, first, captions=captions, seed=seed)


def batches(of: Examples, **changes: Any) -> Batches:
    values: dict[str, Any] = {"multiple": 4, "voxels": 12_000, "mix": MIX, "own_share": 0.3, "text_dropout": 0.25}
    return Batches(of, **values | changes)


def drawn(of: Batches, count: int, seed: int = 0) -> list[Any]:
    memory, rng = of.empty_memory(), np.random.default_rng(seed)
    return [of.draw(rng, memory) for _ in range(count)]


@pytest.mark.parametrize("first", FIRSTS)
def test_every_structure_is_measured_in_its_box(first: First, trees: Dataset) -> None:
    found = examples(trees, first)
    assert len(found) == len(trees)
    assert found.sizes == tuple(trees.table["size"])
    for blueprint, grid, roles in zip(found.blueprints, found.grids, trees.grids, strict=True):
        assert blueprint.box == grid.shape
        assert (grid > 0).sum() == (roles > 0).sum()
        if first == "plan":
            np.testing.assert_array_equal(grid, roles)
    assert set(found.roles) == {int(role) for roles in trees.grids for role in np.unique(roles)} | {int(Role.AIR)}


def test_a_species_is_taken_from_the_table(trees: Dataset) -> None:
    species = [blueprint.plan.species for blueprint in examples(trees).blueprints if blueprint.plan is not None]
    assert species == list(trees.table["species"])


def test_captions_belong_to_the_structure_and_the_seed(trees: Dataset) -> None:
    one, again, other = examples(trees), examples(trees), examples(trees, seed=1)
    assert one.captions == again.captions
    assert one.captions != other.captions
    assert all(len(captions) == 2 for captions in one.captions)
    # Not to those that stand before it.
    half = Dataset(trees.grids[10:], trees.table[10:].reset_index(drop=True))
    assert examples(half).captions == one.captions[10:]


def test_without_structures_there_is_nothing_to_learn(trees: Dataset) -> None:
    with pytest.raises(BadInput, match=r"no structures to learn from; add some .* or raise structures\.train"):
        examples(trees.part("test"))


@pytest.mark.parametrize("first", FIRSTS)
def test_a_batch_is_of_turned_structures_on_one_canvas(first: First, trees: Dataset) -> None:
    found = examples(trees, first)
    for batch in drawn(batches(found), 12):
        canvas = tuple(batch.x0.shape[1:])
        assert all(side % 4 == 0 for side in canvas)
        assert batch.x0.dtype == torch.int64
        assert (batch.drawn == OUTSIDE).all()
        plans, cells = [], []
        for row, symmetry, x0, inside in zip(batch.rows, batch.symmetries, batch.x0, batch.guides.inside, strict=True):
            form = turned_grid(found.grids[row], int(symmetry))
            corner = tuple(slice(side) for side in form.shape)
            np.testing.assert_array_equal(x0[corner].numpy(), form)
            assert torch.equal(x0 != OUTSIDE, inside)
            if first == "plan":
                blueprint = found.blueprints[row].plan
                assert blueprint is not None
                measured = measure_plan(form, species=blueprint.species).values
                # Attributes such as the crown's form are measured once, on the structure as it is.
                plans.append((measured, blueprint.turned(int(symmetry)).values))
            elif first == "coarse":
                cells.append(coarse_of(form))
        if batch.guides.values is not None:
            for values, (measured, turned) in zip(batch.guides.values, plans, strict=True):
                np.testing.assert_array_equal(values.numpy(), turned)
                np.testing.assert_array_equal(measured, turned)


def test_the_guides_of_a_batch_are_those_of_its_blueprints(trees: Dataset) -> None:
    found = examples(trees, "none")
    for batch in drawn(batches(found), 3):
        blueprints = [found.blueprints[row] for row in batch.rows]
        turned = [
            replace(b, box=tuple(np.array(b.box)[[0, 2, 1]])) if s & 4 else b
            for b, s in zip(blueprints, batch.symmetries, strict=True)
        ]
        expected = guides_of(turned, tuple(batch.x0.shape[1:]), "none")
        assert torch.equal(batch.guides.channels, expected.channels)


def test_sizes_take_their_share_of_the_voxels(trees: Dataset) -> None:
    found = examples(trees, "none")
    voxels: Counter[str] = Counter()
    for batch in drawn(batches(found), 400):
        voxels[found.sizes[batch.rows[0]]] += batch.x0.numel()
        assert len({found.sizes[row] for row in batch.rows}) == 1
    for size, share in MIX.items():
        assert voxels[size] / voxels.total() == pytest.approx(share, abs=0.1)


def test_shares_of_sizes_that_do_not_occur_go_to_the_others(trees: Dataset) -> None:
    normal = examples(trees.part("train", "normal"))
    assert {normal.sizes[row] for batch in drawn(batches(normal), 10) for row in batch.rows} == {"normal"}
    only_big = batches(examples(trees), mix={"big": 1.0})
    assert {only_big.examples.sizes[row] for batch in drawn(only_big, 10) for row in batch.rows} == {"big"}


@pytest.mark.parametrize("mix", [{}, {"normal": 0.0, "big": 0.0, "huge": 0.0}, {"giant": 1.0}])
def test_a_mix_that_gives_nothing_a_share_is_refused(mix: dict[str, float], trees: Dataset) -> None:
    with pytest.raises(BadInput, match=r"sizes \['big', 'huge', 'normal'\] occur, but the mix"):
        batches(examples(trees), mix=mix)


def test_own_structures_get_their_share_and_all_of_it_where_they_are_alone(trees: Dataset) -> None:
    found = examples(trees.part("train", "normal"), "none")
    mixed = replace(found, own=tuple(number < 2 for number in range(len(found))))
    counts: Counter[bool] = Counter()
    for batch in drawn(batches(mixed, own_share=0.4), 200):
        counts.update(mixed.own[row] for row in batch.rows)
    assert counts[True] / counts.total() == pytest.approx(0.4, abs=0.12)
    alone = replace(found, own=(True,) * len(found))
    assert drawn(batches(alone, own_share=0.0), 1)


def test_a_batch_has_about_the_voxels_that_were_asked_for(trees: Dataset) -> None:
    for batch in drawn(batches(examples(trees, "none"), voxels=20_000), 20):
        rows, canvas = len(batch.rows), batch.x0[0].numel()
        assert 2 <= rows <= 64
        assert rows * canvas <= 20_000 or rows == 2
        assert (rows + 1) * canvas > 20_000 or rows == 64


def test_some_structures_are_taught_without_a_caption(trees: Dataset) -> None:
    found = examples(trees)
    told = [
        (row, prompt)
        for batch in drawn(batches(found), 100)
        for row, prompt in zip(batch.rows, batch.prompts, strict=True)
    ]
    assert sum(not prompt for _, prompt in told) / len(told) == pytest.approx(0.25, abs=0.08)
    assert all(prompt in found.captions[row] for row, prompt in told if prompt)
    assert all(not prompt for batch in drawn(batches(found, text_dropout=1.0), 5) for prompt in batch.prompts)
    silent = examples(trees, captions=0)
    assert all(not prompt for batch in drawn(batches(silent, text_dropout=0.0), 5) for prompt in batch.prompts)


def test_all_symmetries_and_all_structures_come(trees: Dataset) -> None:
    found = examples(trees.part("val"), "none")
    many = drawn(batches(found), 80)
    assert {int(symmetry) for batch in many for symmetry in batch.symmetries} == set(range(SYMMETRIES))
    assert {int(row) for batch in many for row in batch.rows} == set(range(len(found)))


def test_the_same_generator_draws_the_same_batches(trees: Dataset) -> None:
    of = batches(examples(trees))
    for one, other in zip(drawn(of, 3, seed=5), drawn(of, 3, seed=5), strict=True):
        assert torch.equal(one.x0, other.x0)
        assert torch.equal(one.guides.channels, other.guides.channels)
        assert one.prompts == other.prompts
    assert any(a.prompts != b.prompts for a, b in zip(drawn(of, 3, seed=5), drawn(of, 3, seed=6), strict=True))


@pytest.mark.parametrize("first", ["plan", "none"])
def test_what_the_network_drew_comes_back_turned_as_the_structure_is(first: First, trees: Dataset) -> None:
    """Drawn for one turn of a structure, it is remembered for all."""
    found = examples(trees.part("val", "normal"), first)
    of, rng = batches(found, voxels=30_000), np.random.default_rng(0)
    memory, known = of.empty_memory(), dict[int, np.ndarray]()
    for _ in range(15):
        batch = of.draw(rng, memory)
        for row, symmetry, seen in zip(batch.rows, batch.symmetries, batch.drawn, strict=True):
            shape = turned_grid(found.grids[row], int(symmetry)).shape
            corner = tuple(slice(side) for side in shape)
            expected = turned_grid(known[row], int(symmetry)) if row in known else np.full(shape, OUTSIDE)
            np.testing.assert_array_equal(seen[corner].numpy(), expected)
            assert (seen.numpy() == OUTSIDE).sum() >= seen.numel() - expected.size
        answer = rng.integers(0, 9, batch.x0.shape).astype(np.uint8)
        of.remember(memory, batch, answer)
        for row, symmetry, grid in zip(batch.rows, batch.symmetries, answer, strict=True):
            back = np.empty(found.grids[row].shape, np.uint8)
            view = turned_grid(back, int(symmetry))
            view[...] = grid[tuple(slice(side) for side in view.shape)]
            known[int(row)] = back
