"""The embedded model as a pipeline of `diffusers`: the network, its programs and its controller in one folder.

::

    pipe = SteeredPipeline.from_model(SamplerModel.load("models/denoiser", "models/sampler"))
    pipe.save_pretrained("digits")
    pipe = SteeredPipeline.from_pretrained("digits")
    pipe(labels=[3] * 8, price=0.02, generator=[torch.Generator().manual_seed(n) for n in range(8)]).images

All weights are safetensors, all else is JSON. `diffusers` finds out how to read a part back by the names in the module
that it comes from: `ModelMixin` and `SchedulerMixin` must be imported there by these names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.utils.outputs import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image

from vernissage.core.errors import BadInput, BadParams, CorruptArtifact
from vernissage.sampler.domain.denoiser import ClassLabels, Condition, guided
from vernissage.sampler.domain.unet import EdmDenoiser, UNetSpec, samples_to_levels
from vernissage.sampler.learn.book import Entry, ProgramBook, evaluations_of
from vernissage.sampler.learn.consistency import Student
from vernissage.sampler.learn.controller import SteeringController  # noqa: TC001 - diffusers reads the annotations
from vernissage.sampler.use.model import SamplerModel
from vernissage.sampler.use.sample import Request, steered_sample
from vernissage.sampler.use.steered_scheduler import SteeredScheduler

if TYPE_CHECKING:
    from typing import Self

#: What pictures can come out as.
OUTPUT_TYPES = ("pil", "np", "pt")

# Timesteps of a network that knows none: enough for every level of a program to have one of its own.
_TIMESTEPS = 200


class EdmNetwork(ModelMixin, ConfigMixin):  # type: ignore[misc]  # both name the same configuration file
    """The embedded denoiser as a model of `diffusers`: the same weights, called in the same way.

    Args:
        spec: Fields of a :class:`~vernissage.sampler.domain.unet.UNetSpec`.

    Attributes:
        denoiser: The network.

    Raises:
        BadParams: If they are not what a network can be built of.
    """

    @register_to_config
    def __init__(self, spec: Mapping[str, Any]) -> None:
        super().__init__()
        self.denoiser = self._build(_spec(spec))

    @classmethod
    def of(cls, denoiser: EdmDenoiser) -> Self:
        """Take over a network; its weights are not copied."""
        with torch.random.fork_rng(devices=[]):  # first weights are drawn, and thrown away
            network = cls(**cls._config_of(denoiser))
        network.denoiser = denoiser
        return network.eval()

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Self:
        """Read what `save_pretrained` wrote."""
        network: Self = super().from_pretrained(*args, **kwargs)
        # Weights may be parts of the file now, at any address and in plain order. They are copied to lie as all others
        # do, so that results keep their last bits.
        with torch.no_grad():
            for tensor in (*network.parameters(), *network.buffers()):
                tensor.data = tensor.data.clone()
        network.denoiser.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return network

    def forward(self, x: torch.Tensor, sigma: torch.Tensor, condition: Condition | None = None) -> torch.Tensor:
        """Estimate the pictures behind the noise; see :class:`~vernissage.sampler.domain.unet.EdmDenoiser`."""
        answer: torch.Tensor = self.denoiser(x, sigma, condition)
        return answer

    @staticmethod
    def _build(spec: UNetSpec) -> EdmDenoiser:
        return EdmDenoiser(spec)

    @staticmethod
    def _config_of(denoiser: EdmDenoiser) -> dict[str, Any]:
        return {"spec": _plain_spec(denoiser.spec)}


class StudentNetwork(EdmNetwork):
    """The network of one evaluation as a model of `diffusers`.

    Args:
        spec: Fields of a :class:`~vernissage.sampler.domain.unet.UNetSpec`.
        middle: Noise level of its second evaluation.

    Attributes:
        denoiser: The student.

    Raises:
        BadParams: If they are not what a network can be built of.
    """

    @register_to_config
    def __init__(self, spec: Mapping[str, Any], middle: float | None = None) -> None:
        super().__init__(spec)
        cast("Student", self.denoiser).middle = Student(self.denoiser.spec, middle).middle

    @staticmethod
    def _build(spec: UNetSpec) -> Student:
        return Student(spec)

    @staticmethod
    def _config_of(denoiser: EdmDenoiser) -> dict[str, Any]:
        return {"spec": _plain_spec(denoiser.spec), "middle": cast("Student", denoiser).middle}


@dataclass
class SteeredPipelineOutput(BaseOutput):
    """What a pipeline draws.

    Attributes:
        images: N pictures: of PIL, (N, H, W, C) numpy or (N, C, H, W) torch, the latter two in [0, 1].
        nfe: Network evaluations that each took.
        failed: Number of the network call that was not finite, for each; -1 where all was well.
    """

    images: list[Image.Image] | Any
    nfe: list[int]
    failed: list[int]


class SteeredPipeline(DiffusionPipeline):
    """Draws pictures of classes, steered by a price, or in a number of steps by the scheduler's program.

    Args:
        unet: The network.
        scheduler: Programs for one guidance scale, for those who ask for a number of steps.
        controller: Who steers; none where the book's programs do.
        student: The network of one evaluation; none where there is none.
        book: Programs by price and guidance scale, as :func:`book_document` gives them.
        facts: More to be kept with it, such as the names of the classes.

    Raises:
        BadInput: If student and network are for different samples.
        CorruptArtifact: If it is not a book.
    """

    _optional_components = ["controller", "student"]  # noqa: RUF012 - the base class has a list

    def __init__(
        self,
        unet: EdmNetwork,
        scheduler: SteeredScheduler,
        controller: SteeringController | None = None,
        student: StudentNetwork | None = None,
        book: dict[str, Any] | None = None,
        facts: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler, controller=controller, student=student)
        self.register_to_config(book=book, facts=facts)
        if book is not None:
            _ = self.model  # what is wrong with the parts should be said now

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Self:
        """Read what `save_pretrained` wrote; weights as safetensors only, unless other ones are asked for."""
        pipeline: Self = super().from_pretrained(*args, **{"use_safetensors": True, **kwargs})
        return pipeline

    @classmethod
    def from_model(cls, model: SamplerModel) -> Self:
        """Make one of a sampler; networks are not copied.

        Raises:
            BadInput: If its denoiser is another one than the embedded one.
        """
        denoiser = model.denoiser
        if not isinstance(denoiser, EdmDenoiser):
            raise BadInput(
                f"pipeline: a denoiser of type {type(denoiser).__name__}, expected the embedded one; a pipeline of "
                "diffusers is steered in its own class, by a SteeredScheduler"
            )
        return cls(
            EdmNetwork.of(denoiser),
            scheduler_of(model.book, denoiser.sigma_min, denoiser.sigma_max),
            model.controller,
            None if model.student is None else StudentNetwork.of(model.student),
            book_document(model.book),
            {"names": list(model.names)},
        )

    @property
    def model(self) -> SamplerModel:
        """Its parts, as :func:`~vernissage.sampler.use.sample.steered_sample` takes them.

        Raises:
            BadInput: If there is no book.
        """
        if self.config["book"] is None:
            raise BadInput("pipeline: it has no book of programs; make it with `SteeredPipeline.from_model`")
        return SamplerModel(
            self.unet.denoiser,
            book_of(self.config["book"]),
            self.controller,
            None if self.student is None else self.student.denoiser,
            names=tuple((self.config["facts"] or {}).get("names", ())),
        )

    @torch.no_grad()
    def __call__(
        self,
        labels: Sequence[int],
        price: float | Sequence[float] = 0.0,
        guidance_scale: float | Sequence[float] = 1.0,
        budget: int | Sequence[int | None] | None = None,
        num_inference_steps: int | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        noise: torch.Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> SteeredPipelineOutput | tuple[Any, list[int], list[int]]:
        """Draw pictures.

        Args:
            labels: N classes.
            price: What one network evaluation costs, in units of the saturating error; for all, or for each.
            guidance_scale: Scale of classifier-free guidance; 1 for none; for all, or for each.
            budget: Most network evaluations; for all, or for each.
            num_inference_steps: Run the scheduler's program of so many network calls instead, which knows neither
                price nor budget.
            generator: One for all, or one for each, so that a picture does not depend on the others.
            noise: (N, C, H, W) with variance 1, in place of the generators.
            output_type: `pil`, `np` or `pt`.
            return_dict: Whether to return an object instead of a tuple.

        Raises:
            BadInput: If an argument does not fit.
        """
        model, count = self.model, len(labels)
        if output_type not in OUTPUT_TYPES:
            raise BadInput(f"output_type = {output_type!r}, expected one of {', '.join(OUTPUT_TYPES)}")
        if isinstance(generator, list) and len(generator) != count:
            raise BadInput(f"{len(generator)} generators for {count} labels, expected one for each, or one for all")
        if noise is None:
            noise = randn_tensor((count, *model.denoiser.shape), generator=generator, device=model.device)
        prices, scales = _each("price", price, count), _each("guidance_scale", guidance_scale, count)
        budgets = _each("budget", budget, count)
        if num_inference_steps is None:
            told = zip(labels, scales, prices, budgets, strict=True)
            requests = [Request(int(label), 0, float(scale), float(paid), most) for label, scale, paid, most in told]
            drawn = steered_sample(model, requests, noise=noise.to(model.device), traced=False)
            samples, nfe, failed = drawn.sample, drawn.nfe.tolist(), drawn.failed.tolist()
        else:
            if budget is not None or price != 0:
                raise BadInput("num_inference_steps beside a price or a budget; expected either of them")
            noise = noise.to(model.device)
            samples, nfe, failed = self._by_scheduler(model, labels, scales, noise, num_inference_steps)
        images = _as_output(model.pictures(samples), output_type)
        if not return_dict:
            return images, nfe, failed
        return SteeredPipelineOutput(images=images, nfe=nfe, failed=failed)

    def _by_scheduler(
        self, model: SamplerModel, labels: Sequence[int], scales: Sequence[float], noise: torch.Tensor, steps: int
    ) -> tuple[torch.Tensor, list[int], list[int]]:
        """Run the scheduler's program for a number of network calls, with the scale at every one of them."""
        condition = ClassLabels(torch.tensor(list(labels), device=noise.device))
        condition.check(model.classes)
        if not all(math.isfinite(scale) for scale in scales):
            raise BadInput(f"guidance_scale = {list(scales)}, expected finite numbers")
        scheduler = self.scheduler
        try:
            scheduler.set_timesteps(steps, device=noise.device)
        except ValueError as error:
            raise BadInput(f"num_inference_steps = {steps}: {error}") from error
        weights = torch.tensor([float(scale) for scale in scales], device=noise.device)
        failed = torch.full((len(noise),), -1, device=noise.device)
        state = noise.float() * scheduler.init_noise_sigma
        for call, moment in enumerate(self.progress_bar(scheduler.timesteps)):
            level = float(scheduler.sigmas[call])
            # Schedulers keep the variance at 1, this network wants the picture plus the noise.
            whole = state * math.sqrt(1 + level**2)
            answer = guided(model.denoiser, whole, whole.new_full((len(whole),), level), condition, weights)
            broken = ~answer.isfinite().flatten(1).all(dim=1) & (failed < 0)
            failed[broken] = call
            state = scheduler.step(answer, moment, state).prev_sample
        nfe = [steps * evaluations_of(scale) for scale in weights.tolist()]
        return state, nfe, failed.tolist()


