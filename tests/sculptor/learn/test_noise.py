"""The forward process: what it hides at either level, what it makes wrong, and what the loss then counts."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vernissage.sculptor.domain.roles import MASK, OUTSIDE, ROLES, WOODS, Role
from vernissage.sculptor.learn.noise import (
    INPUTS,
    MASK_BUCKETS,
    NOT_WOOD,
    SOFT_ROLES,
    Corruption,
    Level,
    Noised,
    draw_again,
    draw_levels,
    even_times,
    is_wood,
    noised,
    voxel_losses,
    weighted_loss,
)

SHAPE = (8, 12, 12, 12)
KNOWN = torch.tensor([Role.AIR, Role.WOOD, Role.LEAF])
CLEAN = Corruption(wrong=0)


def structures(seed: int = 0) -> torch.Tensor:
    """Random roles of the data in boxes that leave a part of the canvas outside."""
    generator = torch.Generator().manual_seed(seed)
    x0 = KNOWN[torch.randint(len(KNOWN), SHAPE, generator=generator)]
    x0[:, :, :, 9:] = OUTSIDE
    return x0


def noise(
    x0: torch.Tensor,
    t: float,
    corruption: Corruption = CLEAN,
    *,
    level: Level = Level.ALL,
    drawn: int | torch.Tensor = OUTSIDE,
    seed: int = 1,
) -> Noised:
    drew = drawn if isinstance(drawn, torch.Tensor) else torch.full_like(x0, drawn)
    times, levels = torch.full((len(x0),), t), torch.full((len(x0),), int(level))
    return noised(x0, times, levels, corruption, torch.Generator().manual_seed(seed), drawn=drew, roles=KNOWN)


def absorbable(x0: torch.Tensor, level: Level) -> torch.Tensor:
    return (x0 != OUTSIDE) & ~(is_wood(x0) & (level is Level.REST))


@pytest.mark.parametrize("level", Level)
def test_at_time_one_all_that_the_level_decides_is_hidden(level: Level) -> None:
    x0 = structures()
    seen = noise(x0, 1.0, level=level)
    hidden, inside = absorbable(x0, level), x0 != OUTSIDE
    assert (seen.tokens[hidden] == level.undecided).all()
    assert (seen.tokens[~hidden] == x0[~hidden]).all()
    assert (seen.weight[hidden] == (CLEAN.wood_weight if level is Level.WOOD else 1)).all()
    assert (seen.weight[~inside] == 0).all()
    assert (seen.levels == level).all()


@pytest.mark.parametrize("level", Level)
@pytest.mark.parametrize("t", [0.1, 0.35, 0.8])
def test_the_share_that_is_hidden_is_the_time(t: float, level: Level) -> None:
    x0 = structures()
    hidden, open_to = noise(x0, t, level=level).tokens == level.undecided, absorbable(x0, level)
    assert not hidden[~open_to].any()
    share = float(hidden[open_to].float().mean())
    assert share == pytest.approx(t, abs=4 * math.sqrt(t * (1 - t) / int(open_to.sum())))


def test_every_structure_has_its_own_time() -> None:
    x0 = structures()
    times, levels = torch.linspace(0.05, 1, len(x0)), torch.zeros(len(x0), dtype=torch.long)
    seen = noised(x0, times, levels, CLEAN, torch.Generator().manual_seed(0), drawn=x0, roles=KNOWN)
    inside = x0 != OUTSIDE
    shares = ((seen.tokens == MASK) & inside).flatten(1).sum(1) / inside.flatten(1).sum(1)
    torch.testing.assert_close(shares, times, atol=0.06, rtol=0)


@pytest.mark.parametrize("level", Level)
@pytest.mark.parametrize("t", [0.1, 0.2, 0.5, 1.0])
def test_hidden_voxels_weigh_together_as_if_all_were_hidden(t: float, level: Level) -> None:
    """The estimator of MDLM is unbiased where 1 / t is not cut off."""
    x0 = structures()
    seen = noise(x0, t, Corruption(wrong=0, visible_weight=0, wood_weight=1, largest_weight=10), level=level)
    open_to = absorbable(x0, level)
    spread = 4 * math.sqrt((1 - t) / (t * int(open_to.sum())))
    assert float(seen.weight[open_to].mean()) == pytest.approx(1, abs=spread + 1e-6)
    assert (seen.weight[~open_to] == 0).all()


def test_the_weight_is_cut_off_where_time_is_short() -> None:
    seen = noise(structures(), 0.02, Corruption(wrong=0, largest_weight=10))
    assert seen.weight[seen.tokens == MASK].unique().tolist() == pytest.approx([10])


def test_what_is_visible_counts_a_fixed_weight_whether_wrong_or_right() -> None:
    x0 = structures()
    seen = noise(x0, 0.5, Corruption(wrong=0.8, untouched=0, visible_weight=0.25))
    visible = (seen.tokens != MASK) & (x0 != OUTSIDE)
    assert (seen.tokens != x0)[visible].any()
    assert (seen.weight[visible] == 0.25).all()


def test_without_corruption_visible_voxels_stay_but_the_level_of_wood_shows_only_wood() -> None:
    x0 = structures()
    for level in (Level.ALL, Level.REST):
        seen = noise(x0, 0.5, level=level)
        visible = seen.tokens != level.undecided
        assert (seen.tokens == x0)[visible].all()
    seen = noise(x0, 0.5, level=Level.WOOD)
    shown = torch.where(is_wood(x0) | (x0 == OUTSIDE), x0, NOT_WOOD)
    assert (seen.tokens == shown)[seen.tokens != MASK].all()


@pytest.mark.parametrize("t", [0.1, 0.6, 1.0])
def test_while_wood_is_decided_the_rest_does_not_shine_through(t: float) -> None:
    """Two structures with the same wood look the same, also where tokens are made wrong."""
    x0 = structures()
    other = torch.where(is_wood(x0) | (x0 == OUTSIDE), x0, Role.SNOW)
    corruption = Corruption(wrong=0.8, untouched=0)
    one, two = (noise(x, t, corruption, level=Level.WOOD, drawn=structures(3)) for x in (x0, other))
    assert torch.equal(one.tokens, two.tokens)
    assert torch.equal(one.weight, two.weight)


@pytest.mark.parametrize("level", Level)
def test_where_all_is_hidden_nothing_of_it_shines_through(level: Level) -> None:
    x0 = structures()
    other = torch.where(absorbable(x0, level), (x0 + 3) % ROLES, x0)
    if level is Level.REST:
        other = torch.where(absorbable(x0, level), Role.GROUND, x0)
    corruption = Corruption(wrong=0.8, untouched=0)
    one, two = (noise(x, 1.0, corruption, level=level, drawn=structures(3)) for x in (x0, other))
    assert not torch.equal(x0, other)
    assert torch.equal(one.tokens, two.tokens)


@pytest.mark.parametrize(("own", "drawn", "allowed"), [(0.0, int(Role.SNOW), set(KNOWN.tolist())), (1.0, 5, {5})])
def test_what_is_made_wrong_is_a_role_of_the_data_or_what_was_drawn(own: float, drawn: int, allowed: set[int]) -> None:
    x0 = structures()
    seen = noise(x0, 0.3, Corruption(wrong=1.0, untouched=0, own=own), drawn=drawn)
    changed = (seen.tokens != x0) & (seen.tokens != MASK)
    assert changed.any()
    assert set(seen.tokens[changed].tolist()) <= allowed
    assert not changed[x0 == OUTSIDE].any()


def test_where_nothing_was_drawn_yet_it_is_a_role_of_the_data() -> None:
    x0 = structures()
    seen = noise(x0, 0.3, Corruption(wrong=1.0, untouched=0, own=1.0), drawn=OUTSIDE)
    changed = (seen.tokens != x0) & (seen.tokens != MASK)
    assert changed.any()
    assert set(seen.tokens[changed].tolist()) <= set(KNOWN.tolist())


def test_wood_may_be_shown_where_there_is_none_and_be_missing_where_it_is() -> None:
    """While wood is decided as well: the network is to find both mistakes."""
    x0 = structures()
    corruption = Corruption(wrong=1.0, untouched=0, own=1.0)
    added = noise(x0, 0.2, corruption, level=Level.WOOD, drawn=int(Role.WOOD_2)).tokens
    assert (added[(x0 == Role.LEAF)] == Role.WOOD_2).any()
    missed = noise(x0, 0.2, corruption, level=Level.WOOD, drawn=int(Role.LEAF)).tokens
    assert (missed[is_wood(x0)] == NOT_WOOD).any()
    assert not (missed == Role.LEAF).any()


def test_half_of_the_largest_share_is_made_wrong_on_average() -> None:
    x0 = torch.zeros(400, 6, 6, 6, dtype=torch.long)
    seen = noise(x0, 1e-9, Corruption(wrong=0.4, untouched=0, own=1.0), drawn=int(Role.WOOD))
    shares = (seen.tokens == Role.WOOD).flatten(1).float().mean(1)
    assert float(shares.mean()) == pytest.approx(0.2, abs=4 * 0.4 / math.sqrt(12 * 400))
    assert float(shares.max()) < 0.4 + 4 * math.sqrt(0.24 / 216)
    assert float(shares.std()) > 0.08


def test_the_untouched_share_is_left_alone() -> None:
    x0 = torch.zeros(400, 6, 6, 6, dtype=torch.long)
    seen = noise(x0, 1e-9, Corruption(wrong=1.0, untouched=0.6, own=1.0), drawn=int(Role.WOOD))
    untouched = float(((seen.tokens == x0).flatten(1).all(1)).float().mean())
    assert untouched == pytest.approx(0.6, abs=4 * math.sqrt(0.24 / 400) + 0.02)
    assert not (noise(x0, 1e-9, Corruption(wrong=1.0, untouched=1.0)).tokens != x0).any()


def test_the_same_generator_gives_the_same_batch() -> None:
    one, other = (noise(structures(), 0.4, Corruption(), seed=5) for _ in range(2))
    assert torch.equal(one.tokens, other.tokens)
    assert torch.equal(one.weight, other.weight)
    assert not torch.equal(one.tokens, noise(structures(), 0.4, Corruption(), seed=6).tokens)


@given(st.integers(1, 40), st.integers(0, 2**31))
def test_times_are_spread_evenly(count: int, seed: int) -> None:
    times = even_times(count, torch.Generator().manual_seed(seed))
    assert times.shape == (count,)
    assert ((times > 0) & (times <= 1)).all()
    ordered = times.sort().values
    gaps = torch.diff(torch.cat([ordered, ordered[:1] + 1]))
    torch.testing.assert_close(gaps, torch.full((count,), 1 / count), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("wood", "rest"), [(0.45, 0.45), (0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (0.2, 0.3)])
def test_levels_take_their_shares(wood: float, rest: float) -> None:
    levels = draw_levels(4000, Corruption(wood=wood, rest=rest), torch.Generator().manual_seed(0))
    for level, share in ((Level.WOOD, wood), (Level.REST, rest), (Level.ALL, 1 - wood - rest)):
        assert float((levels == level).float().mean()) == pytest.approx(share, abs=2 / math.sqrt(4000))


@pytest.mark.parametrize("shares", [{"wood": 0.7, "rest": 0.4}, {"wood": -0.1}, {"rest": -0.1}])
def test_shares_of_levels_that_are_none_are_refused(shares: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected a sum of at most 1"):
        Corruption(**shares)


@pytest.mark.parametrize("level", Level)
def test_the_outcomes_of_a_level_are_probabilities(level: Level) -> None:
    log_p = torch.randn(50, ROLES, generator=torch.Generator().manual_seed(0), dtype=torch.float64).log_softmax(-1)
    outcomes = level.outcomes(log_p)
    assert outcomes.shape == (50, INPUTS)
    torch.testing.assert_close(outcomes.exp().sum(-1), torch.ones(50, dtype=torch.float64))
    assert (outcomes[:, [OUTSIDE, MASK]] == -torch.inf).all()
    possible = {Level.ALL: set(range(ROLES)), Level.WOOD: {*WOODS, NOT_WOOD}, Level.REST: set(SOFT_ROLES)}[level]
    assert {int(token) for token in outcomes[0].isfinite().nonzero()[:, 0]} == possible


def test_the_levels_together_say_what_all_at_once_would() -> None:
    """The chance of leaves is that of no wood, times that of leaves where there is none."""
    log_p = torch.randn(50, ROLES, generator=torch.Generator().manual_seed(0), dtype=torch.float64).log_softmax(-1)
    wood, rest = Level.WOOD.outcomes(log_p), Level.REST.outcomes(log_p)
    for role in Role:
        through = wood[:, role] if role in WOODS else wood[:, NOT_WOOD] + rest[:, role]
        torch.testing.assert_close(through, log_p[:, role])


def shares_at(places: list[dict[int, float]]) -> torch.Tensor:
    """(1, ROLES, 1, 1, N) logits with these shares."""
    logits = torch.full((1, ROLES, 1, 1, len(places)), -1e4)
    for place, shares in enumerate(places):
        for role, share in shares.items():
            logits[0, role, 0, 0, place] = math.log(share)
    return logits


def row(*roles: int) -> torch.Tensor:
    return torch.tensor(roles).view(1, 1, 1, -1)


def seen_with(weight: torch.Tensor, level: Level = Level.ALL) -> Noised:
    return Noised(torch.zeros_like(weight), torch.tensor([int(level)] * len(weight)), torch.ones(len(weight)), weight)


def test_the_loss_of_a_network_that_knows_nothing_is_the_entropy_of_all_roles() -> None:
    x0 = structures()
    logits = torch.zeros(len(x0), ROLES, *SHAPE[1:])
    assert float(weighted_loss(logits, x0, seen_with((x0 != OUTSIDE).float()))) == pytest.approx(math.log(ROLES))


def test_the_loss_counts_each_voxel_by_its_weight() -> None:
    logits = shares_at([{Role.WOOD: 0.5, 0: 0.5}, {Role.LEAF: 0.25, 0: 0.75}, {0: 1.0}, {0: 1.0}])
    x0 = row(Role.WOOD, Role.LEAF, Role.AIR, OUTSIDE)
    seen = seen_with(torch.tensor([2.0, 1.0, 5.0, 0.0]).view(1, 1, 1, 4))
    assert float(weighted_loss(logits, x0, seen)) == pytest.approx((2 * math.log(2) + math.log(4)) / 3)


def test_where_wood_is_decided_it_does_not_matter_which_of_the_rest_it_is() -> None:
    logits = shares_at([{Role.AIR: 0.25, Role.LEAF: 0.25, Role.WOOD: 0.5}] * 3)
    x0 = row(Role.WOOD, Role.LEAF, Role.SNOW)
    levels = torch.tensor([int(Level.WOOD)])
    found = voxel_losses(logits, x0, levels).flatten().tolist()
    assert found == pytest.approx([math.log(2)] * 3)
    of_all = voxel_losses(logits, x0, torch.tensor([int(Level.ALL)])).flatten().tolist()
    assert of_all[:2] == pytest.approx([math.log(2), math.log(4)])
    assert of_all[2] > 100


def test_a_part_of_a_batch_counts_its_own_weights() -> None:
    x0 = structures()
    logits = torch.randn(len(x0), ROLES, *SHAPE[1:], generator=torch.Generator().manual_seed(0))
    times = torch.linspace(0.1, 1, len(x0))
    levels = torch.arange(len(x0)) % len(Level)
    seen = noised(x0, times, levels, Corruption(), torch.Generator().manual_seed(0), drawn=x0, roles=KNOWN)
    inside = (x0 != OUTSIDE).flatten(1).sum(1).float()
    parts = [
        weighted_loss(logits[rows], x0[rows], seen, rows) * inside[rows].sum() / inside.sum()
        for rows in (slice(0, 3), slice(3, 8))
    ]
    assert float(sum(parts)) == pytest.approx(float(weighted_loss(logits, x0, seen)), rel=1e-5)


@pytest.mark.parametrize("level", Level)
def test_what_the_network_says_outside_the_box_costs_nothing(level: Level) -> None:
    x0 = structures()
    seen = noise(x0, 0.5, level=level)
    logits = torch.randn(len(x0), ROLES, *SHAPE[1:], generator=torch.Generator().manual_seed(0))
    other = torch.where((x0 == OUTSIDE)[:, None], 30 * torch.randn(logits.shape), logits)
    assert torch.equal(weighted_loss(logits, x0, seen), weighted_loss(other, x0, seen))


def test_what_the_network_draws_again_is_as_frequent_as_it_says() -> None:
    x0 = torch.full((1, 20, 20, 20), int(Role.LEAF))
    uniform = torch.rand(x0.shape, generator=torch.Generator().manual_seed(0))
    logits = shares_at([{Role.WOOD: 0.2, Role.LEAF: 0.3, Role.AIR: 0.5}]).expand(1, ROLES, 20, 20, 20)
    drawn = draw_again(logits, x0, torch.tensor([int(Level.ALL)]), uniform)
    found = torch.bincount(drawn.flatten(), minlength=ROLES) / drawn.numel()
    assert found.tolist() == pytest.approx([0.5, 0.2, 0, 0.3, 0, 0, 0, 0, 0], abs=0.025)


def test_where_wood_is_decided_only_wood_is_drawn_again() -> None:
    """What it takes for wood becomes wood, what it misses becomes leaves, everything else stays."""
    x0 = row(Role.WOOD, Role.WOOD, Role.AIR, Role.SNOW, Role.SNOW)
    logits = shares_at([{Role.WOOD: 1}, {Role.AIR: 1}, {Role.LEAF: 1}, {Role.AIR: 1}, {Role.WOOD_2: 1}])
    drawn = draw_again(logits, x0, torch.tensor([int(Level.WOOD)]), torch.full(x0.shape, 0.5))
    assert drawn.flatten().tolist() == [Role.WOOD, Role.LEAF, Role.AIR, Role.SNOW, Role.WOOD_2]


def test_the_buckets_of_mask_ratios_cover_everything_once() -> None:
    assert (MASK_BUCKETS[0], MASK_BUCKETS[-1]) == (0, 1)
    assert list(MASK_BUCKETS) == sorted(set(MASK_BUCKETS))
