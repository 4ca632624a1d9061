"""What has happened in a folder so far: its votes, and what else its raters did."""

from pathlib import Path
from typing import Any

from studio.arena.ratings import FILE, Vote, check_header, parse_vote, standing
from studio.durable import Follower, json_record

EVENTS = "sittings.jsonl"


class SittingLog:
    """The two files of a folder, read on from where they were."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._votes, self._events = Follower(folder / FILE), Follower(folder / EVENTS)
        self.votes: list[Vote] = []
        self.events: list[dict[str, Any]] = []

    def catch_up(self) -> None:
        """Take in what other raters and processes have appended."""
        number = self._votes.line
        for line in self._votes.new_lines():
            number += 1
            if number == 1:
                check_header(line, self.folder / FILE)
            else:
                self.votes.append(parse_vote(line, self.folder / FILE, number))
        number = self._events.line
        for line in self._events.new_lines():
            number += 1
            self.events.append(json_record(line, self.folder / EVENTS, number))

    @property
    def standing(self) -> list[Vote]:
        """The votes that are neither undone nor superseded."""
        return standing(self.votes, {e["vote"] for e in self.events if e["event"] == "undone"})
