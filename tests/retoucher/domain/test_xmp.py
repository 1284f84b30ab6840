"""XMP says what was meant to Lightroom, darktable and ourselves, is never applied twice, and keeps what was there."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vernissage.core.errors import BadInput, CorruptArtifact
from vernissage.retoucher.domain import xmp
from vernissage.retoucher.domain.recipe import Recipe, Step
from vernissage.retoucher.domain.render import render
from vernissage.retoucher.domain.sliders import HIGHS, LOWS, SLIDER_COUNT, SLIDER_NAMES, slider_index
from vernissage.retoucher.domain.xmp_packets import CRS, DC, EXPLANATION_START, RDF, XMP_MM, tag

if TYPE_CHECKING:
    from collections.abc import Callable

EXPLANATION = f"{EXPLANATION_START} exposure +0.60 EV, <dark> & flat."
TONE = ("contrast", "highlights", "shadows")
KINDS: dict[str, Callable[..., bytes]] = {"sidecar": xmp.sidecar, "editable": xmp.editable, "record": xmp.record}


def recipe(**settings: float) -> Recipe:
    values = [0.0] * SLIDER_COUNT
    for name, setting in settings.items():
        values[slider_index(name)] = setting
    return Recipe(tuple(values), (Step("exposure", 0.3, 6.5),), 6.0, 6.5)


FULL = recipe(
    exposure=0.3, contrast=0.2, highlights=-0.1, shadows=0.25, temperature=0.1, tint=-0.2, saturation=0.2, sharpen=0.15
)


def tree(packet: bytes) -> ET.Element:
    return ET.fromstring(packet)  # noqa: S314 - our own bytes, read as any other program would


def settings_of(packet: bytes) -> dict[str, str]:
    """Every property of Adobe's schema, wherever in the document it stands."""
    prefix = tag(CRS, "")
    found: dict[str, str] = {}
    for element in tree(packet).iter(tag(RDF, "Description")):
        found |= {name.removeprefix(prefix): value for name, value in element.attrib.items() if name.startswith(prefix)}
    return found


def curve_of(packet: bytes) -> list[tuple[int, int]]:
    items = tree(packet).findall(f".//{tag(CRS, 'ToneCurvePV2012')}/{tag(RDF, 'Seq')}/{tag(RDF, 'li')}")
    return [tuple(int(number) for number in (item.text or "").split(",")) for item in items]  # type: ignore[misc]


def captions_of(packet: bytes) -> list[str]:
    items = tree(packet).findall(f".//{tag(DC, 'description')}/{tag(RDF, 'Alt')}/{tag(RDF, 'li')}")
    return [item.text or "" for item in items]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", xmp.FORMS)
def test_every_kind_gives_the_recipe_back(kind: str, form: xmp.Form) -> None:
    assert xmp.read_xmp(KINDS[kind](FULL, EXPLANATION, form=form)) == FULL


@given(st.tuples(*(st.floats(low, high) for low, high in zip(LOWS, HIGHS, strict=True))))
def test_the_recipe_makes_the_round_trip_without_loss(values: tuple[float, ...]) -> None:
    once = Recipe(tuple(round(value, 6) for value in values), (Step("tint", -0.05, 7.0),), 5.5, None)
    assert xmp.read_xmp(xmp.record(once, EXPLANATION)) == once


def test_settings_say_what_adobe_calls_them() -> None:
    portable, sliders = (
        settings_of(xmp.sidecar(FULL, EXPLANATION)),
        settings_of(xmp.sidecar(FULL, EXPLANATION, form="lightroom")),
    )
    for found in (portable, sliders):
        assert found["Exposure2012"] == "+0.60"
        assert (found["IncrementalTemperature"], found["IncrementalTint"]) == ("+10", "-20")
        assert found["WhiteBalance"] == "Custom"
        assert (found["LuminanceSmoothing"], found["Sharpness"]) == ("0", "+15")
        assert (found["HasSettings"], found["ProcessVersion"]) == ("True", "11.0")
    assert [sliders[f"{name}2012"] for name in ("Contrast", "Highlights", "Shadows")] == ["+20", "-10", "+25"]
    assert sliders["Saturation"] == "+23"
    assert settings_of(xmp.sidecar(recipe(sharpen=0.1), EXPLANATION))["WhiteBalance"] == "As Shot"


def test_tone_and_saturation_are_said_once_in_either_form() -> None:
    portable = xmp.sidecar(FULL, EXPLANATION, form="portable")
    found = settings_of(portable)
    assert {found[f"{name}2012"] for name in ("Contrast", "Highlights", "Shadows")} == {"0"}
    assert found["Saturation"] == "0"
    assert {value for name, value in found.items() if name.startswith("SaturationAdjustment")} == {"+23"}
    # darktable takes a missing hue or luminance adjustment for the strongest negative one.
    assert {value for name, value in found.items() if name.startswith(("HueAdj", "LuminanceAdj"))} == {"0"}
    assert sum("Adjustment" in name for name in found) == 24
    assert found["ToneCurveName2012"] == "Custom"
    assert len(curve_of(portable)) == 16
    sliders = xmp.sidecar(FULL, EXPLANATION, form="lightroom")
    assert settings_of(sliders)["ToneCurveName2012"] == "Linear"
    assert curve_of(sliders) == [(0, 0), (255, 255)]
    assert not [name for name in settings_of(sliders) if "Adjustment" in name]


