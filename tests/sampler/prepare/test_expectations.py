from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import great_expectations as gx
import pytest
import torch
from great_expectations.data_context.types.base import ProgressBarsConfig

from tests.sampler.domain.tiny_pipelines import save_stable_diffusion
from vernissage.core.errors import CorruptArtifact, MissingArtifact
from vernissage.core.gate_spec import Gate
from vernissage.pipeline.gates import run_gate
from vernissage.sampler.domain.programs import dpmpp, euler
from vernissage.sampler.domain.unet import EdmDenoiser, UNetSpec
from vernissage.sampler.prepare.expectations import GateLimits, expectations, gate_tables, sampler_gate
from vernissage.sampler.prepare.models import EMBEDDED, ModelChoice, NetworkFacts, write_reference
from vernissage.sampler.prepare.pictures import ClassPictures, Rejected
from vernissage.sampler.prepare.teacher_bank import (
    PARTS,
    Bank,
    RequestMix,
    TeacherCheck,
    make_bank,
    part_seeds,
    usual_teacher,
)

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

COUNT = 160
NAMES = tuple("abcd")
SCALES = (1.0, 1.1, 2.5)
FACTS = NetworkFacts(EMBEDDED, "classes", NAMES, guided=True, shape=(1, 8, 8), sigma_data=0.5, latent=False)
LIMITS = GateLimits(dict.fromkeys(PARTS, COUNT), SCALES, 4.0)
MIX = FACTS.mix(SCALES, 4.0)
TEACHER = dpmpp((80.0, 1.0, 0.0))

Data = tuple[dict[str, Bank], ClassPictures]
Damage = Callable[[dict[str, Bank], ClassPictures], Data]


def a_bank(part: str, seeds: list[int], mix: RequestMix = MIX) -> Bank:
    labels, scales = mix.draw(seeds)
    endpoints = torch.rand(len(seeds), 1, 8, 8, generator=torch.Generator().manual_seed(3)) * 2.2 - 1.1
    check = TeacherCheck(median=0.0004, p95=0.002, bound=0.001, requests=64, calls=255)
    return Bank(part, torch.tensor(seeds), labels, scales, endpoints, TEACHER, check)


@pytest.fixture(scope="module")
def banks() -> dict[str, Bank]:
    return {part: a_bank(part, part_seeds(part, COUNT)) for part in PARTS}


