"""Writes photos: whole or not at all, in the colours of their own profile, with what cameras and editors noted.

Formats: JPEG, PNG, TIFF, WebP; 16 bits per channel in PNG and TIFF.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, PngImagePlugin

from vernissage.core import png16, tiff16
from vernissage.core.colour_profiles import IntoProfile
from vernissage.core.errors import BadInput
from vernissage.core.files import atomic_path
from vernissage.core.levels import as_floats, strips, to_uint8, to_uint16

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vernissage.core.levels import Samples

_WRITABLE = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF", ".webp": "WEBP"}
_XMP_TAG = 700
# Above this a JPEG gets the standard codes, which need no memory.
_OPTIMIZED_PIXELS = 50_000_000
# Pixels that are converted at a time.
_STRIP_PIXELS = 1 << 18


@dataclass(frozen=True)
class _Blocks:
    """What goes into a file beside the picture."""

    icc: bytes | None
    exif: bytes | None
    xmp: bytes | None

    def options(self, kind: str) -> dict[str, Any]:
        """Say it in the words of Pillow's writer for a format."""
        options: dict[str, Any] = {"icc_profile": self.icc, "exif": self.exif, "xmp": self.xmp}
        if self.xmp is not None and kind == "PNG":
            del options["xmp"]
            options["pnginfo"] = PngImagePlugin.PngInfo()
            options["pnginfo"].add_itxt("XML:com.adobe.xmp", self.xmp.decode("utf-8"))
        elif self.xmp is not None and kind == "TIFF":
            del options["xmp"]
            options["exif"] = Image.Exif()
            options["exif"].load(self.exif or b"")
            options["exif"][_XMP_TAG] = self.xmp
        return {name: block for name, block in options.items() if block is not None}


def write_photo(
    path: Path | str,
    pixels: Samples,
    *,
    alpha: NDArray[Any] | None = None,
    bit_depth: int = 8,
    icc: bytes | None = None,
    profile: bytes | None = None,
    exif: bytes | None = None,
    xmp: bytes | None = None,
    quality: int = 95,
) -> None:
    """Write a picture atomically in the format that the suffix names.

    Args:
        path: Ends in .png, .jpg, .jpeg, .tif, .tiff or .webp.
        pixels: (H, W, 3) levels as uint8 or uint16, or floats in [0, 1]; rounded to the nearest level of the file,
            values outside are clipped. sRGB, unless `icc` says otherwise.
        alpha: (H, W) float in [0, 1]; JPEG cannot hold it, so there the picture is laid over white.
        bit_depth: 8, or 16 for PNG and TIFF.
        icc: Profile to embed as it is: the one that `pixels` are in. None means sRGB, as everyone assumes.
        profile: RGB profile into which the sRGB pixels are converted and which is embedded, such as `Photo.icc`. It
            gets no colours beyond sRGB, because `pixels` hold none. One for gray or inks, or one that is damaged or
            leads one way only, is left out: the file is sRGB then.
        exif: EXIF block to embed; a TIFF of 16 bits takes only its texts (maker, artist, date...).
        xmp: XMP packet to embed, UTF-8; a JPEG holds at most 65504 bytes of it.
        quality: 1 to 100, for JPEG and WebP.

    Raises:
        BadInput: The suffix is unknown, the format cannot hold 16 bits, so many pixels, or so long or odd a packet.
        ValueError: An array has a wrong shape or holds nan, or both `icc` and `profile` are given.
    """
    target = Path(path)
    kind = _WRITABLE.get(target.suffix.lower())
    if kind is None:
        raise BadInput(
            f"{target}: cannot write {target.suffix or 'a file without suffix'}, expected {', '.join(_WRITABLE)}"
        )
    if bit_depth not in (8, 16) or (bit_depth == 16 and kind not in ("PNG", "TIFF")):
        raise BadInput(f"{target}: {kind} with {bit_depth} bits per channel: expected 8, or 16 in .png and .tif")
    if icc is not None and profile is not None:
        raise ValueError("icc and profile: the pixels are in the one or converted into the other, give one of them")
    _check_shapes(pixels, alpha)
    _check_packet(target, xmp)
    into = IntoProfile.open(profile) if profile is not None else None
    blocks = _Blocks(into.profile if into is not None else icc, exif, xmp)
    with atomic_path(target) as temporary:
        if bit_depth == 8:
            _save_8_bit(temporary, target, kind, _picture(pixels, alpha, into, opaque=kind == "JPEG"), blocks, quality)
            return
        samples = _deep_samples(pixels, alpha, into)
        if kind == "TIFF":
            tiff16.write(temporary, samples, icc=blocks.icc, xmp=xmp, texts=_exif_texts(exif))
            return
        with temporary.open("wb") as file:
            png16.write(file, samples, icc=blocks.icc, exif=exif, xmp=xmp)


