"""The roles of a result's columns: those of the data model's columns, inferred through the plan of a statement.

They depend on the statement and the data model alone, never on rows, files, or row filters.
"""

import functools
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import pyarrow as pa
from datafusion.plan import LogicalPlan

from micromegas_jupyter.engine.contract import VisibleTable
from micromegas_jupyter.telemetry.tables import DEFINITIONS, ColumnRole, find_role, role_metadata

_log = logging.getLogger(__name__)
_MAX_VISITED: Final = 5000
_MAX_DEPTH: Final = 200
#: Of constants, and of columns outside the data model.
_UNKNOWN: Final = ColumnRole("")
#: Of values that aren't measures and have no other role, such as a sum of severities.
_NO_ROLE: Final = ColumnRole("none")
_MEASURE: Final = ColumnRole("measure")
_COUNT: Final = ColumnRole("measure", "1")
_TIME: Final = ColumnRole("time")
_CATEGORY: Final = ColumnRole("category")
_TEXT_ROLES: Final = frozenset({"identifier", "severity", "text"})
_NUMERIC: Final = frozenset({"", "measure"})


def _split(names: str) -> frozenset[str]:
    return frozenset(names.split())


#: Functions that return one of the values in their first argument, or a rounded one.
_SELECTIONS: Final = _split(
    "min max first_value last_value nth_value any_value lag lead median approx_median percentile_cont quantile_cont "
    "approx_percentile_cont approx_percentile_cont_with_weight round trunc abs ceil floor arrow_cast encode decode array_element"
)
#: Functions that return one of their arguments.
_CHOICES: Final = _split("coalesce nullif nvl ifnull greatest least")
_SUMS: Final = _split("sum avg mean stddev stddev_pop stddev_samp")
_TEXTS: Final = _split(
    "lower upper initcap trim btrim ltrim rtrim concat concat_ws substr substring split_part replace left right "
    "regexp_replace string_agg"
)
_FIXED: Final[Mapping[str, ColumnRole]] = {
    **dict.fromkeys(
        _split(
            "count approx_distinct regr_count row_number rank dense_rank ntile length char_length character_length "
            "octet_length bit_length cardinality array_length jsonb_array_length properties_length count_from_histogram"
        ),
        _COUNT,
    ),
    **dict.fromkeys(
        _split(
            "histogram_quantile quantile_from_histogram variance_from_histogram sum_from_histogram jsonb_as_f64 corr "
            "percent_rank cume_dist"
        ),
        _MEASURE,
    ),
    **dict.fromkeys(
        _split(
            "date_bin date_trunc now current_timestamp current_date to_date make_date from_unixtime to_timestamp "
            "to_timestamp_seconds to_timestamp_millis to_timestamp_micros to_timestamp_nanos"
        ),
        _TIME,
    ),
    **dict.fromkeys(_split("date_part to_char date_format property_get jsonb_as_string regexp_like regexp_match"), _CATEGORY),
}
#: Fields of histograms, and of `jsonb_each`.
_FIELDS: Final = {"key": _CATEGORY, "count": _COUNT, "sum": _MEASURE, "min": _MEASURE, "max": _MEASURE}
_CONDITIONS: Final = _split("Not InList Between Like SimilarTo InSubquery Exists GroupingSet")
_ARITHMETIC: Final = frozenset("+-*/%&|#^")
_STEPS: Final = _split("Filter Sort Limit Distinct Repartition Unnest")


class _Output(NamedTuple):
    """A column that a step of a plan returns."""

    relation: str | None
    name: str
    role: ColumnRole


class _TooLarge(Exception):
    """A plan has more parts than are examined."""


_Scope = Mapping[object, ColumnRole]


def with_roles(schema: pa.Schema, written: LogicalPlan, tables: Iterable[VisibleTable]) -> pa.Schema:
    """Return the schema of a plan, as it was written, with the roles of its columns if it reads the data model."""
    reader = _Reader(tables)
    try:
        found = reader.outputs(written)
    except Exception:  # noqa: BLE001 - the rows don't depend on it
        _log.debug("the roles of a result's columns cannot be determined", exc_info=True)
        return schema
    if not reader.has_read:
        return schema
    if [one.name for one in found] == schema.names:
        roles = [one.role for one in found]
    else:
        scope = _scope(found)
        roles = [scope.get(name, _UNKNOWN) for name in schema.names]
    fields = [
        field.with_metadata({**(field.metadata or {}), **more}) if (more := role_metadata(role)) else field
        for field, role in zip(schema, roles, strict=True)
    ]
    return pa.schema(fields, metadata=schema.metadata)


