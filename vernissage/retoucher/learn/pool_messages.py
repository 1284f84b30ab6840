"""What a juror pool, its workers and its clients say to each other: a few plain bytes, never pickled objects.

Pictures lie in the slab. Scores travel in the answer itself: they are few, and a worker that dies leaves no
half-written ones behind.
"""

from __future__ import annotations

import json
import traceback
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from vernissage.core import errors
from vernissage.core.errors import VernissageError
from vernissage.retoucher.learn.slabs import Place

if TYPE_CHECKING:
    from collections.abc import Sequence

READY = b"r"
STOP = b""
_SCORES, _FAILURE = b"s", b"f"
_CANCEL = -1
#: Longer messages come from nobody we know.
LONGEST_REQUEST = 4096


class JurorPoolError(VernissageError):
    """Root of what can go wrong with a juror pool; none of it is ever a score."""


class JurorTimeout(JurorPoolError):  # noqa: N818 - names read as what happened
    """No score came in time."""

    transient: ClassVar[bool] = True


class JurorFailed(JurorPoolError):  # noqa: N818
    """The juror itself raised an error in its worker; its traceback is in the notes."""


class JurorWorkerDied(JurorPoolError):  # noqa: N818
    """Workers ended over the same pictures, or before their juror was loaded."""

    transient: ClassVar[bool] = True


class JurorPoolClosed(JurorPoolError):  # noqa: N818
    """The pool was closed, before the call or while it waited."""


def pack_places(places: Sequence[Place]) -> bytes:
    """Tell a worker where its pictures lie."""
    return np.asarray(places, np.int64).tobytes()


def unpack_places(message: bytes) -> list[Place]:
    """Read what :func:`pack_places` wrote."""
    return [Place(*map(int, row)) for row in np.frombuffer(message, np.int64).reshape(-1, 4)]


def pack_request(count: int, height: int, width: int) -> bytes:
    """Ask for scores of the pictures in the client's own slots."""
    return np.asarray((count, height, width), np.int64).tobytes()


def pack_cancel() -> bytes:
    """Say that nobody waits for the answer any more."""
    return np.asarray((_CANCEL,), np.int64).tobytes()


def unpack_request(message: bytes) -> tuple[int, int, int] | None:
    """Read a request, or none for a cancellation.

    Raises:
        ValueError: If it is neither.
    """
    numbers = [int(number) for number in np.frombuffer(message, np.int64)]
    if numbers == [_CANCEL]:
        return None
    count, height, width = numbers
    return count, height, width


def pack_hello(token: bytes, key: int) -> bytes:
    """Introduce a client."""
    return token + int(key).to_bytes(8, "little")


def unpack_hello(message: bytes) -> tuple[bytes, int]:
    """Read what :func:`pack_hello` wrote: token and key."""
    return message[:-8], int.from_bytes(message[-8:], "little")


def pack_scores(scores: torch.Tensor) -> bytes:
    """(N,) float32 scores as an answer."""
    return _SCORES + scores.numpy().tobytes()


def pack_failure(error: BaseException) -> bytes:
    """An error as an answer."""
    text = "".join(traceback.format_exception(error))
    described = {"kind": type(error).__name__, "text": str(error), "trace": text}
    return _FAILURE + json.dumps(described).encode()


def unpack_answer(message: bytes) -> torch.Tensor | VernissageError:
    """Read an answer: (N,) float32 scores, or the error as this project knows it."""
    if message[:1] == _SCORES:
        return torch.from_numpy(np.frombuffer(message[1:], np.float32).copy())
    described = json.loads(message[1:])
    return _error(described["kind"], described["text"], described["trace"])


def _error(kind: str, text: str, trace: str) -> VernissageError:
    for known in (globals().get(kind), getattr(errors, kind, None)):
        if isinstance(known, type) and issubclass(known, VernissageError):
            error: VernissageError = known(text)
            break
    else:
        error = JurorFailed(f"the juror failed: {kind}: {text}")
    error.add_note(f"In the juror's process:\n{trace}")
    return error
