"""Randomness by name: the same on every machine, other for other keys, unmoved by the order of work."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from vernissage.core.seeds import derive_seed, numpy_generator, torch_generator

KEYS = st.lists(st.text(max_size=5) | st.integers(-3, 300), max_size=4)


def test_known_answer_by_hand() -> None:
    digest = hashlib.sha256(b"i7" + b"\0" + b"8" + b"\0" + b"sdegrade" + b"\0" + b"3" + b"\0" + b"i42").digest()
    assert derive_seed(7, "degrade", 42) == int.from_bytes(digest[:8], "big") >> 1


def test_pinned_values_never_change() -> None:
    # Whoever changes these changes every dataset and every model of every user.
    assert derive_seed(0) == 5940445630358017772
    assert derive_seed(0, "a", 1) == 6358806174437836205
    assert numpy_generator(0, "a", 1).integers(0, 1000, 4).tolist() == [637, 31, 141, 404]
    assert torch.randint(0, 1000, (4,), generator=torch_generator(0, "a", 1)).tolist() == [973, 894, 726, 18]


@given(seed=st.integers(0, 2**63 - 1), keys=KEYS)
def test_range_and_repeatability(seed: int, keys: list[str | int]) -> None:
    value = derive_seed(seed, *keys)
    assert 0 <= value < 2**63
    assert value == derive_seed(seed, *keys)


@given(first=KEYS, second=KEYS)
def test_different_keys_give_different_seeds(first: list[str | int], second: list[str | int]) -> None:
    assert (derive_seed(1, *first) == derive_seed(1, *second)) == (first == second)


def test_keys_that_look_alike() -> None:
    alike = [
        ("ab",),
        ("a", "b"),
        ("a", "b", ""),
        ("", "ab"),
        (1,),
        ("1",),
        ("i1",),
        ("a\0b",),
        ("a\0", "b"),
        ("\ud800",),
    ]
    assert len({derive_seed(0, *keys) for keys in alike}) == len(alike)


def test_numbers_of_numpy_count_as_numbers() -> None:
    assert derive_seed(0, np.int64(5)) == derive_seed(0, 5)  # type: ignore[arg-type]


def test_generators_are_fresh_and_of_one_item() -> None:
    assert np.array_equal(numpy_generator(3, "x").random(5), numpy_generator(3, "x").random(5))
    assert torch.equal(*(torch.rand(5, generator=torch_generator(3, "x")) for _ in range(2)))
    assert torch_generator(3, "x").device.type == "cpu"
    before = torch.get_rng_state()
    torch_generator(3, "x")
    assert torch.equal(before, torch.get_rng_state())
