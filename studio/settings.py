"""Every environment variable of the studio and its default, read once, in one typed place."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from studio.errors import StudioError, nearest

# These steer the tests and the set-up, not the studio.
OF_THE_TOOLS = frozenset(
    {"STUDIO_CHROMIUM", "STUDIO_MERGEKIT_VENV", "STUDIO_ARENA_RANK", "STUDIO_FASTCHAT"}
)
SHORTEST_TOKEN = 16


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment decides.

    `host`, `port`: where the studio listens. `data_dir`: the folder of everything that lasts.
    `owner_token`: the secret that lets its holder write, merge and start processes; None if there
    is none. `on_space`: whether this is a Hugging Face Space. `rate`: the trial pack to rate, a
    file or a folder, if the page is for rating alone.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    data_dir: Path = Path("data")
    owner_token: str | None = field(default=None, repr=False)
    on_space: bool = False
    rate: Path | None = None

    @property
    def is_open(self) -> bool:
        """Whether everyone who reaches the studio is its owner: only from the same machine.

        A token that is set is asked for even there: behind a proxy every visitor looks local.
        """
        return is_loopback(self.host) and not self.on_space and self.owner_token is None


VARIABLES = {
    "STUDIO_HOST": "the address to listen on (default 127.0.0.1, on a Space 0.0.0.0)",
    "STUDIO_PORT": "the port to listen on (default 7860)",
    "STUDIO_DATA": "the folder for everything that lasts (default ./data)",
    "STUDIO_OWNER_TOKEN": "the owner's secret, at least 16 characters (default: none)",
    "STUDIO_RATE": "a trial pack, if the page is for rating alone (default: the whole studio)",
}


def read_settings(environ: Mapping[str, str]) -> Settings:
    """The settings in `environ`; raises StudioError listing everything that is wrong in it.

    A variable that is set but empty counts as not set. SPACE_ID and SYSTEM are Hugging Face's.
    """
    problems = [
        f"{name} is not a setting of the studio{nearest(name, list(VARIABLES))}; unset it"
        for name in sorted(environ)
        if name.startswith("STUDIO_") and name not in VARIABLES and name not in OF_THE_TOOLS
    ]
    on_space = bool(environ.get("SPACE_ID")) or environ.get("SYSTEM") == "spaces"
    port = environ.get("STUDIO_PORT") or "7860"
    if not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        problems.append(f'STUDIO_PORT is "{port}"; use a whole number from 1 to 65535')
    token = environ.get("STUDIO_OWNER_TOKEN") or None
    if token is not None and (len(token) < SHORTEST_TOKEN or token != token.strip()):
        problems.append(
            f"STUDIO_OWNER_TOKEN has {len(token.strip())} characters; use at least "
            f"{SHORTEST_TOKEN}, without spaces at its ends"
        )
    if problems:
        raise StudioError.listing("the environment cannot be used", problems)
    return Settings(
        host=environ.get("STUDIO_HOST") or ("0.0.0.0" if on_space else "127.0.0.1"),
        port=int(port),
        data_dir=Path(environ.get("STUDIO_DATA") or "data"),
        owner_token=token,
        on_space=on_space,
        rate=Path(environ["STUDIO_RATE"]) if environ.get("STUDIO_RATE") else None,
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
