from __future__ import annotations

import time
from collections import Counter

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from vernissage.sculptor.domain.colours import colour_of
from vernissage.sculptor.domain.mesh import Mesh, exposed_faces
from vernissage.sculptor.domain.structure import AIR_STATE, Structure

PALETTE = (AIR_STATE, "minecraft:oak_log[axis=y]", "minecraft:oak_leaves", "minecraft:snow_block")

grids = array_shapes(min_dims=3, max_dims=3, max_side=5).flatmap(
    lambda shape: arrays(np.uint16, shape, elements=st.integers(0, len(PALETTE) - 1))
)


def brute_force_quads(blocks: np.ndarray) -> Counter[tuple[tuple[int, int, int], tuple[int, int, int]]]:
    """Twice the centre of each exposed face and its outward normal, both x, y, z, by looking at each voxel."""
    filled = {(x, y, z) for y, z, x in np.argwhere(blocks).tolist()}
    quads: Counter[tuple[tuple[int, int, int], tuple[int, int, int]]] = Counter()
    for x, y, z in filled:
        for step in ((1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)):
            dx, dy, dz = step
            if (x + dx, y + dy, z + dz) not in filled:
                quads[(2 * x + 1 + dx, 2 * y + 1 + dy, 2 * z + 1 + dz), step] += 1
    return quads


def quads_of(mesh: Mesh) -> Counter[tuple[tuple[int, int, int], tuple[int, int, int]]]:
    found: Counter[tuple[tuple[int, int, int], tuple[int, int, int]]] = Counter()
    for first, second in mesh.faces.reshape(-1, 2, 3):
        corners = mesh.vertices[np.union1d(first, second)]
        assert len(corners) == 4
        normals = []
        for triangle in (first, second):
            a, b, c = mesh.vertices[triangle]
            normals.append(tuple(np.cross(b - a, c - a).astype(int).tolist()))
        assert normals[0] == normals[1]
        found[tuple((corners.sum(0) / 2).astype(int).tolist()), normals[0]] += 1
    return found


@settings(max_examples=60, deadline=None)
@given(grids)
def test_faces_are_those_that_counting_by_hand_finds_and_look_outward(blocks: np.ndarray) -> None:
    assert quads_of(exposed_faces(Structure(blocks, PALETTE))) == brute_force_quads(blocks)


@settings(max_examples=60, deadline=None)
@given(grids)
def test_surface_is_closed_and_holds_the_volume_of_the_blocks(blocks: np.ndarray) -> None:
    mesh = exposed_faces(Structure(blocks, PALETTE))
    merged = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    merged.merge_vertices()
    if len(merged.faces):
        edges = Counter(map(tuple, np.sort(merged.edges, axis=1).tolist()))
        assert all(count % 2 == 0 for count in edges.values())
        assert merged.volume == pytest.approx(np.count_nonzero(blocks))
    else:
        assert not blocks.any()


def test_a_single_block_is_a_watertight_cube_at_its_place() -> None:
    blocks = np.zeros((4, 5, 6), np.uint16)
    blocks[1, 2, 3] = 1
    mesh = exposed_faces(Structure(blocks, PALETTE))
    assert mesh.vertices.shape == (24, 3)
    assert mesh.faces.shape == (12, 3)
    assert mesh.vertices.dtype == np.float32
    assert mesh.colours.dtype == np.uint8
    assert mesh.vertices.min(0).tolist() == [3, 1, 2]
    assert mesh.vertices.max(0).tolist() == [4, 2, 3]
    cube = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    cube.merge_vertices()
    assert cube.is_watertight
    assert cube.is_winding_consistent


def test_each_quad_has_the_colour_of_its_block() -> None:
    blocks = np.array([[[1, 2]], [[3, 0]]], np.uint16)
    mesh = exposed_faces(Structure(blocks, PALETTE))
    areas = Counter(map(tuple, mesh.colours.reshape(-1, 4, 3)[:, 0].tolist()))
    assert (mesh.colours.reshape(-1, 4, 3) == mesh.colours.reshape(-1, 4, 3)[:, :1]).all()
    assert areas == {colour_of(PALETTE[1]): 4, colour_of(PALETTE[2]): 5, colour_of(PALETTE[3]): 5}
    red = exposed_faces(Structure(blocks, PALETTE), lambda state: (255, 0, 0)).colours
    assert (red == [255, 0, 0]).all()


def test_air_has_no_surface() -> None:
    mesh = exposed_faces(Structure(np.zeros((2, 3, 4), np.uint16), PALETTE))
    assert [len(part) for part in mesh] == [0, 0, 0]


def test_a_full_huge_grid_takes_a_moment_only() -> None:
    blocks = (np.indices((64, 24, 24)).sum(0) % 2).astype(np.uint16)
    started = time.perf_counter()
    mesh = exposed_faces(Structure(blocks, PALETTE))
    assert time.perf_counter() - started < 2
    assert len(mesh.faces) == 64 * 24 * 24 // 2 * 12
