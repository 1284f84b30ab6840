"""Noise levels of the timesteps that a network of `diffusers` was trained at, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from vernissage.core.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Mapping

_SCHEDULE_KEYS = (
    "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "rescale_betas_zero_snr",
)  # fmt: skip
#: Least share of picture in the last timestep: with none at all sigma is infinite (the value of diffusers' Euler).
_LEAST_ALPHA = 2.0**-24


@dataclass(frozen=True, eq=False)
class TrainingSchedule:
    """Noise levels that a network was trained at, one per timestep.

    Attributes:
        log_sigmas: (T,) natural logarithms of sigma, increasing.
    """

    log_sigmas: torch.Tensor

    @classmethod
    def from_config(cls, config: Mapping[str, Any], name: str = "scheduler") -> TrainingSchedule:
        """Read a scheduler's configuration.

        With zero terminal SNR (Lin et al. 2023) the last timestep is noise and nothing else; its sigma becomes a large
        number (4096 as a rule) instead of infinity.

        Args:
            config: Content of `scheduler_config.json`.
            name: Whose it is, for messages.

        Raises:
            BadInput: It is no schedule of betas, or one that cannot be.
        """
        from diffusers import DDPMScheduler

        make: Any = DDPMScheduler
        known = {key: config[key] for key in _SCHEDULE_KEYS if config.get(key) is not None}
        strange = [key for key in ("use_flow_sigmas", "invert_sigmas") if config.get(key)]
        if config.get("timestep_type", "discrete") != "discrete":
            strange.append("timestep_type")
        if strange or not {"beta_schedule", "trained_betas"} & known.keys():
            raise BadInput(
                f"{name}: {config.get('_class_name', 'its scheduler')} has "
                f"{'no betas' if not strange else f'{strange[0]} = {config[strange[0]]!r}'}; expected a network "
                "that was trained with a schedule of betas by numbered timesteps, such as DDPM or Stable Diffusion"
            )
        try:
            scheduler: Any = make(**known)
            alphas = scheduler.alphas_cumprod.double()
        except (NotImplementedError, ValueError, TypeError, LookupError, RuntimeError) as error:
            raise BadInput(f"{name}: {known} is no schedule of betas ({type(error).__name__}: {error})") from error
        if len(alphas) > 1 and alphas[-1] <= 0:
            alphas[-1] = min(_LEAST_ALPHA, float(alphas[-2]) / 2)
        log_sigmas = ((1 - alphas) / alphas).log() / 2
        if len(alphas) < 2 or not bool(log_sigmas.isfinite().all() & (log_sigmas.diff() > 0).all()):
            raise BadInput(f"{name}: the noise of {known} does not grow from one timestep to the next; check its betas")
        return cls(log_sigmas)

    def __len__(self) -> int:
        """Number of timesteps."""
        return len(self.log_sigmas)

    def sigmas_at(self, timesteps: torch.Tensor) -> torch.Tensor:
        """Noise levels of timesteps, whole or in between; those beyond the schedule count as its ends.

        Args:
            timesteps: (N,).

        Returns:
            (N,) in the schedule's own type.
        """
        times = timesteps.to(self.log_sigmas).clamp(0, len(self) - 1)
        below = times.detach().floor().long().clamp(max=len(self) - 2)
        low, high = self.log_sigmas[below], self.log_sigmas[below + 1]
        return (low + (times - below) * (high - low)).exp()

    def timesteps_at(self, sigmas: torch.Tensor) -> torch.Tensor:
        """Timesteps of noise levels, the inverse of :meth:`sigmas_at`; differentiable.

        Args:
            sigmas: (N,) above 0.

        Returns:
            (N,) from 0 to T - 1, in the schedule's own type.
        """
        logs = sigmas.to(self.log_sigmas).log()
        above = torch.searchsorted(self.log_sigmas, logs.detach(), right=True).clamp(1, len(self) - 1)
        low, high = self.log_sigmas[above - 1], self.log_sigmas[above]
        return (above - 1 + (logs - low) / (high - low)).clamp(0, len(self) - 1)
