"""The page is whole, safe and true: nothing remote, nothing of the words runs, the frames are those that were given."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import zlib
from html.parser import HTMLParser
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from vernissage.core.errors import BadInput
from vernissage.sculptor.domain.colours import colour_of
from vernissage.sculptor.domain.roles import MASK, OUTSIDE, Role
from vernissage.sculptor.domain.structure import Structure
from vernissage.sculptor.use.view import UNDECIDED, view_page

if TYPE_CHECKING:
    from pathlib import Path

PALETTE = {Role.WOOD: "minecraft:oak_log[axis=y]", Role.LEAF: "minecraft:oak_leaves[persistent=true]"}
EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&<!-- {{ 7 * 7 }}"


class Page(HTMLParser):
    """What a browser would make of it: elements, the words in them, the scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.words: dict[str, str] = {}
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        tag = self.elements[-1][0] if self.elements else ""
        if self.cdata_elem == "script":
            self.scripts[-1] += data
        self.words[tag] = self.words.get(tag, "") + data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def policy(self) -> str:
        return next(str(meta["content"]) for meta in self.all("meta") if "http-equiv" in meta)

    @property
    def data(self) -> dict[str, Any]:
        return json.loads(self.scripts[0])


def grids_of(page: Page) -> np.ndarray:
    data = page.data
    kind = {1: np.uint8, 2: np.dtype("<u2")}[data["bytes"]]
    return np.frombuffer(zlib.decompress(base64.b64decode(data["data"])), kind).reshape(data["shape"])


def names_of(page: Page, grid: np.ndarray) -> np.ndarray:
    return np.array([kind["name"] for kind in page.data["kinds"]])[grid]


def tree(size: int = 8) -> np.ndarray:
    roles = np.zeros((size, size, size), np.uint8)
    middle = size // 2
    roles[middle:, 1:-1, 1:-1] = Role.LEAF
    roles[: size - 2, middle, middle] = Role.WOOD
    return roles


def as_structure(roles: np.ndarray) -> Structure:
    return Structure(
        np.where(roles == Role.LEAF, 2, roles).astype(np.uint16),
        ("minecraft:air", PALETTE[Role.WOOD], PALETTE[Role.LEAF]),
    )


def unmasking(roles: np.ndarray, steps: int) -> list[np.ndarray]:
    order = np.random.default_rng(0).random(roles.shape)
    return [np.where(order <= step / (steps - 1), roles, MASK).astype(np.uint8) for step in range(steps)]


@pytest.fixture(scope="module")
def html() -> str:
    return view_page(
        as_structure(tree()), title="oak", facts={"seed": "7"}, frames=unmasking(tree(), 5), palette=PALETTE
    )


def test_frames_and_structure_come_back_as_they_were(html: str) -> None:
    page = Page(html)
    names = names_of(page, grids_of(page))
    spoken = np.full(MASK + 1, "minecraft:air", dtype="<U40")
    spoken[[Role.WOOD, Role.LEAF, MASK]] = "minecraft:oak_log", "minecraft:oak_leaves", UNDECIDED
    assert (names == spoken[[*unmasking(tree(), 5), tree()]]).all()
    assert page.data["kinds"][page.data["undecided"]]["name"] == UNDECIDED
    colours = {kind["name"]: tuple(kind["colour"]) for kind in page.data["kinds"]}
    assert colours["minecraft:oak_leaves"] == colour_of("minecraft:oak_leaves")


def test_without_frames_there_is_one_stop_and_nothing_undecided() -> None:
    page = Page(view_page(as_structure(tree()), title="oak"))
    assert page.data["shape"] == [1, 8, 8, 8]
    assert page.data["undecided"] == -1
    assert page.all("body") == [{"class": "single"}]


def test_roles_without_a_block_have_a_name_and_outside_is_not_drawn() -> None:
    frame = tree()
    frame[0, 0, 0], frame[0, 0, 1] = OUTSIDE, Role.SNOW
    page = Page(view_page(as_structure(tree()), title="", frames=[frame], palette=PALETTE))
    names = names_of(page, grids_of(page))
    assert names[0, 0, 0, 0] == "minecraft:air"
    assert names[0, 0, 0, 1] == "snow"


@pytest.mark.parametrize("seed", range(4))
def test_a_part_of_the_last_frame_is_put_where_it_was(seed: int) -> None:
    rng = np.random.default_rng(seed)
    frame = (rng.random((7, 6, 9)) < 0.4).astype(np.uint8)
    part = np.zeros_like(frame)
    part[1:6, 2:5, 3:8] = frame[1:6, 2:5, 3:8]
    page = Page(view_page(as_structure(part).cropped(), title="", frames=[frame], palette=PALETTE))
    assert (names_of(page, grids_of(page))[-1] == np.where(part, "minecraft:oak_log", "minecraft:air")).all()


def test_a_structure_larger_than_the_frames_is_shown_whole() -> None:
    small, large = np.zeros((2, 3, 3), np.uint8), np.zeros((4, 5, 5), np.uint8)
    small[:, 1, 1] = Role.WOOD
    large[:, 2, 2] = Role.WOOD
    grids = grids_of(Page(view_page(as_structure(large), title="", frames=[small], palette=PALETTE)))
    assert (grids != 0).sum((1, 2, 3)).tolist() == [2, 4]
    assert ((grids[0] != 0) <= (grids[1] != 0)).all()


