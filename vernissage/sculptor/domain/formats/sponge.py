"""Sponge schematics (.schem), the format of WorldEdit: versions 1 to 3 are read, version 2 is written.

Layout: https://github.com/SpongePowered/Schematic-Specification. Entities, block entities (the contents of chests, the
text of signs) and biomes are not kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vernissage.core.errors import BadInput
from vernissage.sculptor.domain.formats.file_palette import structure_of
from vernissage.sculptor.domain.formats.nbt import field, read_nbt, write_nbt
from vernissage.sculptor.domain.formats.varint import decode_varints, encode_varints
from vernissage.sculptor.domain.sizes import Size

if TYPE_CHECKING:
    from vernissage.sculptor.domain.formats.limits import Limits
    from vernissage.sculptor.domain.structure import Structure

DATA_VERSION = 3955  # Java Edition 1.21.1
_VERSIONS = (1, 2, 3)
_LONGEST_SIDE = 2**16 - 1


def read(data: bytes, limits: Limits) -> Structure:
    """Read a schematic of version 1, 2 or 3.

    Raises:
        BadInput: It is none, or what it says does not fit together or into the limits.
    """
    import nbtlib

    root = read_nbt(data, limits)
    body = field(root, "Schematic", nbtlib.Compound) if "Schematic" in root else root
    version = int(field(body, "Version", nbtlib.Int))
    if version not in _VERSIONS:
        raise BadInput(f"a Sponge schematic of version {version}: expected {', '.join(map(str, _VERSIONS))}")
    size = limits.check_size(read_size(body))
    container, key = (field(body, "Blocks", nbtlib.Compound), "Data") if version == 3 else (body, "BlockData")
    states = _states(field(container, "Palette", nbtlib.Compound), limits)
    packed = np.asarray(field(container, key, nbtlib.ByteArray)).view(np.uint8)
    indices = decode_varints(packed, size.width * size.height * size.depth)
    return structure_of(indices.reshape(size.shape), states)


def write(structure: Structure, *, title: str) -> bytes:
    """Return a schematic of version 2 that pastes with its lowest layer's centre at the player.

    Raises:
        BadInput: A side is longer than 65,535.
    """
    import nbtlib

    size = structure.size
    if max(size) > _LONGEST_SIDE:
        raise BadInput(f"size {size}: a Sponge schematic holds at most {_LONGEST_SIDE:,} in each direction")
    offset = (-(size.width // 2), 0, -(size.depth // 2))
    sides = {"Width": size.width, "Height": size.height, "Length": size.depth}
    # WorldEdit takes the place of pasting from its own fields in the metadata, other programs from Offset.
    moves = dict(zip(("WEOffsetX", "WEOffsetY", "WEOffsetZ"), map(nbtlib.Int, offset), strict=True))
    body = {
        "Version": nbtlib.Int(2),
        "DataVersion": nbtlib.Int(DATA_VERSION),
        "Metadata": nbtlib.Compound({"Name": nbtlib.String(title), **moves}),
        **{name: nbtlib.Short.from_unsigned(side) for name, side in sides.items()},
        "Offset": nbtlib.IntArray(offset),
        "PaletteMax": nbtlib.Int(len(structure.palette)),
        "Palette": nbtlib.Compound({state: nbtlib.Int(index) for index, state in enumerate(structure.palette)}),
        "BlockData": nbtlib.ByteArray(encode_varints(structure.blocks).view(np.int8)),
        "BlockEntities": nbtlib.List[nbtlib.Compound]([]),
    }
    return write_nbt(nbtlib.Compound(body), root_name="Schematic")


def read_size(body: Any) -> Size:
    """Return Width, Height and Length of a schematic; its shorts are unsigned.

    Raises:
        BadInput: One is missing, or no whole number.
    """
    import nbtlib

    sides = {}
    for name in ("Width", "Height", "Length"):
        value = field(body, name, nbtlib.tag.NumericInteger)
        sides[name] = int(value.as_unsigned if isinstance(value, nbtlib.Short) else value)
    return Size(sides["Width"], sides["Height"], sides["Length"])


def _states(palette: Any, limits: Limits) -> list[str | None]:
    """Return the palette by number; None where no state has the number."""
    import nbtlib

    numbers = [int(field(palette, name, nbtlib.tag.NumericInteger)) for name in palette]
    entries = limits.check_palette(max(numbers, default=-1) + 1)
    if min(numbers, default=0) < 0 or len(set(numbers)) != len(numbers):
        raise BadInput("a palette that numbers a block state negatively or two alike: expected 0, 1, 2, ...")
    states: list[str | None] = [None] * entries
    for name, number in zip(palette, numbers, strict=True):
        states[number] = str(name)
    return states
