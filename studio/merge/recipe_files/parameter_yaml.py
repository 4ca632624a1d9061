"""Reading the values of parameters: numbers, gradients, rules with filters."""

from studio.merge.gradient import Parameter, Rule
from studio.merge.recipe_files.yaml_nodes import Field


def read_parameter(field: Field, *, is_switch: bool) -> Parameter:
    """A number, a list of anchors, one {filter, value} or a list of them."""
    if field.is_mapping:
        return (_rule(field, is_switch),)
    if field.is_list and field.items()[0].is_mapping:
        return tuple(_rule(item, is_switch) for item in field.items())
    return (Rule(_anchors(field, is_switch)),)


def _rule(field: Field, is_switch: bool) -> Rule:
    fields = field.fields(("filter", "value"))
    if "value" not in fields:
        field.fail("value: is missing")
    pattern = None
    if "filter" in fields and not fields["filter"].is_null:
        pattern = fields["filter"].text()
    return Rule(_anchors(fields["value"], is_switch), None if pattern == "*" else pattern)


def _anchors(field: Field, is_switch: bool) -> tuple[float, ...]:
    if is_switch:
        return (float(field.switch()),)
    if field.is_list:
        return tuple(item.number() for item in field.items())
    return (field.number(),)
