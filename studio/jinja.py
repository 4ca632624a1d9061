"""Jinja as transformers offers it to chat templates, in a sandbox: a template is foreign code."""

import json
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import Any

from jinja2 import TemplateError, TemplateSyntaxError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment


def fill(template: str, variables: Mapping[str, Any]) -> str:
    """The text that a template gives for the variables.

    Raises SyntaxError, with the line, for what is not Jinja; a template itself can raise anything.
    """
    try:
        return _environment().from_string(template).render(variables)
    except TemplateSyntaxError as error:
        raise SyntaxError(error.message or "", (None, error.lineno, None, None)) from error


class _Generation(Extension):
    """transformers' {% generation %} … {% endgeneration %}: marks answers, prints its content."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


@cache
def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _Generation]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment


def _raise(message: str) -> None:
    raise TemplateError(message)


def _tojson(value: Any, indent: int | None = None) -> str:
    """Plain JSON: Jinja's own filter would escape it for HTML."""
    return json.dumps(value, ensure_ascii=False, indent=indent)
