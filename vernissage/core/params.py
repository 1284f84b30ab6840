"""The typed registry of params.yaml: every value with its meaning, unit, bounds and the stages that read it.

To add a value, add a `knob` to its section here and a line to params.yaml; loading, checking, messages and the table of
`vernissage params` follow from that. To add a system, add one section each to `Train`, `Benchmark` and `Robustness`.
Fields have no defaults: params.yaml is the only place with values.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from vernissage.core.errors import BadParams
from vernissage.core.sampler_params import (
    Channels,
    Denoiser,
    Sampler,
    SamplerBenchmark,
    SamplerRobustness,
    SamplerTrain,
    SamplerValidate,
    TeacherBank,
)
from vernissage.core.sculptor_params import (
    SculptorBenchmark,
    SculptorRobustness,
    SculptorSection,
    SculptorTrain,
    SculptorValidate,
    Structures,
)
from vernissage.core.typed_yaml import (
    LIST_AS_TUPLE,
    ParamRow,
    Real,
    Section,
    build,
    describe_section,
    format_override,
    knob,
    parse_override,
    read_tree,
    suggestion,
    with_overrides,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "Annotate",
    "Benchmark",
    "Degrade",
    "Denoiser",
    "Juror",
    "ParamRow",
    "Params",
    "Photos",
    "Resize",
    "RetoucherBenchmark",
    "RetoucherReward",
    "RetoucherRobustness",
    "RetoucherTrain",
    "RetoucherValidate",
    "Robustness",
    "Sampler",
    "SamplerBenchmark",
    "SamplerRobustness",
    "SamplerTrain",
    "SamplerValidate",
    "SculptorBenchmark",
    "SculptorRobustness",
    "SculptorSection",
    "SculptorTrain",
    "SculptorValidate",
    "Structures",
    "SystemRow",
    "TeacherBank",
    "Train",
    "Validate",
    "describe",
    "extractor_problem",
    "load_params",
    "parse_override",
    "profile_overrides",
]

PARAMS_FILE = Path("params.yaml")

Share = Annotated[Real, Field(gt=0, le=1)]
ShareInterval = Annotated[tuple[Share, Share], LIST_AS_TUPLE]
Shares = Annotated[tuple[Share, ...], Field(min_length=1, max_length=16), LIST_AS_TUPLE]
FirstAndLast = Annotated[tuple[Annotated[Real, Field(ge=0, le=1)], Annotated[Real, Field(ge=0, le=1)]], LIST_AS_TUPLE]
FaultKind = Literal[
    "exposure", "temperature", "tint", "contrast", "saturation", "gamma", "noise", "blur", "jpeg"
]  # fmt: skip
FaultKinds = Annotated[tuple[FaultKind, ...], Field(min_length=1), LIST_AS_TUPLE]
Weight = Annotated[Real, Field(ge=0, le=1_000)]
Weights = Annotated[tuple[Weight, Weight], LIST_AS_TUPLE]


class Photos(Section):
    """Which photos come in, and which are turned away."""

    sample_crops: int = knob(
        "Crops cut from each built-in sample photo when you have no photos of your own; more give more variety.",
        stages="collect",
        unit="crops per photo",
        ge=1,
        le=10_000,
    )
    sample_crop_share: ShareInterval = knob(
        "Smallest and largest side of such a crop; smaller crops differ more from each other but show less.",
        stages="collect",
        unit="share of the side",
    )
    max_pixels: int = knob(
        "A photo whose header promises more pixels is rejected before it is decoded; raise it for panoramas and scans.",
        stages=("collect", "resize"),
        unit="px",
        ge=1,
        le=10_000_000_000,
    )
    max_reject_fraction: Real = knob(
        "Largest share of rejected photos with which the pipeline goes on; lower it to hear earlier of broken files.",
        stages="resize",
        unit="share of photos",
        ge=0,
        le=1,
    )

    @model_validator(mode="after")
    def _crop_share_is_ordered(self) -> Self:
        _ordered("sample_crop_share", self.sample_crop_share)
        return self


class Resize(Section):
    """The one size at which photos are studied."""

    long_edge: int = knob(
        "Longer side of every photo in the dataset; larger keeps more detail and makes every later stage slower.",
        stages="resize",
        unit="px",
        ge=16,
        le=16_384,
    )
    min_edge: int = knob(
        "A photo whose shorter side is below this is rejected, because it carries too little to judge.",
        stages="resize",
        unit="px",
        ge=1,
        le=16_384,
    )

    @model_validator(mode="after")
    def _edges_are_ordered(self) -> Self:
        _at_most("min_edge", self.min_edge, "long_edge", self.long_edge)
        return self


class Annotate(Section):
    """How photos are grouped and split."""

    phash_distance: int = knob(
        "Photos whose perceptual hashes differ in at most this many of 64 bits form one group and stay in one split.",
        stages="annotate",
        unit="bits",
        ge=0,
        le=64,
    )
    val_share: Real = knob(
        "Share of the photos, by group, that chooses the best training step; nothing is learned from it.",
        stages="annotate",
        unit="share of photos",
        gt=0,
        lt=1,
    )
    test_share: Real = knob(
        "Share of the photos, by group, that only the benchmark sees; more photos make its intervals narrower.",
        stages="annotate",
        unit="share of photos",
        gt=0,
        lt=1,
    )

    @model_validator(mode="after")
    def _something_is_left_to_learn_from(self) -> Self:
        total = self.val_share + self.test_share
        if total >= 1:
            raise ValueError(
                f"val_share + test_share = {total:g}: expected a sum below 1, training sees only the rest; lower one"
            )
        return self


class Degrade(Section):
    """How faulty copies of the photos are made."""

    draws: int = knob(
        "Faulty copies of each photo; more copies show more faults and take more time and disk.",
        stages="degrade-split",
        unit="pairs per photo",
        ge=1,
        le=1_000,
    )
    faults_min: int = knob(
        "Fewest faults in a faulty copy; raise it to study only badly spoilt photos.",
        stages="degrade-split",
        unit="faults",
        ge=1,
        le=32,
    )
    faults_max: int = knob(
        "Most faults in a faulty copy; more make repair harder and less exact.",
        stages="degrade-split",
        unit="faults",
        ge=1,
        le=32,
    )
    clean_share: Real = knob(
        "Share of copies without any fault, from which the retoucher learns to leave a good photo alone.",
        stages="degrade-split",
        unit="share of pairs",
        ge=0,
        lt=1,
    )
    kinds: FaultKinds = knob(
        "Which faults there are; leave out those that your photos never have, and the others are mended better.",
        stages=("degrade-split", "train@retoucher"),
    )
    writers: int = knob(
        "Threads that write the pictures; it changes the speed and never the result.",
        stages="degrade-split",
        unit="threads",
        ge=1,
        le=256,
    )

    @model_validator(mode="after")
    def _faults_are_ordered(self) -> Self:
        _at_most("faults_min", self.faults_min, "faults_max", self.faults_max)
        repeated = sorted({kind for kind in self.kinds if self.kinds.count(kind) > 1})
        if repeated:
            raise ValueError(f"kinds: {', '.join(repeated)} more than once; name every kind once")
        return self


class Juror(Section):
    """Who scores photos: an ensemble that learns which of two versions is the better one, or a SigLIP network."""

    kind: Literal["rank", "siglip"] = knob(
        "`rank` is trained here on the train split; `siglip` is a pretrained network, slow without a GPU.",
        stages="juror",
    )
    siglip_model: str = knob(
        "Hub name (google/siglip-so400m-patch14-384) or folder of the SigLIP network; only for kind siglip.",
        stages="juror",
    )
    siglip_head: str = knob(
        "Safetensors file, or hub name, with the linear layers that make a score of it; only for kind siglip.",
        stages="juror",
    )
    size: int = knob(
        "Side of the square at which the juror looks at a photo; larger sees finer faults and is slower.",
        stages=("juror", "juror-score"),
        unit="px",
        ge=16,
        le=1_024,
    )
    members: int = knob(
        "Networks in the ensemble; their disagreement is the score's spread, so two is the least that has one.",
        stages=("juror", "juror-score"),
        unit="networks",
        ge=1,
        le=64,
    )
    ladders: int = knob(
        "Photos that are shown in versions from good to bad for training; more help until photos run out of variety.",
        stages="juror",
        unit="ladders",
        ge=1,
        le=10_000_000,
    )
    epochs: int = knob(
        "Times that training goes through the ladders; more fit it more closely.",
        stages="juror",
        unit="epochs",
        ge=1,
        le=100_000,
    )
    batch: int = knob(
        "Ladders per step; larger is steadier and needs more memory.",
        stages="juror",
        unit="ladders",
        ge=1,
        le=65_536,
    )
    lr_scale: Real = knob(
        "The juror's learning rate as a multiple of `lr`; lower it when its loss jumps about.",
        stages="juror",
        unit="x lr",
        gt=0,
        le=10_000,
    )
    imagined_scenes: int = knob(
        "Made-up scenes that join the train photos; they help most when there are few photos, and matter little later.",
        stages="juror",
        unit="scenes",
        ge=0,
        le=1_000_000,
    )
    scene_variation: Real = knob(
        "How far light and colour of the train photos are varied before they are made worse; 0 takes them as they are.",
        stages="juror",
        unit="x usual scenes",
        ge=0,
        le=4,
    )

    adversarial_rounds: int = knob(
        "Times that adversaries look for pictures that score too high and the juror learns from them; 0 trusts it.",
        stages="juror",
        unit="rounds",
        ge=0,
        le=1_000,
    )
    spread_penalty: Real = knob(
        "What each point of disagreement between members costs in rewards and searches; higher stays with the known.",
        stages="juror",
        unit="x spread",
        ge=0,
        le=100,
    )

    @model_validator(mode="after")
    def _siglip_is_named(self) -> Self:
        for key in ("siglip_model", "siglip_head"):
            if self.kind == "siglip" and not getattr(self, key):
                raise ValueError(f"{key} is empty with kind = siglip: expected a hub name or a local path")
        return self


class RetoucherValidate(Section):
    """Where the gate in front of the retoucher's training draws its lines."""

    max_category_share: Real = knob(
        "Largest share of the pairs that one category may have where there are several; lower it to force balance.",
        stages="validate@retoucher",
        unit="share of pairs",
        gt=0,
        le=1,
    )
    clean_tolerance: Real = knob(
        "How far the share of clean pairs may be from degrade.clean_share, beyond rounding.",
        stages="validate@retoucher",
        unit="share of pairs",
        ge=0,
        le=1,
    )
    kind_tolerance: Real = knob(
        "How much more or less often than the others a kind of fault may occur, beyond four standard errors.",
        stages="validate@retoucher",
        unit="share of the expected",
        ge=0,
        le=10,
    )


