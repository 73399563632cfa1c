"""Rules for the URLs that settings name."""

from urllib.parse import urlsplit

from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.settings.decoding import shown

LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})

# Two readers of URLs could take these differently.
_AMBIGUOUS_CHARACTERS = frozenset(' \\"<>')


def is_loopback_url(url: str) -> bool:
    """Whether the URL's host is this machine, by an address or name that cannot point elsewhere."""
    try:
        return urlsplit(url).hostname in LOOPBACK_HOSTS
    except ValueError:
        return False


def host_text(url: str) -> str:
    """Return a URL's host and port, which is what a person knows it by; the text itself when it has none."""
    try:
        network_location = urlsplit(url).netloc
    except ValueError:
        network_location = ""
    return network_location.rpartition("@")[2] or url


def check_issuer_url(issuer: str, *, key: str) -> None:
    """Check that an issuer is an https URL, or http on loopback, without query, fragment or user.

    Source: OpenID Connect Discovery 1.0 section 4.3; RFC 9700 section 2.6.

    Raises:
        ConfigurationError: It is not.
    """
    # What stands before an @ may be a password, so such a text is not shown.
    if "@" in issuer or "?" in issuer or "#" in issuer:
        raise ConfigurationError(f"{key} names an issuer with a query, a fragment or a user.", key=key)
    scheme, host = _scheme_and_host(issuer)
    if host is None:
        raise ConfigurationError(f"{key} names an issuer that is not an https URL: {shown(issuer)}.", key=key)
    if scheme == "http" and host not in LOOPBACK_HOSTS:
        raise ConfigurationError(
            f"{key} names the issuer {shown(issuer)} over http.",
            key=key,
            remedy="Use https; http is accepted on 127.0.0.1, ::1 and localhost only.",
        )


def check_fetch_url(url: str, *, key: str) -> None:
    """Check that a document's address is an https URL, or http on loopback, without fragment or user.

    Unlike an issuer it may have a query. It is never shown: a query may hold a secret.

    Raises:
        ConfigurationError: It is not.
    """
    scheme, host = _scheme_and_host(url)
    if host is None or "@" in url.partition("?")[0] or "#" in url:
        raise ConfigurationError(f"{key} is not an https URL without user and fragment.", key=key)
    if scheme == "http" and host not in LOOPBACK_HOSTS:
        raise ConfigurationError(
            f"{key} is a URL over http.",
            key=key,
            remedy="Use https; http is accepted on 127.0.0.1, ::1 and localhost only.",
        )


def _scheme_and_host(url: str) -> tuple[str, str | None]:
    """Return scheme and host of an http or https URL; no host when it is no such URL or can be misread."""
    try:
        parts = urlsplit(url)
        host = parts.hostname if parts.port != 0 else None
    except ValueError:
        return "", None
    is_plain = url.isascii() and url.isprintable() and not set(url) & _AMBIGUOUS_CHARACTERS
    if not host or not is_plain or parts.scheme not in {"https", "http"}:
        return "", None
    return parts.scheme, host
