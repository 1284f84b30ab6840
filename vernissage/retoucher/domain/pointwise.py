"""The part of a recipe that looks at one pixel at a time, as tables: a photo has only 256 or 65536 levels per channel.

White balance, exposure and tone curve bend each channel on its own, so they become one table per channel, worked out
once at every level; only the saturation mixes channels, and that is a weighted sum of what the tables say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from vernissage.retoucher.domain.colour import LUMINANCE_WEIGHTS, linear_to_srgb, srgb_to_linear
from vernissage.retoucher.domain.render import channel_gains, render, tone_curve
from vernissage.retoucher.domain.sliders import SLIDERS, slider_index

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from vernissage.core.levels import Samples

    Pointwise = Callable[[Samples], NDArray[np.float32]]

_SATURATION, _DENOISE, _SHARPEN = (slider_index(name) for name in ("saturation", "denoise", "sharpen"))


def pointwise_of(settings: torch.Tensor, dtype: np.dtype) -> Pointwise:
    """Return what renders all of a recipe but denoise and sharpen, a strip of rows at a time.

    Args:
        settings: (1, K) normalised settings.
        dtype: What the samples are: uint8 and uint16 hold levels, float32 holds numbers in [0, 1].

    Returns:
        A function from (n, W, 3) samples of that type to (3, n, W) float32 in [0, 1]: what :func:`render.render`
        gives, before anything is rounded. It may be called from several threads at once.

    Raises:
        ValueError: If the samples are of another type.
    """
    settings = settings.clone()
    settings[:, [_DENOISE, _SHARPEN]] = 0
    if dtype == np.float32:
        return lambda samples: _render_floats(samples, settings)
    if dtype not in (np.uint8, np.uint16):
        raise ValueError(f"samples of {dtype}: expected uint8, uint16 or float32")
    own, grey = _tables(settings, levels=np.iinfo(dtype).max + 1)
    return lambda samples: _look_up(samples, own, grey)


def _render_floats(samples: Samples, settings: torch.Tensor) -> NDArray[np.float32]:
    batch = torch.from_numpy(samples).permute(2, 0, 1).unsqueeze(0)
    planes: NDArray[np.float32] = render(batch, settings)[0].contiguous().numpy()
    return planes


def _tables(settings: torch.Tensor, *, levels: int) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """What each channel's level adds to its own channel and to the grey of all three, (3, levels) each.

    With saturation s, ``grey + s (toned - grey)`` is ``s toned + (1 - s) grey``. The second is None where s is 1.
    """
    amounts = settings.double() * torch.tensor([slider.full_scale for slider in SLIDERS], dtype=torch.float64)
    ramp = torch.linspace(0, 1, levels, dtype=torch.float64).view(1, 1, 1, levels)
    encoded = linear_to_srgb(srgb_to_linear(ramp) * channel_gains(amounts).view(1, 3, 1, 1))
    toned = tone_curve(encoded, amounts)[0, :, 0].numpy()
    saturation = float(torch.exp2(amounts[0, _SATURATION]))
    weights = np.array(LUMINANCE_WEIGHTS)[:, np.newaxis]
    grey = None if saturation == 1 else ((1 - saturation) * weights * toned).astype(np.float32)
    return (saturation * toned).astype(np.float32), grey


def _look_up(samples: Samples, own: NDArray[np.float32], grey: NDArray[np.float32] | None) -> NDArray[np.float32]:
    planes = np.empty((3, *samples.shape[:2]), np.float32)
    # No level is outside its table; any mode but the default spares numpy a second copy of the result.
    for channel in range(3):
        np.take(own[channel], samples[..., channel], out=planes[channel], mode="clip")
    if grey is not None:
        mixed = np.empty(samples.shape[:2], np.float32)
        part = np.empty_like(mixed)
        np.take(grey[0], samples[..., 0], out=mixed, mode="clip")
        for channel in (1, 2):
            mixed += np.take(grey[channel], samples[..., channel], out=part, mode="clip")
        planes += mixed
    return np.clip(planes, 0, 1, out=planes)
