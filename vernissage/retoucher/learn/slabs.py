"""Shared memory for pictures: one segment, allocated once, whose slots are lent and taken back.

A picture is never sent: whoever asks writes it into the slab, whoever scores looks at the same bytes. A slot holds one
picture of ``side`` x ``side`` pixels; smaller pictures lie closely packed, a larger one takes several slots.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
from dataclasses import dataclass
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch

from vernissage.core.errors import VernissageError

if TYPE_CHECKING:
    from collections.abc import Sequence

log = logging.getLogger(__name__)

PixelType = Literal["float32", "uint8"]

#: Where Linux shows its shared memory as files; only there can room be claimed before it is used.
_SHARED_MEMORY_FILES = Path("/dev/shm")  # noqa: S108 - looked at, nothing is made there under a guessable name
_MEBIBYTE = 2**20


class NotEnoughSharedMemory(VernissageError):  # noqa: N818 - names read as what happened
    """The system does not give as much shared memory as a slab needs."""


class Place(NamedTuple):
    """Where pictures of one size lie in a slab, closely packed.

    Attributes:
        start: Offset of the first value.
        pictures: Number of pictures.
        height: Pixels.
        width: Pixels.
    """

    start: int
    pictures: int
    height: int
    width: int

    @property
    def values(self) -> int:
        """Values of one picture."""
        return 3 * self.height * self.width

    @property
    def starts(self) -> list[int]:
        """Offset of each picture."""
        return [self.start + index * self.values for index in range(self.pictures)]


@dataclass(frozen=True)
class SlabSpec:
    """What another process needs to know to find a slab.

    Attributes:
        name: The segment's name.
        slots: Number of slots.
        side: A slot holds side x side pixels.
        pixels: How a value is stored: ``float32`` in [0, 1], or ``uint8`` in 0 to 255.
    """

    name: str
    slots: int
    side: int
    pixels: PixelType

    @property
    def slot_values(self) -> int:
        """Values of one slot."""
        return 3 * self.side * self.side

    @property
    def size(self) -> int:
        """Bytes of the whole slab."""
        return self.slots * self.slot_values * np.dtype(self.pixels).itemsize

    def slots_for(self, count: int, height: int, width: int) -> int:
        """Slots that ``count`` pictures of this size take."""
        return math.ceil(count * height * width / self.side**2)

    def pictures_in(self, slots: int, height: int, width: int) -> int:
        """How many pictures of this size ``slots`` neighbouring slots hold."""
        return slots * self.side**2 // (height * width)


class Slab:
    """The segment in one process; made by :meth:`allocate`, found by :meth:`attach`."""

    def __init__(self, memory: SharedMemory, spec: SlabSpec, *, owner: bool) -> None:
        self.spec = spec
        self._memory, self._owner = memory, owner
        values: np.ndarray = np.ndarray((spec.slots * spec.slot_values,), np.dtype(spec.pixels), buffer=memory.buf)
        # By way of numpy, which keeps the mapping alive as long as any view of it; torch.frombuffer would not.
        self._values: torch.Tensor | None = torch.from_numpy(values)

    @classmethod
    def allocate(cls, slots: int, side: int, pixels: PixelType = "float32") -> Slab:
        """Claim a new slab; it is this process that has to :meth:`close` it.

        Raises:
            ValueError: If a number is below one or the pixel type is unknown.
            NotEnoughSharedMemory: If the system refuses.
        """
        if slots < 1 or side < 1 or pixels not in {"float32", "uint8"}:
            raise ValueError(f"slab: got {slots=}, {side=}, {pixels=}, expected numbers above 0 and float32 or uint8")
        wanted = SlabSpec("", slots, side, pixels)
        try:
            memory = SharedMemory(create=True, size=wanted.size)
        except OSError as error:
            raise _refused(wanted, str(error)) from error
        try:
            _claim(memory)
        except OSError as error:
            memory.close()
            memory.unlink()
            raise _refused(wanted, error.strerror or str(error)) from error
        return cls(memory, SlabSpec(memory.name, slots, side, pixels), owner=True)

    @classmethod
    def attach(cls, spec: SlabSpec) -> Slab:
        """Find a slab that another process allocated.

        Raises:
            FileNotFoundError: If it is gone.
        """
        return cls(SharedMemory(spec.name), spec, owner=False)

    def view(self, places: Sequence[Place]) -> torch.Tensor:
        """The pictures of several places, in their order, as one batch.

        Neighbours come without a copy; only pictures that lie apart irregularly are put side by side first.

        Args:
            places: One or more, all of one picture size.

        Returns:
            (N, 3, H, W) in the slab's pixel type.

        Raises:
            ValueError: If the slab was closed.
        """
        values = self._values
        if values is None:
            raise ValueError(f"slab {self.spec.name}: used after it was closed")
        starts = [start for place in places for start in place.starts]
        _, _, height, width = places[0]
        step = starts[1] - starts[0] if len(starts) > 1 else places[0].values
        if step > 0 and all(b - a == step for a, b in itertools.pairwise(starts)):
            return values.as_strided((len(starts), 3, height, width), (step, height * width, width, 1), starts[0])
        return torch.cat([self.view([place]) for place in places])

    def write(self, place: Place, images: torch.Tensor) -> None:
        """Put pictures in.

        Args:
            place: Where; it must be lent to the caller.
            images: (N, 3, H, W) as :func:`check_pictures` lets pass; floats go to the nearest of 256 levels where the
                slab stores bytes.

        Raises:
            ValueError: If the slab was closed.
        """
        rounded = self.spec.pixels == "uint8" and images.dtype != torch.uint8
        self.view([place]).copy_((images * 255).round_() if rounded else images)

    def close(self) -> None:
        """Let go of the memory; the owner also removes the segment. Views must not be used afterwards."""
        if self._values is None:
            return
        self._values = None
        try:
            self._memory.close()
        except BufferError:
            # Somebody still holds a view: its mapping goes when the view does, the segment's name goes now.
            log.debug("slab %s: closed while a view of it is alive", self.spec.name)
        if self._owner:
            self._memory.unlink()


class SlotLedger:
    """Which slots are lent; not thread-safe, whoever shares it holds a lock.

    Args:
        slots: Number of slots.
    """

    def __init__(self, slots: int) -> None:
        self._lent = bytearray(slots)

    @property
    def free(self) -> int:
        """Number of slots that are not lent."""
        return self._lent.count(0)

    def lend(self, count: int, *, from_the_end: bool = False) -> int | None:
        """Lend ``count`` neighbouring slots.

        Args:
            count: At least one.
            from_the_end: Search from the last slot on, for what is lent for long: it leaves the rest in one piece.

        Returns:
            The first of them, or none when there is no such run.
        """
        search = self._lent.rfind if from_the_end else self._lent.find
        first = search(bytes(count))
        if first < 0:
            return None
        self._lent[first : first + count] = b"\1" * count
        return first

    def take_back(self, first: int, count: int) -> None:
        """Take slots back.

        Raises:
            ValueError: If one of them was not lent: two requests would have shared it.
        """
        if self._lent[first : first + count] != b"\1" * count:
            raise ValueError(f"slots {first} to {first + count - 1}: taken back, but not all of them were lent")
        self._lent[first : first + count] = bytes(count)


def check_pictures(images: torch.Tensor, pixels: PixelType) -> None:
    """Refuse what a slab cannot take.

    Args:
        images: Float pictures in [0, 1] of shape (N, 3, H, W); bytes too where the slab stores bytes.
        pixels: What the slab stores.

    Raises:
        ValueError: If they are anything else.
    """
    shaped = images.ndim == 4 and images.shape[1] == 3 and images.shape[2] > 0 and images.shape[3] > 0
    if not shaped or not (images.is_floating_point() or images.dtype == torch.uint8 == getattr(torch, pixels)):
        raise ValueError(
            f"pictures: got {tuple(images.shape)} {images.dtype}, expected (N, 3, H, W) float in [0, 1]"
            + (" or uint8" if pixels == "uint8" else "")
        )


def _claim(memory: SharedMemory) -> None:
    """Have the pages reserved now: with too little room the first write would end the process by SIGBUS."""
    file = _SHARED_MEMORY_FILES / memory.name.lstrip("/")
    if not hasattr(os, "posix_fallocate") or not file.exists():
        return
    descriptor = os.open(file, os.O_RDWR)
    try:
        os.posix_fallocate(descriptor, 0, memory.size)
    finally:
        os.close(descriptor)


def _refused(spec: SlabSpec, reason: str) -> NotEnoughSharedMemory:
    return NotEnoughSharedMemory(
        f"shared memory: {spec.slots} slots of {spec.side}x{spec.side} pixels need {spec.size / _MEBIBYTE:.0f} MiB, "
        f"the system says: {reason}; use fewer or smaller slots, or give more (docker run --shm-size)"
    )