@functools.lru_cache(maxsize=64)
def _columns(definition: str, alias: str) -> list[_Output]:
    """Return the columns of a table of the data model; an integer without a role is a position, not a measure."""
    return [
        _Output(
            alias, field.name, find_role(field.name) or (_NO_ROLE if pa.types.is_integer(field.type) else _UNKNOWN)
        )
        for field in DEFINITIONS[definition].schema
    ]


def _scope(outputs: Iterable[_Output]) -> _Scope:
    found: dict[object, ColumnRole] = {}
    for relation, name, role in outputs:
        found.setdefault((relation, name), role)
        found.setdefault(name, role)
    return found


class _Reader:
    """Infers roles in one plan over these tables."""

    def __init__(self, tables: Iterable[VisibleTable]) -> None:
        self._models: dict[str, tuple[str, str]] = {}
        for table in tables:
            if (definition := table.read_as.removesuffix("()")) in DEFINITIONS:
                self._models |= {name: (definition, table.snapshot.name) for name in table.names}
        self._visited = 0
        self.has_read = False

    def outputs(self, node: Any) -> Sequence[_Output]:
        """Return the columns of a step; none if the kind of the step isn't known."""
        self._count()
        variant = node.to_variant()
        kind = type(variant).__name__
        if kind == "SubqueryAlias":
            alias = variant.alias()
            if alias in self._models and self._is_table(node, alias):
                self.has_read = True
                return _columns(self._models[alias][0], alias)
            return [_Output(alias, one.name, one.role) for one in self._below(node)]
        if kind in _STEPS:
            return self._below(node)
        if kind == "Union":
            branches = [self.outputs(one) for one in node.inputs()]
            if len({len(branch) for branch in branches}) > 1:
                return []
            columns = zip(*branches, strict=True)
            return [_Output(None, same[0].name, _agreed([one.role for one in same])) for same in columns]
        if kind == "Join":
            found = [self.outputs(one) for one in node.inputs()]
            joined = str(variant.join_type())
            kept = found[:1] if joined.startswith(("LeftSemi", "LeftAnti")) else found
            return [one for side in (found[1:] if joined.startswith(("RightSemi", "RightAnti")) else kept) for one in side]
        if kind not in {"Projection", "Aggregate", "WindowExpr"}:
            return []
        below = self._below(node)
        scope = _scope(below)
        if kind == "Projection":
            return [self._output(one, scope) for one in variant.projections()]
        if kind == "Aggregate":  # those of a grouping set keep their names
            listed = (*variant.group_by_exprs(), *variant.aggregate_exprs())
            return [*(self._output(one, scope) for one in listed), *below]
        calls = ((one, variant.window_func_name(one), variant.get_args(one)) for one in variant.get_window_expr())
        return [
            *below,
            *(
                _Output(None, one.schema_name(), self._call(name, arguments, scope, depth=0))
                for one, name, arguments in calls
            ),
        ]

    def _below(self, node: Any) -> Sequence[_Output]:
        return self.outputs(node.inputs()[0])

    def _is_table(self, node: Any, alias: str) -> bool:
        """Return whether an alias is that of the table itself, not of the caller's own rows under its name.

        The caller's statement reads a table only through the alias that the table has.
        """
        while below := node.inputs():
            self._count()
            node = below[0]
            variant = node.to_variant()
            if type(variant).__name__ == "SubqueryAlias" and variant.alias() == alias:
                return False
        return type(variant).__name__ == "TableScan" and variant.table_name() == self._models[alias][1]

    def _count(self) -> None:
        self._visited += 1
        if self._visited > _MAX_VISITED:
            raise _TooLarge

    def _output(self, expression: Any, scope: _Scope) -> _Output:
        kind, role = expression.variant_name(), self._role(expression, scope, depth=0)
        if kind == "Alias":
            return _Output(None, expression.to_variant().alias(), role)
        if kind == "Column":
            column = expression.to_variant()
            return _Output(column.relation(), column.name(), role)
        return _Output(None, expression.schema_name(), role)

    def _role(self, expression: Any, scope: _Scope, *, depth: int) -> ColumnRole:  # noqa: PLR0911 - one per kind
        self._count()
        kind = expression.variant_name()
        if depth > _MAX_DEPTH:
            raise _TooLarge
        match kind:
            case "Column":
                column = expression.to_variant()
                name = column.name()
                return scope.get((column.relation(), name)) or scope.get(name, _UNKNOWN)
            case "Alias":
                return self._role(expression.to_variant().expr(), scope, depth=depth + 1)
            case "Cast" | "TryCast":
                return _cast(self._role(expression.rex_call_operands()[0], scope, depth=depth + 1), expression)
            case "AggregateFunction":
                call = expression.to_variant()
                return self._call(call.aggregate_type(), call.args(), scope, depth=depth)
            case "ScalarFunction":
                return self._call(expression.rex_call_operator(), expression.rex_call_operands(), scope, depth=depth)
            case "BinaryExpr":
                operator = expression.rex_call_operator()
                if operator not in _ARITHMETIC and operator != "||":
                    return _CATEGORY
                both = [self._role(one, scope, depth=depth + 1) for one in expression.rex_call_operands()]
                return _text(both) if operator == "||" else _calculated(operator, *both)
            case "Negative":
                return _derived([self._role(one, scope, depth=depth + 1) for one in expression.rex_call_operands()])
            case "Case":
                case = expression.to_variant()
                values = [value for _, value in case.when_then_expr()] + list(filter(None, [case.else_expr()]))
                return _agreed([self._role(one, scope, depth=depth + 1) for one in values])
        return _CATEGORY if kind in _CONDITIONS or kind.startswith("Is") else _UNKNOWN

    def _call(self, name: str, arguments: Sequence[Any], scope: _Scope, *, depth: int) -> ColumnRole:
        name = name.lower().partition("__call_")[0]
        if name in _FIXED:
            return _FIXED[name]
        if name == "get_field" and str(arguments[-1].python_value()) in _FIELDS:
            return _FIELDS[str(arguments[-1].python_value())]
        roles = [self._role(one, scope, depth=depth + 1) for one in arguments]
        if name in _SELECTIONS and roles:
            return roles[0]
        if name in _CHOICES:
            return _agreed(roles)
        if name in _SUMS and roles:
            return roles[0] if roles[0].role == "measure" else _NO_ROLE if roles[0].role else _MEASURE
        return _text(roles) if name in _TEXTS else _derived(roles)


