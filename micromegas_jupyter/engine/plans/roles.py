"""Infers the roles of a result's columns from those of the data model's columns, based on a statement's plan.

They depend on the statement and the data model only, never on rows, files, or row filters.
"""

import functools
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import pyarrow as pa
from datafusion.plan import LogicalPlan

from micromegas_jupyter.engine.contract import VisibleTable
from micromegas_jupyter.telemetry.tables import DEFINITIONS, ColumnRole, find_role, role_metadata

_log = logging.getLogger(__name__)
#: The role of columns outside the data model, and of values from JSON.
_UNKNOWN: Final = ColumnRole("")
#: The role of constants and parameters; string constants are group names, as in `CASE level WHEN 1 THEN 'fatal' END`.
_CONSTANT: Final = ColumnRole("constant")
#: The role of values that aren't measures and have no other role, such as a sum of severities.
_NO_ROLE: Final = ColumnRole("none")
_MEASURE, _COUNT, _BYTES = ColumnRole("measure"), ColumnRole("measure", "1"), ColumnRole("measure", "By")
_TIME: Final = ColumnRole("time")
_CATEGORY: Final = ColumnRole("category")
_FIRST, _ANY, _SUM, _TEXT = "first", "any", "sum", "text"
# The role of a function's result: either fixed, or a rule that derives it from the operands.
_RULES: Final[Mapping[str, ColumnRole | str]] = {
    name: rule
    for rule, names in (
        (_COUNT, "count approx_distinct regr_count row_number rank dense_rank ntile character_length"),
        (_COUNT, "cardinality array_length jsonb_array_length properties_length count_from_histogram"),
        (_MEASURE, "histogram_quantile quantile_from_histogram variance_from_histogram sum_from_histogram"),
        (_MEASURE, "jsonb_as_f64 corr percent_rank cume_dist"),
        (_BYTES, "octet_length"),
        (_UNKNOWN, "jsonb_parse jsonb_get jsonb_path_query jsonb_path_query_first jsonb_as_i64"),
        (_TIME, "date_bin date_trunc now current_timestamp current_date to_date make_date from_unixtime to_timestamp"),
        (_TIME, "to_timestamp_seconds to_timestamp_millis to_timestamp_micros to_timestamp_nanos"),
        (_CATEGORY, "to_char date_format property_get jsonb_as_string regexp_like regexp_match array_has"),
        (_CATEGORY, "starts_with ends_with contains bool_and bool_or"),
        (_FIRST, "min max first_value last_value nth_value any_value lag lead median approx_median percentile_cont"),
        (_FIRST, "quantile_cont approx_percentile_cont approx_percentile_cont_with_weight round trunc abs ceil floor"),
        (_FIRST, "arrow_cast encode decode array_element"),
        (_ANY, "coalesce nullif nvl ifnull greatest least"),
        (_SUM, "sum avg mean stddev stddev_pop stddev_samp"),
        (_TEXT, "|| lower upper trim btrim ltrim rtrim concat concat_ws substr substring left right split_part"),
        (_TEXT, "replace regexp_replace string_agg"),
    )
    for name in names.split()
}
#: Fields of histograms, and of `jsonb_each`.
_FIELDS: Final = {"key": _CATEGORY, "count": _COUNT, "sum": _MEASURE, "min": _MEASURE, "max": _MEASURE}
_ARITHMETIC: Final = frozenset("+-*/%&|#^")
_CONDITIONS: Final = frozenset({"Not", "InList", "Between", "Like", "SimilarTo", "InSubquery", "Exists"})
_STEPS: Final = frozenset({"Filter", "Sort", "Limit", "Distinct", "Repartition", "Unnest"})
# The columns that a plan step returns, each with its relation, if any.
_Outputs = Sequence[tuple[str | None, str, ColumnRole]]
_Scope = Mapping[object, ColumnRole]
# Maps each alias to a table's definition and the name of its scan.
_Models = Mapping[str, tuple[str, str]]


