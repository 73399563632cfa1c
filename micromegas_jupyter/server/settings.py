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
    """PEM files of TLS; with `client_ca_file` clients have to show a certificate of these authorities."""

    certificate_file: Path = field(repr=False)
    key_file: Path = field(repr=False)
    client_ca_file: Path | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestSettings:
    """The limits of ingest, each for one server process; all are greater than 0."""

    #: Of one call, counted both as they arrive and once nothing in them is shared.
    max_bytes: int = 1024 * _MEBIBYTE
    max_rows: int = 50_000_000
    #: What is unpacked at a time, and so the size of one row.
    max_row_bytes: int = 16 * _MEBIBYTE
    max_columns: int = 512
    max_batch_rows: int = 2 * _MEBIBYTE
    max_dictionary_bytes: int = 32 * _MEBIBYTE
    max_concurrent: int = 16
    max_per_caller: int = 8
    #: That one caller may create who is not an administrator.
    max_tables_per_caller: int = 100
    #: How long a call waits for its turn before it is refused.
    admission_wait_seconds: float = 30.0
    idle_seconds: float = 60.0
    max_seconds: float = 3600.0

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
    """The settings of one Flight server; what they mean is declared in `config.server`."""

    host: str = "127.0.0.1"
    port: int = 50051
    tls_files: TlsFiles | None = None  # plain text without them
    #: The port is held by a socket that only this user's processes may share (SO_REUSEPORT).
    is_port_reserved: bool = False
    max_receive_bytes: int = 32 * _MEBIBYTE
    max_metadata_bytes: int = 64 * 1024
    max_concurrent_calls: int = 1000
    max_calls_per_caller: int = 250
    max_rows: int | None = None
    max_result_bytes: int | None = None
    #: Later the answer is UNAVAILABLE.
    token_check_seconds: float = 20.0
    read_timeout_seconds: float = 60.0
    write_timeout_seconds: float = 300.0
    connection_idle_seconds: float | None = 900.0
    #: Give or take a tenth.
    connection_age_seconds: float | None = 3600.0
    ticket_life_seconds: float = 600.0
    prepared_idle_seconds: float = 600.0
    max_prepared: int = 4096
    #: A new one replaces the longest unused.
    max_prepared_per_caller: int = 64
    trusted_proxies: frozenset[str] = frozenset()
    rate_limits: RateLimits = field(default_factory=RateLimits)
    ingest: IngestSettings = field(default_factory=IngestSettings)
