"""How many pictures a second a juror scores in this process, in a JurorPool, and behind queues that pickle.

The queues are what one usually builds: worker processes on one ``multiprocessing.Queue``, an array in each message,
once with one picture per message and once with as many as the pool gets per request. Everybody gets the same float
pictures, the same juror, the same number of workers with the same threads, and may have the same number of pictures
under way. Everything is measured in one run, in turns, and the median of the turns counts: a machine is never idle.
Beside the pictures per second stands what each took of the processors, in all processes together: others on the machine
make the first smaller, but hardly change the second.
"""

from __future__ import annotations

import multiprocessing
from collections import deque
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any

import torch

from vernissage.retoucher.judge.stopwatch import Speed, Stopwatch
from vernissage.retoucher.learn.juror import RankJuror, RankNet
from vernissage.retoucher.learn.juror_pool import JurorPool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from multiprocessing.queues import Queue

    import numpy as np

    from vernissage.retoucher.learn.juror import Juror

    Measure = Callable[[float], Speed]

SIDES = (64, 224, 384)
#: Pictures of a request, and of a message of the stronger queue.
REQUEST = 8
#: Pictures that may be under way, whoever carries them: four requests, less than 64 MiB of
#: shared memory, which is what a container has by default.
UNDER_WAY = 32
TURNS = 3
_MEMBERS, _THUMBNAIL = 3, 64
# Pictures that take turns, so that no construction lives from one picture in the processor's cache.
_DIFFERENT = 64
_PATIENCE = 120.0

HERE = "in this process"
POOL, POOL_SINGLE = "JurorPool", "JurorPool, one picture per request"
QUEUE, QUEUE_SINGLE = "pickling queue", "pickling queue, one picture per message"


@dataclass(frozen=True)
class PoolRow:
    """One measurement.

    Attributes:
        juror: ``light`` or ``rank``.
        side: Side of the pictures in pixels.
        construction: Who carries the pictures to the juror.
        per_message: Pictures per request or message.
        rate: Pictures per second, the median of the turns.
        cpu_ms: Processor time of one picture in milliseconds, the median of the turns.
        turns: Pictures per second in each turn.
    """

    juror: str
    side: int
    construction: str
    per_message: int
    rate: float
    cpu_ms: float
    turns: tuple[float, ...]


class LightJuror:
    """Judges by mean and spread of every second row and column: so quick that carrying pictures is most of the work."""

    def score(self, images: torch.Tensor) -> torch.Tensor:
        """(N,) in [0, 10], high for pictures of middling brightness with much contrast."""
        flat = images[..., ::2, ::2].flatten(1)
        mean = flat.mean(dim=1)
        power = torch.linalg.vector_norm(flat, dim=1).square() / flat.shape[1]
        spread = (power - mean.square()).clamp_min(0).sqrt()
        return (10 * (1 - (2 * mean - 0.9).abs()) * (4 * spread).clamp_max(1)).clamp(0, 10)


def fresh_rank_juror(seed: int = 0) -> RankJuror:
    """The default juror with untrained members, which take exactly as long as trained ones."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return RankJuror([RankNet() for _ in range(_MEMBERS)], _THUMBNAIL)


#: What is measured with.
JURORS: dict[str, Callable[[], Juror]] = {"light": LightJuror, "rank": fresh_rank_juror}


def bench_pool(
    *, workers: int, seconds: float, threads: int = 1, sides: Sequence[int] = SIDES, advance: Callable[[], None]
) -> list[PoolRow]:
    """Measure everything.

    Args:
        workers: Processes of the pool, and of each queue.
        seconds: Length of one turn of one measurement.
        threads: Torch's threads in each worker and in this process.
        sides: Sides of the pictures in pixels.
        advance: Called after each measurement; there are :func:`measurements` of them.

    Returns:
        One row per juror, side and construction.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return [
            row
            for juror, factory in JURORS.items()
            for row in _bench_juror(juror, factory, workers, seconds, threads, sides, advance)
        ]
    finally:
        torch.set_num_threads(before)


def measurements(sides: Sequence[int] = SIDES) -> int:
    """How often :func:`bench_pool` measures."""
    return len(JURORS) * len(sides) * 5 * TURNS


def ratios(rows: Sequence[PoolRow]) -> list[dict[str, Any]]:
    """How many times faster the pool is: per juror and side, against queues of one and of many pictures per message.

    Returns:
        ``juror``, ``side``; ``usual``: the pool against the queue with one picture per message, which is the usual
        construction; ``usual_cpu``: the same by processor time; ``single``: both with one picture at a time;
        ``batched``: both with many at a time; ``in_process``: the pool against this process alone.
    """
    found = {(row.juror, row.side, row.construction): row for row in rows}

    def times(juror: str, side: int, ours: str, theirs: str) -> float:
        return found[juror, side, ours].rate / found[juror, side, theirs].rate

    return [
        {
            "juror": juror,
            "side": side,
            "usual": times(juror, side, POOL, QUEUE_SINGLE),
            "usual_cpu": found[juror, side, QUEUE_SINGLE].cpu_ms / found[juror, side, POOL].cpu_ms,
            "single": times(juror, side, POOL_SINGLE, QUEUE_SINGLE),
            "batched": times(juror, side, POOL, QUEUE),
            "in_process": times(juror, side, POOL, HERE),
        }
        for juror, side in dict.fromkeys((row.juror, row.side) for row in rows)
    ]


