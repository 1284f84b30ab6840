"""Runs independent parts of a batch side by side, one thread each: better than two threads on every small operation."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Result = TypeVar("Result")

_threads_for_parts: ContextVar[int | None] = ContextVar("threads for parts", default=None)


@contextmanager
def threads_for_parts() -> Iterator[None]:
    """Keep torch's threads for :func:`in_parts`; single operations get one.

    After an operation on several threads these wait actively for the next one, on the cores that the parts need.
    """
    import torch

    before = torch.get_num_threads()
    token = _threads_for_parts.set(before)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        _threads_for_parts.reset(token)


def in_parts(work: Callable[[slice], Result], rows: int, part: int, *, threads: int | None = None) -> list[Result]:
    """Call a function on neighbouring rows of a batch, as many calls at a time as there are threads.

    How rows are cut does not depend on the number of threads, so that results do not either.

    Args:
        work: Takes the rows to work on; called from several threads, each with one torch thread and with gradients as
            the caller has them.
        rows: Length of the batch.
        part: Most rows of one call.
        threads: How many calls at a time; without it as many as torch has threads, see also :func:`threads_for_parts`.

    Returns:
        The results in order; empty if there are no rows.
    """
    import torch

    before, with_gradients = torch.get_num_threads(), torch.is_grad_enabled()
    parts = _cut(rows, part)
    threads = min(threads or _threads_for_parts.get() or before, len(parts))
    if threads <= 1:
        return [work(rows_of_part) for rows_of_part in parts]

    def alone(rows_of_part: slice) -> Result:
        torch.set_num_threads(1)
        with torch.set_grad_enabled(with_gradients):
            return work(rows_of_part)

    try:
        with ThreadPoolExecutor(max_workers=threads) as pool:
            return list(pool.map(alone, parts))
    finally:
        torch.set_num_threads(before)


def _cut(rows: int, part: int) -> list[slice]:
    """Even parts, and an even number of them where there is more than one: two cores are equally busy."""
    if rows <= part:
        return [slice(0, rows)] if rows else []
    count = min(rows, 2 * -(-rows // (2 * part)))
    return [slice(first, last) for first, last in pairwise(rows * number // count for number in range(count + 1))]
