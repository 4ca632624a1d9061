"""Medians, ratios and bars, as text and as JSON. Measures nothing."""

from dataclasses import asdict, dataclass
from statistics import correlation, linear_regression, median

from bench.contest import Results
from bench.contestants import ENGINE, FLOOR, MERGEKIT
from bench.measure import Run

GB, MB = 1e9, 1e6
SPEED_BAR, FLOOR_BAR, FLOOR_AIM = 10.0, 1.5, 1.2
MEMORY_BAR = 500 * MB
WRITE_BAR = 1.01  # of one model: a header, a config and a card come on top
AGREEMENT_BAR = 4e-3  # mergekit rounds to bfloat16 between stages, the engine once
LINE_BAR, FLAT_BAR = 0.1, 1.1  # largest distance from the line as a share; largest over smallest

HEADER = (
    f"{'':10}{'runs':>5}{'wall s':>9}{'(min–max)':>14}{'cpu s':>8}{'peak RSS':>10}"
    f"{'disk read':>11}{'disk write':>11}{'calls read':>11}{'calls write':>12}"
    f"{'GB/s':>7}{'× floor':>9}"
)


@dataclass(frozen=True)
class Bar:
    """A requirement, what was measured, and whether it is met; None where it was not measured."""

    text: str
    measured: str
    met: bool | None

    def __str__(self) -> str:
        verdict = {True: "met", False: "NOT MET", None: "not measured"}[self.met]
        return f"  {verdict:13}{self.text}: {self.measured}"


def middle(runs: list[Run], figure: str) -> float | None:
    """The median of a figure over runs; None where the machine does not tell it."""
    found = [value for run in runs if (value := getattr(run, figure)) is not None]
    return median(found) if found else None


def wall(results: Results, name: str) -> float | None:
    """Median seconds of a contestant; None if it did not take part."""
    runs = results.runs.get(name)
    return median(run.wall for run in runs) if runs else None


def ratio(results: Results, above: str, below: str) -> float | None:
    """Median wall of one contestant over another's."""
    top, bottom = wall(results, above), wall(results, below)
    return top / bottom if top and bottom else None


def amount(value: float | None) -> str:
    """Bytes to read: GB from one of them on, MB below."""
    if value is None:
        return "–"
    return f"{value / GB:.2f} GB" if value >= GB else f"{value / MB:.0f} MB"


def row(results: Results, name: str) -> str:
    """A contestant's line of the table."""
    runs = results.runs[name]
    walls = [run.wall for run in runs]
    total = results.input_bytes + results.output_bytes
    against = ratio(results, name, FLOOR)
    spread = f"({min(walls):.2f}–{max(walls):.2f})"
    disk = [
        amount(middle(runs, figure))
        for figure in ("disk_read", "disk_write", "calls_read", "calls_write")
    ]
    return (
        f"{name:10}{len(runs):>5}{median(walls):>9.2f}{spread:>14}{middle(runs, 'cpu'):>8.2f}"
        f"{amount(max(run.peak_rss for run in runs)):>10}"
        f"{disk[0]:>11}{disk[1]:>11}{disk[2]:>11}{disk[3]:>12}{total / median(walls) / GB:>7.2f}"
        f"{f'{against:.2f}' if against else '–':>9}"
    )


def bars(results: Results) -> list[Bar]:
    """The engine's requirements on one contest."""
    engine = results.runs[ENGINE]
    speed, over = ratio(results, MERGEKIT, ENGINE), ratio(results, ENGINE, FLOOR)
    peak = max(run.peak_rss for run in engine)
    written = [run.disk_write for run in engine if run.disk_write is not None]
    share = max(written) / results.output_bytes if written else None
    apart = results.agreement.get("difference")
    found = [
        Bar(
            f"≥ {SPEED_BAR:g}× faster than mergekit-multi",
            f"{speed:.1f}×" if speed else "–",
            speed >= SPEED_BAR if speed else None,
        ),
        Bar(
            f"≤ {FLOOR_BAR:g}× the I/O floor (aim {FLOOR_AIM:g})",
            f"{over:.2f}×" if over else "–",
            over <= FLOOR_BAR if over else None,
        ),
        Bar(f"≤ {MEMORY_BAR / MB:.0f} MB peak RSS", amount(peak), peak <= MEMORY_BAR),
        Bar(
            "bytes written = one model",
            f"{share:.3f} models" if share is not None else "–",
            1 <= share <= WRITE_BAR if share is not None else None,
        ),
    ]
    if isinstance(apart, float):
        text = f"largest relative difference of a tensor from mergekit's ≤ {AGREEMENT_BAR:g}"
        found.append(
            Bar(text, f"{apart:.2g} ({results.agreement['tensor']})", apart <= AGREEMENT_BAR)
        )
    return found


