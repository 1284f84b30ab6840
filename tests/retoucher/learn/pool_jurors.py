"""Jurors for the pool's tests: importable by worker processes, exact to the bit, with moods that pictures set off."""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from typing import TYPE_CHECKING

import torch

from vernissage.core.errors import BadInput

if TYPE_CHECKING:
    from pathlib import Path

#: First value of a picture that makes :class:`Moody` behave.
DEADLY, DEADLY_ONCE, WRONG, UNFIT, HELD, COUNTED, SHAPELESS = (step / 16 for step in range(1, 8))


class Fingerprint:
    """Scores that depend on every bit of a picture and on nothing else; whole-number arithmetic rounds nowhere."""

    def score(self, images: torch.Tensor) -> torch.Tensor:
        bits = images.contiguous().view(torch.int32).flatten(1).long()
        return ((bits * torch.arange(1, bits.shape[1] + 1)).sum(dim=1) % 9973).float() / 1000


class Moody(Fingerprint):
    """A fingerprint that dies, fails, waits or counts when it sees certain pictures.

    Args:
        folder: Where it leaves `died`, `holding` and waits for `go`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def score(self, images: torch.Tensor) -> torch.Tensor:
        moods = set(images[:, 0, 0, 0].tolist())
        died = self._folder / "died"
        if DEADLY in moods or (DEADLY_ONCE in moods and not died.exists()):
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if WRONG in moods:
            raise ValueError("a wrong picture")
        if UNFIT in moods:
            raise BadInput("an unfit picture")
        if HELD in moods:
            (self._folder / "holding").touch()
            while not (self._folder / "go").exists():
                time.sleep(0.01)
        if SHAPELESS in moods:
            return torch.zeros(len(images) + 1)
        scores = super().score(images)
        return torch.where(images[:, 0, 0, 0] == COUNTED, float(len(images)), scores)


def moody(folder: Path) -> partial[Moody]:
    """What a pool takes to make it."""
    return partial(Moody, folder)


def no_juror() -> Fingerprint:
    """A factory whose process ends."""
    os._exit(7)


def set_off(mood: float, count: int = 1, side: int = 8) -> torch.Tensor:
    """(count, 3, side, side) pictures that set off a mood."""
    images = torch.full((count, 3, side, side), 0.9)
    images[:, 0, 0, 0] = mood
    return images
