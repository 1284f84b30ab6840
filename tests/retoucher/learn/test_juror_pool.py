"""The juror pool: the juror's own scores, and what happens when workers die, fail, hang, or their owner does."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.retoucher.learn.pool_jurors import (
    COUNTED,
    DEADLY,
    DEADLY_ONCE,
    HELD,
    SHAPELESS,
    UNFIT,
    WRONG,
    Fingerprint,
    moody,
    no_juror,
    set_off,
)
from tests.retoucher.learn.worlds import ACTIONS, darkened, photos, stored_env, untrained_juror
from vernissage.core.errors import BadInput, MissingArtifact
from vernissage.retoucher.learn.juror import RankJuror
from vernissage.retoucher.learn.juror_pool import JurorPool, PoolState, open_juror
from vernissage.retoucher.learn.pool_messages import (
    JurorFailed,
    JurorPoolClosed,
    JurorPoolError,
    JurorTimeout,
    JurorWorkerDied,
)
from vernissage.retoucher.learn.pool_requests import part_sizes
from vernissage.retoucher.learn.slabs import Slab

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vernissage.retoucher.learn.pool_client import JurorClient

PROJECT = Path(__file__).parents[3]
FINGERPRINT = Fingerprint()
#: Long enough for a busy machine to start a worker; nothing waits for it in vain.
PATIENCE = 120.0


@pytest.fixture(scope="module")
def pool() -> Iterator[JurorPool]:
    """Two workers, 12 slots of 16 x 16 pixels, at most 8 pictures in a forward."""
    with JurorPool(Fingerprint, workers=2, side=16, slots=12, batch=8, share=2, timeout=PATIENCE) as pool:
        yield pool


@pytest.fixture(scope="module")
def moods(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("moods")


@pytest.fixture(scope="module")
def moody_pool(moods: Path) -> Iterator[JurorPool]:
    """One worker that gathers for long, so that what is asked together is scored together."""
    with JurorPool(moody(moods), workers=1, side=16, slots=12, batch=8, gather=1.0, timeout=PATIENCE) as pool:
        yield pool


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slow workers are not ended, however long they take."""
    monkeypatch.setattr("vernissage.retoucher.learn.juror_pool._OVERRUN_BEFORE_ENDING", 1e9)


def pictures(count: int, height: int = 8, width: int = 8, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


def until(holds: Callable[[], bool]) -> None:
    """Wait for something that another process does."""
    latest = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < latest, "waited in vain"
        time.sleep(0.02)


def is_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def all_slots_are_free(pool: JurorPool, slots: int = 12) -> bool:
    return pool._ledger.free == slots - (pool._desk.slots if pool._desk else 0)


# --- scores -----------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 40), st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**31))
def test_scores_are_the_jurors_own_bit_for_bit(pool: JurorPool, count: int, height: int, width: int, seed: int) -> None:
    images = pictures(count, height, width, seed)
    expected = FINGERPRINT.score(images) if count else torch.empty(0)
    assert torch.equal(pool.score(images), expected)
    assert torch.equal(pool.submit(images).result(PATIENCE), expected)
    assert all_slots_are_free(pool)


def test_every_thread_gets_the_scores_of_its_own_pictures(pool: JurorPool) -> None:
    def ask(thread: int) -> bool:
        sizes = torch.randint(1, 24, (12, 3), generator=torch.Generator().manual_seed(thread)).tolist()
        batches = [pictures(*size, seed=thread) for size in sizes]
        futures = [pool.submit(batch) for batch in batches[:6]]
        right = [torch.equal(pool.score(batch), FINGERPRINT.score(batch)) for batch in batches[6:]]
        pairs = zip(batches, futures, strict=False)
        return all(right) and all(torch.equal(f.result(PATIENCE), FINGERPRINT.score(b)) for b, f in pairs)

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(ask, range(8)))
    assert all_slots_are_free(pool)


def test_layouts_other_than_the_plain_one_arrive_as_they_look(pool: JurorPool) -> None:
    images = pictures(3, 6, 10)
    for layout in (
        images.transpose(2, 3),
        images.flip(0),
        images.to(memory_format=torch.channels_last),
        images[:, :, ::2],
    ):
        assert torch.equal(pool.score(layout), FINGERPRINT.score(layout))
    assert not pool.score(images.clone().requires_grad_()).requires_grad


