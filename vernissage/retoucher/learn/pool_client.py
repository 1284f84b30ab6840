"""The juror of a pool, seen from another process: environment workers and the like."""

from __future__ import annotations

import os
import socket
import threading
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

import torch

from vernissage.retoucher.learn.pool_messages import (
    READY,
    JurorPoolClosed,
    JurorPoolError,
    JurorTimeout,
    pack_cancel,
    pack_hello,
    pack_request,
    unpack_answer,
)
from vernissage.retoucher.learn.slabs import Place, Slab, check_pictures

if TYPE_CHECKING:
    from vernissage.retoucher.learn.slabs import SlabSpec


@dataclass(frozen=True)
class Door:
    """Where a client finds its pool, and the slots that are its own.

    Attributes:
        slab: The pool's memory.
        address: The pool's socket.
        token: What only the pool's clients know.
        key: Which client this is.
        first: First of its slots.
        slots: Number of its slots.
        timeout: Seconds after which a missing score is an error.
    """

    slab: SlabSpec
    address: str
    token: bytes = field(repr=False)
    key: int
    first: int
    slots: int
    timeout: float


class JurorClient:
    """A juror whose work is done by a pool in a parent process; made by `JurorPool.client`.

    It can be sent to a process that the pool's process starts, by any way that multiprocessing or cloudpickle knows,
    and connects when it is first used. Each client is for one process at a time; its threads take turns.

    Args:
        door: Where the pool is.
    """

    def __init__(self, door: Door) -> None:
        self._door = door
        self._turn = threading.Lock()
        self._slab: Slab | None = None
        self._line: Connection | None = None
        self._owed = False
        self._process = 0

    def __reduce__(self) -> tuple[type[JurorClient], tuple[Door]]:
        """Only the way to the pool travels."""
        return type(self), (self._door,)

    def score(self, images: torch.Tensor) -> torch.Tensor:
        """Score pictures in the pool.

        Args:
            images: (N, 3, H, W) float in [0, 1]; more than its slots hold are sent one load after the other.

        Returns:
            (N,) in [0, 10].

        Raises:
            ValueError: If these are no pictures.
            JurorTimeout: If no scores came in time.
            JurorPoolClosed: If the pool is gone.
            JurorPoolError: If a picture is too large for this client's slots, or the pool failed.
        """
        spec = self._door.slab
        check_pictures(images, spec.pixels)
        load = spec.pictures_in(self._door.slots, *images.shape[2:])
        if not load:
            height, width = images.shape[2:]
            raise JurorPoolError(
                f"juror pool: a picture of {width}x{height} pixels does not fit into this client's {self._door.slots} "
                f"slots of {spec.side}x{spec.side}; ask for more: pool.client(slots=...)"
            )
        deadline = time.monotonic() + self._door.timeout
        with self._turn:
            scores = [self._score_load(part, deadline) for part in images.split(load)] if len(images) else []
        return torch.cat([torch.empty(0), *scores]).to(images.device)

    def close(self) -> None:
        """Hang up; the next use connects again."""
        line, slab = self._line, self._slab
        self._line, self._slab, self._owed = None, None, False
        # A forked process has inherited a line that is its parent's to speak on.
        if line is not None:
            line.close()
        if slab is not None:
            slab.close()

    def _score_load(self, images: torch.Tensor, deadline: float) -> torch.Tensor:
        line, slab = self._connected(deadline)
        try:
            if self._owed:
                # The answer to a question that was given up: until it is here, a worker may still look at our slots.
                self._hear(line, deadline)
            count, _, height, width = images.shape
            slab.write(Place(self._door.first * slab.spec.slot_values, count, height, width), images)
            self._owed = True
            line.send_bytes(pack_request(count, height, width))
            answer = unpack_answer(self._hear(line, deadline))
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            self.close()
            raise JurorPoolClosed("juror pool: it was closed, or its process ended") from error
        if isinstance(answer, torch.Tensor):
            return answer
        raise answer

    def _hear(self, line: Connection, deadline: float) -> bytes:
        heard = False
        try:
            heard = line.poll(max(0.0, deadline - time.monotonic()))
        finally:
            if not heard:  # too late, or interrupted: either way nobody needs the scores
                line.send_bytes(pack_cancel())
        if not heard:
            raise JurorTimeout(f"juror pool: no scores within {self._door.timeout:g} s; is the pool busy or stopped?")
        message = line.recv_bytes()
        self._owed = False
        return message

    def _connected(self, deadline: float) -> tuple[Connection, Slab]:
        if self._process != os.getpid():
            self.close()
        if self._line is None or self._slab is None:
            self._process = os.getpid()
            self._line, self._slab = self._knock(deadline), Slab.attach(self._door.slab)
        return self._line, self._slab

    def _knock(self, deadline: float) -> Connection:
        knocking = socket.socket(socket.AF_UNIX)
        try:
            knocking.connect(self._door.address)
        except OSError as error:
            knocking.close()
            raise JurorPoolClosed(f"juror pool: not reachable ({error.strerror}); was it closed?") from error
        line = Connection(knocking.detach())
        try:
            self._greet(line, deadline)
        except (EOFError, OSError) as error:
            line.close()
            raise JurorPoolClosed("juror pool: it closed before it answered") from error
        except BaseException:
            line.close()
            raise
        return line

    def _greet(self, line: Connection, deadline: float) -> None:
        line.send_bytes(pack_hello(self._door.token, self._door.key))
        if not line.poll(max(0.0, deadline - time.monotonic())):
            raise JurorTimeout(f"juror pool: no answer within {self._door.timeout:g} s")
        welcome = line.recv_bytes()
        if welcome != READY:
            refusal = unpack_answer(welcome)
            raise refusal if isinstance(refusal, Exception) else JurorPoolError("juror pool: unexpected answer")
