"""The SQL functions by which administrators deny queries: `deny_queries`, `list_query_denials`, `remove_query_denial`.

Names, arguments and results are upstream's. For callers who are not administrators they do not exist. A rule is made or
removed when the statement runs, never when it is only planned.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

import pyarrow as pa
from datafusion import ScalarUDF, SessionContext, udf, udtf

from micromegas_jupyter.engine.scanner import Kind, Scan, scan
from micromegas_jupyter.errors import InternalError, InvalidStatement, MicromegasError

if TYPE_CHECKING:
    from collections.abc import Callable

    from micromegas_jupyter.contracts import AuthContext
    from micromegas_jupyter.engine.denial_store import Denials
    from micromegas_jupyter.engine.tables import Mention

DENY: Final = "deny_queries"
LIST: Final = "list_query_denials"
REMOVE: Final = "remove_query_denial"
DENIAL_NAMES: Final = frozenset({DENY, LIST, REMOVE})
_TIME: Final = pa.timestamp("ns", "+00:00")
_SCHEMA: Final = pa.schema(
    [
        pa.field("rule_id", pa.string(), nullable=False),
        pa.field("created_at", _TIME, nullable=False),
        pa.field("created_by", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("match_expr", pa.string(), nullable=False),
        pa.field("last_hit_at", _TIME),
    ]
)


def names_denial_function(sql: str) -> bool:
    """Return whether a statement names one of the functions, so that an administrator can always lift a denial."""
    return any(token.kind is Kind.WORD and token.name in DENIAL_NAMES for token in scan(sql).tokens)


def with_denial_as_rows(scanned: Scan) -> Scan:
    """Return a statement in which `deny_queries(…)`, a table in upstream's SQL, is a row with `time` and `msg`.

    DataFusion-Python runs a table function when it plans, and a function of a row when it runs.
    """
    tokens = scanned.tokens
    for place, token in enumerate(tokens[:-1]):
        is_call = token.kind is Kind.WORD and token.name == DENY and tokens[place + 1].text == "("
        if not is_call or token.start >= scanned.certain_until:
            continue
        before = tokens[place - 1].name if place else ""
        end = _closing(scanned, place + 1)
        if before not in {"from", "join", ","} or end is None:
            continue
        sql = scanned.sql
        call = f"(SELECT now() AS time, {sql[token.start : end]} AS msg)"
        return scan(sql[: token.start] + call + sql[end:])
    return scanned


def _closing(scanned: Scan, opening: int) -> int | None:
    """Return the offset behind the bracket that closes the one at a place; None when there is none."""
    depth = 0
    for token in scanned.tokens[opening:]:
        depth += {Kind.OPEN: 1, Kind.CLOSE: -1}.get(token.kind, 0)
        if depth == 0:
            return token.start + 1
    return None


def register_denial_functions(
    session: SessionContext,
    denials: Denials,
    *,
    caller: AuthContext,
    mentions: Mention,
    failures: list[MicromegasError],
) -> None:
    """Give a session of an administrator those of the functions that the statement mentions.

    Args:
        session: The session.
        denials: The rules.
        caller: Whose session it is.
        mentions: The names in the statement.
        failures: Gets the errors of functions that fail when they run, which DataFusion would only tell as text.

    Raises:
        Unavailable: The rules cannot be read.
    """

    def deny(match_expr: str | None, reason: str | None) -> str:
        if match_expr is None or reason is None:
            raise InvalidStatement(
                "A denial needs an expression and a reason.",
                remedy=f"Write {DENY}('sql_hash = ''…''', 'why').",
            )
        return denials.add(match_expr, reason, created_by=caller.subject)

    def remove(rule_id: str | None) -> str:
        if rule_id is not None and denials.remove(rule_id):
            return f"SUCCESS: rule {rule_id} was removed"
        return f"ERROR: there is no rule {rule_id}"

    if mentions.has(DENY):
        session.register_udf(_run_time(DENY, deny, 2, failures))
    if mentions.has(REMOVE):
        session.register_udf(_run_time(REMOVE, remove, 1, failures))
    if mentions.has(LIST):
        listed = session.read_batch(_rows(denials)).into_view()
        session.register_udtf(udtf(lambda *_: listed, LIST))


def _rows(denials: Denials) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(
        [{name: getattr(rule, name) for name in _SCHEMA.names} for rule in denials.rules()], schema=_SCHEMA
    )


def _run_time(name: str, function: Callable[..., str], arity: int, failures: list[MicromegasError]) -> ScalarUDF:
    """Return a function of texts that the engine calls for each row when the statement runs."""

    def call(*columns: pa.Array) -> pa.Array:
        rows = zip(*(one.to_pylist() for one in columns), strict=True)
        try:
            # The engine's own thread must not wait for the engine, which a rule's check does.
            with ThreadPoolExecutor(1) as thread:
                return pa.array(list(thread.map(lambda row: function(*row), rows)), pa.string())
        except Exception as error:
            failures.append(error if isinstance(error, MicromegasError) else InternalError(f"{name} failed."))
            raise

    return udf(call, [pa.string()] * arity, pa.string(), "volatile", name)