class Validate(Section):
    """Gates, one section per system."""

    retoucher: RetoucherValidate
    sampler: SamplerValidate
    sculptor: SculptorValidate


class RetoucherReward(Section):
    """What pays for an edit: the weight of each strategy at the beginning and at the end of learning by reward."""

    reference_distance: Weights = knob(
        "Weight of coming closer to what was meant, at first and at last; no juror is asked, so it cannot be cheated.",
        stages="train@retoucher",
        unit="x reward",
    )
    score_difference: Weights = knob(
        "Weight of the rise of the juror's score, at first and at last; five points count as a full scale of error.",
        stages="train@retoucher",
        unit="x reward",
    )
    step_penalty: Weights = knob(
        "How often `step_cost` is charged for an edit, at first and at last; 0 makes edits free.",
        stages="train@retoucher",
        unit="x step_cost",
    )
    success_bonus: Weights = knob(
        "Bonus while the juror's score is `success_margin` above the first one; taken back when it falls again.",
        stages="train@retoucher",
        unit="reward",
    )
    sigmoid_bonus: Weights = knob(
        "The same bonus with a soft edge, which also says in which direction success lies.",
        stages="train@retoucher",
        unit="reward",
    )
    success_margin: Real = knob(
        "How far the score has to rise before it counts as success; above 0, or leaving a photo alone would be one.",
        stages="train@retoucher",
        unit="points",
        gt=0,
        le=10,
    )

    @model_validator(mode="before")
    @classmethod
    def _strategies_are_known(cls, tree: Any) -> Any:
        unknown = [] if not isinstance(tree, dict) else [name for name in tree if name not in cls.model_fields]
        if unknown:
            known = list(cls.model_fields)
            near = suggestion(str(unknown[0]), known)
            raise ValueError(f"unknown strategy {unknown[0]!r}, expected some of {', '.join(known)}{near}")
        return tree

    @model_validator(mode="after")
    def _something_pays(self) -> Self:
        quality = (self.reference_distance, self.score_difference, self.success_bonus, self.sigmoid_bonus)
        for when, place in (("at first", 0), ("at last", 1)):
            if not any(weights[place] for weights in quality):
                raise ValueError(f"nothing {when} pays for a better photo; raise a weight other than step_penalty")
        return self


