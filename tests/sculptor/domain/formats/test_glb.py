from __future__ import annotations

import io
import json
import struct
import time
from typing import Any

import numpy as np
import pytest
import trimesh

from vernissage.core.errors import BadInput
from vernissage.sculptor.domain.colours import colour_of
from vernissage.sculptor.domain.formats import glb
from vernissage.sculptor.domain.structure import AIR_STATE, Structure

PALETTE = (AIR_STATE, "minecraft:dark_oak_log[axis=y]", "minecraft:oak_leaves[persistent=true]", "some_mod:gizmo")


def small_tree() -> Structure:
    blocks = np.zeros((7, 5, 4), np.uint16)
    blocks[:5, 2, 1] = 1
    blocks[3:6, 1:4, 0:3] = np.where(blocks[3:6, 1:4, 0:3], 1, 2)
    blocks[6, 4, 3] = 3
    return Structure(blocks, PALETTE)


def load(data: bytes) -> trimesh.Scene:
    return trimesh.load_scene(io.BytesIO(data), file_type="glb")


def tree_of(data: bytes) -> dict[str, Any]:
    """The JSON of a .glb, by its header."""
    magic, version, length, json_length, kind = struct.unpack_from("<4s2I I4s", data)
    assert (magic, version, length, kind) == (b"glTF", 2, len(data), b"JSON")
    return dict(json.loads(data[20 : 20 + json_length]))


def count_faces(solid: np.ndarray) -> int:
    """Exposed block faces, by looking at each voxel's six neighbours."""
    filled = set(map(tuple, np.argwhere(solid).tolist()))
    steps = ((1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1))
    return sum((y + a, z + b, x + c) not in filled for y, z, x in filled for a, b, c in steps)


def test_loads_back_with_as_many_faces_as_counting_finds() -> None:
    structure = small_tree()
    (mesh,) = load(glb.write(structure, title="oak")).geometry.values()
    assert len(mesh.faces) == 2 * count_faces(structure.solid)
    mesh.merge_vertices(merge_norm=True, merge_tex=True)
    assert abs(mesh.volume) == pytest.approx(structure.solid.sum())
    assert mesh.volume > 0  # the triangles look outward


def test_stands_on_the_ground_with_its_footprint_around_the_origin() -> None:
    blocks = np.ones((6, 3, 4), np.uint16)
    low, high = load(glb.write(Structure(blocks, PALETTE))).bounds
    assert low.tolist() == [-2, 0, -1.5]
    assert high.tolist() == [2, 6, 1.5]


def test_vertices_have_the_colours_of_the_blocks_in_linear_light() -> None:
    structure = small_tree()
    (mesh,) = load(glb.write(structure)).geometry.values()
    found = set(map(tuple, np.unique(mesh.visual.vertex_attributes["color"], axis=0).tolist()))

    def linear(channel: int) -> int:
        share = channel / 255
        return round(255 * (share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4))

    expected = {(*(linear(channel) for channel in colour_of(state)), 255) for state in PALETTE[1:]}
    assert found == expected


@pytest.mark.parametrize(("encoded", "light"), [(0, 0), (10, 1), (128, 55), (188, 128), (255, 255)])
def test_linear_light_has_the_known_values(encoded: int, light: int) -> None:
    assert glb.linear_bytes(np.array([encoded] * 3, np.uint8)).tolist() == [light] * 3


@pytest.mark.parametrize("title", ["tall oak", "ein Bäumchen 🌳", 'a "quoted" </script>\n name', "x" * 3000])
def test_title_survives(title: str) -> None:
    data = glb.write(small_tree(), title=title)
    scene = load(data)
    assert scene.metadata["title"] == title
    tree = tree_of(data)
    assert tree["scenes"][0]["name"] == title
    assert tree["meshes"][0]["name"] == title


def test_material_is_matt() -> None:
    tree = tree_of(glb.write(small_tree()))
    (primitive,) = tree["meshes"][0]["primitives"]
    assert tree["materials"][primitive["material"]]["pbrMetallicRoughness"]["metallicFactor"] == 0


def test_equal_structures_make_equal_files() -> None:
    assert glb.write(small_tree(), title="oak") == glb.write(small_tree(), title="oak")


def test_nothing_is_not_written() -> None:
    with pytest.raises(BadInput, match="nothing to write"):
        glb.write(Structure(np.zeros((2, 2, 2), np.uint16), (AIR_STATE,)))


def test_a_huge_tree_takes_less_than_a_moment() -> None:
    noise = np.random.default_rng(0).random((64, 24, 24)) < 0.1
    glb.write(small_tree())  # what is imported at the first call is not counted
    started = time.perf_counter()
    glb.write(Structure(noise.astype(np.uint16), PALETTE))
    assert time.perf_counter() - started < 1
