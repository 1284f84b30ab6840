"""Robustness of files: damaged models, untrusted structures, exports that say the same when they are read again."""

from __future__ import annotations

import copy
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vernissage.core.errors import BadInput, CorruptArtifact, MissingArtifact, VernissageError
from vernissage.core.files import atomic_write_json, read_json, sha256_file
from vernissage.core.weights import load_weights, save_weights
from vernissage.sculptor.domain.anatomy import judge_anatomy
from vernissage.sculptor.domain.attributes import Attributes, measure_attributes
from vernissage.sculptor.domain.block_states import parse_state
from vernissage.sculptor.domain.blocks import SPECIES_PALETTES, roles_to_structure, structure_to_roles
from vernissage.sculptor.domain.colours import colour_of, unknown_state
from vernissage.sculptor.domain.formats import FORMATS, WRITABLE, read_structure, verify_written, write_structure
from vernissage.sculptor.domain.pictures import role_picture
from vernissage.sculptor.domain.roles import ROLES, Role
from vernissage.sculptor.domain.structure import AIR_STATE, Structure
from vernissage.sculptor.judge.odd_files import TIGHT, pickle_that_touches, write_right, write_wrong
from vernissage.sculptor.judge.request_cases import resident_bytes
from vernissage.sculptor.judge.trials import PLAIN, Bench, Case, Outcome, complaint, refusal, refused, same
from vernissage.sculptor.learn.model import Sculptor
from vernissage.sculptor.prepare.ingest import ingest_structures
from vernissage.sculptor.prepare.manifest import Status

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from vernissage.sculptor.learn.sculpting import Sculpture

_WEIGHTS, _FACTS = "model.safetensors", "model.json"
_MOST_GROWTH = 64 * 2**20
_NOISE = (6, 5, 7)

_TREES = ("oak", "birch", "spruce", "jungle", "acacia", "dark_oak")
_AXIS, _LEAF = frozenset({"axis"}), frozenset({"distance", "persistent", "waterlogged"})
_CAP = frozenset({"down", "east", "north", "south", "up", "west"})
#: Blocks of Java Edition that exports may name, with their properties. Source: https://minecraft.wiki/w/Block_states.
VANILLA: dict[str, frozenset[str]] = {
    **{f"{bark}{tree}_{form}": _AXIS for bark in ("", "stripped_") for tree in _TREES for form in ("log", "wood")},
    **{f"{tree}_leaves": _LEAF for tree in (*_TREES, "azalea", "flowering_azalea")},
    "air": frozenset(),
    "snow": frozenset({"layers"}),
    "snow_block": frozenset(),
    "vine": _CAP - {"down"},
    "dirt": frozenset(),
    "coarse_dirt": frozenset(),
    "brown_mushroom_block": _CAP,
}


def damaged_models(bench: Bench) -> Outcome:
    """Load a model that is whole, then damaged ones."""
    whole, marker = bench.folder / "whole", bench.folder / "marker"
    bench.sculptor.save(whole)
    expected = _built(bench, bench.sculptor)
    loaded = Sculptor.load(whole).to(bench.sculptor.device)
    problems = [] if same(_built(bench, loaded), expected) else ["the model that was saved builds something else"]
    damages = _damages(marker)
    for name, damage in damages.items():
        place = bench.folder / "damaged"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(whole, place)
        damage(place)
        expected_kind = MissingArtifact if name.startswith("no ") else CorruptArtifact
        problems.append(_wrong_refusal(name, refusal(Sculptor.load, place), expected_kind))
    if marker.exists():
        problems.append("a pickle was executed")
    for part in ("network", "planner"):
        module = getattr(bench.sculptor, part)
        if module is not None:
            poisoned = copy.deepcopy(bench.sculptor)
            for weight in getattr(poisoned, part).parameters():
                weight.data.fill_(torch.nan)
            error = refusal(_built, bench, poisoned)
            problems.append(_wrong_refusal(f"{part} of nan", error, BadInput))
    return bench.verdict(problems, found=f"{len(damages)} damaged models")


def imports(bench: Bench) -> Outcome:
    """Take in a folder in which half of the files are hostile."""
    source, marker = bench.folder / "source", bench.folder / "marker"
    (source / "right").mkdir(parents=True)
    (source / "wrong").mkdir()
    right = write_right(source / "right")
    wrong = write_wrong(source / "wrong", marker)
    before = resident_bytes()
    report = ingest_structures(source, bench.folder / "own", workers=1, limits=TIGHT)
    growth = resident_bytes() - before
    outcomes = {outcome.file: outcome for outcome in report.outcomes}
    problems = []
    for name, structure in right.items():
        outcome = outcomes[f"right/{name}"]
        if outcome.status not in {Status.ADDED, Status.DUPLICATE}:
            problems.append(f"{name}: {outcome.reason}")
        elif not _says(read_structure(source / "right" / name), structure):
            problems.append(f"{name}: read as something else")
    others = [
        name
        for name, made in right.items()
        if (_others(made) > 0) != (_others(read_structure(source / "right" / name)) > 0)
    ]
    problems += [f"{name}: unknown blocks are not kept apart" for name in others]
    for name, word in wrong.items():
        outcome = outcomes[f"wrong/{name}"]
        problem = refused(name, outcome.reason, word)
        problems.append(problem or ("" if outcome.status is Status.REJECTED else f"{name}: {outcome.status}"))
    if marker.exists():
        problems.append("a pickle was executed")
    if growth > _MOST_GROWTH:
        problems.append(f"the process grows by {growth / 2**20:.0f} MiB")
    return bench.verdict(problems, found=f"{len(right)} files read, {len(wrong)} skipped")


