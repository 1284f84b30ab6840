"""Files are whole or not there: atomic writes under failure, folder swaps, hashes, names."""

from __future__ import annotations

import hashlib
import json
import math
import os
import threading
import unicodedata
from collections import namedtuple
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vernissage.core import files
from vernissage.core.errors import CorruptArtifact, MissingArtifact, NotEnoughDisk
from vernissage.core.files import (
    atomic_path,
    atomic_write_bytes,
    atomic_write_json,
    atomic_write_text,
    fresh_folder,
    read_json,
    require_free_space,
    safe_file_name,
    sha256_file,
)

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_sha256_known_answers(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256_file(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    big = os.urandom(3 * 2**20 + 7)
    (tmp_path / "big").write_bytes(big)
    assert sha256_file(str(tmp_path / "big")) == hashlib.sha256(big).hexdigest()
    with pytest.raises(MissingArtifact, match="none"):
        sha256_file(tmp_path / "none")
    with pytest.raises(MissingArtifact):
        sha256_file(tmp_path)


def test_atomic_path_keeps_the_suffix_and_makes_the_folder(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "picture.png"
    with atomic_path(target) as temporary:
        assert (temporary.suffix, temporary.parent) == (".png", target.parent)
        temporary.write_bytes(b"new")
        assert not target.exists()
    assert target.read_bytes() == b"new"
    assert names(target.parent) == ["picture.png"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_the_old_file_and_no_rubbish(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")

    def half_written() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        half_written()
    assert target.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_caller_that_writes_nothing_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "a.txt"):
        pass
    assert names(tmp_path) == []


def test_a_name_as_long_as_the_file_system_allows(tmp_path: Path) -> None:
    target = tmp_path / ("n" * 251 + ".txt")
    atomic_write_text(target, "x")
    assert target.read_text() == "x"


def test_readers_see_old_or_new_but_never_a_mixture(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    contents = [bytes([value]) * 200_000 for value in range(8)]
    atomic_write_bytes(target, contents[0])
    seen: set[bytes] = set()
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            seen.add(target.read_bytes())

    reader = threading.Thread(target=look)
    reader.start()
    try:
        for data in contents:
            atomic_write_bytes(target, data)
    finally:
        stop.set()
        reader.join()
    assert seen <= set(contents)


def test_text_keeps_its_line_ends_and_alphabets(tmp_path: Path) -> None:
    atomic_write_text(tmp_path / "a.txt", "Ä\r\nβ\n")
    assert (tmp_path / "a.txt").read_bytes() == "Ä\r\nβ\n".encode()


def test_json_is_sorted_and_readable(tmp_path: Path) -> None:
    atomic_write_json(tmp_path / "a.json", {"b": [1, 2.5], "a": "ΔE"})
    assert (tmp_path / "a.json").read_text() == '{\n  "a": "ΔE",\n  "b": [\n    1,\n    2.5\n  ]\n}\n'


@settings(max_examples=30, deadline=None)
@given(value=JSON_VALUES)
def test_json_round_trip(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    path = tmp_path_factory.getbasetemp() / "round.json"
    atomic_write_json(path, value)
    assert read_json(path) == value


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, {"a": [math.nan]}])
def test_json_refuses_what_is_no_json(tmp_path: Path, value: object) -> None:
    with pytest.raises(ValueError, match="nan or infinity"):
        atomic_write_json(tmp_path / "a.json", value)
    with pytest.raises(TypeError):
        atomic_write_json(tmp_path / "a.json", {"a": {1, 2}})
    assert names(tmp_path) == []


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[1,]", b"[" * 100_000])
def test_broken_json_is_corrupt(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(CorruptArtifact, match=r"a\.json"):
        read_json(tmp_path / "a.json")


def test_missing_json(tmp_path: Path) -> None:
    with pytest.raises(MissingArtifact, match="dvc pull"):
        read_json(tmp_path / "a.json")


def test_a_fresh_folder_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "out"
    for content in ("first", "second"):
        with fresh_folder(target) as fresh:
            assert list(fresh.iterdir()) == []
            (fresh / content).touch()
        assert names(target) == [content]
    assert names(tmp_path) == ["out"]


def test_a_failed_fresh_folder_leaves_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "old").touch()

    def fails() -> None:
        with fresh_folder(target) as fresh:
            (fresh / "new").touch()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    assert names(target) == ["old"]
    assert names(tmp_path) == ["out"]


def test_a_swap_that_fails_half_way_puts_the_old_folder_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "old").touch()
    real = Path.replace

    def refuse(self: Path, other: Path) -> Path:
        if self.suffix == ".new":
            raise OSError("disk gone")
        return real(self, other)

    def swap() -> None:
        with fresh_folder(target):
            monkeypatch.setattr(Path, "replace", refuse)

    with pytest.raises(OSError, match="disk gone"):
        swap()
    assert names(target) == ["old"]
    assert names(tmp_path) == ["out"]


def test_a_fresh_folder_does_not_replace_a_file(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(NotADirectoryError, match="expected a folder"), fresh_folder(tmp_path / "out"):
        pass


def test_free_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")  # noqa: PYI024 - what shutil itself returns
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: usage(10 * 2**30, 9 * 2**30, 2**30))
    require_free_space(tmp_path / "not" / "yet" / "there", 2**30)
    with pytest.raises(NotEnoughDisk, match=r"1\.00 GiB free on this disk, 1\.50 GiB needed") as caught:
        require_free_space(tmp_path / "out", 3 * 2**29)
    assert caught.value.transient


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("photo.jpg", "photo.jpg"),
        ("Äpfel & Birnen 写真.png", "Äpfel & Birnen 写真.png"),
        ("../../etc/passwd", "_.._etc_passwd"),
        ("a\\b:c*d?.png", "a_b_c_d_.png"),
        ("", "_"),
        ("...", "_"),
        (" .hidden ", "hidden"),
        ("line\nbreak\0.txt", "line_break_.txt"),
        ("CON", "_CON"),
        ("nul.txt", "_nul.txt"),
        ("e\u0301", "é"),
        ("gpj\u202egnp.exe", "gpj_gnp.exe"),
        ("\ud800", "_"),
    ],
)
def test_safe_file_names_known_answers(name: str, expected: str) -> None:
    assert safe_file_name(name) == expected


def test_a_long_name_keeps_its_suffix() -> None:
    short = safe_file_name("写" * 200 + ".jpeg")
    assert short.endswith(".jpeg")
    assert 115 <= len(short.encode()) <= 120


@example("a" * 200 + ". . .")
@example("." + "a" * 119 + " " + "b" * 90)
@example("con" + " " * 130)
@given(st.text(max_size=300) | st.text(alphabet=". /\\:conNUL1é写\0", max_size=200))
def test_safe_file_names_properties(name: str) -> None:
    safe = safe_file_name(name)
    assert 0 < len(safe.encode("utf-8")) <= 120
    assert not set(safe) & set('/\\:*?"<>|\0\n')
    assert safe.strip(" .") == safe
    assert all(unicodedata.category(character)[0] != "C" for character in safe)
    assert safe_file_name(safe) == safe


def test_json_with_a_huge_number_round_trips(tmp_path: Path) -> None:
    atomic_write_json(tmp_path / "a.json", 2**80)
    assert json.loads((tmp_path / "a.json").read_text()) == 2**80
