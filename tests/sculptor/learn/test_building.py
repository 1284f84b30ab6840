"""Building: nothing stays undecided, what is fixed stays, and the draws follow what the network says."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vernissage.core.errors import BadInput, BadParams
from vernissage.sculptor.domain.roles import MASK, OUTSIDE, ROLES, WOODS, Role
from vernissage.sculptor.learn.building import Building, Order, Schedule, State, build, start_state
from vernissage.sculptor.learn.noise import NOT_WOOD

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

ORDERS = get_args(Order)
SCHEDULES = get_args(Schedule)
VOXELS = 60
INSIDE = torch.ones(1, VOXELS, dtype=torch.bool)
# All roles at once, in a random order, and what is decided stays: what the tests below change one thing of.
PLAIN = Building(steps=6, wood_share=0, order="random", schedule="linear", doubt_share=0, edits=0, wood_edits=0)


def generators(rows: int, seed: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(1000 * seed + row) for row in range(rows)]


def distance(rows: int, voxels: int = VOXELS) -> Tensor:
    return (torch.arange(voxels, dtype=torch.float64) % 7).expand(rows, -1)


def certain(grid: Tensor, surely: float = 50.0) -> Tensor:
    """(B, N) roles -> (B, N, ROLES) logits."""
    return surely * torch.nn.functional.one_hot(grid, ROLES).double()


def says(logits: Tensor) -> Callable[[Tensor, float], Tensor]:
    return lambda tokens, _: logits.expand(len(tokens), -1, -1)


def fickle(seed: int = 0, sharpness: float = 3.0) -> Callable[[Tensor, float], Tensor]:
    """A network whose answer depends on all that it sees of a row, and is another in every state."""

    def rate(tokens: Tensor, _: float) -> Tensor:
        rows = []
        for row in tokens:
            key = int((row * torch.arange(1, len(row) + 1)).sum()) + seed
            rows.append(sharpness * torch.randn(len(row), ROLES, generator=torch.Generator().manual_seed(key)))
        return torch.stack(rows)

    return rate


def frames_of(
    rate: Callable[[Tensor, float], Tensor], start: State, building: Building, seed: int = 0, **more: Any
) -> tuple[Tensor, list[Tensor]]:
    frames: list[Tensor] = []
    made = build(rate, start, building, generators(len(start.tokens), seed), watch=frames.append, **more)
    return made, frames


def some_start() -> State:
    """Two boxes that do not fill the canvas, in the second some blocks are given."""
    inside = torch.ones(2, VOXELS, dtype=torch.bool)
    inside[:, 50:] = False
    given = torch.full((2, VOXELS), MASK)
    given[1, 3:13] = Role.WOOD
    given[1, 13:20] = Role.AIR
    given[1, 55] = Role.SNOW
    return start_state(inside, given)


def test_it_begins_with_everything_undecided_but_what_is_given() -> None:
    start = some_start()
    assert (start.tokens[0, :50] == MASK).all()
    assert (start.tokens[:, 50:] == OUTSIDE).all()
    assert start.fixed[:, 50:].all()
    assert start.tokens[1, 3:20].tolist() == [Role.WOOD] * 10 + [Role.AIR] * 7
    assert start.fixed[1].sum() == 27
    assert start.fixed[0].sum() == 10


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("wood_share", [0, 0.5])
def test_all_is_decided_and_what_is_fixed_never_changes(order: Order, schedule: Schedule, wood_share: float) -> None:
    start = some_start()
    building = Building(
        steps=6,
        wood_share=wood_share,
        order=order,
        schedule=schedule,
        doubt=0.9,
        doubt_share=0.5,
        edits=3,
        wood_edits=2,
        edit_below=0.9,
        edit_share=0.5,
    )
    made, frames = frames_of(fickle(), start, building, distance=distance(2))
    assert made.dtype == torch.int64
    assert len(frames) == sum(steps + looks for _, steps, looks in building.levels)
    assert torch.equal(frames[-1], made)
    for frame in frames:
        assert torch.equal(frame[start.fixed], start.tokens[start.fixed])
        assert ((frame < ROLES) | (frame == MASK) | (frame == OUTSIDE)).all()
    for frame in frames[-4:]:
        assert (frame[~start.fixed] < ROLES).all()
    assert (frames[0] == MASK).any()


@settings(max_examples=40)
@given(
    st.builds(
        Building,
        steps=st.integers(1, 9),
        wood_share=st.floats(0, 1),
        order=st.sampled_from(ORDERS),
        order_noise=st.floats(0, 5),
        schedule=st.sampled_from(SCHEDULES),
        doubt=st.floats(0, 1),
        doubt_share=st.floats(0, 1),
        edits=st.integers(0, 3),
        wood_edits=st.integers(0, 3),
        edit_below=st.floats(0, 1),
        edit_share=st.floats(0, 1),
        temperature=st.floats(0, 10),
        guidance=st.floats(0, 10),
    ),
    st.floats(0, 100),
)
def test_whatever_the_settings_a_whole_structure_comes_out(building: Building, sharpness: float) -> None:
    start = some_start()
    made, _ = frames_of(fickle(1, sharpness), start, building, distance=distance(2))
    assert (made[~start.fixed] < ROLES).all()
    assert torch.equal(made[start.fixed], start.tokens[start.fixed])


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("wood_share", [0, 0.5, 1])
@pytest.mark.parametrize("steps", [1, 2, 7, 100])
def test_what_the_network_is_sure_of_comes_out(order: Order, schedule: Schedule, wood_share: float, steps: int) -> None:
    wanted = torch.randint(ROLES, (2, VOXELS), generator=torch.Generator().manual_seed(3))
    start = start_state(torch.ones(2, VOXELS, dtype=torch.bool))
    building = Building(steps=steps, wood_share=wood_share, order=order, schedule=schedule)
    made, _ = frames_of(says(certain(wanted)), start, building, distance=distance(2))
    assert torch.equal(made, wanted)


@given(st.integers(1, 60), st.floats(0, 1))
def test_the_steps_are_shared_between_the_wood_and_the_rest(steps: int, wood_share: float) -> None:
    levels = Building(steps=steps, wood_share=wood_share).levels
    assert sum(count for _, count, _ in levels) == steps
    assert all(count >= 1 for _, count, _ in levels)
    assert (len(levels) == 1) == (steps == 1 or wood_share == 0)
    if len(levels) == 2:
        assert abs(levels[0][1] - steps * wood_share) <= 1


def test_the_wood_is_decided_before_the_rest_and_then_stays() -> None:
    building = replace(PLAIN, steps=8, wood_share=0.5, wood_edits=1)
    made, frames = frames_of(fickle(), start_state(INSIDE), building)
    woods = torch.tensor(WOODS)
    for frame in frames[:5]:
        assert torch.isin(frame[frame != MASK], woods).all()
    skeleton = torch.isin(frames[4], woods)
    assert skeleton.any()
    for frame in frames[5:]:
        assert torch.equal(torch.isin(frame, woods), skeleton)
        assert torch.equal(frame[skeleton], made[skeleton])


def test_the_network_is_told_what_is_known_to_be_no_wood() -> None:
    """While the rest is decided, an open voxel is another token than while it might still become wood."""
    seen: list[Tensor] = []

    def rate(tokens: Tensor, scale: float) -> Tensor:
        seen.append(tokens.clone())
        return fickle()(tokens, scale)

    build(rate, start_state(INSIDE), replace(PLAIN, steps=6, wood_share=0.5), generators(1))
    assert (seen[0] == MASK).all()
    assert all((tokens == MASK).any() for tokens in seen[:3])
    assert not any((tokens == MASK).any() for tokens in seen[3:])
    assert not any((tokens < ROLES).logical_and(~torch.isin(tokens, torch.tensor(WOODS))).any() for tokens in seen[:4])


def test_given_blocks_are_told_as_training_tells_them() -> None:
    """While the wood is decided, the network has only ever seen wood, `MASK` and `NOT_WOOD`."""
    seen: list[Tensor] = []

    def rate(tokens: Tensor, scale: float) -> Tensor:
        seen.append(tokens.clone())
        return fickle()(tokens, scale)

    start = start_state(INSIDE, torch.tensor([[Role.LEAF, Role.AIR, Role.WOOD, *[MASK] * (VOXELS - 3)]]))
    build(rate, start, replace(PLAIN, steps=4, wood_share=0.5), generators(1))
    known = torch.tensor([*WOODS, MASK, NOT_WOOD])
    assert all(torch.isin(tokens, known).all() for tokens in seen[:2])
    assert seen[2][0, :3].tolist() == [Role.LEAF, Role.AIR, Role.WOOD]


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_a_schedule_decides_more_in_every_step_until_all_is(schedule: Schedule) -> None:
    _, frames = frames_of(fickle(), start_state(INSIDE), replace(PLAIN, schedule=schedule))
    left = [int((frame == MASK).sum()) for frame in frames]
    shares = {"cosine": lambda done: math.cos(math.pi / 2 * done), "linear": lambda done: 1 - done}[schedule]
    assert left == pytest.approx([VOXELS * shares((step + 1) / 6) for step in range(6)], abs=1)
    assert left[-1] == 0


def test_the_even_schedule_decides_few_voxels_while_they_are_open() -> None:
    """A share of the doubt a step: voxels that are sure come at once, the open ones one by one."""
    logits = certain(torch.zeros(1, VOXELS, dtype=torch.long))
    logits[0, :20] = 0
    building = replace(PLAIN, steps=10, schedule="even", order="confidence", order_noise=0)
    _, frames = frames_of(says(logits), start_state(INSIDE), building)
    assert (frames[0] != MASK)[0, 20:].all()
    assert [int((frame == MASK).sum()) for frame in frames] == list(range(18, -1, -2))


def test_the_even_schedule_gets_on_even_where_one_voxel_is_more_than_a_share() -> None:
    logits = certain(torch.zeros(1, VOXELS, dtype=torch.long))
    logits[0, 7] = 0
    _, frames = frames_of(says(logits), start_state(INSIDE), replace(PLAIN, schedule="even"))
    left = [int((frame == MASK).sum()) for frame in frames]
    assert left == sorted(left, reverse=True)
    assert left[0] < VOXELS
    assert left[-1] == 0


def test_what_is_decided_stays_where_nothing_is_doubted() -> None:
    _, frames = frames_of(fickle(), start_state(INSIDE), PLAIN)
    for before, after in pairwise(frames):
        decided = before != MASK
        assert torch.equal(after[decided], before[decided])


def test_the_same_generators_build_the_same_and_others_do_not() -> None:
    start, building = some_start(), Building(steps=5)
    one, other = (frames_of(fickle(), start, building, seed=4)[0] for _ in range(2))
    assert torch.equal(one, other)
    assert not torch.equal(one, frames_of(fickle(), start, building, seed=5)[0])


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("wood_share", [0, 0.5])
def test_a_row_is_the_same_alone_and_among_others(order: Order, schedule: Schedule, wood_share: float) -> None:
    start = some_start()
    building = Building(
        steps=6, wood_share=wood_share, order=order, schedule=schedule, doubt=0.5, doubt_share=0.3, edit_below=0.5
    )
    together = build(fickle(), start, building, generators(2), distance=distance(2))
    for row in range(2):
        own = State(start.tokens[row : row + 1], start.fixed[row : row + 1])
        alone = build(fickle(), own, building, generators(2)[row : row + 1], distance=distance(1))
        assert torch.equal(alone[0], together[row])


def test_the_random_order_does_not_look_at_what_the_network_says() -> None:
    """Which voxels come first is the same whatever they are to become."""
    places = [[frame == MASK for frame in frames_of(fickle(seed), start_state(INSIDE), PLAIN)[1]] for seed in (1, 2)]
    assert all(torch.equal(*pair) for pair in zip(*places, strict=True))


def test_the_order_of_confidence_decides_first_what_is_sure() -> None:
    logits = torch.zeros(1, VOXELS, ROLES, dtype=torch.float64)
    logits[0, ::2, Role.WOOD] = 20
    building = replace(PLAIN, steps=2, order="confidence", order_noise=0)
    _, frames = frames_of(says(logits), start_state(INSIDE), building)
    assert torch.equal((frames[0] != MASK)[0], torch.arange(VOXELS) % 2 == 0)


def test_the_order_outward_decides_first_what_is_near_the_trunk() -> None:
    far = torch.randperm(VOXELS, generator=torch.Generator().manual_seed(0)).double()[None]
    building = replace(PLAIN, order="outward", order_noise=0)
    _, frames = frames_of(fickle(), start_state(INSIDE), building, distance=far)
    for frame in frames[:-1]:
        assert far[frame != MASK].max() < far[frame == MASK].min()


def test_the_order_outward_mistakes_a_distance_by_its_noise_at_most() -> None:
    far = torch.arange(VOXELS).double()[None]
    building = replace(PLAIN, order="outward", order_noise=6)
    _, frames = frames_of(fickle(), start_state(INSIDE), building, distance=far)
    overlaps = [float(far[frame != MASK].max() - far[frame == MASK].min()) for frame in frames[:-1]]
    assert 0 < max(overlaps) < 6


def test_the_order_outward_needs_distances() -> None:
    with pytest.raises(BadInput, match=r"order outward.*only plans give"):
        build(fickle(), start_state(INSIDE), Building(order="outward"), generators(1))


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("good_looks", [0, 2])
def test_numbers_that_are_none_are_refused(wrong: float, good_looks: int) -> None:
    """In the first look as in the last one, at what is finished."""
    looks = []

    def rate(tokens: Tensor, _: float) -> Tensor:
        looks.append(1)
        logits = torch.zeros(1, VOXELS, ROLES)
        logits[0, 7, 2] = wrong if len(looks) > good_looks else 0
        return logits

    with pytest.raises(BadInput, match=r"no numbers.*train it again"):
        build(rate, start_state(INSIDE), replace(PLAIN, steps=2, edits=1), generators(1))


@pytest.mark.parametrize("order", ["random", "outward"])
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("steps", "wood_share"), [(1, 0), (4, 0), (4, 0.5)])
def test_draws_are_as_frequent_as_the_network_says(
    order: Order, schedule: Schedule, steps: int, wood_share: float
) -> None:
    voxels = 20_000
    shares = torch.tensor([0.4, 0.25, 0.05, 0.15, 0.08, 0.04, 0.02, 0.01, 0.0], dtype=torch.float64)
    logits = shares.clamp(min=1e-30).log().expand(1, voxels, -1)
    building = replace(PLAIN, steps=steps, wood_share=wood_share, order=order, schedule=schedule)
    start = start_state(torch.ones(1, voxels, dtype=torch.bool))
    made = build(says(logits), start, building, generators(1, seed=9), distance=distance(1, voxels))
    counts, expected = torch.bincount(made[0], minlength=ROLES), shares * voxels
    assert counts[-1] == 0
    # Chi-square with 7 degrees of freedom is above 32 once in 25,000 times.
    assert float(((counts - expected)[:-1] ** 2 / expected[:-1]).sum()) < 32


@pytest.mark.parametrize("wood_share", [0, 0.5])
@pytest.mark.parametrize(("temperature", "power"), [(0.5, 2.0), (1.0, 1.0), (2.0, 0.5)])
def test_temperature_is_the_root_of_the_shares(temperature: float, power: float, wood_share: float) -> None:
    voxels, odds = 20_000, 3.0
    logits = torch.full((1, voxels, ROLES), -200.0, dtype=torch.float64)
    logits[..., Role.WOOD], logits[..., Role.LEAF] = 0, math.log(odds)
    building = replace(PLAIN, steps=2, temperature=temperature, wood_share=wood_share)
    made = build(says(logits), start_state(torch.ones(1, voxels, dtype=torch.bool)), building, generators(1))
    share = odds**power / (1 + odds**power)
    assert float((made == Role.LEAF).double().mean()) == pytest.approx(share, abs=4 * math.sqrt(0.25 / voxels))


def test_at_temperature_nought_the_most_probable_role_is_taken() -> None:
    logits = torch.randn(1, VOXELS, ROLES, generator=torch.Generator().manual_seed(2))
    made = build(says(logits), start_state(INSIDE), replace(PLAIN, temperature=0), generators(1))
    assert float((made == logits.argmax(2)).double().mean()) > 0.95
    # A nought is taken for a thousandth: beside an equal second the draw is still one.
    assert (logits.gather(2, made[..., None])[..., 0] > logits.max(2).values - 0.02).all()


def changing_its_mind(regretted: Tensor, rating: float) -> Callable[[Tensor, float], Tensor]:
    """Sure of wood; once voxels are wood, it gives that only so much in the places that it regrets."""

    def rate(tokens: Tensor, _: float) -> Tensor:
        shares = torch.full((*tokens.shape, ROLES), 1e-9, dtype=torch.float64)
        shares[..., Role.WOOD] = 1
        doubted = regretted & (tokens == Role.WOOD)
        shares[doubted] = torch.tensor([1 - rating, rating, *[1e-9] * (ROLES - 2)], dtype=torch.float64)
        return shares.log()

    return rate


@pytest.mark.parametrize(("rating", "below", "undone"), [(0.05, 0.1, True), (0.15, 0.1, False), (0.15, 0.2, True)])
def test_only_what_is_rated_below_the_threshold_is_undone(rating: float, below: float, undone: bool) -> None:
    regretted = torch.arange(VOXELS)[None] % 3 == 0
    building = replace(PLAIN, steps=3, doubt=below, doubt_share=1)
    made, frames = frames_of(changing_its_mind(regretted, rating), start_state(INSIDE), building)
    decided = frames[0] != MASK
    assert torch.equal((frames[1] == MASK) & decided, decided & regretted & undone)
    assert (made != MASK).all()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_at_most_the_share_of_what_is_decided_is_undone(share: float) -> None:
    regretted = torch.ones(1, VOXELS, dtype=torch.bool)
    building = replace(PLAIN, steps=3, doubt=0.5, doubt_share=share)
    _, frames = frames_of(changing_its_mind(regretted, 0.01), start_state(INSIDE), building)
    decided = frames[0] != MASK
    assert int(((frames[1] == MASK) & decided).sum()) == math.ceil(share * int(decided.sum()))


def test_the_worst_rated_are_undone_first() -> None:
    ratings = torch.linspace(0.001, 0.4, VOXELS, dtype=torch.float64)

    def rate(tokens: Tensor, _: float) -> Tensor:
        shares = torch.full((*tokens.shape, ROLES), 1e-9, dtype=torch.float64)
        wood = torch.where(tokens[0] == Role.WOOD, ratings, 1.0)
        shares[0, :, Role.WOOD], shares[0, :, Role.AIR] = wood, 1 - wood + 1e-9
        return shares.log()

    building = replace(PLAIN, steps=3, doubt=0.9, doubt_share=0.25)
    _, frames = frames_of(rate, start_state(INSIDE), building)
    decided = frames[0] != MASK
    undone = (frames[1] == MASK) & decided
    assert undone.any()
    assert ratings[undone[0]].max() < ratings[(decided & ~undone)[0]].min()


def test_wood_that_is_doubted_is_open_to_the_end_of_its_own_steps() -> None:
    """Undone while the wood is decided, it may become wood again; the steps of the rest leave it alone."""
    regretted = torch.ones(1, VOXELS, dtype=torch.bool)
    building = replace(PLAIN, steps=8, wood_share=0.5, doubt=0.5, doubt_share=1)
    made, frames = frames_of(changing_its_mind(regretted, 0.01), start_state(INSIDE), building)
    assert (made == Role.WOOD).all()
    assert all((frame == Role.WOOD).all() for frame in frames[3:])


@pytest.mark.parametrize("steps", [1, 2])
def test_the_last_step_undoes_nothing(steps: int) -> None:
    regretted = torch.ones(1, VOXELS, dtype=torch.bool)
    building = replace(PLAIN, steps=steps, doubt=0.9, doubt_share=1)
    made, frames = frames_of(changing_its_mind(regretted, 0.01), start_state(INSIDE), building)
    assert len(frames) == steps
    assert (made != MASK).all()


@pytest.mark.parametrize(("share", "below", "edited"), [(1.0, 0.2, 20), (0.1, 0.2, 6), (1.0, 0.05, 0), (0.0, 0.2, 0)])
def test_an_edit_gives_the_worst_voxels_what_is_expected_there(share: float, below: float, edited: int) -> None:
    regretted = torch.arange(VOXELS)[None] % 3 == 0
    building = replace(PLAIN, steps=1, edits=1, edit_below=below, edit_share=share)
    made, frames = frames_of(changing_its_mind(regretted, 0.1), start_state(INSIDE), building)
    changed = made != frames[0]
    assert int(changed.sum()) == edited
    assert (changed <= regretted).all()
    assert (made[changed] == Role.AIR).all()


def test_a_look_at_the_wood_may_take_some_away_but_decides_nothing_else() -> None:
    regretted = torch.arange(VOXELS)[None] % 3 == 0
    building = replace(PLAIN, steps=2, wood_share=0.5, wood_edits=1, edit_below=0.2, edit_share=1)
    made, frames = frames_of(changing_its_mind(regretted, 0.1), start_state(INSIDE), building)
    assert (frames[0] == Role.WOOD).all()
    assert torch.equal(frames[1] == MASK, regretted)
    assert torch.equal(made == Role.WOOD, ~regretted)


def test_guidance_rises_from_one_over_the_second_half_and_the_last_looks_take_all_of_it() -> None:
    scales: list[float] = []

    def rate(tokens: Tensor, scale: float) -> Tensor:
        scales.append(scale)
        return torch.zeros(1, VOXELS, ROLES)

    guided = replace(PLAIN, steps=8, guidance=3, edits=2)
    build(rate, start_state(INSIDE), guided, generators(1))
    assert scales == pytest.approx([1, 1, 1, 1, 1.5, 2, 2.5, 3, 3, 3])
    scales.clear()
    build(rate, start_state(INSIDE), replace(guided, wood_share=0.5, wood_edits=1), generators(1))
    assert scales == pytest.approx([1, 1, 1, 1, 1, 1.5, 2, 2.5, 3, 3, 3])
    scales.clear()
    build(rate, start_state(INSIDE), replace(guided, guidance=1), generators(1))
    assert scales == [1] * 10


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("wood_share", [0, 0.5])
def test_a_canvas_that_is_fixed_altogether_comes_out_as_it_is(schedule: Schedule, wood_share: float) -> None:
    given = torch.randint(ROLES, (1, VOXELS), generator=torch.Generator().manual_seed(1))
    doubtful = Building(steps=3, wood_share=wood_share, schedule=schedule, doubt=0.9, doubt_share=1)
    building = replace(doubtful, edit_below=0.9, edit_share=1)
    assert torch.equal(build(fickle(), start_state(INSIDE, given), building, generators(1)), given)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": 0}, "sampling steps = 0, expected 1 to 4096"),
        ({"steps": 4097}, "sampling steps = 4097"),
        ({"guidance": -0.1}, "guidance = -0.1, expected 0 to 100"),
        ({"guidance": 101}, "guidance = 101"),
        ({"guidance": math.nan}, "guidance = nan"),
        ({"guidance": math.inf}, "guidance = inf"),
        ({"temperature": -1}, "temperature = -1, expected 0 to 100"),
        ({"temperature": 1e9}, "temperature"),
        ({"temperature": math.nan}, "temperature = nan"),
        *(({name: -0.1}, f"{name} = -0.1") for name in ("wood_share", "doubt", "doubt_share", "edit_below")),
        ({"edit_share": 1.1}, "edit_share = 1.1, expected a share from 0 to 1"),
        ({"doubt": math.nan}, "doubt = nan"),
    ],
)
def test_settings_out_of_range_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(BadParams, match=said):
        Building(**changes)


@pytest.mark.parametrize(("threshold", "share"), [("doubt", "doubt_share"), ("edit_below", "edit_share")])
def test_a_threshold_of_nought_doubts_nothing(threshold: str, share: str) -> None:
    """As params.yaml promises; it is the same as to allow no share."""
    doubtful = replace(PLAIN, doubt=0.5, doubt_share=0.5, edits=2, edit_below=0.5, edit_share=0.5)
    made = [
        build(fickle(), some_start(), replace(doubtful, **{name: 0.0}), generators(2))  # type: ignore[arg-type]
        for name in (threshold, share)
    ]
    assert torch.equal(*made)
