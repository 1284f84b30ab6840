"""Slabs: what is written is what is seen, neighbours are seen in place, slots are lent to one at a time."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vernissage.retoucher.learn.slabs import NotEnoughSharedMemory, Place, Slab, SlotLedger, check_pictures

SHARED = Path("/dev/shm")  # noqa: S108 - only looked at


def test_another_view_of_the_segment_sees_the_same_pictures() -> None:
    slab = Slab.allocate(4, 6)
    try:
        place = Place(slab.spec.slot_values, 2, 5, 7)
        images = torch.rand(2, 3, 5, 7)
        slab.write(place, images)
        other = Slab.attach(slab.spec)
        seen = other.view([place])
        torch.testing.assert_close(seen, images, rtol=0, atol=0)
        slab.view([place])[0, 0, 0, 0] = 0.125
        assert seen[0, 0, 0, 0] == 0.125  # it is the memory itself
        del seen
        other.close()
    finally:
        slab.close()


def test_neighbours_come_in_place_and_others_side_by_side() -> None:
    slab = Slab.allocate(4, 4)
    try:
        one = slab.spec.slot_values
        images = torch.rand(4, 3, 4, 4)
        slab.write(Place(0, 4, 4, 4), images)
        start = slab.view([Place(0, 1, 4, 4)]).data_ptr()
        together = slab.view([Place(0, 2, 4, 4), Place(2 * one, 1, 4, 4), Place(3 * one, 1, 4, 4)])
        assert together.data_ptr() == start
        assert torch.equal(together, images)
        apart = slab.view([Place(0, 1, 4, 4), Place(2 * one, 1, 4, 4)])
        assert apart.data_ptr() == start  # evenly spaced needs no copy either
        assert torch.equal(apart, images[[0, 2]])
        uneven = slab.view([Place(0, 1, 4, 4), Place(one, 1, 4, 4), Place(3 * one, 1, 4, 4)])
        assert uneven.data_ptr() != start
        assert torch.equal(uneven, images[[0, 1, 3]])
        # One small picture in each slot: the gaps do not matter.
        small = torch.rand(3, 3, 2, 3)
        places = [Place(slot * one, 1, 2, 3) for slot in range(3)]
        for place, picture in zip(places, small, strict=True):
            slab.write(place, picture[None])
        assert torch.equal(slab.view(places), small)
        assert slab.view(places).data_ptr() == start
        del together, apart
    finally:
        slab.close()


def test_bytes_round_to_the_nearest_level() -> None:
    slab = Slab.allocate(1, 4, "uint8")
    try:
        levels = torch.arange(48, dtype=torch.uint8).view(1, 3, 4, 4)
        slab.write(Place(0, 1, 4, 4), (levels + 0.4) / 255)
        assert torch.equal(slab.view([Place(0, 1, 4, 4)]), levels)
        slab.write(Place(0, 1, 4, 4), levels + 3)
        assert torch.equal(slab.view([Place(0, 1, 4, 4)]), levels + 3)
    finally:
        slab.close()


def test_closing_removes_the_segment_and_may_be_repeated() -> None:
    slab = Slab.allocate(1, 4)
    name = slab.spec.name
    slab.close()
    slab.close()
    with pytest.raises(FileNotFoundError):
        Slab.attach(slab.spec)
    assert not (SHARED / name).exists()
    with pytest.raises(ValueError, match="after it was closed"):
        slab.view([Place(0, 1, 4, 4)])


def test_too_much_memory_is_refused_and_nothing_stays_behind() -> None:
    before = set(SHARED.glob("psm_*")) if SHARED.is_dir() else set()
    with pytest.raises(NotEnoughSharedMemory, match=r"1000000 slots of 65536x65536 pixels .* fewer or smaller slots"):
        Slab.allocate(1_000_000, 65_536)
    if SHARED.is_dir():
        assert set(SHARED.glob("psm_*")) <= before


@pytest.mark.parametrize("wrong", [{"slots": 0}, {"side": 0}, {"pixels": "float16"}])
def test_impossible_slabs_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="slab: got"):
        Slab.allocate(**{"slots": 1, "side": 1, **wrong})


def test_only_pictures_are_taken() -> None:
    check_pictures(torch.zeros(2, 3, 4, 4), "float32")
    check_pictures(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), "uint8")
    check_pictures(torch.zeros(0, 3, 4, 4), "uint8")
    for wrong in (torch.zeros(3, 4, 4), torch.zeros(2, 4, 4, 3), torch.zeros(1, 3, 0, 4)):
        with pytest.raises(ValueError, match=r"expected \(N, 3, H, W\)"):
            check_pictures(wrong, "float32")
    with pytest.raises(ValueError, match=r"torch.uint8, expected \(N, 3, H, W\) float"):
        check_pictures(torch.zeros(1, 3, 4, 4, dtype=torch.uint8), "float32")
    with pytest.raises(ValueError, match="float in"):
        check_pictures(torch.zeros(1, 3, 4, 4, dtype=torch.int64), "uint8")


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.integers(1, 5), st.booleans(), st.integers(0, 9)), max_size=40))
def test_no_slot_is_lent_twice(moves: list[tuple[int, bool, int]]) -> None:
    ledger, lent = SlotLedger(12), []
    for count, from_the_end, returned in moves:
        first = ledger.lend(count, from_the_end=from_the_end)
        if first is not None:
            lent.append((first, count))
        elif lent:
            ledger.take_back(*lent.pop(returned % len(lent)))
        taken = [slot for first, count in lent for slot in range(first, first + count)]
        assert len(taken) == len(set(taken))
        assert set(taken) <= set(range(12))
        assert ledger.free == 12 - len(taken)


def test_runs_are_found_at_either_end() -> None:
    ledger = SlotLedger(6)
    assert ledger.lend(2) == 0
    assert ledger.lend(2, from_the_end=True) == 4
    assert ledger.lend(3) is None
    assert ledger.lend(2) == 2
    ledger.take_back(0, 2)
    with pytest.raises(ValueError, match="slots 1 to 2: taken back"):
        ledger.take_back(1, 2)
