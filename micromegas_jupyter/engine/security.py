"""Hides rows: the conditions that decide which rows of a table a caller sees, and the barrier in front of them.

A condition is one boolean expression over the table's columns that cannot fail on any value, because its error would be
about a hidden row. It is tested on rows with difficult values before it is applied to real rows.

A caller's expressions are never evaluated on rows that the caller must not see: a predicate that fails on a value (a
cast, a division) reveals something about the row, and DataFusion moves predicates and expressions down as far as
possible. No single DataFusion node stops all of them:

- a LIMIT stops filters while the logical plan is optimized, but becomes a property of the filter below it in the
  physical plan, and `SELECT shown, CAST(secret AS INT) + x` is then computed below that filter;
- UNNEST of a list with one element stays in place in the physical plan, where neither expressions nor filters that
  are created while the query runs pass it, but filters pass it in the logical plan.

Both together stop everything. Statements that cannot fail on any value don't need this: `leakproof` defines them.
"""

import functools
import logging
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle, islice
from typing import Any, Final

import pyarrow as pa
from datafusion import DataFrame, Expr, SessionContext, col, lit
from datafusion import functions as f

from micromegas_jupyter.core import jsonb
from micromegas_jupyter.core.protocols import AuthContext, AuthType, TableSnapshot, TableSource
from micromegas_jupyter.engine.errors import is_engine_failure
from micromegas_jupyter.engine.functions.identity import NO_TEXTS, with_caller_in_condition
from micromegas_jupyter.engine.functions.query_functions import (
    changing_functions,
    register_flat_functions,
    visible_schema,
)
from micromegas_jupyter.engine.planning import SUBQUERY_KEYWORDS, check_expression
from micromegas_jupyter.engine.scanner import Kind, Scan, Token, quoted, scan
from micromegas_jupyter.engine.schemas import flat_schema
from micromegas_jupyter.engine.views import with_views
from micromegas_jupyter.engine.workarounds.far_times import has_far_times, with_far_times
from micromegas_jupyter.engine.workarounds.in_lists import null_safe_condition
from micromegas_jupyter.errors import ConfigurationError, InternalError, MicromegasError, QueryError, Unavailable

_log = logging.getLogger(__name__)

_MAX_CONDITION_BYTES: Final = 16384
_MAX_NAMED: Final = 20
_NO_EXPRESSION: Final = "it is not one SQL expression"
_NO_FIELD = re.compile(r"No field named (\S+?)\.(?:\s|$)")
_TEXTS: Final = ("", "x", "-1", "(", "é", "9" * 40, "%_\\")
_PROPERTIES: Final[Sequence[object]] = ({}, {"x": "", "-1": 1, "(": [None]}, [], "x")
_EARLY_NS: Final = -8_500_000_000_000_000_000
_LATE_NS: Final = 8_500_000_000_000_000_000
_NANOSECONDS: Final = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_SOMEBODY: Final = AuthContext(
    subject="somebody",
    issuer="https://id.example",
    auth_type=AuthType.OIDC,
    email="somebody@example.com",
    email_verified=True,
    groups=("a", "b"),
    roles=("a", "b"),
)
# The least informative caller: empty lists and a null address.
_NOBODY: Final = AuthContext(subject="nobody", issuer="https://id.example", auth_type=AuthType.OIDC)


def apply_conditions(rows: DataFrame, conditions: tuple[str, ...], *, table: str) -> DataFrame:
    """Return the rows that meet at least one of `conditions`."""
    schema = rows.schema()
    problems = (condition_problem(condition, schema) for condition in conditions)
    conditions = tuple(_with_far_times(condition, schema) for condition in conditions)
    problem = next((found for found in problems if found is not None), None)
    if problem is None and len(conditions) > 1:
        problem = _find_problem_together(conditions, schema)
    if problem is None:
        return rows.filter(_either(rows, conditions))
    _log.error("a condition on the rows of a table cannot be used", extra={"table": table, "problem": problem})
    raise InternalError(
        "The server can't determine which rows of a table you may read, so the statement wasn't run.",
        remedy="Tell the server's administrator; the server's log names the table.",
    )


