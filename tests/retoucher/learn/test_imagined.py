"""Imagined scenes: pictures like no other, drawn from a seed, with the range of light that photographs have."""

from __future__ import annotations

import numpy as np
import torch

from vernissage.retoucher.domain.colour import luma
from vernissage.retoucher.learn.imagined import imagine_scenes


def test_scenes_are_pictures_on_the_8_bit_grid_and_belong_to_their_seed() -> None:
    scenes = imagine_scenes(4, 32, np.random.default_rng(1))
    assert scenes.shape == (4, 3, 32, 32)
    assert scenes.dtype == torch.float32
    assert scenes.min() >= 0
    assert scenes.max() <= 1
    torch.testing.assert_close(scenes * 255, (scenes * 255).round(), atol=1e-4, rtol=0)
    assert torch.equal(scenes, imagine_scenes(4, 32, np.random.default_rng(1)))
    assert not torch.equal(scenes, imagine_scenes(4, 32, np.random.default_rng(2)))
    assert imagine_scenes(0, 32, np.random.default_rng(1)).shape == (0, 3, 32, 32)


def test_no_two_scenes_are_alike_and_none_is_plain() -> None:
    scenes = imagine_scenes(24, 32, np.random.default_rng(3))
    grey = luma(scenes).flatten(1)
    assert (grey.std(dim=1) > 0.01).all()
    means = grey.mean(dim=1)
    assert means.std() > 0.05
    assert 0.2 < float(means.mean()) < 0.7
    assert torch.pdist(scenes.flatten(1)).min() > 0.5
