"""The exception tree: one root, exit codes and transience as the command line and the scheduler read them."""

from __future__ import annotations

import inspect
from concurrent.futures import ProcessPoolExecutor

import pytest

from vernissage.core import errors
from vernissage.core.errors import BadInput, BadParams, NotEnoughDisk, RejectedImage, VernissageError


def _reject(name: str) -> None:
    raise RejectedImage("truncated", name)


def test_everything_comes_from_one_root() -> None:
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, Exception)]
    assert len(kinds) == 8
    assert all(issubclass(kind, VernissageError) for kind in kinds)


def test_exit_codes_and_transience() -> None:
    assert (VernissageError.exit_code, BadParams.exit_code) == (1, 2)
    assert NotEnoughDisk("full").transient
    assert not BadParams("no").transient


def test_a_rejection_names_the_file_and_keeps_the_bare_reason() -> None:
    error = RejectedImage("empty file", "a.jpg")
    assert isinstance(error, BadInput)
    assert (str(error), error.reason) == ("a.jpg: empty file", "empty file")
    assert str(RejectedImage("empty file")) == "empty file"


def test_a_rejection_comes_back_whole_from_a_worker_process() -> None:
    with ProcessPoolExecutor(1) as pool, pytest.raises(RejectedImage) as caught:
        pool.submit(_reject, "b.jpg").result(timeout=60)
    assert (caught.value.reason, caught.value.source) == ("truncated", "b.jpg")
