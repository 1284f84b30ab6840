"""Pictures in and out: any photo becomes upright sRGB or is rejected with its reason, and what is written is whole.

Formats: JPEG and MPO, PNG, TIFF, WebP, GIF, BMP, PPM, JPEG 2000, AVIF; 16 bits per channel from PNG and TIFF.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError

from vernissage.core import icc as icc_profiles
from vernissage.core import png16, tiff16
from vernissage.core.decoders import FORMATS, check_size, opened
from vernissage.core.errors import BadInput, CorruptArtifact, MissingArtifact, RejectedImage
from vernissage.core.files import atomic_path

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_PIXELS = 200_000_000

_BITS_PER_SAMPLE, _ORIENTATION, _EXIF_POINTER, _GPS_POINTER = 0x0102, 0x0112, 0x8769, 0x8825
# Of a TIFF's tags, those that describe the photo; the others say how that one file is laid out.
_DESCRIPTIVE_TAGS = (270, 271, 272, 282, 283, 296, 305, 306, 315, 33432)
_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"mif1", b"msf1")
_WRITABLE = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF", ".webp": "WEBP"}


@dataclass(frozen=True)
class Photo:
    """A photo as everything here wants it: upright, sRGB, three channels.

    Attributes:
        pixels: (H, W, 3) float32 in [0, 1], sRGB-encoded.
        alpha: (H, W) float32 in [0, 1], 1 is opaque; None where the photo has no transparency.
        bit_depth: 8 or 16: the precision that the pixels really have.
        icc: The profile that was in the file. The pixels are sRGB by now, so it is for the record, not for writing.
        exif: The file's EXIF block with its orientation set to upright, ready for `write_photo`.
        history: What was converted on the way, such as `exif-rotated 6` or `cmyk->srgb`.
        format: The file's real format, whatever its name says, such as `JPEG`.
    """

    pixels: NDArray[np.float32]
    alpha: NDArray[np.float32] | None
    bit_depth: int
    icc: bytes | None
    exif: bytes | None
    history: tuple[str, ...]
    format: str


@dataclass(frozen=True)
class _Planes:
    """Decoded and in sRGB, but not upright yet: (H, W, 3) and (H, W) float32 in [0, 1]."""

    colour: NDArray[np.float32]
    alpha: NDArray[np.float32] | None
    bit_depth: int
    icc: bytes | None
    orientation: int
    exif: bytes | None
    history: tuple[str, ...]
    format: str


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


def write_photo(
    path: Path | str,
    pixels: NDArray[Any],
    *,
    alpha: NDArray[Any] | None = None,
    bit_depth: int = 8,
    icc: bytes | None = None,
    exif: bytes | None = None,
    quality: int = 95,
) -> None:
    """Write a picture atomically in the format that the suffix names.

    Args:
        path: Ends in .png, .jpg, .jpeg, .tif, .tiff or .webp.
        pixels: (H, W, 3) float in [0, 1], rounded to the nearest level; values outside are clipped.
        alpha: (H, W) float in [0, 1]; JPEG cannot hold it, so there the picture is laid over white.
        bit_depth: 8, or 16 for PNG and TIFF.
        icc: Profile to embed; it must be the one that `pixels` are in. None means sRGB, as everyone assumes.
        exif: EXIF block to embed; a TIFF of 16 bits takes only its texts (maker, artist, date...).
        quality: 1 to 100, for JPEG and WebP.

    Raises:
        BadInput: The suffix is unknown, the format cannot hold 16 bits or so many pixels.
        ValueError: An array has a wrong shape or holds nan.
    """
    target = Path(path)
    kind = _WRITABLE.get(target.suffix.lower())
    if kind is None:
        raise BadInput(
            f"{target}: cannot write {target.suffix or 'a file without suffix'}, expected {', '.join(_WRITABLE)}"
        )
    if bit_depth not in (8, 16) or (bit_depth == 16 and kind not in ("PNG", "TIFF")):
        raise BadInput(f"{target}: {kind} with {bit_depth} bits per channel: expected 8, or 16 in .png and .tif")
    picture = _stacked(pixels, alpha)
    with atomic_path(target) as temporary:
        if bit_depth == 8:
            _save_8_bit(temporary, target, kind, picture, {"icc_profile": icc, "exif": exif}, quality=quality)
            return
        samples = (np.clip(picture, 0, 1) * 65535 + 0.5).astype(np.uint16)
        if kind == "PNG":
            temporary.write_bytes(png16.encode(samples, icc=icc, exif=exif))
        else:
            tiff16.write(temporary, samples, icc=icc, texts=_exif_texts(exif))


def to_uint8(array: NDArray[Any]) -> NDArray[np.uint8]:
    """Return floats in [0, 1] as levels 0 to 255, rounded to the nearest and clipped."""
    levels: NDArray[np.uint8] = (np.clip(array, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
    return levels


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
        colour, depth = _deep_gray(opaque, history), 16
        colour = _to_srgb_deep(colour, profile, history)
    else:
        if image.mode in ("P", "PA"):
            history.append("palette->rgb")
        colour, depth = _as_unit(_to_srgb(opaque, profile, history)), 8
    return _Planes(colour, alpha, depth, profile, orientation, exif, tuple(history), image.format or "unknown")


def _deep_png_planes(file: IO[bytes], image: Image.Image) -> _Planes:
    history = _frame_notes(image)
    image.load()
    exif, orientation = _exif_of(image, history)
    profile = image.info.get("icc_profile") or None
    file.seek(0)
    samples = png16.decode(file.read())
    colours = 1 if samples.shape[2] <= 2 else 3
    colour = samples[..., :colours].astype(np.float32) / np.float32(65535)
    alpha = samples[..., colours].astype(np.float32) / np.float32(65535) if samples.shape[2] > colours else None
    key = image.info.get("transparency")
    if alpha is None and key is not None:
        # Pillow gives the key of a gray file as one number and that of RGB as three, both at the file's own 16 bits.
        alpha = np.any(samples != np.array(key, np.uint16), axis=-1).astype(np.float32)
    history.append("16-bit")
    colour = _to_srgb_deep(colour, profile, history)
    return _Planes(colour, _unless_opaque(alpha), 16, profile, orientation, exif, tuple(history), "PNG")


def _deep_tiff_planes(file: IO[bytes], deep: tiff16.DeepTiff) -> _Planes:
    history: list[str] = []
    if deep.pages > 1:
        history.append("multi-page: first page")
    history += deep.notes
    colour = _to_srgb_deep(deep.colour, deep.icc, history)
    exif = None
    try:
        with opened(file) as image:
            exif, _ = _exif_of(image, history)
    except (OSError, SyntaxError, ValueError):  # a layout that only tifffile knows
        if deep.has_exif:
            history.append("exif ignored: unreadable")
    return _Planes(colour, _unless_opaque(deep.alpha), 16, deep.icc, deep.orientation, exif, tuple(history), "TIFF")


def _upright(planes: _Planes) -> Photo:
    history = planes.history
    if planes.orientation != 1:
        history = (*history, f"exif-rotated {planes.orientation}")
    return Photo(
        pixels=_turn(planes.colour, planes.orientation),
        alpha=None if planes.alpha is None else _turn(planes.alpha, planes.orientation),
        bit_depth=planes.bit_depth,
        icc=planes.icc,
        exif=planes.exif,
        history=history,
        format=planes.format,
    )


def _turn(array: NDArray[np.float32], orientation: int) -> NDArray[np.float32]:
    # EXIF 2.32, table 6: which edges of the stored picture are its top row and left column.
    if orientation in (5, 6, 7, 8):
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
        block = kept.tobytes() if len(kept) else None
    except Exception:  # noqa: BLE001 - a damaged EXIF block, on which Pillow raises nearly anything, spoils no photo
        history.append("exif ignored: unreadable")
        return None, 1
    return block, orientation if isinstance(orientation, int) and orientation in range(1, 9) else 1


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


def _split_alpha(image: Image.Image) -> tuple[NDArray[np.float32] | None, Image.Image]:
    if not image.has_transparency_data:
        return None, image
    full = image.convert("RGBA")
    alpha = _as_unit(full.getchannel("A"))
    opaque = full.convert("L") if image.mode in ("L", "LA", "La", "1") else full.convert("RGB")
    return _unless_opaque(alpha), opaque


def _as_unit(image: Image.Image) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = np.asarray(image).astype(np.float32)
    unit /= np.float32(255)
    return unit


def _unless_opaque(alpha: NDArray[np.float32] | None) -> NDArray[np.float32] | None:
    return None if alpha is None or bool((alpha >= 1).all()) else alpha


def _to_srgb(image: Image.Image, profile: bytes | None, history: list[str]) -> Image.Image:
    """Return an 8-bit picture of any mode in sRGB, by its profile where that is sound and fits."""
    if image.mode in ("P", "PA", "RGBX", "YCbCr", "HSV", "RGBa"):
        image = image.convert("RGB")
    elif image.mode == "1":
        image = image.convert("L")
    gray, inks = image.mode == "L", image.mode == "CMYK"
    converted = None
    if profile is not None and not _is_srgb(profile):
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


def _by_profile(image: Image.Image, profile: bytes, history: list[str]) -> Image.Image | None:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        name = ImageCms.getProfileDescription(source).strip() or "profile"
        converted = ImageCms.profileToProfile(
            image,
            source,
            _srgb(),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError, SyntaxError):
        history.append("icc ignored: unreadable or for another kind of picture")
        return None
    history.append(f"icc {name}->srgb")
    return converted


def _to_srgb_deep(colour: NDArray[np.float32], profile: bytes | None, history: list[str]) -> NDArray[np.float32]:
    """Return (H, W, 1 or 3) floats as (H, W, 3) in sRGB without dropping to 8 bits where the profile allows."""
    channels = colour.shape[-1]
    if profile is not None and not _is_srgb(profile):
        parsed = icc_profiles.parse(profile)
        if parsed is not None and len(parsed.curves) == channels:
            colour = parsed.to_srgb(colour)
            history.append(f"icc {_profile_name(profile)}->srgb")
        else:
            colour = _by_profile_in_8_bits(colour, profile, history)
    if channels == 1:
        history.append("gray->rgb")
    return np.repeat(colour, 3, axis=-1) if colour.shape[-1] == 1 else colour


def _by_profile_in_8_bits(colour: NDArray[np.float32], profile: bytes, history: list[str]) -> NDArray[np.float32]:
    levels = to_uint8(colour)
    image = Image.fromarray(levels[..., 0] if levels.shape[-1] == 1 else levels)
    converted = _by_profile(image, profile, history)
    if converted is None:
        return colour
    # The profile's tables bend colours smoothly: what they add is taken at 8 bits, the picture keeps its own 16.
    base = np.asarray(image.convert("RGB"), np.float32)
    shift = (np.asarray(converted, np.float32) - base) / np.float32(255)
    return np.clip(colour + shift, 0.0, 1.0)


def _profile_name(profile: bytes) -> str:
    try:
        return ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile))).strip() or "profile"
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return "profile"


def _is_srgb(profile: bytes) -> bool:
    parsed = icc_profiles.parse(profile)
    return parsed is not None and parsed.matrix is not None and parsed.is_srgb()


def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def _deep_gray(image: Image.Image, history: list[str]) -> NDArray[np.float32]:
    samples = np.asarray(image)
    if samples.dtype.kind == "f":
        raise RejectedImage("gray picture of floats outside TIFF: its units are unknown")
    if samples.min() < 0 or samples.max() > 65535:
        raise RejectedImage("gray picture with 32-bit samples: expected at most 16 bits")
    history.append("16-bit")
    return (samples.astype(np.float32) / np.float32(65535))[..., None]


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


def _stacked(pixels: NDArray[Any], alpha: NDArray[Any] | None) -> NDArray[Any]:
    if pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise ValueError(f"pixels of shape {pixels.shape}, expected (H, W, 3)")
    if alpha is not None and alpha.shape != pixels.shape[:2]:
        raise ValueError(f"alpha of shape {alpha.shape}, expected {pixels.shape[:2]} like the pixels")
    picture = pixels if alpha is None else np.concatenate([pixels, alpha[..., None]], axis=-1)
    if np.isnan(picture).any():
        raise ValueError("nan among the pixels: expected numbers from 0 to 1")
    return picture


def _save_8_bit(
    temporary: Path,
    target: Path,
    kind: str,
    picture: NDArray[Any],
    blocks: dict[str, bytes | None],
    *,
    quality: int,
) -> None:
    if kind == "JPEG" and picture.shape[-1] == 4:
        picture = picture[..., :3] * picture[..., 3:] + (1 - picture[..., 3:])
    options: dict[str, Any] = {name: block for name, block in blocks.items() if block is not None}
    if kind == "JPEG":
        # Below 90 nobody sees the halved colour; above it red edges would show.
        options |= {"quality": quality, "optimize": True, "subsampling": 0 if quality >= 90 else 2}
    elif kind == "WEBP":
        options |= {"quality": quality, "method": 4}
    elif kind == "TIFF":
        # With packing Pillow leaves the work to libtiff, which cannot write the blocks within an EXIF block.
        options |= {"compression": "raw" if blocks["exif"] else "tiff_deflate"}
    try:
        Image.fromarray(to_uint8(picture)).save(temporary, format=kind, **options)
    except (OSError, ValueError) as error:
        height, width = picture.shape[:2]
        raise BadInput(f"{target}: cannot write {width} x {height} pixels as {kind} ({error})") from error


def _exif_texts(exif: bytes | None) -> dict[str, str]:
    if exif is None:
        return {}
    block = Image.Exif()
    block.load(exif)
    names = {270: "ImageDescription", 271: "Make", 272: "Model", 306: "DateTime", 315: "Artist", 33432: "Copyright"}
    texts = {name: str(block[tag]) for tag, name in names.items() if tag in block}
    return {name: text for name, text in texts.items() if text.isascii()}
