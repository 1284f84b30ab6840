"""Measures what work takes: time on the clock, and processor time in this process and all that it started."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

import psutil

_CLOCK_TICK = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Speed:
    """What some work took.

    Attributes:
        rate: Pieces per second.
        cpu_ms: Processor time of one piece, milliseconds; the system counts it in steps of about 10 ms, so short work
            counts as one step.
    """

    rate: float
    cpu_ms: float


class Stopwatch:
    """Runs from when it is made."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._cpu = self._cpu_seconds()
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds on the clock so far."""
        return time.perf_counter() - self._start

    def speed(self, pieces: int) -> Speed:
        """What each of these pieces took.

        Raises:
            ValueError: If there are none.
        """
        if pieces < 1:
            raise ValueError(f"stopwatch: got {pieces} pieces, expected at least one")
        seconds, cpu = self.seconds, max(self._cpu_seconds() - self._cpu, _CLOCK_TICK)
        return Speed(pieces / seconds, 1000 * cpu / pieces)

    def _cpu_seconds(self) -> float:
        """User and system time of this process and of its descendants that run at present."""
        total = 0.0
        for process in (self._process, *self._process.children(recursive=True)):
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:  # it ended this moment
                continue
            total += times.user + times.system
        return total
