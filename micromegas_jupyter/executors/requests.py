"""What the front asks of an executor; pickled on its way."""

from __future__ import annotations

import functools
import pickle
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from micromegas_jupyter.core.protocols import AuthContext, TableSnapshot, WriteRequest
    from micromegas_jupyter.engine.contract import TimeRange
    from micromegas_jupyter.flightsql.decoding import DecodeLimits
    from micromegas_jupyter.flightsql.framing import Compression


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One statement of one caller, before anything of it is read.

    Attributes:
        sql: The text.
        caller: Who asks, with their rights.
        parameters: Serialized `FlightData` of the values, as the client sent them; empty for none.
        time_range: What every table with a time is cut to; None for all rows.
        row_limit: At most this many rows are given, on top of the statement's own LIMIT; None for all.
        preserve_dictionary: Whether dictionary-encoded columns stay so in the result.
    """

    sql: str = field(repr=False)
    caller: AuthContext
    parameters: tuple[bytes, ...] = field(default=(), repr=False)
    time_range: TimeRange | None = None
    row_limit: int | None = None
    preserve_dictionary: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """How a result is sent.

    Attributes:
        compression: How the bodies of messages are compressed; None for not at all.
        max_rows: Rows of the result; None for all.
        max_bytes: Bytes of the result as it is sent; None for any number.
    """

    compression: Compression | None = None
    max_rows: int | None = None
    max_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """Rows that a caller is about to send into one table.

    Attributes:
        request: The table, the mode and the caller's rights.
        decoding: How much may be decoded.
        row_count: How many rows the caller promised; None when they did not.
        max_rows: Rows that are taken.
        max_bytes: Bytes that the rows may take once they are decoded.
        max_row_bytes: Bytes that one row may take.
    """

    request: WriteRequest
    decoding: DecodeLimits
    row_count: int | None
    max_rows: int
    max_bytes: int
    max_row_bytes: int


def encode_statement(
    statement: Statement,
    output: Output,
    *,
    plan_id: int,
    partitions: int | None = None,
    tables: Sequence[TableSnapshot] | None,
) -> bytes:
    """Return a statement as an executor reads it.

    Args:
        statement: The statement.
        output: How its result is sent.
        plan_id: Names the plan that is to be kept, or that was; 0 for none.
        partitions: How many partitions it runs in, if it is planned now; None for one per processor.
        tables: All tables, when the executor does not know this version of them.
    """
    # Tuples take a third of the time of dataclasses, and callers are few.
    fields = (
        statement.sql,
        _encode_caller(statement.caller),
        statement.parameters,
        statement.time_range,
        statement.row_limit,
        statement.preserve_dictionary,
        output.compression,
        output.max_rows,
        output.max_bytes,
        plan_id,
        partitions,
        tables,
    )
    return pickle.dumps(fields, pickle.HIGHEST_PROTOCOL)


def decode_statement(body: bytes) -> tuple[Statement, Output, int, int | None, Sequence[TableSnapshot] | None]:
    """Return what `encode_statement` encoded, in the order of its arguments."""
    fields = pickle.loads(body)  # noqa: S301 - from the front
    sql, caller, parameters, time_range, row_limit, preserve, compression, rows, size, plan_id, partitions, tables = (
        fields
    )
    statement = Statement(
        sql=sql,
        caller=_decode_caller(caller),
        parameters=parameters,
        time_range=time_range,
        row_limit=row_limit,
        preserve_dictionary=preserve,
    )
    return statement, Output(compression=compression, max_rows=rows, max_bytes=size), plan_id, partitions, tables


def encode_listing(caller: AuthContext, tables: Sequence[TableSnapshot] | None) -> bytes:
    """Return a request for the tables that a caller sees."""
    return pickle.dumps((caller, tables), pickle.HIGHEST_PROTOCOL)


@functools.lru_cache(maxsize=256)
def _encode_caller(caller: AuthContext) -> bytes:
    return pickle.dumps(caller, pickle.HIGHEST_PROTOCOL)


@functools.lru_cache(maxsize=256)
def _decode_caller(encoded: bytes) -> AuthContext:
    caller: AuthContext = pickle.loads(encoded)  # noqa: S301 - from the front
    return caller
