"""Blindness: nothing that reaches a browser before the vote tells which model is on which side."""

import base64
import codecs
import hashlib
import itertools
import json
import math
import random
import re
import statistics
from collections.abc import Callable, Iterator
from urllib.parse import quote, urlsplit

import pytest
from playwright.sync_api import Page, Request, expect

from studio.arena.prompts.prompt import Prompt
from tests.e2e.blind_client import BlindClient
from tests.e2e.conftest import Visited
from tests.e2e.recorder import Recorder
from tests.e2e.test_blind_tab import rate, settle
from tests.ui.blind.test_rating import ASKED, text_by_side, two_secrets
from tests.ui.canned import canned_trial, plain, prompts

CANARIES = ("zyxomma-merge-7b", "quokkaline-70b")
MINE = re.compile('"fn_name": ?"(?:join|item|vote|skip|undo)"')


@pytest.fixture(scope="module")
def studio(start: Callable[..., Visited]) -> Visited:
    return start("app.py")


def spellings(name: str) -> dict[str, bytes]:
    """The name as it could be written, in lower case where case cannot matter."""
    raw = name.encode()
    found = {
        "plain": raw,
        "reversed": raw[::-1],
        "percent": quote(name, safe="").encode(),
        "every byte percent": "".join(f"%{byte:02x}" for byte in raw).encode(),
        "hex": raw.hex().encode(),
        "rot13": codecs.encode(name, "rot13").encode(),
        "json": "".join(f"\\u{ord(c):04x}" for c in name).encode(),
        "entities": "".join(f"&#{ord(c)};" for c in name).encode(),
        "utf-16": name.encode("utf-16-le"),
        "no hyphens": name.replace("-", "").encode(),
        "first word": name.partition("-")[0].encode(),
    }
    for shift in range(3):  # wherever the name begins in what is encoded
        encoded = base64.b64encode(b"\0" * shift + raw + b"\0" * (-(shift + len(raw)) % 3))
        whole = encoded[4 * bool(shift) : len(encoded) - 4].rstrip(b"=")
        found[f"base64, {shift}"] = whole
    for algorithm in ("md5", "sha1", "sha256", "blake2b"):
        digest = hashlib.new(algorithm, raw).digest()
        found[algorithm] = digest.hex()[:12].encode()
        found[f"{algorithm}, base64"] = base64.b64encode(digest)[:12]
    return found


def canaries_in(heard: bytes) -> list[str]:
    """Which spellings of which names occur."""
    lower = heard.lower()
    return [
        f"{name}, {how}"
        for label in CANARIES
        for name in (label, f"/models/{label}")
        for how, spelled in spellings(name).items()
        if spelled in heard or spelled.lower() in lower
    ]


@pytest.mark.parametrize(
    "wrap",
    [
        lambda text: text.upper(),
        lambda text: base64.b64encode(f"ab{text}c".encode()).decode(),
        lambda text: base64.b64encode(f"a{text}".encode()).decode(),
        lambda text: f"x{text[::-1]}y",
        lambda text: text.encode().hex(),
        lambda text: hashlib.sha256(text.encode()).hexdigest(),
    ],
)
def test_search_finds_a_hidden_name(wrap: Callable[[str], str]) -> None:
    assert canaries_in(f"before {wrap(CANARIES[1])} after".encode())
    assert not canaries_in(f"before {wrap('another-name-13b')} after".encode())


def test_no_byte_before_the_vote_names_a_model(studio: Visited, visit: Callable[..., Page]) -> None:
    canned_trial(studio.data / "trials", "canary", CANARIES, asked=prompts(4))
    recorder = Recorder(urlsplit(studio.url).port or 0)
    page = visit(recorder.url)
    rate(page, "canary")
    for key in "1s23":
        settle(page)
        page.keyboard.press(key)
        expect(page.locator(".bl-vote").first).to_be_enabled()
    settle(page)
    before = recorder.heard()
    kept = page.evaluate("JSON.stringify([localStorage, sessionStorage, document.cookie])")
    assert len(before) > 100_000
    assert plain(CANARIES[0], prompts(1)[0], 0)[:8].encode() in before  # the answers went through
    assert canaries_in(before + kept.encode() + page.content().encode()) == []

    page.keyboard.press("4")
    page.get_by_role("button", name="Show which was which").click()
    expect(page.get_by_role("row", name=CANARIES[0])).to_be_visible()
    assert canaries_in(recorder.heard())  # so the recorder would have heard it
    recorder.close()


