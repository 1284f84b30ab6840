"""`vernissage tune SYSTEM`: searches for better parameters with short trainings that can be stopped at any time."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import shlex
import signal
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from vernissage.core.devices import CONCURRENT_STAGES_VARIABLE
from vernissage.core.errors import BadInput, BadParams, MissingArtifact, VernissageError
from vernissage.core.files import safe_file_name, sha256_file
from vernissage.core.folders import SystemFolders
from vernissage.core.params import Params, describe, load_params
from vernissage.core.typed_yaml import suggestion

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import optuna

    from vernissage.retoucher.learn.search_spaces import SearchSpace
    from vernissage.retoucher.learn.tuning import Interruption, StudyPlan, Tuner

STUDIES_FOLDER = "tuning"
INTERRUPTED_EXIT_CODE = 128 + signal.SIGINT
_PARAMS_FILE = "params.yaml"
_POLL_SECONDS = 0.2
_HASH_DIGITS = 12
# What the training reads besides what is searched; dvc.yaml lists the same for the stage.
_READ_BY_TRAINING = ("seed", "lr", "resize.long_edge", "degrade.", "train.retoucher.")
# They change no figure: what is shown, and who scores.
_WITHOUT_INFLUENCE = {"train.retoucher.shown_episodes", "train.retoucher.juror_workers", "degrade.writers"}


@dataclass(frozen=True)
class TuneRequest:
    """What was asked for on the command line.

    Attributes:
        project: The project's folder.
        trials: Finished trials that the study is to have; 0 only writes the results of an existing study again.
        algorithm: Name of a search space; none takes the algorithm of the parameters.
        study: Name of the study; none makes one from the algorithm.
        objective: What is tuned for.
        storage: Folder of the studies; none is `tuning` in the project.
        seconds_per_trial: See `StudyPlan`.
        jobs: Trials side by side, each in a process of its own.
        profile: A profile of params.yaml to tune under.
        overrides: `key=value` to tune under; they win over the profile.
    """

    project: Path
    trials: int
    algorithm: str | None = None
    study: str | None = None
    objective: str = "objective"
    storage: Path | None = None
    seconds_per_trial: float | None = None
    jobs: int = 1
    profile: str | None = None
    overrides: tuple[str, ...] = ()

    @property
    def studies(self) -> Path:
        """Folder of all studies."""
        return self.storage or self.project / STUDIES_FOLDER

    def command(self) -> str:
        """Return what to type to go on."""
        words = ["vernissage", "tune", "retoucher", "--trials", str(self.trials)]
        options = {
            "--algorithm": self.algorithm,
            "--study": self.study,
            "--objective": None if self.objective == "objective" else self.objective,
            "--storage": self.storage,
            "--seconds-per-trial": self.seconds_per_trial,
            "--jobs": None if self.jobs == 1 else self.jobs,
            "--profile": self.profile,
        }
        for name, value in options.items():
            words += [] if value is None else [name, f"{value:g}" if isinstance(value, float) else str(value)]
        for override in self.overrides:
            words += ["-S", override]
        return shlex.join(words)

    def load(self, overrides: Sequence[str] = ()) -> Params:
        """Return the parameters that are tuned under, changed by what a trial chose."""
        file = self.project / _PARAMS_FILE
        return load_params(file, profile=self.profile, overrides=[*self.overrides, *overrides])


def tune_retoucher(request: TuneRequest) -> bool:
    """Run trials until the study has as many as were asked for; print and write what was found.

    Returns:
        Whether it came to its end; False after Ctrl-C, when it has said how to go on.

    Raises:
        BadParams: A name, a parameter or a combination of them is not valid.
        BadInput: The study belongs to another question, or someone else runs it.
        MissingArtifact: The data that training needs are not there.
        CorruptArtifact: A file is damaged.
        VernissageError: Trials broke down one after the other.
    """
    plan = study_plan(request)
    if not request.trials and plan.name not in (known := _known_studies(request)):
        listed = ", ".join(known) or "none yet"
        near = suggestion(plan.name, known)
        raise BadInput(f"study {plan.name!r}: there is none in {request.studies}, expected one of: {listed}{near}")
    from vernissage.retoucher.learn.tuning import Interruption, requeue_killed, running_study

    interruption = Interruption()
    with interruption.held_back(), running_study(plan) as study:
        try:
            _run(request, plan, study, interruption)
        except KeyboardInterrupt:
            _say(f"\nstopped; nothing is lost. Go on with:\n  {request.command()}")
            requeue_killed(study)
            _conclude(request, plan, study)
            return False
        _conclude(request, plan, study)
    return True


def study_plan(request: TuneRequest) -> StudyPlan:
    """Work out what the study is about; checks everything that can be checked before anything runs."""
    from vernissage.retoucher.learn.search_spaces import SEARCH_SPACES, choose_space
    from vernissage.retoucher.learn.tuning import StudyPlan

    if request.jobs < 1 or request.trials < 0:
        raise BadParams(f"--jobs {request.jobs} --trials {request.trials}: expected at least 1 job and no fewer than 0")
    params = request.load()
    space = choose_space(request.algorithm or params.train.retoucher.algorithm)
    rows = {row.key: row.value for row in describe(params)}
    fixed = _fixed_values(rows, space)
    # What params.yaml says anyway need not be said again.
    space = replace(space, chosen={key: value for key, value in space.chosen.items() if rows[key] != value})
    present = {dimension.key: rows[dimension.key] for dimension in space.dimensions}
    name = request.study or f"retoucher-{space.name}"
    if safe_file_name(name) != name or name.startswith("."):
        names = ", ".join([*SEARCH_SPACES, *_known_studies(request)])
        raise BadInput(f"--study {name!r}: cannot name a folder; expected letters and digits, such as one of: {names}")
    folders = SystemFolders("retoucher", request.project)
    return StudyPlan(
        name=name,
        folder=request.studies / name,
        scratch=request.project / folders.scratch("tune") / name,
        space=space.around(present),
        objective=request.objective,
        present=present,
        about={**fixed, **_data_hashes(folders)},
        code=_code_fingerprint(),
        seed=params.seed,
        seconds_per_trial=request.seconds_per_trial,
    )


def _known_studies(request: TuneRequest) -> list[str]:
    from vernissage.retoucher.learn.tuning import studies_in

    return studies_in(request.studies)


def _fixed_values(rows: Mapping[str, Any], space: SearchSpace) -> dict[str, Any]:
    searched = {dimension.key for dimension in space.dimensions} | {*space.chosen, *space.meanwhile}
    return {
        key: value
        for key, value in rows.items()
        if key.startswith(_READ_BY_TRAINING) and key not in searched | _WITHOUT_INFLUENCE
    }


def _data_hashes(folders: SystemFolders) -> dict[str, str]:
    pairs, juror = folders.ready / "pairs.csv", folders.root / "models" / "juror"
    missing = [path for path in (pairs, juror / "juror.json") if not path.is_file()]
    if missing:
        listed = " and ".join(str(path) for path in missing)
        raise MissingArtifact(
            f"{listed}: not there, and tuning trains on it; make it with `dvc repro degrade-split` (which makes the "
            "juror, too), or fetch it with `dvc pull data/retoucher/ready models/juror`"
        )
    # The descriptions of the juror's networks hold the hashes of their weights.
    inputs = (pairs, *sorted(juror.glob("*.json")))
    return {path.relative_to(folders.root).as_posix(): sha256_file(path)[:_HASH_DIGITS] for path in inputs}


def _code_fingerprint() -> str:
    from pathlib import Path

    import vernissage.retoucher as wing
    from vernissage.core.tables import fingerprint

    rooms = [Path(place) / room for place in wing.__path__ for room in ("domain", "learn")]
    return fingerprint([sha256_file(file) for room in rooms for file in sorted(room.glob("*.py"))])


def _run(request: TuneRequest, plan: StudyPlan, study: optuna.Study, interruption: Interruption) -> None:
    from vernissage.retoucher.learn.tuning import requeue_killed, standing

    before = standing(study)
    if before.finished < request.trials:
        _say(f"study {plan.name}: {before.finished} of {request.trials} trials finished; {plan.folder}")
    if request.jobs == 1 or request.trials - before.finished <= 1:
        _tuner(request, plan, study, interruption).run(request.trials)
        return
    # Processes, not threads: a training seeds the generators of its whole process. They are begun afresh, because a
    # fork in the middle of torch's and SQLite's threads ends badly.
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_work, args=(request,), daemon=True) for _ in range(request.jobs)]
    for worker in workers:
        worker.start()
    told = False
    while any(worker.is_alive() for worker in workers):
        multiprocessing.connection.wait([worker.sentinel for worker in workers if worker.is_alive()], _POLL_SECONDS)
        if interruption.asked and not told:
            # A terminal tells them, too; whoever sends a signal to this process alone does not.
            told = True
            for worker in workers:
                if worker.pid is not None and worker.is_alive():
                    os.kill(worker.pid, signal.SIGINT)
    interruption.raise_if_asked()
    failed = [str(worker.exitcode) for worker in workers if worker.exitcode]
    if failed and standing(study).finished < request.trials:
        requeue_killed(study)
        raise VernissageError(f"worker processes ended with {', '.join(failed)}; go on with: {request.command()}")


def _work(request: TuneRequest) -> None:
    """Run trials beside other processes, for as long as the one that began this lives."""
    from vernissage.retoucher.learn.tuning import Interruption, attached_study

    os.environ[CONCURRENT_STAGES_VARIABLE] = str(request.jobs)
    parent = multiprocessing.parent_process()
    plan = study_plan(request)
    interruption = Interruption()
    try:
        with interruption.held_back(), attached_study(plan) as study:
            _tuner(request, plan, study, interruption).run(request.trials, lambda: parent is None or parent.is_alive())
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED_EXIT_CODE)
    except VernissageError as error:
        _say(f"vernissage: {error}")
        sys.exit(error.exit_code)


def _tuner(request: TuneRequest, plan: StudyPlan, study: optuna.Study, interruption: Interruption) -> Tuner:
    from vernissage.core.devices import configure_torch
    from vernissage.retoucher.learn.jurors import load_juror
    from vernissage.retoucher.learn.training import RetoucherTrainer
    from vernissage.retoucher.learn.training_data import TrainingData
    from vernissage.retoucher.learn.tuning import Tuner
    from vernissage.retoucher.system import training_settings

    configure_torch()
    folders = SystemFolders("retoucher", request.project)
    data, juror = TrainingData(folders.ready), load_juror(request.project / "models" / "juror")

    def train_one(
        params: Params, checkpoint: Path, on_look: Callable[[str, int, dict[str, float]], None]
    ) -> Mapping[str, float]:
        settings = training_settings(params)
        trainer = RetoucherTrainer(data.thumbnails(params), juror, settings, checkpoint, on_look=on_look)
        validation: dict[str, float] = trainer.train().summary["validation"]
        return validation

    return Tuner(
        study,
        plan,
        load=request.load,
        settings_of=training_settings,
        train_one=train_one,
        say=_say,
        interruption=interruption,
    )


def _conclude(request: TuneRequest, plan: StudyPlan, study: optuna.Study) -> None:
    from vernissage.retoucher.learn.tuning import best_overrides, standing
    from vernissage.retoucher.learn.tuning_page import best_line, write_results

    now = standing(study)
    written = write_results(study, plan)
    again = f", {now.interrupted} interrupted and tried again" if now.interrupted else ""
    _say(
        f"\n{now.finished} trials: {now.complete} trained to the end, {now.pruned} given up, {now.failed} broke down"
        f"{again}\n{written[-1]}"
    )
    if now.best is None:
        _say("no trial has trained to the end yet, so there are no best values; allow more --trials or more time")
        return
    beside = "" if now.present is None else f" (the present values: {now.present.value:.4f})"
    _say(f"best {plan.objective}: {now.best.value:.4f}, trial {now.best.number}{beside}")
    if now.present is not None and now.best.number == now.present.number:
        _say("nothing that was tried is better than the present values")
    if request.profile or request.overrides:
        under = [f"--profile {request.profile}"] * bool(request.profile) + [f"-S {text}" for text in request.overrides]
        _say(f"found under {' '.join(under)}, which the line below does not repeat")
    _say(f"\n{best_line(best_overrides(plan, now.best))}")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
