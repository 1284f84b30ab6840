from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vernissage.retoucher.prepare.flow import equal_size_batches, ordered_map, to_pixels, to_tensor


def test_results_come_in_the_order_of_the_items() -> None:
    def work(item: int) -> int:
        time.sleep(0.02 if item % 3 == 0 else 0)
        return item * item

    assert list(ordered_map(work, range(30), threads=4)) == [item * item for item in range(30)]


def test_few_items_are_in_flight() -> None:
    begun = []

    def work(item: int) -> int:
        begun.append(item)
        return item

    results = ordered_map(work, range(100), threads=2, in_flight=5)
    next(results)
    time.sleep(0.1)
    assert len(begun) <= 6
    results.close()


def test_an_error_comes_at_its_turn_and_ends_the_threads() -> None:
    def work(item: int) -> int:
        if item == 3:
            raise ValueError("three")
        return item

    before = threading.active_count()
    seen = []
    with pytest.raises(ValueError, match="three"):
        seen.extend(ordered_map(work, range(50), threads=2))
    assert seen == [0, 1, 2]
    assert threading.active_count() == before


@given(st.lists(st.sampled_from([(1, 2), (2, 1), (3, 3)]), max_size=40), st.integers(1, 7))
def test_batches_hold_each_photo_once_and_one_size_each(sizes: list[tuple[int, int]], batch: int) -> None:
    batches = equal_size_batches(sizes, batch)
    assert sorted(position for rows in batches for position in rows) == list(range(len(sizes)))
    assert all(len({sizes[position] for position in rows}) == 1 and len(rows) <= batch for rows in batches)


def test_pixels_make_the_round_trip() -> None:
    pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    images = to_tensor(pixels)
    assert images.shape == (1, 3, 16, 16)
    assert images.dtype == torch.float32
    assert (images.min(), images.max()) == (0, 1)
    assert np.array_equal(to_pixels(images), pixels)
