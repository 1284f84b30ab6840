"""What a study found: four figures as PNG, one page without anything from elsewhere, and the best values to copy."""

from __future__ import annotations

import base64
import io
import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from optuna.trial import TrialState

from vernissage.core.files import atomic_write_bytes, atomic_write_json, atomic_write_text
from vernissage.retoucher.learn.search_spaces import Choice, overrides_of
from vernissage.retoucher.learn.tuning import (
    COMPLETE,
    GIVEN_UP,
    best_overrides,
    killed_trials,
    phase_marks,
    standing,
    trial_kind,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from optuna.trial import FrozenTrial

    from vernissage.retoucher.learn.search_spaces import Dimension
    from vernissage.retoucher.learn.tuning import StudyPlan

PAGE, BEST, LINE = "index.html", "best.json", "best.txt"
_INK, _FAINT, _ACCENT, _GOOD = "#1d1d1b", "#b9b4a9", "#c0601a", "#1f6b3a"
_DOTS_PER_INCH = 110
#: Fewer complete trials say nothing about which parameter matters.
_FEWEST_FOR_IMPORTANCE = 6
_SLICE_COLUMNS = 4


def write_results(study: optuna.Study, plan: StudyPlan) -> list[Path]:
    """Write figures, page and best values into the study's folder.

    Returns:
        What was written; no best values before a trial is complete.
    """
    figures = {
        "history": history_figure(study, plan),
        "curves": curves_figure(study, plan),
        "importances": importances_figure(study, plan),
        "slices": slices_figure(study, plan),
    }
    pictures = {name: _png(figure) for name, figure in figures.items() if figure is not None}
    written = []
    for name, picture in pictures.items():
        written.append(plan.folder / f"{name}.png")
        atomic_write_bytes(written[-1], picture)
    now = standing(study)
    if now.best is not None:
        values = best_overrides(plan, now.best)
        document = {
            "study": plan.name,
            "algorithm": plan.space.name,
            "objective": plan.objective,
            "value": now.best.value,
            "value_of_present": None if now.present is None else now.present.value,
            "trial": now.best.number,
            "values": values,
            "line": best_line(values),
        }
        atomic_write_json(plan.folder / BEST, document)
        atomic_write_text(plan.folder / LINE, best_line(values) + "\n")
        written += [plan.folder / BEST, plan.folder / LINE]
    atomic_write_text(plan.folder / PAGE, _page(study, plan, pictures))
    return [*written, plan.folder / PAGE]


def best_line(values: Mapping[str, Any]) -> str:
    """Return a line for a shell that trains with these values: `dvc exp run -S key=value -S key=value`."""
    return " ".join(["dvc exp run", *(f"-S {shlex.quote(text)}" for text in overrides_of(values))])


def history_figure(study: optuna.Study, plan: StudyPlan) -> Figure:
    """Draw what every trial reached, and the best so far."""
    figure, axes = _figure(7, 3.6)
    trials = study.get_trials(deepcopy=False)
    killed = killed_trials(study)
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    pruned = [trial for trial in trials if trial_kind(trial, killed) == GIVEN_UP and trial.value is not None]
    if pruned:
        axes.scatter(*_points(pruned), marker="x", s=28, color=_FAINT, label="given up, as it was then")
    if complete:
        axes.scatter(*_points(complete), s=28, color=_INK, label="trained to the end", zorder=3)
        better = max if plan.direction == "maximize" else min
        best: list[float] = []
        at: list[int] = []
        for trial in complete:
            at.append(trial.number)
            best.append(better([*best[-1:], _value(trial)]))
        axes.step(at, best, where="post", color=_ACCENT, label="best so far")
    present = standing(study).present
    if present is not None and present.value is not None:
        axes.axhline(present.value, color=_GOOD, linestyle="--", linewidth=1, label="the present values")
    axes.set_xlabel("trial")
    axes.set_ylabel(plan.objective)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if axes.has_data():
        axes.legend(fontsize=8, frameon=False)
    return figure


def curves_figure(study: optuna.Study, plan: StudyPlan) -> Figure:
    """Draw how every trial learned: validation at each look, all trainings stretched to one length.

    Lines are cut between phases: the plan is validated in one shot, everything after it step by step.
    """
    figure, axes = _figure(7, 3.8)
    trials = [trial for trial in study.get_trials(deepcopy=False) if trial.intermediate_values]
    seen = {mark for trial in trials for mark in trial.intermediate_values}
    # A phase that was left out has at most the look before it.
    phases = [phase for phase in phase_marks() if sum(phase[1] <= mark <= phase[2] for mark in seen) > 1]
    best, left = standing(study).best, 0
    middles = []
    for name, first, last in phases:
        shift = left - first
        for trial in trials:
            marks = [mark for mark in sorted(trial.intermediate_values) if first <= mark <= last]
            values = [trial.intermediate_values[mark] for mark in marks]
            is_best = best is not None and trial.number == best.number
            _curve(axes, [mark + shift for mark in marks], values, trial, is_best=is_best)
        if left:
            axes.axvline(left - 1, color=_FAINT, linewidth=0.8, linestyle=":")
        middles.append((left + (last - first) / 2, name))
        left += last - first + 2
    axes.set_xticks([at for at, _ in middles], [name for _, name in middles])
    axes.tick_params(axis="x", length=0)
    axes.set_xlabel("share of each phase")
    axes.set_ylabel(f"{plan.objective} in validation")
    handles = {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    if handles:
        axes.legend(handles.values(), handles.keys(), fontsize=8, frameon=False)
    return figure


def _curve(axes: Axes, marks: list[int], values: list[float], trial: FrozenTrial, *, is_best: bool) -> None:
    if is_best:
        axes.plot(marks, values, color=_ACCENT, linewidth=2, zorder=4, label=f"trial {trial.number}, the best")
    elif trial.state is TrialState.COMPLETE:
        axes.plot(marks, values, color=_INK, linewidth=0.8, alpha=0.6, zorder=3, label="trained to the end")
    elif trial.state is TrialState.PRUNED and marks:
        axes.plot(marks, values, color=_FAINT, linewidth=0.8, zorder=2, label="given up")
        if trial.intermediate_values[max(trial.intermediate_values)] == values[-1]:
            axes.plot(marks[-1:], values[-1:], "x", color=_FAINT, markersize=5, zorder=2)


def importances_figure(study: optuna.Study, plan: StudyPlan) -> Figure | None:
    """Draw how much of the spread between trials each parameter explains; none where trials are too few or alike."""
    shares = importances(study)
    if not shares:
        return None
    names = list(shares)[::-1]
    figure, axes = _figure(7, 0.8 + 0.27 * len(names))
    axes.barh(range(len(names)), [shares[name] for name in names], color=_INK)
    axes.set_yticks(range(len(names)), [_short(name) for name in names], fontsize=8)
    axes.set_xlabel(f"share of the spread in {plan.objective} (fANOVA)")
    return figure


def importances(study: optuna.Study) -> dict[str, float]:
    """Share of the spread between complete trials by parameter, largest first (Hutter et al. 2014, fANOVA)."""
    complete = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
    if len(complete) < _FEWEST_FOR_IMPORTANCE or len({trial.value for trial in complete}) < 2:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))