@pytest.mark.parametrize("tone", [{"contrast": 0.8}, {"contrast": -0.5, "shadows": 0.4}, {"highlights": -0.7}])
def test_the_curve_is_the_one_that_we_render(tone: dict[str, float]) -> None:
    once = recipe(**tone)
    points = curve_of(xmp.sidecar(once, EXPLANATION))
    entries = torch.tensor([entry for entry, _ in points]) / 255
    rendered = render(entries.view(1, 1, 1, -1).expand(1, 3, 1, -1), once.as_tensor())[0, 1, 0] * 255
    assert [out for _, out in points] == pytest.approx(rendered.tolist(), abs=0.51)
    outs = [out for _, out in points]
    assert outs == sorted(outs)
    assert (points[0][0], points[-1][0], len(points) <= 20) == (0, 255, True)


def test_without_a_change_of_tone_there_is_no_curve() -> None:
    packet = xmp.sidecar(recipe(exposure=0.5), EXPLANATION)
    assert settings_of(packet)["ToneCurveName2012"] == "Linear"
    assert curve_of(packet) == [(0, 0), (255, 255)]


def test_only_the_rendered_photo_says_that_the_settings_are_in_its_pixels() -> None:
    applied = {kind: settings_of(make(FULL, EXPLANATION))["AlreadyApplied"] for kind, make in KINDS.items()}
    assert applied == {"sidecar": "False", "editable": "False", "record": "True"}


def test_raw_files_keep_the_white_balance_and_sharpening_of_their_camera() -> None:
    found = settings_of(xmp.sidecar(recipe(temperature=0.3, tint=0.1, exposure=0.1), EXPLANATION, raw=True))
    assert found["WhiteBalance"] == "As Shot"
    assert not {"IncrementalTemperature", "Temperature", "Tint", "Sharpness", "LuminanceSmoothing"} & set(found)
    assert settings_of(xmp.sidecar(recipe(sharpen=0.3), EXPLANATION, raw=True))["Sharpness"] == "+30"


def test_the_explanation_is_the_caption_and_follows_the_photographers_own() -> None:
    for make in KINDS.values():
        assert captions_of(make(FULL, EXPLANATION)) == [EXPLANATION]
        again = make(FULL, EXPLANATION, present=make(recipe(tint=0.1), f"{EXPLANATION_START} earlier."))
        assert captions_of(again) == [EXPLANATION]
        assert captions_of(make(FULL, EXPLANATION, present=OWN_WORDS)) == [
            f"Harbour at noon\n\n{EXPLANATION}", "Hafen am Mittag"
        ]  # fmt: skip


OWN_WORDS = """<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="uuid:1" xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:xmp="http://ns.adobe.com/xap/1.0/"
 xmlns:crs="http://ns.adobe.com/camera-raw-settings/1.0/" xmlns:tiff="http://ns.adobe.com/tiff/1.0/"
 xmlns:darktable="http://darktable.sf.net/" xmlns:xmpNote="http://ns.adobe.com/xmp/note/" xmlns:z="urn:somebody"
 xmp:Rating="4" crs:Exposure2012="+3.00" crs:HasSettings="True" tiff:Orientation="6" z:own="kept"
 xmpNote:HasExtendedXMP="ABC">
<dc:description><rdf:Alt><rdf:li xml:lang="x-default">Harbour at noon</rdf:li>
<rdf:li xml:lang="de">Hafen am Mittag</rdf:li>
</rdf:Alt></dc:description>
<dc:subject><rdf:Bag><rdf:li>ships</rdf:li><rdf:li>ΔΩ</rdf:li></rdf:Bag></dc:subject>
<darktable:history><rdf:Seq><rdf:li>exposure</rdf:li></rdf:Seq></darktable:history>
<crs:ToneCurvePV2012><rdf:Seq><rdf:li>0, 90</rdf:li></rdf:Seq></crs:ToneCurvePV2012>
</rdf:Description></rdf:RDF></x:xmpmeta>""".encode()  # fmt: skip


@pytest.mark.parametrize("make", [xmp.editable, xmp.record])
def test_keywords_and_ratings_stay_and_foreign_edits_go(make: Callable[..., bytes]) -> None:
    packet = make(FULL, EXPLANATION, present=OWN_WORDS)
    text = packet.decode()
    assert settings_of(packet)["Exposure2012"] == "+0.60"
    assert text.count("Exposure2012=") == 1
    assert len(curve_of(packet)) == 16
    assert 'xmp:Rating="4"' in text
    assert "ships" in text
    assert "ΔΩ" in text
    assert 'own="kept"' in text
    # Another program's edit list beside ours would be a second edit.
    assert "darktable" not in text


