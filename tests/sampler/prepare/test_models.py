from __future__ import annotations

import json
import logging
import math
import shutil
import unicodedata
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from tests.sampler.domain.tiny_pipelines import save_ddpm, save_sdxl, save_stable_diffusion
from vernissage.core.errors import BadInput, BadParams, CorruptArtifact, MissingArtifact
from vernissage.sampler.domain.denoiser import NULL, ClassLabels
from vernissage.sampler.domain.pipelines import PipelineDenoiser, load_denoiser
from vernissage.sampler.domain.programs import ipndm
from vernissage.sampler.domain.prompts import TextEmbeddings
from vernissage.sampler.domain.schedules import log_snr
from vernissage.sampler.domain.unet import EdmDenoiser, UNetSpec
from vernissage.sampler.learn.fitting import FitSettings, fit_coefficients
from vernissage.sampler.prepare.models import (
    EMBEDDED,
    ModelChoice,
    Network,
    network_facts,
    open_network,
    read_prompts,
    write_reference,
)
from vernissage.sampler.prepare.teacher_bank import Bank, RequestMix, make_bank, usual_teacher

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PROMPTS = ("a red fox", "a blue jay", "an owl")
KINDS = ("ddpm", "digits", "sd", "sdxl")
WITH_TEXT = ("sd", "sdxl")
UNET = "unet/diffusion_pytorch_model.safetensors"


def choice_of(kind: str, **options: Any) -> ModelChoice:
    if kind in WITH_TEXT:
        options = {"prompts_file": "birds.txt", "negative_prompt": "a dog"} | options
    return ModelChoice(kind, **({"null_class": 4} if kind == "digits" else {}), **options)


def prompts_of(kind: str) -> tuple[str, ...]:
    return PROMPTS if kind in WITH_TEXT else ()


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pipelines")
    save_ddpm(folder / "ddpm")
    save_ddpm(folder / "digits", num_class_embeds=5)
    save_stable_diffusion(folder / "sd")
    save_sdxl(folder / "sdxl")
    (folder / "birds.txt").write_text("# birds, mostly\n" + "\n".join(PROMPTS) + "\n")
    return folder


@pytest.fixture(scope="module")
def references(pipelines: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What the stage `denoiser` leaves for each kind of pipeline."""
    folder = tmp_path_factory.mktemp("references")
    for kind in KINDS:
        write_reference(folder / kind, choice_of(kind), prompts_of(kind), device="cpu", pipelines=pipelines)
    return {kind: folder / kind for kind in KINDS}


@pytest.fixture(scope="module")
def networks(references: dict[str, Path], pipelines: Path) -> dict[str, Network]:
    return {kind: open_network(folder, "cpu", pipelines=pipelines) for kind, folder in references.items()}


@pytest.fixture
def copied(pipelines: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A folder of pipelines of one's own with one of them, to be damaged."""

    def copy(kind: str) -> Path:
        shutil.copytree(pipelines / kind, tmp_path / "own" / kind)
        return tmp_path / "own"

    return copy


def asked(network: Network, labels: list[int], sigma: float = 1.5) -> torch.Tensor:
    noise = torch.randn(len(labels), *network.denoiser.shape, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        return network.denoiser(
            noise, torch.full((len(labels),), sigma), network.conditions(torch.tensor(labels, dtype=torch.long))
        )


# --- prompts ----------------------------------------------------------------------------------------------------------


def test_prompts_are_read_line_by_line(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_bytes("\ufeff# mine\r\n\r\n  a fox, #1 of its kind \r\n\ta caf\u00e9\r\n#a dog\r\nw\u0142asny".encode())
    assert read_prompts(file) == ("a fox, #1 of its kind", "a caf\u00e9", "w\u0142asny")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a fox\n\n# no\na fox \n", "line 4: 'a fox' stands in line 1"),
        ("caf\u00e9\ncafe\u0301\n".encode(), "line 2: .*stands in line 1"),
        (b"a fox\ngr\xfcn\n", "line 2: not UTF-8"),
        (b"a fox\nan\x00owl\n", r"line 2: holds the control character U\+0000"),
        (b"a fox\ran owl\n", r"line 1: holds the control character U\+000D"),
        (b"", "0 prompts, expected 1 to 10000"),
        (b"# nothing\n\n", "0 prompts, expected 1 to 10000"),
        (b"".join(b"%d\n" % number for number in range(10_001)), "10001 prompts"),
    ],
)
def test_prompts_that_cannot_be(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "prompts.txt").write_bytes(content)
    with pytest.raises(BadInput, match=f"prompts.txt.*{words}"):
        read_prompts(tmp_path / "prompts.txt")


def test_prompts_that_are_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "none.txt", tmp_path):
        with pytest.raises(MissingArtifact, match="one prompt per line"):
            read_prompts(path)