class Secrets:
    """What a trial draws its secret from."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def token_bytes(self, size: int) -> bytes:
        return self._secret


def test_swapping_the_models_changes_nothing_in_the_traffic(
    studio: Visited, visit: Callable[..., Page], monkeypatch: pytest.MonkeyPatch
) -> None:
    for trial, secret in zip(("swap-a", "swap-b"), two_secrets(), strict=True):
        texts = text_by_side(secret)

        def write(model: str, prompt: Prompt, draw: int, texts: dict = texts) -> str:
            return texts[model, prompt.id]

        monkeypatch.setattr("studio.arena.trials.trial.secrets", Secrets(secret))
        canned_trial(studio.data / "trials", trial, ("one", "two"), asked=ASKED, write=write)
    seen, others = [], []
    for trial in ("swap-a", "swap-b"):
        page = visit(studio.url)
        page.goto("about:blank")
        requests: list[Request] = []
        page.on("requestfinished", lambda request, heard=requests: heard.append(request))
        page.goto(studio.url)  # heard from the first byte on
        page.get_by_role("slider").first.wait_for()
        rate(page, trial)
        for key, count in (("1", 2), ("s", 2), ("u", 1), ("2", 2), ("3", 3), ("4", 4)):
            settle(page)
            page.keyboard.press(key)
            expect(page.locator(".bl-count")).to_have_text(f"{count} of 4")
        for change in (("", ""), (r'"item": ?"....', '"item":"0000'), ('"4"', '"5"')):
            refused(page, requests, *change)
        settle(page)
        page.keyboard.press("1")
        expect(page.locator(".bl-count")).to_have_text("4 of 4 rated")
        code = page.evaluate("localStorage.getItem('merge-studio-rater')")
        told = [(request, anonymous(described(request), code)) for request in requests]
        seen.append([line for request, line in told if MINE.search(request.post_data or "")])
        others.append({line for request, line in told if not MINE.search(request.post_data or "")})
        page.close()
    assert len(seen[0]) == 12 and "the left text" in "".join(seen[0])
    assert seen[0] == seen[1]
    assert len(others[0]) > 20 and others[0] == others[1]


def refused(page: Page, requests: list[Request], old: str, new: str) -> None:
    """Send the last vote once more, changed, as the page would."""
    body = next(r.post_data for r in reversed(requests) if '"vote"' in (r.post_data or ""))
    send = """([url, body]) => fetch(url, {method: "POST", body,
        headers: {"Content-Type": "application/json"}}).then((answer) => answer.text())"""
    url = f"{page.url.rstrip('/')}/gradio_api/component_server/"
    assert '"error"' in page.evaluate(send, [url, re.sub(old, new, body or "")])


def described(request: Request) -> str:
    """A request and its answer, with every header that is no time."""
    response = request.response()
    assert response is not None
    headers = {key: value for key, value in response.all_headers().items() if key != "date"}
    parts = [request.method, request.url, request.post_data, response.status, headers]
    return json.dumps([*parts, response.body().decode("latin-1")])


def anonymous(line: str, code: str) -> str:
    random_parts = rf"rater-[0-9a-f]{{8}}|{code}|\b[0-9a-f]{{16}}\b|swap-[ab]"
    line = re.sub(random_parts, "ID", line)
    return re.sub(r'(session_hash\\": ?\\")[a-z0-9]+', r"\1ID", line)


# ---- timing ------------------------------------------------------------------------------------

ASKED_OF_EACH = 12
DRAWS = 5
RATERS = 25  # each votes once on each prompt: 300 answers of the server are timed
ALPHA = 0.001


def rank_test(one: list[float], two: list[float]) -> float:
    """The two-sided p-value of the Mann-Whitney U test, by its normal approximation."""
    u = sum((a > b) + 0.5 * (a == b) for a, b in itertools.product(one, two))
    n, m = len(one), len(two)
    z = (u - n * m / 2) / math.sqrt(n * m * (n + m + 1) / 12)
    return math.erfc(abs(z) / math.sqrt(2))


def timings(studio: Visited, trial: str, sides: dict[str, str]) -> Iterator[tuple[str, float]]:
    """Which model is left in each item, and the seconds until the studio has sent that item."""
    for _ in range(RATERS):
        client = BlindClient(studio.url, trial)
        answer, seconds = client.ask("item")
        while answer["item"]:
            item = answer["item"]["id"]
            yield sides[item], seconds
            answer, seconds = client.ask("vote", item=item, verdict="a")
        client.close()


def test_timing_does_not_tell_the_models_apart(studio: Visited) -> None:
    """Length-matched answers; Mann-Whitney U, two-sided, about 150 against 150 items: a false
    alarm in one run of a thousand. Half the spread of the timings would be noticed."""
    made = canned_trial(
        studio.data / "trials", "timed", ("one", "two"), asked=prompts(ASKED_OF_EACH),
        write=lambda model, prompt, draw: f"{model[0]}{prompt.id:>4}{draw}".ljust(2000, "."),
        draws=DRAWS, votes_per_prompt=RATERS, raters=RATERS,
    )  # fmt: skip
    sides = {item.id: item.left.model for item in made.items.values()}
    found: dict[str, list[float]] = {"one": [], "two": []}
    for left, seconds in timings(studio, "timed", sides):
        found[left].append(seconds)
    one, two = found["one"], found["two"]
    assert len(one) + len(two) == ASKED_OF_EACH * RATERS and min(len(one), len(two)) > 130
    assert rank_test(one, two) > ALPHA, (statistics.median(one), statistics.median(two))

    everything = [*one, *two]
    random.Random(1).shuffle(everything)
    low, _, high = statistics.quantiles(everything, n=4)
    slower = [seconds + (high - low) / 2 for seconds in everything[: len(one)]]
    assert rank_test(slower, everything[len(one) :]) < ALPHA
