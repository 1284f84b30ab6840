"""Tuning with real trainings: it goes on where it stopped, whatever stopped it, and gives up on hopeless trials."""

from __future__ import annotations

import json
import logging
import os
import shlex
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import pytest
from optuna.trial import TrialState

from tests.retoucher.learn.small_study import PRESENT, SHIPPED, SPACE, TINY, load, small_plan, small_tuner, train_one
from vernissage.core.errors import BadInput, BadParams, CorruptArtifact, MissingArtifact, VernissageError
from vernissage.core.params import describe, load_params, parse_override
from vernissage.retoucher.learn.search_spaces import Choice, SearchSpace
from vernissage.retoucher.learn.tuning import (
    DATABASE,
    LOGS,
    Marks,
    StudyPlan,
    attached_study,
    best_overrides,
    phase_marks,
    running_study,
    standing,
    studies_in,
    trial_kind,
)
from vernissage.retoucher.learn.tuning_page import best_line, importances, write_results
from vernissage.retoucher.system import training_settings

if TYPE_CHECKING:
    from collections.abc import Callable

PROJECT = Path(__file__).parents[3]
LR, EPOCHS = "train.retoucher.planner_lr_scale", "train.retoucher.ppo_epochs"


def run(plan: StudyPlan, trials: int, train: Any = train_one, said: list[str] | None = None) -> list[Any]:
    """Open the study, run, close it; gives all trials as they are then."""
    with running_study(plan) as study:
        small_tuner(study, plan, train, said).run(trials)
        return study.get_trials()


def finished(trials: list[Any]) -> list[tuple[Any, ...]]:
    """What was tried and found, in the order in which it was finished."""
    done = [trial for trial in trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    return [(trial.params, trial.value, trial.intermediate_values, trial.state) for trial in done]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyPlan, list[Any]]:
    """Four trials in one go: three by chance, one by what they found."""
    plan = small_plan(tmp_path_factory.mktemp("whole"))
    return plan, run(plan, 4)


def test_trials_are_real_trainings_with_their_learning_curves(whole: tuple[StudyPlan, list[Any]]) -> None:
    plan, trials = whole
    assert [trial.number for trial in trials] == [0, 1, 2, 3]
    assert plan.space.values(trials[0].params) == {**PRESENT, "train.retoucher.widths": [4, 8]}
    first = trials[0]
    assert first.state is TrialState.COMPLETE
    # Ten updates of the plan, each looked at, then two iterations by reward and the look before them.
    assert sorted(first.intermediate_values) == [*range(2, 21, 2), 26, 36, 46]
    assert {"objective", "gain", "worse", "edits", "seconds"} <= first.user_attrs.keys()
    assert first.value == first.user_attrs["objective"]
    params = load([f"{key}={json.dumps(value)}" for key, value in PRESENT.items()])
    again = train_one(params, plan.folder / "apart", lambda *_: None)
    assert again["objective"] == first.value
    assert len({str(trial.params) for trial in trials}) == 4
    for trial in trials:
        log = (plan.folder / LOGS / f"{trial.number:04d}.log").read_text()
        assert "plan:" in log
    assert not plan.scratch.exists() or not list(plan.scratch.iterdir())


def test_a_study_that_is_opened_again_goes_on_as_if_it_had_never_stopped(
    whole: tuple[StudyPlan, list[Any]], tmp_path: Path
) -> None:
    plan = small_plan(tmp_path)
    assert len(run(plan, 2)) == 2
    assert finished(run(plan, 4)) == finished(whole[1])
    # All that were asked for are there.
    assert len(run(plan, 4)) == 4


