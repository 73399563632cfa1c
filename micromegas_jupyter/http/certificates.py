"""Certificates of authorities to trust: the file that the environment names, and further ones kept in memory.

Which connections use them is the exchange's job.
"""

import os
import re
from pathlib import Path

from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.private_files import FileProblem, read_shared_file

MAX_BUNDLE_BYTES = 4 * 2**20

_CERTIFICATE = re.compile(
    r"-----BEGIN (?:TRUSTED )?CERTIFICATE-----[^-]{1,65536}-----END (?:TRUSTED )?CERTIFICATE-----"
)


def environment_ca_bundle() -> str | None:
    """Return the file or folder of certificates that the environment names, as `requests` would find it.

    Raises:
        ConfigurationError: There is no such file.
    """
    # The names and their order are those of `requests`.
    found = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
    if found and not Path(found).exists():
        raise ConfigurationError(
            "The environment names a CA bundle that does not exist.",
            key="REQUESTS_CA_BUNDLE",
            remedy="Correct REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE, or unset it.",
        )
    return found or None


def read_certificates(path: Path) -> str:
    """Return the certificates of a PEM file; whatever else stands in it is left out, and `~` in `path` is a name.

    Raises:
        ConfigurationError: There is no such file, it is too large, or it holds no certificate or a damaged one.
    """
    try:
        content, _ = read_shared_file(path, max_bytes=MAX_BUNDLE_BYTES)
    except FileProblem as problem:
        raise _refusal(problem.args[0]) from None
    # Bundles have comments in any encoding.
    certificates = "\n".join(_CERTIFICATE.findall(content.decode("latin-1")))
    if not certificates:
        raise _refusal("holds no certificate in PEM form")
    import ssl

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=certificates)
    except (ssl.SSLError, ValueError, TypeError):  # TypeError: it is not ASCII
        raise _refusal("holds a damaged certificate") from None
    return certificates


def _refusal(what: str) -> ConfigurationError:
    return ConfigurationError(
        f"The file of certificates to trust {what}.",
        key="ca_bundle",
        remedy="Correct MICROMEGAS_CA_BUNDLE or ca_bundle; it names a file of certificates in PEM form.",
    )
