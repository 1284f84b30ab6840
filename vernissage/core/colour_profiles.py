"""Colour profiles of photo files: pixels come out of them into sRGB, and go back into them when a photo is written.

Pictures of 8 bits go through LittleCMS. Those of 16 bits take our own arithmetic where the profile is made of curves
and a matrix; for profiles made of tables LittleCMS says at 8 bits how they bend colours.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageCms

from vernissage.core import icc
from vernissage.core.levels import as_floats, to_uint8, to_uint16

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vernissage.core.levels import Samples

_LITTLECMS_ERRORS = (ImageCms.PyCMSError, OSError, ValueError, TypeError, SyntaxError)


def to_srgb(image: Image.Image, profile: bytes | None, history: list[str]) -> Image.Image:
    """Return an 8-bit picture of any mode as RGB in sRGB, by its profile where that is sound and fits.

    Args:
        image: The picture; one that is RGB may be converted in place.
        profile: The ICC profile that came with it.
        history: What was done is added here.
    """
    if image.mode in ("P", "PA", "RGBX", "YCbCr", "HSV", "RGBa"):
        image = image.convert("RGB")
    elif image.mode == "1":
        image = image.convert("L")
    gray, inks = image.mode == "L", image.mode == "CMYK"
    converted = None
    if profile is not None and not is_srgb(profile):
        converted = _by_profile(image, profile, history)
    elif image.mode == "LAB":
        converted = ImageCms.profileToProfile(image, ImageCms.createProfile("LAB"), _srgb(), outputMode="RGB")
        history.append("lab->srgb")
    if gray:
        history.append("gray->rgb")
    if inks:
        history.append("cmyk->srgb" if converted is not None else "cmyk->srgb without profile")
    if converted is None:
        converted = image if image.mode == "RGB" else image.convert("RGB")
    return converted


def deep_to_srgb(samples: Samples, profile: bytes | None, history: list[str]) -> Samples:
    """Return a picture of 16 bits or more in sRGB without dropping to 8 bits where the profile allows.

    Args:
        samples: (H, W, 1 or 3) uint16 levels, or float32 in [0, 1].
        profile: The ICC profile that came with it.
        history: What was done is added here.

    Returns:
        (H, W, 3) of the same type.
    """
    channels = samples.shape[-1]
    if profile is not None and not is_srgb(profile):
        parsed = icc.parse(profile)
        if parsed is not None and len(parsed.curves) == channels:
            samples = parsed.to_srgb(samples)
            history.append(f"icc {_name(profile)}->srgb")
        else:
            samples = _by_profile_in_8_bits(samples, profile, history)
    if channels == 1:
        history.append("gray->rgb")
    return np.repeat(samples, 3, axis=-1) if samples.shape[-1] == 1 else samples


def is_srgb(profile: bytes) -> bool:
    """Return whether a profile is that of sRGB, under whatever name."""
    parsed = icc.parse(profile)
    return parsed is not None and parsed.matrix is not None and parsed.is_srgb()


class IntoProfile:
    """Converts sRGB pixels into the colours of one RGB profile, a strip of rows at a time.

    Attributes:
        profile: The ICC profile, to be embedded beside the converted pixels.
    """

    def __init__(self, profile: bytes, transform: ImageCms.ImageCmsTransform | None) -> None:
        self.profile = profile
        # None where there is nothing to do.
        self._transform = transform
        parsed = icc.parse(profile)
        self._curves = parsed if parsed is not None and parsed.is_invertible else None

    @staticmethod
    def open(profile: bytes) -> IntoProfile | None:
        """Return the conversion; None where the profile is for gray or inks, leads one way only, or is damaged."""
        if profile[16:20] != b"RGB ":
            return None
        if is_srgb(profile):
            return IntoProfile(profile, None)
        try:
            return IntoProfile(profile, _transform(_srgb(), ImageCms.ImageCmsProfile(io.BytesIO(profile)), "RGB"))
        except _LITTLECMS_ERRORS:
            return None

    def levels(self, strip: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Convert (n, W, 3) levels of 8 bits."""
        if self._transform is None:
            return strip
        image = Image.fromarray(strip)
        self._transform.apply_in_place(image)
        return np.asarray(image)

    def deep(self, strip: Samples) -> Samples:
        """Convert (n, W, 3) uint16 levels, or float32 in [0, 1], at full precision."""
        if self._transform is None:
            return strip
        if self._curves is not None:
            return self._curves.from_srgb(strip)
        before = Image.fromarray(to_uint8(strip))
        return _shifted(strip, before, self._transform.apply(before))


def _by_profile(image: Image.Image, profile: bytes, history: list[str]) -> Image.Image | None:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        name = ImageCms.getProfileDescription(source).strip() or "profile"
        transform = _transform(source, _srgb(), image.mode)
        if image.mode == "RGB":
            # A second picture of 24 megapixels would take 96 MB.
            transform.apply_in_place(image)
            converted = image
        else:
            converted = transform.apply(image)
    except _LITTLECMS_ERRORS:
        history.append("icc ignored: unreadable or for another kind of picture")
        return None
    history.append(f"icc {name}->srgb")
    return converted


def _transform(
    source: ImageCms.ImageCmsProfile, target: ImageCms.ImageCmsProfile, mode: str
) -> ImageCms.ImageCmsTransform:
    return ImageCms.ImageCmsTransform(
        source,
        target,
        mode,
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )


def _by_profile_in_8_bits(samples: Samples, profile: bytes, history: list[str]) -> Samples:
    levels = to_uint8(samples)
    image = Image.fromarray(levels[..., 0] if levels.shape[-1] == 1 else levels)
    before = image.convert("RGB")
    converted = _by_profile(image, profile, history)
    if converted is None:
        return samples
    return _shifted(samples, before, converted)


def _shifted(samples: Samples, before: Image.Image, after: Image.Image) -> Samples:
    # The profile's tables bend colours smoothly: what they add is taken at 8 bits, the picture keeps its own 16.
    shift = (np.asarray(after, np.float32) - np.asarray(before, np.float32)) / np.float32(255)
    shift += as_floats(samples)
    return to_uint16(shift) if samples.dtype == np.uint16 else np.clip(shift, 0.0, 1.0, out=shift)


def _name(profile: bytes) -> str:
    try:
        return ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile))).strip() or "profile"
    except _LITTLECMS_ERRORS:
        return "profile"


def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
