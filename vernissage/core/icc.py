"""Turns colours of ICC profiles made of curves and one matrix into sRGB and back, at full precision.

Nearly all profiles of cameras, screens and editors are of this kind; the others (tables, inks) are left to LittleCMS.
Source: ICC.1:2022, sections 7.2 and 7.3 (header, tags), 10.6 (curve), 10.18 (parametric curve), 10.31 (XYZ);
IEC 61966-2-1 (sRGB).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from vernissage.core.levels import Samples

# sRGB's primaries as columns, adapted to D50, which is the white of all profile connections (ICC's own sRGB profile).
_SRGB_TO_XYZ = np.array(
    [
        [0.43606567, 0.38514709, 0.14306641],
        [0.22248840, 0.71687317, 0.06060791],
        [0.01391602, 0.09707642, 0.71409607],
    ]
)
_HEADER_BYTES = 128
# How many of g, a, b, c, d, e, f each function type of a parametric curve stores.
_PARAMETRIC_COUNTS = (1, 3, 4, 5, 7)
# One step per code value of 16 bits.
_CURVE_STEPS = 65536
# Rows that are converted at a time: full precision takes eight times the memory of the picture.
_BAND_ROWS = 256
# Rounded parameters let a curve step back a little where its two pieces join.
_JOIN = 1e-3
# Of the colours that are told apart; a matrix that squeezes them into less has lost one.
_SMALLEST_VOLUME = 1e-6
# Two profiles that stay within half a level of 8 bits of each other are the same to an 8-bit picture.
_SAME = 0.5 / 255


@dataclass(frozen=True)
class CurveProfile:
    """What a profile says: one tone curve per channel, and for RGB the matrix to XYZ (D50).

    Attributes:
        curves: (channels, 65536) linear light over evenly spaced code values from 0 to 1.
        matrix: (3, 3) linear RGB to XYZ; None for a gray profile.
    """

    curves: NDArray[np.float64]
    matrix: NDArray[np.float64] | None

    def to_srgb(self, pixels: Samples) -> Samples:
        """Return (H, W, channels) as (H, W, same channels) of sRGB in the same type, clipped to it.

        Args:
            pixels: Code values: uint16 levels, or float32 in [0, 1].
        """
        return _in_bands(pixels, self._band_to_srgb)

    def from_srgb(self, pixels: Samples) -> Samples:
        """Return (H, W, channels) of sRGB as code values of this profile in the same type, clipped to it.

        Args:
            pixels: uint16 levels, or float32 in [0, 1].

        Raises:
            ValueError: The profile leads one way only: see `is_invertible`.
        """
        if not self.is_invertible:
            raise ValueError("a profile whose curves turn back, or whose matrix loses a colour, leads into sRGB only")
        return _in_bands(pixels, self._band_from_srgb)

    @property
    def is_invertible(self) -> bool:
        """Whether every colour has one code value: rising curves, and a matrix that loses nothing."""
        backwards = np.maximum.accumulate(self.curves, axis=1) - self.curves
        rising = bool(backwards.max() < _JOIN and (self.curves[:, -1] > self.curves[:, 0] + _JOIN).all())
        return rising and (self.matrix is None or abs(float(np.linalg.det(self.matrix))) > _SMALLEST_VOLUME)

    def is_srgb(self) -> bool:
        """Return whether converting would change no level of an 8-bit picture."""
        ramp = np.linspace(0.0, 1.0, 18)
        channels = len(self.curves)
        probe = np.stack(np.meshgrid(*[ramp] * channels, indexing="ij"), axis=-1).astype(np.float32)
        return bool(np.abs(self.to_srgb(probe) - probe).max() < _SAME)

    def _band_to_srgb(self, pixels: Samples) -> NDArray[np.float64]:
        channels = range(len(self.curves))
        if pixels.dtype == np.uint16:
            linear = np.stack([self.curves[index][pixels[..., index]] for index in channels], axis=-1)
        else:
            linear = np.stack(
                [np.interp(pixels[..., index], _CODES, self.curves[index]) for index in channels], axis=-1
            )
        if self.matrix is not None:
            linear = linear @ (np.linalg.inv(_SRGB_TO_XYZ) @ self.matrix).T
        return _look_up(linear, _SRGB_CODES)

    def _band_from_srgb(self, pixels: Samples) -> NDArray[np.float64]:
        linear = _SRGB_CURVE[pixels] if pixels.dtype == np.uint16 else _decode(pixels.astype(np.float64))
        if self.matrix is not None:
            linear = linear @ (np.linalg.inv(self.matrix) @ _SRGB_TO_XYZ).T
        codes = [_look_up(linear[..., index], table) for index, table in enumerate(self._inverse_curves)]
        return np.stack(codes, axis=-1)

    @cached_property
    def _inverse_curves(self) -> list[NDArray[np.float64]]:
        return [np.interp(_CODES**2, np.maximum.accumulate(curve), _CODES) for curve in self.curves]


def _in_bands(pixels: Samples, convert: Callable[[Samples], NDArray[np.float64]]) -> Samples:
    result = np.empty_like(pixels)
    for start in range(0, len(pixels), _BAND_ROWS):
        band = slice(start, start + _BAND_ROWS)
        converted = convert(pixels[band])
        result[band] = converted * 65535 + 0.5 if pixels.dtype == np.uint16 else converted
    return result


def _look_up(linear: NDArray[np.float64], table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Interpolate in a table of code values over linear light, clipped to [0, 1].

    The steps of the table are even in the square root of light: code values rise nearly in proportion to that, while
    over light itself they rise too steeply near black for any table.
    """
    place = np.sqrt(np.clip(linear, 0.0, 1.0)) * (_CURVE_STEPS - 1)
    below = np.minimum(place.astype(np.int64), _CURVE_STEPS - 2)
    place -= below
    first = table[below]
    codes: NDArray[np.float64] = first + place * (table[below + 1] - first)
    return codes


