from __future__ import annotations

import time
from typing import TYPE_CHECKING

import gymnasium as gym
import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from hypothesis import given
from hypothesis import strategies as st
from stable_baselines3.common.policies import ActorCriticPolicy

from vernissage.core.errors import BadInput, BadParams
from vernissage.sampler.learn.controller import SteeringController, static_bias
from vernissage.sampler.learn.experts import ACTIONS, EXPERTS, STATIC
from vernissage.sampler.learn.features import FEATURES, prices_of
from vernissage.sampler.learn.steering import Standardised

if TYPE_CHECKING:
    from pathlib import Path

PRICE = FEATURES.index("log_price")


def observations(count: int = 32, prices: float | np.ndarray = 0.02, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, len(FEATURES))).astype(np.float32)
    rows[:, PRICE] = np.log10(prices) + 2.5
    return rows


def wild(**config: object) -> SteeringController:
    """One whose choices depend on what it sees."""
    controller = SteeringController(**config)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for head in controller.heads:
            head.weight.normal_(0, 1.0, generator=generator)
            head.bias.zero_()
        controller.mean.normal_(0, 0.3, generator=generator)
        controller.scale.uniform_(0.5, 2, generator=generator)
    return controller


def test_prices_are_seen() -> None:
    prices = np.geomspace(0.001, 1, 30)
    assert prices_of(observations(30, prices)) == pytest.approx(prices, rel=1e-5)


def test_fresh_weights_follow_the_static_program_whatever_they_see() -> None:
    decision = SteeringController(seed=3).decide(observations(500) * 5)
    assert (decision.actions == STATIC).all()
    assert decision.gates is None
    assert decision.confidence == pytest.approx(0.95, abs=0.02)


def test_the_bias_gives_static_its_share() -> None:
    for bias, count, chosen in zip(static_bias(0.9), ACTIONS, STATIC.tolist(), strict=True):
        probability = bias.softmax(dim=0)
        assert len(probability) == count
        assert float(probability[chosen]) == pytest.approx(0.9, abs=1e-5)
        assert float(probability.sum() - probability[chosen]) == pytest.approx(0.1, abs=1e-5)


def test_decisions_are_those_of_the_network() -> None:
    controller, seen = wild(temperature=0.7), observations(200)
    decision = controller.decide(seen)
    with torch.no_grad():
        logits = controller(torch.from_numpy(seen))
    expected = torch.stack([head.argmax(dim=1) for head in logits], dim=1).numpy()
    assert (decision.actions == expected).all()
    assert len(np.unique(decision.actions, axis=0)) > 50
    confidence = (logits[1] / 0.7).softmax(dim=1).max(dim=1).values.numpy()
    assert decision.confidence == pytest.approx(confidence, abs=1e-5)


def test_decisions_do_not_depend_on_the_batch() -> None:
    controller, seen = wild(soft=True), observations(50)
    whole = controller.decide(seen)
    for row in range(0, 50, 7):
        alone = controller.decide(seen[row : row + 1])
        assert (alone.actions[0] == whole.actions[row]).all()
        assert whole.gates is not None
        assert alone.gates is not None
        assert alone.gates[0] == pytest.approx(whole.gates[row], abs=1e-5)
    assert controller.decide(seen[:0]).actions.shape == (0, 4)


def test_weights_that_change_are_noticed() -> None:
    controller, seen = wild(), observations(50)
    before = controller.decide(seen).actions
    with torch.no_grad():
        controller.router.bias[2] += 100
    assert (controller.decide(seen).actions[:, 1] == 2).all()
    controller.load_state_dict(wild().state_dict())
    assert (controller.decide(seen).actions == before).all()


def test_below_the_confidence_floor_a_slot_follows_static() -> None:
    seen = observations(300)
    free, sure = wild().decide(seen), wild(confidence_floor=0.5).decide(seen)
    low = free.confidence < 0.5
    assert 0 < low.sum() < 300
    assert (sure.actions[low] == STATIC).all()
    assert (sure.actions[~low] == free.actions[~low]).all()


def test_prices_at_which_static_is_as_good_are_obeyed() -> None:
    prices = np.geomspace(0.001, 0.5, 200)
    controller = wild(static_prices=[[0.004, 0.01], [0.05, 0.06]], price_range=[0.002, 0.1])
    free, decided = wild().decide(observations(200, prices)), controller.decide(observations(200, prices))
    static = (prices < 0.002) | ((prices >= 0.004) & (prices <= 0.01))
    static |= ((prices >= 0.05) & (prices <= 0.06)) | (prices > 0.1)
    assert (decided.actions[static] == STATIC).all()
    assert (decided.actions[~static] == free.actions[~static]).all()
    assert [controller.steers_at(price) for price in (0.003, 0.004, 0.01, 0.02, 0.1, 0.2)] == [
        True, False, False, True, True, False
    ]  # fmt: skip
    nowhere = wild(static_prices=[[0.002, 0.1]], price_range=[0.002, 0.1])
    assert (nowhere.decide(observations(200, prices)).actions == STATIC).all()


PRICES = st.tuples(st.floats(0.001, 1), st.floats(0.001, 1)).map(lambda pair: tuple(sorted(pair)))


