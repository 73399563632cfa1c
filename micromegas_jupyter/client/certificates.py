"""Reads the PEM files of a connection: CAs, the client's certificate, and its key."""

from pathlib import Path
from typing import Final

import certifi

from micromegas_jupyter.core.system import HiddenBytes
from micromegas_jupyter.errors import UsageError

_MAX_CERTIFICATE_BYTES: Final = 1024 * 1024
_MAX_CA_BUNDLE_BYTES: Final = 8 * 1024 * 1024


def read_tls_options(
    ca_bundle: str | Path | None,
    extra_ca_bundle: str | Path | None,
    certificate_file: str | Path | None,
    key_file: str | Path | None,
) -> dict[str, bytes]:
    """Return the Flight library's options for these PEM files; without `ca_bundle`, certifi's CAs are used."""
    roots = _read_roots(certifi.where() if ca_bundle is None else ca_bundle, name="ca_bundle")
    if extra_ca_bundle is not None:
        roots += b"\n" + _read_roots(extra_ca_bundle, name="extra_ca_bundle")
    options = {"tls_root_certs": roots}
    if certificate_file is not None and key_file is not None:
        chain, key = _read_client_certificate(certificate_file, key_file)
        options |= {"cert_chain": chain, "private_key": key}
    return options


def _read_client_certificate(certificate_file: str | Path, key_file: str | Path) -> tuple[bytes, bytes]:
    """Return a certificate with the chain to its CA, and its key, both in PEM."""
    import ssl  # slow to import, and most clients don't need it

    files = Path(certificate_file).expanduser(), Path(key_file).expanduser()
    try:
        # Without a password, OpenSSL would prompt for one on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(*files, password="")
        chain, key = (_read(file, _MAX_CERTIFICATE_BYTES) for file in files)
    except (OSError, ssl.SSLError):  # a corrupted file raises SSLError
        raise UsageError(
            "The client's certificate and its key cannot be read, or do not match.",
            remedy="Specify PEM files: the chain with the client's certificate first, and its key without a password.",
        ) from None
    return chain, HiddenBytes(key)


def _read_roots(bundle: str | Path, *, name: str) -> bytes:
    """Read a PEM file of CAs; `name` is for messages."""
    try:
        pem = _read(Path(bundle).expanduser(), _MAX_CA_BUNDLE_BYTES + 1)
    except OSError as error:
        raise UsageError(
            f"The {name} cannot be read: {error.strerror}.", remedy="Specify a PEM file of certificates."
        ) from error
    if len(pem) > _MAX_CA_BUNDLE_BYTES or b"-----BEGIN CERTIFICATE-----" not in pem:
        raise UsageError(f"The {name} contains no certificates.", remedy="Specify a PEM file of certificates.")
    return pem


def _read(file: Path, max_bytes: int) -> bytes:
    with file.open("rb") as opened:
        return opened.read(max_bytes)