def _bench_juror(
    juror: str,
    factory: Callable[[], Juror],
    workers: int,
    seconds: float,
    threads: int,
    sides: Sequence[int],
    advance: Callable[[], None],
) -> Iterator[PoolRow]:
    with ExitStack() as stack:
        # The slab holds what may be under way, as the queues do.
        pool = stack.enter_context(
            JurorPool(factory, workers=workers, side=max(sides), slots=UNDER_WAY, threads=threads)
        )
        queues = stack.enter_context(_queues(factory, workers, threads))
        here = factory()
        for side in sides:
            pictures = torch.rand(_DIFFERENT, 3, side, side, generator=torch.Generator().manual_seed(side))
            requests, singles = pictures.split(REQUEST), pictures.split(1)
            measures: dict[tuple[str, int], Measure] = {
                (HERE, REQUEST): partial(_here, here, requests),
                (POOL, REQUEST): partial(_by_pool, pool, requests),
                (POOL_SINGLE, 1): partial(_by_pool, pool, singles),
                (QUEUE, REQUEST): partial(_by_queues, *queues, requests),
                (QUEUE_SINGLE, 1): partial(_by_queues, *queues, singles),
            }
            for measure in measures.values():
                measure(seconds / 4)  # memory is touched, libraries are warm
            turns: dict[tuple[str, int], list[Speed]] = {key: [] for key in measures}
            for _ in range(TURNS):
                for key, measure in measures.items():
                    turns[key].append(measure(seconds))
                    advance()
            for (construction, count), taken in turns.items():
                rates, costs = [speed.rate for speed in taken], [speed.cpu_ms for speed in taken]
                yield PoolRow(juror, side, construction, count, median(rates), median(costs), tuple(rates))


def _here(juror: Juror, requests: Sequence[torch.Tensor], seconds: float) -> Speed:
    scored, watch = 0, Stopwatch()
    while watch.seconds < seconds:
        for request in requests:
            scored += len(juror.score(request))
    return watch.speed(scored)


def _by_pool(pool: JurorPool, requests: Sequence[torch.Tensor], seconds: float) -> Speed:
    scored, watch = 0, Stopwatch()
    under_way: deque[Any] = deque()
    while watch.seconds < seconds:
        for request in requests:
            under_way.append(pool.submit(request))
            while len(under_way) * len(request) >= UNDER_WAY:
                scored += len(under_way.popleft().result(_PATIENCE))
    scored += sum(len(future.result(_PATIENCE)) for future in under_way)
    return watch.speed(scored)


def _by_queues(questions: Queue[Any], answers: Queue[Any], requests: Sequence[torch.Tensor], seconds: float) -> Speed:
    arrays = [request.numpy() for request in requests]
    scored, under_way, watch = 0, 0, Stopwatch()
    while watch.seconds < seconds:
        for array in arrays:
            questions.put((under_way, array))
            under_way += 1
            while under_way * len(array) >= UNDER_WAY:
                scored += len(answers.get(timeout=_PATIENCE)[1])
                under_way -= 1
    for _ in range(under_way):
        scored += len(answers.get(timeout=_PATIENCE)[1])
    return watch.speed(scored)


@contextmanager
def _queues(factory: Callable[[], Juror], workers: int, threads: int) -> Iterator[tuple[Queue[Any], Queue[Any]]]:
    """Workers on a queue, as one usually builds them: (questions, answers)."""
    context = multiprocessing.get_context("spawn")
    questions, answers = context.Queue(), context.Queue()
    processes = [
        context.Process(target=_score_from_queue, args=(factory, questions, answers, threads), daemon=True)
        for _ in range(workers)
    ]
    for process in processes:
        process.start()
    try:
        for _ in processes:
            answers.get(timeout=_PATIENCE)  # each says when its juror is there
        yield questions, answers
    finally:
        for _ in processes:
            questions.put(None)
        for process in processes:
            process.join(_PATIENCE)
        for queue in (questions, answers):
            queue.close()
            queue.join_thread()


def _score_from_queue(factory: Callable[[], Juror], questions: Queue[Any], answers: Queue[Any], threads: int) -> None:
    torch.set_num_threads(threads)
    juror = factory()
    answers.put(None)
    while (question := questions.get()) is not None:
        number, array = question
        scores: np.ndarray = juror.score(torch.from_numpy(array)).numpy()
        answers.put((number, scores))
