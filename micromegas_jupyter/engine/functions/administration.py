"""Registers administrators' functions, and finds calls to them in a statement.

DataFusion's planner finds the calls: it calls table functions during planning, and evaluates functions that don't
depend on rows. Names in strings, comments, aliases, and CTEs are therefore not calls, and no spelling hides a call.

Changes to the lake run in the ingest process, when the front learns about the call from the plan; the engine gets the
resulting messages with the statement. A statement that is only planned has no messages yet.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import pyarrow as pa
from datafusion import ScalarUDF, SessionContext, udf, udtf
from datafusion.expr import Expr

from micromegas_jupyter.core.protocols import AuthContext
from micromegas_jupyter.core.read_only import check_may_change_state
from micromegas_jupyter.engine.contract import StatementRequest
from micromegas_jupyter.engine.functions.denials import DENIAL_NAMES, DENY, LIST, REMOVE
from micromegas_jupyter.engine.functions.listings import VIEW_DEFINITIONS_FUNCTION
from micromegas_jupyter.engine.partition_calls import (
    BY_ONE,
    MESSAGE_FUNCTIONS,
    PARTITION_NAMES,
    PartitionCall,
    parse_partition_call,
)
from micromegas_jupyter.engine.scanner import Kind, Mention, Token, scan
from micromegas_jupyter.errors import InvalidStatement, MicromegasError, PermissionDenied, UnsupportedStatement

ADMINISTRATION_NAMES: Final = DENIAL_NAMES | PARTITION_NAMES | {VIEW_DEFINITIONS_FUNCTION}
#: Table functions for administrators only.
_TABLES: Final = frozenset({DENY, LIST, VIEW_DEFINITIONS_FUNCTION})
#: Scalar functions for administrators only, with their number of arguments.
_SCALARS: Final = {DENY: 2, REMOVE: 1, **BY_ONE}
_MESSAGES: Final = pa.schema(
    [pa.field("time", pa.timestamp("ns", "+00:00"), nullable=False), pa.field("msg", pa.string(), nullable=False)]
)
_DENIALS: Final = "change query denials"


@dataclass(slots=True, kw_only=True)
class AdministrationCalls:
    """The calls to administrators' functions that DataFusion finds in one statement.

    `failures` are the functions' errors; `rejections` are those that are about permission.
    """

    request: StatementRequest
    caller: AuthContext
    failures: list[MicromegasError] = field(repr=False)
    rejections: list[MicromegasError] = field(default_factory=list, repr=False)
    is_explained: bool = False
    _found: list[tuple[str, tuple[Any, ...]]] = field(default_factory=list, repr=False)

    def forget(self) -> None:
        """Clear the recorded calls before the statement is planned again."""
        self._found.clear()

    def register(self, session: SessionContext, sql: str, mentions: Mention) -> None:
        """Register the functions that the statement mentions; each only records its calls.

        `register_denial_functions` registers the functions that change denials.
        """
        names = mentions.among(ADMINISTRATION_NAMES)
        if not names:
            return
        is_admin = self.caller.is_admin
        rows = [{"time": time, "msg": text} for time, text in self.request.messages]
        messages = session.read_batch(pa.RecordBatch.from_pylist(rows, schema=_MESSAGES)).into_view()
        tokens = [token for token in scan(sql).tokens if token.kind is Kind.WORD or token.kind is Kind.QUOTED]
        for name in names & (MESSAGE_FUNCTIONS if is_admin else MESSAGE_FUNCTIONS | _TABLES):
            for spelling in _spellings(name, tokens):
                session.register_udtf(udtf(partial(self._note, name, messages), spelling))
        for name in names & (BY_ONE if is_admin else _SCALARS).keys():
            session.register_udf(self._without_right(name, _SCALARS[name]))

    def check_denial(self) -> None:
        """Check that the statement may change denials; called by the functions that change them."""
        with self._noting():
            check_may_change_state(self.request, _DENIALS)
            if self.is_explained:
                what = "EXPLAIN ANALYZE doesn't run statements that change query denials."
                raise InvalidStatement(what, remedy="Write EXPLAIN.")

    def check(self, *, is_run: bool) -> PartitionCall | None:
        """Check the recorded calls, and return the one that changes partitions if the statement `is_run`."""
        if self.rejections:
            raise self.rejections[-1]
        if not self._found:
            return None
        if not self.caller.is_admin:
            raise _not_administrator(self._found[0][0])
        if len(self._found) > 1:
            raise InvalidStatement("The statement changes partitions twice.", remedy="Call one function at a time.")
        if not is_run:
            return None
        check_may_change_state(self.request, "change partitions")
        function, arguments = self._found[0]
        return parse_partition_call(function, [_value(one) for one in arguments])

    def _note(self, function: str, rows: Any, *arguments: Any) -> Any:
        self._found.append((function, arguments))
        return rows

    def _without_right(self, function: str, arity: int) -> ScalarUDF:
        """Return a function that always fails; if its arguments are constants, it fails during planning."""

        def call(*_columns: pa.Array) -> pa.Array:
            with self._noting():
                if not self.caller.is_admin:
                    raise _not_administrator(function)
                raise UnsupportedStatement(
                    f"{function} isn't supported, because a table's files can change at any time.",
                    remedy="To delete rows, run `micromegas tables delete`.",
                )

        return udf(call, [pa.string()] * arity, pa.string(), "immutable", function)

    @contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except MicromegasError as error:
            self.failures.append(error)
            self.rejections.append(error)
            raise


def _spellings(name: str, tokens: Sequence[Token]) -> set[str]:
    """Return all spellings of a name in a statement; DataFusion matches table functions by spelling, with quotes."""
    return {token.text for token in tokens if token.name == name} | {name, f'"{name}"', f"`{name}`"}


def _value(argument: Any) -> object:
    """Return the value of a constant, or None for any other expression."""
    expression = Expr(argument) if not isinstance(argument, Expr) else argument
    if type(expression.to_variant()).__name__ != "Literal":
        return None
    value = expression.python_value()
    if isinstance(value, pa.Scalar) and pa.types.is_timestamp(value.type):
        value = value.cast(pa.timestamp("us", value.type.tz), safe=False)
    return value.as_py() if isinstance(value, pa.Scalar) else value


def _not_administrator(function: str) -> PermissionDenied:
    return PermissionDenied(
        f"Only administrators may call {function}.",
        reason="not_administrator",
        remedy="Ask one of the server's administrators.",
    )
