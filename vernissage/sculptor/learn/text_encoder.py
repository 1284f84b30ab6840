"""Text encoders: what the network sees of a prompt, from words of its own or from a pretrained sentence encoder."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from vernissage.core.errors import BadInput, CorruptArtifact, MissingArtifact
from vernissage.sculptor.domain.language import VOCABULARY
from vernissage.sculptor.domain.words import BUCKETS, ngrams, tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Name of the encoder that learns words; every other name is that of a pretrained one.
WORDS = "words"
#: Words of a prompt that are seen.
LONGEST = 48

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
# Vocabulary entries before the first word.
_PADDING, _UNKNOWN, _FIRST = 0, 1, 2
# How far apart two words may be for attention to tell the distance.
_FAR = 8
# Prompts that go through a pretrained network at once, and embeddings that are kept: 100,000 of 384 numbers are 150 MB.
_BATCH, _KEPT = 64, 100_000


@dataclass(frozen=True)
class Tokens:
    """Prompts as an encoder takes them; tensors that have a row for each prompt.

    Attributes:
        values: Of :class:`WordEncoder`: (B, L) long, 0 for no word, 1 for one outside the vocabulary. Of
            :class:`SentenceEncoder`: (B, D) float embeddings.
        grams: Of :class:`WordEncoder`: (B, L, G) long n-grams of the words, counted from 1; 0 for none.
    """

    values: torch.Tensor
    grams: torch.Tensor | None = None

    def __len__(self) -> int:
        """Number of prompts."""
        return len(self.values)

    def rows(self, index: torch.Tensor) -> Tokens:
        """Some of the prompts, by (M,) long or (B,) bool."""
        return Tokens(self.values[index], None if self.grams is None else self.grams[index])

    def to(self, device: torch.device | str) -> Tokens:
        """Copy to a device."""
        return Tokens(self.values.to(device), None if self.grams is None else self.grams.to(device))


class TextEncoder(nn.Module, ABC):
    """Turns prompts into vectors of `width` numbers; a prompt's vector does not depend on the others of its batch."""

    width: int

    @abstractmethod
    def tokenise(self, prompts: Sequence[str], generator: torch.Generator | None = None) -> Tokens:
        """Prepare prompts, which can be done long before they are needed.

        Args:
            prompts: Any text.
            generator: Draws what training hides of the words; None hides nothing.

        Returns:
            The prompts, on the CPU.
        """

    @abstractmethod
    def encode(self, batch: Tokens) -> torch.Tensor:
        """Return (B, width) float from prompts that :meth:`tokenise` prepared."""

    def forward(self, prompts: Sequence[str] | Tokens) -> torch.Tensor:
        """Return (B, width) float."""
        batch = prompts if isinstance(prompts, Tokens) else self.tokenise(prompts)
        return self.encode(batch.to(next(self.parameters()).device))


