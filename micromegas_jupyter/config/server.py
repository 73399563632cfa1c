"""The server's settings: a frozen object built from options, environment variables, and a TOML file, in that order.

Options, `--help`, the table in docs/server-settings.md, and error messages are generated from these declarations.
"""

import enum
import ipaddress
import tomllib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Final, get_args

import msgspec
from msgspec import Meta

from micromegas_jupyter.config.decoding import as_type, describe_type
from micromegas_jupyter.core.text import is_loopback_url, is_text, refused, shown, split_plain_url

_DAY_SECONDS: Final = 24 * 3600
EMBEDDED: Final = "embedded"  # this package's own engine

Port = Annotated[int, Meta(ge=0, le=65535)]
Mebibytes = Annotated[int, Meta(ge=1, le=1 << 30)]
MebibytesOrNone = Annotated[int, Meta(ge=0, le=1 << 30)]
Queries = Annotated[int, Meta(ge=1, le=10_000)]
Calls = Annotated[int, Meta(ge=1, le=100_000)]
Few = Annotated[int, Meta(ge=1, le=1000)]
FewOrNone = Annotated[int, Meta(ge=0, le=1000)]
HourSeconds = Annotated[int, Meta(ge=1, le=3600)]
IntervalSeconds = Annotated[float, Meta(gt=0, le=3600, description="a number greater than 0 and at most 3,600")]
DaySeconds = Annotated[int, Meta(ge=1, le=_DAY_SECONDS)]
WeekSeconds = Annotated[int, Meta(ge=1, le=7 * _DAY_SECONDS)]
WeekSecondsOrNone = Annotated[int, Meta(ge=0, le=7 * _DAY_SECONDS)]


Addresses = Annotated[tuple[str, ...], "a list of IP addresses"]
Origins = Annotated[tuple[str, ...], "a list of origins such as https://app.example.com"]
PublicUrl = Annotated[str, "an https URL without a query, or http on this machine"]


class LogFormat(enum.StrEnum):
    """The format of log lines."""

    TEXT = "text"
    JSON = "json"


