"""TLS between the programs of a Hub (`JupyterHub.internal_ssl`): what the Hub gave this one to call its API with.

Calling is `hub_api`'s job.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from micromegas_jupyter.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

KEY_FILE: Final = "JUPYTERHUB_SSL_KEYFILE"
CERTIFICATE_FILE: Final = "JUPYTERHUB_SSL_CERTFILE"
AUTHORITY_FILE: Final = "JUPYTERHUB_SSL_CLIENT_CA"
_NAMES: Final = (KEY_FILE, CERTIFICATE_FILE, AUTHORITY_FILE)
_REMEDY: Final = "The Hub sets all three when internal_ssl is on: start this program as a service of the Hub."


@dataclass(frozen=True, slots=True, kw_only=True)
class InternalTls:
    """Files in PEM.

    Attributes:
        key_file: This program's private key.
        certificate_file: Its certificate, which the Hub asks for.
        authority_file: Whose certificates are trusted besides the usual ones.
    """

    key_file: str
    certificate_file: str
    authority_file: str

    def context(self) -> ssl.SSLContext:
        """Return how to call the Hub.

        Raises:
            ConfigurationError: A file cannot be read or does not fit.
        """
        try:
            context = ssl.create_default_context()
            context.load_verify_locations(self.authority_file)
            context.load_cert_chain(self.certificate_file, self.key_file)
        except (OSError, ValueError):
            raise ConfigurationError(
                "The certificates for calls within the Hub cannot be used.", key=CERTIFICATE_FILE, remedy=_REMEDY
            ) from None
        return context


def read_internal_tls(environ: Mapping[str, str]) -> InternalTls | None:
    """Return what the environment names; None where the Hub's programs speak plain http.

    Raises:
        ConfigurationError: It names one or two of the three files.
    """
    key, certificate, authority = (environ.get(name, "") for name in _NAMES)
    if not (key or certificate or authority):
        return None
    missing = next((name for name in _NAMES if not environ.get(name)), None)
    if missing is not None:
        raise ConfigurationError(f"{missing} is not set, and others of its kind are.", key=missing, remedy=_REMEDY)
    return InternalTls(key_file=key, certificate_file=certificate, authority_file=authority)