def slices_figure(study: optuna.Study, plan: StudyPlan) -> Figure:
    """Draw what was reached at which value of each parameter; the later the trial, the darker."""
    dimensions = plan.space.dimensions
    rows = math.ceil(len(dimensions) / _SLICE_COLUMNS)
    columns = min(_SLICE_COLUMNS, len(dimensions))
    figure = Figure(figsize=(2.6 * columns, 2.1 * rows), layout="constrained")
    complete = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
    best = standing(study).best
    for number, dimension in enumerate(dimensions):
        axes = figure.add_subplot(rows, columns, number + 1)
        _slice(axes, dimension, complete, best)
        if number % columns == 0:
            axes.set_ylabel(plan.objective, fontsize=8)
    return figure


def _slice(axes: Axes, dimension: Dimension, trials: Sequence[FrozenTrial], best: FrozenTrial | None) -> None:
    present = [trial for trial in trials if dimension.key in trial.params]
    if isinstance(dimension, Choice):
        texts = [str(dimension.stored(choice)) for choice in dimension.choices]
        places = [texts.index(trial.params[dimension.key]) for trial in present]
        axes.set_xticks(range(len(texts)), texts, fontsize=6 if len("".join(texts)) > 24 else 7)
        axes.set_xlim(-0.5, len(texts) - 0.5)
    else:
        places = [dimension.value(trial.params[dimension.key]) for trial in present]
        low, high = dimension.low, dimension.high
        if dimension.log:
            axes.set_xscale("log")
            reach, ticks = (high / low) ** 0.06, [low, math.sqrt(low * high), high]
            axes.set_xlim(low / reach, high * reach)
            axes.set_xticks(ticks, [f"{tick:.2g}" for tick in ticks])
            axes.set_xticks([], minor=True)
        else:
            axes.set_xlim(low - 0.06 * (high - low), high + 0.06 * (high - low))
    ages = [trial.number for trial in present]
    axes.scatter(places, [_value(trial) for trial in present], c=ages, cmap="Greys", s=18, vmin=-len(trials), zorder=2)
    if best is not None and best in present:
        axes.scatter(places[present.index(best)], _value(best), color=_ACCENT, s=30, zorder=3)
    axes.set_title(_short(dimension.key), fontsize=8)
    axes.tick_params(labelsize=7)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    # Without metadata the same study gives the same bytes.
    figure.savefig(buffer, format="png", dpi=_DOTS_PER_INCH, metadata={"Software": None})
    return buffer.getvalue()


def _points(trials: Sequence[FrozenTrial]) -> tuple[list[int], list[float]]:
    return [trial.number for trial in trials], [_value(trial) for trial in trials]


def _value(trial: FrozenTrial) -> float:
    # Those who ask have looked: a complete trial has one.
    return math.nan if trial.value is None else trial.value


def _short(key: str) -> str:
    return key.rpartition(".")[2]


def _page(study: optuna.Study, plan: StudyPlan, pictures: Mapping[str, bytes]) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    now, killed = standing(study), killed_trials(study)
    rows = [_row(trial, plan, killed) for trial in study.get_trials(deepcopy=False)]
    return environment.get_template("tuning.html").render(
        plan=plan,
        now=now,
        line="" if now.best is None else best_line(best_overrides(plan, now.best)),
        keys=[_short(dimension.key) for dimension in plan.space.dimensions],
        rows=rows,
        pictures={name: base64.b64encode(data).decode("ascii") for name, data in pictures.items()},
        fewest=_FEWEST_FOR_IMPORTANCE,
    )


def _row(trial: FrozenTrial, plan: StudyPlan, killed: set[int]) -> dict[str, Any]:
    values = plan.space.values(trial.params)
    kind = trial_kind(trial, killed)
    return {
        "number": trial.number,
        "kind": kind,
        "value": trial.value if kind in {COMPLETE, GIVEN_UP} else None,
        "seconds": trial.user_attrs.get("seconds"),
        "reason": trial.user_attrs.get("reason", ""),
        "values": [_cell(values.get(dimension.key)) for dimension in plan.space.dimensions],
    }


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)
