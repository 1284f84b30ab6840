"""Structures that the tests of several formats share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vernissage.sculptor.domain.structure import AIR_STATE, Structure

SHARED = Path(__file__).parents[5] / "shared" / "data"


def shared_files(folder: str, suffix: str) -> list[Path]:
    """Return the real files of a folder beside the project; the test skips where it is not."""
    files = sorted((SHARED / folder).rglob(f"*{suffix}"))
    if not files:
        pytest.skip(f"no shared data: {folder}/**/*{suffix} beside the project")
    return files


def random_structure(shape: tuple[int, int, int] = (5, 3, 4), states: int = 6, seed: int = 7) -> Structure:
    """Return a structure of noise in which every state occurs, among them some with properties and of a mod."""
    named = ["minecraft:oak_log[axis=y]", "minecraft:oak_leaves[distance=1,persistent=true]", "mod-x:odd/thing_2"]
    palette = (AIR_STATE, *named, *(f"minecraft:block_{number}" for number in range(states - 4)))[:states]
    numbers = np.random.default_rng(seed).integers(0, states, shape)
    numbers.flat[:states] = np.arange(states)
    return Structure(numbers.astype(np.uint16), palette)