def interrupted_at(look: int, error: BaseException) -> Callable[..., Any]:
    """The same training, until something happens at one of its looks; counted over all trials."""
    seen = 0

    def train(params: Any, checkpoint: Path, on_look: Callable[..., None]) -> Any:
        def watched(phase: str, update: int, numbers: dict[str, float]) -> None:
            nonlocal seen
            seen += 1
            on_look(phase, update, numbers)
            if seen == look:
                raise error

        return train_one(params, checkpoint, watched)

    return train


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MissingArtifact("a file has gone")])
def test_what_was_interrupted_is_tried_again(
    error: BaseException, whole: tuple[StudyPlan, list[Any]], tmp_path: Path
) -> None:
    plan, said = small_plan(tmp_path), []
    with pytest.raises(type(error)):
        # The plan of the second trial is half taught.
        run(plan, 2, interrupted_at(13 + 7, error))
    with attached_study(plan) as study:
        states = [trial.state for trial in study.trials]
        assert states == [TrialState.COMPLETE, TrialState.FAIL, TrialState.WAITING]
        assert standing(study).finished == 1
        assert standing(study).interrupted == 1
    looks: list[tuple[str, int]] = []

    def counted(params: Any, checkpoint: Path, on_look: Callable[..., None]) -> Any:
        def watched(phase: str, update: int, numbers: dict[str, float]) -> None:
            looks.append((phase, update))
            on_look(phase, update, numbers)

        return train_one(params, checkpoint, watched)

    trials = run(plan, 2, counted, said)
    assert finished(trials) == finished(whole[1])[:2]
    assert trials[2].params == trials[1].params
    assert "trial 2 (trial 1 again)" in said[0]
    # It went on from the checkpoint of the look before, instead of teaching the plan from the beginning.
    assert looks[0] == ("plan", 7)


def test_a_study_survives_kill_9_in_the_middle_of_a_trial(whole: tuple[StudyPlan, list[Any]], tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    command = [sys.executable, "-m", "tests.retoucher.learn.small_study", str(tmp_path), "500"]
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    with subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=subprocess.DEVNULL) as process:
        wait_for(plan.folder / DATABASE, "SELECT count(*) FROM trial_intermediate_values WHERE trial_id = 2", process)
        process.kill()
    assert process.returncode == -9
    said: list[str] = []
    trials = run(plan, 3, said=said)
    assert trials[1].state is TrialState.FAIL
    assert finished(trials) == finished(whole[1])[:3]
    assert any("(trial 1 again)" in line for line in said)