def with_roles(schema: pa.Schema, written: LogicalPlan, tables: Iterable[VisibleTable]) -> pa.Schema:
    """Add column roles to the schema of an unoptimized plan if it reads the data model."""
    models = {
        alias: (definition, table.snapshot.name)
        for table in tables
        if (definition := table.read_as.removesuffix("()")) in DEFINITIONS
        for alias in table.names
    }
    try:
        found = _outputs(written, models) if models else ()
    except Exception:  # noqa: BLE001 - a part that DataFusion-Python has no class for, or a plan that is too deep
        _log.debug("the roles of a result's columns cannot be determined", exc_info=True)
        found = ()
    if not found:
        return schema
    if [name for _, name, _ in found] == schema.names:
        roles = [role for _, _, role in found]
    else:
        roles = [_find(_scope(found), None, name) for name in schema.names]
    return pa.schema(
        [
            field.with_metadata({**field.metadata, **more} if field.metadata else more)
            if (more := role_metadata(_fitting(role, field.type)))
            else field
            for field, role in zip(schema, roles, strict=True)
        ],
        metadata=schema.metadata,
    )


def _fitting(role: ColumnRole, kind: pa.DataType) -> ColumnRole:
    """Return a role that fits the type: only scalars are measures or times, and string constants are categories."""
    if role == _CONSTANT:
        return _CATEGORY if pa.types.is_string(kind) or pa.types.is_large_string(kind) else _NO_ROLE
    is_plain = role.role not in {"measure", "time"} or pa.types.is_primitive(kind) or pa.types.is_decimal(kind)
    return role if is_plain else _NO_ROLE


@functools.lru_cache(maxsize=64)
def _columns(definition: str, alias: str) -> _Outputs:
    """Return the columns of a data model table; integers without a role are treated as positions, not measures."""
    return tuple(
        (alias, field.name, find_role(field.name) or (_NO_ROLE if pa.types.is_integer(field.type) else _UNKNOWN))
        for field in DEFINITIONS[definition].schema
    )


def _scope(outputs: _Outputs) -> _Scope:
    found: dict[object, ColumnRole] = {}
    for relation, name, role in outputs:
        found.setdefault((relation, name), role)
        found.setdefault(name, role)
    return found


_scope_of_table: Final = functools.lru_cache(maxsize=64)(_scope)


def _find(scope: _Scope, relation: str | None, name: str) -> ColumnRole:
    return scope.get(name if relation is None else (relation, name)) or scope.get((None, name), _UNKNOWN)


def _outputs(node: Any, models: _Models) -> _Outputs:  # noqa: PLR0911 - one per kind
    """Return the columns of a plan step, or nothing for unknown kinds of steps."""
    variant = node.to_variant()
    kind = type(variant).__name__
    if kind == "SubqueryAlias" and _is_table(node, alias := variant.alias(), models):
        return _columns(models[alias][0], alias)
    below = [_outputs(one, models) for one in node.inputs()] if kind != "RecursiveQuery" else []
    if kind == "SubqueryAlias":
        return [(alias, name, role) for _, name, role in below[0]]
    if kind == "Union" and len({len(one) for one in below}) == 1:
        return [(None, same[0][1], _agreed([role for _, _, role in same])) for same in zip(*below, strict=True)]
    if kind == "Join":
        return [*below[0], *below[1]]
    if kind in _STEPS:
        return below[0]
    if kind not in {"Projection", "Aggregate", "WindowExpr"}:
        return []
    scope = (_scope_of_table if isinstance(below[0], tuple) else _scope)(below[0])
    if kind == "Projection":
        return [_output(one, scope) for one in variant.projections()]
    if kind == "Aggregate":  # columns of a grouping set keep their names
        return [*(_output(one, scope) for one in (*variant.group_by_exprs(), *variant.aggregate_exprs())), *below[0]]
    calls = [(one.schema_name(), variant.window_func_name(one), one) for one in variant.get_window_expr()]
    return [*below[0], *((None, name, _call(function, one, scope)) for name, function, one in calls)]


