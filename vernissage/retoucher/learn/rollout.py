"""Runs a trained policy greedily on photos: the one code path that validation, benchmark and use share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from vernissage.retoucher.domain.colour import srgb_to_linear
from vernissage.retoucher.domain.filters import resize_area, resize_square
from vernissage.retoucher.domain.render import render_linear
from vernissage.retoucher.domain.sliders import SLIDER_COUNT
from vernissage.retoucher.learn.environment import original_statistics, to_bytes, view_statistics

if TYPE_CHECKING:
    from vernissage.retoucher.learn.network import PolicyNet
from vernissage.retoucher.learn.suggestions import classic_suggestions


@dataclass(frozen=True)
class Rollout:
    """What the policy did with N photos.

    Attributes:
        settings: (N, K) final settings.
        path: (N, T + 1, K) settings after 0, 1, ... T edits; constant after stop.
        actions: (N, T) chosen actions; stop after the end.
        edits: (N,) number of edits.
    """

    settings: torch.Tensor
    path: torch.Tensor
    actions: torch.Tensor
    edits: torch.Tensor


def measure_suggestions(photos: torch.Tensor, standard: int) -> torch.Tensor:
    """What classic corrections would set, measured at the standard size whatever the size of the photos.

    Args:
        photos: (N, 3, H, W) float in [0, 1].
        standard: Long edge in pixels.

    Returns:
        (N, SUGGESTIONS).
    """
    return classic_suggestions(torch.round(resize_area(photos, standard) * 255) / 255)


@torch.no_grad()
def run_policy(network: PolicyNet, photos: torch.Tensor, suggestions: torch.Tensor | None = None) -> Rollout:
    """Edit photos greedily until the policy stops or the horizon is used up.

    Args:
        network: Trained policy.
        photos: (N, 3, H, W) float in [0, 1], encoded sRGB, any size.
        suggestions: (N, SUGGESTIONS) where they are known from larger copies; else measured on ``photos``.

    Returns:
        The rollout.
    """
    spec, table = network.spec, network.spec.actions()
    # The agent was trained on stored thumbnails, so it is shown what a thumbnail of 8 bits holds.
    original = to_bytes(resize_square(photos, spec.view))
    if suggestions is None:
        suggestions = measure_suggestions(photos, spec.standard)
    linear = srgb_to_linear(original.float() / 255)
    count = len(photos)
    settings = torch.zeros(count, SLIDER_COUNT)
    last = torch.zeros(count, table.count)
    stopped = torch.zeros(count, dtype=torch.bool)
    path, chosen = [settings], []
    view, evidence = original, original_statistics(original)
    for step in range(spec.horizon):
        observation = {
            "original": original,
            "view": view,
            "original_statistics": evidence,
            "view_statistics": view_statistics(view),
            "suggestions": suggestions,
            "settings": settings,
            "progress": torch.full((count, 1), step / spec.horizon),
            "last_action": last,
        }
        actions = network(observation)[0].argmax(dim=1)
        actions = torch.where(stopped, table.stop, actions)
        stopped = stopped | (actions == table.stop)
        settings = table.apply(settings, actions)
        view = to_bytes(render_linear(linear, settings))
        last = torch.nn.functional.one_hot(actions, table.count).float()
        path.append(settings)
        chosen.append(actions)
        if bool(stopped.all()):
            break
    actions_taken = torch.stack(chosen, dim=1)
    return Rollout(settings, torch.stack(path, dim=1), actions_taken, (actions_taken != table.stop).sum(dim=1))
