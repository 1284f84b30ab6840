"""Cases about odd requests, and sculptors that do not stand them."""

from __future__ import annotations

import torch

from tests.sculptor.judge.robust import subject
from vernissage.sculptor.domain.roles import Role
from vernissage.sculptor.judge.request_cases import largest_input, looks_of, resident_bytes
from vernissage.sculptor.learn.building import Building


def test_guidance_very_many_sizes_and_fixed_blocks_pass() -> None:
    results = subject().run(6, 8, 9, 15)
    assert {number: result.found for number, result in results.items() if not result.passed} == {}
    assert results[8].retained is None
    assert all(results[number].retained is not None for number in (6, 9, 15))


def test_any_number_of_steps_passes_and_draws_a_curve() -> None:
    result = subject().run(5)[5]
    assert result.passed, result.found
    assert all(f" in {steps}" in result.found for steps in (1, 2, 4, 8, 12, 32, 128))


def test_a_network_without_numbers_fails_all_of_them() -> None:
    def breaks(_: object, __: object, logits: torch.Tensor) -> torch.Tensor:
        return logits / 0

    found = subject().but(lambda spoilt: spoilt.network.register_forward_hook(breaks)).failed(6, 9, 15)
    assert set(found) == {6, 9, 15}


def test_a_sculptor_of_air_retains_nothing() -> None:
    def only_air(_: object, __: object, logits: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros_like(logits)
        logits[:, Role.AIR] = 100
        return logits

    result = subject().but(lambda spoilt: spoilt.network.register_forward_hook(only_air)).run(9)[9]
    assert result.passed
    assert result.retained is None


def test_inputs_are_counted_and_the_hook_is_taken_off() -> None:
    network = subject().sculptor.network
    tokens = torch.zeros(2, 4, 4, 4, dtype=torch.long)
    guide, condition = torch.zeros(2, network.shape.guide, 4, 4, 4), torch.zeros(2, network.shape.condition)
    with largest_input(subject().sculptor) as seen:
        network(tokens, guide, condition)
    network(tokens, guide, condition)
    assert seen == [128]


def test_memory_that_is_taken_shows() -> None:
    before = resident_bytes()
    block = bytearray(b"x" * (64 << 20))
    assert resident_bytes() - before > len(block) // 2


def test_looks_are_steps_and_edits() -> None:
    assert looks_of(Building(steps=5, wood_share=0, edits=2, wood_edits=7)) == 7
    assert looks_of(Building(steps=4, wood_share=0.5, edits=2, wood_edits=1)) == 7
