"""The SigLIP juror: prepared like the stock processor, a head multiplied out exactly, scores that are scores."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import SiglipImageProcessor, SiglipVisionModel

from tests.retoucher.domain.procedural import noise, scene
from tests.retoucher.learn.pretrained_folders import (
    COMMIT,
    SIDE,
    WIDTH,
    WIDTHS,
    head_tensors,
    put_into_hub_cache,
    write_head,
    write_siglip,
)
from tests.retoucher.learn.worlds import PROPERTY, photos
from vernissage.core.errors import BadInput, CorruptArtifact, MissingArtifact
from vernissage.retoucher.learn.siglip import (
    Preparation,
    SiglipJuror,
    fold_head,
    head_layers,
    prepare,
    save_siglip,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pretrained")
    write_siglip(folder / "siglip")
    write_head(folder / "head.safetensors")
    return folder


@pytest.fixture
def project(shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's folder, worked in, with network and head below `pretrained`."""
    shutil.copytree(shipped, tmp_path / "project" / "pretrained")
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


@pytest.fixture(scope="module")
def juror(shipped: Path, tmp_path_factory: pytest.TempPathFactory) -> SiglipJuror:
    folder = tmp_path_factory.mktemp("juror")
    return save_siglip(folder, str(shipped / "siglip"), str(shipped / "head.safetensors"))


def saved(project: Path) -> SiglipJuror:
    return save_siglip(project / "models" / "juror", "pretrained/siglip", "pretrained/head.safetensors")


def stock(levels: np.ndarray, **settings: Any) -> torch.Tensor:
    """(1, 3, side, side) as transformers' own processor makes it with Pillow from (H, W, 3) uint8."""
    processor = SiglipImageProcessor(**settings)
    return processor(Image.fromarray(levels), return_tensors="pt")["pixel_values"]


# Preparation


@PROPERTY
@given(
    st.tuples(st.integers(1, 90), st.integers(1, 90)).map(sorted),
    st.sampled_from([(3, "bicubic"), (2, "bilinear")]),
    st.sampled_from([((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)), ((0.4, 0.5, 0.6), (0.2, 0.3, 0.4))]),
    st.booleans(),
    st.integers(0, 99),
)
def test_pictures_are_prepared_as_the_stock_processor_does(
    size: list[int], resample: tuple[int, str], values: tuple[Any, Any], rough: bool, seed: int
) -> None:
    picture = noise(1, *size, seed) if rough else scene(*size, seed)
    difference = levels_apart(picture, resample, values)
    assert difference.max() < 2.1
    # Bilinear weights of simple ratios hit halves exactly, which both sides round as they please.
    assert difference.mean() < (0.05 if resample[0] == 3 else 0.3)


def test_upright_pictures_are_prepared_nearly_so() -> None:
    # There Pillow 13 takes the other order of passes; what remains comes from rounding in between.
    pictures = [scene(height, width, seed) for seed, (height, width) in enumerate([(48, 36), (90, 60), (160, 107)])]
    for picture in pictures:
        difference = levels_apart(picture, (3, "bicubic"), ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)))
        assert difference.max() < 8
        assert difference.mean() < 0.4


def levels_apart(picture: torch.Tensor, resample: tuple[int, str], values: tuple[Any, Any]) -> torch.Tensor:
    """How far our preparation is from the stock processor's, in levels of 255."""
    levels = (picture * 255).round()
    expected = stock(
        levels[0].permute(1, 2, 0).byte().numpy(),
        size={"height": SIDE, "width": SIDE},
        image_mean=list(values[0]),
        image_std=list(values[1]),
        resample=resample[0],
    )
    ours = prepare(levels, Preparation(SIDE, *values, resample[1]))
    assert ours.shape == expected.shape == (1, 3, SIDE, SIDE)
    return (ours - expected).abs() * torch.tensor(values[1]).view(1, 3, 1, 1) * 255


def test_a_batch_is_prepared_like_each_picture_alone() -> None:
    levels = (noise(5, 40, 23) * 255).round()
    together = prepare(levels, Preparation(SIDE))
    assert torch.equal(together, torch.cat([prepare(one, Preparation(SIDE)) for one in levels.split(1)]))
    assert together.min() >= -1
    assert together.max() <= 1


# The head


