"""The policy network: neutral before it learned, faithful to its plan, deaf to masked actions, exact on disk."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import pytest
import torch

from tests.retoucher.learn.worlds import ACTIONS, darkened, photos, policy
from tests.retoucher.learn.worlds import plan as plan_of
from vernissage.core.errors import CorruptArtifact, MissingArtifact
from vernissage.retoucher.domain.sliders import HIGHS, LOWS, SLIDER_COUNT, slider_index
from vernissage.retoucher.learn.environment import original_statistics, to_bytes, view_statistics
from vernissage.retoucher.learn.extractors import ExtractorSpec, ResNetShape
from vernissage.retoucher.learn.network import MASKED_LOGIT, PolicyNet
from vernissage.retoucher.learn.rollout import run_policy
from vernissage.retoucher.learn.suggestions import SUGGESTIONS, classic_suggestions

if TYPE_CHECKING:
    from pathlib import Path

PHOTOS = darkened(photos(4)).faulty
EXPOSURE, SATURATION, DENOISE = (slider_index(name) for name in ("exposure", "saturation", "denoise"))


def observation(settings: torch.Tensor) -> dict[str, torch.Tensor]:
    count = len(settings)
    images = to_bytes(PHOTOS[:1].expand(count, -1, -1, -1))
    return {
        "original": images,
        "view": images,
        "original_statistics": original_statistics(images),
        "view_statistics": view_statistics(images),
        "suggestions": classic_suggestions(PHOTOS[:1]).expand(count, -1),
        "settings": settings,
        "progress": torch.zeros(count, 1),
        "last_action": torch.zeros(count, ACTIONS.count),
    }


def disturbed(network: PolicyNet, seed: int = 1) -> PolicyNet:
    """Every weight moved a little, as by a training."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return network


def test_before_any_training_the_plan_is_neutral_and_the_policy_stops_at_once() -> None:
    network = policy()
    assert not plan_of(network, PHOTOS).any()
    rollout = run_policy(network, PHOTOS)
    assert rollout.edits.tolist() == [0] * 4
    assert not rollout.settings.any()
    assert (rollout.actions == ACTIONS.stop).all()


@pytest.mark.parametrize(
    ("plan", "edits"),
    [
        ({EXPOSURE: 0.6}, 2),
        ({EXPOSURE: 0.5}, 3),
        ({EXPOSURE: 0.5, SATURATION: -0.3}, 4),
        ({DENOISE: 0.4, EXPOSURE: -0.3, SATURATION: 0.2}, 5),
    ],
)
def test_the_greedy_policy_walks_to_its_plan_and_stops_there(plan: dict[int, float], edits: int) -> None:
    network = policy(plan)
    wanted = torch.zeros(1, SLIDER_COUNT)
    for slider, setting in plan.items():
        wanted[0, slider] = setting
    torch.testing.assert_close(plan_of(network, PHOTOS), wanted.expand(4, -1))
    rollout = run_policy(network, PHOTOS)
    torch.testing.assert_close(rollout.settings, wanted.expand(4, -1), atol=1e-5, rtol=0)
    assert rollout.edits.tolist() == [edits] * 4


def test_a_plan_that_is_too_far_is_approached_until_the_edits_run_out() -> None:
    rollout = run_policy(policy({EXPOSURE: 0.95, SATURATION: -0.95}, horizon=3), PHOTOS)
    assert rollout.edits.tolist() == [3] * 4
    moved = rollout.settings.abs()
    torch.testing.assert_close(moved[:, EXPOSURE] + moved[:, SATURATION], torch.full((4,), 0.9))


def test_the_price_of_an_edit_keeps_it_from_small_corrections() -> None:
    assert run_policy(policy({EXPOSURE: 0.06}, step_cost=0.0), PHOTOS).edits.tolist() == [1] * 4
    assert run_policy(policy({EXPOSURE: 0.06}, step_cost=0.5), PHOTOS).edits.tolist() == [0] * 4


def test_sensitivity_decides_which_slider_comes_first() -> None:
    for strong, weak in ((EXPOSURE, SATURATION), (SATURATION, EXPOSURE)):
        network = policy({EXPOSURE: 0.3, SATURATION: 0.3})
        network.sensitivity[strong] = 4.0
        first = int(run_policy(network, PHOTOS[:1]).actions[0, 0])
        assert ACTIONS.deltas[first, strong] > 0
        assert ACTIONS.deltas[first, weak] == 0


