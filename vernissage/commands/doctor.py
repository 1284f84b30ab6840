"""`vernissage doctor`: looks at everything that a run needs and says how to mend what is wrong.

Versions come from the packages' metadata, not from importing them, so the whole examination takes seconds.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tomllib
import urllib.error
import urllib.request
from dataclasses import asdict, dataclass
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import psutil
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from rich.markup import escape

from vernissage.commands.project import find_project
from vernissage.commands.screen import screen
from vernissage.core.devices import choose_device, thread_count, usable_cores
from vernissage.core.errors import VernissageError
from vernissage.core.files import read_json, sha256_file
from vernissage.core.params import load_params

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_GIBIBYTE = 2**30
_NEEDED_MEMORY_GB = 4
_NEEDED_DISK_GB = 2
_GIT_SECONDS = 10
_SERVER_SECONDS = 1.5
# prefect 3.8 fails at import beside these, although its own metadata allows them.
_FASTAPI_THAT_BREAKS_PREFECT = SpecifierSet(">=0.156")
_PREFECT_THAT_BREAKS = SpecifierSet("<3.9")
_TESTS = {"extra": "test"}
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}


class Verdict(StrEnum):
    """How a check came out."""

    OK = "ok"
    NOTE = "note"
    WRONG = "wrong"


@dataclass(frozen=True)
class Check:
    """One line of the examination.

    Attributes:
        name: What was looked at.
        verdict: Fine, worth knowing, or in the way of a run.
        found: What is there.
        mend: What to do; empty when there is nothing to do.
    """

    name: str
    verdict: Verdict
    found: str
    mend: str = ""


def examine(start: Path, given: Path | None = None) -> list[Check]:
    """Look at everything and return one check per thing.

    Args:
        start: Where the search for the project begins.
        given: The project's folder, if it was named.
    """
    project: Path | None = None
    try:
        project = find_project(start, given)
        place = Check("project", Verdict.OK, str(project))
    except VernissageError as error:
        place = Check("project", Verdict.WRONG if given else Verdict.NOTE, str(error))
    checks = [*_python(), *_packages(project), _fastapi_beside_prefect(), *_device(), *_machine(project or start)]
    checks.append(place)
    if project is not None:
        checks += [_git(project), *_dvc(project), _params(project), *_models(project)]
    return [*checks, _mlflow(project), _prefect()]


def show_checks(checks: Sequence[Check], *, as_json: bool) -> bool:
    """Print the checks and return whether nothing is wrong."""
    wrong = [check for check in checks if check.verdict is Verdict.WRONG]
    console = screen()
    if as_json:
        text = json.dumps({"checks": [asdict(check) for check in checks], "wrong": len(wrong)}, indent=2)
        console.print(text, markup=False, soft_wrap=True)
        return not wrong
    colours = {Verdict.OK: "green", Verdict.NOTE: "yellow", Verdict.WRONG: "red"}
    width = max(len(check.name) for check in checks)
    for check in checks:
        mark = f"[{colours[check.verdict]}]{check.verdict.value:<5}[/]"
        console.print(f"{mark} {escape(check.name):<{width}}  {escape(check.found)}", soft_wrap=True)
        if check.mend:
            console.print(f"      {'':<{width}}  → {escape(check.mend)}", soft_wrap=True)
    console.print(f"\n{len(wrong)} wrong" if wrong else "\nnothing is wrong")
    return not wrong


def _python() -> Iterator[Check]:
    version, allowed = platform.python_version(), SpecifierSet(metadata.metadata("vernissage")["Requires-Python"] or "")
    if allowed.contains(version, prereleases=True):
        yield Check("python", Verdict.OK, f"{version} ({sys.executable})")
    else:
        yield Check("python", Verdict.WRONG, version, f"make a new environment with Python {allowed}: make rebuild")
    # DVC runs stages as `python -m stages.x`: whatever comes first on PATH.
    on_path = shutil.which("python")
    if on_path is None or Path(on_path).absolute().parent != Path(sys.executable).absolute().parent:
        activate = Path(sys.prefix) / "bin" / "activate"
        yield Check(
            "python on PATH",
            Verdict.NOTE,
            f"{on_path or 'none'}, which is not this environment's; plain `dvc repro` would run stages with it",
            f"source {activate} (make targets do this by themselves)",
        )


def _packages(project: Path | None) -> Iterator[Check]:
    required, optional = _requirements(project)
    bad, fine = [], 0
    for requirement in required:
        problem = _problem_with(requirement)
        if problem:
            bad.append(problem)
        else:
            fine += 1
    if bad:
        install = "pip install -c constraints.txt -e '.[test]' (or make rebuild)"
        yield Check("packages", Verdict.WRONG, "; ".join(bad), install)
    else:
        yield Check("packages", Verdict.OK, f"{fine} required packages in their ranges")
    missing = [problem for problem in map(_problem_with, optional) if problem]
    if missing:
        yield Check("test packages", Verdict.NOTE, "; ".join(missing), "pip install -c constraints.txt -e '.[test]'")


def _requirements(project: Path | None) -> tuple[list[Requirement], list[Requirement]]:
    """Return what is required and what only the tests need; the project's file knows better than what was installed."""
    file = project / "pyproject.toml" if project else None
    if file is not None and file.is_file():
        declared = tomllib.loads(file.read_text(encoding="utf-8")).get("project", {})
        lists = declared.get("dependencies", []), declared.get("optional-dependencies", {}).get("test", [])
        return _parsed(lists[0]), _parsed(lists[1])
    stated = _parsed(metadata.requires("vernissage") or [])
    required = [one for one in stated if one.marker is None or one.marker.evaluate({"extra": ""})]
    return required, [one for one in stated if one not in required and one.marker and one.marker.evaluate(_TESTS)]


