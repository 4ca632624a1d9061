from pathlib import Path

import pytest

from studio.errors import StudioError
from studio.settings import VARIABLES, Settings, is_loopback, read_settings

TOKEN = "sixteen letters!"


def test_settings_are_safe_by_default() -> None:
    assert read_settings({}) == Settings("127.0.0.1", 7860, Path("data"), None, False)
    assert read_settings({}).is_open


def test_settings_read_every_variable() -> None:
    environ = {"STUDIO_HOST": "0.0.0.0", "STUDIO_PORT": "80", "STUDIO_DATA": "/d",
               "STUDIO_OWNER_TOKEN": TOKEN, "STUDIO_RATE": "/p", "SPACE_ID": "me/s"}  # fmt: skip
    assert read_settings(environ) == Settings("0.0.0.0", 80, Path("/d"), TOKEN, True, Path("/p"))


@pytest.mark.parametrize(
    ("environ", "is_open"),
    [
        ({"STUDIO_HOST": "localhost"}, True),
        ({"STUDIO_HOST": "::1"}, True),
        ({"STUDIO_HOST": "127.0.0.2"}, True),
        ({"STUDIO_HOST": "0.0.0.0"}, False),
        ({"STUDIO_HOST": "::"}, False),
        ({"STUDIO_HOST": "192.168.1.2"}, False),
        ({"STUDIO_HOST": "localhost.example.com"}, False),
        ({"SPACE_ID": "me/studio"}, False),
        ({"SYSTEM": "spaces"}, False),
        ({"SPACE_ID": "me/studio", "STUDIO_HOST": "127.0.0.1"}, False),
        ({"STUDIO_OWNER_TOKEN": TOKEN}, False),
        ({"STUDIO_OWNER_TOKEN": "", "STUDIO_HOST": ""}, True),
    ],
)
def test_studio_is_open_only_to_its_own_machine(environ: dict[str, str], is_open: bool) -> None:
    assert read_settings(environ).is_open is is_open


def test_space_listens_to_all() -> None:
    assert read_settings({"SPACE_ID": "me/studio"}).host == "0.0.0.0"


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"STUDIO_PROT": "1"}, r'STUDIO_PROT is not a setting.*did you mean "STUDIO_PORT"'),
        ({"STUDIO_PORT": "http"}, 'STUDIO_PORT is "http"; use a whole number'),
        ({"STUDIO_PORT": "0"}, "1 to 65535"),
        ({"STUDIO_PORT": "65536"}, "1 to 65535"),
        ({"STUDIO_PORT": "-1"}, "1 to 65535"),
        ({"STUDIO_OWNER_TOKEN": "short"}, "has 5 characters; use at least 16"),
        ({"STUDIO_OWNER_TOKEN": " " * 20}, "has 0 characters"),
    ],
)
def test_settings_refuse(environ: dict[str, str], message: str) -> None:
    with pytest.raises(StudioError, match=message):
        read_settings(environ)


def test_settings_list_every_problem_and_never_the_token() -> None:
    with pytest.raises(StudioError, match="2 problems") as caught:
        read_settings({"STUDIO_PORT": "x", "STUDIO_OWNER_TOKEN": "hunter2"})
    assert "hunter2" not in str(caught.value)


def test_tools_variables_are_no_settings_but_allowed() -> None:
    assert read_settings({"STUDIO_CHROMIUM": "/c", "STUDIO_MERGEKIT_VENV": "/m"}) == Settings()


@pytest.mark.parametrize(
    "host", ["", "evil.example", "127.0.0.1.evil.example", "0.0.0.0", "1.2.3.4"]
)
def test_loopback_is_nothing_else(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize("name", VARIABLES)
def test_setting_is_explained_in_the_readme(name: str) -> None:
    assert f"`{name}`" in (Path(__file__).parents[1] / "README.md").read_text()