class RetoucherTrain(Section):
    """How the retoucher learns: first a planner by example, then by trial and reward (PPO)."""

    lr_scale: Real = knob(
        "The retoucher's learning rate as a multiple of `lr`; lower it when its reward jumps about.",
        stages="train@retoucher",
        unit="x lr",
        gt=0,
        le=10_000,
    )
    view: int = knob(
        "Side of the square at which the retoucher looks at a photo; larger sees finer faults and is slower.",
        stages="train@retoucher",
        unit="px",
        ge=16,
        le=1_024,
    )
    horizon: int = knob(
        "Most edits in one episode; more allow finer work on badly spoilt photos and make episodes longer.",
        stages="train@retoucher",
        unit="edits",
        ge=1,
        le=256,
    )
    strengths: Shares = knob(
        "Sizes of one edit as shares of a slider's range, each in both directions; finer ones need a longer horizon.",
        stages="train@retoucher",
        unit="share of the range",
    )
    extractor: Literal["cnn", "resnet18", "resnet50"] = knob(
        "What the retoucher looks at a photo with: its own small network, or a ResNet, which knows more and is slower.",
        stages="train@retoucher",
    )
    extractor_weights: str = knob(
        "First weights of a ResNet: hub name (microsoft/resnet-18), folder, or `random`; leave it empty for cnn.",
        stages="train@retoucher",
    )
    extractor_trainable: Literal["frozen", "last", "all"] = knob(
        "Which part of a ResNet learns: nothing, its last stage, or all; less is quicker and forgets less.",
        stages="train@retoucher",
    )
    widths: Channels = knob(
        "Channels of the convolutions of extractor cnn; wider ones need more photos and time.",
        stages="train@retoucher",
        unit="channels",
    )
    scene_variation: Real = knob(
        "How far light and colour of the train photos are varied; raise it when few photos make it presumptuous.",
        stages="train@retoucher",
        unit="x usual scenes",
        ge=0,
        le=4,
    )
    imagined_scenes: int = knob(
        "Made-up scenes that join the train photos; they help most when there are few photos, and matter little later.",
        stages="train@retoucher",
        unit="scenes",
        ge=0,
        le=1_000_000,
    )
    full_range_share: Real = knob(
        "Share of scenes whose black and white are moved to the ends, as in whole photos; for crops and flat scans.",
        stages="train@retoucher",
        unit="share of scenes",
        ge=0,
        le=1,
    )
    crops: int = knob(
        "Random crops of each train photo that join the photos: more scenes to learn from, which see fewer whole ones.",
        stages="train@retoucher",
        unit="crops per photo",
        ge=0,
        le=10_000,
    )
    crop_share: Real = knob(
        "Share of fresh episodes that begin with such a crop; they teach it not to trust every histogram.",
        stages="train@retoucher",
        unit="share of episodes",
        ge=0,
        lt=1,
    )
    stored_share: Real = knob(
        "Share of episodes that begin with a stored pair, the rest with a fresh draw; stored ones include compression.",
        stages="train@retoucher",
        unit="share of episodes",
        ge=0,
        le=1,
    )
    harm_aversion: Real = knob(
        "Extra price of ending farther from what was meant than the photo began; higher leaves doubtful photos alone.",
        stages="train@retoucher",
        unit="x error",
        ge=0,
        le=100,
    )
    planner_images: int = knob(
        "Faulty pictures that the planner is shown before trial and reward begin; 0 starts without a planner.",
        stages="train@retoucher",
        unit="pictures",
        ge=0,
        le=10**12,
    )
    planner_batch: int = knob(
        "Pictures per step of the planner; larger is steadier and needs more memory.",
        stages="train@retoucher",
        unit="pictures",
        ge=1,
        le=65_536,
    )
    planner_lr_scale: Real = knob(
        "The planner's learning rate as a multiple of `lr` x `lr_scale`; supervised learning bears a higher one.",
        stages="train@retoucher",
        unit="x lr",
        gt=0,
        le=10_000,
    )
    oracle_images: int = knob(
        "Views that the greedy oracle prices between planner and reward, every action of each; 0 leaves it out.",
        stages="train@retoucher",
        unit="views",
        ge=0,
        le=10**12,
    )
    algorithm: Literal["ppo", "dqn"] = knob(
        "How edits are learned from reward: PPO from what it just tried, DQN from a memory of edits.",
        stages="train@retoucher",
    )
    slots: int = knob(
        "Photos that are edited side by side; more use the processor better and need more memory.",
        stages="train@retoucher",
        unit="photos",
        ge=1,
        le=65_536,
    )
    juror_workers: int = knob(
        "Processes that score pictures while training; 0 scores in the training's own, more pay off for a slow juror.",
        stages="train@retoucher",
        unit="processes",
        ge=0,
        le=256,
    )
    ppo_steps: int = knob(
        "Edits that are tried in all while learning by reward; 0 stops after the planner, more take longer.",
        stages="train@retoucher",
        unit="edits",
        ge=0,
        le=10**9,
    )
    rollout: int = knob(
        "Edits in each slot between two updates; longer gives steadier advantages and fewer updates.",
        stages="train@retoucher",
        unit="edits per slot",
        ge=1,
        le=65_536,
    )
    ppo_epochs: int = knob(
        "Times that each rollout is learned from; more squeeze out more and drift further from what was tried.",
        stages="train@retoucher",
        unit="epochs",
        ge=1,
        le=1_000,
    )
    batch: int = knob(
        "Edits per gradient step; at most slots x rollout, which is all that there is between two updates.",
        stages="train@retoucher",
        unit="edits",
        ge=1,
        le=1_000_000,
    )
    plan_lr_scale: Real = knob(
        "The plan's learning rate after the planner, as a multiple of `lr` x `lr_scale`; 0 keeps it as it was taught.",
        stages="train@retoucher",
        unit="x lr",
        ge=0,
        le=10_000,
    )
    gamma: Real = knob(
        "Discount of later rewards; 1 counts the finished photo in full, lower prefers quick gains.",
        stages="train@retoucher",
        gt=0,
        le=1,
    )
    gae_lambda: Real = knob(
        "How far PPO trusts the rewards that came (1) over what its critic expected (0); lower is steadier and biased.",
        stages="train@retoucher",
        ge=0,
        le=1,
    )
    clip: Real = knob(
        "How far one update may move the odds of an edit (PPO's epsilon); lower is slower and safer.",
        stages="train@retoucher",
        gt=0,
        lt=1,
    )
    sharpness: Real = knob(
        "How decidedly the policy follows its prices when lessons and reward begin; higher tries fewer poor edits.",
        stages="train@retoucher",
        unit="per reward",
        gt=0,
        le=1_000_000,
    )
    entropy: Real = knob(
        "Reward for staying undecided; higher explores longer, too high never settles.",
        stages="train@retoucher",
        ge=0,
        le=10,
    )
    dqn_buffer: int = knob(
        "Edits that DQN remembers, at least slots x rollout; one takes 40 kB at a view of 64 px, 86 kB at 96 px.",
        stages="train@retoucher",
        unit="edits",
        ge=1,
        le=100_000_000,
    )
    dqn_target_every: int = knob(
        "Edits between two copies of DQN's network to the one that it learns towards; more is slower and steadier.",
        stages="train@retoucher",
        unit="edits",
        ge=1,
        le=10**9,
    )
    dqn_exploration: FirstAndLast = knob(
        "Share of random edits while DQN learns, at first and at last; more finds more and spoils more photos.",
        stages="train@retoucher",
        unit="share of edits",
    )
    step_cost: Real = knob(
        "Price of each edit in reward; higher teaches shorter recipes.",
        stages="train@retoucher",
        unit="reward",
        ge=0,
        le=10,
    )
    reward: RetoucherReward
    validate_every: int = knob(
        "PPO updates between two looks at the validation photos, from which the best weights are kept.",
        stages="train@retoucher",
        unit="updates",
        ge=1,
        le=1_000_000,
    )
    shown_episodes: int = knob(
        "Validation photos that pictures of every look and a video of the result show; 0 shows none.",
        stages="train@retoucher",
        unit="photos",
        ge=0,
        le=64,
    )

    @model_validator(mode="after")
    def _extractor_fits_its_weights(self) -> Self:
        problem = extractor_problem(self.extractor, self.extractor_weights, self.extractor_trainable)
        if problem:
            raise ValueError(problem)
        return self

    @model_validator(mode="after")
    def _batch_fits_the_rollout(self) -> Self:
        _at_most("batch", self.batch, "slots x rollout", self.slots * self.rollout)
        if self.algorithm == "dqn":
            _at_most("slots x rollout", self.slots * self.rollout, "dqn_buffer", self.dqn_buffer)
        return self