def _with_far_times(condition: str, schema: pa.Schema) -> str:
    return with_far_times(scan(condition), [schema]).sql if has_far_times(condition, None) else condition


def _either(rows: DataFrame, conditions: tuple[str, ...]) -> Expr:
    """Return an expression that is true for rows that meet at least one of `conditions`.

    Several conditions are not simplified together: NULL counts as false in each. A single condition is unchanged, so
    that file statistics can be used to evaluate it.
    """
    if len(conditions) == 1:
        return null_safe_condition(rows.parse_sql_expr(conditions[0]))
    # The line break ends a comment at the end of the condition.
    known = [null_safe_condition(rows.parse_sql_expr(f"({condition}\n) IS TRUE")) for condition in conditions]
    return functools.reduce(operator.or_, known)


@functools.lru_cache(maxsize=1024)
def condition_problem(condition: str, schema: pa.Schema) -> str | None:
    """Return why `condition` can't be used on rows of `schema`, as a clause about it, or None."""
    condition = _with_far_times(condition, schema)
    return _problem_of_text(condition) or _problem_of_plan(condition, schema)


def _problem_of_text(condition: str) -> str | None:
    try:
        # The text for an empty list calls a volatile function, which has no effect.
        scanned = check_expression(condition.replace(NO_TEXTS, "make_array()"), max_bytes=_MAX_CONDITION_BYTES)
    except QueryError:
        return "it is empty, too long, too deeply nested, or more than one expression"
    return _problem_of_tokens(scanned)


def _problem_of_tokens(scanned: Scan) -> str | None:
    if not scanned.is_certain or any(token.kind in {Kind.SEMICOLON, Kind.PLACEHOLDER} for token in scanned.tokens):
        return "it contains a placeholder, a semicolon or a misplaced quote"
    for token, following in zip(scanned.tokens, (*scanned.tokens[1:], None), strict=True):
        if token.kind is Kind.WORD and token.name in SUBQUERY_KEYWORDS:
            return "it contains a subquery"
        is_call = following is not None and following.kind is Kind.OPEN and token.kind in {Kind.WORD, Kind.QUOTED}
        if is_call and token.name.lower() in changing_functions():
            return f"it calls {token.name.lower()}, whose result changes"
    if any(_goes_on_after_distinct_from(scanned.tokens, start) for start in range(len(scanned.tokens))):
        return "IS DISTINCT FROM takes all that follows it for its right side; put it in brackets"
    return None


def _goes_on_after_distinct_from(tokens: Sequence[Token], start: int) -> bool:
    """Whether more than one operand follows a `DISTINCT FROM` that begins with this token.

    DataFusion 54 and 55 parse `a IS DISTINCT FROM b AND c` as `a IS DISTINCT FROM (b AND c)`.
    """
    words = [token.name if token.kind is Kind.WORD else "" for token in tokens[start : start + 2]]
    if words != ["distinct", "from"]:
        return False
    depth = 0
    for at, token in enumerate(tokens[start + 2 :]):
        depth += (token.kind is Kind.OPEN) - (token.kind is Kind.CLOSE)
        if depth < 0 or (not depth and token.kind is Kind.COMMA):
            return False
        if at and not depth and token.kind not in {Kind.OPEN, Kind.CLOSE}:
            return True
    return False


def _problem_of_plan(condition: str, schema: pa.Schema) -> str | None:
    sample = trial_rows(schema)
    try:
        selected = _filtered(_context(), sample, condition, is_simplified=True)
    except Exception as error:  # noqa: BLE001 - DataFusion has no class for it
        return _reason(str(error))
    found = _evaluated(selected)
    if found is None:
        return (
            "it cannot be evaluated for every row by itself: look for a cast (use TRY_CAST), a division, an aggregate "
            "or properties['key'] (use property_get)"
        )
    as_written = _evaluated(_filtered(_without_simplification(), sample, condition))
    if as_written is not None and as_written != found:
        return "the engine simplifies it to something that is true for other rows; write it in another way"
    return None


