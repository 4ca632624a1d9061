"""Reading what a stage says of tokenizers: `tokenizer_source`, or the longer `tokenizer:`."""

from collections.abc import Mapping

from studio.errors import nearest
from studio.merge.recipe import Stage
from studio.merge.recipe_files.model_yaml import read_model
from studio.merge.recipe_files.yaml_nodes import Field

WORDS = ("base", "union")
UNSUPPORTED = {
    "tokens": "giving single tokens a source is not supported; leave it out, then a token comes "
    "from the models that have it",
    "pad_to_multiple_of": "padding the vocabulary is not supported; leave it out, engines pad for "
    "themselves",
}


def read_tokenizer(fields: Mapping[str, Field]) -> str | None:
    """The vocabulary to merge into, by either of the two keys; None: merge row by row."""
    if "tokenizer" not in fields:
        return read_model(fields["tokenizer_source"]) if "tokenizer_source" in fields else None
    if "tokenizer_source" in fields:
        fields["tokenizer"].fail("given beside tokenizer_source; keep one of the two")
    inner = fields["tokenizer"].fields(("source", *UNSUPPORTED))
    for key, reason in UNSUPPORTED.items():
        if key in inner and not inner[key].is_null:
            inner[key].fail(reason)
    return read_model(inner["source"]) if "source" in inner else "union"


def check_tokenizer(stage: Stage, fields: Mapping[str, Field], base: str | None) -> None:
    """Refuse a source that is no input of the stage, and one where nothing says what base is."""
    if stage.tokenizer is None:
        return
    field = fields.get("tokenizer_source") or fields["tokenizer"]
    known = (*WORDS, *stage.models)
    if stage.tokenizer not in known:
        field.fail(
            f'"{stage.tokenizer}" is neither base nor union nor a model of this stage'
            f"{nearest(stage.tokenizer, known)}; use one of {', '.join(known)}"
        )
    if base is None:
        field.fail(
            "needs base_model beside it: a token that a model lacks is taken from the base first, "
            f"and the other ids follow its own (one of {', '.join(stage.models)})"
        )
