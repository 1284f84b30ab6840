"""Feature extractors: the features of the network that was named, learning where asked, rebuilt from a model alone."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import ResNetConfig, ResNetForImageClassification, ResNetModel

from tests.retoucher.learn.pretrained_folders import (
    COMMIT,
    put_into_hub_cache,
    seeded,
    write_resnet,
    write_siglip,
)
from tests.retoucher.learn.worlds import photos
from vernissage.core.errors import BadInput, BadParams, CorruptArtifact, MissingArtifact
from vernissage.core.params import load_params
from vernissage.core.weights import load_weights, save_weights
from vernissage.retoucher.learn.extractors import (
    ExtractorSpec,
    ResNetShape,
    ResNetTrunk,
    choose_extractor,
    load_first_weights,
    make_trunk,
    trained_parameters,
)
from vernissage.retoucher.learn.juror import PictureTrunk, picture_statistics

if TYPE_CHECKING:
    from pathlib import Path

STATISTICS = 6
THIN = ResNetShape((2, 2, 2, 2), "basic", 8, (8, 12, 16, 24))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("resnets")
    return {kind: write_resnet(root / kind, kind) for kind in ("resnet18", "resnet50")}


def trunk_of(folder: Path, trainable: str = "all", kind: str = "resnet18") -> ResNetTrunk:
    spec = choose_extractor(kind, str(folder), trainable)
    trunk = seeded(lambda: make_trunk(spec, (), STATISTICS), 5)
    load_first_weights(trunk, spec)
    return trunk


def values(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def changed(before: dict[str, torch.Tensor], module: nn.Module) -> set[str]:
    return {name for name, tensor in module.state_dict().items() if not torch.equal(tensor, before[name])}


class Judge(nn.Module):
    """A network around an extractor, as the policy is one."""

    def __init__(self, spec: ExtractorSpec) -> None:
        super().__init__()
        self.trunk = make_trunk(spec, (4, 8), STATISTICS)
        self.head = nn.Linear(self.trunk.width, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.trunk(images)).squeeze(1)


def learn(network: nn.Module, steps: int, side: int = 32) -> list[float]:
    """Teach brightness to a network in training mode; returns the losses."""
    pictures = photos(8, side=side)
    wanted = pictures.mean(dim=(1, 2, 3)) * 4
    optimiser = torch.optim.AdamW(trained_parameters(network), lr=3e-3, weight_decay=0.1)
    network.train()
    losses = []
    for _ in range(steps):
        loss = ((network(pictures) - wanted) ** 2).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


# Features


@pytest.mark.parametrize("kind", ["resnet18", "resnet50"])
def test_features_are_those_of_transformers_beside_the_statistics(kind: str, folders: dict[str, Path]) -> None:
    pictures = photos(3, side=40)
    trunk = trunk_of(folders[kind], kind=kind)
    network = ResNetModel.from_pretrained(folders[kind]).eval()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        pooled = network((pictures - mean.view(3, 1, 1)) / std.view(3, 1, 1)).pooler_output[:, :, 0, 0]
        found = trunk(pictures)
        told = trunk(pictures, picture_statistics(pictures))
        other = trunk(pictures, torch.zeros_like(picture_statistics(pictures)))
    assert found.shape == (3, trunk.width) == (3, 24 + STATISTICS)
    assert torch.allclose(found[:, :24], pooled, atol=1e-5)
    assert pooled.std() > 0.01
    assert torch.equal(found, told)
    assert torch.equal(found[:, :24], other[:, :24])
    assert not torch.equal(found[:, 24:], other[:, 24:])


def test_the_folder_says_how_pictures_are_normalised(tmp_path: Path) -> None:
    folder = write_resnet(tmp_path / "resnet", image_mean=[0.1, 0.2, 0.3], image_std=[0.5, 0.5, 1.0])
    pictures = photos(2)
    network = ResNetModel.from_pretrained(folder).eval()
    normalised = (pictures - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor([0.5, 0.5, 1]).view(3, 1, 1)
    with torch.no_grad():
        expected = network(normalised).pooler_output.flatten(1)
        assert torch.allclose(trunk_of(folder)(pictures)[:, :24], expected, atol=1e-5)


def test_a_classifier_gives_its_network(tmp_path: Path) -> None:
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 12, 16, 24], depths=[2, 2, 2, 2], layer_type="basic")
    classifier = seeded(lambda: ResNetForImageClassification(config), 4)
    classifier.save_pretrained(tmp_path / "classifier")
    trunk = trunk_of(tmp_path / "classifier")
    assert not changed(values(classifier.resnet), trunk.network)


def test_counters_that_older_files_lack_do_not_matter(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(folders["resnet18"], tmp_path / "old")
    tensors = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")}
    assert len(kept) < len(tensors)
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    assert not changed(values(trunk_of(folders["resnet18"]).network), trunk_of(folder).network)


def test_cnn_is_the_own_network() -> None:
    spec = choose_extractor("cnn", "", "all")
    assert spec == ExtractorSpec()
    trunk = seeded(lambda: make_trunk(spec, (4, 8), STATISTICS), 1)
    own = seeded(lambda: PictureTrunk((4, 8), STATISTICS), 1)
    assert isinstance(trunk, PictureTrunk)
    assert trunk.width == own.width
    before = values(trunk)
    load_first_weights(trunk, spec)
    assert not changed(before, trunk)
    assert torch.equal(trunk(photos(2)), own(photos(2)))
    assert len(trained_parameters(trunk)) == len(list(trunk.parameters()))


# What learns


@pytest.mark.parametrize(
    ("trainable", "learns", "stays"),
    [
        ("frozen", {"statistics."}, {"network."}),
        ("last", {"statistics.", "network.encoder.stages.3."}, {"network.embedder.", "network.encoder.stages.2."}),
        ("all", {"statistics.", "network.encoder.stages.3.", "network.embedder."}, set()),
    ],
)
def test_what_is_trained_changes_and_the_rest_does_not(
    trainable: str, learns: set[str], stays: set[str], folders: dict[str, Path]
) -> None:
    network = seeded(lambda: Judge(choose_extractor("resnet18", str(folders["resnet18"]), trainable)), 5)
    load_first_weights(network.trunk, choose_extractor("resnet18", str(folders["resnet18"]), trainable))
    before = values(network.trunk)
    learn(network, steps=2)
    moved = changed(before, network.trunk)
    parameters = dict(network.trunk.named_parameters())
    for prefix in learns:
        names = {name for name in parameters if name.startswith(prefix)}
        assert names
        assert names <= moved
        assert all(parameters[name].grad.abs().max() > 0 for name in names)
    for prefix in stays:
        names = {name for name in before if name.startswith(prefix)}
        assert names
        assert not names & moved
        assert all(parameters[name].grad is None for name in names & parameters.keys())
        assert not {id(parameters[name]) for name in names & parameters.keys()} & set(
            map(id, trained_parameters(network))
        )
    assert not {name for name in moved if "running_" in name or "num_batches" in name}


@pytest.mark.parametrize("trainable", ["frozen", "last", "all"])
def test_a_photo_is_seen_the_same_alone_in_a_batch_and_while_training(trainable: str, folders: dict[str, Path]) -> None:
    pictures, trunk = photos(4), trunk_of(folders["resnet18"], trainable)
    with torch.no_grad():
        calm = trunk.eval()(pictures)
        learning = trunk.train()(pictures)
        alone = trunk(pictures[2:3])
    assert torch.equal(calm, learning)
    assert torch.allclose(alone[0], calm[2], atol=1e-5)
    assert trunk.training
    assert trunk.statistics.training


def test_the_more_may_learn_the_sooner_it_is_learned(folders: dict[str, Path]) -> None:
    last = {}
    for trainable in ("all", "last", "frozen"):
        spec = choose_extractor("resnet18", str(folders["resnet18"]), trainable)
        network = seeded(lambda spec=spec: Judge(spec), 3)
        load_first_weights(network.trunk, spec)
        first, *_, last[trainable] = learn(network, steps=8)
        assert last[trainable] < 0.9 * first
    assert last["all"] < last["last"] < last["frozen"]


# Random weights


def test_random_weights_are_had_by_asking() -> None:
    spec = choose_extractor("resnet18", "random", "all")
    assert spec.weights == "random"
    one, same, two = (seeded(lambda: make_trunk(spec, (), STATISTICS), seed) for seed in (1, 1, 2))
    before = values(one)
    load_first_weights(one, spec)
    assert not changed(before, one)
    assert not changed(before, same)
    assert changed(before, two)
    assert one.width == 512 + STATISTICS
    with torch.no_grad():
        features = one(photos(2, side=32))[:, :512]
    assert torch.isfinite(features).all()
    assert 0.05 < features.std() < 20


def test_the_deep_one_has_its_own_width_and_keeps_its_scale() -> None:
    trunk = seeded(lambda: make_trunk(choose_extractor("resnet50", "random", "frozen"), (), STATISTICS), 1)
    assert trunk.width == 2048 + STATISTICS
    assert sum(parameter.numel() for parameter in trunk.network.parameters()) == 23_508_032
    with torch.no_grad():
        assert 0.05 < trunk(photos(2, side=32))[:, :2048].std() < 20


def test_a_random_network_learns() -> None:
    network = seeded(lambda: Judge(ExtractorSpec("resnet18", "random", "", "all", THIN)), 2)
    losses = learn(network, steps=12)
    assert losses[-1] < 0.5 * losses[0]


# Round trip


@pytest.mark.parametrize("trainable", ["frozen", "last", "all"])
def test_a_saved_network_is_rebuilt_from_its_own_files(trainable: str, tmp_path: Path) -> None:
    folder = write_resnet(tmp_path / "resnet", image_mean=[0.1, 0.2, 0.3])
    spec = choose_extractor("resnet18", str(folder), trainable)
    network = Judge(spec)
    load_first_weights(network.trunk, spec)
    learn(network, steps=1)
    expected = network.eval()(photos(3)).detach()
    save_weights(tmp_path / "model", network.state_dict(), {"extractor": spec.to_json()})
    shutil.rmtree(folder)
    tensors, saved = load_weights(tmp_path / "model")
    again = ExtractorSpec.from_json(saved["extractor"])
    assert again == spec
    rebuilt = Judge(again)
    rebuilt.load_state_dict(tensors)
    assert torch.equal(rebuilt.eval()(photos(3)).detach(), expected)
    assert {n for n, p in rebuilt.named_parameters() if p.requires_grad} == {
        n for n, p in network.named_parameters() if p.requires_grad
    }


@pytest.mark.parametrize("spec", [ExtractorSpec(), ExtractorSpec("resnet50", "random", "", "last", THIN)])
def test_a_specification_survives_json(spec: ExtractorSpec) -> None:
    assert ExtractorSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    assert ExtractorSpec.from_json(spec.to_json()) == spec
    assert hash(ExtractorSpec.from_json(json.loads(json.dumps(spec.to_json())))) == hash(spec)


def test_models_from_before_have_the_cnn() -> None:
    assert ExtractorSpec.from_json({}) == ExtractorSpec()


@pytest.mark.parametrize(
    "values",
    [{"kind": "vit"}, {"kind": "resnet18"}, {"kind": "cnn", "shape": THIN.__dict__}, {"size": 3}, {"shape": 3},
     {"kind": "resnet18", "shape": {"depths": [1]}}, 3, {"trainable": "some"}],
)  # fmt: skip
def test_a_specification_that_makes_no_sense_is_refused(values: Any) -> None:
    with pytest.raises(CorruptArtifact, match="dvc repro train@retoucher"):
        ExtractorSpec.from_json(values)


def test_weights_of_a_hub_name_stay_those_of_their_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    preparation = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    put_into_hub_cache(cache, "some/resnet-18", write_resnet(tmp_path / "one", **preparation))
    spec = choose_extractor("resnet18", "some/resnet-18", "all")
    assert spec.version == COMMIT
    newer = write_resnet(tmp_path / "two", seed=8, **preparation)
    put_into_hub_cache(cache, "some/resnet-18", newer, commit=COMMIT[::-1])
    trunk = make_trunk(spec, (), STATISTICS)
    load_first_weights(trunk, spec)
    assert not changed(values(trunk_of(tmp_path / "one").network), trunk.network)


# What is refused


def test_an_unknown_kind_lists_the_known_ones() -> None:
    with pytest.raises(
        BadParams, match=r"extractor = 'resnet1': expected one of cnn, resnet18, resnet50; did you mean"
    ):
        choose_extractor("resnet1", "random", "all")
    with pytest.raises(BadParams, match=r"extractor_trainable = 'most': expected one of frozen, last, all"):
        choose_extractor("resnet18", "random", "most")


@pytest.mark.parametrize(
    ("kind", "weights", "trainable", "text"),
    [
        ("resnet18", "", "all", r"empty with extractor = resnet18: expected a hub name such as microsoft/resnet-18"),
        ("resnet50", "", "frozen", r"such as microsoft/resnet-50, a local folder, or random"),
        ("cnn", "random", "all", r"extractor_weights = 'random' with extractor = cnn, which has none"),
        ("cnn", "", "frozen", r"extractor_trainable = 'frozen' with extractor = cnn"),
    ],
)
def test_parameters_that_do_not_go_together_are_refused_before_anything_runs(
    kind: str, weights: str, trainable: str, text: str, pytestconfig: pytest.Config
) -> None:
    with pytest.raises(BadParams, match=text):
        choose_extractor(kind, weights, trainable)
    section = "train.retoucher.extractor"
    overrides = [f"{section}={kind}", f'{section}_weights="{weights}"', f"{section}_trainable={trainable}"]
    with pytest.raises(BadParams, match=rf"train\.retoucher: .*{text}"):
        load_params(pytestconfig.rootpath / "params.yaml", overrides=overrides)


def test_the_parameters_list_the_kinds(pytestconfig: pytest.Config) -> None:
    with pytest.raises(BadParams, match="expected one of cnn, resnet18, resnet50"):
        load_params(pytestconfig.rootpath / "params.yaml", overrides=["train.retoucher.extractor=vit"])


def test_a_network_of_another_kind_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"bottleneck blocks \(3, 4, 6, 3\), expected basic blocks \(2, 2, 2, 2\)"):
        choose_extractor("resnet18", str(folders["resnet50"]), "all")
    with pytest.raises(BadInput, match="type 'siglip_vision_model', expected resnet"):
        choose_extractor("resnet18", str(write_siglip(tmp_path / "siglip")), "all")


@pytest.mark.parametrize("change", [{"depths": 3}, {"hidden_sizes": ["wide"]}, {"embedding_size": None}])
def test_a_configuration_that_describes_no_resnet_is_refused(
    folders: dict[str, Path], tmp_path: Path, change: dict[str, Any]
) -> None:
    folder = shutil.copytree(folders["resnet18"], tmp_path / "resnet")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(CorruptArtifact, match="describes no ResNet"):
        choose_extractor("resnet18", str(folder), "all")


def test_weights_that_are_not_there_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(MissingArtifact, match="microsoft/resnet-18: no folder here, and not to be had"):
        choose_extractor("resnet18", "microsoft/resnet-18", "frozen")
    with pytest.raises(MissingArtifact, match="nowhere: no such folder"):
        choose_extractor("resnet18", str(tmp_path / "nowhere"), "frozen")


def test_weights_that_changed_since_are_refused(tmp_path: Path) -> None:
    folder = write_resnet(tmp_path / "resnet")
    spec = choose_extractor("resnet18", str(folder), "all")
    write_resnet(folder, seed=9)
    with pytest.raises(CorruptArtifact, match="its files have changed"):
        load_first_weights(make_trunk(spec, (), STATISTICS), spec)


def test_a_specification_needs_a_shape_exactly_where_there_is_one() -> None:
    with pytest.raises(BadParams, match="expected a shape for a ResNet"):
        replace(ExtractorSpec(), kind="resnet18")
