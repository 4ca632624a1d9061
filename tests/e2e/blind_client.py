"""A rater without a browser: asks the Blind tab's functions as its page does."""

import time
from typing import Any

import httpx

FUNCTION = "/gradio_api/component_server"


class BlindClient:
    """One rater's connection to a running studio."""

    def __init__(self, url: str, trial: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=60)
        parts = self._client.get("/config").json()["components"]
        (self._number,) = [p["id"] for p in parts if p["props"].get("elem_id") == "blind-tab"]
        self._me = {"trial": trial}
        joined, _ = self.ask("join", name="")
        self.rater, self._me["code"] = joined["rater"], joined["code"]

    def ask(self, function: str, **data: object) -> tuple[dict[str, Any], float]:
        """The function's answer, and the seconds it took; raises httpx's error if there is none."""
        data = {**self._me, **data}
        body = {
            "data": data,
            "component_id": self._number,
            "session_hash": "x",
            "fn_name": function,
        }
        began = time.perf_counter()
        answer = self._client.post(FUNCTION, json=body)
        seconds = time.perf_counter() - began
        return answer.json(), seconds

    def close(self) -> None:
        """Hang up."""
        self._client.close()
