"""Roles: their numbers stand in datasets and weights."""

from __future__ import annotations

from vernissage.sculptor.domain.roles import LEAVES, MASK, OUTSIDE, ROLES, TOKENS, WOODS, Role


def test_the_numbers_that_are_stored_stay() -> None:
    stored = ["AIR", "WOOD", "WOOD_2", "LEAF", "LEAF_2", "SNOW", "HANGING", "GROUND", "OTHER"]
    assert [role.name for role in Role][: len(stored)] == stored
    assert [int(role) for role in Role] == list(range(ROLES))


def test_what_only_the_network_sees_is_no_role() -> None:
    assert {OUTSIDE, MASK} == set(range(TOKENS)) - {int(role) for role in Role}


def test_wood_and_leaves_are_different_things() -> None:
    assert not set(WOODS) & set(LEAVES)
    assert Role.AIR not in {*WOODS, *LEAVES}
