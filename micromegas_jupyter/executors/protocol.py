"""Messages between the front end and an executor: a header (kind, length) and a body.

Requests are pickled, because the front end is trusted. Responses are bytes and JSON, so that a compromised
executor cannot compromise the front end. An executor blocks while the front end does not read.
"""

import copyreg
import logging
import pickle
import socket
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from functools import lru_cache
from io import BytesIO
from typing import Any, Final

import msgspec
import pyarrow as pa

from micromegas_jupyter.core.protocols import AuthContext, WriteRequest
from micromegas_jupyter.engine.contract import ScanProgress, TableFiles, Tail, TimeRange
from micromegas_jupyter.engine.partition_calls import PartitionCall
from micromegas_jupyter.errors import InternalError, MicromegasError, ResourcesExhausted
from micromegas_jupyter.executors.settings import IngestSettings
from micromegas_jupyter.flightsql.commands import decode_error, encode_error
from micromegas_jupyter.flightsql.framing import MAX_MESSAGE_BYTES, Compression

_LOG: Final = logging.getLogger("micromegas_jupyter.engine")
HEAD: Final = struct.Struct("<cI")
MAX_FRAME_BYTES: Final = MAX_MESSAGE_BYTES + 1024 * 1024
MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024  # for schemas, and for JSON that the front end parses
MAX_LISTED_BYTES: Final = 96 * 1024 * 1024  # for all responses to one listing of tables
MAX_LOG_RECORDS: Final = 16  # per response
MAX_LOG_CHARACTERS: Final = 8192  # per record
MAX_FACTS_BYTES: Final = 256 * 1024  # for a statement's END or ERROR, which the event loop parses
_RECEIVE_BYTES: Final = 16 * 1024
_LARGE_RECEIVE_BYTES: Final = 1024 * 1024
_MAX_PACKED: Final = 256  # callers and outputs
_MAX_COMMAS: Final = 256 * 1024  # per response; a statement has at most half as many
_MAX_FILES: Final = 2**31
_MAX_OFFSET: Final = 2**63
_MAX_PIECES: Final = 512  # per sendmsg; the system's limit is 1,024

# From the front end to an executor: pickled. `pack_statement` builds PLAN and RUN: the statement, the output, the ID of
# the plan to cache or use (0 for none), the current number of partitions (None for one per processor), and the
# positions of the tables among those that the executor has, including those learned since; None if they are unchanged.
PLAN: Final = b"p"  # plan a statement and cache the plan until the next message; the response is PLANNED
RUN: Final = b"r"  # run a statement, planned before or not; the response is READS, FRAMEs, and END
# Tables, or changes to tables that are known by name, for the next request; each is packed by `pickle_request`. No
# response.
LEARN: Final = b"l"
TABLES: Final = b"t"  # list the tables that a caller sees, with (caller, tables); the response is LISTED and END
# Check that the engine reads tables correctly or, on a channel, that the process responds; the response is END.
CHECK: Final = b"k"
# Call a function that must not run in the front end, with (function, arguments, tables); it receives the tables before
# the arguments. The response is ANSWER and END.
CALL: Final = b"f"
MAINTAIN: Final = b"m"  # run a maintenance round; the response is END
REFRESH: Final = b"v"  # refresh a materialized view, with (name, time range or None); the response is END
SERVE: Final = b"s"  # serve ingest; after ACCEPTED, each CHANNEL byte on the socket has a channel attached

CHANNEL: Final = b"o"

# From the front end to the ingest process, on a separate channel per call: pickled, except ROWS.
INGEST: Final = b"i"  # begin an upload; the response is ACCEPTED
ROWS: Final = b"d"  # one serialized FlightData of the upload; the response is ACCEPTED
COMMIT: Final = b"c"  # make the upload durable; the response is END
# Store an OpenTelemetry export, with (number, request); the responses are END or ERROR with the number, in any order.
EXPORT: Final = b"e"
OPERATE: Final = b"o"  # create, change, or describe a table, with (operation, arguments); the response is END

