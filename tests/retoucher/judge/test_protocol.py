"""The protocol: draws that can be made again, exact faults, honest sums, and bad files that stop nobody."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from tests.retoucher.domain.procedural import scene
from tests.retoucher.learn.worlds import untrained_juror
from vernissage.core.errors import BadInput
from vernissage.core.images import save_png, to_uint8
from vernissage.retoucher.domain.faults import FAULTS, apply_faults
from vernissage.retoucher.domain.quality import PSNR_CEILING, delta_e, psnr
from vernissage.retoucher.judge.baselines import NO_EDIT, Baseline, no_edit
from vernissage.retoucher.judge.protocol import (
    KINDS,
    SLOW_ITEMS,
    Contest,
    Source,
    before_after,
    count_protocol,
    draw_items,
    group_rows,
    protocol_result,
    protocol_rows,
    read_sources,
    run_protocol,
    slow_part,
    spread_of,
)

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd


def source(index: int, height: int = 32, width: int = 40) -> Source:
    pixels = torch.round(scene(height, width, index) * 255) / 255
    return Source(index, f"photo{index}.png", pixels)


SOURCES = [source(0), source(1, 40, 32), source(2)]
SEED = 5


def knows(faulty: torch.Tensor, originals: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return originals.clone(), torch.full((len(faulty),), 2.0)


def darker(pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return 0.5 * pictures, torch.ones(len(pictures))


NOTHING = Baseline(NO_EDIT, classic=False, run=no_edit)
DARKER = Baseline("darker", classic=True, run=darker)
BOUND = Baseline("bound", classic=False, run=no_edit, cheat=knows)
# As good as an agent can be, which is given the originals here because nobody else knows how.
AGENTS = tuple(Baseline(f"agent {number}", classic=False, run=no_edit, cheat=knows) for number in (1, 2))


def run(*methods: Baseline, draws: int = 4, juror: Any = None, sources: list[Source] = SOURCES) -> pd.DataFrame:
    return run_protocol(sources, methods, draws=draws, seed=SEED, juror=juror, advance=lambda done: None)


@pytest.fixture(scope="module")
def items() -> pd.DataFrame:
    return run(*AGENTS, NOTHING, DARKER, BOUND, juror=untrained_juror())


def test_faults_are_those_of_the_protocol() -> None:
    drawn = [fault for index in range(20) for faults in draw_items(source(index), 12, SEED).faults for fault in faults]
    assert {fault.name for fault in drawn} == set(KINDS)
    assert all(FAULTS[fault.name].contains(fault.value) for fault in drawn)
    numbers = [len(faults) for index in range(20) for faults in draw_items(source(index), 12, SEED).faults[:-1]]
    assert set(numbers) == {1, 2, 3, 4, 5}
    orders = {tuple(fault.name for fault in row) for row in draw_items(source(0), 60, SEED).faults if len(row) == 2}
    assert any(tuple(reversed(order)) in orders for order in orders)


def test_items_are_the_faults_applied_in_8_bits_and_last_the_photo_itself() -> None:
    made = draw_items(SOURCES[0], 5, SEED)
    assert made.faulty.shape == (6, 3, 32, 40)
    assert made.draws == (0, 1, 2, 3, 4, -1)
    for place in range(5):
        again = apply_faults(SOURCES[0].pixels, [made.faults[place]], [np.random.default_rng(0)])
        assert torch.equal(made.faulty[place : place + 1], again)
    levels = made.faulty * 255
    torch.testing.assert_close(levels, levels.round(), atol=1e-3, rtol=0)
    assert made.faults[-1] == ()
    assert torch.equal(made.faulty[-1:], SOURCES[0].pixels)
    facts = made.facts(1)
    assert facts["pair_id"] == "0:1"
    assert json.loads(facts["faults"]) == [{"name": f.name, "value": f.value} for f in made.faults[1]]
    assert made.facts(5) == {"pair_id": "0:clean", "photo": "photo0.png", "draw": -1, "n_faults": 0, "faults": "[]"}


def test_any_part_of_a_run_is_made_again_alike() -> None:
    many, few = draw_items(SOURCES[1], 9, SEED), draw_items(SOURCES[1], 3, SEED)
    assert many.faults[:3] == few.faults[:3]
    assert torch.equal(many.faulty[:3], few.faulty[:3])
    assert draw_items(SOURCES[1], 3, SEED + 1).faults != few.faults
    assert draw_items(Source(7, "photo1.png", SOURCES[1].pixels), 3, SEED).faults != few.faults
    whole = run(NOTHING, DARKER)
    part = run(DARKER, draws=2, sources=[SOURCES[2]])
    same = whole[(whole["method"] == "darker") & (whole["photo"] == "photo2.png") & (whole["draw"] < 2)]
    # The clean item comes last, however many draws there are.
    assert same["pair_id"].tolist() == part["pair_id"].tolist() == ["2:0", "2:1", "2:clean"]
    for column in ("psnr", "ssim", "delta_e", "psnr_before"):
        np.testing.assert_allclose(same[column], part[column], rtol=1e-6)


def test_every_method_is_measured_on_every_item(items: pd.DataFrame) -> None:
    assert items.groupby("method", sort=False).size().to_dict() == dict.fromkeys(
        ["agent 1", "agent 2", NO_EDIT, "darker", "bound"], 3 * 5
    )
    assert not items.isna().any().any()
    untouched = items[items["method"] == NO_EDIT]
    made = draw_items(SOURCES[0], 4, SEED)
    here = untouched[untouched["photo"] == "photo0.png"]
    np.testing.assert_allclose(here["psnr_before"], psnr(made.faulty, made.original), rtol=1e-5)
    np.testing.assert_allclose(here["delta_e"], delta_e(made.faulty, made.original), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(here["juror"], untrained_juror().score(made.faulty), rtol=1e-4)
    assert (items[items["method"] == "agent 1"]["psnr"] == PSNR_CEILING).all()


def test_sums_over_all_methods(items: pd.DataFrame) -> None:
    rows = protocol_rows(items, np.random.default_rng(0))
    best, nothing, worst = rows["agent 1"], rows[NO_EDIT], rows["darker"]
    assert best["improved"]["mean"] == best["improved_large"]["mean"] == 1
    assert best["gain"]["mean"] == pytest.approx(PSNR_CEILING - nothing["psnr"]["mean"], abs=1e-3)
    assert nothing["gain"] == {"mean": 0.0, "low": 0.0, "high": 0.0}
    assert nothing["unchanged"]["mean"] == 1
    assert (nothing["clean_max"], nothing["clean_over"]) == (0.0, 0)
    clean = items[(items["method"] == "darker") & (items["n_faults"] == 0)]["delta_e"]
    assert worst["clean_over"] == 3
    assert worst["clean_max"] == pytest.approx(clean.max(), abs=1e-3)
    assert worst["clean_delta_e"]["mean"] == pytest.approx(clean.mean(), abs=1e-3)
    assert {row["n"] for row in rows.values()} == {12}


def test_improved_is_also_counted_where_there_was_much_to_improve(items: pd.DataFrame) -> None:
    table = items[items["method"] == "darker"].copy()
    faulty = table["n_faults"] > 0
    table.loc[faulty, "delta_e_before"] = [1.0, 3.99, 4.0, 20.0] * 3
    table.loc[faulty, "delta_e"] = [0.0, 9.0, 3.4, 19.6] * 3
    row = protocol_rows(table, np.random.default_rng(0))["darker"]
    assert row["improved"]["mean"] == pytest.approx(0.5)
    assert row["improved_large"]["mean"] == pytest.approx(0.5)
    assert row["worsened"]["mean"] == pytest.approx(0.25)
    assert row["unchanged"]["mean"] == pytest.approx(0.25)


def test_the_strongest_baseline_stands_first_and_the_bound_last(items: pd.DataFrame) -> None:
    agents = [Baseline(agent.name, classic=False, run=no_edit) for agent in AGENTS]
    contest = Contest((*agents, NOTHING, DARKER, BOUND), {"fast": ("agent 1", "agent 2")})
    result = protocol_result(items, contest, seed=SEED)
    assert result["order"] == [NO_EDIT, "agent 1", "agent 2", "darker", "bound"]
    assert result["strongest"] == NO_EDIT
    assert result["upper_bounds"] == ["bound"]
    lead = result["ahead_of"]["agent 1"][NO_EDIT]
    assert lead["psnr"]["low"] > 5
    assert lead["n"] == 12
    assert result["ahead_of"]["agent 1"]["agent 2"]["psnr"]["mean"] == 0
    assert result["spread"]["fast"]["psnr"] == {"mean": PSNR_CEILING, "sd": 0.0}
    assert result["search_beats_policy"] is None
    assert protocol_result(items, contest, seed=SEED) == result
    json.dumps(result)


def test_spread_over_trainings_is_mean_and_standard_deviation() -> None:
    rows = {f"r{i}": {"psnr": {"mean": value, "low": 0, "high": 9}, "clean_over": i, "n": 7} for i, value in
            enumerate((23.0, 24.0, 25.0))}  # fmt: skip
    assert spread_of(rows, list(rows)) == {
        "psnr": {"mean": 24.0, "sd": 1.0},
        "clean_over": {"mean": 1.0, "sd": 1.0},
    }


def test_groups_part_the_faulty_items(items: pd.DataFrame) -> None:
    rows = [row for row in group_rows(items) if row["method"] == "darker"]
    by_number = [row for row in rows if row["group"].split()[0].isdecimal()]
    bands = [row for row in rows if row["group"].startswith("input")]
    singles = [row for row in rows if row["group"].startswith("only")]
    assert sum(row["n"] for row in by_number) == sum(row["n"] for row in bands) == 12
    assert sum(row["n"] for row in singles) == sum(row["n"] for row in by_number if row["group"] == "1 fault")
    faulty = items[(items["method"] == "darker") & (items["n_faults"] > 0)]
    for row in by_number:
        part = faulty[faulty["n_faults"] == int(row["group"].split()[0])]
        assert row["psnr"] == pytest.approx(part["psnr"].mean(), abs=1e-3)
        assert row["psnr_before"] == pytest.approx(part["psnr_before"].mean(), abs=1e-3)
    assert {row["group"] for row in bands} <= {
        "input under 18 dB", "input 18 to 22 dB", "input 22 to 27 dB", "input over 27 dB",
    }  # fmt: skip


def test_slow_methods_see_the_first_draws_of_evenly_spread_photos() -> None:
    few = [source(index) for index in range(3)]
    assert slow_part(few, 8) == ({0, 1, 2}, 8)
    assert slow_part(few, 100) == ({0, 1, 2}, SLOW_ITEMS // 3)
    many = [Source(index, "", torch.zeros(1)) for index in range(3 * SLOW_ITEMS)]
    photos, draws = slow_part(many, 8)
    assert draws == 1
    assert len(photos) == SLOW_ITEMS
    slow = Baseline("slow", classic=False, run=darker, slow=True)
    sources = [source(index) for index in range(2)]
    draws = SLOW_ITEMS // 2 + 2
    table = run(slow, NOTHING, draws=draws, sources=sources)
    sizes = table.groupby("method").size()
    assert sizes["slow"] == 2 * (SLOW_ITEMS // 2 + 1)
    assert sizes.sum() == count_protocol(sources, [slow, NOTHING], draws)
    assert protocol_rows(table, np.random.default_rng(0))["slow"]["n"] == SLOW_ITEMS


def test_photos_come_as_the_pipeline_has_them_and_bad_ones_are_listed(tmp_path: Path) -> None:
    large = (scene(300, 400, 1)[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    save_png(tmp_path / "a.png", large)
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:500])
    save_png(tmp_path / "c.png", to_uint8(scene(10, 400, 2)[0].permute(1, 2, 0).numpy()))
    save_png(tmp_path / "d.png", large[:100, :120])
    sources, rejected = read_sources(sorted(tmp_path.iterdir()))
    assert [(one.index, one.name, tuple(one.pixels.shape)) for one in sources] == [
        (0, "a.png", (1, 3, 120, 160)),
        (3, "d.png", (1, 3, 100, 120)),
    ]
    assert [file.name for file, _ in rejected] == ["b.png", "c.png"]
    assert "too small: 160x4 px" in rejected[1][1]
    levels = sources[0].pixels * 255
    torch.testing.assert_close(levels, levels.round(), atol=1e-3, rtol=0)
    with pytest.raises(BadInput, match=r"no photo to measure on.*b\.png"):
        read_sources([tmp_path / "b.png"])
    with pytest.raises(BadInput, match="expected a folder with photos"):
        read_sources([])


def test_before_and_after_shows_what_was_measured(items: pd.DataFrame) -> None:
    sheet = before_after(SOURCES, items, DARKER, NOTHING, seed=SEED, rows=4)
    assert sheet.dtype == np.uint8
    one = before_after(SOURCES, items, DARKER, NOTHING, seed=SEED, rows=1)
    assert one.shape[0] < sheet.shape[0]
    worst = items[(items["method"] == "darker") & (items["n_faults"] > 0)]
    change = worst["delta_e"] - worst["delta_e_before"]
    best = worst.loc[change.idxmin()]
    made = draw_items(SOURCES[int(best["pair_id"][0])], 4, SEED)
    picture = to_uint8(made.faulty[best["draw"]].permute(1, 2, 0).numpy())
    height, width = picture.shape[:2]
    # The faulty photo stands pixel by pixel at the top left: it is smaller than its cell.
    found = any(
        np.array_equal(one[top : top + height, 12 : 12 + width], picture) for top in range(one.shape[0] - height)
    )
    assert found
