"""Spreads work over processes; what comes out, and in which order, does not depend on how many there are."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, TypeVar

from vernissage.core.errors import VernissageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_processes(work: Callable[[Item], Result], items: Sequence[Item], workers: int) -> Iterator[Result]:
    """Yield `work(item)` for every item, in order.

    Args:
        work: A function of a module, so that another process finds it.
        items: What it is called with.
        workers: Most processes; up to 1 the work is done in this one.

    Raises:
        VernissageError: A process was killed.
    """
    if min(workers, len(items)) <= 1:
        yield from map(work, items)
        return
    # A forked copy of a process with threads (torch, a progress bar) may wait for a lock for ever.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(items)), mp_context=context) as pool:
        try:
            yield from pool.map(work, items)
        except BrokenProcessPool as error:
            raise VernissageError(
                f"one of {workers} worker processes was killed, most likely for want of memory ({error}); "
                "run again with VERNISSAGE_THREADS=1"
            ) from error
        finally:
            # After an error or Ctrl-C nobody wants the rest.
            pool.shutdown(cancel_futures=True)
