"""Where episodes begin: reproducible draws, an unfaulty reference, and pairs that stay pairs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.retoucher.learn.worlds import photos, scene_source
from vernissage.retoucher.domain.colour import luma
from vernissage.retoucher.domain.faults import FAULTS
from vernissage.retoucher.learn.scenes import Pictures, SceneStarts, Starts, vary_scenes
from vernissage.retoucher.learn.suggestions import SUGGESTIONS, classic_suggestions

SMALL = photos(6, side=8)


def source(seed: int = 0, **changes: object) -> SceneStarts:
    settings = {
        "scene_variation": 0.0,
        "stored_share": 0.0,
        "clean_share": 0.0,
        "faults": (1, 3),
        "kinds": tuple(FAULTS),
        "full_range_share": 0.0,
        "taken_at": 8,
        **changes,
    }
    return SceneStarts(
        Pictures.of_thumbnails(SMALL), Starts(SMALL / 2, SMALL), rng=np.random.default_rng(seed), **settings
    )


def same(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """(N,) which rows are equal."""
    return (a == b).flatten(1).all(dim=1)


def test_one_seed_gives_one_sequence_and_another_seed_another() -> None:
    one, twin, other = scene_source(1), scene_source(1), scene_source(2)
    for count in (5, 1, 3):
        a, b, c = one.draw(count), twin.draw(count), other.draw(count)
        assert a.faulty.shape == a.reference.shape == (count, 3, 24, 24)
        assert torch.equal(a.faulty, b.faulty)
        assert torch.equal(a.reference, b.reference)
        assert not torch.equal(a.reference, c.reference)


def test_a_sequence_goes_on_from_a_generator_put_back() -> None:
    one, other = scene_source(1), scene_source(9)
    one.draw(4)
    other.rng.bit_generator.state = one.rng.bit_generator.state
    assert torch.equal(one.draw(4).faulty, other.draw(4).faulty)


def test_the_reference_is_a_photo_or_its_mirror_image_and_the_fault_is_not_in_it() -> None:
    starts = source().draw(64)
    known = torch.stack([same(starts.reference, photo[None]) for photo in (*SMALL, *SMALL.flip(-1))])
    assert (known.sum(dim=0) == 1).all()
    assert known.any(dim=1).sum() > 8  # several photos, both ways round
    assert same(starts.faulty, starts.reference).sum() <= 2
    assert starts.faulty.min() >= 0
    assert starts.faulty.max() <= 1


def test_pairs_are_mirrored_together() -> None:
    starts = source(stored_share=1.0).draw(64)
    assert torch.equal(starts.faulty, starts.reference / 2)
    upright = torch.stack([same(starts.reference, photo[None]) for photo in SMALL]).any(dim=0)
    assert 20 < upright.sum() < 44


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_shares_of_stored_and_of_clean_beginnings(share: float) -> None:
    stored = source(stored_share=share, clean_share=1.0).draw(600)
    assert float(same(stored.faulty, stored.reference / 2).float().mean()) == pytest.approx(share, abs=0.06)
    clean = source(clean_share=share).draw(600)
    # A photo may be blind to its fault, so a little more than the share is equal.
    assert share - 0.06 <= float(same(clean.faulty, clean.reference).float().mean()) <= min(1.0, share + 0.1)


def test_a_varied_scene_without_a_fault_is_clean() -> None:
    starts = source(scene_variation=1.0, clean_share=1.0).draw(20)
    assert torch.equal(starts.faulty, starts.reference)
    known = torch.stack([same(starts.reference, photo[None]) for photo in (*SMALL, *SMALL.flip(-1))])
    assert not known.any()


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_any_number_of_beginnings_can_be_drawn(share: float) -> None:
    # With a stored share, a single new beginning is now and then a stored one and none is fresh.
    drawn = source(stored_share=share)
    for _ in range(10):
        assert drawn.draw(1).faulty.shape == (1, 3, 8, 8)


def test_variation_scales_from_nothing_to_another_day() -> None:
    same_day, samples = vary_scenes(SMALL, 0.0, np.random.default_rng(0), full_range_share=0.0)
    assert torch.equal(same_day, SMALL)
    assert torch.equal(samples, SMALL)
    varied = [vary_scenes(SMALL, scale, np.random.default_rng(0), full_range_share=0.8)[0] for scale in (0.3, 1.0)]
    distances = [float((images - SMALL).abs().mean()) for images in varied]
    assert 0 < distances[0] < distances[1] < 0.4
    for images in varied:
        assert images.min() >= 0
        assert images.max() <= 1


def test_thumbnails_and_pixel_samples_are_varied_alike() -> None:
    images, samples = vary_scenes(SMALL, 1.0, np.random.default_rng(0), SMALL, full_range_share=0.8)
    torch.testing.assert_close(images, samples)


def test_all_or_none_reach_the_ends_of_the_histogram() -> None:
    for share in (0.0, 1.0):
        images, _ = vary_scenes(SMALL / 2 + 0.2, 0.0, np.random.default_rng(0), full_range_share=share)
        if share:
            assert (images.amax(dim=(1, 2, 3)) == 1).all()
            assert (images.amin(dim=(1, 2, 3)) == 0).all()
        else:
            assert torch.equal(images, SMALL / 2 + 0.2)


def test_further_photos_get_their_share_of_the_draws() -> None:
    bright = Pictures.of_thumbnails(torch.ones(5, 3, 8, 8))
    drawn = SceneStarts(
        Pictures.of_thumbnails(SMALL).joined(bright, share=0.25),
        Starts(SMALL / 2, SMALL),
        scene_variation=0.0, stored_share=0.0, clean_share=1.0, faults=(1, 3), kinds=tuple(FAULTS),
        full_range_share=0.0, taken_at=8,
        rng=np.random.default_rng(0),
    ).draw(1000)  # fmt: skip
    share = float((drawn.reference == 1).all(dim=(1, 2, 3)).float().mean())
    assert share == pytest.approx(0.25, abs=0.05)
    plain = Pictures.of_thumbnails(SMALL).joined(bright)
    assert torch.equal(plain.weights, torch.ones(len(SMALL) + 5))


def test_only_the_kinds_of_faults_that_were_asked_for_happen() -> None:
    starts = source(kinds=("saturation",), faults=(1, 5)).draw(40)
    # A change of saturation about luma leaves luma alone, up to clipping and the 8-bit grid.
    assert float((luma(starts.faulty) - luma(starts.reference)).abs().median()) < 0.01


def test_suggestions_fit_what_the_agent_is_given() -> None:
    # Thumbnails are their own samples here, so what is suggested can be measured on what was drawn.
    starts = source(faults=(1, 1), clean_share=1.0).draw(20)
    torch.testing.assert_close(starts.suggestions, classic_suggestions(starts.faulty))
    stored = source(stored_share=1.0).draw(20)
    torch.testing.assert_close(stored.suggestions, classic_suggestions(stored.faulty))
    handed = Starts(SMALL, SMALL, torch.ones(6, SUGGESTIONS))
    assert (handed.suggestions == 1).all()
    assert torch.equal(Starts(SMALL, SMALL).suggestions, classic_suggestions(SMALL))
