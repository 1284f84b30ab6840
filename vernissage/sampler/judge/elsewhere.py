"""Answers requests in a process of its own, from files: ``python -m vernissage.sampler.judge.elsewhere FOLDER``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from vernissage.core.weights import load_weights, save_weights
from vernissage.sampler.domain.denoiser import ClassLabels
from vernissage.sampler.domain.unet import EdmDenoiser
from vernissage.sampler.judge.arms import Requests
from vernissage.sampler.judge.runs import Run, Subject, Tasks, steered_by
from vernissage.sampler.learn.book import ProgramBook


def answer_elsewhere(folder: Path) -> None:
    """Read a subject and requests, answer them, and write ``answers.safetensors``: what another process does."""
    tensors, facts = load_weights(folder, name="requests")
    torch.set_num_threads(int(facts["threads"]))
    device = torch.device(facts["device"])
    tensors = {name: tensor.to(device) for name, tensor in tensors.items()}
    denoiser = EdmDenoiser.load(folder / "denoiser").to(device)
    controller = student = None
    if (folder / "controller").is_dir():
        from vernissage.sampler.learn.controller import SteeringController

        controller = SteeringController.from_pretrained(
            folder / "controller", local_files_only=True, low_cpu_mem_usage=False
        )
    if (folder / "student").is_dir():
        from vernissage.sampler.learn.consistency import Student

        student = Student.load(folder / "student").to(device)
    start, labels = tensors["start"], tensors["labels"]
    requests = Requests(
        torch.arange(len(start)), labels, tensors["scales"], torch.zeros_like(start), start, ClassLabels(labels)
    )
    bank: Any = None
    subject = Subject(denoiser, ProgramBook.load(folder), bank, folder, controller, student)
    made = Run(subject, Tasks(requests, tensors["prices"]), steered_by(controller)).finish()
    found = {"samples": made.samples.cpu().contiguous(), "evaluations": made.evaluations}
    save_weights(folder, found, {}, name="answers")


if __name__ == "__main__":
    answer_elsewhere(Path(sys.argv[1]))
