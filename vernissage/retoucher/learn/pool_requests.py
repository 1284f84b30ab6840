"""What a juror pool is asked: requests, the parts that one forward takes, and which parts go together.

Nothing here knows of processes, threads or clocks; times are handed in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator
    from concurrent.futures import Future

    import torch

    from vernissage.core.errors import VernissageError
    from vernissage.retoucher.learn.slabs import Place

#: Whoever asked within this many gathering windows is expected to ask again soon, and is waited for.
_EXPECTED_BACK = 10


def part_sizes(count: int, workers: int, share: int, most: int) -> list[int]:
    """Cut a request: every worker gets a share that is worth a forward, none more than ``most`` at a time.

    The cut depends on nothing but these numbers, so the forwards of a lone client, and with them the last bits of its
    scores, are the same in every run.

    Args:
        count: Pictures of the request.
        workers: Number of workers.
        share: Parts are not made smaller than this only to keep all workers busy.
        most: Largest part.

    Returns:
        Sizes that differ by one at most and sum up to ``count``.
    """
    if count == 0:
        return []
    parts = max(1, math.ceil(count / most), min(workers, count // share))
    size, rest = divmod(count, parts)
    return [size + 1] * rest + [size] * (parts - rest)


@dataclass(eq=False)
class Request:
    """Pictures that somebody wants scored.

    Attributes:
        caller: Who asks.
        scores: (N,) filled part by part.
        open_parts: Parts without a score yet.
        held_parts: Parts whose memory is or will be in use, by a worker or because they wait for one.
        future: Where a thread of this process gets the outcome; cancelled when it waits no longer.
        let_go: For a client in another process: called when no part holds its memory any more.
        given_up: Whether such a client waits no longer.
        outcome: The scores, or what went wrong.
    """

    caller: Hashable
    scores: torch.Tensor
    open_parts: int
    held_parts: int
    future: Future[torch.Tensor] | None = None
    let_go: Callable[[Request], None] | None = None
    given_up: bool = False
    outcome: torch.Tensor | VernissageError | None = None

    @property
    def settled(self) -> bool:
        """Whether nobody needs more scores: answered, failed or given up."""
        cancelled = self.future is not None and self.future.cancelled()
        return self.outcome is not None or self.given_up or cancelled


@dataclass(eq=False)
class Part:
    """Neighbouring pictures of one request, small enough for one forward.

    Attributes:
        request: Whose pictures they are.
        first: Position of the first one in the request.
        place: Where they lie.
        lent: First slot and number of slots to give back; none where the client owns them.
        alone: Whether the part must have a forward of its own, because one in company went wrong.
        deaths: Workers that died over it.
        since: When it was put up.
    """

    request: Request
    first: int
    place: Place
    lent: tuple[int, int] | None
    alone: bool = False
    deaths: int = 0
    since: float = 0.0


@dataclass
class Waiting:
    """Parts that wait for a worker, first come, first served.

    Attributes:
        batch: Most pictures of one forward.
        gather: Seconds for which an incomplete batch waits for company; 0 gives each part a forward of its own.
    """

    batch: int
    gather: float
    _parts: list[Part] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self._parts)

    def __iter__(self) -> Iterator[Part]:
        return iter(list(self._parts))

    def add(self, part: Part, now: float) -> None:
        """Put a part at the end."""
        part.since = now
        self._parts.append(part)

    def put_back(self, parts: list[Part]) -> None:
        """Put parts that went wrong in front of all others, each for a forward of its own."""
        for part in parts:
            part.alone = True
        self._parts[:0] = parts

    def sweep(self) -> list[Part]:
        """Remove and return the parts that nobody waits for any more."""
        gone = [part for part in self._parts if part.request.settled]
        if gone:
            self._parts = [part for part in self._parts if not part.request.settled]
        return gone

    def due(self) -> float | None:
        """When the first part has waited long enough; none if there is none."""
        return self._parts[0].since + self.gather if self._parts else None

    def next_batch(self, now: float, *, more_expected: bool) -> list[Part]:
        """Take out the parts of the next forward.

        Args:
            now: The time.
            more_expected: Whether somebody who asked lately is likely to ask again within the window.

        Returns:
            Parts of one picture size in the order of the memory, at most one of each request; empty while it pays to
            wait.
        """
        if not self._parts:
            return []
        chosen = self._companions(self._parts[0])
        full = sum(part.place.pictures for part in chosen) >= self.batch
        waited = now >= self._parts[0].since + self.gather
        if not (full or waited or chosen[0].alone or not more_expected):
            return []
        taken = {id(part) for part in chosen}
        self._parts = [part for part in self._parts if id(part) not in taken]
        return sorted(chosen, key=lambda part: part.place.start)

    def _companions(self, head: Part) -> list[Part]:
        chosen, room = [head], self.batch - head.place.pictures
        if head.alone or self.gather == 0:
            return chosen
        # Two parts of one request never meet: they were cut apart to be scored side by side, and whether they met
        # would depend on chance.
        requests = {id(head.request)}
        for part in self._parts[1:]:
            if room <= 0:
                break
            fits = part.place.pictures <= room and part.place[2:] == head.place[2:]
            if fits and not part.alone and id(part.request) not in requests:
                chosen.append(part)
                requests.add(id(part.request))
                room -= part.place.pictures
        return chosen


class Callers:
    """Who asks, so that a batch waits for those who are about to ask again, and for nobody else.

    Args:
        gather: The gathering window, seconds.
    """

    def __init__(self, gather: float) -> None:
        self._memory = _EXPECTED_BACK * gather
        self._open: dict[Hashable, int] = {}
        self._last: dict[Hashable, float] = {}

    def asks(self, caller: Hashable) -> None:
        """Note a new request."""
        self._open[caller] = self._open.get(caller, 0) + 1

    def answered(self, caller: Hashable, now: float) -> None:
        """Note that a request has come to its end."""
        left = self._open.pop(caller) - 1
        if left:
            self._open[caller] = left
        self._last[caller] = now

    def expected(self, now: float) -> bool:
        """Whether somebody whose last answer is fresh has not asked again yet."""
        self._last = {caller: last for caller, last in self._last.items() if now - last < self._memory}
        return any(caller not in self._open for caller in self._last)
