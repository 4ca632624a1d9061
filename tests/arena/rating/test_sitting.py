"""A rater at work: what is shown, what is stored, what is refused."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from studio.arena.rating.ratings import FILE, HEADER, Remarks, Verdict, Vote
from studio.arena.rating.sheet import open_sheet
from studio.arena.rating.sitting import Sitting
from studio.arena.rating.sitting_log import SittingLog
from studio.arena.trials.answers import Generated
from studio.arena.trials.generate import Ask
from studio.errors import StudioError
from tests.arena.sample_trials import MERGED, RIVAL, Parrot, made, rate_all


def votes(folder: Path) -> list[Vote]:
    log = SittingLog(folder)
    log.catch_up()
    return log.votes


def standing(folder: Path) -> list[Vote]:
    log = SittingLog(folder)
    log.catch_up()
    return log.standing


def test_a_sitting_goes_through_every_item_once(tmp_path: Path) -> None:
    trial = made(tmp_path, 12)
    sitting = Sitting(tmp_path, "Ann")
    numbers = []
    while (item := sitting.next()) is not None:
        numbers.append((item.number, item.total))
        sitting.vote(
            item.item_id, "a", Remarks(recognised=item.number == 3, comment=f"c{item.number}")
        )
    total = len(trial.schedule[0])
    assert numbers == [(number, total) for number in range(1, total + 1)]
    found = votes(tmp_path)
    assert [vote.item for vote in found] == [item.id for item in trial.schedule[0]]
    for vote in found:
        item = trial.items[vote.item]
        assert (vote.model_a, vote.model_b) == (item.left.model, item.right.model)
        assert (vote.winner, vote.judge, vote.kind) == (Verdict.MODEL_A, "Ann", item.kind)
        assert (vote.prompt, vote.category) == (item.prompt, item.category)
        assert (vote.draw_a, vote.draw_b) == (str(item.left.draw), str(item.right.draw))
        assert vote.answer_a == trial.answers()[item.left].hash
        assert (vote.trial, vote.design_hash) == ("trial", trial.hash)
        assert (vote.fingerprint_a, vote.quantisation_b) == (f"print-{vote.model_a}", "fp8")
        assert (vote.recipe_a, vote.recipe_b) == (f"mix-{vote.model_a}", f"mix-{vote.model_b}")
        assert vote.format_a == "chatml" and '"temperature": 1.0' in vote.sampling
        assert 0 <= vote.seconds < 60 and vote.turn == 1 and vote.language == "en"
    assert [vote.comment for vote in found] == [f"c{n}" for n in range(1, total + 1)]
    assert [vote.recognised for vote in found] == [n == 3 for n in range(1, total + 1)]


@pytest.mark.parametrize(
    ("sent", "stored"),
    [("a", "model_a"), ("b", "model_b"), ("tie", "tie"), ("both_bad", "tie (bothbad)")],
)
def test_verdicts_are_stored_in_the_words_of_the_field(
    tmp_path: Path, sent: str, stored: str
) -> None:
    made(tmp_path)
    sitting = Sitting(tmp_path, "Ann")
    item = sitting.next()
    assert item is not None
    sitting.vote(item.item_id, sent)
    lines = (tmp_path / FILE).read_text().splitlines()
    assert lines[0] == HEADER and lines[1].split(",")[2] == stored
    assert HEADER.startswith("model_a,model_b,winner,judge,tstamp,turn,language,anony,")


def test_stop_strings_of_one_answer_are_not_told_of_both(tmp_path: Path) -> None:
    class Stopped(Parrot):
        def answer(self, ask: Ask) -> Generated:
            return replace(super().answer(ask), sent={"stop": [self.label], "top_k": 5})

    made(tmp_path, 2, open_model=lambda model: nullcontext(Stopped(model.label)))
    rate_all(Sitting(tmp_path, "Ann"), lambda item: "a")
    for vote in votes(tmp_path):
        assert json.loads(vote.sampling) == {"temperature": 1.0, "max_tokens": 64, "top_k": 5}


def test_asking_again_shows_the_same_item_and_a_second_sitting_goes_on(tmp_path: Path) -> None:
    made(tmp_path, 8)
    sitting = Sitting(tmp_path, "Ann")
    first = sitting.next()
    assert first is not None and sitting.next() == first == Sitting(tmp_path, "Ann").next()
    sitting.vote(first.item_id, "tie")
    later = Sitting(tmp_path, "Ann").next()
    assert later is not None and later.number == 2 and later.item_id != first.item_id
    assert Sitting(tmp_path, "Ann").progress() == (1, later.total)


def test_forged_and_replayed_votes_are_refused(tmp_path: Path) -> None:
    trial = made(tmp_path, 8)
    sitting = Sitting(tmp_path, "Ann")
    item = sitting.next()
    assert item is not None
    coming = next(i.id for i in trial.schedule[0] if i.id != item.item_id)
    with pytest.raises(StudioError, match="not the one shown last"):
        sitting.vote(coming, "a")
    with pytest.raises(StudioError, match="not yours"):
        sitting.vote("0123456789abcdef", "a")
    with pytest.raises(StudioError, match='"model_a" is no verdict; use one of a, b, tie'):
        sitting.vote(item.item_id, "model_a")
    with pytest.raises(StudioError, match="at most 2000 characters"):
        sitting.vote(item.item_id, "a", Remarks(comment="x" * 2001))
    sitting.vote(item.item_id, "a")
    for again in (sitting, Sitting(tmp_path, "Ann")):
        with pytest.raises(StudioError, match="a vote on this item already"):
            again.vote(item.item_id, "b")
    assert [vote.winner for vote in votes(tmp_path)] == [Verdict.MODEL_A]
    with pytest.raises(StudioError, match="cannot be a rater's name"):
        Sitting(tmp_path, "=HYPERLINK()")


def test_undo_brings_the_item_back_and_keeps_the_old_row(tmp_path: Path) -> None:
    made(tmp_path, 8)
    sitting = Sitting(tmp_path, "Ann")
    with pytest.raises(StudioError, match="no vote to undo"):
        sitting.undo()
    seen = []
    for verdict in ("a", "b"):
        item = sitting.next()
        assert item is not None
        seen.append(item.item_id)
        sitting.vote(item.item_id, verdict)
    third = sitting.next()
    assert sitting.undo() == seen[1] and sitting.undo() == seen[0]
    back = Sitting(tmp_path, "Ann").next()
    assert back is not None and (back.item_id, back.number) == (seen[0], 1)
    sitting.next()
    sitting.vote(seen[0], "tie")
    again = sitting.next()
    assert again is not None and again.item_id == seen[1]
    sitting.vote(seen[1], "both_bad")
    assert sitting.next() == third
    rows = votes(tmp_path)
    assert [vote.winner.value for vote in rows] == ["model_a", "model_b", "tie", "tie (bothbad)"]
    assert [vote.supersedes for vote in rows] == ["", "", rows[0].vote, rows[1].vote]
    assert standing(tmp_path) == rows[2:]


def test_skipped_items_come_again_at_the_end_and_then_no_more(tmp_path: Path) -> None:
    trial = made(tmp_path, 6)
    sitting = Sitting(tmp_path, "Ann")
    first = sitting.next()
    assert first is not None
    sitting.skip(first.item_id)
    with pytest.raises(StudioError, match="there is a vote|not the one shown last"):
        other = sitting.next()
        assert other is not None and other.item_id != first.item_id
        sitting.vote(first.item_id, "a")
    seen = []
    while (item := sitting.next()) is not None and item.item_id != first.item_id:
        seen.append(item.item_id)
        sitting.vote(item.item_id, "a")
    assert item is not None and len(seen) == len(trial.schedule[0]) - 1
    sitting.skip(first.item_id)
    assert sitting.next() is None and len(votes(tmp_path)) == len(seen)


def test_reveal_waits_for_the_end_and_then_makes_votes_final(tmp_path: Path) -> None:
    made(tmp_path, 6)
    sitting = Sitting(tmp_path, "Ann")
    first = sitting.next()
    assert first is not None
    with pytest.raises(StudioError, match="after the vote"):
        sitting.reveal(first.item_id)
    sitting.vote(first.item_id, "a")
    with pytest.raises(StudioError, match="when everything is rated"):
        sitting.reveal(first.item_id)
    rate_all(sitting, lambda item: "b")
    shown = sitting.reveal(first.item_id)
    vote = votes(tmp_path)[0]
    assert (shown.model_a, shown.model_b) == (vote.model_a, vote.model_b)
    assert {shown.model_a, shown.model_b} == {MERGED, RIVAL}
    with pytest.raises(StudioError, match="can no longer be undone"):
        sitting.undo()


def test_reveal_after_each_vote_fixes_that_vote(tmp_path: Path) -> None:
    made(tmp_path, 6, reveal="each")
    sitting = Sitting(tmp_path, "Ann")
    first = sitting.next()
    assert first is not None
    sitting.vote(first.item_id, "a")
    sitting.reveal(first.item_id)
    with pytest.raises(StudioError, match="can no longer be undone"):
        sitting.undo()
    second = sitting.next()
    assert second is not None
    sitting.vote(second.item_id, "b")
    assert sitting.undo() == second.item_id


def test_scores_are_checked_and_stored(tmp_path: Path) -> None:
    made(tmp_path, 6, scores=("style",))
    sitting = Sitting(tmp_path, "Ann")
    item = sitting.next()
    assert item is not None and item.scores == ("style",)
    with pytest.raises(StudioError, match='"wit_a" is not scored here'):
        sitting.vote(item.item_id, "a", Remarks(scores={"wit_a": 3}))
    with pytest.raises(StudioError, match="style_a is 6; use a whole number from 1 to 5"):
        sitting.vote(item.item_id, "a", Remarks(scores={"style_a": 6}))
    sitting.vote(item.item_id, "a", Remarks(scores={"style_a": 5, "style_b": 1}))
    assert votes(tmp_path)[0].scores == '{"style_a": 5, "style_b": 1}'


def test_raters_get_slots_in_turn(tmp_path: Path) -> None:
    trial = made(tmp_path, 8, raters=2, votes_per_prompt=1)
    firsts = [Sitting(tmp_path, name).next() for name in ("Ann", "Bob", "Cid", "Bob")]
    assert [item and item.item_id for item in firsts] == [
        trial.schedule[slot][0].id for slot in (0, 1, 0, 1)
    ]


def test_nothing_is_shown_before_all_answers_are_there(tmp_path: Path) -> None:
    from studio.arena.trials.trial import fix
    from tests.arena.sample_trials import design, prompts

    fix(tmp_path, design(), prompts(6))
    with pytest.raises(StudioError, match="lacks 36 of 36 answers"):
        Sitting(tmp_path, "Ann")


def test_what_is_shown_does_not_depend_on_which_model_is_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Texts and sides fixed, the models behind them swapped: every word shown is the same."""
    made(tmp_path, 12)
    sheet = open_sheet(tmp_path)
    other = {"a": "b", "b": "a"}
    swapped = {
        item: {name[:-1] + other.get(name[-1], name[-1]): value for name, value in columns.items()}
        for item, columns in sheet.behind.items()
    }
    shown: list[list[object]] = []
    for rater, behind in (("Ann", sheet.behind), ("Bob", swapped)):
        changed = replace(sheet, behind=behind)
        monkeypatch.setattr("studio.arena.rating.sitting.open_sheet", lambda folder, s=changed: s)
        sitting = Sitting(tmp_path, rater)
        told: list[object] = []
        while (item := sitting.next()) is not None:
            told.append(item)
            for wrong in (lambda s: s.vote("x", "a"), lambda s: s.reveal(item.item_id)):
                with pytest.raises(StudioError) as error:
                    wrong(sitting)
                told.append(str(error.value))
            sitting.vote(item.item_id, "tie")
        shown.append(told)
    assert shown[0] == shown[1] and len(shown[0]) == 3 * 14
    rows = [vote for vote in votes(tmp_path) if vote.kind != "identical"]
    ann, bob = ([vote.model_a for vote in rows if vote.judge == who] for who in ("Ann", "Bob"))
    assert len(ann) == 13 and all(one != two for one, two in zip(ann, bob, strict=True))