@PROPERTY
@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(0, 999))
def test_a_head_multiplied_out_is_the_same_head(widths: list[int], seed: int) -> None:
    names = [f"layers.{number}" for number in range(len(widths))]
    layers = head_layers(head_tensors(names, [*widths, 1], seed), "head")
    weight, bias = fold_head(layers)
    inputs = torch.randn(7, widths[0], generator=torch.Generator().manual_seed(seed)).double()
    outputs = inputs
    for matrix, offset in layers:
        outputs = outputs @ matrix.double().T + offset.double()
    assert weight.shape == (widths[0],)
    assert torch.allclose(inputs @ weight + bias, outputs.squeeze(1), rtol=1e-9, atol=1e-9)


def test_the_published_head_has_so_many_weights_and_folds_to_so_few() -> None:
    names = [f"layers.{number}" for number in range(5)]
    tensors = head_tensors(names, (1152, 1024, 128, 64, 16, 1))
    assert sum(tensor.numel() for tensor in tensors.values()) == 1_321_185
    weight, bias = fold_head(head_layers(tensors, "head"))
    assert weight.numel() + 1 == 1_153
    assert isinstance(bias, float)


@pytest.mark.parametrize(
    "names",
    [
        ("0", "2", "4", "6", "8"),
        ("layers.0", "layers.1", "layers.2", "layers.3", "layers.4"),
        ("scoring_head.0", "scoring_head.2", "scoring_head.4", "scoring_head.6", "scoring_head.8"),
        ("layers.scoring_head.8", "layers.scoring_head.10", "layers.scoring_head.12", "layers.scoring_head.14",
         "layers.scoring_head.16"),
        ("fc1", "fc2", "fc3", "fc4", "fc5"),
    ],
)  # fmt: skip
def test_the_usual_names_are_understood(names: tuple[str, ...]) -> None:
    expected = fold_head(head_layers(head_tensors(), "head"))
    tensors = head_tensors(names)
    weight, bias = fold_head(head_layers(dict(sorted(tensors.items(), reverse=True)), "head"))
    assert torch.equal(weight, expected[0])
    assert bias == expected[1]


def test_other_tensors_beside_the_head_do_not_matter(shipped: Path) -> None:
    whole = {**load_file(shipped / "siglip" / "model.safetensors"), **head_tensors()}
    assert torch.equal(fold_head(head_layers(whole, "head"))[0], fold_head(head_layers(head_tensors(), "head"))[0])


def without(name: str) -> dict[str, torch.Tensor]:
    tensors = head_tensors()
    del tensors[name]
    return tensors


@pytest.mark.parametrize(
    ("tensors", "text"),
    [
        ({}, "found no heads among 0 tensors"),
        (without("layers.4.weight"), r"found no heads among 9 tensors .*expected one chain.*1152-1024-128-64-16-1"),
        ({**without("layers.4.weight"), "layers.4.weight": torch.zeros(9, 16)}, "found no heads"),
        (
            head_tensors(widths=(WIDTH, 24, 16, 8, 4, 2)),
            r"found no heads among 10 tensors \(\{'layers.0.bias': \(24,\)",
        ),
        ({**head_tensors(), **head_tensors(("b.0",), (WIDTH, 1))}, "found 2 heads"),
        ({**without("layers.8.bias"), "layers.8.bias": torch.tensor([float("nan")])}, "holds nan or infinity"),
    ],
)
def test_what_is_no_head_is_refused(tensors: dict[str, torch.Tensor], text: str) -> None:
    with pytest.raises(CorruptArtifact, match=rf"(?s)some\.safetensors: .*{text}"):
        head_layers(tensors, "some.safetensors")


# Scores


def test_scores_are_those_of_network_and_head_taken_step_by_step(juror: SiglipJuror, shipped: Path) -> None:
    pictures = photos(6, side=48)
    network = SiglipVisionModel.from_pretrained(shipped / "siglip").eval()
    head = torch.nn.Sequential(*(torch.nn.Linear(a, b) for a, b in itertools.pairwise(WIDTHS)))
    head.load_state_dict({k: v for (k, _), v in zip(head.state_dict().items(), head_tensors().values(), strict=True)})
    expected = []
    with torch.no_grad():
        for picture in pictures:
            levels = (picture * 255).round().byte().permute(1, 2, 0).numpy()
            pooled = network(pixel_values=stock(levels, size={"height": SIDE, "width": SIDE}, image_mean=[0.5] * 3,
                                                image_std=[0.5] * 3)).pooler_output  # fmt: skip
            expected.append(float(head(pooled / pooled.norm(dim=1, keepdim=True))))
    found = juror.score(pictures)
    assert found.shape == (6,)
    assert found.dtype == torch.float32
    assert found.tolist() == pytest.approx(expected, abs=0.005)
    assert found.std() > 0.02, "all the same: the comparison shows nothing"


