"""The sampler's sections of params.yaml; `vernissage.core.params` says how sections are written."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from vernissage.core.typed_yaml import LIST_AS_TUPLE, Real, Section, knob

Scales = Annotated[
    tuple[Annotated[Real, Field(ge=-100, le=100)], ...], Field(min_length=1, max_length=32), LIST_AS_TUPLE
]
Channels = Annotated[
    tuple[Annotated[int, Field(ge=1, le=4096)], ...], Field(min_length=1, max_length=12), LIST_AS_TUPLE
]
Budgets = Annotated[tuple[Annotated[int, Field(ge=2, le=256)], ...], Field(min_length=1, max_length=32), LIST_AS_TUPLE]
Prices = Annotated[tuple[Annotated[Real, Field(gt=0, le=1)], Annotated[Real, Field(gt=0, le=1)]], LIST_AS_TUPLE]


class Denoiser(Section):
    """The embedded diffusion model: small pictures by class, without a download."""

    source: str = knob(
        "`digits`, the handwritten ones inside scikit-learn, or a folder or zip by class in data/pictures.",
        stages="denoiser",
    )
    side: int = knob(
        "Side that the pictures are brought to; twice the side costs about four times the time.",
        stages="denoiser",
        unit="px",
        ge=4,
        le=256,
    )
    channels: Literal[1, 3] = knob("1 for grey pictures, 3 for colour.", stages="denoiser")
    steps: int = knob(
        "Updates of the weights; more help for as long as the validation loss falls.",
        stages="denoiser",
        unit="updates",
        ge=1,
        le=100_000_000,
    )
    batch: int = knob(
        "Pictures per update; larger is steadier and needs more memory.",
        stages="denoiser",
        unit="pictures",
        ge=1,
        le=65_536,
    )
    lr_scale: Real = knob(
        "The denoiser's learning rate as a multiple of `lr`; lower it when its loss jumps about.",
        stages="denoiser",
        unit="x lr",
        gt=0,
        le=10_000,
    )
    ema_width: Real = knob(
        "Width of the running mean of the weights; wider is smoother and remembers earlier, worse ones for longer.",
        stages="denoiser",
        unit="share of the updates",
        gt=0,
        lt=0.28,
    )
    class_dropout: Real = knob(
        "Share of pictures that are taught without their class; guidance needs some.",
        stages="denoiser",
        unit="share of pictures",
        ge=0,
        le=1,
    )
    mirrored: bool = knob(
        "Whether pictures are taught left to right as well: right for photos, wrong for writing.", stages="denoiser"
    )
    looks: int = knob(
        "Times that the running mean is validated; the best one is kept.",
        stages="denoiser",
        unit="looks",
        ge=1,
        le=10_000,
    )
    width: int = knob(
        "Channels of the first level, a multiple of 8; wider draws better and is slower.",
        stages="denoiser",
        unit="channels",
        ge=8,
        le=4096,
    )
    multipliers: Channels = knob(
        "Channels of each level as multiples of `width`; each has half the side of the one before.",
        stages="denoiser",
        unit="x width",
    )
    blocks: int = knob(
        "Residual blocks of each level, down and up; more draw better and are slower.",
        stages="denoiser",
        unit="blocks",
        ge=1,
        le=16,
    )
    attention_side: int = knob(
        "Levels of at most this side attend to themselves; 0 for none.", stages="denoiser", unit="px", ge=0, le=256
    )
    dropout: Real = knob(
        "Share of hidden values left out while learning; helps where pictures are few.",
        stages="denoiser",
        unit="share of values",
        ge=0,
        lt=1,
    )


class TeacherBank(Section):
    """Fixed requests and what the denoiser makes of them in many steps: what fewer steps are measured by."""

    train: int = knob(
        "Requests that programs and policies learn from; more overfit less and take longer to answer.",
        stages="teacher-bank",
        unit="requests",
        ge=1,
        le=100_000_000,
    )
    val: int = knob(
        "Requests that choose between programs, and between checkpoints.",
        stages="teacher-bank",
        unit="requests",
        ge=1,
        le=100_000_000,
    )
    test: int = knob(
        "Requests that only the benchmark looks at; more narrow its intervals.",
        stages="teacher-bank",
        unit="requests",
        ge=1,
        le=100_000_000,
    )
    guidance: Scales = knob(
        "Guidance scales that are asked for, equally often; 1 obeys the class as it is and costs half.",
        stages="teacher-bank",
    )
    class_ratio: Real = knob(
        "How many times as often the first class is asked for as the last one; 1 asks for all alike.",
        stages="teacher-bank",
        unit="x",
        gt=0,
        le=1_000,
    )
    calls: int = knob(
        "Network calls of the teacher; the log warns where they are too few.",
        stages="teacher-bank",
        unit="calls",
        ge=4,
        le=10_000,
    )
    checked: int = knob(
        "Requests that Heun's method answers as well, with four times as many calls, to check the teacher.",
        stages="teacher-bank",
        unit="requests",
        ge=1,
        le=1_000_000,
    )
    batch: int = knob(
        "Requests that go through the network at once; larger needs more memory.",
        stages="teacher-bank",
        unit="requests",
        ge=1,
        le=65_536,
    )


class Sampler(Section):
    """Which network is steered, and how it is run."""

    model: str = knob(
        "`embedded`, the denoiser that the pipeline teaches, or a diffusers pipeline: a hub name or a local folder.",
        stages=("denoiser", "teacher-bank", "train", "benchmark", "robustness"),
    )
    prompts: str = knob(
        "Text file in data/pictures, one prompt a line, for a pipeline that takes prompts; empty for others.",
        stages="denoiser",
    )
    negative_prompt: str = knob("What guidance steers away from; empty is usual.", stages="denoiser")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = knob(
        "Type that a pipeline computes in, the state between its calls excepted; `auto` is bfloat16 on CUDA.",
        stages=("teacher-bank", "train", "benchmark", "robustness"),
    )
    attention_slicing: bool = knob(
        "Whether a pipeline's attention is computed in slices: less memory, a little slower.",
        stages=("teacher-bank", "train", "benchmark", "robustness"),
    )
    batch: int = knob(
        "Samples that go through the network at once; larger needs more memory.",
        stages=("train", "benchmark", "robustness"),
        unit="samples",
        ge=1,
        le=65_536,
    )


class SamplerValidate(Section):
    """Where the gate in front of the sampler's training draws its lines."""

    max_left_out: Real = knob(
        "Largest share of requests without a finite endpoint.",
        stages="validate@sampler",
        unit="share of requests",
        ge=0,
        le=1,
    )
    max_outside: Real = knob(
        "Largest share of the endpoints' values outside [-1.2, 1.2]; more says that the network is not trained.",
        stages="validate@sampler",
        unit="share of values",
        ge=0,
        le=1,
    )
    max_teacher_error: Real = knob(
        "Largest median distance of the teacher to Heun's method with four times as many calls.",
        stages="validate@sampler",
        unit="standard deviations of the pictures",
        gt=0,
        le=1_000,
    )


