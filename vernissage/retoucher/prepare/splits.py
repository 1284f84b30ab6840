"""Which photos belong together, and which group goes into which split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import imagehash
import numpy as np
import scipy.fft
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from vernissage.core.errors import BadInput
from vernissage.core.seeds import derive_seed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SPLITS = ("train", "val", "test")
FEWEST_GROUPS = 3

_HASH_SIDE = 8
_HASH_BITS = _HASH_SIDE * _HASH_SIDE
# imagehash.phash looks at the lowest 8 x 8 cosine coefficients of the picture at 32 x 32.
_HASH_PICTURE_SIDE = 32
# Rounding to 8 bits gives each of those (unnormalised) coefficients a standard deviation of 4 sqrt(32 x 32 / 4 / 12).
_ROUNDING_NOISE = 18.5
_THUMBNAIL_SIDE = 8
# Flat pictures are near duplicates when no thumbnail channel differs by more, in 8-bit levels.
_FLAT_DIFFERENCE = 2
_ROWS_AT_ONCE = 512


@dataclass(frozen=True)
class Fingerprint:
    """What near duplicates are recognised by.

    Attributes:
        phash: Perceptual hash, 16 hexadecimal digits (DCT hash of Zauner 2010, as imagehash computes it).
        reliable: Whether most of its bits mean something; in flat pictures they are the sign of rounding noise.
        thumbnail: (192,) uint8, the picture at 8 x 8.
    """

    phash: str
    reliable: bool
    thumbnail: np.ndarray


@dataclass(frozen=True)
class SplitGroup:
    """One group of photos that must stay together.

    Attributes:
        name: Its name; decides, with the seed, which split it goes to.
        photos: Number of photos.
        monochrome: Whether most of its photos have no colour.
    """

    name: str
    photos: int
    monochrome: bool


def fingerprint(pixels: np.ndarray) -> Fingerprint:
    """Describe a picture for the search for near duplicates.

    Args:
        pixels: (H, W, 3) uint8.

    Returns:
        The fingerprint.
    """
    picture = Image.fromarray(pixels)
    digits = str(imagehash.phash(picture, hash_size=_HASH_SIDE))
    side = (_HASH_PICTURE_SIDE, _HASH_PICTURE_SIDE)
    grey = np.asarray(picture.convert("L").resize(side, Image.Resampling.LANCZOS), dtype=np.float64)
    low = scipy.fft.dctn(grey, type=2)[:_HASH_SIDE, :_HASH_SIDE]
    certain = np.abs(low - np.median(low)) > 2 * _ROUNDING_NOISE
    thumbnail = picture.resize((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE), Image.Resampling.BOX)
    return Fingerprint(digits, int(certain.sum()) >= _HASH_BITS // 2, np.asarray(thumbnail).reshape(-1))


def unite(
    groups: Sequence[str], sha256: Sequence[str], fingerprints: Sequence[Fingerprint], distance: int
) -> np.ndarray:
    """Number the sets of photos that must not be split.

    Photos belong together when they share a group, are equal bytes, or are near duplicates: hashes that differ in at
    most ``distance`` bits, or, where a hash says nothing (flat pictures), thumbnails that look the same. Being together
    is handed on: what belongs to one of them belongs to all.

    Args:
        groups: Source photo of each photo.
        sha256: Hash of each file.
        fingerprints: One per photo.
        distance: Largest Hamming distance of near duplicates, in bits.

    Returns:
        (N,) whole numbers from 1, in order of first appearance.
    """
    edges = [_equal_edges(groups), _equal_edges(sha256)]
    reliable = np.array([item.reliable for item in fingerprints], dtype=bool)
    hashes = np.array([int(item.phash, 16) for item in fingerprints], dtype=np.uint64)
    thumbnails = np.stack([item.thumbnail for item in fingerprints]).astype(np.int16)
    edges.append(_near_hashes(np.flatnonzero(reliable), hashes, distance))
    edges.append(_near_thumbnails(np.flatnonzero(~reliable), thumbnails))
    pairs = np.concatenate(edges)
    count = len(groups)
    graph = coo_array((np.ones(len(pairs), dtype=np.int8), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    labels = connected_components(graph, directed=False)[1]
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    order = np.argsort(np.argsort(first))
    return np.asarray(order[inverse] + 1)


def choose_splits(groups: Sequence[SplitGroup], val_share: float, test_share: float, seed: int) -> Mapping[str, str]:
    """Send every group to train, val or test.

    Shares count groups, so that one burst of a hundred pictures is one vote; a group that alone has more photos than a
    split's share of all photos stays in train while others can be had. Monochrome and colour groups are shared out
    separately, so that neither split holds only one kind where both are there. Within each kind groups are ordered by a
    hash of seed and name: a photo that is added later moves few of the others.

    Args:
        groups: At least three.
        val_share: Share of the groups that goes to val; at least one does.
        test_share: Share of the groups that goes to test; at least one does.
        seed: Root of the order.

    Returns:
        Group name to split.

    Raises:
        BadInput: If there are fewer than three groups.
    """
    if len(groups) < FEWEST_GROUPS:
        raise BadInput(
            f"annotate: found {len(groups)} group(s) of photos ({sum(g.photos for g in groups)} photos), expected at "
            f"least {FEWEST_GROUPS}: one each to learn from, to choose by and to judge with. Near duplicates and crops "
            "of one photo count as one group; add at least "
            f"{FEWEST_GROUPS - len(groups)} photo(s) of other scenes with `vernissage ingest FOLDER`"
        )
    photos = sum(group.photos for group in groups)
    split = {group.name: "train" for group in groups}
    for name, share in (("test", test_share), ("val", val_share)):
        left = [group for group in groups if split[group.name] == "train"]
        # Val comes second and must leave a group to learn from.
        wanted = min(max(1, round(share * len(groups))), len(left) - (2 if name == "test" else 1))
        kinds = [[g for g in left if g.monochrome == kind] for kind in (False, True)]
        whole = [sum(g.monochrome == kind for g in groups) for kind in (False, True)]
        for kind, quota in zip(kinds, _quotas(wanted, whole, [len(kind) for kind in kinds]), strict=True):
            kind.sort(key=lambda g: (_oversize(g, share * photos), derive_seed(seed, "split", g.name)))
            for group in kind[:quota]:
                split[group.name] = name
    return split


def _oversize(group: SplitGroup, most: float) -> int:
    """0 for groups that fit into a split; larger ones come after those, the smallest of them first."""
    return 0 if group.photos <= most else group.photos


def _quotas(wanted: int, whole: Sequence[int], available: Sequence[int]) -> list[int]:
    """Share out places by largest remainder; the first kind wins ties and gets one where it can spare a group."""
    exact = [wanted * size / sum(whole) for size in whole]
    quotas = [min(int(value), limit) for value, limit in zip(exact, available, strict=True)]
    while sum(quotas) < wanted:
        open_kinds = [i for i in range(len(whole)) if quotas[i] < available[i]]
        best = max(open_kinds, key=lambda i: (exact[i] - quotas[i], -i))
        quotas[best] += 1
    if quotas[0] == 0 and available[0] > 1:
        quotas[0], quotas[1] = 1, quotas[1] - 1
    return quotas


def _equal_edges(keys: Sequence[str]) -> np.ndarray:
    """Connect each item with the first one of the same key."""
    first: dict[str, int] = {}
    pairs = [(first.setdefault(key, position), position) for position, key in enumerate(keys)]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def _near_hashes(rows: np.ndarray, hashes: np.ndarray, distance: int) -> np.ndarray:
    found = []
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        some = rows[start : start + _ROWS_AT_ONCE]
        differing = np.bitwise_count(hashes[some, np.newaxis] ^ hashes[np.newaxis, rows])
        left, right = np.nonzero(differing <= distance)
        found.append(np.column_stack((some[left], rows[right])))
    return np.concatenate(found) if found else np.empty((0, 2), dtype=np.int64)


def _near_thumbnails(rows: np.ndarray, thumbnails: np.ndarray) -> np.ndarray:
    found = [np.empty((0, 2), dtype=np.int64)]
    for row in rows:
        near = np.abs(thumbnails[rows] - thumbnails[row]).max(axis=1) <= _FLAT_DIFFERENCE
        found.append(np.column_stack((np.full(int(near.sum()), row), rows[near])))
    return np.concatenate(found)
