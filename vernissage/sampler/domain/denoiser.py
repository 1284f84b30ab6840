"""What a solver knows of a network: `D(x, sigma, condition)`, an estimate of the picture behind the noise.

Noise is of the variance exploding kind, ``x = picture + sigma * noise``, whatever the network was trained with; sigma
is the only time there is. Network evaluations are counted where the network is called, never by steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch

from vernissage.core.errors import BadInput

#: Class of a sample that asks for nothing in particular.
NULL = -1


class Condition(Protocol):
    """What each sample of a batch should show."""

    def __len__(self) -> int:
        """Number of samples."""
        ...

    def rows(self, index: torch.Tensor) -> Self:
        """Conditions of some samples, by (M,) long or (N,) bool."""
        ...

    def null(self) -> Self:
        """As many conditions that ask for nothing, as guidance subtracts."""
        ...

    def joined(self, other: Self) -> Self:
        """Both, one after the other."""
        ...


@dataclass(frozen=True)
class ClassLabels:
    """Conditions by class.

    Attributes:
        labels: (N,) long; ``NULL`` asks for no class.
    """

    labels: torch.Tensor

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.labels)

    def rows(self, index: torch.Tensor) -> ClassLabels:
        """Conditions of some samples."""
        return ClassLabels(self.labels[index])

    def null(self) -> ClassLabels:
        """As many without a class."""
        return ClassLabels(torch.full_like(self.labels, NULL))

    def joined(self, other: ClassLabels) -> ClassLabels:
        """Both, one after the other."""
        return ClassLabels(torch.cat((self.labels, other.labels)))

    def check(self, classes: int) -> None:
        """Refuse classes that a network does not know.

        Raises:
            BadInput: Naming the first of them.
        """
        strange = self.labels[(self.labels < NULL) | (self.labels >= classes)]
        if len(strange):
            raise BadInput(
                f"class {int(strange[0])}: this model knows 0 to {classes - 1}, and {NULL} for none in particular"
            )


class Denoiser(Protocol):
    """A network, as solvers see it.

    Attributes:
        shape: (C, H, W) of one sample.
        sigma_min: Least noise level that the network was taught.
        sigma_max: Highest one; sampling begins there.
        sigma_data: Standard deviation of the pictures.
    """

    shape: tuple[int, int, int]
    sigma_min: float
    sigma_max: float
    sigma_data: float

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor, condition: Condition | None) -> torch.Tensor:
        """Estimate the pictures behind the noise.

        Args:
            x: (N, C, H, W) float, picture plus sigma times noise.
            sigma: (N,) noise levels above 0.
            condition: What each sample should show; none asks for nothing in particular.

        Returns:
            (N, C, H, W).
        """
        ...


class Counted:
    """A denoiser that counts what it is asked.

    Args:
        denoiser: Whom to ask.

    Attributes:
        evaluations: Samples that went through the network so far.
        calls: Batches that did.
    """

    def __init__(self, denoiser: Denoiser) -> None:
        self._denoiser = denoiser
        self.shape, self.sigma_data = denoiser.shape, denoiser.sigma_data
        self.sigma_min, self.sigma_max = denoiser.sigma_min, denoiser.sigma_max
        self.evaluations = self.calls = 0

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor, condition: Condition | None) -> torch.Tensor:
        """Ask, and count the samples."""
        self.evaluations += len(x)
        self.calls += 1
        return self._denoiser(x, sigma, condition)

    def __getattr__(self, name: str) -> Any:
        """What else the network has; its features come with a call that counts."""
        if name == "_denoiser":  # not there yet
            raise AttributeError(name)
        found = getattr(self._denoiser, name)
        if name != "call_with_features":
            return found

        def counted(x: torch.Tensor, *rest: Any) -> Any:
            self.evaluations += len(x)
            self.calls += 1
            return found(x, *rest)

        return counted


def guided(
    denoiser: Denoiser, x: torch.Tensor, sigma: torch.Tensor, condition: Condition, scale: torch.Tensor
) -> torch.Tensor:
    """Classifier-free guidance (Ho and Salimans 2022, equation 6), each sample with a scale of its own.

    Samples with scale 1 cost one evaluation, with scale 0 one without their condition, all others two; all go through
    the network in one batch.

    Args:
        denoiser: The network.
        x: (N, C, H, W).
        sigma: (N,).
        condition: N conditions.
        scale: (N,) float: 0 ignores the condition, 1 obeys it, more exaggerates it.

    Returns:
        (N, C, H, W).
    """
    plain, obeyed = scale != 1, scale != 0
    without, with_it = plain.nonzero().flatten(), obeyed.nonzero().flatten()
    rows = torch.cat((with_it, without))
    asked = condition.rows(with_it).joined(condition.null().rows(without))
    answers = denoiser(x[rows], sigma[rows], asked)
    conditional, unconditional = torch.zeros_like(x), torch.zeros_like(x)
    conditional[with_it], unconditional[without] = answers[: len(with_it)], answers[len(with_it) :]
    weight = scale.view(-1, 1, 1, 1).to(x)
    return torch.where(
        (scale == 1).view(-1, 1, 1, 1), conditional, unconditional + weight * (conditional - unconditional)
    )
