"""The certificate that a client shows to a server which asks for one; who calls is told by the token all the same."""

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from micromegas_jupyter.contracts import HiddenBytes
from micromegas_jupyter.errors import UsageError

_MAX_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientCertificate:
    """A certificate with what leads to its authority, and its key, both in PEM."""

    chain: bytes = field(repr=False)
    key: HiddenBytes = field(repr=False)


def read_client_certificate(
    certificate_file: str | Path | None, key_file: str | Path | None
) -> ClientCertificate | None:
    """Read a certificate and its key; None when neither is given.

    Raises:
        UsageError: Only one of them is given, a file cannot be read, or they do not fit.
    """
    if certificate_file is None and key_file is None:
        return None
    if certificate_file is None or key_file is None:
        raise UsageError(
            "Only one of client_certificate_file and client_key_file is given.", remedy="Give both, or neither."
        )
    files = Path(certificate_file).expanduser(), Path(key_file).expanduser()
    try:
        # Without a password OpenSSL would ask for one on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(*files, password="")
        chain, key = (_read(file) for file in files)
    except (OSError, ssl.SSLError):  # the second is what a damaged file gives
        raise UsageError(
            "The client's certificate and its key cannot be read, or do not fit.",
            remedy="Name PEM files: the chain with the client's own certificate first, and its key without a password.",
        ) from None
    return ClientCertificate(chain=chain, key=HiddenBytes(key))


def _read(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(_MAX_BYTES)