class WordEncoder(TextEncoder):
    """Learns the words of captions, and pieces of words for those that it has never seen.

    A word is its own vector if the vocabulary has it, otherwise the mean over its n-grams (Bojanowski et al. 2017,
    arXiv:1607.04606). Self-attention that knows the distance between two words binds adjectives to nouns (Shaw et al.
    2018, arXiv:1803.02155, as a bias); the mean over the words is the prompt. A prompt without words has a vector of
    its own.

    Args:
        width: Numbers of a prompt.
        buckets: Rows of the table of n-grams.
        vocabulary: Words with a vector of their own; what weights were trained with must be given to load them.
        ngram_share: While training, share of the words that are seen by their n-grams only, so that these learn.
        heads: Of the attention.

    Raises:
        BadInput: The width cannot be split between the heads, or a number is out of its range.
    """

    def __init__(
        self,
        width: int,
        buckets: int = BUCKETS,
        *,
        vocabulary: Sequence[str] = VOCABULARY,
        ngram_share: float = 0.1,
        heads: int = 4,
    ) -> None:
        super().__init__()
        if min(width, buckets, heads) < 1 or width % heads:
            raise BadInput(
                f"a word encoder of width {width}, {buckets} buckets and {heads} heads: expected a width that is a "
                "multiple of the heads, and at least 1 of each"
            )
        if not 0 <= ngram_share <= 1:
            raise BadInput(f"ngram_share = {ngram_share}: expected a share from 0 to 1")
        self.width, self.buckets, self.heads, self.ngram_share = width, buckets, heads, ngram_share
        self.vocabulary = tuple(vocabulary)
        self._numbers = {word: number for number, word in enumerate(self.vocabulary, _FIRST)}
        self.words = nn.Embedding(len(self.vocabulary) + _FIRST, width, padding_idx=_PADDING)
        self.pieces = nn.Embedding(buckets + 1, width, padding_idx=_PADDING)
        self.empty = nn.Parameter(torch.randn(width))
        self.norm_in, self.norm_between, self.norm_out = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.mix = nn.Linear(width, width)
        self.nearness = nn.Parameter(torch.zeros(heads, 2 * _FAR + 1))
        self.think = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.out = nn.Linear(width, width)

    def tokenise(self, prompts: Sequence[str], generator: torch.Generator | None = None) -> Tokens:
        """Look words up; the first 48 of a prompt count.

        Args:
            prompts: Any text.
            generator: Draws which words are seen by their n-grams only; None shows all.

        Returns:
            The prompts, on the CPU.
        """
        texts = [tokens(prompt)[:LONGEST] for prompt in prompts]
        grams = [[ngrams(word, self.buckets) for word in words] for words in texts]
        longest = max((len(words) for words in texts), default=0) or 1
        most = max((len(of_word) for words in grams for of_word in words), default=1)
        numbers = np.zeros((len(texts), longest), np.int64)
        pieces = np.zeros((len(texts), longest, most), np.int64)
        for row, words in enumerate(texts):
            numbers[row, : len(words)] = [self._numbers.get(word, _UNKNOWN) for word in words]
            for place, of_word in enumerate(grams[row]):
                pieces[row, place, : len(of_word)] = of_word
                pieces[row, place, : len(of_word)] += 1
        values = torch.from_numpy(numbers)
        if generator is not None:
            hidden = torch.rand(values.shape, generator=generator) < self.ngram_share
            values = torch.where(hidden & (values >= _FIRST), _UNKNOWN, values)
        return Tokens(values, torch.from_numpy(pieces))

    def encode(self, batch: Tokens) -> torch.Tensor:
        """Return (B, width) float from prompts that :meth:`tokenise` prepared."""
        if batch.grams is None:
            raise BadInput("prompts without n-grams: expected what this encoder's own tokenise returns")
        there = batch.values != _PADDING
        x = self._embedded(batch.values, batch.grams)
        x = x + self._attended(self.norm_in(x), there)
        x = x + self.think(self.norm_between(x))
        count = there.sum(1, keepdim=True)
        mean = (x * there[..., None]).sum(1) / count.clamp(min=1)
        vector: torch.Tensor = self.out(self.norm_out(torch.where(count > 0, mean, self.empty)))
        return vector

    def _embedded(self, values: torch.Tensor, grams: torch.Tensor) -> torch.Tensor:
        """Return (B, L, width): the vector of each word, or the mean over its n-grams."""
        unknown = values == _UNKNOWN
        vectors: torch.Tensor = self.words(values)
        of_unknown = grams[unknown]
        mean = self.pieces(of_unknown).sum(1) / (of_unknown != 0).sum(1, keepdim=True).clamp(min=1)
        return vectors.masked_scatter(unknown[..., None], mean.to(vectors.dtype))

    def _attended(self, x: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
        """Let each word look at the others of its prompt, by what they are and how far away they stand."""
        batch, length, width = x.shape
        queries, keys, values = (
            part.view(batch, length, self.heads, width // self.heads).transpose(1, 2)
            for part in self.queries_keys_values(x).split(width, dim=-1)
        )
        at = torch.arange(length, device=x.device)
        distance = (at[None] - at[:, None]).clamp(-_FAR, _FAR) + _FAR
        # A prompt without words may look at its padding, which counts for nothing, so that no row is all -inf.
        seen = there | ~there.any(1, keepdim=True)
        bias = self.nearness[:, distance].masked_fill(~seen[:, None, None], -torch.inf)
        attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias.to(queries.dtype))
        mixed: torch.Tensor = self.mix(attended.transpose(1, 2).reshape(batch, length, width))
        return mixed


class SentenceEncoder(TextEncoder):
    """A frozen pretrained sentence encoder of `transformers`, and a linear layer that learns.

    The mean over the tokens' last hidden states is the sentence (Reimers and Gurevych 2019, arXiv:1908.10084). The
    pretrained network is no part of the state dict, stays on the CPU, and runs once for each text.

    Args:
        name: Folder with `config.json`, a tokenizer and `model.safetensors`, or a name on the Hugging Face hub such as
            `sentence-transformers/all-MiniLM-L6-v2`.
        width: Numbers of a prompt.

    Raises:
        MissingArtifact: There is no such folder, or the hub has no such network or cannot be reached, or it has no
            weights as safetensors.
        CorruptArtifact: Its files cannot be read, or weights are missing in them.
        BadInput: It is no encoder of sentences.
    """

    #: What a pretrained network may lack: it is not used here.
    UNUSED: ClassVar[tuple[str, ...]] = ("pooler.",)

    def __init__(self, name: str, width: int) -> None:
        super().__init__()
        self.name, self.width = name, width
        tokenizer, network = _pretrained(name)
        # In a tuple, so that it is not registered: it is neither trained nor saved.
        self._frozen: tuple[Any, Any] = (tokenizer, network)
        self._known: dict[str, torch.Tensor] = {}
        self.project = nn.Linear(network.config.hidden_size, width)

    def tokenise(self, prompts: Sequence[str], generator: torch.Generator | None = None) -> Tokens:  # noqa: ARG002
        """Embed prompts; nothing is hidden of them in training.

        Args:
            prompts: Any text; what the network cannot take is cut off at the end.
            generator: Not used.

        Returns:
            The prompts, on the CPU.
        """
        missing = sorted(set(prompts) - self._known.keys(), key=len)
        fresh: dict[str, torch.Tensor] = {}
        for start in range(0, len(missing), _BATCH):
            texts = missing[start : start + _BATCH]
            fresh.update(zip(texts, self._embed(texts), strict=True))
        found = {**self._known, **fresh}
        rows = [found[prompt] for prompt in prompts]
        self._known = dict(list(found.items())[-_KEPT:])
        return Tokens(torch.stack(rows) if rows else torch.zeros(0, self.project.in_features))

    def encode(self, batch: Tokens) -> torch.Tensor:
        """Return (B, width) float from prompts that :meth:`tokenise` prepared."""
        vector: torch.Tensor = self.project(batch.values.to(self.project.weight.dtype))
        return vector

    @torch.no_grad()
    def _embed(self, texts: list[str]) -> torch.Tensor:
        """Return (B, D) float32 of unit length."""
        tokenizer, network = self._frozen
        longest = min(getattr(network.config, "max_position_embeddings", 512), tokenizer.model_max_length, 512)
        # A lone surrogate is a str, but no text that a tokenizer takes.
        clean = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]
        batch = tokenizer(clean, padding=True, truncation=True, max_length=longest, return_tensors="pt")
        hidden = network(**batch).last_hidden_state
        there = batch["attention_mask"][..., None].to(hidden.dtype)
        return F.normalize((hidden * there).sum(1) / there.sum(1).clamp(min=1), dim=-1)


