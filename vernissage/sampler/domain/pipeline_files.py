"""The parts of a pipeline of `diffusers` on disk or on the Hugging Face hub: safetensors only, complete or refused.

Classes are named here, never looked up by a name from a file, and a safety checker is not read.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vernissage.core.errors import BadInput, CorruptArtifact, MissingArtifact

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import torch

#: Text encoders of each kind of pipeline.
_KINDS: dict[str, tuple[str, ...]] = {
    "DDPMPipeline": (),
    "DDIMPipeline": (),
    "StableDiffusionPipeline": ("text_encoder",),
    "StableDiffusionXLPipeline": ("text_encoder", "text_encoder_2"),
}
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_CONVERT = (
    "weights are read from safetensors only, because other formats can run code; write the pipeline again with "
    "`save_pretrained(folder, safe_serialization=True)`"
)
_SINGLE_FILE = (
    "one file, expected the folder of a pipeline; convert it once with "
    "`StableDiffusionPipeline.from_single_file(file).save_pretrained(folder)`"
)


@dataclass(frozen=True)
class PipelineFiles:
    """Where the parts of one pipeline are.

    Attributes:
        name: Folder or hub name.
        revision: Commit, branch or tag on the hub; none is its main branch.
        variant: Such as `fp16`, where a repository holds several kinds of weights.
    """

    name: str
    revision: str | None = None
    variant: str | None = None

    @property
    def local(self) -> bool:
        """Whether it is a folder."""
        return Path(self.name).is_dir()

    def config(self, kind: Any, folder: str = "") -> dict[str, Any]:
        """Read a configuration.

        Args:
            kind: The class of diffusers whose configuration it is.
            folder: Inside the pipeline.

        Raises:
            MissingArtifact: There is no such pipeline or file.
            BadInput: It is a single file.
            CorruptArtifact: It is no JSON object.
        """
        path = Path(self.name)
        if path.is_file():
            raise BadInput(f"{self.name}: {_SINGLE_FILE}")
        if not self.local and not _HUB_NAME.fullmatch(self.name):
            raise MissingArtifact(f"{self.name}: no such folder, and no hub name, which is written owner/name")
        file = path / folder / kind.config_name
        if self.local and not file.is_file():
            raise MissingArtifact(f"{file}: no such file; expected a folder that `save_pretrained` of a pipeline wrote")
        try:
            content = kind.load_config(self.name, subfolder=folder or None, revision=self.revision)
        except OSError as error:
            if self.local:
                raise CorruptArtifact(f"{file}: {_first_line(error)}; get it again") from error
            raise self._not_there(kind.config_name, error) from error
        if not isinstance(content, dict):
            raise CorruptArtifact(f"{file}: holds no JSON object, expected a configuration; get it again")
        return content

    def text_encoders(self, index: Mapping[str, Any]) -> tuple[str, ...]:
        """Names of a pipeline's text encoders, by the content of its `model_index.json`.

        Raises:
            BadInput: It is a pipeline of another kind, or some part of it is.
        """
        kind = str(index.get("_class_name"))
        if kind not in _KINDS:
            raise BadInput(f"{self.name}: a {kind}, expected {', '.join(_KINDS)}")
        expected: dict[str, tuple[str, ...]] = {"unet": ("UNet2DModel",)}
        if _KINDS[kind]:
            expected = {"unet": ("UNet2DConditionModel",), "vae": ("AutoencoderKL",)}
        expected |= dict.fromkeys(_KINDS[kind], ("CLIPTextModel", "CLIPTextModelWithProjection"))
        for part, classes in expected.items():
            entry = index.get(part)
            found = entry[-1] if isinstance(entry, (list, tuple)) and entry else entry
            if found not in classes:
                raise BadInput(f"{self.name}: its {part} is a {found}, expected {' or '.join(classes)}")
        return _KINDS[kind]

    def network(self, kind: Any, folder: str, dtype: torch.dtype) -> Any:
        """Load a network of diffusers.

        Args:
            kind: Its class.
            folder: Inside the pipeline.
            dtype: Type of its weights in memory.

        Returns:
            On the CPU, for evaluation, its weights without gradients.

        Raises:
            MissingArtifact: It is not there as safetensors.
            CorruptArtifact: It cannot be read, or weights are missing.
        """
        return self._weights(kind, folder, torch_dtype=dtype, low_cpu_mem_usage=False)

    def text_encoder(self, folder: str, dtype: torch.dtype) -> Any:
        """Load a text encoder, as :meth:`network` does; the second of two also pools its rows."""
        from transformers import CLIPTextModel, CLIPTextModelWithProjection

        kind = CLIPTextModelWithProjection if folder.endswith("_2") else CLIPTextModel
        return self._weights(kind, folder, dtype=dtype)

    def tokenizer(self, text_encoder: str) -> Any:
        """Load the tokenizer of a text encoder."""
        from transformers import CLIPTokenizer

        return self._loaded(CLIPTokenizer, text_encoder.replace("text_encoder", "tokenizer"))

    def _weights(self, kind: Any, folder: str, **options: Any) -> Any:
        if self.variant:
            options["variant"] = self.variant
        network, facts = self._loaded(kind, folder, use_safetensors=True, output_loading_info=True, **options)
        # Positions are counted, not learned, and older files lack or hold them.
        missing = sorted(key for key in facts["missing_keys"] if not key.endswith("position_ids"))
        if missing:
            raise CorruptArtifact(
                f"{self.name}: {folder} lacks {len(missing)} of {len(network.state_dict())} weights of {kind.__name__} "
                f"({missing[0]} for one), expected all; get it again"
            )
        return network.eval().requires_grad_(requires_grad=False)

    def _loaded(self, kind: Any, folder: str, **options: Any) -> Any:
        from safetensors import SafetensorError

        if self.revision:
            options["revision"] = self.revision
        try:
            with _quiet():
                return kind.from_pretrained(self.name, subfolder=folder, **options)
        except OSError as error:
            if _damaged(error):
                raise CorruptArtifact(f"{self.name}: {folder}: {_first_line(error)}; get it again") from error
            if self.local:
                raise MissingArtifact(f"{Path(self.name) / folder}: {_first_line(error)}; {_CONVERT}") from error
            raise self._not_there(folder, error) from error
        except (
            SafetensorError, RuntimeError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError,
        ) as error:  # fmt: skip
            # A configuration is foreign text, which the loaders take at its word until something breaks.
            raise CorruptArtifact(
                f"{self.name}: {folder} cannot be loaded as {kind.__name__} ({type(error).__name__}: "
                f"{_first_line(error)}); get it again"
            ) from error

    def _not_there(self, part: str, error: OSError) -> MissingArtifact:
        from huggingface_hub import constants

        offline = "HF_HUB_OFFLINE forbids to ask the hub"
        state = offline if constants.HF_HUB_OFFLINE else f"the hub did not give it ({_first_line(error)})"
        return MissingArtifact(
            f"{self.name}: {part} is neither in a local folder of that name nor in the Hugging Face cache "
            f"({constants.HF_HUB_CACHE}), and {state}; check the name, run once with a "
            f"connection to keep it in the cache, or run `hf download {self.name}` elsewhere, copy the folder "
            "and pass its path"
        )


def _damaged(error: BaseException | None) -> bool:
    """Whether weights were there, behind an error that only says that something went wrong."""
    from safetensors import SafetensorError

    return error is not None and (isinstance(error, SafetensorError) or _damaged(error.__cause__ or error.__context__))


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the loaders' own bars and reports off the screen: what matters of them is checked and raised here."""
    from diffusers.utils import logging as pipelines
    from transformers.utils import logging as encoders

    before = [(screen, screen.get_verbosity(), screen.is_progress_bar_enabled()) for screen in (pipelines, encoders)]
    for screen, _, _ in before:
        screen.set_verbosity_error()
        screen.disable_progress_bar()
    try:
        yield
    finally:
        for screen, level, bars in before:
            screen.set_verbosity(level)
            if bars:
                screen.enable_progress_bar()
