"""Describes the expressions of DataFusion's plans as `leakproof` terms."""

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final

import pyarrow as pa
from datafusion import SessionContext
from datafusion.expr import Expr
from datafusion.plan import LogicalPlan

from micromegas_jupyter.engine import leakproof
from micromegas_jupyter.engine.leakproof import Term

_MAX_VISITED: Final = 5000
_SIMPLE: Final[Mapping[str, str]] = {
    "IsNull": "IS NULL",
    "IsNotNull": "IS NULL",
    "IsTrue": "IS TRUE",
    "IsNotTrue": "IS TRUE",
    "IsFalse": "IS FALSE",
    "IsNotFalse": "IS FALSE",
    "IsUnknown": "IS UNKNOWN",
    "IsNotUnknown": "IS UNKNOWN",
    "Not": "NOT",
}
_CAST_TO: Final = re.compile(r" AS ([A-Za-z0-9]+)(?:\((s|ms|µs|ns)(?:, \"?([^\")]*)\"?)?\))?\)\Z")
_TYPES: Final[Mapping[str, pa.DataType]] = {
    "Boolean": pa.bool_(),
    "Date32": pa.date32(),
    "Float32": pa.float32(),
    "Float64": pa.float64(),
    "LargeUtf8": pa.large_string(),
    "Utf8": pa.string(),
    "Utf8View": pa.string_view(),
    **{f"Int{bits}": getattr(pa, f"int{bits}")() for bits in (8, 16, 32, 64)},
    **{f"UInt{bits}": getattr(pa, f"uint{bits}")() for bits in (8, 16, 32, 64)},
}
_UNITS: Final = {"s": "s", "ms": "ms", "µs": "us", "ns": "ns"}
_DAY_NS: Final = 86_400_000_000_000


def is_leakproof(
    session: SessionContext, written: LogicalPlan, optimized: LogicalPlan, scans: Mapping[str, pa.Schema]
) -> bool:
    """Return whether no row's values can make a statement fail that is planned without the barrier.

    `scans` are the schemas of its tables by scan name. The plan is examined before optimization, as other engines would
    see it, and as it is evaluated, with the casts that the engine adds.
    """
    try:
        return _Reader(session, scans, sees_through_casts=False).are_leakproof(written) and _Reader(
            session, scans, sees_through_casts=True
        ).are_leakproof(optimized)
    except Exception:  # noqa: BLE001 - a part that DataFusion-Python has no class for, or a plan that fails when it is run
        return False


class _TooLarge(Exception):
    """The plan has too many parts to examine."""


class _Reader:
    """Describes the expressions of plans over these scans as terms; unknown expressions become None."""

    def __init__(self, session: SessionContext, scans: Mapping[str, pa.Schema], *, sees_through_casts: bool) -> None:
        self._session = session
        self._scans = scans
        self._sees_through_casts = sees_through_casts
        self._visited = 0

    def are_leakproof(self, root: LogicalPlan) -> bool:
        nodes: list[LogicalPlan] = [root]
        while nodes:
            node = nodes.pop()
            self._count()
            nodes += node.inputs()
            variant = node.to_variant()
            expressions_of = EXPRESSIONS.get(type(variant).__name__)
            if expressions_of is None or node.display().startswith("DistinctOn"):
                return False
            expressions = expressions_of(variant)
            columns = self._columns(node, variant) if expressions else {}
            for expression in expressions:
                if not leakproof.is_leakproof(self._term(expression, columns)):
                    return False
        return True

    def _columns(self, node: LogicalPlan, variant: Any) -> dict[str, pa.DataType | None]:
        """Return the types of a node's columns by name; the type is None if the name is ambiguous."""
        if type(variant).__name__ == "TableScan":
            schemas = [self._scans.get(variant.table_name(), pa.schema([]))]
        else:
            schemas = [self._session.create_dataframe_from_logical_plan(one).schema() for one in node.inputs()]
        found: dict[str, pa.DataType | None] = {}
        for field in (field for schema in schemas for field in schema):
            found[field.name] = field.type if found.get(field.name, field.type) == field.type else None
        return found

    def _count(self) -> None:
        self._visited += 1
        if self._visited > _MAX_VISITED:
            raise _TooLarge

    def _term(self, expression: Expr, columns: Mapping[str, pa.DataType | None]) -> Term | None:  # noqa: PLR0911, PLR0912, C901 - one per kind
        """Convert an expression over columns with these types to a term."""
        self._count()
        if expression.variant_name() == "ScalarFunction":
            return Term(leakproof.NOW) if expression.canonical_name() == "now()" else None
        found = expression.to_variant()
        kind = type(found).__name__
        match kind:
            case "Alias":
                return self._term(found.expr(), columns)
            case "Literal":
                return literal_term(expression)
            case "Column":
                column = columns.get(found.name())
                return None if column is None else Term(leakproof.COLUMN, kind=leakproof.column_kind(column))
            case "BinaryExpr":
                return self._binary(expression, found.op(), columns)
            case "Between":
                return self._call("BETWEEN", (found.expr(), found.low(), found.high()), columns)
            case "InList":
                listed = found.list()
                if len(listed) > leakproof.MAX_LISTED:
                    return None
                return self._call("IN", (found.expr(), *listed), columns)
            case "Like":
                if found.escape_char() is not None:
                    return None
                operator = expression.rex_call_operator().removeprefix("not ").upper()
                return self._call(operator, (found.expr(), found.pattern()), columns)
            case "InSubquery" | "Exists" if not self._sees_through_casts:
                # The subquery can't be read here; in the optimized plan, it's a join.
                return self._call("IN", (found.expr(),) if kind == "InSubquery" else (), columns)
            case "Negative":
                return self._call("-", (found.expr(),), columns)
            case "Case" if self._sees_through_casts:  # a CASE over booleans, which the optimizer generates for LIKE '%'
                return self._call("AND", expression.rex_call_operands(), columns)
            case "Cast":
                return self._cast(expression, found.expr(), columns)
            case "AggregateFunction":
                is_plain = _is_plain(expression, found)
                return self._call(found.aggregate_type(), found.args(), columns) if is_plain else None
        return self._call(_SIMPLE[kind], (found.expr(),), columns) if kind in _SIMPLE else None

    def _call(self, operator: str, operands: Any, columns: Mapping[str, pa.DataType | None]) -> Term:
        return Term(operator, tuple(self._term(one, columns) for one in operands))

    def _binary(self, expression: Expr, operator: str, columns: Mapping[str, pa.DataType | None]) -> Term:
        if operator not in {"AND", "OR"}:
            return self._call(operator, expression.rex_call_operands(), columns)
        return self._call(operator, chain(expression, operator), columns)

    def _cast(self, expression: Expr, value: Expr, columns: Mapping[str, pa.DataType | None]) -> Term | None:
        to = _cast_type(expression)
        operand = self._term(value, columns)
        if to is None or operand is None:
            return None
        if operand.operator == leakproof.LITERAL:
            kind = leakproof.column_kind(to).partition("(")[0]
            is_plain = to in {pa.string(), pa.date32(), pa.int64(), pa.float64()} or pa.types.is_timestamp(to)
            return Term(leakproof.CAST, (operand,), kind=kind) if is_plain else None
        is_column = self._sees_through_casts and value.variant_name() == "Column"
        column = columns.get(value.to_variant().name()) if is_column else None
        if column is None or not leakproof.is_total_cast(column, to):
            return None
        return Term(leakproof.COLUMN, kind=leakproof.column_kind(to))


