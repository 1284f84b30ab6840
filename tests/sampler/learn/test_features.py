from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.sampler.learn.test_slots import LONGEST, always, book, filled, requests, run
from tests.sampler.mixture import Mixture
from vernissage.sampler.domain.denoiser import ClassLabels
from vernissage.sampler.domain.unet import EdmDenoiser, UNetSpec
from vernissage.sampler.learn import features
from vernissage.sampler.learn.experts import EXPERTS, STATIC
from vernissage.sampler.learn.features import FEATURES, SAMPLE_FEATURES, STATE_FREE, prices_of
from vernissage.sampler.learn.slots import Slots

AT = {name: place for place, name in enumerate(FEATURES)}


def column(seen: np.ndarray, name: str) -> np.ndarray:
    return seen[:, AT[name]]


def test_there_are_64_each_in_one_of_both_groups_and_explained() -> None:
    assert len(FEATURES) == len(set(FEATURES)) == 64
    assert sorted((*SAMPLE_FEATURES, *STATE_FREE)) == list(range(64))
    source = Path(features.__file__).read_text(encoding="utf-8")
    for name in FEATURES:
        stem = re.sub(r"_\d+$", "_", name)
        stem = "was_" if name.startswith("was_") else stem
        assert re.search(rf"^#: {stem}", source, re.MULTILINE), name


def test_what_is_known_of_the_request_is_there_from_the_start() -> None:
    slots = filled(
        4, scales=(1.0, 2.0, 3.5, 0.0), calls=(6,), prices=[0.0, 0.01, 1.0, 1e-3], budgets=[8, 20, np.inf, 6]
    )
    seen = slots.observe()
    entry = book().entry(6, 1.0)
    sigmas = entry.program.sigmas
    assert column(seen, "log_sigma") == pytest.approx(np.log(sigmas[0] / Mixture().sigma_data) / 2, rel=1e-5)
    assert column(seen, "log_remaining") == pytest.approx(np.log(sigmas[0] / sigmas[-2]) / 2, rel=1e-5)
    assert column(seen, "length") == pytest.approx(np.log(6), rel=1e-5)
    assert column(seen, "budget_left")[[0, 1, 3]] == pytest.approx(np.log1p([8, 20, 6]), rel=1e-5)
    assert 4.9 < column(seen, "budget_left")[2] <= 5
    assert column(seen, "guidance") == pytest.approx(np.arcsinh([0, 1, 2.5, -1]), rel=1e-5)
    assert prices_of(seen) == pytest.approx([0.0, 0.01, 1.0, 1e-3], rel=1e-5)
    assert seen[:, AT["class_0"] : AT["class_9"] + 1].tolist() == np.eye(10)[:4].tolist()
    assert not seen[:, list(SAMPLE_FEATURES)].any()
    assert not column(seen, "progress").any()


def test_labels_count_modulo_ten_and_none_has_none() -> None:
    slots = filled(3, labels=[13, -1, 9], scales=(1.0,))
    own = slots.observe()[:, AT["class_0"] : AT["class_9"] + 1]
    assert own.argmax(axis=1).tolist() == [3, 0, 9]
    assert own.sum(axis=1).tolist() == [1, 0, 1]


def test_figures_of_the_picture_are_those_of_the_picture() -> None:
    """What is computed for all slots at once, against the definitions for one."""
    denoiser, asked = Mixture(), requests(3, scales=(1.0,), calls=(6,))
    slots = filled(3, scales=(1.0,), calls=(6,))
    sigmas, data = asked["entries"][0].program.sigmas, denoiser.sigma_data
    predictions, states = [], []
    for turn in range(4):
        outcome = slots.act(np.tile(STATIC, (3, 1)))
        states.append(outcome.samples)
        predictions.append(denoiser(outcome.samples, torch.full((3,), sigmas[turn]), asked["condition"]))
    seen = slots.observe()
    d0, d1, d2 = (predictions[-back].flatten(1).double() for back in (1, 2, 3))
    change, previous = d0 - d1, d1 - d2

    def size(values: torch.Tensor) -> np.ndarray:
        return values.square().mean(dim=1).sqrt().numpy()

    steps = np.log(sigmas[2] / sigmas[3]), np.log(sigmas[1] / sigmas[2])
    rate, before = size(change) / data / steps[0], size(previous) / data / steps[1]
    cells = torch.nn.functional.adaptive_avg_pool2d(change.view(3, 1, 4, 4), 4).flatten(1).numpy()
    gain, h = 1 - sigmas[4] / sigmas[3], np.log(sigmas[3] / sigmas[4])
    expected = {
        "last_step": steps[0],
        "previous_step": steps[1],
        "rate": np.log10(1e-3 + rate) + 1,
        "previous_rate": np.log10(1e-3 + before) + 1,
        "rate_ratio": np.log10((1e-3 + rate) / (1e-3 + before)),
        "turn": torch.nn.functional.cosine_similarity(change, previous).numpy(),
        "disagreement": np.log10(1e-4 + gain / 2 * h / steps[0] * size(change) / data) + 2,
        "mean": d0.mean(dim=1).numpy() / data,
        "spread": d0.std(dim=1, correction=0).numpy() / data,
        "largest": d0.abs().amax(dim=1).numpy(),
        "clipped": (d0.abs() > 1).double().mean(dim=1).numpy(),
        "residual": size(states[-1].flatten(1).double() - d0) / sigmas[3],
        "change_00": cells[:, 0] / size(change),
        "change_23": cells[:, 11] / size(change),
        "progress": 4 / 6,
        "evaluations": np.log(5),
        "on_program": 1,
        f"was_{EXPERTS[0]}": 1,
    }
    for name, value in expected.items():
        assert column(seen, name) == pytest.approx(np.broadcast_to(value, 3), abs=3e-4), name


