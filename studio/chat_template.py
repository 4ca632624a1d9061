"""Chat templates: how a conversation becomes the text that a model continues.

A template is Jinja, as transformers and vLLM use it. Both tokenize its text without adding special
tokens (`apply_chat_template`, and vLLM's chat endpoint), so a template writes the BOS token itself
wherever the model expects one. Who renders a template to text and tokenizes that text by hand must
do the same, or the prompt begins with two BOS tokens.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from studio.errors import StudioError, nearest
from studio.weights.strict_json import read_object

FILE = "chat_template.jinja"
CONFIG = "tokenizer_config.json"
AUTO = "auto"
TEMPLATES = Path(__file__).parents[1] / "prompts" / "templates"
EXAMPLE = ({"role": "user", "content": "Write a haiku about the sea."},)


def names() -> tuple[str, ...]:
    """The names of the templates that come with the studio."""
    return tuple(sorted(path.stem for path in TEMPLATES.glob("*.jinja")))


def resolve(template: str | None, folders: Sequence[Path]) -> str | None:
    """The Jinja text that a recipe's `chat_template` means for sources in `folders`, base first.

    "auto": the most common template of the sources, the earlier source's where several are equally
    common; a name: one of `names()`; otherwise Jinja text. None: the recipe leaves the choice to
    the base, or "auto" finds no template. Raises StudioError for an unknown name and for Jinja
    that cannot be rendered, and for a base whose tokenizer files cannot be read.
    """
    tokens = special_tokens(folders[0])
    if template is None:
        return None
    if template == AUTO:
        found = Counter(text for folder in folders if (text := of_folder(folder)) is not None)
        return found.most_common(1)[0][0] if found else None
    if template in names():
        return named(template)
    if "{{" not in template and "{%" not in template:
        raise StudioError(
            f'chat_template "{template}" is not known{nearest(template, (AUTO, *names()))}; use '
            f"{AUTO}, {', '.join(names())}, or write the template's Jinja text"
        )
    check(template, tokens)
    return template


def named(name: str) -> str:
    """The Jinja text of one of the studio's own templates."""
    return (TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8")


def name_of(text: str) -> str | None:
    """The name of the studio's template with exactly this text."""
    return next((name for name in names() if named(name) == text), None)


def of_folder(folder: Path) -> str | None:
    """A model's own template: chat_template.jinja, else the one in tokenizer_config.json.

    Raises StudioError if the file that should hold it cannot be read.
    """
    path = folder / FILE
    if path.is_file():
        try:
            return path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise StudioError(f"{path}: not UTF-8 text; download the file again") from error
    found = _tokenizer_config(folder).get("chat_template")
    if isinstance(found, list):  # several, each with a name
        entries = [entry for entry in found if isinstance(entry, Mapping)]
        found = next((e.get("template") for e in entries if e.get("name") == "default"), None)
    return found if isinstance(found, str) else None


def special_tokens(folder: Path) -> dict[str, str]:
    """The special tokens a template may print, such as bos_token; those the tokenizer lacks are
    left out, as transformers does, and print nothing.
    """
    config = _tokenizer_config(folder)
    path = folder / "special_tokens_map.json"
    if path.is_file():
        config = read_object(path) | {k: v for k, v in config.items() if v is not None}
    tokens = {}
    for name in ("bos_token", "eos_token", "pad_token", "unk_token"):
        value = config.get(name)
        value = value.get("content") if isinstance(value, Mapping) else value
        if isinstance(value, str):
            tokens[name] = value
    return tokens


def check(template: str, tokens: Mapping[str, str]) -> None:
    """Raise StudioError for a template that fails on a conversation, or leaves the user out."""
    if EXAMPLE[0]["content"] not in render(template, tokens):
        raise StudioError(
            "the chat template does not print the user's message; it must loop over `messages` "
            "and print each message['content']"
        )


def render(
    template: str,
    tokens: Mapping[str, str],
    messages: Sequence[Mapping[str, str]] = EXAMPLE,
    *,
    add_generation_prompt: bool = True,
) -> str:
    """The text of a conversation; raises StudioError if the template cannot give it.

    `tokens`: from `special_tokens`.
    """
    from studio.jinja import fill  # most merges render nothing

    variables = {"messages": [dict(message) for message in messages], **tokens}
    try:
        return fill(template, variables | {"add_generation_prompt": add_generation_prompt})
    except SyntaxError as error:
        raise StudioError(
            f"the chat template is not valid Jinja (line {error.lineno}: {error.msg}); "
            "mend it or use one of the studio's templates by name"
        ) from error
    except Exception as error:  # a template is foreign code: it can raise anything
        raise StudioError(
            f"the chat template fails on a conversation of {len(messages)} messages ({error}); "
            "mend it or use one of the studio's templates by name"
        ) from error


def _tokenizer_config(folder: Path) -> dict[str, object]:
    path = folder / CONFIG
    return read_object(path) if path.is_file() else {}