def _parsed(lines: Sequence[str]) -> list[Requirement]:
    requirements = []
    for line in lines:
        try:
            requirements.append(Requirement(line))
        except InvalidRequirement:
            continue  # a broken pyproject.toml is reported by pip, with the line
    return requirements


def _problem_with(requirement: Requirement) -> str:
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return f"{requirement.name} is missing (needs {requirement.specifier or 'any version'})"
    if requirement.specifier.contains(version, prereleases=True):
        return ""
    return f"{requirement.name} {version} is outside {requirement.specifier}"


def _fastapi_beside_prefect() -> Check:
    try:
        fastapi, prefect = metadata.version("fastapi"), metadata.version("prefect")
    except metadata.PackageNotFoundError as error:
        return Check("fastapi beside prefect", Verdict.NOTE, f"{error.name} is missing")
    found = f"fastapi {fastapi}, prefect {prefect}"
    if _FASTAPI_THAT_BREAKS_PREFECT.contains(fastapi) and _PREFECT_THAT_BREAKS.contains(prefect):
        return Check(
            "fastapi beside prefect",
            Verdict.WRONG,
            f"{found}: prefect cannot be imported beside it, although `pip check` is content",
            "pip install 'fastapi>=0.139,<0.146'",
        )
    return Check("fastapi beside prefect", Verdict.OK, found)


def _device() -> Iterator[Check]:
    try:
        threads = f"{thread_count()} threads per stage on {usable_cores()} usable cores"
        yield Check("threads", Verdict.OK, threads)
        yield Check("device", Verdict.OK, f"{choose_device()} (torch {metadata.version('torch')})")
    except VernissageError as error:
        yield Check("device", Verdict.WRONG, str(error), "correct or unset the environment variable")
    except (ImportError, OSError) as error:
        mend = "pip install -c constraints.txt --force-reinstall torch"
        yield Check("device", Verdict.WRONG, f"torch cannot be imported: {error}", mend)


def _machine(place: Path) -> Iterator[Check]:
    memory = psutil.virtual_memory()
    found = f"{memory.available / _GIBIBYTE:.1f} GiB free of {memory.total / _GIBIBYTE:.1f} GiB"
    if memory.total < _NEEDED_MEMORY_GB * _GIBIBYTE:
        mend = f"the defaults need up to {_NEEDED_MEMORY_GB} GiB; lower train.retoucher.slots if a stage is killed"
        yield Check("memory", Verdict.NOTE, found, mend)
    else:
        yield Check("memory", Verdict.OK, found)
    free = shutil.disk_usage(place).free / _GIBIBYTE
    if free < _NEEDED_DISK_GB:
        mend = "free some space; `dvc gc --workspace` drops cached data that nothing here uses"
        yield Check("disk", Verdict.WRONG, f"{free:.1f} GiB free, a rebuild needs about {_NEEDED_DISK_GB} GiB", mend)
    else:
        yield Check("disk", Verdict.OK, f"{free:.1f} GiB free")


