"""Tunes the retoucher's parameters: a study of short trainings that goes on where it stopped, whatever stopped it.

Optuna chooses (TPE) and gives up on trials that do worse than the median at the same share of their training. The study
lies in an SQLite file. Every choice depends on the seed, on how many choices were made before and on what was found, so
a study that was interrupted tries the same parameters as one that was not.

Sources: Bergstra et al. 2011 (TPE); Golovin et al. 2017, section 3.2 (median stopping); Optuna.
"""

from __future__ import annotations

import contextlib
import logging
import math
import shutil
import signal
import sqlite3
import threading
import time
import traceback
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import optuna
from filelock import FileLock, Timeout
from optuna.trial import TrialState

from vernissage.core.errors import BadInput, BadParams, CorruptArtifact, VernissageError
from vernissage.core.seeds import derive_seed
from vernissage.core.tables import fingerprint
from vernissage.retoucher.learn.search_spaces import overrides_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path
    from types import FrameType

    from optuna.trial import FrozenTrial

    from vernissage.core.params import Params
    from vernissage.retoucher.learn.search_spaces import SearchSpace
    from vernissage.retoucher.learn.training import RetoucherTraining

    OnLook = Callable[[str, int, dict[str, float]], None]

#: What can be tuned for, and whether more is better.
OBJECTIVES = {"objective": True, "gain": True, "worse": False}

DATABASE, LOGS = "study.db", "logs"
_LOCK, _ASK_LOCK = "study.lock", "ask.lock"
# Where the looks of each phase lie on the common scale of learning curves: as many marks as there usually are looks.
_PLAN_MARKS, _LESSON_MARKS, _REWARD_MARKS = 20, 4, 20
_WARM_UP_MARKS = 5
_REFUSALS_IN_A_ROW, _FAILURES_IN_A_ROW = 20, 3
# User attributes of trials.
_RETRY_OF, _PRESENT, _REASON, _KIND = "retry_of", "present", "reason", "kind"
# How a trial ended.
COMPLETE, GIVEN_UP, BROKE_DOWN, NOT_TRIED, INTERRUPTED = (
    "complete", "given up", "broke down", "not tried", "interrupted",
)  # fmt: skip
# What a training with unfortunate parameters may end with: infinities, empty distributions, too little memory.
_BREAKDOWNS = (ArithmeticError, ValueError, RuntimeError, MemoryError)


@dataclass(frozen=True)
class StudyPlan:
    """What is tuned and where it is kept.

    Attributes:
        name: Of the study.
        folder: Of this study alone.
        scratch: Folder for checkpoints, outside DVC.
        space: What is searched, with `present` in it.
        objective: A key of `OBJECTIVES`.
        present: Values of the searched parameters as params.yaml has them; the first trial.
        about: All that must be the same for trials to be comparable: parameters that are not searched, data.
        code: Fingerprint of the code; where it differs, checkpoints are not continued and a warning is given.
        seed: Root of all choices.
        seconds_per_trial: A trial that takes longer is given up at its next look; none lets all finish.
        startup: Trials with random choices before the search begins, and complete trials before any is pruned.
    """

    name: str
    folder: Path
    scratch: Path
    space: SearchSpace
    objective: str
    present: Mapping[str, Any]
    about: Mapping[str, Any]
    code: str
    seed: int
    seconds_per_trial: float | None = None
    startup: int = 6

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise BadInput(f"objective {self.objective!r}: there is none, expected one of {', '.join(OBJECTIVES)}")

    @property
    def direction(self) -> Literal["maximize", "minimize"]:
        """As Optuna calls it."""
        return "maximize" if OBJECTIVES[self.objective] else "minimize"


@dataclass(frozen=True)
class Standing:
    """How far a study is.

    Attributes:
        complete: Trials that trained to the end.
        pruned: Trials that were given up.
        failed: Trials that broke down.
        interrupted: Trials that were killed; each is tried again, so they do not count.
        best: The best complete trial; none before there is one.
        present: The trial of the present values; none before it is complete.
    """

    complete: int
    pruned: int
    failed: int
    interrupted: int
    best: FrozenTrial | None
    present: FrozenTrial | None

    @property
    def finished(self) -> int:
        """Trials that count towards the number that was asked for."""
        return self.complete + self.pruned + self.failed


