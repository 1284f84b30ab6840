"""Where the tuning of the retoucher looks: one typed space per algorithm, checked against the registry of parameters.

What defines the measure itself stays out: a training with another `harm_aversion` or `view` is judged by another
objective, and its figure cannot be compared with the others.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from vernissage.core.errors import BadParams
from vernissage.core.params import Params
from vernissage.core.typed_yaml import (
    fields_of,
    format_override,
    parse_override,
    range_words,
    suggestion,
    type_words,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import optuna
    from pydantic.fields import FieldInfo

_PREFIX = "train.retoucher."
_DIGITS = 3

#: Parameters that change what the objective means; they are the same for all trials of a study.
MEASURE_KEYS = frozenset(
    {"seed", "resize.long_edge", *(f"{_PREFIX}{name}" for name in ("harm_aversion", "view", "shown_episodes"))}
)


@dataclass(frozen=True)
class Span:
    """Numbers from `low` to `high`.

    Attributes:
        key: Dotted key in params.yaml.
        low: Least value.
        high: Greatest value.
        log: Whether a factor counts alike everywhere, as with learning rates.
        step: Distance of neighbouring values; none for any number. Whole bounds and a whole step make whole numbers.
    """

    key: str
    low: float
    high: float
    log: bool = False
    step: float | None = None

    @property
    def whole(self) -> bool:
        """Whether the values are whole numbers."""
        return all(isinstance(value, int) for value in (self.low, self.high, self.step))

    def suggest(self, trial: optuna.Trial) -> Any:
        """Let a trial choose; numbers have three digits, so that what is printed is what was tried."""
        if self.whole:
            step = 1 if self.log or self.step is None else int(self.step)
            return trial.suggest_int(self.key, int(self.low), int(self.high), log=self.log, step=step)
        return self.settle(trial.suggest_float(self.key, self.low, self.high, log=self.log, step=self.step))

    def settle(self, value: float) -> float:
        """Round to what is tried and printed, within the bounds."""
        rounded = round(value, 9) if self.step is not None else float(f"{value:.{_DIGITS}g}")
        return min(max(rounded, self.low), self.high)

    def value(self, stored: Any) -> Any:
        """What a stored choice of a trial means."""
        return int(stored) if self.whole else self.settle(stored)

    def stored(self, value: Any) -> Any:
        """How a value is stored in a trial; None where a trial cannot choose it."""
        if not isinstance(value, int | float) or not self.low <= value <= self.high:
            return None
        if self.step is not None and not self.log:
            steps = (value - self.low) / self.step
            return value if abs(steps - round(steps)) < 1e-6 else None
        return value if self.value(value) == value else None

    def around(self, value: Any) -> Span:
        """This span, wide enough for a value that lies outside."""
        if not isinstance(value, int | float) or (self.log and value <= 0) or self.low <= value <= self.high:
            return self
        return replace(self, low=min(self.low, value), high=max(self.high, value))

    def bounds(self) -> Iterator[Any]:
        """The values that the parameter must accept for all others to be accepted."""
        yield from (self.low, self.high)


@dataclass(frozen=True)
class Choice:
    """One of several values.

    Attributes:
        key: Dotted key in params.yaml.
        choices: The values; tuples for lists.
    """

    key: str
    choices: tuple[Any, ...]

    def suggest(self, trial: optuna.Trial) -> Any:
        """Let a trial choose."""
        return self.value(trial.suggest_categorical(self.key, [json.dumps(choice) for choice in self.choices]))

    def value(self, stored: Any) -> Any:
        """What a stored choice of a trial means; studies store it as JSON, because they know no lists."""
        return json.loads(stored)

    def stored(self, value: Any) -> Any:
        """How a value is stored in a trial; None where it is none of the choices."""
        texts = [json.dumps(choice) for choice in self.choices]
        return json.dumps(value) if json.dumps(value) in texts else None

    def around(self, value: Any) -> Choice:
        """This choice with one more value, if it is new."""
        if self.stored(value) is not None:
            return self
        choices = (*self.choices, value)
        ordered = all(isinstance(choice, int | float) for choice in choices)
        return replace(self, choices=tuple(sorted(choices)) if ordered else choices)

    def bounds(self) -> Iterator[Any]:
        """The values that the parameter must accept."""
        yield from (list(choice) if isinstance(choice, tuple) else choice for choice in self.choices)


Dimension = Span | Choice


@dataclass(frozen=True)
class SearchSpace:
    """What is tuned together.

    Attributes:
        name: As `--algorithm` names it.
        meaning: One line for the help.
        dimensions: What is searched.
        chosen: Parameters that belong to the result: the algorithm itself.
        meanwhile: Parameters that are fixed while tuning and not part of the result.
    """

    name: str
    meaning: str
    dimensions: tuple[Dimension, ...]
    chosen: Mapping[str, Any] = field(default_factory=dict)
    meanwhile: Mapping[str, Any] = field(default_factory=dict)

    def suggest(self, trial: optuna.Trial) -> dict[str, Any]:
        """Let a trial choose all values; returns them by key."""
        return {dimension.key: dimension.suggest(trial) for dimension in self.dimensions}

    def values(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        """What the stored choices of a trial mean, by key, in the order of the space."""
        return {one.key: one.value(stored[one.key]) for one in self.dimensions if one.key in stored}

    def stored(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The given values as a trial stores them, without those that lie outside the space."""
        kept = {one.key: one.stored(values[one.key]) for one in self.dimensions if one.key in values}
        return {key: value for key, value in kept.items() if value is not None}

    def around(self, values: Mapping[str, Any]) -> SearchSpace:
        """This space, widened so that the given values lie in it: what is tuned can then be compared with them."""
        return replace(self, dimensions=tuple(one.around(values[one.key]) for one in self.dimensions))

    def describe(self) -> list[str]:
        """One line per dimension, for people and to see whether two studies searched the same."""
        return [repr(dimension) for dimension in self.dimensions]


