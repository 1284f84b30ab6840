"""A structure as one page to turn and take apart: three.js inside, nothing remote, the denoising steps on a slider."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import zlib
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from vernissage.core.errors import BadInput
from vernissage.sculptor.domain.colours import colour_of
from vernissage.sculptor.domain.pictures import ROLE_COLOURS, Colour, picture
from vernissage.sculptor.domain.roles import MASK, OUTSIDE, TOKENS, Role

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vernissage.sculptor.domain.structure import Structure

#: Name and colour of what is not decided yet in a frame.
UNDECIDED, UNDECIDED_COLOUR = "undecided", (128, 143, 163)
_AIR = "minecraft:air"
_TEMPLATE, _SCRIPT, _THREE, _LICENCE = "view.html", "view.js", "three.min.js", "three.LICENSE"


@dataclass(frozen=True)
class _Kind:
    """One entry of the legend: a block whatever its state.

    Attributes:
        number: What stands for it in the frames.
        id: Full name, such as `minecraft:oak_log`.
        count: Voxels in the finished structure.
    """

    number: int
    id: str
    colour: Colour
    count: int

    @property
    def name(self) -> str:
        """As one says it."""
        return self.id.removeprefix("minecraft:").replace("_", " ")

    @property
    def paint(self) -> str:
        """As style sheets say it."""
        return "rgb({}, {}, {})".format(*self.colour)


class _Film(NamedTuple):
    """What the page shows: all frames on one canvas, the finished structure last.

    Attributes:
        grids: (T, Y, Z, X) uint8 or uint16 numbers of kinds, 0 is air.
        kinds: Air first; where frames have undecided voxels, their kind is the last.
    """

    grids: np.ndarray
    kinds: list[_Kind]

    @property
    def undecided(self) -> int:
        return len(self.kinds) - 1 if self.kinds[-1].id == UNDECIDED else -1


def view_page(
    structure: Structure,
    *,
    title: str,
    facts: Mapping[str, str] | None = None,
    frames: Sequence[np.ndarray] | None = None,
    palette: Mapping[Role, str] | None = None,
) -> str:
    """Make the page: one HTML text that needs no other file and shows a picture where its script cannot run.

    Args:
        structure: The finished one, shown first.
        title: The prompt or a file's name; any text.
        facts: Lines beside the picture, name and value; any text.
        frames: Role grids (Y, Z, X) of one shape, from the first step to the last; `MASK` is undecided, `OUTSIDE` is
            not drawn. The structure may be a part of the last one: it is put where both agree best.
        palette: Block state of each role in the frames; roles without one get a colour of their own.

    Raises:
        BadInput: The frames differ in shape, or hold numbers that are neither roles nor tokens.
    """
    film = _film(structure, frames or (), palette or {})
    three, script = _resource(_THREE), _resource(_SCRIPT)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_resource(_TEMPLATE)).render(
        title=_encodable(title),
        facts=[(_encodable(name), _encodable(value)) for name, value in (facts or {}).items()],
        legend=sorted(film.kinds[1:], key=lambda kind: -kind.count),
        stops=len(film.grids),
        height=film.grids.shape[1],
        still=_still(structure),
        payload=Markup(_payload(film)),  # noqa: S704 - JSON without a character that markup knows
        three=Markup(three),  # noqa: S704 - our own files, as they are
        script=Markup(script),  # noqa: S704
        licence=Markup(_resource(_LICENCE).strip()),  # noqa: S704
        script_hashes=Markup(f"{_hash_source(three)} {_hash_source(script)}"),  # noqa: S704
    )


def _film(structure: Structure, frames: Sequence[np.ndarray], palette: Mapping[Role, str]) -> _Film:
    _check(frames)
    colours: dict[str, Colour] = {_AIR: (0, 0, 0)}
    numbers: dict[str, int] = {_AIR: 0}

    def number(name: str, colour: Colour) -> int:
        colours.setdefault(name, colour)
        return numbers.setdefault(name, len(numbers))

    of_states = [number(state.partition("[")[0], colour_of(state)) for state in structure.palette]
    of_tokens = np.zeros(TOKENS, np.int64)
    for role in sorted({int(token) for frame in frames for token in np.unique(frame)} - {Role.AIR, OUTSIDE, MASK}):
        state = palette.get(Role(role))
        of_tokens[role] = (
            number(Role(role).name.lower(), ROLE_COLOURS[Role(role)])
            if state is None
            else number(state.partition("[")[0], colour_of(state))
        )
    if any((frame == MASK).any() for frame in frames):
        of_tokens[MASK] = number(UNDECIDED, UNDECIDED_COLOUR)
    finished = np.array(of_states)[structure.blocks]
    counts = np.bincount(finished.ravel(), minlength=len(numbers)).tolist()
    kinds = [_Kind(place, name, colours[name], counts[place]) for name, place in numbers.items()]
    narrow = np.uint8 if len(kinds) <= 256 else np.dtype("<u2")
    grids = _on_one_canvas([of_tokens[frame] for frame in frames], finished)
    return _Film(grids.astype(narrow), kinds)


def _check(frames: Sequence[np.ndarray]) -> None:
    for number, frame in enumerate(frames):
        if frame.ndim != 3 or frame.size == 0 or frame.shape != frames[0].shape:
            raise BadInput(f"frame {number} of shape {frame.shape}: expected (Y, Z, X), all like {frames[0].shape}")
        if int(frame.min()) < 0 or int(frame.max()) >= TOKENS:
            raise BadInput(f"frame {number} holds {frame.min()} to {frame.max()}: expected 0 to {TOKENS - 1}")


def _on_one_canvas(frames: Sequence[np.ndarray], finished: np.ndarray) -> np.ndarray:
    """Stack frames and the finished grid (T, Y, Z, X), the latter moved to where it has most blocks in common."""
    if not frames:
        return finished[None]
    canvas = np.array(frames[0].shape)
    offset = np.zeros(3, int) if finished.shape == frames[0].shape else _offset(frames[-1] != 0, finished != 0)
    low = np.minimum(offset, 0)
    shape = np.maximum(offset + finished.shape, canvas) - low
    grids = np.zeros((len(frames) + 1, *shape), np.int64)
    for grid, content, start in zip(grids, [*frames, finished], [-low] * len(frames) + [offset - low], strict=True):
        grid[tuple(slice(first, first + extent) for first, extent in zip(start, content.shape, strict=True))] = content
    return grids


def _offset(whole: np.ndarray, part: np.ndarray) -> np.ndarray:
    """How far (y, z, x) a part must be moved to agree best with the whole, by their cross-correlation."""
    shape, axes = tuple(a + b - 1 for a, b in zip(whole.shape, part.shape, strict=True)), (0, 1, 2)
    spectrum = np.fft.rfftn(whole, shape, axes) * np.conj(np.fft.rfftn(part, shape, axes))
    common = np.rint(np.fft.irfftn(spectrum, shape, axes))
    best = np.array(np.unravel_index(int(common.argmax()), shape))
    return np.where(best >= whole.shape, best - shape, best)


def _payload(film: _Film) -> str:
    data = {
        "shape": film.grids.shape,
        "bytes": film.grids.dtype.itemsize,
        "undecided": film.undecided,
        "kinds": [{"name": _encodable(kind.id), "colour": kind.colour} for kind in film.kinds],
        "data": base64.b64encode(zlib.compress(film.grids.tobytes())).decode(),
    }
    text = json.dumps(data, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _still(structure: Structure) -> str:
    file = io.BytesIO()
    picture(structure, background=None).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _resource(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")


def _hash_source(script: str) -> str:
    """Allow exactly this inline script. Source: Content Security Policy Level 3, section 2.3.1, hash-source."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _encodable(text: str) -> str:
    # Half of a surrogate pair, as in a file name that is no UTF-8, has no form in the page's encoding.
    return text.encode("utf-8", "replace").decode("utf-8")
