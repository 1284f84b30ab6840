"""The page holds everything in itself, is safe whatever a photo is called, and shows what the explanation says."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from tests.retoucher.domain.procedural import scene
from tests.retoucher.use.test_instructor import METER, MOVES, PHOTO, recipe_of
from vernissage.core.images import to_uint8
from vernissage.retoucher.domain.render import render
from vernissage.retoucher.use.instructor import explain
from vernissage.retoucher.use.page import LARGE_EDGE, STEP_EDGE, picture_steps, save_sheet, to_html

if TYPE_CHECKING:
    from pathlib import Path

RECIPE = recipe_of(*MOVES)
EXPLANATION = explain(RECIPE, PHOTO, METER, long_edge=4000)
ORIGINAL = scene(400, 600, 2) * 0.5


class Page(HTMLParser):
    """Collects the elements and the text of a page; unclosed or crossed elements are an error."""

    VOID = frozenset({"meta", "img", "input", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def html() -> str:
    return to_html(EXPLANATION, RECIPE, picture_steps(RECIPE, ORIGINAL), name="a.jpg")


def test_nothing_is_fetched(html: str) -> None:
    assert not re.search(r"https?:|//[a-z]|<link|@import|<iframe", html)
    sources = [image["src"] or "" for image in Page(html).all("img")] + re.findall(r'url\("(.*?)"\)', html)
    assert len(sources) == 2 + len(MOVES) + 1
    for source in sources:
        assert source.startswith("data:image/jpeg;base64,")
        assert Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))).format == "JPEG"


def test_only_its_own_script_may_run(html: str) -> None:
    page = Page(html)
    policy = next(meta["content"] or "" for meta in page.all("meta") if meta.get("http-equiv"))
    script = re.search(r"<script>(.*?)</script>", html, re.DOTALL)
    assert script
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe-eval" not in policy
    # The divider is drawn by the script, so its handle stays away without it.
    assert "hidden" in page.all("input")[0]


def test_the_pictures_are_before_and_after(html: str) -> None:
    before, after = Page(html).all("img")
    for image, settings in ((before, RECIPE.path()[:1]), (after, RECIPE.as_tensor())):
        found = Image.open(io.BytesIO(base64.b64decode((image["src"] or "").partition(",")[2])))
        expected = to_uint8(render(ORIGINAL, settings)[0].permute(1, 2, 0).numpy())
        assert np.abs(np.asarray(found, int) - expected).mean() < 3
        assert (image["width"], image["height"]) == ("600", "400")


def test_every_picture_has_words_for_those_who_do_not_see_it(html: str) -> None:
    page = Page(html)
    assert all(image["alt"] for image in page.all("img"))
    pictures = [attributes for _, attributes in page.elements if attributes.get("role") == "img"]
    # A split and a whole picture of every step, the original, two histograms.
    assert len(pictures) == 2 * len(MOVES) + 1 + 2
    assert all(picture["aria-label"] for picture in pictures)
    assert all(control.get("aria-label") for control in page.all("input"))


def test_every_lesson_is_told(html: str) -> None:
    words = " ".join(" ".join(Page(html).words).split()).replace("→", "->")
    for lesson in EXPLANATION.lessons:
        for part in (lesson.reason.text, lesson.reason.effect, lesson.gains, lesson.lightroom, lesson.darktable):
            assert part in words
        assert f"{lesson.gain_in_the_end:+.2f}" in words
    assert f"What mattered most: step {EXPLANATION.most_useful.number}" in words


def test_a_name_cannot_become_markup() -> None:
    name = """<script>alert(1)</script>" onload='x' & {{ 7 * 7 }}.jpg"""
    page = Page(to_html(EXPLANATION, RECIPE, picture_steps(RECIPE, ORIGINAL), name=name))
    assert len(page.all("script")) == 1
    assert not [attributes for _, attributes in page.elements if "onload" in attributes]
    assert name in "".join(page.words)


def test_the_panel_shows_where_every_slider_stands(html: str) -> None:
    bars = re.findall(r'<i style="left: ([\d.]+)%; width: ([\d.]+)%">', html)
    # exposure +0.25, shadows +0.3, saturation +0.2, each of -1 to 1
    assert [(float(left), float(width)) for left, width in bars] == [(50, 12.5), (50, 15), (50, 10)]
    assert html.count("as it was<") == 6


def test_histograms_are_drawn_for_both(html: str) -> None:
    outlines = re.findall(r'<path class="(\w+)" d="([^"]+)"', html)
    assert [channel for channel, _ in outlines] == ["red", "green", "blue", "luma"] * 2
    assert outlines[3][1] != outlines[7][1]
    heights = [float(number) for number in re.findall(r"L[\d.]+ (-?[\d.]+)", outlines[3][1])]
    assert all(0 <= height <= 128 for height in heights)


def test_pictures_are_as_large_as_they_are_shown() -> None:
    shown = picture_steps(RECIPE, scene(60, LARGE_EDGE, 1))
    assert tuple(shown.large.shape) == (2, 3, 60, LARGE_EDGE)
    assert shown.steps.shape[0] == len(MOVES) + 1
    assert max(shown.steps.shape[2:]) == STEP_EDGE


def test_the_sheet_shows_every_step(tmp_path: Path) -> None:
    save_sheet(tmp_path / "a.png", EXPLANATION, picture_steps(RECIPE, ORIGINAL), "a.jpg")
    with Image.open(tmp_path / "a.png") as sheet:
        # Five pictures in rows of four.
        assert sheet.width > 4 * 240
        assert 2 * 160 < sheet.height < 3 * 240


def test_one_page_twice_is_the_same_page(html: str) -> None:
    assert to_html(EXPLANATION, RECIPE, picture_steps(RECIPE, ORIGINAL), name="a.jpg") == html