class Train(Section):
    """Training, one section per system."""

    retoucher: RetoucherTrain
    sampler: SamplerTrain
    sculptor: SculptorTrain


class RetoucherBenchmark(Section):
    """How the retoucher is compared with its baselines."""

    bootstrap: int = knob(
        "Resamplings behind each confidence interval; fewer are quicker and make its ends less certain.",
        stages="benchmark@retoucher",
        unit="resamplings",
        ge=10,
        le=10_000_000,
    )
    worse_margin: Real = knob(
        "A photo counts as made worse when its distance to the original grows by more than this.",
        stages="benchmark@retoucher",
        unit="ΔE00",
        ge=0,
        le=100,
    )
    contact_rows: int = knob(
        "Photos on the contact sheet; more show more of good and bad cases.",
        stages="benchmark@retoucher",
        unit="photos",
        ge=0,
        le=1_000,
    )
    regressor_images: int = knob(
        "Faulty pictures that the regressor, a baseline, learns from; fair is what the planner gets, 0 leaves it out.",
        stages="benchmark@retoucher",
        unit="pictures",
        ge=0,
        le=10**12,
    )


class Benchmark(Section):
    """Benchmarks, one section per system."""

    retoucher: RetoucherBenchmark
    sampler: SamplerBenchmark
    sculptor: SculptorBenchmark