def exports(bench: Bench) -> Outcome:
    """Write structures of every species in every format, and read them again."""
    rng = np.random.default_rng(bench.seed)
    problems, written = [], 0
    for number, (species, palette) in enumerate(SPECIES_PALETTES.items()):
        built = bench.clean[number % len(bench.clean)].roles
        # What is built seldom has all roles; noise has them all, at every border.
        for name, roles in (("built", built), ("noise", rng.integers(0, ROLES, _NOISE).astype(np.uint8))):
            if not (roles > 0).any():
                continue
            structure = roles_to_structure(roles, palette)
            problems += [_unknown_name(state) for state in structure.palette]
            for suffix in WRITABLE if number < 2 or name == "noise" else (".schem",):
                path = bench.folder / f"{species.replace(' ', '-')}-{name}{suffix}"
                write_structure(structure, path, title=f"{species} {name}")
                problems.append(_reads_other(structure, path))
                written += 1
    return bench.verdict(list(dict.fromkeys(problems)), found=f"{written} files in {len(WRITABLE)} formats")


def nothing_built(bench: Bench) -> Outcome:
    """Let a network build nothing but air, and export that."""
    airy = copy.deepcopy(bench.sculptor)
    for name, tensor in airy.network.head.state_dict().items():
        tensor.copy_(torch.eye(ROLES)[Role.AIR] * 100 if name == "bias" else torch.zeros_like(tensor))
    roles = _built(bench, airy).roles
    problems = ["there are blocks"] if roles.any() else []
    anatomy = judge_anatomy(roles)
    if anatomy.connectivity != 0 or anatomy.whole or anatomy.voxels or anatomy.parts:
        problems.append(f"anatomy of nothing: {anatomy}")
    if measure_attributes(roles) != Attributes():
        problems.append("attributes of nothing")
    structure = roles_to_structure(roles, SPECIES_PALETTES["oak"])
    if structure.palette != (AIR_STATE,):
        problems.append(f"a palette of {structure.palette}")
    if min(role_picture(roles).size) < 1:
        problems.append("no picture")
    written = []
    for suffix in WRITABLE:
        path = bench.folder / f"nothing{suffix}"
        message = complaint(write_structure, structure, path, title="nothing")
        if message:
            problems.append(refused(suffix, message, "without a block"))
            problems.append(f"{suffix}: a file is left behind" if path.exists() else "")
        else:
            problems.append("" if read_structure(path).same_as(structure) else f"{suffix}: reads as something else")
            written.append(suffix)
    return bench.verdict(problems, found=f"written as air: {' '.join(written) or 'none'}; the other formats refuse")


def _built(bench: Bench, sculptor: Sculptor) -> Sculpture:
    quick = replace(bench.building, steps=2, edits=0)
    return replace(bench, sculptor=sculptor).build([bench.request(PLAIN)], quick)[0]


