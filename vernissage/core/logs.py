"""How the project speaks: plain log lines on stdout, and every tool's telemetry switched off."""

from __future__ import annotations

import logging
import os
import sys

ROOT = "vernissage"
_TELEMETRY_OFF = {
    "DVC_NO_ANALYTICS": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GX_ANALYTICS_ENABLED": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}


class _StdoutHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to whatever `sys.stdout` is at the time, which tests and stage harnesses replace."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stdout
        super().emit(record)


class _StageFormatter(logging.Formatter):
    """Names the logger without its root: `vernissage.resize` speaks as `resize`."""

    def format(self, record: logging.LogRecord) -> str:
        record.stage = record.name.removeprefix(f"{ROOT}.")
        return super().format(record)


def configure_logging(level: int = logging.INFO) -> None:
    """Send what is logged below `vernissage` to stdout as `HH:MM:SS stage: message`; call it as often as you like."""
    logger = logging.getLogger(ROOT)
    logger.setLevel(level)
    logger.propagate = False
    if not any(isinstance(handler, _StdoutHandler) for handler in logger.handlers):
        handler = _StdoutHandler()
        handler.setFormatter(_StageFormatter("%(asctime)s %(stage)s: %(message)s", datefmt="%H:%M:%S"))
        logger.addHandler(handler)


def telemetry_off() -> None:
    """Switch off the telemetry of every tool below us, here and in child processes; what the user has set stays."""
    for name, value in _TELEMETRY_OFF.items():
        os.environ.setdefault(name, value)
