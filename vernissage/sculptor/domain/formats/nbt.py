"""Reads and writes NBT, the tagged binary data of the game, from files that nobody vouches for.

Layout: https://minecraft.wiki/w/NBT_format (big-endian, as in Java Edition).
"""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from typing import TYPE_CHECKING, Any, TypeVar, cast

from vernissage.core.errors import BadInput

if TYPE_CHECKING:
    from vernissage.sculptor.domain.formats.limits import Limits

Tag = TypeVar("Tag")

_END, _STRING, _LIST, _COMPOUND = 0, 8, 9, 10
_NUMBER_BYTES = {1: 1, 2: 2, 3: 4, 4: 8, 5: 4, 6: 8}
_ARRAY_ITEM_BYTES = {7: 1, 11: 4, 12: 8}
_KINDS = range(13)
_GZIP_MAGIC = b"\x1f\x8b"
_ANY_WRAPPER = 32 + zlib.MAX_WBITS  # tells zlib to find out itself whether it is gzip or zlib


def read_nbt(data: bytes, limits: Limits) -> Any:
    """Return the root compound (an `nbtlib.File`, a dict with `root_name`) of NBT that is gzip, zlib or not packed.

    Raises:
        BadInput: It is no NBT with a compound at its root, ends too early, is damaged, or is beyond the limits.
    """
    import nbtlib

    raw = unpack(data, limits)
    # nbtlib takes missing bytes for zeros and believes every length, so the file is walked through before.
    check_nbt(raw, limits)
    return nbtlib.File.parse(io.BytesIO(raw))


def write_nbt(compound: Any, *, root_name: str = "") -> bytes:
    """Return a compound as gzipped NBT; equal compounds make equal bytes."""
    import nbtlib

    target = io.BytesIO()
    nbtlib.File(compound, root_name=root_name).write(target)
    return gzip.compress(target.getvalue(), mtime=0)


def field(compound: Any, name: str, kind: type[Tag]) -> Tag:
    """Return a field of a compound.

    Raises:
        BadInput: It is missing, or of another kind of tag, or what should hold it is no compound.
    """
    if not isinstance(compound, dict):
        raise BadInput(f"a {type(compound).__name__}: expected a compound with {name} in it")
    if name not in compound:
        present = ", ".join(sorted(map(str, compound))[:12]) or "nothing"
        raise BadInput(f"{name} is missing: expected a field {name} of type {kind.__name__}, found {present}")
    value = compound[name]
    if not isinstance(value, kind):
        raise BadInput(f"{name} is of type {type(value).__name__}: expected {kind.__name__}")
    return value


def unpack(data: bytes, limits: Limits) -> bytes:
    """Return the bytes inside a gzip or zlib wrapper, or the data itself where there is none.

    Raises:
        BadInput: Empty, damaged, cut off, or more than `max_bytes` when unpacked.
    """
    if not data:
        raise BadInput("an empty file: expected NBT")
    if data[:2] != _GZIP_MAGIC and not _is_zlib(data):
        return _within(data, limits)
    unpacker = zlib.decompressobj(_ANY_WRAPPER)
    try:
        raw = unpacker.decompress(data, limits.max_bytes + 1)
    except zlib.error as error:
        raise BadInput(f"damaged compressed data ({error}): expected gzip, zlib or plain NBT") from error
    _within(raw, limits)
    if not unpacker.eof:
        raise BadInput(f"ends in the middle of the compressed data (after {len(data):,} bytes): expected a whole file")
    return raw


def check_nbt(raw: bytes, limits: Limits) -> None:
    """Walk through unpacked NBT without building anything; bytes after the root compound are let pass.

    Raises:
        BadInput: The root is no compound, a length or an unknown tag leads outside, or depth or number of the tags
            are beyond the limits.
    """
    walk = _Walk(raw)
    if (root := walk.number("B", "the root tag")) != _COMPOUND:
        raise BadInput(f"begins with tag {root}: expected NBT with a compound (tag {_COMPOUND}) at its root")
    walk.text("the name of the root")
    # A frame is the kind of its items and how many are left; a compound's items name their own kind, its end is a tag.
    frames: list[tuple[int | None, int]] = [(None, 0)]
    tags = 1
    while frames:
        kind, left = frames[-1]
        if kind is None:
            tag = walk.number("B", "a compound")
            if tag == _END:
                frames.pop()
                continue
            walk.text("the name of a tag")
        elif left == 0:
            frames.pop()
            continue
        else:
            frames[-1] = (kind, left - 1)
            tag = kind
        tags += walk.value(tag, frames)
        if tags > limits.max_tags:
            raise BadInput(f"more than {limits.max_tags:,} NBT tags: no more than that pass")
        if len(frames) > limits.max_depth:
            raise BadInput(f"NBT nested deeper than {limits.max_depth}: no more than that pass")


class _Walk:
    """A position in bytes that only moves forward and never beyond the end."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.position = 0

    def skip(self, count: int, where: str) -> int:
        """Move on and return where the skipped bytes began."""
        start = self.position
        left = len(self.raw) - start
        if count > left:
            raise BadInput(f"ends in the middle of {where}: {count:,} bytes expected at byte {start:,}, {left:,} left")
        self.position += count
        return start

    def number(self, form: str, where: str) -> int:
        return cast("int", struct.unpack_from(f">{form}", self.raw, self.skip(struct.calcsize(form), where))[0])

    def text(self, where: str) -> None:
        self.skip(self.number("H", where), where)

    def value(self, tag: int, frames: list[tuple[int | None, int]]) -> int:
        """Skip a value, or open a frame for what it holds; return how many tags it made."""
        if tag in _NUMBER_BYTES:
            self.skip(_NUMBER_BYTES[tag], "a number")
        elif tag in _ARRAY_ITEM_BYTES:
            self.skip(self._length("an array") * _ARRAY_ITEM_BYTES[tag], "an array")
        elif tag == _STRING:
            self.text("a string")
        elif tag == _LIST:
            return self._list(frames)
        elif tag == _COMPOUND:
            frames.append((None, 0))
        else:
            raise BadInput(f"unknown NBT tag {tag} before byte {self.position:,}: expected 0 to 12")
        return 1

    def _list(self, frames: list[tuple[int | None, int]]) -> int:
        kind = self.number("B", "a list")
        length = max(self._length("a list", negative=True), 0)
        if kind not in _KINDS:
            raise BadInput(f"a list of unknown NBT tag {kind} before byte {self.position:,}: expected 0 to 12")
        if kind == _END and length:
            raise BadInput(f"a list of {length:,} items without a type before byte {self.position:,}")
        if kind in _NUMBER_BYTES:
            self.skip(length * _NUMBER_BYTES[kind], "a list")
            return 1 + length
        frames.append((kind, length))
        return 1

    def _length(self, where: str, *, negative: bool = False) -> int:
        length = self.number("i", where)
        if length < 0 and not negative:
            raise BadInput(f"{where} of length {length} before byte {self.position:,}: expected 0 or more")
        return length


def _is_zlib(data: bytes) -> bool:
    # RFC 1950: method 8 in the low half byte, and the first two bytes as one number are a multiple of 31.
    return len(data) > 1 and data[0] & 0x0F == 8 and data[0] >> 4 <= 7 and int.from_bytes(data[:2], "big") % 31 == 0


def _within(raw: bytes, limits: Limits) -> bytes:
    if len(raw) > limits.max_bytes:
        raise BadInput(f"more than {limits.max_bytes:,} bytes when unpacked: no more than that pass")
    return raw
