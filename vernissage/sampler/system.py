"""The sampler's row: what stages call, with everything that they need from params and the wing's rooms."""

from __future__ import annotations

import csv
import logging
from typing import TYPE_CHECKING

from vernissage.core.errors import BadParams
from vernissage.core.files import fresh_folder

if TYPE_CHECKING:
    from pathlib import Path

    from vernissage.core.params import Denoiser, Params
    from vernissage.sampler.learn.denoiser_training import DenoiserTraining

log = logging.getLogger(__name__)

_SHOWN_CLASSES, _SHOWN_EACH, _SHOWN_STEPS = 10, 12, 18


def make_denoiser(pictures_folder: Path, out: Path, checkpoints: Path, params: Params) -> None:
    """Teach the embedded denoiser.

    Args:
        pictures_folder: Where the user's sources lie.
        out: Folder for the weights, the pictures that they were made from with their splits, ``curves.csv`` and
            ``samples.png``.
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
    from vernissage.sampler.domain.unet import EdmDenoiser
    from vernissage.sampler.prepare.teacher_bank import PARTS, RequestMix, make_bank, usual_teacher

    section, device = params.teacher_bank, choose_device()
    denoiser = EdmDenoiser.load(model).to(device)
    mix = RequestMix.uneven(denoiser.spec.classes, section.guidance, ratio=section.class_ratio)
    with fresh_folder(out) as folder:
        for part in PARTS:
            bank = make_bank(
                denoiser,
                part,
                getattr(section, part),
                mix,
                teacher=usual_teacher(denoiser, section.calls),
                seed=params.seed,
                batch=section.batch,
                device=device,
            )
            bank.save(folder)
            check = bank.check
            log.info(
                "%s: %d requests; %s with %d calls is %.2g from Heun's method with %d (median of %d requests)",
                part, len(bank), bank.teacher.name, bank.teacher.evaluations, check.median, check.calls, check.requests,
            )  # fmt: skip


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