# Executor to front.
READY: Final = b"R"  # the executor has started
PLANNED: Final = b"P"  # JSON: the IPC schemas of the result and of the parameters, in hexadecimal digits
READS: Final = b"T"  # JSON: the columns that the statement reads, by table; sent before the first FRAME
PROGRESS: Final = b"G"  # JSON: how much of its files a statement has scanned; sent every second after the first FRAME
FRAME: Final = b"F"  # one serialized FlightData, which is sent to the client unchanged
ANSWER: Final = b"J"  # JSON: the result of a CALL's function, as `answer`
LISTED: Final = b"L"  # JSON: names and IPC schemas of some of the tables
ACCEPTED: Final = b"A"  # JSON: number of rows so far
END: Final = b"E"  # JSON: statistics; the executor is idle again
ERROR: Final = b"X"  # JSON: the error and statistics; the executor is idle again


class Requests:
    """The executor's end of a socket: receives requests and sends responses. For one thread."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._received = bytearray()

    def receive(self) -> tuple[bytes, bytes] | None:
        """Return the kind and body of the next request, or None if the front end has exited."""
        received, size = self._received, _RECEIVE_BYTES
        while len(received) < HEAD.size or len(received) < HEAD.size + HEAD.unpack_from(received)[1]:
            chunk = self.connection.recv(size)
            size = _LARGE_RECEIVE_BYTES
            if not chunk:
                return None
            received += chunk
        kind, length = HEAD.unpack_from(received)
        body = bytes(memoryview(received)[HEAD.size : HEAD.size + length])
        del received[: HEAD.size + length]
        return kind, body

    def send(self, kind: bytes, body: bytes) -> None:
        """Send a response."""
        send_pieces(self.connection, [HEAD.pack(kind, len(body)), body])


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


def build_error(error: MicromegasError, facts: dict[str, object]) -> dict[str, object]:
    """Return the content of an ERROR: the error and other data."""
    facts = {**facts, "error": encode_error(error).decode()}
    if isinstance(error, ResourcesExhausted) and error.limit is not None:
        facts["limit"] = error.limit
    return facts


def describe_error(error: BaseException) -> MicromegasError:
    """Return the caller's error; unexpected errors are logged."""
    if isinstance(error, MicromegasError):
        if isinstance(error, InternalError):
            _LOG.error("a statement failed unexpectedly: %s", error.what, exc_info=error.__cause__)
        return error
    if isinstance(error, MemoryError | pa.ArrowMemoryError):
        return ResourcesExhausted("This statement exceeds the memory limit per statement.", limit="memory")
    _LOG.error("a statement failed unexpectedly", exc_info=error)
    return InternalError("The server failed to respond.")


def parse_error(facts: dict[str, Any]) -> MicromegasError:
    """Return the error in the body of an ERROR."""
    error = decode_error(str(facts.get("error", "")).encode()) or InternalError("The statement failed.")
    limit = facts.get("limit")
    if isinstance(error, ResourcesExhausted) and isinstance(limit, str):
        error.limit = limit
    return error


def unpack_schema(packed: bytes) -> pa.Schema:
    """Return the schema of an IPC message."""
    return pa.ipc.read_schema(pa.py_buffer(packed))


# This packs schemas as Arrow does but in a tenth of the time, because packing blocks other calls.
_PACKING: Final = {
    **copyreg.dispatch_table,
    pa.Schema: lambda schema: (unpack_schema, (schema.serialize().to_pybytes(),)),
}


def pickle_request(*request: object) -> bytes:
    """Return the body of a request."""
    packed = BytesIO()
    pickler = pickle.Pickler(packed, pickle.HIGHEST_PROTOCOL)
    pickler.dispatch_table = _PACKING
    pickler.dump(request)
    return packed.getvalue()


def parse_json(body: bytes) -> dict[str, Any]:
    """Return the JSON object from a response body; raise InternalError for anything else."""
    try:
        # Parsing blocks other calls, for up to a second with 16 MiB of short values.
        found = msgspec.json.decode(body) if body.count(b",") <= _MAX_COMMAS else None
    except (ValueError, RecursionError):  # invalid JSON
        found = None
    if not isinstance(found, dict):
        raise InternalError("An executor's response is malformed.")
    return found


