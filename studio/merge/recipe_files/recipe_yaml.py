"""Reading mergekit's recipe files, strictly: one YAML document a stage."""

from collections.abc import Mapping

from studio.errors import StudioError, nearest
from studio.merge.gradient import Parameter
from studio.merge.methods import METHODS, UNSUPPORTED, Method, Setting
from studio.merge.recipe import Input, Recipe, Settings, Slice, Stage, ordered
from studio.merge.recipe_files.model_yaml import read_model
from studio.merge.recipe_files.parameter_yaml import read_parameter
from studio.merge.recipe_files.tokenizer_yaml import check_tokenizer, read_tokenizer
from studio.merge.recipe_files.yaml_nodes import Field, documents

DTYPES = ("bfloat16", "float16", "float32")
# Settings that mergekit's recipes carry along for other methods or for older versions of it:
# mergekit ignores them here as well.
WITHOUT_EFFECT = {
    "int8_mask", "normalize", "rescale", "density", "weight", "lambda", "epsilon", "gamma", "t",
    "max_iter", "tol", "embed_slerp", "lazy_unpickle", "copy_tokenizer", "write_model_card",
    "allow_crimes", "trust_remote_code", "random_seed", "out_shard_size", "low_cpu_memory",
    "clone_tensors", "cuda",
}  # fmt: skip
OF_MERGEKIT_MOE = {"gate_mode", "experts", "shared_experts", "experts_per_token"}
BASE = "the base"
STAGE_KEYS = (
    "name", "merge_method", "base_model", "models", "slices", "modules", "parameters", "dtype",
    "out_dtype", "chat_template", "tokenizer_source", "tokenizer",
)  # fmt: skip


def load_recipe(text: str, origin: str = "recipe") -> Recipe:
    """Read a recipe; raises StudioError naming `origin`, line and key of the first mistake."""
    found = documents(text, origin)
    if not found:
        raise StudioError(f"{origin}: the recipe is empty; it needs at least one merge")
    warnings: list[str] = []
    stages = [_StageReader(document, warnings).stage() for document in found]
    try:
        stages_in_order = ordered(stages)
    except StudioError as error:
        raise StudioError(f"{origin}: {error}") from None
    used = {model for stage in stages for model in stage.models}
    for stage in stages_in_order[:-1]:
        if stage.name not in used:
            warnings.append(f'stage "{stage.name}" is not used by any other stage')
        if stage.chat_template is not None:
            warnings.append(f'stage "{stage.name}": only the last stage\'s chat_template counts')
    return Recipe(stages_in_order, tuple(warnings))


