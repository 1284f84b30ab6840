from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.retoucher.domain.procedural import flat, noise, scene
from vernissage.retoucher.domain.colour import LUMINANCE_WEIGHTS, linear_to_srgb, luma, srgb_to_linear
from vernissage.retoucher.domain.filters import resize_area
from vernissage.retoucher.domain.quality import delta_e
from vernissage.retoucher.domain.render import channel_gains, clamp_settings, render, tone_curve
from vernissage.retoucher.domain.sliders import HIGHS, LOWS, SLIDER_COUNT, SLIDER_NAMES, SLIDERS, slider_index

ANY_SETTINGS = st.tuples(*(st.floats(low, high, width=32) for low, high in zip(LOWS, HIGHS, strict=True)))


def one(**by_name: float) -> torch.Tensor:
    values = torch.zeros(1, SLIDER_COUNT)
    for name, value in by_name.items():
        values[0, slider_index(name)] = value
    return values


def amounts_of(values: torch.Tensor) -> torch.Tensor:
    return values * torch.tensor([slider.full_scale for slider in SLIDERS])


def test_neutral_is_the_same_bits_even_beside_edited_rows() -> None:
    images = noise(2, 17, 23)
    values = torch.cat((torch.zeros(1, SLIDER_COUNT), one(exposure=0.5, denoise=0.4, sharpen=0.4)))
    rendered = render(images, values)
    assert torch.equal(rendered[0], images[0])
    assert not torch.equal(rendered[1], images[1])


@given(ANY_SETTINGS)
@settings(max_examples=60, deadline=None)
def test_tone_curve_never_turns_back(values: tuple[float, ...]) -> None:
    ramp = torch.linspace(0, 1, 2001).view(1, 1, 1, -1).expand(1, 3, 1, -1)
    curve = tone_curve(ramp, amounts_of(torch.tensor([values])))
    assert (curve.diff(dim=-1) >= -1e-6).all()


@given(ANY_SETTINGS, st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_output_is_finite_and_in_range(values: tuple[float, ...], seed: int) -> None:
    images = torch.cat((noise(1, 12, 9, seed), flat(0, 0, 0)[:, :, :12, :9], flat(1, 1, 1)[:, :, :12, :9]))
    rendered = render(images, torch.tensor([values] * 3))
    assert rendered.shape == images.shape
    assert torch.isfinite(rendered).all()
    assert rendered.min() >= 0
    assert rendered.max() <= 1


@given(st.floats(-1, 1, width=32), st.floats(-1, 1, width=32))
@settings(max_examples=40, deadline=None)
def test_white_balance_keeps_the_luminance_of_grey(temperature: float, tint: float) -> None:
    gains = channel_gains(amounts_of(one(temperature=temperature, tint=tint)))
    assert (gains[0] * torch.tensor(LUMINANCE_WEIGHTS)).sum().item() == pytest.approx(1.0, abs=1e-5)


def test_one_ev_doubles_linear_light() -> None:
    images = 0.6 * noise(1, 8, 8)
    brighter = render(images, one(exposure=0.5))  # full scale is 2 EV
    assert torch.allclose(srgb_to_linear(brighter), 2 * srgb_to_linear(images), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "direction"),
    [("exposure", 1), ("highlights", 1), ("shadows", 1), ("exposure", -1), ("highlights", -1), ("shadows", -1)],
)
def test_tone_sliders_move_brightness_their_way(name: str, direction: int) -> None:
    images = scene(20, 30)
    change = luma(render(images, one(**{name: 0.5 * direction})) - images).mean().item()
    assert change * direction > 0.001


