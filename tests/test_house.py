"""The house rules: linters pass, no habit that bites later, no trace of one machine, dependencies pinned and used."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if TYPE_CHECKING:
    from collections.abc import Iterator

PROJECT = Path(__file__).parents[1]
ROOMS = ("vernissage", "stages", "flows")

#: Formats that run code when they are read; weights are safetensors, everything else JSON, CSV or Parquet.
UNSAFE_MODULES = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
#: YAML 1.1 readers take 5e-05 for text; vernissage.core.params is the only reader of params.yaml.
UNSAFE_MODULES |= {"yaml"}
UNSAFE_CALLS = {"eval", "exec", "os.system", "os.popen", "pd.read_pickle", "pandas.read_pickle"}

#: Required by the project's stack, but used from its own commands or by later wings rather than imported so far.
EXPLAINED = {
    "dvc": "run as a program: its Python interface is not thread-safe",
    "fastapi": "held below the versions beside which prefect cannot be imported",
    "prefect": "runs the stages as tasks (flows)",
    "mlflow": "keeps the published models",
    "diffusers": "gives the sampler its schedulers",
    "scikit-image": "its files hold sample photographs, which are read without importing it",
    "scikit-learn": "its files hold sample photographs, which are read without importing it",
}
#: Where the name that is imported is not the name that is installed.
IMPORT_NAMES = {"pillow": "PIL", "scikit-image": "skimage", "scikit-learn": "sklearn", "ruamel-yaml": "ruamel"}
#: Programs of the tests: run, not imported.
TEST_PROGRAMS = {"pytest-timeout", "import-linter", "mypy", "ruff"}


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], cwd=PROJECT, text=True, capture_output=True, check=False)


def assert_passes(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, f"\n{done.stdout}\n{done.stderr}"


def test_ruff_finds_nothing() -> None:
    assert_passes(run("-m", "ruff", "check", "--no-cache", "."))


def test_everything_is_formatted() -> None:
    assert_passes(run("-m", "ruff", "format", "--no-cache", "--check", "."))


def test_types_hold(tmp_path: Path) -> None:
    assert_passes(run("-m", "mypy", "--cache-dir", os.environ.get("MYPY_CACHE_DIR", str(tmp_path))))


def test_floors_and_rooms_are_kept() -> None:
    program = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(cache_dir=None))"
    assert_passes(run("-c", program))


# --- habits -----------------------------------------------------------------------------------------------------------


@cache
def own_sources() -> list[Path]:
    return sorted(file for room in ROOMS for file in (PROJECT / room).rglob("*.py"))


@cache
def tree_of(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), filename=str(file))


def imported_modules(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.lineno, node.module


def says(node: ast.expr | None, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def habits(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the line and the name of everything that our sources must not do."""
    for line, module in imported_modules(tree):
        if module.partition(".")[0] in UNSAFE_MODULES:
            yield line, f"imports {module}"
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            yield node.lineno, "bare except"
        if not isinstance(node, ast.Call):
            continue
        name, keywords = ast.unparse(node.func), {word.arg: word.value for word in node.keywords}
        if name in UNSAFE_CALLS:
            yield node.lineno, f"calls {name}"
        if name.endswith("torch.load") and not says(keywords.get("weights_only"), True):
            yield node.lineno, "torch.load without weights_only=True"
        if "shell" in keywords and not says(keywords["shell"], False):
            yield node.lineno, "a command through a shell"
        if "allow_pickle" in keywords and not says(keywords["allow_pickle"], False):
            yield node.lineno, "allow_pickle"


def test_no_habit_that_bites_later() -> None:
    found = [
        f"{file.relative_to(PROJECT)}:{line}: {what}" for file in own_sources() for line, what in habits(tree_of(file))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import pickle", "imports pickle"),
        ("from joblib import load", "imports joblib"),
        ("def f():\n    import yaml\n    yaml.safe_load('')", "imports yaml"),
        ("torch.load(path)", "torch.load without weights_only=True"),
        ("torch.load(path, weights_only=False)", "torch.load without weights_only=True"),
        ("subprocess.run('ls', shell=True)", "a command through a shell"),
        ("subprocess.run('ls', shell=anything)", "a command through a shell"),
        ("np.load(path, allow_pickle=True)", "allow_pickle"),
        ("os.system('ls')", "calls os.system"),
        ("try:\n    pass\nexcept:\n    pass", "bare except"),
    ],
)
def test_the_search_for_habits_finds_them(source: str, expected: str) -> None:
    assert [what for _, what in habits(ast.parse(source))] == [expected]


