"""What happens between the steps of a pipeline: guidance where it helps, an early end, a trace of every step."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from diffusers.callbacks import PipelineCallback

if TYPE_CHECKING:
    import torch

#: A guidance scale that pipelines take for guidance, and that changes nothing: for a first step without any.
FAINT = 1.000001
#: What holds a row for each prompt, and one for nothing: in pipelines of Stable Diffusion, and of its XL kind.
SD_INPUTS = ("prompt_embeds",)
SDXL_INPUTS = ("prompt_embeds", "add_text_embeds", "add_time_ids")

_ROUNDED = 1 + 1e-6


class SteeringCallback(PipelineCallback):
    """A `callback_on_step_end` for pipelines with a `SteeredScheduler`.

    ::

        callback = SteeringCallback(scales=7.5, interval=(0.28, 5.42), stop_below=0.02)
        pipe(prompt, guidance_scale=callback.first_scale(sigma=14.6), callback_on_step_end=callback)

    Guidance is worth its price in an interval of noise levels only (Kynkäänniemi et al. 2024); a step outside of it
    asks the network about half as many rows. Pipelines call back after each step, so that the first one has the scale
    that the pipeline was called with.

    Args:
        scales: Guidance scale of all steps, or of each; 1 for none. Not given, the pipeline's own stays.
        interval: Noise levels (low, high] with these scales; elsewhere there is no guidance.
        stop_after: Steps after which the prediction is the result.
        stop_below: End where no sample's prediction has moved by more than this, root mean square, since the noise
            level before.
        inputs: What the pipeline calls the rows of its prompts.

    Attributes:
        trace: One row for each step of the last run: `step`, `sigma`, `guidance` (its scale, 1 for none), `change`
            (largest root mean square change of a sample's prediction since the step before; of the prediction itself
            for the first step) and `milliseconds` since the last callback (none for the first step).
        stopped: Whether the last run ended early.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(
        self,
        scales: float | Sequence[float] | None = None,
        interval: tuple[float, float] | None = None,
        *,
        stop_after: int | None = None,
        stop_below: float | None = None,
        inputs: Sequence[str] = SD_INPUTS,
    ) -> None:
        listed = [] if scales is None else list(scales) if isinstance(scales, Sequence) else [scales]
        if not all(scale >= 1 for scale in listed) or (isinstance(scales, Sequence) and not listed):
            raise ValueError(f"scales = {scales}, expected guidance scales of 1 (none) and more")
        if interval is not None and not 0 <= interval[0] < interval[1]:
            raise ValueError(f"interval = {interval}, expected noise levels (low, high) with 0 <= low < high")
        if interval is not None and scales is None:
            raise ValueError(f"interval = {interval} without scales, expected the scale that guidance has inside of it")
        if stop_after is not None and stop_after < 1:
            raise ValueError(f"stop_after = {stop_after}, expected at least one step")
        if stop_below is not None and not stop_below > 0:
            raise ValueError(f"stop_below = {stop_below}, expected a change above 0")
        register: Any = self.register_to_config
        register(scales=scales, interval=interval, stop_after=stop_after, stop_below=stop_below, inputs=list(inputs))
        self._listed: list[float] = listed
        self._one_each = isinstance(scales, Sequence)
        self._interval, self._inputs = interval, tuple(inputs)
        self._stop_after, self._stop_below = stop_after, stop_below
        self.trace: list[dict[str, Any]] = []
        self.stopped = False
        self._before: torch.Tensor | None = None
        self._clock: float | None = None
        self._rows: dict[str, torch.Tensor] = {}

    @property
    def tensor_inputs(self) -> list[str]:
        """What the pipeline shows at each step."""
        return ["latents", *(self._inputs if self._listed else ())]

    def first_scale(self, sigma: float) -> float:
        """What to pass to the pipeline as `guidance_scale`, for its first step.

        Args:
            sigma: First noise level.

        Returns:
            Above 1 where any step may have guidance: a pipeline that begins without forgets what to guide away from.

        Raises:
            ValueError: If this callback was given no scales.
        """
        if not self._listed:
            raise ValueError("first_scale: no scales were given, so that the pipeline's own guidance_scale stays")
        return max(self._scale(0, sigma), FAINT) if max(self._listed) > 1 else 1.0

    def callback_fn(
        self, pipeline: Any, step_index: int, timesteps: Any, callback_kwargs: dict[str, Any]
    ) -> dict[str, Any]:
        """Write down the step that was, end the run, or set the scale of the next step.

        Args:
            pipeline: Whose step it was.
            step_index: Its number, from 0 on.
            timesteps: Its timestep.
            callback_kwargs: What `tensor_inputs` names; the pipeline goes on with what is returned.

        Raises:
            ValueError: If the pipeline's scheduler does not show its predictions, or scales do not fit its steps.
        """
        del timesteps
        scheduler = pipeline.scheduler
        prediction = getattr(scheduler, "last_prediction", None)
        if prediction is None:
            raise ValueError(f"{type(scheduler).__name__} shows no last_prediction, expected a SteeredScheduler")
        if step_index == 0:
            self._begin(pipeline, callback_kwargs)
        following = scheduler.step_index
        sigma, next_sigma = scheduler.sigmas[following - 1 : following + 1].tolist()
        change = _largest_change(prediction, self._before)
        now = time.perf_counter()
        lower = bool(self.trace) and sigma < self.trace[-1]["sigma"]
        self.trace.append({
            "step": step_index,
            "sigma": sigma,
            "guidance": float(pipeline.guidance_scale) if pipeline.do_classifier_free_guidance else 1.0,
            "change": change,
            "milliseconds": None if self._clock is None else (now - self._clock) * 1000,
        })  # fmt: skip
        self._before = prediction
        steady = lower and self._stop_below is not None and change <= self._stop_below
        if next_sigma > 0 and (steady or step_index + 1 == self._stop_after):
            callback_kwargs["latents"] = prediction.to(callback_kwargs["latents"].dtype)
            pipeline._interrupt = True  # noqa: SLF001 - the way that the manual of diffusers shows
            self.stopped = True
        elif next_sigma > 0 and self._rows:
            self._guide(pipeline, self._scale(step_index + 1, next_sigma), callback_kwargs)
        self._clock = time.perf_counter()
        return callback_kwargs

    def _scale(self, step: int, sigma: float) -> float:
        # Noise levels come in float32; one that rounding moved across an end is still the one that was meant.
        if self._interval is not None and not self._interval[0] * _ROUNDED < sigma <= self._interval[1] * _ROUNDED:
            return 1.0
        return float(self._listed[step if self._one_each else 0])

    def _begin(self, pipeline: Any, shown: dict[str, Any]) -> None:
        self.trace, self.stopped = [], False
        self._before, self._clock, self._rows = None, None, {}
        if not self._listed:
            return
        if not pipeline.do_classifier_free_guidance:
            if max(self._listed) <= 1:
                return
            raise ValueError(
                f"guidance_scale = {pipeline.guidance_scale}: a pipeline that begins without guidance cannot begin it "
                "later; call it with what `first_scale` gives"
            )
        if self._one_each and len(self._listed) != pipeline.num_timesteps:
            raise ValueError(f"{len(self._listed)} scales for {pipeline.num_timesteps} steps, expected as many")
        self._rows = {name: shown[name] for name in self._inputs}

    def _guide(self, pipeline: Any, scale: float, shown: dict[str, Any]) -> None:
        """Let the next step have a scale; without guidance only the prompts' own rows are left, the latter half."""
        pipeline._guidance_scale = scale  # noqa: SLF001 - as the callbacks of diffusers do
        for name, rows in self._rows.items():
            shown[name] = rows if scale > 1 else rows[len(rows) // 2 :]


def _largest_change(prediction: torch.Tensor, before: torch.Tensor | None) -> float:
    moved = prediction if before is None else prediction - before
    return float(moved.flatten(1).square().mean(dim=1).max().sqrt())
