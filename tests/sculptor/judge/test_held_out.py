"""Questions are about test structures, in sentences that training did not see, and always the same."""

from __future__ import annotations

from tests.sculptor.judge.small import dataset
from vernissage.core.seeds import numpy_generator
from vernissage.sculptor.domain.attributes import ATTRIBUTES
from vernissage.sculptor.domain.language import caption, read_prompt
from vernissage.sculptor.judge.held_out import described_groups, held_out_questions, training_sentences
from vernissage.sculptor.learn.examples import examples_of

COUNTS = {"normal": 70, "big": 2, "huge": 3}


def test_training_sentences_are_those_of_the_training() -> None:
    training = dataset().part("train")
    examples = examples_of(training, "none", captions=2, seed=5)
    seen = training_sentences(dataset(), 2, [5])
    assert seen == {sentence for own in examples.captions for sentence in own}
    assert training_sentences(dataset(), 2, [5, 6]) > seen


def test_questions_are_the_same_each_time() -> None:
    first, second = (held_out_questions(dataset(), COUNTS, set(), 0) for _ in range(2))
    assert [question.request for question in first] == [question.request for question in second]
    other = held_out_questions(dataset(), COUNTS, set(), 1)
    assert [question.request for question in first] != [question.request for question in other]


def test_questions_are_about_test_structures_of_their_size() -> None:
    questions = held_out_questions(dataset(), COUNTS, set(), 0)
    sizes = [question.size for question in questions]
    # There are 60 normal ones, so that some are asked about twice, and no huge one.
    assert {size: sizes.count(size) for size in COUNTS} == {"normal": 70, "big": 2, "huge": 0}
    assert len({question.place for question in questions if question.size == "normal"}) == 60
    for question in questions:
        row = dataset().table.iloc[question.place]
        assert (row["split"], row["size"]) == ("test", question.size)
        assert all(getattr(question.request.said, name) in {None, row[name]} for name in ATTRIBUTES)
    assert len({question.request.seed for question in questions}) == len(questions)


def test_no_seen_sentence_is_asked() -> None:
    first = held_out_questions(dataset(), {"normal": 24}, set(), 0)
    seen = set()
    for question in first:
        attributes = dataset().attributes()[question.place]
        rng = numpy_generator(0, "question", 0, question.place)
        seen.add(caption(attributes, rng))
    second = held_out_questions(dataset(), {"normal": 24}, seen, 0)
    again = {read_prompt(sentence).text for sentence in seen}
    kept = [question for question in second if question.request.prompt in again]
    # Two sentences may read alike, but not all of them do.
    assert len(kept) < len(second) / 2


def test_groups_hold_what_their_prompt_says() -> None:
    questions = held_out_questions(dataset(), {"normal": 40}, set(), 0)
    groups = described_groups(dataset(), questions, 5, "normal")
    assert groups
    assert [len(group.grids) for group in groups] == sorted((len(group.grids) for group in groups), reverse=True)
    attributes = dict(zip(map(id, dataset().grids), dataset().attributes(), strict=True))
    for group in groups:
        assert len(group.grids) > 1
        said = {name: value for name in ATTRIBUTES if (value := getattr(group.request.said, name)) is not None}
        for grid in group.grids:
            assert all(getattr(attributes[id(grid)], name) == value for name, value in said.items())