@pytest.mark.parametrize(
    "source", ["torch.load(p, weights_only=True)", "run(['ls'], shell=False)", "import ruamel.yaml"]
)
def test_the_search_for_habits_lets_the_right_way_pass(source: str) -> None:
    assert not list(habits(ast.parse(source)))


def test_every_module_says_what_it_is_for() -> None:
    silent = [str(file.relative_to(PROJECT)) for file in own_sources() if not ast.get_docstring(tree_of(file))]
    assert not silent


# --- one machine ------------------------------------------------------------------------------------------------------

MACHINE_FOLDERS = ("root", "home", "work", "Users", "opt")
MACHINE_PATHS = re.compile(rf"(?<![\w./:-])/({'|'.join(MACHINE_FOLDERS)})/")
REGISTRY_HOSTS = re.compile(r"py[p]i\.org|python[h]osted\.org|download\.py[t]orch\.org|ana[c]onda\.(org|com)")
TEXT_SUFFIXES = {".py", ".md", ".toml", ".txt", ".yaml", ".yml", ".html", ".json", ".lock", ".dvc", ".sh", ""}


def files_in_git() -> list[Path]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=PROJECT, capture_output=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout")
    files = [PROJECT / name for name in done.stdout.decode().split("\0") if name]
    return [file for file in files if file.suffix in TEXT_SUFFIXES and file.is_file()]


def test_nothing_names_one_machine_or_a_registry() -> None:
    found = []
    for file in files_in_git():
        for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
            if MACHINE_PATHS.search(line) or REGISTRY_HOSTS.search(line):
                found.append(f"{file.relative_to(PROJECT)}:{number}: {line.strip()[:100]}")
    assert not found, "\n".join(found)


# --- dependencies -----------------------------------------------------------------------------------------------------


@cache
def declared() -> tuple[list[Requirement], list[Requirement]]:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = [Requirement(line) for line in project["dependencies"]]
    return required, [Requirement(line) for line in project["optional-dependencies"]["test"]]


@cache
def pinned() -> dict[str, str]:
    lines = (PROJECT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    assert all(len(pair) == 2 for pair in pairs), "constraints.txt holds name==version and nothing else"
    return {canonicalize_name(name): version for name, version in pairs}


def test_constraints_hold_names_and_plain_versions_only() -> None:
    for name, version in pinned().items():
        assert re.fullmatch(r"[0-9][0-9A-Za-z.!]*", version), f"{name}=={version}"


def test_constraints_pin_every_dependency_inside_its_range() -> None:
    required, tests = declared()
    for requirement in [*required, *tests]:
        version = pinned().get(canonicalize_name(requirement.name))
        assert version, f"{requirement.name} is not in constraints.txt"
        assert requirement.specifier.contains(version, prereleases=True), f"{requirement} excludes {version}"


def test_constraints_pin_all_that_comes_along() -> None:
    """Whatever the required packages pull in here is pinned, so that a fresh environment is the tested one."""
    required, tests = declared()
    waiting, seen = [canonicalize_name(requirement.name) for requirement in [*required, *tests]], set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            lines = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        needed = (one for one in map(Requirement, lines) if one.marker is None or one.marker.evaluate({"extra": ""}))
        waiting += [canonicalize_name(one.name) for one in needed]
    missing = sorted(name for name in seen - set(pinned()) if is_installed(name))
    assert not missing, f"installed, but not in constraints.txt: {missing}"


def is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def imports_of(files: list[Path]) -> set[str]:
    return {module.partition(".")[0] for file in files for _, module in imported_modules(tree_of(file))}


def import_name(requirement: Requirement) -> str:
    name = canonicalize_name(requirement.name)
    return IMPORT_NAMES.get(name, name.replace("-", "_"))


def test_every_dependency_is_imported_or_explained() -> None:
    used, (required, _) = imports_of(own_sources()), declared()
    idle = [one.name for one in required if import_name(one) not in used and one.name not in EXPLAINED]
    assert not idle, f"nothing imports {idle}: remove them from pyproject.toml or explain them here"


def test_every_test_dependency_is_used() -> None:
    used, (_, tests) = imports_of(sorted((PROJECT / "tests").rglob("*.py"))), declared()
    idle = [
        one.name
        for one in tests
        if import_name(one) not in used and one.name not in TEST_PROGRAMS and not one.name.startswith("types-")
    ]
    assert not idle, f"no test imports {idle}"


def test_everything_imported_is_declared() -> None:
    """A package that arrives only because another needs it may vanish with that other's next release."""
    required, _ = declared()
    known = {import_name(one) for one in required} | set(sys.stdlib_module_names) | set(ROOMS)
    strangers = sorted(imports_of(own_sources()) - known)
    assert not strangers, f"add to pyproject.toml: {strangers}"
