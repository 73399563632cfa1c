"""Rules for URLs: which host they name, and where secrets may be sent."""

from urllib.parse import SplitResult, urlsplit

from micromegas_jupyter.errors import ProviderMisbehaved

MAX_URL_CHARACTERS = 2048
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


def split_plain_url(url: str, *, max_characters: int | None = None) -> SplitResult | None:
    """Return a URL's parts; None when it has no host, is too long, or two parsers could read it differently."""
    if max_characters is not None and len(url) > max_characters:
        return None
    if not url.isascii() or not url.isprintable() or set(url) & _AMBIGUOUS_CHARACTERS:
        return None
    try:
        parts = urlsplit(url)
        has_host = bool(parts.hostname) and parts.port != 0
    except ValueError:
        return None
    return parts if has_host else None


def scheme_and_host(url: str) -> tuple[str, str | None]:
    """Return scheme and host of an http or https URL; no host when it is no such URL or can be misread."""
    parts = split_plain_url(url)
    return ("", None) if parts is None or parts.scheme not in {"https", "http"} else (parts.scheme, parts.hostname)


def check_endpoint_url(url: str) -> str:
    """Check that a provider's address is one that may be called, and return its host for error sentences.

    Source: RFC 9700 section 2.6; RFC 8252 section 8.3 for http on loopback.

    Raises:
        ProviderMisbehaved: It is not https (or http on loopback), has a user or a fragment, is longer than
            `MAX_URL_CHARACTERS`, or holds characters that two URL parsers could read differently.
    """
    parts = split_plain_url(url, max_characters=MAX_URL_CHARACTERS)
    if parts is None or parts.hostname is None:
        raise ProviderMisbehaved("The identity provider names an address that cannot be read.")
    host = parts.hostname
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback_url(url)):
        raise ProviderMisbehaved(f"The identity provider names an address at {host} that is not https.")
    if "@" in parts.netloc or parts.fragment:
        raise ProviderMisbehaved(f"The identity provider names an address at {host} with a user or a fragment.")
    return host
