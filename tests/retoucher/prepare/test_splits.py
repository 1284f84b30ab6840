from __future__ import annotations

import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.retoucher.prepare.pictures import picture
from vernissage.core.errors import BadInput
from vernissage.retoucher.prepare.splits import Fingerprint, SplitGroup, choose_splits, fingerprint, unite


def numbers(pictures: list[np.ndarray], groups: list[str] | None = None, distance: int = 6) -> list[int]:
    names = groups or [f"g{i}" for i in range(len(pictures))]
    hashes = [str(i) for i in range(len(pictures))]
    return unite(names, hashes, [fingerprint(p) for p in pictures], distance).tolist()


def gradient(seed: int, axis: int) -> np.ndarray:
    """A sky: one smooth ramp of a random colour."""
    rng = np.random.default_rng(seed)
    low, high = rng.uniform(0, 100, 3), rng.uniform(120, 250, 3)
    ramp = np.linspace(0, 1, 64)
    plane = np.broadcast_to(ramp if axis else ramp[:, None], (64, 64))[..., np.newaxis]
    return (low + plane * (high - low)).round().astype(np.uint8)


def test_near_duplicates_are_united_and_others_are_not() -> None:
    first, second = picture(1, 160, 120), picture(2, 160, 120)
    brighter = np.clip(first.astype(int) + 12, 0, 255).astype(np.uint8)
    smaller = first[::2, ::2]
    assert numbers([first, second, brighter, smaller]) == [1, 2, 1, 1]


def test_forty_scenes_stay_forty_groups() -> None:
    assert numbers([picture(seed) for seed in range(40)]) == list(range(1, 41))


def test_flat_pictures_of_different_colours_are_not_united() -> None:
    colours = [(0, 0, 0), (255, 255, 255), (128, 128, 128), (200, 30, 30), (30, 30, 200)]
    flat = [np.full((40, 60, 3), colour, np.uint8) for colour in colours]
    assert numbers(flat) == [1, 2, 3, 4, 5]
    assert len({fingerprint(p).phash for p in flat}) < 5  # their hashes alone would have united them
    assert numbers([flat[0], flat[0]]) == [1, 1]


def test_smooth_skies_are_not_united_by_the_noise_in_their_hashes() -> None:
    skies = [gradient(seed, seed % 2) for seed in range(12)]
    assert numbers(skies) == list(range(1, 13))
    assert not any(fingerprint(sky).reliable for sky in skies)
    assert fingerprint(picture(1)).reliable


def test_groups_and_near_duplicates_are_handed_on() -> None:
    a, b, c = picture(1), picture(2), picture(3)
    # a1 and b1 are views of one scene, b1 looks like b2, b2 and c1 come from one file.
    assert numbers([a, b, b, c, picture(4)], ["x", "x", "y", "y", "z"]) == [1, 1, 1, 1, 2]


def test_equal_bytes_are_united_whatever_they_show() -> None:
    marks = [fingerprint(gradient(seed, 0)) for seed in range(3)]
    assert unite(["a", "b", "c"], ["same", "other", "same"], marks, 0).tolist() == [1, 2, 1]


def test_five_thousand_photos_take_seconds() -> None:
    rng = np.random.default_rng(0)
    marks = [
        Fingerprint(f"{int(h):016x}", i % 10 != 0, rng.integers(0, 256, 192, dtype=np.uint8))
        for i, h in enumerate(rng.integers(0, 2**63, 5000))
    ]
    names = [str(i) for i in range(5000)]
    started = time.perf_counter()
    assert len(set(unite(names, names, marks, 6).tolist())) == 5000
    assert time.perf_counter() - started < 20


GROUPS = st.lists(st.tuples(st.integers(1, 40), st.booleans()), min_size=3, max_size=60)


@given(GROUPS, st.floats(0.05, 0.4), st.floats(0.05, 0.4), st.integers(0, 9))
@settings(max_examples=150, deadline=None)
def test_every_split_has_a_group_and_shares_are_kept(sizes, val_share: float, test_share: float, seed: int) -> None:
    groups = [SplitGroup(f"g{i}", photos, grey) for i, (photos, grey) in enumerate(sizes)]
    splits = choose_splits(groups, val_share, test_share, seed)
    assert set(splits) == {group.name for group in groups}
    counts = Counter(splits.values())
    assert set(counts) == {"train", "val", "test"}
    assert counts["test"] in {max(1, round(test_share * len(groups))), len(groups) - 2}
    assert splits == choose_splits(list(reversed(groups)), val_share, test_share, seed)


def test_seed_changes_the_split() -> None:
    groups = [SplitGroup(f"g{i}", 1, monochrome=False) for i in range(30)]
    assert len({tuple(sorted(choose_splits(groups, 0.2, 0.2, seed).items())) for seed in range(5)}) == 5


@pytest.mark.parametrize("seed", range(20))
def test_no_split_is_monochrome_only_while_there_are_colour_groups(seed: int) -> None:
    groups = [SplitGroup(f"c{i}", 36, monochrome=False) for i in range(4)]
    groups += [SplitGroup(f"m{i}", 12, monochrome=True) for i in range(9)]
    splits = choose_splits(groups, 0.1, 0.1, seed)
    for split in ("train", "val", "test"):
        assert any(splits[group.name] == split for group in groups if not group.monochrome)


@pytest.mark.parametrize("seed", range(20))
def test_a_burst_of_hundreds_is_learned_from_and_not_judged_with(seed: int) -> None:
    groups = [SplitGroup("burst", 400, monochrome=False)]
    groups += [SplitGroup(f"g{i}", 2, monochrome=False) for i in range(20)]
    assert choose_splits(groups, 0.2, 0.2, seed)["burst"] == "train"


def test_a_photo_that_is_added_moves_few_others() -> None:
    groups = [SplitGroup(f"g{i}", 1, monochrome=False) for i in range(100)]
    before = choose_splits(groups, 0.15, 0.25, 0)
    after = choose_splits([*groups, SplitGroup("new", 1, monochrome=False)], 0.15, 0.25, 0)
    assert sum(before[name] != after[name] for name in before) <= 2


def test_fewer_than_three_groups_are_refused_with_what_is_needed() -> None:
    with pytest.raises(BadInput, match=r"found 2 group\(s\) of photos \(9 photos\).*at least 3.*add at least 1 photo"):
        choose_splits([SplitGroup("a", 4, monochrome=False), SplitGroup("b", 5, monochrome=True)], 0.2, 0.2, 0)
