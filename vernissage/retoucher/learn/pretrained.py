"""Pretrained networks of `transformers`, by hub name or from a folder: safetensors only, and complete or refused."""

from __future__ import annotations

import hashlib
import logging
import math
import re
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vernissage.core.errors import BadInput, CorruptArtifact, MissingArtifact
from vernissage.core.files import read_json, sha256_file

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    import torch

log = logging.getLogger(__name__)

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl"})
_CONFIG, _PROCESSOR_FILES = "config.json", ("preprocessor_config.json", "processor_config.json")
_CONVERT = (
    "weights are read from safetensors only, because other formats can run code; convert it once with "
    "`safetensors.torch.save_file(torch.load(FILE, weights_only=True), 'model.safetensors')`"
)


@dataclass(frozen=True)
class Pretrained:
    """A pretrained network that was found, not yet loaded.

    Attributes:
        name: Folder or hub name.
        local: Whether `name` is a folder.
        version: What pins the weights: the hub's commit, or a hash over the files of the folder.
        config: Content of `config.json`.
        processor: How pictures are prepared for it, as its own file says; empty where a folder has no such file.
    """

    name: str
    local: bool
    version: str
    config: Mapping[str, Any]
    processor: Mapping[str, Any]


def find_pretrained(name: str, model_types: Collection[str], version: str = "") -> Pretrained:
    """Look a network up in a folder, else on the Hugging Face hub (or in its cache on this machine).

    Args:
        name: Folder with `config.json` and `model.safetensors`, or a hub name such as `google/siglip-base-patch16-224`.
        model_types: The `model_type`s of `config.json` that will do.
        version: What :attr:`Pretrained.version` must be; empty takes what is there.

    Returns:
        The network with its configuration; the weights of a hub name are not fetched yet.

    Raises:
        MissingArtifact: There is no such folder, or the hub cannot be reached or has no such network.
        CorruptArtifact: The folder is not what `version` was, or a configuration cannot be read.
        BadInput: It is a network of another type.
    """
    local = Path(name).is_dir()
    if not local and not _HUB_NAME.fullmatch(name):
        raise MissingArtifact(f"{name}: no such folder, and no hub name, which is written owner/name")
    if local:
        found = _version_of_folder(Path(name))
        if version and found != version:
            raise CorruptArtifact(
                f"{name}: its files have changed, their hash is {found}, expected {version}; get them back, or run the "
                "stage that uses them again"
            )
        config_file, version = Path(name) / _CONFIG, found
        processor_file = next((f for file in _PROCESSOR_FILES if (f := Path(name) / file).is_file()), None)
    else:
        log.info("%s: taken from the Hugging Face hub, or from its cache on this machine", name)
        config_file = fetch_from_hub(name, _CONFIG, version)
        # The cache keeps each commit in a folder of its own; from here on every file comes from this one.
        version = config_file.parent.name
        processor_file = fetch_from_hub(name, _PROCESSOR_FILES[0], version)
    config = _read_object(config_file)
    if config.get("model_type") not in model_types:
        raise BadInput(
            f"{name}: a network of type {config.get('model_type')!r}, expected {' or '.join(sorted(model_types))}"
        )
    processor = {} if processor_file is None else _read_object(processor_file)
    # Newer versions of transformers store it inside the file of a processor for text and pictures.
    processor = processor.get("image_processor", processor)
    return Pretrained(name, local, version, config, processor)


def load_pretrained(model_class: Any, found: Pretrained, dtype: torch.dtype) -> Any:
    """Load the weights.

    Args:
        model_class: A `PreTrainedModel` class of transformers.
        found: What :func:`find_pretrained` returned.
        dtype: Type of the weights in memory.

    Returns:
        The network on the CPU, in evaluation mode.

    Raises:
        MissingArtifact: The weights are not there as safetensors, or the hub cannot be reached.
        CorruptArtifact: The weights cannot be read, do not fit the configuration, or some are missing.
    """
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    place = {} if found.local else {"revision": found.version}
    try:
        with _quiet():
            model, facts = model_class.from_pretrained(
                found.name, use_safetensors=True, dtype=dtype, output_loading_info=True, **place
            )
    except OSError as error:
        if found.local:
            raise MissingArtifact(f"{found.name}: {_first_line(error)}; {_CONVERT}") from error
        raise MissingArtifact(_hub_problem(found.name, error)) from error
    except (
        SafetensorError, StrictDataclassError, RuntimeError, ValueError, LookupError, TypeError, AttributeError,
        ArithmeticError,
    ) as error:  # fmt: skip
        # A configuration is foreign text, which transformers takes at its word until something breaks.
        raise CorruptArtifact(
            f"{found.name}: weights and configuration cannot be loaded as {model_class.__name__} "
            f"({type(error).__name__}: {_first_line(error)}); download it again"
        ) from error
    # Counters of batch normalisation are no weights, and older files lack them.
    missing = sorted(name for name in facts["missing_keys"] if not name.endswith("num_batches_tracked"))
    if missing:
        # Transformers would go on with random numbers in their place.
        raise CorruptArtifact(
            f"{found.name}: found no weights for {len(missing)} of {len(model.state_dict())} tensors of "
            f"{model_class.__name__} ({missing[0]} for one), expected all; download it again"
        )
    return model.eval()


