"""Schematics of MCEdit and of WorldEdit before Minecraft 1.13 (.schematic), with block numbers instead of names.

Layout: https://minecraft.wiki/w/Schematic_file_format. Read only. Entities and block entities are not kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vernissage.core.errors import BadInput
from vernissage.sculptor.domain.formats.file_palette import structure_of
from vernissage.sculptor.domain.formats.legacy_ids import legacy_state
from vernissage.sculptor.domain.formats.nbt import field, read_nbt
from vernissage.sculptor.domain.formats.sponge import read_size

if TYPE_CHECKING:
    from vernissage.sculptor.domain.formats.limits import Limits
    from vernissage.sculptor.domain.structure import Structure

_MATERIALS = "Alpha"


def read(data: bytes, limits: Limits) -> Structure:
    """Read a schematic with block numbers; those that are not in the table become `unknown:ID_DATA`.

    Raises:
        BadInput: It is none, its numbers are not those of Java Edition, or it does not fit together or into the limits.
    """
    import nbtlib

    root = read_nbt(data, limits)
    body = field(root, "Schematic", nbtlib.Compound) if "Schematic" in root else root
    materials = str(body.get("Materials", _MATERIALS))
    if materials != _MATERIALS:
        raise BadInput(f"Materials {materials[:20]!r}: expected {_MATERIALS!r}, the block numbers of Java Edition")
    size = limits.check_size(read_size(body))
    volume = size.width * size.height * size.depth
    numbers = _bytes(body, "Blocks", volume)
    if "AddBlocks" in body:
        numbers = numbers + (_high_bits(_bytes(body, "AddBlocks", (volume + 1) // 2))[:volume] << 8)
    codes = numbers * 16 + (_bytes(body, "Data", volume) & 0x0F)
    found, indices = np.unique(codes, return_inverse=True)
    states = [legacy_state(code >> 4, code & 0x0F) for code in found.tolist()]
    return structure_of(indices.reshape(size.shape), states)


def _bytes(body: Any, name: str, length: int) -> np.ndarray:
    """Return a byte array of a schematic as (length,) int64 of 0 to 255."""
    import nbtlib

    values = np.asarray(field(body, name, nbtlib.ByteArray)).view(np.uint8)
    if len(values) != length:
        raise BadInput(f"{name} of {len(values):,} bytes: expected {length:,}, by the size")
    return values.astype(np.int64)


def _high_bits(packed: np.ndarray) -> np.ndarray:
    """Return two values of four bits for each byte, the low one first."""
    return np.stack([packed & 0x0F, packed >> 4], 1).ravel()
