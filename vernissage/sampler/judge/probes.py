"""Networks around a network: they count, spoil, round or mix its answers, for robustness cases."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from vernissage.core.seeds import torch_generator

if TYPE_CHECKING:
    from collections.abc import Callable

    from vernissage.sampler.domain.denoiser import Condition, Denoiser

#: What a wrapped call gives: predictions, and features where it was asked for those as well.
Answer = tuple[torch.Tensor, torch.Tensor | None]


class Wrapped:
    """A denoiser around another one; whatever else that one has, such as features, shows through.

    Args:
        denoiser: The one inside.
    """

    def __init__(self, denoiser: Denoiser) -> None:
        self._inside: Any = denoiser
        self.shape, self.sigma_data = denoiser.shape, denoiser.sigma_data
        self.sigma_min, self.sigma_max = denoiser.sigma_min, denoiser.sigma_max

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor, condition: Condition | None) -> torch.Tensor:
        """Ask the one inside, each wrapper in its own way."""
        return self.changed(lambda *asked: (self._inside(*asked), None), x, sigma, condition)[0]

    def __getattr__(self, name: str) -> Any:
        """What the one inside has; its features only through this one."""
        if name.startswith("__") or name == "_inside":
            raise AttributeError(name)
        found = getattr(self._inside, name)
        return partial(self.changed, found) if name == "call_with_features" else found

    def changed(
        self, ask: Callable[..., Answer], x: torch.Tensor, sigma: torch.Tensor, condition: Condition | None
    ) -> Answer:
        """Ask, with another question or another answer than it would be without."""
        return ask(x, sigma, condition)


class Probe(Wrapped):
    """Counts the samples that go through the network, and notes their types.

    Attributes:
        evaluations: Samples so far.
        types: Types of the states so far.
    """

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__(denoiser)
        self.evaluations = 0
        self.types: set[torch.dtype] = set()

    def changed(
        self, ask: Callable[..., Answer], x: torch.Tensor, sigma: torch.Tensor, condition: Condition | None
    ) -> Answer:
        """Ask, and take notes."""
        self.evaluations += len(x)
        self.types.add(x.dtype)
        return ask(x, sigma, condition)


class BrokenOnce(Wrapped):
    """Answers with a number that is none, for one sample of one call.

    Args:
        denoiser: The one inside.
        call: Which call, from 0.
        value: The number.
    """

    def __init__(self, denoiser: Denoiser, call: int, value: float = torch.nan) -> None:
        super().__init__(denoiser)
        self._left, self._value = call, value

    def changed(
        self, ask: Callable[..., Answer], x: torch.Tensor, sigma: torch.Tensor, condition: Condition | None
    ) -> Answer:
        """Ask; spoil a pixel of the first sample when it is time."""
        made, features = ask(x, sigma, condition)
        if self._left == 0:
            made = made.clone()
            made.view(len(made), -1)[0, 0] = self._value
        self._left -= 1
        return made, features


class Rounded(Wrapped):
    """Questions and answers go through a narrower type, as those of a network that computes in it do.

    Args:
        denoiser: The one inside.
        kind: The type.
    """

    def __init__(self, denoiser: Denoiser, kind: torch.dtype) -> None:
        super().__init__(denoiser)
        self._kind = kind

    def changed(
        self, ask: Callable[..., Answer], x: torch.Tensor, sigma: torch.Tensor, condition: Condition | None
    ) -> Answer:
        """Round, ask and round."""
        # The scaled state, as the network sees it: a state of sigma 80 itself would leave nothing of the picture.
        size = (sigma**2 + self.sigma_data**2).sqrt().view(-1, 1, 1, 1).to(x)
        made, features = ask((x / size).to(self._kind).to(x) * size, sigma, condition)
        return made.to(self._kind).to(made), features


class Misreported(Wrapped):
    """Says another highest noise level than it has.

    Args:
        denoiser: The one inside.
        factor: On the level.
    """

    def __init__(self, denoiser: Denoiser, factor: float) -> None:
        super().__init__(denoiser)
        self.sigma_max = denoiser.sigma_max * factor


class Uneven(Wrapped):
    """Answers are off by a share of themselves, more here and less there: for networks whose weights are out of reach.

    Args:
        denoiser: The one inside.
        share: Standard deviation of the factor on each pixel.
        seed: Draws the factors.
    """

    def __init__(self, denoiser: Denoiser, share: float, seed: int) -> None:
        super().__init__(denoiser)
        self._factors = 1 + share * torch.randn(denoiser.shape, generator=torch_generator(seed, "uneven"))

    def changed(
        self, ask: Callable[..., Answer], x: torch.Tensor, sigma: torch.Tensor, condition: Condition | None
    ) -> Answer:
        """Ask, and answer unevenly."""
        made, features = ask(x, sigma, condition)
        return made * self._factors.to(made), features


@dataclass(frozen=True)
class Both:
    """Two conditions at once for each sample; only :class:`Averaged` understands them."""

    first: Condition
    second: Condition

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.first)

    def rows(self, index: torch.Tensor) -> Both:
        """Conditions of some samples."""
        return Both(self.first.rows(index), self.second.rows(index))

    def null(self) -> Both:
        """As many that ask for nothing."""
        return Both(self.first.null(), self.second.null())

    def joined(self, other: Both) -> Both:
        """Both, one after the other."""
        return Both(self.first.joined(other.first), self.second.joined(other.second))


class Averaged(Wrapped):
    """Answers :class:`Both` with the mean of the two predictions; other conditions as the one inside does."""

    def changed(
        self, ask: Callable[..., Answer], x: torch.Tensor, sigma: torch.Tensor, condition: Condition | None
    ) -> Answer:
        """Ask twice in one batch."""
        if not isinstance(condition, Both):
            return ask(x, sigma, condition)
        asked = condition.first.joined(condition.second)
        made, features = ask(torch.cat((x, x)), torch.cat((sigma, sigma)), asked)
        return made.view(2, *x.shape).mean(dim=0), None if features is None else features.view(2, len(x), -1).mean(0)


def in_type(denoiser: Denoiser, kind: torch.dtype) -> Denoiser | None:
    """A copy that computes in a type; none for what has no weights."""
    if not isinstance(denoiser, nn.Module):
        return None
    made: Any = copy.deepcopy(denoiser).to(kind)
    return made


def with_noise(denoiser: Denoiser, share: float, seed: int) -> Denoiser:
    """A copy whose weights are off by normal noise, a share of the root mean square of each tensor.

    Where there are no weights, its answers are off by as much.
    """
    if not isinstance(denoiser, nn.Module):
        return Uneven(denoiser, share, seed)
    made: Any = copy.deepcopy(denoiser)
    generator = torch_generator(seed, "weights")
    with torch.no_grad():
        for weight in made.parameters():
            size = float(weight.square().mean().sqrt())
            weight.add_(share * size * torch.randn(weight.shape, generator=generator).to(weight))
    return made


def with_rounded_weights(denoiser: Denoiser, kind: torch.dtype) -> Denoiser:
    """A copy whose weights went through a narrower type; where there are none, its answers do."""
    if not isinstance(denoiser, nn.Module):
        return Rounded(denoiser, kind)
    made: Any = copy.deepcopy(denoiser)
    with torch.no_grad():
        for weight in made.parameters():
            weight.copy_(weight.to(kind).to(weight))
    return made
