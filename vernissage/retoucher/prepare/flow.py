"""How work flows through this room: a few threads with a bounded number of items in flight, batches of equal size."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch

from vernissage.core.images import load_rgb8

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

Item = TypeVar("Item")
Result = TypeVar("Result")


def ordered_map(
    work: Callable[[Item], Result], items: Iterable[Item], *, threads: int, in_flight: int | None = None
) -> Iterator[Result]:
    """Apply a function to many items in a few threads and yield the results in the order of the items.

    Unlike ``ThreadPoolExecutor.map`` at most ``in_flight`` results exist at a time, so that thousands of decoded
    photos never wait in memory.

    Args:
        work: Called with one item in a worker thread.
        items: What to work on.
        threads: Number of worker threads, at least 1.
        in_flight: Items begun and not yet yielded; twice the threads where it is left out.

    Yields:
        One result per item.

    Raises:
        Exception: What ``work`` raises, at the item's turn; items not yet begun are dropped then.
    """
    limit = max(in_flight or 2 * threads, 1)
    pool = ThreadPoolExecutor(max_workers=max(threads, 1), thread_name_prefix="prepare")
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= limit:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def equal_size_batches(sizes: Sequence[tuple[int, int]], batch: int) -> list[list[int]]:
    """Group positions of equally large photos, in order of first appearance, so that each group is one tensor.

    Args:
        sizes: (width, height) of each photo.
        batch: Most photos in one group.

    Returns:
        Lists of positions; each position appears once.
    """
    of_size: dict[tuple[int, int], list[int]] = {}
    for position, size in enumerate(sizes):
        of_size.setdefault(size, []).append(position)
    return [rows[start : start + batch] for rows in of_size.values() for start in range(0, len(rows), batch)]


def load_batch(paths: Sequence[Path]) -> torch.Tensor:
    """Load equally large pictures of ours as one tensor.

    Args:
        paths: 8-bit RGB PNG files.

    Returns:
        (N, 3, H, W) float32 in [0, 1], encoded sRGB.
    """
    return to_tensor(np.stack([load_rgb8(path) for path in paths]))


def to_tensor(pixels: np.ndarray) -> torch.Tensor:
    """Turn stored pixels into a batch.

    Args:
        pixels: (N, H, W, 3) uint8.

    Returns:
        (N, 3, H, W) float32 in [0, 1].
    """
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float() / 255


def to_pixels(images: torch.Tensor) -> np.ndarray:
    """Undo :func:`to_tensor`, rounding to the nearest level.

    Args:
        images: (N, 3, H, W) float in [0, 1].

    Returns:
        (N, H, W, 3) uint8.
    """
    levels = (images * 255).round().clamp(0, 255).to(torch.uint8)
    return np.ascontiguousarray(levels.permute(0, 2, 3, 1).cpu().numpy())
