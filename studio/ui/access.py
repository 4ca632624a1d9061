"""Who may do what: the one place that every handler asks."""

import functools
import hmac
import logging
from collections.abc import Callable, Mapping
from typing import Any

import orjson
from starlette.responses import Response

from studio.errors import StudioError
from studio.settings import Settings

MISTAKE = "the studio made a mistake here; its log on the server tells more"
log = logging.getLogger(__name__)
Request = Mapping[str, Any]
"""What a page sends: named values, the visitor's `token` among them, if they have one."""
Answer = dict[str, Any]
Handler = Callable[[Request], Answer]


class Access:
    """Tells the owner from a visitor.

    A visitor may look, tune the shipped recipes, and rate the trials that the owner has opened.
    Whatever else writes, merges, starts a process or touches a path of the visitor's choice is the
    owner's.
    """

    def __init__(self, settings: Settings) -> None:
        self._open = settings.is_open
        self._token = settings.owner_token

    def is_owner(self, request: Request) -> bool:
        """Whether it is the owner who asks; a token that is anything but the right text is not."""
        if self._open:
            return True
        token = request.get("token")
        if self._token is None or not isinstance(token, str):
            return False
        return hmac.compare_digest(token.encode("utf-8", "replace"), self._token.encode())

    def require_owner(self, request: Request, what: str) -> None:
        """Raise StudioError unless it is the owner who asks; `what` begins the sentence."""
        if self.is_owner(request):
            return
        if self._token is None:
            raise StudioError(
                f"{what} is off: this studio can be reached by others and has no owner token; "
                "start it with STUDIO_OWNER_TOKEN to use it"
            )
        raise StudioError(f"{what} is for the owner of this studio: enter the owner token")

    def require_rater(self, request: Request, *, is_open: bool) -> None:
        """Raise StudioError unless the one who asks may rate a trial: the owner always, others
        where the owner has opened it (`is_open`)."""
        if not is_open and not self.is_owner(request):
            raise StudioError("this trial is not open: its owner has to open it for raters")

    def who(self, request: Request) -> Answer:
        """What the page shows of who asks: `owner`, `open`, `token_set`, and whether the token that
        was sent is `wrong`."""
        is_owner = self.is_owner(request)
        return {
            "owner": is_owner,
            "open": self._open,
            "token_set": self._token is not None,
            "wrong": bool(request.get("token")) and not is_owner,
        }


def answers(handler: Handler) -> Callable[[Any], Response]:
    """Make a server function of a handler: an error becomes an answer that the page can show.

    Gradio turns an exception into silence. A StudioError is told as it is; anything else is a
    bug, whose traceback goes to the log and whose text stays here. The answer is JSON already:
    FastAPI would look through lists number by number, for as long as a preview takes to compute.
    """

    @functools.wraps(handler)
    def answer(request: Any) -> Response:
        try:
            if not isinstance(request, dict):
                raise StudioError("a request must be a JSON object")
            return _json(handler(request))
        except StudioError as error:
            return _json({**error.data, "error": str(error)})
        except Exception:
            log.exception("%s failed", handler.__name__)
            return _json({"error": MISTAKE})

    # Gradio reads the signature to decide what to pass on: one argument, the request.
    del answer.__wrapped__
    return answer


def _json(answer: Answer) -> Response:
    return Response(orjson.dumps(answer), media_type="application/json")