def make_text_encoder(name: str, width: int, vocabulary: Sequence[str] = VOCABULARY) -> TextEncoder:
    """Make a text encoder: `words` learns its own, any other name is that of a pretrained sentence encoder.

    Args:
        name: `words`, a folder, or a name on the Hugging Face hub.
        width: Numbers of a prompt.
        vocabulary: Words with a vector of their own, for `words`.

    Raises:
        BadInput: The width will not do, or the pretrained network is no encoder of sentences.
        MissingArtifact: The pretrained encoder is not there.
        CorruptArtifact: Its files cannot be used.
    """
    return WordEncoder(width, vocabulary=vocabulary) if name == WORDS else SentenceEncoder(name, width)


def _pretrained(name: str) -> tuple[Any, Any]:
    """Return tokenizer and network, in evaluation mode; nothing but safetensors and JSON is read."""
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError
    from transformers import AutoModel, AutoTokenizer

    local = Path(name).is_dir()
    if not local and not _HUB_NAME.fullmatch(name):
        raise MissingArtifact(
            f"text encoder {name!r}: neither '{WORDS}', nor a folder, nor a name on the Hugging Face hub (owner/name)"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, local_files_only=local, trust_remote_code=False)
        network, facts = AutoModel.from_pretrained(
            name,
            local_files_only=local,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except OSError as error:
        advice = (
            "a folder needs config.json, a tokenizer and model.safetensors"
            if local
            else f"check the name ('{WORDS}' needs no network), run once with a connection, or name a folder"
        )
        raise MissingArtifact(f"text encoder {name}: {_first_line(error)}; {advice}") from error
    except (
        SafetensorError,
        StrictDataclassError,
        RuntimeError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
    ) as error:
        raise CorruptArtifact(
            f"text encoder {name}: cannot be loaded ({type(error).__name__}: {_first_line(error)}); download it again"
        ) from error
    missing = [key for key in facts["missing_keys"] if not key.startswith(SentenceEncoder.UNUSED)]
    if missing or not isinstance(getattr(network.config, "hidden_size", None), int):
        # Transformers would go on with random numbers in their place.
        raise CorruptArtifact(
            f"text encoder {name}: {len(missing)} tensors are missing ({', '.join(sorted(missing)[:1]) or 'none'}), "
            "expected all of a network with a hidden_size; download it again"
        )
    if tokenizer.pad_token is None or getattr(network.config, "is_encoder_decoder", False):
        raise BadInput(
            f"text encoder {name}: a network of type {network.config.model_type!r}; expected an encoder whose "
            "tokenizer pads, such as sentence-transformers/all-MiniLM-L6-v2"
        )
    return tokenizer, network.eval().requires_grad_(requires_grad=False)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
