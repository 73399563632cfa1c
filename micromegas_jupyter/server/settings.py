"""A Flight server's listening settings and limits; wiring creates these from the configuration."""

from dataclasses import dataclass, field
from pathlib import Path

from micromegas_jupyter.config.access import RateLimits
from micromegas_jupyter.executors.settings import IngestSettings

_MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """TLS files in PEM; with `client_ca_file`, clients must present a certificate from these authorities."""

    certificate_file: Path = field(repr=False)
    key_file: Path = field(repr=False)
    client_ca_file: Path | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class FlightServerSettings:
    """The settings of one Flight server; `config.server` documents them."""

    host: str = "127.0.0.1"
    port: int = 50051
    tls_files: TlsFiles | None = None  # plaintext without them
    #: A socket reserves the port; only this user's processes may share it (SO_REUSEPORT).
    is_port_reserved: bool = False
    max_receive_bytes: int = 32 * _MEBIBYTE
    max_metadata_bytes: int = 64 * 1024
    max_concurrent_calls: int = 1000
    max_calls_per_caller: int = 250
    max_rows: int | None = None
    max_result_bytes: int | None = None
    #: After this time, the response is UNAVAILABLE.
    token_check_seconds: float = 20.0
    read_timeout_seconds: float = 60.0
    write_timeout_seconds: float = 300.0
    connection_idle_seconds: float | None = 900.0
    #: Varies randomly by up to a tenth.
    connection_age_seconds: float | None = 3600.0
    ticket_life_seconds: float = 600.0
    prepared_idle_seconds: float = 600.0
    max_prepared: int = 4096
    #: A new statement replaces the least recently used one.
    max_prepared_per_caller: int = 64
    trusted_proxies: frozenset[str] = frozenset()
    rate_limits: RateLimits = field(default_factory=RateLimits)
    ingest: IngestSettings = field(default_factory=IngestSettings)
