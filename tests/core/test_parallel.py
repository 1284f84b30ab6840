"""Parts of a batch side by side: every row once and in order, cut the same whatever the machine, threads put back."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vernissage.core.parallel import in_parts, threads_for_parts


@given(st.integers(0, 200), st.integers(1, 40), st.integers(1, 3))
def test_every_row_is_worked_on_once_and_in_order(rows: int, part: int, threads: int) -> None:
    parts = in_parts(lambda some: list(range(rows))[some], rows, part, threads=threads)
    assert [row for some in parts for row in some] == list(range(rows))
    assert all(0 < len(some) <= part for some in parts)
    assert len(parts) <= 1 or len(parts) % 2 == 0 or len(parts) == rows
    assert max(map(len, parts), default=0) - min(map(len, parts), default=0) <= 1
    assert parts == in_parts(lambda some: list(range(rows))[some], rows, part, threads=1)


@pytest.mark.parametrize("gradients", [True, False])
def test_parts_have_one_thread_and_the_callers_gradients(gradients: bool) -> None:
    def look(_: slice) -> tuple[int, bool]:
        return torch.get_num_threads(), torch.is_grad_enabled()

    with torch.set_grad_enabled(gradients):
        assert in_parts(look, 8, 2, threads=2) == [(1, gradients)] * 4
    assert torch.get_num_threads() == 1


def test_torchs_threads_are_kept_for_the_parts_and_put_back() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with threads_for_parts():
            assert torch.get_num_threads() == 1
            assert in_parts(lambda _: torch.get_num_threads(), 4, 2) == [1, 1]
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_an_error_comes_out_and_threads_are_put_back() -> None:
    def fail(rows: slice) -> None:
        if rows.start:
            raise ValueError("no such row")

    before = torch.get_num_threads()
    with pytest.raises(ValueError, match="no such row"):
        in_parts(fail, 4, 2, threads=2)
    assert torch.get_num_threads() == before
