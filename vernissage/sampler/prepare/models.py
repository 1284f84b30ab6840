"""Which network the stages work with: the one that the pipeline teaches, or a pipeline of `diffusers`.

The stage `denoiser` leaves a folder of either kind: weights, or a reference that says which pipeline, in which state
and with which prompts. :func:`open_network` reads both, so that all stages behind it are the same for both.
"""

from __future__ import annotations

import logging
import math
import re
import unicodedata
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch

from vernissage.core.errors import BadInput, BadParams, CorruptArtifact, MissingArtifact
from vernissage.core.files import atomic_write_json, read_json, sha256_file
from vernissage.core.progress import track
from vernissage.core.weights import load_weights
from vernissage.sampler.domain.denoiser import NULL, ClassLabels
from vernissage.sampler.domain.unet import EdmDenoiser, UNetSpec
from vernissage.sampler.prepare.teacher_bank import RequestMix

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from vernissage.sampler.domain.denoiser import Condition, Denoiser
    from vernissage.sampler.domain.pipelines import PipelineDenoiser
    from vernissage.sampler.domain.prompts import TextEmbeddings

log = logging.getLogger(__name__)

#: The name of the model that the pipeline teaches itself.
EMBEDDED = "embedded"
#: Where pipelines of the user's own lie.
PIPELINES = Path("data/pipelines")
REFERENCE_FILE = "pipeline.json"
REFERENCE_FORMAT = 1
MAX_PROMPTS = 10_000
MAX_PROMPT_BYTES = 16 << 20

