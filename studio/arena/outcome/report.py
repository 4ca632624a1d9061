"""The report: one HTML file with everything results show, which opens anywhere and offline."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from html import escape

from studio.arena.outcome.agreement import opinion
from studio.arena.outcome.charts import Chart, charts, plotly_file
from studio.arena.outcome.power import percent
from studio.arena.outcome.results import Comparison, Results
from studio.arena.outcome.verdict import verdict
from studio.arena.rating.counted import Ballot

_STYLE = """
:root{color-scheme:light dark;--ink:#1d2326;--soft:#566067;--line:#d9d7cf;--paper:#fff;
--accent:#0b6e69}
@media(prefers-color-scheme:dark){:root{--ink:#e6e8e6;--soft:#a3acb1;--line:#343b40;
--paper:#14171a;--accent:#4fc1b5}}
body{font:16px/1.5 system-ui,sans-serif;max-width:74rem;margin:2rem auto;padding:0 1rem;
color:var(--ink);background:var(--paper)}
h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem}
table{border-collapse:collapse;width:100%;display:block;overflow-x:auto}
th,td{text-align:left;padding:.3rem .5rem;border-bottom:1px solid var(--line);
white-space:nowrap;font-size:.94rem}
th{white-space:normal;vertical-align:bottom}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
.verdict{font-size:1.15rem;font-weight:600}.quiet{color:var(--soft);font-size:.9rem}
"""
_DRAW = """
const dark = matchMedia("(prefers-color-scheme: dark)");
function draw() {
  const style = getComputedStyle(document.documentElement);
  const tone = (name) => style.getPropertyValue(name).trim();
  const axis = { gridcolor: tone("--line"), zerolinecolor: tone("--line"), color: tone("--soft") };
  charts.forEach(({ data, layout, height }, index) => Plotly.react(`chart-${index}`, data, {
    ...layout, height, colorway: [tone("--accent")],
    font: { family: "system-ui, sans-serif", color: tone("--ink") },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    xaxis: { ...axis, ...layout.xaxis }, yaxis: { ...axis, ...layout.yaxis },
  }, { displayModeBar: false, responsive: true }));
}
dark.addEventListener("change", draw);
draw();
"""
_NOTE = (
    "Ties count as half; both bad counts for nothing and is shown apart. The interval at this look "
    "is clustered by rater and prompt; the other one holds however often one looks. A claim is "
    "about the raters whose votes it rests on."
)
Row = Sequence[object]


def html_report(results: Results, every: Sequence[Ballot]) -> str:
    """The report as one HTML file that needs nothing else; raises StudioError without Plotly."""
    first, *further = verdict(results)
    drawn = charts(results)
    parts = [
        f"<h1>Blind comparison: {escape(results.trial)}</h1>",
        f'<p class="verdict">{escape(first)}</p>',
        "".join(f"<p>{escape(line)}</p>" for line in further),
        f'<p class="quiet">{escape(results.plan.sentence())}. Project {escape(results.project)}, '
        f"design {results.hash[:16]}, error rate {results.alpha:g}.</p>",
        *(_place(chart, number) for number, chart in enumerate(drawn)),
        _comparisons("The primary comparison", [results.primary], _NOTE),
        _comparisons("The other comparisons, corrected together", results.others),
        _comparisons("By category, primary comparison, corrected together", results.categories),
        _raters(results),
        _views(results),
        _strengths(results),
        _noise(results),
        _health(results),
        _trimmed(results),
        _amendments(results),
        _comments(every),
    ]
    body = "\n".join(part for part in parts if part)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(results.trial)}</title><style>{_STYLE}</style></head>"
        f"<body>{body}{_script(drawn)}</body></html>\n"
    )


def _place(chart: Chart, number: int) -> str:
    """Where a chart is drawn; all that it shows stands in the tables too."""
    return (
        f'<h2>{escape(chart.title)}</h2><p class="quiet">{escape(chart.note)}</p>'
        f'<div id="chart-{number}" role="img" aria-label="{escape(chart.title)}" '
        f'style="height:{chart.height}px"></div>'
    )


def _script(drawn: Sequence[Chart]) -> str:
    if not drawn:
        return ""
    # Nothing in the data may end the script: JSON can write this character in another way.
    data = json.dumps([asdict(chart) for chart in drawn]).replace("<", "\\u003c")
    library = plotly_file().read_text(encoding="utf-8")
    return f"<script>{library}</script><script>const charts = {data};{_DRAW}</script>"


def _table(title: str, heads: Sequence[str], rows: Sequence[Row], note: str = "") -> str:
    """A table; numbers are set right, with their heads."""
    if not rows:
        return ""
    columns = zip(heads, rows[0], strict=True)
    head = "".join(f"<th{_side(value)}>{escape(text)}</th>" for text, value in columns)
    lines = "".join(f"<tr>{''.join(_cell(value) for value in row)}</tr>" for row in rows)
    quiet = f'<p class="quiet">{escape(note)}</p>' if note else ""
    return f"<h2>{escape(title)}</h2><table><tr>{head}</tr>{lines}</table>{quiet}"


def _cell(value: object) -> str:
    if isinstance(value, int | float):
        text = str(value) if isinstance(value, int) else f"{value:.3g}"
        return f"<td{_side(value)}>{_minus(text)}</td>"
    return f"<td>{escape(str(value))}</td>"


def _side(value: object) -> str:
    return ' class="n"' if isinstance(value, int | float) else ""


def _minus(number: str) -> str:
    """The number with a true minus for its sign; that of an exponent stays as it is."""
    return f"−{number[1:]}" if number.startswith("-") else number


def _percent(share: float | None) -> str:
    return "–" if share is None else percent(share)


def _span(low: float | None, high: float | None) -> str:
    return "–" if low is None or high is None else f"{_percent(low)} to {_percent(high)}"


def _comparisons(title: str, comparisons: Sequence[Comparison], note: str = "") -> str:
    heads = ["comparison", "votes", "won : tied : lost", "both bad", "excluded", "preferred"]
    heads += ["at this look", "however often", "e-value", "p", "claim"]
    rows = [
        [
            c.category or f"{c.first} : {c.second}",
            c.votes,
            f"{c.wins} : {c.ties} : {c.losses}",
            *(c.both_bad, c.excluded),
            _percent(c.preference),
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
        [
            r.name,
            r.votes,
            _percent(r.preference),
            _percent(r.left_share),
            round(r.seconds, 1),
            r.recognised,
        ]
        for r in results.raters
    ]
    return _table("Raters", heads, rows)


def _views(results: Results) -> str:
    rows: list[Row] = [
        [v.name, v.votes, _percent(v.preference), _span(v.low, v.high)] for v in results.adjusted
    ]
    return _table(
        "The primary comparison seen otherwise",
        ["view", "votes", "preferred", "at this look"],
        rows,
    )


def _strengths(results: Results) -> str:
    rows: list[Row] = [
        [s.model, s.elo, " to ".join(_minus(f"{end:.0f}") for end in (s.low, s.high))]
        for s in results.strengths
    ]
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
        ["Krippendorff's alpha", "–" if n.alpha is None else _minus(f"{n.alpha:.2f}")],
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


def _trimmed(results: Results) -> str:
    rows: list[Row] = [[row.prompt, row.model, row.note] for row in results.trimming.rows]
    return _table("Prompts longer than a context", ["prompt", "model", "what was trimmed"], rows)


def _amendments(results: Results) -> str:
    rows: list[Row] = [
        [a["when"][:10], a["votes"], a["words"], a["why"]] for a in results.amendments
    ]
    return _table("Amendments to the design", ["when", "after votes", "what", "why"], rows)


def _comments(every: Sequence[Ballot]) -> str:
    rows: list[Row] = [
        [b.vote.judge, b.item.prompt, opinion(b), b.vote.comment] for b in every if b.vote.comment
    ]
    return _table("Comments", ["rater", "prompt", "verdict", "comment"], rows)
