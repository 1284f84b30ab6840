"""Sizes: what is taken for one, and which name holds which."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vernissage.core.errors import BadInput
from vernissage.sculptor.domain.sizes import LARGEST, SIZES, Size, parse_size, size_class

WITHIN = st.builds(Size, *(st.integers(1, side) for side in (LARGEST.width, LARGEST.height, LARGEST.depth)))


@pytest.mark.parametrize("name", SIZES)
def test_a_name_and_its_numbers_are_the_same_size(name: str) -> None:
    assert parse_size(name) == parse_size(f" {name.upper()}\n") == parse_size(str(SIZES[name])) == SIZES[name]
    assert size_class(SIZES[name]) == name


@given(WITHIN)
def test_what_is_said_of_a_size_is_read_as_it(size: Size) -> None:
    assert parse_size(str(size)) == size
    assert size.shape == (size.height, size.depth, size.width)


@given(WITHIN)
def test_a_size_is_of_the_smallest_class_that_holds_it(size: Size) -> None:
    name = size_class(size)
    smaller = list(SIZES)[: list(SIZES).index(name)]
    assert SIZES[name].holds(size) or name == "huge"
    assert not any(SIZES[other].holds(size) for other in smaller)


@pytest.mark.parametrize(
    ("size", "name"),
    [
        (Size(1, 1, 1), "normal"),
        (Size(16, 17, 16), "big"),
        (Size(16, 32, 17), "huge"),
        (Size(17, 1, 1), "huge"),
        (LARGEST, "huge"),
    ],
)
def test_one_side_alone_may_need_the_larger_class(size: Size, name: str) -> None:
    assert size_class(size) == name


def test_the_limits_are_sizes_themselves() -> None:
    assert parse_size("1x1x1") == Size(1, 1, 1)
    assert parse_size("64x128x64") == LARGEST
    assert not Size(16, 16, 16).holds(Size(16, 16, 17))


@pytest.mark.parametrize(
    "text",
    [
        *("", "x", "large", "16", "16x16", "16x16x16x16", "0x1x1", "65x1x1", "1x129x1", "1x1x65", "-1x1x1", "+1x1x1"),
        *("1.5x2x2", "16 x 16 x 16", "1e1x1x1", "0x10x0x10x1", "999999999999x1x1", "16\x00x16x16", "1x1x1\n1x1x1"),
    ],
)
def test_what_is_no_size_is_refused_with_what_would_be_one(text: str) -> None:
    with pytest.raises(BadInput, match=r"expected normal, big, huge, or WIDTHxHEIGHTxDEPTH.*64x128x64") as caught:
        parse_size(text)
    assert repr(text) in str(caught.value)


@given(st.one_of(st.text(max_size=20), st.from_regex(r"[0-9]{0,8}x[0-9]{0,8}x[0-9]{0,8}", fullmatch=True)))
def test_any_text_is_a_size_within_the_limits_or_is_refused(text: str) -> None:
    try:
        size = parse_size(text)
    except BadInput:
        return
    assert LARGEST.holds(size)
    assert min(size) >= 1
