"""The automatic corrections that photo programs have offered for decades, each with its one setting."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F

from vernissage.retoucher.domain.colour import linear_to_srgb, luma, srgb_to_linear

#: (N, 3, H, W) photos to (N, 3, H, W) results and (N,) number of edits.
Method = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]

#: Settings that each correction is tried with where there are validation pairs to choose by.
GRIDS: dict[str, tuple[float, ...]] = {
    "autocontrast": (0.0, 0.001, 0.005, 0.02),
    "auto levels": (0.0, 0.001, 0.005, 0.02),
    "CLAHE": (0.002, 0.005, 0.01, 0.03),
    "gray-world": (0.25, 0.5, 1.0),
}
#: Their usual settings, where there is nothing to choose by: Pillow's ``ImageOps.autocontrast``, a tenth of a percent
#: as image editors clip in auto levels, scikit-image's ``equalize_adapthist``, and the whole cast as Buchsbaum has it.
DEFAULTS: dict[str, float] = {"autocontrast": 0.0, "auto levels": 0.001, "CLAHE": 0.01, "gray-world": 1.0}

# CLAHE: tiles along a side, grey levels before binning, levels in a bin, bins; as scikit-image has them.
_TILES, _LEVELS, _LEVELS_IN_A_BIN, _BINS = 8, 2**14, 65, 256
_HALVINGS = 20


def autocontrast(photos: torch.Tensor, setting: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Stretch luma between two percentiles to black and white, one linear map for all channels.

    Args:
        photos: (N, 3, H, W) float in [0, 1].
        setting: Share of pixels that may clip at each end.

    Returns:
        Results and one edit per photo.
    """
    ends = torch.quantile(luma(photos).flatten(1), torch.tensor([setting, 1 - setting]), dim=1)
    return _stretch(photos, ends[0].view(-1, 1, 1, 1), ends[1].view(-1, 1, 1, 1))