class LogLevel(enum.StrEnum):
    """The minimum severity that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class EngineDialect(enum.StrEnum):
    """The SQL dialect of an engine behind the server."""

    DATAFUSION = "datafusion"
    SPARK = "spark"


def _setting(default: Any, meaning: str, *, variable: str | None = None, is_common: bool = False) -> Any:
    """Declare a setting; `is_common` shows it in `--help`."""
    metadata = {"meaning": meaning, "variable": variable, "is_common": is_common}
    return field(default=default, metadata=metadata)


def _limit(default: int, meaning: str, *, variable: str = "MICROMEGAS_SERVER_", is_common: bool = False) -> Any:
    """Declare a limit; its variable has the same name as the field unless `variable` overrides it."""
    return _setting(default, meaning, variable=variable, is_common=is_common)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """How a server runs and what it allows."""

    lake: str = _setting(
        "lake",
        "directory or `s3://bucket/prefix` for tables; with `engine`, for rows sent to this server (no default)",
        variable="MICROMEGAS_LAKE",
        is_common=True,
    )
    engine: str = _setting(
        EMBEDDED,
        "`embedded`, or the Flight SQL server that runs queries: `grpc://host:port` or `grpc+tls://host:port`",
        variable="MICROMEGAS_ENGINE",
    )
    engine_dialect: EngineDialect = _setting(
        EngineDialect.SPARK, "SQL dialect of the engine", variable="MICROMEGAS_ENGINE_DIALECT"
    )
    engine_token_file: Path | None = _setting(
        None,
        "file with the token for the engine, or with the password for `engine-user`",
        variable="MICROMEGAS_ENGINE_TOKEN_FILE",
    )
    engine_user: str = _setting("", "user name for the engine's handshake", variable="MICROMEGAS_ENGINE_USER")
    engine_ca: Path | None = _setting(
        None,
        "PEM file with the CAs that sign the engine's certificate; default: gRPC's CAs",
        variable="MICROMEGAS_ENGINE_CA",
    )
    engine_timeout_seconds: DaySeconds = _limit(600, "maximum wait for the engine's plan or next rows, in seconds")
    host: str = _setting("127.0.0.1", "address to listen on", is_common=True)
    port: Port = _setting(50051, "port to listen on; 0 for any", is_common=True)
    access_config: Path | None = _setting(
        None, "file with issuers, API keys, and roles", variable="MICROMEGAS_ACCESS_CONFIG", is_common=True
    )
    api_key_file: Path | None = _setting(None, "file with API keys", variable="MICROMEGAS_API_KEY_FILE", is_common=True)
    disable_auth: bool = _setting(
        default=False, meaning="make every caller an administrator; for local use only", is_common=True
    )
    insecure: bool = _setting(
        default=False,
        meaning="allow other machines to connect without TLS or authentication",
        is_common=True,
    )
    tls_certificate: Path | None = _setting(
        None, "PEM file with the certificate chain; without it, connections are plaintext", is_common=True
    )
    tls_key: Path | None = _setting(None, "PEM file with the private key", is_common=True)
    tls_client_ca: Path | None = _setting(
        None, "PEM file with the CAs that sign client certificates; requires clients to have a certificate"
    )
    http_host: str = _setting("127.0.0.1", "address of the HTTP port")
    http_port: Port = _setting(0, "HTTP port for OTLP, health checks, and metrics; 0 for any", is_common=True)
    no_http: bool = _setting(default=False, meaning="disable the HTTP port")
    public_url: PublicUrl = _setting(
        "",
        "public URL of the HTTP port, such as `https://lake.example.com`; enables `/mcp` and `/sql` for other machines",
        variable="MICROMEGAS_SERVER_PUBLIC_URL",
    )
    allowed_origin: Origins = _setting(
        (),
        "web origin that can call `/mcp` and `/sql`, such as `https://app.example.com`; repeatable",
    )
    no_mcp: bool = _setting(default=False, meaning="disable `/mcp`, the endpoint for agents")
    no_sql: bool = _setting(default=False, meaning="disable `/sql`, the endpoint for queries over HTTP")
    enable_legacy_api_keys: bool = _setting(default=False, meaning="accept plaintext API keys without a warning")
    ticket_key_file: Path | None = _setting(
        None,
        "file with one or two keys, one per line, that replicas share to sign tickets",
        variable="MICROMEGAS_SERVER_TICKET_KEY_FILE",
    )
    trusted_proxy: Addresses = _setting((), "IP address of a proxy whose `x-forwarded-for` is trusted; repeatable")
    log_format: LogFormat = _setting(LogFormat.TEXT, "log format", variable="MICROMEGAS_LOG_FORMAT", is_common=True)
    log_level: LogLevel = _setting(LogLevel.INFO, "minimum log level", variable="MICROMEGAS_LOG_LEVEL")
    audit_log: Path | None = _setting(
        None,
        "file for audit lines; default: standard error",
        variable="MICROMEGAS_AUDIT_LOG",
        is_common=True,
    )
    query_denials_file: Path | None = _setting(
        None,
        "file with denied queries; default: `query_denials.json` in the lake",
        variable="MICROMEGAS_QUERY_DENIALS_FILE",
    )
    telemetry_interval_seconds: IntervalSeconds = _setting(
        10.0, "interval for storing the server's logs and metrics, in seconds"
    )
    no_telemetry: bool = _setting(default=False, meaning="don't store the server's logs and metrics")
    ready_json: bool = _setting(default=False, meaning="print a JSON line when the server is ready")
    take_over: bool = _setting(
        default=False, meaning="take over the ports of the running server, which drains and exits (Linux)"
    )
    exit_with_parent: bool = _setting(
        default=False, meaning="exit when standard input closes or the parent process exits"
    )
    drain_timeout_seconds: Annotated[float, Meta(ge=0, le=3600)] = _setting(
        25.0, "maximum time for running calls to finish at shutdown, in seconds"
    )
    memory_mib: Annotated[int, Meta(ge=64, le=1 << 30)] = _limit(
        4096,
        "total private memory of running statements, in MiB; above it, the server stops the largest one",
        is_common=True,
    )
    # The statement process's RLIMIT_DATA.
    statement_memory_mib: Annotated[int, Meta(ge=1536, le=1 << 30)] = _limit(
        2048, "memory that a statement can allocate, in MiB"
    )
    query_timeout_seconds: WeekSecondsOrNone = _limit(
        1800,
        "maximum duration of a query, including waiting and planning, in seconds; 0 for no limit",
        is_common=True,
    )
    max_rows: Annotated[int, Meta(ge=0, le=10**15)] = _limit(
        0, "maximum rows in a result, which are sent before the error; 0 for no limit"
    )
    max_result_mib: MebibytesOrNone = _limit(0, "maximum size of a result as sent, in MiB; 0 for no limit")
    max_queries: Queries = _limit(32, "concurrent queries; up to eight times as many can wait")
    max_queries_per_caller: Queries = _limit(16, "maximum concurrent queries per caller")
    max_ended_per_caller: FewOrNone = _limit(
        20,
        "stopped statements per minute after which a caller has to wait; 0 for no limit",
    )
    queue_timeout_seconds: HourSeconds = _limit(60, "maximum wait before planning starts, in seconds")
    spill_mib: Mebibytes = _limit(8192, "data that a query can spill to disk, in MiB")
    spill_directory: Path | None = _setting(
        None,
        "existing directory for spilled data; default: the system's temporary directory",
        variable="MICROMEGAS_SERVER_SPILL_DIRECTORY",
    )
    max_statement_bytes: Annotated[int, Meta(ge=1, le=524288)] = _limit(
        131072, "maximum statement length, in UTF-8 bytes"
    )
    max_message_mib: Annotated[int, Meta(ge=1, le=1024)] = _limit(32, "maximum size of a message from a client, in MiB")
    max_metadata_kib: Annotated[int, Meta(ge=8, le=1024)] = _limit(
        64, "maximum size of a call's headers, including the token, in KiB"
    )
    max_calls: Calls = _limit(1000, "concurrent calls of all kinds; more calls are rejected immediately")
    max_calls_per_caller: Calls = _limit(250, "maximum concurrent calls per caller")
    read_timeout_seconds: HourSeconds = _limit(60, "maximum wait for a client's message, values, or rows, in seconds")
    write_timeout_seconds: DaySeconds = _limit(
        300,
        "maximum wait for a client to read data, in seconds; 30 while other queries wait",
    )
    upload_timeout_seconds: WeekSeconds = _limit(
        3600, "maximum duration of a call that sends rows, in seconds", variable="MICROMEGAS_SERVER_UPLOAD_SECONDS"
    )
    connection_idle_timeout_seconds: WeekSecondsOrNone = _limit(
        900,
        "time until the server closes a connection without calls, in seconds; 0 for no limit",
        variable="MICROMEGAS_SERVER_CONNECTION_IDLE_SECONDS",
    )
    max_connection_age_seconds: WeekSecondsOrNone = _limit(
        3600,
        "approximate time until a connection rejects new calls, in seconds; 0 for no limit",
        variable="MICROMEGAS_SERVER_CONNECTION_AGE_SECONDS",
    )
    ticket_lifetime_seconds: DaySeconds = _limit(
        600,
        "lifetime of a ticket from GetFlightInfo, in seconds",
        variable="MICROMEGAS_SERVER_TICKET_LIFE_SECONDS",
    )
    max_ingest_mib: Mebibytes = _limit(1024, "data that a call can send, both compressed and uncompressed, in MiB")
    max_ingests: Few = _limit(64, "concurrent calls that send rows; more calls wait for 30 seconds")
    max_ingests_per_caller: Few = _limit(16, "maximum concurrent calls that send rows, per caller")
    max_tables_per_caller: Few = _limit(100, "tables that each non-administrator can create by sending rows")

    def http_url_at(self, port: int) -> str:
        """Return the URL of the health and metrics endpoints on the bound port."""
        host = f"[{self.http_host}]" if ":" in self.http_host else self.http_host
        return f"http{'s' if self.tls_certificate else ''}://{host}:{port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One declared setting; `kind` is the type of its value, excluding None."""

    name: str
    kind: Any
    default: Any
    meaning: str
    variable: str | None
    is_common: bool

    @property
    def option(self) -> str:
        """The setting's option; the file uses the same name without dashes."""
        return "--" + self.name.removesuffix("_seconds").replace("_", "-")

    @property
    def limits(self) -> tuple[float, float] | None:
        """The minimum and maximum, or None if the setting is not a number."""
        found = next((entry for entry in get_args(self.kind) if isinstance(entry, Meta)), None)
        return None if found is None or found.ge is None or found.le is None else (found.ge, found.le)

    @property
    def values_text(self) -> str:
        """The allowed values, as strings."""
        found = _READERS.get(self.kind)
        return describe_type(self.kind) if found is None else found[0]

    def convert(self, value: object, key: str, *, is_typed: bool) -> Any:
        """Return the value for the field, from the file (`is_typed`) or from an option or variable."""
        remedy = f"It sets: {self.meaning}."
        if self.kind not in _READERS:
            return as_type(value, key, kind=self.kind, is_typed=is_typed, remedy=remedy)
        with suppress(ValueError):
            return _READERS[self.kind][1](value)
        raise refused(key, f"is not {self.values_text}", remedy)