class RetoucherRobustness(Section):
    """How the retoucher is put to the test with awkward input."""

    photos: int = knob(
        "Test photos that each case is tried on; more find rarer failures and take longer.",
        stages="robustness@retoucher",
        unit="photos",
        ge=1,
        le=1_000_000,
    )


class Robustness(Section):
    """Robustness suites, one section per system."""

    retoucher: RetoucherRobustness
    sampler: SamplerRobustness
    sculptor: SculptorRobustness


class SystemRow(Section):
    """What the stages of one agent read beside what all of them do; dvc.yaml puts these into its deps and params."""

    beside: str = knob(
        "What it learns with beside its data set, as a path: its judge, the network that it steers, its grower's code.",
        stages=("validate", "train", "benchmark", "robustness", "report"),
    )
    data: str = knob(
        "Section of the params that made its data set; a change of it trains again.",
        stages=("validate", "train", "benchmark"),
    )
    also: str = knob("One more section or value that its stages read.", stages=("validate", "train", "benchmark"))


class Params(Section):
    """All of params.yaml."""

    seed: int = knob(
        "Where all randomness starts; change it to see how much of a result was luck.",
        stages=(
            "collect",
            "annotate",
            "juror",
            "degrade-split",
            "denoiser",
            "teacher-bank",
            "structures",
            "train",
            "benchmark",
            "robustness",
        ),
        ge=0,
        le=2**63 - 1,
    )
    lr: Real = knob(
        "Base learning rate of everything that learns, multiplied by each `lr_scale`; one key slows them all.",
        stages=("juror", "denoiser", "train"),
        gt=0,
        le=1,
    )
    systems: dict[str, SystemRow] = knob(
        "The agents that the pipeline makes and what dvc.yaml lets their stages read; a row less is an agent less.",
        stages=("validate", "train", "benchmark", "robustness", "report"),
    )
    photos: Photos
    resize: Resize
    annotate: Annotate
    degrade: Degrade
    juror: Juror
    sampler: Sampler
    denoiser: Denoiser
    teacher_bank: TeacherBank
    structures: Structures
    sculptor: SculptorSection
    validate_: Validate = knob("Gates in front of training.", alias="validate")
    train: Train
    benchmark: Benchmark
    robustness: Robustness
    profiles: dict[str, dict[str, Any]] = knob(
        "Named sets of overrides, `name: {dotted.key: value}`, for another machine or purpose; chosen by --profile.",
    )

    @model_validator(mode="after")
    def _systems_have_their_sections(self) -> Self:
        for name in self.systems:
            for section in (Train, Benchmark, Robustness, Validate):
                if name not in section.model_fields:
                    known = suggestion(name, list(section.model_fields))
                    raise ValueError(f"systems.{name}: there is no section {section.__name__.lower()}.{name}{known}")
        return self

    @model_validator(mode="after")
    def _pictures_are_looked_at_within_their_size(self) -> Self:
        _at_most("juror.size", self.juror.size, "resize.long_edge", self.resize.long_edge)
        _at_most("train.retoucher.view", self.train.retoucher.view, "resize.long_edge", self.resize.long_edge)
        return self