def _is_table(node: Any, alias: str, models: _Models) -> bool:
    """Return whether an alias is the registered name of a data model table.

    Otherwise, the caller used the same name for other rows.
    """
    if alias not in models:
        return False
    variant: Any = None
    while below := node.inputs():
        node = below[0]
        variant = node.to_variant()
        if type(variant).__name__ == "SubqueryAlias" and variant.alias() == alias:
            return False
    return type(variant).__name__ == "TableScan" and variant.table_name() == models[alias][1]


def _output(expression: Any, scope: _Scope) -> tuple[str | None, str, ColumnRole]:
    kind = expression.variant_name()
    if kind == "Column":
        column = expression.to_variant()
        relation, name = column.relation(), column.name()
        return relation, name, _find(scope, relation, name)
    name = expression.to_variant().alias() if kind == "Alias" else expression.schema_name()
    return None, name, _role(expression, scope)


def _role(expression: Any, scope: _Scope) -> ColumnRole:  # noqa: PLR0911 - one per kind
    kind = expression.variant_name()
    match kind:
        case "Column":
            return _output(expression, scope)[2]
        case "Alias":
            return _role(expression.to_variant().expr(), scope)
        case "Cast" | "TryCast":
            role = _role(expression.rex_call_operands()[0], scope)  # a number parsed from text isn't a category
            return _UNKNOWN if role == _CATEGORY and "Utf8" not in expression.canonical_name()[-9:] else role
        case "AggregateFunction":
            return _call(expression.to_variant().aggregate_type(), expression, scope)
        case "ScalarFunction" | "BinaryExpr" | "Negative":
            return _call(expression.rex_call_operator(), expression, scope)
        case "Literal" | "Placeholder":
            return _CONSTANT
        case "Case":
            case = expression.to_variant()
            values = [value for _, value in case.when_then_expr()] + list(filter(None, [case.else_expr()]))
            return _agreed([_role(one, scope) for one in values])
    return _CATEGORY if kind in _CONDITIONS or kind.startswith("Is") else _UNKNOWN


def _call(name: str, expression: Any, scope: _Scope) -> ColumnRole:  # noqa: PLR0911, C901 - one per rule
    """Return the role of the result of a function or operator."""
    name, operands = name.lower().partition("__call_")[0], expression.rex_call_operands()
    is_comparison = expression.variant_name() == "BinaryExpr" and name not in _ARITHMETIC
    rule = _RULES.get(name, _CATEGORY if is_comparison else None)
    if name == "get_field":
        rule = _FIELDS.get(str(operands[-1].python_value()))
    if isinstance(rule, ColumnRole):
        return rule
    found = [_role(one, scope) for one in operands]
    if rule == _ANY:
        return _agreed(found)
    found = [_UNKNOWN if one == _CONSTANT else one for one in found]
    roles = {one.role for one in found}
    if name == "date_part":  # of a time or an interval
        return _MEASURE if "measure" in roles else _CATEGORY
    if rule == _FIRST:
        return found[0]
    if rule == _TEXT:
        return next((one for one in found if one.role in {"identifier", "severity", "text"}), _CATEGORY)
    if rule == _SUM:
        return found[0] if found[0].role == "measure" else _NO_ROLE if found[0].role else _MEASURE
    if roles == {"time"} and name == "-":
        return _MEASURE
    if name in {"+", "-", "negative"} and roles <= {"measure", "time", ""}:
        return _agreed(found)
    if not roles <= {"measure", "category", ""}:
        return _NO_ROLE
    if name in {"*", "/"} and found[0].role == "measure" and found[1] == _COUNT:
        return found[0]
    if name == "/" and found[0].unit == found[1].unit is not None:
        return _COUNT
    return _MEASURE if "measure" in roles else _UNKNOWN


def _agreed(roles: Iterable[ColumnRole]) -> ColumnRole:
    """Return the common role of alternative values; constants are compatible with all roles."""
    given = set(roles) - {_CONSTANT}
    found = {one for one in given if one.role}
    if len({one.role for one in found}) > 1:
        return _NO_ROLE
    if found:
        return found.pop() if len(found) == 1 else ColumnRole(found.pop().role)
    return _UNKNOWN if given else _CONSTANT
