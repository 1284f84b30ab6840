"""A juror in worker processes: pictures lie in shared memory, requests of several callers share one forward.

Who does what: a caller's own thread writes its pictures into the slab and, when a worker is free, hands them over at
once. One service thread hears the workers' answers, times the gathering, serves clients in other processes, and
replaces workers that died.

* A worker that dies is replaced, and its pictures are scored once more, each request by itself. Pictures over which
  two workers died are given up: :class:`JurorWorkerDied`. A worker that dies before its juror was loaded breaks the
  pool: every later call raises the same error.
* A juror's error reaches who asked for these pictures, and nobody else.
* A time-out raises :class:`JurorTimeout`. The slots are lent again only when the worker has let go of them; a worker
  that is busy for twice the time-out with pictures that nobody waits for any more is ended and replaced.
"""

from __future__ import annotations

import atexit
import contextlib
import enum
import functools
import logging
import multiprocessing
import os
import selectors
import signal
import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn, Self

import torch

from vernissage.core.errors import VernissageError
from vernissage.retoucher.learn.pool_client import JurorClient
from vernissage.retoucher.learn.pool_door import ClientDesk
from vernissage.retoucher.learn.pool_messages import (
    READY,
    STOP,
    JurorPoolClosed,
    JurorPoolError,
    JurorTimeout,
    JurorWorkerDied,
    pack_places,
    unpack_answer,
)
from vernissage.retoucher.learn.pool_requests import Callers, Part, Request, Waiting, part_sizes
from vernissage.retoucher.learn.pool_worker import work
from vernissage.retoucher.learn.slabs import Place, Slab, SlotLedger, check_pictures

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Sequence
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess
    from pathlib import Path

    from vernissage.retoucher.learn.juror import Juror
    from vernissage.retoucher.learn.slabs import PixelType

log = logging.getLogger(__name__)

_DEATHS_BEFORE_GIVING_UP = 2
_OVERRUN_BEFORE_ENDING = 2.0
_SECONDS_TO_LEAVE = 5.0
# Selectors count in milliseconds and overflow long before time-outs do.
_LONGEST_SLEEP = 3600.0


class PoolState(enum.Enum):
    """What a pool can be asked for."""

    STARTING = "starting"
    OPEN = "open"
    BROKEN = "broken"
    CLOSED = "closed"


@dataclass(eq=False)
class _Worker:
    """One process, and the parts that it scores at present."""

    index: int
    process: SpawnProcess
    connection: Connection
    ready: bool = False
    parts: list[Part] = field(default_factory=list)
    since: float = 0.0
    ending: bool = False
    # Never closed while somebody speaks on it: its number could be another line's a moment later.
    speaking: threading.Lock = field(default_factory=threading.Lock)

    def tell(self, message: bytes) -> None:
        """Send a message; a worker that has just died is noticed by whoever listens."""
        with self.speaking, contextlib.suppress(OSError):
            self.connection.send_bytes(message)

    def hang_up(self) -> None:
        """Close the line."""
        with self.speaking:
            self.connection.close()

    @property
    def idle(self) -> bool:
        return self.ready and not self.parts

    @property
    def forsaken(self) -> bool:
        """Whether it works on what nobody waits for any more."""
        return bool(self.parts) and not self.ending and all(part.request.settled for part in self.parts)


_Order = tuple[_Worker, bytes]


@contextlib.contextmanager
def open_juror(folder: Path, workers: int, *, cautiously: bool = False) -> Iterator[Juror]:
    """The juror of a folder, in this process or in a pool.

    Args:
        folder: Where the ``juror`` stage saved it.
        workers: Processes; 0 scores in this one.
        cautiously: Whether its cautious score is wanted, as for rewards and searches, see :func:`juror.cautious`. A
            pool cannot be made cautious afterwards: it gives scores and nothing else.

    Yields:
        The juror; a pool is closed at the end.

    Raises:
        MissingArtifact: If the folder holds no juror.
        CorruptArtifact: If a file does not match its hash or specification.
    """
    factory = functools.partial(_load, folder, cautiously=cautiously)
    if workers == 0:
        yield factory()
        return
    with JurorPool(factory, workers=workers) as pool:
        yield pool


def _load(folder: Path, *, cautiously: bool) -> Juror:
    from vernissage.retoucher.learn.juror import cautious
    from vernissage.retoucher.learn.jurors import load_juror

    juror = load_juror(folder)
    return cautious(juror) if cautiously else juror


