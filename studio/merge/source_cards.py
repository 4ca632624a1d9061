"""What the sources' own model cards say, read without trust."""

import re
from pathlib import Path

import yaml

CARD = "README.md"
_LONGEST = 64 << 10
_FRONT_MATTER = re.compile(r"\A\ufeff?---[ \t]*\r?\n(.*?)^---[ \t]*\r?$", re.DOTALL | re.MULTILINE)
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,49}")


def license_of(folder: Path) -> str | None:
    """The licence's short name in the front matter of a model's card.

    None if there is no card, it names none or several, or what it names is not a short name such
    as "apache-2.0". "other" counts as unknown: two licences of that name need not be the same.
    """
    path = folder / CARD
    if not path.is_file():
        return None
    with path.open("rb") as file:
        text = file.read(_LONGEST).decode(errors="replace")
    matter = _FRONT_MATTER.match(text)
    if matter is None:
        return None
    try:
        # The plain tree of the text, without building its values: aliases stay short.
        root = yaml.compose(matter[1], Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError, ValueError):
        return None  # a card that cannot be read states no licence
    return _license(root)


def _license(root: yaml.Node | None) -> str | None:
    if not isinstance(root, yaml.MappingNode):
        return None
    values = [value for key, value in root.value if key.value == "license"]
    if len(values) == 1 and values[0].tag == "tag:yaml.org,2002:seq":
        values = values[0].value
    if len(values) != 1 or values[0].tag != "tag:yaml.org,2002:str":
        return None
    name = str(values[0].value).strip().lower()
    return name if _LICENSE.fullmatch(name) and name not in ("other", "unknown") else None
