"""Programs of the sampler inside any pipeline of `diffusers`; this file needs nothing else of this project, so copy it.

::

    programs = json.loads(Path("programs.json").read_text())
    pipe.scheduler = SteeredScheduler.from_config(pipe.scheduler.config, programs=programs)
    pipe(prompt, num_inference_steps=8)

A program is what a solver does, as numbers: noise levels, and for each network call the coefficients of the predictions
of the picture so far, ``x' = (sigma' / sigma) x + sum_j c_j D_j`` for ``x = picture + sigma * noise``. Pipelines keep
``x / sqrt(1 + told^2)``, whose variance stays about 1, where `told` is the noise level that the network is told, sigma
itself unless the program says otherwise: the network reads the state as it is, which is also what pipelines expect that
never scale their input, such as `DDPMPipeline`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler
from diffusers.configuration_utils import ConfigMixin
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers, SchedulerMixin
from diffusers.utils.outputs import BaseOutput

log = logging.getLogger(__name__)

PREDICTIONS = ("epsilon", "v_prediction", "sample")

_PROGRAM_FORMAT = 1
#: Spacing of the built-in levels (Karras et al. 2022, equation 5).
_RHO = 7.0
#: Least share of picture in the last timestep: with none at all sigma is infinite (the value of diffusers' Euler).
_LEAST_ALPHA = 2.0**-24
#: Timesteps this close to whole ones are whole.
_WHOLE = 1e-3
#: By how much a program may leave the noise levels of the training before the log says so.
_OUTSIDE = 1.02


@dataclass
class SteeredSchedulerOutput(BaseOutput):
    """What a step makes.

    Attributes:
        prev_sample: (N, ...), the state after it.
        pred_original_sample: (N, ...), the picture that the network sees behind the noise.
    """

    prev_sample: torch.Tensor
    pred_original_sample: torch.Tensor | None = None


class SteeredScheduler(SchedulerMixin, ConfigMixin):  # type: ignore[misc]  # both name the same configuration file
    """Run a program for the number of steps that a pipeline asks for.

    A step is a network call, so that `num_inference_steps` is what is paid for: Heun's method over 5 noise levels is
    registered for 9. Where there is no program for a number of steps, or where timesteps or sigmas are given, it runs
    DPM-Solver++ 2M (Lu et al. 2022, algorithm 2), without them on the levels of Karras et al.

    A pipeline that starts in the middle, as image to image does, has no predictions from before; the earliest one that
    it has stands in for them, which makes multistep rules begin with a first order step.

    Args:
        num_train_timesteps: Timesteps of the network's training.
        beta_start: Noise rate of the first one.
        beta_end: Noise rate of the last one.
        beta_schedule: How the noise rate grows, by its name in `diffusers`.
        trained_betas: The noise rates themselves, in place of the three above.
        rescale_betas_zero_snr: Whether the last timestep was trained without any picture in it (Lin et al. 2023).
        prediction_type: What the network answers with: `epsilon`, `v_prediction` or `sample`.
        programs: What `Program.to_dict` gives: one, several, or several by their number of network calls.
        round_timesteps: Whether the network is told the nearest whole timestep of a noise level, as networks with a
            learned table of timesteps need it, in place of one in between.

    Attributes:
        timesteps: (E,) what the network is told at each call; whole numbers are int64, others float32.
        sigmas: (E + 1,) float32 noise level of each call, and 0.
        num_inference_steps: E, none before `set_timesteps`.

    Raises:
        ValueError: If it is no schedule of betas, no known type of prediction or no program.
    """

    _compatibles = [entry.name for entry in KarrasDiffusionSchedulers]  # noqa: RUF012 - the base class has a list
    order = 1

    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 0.0001,
        beta_end: float = 0.02,
        beta_schedule: str = "linear",
        trained_betas: Sequence[float] | None = None,
        rescale_betas_zero_snr: bool = False,
        prediction_type: str = "epsilon",
        programs: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        round_timesteps: bool = False,
    ) -> None:
        if prediction_type not in PREDICTIONS:
            raise ValueError(f"prediction_type = {prediction_type!r}, expected one of {', '.join(PREDICTIONS)}")
        betas = None if trained_betas is None else np.asarray(trained_betas, dtype=np.float64)
        self._log_sigmas = _training_log_sigmas(
            num_train_timesteps=num_train_timesteps if betas is None else len(betas),
            beta_start=beta_start,
            beta_end=beta_end,
            beta_schedule=beta_schedule,
            trained_betas=betas,
            rescale_betas_zero_snr=rescale_betas_zero_snr,
        )
        documents = [_plain(number, document) for number, document in _documents(programs)]
        # As they will be read back, whichever way they were given.
        register: Any = self.register_to_config
        register(
            num_train_timesteps=len(self._log_sigmas),
            beta_start=beta_start,
            beta_end=beta_end,
            beta_schedule=beta_schedule,
            trained_betas=None if betas is None else betas.tolist(),
            rescale_betas_zero_snr=rescale_betas_zero_snr,
            prediction_type=prediction_type,
            programs=documents,
            round_timesteps=round_timesteps,
        )
        self._prediction_type, self._round = prediction_type, round_timesteps
        self._plans: dict[int, _Plan] = {}
        for document in documents:
            keys = ("name", "sigmas", "coefficients", "corrections", "told")
            plan = _Plan.of(*(document[key] for key in keys))
            if len(plan.rows) in self._plans:
                raise ValueError(
                    f"programs: two have {len(plan.rows)} network calls, expected one; leave one of them out"
                )
            self._plans[len(plan.rows)] = plan
        self.num_inference_steps: int | None = None
        self.timesteps = torch.arange(len(self._log_sigmas) - 1, -1, -1)
        self.sigmas = torch.tensor([*np.exp(self._log_sigmas[::-1]), 0.0], dtype=torch.float32)
        self._plan: _Plan | None = None
        self._past: list[torch.Tensor] = []
        self._step_index: int | None = None
        self._begin_index: int | None = None

    @classmethod
    def from_config(
        cls,
        config: Any = None,
        return_unused_kwargs: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Make one of another scheduler's configuration, which says how the network was trained.

        Args:
            config: Its configuration.
            return_unused_kwargs: Whether to return what it has no use for as well.
            **kwargs: Arguments that differ, `programs` above all.

        Raises:
            ValueError: If the network was not trained with betas by numbered timesteps.
        """
        if isinstance(config, dict):
            # A default of the other class is as much a part of the training as what was written out.
            config = {key: value for key, value in config.items() if key != "_use_default_values"}
            known = {**config, **kwargs}
            strange = [key for key in ("use_flow_sigmas", "invert_sigmas") if known.get(key)]
            if known.get("timestep_type", "discrete") != "discrete":
                strange.append("timestep_type")
            if strange or all(known.get(key) is None for key in ("beta_schedule", "trained_betas")):
                raise ValueError(
                    f"{known.get('_class_name', 'scheduler')} has "
                    f"{f'{strange[0]} = {known[strange[0]]!r}' if strange else 'no beta_schedule'}; expected a network "
                    "that was trained with a schedule of betas by numbered timesteps, such as DDPM or Stable Diffusion"
                )
        return super().from_config(config, return_unused_kwargs, **kwargs)

    def __len__(self) -> int:
        """Timesteps of the training."""
        return len(self._log_sigmas)

    @property
    def init_noise_sigma(self) -> float:
        """Standard deviation of the first state, a little below 1: what noise alone has at the first level."""
        first = float(self.sigmas[0])
        first, told = (first, first) if self._plan is None else (self._plan.levels[0], self._plan.told[0])
        return first / math.sqrt(1 + told**2)

    @property
    def step_index(self) -> int | None:
        """Number of the next network call, none before the first."""
        return self._step_index

    @property
    def begin_index(self) -> int | None:
        """With which network call a pipeline begins; none where it is found by the timestep."""
        return self._begin_index

    @property
    def last_prediction(self) -> torch.Tensor | None:
        """(N, ...) at least float32, the picture behind the noise at the last step; none before the first."""
        return self._past[0] if self._past else None

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Say with which network call the pipeline begins."""
        self._begin_index = begin_index

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        timesteps: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
    ) -> None:
        """Choose the program and forget the last run.

        Args:
            num_inference_steps: Network calls.
            device: Where the timesteps should be.
            timesteps: Timesteps to be used with DPM-Solver++ 2M, strictly decreasing.
            sigmas: Noise levels to be used with it, strictly decreasing; a 0 at the end may be left out.

        Raises:
            ValueError: If not exactly one of them is given, or it is no schedule.
        """
        if sum(given is not None for given in (num_inference_steps, timesteps, sigmas)) != 1:
            raise ValueError("set_timesteps: expected exactly one of num_inference_steps, timesteps and sigmas")
        if num_inference_steps is not None:
            plan = self._plan_for(num_inference_steps)
        elif timesteps is not None:
            times = _numbers(timesteps, "timesteps")
            if not times or not len(self) - 1 >= times[0] or times[-1] < 0:
                raise ValueError(f"timesteps: got {times}, expected decreasing ones from {len(self) - 1} down to 0")
            levels = np.exp(np.interp(times, np.arange(len(self)), self._log_sigmas))
            plan = _second_order("timesteps", [*levels.tolist(), 0.0])
        else:
            levels_given = _numbers(sigmas, "sigmas")
            plan = _second_order("sigmas", levels_given if levels_given[-1:] == [0.0] else [*levels_given, 0.0])
        self._plan = plan
        self._past = []
        self._step_index = self._begin_index = None
        self.num_inference_steps = len(plan.rows)
        # On the CPU: the loop reads them one by one.
        self.sigmas = torch.tensor([*plan.levels, 0.0], dtype=torch.float32)
        self.timesteps = self._timesteps_of(plan.told).to(device)

    def scale_model_input(self, sample: torch.Tensor, timestep: Any = None) -> torch.Tensor:  # noqa: ARG002
        """Give the state to the network as it is."""
        return sample

    def step(
        self,
        model_output: torch.Tensor,
        timestep: float | torch.Tensor,
        sample: torch.Tensor,
        generator: Any = None,  # noqa: ARG002 - pipelines pass it
        return_dict: bool = True,
    ) -> SteeredSchedulerOutput | tuple[torch.Tensor, torch.Tensor]:
        """Take the network's answer and go to the next noise level, or correct the state at this one.

        Args:
            model_output: (N, C, ...) as the network gave it; with learned variances it has 2 C channels.
            timestep: One of `timesteps`; only the first of a run is looked at.
            sample: (N, C, ...) float, the state that the network saw.
            generator: Not needed: nothing is random here.
            return_dict: Whether to return an object instead of a tuple.

        Returns:
            State and prediction in the type of `sample`; they are computed in float32 at least.

        Raises:
            ValueError: Before `set_timesteps`, after the last step, or if shapes do not fit.
        """
        plan = self._plan
        if plan is None:
            raise ValueError("step: there are no timesteps yet; call set_timesteps first")
        if self._step_index is None:
            self._step_index = self.index_for_timestep(timestep) if self._begin_index is None else self._begin_index
        call = self._step_index
        if call >= len(plan.rows):
            raise ValueError(f"step: all {len(plan.rows)} steps are done; call set_timesteps before the next run")
        if model_output.ndim > 1 and model_output.shape[1] == 2 * sample.shape[1]:
            model_output = model_output[:, : sample.shape[1]]
        if model_output.shape != sample.shape:
            raise ValueError(
                f"step: model_output is {tuple(model_output.shape)}, expected {tuple(sample.shape)} as sample"
            )
        kind = torch.promote_types(sample.dtype, torch.float32)
        here, there = plan.levels[call], plan.targets[call]
        told, told_next = (*plan.told, 0.0)[call : call + 2]
        state = sample.to(kind)
        prediction = self._picture(model_output.to(kind), state, told)
        self._past = [prediction, *self._past][: plan.width]
        root_here, root_there = math.sqrt(1 + told**2), math.sqrt(1 + told_next**2)
        moved = state * (there / here * (root_here / root_there))
        for known, weight in zip(self._past, plan.weights(call, len(self._past)), strict=False):
            moved = moved.add(known, alpha=weight / root_there)
        self._step_index = call + 1
        answer = moved.to(sample.dtype), prediction.to(sample.dtype)
        return SteeredSchedulerOutput(*answer) if return_dict else answer

    def add_noise(self, original_samples: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """Make states of pictures.

        Args:
            original_samples: (N, ...) float.
            noise: (N, ...) normal with variance 1.
            timesteps: (N or 1,) of the present schedule, or any of the training.

        Returns:
            (N, ...) in the type of `original_samples`.
        """
        times = timesteps.detach().reshape(-1).double().cpu().numpy()
        levels = np.exp(np.interp(times, np.arange(len(self)), self._log_sigmas))
        pairs = np.stack([levels, levels])
        if self._plan is not None:
            own = zip(self._plan.levels, self._plan.told, strict=True)
            scheduled = dict(zip(self.timesteps.tolist(), own, strict=True))
            for place, time in enumerate(times.tolist()):
                pairs[:, place] = scheduled.get(time, pairs[:, place])
        kind = torch.promote_types(original_samples.dtype, torch.float32)
        sigma, told = torch.as_tensor(pairs, dtype=torch.float32).to(original_samples.device, kind)
        sigma, told = (level.view(-1, *[1] * (original_samples.ndim - 1)) for level in (sigma, told))
        noisy = (original_samples.to(kind) + sigma * noise.to(original_samples.device, kind)) / (1 + told**2).sqrt()
        return noisy.to(original_samples.dtype)

    def index_for_timestep(self, timestep: float | torch.Tensor) -> int:
        """Find the network call that steps onwards from a timestep.

        Args:
            timestep: One of the schedule.

        Raises:
            ValueError: If it is not there.
        """
        times = self.timesteps.tolist()
        wanted = float(timestep)
        if wanted not in times:
            raise ValueError(f"timestep {wanted:g} is not in the schedule, expected one of `timesteps`: {times}")
        place = times.index(wanted)
        # The calls before the last one at a noise level correct the state, for which a beginning has no predictions.
        while place + 1 < len(times) and self.sigmas[place + 1] == self.sigmas[place]:
            place += 1
        return place

    def _picture(self, answer: torch.Tensor, state: torch.Tensor, sigma: float) -> torch.Tensor:
        """The picture behind the noise, of the network's answer to a state."""
        root = math.sqrt(1 + sigma**2)
        if self._prediction_type == "epsilon":
            return state * root - answer * sigma
        if self._prediction_type == "v_prediction":
            return state / root - answer * (sigma / root)
        return answer

    def _plan_for(self, calls: int) -> _Plan:
        if calls in self._plans:
            plan = self._plans[calls]
            lowest, highest = float(np.exp(self._log_sigmas[0])), float(np.exp(self._log_sigmas[-1]))
            if plan.levels[0] > highest * _OUTSIDE or plan.levels[-1] < lowest / _OUTSIDE:
                log.warning(
                    "the program for %d steps goes from sigma %.4g to %.4g, the network knows %.4g to %.4g; is it a "
                    "program for this network?", calls, plan.levels[0], plan.levels[-1], highest, lowest,
                )  # fmt: skip
            return plan
        if calls < 1:
            raise ValueError(f"num_inference_steps = {calls}, expected at least 1")
        if self._plans:
            log.info("no program for %d steps, only for %s: DPM-Solver++ 2M", calls, sorted(self._plans))
        ends = np.exp(self._log_sigmas[[-1, 0]]) ** (1 / _RHO)
        levels = np.linspace(ends[0], ends[1], calls) ** _RHO
        return _second_order(f"{calls} steps", [*levels.tolist(), 0.0])

    def _timesteps_of(self, levels: Sequence[float]) -> torch.Tensor:
        """(E,) timesteps of noise levels, by the logarithm of sigma; int64 where all are whole."""
        times = np.interp(np.log(levels), self._log_sigmas, np.arange(len(self)))
        near = np.round(times)
        times = np.where(self._round | (np.abs(times - near) < _WHOLE), near, times)
        whole = bool((times == near).all())
        return torch.from_numpy(times).to(torch.int64 if whole else torch.float32)


