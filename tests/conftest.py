"""What holds for every test: one thread per process, no telemetry, no network but loopback, the same draws every time,
a scratch of its own."""

from __future__ import annotations

import ipaddress
import os
import socket
import tempfile
from typing import Any

import pytest
from hypothesis import settings

# A slow machine is no fault of the code.
settings.register_profile("any pace", deadline=None)
settings.load_profile("any pace")

# Before torch or anything on top of it is imported; child processes inherit it.
os.environ.update(
    {
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "VERNISSAGE_THREADS": "1",
        "VERNISSAGE_DEVICE": "cpu",
        "DVC_NO_ANALYTICS": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "GX_ANALYTICS_ENABLED": "false",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": "1",
        "DO_NOT_TRACK": "1",
        "MPLBACKEND": "Agg",
        "VERNISSAGE_SCRATCH": tempfile.mkdtemp(prefix="vernissage-scratch-"),
    }
)
for _variable in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", "VERNISSAGE_PROGRESS_FILE", "VERNISSAGE_CONCURRENT_STAGES"):
    os.environ.pop(_variable, None)


def _is_local(address: Any) -> bool:
    if not isinstance(address, tuple):  # a path: a socket inside this machine
        return True
    host = str(address[0])
    if host in {"localhost", ""}:
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail whoever reaches for anything beyond this machine, instead of depending on it."""
    for name in ("connect", "connect_ex", "sendto"):
        original = getattr(socket.socket, name)

        def guarded(self: socket.socket, *arguments: Any, _original: Any = original) -> Any:
            if self.family in {socket.AF_INET, socket.AF_INET6} and not _is_local(arguments[-1]):
                raise AssertionError(f"a test reached for the network: {arguments[-1]}")
            return _original(self, *arguments)

        monkeypatch.setattr(socket.socket, name, guarded)


@pytest.fixture(autouse=True)
def same_draws() -> None:
    """Give networks that are made without a seed the same weights in every run, and numbers the same precision."""
    import torch

    torch.manual_seed(0)
    torch.set_flush_denormal(False)  # trainings switch it on


@pytest.fixture(autouse=True)
def own_scratch(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Give every test a scratch folder of its own."""
    monkeypatch.setenv("VERNISSAGE_SCRATCH", str(tmp_path_factory.mktemp("scratch")))