def _check_shapes(pixels: Samples, alpha: NDArray[Any] | None) -> None:
    if pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise ValueError(f"pixels of shape {pixels.shape}, expected (H, W, 3)")
    if alpha is not None and alpha.shape != pixels.shape[:2]:
        raise ValueError(f"alpha of shape {alpha.shape}, expected {pixels.shape[:2]} like the pixels")


def _check_packet(target: Path, xmp: bytes | None) -> None:
    try:
        (xmp or b"").decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"{target}: the XMP packet is not UTF-8 ({error}); expected the text of an XMP file") from error


def _numbers(strip: Samples) -> Samples:
    if strip.dtype.kind == "f" and np.isnan(strip).any():
        raise ValueError("nan among the pixels: expected numbers from 0 to 1")
    return strip


def _picture(pixels: Samples, alpha: NDArray[Any] | None, into: IntoProfile | None, *, opaque: bool) -> Image.Image:
    """Put an 8-bit picture together strip by strip: a copy of the whole in floats would take four times as much."""
    height, width = pixels.shape[:2]
    picture = Image.new("RGB" if alpha is None or opaque else "RGBA", (width, height))
    for rows in strips(height, width, _STRIP_PIXELS):
        strip, opacity = _numbers(pixels[rows]), None if alpha is None else _numbers(alpha[rows])[..., None]
        if opacity is not None and opaque:
            strip = as_floats(strip) * opacity + (1 - opacity)
        levels = to_uint8(strip)
        if into is not None:
            levels = into.levels(levels)
        if opacity is not None and not opaque:
            levels = np.concatenate([levels, to_uint8(opacity)], axis=-1)
        picture.paste(Image.fromarray(levels), (0, rows.start))
    return picture


def _deep_samples(pixels: Samples, alpha: NDArray[Any] | None, into: IntoProfile | None) -> NDArray[np.uint16]:
    if pixels.dtype == np.uint16 and alpha is None and into is None:
        return pixels
    samples = np.empty((*pixels.shape[:2], 3 if alpha is None else 4), np.uint16)
    for rows in strips(pixels.shape[0], pixels.shape[1], _STRIP_PIXELS):
        strip = _numbers(pixels[rows])
        if into is not None:
            strip = into.deep(as_floats(strip) if strip.dtype.kind == "f" else to_uint16(strip))
        samples[rows, :, :3] = to_uint16(strip)
        if alpha is not None:
            samples[rows, :, 3] = to_uint16(_numbers(alpha[rows]))
    return samples


def _save_8_bit(temporary: Path, target: Path, kind: str, picture: Image.Image, blocks: _Blocks, quality: int) -> None:
    options = blocks.options(kind)
    if kind == "JPEG":
        # Below 90 nobody sees the halved colour; above it red edges would show. Huffman codes made for this picture
        # save a tenth of the file, but the encoder keeps twice the picture in memory meanwhile.
        optimize = picture.width * picture.height <= _OPTIMIZED_PIXELS
        options |= {"quality": quality, "optimize": optimize, "subsampling": 0 if quality >= 90 else 2}
    elif kind == "WEBP":
        options |= {"quality": quality, "method": 4}
    elif kind == "TIFF":
        # With packing Pillow leaves the work to libtiff, which cannot write the blocks within an EXIF block.
        options |= {"compression": "raw" if blocks.exif else "tiff_deflate"}
    try:
        picture.save(temporary, format=kind, **options)
    except (OSError, ValueError) as error:
        size = f"{picture.width} x {picture.height}"
        raise BadInput(f"{target}: cannot write {size} pixels as {kind} ({error})") from error


def _exif_texts(exif: bytes | None) -> dict[str, str]:
    if exif is None:
        return {}
    block = Image.Exif()
    block.load(exif)
    names = {270: "ImageDescription", 271: "Make", 272: "Model", 306: "DateTime", 315: "Artist", 33432: "Copyright"}
    texts = {name: str(block[tag]) for tag, name in names.items() if tag in block}
    return {name: text for name, text in texts.items() if text.isascii()}
