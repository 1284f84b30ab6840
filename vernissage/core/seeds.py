"""Randomness that depends only on a seed and on what it is for: one generator per item, the same on every machine."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def derive_seed(seed: int, *keys: str | int) -> int:
    """Return a seed of 63 bits for what `keys` name, such as `derive_seed(seed, "degrade", image_id, draw)`.

    It is SHA-256 over the joined keys, so neither the machine nor the order of the work has any say in it. `1` and
    `"1"` are different keys, and `("a", "b")` differs from `("ab",)`.
    """
    digest = hashlib.sha256(f"i{int(seed)}".encode())
    for key in keys:
        # int() makes numpy's whole numbers equal to Python's; lengths are there so that no two lists join alike.
        text = f"s{key}" if isinstance(key, str) else f"i{int(key)}"
        data = text.encode("utf-8", "surrogatepass")
        digest.update(b"\0%d\0" % len(data) + data)
    return int.from_bytes(digest.digest()[:8], "big") >> 1


def numpy_generator(seed: int, *keys: str | int) -> np.random.Generator:
    """Return a fresh numpy generator for what `keys` name."""
    return np.random.Generator(np.random.PCG64(derive_seed(seed, *keys)))


def torch_generator(seed: int, *keys: str | int) -> torch.Generator:
    """Return a fresh torch generator on the CPU for what `keys` name, whatever device the tensors go to later."""
    import torch

    return torch.Generator(device="cpu").manual_seed(derive_seed(seed, *keys))