def _damages(marker: Path) -> dict[str, Callable[[Path], None]]:
    """What is done to a folder with a model; those whose name begins with `no ` leave something out."""

    def resealed(place: Path, data: bytes) -> None:
        # With the right hash the loader itself has to look at the bytes.
        (place / _WEIGHTS).write_bytes(data)
        facts = read_json(place / _FACTS)
        atomic_write_json(place / _FACTS, facts | {"sha256": sha256_file(place / _WEIGHTS)})

    def cut(place: Path) -> bytes:
        data = (place / _WEIGHTS).read_bytes()
        return data[: len(data) // 2]

    def without_words(place: Path) -> None:
        tensors, spec = load_weights(place)
        save_weights(place, {name: one for name, one in tensors.items() if not name.startswith("words.")}, spec)

    return {
        "half of the weights": lambda place: _put(place / _WEIGHTS, cut(place)),
        "half of the weights, with their hash": lambda place: resealed(place, cut(place)),
        "zero bytes of weights": lambda place: _put(place / _WEIGHTS, b""),
        "zero bytes of facts": lambda place: _put(place / _FACTS, b""),
        "a pickle for weights": lambda place: _put(place / _WEIGHTS, pickle_that_touches(marker)),
        "a pickle for weights, with its hash": lambda place: resealed(place, pickle_that_touches(marker)),
        "a pickle for facts": lambda place: _put(place / _FACTS, pickle_that_touches(marker)),
        "another version": lambda place: _change(place, lambda facts: facts.update(format=99)),
        "facts without tables": lambda place: _change(place, lambda facts: facts["spec"].pop("tables")),
        "roles in another order": lambda place: _change(place, lambda facts: facts["spec"]["tables"]["roles"].sort()),
        "facts without a shape": lambda place: _change(place, lambda facts: facts["spec"].pop("shape")),
        "a shape of another kind": lambda place: _change(place, lambda facts: facts["spec"].update(shape="large")),
        "weights without a vocabulary": without_words,
        "no weights": lambda place: (place / _WEIGHTS).unlink(),
        "no facts": lambda place: (place / _FACTS).unlink(),
        "no folder": shutil.rmtree,
    }


def _put(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _change(place: Path, how: Callable[[dict[str, Any]], Any]) -> None:
    facts = read_json(place / _FACTS)
    how(facts)
    atomic_write_json(place / _FACTS, facts)


def _wrong_refusal(name: str, error: VernissageError | None, expected: type[VernissageError]) -> str:
    if error is None:
        return f"{name}: not refused"
    if not isinstance(error, expected) or "\n" in str(error):
        return f"{name}: {type(error).__name__}: {str(error)[:120]!r}, expected {expected.__name__} in one line"
    return ""


def _says(found: Structure, expected: Structure) -> bool:
    """Whether two structures have the same blocks; block numbers say more of leaves than names alone."""
    return found.cropped().same_as(expected.cropped())


def _others(structure: Structure) -> int:
    return sum(structure_to_roles(structure).others.values())


def _unknown_name(state: str) -> str:
    """What is wrong with the name or the properties of a block; empty where the game knows them."""
    name, properties = parse_state(state)
    namespace, _, path = name.partition(":")
    if namespace != "minecraft" or path not in VANILLA or not VANILLA[path].issuperset(properties):
        return f"{state} is no block of the game"
    return ""


def _reads_other(structure: Structure, path: Path) -> str:
    """What is wrong with a written file; empty where it says the same."""
    message = complaint(verify_written, structure, path)
    if message:
        return message
    if path.suffix == ".vox" and not _same_colours(structure, read_structure(path)):
        return f"{path.name}: other colours"
    if path.suffix == ".glb":
        return _not_closed(structure, path)
    return "" if path.suffix in FORMATS else f"{path.name}: no such format"


def _same_colours(structure: Structure, found: Structure) -> bool:
    """Whether every voxel has the colour of its block."""
    mine = [AIR_STATE, *(unknown_state(colour_of(state)) for state in structure.palette[1:])]
    numbers = {state: number for number, state in enumerate(dict.fromkeys(mine))}
    theirs = [numbers.get(state, -1) for state in found.palette]
    expected, seen = np.array([numbers[state] for state in mine])[structure.blocks], np.array(theirs)[found.blocks]
    return expected.shape == seen.shape and bool((expected == seen).all())


def _not_closed(structure: Structure, path: Path) -> str:
    """What is wrong with a mesh; a closed surface that faces outwards has the volume of its blocks."""
    import trimesh

    mesh = trimesh.load_mesh(path, process=False)
    edges = np.sort(_merged(np.asarray(mesh.vertices), np.asarray(mesh.faces)), axis=1)
    _, times = np.unique(edges, axis=0, return_counts=True)
    if (times % 2).any():
        return f"{path.name}: {int((times % 2).sum())} edges of an open surface"
    corners = np.asarray(mesh.vertices, np.float64)[np.asarray(mesh.faces)]
    volume = float(np.einsum("ni,ni->n", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])).sum() / 6)
    blocks = int(structure.solid.sum())
    return "" if abs(volume - blocks) < 1e-3 * blocks else f"{path.name}: a volume of {volume:.2f} for {blocks} blocks"


def _merged(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(E, 2) edges between vertices, equal ones as one."""
    _, number = np.unique(np.round(vertices, 4), axis=0, return_inverse=True)
    corners = number.reshape(-1)[faces]
    return np.concatenate([corners[:, [0, 1]], corners[:, [1, 2]], corners[:, [2, 0]]])


DAMAGED_MODELS = Case(
    11,
    "damaged models",
    "Cut, empty, of another version, with pickles in the place of weights or facts, without tables, shape or words: "
    "each is refused in one line as corrupt, a missing file as missing, and nothing of it is executed; weights of nan "
    "are refused before anything is built; a whole model builds what it did.",
    damaged_models,
)
IMPORT = Case(
    12,
    "odd structure files",
    "Sponge 1, 2 and 3, fields in any order, negative regions, block numbers and blocks of mods are read as what they "
    "say, unknown blocks kept apart; 19 damaged or hostile files are skipped, each with its reason in one line; memory "
    "grows by at most 64 MiB, nothing is executed.",
    imports,
)
EXPORT = Case(
    13,
    "exports read again",
    "In all formats, for all species, a file says the same when it is read again: states, or colours as .vox; .glb is "
    "closed and has the volume of its blocks; all names and properties of blocks are the game's.",
    exports,
)
NOTHING_BUILT = Case(
    14,
    "nothing built",
    "A structure of nothing but air has defined measures, blocks and picture; a format writes it as air, or refuses in "
    "one line and leaves no file.",
    nothing_built,
)
