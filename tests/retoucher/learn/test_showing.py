"""What a training shows: sheets of the same photos at every look, a video at the end, and no trace in the training."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image

from tests.retoucher.learn.worlds import photos, policy, untrained_juror
from vernissage.core.images import save_png
from vernissage.core.video import video_suffix
from vernissage.retoucher.domain.episode_frames import FRAME_HEIGHT, FRAME_WIDTH
from vernissage.retoucher.domain.pictures import tile_pixels
from vernissage.retoucher.domain.quality import delta_e
from vernissage.retoucher.domain.render import render
from vernissage.retoucher.domain.sliders import slider_index
from vernissage.retoucher.learn.dataset import Pair
from vernissage.retoucher.learn.showing import Showing, Shown, choose_shown, edit_text, episode_scenes, play

if TYPE_CHECKING:
    from pathlib import Path

SIDE = 40
EXPOSURE = slider_index("exposure")


@pytest.fixture
def pairs(tmp_path: Path) -> list[Pair]:
    """Three photos in two versions each; the first version is clean."""
    made = []
    for number, original in enumerate(photos(3, side=SIDE)):
        save_png(tmp_path / f"original-{number}.png", tile_pixels(original))
        for draw, stops in enumerate((1.0, 0.4)):
            save_png(tmp_path / f"faulty-{number}-{draw}.png", tile_pixels(original * stops))
            pair_id = 2 * number + draw
            files = tmp_path / f"original-{number}.png", tmp_path / f"faulty-{number}-{draw}.png"
            made.append(Pair(pair_id, "val", f"g{number}", "", *files, n_faults=draw, faults="[]"))
    return made


def brightener() -> torch.nn.Module:
    """Brightens whatever it sees."""
    return policy({EXPOSURE: 0.6}, horizon=2).eval()


def test_faulty_photos_are_chosen_evenly(pairs: list[Pair]) -> None:
    assert [pair.pair_id for pair in choose_shown(pairs, 3)] == [1, 3, 5]
    assert [pair.pair_id for pair in choose_shown(pairs, 2)] == [1, 5]
    assert len(choose_shown(pairs, 99)) == 3
    assert choose_shown(pairs, 0) == []
    clean = [pair for pair in pairs if not pair.n_faults]
    assert choose_shown(clean, 2) == [clean[0], clean[2]]


def test_an_episode_tells_which_slider_moved(pairs: list[Pair]) -> None:
    original = photos(1, side=SIDE)
    episode = play(brightener(), Shown.of(original * 0.4, original, untrained_juror()))
    assert episode.edits >= 2
    assert torch.equal(episode.path[0], torch.zeros_like(episode.path[0]))
    for step in range(1, episode.edits + 1):
        slider, change = episode.moved(step)
        assert slider == EXPOSURE
        assert change == pytest.approx(float(episode.path[step, slider] - episode.path[step - 1, slider]))
    assert edit_text(EXPOSURE, 0.35) == "exposure +0.70 EV"
    assert torch.equal(episode.picture(episode.path[-1]), render(original * 0.4, episode.path[-1:]))


def test_looks_are_sheets_that_follow_the_policy(pairs: list[Pair], tmp_path: Path) -> None:
    showing = Showing(choose_shown(pairs, 2), untrained_juror(), tmp_path / "live")
    showing.look("plan", 7, policy())
    showing.look("plan", 20, brightener(), {"gain": 0.25, "worse": 0.1})
    showing.look("ppo", 0, brightener(), {"gain": 0.25, "worse": 0.1})
    names = sorted(file.name for file in (tmp_path / "live").iterdir())
    assert names == ["plan-000007.png", "plan-000020.png", "ppo-000000.png"]
    untouched, edited = (np.asarray(Image.open(tmp_path / "live" / name)).astype(int) for name in names[:2])
    # Columns: before, after, original, sliders. Only the second and the last follow the policy.
    column = 192
    for number, same in enumerate((True, False, True)):
        cells = [sheet[40:150, 12 + number * column : 12 + number * column + 110] for sheet in (untouched, edited)]
        assert np.array_equal(*cells) == same
    assert edited[40:150, 12 + column : 300].mean() > untouched[40:150, 12 + column : 300].mean() + 5


def test_nothing_of_the_training_changes(pairs: list[Pair], tmp_path: Path) -> None:
    network = brightener().train()
    before, chance = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    numpy_chance = np.random.get_state()[1].copy()  # noqa: NPY002
    showing = Showing(choose_shown(pairs, 1), untrained_juror(), tmp_path / "live")
    showing.look("ppo", 1, network)
    showing.finish(network, tmp_path / "out")
    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), chance)
    assert np.array_equal(np.random.get_state()[1], numpy_chance)  # noqa: NPY002


def test_the_end_has_all_looks_and_the_video(pairs: list[Pair], tmp_path: Path) -> None:
    showing = Showing(choose_shown(pairs, 1), untrained_juror(), tmp_path / "live")
    showing.look("plan", 1, brightener())
    # A training that was killed and goes on makes another object; the looks of before are still there.
    showing = Showing(choose_shown(pairs, 1), untrained_juror(), tmp_path / "live")
    showing.look("ppo", 2, brightener())
    showing.finish(brightener(), tmp_path / "out")
    written = sorted(str(file.relative_to(tmp_path / "out")) for file in (tmp_path / "out").rglob("*.*"))
    assert written == [f"episodes{video_suffix()}", "looks/plan-000001.png", "looks/ppo-000002.png"]
    assert not (tmp_path / "live").exists()
    first = (tmp_path / "out" / f"episodes{video_suffix()}").read_bytes()
    showing.finish(brightener(), tmp_path / "again")
    assert (tmp_path / "again" / f"episodes{video_suffix()}").read_bytes() == first


def test_a_scene_shows_every_edit_and_ends_with_before_and_after() -> None:
    original, juror = photos(1, side=SIDE), untrained_juror()
    shown = Shown.of(original * 0.4, original, juror)
    assert shown.difference == pytest.approx(float(delta_e(original * 0.4, original)))
    episodes = [play(brightener(), shown), play(policy().eval(), shown)]
    edited, untouched = list(episode_scenes(episodes, juror))
    assert all(frame.pixels.shape == (FRAME_HEIGHT, FRAME_WIDTH, 3) for frame in edited + untouched)
    held = [frame for frame in edited if frame.seconds > 0.5]
    assert len(held) == episodes[0].edits + 2
    light = [frame.pixels[60:370, 20:476].mean() for frame in held[:-1]]
    assert light == sorted(light)
    assert light[-1] > light[0] + 5
    # Nothing was done: as it came in, and the comparison.
    assert len(untouched) == 2


def test_no_photos_show_nothing(tmp_path: Path) -> None:
    showing = Showing([], untrained_juror(), tmp_path / "live")
    showing.look("plan", 1, brightener())
    showing.finish(brightener(), tmp_path / "out")
    assert not list(tmp_path.iterdir())