def test_a_file_that_is_no_text_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "film.txt").open("wb") as file:
        file.truncate((16 << 20) + 1)
    with pytest.raises(BadInput, match="is it a text file"):
        read_prompts(tmp_path / "film.txt")


LINE = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=12).filter(
    lambda text: not text.startswith("#")
)


@given(st.lists(LINE, min_size=1, max_size=6), st.lists(st.sampled_from(["", "  ", "# and so on", "\t"]), max_size=3))
def test_prompts_come_back(tmp_path_factory: pytest.TempPathFactory, prompts: list[str], others: list[str]) -> None:
    distinct = list(dict.fromkeys(unicodedata.normalize("NFC", prompt) for prompt in prompts))
    file = tmp_path_factory.getbasetemp() / "drawn.txt"
    file.write_bytes("\n".join([*others, *distinct, *others]).encode())
    assert list(read_prompts(file)) == distinct


# --- choices ----------------------------------------------------------------------------------------------------------


def test_a_choice_finds_its_prompts(pipelines: Path) -> None:
    assert choice_of("sd").prompts(pipelines) == PROMPTS
    assert ModelChoice().prompts(pipelines) == ()
    for name in ("../birds.txt", "/birds.txt", "a/../../birds.txt"):
        with pytest.raises(BadParams, match=r"sampler\.prompts"):
            ModelChoice("sd", name).prompts(pipelines)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model": ""}, r"sampler\.model"),
        ({"prompts_file": "birds.txt"}, "takes classes, no prompts"),
        ({"negative_prompt": "a dog"}, "takes classes, no prompts"),
        ({"precision": "float8"}, "float8.*expected one of auto, float32"),
        ({"model": "sd", "size": (8,)}, r"sampler\.size"),
        ({"model": "sd", "size": (8, 0)}, r"sampler\.size"),
    ],
)
def test_choices_that_cannot_be(options: dict[str, Any], words: str) -> None:
    with pytest.raises(BadParams, match=words):
        ModelChoice(**options)


@pytest.mark.parametrize("name", ["sd15", "sd/", "a/b/c", "someone/"])
def test_an_unknown_model_is_named_with_those_that_there_are(pipelines: Path, tmp_path: Path, name: str) -> None:
    name = {"sd/": "sdd/"}.get(name, name)
    with pytest.raises(BadParams, match=r"unknown, expected embedded, .*ddpm, digits, sd, sdxl.*hub name"):
        write_reference(tmp_path / "out", ModelChoice(name), pipelines=pipelines)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["../pipelines/sd", "/srv/sd", "~/sd", "..\\sd", "C:\\sd", "."])
