"""Imagined scenes: pictures with the statistics of photographs and no content, for when there are few photographs.

Dead leaves (Lee, Mumford and Huang 2001, section 3): surfaces of random shape, size and reflectance cover each other;
light, texture and the camera's white balance and exposure come on top. Edges, contrasts, casts and clipping then occur
as they do in the world, in endless variety, so a network learns from them what a fault does to a histogram, while the
real photos teach it what the world looks like.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from vernissage.retoucher.domain.colour import LUMINANCE_WEIGHTS, linear_to_srgb, luma

_GRID = 96
_MONOCHROME_SHARE = 0.2


def imagine_scenes(count: int, side: int, rng: np.random.Generator) -> torch.Tensor:
    """Draw scenes as a camera would deliver them.

    Args:
        count: Number of scenes.
        side: Side in pixels.
        rng: Source of randomness.

    Returns:
        (count, 3, side, side) float in [0, 1], encoded sRGB, on the 8-bit grid.
    """
    if not count:
        return torch.zeros(0, 3, side, side)
    grid = max(_GRID, side)
    scenes = torch.stack([_develop(_log_light(rng, grid), rng) for _ in range(count)])
    return torch.round(F.interpolate(scenes, size=(side, side), mode="area") * 255) / 255


def _log_light(rng: np.random.Generator, grid: int) -> np.ndarray:
    """Logarithm of the light that reaches the camera, (grid, grid, 3)."""
    rows, columns = np.mgrid[:grid, :grid].astype(np.float32) / grid
    palette = _palette(rng)
    light = np.broadcast_to(palette[rng.integers(len(palette))], (grid, grid, 3)).astype(np.float32)
    if rng.random() < 0.6:
        # A brighter, often bluer half: the sky, a wall with a window.
        horizon = rng.uniform(0.2, 0.8) + 0.05 * _pink_noise(rng, grid, 1.3)
        sky = np.log(rng.uniform(0.3, 1.2)) + np.array([-0.25, 0.0, 0.3]) * rng.uniform(-0.3, 1.2)
        light = np.where((rows < horizon)[..., None], sky.astype(np.float32), light)
    surfaces = [palette[rng.integers(len(palette))] + rng.normal(0, 0.08, 3) for _ in range(int(rng.integers(5, 50)))]
    if rng.random() < 0.8:
        # Most scenes have a deep shadow and something white or shiny in them, both without colour.
        surfaces += [np.full(3, np.log(0.008)), np.full(3, np.log(1.2))]
    for surface in surfaces:
        reflectance = surface + rng.normal(0, 0.25)
        across, along, radius = _place(rng, rows, columns)
        covered = _covered(rng, across, along, radius)
        shading = rng.uniform(0, 0.6) * (0.54 * across + 0.84 * along) / max(radius, 0.05)
        light = np.where(covered[..., None], (reflectance + shading[..., None]).astype(np.float32), light)
    texture = rng.uniform(0, 0.35) * _pink_noise(rng, grid, rng.uniform(0.8, 1.4))
    illumination = rng.uniform(0, 0.5) * _pink_noise(rng, grid, 2.0)
    return light + (texture + illumination)[..., None]


def _palette(rng: np.random.Generator) -> np.ndarray:
    """A few log reflectances that go together, (k, 3)."""
    surfaces = int(rng.integers(3, 7))
    hue = rng.normal(0, 1, (surfaces, 3))
    colourfulness = abs(rng.normal(0, 0.3))
    lightness = rng.normal(-1.6, 0.9, surfaces)
    return lightness[:, None] + colourfulness * (hue - hue.mean(axis=1, keepdims=True))


def _place(rng: np.random.Generator, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Coordinates turned and shifted to a surface, and its radius: many small ones, few large ones."""
    radius = 0.45 * rng.random() ** 2.5 + 0.02
    (centre_x, centre_y), angle = rng.random(2), rng.uniform(0, np.pi)
    x, y = columns - centre_x, rows - centre_y
    return x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle), float(radius)


def _covered(rng: np.random.Generator, across: np.ndarray, along: np.ndarray, radius: float) -> np.ndarray:
    """Which pixels an ellipse, a rectangle or a ragged shape covers."""
    aspect = rng.uniform(0.3, 1)
    kind = rng.integers(3)
    if kind == 0:
        return np.asarray((np.abs(across) < radius) & (np.abs(along) < radius * aspect))
    edge = 1.0 if kind == 1 else 1 + 0.5 * _pink_noise(rng, len(across), 1.5)
    return np.asarray(across**2 + (along / aspect) ** 2 < radius**2 * edge)


def _pink_noise(rng: np.random.Generator, grid: int, falloff: float) -> np.ndarray:
    """Noise with amplitude 1 / frequency^falloff, unit variance, (grid, grid)."""
    spectrum = np.fft.rfft2(rng.standard_normal((grid, grid), dtype=np.float32))
    frequency = np.hypot(np.fft.fftfreq(grid)[:, None], np.fft.rfftfreq(grid)[None])
    frequency[0, 0] = 1.0
    spectrum /= frequency**falloff
    spectrum[0, 0] = 0.0
    noise = np.fft.irfft2(spectrum, s=(grid, grid))
    return np.asarray(noise / (noise.std() + 1e-9), dtype=np.float32)


def _develop(log_light: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
    """White balance that is nearly right, exposure to near the right end of the histogram, encoding."""
    balance = np.array([1, 0, -1]) * rng.normal(0, 0.12) + np.array([0, 1, 0]) * rng.normal(0, 0.05)
    linear = np.exp(log_light) * np.exp2(balance)
    bright = np.quantile(linear @ np.array(LUMINANCE_WEIGHTS), rng.uniform(0.95, 0.999))
    exposed = np.clip(linear / bright * rng.uniform(0.6, 1.05), 0, 4).astype(np.float32)
    scene = linear_to_srgb(torch.from_numpy(exposed).permute(2, 0, 1)).clamp(0, 1)
    return luma(scene).expand(3, -1, -1).contiguous() if rng.random() < _MONOCHROME_SHARE else scene
