"""Character cards, versions 1 to 3, as JSON or inside a PNG: who a model is to play.

A PNG carries the card as base64 of JSON in a text chunk named "chara" (version 2 and before) or
"ccv3" (version 3, which wins where both are there).
"""

import base64
import binascii
import json
import re
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from studio.arena.prompts.prompt import Prompt, prompt_from_data
from studio.errors import StudioError

LARGEST_CARD = 20_000_000
LARGEST_TEXT = 4_000_000
SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TEXTS = (
    "name", "description", "personality", "scenario", "first_mes", "mes_example", "system_prompt",
    "post_history_instructions",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Card:
    """A character: `system` is all that a model is told of it, with {{char}} and {{user}} in it.

    `greeting` is its first message, empty if there is none. `notes` say what the card holds that
    is not used.
    """

    name: str
    system: str
    greeting: str
    tags: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def stem(self) -> str:
        """The name in small letters, digits and dashes."""
        return re.sub(r"[^A-Za-z0-9]+", "-", self.name).strip("-").lower()[:60] or "card"

    def prompts(
        self, requests: Sequence[str], user: str = "User", stem: str | None = None
    ) -> list[Prompt]:
        """One prompt for each request: the card as system message, its greeting, the request.

        The prompts' ids begin with `stem`; None for the card's own.
        """
        greeting = [{"role": "assistant", "content": self.greeting}] if self.greeting else []
        return [
            prompt_from_data(
                {
                    "id": f"{stem or self.stem}-{number}",
                    "category": "role-play",
                    "tags": ["card", *self.tags],
                    "char": self.name,
                    "user": user,
                    **({"system": self.system} if self.system else {}),
                    "messages": [*greeting, {"role": "user", "content": request}],
                },
                f"the card {self.name}",
            )
            for number, request in enumerate(requests, start=1)
        ]


def read_card(data: bytes, origin: str) -> Card:
    """The card in a file's bytes; `origin` names it in errors.

    Raises StudioError if there is none, or if it is not whole.
    """
    if len(data) > LARGEST_CARD:
        raise StudioError(f"{origin}: larger than {LARGEST_CARD:,} bytes; a card is smaller")
    text = _from_png(data, origin) if data.startswith(SIGNATURE) else data
    try:
        card = json.loads(text.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise StudioError(
            f"{origin}: neither a PNG nor a card in JSON ({str(error)[:80]}); export it again"
        ) from error
    return _card(card, origin)


def _card(card: Any, origin: str) -> Card:
    if not isinstance(card, dict):
        raise StudioError(f"{origin}: a card is a JSON object; export it again")
    spec = card.get("spec", "version 1")
    if spec not in ("version 1", "chara_card_v2", "chara_card_v3"):
        raise StudioError(f'{origin}: "{str(spec)[:40]}" is no card of version 1, 2 or 3')
    fields = card if spec == "version 1" else card.get("data")
    if not isinstance(fields, dict):
        raise StudioError(f"{origin}: the card has no data; export it again")
    texts = {key: _text(fields, key, origin) for key in _TEXTS}
    if not texts["name"]:
        raise StudioError(f"{origin}: the card has no name; give it one")
    tags = fields.get("tags") or []
    if not isinstance(tags, list):
        raise StudioError(f"{origin}: tags is not a list")
    unused = (
        ("character_book", "its lorebook"),
        ("alternate_greetings", "its other greetings"),
        ("group_only_greetings", "its greetings for groups"),
        ("assets", "its pictures and sounds"),
    )
    return Card(
        name=texts["name"],
        system=_system(texts),
        greeting=texts["first_mes"],
        tags=tuple(str(tag).strip() for tag in tags if str(tag).strip()),
        notes=tuple(f"not used: {what}" for key, what in unused if fields.get(key)),
    )


def _text(fields: Mapping[str, Any], key: str, origin: str) -> str:
    value = fields.get(key, "")
    if not isinstance(value, str):
        raise StudioError(f"{origin}: {key} is not text; export the card again")
    value = re.sub(r"\{\{//[^{}]*\}\}|\{\{comment:[^{}]*\}\}", "", value, flags=re.IGNORECASE)
    value = re.sub("<USER>", "{{user}}", value, flags=re.IGNORECASE)
    value = re.sub("<(?:BOT|CHAR)>", "{{char}}", value, flags=re.IGNORECASE)
    # {{original}} stands for the instructions of the program that reads the card: here none.
    return re.sub(r"\{\{original\}\}", "", value, flags=re.IGNORECASE).strip()


def _system(texts: Mapping[str, str]) -> str:
    parts = [texts["system_prompt"], texts["description"]]
    for key, title in (
        ("personality", "Personality"),
        ("scenario", "Scenario"),
        ("mes_example", "How {{char}} speaks"),
    ):
        if texts[key]:
            parts.append(f"{title}: {texts[key]}")
    parts.append(texts["post_history_instructions"])
    return "\n\n".join(part for part in parts if part)


def _from_png(data: bytes, origin: str) -> bytes:
    found = dict(_text_chunks(data, origin))
    encoded = found.get("ccv3", found.get("chara"))
    if encoded is None:
        raise StudioError(
            f"{origin}: the picture holds no character card; pictures that went through a chat or "
            "a converter lose it"
        )
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise StudioError(f"{origin}: its card is not base64; export it again") from error


def _text_chunks(data: bytes, origin: str) -> Iterator[tuple[str, bytes]]:
    """The keyword and text of each tEXt, zTXt and iTXt chunk."""
    at = len(SIGNATURE)
    while at < len(data):
        head, body = data[at : at + 8], b""
        if len(head) == 8:
            length, kind = struct.unpack(">I4s", head)
            body = data[at + 8 : at + 8 + length]
            check = data[at + 8 + length : at + 12 + length]
        if (
            len(head) < 8
            or len(body) < length
            or check != struct.pack(">I", zlib.crc32(kind + body))
        ):
            raise StudioError(f"{origin}: the PNG is damaged at byte {at:,}; download it again")
        at += 12 + length
        keyword, _, rest = body.partition(b"\0")
        if kind == b"tEXt":
            yield keyword.decode("latin-1").lower(), rest
        elif kind == b"zTXt":
            yield keyword.decode("latin-1").lower(), _inflated(rest[1:], origin)
        elif kind == b"iTXt":
            text = rest[2:].split(b"\0", 2)[-1]
            is_packed = rest[:1] == b"\1"
            yield keyword.decode("latin-1").lower(), _inflated(text, origin) if is_packed else text


def _inflated(data: bytes, origin: str) -> bytes:
    unpack = zlib.decompressobj()
    try:
        text = unpack.decompress(data, LARGEST_TEXT)
    except zlib.error as error:
        raise StudioError(f"{origin}: a text in the PNG is damaged; download it again") from error
    if unpack.unconsumed_tail:
        raise StudioError(f"{origin}: a text in the PNG is larger than {LARGEST_TEXT:,} bytes")
    return text
