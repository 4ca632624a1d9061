"""Rows of ratings.csv: what goes in comes out, and no spreadsheet runs it."""

import csv
import io
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.arena.rating import ratings
from studio.arena.rating.ratings import (
    COLUMNS,
    HEADER,
    Verdict,
    Vote,
    check_header,
    decode_text,
    encode_text,
    parse_vote,
    vote_line,
)
from studio.errors import StudioError

PATH = Path("ratings.csv")
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


def vote(**changes: object) -> Vote:
    values: dict[str, object] = dict.fromkeys(COLUMNS, "x")
    values |= {"winner": Verdict.TIE, "tstamp": 1.5, "turn": 1, "seconds": 2.25, "scores": ""}
    values |= {"anony": True, "masked": False, "recognised": False, "version": "v2"}
    return Vote(**values | changes)  # type: ignore[arg-type]


@given(TEXTS)
def test_free_text_comes_back_and_stays_on_its_line(text: str) -> None:
    encoded = encode_text(text)
    assert decode_text(encoded) == text
    assert "\n" not in encoded and "\r" not in encoded
    assert not encoded.lstrip(" ").startswith(("=", "+", "-", "@", "\t"))


@given(TEXTS, st.sampled_from(list(Verdict)), st.booleans())
def test_a_vote_comes_back(text: str, winner: Verdict, recognised: bool) -> None:
    given_ = vote(comment=text, category=text, winner=winner, recognised=recognised)
    line = vote_line(given_)
    assert "\n" not in line and parse_vote(line, PATH, 2) == given_
    assert next(csv.DictReader(io.StringIO(f"{HEADER}\n{line}\n")))["winner"] == winner


@pytest.mark.parametrize(
    "comment", ['=HYPERLINK("http://x")', "+1", "-1", "@a", "\t=1", " =1", "＝1"]
)
def test_formulas_are_made_text(comment: str) -> None:
    """Also where no rater wrote it: an id of a prompt, the packing that a model's config names."""
    line = vote_line(vote(comment=comment, prompt=comment, quantisation_a=comment))
    cell = dict(zip(COLUMNS, next(csv.reader([line])), strict=True))
    assert {cell[name][0] for name in ("comment", "prompt", "quantisation_a")} == {"'"}
    assert parse_vote(line, PATH, 2).prompt == comment


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (",v2", "", r"line 7: \d+ columns, expected \d+"),
        (",v2", ",v1", r"line 7: is of version v1, this studio's is v2"),
        (",v2", ",w2", r'that end with "v2"'),
        ("tie,", "draw,", 'winner is "draw", which it cannot be'),
        ("2.25", "soon", 'seconds is "soon"'),
        ("True", "yes", 'anony is "yes"'),
    ],
)
def test_a_changed_row_is_told(old: str, new: str, told: str) -> None:
    line = vote_line(vote())
    assert old in line
    with pytest.raises(StudioError, match=told):
        parse_vote(line.replace(old, new, 1), PATH, 7)


def test_every_column_is_documented() -> None:
    told = (ratings.__doc__ or "").partition("\n    ")[2]
    for column in COLUMNS:
        pair = re.escape(column[:-2] + "_*") if column.endswith(("_a", "_b")) else column
        assert re.search(rf"\b(?:{column}\b|{pair})", told), column


@pytest.mark.parametrize(
    ("header", "told"),
    [
        (HEADER.replace(",recipe_a,recipe_b", ""), r"another version .*v2 \(recipe_a, recipe_b\)"),
        (
            HEADER.replace("model_a,model_b", "model_b,model_a"),
            r"another version .*their order",
        ),
        ("model_a,model_b,winner", "is no file of the studio's ratings"),
        ("", "is no file of the studio's ratings"),
    ],
)
def test_another_header_is_refused(header: str, told: str) -> None:
    check_header("\ufeff" + HEADER, PATH)
    with pytest.raises(StudioError, match=told):
        check_header(header, PATH)
