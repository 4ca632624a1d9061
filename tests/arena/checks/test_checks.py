"""Every constraint, both ways; then how constraints are written down."""

from typing import Any

import pytest

from studio.arena.checks.constraints import Constraint, check
from studio.arena.checks.table import CHECKS, KINDS
from studio.errors import StudioError

STORY = "Rain fell. The old fox waited by the door!\n\nNobody came; nobody would."
TABLE = "| name | age |\n|---|---|\n| Ann | 3 |\n| Bo | 4 |"
GERMAN = "Der Hund und die Katze sind nicht auf dem Dach, das ist mit Sicherheit so."

# constraint, an answer that keeps it, one that does not
CASES: list[tuple[Any, str, str]] = [
    ({"words": {"exactly": 13}}, STORY, STORY + " Ever."),
    ({"words": {"at_least": 3, "at_most": 4}}, "one two-fold it's", "one two"),
    ({"sentences": {"exactly": 3}}, STORY, "Mr. Fox waited."),
    ({"sentences": {"exactly": 1}}, "“Stop!” she said to Dr. Who at 3.30 p.m. today", "Stop! Now."),
    ({"sentences": {"exactly": 2}}, "the rain fell. the fox slept.", "The rain fell. the fox."),
    ({"paragraphs": {"exactly": 2}}, STORY, "one\ntwo"),
    ({"paragraphs": {"exactly": 2}}, "one\n***\ntwo", "one\n\n\n***\n\ntwo\n\nthree"),
    ({"lines": {"exactly": 2}}, "one\n\n two ", "one two"),
    ({"characters": {"at_most": 5}}, " five5 ", "123456"),
    ({"words_per_line": {"at_least": 2, "at_most": 3}}, "a b\nc d e", "a b\nc"),
    ({"words_per_sentence": {"at_most": 3}}, "It rains. We run now.", "It rains. We all run now."),
    ({"words_per_paragraph": {"exactly": 2}}, "a b\n\nc d", "a b\n\nc d e"),
    ({"bullets": {"exactly": 2}}, "- a\n* b", "- a\n***\n-b"),
    ({"headings": {"at_least": 1}}, "## One\ntext", "#hashtag"),
    ({"sections": {"label": "Part", "exactly": 2}}, "**Part 1**\na\nPart 2: b", "Part 1\nPart 3"),
    ({"highlights": {"exactly": 2}}, "*one* and **two words**", "* item one\n* item two"),
    ({"placeholders": {"at_least": 2}}, "Dear [name], at [place]", "Dear [name]"),
    ({"parts": {"separator": "******", "exactly": 2}}, "a\n******\nb", "a\n******\n"),
    ({"table": {"columns": 2, "rows": 2}}, TABLE, TABLE + "\n| Cy | 5 |"),
    ({"table": {"columns": 2}}, TABLE, TABLE.replace("|---|---|\n", "")),
    ("title", "<<Rain>>\nIt fell.", "Rain\nIt fell."),
    ("title", "# Rain\nIt fell.", "It fell.\n# Rain"),
    ("quoted", '"All of it."', '"Part" of it.'),
    ("postscript", "Bye.\nP.S. I left the key.", "P.S. first\nBye."),
    ({"postscript": {"marker": "PPS"}}, "Bye.\nPPS: more", "Bye.\nP.S. more"),
    ({"speakers": {"names": ["ANN", "BO"]}}, "ANN: Hi.\n**BO:** Yes.", "ANN: Hi.\nShe waits."),
    ({"one_of": {"options": ["yes", "no"]}}, " yes\n", "Yes"),
    ({"is": {"text": "fox fox"}}, "fox fox", "fox fox fox"),
    ({"includes": {"words": ["art", "low tide"]}}, "Art at low\ntide", "start at low tide"),
    ({"excludes": {"words": ["sea"]}}, "the season", "the Sea"),
    ({"keyword_count": {"word": "fox", "exactly": 2}}, "Fox, fox; foxes", "fox"),
    ({"letter_count": {"letter": "e", "at_most": 2}}, "Eel", "eerie"),
    ({"starts_with": {"text": "Rain"}}, "**rain** fell", "Rainy days"),
    ({"starts_with": {"text": "Dear all,"}}, "Dear all,\nhello", "dear al,"),
    ({"ends_with": {"text": "the river"}}, "Down to “the river.”", "the rivers"),
    ({"ends_with": {"text": "river"}}, "by the river!", "by the driver"),
    ({"ends_with": {"text": "The end."}}, "So. *The end.*", "So. The end"),
    ({"sentence_includes": {"sentence": 2, "words": ["fox"]}}, STORY, "A fox. It ran."),
    ({"sentence_includes": {"sentence": -1, "words": ["came"]}}, STORY, "It came. It went."),
    ({"sentence_starts_with": {"sentence": 3, "text": "Nobody"}}, STORY, "Nobody. Went. There."),
    ({"paragraph_starts_with": {"paragraph": 2, "text": "Nobody"}}, STORY, "Nobody\nNobody"),
    ({"acrostic": {"word": "Sea"}}, "Salt\n“every wave”\nand", "Salt\nwave\nand"),
    ("lowercase", "all of it, 3 times", "all of It"),
    ("uppercase", "ALL OF IT, 3 TIMES", "ALL Of IT"),
    ("lowercase", "ok", "123"),
    ({"capital_words": {"exactly": 1}}, "I said STOP to him", "I said stop"),
    ("lines_capitalised", "- One\n“Two”", "One\ntwo"),
    ({"without": {"characters": ",;"}}, "plain. words", "one, two"),
    ({"mark_count": {"mark": "!", "at_least": 2}}, "Oh! No!", "Oh!"),
    ({"sentences_end_with": {"mark": "?"}}, "Is it? “Are you?”", "Is it? It is."),
    ({"language": {"is": "de"}}, GERMAN, "The dog and the cat are not on the roof, that is it."),
    ("json", '```json\n{"a": [1]}\n```', 'Here: {"a": 1}'),
    ({"json": {"keys": ["a", "b"], "type": "object"}}, '{"b": 1, "a": 2}', '{"a": 2}'),
    ({"json": {"type": "array"}}, "[]", "{}"),
    ("json", "[1]", "[NaN]"),
    ({"json_items": {"exactly": 2}}, "[1, 2]", '{"a": 1, "b": 2}'),
    ({"json_items": {"key": "a", "at_least": 1}}, '{"a": [0]}', '{"a": 1}'),
    ({"numbered": {"exactly": 3}}, "1. a\n2) b\n\n**3.** c", "1. a\n3. b\n2. c"),
    ({"numbered": {"label": "Step", "at_least": 2}}, "Step 1: a\n### Step 2: b", "1. a\n2. b"),
    ({"in_order": {"words": ["wash", "dry"]}}, "First wash, then dry.", "Dry it, then wash."),
]  # fmt: skip


