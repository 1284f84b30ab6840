"""The robustness suite finds what it is there to find: agents and file handling with a known defect fail their case."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from tests.retoucher.agents import agent_with_plan, tiny_juror
from tests.retoucher.domain.procedural import scene
from vernissage.core.errors import BadInput
from vernissage.core.images import read_photo, write_photo
from vernissage.retoucher.domain.render import render
from vernissage.retoucher.domain.sliders import SLIDER_COUNT, slider_index
from vernissage.retoucher.judge import file_cases, trials
from vernissage.retoucher.judge.robustness import CASES, CaseResult, run_cases
from vernissage.retoucher.judge.trials import Bench, Case, Outcome, mean_gain

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BY_NAME = {case.name: case for case in CASES}
PHOTOS = [(scene(60, 80, seed) * 255).round() / 255 for seed in range(3)]


def judge(network: Any, scratch: Path, *names: str) -> dict[str, CaseResult]:
    cases = [BY_NAME[name] for name in names] or CASES
    results = run_cases(network, tiny_juror(), PHOTOS, scratch, np.random.default_rng(0), cases=cases)
    assert [result.name for result in results] == [case.name for case in cases]
    return {result.name: result for result in results}


@pytest.fixture
def content(tmp_path: Path) -> dict[str, CaseResult]:
    return judge(agent_with_plan(), tmp_path)


def test_every_case_has_a_name_and_states_its_criterion() -> None:
    assert len(BY_NAME) == len(CASES) >= 14
    for case in CASES:
        assert case.criterion.endswith("."), case.name
        assert case.criterion[0].isupper() or case.criterion[0].isdigit(), case.name


def test_an_agent_that_does_nothing_does_no_harm(content: dict[str, CaseResult]) -> None:
    assert {name: result.note for name, result in content.items() if not result.passed} == {}
    # And nothing of its gain is kept, because there is none.
    assert {result.retained for result in content.values()} == {None}
    assert content["clean photos"].value == 0


def test_an_agent_that_always_brightens_keeps_files_but_harms_photos(tmp_path: Path) -> None:
    results = judge(agent_with_plan({"exposure": 0.4}), tmp_path)
    files = [case.name for case in file_cases.FILE_CASES]
    assert {name: results[name].note for name in files if not results[name].passed} == {}
    assert not results["clean photos"].passed
    assert results["clean photos"].value is not None
    assert results["clean photos"].value > 5
    assert not results["applied twice"].passed
    assert results["exposure -3 and +3 EV"].value == pytest.approx(0.5, abs=0.01)
    assert all(isinstance(result.passed, bool) for result in results.values())


def test_two_runs_agree_and_no_case_depends_on_the_others(tmp_path: Path) -> None:
    network = agent_with_plan({"exposure": 0.3})
    names = ("strong noise in the dark", "JPEG quality 10", "CMYK JPEG")
    together = judge(network, tmp_path / "a", *names)
    assert judge(network, tmp_path / "b", *names) == together
    assert judge(network, tmp_path / "c", *names[:1]) == {names[0]: together[names[0]]}


def test_a_case_that_breaks_has_failed_and_the_others_go_on(tmp_path: Path) -> None:
    def broken(_: Bench) -> Outcome:
        raise IndexError("out of\nrange")

    counted = SimpleNamespace(done=0)
    progress = SimpleNamespace(advance=lambda: setattr(counted, "done", counted.done + 1))
    cases = [Case("broken", "It works.", broken), BY_NAME["same again"]]
    results = run_cases(
        agent_with_plan(), tiny_juror(), PHOTOS, tmp_path, np.random.default_rng(0), progress=progress, cases=cases
    )
    assert results[0] == CaseResult("broken", "It works.", False, None, None, "IndexError: out of range")
    assert results[1].passed
    assert counted.done == 2


def test_no_photos_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no photos"):
        run_cases(agent_with_plan(), tiny_juror(), [], tmp_path, np.random.default_rng(0))


# --- agents with a defect ---------------------------------------------------------------------------------------------


def constant(**settings: float) -> Callable[[torch.Tensor], torch.Tensor]:
    row = torch.zeros(SLIDER_COUNT)
    for name, setting in settings.items():
        row[slider_index(name)] = setting
    return lambda views: row.expand(len(views), -1).clone()


def looks_left(views: torch.Tensor) -> torch.Tensor:
    half = views.shape[3] // 2
    return brighten((views[..., :half].mean(dim=(1, 2, 3)) - views[..., half:].mean(dim=(1, 2, 3))) * 5)


def looks_at_the_batch(views: torch.Tensor) -> torch.Tensor:
    return brighten(torch.full((len(views),), 0.1 if len(views) > 1 else 0.2))


def overreacts(views: torch.Tensor) -> torch.Tensor:
    """Decides something else as soon as the mean level moves by a hair."""
    return brighten(torch.frac(views.mean(dim=(1, 2, 3)) * 4001))


def throws_dice(views: torch.Tensor) -> torch.Tensor:
    return brighten(torch.rand(len(views)))


def brighten(amounts: torch.Tensor) -> torch.Tensor:
    settings = torch.zeros(len(amounts), SLIDER_COUNT)
    settings[:, slider_index("exposure")] = amounts.clamp(-1, 1)
    return settings


@pytest.mark.parametrize(
    ("policy", "failing"),
    [
        (looks_left, "mirrored photo"),
        (looks_at_the_batch, "one or many"),
        (throws_dice, "same again"),
        (throws_dice, "EXIF orientation"),
        (throws_dice, "gray file"),
        (throws_dice, "foreign file names"),
        (throws_dice, "animated GIF"),
        (overreacts, "palette PNG"),
        (overreacts, "CMYK JPEG"),
        (overreacts, "other sizes"),
        (constant(temperature=0.5), "monochrome photo"),
        (constant(saturation=-1.0), "sunset"),
        (constant(exposure=-0.5), "flat pictures"),
        (constant(exposure=float("nan")), "flat pictures"),
        (constant(exposure=float("nan")), "1 x 1 and 8 x 8 pixels"),
        (constant(sharpen=1.0), "strong noise in the dark"),
        (constant(contrast=0.8), "JPEG quality 10"),
        (constant(contrast=0.8), "exposure -3 and +3 EV"),
    ],
)
def test_an_agent_with_a_defect_fails_the_case_for_it(
    policy: Callable[[torch.Tensor], torch.Tensor], failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "run_policy", lambda _, views, __: SimpleNamespace(settings=policy(views)))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        result = judge(agent_with_plan(), tmp_path, failing)[failing]
    assert not result.passed, result
    assert "Error" not in result.note


# --- file handling with a defect --------------------------------------------------------------------------------------


def test_lost_transparency_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_alpha(path: Path, pixels: np.ndarray, **options: Any) -> None:
        write_photo(path, pixels, **{**options, "alpha": None} if "edited" in path.name else options)

    monkeypatch.setattr(file_cases, "write_photo", without_alpha)
    result = judge(agent_with_plan(), tmp_path, "transparency")["transparency"]
    assert not result.passed
    assert "lost" in result.note


def test_lost_levels_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def in_8_bits(path: Path, pixels: np.ndarray, **options: Any) -> None:
        write_photo(path, pixels, bit_depth=8 if "edited" in path.name else options["bit_depth"])

    monkeypatch.setattr(file_cases, "write_photo", in_8_bits)
    assert not judge(agent_with_plan({"exposure": 0.4}), tmp_path, "16-bit PNG")["16-bit PNG"].passed


def test_strips_that_show_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def in_halves(pixels: np.ndarray, settings: torch.Tensor) -> np.ndarray:
        halves = np.split(pixels, 2)
        images = [torch.from_numpy(half).permute(2, 0, 1)[None] for half in halves]
        return np.concatenate([render(image, settings)[0].permute(1, 2, 0).numpy() for image in images])

    monkeypatch.setattr(file_cases, "render_full_size", in_halves)
    assert not judge(agent_with_plan(), tmp_path, "panorama")["panorama"].passed


def test_a_truncated_file_that_passes_for_whole_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = judge(agent_with_plan(), tmp_path, "truncated file")["truncated file"]
    assert good.passed
    whole = tmp_path / "truncated-file" / "0.jpg"
    monkeypatch.setattr(trials, "read_photo", lambda _: read_photo(whole))
    assert not judge(agent_with_plan(), tmp_path, "truncated file")["truncated file"].passed


def test_retained_quality_is_the_share_of_the_normal_gain(tmp_path: Path) -> None:
    dark = [photo * 0.5 for photo in PHOTOS]
    settings = brighten(torch.full((len(dark),), 0.5))
    bench = Bench(
        agent_with_plan(), tiny_juror(), tuple(PHOTOS), tuple(dark), settings, tmp_path, np.random.default_rng(0)
    )
    normal = mean_gain(PHOTOS, dark, settings)
    assert normal > 0.5
    assert bench.retained(range(3), dark, settings) == pytest.approx(1)
    assert bench.retained(range(3), dark, torch.zeros_like(settings)) == pytest.approx(0)
    part = bench.retained([1], [dark[1]], settings[1:2] / 2)
    assert part == pytest.approx(
        mean_gain(PHOTOS[1:2], dark[1:2], settings[1:2] / 2) / mean_gain(PHOTOS[1:2], dark[1:2], settings[1:2])
    )
    useless = Bench(bench.network, bench.juror, bench.originals, bench.originals, settings, tmp_path, bench.rng)
    assert useless.retained(range(3), PHOTOS, settings) is None
