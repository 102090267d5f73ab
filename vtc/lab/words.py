"""The miniature world's vocabulary: every word is one token, and its position here is its id."""

from dataclasses import dataclass

COLOURS = (
    "red", "green", "blue", "yellow", "orange", "purple", "brown",
    "black", "cyan", "pink", "olive", "gray",
)  # fmt: skip
SHAPES = (
    "square", "disc", "cross", "plus", "ring", "diamond", "peak",
    "bowl", "bar", "pillar", "frame", "step",
)  # fmt: skip
ROLES = (
    "maker", "owner", "finder", "seller", "buyer", "keeper", "painter", "carver",
    "lender", "mender", "bearer", "giver", "taker", "washer", "mover", "hider",
    "tester", "namer", "judge", "guard", "donor", "agent", "heir", "guest",
    "host", "rival", "patron", "pupil", "master", "friend", "witness", "author",
    "baker", "binder", "broker", "builder", "butler", "cleaner", "climber", "collector",
    "copier", "courier", "critic", "curator", "cutter", "dealer", "debtor", "defender",
    "designer", "diver", "dreamer", "driver", "editor", "engraver", "expert", "farmer",
    "filler", "founder", "framer", "gilder", "glazier", "grinder", "grower", "hauler",
    "holder", "hunter", "importer", "lacquerer", "leaser", "lifter", "loader", "locksmith",
    "miller", "miner", "modeller", "notary", "opener", "packer", "pawner", "planner",
    "polisher", "porter", "potter", "presser", "printer", "ranger", "reader", "renter",
    "restorer", "rider", "sailor", "sender", "sewer", "shaper", "signer", "sorter",
)  # fmt: skip
PEOPLE = (
    "anna", "bruno", "clara", "david", "elena", "felix", "greta", "hugo",
    "irene", "jonas", "karla", "louis", "maria", "nils", "olga", "pablo",
    "quinn", "rosa", "simon", "tara", "ulric", "vera", "walter", "xenia",
)  # fmt: skip
CHARACTERS = list("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")

PAD, END, ANSWER, IMAGE = "<pad>", "<eos>", "<answer>", "<image>"
SIDE = 12
"""Cells along each side of the grid: one cell is one patch of the encoder."""


@dataclass(frozen=True)
class Span:
    """A run of consecutive word ids: [start, start + size)."""

    start: int
    size: int


_GROUPS = {
    "special": [PAD, END, ANSWER, IMAGE],
    "glue": ["of", "letter", "in"],
    "cell": [f"{row}{column + 1}" for row in "abcdefghijkl" for column in range(SIDE)],
    "shape": [*SHAPES],
    "colour": [*COLOURS],
    # An object's kind is a word of its own, so that seeing it needs no binding of two words.
    "kind": [f"{colour}-{shape}" for shape in SHAPES for colour in COLOURS],
    "role": ["colour", *ROLES],
    "person": [*PEOPLE],
    "character": CHARACTERS,
}

WORDS: tuple[str, ...] = tuple(word for group in _GROUPS.values() for word in group)
ID: dict[str, int] = {word: position for position, word in enumerate(WORDS)}


def span(group: str) -> Span:
    """The ids of a group of words (cell, shape, colour, kind, role, person, character)."""
    return Span(ID[_GROUPS[group][0]], len(_GROUPS[group]))
