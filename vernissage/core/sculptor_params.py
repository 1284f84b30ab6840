"""The sculptor's sections of params.yaml; `vernissage.core.params` says how sections are written."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from vernissage.core.typed_yaml import LIST_AS_TUPLE, Real, Section, knob

Channels = Annotated[
    tuple[Annotated[int, Field(ge=8, le=4096, multiple_of=8)], ...], Field(min_length=1, max_length=5), LIST_AS_TUPLE
]
Levels = Annotated[tuple[Annotated[int, Field(ge=0, le=4)], ...], Field(max_length=5), LIST_AS_TUPLE]
Steps = Annotated[tuple[Annotated[int, Field(ge=1, le=4096)], ...], Field(max_length=32), LIST_AS_TUPLE]
Rival = Literal["continuous", "no plan", "coarse", "all at once", "no corruption"]
Rivals = Annotated[tuple[Rival, ...], Field(max_length=8), LIST_AS_TUPLE]


class SizeCounts(Section):
    """A number for each size: `normal` is 16x16x16, `big` 16x32x16, `huge` 24x64x24."""

    normal: int = knob("Structures of at most 16x16x16.", stages="structures", unit="structures", ge=0, le=10_000_000)
    big: int = knob("Structures of at most 16x32x16.", stages="structures", unit="structures", ge=0, le=10_000_000)
    huge: int = knob("Structures of at most 24x64x24.", stages="structures", unit="structures", ge=0, le=10_000_000)

    def by_name(self) -> dict[str, int]:
        """Return name of a size to number."""
        return {"normal": self.normal, "big": self.big, "huge": self.huge}


class SizeShares(Section):
    """A share for each size."""

    normal: Real = knob("Share of `normal`.", stages="train@sculptor", unit="share of voxels", ge=0, le=1)
    big: Real = knob("Share of `big`.", stages="train@sculptor", unit="share of voxels", ge=0, le=1)
    huge: Real = knob("Share of `huge`.", stages="train@sculptor", unit="share of voxels", ge=0, le=1)

    def by_name(self) -> dict[str, float]:
        """Return name of a size to share."""
        return {"normal": self.normal, "big": self.big, "huge": self.huge}


class Structures(Section):
    """Captioned block structures: grown ones, and the user's own of data/structures."""

    train: SizeCounts
    val: SizeCounts
    test: SizeCounts
    own_only: bool = knob("Whether only the user's structures are used and none is grown.", stages="structures")
    val_share: Real = knob(
        "Share of the series of own structures that choose the weights.",
        stages="structures",
        unit="share of series",
        ge=0,
        lt=1,
    )
    test_share: Real = knob(
        "Share of the series of own structures that only the benchmark looks at.",
        stages="structures",
        unit="share of series",
        ge=0,
        lt=1,
    )


class SculptorSection(Section):
    """What the sculptor is, and how it is asked to build."""

    first: Literal["plan", "coarse", "none"] = knob(
        "What is decided before the voxels: a plan (for trees), a coarse grid (for anything), or nothing.",
        stages=("train", "benchmark", "robustness"),
    )
    text_model: str = knob(
        "`words` learns the words of captions; else a sentence encoder for transformers: a hub name or a local folder.",
        stages=("train", "benchmark", "robustness"),
    )
    steps: int = knob(
        "Network calls that decide all voxels; the report's table of steps shows where more stop helping.",
        stages=("train", "benchmark", "robustness"),
        unit="calls",
        ge=1,
        le=4096,
    )
    wood_share: Real = knob(
        "Share of the steps that decide the wood alone, before the rest; 0 decides all roles at once.",
        stages=("train", "benchmark", "robustness"),
        unit="share of steps",
        ge=0,
        lt=1,
    )
    edits: int = knob(
        "Looks at the finished structure that let the worst-rated voxels change.",
        stages=("train", "benchmark", "robustness"),
        unit="calls",
        ge=0,
        le=64,
    )
    order: Literal["random", "confidence", "outward"] = knob(
        "Which voxels are decided first: any, those the network is surest of, or those nearest to the trunk.",
        stages=("train", "benchmark", "robustness"),
    )
    schedule: Literal["even", "cosine", "linear"] = knob(
        "How many voxels a step decides; `even` shares out what is uncertain: else `confidence` shrinks trees.",
        stages=("train", "benchmark", "robustness"),
    )
    doubt: Real = knob(
        "A decided voxel is undone where the network gives it less than this; 0 undoes none.",
        stages=("train", "benchmark", "robustness"),
        unit="probability",
        ge=0,
        lt=1,
    )
    guidance: Real = knob(
        "Guidance scale of the voxels at the end of sampling; 1 is none and costs half.",
        stages=("train", "benchmark", "robustness"),
        ge=0,
        le=100,
    )
    plan_guidance: Real = knob(
        "Guidance scale of what comes first; higher obeys the prompt more and varies less.",
        stages=("train", "benchmark", "robustness"),
        ge=0,
        le=100,
    )


class SculptorValidate(Section):
    """Where the gate in front of the sculptor's training draws its lines."""

    least_species_share: Real = knob(
        "Smallest share of the grown structures that each species must have.",
        stages="validate@sculptor",
        unit="share of structures",
        ge=0,
        le=1,
    )
    least_value_count: int = knob(
        "How many grown structures must show each value of each attribute, so that its word can be learned.",
        stages="validate@sculptor",
        unit="structures",
        ge=0,
        le=1_000_000,
    )
    least_own_whole: Real = knob(
        "Smallest share of the own structures that must be in one piece.",
        stages="validate@sculptor",
        unit="share of structures",
        ge=0,
        le=1,
    )


