"""Finds constants that can't be evaluated, so that a statement fails before reading data, whatever its tables contain.

Otherwise they would fail when a row is read. Whether a row is read depends on the bounds of files and row groups, which
include hidden rows.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import pyarrow as pa
from datafusion import DataFrame, SessionConfig, SessionContext
from datafusion.expr import Expr
from datafusion.plan import LogicalPlan

from micromegas_jupyter.engine.leakproof import MAX_PATTERN
from micromegas_jupyter.engine.plans.terms import EXPRESSIONS, chain
from micromegas_jupyter.engine.workarounds.plan_messages import message_class

_MAX_VISITED: Final = 20_000
# Compiling a pattern may take 70 ms. Unchecked constants fail behind the barrier, on rows that the caller may see.
_MAX_CHECKED: Final = 100
_MAX_DEPTH: Final = 100
_TEXT: Final = "text"
_TIME: Final = "time"
_ONE_ROW: Final = pa.record_batch({_TEXT: [""], _TIME: pa.array([0], pa.timestamp("ns", "UTC"))})
_VALUES: Final = frozenset({"Literal", "Column"})
_QUERIES: Final = frozenset({"InSubquery", "Exists", "ScalarSubquery"})
_LIKE: Final = frozenset({"Like", "ILike"})
_PATTERNS: Final = frozenset({*_LIKE, "RLike"})
_REGEX: Final = frozenset({"~", "~*", "!~", "!~*"})
# Functions that fail for every row if a constant argument is invalid, with a test column for the argument that they
# process, and its position.
_TRIED: Final[Mapping[str, tuple[str, int]]] = {
    **dict.fromkeys(("regexp_like", "regexp_match", "regexp_replace", "regexp_count", "regexp_instr"), (_TEXT, 0)),
    **dict.fromkeys(("encode", "decode", "digest", "split_part"), (_TEXT, 0)),
    **dict.fromkeys(("date_trunc", "date_part", "date_bin"), (_TIME, 1)),
}
# Kinds of expressions without parts other than their operands.
_PURE: Final = frozenset(
    {"BinaryExpr", "Like", "ILike", "RLike", "Between", "InList", "Case", "Cast", "TryCast", "Not", "Negative",
     "IsNull", "IsNotNull", "IsTrue", "IsFalse", "IsUnknown", "IsNotTrue", "IsNotFalse", "IsNotUnknown"}
)  # fmt: skip


def check_constants(session: SessionContext, optimized: LogicalPlan) -> None:
    """Evaluate the constants that remain in an optimized plan; raises the engine's error for the first that fails.

    The optimizer replaces constants with their values, except those that can't be evaluated.
    """
    one_row: DataFrame | None = None
    checked: set[str] = set()
    for expression, operands in _parts(optimized, session):
        is_constant = _is_constant(expression, operands)
        text = expression.canonical_name() if is_constant else _trial_text(expression, operands)
        if text is None or text in checked:
            continue
        checked.add(text)
        if len(checked) > _MAX_CHECKED:
            return
        one_row = one_row or session.read_batch(_ONE_ROW)
        constant = Expr(expression) if is_constant else one_row.parse_sql_expr(text)
        one_row.select(constant.alias("value")).collect()


def _parts(root: LogicalPlan, session: SessionContext) -> Iterator[tuple[Any, list[Any]]]:
    """Yield the expressions in a plan and its subqueries, with their operands.

    Skips values, columns, and parts of constants.
    """
    nodes, visited = [root], 0
    while nodes:
        node = nodes.pop()
        nodes += node.inputs()
        waiting = list(_expressions(node))
        while waiting:
            expression = waiting.pop()
            kind = expression.variant_name()
            if kind in _VALUES:
                continue
            visited += 1
            if visited > _MAX_VISITED:
                return
            is_chain = kind == "BinaryExpr" and expression.rex_call_operator() in {"AND", "OR"}
            operands = chain(expression, expression.rex_call_operator()) if is_chain else _operands(expression)
            if not is_chain:
                yield expression, operands
            if kind in _QUERIES:
                nodes += _plans_of_query(session, expression)
            if is_chain or not _is_constant(expression, operands):
                waiting += operands


def _expressions(node: LogicalPlan) -> Sequence[Any]:
    try:
        variant: Any = node.to_variant()
    except Exception:  # noqa: BLE001 - DataFusion-Python has no class for it
        return ()
    return _EXPRESSIONS.get(type(variant).__name__, lambda _: [])(variant)


def _window_parts(variant: Any) -> list[Any]:
    parts: list[Any] = []
    for window in variant.get_window_expr():
        parts += variant.get_args(window)
        parts += variant.get_partition_exprs(window)
        parts += [sort.expr() for sort in variant.get_sort_exprs(window)]
    return parts


def _operands(expression: Any) -> list[Any]:
    try:
        operands = list(expression.rex_call_operands())
        return operands + (_hidden_parts(expression) if expression.variant_name() == "AggregateFunction" else [])
    except Exception:  # noqa: BLE001 - a subquery, or a part that DataFusion-Python has no class for
        return []


def _plans_of_query(session: SessionContext, expression: Any) -> list[LogicalPlan]:
    """Return a subquery's plan if its tables can be serialized; DataFusion-Python has no accessor for it."""
    try:
        (subquery,) = message_class("Expr").FromString(expression.to_bytes()).f36
        return [LogicalPlan.from_bytes(session, subquery.f1[0].f1[0].SerializeToString())]
    except Exception:  # noqa: BLE001 - see above
        return []


