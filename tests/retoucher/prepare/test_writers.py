from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.retoucher.prepare.pictures import picture
from vernissage.core.files import sha256_file
from vernissage.core.images import load_rgb8
from vernissage.retoucher.prepare import writers as module
from vernissage.retoucher.prepare.writers import PictureWriters

if TYPE_CHECKING:
    from pathlib import Path


def test_every_picture_is_written_with_its_hash(tmp_path: Path) -> None:
    with PictureWriters(3, waiting=4) as writers:
        for key in range(40):
            writers.write(key, tmp_path / f"{key}.png", picture(key, 20, 16))
    hashes = writers.hashes()
    assert list(hashes) == list(range(40))
    for key in range(40):
        assert np.array_equal(load_rgb8(tmp_path / f"{key}.png"), picture(key, 20, 16))
        assert hashes[key] == sha256_file(tmp_path / f"{key}.png")


def test_the_queue_is_bounded(tmp_path: Path, monkeypatch) -> None:
    gate = threading.Event()
    monkeypatch.setattr(module, "_write", lambda path, pixels: "x" if gate.wait(20) else "")
    queued = []

    def fill() -> None:
        with PictureWriters(2, waiting=5) as writers:
            for key in range(12):
                writers.write(key, tmp_path / "any.png", np.zeros((1, 1, 3), np.uint8))
                queued.append(key)

    thread = threading.Thread(target=fill)
    thread.start()
    time.sleep(0.3)
    waiting = len(queued)
    gate.set()
    thread.join(20)
    assert waiting == 5
    assert len(queued) == 12


def test_an_error_of_a_writer_reaches_the_caller_and_ends_the_pool(tmp_path: Path) -> None:
    before = threading.active_count()

    def fill() -> None:
        with PictureWriters(2, waiting=2) as writers:
            for key in range(100):
                folder = tmp_path / "blocked" if key == 3 else tmp_path
                writers.write(key, folder / "deep" / f"{key}.png", picture(key, 8, 8))

    (tmp_path / "blocked").write_text("a file where a folder is expected")
    with pytest.raises(OSError, match="blocked"):
        fill()
    assert threading.active_count() == before
    assert len(list((tmp_path / "deep").glob("*.png"))) < 100


def test_an_error_of_the_last_picture_is_not_lost(tmp_path: Path) -> None:
    (tmp_path / "blocked").write_text("")
    writers = PictureWriters(1)
    with pytest.raises(OSError, match="blocked"), writers:
        writers.write(1, tmp_path / "blocked" / "1.png", picture(1, 8, 8))


def test_an_error_of_the_body_comes_first_and_ends_the_pool(tmp_path: Path) -> None:
    before = threading.active_count()

    def fail() -> None:
        with PictureWriters(2) as writers:
            writers.write(1, tmp_path / "1.png", picture(1, 8, 8))
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        fail()
    assert threading.active_count() == before


def test_a_key_is_used_once(tmp_path: Path) -> None:
    with PictureWriters(1) as writers:
        writers.write(1, tmp_path / "1.png", picture(1, 8, 8))
        with pytest.raises(ValueError, match="queued already"):
            writers.write(1, tmp_path / "2.png", picture(1, 8, 8))