def test_names_that_lead_elsewhere(pipelines: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(BadParams, match="copy or link the folder there"):
        write_reference(tmp_path, ModelChoice(name), pipelines=pipelines)


def test_a_name_of_the_hub_that_is_not_in_the_cache(
    tmp_path: Path, pipelines: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(MissingArtifact, match=r"someone/something.*hf download"):
        write_reference(tmp_path / "out", ModelChoice("someone/something"), pipelines=pipelines)
    assert not (tmp_path / "out").exists()


def test_the_embedded_model_needs_no_reference(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="weights of its own"):
        write_reference(tmp_path, ModelChoice())


@pytest.mark.parametrize(
    ("kind", "prompts", "options", "words"),
    [
        ("sd", (), {}, "takes prompts, found none"),
        ("sdxl", (), {}, "takes prompts, found none"),
        ("ddpm", PROMPTS, {}, "3 prompts for a network that takes no conditions"),
        ("digits", PROMPTS, {}, "3 prompts for a network that takes 5 classes"),
        ("ddpm", (), {"negative_prompt": "a dog"}, "0 prompts for a network that takes no conditions"),
        ("sd", ("an owl", "an owl"), {}, "same prompt twice"),
        ("sd", PROMPTS, {"negative_prompt": "an owl"}, "negative prompt as well"),
    ],
)
def test_prompts_must_fit_the_network(
    pipelines: Path, tmp_path: Path, kind: str, prompts: tuple[str, ...], options: dict[str, str], words: str
) -> None:
    with pytest.raises(BadInput, match=words):
        write_reference(tmp_path / "out", choice_of(kind, **options), prompts, device="cpu", pipelines=pipelines)
    assert not (tmp_path / "out").exists()


# --- opening ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_opened_is_the_pipeline(networks: dict[str, Network], pipelines: Path, kind: str) -> None:
    network = networks[kind]
    plain = load_denoiser(pipelines / kind, device="cpu", null_class=4 if kind == "digits" else None)
    assert network.denoiser.shape == plain.shape == network.facts.shape
    assert not network.embedded
    if kind in WITH_TEXT:
        condition: Any = plain.encode_prompts([PROMPTS[2], PROMPTS[0]], "a dog")
    else:
        condition = ClassLabels(torch.tensor([2, 0])) if kind == "digits" else None
    noise = torch.randn(2, *plain.shape, generator=torch.Generator().manual_seed(4))
    found = asked(network, [2, 0] if network.classes else [NULL, NULL])
    with torch.no_grad():
        torch.testing.assert_close(found, plain(noise, torch.full((2,), 1.5), condition))
        if condition is not None:
            torch.testing.assert_close(
                asked(network, [NULL, NULL]), plain(noise, torch.full((2,), 1.5), condition.null())
            )


def test_facts_are_known_without_opening(references: dict[str, Path], networks: dict[str, Network]) -> None:
    for kind, folder in references.items():
        assert network_facts(folder) == networks[kind].facts
    assert [networks[kind].facts.kind for kind in KINDS] == ["unconditional", "classes", "prompts", "prompts"]
    assert [networks[kind].classes for kind in KINDS] == [0, 5, 3, 3]
    assert [networks[kind].facts.guided for kind in KINDS] == [False, True, True, True]
    assert [networks[kind].facts.latent for kind in KINDS] == [False, False, True, True]
    assert [networks[kind].facts.sigma_data for kind in KINDS] == [0.5, 0.5, 1.0, 1.0]
    assert networks["sdxl"].names == PROMPTS
    assert networks["digits"].names == ("0", "1", "2", "3", "4")


@pytest.mark.parametrize("kind", WITH_TEXT)
def test_labels_are_numbers_of_prompts(networks: dict[str, Network], kind: str) -> None:
    network = networks[kind]
    condition = network.conditions(torch.tensor([2, NULL, 0, 2]))
    assert isinstance(condition, TextEmbeddings)
    assert torch.equal(condition.prompts[0], condition.prompts[3])
    assert not torch.equal(condition.prompts[0], condition.prompts[2])
    assert torch.equal(condition.prompts[1], condition.nothing[1])
    assert torch.equal(condition.nothing[0], condition.nothing[1])
    assert (condition.pooled is None) == (kind == "sd")
    assert len(network.conditions(torch.zeros(0, dtype=torch.long))) == 0  # type: ignore[arg-type]
    for strange in (3, -2):
        with pytest.raises(BadInput, match=f"prompt {strange}: there are prompts 0 to 2"):
            network.conditions(torch.tensor([0, strange]))


def test_a_network_of_nothing_is_asked_for_nothing(networks: dict[str, Network]) -> None:
    assert networks["ddpm"].conditions(torch.tensor([NULL, NULL])) is None
    with pytest.raises(BadInput, match="label 1: this network takes neither classes nor prompts"):
        networks["ddpm"].conditions(torch.tensor([NULL, 1]))


def test_pictures_are_decoded(networks: dict[str, Network]) -> None:
    samples = 2 * torch.randn(5, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    network = networks["sd"]
    assert isinstance(network.denoiser, PipelineDenoiser)
    pictures = network.pictures(samples, batch=2)
    torch.testing.assert_close(pictures, network.denoiser.decode(samples) * 2 - 1)
    assert pictures.shape == (5, 3, 16, 16)
    assert -1 <= float(pictures.min()) < float(pictures.max()) <= 1
    assert network.pictures(samples[:0]).shape == (0, 3, 16, 16)
    pixels = samples[:, :3].double()
    assert torch.equal(networks["ddpm"].pictures(pixels), pixels.float())
    with pytest.raises(BadInput, match="batches of 0"):
        network.pictures(samples, batch=0)


def test_precision_and_slicing_may_differ_from_what_was_written(references: dict[str, Path], pipelines: Path) -> None:
    network = open_network(references["sd"], "cpu", precision="bfloat16", attention_slicing=False, pipelines=pipelines)
    assert isinstance(network.denoiser, PipelineDenoiser)
    assert network.denoiser.dtype == torch.bfloat16
    assert asked(network, [0, 1]).dtype == torch.float32
    with pytest.raises(BadParams, match="precision"):
        open_network(references["sd"], "cpu", precision="double", pipelines=pipelines)  # type: ignore[arg-type]


def test_other_sizes(pipelines: Path, tmp_path: Path) -> None:
    written = write_reference(tmp_path, choice_of("sd", size=(16, 8)), PROMPTS, device="cpu", pipelines=pipelines)
    opened = open_network(tmp_path, "cpu", pipelines=pipelines)
    assert written.facts == opened.facts
    assert opened.denoiser.shape == (4, 16, 8)
    assert torch.equal(asked(written, [1]), asked(opened, [1]))


def test_a_device_that_is_not_there(references: dict[str, Path], pipelines: Path) -> None:
    with pytest.raises(BadParams, match="tpu"):
        open_network(references["ddpm"], "tpu", pipelines=pipelines)


def test_the_embedded_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    denoiser = EdmDenoiser(UNetSpec(1, 8, 3, width=8, sigma_data=0.6))
    denoiser.save(tmp_path, {"class_names": ["ape", "bee", "cat"]})
    network = open_network(tmp_path, "cpu")
    assert network.embedded
    assert network.facts == network_facts(tmp_path)
    assert (network.facts.model, network.names, network.classes) == (EMBEDDED, ("ape", "bee", "cat"), 3)
    assert (network.facts.shape, network.facts.sigma_data, network.facts.latent) == ((1, 8, 8), 0.6, False)
    assert isinstance(network.conditions(torch.tensor([2])), ClassLabels)
    noise = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(4))
    denoiser.eval()
    assert torch.equal(asked(network, [2]), denoiser(noise, torch.tensor([1.5]), ClassLabels(torch.tensor([2]))))
    assert torch.equal(network.pictures(noise), noise)


def test_embedded_models_that_are_damaged(tmp_path: Path) -> None:
    denoiser = EdmDenoiser(UNetSpec(1, 8, 3, width=8))
    denoiser.save(tmp_path, {"class_names": ["ape", "bee"]})
    with pytest.raises(CorruptArtifact, match="2 names for 3 classes"):
        network_facts(tmp_path)
    denoiser.save(tmp_path)
    assert network_facts(tmp_path).names == ("0", "1", "2")
    (tmp_path / "pipeline.json").write_text("{}")
    with pytest.raises(CorruptArtifact, match=r"pipeline\.json and model\.json"):
        open_network(tmp_path, "cpu")
    (tmp_path / "pipeline.json").unlink()
    (tmp_path / "model.safetensors").write_bytes(b"")
    for opened in (network_facts, open_network):
        with pytest.raises(CorruptArtifact, match=r"model\.safetensors"):
            opened(tmp_path)
    (tmp_path / "model.json").unlink()
    for opened in (network_facts, open_network):
        with pytest.raises(MissingArtifact, match="dvc repro denoiser"):
            opened(tmp_path)


# --- changes ----------------------------------------------------------------------------------------------------------


def _nudge(pipeline: Path) -> None:
    weights = load_file(pipeline / UNET)
    first = min(weights)
    save_file(weights | {first: weights[first] + 1e-3}, pipeline / UNET, {"format": "pt"})


CHANGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "weights": (_nudge, f"{UNET}: has changed"),
    "schedule": (
        lambda pipeline: (pipeline / "scheduler" / "scheduler_config.json").write_text("{}"),
        r"scheduler_config\.json: has changed",
    ),
    "gone": (lambda pipeline: (pipeline / "tokenizer" / "tokenizer_config.json").unlink(), "is gone"),
    "new": (lambda pipeline: (pipeline / "unet" / "other.safetensors").write_bytes(b"x"), "is new"),
}


@pytest.mark.parametrize(("change", "words"), CHANGES.values(), ids=CHANGES)
def test_a_changed_pipeline_is_noticed(
    copied: Callable[[str], Path], tmp_path: Path, change: Callable[[Path], None], words: str
) -> None:
    own = copied("sd")
    write_reference(tmp_path / "out", choice_of("sd"), PROMPTS, device="cpu", pipelines=own)
    change(own / "sd")
    with pytest.raises(CorruptArtifact, match=rf"{words} since .*pipeline\.json was written \(1 of \d+ files differ\)"):
        open_network(tmp_path / "out", "cpu", pipelines=own)
    assert network_facts(tmp_path / "out").names == PROMPTS


def test_what_is_not_read_may_change(copied: Callable[[str], Path], tmp_path: Path) -> None:
    own = copied("sd")
    write_reference(tmp_path / "out", choice_of("sd"), PROMPTS, device="cpu", pipelines=own)
    (own / "sd" / "safety_checker").mkdir()
    (own / "sd" / "safety_checker" / "model.safetensors").write_bytes(b"x")
    (own / "sd" / "README.md").write_text("mine")
    (own / "sd" / "unet" / "old.bin").write_bytes(b"x")
    assert open_network(tmp_path / "out", "cpu", pipelines=own).names == PROMPTS


def test_a_pipeline_that_is_gone(copied: Callable[[str], Path], tmp_path: Path) -> None:
    own = copied("ddpm")
    write_reference(tmp_path / "out", choice_of("ddpm"), device="cpu", pipelines=own)
    shutil.rmtree(own / "ddpm")
    with pytest.raises(MissingArtifact, match=r"ddpm: no such folder, but .*pipeline\.json refers to it"):
        open_network(tmp_path / "out", "cpu", pipelines=own)


def test_a_link_to_a_pipeline_elsewhere_will_do(pipelines: Path, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "mine").symlink_to(pipelines / "ddpm", target_is_directory=True)
    write_reference(tmp_path / "out", ModelChoice("mine"), device="cpu", pipelines=tmp_path / "own")
    assert open_network(tmp_path / "out", "cpu", pipelines=tmp_path / "own").facts.kind == "unconditional"


DAMAGES: dict[str, Any] = {
    "another format": ("format", 2),
    "no model": ("model", None),
    "embedded": ("model", EMBEDDED),
    "leads elsewhere": ("model", "../sd"),
    "unknown kind": ("kind", "video"),
    "no names": ("names", []),
    "names of numbers": ("names", [1, 2, 3]),
    "guided by text": ("guided", "yes"),
    "two sides": ("shape", [4, 8]),
    "no height": ("shape", [4, 0, 8]),
    "no sigma": ("sigma_data", 0),
    "no hashes": ("files", {}),
    "not local": ("local", False),
    "precision": ("precision", "float8"),
    "size": ("size", [8]),
    "size of text": ("size", "large"),
    "tiling": ("vae_tiling", None),
}


@pytest.mark.parametrize(("key", "value"), DAMAGES.values(), ids=DAMAGES)
def test_damaged_references(references: dict[str, Path], tmp_path: Path, key: str, value: Any) -> None:
    document = json.loads((references["sd"] / "pipeline.json").read_text())
    (tmp_path / "pipeline.json").write_text(json.dumps(document | {key: value}))
    with pytest.raises(CorruptArtifact, match="not a reference to a pipeline"):
        network_facts(tmp_path)
    del document[key]
    (tmp_path / "pipeline.json").write_text(json.dumps(document))
    with pytest.raises(CorruptArtifact, match=f"not a reference to a pipeline.*{key}"):
        network_facts(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '"sd"'])