def contest_text(results: Results) -> str:
    """The table of one contest, its ratios and bars."""
    sizes = f"{results.input_bytes / GB:.2f} GB in, {results.output_bytes / GB:.2f} GB out"
    lines = [f"\n{results.part}, {results.cache} cache: {sizes}"]
    if results.how:
        lines.append(f"  cold means: {results.how}")
    lines += [
        HEADER,
        *(row(results, name) for name in (ENGINE, FLOOR, MERGEKIT) if name in results.runs),
    ]
    trials = ", ".join(f"{way} {seconds:.2f} s" for way, seconds in results.floor_trials.items())
    lines.append(f"  the floor is {results.floor_way}; best of 2 tries of each: {trials}")
    floor_read = middle(results.runs[FLOOR], "disk_read")
    if (
        results.cache == "warm"
        and floor_read is not None
        and floor_read > 0.02 * results.input_bytes
    ):
        lines.append(
            "  NOT WARM: the floor read from the disk; the inputs do not stay in memory here"
        )
    if (
        results.cache == "cold"
        and floor_read is not None
        and floor_read < 0.9 * results.input_bytes
    ):
        lines.append(
            "  NOT COLD: the floor did not read all from the disk; emptying the cache failed"
        )
    return "\n".join([*lines, *map(str, bars(results))])


@dataclass(frozen=True)
class Line:
    """wall = startup + per_gb × gigabytes (inputs + output), by least squares over medians."""

    startup: float
    per_gb: float
    worst: float  # largest distance of a median from the line, as a share of the line there
    correlation: float
    growth: float  # largest peak RSS over the smallest


def fit(found: list[Results], name: str = ENGINE) -> Line:
    """The line of one contestant; needs at least two different sizes."""
    x = [(results.input_bytes + results.output_bytes) / GB for results in found]
    y = [median(run.wall for run in results.runs[name]) for results in found]
    slope, intercept = linear_regression(x, y)
    worst = max(abs(b / (intercept + slope * a) - 1) for a, b in zip(x, y, strict=True))
    peaks = [max(run.peak_rss for run in results.runs[name]) for results in found]
    return Line(intercept, slope, worst, correlation(x, y), max(peaks) / min(peaks))


def scale_text(found: list[Results]) -> str:
    """The table over sizes, the line through it, its bars."""
    lines = ["\nscale, warm cache: engine and floor", HEADER + f"{'s per GB':>10}"]
    for results in found:
        total = (results.input_bytes + results.output_bytes) / GB
        each = median(run.wall for run in results.runs[ENGINE]) / total
        lines.append(f"  {total:.2f} GB in and out, {results.output_bytes / GB:.2f} GB of them out")
        lines.append(row(results, ENGINE) + f"{each:>10.3f}")
        lines.append(row(results, FLOOR))
    line, floor = fit(found), fit(found, FLOOR)
    for name, each_line in ((ENGINE, line), (FLOOR, floor)):
        lines.append(
            f"  {name}: wall = {each_line.startup:.2f} s + {each_line.per_gb:.3f} s per GB "
            f"(r = {each_line.correlation:.4f})"
        )
    lines.append(f"  per GB the engine takes {line.per_gb / floor.per_gb:.2f}× the floor")
    linear = Bar(
        f"time linear in bytes (within {LINE_BAR:.0%} of the line)",
        f"{line.worst:.1%}",
        line.worst <= LINE_BAR,
    )
    flat = Bar(
        f"memory flat (largest peak ≤ {FLAT_BAR:g}× the smallest)",
        f"{line.growth:.2f}×",
        line.growth <= FLAT_BAR,
    )
    return "\n".join([*lines, str(linear), str(flat)])


def machine_text(machine: dict[str, str | int | float]) -> str:
    """The machine in a line, and a warning if the folder is no disk."""
    text = (
        f"{machine['cpu']}, {machine['cores']} cores, {int(machine['memory_bytes']) / GB:.1f} GB "
        f"of memory, Linux {machine['kernel']}, Python {machine['python']}, "
        f"{machine['file_system']} on {machine['device']}, load {machine['load']} at the start"
    )
    if machine["file_system"] == "tmpfs":
        text += "\n  the folder lies in memory (tmpfs): give --dir on a disk for figures of use"
    return text


def as_json(machine: dict[str, str | int | float], found: list[Results]) -> dict[str, object]:
    """Everything measured, each run by itself, and what follows from it."""
    sizes = [results for results in found if results.part == "scale"]
    return {
        "machine": machine,
        "contests": [
            asdict(results) | {"bars": [asdict(bar) for bar in bars(results)]}
            for results in found
            if results.part != "scale"
        ],
        "scale": [asdict(results) for results in sizes],
        "line": asdict(fit(sizes)) if sizes else None,
    }
