"""TLS of the Flight and HTTP listeners, with a certificate that is renewed while they listen.

New connections get what the files hold; open ones keep what they began with. TLS 1.2 is the minimum.
"""

import logging
import os
import ssl
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import grpc
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import Certificate, load_pem_x509_certificates
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from micromegas_jupyter.core.files import FileMark, FileProblem, mark_of
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Clock
from micromegas_jupyter.errors import ConfigurationError

_LOG: Final = logging.getLogger("micromegas_jupyter.server")
_MAX_PEM_BYTES: Final = 1024 * 1024
# Files change in steps of the kernel's tick, so that a second change may leave the same mark as the first.
_YOUNG: Final = timedelta(seconds=1)
_TRIED: Final = "Replace it by files that fit; they are read by themselves when they change, without a restart."
_REMEDY: Final = "Name PEM files: the chain with the server's own certificate first, and its key without a password."
_LEAST_VERSION: Final = ssl.TLSVersion.TLSv1_2


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """Where the parts of TLS are.

    Attributes:
        certificate_file: PEM file of the certificate chain, the server's own first.
        key_file: PEM file of the private key, without a password.
        client_ca_file: PEM file of the authorities whose certificates clients have to show; None asks for none.
    """

    certificate_file: Path = field(repr=False)
    key_file: Path = field(repr=False)
    client_ca_file: Path | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsMaterial:
    """What the files hold, in PEM, and until when the server's certificate is good (aware UTC)."""

    certificate: bytes = field(repr=False)
    key: bytes = field(repr=False)
    client_ca: bytes | None = field(default=None, repr=False)
    expires_at: datetime


class TlsSource:
    """Reads the files once, and again whenever they have changed; what cannot be used leaves the former in force.

    Safe to use from several threads: one lock covers what was read last.

    Args:
        files: The files.
        listener: Whose they are, for the log: `Flight` or `HTTP`.
        clock: Tells how young a change is.
    """

    def __init__(self, files: TlsFiles, *, listener: str, clock: Clock = SYSTEM_CLOCK) -> None:
        self._files = files
        self._listener = listener
        self._clock = clock
        self._lock = threading.Lock()
        self._marks = self._look()
        self._refused: tuple[object, ...] | None = None
        self.current = read_tls_files(files)

    def renewed(self) -> TlsMaterial | None:
        """Return what the files hold when it is something else than `current`, which it then becomes; else None."""
        with self._lock:
            marks = self._look()
            if marks == self._marks and not self._is_young(marks):
                return None
            self._marks = marks
            try:
                found = read_tls_files(self._files)
            except ConfigurationError as error:
                self._tell_once(marks, error)
                return None
            self._refused = None
            if found == self.current:
                return None
            self.current = found
        facts = {"listener": self._listener, "expires_at": found.expires_at.isoformat()}
        _LOG.info("The certificate was read again.", extra=facts)
        return found

    def _look(self) -> tuple[FileMark | None, ...]:
        files = (self._files.certificate_file, self._files.key_file, self._files.client_ca_file)
        return tuple(None if file is None else _mark(file) for file in files)

    def _is_young(self, marks: tuple[FileMark | None, ...]) -> bool:
        oldest_young_ns = (self._clock.now() - _YOUNG).timestamp() * 1e9
        return any(mark is not None and mark.changed_ns > oldest_young_ns for mark in marks)

    def _tell_once(self, marks: tuple[object, ...], error: ConfigurationError) -> None:
        if marks != self._refused:
            self._refused = marks
            facts = {"listener": self._listener, "why": error.what, "remedy": _TRIED}
            _LOG.error("The changed certificate cannot be used; the former stays.", extra=facts)


def read_tls_files(files: TlsFiles) -> TlsMaterial:
    """Read all files and check that they belong together."""
    certificate, key = _read(files.certificate_file, "certificate_file"), _read(files.key_file, "key_file")
    own = _certificates(certificate, "certificate_file")[0]
    try:
        private_key = load_pem_private_key(key, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigurationError(
            "The key file holds no private key in PEM form, or one with a password.", key="key_file", remedy=_REMEDY
        ) from None
    if own.public_key() != private_key.public_key():
        raise ConfigurationError("The certificate and the key do not fit.", key="key_file", remedy=_REMEDY)
    client_ca = None if files.client_ca_file is None else _read(files.client_ca_file, "client_ca_file")
    if client_ca is not None:
        _certificates(client_ca, "client_ca_file")
    return TlsMaterial(certificate=certificate, key=key, client_ca=client_ca, expires_at=own.not_valid_after_utc)


def _certificates(pem: bytes, setting: str) -> list[Certificate]:
    try:
        return load_pem_x509_certificates(pem)
    except ValueError:
        raise ConfigurationError(
            f"The {setting.replace('_', ' ')} holds no certificate in PEM form, or a damaged one.",
            key=setting,
            remedy=_REMEDY,
        ) from None


def _read(path: Path, setting: str) -> bytes:
    try:
        with path.open("rb") as file:
            pem = file.read(_MAX_PEM_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(
            f"The {setting.replace('_', ' ')} cannot be read: {error.strerror}.", key=setting
        ) from None
    if len(pem) > _MAX_PEM_BYTES:
        raise ConfigurationError(f"The {setting.replace('_', ' ')} is larger than 1 MiB.", key=setting, remedy=_REMEDY)
    return pem


def _mark(path: Path) -> FileMark | None:
    try:
        return mark_of(path, follows_links=True)
    except FileProblem:
        return None


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
