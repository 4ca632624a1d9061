"""Who rates: a name for the ratings, and a secret code that lets its holder go on elsewhere."""

import hashlib
import secrets
import threading
from collections import deque
from datetime import UTC, datetime, timedelta
from pathlib import Path

from studio.arena.trials.design import check_label
from studio.durable import Follower, append, json_line, json_record, locked, now
from studio.errors import StudioError

FILE = "raters.jsonl"
MOST_AN_HOUR = 200  # new raters: who joins again and again is stopped, a class of students is not
# Letters and digits that cannot be taken for one another.
ALPHABET = "23456789abcdefghjkmnpqrstuvwxyz"


class Raters:
    """All raters of a studio, in one append-only file; of the codes only hashes are stored."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._follower = Follower(folder / FILE)
        self._names: dict[str, str] = {}
        self._joined: deque[str] = deque(maxlen=MOST_AN_HOUR)  # when, the latest last
        self._reading = threading.Lock()

    def join(self, name: object) -> tuple[str, str]:
        """A new rater: their name, one made up if it is empty, and their code.

        Raises StudioError for a name that is taken or cannot stand in a spreadsheet, and when more
        than MOST_AN_HOUR would join within an hour.
        """
        if not isinstance(name, str):
            raise StudioError("a rater's name is text; leave it empty to stay anonymous")
        name = name.strip()
        if name and (problems := check_label(name, "a rater's name")):
            raise StudioError(problems[0])
        self._folder.mkdir(parents=True, exist_ok=True)
        with locked(self._folder):
            self._catch_up()
            self._require_room()
            taken = {known.casefold() for known in self._names.values()}
            if name.casefold() in taken:
                raise StudioError(
                    f'"{name}" rates here already: enter the code that was shown then, or choose '
                    "another name"
                )
            name = name or f"rater-{secrets.token_hex(4)}"
            letters = "".join(secrets.choice(ALPHABET) for _ in range(16))
            code = "-".join(letters[n : n + 4] for n in range(0, 16, 4))
            record = {"when": now(), "rater": name, "code_hash": _hash(code)}
            append(self._folder / FILE, [json_line(record)])
        return name, code

    def who(self, code: object) -> str:
        """The name of the rater with this code; raises StudioError if there is none."""
        if not isinstance(code, str) or len(code) > 100:
            raise StudioError("a rater's code is text such as k7qd-…")
        if (hashed := _hash(code)) not in self._names:
            self._catch_up()
        if hashed not in self._names:
            raise StudioError("this code is not known here; check it, or begin as a new rater")
        return self._names[hashed]

    def _require_room(self) -> None:
        hour_ago = datetime.now(UTC) - timedelta(hours=1)
        is_full = len(self._joined) == MOST_AN_HOUR
        if is_full and datetime.fromisoformat(self._joined[0]) > hour_ago:
            raise StudioError(
                f"{MOST_AN_HOUR} raters have joined within an hour, which is the most; try again "
                "later, or go on with a code you have"
            )

    def _catch_up(self) -> None:
        with self._reading:
            first = self._follower.line + 1
            for number, line in enumerate(self._follower.new_lines(), start=first):
                record = json_record(line, self._folder / FILE, number)
                self._names[str(record["code_hash"])] = str(record["rater"])
                self._joined.append(str(record["when"]))


def _hash(code: str) -> str:
    plain = "".join(letter for letter in code.lower() if letter in ALPHABET)
    return hashlib.sha256(plain.encode()).hexdigest()
