"""The case about a loss of nan, a full disk and Ctrl-C: all three happen, and the last state outlives them."""

from __future__ import annotations

from tests.sculptor.judge.robust import subject


def test_what_interrupts_a_training_leaves_its_last_state() -> None:
    result = subject().run(17)[17]
    assert result.passed, result.found
    assert "states whole" in result.found
    assert result.retained is None