@functools.lru_cache(maxsize=1024)
def _find_problem_together(conditions: tuple[str, ...], schema: pa.Schema) -> str | None:
    """Return why separately valid conditions show different rows when combined with OR, or None."""
    sample = trial_rows(schema)
    rows = _context().read_batch(sample)
    found = _evaluated(rows.filter(_either(rows, conditions)))
    shown = [_evaluated(_filtered(_without_simplification(), sample, condition)) for condition in conditions]
    expected = {row for one in shown if one is not None for row in one}
    if found is None or None in shown or found != [row for row in map(str, sample.to_pylist()) if row in expected]:
        return "together with the other conditions the engine makes it true for other rows; write it in another way"
    return None


def _context() -> SessionContext:
    context = SessionContext()
    register_flat_functions(context)
    return context


def _without_simplification() -> SessionContext:
    """Return a session that evaluates expressions without simplification."""
    context = _context()
    context.remove_optimizer_rule("simplify_expressions")
    return context


def _filtered(
    context: SessionContext, rows: pa.RecordBatch, condition: str, *, is_simplified: bool = False
) -> DataFrame:
    frame = context.read_batch(rows)
    expression = frame.parse_sql_expr(condition)
    return frame.filter(null_safe_condition(expression) if is_simplified else expression)


def _evaluated(selected: DataFrame) -> list[str] | None:
    """Return the rows as text (NaN equals NaN there); None if a row makes the evaluation fail."""
    try:
        return [str(row) for batch in selected.collect() for row in batch.to_pylist()]
    except Exception:  # noqa: BLE001 - DataFusion has no class for it
        return None


def _reason(text: str) -> str:
    if found := _NO_FIELD.search(text):
        return f"it names {found[1][:80]}, which is not a column of the table"
    if "non-boolean" in text:
        return "it is not true or false"
    if "SQL error" in text:
        return _NO_EXPRESSION
    return "its operators, functions and types do not fit together"


