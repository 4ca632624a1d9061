"""What others read: votes for their tools, a report for people, a paragraph for a model card."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from studio.arena.agreement import opinion
from studio.arena.counted import Ballot
from studio.arena.ratings import HEADER, vote_line
from studio.arena.results import Comparison, Results
from studio.arena.verdict import headline, verdict
from studio.durable import write_whole
from studio.errors import StudioError

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:66rem;margin:2rem auto;padding:0 1rem;
color:#1b1e28;background:#fff}
h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem}
table{border-collapse:collapse;width:100%;display:block;overflow-x:auto}
th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #d9dce6;white-space:nowrap}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
.verdict{font-size:1.15rem;font-weight:600}.quiet{color:#5d6275;font-size:.9rem}
svg{vertical-align:middle}
@media(prefers-color-scheme:dark){body{background:#14161d;color:#e8eaf2}
th,td{border-color:#333849}.quiet{color:#a0a6ba}}
"""
_NOTE = (
    "Ties count as half; both bad counts for nothing and is shown apart. The interval at this look "
    "is clustered by rater and prompt; the other one holds however often one looks."
)
Row = Sequence[object]


def votes_csv(every: Sequence[Ballot]) -> str:
    """The votes that stand and count, both-bad ones too, in the columns of ratings.csv, for tools
    that read the public arena data. Undone, excluded and measuring votes are left out."""
    rows = [vote_line(b.vote) for b in every if not b.excluded]
    return "\n".join([HEADER, *rows, ""])


def card_paragraph(results: Results) -> str:
    """A paragraph of Markdown for the model's card."""
    primary = results.primary
    raters = len(results.raters)
    return (
        f"**Blind comparison.** {headline(results)} Primary comparison, fixed beforehand: "
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


def html_report(results: Results, every: Sequence[Ballot]) -> str:
    """The report as one HTML file that needs nothing else."""
    first, *further = verdict(results)
    parts = [
        f"<h1>Blind comparison: {escape(results.trial)}</h1>",
        f'<p class="verdict">{escape(first)}</p>',
        "".join(f"<p>{escape(line)}</p>" for line in further),
        f'<p class="quiet">{escape(results.plan.sentence())}. Project {escape(results.project)}, '
        f"design {results.hash[:16]}, error rate {results.alpha:g}.</p>",
        _comparisons("The primary comparison", [results.primary], _NOTE),
        _comparisons("The other comparisons, corrected together", results.others),
        _comparisons("By category, primary comparison, corrected together", results.categories),
        _raters(results),
        _views(results),
        _strengths(results),
        _noise(results),
        _health(results),
        _amendments(results),
        _comments(every),
    ]
    body = "\n".join(part for part in parts if part)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(results.trial)}</title><style>{_STYLE}</style></head>"
        f"<body>{body}</body></html>\n"
    )


def _table(title: str, heads: Sequence[str], rows: Sequence[Row], note: str = "") -> str:
    """A table; cells that begin with a number are set right, `Raw` ones are put in as they are."""
    if not rows:
        return ""
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    lines = "".join(f"<tr>{''.join(_cell(value) for value in row)}</tr>" for row in rows)
    quiet = f'<p class="quiet">{escape(note)}</p>' if note else ""
    return f"<h2>{escape(title)}</h2><table><tr>{head}</tr>{lines}</table>{quiet}"


class Raw(str):
    """Markup made here."""


def _cell(value: object) -> str:
    if isinstance(value, Raw):
        return f"<td>{value}</td>"
    if isinstance(value, int | float):
        return f'<td class="n">{value if isinstance(value, int) else f"{value:.3g}"}</td>'
    return f"<td>{escape(str(value))}</td>"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.0f} %"


def _span(low: float | None, high: float | None) -> str:
    return "–" if low is None or high is None else f"{_percent(low)} to {_percent(high)}"


