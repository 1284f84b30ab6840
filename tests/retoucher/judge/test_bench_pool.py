"""The pool's benchmark: every construction gives the juror's own scores, and the figures are put together rightly.

How fast each is depends on the machine and is measured by `vernissage bench pool`, not here; the tests of that command
run the whole benchmark on tiny pictures.
"""

from __future__ import annotations

import pytest
import torch

from tests.retoucher.domain.procedural import flat
from vernissage.retoucher.judge import bench_pool as module
from vernissage.retoucher.judge.bench_pool import (
    HERE,
    POOL,
    POOL_SINGLE,
    QUEUE,
    QUEUE_SINGLE,
    LightJuror,
    PoolRow,
    fresh_rank_juror,
    ratios,
)
from vernissage.retoucher.judge.stopwatch import Stopwatch


def test_what_comes_through_the_queues_are_the_jurors_scores() -> None:
    images = torch.rand(5, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    juror = LightJuror()
    with module._queues(LightJuror, workers=2, threads=1) as (questions, answers):
        for number, image in enumerate(images.split(1)):
            questions.put((number, image.numpy()))
        heard = dict(answers.get(timeout=120) for _ in images)
        questions.put((9, images.numpy()))
        _, together = answers.get(timeout=120)
    assert torch.tensor([float(heard[number][0]) for number in range(5)]).equal(juror.score(images))
    assert torch.from_numpy(together).equal(juror.score(images))


def test_the_light_juror_likes_middling_brightness_and_contrast() -> None:
    checks = torch.zeros(1, 3, 8, 8)
    checks[..., ::4] = 0.9  # every second of the columns that it looks at
    grey, white = flat(0.45, 0.45, 0.45, size=8), flat(1, 1, 1, size=8)
    scores = LightJuror().score(torch.cat((checks, grey, white)))
    assert scores.tolist() == pytest.approx([10, 0, 0], abs=1e-2)
    assert (LightJuror().score(torch.rand(20, 3, 16, 16)) >= 0).all()


def test_the_fresh_rank_juror_is_the_same_every_time_and_leaves_the_random_numbers_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(fresh_rank_juror().score(images), fresh_rank_juror().score(images))
    assert torch.equal(torch.get_rng_state(), before)


def test_ratios_by_hand() -> None:
    figures = {
        HERE: (40.0, 1.0),
        POOL: (60.0, 2.0),
        POOL_SINGLE: (30.0, 3.0),
        QUEUE: (12.0, 9.0),
        QUEUE_SINGLE: (20.0, 8.0),
    }
    rows = [PoolRow("light", 64, name, 1, rate, cpu, (rate,)) for name, (rate, cpu) in figures.items()]
    assert ratios(rows) == [
        {"juror": "light", "side": 64, "usual": 3.0, "usual_cpu": 4.0, "single": 1.5, "batched": 5.0, "in_process": 1.5}
    ]


def test_the_stopwatch_sees_what_work_takes() -> None:
    watch = Stopwatch()
    while watch.seconds < 0.2:
        torch.rand(1000).sort()
    speed = watch.speed(10)
    assert 0 < speed.rate <= 50
    assert speed.cpu_ms > 0
    assert Stopwatch().speed(1).cpu_ms > 0  # less than the system can count
    with pytest.raises(ValueError, match="0 pieces"):
        watch.speed(0)
