"""Short videos without a video library: pictures that Pillow encodes as AV1, in an MP4 container written here.

Every common way from Python to H.264 brings a copyleft encoder along: imageio-ffmpeg's wheel holds a GPL build of
ffmpeg, PyAV's wheel libx264 and libx265. Pillow's AVIF encoder (libavif and libaom, both BSD) makes AV1, and an AVIF
sequence holds the same samples as a video does; only the boxes around them differ. Browsers, VLC, mpv and ffmpeg play
the result.

Sources: ISO/IEC 14496-12 (boxes), "AV1 Codec ISO Media File Format Binding" (sample entry).
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, features

from vernissage.core.errors import BadInput
from vernissage.core.files import atomic_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

#: Time is counted in milliseconds, as Pillow does.
_TIMESCALE = 1000
_CONTAINERS = {b"moov", b"trak", b"mdia", b"minf", b"stbl"}
# Size of the fixed fields before the boxes inside: of a sample entry of pictures, and of the list of sample entries.
_PICTURE_ENTRY_BYTES, _ENTRY_LIST_BYTES = 78, 8
_IDENTITY = struct.pack(">9I", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)


@dataclass(frozen=True)
class Frame:
    """One picture of a video.

    Attributes:
        pixels: (H, W, 3) uint8, even height and width.
        seconds: How long it is shown.
    """

    pixels: NDArray[np.uint8]
    seconds: float


@dataclass(frozen=True)
class _Coded:
    """Samples of one scene; the first can be decoded without any before it."""

    samples: list[bytes]
    milliseconds: list[int]
    codec_boxes: bytes


def video_suffix() -> str:
    """Return `.mp4`, or `.webp` (an animated picture) where this Pillow was built without an AVIF encoder."""
    return ".mp4" if features.check("avif") else ".webp"


def write_video(path: Path | str, scenes: Iterable[Sequence[Frame]], *, quality: int = 80) -> None:
    """Write a video atomically; the same frames give the same bytes with the same Pillow.

    Args:
        path: Ends in .mp4 (AV1) or .webp (animated picture).
        scenes: Frames in order. A player can jump to the beginning of each scene; only one scene is held in memory for
            .mp4, all of them for .webp.
        quality: 0 to 100.

    Raises:
        BadInput: The suffix is unknown, or .mp4 is asked of a Pillow without an AVIF encoder.
        ValueError: There is no frame, or frames are not all uint8 of one even size.
    """
    target = Path(path)
    if target.suffix not in {".mp4", ".webp"}:
        raise BadInput(f"{target}: cannot write {target.suffix or 'a file without suffix'}, expected .mp4 or .webp")
    if target.suffix == ".mp4" and not features.check("avif"):
        raise BadInput(f"{target}: this Pillow has no AVIF encoder; install a wheel of pillow >= 11.3 or write .webp")
    checked = _checked(target, scenes)
    with atomic_path(target) as temporary:
        if target.suffix == ".webp":
            _save_webp(temporary, [frame for scene in checked for frame in scene], quality)
            return
        first = next(checked)
        height, width = first[0].pixels.shape[:2]
        coded = [_encode(first, quality), *(_encode(scene, quality) for scene in checked)]
        temporary.write_bytes(_movie(coded, width, height))


def _checked(target: Path, scenes: Iterable[Sequence[Frame]]) -> Iterator[Sequence[Frame]]:
    shape: tuple[int, ...] = ()
    for scene in scenes:
        for frame in scene:
            shape = shape or frame.pixels.shape
            even = len(shape) == 3 and shape[2] == 3 and not (shape[0] % 2 or shape[1] % 2)
            if frame.pixels.dtype != np.uint8 or frame.pixels.shape != shape or not even or frame.seconds <= 0:
                raise ValueError(
                    f"{target}: frame of {frame.pixels.dtype} {frame.pixels.shape} for {frame.seconds} s, expected "
                    f"uint8 {shape} with even sides for longer than 0 s"
                )
        if scene:
            yield scene
    if not shape:
        raise ValueError(f"{target}: got no frames, expected at least one")


def _encode(scene: Sequence[Frame], quality: int) -> _Coded:
    if len(scene) == 1:  # one picture alone would become a still without a track
        half = Frame(scene[0].pixels, scene[0].seconds / 2)
        scene = [half, half]
    pictures = [Image.fromarray(frame.pixels) for frame in scene]
    buffer = io.BytesIO()
    pictures[0].save(
        buffer,
        format="AVIF",
        save_all=True,
        append_images=pictures[1:],
        duration=[_milliseconds(frame) for frame in scene],
        quality=quality,
        subsampling="4:2:0",  # the profile that every decoder of AV1 knows
        speed=8,
        max_threads=1,  # the same bytes on every machine
    )
    return _track_of(buffer.getvalue())


def _save_webp(path: Path, frames: Sequence[Frame], quality: int) -> None:
    pictures = [Image.fromarray(frame.pixels) for frame in frames]
    durations = [_milliseconds(frame) for frame in frames]
    pictures[0].save(
        path, format="WEBP", save_all=True, append_images=pictures[1:], duration=durations, quality=quality, loop=0
    )


def _milliseconds(frame: Frame) -> int:
    return max(1, round(frame.seconds * _TIMESCALE))


# --- reading the track of an AVIF sequence ----------------------------------------------------------------------------


def _track_of(avif: bytes) -> _Coded:
    """Take the samples of a sequence out of its boxes."""
    boxes = dict(_boxes(avif, 0, len(avif)))
    sizes = struct.unpack(f">{_count(boxes[b'stsz'], 8)}I", boxes[b"stsz"][12:])
    runs = struct.iter_unpack(">II", boxes[b"stts"][8:])
    if _count(boxes[b"stco"], 4) != 1:
        raise BadInput("this Pillow scatters the samples of an AVIF sequence over its file; write .webp instead")
    at = _count(boxes[b"stco"], 8)
    samples = []
    for size in sizes:
        samples.append(avif[at : at + size])
        at += size
    milliseconds = [duration for count, duration in runs for _ in range(count)]
    entry = boxes[b"stsd"][_ENTRY_LIST_BYTES + 8 :]
    # What a decoder must know; the other boxes in an entry (such as `ccst`) are about still pictures.
    kept = {kind: body for kind, body in _boxes(entry, _PICTURE_ENTRY_BYTES, len(entry)) if kind in {b"av1C", b"colr"}}
    return _Coded(samples, milliseconds, b"".join(_box(kind, body) for kind, body in sorted(kept.items())))


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield the kind and the body of every box, going into containers instead of yielding them."""
    while start < end:
        size, kind = struct.unpack_from(">I4s", data, start)
        if size < 8:  # 0: up to the end of the file; 1: a size of 64 bits, which a short video never needs
            size = end - start
        if kind in _CONTAINERS:
            yield from _boxes(data, start + 8, start + size)
        else:
            yield kind, data[start + 8 : start + size]
        start += size


