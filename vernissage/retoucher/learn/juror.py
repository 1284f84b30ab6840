"""Jurors: score pictures from 0 to 10, where about 8 is a photo as it was delivered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch
from torch import nn

from vernissage.core.errors import CorruptArtifact
from vernissage.core.files import atomic_write_json, read_json
from vernissage.core.parallel import in_parts
from vernissage.core.weights import load_weights, save_weights
from vernissage.retoucher.domain.colour import luma, srgb_to_linear
from vernissage.retoucher.domain.filters import resize_square
from vernissage.retoucher.domain.quality import delta_e
from vernissage.retoucher.domain.sliders import SLIDERS, slider_index
from vernissage.retoucher.domain.statistics import STATISTIC_NAMES, histograms, statistics_table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

HISTOGRAM_BINS = 24
# Pictures that are judged at a time on a processor; more do not fit into its caches.
_CACHEFUL = 96
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
        return _picture_statistics(images, srgb_to_linear(images[..., ::2, ::2]))


PICTURE_STATISTICS = 2 * 4 * HISTOGRAM_BINS + len(STATISTIC_NAMES) + 6


def _picture_statistics(images: torch.Tensor, light: torch.Tensor) -> torch.Tensor:
    # Every second row and column tell the same histogram at a quarter of the price.
    shares = histograms(images[..., ::2, ::2], HISTOGRAM_BINS)
    scale = torch.tensor([_STATISTIC_SCALE.get(name, 1.0) for name in STATISTIC_NAMES]).to(images)
    table = statistics_table(images, colour_stride=2, light=light)
    # Where black and white lie says more about contrast and exposure than any other two numbers.
    ends = torch.cat((images.amin(dim=(2, 3)), images.amax(dim=(2, 3))), dim=1)
    return torch.cat((shares.flatten(1) * 4, shares.cumsum(dim=2).flatten(1), table * scale, ends * 2), dim=1)


def tone_evidence(images: torch.Tensor, light: torch.Tensor | None = None) -> torch.Tensor:
    """What would have to be done to bring black and white to the ends and the mean to grey, and what is nearly right.

    Per channel and for luma the exposure and the contrast that would put the ends on 0 and 1; the temperature and tint
    that would level the bright and dark ends of the channels, and those that would level their means; the mean light.
    Then the sizes of all these, and which are as good as zero: a picture that nobody has touched mostly asks for
    nothing, and a network that has seen few photos cannot find the logarithms by itself.

    Args:
        images: (N, 3, H, W) float in [0, 1].
        light: (N, 3, h, w) in linear light, some of their pixels, where they are known already.

    Returns:
        (N, TONE_EVIDENCE) float, with gradient.
    """
    planes = (images, luma(images))
    low = torch.cat([plane.amin(dim=(2, 3)) for plane in planes], dim=1)
    high = torch.cat([plane.amax(dim=(2, 3)) for plane in planes], dim=1)
    both, span = (low + high).clamp_min(0.05), (high - low).clamp_min(0.05)
    # Over most of its range the sRGB curve is close to this power, so a gain of encoded values is one of light.
    gains = -2.4 * torch.log2(both)
    light = srgb_to_linear(images) if light is None else light
    mean_light = torch.log2(light.mean(dim=(2, 3)).clamp_min(1e-3))
    asked = torch.column_stack(
        (
            gains / _FULL_SCALE["exposure"],
            torch.log2(both / span) / _FULL_SCALE["contrast"],
            *_balance(gains[:, :3]),
            *_balance(-mean_light),
            mean_light.mean(dim=1) + _TYPICAL_LIGHT,
        )
    ).clamp(-1.5, 1.5)
    return torch.cat((asked, asked.abs(), torch.exp(-((asked / 0.06) ** 2))), dim=1)


TONE_EVIDENCE = 3 * 13
_FULL_SCALE = {slider.name: SLIDERS[slider_index(slider.name)].full_scale for slider in SLIDERS}
# Photos have about a quarter of the light of white on average, two stops down.
_TYPICAL_LIGHT = 2.0


def _balance(gains: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Temperature and tint settings that level log2 gains of the channels, (N, 3)."""
    red, green, blue = gains.unbind(dim=1)
    return (red - blue) / 2 / _FULL_SCALE["temperature"], ((red + blue) / 2 - green) / _FULL_SCALE["tint"]


