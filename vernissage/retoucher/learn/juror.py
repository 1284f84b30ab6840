"""Jurors: score pictures from 0 to 10, where about 8 is a photo as it was delivered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch
from torch import nn

from vernissage.core.errors import CorruptArtifact
from vernissage.core.files import read_json
from vernissage.core.weights import load_weights
from vernissage.retoucher.domain.filters import resize_square
from vernissage.retoucher.domain.quality import delta_e
from vernissage.retoucher.domain.statistics import STATISTIC_NAMES, histograms, statistics_table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

HISTOGRAM_BINS = 24
#: Score of a picture that equals its original, and the CIEDE2000 at which the score has fallen to 1/e of that.
ORIGINAL_SCORE = 8.0
SCORE_FALLOFF = 15.0

# Brings every statistic to the order of one: casts are in CIELAB units, noise and sharpness are small.
_STATISTIC_SCALE = {"cast_a": 0.05, "cast_b": 0.05, "sharpness": 5.0, "noise": 10.0, "saturation_mean": 2.0}


class Juror(Protocol):
    """Scores pictures."""

    def score(self, images: torch.Tensor) -> torch.Tensor:
        """Score (N, 3, H, W) float pictures in [0, 1]: (N,) in [0, 10]. A failure raises, it is never a score."""
        ...


def picture_statistics(images: torch.Tensor) -> torch.Tensor:
    """Histograms, cumulative histograms and photographic statistics as network features of the order of one.

    Args:
        images: (N, 3, H, W) float in [0, 1].

    Returns:
        (N, PICTURE_STATISTICS) float, without gradient.
    """
    with torch.no_grad():
        # Every second row and column tell the same histogram at a quarter of the price.
        shares = histograms(images[..., ::2, ::2], HISTOGRAM_BINS)
        scale = torch.tensor([_STATISTIC_SCALE.get(name, 1.0) for name in STATISTIC_NAMES]).to(images)
        table = statistics_table(images, colour_stride=2)
        # Where black and white lie says more about contrast and exposure than any other two numbers.
        ends = torch.cat((images.amin(dim=(2, 3)), images.amax(dim=(2, 3))), dim=1)
        return torch.cat((shares.flatten(1) * 4, shares.cumsum(dim=2).flatten(1), table * scale, ends * 2), dim=1)


PICTURE_STATISTICS = 2 * 4 * HISTOGRAM_BINS + len(STATISTIC_NAMES) + 6


class PictureTrunk(nn.Module):
    """Small convolutional network beside the photographic statistics: what both juror and policy look through.

    Args:
        widths: Channels of the stride-2 convolutions.
        statistics_width: Width of the layer over the statistics.
    """

    def __init__(self, widths: Sequence[int], statistics_width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for wide_in, wide_out in zip((3, *widths), widths, strict=False):
            layers += [nn.Conv2d(wide_in, wide_out, 3, stride=2, padding=1), nn.ReLU()]
        self.convolutions = nn.Sequential(*layers)
        self.statistics = nn.Sequential(nn.Linear(PICTURE_STATISTICS, statistics_width), nn.ReLU())
        self.width = 2 * widths[-1] + statistics_width

    def forward(self, images: torch.Tensor, statistics: torch.Tensor | None = None) -> torch.Tensor:
        """Look at pictures.

        Args:
            images: (N, 3, V, V) float in [0, 1].
            statistics: (N, PICTURE_STATISTICS) of these pictures where they are known already.

        Returns:
            (N, width).
        """
        maps = self.convolutions(images * 2 - 1)
        known = picture_statistics(images) if statistics is None else statistics
        return torch.cat((maps.mean(dim=(2, 3)), maps.amax(dim=(2, 3)), self.statistics(known)), dim=1)


class RankNet(nn.Module):
    """One member of the ``rank`` juror: about 250,000 weights on square thumbnails."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = PictureTrunk((16, 32, 64, 96, 128), 64)
        self.head = nn.Sequential(nn.Linear(self.trunk.width, 128), nn.ReLU(), nn.Linear(128, 1))

    def forward(self, images: torch.Tensor, statistics: torch.Tensor | None = None) -> torch.Tensor:
        """(N, 3, V, V) float in [0, 1] to (N,) unbounded logits; ten times their sigmoid is the score."""
        return self.head(self.trunk(images, statistics)).squeeze(1)