def test_references_that_are_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "pipeline.json").write_text(text)
    with pytest.raises(CorruptArtifact, match=r"pipeline\.json"):
        network_facts(tmp_path)


def test_another_shape_than_written(references: dict[str, Path], pipelines: Path, tmp_path: Path) -> None:
    document = json.loads((references["sd"] / "pipeline.json").read_text())
    (tmp_path / "pipeline.json").write_text(json.dumps(document | {"shape": [4, 16, 16]}))
    with pytest.raises(CorruptArtifact, match=r"samples of sd are \(4, 8, 8\), expected \(4, 16, 16\)"):
        open_network(tmp_path, "cpu", pipelines=pipelines)


def test_a_pipeline_of_the_hub_stays_at_its_commit(
    pipelines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, commits = tmp_path / "cache" / "models--someone--something", ("0" * 40, "1" * 40)
    for commit in commits:
        shutil.copytree(pipelines / "ddpm", home / "snapshots" / commit)
    _nudge(home / "snapshots" / commits[1])
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(commits[0])
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    write_reference(tmp_path / "out", ModelChoice("someone/something"), device="cpu", pipelines=pipelines)
    document = json.loads((tmp_path / "out" / "pipeline.json").read_text())
    assert (document["local"], document["files"], document["revision"]) == (False, {}, commits[0])
    before = asked(open_network(tmp_path / "out", "cpu", pipelines=pipelines), [NULL])
    (home / "refs" / "main").write_text(commits[1])
    assert torch.equal(asked(open_network(tmp_path / "out", "cpu", pipelines=pipelines), [NULL]), before)
    moved = write_reference(tmp_path / "new", ModelChoice("someone/something"), device="cpu", pipelines=pipelines)
    assert not torch.equal(asked(moved, [NULL]), before)


# --- requests ---------------------------------------------------------------------------------------------------------


def test_what_is_asked_of_each_kind(networks: dict[str, Network], caplog: pytest.LogCaptureFixture) -> None:
    assert networks["sd"].facts.mix((1, 2.5), 4) == RequestMix.uneven(3, (1.0, 2.5), ratio=4)
    assert networks["digits"].facts.mix((1, 2.5), 2) == RequestMix.uneven(5, (1.0, 2.5), ratio=2)
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        assert networks["ddpm"].facts.mix((1, 2.5)) == RequestMix((), (1.0,))
    assert "ddpm knows no guidance" in caplog.text


@pytest.mark.parametrize("kind", KINDS)
def test_bank_and_programs_of_a_pipeline(networks: dict[str, Network], tmp_path: Path, kind: str) -> None:
    network = networks[kind]
    denoiser, mix = network.denoiser, network.facts.mix((1.0, 2.0))

    def made(part: str, batch: int) -> Bank:
        return make_bank(
            denoiser, part, 6, mix, teacher=usual_teacher(denoiser, 4), batch=batch, check_requests=1,
            check_bound=100.0, conditions=network.conditions,
        )  # fmt: skip

    for part in ("train", "val"):
        bank = made(part, 6)
        bank.save(tmp_path)
        assert {*bank.labels.tolist()} <= ({*range(network.classes)} or {NULL})
    train, val = (Bank.load(tmp_path, part, network.conditions) for part in ("train", "val"))
    torch.testing.assert_close(made("val", 4).endpoints, val.endpoints, rtol=1e-3, atol=1e-3)
    start = ipndm(log_snr(2, 0.1, denoiser.sigma_max), 2)
    fit = fit_coefficients(denoiser, train, val, start, FitSettings(steps=2, batch=3, looks=2, warm_up=0.0), tau=1.0)
    assert fit.skipped == 0
    # The numbers have moved: gradients came through the network.
    errors = [look.score.mean for look in fit.looks]
    assert all(map(math.isfinite, errors))
    assert len(set(errors)) == len(errors) > 1