class SamplerTrain(Section):
    """What the sampler learns: programs, a controller, a student for one or two evaluations."""

    budgets: Budgets = knob(
        "Numbers of network calls that programs are made for; more of them give a finer dial and take longer.",
        stages="train@sampler",
    )
    grid_pairs: int = knob(
        "Requests that the best programs of the grid are tuned on.",
        stages="train@sampler",
        unit="requests",
        ge=1,
        le=1_000_000,
    )
    grid_kinds: int = knob(
        "Solvers with a schedule whose noise levels are tuned after the first races, and who meet all these requests.",
        stages="train@sampler",
        unit="kinds",
        ge=1,
        le=1_000,
    )
    sigma_steps: int = knob(
        "Updates that fit the noise levels of a program.", stages="train@sampler", unit="updates", ge=1, le=1_000_000
    )
    coefficient_steps: int = knob(
        "Updates that fit all coefficients of a program; more help until the validation error stops falling.",
        stages="train@sampler",
        unit="updates",
        ge=1,
        le=1_000_000,
    )
    guidance_steps: int = knob(
        "Updates that fit them to each guidance scale by itself; 0 leaves that out.",
        stages="train@sampler",
        unit="updates",
        ge=0,
        le=1_000_000,
    )
    less_guidance_steps: int = knob(
        "Updates that fit them to each scale with the guidance of some calls left out where that pays.",
        stages="train@sampler",
        unit="updates",
        ge=1,
        le=1_000_000,
    )
    fit_batch: int = knob("Requests per update of a fit.", stages="train@sampler", unit="requests", ge=1, le=65_536)
    recompute: bool = knob(
        "Whether fits ask the network twice instead of keeping all it computed: for networks that fill the memory.",
        stages="train@sampler",
    )
    student_steps: int = knob(
        "Updates of the consistency student (SpeedDemon); 0 leaves it out, as it is for pipelines.",
        stages="train@sampler",
        unit="updates",
        ge=0,
        le=100_000_000,
    )
    student_batch: int = knob("Samples per update of it.", stages="train@sampler", unit="samples", ge=1, le=65_536)
    student_lr_scale: Real = knob(
        "The student's learning rate as a multiple of `lr`.", stages="train@sampler", unit="x lr", gt=0, le=10_000
    )
    decisions: int = knob(
        "Decisions that the controller learns from (PPO); each is a row in a batched network call; 0 leaves it out.",
        stages="train@sampler",
        unit="decisions",
        ge=0,
        le=10**12,
    )
    slots: int = knob(
        "Samples under way side by side while it learns.", stages="train@sampler", unit="samples", ge=2, le=65_536
    )
    rollout: int = knob(
        "Decisions of each slot between two updates.", stages="train@sampler", unit="decisions", ge=2, le=65_536
    )
    ppo_epochs: int = knob("Times that an update sees its decisions.", stages="train@sampler", ge=1, le=1_000)
    ppo_batch: int = knob("Decisions per gradient.", stages="train@sampler", unit="decisions", ge=2, le=10**9)
    policy_lr_scale: Real = knob(
        "The controller's learning rate as a multiple of `lr`.", stages="train@sampler", unit="x lr", gt=0, le=10_000
    )
    entropy: Real = knob(
        "Weight of the entropy: more tries more and decides later.", stages="train@sampler", ge=0, le=10
    )
    prices: Prices = knob(
        "Least and highest price of one network evaluation, where quality is from 0 to 1; drawn for each request.",
        stages="train@sampler",
    )
    discriminator: Real = knob(
        "Weight of the discriminator's term in the reward; small, or it is what gets optimised.",
        stages="train@sampler",
        ge=0,
        le=10,
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if len(set(self.budgets)) != len(self.budgets):
            raise ValueError(f"budgets = {list(self.budgets)}: expected different numbers")
        if self.prices[0] > self.prices[1]:
            raise ValueError(f"prices = {list(self.prices)}: expected the smaller number first")
        if self.ppo_batch > self.slots * self.rollout:
            raise ValueError(
                f"ppo_batch = {self.ppo_batch} is above slots x rollout = {self.slots * self.rollout}: expected at "
                "most that; change one of them"
            )
        return self


class SamplerBenchmark(Section):
    """How the sampler is compared with solvers as they are used."""

    noise_seeds: int = knob(
        "Equal parts that the test part is cut into, by noise; their spread is what FD is uncertain by.",
        stages="benchmark@sampler",
        unit="parts",
        ge=1,
        le=1_000,
    )
    bootstrap: int = knob(
        "Resamplings behind each interval.", stages="benchmark@sampler", unit="resamplings", ge=100, le=1_000_000
    )
    classifier_epochs: int = knob(
        "Times that the two classifiers which judge see each picture.",
        stages="benchmark@sampler",
        unit="epochs",
        ge=1,
        le=100_000,
    )
    mixture_requests: int = knob(
        "Requests for the evidence about the experts (knock-outs, routers).",
        stages="benchmark@sampler",
        unit="requests",
        ge=20,
        le=10_000_000,
    )
    ancestral: int = knob(
        "Samples by a thousand ancestral steps, for context; 0 leaves them out.",
        stages="benchmark@sampler",
        unit="samples",
        ge=0,
        le=1_000_000,
    )


class SamplerRobustness(Section):
    """How the sampler is put to the test with awkward input."""

    requests: int = knob(
        "Requests that each case is tried on.", stages="robustness@sampler", unit="requests", ge=24, le=1_000_000
    )