def test_a_picture_scores_the_same_alone_and_among_many(juror: SiglipJuror) -> None:
    pictures = photos(70, side=20)  # more than one pass
    scores = juror.score(pictures)
    alone = torch.cat([juror.score(pictures[row : row + 1]) for row in (0, 31, 32, 69)])
    assert torch.allclose(scores[[0, 31, 32, 69]], alone, atol=1e-5)
    assert len(scores.unique()) > 60


def test_no_pictures_have_no_scores(juror: SiglipJuror) -> None:
    assert juror.score(torch.zeros(0, 3, 8, 8)).shape == (0,)


@pytest.mark.parametrize(("bias", "score"), [(400.0, 10.0), (-400.0, 0.0)])
def test_scores_stay_between_nought_and_ten(shipped: Path, tmp_path: Path, bias: float, score: float) -> None:
    head = write_head(tmp_path / "head.safetensors", bias=bias)
    juror = save_siglip(tmp_path / "juror", str(shipped / "siglip"), str(head))
    assert juror.score(photos(2)).tolist() == [score] * 2


def test_one_network_is_an_ensemble_that_agrees(juror: SiglipJuror) -> None:
    pictures = photos(3)
    assert torch.equal(juror.member_scores(pictures), juror.score(pictures).unsqueeze(0))
    assert juror.spread(pictures).tolist() == [0, 0, 0]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_pictures_that_hold_no_numbers_are_not_scored(juror: SiglipJuror, value: float) -> None:
    pictures = photos(2)
    pictures[1, 0, 3, 3] = value
    with pytest.raises(BadInput, match="hold nan or infinity"):
        juror.score(pictures)


def test_a_network_that_gives_no_numbers_raises(project: Path) -> None:
    file = project / "pretrained" / "siglip" / "model.safetensors"
    tensors = load_file(file)
    tensors["post_layernorm.weight"][3] = float("nan")
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(CorruptArtifact, match="pretrained/siglip: SigLIP gave scores that are not finite"):
        saved(project).score(photos(2))


def test_on_a_processor_it_computes_in_full_and_learns_nothing(juror: SiglipJuror) -> None:
    assert juror.device.type == "cpu"
    parameters = list(juror.encoder.parameters())
    assert {parameter.dtype for parameter in parameters} == {torch.float32}
    assert not any(parameter.requires_grad for parameter in parameters)
    assert not juror.score(photos(2).requires_grad_()).requires_grad


def test_half_precision_gives_nearly_the_same_scores(juror: SiglipJuror, shipped: Path) -> None:
    encoder = SiglipVisionModel.from_pretrained(shipped / "siglip", dtype=torch.bfloat16)
    half = SiglipJuror(encoder, juror.weight, juror.bias, juror.preparation, torch.device("cpu"), "half")
    pictures = photos(8, side=40)
    assert half.score(pictures).dtype == torch.float32
    assert torch.allclose(half.score(pictures), juror.score(pictures), atol=0.1)


# On disk


