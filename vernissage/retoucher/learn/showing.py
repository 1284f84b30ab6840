"""Shows what is being learned: the same validation photos at every look, and at the end a video of their episodes."""

from __future__ import annotations

import copy
import math
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from vernissage.core.files import fresh_folder
from vernissage.core.images import save_png
from vernissage.core.video import Frame, video_suffix, write_video
from vernissage.retoucher.domain.amounts import amount_text
from vernissage.retoucher.domain.episode_frames import Moment, closing_frame, episode_frame, fitted, slider_panel
from vernissage.retoucher.domain.pictures import Tile, contact_sheet, tile_pixels
from vernissage.retoucher.domain.quality import delta_e
from vernissage.retoucher.domain.render import render
from vernissage.retoucher.domain.sliders import SLIDERS
from vernissage.retoucher.learn.dataset import load_photo
from vernissage.retoucher.learn.rollout import run_policy

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from vernissage.retoucher.learn.dataset import Pair
    from vernissage.retoucher.learn.juror import Juror
    from vernissage.retoucher.learn.network import PolicyNet

LOOKS = "looks"
VIDEO = "episodes"

_CELL = 180
_PANEL = (180, 120)
# Seconds: the untouched photo, a slider on its way, the photo after an edit, before and after at the end.
_OPENING, _MOVE, _HOLD, _CLOSING = 1.4, 0.06, 0.9, 3.0
_MOVE_FRAMES = 5


@dataclass(frozen=True)
class Shown:
    """A photo to show, with what never changes about it.

    Attributes:
        faulty: (1, 3, H, W) float in [0, 1], what the agent is given.
        original: (1, 3, H, W) float in [0, 1], what was meant.
        score: The juror's score of the faulty photo.
        original_score: The juror's score of the original.
        difference: Mean CIEDE2000 between the two.
    """

    faulty: torch.Tensor
    original: torch.Tensor
    score: float
    original_score: float
    difference: float

    @staticmethod
    def of(faulty: torch.Tensor, original: torch.Tensor, juror: Juror) -> Shown:
        """Judge a pair of photos, (1, 3, H, W) float in [0, 1] each."""
        scores = juror.score(torch.cat((faulty, original))).tolist()
        return Shown(faulty, original, scores[0], scores[1], float(delta_e(faulty, original)))


@dataclass(frozen=True)
class Episode:
    """What the policy did with one photo.

    Attributes:
        photo: The photo.
        path: (T + 1, K) settings after 0, 1, ... T edits.
    """

    photo: Shown
    path: torch.Tensor

    @property
    def edits(self) -> int:
        """Number of edits T."""
        return len(self.path) - 1

    def moved(self, step: int) -> tuple[int, float]:
        """Number of the slider that edit ``step`` (from 1) moved, and by how much in normalised units."""
        change = self.path[step] - self.path[step - 1]
        slider = int(change.abs().argmax())
        return slider, float(change[slider])

    def picture(self, settings: torch.Tensor) -> torch.Tensor:
        """(1, 3, H, W) the photo with (K,) settings."""
        return render(self.photo.faulty, settings.unsqueeze(0))


def choose_shown(pairs: Sequence[Pair], count: int) -> list[Pair]:
    """Pick pairs to show: faulty ones where there are any, at even distances, so of different photos where possible.

    Args:
        pairs: Of the validation split, in the order of the file.
        count: How many; fewer where there are fewer.
    """
    faulty = [pair for pair in pairs if pair.n_faults] or list(pairs)
    count = min(count, len(faulty))
    return [faulty[round(number * len(faulty) / count)] for number in range(count)]


def play(network: PolicyNet, photo: Shown) -> Episode:
    """Let the policy edit a photo greedily."""
    rollout = run_policy(network, photo.faulty)
    return Episode(photo, rollout.path[0, : int(rollout.edits[0]) + 1])


class Showing:
    """Draws the chosen photos whenever the training is validated, and their episodes when it is done.

    It draws no random numbers and leaves the network as it is, so a training is the same with and without it.

    Args:
        pairs: The photos, of the validation split; none shows nothing.
        juror: Scores the pictures.
        folder: Where looks are kept while the training runs (outside DVC); a training that resumes finds them again.
    """

    def __init__(self, pairs: Sequence[Pair], juror: Juror, folder: Path) -> None:
        self.photos = [Shown.of(load_photo(pair.faulty), load_photo(pair.original), juror) for pair in pairs]
        self.juror, self.folder = juror, folder

    def look(self, phase: str, update: int, network: PolicyNet, numbers: Mapping[str, float] | None = None) -> None:
        """Draw the photos as the policy edits them now: ``<phase>-<update>.png``.

        Args:
            phase: Such as ``plan`` or ``ppo``.
            update: How far that phase is.
            network: The policy, on any device.
            numbers: What validation found, for the title: ``gain``, ``worse``, ``objective``, ``edits``.
        """
        if self.photos:
            sheet = look_sheet(self._episodes(network), self.juror, _look_title(phase, update, numbers or {}))
            save_png(self.folder / f"{phase}-{update:06d}.png", sheet, compress_level=6)

    def finish(self, network: PolicyNet, target: Path) -> None:
        """Move the looks to ``target/looks`` and write ``target/episodes.mp4`` with the final policy.

        Args:
            network: The policy that is kept.
            target: Folder for the results.
        """
        if not self.photos:
            return
        with fresh_folder(target / LOOKS) as looks:
            for file in sorted(self.folder.glob("*.png")):
                shutil.copyfile(file, looks / file.name)
        scenes = episode_scenes(self._episodes(network), self.juror)
        write_video(target / f"{VIDEO}{video_suffix()}", scenes)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _episodes(self, network: PolicyNet) -> list[Episode]:
        still = copy.deepcopy(network).to("cpu").eval()
        return [play(still, photo) for photo in self.photos]