def test_features_that_need_more_predictions_are_zero_until_there_are() -> None:
    slots = filled(1, scales=(1.0,), calls=(6,))
    of_one, of_two, of_three = (
        ("mean", "spread", "residual"),
        ("rate", "disagreement", "last_step"),
        ("turn", "rate_ratio"),
    )
    known = []
    for _ in range(3):
        slots.act(np.tile(STATIC, (1, 1)))
        seen = slots.observe()[0]
        known.append([all(seen[AT[name]] != 0 for name in names) for names in (of_one, of_two, of_three)])
        if not known[-1][1]:
            assert not any(seen[AT[name]] for name in (*of_two, *of_three, "change_11"))
    assert known == [[True, False, False], [True, True, False], [True, True, True]]


def test_a_new_request_sees_nothing_of_the_last_one() -> None:
    slots = filled(1, scales=(1.0,))
    run(slots, always())
    assert not slots.observe().any()
    slots.fill([0], **requests(1, scales=(1.0,)))
    assert np.array_equal(slots.observe(), filled(1, scales=(1.0,)).observe())
    fresh = filled(1, scales=(1.0,))
    for _ in range(2):
        slots.act(STATIC[None])
        fresh.act(STATIC[None])
        np.testing.assert_allclose(slots.observe(), fresh.observe(), atol=1e-5)


def test_observations_do_not_depend_on_neighbours() -> None:
    many = filled(7, calls=(6,))
    slots = Slots(Mixture(), book(), 2)
    asked = requests(7, calls=(6,))
    slots.fill(
        [1],
        asked["noise"][3:4],
        asked["condition"].rows(torch.tensor([3])),
        [3],
        asked["scales"][3:4],
        asked["prices"][3:4],
        entries=asked["entries"][3:4],
    )
    for _ in range(5):
        np.testing.assert_allclose(slots.observe()[1], many.observe()[3], atol=1e-4)
        many.act(np.tile(STATIC, (7, 1)))
        slots.act(np.tile(STATIC, (2, 1)))


def test_samples_differ_only_in_their_own_features() -> None:
    """Requests that are equal but for their noise have equal features where they should."""
    count = 5
    slots = filled(
        count,
        scales=(2.0,),
        calls=(6,),
        labels=torch.zeros(count, dtype=torch.long),
        condition=ClassLabels(torch.zeros(count, dtype=torch.long)),
    )
    for _ in range(LONGEST):
        seen = slots.observe()
        assert (seen[:, list(STATE_FREE)] == seen[:1, list(STATE_FREE)]).all()
        slots.act(np.tile(STATIC, (count, 1)))
    assert (
        seen[1:, [AT["mean"], AT["rate"], AT["residual"]]] != seen[:1, [AT["mean"], AT["rate"], AT["residual"]]]
    ).all()


def test_the_encoder_is_seen_where_the_denoiser_tells() -> None:
    torch.manual_seed(0)
    denoiser = EdmDenoiser(UNetSpec(1, 8, 4, width=8, multipliers=(1, 2), attention_side=0)).eval()
    slots = Slots(denoiser, book(), 4)
    noise = torch.randn(4, 1, 8, 8)
    noise[1] = noise[0]
    labels = torch.tensor([0, 0, 1, 2])
    slots.fill(
        range(4),
        noise,
        ClassLabels(labels),
        labels,
        [1.0, 2.0, 0.0, 1.0],
        [0.01] * 4,
        entries=[book().entry(4, 1.0)] * 4,
    )
    slots.act(np.tile(STATIC, (4, 1)))
    encoded = slots.observe()[:, AT["encoded_0"] : AT["encoded_7"] + 1]
    assert (np.abs(encoded).sum(axis=1) > 0).all()
    # With guidance it is the call with the condition that counts.
    np.testing.assert_allclose(encoded[0], encoded[1], atol=1e-5)
    assert not np.allclose(encoded[0], encoded[3], atol=1e-4)
    assert not filled(1).observe()[:, AT["encoded_0"] : AT["encoded_7"] + 1].any()


def test_the_expert_and_leaving_the_program_are_told() -> None:
    slots = filled(1, scales=(1.0,), calls=(6,))
    slots.act(STATIC[None])
    slots.act(np.array([[3, 7, 0, 0]]))
    seen = slots.observe()[0]
    assert seen[AT["was_Quality"]] == 1
    assert sum(seen[AT[f"was_{name}"]] for name in EXPERTS) == 1
    assert seen[AT["on_program"]] == 0
    assert seen[AT["progress"]] == pytest.approx(1.7 / 6)


def test_prices_survive_the_round_trip() -> None:
    prices = np.array([0.0, 2e-5, 0.001, 0.02, 0.5, 1.0, 10.0])
    rows = np.zeros((len(prices), 64), dtype=np.float32)
    rows[:, AT["log_price"] :] = features.request_features(np.zeros(7, int), np.ones(7), prices).T
    assert prices_of(rows) == pytest.approx(prices, rel=1e-5)