class Marks:
    """Puts the looks of trainings of different length on one scale, so that learning curves can be compared.

    Args:
        settings: Of the training.
    """

    def __init__(self, settings: RetoucherTraining) -> None:
        lengths = (
            ("plan", settings.planner.updates, _PLAN_MARKS),
            ("oracle", settings.oracle.updates, _LESSON_MARKS),
            (settings.reinforcement.algorithm, settings.reinforcement.iterations, _REWARD_MARKS),
        )
        self._phases: dict[str, tuple[int, int, int]] = {}
        start = 0
        for name, total, marks in lengths:
            self._phases[name] = start, total, marks
            # One mark apart: the last look of a phase is not the first of the next.
            start += marks + 1

    def of(self, phase: str, update: int) -> int:
        """Return the mark of a look."""
        start, total, marks = self._phases[phase]
        return start + (round(marks * update / total) if total else 0)


def phase_marks() -> list[tuple[str, int, int]]:
    """Return name, first and last mark of the phases, as axes show them."""
    second = _PLAN_MARKS + 1
    third = second + _LESSON_MARKS + 1
    return [
        ("plan", 0, _PLAN_MARKS),
        ("lessons", second, second + _LESSON_MARKS),
        ("reward", third, third + _REWARD_MARKS),
    ]


def studies_in(folder: Path) -> list[str]:
    """Return the names of the studies in a folder."""
    return sorted(file.parent.name for file in folder.glob(f"*/{DATABASE}"))


@contextlib.contextmanager
def running_study(plan: StudyPlan) -> Iterator[optuna.Study]:
    """Open a study, or begin it, as the only process that runs it; what was killed is put back into the queue.

    Raises:
        BadInput: Another process runs it, the folder cannot be written, or the study was made with other data,
            parameters or another objective.
        CorruptArtifact: The file is no study.
    """
    try:
        plan.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(plan.folder / _LOCK)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise BadInput(
            f"study {plan.name}: another process is running it ({plan.folder / _LOCK}); wait, or name another --study"
        ) from error
    except OSError as error:
        raise BadInput(f"{plan.folder}: cannot be written ({error}); name another folder with --storage") from error
    try:
        with attached_study(plan) as study:
            requeue_killed(study)
            try:
                yield study
            finally:
                requeue_killed(study)
    finally:
        with contextlib.suppress(OSError):  # checkpoints of what was interrupted stay
            plan.scratch.rmdir()
        lock.release()


@contextlib.contextmanager
def attached_study(plan: StudyPlan) -> Iterator[optuna.Study]:
    """Open a study beside other processes that work on it."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    _require_sound(plan.folder / DATABASE)
    # Waits for its turn where several processes write; SQLite itself would give up after five seconds.
    storage = optuna.storages.RDBStorage(
        _database_url(plan.folder / DATABASE), engine_kwargs={"connect_args": {"timeout": 60}}
    )
    try:
        pruner = optuna.pruners.MedianPruner(n_startup_trials=plan.startup, n_warmup_steps=_WARM_UP_MARKS)
        study = optuna.create_study(
            storage=storage, study_name=plan.name, direction=plan.direction, pruner=pruner, load_if_exists=True
        )
        _require_comparable(study, plan)
        yield study
    finally:
        storage.remove_session()
        storage.engine.dispose()


def requeue_killed(study: optuna.Study) -> None:
    """Mark trials that still seem to run as failed and let their parameters be tried again.

    Only for whoever runs the study alone: then nothing can be running.
    """
    retried = {trial.user_attrs.get(_RETRY_OF) for trial in study.get_trials(deepcopy=False)}
    for trial in study.get_trials(states=[TrialState.RUNNING]):
        if trial.number not in retried:
            attributes = {name: value for name, value in trial.user_attrs.items() if name == _PRESENT}
            # First the new one, then the end of the old one: a crash between the two loses nothing.
            study.enqueue_trial(trial.params, user_attrs={**attributes, _RETRY_OF: trial.number})
        study.tell(trial.number, state=TrialState.FAIL)


def standing(study: optuna.Study) -> Standing:
    """Count the trials and find the best."""
    trials = study.get_trials(deepcopy=False)
    killed = _killed(trials)
    kinds = [trial_kind(trial, killed) for trial in trials]
    complete = [trial for trial, kind in zip(trials, kinds, strict=True) if kind == COMPLETE]
    present = [trial for trial in complete if trial.user_attrs.get(_PRESENT)]
    return Standing(
        complete=len(complete),
        pruned=kinds.count(GIVEN_UP),
        failed=kinds.count(BROKE_DOWN),
        interrupted=len(killed),
        best=study.best_trial if complete else None,
        present=present[0] if present else None,
    )


class Interruption:
    """Takes Ctrl-C at once while a training computes, and holds it back while the study's file is in use.

    A transaction that an exception cuts in two would keep the file locked against ourselves.
    """

    def __init__(self) -> None:
        self.asked = False
        self._open = False

    @contextlib.contextmanager
    def held_back(self) -> Iterator[None]:
        """Hold Ctrl-C back; outside the main thread, which signals never reach, this does nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGINT, self._handle)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    @contextlib.contextmanager
    def let_through(self) -> Iterator[None]:
        """Let Ctrl-C end what runs inside, at any moment.

        Raises:
            KeyboardInterrupt: Ctrl-C, here or since it was held back.
        """
        self.raise_if_asked()
        self._open = True
        try:
            yield
        finally:
            self._open = False

    @contextlib.contextmanager
    def shut(self) -> Iterator[None]:
        """Hold it back for a part of what it is let through for.

        Raises:
            KeyboardInterrupt: At the end, where it was asked for meanwhile.
        """
        before, self._open = self._open, False
        try:
            yield
        finally:
            self._open = before
        if before:
            self.raise_if_asked()

    def raise_if_asked(self) -> None:
        """Do what was held back.

        Raises:
            KeyboardInterrupt: Ctrl-C was typed.
        """
        if self.asked:
            raise KeyboardInterrupt

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        self.asked = True
        if self._open:
            raise KeyboardInterrupt


