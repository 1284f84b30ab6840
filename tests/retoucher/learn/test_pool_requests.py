"""Which pictures share a forward: cut alike every time, full or waited for, never mixed where it would do harm."""

from __future__ import annotations

from concurrent.futures import Future

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.retoucher.learn.worlds import PROPERTY
from vernissage.retoucher.learn.pool_requests import Callers, Part, Request, Waiting, part_sizes
from vernissage.retoucher.learn.slabs import Place


def request(count: int = 1) -> Request:
    return Request("somebody", torch.empty(count), 1, 1, Future())


def part(start: int = 0, pictures: int = 1, side: int = 4, of: Request | None = None) -> Part:
    return Part(of or request(pictures), 0, Place(start, pictures, side, side), None)


@PROPERTY
@given(st.integers(0, 300), st.integers(1, 8), st.integers(1, 40), st.integers(1, 64))
def test_every_picture_is_in_one_part_and_every_worker_gets_a_share(
    count: int, workers: int, share: int, most: int
) -> None:
    sizes = part_sizes(count, workers, share, most)
    assert sum(sizes) == count
    assert all(1 <= size <= most for size in sizes)
    assert not sizes or max(sizes) - min(sizes) <= 1
    # As many parts as there are workers, unless too little is left for each; no more than that or than needed.
    assert len(sizes) >= min(workers, count // share)
    assert len(sizes) <= max(1, min(workers, count // share), -(-count // most))


@pytest.mark.parametrize(
    ("arguments", "sizes"),
    [
        ((64, 2, 16, 32), [32, 32]),
        ((65, 2, 16, 32), [22, 22, 21]),
        ((31, 2, 16, 32), [31]),
        ((32, 2, 16, 32), [16, 16]),
        ((3, 2, 1, 32), [2, 1]),
        ((1, 4, 1, 32), [1]),
    ],
)
def test_cuts(arguments: tuple[int, int, int, int], sizes: list[int]) -> None:
    assert part_sizes(*arguments) == sizes


def test_nobody_else_expected_means_no_waiting() -> None:
    waiting = Waiting(batch=8, gather=1.0)
    alone = part()
    waiting.add(alone, now=5.0)
    assert waiting.due() == 6.0
    assert waiting.next_batch(5.0, more_expected=False) == [alone]
    assert len(waiting) == 0
    assert waiting.due() is None


def test_a_batch_waits_until_it_is_full_or_the_time_is_up() -> None:
    waiting = Waiting(batch=3, gather=1.0)
    first, second, third = part(30), part(20), part(10)
    waiting.add(first, now=5.0)
    assert waiting.next_batch(5.5, more_expected=True) == []
    waiting.add(second, now=5.6)
    assert waiting.next_batch(5.9, more_expected=True) == []
    assert waiting.next_batch(6.0, more_expected=True) == [second, first]  # the order of the memory
    for later in (first, second, third):
        waiting.add(later, now=7.0)
    assert waiting.next_batch(7.0, more_expected=True) == [third, second, first]


def test_what_cannot_share_a_forward_does_not() -> None:
    waiting = Waiting(batch=8, gather=1.0)
    asked = request(4)
    head, sibling, other_size, large, friend = (
        part(0, 2, of=asked),
        part(9, 2, of=asked),
        part(side=5),
        part(1, 7),
        part(2),
    )
    for one in (head, sibling, other_size, large, friend):
        waiting.add(one, now=0.0)
    assert waiting.next_batch(9.0, more_expected=False) == [head, friend]
    assert [waiting.next_batch(9.0, more_expected=False) for _ in range(3)] == [[sibling], [other_size], [large]]


def test_no_gathering_means_a_forward_for_each_part() -> None:
    waiting = Waiting(batch=8, gather=0.0)
    parts = [part(0), part(1)]
    for one in parts:
        waiting.add(one, now=0.0)
    assert [waiting.next_batch(0.0, more_expected=True) for _ in range(3)] == [[parts[0]], [parts[1]], []]


def test_what_went_wrong_comes_first_and_alone() -> None:
    waiting = Waiting(batch=8, gather=1.0)
    bad, worse, fresh = part(0), part(1), part(2)
    waiting.add(fresh, now=0.0)
    waiting.put_back([bad, worse])
    taken = [waiting.next_batch(0.0, more_expected=True) for _ in range(2)]
    assert taken == [[bad], [worse]]
    assert waiting.next_batch(9.0, more_expected=True) == [fresh]


def test_what_nobody_waits_for_is_swept_out() -> None:
    waiting = Waiting(batch=8, gather=1.0)
    kept, cancelled, given_up, answered = part(), part(), part(), part()
    for one in (kept, cancelled, given_up, answered):
        waiting.add(one, now=0.0)
    assert cancelled.request.future is not None
    assert cancelled.request.future.cancel()
    given_up.request.given_up = True
    answered.request.outcome = torch.zeros(1)
    assert waiting.sweep() == [cancelled, given_up, answered]
    assert list(waiting) == [kept]


def test_only_who_asked_lately_and_has_not_asked_again_is_waited_for() -> None:
    callers = Callers(gather=1.0)
    assert not callers.expected(0.0)
    callers.asks("a")
    callers.asks("a")
    callers.asks("b")
    assert not callers.expected(0.0)
    callers.answered("a", 1.0)
    assert not callers.expected(1.0)  # its other request is still open
    callers.answered("b", 1.0)
    assert callers.expected(2.0)
    callers.asks("b")
    assert not callers.expected(2.0)
    callers.answered("b", 3.0)
    assert callers.expected(12.9)
    assert not callers.expected(13.1)