def test_a_saved_juror_comes_back_from_anywhere_and_moves_with_its_project(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = photos(3)
    expected = saved(project).score(pictures)
    written = json.loads((project / "models" / "juror" / "juror.json").read_text())
    assert written["kind"] == "siglip"
    assert written["model"]["name"] == "../../pretrained/siglip"
    monkeypatch.chdir(tmp_path)
    assert torch.equal(SiglipJuror.load(project / "models" / "juror").score(pictures), expected)
    project.rename(tmp_path / "moved")
    assert torch.equal(SiglipJuror.load(Path("moved/models/juror")).score(pictures), expected)
    # The head lies in the juror's folder: the file that it came from is not needed any more.
    (tmp_path / "moved" / "pretrained" / "head.safetensors").unlink()
    assert torch.equal(SiglipJuror.load(Path("moved/models/juror")).score(pictures), expected)


def test_a_juror_of_a_hub_name_is_pinned_to_its_commit(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = project / "cache"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    put_into_hub_cache(cache, "some/siglip", project / "pretrained" / "siglip")
    pictures = photos(3)
    folder = project / "models" / "juror"
    expected = save_siglip(folder, "some/siglip", "pretrained/head.safetensors").score(pictures)
    assert json.loads((folder / "juror.json").read_text())["model"] == {
        "name": "some/siglip",
        "local": False,
        "version": COMMIT,
    }
    put_into_hub_cache(cache, "some/siglip", write_siglip(project / "newer", seed=7), commit=COMMIT[::-1])
    assert torch.equal(SiglipJuror.load(folder).score(pictures), expected)
    assert not torch.equal(save_siglip(folder, "some/siglip", "pretrained/head.safetensors").score(pictures), expected)


def lose_network(project: Path) -> None:
    shutil.rmtree(project / "pretrained" / "siglip")


def swap_network(project: Path) -> None:
    write_siglip(project / "pretrained" / "siglip", seed=8)


def swap_head(project: Path) -> None:
    write_head(project / "models" / "juror" / "head.safetensors", seed=5)


def lose_head(project: Path) -> None:
    (project / "models" / "juror" / "head.safetensors").unlink()


def garble_specification(project: Path) -> None:
    (project / "models" / "juror" / "juror.json").write_text('{"kind": "siglip", "model": "somewhere"}')


@pytest.mark.parametrize(
    ("damage", "error", "text"),
    [
        (lose_network, MissingArtifact, r"pretrained/siglip: no such folder.*set juror\.siglip_model"),
        (swap_network, CorruptArtifact, r"pretrained/siglip: its files have changed"),
        (swap_head, CorruptArtifact, r"head\.safetensors: its hash is"),
        (lose_head, MissingArtifact, r"head\.safetensors: no such file"),
        (garble_specification, CorruptArtifact, r"juror\.json: .*dvc repro juror"),
    ],
)
def test_a_juror_that_is_not_what_was_saved_is_refused(
    project: Path, damage: Callable[[Path], None], error: type[Exception], text: str
) -> None:
    saved(project)
    damage(project)
    with pytest.raises(error, match=text):
        SiglipJuror.load(project / "models" / "juror")


def test_a_head_of_another_width_is_refused_by_path(project: Path) -> None:
    write_head(project / "pretrained" / "head.safetensors", widths=(40, 24, 16, 8, 4, 1))
    with pytest.raises(
        CorruptArtifact, match=r"head\.safetensors: a head of 40-24-16-8-4-1, expected 32 inputs, .*siglip"
    ):
        saved(project)
    assert not (project / "models" / "juror" / "juror.json").exists()


def test_a_head_that_is_no_safetensors_file_is_refused_by_path(project: Path) -> None:
    (project / "pretrained" / "head.safetensors").write_bytes(b"something else")
    with pytest.raises(CorruptArtifact, match=r"pretrained/head\.safetensors: not a safetensors file"):
        saved(project)


@pytest.mark.parametrize("changes", [{"size": {"height": 64, "width": 64}}, {"size": {"shortest_edge": SIDE}},
                                     {"resample": 1}, {"size": [1, 2]}, {"resample": [3]}])  # fmt: skip
def test_a_processor_that_does_not_go_with_the_network_is_refused(project: Path, changes: dict[str, Any]) -> None:
    write_siglip(project / "pretrained" / "siglip", **changes)
    with pytest.raises(CorruptArtifact, match="its processor asks for size"):
        saved(project)


def test_the_processor_of_the_folder_is_obeyed_and_a_missing_one_is_the_usual(project: Path) -> None:
    folder = project / "pretrained" / "siglip"
    write_siglip(folder, image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.4], resample=2, size=SIDE)
    assert saved(project).preparation == Preparation(SIDE, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4), "bilinear")
    (folder / "preprocessor_config.json").unlink()
    assert saved(project).preparation == Preparation(SIDE, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bicubic")


def test_a_network_without_its_pooling_is_refused(project: Path) -> None:
    config = project / "pretrained" / "siglip" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "vision_use_head": False}))
    with pytest.raises(BadInput, match="without its pooling head"):
        saved(project)
