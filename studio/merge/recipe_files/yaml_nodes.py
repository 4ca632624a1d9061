"""Reading YAML with line numbers: small checked steps from a node tree to values."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import NoReturn

import yaml

from studio.errors import StudioError, nearest

MAX_TEXT = 1_000_000
_REMEDIES = {  # by the sign that YAML does not take
    "`": "leave out the lines with ```, the recipe is what stands between them",
    "\\t": "indent with spaces instead of tabs",
}
_NUMBERS = {
    "tag:yaml.org,2002:int": yaml.constructor.SafeConstructor().construct_yaml_int,
    "tag:yaml.org,2002:float": yaml.constructor.SafeConstructor().construct_yaml_float,
}


@dataclass(frozen=True, slots=True)
class Field:
    """A YAML node and what to call it in errors."""

    node: yaml.Node
    origin: str
    label: str

    def fail(self, problem: str) -> NoReturn:
        """Raise a StudioError that names the file and the line of this node."""
        line = self.node.start_mark.line + 1
        raise StudioError(f"{self.origin}, line {line}: {self.label}: {problem}")

    def _child(self, node: yaml.Node, label: str) -> "Field":
        return Field(node, self.origin, label)

    def fields(self, known: Collection[str]) -> dict[str, "Field"]:
        """The entries of a mapping; a key that is not `known`, or given twice, is an error."""
        found: dict[str, Field] = {}
        for key, entry in self.entries():
            if key not in known:
                entry.fail(
                    f'unknown key "{key}"{nearest(key, list(known))}; '
                    f"supported here: {', '.join(sorted(known))}"
                )
            found[key] = entry
        return found

    def entries(self) -> list[tuple[str, "Field"]]:
        """The keys and entries of a mapping, in order; a key given twice is an error."""
        if not isinstance(self.node, yaml.MappingNode):
            self.fail("expected a mapping of keys to values")
        found: list[tuple[str, Field]] = []
        for key_node, value_node in self.node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key is None:
                self._child(key_node, self.label).fail("a key must be plain text")
            if key in {seen for seen, _ in found}:
                self._child(key_node, key).fail("given twice; keep one")
            found.append((key, self._child(value_node, key)))
        return found

    def items(self) -> list["Field"]:
        """The items of a non-empty list."""
        if not isinstance(self.node, yaml.SequenceNode):
            self.fail("expected a list")
        if not self.node.value:
            self.fail("the list is empty")
        return [self._child(node, self.label) for node in self.node.value]

    @property
    def is_list(self) -> bool:
        """Whether this is a list (of anything)."""
        return isinstance(self.node, yaml.SequenceNode)

    @property
    def is_mapping(self) -> bool:
        """Whether this is a mapping."""
        return isinstance(self.node, yaml.MappingNode)

    def text(self) -> str:
        """A scalar as the text it is written as; empty and null are errors."""
        if not isinstance(self.node, yaml.ScalarNode) or self.is_null or not self.node.value:
            self.fail("expected text")
        return str(self.node.value)

    @property
    def is_null(self) -> bool:
        """Whether the value is missing (`key:` with nothing behind it) or null."""
        return str(self.node.tag).endswith(":null")

    def number(self) -> float:
        """A finite number; scientific notation without a point (1e-3) counts, as in mergekit."""
        if not isinstance(self.node, yaml.ScalarNode) or self.node.tag.endswith(":bool"):
            self.fail("expected a number")
        convert = _NUMBERS.get(self.node.tag)  # YAML has more of them than Python: 010 is 8
        try:
            value = float(convert(self.node) if convert else self.node.value)
        except (ValueError, OverflowError):
            self.fail(f'"{self.node.value}" is not a number')
        if not isfinite(value):
            self.fail(f"{self.node.value} is not a finite number")
        return value

    def switch(self) -> bool:
        """true or false; 1 and 0 count, as in mergekit."""
        if not isinstance(self.node, yaml.ScalarNode):
            self.fail("expected true or false")
        if self.node.tag.endswith(":bool"):
            return bool(yaml.SafeLoader.bool_values[self.node.value.lower()])
        if self.node.tag not in _NUMBERS or self.number() not in (0, 1):
            self.fail("expected true or false")
        return bool(self.number())

    def whole_numbers(self, count: int) -> Sequence[int]:
        """A list of `count` whole numbers that are not negative."""
        values = [item.number() for item in self.items()] if self.is_list else []
        if len(values) != count or any(value != int(value) or value < 0 for value in values):
            self.fail(f"expected {count} whole numbers of at least 0")
        return [int(value) for value in values]


def documents(text: str, origin: str) -> list[Field]:
    """The documents of a YAML text, as fields; `origin` is the name to use in errors."""
    if len(text) > MAX_TEXT:
        raise StudioError(f"{origin}: {len(text):,} characters is too long for a recipe")
    try:
        nodes = [
            node for node in yaml.compose_all(text, Loader=yaml.SafeLoader) if node is not None
        ]
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        what = getattr(error, "problem", None) or str(error).splitlines()[0]
        mend = "".join(f"; {remedy}" for sign, remedy in _REMEDIES.items() if f"'{sign}'" in what)
        raise StudioError(f"{origin}{where}: this is not valid YAML: {what}{mend}") from error
    nodes = [node for node in nodes if not (isinstance(node, yaml.ScalarNode) and not node.value)]
    return [Field(node, origin, "recipe") for node in nodes]
