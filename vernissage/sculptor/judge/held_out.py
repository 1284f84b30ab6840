"""What the arms are asked for: captions of held-out structures that no training sentence was, always the same ones."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from vernissage.core.seeds import derive_seed, numpy_generator
from vernissage.sculptor.domain.attributes import ATTRIBUTES, Attributes
from vernissage.sculptor.domain.language import caption, read_prompt
from vernissage.sculptor.domain.sizes import SIZES
from vernissage.sculptor.judge.arms import BenchRequest, agreements, attribute_codes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from vernissage.sculptor.domain.dataset import Dataset

# Sentences on one structure that are tried before the next one has its turn.
_TRIES = 8
_LEAST_SAID = 2


@dataclass(frozen=True)
class Question:
    """What is asked, and the held-out structure that it was taken from.

    Attributes:
        request: What arms see.
        size: Name of the size.
        place: Row of the structure among all of the dataset's.
        grid: (Y, Z, X) uint8, the structure.
        species: Its species; None where it has no name.
    """

    request: BenchRequest
    size: str
    place: int
    grid: np.ndarray
    species: str | None


def training_sentences(dataset: Dataset, captions: int, seeds: Iterable[int]) -> set[str]:
    """Return every caption that trainings with these seeds saw.

    Args:
        dataset: Structures, of which those in ``train`` were learned from.
        captions: Sentences on each structure.
        seeds: Of the trainings.
    """
    training = dataset.part("train")
    rows = list(zip(training.attributes(), training.table["structure_id"], strict=True))
    seen: set[str] = set()
    for seed in dict.fromkeys(seeds):
        for attributes, name in rows:
            rng = numpy_generator(seed, "captions", str(name))
            seen.update(caption(attributes, rng) for _ in range(captions))
    return seen


def held_out_questions(dataset: Dataset, counts: Mapping[str, int], seen: set[str], seed: int) -> list[Question]:
    """Return questions about test structures; a structure gives a second one once all have given one.

    Args:
        dataset: Structures, of which those in ``test`` are asked about.
        counts: How many of each size; sizes without test structures have none.
        seen: Sentences that are not asked.
        seed: Of order and words.
    """
    attributes, sizes = dataset.attributes(), dataset.table["size"].to_numpy()
    testing = (dataset.table["split"] == "test").to_numpy(bool)
    asked: list[Question] = []
    for size, count in counts.items():
        places = np.flatnonzero(testing & (sizes == size))
        places = numpy_generator(seed, "questions", size).permutation(places)
        own: list[Question] = []
        for turn, place in product(range(_TRIES), places):
            if len(own) >= count:
                break
            question = _question(dataset, int(place), size, attributes[place], seen, (seed, turn))
            if question is not None:
                own.append(question)
        asked += own
    return asked


def _question(
    dataset: Dataset, place: int, size: str, attributes: Attributes, seen: set[str], seed: tuple[int, int]
) -> Question | None:
    rng = numpy_generator(seed[0], "question", seed[1], place)
    for _ in range(_TRIES):
        sentence = caption(attributes, rng)
        if sentence in seen:
            continue
        prompt = read_prompt(sentence)
        own = derive_seed(seed[0], "built", seed[1], place)
        request = BenchRequest(prompt.text, prompt.attributes, SIZES[size], own, attributes.species)
        return Question(request, size, place, dataset.grids[place], attributes.species)
    return None


@dataclass(frozen=True)
class Group:
    """Held-out structures that one prompt describes.

    Attributes:
        request: The prompt; its seed is that of the group.
        grids: (Y, Z, X) uint8 each; at least two.
    """

    request: BenchRequest
    grids: tuple[np.ndarray, ...]


def described_groups(dataset: Dataset, questions: Sequence[Question], count: int, size: str) -> list[Group]:
    """Return prompts that describe several test structures of a size, those that describe most of them first.

    Args:
        dataset: Structures.
        questions: Where the prompts are taken from; those that say little are left out.
        count: How many prompts.
        size: Name of the size.
    """
    part = dataset.part("test", size)
    codes = attribute_codes(part.attributes())
    groups: list[Group] = []
    said_before: Counter[Attributes] = Counter()
    for question in questions:
        said = question.request.said
        wanted = sum(getattr(said, name) is not None for name in ATTRIBUTES)
        if question.size != size or wanted < _LEAST_SAID or said_before[said]:
            continue
        said_before[said] += 1
        places = np.flatnonzero(agreements(codes, said) == wanted)
        if len(places) > 1:
            groups.append(Group(question.request, tuple(part.grids[place] for place in places)))
    groups.sort(key=lambda group: -len(group.grids))
    return groups[:count]
