"""Procedural photographs of known content for the tests of the domain."""

from __future__ import annotations

import numpy as np
import torch


def scene(height: int, width: int, seed: int = 0, *, detail: float = 1.0) -> torch.Tensor:
    """A smooth landscape of colour gradients, soft discs and waves.

    Returns:
        (1, 3, height, width) float32 in [0, 1].
    """
    rng = np.random.default_rng(seed)
    # The same scene at any size: everything is a function of relative position.
    y, x = np.meshgrid((np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width, indexing="ij")
    channels = []
    discs = [(*rng.uniform(0.1, 0.9, 2), rng.uniform(0.05, 0.25), rng.uniform(-0.4, 0.4, 3)) for _ in range(8)]
    waves = [(*rng.uniform(2, 14, 2), rng.uniform(0, 6.28), rng.uniform(-0.06, 0.06, 3)) for _ in range(8)]
    slope = rng.uniform(-0.3, 0.3, (2, 3))
    for channel in range(3):
        plane = 0.45 + slope[0, channel] * (x - 0.5) + slope[1, channel] * (y - 0.5)
        for cx, cy, radius, colour in discs:
            plane += colour[channel] / (1 + np.exp((np.hypot(x - cx, y - cy) - radius) / 0.01))
        for fx, fy, phase, colour in waves:
            plane += detail * colour[channel] * np.sin(6.28 * (fx * x + fy * y) + phase)
        channels.append(plane)
    return torch.from_numpy(np.clip(np.stack(channels), 0, 1).astype(np.float32))[None]


def noise(n: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    """(n, 3, height, width) float32, each value uniform in [0, 1]."""
    return torch.from_numpy(np.random.default_rng(seed).random((n, 3, height, width), dtype=np.float32))


def flat(*rgb: float, size: int = 16) -> torch.Tensor:
    """(1, 3, size, size) of one colour."""
    return torch.tensor(rgb, dtype=torch.float32).view(1, 3, 1, 1).expand(1, 3, size, size).clone()
