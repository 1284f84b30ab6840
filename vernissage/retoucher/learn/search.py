"""Searches for edits instead of having learned them: greedy and beam search, led by a juror or by the original itself.

A state is a slider vector. All photos of a group go one edit deeper together: every allowed edit of every state that is
still in the beam is rendered from the photo and scored, settings that some path has reached before are not scored
again, and a photo is finished when its best score no longer rises by the margin.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from vernissage.retoucher.domain.colour import srgb_to_linear
from vernissage.retoucher.domain.render import render_linear
from vernissage.retoucher.domain.sliders import SLIDER_COUNT
from vernissage.retoucher.learn.rollout import Rollout

if TYPE_CHECKING:
    from vernissage.retoucher.learn.actions import ActionTable
    from vernissage.retoucher.learn.juror import Juror

#: Width of a beam where nothing else is asked for.
BEAM_WIDTH = 4
#: Points that an edit must gain with a juror to be worth it.
MARGIN = 0.1

#: (M,) rows of photos and (M, K) settings to (M,) scores, more is better.
_Score = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

# Pixels that are rendered and scored in one go: more would only leave the processor's cache and grow without bound.
_PIXELS_AT_ONCE = 64 * 64 * 64
# Photos whose states are held at one time.
_PHOTOS_AT_ONCE = 32
# Settings closer than this are the same: sums of steps in another order differ in their last bits.
_KEY_SCALE = 10_000
# The oracle's gain of an edit, as a fall of log10 of the squared error, below which it is float dust; a hundredth of a
# decibel. The floor is the squared error of 60 dB, below which pictures count as equal.
_ORACLE_MARGIN, _ORACLE_FLOOR = 1e-3, 1e-6


@torch.no_grad()
def search_edits(
    actions: ActionTable,
    juror: Juror,
    photos: torch.Tensor,
    *,
    horizon: int,
    width: int = 1,
    margin: float = MARGIN,
) -> Rollout:
    """Look for the edits that a juror likes best.

    Args:
        actions: What can be done.
        juror: Scores pictures; whatever it likes too much is what will be found.
        photos: (N, 3, H, W) float in [0, 1], encoded sRGB; thumbnails, because every candidate is rendered.
        horizon: Most edits.
        width: States that are kept of each photo; 1 is greedy search.
        margin: Points by which one more edit must raise the best score; a photo stops where none does.

    Returns:
        The edits; photos that nothing improves stay as they are.

    Raises:
        ValueError: If horizon or width is below 1, the margin is negative, or a score is no number.
    """
    rollouts = []
    for group in photos.split(_PHOTOS_AT_ONCE):
        linear = srgb_to_linear(group)

        def score(rows: torch.Tensor, settings: torch.Tensor, linear: torch.Tensor = linear) -> torch.Tensor:
            return juror.score(render_linear(linear[rows], settings))

        chunk = _chunk_of(group)
        first = torch.cat([juror.score(part) for part in group.split(chunk)])
        rollouts.append(_search(actions, _in_chunks(score, chunk), first, horizon, width, margin))
    return _joined(rollouts, actions)


@torch.no_grad()
def oracle_edits(
    actions: ActionTable, photos: torch.Tensor, references: torch.Tensor, *, horizon: int, stride: int = 2
) -> Rollout:
    """Take, step by step, the edit that brings a photo nearest to what was meant: what no agent can know.

    Args:
        actions: What can be done.
        photos: (N, 3, H, W) float in [0, 1], encoded sRGB.
        references: Same shape, what was meant.
        horizon: Most edits.
        stride: Look at every n-th row and column only. Unlike averaging that keeps the histogram and the grain, so the
            edits are nearly those that all pixels would choose, at a fraction of the price.

    Returns:
        The edits. Greedy steps are no proof of the optimum, but an upper bound for everything that steps likewise.

    Raises:
        ValueError: If the shapes differ or the horizon is below 1.
    """
    if photos.shape != references.shape:
        raise ValueError(f"oracle: got {tuple(photos.shape)} photos, {tuple(references.shape)} references: not equal")
    photos, references = photos[..., ::stride, ::stride], references[..., ::stride, ::stride]
    rollouts = []
    for group, meant in zip(photos.split(_PHOTOS_AT_ONCE), references.split(_PHOTOS_AT_ONCE), strict=True):
        linear = srgb_to_linear(group)

        def score(
            rows: torch.Tensor, settings: torch.Tensor, linear: torch.Tensor = linear, meant: torch.Tensor = meant
        ) -> torch.Tensor:
            return _closeness(render_linear(linear[rows], settings), meant[rows])

        chunked = _in_chunks(score, _chunk_of(group))
        rollouts.append(_search(actions, chunked, _closeness(group, meant), horizon, 1, _ORACLE_MARGIN))
    return _joined(rollouts, actions)


def _closeness(pictures: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
    """Minus log10 of the mean squared error, (N,)."""
    return -torch.log10(((pictures - references) ** 2).flatten(1).mean(dim=1) + _ORACLE_FLOOR)


@dataclass(frozen=True)
class _States:
    """States of one depth, those of one photo side by side from the best down.

    Attributes:
        rows: (B,) which photo.
        settings: (B, K).
        scores: (B,).
        parents: (B,) index of the state before in the depth above.
        actions: (B,) the edit that led here.
    """

    rows: torch.Tensor
    settings: torch.Tensor
    scores: torch.Tensor
    parents: torch.Tensor
    actions: torch.Tensor

    def taken(self, index: torch.Tensor) -> _States:
        """Some of them, in the given order."""
        return _States(*(column[index] for column in vars(self).values()))


def _search(
    actions: ActionTable, score: _Score, first: torch.Tensor, horizon: int, width: int, margin: float
) -> Rollout:
    """Run the beams of a group of photos.

    Args:
        actions: What can be done.
        score: Prices states.
        first: (N,) scores of the untouched photos.
        horizon: Most edits.
        width: States kept of each photo.
        margin: Smallest rise of the best score that is worth another edit.

    Returns:
        The paths to the best states.
    """
    if horizon < 1 or width < 1 or margin < 0:
        raise ValueError(f"search: got horizon {horizon}, width {width}, margin {margin}; expected at least 1, 1 and 0")
    count = len(first)
    nothing = torch.full((count,), -1)
    beam = _States(torch.arange(count), torch.zeros(count, SLIDER_COUNT), first, nothing, nothing)
    depths, best = [beam], first.clone()
    edits = torch.zeros(count, dtype=torch.long)
    ends = torch.arange(count)  # where the best state of each photo stands in its depth
    seen: list[set[bytes]] = [set() for _ in range(count)]
    _unseen(seen, beam.rows, beam.settings)
    for depth in range(1, horizon + 1):
        children = _expand(actions, beam, seen)
        if not len(children.rows):
            break
        children = _best_of_each(
            _States(
                children.rows,
                children.settings,
                score(children.rows, children.settings),
                children.parents,
                children.actions,
            ),
            width,
        )
        leaders = _first_of_each(children.rows)
        gained = children.scores[leaders] - best[children.rows[leaders]] >= margin
        going = torch.zeros(count, dtype=torch.bool)
        going[children.rows[leaders[gained]]] = True
        beam = children.taken(going[children.rows].nonzero().flatten())
        if not len(beam.rows):
            break
        leaders = _first_of_each(beam.rows)
        best[beam.rows[leaders]] = beam.scores[leaders]
        edits[beam.rows[leaders]] = depth
        ends[beam.rows[leaders]] = leaders
        depths.append(beam)
    return _rollout(actions, depths, edits, ends)


def _expand(actions: ActionTable, beam: _States, seen: list[set[bytes]]) -> _States:
    """All states one edit further that no path has reached before; not scored yet."""
    moves = actions.allowed(beam.settings)
    moves[:, actions.stop] = False
    parents, edits = moves.nonzero(as_tuple=True)
    settings = actions.apply(beam.settings[parents], edits)
    # A beam stands from the best state down, so of two ways to one state the better parent's is kept.
    fresh = _unseen(seen, beam.rows[parents], settings)
    parents, edits, settings = parents[fresh], edits[fresh], settings[fresh]
    return _States(beam.rows[parents], settings, torch.empty(len(parents)), parents, edits)


def _unseen(seen: list[set[bytes]], rows: torch.Tensor, settings: torch.Tensor) -> torch.Tensor:
    """(M,) bool: which settings their photo has not had before; notes them all."""
    keys = torch.round(settings * _KEY_SCALE).to(torch.int16).numpy()
    fresh = []
    for row, key in zip(rows.tolist(), keys, strict=True):
        before = len(seen[row])
        seen[row].add(key.tobytes())
        fresh.append(len(seen[row]) > before)
    return torch.tensor(fresh, dtype=torch.bool)


def _best_of_each(states: _States, width: int) -> _States:
    """Of each photo the ``width`` best states, from the best down; equal ones stay in their order."""
    order = torch.argsort(states.scores, descending=True, stable=True)
    order = order[torch.argsort(states.rows[order], stable=True)]
    rows = states.rows[order]
    rank = torch.arange(len(rows)) - torch.searchsorted(rows, rows)
    return states.taken(order[rank < width])


def _first_of_each(rows: torch.Tensor) -> torch.Tensor:
    """Where each run of equal values begins in a sorted (B,)."""
    return torch.unique_consecutive(torch.searchsorted(rows, rows))


def _rollout(actions: ActionTable, depths: list[_States], edits: torch.Tensor, ends: torch.Tensor) -> Rollout:
    """Walk back from each photo's best state to the beginning."""
    count, longest = len(edits), max(1, int(edits.max()))
    path = torch.zeros(count, longest + 1, SLIDER_COUNT)
    taken = torch.full((count, longest), actions.stop)
    at = ends.clone()
    for depth in range(longest, 0, -1):
        rows = (edits >= depth).nonzero().flatten()
        if not len(rows):
            continue
        states = depths[depth]
        path[rows, depth] = states.settings[at[rows]]
        taken[rows, depth - 1] = states.actions[at[rows]]
        at[rows] = states.parents[at[rows]]
    for depth in range(1, longest + 1):
        over = edits < depth
        path[over, depth] = path[over, depth - 1]
    return Rollout(path[:, -1], path, taken, edits)