def rank_features(images: torch.Tensor) -> torch.Tensor:
    """What a :class:`RankNet` knows of pictures besides their pixels: statistics, then evidence of tone.

    Args:
        images: (N, 3, V, V) float in [0, 1].

    Returns:
        (N, RANK_FEATURES) float, with gradient; mirroring a picture hardly changes them.
    """
    # Every second row and column have about the same colours.
    light = srgb_to_linear(images[..., ::2, ::2])
    return torch.cat((_picture_statistics(images, light), tone_evidence(images, light)), dim=1)


RANK_FEATURES = PICTURE_STATISTICS + TONE_EVIDENCE


class PictureTrunk(nn.Module):
    """Small convolutional network beside the photographic statistics: what both juror and policy look through.

    Args:
        widths: Channels of the convolutions, each of stride 2.
        statistics_width: Width of the layer over the statistics.
        patch: Side of the squares of pixels that the first convolution takes one by one instead; 0 for none. It costs a
            fraction, and fine detail is in the statistics too.
    """

    def __init__(self, widths: Sequence[int], statistics_width: int, patch: int = 0) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for wide_in, wide_out in zip((3, *widths), widths, strict=False):
            strided = nn.Conv2d(wide_in, wide_out, 3, stride=2, padding=1)
            layers += [nn.Conv2d(3, wide_out, patch, stride=patch) if patch and not layers else strided, nn.ReLU()]
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
        maps = self.convolutions((images * 2).sub_(1))
        known = picture_statistics(images) if statistics is None else statistics
        return torch.cat((maps.mean(dim=(2, 3)), maps.amax(dim=(2, 3)), self.statistics(known)), dim=1)


