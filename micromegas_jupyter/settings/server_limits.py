"""How much a server gives its callers: time, rows, bytes, queries at once, room to spill; how much it takes from them.

Each limit has a variable; those that people change have an option of `micromegas serve` as well.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, Final

from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.settings.decoding import shown

SPILL_DIRECTORY_VARIABLE: Final = "MICROMEGAS_SERVER_SPILL_DIRECTORY"

_DAY_SECONDS: Final = 24 * 3600
_MOST_ROWS: Final = 10**15
_MOST_MIB: Final = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLimits:
    """What one server allows; 0 stands for no limit where that is said.

    Attributes:
        memory_mib: Memory of all statements that run together, in MiB.
        statement_memory_mib: Memory that one statement's process may take, in MiB (RLIMIT_DATA).
        query_timeout_seconds: How long a query may take, waiting and planning included; 0 for as long as it likes.
        max_rows: Rows of one result; 0 for all.
        max_result_mib: Size of one result as it is sent, in MiB; 0 for any.
        max_queries: Queries that run at once.
        max_queries_per_caller: Of these, those of one caller.
        max_ended_per_caller: Queries of one caller that may have to be ended within a minute, for memory, a crash or
            their time, before the caller has to wait a minute; 0 for any number.
        queue_timeout_seconds: How long a query waits for its turn.
        spill_mib: What one query may write to the spill directory, in MiB.
        spill_directory: An existing folder for what does not fit into memory; None for the system's.
        max_statement_bytes: The longest statement, in UTF-8 bytes.
        max_message_mib: The largest message from a client, in MiB.
        max_metadata_kib: The largest set of headers from a client, in KiB.
        max_calls: Calls of all kinds at once.
        max_calls_per_caller: Of these, those of one caller.
        read_timeout_seconds: How long a client may send nothing while the server waits for what it sends.
        upload_seconds: How long a call may send rows.
        connection_idle_seconds: How long a connection without calls is kept; 0 for any time.
        connection_age_seconds: How long a connection takes new calls; 0 for any time.
        ticket_life_seconds: How long a ticket that GetFlightInfo gave can be used.
        write_timeout_seconds: How long a client may take no data before its query ends.
        max_ingest_mib: What one call may send into a table, in MiB, also once it is unpacked.
        max_ingests: Calls that send rows at once.
        max_ingests_per_caller: Of these, those of one caller.
        max_tables_per_caller: Tables that one caller may make by sending rows, who is not an administrator.
    """

    memory_mib: int = 4096
    statement_memory_mib: int = 2048
    query_timeout_seconds: int = 1800
    max_rows: int = 0
    max_result_mib: int = 0
    max_queries: int = 32
    max_queries_per_caller: int = 16
    max_ended_per_caller: int = 20
    queue_timeout_seconds: int = 60
    spill_mib: int = 8192
    spill_directory: str | None = field(default=None, repr=False)
    max_statement_bytes: int = 131072
    max_message_mib: int = 32
    max_metadata_kib: int = 64
    max_calls: int = 1000
    max_calls_per_caller: int = 250
    read_timeout_seconds: int = 60
    upload_seconds: int = 3600
    connection_idle_seconds: int = 900
    connection_age_seconds: int = 3600
    ticket_life_seconds: int = 600
    write_timeout_seconds: int = 300
    max_ingest_mib: int = 1024
    max_ingests: int = 16
    max_ingests_per_caller: int = 8
    max_tables_per_caller: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class CountedLimit:
    """A limit that is a whole number: a field of `ServerLimits`, its variable, its range.

    `has_option` gives it an option of its own name, `option` one of another.
    """

    name: str
    variable: str
    meaning: str
    least: int = 1
    most: int
    has_option: bool = False
    option: str = ""

    @property
    def option_name(self) -> str | None:
        """The name of its option without dashes, for those that have one."""
        return self.option or (self.name if self.has_option else None)

    @property
    def default(self) -> int:
        """What holds when it is not set."""
        return int(getattr(ServerLimits(), self.name))


COUNTED_LIMITS: Final = (
    CountedLimit(
        name="memory_mib",
        variable="MICROMEGAS_SERVER_MEMORY_MIB",
        meaning="memory of all statements together, in MiB",
        least=64,
        most=_MOST_MIB,
        has_option=True,
    ),
    CountedLimit(
        name="statement_memory_mib",
        variable="MICROMEGAS_SERVER_STATEMENT_MEMORY_MIB",
        meaning="memory of one statement, in MiB",
        least=1536,
        most=_MOST_MIB,
        has_option=True,
    ),
    CountedLimit(
        name="query_timeout_seconds",
        option="query_timeout",
        variable="MICROMEGAS_SERVER_QUERY_TIMEOUT_SECONDS",
        meaning="how long a query may take, in seconds; 0 for no limit",
        least=0,
        most=7 * _DAY_SECONDS,
    ),
    CountedLimit(
        name="max_rows",
        has_option=True,
        variable="MICROMEGAS_SERVER_MAX_ROWS",
        meaning="rows of one result; 0 for no limit",
        least=0,
        most=_MOST_ROWS,
    ),
    CountedLimit(
        name="max_result_mib",
        has_option=True,
        variable="MICROMEGAS_SERVER_MAX_RESULT_MIB",
        meaning="size of one result, in MiB; 0 for no limit",
        least=0,
        most=_MOST_MIB,
    ),
    CountedLimit(
        name="max_queries",
        has_option=True,
        variable="MICROMEGAS_SERVER_MAX_QUERIES",
        meaning="queries that run at once",
        most=10_000,
    ),
    CountedLimit(
        name="max_queries_per_caller",
        has_option=True,
        variable="MICROMEGAS_SERVER_MAX_QUERIES_PER_CALLER",
        meaning="of these, those of one caller",
        most=10_000,
    ),
    CountedLimit(
        name="max_ended_per_caller",
        variable="MICROMEGAS_SERVER_MAX_ENDED_PER_CALLER",
        meaning="queries of one caller that may have to be ended within a minute; 0 for no limit",
        least=0,
        most=1000,
    ),
    CountedLimit(
        name="queue_timeout_seconds",
        option="queue_timeout",
        variable="MICROMEGAS_SERVER_QUEUE_TIMEOUT_SECONDS",
        meaning="how long a query waits for its turn, in seconds",
        most=3600,
    ),
    CountedLimit(
        name="spill_mib",
        has_option=True,
        variable="MICROMEGAS_SERVER_SPILL_MIB",
        meaning="what one query may write to the spill directory, in MiB",
        most=_MOST_MIB,
    ),
    CountedLimit(
        name="max_statement_bytes",
        variable="MICROMEGAS_SERVER_MAX_STATEMENT_BYTES",
        meaning="the longest statement, in bytes",
        most=524288,
    ),
    CountedLimit(
        name="max_message_mib",
        variable="MICROMEGAS_SERVER_MAX_MESSAGE_MIB",
        meaning="the largest message from a client, in MiB",
        most=1024,
    ),
    CountedLimit(
        name="max_metadata_kib",
        variable="MICROMEGAS_SERVER_MAX_METADATA_KIB",
        meaning="the largest set of headers from a client, in KiB",
        least=8,
        most=1024,
    ),
    CountedLimit(
        name="max_calls",
        variable="MICROMEGAS_SERVER_MAX_CALLS",
        meaning="calls of all kinds at once",
        most=100_000,
    ),
    CountedLimit(
        name="max_calls_per_caller",
        variable="MICROMEGAS_SERVER_MAX_CALLS_PER_CALLER",
        meaning="calls of one caller at once",
        most=100_000,
    ),
    CountedLimit(
        name="read_timeout_seconds",
        option="read_timeout",
        variable="MICROMEGAS_SERVER_READ_TIMEOUT_SECONDS",
        meaning="how long a client may send nothing while its message, values or rows are waited for, in seconds",
        most=3600,
    ),
    CountedLimit(
        name="upload_seconds",
        variable="MICROMEGAS_SERVER_UPLOAD_SECONDS",
        meaning="how long a call may send rows, in seconds",
        most=7 * _DAY_SECONDS,
    ),
    CountedLimit(
        name="ticket_life_seconds",
        variable="MICROMEGAS_SERVER_TICKET_LIFE_SECONDS",
        meaning="how long a ticket can be used, in seconds",
        most=_DAY_SECONDS,
    ),
    CountedLimit(
        name="connection_idle_seconds",
        variable="MICROMEGAS_SERVER_CONNECTION_IDLE_SECONDS",
        meaning="how long a connection without calls is kept, in seconds; 0 for no limit",
        least=0,
        most=7 * _DAY_SECONDS,
    ),
    CountedLimit(
        name="connection_age_seconds",
        variable="MICROMEGAS_SERVER_CONNECTION_AGE_SECONDS",
        meaning="how long a connection takes new calls, in seconds; 0 for no limit",
        least=0,
        most=7 * _DAY_SECONDS,
    ),
    CountedLimit(
        name="write_timeout_seconds",
        option="write_timeout",
        variable="MICROMEGAS_SERVER_WRITE_TIMEOUT_SECONDS",
        meaning="how long a client may take no data before its query ends, in seconds",
        most=_DAY_SECONDS,
    ),
    CountedLimit(
        name="max_ingest_mib",
        variable="MICROMEGAS_SERVER_MAX_INGEST_MIB",
        meaning="what one call may send into a table, in MiB",
        most=_MOST_MIB,
    ),
    CountedLimit(
        name="max_ingests",
        variable="MICROMEGAS_SERVER_MAX_INGESTS",
        meaning="calls that send rows at once",
        most=1000,
    ),
    CountedLimit(
        name="max_ingests_per_caller",
        variable="MICROMEGAS_SERVER_MAX_INGESTS_PER_CALLER",
        meaning="calls of one caller that send rows at once",
        most=1000,
    ),
    CountedLimit(
        name="max_tables_per_caller",
        variable="MICROMEGAS_SERVER_MAX_TABLES_PER_CALLER",
        meaning="tables that one caller may make by sending rows, who is not an administrator",
        most=1000,
    ),
)


#: Variables of versions before, with what to do instead.
REMOVED_VARIABLES: Final = {
    "MICROMEGAS_SERVER_MAX_HEAVY_QUERIES": "Long queries take turns by themselves; leave it out.",
    "MICROMEGAS_SERVER_MAX_STUCK_QUERIES": "Set MICROMEGAS_SERVER_MAX_ENDED_PER_CALLER.",
    "MICROMEGAS_SERVER_QUEUE_SECONDS": "Set MICROMEGAS_SERVER_QUEUE_TIMEOUT_SECONDS.",
    "MICROMEGAS_SERVER_SILENT_CLIENT_SECONDS": "Set MICROMEGAS_SERVER_READ_TIMEOUT_SECONDS.",
    "MICROMEGAS_SERVER_STALLED_CLIENT_SECONDS": "Set MICROMEGAS_SERVER_WRITE_TIMEOUT_SECONDS.",
}


def parse_server_limits(environ: Mapping[str, str], *, names: Mapping[str, str] | None = None) -> ServerLimits:
    """Return the limits that the variables set; one that is left out or empty has its default.

    Args:
        environ: The variables.
        names: What an error calls a variable, when somebody set it by another name, such as an option's.

    Raises:
        ConfigurationError: One is malformed, out of range or contradicts another; the error has its name.
    """
    called = names or {}
    for variable, remedy in REMOVED_VARIABLES.items():
        if environ.get(variable):
            raise ConfigurationError(f"{variable} is no longer a setting.", key=variable, remedy=remedy)
    values: dict[str, Any] = {}
    for limit in COUNTED_LIMITS:
        if text := environ.get(limit.variable, ""):
            values[limit.name] = _parse_count(text, limit, called.get(limit.variable, limit.variable))
    if folder := environ.get(SPILL_DIRECTORY_VARIABLE, ""):
        values["spill_directory"] = _parse_folder(
            folder, called.get(SPILL_DIRECTORY_VARIABLE, SPILL_DIRECTORY_VARIABLE)
        )
    return ServerLimits(**values)


def _parse_count(text: str, limit: CountedLimit, key: str) -> int:
    # `isdecimal` alone takes digits of all scripts.
    is_number = text.isascii() and text.isdecimal() and len(text) <= len(str(limit.most))
    if not is_number or not limit.least <= int(text) <= limit.most:
        raise ConfigurationError(
            f"{key} is {shown(text)}, which is not a number from {limit.least:,} to {limit.most:,}.",
            key=key,
            remedy=f"It says: {limit.meaning}.",
        )
    return int(text)


def _parse_folder(text: str, key: str) -> str:
    if "\0" in text or not PurePath(text).is_absolute():
        raise ConfigurationError(
            f"{key} is {shown(text)}, which is not the absolute path of a folder.",
            key=key,
            remedy="Name an existing folder on a disk with room for what does not fit into memory.",
        )
    return text
