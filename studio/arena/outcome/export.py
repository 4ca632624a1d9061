"""What others take over: votes for their tools, a paragraph for a model card."""

from collections.abc import Sequence
from pathlib import Path

from studio.arena.outcome.results import Results
from studio.arena.outcome.verdict import headline, reach_sentence
from studio.arena.rating.counted import Ballot
from studio.arena.rating.ratings import HEADER, vote_line
from studio.durable import write_whole
from studio.errors import StudioError


def votes_csv(every: Sequence[Ballot]) -> str:
    """The votes that stand and count, both-bad ones too, in the columns of ratings.csv, for tools
    that read the public arena data. Undone, excluded and measuring votes are left out."""
    rows = [vote_line(b.vote) for b in every if not b.excluded]
    return "\n".join([HEADER, *rows, ""])


def card_paragraph(results: Results) -> str:
    """A paragraph of Markdown for the model's card."""
    primary = results.primary
    raters = len(results.raters)
    scope = f" {reach_sentence(results)}" if primary.claim else ""
    return (
        f"**Blind comparison.** {headline(results)}{scope} Primary comparison, fixed beforehand: "
        f"{primary.first} against {primary.second}, {primary.votes} votes by {raters} "
        f"rater{'s' if raters != 1 else ''} on {results.plan.prompts} prompts "
        f"({primary.wins} won, {primary.losses} lost, {primary.ties} tied, {primary.both_bad} both "
        f"bad); anytime-valid test with the prompt as unit, e-value {primary.evidence.best:.3g}. "
        f"Trial `{results.trial}`, design `{results.hash[:12]}`."
    )


def insert_in_card(results: Results, model: Path) -> Path:
    """Put the paragraph into the README.md of the model's folder; what it says elsewhere stays.

    The paragraph of the same trial is replaced, any other is added at the end. Raises StudioError
    if the folder has no card.
    """
    path = model / "README.md"
    try:
        text = path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise StudioError(
            f"{path}: no model card can be read here; name a model's folder"
        ) from error
    begin, end = f"<!-- blind trial {results.trial} -->\n", "\n<!-- end of blind trial -->"
    paragraph = begin + card_paragraph(results) + end
    before, found, rest = text.partition(begin)
    if found and end in rest:
        text = before + paragraph + rest.partition(end)[2]
    else:
        text = f"{text.rstrip()}\n\n## Evaluation\n\n{paragraph}\n"
    write_whole(path, text)
    return path