@torch.no_grad()
def look_sheet(episodes: Sequence[Episode], juror: Juror, title: str) -> NDArray[np.uint8]:
    """Draw each photo as it came in, as it is left, as it was meant, and the sliders.

    Returns:
        (H, W, 3) uint8.
    """
    rows = []
    for episode in episodes:
        photo, result = episode.photo, episode.picture(episode.path[-1])
        steps = ", ".join(edit_text(*episode.moved(step)) for step in range(1, episode.edits + 1))
        left = f"{episode.edits} edits" if episode.edits else "left alone"
        score, difference = float(juror.score(result)), float(delta_e(result, photo.original))
        rows.append(
            [
                _tile(photo.faulty, f"before: {_marks(photo.score, photo.difference)}"),
                _tile(result, f"{left}: {_marks(score, difference)}"),
                _tile(photo.original, f"original: juror {photo.original_score:.1f}"),
                Tile(slider_panel(episode.path[-1].tolist(), size=_PANEL), steps),
            ]
        )
    return contact_sheet(rows, cell=_CELL, title=title)


@torch.no_grad()
def episode_scenes(episodes: Sequence[Episode], juror: Juror) -> Iterator[list[Frame]]:
    """Draw the frames of each photo's episode: a scene per photo, made when it is asked for."""
    longest = max((episode.edits for episode in episodes), default=0)
    for number, episode in enumerate(episodes, start=1):
        yield _Scene(episode, juror, f"photo {number} of {len(episodes)}", longest).frames()


def edit_text(slider: int, change: float) -> str:
    """Say in a photographer's words how a slider moved."""
    return f"{SLIDERS[slider].name} {amount_text(SLIDERS[slider], change)}"


class _Scene:
    """The frames of one episode: every slider on its way, the photo after every edit, before and after at the end."""

    def __init__(self, episode: Episode, juror: Juror, name: str, longest: int) -> None:
        self.episode, self.name, self.longest = episode, name, longest
        self.pictures = torch.cat([episode.picture(settings) for settings in episode.path])
        self.scores = juror.score(self.pictures).tolist()
        self.differences = delta_e(self.pictures, episode.photo.original.expand_as(self.pictures)).tolist()
        self.scale = float(math.floor(min(self.scores)) - 1), float(math.ceil(max(self.scores)) + 1)

    def frames(self) -> list[Frame]:
        frames = [self._frame(0, self.pictures[0], self.episode.path[0], self._said(0), _OPENING)]
        for step in range(1, self.episode.edits + 1):
            frames += self._edit(step)
        return [*frames, self._closing()]

    def _edit(self, step: int) -> Iterator[Frame]:
        doing = edit_text(*self.episode.moved(step))
        before, after = self.episode.path[step - 1 : step + 1]
        for part in range(1, _MOVE_FRAMES + 1):
            settings = torch.lerp(before, after, part / (_MOVE_FRAMES + 1))
            yield self._frame(step, self.episode.picture(settings), settings, doing, _MOVE, seen=step)
        yield self._frame(step, self.pictures[step], after, f"{doing}: {self._said(step)}", _HOLD)

    def _frame(
        self,
        step: int,
        picture: torch.Tensor,
        settings: torch.Tensor,
        caption: str,
        seconds: float,
        seen: int | None = None,
    ) -> Frame:
        edits = self.episode.edits
        moment = Moment(
            picture=tile_pixels(picture),
            settings=settings.tolist(),
            moved=self.episode.moved(step)[0] if step else None,
            headline=f"{self.name}: edit {step} of {edits}" if step else f"{self.name}, as it came in",
            caption=caption,
            scores=self.scores[: step + 1 if seen is None else seen],
            steps=self.longest,
            scale=self.scale,
        )
        return Frame(episode_frame(moment), seconds)

    def _closing(self) -> Frame:
        photo, edits = self.episode.photo, self.episode.edits
        pictures = [tile_pixels(picture) for picture in (photo.faulty, self.pictures[-1], photo.original)]
        captions = ("as it came in", "as the agent leaves it", "as it was meant")
        summary = (
            f"{self.differences[0]:.1f} -> {self.differences[-1]:.1f} dE00 from what was meant, "
            f"juror {self.scores[0]:.1f} -> {self.scores[-1]:.1f} (original {photo.original_score:.1f})"
        )
        headline = f"{self.name}: after {edits} edits" if edits else f"{self.name}: left alone"
        return Frame(closing_frame(pictures, captions, headline, summary), _CLOSING)

    def _said(self, step: int) -> str:
        return f"juror {self.scores[step]:.1f}, {self.differences[step]:.1f} dE00 from what was meant"


def _tile(picture: torch.Tensor, caption: str) -> Tile:
    return Tile(fitted(tile_pixels(picture), _CELL, _CELL), caption)


def _marks(score: float, difference: float) -> str:
    return f"juror {score:.1f}, {difference:.1f} dE00"


def _look_title(phase: str, update: int, numbers: Mapping[str, float]) -> str:
    known = {"objective": "{:.3f}", "gain": "{:.3f}", "worse": "{:.0%}", "edits": "{:.1f}"}
    texts = [f"{name} {form.format(numbers[name])}" for name, form in known.items() if name in numbers]
    found = ": validation " + ", ".join(texts) if texts else ""
    return f"{phase}, update {update}{found}"
