"""The re-created sampler sees mixtures of tokens as the network sees tokens, and draws nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.sculptor.judge.small import planned, sculptor
from vernissage.core.errors import BadInput, BadParams
from vernissage.sculptor.domain.roles import MASK, OUTSIDE, ROLES
from vernissage.sculptor.judge.soft_mixture import ExpectedTokens, soft_mixture
from vernissage.sculptor.learn.blueprints import Blueprint, guides_of
from vernissage.sculptor.learn.noise import INPUTS


def _seen(tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    plan = planned()[0].plan
    assert plan is not None
    guides = guides_of([Blueprint(plan.shape, plan)], (tokens.shape[1], tokens.shape[2], tokens.shape[3]), "plan")
    network, words = sculptor().network, sculptor().words
    return guides.channels, network.condition(words([planned()[0].prompt]), guides.values)


@torch.no_grad()
def test_certain_mixtures_are_tokens() -> None:
    tokens = torch.randint(0, INPUTS, (1, 8, 8, 8), generator=torch.Generator().manual_seed(0))
    guide, condition = _seen(tokens)
    expected = sculptor().network(tokens, guide, condition)
    found = ExpectedTokens(sculptor().network)(F.one_hot(tokens, INPUTS).float(), tokens, guide, condition)
    torch.testing.assert_close(found, expected)


@torch.no_grad()
def test_the_network_itself_stays_as_it_is() -> None:
    before = sculptor().network.tokens
    ExpectedTokens(sculptor().network)
    assert sculptor().network.tokens is before


@torch.no_grad()
def test_one_update_is_what_the_network_expects_where_nothing_is_decided() -> None:
    plan = planned()[0].plan
    assert plan is not None
    canvas = Blueprint(plan.shape, plan).canvas(sculptor().shape.network.multiple)
    guides = guides_of([Blueprint(plan.shape, plan)], canvas, "plan")
    tokens = torch.where(guides.inside, MASK, OUTSIDE)
    guide, condition = _seen(tokens)
    expected = sculptor().network(tokens, guide, condition).argmax(1)[0].numpy()
    height, depth, width = plan.shape
    found = soft_mixture(sculptor(), planned()[:1], 1)[0]
    np.testing.assert_array_equal(found, expected[:height, :depth, :width])


def test_every_seed_of_a_plan_gives_the_same() -> None:
    one = planned()[0]
    first, second = soft_mixture(sculptor(), [one, replace(one, seed=one.seed + 1)], 3, wood_share=0.5)
    np.testing.assert_array_equal(first, second)
    assert first.max() < ROLES


def test_what_it_cannot_do() -> None:
    with pytest.raises(BadParams, match="0 updates"):
        soft_mixture(sculptor(), planned(), 0)
    with pytest.raises(BadInput, match="no plan"):
        soft_mixture(sculptor(), [replace(planned()[0], plan=None)], 1)