#: What a network is asked for: nothing, classes, or prompts.
Kind = Literal["unconditional", "classes", "prompts"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_EMBEDDED_FILE = "model.json"
_MAKE_AGAIN = "make it again with `dvc repro denoiser`"
# What `load_denoiser` may read of a pipeline's folder; a safety checker or a picture beside it is nobody's business.
_PARTS = ("scheduler", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "unet", "vae")
_SUFFIXES = frozenset((".json", ".txt", ".model", ".safetensors"))
_SHOWN = 40


@dataclass(frozen=True)
class ModelChoice:
    """What params.yaml says of the network.

    Attributes:
        model: ``EMBEDDED``, the name of a folder in `data/pipelines`, or a hub name (owner/name).
        prompts_file: Name of a text file with one prompt per line; empty for a network that takes none.
        negative_prompt: What guidance leads away from; empty for nothing in particular.
        precision: Type that a pipeline computes in; `auto` is bfloat16 on CUDA, else float32.
        attention_slicing: Whether a pipeline computes attention in parts: slower, less memory.
        vae_tiling: Whether its autoencoder works in tiles: much less memory, slightly different pixels.
        size: Height and width of a pipeline's samples (latents, where it has an autoencoder); its own where left out.
        null_class: Class that asks for nothing in particular, where a pipeline of classes has one.
        clip_sample: Whether estimates are bounded where the pipeline's own scheduler bounds them.
        revision: Commit, branch or tag on the hub; empty for its main branch.
        variant: Such as `fp16`, where a pipeline holds several kinds of weights.

    Raises:
        BadParams: If a value is none, or the embedded model is to take what only pipelines do.
    """

    model: str = EMBEDDED
    prompts_file: str = ""
    negative_prompt: str = ""
    precision: Precision = "auto"
    attention_slicing: bool = True
    vae_tiling: bool = False
    size: tuple[int, int] | None = None
    null_class: int | None = None
    clip_sample: bool = False
    revision: str = ""
    variant: str = ""

    def __post_init__(self) -> None:
        if not self.model:
            raise BadParams(f"sampler.model is empty: expected {EMBEDDED}, a folder in {PIPELINES}, or a hub name")
        _check_precision(self.precision)
        if self.size is not None and (len(self.size) != 2 or min(self.size) < 1):
            raise BadParams(f"sampler.size = {self.size}: expected height and width, 1 or more each, or nothing")
        if self.embedded and (self.prompts_file or self.negative_prompt):
            raise BadParams(
                "sampler.prompts and sampler.negative_prompt: the embedded model takes classes, no prompts; leave both "
                "empty, or name a text-to-image pipeline in sampler.model"
            )

    @property
    def embedded(self) -> bool:
        """Whether it is the model that the pipeline teaches itself."""
        return self.model == EMBEDDED

    def prompts(self, folder: Path) -> tuple[str, ...]:
        """The prompts of ``prompts_file``, which lies in a folder; none where no file is named.

        Raises:
            BadParams: If the name leads out of the folder.
            MissingArtifact: If there is no such file.
            BadInput: If it cannot be used.
        """
        if not self.prompts_file:
            return ()
        if _leads_outside(self.prompts_file):
            raise BadParams(f"sampler.prompts = {self.prompts_file!r}: expected the name of a text file in {folder}")
        return read_prompts(folder / self.prompts_file)


@dataclass(frozen=True)
class NetworkFacts:
    """What there is to know of a network without opening it.

    Attributes:
        model: ``EMBEDDED``, a folder of `data/pipelines`, or a hub name.
        kind: What it is asked for.
        names: What each label stands for: names of classes, or prompts; none for an unconditional network.
        guided: Whether guidance can be asked for.
        shape: (C, H, W) of one sample.
        sigma_data: Standard deviation of the samples.
        latent: Whether samples are latents, which an autoencoder makes pictures of.
    """

    model: str
    kind: Kind
    names: tuple[str, ...]
    guided: bool
    shape: tuple[int, int, int]
    sigma_data: float
    latent: bool

    @property
    def embedded(self) -> bool:
        """Whether the pipeline has taught it itself, so that its pictures are there, too."""
        return self.model == EMBEDDED

    @property
    def classes(self) -> int:
        """Number of labels that can be asked for, 0 to one less than it; 0 where none can."""
        return len(self.names)

    def mix(self, scales: Sequence[float], class_ratio: float = 4.0) -> RequestMix:
        """What requests ask of this network; one that knows no guidance is asked with scale 1 only.

        Args:
            scales: Guidance scales.
            class_ratio: How many times as often the first label is asked for as the last one.

        Raises:
            BadParams: If a scale is none.
        """
        if not self.guided and any(scale != 1 for scale in scales):
            log.warning("%s knows no guidance: scales %s are all taken as 1", self.model, list(scales))
        own = tuple(map(float, scales)) if self.guided else (1.0,)
        if not self.classes:
            return RequestMix((), own)
        return RequestMix.uneven(self.classes, own, ratio=class_ratio)


@dataclass(frozen=True, eq=False)
class Network:
    """A network that is ready to be asked, whichever kind it is.

    Attributes:
        facts: What it is.
        denoiser: The network itself.
        conditions: Makes conditions of (N,) long labels; ``NULL`` asks for nothing in particular.
        decode: Makes pictures in [-1, 1] of latents; anything else stays as it is. See :meth:`pictures`.
    """

    facts: NetworkFacts
    denoiser: Denoiser
    conditions: Callable[[torch.Tensor], Condition | None]
    decode: Callable[[torch.Tensor], torch.Tensor]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of classes, or prompts."""
        return self.facts.names

    @property
    def classes(self) -> int:
        """Number of labels that can be asked for."""
        return self.facts.classes

    @property
    def embedded(self) -> bool:
        """Whether the pipeline has taught it itself."""
        return self.facts.embedded

    @torch.no_grad()
    def pictures(self, samples: torch.Tensor, *, batch: int = 16) -> torch.Tensor:
        """Make pictures of samples: what features, classifiers and sheets are computed from.

        Args:
            samples: (N, C, H, W).
            batch: Latents that go through the autoencoder at once.

        Returns:
            (N, 1 or 3, H', W') float32, where the samples are; in [-1, 1] for latents, and else the samples as they
            are.

        Raises:
            BadInput: If there are fewer than 1 to a batch.
        """
        if batch < 1:
            raise BadInput(f"pictures: batches of {batch}, expected 1 or more")
        if not self.facts.latent:
            return samples.float()
        return torch.cat([self.decode(rows) for rows in samples.split(batch)]).to(samples.device)


def read_prompts(path: Path) -> tuple[str, ...]:
    """Read prompts, one per line of a UTF-8 text; empty lines and lines that begin with `#` are skipped.

    Raises:
        MissingArtifact: If there is no such file.
        BadInput: If it is no UTF-8 text, holds no prompt, too many, or one of them twice; the message says in which
            line.
    """
    try:
        data = path.read_bytes() if path.stat().st_size <= MAX_PROMPT_BYTES else None
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise MissingArtifact(f"{path}: no such file; write one prompt per line into it") from error
    if data is None:
        raise BadInput(f"{path}: {path.stat().st_size} bytes, expected at most {MAX_PROMPT_BYTES}; is it a text file?")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = data.count(b"\n", 0, error.start) + 1
        raise BadInput(f"{path}, line {number}: not UTF-8 ({error.reason}); save the file as UTF-8") from error
    found: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), 1):
        prompt = unicodedata.normalize("NFC", line.strip())
        if not prompt or prompt.startswith("#"):
            continue
        for character in prompt:
            if unicodedata.category(character) == "Cc" and character != "\t":
                raise BadInput(
                    f"{path}, line {number}: holds the control character U+{ord(character):04X}, expected plain text "
                    "with one prompt per line"
                )
        if prompt in found:
            raise BadInput(
                f"{path}, line {number}: {_short(prompt)!r} stands in line {found[prompt]} already; name every prompt "
                "once"
            )
        found[prompt] = number
    if not 1 <= len(found) <= MAX_PROMPTS:
        raise BadInput(f"{path}: {len(found)} prompts, expected 1 to {MAX_PROMPTS}, one per line; # begins a comment")
    return tuple(found)


def write_reference(
    folder: Path,
    choice: ModelChoice,
    prompts: Sequence[str] = (),
    *,
    device: torch.device | str | None = None,
    pipelines: Path = PIPELINES,
) -> Network:
    """Write which pipeline is worked with, after opening it and seeing that it can be.

    A pipeline on the hub is written down with the commit that was loaded, a local one with the hashes of its files, so
    that every stage works with the same weights.

    Args:
        folder: Gets ``pipeline.json``.
        choice: What the user wants, not the embedded model.
        prompts: Texts, for a network that takes them.
        device: Where to open it; none leaves it to the machine.
        pipelines: Where local pipelines lie.

    Returns:
        The pipeline, opened.

    Raises:
        BadParams: If there is no pipeline of that name, or its name leads out of the folder.
        BadInput: If it takes prompts and there are none, or the other way round, or it is of an unknown kind.
        MissingArtifact: If it is neither in the folder nor in the cache, and the hub cannot be asked.
        CorruptArtifact: If it is damaged.
    """
    if choice.embedded:
        raise BadInput(f"{folder}: the embedded model has weights of its own and needs no reference; train it instead")
    local = _is_local(choice.model, pipelines)
    place = str(pipelines / choice.model) if local else choice.model
    files = _hashes(Path(place)) if local else {}
    denoiser = _load(place, choice, device)
    facts = _facts_of(choice, denoiser, tuple(prompts))
    document = {
        "format": REFERENCE_FORMAT,
        "model": choice.model,
        "local": local,
        "revision": None if local else _commit(choice),
        "variant": choice.variant or None,
        "files": files,
        "kind": facts.kind,
        "names": list(facts.names),
        "guided": facts.guided,
        "shape": list(facts.shape),
        "sigma_data": facts.sigma_data,
        "latent": facts.latent,
        "negative_prompt": choice.negative_prompt,
        "precision": choice.precision,
        "attention_slicing": choice.attention_slicing,
        "vae_tiling": choice.vae_tiling,
        "size": None if choice.size is None else list(choice.size),
        "null_class": choice.null_class,
        "clip_sample": choice.clip_sample,
    }
    network = _network(facts, denoiser, choice.negative_prompt)
    atomic_write_json(folder / REFERENCE_FILE, document)
    return network


def network_facts(folder: Path) -> NetworkFacts:
    """Say what network a folder of the stage `denoiser` holds or refers to, without opening it.

    Raises:
        MissingArtifact: If there is none.
        CorruptArtifact: If what is there is damaged.
    """
    if _is_reference(folder):
        return _read_reference(folder).facts
    return _embedded_facts(folder)


def open_network(
    folder: Path,
    device: torch.device | str | None = None,
    *,
    precision: Precision | None = None,
    attention_slicing: bool | None = None,
    pipelines: Path = PIPELINES,
) -> Network:
    """Open the network that a folder of the stage `denoiser` holds or refers to.

    Args:
        folder: Where the stage has written.
        device: Where to compute; none leaves it to the machine.
        precision: Type that a pipeline computes in; what was written down where left out. The embedded model computes
            in float32.
        attention_slicing: Whether a pipeline computes attention in parts; what was written down where left out.
        pipelines: Where local pipelines lie.

    Raises:
        BadParams: If the device is not there, or the precision is none.
        MissingArtifact: If there is no network, or the pipeline that is referred to is gone.
        CorruptArtifact: If a file is damaged, or the pipeline is not the one that was referred to.
        BadInput: If its prompts cannot be embedded.
    """
    if precision is not None:
        _check_precision(precision)
    if not _is_reference(folder):
        from vernissage.core.devices import choose_device

        facts = _embedded_facts(folder)
        embedded = EdmDenoiser.load(folder).to(choose_device(None if device is None else str(device)))
        return Network(facts, embedded, ClassLabels, torch.Tensor.float)
    found = _read_reference(folder)
    choice = found.choice(precision, attention_slicing)
    if found.local:
        _check_files(folder, pipelines / choice.model, found.files)
    denoiser = _load(str(pipelines / choice.model) if found.local else choice.model, choice, device)
    if denoiser.shape != found.facts.shape:
        raise CorruptArtifact(
            f"{folder / REFERENCE_FILE}: samples of {choice.model} are {denoiser.shape}, expected {found.facts.shape}; "
            f"{_MAKE_AGAIN}"
        )
    return _network(found.facts, denoiser, choice.negative_prompt)


@dataclass(frozen=True)
class _Reference:
    """What ``pipeline.json`` says."""

    facts: NetworkFacts
    local: bool
    files: Mapping[str, str]
    options: Mapping[str, Any]

    def choice(self, precision: Precision | None, attention_slicing: bool | None) -> ModelChoice:
        options: dict[str, Any] = dict(self.options)
        if precision is not None:
            options["precision"] = precision
        if attention_slicing is not None:
            options["attention_slicing"] = attention_slicing
        return ModelChoice(self.facts.model, **options)


def _is_reference(folder: Path) -> bool:
    there = [name for name in (REFERENCE_FILE, _EMBEDDED_FILE) if (folder / name).is_file()]
    if len(there) == 2:
        raise CorruptArtifact(f"{folder}: holds {' and '.join(there)}, expected one of them; {_MAKE_AGAIN}")
    if not there:
        raise MissingArtifact(
            f"{folder}: neither {_EMBEDDED_FILE} nor {REFERENCE_FILE} is there; make one with `dvc repro denoiser`, or "
            "fetch it with `dvc pull`"
        )
    return there == [REFERENCE_FILE]


def _embedded_facts(folder: Path) -> NetworkFacts:
    _, facts = load_weights(folder)
    try:
        fields = dict(facts["denoiser"])
        spec = UNetSpec(**{**fields, "multipliers": tuple(fields["multipliers"])})
        names = tuple(map(str, facts.get("class_names") or range(spec.classes)))
    except (KeyError, TypeError, ValueError, BadParams) as error:
        raise CorruptArtifact(f"{folder}: not a denoiser of this version ({error}); {_MAKE_AGAIN}") from error
    if len(names) != spec.classes:
        raise CorruptArtifact(f"{folder}: {len(names)} names for {spec.classes} classes, expected one each")
    return NetworkFacts(
        EMBEDDED, "classes", names, guided=True, shape=spec.shape, sigma_data=spec.sigma_data, latent=False
    )


def _read_reference(folder: Path) -> _Reference:
    path = folder / REFERENCE_FILE
    document = read_json(path)
    try:
        found = _parsed(document)
        found.choice(None, None)
    except (KeyError, TypeError, ValueError, AttributeError, BadParams) as error:
        raise CorruptArtifact(f"{path}: not a reference to a pipeline ({error}); {_MAKE_AGAIN}") from error
    return found


def _parsed(document: Mapping[str, Any]) -> _Reference:
    """A reference from JSON; what is none raises KeyError, TypeError, ValueError or AttributeError."""
    if document["format"] != REFERENCE_FORMAT:
        raise ValueError(f"format {document['format']!r}, expected {REFERENCE_FORMAT}")
    facts = NetworkFacts(
        _text(document["model"]),
        _one_of(document["kind"], get_args(Kind)),
        tuple(map(_text, document["names"])),
        _flag(document["guided"]),
        _shape(document["shape"]),
        float(document["sigma_data"]),
        _flag(document["latent"]),
    )
    local, files = _flag(document["local"]), dict(document["files"])
    if facts.embedded or not 0 < facts.sigma_data < math.inf or bool(facts.names) == (facts.kind == "unconditional"):
        raise ValueError(f"{facts.model}, {facts.kind}, with {facts.classes} labels and sigma_data {facts.sigma_data}")
    if bool(files) != local or _leads_outside(facts.model):
        raise ValueError(f"{facts.model} with {len(files)} hashes, {'local' if local else 'on the hub'}")
    options = {
        "negative_prompt": _text(document["negative_prompt"]),
        "precision": _one_of(document["precision"], get_args(Precision)),
        "attention_slicing": _flag(document["attention_slicing"]),
        "vae_tiling": _flag(document["vae_tiling"]),
        "size": None if document["size"] is None else tuple(map(int, document["size"])),
        "null_class": None if document["null_class"] is None else int(document["null_class"]),
        "clip_sample": _flag(document["clip_sample"]),
        "revision": _text(document["revision"] or ""),
        "variant": _text(document["variant"] or ""),
    }
    return _Reference(facts, local, files, options)


def _is_local(model: str, pipelines: Path) -> bool:
    """Whether a name is that of a folder in `pipelines`; else it is one of the hub."""
    if _leads_outside(model):
        raise BadParams(
            f"sampler.model = {model!r}: expected {EMBEDDED}, the name of a folder in {pipelines}, or a hub name "
            "(owner/name); copy or link the folder there"
        )
    if (pipelines / model).exists():
        return True
    if _HUB_NAME.fullmatch(model):
        return False
    there = sorted(path.name for path in pipelines.iterdir() if path.is_dir()) if pipelines.is_dir() else []
    raise BadParams(
        f"sampler.model = {model!r}: unknown, expected {EMBEDDED}, a folder in {pipelines} (there are: "
        f"{', '.join(there) or 'none'}), or a hub name (owner/name)"
    )


def _leads_outside(name: str) -> bool:
    path, windows = PurePosixPath(name), PureWindowsPath(name)
    rooted = path.is_absolute() or bool(windows.anchor) or name.startswith("~")
    return rooted or ".." in windows.parts or not path.parts


def _load(place: str, choice: ModelChoice, device: torch.device | str | None) -> PipelineDenoiser:
    from vernissage.sampler.domain.pipelines import load_denoiser

    return load_denoiser(
        place,
        device=device,
        dtype=None if choice.precision == "auto" else getattr(torch, choice.precision),
        attention_slicing=choice.attention_slicing,
        vae_tiling=choice.vae_tiling,
        size=choice.size,
        null_class=choice.null_class,
        clip_sample=choice.clip_sample,
        revision=choice.revision or None,
        variant=choice.variant or None,
    )


def _facts_of(choice: ModelChoice, denoiser: PipelineDenoiser, prompts: tuple[str, ...]) -> NetworkFacts:
    kind: Kind = "classes" if denoiser.classes else "prompts" if _takes_prompts(denoiser) else "unconditional"
    if kind == "prompts" and not prompts:
        raise BadInput(
            f"{choice.model}: takes prompts, found none; write them into a text file, one per line, and name it in "
            "sampler.prompts"
        )
    if kind != "prompts" and (prompts or choice.negative_prompt):
        takes = "no conditions" if kind == "unconditional" else f"{denoiser.classes} classes"
        raise BadInput(
            f"{choice.model}: {len(prompts)} prompts for a network that takes {takes}; leave sampler.prompts and "
            "sampler.negative_prompt empty"
        )
    if len(set(prompts)) != len(prompts) or choice.negative_prompt in prompts:
        raise BadInput(f"{choice.model}: the same prompt twice, or as negative prompt as well; expected different ones")
    names = prompts if kind == "prompts" else tuple(map(str, range(denoiser.classes)))
    guided = kind == "prompts" or (kind == "classes" and choice.null_class is not None)
    latent = denoiser.image_shape != denoiser.shape
    return NetworkFacts(choice.model, kind, names, guided, denoiser.shape, denoiser.sigma_data, latent)


def _takes_prompts(denoiser: PipelineDenoiser) -> bool:
    try:
        denoiser.encode_prompts([""])
    except BadInput:
        return False
    return True


def _network(facts: NetworkFacts, denoiser: PipelineDenoiser, negative: str) -> Network:
    conditions: Callable[[torch.Tensor], Condition | None] = ClassLabels
    if facts.kind == "unconditional":
        conditions = _nothing
    elif facts.kind == "prompts":
        asked = denoiser.encode_prompts(list(facts.names), negative)
        # One row more: what asks for nothing in particular.
        first = asked.rows(torch.zeros(1, dtype=torch.long))
        conditions = partial(_by_prompt, asked.joined(first.null()))
    return Network(facts, denoiser, conditions, lambda samples: denoiser.decode(samples) * 2 - 1)


def _nothing(labels: torch.Tensor) -> None:
    """Conditions of a network that is asked for nothing."""
    if bool((labels != NULL).any()):
        raise BadInput(
            f"label {int(labels[labels != NULL][0])}: this network takes neither classes nor prompts, expected {NULL}"
        )


def _by_prompt(table: TextEmbeddings, labels: torch.Tensor) -> TextEmbeddings:
    """Rows of a table of embeddings, its last one for ``NULL``."""
    count = len(table) - 1
    strange = labels[(labels < NULL) | (labels >= count)]
    if len(strange):
        raise BadInput(
            f"prompt {int(strange[0])}: there are prompts 0 to {count - 1}, and {NULL} for none in particular"
        )
    return table.rows(torch.where(labels == NULL, count, labels))


def _commit(choice: ModelChoice) -> str | None:
    """The commit that a pipeline of the hub was loaded at."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(choice.model, "model_index.json", revision=choice.revision or None)
    commit = Path(found).parent.name if isinstance(found, str) else ""
    if _COMMIT.fullmatch(commit):
        return commit
    log.warning("%s: its commit is not known, so a change on the hub will go unnoticed", choice.model)
    return choice.revision or None


def _hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of everything in a pipeline's folder that may be read, by path."""
    files = list(_readable(folder)) if folder.is_dir() else []
    return {name: sha256_file(folder / name) for name in track(files, description="pipeline", unit="files")}


def _readable(folder: Path) -> Iterator[str]:
    if (folder / "model_index.json").is_file():
        yield "model_index.json"
    for part in _PARTS:
        for path in sorted((folder / part).glob("*")):
            if path.suffix in _SUFFIXES and path.is_file():
                yield path.relative_to(folder).as_posix()


def _check_files(folder: Path, pipeline: Path, expected: Mapping[str, str]) -> None:
    if not pipeline.is_dir():
        raise MissingArtifact(
            f"{pipeline}: no such folder, but {folder / REFERENCE_FILE} refers to it; put the pipeline back there, or "
            "change sampler.model"
        )
    found = _hashes(pipeline)
    off = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if off:
        what = "is gone" if off[0] not in found else "is new" if off[0] not in expected else "has changed"
        raise CorruptArtifact(
            f"{pipeline / off[0]}: {what} since {folder / REFERENCE_FILE} was written ({len(off)} of {len(expected)} "
            "files differ); bring the pipeline back to what it was, or take the new one with `dvc repro -f denoiser`"
        )


def _check_precision(precision: str) -> None:
    if precision not in get_args(Precision):
        raise BadParams(f"sampler.precision = {precision!r}: expected one of {', '.join(get_args(Precision))}")


def _shape(value: Any) -> tuple[int, int, int]:
    channels, height, width = (int(side) for side in value)
    if min(channels, height, width) < 1:
        raise ValueError(f"samples of shape {value}")
    return channels, height, width


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r}, expected text")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r}, expected true or false")
    return value


def _one_of(value: Any, expected: tuple[Any, ...]) -> Any:
    if value not in expected:
        raise ValueError(f"{value!r}, expected one of {', '.join(map(str, expected))}")
    return value


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