def fetch_from_hub(name: str, file: str, version: str = "") -> Path:
    """Return the path of one file of a hub repository in the cache, downloaded where it is not there yet.

    Args:
        name: Hub name, owner/name.
        file: Path inside the repository.
        version: Commit, branch or tag; empty takes the main branch.

    Raises:
        MissingArtifact: The hub cannot be reached, or has no such repository or file.
    """
    from transformers.utils import cached_file

    try:
        with _quiet():
            path = cached_file(name, file, revision=version or None)
    except OSError as error:
        raise MissingArtifact(_hub_problem(name, error)) from error
    if path is None:
        raise MissingArtifact(f"{name}: the hub repository has no file {file}")
    return Path(path)


def find_weights_file(name: str) -> Path:
    """Return a safetensors file by path, by folder (its `model.safetensors`), or by hub name.

    Args:
        name: A file, a folder, `owner/name` or `owner/name/path/to/file.safetensors` on the hub.

    Raises:
        MissingArtifact: It is not there.
        BadInput: It is a file of another format.
    """
    path = Path(name)
    if path.suffix.lower() in _PICKLES:
        raise BadInput(f"{name}: not a safetensors file; {_CONVERT}")
    if path.is_file():
        return path
    if path.is_dir():
        if not (path / "model.safetensors").is_file():
            raise MissingArtifact(f"{path / 'model.safetensors'}: no such file; name the file itself")
        return path / "model.safetensors"
    owner, _, rest = name.partition("/")
    repository, _, file = rest.partition("/")
    if not _HUB_NAME.fullmatch(f"{owner}/{repository}"):
        raise MissingArtifact(f"{name}: no such file, and no hub name, which is written owner/name")
    return fetch_from_hub(f"{owner}/{repository}", file or "model.safetensors")


def channel_values(found: Pretrained, key: str, default: tuple[float, float, float]) -> tuple[float, float, float]:
    """Return three numbers, one per colour channel, that the preparation of pictures uses.

    Args:
        found: The network.
        key: `image_mean` or `image_std`.
        default: What holds where its files do not say.

    Raises:
        CorruptArtifact: The file says anything but three finite numbers, above 0 for `image_std`.
    """
    values = found.processor.get(key, default)
    numbers = isinstance(values, (list, tuple)) and all(
        isinstance(value, (int, float)) and math.isfinite(value) and (value > 0 or key != "image_std")
        for value in values
    )
    if not numbers or len(values) != 3:
        raise CorruptArtifact(
            f"{found.name}: {_PROCESSOR_FILES[0]}: {key} = {values!r}, expected three finite numbers"
            f"{' above 0' if key == 'image_std' else ''}; download it again"
        )
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def _version_of_folder(folder: Path) -> str:
    names = {_CONFIG, *_PROCESSOR_FILES}
    files = sorted(f for f in folder.iterdir() if f.is_file() and (f.name in names or f.suffix == ".safetensors"))
    if not (folder / _CONFIG).is_file():
        raise MissingArtifact(f"{folder / _CONFIG}: no such file; expected the folder of a network of transformers")
    lines = "".join(f"{file.name} {sha256_file(file)}\n" for file in files)
    return f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"


def _read_object(path: Path) -> dict[str, Any]:
    content = read_json(path)
    if not isinstance(content, dict):
        raise CorruptArtifact(f"{path}: holds no JSON object, expected the configuration of a network; get it again")
    return content


def _hub_problem(name: str, error: OSError) -> str:
    return (
        f"{name}: no folder here, and not to be had from the Hugging Face hub ({_first_line(error)}); check the name, "
        "run this once with a connection so that it is kept in the cache, or download it elsewhere and name its folder"
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' own bars and reports off the screen: what matters of them is checked and raised here."""
    from transformers.utils import logging as screen

    level, bars = screen.get_verbosity(), screen.is_progress_bar_enabled()
    screen.set_verbosity_error()
    screen.disable_progress_bar()
    try:
        yield
    finally:
        screen.set_verbosity(level)
        if bars:
            screen.enable_progress_bar()
