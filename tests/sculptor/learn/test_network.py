"""The network of voxels: rows that stand alone, gradients everywhere, in bfloat16 too, and no look at the answer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.sculptor.learn.small import NETWORK, shaken
from vernissage.sculptor.domain.plan import FIELDS
from vernissage.sculptor.domain.roles import OUTSIDE, ROLES, Role
from vernissage.sculptor.domain.sizes import SIZES
from vernissage.sculptor.learn.blueprints import blueprint_of, guides_of, on_canvas
from vernissage.sculptor.learn.network import NetworkShape, VoxelNetwork
from vernissage.sculptor.learn.noise import INPUTS, Corruption, Level, is_wood, noised, voxel_losses
from vernissage.sculptor.prepare.grower import grow

Inputs = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


@pytest.fixture
def network() -> VoxelNetwork:
    torch.manual_seed(0)
    made: VoxelNetwork = shaken(VoxelNetwork(NETWORK))
    return made


def inputs(shape: tuple[int, int, int], batch: int = 3, of: NetworkShape = NETWORK) -> Inputs:
    """Tokens, guide, vectors of prompts, values of plans."""
    generator = torch.Generator().manual_seed(1)
    values = [torch.randint(count, (batch,), generator=generator) for count in FIELDS.values()]
    return (
        torch.randint(INPUTS, (batch, *shape), generator=generator),
        torch.randn(batch, of.guide, *shape, generator=generator).clamp(-2, 2),
        torch.randn(batch, of.text, generator=generator),
        torch.stack(values, 1),
    )


def logits_of(network: VoxelNetwork, given: Inputs) -> torch.Tensor:
    tokens, guide, text, values = given
    logits: torch.Tensor = network(tokens, guide, network.condition(text, values))
    return logits


def loss_of(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """That of taking every token that is no role for the last one."""
    return voxel_losses(logits, tokens.clamp(max=ROLES - 1), torch.zeros(len(tokens), dtype=torch.long)).mean()


@pytest.mark.parametrize(("channels", "multiple"), [((16,), 2), ((16, 32), 4), ((8, 16, 32), 8)])
def test_a_canvas_is_a_multiple_of_what_the_levels_need(channels: tuple[int, ...], multiple: int) -> None:
    shape = replace(NETWORK, channels=channels, attention_levels=(0,))
    assert shape.multiple == multiple
    side = (multiple, 2 * multiple, multiple)
    assert logits_of(VoxelNetwork(shape), inputs(side, 2)).shape == (2, ROLES, *side)


def test_a_row_is_the_same_alone_and_among_others(network: VoxelNetwork) -> None:
    given = inputs((8, 12, 12), 4)
    together = logits_of(network, given)
    for row in range(4):
        alone = logits_of(network, tuple(part[row : row + 1] for part in given))  # type: ignore[arg-type]
        torch.testing.assert_close(alone[0], together[row], atol=1e-5, rtol=1e-5)


def test_what_it_says_depends_on_everything_that_it_is_told(network: VoxelNetwork) -> None:
    given = inputs((8, 8, 8), 1)
    before = logits_of(network, given)
    others = [part.clone() for part in given]
    others[0][0, 0, 0, 0] = (given[0][0, 0, 0, 0] + 1) % INPUTS
    others[1][0, :, 7, 7, 7] += 1
    others[2] += 1
    others[3] = (given[3] + 1) % torch.tensor(list(FIELDS.values()))
    for place, other in enumerate(others):
        changed = [*given[:place], other, *given[place + 1 :]]
        assert not torch.equal(logits_of(network, tuple(changed)), before), place  # type: ignore[arg-type]


def test_far_voxels_are_seen(network: VoxelNetwork) -> None:
    """One corner decides about the opposite one: levels, attention and normalisation reach over the canvas."""
    given = inputs((16, 16, 16), 1)
    tokens = given[0].clone()
    before = logits_of(network, given)[0, :, -1, -1, -1]
    tokens[0, :4, :4, :4] = 1
    assert (logits_of(network, (tokens, *given[1:]))[0, :, -1, -1, -1] - before).abs().max() > 1e-4


@pytest.mark.parametrize("levels", [(), (0,), (0, 1)])
def test_gradients_reach_all_weights(levels: tuple[int, ...]) -> None:
    network: VoxelNetwork = shaken(VoxelNetwork(replace(NETWORK, attention_levels=levels)))
    tokens, guide, text, values = inputs((8, 8, 8))
    logits = logits_of(network, (tokens, guide, text, values))
    loss_of(logits, tokens).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


def test_without_plans_there_are_no_values() -> None:
    network = VoxelNetwork(replace(NETWORK, plan=False, guide=5))
    tokens, guide, text, _ = inputs((4, 4, 4), of=network.shape)
    assert torch.isfinite(network(tokens, guide, network.condition(text, None))).all()
    assert not [name for name, _ in network.named_parameters() if name.startswith("values")]


@pytest.mark.parametrize(
    "shape", [(3, NETWORK.guide, 8, 8, 4), (2, NETWORK.guide, 8, 8, 8), (3, NETWORK.guide + 1, 8, 8, 8)]
)
def test_a_guide_of_another_shape_is_refused(network: VoxelNetwork, shape: tuple[int, ...]) -> None:
    tokens, _, text, values = inputs((8, 8, 8))
    with pytest.raises(ValueError, match="a guide of shape") as caught:
        network(tokens, torch.zeros(shape), network.condition(text, values))
    assert str(shape) in str(caught.value)


@pytest.mark.parametrize("canvas", [(4, 4, 4), (8, 4, 4), (4, 8, 8), (8, 8, 8), (16, 16, 16)])
def test_gradients_in_bfloat16_are_those_in_float32(network: VoxelNetwork, canvas: tuple[int, int, int]) -> None:
    tokens, guide, text, values = inputs(canvas, 2)

    def slopes(*, half: bool) -> dict[str, torch.Tensor]:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            logits = logits_of(network, (tokens, guide, text, values))
        loss = loss_of(logits, tokens)
        found = torch.autograd.grad(loss, list(network.parameters()))
        return {name: slope for (name, _), slope in zip(network.named_parameters(), found, strict=True)}

    exact, quick = slopes(half=False), slopes(half=True)
    whole = torch.cat([slope.flatten() for slope in exact.values()]).norm()
    apart = torch.cat([(exact[name] - quick[name]).flatten() for name in exact]).norm()
    assert apart < 0.05 * whole
    for name, slope in exact.items():
        assert (slope - quick[name]).norm() < 0.05 * slope.norm() + 0.005 * whole, name


@pytest.mark.parametrize("level", Level)
def test_where_all_is_hidden_the_answer_does_not_shine_through(network: VoxelNetwork, level: Level) -> None:
    """Two structures with one plan, whatever the network drew of them before: their logits are equal, bit for bit."""
    rng = np.random.default_rng(3)
    blueprint, grid = blueprint_of(grow("oak", SIZES["normal"], rng), "plan", species="oak")
    canvas = blueprint.canvas(NETWORK.multiple)
    guides = guides_of([blueprint], canvas, "plan")
    text = torch.randn(1, NETWORK.text)
    x0 = torch.from_numpy(on_canvas(grid, canvas)).long()[None]
    kept = (x0 == OUTSIDE) | (is_wood(x0) & (level is Level.REST))
    other = torch.where(kept, x0, int(Role.SNOW))
    found = []
    for truth in (x0, other):
        # What is kept must not be made wrong either: the network's earlier draws of it may differ.
        drawn = torch.where(kept, x0, (truth + 1) % ROLES)
        corruption = Corruption(wrong=0.9, untouched=0, own=1.0)
        levels, generator = torch.tensor([int(level)]), torch.Generator().manual_seed(2)
        seen = noised(truth, torch.ones(1), levels, corruption, generator, drawn=drawn, roles=torch.arange(ROLES))
        found.append(network(seen.tokens, guides.channels, network.condition(text, guides.values)))
    assert not torch.equal(x0, other)
    assert torch.equal(*found)
