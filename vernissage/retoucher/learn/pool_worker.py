"""A worker of a juror pool: loads a juror, scores what lies in the slab, and never outlives the pool."""

from __future__ import annotations

import os
import signal
import threading
from multiprocessing import parent_process
from multiprocessing.connection import wait
from typing import TYPE_CHECKING

import torch

from vernissage.retoucher.learn.pool_messages import READY, STOP, pack_failure, pack_scores, unpack_places
from vernissage.retoucher.learn.slabs import Slab

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

    from vernissage.retoucher.learn.juror import Juror
    from vernissage.retoucher.learn.slabs import Place, SlabSpec

#: Seconds between two looks at whether the parent is alive, where its death does not announce itself.
_PARENT_CHECK = 1.0


def work(factory: Callable[[], Juror], spec: SlabSpec, connection: Connection, threads: int) -> None:
    """Run a worker until the pool says stop, goes away or dies.

    Args:
        factory: Makes the juror, here in the worker.
        spec: The slab.
        connection: Gets places, is given scores or failures.
        threads: Torch's threads in this process.
    """
    # Ctrl-C reaches every process of a terminal; the pool's owner decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    torch.set_num_threads(threads)
    # As in the stages (core.devices): numbers too small for full precision cost a hundred times more.
    torch.set_flush_denormal(True)
    try:
        bench = _Bench(factory(), Slab.attach(spec))
    except Exception as error:  # noqa: BLE001 - whatever it is, the pool's owner hears it
        _answer(connection, pack_failure(error))
        return
    _answer(connection, READY)
    while (message := _next_message(connection)) != STOP:
        _answer(connection, bench.answer(message))
    # Nothing is left to save, and taking torch down in good order takes longer than all the rest of closing.
    os._exit(0)


class _Bench:
    """The juror at its work place."""

    def __init__(self, juror: Juror, slab: Slab) -> None:
        self._juror, self._slab = juror, slab
        self._unpacked = torch.empty(0)

    def answer(self, message: bytes) -> bytes:
        """Score the pictures at the given places."""
        try:
            return pack_scores(self._score(unpack_places(message)))
        except Exception as error:  # noqa: BLE001 - whatever a juror raises goes to who asked
            return pack_failure(error)

    @torch.no_grad()
    def _score(self, places: list[Place]) -> torch.Tensor:
        images = self._images(self._slab.view(places))
        scores = self._juror.score(images)
        if scores.shape != (len(images),):
            raise ValueError(f"got scores of shape {tuple(scores.shape)} for {len(images)} pictures")
        return scores.detach().to("cpu", torch.float32).contiguous()

    def _images(self, stored: torch.Tensor) -> torch.Tensor:
        if stored.dtype == torch.float32:
            return stored
        # One buffer for all batches: fresh memory of this size costs more than the arithmetic.
        if self._unpacked.numel() < stored.numel():
            self._unpacked = torch.empty(stored.numel())
        images = self._unpacked[: stored.numel()].view(stored.shape)
        return torch.div(stored, 255, out=images)


def _next_message(connection: Connection) -> bytes:
    try:
        return connection.recv_bytes()
    except (EOFError, OSError):
        return STOP


def _answer(connection: Connection, message: bytes) -> None:
    try:
        connection.send_bytes(message)
    except OSError:
        # Nobody is left to hear it; the next look for a message ends the worker.
        return


def _end_with_the_parent() -> None:
    """End this process when its parent is gone, even in the middle of a long forward."""
    parent, number = parent_process(), os.getppid()
    if parent is None:
        return
    # A process that the parent forked keeps the sentinel's other end open, so the number is looked at too.
    while not wait([parent.sentinel], timeout=_PARENT_CHECK) and os.getppid() == number:
        continue
    os._exit(1)
