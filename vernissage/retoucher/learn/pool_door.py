"""The pool's side of its clients in other processes; everything here runs in the pool's service thread."""

from __future__ import annotations

import contextlib
import hmac
import secrets
import selectors
import shutil
import socket
import sys
import tempfile
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from vernissage.retoucher.learn.pool_client import Door
from vernissage.retoucher.learn.pool_messages import (
    LONGEST_REQUEST,
    READY,
    JurorPoolError,
    pack_failure,
    pack_scores,
    unpack_hello,
    unpack_request,
)
from vernissage.retoucher.learn.slabs import Place

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from vernissage.retoucher.learn.pool_requests import Request
    from vernissage.retoucher.learn.slabs import SlabSpec


@dataclass
class _Lot:
    """The slots of one client, who speaks on the line at present, and what is being scored there."""

    key: int
    first: int
    slots: int
    line: Connection | None = None
    request: Request | None = None


class ClientDesk:
    """Listens to clients, at most one process for each of the doors that were given out.

    Args:
        spec: The slab.
        lock: The pool's; whoever calls back holds it.
        selector: Tells the service thread who speaks.
        admit: Takes a request: who asks, where the pictures lie, what to call when their memory is free.
    """

    def __init__(
        self,
        spec: SlabSpec,
        lock: threading.RLock,
        selector: selectors.BaseSelector,
        admit: Callable[[int, Place, Callable[[Request], None]], Request],
    ) -> None:
        self._spec, self._lock, self._selector, self._admit = spec, lock, selector, admit
        self._token = secrets.token_bytes(16)
        self._lots: dict[int, _Lot] = {}
        self._lines: set[Connection] = set()
        self._folder: str | None = None
        if sys.platform == "linux":  # a name without a file: nothing stays behind, whatever ends the process
            self._address = f"\0vernissage-juror-{secrets.token_hex(8)}"
        else:
            self._folder = tempfile.mkdtemp(prefix="vernissage-juror-")
            self._address = str(Path(self._folder) / "socket")
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(self._address)
        self._socket.listen()
        self._socket.settimeout(0)
        # Safe from any thread: the selectors that we get (epoll, kqueue) take additions while they wait.
        selector.register(self._socket, selectors.EVENT_READ, self._knock)

    @property
    def slots(self) -> int:
        """Slots of all clients."""
        return sum(lot.slots for lot in self._lots.values())

    def door(self, first: int, slots: int, timeout: float) -> Door:
        """A way in for one more client, with slots of its own."""
        lot = _Lot(len(self._lots), first, slots)
        self._lots[lot.key] = lot
        return Door(self._spec, self._address, self._token, lot.key, first, slots, timeout)

    def close(self) -> None:
        """Hang up on everybody."""
        self._selector.unregister(self._socket)
        self._socket.close()
        for line in list(self._lines):
            self._hang_up(line)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _knock(self) -> None:
        try:
            accepted, _ = self._socket.accept()
        except OSError:  # gone again
            return
        accepted.settimeout(None)
        line = Connection(accepted.detach())
        self._lines.add(line)
        self._selector.register(line, selectors.EVENT_READ, lambda: self._greet(line))

    def _greet(self, line: Connection) -> None:
        try:
            token, key = unpack_hello(line.recv_bytes(LONGEST_REQUEST))
        except (EOFError, OSError):
            token, key = b"", -1
        lot = self._lots.get(key)
        if lot is None or not hmac.compare_digest(token, self._token):
            self._hang_up(line)
            return
        if lot.line is not None or lot.request is not None:
            taken = JurorPoolError("juror pool: this client is in use by another process; make one for each process")
            with contextlib.suppress(OSError):
                line.send_bytes(pack_failure(taken))
            self._hang_up(line)
            return
        lot.line = line
        self._selector.modify(line, selectors.EVENT_READ, lambda: self._hear(lot, line))
        with contextlib.suppress(OSError):
            line.send_bytes(READY)

    def _hear(self, lot: _Lot, line: Connection) -> None:
        try:
            asked = unpack_request(line.recv_bytes(LONGEST_REQUEST))
            place = None if asked is None else self._place(lot, *asked)
        except (EOFError, OSError, ValueError):
            if lot.request is not None:
                lot.request.given_up = True
            lot.line = None
            self._hang_up(line)
            return
        if place is not None:
            with self._lock:  # another thread may let the request go as soon as it is admitted
                request = self._admit(lot.key, place, lambda request: self._let_go(lot, request))
                lot.request = request if request.held_parts else None
        elif lot.request is not None:
            lot.request.given_up = True

    def _place(self, lot: _Lot, count: int, height: int, width: int) -> Place:
        if lot.request is not None or min(count, height, width) < 1:
            raise ValueError("asked out of turn, or for nothing")
        if self._spec.slots_for(count, height, width) > lot.slots:
            raise ValueError("asked for pictures beyond its own slots")
        return Place(lot.first * self._spec.slot_values, count, height, width)

    def _let_go(self, lot: _Lot, request: Request) -> None:
        """The memory is the client's again: now it may hear the outcome."""
        lot.request = None
        if lot.line is None:
            return
        outcome = request.outcome
        if outcome is None:
            message = pack_failure(JurorPoolError("juror pool: given up"))
        elif isinstance(outcome, torch.Tensor):
            message = pack_scores(outcome)
        else:
            message = pack_failure(outcome)
        with contextlib.suppress(OSError):  # who does not listen any more is noticed at the next look
            lot.line.send_bytes(message)

    def _hang_up(self, line: Connection) -> None:
        self._lines.discard(line)
        self._selector.unregister(line)
        line.close()
