"""Videos: what was written is decoded again by the AV1 decoder in Pillow, every frame at the time it was meant for."""

from __future__ import annotations

import io
import struct
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from vernissage.core import video
from vernissage.core.errors import BadInput
from vernissage.core.video import Frame, video_suffix, write_video

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SIDES = (48, 64)


def frame(red: int, seconds: float = 0.1) -> Frame:
    pixels = np.zeros((*SIDES, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = red, np.linspace(0, 255, SIDES[1])[None, :]
    return Frame(pixels, seconds)


SCENES = [[frame(20, 1.5), frame(60), frame(90)], [frame(130, 0.4)], [frame(170), frame(210, 0.25)]]


def boxes(data: bytes, inside: tuple[bytes, ...] = ()) -> Iterator[tuple[bytes, int, bytes]]:
    """Kind, offset and body of every box, also inside the kinds that are named."""
    at = 0
    while at < len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        body = data[at + 8 : at + size]
        yield kind, at, body
        if kind in inside:
            yield from boxes(body, inside)
        at += size


def decoded(path: Path) -> list[np.ndarray]:
    """The frames by libavif, which reads the same boxes in a file that calls itself a sequence of pictures."""
    data = path.read_bytes().replace(b"isom\0\0\2\0isomiso2av01mp41", b"avis\0\0\2\0avismsf1iso8miaf")
    with Image.open(io.BytesIO(data.replace(b"vide", b"pict"))) as image:
        frames = []
        for number in range(image.n_frames):
            image.seek(number)
            frames.append(np.asarray(image.convert("RGB")).astype(int))
        return frames


@pytest.fixture(scope="module")
def movie(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "movie.mp4"
    write_video(path, iter(SCENES))
    return path


def test_every_frame_comes_back_in_its_place(movie: Path) -> None:
    frames = decoded(movie)
    # A scene of one picture is written as two halves: one alone would be a still without a track.
    meant = [one for scene in SCENES for one in (scene * 2 if len(scene) == 1 else scene)]
    assert len(frames) == len(meant) == 7
    for found, one in zip(frames, meant, strict=True):
        assert found.shape == (*SIDES, 3)
        assert np.abs(found - one.pixels).mean() < 3


def test_the_index_says_when_each_frame_is_shown_and_where_a_player_may_jump(movie: Path) -> None:
    found = {kind: body for kind, _, body in boxes(movie.read_bytes(), (b"moov", b"trak", b"mdia", b"minf", b"stbl"))}
    runs = list(struct.iter_unpack(">II", found[b"stts"][8:]))
    assert runs == [(1, ms) for ms in (1500, 100, 100, 200, 200, 100, 250)]
    timescale, total = struct.unpack_from(">II", found[b"mdhd"], 12)
    assert (timescale, total) == (1000, 2450)
    # The first frame of each scene.
    assert struct.unpack_from(">3I", found[b"stss"], 8) == (1, 4, 6)


def test_the_index_comes_first_and_its_samples_are_all_that_follows(movie: Path) -> None:
    data = movie.read_bytes()
    top = [(kind, at, body) for kind, at, body in boxes(data)]
    assert [kind for kind, _, _ in top] == [b"ftyp", b"moov", b"mdat"]
    found = {kind: body for kind, _, body in boxes(top[1][2], (b"trak", b"mdia", b"minf", b"stbl"))}
    assert struct.unpack_from(">I", found[b"stco"], 8)[0] == top[2][1] + 8
    sizes = struct.unpack(">7I", found[b"stsz"][12:])
    assert sum(sizes) == len(top[2][2])


def test_the_same_frames_give_the_same_bytes(movie: Path, tmp_path: Path) -> None:
    again, other = tmp_path / "again.mp4", tmp_path / "other.mp4"
    write_video(again, SCENES)
    write_video(other, [[frame(20), frame(60)]])
    assert again.read_bytes() == movie.read_bytes() != other.read_bytes()


def test_an_animated_picture_where_there_is_no_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert video_suffix() == ".mp4"
    with monkeypatch.context() as patch:
        patch.setattr(video.features, "check", lambda _: False)
        assert video_suffix() == ".webp"
        with pytest.raises(BadInput, match=r"no AVIF encoder; .* pillow >= 11\.3 or write \.webp"):
            write_video(tmp_path / "a.mp4", SCENES)
        write_video(tmp_path / "a.webp", SCENES)
    with Image.open(tmp_path / "a.webp") as image:
        assert (image.n_frames, image.size) == (6, SIDES[::-1])


@pytest.mark.parametrize(
    ("scenes", "text"),
    [
        ([], "got no frames"),
        ([[]], "got no frames"),
        ([[Frame(np.zeros((3, 4, 3), np.uint8), 1)]], "even sides"),
        ([[frame(1), Frame(np.zeros((8, 8, 3), np.uint8), 1)]], "even sides"),
        ([[Frame(np.zeros((*SIDES, 3), np.float32), 1)]], "float32"),
        ([[frame(1, 0.0)]], "longer than 0 s"),
    ],
)
def test_frames_that_are_no_video_are_refused(scenes: list[list[Frame]], text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=text):
        write_video(tmp_path / "a.mp4", scenes)
    assert not list(tmp_path.iterdir())


def test_another_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"cannot write \.avi, expected \.mp4 or \.webp"):
        write_video(tmp_path / "a.avi", SCENES)
