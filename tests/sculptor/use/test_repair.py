"""A repaired structure is one whole, nothing else about it changes, and the report says exactly what was done."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from vernissage.sculptor.domain.anatomy import judge_anatomy
from vernissage.sculptor.domain.roles import ROLES, Role
from vernissage.sculptor.use.repair import BRIDGE_REACH, repair

shapes = st.tuples(*[st.integers(1, 7)] * 3)
grids = shapes.flatmap(
    lambda shape: arrays.arrays(np.uint8, shape, elements=st.integers(0, ROLES - 1), fill=st.just(0))
)


def stump(height: int = 3) -> np.ndarray:
    roles = np.zeros((12, 9, 9), np.uint8)
    roles[:height, 4, 4] = Role.WOOD
    return roles


@given(grids)
def test_what_stands_stays_and_what_hangs_goes(roles: np.ndarray) -> None:
    before = roles.copy()
    done = repair(roles)
    anatomy, judged = judge_anatomy(done.roles), judge_anatomy(roles)
    assert np.array_equal(roles, before)
    assert anatomy.parts == min(1, judged.parts)
    assert anatomy.voxels == judged.voxels - done.removed == round(judged.connectivity * judged.voxels)
    assert np.array_equal(done.roles[done.roles != 0], roles[done.roles != 0])
    assert done.parts == judged.parts - anatomy.parts
    assert done.changed == (not np.array_equal(done.roles, roles))
    assert not repair(done.roles).changed


@given(grids, st.data())
def test_kept_blocks_stay_and_bridges_take_nothing_away(roles: np.ndarray, data: st.DataObject) -> None:
    kept = data.draw(arrays.arrays(bool, roles.shape)) & (roles != 0)
    done = repair(roles, kept=kept, bridge=True)
    assert np.array_equal(done.roles[kept], roles[kept])
    added = (roles == 0) & (done.roles != 0)
    assert (done.roles[added] == Role.WOOD).all()
    assert int(added.sum()) <= done.bridges
    assert judge_anatomy(done.roles).parts == (1 + done.left if roles.any() else 0)


def test_nothing_is_done_to_a_whole_or_an_empty_one() -> None:
    for roles in (stump(), np.zeros((2, 2, 2), np.uint8)):
        done = repair(roles, bridge=True)
        assert not done.changed
        assert done.said() == "repaired: nothing was loose"
        assert done.roles is roles


def test_the_report_counts() -> None:
    roles = stump()
    roles[8, 4, 4:6] = Role.LEAF
    roles[11, 0, 0] = Role.LEAF
    done = repair(roles)
    assert (done.removed, done.parts, done.left) == (3, 2, 0)
    assert done.said() == "repaired: removed 3 blocks in 2 loose parts"
    kept = np.zeros(roles.shape, bool)
    kept[8, 4, 4] = True
    done = repair(roles, kept=kept)
    assert (done.removed, done.parts, done.left) == (1, 1, 1)
    assert done.said() == "repaired: removed 1 block in 1 loose part, left 1 loose part with kept blocks"


@pytest.mark.parametrize("gap", range(1, BRIDGE_REACH + 2))
def test_a_crown_that_hangs_near_gets_a_bridge(gap: int) -> None:
    roles = stump()
    roles[3 + gap, 2:7, 2:7] = Role.LEAF
    done = repair(roles, bridge=True)
    if gap <= BRIDGE_REACH:
        assert (done.bridges, done.bridged, done.removed) == (gap, 1, 0)
        assert done.said().startswith("repaired: connected 1 loose part with ")
        assert judge_anatomy(done.roles).whole
    else:
        assert (done.bridges, done.bridged, done.removed) == (0, 0, 25)


def test_a_bridge_is_not_larger_than_what_it_holds() -> None:
    roles = stump()
    roles[5, 4, 4] = Role.LEAF
    roles[2, 4, 6:8] = Role.LEAF
    done = repair(roles, bridge=True)
    assert (done.bridges, done.bridged) == (1, 1)
    assert done.roles[5, 4, 4] == Role.AIR


def test_a_part_is_reached_over_another_one() -> None:
    roles = stump()
    roles[3 + 3, 2:7, 2:7] = Role.LEAF
    roles[3 + 3 + 4, 2:7, 2:7] = Role.LEAF_2
    done = repair(roles, bridge=True)
    assert (done.bridged, done.removed, done.bridges) == (2, 0, 6)
    assert judge_anatomy(done.roles).whole