def _git(project: Path) -> Check:
    command = ["git", "status", "--porcelain", "--branch"]
    try:
        done = subprocess.run(
            command, cwd=project, capture_output=True, text=True, errors="replace", timeout=_GIT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check("git", Verdict.WRONG, f"cannot be run: {error}", "install git and put it on PATH")
    if done.returncode:
        mend = "git init (DVC's experiments live in git), or clone the project instead of copying it"
        return Check("git", Verdict.WRONG, done.stderr.strip().partition("\n")[0], mend)
    branch, *changed = done.stdout.splitlines()
    name = branch.removeprefix("## ")
    if changed:
        return Check("git", Verdict.NOTE, f"{name}, {len(changed)} changed files", "commit them to compare runs later")
    return Check("git", Verdict.OK, f"{name}, nothing changed")


def _dvc(project: Path) -> Iterator[Check]:
    if not (project / ".dvc").is_dir():
        yield Check("dvc", Verdict.WRONG, f"{project / '.dvc'} is missing", "dvc init")
    elif not (project / "dvc.lock").is_file():
        yield Check("dvc", Verdict.NOTE, "nothing has been built yet (no dvc.lock)", "make rebuild, or dvc repro")
    else:
        yield Check("dvc", Verdict.OK, "repository with a dvc.lock; `dvc status` compares it with what is here")


def _params(project: Path) -> Check:
    try:
        load_params(project / "params.yaml")
    except VernissageError as error:
        return Check("params.yaml", Verdict.WRONG, str(error), "correct it; `vernissage params` shows what is expected")
    return Check("params.yaml", Verdict.OK, "valid, every profile too")


def _models(project: Path) -> Iterator[Check]:
    folders = sorted(folder for folder in (project / "models").glob("*") if folder.is_dir())
    weights = {folder: sorted(folder.glob("*.safetensors")) for folder in folders}
    if not any(weights.values()):
        yield Check("models", Verdict.NOTE, "none yet", "make rebuild, dvc repro, or dvc pull")
    for folder, files in weights.items():
        if not files:
            continue
        damaged = [file.name for file in files if not _is_whole(file)]
        name = f"models/{folder.name}"
        if damaged:
            mend = f"dvc checkout --force {name}, or dvc repro"
            yield Check(name, Verdict.WRONG, f"damaged: {', '.join(damaged)}", mend)
        else:
            yield Check(name, Verdict.OK, f"{len(files)} weight files, hashes right")


def _is_whole(weights: Path) -> bool:
    try:
        described = read_json(weights.with_suffix(".json"))
        return isinstance(described, dict) and described.get("sha256") == sha256_file(weights)
    except (VernissageError, OSError):
        return False


def _mlflow(project: Path | None) -> Check:
    configured = os.environ.get("MLFLOW_TRACKING_URI", "")
    if configured and not configured.startswith(("http://", "https://")):
        kind = configured.partition(":")[0]
        return Check("mlflow", Verdict.OK, f"MLFLOW_TRACKING_URI names a {kind} store, which needs no server")
    store = f" --backend-store-uri sqlite:///{project / 'mlflow.db'}" if project else ""
    start = f"mlflow server --host 127.0.0.1 --port 5000{store}"
    return _server("mlflow", configured or "http://127.0.0.1:5000", "/health", start, asked=bool(configured))


def _prefect() -> Check:
    configured = os.environ.get("PREFECT_API_URL", "")
    url = configured or "http://127.0.0.1:4200/api"
    return _server("prefect", url, "/health", "prefect server start --host 127.0.0.1", asked=bool(configured))


def _server(name: str, url: str, path: str, start: str, *, asked: bool) -> Check:
    parts = urlsplit(url)
    shown = f"{parts.scheme}://{parts.hostname or '?'}{f':{parts.port}' if parts.port else ''}{parts.path}"
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return Check(name, Verdict.WRONG, f"{shown} is not a web address", "expected http://host:port")
    # A proxy would answer for a loopback address that nobody listens on.
    proxies = urllib.request.ProxyHandler({} if parts.hostname in _LOOPBACK else None)
    try:
        with urllib.request.build_opener(proxies).open(url.rstrip("/") + path, timeout=_SERVER_SECONDS):
            return Check(name, Verdict.OK, f"answers at {shown}")
    except urllib.error.HTTPError as error:
        found = f"{shown} answers with status {error.code}: another server, or it wants a login"
        return Check(name, Verdict.NOTE, found)
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        found = f"no answer at {shown} ({reason})" if asked else "not running, and not needed for `dvc repro`"
        return Check(name, Verdict.NOTE, found, f"start it: {start}")
