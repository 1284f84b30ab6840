"""Search: known optima, traps that only a beam gets out of, and no picture scored twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from tests.retoucher.domain.procedural import flat
from tests.retoucher.learn.worlds import ACTIONS, VIEW, darkened, photos, untrained_juror
from vernissage.retoucher.domain.colour import luma, srgb_to_linear
from vernissage.retoucher.domain.render import render, render_linear
from vernissage.retoucher.domain.sliders import HIGHS, LOWS, SLIDER_COUNT, slider_index
from vernissage.retoucher.learn.actions import ActionTable
from vernissage.retoucher.learn.juror import RankJuror
from vernissage.retoucher.learn.search import oracle_edits, search_edits

if TYPE_CHECKING:
    from vernissage.retoucher.learn.rollout import Rollout

EXPOSURE, TEMPERATURE = slider_index("exposure"), slider_index("temperature")


class Brightness:
    """Likes a mean of one half; counts what it was shown."""

    def __init__(self) -> None:
        self.shown: list[int] = []

    def score(self, images: torch.Tensor) -> torch.Tensor:
        self.shown.append(len(images))
        return 10 - 20 * (images.mean(dim=(1, 2, 3)) - 0.5).abs()


class Towards:
    """Likes one picture."""

    def __init__(self, target: torch.Tensor) -> None:
        self.target = target

    def score(self, images: torch.Tensor) -> torch.Tensor:
        return 10 - 100 * ((images - self.target) ** 2).flatten(1).mean(dim=1)


class Trap:
    """Likes a little more light at once; what it likes best is a warm and dark picture, which takes two edits."""

    def __init__(self, photo: torch.Tensor) -> None:
        def place(**settings: float) -> torch.Tensor:
            row = torch.zeros(1, SLIDER_COUNT)
            for name, setting in settings.items():
                row[0, slider_index(name)] = setting
            return self.seen(render(photo, row))

        self.peaks = ((place(exposure=0.3), 6.0), (place(temperature=0.3), 5.0))
        self.peaks += ((place(temperature=0.3, exposure=-0.3), 9.0),)

    @staticmethod
    def seen(images: torch.Tensor) -> torch.Tensor:
        red, _, blue = images.mean(dim=(2, 3)).unbind(dim=1)
        return torch.stack((luma(images).mean(dim=(1, 2, 3)), red - blue), dim=1)

    def score(self, images: torch.Tensor) -> torch.Tensor:
        seen = self.seen(images)
        bumps = [height * torch.exp(-((seen - place) ** 2).sum(dim=1) / 0.02**2) for place, height in self.peaks]
        return torch.stack([torch.full((len(images),), 4.0), *bumps]).amax(dim=0)


def firm_juror() -> RankJuror:
    """Firmer in its arbitrary taste than an untrained network is."""
    return RankJuror(untrained_juror().members, VIEW, [(40.0, 0.0)] * 2)


def assert_consistent(rollout: Rollout, actions: ActionTable) -> None:
    """Path, actions, edits and settings tell one story."""
    steps = rollout.actions.shape[1]
    assert rollout.path.shape == (len(rollout.edits), steps + 1, SLIDER_COUNT)
    assert not rollout.path[:, 0].any()
    assert torch.equal(rollout.settings, rollout.path[:, -1])
    for step in range(steps):
        allowed = actions.allowed(rollout.path[:, step]).gather(1, rollout.actions[:, step : step + 1])
        assert allowed.all()
        torch.testing.assert_close(
            actions.apply(rollout.path[:, step], rollout.actions[:, step]), rollout.path[:, step + 1]
        )
    edited = rollout.actions != actions.stop
    assert torch.equal(edited.sum(dim=1), rollout.edits)
    # Nothing is done after stopping.
    assert (edited[:, 1:] <= edited[:, :-1]).all()


def greedy_by_hand(photo: torch.Tensor, juror: RankJuror, horizon: int, margin: float) -> list[int]:
    """The textbook loop, one candidate at a time."""
    settings, best = torch.zeros(1, SLIDER_COUNT), float(juror.score(photo))
    taken = []
    for _ in range(horizon):
        allowed = ACTIONS.allowed(settings)[0].nonzero().flatten().tolist()
        tries = {
            action: float(
                juror.score(render_linear(srgb_to_linear(photo), ACTIONS.apply(settings, torch.tensor([action]))))
            )
            for action in allowed
            if action != ACTIONS.stop
        }
        action = max(tries, key=tries.__getitem__)
        if tries[action] - best < margin:
            break
        settings, best = ACTIONS.apply(settings, torch.tensor([action])), tries[action]
        taken.append(action)
    return taken


def test_greedy_search_is_the_textbook_loop() -> None:
    pictures, juror = photos(5), firm_juror()
    rollout = search_edits(ACTIONS, juror, pictures, horizon=3, margin=0.02)
    assert_consistent(rollout, ACTIONS)
    taken = [row[row != ACTIONS.stop].tolist() for row in rollout.actions]
    assert taken == [greedy_by_hand(picture[None], juror, 3, 0.02) for picture in pictures]
    assert max(map(len, taken)) > 1


@pytest.mark.parametrize("width", [1, 3])
def test_every_edit_raises_the_best_score_by_the_margin(width: int) -> None:
    pictures, juror, margin = photos(6), firm_juror(), 0.05
    rollout = search_edits(ACTIONS, juror, pictures, horizon=4, width=width, margin=margin)
    assert_consistent(rollout, ACTIONS)
    assert rollout.edits.max() > 1
    before, after = juror.score(pictures), juror.score(render(pictures, rollout.settings))
    assert (after - before >= margin * rollout.edits - 1e-4).all()


def test_the_horizon_is_kept_and_light_is_added_until_no_edit_adds_enough() -> None:
    dark, juror = flat(0.1, 0.1, 0.1, size=VIEW), Brightness()
    levels = []
    for horizon in (1, 2, 3, 20):
        rollout = search_edits(ACTIONS, juror, dark, horizon=horizon)
        assert_consistent(rollout, ACTIONS)
        levels.append(float(render(dark, rollout.settings).mean()))
        assert rollout.edits.tolist() == [horizon] if horizon < 4 else rollout.edits.item() < 20
    assert 0.1 < levels[0] < levels[1] < levels[2] < levels[3] < 0.51


@pytest.mark.parametrize("width", [1, 4])
def test_a_margin_that_nothing_reaches_leaves_photos_alone(width: int) -> None:
    rollout = search_edits(ACTIONS, firm_juror(), photos(3), horizon=8, width=width, margin=20.0)
    assert not rollout.edits.any()
    assert not rollout.settings.any()
    assert (rollout.actions == ACTIONS.stop).all()
    assert_consistent(rollout, ACTIONS)


def test_a_beam_gets_out_of_a_trap_that_holds_a_greedy_search() -> None:
    photo = flat(0.4, 0.4, 0.4, size=VIEW)
    juror = Trap(photo)
    greedy = search_edits(ACTIONS, juror, photo, horizon=4)
    beam = search_edits(ACTIONS, juror, photo, horizon=4, width=4)
    assert float(juror.score(render(photo, greedy.settings))) == pytest.approx(6, abs=0.1)
    assert float(juror.score(render(photo, beam.settings))) == pytest.approx(9, abs=0.1)
    assert float(beam.settings[0, TEMPERATURE]) == pytest.approx(0.3)
    assert float(beam.settings[0, EXPOSURE]) == pytest.approx(-0.3)
    assert_consistent(beam, ACTIONS)


def test_two_steps_of_a_beam_are_never_worse_than_two_greedy_ones() -> None:
    pictures, juror = photos(6), firm_juror()
    scores = {
        width: juror.score(
            render(pictures, search_edits(ACTIONS, juror, pictures, horizon=2, width=width, margin=0.0).settings)
        )
        for width in (1, 2, 5)
    }
    assert (scores[2] >= scores[1] - 1e-4).all()
    assert (scores[5] >= scores[2] - 1e-4).all()
    assert (scores[5] > scores[1] + 1e-3).any()


def test_settings_that_another_path_has_reached_are_not_scored_again() -> None:
    actions, juror = ActionTable((0.25,)), Brightness()
    rollout = search_edits(actions, juror, flat(0.05, 0.05, 0.05, size=8), horizon=2, width=2, margin=0.0)
    assert rollout.edits.tolist() == [2]
    # Denoise and sharpen only go up from neutral, which leaves 16 first edits. Two of these are kept; each has 16 next
    # ones but for going back, and both orders of the same two edits are one.
    assert juror.shown == [1, 16, 2 * (16 - 1) - 1]


@pytest.mark.parametrize("width", [1, 3])
def test_sliders_stay_within_their_ranges(width: int) -> None:
    coarse = ActionTable((0.7, 1.0))
    target = render(photos(1), torch.tensor([[1.0, -1, 1, -1, 1, -1, 1, 1, 1]]))
    rollout = search_edits(coarse, Towards(target), photos(1), horizon=8, width=width, margin=0.0)
    assert_consistent(rollout, coarse)
    assert rollout.edits[0] > 3
    assert (rollout.path >= torch.tensor(LOWS) - 1e-6).all()
    assert (rollout.path <= torch.tensor(HIGHS) + 1e-6).all()


@pytest.mark.parametrize("width", [1, 3])
def test_a_photo_is_searched_alike_alone_and_among_others(width: int) -> None:
    pictures, juror = photos(35, side=8), Towards(photos(1, side=8, first=90))
    together = search_edits(ACTIONS, juror, pictures, horizon=3, width=width)
    assert_consistent(together, ACTIONS)
    for row in (0, 17, 34):  # the last is in another group than the first
        alone = search_edits(ACTIONS, juror, pictures[row : row + 1], horizon=3, width=width)
        torch.testing.assert_close(alone.settings[0], together.settings[row])
        assert alone.edits[0] == together.edits[row]


def test_few_pictures_are_held_at_a_time() -> None:
    juror = Brightness()
    search_edits(ACTIONS, juror, photos(4, side=128), horizon=2, width=4)
    assert max(juror.shown) * 128 * 128 <= 64 * 64 * 64
    assert sum(juror.shown) > 4 * (ACTIONS.count - 3)


@pytest.mark.parametrize("change", [{"horizon": 0}, {"width": 0}, {"margin": -0.1}])
def test_a_search_without_room_is_refused(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="search: got"):
        search_edits(ACTIONS, Brightness(), photos(1), **{"horizon": 2, **change})


def test_a_juror_that_fails_is_heard() -> None:
    class Lost(Brightness):
        def score(self, images: torch.Tensor) -> torch.Tensor:
            return torch.where(torch.arange(len(images)) == 5, torch.nan, super().score(images))

    with pytest.raises(ValueError, match="never a score"):
        search_edits(ACTIONS, Lost(), photos(1), horizon=2)


# --- the oracle -------------------------------------------------------------------------------------------------------


def squared_error(pictures: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
    return ((pictures - references) ** 2).flatten(1).mean(dim=1)


@pytest.mark.parametrize("stride", [1, 2])
def test_the_oracle_undoes_a_fault_and_every_step_brings_it_nearer(stride: int) -> None:
    starts = darkened(photos(6, side=32), stops=-1.2)
    rollout = oracle_edits(ACTIONS, starts.faulty, starts.reference, horizon=6, stride=stride)
    assert_consistent(rollout, ACTIONS)
    # 1.2 stops are 0.6 of the exposure slider: two edits of 0.3, or more where dark levels were lost.
    torch.testing.assert_close(rollout.settings[:, EXPOSURE], torch.full((6,), 0.6), atol=0.101, rtol=0)
    near = starts.faulty[..., ::stride, ::stride], starts.reference[..., ::stride, ::stride]
    errors = torch.stack(
        [squared_error(render(near[0], rollout.path[:, s]), near[1]) for s in range(rollout.path.shape[1])]
    )
    assert (errors[1:] <= errors[:-1] + 1e-9).all()
    assert (squared_error(render(starts.faulty, rollout.settings), starts.reference) < 0.02 * errors[0]).all()


def test_the_oracle_leaves_a_clean_photo_alone() -> None:
    rollout = oracle_edits(ACTIONS, photos(3), photos(3), horizon=5)
    assert not rollout.edits.any()
    assert not rollout.settings.any()


def test_the_oracle_needs_an_original_for_every_photo() -> None:
    with pytest.raises(ValueError, match="not equal"):
        oracle_edits(ACTIONS, photos(2), photos(3), horizon=2)
