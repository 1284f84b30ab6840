"""The controller: a small network that looks at 64 numbers of each slot and says what to do before the next call.

One head for each of the four actions; the head of the expert is the router. Where the router is not sure enough, where
the price is one at which nothing better than the static program was found, or where an observation is no number, a slot
follows the static program. Weights are safetensors and the configuration is JSON, as `diffusers` keeps its models.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn

from vernissage.core.errors import BadInput, BadParams
from vernissage.core.seeds import torch_generator
from vernissage.sampler.learn.experts import ACTIONS, STATIC
from vernissage.sampler.learn.features import FEATURES, prices_of
from vernissage.sampler.learn.policies import Decision

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

#: Standardised observations are clipped here: what is far out of all that was trained on counts as this far.
LIMIT = 5.0
#: First logits of all other actions have this much spread between observations.
_FIRST_GAIN = 0.01
_ROUTER = 1
# Where the logits of each head are.
_PARTS = tuple((sum(ACTIONS[:place]), sum(ACTIONS[: place + 1])) for place in range(len(ACTIONS)))
# A price is seen as a float32.
_SLACK = 1e-5


class SteeringController(ModelMixin, ConfigMixin):  # type: ignore[misc]  # `config_name` of both
    """Two layers of tanh and four heads.

    Fresh weights choose the static program whatever they see, so that training starts from it.

    Args:
        features: Numbers of one observation.
        actions: How many actions each head chooses from.
        hidden: Width of the two layers.
        temperature: Of the router: below 1 its probabilities are sharper, above 1 flatter. Which expert is most
            probable does not depend on it; confidence and gates do.
        confidence_floor: Where the most probable expert has less than this probability, the slot follows STATIC.
        soft: Multistep experts are mixed by the router's probabilities instead of chosen.
        static_share: With fresh weights, probability of the static choice in each head.
        price_range: Lowest and highest price that it may steer at; STATIC beyond them.
        static_prices: Pairs of a lowest and a highest price at which the static program was as good on validation
            requests: STATIC there.
        seed: Of fresh weights.

    Raises:
        BadParams: If a value is out of its range.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    @register_to_config
    def __init__(
        self,
        features: int = len(FEATURES),
        actions: Sequence[int] = ACTIONS,
        hidden: int = 64,
        temperature: float = 1.0,
        confidence_floor: float = 0.0,
        soft: bool = False,  # noqa: ARG002 - kept in the configuration
        static_share: float = 0.95,
        price_range: Sequence[float] = (0.0, 1.0),
        static_prices: Sequence[Sequence[float]] = (),
        seed: int = 0,
    ) -> None:
        super().__init__()
        _check(temperature, confidence_floor, static_share, price_range, static_prices)
        if features != len(FEATURES) or tuple(actions) != tuple(ACTIONS):
            raise BadParams(
                f"controller: {features} features and actions {tuple(actions)}, this version has {len(FEATURES)} and "
                f"{tuple(ACTIONS)}; train it again"
            )
        generator = torch_generator(seed, "controller")
        # Layers draw from torch's own generator: borrowed, and given back as it was.
        with torch.random.fork_rng(devices=[]):
            self.first, self.second = nn.Linear(features, hidden), nn.Linear(hidden, hidden)
            self.stride, self.router, self.guidance, self.noise = (nn.Linear(hidden, count) for count in actions)
        with torch.no_grad():
            for layer in (self.first, self.second):
                layer.weight.copy_(_orthogonal(layer, math.sqrt(2), generator))
                layer.bias.zero_()
            for head, bias in zip(self.heads, static_bias(static_share), strict=True):
                head.weight.copy_(_orthogonal(head, _FIRST_GAIN, generator))
                head.bias.copy_(bias)
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self._edges = _steering_edges(price_range, static_prices)
        # What decisions are computed with, after the weights that it was made of and their version.
        self._plain: tuple[list[torch.Tensor], int, tuple[np.ndarray, ...]] | None = None

    @property
    def heads(self) -> tuple[nn.Linear, nn.Linear, nn.Linear, nn.Linear]:
        """The layers that choose stride, expert, guidance and noise."""
        return self.stride, self.router, self.guidance, self.noise

    def forward(self, observations: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Logits of the four heads.

        Args:
            observations: (N, 64).

        Returns:
            (N, A) for each head.
        """
        seen = ((observations - self.mean) * self.scale).clamp(-LIMIT, LIMIT)
        hidden = self.second(self.first(seen).tanh()).tanh()
        return tuple(head(hidden) for head in self.heads)

    def decide(self, observations: np.ndarray) -> Decision:
        """Choose the most probable actions.

        It computes in numpy: for so small a network, torch would spend most of its time on calling itself.

        Args:
            observations: (N, 64) float32.

        Returns:
            Actions, gates (where ``soft``) and the router's confidence.

        Raises:
            BadInput: If the shape is another one.
        """
        if observations.ndim != 2 or observations.shape[1] != len(FEATURES):
            raise BadInput(f"controller: observations of shape {observations.shape}, expected (N, {len(FEATURES)})")
        mean, scale, first, first_bias, second, second_bias, heads, heads_bias = self._weights()
        # Columns are slots: sums and maxima down the columns are the quick ones.
        seen = observations.T - mean
        seen *= scale
        np.minimum(seen, LIMIT, out=seen)
        np.maximum(seen, -LIMIT, out=seen)
        hidden = first @ seen
        hidden += first_bias
        np.tanh(hidden, out=hidden)
        hidden = second @ hidden
        hidden += second_bias
        np.tanh(hidden, out=hidden)
        logits = heads @ hidden
        logits += heads_bias

        actions = np.empty((len(observations), len(ACTIONS)), dtype=np.int64)
        for place, (begin, end) in enumerate(_PARTS):
            actions[:, place] = logits[begin:end].argmax(axis=0)
        begin, end = _PARTS[_ROUTER]
        router = logits[begin:end]
        router -= router.max(axis=0)
        router /= self.config["temperature"]
        np.exp(router, out=router)
        router /= router.sum(axis=0)
        confidence = router.max(axis=0)

        static = self._static_prices(prices_of(observations))
        # Also true for what is no number: whatever the weights, it is none afterwards.
        static |= ~(confidence >= self.config["confidence_floor"])
        actions[static] = STATIC
        if not self.config["soft"]:
            return Decision(actions, None, confidence)
        gates = router.T.copy()
        gates[static] = 0
        gates[static, STATIC[_ROUTER]] = 1
        return Decision(actions, gates, confidence)

    def steers_at(self, price: float) -> bool:
        """Whether it has a say at a price, or the static program is what was found best there."""
        return not bool(self._static_prices(np.array([price], dtype=np.float64))[0])

    @classmethod
    def from_policy(cls, policy: Any, **config: Any) -> Self:
        """Take the actor out of a policy of stable-baselines3.

        Args:
            policy: An ``ActorCriticPolicy`` with two layers of tanh of equal width; where its extractor of features has
                ``mean`` and ``scale``, observations are standardised here as there.
            config: See the class.

        Raises:
            BadInput: If it is built in another way.
        """
        try:
            first, second = policy.mlp_extractor.policy_net[0], policy.mlp_extractor.policy_net[2]
            heads, hidden = policy.action_net, int(first.out_features)
            wide = (int(first.in_features), int(second.out_features), int(heads.out_features))
        except (AttributeError, IndexError, TypeError) as error:
            raise BadInput(f"controller: not a policy with two layers and one linear head ({error})") from error
        if wide != (len(FEATURES), hidden, sum(ACTIONS)):
            raise BadInput(
                f"controller: a policy with {wide[0]} inputs, layers of {hidden} and {wide[1]}, and {wide[2]} logits; "
                f"expected {len(FEATURES)}, two equal ones, and {sum(ACTIONS)}"
            )
        made = cls(hidden=hidden, **config)
        extractor = policy.features_extractor
        with torch.no_grad():
            for mine, theirs in ((made.first, first), (made.second, second)):
                mine.weight.copy_(theirs.weight)
                mine.bias.copy_(theirs.bias)
            parts = zip(heads.weight.split(ACTIONS), heads.bias.split(ACTIONS), strict=True)
            for mine, (weight, bias) in zip(made.heads, parts, strict=True):
                mine.weight.copy_(weight)
                mine.bias.copy_(bias)
            if hasattr(extractor, "mean"):
                made.mean.copy_(extractor.mean)
                made.scale.copy_(extractor.scale)
        return made.eval()

    def configured(self, **changes: Any) -> Self:
        """The same weights with some values of the configuration changed."""
        config = {key: value for key, value in self.config.items() if not key.startswith("_")}
        made = type(self)(**{**config, **changes})
        made.load_state_dict(self.state_dict())
        return made.eval()

    def _static_prices(self, prices: np.ndarray) -> np.ndarray:
        return np.asarray(self._edges.searchsorted(prices) % 2 == 0)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """As of any module; what decisions are computed with is made anew."""
        self._plain = None
        return super().load_state_dict(*args, **kwargs)

    def _weights(self) -> tuple[np.ndarray, ...]:
        """Everything as numpy arrays; made anew when a weight has changed."""
        if self._plain is None or self._plain[1] != _version(self._plain[0]):
            watched = [*self.parameters(), *self.buffers()]
            heads = (torch.cat([head.weight for head in self.heads]), torch.cat([head.bias for head in self.heads]))
            layers = ((self.first.weight, self.first.bias), (self.second.weight, self.second.bias), heads)
            columns = [self.mean[:, None], self.scale[:, None]]
            for weight, bias in layers:
                columns += [weight, bias[:, None]]
            arrays = tuple(column.detach().float().cpu().numpy().copy() for column in columns)
            self._plain = (watched, _version(watched), arrays)
        return self._plain[2]


def _orthogonal(layer: nn.Linear, gain: float, generator: torch.Generator) -> torch.Tensor:
    """Weights for a layer, made here also while the layer has no memory yet (as `accelerate` loads models)."""
    weights = torch.empty(layer.out_features, layer.in_features, device="cpu")
    return nn.init.orthogonal_(weights, gain, generator=generator)


def _version(tensors: Sequence[torch.Tensor]) -> int:
    """A number that grows whenever one of them is written to."""
    return sum(tensor._version for tensor in tensors)  # noqa: SLF001


def _steering_edges(price_range: Sequence[float], static_prices: Sequence[Sequence[float]]) -> np.ndarray:
    """Increasing prices at which steering begins and ends in turn; at the edges between, static goes first."""
    edges = [price_range[0] * (1 - _SLACK), price_range[1] * (1 + _SLACK)]
    for low, high in sorted(map(tuple, static_prices)):
        start, end = low * (1 - _SLACK), high * (1 + _SLACK)
        before, after = sum(edge < start for edge in edges), sum(edge <= end for edge in edges)
        # Where it steered on either side, it now ends or begins there.
        edges = [*edges[:before], *([start] if before % 2 else []), *([end] if after % 2 else []), *edges[after:]]
    return np.array(edges)


def static_bias(share: float) -> tuple[torch.Tensor, ...]:
    """Biases of the heads for which the static choice has a probability and all others share the rest."""
    biases = []
    for count, chosen in zip(ACTIONS, STATIC.tolist(), strict=True):
        bias = torch.zeros(count)
        bias[chosen] = math.log(share * (count - 1) / (1 - share))
        biases.append(bias)
    return tuple(biases)


def _check(
    temperature: float,
    confidence_floor: float,
    static_share: float,
    price_range: Sequence[float],
    static_prices: Sequence[Sequence[float]],
) -> None:
    if not 0 < temperature < math.inf or not 0 <= confidence_floor <= 1 or not 0 < static_share < 1:
        raise BadParams(
            f"controller: temperature {temperature}, confidence floor {confidence_floor}, static share {static_share}; "
            "expected a temperature above 0, a floor from 0 to 1 and a share between them"
        )
    for pair in (price_range, *static_prices):
        if len(pair) != 2 or not 0 <= pair[0] <= pair[1] < math.inf:
            raise BadParams(f"controller: prices {list(pair)}, expected a lowest and a highest one, 0 or more")
