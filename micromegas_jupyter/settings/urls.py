"""Rules for the URLs that settings name."""

from urllib.parse import urlsplit

from micromegas_jupyter.errors import ConfigurationError

LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})


def is_loopback_url(url: str) -> bool:
    """Whether the URL's host is this machine, by an address or name that cannot point elsewhere."""
    try:
        return urlsplit(url).hostname in LOOPBACK_HOSTS
    except ValueError:
        return False


def check_issuer_url(issuer: str, *, key: str) -> None:
    """Check that an issuer is an https URL, or http on loopback, without query, fragment or user.

    Source: OpenID Connect Discovery 1.0 section 4.3; RFC 9700 section 2.6.

    Raises:
        ConfigurationError: It is not.
    """
    # What stands before an @ may be a password, so such a text is not shown.
    if "@" in issuer or "?" in issuer or "#" in issuer:
        raise ConfigurationError(f"{key} names an issuer with a query, a fragment or a user.", key=key)
    try:
        parts = urlsplit(issuer)
        host = parts.hostname if parts.port != 0 else None
    except ValueError:
        host = None
    # The characters are those that two readers of URLs could take differently.
    is_plain = issuer.isascii() and issuer.isprintable() and not set(issuer) & set(' \\"<>')
    if not host or not is_plain or parts.scheme not in {"https", "http"}:
        raise ConfigurationError(f"{key} names an issuer that is not an https URL: {issuer!r}.", key=key)
    if parts.scheme == "http" and host not in LOOPBACK_HOSTS:
        raise ConfigurationError(
            f"{key} names the issuer {issuer!r} over http.",
            key=key,
            remedy="Use https; http is accepted on 127.0.0.1, ::1 and localhost only.",
        )
