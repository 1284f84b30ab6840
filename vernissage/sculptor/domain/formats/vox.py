"""Reads and writes MagicaVoxel models (.vox, version 150).

Specification: https://github.com/ephtracy/voxel-model/blob/master/MagicaVoxel-file-format-vox.txt and, for the scene,
`-vox-extension.txt` beside it. The format is little-endian with z up: our x, y (up), z become x, depth - 1 - z, y, a
rotation, so that nothing is mirrored. It knows colours, not blocks: what is read has states `unknown:rrggbb`.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np

from vernissage.core.errors import BadInput
from vernissage.sculptor.domain.colours import colour_of, unknown_state
from vernissage.sculptor.domain.sizes import Size
from vernissage.sculptor.domain.structure import AIR_STATE, Structure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vernissage.sculptor.domain.formats.limits import Limits

_MAGIC = b"VOX "
_VERSION = 150
_LONGEST = 256
_COLOURS = 255


def write(structure: Structure, *, title: str = "") -> bytes:
    """Return a structure as .vox: one palette colour a block state; the title names the object in the editor.

    Raises:
        BadInput: There is no block in it, a side is longer than 256, or more than 255 block states are used.
    """
    size, at = structure.size, np.argwhere(structure.solid)
    if not len(at):
        raise BadInput("a structure without a block: nothing to write as .vox")
    if max(size) > _LONGEST:
        raise BadInput(
            f"size {size}: a .vox model has at most {_LONGEST} voxels in each direction; crop or choose .schem"
        )
    used, colours = np.unique(structure.blocks[structure.solid], return_inverse=True)
    if len(used) > _COLOURS:
        raise BadInput(f"{len(used)} block states: a .vox palette has {_COLOURS} colours; choose .schem")
    y, z, x = at.T
    voxels = np.stack([x, size.depth - 1 - z, y, colours + 1], axis=1).astype(np.uint8)
    palette = np.zeros((256, 4), np.uint8)
    palette[: len(used)] = [(*colour_of(structure.palette[index]), 255) for index in used]
    children = (
        _chunk(b"SIZE", struct.pack("<3i", size.width, size.depth, size.height))
        + _chunk(b"XYZI", struct.pack("<i", len(voxels)) + voxels.tobytes())
        + (_scene(title, size) if title else b"")
        + _chunk(b"RGBA", palette.tobytes())
    )
    return _MAGIC + struct.pack("<i", _VERSION) + _chunk(b"MAIN", b"", children)


def read(data: bytes, limits: Limits) -> Structure:
    """Return the one model of a .vox file; voxels of one colour have one state, `unknown:rrggbb`.

    Raises:
        BadInput: It is no .vox file, ends too early, is beyond the limits, has not exactly one model, or a voxel lies
            outside of it or has colour 0.
    """
    if data[:4] != _MAGIC:
        raise BadInput(f"begins with {data[:4]!r}: expected {_MAGIC!r}, as every .vox file does")
    if len(data) < 20 or data[8:12] != b"MAIN":
        raise BadInput("a .vox file without its MAIN chunk: damaged or cut off")
    content, children = struct.unpack_from("<2i", data, 12)
    if content < 0 or children < 0 or content + children != len(data) - 20:
        raise BadInput(
            f"a MAIN chunk of {content + children:,} bytes, but {len(data) - 20:,} follow: damaged or cut off"
        )
    sizes, models, palette = [], [], None
    for name, body in _chunks(data, 20 + content):
        if name == b"SIZE":
            sizes.append(body)
        elif name == b"XYZI":
            models.append(body)
        elif name == b"RGBA":
            palette = body
    if len(models) != 1 or len(sizes) != 1:
        raise BadInput(f"{len(models)} models with {len(sizes)} sizes: expected one; merge them in the editor first")
    return _structure(_model_size(sizes[0], limits), _voxels(models[0]), _palette(palette))


def _structure(size: Size, voxels: np.ndarray, palette: np.ndarray) -> Structure:
    """Put (n, 4) voxels x, y, z, colour into a grid."""
    x, y, z, colour = voxels.T.astype(np.intp)
    outside = (x >= size.width) | (y >= size.depth) | (z >= size.height)
    if outside.any():
        raise BadInput(f"voxel {voxels[outside][0, :3].tolist()} lies outside of the model of {size} blocks")
    if (colour == 0).any():
        raise BadInput(f"voxel {voxels[colour == 0][0, :3].tolist()} has colour 0: expected 1 to {_COLOURS}")
    states = [unknown_state(tuple(palette[index - 1, :3].tolist())) for index in range(1, 256)]
    used = list(dict.fromkeys(states[index - 1] for index in np.unique(colour)))
    numbers = {state: number for number, state in enumerate(used, 1)}
    blocks = np.zeros(size.shape, np.uint16)
    lookup = np.array([0, *(numbers.get(state, 0) for state in states)], np.uint16)
    blocks[z, size.depth - 1 - y, x] = lookup[colour]
    return Structure(blocks, (AIR_STATE, *used))


def _model_size(body: bytes, limits: Limits) -> Size:
    if len(body) < 12:
        raise BadInput(f"a SIZE chunk of {len(body)} bytes: expected 12")
    width, depth, height = struct.unpack_from("<3i", body)
    return limits.check_size(Size(width, height, depth))


def _voxels(body: bytes) -> np.ndarray:
    """Return (n, 4) uint8 x, y, z, colour."""
    count = struct.unpack_from("<i", body)[0] if len(body) >= 4 else -1
    if count < 0 or 4 + 4 * count > len(body):
        raise BadInput(f"an XYZI chunk of {len(body):,} bytes for {count:,} voxels: damaged or cut off")
    return np.frombuffer(body, np.uint8, 4 * count, 4).reshape(count, 4)


def _palette(body: bytes | None) -> np.ndarray:
    """Return (256, 4) uint8; its first row is colour 1."""
    if body is None:
        return _default_palette()
    if len(body) < 1024:
        raise BadInput(f"an RGBA chunk of {len(body):,} bytes: expected 1,024")
    return np.frombuffer(body, np.uint8, 1024).reshape(256, 4)


def _default_palette() -> np.ndarray:
    """Return the palette of files without one: a cube of six levels without black, then ramps of primaries and grey."""
    levels = np.arange(255, -1, -51)
    cube = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)[:-1]
    ramp = np.array([level for level in range(0xEE, 0, -0x11) if level % 51])
    ramps = [ramp[:, None] * np.array(channels) for channels in ((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1))]
    palette = np.zeros((256, 4), np.uint8)
    palette[:255] = [(*colour, 255) for colour in np.concatenate([cube, *ramps]).tolist()]
    return palette


def _chunks(data: bytes, start: int) -> Iterator[tuple[bytes, bytes]]:
    """Go through the chunks inside of MAIN."""
    while start < len(data):
        if len(data) - start < 12:
            raise BadInput(f"ends in the middle of a chunk's header at byte {start:,}: expected 12 bytes")
        name, content, children = struct.unpack_from("<4s2i", data, start)
        start += 12
        if content < 0 or children < 0 or content + children > len(data) - start:
            raise BadInput(
                f"ends in the middle of chunk {name!r}: {content:,} + {children:,} bytes expected at byte {start:,}, "
                f"{len(data) - start:,} left"
            )
        yield name, data[start : start + content]
        start += content + children


def _chunk(name: bytes, content: bytes, children: bytes = b"") -> bytes:
    return name + struct.pack("<2i", len(content), len(children)) + content + children


def _scene(title: str, size: Size) -> bytes:
    """Return the least scene that names a model: a root, a group, the named placement and its shape."""
    nowhere, no_frame = -1, struct.pack("<3i", -1, -1, 1)
    placed = struct.pack("<3i", 3, nowhere, 0) + struct.pack("<i", 1)
    return (
        _chunk(b"nTRN", struct.pack("<i", 0) + _pairs({}) + struct.pack("<i", 1) + no_frame + _pairs({}))
        + _chunk(b"nGRP", struct.pack("<i", 1) + _pairs({}) + struct.pack("<2i", 1, 2))
        + _chunk(
            b"nTRN",
            # The editor puts a model's centre where its placement says: half its height lifts it onto the ground.
            struct.pack("<i", 2) + _pairs({"_name": title}) + placed + _pairs({"_t": f"0 0 {size.height // 2}"}),
        )
        + _chunk(b"nSHP", struct.pack("<i", 3) + _pairs({}) + struct.pack("<2i", 1, 0) + _pairs({}))
    )


def _pairs(values: dict[str, str]) -> bytes:
    """Return the format's dictionary of strings."""
    items = [text.encode("utf-8", "replace") for pair in values.items() for text in pair]
    return struct.pack("<i", len(values)) + b"".join(struct.pack("<i", len(item)) + item for item in items)