def parse_progress(facts: dict[str, Any]) -> ScanProgress | None:
    """Return an executor's progress; None if the data is invalid."""
    with suppress(msgspec.ValidationError):
        found = msgspec.convert(facts.get("progress"), ScanProgress)
        if 0 <= found.files < _MAX_FILES and 0 <= found.scanned <= 1:
            return found
    return None


def parse_reached(facts: dict[str, Any], *, count: int) -> tuple[int, int]:
    """Return an executor's end position for a follow's read over this many files."""
    with suppress(msgspec.ValidationError):
        index, offset = msgspec.convert(facts.get("reached"), tuple[int, int])
        if 0 <= offset < _MAX_OFFSET and 0 <= index <= count and (index < count or not offset):
            return index, offset
    raise InternalError("An executor's response is malformed.")


def parse_change(facts: dict[str, Any]) -> PartitionCall | None:
    """Return an executor's report of a planned statement's change."""
    try:
        return msgspec.convert(facts.get("change"), PartitionCall | None)
    except msgspec.ValidationError:
        raise InternalError("An executor's response is malformed.") from None


def parse_explained(facts: dict[str, Any]) -> tuple[TableFiles, ...]:
    """Return the tables from an executor's EXPLAIN; empty if the data is invalid."""
    with suppress(msgspec.ValidationError):
        return msgspec.convert(facts.get("explained"), tuple[TableFiles, ...])
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """A caller's statement before parsing; `parameters` are serialized `FlightData`, as received."""

    sql: str = field(repr=False)
    caller: AuthContext
    parameters: tuple[bytes, ...] = field(default=(), repr=False)
    time_range: TimeRange | None = None
    row_limit: int | None = None
    preserve_dictionary: bool = False
    messages: tuple[tuple[int, str], ...] = ()  # from the administrators' function that it calls and that already ran
    running: tuple[Mapping[str, object], ...] = field(default=(), hash=False, repr=False)  # for `running_queries()`
    tail: Tail | None = field(default=None, hash=False, repr=False)  # for a follow
    is_estimated: bool = False  # include the estimated reads in the schema's metadata, unless that would reveal rows
    is_read_only: bool = False  # it must not make changes


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """How a result is sent: compression, and maximum rows and bytes (as sent)."""

    compression: Compression | None = None
    max_rows: int | None = None
    max_bytes: int | None = None

    def too_large(self, sent: str) -> ResourcesExhausted:
        """Return the error for an oversized result after this much of it was sent."""
        size = f"{(self.max_bytes or 0) / 1024**2:,g} MiB"
        return ResourcesExhausted(
            f"The result exceeds this server's limit of {size} per query; {sent}.", limit="result_bytes"
        )

    def too_many_rows(self, sent: int) -> ResourcesExhausted:
        """Return the error for a result with too many rows after this many were sent."""
        return ResourcesExhausted(
            f"The result exceeds this server's limit of {self.max_rows:,} rows per query; {sent:,} rows were sent.",
            limit="rows",
        )


_NAMES: Final = tuple(one.name for one in fields(Statement))
# The same combinations of callers and outputs recur.
_pack = lru_cache(_MAX_PACKED)(pickle.dumps)
_unpack = lru_cache(_MAX_PACKED)(pickle.loads)


def pack_statement(
    statement: Statement, output: Output, plan_id: int, partitions: int | None, positions: Sequence[int] | None
) -> bytes:
    """Return the body of a PLAN or RUN."""
    values = {name: getattr(statement, name) for name in _NAMES} | {"caller": _pack(statement.caller)}
    return pickle.dumps((values, _pack(output), plan_id, partitions, positions))


def unpack_statement(body: bytes) -> tuple[Statement, Output, int, int | None, Sequence[int] | None]:
    """Return the arguments of `pack_statement`; use only for data from the front end."""
    values, output, plan_id, partitions, positions = pickle.loads(body)  # noqa: S301 - from the front end
    values["caller"] = _unpack(values["caller"])
    return Statement(**values), _unpack(output), plan_id, partitions, positions


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """Rows that a caller is about to send to one table."""

    request: WriteRequest
    limits: IngestSettings
    row_count: int | None  # as announced by the caller
