"""Trial packs: a trial to be rated elsewhere, without weights and without names.

What "sealed" means here. A rater holds the pack, so nothing in it is kept secret by a password or
by obscurity: it simply is not there. The pack has texts, item ids and the order in which to show
them. Which model wrote what, which comparison an item belongs to and the seed of the sides stay
with whoever made the pack (key.json, answers.jsonl), and the ids are keyed hashes that cannot be
computed without that seed. What remains is the texts themselves: whoever knows a model's style may
recognise it, with or without a pack; that is what "I recognised a model" is for.

A pack is a zip archive of pack.json, cards.jsonl and prompts.jsonl. Its ratings come home with
`collect`, which checks each row and fills in the names.
"""

import dataclasses
import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from studio.arena.rating.counted import check_vote
from studio.arena.rating.ratings import HEADER, Vote, append_votes, vote_line
from studio.arena.rating.sheet import (
    PACK,
    PACK_CARDS,
    PACK_PROMPTS,
    behind,
    open_sheet,
    sheet_as_pack,
    sheet_of,
)
from studio.arena.rating.sitting_log import SittingLog
from studio.arena.trials.trial import Trial
from studio.durable import locked, sync_folder, write_whole
from studio.errors import StudioError

LARGEST = 512 << 20  # bytes of a pack, unpacked
FILES = (PACK_CARDS, PACK_PROMPTS, PACK)  # written in this order: the last says that all is there
HIDDEN = ("models", "primary", "compare", "name", "seed")


def pack_files(trial: Trial, rater: int = 1) -> dict[str, str]:
    """The files of a pack for the `rater`-th of the trial's raters, from 1."""
    if not 1 <= rater <= trial.design.raters:
        raise StudioError(
            f"rater {rater}: the trial is planned for {trial.design.raters}; use 1 to that"
        )
    files = sheet_as_pack(dataclasses.replace(sheet_of(trial), first_slot=rater - 1))
    design = {k: v for k, v in trial.design.as_data().items() if k not in HIDDEN}
    about = json.loads(files[PACK]) | {"design": design}
    return files | {PACK: json.dumps(about, indent=1) + "\n"}


def write_pack(trial: Trial, out: Path, rater: int = 1) -> None:
    """Write a pack; the file is there whole or not at all."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in pack_files(trial, rater).items():
            archive.writestr(name, text)
    write_whole(out, data.getvalue())


def open_pack(pack: Path, trials: Path) -> Path:
    """Put a pack (its file, or an unpacked folder) into `trials`, under the trial's hash.

    Returns the folder; a pack that is there already is left as it is, with its ratings. Raises
    StudioError for anything but a pack.
    """
    texts = _texts_of_folder(pack) if pack.is_dir() else _texts_of_archive(pack)
    try:
        name = str(json.loads(texts[PACK])["hash"])[:16]
    except (ValueError, KeyError, TypeError) as error:
        raise StudioError(f"{pack}: is not a trial pack, or is damaged") from error
    if not name.isalnum() or not name.isascii():
        raise StudioError(f"{pack}: is not a trial pack")
    folder = trials / f"pack-{name}"
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        if not (folder / PACK).exists():
            for file in FILES:
                write_whole(folder / file, texts[file])
    sync_folder(trials)
    open_sheet(folder)
    return folder


def _texts_of_archive(path: Path) -> dict[str, str]:
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {info.filename: info.file_size for info in archive.infolist()}
            if sizes.keys() != set(FILES) or sum(sizes.values()) > LARGEST:
                raise StudioError(f"{path}: is not a trial pack")
            return {name: archive.read(name).decode() for name in FILES}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise StudioError(f"{path}: is not a trial pack, or is damaged ({error})") from error


def _texts_of_folder(folder: Path) -> dict[str, str]:
    try:
        return {name: (folder / name).read_text(encoding="utf-8") for name in FILES}
    except (OSError, ValueError) as error:
        raise StudioError(f"{folder}: is not a trial pack ({error})") from error


def pack_votes(folder: Path) -> str:
    """The votes of a pack's folder that stand, as a ratings.csv to be sent home."""
    return "\n".join([HEADER, *map(vote_line, _standing(folder)), ""])


@dataclass(frozen=True, slots=True)
class Collected:
    """What `collect` did: votes taken over, votes that were there already, and votes refused
    because the same rater had judged the item here."""

    taken: int
    known: int
    refused: int


def collect(trial: Trial, folders: Sequence[Path]) -> Collected:
    """Take over the votes that stand in packs' folders (or beside ratings.csv files).

    Every row is checked against the trial first: one that does not belong to it is a StudioError
    and nothing is taken.
    """
    answers = trial.answers()
    incoming: list[Vote] = []
    for folder in folders:
        for vote in _standing(folder):
            item = check_vote(trial, vote, answers)
            incoming.append(dataclasses.replace(vote, **behind(item, answers)))  # type: ignore[arg-type]
    with locked(trial.folder):
        log = SittingLog(trial.folder)
        log.catch_up()
        known = {vote.vote for vote in log.votes}
        taken = {(vote.judge, vote.item) for vote in log.standing}
        fresh: list[Vote] = []
        refused = 0
        for vote in incoming:
            if vote.vote in known:
                continue
            if (vote.judge, vote.item) in taken:
                refused += 1
                continue
            taken.add((vote.judge, vote.item))
            known.add(vote.vote)
            fresh.append(vote)
        if fresh:
            append_votes(trial.folder, fresh)
    return Collected(len(fresh), len(incoming) - len(fresh) - refused, refused)


def _standing(place: Path) -> list[Vote]:
    """The votes that stand in a folder, or in a ratings.csv, whatever it is called."""
    if place.is_dir():
        log = SittingLog(place)
    else:
        log = SittingLog(place.parent, place.name)
    if not (log.folder / log.file).exists():
        raise StudioError(f"{place}: there are no ratings; name a rated pack, or its ratings.csv")
    log.catch_up()
    return log.standing
