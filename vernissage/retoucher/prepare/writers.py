"""A bounded pool of threads that write pictures, so that the work on pixels never waits for the disk."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from threading import BoundedSemaphore
from typing import TYPE_CHECKING, Self

from vernissage.core.files import sha256_file
from vernissage.core.images import save_png

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

    import numpy as np

_WAITING_PER_WRITER = 8


class PictureWriters:
    """Writes PNG files in the background and returns their hashes.

    Use it as a context manager: leaving it waits until every picture is on disk. When the body or a writer fails,
    pictures that were not begun are dropped and the first error is raised.

    Args:
        threads: Number of writers.
        waiting: Most pictures that are queued or being written; eight for each writer where it is left out.
    """

    def __init__(self, threads: int, waiting: int | None = None) -> None:
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="writer")
        self._places = BoundedSemaphore(waiting or threads * _WAITING_PER_WRITER)
        self._futures: dict[int, Future[str]] = {}
        self._failed: Future[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=error is not None or self._failed is not None)
        # An error of the body is on its way already; the writer's must not hide it.
        if error is None:
            self._raise_failure()

    def write(self, key: int, path: Path, pixels: np.ndarray) -> None:
        """Queue one picture; waits only while the queue is full.

        Args:
            key: Names the picture in :meth:`hashes`.
            path: PNG file, in a folder that exists.
            pixels: (H, W, 3) uint8; must not change afterwards.

        Raises:
            ValueError: If the key was used before.
            OSError: If an earlier picture could not be written.
        """
        if key in self._futures:
            raise ValueError(f"picture {key} is queued already; expected each key once")
        self._places.acquire()
        try:
            self._raise_failure()
            future = self._pool.submit(_write, path, pixels)
        except BaseException:
            self._places.release()
            raise
        self._futures[key] = future
        future.add_done_callback(self._done)

    def hashes(self) -> Mapping[int, str]:
        """SHA-256 of each written file by its key; waits for those that are not written yet.

        Raises:
            OSError: If a picture could not be written.
        """
        return {key: future.result() for key, future in self._futures.items()}

    def _done(self, future: Future[str]) -> None:
        if not future.cancelled() and future.exception() is not None and self._failed is None:
            self._failed = future
        self._places.release()

    def _raise_failure(self) -> None:
        if self._failed is not None:
            self._failed.result()


def _write(path: Path, pixels: np.ndarray) -> str:
    save_png(path, pixels)
    return sha256_file(path)
