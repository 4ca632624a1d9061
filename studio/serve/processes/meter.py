"""What an engine says of its own work, and how fast that goes."""

import re
import time
from collections import deque
from pathlib import Path

import httpx2

from studio.serve.processes.proc_table import PROC, belonging
from studio.serve.processes.state import Load

WINDOW = 10.0
PAGE = 4096
_LINE = re.compile(r"^(vllm:[a-z_]+)(?:\{[^}]*\})? ([0-9.eE+-]+)", re.MULTILINE)


class Meter:
    """Reads the counters of one engine now and then."""

    def __init__(self, client: httpx2.Client, log: Path | None) -> None:
        self._client = client
        self._log = log
        self._marks: deque[tuple[float, float]] = deque()
        self._memory: tuple[float, int | None] = (0.0, None)
        self.last_use = time.monotonic()

    def read(self) -> Load:
        """The load now; raises httpx2.HTTPError if the engine does not answer."""
        values = counters(self._client.get("/metrics", timeout=10).raise_for_status().text)
        now, tokens = time.monotonic(), values.get("vllm:generation_tokens_total", 0.0)
        if self._marks and tokens != self._marks[-1][1]:
            self.last_use = now
        self._marks.append((now, tokens))
        while len(self._marks) > 2 and self._marks[0][0] < now - WINDOW:
            self._marks.popleft()
        running = int(values.get("vllm:num_requests_running", 0))
        if running:
            self.last_use = now
        first, before = self._marks[0]
        speed = max(0.0, (tokens - before) / (now - first)) if now > first else None
        return Load(
            speed,
            running,
            int(values.get("vllm:num_requests_waiting", 0)),
            values.get("vllm:kv_cache_usage_perc"),
            self._resident(now),
        )

    def _resident(self, now: float) -> int | None:
        """Main memory of the engine's processes; looked up every few seconds."""
        if self._log is not None and (now - self._memory[0] > WINDOW / 2 or not self._memory[0]):
            self._memory = (now, resident_bytes(self._log))
        return self._memory[1]


def counters(text: str) -> dict[str, float]:
    """vLLM's metrics by name, added up over their labels."""
    found: dict[str, float] = {}
    for name, value in _LINE.findall(text):
        found[name] = found.get(name, 0.0) + float(value)
    return found


def resident_bytes(log: Path) -> int:
    """The resident memory of all processes that write to the log; shared pages count once each."""
    total = 0
    for pid in belonging(log):
        try:
            total += int((PROC / str(pid) / "statm").read_text().split()[1]) * PAGE
        except OSError:
            continue  # it has ended
    return total
