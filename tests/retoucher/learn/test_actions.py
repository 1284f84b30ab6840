"""The action table: what each action moves, which are allowed, and that no walk leaves the sliders' ranges."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.retoucher.learn.worlds import PROPERTY
from vernissage.retoucher.domain.sliders import HIGHS, LOWS, SLIDER_COUNT, SLIDER_NAMES
from vernissage.retoucher.learn.actions import ActionTable

LOW, HIGH = torch.tensor(LOWS), torch.tensor(HIGHS)
STRENGTHS = st.lists(st.integers(1, 100), min_size=1, max_size=3, unique=True).map(lambda p: tuple(x / 100 for x in p))


@st.composite
def tables_and_settings(draw: st.DrawFn) -> tuple[ActionTable, torch.Tensor]:
    shares = draw(st.lists(st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1)), min_size=9, max_size=9))
    settings = LOW + torch.tensor(shares) * (HIGH - LOW)
    return ActionTable(draw(STRENGTHS)), settings[None]


def test_layout_is_slider_then_direction_then_strength_and_stop_comes_last() -> None:
    table = ActionTable((0.1, 0.3))
    assert table.count == 4 * SLIDER_COUNT + 1 == len(table.deltas)
    assert table.stop == table.count - 1
    exposure = SLIDER_NAMES.index("exposure")
    assert table.deltas[4 * exposure : 4 * exposure + 4, exposure].tolist() == pytest.approx([0.1, 0.3, -0.1, -0.3])
    sharpen = SLIDER_NAMES.index("sharpen")
    assert table.deltas[4 * sharpen + 3, sharpen] == pytest.approx(-0.3)
    assert not table.deltas[table.stop].any()


@PROPERTY
@given(STRENGTHS)
def test_every_action_but_stop_moves_one_slider_by_one_strength(strengths: tuple[float, ...]) -> None:
    table = ActionTable(strengths)
    assert ((table.deltas != 0).sum(dim=1) == torch.tensor([1] * table.stop + [0])).all()
    for action in range(table.stop):
        moved = int(table.deltas[action].abs().argmax())
        assert table.slider_of(action) == SLIDER_NAMES[moved]
        assert any(float(table.deltas[action].abs().sum()) == pytest.approx(strength) for strength in strengths)
    assert table.slider_of(table.stop) is None
    assert len({tuple(row) for row in table.deltas.tolist()}) == table.count


@pytest.mark.parametrize("strengths", [(), (0.0,), (-0.1,), (0.1, 1.1), (float("nan"),)])
def test_bad_strengths_are_refused(strengths: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="strengths"):
        ActionTable(strengths)


@PROPERTY
@given(tables_and_settings())
def test_an_allowed_action_moves_its_slider_and_a_masked_one_does_not(
    case: tuple[ActionTable, torch.Tensor],
) -> None:
    table, settings = case
    allowed = table.allowed(settings)
    assert allowed.shape == (1, table.count)
    assert bool(allowed[0, table.stop])
    moved = (table.apply(settings.expand(table.count, -1), torch.arange(table.count)) - settings).abs().sum(dim=1)
    assert moved[table.stop] == 0
    # Dust of float arithmetic near a limit is no room for an edit.
    assert (moved[: table.stop][allowed[0, : table.stop]] > 5e-5).all()
    assert (moved[: table.stop][~allowed[0, : table.stop]] < 2e-4).all()


def test_at_neutral_denoise_and_sharpen_only_go_up() -> None:
    table = ActionTable((0.2,))
    allowed = table.allowed(torch.zeros(1, SLIDER_COUNT))[0]
    masked = {(table.slider_of(int(a)), float(table.deltas[a].sum()) > 0) for a in (~allowed).nonzero().flatten()}
    assert masked == {("denoise", False), ("sharpen", False)}


@PROPERTY
@given(STRENGTHS, st.lists(st.integers(0, 10**6), min_size=1, max_size=40))
def test_no_walk_leaves_the_ranges(strengths: tuple[float, ...], walk: list[int]) -> None:
    table = ActionTable(strengths)
    settings = torch.zeros(2, SLIDER_COUNT)
    for step in walk:
        settings = table.apply(settings, torch.tensor([step % table.count, table.stop]))
        assert (settings >= LOW).all()
        assert (settings <= HIGH).all()
    assert not settings[1].any()


@PROPERTY
@given(tables_and_settings(), st.integers(0, 10**6))
def test_there_and_back_is_where_it_began(case: tuple[ActionTable, torch.Tensor], pick: int) -> None:
    table, settings = case
    strengths = len(table.strengths)
    action = pick % table.stop
    opposite = action + strengths if action % (2 * strengths) < strengths else action - strengths
    there = table.apply(settings, torch.tensor([action]))
    delta = float(table.deltas[action].abs().sum())
    if float((there - settings).abs().sum()) > delta - 1e-6:  # not cut short by a limit
        torch.testing.assert_close(table.apply(there, torch.tensor([opposite])), settings)
