"""What the words of prompts mean: adjectives by the part that they describe, names of parts and species, small words.

One table serves both ways, so that everything a caption says can be read: a row's `said` is what captions may say,
`heard` is what is understood besides.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, StrEnum, auto
from typing import TYPE_CHECKING

from vernissage.sculptor.domain.attributes import ATTRIBUTES
from vernissage.sculptor.domain.words import MARKS, Speller, tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

#: An attribute and one of its values.
Meaning = tuple[str, str]


class Part(StrEnum):
    """What an adjective can describe: the tree, a part of it, or a measure of it."""

    TREE = "tree"
    TRUNK = "trunk"
    CROWN = "crown"
    ROOTS = "roots"
    BRANCHES = "branches"
    HEIGHT = "height"
    WIDTH = "width"
    DENSITY = "density"


class Kind(Enum):
    """What a word does in a sentence."""

    ADJECTIVE = auto()
    NOUN = auto()
    SPECIES = auto()
    NOT = auto()  # turns round what follows: "no roots"
    IS = auto()  # what follows describes what came before: "the trunk is thick"
    LINK = auto()  # joins two of a kind: "wide and dense"
    ARTICLE = auto()  # begins a noun phrase
    BREAK = auto()  # ends a phrase: "with", "that has"
    IT = auto()  # stands for the tree
    FILLER = auto()  # changes nothing: "very", "visible"


@dataclass(frozen=True)
class Row:
    """Words of one meaning, which depends on the part that they describe.

    Attributes:
        words: Parted by spaces; in `cone-shaped` the first word carries the meaning, the other is a filler.
        said: Meaning for each part that captions describe with these words.
        heard: The same for parts where captions prefer other words.
    """

    words: str
    said: dict[Part, Meaning] = field(default_factory=dict)
    heard: dict[Part, Meaning] = field(default_factory=dict)


_TREE, _TRUNK, _CROWN = Part.TREE, Part.TRUNK, Part.CROWN
_SHORT, _MIDDLE, _TALL = (("height", value) for value in ("short", "medium", "tall"))
_THIN, _THICK, _MASSIVE = (("trunk", value) for value in ("thin", "thick", "massive"))
_NARROW, _AVERAGE, _WIDE = (("width", value) for value in ("narrow", "medium", "wide"))
_SPARSE, _DENSE = (("density", value) for value in ("sparse", "dense"))
_STRAIGHT, _LEANING = (("lean", value) for value in ("straight", "leaning"))
_LEAFLESS = ("crown", "leafless")
_ROOTS, _NO_ROOTS = ("roots", "roots"), ("roots", "no roots")
_BRANCHES, _NO_BRANCHES = ("branches", "branches"), ("branches", "no branches")


def _shape(value: str, words: str, *, weeps: bool = False) -> Row:
    meaning = ("crown", value)
    return Row(words, {_TREE: meaning, _CROWN: meaning}, {Part.BRANCHES: meaning} if weeps else {})


ROWS = (
    Row("tall", {_TREE: _TALL}, {_TRUNK: _TALL, _CROWN: _TALL}),
    Row("high", {_TREE: _TALL}, {_TRUNK: _TALL, _CROWN: _TALL, Part.DENSITY: _DENSE}),
    Row("towering lofty soaring", {_TREE: _TALL}, {_TRUNK: _TALL}),
    Row("big large", {_TREE: _TALL, _TRUNK: _THICK, _CROWN: _WIDE}),
    Row("massive", {_TRUNK: _MASSIVE, _CROWN: _WIDE}, {_TREE: _TALL}),
    Row("huge giant gigantic enormous", {_TREE: _TALL, _TRUNK: _MASSIVE, _CROWN: _WIDE}),
    Row("mighty colossal", {_TRUNK: _MASSIVE}, {_TREE: _TALL, _CROWN: _WIDE}),
    Row("great", {Part.HEIGHT: _TALL, Part.WIDTH: _WIDE}, {_TREE: _TALL, _TRUNK: _THICK, _CROWN: _WIDE}),
    Row("short", {_TREE: _SHORT}),
    Row("low", {Part.HEIGHT: _SHORT}, {_TREE: _SHORT, Part.DENSITY: _SPARSE}),
    Row("small little", {_TREE: _SHORT, _CROWN: _NARROW}, {_TRUNK: _THIN, Part.HEIGHT: _SHORT, Part.WIDTH: _NARROW}),
    Row("tiny", {_TREE: _SHORT}, {_TRUNK: _THIN, _CROWN: _NARROW}),
    Row("dwarf miniature mini", {_TREE: _SHORT}),
    Row("medium-sized mid-sized", {_TREE: _MIDDLE, _CROWN: _AVERAGE}),
    Row("medium average moderate", {Part.HEIGHT: _MIDDLE, Part.WIDTH: _AVERAGE}, {_TREE: _MIDDLE, _CROWN: _AVERAGE}),
    Row("thin", {_TRUNK: _THIN, _CROWN: _SPARSE}, {_TREE: _THIN}),
    Row("slim slender", {_TREE: _NARROW, _TRUNK: _THIN, _CROWN: _NARROW}),
    Row("skinny", {_TRUNK: _THIN}, {_TREE: _NARROW}),
    Row("narrow", {_TREE: _NARROW, _TRUNK: _THIN, _CROWN: _NARROW}),
    Row("thick", {_TRUNK: _THICK, _CROWN: _DENSE}, {_TREE: _THICK}),
    Row("stout sturdy fat", {_TRUNK: _THICK}, {_TREE: _THICK}),
    Row("wide broad", {_TREE: _WIDE, _TRUNK: _THICK, _CROWN: _WIDE}),
    Row("spreading sprawling", {_TREE: _WIDE, _CROWN: _WIDE}, {Part.BRANCHES: _WIDE}),
    Row("straight upright", {_TREE: _STRAIGHT, _TRUNK: _STRAIGHT}),
    Row("vertical erect", {_TRUNK: _STRAIGHT}, {_TREE: _STRAIGHT}),
    Row("leaning crooked tilted slanted bent", {_TREE: _LEANING, _TRUNK: _LEANING}),
    Row("curved lopsided", {}, {_TREE: _LEANING, _TRUNK: _LEANING}),
    _shape("round", "round rounded spherical ball-shaped globe-shaped dome-shaped"),
    _shape("conical", "conical cone-shaped pointed pyramidal tapering triangular"),
    Row("flat", {_CROWN: ("crown", "flat")}),
    _shape("flat", "flat-topped umbrella-shaped"),
    _shape("columnar", "columnar column-shaped cylindrical pillar-shaped"),
    _shape("weeping", "weeping drooping hanging", weeps=True),
    Row("leafless bare", {_TREE: _LEAFLESS}, {_CROWN: _LEAFLESS, Part.BRANCHES: _LEAFLESS}),
    Row("naked", {}, {_TREE: _LEAFLESS, _CROWN: _LEAFLESS, Part.BRANCHES: _LEAFLESS}),
    Row("dense", {_CROWN: _DENSE}, {_TREE: _DENSE}),
    Row("lush full", {_CROWN: _DENSE}, {_TREE: _DENSE}),
    Row("leafy bushy", {_TREE: _DENSE}, {_CROWN: _DENSE, Part.BRANCHES: _DENSE}),
    Row("sparse", {_TREE: _SPARSE, _CROWN: _SPARSE}),
    Row("airy open patchy", {_CROWN: _SPARSE}, {_TREE: _SPARSE}),
    Row("many more", {}, {_CROWN: _DENSE, Part.ROOTS: _ROOTS, Part.BRANCHES: _BRANCHES}),
    Row("few fewer less", {}, {_CROWN: _SPARSE, Part.ROOTS: _ROOTS, Part.BRANCHES: _BRANCHES}),
    Row("branching branched", {_TREE: _BRANCHES}, {_TRUNK: _BRANCHES}),
    Row("branchless", {_TREE: _NO_BRANCHES, _TRUNK: _NO_BRANCHES}),
    Row("rootless", {_TREE: _NO_ROOTS}),
    Row("rooted", {}, {_TREE: _ROOTS}),
)

#: Names of the parts; the first one is the plain one. Captions say those before the bar.
_NOUNS = {
    _TREE: "tree | plant",
    _TRUNK: "trunk stem bole | base",
    _CROWN: "crown canopy foliage top leaves | leaf treetop",
    Part.ROOTS: "roots",
    Part.BRANCHES: "branches limbs boughs | twigs",
    Part.HEIGHT: "height",
    Part.WIDTH: "width | breadth",
    Part.DENSITY: "| density",
}
_SAID_NOUNS = {part: tuple(words.partition("|")[0].split()) for part, words in _NOUNS.items()}
#: Names of each part that captions say.
NOUNS_SAID: dict[Part, tuple[str, ...]] = {part: names for part, names in _SAID_NOUNS.items() if names}
PART_OF: dict[str, Part] = {
    word: part for part, words in _NOUNS.items() for word in words.replace("|", " ").split()
}  # fmt: skip

#: Names of each species that captions say; the first is the species itself.
SPECIES_SAID: dict[str, tuple[str, ...]] = {name: (name,) for name in ATTRIBUTES["species"]}
SPECIES_SAID["bush"] = ("bush", "shrub")
SPECIES_OF: dict[str, str] = {word: name for name, words in SPECIES_SAID.items() for word in words}

#: What a named part says by being there, and by being denied.
PRESENT: dict[Part, Meaning] = {Part.ROOTS: _ROOTS, Part.BRANCHES: _BRANCHES}
ABSENT: dict[Part, Meaning] = {Part.ROOTS: _NO_ROOTS, Part.BRANCHES: _NO_BRANCHES, _CROWN: _LEAFLESS}

_SMALL_WORDS = {
    Kind.NOT: "no not without never non lacks lacking isnt arent hasnt havent doesnt dont neither",
    Kind.IS: "is are be being looks seems was were grows",
    Kind.LINK: "and or nor but plus",
    Kind.ARTICLE: "a an the any its their this some",
    Kind.BREAK: "with has have having that which whose of on in at from by like for as",
    Kind.IT: "it they",
    Kind.FILLER: (
        "very quite really rather fairly extremely so too just only there shaped sized topped looking visible exposed "
        "side surface out all over up to one left right lots plenty grown wood wooden minecraft voxel block please "
        "build make create generate give draw me i want need would like could you can my show let us"
    ),
}
_FOREIGN = {
    "tree": "baum baeume baume arbre arbres arbol arboles albero",
    "oak": "eiche eichen chene chenes roble robles",
    "birch": "birke birken bouleau abedul",
    "spruce": "fichte fichten epicea",
    "pine": "kiefer kiefern pino pinos",
    "palm": "palme palmen palmier palmera",
    "willow": "weide weiden saule",
    "acacia": "akazie akazien",
    "bush": "busch buisson arbusto",
    "trunk": "stamm tronc tronco",
    "crown": "krone baumkrone",
    "leaves": "blatter feuilles hojas",
    "roots": "wurzel wurzeln racines raices",
    "branches": "aste zweige ramas",
    "tall": "hoch hohe hoher hohen grosse grosser grosses grand grande alto",
    "small": "klein kleine kleiner kleines petit petite pequeno",
    "thick": "dick dicke dicker dickem dicken",
    "wide": "breit breite breiter breiten",
    "dead": "toter totes",
    "a": "ein eine einen einem einer un une una",
    "with": "mit avec con",
    "without": "ohne sans",
    "and": "und et",
}  # fmt: skip
_ENGLISH = {
    "oak": "oaks",
    "birch": "birches",
    "spruce": "spruces",
    "pine": "pines",
    "acacia": "acacias",
    "willow": "willows",
    "palm": "palms",
    "bush": "bushes",
    "shrub": "shrubs",
    "tree": "trees",
    "trunk": "trunks",
    "stem": "stems",
    "crown": "crowns",
    "roots": "root",
    "branches": "branch",
    "limbs": "limb",
    "boughs": "bough",
    "tall": "taller tallest",
    "high": "higher highest",
    "big": "bigger biggest",
    "large": "larger largest",
    "short": "shorter shortest",
    "small": "smaller smallest",
    "thin": "thinner thinnest",
    "thick": "thicker thickest",
    "wide": "wider widest",
    "narrow": "narrower narrowest",
    "flat": "flatter flattened",
    "dense": "denser",
    "pointed": "pointy",
    "leaning": "leans lean slanting",
    "dwarf": "dwarfed",
    "branched": "branchy",
    "branchless": "unbranched",
    "dark oak": "darkoak",
    "mid": "middle",
}  # fmt: skip
#: The word that is read for another one: its plain form, or its English one.
ALIASES: dict[str, str] = {
    other: word for table in (_ENGLISH, _FOREIGN) for word, others in table.items() for other in others.split()
}

_ORDINARY = (
    "air alder ancient apple arm ash autumn bail bake bar bark bars based beat bed beech bell best better black "
    "blue boat bold bright broken brown burned burnt bus busy castle cedar cherry code come core cross crossed "
    "crow crowd dark deal done elm evil fact fall fallen falling fantasy far fast feather fell fern fill fine fir "
    "flag flaw float flow flower forest free frozen fruit glowing golden grass green grey hall handing happy "
    "haunted hill hollow house hue landing larch lasting lead leads learn leave leaving legs lemon lend lets "
    "light line loading loss magic magical man mangrove maple may might mild mind mine mint moss move mushroom "
    "must mystic named new old orange pale pane peach pear pie pile pin ping pink pins pint pipe pipes pit plan "
    "plane plans plum pond purple robot rock room rooms rot rotten rounds sad seam seem shading shall shaping "
    "sharing shop shot slip snowy sort spare speaking speeding spending spooky spring stall stalled standing star "
    "starting staying step steps stone studio study summer tail tale talk tea teak team tee tell ten than then "
    "these thing things think three tick tickets tidy till tint tip tone tower trail train trap trick tries true "
    "try twin wall walnut wearing white widen wild wind wing winter wipe wire wise wish yellow yew young "
)
#: Ordinary words that mean themselves, although they are a slip away from a word that is known.
NOT_SLIPS = frozenset(_ORDINARY.split())


def _meanings(rows: tuple[Row, ...]) -> dict[str, dict[Part, Meaning]]:
    """Return what each adjective means for each part, by the word that carries the meaning."""
    found: dict[str, dict[Part, Meaning]] = {}
    for row in rows:
        for word in row.words.split():
            found.setdefault(word.partition("-")[0], {}).update(row.heard | row.said)
    return found


def _sayings(rows: tuple[Row, ...]) -> dict[Meaning, tuple[tuple[Part, str], ...]]:
    """Return, for each meaning, the parts that captions say it of and the words, the plain one first."""
    found: dict[Meaning, tuple[tuple[Part, str], ...]] = {}
    for row in rows:
        for part, meaning in row.said.items():
            found[meaning] = found.get(meaning, ()) + tuple((part, word) for word in row.words.split())
    return {meaning: tuple(sorted(words, key=lambda said: said[1] != meaning[1])) for meaning, words in found.items()}


MEANINGS: dict[str, dict[Part, Meaning]] = _meanings(ROWS)
MEANINGS |= {"lots of": MEANINGS["many"], "plenty of": MEANINGS["many"]}
SAYINGS: dict[Meaning, tuple[tuple[Part, str], ...]] = _sayings(ROWS)
KINDS: dict[str, Kind] = {
    **{word: kind for kind, words in _SMALL_WORDS.items() for word in words.split()},
    **dict.fromkeys(PART_OF, Kind.NOUN),
    **dict.fromkeys(SPECIES_OF, Kind.SPECIES),
    **dict.fromkeys(MEANINGS, Kind.ADJECTIVE),
}

#: What captions call roots that show.
SEEN = ("visible", "exposed")
#: How captions ask for a tree.
ORDERS = ("build", "make", "create", "please build", "i want")
_FRAME = ("a an of with without no and or that whose is", *SEEN, *ORDERS)
#: Every word that a caption can say and that a prompt is read as, in alphabetical order.
VOCABULARY: tuple[str, ...] = tuple(
    sorted(
        {
            token
            for said in (
                *(word for words in SAYINGS.values() for _, word in words),
                *(noun for nouns in NOUNS_SAID.values() for noun in nouns),
                *(name for names in SPECIES_SAID.values() for name in names),
                *_FRAME,
            )
            for token in tokens(said)
        }
    )
)
SAID = frozenset(VOCABULARY)
_SPEAKING = (Kind.ADJECTIVE, Kind.NOUN, Kind.SPECIES)
_PLAIN = {word: word for word, kind in KINDS.items() if kind in _SPEAKING or word in {"with", "without", "having"}} | {
    other: word for word, others in _ENGLISH.items() for other in others.split()
}
#: English words that a misspelt one is compared with, and what each stands for.
SPELT: dict[str, object] = {
    word: PART_OF.get(plain) or SPECIES_OF.get(plain) or str(MEANINGS.get(plain, plain))
    for word, plain in _PLAIN.items()
}
_SPELLER = Speller.of(SPELT)
_FIRST_OF_NAME = frozenset(name.partition(" ")[0] for name in SPECIES_OF if " " in name)


@dataclass(frozen=True)
class Word:
    """A word, name or mark that is known.

    Attributes:
        text: Its plain English form; one of `MARKS` stands for itself.
        kind: What it does in a sentence; None for a mark.
    """

    text: str
    kind: Kind | None


def recognise(found: Sequence[str]) -> tuple[list[Word], dict[str, str], list[str]]:
    """Look words up.

    Args:
        found: Words and marks, as :func:`~vernissage.sculptor.domain.words.pieces` returns them.

    Returns:
        The known words and marks in their order; the misspelt ones among them, with what they are read as; and the
        unknown words, each once.
    """
    known: list[Word] = []
    spelling: dict[str, str] = {}
    unknown: dict[str, None] = {}
    for piece in found:
        word = ALIASES.get(piece, piece)
        if word not in KINDS and word not in MARKS and word not in _FIRST_OF_NAME:
            meant = None if word in NOT_SLIPS else _SPELLER.read(word)
            if meant is None:
                unknown[piece] = None
                continue
            spelling[piece] = meant
            word = ALIASES.get(meant, meant)
        name = f"{known[-1].text} {word}" if known else ""
        if name in KINDS:
            known[-1] = Word(name, KINDS[name])
        else:
            known.append(Word(word, KINDS.get(word)))
    # The first word of a name means nothing alone.
    alone = [word.text for word in known if word.text in _FIRST_OF_NAME and word.kind is None]
    return [word for word in known if word.text not in alone], spelling, [*unknown, *dict.fromkeys(alone)]
