"""The photographs inside scikit-image and scikit-learn, cut into overlapping crops: a dataset without downloads.

What was chosen, after looking at every picture file in the two packages:

===================  =========  ====  ============================================================================
picture              category   crops reason
===================  =========  ====  ============================================================================
astronaut            people     all   studio portrait, full tonal range
chelsea              animals    all   cat, close-up in soft light
coffee               objects    all   still life, warm light, deep shadows
motorcycle (2 views) objects    all   garage, mixed light; the stereo views share one group and one quota
rocket               places     all   launch pad at dusk, point lights
china                places     all   palace in daylight, hazy sky
flower               plants     all   close-up with blurred background
camera               people     1/3   monochrome: teaches tones, says nothing about colour
coins                objects    1/3   monochrome, uneven museum light
brick, grass, gravel textures   1/3   monochrome close-ups of surfaces
moon                 left out         so flat that it serves as the textbook example for contrast stretching: not a
                                      picture that a juror should learn to call good
hubble_deep_field    left out         stacked telescope exposures, almost all black
clock_motion         left out         spoilt on purpose by camera movement
retina, ihc, cell,   left out         medical and microscope pictures
microaneurysms
page, text           left out         documents
horse, logo, color,  left out         drawings and diagrams
phantom, chessboards
===================  =========  ====  ============================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from vernissage.core.errors import MissingArtifact
from vernissage.core.images import read_photo, to_uint8
from vernissage.core.seeds import numpy_generator

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Crops larger than this are shrunk: the dataset needs no more, and the disk is spared.
LONGEST_CROP_EDGE = 512
#: Width over height: square, the common print and screen formats, landscape and portrait.
ASPECT_RATIOS = (1.0, 3 / 2, 2 / 3, 4 / 3, 3 / 4, 16 / 9, 9 / 16)
# Monochrome photos get a third of the crops, so that they do not outweigh those with colour.
_FEWER = 1 / 3

_CC0 = "CC0 1.0"
_CC_BY = "CC BY 2.0"
_PUBLIC = "public domain"


@dataclass(frozen=True)
class SamplePhoto:
    """One photograph inside an installed package.

    Attributes:
        name: Identifier and group; views of one scene are one photo with several files.
        category: Folder that its crops go to.
        package: ``skimage`` or ``sklearn``.
        files: Paths inside the package's folder.
        licence: What the package says about the picture's terms.
        share: Share of the usual number of crops.
    """

    name: str
    category: str
    package: str
    files: tuple[str, ...]
    licence: str
    share: float = 1.0

    @property
    def source(self) -> str:
        """Where it comes from, for the table."""
        return f"{_PACKAGE_TITLES[self.package]}: {self.name}"


_PACKAGE_TITLES = {"skimage": "scikit-image", "sklearn": "scikit-learn"}

SAMPLE_PHOTOS: tuple[SamplePhoto, ...] = (
    SamplePhoto("astronaut", "people", "skimage", ("data/astronaut.png",), f"{_PUBLIC}, NASA"),
    SamplePhoto("chelsea", "animals", "skimage", ("data/chelsea.png",), f"{_CC0}, Stefan van der Walt"),
    SamplePhoto("coffee", "objects", "skimage", ("data/coffee.png",), f"{_CC0}, Rachel Michetti"),
    SamplePhoto(
        "motorcycle", "objects", "skimage", ("data/motorcycle_left.png", "data/motorcycle_right.png"),
        "terms not stated, Middlebury stereo data set 2014, D. Scharstein et al.",
    ),
    SamplePhoto("rocket", "places", "skimage", ("data/rocket.jpg",), f"{_PUBLIC}, SpaceX"),
    SamplePhoto("china", "places", "sklearn", ("datasets/images/china.jpg",), f"{_CC_BY}, danielbuechele"),
    SamplePhoto("flower", "plants", "sklearn", ("datasets/images/flower.jpg",), f"{_CC_BY}, vultilion"),
    SamplePhoto("camera", "people", "skimage", ("data/camera.png",), f"{_CC0}, Lav Varshney", _FEWER),
    SamplePhoto("coins", "objects", "skimage", ("data/coins.png",), "no known restrictions, Brooklyn Museum", _FEWER),
    SamplePhoto("brick", "textures", "skimage", ("data/brick.png",), f"{_CC0}, CC0Textures", _FEWER),
    SamplePhoto("grass", "textures", "skimage", ("data/grass.png",), f"{_CC0}, linolafett on DeviantArt", _FEWER),
    SamplePhoto("gravel", "textures", "skimage", ("data/gravel.png",), f"{_CC0}, CC0Textures", _FEWER),
)  # fmt: skip


@dataclass(frozen=True)
class Crop:
    """One crop of a sample photo.

    Attributes:
        name: File stem, unique over all samples.
        photo: Where it was cut from.
        pixels: (H, W, 3) uint8, encoded sRGB.
    """

    name: str
    photo: SamplePhoto
    pixels: np.ndarray


def read_sample(photo: SamplePhoto) -> list[np.ndarray]:
    """Read a sample photo from its installed package; nothing is downloaded.

    Args:
        photo: A row of ``SAMPLE_PHOTOS``.

    Returns:
        One (H, W, 3) uint8 array per view.

    Raises:
        MissingArtifact: If the package is not installed or came without the picture.
    """
    spec = find_spec(photo.package)
    folders = spec.submodule_search_locations if spec is not None else None
    if not folders:
        raise MissingArtifact(f"sample photo {photo.name}: package {photo.package} is not installed; `make install`")
    views = []
    for file in photo.files:
        path = Path(folders[0]) / file
        if not path.is_file():
            raise MissingArtifact(
                f"sample photo {photo.name}: {_PACKAGE_TITLES[photo.package]} came without {file}; "
                "install the version in constraints.txt, or bring your own photos: `vernissage ingest FOLDER`"
            )
        views.append(to_uint8(read_photo(path).samples))
    return views


def sample_crops(crops_per_photo: int, side_share: tuple[float, float], seed: int) -> Iterator[Crop]:
    """Cut all sample photos.

    Args:
        crops_per_photo: Crops of one colour scene; monochrome photos give a third, at least one.
        side_share: As in :func:`cut_crops`.
        seed: Root of the randomness; each view of each photo has its own generator.

    Yields:
        Crops, photo by photo.
    """
    for photo in SAMPLE_PHOTOS:
        count = max(1, round(crops_per_photo * photo.share))
        number = 0
        for view, pixels in enumerate(read_sample(photo)):
            # Views of one scene share the quota, so that the scene does not count twice.
            quota = count // len(photo.files) + (view < count % len(photo.files))
            rng = numpy_generator(seed, "crop", photo.name, view)
            for crop in cut_crops(pixels, quota, side_share, rng):
                yield Crop(f"{photo.name}-{number:03d}", photo, crop)
                number += 1


def cut_crops(
    pixels: np.ndarray, count: int, side_share: tuple[float, float], rng: np.random.Generator
) -> list[np.ndarray]:
    """Cut overlapping crops of random place, size and aspect ratio.

    A crop is the largest rectangle of its aspect ratio that fits into the photo, times a share drawn from
    ``side_share``; so every share and every ratio fits every photo.

    Args:
        pixels: (H, W, 3) uint8.
        count: Number of crops.
        side_share: Smallest and largest share, in (0, 1].
        rng: Source of randomness.

    Returns:
        ``count`` arrays (h, w, 3) uint8, long edge at most ``LONGEST_CROP_EDGE``.
    """
    return [_cut_crop(pixels, side_share, rng) for _ in range(count)]


def _cut_crop(pixels: np.ndarray, side_share: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    height, width = pixels.shape[:2]
    aspect = ASPECT_RATIOS[int(rng.integers(len(ASPECT_RATIOS)))]
    share = float(rng.uniform(*side_share))
    crop_height = min(height, width / aspect) * share
    size_y = min(height, max(1, round(crop_height)))
    size_x = min(width, max(1, round(crop_height * aspect)))
    top = int(rng.integers(height - size_y + 1))
    left = int(rng.integers(width - size_x + 1))
    return _shrink(pixels[top : top + size_y, left : left + size_x], LONGEST_CROP_EDGE)


def _shrink(pixels: np.ndarray, long_edge: int) -> np.ndarray:
    height, width = pixels.shape[:2]
    scale = long_edge / max(height, width)
    if scale >= 1:
        return np.ascontiguousarray(pixels)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))
