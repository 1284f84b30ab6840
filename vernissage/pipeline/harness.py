"""The harness around every stage: checks first, one clear ending, and a status file that says how it ended.

DVC reports any failure of a stage as 255. Whoever wants to know more (may it be retried? did a gate say no?) reads
`scratch/<stage>/status.json`, which lies outside DVC.
"""

from __future__ import annotations

import errno
import json
import signal
import sys
import time
import traceback
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TextIO

import psutil

from vernissage.core.devices import configure_torch
from vernissage.core.errors import BadParams, GateFailed, NotEnoughDisk, VernissageError
from vernissage.core.files import atomic_write_json, require_free_space
from vernissage.core.folders import scratch_folder
from vernissage.core.logs import configure_logging, telemetry_off
from vernissage.core.params import Params, load_params

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

STATUS_FILE = "status.json"
INTERRUPTED_EXIT_CODE = 128 + signal.SIGINT
TERMINATED_EXIT_CODE = 128 + signal.SIGTERM
_GIBIBYTE = 2**30
_MEBIBYTE = 2**20
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT}


class State(StrEnum):
    """How a stage ended."""

    OK = "ok"
    GATE_FAILED = "gate_failed"
    BAD_PARAMS = "bad_params"
    TRANSIENT = "transient"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


class Terminated(BaseException):
    """The process was asked to end (SIGTERM).

    Like KeyboardInterrupt it is no `Exception`: handlers for what can go wrong inside a stage must not swallow it,
    while `finally` and context managers (atomic files) still clean up.
    """


@dataclass(frozen=True)
class Ending:
    """How a stage ended: what its process returns and what the status file says."""

    state: State
    message: str
    exit_code: int


def run_stage(name: str, work: Callable[[Params], None], *, torch: bool = False, disk_gb: float = 0.5) -> NoReturn:
    """Run the work of one stage and end the process.

    params.yaml is checked as a whole before anything else happens, so a typo anywhere costs no time.

    Args:
        name: The stage as DVC names it, such as `train@retoucher`.
        work: What the stage does with the parameters.
        torch: Whether to set torch's threads first (this imports torch).
        disk_gb: Free space in GiB without which the stage does not start.

    Raises:
        SystemExit: Always: 0; 1 or the error's own code; 130 after Ctrl-C; 143 after SIGTERM.
    """
    telemetry_off()
    configure_logging()
    signal.signal(signal.SIGTERM, _terminate)
    started = time.monotonic()
    _forget_last_status(name)
    ending = _attempt(work, torch=torch, disk_gb=disk_gb)
    # From here on the status file counts; a second signal must not tear it.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _finish(name, ending, seconds=time.monotonic() - started)
    sys.exit(ending.exit_code)


def _attempt(work: Callable[[Params], None], *, torch: bool, disk_gb: float) -> Ending:
    try:
        params = load_params()
        require_free_space(Path.cwd(), int(disk_gb * _GIBIBYTE))
        if torch:
            configure_torch()
        work(params)
    except VernissageError as error:
        return Ending(_state_of(error), str(error), error.exit_code)
    except KeyboardInterrupt:
        return Ending(State.INTERRUPTED, "interrupted (Ctrl-C)", INTERRUPTED_EXIT_CODE)
    except Terminated:
        return Ending(State.INTERRUPTED, "ended on request (SIGTERM)", TERMINATED_EXIT_CODE)
    except Exception as error:  # noqa: BLE001 - whatever it is, it must reach the status file and keep its traceback
        return _unexpected(error)
    return Ending(State.OK, "", 0)


def _state_of(error: VernissageError) -> State:
    if isinstance(error, GateFailed):
        return State.GATE_FAILED
    if isinstance(error, BadParams):
        return State.BAD_PARAMS
    return State.TRANSIENT if error.transient else State.FAILED


def _unexpected(error: Exception) -> Ending:
    if isinstance(error, OSError) and error.errno in _DISK_FULL:
        where = f"{error.filename}: " if error.filename else ""
        full = f"{where}the disk is full; free some space and run again (what was there before is unharmed)"
        return Ending(State.TRANSIENT, full, NotEnoughDisk.exit_code)
    traceback.print_exception(error)
    return Ending(State.FAILED, f"{type(error).__name__}: {error}", 1)


def _terminate(_number: int, _frame: FrameType | None) -> NoReturn:
    # Once is enough: a second SIGTERM must not cut the cleaning up short.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Terminated


def _forget_last_status(name: str) -> None:
    # After kill -9 there is no status, rather than the one of the run before.
    try:
        (scratch_folder(name) / STATUS_FILE).unlink(missing_ok=True)
    except OSError as error:
        _say(sys.stderr, f"{name}: {error}; the status file is not kept")


def _finish(name: str, ending: Ending, *, seconds: float) -> None:
    peak = peak_memory_mb()
    status = asdict(ending) | {"seconds": round(seconds, 3), "peak_memory_mb": peak}
    del status["exit_code"]
    sys.stdout.flush()
    if ending.message:
        _say(sys.stderr, f"{name}: {ending.message}")
    word = "done" if ending.state is State.OK else ending.state.replace("_", " ")
    _say(sys.stdout, f"{name}: {word} in {seconds:.1f} s, peak memory {peak} MB")
    try:
        atomic_write_json(scratch_folder(name) / STATUS_FILE, status)
    except OSError as error:
        # A full disk must not turn a good ending into a bad one; without the file a scheduler assumes the worst.
        _say(sys.stderr, f"{name}: status not written ({error}): {json.dumps(status)}")


def _say(stream: TextIO, line: str) -> None:
    stream.write(line + "\n")
    stream.flush()


def peak_memory_mb() -> int:
    """Return the most memory that this process has held so far, in MiB."""
    try:
        import resource
    except ImportError:  # Windows keeps the figure elsewhere
        memory = psutil.Process().memory_info()
        return int(getattr(memory, "peak_wset", memory.rss)) // _MEBIBYTE
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // _MEBIBYTE if sys.platform == "darwin" else peak // 1024
