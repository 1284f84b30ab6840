"""Structure templates (.nbt) of structure blocks and data packs.

Layout: https://minecraft.wiki/w/Structure_file. Entities and block entities are not kept. What a file does not mention
is a structure void, which pastes as nothing: here it is air, and air is not written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vernissage.core.errors import BadInput
from vernissage.sculptor.domain.block_states import canonical_state, parse_state
from vernissage.sculptor.domain.formats.file_palette import check_indices, structure_of
from vernissage.sculptor.domain.formats.nbt import field, read_nbt, write_nbt
from vernissage.sculptor.domain.formats.sponge import DATA_VERSION
from vernissage.sculptor.domain.sizes import Size
from vernissage.sculptor.domain.structure import AIR_STATE

if TYPE_CHECKING:
    from vernissage.sculptor.domain.formats.limits import Limits
    from vernissage.sculptor.domain.structure import Structure


def read(data: bytes, limits: Limits) -> Structure:
    """Read a structure template; of several palettes (variants of one structure) the first.

    Raises:
        BadInput: It is none, or what it says does not fit together or into the limits.
    """
    import nbtlib

    root = read_nbt(data, limits)
    width, height, depth = _three(field(root, "size", nbtlib.List), "size")
    size = limits.check_size(Size(width, height, depth))
    states = [_state(entry) for entry in _palette(root, limits)]
    blocks = field(root, "blocks", nbtlib.List)
    grid = np.zeros(size.shape, np.int64)
    if blocks:
        x, y, z = np.array([_three(field(block, "pos", nbtlib.List), "pos") for block in blocks], np.int64).T
        outside = (x < 0) | (y < 0) | (z < 0) | (x >= width) | (y >= height) | (z >= depth)
        if outside.any():
            first = int(outside.argmax())
            raise BadInput(f"a block at {x[first]}, {y[first]}, {z[first]}: expected a place within the size {size}")
        numbers = np.array([int(field(block, "state", nbtlib.Int)) for block in blocks], np.int64)
        check_indices(numbers, len(states))
        grid[y, z, x] = numbers + 1
    return structure_of(grid, [AIR_STATE, *states])


def write(structure: Structure, *, title: str) -> bytes:
    """Return a structure template of what is not air; the format has no place for a title but its author."""
    import nbtlib

    def integers(values: tuple[int, ...]) -> Any:
        return nbtlib.List[nbtlib.Int](values)

    places = np.argwhere(structure.solid)
    numbers = structure.blocks[tuple(places.T)]
    blocks = [
        nbtlib.Compound({"state": nbtlib.Int(number), "pos": integers((x, y, z))})
        for (y, z, x), number in zip(places.tolist(), numbers.tolist(), strict=True)
    ]
    body = {
        "DataVersion": nbtlib.Int(DATA_VERSION),
        "size": integers(structure.size),
        "palette": nbtlib.List[nbtlib.Compound]([_entry(state) for state in structure.palette]),
        "blocks": nbtlib.List[nbtlib.Compound](blocks),
        "entities": nbtlib.List[nbtlib.Compound]([]),
    }
    return write_nbt(nbtlib.Compound(body | ({"author": nbtlib.String(title)} if title else {})))


def _palette(root: Any, limits: Limits) -> Any:
    import nbtlib

    if "palette" in root:
        palette = field(root, "palette", nbtlib.List)
    else:
        palettes = field(root, "palettes", nbtlib.List)
        if not palettes or not isinstance(palettes[0], nbtlib.List):
            raise BadInput("palettes holds no palette: expected at least one list of block states")
        palette = palettes[0]
    limits.check_palette(len(palette))
    return palette


def _state(entry: Any) -> str:
    import nbtlib

    if not isinstance(entry, nbtlib.Compound):
        raise BadInput(f"a palette entry of type {type(entry).__name__}: expected Compound")
    properties = field(entry, "Properties", nbtlib.Compound) if "Properties" in entry else {}
    return canonical_state(
        str(field(entry, "Name", nbtlib.String)), {str(key): str(properties[key]) for key in properties}
    )


def _entry(state: str) -> Any:
    import nbtlib

    name, properties = parse_state(state)
    entry = {"Name": nbtlib.String(name)}
    if properties:
        entry["Properties"] = nbtlib.Compound({key: nbtlib.String(value) for key, value in properties.items()})
    return nbtlib.Compound(entry)


def _three(values: Any, name: str) -> tuple[int, int, int]:
    if len(values) != 3 or not all(isinstance(value, int) for value in values):
        raise BadInput(f"{name} is a list of {len(values):,} values: expected three whole numbers x, y, z")
    x, y, z = map(int, values)
    return x, y, z
