"""Litematica schematics (.litematic): all regions are read and joined, version 6 is written.

Layout as in the mod's source (https://github.com/maruohon/litematica, `LitematicaSchematic` and `LitematicaBitArray`):
block (x, y, z) of a region is entry (y * length + z) * width + x of one array of bits, entries follow each other
without padding from the lowest bit of each 64-bit word up and may lie across two words. Entities, block entities and
pending ticks are not kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vernissage.core.errors import BadInput
from vernissage.sculptor.domain.block_states import AIR_NAMES, block_name, canonical_state, parse_state
from vernissage.sculptor.domain.formats.file_palette import structure_of
from vernissage.sculptor.domain.formats.nbt import field, read_nbt, write_nbt
from vernissage.sculptor.domain.formats.sponge import DATA_VERSION
from vernissage.sculptor.domain.sizes import Size
from vernissage.sculptor.domain.structure import AIR_STATE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vernissage.sculptor.domain.formats.limits import Limits
    from vernissage.sculptor.domain.structure import Structure

_VERSION, _SUB_VERSION = 6, 1
_AUTHOR = "vernissage"
_MOST_REGIONS = 4096
_AXES = ("x", "y", "z")


class _Region(NamedTuple):
    """A box of blocks: the place x, y, z of its lowest corner, and its (Y, Z, X) indices into its palette."""

    corner: tuple[int, int, int]
    indices: np.ndarray
    states: list[str]

    @property
    def size(self) -> Size:
        height, depth, width = self.indices.shape
        return Size(width, height, depth)


def read(data: bytes, limits: Limits) -> Structure:
    """Read all regions into the box around them; where two overlap, the later one's blocks count.

    Raises:
        BadInput: It is no such file, a region's size, palette and array do not fit together, or limits are exceeded.
    """
    import nbtlib

    regions_by_name = field(read_nbt(data, limits), "Regions", nbtlib.Compound)
    if not regions_by_name:
        raise BadInput("a litematic without a region: expected at least one")
    if len(regions_by_name) > _MOST_REGIONS:
        raise BadInput(f"{len(regions_by_name):,} regions: at most {_MOST_REGIONS:,} pass")
    regions: list[_Region] = []
    volume = entries = 0
    for name in regions_by_name:
        try:
            region = _region(field(regions_by_name, name, nbtlib.Compound), limits)
        except BadInput as error:
            raise BadInput(f"region {str(name)[:40]!r}: {error}") from error
        regions.append(region)
        volume += region.indices.size
        entries = limits.check_palette(entries + len(region.states))
        # Also the sum: regions that lie in one place cost time each, but no volume.
        if volume > limits.max_voxels:
            raise BadInput(f"regions of together {volume:,} voxels: at most {limits.max_voxels:,} pass")
    return _joined(regions, limits)


def write(structure: Structure, *, title: str, description: str = "", time_ms: int = 0) -> bytes:
    """Return a schematic with one region.

    Args:
        structure: What to write.
        title: Name that the mod shows.
        description: Text that the mod shows.
        time_ms: When it was made, in milliseconds since 1970; fixed by default: equal structures make equal files.
    """
    import nbtlib

    size, palette = structure.size, structure.palette
    extent = _vector(nbtlib, size)
    metadata = {
        "Name": nbtlib.String(title),
        "Author": nbtlib.String(_AUTHOR),
        "Description": nbtlib.String(description),
        "EnclosingSize": extent,
        "RegionCount": nbtlib.Int(1),
        "TotalBlocks": nbtlib.Int(np.count_nonzero(structure.blocks)),
        "TotalVolume": nbtlib.Int(structure.blocks.size),
        "TimeCreated": nbtlib.Long(time_ms),
        "TimeModified": nbtlib.Long(time_ms),
    }
    words = pack_entries(structure.blocks.ravel(), entry_bits(len(palette)))
    nothing = nbtlib.List[nbtlib.Compound]([])
    region = {
        "Position": _vector(nbtlib, (0, 0, 0)),
        "Size": extent,
        "BlockStatePalette": nbtlib.List[nbtlib.Compound]([_entry(nbtlib, state) for state in palette]),
        "BlockStates": nbtlib.LongArray(words),
        "Entities": nothing,
        "TileEntities": nothing,
        "PendingBlockTicks": nothing,
        "PendingFluidTicks": nothing,
    }
    root = {
        "MinecraftDataVersion": nbtlib.Int(DATA_VERSION),
        "Version": nbtlib.Int(_VERSION),
        "SubVersion": nbtlib.Int(_SUB_VERSION),
        "Metadata": nbtlib.Compound(metadata),
        "Regions": nbtlib.Compound({title or "structure": nbtlib.Compound(region)}),
    }
    return write_nbt(nbtlib.Compound(root))


def entry_bits(states: int) -> int:
    """Return how many bits an index into a palette of that many states has: two at least."""
    return max(2, (states - 1).bit_length())


def pack_entries(entries: np.ndarray, bits: int) -> np.ndarray:
    """Return (n,) uint16 entries of 1 to 16 bits as int64 words, entry after entry from the lowest bit up."""
    octets = entries.astype("<u2").view(np.uint8).reshape(-1, 2)
    stream = np.unpackbits(octets, axis=1, bitorder="little", count=bits)
    packed = np.packbits(stream, bitorder="little")
    return np.pad(packed, (0, -len(packed) % 8)).view("<i8").astype(np.int64)


def unpack_entries(words: np.ndarray, bits: int, count: int) -> np.ndarray:
    """Return the first `count` entries of `bits` bits as (count,) uint16: the inverse of `pack_entries`.

    Raises:
        BadInput: There are fewer words than that takes.
    """
    expected = -(-count * bits // 64)
    if len(words) < expected:
        raise BadInput(
            f"{len(words):,} words for {count:,} blocks of {bits} bits: expected {expected:,}; it is cut off"
        )
    octets = np.asarray(words)[:expected].astype("<i8").view(np.uint8)
    stream = np.unpackbits(octets, bitorder="little", count=count * bits)
    packed = np.packbits(stream.reshape(count, bits), axis=1, bitorder="little")
    return np.pad(packed, ((0, 0), (0, 2 - packed.shape[1]))).view("<u2")[:, 0].astype(np.uint16)


def _region(compound: Any, limits: Limits) -> _Region:
    import nbtlib

    extent = _read_vector(field(compound, "Size", nbtlib.Compound))
    position = _read_vector(field(compound, "Position", nbtlib.Compound))
    width, height, depth = map(abs, extent)
    size = limits.check_size(Size(width, height, depth))
    # A negative side grows from the position downwards, the block at the position included.
    x, y, z = (start + min(side + 1, 0) for start, side in zip(position, extent, strict=True))
    palette = field(compound, "BlockStatePalette", nbtlib.List)
    entries = limits.check_palette(len(palette))
    words = np.asarray(field(compound, "BlockStates", nbtlib.LongArray))
    indices = unpack_entries(words, entry_bits(entries), width * height * depth)
    if int(indices.max()) >= entries:
        raise BadInput(f"block index {int(indices.max())}, but the palette has {entries} entries: expected less")
    return _Region((x, y, z), indices.reshape(size.shape), [_state(entry) for entry in palette])


def _joined(regions: Sequence[_Region], limits: Limits) -> Structure:
    """Put regions into one grid: only what is no air covers what was there."""
    corners = [region.corner for region in regions]
    ends = [tuple(map(sum, zip(region.corner, region.size, strict=True))) for region in regions]
    low, high = [min(axis) for axis in zip(*corners, strict=True)], [max(axis) for axis in zip(*ends, strict=True)]
    size = limits.check_size(Size(*(end - start for start, end in zip(low, high, strict=True))))
    grid, states = np.zeros(size.shape, np.int64), [AIR_STATE]
    for region in regions:
        x, y, z = (at - start for at, start in zip(region.corner, low, strict=True))
        width, height, depth = region.size
        part = grid[y : y + height, z : z + depth, x : x + width]
        solid = np.array([block_name(state) not in AIR_NAMES for state in region.states])[region.indices]
        part[solid] = region.indices[solid].astype(np.int64) + len(states)
        states += region.states
    return structure_of(grid, states)


def _state(entry: Any) -> str:
    import nbtlib

    if not isinstance(entry, nbtlib.Compound):
        raise BadInput(f"a palette entry of type {type(entry).__name__}: expected a compound with a Name")
    name = str(field(entry, "Name", nbtlib.String))
    properties = field(entry, "Properties", nbtlib.Compound) if "Properties" in entry else {}
    return canonical_state(name, {str(key): str(field(properties, key, nbtlib.String)) for key in properties})


def _entry(nbtlib: Any, state: str) -> Any:
    name, properties = parse_state(state)
    entry = {"Name": nbtlib.String(name)}
    if properties:
        entry["Properties"] = nbtlib.Compound({key: nbtlib.String(value) for key, value in properties.items()})
    return nbtlib.Compound(entry)


def _vector(nbtlib: Any, values: Sequence[int]) -> Any:
    return nbtlib.Compound({axis: nbtlib.Int(value) for axis, value in zip(_AXES, values, strict=True)})


def _read_vector(compound: Any) -> tuple[int, int, int]:
    import nbtlib

    x, y, z = (int(field(compound, axis, nbtlib.Int)) for axis in _AXES)
    return x, y, z