def scheduler_of(book: ProgramBook, sigma_min: float, sigma_max: float, scale: float = 1.0) -> SteeredScheduler:
    """Make a scheduler of a book's programs for one guidance scale, for a network that knows sigma only.

    Args:
        book: The programs.
        sigma_min: Least noise level of the network.
        sigma_max: Its highest one.
        scale: Guidance scale.

    Returns:
        Its timesteps are places between the two levels, evenly spaced in their logarithm.
    """
    levels = torch.logspace(math.log10(sigma_min), math.log10(sigma_max), _TIMESTEPS, dtype=torch.float64)
    kept = 1 / (1 + levels**2)
    betas = 1 - kept / torch.cat((torch.ones(1, dtype=torch.float64), kept[:-1]))
    programs = {str(entry.calls): entry.program.to_dict() for entry in book.of_scale(scale)}
    return SteeredScheduler(trained_betas=betas.tolist(), prediction_type="sample", programs=programs)


def book_document(book: ProgramBook) -> dict[str, Any]:
    """The programs of a book that are used, as plain values for JSON."""
    entries = [entry.to_dict() for entry in book.family(book.shipped)]
    return {"tau": book.tau, "shipped": book.shipped, "entries": entries}


def book_of(document: Mapping[str, Any]) -> ProgramBook:
    """Read what :func:`book_document` gave.

    Raises:
        CorruptArtifact: If it is something else.
    """
    try:
        entries = tuple(Entry.from_dict(entry) for entry in document["entries"])
        return ProgramBook(entries, float(document["tau"]), str(document["shipped"]))
    except (KeyError, TypeError, ValueError, AttributeError, BadInput, CorruptArtifact) as error:
        raise CorruptArtifact(
            f"pipeline: its book of programs cannot be read ({error!r}); save it again from a trained sampler"
        ) from error