def trial_rows(schema: pa.Schema) -> pa.RecordBatch:
    """Return rows of `schema` that contain each type's difficult values, and null even in non-nullable columns."""
    values = [_difficult_values(field.type) for field in schema]
    count = max(map(len, values), default=1)
    columns = [
        pa.array(list(islice(cycle(column), count)), field.type) for field, column in zip(schema, values, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema([field.with_nullable(True) for field in schema]))


def _difficult_values(kind: pa.DataType) -> list[Any]:  # noqa: PLR0911 - one per kind of type
    if pa.types.is_integer(kind):
        top = 1 << (kind.bit_width - (0 if pa.types.is_unsigned_integer(kind) else 1))
        return [None, 0, 1, top - 1, *([] if pa.types.is_unsigned_integer(kind) else [-1, -top])]
    if pa.types.is_floating(kind):
        return [None, 0.0, -1.5, float("nan"), float("inf"), float("-inf")]
    if pa.types.is_boolean(kind):
        return [None, True, False]
    if pa.types.is_timestamp(kind):
        return [None, 0, *(end // _NANOSECONDS[kind.unit] for end in (_EARLY_NS, _LATE_NS))]
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return [None, *_TEXTS]
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return [None, *(text.encode() for text in _TEXTS), *map(jsonb.encode, _PROPERTIES)]
    return [None]


def check_role_conditions(tables: TableSource, filters: Mapping[str, Sequence[str]]) -> None:
    """Check the conditions in `filters`, by table name; warn about missing tables."""
    try:
        snapshots = with_views(tables.snapshot())
    except MicromegasError:
        raise
    except Exception as error:
        _log.warning("the tables could not be listed to check conditions", extra={"kind": type(error).__name__})
        raise Unavailable("The tables cannot be listed right now.") from error
    known = {name for snapshot in snapshots for name in (snapshot.name, snapshot.raw_name)}
    missing = sorted(filters.keys() - known - {"*"})
    for table in (*missing, "*"):
        problems = map(_problem_without_table, filters.get(table, ()))
        if (problem := next((found for found in problems if found is not None), None)) is not None:
            raise _configuration_error(table, problem)
    for snapshot in snapshots:
        if snapshot.problem is not None:
            continue  # conditions are checked again when they are used
        if snapshot.raw_name is not None and filters.get(snapshot.raw_name):
            raise _configuration_error(
                snapshot.raw_name, f"set it on {snapshot.name}, which is computed from these rows"
            )
        own = filters.get(snapshot.name, ())
        problem = _problem_of_role(snapshot, own) if own else None
        if problem is not None:
            raise _configuration_error(snapshot.name, problem)
    if missing:
        _log.warning(
            "Roles name tables that are not there.", extra={"tables": missing[:_MAX_NAMED], "count": len(missing)}
        )


def _problem_without_table(condition: str) -> str | None:
    """Return why `condition` can't be used on any table, as far as this is independent of columns."""
    condition = with_caller_in_condition(condition, _SOMEBODY, columns=())
    if (problem := _problem_of_text(condition)) is not None:
        return problem
    return _NO_EXPRESSION if _problem_of_plan(condition, pa.schema([])) == _NO_EXPRESSION else None


def _problem_of_role(snapshot: TableSnapshot, own: Sequence[str]) -> str | None:
    """Return why one of the table's `own` conditions can't be used, or None."""
    try:
        # Even a table without files has columns.
        schema = flat_schema(visible_schema(snapshot))
        found = (
            condition_problem(with_caller_in_condition(one, caller, columns=schema.names), schema)
            for one in own
            for caller in (_SOMEBODY, _NOBODY)
        )
        return next((problem for problem in found if problem is not None), None)
    except BaseException as error:
        if not is_engine_failure(error):
            raise
        _log.error("the engine failed on a condition", extra={"table": snapshot.name, "kind": type(error).__name__})
        return "the engine fails on it"


def _configuration_error(table: str, problem: str) -> ConfigurationError:
    return ConfigurationError(
        f"A condition on the rows of {table} cannot be used: {problem}.",
        key="roles",
        remedy="Use a single Boolean SQL expression over the table's columns that doesn't fail for any value.",
    )


_ALL_ROWS: Final = (1 << 63) - 1
_SAMPLE: Final = {"shown": [True, False], "text": ["1", "hidden"], "number": [1, 0]}
_REVEALING: Final = (
    "SELECT shown, CAST(text AS INT) + number FROM sample",
    "SELECT shown FROM sample WHERE CAST(text AS INT) = 1",
    "SELECT shown FROM sample WHERE 1 / number = 1 ORDER BY CAST(text AS INT) LIMIT 1",
    "SELECT a.shown FROM sample a JOIN sample b ON CAST(a.text AS INT) = 1 / b.number",
)


# lit(True) would take a tenth of a millisecond.
_TRUE: Final = lit(pa.scalar(value=True))


def behind_barrier(rows: DataFrame) -> DataFrame:
    """Return `rows` so that no expression on top of them is evaluated on other rows."""
    names = rows.schema().names
    extra = "barrier"
    while extra in names:
        extra += "_"
    unnested = rows.with_column(extra, f.make_array(_TRUE)).unnest_columns(extra)
    return unnested.select(*(col(quoted(name)) for name in names)).limit(_ALL_ROWS)


def barrier_holds(context: SessionContext, barrier: Callable[[DataFrame], DataFrame] = behind_barrier) -> bool:
    """Return whether, behind `barrier`, statements don't fail on a sample's hidden row."""
    return reveals_nothing(context, barrier(context.read_batch(pa.record_batch(_SAMPLE)).filter(col("shown"))))


def reveals_nothing(context: SessionContext, rows: DataFrame) -> bool:
    """Return whether no statement fails on a sample row that is not among `rows`."""
    context.register_table("sample", rows.into_view())
    try:
        for sql in _REVEALING:
            context.sql(sql).collect()
    except Exception:  # noqa: BLE001 - DataFusion has no class for it
        _log.error("the security barrier failed its self-test")
        return False
    finally:
        context.deregister_table("sample")
    return True