def rate_in_a_process(folder: Path, rater: str, count: int) -> None:
    sitting = Sitting(folder, rater)
    for _ in range(count):
        item = sitting.next()
        assert item is not None
        sitting.vote(item.item_id, "a", Remarks(comment='line\nbreak, "quote" =1+1'))


def test_many_raters_and_processes_lose_and_double_nothing(tmp_path: Path) -> None:
    made(tmp_path, 30, raters=1)
    context = multiprocessing.get_context("spawn")
    pool = [
        context.Process(target=rate_in_a_process, args=(tmp_path, f"rater {n}", 20))
        for n in range(4)
    ]
    threads = [
        threading.Thread(target=rate_in_a_process, args=(tmp_path, f"thread {n}", 20))
        for n in range(4)
    ]
    for worker in (*pool, *threads):
        worker.start()
    for worker in (*pool, *threads):
        worker.join()
    assert [process.exitcode for process in pool] == [0] * 4
    found = votes(tmp_path)
    assert len(found) == 160 == len({(vote.judge, vote.item) for vote in found})
    assert {vote.comment for vote in found} == {'line\nbreak, "quote" =1+1'}


def test_one_rater_in_two_places_stores_one_vote_an_item(tmp_path: Path) -> None:
    made(tmp_path, 20)
    refused: list[str] = []

    def both_click(sitting: Sitting) -> None:
        while (item := sitting.next()) is not None:
            try:
                sitting.vote(item.item_id, "a")
            except StudioError as error:
                refused.append(str(error))

    threads = [
        threading.Thread(target=both_click, args=(Sitting(tmp_path, "Ann"),)) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = votes(tmp_path)
    assert len(found) == len({vote.item for vote in found}) == 22


KILLED = """
import sys
from pathlib import Path
from studio.arena.rating.ratings import Remarks
from studio.arena.rating.sitting import Sitting
sitting = Sitting(Path(sys.argv[1]), "Ann")
while (item := sitting.next()) is not None:
    sitting.vote(item.item_id, "b", Remarks(comment="x" * 1500))
    print(item.item_id, flush=True)
"""


def test_a_killed_studio_keeps_every_acknowledged_vote(tmp_path: Path) -> None:
    made(tmp_path, 300)  # more than are given before the last kill
    acknowledged: list[str] = []
    for votes_given in (1, 2, 9, 30):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        acknowledged += [process.stdout.readline().strip() for _ in range(votes_given)]
        os.kill(process.pid, signal.SIGKILL)
        acknowledged += process.stdout.read().split()
        process.wait()
        stored = [vote.item for vote in votes(tmp_path)]
        assert set(acknowledged) <= set(stored) and len(stored) == len(set(stored))


def test_a_torn_last_line_is_cut_off_by_the_next_vote(tmp_path: Path) -> None:
    made(tmp_path, 6)
    sitting = Sitting(tmp_path, "Ann")
    item = sitting.next()
    assert item is not None
    sitting.vote(item.item_id, "a")
    whole = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(whole + b"merged,rival,model_a,Ann,17")
    assert [vote.item for vote in votes(tmp_path)] == [item.item_id]
    later = Sitting(tmp_path, "Ann")
    second = later.next()
    assert second is not None
    later.vote(second.item_id, "b")
    assert [vote.item for vote in votes(tmp_path)] == [item.item_id, second.item_id]
    assert (tmp_path / FILE).read_bytes().startswith(whole)


def test_a_broken_line_is_told_again_and_again(tmp_path: Path) -> None:
    made(tmp_path, 6)
    sitting = Sitting(tmp_path, "Ann")
    item = sitting.next()
    assert item is not None
    sitting.vote(item.item_id, "a")
    with (tmp_path / FILE).open("a") as stream:
        stream.write("not,a,vote\n")
    for again in (sitting, sitting):
        with pytest.raises(StudioError, match="line 3: 3 columns"):
            again.next()
    with pytest.raises(StudioError, match="line 3: 3 columns"):
        Sitting(tmp_path, "Bob")
