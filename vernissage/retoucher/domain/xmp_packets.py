"""The form of XMP: reads packets from anywhere without trusting them, keeps what belongs to the photographer, writes.

XMP is RDF in XML (ISO 16684-1). Reading refuses document types and deep nesting, so that no packet can make us read
other files, grow without end or run out of stack.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from vernissage.core.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

X = "adobe:ns:meta/"
RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
XML = "http://www.w3.org/XML/1998/namespace"
DC = "http://purl.org/dc/elements/1.1/"
XMP_MM = "http://ns.adobe.com/xap/1.0/mm/"
EVENT = "http://ns.adobe.com/xap/1.0/sType/ResourceEvent#"
CRS = "http://ns.adobe.com/camera-raw-settings/1.0/"
#: Our own names; nobody has to fetch the address, it only has to be nobody else's.
OWN = "http://ns.vernissage.example/retoucher/1.0/"

#: First words of every explanation, by which a later run finds and replaces what an earlier one wrote.
EXPLANATION_START = "Retouched by Vernissage:"

MAX_BYTES = 16 << 20
_MAX_DEPTH = 100
_TIFF, _EXIF, _XMP = "http://ns.adobe.com/tiff/1.0/", "http://ns.adobe.com/exif/1.0/", "http://ns.adobe.com/xap/1.0/"
# Only for the eyes of people: a program goes by the address behind a prefix.
_PREFIXES = {
    "x": X, "rdf": RDF, "dc": DC, "xmpMM": XMP_MM, "stEvt": EVENT, "crs": CRS, "vernissage": OWN, "tiff": _TIFF,
    "exif": _EXIF, "xmp": _XMP,
    "stRef": "http://ns.adobe.com/xap/1.0/sType/ResourceRef#",
    "xmpRights": "http://ns.adobe.com/xap/1.0/rights/",
    "photoshop": "http://ns.adobe.com/photoshop/1.0/",
    "lr": "http://ns.adobe.com/lightroom/1.0/",
    "aux": "http://ns.adobe.com/exif/1.0/aux/",
    "exifEX": "http://cipa.jp/exif/1.0/",
    "Iptc4xmpCore": "http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/",
    "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
}  # fmt: skip
for _prefix, _address in _PREFIXES.items():
    ET.register_namespace(_prefix, _address)

# Develop settings of this and other programs: whoever finds them beside new settings or new pixels edits twice.
_EDITS = frozenset({CRS, OWN, "http://ns.adobe.com/camera-raw-saved-settings/1.0/", "http://darktable.sf.net/"})
# What describes bytes that a newly written file does not hold: extended packets, gain maps, motion pictures, depth.
_APPENDED = frozenset(
    {
        "http://ns.adobe.com/xmp/note/",
        "http://ns.adobe.com/hdr-gain-map/1.0/",
        "http://ns.google.com/photos/1.0/camera/",
        "http://ns.google.com/photos/1.0/container/",
        "http://ns.google.com/photos/1.0/depthmap/",
        "http://ns.google.com/photos/1.0/image/",
    }
)


def tag(namespace: str, name: str) -> str:
    """The name of an element or attribute as ElementTree writes it."""
    return f"{{{namespace}}}{name}"


# What describes the pixels as they lay in the old file; a viewer that believes it turns or scales the new ones.
_LAYOUT = frozenset(
    {
        *(tag(_TIFF, name) for name in ("Orientation", "ImageWidth", "ImageLength", "BitsPerSample", "Compression")),
        *(tag(_EXIF, name) for name in ("PixelXDimension", "PixelYDimension")),
        tag(_XMP, "Thumbnails"),
    }
)
_ABOUT, _DESCRIPTION, _LI = tag(RDF, "about"), tag(RDF, "Description"), tag(RDF, "li")
_CAPTION, _HISTORY, _LANG = tag(DC, "description"), tag(XMP_MM, "History"), tag(XML, "lang")


@dataclass(frozen=True)
class Kept:
    """What of a photo's own XMP goes on into the next file.

    Attributes:
        descriptions: `rdf:Description` elements with every property that stays, apart from the two below.
        caption: The photographer's own description, without what an earlier run of ours appended.
        translations: The same in other languages, as `rdf:li` elements.
        history: Earlier events of `xmpMM:History`, as `rdf:li` elements.
    """

    descriptions: tuple[ET.Element, ...] = ()
    caption: str = ""
    translations: tuple[ET.Element, ...] = ()
    history: tuple[ET.Element, ...] = ()


def parse(packet: bytes) -> ET.Element:
    """Read XMP from anywhere.

    Args:
        packet: A packet as it lies in a photo, or a sidecar file; UTF-8, which is what every program writes.

    Returns:
        The root element.

    Raises:
        BadInput: Too long, not UTF-8, not well-formed, with a document type, nested too deeply, or not RDF.
    """
    if len(packet) > MAX_BYTES:
        raise BadInput(f"XMP: {len(packet)} bytes, expected at most {MAX_BYTES}")
    try:
        text = packet.decode("utf-8-sig").rstrip("\0")
    except UnicodeDecodeError as error:
        raise BadInput(f"XMP: not UTF-8 ({error})") from error
    # Entities can be declared in a document type only. From text, the parser cannot be talked into another encoding
    # in which these words would hide.
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise BadInput("XMP: has a document type, expected none: entities in it are never resolved here")
    try:
        root = ET.fromstring(text)  # noqa: S314 - without a document type there is nothing to expand or fetch
    except (ET.ParseError, ValueError) as error:
        raise BadInput(f"XMP: not well-formed ({error})") from error
    if root.tag not in (tag(X, "xmpmeta"), tag(RDF, "RDF")):
        raise BadInput(f"XMP: the root is {root.tag!r}, expected x:xmpmeta or rdf:RDF")
    _check_depth(root)
    return root


def kept_properties(present: bytes | None, *, rendered: bool) -> Kept:
    """Sort a photo's own XMP into what stays and what must not.

    Args:
        present: The packet in the photo; None where it has none.
        rendered: Whether it goes to new pixels: then everything that described the old ones goes as well.

    Raises:
        BadInput: As :func:`parse`.
    """
    if present is None:
        return Kept()
    root = parse(present)
    graph = root if root.tag == tag(RDF, "RDF") else root.find(tag(RDF, "RDF"))
    caption, translations, history, descriptions = "", [], [], []
    dropped_spaces = _EDITS | _APPENDED if rendered else _EDITS
    for found in () if graph is None else graph.findall(_DESCRIPTION):
        fresh = description()
        for name, value in found.attrib.items():
            if name == _CAPTION:
                caption = value
            elif _stays(name, dropped_spaces, rendered=rendered) and name != _ABOUT:
                fresh.set(name, value)
        for child in found:
            if child.tag == _CAPTION:
                items = child.findall(f"./*/{_LI}")
                translations += [item for item in items if item.get(_LANG, "x-default") != "x-default"]
                caption = next((item.text or "" for item in items if item not in translations), caption)
            elif child.tag == _HISTORY:
                history += child.findall(f"./*/{_LI}")
            elif _stays(child.tag, dropped_spaces, rendered=rendered):
                fresh.append(child)
        if len(fresh) or len(fresh.attrib) > 1:
            descriptions.append(fresh)
    own_words = caption.partition(EXPLANATION_START)[0].strip()
    return Kept(tuple(descriptions), own_words, tuple(translations), tuple(history))


def description() -> ET.Element:
    """A new `rdf:Description` about the file that holds it."""
    return ET.Element(_DESCRIPTION, {_ABOUT: ""})


def document(descriptions: Iterable[ET.Element], *, wrapped: bool) -> bytes:
    """Write XMP.

    Every element stands on its own line. That is more than looks: darktable (4.2 and 5) counts on the line break
    before each list and finds no tone curve without it.

    Args:
        descriptions: What the document says.
        wrapped: Whether to put it between the marks by which programs find a packet inside a photo.

    Returns:
        UTF-8; the same descriptions give the same bytes.
    """
    root = ET.Element(tag(X, "xmpmeta"))
    ET.SubElement(root, tag(RDF, "RDF")).extend(descriptions)
    ET.indent(root, " ")
    text = ET.tostring(root, encoding="unicode") + "\n"
    if not wrapped:
        return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}'.encode()
    return f'<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n{text}<?xpacket end="w"?>'.encode()


def _stays(name: str, dropped_spaces: frozenset[str], *, rendered: bool) -> bool:
    namespace = name[1:].partition("}")[0]
    return namespace not in dropped_spaces and not (rendered and name in _LAYOUT)


def _check_depth(root: ET.Element) -> None:
    """Writing and indenting go down by recursion, which a packet must not be able to exhaust."""
    level: Sequence[ET.Element] = [root]
    for _ in range(_MAX_DEPTH):
        level = [child for element in level for child in element]
        if not level:
            return
    raise BadInput(f"XMP: nested more than {_MAX_DEPTH} deep")
