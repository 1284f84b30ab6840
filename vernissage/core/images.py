"""Pictures in and out: any photo becomes upright sRGB or is rejected with its reason, and what is written is whole.

Formats: JPEG and MPO, PNG, TIFF, WebP, GIF, BMP, PPM, JPEG 2000, AVIF; 16 bits per channel from PNG and TIFF.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from vernissage.core import png16, tiff16
from vernissage.core.colour_profiles import deep_to_srgb, to_srgb
from vernissage.core.decoders import FORMATS, check_size, opened
from vernissage.core.errors import CorruptArtifact, MissingArtifact, RejectedImage
from vernissage.core.files import atomic_path
from vernissage.core.levels import as_floats, strips, to_uint8, to_uint16
from vernissage.core.photo_writing import write_photo

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vernissage.core.levels import Samples

__all__ = [
    "MAX_PIXELS", "Photo", "as_floats", "load_rgb8", "read_photo", "save_png", "to_uint8", "to_uint16", "write_photo",
]  # fmt: skip

MAX_PIXELS = 200_000_000

# Pixels that are converted at a time.
_STRIP_PIXELS = 1 << 18
_BITS_PER_SAMPLE, _ORIENTATION, _EXIF_POINTER, _GPS_POINTER = 0x0102, 0x0112, 0x8769, 0x8825
_EXIF_WIDTH, _EXIF_HEIGHT = 0xA002, 0xA003
# Orientations whose stored rows are columns of the upright picture.
_LYING = (5, 6, 7, 8)
# Of a TIFF's tags, those that describe the photo; the others say how that one file is laid out.
_DESCRIPTIVE_TAGS = (270, 271, 272, 282, 283, 296, 305, 306, 315, 33432)
_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"mif1", b"msf1")


@dataclass(frozen=True)
class Photo:
    """A photo as everything here wants it: upright, sRGB, three channels.

    Attributes:
        samples: (H, W, 3), sRGB-encoded, as deep as the file: uint8 or uint16 levels, or float32 in [0, 1].
        alpha: (H, W) float32 in [0, 1], 1 is opaque; None where the photo has no transparency.
        bit_depth: 8 or 16: the precision that the pixels really have.
        icc: The profile that was in the file. The pixels are sRGB by now; `write_photo` takes them back into it.
        exif: The file's EXIF block with its orientation set to upright, ready for `write_photo`.
        history: What was converted on the way, such as `exif-rotated 6` or `cmyk->srgb`.
        format: The file's real format, whatever its name says, such as `JPEG`.
        xmp: The file's XMP packet as it was: what other programs noted about the photo.
    """

    samples: Samples
    alpha: NDArray[np.float32] | None
    bit_depth: int
    icc: bytes | None
    exif: bytes | None
    history: tuple[str, ...]
    format: str
    xmp: bytes | None = None

    @property
    def pixels(self) -> NDArray[np.float32]:
        """(H, W, 3) float32 in [0, 1]: four times the memory of 8-bit samples, converted anew on every call."""
        return as_floats(self.samples)


@dataclass(frozen=True)
class _Planes:
    """Decoded and in sRGB, but not upright yet: (H, W, 3) samples and (H, W) float32 in [0, 1]."""

    samples: Samples
    alpha: NDArray[np.float32] | None
    bit_depth: int
    icc: bytes | None
    orientation: int
    exif: bytes | None
    history: tuple[str, ...]
    format: str
    xmp: bytes | None


def read_photo(path: Path | str, *, max_pixels: int = MAX_PIXELS) -> Photo:
    """Return the photo in a file, upright and in sRGB.

    Args:
        path: The file; its suffix does not matter.
        max_pixels: A picture whose header promises more is rejected before it is decoded.

    Raises:
        RejectedImage: The file is missing, empty, truncated, damaged, too large, or not a picture; nothing else is
            ever raised for what a file may hold.
    """
    source = Path(path)
    try:
        _check_plain_file(source)
        return _upright(_read_planes(source, max_pixels))
    except RejectedImage as error:
        raise RejectedImage(error.reason, source) from error
    except UnidentifiedImageError as error:
        raise RejectedImage(_unknown_reason(source), source) from error
    except MemoryError as error:
        raise RejectedImage("not enough memory to decode it; lower photos.max_pixels", source) from error
    except Exception as error:
        # Decoders raise whatever their authors thought of (IndexError, struct.error, zlib.error, AssertionError...);
        # a damaged file must cost one photo and never the batch.
        raise RejectedImage(_decoder_reason(error), source) from error


def load_rgb8(path: Path | str) -> NDArray[np.uint8]:
    """Return one of our own PNG files as (H, W, 3) uint8, without the checks and conversions that foreign files need.

    Raises:
        MissingArtifact: There is no such file.
        CorruptArtifact: The file is damaged or not RGB of 8 bits.
    """
    try:
        with Image.open(path) as image:
            if image.mode != "RGB":
                raise CorruptArtifact(f"{path}: a picture of mode {image.mode}, expected RGB; run its stage again")
            return np.array(image)
    except FileNotFoundError as error:
        raise MissingArtifact(f"{path}: no such picture; run the stage that makes it, or `dvc pull`") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise CorruptArtifact(f"{path}: cannot be decoded ({error}); run its stage again") from error


def save_png(path: Path | str, array: NDArray[np.uint8], compress_level: int = 1) -> None:
    """Write (H, W, 3) or (H, W) uint8 as a PNG file, atomically; the same array gives the same bytes.

    Raises:
        ValueError: The array is of another type or shape.
    """
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3):
        raise ValueError(f"{path}: array of {array.dtype} {array.shape}, expected uint8 (H, W, 3) or (H, W)")
    with atomic_path(path) as temporary:
        Image.fromarray(array).save(temporary, format="PNG", compress_level=compress_level)


def _check_plain_file(path: Path) -> None:
    if path.is_symlink() and not path.exists():
        raise RejectedImage("a link to a file that is not there")
    if not path.exists():
        raise RejectedImage("no such file")
    if path.is_dir():
        raise RejectedImage("a folder, expected a picture")
    if not path.is_file():
        raise RejectedImage("not a plain file")  # a pipe or device could block for ever
    if path.stat().st_size == 0:
        raise RejectedImage("empty file")


def _read_planes(path: Path, max_pixels: int) -> _Planes:
    with path.open("rb") as file:
        head = file.read(32)
        file.seek(0)
        if head.startswith(tiff16.SIGNATURES):
            deep = tiff16.read(path, max_pixels)
            if deep is not None:
                return _deep_tiff_planes(file, deep)
        with opened(file) as image:
            check_size(*image.size, max_pixels)
            header = png16.read_header(head)
            if header is not None and header.depth == 16:
                return _deep_png_planes(file, image)
            return _shallow_planes(image)


def _shallow_planes(image: Image.Image) -> _Planes:
    history = _frame_notes(image)
    tags = getattr(image, "tag_v2", {})
    turned = tags.get(_ORIENTATION, 1)
    image.load()
    if max(np.atleast_1d(tags.get(_BITS_PER_SAMPLE, 8))) > 8:
        history.append("16-bit read as 8-bit")
    exif, orientation = _exif_of(image, history)
    if orientation == 1 and turned in range(2, 9):
        history.append(f"exif-rotated {turned}")  # Pillow turns TIFF, and only TIFF, while decoding
    profile = image.info.get("icc_profile") or None
    alpha, opaque = _split_alpha(image)
    if opaque.mode in ("I", "F") or opaque.mode.startswith("I;16"):
        samples, depth = deep_to_srgb(_deep_gray(opaque, history), profile, history), 16
    else:
        if image.mode in ("P", "PA"):
            history.append("palette->rgb")
        samples, depth = _levels_of(to_srgb(opaque, profile, history)), 8
    kind, xmp = image.format or "unknown", _xmp_of(image)
    return _Planes(samples, alpha, depth, profile, orientation, exif, tuple(history), kind, xmp)


def _deep_png_planes(file: IO[bytes], image: Image.Image) -> _Planes:
    history = _frame_notes(image)
    image.load()
    exif, orientation = _exif_of(image, history)
    profile = image.info.get("icc_profile") or None
    file.seek(0)
    samples = png16.decode(file.read())
    colours = 1 if samples.shape[2] <= 2 else 3
    alpha = as_floats(samples[..., colours]) if samples.shape[2] > colours else None
    key = image.info.get("transparency")
    if alpha is None and key is not None:
        # Pillow gives the key of a gray file as one number and that of RGB as three, both at the file's own 16 bits.
        alpha = np.any(samples != np.array(key, np.uint16), axis=-1).astype(np.float32)
    history.append("16-bit")
    colour = deep_to_srgb(samples[..., :colours], profile, history)
    xmp, alpha = _xmp_of(image), _unless_opaque(alpha)
    return _Planes(colour, alpha, 16, profile, orientation, exif, tuple(history), "PNG", xmp)


def _deep_tiff_planes(file: IO[bytes], deep: tiff16.DeepTiff) -> _Planes:
    history: list[str] = []
    if deep.pages > 1:
        history.append("multi-page: first page")
    history += deep.notes
    colour = deep_to_srgb(deep.colour, deep.icc, history)
    exif = xmp = None
    try:
        with opened(file) as image:
            exif, _ = _exif_of(image, history)
            xmp = _xmp_of(image)
    except (OSError, SyntaxError, ValueError):  # a layout that only tifffile knows
        if deep.has_exif:
            history.append("exif ignored: unreadable")
    alpha = _unless_opaque(deep.alpha)
    return _Planes(colour, alpha, 16, deep.icc, deep.orientation, exif, tuple(history), "TIFF", xmp)


def _upright(planes: _Planes) -> Photo:
    history = planes.history
    if planes.orientation != 1:
        history = (*history, f"exif-rotated {planes.orientation}")
    return Photo(
        samples=_turn(planes.samples, planes.orientation),
        alpha=None if planes.alpha is None else _turn(planes.alpha, planes.orientation),
        bit_depth=planes.bit_depth,
        icc=planes.icc,
        exif=planes.exif,
        history=history,
        format=planes.format,
        xmp=planes.xmp,
    )


def _turn(array: NDArray[Any], orientation: int) -> NDArray[Any]:
    # EXIF 2.32, table 6: which edges of the stored picture are its top row and left column.
    if orientation in _LYING:
        array = np.swapaxes(array, 0, 1)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return np.ascontiguousarray(array)


def _frame_notes(image: Image.Image) -> list[str]:
    if getattr(image, "n_frames", 1) <= 1:
        return []
    image.seek(0)
    if image.format == "MPO":
        return ["mpo: first picture"]
    return ["multi-page: first page"] if image.format == "TIFF" else ["animated: first frame"]


def _exif_of(image: Image.Image, history: list[str]) -> tuple[bytes | None, int]:
    try:
        found = image.getexif()
        orientation = found.get(_ORIENTATION, 1)
        kept = _kept_exif(found, image.format == "TIFF")
        if orientation in _LYING:
            _swap_sides(kept)
        block = kept.tobytes() if len(kept) else None
    except Exception:  # noqa: BLE001 - a damaged EXIF block, on which Pillow raises nearly anything, spoils no photo
        history.append("exif ignored: unreadable")
        return None, 1
    return block, orientation if isinstance(orientation, int) and orientation in range(1, 9) else 1


def _xmp_of(image: Image.Image) -> bytes | None:
    packet = image.info.get("xmp")
    if isinstance(packet, str):
        packet = packet.encode("utf-8", "replace")
    return packet if isinstance(packet, bytes) and packet.strip(b"\0 \r\n\t") else None


def _kept_exif(found: Image.Exif, is_tiff: bool) -> Image.Exif:
    if is_tiff:
        kept = Image.Exif()
        for tag in _DESCRIPTIVE_TAGS:
            if tag in found:
                kept[tag] = found[tag]
        for pointer in (_EXIF_POINTER, _GPS_POINTER):
            if part := found.get_ifd(pointer):
                kept.get_ifd(pointer).update(part)
    else:
        kept = found
    if len(kept):
        kept[_ORIENTATION] = 1
    return kept


def _swap_sides(exif: Image.Exif) -> None:
    details = exif.get_ifd(_EXIF_POINTER)
    if _EXIF_WIDTH in details and _EXIF_HEIGHT in details:
        details[_EXIF_WIDTH], details[_EXIF_HEIGHT] = details[_EXIF_HEIGHT], details[_EXIF_WIDTH]


def _split_alpha(image: Image.Image) -> tuple[NDArray[np.float32] | None, Image.Image]:
    if not image.has_transparency_data:
        return None, image
    full = image.convert("RGBA")
    alpha = as_floats(np.asarray(full.getchannel("A")))
    opaque = full.convert("L") if image.mode in ("L", "LA", "La", "1") else full.convert("RGB")
    return _unless_opaque(alpha), opaque


def _unless_opaque(alpha: NDArray[np.float32] | None) -> NDArray[np.float32] | None:
    return None if alpha is None or bool((alpha >= 1).all()) else alpha


def _levels_of(image: Image.Image) -> NDArray[np.uint8]:
    # All at once Pillow would put the whole picture together twice.
    levels = np.empty((image.height, image.width, 3), np.uint8)
    for rows in strips(image.height, image.width, _STRIP_PIXELS):
        levels[rows] = np.asarray(image.crop((0, rows.start, image.width, rows.stop)))
    return levels


def _deep_gray(image: Image.Image, history: list[str]) -> NDArray[np.uint16]:
    samples = np.asarray(image)
    if samples.dtype.kind == "f":
        raise RejectedImage("gray picture of floats outside TIFF: its units are unknown")
    if samples.min() < 0 or samples.max() > 65535:
        raise RejectedImage("gray picture with 32-bit samples: expected at most 16 bits")
    history.append("16-bit")
    return samples.astype(np.uint16)[..., None]


def _unknown_reason(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(16)
    if head[4:8] == b"ftyp" and head[8:12] in _HEIC_BRANDS:
        return "HEIC is not read here: export it as JPEG, PNG or TIFF"
    return f"not a picture, or damaged from its start on (read here: {', '.join(FORMATS)})"


def _decoder_reason(error: Exception) -> str:
    text = " ".join(str(error).split())[:160] or type(error).__name__
    if any(word in text.lower() for word in ("truncated", "unexpected end", "not enough image data", "broken data")):
        return f"truncated or damaged: {text}"
    return f"cannot be decoded: {text}"
