"""A photo rendered at full size in strips is the photo rendered whole, and its thumbnail keeps what is decided on."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.retoucher.domain.procedural import noise, scene
from vernissage.core.devices import THREADS_VARIABLE
from vernissage.core.images import Photo, as_floats, to_uint8
from vernissage.retoucher.domain import full_size
from vernissage.retoucher.domain.full_size import as_batch, render_full_size, thumbnail
from vernissage.retoucher.domain.quality import delta_e
from vernissage.retoucher.domain.render import render
from vernissage.retoucher.domain.sliders import HIGHS, LOWS, SLIDER_COUNT, slider_index
from vernissage.retoucher.prepare.resize import shrink


def pixels_of(image: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray(image[0].permute(1, 2, 0).numpy())


def recipe(**amounts: float) -> torch.Tensor:
    row = torch.zeros(1, SLIDER_COUNT)
    for name, amount in amounts.items():
        row[0, slider_index(name)] = amount
    return row


@pytest.fixture(autouse=True)
def short_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(full_size, "STRIP_PIXELS", 1 << 12)


@pytest.mark.parametrize(
    "amounts",
    [
        {"exposure": 0.4, "contrast": -0.2, "shadows": 0.5, "temperature": 0.3},
        {"sharpen": 0.7},
        {"denoise": 0.6},
        {"exposure": -0.5, "saturation": 0.4, "denoise": 0.5, "sharpen": 1.0},
    ],
    ids=["pointwise", "sharpen", "denoise", "all"],
)
@pytest.mark.parametrize("size", [(211, 307), (1201, 97), (40, 2003)], ids=str)
def test_strips_equal_the_whole(size: tuple[int, int], amounts: dict[str, float]) -> None:
    # Above 667 pixels the blurs work on smaller copies, which strips on their own would cut elsewhere.
    image = (scene(*size) + 0.1 * noise(1, *size) - 0.05).clamp(0, 1)
    whole = pixels_of(render(image, recipe(**amounts)))
    assert np.abs(render_full_size(pixels_of(image), recipe(**amounts)) - whole).max() < 1e-5


@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    values=st.tuples(*(st.floats(low, high, width=32) for low, high in zip(LOWS, HIGHS, strict=True))),
)
@settings(max_examples=25, deadline=None)
def test_any_recipe_on_any_size(size: tuple[int, int], values: tuple[float, ...]) -> None:
    image, row = scene(*size), torch.tensor([values])
    result = render_full_size(pixels_of(image), row)
    assert np.abs(result - pixels_of(render(image, row))).max() < 1e-4
    assert 0 <= result.min() <= result.max() <= 1


def levels_of(image: torch.Tensor, dtype: type) -> np.ndarray:
    return np.rint(pixels_of(image) * np.iinfo(dtype).max).astype(dtype)


def rendered_floats(levels: np.ndarray, row: torch.Tensor) -> np.ndarray:
    return pixels_of(render(as_batch(as_floats(levels)), row))


@pytest.mark.parametrize(
    "amounts",
    [
        {"exposure": 0.4, "contrast": -0.2, "shadows": 0.5, "temperature": 0.3},
        {"saturation": 0.6, "tint": -0.4, "highlights": -0.8},
        {"sharpen": 0.7},
        {"denoise": 0.6},
        {"exposure": -0.5, "saturation": 0.4, "denoise": 0.5, "sharpen": 1.0},
    ],
    ids=["tone", "colour", "sharpen", "denoise", "all"],
)
@pytest.mark.parametrize("size", [(211, 307), (1201, 97), (40, 2003)], ids=str)
def test_levels_are_the_float_renderer_rounded_once(size: tuple[int, int], amounts: dict[str, float]) -> None:
    image = (scene(*size) + 0.1 * noise(1, *size) - 0.05).clamp(0, 1)
    for dtype in (np.uint8, np.uint16):
        levels, row = levels_of(image, dtype), recipe(**amounts)
        result = render_full_size(levels, row)
        assert result.dtype == dtype
        error = np.abs(result / np.iinfo(dtype).max - rendered_floats(levels, row)).max()
        assert error <= 0.5 / np.iinfo(dtype).max + 1e-5


@given(
    size=st.one_of(
        st.tuples(st.integers(1, 40), st.integers(1, 40)),
        # Beyond 667 pixels blurs are gathered from strips.
        st.tuples(st.integers(1, 24), st.integers(668, 900)),
        st.tuples(st.integers(668, 900), st.integers(1, 24)),
    ),
    values=st.tuples(*(st.floats(low, high, width=32) for low, high in zip(LOWS, HIGHS, strict=True))),
    grain=st.sampled_from([0.0, 0.02, 0.5]),
)
@settings(max_examples=40, deadline=None)
def test_any_recipe_on_any_levels(size: tuple[int, int], values: tuple[float, ...], grain: float) -> None:
    levels, row = (
        levels_of((scene(*size) + grain * (noise(1, *size) - 0.5)).clamp(0, 1), np.uint8),
        torch.tensor([values]),
    )
    error = np.abs(render_full_size(levels, row) / 255 - rendered_floats(levels, row)).max()
    # A faint denoise divides by a noise that is as small as the last digits of its blurs.
    assert error <= 0.5 / 255 + 5e-4


def test_any_number_of_threads_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    levels, row = levels_of(noise(1, 700, 90), np.uint8), recipe(exposure=0.2, saturation=0.3, denoise=0.4, sharpen=0.5)
    results = []
    for threads in (1, 2, 5):
        monkeypatch.setenv(THREADS_VARIABLE, str(threads))
        results.append((render_full_size(levels, row), thumbnail(levels, long_edge=100)))
    for result, small in results[1:]:
        np.testing.assert_array_equal(result, results[0][0])
        assert torch.equal(small, results[0][1])


def test_thumbnail_and_full_size_of_one_recipe_agree() -> None:
    levels = levels_of((scene(600, 800) + 0.04 * (noise(1, 600, 800) - 0.5)).clamp(0, 1), np.uint8)
    for amounts in ({"exposure": 0.3, "contrast": -0.2, "saturation": 0.3}, {"denoise": 0.2, "sharpen": 0.2}):
        row = recipe(**amounts)
        shown = render(thumbnail(levels, long_edge=320), row)
        small = thumbnail(render_full_size(levels, row), long_edge=320)
        assert float(delta_e(shown, small)) < 1


def test_a_photo_is_rendered_in_a_fraction_of_its_own_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setenv(THREADS_VARIABLE, "2")
    levels = np.broadcast_to(np.arange(0, 2048, dtype=np.uint16)[:, None, None] // 8, (2048, 4000, 3)).astype(np.uint8)
    row = recipe(exposure=0.2, saturation=0.3, denoise=0.4, sharpen=0.5)
    tracemalloc.start()
    render_full_size(levels, row, out=levels)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < levels.nbytes / 2


def test_the_result_may_replace_the_photo() -> None:
    photo, row = pixels_of(scene(90, 120)), recipe(exposure=0.3, sharpen=0.5, denoise=0.2)
    apart = render_full_size(photo, row)
    assert render_full_size(photo, row, out=photo) is photo
    np.testing.assert_array_equal(photo, apart)
    levels = levels_of(scene(900, 120), np.uint8)
    apart = render_full_size(levels, row)
    assert render_full_size(levels, row, out=levels) is levels
    np.testing.assert_array_equal(levels, apart)


def test_a_neutral_recipe_changes_no_bit() -> None:
    for photo in (pixels_of(noise(1, 70, 90)), levels_of(noise(1, 70, 90), np.uint16)):
        result = render_full_size(photo, recipe())
        np.testing.assert_array_equal(result, photo)
        assert result is not photo


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 4)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected"):
        render_full_size(np.zeros(shape, np.float32), recipe())
    with pytest.raises(ValueError, match="expected"):
        render_full_size(np.zeros((8, 8, 3), np.float32), torch.zeros(2, SLIDER_COUNT))
    for out in (np.zeros((8, 8, 3), np.uint16), np.zeros((8, 9, 3), np.uint8)):
        with pytest.raises(ValueError, match="expected"):
            render_full_size(np.zeros((8, 8, 3), np.uint8), recipe(exposure=0.1), out=out)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((600, 900), (67, 100)),
        ((900, 600), (100, 67)),
        ((60, 90), (60, 90)),
        ((100, 2000), (32, 640)),
        ((20, 3000), (20, 3000)),
        ((1, 1), (1, 1)),
    ],
)
def test_the_thumbnail_has_the_long_edge_unless_the_short_one_would_get_lost(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    photo = pixels_of(noise(1, *size))
    small = thumbnail(photo, long_edge=100, short_edge=32)
    assert small.shape == (1, 3, *expected)
    assert small.mean() == pytest.approx(photo.mean(), abs=2e-3)


def test_thumbnails_are_what_the_dataset_holds() -> None:
    photo = pixels_of(scene(300, 200))
    expected = shrink(Photo(photo, None, 8, None, None, (), "PNG"), 90)
    small = thumbnail(photo, long_edge=90)
    np.testing.assert_array_equal(to_uint8(pixels_of(small)), expected)
    assert torch.equal(small, torch.round(small * 255) / 255)
    assert torch.equal(thumbnail(to_uint8(photo), long_edge=90), small)
    deep = levels_of(scene(300, 200), np.uint16)
    assert torch.equal(thumbnail(deep, long_edge=90), thumbnail(as_floats(deep), long_edge=90))


def test_a_batch_is_a_view() -> None:
    photo = pixels_of(noise(1, 5, 7))
    batch = as_batch(photo)
    assert batch.shape == (1, 3, 5, 7)
    photo[1, 2, 0] = 0.25
    assert batch[0, 0, 1, 2] == 0.25