@given(PRICES, st.lists(PRICES, max_size=4), st.floats(0.0005, 1.2))
def test_any_list_of_prices_is_obeyed(
    steered: tuple[float, float], static: list[tuple[float, float]], price: float
) -> None:
    edges = [*steered, *(edge for pair in static for edge in pair)]
    controller = SteeringController(price_range=steered, static_prices=static)
    inside = any(low <= price <= high for low, high in static)
    if inside or min(abs(price - edge) for edge in edges) > 1e-4 * price:
        assert controller.steers_at(price) == (steered[0] <= price <= steered[1] and not inside)


def test_gates_are_the_routers_probabilities_and_static_where_it_has_no_say() -> None:
    seen = observations(100)
    seen[7, 3] = np.nan
    controller = wild(soft=True, temperature=2.0, confidence_floor=0.3)
    decision = controller.decide(seen)
    assert decision.gates is not None
    assert decision.gates.shape == (100, len(EXPERTS))
    assert decision.gates.sum(axis=1) == pytest.approx(np.ones(100), abs=1e-5)
    static = ~(decision.confidence >= 0.3)
    assert static[7]
    assert (decision.gates[static] == np.eye(len(EXPERTS))[STATIC[1]]).all()
    with torch.no_grad():
        router = (controller(torch.from_numpy(seen))[1] / 2).softmax(dim=1).numpy()
    assert decision.gates[~static] == pytest.approx(router[~static], abs=1e-5)


def test_observations_that_are_no_numbers_follow_static_and_leave_others_alone() -> None:
    seen = observations(20)
    expected = wild().decide(seen)
    seen[3, 5], seen[9] = np.nan, np.nan
    decision = wild().decide(seen)
    assert (decision.actions[[3, 9]] == STATIC).all()
    others = np.setdiff1d(np.arange(20), (3, 9))
    assert (decision.actions[others] == expected.actions[others]).all()


def test_saved_and_loaded_it_is_the_same_to_the_bit(tmp_path: Path) -> None:
    controller = wild(temperature=0.5, confidence_floor=0.2, soft=True, static_prices=[[0.01, 0.02]])
    controller.save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "diffusion_pytorch_model.safetensors"]
    loaded = SteeringController.from_pretrained(tmp_path)
    for name, tensor in controller.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name])
    seen = observations(100, np.geomspace(0.005, 0.05, 100))
    for mine, theirs in zip(controller.decide(seen), loaded.decide(seen), strict=True):
        assert (mine == theirs).all()
    assert not loaded.steers_at(0.015)


def test_a_pipeline_carries_it(tmp_path: Path) -> None:
    """Pipelines find the method that loads a part by the names in the module of its class."""

    class Pipeline(DiffusionPipeline):  # type: ignore[misc]
        def __init__(self, controller: SteeringController) -> None:
            super().__init__()
            self.register_modules(controller=controller)

    controller = wild()
    Pipeline(controller).save_pretrained(tmp_path)
    loaded = Pipeline.from_pretrained(tmp_path).controller
    assert (loaded.decide(observations()).actions == controller.decide(observations()).actions).all()


def a_policy(width: int = 32, layers: int = 2, features: int = len(FEATURES)) -> ActorCriticPolicy:
    torch.manual_seed(4)
    space = gym.spaces.Box(-np.inf, np.inf, (features,), np.float32)
    policy = ActorCriticPolicy(
        space,
        gym.spaces.MultiDiscrete(ACTIONS),
        lambda _: 1e-3,
        net_arch={"pi": [width] * layers, "vf": [8, 8]},
        features_extractor_class=Standardised,
        features_extractor_kwargs={"mean": torch.randn(features), "scale": torch.rand(features)},
    )
    torch.nn.init.normal_(policy.action_net.weight)
    return policy


def test_the_actor_of_a_policy_decides_as_it_does() -> None:
    policy = a_policy()
    controller = SteeringController.from_policy(policy, price_range=[0.001, 0.9])
    assert controller.config["hidden"] == 32
    seen = observations(100)
    chosen, _ = policy.predict(seen, deterministic=True)
    assert (controller.decide(seen).actions == chosen).all()
    assert len(np.unique(chosen, axis=0)) > 20


def test_other_policies_are_refused() -> None:
    for policy in (a_policy(layers=1), a_policy(features=9), object()):
        with pytest.raises(BadInput, match="controller"):
            SteeringController.from_policy(policy)


def test_other_values_of_the_configuration_keep_the_weights() -> None:
    controller = wild(temperature=0.5)
    changed = controller.configured(soft=True)
    assert (changed.config["soft"], changed.config["temperature"]) == (True, 0.5)
    assert controller.config["soft"] is False
    assert (changed.decide(observations()).actions == controller.decide(observations()).actions).all()


def test_bad_values_are_refused() -> None:
    bad = (
        {"temperature": 0.0},
        {"confidence_floor": 1.5},
        {"static_share": 1.0},
        {"price_range": [0.2, 0.1]},
        {"static_prices": [[0.1]]},
        {"actions": [7, 8, 3]},
        {"features": 60},
    )
    for config in bad:
        with pytest.raises(BadParams, match="controller"):
            SteeringController(**config)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match=r"expected \(N, 64\)"):
        SteeringController().decide(np.zeros((3, 10), np.float32))


def test_deciding_costs_little() -> None:
    controller, seen = wild(), observations(64)
    spent = []
    for _ in range(40):
        start = time.perf_counter()
        for _ in range(20):
            controller.decide(seen)
        spent.append((time.perf_counter() - start) / 20)
    # A tenth of a millisecond on an idle core; machines that run tests are seldom idle.
    assert min(spent) < 5e-4
