"""Variable-length integers, against a plain reading of their definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vernissage.core.errors import BadInput
from vernissage.sculptor.domain.formats.varint import decode_varints, encode_varints


def one_by_one(values: list[int]) -> bytes:
    out = bytearray()
    for value in values:
        rest = value
        while rest > 127:
            out.append(rest & 127 | 128)
            rest >>= 7
        out.append(rest)
    return bytes(out)


def as_array(data: bytes) -> np.ndarray:
    return np.frombuffer(data, np.uint8)


@given(st.lists(st.integers(0, 2**31 - 1) | st.integers(0, 300), max_size=50))
def test_they_agree_with_the_definition(values: list[int]) -> None:
    assert encode_varints(np.array(values, np.int64)).tobytes() == one_by_one(values)
    assert decode_varints(as_array(one_by_one(values)), len(values)).tolist() == values


def test_longer_forms_than_needed_are_read() -> None:
    assert decode_varints(as_array(b"\x81\x80\x00\x02"), 2).tolist() == [1, 2]


@pytest.mark.parametrize(
    ("data", "count", "reason"),
    [
        (b"\x01\x02", 3, "2 entries in 2 bytes: expected 3"),
        (b"\x01\x02", 1, "expected 1"),
        (b"\x01\x80", 1, "1 entries in 2 bytes"),
        (b"\x80\x80", 0, "0 entries in 2 bytes"),
        (b"", 1, "expected 1"),
        (b"\xff" * 5 + b"\x01", 1, "index of 6 bytes"),
        (b"\xff" * 4 + b"\x7f", 1, "block index 34,359,738,367"),
    ],
)
def test_nonsense_is_refused(data: bytes, count: int, reason: str) -> None:
    with pytest.raises(BadInput, match=reason):
        decode_varints(as_array(data), count)
