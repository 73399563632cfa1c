"""How much a server gives its callers: time, rows, bytes, queries at once, room to spill; how much it takes from them.

Each limit is declared once, with its default, range, meaning and variable (`MICROMEGAS_SERVER_` and its name); those
that people change have an option of `micromegas serve` as well.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import PurePath
from typing import Any, Final

from micromegas_jupyter.config.decoding import parse_count, shown
from micromegas_jupyter.errors import ConfigurationError

SPILL_DIRECTORY_VARIABLE: Final = "MICROMEGAS_SERVER_SPILL_DIRECTORY"

_DAY_SECONDS: Final = 24 * 3600
_MAX_ROWS: Final = 10**15
_MAX_MIB: Final = 1 << 30


def _limit(default: int, meaning: str, *, most: int, least: int = 1, option: str | None = None) -> Any:
    """Declare a limit: a whole number from `least` to `most`; `option` is its option's name, without dashes."""
    return field(
        default=default,
        metadata={"default": default, "meaning": meaning, "least": least, "most": most, "option_name": option},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLimits:
    """What one server allows; 0 stands for no limit where that is said."""

    memory_mib: int = _limit(
        4096, "memory of all statements together, in MiB", least=64, most=_MAX_MIB, option="memory_mib"
    )
    # RLIMIT_DATA of the statement's process.
    statement_memory_mib: int = _limit(
        2048, "memory of one statement, in MiB", least=1536, most=_MAX_MIB, option="statement_memory_mib"
    )
    # Waiting and planning included.
    query_timeout_seconds: int = _limit(
        1800,
        "how long a query may take, in seconds; 0 for no limit",
        least=0,
        most=7 * _DAY_SECONDS,
        option="query_timeout",
    )
    max_rows: int = _limit(0, "rows of one result; 0 for no limit", least=0, most=_MAX_ROWS, option="max_rows")
    # As it is sent.
    max_result_mib: int = _limit(
        0, "size of one result, in MiB; 0 for no limit", least=0, most=_MAX_MIB, option="max_result_mib"
    )
    max_queries: int = _limit(32, "queries that run at once", most=10_000, option="max_queries")
    max_queries_per_caller: int = _limit(
        16, "of these, those of one caller", most=10_000, option="max_queries_per_caller"
    )
    # For memory, a crash or their time, before the caller has to wait a minute.
    max_ended_per_caller: int = _limit(
        20, "queries of one caller that may have to be ended within a minute; 0 for no limit", least=0, most=1000
    )
    queue_timeout_seconds: int = _limit(
        60, "how long a query waits for its turn, in seconds", most=3600, option="queue_timeout"
    )
    spill_mib: int = _limit(
        8192, "what one query may write to the spill directory, in MiB", most=_MAX_MIB, option="spill_mib"
    )
    # An existing folder for what does not fit into memory; None for the system's.
    spill_directory: str | None = field(default=None, repr=False)
    max_statement_bytes: int = _limit(131072, "the longest statement, in bytes", most=524288)
    max_message_mib: int = _limit(32, "the largest message from a client, in MiB", most=1024)
    max_metadata_kib: int = _limit(64, "the largest set of headers from a client, in KiB", least=8, most=1024)
    max_calls: int = _limit(1000, "calls of all kinds at once", most=100_000)
    max_calls_per_caller: int = _limit(250, "calls of one caller at once", most=100_000)
    read_timeout_seconds: int = _limit(
        60,
        "how long a client may send nothing while its message, values or rows are waited for, in seconds",
        most=3600,
        option="read_timeout",
    )
    upload_seconds: int = _limit(3600, "how long a call may send rows, in seconds", most=7 * _DAY_SECONDS)
    connection_idle_seconds: int = _limit(
        900, "how long a connection without calls is kept, in seconds; 0 for no limit", least=0, most=7 * _DAY_SECONDS
    )
    connection_age_seconds: int = _limit(
        3600, "how long a connection takes new calls, in seconds; 0 for no limit", least=0, most=7 * _DAY_SECONDS
    )
    ticket_life_seconds: int = _limit(600, "how long a ticket can be used, in seconds", most=_DAY_SECONDS)
    write_timeout_seconds: int = _limit(
        300,
        "how long a client may take no data before its query ends, in seconds",
        most=_DAY_SECONDS,
        option="write_timeout",
    )
    # Also once it is unpacked.
    max_ingest_mib: int = _limit(1024, "what one call may send into a table, in MiB", most=_MAX_MIB)
    max_ingests: int = _limit(16, "calls that send rows at once", most=1000)
    max_ingests_per_caller: int = _limit(8, "calls of one caller that send rows at once", most=1000)
    max_tables_per_caller: int = _limit(
        100, "tables that one caller may make by sending rows, who is not an administrator", most=1000
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CountedLimit:
    """A limit that is a whole number; `option_name` has no dashes, and is None for those without an option."""

    name: str
    default: int
    meaning: str
    least: int
    most: int
    option_name: str | None

    @property
    def variable(self) -> str:
        """The variable that sets it."""
        return f"MICROMEGAS_SERVER_{self.name.upper()}"


COUNTED_LIMITS: Final = tuple(
    CountedLimit(name=entry.name, **entry.metadata) for entry in fields(ServerLimits) if entry.metadata
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
    """
    called = names or {}
    for variable, remedy in REMOVED_VARIABLES.items():
        if environ.get(variable):
            raise ConfigurationError(f"{variable} is no longer a setting.", key=variable, remedy=remedy)
    values: dict[str, Any] = {}
    for limit in COUNTED_LIMITS:
        if text := environ.get(limit.variable, ""):
            values[limit.name] = parse_count(
                text,
                called.get(limit.variable, limit.variable),
                minimum=limit.least,
                maximum=limit.most,
                remedy=f"It says: {limit.meaning}.",
            )
    if folder := environ.get(SPILL_DIRECTORY_VARIABLE, ""):
        key = called.get(SPILL_DIRECTORY_VARIABLE, SPILL_DIRECTORY_VARIABLE)
        values["spill_directory"] = _parse_folder(folder, key)
    return ServerLimits(**values)


def _parse_folder(text: str, key: str) -> str:
    if "\0" in text or not PurePath(text).is_absolute():
        raise ConfigurationError(
            f"{key} is {shown(text)}, which is not the absolute path of a folder.",
            key=key,
            remedy="Name an existing folder on a disk with room for what does not fit into memory.",
        )
    return text