class RankNet(nn.Module):
    """One member of the ``rank`` juror: about 200,000 weights on square thumbnails."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = PictureTrunk((24, 48, 96, 128), 64, patch=4)
        # A second layer: what the ends say has to be weighed against what the histogram says.
        self.trunk.statistics.extend((nn.Linear(64, 64), nn.ReLU()))
        self.evidence = nn.Sequential(nn.Linear(TONE_EVIDENCE, 48), nn.ReLU(), nn.Linear(48, 32), nn.ReLU())
        self.head = nn.Sequential(nn.Linear(self.trunk.width + 32, 128), nn.ReLU(), nn.Linear(128, 1))

    def forward(self, images: torch.Tensor, features: torch.Tensor | None = None) -> torch.Tensor:
        """Judge pictures.

        Args:
            images: (N, 3, V, V) float in [0, 1].
            features: (N, RANK_FEATURES) by :func:`rank_features` where they are known already.

        Returns:
            (N,) unbounded logits; ten times their sigmoid is the score.
        """
        known = rank_features(images) if features is None else features
        statistics, evidence = known.split((PICTURE_STATISTICS, TONE_EVIDENCE), dim=1)
        return self.head(torch.cat((self.trunk(images, statistics), self.evidence(evidence)), dim=1)).squeeze(1)


class RankJuror:
    """The default juror: the mean of an ensemble, whose spread says how sure it is.

    Args:
        members: Trained networks.
        size: Side of the thumbnails they look at.
        calibration: Slope and offset of each member's logits, which anchor the scale; none leaves them as they are.
        spread_penalty: Points that a cautious score loses for each point of disagreement between the members.
    """

    def __init__(
        self,
        members: Sequence[nn.Module],
        size: int,
        calibration: Sequence[tuple[float, float]] | None = None,
        spread_penalty: float = 0.0,
    ) -> None:
        if not members:
            raise ValueError("rank juror: got no members, expected at least one")
        if spread_penalty < 0:
            raise ValueError(f"rank juror: got a spread penalty of {spread_penalty}, expected none or more than that")
        self.members, self.size, self.spread_penalty = tuple(member.eval() for member in members), size, spread_penalty
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
            spread_penalty = float(spec.get("spread_penalty", 0.0))
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
                raise CorruptArtifact(
                    f"{folder / name}: weights do not fit this version: {error}; make them again with `dvc repro juror`"
                ) from error
            members.append(network)
        return RankJuror(members, size, calibration, spread_penalty)

    def save(self, folder: Path) -> None:
        """Write the members and ``juror.json`` into a folder."""
        names = [f"member-{index}" for index in range(len(self.members))]
        for name, member in zip(names, self.members, strict=True):
            tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in member.state_dict().items()}
            save_weights(folder, tensors, {"network": "RankNet"}, name=name)
        spec = {
            "kind": "rank",
            "members": names,
            "size": self.size,
            "calibration": [list(row) for row in self.calibration],
            "spread_penalty": self.spread_penalty,
        }
        atomic_write_json(folder / "juror.json", spec)

    @torch.no_grad()
    def member_logits(self, images: torch.Tensor) -> torch.Tensor:
        """Raw outputs of every member before calibration, (members, N) for (N, 3, H, W) pictures."""
        if images.device.type != "cpu" or not len(images):
            return self._member_logits(images)
        return torch.cat(in_parts(lambda rows: self._member_logits(images[rows]), len(images), _CACHEFUL), dim=1)

    def member_scores(self, images: torch.Tensor) -> torch.Tensor:
        """Scores by every member.

        Args:
            images: (N, 3, H, W) float in [0, 1].

        Returns:
            (members, N) in [0, 10].
        """
        return 10 * torch.sigmoid(self._anchored(self.member_logits(images)))

    def score(self, images: torch.Tensor) -> torch.Tensor:
        """Mean score of the members, (N,) in [0, 10]."""
        return self.member_scores(images).mean(dim=0)

    def spread(self, images: torch.Tensor) -> torch.Tensor:
        """Standard deviation between the members, (N,) in points."""
        return self.member_scores(images).std(dim=0, correction=0)

    def cautious_score(self, images: torch.Tensor) -> torch.Tensor:
        """Mean minus ``spread_penalty`` times the spread, (N,) in [0, 10]: where members disagree, one is mistaken."""
        scores = self.member_scores(images)
        return (scores.mean(dim=0) - self.spread_penalty * scores.std(dim=0, correction=0)).clamp_min(0)

    def cautious_logit(self, images: torch.Tensor) -> torch.Tensor:
        """As the cautious score, before the sigmoid, which would hide from a gradient how to go on.

        Args:
            images: (N, 3, H, W) float in [0, 1].

        Returns:
            (N,), with gradient.
        """
        logits = self._anchored(self._member_logits(images))
        if self.spread_penalty == 0:  # a spread of nought has no gradient
            return logits.mean(dim=0)
        return logits.mean(dim=0) - self.spread_penalty * torch.sqrt(logits.var(dim=0, correction=0) + 1e-9)

    def _member_logits(self, images: torch.Tensor) -> torch.Tensor:
        views = resize_square(images, self.size)
        features = rank_features(views)
        return torch.stack([member(views, features) for member in self.members])

    def _anchored(self, logits: torch.Tensor) -> torch.Tensor:
        slopes, offsets = torch.tensor(self.calibration).to(logits).unsqueeze(2).unbind(dim=1)
        return slopes * logits + offsets


class Cautious:
    """A juror whose score is its cautious one: for whoever is going to push the score up.

    Args:
        juror: An ensemble.
    """

    def __init__(self, juror: RankJuror) -> None:
        self.juror = juror

    def score(self, images: torch.Tensor) -> torch.Tensor:
        """(N,) in [0, 10], see :meth:`RankJuror.cautious_score`."""
        return self.juror.cautious_score(images)


def cautious(juror: Juror) -> Juror:
    """What a reward or a search should ask instead of this juror: an ensemble's cautious score, else the juror itself.

    ``judge`` and tables print mean and spread; what is *maximised* must not find where one member is mistaken.
    """
    return Cautious(juror) if isinstance(juror, RankJuror) else juror


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