class Tuner:
    """Runs trials of a study, one after the other.

    Args:
        study: From `running_study` or `attached_study`.
        plan: What it was opened with.
        load: Gives typed parameters for overrides of params.yaml.
        settings_of: Translates parameters into the settings of a training.
        train_one: Trains with these parameters and this checkpoint folder, calls back after every look, and returns
            what validation found for the weights that are kept.
        say: Prints a line.
        interruption: Where Ctrl-C is held back; none lets it come at any time.
    """

    def __init__(
        self,
        study: optuna.Study,
        plan: StudyPlan,
        *,
        load: Callable[[Sequence[str]], Params],
        settings_of: Callable[[Params], RetoucherTraining],
        train_one: Callable[[Params, Path, OnLook], Mapping[str, float]],
        say: Callable[[str], None],
        interruption: Interruption | None = None,
    ) -> None:
        self.study, self.plan, self.say = study, plan, say
        self.interruption = interruption or Interruption()
        self.load, self.settings_of, self.train_one = load, settings_of, train_one
        self.go_on: Callable[[], bool] = lambda: True

    def run(self, target: int, go_on: Callable[[], bool] = lambda: True) -> None:
        """Run trials until so many are finished.

        Args:
            target: Finished trials of the study, those of earlier runs included.
            go_on: Asked before every trial and at every look.

        Raises:
            KeyboardInterrupt: Ctrl-C, or it must not go on in the middle of a trial.
            BadParams: The space gives nothing but parameters that are at odds with each other.
            VernissageError: Several trainings in a row broke down, or data are missing or damaged.
        """
        self.go_on = go_on
        refusals = failures = 0
        while go_on() and (trial := self._next(target)) is not None:
            self.interruption.raise_if_asked()
            kind = self._try(trial)
            refusals = refusals + 1 if kind == NOT_TRIED else 0
            failures = failures + 1 if kind == BROKE_DOWN else 0
            if refusals >= _REFUSALS_IN_A_ROW:
                reason = self.study.get_trials(deepcopy=False)[trial.number].user_attrs[_REASON]
                raise BadParams(f"{refusals} choices in a row fit no parameters; the last one: {reason}")
            if failures >= _FAILURES_IN_A_ROW:
                logs = self.plan.folder / LOGS
                raise VernissageError(f"{failures} trials in a row broke down; see the last files in {logs}")

    def _next(self, target: int) -> optuna.Trial | None:
        """Ask for a trial where one is still wanted; one process at a time, so that none is asked for twice."""
        with FileLock(self.plan.folder / _ASK_LOCK):
            trials = self.study.get_trials(deepcopy=False)
            if not trials:
                self._enqueue_present()
            killed = _killed(trials)
            made = [t for t in trials if t.state is not TrialState.WAITING and t.number not in killed]
            if sum(trial.user_attrs.get(_KIND) != NOT_TRIED for trial in made) >= target:
                return None
            # A sampler of its own for every choice: the next one does not depend on who made those before.
            seed = derive_seed(self.plan.seed, "tune", self.plan.name, len(made)) % 2**32
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                self.study.sampler = optuna.samplers.TPESampler(
                    seed=seed, n_startup_trials=self.plan.startup, multivariate=True, constant_liar=True
                )
            trial = self.study.ask()
            # Choosing belongs to asking: a trial without parameters could not be tried again after a crash.
            self.plan.space.suggest(trial)
            return trial

    def _enqueue_present(self) -> None:
        stored = self.plan.space.stored(self.plan.present)
        whole = self.plan.space.values(stored) == {key: _plain(value) for key, value in self.plan.present.items()}
        self.study.enqueue_trial(stored, user_attrs={_PRESENT: True} if whole else {})

    def _try(self, trial: optuna.Trial) -> str:
        space, started = self.plan.space, time.monotonic()
        values = space.values(trial.params)
        overrides = overrides_of({**values, **space.chosen, **space.meanwhile})
        try:
            params = self.load(overrides)
        except BadParams as error:
            return self._spoil(trial, NOT_TRIED, str(error))
        checkpoint = self.plan.scratch / fingerprint(self.plan.code, dict(self.plan.about), overrides)
        watch = _Watch(self, trial, self.settings_of(params), started)
        log = self.plan.folder / LOGS / f"{trial.number:04d}.log"
        log.parent.mkdir(exist_ok=True)
        with log.open("w", encoding="utf-8") as file:
            try:
                # The training talks much; what it says is kept for those who want to know.
                with contextlib.redirect_stdout(file), self.interruption.let_through():
                    numbers = dict(self.train_one(params, checkpoint, watch.look))
            except optuna.TrialPruned as error:
                shutil.rmtree(checkpoint, ignore_errors=True)
                return self._finish(trial, str(error), started)
            except _BREAKDOWNS as error:
                traceback.print_exception(error, file=file)
                shutil.rmtree(checkpoint, ignore_errors=True)
                return self._spoil(trial, BROKE_DOWN, f"{type(error).__name__}: {error}")
        for name, value in numbers.items():
            if math.isfinite(value):
                trial.set_user_attr(name, value)
        value = numbers[self.plan.objective]
        if not math.isfinite(value):
            return self._spoil(trial, BROKE_DOWN, f"{self.plan.objective} = {value}")
        return self._finish(trial, float(value), started)

    def _finish(self, trial: optuna.Trial, found: float | str, started: float) -> str:
        """Take the figure of a complete trial, or why it was given up."""
        seconds = time.monotonic() - started
        trial.set_user_attr("seconds", round(seconds, 2))
        if isinstance(found, float):
            self.study.tell(trial, found)
        else:
            self.study.tell(trial, state=TrialState.PRUNED)
        now, name = standing(self.study), self.plan.objective
        if isinstance(found, float):
            beaten = now.best is not None and now.best.number != trial.number
            best = f" (best {now.best.value:.4f}, trial {now.best.number})" if beaten and now.best else " (best so far)"
            text = f"{name} {found:.4f}{best}"
        else:
            text = f"given up, {found}"
        self.say(f"trial {trial.number}{_origin(trial)}: {text}, {seconds:.1f} s; {now.finished} finished")
        return COMPLETE if isinstance(found, float) else GIVEN_UP

    def _spoil(self, trial: optuna.Trial, kind: str, reason: str) -> str:
        trial.set_user_attr(_REASON, reason)
        trial.set_user_attr(_KIND, kind)
        # Failed ones the sampler would overlook, and then choose the same corner for ever.
        self.study.tell(trial, state=TrialState.PRUNED)
        self.say(f"trial {trial.number}{_origin(trial)}: {kind}, {reason}")
        return kind