class _StageReader:
    """Reads one document; keeps the method at hand, on which the allowed settings depend."""

    def __init__(self, document: Field, warnings: list[str]) -> None:
        self.document, self.warnings = document, warnings
        self.stray: list[Field] = []
        self.fields = self._fields()
        self.method = self._method()
        self._check_stray()
        self.module_fields = self._unpack_module()

    def _fields(self) -> dict[str, Field]:
        """The fields of a stage; what else may stand beside them is left to `_check_stray`."""
        kept: dict[str, Field] = {}
        for key, field in self.document.entries():
            if key in STAGE_KEYS and field.is_null:
                continue  # written out, but not set
            if key in STAGE_KEYS:
                kept[key] = field
            elif key in WITHOUT_EFFECT:
                self.stray.append(field)
            elif key in OF_MERGEKIT_MOE:
                field.fail("this recipe is one for mergekit-moe; building experts is not supported")
            else:
                field.fail(
                    f'unknown key "{key}"{nearest(key, STAGE_KEYS)}; '
                    f"supported here: {', '.join(STAGE_KEYS)}"
                )
        return kept

    def _check_stray(self) -> None:
        for field in self.stray:
            if field.label in self.method.settings:
                field.fail(f'"{field.label}" is in the wrong place; it belongs under parameters:')
            self._without_effect(field)

    def _unpack_module(self) -> Mapping[str, Field]:
        """Take `modules: default:`, as mergekit writes its own recipes, for what it stands for."""
        if "modules" not in self.fields:
            return {}
        modules = self.fields.pop("modules")
        found = dict(modules.entries())
        if list(found) != ["default"]:
            modules.fail(
                f"models of modules ({', '.join(found)}) are not supported, only the module "
                '"default", which is a whole language model; merge the language model alone'
            )
        fields = found["default"].fields(("models", "slices", "parameters"))
        for key in fields.keys() & {"models", "slices"}:
            if key in self.fields:
                fields[key].fail("given twice, here and outside modules; keep one")
            self.fields[key] = fields[key]
        return fields

    def _stage_settings(self) -> Settings:
        """The parameters of the whole stage; a module's rules come before them."""
        outer = self._settings(self.fields)
        inner = self._settings(self.module_fields)
        return {**outer, **{name: inner[name] + outer.get(name, ()) for name in inner}}

    def _method(self) -> Method:
        if "merge_method" not in self.fields:
            self.document.fail(f"merge_method is missing; supported: {', '.join(METHODS)}")
        field = self.fields["merge_method"]
        name = field.text()
        if name not in METHODS:
            why = f": {UNSUPPORTED[name]}" if name in UNSUPPORTED else nearest(name, list(METHODS))
            field.fail(f'"{name}" is not supported{why}; supported: {", ".join(METHODS)}')
        return METHODS[name]

    def stage(self) -> Stage:
        """The stage this document describes."""
        base = read_model(self.fields["base_model"]) if "base_model" in self.fields else None
        stage = Stage(
            method=self.method.name,
            slices=self._slices(base),
            name=self._optional("name"),
            settings=self._stage_settings(),
            dtype=self._dtype("dtype"),
            out_dtype=self._dtype("out_dtype"),
            chat_template=self._optional("chat_template"),
            tokenizer=read_tokenizer(self.fields),
        )
        self._check_inputs(stage, base)
        check_tokenizer(stage, self.fields, base)
        return stage

    def _check_inputs(self, stage: Stage, base: str | None) -> None:
        where = self.fields.get("models") or self.fields["slices"]
        if len(set(stage.models)) < len(stage.models):
            where.fail("a model is listed twice; list each input once")
        exact, least = self.method.inputs, self.method.least
        if len(stage.models) < least or exact not in (None, len(stage.models)):
            where.fail(
                f"{self.method.name} takes {f'exactly {exact}' if exact else f'at least {least}'} "
                f"models, here are {len(stage.models)}: {', '.join(stage.models)}"
            )
        if self.method.needs_base and base is None:
            self.document.fail(
                f"base_model is missing; {self.method.name} needs it to know which model is "
                f"{self.method.base} (one of {', '.join(stage.models)})"
            )
        for name, setting in self.method.settings.items():
            if setting.default is None:
                self._check_given(stage, name, setting)

    def _check_given(self, stage: Stage, name: str, setting: Setting) -> None:
        for part in stage.slices:
            outer = name in part.settings or name in stage.settings
            own = part.inputs[setting.skips_base :] if setting.per_input else ()
            lacking = [entry.model for entry in own if name not in entry.settings]
            if not outer and (lacking or not setting.per_input):
                owner = f" for {', '.join(lacking)}" if lacking else ""
                self.document.fail(
                    f"parameters: {name} is missing{owner}; {self.method.name} needs it"
                )

    def _slices(self, base: str | None) -> tuple[Slice, ...]:
        given = [key for key in ("models", "slices") if key in self.fields]
        if len(given) != 1:
            self.document.fail("give exactly one of models: and slices:")
        field = self.fields[given[0]]
        if given == ["models"]:
            inputs = [self._input(item, base, layers=False) for item in field.items()]
            return (Slice(self._base_first(inputs, base)),)
        slices = [self._slice(item, base) for item in field.items()]
        position = 0
        for item, part in zip(field.items(), slices, strict=True):
            if part.start != position:
                item.fail(
                    f"the slice starts at layer {part.start} where layer {position} is next; "
                    "slices must cover the whole model once and in order"
                )
            if [e.model for e in part.inputs] != [e.model for e in slices[0].inputs]:
                item.fail("every slice must have the same models; mixing models by slice "
                          "(a frankenmerge) is not supported")  # fmt: skip
            position = part.end or 0
        return tuple(slices)

    def _slice(self, item: Field, base: str | None) -> Slice:
        fields = item.fields(("sources", "parameters", "base_model"))
        if "sources" not in fields:
            item.fail("sources: is missing")
        if "base_model" in fields and read_model(fields["base_model"]) != base:
            fields["base_model"].fail("a base_model of its own for a slice is not supported")
        sources = fields["sources"].items()
        ranges = [self._range(source) for source in sources]
        if len(set(ranges)) > 1:
            fields["sources"].fail(
                "the models have different layer ranges; stacking layers of different depth "
                "(a frankenmerge) is not supported"
            )
        inputs = [self._input(source, base, layers=True) for source in sources]
        if base not in (None, *(entry.model for entry in inputs)) and not self.method.needs_base:
            fields["sources"].fail(
                f"base_model {base} is not among the sources; list it, or leave base_model out"
            )
        settings = self._settings(fields)
        start, end = ranges[0]
        return Slice(self._base_first(inputs, base), start, end, settings)

    def _range(self, source: Field) -> tuple[int, int]:
        field = dict(source.entries()).get("layer_range") or source.fail("layer_range is missing")
        start, end = field.whole_numbers(2)
        if end <= start:
            field.fail(f"the range {start} to {end} is empty")
        return start, end

    def _input(self, item: Field, base: str | None, *, layers: bool) -> Input:
        known = ("model", "parameters", "layer_range") if layers else ("model", "parameters")
        fields = item.fields(known)
        if "model" not in fields:
            item.fail("model: is missing")
        model = read_model(fields["model"])
        return Input(model, self._settings(fields, BASE if model == base else "a model"))

    def _base_first(self, inputs: list[Input], base: str | None) -> tuple[Input, ...]:
        first = [entry for entry in inputs if entry.model == base]
        if base is not None and not first:
            first = [Input(base)]
        return (*first, *(entry for entry in inputs if entry.model != base))

    def _settings(self, fields: Mapping[str, Field], owner: str = "") -> Settings:
        """The parameters among the fields of a stage, a slice or (`owner` says which) an input."""
        if "parameters" not in fields or fields["parameters"].is_null:
            return {}
        settings: dict[str, Parameter] = {}
        for name, field in fields["parameters"].entries():
            known = self.method.settings.get(name)
            if known and _may_stand(known, owner):
                settings[name] = read_parameter(field, is_switch=known.is_switch)
            elif name in self.method.refused:
                if field.switch():
                    field.fail(
                        f"true is not supported: {self.method.refused[name]}, so the result is no "
                        "mix of whole tensors; leave it out"
                    )
            elif known or name in WITHOUT_EFFECT:
                self._without_effect(field, f" under {owner}" if known else "")
            else:
                words = list(self.method.settings)
                field.fail(
                    f'unknown parameter "{name}"{nearest(name, words)}; '
                    f"{self.method.name} takes: {', '.join(words) or 'none'}"
                )
        return settings

    def _without_effect(self, field: Field, where: str = "") -> None:
        line = field.node.start_mark.line + 1
        self.warnings.append(
            f"{field.origin}, line {line}: {field.label} has no effect here{where} and is ignored"
        )

    def _optional(self, key: str) -> str | None:
        return self.fields[key].text() if key in self.fields else None

    def _dtype(self, key: str) -> str | None:
        name = self._optional(key)
        if name is not None and name not in DTYPES:
            self.fields[key].fail(
                f'"{name}" is not supported{nearest(name, DTYPES)}; use {", ".join(DTYPES)}'
            )
        return name


def _may_stand(setting: Setting, owner: str) -> bool:
    if not owner:
        return True
    return setting.per_input and not (owner == BASE and setting.skips_base)