def load_params(path: Path = PARAMS_FILE, *, overrides: Sequence[str] = (), profile: str | None = None) -> Params:
    """Return params.yaml, typed and checked.

    Args:
        path: The YAML 1.2 file.
        overrides: `key=value` as `dvc exp run -S` takes them; they win over the profile.
        profile: A name from the file's `profiles`; its values win over the file's own.

    Raises:
        BadParams: Something is missing, unknown, of a wrong type, out of bounds or at odds with another value, in the
            file, in any of its profiles or in `overrides`. One line per problem.
    """
    tree = read_tree(Path(path))
    base = build(Params, tree, source=str(path))
    _check_profiles(tree, base.profiles, str(path))
    changes: dict[str, Any] = {}
    origins: dict[str, str] = {}
    if profile is not None:
        chosen = _profile(base.profiles, profile, str(path))
        changes |= chosen
        origins |= dict.fromkeys(chosen, f"{path}: profile {profile}")
    for text in overrides:
        key, value = parse_override(text)
        if key.partition(".")[0] == "profiles":
            raise BadParams(f"override {text!r}: profiles are sets of overrides themselves; change them in {path}")
        changes[key] = value
        origins[key] = "override"
    if not changes:
        return base
    return build(Params, with_overrides(tree, changes, "override"), source=str(path), origins=origins)