def test_plans_stay_within_the_ranges_whatever_the_weights() -> None:
    network = disturbed(policy())
    with torch.no_grad():
        network.plan_head[-1].bias += torch.tensor([30.0, -30.0] * 4 + [-30.0])
    plan = plan_of(network, PHOTOS)
    assert (plan >= torch.tensor(LOWS)).all()
    assert (plan <= torch.tensor(HIGHS)).all()


@pytest.mark.parametrize("tone", [(0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (0.8, 0.1, 0.1)])
def test_a_picture_of_one_tone_is_left_alone_whatever_the_weights(tone: tuple[float, float, float]) -> None:
    picture = torch.tensor(tone).view(1, 3, 1, 1).expand(1, 3, 32, 32)
    nearly = (picture + torch.linspace(-0.004, 0.004, 32)).clamp(0, 1)
    network = disturbed(policy())
    assert not plan_of(network, torch.cat((picture, nearly))).any()
    assert plan_of(network, PHOTOS).abs().amax(dim=1).min() > 0


def test_what_the_edits_made_of_the_photo_is_seen() -> None:
    network = disturbed(policy())
    seen = observation(torch.zeros(1, SLIDER_COUNT))
    darker = {**seen, "view": seen["view"] // 2, "view_statistics": view_statistics(seen["view"] // 2)}
    assert not torch.equal(network(seen)[0], network(darker)[0])
    assert not torch.equal(network(seen)[1], network(darker)[1])


def test_a_network_that_looks_through_a_resnet_comes_back_from_disk_as_it_was(tmp_path: Path) -> None:
    shape = ResNetShape((1, 1), "basic", 4, (4, 8))
    extractor = ExtractorSpec("resnet18", "random", "", "last", shape)
    network = disturbed(policy(extractor=extractor)).eval()
    network.save(tmp_path)
    again = PolicyNet.load(tmp_path)
    assert again.spec == network.spec
    torch.testing.assert_close(plan_of(again, PHOTOS), plan_of(network, PHOTOS))
    frozen = [name for name, p in network.named_parameters() if not p.requires_grad]
    assert frozen
    assert all(name.startswith("trunk.network") for name in frozen)


def test_masked_actions_are_never_chosen() -> None:
    settings = torch.zeros(3, SLIDER_COUNT)
    settings[1], settings[2] = torch.tensor(HIGHS), torch.tensor(LOWS)
    network = disturbed(policy())
    logits, values = network(observation(settings))
    assert logits.shape == (3, ACTIONS.count)
    assert values.shape == (3,)
    masked = ~ACTIONS.allowed(settings)
    assert (logits[masked] == MASKED_LOGIT).all()
    assert (logits[~masked] > MASKED_LOGIT / 2).all()
    distribution = torch.distributions.Categorical(logits=logits)
    drawn = distribution.sample((2000,))
    assert not masked.gather(1, drawn.T).any()
    assert torch.isfinite(distribution.entropy()).all()
    # However much the residual wants it.
    with torch.no_grad():
        network.residual[-1].bias[masked[1]] += 1e4
    assert not masked[1][network(observation(settings[1:2]))[0].argmax()]


def test_a_row_does_not_depend_on_its_batch() -> None:
    network = disturbed(policy())
    settings = torch.zeros(4, SLIDER_COUNT)
    settings[:, 0] = torch.linspace(-0.5, 0.5, 4)
    logits, values = network(observation(settings))
    for row in range(4):
        own_logits, own_values = network(observation(settings[row : row + 1]))
        torch.testing.assert_close(own_logits[0], logits[row], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(own_values[0], values[row], atol=1e-4, rtol=1e-4)


def test_the_gradient_reaches_everything_that_makes_the_plan() -> None:
    network = disturbed(policy())
    plan_of(network, PHOTOS).sum().backward()
    silent = [name for name, p in network.trunk.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []
    assert all(p.grad is not None and bool(p.grad.any()) for p in network.plan_head.parameters())
    assert all(p.grad is not None for p in network.trust.parameters())
    assert all(p.grad is not None for p in network.plan_parameters())


def test_the_gradient_of_an_action_reaches_plan_residual_and_sharpness() -> None:
    network = disturbed(policy())
    logits, values = network(observation(torch.zeros(2, SLIDER_COUNT)))
    (torch.log_softmax(logits, dim=1)[:, 0].sum() + values.sum()).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    assert network.log_sharpness.grad != 0
    # An untrained head still hands a gradient on, or it would never begin to learn.
    fresh = policy()
    plan_of(fresh, PHOTOS).sum().backward()
    assert fresh.plan_head[-1].weight.grad.any()


def test_what_is_saved_is_loaded_bit_for_bit_without_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = disturbed(policy())
    network.sensitivity[:] = torch.rand(SLIDER_COUNT)
    network.save(tmp_path, {"pairs_sha256": "abc"})

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a pickle was read")

    for name in ("Unpickler", "load", "loads"):
        monkeypatch.setattr(pickle, name, refuse)
    loaded = PolicyNet.load(tmp_path)
    assert loaded.spec == network.spec
    assert not loaded.training
    before, after = network.state_dict(), loaded.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(plan_of(loaded, PHOTOS), plan_of(network, PHOTOS))
    assert torch.equal(run_policy(loaded, PHOTOS).path, run_policy(network, PHOTOS).path)
    assert {file.name for file in tmp_path.iterdir()} == {"model.safetensors", "model.json"}


def test_a_changed_byte_is_refused(tmp_path: Path) -> None:
    policy().save(tmp_path)
    file = tmp_path / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(CorruptArtifact, match=r"model\.safetensors"):
        PolicyNet.load(tmp_path)


@pytest.mark.parametrize(
    ("old", "new"), [('"widths"', '"breadths"'), ('"view"', '"views"'), ('"policy"', '"politics"'), ("0.3", "0.3, 0.4")]
)
def test_a_specification_that_does_not_fit_is_refused(tmp_path: Path, old: str, new: str) -> None:
    policy().save(tmp_path)
    file = tmp_path / "model.json"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    with pytest.raises(CorruptArtifact, match="dvc repro"):
        PolicyNet.load(tmp_path)


def test_a_missing_model_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(MissingArtifact, match="dvc repro"):
        PolicyNet.load(tmp_path)


def test_rollouts_have_the_shapes_they_promise_and_repeat() -> None:
    network = disturbed(policy({EXPOSURE: 0.5}))
    rollout, again = run_policy(network, PHOTOS), run_policy(network, PHOTOS)
    steps = rollout.actions.shape[1]
    assert 1 <= steps <= network.spec.horizon
    assert rollout.path.shape == (4, steps + 1, SLIDER_COUNT)
    assert not rollout.path[:, 0].any()
    assert torch.equal(rollout.path[:, -1], rollout.settings)
    assert (rollout.edits <= network.spec.horizon).all()
    assert torch.equal(rollout.edits, (rollout.actions != ACTIONS.stop).sum(dim=1))
    for field in ("settings", "path", "actions", "edits"):
        assert torch.equal(getattr(rollout, field), getattr(again, field))
    # Every edit of the path is the action that it claims to be, and after stop nothing moves.
    for step in range(steps):
        moved = ACTIONS.apply(rollout.path[:, step], rollout.actions[:, step])
        torch.testing.assert_close(moved, rollout.path[:, step + 1])
    ended = (rollout.actions == ACTIONS.stop).int().cummax(dim=1).values.bool()
    assert (rollout.actions[ended] == ACTIONS.stop).all()


def test_a_rollout_of_one_photo_equals_its_row_and_photos_may_have_any_size() -> None:
    network = policy({EXPOSURE: 0.5})
    with torch.no_grad():  # plans that differ from photo to photo
        network.plan_head[-1].weight += 0.05 * torch.randn(
            network.plan_head[-1].weight.shape, generator=torch.Generator().manual_seed(4)
        )
    together = run_policy(network, PHOTOS)
    assert len({tuple(row) for row in together.settings.tolist()}) > 1
    for row in range(4):
        alone = run_policy(network, PHOTOS[row : row + 1])
        torch.testing.assert_close(alone.settings[0], together.settings[row])
        assert int(alone.edits[0]) == int(together.edits[row])
    wide = run_policy(network, torch.rand(2, 3, 31, 57, generator=torch.Generator().manual_seed(0)))
    assert wide.settings.shape == (2, SLIDER_COUNT)
    assert run_policy(network, torch.full((1, 3, 1, 1), 0.5)).settings.isfinite().all()


def test_suggestions_of_larger_copies_may_be_handed_in() -> None:
    network = policy()
    network.trust_classics(1 - 1e-6)
    suggested = torch.zeros(4, SUGGESTIONS)
    suggested[1, 0] = 0.7
    rollout = run_policy(network, PHOTOS, suggested)
    assert rollout.edits.tolist()[0] == 0
    assert rollout.settings[1, EXPOSURE] == pytest.approx(0.7, abs=0.05)
    measured = run_policy(network, PHOTOS)
    handed = run_policy(network, PHOTOS, classic_suggestions(PHOTOS))
    assert torch.equal(measured.path, handed.path)
