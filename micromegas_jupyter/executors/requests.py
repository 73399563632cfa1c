"""What the front asks of an executor; pickled on its way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from micromegas_jupyter.contracts import AuthContext, TableSnapshot, WriteRequest
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """A request, and what else the executor needs for it.

    Attributes:
        request: What is asked; for a list of tables, who asks.
        output: How a result is sent.
        plan_id: Names the plan that is to be kept, or that was.
        tables: All tables, when the executor does not know this version of them.
    """

    request: Statement | AuthContext | Upload
    output: Output = field(default_factory=Output)
    plan_id: int = 0
    tables: Sequence[TableSnapshot] | None = field(default=None, repr=False)
