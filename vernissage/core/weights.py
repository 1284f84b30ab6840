"""Model weights on disk: tensors as safetensors, everything else as JSON with the tensors' hash; never pickle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from vernissage.core.errors import CorruptArtifact, MissingArtifact, NotEnoughDisk
from vernissage.core.files import atomic_path, atomic_write_json, read_json, sha256_file

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

FORMAT = 1


def save_weights(
    folder: Path | str, tensors: Mapping[str, torch.Tensor], spec: Mapping[str, Any], *, name: str = "model"
) -> None:
    """Write `name`.safetensors and `name`.json into `folder`.

    The JSON is written last and holds the hash of the tensors, so a crash between the two leaves a pair that
    `load_weights` refuses, never one that it half believes.

    Args:
        folder: Made if it is not there.
        tensors: What the network's `state_dict` gives; moved to the CPU and copied where two share memory.
        spec: All that is needed to build the network again: sizes, names, normalisation. Plain JSON values.
        name: Stem of the two files.

    Raises:
        ValueError: `spec` holds nan or infinity.
        TypeError: `spec` holds something that JSON has no form for.
        NotEnoughDisk: The tensors cannot be written.
    """
    place = Path(folder)
    plain = {key: tensor.detach().cpu().clone().contiguous() for key, tensor in tensors.items()}
    with atomic_path(place / f"{name}.safetensors") as temporary:
        try:
            save_file(plain, temporary)
        except SafetensorError as error:
            raise NotEnoughDisk(
                f"{place / name}.safetensors: cannot be written ({error}); free some space and run again"
            ) from error
    digest = sha256_file(place / f"{name}.safetensors")
    atomic_write_json(place / f"{name}.json", {"format": FORMAT, "sha256": digest, "spec": dict(spec)})


def load_weights(folder: Path | str, *, name: str = "model") -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return the tensors (on the CPU) and the spec that `save_weights` wrote.

    Raises:
        MissingArtifact: One of the two files is not there.
        CorruptArtifact: The hash differs, or a file is not what was written.
    """
    tensors_path, spec_path = Path(folder) / f"{name}.safetensors", Path(folder) / f"{name}.json"
    for path in (spec_path, tensors_path):
        if not path.is_file():
            raise MissingArtifact(f"{path}: no such file; make it with `dvc repro train`, or fetch it with `dvc pull`")
    record = read_json(spec_path)
    if not isinstance(record, dict) or not isinstance(record.get("spec"), dict) or "sha256" not in record:
        raise CorruptArtifact(f"{spec_path}: expected format, sha256 and spec; {_REMEDY}")
    if record.get("format") != FORMAT:
        raise CorruptArtifact(
            f"{spec_path}: format {record.get('format')!r}, this version reads format {FORMAT}; train again, "
            "or use the version of Vernissage that wrote it"
        )
    digest = sha256_file(tensors_path)
    if digest != record["sha256"]:
        raise CorruptArtifact(f"{tensors_path}: its hash is {digest}, expected {record['sha256']}; {_REMEDY}")
    try:
        return load_file(tensors_path, device="cpu"), record["spec"]
    except (SafetensorError, OSError) as error:
        raise CorruptArtifact(f"{tensors_path}: not a safetensors file ({error}); {_REMEDY}") from error


_REMEDY = "get it back with `dvc checkout` or `dvc pull`, or train again"