def test_more_than_256_kinds_take_two_bytes() -> None:
    palette = ("minecraft:air", *(f"mod:block_{number}" for number in range(300)))
    page = Page(view_page(Structure(np.arange(301, dtype=np.uint16).reshape(1, 7, 43), palette), title=""))
    assert page.data["bytes"] == 2
    assert names_of(page, grids_of(page)).ravel().tolist() == list(palette)


def test_states_of_one_block_are_one_entry_and_counted_together() -> None:
    states = ("minecraft:air", "minecraft:oak_log[axis=x]", "minecraft:oak_log[axis=y]", "minecraft:vine")
    page = Page(view_page(Structure(np.array([[[1, 2, 2, 3, 0]]], np.uint16), states), title=""))
    assert [box["value"] for box in page.all("input") if box["type"] == "checkbox"] == ["1", "2"]
    assert page.words["span"] == "oak logvine"
    assert [text.strip() for text in page.words["output"].split()] == ["3", "1"]


def test_nothing_is_fetched(html: str) -> None:
    page = Page(html)
    for tag, attributes in page.elements:
        assert tag not in {"link", "iframe", "object", "embed", "base", "form"}
        for name in ("src", "href", "srcset", "action", "data"):
            assert name not in attributes or str(attributes[name]).startswith("data:image/png;base64,")
    # The one address is a name: the namespace that elements are made in.
    assert set(re.findall(r"https?://[^\s\"'`)]+", html)) == {"http://www.w3.org/1999/xhtml"}
    assert "@import" not in html
    assert not re.search(r"url\(", html.partition("</style>")[0])


def test_policy_allows_exactly_the_scripts_of_the_page(html: str) -> None:
    page = Page(html)
    rules = dict(rule.strip().split(" ", 1) for rule in page.policy.split(";"))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["img-src"] == "data:"
    digests = [base64.b64encode(hashlib.sha256(code.encode()).digest()).decode() for code in page.scripts[1:]]
    assert len(digests) == 2
    assert rules["script-src"].split() == [f"'sha256-{digest}'" for digest in digests]
    assert page.all("script")[0] == {"id": "page-data", "type": "application/json"}


def test_words_stay_words() -> None:
    structure = Structure(np.array([[[1]]], np.uint16), ("minecraft:air", f"mod:{EVIL}"))
    page = Page(view_page(structure, title=EVIL, facts={EVIL: EVIL}))
    assert len(page.scripts) == 3
    assert len(page.all("img")) == 1
    assert (
        page.words["title"].strip() == page.words["h1"].strip() == page.words["dt"] == page.words["dd"].strip() == EVIL
    )
    assert page.data["kinds"][1]["name"] == f"mod:{EVIL}"
    assert not {"onerror", "onload", "onclick"} & {name for _, attributes in page.elements for name in attributes}
    assert str(page.all("img")[0]["alt"]).startswith(EVIL)


def test_half_a_surrogate_pair_can_be_written(tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text(view_page(as_structure(tree()), title="a\ud800b", facts={"\udcff": "\udcff"}), "utf-8")
    assert "a?b" in file.read_text("utf-8")


def test_vendored_library_is_what_the_page_may_hold(html: str) -> None:
    folder = resources.files("vernissage.sculptor.use")
    three, licence = (folder.joinpath(name).read_text("utf-8") for name in ("three.min.js", "three.LICENSE"))
    # These would end a script, hide its end, or need more than the policy allows.
    assert not re.search(r"</script|<!--|\beval\(|new Function\b|\bimport\(", three, re.IGNORECASE)
    assert "three.LICENSE" in three[:200]
    assert licence.startswith("The MIT License")
    assert licence.strip() in html


def test_a_page_of_fourteen_frames_stays_small() -> None:
    frames = [np.random.default_rng(step).integers(0, MASK, (16, 16, 16)).astype(np.uint8) for step in range(14)]
    html = view_page(as_structure(tree(16)), title="noise is the worst case", frames=frames)
    assert len(html.encode()) < 1_200_000


def test_a_picture_stands_in_for_what_cannot_run(html: str) -> None:
    source = str(Page(html).all("img")[0]["src"])
    assert base64.b64decode(source.partition(",")[2]).startswith(b"\x89PNG\r\n")
    assert "<noscript>" in html


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        ([np.zeros((2, 2))], "frame 0 of shape"),
        ([np.zeros((2, 2, 2), np.uint8), np.zeros((2, 2, 3), np.uint8)], "frame 1 of shape"),
        ([np.full((1, 1, 1), MASK + 1)], "frame 0 holds 11"),
    ],
)
def test_frames_that_are_none_are_refused(frames: list[np.ndarray], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        view_page(as_structure(tree()), title="", frames=frames)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium on the path to open the page with")
def test_a_browser_runs_the_page(html: str, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text(html, "utf-8")
    command = [
        "chromium", "--headless", "--no-sandbox", "--enable-unsafe-swiftshader", "--disable-background-networking",
        f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=4000", "--dump-dom",
        f"{file.as_uri()}#frame=0&layers=3",
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=True, env={**os.environ, "HOME": str(tmp_path)}
    )
    assert 'data-state="ready"' in done.stdout, done.stderr[-2000:]
    page = Page(done.stdout)
    assert "1 of 5, 512 undecided" in page.words["output"]
    assert "3 of 8" in page.words["output"]