class JurorPool:
    """A :class:`Juror` that works in other processes; a context manager, closed at the latest when its process ends.

    Scores equal those of the same juror in this process, bit for bit, where a picture's score does not depend on its
    neighbours in the batch. Networks round a little differently in batches of another size (about 1e-6): a lone caller
    gets the same bits in every run all the same, because its requests are always cut alike; several callers do with
    ``gather=0``.

    Args:
        factory: Makes the juror in each worker; importable, with plain arguments (`functools.partial(load, folder)`).
        workers: Number of processes.
        side: A slot holds side x side pixels; smaller pictures lie closely packed, larger ones take several slots.
        slots: Number of slots. All is allocated now: 12 x slots x side^2 bytes with ``float32``.
        batch: Most pictures of one forward.
        share: A request is cut for several workers into parts of no less than this; for a slow juror 1 is best.
        pixels: How pictures travel: ``float32`` as they are, or ``uint8`` on the 8-bit grid in a quarter of the memory.
        gather: Seconds for which an incomplete batch waits for others who asked lately; 0 never mixes requests.
        timeout: Seconds after which a missing score is an error.
        start_timeout: Seconds for the workers to load their jurors.
        threads: Torch's threads in each worker. Two busy processes with two threads each on two cores are many times
            slower than with one.

    Raises:
        NotEnoughSharedMemory: If the slab does not fit into the system's shared memory.
        JurorTimeout: If a worker is not ready in time.
        JurorWorkerDied: If a worker ends before its juror is loaded.
        VernissageError: What the factory raised; other errors of it as :class:`JurorFailed`.
    """

    def __init__(
        self,
        factory: Callable[[], Juror],
        *,
        workers: int = 2,
        side: int = 384,
        slots: int = 32,
        batch: int = 32,
        share: int = 16,
        pixels: PixelType = "float32",
        gather: float = 0.002,
        timeout: float = 120.0,
        start_timeout: float = 120.0,
        threads: int = 1,
    ) -> None:
        times = (gather, timeout, start_timeout)
        if min(workers, batch, share, threads) < 1 or not all(
            0 <= seconds <= threading.TIMEOUT_MAX for seconds in times
        ):
            raise ValueError(
                f"juror pool: got {workers=}, {batch=}, {share=}, {threads=}, {gather=}, {timeout=}, {start_timeout=}, "
                "expected at least one of each, and times from 0"
            )
        self._factory, self._threads, self._batch, self._share = factory, threads, batch, share
        self._staff, self._timeout, self._process = workers, timeout, os.getpid()
        self._context = multiprocessing.get_context("spawn")
        self._lock = threading.RLock()
        self._room = threading.Condition(self._lock)
        self._entrance = threading.Lock()
        self._state = PoolState.STARTING
        self._problem: VernissageError | None = None
        self._waiting, self._callers = Waiting(batch, gather), Callers(gather)
        self._resolved: deque[Request] = deque()
        self._writers = 0
        self._desk: ClientDesk | None = None
        self._slab = Slab.allocate(slots, side, pixels)
        self._ledger = SlotLedger(slots)
        self._workers: list[_Worker] = []
        self._selector = selectors.DefaultSelector()
        self._ear, bell = os.pipe()
        os.set_blocking(bell, False)
        self._bell: int | None = bell
        self._selector.register(self._ear, selectors.EVENT_READ, lambda: os.read(self._ear, 4096))
        self._service = threading.Thread(target=self._serve, name="juror-pool", daemon=True)
        atexit.register(self.close)
        try:
            for index in range(workers):
                self._workers.append(self._hire(index))
            self._service.start()
            self._await_workers(start_timeout)
        except BaseException:
            self.close()
            raise

    # --- for everybody ------------------------------------------------------------------------------------------------

    @property
    def state(self) -> PoolState:
        """What the pool can be asked for."""
        return self._state

    @property
    def processes(self) -> list[int | None]:
        """Process ids of the present workers."""
        with self._lock:
            return [worker.process.pid for worker in self._workers]

    def score(self, images: torch.Tensor) -> torch.Tensor:
        """Score (N, 3, H, W) float pictures in [0, 1]: (N,) float32 in [0, 10], on the pictures' device.

        Raises:
            ValueError: If these are no pictures.
            JurorTimeout: If no score came in time.
            JurorFailed: If the juror raised an error; errors of this project's own tree keep their type.
            JurorWorkerDied: If workers died over these pictures.
            JurorPoolClosed: If the pool is closed.
            JurorPoolError: If a picture does not fit into the slab.
        """
        deadline = time.monotonic() + self._timeout
        future = self._submit(images, deadline)
        try:
            scores = future.result(max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            if future.cancel():
                self._raise_timeout(images)
            scores = future.result()  # it came this very moment
        except BaseException:
            future.cancel()  # interrupted: nobody needs it any more
            raise
        return scores.to(images.device)

    def submit(self, images: torch.Tensor) -> Future[torch.Tensor]:
        """Ask for scores without waiting for them; it waits only where all slots are lent.

        Args:
            images: As for :meth:`score`; copied before this returns.

        Returns:
            A future of the (N,) float32 scores; its errors are those of :meth:`score`. Cancel it when you no longer
            need it. Its callbacks run in the pool's own thread and must not wait for the pool.
        """
        return self._submit(images, time.monotonic() + self._timeout)

    def client(self, slots: int = 1) -> JurorClient:
        """This juror for another process, which may be started in any way and at any time from here.

        Args:
            slots: Slots that belong to this client from now on; it can send as many pictures at once as fit into them.

        Raises:
            JurorPoolError: If not so many neighbouring slots are left, of which one has to stay for this process.
            JurorPoolClosed: If the pool is closed.
        """
        if slots < 1:
            raise ValueError(f"slots: got {slots}, expected at least one")
        self._must_be_home()
        with self._lock:
            self._must_be_usable()
            first = None if self._ledger.free <= slots else self._ledger.lend(slots, from_the_end=True)
            if first is None:
                raise JurorPoolError(
                    f"juror pool: {slots} slots for another client, but only {self._ledger.free} of "
                    f"{self._slab.spec.slots} are free and one stays for this process; make the pool with more slots"
                )
            if self._desk is None:
                self._desk = ClientDesk(self._slab.spec, self._lock, self._selector, self._admit)
            return JurorClient(self._desk.door(first, slots, self._timeout))

    def close(self) -> None:
        """End the workers and free the memory; whoever still waits gets :class:`JurorPoolClosed`. May be repeated."""
        if os.getpid() != self._process:  # a forked copy: nothing of this is its own
            return
        with self._lock:
            if self._state is PoolState.CLOSED:
                return
            self._state = PoolState.CLOSED
            self._fail_everything(JurorPoolClosed("juror pool: it was closed while this waited"))
        atexit.unregister(self.close)
        self._ring()
        if self._service.is_alive() and threading.current_thread() is not self._service:
            self._service.join()
        self._resolve()
        if self._desk is not None:
            self._desk.close()
        _dismiss(self._workers)
        self._selector.close()
        with self._lock:
            bell, self._bell = self._bell, None
            os.close(self._ear)
            if bell is not None:
                os.close(bell)
            self._room.wait_for(lambda: self._writers == 0)
            self._slab.close()

    def __enter__(self) -> Self:
        """Itself; the workers are ready."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def __reduce__(self) -> NoReturn:
        """Refused: other processes get a client.

        Raises:
            TypeError: Always.
        """
        raise TypeError("a JurorPool stays in its process; send pool.client() instead")

    # --- in the caller's thread ---------------------------------------------------------------------------------------

    def _submit(self, images: torch.Tensor, deadline: float) -> Future[torch.Tensor]:
        self._must_be_home()
        check_pictures(images, self._slab.spec.pixels)
        future: Future[torch.Tensor] = Future()
        if not len(images):
            future.set_result(torch.empty(0))
            return future
        with self._lock:
            self._must_be_usable()
            sizes = part_sizes(len(images), self._staff, self._share, self._largest_part(images))
            request = Request(threading.get_ident(), torch.empty(len(images)), len(sizes), len(sizes), future)
            self._callers.asks(request.caller)
        future.add_done_callback(self._ring_if_cancelled)
        first = placed = 0
        try:
            for part in images.split(sizes):
                self._put_up(request, part, first, deadline)
                first, placed = first + len(part), placed + 1
        except BaseException:
            future.cancel()
            with self._lock:
                for _ in sizes[placed:]:
                    self._let_go(request)
            raise
        return future

    def _largest_part(self, images: torch.Tensor) -> int:
        """Most pictures of this size in one part: a batch, and where possible no more than half of the slots."""
        spec, (height, width) = self._slab.spec, images.shape[2:]
        own = spec.slots - (self._desk.slots if self._desk is not None else 0)
        room = spec.pictures_in(own // 2, height, width) or min(1, spec.pictures_in(own, height, width))
        if not room:
            raise JurorPoolError(
                f"juror pool: a picture of {width}x{height} pixels does not fit into {own} slots of "
                f"{spec.side}x{spec.side}; score it smaller, or make the pool with more or larger slots"
            )
        return min(self._batch, room)

    def _put_up(self, request: Request, images: torch.Tensor, first: int, deadline: float) -> None:
        spec = self._slab.spec
        count, _, height, width = images.shape
        slots = spec.slots_for(count, height, width)
        lent = self._lend(slots, deadline)
        place = Place(lent * spec.slot_values, count, height, width)
        part: Part | None = None
        orders: list[_Order] = []
        try:
            self._slab.write(place, images)
            part = Part(request, first, place, (lent, slots))
        finally:
            with self._lock:
                self._writers -= 1
                self._room.notify_all()
                if part is None or self._state is not PoolState.OPEN:
                    self._ledger.take_back(lent, slots)
                    self._must_be_usable()
                else:
                    self._waiting.add(part, time.monotonic())
                    orders = self._assign()
                    if len(self._waiting) and any(worker.idle for worker in self._workers):
                        self._ring()  # it waits for company: the service thread looks at the clock
        _hand_over(orders)

    def _lend(self, slots: int, deadline: float) -> int:
        # One at a time: whoever waits here for many slots is not overtaken for ever by others who need few.
        if not self._entrance.acquire(timeout=max(0.0, deadline - time.monotonic())):
            self._raise_no_room(slots)
        try:
            with self._lock:
                while True:
                    self._must_be_usable()
                    self._drop_unwanted()
                    first = self._ledger.lend(slots)
                    if first is not None:
                        self._writers += 1
                        return first
                    if not self._room.wait(max(0.0, deadline - time.monotonic())):
                        self._raise_no_room(slots)
        finally:
            self._entrance.release()

    def _must_be_home(self) -> None:
        if os.getpid() != self._process:  # a forked copy, whose locks may be held by threads that it does not have
            raise JurorPoolError("juror pool: it belongs to another process; send pool.client() there instead")

    def _must_be_usable(self) -> None:
        if self._state is PoolState.CLOSED:
            raise JurorPoolClosed("juror pool: it is closed")
        if self._problem is not None:
            raise _again(self._problem)

    def _ring_if_cancelled(self, future: Future[torch.Tensor]) -> None:
        if future.cancelled():
            self._ring()

    def _ring(self) -> None:
        """Make the service thread look up."""
        # Rung often enough, it does not have to hear more; closed, the number may be another file's by now.
        with self._lock, contextlib.suppress(BlockingIOError):
            if self._bell is not None:
                os.write(self._bell, b"!")

    def _raise_no_room(self, slots: int) -> NoReturn:
        raise JurorTimeout(
            f"juror pool: no {slots} of {self._slab.spec.slots} slots became free within {self._timeout:g} s; "
            f"{self._situation()}"
        )

    def _raise_timeout(self, images: torch.Tensor) -> NoReturn:
        count, _, height, width = images.shape
        raise JurorTimeout(
            f"juror pool: no scores for {count} pictures of {width}x{height} pixels within {self._timeout:g} s; "
            f"{self._situation()}"
        )

    def _situation(self) -> str:
        with self._lock:
            busy = sum(bool(worker.parts) for worker in self._workers)
            return f"{busy} of {len(self._workers)} workers are busy, {len(self._waiting)} parts wait"

    # --- by whoever holds the lock ------------------------------------------------------------------------------------

    def _assign(self) -> list[_Order]:
        """Give every idle worker what it is time for; whoever called hands it over, after the lock."""
        self._drop_unwanted()
        orders: list[_Order] = []
        now = time.monotonic()
        for worker in self._workers:
            if worker.idle and self._state is PoolState.OPEN:
                batch = self._waiting.next_batch(now, more_expected=self._callers.expected(now))
                if not batch:
                    break
                worker.parts, worker.since = batch, now
                orders.append((worker, pack_places([part.place for part in batch])))
        return orders

    def _drop_unwanted(self) -> None:
        for part in self._waiting.sweep():
            self._release(part)

    def _release(self, part: Part) -> None:
        """The memory of a part is free: no worker looks at it any more."""
        if part.lent is not None:
            self._ledger.take_back(*part.lent)
            self._room.notify_all()
        self._let_go(part.request)

    def _let_go(self, request: Request) -> None:
        request.held_parts -= 1
        if not request.held_parts:
            self._callers.answered(request.caller, time.monotonic())
            if request.let_go is not None:
                request.let_go(request)

    def _settle(self, request: Request, outcome: torch.Tensor | VernissageError) -> None:
        if request.settled:
            return
        request.outcome = outcome
        if request.future is not None:
            self._resolved.append(request)

    def _fail_everything(self, error: VernissageError) -> None:
        for part in [*self._waiting, *(part for worker in self._workers for part in worker.parts)]:
            self._settle(part.request, _again(error))
        self._drop_unwanted()
        self._room.notify_all()

    def _break(self, problem: VernissageError) -> None:
        if self._state in {PoolState.STARTING, PoolState.OPEN}:
            self._state, self._problem = PoolState.BROKEN, problem
            self._fail_everything(problem)

    # --- in the service thread ----------------------------------------------------------------------------------------

    def _serve(self) -> None:
        try:
            while self._state is not PoolState.CLOSED:
                for key, _ in self._selector.select(self._patience()):
                    key.data()
                with self._lock:
                    orders: list[_Order] = []
                    if self._state is PoolState.OPEN:
                        self._end_stuck_workers()
                        orders = self._assign()
                _hand_over(orders)
                self._resolve()
        except Exception as error:
            log.exception("juror pool: its service thread failed")
            with self._lock:
                self._break(JurorPoolError(f"juror pool: its service thread failed: {error!r}"))
            self._resolve()

    def _patience(self) -> float | None:
        """Seconds until something has to be done although nobody calls; none if there is nothing."""
        with self._lock:
            times = [self._end_of_patience(worker) for worker in self._workers if worker.forsaken]
            due = self._waiting.due()
            if due is not None and any(worker.idle for worker in self._workers):
                times.append(due)
        return min(_LONGEST_SLEEP, max(0.0, min(times) - time.monotonic())) if times else None

    def _resolve(self) -> None:
        """Tell those who wait in this process; without the lock, because their callbacks run here."""
        while self._resolved:
            request = self._resolved.popleft()
            future, outcome = request.future, request.outcome
            if future is None or not future.set_running_or_notify_cancel():
                continue
            if isinstance(outcome, torch.Tensor):
                future.set_result(outcome)
            else:
                future.set_exception(outcome)

    def _hear(self, worker: _Worker) -> None:
        try:
            message = worker.connection.recv_bytes()
        except (EOFError, OSError):
            self._bury(worker)
            return
        with self._lock:
            if worker.ready:
                parts, worker.parts = worker.parts, []
                self._take(parts, unpack_answer(message))
            elif message == READY:
                worker.ready = True
                if self._state is PoolState.STARTING and all(other.ready for other in self._workers):
                    self._state = PoolState.OPEN
                self._room.notify_all()
            else:
                failure = unpack_answer(message)
                self._break(failure if isinstance(failure, VernissageError) else JurorPoolError("juror pool: no juror"))

    def _take(self, parts: Sequence[Part], answer: torch.Tensor | VernissageError) -> None:
        """Hand out the scores of a forward, or its error."""
        if isinstance(answer, VernissageError):
            if len(parts) > 1:  # it is the fault of one of them at most
                self._waiting.put_back(list(parts))
                return
            answer = _again(answer)
            self._settle(parts[0].request, answer)
            self._release(parts[0])
            return
        for part, scores in zip(parts, answer.split([part.place.pictures for part in parts]), strict=True):
            request = part.request
            request.scores[part.first : part.first + len(scores)] = scores
            request.open_parts -= 1
            if not request.open_parts:
                self._settle(request, request.scores)
            self._release(part)

    def _bury(self, worker: _Worker) -> None:
        """A worker is gone: send its parts elsewhere, hire another one."""
        self._selector.unregister(worker.connection)
        worker.hang_up()
        worker.process.kill()  # whatever closed its line, it must not touch the slab any more
        worker.process.join()
        code = worker.process.exitcode
        with self._lock:
            self._workers.remove(worker)
            parts, worker.parts = worker.parts, []
            for part in parts:
                part.deaths += 1
                if part.deaths >= _DEATHS_BEFORE_GIVING_UP:
                    self._settle(part.request, _died_over(part, code))
            self._waiting.put_back(parts)
            self._drop_unwanted()
            if not worker.ready:
                self._break(_never_ready(worker.index, code))
            if self._state is PoolState.OPEN:
                log.warning("juror pool: worker %d ended (%s), starting another", worker.index, _exit_text(code))
                self._workers.append(self._hire(worker.index))
        worker.process.close()

    def _end_stuck_workers(self) -> None:
        now = time.monotonic()
        for worker in self._workers:
            if worker.forsaken and now >= self._end_of_patience(worker):
                log.warning("juror pool: worker %d is stuck and is ended", worker.index)
                worker.ending = True
                worker.process.kill()  # its line closes, and the rest follows

    def _end_of_patience(self, worker: _Worker) -> float:
        return worker.since + _OVERRUN_BEFORE_ENDING * self._timeout

    def _hire(self, index: int) -> _Worker:
        ours, theirs = self._context.Pipe()
        arguments = (self._factory, self._slab.spec, theirs, self._threads)
        process = self._context.Process(target=work, args=arguments, name=f"juror-{index}", daemon=True)
        try:
            with _interrupts_held():
                process.start()
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        worker = _Worker(index, process, ours)
        self._selector.register(ours, selectors.EVENT_READ, lambda: self._hear(worker))
        return worker

    def _admit(self, key: int, place: Place, let_go: Callable[[Request], None]) -> Request:
        """Take a request of a client in another process."""
        sizes = part_sizes(place.pictures, self._staff, self._share, self._batch)
        caller: Hashable = ("client", key)
        with self._lock:
            request = Request(caller, torch.empty(place.pictures), len(sizes), len(sizes), let_go=let_go)
            self._callers.asks(caller)
            first, now = 0, time.monotonic()
            for size in sizes:
                part = place._replace(start=place.start + first * place.values, pictures=size)
                self._waiting.add(Part(request, first, part, None), now)
                first += size
            if self._problem is not None:
                self._settle(request, _again(self._problem))
                self._drop_unwanted()
            return request

    def _await_workers(self, seconds: float) -> None:
        with self._lock:
            self._room.wait_for(lambda: self._state is not PoolState.STARTING, seconds)
            if self._state is PoolState.STARTING:
                late = [worker.index for worker in self._workers if not worker.ready]
                raise JurorTimeout(f"juror pool: workers {late} have not loaded their juror within {seconds:g} s")
            self._must_be_usable()


def _hand_over(orders: Sequence[_Order]) -> None:
    """Wake workers, without the pool's lock: the system likes to run who was woken instead of who woke it."""
    for worker, message in orders:
        worker.tell(message)


def _dismiss(workers: Sequence[_Worker]) -> None:
    """End worker processes: idle ones leave by themselves, busy and starting ones are not waited for."""
    for worker in workers:
        if worker.idle:
            worker.tell(STOP)
        else:
            worker.process.kill()
        worker.hang_up()
    latest = time.monotonic() + _SECONDS_TO_LEAVE
    for worker in workers:
        worker.process.join(max(0.0, latest - time.monotonic()))
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
        worker.process.close()


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Start a process deaf to Ctrl-C; it decides about that itself once it can."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _again(error: VernissageError) -> VernissageError:
    """The same error for one more receiver: shared ones would collect each other's tracebacks."""
    copy = type(error)(*error.args)
    for note in getattr(error, "__notes__", ()):
        copy.add_note(note)
    return copy


def _exit_text(code: int | None) -> str:
    if code is not None and code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"


def _died_over(part: Part, code: int | None) -> JurorWorkerDied:
    _, count, height, width = part.place
    return JurorWorkerDied(
        f"juror pool: {part.deaths} workers ended ({_exit_text(code)}) while they scored the same {count} pictures of "
        f"{width}x{height} pixels; is there enough memory for this juror?"
    )


def _never_ready(index: int, code: int | None) -> JurorWorkerDied:
    return JurorWorkerDied(
        f"juror pool: worker {index} ended ({_exit_text(code)}) before its juror was loaded; its own output says why. "
        'A script that makes a pool needs `if __name__ == "__main__":` around its work'
    )