def parse(profile: bytes) -> CurveProfile | None:
    """Return a gray or RGB profile of curves and matrix; None where it is of another kind or damaged."""
    try:
        return _parse(profile)
    except (struct.error, ValueError, IndexError, KeyError, OverflowError):
        return None


def _parse(profile: bytes) -> CurveProfile | None:
    tags = _tags(profile)
    space, connection = profile[16:20], profile[20:24]
    if connection != b"XYZ " or any(name.startswith((b"A2B", b"D2B")) for name in tags):
        return None
    if space == b"GRAY":
        return CurveProfile(np.stack([_curve(tags[b"kTRC"])]), None)
    if space != b"RGB ":
        return None
    curves = np.stack([_curve(tags[name]) for name in (b"rTRC", b"gTRC", b"bTRC")])
    matrix = np.stack([_xyz(tags[name]) for name in (b"rXYZ", b"gXYZ", b"bXYZ")], axis=1)
    return CurveProfile(curves, matrix) if np.isfinite(curves).all() else None


def _tags(profile: bytes) -> dict[bytes, bytes]:
    (count,) = struct.unpack_from(">I", profile, _HEADER_BYTES)
    if count > 1024:
        raise ValueError("a profile has a few dozen tags")
    tags = {}
    for index in range(count):
        name, offset, size = struct.unpack_from(">4sII", profile, _HEADER_BYTES + 4 + 12 * index)
        tags[name] = profile[offset : offset + size]
    return tags


def _xyz(tag: bytes) -> NDArray[np.float64]:
    if tag[:4] != b"XYZ ":
        raise ValueError("expected an XYZ tag")
    return np.array(struct.unpack_from(">3i", tag, 8)) / 65536


def _curve(tag: bytes) -> NDArray[np.float64]:
    codes = _CODES
    if tag[:4] == b"para":
        return _parametric(codes, tag)
    if tag[:4] != b"curv":
        raise ValueError("expected a curve tag")
    (count,) = struct.unpack_from(">I", tag, 8)
    if count == 0:
        return codes
    values = np.frombuffer(tag, ">u2", count, 12)
    if count == 1:
        return _power(codes, float(values[0]) / 256)
    return np.interp(codes, np.linspace(0.0, 1.0, count), values / 65535)


def _parametric(codes: NDArray[np.float64], tag: bytes) -> NDArray[np.float64]:
    (kind,) = struct.unpack_from(">H", tag, 8)
    count = _PARAMETRIC_COUNTS[kind]
    g, a, b, c, d, e, f = (
        value / 65536 for value in (*struct.unpack_from(f">{count}i", tag, 12), *([0] * (7 - count)))
    )
    if kind == 0:
        return _power(codes, g)
    # Types 1 and 2 state the join and the offset in other letters than 3 and 4 do.
    if kind == 1:
        c, d = 0.0, -b / a if a else 0.0
    elif kind == 2:
        c, d, e, f = 0.0, -b / a if a else 0.0, c, c
    power = _power(np.maximum(a * codes + b, 0.0), g) + e
    curve: NDArray[np.float64] = np.clip(np.where(codes >= d, power, c * codes + f), 0.0, 1.0)
    return curve


def _power(base: NDArray[np.float64], exponent: float) -> NDArray[np.float64]:
    result: NDArray[np.float64] = np.power(base, exponent)
    return result


def _encode(linear: NDArray[np.float64]) -> NDArray[np.float64]:
    power = 1.055 * _power(np.maximum(linear, 1e-12), 1 / 2.4) - 0.055
    return np.where(linear <= 0.0031308, 12.92 * linear, power)


def _decode(encoded: NDArray[np.float64]) -> NDArray[np.float64]:
    power = _power((np.maximum(encoded, 0.0) + 0.055) / 1.055, 2.4)
    return np.where(encoded <= 0.04045, encoded / 12.92, power)


_CODES = np.linspace(0.0, 1.0, _CURVE_STEPS)
_SRGB_CURVE = _decode(_CODES)
_SRGB_CODES = _encode(_CODES**2)
