"""The forward process: what it hides, what it makes wrong, and what the loss then counts."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vernissage.sculptor.domain.roles import MASK, OUTSIDE, ROLES, Role
from vernissage.sculptor.learn.noise import MASK_BUCKETS, Corruption, Noised, even_times, noised, weighted_loss

SHAPE = (8, 12, 12, 12)
KNOWN = torch.tensor([Role.AIR, Role.WOOD, Role.LEAF])
CLEAN = Corruption(wrong=0)


def structures(seed: int = 0) -> torch.Tensor:
    """Random roles of the data in boxes that leave a part of the canvas outside."""
    generator = torch.Generator().manual_seed(seed)
    x0 = KNOWN[torch.randint(len(KNOWN), SHAPE, generator=generator)]
    x0[:, :, :, 9:] = OUTSIDE
    return x0


def noise(x0: torch.Tensor, t: float, corruption: Corruption = CLEAN, drawn: int = OUTSIDE, seed: int = 1) -> Noised:
    generator = torch.Generator().manual_seed(seed)
    times = torch.full((len(x0),), t)
    return noised(x0, times, corruption, generator, drawn=torch.full_like(x0, drawn), roles=KNOWN)


def test_at_time_one_everything_inside_is_hidden() -> None:
    x0 = structures()
    seen = noise(x0, 1.0, Corruption(wrong=0.5))
    inside = x0 != OUTSIDE
    assert (seen.tokens[inside] == MASK).all()
    assert (seen.tokens[~inside] == OUTSIDE).all()
    assert (seen.weight[inside] == 1).all()
    assert (seen.weight[~inside] == 0).all()


@pytest.mark.parametrize("t", [0.1, 0.35, 0.8])
def test_the_share_that_is_hidden_is_the_time(t: float) -> None:
    x0 = structures()
    inside = x0 != OUTSIDE
    hidden = noise(x0, t).tokens == MASK
    count = int(inside.sum())
    assert float(hidden[inside].float().mean()) == pytest.approx(t, abs=4 * math.sqrt(t * (1 - t) / count))


def test_every_structure_has_its_own_time() -> None:
    x0 = structures()
    times = torch.linspace(0.05, 1, len(x0))
    seen = noised(x0, times, CLEAN, torch.Generator().manual_seed(0), drawn=x0, roles=KNOWN)
    inside = x0 != OUTSIDE
    shares = ((seen.tokens == MASK) & inside).flatten(1).sum(1) / inside.flatten(1).sum(1)
    torch.testing.assert_close(shares, times, atol=0.06, rtol=0)


@pytest.mark.parametrize("t", [0.1, 0.2, 0.5, 1.0])
def test_a_hidden_voxel_weighs_as_if_all_had_been_hidden(t: float) -> None:
    """The estimator of MDLM is unbiased where 1 / t is not cut off."""
    x0 = structures()
    seen = noise(x0, t, Corruption(wrong=0, visible_weight=0, largest_weight=10))
    inside = x0 != OUTSIDE
    spread = 4 * math.sqrt((1 - t) / (t * int(inside.sum())))
    assert float(seen.weight[inside].mean()) == pytest.approx(1, abs=spread + 1e-6)
    assert (seen.weight[(seen.tokens != MASK)] == 0).all()


def test_the_weight_is_cut_off_where_time_is_short() -> None:
    seen = noise(structures(), 0.02, Corruption(wrong=0, largest_weight=10))
    assert seen.weight[seen.tokens == MASK].unique().tolist() == pytest.approx([10])


def test_what_is_visible_counts_a_fixed_weight_whether_wrong_or_right() -> None:
    x0 = structures()
    seen = noise(x0, 0.5, Corruption(wrong=0.8, untouched=0, visible_weight=0.25))
    visible = (seen.tokens != MASK) & (x0 != OUTSIDE)
    assert (seen.tokens != x0)[visible].any()
    assert (seen.weight[visible] == 0.25).all()


def test_without_corruption_visible_voxels_stay() -> None:
    x0 = structures()
    seen = noise(x0, 0.5)
    visible = seen.tokens != MASK
    assert (seen.tokens == x0)[visible].all()


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


def test_the_loss_of_a_network_that_knows_nothing_is_the_entropy_of_nine_roles() -> None:
    x0 = structures()
    logits, inside = torch.zeros(len(x0), ROLES, *SHAPE[1:]), x0 != OUTSIDE
    assert float(weighted_loss(logits, x0, inside.float())) == pytest.approx(math.log(ROLES), rel=1e-5)


def test_the_loss_counts_each_voxel_by_its_weight() -> None:
    x0 = torch.tensor([Role.WOOD, Role.LEAF, Role.AIR, OUTSIDE]).view(1, 1, 1, 4)
    logits = torch.full((1, ROLES, 1, 1, 4), -torch.inf)
    for place, shares in enumerate(
        [{Role.WOOD: 0.5, Role.AIR: 0.5}, {Role.LEAF: 0.25, Role.AIR: 0.75}, {0: 1.0}, {0: 1.0}]
    ):
        for role, share in shares.items():
            logits[0, role, 0, 0, place] = math.log(share)
    weight = torch.tensor([2.0, 1.0, 5.0, 0.0]).view(1, 1, 1, 4)
    assert float(weighted_loss(logits, x0, weight)) == pytest.approx((2 * math.log(2) + math.log(4)) / 3)


def test_what_the_network_says_outside_the_box_costs_nothing() -> None:
    x0 = structures()
    weight = noise(x0, 0.5).weight
    logits = torch.randn(len(x0), ROLES, *SHAPE[1:], generator=torch.Generator().manual_seed(0))
    other = torch.where((x0 == OUTSIDE)[:, None], 30 * torch.randn(logits.shape), logits)
    assert torch.equal(weighted_loss(logits, x0, weight), weighted_loss(other, x0, weight))


def test_the_buckets_of_mask_ratios_cover_everything_once() -> None:
    assert MASK_BUCKETS[0] == 0
    assert MASK_BUCKETS[-1] == 1
    assert list(MASK_BUCKETS) == sorted(set(MASK_BUCKETS))
