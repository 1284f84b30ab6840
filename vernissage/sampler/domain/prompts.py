"""Prompts as a network reads them: embeddings by row, each beside those of asking for nothing."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from vernissage.core.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Sequence

log = logging.getLogger(__name__)

#: Prompts that go through a text encoder at once.
BATCH = 64
_SHOWN = 40


@dataclass(frozen=True, eq=False)
class TextEmbeddings:
    """Conditions by prompt.

    Attributes:
        prompts: (N, T, E), one row per token.
        nothing: (N, T, E), what guidance subtracts: the negative prompt, or none.
        pooled: (N, P), one row per prompt; only networks of the SDXL kind read it.
        pooled_nothing: (N, P), the same for the negative prompt.
        time_ids: (N, 6), original height and width, top and left of the crop, target height and width in pixels.
    """

    prompts: torch.Tensor
    nothing: torch.Tensor
    pooled: torch.Tensor | None = None
    pooled_nothing: torch.Tensor | None = None
    time_ids: torch.Tensor | None = None

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.prompts)

    def rows(self, index: torch.Tensor) -> TextEmbeddings:
        """Conditions of some samples."""
        index = index.to(self.prompts.device)
        return TextEmbeddings(*(None if part is None else part[index] for part in self._parts()))  # type: ignore[arg-type]

    def null(self) -> TextEmbeddings:
        """As many that ask for nothing."""
        return TextEmbeddings(self.nothing, self.nothing, self.pooled_nothing, self.pooled_nothing, self.time_ids)

    def joined(self, other: TextEmbeddings) -> TextEmbeddings:
        """Both, one after the other.

        Raises:
            BadInput: They were made for different networks.
        """
        if self.sizes != other.sizes:
            raise BadInput(
                f"text embeddings of sizes {self.sizes} and {other.sizes} cannot be joined; encode all prompts with "
                "the same pipeline"
            )
        pairs = zip(self._parts(), other._parts(), strict=True)
        return TextEmbeddings(*(None if a is None or b is None else torch.cat((a, b)) for a, b in pairs))  # type: ignore[arg-type]

    @property
    def sizes(self) -> tuple[tuple[int, ...] | None, ...]:
        """Shapes of one row: prompt, nothing, pooled, pooled nothing, time ids."""
        return tuple(None if part is None else tuple(part.shape[1:]) for part in self._parts())

    def _parts(self) -> tuple[torch.Tensor | None, ...]:
        return self.prompts, self.nothing, self.pooled, self.pooled_nothing, self.time_ids


class TextEncoders:
    """The text encoders of a pipeline, one or two, with their tokenizers.

    Args:
        parts: Tokenizer and CLIP text model of each.
        pooled: The SDXL kind: the layer before the last one of each, side by side, and the last encoder's pooled row.
        zeros: An empty negative prompt is all zeros instead of the embedding of an empty text.
    """

    def __init__(self, parts: Sequence[tuple[Any, Any]], *, pooled: bool, zeros: bool) -> None:
        self._parts = tuple(parts)
        self._pooled, self._zeros = pooled, zeros

    def encode(self, prompts: list[str], negative: str = "") -> TextEmbeddings:
        """Embed prompts; one that is too long loses its end, and the log says which.

        Args:
            prompts: N texts.
            negative: What to keep away from, the same for all; empty for nothing in particular.

        Returns:
            N conditions without time ids.

        Raises:
            BadInput: Not a list of texts, or an empty one.
        """
        _check(prompts, negative)
        distinct = list(dict.fromkeys((*prompts, negative)))
        for text in distinct:
            self._warn_if_cut(text, f"prompt {prompts.index(text)}" if text in prompts else "negative prompt")
        pieces = [self._embed(distinct[start : start + BATCH]) for start in range(0, len(distinct), BATCH)]
        tokens, pooled = (torch.cat(column) for column in zip(*pieces, strict=True))
        place = {text: number for number, text in enumerate(distinct)}
        index = torch.tensor([place[text] for text in prompts], device=tokens.device)
        nothing, pooled_nothing = tokens[place[negative]], pooled[place[negative]]
        if self._zeros and not negative:
            nothing, pooled_nothing = torch.zeros_like(nothing), torch.zeros_like(pooled_nothing)
        count = len(prompts)
        embeddings = TextEmbeddings(tokens[index], nothing.expand(count, -1, -1))
        if not self._pooled:
            return embeddings
        return TextEmbeddings(embeddings.prompts, embeddings.nothing, pooled[index], pooled_nothing.expand(count, -1))

    @torch.no_grad()
    def _embed(self, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """(M, T, E) rows by token and (M, P) pooled; P is 0 where nobody reads it."""
        layers, pooled = [], None
        for tokenizer, encoder in self._parts:
            tokens = tokenizer(
                texts, padding="max_length", max_length=_room(tokenizer, encoder), truncation=True, return_tensors="pt"
            )
            mask = tokens.attention_mask if getattr(encoder.config, "use_attention_mask", False) else None
            answer = encoder(
                tokens.input_ids.to(encoder.device),
                attention_mask=None if mask is None else mask.to(encoder.device),
                output_hidden_states=self._pooled,
            )
            layers.append(answer.hidden_states[-2] if self._pooled else answer[0])
            pooled = answer[0]
        if pooled is None or not self._pooled:
            return torch.cat(layers, dim=-1), layers[0].new_zeros((len(texts), 0))
        return torch.cat(layers, dim=-1), pooled

    def _warn_if_cut(self, text: str, name: str) -> None:
        for tokenizer, encoder in self._parts:
            room = _room(tokenizer, encoder)
            ids = tokenizer(text, truncation=False, padding=False, verbose=False).input_ids
            if len(ids) > room:
                log.warning(
                    "%s (%s): %d tokens with its marks of start and end, the text encoder reads %d; cut off: %s",
                    name, _short(text), len(ids), room, _short(tokenizer.decode(ids[room - 1 : -1])),
                )  # fmt: skip
                return


def _room(tokenizer: Any, encoder: Any) -> int:
    return min(int(tokenizer.model_max_length), int(encoder.config.max_position_embeddings))


def _check(prompts: object, negative: object) -> None:
    if isinstance(prompts, (str, bytes)) or not isinstance(prompts, (list, tuple)):
        raise BadInput(
            f"prompts: got {type(prompts).__name__}, expected a list of texts; put a single prompt into a list"
        )
    if not prompts:
        raise BadInput("prompts: the list is empty, expected at least one text")
    for name, text in (
        *((f"prompt {number}", text) for number, text in enumerate(prompts)),
        ("negative prompt", negative),
    ):
        if not isinstance(text, str):
            raise BadInput(f"{name}: got {type(text).__name__} ({_short(repr(text))}), expected a text")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise BadInput(
                f"{name}: character {error.start} is half of a pair ({error.reason}); save the text as UTF-8"
            ) from None


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
