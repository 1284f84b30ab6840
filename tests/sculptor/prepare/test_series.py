"""Series: variants have one name, splits depend on names alone and get their shares, kin stay together."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vernissage.sculptor.prepare.series import SPLITS, series_of, split_series

WORD = st.text("abcdefgh", min_size=3, max_size=8)


@pytest.mark.parametrize(
    ("file", "series"),
    [
        ("iris/jungle/palm11.iob", "jungle/palm"),
        ("jungle/nh-lgeneric3.iob", "jungle/nh-lgeneric"),
        ("vgeneric22.schem", "mine/vgeneric"),
        ("birch/antioch3b.iob", "birch/antioch"),
        ("birch/small/birch_small_2.nbt", "small/birch_small"),
        ("bonsai/big-3.iob", "bonsai/big"),
        ("acacia/17.iob", "acacia/"),
        ("oak/savannaS2.iob", "oak/savannas"),
        ("Oak/Tree (4).schem", "oak/tree"),
        ("oak/tree - copy.schem", "oak/tree"),
        ("oak/tree_a.schem", "oak/tree"),
        ("oak/old oak.schem", "oak/old oak"),
        ("oak/a.schem", "oak/a"),
    ],
)
def test_series_of(file: str, series: str) -> None:
    assert series_of(file, "mine") == series


@given(WORD, st.integers(0, 999), st.sampled_from(["", "_", "-", " ", "."]))
def test_a_number_at_the_end_does_not_matter(word: str, number: int, gap: str) -> None:
    assert series_of(f"oak/{word}{gap}{number}.nbt") == series_of(f"oak/{word}.iob") == f"oak/{word}"


@given(st.text(max_size=20).filter(lambda text: "\0" not in text))
def test_any_name_has_a_series(name: str) -> None:
    assert series_of(f"oak/{name}.schem")
    assert series_of(f"{name}.schem") == series_of(f"{name}.schem")


MEMBERS = st.lists(st.tuples(WORD, st.integers(0, 40).map(str)), min_size=1, max_size=40)


@given(MEMBERS, st.integers(0, 5), st.randoms())
def test_order_does_not_matter_and_something_is_left_to_learn_from(members, seed: int, random) -> None:
    splits = split_series(members, seed=seed, val_share=0.1, test_share=0.1)
    shuffled = random.sample(members, len(members))
    assert split_series(shuffled, seed=seed, val_share=0.1, test_share=0.1) == splits
    assert set(splits) == {series for series, _ in members}
    assert "train" in splits.values()


@given(MEMBERS, st.integers(0, 5))
def test_series_that_share_a_shape_share_a_split(members, seed: int) -> None:
    splits = split_series(members, seed=seed, val_share=0.3, test_share=0.3)
    for shape in {shape for _, shape in members}:
        assert len({splits[series] for series, other in members if other == shape}) == 1


def test_kin_of_kin_are_kin() -> None:
    links = [("a", "1"), ("b", "1"), ("b", "2"), ("c", "2"), ("d", "3")]
    for seed in range(20):
        splits = split_series(links, seed=seed, val_share=0.3, test_share=0.3)
        assert splits["a"] == splits["b"] == splits["c"]


@pytest.mark.parametrize("seed", range(5))
def test_splits_have_their_shares(seed: int) -> None:
    members = [(f"s{number}", f"{number}-{member}") for number in range(100) for member in range(1 + number % 7)]
    splits = split_series(members, seed=seed, val_share=0.1, test_share=0.2)
    counts = Counter(splits[series] for series, _ in members)
    for split, share in zip(SPLITS, (0.7, 0.1, 0.2), strict=True):
        assert counts[split] / len(members) == pytest.approx(share, abs=7 / len(members))


def test_another_seed_deals_anew() -> None:
    members = [(f"s{number}", str(number)) for number in range(40)]
    dealt = [split_series(members, seed=seed, val_share=0.2, test_share=0.2) for seed in range(2)]
    assert dealt[0] != dealt[1]


def test_one_series_is_trained_on() -> None:
    assert split_series([("a", "1"), ("a", "2")], seed=0, val_share=0.4, test_share=0.4) == {"a": "train"}
    assert split_series([], seed=0, val_share=0.1, test_share=0.1) == {}
