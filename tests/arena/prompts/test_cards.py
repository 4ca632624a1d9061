"""Character cards from JSON and PNG, and what is refused."""

import base64
import json
import struct
import zlib
from typing import Any

import pytest

from studio.arena.prompts.cards import SIGNATURE, read_card
from studio.arena.prompts.prompt import Message
from studio.errors import StudioError

FIELDS = {
    "name": "Mira",
    "description": "{{char}} keeps a lighthouse. {{// made in spring}}<USER> visits her.",
    "personality": "dry, kind",
    "scenario": "",
    "first_mes": "*Mira looks up.* You are late, {{user}}.",
    "mes_example": "",
    "system_prompt": "{{original}}Stay in character.",
    "post_history_instructions": "Never speak for {{user}}.",
    "tags": ["sea"],
    "alternate_greetings": ["Oh."],
    "extensions": {"depth": 4},
}
V2 = {"spec": "chara_card_v2", "spec_version": "2.0", "data": FIELDS}
SYSTEM = (
    "Stay in character.\n\n{{char}} keeps a lighthouse. {{user}} visits her.\n\n"
    "Personality: dry, kind\n\nNever speak for {{user}}."
)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def encoded(card: Any) -> bytes:
    return base64.b64encode(json.dumps(card).encode())


def png(*chunks: bytes) -> bytes:
    return SIGNATURE + chunk(b"IHDR", b"\0" * 13) + b"".join(chunks) + chunk(b"IEND", b"")


V3 = {"spec": "chara_card_v3", "spec_version": "3.0", "data": {**FIELDS, "name": "Mira III"}}
TEXT = chunk(b"tEXt", b"chara\0" + encoded(V2))
PACKED = chunk(b"zTXt", b"chara\0\0" + zlib.compress(encoded(V2)))
INTERNATIONAL = chunk(b"iTXt", b"ccv3\0\0\0en\0\0" + encoded(V3))
INTERNATIONAL_PACKED = chunk(b"iTXt", b"ccv3\0\1\0\0\0" + zlib.compress(encoded(V3)))


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (json.dumps(V2).encode(), "Mira"),
        (json.dumps(FIELDS).encode(), "Mira"),
        (json.dumps(V3).encode(), "Mira III"),
        (png(TEXT), "Mira"),
        (png(PACKED), "Mira"),
        (png(TEXT, INTERNATIONAL), "Mira III"),
        (png(INTERNATIONAL_PACKED, TEXT), "Mira III"),
    ],
)
def test_read_card_knows_all_versions_and_wrappings(data: bytes, name: str) -> None:
    card = read_card(data, "card.png")
    assert (card.name, card.system, card.tags) == (name, SYSTEM, ("sea",))
    assert card.notes == ("not used: its other greetings",)


def test_card_makes_a_prompt_for_each_request() -> None:
    first, second = read_card(json.dumps(V2).encode(), "x").prompts(["Sorry.", "Am I?"], "Tom")
    assert (first.id, second.id, first.category) == ("mira-1", "mira-2", "role-play")
    assert first.messages == (
        Message("assistant", "*Mira looks up.* You are late, Tom."),
        Message("user", "Sorry."),
    )
    assert first.system.startswith("Stay in character.\n\nMira keeps a lighthouse. Tom visits")
    assert (first.char, first.user, first.tags) == ("Mira", "Tom", ("card", "sea"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"hello", "neither a PNG nor a card in JSON"),
        (b"[]", "a card is a JSON object"),
        (b'{"spec": "lorebook_v3"}', '"lorebook_v3" is no card of version 1, 2 or 3'),
        (b'{"spec": "chara_card_v2"}', "the card has no data"),
        (b'{"description": "x"}', "the card has no name"),
        (b'{"name": "x", "scenario": 3}', "scenario is not text"),
        (b'{"name": "x", "tags": "y"}', "tags is not a list"),
        (png(), "the picture holds no character card"),
        (png(chunk(b"tEXt", b"chara\0!")), "its card is not base64"),
        (png(TEXT)[:-20], "the PNG is damaged at byte"),
        (png(TEXT).replace(b"chara", b"chare"), "the PNG is damaged at byte 33"),
        (png(chunk(b"zTXt", b"chara\0\0nonsense")), "a text in the PNG is damaged"),
        (png(chunk(b"zTXt", b"chara\0\0" + zlib.compress(b"0" * 5_000_000))), "larger than"),
    ],
)
def test_read_card_refuses(data: bytes, message: str) -> None:
    with pytest.raises(StudioError, match=message):
        read_card(data, "card.png")


def test_card_with_an_unknown_macro_is_refused_when_used() -> None:
    card = read_card(b'{"name": "x", "description": "{{roll:6}}"}', "x")
    with pytest.raises(StudioError, match=r"the card x, line 1: system: \{\{roll:6\}\}"):
        card.prompts(["Hi"])
