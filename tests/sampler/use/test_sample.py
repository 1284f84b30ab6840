"""`vernissage sample`: each sample hangs on its own seed, costs are told as they are, strange requests are refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from tests.sampler.domain.closed_form import Gaussian
from tests.sampler.use.small_sampler import small_model
from vernissage.cli import app
from vernissage.core.errors import BadInput
from vernissage.sampler.domain.programs import dpmpp, heun
from vernissage.sampler.domain.schedules import karras
from vernissage.sampler.domain.unet import EdmDenoiser, UNetSpec
from vernissage.sampler.use.sample import sample

if TYPE_CHECKING:
    from pathlib import Path

    from vernissage.sampler.domain.denoiser import Condition


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    spec = UNetSpec(channels=1, side=8, classes=3, width=8, attention_side=0)
    EdmDenoiser(spec).save(folder, {"class_names": ["cat", "dog", "2"]})
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a denoiser with a trained sampler beside it."""
    folder, whole = tmp_path_factory.mktemp("models"), small_model()
    assert isinstance(whole.denoiser, EdmDenoiser)
    whole.denoiser.save(folder / "denoiser", {"class_names": list(whole.names)})
    whole.save(folder / "sampler")
    return folder / "denoiser"


def run(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["sample", *map(str, words)])
    return done.exit_code, done.output


def test_costs_and_trace_are_those_of_the_program(model: Path) -> None:
    denoiser = EdmDenoiser.load(model)
    program = heun(karras(4, denoiser.sigma_min, denoiser.sigma_max))
    plain = sample(denoiser, [0, 1], [5, 6], program)
    assert plain.nfe.tolist() == [7, 7]
    assert [row.sigma for row in plain.trace] == pytest.approx(program.levels)
    assert all(row.evaluations == 2 for row in plain.trace)
    guided = sample(denoiser, [0, 1], [5, 6], program, guidance=3.0)
    assert guided.nfe.tolist() == [14, 14]
    alone = sample(denoiser, [1], [6], program)
    torch.testing.assert_close(alone.sample[0], plain.sample[1], atol=1e-5, rtol=1e-5)


def test_as_many_seeds_as_classes_are_wanted(model: Path) -> None:
    denoiser = EdmDenoiser.load(model)
    program = dpmpp(karras(3, denoiser.sigma_min, denoiser.sigma_max))
    for labels, seeds in (([], []), ([0], [1, 2])):
        with pytest.raises(BadInput, match="expected as many of each"):
            sample(denoiser, labels, seeds, program)
    with pytest.raises(BadInput, match="class 3"):
        sample(denoiser, [3], [1], program)


def test_the_command_leaves_a_sheet_and_a_trace(model: Path, tmp_path: Path) -> None:
    program = tmp_path / "program.json"
    program.write_text(heun(karras(3, 0.01, 20.0)).to_json(), encoding="utf-8")
    sheet, trace = tmp_path / "new" / "sheet.png", tmp_path / "trace.json"
    code, text = run("-o", sheet, "-n", 7, "--label", "dog", "--program", program, "--trace", trace, "--model", model)
    assert code == 0, text
    assert "5 network evaluations each" in text
    with Image.open(sheet) as picture:
        assert picture.size == (7 * 50 + 2, 52)
    facts = json.loads(trace.read_text(encoding="utf-8"))
    assert facts["labels"] == [1] * 7
    assert facts["seeds"] == list(range(7))
    assert facts["nfe"] == [5] * 7
    assert len(facts["calls"]) == 5
    code, text = run("-o", sheet, "-n", 4, "--calls", 3, "--model", model)
    assert code == 0, text
    with Image.open(sheet) as picture:
        assert picture.size == (3 * 50 + 2, 2 * 50 + 2)