def test_a_picture_larger_than_a_slot_takes_several_and_one_larger_than_all_is_refused(pool: JurorPool) -> None:
    panorama = pictures(1, 30, 100)
    assert torch.equal(pool.score(panorama), FINGERPRINT.score(panorama))
    with pytest.raises(JurorPoolError, match="a picture of 100x100 pixels does not fit into 12 slots of 16x16"):
        pool.score(pictures(1, 100, 100))
    with pytest.raises(ValueError, match="expected \\(N, 3, H, W\\) float"):
        pool.score(torch.zeros(2, 3, 4, 4, dtype=torch.uint8))


def test_the_rank_juror_scores_in_the_pool_as_here() -> None:
    images = torch.cat([photos(9), photos(2, first=20)])
    here = untrained_juror()
    with JurorPool(untrained_juror, workers=2, side=24, slots=16, batch=6, share=1) as pool:
        scores = pool.score(images)
        again = pool.score(images)
    parts = images.split(part_sizes(len(images), 2, 1, 6))
    assert torch.equal(scores, torch.cat([here.score(part) for part in parts]))
    assert torch.equal(scores, again)
    torch.testing.assert_close(scores, here.score(images), rtol=0, atol=1e-5)


def test_an_environment_earns_the_same_with_a_pool() -> None:
    starts, rng = darkened(photos(4)), np.random.default_rng(0)
    here, pooled = (stored_env(starts, slots=3) for _ in range(2))
    actions = rng.integers(ACTIONS.count, size=(6, 3))
    with JurorPool(untrained_juror, workers=2, side=24, slots=8) as pool:
        pooled.juror = pool
        assert_same_observation(here.reset()[0], pooled.reset()[0])
        for chosen in actions:
            ours, theirs = here.step(chosen), pooled.step(chosen)
            assert_same_observation(ours[0], theirs[0])
            # Too few pictures to be cut, so the forwards are the same and with them the last bits.
            np.testing.assert_array_equal(ours[1], theirs[1])


