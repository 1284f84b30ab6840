"""The files that one edited photo yields.

=======================  =============================================================================================
``NAME.EXT``             the photo, edited; its XMP says what was done, marked as applied already
``NAME.html``            the explanation as one page, with before and after
``NAME.steps.png``       the contact sheet of the steps
``NAME.recipe.json``     the exact recipe
``NAME.explained.json``  every number and sentence of the explanation
``NAME.cube``            what the recipe does to colours, as a lookup table
``sidecars/NAME.xmp``    develop settings for the *untouched* photo: belongs beside that, never beside the edited one
=======================  =============================================================================================

`NAME` is the photo's name without suffix. An *editable* delivery leaves the pixels alone: ``NAME.EXT`` is the photo as
it was, with the settings inside it (JPEG and PNG, where Lightroom looks) and in ``NAME.xmp`` beside it (every format,
where darktable looks). Of a RAW file only a preview can be read here, so no picture is delivered, but all the rest.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vernissage.core.errors import BadInput
from vernissage.core.files import atomic_write_bytes, atomic_write_text
from vernissage.core.photo_writing import write_photo
from vernissage.retoucher.domain import xmp
from vernissage.retoucher.domain.cube import to_cube
from vernissage.retoucher.domain.full_size import render_full_size, thumbnail
from vernissage.retoucher.use import outputs
from vernissage.retoucher.use.embedding import JPEG_LARGEST, with_packet
from vernissage.retoucher.use.page import LARGE_EDGE, picture_steps, save_sheet, to_html

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from vernissage.core.images import Photo
    from vernissage.retoucher.domain.recipe import Recipe
    from vernissage.retoucher.domain.xmp import Form
    from vernissage.retoucher.use.instructor import Explanation
    from vernissage.retoucher.use.outputs import Plan

JPEG_QUALITY = 95
_DEEP_SUFFIXES = frozenset({".png", ".tif", ".tiff"})
_OPAQUE_SUFFIXES = frozenset({".jpg", ".jpeg"})
_WRITABLE_SUFFIXES = _DEEP_SUFFIXES | _OPAQUE_SUFFIXES | {".webp"}


@dataclass(frozen=True)
class Delivery:
    """Writes the files of one photo and remembers which.

    Attributes:
        plan: Where they go.
        photo: The photo at full size; `rendered` uses its pixels up.
        recipe: What to do with it.
        explanation: Why.
        form: How XMP says tone and saturation.
        written: What was written so far, also when a later file fails.
    """

    plan: Plan
    photo: Photo
    recipe: Recipe
    explanation: Explanation
    form: Form
    written: list[Path] = field(default_factory=list)

    def extras(self) -> None:
        """Write page, contact sheet, recipe, explanation and lookup table."""
        name = self.plan.source.name
        shown = picture_steps(self.recipe, thumbnail(self.photo.samples, long_edge=LARGE_EDGE))
        page = to_html(self.explanation, self.recipe, shown, name=name)
        self._keep(outputs.PAGE, lambda path: atomic_write_text(path, page))
        self._keep(outputs.SHEET, lambda path: save_sheet(path, self.explanation, shown, name))
        self._keep(outputs.RECIPE, lambda path: atomic_write_text(path, self.recipe.to_json()))
        self._keep(outputs.LESSONS, lambda path: atomic_write_text(path, self.explanation.to_json()))
        self._keep(outputs.CUBE, lambda path: atomic_write_text(path, to_cube(self.recipe, title=self.plan.stem)))

    def sidecar(self, path: Path) -> None:
        """Write develop settings for the untouched photo."""
        packet = self._packet(
            lambda present: xmp.sidecar(
                self.recipe, self.explanation.summary, form=self.form, raw=self.plan.is_raw, present=present
            )
        )
        self._keep_at(path, lambda target: atomic_write_bytes(target, packet))

    def editable(self) -> bool:
        """Copy the photo with develop settings inside; returns whether the format could take them."""
        photo = self.plan.source.read_bytes()
        packet = self._packet(
            lambda present: xmp.editable(self.recipe, self.explanation.summary, form=self.form, present=present)
        )
        copy = with_packet(photo, packet)
        self._keep(self.plan.source.suffix, lambda path: atomic_write_bytes(path, copy or photo))
        return copy is not None

    def rendered(self) -> None:
        """Write the edited photo; last of all, because it uses the pixels up."""
        suffix = self._suffix()
        packet = self._packet(
            lambda present: xmp.record(self.recipe, self.explanation.summary, form=self.form, present=present)
        )
        # The original pixels are not needed any more: rendering over them halves the memory of a large photo.
        samples = render_full_size(self.photo.samples, self.recipe.as_tensor(), out=self.photo.samples)
        photo, depth = self.photo, self.photo.bit_depth if suffix.lower() in _DEEP_SUFFIXES else 8
        self._keep(
            suffix,
            lambda path: write_photo(
                path,
                samples,
                alpha=photo.alpha,
                bit_depth=depth,
                profile=photo.icc,
                exif=photo.exif,
                xmp=packet,
                quality=JPEG_QUALITY,
            ),
        )

    def _keep(self, suffix: str, write: Callable[[Path], None]) -> None:
        self._keep_at(self.plan.output(suffix), write)

    def _keep_at(self, path: Path, write: Callable[[Path], None]) -> None:
        write(path)
        self.written.append(path)

    def _packet(self, make: Callable[[bytes | None], bytes]) -> bytes:
        """Make XMP that goes on from what the photo holds, or without it where that is no sound XMP or too much."""
        try:
            packet = make(self.photo.xmp)
        except BadInput:
            return make(None)
        return packet if len(packet) <= JPEG_LARGEST else make(None)

    def _suffix(self) -> str:
        """The photo's own suffix where that format can be written and holds what the photo has, else PNG."""
        suffix = self.plan.source.suffix
        loses_alpha = self.photo.alpha is not None and suffix.lower() in _OPAQUE_SUFFIXES
        return suffix if suffix.lower() in _WRITABLE_SUFFIXES and not loses_alpha else ".png"
