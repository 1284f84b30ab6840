"""Writes binary glTF 2.0: one mesh of the exposed faces with a colour at each vertex.

Specification: https://registry.khronos.org/glTF/specs/2.0/glTF-2.0.html. One unit is one block, Y is up; the middle of
the structure's footprint stands at the origin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vernissage.core.errors import BadInput
from vernissage.sculptor.domain.mesh import exposed_faces

if TYPE_CHECKING:
    from vernissage.sculptor.domain.structure import Structure

#: Matt: without a material of its own, a mesh is made of metal (glTF 2.0, section 5.19).
_MATERIAL = {
    "name": "blocks",
    "pbrMetallicRoughness": {"baseColorFactor": [1, 1, 1, 1], "metallicFactor": 0, "roughnessFactor": 1},
}


def write(structure: Structure, *, title: str = "") -> bytes:
    """Return a structure as .glb; the title names the mesh and the scene.

    Raises:
        BadInput: There is no block in it.
    """
    import trimesh
    from trimesh.exchange.gltf import export_glb

    if not structure.solid.any():
        raise BadInput("a structure without a block: nothing to write as .glb")
    vertices, faces, colours = exposed_faces(structure)
    width, _, depth = structure.size
    centred = vertices - np.array([width / 2, 0, depth / 2], np.float32)
    opaque = np.full((len(colours), 1), 255, np.uint8)
    mesh = trimesh.Trimesh(
        centred, faces, vertex_colors=np.hstack([linear_bytes(colours), opaque]), process=False, validate=False
    )
    name = title or "structure"
    scene = trimesh.Scene({name: mesh}, metadata={"title": title})

    def finish(tree: dict[str, Any]) -> None:
        tree["materials"] = [_MATERIAL]
        tree["scenes"][0]["name"] = name
        for primitive in tree["meshes"][0]["primitives"]:
            primitive["material"] = 0

    return bytes(export_glb(scene, include_normals=False, tree_postprocessor=finish))


def linear_bytes(colours: np.ndarray) -> np.ndarray:
    """Return sRGB colours (..., 3) uint8 as linear light in uint8, which is what a glTF vertex holds.

    Source: IEC 61966-2-1, the sRGB transfer function.
    """
    encoded = colours / 255
    light = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    return np.rint(255 * light).astype(np.uint8)
