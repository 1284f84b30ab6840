"""Says how far a long task is: a bar on a terminal, a line now and then in a log, a small file for schedulers."""

from __future__ import annotations

import math
import os
import sys
import threading
import time
from collections.abc import Sized
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

from vernissage.core.errors import BadParams
from vernissage.core.files import atomic_write_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import TracebackType

    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

Item = TypeVar("Item")

SECONDS_VARIABLE = "VERNISSAGE_PROGRESS_SECONDS"
FILE_VARIABLE = "VERNISSAGE_PROGRESS_FILE"
_SECONDS_BETWEEN_LINES = 5.0

# What is under way in this process, the outermost first, and the bar that is on the terminal.
_lock = threading.RLock()
_open: list[Progress] = []
_bars: list[RichProgress] = []


def track(iterable: Iterable[Item], *, description: str, total: int | None = None, unit: str = "it") -> Iterator[Item]:
    """Yield the items and say how far it is.

    Args:
        iterable: Anything to go through.
        description: What is being done, such as `resize`.
        total: How many items there are; taken from `len()` where it is left out.
        unit: What one item is, in the plural, such as `photos`.
    """
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    with Progress(description, total=total, unit=unit) as progress:
        for item in iterable:
            yield item
            progress.advance()


class Progress:
    """How far one task is; to be used as a context manager.

    May be advanced from several threads. Of several, one inside another, only the outermost is a bar and has the file.

    On a terminal it is a bar. Elsewhere it prints `resize: 120/300 photos (40 %), 12.3/s, 15 s left` every five seconds
    (VERNISSAGE_PROGRESS_SECONDS) and at the end. Where VERNISSAGE_PROGRESS_FILE names a file, the same facts go there.

    Args:
        description: What is being done, such as `resize`.
        total: How many units there are; None where nobody knows.
        unit: What is counted, in the plural, such as `photos`.
    """

    def __init__(self, description: str, total: int | None = None, unit: str = "it") -> None:
        self.description = description
        self.total = total
        self.unit = unit
        self.done = 0
        self.fields: dict[str, float | int | str] = {}
        self._interval = _seconds_between_lines()
        self._file = os.environ.get(FILE_VARIABLE)
        self._started = self._last_said = time.monotonic()
        self._bar: RichProgress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._started = self._last_said = time.monotonic()
        with _lock:
            _open.append(self)
            if sys.stdout.isatty() and not _bars:
                self._start_bar()
            self._write_file()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with _lock:
            if self._bar is not None:
                self._show_bar()
                self._bar.stop()
                _bars.remove(self._bar)
                self._bar = None
            else:
                self._say(self._line(ended=kind is None))
            self._write_file()
            _open.remove(self)

    def advance(self, n: int = 1, **fields: float | str) -> None:
        """Count `n` more units as done; `fields` such as `loss=0.123` are shown behind until they change."""
        with _lock:
            self.done += n
            self.fields.update(fields)
            now = time.monotonic()
            if self._bar is not None:
                self._show_bar()
            if now - self._last_said < self._interval:
                return
            self._last_said = now
            if self._bar is None:
                self._say(self._line(ended=False))
            self._write_file()

    def message(self, text: str) -> None:
        """Say something in a line of its own, above the bar."""
        with _lock:
            self._say(text if self._bar is not None else f"{self.description}: {text}")

    def _line(self, *, ended: bool) -> str:
        seconds = time.monotonic() - self._started
        speed = self.done / seconds if seconds > 0 else 0.0
        count = f"{self.done}" if self.total is None else f"{self.done}/{self.total}"
        share = f" ({100 * self.done / self.total:.0f} %)" if self.total else ""
        parts = [f"{self.description}: {count} {self.unit}{share}", f"{speed:.3g}/s"]
        if ended:
            parts.append(f"took {_duration(seconds)}")
        elif self.total is not None and speed > 0:
            parts.append(f"{_duration(max(0, self.total - self.done) / speed)} left")
        return ", ".join(parts + self._shown_fields())

    def _shown_fields(self) -> list[str]:
        return [
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in self.fields.items()
        ]

    def _say(self, text: str) -> None:
        if _bars:
            _bars[0].console.print(text, markup=False, highlight=False)
            return
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    def _start_bar(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        # "fields" comes from callers and may hold brackets, which rich would take for markup.
        self._bar = RichProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}", markup=False),
            TimeRemainingColumn(),
            TextColumn("{task.fields[shown]}", markup=False),
        )
        self._task = self._bar.add_task(self.description, total=self.total, unit=self.unit, shown="")
        self._bar.start()
        _bars.append(self._bar)

    def _show_bar(self) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self.done, shown=", ".join(self._shown_fields()))

    def _write_file(self) -> None:
        if not self._file or _open[:1] != [self]:
            return
        # JSON has no nan; a loss that became nan is shown in the line and left out here.
        fields = {name: value for name, value in self.fields.items() if isinstance(value, str) or math.isfinite(value)}
        facts = {
            "description": self.description,
            "done": self.done,
            "total": self.total,
            "unit": self.unit,
            "seconds": round(time.monotonic() - self._started, 3),
            "fields": fields,
        }
        try:
            atomic_write_json(Path(self._file), facts)
        except OSError as error:
            # Hours of work must not end because nobody can be told how far they are.
            self._file = None
            self.message(f"progress file is given up ({error})")


def _seconds_between_lines() -> float:
    text = os.environ.get(SECONDS_VARIABLE, "").strip()
    if not text:
        return _SECONDS_BETWEEN_LINES
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise BadParams(
            f"{SECONDS_VARIABLE} = {text!r}: expected a number of seconds from 0 upwards, or leave it unset"
        )
    return seconds


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"
