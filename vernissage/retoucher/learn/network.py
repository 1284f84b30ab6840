"""The policy network: plans slider settings from the photo, then values each action by how far it leads there."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn

from vernissage.core.errors import CorruptArtifact
from vernissage.core.weights import load_weights, save_weights
from vernissage.retoucher.domain.render import clamp_settings
from vernissage.retoucher.domain.sliders import SLIDER_COUNT, slider_index
from vernissage.retoucher.learn.actions import ActionTable
from vernissage.retoucher.learn.environment import VIEW_STATISTICS
from vernissage.retoucher.learn.extractors import ExtractorSpec, make_trunk, trained_parameters
from vernissage.retoucher.learn.suggestions import BALANCE_COLUMNS, SETTINGS, SUGGESTIONS, TONE_COLUMNS, of_one_tone

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

#: Logit of an action that cannot move its slider; finite, so that distributions stay free of NaN.
MASKED_LOGIT = -1e8


# Where the plan's exposure and contrast may come from: its own opinion, what the classics suggest, nothing. Temperature
# and tint likewise.
_TONE_SOURCES = len(TONE_COLUMNS) + 2
_BALANCE_SOURCES = len(BALANCE_COLUMNS) + 2
_TONE = [slider_index("exposure"), slider_index("contrast")]
_BALANCE = [slider_index("temperature"), slider_index("tint")]
# What the picture itself adds to the question whom to trust; narrow, because photos to learn it from are few.
_TRUST_GLANCE = 24


def _weighted(
    own: torch.Tensor, suggestions: torch.Tensor, columns: Sequence[int], logits: torch.Tensor
) -> torch.Tensor:
    """Mean of (N, 2) own opinion, the suggestions in pairs of columns, and nothing, by the softmax of (N, S) logits."""
    sources = [own, *(suggestions[:, column : column + 2] for column in columns), torch.zeros_like(own)]
    return (torch.stack(sources, dim=1) * torch.softmax(logits, dim=1).unsqueeze(2)).sum(dim=1)


def _evidence(suggestions: torch.Tensor) -> torch.Tensor:
    """Suggestions, their sizes, and which of them are as good as zero.

    A fault of contrast alone moves all ends alike and asks for no exposure and no balance: such agreement of several
    suggestions is what shows that one of them is exact, and it needs few photos to be learned.
    """
    settings = suggestions[:, :SETTINGS]
    nearly_zero = torch.exp(-((settings / 0.06) ** 2))
    return torch.cat((suggestions, settings.abs(), nearly_zero), dim=1)


@dataclass(frozen=True)
class PolicySpec:
    """What is needed to build the network again.

    Attributes:
        view: Side of the thumbnails in pixels.
        standard: Long edge in pixels at which the ends of a photo's histogram are measured.
        horizon: Most edits of one episode.
        strengths: Step sizes of the actions.
        widths: Channels of the convolutions.
        step_cost: Price of an edit, in units of the error that it must at least remove.
        extractor: What the network looks through.
    """

    view: int
    standard: int
    horizon: int
    strengths: tuple[float, ...]
    widths: tuple[int, ...]
    step_cost: float
    extractor: ExtractorSpec = field(default_factory=ExtractorSpec)

    def actions(self) -> ActionTable:
        """The action table."""
        return ActionTable(self.strengths)


class PolicyNet(nn.Module):
    """Actor and critic over one plan.

    The trunk looks at the original and proposes settings p* (the plan). For exposure and contrast, and for temperature
    and tint, the plan weighs its own opinion against what classic corrections suggest and against doing nothing, photo
    by photo: where a histogram tells the fault exactly, the weights can become all or nothing and the plan exact.

    The actor prices every action by how much nearer to p* it leads, in the units of the reward, and corrects that
    price by a learned residual, which also sees what the edits so far have made of the photo; stopping has the price
    zero. So an untrained residual already follows the plan in discrete steps, and what reinforcement learning changes
    is visible in two places: the plan and the residual.

    Args:
        spec: Sizes.
        sensitivity: (K,) mean squared change of encoded values per squared unit of each slider.
    """

    def __init__(self, spec: PolicySpec, sensitivity: torch.Tensor | None = None) -> None:
        super().__init__()
        self.spec = spec
        table = spec.actions()
        self.trunk = make_trunk(spec.extractor, spec.widths, 96)
        plan_width = self.trunk.width + SUGGESTIONS
        self.plan_head = nn.Sequential(nn.Linear(plan_width, 128), nn.ReLU(), nn.Linear(128, SLIDER_COUNT))
        self.glance = nn.Sequential(nn.Linear(self.trunk.width, _TRUST_GLANCE), nn.ReLU())
        last_trust = nn.Linear(64, _TONE_SOURCES + _BALANCE_SOURCES)
        trust_width = SUGGESTIONS + 2 * SETTINGS + _TRUST_GLANCE
        self.trust = nn.Sequential(nn.Linear(trust_width, 64), nn.ReLU(), last_trust)
        self.context = nn.Sequential(nn.Linear(self.trunk.width, 48), nn.Tanh())
        self.present = nn.Sequential(nn.Linear(VIEW_STATISTICS, 32), nn.Tanh())
        state_width = 48 + 32 + 2 * SLIDER_COUNT + 1 + table.count
        self.residual = nn.Sequential(nn.Linear(state_width, 64), nn.Tanh(), nn.Linear(64, table.count))
        self.critic = nn.Sequential(nn.Linear(state_width, 64), nn.Tanh(), nn.Linear(64, 1))
        self.log_sharpness = nn.Parameter(torch.tensor(3.0))
        for parameters in (self.plan_head[-1], self.residual[-1], self.critic[-1]):
            for parameter in parameters.parameters():
                nn.init.zeros_(parameter)
        nn.init.zeros_(last_trust.weight)
        nn.init.zeros_(last_trust.bias)
        # Untaught, the plan is the network's own: nothing.
        last_trust.bias.data[[0, _TONE_SOURCES]] = 200.0
        self._last_trust = (last_trust,)  # a tuple: it is a module of `trust` already
        self.sensitivity: torch.Tensor
        self.deltas: torch.Tensor
        self.register_buffer("sensitivity", torch.ones(SLIDER_COUNT) if sensitivity is None else sensitivity.clone())
        self.register_buffer("deltas", table.deltas.clone())
        self._table = table

    def trust_classics(self, share: float) -> None:
        """Let the plan begin near the exact suggestions instead of with nothing; training moves it from there.

        Args:
            share: Weight of the exact suggestions in (0, 1); the other sources share the rest equally.
        """
        with torch.no_grad():
            for logits in self._last_trust[0].bias.split((_TONE_SOURCES, _BALANCE_SOURCES)):
                logits.fill_(math.log((1 - share) / (len(logits) - 1)))
                logits[1] = math.log(share)

    def plan(self, originals: torch.Tensor, suggestions: torch.Tensor, dropout: float = 0.0) -> torch.Tensor:
        """Propose settings.

        Args:
            originals: (N, 3, V, V) float in [0, 1].
            suggestions: (N, SUGGESTIONS), see :func:`classic_suggestions`.
            dropout: Share of the own opinion's hidden units to leave out at random: for teaching only.

        Returns:
            (N, K) settings within the sliders' ranges; all zero for a picture of one tone.
        """
        return self._plan(self.trunk(originals), suggestions, dropout)

    def forward(self, observation: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits and value of each photo's state.

        Args:
            observation: As :func:`environment.observation_space`, as tensors with a leading N.

        Returns:
            (N, A) logits, (N,) values.
        """
        features = self.trunk(observation["original"].float() / 255, observation["original_statistics"].float())
        settings = observation["settings"].float()
        gap = self._plan(features, observation["suggestions"].float()) - settings
        state = torch.cat(
            (
                self.context(features),
                self.present(observation["view_statistics"].float()),
                gap,
                settings,
                observation["progress"].float(),
                observation["last_action"].float(),
            ),
            dim=1,
        )
        logits = torch.exp(self.log_sharpness) * self._price(gap) + self.residual(state)
        logits = logits.masked_fill(~self._table.allowed(settings), MASKED_LOGIT)
        return logits, self.critic(state).squeeze(1)

    def _plan(self, features: torch.Tensor, suggestions: torch.Tensor, dropout: float = 0.0) -> torch.Tensor:
        hidden = self.plan_head[:-1](torch.cat((features, suggestions), dim=1))
        own = torch.tanh(self.plan_head[-1](F.dropout(hidden, dropout, training=dropout > 0)))
        logits = self.trust(torch.cat((_evidence(suggestions), self.glance(features)), dim=1))
        wanted = own.clone()
        wanted[:, _TONE] = _weighted(own[:, _TONE], suggestions, TONE_COLUMNS, logits[:, :_TONE_SOURCES])
        wanted[:, _BALANCE] = _weighted(own[:, _BALANCE], suggestions, BALANCE_COLUMNS, logits[:, _TONE_SOURCES:])
        # A picture of one tone has nothing to go by.
        return clamp_settings(wanted).masked_fill(of_one_tone(suggestions).unsqueeze(1), 0.0)

    def _price(self, gap: torch.Tensor) -> torch.Tensor:
        """(N, A) expected fall of the error by each action, minus its cost, to first order in the plan."""
        distance = ((gap.unsqueeze(1) - self.deltas) ** 2 * self.sensitivity).sum(dim=2)
        now = (gap**2 * self.sensitivity).sum(dim=1, keepdim=True)
        error_now, error_then = 10 * torch.sqrt(now + 1e-6), 10 * torch.sqrt(distance + 1e-6)
        cost = self.spec.step_cost * (self.deltas.abs().sum(dim=1) > 0).to(gap.dtype)
        return error_now - error_then - cost

    def plan_parameters(self) -> list[nn.Parameter]:
        """The weights that make the plan and may learn."""
        modules = (self.trunk, self.plan_head, self.glance, self.trust)
        return [parameter for module in modules for parameter in trained_parameters(module)]

    def save(self, folder: Path, extra: Mapping[str, Any] | None = None) -> None:
        """Write ``model.safetensors`` and ``model.json``."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        save_weights(folder, tensors, {"policy": asdict(self.spec), **(extra or {})})

    @staticmethod
    def load(folder: Path) -> PolicyNet:
        """Read what :meth:`save` wrote.

        Raises:
            MissingArtifact: If there is no model; the message says what to run.
            CorruptArtifact: If hash, specification or weights do not fit.
        """
        tensors, spec = load_weights(folder)
        try:
            fields = dict(spec["policy"])
            fields["strengths"], fields["widths"] = tuple(fields["strengths"]), tuple(fields["widths"])
            fields["extractor"] = ExtractorSpec.from_json(fields.get("extractor", {}))
            network = PolicyNet(PolicySpec(**fields))
            network.load_state_dict(tensors)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            message = f"{folder}: not a retoucher of this version ({error}); train one with `dvc repro train@retoucher`"
            raise CorruptArtifact(message) from error
        return network.eval()
