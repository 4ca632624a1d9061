"""Reading which model is meant: by its name, or as older versions of mergekit write names out."""

from studio.merge.recipe_files.yaml_nodes import Field


def read_model(field: Field) -> str:
    """A folder, a Hub id, id@revision or the name of a stage; a model with a LoRA is an error."""
    name = _written_out(field) if field.is_mapping else field.text()
    if "+" in name:
        field.fail(f'"{name}" asks for a LoRA; merge the LoRA into its model first')
    if name.count("@") > 1:
        field.fail(f'"{name}" has two revisions; write it as model@revision')
    return name


def _written_out(field: Field) -> str:
    """`{model: {path: A, revision: main}, lora: null}` is A@main."""
    outer = field.fields(("model", "lora", "override_architecture"))
    for key in ("lora", "override_architecture"):
        if key in outer and not outer[key].is_null:
            outer[key].fail("not supported; leave it out, or use a model that needs none")
    if "model" not in outer:
        field.fail("model: is missing")
    if not outer["model"].is_mapping:
        return outer["model"].text()
    inner = outer["model"].fields(("path", "revision"))
    if "path" not in inner:
        field.fail("path: is missing")
    known = "revision" in inner and not inner["revision"].is_null
    return inner["path"].text() + (f"@{inner['revision'].text()}" if known else "")
