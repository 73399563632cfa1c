"""Evaluates the rules that deny queries, and provides the SQL functions that administrators use to create them.

A rule is a boolean SQL expression over `denial_store.MATCH_COLUMNS`, which are known before planning. The functions
have upstream's names, arguments, and results. They act when the statement runs, not during planning.
"""

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol

import pyarrow as pa
from datafusion import DataFrame, ScalarUDF, SessionContext, udf

from micromegas_jupyter.core.protocols import AuthContext
from micromegas_jupyter.engine.contract import StatementRequest
from micromegas_jupyter.engine.errors import Context, is_engine_failure, translate
from micromegas_jupyter.engine.functions.denial_store import MATCH_COLUMNS, DenialStore
from micromegas_jupyter.engine.planning import SUBQUERY_KEYWORDS, check_expression
from micromegas_jupyter.engine.scanner import Kind, Mention, Scan, find_calls_in_from, scan
from micromegas_jupyter.engine.schemas import register_rows
from micromegas_jupyter.errors import InternalError, InvalidStatement, MicromegasError

_MAX_EXPRESSION_BYTES: Final = 4096
_MATCH_SCHEMA: Final = pa.schema([pa.field(name, pa.string()) for name in MATCH_COLUMNS])
DENY: Final = "deny_queries"
LIST: Final = "list_query_denials"
REMOVE: Final = "remove_query_denial"
DENIAL_NAMES: Final = frozenset({DENY, LIST, REMOVE})
_TIME: Final = pa.timestamp("ns", "+00:00")
_COLUMNS: Final = {"rule_id": pa.string(), "created_at": _TIME, "created_by": pa.string(), "reason": pa.string(),
                   "match_expr": pa.string(), "last_hit_at": _TIME}  # fmt: skip
_SCHEMA: Final = pa.schema([pa.field(name, kind, nullable=name == "last_hit_at") for name, kind in _COLUMNS.items()])


class MatchRules:
    """Validated expressions to match against queries."""

    def __init__(self, expressions: Sequence[str]) -> None:
        for expression in expressions:
            check_match(expression)
        self.expressions = tuple(expressions)

    def first_match(self, facts: Mapping[str, str | None], hashes: Sequence[str]) -> int | None:
        """Return the index of the first expression that is true for a query, or None."""
        rows = [{**facts, "sql_hash": one} for one in dict.fromkeys(hashes)]
        evaluated = _evaluate(rows, self.expressions)
        return next((index for index, one in enumerate(self.expressions) if evaluated[one]), None)


def check_match(expression: str) -> None:
    """Check that an expression is a valid rule."""
    try:
        scanned = check_expression(expression, max_bytes=_MAX_EXPRESSION_BYTES)
        _check_tokens(scanned)
        rows = _frame([dict.fromkeys(MATCH_COLUMNS, "x"), {}])
        rows.filter(rows.parse_sql_expr(expression)).collect()
    except BaseException as error:
        if not is_engine_failure(error):
            raise
        translated = translate(error, Context(sql=expression))
        # The engine's messages refer to a whole statement.
        what = re.sub("^The (statement|expression) ", "It ", translated.what)
        raise InvalidStatement(f"The rule's expression cannot be used. {what}", remedy=translated.remedy) from None


def _check_tokens(scanned: Scan) -> None:
    kinds = {token.kind for token in scanned.tokens}
    names = {token.name for token in scanned.tokens if token.kind in {Kind.WORD, Kind.QUOTED}}
    if not scanned.is_certain or kinds & {Kind.SEMICOLON, Kind.PLACEHOLDER} or names & SUBQUERY_KEYWORDS:
        raise InvalidStatement("It contains a subquery, a placeholder, a semicolon, or an unclosed quote.")
    if not names & set(MATCH_COLUMNS):
        raise InvalidStatement(
            "It doesn't use any of the columns, so it would deny either every query or none.",
            remedy=f"Compare one of these columns with a string: {', '.join(MATCH_COLUMNS)}.",
        )