def _as_text(value: object) -> str:
    if not is_text(value):
        raise ValueError
    return value


def _as_addresses(value: object) -> tuple[str, ...]:
    return tuple(str(ipaddress.ip_address(text)) for text in msgspec.convert(value, list[str]))


def _as_origins(value: object) -> tuple[str, ...]:
    """Return origins as browsers send them (RFC 6454 section 6.2)."""
    found = []
    for text in msgspec.convert(value, list[str]):
        parts = split_plain_url(text)
        if parts is None or parts.scheme not in {"https", "http"} or text != f"{parts.scheme}://{parts.netloc}":
            raise ValueError
        if "@" in parts.netloc or text != text.lower():
            raise ValueError
        found.append(text)
    return tuple(found)


def _as_public_url(value: object) -> str:
    text = _as_text(value).rstrip("/")
    parts = split_plain_url(text)
    if parts is None or "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback_url(text)):
        raise ValueError
    return text


_READERS: Final[Mapping[Any, tuple[str, Callable[[object], Any]]]] = {
    Path: ("a path", lambda value: Path(_as_text(value))),
    str: ("a text", _as_text),
    **{
        kind: (get_args(kind)[1], read)
        for kind, read in (
            (Addresses, _as_addresses),
            (Origins, _as_origins),
            (PublicUrl, _as_public_url),
        )
    },
}