class SculptorTrain(Section):
    """How the sculptor learns."""

    channels: Channels = knob(
        "Channels of each level; the first looks at patches of two, each next one at half the side.",
        stages="train@sculptor",
        unit="channels",
    )
    num_res_blocks: int = knob(
        "Residual blocks of each level, down and up; more draw better and are slower.",
        stages="train@sculptor",
        unit="blocks",
        ge=1,
        le=16,
    )
    attention_levels: Levels = knob(
        "Levels, counted from 0, whose voxels attend to each other; early ones cost much.", stages="train@sculptor"
    )
    fine: Annotated[int, Field(multiple_of=8)] = knob(
        "Channels at full resolution, a multiple of 8; they cost most of the time.",
        stages="train@sculptor",
        unit="channels",
        ge=8,
        le=1024,
    )
    epochs: int = knob("How often `updates` are made.", stages="train@sculptor", unit="epochs", ge=1, le=1_000_000)
    updates: int = knob(
        "Updates of the weights in an epoch.", stages="train@sculptor", unit="updates", ge=1, le=10_000_000
    )
    warm_up_epochs: Real = knob(
        "Epochs over which the learning rate rises; it falls over the others.",
        stages="train@sculptor",
        unit="epochs",
        ge=0,
        le=1_000_000,
    )
    patience: int = knob(
        "Epochs without a better look after which training ends; 0 goes on to the end.",
        stages="train@sculptor",
        unit="epochs",
        ge=0,
        le=1_000_000,
    )
    checkpoint_every: int = knob(
        "Epochs between checkpoints, each with structures built for the same prompts and seeds.",
        stages="train@sculptor",
        unit="epochs",
        ge=1,
        le=1_000_000,
    )
    lr_scale: Real = knob(
        "Learning rate of the voxels' network as a multiple of `lr`; lower it when its loss jumps about.",
        stages="train@sculptor",
        unit="x lr",
        gt=0,
        le=10_000,
    )
    first_lr_scale: Real = knob(
        "Learning rate of what comes first as a multiple of `lr`.",
        stages="train@sculptor",
        unit="x lr",
        gt=0,
        le=10_000,
    )
    first_updates: int = knob(
        "Updates of what comes first; more obey the prompt better.",
        stages="train@sculptor",
        unit="updates",
        ge=1,
        le=10_000_000,
    )
    first_batch: int = knob(
        "Structures per update of what comes first.", stages="train@sculptor", unit="structures", ge=1, le=65_536
    )
    ema: Real = knob(
        "Share of the running mean of the weights that an update keeps.", stages="train@sculptor", ge=0, lt=1
    )
    voxels: int = knob(
        "Voxels of a batch, about; larger is steadier and needs more memory.",
        stages="train@sculptor",
        unit="voxels",
        ge=64,
        le=1_000_000_000,
    )
    mix: SizeShares
    own_share: Real = knob(
        "Share of the user's structures in what is learned from, where there are grown ones as well.",
        stages="train@sculptor",
        unit="share of voxels",
        ge=0,
        le=1,
    )
    wrong: Real = knob(
        "Largest share of visible voxels that are made wrong, so that the network learns to rate what it sees.",
        stages="train@sculptor",
        unit="share of voxels",
        ge=0,
        lt=1,
    )
    text_dropout: Real = knob(
        "Share of structures that are taught without a caption; guidance needs some.",
        stages="train@sculptor",
        unit="share of structures",
        ge=0,
        le=1,
    )
    precision: Literal["auto", "float32", "bfloat16"] = knob(
        "Type of the convolutions while learning; `auto` is bfloat16 where the machine is quick at it.",
        stages="train@sculptor",
    )
    validation: int = knob(
        "Held-out structures that every look measures the loss on.",
        stages="train@sculptor",
        unit="structures",
        ge=1,
        le=1_000_000,
    )
    generations: int = knob(
        "Structures that every look builds.", stages="train@sculptor", unit="structures", ge=1, le=10_000
    )


class SculptorBenchmark(Section):
    """How the sculptor is judged."""

    structures: SizeCounts
    seeds: int = knob(
        "Trainings that are judged: the one of the stage train, and others that the benchmark makes with other seeds.",
        stages="benchmark@sculptor",
        unit="trainings",
        ge=1,
        le=100,
    )
    rivals: Rivals = knob(
        "Rivals that need a training of their own, as long as ours: `continuous` (Gaussian diffusion), `no plan`, "
        "`coarse`, `all at once` (wood not first), `no corruption`.",
        stages="benchmark@sculptor",
    )
    steps: Steps = knob(
        "Numbers of steps of the table that shows where quality saturates.", stages="benchmark@sculptor", unit="calls"
    )
    arm_structures: int = knob(
        "Structures that each baseline builds.", stages="benchmark@sculptor", unit="structures", ge=2, le=100_000
    )
    bootstrap: int = knob(
        "Resamples behind every interval.", stages="benchmark@sculptor", unit="resamples", ge=10, le=1_000_000
    )


class SculptorRobustness(Section):
    """How the sculptor meets awkward input."""

    structures: int = knob(
        "Structures that the cases about quality build.",
        stages="robustness@sculptor",
        unit="structures",
        ge=2,
        le=10_000,
    )
