"""The sampler's row: what stages call, with everything that they need from params and the wing's rooms."""

from __future__ import annotations

import csv
import logging
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vernissage.core.errors import BadParams
from vernissage.core.files import atomic_write_json, fresh_folder, sha256_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vernissage.core.folders import SystemFolders
    from vernissage.core.gate_spec import Gate
    from vernissage.core.params import Denoiser, Params
    from vernissage.sampler.learn.denoiser_training import DenoiserTraining
    from vernissage.sampler.learn.training import SamplerTraining
    from vernissage.sampler.prepare.models import ModelChoice, Network
    from vernissage.sampler.prepare.pictures import ClassPictures
    from vernissage.sampler.prepare.teacher_bank import Bank
    from vernissage.sampler.use.model import SamplerModel

log = logging.getLogger(__name__)

_SHOWN_CLASSES, _SHOWN_EACH, _SHOWN_STEPS = 10, 12, 18


def make_denoiser(pictures_folder: Path, out: Path, checkpoints: Path, params: Params) -> None:
    """Teach the embedded denoiser, or write down which pipeline of `diffusers` takes its place.

    Args:
        pictures_folder: Where the user's sources and prompts lie.
        out: Folder for the weights, the pictures that they were made from with their splits, ``curves.csv`` and
            ``samples.png``; or for ``pipeline.json``.
        checkpoints: Where a training that was cut off goes on from.
        params: All parameters.

    Raises:
        BadParams: If the source is a path that leads out of its folder.
        MissingArtifact: If there is no such source.
        BadInput: If it cannot be used.
    """
    import torch

    from vernissage.sampler.domain.denoiser import ClassLabels
    from vernissage.sampler.domain.programs import heun
    from vernissage.sampler.domain.sampling import per_seed_noise, run_program
    from vernissage.sampler.domain.schedules import karras
    from vernissage.sampler.domain.sheets import sample_sheet
    from vernissage.sampler.learn.denoiser_training import train_denoiser
    from vernissage.sampler.prepare.pictures import load_pictures

    choice = _choice(params)
    if not choice.embedded:
        from vernissage.sampler.prepare.models import write_reference

        with fresh_folder(out) as folder:
            write_reference(folder, choice, choice.prompts(pictures_folder))
        return
    section = params.denoiser
    pictures = load_pictures(_source(pictures_folder, section.source), section.side, section.channels)
    log.info("%d pictures of %d classes, %d rejected", len(pictures), len(pictures.class_names), len(pictures.rejected))
    denoiser, curves = train_denoiser(pictures, _settings(params), checkpoints)
    shown = min(_SHOWN_CLASSES, len(pictures.class_names))
    labels = torch.arange(shown).repeat_interleave(_SHOWN_EACH)
    program = heun(karras(_SHOWN_STEPS, denoiser.sigma_min, denoiser.sigma_max))
    sampled = run_program(denoiser, per_seed_noise(range(len(labels)), denoiser.shape), ClassLabels(labels), program)
    with fresh_folder(out) as folder:
        denoiser.save(folder, {"class_names": list(pictures.class_names)})
        pictures.save(folder)
        sample_sheet(sampled.samples.split(_SHOWN_EACH)).save(folder / "samples.png")
        with (folder / "curves.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(curves[0]))
            writer.writeheader()
            writer.writerows(curves)


def make_teacher_bank(model: Path, out: Path, params: Params) -> None:
    """Answer fixed requests in many steps.

    Args:
        model: Folder of the denoiser.
        out: Folder for the parts of the bank.
        params: All parameters.

    Raises:
        MissingArtifact: If there is no denoiser.
        CorruptArtifact: If it is damaged.
        BadInput: If no request has a finite answer.
    """
    from vernissage.core.devices import choose_device
    from vernissage.sampler.prepare.teacher_bank import PARTS, make_bank, usual_teacher

    section, device = params.teacher_bank, choose_device()
    network = _network(model, params, device)
    mix = network.facts.mix(section.guidance, section.class_ratio)
    with fresh_folder(out) as folder:
        for part in PARTS:
            bank = make_bank(
                network.denoiser,
                part,
                getattr(section, part),
                mix,
                teacher=usual_teacher(network.denoiser, section.calls),
                seed=params.seed,
                batch=section.batch,
                check_requests=section.checked,
                conditions=network.conditions,
                device=device,
            )
            bank.save(folder)
            check = bank.check
            log.info(
                "%s: %d requests; %s with %d calls is %.2g from Heun's method with %d (median of %d requests)",
                part, len(bank), bank.teacher.name, bank.teacher.evaluations, check.median, check.calls, check.requests,
            )  # fmt: skip


@dataclass(frozen=True)
class SamplerSystem:
    """The sampler's row in the table of systems."""

    name: str = "sampler"

    def prepare(self, params: Params, folders: SystemFolders) -> None:
        """Answer fixed requests in many steps."""
        make_teacher_bank(_denoiser_folder(folders), folders.ready, params)

    def gate(self, params: Params, folders: SystemFolders) -> Gate:
        """What must hold for the requests and their endpoints."""
        from vernissage.sampler.prepare.expectations import GateLimits, sampler_gate

        bank, section = params.teacher_bank, params.validate_.sampler
        limits = GateLimits(
            requests={"train": bank.train, "val": bank.val, "test": bank.test},
            guidance=bank.guidance,
            class_ratio=bank.class_ratio,
            max_left_out=section.max_left_out,
            max_outside=section.max_outside,
            max_teacher_error=section.max_teacher_error,
        )
        return sampler_gate(folders.ready, limits, _denoiser_folder(folders))

    def train(self, params: Params, folders: SystemFolders) -> None:
        """Make programs, teach the student, train the controller on the train part; the validation part chooses."""
        from vernissage.core.devices import choose_device
        from vernissage.core.tables import fingerprint, write_csv
        from vernissage.sampler.learn.training import train_sampler
        from vernissage.sampler.use.model import SamplerModel

        device = choose_device()
        network = _network(_denoiser_folder(folders), params, device)
        settings = training_settings(params, network)
        train, val = (_bank(folders, part, network).to(device) for part in ("train", "val"))
        # Everything that the result depends on: what was made of other data, settings or code is never taken over.
        inputs = [*sorted(folders.ready.glob("*.json")), *sorted(_denoiser_folder(folders).glob("*.json")), *_sources()]
        scratch = folders.scratch("train") / fingerprint(settings, [sha256_file(path) for path in inputs])
        pictures = _pictures(folders) if network.embedded else None
        trained = train_sampler(network.denoiser, train, val, settings, scratch, pictures)
        facts = {
            "summary": trained.summary,
            "gate": trained.tables.get("gate", []),
            "cascade": trained.tables.get("cascade", []),
            "prices": list(params.train.sampler.prices),
        }
        SamplerModel(
            network.denoiser, trained.book, trained.controller, trained.student, trained.cascade, facts=facts
        ).save(folders.model)
        with fresh_folder(folders.training) as folder:
            for name, rows in trained.tables.items():
                if rows:
                    write_csv(folder / f"{name}.csv", rows)
            atomic_write_json(folder / "summary.json", trained.summary)
        shutil.rmtree(scratch, ignore_errors=True)

    def benchmark(self, params: Params, folders: SystemFolders) -> None:
        """Compare with solvers as they are used and as they can be tuned, on the test part."""
        from vernissage.sampler.judge.procedure import run_benchmark

        model, network = self._opened(params, folders)
        bank = _bank(folders, "test", network)
        run_benchmark(model, network, bank, _pictures(folders) if network.embedded else None, folders.benchmark, params)

    def robustness(self, params: Params, folders: SystemFolders) -> None:
        """Try awkward input."""
        from vernissage.core.tables import write_csv
        from vernissage.sampler.judge.procedure import run_robustness
        from vernissage.sampler.use.sample import Request, SteeredResult, steered_sample
        from vernissage.sampler.use.steered_scheduler import SteeredScheduler

        model, network = self._opened(params, folders)
        bank = _bank(folders, "test", network)

        def draw(
            labels: Sequence[int], seeds: Sequence[int], *, price: float, scale: float, budget: int | None = None
        ) -> SteeredResult:
            pairs = zip(labels, seeds, strict=True)
            return steered_sample(model, [Request(*pair, scale, price, budget) for pair in pairs], traced=False)

        results = run_robustness(
            model,
            network,
            bank,
            _pictures(folders) if network.embedded else None,
            params,
            draw,
            lambda entry: SteeredScheduler(programs=[entry.program.to_dict()]),
        )
        with fresh_folder(folders.robustness) as folder:
            write_csv(folder / "cases.csv", [vars(result) for result in results])

    def report(self, params: Params, folders: SystemFolders) -> None:
        """Sum up in metrics, plots and one page that git keeps."""
        from vernissage.sampler.judge.report import write_report

        write_report(folders)

    def load(self, folders: SystemFolders) -> SamplerModel:
        """The trained sampler."""
        from vernissage.sampler.use.model import SamplerModel

        return SamplerModel.load(_denoiser_folder(folders), folders.model)

    def _opened(self, params: Params, folders: SystemFolders) -> tuple[SamplerModel, Network]:
        """The trained sampler and its network, opened once and where the machine computes best."""
        from vernissage.core.devices import choose_device

        network = _network(_denoiser_folder(folders), params, choose_device())
        model = replace(self.load(folders), denoiser=network.denoiser, conditions=network.conditions)
        return model, network


def training_settings(params: Params, network: Network) -> SamplerTraining:
    """Translate the typed parameters into what the training takes."""
    from vernissage.sampler.learn.book_making import BookMaking
    from vernissage.sampler.learn.consistency import StudentTraining
    from vernissage.sampler.learn.grid import GridSearch
    from vernissage.sampler.learn.steering import SteeringTraining
    from vernissage.sampler.learn.training import SamplerTraining

    section, bank = params.train.sampler, params.teacher_bank
    mix = network.facts.mix(bank.guidance, bank.class_ratio)
    book = BookMaking(
        budgets=section.budgets,
        grid=GridSearch(tuned=section.grid_kinds, finalists=section.grid_kinds, batch=params.sampler.batch),
        grid_pairs=section.grid_pairs,
        sigma_steps=section.sigma_steps,
        coefficient_steps=section.coefficient_steps,
        guidance_steps=section.guidance_steps,
        less_guidance_steps=section.less_guidance_steps,
        batch=section.fit_batch,
        recompute=section.recompute,
        call_batch=params.sampler.batch,
        seed=params.seed,
    )
    student = StudentTraining(
        updates=max(1, section.student_steps),
        batch=section.student_batch,
        lr=params.lr * section.student_lr_scale,
        scales=mix.scales,
        class_weights=mix.class_weights,
        seed=params.seed,
    )
    steering = SteeringTraining(
        decisions=max(1, section.decisions),
        slots=section.slots,
        rollout=section.rollout,
        epochs=section.ppo_epochs,
        batch=section.ppo_batch,
        lr=params.lr * section.policy_lr_scale,
        entropy=section.entropy,
        prices=section.prices,
        likeness_weight=section.discriminator,
        seed=params.seed,
    )
    return SamplerTraining(
        book,
        student if network.embedded and section.student_steps else None,
        steering if section.decisions else None,
        seed=params.seed,
    )


def _network(folder: Path, params: Params, device: Any) -> Network:
    from vernissage.sampler.prepare.models import open_network

    section = params.sampler
    return open_network(folder, device, precision=section.precision, attention_slicing=section.attention_slicing)


def _bank(folders: SystemFolders, part: str, network: Network) -> Bank:
    from vernissage.sampler.prepare.teacher_bank import Bank

    return Bank.load(folders.ready, part, network.conditions)


def _pictures(folders: SystemFolders) -> ClassPictures:
    from vernissage.sampler.prepare.pictures import ClassPictures

    return ClassPictures.load(_denoiser_folder(folders))


def _denoiser_folder(folders: SystemFolders) -> Path:
    return folders.root / "models" / "denoiser"


def _sources() -> list[Path]:
    here = Path(__file__).parent
    return sorted([*(here / "domain").glob("*.py"), *(here / "learn").glob("*.py")])


def _choice(params: Params) -> ModelChoice:
    from vernissage.sampler.prepare.models import ModelChoice

    section = params.sampler
    return ModelChoice(
        section.model,
        section.prompts,
        section.negative_prompt,
        section.precision,
        section.attention_slicing,
    )


def _source(folder: Path, name: str) -> str | Path:
    from vernissage.sampler.prepare.pictures import DIGITS

    if name == DIGITS:
        return name
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()) or path.resolve() == folder.resolve():
        raise BadParams(f"denoiser.source = {name!r}: expected {DIGITS}, or the name of a folder or zip in {folder}")
    return path


def _settings(params: Params) -> DenoiserTraining:
    from vernissage.sampler.learn.denoiser_training import DenoiserTraining

    section: Denoiser = params.denoiser
    return DenoiserTraining(
        steps=section.steps,
        batch=section.batch,
        lr=params.lr * section.lr_scale,
        ema_width=section.ema_width,
        class_dropout=section.class_dropout,
        mirrored=section.mirrored,
        looks=section.looks,
        width=section.width,
        multipliers=section.multipliers,
        blocks=section.blocks,
        attention_side=section.attention_side,
        dropout=section.dropout,
        seed=params.seed,
    )
