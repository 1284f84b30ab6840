"""Where tensors live and how many threads work on them: chosen by the machine, never written into params or results."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from vernissage.core.errors import BadParams

if TYPE_CHECKING:
    import torch

DEVICE_VARIABLE = "VERNISSAGE_DEVICE"
THREADS_VARIABLE = "VERNISSAGE_THREADS"
_PRIMITIVES = "16384"
CONCURRENT_STAGES_VARIABLE = "VERNISSAGE_CONCURRENT_STAGES"


def choose_device(requested: str | None = None) -> torch.device:
    """Return the device to compute on: the argument, else VERNISSAGE_DEVICE, else the first of cuda, mps, cpu.

    Args:
        requested: `cpu`, `mps`, `cuda` or `cuda:1`; None or empty leaves the choice to the machine.

    Raises:
        BadParams: The device that was asked for is unknown or not available here.
    """
    import torch

    name, source = requested, "device"
    if not name:
        name, source = os.environ.get(DEVICE_VARIABLE, ""), DEVICE_VARIABLE
    name = name.strip().lower()
    if not name:
        return torch.device(_best_kind())
    problem = _device_problem(name)
    if problem:
        raise BadParams(f"{source} = {name!r}: {problem}; leave it out to use {_best_kind()}")
    return torch.device(name)


def usable_cores() -> int:
    """Return how many cores this process may run on; `taskset` and containers can make them fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return max(1, os.cpu_count() or 1)


def thread_count() -> int:
    """Return how many threads a stage should use: VERNISSAGE_THREADS, else its share of the usable cores.

    The share is the usable cores over VERNISSAGE_CONCURRENT_STAGES (default 1), so that stages that run side by side do
    not fight for cores.

    Raises:
        BadParams: One of the variables is not a whole number above 0.
    """
    fixed = _positive_int(THREADS_VARIABLE)
    if fixed is not None:
        return fixed
    return max(1, usable_cores() // (_positive_int(CONCURRENT_STAGES_VARIABLE) or 1))


def configure_torch() -> int:
    """Set torch's threads to `thread_count()` and return the count.

    Numbers too small for full precision are flushed to zero: they cost a hundred times more and change nothing here.
    oneDNN is told to remember how it computes more shapes than it does by itself: networks that work on boxes of many
    sizes would else make the same plans over and over.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", _PRIMITIVES)
    import torch

    count = thread_count()
    torch.set_num_threads(count)
    if torch.get_num_interop_threads() != 1:
        try:
            torch.set_num_interop_threads(1)
        except RuntimeError:
            # Torch takes this once and only before its first parallel work; it costs speed at most, never results.
            _log_late_interop()
    torch.set_flush_denormal(True)
    return count


def _log_late_interop() -> None:
    import logging

    logging.getLogger("vernissage.core").debug(
        "torch has already started its threads, their number between operations stays"
    )


def _best_kind() -> str:
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _device_problem(name: str) -> str:
    import torch

    kind, colon, index = name.partition(":")
    if kind not in {"cpu", "cuda", "mps"} or (colon and not index.isdecimal()):
        return "no such device, expected cpu, cuda, cuda:<number> or mps"
    if kind == "cpu":
        return "" if int(index or 0) == 0 else "there is one cpu, expected cpu"
    if kind == "mps":
        return "" if torch.backends.mps.is_available() and int(index or 0) == 0 else "not available on this machine"
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count == 0:
        return "not available on this machine (no GPU, or a torch without CUDA)"
    return "" if int(index or 0) < count else f"this machine has {count} such devices, counted from 0"


def _positive_int(variable: str) -> int | None:
    text = os.environ.get(variable, "").strip()
    if not text:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise BadParams(f"{variable} = {text!r}: expected a whole number above 0, or leave it unset")
    return int(text)
