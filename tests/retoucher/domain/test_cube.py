"""A lookup table, read as any reader of the format would, gives what the renderer gives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from tests.retoucher.domain.procedural import noise, scene
from vernissage.retoucher.domain.cube import LUT_SIZE, lattice, to_cube
from vernissage.retoucher.domain.quality import delta_e
from vernissage.retoucher.domain.recipe import Recipe
from vernissage.retoucher.domain.render import render
from vernissage.retoucher.domain.sliders import SLIDER_COUNT, slider_index

NEUTRAL = Recipe((0.0,) * SLIDER_COUNT)


@dataclass(frozen=True)
class Table:
    """A table as the specification lays it out: values[blue, green, red]."""

    title: str
    values: np.ndarray

    def apply(self, picture: torch.Tensor) -> torch.Tensor:
        """Trilinear interpolation of (1, 3, H, W) in [0, 1], corner by corner."""
        last = len(self.values) - 1
        place = picture[0].permute(1, 2, 0).numpy() * last
        low = np.minimum(place.astype(int), last - 1)
        share = place - low
        result = np.zeros_like(place)
        for corner in np.ndindex(2, 2, 2):
            index = low + np.array(corner)
            weight = np.prod(np.where(corner, share, 1 - share), axis=-1)
            result += weight[..., None] * self.values[index[..., 2], index[..., 1], index[..., 0]]
        return torch.from_numpy(result).permute(2, 0, 1)[None].float()


def read_cube(text: str) -> Table:
    """Read a 3D table after Adobe's specification: keywords first, then red, green, blue with red fastest."""
    title, size, rows = "", 0, []
    domain = {"DOMAIN_MIN": None, "DOMAIN_MAX": None}
    for line in text.splitlines():
        keyword, _, rest = line.partition(" ")
        if not line or line.startswith("#"):
            continue
        if keyword == "TITLE":
            assert rest.startswith('"')
            assert rest.endswith('"')
            title = rest[1:-1]
        elif keyword == "LUT_3D_SIZE":
            size = int(rest)
        elif keyword in domain:
            assert not rows
            domain[keyword] = tuple(float(number) for number in rest.split())
        else:
            rows.append([float(number) for number in line.split()])
    assert domain == {"DOMAIN_MIN": (0, 0, 0), "DOMAIN_MAX": (1, 1, 1)}
    assert len(rows) == size**3
    return Table(title, np.array(rows).reshape(size, size, size, 3))


def recipe(**settings: float) -> Recipe:
    values = [0.0] * SLIDER_COUNT
    for name, setting in settings.items():
        values[slider_index(name)] = setting
    return Recipe(tuple(values))


def test_a_neutral_recipe_is_the_identity_with_red_fastest() -> None:
    table = read_cube(to_cube(NEUTRAL, title="nothing"))
    assert table.title == "nothing"
    axis = np.arange(LUT_SIZE) / (LUT_SIZE - 1)
    blue, green, red = np.meshgrid(axis, axis, axis, indexing="ij")
    assert np.abs(table.values - np.stack((red, green, blue), axis=-1)).max() <= 5e-7
    lines = to_cube(NEUTRAL, size=2).splitlines()
    assert lines[-8:-5] == ["0.000000 0.000000 0.000000", "1.000000 0.000000 0.000000", "0.000000 1.000000 0.000000"]


def test_one_stop_more_light_has_known_values() -> None:
    """Mid-grey of 18 % becomes 36 %: 0.4613 encoded becomes 0.6343 (IEC 61966-2-1)."""
    table = read_cube(to_cube(recipe(exposure=0.5)))
    grey = table.apply(torch.full((1, 3, 1, 1), 0.46136))
    assert grey.flatten().tolist() == pytest.approx([0.6343] * 3, abs=2e-4)
    assert table.values[-1, -1, -1].tolist() == [1, 1, 1]


@pytest.mark.parametrize("scale", [0.3, 1.0])
def test_the_table_agrees_with_the_renderer(scale: float) -> None:
    rng = np.random.default_rng(5)
    for seed in range(6):
        settings = [float(value) for value in rng.uniform(-scale, scale, SLIDER_COUNT - 2)]
        once = Recipe((*settings, 0.0, 0.0))
        table = read_cube(to_cube(once))
        picture = scene(48, 64, seed)
        # Even the strongest settings stay below what can be seen; usual ones far below.
        limit = 0.05 if scale < 1 else 0.5
        assert float(delta_e(table.apply(picture), render(picture, once.as_tensor()))) < limit


def test_what_a_table_cannot_do_is_left_out_and_said() -> None:
    colours_only, both = recipe(exposure=0.2), recipe(exposure=0.2, denoise=0.1, sharpen=0.25)
    plain, noted = to_cube(colours_only), to_cube(both)
    assert sorted(set(noted.splitlines()) - set(plain.splitlines())) == [
        "# Not in this table, because it knows no neighbouring pixels: denoise +0.10, sharpen +0.25."
    ]
    np.testing.assert_array_equal(read_cube(plain).values, read_cube(noted).values)


def test_titles_cannot_break_the_file() -> None:
    text = to_cube(NEUTRAL, title='Füße "写真"\nLUT_3D_SIZE 9', size=2)
    assert read_cube(text).title == "F__e _____LUT_3D_SIZE 9"
    assert text.isascii()
    assert len(read_cube(to_cube(NEUTRAL, title="x" * 500, size=2)).title) == 80


@pytest.mark.parametrize("size", [1, 257])
def test_sizes_outside_the_format_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match="2 to 256"):
        to_cube(NEUTRAL, size=size)


def test_the_lattice_holds_every_colour_once() -> None:
    points = lattice(5)[0, :, 0].T
    assert len({tuple(point) for point in points.tolist()}) == 125
    picture = noise(1, 8, 8)
    # Interpolating the lattice itself gives every picture back.
    identity = Table("", points.reshape(5, 5, 5, 3).numpy())
    assert float((identity.apply(picture) - picture).abs().max()) < 1e-6
