"""Photos of any size in bounded memory: a thumbnail to decide on, and the recipe rendered at full size in strips."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from vernissage.core.images import to_uint8
from vernissage.retoucher.domain.colour import luma
from vernissage.retoucher.domain.filters import local_statistics_filter, unsharp_luma
from vernissage.retoucher.domain.render import DENOISE_SIGMA_SHARE, SHARPEN_SIGMA_SHARE, render
from vernissage.retoucher.domain.sliders import SLIDER_COUNT, SLIDERS, slider_index

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Pixels of one strip: 3 MB for each intermediate picture, which stays in the processor's cache.
STRIP_PIXELS = 1 << 18

_DENOISE, _SHARPEN = slider_index("denoise"), slider_index("sharpen")


def as_batch(pixels: NDArray[np.float32]) -> torch.Tensor:
    """View (H, W, 3) pixels as a (1, 3, H, W) tensor; nothing is copied."""
    return torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0)


def thumbnail(pixels: NDArray[np.float32], *, long_edge: int, short_edge: int = 1) -> torch.Tensor:
    """Shrink a photo as the photos of the dataset were shrunk: 8 bits, Lanczos.

    Args:
        pixels: (H, W, 3) float in [0, 1].
        long_edge: Pixels that the longer side shall have.
        short_edge: The shorter side keeps at least so many, where it had them: a panorama stays longer than asked.

    Returns:
        (1, 3, h, w) float on the 8-bit grid; photos that are small already keep their size.
    """
    height, width = pixels.shape[:2]
    scale = min(1.0, max(long_edge / max(height, width), short_edge / min(height, width)))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    # One channel at a time, because a float copy of a whole large photo takes hundreds of megabytes.
    planes = [Image.fromarray(to_uint8(pixels[..., channel])) for channel in range(3)]
    small = [np.array(plane.resize(size, Image.Resampling.LANCZOS)) for plane in planes]
    return torch.from_numpy(np.stack(small)).unsqueeze(0).float() / 255


@torch.no_grad()
def render_full_size(
    pixels: NDArray[np.float32], settings: torch.Tensor, *, out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Render one photo as :func:`render.render` would, in strips.

    Tone and colour look at one pixel at a time, so they go strip by strip. Denoise and sharpen look far around; they
    go over the whole photo, but over one plane at a time, so the peak stays at a few single-channel planes.

    Args:
        pixels: (H, W, 3) float32 in [0, 1], encoded sRGB.
        settings: (1, K) normalised settings.
        out: Where the result goes; may be ``pixels`` itself.

    Returns:
        (H, W, 3) float32 in [0, 1], encoded sRGB: ``out`` where that was given.

    Raises:
        ValueError: If the shapes do not fit.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or settings.shape != (1, SLIDER_COUNT):
        raise ValueError(
            f"full-size render: got pixels {pixels.shape} and settings {tuple(settings.shape)}, "
            f"expected (H, W, 3) and (1, {SLIDER_COUNT})"
        )
    result = np.empty_like(pixels) if out is None else out
    edge = max(pixels.shape[:2])
    pointwise = settings.clone()
    pointwise[:, [_DENOISE, _SHARPEN]] = 0
    for rows in _strips(pixels):
        result[rows] = render(as_batch(pixels[rows]), pointwise, long_edge=edge)[0].permute(1, 2, 0).numpy()
    denoise, sharpen = (
        SLIDERS[index].amount(float(setting))
        for index, setting in ((_DENOISE, settings[0, _DENOISE]), (_SHARPEN, settings[0, _SHARPEN]))
    )
    if denoise > 0:
        _denoise(result, DENOISE_SIGMA_SHARE * edge, denoise)
    if sharpen > 0:
        _sharpen(result, SHARPEN_SIGMA_SHARE * edge, sharpen)
    return result


def _strips(pixels: NDArray[np.float32]) -> list[slice]:
    height, width = pixels.shape[:2]
    rows = max(1, STRIP_PIXELS // width)
    return [slice(top, min(top + rows, height)) for top in range(0, height, rows)]


def _denoise(pixels: NDArray[np.float32], sigma: float, noise: float) -> None:
    for channel in range(3):
        plane = torch.from_numpy(np.ascontiguousarray(pixels[..., channel]))
        smooth = local_statistics_filter(plane[None, None], sigma, torch.tensor([noise]))
        np.clip(smooth[0, 0].numpy(), 0, 1, out=pixels[..., channel])


def _sharpen(pixels: NDArray[np.float32], sigma: float, strength: float) -> None:
    grey = torch.cat([luma(as_batch(pixels[rows])) for rows in _strips(pixels)], dim=2)
    detail = unsharp_luma(grey, sigma)[0, 0].numpy()
    for rows in _strips(pixels):
        strip = pixels[rows]
        strip += strength * detail[rows, :, None]
        np.clip(strip, 0, 1, out=strip)