@dataclass(frozen=True)
class _Plan:
    """A program, call by call.

    Attributes:
        levels: E noise levels of the state when the network is asked.
        told: E noise levels that the network is told.
        targets: E noise levels after that.
        rows: E rows of coefficients, of the present prediction, of the one before, and so on.
    """

    levels: tuple[float, ...]
    told: tuple[float, ...]
    targets: tuple[float, ...]
    rows: tuple[tuple[float, ...], ...]

    @classmethod
    def of(
        cls,
        name: str,
        sigmas: Sequence[float],
        rows: Sequence[Sequence[float]],
        corrections: Sequence[int],
        told: Sequence[float] = (),
    ) -> _Plan:
        """Check and lay out a program."""
        if len(sigmas) < 2 or sigmas[-1] != 0 or not math.isfinite(sigmas[0]):
            raise ValueError(f"{name}: sigmas {list(sigmas)}, expected finite ones that end with 0")
        for here, there in pairwise(sigmas):
            if not here > there:
                raise ValueError(f"{name}: sigma {there} comes after {here}, expected strictly decreasing ones")
        if len(rows) - len(corrections) != len(sigmas) - 1:
            raise ValueError(
                f"{name}: {len(rows)} rows of coefficients, {len(corrections)} of them corrections, for "
                f"{len(sigmas) - 1} noise levels; expected one row for each level and each correction"
            )
        for number, row in enumerate(rows):
            if not 1 <= len(row) <= number + 1 or not all(map(math.isfinite, row)):
                raise ValueError(f"{name}: row {number} is {list(row)}, expected 1 to {number + 1} finite numbers")
        if sorted(set(corrections)) != list(corrections) or not all(1 <= n < len(rows) - 1 for n in corrections):
            raise ValueError(
                f"{name}: corrections {list(corrections)}, expected increasing numbers from 1 to {len(rows) - 2}"
            )
        if told and (len(told) != len(rows) or min(told) <= 0):
            raise ValueError(f"{name}: told {list(told)}, expected a noise level above 0 for each of {len(rows)} calls")
        place, levels, targets = 0, [], []
        for number in range(len(rows)):
            levels.append(float(sigmas[place]))
            place += number not in corrections
            targets.append(float(sigmas[place]))
        return cls(tuple(levels), tuple(told or levels), tuple(targets), tuple(tuple(map(float, row)) for row in rows))

    @property
    def width(self) -> int:
        """How many predictions are needed, the present one included."""
        return max(map(len, self.rows))

    def weights(self, call: int, known: int) -> list[float]:
        """Coefficients of the `known` latest predictions; the earliest stands in for those that are missing."""
        row = self.rows[call]
        if len(row) <= known:
            return list(row)
        return [*row[: known - 1], math.fsum(row[known - 1 :])]