def _count(body: bytes, at: int) -> int:
    return int(struct.unpack_from(">I", body, at)[0])


# --- writing a movie --------------------------------------------------------------------------------------------------


def _movie(scenes: Sequence[_Coded], width: int, height: int) -> bytes:
    """Put scenes behind each other: ISO/IEC 14496-12 with one track, its index in front, so that players can stream."""
    samples = [sample for scene in scenes for sample in scene.samples]
    head = _box(b"ftyp", b"isom" + struct.pack(">I", 512) + b"isomiso2av01mp41")
    offset = 0
    for _ in range(2):  # the size of the index does not depend on the offset in it
        index = _index(scenes, width, height, offset)
        offset = len(head) + len(index) + 8
    return head + index + _box(b"mdat", b"".join(samples))


def _index(scenes: Sequence[_Coded], width: int, height: int, offset: int) -> bytes:
    durations = [value for scene in scenes for value in scene.milliseconds]
    total = sum(durations)
    movie = struct.pack(">IIIIIH10x", 0, 0, _TIMESCALE, total, 1 << 16, 1 << 8) + _IDENTITY + bytes(24)
    movie += struct.pack(">I", 2)
    track = struct.pack(">IIIII8xHHH2x", 0, 0, 1, 0, total, 0, 0, 0) + _IDENTITY
    track += struct.pack(">II", width << 16, height << 16)
    media = struct.pack(">IIIIHH", 0, 0, _TIMESCALE, total, 0x55C4, 0)  # 0x55C4: language `und`
    handler = struct.pack(">I4s12x", 0, b"vide") + b"vernissage\0"
    here = _full(b"dref", struct.pack(">I", 1) + _full(b"url ", b"", flags=1))
    information = _box(
        b"minf", _full(b"vmhd", bytes(8), flags=1) + _box(b"dinf", here) + _table(scenes, (width, height), offset)
    )
    described = _full(b"mdhd", media) + _full(b"hdlr", handler) + information
    # Flags 3: enabled and part of the movie.
    tracks = _box(b"trak", _full(b"tkhd", track, flags=3) + _box(b"mdia", described))
    return _box(b"moov", _full(b"mvhd", movie) + tracks)


def _table(scenes: Sequence[_Coded], size: tuple[int, int], offset: int) -> bytes:
    sizes = [len(sample) for scene in scenes for sample in scene.samples]
    durations = [value for scene in scenes for value in scene.milliseconds]
    starts, at = [], 1
    for scene in scenes:
        starts.append(at)
        at += len(scene.samples)
    # 72 dpi, one frame per sample, no name, 24 bits of depth.
    fixed = struct.pack(">6xH16xHHIIIH32xHh", 1, *size, 72 << 16, 72 << 16, 0, 1, 24, -1)
    entry = _box(b"av01", fixed + scenes[0].codec_boxes)
    parts = (
        _full(b"stsd", struct.pack(">I", 1) + entry),
        _full(b"stts", _list(">II", [(1, duration) for duration in durations])),
        _full(b"stss", _list(">I", [(start,) for start in starts])),
        _full(b"stsc", _list(">III", [(1, len(sizes), 1)])),
        _full(b"stsz", struct.pack(">I", 0) + _list(">I", [(size_of_sample,) for size_of_sample in sizes])),
        _full(b"stco", _list(">I", [(offset,)])),
    )
    return _box(b"stbl", b"".join(parts))


def _list(layout: str, rows: Sequence[tuple[int, ...]]) -> bytes:
    return struct.pack(">I", len(rows)) + b"".join(struct.pack(layout, *row) for row in rows)


def _full(kind: bytes, body: bytes, flags: int = 0) -> bytes:
    return _box(kind, struct.pack(">I", flags) + body)


def _box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", len(body) + 8, kind) + body