@pytest.fixture(scope="module")
def pictures() -> ClassPictures:
    generator = torch.Generator().manual_seed(5)
    return ClassPictures(
        torch.randint(0, 256, (200, 1, 8, 8), generator=generator, dtype=torch.uint8),
        torch.arange(200) % 4,
        (torch.arange(200) // 10 % 3).to(torch.uint8),
        NAMES,
        (Rejected("a/1.png", "empty file"),),
    )


@pytest.fixture(scope="module")
def failed(banks: dict[str, Bank], pictures: ClassPictures) -> Callable[[dict[str, pd.DataFrame]], list[str]]:
    """The meanings of what fails.

    Expectations about columns that are as in the sound bank are not asked again: they hold there, which
    `test_a_sound_bank_passes` sees to.
    """
    sound = gate_tables(list(banks.values()), FACTS, LIMITS, pictures)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("tables").add_dataframe_asset("table")
    whole = asset.add_batch_definition_whole_dataframe("all rows")

    def check(tables: dict[str, pd.DataFrame]) -> list[str]:
        found = []
        for item in expectations(FACTS, LIMITS):
            table = tables[item.table]
            columns = getattr(item.expectation, "column_list", None) or [item.expectation.column]
            if all(table[column].equals(sound[item.table][column]) for column in columns):
                continue
            if not whole.get_batch({"dataframe": table}).validate(item.expectation).success:
                found.append(item.meaning)
        return found

    return check


def saved(folder: Path, banks: dict[str, Bank], pictures: ClassPictures) -> tuple[Path, Path]:
    ready, network = folder / "ready", folder / "network"
    for bank in banks.values():
        bank.save(ready)
    EdmDenoiser(UNetSpec(1, 8, 4, width=8)).save(network, {"class_names": list(NAMES)})
    pictures.save(network)
    return ready, network


def test_a_sound_bank_passes(banks: dict[str, Bank], pictures: ClassPictures, tmp_path: Path) -> None:
    gate = sampler_gate(*saved(tmp_path, banks, pictures)[:1], LIMITS, tmp_path / "network")
    result = run_gate(gate)
    assert result.passed, result.failed_findings
    assert len(result.findings) == len(gate.expectations)
    # An expectation about a column of nothing would pass whatever happens.
    columns = ["as_drawn", "finite", "missing", "left_out_share", "outside_share", "teacher_error", "chance", "parts"]
    for name, table in gate.tables.items():
        assert len(table) > 0
        for column in {*columns} & {*table.columns}:
            assert table[column].notna().all(), (name, column)
    assert len(gate.tables["labels"]) == 12
    assert len(gate.tables["scales"]) == 9


def _of(part: str, change: Callable[[Bank], Bank]) -> Damage:
    def damage(banks: dict[str, Bank], pictures: ClassPictures) -> Data:
        return banks | {part: change(banks[part])}, pictures

    return damage


def _put(column: str, value: float, row: int = 7) -> Damage:
    def change(bank: Bank) -> Bank:
        tensor = getattr(bank, column).clone()
        tensor[row] = value
        return replace(bank, **{column: tensor})

    return _of("val", change)


def _checked(**values: float) -> Damage:
    return _of("test", lambda bank: replace(bank, check=replace(bank.check, **values)))


def _replaced(bank: Bank, rows: dict[str, torch.Tensor]) -> Bank:
    """The last request becomes another one."""
    return replace(bank, **{key: torch.cat((getattr(bank, key)[:-1], value)) for key, value in rows.items()})


def _request(bank: Bank, row: int) -> dict[str, torch.Tensor]:
    return {key: getattr(bank, key)[row : row + 1] for key in ("seeds", "labels", "scales", "endpoints")}


def _leak(banks: dict[str, Bank], pictures: ClassPictures) -> Data:
    return banks | {"test": _replaced(banks["test"], _request(banks["train"], 3))}, pictures


def _lose(bank: Bank, count: int, *, told: bool) -> Bank:
    left_out = tuple((seed, 3) for seed in bank.seeds[:count].tolist())
    return replace(bank.rows(torch.arange(count, len(bank))), left_out=left_out if told else ())


def _only(chosen: Callable[[int, int, float], bool]) -> Damage:
    """Seeds that were not drawn but picked: every request is what its seed draws, and yet they are not honest."""

    def change(bank: Bank) -> Bank:
        seeds = part_seeds("train", 3 * COUNT)
        labels, scales = MIX.draw(seeds)
        requests = zip(seeds, labels.tolist(), scales.tolist(), strict=True)
        return a_bank("train", [request[0] for request in requests if chosen(*request)][:COUNT])

    return _of("train", change)


def _pictures(**values: object) -> Damage:
    return lambda banks, pictures: (banks, replace(pictures, **values))  # type: ignore[arg-type]


def _copied_over(banks: dict[str, Bank], pictures: ClassPictures) -> Data:
    """Some held-out pictures are train pictures."""
    pixels = pictures.pictures.clone()
    pixels[10:15] = pixels[:5]
    return banks, replace(pictures, pictures=pixels)


def _flattened(banks: dict[str, Bank], pictures: ClassPictures) -> Data:
    pixels = pictures.pictures.clone()
    pixels[:15] = torch.arange(15, dtype=torch.uint8).view(15, 1, 1, 1)
    return banks, replace(pictures, pictures=pixels)


def _without_a_class(banks: dict[str, Bank], pictures: ClassPictures) -> Data:
    splits = pictures.splits.clone()
    splits[pictures.labels == 2] = 1
    return banks, replace(pictures, splits=splits)


def _enlarged(banks: dict[str, Bank], pictures: ClassPictures) -> Data:
    return banks, replace(pictures, pictures=pictures.pictures.repeat(1, 1, 2, 2))


BREAKS: dict[str, tuple[str, Damage]] = {
    "seed twice": ("no seed comes twice in a part", _of("val", lambda bank: _replaced(bank, _request(bank, 3)))),
    "seed in two parts": ("no seed is in two parts", _leak),
    "label 4": ("every label is one that the network knows", _put("labels", 4)),
    "no label": ("every label is one that the network knows", _put("labels", -1)),
    "scale 4": ("every guidance scale is one of teacher_bank.guidance", _put("scales", 4.0)),
    "another draw": (
        "label and scale are what the seed draws",
        _of("val", lambda bank: replace(bank, labels=torch.cat((bank.labels[1:], bank.labels[:1])))),
    ),
    "nan in an endpoint": ("every endpoint is finite", _put("endpoints", math.nan)),
    "infinite endpoint": ("every endpoint is finite", _put("endpoints", -math.inf)),
    "requests lost": ("every part has as many requests as", _of("val", lambda bank: _lose(bank, 2, told=False))),
    "too many left out": ("hardly any request is left out", _of("val", lambda bank: _lose(bank, 6, told=True))),
    "another shape": (
        "endpoints have the shape",
        _of("val", lambda bank: replace(bank, endpoints=bank.endpoints.view(-1, 4, 4, 4))),
    ),
    "too far out": (
        "nearly all values of endpoints lie in [-1.2, 1.2]",
        _of("val", lambda bank: replace(bank, endpoints=1.2 * bank.endpoints)),
    ),
    "a bad teacher": ("the teacher is near Heun's method", _checked(median=0.0011)),
    "an unmeasured teacher": ("the teacher is near Heun's method", _checked(median=math.nan)),
    "another teacher": (
        "all parts have the same teacher",
        _of("val", lambda bank: replace(bank, teacher=euler((80.0, 1.0, 0.0)))),
    ),
    "a label is missing": ("no label is missing", _only(lambda seed, label, scale: label != 3)),
    "uneven labels": ("labels are asked for as often as", _only(lambda seed, label, scale: label > 0 or seed % 3 == 0)),
    "a scale is missing": (
        "every guidance scale is asked for in every part",
        _only(lambda seed, label, scale: scale < 2),
    ),
    "uneven scales": (
        "guidance scales are asked for equally often",
        _only(lambda seed, label, scale: scale < 2 or seed % 4 == 0),
    ),
    "a split is empty": ("every split has pictures", _pictures(splits=(torch.arange(200) // 10 % 2).to(torch.uint8))),
    "a class is not taught": ("every class has train pictures", _without_a_class),
    "pictures in two splits": ("hardly any held-out picture is a train picture", _copied_over),
    "many rejected": (
        "most files could be read as pictures",
        _pictures(rejected=tuple(Rejected(f"{number}.png", "empty file") for number in range(201))),
    ),
    "flat pictures": ("hardly any picture is of one tone", _flattened),
    "larger pictures": ("pictures have the shape", _enlarged),
    "other classes": ("pictures have the network's classes", _pictures(class_names=(*NAMES[:3], "k"))),
}


@pytest.mark.parametrize(("meaning", "damage"), BREAKS.values(), ids=BREAKS)
def test_one_damage_fails_its_expectation_and_no_other(banks, pictures, failed, meaning: str, damage: Damage) -> None:
    broken, other = damage(banks, pictures)
    (found,) = failed(gate_tables(list(broken.values()), FACTS, LIMITS, other))
    assert found.startswith(meaning)


def test_every_expectation_has_a_damage_that_it_finds() -> None:
    tested = [meaning for meaning, _ in BREAKS.values()]
    for item in expectations(FACTS, LIMITS):
        assert any(item.meaning.startswith(meaning) for meaning in tested), item.meaning
        assert ", or " in item.meaning, "says why, too"


@pytest.mark.parametrize(("count", "seeds"), [(16, 40), (100, 10)])
def test_honest_draws_raise_no_alarm(count: int, seeds: int) -> None:
    facts, limits = replace(FACTS, names=tuple("abcdefghij")), replace(LIMITS, requests=dict.fromkeys(PARTS, count))
    mix = facts.mix(SCALES, 4.0)
    for seed in range(seeds):
        banks = [a_bank(part, part_seeds(part, count, seed), mix) for part in PARTS]
        tables = gate_tables(banks, facts, limits)
        # So few requests cannot have every label, and honest ones are not blamed for it.
        assert count > 16 or (tables["labels"]["requests"] == 0).any()
        for name in ("labels", "scales"):
            assert tables[name]["chance"].min() >= limits.least_chance
            assert tables[name]["chance_of_none"].min() >= limits.least_chance


def test_other_shares_than_asked_for_are_found() -> None:
    """All classes alike instead of the first four times as often as the last."""
    even = [a_bank(part, part_seeds(part, COUNT), FACTS.mix(SCALES, 1.0)) for part in PARTS]
    assert gate_tables(even, FACTS, LIMITS)["labels"]["chance"].min() < LIMITS.least_chance


def test_one_label_alone_and_a_scale_named_twice_are_no_imbalance() -> None:
    facts, limits = replace(FACTS, names=("a",)), replace(LIMITS, guidance=(1.0, 1.0, 2.0))
    mix = facts.mix(limits.guidance, limits.class_ratio)
    tables = gate_tables([a_bank(part, part_seeds(part, COUNT), mix) for part in PARTS], facts, limits)
    assert tables["labels"]["chance"].tolist() == [1.0] * 3
    assert len(tables["scales"]) == 6
    assert tables["scales"]["chance"].min() > LIMITS.least_chance


def test_the_smallest_profile(tmp_path: Path) -> None:
    """Sixteen requests, a network that has learned nothing, and a teacher of eight calls."""
    torch.manual_seed(0)
    denoiser = EdmDenoiser(UNetSpec(1, 8, 4, width=8)).eval()
    denoiser.save(tmp_path / "network", {"class_names": list(NAMES)})
    ClassPictures(
        torch.randint(0, 256, (60, 1, 8, 8), dtype=torch.uint8), torch.arange(60) % 4,
        (torch.arange(60) // 10 % 3).to(torch.uint8), NAMES,
    ).save(tmp_path / "network")  # fmt: skip
    for part in PARTS:
        make_bank(denoiser, part, 16, MIX, teacher=usual_teacher(denoiser, 8), check_requests=2).save(tmp_path)
    requests = dict.fromkeys(PARTS, 16)
    loose = replace(LIMITS, requests=requests, max_outside=1.0, max_teacher_error=10.0)
    result = run_gate(sampler_gate(tmp_path, loose, tmp_path / "network"))
    assert result.passed, result.failed_findings


def test_a_pipeline_has_no_pictures_and_a_range_of_its_own(tmp_path: Path) -> None:
    save_stable_diffusion(tmp_path / "sd")
    network = write_reference(
        tmp_path / "network", ModelChoice("sd"), ["a fox", "an owl"], device="cpu", pipelines=tmp_path
    )
    facts, limits = network.facts, replace(LIMITS, requests=dict.fromkeys(PARTS, 64))
    mix = facts.mix(SCALES, 4.0)
    for part in PARTS:
        bank = a_bank(part, part_seeds(part, 64), mix)
        replace(bank, endpoints=torch.linspace(-5, 5, 256).view(1, 4, 8, 8).repeat(64, 1, 1, 1)).save(tmp_path)
    gate = sampler_gate(tmp_path, limits, tmp_path / "network")
    assert not {"pictures", "classes", "splits"} & {*gate.tables}
    result = run_gate(gate)
    assert result.passed, result.failed_findings
    assert any("[-6, 6]" in finding.meaning for finding in result.findings)


def test_a_network_of_nothing() -> None:
    facts = NetworkFacts("faces", "unconditional", (), guided=False, shape=(1, 8, 8), sigma_data=0.5, latent=False)
    banks = [a_bank(part, part_seeds(part, COUNT), RequestMix((), (1.0,))) for part in PARTS]
    tables = gate_tables(banks, facts, LIMITS)
    items = [item for item in expectations(facts, LIMITS) if item.table in {"labels", "scales", "requests"}]
    result = run_gate(Gate("sampler", tables, items))
    assert result.passed, result.failed_findings
    labels = banks[0].labels.clone()
    labels[0] = 0
    tables = gate_tables([replace(banks[0], labels=labels), *banks[1:]], facts, LIMITS)
    (finding,) = run_gate(Gate("sampler", tables, items)).failed_findings
    assert finding.meaning.startswith("every label is one that the network knows")
    assert finding.rows[0]["part_id"] == "train"


def test_what_is_missing_or_damaged_is_refused(banks: dict[str, Bank], pictures: ClassPictures, tmp_path: Path) -> None:
    ready, network = saved(tmp_path, banks, pictures)
    (network / "pictures.json").unlink()
    with pytest.raises(MissingArtifact, match=r"pictures\.json"):
        sampler_gate(ready, LIMITS, network)
    with pytest.raises(MissingArtifact, match="dvc repro denoiser"):
        sampler_gate(ready, LIMITS, tmp_path)
    pictures.save(network)
    (ready / "val.safetensors").write_bytes(b"x")
    with pytest.raises(CorruptArtifact, match=r"val\.safetensors"):
        sampler_gate(ready, LIMITS, network)
    (ready / "test.json").unlink()
    (ready / "val.json").unlink()
    with pytest.raises(MissingArtifact, match=r"val\.json"):
        sampler_gate(ready, LIMITS, network)