def _hidden_parts(aggregate: Any) -> list[Any]:
    """Return the expressions in FILTER and ORDER BY of an aggregate; DataFusion-Python has no accessors for them."""
    if not any(word in aggregate.canonical_name() for word in (" FILTER (", " ORDER BY ")):
        return []
    (call,) = message_class("Expr").FromString(aggregate.to_bytes()).f19
    parts = [*call.f3, *(sort.f1[0] for sort in call.f4)]
    return [Expr.from_bytes(one.SerializeToString()).expr for one in parts]


def _is_constant(expression: Any, operands: Sequence[Any], *, depth: int = 0) -> bool:
    """Return whether an expression has the same value for all rows."""
    kind = expression.variant_name()
    if kind == "ScalarFunction":
        name = expression.rex_call_operator()
        is_known = bool(operands) and name in _unchanging_functions()
    else:
        is_known = kind in _PURE and bool(operands)
    if not is_known or depth > _MAX_DEPTH:
        return False
    others = (one for one in operands if one.variant_name() != "Literal")
    return all(one.variant_name() != "Column" and _is_constant(one, _operands(one), depth=depth + 1) for one in others)


def _trial_text(expression: Any, operands: Sequence[Any]) -> str | None:
    """Return an SQL expression that tests on one simple row whether a constant fails for every row, or None."""
    kind = expression.variant_name()
    name = expression.rex_call_operator() if kind in {"ScalarFunction", "BinaryExpr", *_PATTERNS} else ""
    if kind == "ScalarFunction" and name in _TRIED:
        column, position = _TRIED[name]
        arguments = [column if at == position else _written(one) for at, one in enumerate(operands)]
        known = [one for one in arguments if one is not None]
        return f"{name}({', '.join(known)})" if len(known) == len(arguments) > 1 else None
    if kind not in _PATTERNS and name not in _REGEX:
        return None
    pattern = _written(operands[1])
    is_short = kind in _LIKE and len(pattern or "") <= MAX_PATTERN
    return None if pattern is None or is_short else f"{_TEXT} {name} {pattern}"


def _written(expression: Any) -> str | None:
    """Return a literal in SQL syntax, or None if the functions that are tested don't accept its type."""
    value = expression.python_value() if expression.variant_name() == "Literal" else None
    if isinstance(value, pa.MonthDayNanoIntervalScalar) and value.is_valid:
        found = value.as_py()
        return f"INTERVAL '{found.months} months {found.days} days {found.nanoseconds} nanoseconds'"
    if not isinstance(value, pa.Scalar) or pa.types.is_temporal(value.type):  # Python can't represent every time
        return None
    text: Any = value.as_py()
    if isinstance(text, str):
        return "'" + text.replace("'", "''") + "'"
    return str(text) if isinstance(text, int) and not isinstance(text, bool) else None


@functools.cache
def _unchanging_functions() -> frozenset[str]:
    """Return the names of DataFusion's functions whose results depend only on their arguments."""
    context = SessionContext(SessionConfig().with_information_schema(True))
    found = context.sql("SELECT DISTINCT routine_name FROM information_schema.routines WHERE is_deterministic")
    return frozenset(row["routine_name"] for row in found.to_pylist())


_EXPRESSIONS: Final = {
    **EXPRESSIONS,
    "Values": lambda node: [one for row in node.values() for one in row],
    "WindowExpr": _window_parts,
}