def _declared() -> tuple[Setting, ...]:
    found = []
    for entry in fields(ServerSettings):
        kind = next((one for one in get_args(entry.type) if one is Path), entry.type)
        variable = entry.metadata["variable"]
        if variable == "MICROMEGAS_SERVER_":
            variable += entry.name.upper()
        found.append(
            Setting(name=entry.name, kind=kind, default=entry.default, **{**entry.metadata, "variable": variable})
        )
    return tuple(found)


SETTINGS: Final = _declared()


def parse_server_settings(
    environ: Mapping[str, str],
    *,
    options: Mapping[str, object] = MappingProxyType({}),
    config_text: str | None = None,
    config_name: str = "--config",
) -> ServerSettings:
    """Combine `options` by field name, variables (empty means unset), and the TOML file, in that order."""
    file = {} if config_text is None else _parse_file(config_text, config_name)
    values = {}
    for setting in SETTINGS:
        sources = (
            (setting.option, options.get(setting.name)),
            (setting.variable or "", environ.get(setting.variable or "") or None),
            (f"{config_name}: {setting.option[2:]}", file.get(setting.option[2:])),
        )
        key, value = next((source for source in sources if source[1] is not None), ("", None))
        if value is not None:
            values[setting.name] = setting.convert(value, key, is_typed=key == sources[-1][0])
    if values.get("engine", EMBEDDED) != EMBEDDED:
        values.setdefault("lake", "")
    return ServerSettings(**values)


def _parse_file(text: str, name: str) -> dict[str, Any]:
    try:
        found = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise refused(name, f"is not valid TOML ({error})") from None
    known = {setting.option[2:] for setting in SETTINGS}
    for key in found:
        if key not in known:
            raise refused(
                name,
                f"has the unknown key {shown(key)}",
                "Keys are the options of `micromegas serve --help-all`, without --.",
            )
    return found