def literal_term(expression: Expr) -> Term | None:
    """Return a literal as a term."""
    value = expression.python_value()
    if not isinstance(value, pa.Scalar):
        return None
    if not value.is_valid:
        return Term(leakproof.LITERAL, kind=leakproof.NULL)
    if isinstance(value, pa.MonthDayNanoIntervalScalar):
        found = value.as_py()
        days = Decimal(found.months * 31 + found.days) + Decimal(found.nanoseconds) / _DAY_NS
        return Term(leakproof.INTERVAL, text=f"{days:f}")
    kind = leakproof.column_kind(value.type).partition("(")[0]
    if kind in {leakproof.INTEGER, leakproof.FLOAT}:
        return leakproof.number(value.as_py())
    # Python can't represent every timestamp.
    text = value.as_py() if kind == leakproof.TEXT else ""
    return Term(leakproof.LITERAL, kind=kind, text=text) if kind not in {"", leakproof.OTHER} else None


def chain(expression: Expr, operator: str) -> list[Expr]:
    """Return the operands of a chain of ANDs or ORs, which may be long."""
    found, waiting = [], [expression]
    while waiting:
        one = waiting.pop()
        if one.variant_name() == "BinaryExpr" and one.rex_call_operator() == operator:
            waiting += one.rex_call_operands()
        else:
            found.append(one)
    return found


def _cast_type(expression: Expr) -> pa.DataType | None:
    found = _CAST_TO.search(expression.canonical_name())
    if found is None:
        return None
    if found[1] == "Timestamp" and found[2]:
        return pa.timestamp(_UNITS[found[2]], found[3])
    return _TYPES.get(found[1]) if not found[2] else None


def _is_plain(expression: Expr, found: Any) -> bool:
    """Return whether an aggregate is known and has neither FILTER nor ORDER BY, which appear only in its text."""
    name, text = found.aggregate_type(), expression.canonical_name()
    is_named = name in leakproof.AGGREGATES and text.startswith(f"{name}(")
    return is_named and len(found.args()) == 1 and " FILTER (" not in text and " ORDER BY " not in text


def _join_expressions(join: Any) -> list[Expr]:
    condition = join.filter()
    return [side for pair in join.on() for side in pair] + ([] if condition is None else [condition])


#: Returns all expressions of a node, by node type; plans with other node types are not leakproof.
EXPRESSIONS: Final[Mapping[str, Callable[[Any], list[Expr]]]] = {
    "Projection": lambda node: list(node.projections()),
    "Filter": lambda node: [node.predicate()],
    "TableScan": lambda node: list(node.filters()),
    "Aggregate": lambda node: [*node.group_by_exprs(), *node.aggregate_exprs()],
    "Sort": lambda node: [sort.expr() for sort in node.sort_exprs()],
    "Join": _join_expressions,
    **dict.fromkeys(("SubqueryAlias", "Union", "EmptyRelation", "Limit", "Distinct"), lambda _: []),
}