def _second_order(name: str, sigmas: Sequence[float]) -> _Plan:
    """DPM-Solver++ 2M for levels that end with 0; its last step has the first order."""
    ones = [[1.0]] * (len(sigmas) - 1)
    levels = _Plan.of(name, sigmas, ones, ()).levels
    rows = [[1 - there / here] for here, there in pairwise(sigmas)]
    for k in range(1, len(levels) - 1):
        gain = rows[k][0]
        share = math.log(levels[k] / levels[k + 1]) / math.log(levels[k - 1] / levels[k]) / 2
        rows[k] = [gain * (1 + share), -gain * share]
    return _Plan.of(name, sigmas, rows, ())


def _training_log_sigmas(**training: Any) -> np.ndarray:
    """(T,) float64 logarithms of sigma, increasing."""
    shown = {key: value for key, value in training.items() if value is not None and key != "trained_betas"}
    make: Any = DDPMScheduler
    try:
        alphas = make(**training).alphas_cumprod.double().numpy()
    except (NotImplementedError, ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"training schedule: {shown} is no schedule of betas ({error})") from error
    if len(alphas) > 1 and alphas[-1] <= 0:
        alphas[-1] = min(_LEAST_ALPHA, alphas[-2] / 2)
    with np.errstate(all="ignore"):
        log_sigmas: np.ndarray = np.log((1 - alphas) / alphas) / 2
        rising = np.isfinite(log_sigmas).all() and (np.diff(log_sigmas) > 0).all()
    if len(alphas) < 2 or not rising:
        raise ValueError(f"training schedule: the noise of {shown} does not grow; expected betas between 0 and 1")
    return log_sigmas


