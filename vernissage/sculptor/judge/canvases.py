"""Runs another sampler on the canvases that the sculptor works on, with the same prompts, plans and boxes."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from vernissage.core.errors import BadInput
from vernissage.core.parallel import in_parts
from vernissage.sculptor.domain.plan import MOST
from vernissage.sculptor.learn.blueprints import Blueprint, Guides, guides_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from vernissage.sculptor.judge.arms import BenchRequest
    from vernissage.sculptor.learn.blueprints import First
    from vernissage.sculptor.learn.network import VoxelNetwork
    from vernissage.sculptor.learn.text_encoder import TextEncoder

_VOXELS_AT_ONCE, _MOST_ROWS, _CUDA_FACTOR = 8192, 8, 16


@dataclass(frozen=True)
class CanvasBatch:
    """Some requests whose boxes need the same canvas.

    Attributes:
        requests: B of them.
        guides: What the network is told of every voxel; on its device.
        condition: (B, condition), what its blocks are modulated by.
    """

    requests: tuple[BenchRequest, ...]
    guides: Guides
    condition: Tensor


@torch.no_grad()
def on_canvases(
    network: VoxelNetwork,
    words: TextEncoder,
    first: First,
    requests: Sequence[BenchRequest],
    fill: Callable[[CanvasBatch], Tensor],
) -> list[np.ndarray]:
    """Build every request in its box.

    Args:
        network: Has the condition and says what sides of a canvas are multiples of.
        words: Its text encoder.
        first: What comes before the voxels: `plan`, then every request has one, or `none`.
        requests: What is asked for.
        fill: Takes a batch, gives (B, Y, Z, X) roles of its canvas; called from several threads.

    Returns:
        A (Y, Z, X) uint8 role grid of each request's box.

    Raises:
        BadInput: A request has no plan, or something else than a plan comes first.
    """
    boxes = [_blueprint(request, first) for request in requests]
    groups: dict[tuple[int, int, int], list[int]] = defaultdict(list)
    for number, box in enumerate(boxes):
        groups[box.canvas(network.shape.multiple)].append(number)
    device = next(network.parameters()).device
    chunks: list[tuple[tuple[int, int, int], list[int]]] = []
    for canvas, numbers in sorted(groups.items(), key=lambda group: -int(np.prod(group[0]))):
        rows = _rows_at_once(canvas, device)
        chunks += [(canvas, numbers[start : start + rows]) for start in range(0, len(numbers), rows)]
    out: list[np.ndarray | None] = [None] * len(requests)

    def work(part: slice) -> None:
        torch.set_flush_denormal(True)
        for canvas, numbers in chunks[part]:
            guides = _on_device(guides_of([boxes[number] for number in numbers], canvas, first), device)
            asked = tuple(requests[number] for number in numbers)
            condition = network.condition(words([request.prompt for request in asked]), guides.values)
            roles = fill(CanvasBatch(asked, guides, condition)).cpu().numpy().astype(np.uint8)
            for row, number in enumerate(numbers):
                height, depth, width = boxes[number].box
                out[number] = roles[row, :height, :depth, :width]

    if device.type == "cpu":
        in_parts(work, len(chunks), 1)
    else:
        work(slice(0, len(chunks)))
    return [grid for grid in out if grid is not None]


def _blueprint(request: BenchRequest, first: First) -> Blueprint:
    if first == "none":
        height, depth, width = (min(pair) for pair in zip(request.size.shape, MOST.shape, strict=True))
        return Blueprint((height, depth, width))
    if first != "plan" or request.plan is None:
        raise BadInput(f"{request.prompt!r}: no plan, but {first} comes first; expected a plan with every request")
    return Blueprint(request.plan.shape, request.plan)


def _on_device(guides: Guides, device: torch.device) -> Guides:
    values = None if guides.values is None else guides.values.to(device)
    return Guides(guides.channels.to(device), values, guides.inside.to(device))


def _rows_at_once(canvas: tuple[int, int, int], device: torch.device) -> int:
    factor = _CUDA_FACTOR if device.type == "cuda" else 1
    return int(np.clip(factor * _VOXELS_AT_ONCE // int(np.prod(canvas)), 1, factor * _MOST_ROWS))
