"""Recipes as 3D lookup tables in the `.cube` format, which video editors, Photoshop, GIMP and darktable's lut 3D read.

Format: Adobe, Cube LUT Specification 1.0 (2013): `LUT_3D_SIZE` lines of red, green, blue, red changing fastest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from vernissage.retoucher.domain.render import render
from vernissage.retoucher.domain.sliders import slider_index

if TYPE_CHECKING:
    from vernissage.retoucher.domain.recipe import Recipe

#: What every reader takes, and fine enough for our curves.
LUT_SIZE = 33
_SPATIAL_SLIDERS = ("denoise", "sharpen")
_LONGEST_TITLE = 80


def lattice(size: int = LUT_SIZE) -> torch.Tensor:
    """Every colour of a table as one picture, in the order of the format.

    Args:
        size: Points along each axis.

    Returns:
        (1, 3, 1, size ** 3) float in [0, 1]; red changes fastest.
    """
    axis = torch.arange(size, dtype=torch.float32) / (size - 1)
    blue, green, red = torch.meshgrid(axis, axis, axis, indexing="ij")
    return torch.stack([plane.flatten() for plane in (red, green, blue)]).view(1, 3, 1, -1)


def to_cube(recipe: Recipe, *, title: str = "", size: int = LUT_SIZE) -> str:
    """Bake what a recipe does to colours: exposure, white balance, tone and saturation, encoded sRGB in and out.

    Denoise and sharpen look at a pixel's neighbours, which no table of colours can do; a comment in the file says so
    where the recipe has them.

    Args:
        recipe: The recipe.
        title: Name of the table; what the format cannot quote becomes `_`.
        size: Points along each axis, 2 to 256.

    Returns:
        The text of a `.cube` file.

    Raises:
        ValueError: `size` is out of range.
    """
    if not 2 <= size <= 256:
        raise ValueError(f"cube: size {size}, expected 2 to 256")
    settings = recipe.as_tensor()
    left_out = [name for name in _SPATIAL_SLIDERS if settings[0, slider_index(name)] != 0]
    settings[:, [slider_index(name) for name in _SPATIAL_SLIDERS]] = 0
    table = render(lattice(size), settings)[0, :, 0].T
    lines = [f'TITLE "{_quotable(title)}"', "# Encoded sRGB in, encoded sRGB out."]
    if left_out:
        amounts = ", ".join(f"{name} {recipe.settings[slider_index(name)]:+.2f}" for name in left_out)
        lines.append(f"# Not in this table, because it knows no neighbouring pixels: {amounts}.")
    lines += [f"LUT_3D_SIZE {size}", "DOMAIN_MIN 0.0 0.0 0.0", "DOMAIN_MAX 1.0 1.0 1.0"]
    lines += [f"{red:.6f} {green:.6f} {blue:.6f}" for red, green, blue in table.tolist()]
    return "\n".join(lines) + "\n"


def _quotable(title: str) -> str:
    kept = "".join(character if " " <= character <= "~" and character != '"' else "_" for character in title)
    return kept[:_LONGEST_TITLE]