def test_what_described_the_old_pixels_does_not_describe_the_new() -> None:
    rendered, untouched = (make(FULL, EXPLANATION, present=OWN_WORDS).decode() for make in (xmp.record, xmp.editable))
    for name in ("Orientation", "HasExtendedXMP"):
        assert name not in rendered
        assert name in untouched


def test_the_edit_joins_the_history_of_the_rendered_photo() -> None:
    first = xmp.record(recipe(tint=0.1), f"{EXPLANATION_START} earlier.")
    packet = xmp.record(FULL, EXPLANATION, present=first)
    histories = tree(packet).findall(f".//{tag(XMP_MM, 'History')}")
    assert len(histories) == 1
    texts = ["".join(item.itertext()) for item in histories[0].iter(tag(RDF, "li"))]
    assert ["earlier" in text for text in texts] == [True, False]
    assert all("Vernissage" in text for text in texts)


def test_a_sidecar_names_no_program_because_darktable_would_read_no_further() -> None:
    assert "softwareAgent" not in xmp.sidecar(FULL, EXPLANATION, present=xmp.record(FULL, EXPLANATION)).decode()


def test_lists_begin_on_a_line_of_their_own_because_darktable_counts_on_it() -> None:
    """darktable takes the second child of a property for its list, and the second child of that for the first item."""
    for element in tree(xmp.sidecar(FULL, EXPLANATION)).iter():
        if len(element):
            assert element.text
            assert not element.text.strip()


def test_packets_are_marked_and_sidecars_are_documents() -> None:
    packet, document = xmp.record(FULL, EXPLANATION), xmp.sidecar(FULL, EXPLANATION)
    assert packet.startswith('<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'.encode())
    assert packet.endswith(b'<?xpacket end="w"?>')
    assert document.startswith(b"<?xml")
    assert tree(document).tag == "{adobe:ns:meta/}xmpmeta"


def test_equal_recipes_give_equal_bytes() -> None:
    for make in KINDS.values():
        assert make(FULL, EXPLANATION, present=OWN_WORDS) == make(FULL, EXPLANATION, present=OWN_WORDS)


LAUGHS = b"""<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>
<x:xmpmeta xmlns:x="adobe:ns:meta/">&b;</x:xmpmeta>"""
READS_FILES = (
    b"""<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/hostname">]><x:xmpmeta xmlns:x="adobe:ns:meta/">&f;</x:xmpmeta>"""
)
DEEP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/">' + b"<x:a>" * 5000 + b"</x:a>" * 5000 + b"</x:xmpmeta>"
BAD = {
    "entities that grow": (LAUGHS, "document type"),
    "entities that read files": (READS_FILES, "document type"),
    "another encoding": (LAUGHS.decode().encode("utf-16"), "UTF-8"),
    "nothing": (b"", "not well-formed"),
    "no xml": (b"exposure: 1", "not well-formed"),
    "cut off": (xmp.sidecar(FULL, EXPLANATION)[:-20], "not well-formed"),
    "other xml": (b"<html/>", "expected x:xmpmeta"),
    "too deep": (DEEP, "deep"),
    "too long": (b" " * ((16 << 20) + 1), "at most"),
}  # fmt: skip


@pytest.mark.parametrize(("packet", "complaint"), BAD.values(), ids=BAD)
def test_bad_packets_are_refused_with_the_reason(packet: bytes, complaint: str) -> None:
    with pytest.raises(BadInput, match=complaint):
        xmp.read_xmp(packet)
    with pytest.raises(BadInput, match=complaint):
        xmp.record(FULL, EXPLANATION, present=packet)


def test_an_encoding_in_the_declaration_cannot_hide_a_document_type() -> None:
    """From text the parser takes the characters as they are, whatever the declaration promises."""
    disguised = b'<?xml version="1.0" encoding="cp037"?>' + LAUGHS.partition(b"?>")[2]
    with pytest.raises(BadInput, match="document type"):
        xmp.read_xmp(disguised)


def test_packets_of_others_hold_no_recipe() -> None:
    with pytest.raises(BadInput, match="no recipe"):
        xmp.read_xmp(OWN_WORDS)


def test_a_damaged_recipe_is_refused() -> None:
    damaged = xmp.sidecar(FULL, EXPLANATION).replace(b'"format":1', b'"format":9')
    with pytest.raises(CorruptArtifact, match="format 9"):
        xmp.read_xmp(damaged)


def test_padding_of_a_packet_is_no_part_of_it() -> None:
    assert xmp.read_xmp(xmp.record(FULL, EXPLANATION) + b"\0" * 100) == FULL
    assert xmp.read_xmp(b"\xef\xbb\xbf" + xmp.sidecar(FULL, EXPLANATION)) == FULL


def test_all_sliders_are_said_in_some_way() -> None:
    neutral = settings_of(xmp.sidecar(recipe(), EXPLANATION, form="lightroom"))
    for name in SLIDER_NAMES:
        moved = settings_of(xmp.sidecar(recipe(**{name: 0.2}), EXPLANATION, form="lightroom"))
        assert moved != neutral, name
    for name in TONE:
        assert curve_of(xmp.sidecar(recipe(**{name: 0.2}), EXPLANATION)) != [(0, 0), (255, 255)]