class RankJuror:
    """The default juror: the mean of an ensemble, whose spread says how sure it is.

    Args:
        members: Trained networks.
        size: Side of the thumbnails they look at.
        calibration: Slope and offset of each member's logits, which anchor the scale; none leaves them as they are.
    """

    def __init__(
        self, members: Sequence[nn.Module], size: int, calibration: Sequence[tuple[float, float]] | None = None
    ) -> None:
        if not members:
            raise ValueError("rank juror: got no members, expected at least one")
        self.members, self.size = tuple(member.eval() for member in members), size
        self.calibration = tuple(calibration) if calibration is not None else ((1.0, 0.0),) * len(self.members)
        if len(self.calibration) != len(self.members):
            raise ValueError(f"rank juror: got {len(self.calibration)} calibrations for {len(self.members)} members")

    @staticmethod
    def load(folder: Path) -> RankJuror:
        """Load what the ``juror`` stage saved.

        Raises:
            MissingArtifact: If the folder holds no juror.
            CorruptArtifact: If a file does not match its hash or specification.
        """
        spec = read_json(folder / "juror.json")
        try:
            names, size = list(spec["members"]), int(spec["size"])
            calibration = [(float(slope), float(offset)) for slope, offset in spec["calibration"]]
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptArtifact(
                f"{folder / 'juror.json'}: {error!r}; make it again with `dvc repro juror`"
            ) from error
        members = []
        for name in names:
            tensors, _ = load_weights(folder, name=name)
            network = RankNet()
            try:
                network.load_state_dict(tensors)
            except RuntimeError as error:
                raise CorruptArtifact(f"{folder / name}: weights do not fit this version: {error}") from error
            members.append(network)
        return RankJuror(members, size, calibration)

    @torch.no_grad()
    def member_logits(self, images: torch.Tensor) -> torch.Tensor:
        """Raw outputs of every member before calibration, (members, N) for (N, 3, H, W) pictures."""
        views = resize_square(images, self.size)
        statistics = picture_statistics(views)
        return torch.stack([member(views, statistics) for member in self.members])

    def member_scores(self, images: torch.Tensor) -> torch.Tensor:
        """Scores by every member.

        Args:
            images: (N, 3, H, W) float in [0, 1].

        Returns:
            (members, N) in [0, 10].
        """
        slopes, offsets = torch.tensor(self.calibration).to(images).unsqueeze(2).unbind(dim=1)
        return 10 * torch.sigmoid(slopes * self.member_logits(images) + offsets)

    def score(self, images: torch.Tensor) -> torch.Tensor:
        """Mean score of the members, (N,) in [0, 10]."""
        return self.member_scores(images).mean(dim=0)

    def spread(self, images: torch.Tensor) -> torch.Tensor:
        """Standard deviation between the members, (N,) in points."""
        return self.member_scores(images).std(dim=0, correction=0)


class ReferenceJuror:
    """Scores by the distance to known originals: for training and tests only.

    Args:
        originals: (N, 3, H, W) float in [0, 1]; row i of every call is compared with row i.
    """

    def __init__(self, originals: torch.Tensor) -> None:
        self._originals = originals

    def score(self, images: torch.Tensor) -> torch.Tensor:
        """(N,) anchored scores, 8 for a perfect copy.

        Raises:
            ValueError: If the number or the size of the pictures differs from the originals.
        """
        return anchored_score(delta_e(images, self._originals))


def anchored_score(difference: torch.Tensor) -> torch.Tensor:
    """Give the 0 to 10 scale its meaning: 8 as delivered, about 5 visibly off, 2 ruined.

    Args:
        difference: Mean CIEDE2000 to the original, any shape.

    Returns:
        Same shape, in (0, 8].
    """
    return ORIGINAL_SCORE * torch.exp(-difference / SCORE_FALLOFF)
