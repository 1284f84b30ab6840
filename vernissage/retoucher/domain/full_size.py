"""Photos of any size in bounded memory: a thumbnail to decide on, and the recipe rendered at full size in strips.

A photo stays in the levels that its file holds (8 or 16 bits); floats exist for one strip at a time. Strips are shared
out among threads, each of which does whole strips on its own, so that none ever waits for another within a strip.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from vernissage.core.devices import thread_count
from vernissage.core.levels import as_floats, strips, to_uint8
from vernissage.retoucher.domain.colour import LUMINANCE_WEIGHTS
from vernissage.retoucher.domain.filters import smaller_copy_factor
from vernissage.retoucher.domain.pointwise import pointwise_of
from vernissage.retoucher.domain.render import DENOISE_SIGMA_SHARE, SHARPEN_SIGMA_SHARE, render
from vernissage.retoucher.domain.sliders import SLIDER_COUNT, SLIDERS, slider_index
from vernissage.retoucher.domain.wide_blur import WideBlur

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from numpy.typing import NDArray

    from vernissage.core.levels import Samples

    #: Gives the (3, n, W) floats in [0, 1] of some rows of the photo, as far as it is developed.
    _Develop = Callable[[slice], NDArray[np.float32]]

#: Pixels of one strip: under 1 MB for three planes of floats, so that the few planes at work stay in a core's cache.
STRIP_PIXELS = 1 << 16

_DENOISE, _SHARPEN = slider_index("denoise"), slider_index("sharpen")


def as_batch(pixels: NDArray[np.float32]) -> torch.Tensor:
    """View (H, W, 3) pixels as a (1, 3, H, W) tensor; nothing is copied."""
    return torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0)


def thumbnail(pixels: Samples, *, long_edge: int, short_edge: int = 1) -> torch.Tensor:
    """Shrink a photo as the photos of the dataset were shrunk: 8 bits, Lanczos.

    Args:
        pixels: (H, W, 3) uint8 or uint16 levels, or float in [0, 1].
        long_edge: Pixels that the longer side shall have.
        short_edge: The shorter side keeps at least so many, where it had them: a panorama stays longer than asked.

    Returns:
        (1, 3, h, w) float on the 8-bit grid; photos that are small already keep their size.
    """
    height, width = pixels.shape[:2]
    scale = min(1.0, max(long_edge / max(height, width), short_edge / min(height, width)))
    small_height, small_width = max(1, round(height * scale)), max(1, round(width * scale))
    narrow = np.empty((height, small_width, 3), np.uint8)

    # Pillow, too, resamples along the rows first and rounds to 8 bits between: in strips the numbers are the same.
    def shrink_rows(rows: slice) -> None:
        strip = Image.fromarray(to_uint8(pixels[rows]))
        narrow[rows] = np.asarray(strip.resize((small_width, strip.height), Image.Resampling.LANCZOS))

    # Every strip costs Pillow a table of weights, so there are few.
    _in_threads(shrink_rows, strips(height, width, 16 * STRIP_PIXELS))
    small = np.array(Image.fromarray(narrow).resize((small_width, small_height), Image.Resampling.LANCZOS))
    return torch.from_numpy(small).permute(2, 0, 1).unsqueeze(0).float() / 255


@torch.no_grad()
def render_full_size(pixels: Samples, settings: torch.Tensor, *, out: Samples | None = None) -> Samples:
    """Render one photo as :func:`render.render` would, in strips.

    Tone and colour look at one pixel at a time. Denoise and sharpen look around, but only at blurs so wide that they
    are computed on a smaller copy; that copy is gathered in a pass over the photo before the one that needs it. What a
    pass needs of the former ones is worked out again rather than kept, which takes less time than memory would cost.

    Args:
        pixels: (H, W, 3) encoded sRGB: uint8 or uint16 levels, or float32 in [0, 1].
        settings: (1, K) normalised settings.
        out: Where the result goes, of the same type and shape; may be ``pixels`` itself.

    Returns:
        (H, W, 3) of the same type as ``pixels``: levels are what the float renderer gives, rounded once to the
        nearest. ``out`` where that was given.

    Raises:
        ValueError: If shapes or types do not fit.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or settings.shape != (1, SLIDER_COUNT):
        raise ValueError(
            f"full-size render: got pixels {pixels.shape} and settings {tuple(settings.shape)}, "
            f"expected (H, W, 3) and (1, {SLIDER_COUNT})"
        )
    result = np.empty_like(pixels) if out is None else out
    if result.shape != pixels.shape or result.dtype != pixels.dtype:
        raise ValueError(
            f"full-size render: got out {result.shape} {result.dtype}, expected {pixels.shape} {pixels.dtype}"
        )
    if not settings.any():
        np.copyto(result, pixels)
        return result
    height, width = pixels.shape[:2]
    edge = max(height, width)
    denoise, sharpen = (SLIDERS[slider].amount(float(settings[0, slider])) for slider in (_DENOISE, _SHARPEN))
    denoise_sigma, sharpen_sigma = DENOISE_SIGMA_SHARE * edge, SHARPEN_SIGMA_SHARE * edge
    blurs = ((denoise, denoise_sigma), (sharpen, sharpen_sigma))
    if any(amount > 0 and smaller_copy_factor(sigma) == 1 for amount, sigma in blurs):
        # So small a photo has blurs of a few pixels, and needs no strips.
        _store(render(as_batch(as_floats(pixels)), settings)[0].numpy(), result)
        return result
    develop = _pointwise(pixels, settings)
    if denoise > 0:
        develop = _denoised(develop, (height, width), denoise_sigma, denoise)
    if sharpen > 0:
        develop = _sharpened(develop, (height, width), sharpen_sigma, sharpen)
    _in_threads(lambda rows: _store(develop(rows), result[rows]), strips(height, width, STRIP_PIXELS))
    return result