def _spec(fields: Mapping[str, Any]) -> UNetSpec:
    try:
        return UNetSpec(**{**fields, "multipliers": tuple(fields["multipliers"])})
    except (KeyError, TypeError) as error:
        raise BadParams(f"network: spec {dict(fields)}, expected the fields of UNetSpec ({error})") from error


def _plain_spec(spec: UNetSpec) -> dict[str, Any]:
    return {**asdict(spec), "multipliers": list(spec.multipliers)}


def _each(name: str, value: Any, count: int) -> list[Any]:
    """One value for each sample."""
    if not isinstance(value, Sequence | torch.Tensor):
        return [value] * count
    listed = value.tolist() if isinstance(value, torch.Tensor) else list(value)
    if len(listed) != count:
        raise BadInput(f"{name}: {len(listed)} values for {count} labels, expected one for each, or one for all")
    return listed


def _as_output(samples: torch.Tensor, output_type: str) -> Any:
    if output_type == "pil":
        levels = samples_to_levels(samples.nan_to_num()).permute(0, 2, 3, 1).cpu().numpy()
        return [Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture) for picture in levels]
    shares = samples.clamp(-1, 1) / 2 + 0.5
    return shares if output_type == "pt" else shares.permute(0, 2, 3, 1).cpu().float().numpy()
