"""`vernissage bench pool` and `vernissage bench env`: speed beside what one would build otherwise, in one run."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from vernissage.commands.screen import screen
from vernissage.core.devices import usable_cores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path


def show_pool_bench(*, workers: int, sides: Sequence[int] | None, seconds: float, as_json: bool) -> None:
    """Measure pictures per second by a JurorPool, by queues and in this process, and print them.

    Args:
        workers: Processes of the pool, and of each queue.
        sides: Sides of the pictures in pixels; the usual ones where none are given.
        seconds: Length of one turn of one measurement.
        as_json: Print JSON instead of a table.
    """
    from vernissage.retoucher.judge.bench_pool import REQUEST, SIDES, bench_pool, measurements, ratios

    load = os.getloadavg()[0]
    sides = sides or SIDES
    with _progress(measurements(sides)) as advance:
        rows = bench_pool(workers=workers, seconds=seconds, sides=sides, advance=advance)
    compared = ratios(rows)
    if as_json:
        _print_json({"workers": workers, **_machine(load), "rows": [asdict(row) for row in rows], "ratios": compared})
        return
    table = Table("juror", "side", "construction", title="pictures per second", title_justify="left")
    for name in ("rate", "turns", "CPU ms each"):
        table.add_column(name, justify="right")
    for row in rows:
        turns = " ".join(f"{rate:,.0f}" for rate in row.turns)
        cells = (row.juror, f"{row.side} px", row.construction, f"{row.rate:,.0f}", turns, f"{row.cpu_ms:.3f}")
        table.add_row(*cells)
    console = screen()
    console.print(table)
    console.print("\nThe pool's rate as a multiple of a queue with one picture per message, which is the usual way")
    for one in compared:
        console.print(
            f"  {one['juror']:<5} {one['side']:>3} px: {one['usual']:.1f} x, by CPU time {one['usual_cpu']:.1f} x "
            f"(both with one picture at a time {one['single']:.1f} x, both with {REQUEST} at a time "
            f"{one['batched']:.1f} x; beside no other process at all {one['in_process']:.2f} x)",
            soft_wrap=True,
        )
    console.print(_machine_text(load))


def show_env_bench(project: Path, *, processes: Sequence[int] | None, seconds: float, as_json: bool) -> None:
    """Measure edits per second by our environment and by the usual construction, and print them.

    Args:
        project: Its params.yaml says size, slots, horizon and actions, as for training.
        processes: Numbers of processes of the usual construction; the usual ones where none are given.
        seconds: Length of one turn of one measurement.
        as_json: Print JSON instead of a table.

    Raises:
        BadParams: params.yaml is not valid.
    """
    from vernissage.core.params import load_params
    from vernissage.retoucher.judge.bench_env import PROCESSES, EnvBench, bench_env, measurements, ratios

    params = load_params(project / "params.yaml")
    section = params.train.retoucher
    bench = EnvBench(section.view, section.slots, section.horizon, section.strengths, seconds, params.seed)
    load = os.getloadavg()[0]
    processes = processes or PROCESSES
    with _progress(measurements(processes)) as advance:
        rows = bench_env(bench, processes=processes, advance=advance)
    times = ratios(rows)
    if as_json:
        _print_json({**asdict(bench), **_machine(load), "rows": [asdict(row) for row in rows], "ratios": times})
        return
    title = f"edits per second, {bench.view} px, the rank juror, horizon {bench.horizon}"
    table = Table("environment", "with", title=title, title_justify="left")
    for name in ("photos", "rate", "turns", "CPU ms each"):
        table.add_column(name, justify="right")
    for row in rows:
        turns = " ".join(f"{rate:,.0f}" for rate in row.turns)
        table.add_row(row.construction, row.setting, str(row.photos), f"{row.rate:,.0f}", turns, f"{row.cpu_ms:.2f}")
    console = screen()
    console.print(table)
    console.print(
        f"\nRetouchEnv tries {times['rate']:.1f} x as many edits a second as the usual construction, "
        f"{times['cpu']:.1f} x as many per second of CPU, each with its best setting"
    )
    console.print(_machine_text(load))


@contextmanager
def _progress(total: int) -> Iterator[Callable[[], None]]:
    # On stderr, so that what goes into a file or a pipe is the result alone.
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("measuring", total=total)
        yield lambda: progress.advance(task)


def _machine(load: float) -> dict[str, Any]:
    return {"cores": usable_cores(), "load_before": load}


def _machine_text(load: float) -> str:
    cores = usable_cores()
    busy = "; others were busy here, so repeat this when they are not" if load > cores / 2 else ""
    return f"{cores} cores, load {load:.1f} before the run; each rate is the median of the turns{busy}"


def _print_json(content: dict[str, Any]) -> None:
    screen().print(json.dumps(content, indent=2), markup=False, soft_wrap=True)
