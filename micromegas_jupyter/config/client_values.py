"""What a single client setting must look like."""

import re
from functools import partial
from pathlib import PurePath
from urllib.parse import urlsplit

from micromegas_jupyter.config.client import (
    AssertionAudience,
    Bearer,
    Flow,
    TokenStorage,
    WorkloadExchange,
    WorkloadPlatform,
)
from micromegas_jupyter.config.decoding import (
    SIGNATURE_ALGORITHMS,
    as_choice,
    as_named,
    as_rate,
    as_text,
    is_text,
    shown,
)
from micromegas_jupyter.core.protocols import Secret
from micromegas_jupyter.core.urls import LOOPBACK_HOSTS
from micromegas_jupyter.errors import ConfigurationError

MIN_TIMEOUT_SECONDS = 1.0
MAX_TIMEOUT_SECONDS = 60.0
AUTOMATIC_FLOW = "auto"
CHOSEN_FLOWS = (Flow.BROWSER, Flow.DEVICE, Flow.PASTE, Flow.HUB)

# The sign-in itself makes these; another value would undo a check.
PROTECTED_PARAMETERS = frozenset(
    {
        "client_id",
        "client_secret",
        "code_challenge",
        "code_challenge_method",
        "nonce",
        "redirect_uri",
        "request",
        "request_uri",
        "response_mode",
        "response_type",
        "state",
    }
)
_PARAMETERS_WITH_A_SETTING = frozenset({"audience", "resource", "scope"})
_MAX_PARAMETERS = 32
# RFC 6749 section 3.3.
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+( [\x21\x23-\x5b\x5d-\x7e]+)*")
_NUMBER = re.compile(r"[0-9]{1,6}(\.[0-9]{1,6})?")
_PROXY_HOST = re.compile(r"[A-Za-z0-9._:%-]+")

as_bearer = partial(as_choice, choices=Bearer)
as_storage = partial(as_choice, choices=TokenStorage)
as_platform = partial(as_choice, choices=WorkloadPlatform)
as_exchange = partial(as_choice, choices=WorkloadExchange)
as_assertion_audience = partial(as_choice, choices=AssertionAudience)


def as_path(value: object, key: str) -> PurePath:
    """Return a file's path; `~` in it is for the reader of the file."""
    return PurePath(as_text(value, key))


def as_secret(value: object, key: str) -> Secret:
    """Return a secret text."""
    value = Secret(value) if is_text(value) else None  # or a traceback would show it
    if value is None:
        raise _no_text(key)
    return value


def as_scope(value: object, key: str) -> str:
    """Return a list of scope names."""
    scope = as_text(value, key)
    if not _SCOPE.fullmatch(scope):
        raise ConfigurationError(f"{key} is not a list of names separated by single spaces.", key=key)
    return scope


def as_resource(value: object, key: str) -> str:
    """Return a resource: an absolute URI without a fragment (RFC 8707 section 2)."""
    resource = as_text(value, key)
    try:
        is_absolute = bool(urlsplit(resource).scheme)
    except ValueError:
        is_absolute = False
    if not is_absolute or "#" in resource or " " in resource or not resource.isascii():
        raise ConfigurationError(f"{key} is not an absolute URI without a fragment.", key=key)
    return resource


def as_redirect_uri(value: object, key: str) -> str:
    """Return a redirect address on loopback (RFC 8252 section 7.3)."""
    uri = as_text(value, key)
    try:
        parts = urlsplit(uri)
        is_loopback = parts.scheme == "http" and parts.hostname in LOOPBACK_HOSTS and parts.port != 0
    except ValueError:
        is_loopback = False
    if not is_loopback or set(uri) & set("?#@ ") or not uri.isascii():
        raise ConfigurationError(
            f"{key} is not an http URL on this machine without query, fragment and user.",
            key=key,
            remedy="Write one such as http://127.0.0.1:48080/callback, as it is registered at the provider.",
        )
    return uri


def as_authorize_params(value: object, key: str) -> tuple[tuple[str, str], ...]:
    """Return further parameters of the authorization request."""
    named = as_named(value, key)
    if len(named) > _MAX_PARAMETERS:
        raise ConfigurationError(f"{key} has more than {_MAX_PARAMETERS} parameters.", key=key)
    for name in named:
        if name in PROTECTED_PARAMETERS:
            raise ConfigurationError(f"{key}.{name} cannot be set: each sign-in makes its own.", key=f"{key}.{name}")
        if name in _PARAMETERS_WITH_A_SETTING:
            raise ConfigurationError(
                f"{key}.{name} cannot be set here.", key=f"{key}.{name}", remedy=f"Use the setting {name} instead."
            )
    return tuple(sorted((name, as_text(text, f"{key}.{name}")) for name, text in named.items()))


def as_flow(value: object, key: str) -> Flow | None:
    """Return the chosen flow, None for `auto`."""
    if value == AUTOMATIC_FLOW:
        return None
    for flow in CHOSEN_FLOWS:
        if value == flow.value:
            return flow
    raise ConfigurationError(f"{key} is none of {', '.join((AUTOMATIC_FLOW, *CHOSEN_FLOWS))}.", key=key)


def as_algorithm(value: object, key: str) -> str:
    """Return a signature algorithm of a key pair."""
    algorithm = as_text(value, key)
    if algorithm not in SIGNATURE_ALGORITHMS:
        raise ConfigurationError(f"{key} is none of {', '.join(sorted(SIGNATURE_ALGORITHMS))}.", key=key)
    return algorithm


def as_timeout_seconds(value: object, key: str) -> float:
    """Return a deadline in seconds; a text, as a variable holds it, may be a decimal number."""
    number = float(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else value
    return as_rate(number, key, minimum=MIN_TIMEOUT_SECONDS, maximum=MAX_TIMEOUT_SECONDS)


def as_proxy(value: object, key: str) -> Secret:
    """Return a proxy's address, which may hold a password and is never shown."""
    value = Secret(value) if is_text(value) else None  # or a traceback would show it
    if value is None:
        raise _no_text(key)
    if not _is_proxy(value.reveal()):
        raise ConfigurationError(
            f"{key} is not the address of a proxy.",
            key=key,
            remedy="Write http://host:port or https://host:port, with user:password@ before the host where the proxy "
            "asks for them; special characters in these are percent-encoded.",
        )
    return value


def as_preset_name(value: object, key: str, *, names: frozenset[str]) -> str:
    """Return a preset's name."""
    name = as_text(value, key)
    if name not in names:
        raise ConfigurationError(
            f"{key} names the unknown preset {shown(name)}.", key=key, remedy=f"Known: {', '.join(sorted(names))}."
        )
    return name


def _is_proxy(address: str) -> bool:
    try:
        parts = urlsplit(address)
        host = parts.hostname if parts.port != 0 else None
    except ValueError:
        return False
    is_plain = address.isascii() and not set(address) & set(' \\"<>?#')
    if not host or not _PROXY_HOST.fullmatch(host) or not is_plain:
        return False
    return parts.scheme in {"http", "https"} and parts.path in {"", "/"}


def _no_text(key: str) -> ConfigurationError:
    return ConfigurationError(f"{key} is not a text of printable characters.", key=key)