def _knob(name: str) -> str:
    return _PREFIX + name


# The plan is most of the result. Its learning rate is lr x lr_scale x planner_lr_scale, so the second scale reaches far
# enough to undo what the first does for reward.
PLANNER: tuple[Dimension, ...] = (
    Span(_knob("planner_lr_scale"), 2.0, 20.0, log=True),
    Choice(_knob("planner_batch"), (32, 64, 128)),
    Choice(_knob("widths"), ((16, 32, 64, 96), (24, 48, 96, 128))),
    Span(_knob("scene_variation"), 0.0, 0.6, step=0.05),
    Choice(_knob("imagined_scenes"), (0, 120, 240, 480)),
    Span(_knob("stored_share"), 0.0, 0.8, step=0.1),
    Span(_knob("full_range_share"), 0.0, 1.0, step=0.1),
    Span(_knob("crop_share"), 0.0, 0.9, step=0.1),
)
# What both algorithms take.
_REWARD: tuple[Dimension, ...] = (
    Span(_knob("lr_scale"), 0.2, 5.0, log=True),
    Span(_knob("plan_lr_scale"), 0.0, 1.0, step=0.25),
    Choice(_knob("rollout"), (8, 16, 32)),
    Span(_knob("ppo_epochs"), 1, 6, step=1),
    Choice(_knob("batch"), (64, 128, 256, 512)),
    Span(_knob("gamma"), 0.9, 1.0, step=0.01),
    Span(_knob("step_cost"), 0.001, 0.03, log=True),
)
PPO: tuple[Dimension, ...] = (
    Span(_knob("gae_lambda"), 0.8, 1.0, step=0.01),
    Span(_knob("clip"), 0.05, 0.4, log=True),
    Span(_knob("entropy"), 1e-5, 0.02, log=True),
)
DQN: tuple[Dimension, ...] = (
    Choice(_knob("dqn_buffer"), (4096, 8192, 16384)),
    Span(_knob("dqn_target_every"), 256, 8192, log=True, step=1),
    Choice(_knob("dqn_exploration"), ((0.05, 0.01), (0.1, 0.02), (0.2, 0.05), (0.4, 0.05))),
)

SEARCH_SPACES: dict[str, SearchSpace] = {
    space.name: space
    for space in (
        SearchSpace("ppo", "planner and PPO together", (*PLANNER, *_REWARD, *PPO), chosen={_knob("algorithm"): "ppo"}),
        SearchSpace("dqn", "planner and DQN together", (*PLANNER, *_REWARD, *DQN), chosen={_knob("algorithm"): "dqn"}),
        SearchSpace(
            "planner", "the planner alone, without learning by reward", PLANNER, meanwhile={_knob("ppo_steps"): 0}
        ),
    )
}