def wait_for(database: Path, question: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until a question to a database, which may not be there yet, has an answer above zero."""
    until = time.monotonic() + 240
    while time.monotonic() < until:
        assert process.poll() is None, "the study ended by itself"
        try:
            connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
            try:
                if connection.execute(question).fetchone()[0]:
                    return
            finally:
                connection.close()
        except sqlite3.OperationalError:
            pass
        time.sleep(0.01)
    raise AssertionError("the study did not get so far")


def test_a_trial_without_prospect_is_given_up(tmp_path: Path) -> None:
    plan, said = small_plan(tmp_path, startup=1), []
    with running_study(plan) as study:
        tuner = small_tuner(study, plan, said=said)
        tuner.run(1)
        stored = SPACE.stored({**PRESENT, LR: 3000.0})
        study.enqueue_trial(stored)
        tuner.run(2)
        hopeless = study.trials[1]
    assert hopeless.params == stored
    assert hopeless.state is TrialState.PRUNED
    assert len(hopeless.intermediate_values) < 13
    assert max(hopeless.intermediate_values) >= 5
    assert "trial 1: given up, below the median, " in said[-1]


def test_a_trial_has_only_so_much_time(tmp_path: Path) -> None:
    plan, said = small_plan(tmp_path, seconds_per_trial=0.0), []
    trials = run(plan, 2, said=said)
    assert [trial.state for trial in trials] == [TrialState.PRUNED] * 2
    assert [len(trial.intermediate_values) for trial in trials] == [1, 1]
    assert "longer than 0 s, plan 1" in said[0]
    with running_study(plan) as study:
        assert standing(study).best is None
        names = {path.name for path in write_results(study, plan)}
    assert names == {"history.png", "curves.png", "slices.png", "index.html"}
    assert "No trial has trained to the end yet" in (plan.folder / "index.html").read_text()


def test_values_at_odds_are_not_tried_and_do_not_count(tmp_path: Path) -> None:
    # 16 edits lie between two updates; a batch of 64 does not fit.
    space = SearchSpace("ppo", "", (Choice("train.retoucher.batch", (8, 64)),))
    plan = small_plan(tmp_path, space=space, present={"train.retoucher.batch": 8})
    trials = run(plan, 4, lambda *_: {"objective": 0.1})
    kinds = {(trial.params["train.retoucher.batch"], trial.state) for trial in trials}
    assert kinds == {("8", TrialState.COMPLETE), ("64", TrialState.PRUNED)}
    assert sum(trial.state is TrialState.COMPLETE for trial in trials) == 4
    refused = next(trial for trial in trials if trial.state is TrialState.PRUNED)
    assert "batch = 64 is above slots x rollout = 16" in refused.user_attrs["reason"]
    nothing_fits = SearchSpace("ppo", "", (Choice("train.retoucher.batch", (32, 64)),))
    plan = small_plan(
        tmp_path, name="none", folder=tmp_path / "none", space=nothing_fits, present={"train.retoucher.batch": 64}
    )
    with pytest.raises(BadParams, match="20 choices in a row fit no parameters"):
        run(plan, 1)


def test_one_that_breaks_down_does_not_end_the_others_but_three_do(tmp_path: Path) -> None:
    plan, said = small_plan(tmp_path), []
    trials = run(plan, 2, interrupted_at(3, RuntimeError("out of memory")), said)
    assert [trial_kind(trial, set()) for trial in trials] == ["broke down", "complete"]
    assert "trial 0 (the present values): broke down, RuntimeError: out of memory" in said[0]
    assert "Traceback" in (plan.folder / LOGS / "0000.log").read_text()

    def breaks(*_: Any) -> Any:
        raise ValueError("nan in the logits")

    with pytest.raises(VernissageError, match="3 trials in a row broke down; see the last files in"):
        run(plan, 9, breaks)
    # They count, so that a study with bad corners comes to its end.
    with running_study(plan) as study:
        assert standing(study).finished == 5


def test_infinities_are_no_results(tmp_path: Path) -> None:
    def endless(params: Any, checkpoint: Path, on_look: Callable[..., None]) -> dict[str, float]:
        return {"objective": float("nan"), "gain": 0.0}

    trials = run(small_plan(tmp_path), 1, endless)
    assert trial_kind(trials[0], set()) == "broke down"
    assert trials[0].user_attrs["reason"] == "objective = nan"


def test_a_study_of_another_question_is_not_continued(whole: tuple[StudyPlan, list[Any]]) -> None:
    plan = whole[0]
    other_view = {**plan.about, "train.retoucher.view": 32}
    for change, text in (
        ({"about": other_view}, r"train\.retoucher\.view: 16 then, 32 now; name another --study"),
        ({"about": {**plan.about, "pairs": "others"}}, "pairs: made then, others now"),
        ({"objective": "gain"}, "objective: objective then, gain now"),
        ({"space": replace(SPACE, dimensions=SPACE.dimensions[:2])}, "space"),
    ):
        with pytest.raises(BadInput, match=text), running_study(replace(plan, **change)):
            pass


def test_a_study_without_trials_can_still_become_another_one(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    with running_study(plan):
        pass
    other = replace(plan, about={**plan.about, "pairs": "others"})
    assert len(run(other, 1, lambda *_: {"objective": 0.1})) == 1
    with pytest.raises(BadInput, match="pairs: others then, made now"), running_study(plan):
        pass


def test_other_code_is_worth_a_warning(
    whole: tuple[StudyPlan, list[Any]], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("vernissage"), "propagate", True)
    with running_study(replace(whole[0], code="there")):
        pass
    assert "the code has changed" in caplog.text


def test_only_one_process_runs_a_study(whole: tuple[StudyPlan, list[Any]]) -> None:
    with (
        running_study(whole[0]),
        pytest.raises(BadInput, match="another process is running it"),
        running_study(whole[0]),
    ):
        pass


def test_names_that_there_are_not(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="objective 'psnr': there is none, expected one of objective, gain, worse"):
        small_plan(tmp_path, objective="psnr")
    with pytest.raises(BadInput, match="cannot have"):
        run(small_plan(tmp_path, folder=tmp_path / "what?"), 1)


def test_what_is_no_study_is_not_opened(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    plan.folder.mkdir()
    (plan.folder / DATABASE).write_bytes(b"not a database at all" * 99)
    with pytest.raises(CorruptArtifact, match=r"study\.db: no study .*move it away"), running_study(plan):
        pass
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(BadInput, match="cannot be written"), running_study(replace(plan, folder=blocked / "x")):
        pass


def test_studies_are_found_by_their_file(whole: tuple[StudyPlan, list[Any]]) -> None:
    (whole[0].folder.parent / "empty").mkdir(exist_ok=True)
    assert studies_in(whole[0].folder.parent) == ["small"]


def test_looks_of_trainings_of_different_length_meet_on_one_scale() -> None:
    short, long = (Marks(training_settings(load([f"train.retoucher.planner_images={images}"]))) for images in (80, 800))
    for share in (1, 10, 20):
        assert short.of("plan", share) == long.of("plan", 10 * share) == share
    # 32 edits, 16 between two updates: two iterations.
    assert [short.of("ppo", iteration) for iteration in (0, 1, 2)] == [26, 36, 46]
    assert [(first, last) for _, first, last in phase_marks()] == [(0, 20), (21, 25), (26, 46)]
    dqn = Marks(training_settings(load(["train.retoucher.algorithm=dqn"])))
    assert dqn.of("dqn", 2) == 46
    without = Marks(training_settings(load(["train.retoucher.ppo_steps=0"])))
    assert without.of("ppo", 0) == 26


def test_results_are_figures_a_page_and_a_line_that_is_read_back(whole: tuple[StudyPlan, list[Any]]) -> None:
    plan, trials = whole
    with running_study(plan) as study:
        written = {path.name: path for path in write_results(study, plan)}
        now = standing(study)
    assert {"history.png", "curves.png", "slices.png", "best.json", "best.txt", "index.html"} <= written.keys()
    for name in ("history.png", "curves.png", "slices.png"):
        assert written[name].read_bytes().startswith(b"\x89PNG")
    assert now.best is not None
    assert now.present is not None
    assert now.best.value == max(trial.value for trial in trials if trial.state is TrialState.COMPLETE)
    words = shlex.split(written["best.txt"].read_text())
    assert words[:3] == ["dvc", "exp", "run"]
    assert set(words[3::2]) == {"-S"}
    read = dict(parse_override(word) for word in words[4::2])
    assert read == best_overrides(plan, now.best)
    best = json.loads(written["best.json"].read_text())
    assert (best["values"], best["value"], best["line"]) == (
        read,
        now.best.value,
        written["best.txt"].read_text().strip(),
    )
    # Reading the line gives the parameters that were trained with.
    params = load_params(SHIPPED, overrides=[*TINY, *words[4::2]])
    rows = {row.key: row.value for row in describe(params)}
    assert {key: list(v) if isinstance(v := rows[key], tuple) else v for key in read} == read
    page = written["index.html"].read_text()
    assert "http" not in page.replace("http-equiv", "")
    assert page.count("data:image/png;base64,") == 3 + (len(importances_of(plan)) > 0)
    assert best_line(read).split("'")[0] in page


def importances_of(plan: StudyPlan) -> dict[str, float]:
    with attached_study(plan) as study:
        return importances(study)


def test_the_parameter_that_matters_is_found(tmp_path: Path) -> None:
    plan = small_plan(tmp_path, startup=30)

    def only_epochs_count(params: Any, *_: Any) -> dict[str, float]:
        return {"objective": float(params.train.retoucher.ppo_epochs) + 0.001 * params.train.retoucher.gamma}

    run(plan, 3, only_epochs_count)
    assert importances_of(plan) == {}
    run(plan, 12, only_epochs_count)
    shares = importances_of(plan)
    assert next(iter(shares)) == EPOCHS
    assert shares[EPOCHS] > 0.9
    with running_study(plan) as study:
        assert plan.folder / "importances.png" in write_results(study, plan)
        assert SPACE.values(study.best_trial.params)[EPOCHS] == 3


def test_less_is_better_for_some_objectives(tmp_path: Path) -> None:
    plan = small_plan(tmp_path, objective="worse")
    shares = iter((0.3, 0.1, 0.2))
    run(plan, 3, lambda *_: {"worse": next(shares), "objective": 0.0})
    with running_study(plan) as study:
        best = standing(study).best
        assert best is not None
        assert best.value == 0.1
        assert study.direction is optuna.study.StudyDirection.MINIMIZE
