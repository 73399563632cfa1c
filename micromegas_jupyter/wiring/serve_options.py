"""How a server runs, and whether that is safe."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from micromegas_jupyter.config.access import LegacyApiKeys
from micromegas_jupyter.core.urls import LOOPBACK_HOSTS
from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.server.settings import TlsFiles

DEFAULT_PORT: Final = 50051
DEFAULT_MEMORY_MIB: Final = 4096
DEFAULT_SPARE_EXECUTORS: Final = 4
DEFAULT_DRAIN_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """How a server runs.

    Attributes:
        lake: The folder of its tables; made when missing.
        host: The address it listens on.
        port: The port, 0 for any free one.
        http_host: The address on which health and metrics are answered over HTTP.
        http_port: Its port, 0 for any free one; None for no HTTP.
        disable_auth: Everyone is administrator.
        legacy_api_keys: What becomes of API keys in plain text, whatever the configuration says.
        trusted_proxies: Addresses of proxies whose forwarding headers name the real client.
        insecure: Allow plain text, or no authentication, on an address that others can reach.
        certificate_file: PEM file of the certificate chain; with `key_file` the server speaks TLS.
        key_file: PEM file of the private key.
        client_ca_file: PEM file of the authorities whose certificates clients have to show; None asks for none.
        memory_mib: Memory of all statements together, in MiB.
        record: Whether the server writes its own logs and measurements into the lake.
        program: The name under which it records itself.
        properties: Anything else worth knowing of its process.
        spare_executors: How many idle executor processes are started ahead of demand.
        drain_seconds: How long running calls may go on when the server stops.
        take_over: Whether to take the ports of a running server over, if there is one.
        hands_over: Whether a later server may take this one's ports over.
    """

    lake: Path
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    http_host: str = "127.0.0.1"
    http_port: int | None = None
    disable_auth: bool = False
    legacy_api_keys: LegacyApiKeys | None = None
    trusted_proxies: frozenset[str] = frozenset()
    insecure: bool = False
    certificate_file: Path | None = None
    key_file: Path | None = None
    client_ca_file: Path | None = None
    memory_mib: int = DEFAULT_MEMORY_MIB
    record: bool = True
    program: str = "micromegas serve"
    properties: Mapping[str, str] = field(default_factory=dict)
    spare_executors: int = DEFAULT_SPARE_EXECUTORS
    drain_seconds: float = DEFAULT_DRAIN_SECONDS
    take_over: bool = False
    hands_over: bool = False

    def http_url_at(self, port: int) -> str:
        """Return where health and metrics are answered, on the port that was taken."""
        return f"http{'s' if self.certificate_file else ''}://{_shown(self.http_host)}:{port}"

    @property
    def tls_files(self) -> TlsFiles | None:
        """Where the parts of TLS are, None for plain text."""
        if self.certificate_file is None or self.key_file is None:
            return None
        return TlsFiles(
            certificate_file=self.certificate_file, key_file=self.key_file, client_ca_file=self.client_ca_file
        )


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def check_exposure(options: ServeOptions) -> None:
    """Check that a server which others can reach is encrypted and asks who is calling.

    Raises:
        ConfigurationError: It is not, and `insecure` was not given.
    """
    if (options.certificate_file is None) != (options.key_file is None):
        raise ConfigurationError(
            "TLS needs both a certificate and a key.",
            key="--tls-certificate",
            remedy="Give --tls-certificate and --tls-key.",
        )
    if options.client_ca_file is not None and options.certificate_file is None:
        raise ConfigurationError(
            "Clients can show certificates over TLS only.",
            key="--tls-client-ca",
            remedy="Give --tls-certificate and --tls-key as well.",
        )
    if options.insecure:
        return
    if options.http_port is not None and options.http_host not in LOOPBACK_HOSTS and options.certificate_file is None:
        raise ConfigurationError(
            f"Tokens for the metrics would cross the network to {options.http_host} in plain text.",
            key="--http-host",
            remedy="Give --tls-certificate and --tls-key, or add --insecure behind a TLS proxy.",
        )
    if options.host in LOOPBACK_HOSTS:
        return
    if options.disable_auth:
        raise ConfigurationError(
            f"--disable-auth would let everyone who reaches {options.host} read everything.",
            key="--disable-auth",
            remedy="Listen on 127.0.0.1, or add --insecure if you really mean it.",
        )
    if options.certificate_file is None:
        raise ConfigurationError(
            f"Tokens would cross the network to {options.host} in plain text.",
            key="--host",
            remedy="Give --tls-certificate and --tls-key, or add --insecure behind a TLS proxy.",
        )