def test_sliders_do_what_their_names_say() -> None:
    images = scene(24, 36)
    red, _, blue = (render(images, one(temperature=0.5)) - images).mean(dim=(0, 2, 3)).tolist()
    assert red > 0 > blue
    assert (render(images, one(tint=0.5)) - images).mean(dim=(0, 2, 3))[1] < 0
    chroma = (images - luma(images)).abs().mean()
    richer = render(images, one(saturation=0.4))
    assert (richer - luma(richer)).abs().mean() > 1.2 * chroma
    assert render(images, one(contrast=0.5)).std() > 1.1 * images.std()
    images = scene(107, 160, detail=0.3)  # radii are shares of the long edge: a stamp has no room for them
    grainy = (images + 0.05 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    assert (render(grainy, one(denoise=1)) - images).std() < 0.8 * (grainy - images).std()
    assert render(images, one(sharpen=1)).diff(dim=-1).abs().mean() > images.diff(dim=-1).abs().mean()


def test_highlights_leave_the_shadows_and_shadows_the_highlights() -> None:
    ends = torch.cat((flat(0.05, 0.05, 0.05), flat(0.95, 0.95, 0.95)))
    lifted = (render(ends, one(highlights=1).expand(2, -1)) - ends).mean(dim=(1, 2, 3))
    assert lifted[0] < 0.003 < lifted[1]
    lifted = (render(ends, one(shadows=1).expand(2, -1)) - ends).mean(dim=(1, 2, 3))
    assert lifted[1] < 0.003 < lifted[0]


def test_batch_of_one_equals_its_row() -> None:
    images = noise(5, 21, 34)
    generator = torch.Generator().manual_seed(3)
    values = clamp_settings(torch.rand(5, SLIDER_COUNT, generator=generator) * 2 - 1)
    values[1] = 0
    values[2, -2:] = 0
    together = render(images, values)
    for row in range(5):
        alone = render(images[row : row + 1], values[row : row + 1])[0]
        assert torch.allclose(together[row], alone, atol=1e-6)


def test_gradients_are_finite_at_black_white_and_every_bound() -> None:
    images = torch.cat((flat(0, 0, 0), flat(1, 1, 1), noise(1, 16, 16)))
    for bound in (LOWS, HIGHS, (0.0,) * SLIDER_COUNT):
        pixels = images.clone().requires_grad_()
        values = torch.tensor([bound] * 3, dtype=torch.float32).requires_grad_()
        render(pixels, values).square().sum().backward()
        assert torch.isfinite(pixels.grad).all()
        assert torch.isfinite(values.grad).all()


MILD = {
    "exposure": 0.25, "contrast": 0.2, "highlights": -0.4, "shadows": 0.4, "temperature": 0.3, "tint": -0.3,
    "saturation": 0.2, "denoise": 0.3, "sharpen": 0.3,
}  # fmt: skip


@pytest.mark.parametrize("recipe", [*({name: value} for name, value in MILD.items()), MILD], ids=[*MILD, "all"])
def test_thumbnail_agrees_with_the_full_size(recipe: dict[str, float]) -> None:
    full = scene(800, 1200, seed=2)
    values = one(**recipe)
    shrunk_after = resize_area(render(full, values), 160)
    shrunk_before = render(resize_area(full, 160), values)
    assert delta_e(shrunk_after, shrunk_before).item() < 1.0


def test_strips_of_a_photo_render_like_the_whole_when_the_long_edge_is_told() -> None:
    full = scene(60, 90)
    values = one(exposure=0.3, sharpen=0.5)
    strip = render(full[..., 10:50, :], values, long_edge=90)
    assert torch.allclose(strip[..., 10:30, :], render(full, values)[..., 20:40, :], atol=1e-5)


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected \(N, 3, H, W\)"):
        render(noise(2, 8, 8), one())
    with pytest.raises(ValueError, match="slider 'brightness' does not exist"):
        slider_index("brightness")


def test_exposure_slider_uses_the_inverse_transfer_function_of_the_fault() -> None:
    # A value that the encoded gain would get wrong: +1 EV on encoded 0.25.
    expected = linear_to_srgb(2 * srgb_to_linear(torch.tensor(0.25))).item()
    assert render(flat(0.25, 0.25, 0.25), one(exposure=0.5))[0, 0, 0, 0].item() == pytest.approx(expected, abs=1e-6)


def test_every_slider_is_named_once_and_contains_neutral() -> None:
    assert len(set(SLIDER_NAMES)) == SLIDER_COUNT
    assert all(low <= 0 <= high for low, high in zip(LOWS, HIGHS, strict=True))