def describe(params: Params) -> list[ParamRow]:
    """Return one row per value, in file order, as `vernissage params` prints them."""
    return describe_section(params)


def profile_overrides(params_path: Path, name: str) -> list[str]:
    """Return a profile as `key=value` texts, ready for `dvc exp run -S` and for `load_params(overrides=...)`.

    Raises:
        BadParams: The file is not valid, or has no profile of that name.
    """
    profiles = load_params(params_path).profiles
    return [format_override(key, value) for key, value in _profile(profiles, name, str(params_path)).items()]


def _profile(profiles: Mapping[str, dict[str, Any]], name: str, source: str) -> dict[str, Any]:
    if name not in profiles:
        near = suggestion(name, list(profiles))
        raise BadParams(
            f"{source}: profile {name!r} is unknown, expected one of {', '.join(profiles) or '(none)'}{near}"
        )
    return profiles[name]


def _check_profiles(tree: Mapping[str, Any], profiles: Mapping[str, dict[str, Any]], source: str) -> None:
    problems = [text for name in profiles if (text := _profile_problem(tree, name, profiles[name], source))]
    if problems:
        raise BadParams("\n".join(problems))


def _profile_problem(tree: Mapping[str, Any], name: str, changes: dict[str, Any], source: str) -> str:
    where = f"{source}: profiles.{name}"
    if any(key.partition(".")[0] == "profiles" for key in changes):
        return f"{where}: a profile cannot change profiles, only values"
    try:
        build(Params, with_overrides(tree, changes, where), source=where)
    except BadParams as error:
        return str(error)
    return ""


def extractor_problem(kind: str, weights: str, trainable: str) -> str:
    """Say in one line what is wrong with the three parameters of the extractor together, or return nothing."""
    if kind != "cnn" and not weights:
        return (
            f"extractor_weights is empty with extractor = {kind}: expected a hub name such as microsoft/resnet-"
            f"{kind.removeprefix('resnet')}, a local folder, or random for a network that has learned nothing"
        )
    if kind == "cnn" and weights:
        return f"extractor_weights = {weights!r} with extractor = cnn, which has none: expected nothing"
    if kind == "cnn" and trainable != "all":
        return f"extractor_trainable = {trainable!r} with extractor = cnn, which has no first weights: expected all"
    return ""


def _at_most(low_name: str, low: float, high_name: str, high: float) -> None:
    if low > high:
        raise ValueError(
            f"{low_name} = {low:g} is above {high_name} = {high:g}: expected at most that; change one of them"
        )


def _ordered(name: str, ends: tuple[float, float]) -> None:
    if ends[0] > ends[1]:
        raise ValueError(f"{name} = [{ends[0]:g}, {ends[1]:g}]: expected the smaller number first")
