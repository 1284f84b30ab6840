"""Everything that a training looks at, read once however many trainings follow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vernissage.core.seeds import numpy_generator
from vernissage.retoucher.learn.dataset import cropped_originals, load_starts, read_pairs, unique_originals
from vernissage.retoucher.learn.imagined import imagine_scenes
from vernissage.retoucher.learn.scenes import Pictures
from vernissage.retoucher.learn.training import Thumbnails

if TYPE_CHECKING:
    from pathlib import Path

    from vernissage.core.params import Params


class TrainingData:
    """The train and validation pairs of a dataset.

    Args:
        ready: Folder of the pairs.

    Raises:
        MissingArtifact: If there are no pairs; the message says what to run.
        BadInput: If a split is empty.
    """

    def __init__(self, ready: Path) -> None:
        self.train, self.validation = read_pairs(ready, "train"), read_pairs(ready, "val")
        # One entry each: trainings that follow each other mostly look through the same window.
        self._stored: tuple[int, Thumbnails] | None = None
        self._added: tuple[tuple[object, ...], Pictures] | None = None

    def thumbnails(self, params: Params) -> Thumbnails:
        """Thumbnails at the size that the parameters name, joined by as many crops and imagined scenes as they name."""
        section = params.train.retoucher
        stored = self._of_view(section.view)
        key = params.seed, section.view, section.crops, section.crop_share, section.imagined_scenes
        if self._added is None or self._added[0] != key:
            scenes = imagine_scenes(section.imagined_scenes, section.view, numpy_generator(params.seed, "imagined"))
            whole = stored.originals.joined(Pictures.of_thumbnails(scenes))
            if section.crop_share > 0:
                rng = numpy_generator(params.seed, "crops")
                crops = cropped_originals(self.train, section.view, section.crops, rng)
                whole = whole.joined(crops, section.crop_share)
            self._added = key, whole
        return Thumbnails(self._added[1], stored.stored, stored.held_out)

    def _of_view(self, view: int) -> Thumbnails:
        if self._stored is None or self._stored[0] != view:
            held_out = load_starts(self.validation, view)
            thumbnails = Thumbnails(unique_originals(self.train, view), load_starts(self.train, view), held_out)
            self._stored = view, thumbnails
        return self._stored[1]
