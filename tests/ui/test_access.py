import json
from typing import Any

import pytest

from studio.errors import StudioError
from studio.settings import Settings
from studio.ui.access import Access, answers

TOKEN = "correct horse battery"
OPEN = Settings()
CLOSED = Settings(host="0.0.0.0")
OWNED = Settings(host="0.0.0.0", owner_token=TOKEN)


@pytest.mark.parametrize(
    ("settings", "token", "owner"),
    [
        (OPEN, None, True),
        (OPEN, "anything", True),
        (CLOSED, None, False),
        (CLOSED, "", False),
        (CLOSED, "None", False),
        (OWNED, TOKEN, True),
        (OWNED, TOKEN[:-1], False),
        (OWNED, TOKEN + " ", False),
        (OWNED, "", False),
        (OWNED, None, False),
        (OWNED, [TOKEN], False),
        (OWNED, {"token": TOKEN}, False),
        (OWNED, True, False),
        (OWNED, "ключ", False),
        (OWNED, "\ud800", False),
        (Settings(owner_token=TOKEN), None, False),
        (Settings(on_space=True), None, False),
        (Settings(on_space=True, owner_token=TOKEN), TOKEN, True),
    ],
)
def test_owner_is_who_may_be(settings: Settings, token: object, owner: bool) -> None:
    access, request = Access(settings), {"token": token}
    assert access.is_owner(request) is owner
    assert access.who(request)["owner"] is owner
    if owner:
        access.require_owner(request, "merging")
    else:
        with pytest.raises(StudioError, match="^merging is "):
            access.require_owner(request, "merging")


def test_refusal_says_how_to_mend_it() -> None:
    with pytest.raises(StudioError, match="start it with STUDIO_OWNER_TOKEN"):
        Access(CLOSED).require_owner({}, "merging")
    with pytest.raises(StudioError, match="enter the owner token"):
        Access(OWNED).require_owner({"token": "wrong"}, "merging")


def test_description_never_holds_the_token() -> None:
    assert TOKEN not in str(Access(OWNED).who({"token": TOKEN}))
    assert TOKEN not in repr(OWNED)


def test_answers_tells_studio_errors_and_hides_others(caplog: pytest.LogCaptureFixture) -> None:
    def handler(request: Any) -> dict[str, Any]:
        if request["kind"] == "bug":
            raise KeyError("/secret/path")
        raise StudioError("t is 7; use 0 to 1")

    def answer(request: object) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(answers(handler)(request).body)
        return found

    assert answer({"kind": "user"}) == {"error": "t is 7; use 0 to 1"}
    told = answer({"kind": "bug"})["error"]
    assert "secret" not in told and "log" in told
    assert "/secret/path" in caplog.text
    assert "JSON object" in answer([1])["error"]
