"""Work in other processes: the same results in the same order, and a plain word when one of them dies."""

from __future__ import annotations

import math
import os

import pytest

from vernissage.core.errors import VernissageError
from vernissage.sculptor.prepare.processes import in_processes


@pytest.mark.parametrize("workers", [0, 1, 2, 9])
def test_results_come_in_order(workers: int) -> None:
    assert list(in_processes(math.factorial, range(6), workers)) == [1, 1, 2, 6, 24, 120]


def test_nothing_to_do_starts_nothing() -> None:
    assert list(in_processes(math.factorial, [], 4)) == []


def test_an_error_comes_back_as_it_was() -> None:
    with pytest.raises(ValueError, match="factorial"):
        list(in_processes(math.factorial, [3, -1, 4], 2))


def test_a_killed_process_is_told_of() -> None:
    with pytest.raises(VernissageError, match="VERNISSAGE_THREADS=1"):
        list(in_processes(os._exit, [7, 7], 2))