def auto_levels(photos: torch.Tensor, setting: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Stretch each channel on its own, which also takes away casts; ``setting`` as for :func:`autocontrast`."""
    ends = torch.quantile(photos.flatten(2), torch.tensor([setting, 1 - setting]), dim=2)
    return _stretch(photos, ends[0][..., None, None], ends[1][..., None, None])


def _stretch(photos: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    stretched = ((photos - low) / (high - low).clamp_min(1 / 255)).clamp(0, 1)
    # One level apart is one colour: there is nothing to stretch.
    return torch.where(high - low > 1 / 255, stretched, photos), torch.ones(len(photos))


def gray_world(photos: torch.Tensor, setting: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale channels in linear light until their means agree (Buchsbaum 1980); the mean luminance stays.

    Args:
        photos: (N, 3, H, W) float in [0, 1].
        setting: Exponent of the gains: 1 removes the whole cast, a half its geometric half.

    Returns:
        Results and one edit per photo.
    """
    linear = srgb_to_linear(photos)
    means = linear.mean(dim=(2, 3), keepdim=True).clamp_min(1e-4)
    gains = (luma(means) / means) ** setting
    return linear_to_srgb((linear * gains).clamp(0, 1)), torch.ones(len(photos))


def clahe(photos: torch.Tensor, setting: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Contrast-limited adaptive histogram equalisation of luma (Zuiderveld 1994), all photos together.

    The same tiles, bins, interpolation and final stretch as scikit-image's ``equalize_adapthist``, but what is clipped
    off a histogram is shared out exactly instead of in whole pixels, so that low limits are quick and differ.

    Args:
        photos: (N, 3, H, W) float in [0, 1].
        setting: Largest share of a tile's pixels in one bin, at least one pixel.

    Returns:
        Results and one edit per photo.
    """
    grey = luma(photos)
    low, high = grey.amin(dim=(2, 3), keepdim=True), grey.amax(dim=(2, 3), keepdim=True)
    equalised = _equalise_tiles(((grey - low) / (high - low).clamp_min(1 / 255)).clamp(0, 1), setting)
    # One tone: equalising it would make any grey white.
    moved = torch.where(high - low > 1 / 255, equalised - grey, 0.0)
    return (photos + moved).clamp(0, 1), torch.ones(len(photos))


def _equalise_tiles(grey: torch.Tensor, clip_share: float) -> torch.Tensor:
    """(N, 1, H, W) grey from 0 to 1 to the same, equalised and stretched to 0 and 1."""
    count, _, height, width = grey.shape
    tile_h, tile_w = max(1, height // _TILES), max(1, width // _TILES)
    padding = [
        side
        for size, tile in ((width, tile_w), (height, tile_h))
        for side in (tile // 2, -size % tile + (tile + 1) // 2)
    ]
    # Half a tile around the photo, so that the middles of tiles lie on the corners of blocks.
    padded = F.pad(grey, padding, mode="reflect" if min(height, width) > 1 else "replicate")
    bins = torch.div((padded * (_LEVELS - 1)).round().long(), _LEVELS_IN_A_BIN, rounding_mode="floor")
    rows, columns = padded.shape[2] // tile_h - 1, padded.shape[3] // tile_w - 1
    tops, lefts = tile_h // 2, tile_w // 2
    tiles = bins[:, 0, tops : tops + rows * tile_h, lefts : lefts + columns * tile_w]
    tiles = tiles.reshape(count, rows, tile_h, columns, tile_w).transpose(2, 3).flatten(3)
    histograms = torch.zeros(count, rows, columns, _BINS).scatter_add_(3, tiles, torch.ones(tiles.shape))
    pixels = tile_h * tile_w
    curves = (_clip(histograms, max(1.0, clip_share * pixels)).cumsum(dim=3) / pixels).clamp_max(1)
    # Blocks at the border lie between a tile and itself.
    curves = F.pad(curves.permute(0, 3, 1, 2), (1, 1, 1, 1), mode="replicate").permute(0, 2, 3, 1)
    mapped = torch.zeros(count, (rows + 1) * tile_h, (columns + 1) * tile_w)
    at_h, at_w = torch.arange(mapped.shape[1]), torch.arange(mapped.shape[2])
    share_h, share_w = (at_h % tile_h / tile_h).view(-1, 1), (at_w % tile_w / tile_w).view(1, -1)
    flat = curves.reshape(count, -1)
    for down, weight_h in ((0, 1 - share_h), (1, share_h)):
        for right, weight_w in ((0, 1 - share_w), (1, share_w)):
            tile = (at_h // tile_h + down).view(-1, 1) * (columns + 2) + (at_w // tile_w + right).view(1, -1)
            places = tile * _BINS + bins[:, 0, : mapped.shape[1], : mapped.shape[2]]
            mapped += weight_h * weight_w * flat.gather(1, places.flatten(1)).view_as(mapped)
    result = mapped[:, None, tops : tops + height, lefts : lefts + width]
    low, high = result.amin(dim=(2, 3), keepdim=True), result.amax(dim=(2, 3), keepdim=True)
    return (result - low) / (high - low).clamp_min(1e-6)


def _clip(histograms: torch.Tensor, limit: float) -> torch.Tensor:
    """Cut histograms off at a limit and raise all bins alike by what was cut off, never above the limit.

    Where even full bins cannot hold all pixels, every bin is full.
    """
    total = histograms.sum(dim=-1, keepdim=True)
    least, most = torch.zeros_like(total), torch.full_like(total, limit)
    for _ in range(_HALVINGS):
        middle = (least + most) / 2
        too_few = (histograms + middle).clamp_max(limit).sum(dim=-1, keepdim=True) < total
        least, most = torch.where(too_few, middle, least), torch.where(too_few, most, middle)
    return (histograms + most).clamp_max(limit)


def classic_method(name: str, setting: float) -> Method:
    """One classic correction with its one setting: clip share, clip limit, or strength."""
    functions = {"autocontrast": autocontrast, "auto levels": auto_levels, "CLAHE": clahe, "gray-world": gray_world}
    return partial(functions[name], setting=setting)