def _evaluate(rows: Sequence[Mapping[str, str | None]], expressions: Sequence[str]) -> dict[str, bool]:
    """For each expression, return whether it is true for at least one of the rows."""
    try:
        frame = _frame(rows)
        # The line break ends a comment at the end of the expression.
        columns = [
            frame.parse_sql_expr(f"({one}\n) IS TRUE").alias(str(index)) for index, one in enumerate(expressions)
        ]
        found = pa.Table.from_batches(frame.select(*columns).collect()).to_pydict()
    except BaseException as error:
        if not is_engine_failure(error):
            raise
        if len(expressions) == 1:
            return {expressions[0]: False}
        return {one: _evaluate(rows, [one])[one] for one in expressions}
    return {one: any(found[str(index)]) for index, one in enumerate(expressions)}


_context: Final = functools.cache(SessionContext)


def _frame(rows: Sequence[Mapping[str, str | None]]) -> DataFrame:
    return _context().read_batch(pa.RecordBatch.from_pylist([dict(row) for row in rows], schema=_MATCH_SCHEMA))


def names_denial_function(sql: str) -> bool:
    """Return whether a statement mentions a denial function, which administrators may always run."""
    return any(token.kind is Kind.WORD and token.name in DENIAL_NAMES for token in scan(sql).tokens)


def with_denial_as_rows(scanned: Scan) -> Scan:
    """Replace `deny_queries(…)`, which is a table function upstream, with a row of `time` and `msg`.

    DataFusion-Python runs table functions during planning, and scalar functions during execution.
    """
    if DENY not in scanned.names:
        return scanned
    tokens = scanned.tokens
    for first, last in find_calls_in_from(scanned, {DENY}, is_certain=False):  # its arguments may be dollar-quoted
        start, end = tokens[first].start, tokens[last].start + 1
        if start >= scanned.certain_until:
            break
        call = f"(SELECT now() AS time, {scanned.sql[start:end]} AS msg)"
        return scan(scanned.sql[:start] + call + scanned.sql[end:])
    return scanned


class DenialCalls(Protocol):
    """An administrator's statement that can be checked for permission to change denials."""

    request: StatementRequest
    caller: AuthContext
    failures: list[MicromegasError]

    def check_denial(self) -> None:
        """Check that the statement may change denials at this point."""


def register_denial_functions(
    session: SessionContext,
    denials: DenialStore,
    calls: DenialCalls,
    *,
    mentions: Mention,
) -> None:
    """Register the functions that an administrator's statement mentions."""

    def deny(match_expr: str | None, reason: str | None) -> str:
        calls.check_denial()
        if match_expr is None or reason is None:
            raise InvalidStatement(
                "A denial requires an expression and a reason.", remedy=f"Use {DENY}('sql_hash = ''…''', 'why')."
            )
        check_match(match_expr)
        return denials.add(match_expr, reason, created_by=calls.caller.subject)

    def remove(rule_id: str | None) -> str:
        calls.check_denial()
        if rule_id is not None and denials.remove(rule_id):
            return f"SUCCESS: rule {rule_id} was removed"
        return f"ERROR: there is no rule {rule_id}"

    if mentions.has(DENY):
        session.register_udf(_run_time(DENY, deny, 2, calls))
    if mentions.has(REMOVE):
        session.register_udf(_run_time(REMOVE, remove, 1, calls))
    if mentions.has(LIST):
        rules = ({name: getattr(rule, name) for name in _COLUMNS} for rule in denials.rules())
        register_rows(session, LIST, rules, _SCHEMA)


def _run_time(name: str, function: Callable[..., str], arity: int, calls: DenialCalls) -> ScalarUDF:
    """Return a string function that the engine calls once per row when the statement runs.

    In a read-only call, the planner may already call it, and it rejects the statement.
    """

    def call(*columns: pa.Array) -> pa.Array:
        rows = zip(*(one.to_pylist() for one in columns), strict=True)
        try:
            # Checking a rule waits for the engine, so it must not run on the engine's own thread.
            with ThreadPoolExecutor(1) as thread:
                return pa.array(list(thread.map(lambda row: function(*row), rows)), pa.string())
        except Exception as error:
            calls.failures.append(error if isinstance(error, MicromegasError) else InternalError(f"{name} failed."))
            raise

    volatility = "immutable" if calls.request.is_read_only else "volatile"
    return udf(call, [pa.string()] * arity, pa.string(), volatility, name)