class _Watch:
    """Reports the looks of one training and gives it up where it has no prospect."""

    def __init__(self, tuner: Tuner, trial: optuna.Trial, settings: RetoucherTraining, started: float) -> None:
        self.plan, self.trial, self.marks, self.started = tuner.plan, trial, Marks(settings), started
        self.go_on, self.interruption = tuner.go_on, tuner.interruption
        self.reported: set[int] = set()
        retry_of = trial.user_attrs.get(_RETRY_OF)
        if retry_of is not None:
            # A training goes on from its checkpoint and does not repeat its looks.
            for mark, value in tuner.study.get_trials(deepcopy=False)[retry_of].intermediate_values.items():
                self._report(value, mark)

    def look(self, phase: str, update: int, numbers: dict[str, float]) -> None:
        """Take what validation found.

        Raises:
            TrialPruned: The trial is worse than the median at this mark, or has had its time.
            ArithmeticError: It has come to infinity.
            KeyboardInterrupt: The study must not go on.
        """
        if not self.go_on():
            raise KeyboardInterrupt
        with self.interruption.shut():
            self._take(f"{phase} {update}", numbers[self.plan.objective], self.marks.of(phase, update))

    def _take(self, place: str, value: float, mark: int) -> None:
        if not math.isfinite(value):
            raise ArithmeticError(f"{place}: {self.plan.objective} = {value}")
        self._report(value, mark)
        found = f"{place}: {self.plan.objective} {value:.4f}"
        limit = self.plan.seconds_per_trial
        if limit is not None and time.monotonic() - self.started > limit:
            raise optuna.TrialPruned(f"longer than {limit:g} s, {found}")
        if self.trial.should_prune():
            raise optuna.TrialPruned(f"below the median, {found}")

    def _report(self, value: float, mark: int) -> None:
        if mark not in self.reported:
            self.reported.add(mark)
            self.trial.report(value, mark)