@pytest.mark.parametrize(("data", "kept", "broken"), CASES, ids=[str(c[0])[:60] for c in CASES])
def test_check_tells_kept_from_broken(data: Any, kept: str, broken: str) -> None:
    constraint = Constraint.from_data(data)
    assert [result.passed for result in check([constraint], kept)] == [True]
    assert [result.passed for result in check([constraint], broken)] == [False]
    assert [result.passed for result in check([constraint], " \n")] == [False]


def test_checks_all_have_a_case_and_a_known_kind() -> None:
    named = {case[0] if isinstance(case[0], str) else next(iter(case[0])) for case in CASES}
    assert named == set(CHECKS)
    assert {entry.kind for entry in CHECKS.values()} == set(KINDS)


def test_check_says_what_it_counted() -> None:
    constraint = Constraint.from_data({"words_per_line": {"at_least": 2}})
    assert check([constraint], "a\nb c d")[0].found == "1 to 3"
    assert str(constraint) == "words per line: at_least 2"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("wrods", r'no constraint "wrods" \(did you mean "words"\?\)'),
        (["words"], "a constraint is a name"),
        ({"words": 3}, "write its arguments in braces"),
        ("words", "words needs either exactly, or at_least"),
        ({"words": {"exactly": 3, "at_most": 4}}, "needs either exactly"),
        ({"words": {"at_least": 3, "at_most": 2}}, "at_least 3 is above 2"),
        ({"words": {"at_least": 0}}, "always true"),
        ({"words": {"atleast": 3}}, 'no argument "atleast"; known: exactly, at_least, at_most'),
        ({"words": {"exactly": "3"}}, "exactly is .*whole number"),
        ({"words": {"exactly": True}}, "exactly is True; use a whole number"),
        ({"lowercase": {"exactly": 1}}, "it takes none"),
        ({"includes": {"words": "fox"}}, "use a list of texts"),
        ({"includes": {"words": ["fox", "fox"]}}, "given twice"),
        ({"includes": {}}, 'needs the argument "words"'),
        ({"letter_count": {"letter": "ab", "exactly": 1}}, "use one letter"),
        ({"language": {"is": "xx"}}, "use one of en, de"),
        ({"sentence_includes": {"sentence": 0, "words": ["a"]}}, "1 for the first"),
    ],
)  # fmt: skip
def test_constraint_refuses(data: Any, message: str) -> None:
    with pytest.raises(StudioError, match=message):
        Constraint.from_data(data)


@pytest.mark.parametrize("data", [case[0] for case in CASES], ids=str)
def test_constraint_survives_being_written(data: Any) -> None:
    constraint = Constraint.from_data(data)
    assert Constraint.from_data(constraint.as_data()) == constraint
    assert CHECKS[constraint.name].kind == constraint.kind


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("en", "She looked at the sea and it was not the same as before."),
        ("de", "Sie sah auf das Meer und es war nicht wie zuvor."),
        ("fr", "Elle regarde la mer et les bateaux qui ne sont pas dans le port."),
        ("es", "Ella mira el mar y los barcos que no están en el puerto."),
        ("it", "Lei guarda il mare e le barche che non sono nel porto, ma anche gli scogli."),
        ("pt", "Ela olha para o mar e os barcos que não estão no porto."),
        ("nl", "Zij kijkt naar de zee en het schip dat niet in de haven is."),
        ("ru", "Она смотрит на море."),
        ("ja", "彼女は海を見ている。"),
        ("zh", "她看着大海。"),
        ("", "Hm."),
    ],
)
def test_language_is_told_by_small_words_and_script(language: str, text: str) -> None:
    from studio.arena.checks.language import language_of

    assert language_of(text) == language
