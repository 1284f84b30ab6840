"""The Gaussian blur of a photo that is seen a strip at a time, for radii so wide that a smaller copy is blurred.

The same numbers as :func:`filters.gaussian_blur` for such radii: areas are averaged into the smaller copy while strips
come in, the copy is blurred, and any rows of the result are interpolated when they are asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from vernissage.retoucher.domain.filters import gaussian_blur, smaller_copy_factor

if TYPE_CHECKING:
    from numpy.typing import NDArray


class WideBlur:
    """One blur of C planes of (height, width); `add` all strips, then `finish`, then `rows`.

    Threads may add different strips at once, and ask for rows at once.

    Args:
        channels: C.
        height: Rows of the photo.
        width: Columns of the photo.
        sigma: Standard deviation of the Gaussian in pixels of the photo.

    Raises:
        ValueError: If the Gaussian is so narrow that it is not computed on a smaller copy.
    """

    def __init__(self, channels: int, height: int, width: int, sigma: float) -> None:
        self.factor = smaller_copy_factor(sigma)
        if self.factor == 1:
            raise ValueError(f"sigma {sigma:g}: too narrow for a smaller copy, use gaussian_blur")
        self._sigma = sigma
        self._down = _bins(height, max(1, round(height / self.factor)))
        self._across = _bins(width, max(1, round(width / self.factor)))
        self._small = np.empty((channels, len(self._down), len(self._across)), np.float32)
        self._down_places = _places(height, len(self._down))
        self._across_places = _places(width, len(self._across))

    def strips(self, rows: int) -> list[tuple[slice, slice]]:
        """Cut the photo for `add`: slices of the smaller copy's rows, with the rows of the photo that they are made of.

        Args:
            rows: Rows of the photo in a strip, about. Neighbouring strips may share a row.
        """
        count = max(1, rows // self.factor)
        cuts = [slice(first, min(first + count, len(self._down))) for first in range(0, len(self._down), count)]
        return [(cut, slice(int(self._down[cut.start, 0]), int(self._down[cut.stop - 1, 1]))) for cut in cuts]

    def add(self, cut: slice, planes: NDArray[np.float32]) -> None:
        """Average (C, n, W) planes, the rows that belong to a slice of `strips`, into the smaller copy."""
        first = int(self._down[cut.start, 0])
        for row in range(cut.start, cut.stop):
            start, stop = self._down[row] - first
            columns = planes[:, start:stop].mean(axis=1)
            self._small[:, row] = _mean_over(columns, self._across)

    def finish(self) -> None:
        """Blur the smaller copy, once everything was added."""
        self._small = gaussian_blur(torch.from_numpy(self._small)[np.newaxis], self._sigma / self.factor)[0].numpy()

    def rows(self, rows: slice) -> NDArray[np.float32]:
        """Rows of the blurred photo, (C, n, W)."""
        tops, shares = (places[rows] for places in self._down_places)
        channels, last = self._small.shape[0], self._small.shape[1] - 1
        result = np.empty((channels, len(tops), len(self._across_places[0])), np.float32)
        if not len(tops):
            return result
        wide = self._spread(self._small[:, tops[0] : tops[-1] + 2])
        # Rows between the same two rows of the smaller copy go together.
        for top in range(tops[0], tops[-1] + 1):
            start, stop = np.searchsorted(tops, (top, top + 1))
            above, below = wide[:, top - tops[0]], wide[:, min(top + 1, last) - tops[0]]
            part = result[:, start:stop]
            np.multiply((below - above)[:, np.newaxis], shares[start:stop, np.newaxis], out=part)
            part += above[:, np.newaxis]
        return result

    def _spread(self, small: NDArray[np.float32]) -> NDArray[np.float32]:
        """Interpolate (C, n, w) along the width, (C, n, W)."""
        left, share = self._across_places
        before = np.take(small, left, axis=2, mode="clip")
        after = np.take(small, left + 1, axis=2, mode="clip")
        after -= before
        after *= share
        after += before
        return after


def _bins(size: int, small: int) -> NDArray[np.int64]:
    """(small, 2): first pixel of each area, and the one after its last; areas share one where sizes do not divide."""
    index = np.arange(small)
    return np.stack([index * size // small, -(-(index + 1) * size // small)], axis=1)


def _mean_over(columns: NDArray[np.float32], bins: NDArray[np.int64]) -> NDArray[np.float32]:
    # Sums from each start to its end lie at the even places; the end of the last is the end of the row.
    sums = np.add.reduceat(columns, bins.ravel()[:-1], axis=1)[:, ::2]
    return np.divide(sums, bins[:, 1] - bins[:, 0], dtype=np.float32)


def _places(size: int, small: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Of each pixel the neighbour before it in the smaller copy, and how far it lies towards the next, in [0, 1)."""
    centre = np.maximum((np.arange(size) + 0.5) * (small / size) - 0.5, 0)
    before = centre.astype(np.int64)
    return before, (centre - before).astype(np.float32)
