"""TLS for the Flight and HTTP listeners, with certificate renewal at runtime.

New connections use the files' current contents; open ones are unchanged. TLS 1.2 is the minimum.
"""

import logging
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

import grpc
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import Certificate, load_pem_x509_certificates
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from micromegas_jupyter.core.files import FileWatch
from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.server.settings import TlsFiles

_LOG: Final = logging.getLogger("micromegas_jupyter.server")
_MAX_PEM_BYTES: Final = 1024 * 1024
_REPLACE: Final = "Replace it with files that fit; they are read again when they change, without a restart."
_REMEDY: Final = "Name PEM files: the chain with the server's own certificate first, and its key without a password."


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsMaterial:
    """The files' contents, in PEM, and when the server's certificate expires (timezone-aware, in UTC)."""

    certificate: bytes = field(repr=False)
    key: bytes = field(repr=False)
    client_ca: bytes | None = field(default=None, repr=False)
    expires_at: datetime


class TlsSource:
    """Reads the files and rereads them when they change; unusable files are ignored. Thread-safe."""

    def __init__(self, files: TlsFiles, *, listener: str) -> None:
        self._files = files
        self._listener = listener  # for the log
        self._lock = threading.Lock()  # guards the most recently read contents
        paths = (files.certificate_file, files.key_file, files.client_ca_file)
        self._watch = FileWatch((path for path in paths if path is not None), follows_links=True)
        self._refused_marks: object = None
        self.current = read_tls_files(files)

    def renew(self) -> TlsMaterial | None:
        """Return the files' contents and set `current` if they differ from it; otherwise, return None."""
        with self._lock:
            if not self._watch.has_changed():
                return None
            try:
                found = read_tls_files(self._files)
            except ConfigurationError as error:
                if self._watch.marks != self._refused_marks:  # logged once per state of the files
                    self._refused_marks = self._watch.marks
                    facts = {"listener": self._listener, "why": error.what, "remedy": _REPLACE}
                    _LOG.error("The changed certificate cannot be used; the former stays.", extra=facts)
                return None
            self._refused_marks = None
            if found == self.current:
                return None
            self.current = found
        facts = {"listener": self._listener, "expires_at": found.expires_at.isoformat()}
        _LOG.info("The certificate was read again.", extra=facts)
        return found


def read_tls_files(files: TlsFiles) -> TlsMaterial:
    """Read all files and check that they match; raise ConfigurationError if they are unusable."""
    certificate, key = _read(files.certificate_file, "certificate_file"), _read(files.key_file, "key_file")
    own = _parse_certificates(certificate, "certificate_file")[0]
    try:
        private_key = load_pem_private_key(key, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigurationError(
            "The key file must contain a PEM private key without a password.", key="key_file", remedy=_REMEDY
        ) from None
    if own.public_key() != private_key.public_key():
        raise ConfigurationError("The certificate and the key do not match.", key="key_file", remedy=_REMEDY)
    client_ca = None if files.client_ca_file is None else _read(files.client_ca_file, "client_ca_file")
    if client_ca is not None:
        _parse_certificates(client_ca, "client_ca_file")
    return TlsMaterial(certificate=certificate, key=key, client_ca=client_ca, expires_at=own.not_valid_after_utc)


def _parse_certificates(pem: bytes, setting: str) -> list[Certificate]:
    try:
        return load_pem_x509_certificates(pem)
    except ValueError:
        raise ConfigurationError(
            f"The {setting.replace('_', ' ')} doesn't contain a valid PEM certificate.",
            key=setting,
            remedy=_REMEDY,
        ) from None


def _read(path: Path, setting: str) -> bytes:
    name = setting.replace("_", " ")
    try:
        with path.open("rb") as file:
            pem = file.read(_MAX_PEM_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"The {name} cannot be read: {error.strerror}.", key=setting) from None
    if len(pem) > _MAX_PEM_BYTES:
        raise ConfigurationError(f"The {name} is larger than 1 MiB.", key=setting, remedy=_REMEDY)
    return pem


def flight_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Return credentials for a gRPC listener's entire lifetime; with authorities, it requires client certificates."""
    source = TlsSource(files, listener="Flight")

    def configure(material: TlsMaterial) -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration(
            [(material.key, material.certificate)], root_certificates=material.client_ca
        )

    def renew() -> grpc.ServerCertificateConfiguration | None:
        # gRPC calls this for each new connection, on its own threads.
        found = source.renew()
        return None if found is None else configure(found)

    return grpc.dynamic_ssl_server_credentials(
        configure(source.current),
        renew,  # type: ignore[arg-type] # its documentation allows None for "as before"
        require_client_authentication=files.client_ca_file is not None,
    )


class HttpTls(Collector):
    """TLS for the HTTP listener, and its metrics. Belongs to one event loop, except for `collect`.

    A client's certificate must be valid, if any; some pages require one, but not all, because most probes have none.
    """

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._source = TlsSource(files, listener="HTTP")
        self._renewals = 0
        self.context = self._build(self._source.current)

    def renew(self) -> bool:
        """Apply the files' current contents, and return whether `context` has changed."""
        found = self._source.renew()
        if found is None:
            return False
        try:
            self.context = self._build(found)
        except ConfigurationError:
            return False  # one library may reject what another accepts
        self._renewals += 1
        return True

    def collect(self) -> Iterator[Metric]:
        """Yield the certificate's expiry and its number of renewals."""
        yield GaugeMetricFamily(
            "micromegas_tls_certificate_expires_timestamp_seconds",
            "Expiration time of the certificate, in Unix seconds.",
            value=self._source.current.expires_at.timestamp(),
        )
        yield CounterMetricFamily(
            "micromegas_tls_renewals",
            "How many times changed certificate files were reloaded.",
            value=self._renewals,
        )

    def _build(self, material: TlsMaterial) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            # Without a password argument, the library would prompt for one on the terminal.
            context.load_cert_chain(self._files.certificate_file, self._files.key_file, password="")
            if material.client_ca is not None:
                context.load_verify_locations(cadata=material.client_ca.decode("ascii", "replace"))
                context.verify_mode = ssl.CERT_OPTIONAL
        except (OSError, ssl.SSLError):
            raise ConfigurationError(
                "The HTTP endpoint's certificate and key cannot be read or do not match.",
                key="certificate_file",
            ) from None
        return context