def _documents(programs: Any) -> list[tuple[int | None, Any]]:
    """Programs, each with the number of network calls that it is registered for, if any."""
    if programs is None:
        return []
    if hasattr(programs, "to_dict") or (isinstance(programs, Mapping) and "sigmas" in programs):
        return [(None, programs)]
    if isinstance(programs, Mapping):
        try:
            return [(int(number), document) for number, document in programs.items()]
        except ValueError:
            raise ValueError(f"programs: keys {list(programs)}, expected numbers of network calls") from None
    if isinstance(programs, Sequence) and not isinstance(programs, str):
        return [(None, document) for document in programs]
    raise ValueError(f"programs: got {type(programs).__name__}, expected what Program.to_dict gives, or a list of it")


def _plain(number: int | None, document: Any) -> dict[str, Any]:
    """A program as plain values for JSON."""
    document = document.to_dict() if hasattr(document, "to_dict") else document
    name = "program" if number is None else f"program for {number} steps"
    if not isinstance(document, Mapping):
        raise ValueError(f"{name}: got {type(document).__name__}, expected what Program.to_dict gives")  # noqa: TRY004
    missing = [key for key in ("sigmas", "coefficients") if key not in document]
    if missing or document.get("format", _PROGRAM_FORMAT) != _PROGRAM_FORMAT:
        found = f"no {missing[0]}" if missing else f"format {document['format']!r}"
        raise ValueError(f"{name}: {found}, expected what Program.to_dict gives in format {_PROGRAM_FORMAT}")
    name = str(document.get("name", name))
    rows = [_numbers(row, f"{name}: coefficients") for row in document["coefficients"]]
    if number is not None and len(rows) != number:
        raise ValueError(f"{name}: {len(rows)} network calls, registered for {number}; expected the same number")
    return {
        "format": _PROGRAM_FORMAT,
        "name": name,
        "sigmas": _numbers(document["sigmas"], f"{name}: sigmas"),
        "coefficients": rows,
        "corrections": [int(place) for place in document.get("corrections", ())],
        "told": _numbers(document.get("told", ()), f"{name}: told"),
    }


def _numbers(values: Any, what: str) -> list[float]:
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError):
        raise ValueError(f"{what}: got {values!r}, expected a list of numbers") from None
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"{what}: got {numbers}, expected finite numbers")
    return numbers
