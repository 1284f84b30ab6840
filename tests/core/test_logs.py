"""Log lines are plain and single, and telemetry is off unless the user has said otherwise."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

import pytest

from vernissage.core.logs import configure_logging, telemetry_off

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def clean_logger() -> Iterator[None]:
    logger = logging.getLogger("vernissage")
    before = (logger.handlers[:], logger.level, logger.propagate)
    yield
    logger.handlers[:], logger.propagate = before[0], before[2]
    logger.setLevel(before[1])


def test_lines_name_the_stage_once(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging()
    configure_logging()
    logging.getLogger("vernissage.resize").info("%d photos", 3)
    logging.getLogger("vernissage.resize").debug("hidden")
    logging.getLogger("vernissage").warning("hello")
    logging.getLogger("other").warning("not ours")
    out, _ = capsys.readouterr()
    lines = out.splitlines()
    assert [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in lines] == ["resize: 3 photos", "vernissage: hello"]
    assert all(re.match(r"\d\d:\d\d:\d\d ", line) for line in lines)


def test_the_level_can_be_changed_later(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging()
    configure_logging(logging.DEBUG)
    logging.getLogger("vernissage.a").debug("now")
    assert capsys.readouterr().out.count("a: now") == 1


def test_an_exception_brings_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging()
    try:
        _ = 1 / 0
    except ZeroDivisionError:
        logging.getLogger("vernissage.a").exception("failed")
    assert "ZeroDivisionError" in capsys.readouterr().out


def test_telemetry_is_off_but_the_user_has_the_last_word(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = {
        "DVC_NO_ANALYTICS": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "GX_ANALYTICS_ENABLED": "false",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    environment: dict[str, str] = {"DO_NOT_TRACK": "0"}
    monkeypatch.setattr("os.environ", environment)
    telemetry_off()
    assert environment == {**expected, "DO_NOT_TRACK": "0"}
    assert "HF_HUB_OFFLINE" not in environment
