"""Devices and threads are what the machine offers and what the environment asks for, or a clear refusal."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from vernissage.core import devices
from vernissage.core.devices import choose_device, configure_torch, thread_count, usable_cores
from vernissage.core.errors import BadParams


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VERNISSAGE_DEVICE", "VERNISSAGE_THREADS", "VERNISSAGE_CONCURRENT_STAGES"):
        monkeypatch.delenv(name, raising=False)


def pretend(monkeypatch: pytest.MonkeyPatch, *, cuda: int = 0, mps: bool = False) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


def test_the_machine_chooses_the_fastest(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch)
    assert choose_device() == torch.device("cpu")
    pretend(monkeypatch, mps=True)
    assert choose_device() == torch.device("mps")
    pretend(monkeypatch, cuda=2, mps=True)
    assert choose_device() == torch.device("cuda")


def test_the_argument_wins_over_the_environment_over_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, cuda=2)
    monkeypatch.setenv("VERNISSAGE_DEVICE", " CUDA:1 ")
    assert choose_device() == torch.device("cuda:1")
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("") == torch.device("cuda:1")
    monkeypatch.setenv("VERNISSAGE_DEVICE", "")
    assert choose_device() == torch.device("cuda")


@pytest.mark.parametrize(
    "name", ["gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:9", "cuda", "mps", "mps:0", "cpu:1", "meta", "xpu"]
)
def test_what_is_not_here_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    pretend(monkeypatch)
    with pytest.raises(BadParams, match=f"device = '{name}'"):
        choose_device(name)
    monkeypatch.setenv("VERNISSAGE_DEVICE", name)
    with pytest.raises(BadParams, match="VERNISSAGE_DEVICE = "):
        choose_device()


def test_a_device_beyond_the_last_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, cuda=2)
    with pytest.raises(BadParams, match="has 2 such devices"):
        choose_device("cuda:2")


@pytest.mark.parametrize(
    ("cores", "threads", "stages", "expected"),
    [
        (8, None, None, 8),
        (8, None, "2", 4),
        (8, None, "3", 2),
        (2, None, "5", 1),
        (8, "3", "2", 3),
        (2, "16", None, 16),
    ],
)
def test_thread_count(
    monkeypatch: pytest.MonkeyPatch, cores: int, threads: str | None, stages: str | None, expected: int
) -> None:
    monkeypatch.setattr(devices, "usable_cores", lambda: cores)
    if threads:
        monkeypatch.setenv("VERNISSAGE_THREADS", threads)
    if stages:
        monkeypatch.setenv("VERNISSAGE_CONCURRENT_STAGES", stages)
    assert thread_count() == expected


@pytest.mark.parametrize("variable", ["VERNISSAGE_THREADS", "VERNISSAGE_CONCURRENT_STAGES"])
@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", "²"])
def test_odd_thread_counts_are_refused(monkeypatch: pytest.MonkeyPatch, variable: str, text: str) -> None:
    monkeypatch.setenv(variable, text)
    with pytest.raises(BadParams, match=variable):
        thread_count()


def test_usable_cores_respects_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    assert usable_cores() >= 1
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 5, 7}, raising=False)
    assert usable_cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cores() == 1


def test_torch_is_configured_in_a_fresh_process_and_again() -> None:
    code = (
        "import torch\n"
        "from vernissage.core.devices import configure_torch\n"
        "assert configure_torch() == 3 and configure_torch() == 3\n"
        "assert torch.get_num_threads() == 3 and torch.get_num_interop_threads() == 1\n"
        "assert (torch.tensor([1e-40]) * 1.0).item() == 0.0\n"
    )
    environment = {**os.environ, "VERNISSAGE_THREADS": "3"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=120)


def test_torch_that_already_works_is_configured_too(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    monkeypatch.setenv("VERNISSAGE_THREADS", "1")
    try:
        assert configure_torch() == 1
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
        torch.set_flush_denormal(False)
