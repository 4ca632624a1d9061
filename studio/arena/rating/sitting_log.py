"""What has happened in a folder so far: its votes, and what else its raters did."""

import functools
from collections import defaultdict
from pathlib import Path
from typing import Any

from studio.arena.rating.ratings import FILE, Vote, check_header, parse_vote
from studio.durable import Follower, json_record
from studio.errors import StudioError

EVENTS = "sittings.jsonl"


class SittingLog:
    """The two files of a folder, read on from where they were; by rater, since each asks for their
    own at every step."""

    def __init__(self, folder: Path, file: str = FILE) -> None:
        self.folder, self.file = folder, file
        self._vote_lines, self._event_lines = Follower(folder / file), Follower(folder / EVENTS)
        self.votes: list[Vote] = []
        self.events: list[dict[str, Any]] = []
        self._votes: defaultdict[str, list[Vote]] = defaultdict(list)
        self._events: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        self._gone: set[str] = set()
        self._broken: StudioError | None = None

    def catch_up(self) -> None:
        """Take in what other raters and processes have appended.

        A line that cannot be read is a StudioError now and at every later call.
        """
        if self._broken:
            raise self._broken
        try:
            self._read_votes()
            self._read_events()
        except StudioError as error:
            self._broken = error
            raise

    def _read_votes(self) -> None:
        number = self._vote_lines.line
        for line in self._vote_lines.new_lines():
            number += 1
            if number == 1:
                check_header(line, self.folder / self.file)
                continue
            vote = parse_vote(line, self.folder / self.file, number)
            self.votes.append(vote)
            self._votes[vote.judge].append(vote)
            self._gone.add(vote.supersedes)

    def _read_events(self) -> None:
        number = self._event_lines.line
        for line in self._event_lines.new_lines():
            number += 1
            event = json_record(line, self.folder / EVENTS, number)
            self.events.append(event)
            self._events[event["rater"]].append(event)
            if event["event"] == "undone":
                self._gone.add(event["vote"])

    @property
    def standing(self) -> list[Vote]:
        """The votes that are neither undone nor superseded, in the order of the file."""
        return [vote for vote in self.votes if vote.vote not in self._gone]

    def votes_of(self, rater: str) -> list[Vote]:
        """A rater's votes that stand."""
        return [vote for vote in self._votes[rater] if vote.vote not in self._gone]

    def events_of(self, rater: str) -> list[dict[str, Any]]:
        """What else a rater did."""
        return self._events[rater]


def log_of(folder: Path) -> SittingLog:
    """The one log of a folder in this process, so that many sittings read each line once. Use it
    under the folder's lock."""
    return _shared(folder.resolve(), folder.stat().st_ino)


@functools.lru_cache(maxsize=32)
def _shared(folder: Path, inode: int) -> SittingLog:
    return SittingLog(folder)
