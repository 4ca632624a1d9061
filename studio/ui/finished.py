"""The finished merges: which there are, and what their reports say of them."""

import json
from operator import itemgetter
from pathlib import Path
from typing import Any

REPORT = "merge-report.json"  # merge/report.py names it; a rating page alone lacks that room
MOST_RESULTS = 50


def results_in(folder: Path) -> list[dict[str, Any]]:
    """The finished merges, newest first."""
    if not folder.is_dir():
        return []
    found = [
        {"name": path.parent.name, "path": str(path.parent), "made": path.stat().st_mtime}
        for path in folder.glob(f"*/{REPORT}")
        if not path.parent.name.endswith(".partial")
    ]
    return sorted(found, key=itemgetter("made"), reverse=True)[:MOST_RESULTS]


def read_report(folder: Path) -> dict[str, Any]:
    """The head of a result's report; what an older report lacks is left out."""
    kept = ("dtype", "seconds", "bytes_read", "bytes_written", "summary", "warnings", "notes")
    report = _report(folder)
    return {key: report[key] for key in kept if key in report}


def sources_of(folder: Path) -> list[str]:
    """What a result was merged from, as its recipe names it; empty if its report does not tell."""
    sources = _report(folder).get("sources")
    if not isinstance(sources, list):
        return []
    return [str(each["model"]) for each in sources if isinstance(each, dict) and "model" in each]


def _report(folder: Path) -> dict[str, Any]:
    try:
        report = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # a result without its report is a result all the same
    return report if isinstance(report, dict) else {}