def _agreed(roles: Iterable[ColumnRole]) -> ColumnRole:
    """Return the role of values that may be any of these; constants fit all."""
    found = {one for one in roles if one.role}
    if len({one.role for one in found}) > 1:
        return _NO_ROLE
    return found.pop() if len(found) == 1 else ColumnRole(found.pop().role) if found else _UNKNOWN


def _derived(roles: Sequence[ColumnRole]) -> ColumnRole:
    """Return the role of what an unknown function makes of numbers: its unit isn't known."""
    found = {one.role for one in roles}
    return (_MEASURE if "measure" in found else _UNKNOWN) if found <= _NUMERIC | {"category"} else _NO_ROLE


def _calculated(operator: str, left: ColumnRole, right: ColumnRole) -> ColumnRole:
    roles = {left.role, right.role}
    if operator == "-" and roles == {"time"}:
        return _MEASURE
    if operator in "+-" and roles == {"time", ""}:  # an interval
        return _TIME
    if operator in "+-" and roles <= _NUMERIC:
        return _agreed([left, right])
    if operator in "*/" and left.role == "measure" and right == _COUNT:
        return left
    if operator == "/" and left.unit == right.unit is not None:
        return _COUNT
    return _derived([left, right]) if roles <= _NUMERIC else _NO_ROLE


def _text(roles: Iterable[ColumnRole]) -> ColumnRole:
    return next((one for one in roles if one.role in _TEXT_ROLES), _CATEGORY)


def _cast(role: ColumnRole, expression: Any) -> ColumnRole:
    """Return the same role, unless it is that of text from which a number is read."""
    to = expression.canonical_name().rpartition(" AS ")[2]
    if role != _CATEGORY or not to.startswith(("Int", "UInt", "Float", "Decimal")):
        return role
    return _UNKNOWN if "Int" in to else _MEASURE
