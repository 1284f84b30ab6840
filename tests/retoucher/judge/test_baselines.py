"""The alternatives to the agent: who takes part, how the classics are tuned, and who may look at the original."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from tests.retoucher.judge.made_pairs import write_pairs
from tests.retoucher.learn.worlds import VIEW, darkened, photos, policy_spec, untrained_juror
from vernissage.retoucher.domain.quality import psnr
from vernissage.retoucher.judge.baselines import (
    NO_EDIT,
    ORACLE,
    REGRESSOR,
    SEARCHES,
    all_baselines,
    default_classics,
    no_edit,
    regressor_method,
    tuned_classics,
)
from vernissage.retoucher.judge.classics import DEFAULTS, classic_method
from vernissage.retoucher.learn.regressor import Regressor, RegressorSpec

if TYPE_CHECKING:
    from pathlib import Path


def test_no_edit_leaves_photos_alone() -> None:
    result, edits = no_edit(photos(3))
    assert torch.equal(result, photos(3))
    assert edits.tolist() == [0, 0, 0]


def test_classic_settings_are_those_that_suit_the_validation_pairs(tmp_path: Path) -> None:
    starts = darkened(photos(4), stops=-1.0)
    pairs = write_pairs(tmp_path, starts.faulty, starts.reference, faults=[1, 1, 1, 0])
    tuned = tuned_classics(pairs)
    assert {baseline.name: baseline.classic for baseline in tuned.baselines} == dict.fromkeys(DEFAULTS, True)
    assert tuned.chosen.keys() == DEFAULTS.keys()
    for name in DEFAULTS:
        scores = {
            setting: float(psnr(classic_method(name, setting)(starts.faulty[:3])[0], starts.reference[:3]).mean())
            for setting in (tuned.chosen[name], DEFAULTS[name])
        }
        assert scores[tuned.chosen[name]] >= scores[DEFAULTS[name]] - 0.02  # stored in 8 bits, measured on floats


def test_without_pairs_the_classics_have_their_usual_settings() -> None:
    assert default_classics().chosen == DEFAULTS
    assert [baseline.name for baseline in default_classics().baselines] == list(DEFAULTS)


def test_everybody_takes_part_and_only_the_oracle_sees_originals() -> None:
    starts = darkened(photos(4), stops=-1.0)
    regressor = Regressor(RegressorSpec(VIEW, VIEW, (4, 8)))
    baselines = all_baselines(
        policy_spec(horizon=2),
        untrained_juror(),
        default_classics(),
        np.random.default_rng(0),
        regressor=regressor,
        slow=True,
    )
    names = [baseline.name for baseline in baselines]
    assert names == [NO_EDIT, "random", *DEFAULTS, REGRESSOR, *SEARCHES, ORACLE]
    assert {baseline.name for baseline in baselines if baseline.classic} == set(DEFAULTS)
    assert {baseline.name for baseline in baselines if baseline.slow} == {*SEARCHES, ORACLE}
    assert [baseline.name for baseline in baselines if baseline.upper_bound] == [ORACLE]
    for baseline in baselines:
        result, edits = baseline.results(starts.faulty, starts.reference)
        assert result.shape == starts.faulty.shape
        assert edits.shape == (4,)
        if baseline.upper_bound:
            assert (psnr(result, starts.reference) > psnr(starts.faulty, starts.reference) + 5).all()
        elif baseline.name != "random":
            # Other originals change nothing for who must not know them.
            blind, _ = baseline.results(starts.faulty, torch.zeros_like(starts.faulty))
            assert torch.equal(blind, result), baseline.name


def test_without_a_juror_nothing_asks_one() -> None:
    def names(**options: bool) -> list[str]:
        rng = np.random.default_rng(0)
        return [method.name for method in all_baselines(policy_spec(), None, default_classics(), rng, **options)]

    assert names() == [NO_EDIT, "random", *DEFAULTS]
    assert names(slow=True) == [NO_EDIT, "random", *DEFAULTS, ORACLE]


def test_an_untaught_regressor_edits_nothing() -> None:
    method = regressor_method(Regressor(RegressorSpec(VIEW, VIEW, (4, 8))))
    result, edits = method.run(photos(2))
    assert torch.equal(result, photos(2))
    assert not edits.any()
