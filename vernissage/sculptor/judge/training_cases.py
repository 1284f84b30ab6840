"""Robustness of training: killed and gone on with, fed with odd folders, and interrupted where it hurts most."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError

from vernissage.core.errors import VernissageError
from vernissage.core.weights import load_weights
from vernissage.sculptor.domain.blocks import SPECIES_PALETTES, roles_to_structure
from vernissage.sculptor.domain.dataset import Dataset
from vernissage.sculptor.domain.formats import write_structure
from vernissage.sculptor.domain.plan import turned_grid
from vernissage.sculptor.domain.sizes import SIZES
from vernissage.sculptor.judge.trials import (
    Bench,
    Case,
    Outcome,
    complaint,
    refused,
    short_training,
    smallest,
)
from vernissage.sculptor.learn.network import VoxelNetwork
from vernissage.sculptor.learn.training import STATES, SculptorTraining, train_sculptor
from vernissage.sculptor.prepare.grower import grow
from vernissage.sculptor.prepare.ingest import ingest_structures
from vernissage.sculptor.prepare.structures import StructureSettings, make_structures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# Calls of the network by which the first epoch of a short training is over and saved, and the second is under way: two
# updates an epoch, and two calls an update.
_IN_SECOND_EPOCH = 7
_LEFT = ["epoch-0000", "epoch-0001"]
_FULL_DISK_BYTES = 32 * 2**10
_PATIENCE_SECONDS = 120.0
_POLL_SECONDS = 0.0002
# What shells say of a process that Ctrl-C ended.
_INTERRUPTED = 128 + signal.SIGINT
_DATASET, _WORK = "dataset", "work"
# Folders with something to learn from; alone they may be too little to hold something out. What a refusal must say.
_USABLE = ("one file", "duplicates only", "bushes only")
_ADVICE = ("expected", "add some", "raise", "unset")
_MADE_FROM = (
    "import sys; from pathlib import Path; from vernissage.sculptor.judge.training_cases import train_under_fire; "
    "train_under_fire(Path(sys.argv[1]))"
)


class _Killed(Exception):  # noqa: N818 - nobody made an error
    """What ends a training in its middle."""


def resume(bench: Bench) -> Outcome:
    """Kill a training, go on with it; then train in the same folder with another setting."""
    dataset, settings = smallest(bench.dataset, train=6, val=2), short_training(bench.training)
    whole = _weights(dataset, settings, bench.folder / "whole")
    folder, problems = bench.folder / "killed", []
    try:
        with at_call(_IN_SECOND_EPOCH, _kill):
            train_sculptor(dataset, settings, folder)
        problems.append("it is killed and goes on all the same")
    except _Killed:
        left = sorted(path.name for path in (folder / STATES).glob("epoch-*"))
        problems.append("" if left == _LEFT else f"killed in its second epoch it leaves {left}, expected {_LEFT}")
    problems.append(_differ("resumed", _weights(dataset, settings, folder), whole))
    changed = replace(settings, lr=settings.lr / 2)
    anew = _weights(dataset, changed, bench.folder / "anew")
    problems.append(_differ("another setting", _weights(dataset, changed, bench.folder / "whole"), anew))
    if not _differ("", anew, whole):
        problems.append("another setting changes nothing")
    return bench.verdict(problems, found=f"{settings.total} updates, {len(whole)} tensors compared")


def odd_folders(bench: Bench) -> Outcome:
    """Train on folders with one file, with the same tree many times, with bushes only, with nothing."""
    rng = np.random.default_rng(bench.seed)
    tree = grow("oak", SIZES["normal"], rng)
    bushes = ("alder", "box", "heath", "juniper", "laurel", "myrtle", "privet", "yew")
    folders: dict[str, dict[str, np.ndarray]] = {
        "one file": {"lonely": tree},
        "duplicates only": {f"copy-{number}": turned_grid(tree, number) for number in range(4)},
        "bushes only": {name: grow("bush", SIZES["normal"], rng) for name in bushes},
        "air only": {"nothing": np.zeros((4, 4, 4), np.uint8)},
        "no file": {},
    }
    problems, said = [], []
    grown = StructureSettings(train={"normal": 4}, val={"normal": 2}, seed=bench.settings.seed, workers=1)
    alone = StructureSettings(train={}, own_only=True, val_share=0.3, seed=bench.settings.seed, workers=1)
    for number, (name, grids) in enumerate(folders.items()):
        message = complaint(_train_on, grids, bench.folder / str(number), alone, bench.training)
        said.append(f"{name} {'is refused' if message else 'trains'}")
        if message and not any(word in message for word in _ADVICE):
            problems.append(f"{name}: {message[:120]!r} does not say what to do")
        if (name in _USABLE) != (message == "" or "validate" in message):
            problems.append(f"{name}: {message[:120] or 'trains'}")
        problems.append(refused(name, message) if message else "")
    for name in _USABLE[:1]:
        message = complaint(_train_on, folders[name], bench.folder / "beside", grown, bench.training)
        problems.append(f"{name} beside grown trees: {message[:120]}" if message else "")
    return bench.verdict(problems, found=", ".join(said))


def interruptions(bench: Bench) -> Outcome:
    """Let the loss become nan, the disk full, and somebody press Ctrl-C while a state is saved."""
    smallest(bench.dataset, train=6, val=2).save(bench.folder / _DATASET)
    dataset, settings = Dataset.load(bench.folder / _DATASET), short_training(SculptorTraining())
    folder = bench.folder / "nan"
    problems = [
        refused(
            "nan", complaint(train_sculptor, dataset, replace(settings, lr=1e30), folder), "loss", str(folder), "lr"
        ),
        *_broken_states(folder),
    ]
    if os.name != "posix":
        return bench.verdict(problems, found="a full disk and Ctrl-C are tried on POSIX systems only")
    other = subprocess.run(
        [sys.executable, "-c", _MADE_FROM, str(bench.folder)],
        capture_output=True,
        text=True,
        timeout=_PATIENCE_SECONDS,
        check=False,
        env=os.environ | {"VERNISSAGE_DEVICE": "cpu"},
    )
    lines = [line for line in other.stdout.splitlines() if line.startswith("disk:")]
    if other.returncode != _INTERRUPTED or not lines:
        tail = other.stderr.strip().splitlines()[-1:]
        problems.append(f"the other process ended with {other.returncode}, after {lines}, and said {tail}")
    problems += _broken_states(bench.folder / _WORK)
    gone_on = _weights(dataset, settings, bench.folder / _WORK)
    problems.append(_differ("gone on", gone_on, _weights(dataset, settings, bench.folder / "whole")))
    return bench.verdict(problems, found="; ".join(line.removeprefix("disk: ") for line in lines))


def train_under_fire(folder: Path) -> None:
    """Train in a process of its own: the disk is full when the second state is saved, then Ctrl-C while it is.

    Args:
        folder: Holds the dataset; gets the training.
    """
    import resource

    # A shell that starts processes in the background lets them ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    dataset, settings = Dataset.load(folder / _DATASET), short_training(SculptorTraining())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (_FULL_DISK_BYTES, hard))

    try:
        with at_call(_IN_SECOND_EPOCH, fill_disk):
            train_sculptor(dataset, settings, folder / _WORK)
    except (OSError, SafetensorError, VernissageError) as error:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        whole = not _broken_states(folder / _WORK)
        sys.stdout.write(
            f"disk: {type(error).__name__} where the disk is full, states {'whole' if whole else 'broken'}\n"
        )
        sys.stdout.flush()
    threading.Thread(target=_interrupt_when_saving, args=(folder / _WORK / STATES,), daemon=True).start()
    try:
        train_sculptor(dataset, settings, folder / _WORK)
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


def _interrupt_when_saving(states: Path) -> None:
    while not any(states.glob(".tmp-*/*")):
        time.sleep(_POLL_SECONDS)
    os.kill(os.getpid(), signal.SIGINT)


@contextmanager
def at_call(number: int, act: Callable[[], None]) -> Iterator[None]:
    """Do something before a call of the network that is learning, counted from 1."""
    seen = 0

    def before(module: torch.nn.Module, _: Any) -> None:
        nonlocal seen
        if isinstance(module, VoxelNetwork) and torch.is_grad_enabled():
            seen += 1
            if seen == number:
                act()

    handle = torch.nn.modules.module.register_module_forward_pre_hook(before)
    try:
        yield
    finally:
        handle.remove()


def _kill() -> None:
    raise _Killed


def _weights(dataset: Dataset, settings: SculptorTraining, folder: Path) -> dict[str, torch.Tensor]:
    return dict(train_sculptor(dataset, settings, folder).sculptor.state_dict())


def _differ(name: str, mine: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> str:
    """Say how many tensors are not equal bit by bit; empty where all are."""
    wrong = [key for key in other if key not in mine or not torch.equal(mine[key], other[key])]
    return f"{name}: {len(wrong)} of {len(other)} tensors differ" if wrong else ""


def _broken_states(folder: Path) -> list[str]:
    """What is wrong with the states of a training that was cut off: none is there, one cannot be read, or rubbish."""
    states = sorted((folder / STATES).glob("epoch-*"))
    problems = [] if states else [f"{folder.name}: no state is left"]
    for state in states:
        message = complaint(load_weights, state)
        if message:
            problems.append(f"{folder.name}/{state.name}: {message[:120]}")
        elif not all(bool(torch.isfinite(tensor).all()) for tensor in load_weights(state)[0].values()):
            problems.append(f"{folder.name}/{state.name}: holds what is no number")
    return problems


def _train_on(
    grids: dict[str, np.ndarray], folder: Path, settings: StructureSettings, training: SculptorTraining
) -> None:
    """The user's way from a folder of structures to a sculptor."""
    source, own = folder / "source", folder / "own"
    source.mkdir(parents=True)
    for name, grid in grids.items():
        write_structure(roles_to_structure(grid, SPECIES_PALETTES["oak"]), source / f"{name}.schem")
    ingest_structures(source, own, workers=1)
    dataset = make_structures(own, folder / _DATASET, settings)
    train_sculptor(dataset, short_training(training, epochs=1), folder / _WORK)


RESUME = Case(
    10,
    "killed and resumed",
    "A training that is killed in the middle of its second epoch goes on to the same weights, bit by bit; with another "
    "setting in the same folder it begins anew, to the weights of an empty folder.",
    resume,
)
ODD_FOLDERS = Case(
    16,
    "odd data folders",
    "One file, the same tree many times and only bushes train, or are refused for want of a held-out structure; only "
    "air and no file are refused; each in one line that says what to do. One file beside grown trees trains.",
    odd_folders,
)
INTERRUPTIONS = Case(
    17,
    "nan, full disk, Ctrl-C",
    "A loss of nan is refused with folder and lr; after it, after a full disk and after Ctrl-C while a state is saved, "
    "all states that are left can be read, and training goes on to the weights that it would have had.",
    interruptions,
)
