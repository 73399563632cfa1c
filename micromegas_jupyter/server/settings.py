"""How a Flight server listens and what it allows; wiring reads these from the environment."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from micromegas_jupyter.config.access import RateLimits

if TYPE_CHECKING:
    from micromegas_jupyter.flightsql.framing import DecodeLimits

_MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """The files of TLS.

    Attributes:
        certificate_file: PEM file of the certificate chain, the server's own first.
        key_file: PEM file of the private key, without a password.
        client_ca_file: PEM file of the authorities whose certificates clients have to show; None requires none.
    """

    certificate_file: Path = field(repr=False)
    key_file: Path = field(repr=False)
    client_ca_file: Path | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestSettings:
    """The limits of ingest, each for one server process; all are greater than 0.

    Attributes:
        max_bytes: Bytes of one call, counted both as they arrive and once nothing in them is shared.
        max_rows: Rows of one call.
        max_row_bytes: What is unpacked at a time, and so the size of one row.
        max_columns: Columns of one call.
        max_batch_rows: Rows of one message.
        max_dictionary_bytes: The dictionaries that one call has in use.
        max_concurrent: Calls at once.
        max_per_caller: Of these, those of one caller.
        max_tables_per_caller: Tables that one caller may create who is not an administrator.
        admission_wait_seconds: How long a call waits for its turn before it is refused.
        idle_seconds: How long a call may send nothing.
        max_seconds: How long a call may take in all.
    """

    max_bytes: int = 1024 * _MEBIBYTE
    max_rows: int = 50_000_000
    max_row_bytes: int = 16 * _MEBIBYTE
    max_columns: int = 512
    max_batch_rows: int = 2 * _MEBIBYTE
    max_dictionary_bytes: int = 32 * _MEBIBYTE
    max_concurrent: int = 16
    max_per_caller: int = 8
    max_tables_per_caller: int = 100
    admission_wait_seconds: float = 30.0
    idle_seconds: float = 60.0
    max_seconds: float = 3600.0

    def __post_init__(self) -> None:
        if min(getattr(self, name) for name in self.__slots__) <= 0:
            raise ValueError("the limits of ingest are greater than 0")

    def decode_limits(self) -> "DecodeLimits":
        """Return what the decoder of one call accepts."""
        from micromegas_jupyter.flightsql.framing import DecodeLimits

        return DecodeLimits(
            max_columns=self.max_columns,
            max_batch_rows=self.max_batch_rows,
            max_unpacked_bytes=4 * self.max_row_bytes,
            max_dictionary_bytes=self.max_dictionary_bytes,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FlightServerSettings:
    """The settings of one Flight server.

    Attributes:
        host: The address to listen on; an IPv6 address without brackets.
        port: The port, 0 for any free one.
        certificate_file: PEM file of the certificate chain; with `key_file` the server speaks TLS.
        key_file: PEM file of the private key.
        client_ca_file: PEM file of the authorities whose certificates clients have to show; None requires none.
        is_port_reserved: Whether the port is held by a socket that only this user's processes may share (SO_REUSEPORT).
        max_receive_bytes: The largest message that is accepted from a client.
        max_metadata_bytes: The largest set of headers; a token that lists many groups is long.
        max_concurrent_calls: Calls of all kinds at once; over it the answer is RESOURCE_EXHAUSTED at once.
        max_calls_per_caller: Of these, those of one caller; of one connection without authentication.
        max_rows: Rows of one result; None for all.
        max_result_bytes: Bytes of one result as it is sent; None for any number.
        token_check_seconds: How long a token's check may take before the answer is UNAVAILABLE.
        read_timeout_seconds: How long a client may send nothing of its call's message or values.
        write_timeout_seconds: How long a client may take no data before its query is ended.
        connection_idle_seconds: How long a connection without calls is kept; None for any time.
        connection_age_seconds: How long a connection accepts new calls, give or take a tenth; None for any time.
        ticket_life_seconds: How long a ticket from GetFlightInfo can be used.
        prepared_idle_seconds: How long an unused prepared statement is kept.
        max_prepared: Prepared statements of all callers.
        max_prepared_per_caller: Of these, those of one caller; a new one replaces the longest unused.
        trusted_proxies: Peer addresses whose forwarding headers name the real client.
        rate_limits: How often an identity may call, and how often an address may be refused.
        ingest: How much a caller may send into the tables.

    Raises:
        ValueError: A number is out of its range, or only one of the TLS files is given.
    """

    host: str = "127.0.0.1"
    port: int = 50051
    certificate_file: Path | None = field(default=None, repr=False)
    key_file: Path | None = field(default=None, repr=False)
    client_ca_file: Path | None = field(default=None, repr=False)
    is_port_reserved: bool = False
    max_receive_bytes: int = 32 * _MEBIBYTE
    max_metadata_bytes: int = 64 * 1024
    max_concurrent_calls: int = 1000
    max_calls_per_caller: int = 250
    max_rows: int | None = None
    max_result_bytes: int | None = None
    token_check_seconds: float = 20.0
    read_timeout_seconds: float = 60.0
    write_timeout_seconds: float = 300.0
    connection_idle_seconds: float | None = 900.0
    connection_age_seconds: float | None = 3600.0
    ticket_life_seconds: float = 600.0
    prepared_idle_seconds: float = 600.0
    max_prepared: int = 4096
    max_prepared_per_caller: int = 64
    trusted_proxies: frozenset[str] = frozenset()
    rate_limits: RateLimits = field(default_factory=RateLimits)
    ingest: IngestSettings = field(default_factory=IngestSettings)

    def __post_init__(self) -> None:
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("TLS needs both a certificate file and a key file")
        if self.client_ca_file is not None and self.certificate_file is None:
            raise ValueError("client certificates need TLS")
        if not 0 <= self.port <= 65535:  # noqa: PLR2004 - the range of TCP ports
            raise ValueError("a port is between 0 and 65535")
        numbers = [getattr(self, name) for name in self.__slots__ if name not in {"port", "is_port_reserved"}]
        if any(number <= 0 for number in numbers if isinstance(number, int | float)):
            raise ValueError("limits and timeouts are greater than 0")

    @property
    def tls_files(self) -> TlsFiles | None:
        """The files of TLS, None for plain text."""
        if self.certificate_file is None or self.key_file is None:
            return None
        return TlsFiles(
            certificate_file=self.certificate_file, key_file=self.key_file, client_ca_file=self.client_ca_file
        )
