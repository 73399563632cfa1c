"""Messages between the front and an executor, over a pair of sockets.

A message is a head (kind, rows, length) and a body. Requests are pickled, since the front is trusted; answers are bytes
and JSON, so that an executor which a statement has taken over cannot take over the front. The socket's buffer is the
flow control: an executor blocks while the front does not read.
"""

from __future__ import annotations

import json
import pickle
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from micromegas_jupyter.errors import InternalError, MicromegasError, ResourcesExhausted
from micromegas_jupyter.flightsql.commands import decode_error, encode_error

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from micromegas_jupyter.core.protocols import AuthContext, TableSnapshot, WriteRequest
    from micromegas_jupyter.engine.contract import TimeRange
    from micromegas_jupyter.flightsql.framing import Compression, DecodeLimits

HEAD: Final = struct.Struct("<cII")
_LENGTH: Final = struct.Struct("<I")
MAX_FRAME_BYTES: Final = 256 * 1024 * 1024
MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024  # of schemas, and of JSON that the front reads
MAX_LOG_RECORDS: Final = 16  # of one answer
MAX_LOG_CHARACTERS: Final = 8192  # of one record
_MAX_PIECES: Final = 512  # of one sendmsg; the system's limit is 1,024

# Front to executor: pickled, but for ROWS.
PLAN: Final = b"p"  # plan a statement and cache the plan until the next message; answered with PLANNED
RUN: Final = b"r"  # run a statement, planned before or not; answered with FRAMEs and END
TABLES: Final = b"t"  # list the tables that a caller sees; answered with LISTED
INGEST: Final = b"i"  # begin an upload; answered with ACCEPTED
ROWS: Final = b"d"  # one serialized FlightData of the upload; answered with ACCEPTED
COMMIT: Final = b"c"  # make the upload durable; answered with END

# Executor to front.
READY: Final = b"R"  # started
PLANNED: Final = b"P"  # the IPC schemas of the result and of the parameters
FRAME: Final = b"F"  # one serialized FlightData, which goes to the client as it is
LISTED: Final = b"L"  # JSON: names and IPC schemas
ACCEPTED: Final = b"A"  # JSON: rows so far
END: Final = b"E"  # JSON: statistics; the executor is idle again
ERROR: Final = b"X"  # JSON: the error and statistics; the executor is idle again

#: After one of these the executor waits for the next request.
LAST: Final = frozenset({PLANNED, LISTED, END, ERROR})


def send_pieces(connection: socket.socket, pieces: Sequence[Any]) -> None:
    """Send pieces over a blocking socket without joining them."""
    views = [memoryview(piece) for piece in pieces if len(piece)]
    first = 0
    while first < len(views):
        sent = connection.sendmsg(views[first : first + _MAX_PIECES])
        while sent and sent >= len(views[first]):
            sent -= len(views[first])
            first += 1
        if sent:
            views[first] = views[first][sent:]


def build_pair(first: bytes, second: bytes) -> bytes:
    """Return two byte strings as one."""
    return _LENGTH.pack(len(first)) + first + second


def parse_pair(body: bytes) -> tuple[bytes, bytes]:
    """Return what `build_pair` joined."""
    try:
        (length,) = _LENGTH.unpack_from(body)
    except struct.error:
        raise InternalError("An executor's answer cannot be read.") from None
    middle = _LENGTH.size + length
    return body[_LENGTH.size : middle], body[middle:]


def build_error(error: MicromegasError, facts: dict[str, object]) -> bytes:
    """Return the body of an ERROR: the error, and other facts."""
    facts = {**facts, "error": encode_error(error).decode()}
    if isinstance(error, ResourcesExhausted) and error.limit is not None:
        facts["limit"] = error.limit
    return json.dumps(facts).encode()


def parse_error(facts: dict[str, Any]) -> MicromegasError:
    """Return the error in the body of an ERROR."""
    error = decode_error(str(facts.get("error", "")).encode()) or InternalError("The statement failed.")
    limit = facts.get("limit")
    if isinstance(error, ResourcesExhausted) and isinstance(limit, str):
        error.limit = limit
    return error


def parse_json(body: bytes) -> dict[str, Any]:
    """Return the JSON object in the body of an answer; InternalError for anything else."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InternalError("An executor's answer cannot be read.")
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One statement of one caller, before it is parsed (see `engine.contract.StatementRequest`).

    `parameters` are serialized `FlightData` of the values, as the client sent them; empty for none.
    """

    sql: str = field(repr=False)
    caller: AuthContext
    parameters: tuple[bytes, ...] = field(default=(), repr=False)
    time_range: TimeRange | None = None
    row_limit: int | None = None
    preserve_dictionary: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """How a result is sent: compressed or not, and at most so many rows and bytes (as sent); None for no limit."""

    compression: Compression | None = None
    max_rows: int | None = None
    max_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """Rows that a caller is about to send into one table.

    Attributes:
        row_count: How many rows the caller announced; None when they did not.
        max_rows: The most rows.
        max_bytes: The most bytes of all rows once they are decoded.
        max_row_bytes: The most bytes of one row.
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
    """Return the body of PLAN or RUN.

    `plan_id` names the plan that is to be cached, or that was (0 for none); `partitions` are for one that is planned
    now, None for one per processor; `tables` are None when the executor knows them.
    """
    return pickle.dumps((statement, output, plan_id, partitions, tables), pickle.HIGHEST_PROTOCOL)


def decode_statement(body: bytes) -> tuple[Statement, Output, int, int | None, Sequence[TableSnapshot] | None]:
    """Return what `encode_statement` encoded, in the order of its arguments."""
    fields: tuple[Statement, Output, int, int | None, Sequence[TableSnapshot] | None] = pickle.loads(body)  # noqa: S301 - from the front
    return fields


def encode_listing(caller: AuthContext, tables: Sequence[TableSnapshot] | None) -> bytes:
    """Return a request for the tables that a caller sees."""
    return pickle.dumps((caller, tables), pickle.HIGHEST_PROTOCOL)