def _in_chunks(score: _Score, chunk: int) -> _Score:
    """The same scores, a bounded number of pictures at a time."""

    def run(rows: torch.Tensor, settings: torch.Tensor) -> torch.Tensor:
        parts = zip(rows.split(chunk), settings.split(chunk), strict=True)
        scores = torch.cat([score(some_rows, some) for some_rows, some in parts])
        if not bool(torch.isfinite(scores).all()):
            raise ValueError("search: the juror gave something that is no number; a failure is never a score")
        return scores

    return run


def _chunk_of(photos: torch.Tensor) -> int:
    return max(1, _PIXELS_AT_ONCE // (photos.shape[-2] * photos.shape[-1]))


def _joined(rollouts: list[Rollout], actions: ActionTable) -> Rollout:
    """One rollout of several groups; shorter ones wait at their end."""
    longest = max(rollout.actions.shape[1] for rollout in rollouts)
    paths, taken = [], []
    for rollout in rollouts:
        missing = longest - rollout.actions.shape[1]
        paths.append(torch.cat((rollout.path, rollout.path[:, -1:].expand(-1, missing, -1)), dim=1))
        stops = torch.full((len(rollout.edits), missing), actions.stop)
        taken.append(torch.cat((rollout.actions, stops), dim=1))
    return Rollout(
        torch.cat([rollout.settings for rollout in rollouts]),
        torch.cat(paths),
        torch.cat(taken),
        torch.cat([rollout.edits for rollout in rollouts]),
    )
