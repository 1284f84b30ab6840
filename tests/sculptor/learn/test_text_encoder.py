"""Text encoders: rows that do not depend on their batch, words never seen, and pretrained ones from a folder."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizer

from vernissage.core.errors import BadInput, CorruptArtifact, MissingArtifact
from vernissage.sculptor.domain.attributes import ATTRIBUTES, Attributes
from vernissage.sculptor.domain.language import VOCABULARY, caption
from vernissage.sculptor.learn.text_encoder import LONGEST, SentenceEncoder, WordEncoder, make_text_encoder

if TYPE_CHECKING:
    from pathlib import Path

WIDTH = 32
PROMPTS = [
    "tall oak tree with thick trunk",
    "",
    "oak",
    "a gnarled zebrawood of enormous width, with roots and without any branches or leaves at all",
    "дерево 木 \x00",
    "very " * 300,
]


@pytest.fixture
def words() -> WordEncoder:
    torch.manual_seed(0)
    encoder = WordEncoder(WIDTH)
    # As after training: without it a distance makes no difference yet.
    torch.nn.init.normal_(encoder.nearness)
    return encoder.eval()


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bert")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *VOCABULARY]
    (folder / "vocab.txt").write_text("\n".join(vocabulary), "utf-8")
    BertTokenizer(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(vocabulary), max_position_embeddings=40, **shape)).save_pretrained(folder)
    return folder


def assert_rows_stand_alone(encoder: WordEncoder | SentenceEncoder, alone: WordEncoder | SentenceEncoder) -> None:
    together = encoder(PROMPTS)
    assert together.shape == (len(PROMPTS), WIDTH)
    assert torch.isfinite(together).all()
    for row, prompt in enumerate(PROMPTS):
        torch.testing.assert_close(alone([prompt])[0], together[row], atol=1e-6, rtol=1e-5)


def test_a_prompt_does_not_depend_on_its_batch(words: WordEncoder) -> None:
    assert_rows_stand_alone(words, words)


def test_prompts_can_be_tokenised_ahead(words: WordEncoder) -> None:
    batch = words.tokenise(PROMPTS)
    assert len(batch) == len(PROMPTS)
    assert torch.equal(words(batch), words(PROMPTS))
    some = torch.tensor([2, 0])
    torch.testing.assert_close(words(batch.rows(some)), words(PROMPTS)[some])


def test_words_and_their_order_make_a_difference(words: WordEncoder) -> None:
    texts = ["thick trunk and wide crown", "wide trunk and thick crown", "thick stem and wide crown", ""]
    vectors = words(texts)
    for one in range(len(texts)):
        for other in range(one):
            assert (vectors[one] - vectors[other]).abs().max() > 1e-3


def test_capitals_and_marks_make_none(words: WordEncoder) -> None:
    assert torch.equal(words(["A Tall, flat-topped OAK!"]), words(["a tall flat topped oak"]))


def test_words_never_seen_are_told_apart_and_near_to_what_they_look_like(words: WordEncoder) -> None:
    zebra, zebras, quince = words(["zebrawood", "zebrawoods", "quince"])
    assert (zebra - quince).norm() > (zebra - zebras).norm() > 1e-3


def test_all_prompts_without_words_are_the_learned_one(words: WordEncoder) -> None:
    vectors = words(["", " ?! ", "\n"])
    assert torch.equal(vectors, vectors[:1].expand(3, -1))
    words(["", "oak"]).square().sum().backward()
    assert words.empty.grad is not None
    assert words.empty.grad.abs().max() > 0
    assert all(bool(torch.isfinite(part.grad).all()) for part in words.parameters() if part.grad is not None)


def test_no_prompts_are_no_rows(words: WordEncoder) -> None:
    assert words([]).shape == (0, WIDTH)


def test_words_beyond_the_last_that_is_seen_make_no_difference(words: WordEncoder) -> None:
    text = "oak " * LONGEST
    assert torch.equal(words([text]), words([text + "tall birch"]))


def test_training_hides_a_share_of_the_words_by_the_generator() -> None:
    encoder = WordEncoder(WIDTH, ngram_share=0.25)
    prompts = ["tall oak tree with thick trunk"] * 500
    shown = encoder.tokenise(prompts)
    hidden = encoder.tokenise(prompts, torch.Generator().manual_seed(1))
    assert float((shown.values != hidden.values).float().mean()) == pytest.approx(0.25, abs=0.03)
    assert torch.equal(hidden.values, encoder.tokenise(prompts, torch.Generator().manual_seed(1)).values)


def test_training_teaches_words_their_pieces_and_which_noun_an_adjective_describes() -> None:
    """Which part is thick can be learned in a few steps, and holds for a word that was never shown whole."""
    torch.manual_seed(0)
    encoder, head = WordEncoder(WIDTH, ngram_share=0.3), torch.nn.Linear(WIDTH, 2)
    optimiser = torch.optim.Adam([*encoder.parameters(), *head.parameters()], lr=5e-3)
    generator, rng = torch.Generator().manual_seed(0), np.random.default_rng(0)
    nouns = [("trunk", "crown"), ("stem", "canopy")]
    texts, labels = [], []
    for _ in range(256):
        (trunk, crown), label = nouns[rng.integers(2)], int(rng.integers(2))
        adjectives = ("thick", "thin") if label else ("thin", "thick")
        texts.append(f"oak with a {adjectives[0]} {trunk} and a {adjectives[1]} {crown}")
        labels.append(label)
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(
            head(encoder(encoder.tokenise(texts, generator))), torch.tensor(labels)
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    encoder.eval()
    assert head(encoder(texts)).argmax(1).tolist() == labels
    seen = ["oak with a thick trunk and a thin crown", "oak with a thin trunk and a thick crown"]
    unseen = [text.replace("thick", "thicke").replace("trunk", "trunks") for text in seen]
    assert head(encoder(unseen)).argmax(1).tolist() == [1, 0]


def test_weights_make_a_round_trip(words: WordEncoder) -> None:
    other = WordEncoder(WIDTH)
    other.load_state_dict(words.state_dict())
    assert torch.equal(other.eval()(PROMPTS), words(PROMPTS))


@pytest.mark.parametrize(
    "arguments", [{"width": 30}, {"width": 0}, {"width": 32, "buckets": 0}, {"width": 32, "ngram_share": 2}]
)
def test_numbers_out_of_range_are_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(BadInput, match="expected"):
        WordEncoder(**arguments)


def test_captions_are_words_of_the_vocabulary(words: WordEncoder) -> None:
    rng = np.random.default_rng(0)
    texts = [
        caption(Attributes(**{name: str(rng.choice(values)) for name, values in ATTRIBUTES.items()}), rng)
        for _ in range(200)
    ]
    assert not (words.tokenise(texts).values == 1).any()


def test_a_pretrained_encoder_from_a_folder(bert: Path) -> None:
    encoder, other = make_text_encoder(str(bert), WIDTH), SentenceEncoder(str(bert), WIDTH)
    assert isinstance(encoder, SentenceEncoder)
    assert set(encoder.state_dict()) == {"project.weight", "project.bias"}
    other.load_state_dict(encoder.state_dict())
    assert_rows_stand_alone(encoder, other)
    assert (encoder(["thick trunk"]) - encoder(["thin trunk"])).abs().max() > 1e-4


def test_embeddings_are_kept_and_only_the_layer_learns(bert: Path) -> None:
    encoder = SentenceEncoder(str(bert), WIDTH)
    first = encoder.tokenise(["tall oak", "oak", "tall oak"])
    assert torch.equal(first.values[0], first.values[2])
    assert torch.equal(encoder.tokenise(["oak"]).values, first.values[1:2])
    encoder(["tall oak", "\ud800"]).sum().backward()
    assert encoder.project.weight.grad is not None
    assert not first.values.requires_grad
    assert encoder.tokenise([]).values.shape == (0, 16)


def test_a_missing_encoder_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingArtifact, match="not/a/hub/name"):
        make_text_encoder("not/a/hub/name", WIDTH)
    with pytest.raises((MissingArtifact, CorruptArtifact), match="text encoder"):
        make_text_encoder(str(tmp_path), WIDTH)


@pytest.mark.parametrize("damage", ["weights", "config", "pickle"])
def test_a_damaged_encoder_is_refused(bert: Path, tmp_path: Path, damage: str) -> None:
    for file in bert.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = tmp_path / "model.safetensors"
    if damage == "weights":
        weights.write_bytes(weights.read_bytes()[:500])
    elif damage == "pickle":
        weights.rename(tmp_path / "pytorch_model.bin")
    else:
        config = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises((CorruptArtifact, MissingArtifact), match="text encoder"):
        SentenceEncoder(str(tmp_path), WIDTH)
