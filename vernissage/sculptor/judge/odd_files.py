"""Structure files that nobody should trust: every kind of right, and every kind of wrong that a folder may hold."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING, Any

import numpy as np

from vernissage.sculptor.domain.formats import litematic
from vernissage.sculptor.domain.formats.limits import Limits
from vernissage.sculptor.domain.formats.nbt import read_nbt, write_nbt
from vernissage.sculptor.domain.structure import AIR_STATE, Structure

if TYPE_CHECKING:
    from pathlib import Path

LOG, LEAVES, OF_A_MOD, OF_NO_TABLE = "minecraft:oak_log[axis=y]", "minecraft:oak_leaves", "mod-x:odd_thing", "unknown:"
#: Limits under which the files of :func:`write_wrong` are too much.
TIGHT = Limits(max_bytes=4 * 2**20)

_BOMB_SIDES = (1000, 100, 1000)
_DEEP = 500
_COMPOUND, _LIST, _INT, _NO_TAG = 10, 9, 3, 77


def small_tree() -> Structure:
    """A trunk of three logs with five leaves around its top."""
    blocks = np.zeros((4, 3, 3), np.uint16)
    blocks[:3, 1, 1] = 1
    blocks[2, [0, 1, 1, 2], [1, 0, 2, 1]] = 2
    blocks[3, 1, 1] = 2
    return Structure(blocks, (AIR_STATE, LOG, LEAVES))


def write_right(folder: Path) -> dict[str, Structure]:
    """Write what is unusual, but as the formats allow it.

    Returns:
        File names, and what each must be read as.
    """
    tree = small_tree()
    strange = Structure(tree.blocks, (AIR_STATE, LOG, OF_A_MOD))
    files = {f"sponge-{version}.schem": (_sponge(tree, version), tree) for version in (1, 2, 3)}
    files["reversed.schem"] = _sponge(tree, 2, backwards=True), tree
    files["negative.litematic"] = _negative_litematic(tree), tree
    files["mod.schem"] = _sponge(strange, 2), strange
    numbers = Structure(tree.blocks, (AIR_STATE, LOG, f"{OF_NO_TABLE}253_0"))
    files["numbers.schematic"] = _legacy(tree, {1: (17, 0), 2: (253, 0)}), numbers
    for name, (data, _) in files.items():
        (folder / name).write_bytes(data)
    return {name: structure for name, (_, structure) in files.items()}


def write_wrong(folder: Path, marker: Path) -> dict[str, str]:
    """Write what must be skipped.

    Args:
        folder: Where.
        marker: A file that comes to be if a pickle among them is loaded.

    Returns:
        File names, and a word of the reason that each must be skipped with.
    """
    import nbtlib

    tree = small_tree()
    whole, sides = _sponge(tree, 2), {"Width": nbtlib.Short(0)}
    bomb = dict(zip(("Width", "Height", "Length"), map(nbtlib.Short, _BOMB_SIDES), strict=True))
    outside = nbtlib.ByteArray([*([0] * (tree.blocks.size - 1)), 9])
    files = {
        "cut.schem": (whole[: len(whole) // 2], "middle"),
        "empty.schem": (b"", "empty"),
        "text.schem": (b"not a structure at all", "expected NBT"),
        "pickle.schem": (pickle_that_touches(marker), "expected NBT"),
        "zero.schem": (_sponge(tree, 2, **sides), "at least one block"),
        "bomb.schem": (_sponge(tree, 2, **bomb), "voxels"),
        "index.schem": (_sponge(tree, 2, BlockData=outside), "palette"),
        "short.schem": (_sponge(tree, 2, BlockData=nbtlib.ByteArray([0, 1])), "2"),
        "version.schem": (_sponge(tree, 2, Version=nbtlib.Int(9)), "version 9"),
        "unpacked.nbt": (gzip.compress(bytes(2 * TIGHT.max_bytes), mtime=0), "when unpacked"),
        "tag.nbt": (bytes([_COMPOUND, 0, 0, _NO_TAG, 0, 1]) + b"x", "unknown NBT tag 77"),
        "order.nbt": (bytes([_INT, 0, 0, 0, 0, 0, 1]), "begins with tag 3"),
        "deep.nbt": (bytes([_COMPOUND, 0, 0]) + bytes([_COMPOUND, 0, 1, 97]) * _DEEP, "nested deeper"),
        "endless.nbt": (bytes([_COMPOUND, 0, 0, _LIST, 0, 1, 97, _INT, 127, 255, 255, 255]), "ends in the middle"),
        "palette.litematic": (_litematic_with(tree, BlockStates=nbtlib.LongArray([-1] * 16)), "block index 3"),
        "zero.litematic": (_litematic_with(tree, Size=_vector(0, 4, 3)), "at least one block"),
        "air.schem": (_sponge(Structure(np.zeros((2, 2, 2), np.uint16), (AIR_STATE,)), 2), "only air"),
        "high.schem": (_sponge(Structure(np.ones((70, 1, 1), np.uint16), (AIR_STATE, LOG)), 2), "at most"),
        "numbers.schematic": (_legacy(tree, {1: (17, 0), 2: (18, 0)}, materials="Pocket"), "Materials"),
    }
    for name, (data, _) in files.items():
        (folder / name).write_bytes(data)
    return {name: reason for name, (_, reason) in files.items()}


def pickle_that_touches(marker: Path) -> bytes:
    """A pickle that makes a file when somebody loads it; protocol 0, in which it can be written as text."""
    return f"cbuiltins\nopen\n(V{marker}\nVw\ntR.".encode()


def _sponge(structure: Structure, version: int, *, backwards: bool = False, **changes: Any) -> bytes:
    import nbtlib

    height, depth, width = structure.blocks.shape
    palette = nbtlib.Compound({state: nbtlib.Int(number) for number, state in enumerate(structure.palette)})
    data = nbtlib.ByteArray(structure.blocks.ravel().astype(np.int8))
    fields: dict[str, Any] = {
        "Version": nbtlib.Int(version),
        "Width": nbtlib.Short(width),
        "Height": nbtlib.Short(height),
        "Length": nbtlib.Short(depth),
    }
    fields |= (
        {"Blocks": nbtlib.Compound({"Palette": palette, "Data": data})}
        if version == 3
        else {"Palette": palette, "BlockData": data}
    )
    fields |= changes
    ordered = dict(reversed(fields.items())) if backwards else fields
    if version == 3:
        return write_nbt(nbtlib.Compound({"Schematic": nbtlib.Compound(ordered)}))
    return write_nbt(nbtlib.Compound(ordered), root_name="Schematic")


def _legacy(structure: Structure, numbers: dict[int, tuple[int, int]], *, materials: str = "Alpha") -> bytes:
    import nbtlib

    height, depth, width = structure.blocks.shape
    table = np.zeros((len(structure.palette), 2), np.uint8)
    for index, pair in numbers.items():
        table[index] = pair
    blocks, data = table[structure.blocks.ravel()].T.copy().view(np.int8)
    fields = {
        "Width": nbtlib.Short(width),
        "Height": nbtlib.Short(height),
        "Length": nbtlib.Short(depth),
        "Materials": nbtlib.String(materials),
        "Blocks": nbtlib.ByteArray(blocks),
        "Data": nbtlib.ByteArray(data),
    }
    return write_nbt(nbtlib.Compound(fields), root_name="Schematic")


def _negative_litematic(structure: Structure) -> bytes:
    """A region that begins at its far corner: its width and depth are negative."""
    height, depth, width = structure.blocks.shape
    return _litematic_with(structure, Size=_vector(-width, height, -depth), Position=_vector(width - 1, 0, depth - 1))


def _litematic_with(structure: Structure, **changes: Any) -> bytes:
    root = read_nbt(litematic.write(structure, title="tree"), Limits())
    root["Regions"]["tree"].update(changes)
    return write_nbt(root)


def _vector(*values: int) -> Any:
    import nbtlib

    return nbtlib.Compound({axis: nbtlib.Int(value) for axis, value in zip("xyz", values, strict=True)})
