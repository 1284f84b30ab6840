"""Puts XMP into a copy of a photo file whose picture stays as it is, byte for byte."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

from vernissage.core.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterator

_JPEG_START, _PNG_START = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
# XMP specification part 3, section 1.1.3: the segment's identifier.
_JPEG_XMP, _JPEG_EXIF = b"http://ns.adobe.com/xap/1.0/\0", b"Exif\0\0"
#: Longest packet that a JPEG holds without the extension that few programs read (same section).
JPEG_LARGEST = 65502
_APP0, _APP1, _SCAN = 0xE0, 0xE1, 0xDA
# PNG specification, section 11.3.4.5: keyword, no compression, empty language and translated keyword.
_PNG_XMP = b"XML:com.adobe.xmp\0\0\0\0\0"


def with_packet(photo: bytes, packet: bytes) -> bytes | None:
    """The same file with another XMP packet; not one byte of its picture is coded again.

    Args:
        photo: A whole JPEG or PNG file.
        packet: What to put in; an older packet goes.

    Returns:
        The new file; None where the file is of another kind, or so damaged that it is better left alone.

    Raises:
        BadInput: The packet is too long for a JPEG.
    """
    if photo.startswith(_JPEG_START):
        return _jpeg_with(photo, packet)
    if photo.startswith(_PNG_START):
        return _png_with(photo, packet)
    return None


def _jpeg_with(photo: bytes, packet: bytes) -> bytes | None:
    if len(packet) > JPEG_LARGEST:
        raise BadInput(f"XMP of {len(packet)} bytes: a JPEG holds at most {JPEG_LARGEST}")
    kept: list[bytes] = []
    place = 0
    for start, end, marker in _jpeg_segments(photo):
        if marker == _SCAN:
            body = b"\xff\xe1" + struct.pack(">H", len(_JPEG_XMP) + len(packet) + 2) + _JPEG_XMP + packet
            return b"".join((_JPEG_START, *kept[:place], body, *kept[place:], photo[start:]))
        content = photo[start + 4 : end]
        if marker == _APP1 and content.startswith(_JPEG_XMP):
            continue
        kept.append(photo[start:end])
        if marker == _APP0 or (marker == _APP1 and content.startswith(_JPEG_EXIF)):
            # Readers look for XMP right after JFIF and EXIF.
            place = len(kept)
    return None


def _jpeg_segments(photo: bytes) -> Iterator[tuple[int, int, int]]:
    """Start, end and marker of each segment up to the first scan; ends early where a file does not follow the rules."""
    at = 2
    while at + 4 <= len(photo) and photo[at] == 0xFF:
        marker = photo[at + 1]
        if marker == 0xFF:  # a filler byte
            at += 1
            continue
        end = at + 2 + int.from_bytes(photo[at + 2 : at + 4], "big")
        if marker == 0 or 0xD0 <= marker <= 0xD9 or end > len(photo) or end < at + 4:
            return
        yield at, end, marker
        if marker == _SCAN:
            return
        at = end


def _png_with(photo: bytes, packet: bytes) -> bytes | None:
    chunks, at, placed = [_PNG_START], len(_PNG_START), False
    content = b"iTXt" + _PNG_XMP + packet
    ours = struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))
    while at + 12 <= len(photo):
        length = int.from_bytes(photo[at : at + 4], "big")
        chunk = photo[at : at + 12 + length]
        if len(chunk) < 12 + length:
            return None
        kind = chunk[4:8]
        if kind == b"IDAT" and not placed:
            chunks.append(ours)
            placed = True
        if not (kind == b"iTXt" and chunk[8:].startswith(_PNG_XMP[:18])):
            chunks.append(chunk)
        at += len(chunk)
        if kind == b"IEND":
            # What programs append behind the end stays where it was.
            return b"".join((*chunks, photo[at:])) if placed else None
    return None