def test_a_price_asks_the_trained_sampler(trained: Path, tmp_path: Path) -> None:
    sheet, trace = tmp_path / "sheet.png", tmp_path / "trace.json"
    words = ("-o", sheet, "-n", 8, "--label", "dog", "--price", 0.02, "--trace", trace, "--model", trained)
    code, text = run(*words)
    assert code == 0, text
    facts = json.loads(trace.read_text(encoding="utf-8"))
    assert facts["labels"] == [1] * 8
    assert facts["steered"] == [True] * 8
    assert facts["failed"] == [-1] * 8
    assert sum(row["evaluations"] for row in facts["calls"]) == sum(facts["nfe"])
    assert {step["sample"] for row in facts["calls"] for step in row["samples"]} == set(range(8))
    assert facts["milliseconds"]["network"] > 0
    nfe, static = (sum(facts[name]) / 8 for name in ("nfe", "static_nfe"))
    said = " ".join(text.split())
    assert f"8 samples at a price of 0.02, steered: {nfe:.3g} network evaluations each, {static:.3g} by the" in said
    assert "%) in steering" in said
    with Image.open(sheet) as picture:
        assert picture.size == (8 * 50 + 2, 52)
    before = sheet.read_bytes()
    assert run(*words)[0] == 0
    assert sheet.read_bytes() == before
    # At this price the controller was found no better.
    code, text = run("-o", sheet, "-n", 4, "--price", 0.55, "--model", trained)
    assert code == 0, text
    assert "by the static program, as nothing was found better there" in " ".join(text.split())


def test_a_budget_alone_buys_the_best_that_it_can(trained: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace.json"
    code, text = run(
        "-o", tmp_path / "sheet.png", "-n", 5, "--budget", 7, "--guidance", 2, "--trace", trace, "--model", trained
    )
    assert code == 0, text
    facts = json.loads(trace.read_text(encoding="utf-8"))
    assert max(facts["nfe"]) <= 7
    assert (facts["price"], facts["budget"], facts["guidance"]) == (0, 7, 2)
    assert "for the best quality within 7 evaluations" in " ".join(text.split())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--price", "0.1", "--calls", "4"), "--price beside --calls"),
        (("--budget", "4", "--program", "p.json"), "--budget beside --program"),
        (("--price", "-0.1"), "price = -0.1"),
        (("--price", "nan"), "price = nan"),
        (("--budget", "0"), "budget of 0 network evaluations, expected at least 1"),
        (("--budget", "1", "--guidance", "3"), "expected at least 2"),
        (("--price", "0", "--label", "bird"), "cat, dog, 2"),
        (("--price", "0", "--guidance", "nan"), "guidance scale nan"),
        (("--price", "0", "--sampler", "nowhere"), "dvc repro train@sampler"),
    ],
)
def test_strange_prices_are_refused_and_leave_nothing(
    words: tuple[str, ...], said: str, trained: Path, tmp_path: Path
) -> None:
    code, text = run("-o", tmp_path / "sheet.png", "-n", 3, "--model", trained, *words)
    assert code != 0
    assert said in " ".join(text.split())
    assert not list(tmp_path.iterdir())


def test_a_price_without_a_trained_sampler_says_what_to_run(model: Path, tmp_path: Path) -> None:
    code, text = run("-o", tmp_path / "sheet.png", "--price", 0.02, "--model", model)
    assert code != 0
    assert "train it with `dvc repro train@sampler`" in " ".join(text.split())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--label", "bird"), "cat, dog, 2"),
        (("--label", "3"), "cat, dog, 2"),
        (("--program", "nowhere.json"), "no such file"),
        (("-n", "0"), "Error"),
        (("--calls", "0"), "Error"),
    ],
)
def test_strange_requests_are_refused_and_leave_nothing(
    words: tuple[str, ...], said: str, model: Path, tmp_path: Path
) -> None:
    code, text = run("-o", tmp_path / "sheet.png", "--model", model, *words)
    assert code != 0
    assert said in " ".join(text.split())
    assert not list(tmp_path.iterdir())


def test_no_model_and_no_place_to_write_are_said_first(model: Path, tmp_path: Path) -> None:
    code, text = run("-o", tmp_path / "sheet.png", "--model", tmp_path / "none")
    assert code != 0
    assert "dvc" in text
    (tmp_path / "file").write_text("")
    code, text = run("-o", tmp_path / "file" / "sheet.png", "--model", model)
    assert code != 0
    assert "cannot write" in " ".join(text.split())


def test_samples_that_fail_are_reported_beside_good_ones() -> None:
    class Breaking(Gaussian):
        def __call__(self, x: torch.Tensor, sigma: torch.Tensor, condition: Condition | None) -> torch.Tensor:
            answer = super().__call__(x, sigma, condition).clone()
            if len(x) == 3:
                answer[1] = torch.nan
            return answer

    denoiser = Breaking()
    program = dpmpp(karras(4, denoiser.sigma_min, denoiser.sigma_max))
    result = sample(denoiser, [0, 0, 0], [1, 2, 3], program)
    assert result.failed.tolist() == [-1, 0, -1]
    assert result.sample[[0, 2]].isfinite().all()