def choose_space(name: str) -> SearchSpace:
    """Return the space of that name, checked.

    Raises:
        BadParams: There is none (the message lists those that there are), or it does not fit the registry.
    """
    if name not in SEARCH_SPACES:
        known = ", ".join(f"{space.name} ({space.meaning})" for space in SEARCH_SPACES.values())
        near = suggestion(name, list(SEARCH_SPACES))
        raise BadParams(f"algorithm {name!r}: there is no search space, expected one of {known}{near}")
    check_space(SEARCH_SPACES[name])
    return SEARCH_SPACES[name]


def check_space(space: SearchSpace) -> None:
    """Check a space against the typed registry.

    Raises:
        BadParams: A key is unknown, appears twice or defines the objective; a bound or choice is none that the
            parameter accepts; bounds or steps make no sense. One line per problem.
    """
    fields = dict(fields_of(Params))
    problems: list[str] = []
    seen: set[str] = set()
    for dimension in space.dimensions:
        key = dimension.key
        problems += [f"{key}: appears twice"] if key in seen else []
        seen.add(key)
        problems += [f"{key}: {text}" for text in _problems(dimension, fields)]
    for key, value in {**space.chosen, **space.meanwhile}.items():
        problems += [f"{key}: is searched and fixed at once"] if key in seen else []
        problems += [f"{key}: {text}" for text in _value_problems(key, [value], fields)]
    if problems:
        raise BadParams("\n".join(f"search space {space.name}: {problem}" for problem in problems))


def _problems(dimension: Dimension, fields: Mapping[str, FieldInfo]) -> Iterator[str]:
    if dimension.key in MEASURE_KEYS:
        yield "changes what the objective means, so trials could not be compared"
    if isinstance(dimension, Choice):
        if len(set(map(json.dumps, dimension.choices))) < max(2, len(dimension.choices)):
            yield f"choices {dimension.choices}: expected two or more, all different"
    else:
        if not dimension.low < dimension.high:
            yield f"low = {dimension.low} and high = {dimension.high}: expected the smaller number first"
        if dimension.log and (dimension.low <= 0 or (dimension.step is not None and not dimension.whole)):
            yield f"log with low = {dimension.low} and step = {dimension.step}: expected low above 0 and no step"
        if dimension.step is not None and dimension.step <= 0:
            yield f"step = {dimension.step}: expected a number above 0"
    yield from _value_problems(dimension.key, list(dimension.bounds()), fields)
    info = fields.get(dimension.key)
    if isinstance(dimension, Span) and info is not None and info.annotation is int and not dimension.whole:
        yield "is a whole number: low, high and step must be whole, too"


def _value_problems(key: str, values: Sequence[Any], fields: Mapping[str, FieldInfo]) -> Iterator[str]:
    info = fields.get(key)
    if info is None:
        yield f"is no parameter{suggestion(key, list(fields))}"
        return
    accepted: Any = Annotated[info.annotation, info]
    adapter: TypeAdapter[Any] = TypeAdapter(accepted, config=ConfigDict(strict=True, allow_inf_nan=False))
    for value in values:
        try:
            adapter.validate_python(value)
        except ValidationError:
            yield f"{value!r}: expected {type_words(info.annotation)} {range_words(info)}".rstrip()


def override_text(key: str, value: Any) -> str:
    """Return `key=value` for `dvc exp run -S`, numbers as YAML 1.1 and 1.2 both read them: 0.00005, never 5e-05."""
    if isinstance(value, float):
        digits = format(Decimal(repr(value)), "f")
        return f"{key}={digits if '.' in digits else digits + '.0'}"
    if isinstance(value, str) and parse_override(f"{key}={value}") == (key, value):
        return f"{key}={value}"  # a word that no reader takes for something else needs no quotes
    return format_override(key, value)


def overrides_of(values: Mapping[str, Any]) -> list[str]:
    """Return values by key as `key=value` texts."""
    return [override_text(key, value) for key, value in values.items()]
