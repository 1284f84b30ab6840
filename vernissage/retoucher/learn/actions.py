"""The retoucher's actions: one slider, one direction, one strength, or stop."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

from vernissage.retoucher.domain.sliders import HIGHS, LOWS, SLIDER_COUNT, SLIDER_NAMES

#: Settings this close to a limit count as being there, so that float dust never opens an action.
_LIMIT_TOLERANCE = 1e-4


@dataclass(frozen=True)
class ActionTable:
    """Every action as a change of the slider vector; the last one stops.

    Attributes:
        strengths: Step sizes in normalised slider units, each used in both directions.
    """

    strengths: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.strengths or any(not 0 < strength <= 1 for strength in self.strengths):
            raise ValueError(f"strengths: got {self.strengths}, expected one or more numbers above 0, at most 1")

    @cached_property
    def deltas(self) -> torch.Tensor:
        """(A, K) change of the normalised settings by each action; the last row, stop, is zero."""
        rows = [
            torch.eye(SLIDER_COUNT)[slider] * sign * strength
            for slider in range(SLIDER_COUNT)
            for sign in (1.0, -1.0)
            for strength in self.strengths
        ]
        return torch.stack([*rows, torch.zeros(SLIDER_COUNT)])

    @property
    def count(self) -> int:
        """Number of actions A, stop included."""
        return 2 * SLIDER_COUNT * len(self.strengths) + 1

    @property
    def stop(self) -> int:
        """Index of the stop action."""
        return self.count - 1

    def slider_of(self, action: int) -> str | None:
        """Name of the slider that an action moves; none for stop."""
        return None if action == self.stop else SLIDER_NAMES[action // (2 * len(self.strengths))]

    def apply(self, settings: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """Move the sliders; they stay within their ranges.

        Args:
            settings: (N, K) normalised settings.
            actions: (N,) action indices.

        Returns:
            (N, K).
        """
        low = torch.tensor(LOWS, dtype=settings.dtype, device=settings.device)
        high = torch.tensor(HIGHS, dtype=settings.dtype, device=settings.device)
        moved = settings + self.deltas.to(settings)[actions]
        return torch.minimum(torch.maximum(moved, low), high)

    def allowed(self, settings: torch.Tensor) -> torch.Tensor:
        """Which actions would move a slider; stop is always allowed.

        Args:
            settings: (N, K) normalised settings.

        Returns:
            (N, A) bool.
        """
        low = torch.tensor(LOWS, dtype=settings.dtype, device=settings.device)
        high = torch.tensor(HIGHS, dtype=settings.dtype, device=settings.device)
        deltas = self.deltas.to(settings)
        room_up = ((high - settings) > _LIMIT_TOLERANCE).to(settings.dtype)
        room_down = ((settings - low) > _LIMIT_TOLERANCE).to(settings.dtype)
        moves = room_up @ deltas.clamp_min(0).T + room_down @ (-deltas).clamp_min(0).T > 0
        moves[:, self.stop] = True
        return moves