def _bar(middle: float | None, low: float | None, high: float | None) -> Raw:
    """A share and its interval on a line from 0 to 100 %, half marked."""
    if middle is None or low is None or high is None:
        return Raw("")
    a, b, c = (round(4 + 88 * value, 1) for value in (low, middle, high))
    return Raw(
        '<svg width="96" height="16" role="img" aria-hidden="true">'
        '<line x1="48" y1="0" x2="48" y2="16" stroke="#9aa0b5"/>'
        f'<line x1="{a}" y1="8" x2="{c}" y2="8" stroke="#5b6cf0" stroke-width="3"/>'
        f'<circle cx="{b}" cy="8" r="4.5" fill="#5b6cf0"/></svg>'
    )


def _comparisons(title: str, comparisons: Sequence[Comparison], note: str = "") -> str:
    heads = ["comparison", "votes", "won : tied : lost", "both bad", "excluded", "preferred", ""]
    heads += ["at this look", "however often", "e-value", "p", "claim"]
    rows = [
        [
            c.category or f"{c.first} : {c.second}",
            c.votes,
            f"{c.wins} : {c.ties} : {c.losses}",
            *(c.both_bad, c.excluded),
            _percent(c.preference),
            _bar(c.preference, c.low, c.high),
            _span(c.low, c.high),
            _span(c.evidence.low, c.evidence.high) if c.evidence.count else "–",
            c.evidence.best,
            c.p_value,
            {"first": "better", "second": "worse", "": "–"}[c.claim],
        ]
        for c in comparisons
    ]
    return _table(title, heads, rows, note)


def _raters(results: Results) -> str:
    heads = ["rater", "votes", "preferred the merge", "left answer won", "seconds", "recognised"]
    rows = [
        [r.name, r.votes, _percent(r.preference), _percent(r.left_share), r.seconds, r.recognised]
        for r in results.raters
    ]
    return _table("Raters", heads, rows)


def _views(results: Results) -> str:
    rows: list[Row] = [
        [v.name, v.votes, _percent(v.preference), _span(v.low, v.high)] for v in results.adjusted
    ]
    return _table("The primary comparison seen otherwise", ["view", "votes", "", ""], rows)


def _strengths(results: Results) -> str:
    rows: list[Row] = [[s.model, s.elo, f"{s.low:.0f} to {s.high:.0f}"] for s in results.strengths]
    note = "Bradley-Terry with a prior, on Elo's scale; 0 is the mean of these models."
    return _table("Strengths", ["model", "strength", "95 %"], rows, note)


def _noise(results: Results) -> str:
    n, side, length = results.noise, results.left_wins, results.longer_wins
    excluded = ", ".join(f"{count} {why}" for why, count in results.excluded.items()) or "none"
    rows: list[Row] = [
        ["the left answer won", f"{side.count} of {side.total}"],
        ["the longer answer won", f"{length.count} of {length.total}"],
        ["one answer shown twice was called a tie", f"{n.called_ties} of {n.identical}"],
        ["the same verdict when shown again", f"{n.same} of {n.repeats}"],
        ["several raters agreed", f"{n.agreeing} of {n.shared}"],
        ["Krippendorff's alpha", "–" if n.alpha is None else f"{n.alpha:.2f}"],
        ["votes excluded by rule", excluded],
    ]
    return _table("How reliable the votes are", ["", ""], rows)


def _health(results: Results) -> str:
    heads = ["model", "answers", "constraints kept", "cut off", "loops", "speaks for the user"]
    heads += ["format tokens", "empty", "shortened", "characters (median)"]
    rows = [
        [
            h.model,
            h.answers,
            f"{h.kept} of {h.constraints}",
            *(h.cut_off, h.loops, h.speaks_for_user, h.format_tokens, h.empty, h.shortened),
            h.characters,
        ]
        for h in results.health
    ]
    return _table("What a machine says of the answers", heads, rows)


def _amendments(results: Results) -> str:
    heads = ["when", "after votes", "why", "was", "became"]
    rows: list[Row] = [
        [a["when"], a["votes"], a["why"], a["was"], a["changes"]] for a in results.amendments
    ]
    return _table("Amendments to the design", heads, rows)


def _comments(every: Sequence[Ballot]) -> str:
    rows: list[Row] = [
        [b.vote.judge, b.item.prompt, opinion(b), b.vote.comment] for b in every if b.vote.comment
    ]
    return _table("Comments", ["rater", "prompt", "verdict", "comment"], rows)
