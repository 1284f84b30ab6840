"""Coarse grids: drawn for any size, never empty where a structure stands, and learned."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from tests.sculptor.learn.small import COARSE, shaken
from vernissage.sculptor.domain.sizes import LARGEST, SIZES, Size
from vernissage.sculptor.learn.blueprints import COARSE_CELL, COARSE_KINDS, coarse_of, placed
from vernissage.sculptor.learn.coarse import CoarseNetwork, coarse_loss, draw_coarse

if TYPE_CHECKING:
    from vernissage.sculptor.domain.dataset import Dataset

ODD = [Size(1, 1, 1), Size(5, 9, 7), Size(24, 64, 24), Size(16, 16, 16), Size(16, 32, 16), Size(3, 4, 17)]


def made(seed: int = 0, size: float = 0.3) -> CoarseNetwork:
    torch.manual_seed(seed)
    network: CoarseNetwork = shaken(CoarseNetwork(COARSE), size)
    return network.eval()


def text(batch: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, COARSE.text, generator=torch.Generator().manual_seed(seed))


def draw(network: CoarseNetwork, sizes: list[Size], guidance: float = 1.0, first_seed: int = 0) -> list[np.ndarray]:
    seeds = [first_seed + row for row in range(len(sizes))]
    return draw_coarse(network, text(len(sizes)), text(1, 9), sizes, seeds, guidance)


def middle(grid: np.ndarray) -> int:
    return int(grid[0, grid.shape[1] // 2, grid.shape[2] // 2])


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_a_grid_has_a_kind_for_every_cell_of_its_size(guidance: float) -> None:
    for grid, size in zip(draw(made(), ODD, guidance), ODD, strict=True):
        assert grid.shape == tuple(-(-side // COARSE_CELL) for side in size.shape)
        assert grid.dtype == np.uint8
        assert (grid < COARSE_KINDS).all()


def test_a_structure_stands_on_something_even_where_the_network_wants_nothing() -> None:
    network = made()
    with torch.no_grad():
        network.head.bias[0] += 200  # type: ignore[index]
    grids = draw(network, [*ODD, *[SIZES["normal"]] * 10])
    for grid in grids:
        assert middle(grid) != 0
        assert (grid > 0).sum() == 1


def test_a_grid_is_the_same_alone_and_among_others() -> None:
    network = made()
    together = draw(network, ODD, 2.0)
    for row, size in enumerate(ODD):
        (alone,) = draw_coarse(network, text(len(ODD))[row : row + 1], text(1, 9), [size], [row], 2.0)
        np.testing.assert_array_equal(alone, together[row])


def test_other_seeds_and_other_prompts_draw_other_grids() -> None:
    network, sizes = made(), [SIZES["big"]] * 4
    grids = [grid.tobytes() for grid in draw(network, sizes) + draw(network, sizes, first_seed=50)]
    assert len(set(grids)) == 8
    one, other = (draw_coarse(network, 5 * text(1, seed), text(1), sizes[:1], [3], 1.0)[0] for seed in (1, 2))
    assert not np.array_equal(one, other)


def test_without_guidance_the_empty_prompt_is_not_looked_at() -> None:
    network, nothing = made(), torch.full((1, COARSE.text), torch.nan)
    found = draw_coarse(network, text(6), nothing, ODD, list(range(6)), 1.0)
    for one, other in zip(found, draw(network, ODD), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_largest_grid_can_be_drawn() -> None:
    (grid,) = draw(made(), [LARGEST])
    assert grid.shape == (32, 16, 16)


def losses(network: CoarseNetwork, sizes: list[str], grids: list[np.ndarray], count: int) -> float:
    found = [
        coarse_loss(network, torch.zeros(len(grids), COARSE.text), sizes, grids, torch.Generator().manual_seed(n))
        for n in range(count)
    ]
    return float(torch.stack(found).mean())


def test_the_loss_of_a_network_that_knows_nothing_is_that_of_guessing() -> None:
    """Whatever the sizes in a batch: each hidden cell costs the entropy of its kinds, each shown one nothing."""
    network = made()
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.bias.zero_()  # type: ignore[union-attr]
        sizes = ["normal", "big"] * 20
        grids = [np.zeros((4 if size == "normal" else 8, 4, 4), np.uint8) for size in sizes]
        assert losses(network, sizes, grids, 6) == pytest.approx(np.log(COARSE_KINDS), rel=0.06)


def test_what_lies_beyond_a_small_grid_does_not_change_its_loss() -> None:
    """A network whose answer outside is as wrong as can be costs no more for it."""
    network = made()
    small, large = np.zeros((4, 4, 4), np.uint8), np.zeros((16, 6, 6), np.uint8)
    logits = network(
        torch.nn.functional.pad(torch.zeros(1, 4, 4, 4, dtype=torch.long), (0, 2, 0, 2, 0, 12), value=COARSE_KINDS + 1),
        text(1),
        torch.zeros(1, dtype=torch.long),
    )
    assert logits.shape == (1, COARSE_KINDS, *large.shape)
    loss = coarse_loss(network, text(2), ["normal", "huge"], [small, large], torch.Generator().manual_seed(0))
    assert torch.isfinite(loss)


def test_it_learns_which_grid_belongs_to_which_prompt(trees: Dataset) -> None:
    grids = [coarse_of(placed(roles, SIZES["normal"])) for roles in trees.grids[:2]]
    assert (grids[0] != grids[1]).any()
    torch.manual_seed(1)
    network = CoarseNetwork(COARSE)
    prompts = 2 * text(2, 4)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    rows = [0, 1] * 8
    for update in range(120):
        generator = torch.Generator().manual_seed(update)
        loss = coarse_loss(network, prompts[rows], ["normal"] * 16, [grids[row] for row in rows], generator)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    for number, grid in enumerate(grids):
        found = draw_coarse(network, prompts[[number] * 6], prompts[:1], [SIZES["normal"]] * 6, list(range(6)), 1.0)
        assert np.mean([(one == grid).mean() for one in found]) > 0.9
        assert np.mean([(one == grid).mean() for one in found]) > np.mean(
            [(o == grids[1 - number]).mean() for o in found]
        )


def test_gradients_reach_all_of_it() -> None:
    torch.manual_seed(0)
    network: CoarseNetwork = shaken(CoarseNetwork(COARSE))
    rng = np.random.default_rng(0)
    names = ["normal", "big", "huge"] * 3
    grids = [
        rng.integers(0, COARSE_KINDS, [-(-side // COARSE_CELL) for side in SIZES[name].shape]).astype(np.uint8)
        for name in names
    ]
    coarse_loss(network, text(9), names, grids, torch.Generator().manual_seed(0)).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name
