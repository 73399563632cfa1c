"""TLS of the server's two listeners, Flight and HTTP, with a certificate that is renewed while they listen.

Which files there are, and whether they can be used, is said by `tls_files`. New connections get what the files hold;
those that are open keep what they began with. TLS 1.2 is the least that both accept.
"""

import os
import ssl
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Final

import grpc
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.server.tls_files import TlsFiles, TlsMaterial, TlsSource

_LEAST_VERSION: Final = ssl.TLSVersion.TLSv1_2


def flight_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Return what a gRPC listener needs; keep it for as long as that listens.

    With authorities for clients, a connection needs a client's certificate.
    """
    source = TlsSource(files, listener="Flight")

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        # gRPC asks for each new connection, on threads of its own.
        found = source.renewed()
        return None if found is None else _configuration(found)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(source.current),
        renewed,  # type: ignore[arg-type] # its documentation allows None for "as before"
        require_client_authentication=files.client_ca_file is not None,
    )


class HttpTls(Collector):
    """TLS of the HTTP listener, and what the metrics tell of it. Belongs to one event loop, but for `collect`.

    With authorities for clients, a certificate that is shown has to be good; which page needs one, the pages say: the
    probes of most orchestrators have none.
    """

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._source = TlsSource(files, listener="HTTP")
        self._renewals = 0
        self.context = self._build(self._source.current)

    def renew(self) -> bool:
        """Take over what the files hold now; whether `context` is another one for it."""
        found = self._source.renewed()
        if found is None:
            return False
        try:
            self.context = self._build(found)
        except ConfigurationError:
            return False  # what one library takes, another may not
        self._renewals += 1
        return True

    def collect(self) -> Iterator[Metric]:
        """Yield until when the certificate is good, and how often it was renewed."""
        yield GaugeMetricFamily(
            "micromegas_tls_certificate_expires_timestamp_seconds",
            "Until when the server's certificate is good, in seconds of Unix time.",
            value=self._source.current.expires_at.timestamp(),
        )
        yield CounterMetricFamily(
            "micromegas_tls_renewals", "How often the certificate was read again from its files.", value=self._renewals
        )

    def _build(self, material: TlsMaterial) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = _LEAST_VERSION
        try:
            self._load(context, material)
            if material.client_ca is not None:
                context.load_verify_locations(cadata=material.client_ca.decode("ascii", "replace"))
                context.verify_mode = ssl.CERT_OPTIONAL
        except (OSError, ssl.SSLError):
            raise ConfigurationError(
                "The HTTP endpoint's certificate and key cannot be read, or do not fit.", key="certificate_file"
            ) from None
        return context

    def _load(self, context: ssl.SSLContext, material: TlsMaterial) -> None:
        """Load what was checked, whatever the files hold since; where there is no file in memory, what the files hold.

        Without a password the library would ask for one on the terminal.
        """
        if sys.platform != "linux":
            context.load_cert_chain(self._files.certificate_file, self._files.key_file, password="")
            return
        with ExitStack() as stack:
            files = [stack.enter_context(os.fdopen(os.memfd_create("checked"), "w+b")) for _ in range(2)]
            for file, content in zip(files, (material.certificate, material.key), strict=True):
                file.write(content)
                file.flush()
            certificate, key = (f"/proc/self/fd/{file.fileno()}" for file in files)
            context.load_cert_chain(certificate, key, password="")


def _configuration(material: TlsMaterial) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(material.key, material.certificate)], root_certificates=material.client_ca
    )