def _in_threads(work: Callable[..., None], items: Iterable[Any]) -> None:
    with ThreadPoolExecutor(thread_count()) as pool:
        for done in [pool.submit(work, item) for item in items]:
            done.result()


def _pointwise(pixels: Samples, settings: torch.Tensor) -> _Develop:
    pointwise = pointwise_of(settings, pixels.dtype)
    return lambda rows: pointwise(pixels[rows])


def _denoised(develop: _Develop, size: tuple[int, int], sigma: float, noise: float) -> _Develop:
    """What :func:`filters.local_statistics_filter` makes of the photo."""
    means, squares = WideBlur(3, *size, sigma), WideBlur(3, *size, sigma)

    def gather(strip: tuple[slice, slice]) -> None:
        cut, rows = strip
        planes = develop(rows)
        means.add(cut, planes)
        squares.add(cut, np.multiply(planes, planes, out=planes))

    _in_threads(gather, means.strips(STRIP_PIXELS // size[1]))
    means.finish()
    squares.finish()

    def denoised(rows: slice) -> NDArray[np.float32]:
        planes, mean, variance = develop(rows), means.rows(rows), squares.rows(rows)
        keep = mean * mean
        variance -= keep
        np.maximum(variance, 0, out=variance)
        np.add(variance, noise**2 + 1e-12, out=keep)
        np.divide(variance, keep, out=keep)
        planes -= mean
        planes *= keep
        planes += mean
        return np.clip(planes, 0, 1, out=planes)

    return denoised


def _sharpened(develop: _Develop, size: tuple[int, int], sigma: float, strength: float) -> _Develop:
    """What :func:`filters.unsharp_luma` adds to the photo."""
    blur = WideBlur(1, *size, sigma)

    def gather(strip: tuple[slice, slice]) -> None:
        cut, rows = strip
        blur.add(cut, _luma(develop(rows))[np.newaxis])

    _in_threads(gather, blur.strips(STRIP_PIXELS // size[1]))
    blur.finish()

    def sharpened(rows: slice) -> NDArray[np.float32]:
        planes = develop(rows)
        detail = _luma(planes)
        detail -= blur.rows(rows)[0]
        detail *= strength
        planes += detail
        return np.clip(planes, 0, 1, out=planes)

    return sharpened


def _luma(planes: NDArray[np.float32]) -> NDArray[np.float32]:
    red, green, blue = (plane * np.float32(weight) for plane, weight in zip(planes, LUMINANCE_WEIGHTS, strict=True))
    red += green
    red += blue
    return red


def _store(planes: NDArray[np.float32], out: Samples) -> None:
    """Write (3, n, W) floats in [0, 1] into (n, W, 3) samples, rounded to the nearest level."""
    if out.dtype != np.float32:
        planes *= np.iinfo(out.dtype).max
        planes += 0.5
    for channel in range(3):
        np.copyto(out[..., channel], planes[channel], casting="unsafe")