def assert_same_observation(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert one.keys() == other.keys()
    for key, value in one.items():
        np.testing.assert_array_equal(value, other[key])


def test_bytes_score_as_the_pictures_on_the_8_bit_grid() -> None:
    levels = torch.randint(0, 256, (5, 3, 9, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    images = levels / 255
    with JurorPool(Fingerprint, workers=1, side=16, slots=4, pixels="uint8") as pool:
        for given_as in (levels, images, (images + 0.3 / 255).clamp(0, 1)):
            assert torch.equal(pool.score(given_as), FINGERPRINT.score(images))


def test_requests_that_meet_share_a_forward(tmp_path: Path) -> None:
    with JurorPool(moody(tmp_path), workers=1, side=16, slots=12, batch=8, gather=1e-6, timeout=PATIENCE) as pool:
        busy = pool.submit(set_off(HELD))
        until((tmp_path / "holding").exists)
        futures = [pool.submit(set_off(COUNTED, 2)) for _ in range(4)]
        (tmp_path / "go").touch()
        assert [future.result(PATIENCE).tolist() for future in futures] == [[8.0, 8.0]] * 4
        busy.result(PATIENCE)
        # A lone request waits for nobody who has not been here lately.
        assert pool.score(set_off(COUNTED, 3)).tolist() == [3.0] * 3


# --- failures ---------------------------------------------------------------------------------------------------------


def test_a_jurors_error_reaches_who_asked_and_nobody_else(moody_pool: JurorPool) -> None:
    fine, wrong, unfit = pictures(2), set_off(WRONG), set_off(UNFIT)
    futures = [moody_pool.submit(images) for images in (fine, wrong, fine, unfit, set_off(SHAPELESS), fine)]
    for index in (0, 2, 5):
        assert torch.equal(futures[index].result(PATIENCE), FINGERPRINT.score(fine))
    with pytest.raises(JurorFailed, match="the juror failed: ValueError: a wrong picture") as caught:
        futures[1].result(PATIENCE)
    assert "pool_jurors.py" in caught.value.__notes__[0]
    with pytest.raises(BadInput, match="an unfit picture"):
        futures[3].result(PATIENCE)
    with pytest.raises(JurorFailed, match="scores of shape"):
        futures[4].result(PATIENCE)
    assert moody_pool.state is PoolState.OPEN
    until(lambda: all_slots_are_free(moody_pool))


def test_a_worker_that_was_killed_is_replaced_and_its_pictures_are_scored(moody_pool: JurorPool, moods: Path) -> None:
    (first,) = moody_pool.processes
    assert first is not None
    fine, deadly = pictures(3), set_off(DEADLY_ONCE)
    futures = [moody_pool.submit(images) for images in (fine, deadly, fine)]
    for images, future in zip((fine, deadly, fine), futures, strict=True):
        assert torch.equal(future.result(PATIENCE), FINGERPRINT.score(images))
    assert (moods / "died").exists()
    assert is_gone(first)
    # Idle ones are replaced as well.
    (second,) = moody_pool.processes
    assert second not in {None, first}
    os.kill(second, signal.SIGKILL)  # type: ignore[arg-type]
    assert torch.equal(moody_pool.score(fine), FINGERPRINT.score(fine))
    until(lambda: second not in moody_pool.processes)
    assert moody_pool.state is PoolState.OPEN


def test_pictures_that_kill_every_worker_are_given_up_and_their_company_is_not(
    moody_pool: JurorPool, moods: Path
) -> None:
    fine = pictures(2, seed=3)
    futures = [moody_pool.submit(images) for images in (set_off(HELD), fine, set_off(DEADLY), fine)]
    (moods / "go").touch()  # what has gathered meanwhile is scored together
    with pytest.raises(JurorWorkerDied, match=r"2 workers ended \(signal SIGKILL\) while they scored the same 1 pict"):
        futures[2].result(PATIENCE)
    for index in (1, 3):
        assert torch.equal(futures[index].result(PATIENCE), FINGERPRINT.score(fine))
    assert torch.equal(moody_pool.score(fine), FINGERPRINT.score(fine))
    until(lambda: all_slots_are_free(moody_pool))


def test_a_time_out_raises_and_the_slot_stays_lent_until_the_worker_lets_go(tmp_path: Path, patient: None) -> None:
    fine = pictures(1, 16, 16)
    with JurorPool(moody(tmp_path), workers=1, side=16, slots=1, timeout=5.0) as pool:
        with pytest.raises(JurorTimeout, match="no scores for 1 pictures of 16x16 pixels within"):
            pool.score(set_off(HELD, side=16))
        assert (tmp_path / "holding").exists()
        assert pool._ledger.free == 0
        with pytest.raises(JurorTimeout, match="no 1 of 1 slots became free"):
            pool.submit(fine)
        (tmp_path / "go").touch()
        until(lambda: pool._ledger.free == 1)
        assert torch.equal(pool.score(fine), FINGERPRINT.score(fine))
        assert pool.state is PoolState.OPEN


def test_a_worker_that_hangs_is_ended_and_replaced() -> None:
    fine = pictures(2)
    with JurorPool(Fingerprint, workers=1, side=8, slots=2, timeout=2.0) as pool:
        (stopped,) = pool.processes
        assert stopped is not None
        os.kill(stopped, signal.SIGSTOP)
        with pytest.raises(JurorTimeout):
            pool.score(fine)
        until(lambda: is_gone(stopped))
        until(lambda: [worker.ready for worker in pool._workers] == [True] and pool._ledger.free == 2)
        assert torch.equal(pool.score(fine), FINGERPRINT.score(fine))


# --- beginning and end ------------------------------------------------------------------------------------------------


def test_closing_ends_workers_memory_and_waiting(tmp_path: Path) -> None:
    pool = JurorPool(moody(tmp_path), workers=2, side=8, slots=4, timeout=PATIENCE)
    with pytest.raises(TypeError, match=r"pool\.client\(\)"):
        pool.__reduce__()
    client, spec, pids = pool.client(), pool._slab.spec, pool.processes
    held, queued = pool.submit(set_off(HELD)), [pool.submit(set_off(HELD)) for _ in range(2)]
    until((tmp_path / "holding").exists)
    threading.Timer(0.3, pool.close).start()
    for future in [held, *queued]:
        with pytest.raises(JurorPoolClosed, match="closed while this waited"):
            future.result(PATIENCE)
    until(lambda: all(is_gone(pid) for pid in pids if pid is not None))
    until(lambda: pool._slab._values is None)
    with pytest.raises(FileNotFoundError):
        Slab.attach(spec)
    for refused in (pool.score, pool.submit, client.score):
        with pytest.raises(JurorPoolClosed):
            refused(pictures(1))
    with pytest.raises(JurorPoolClosed):
        pool.client()
    pool.close()
    assert pool.state is PoolState.CLOSED


def test_a_juror_that_cannot_be_loaded_is_known_before_work_starts(tmp_path: Path) -> None:
    with pytest.raises(MissingArtifact, match=r"juror\.json.*dvc repro juror"), open_juror(tmp_path, 1):
        pytest.fail("opened")
    with pytest.raises(JurorWorkerDied, match=r"worker 0 ended \(exit code 7\) before its juror was loaded"):
        JurorPool(no_juror, workers=1, side=8, slots=1)
    with pytest.raises((AttributeError, TypeError), match=r"(?i)pickle"):
        JurorPool(lambda: FINGERPRINT, workers=1, side=8, slots=1)
    with pytest.raises(JurorTimeout, match=r"workers \[0\] have not loaded their juror within"):
        JurorPool(Fingerprint, workers=1, side=8, slots=1, start_timeout=0.01)
    with pytest.raises(ValueError, match="workers=0"):
        JurorPool(Fingerprint, workers=0)


SCRIPT = """
import sys, time, torch
from pathlib import Path
from tests.retoucher.learn.pool_jurors import HELD, moody, set_off
from vernissage.retoucher.learn.juror import RankJuror
from vernissage.retoucher.learn.juror_pool import JurorPool

if __name__ == "__main__":
    pool = JurorPool(moody(Path(sys.argv[1])), workers=2, side=8, slots=4)
    pool.score(torch.rand(3, 3, 8, 8))
    client = pool.client()
    client.score(torch.rand(1, 3, 8, 8))
    print(pool._slab.spec.name, *pool.processes, flush=True)
    if sys.argv[2] == "wait":
        pool.score(set_off(HELD, 2))
"""


def start(tmp_path: Path, how: str) -> tuple[subprocess.Popen[str], Path, list[int]]:
    """Run a program that has a pool and never closes it; returns its segment and its workers as well."""
    (tmp_path / "program.py").write_text(SCRIPT)
    program = subprocess.Popen(
        [sys.executable, "-W", "error::ResourceWarning", "program.py", str(tmp_path), how],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert program.stdout is not None
    name, *pids = program.stdout.readline().split()
    return program, Path("/dev/shm") / name, [int(pid) for pid in pids]  # noqa: S108 - only looked at


def test_a_program_that_forgets_to_close_leaves_nothing(tmp_path: Path) -> None:
    program, segment, pids = start(tmp_path, "end")
    _, complaints = program.communicate(timeout=PATIENCE)
    assert (program.returncode, complaints) == (0, "")
    assert not segment.exists()
    assert all(is_gone(pid) for pid in pids)


def test_a_killed_program_leaves_nothing(tmp_path: Path) -> None:
    program, segment, pids = start(tmp_path, "wait")
    until((tmp_path / "holding").exists)  # the workers are busy: they do not look for messages
    program.kill()
    program.communicate(timeout=PATIENCE)
    until(lambda: all(is_gone(pid) for pid in pids))
    until(lambda: not segment.exists())


def test_an_interrupt_ends_everything_with_one_traceback(tmp_path: Path) -> None:
    program, segment, pids = start(tmp_path, "wait")
    until((tmp_path / "holding").exists)
    os.killpg(program.pid, signal.SIGINT)  # as a terminal does: the workers get it too
    _, complaints = program.communicate(timeout=PATIENCE)
    assert complaints.count("Traceback") == 1
    assert complaints.rstrip().endswith("KeyboardInterrupt")
    assert not segment.exists()
    assert all(is_gone(pid) for pid in pids)


def test_a_forked_copy_is_refused_and_harms_nothing(pool: JurorPool) -> None:
    child = os.fork()
    if not child:
        code = 1
        try:
            pool.score(pictures(1))
        except JurorPoolError:
            pool.close()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert torch.equal(pool.score(pictures(3)), FINGERPRINT.score(pictures(3)))


# --- other processes --------------------------------------------------------------------------------------------------


def client_process(client: JurorClient, answers: multiprocessing.Queue[list[float]], rounds: int) -> None:
    for seed in range(rounds):
        answers.put([float(seed), *client.score(pictures(5, seed=seed)).tolist()])


def waiting_process(client: JurorClient) -> None:
    client.score(set_off(HELD))


def test_other_processes_get_the_same_scores(pool: JurorPool) -> None:
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    processes = [context.Process(target=client_process, args=(pool.client(), answers, 5)) for _ in range(2)]
    for process in processes:
        process.start()
    heard = [answers.get(timeout=PATIENCE) for _ in range(10)]
    for process in processes:
        process.join(PATIENCE)
        assert process.exitcode == 0
    expected = [[float(seed), *FINGERPRINT.score(pictures(5, seed=seed)).tolist()] for seed in range(5) for _ in "ab"]
    assert sorted(heard) == expected


def test_a_client_is_a_juror(pool: JurorPool) -> None:
    client = pool.client(slots=2)
    try:
        for count, side in ((0, 8), (1, 8), (40, 9), (3, 20)):
            images = pictures(count, side, side + 1)
            assert torch.equal(client.score(images), FINGERPRINT.score(images) if count else torch.empty(0))
        with pytest.raises(JurorPoolError, match=r"picture of 40x40 pixels does not fit into this client's 2 slots"):
            client.score(pictures(1, 40, 40))
        with pytest.raises(JurorPoolError, match="10 slots for another client, but only"):
            pool.client(slots=10)
        factory, arguments = client.__reduce__()
        with pytest.raises(JurorPoolError, match="in use by another process"):
            factory(*arguments).score(pictures(1))
        client.close()
        assert torch.equal(client.score(pictures(2)), FINGERPRINT.score(pictures(2)))  # it dials again
    finally:
        client.close()


def test_a_stranger_is_hung_up_on(pool: JurorPool) -> None:
    door = pool.client().__reduce__()[1][0]
    stranger = type(pool.client())(type(door)(**{**vars(door), "token": bytes(16)}))
    with pytest.raises(JurorPoolClosed):
        stranger.score(pictures(1))


def test_a_client_hears_of_errors_time_outs_and_late_answers(tmp_path: Path, patient: None) -> None:
    with JurorPool(moody(tmp_path), workers=1, side=8, slots=4, timeout=5.0) as pool:
        client = pool.client()
        with pytest.raises(JurorFailed, match="ValueError: a wrong picture"):
            client.score(set_off(WRONG))
        with pytest.raises(BadInput, match="an unfit picture"):
            client.score(set_off(UNFIT))
        with pytest.raises(JurorTimeout, match="no scores within 5 s"):
            client.score(set_off(HELD))
        with pytest.raises(JurorTimeout):  # a worker still looks at its slots
            client.score(pictures(1))
        (tmp_path / "go").touch()
        until(lambda: not any(worker.parts for worker in pool._workers))
        assert torch.equal(client.score(pictures(1)), FINGERPRINT.score(pictures(1)))
        client.close()


def test_a_client_that_dies_frees_its_place(tmp_path: Path) -> None:
    with JurorPool(moody(tmp_path), workers=1, side=8, slots=4, timeout=PATIENCE) as pool:
        client = pool.client()
        process = multiprocessing.get_context("spawn").Process(target=waiting_process, args=(client,))
        process.start()
        until((tmp_path / "holding").exists)
        process.kill()
        process.join(PATIENCE)
        with pytest.raises(JurorPoolError, match="in use"):  # the worker has not let go yet
            client.score(pictures(1))
        (tmp_path / "go").touch()
        until(lambda: not any(worker.parts for worker in pool._workers))
        assert torch.equal(client.score(pictures(1)), FINGERPRINT.score(pictures(1)))
        client.close()


# --- the parameters' choice -------------------------------------------------------------------------------------------


def test_open_juror_works_here_or_in_a_pool(tmp_path: Path) -> None:
    made = untrained_juror(3)
    juror = RankJuror(made.members, made.size, spread_penalty=0.7)
    juror.save(tmp_path)
    images = photos(4)
    assert not torch.equal(juror.score(images), juror.cautious_score(images))
    with open_juror(tmp_path, 0) as here:
        assert torch.equal(here.score(images), juror.score(images))
    with open_juror(tmp_path, 0, cautiously=True) as here:
        assert torch.equal(here.score(images), juror.cautious_score(images))
    with open_juror(tmp_path, 1, cautiously=True) as pooled:
        assert isinstance(pooled, JurorPool)
        assert torch.equal(pooled.score(images), juror.cautious_score(images))
    assert pooled.state is PoolState.CLOSED
