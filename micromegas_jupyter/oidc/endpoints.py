"""The rule for addresses that a provider names: where secrets may be sent.

Calling them is `http`'s job.
"""

from urllib.parse import urlsplit

from micromegas_jupyter.errors import ProviderMisbehaved
from micromegas_jupyter.settings.decoding import is_loopback_url

MAX_URL_CHARACTERS = 2048


def check_endpoint_url(url: str) -> str:
    """Check that a provider's address is one that may be called, and return its host for error sentences.

    Source: RFC 9700 section 2.6; RFC 8252 section 8.3 for http on loopback.

    Raises:
        ProviderMisbehaved: It is not https (or http on loopback), has a user or a fragment, is longer than
            `MAX_URL_CHARACTERS`, or holds characters that two URL parsers could read differently.
    """
    is_plain = len(url) <= MAX_URL_CHARACTERS and url.isascii() and url.isprintable() and not set(url) & set(' \\"<>')
    try:
        parts = urlsplit(url)
        host = parts.hostname if parts.port != 0 else None
    except ValueError:
        host = None
    if not host or not is_plain:
        raise ProviderMisbehaved("The identity provider names an address that cannot be read.")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback_url(url)):
        raise ProviderMisbehaved(f"The identity provider names an address at {host} that is not https.")
    if "@" in parts.netloc or parts.fragment:
        raise ProviderMisbehaved(f"The identity provider names an address at {host} with a user or a fragment.")
    return host