def best_overrides(plan: StudyPlan, trial: FrozenTrial) -> dict[str, Any]:
    """Return the parameters of a trial by key, those that choose the algorithm first."""
    return {**plan.space.chosen, **plan.space.values(trial.params)}


def trial_kind(trial: FrozenTrial, killed: set[int]) -> str:
    """Say in a word how a trial ended; `open` where it has not."""
    if trial.number in killed or trial.state is TrialState.FAIL:
        return INTERRUPTED
    ended = {TrialState.COMPLETE: COMPLETE, TrialState.PRUNED: GIVEN_UP}
    return str(trial.user_attrs.get(_KIND) or ended.get(trial.state, "open"))


def killed_trials(study: optuna.Study) -> set[int]:
    """Return the numbers of trials that were killed and put back into the queue."""
    return _killed(study.get_trials(deepcopy=False))


def _killed(trials: Sequence[FrozenTrial]) -> set[int]:
    return {trial.user_attrs[_RETRY_OF] for trial in trials if _RETRY_OF in trial.user_attrs}


def _origin(trial: optuna.Trial) -> str:
    if _RETRY_OF in trial.user_attrs:
        return f" (trial {trial.user_attrs[_RETRY_OF]} again)"
    return " (the present values)" if trial.user_attrs.get(_PRESENT) else ""


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _database_url(path: Path) -> str:
    if any(sign in str(path) for sign in "?{}"):
        raise BadInput(f"{path}: a study's folder cannot have ?, {{ or }} in its name; name another with --storage")
    return f"sqlite:///{path.absolute().as_posix()}"


def _require_sound(path: Path) -> None:
    if not path.exists():
        return
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=60)) as connection:
            found = connection.execute("PRAGMA quick_check").fetchone()[0]
    except sqlite3.DatabaseError as error:
        raise CorruptArtifact(f"{path}: no study ({error}); move it away to begin anew") from error
    if found != "ok":
        raise CorruptArtifact(f"{path}: a damaged study ({found}); move it away to begin anew")


def _require_comparable(study: optuna.Study, plan: StudyPlan) -> None:
    about = {
        "objective": plan.objective,
        "algorithm": plan.space.name,
        "space": plan.space.describe(),
        **{key: _plain(value) for key, value in plan.about.items()},
    }
    made_with = study.user_attrs.get("about")
    if made_with is None or not study.get_trials(deepcopy=False):
        study.set_user_attr("about", about)
        study.set_user_attr("code", plan.code)
        return
    differing = sorted(key for key in {**made_with, **about} if made_with.get(key) != about.get(key))
    if differing:
        listed = "; ".join(f"{key}: {made_with.get(key)} then, {about.get(key)} now" for key in differing[:4])
        raise BadInput(
            f"study {plan.name} was begun with something else, so its trials cannot be compared with new ones: {listed}"
            f"{' ...' if len(differing) > 4 else ''}; name another --study"
        )
    if study.user_attrs.get("code") != plan.code:
        logging.getLogger(__name__).warning(
            "study %s: the code has changed since it was begun; its trials may differ from new ones", plan.name
        )
