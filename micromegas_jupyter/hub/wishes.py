"""The arguments of `configure`, each read or refused by its name; what they must not add up to is `configuring`'s."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.redirect.redirect_address import public_base
from micromegas_jupyter.settings import Bearer

LEAST_MARGIN_SECONDS: Final = 2
MOST_MARGIN_SECONDS: Final = 3600


def text_wish(value: object, *, key: str) -> str | None:
    """Return a line of text; None when it is left out or empty.

    Raises:
        ConfigurationError: It is something else.
    """
    if value is None or value == "":
        return None
    if not isinstance(value, str) or not value.isprintable() or not value.strip():
        raise ConfigurationError(f"{key} is no line of text.", key=key)
    return value


def switch_wish(value: object, *, key: str) -> bool:
    """Return a switch. A text is none: a variable that says "false" must not switch anything on.

    Raises:
        ConfigurationError: It is neither True nor False.
    """
    if not isinstance(value, bool):
        raise ConfigurationError(f"{key} is neither True nor False.", key=key)
    return value


def bearer_wish(value: object) -> Bearer:
    """Return which token is wanted.

    Raises:
        ConfigurationError: There is no such one.
    """
    found = next((bearer for bearer in Bearer if bearer.value == value), None)
    if found is None:
        raise ConfigurationError("bearer is neither id_token nor access_token.", key="bearer")
    return found


def margin_wish(seconds: object) -> int:
    """Return how much of a token is left at least.

    Raises:
        ConfigurationError: It is too little, too much or no whole number.
    """
    if (
        not isinstance(seconds, int)
        or isinstance(seconds, bool)
        or not LEAST_MARGIN_SECONDS <= seconds <= MOST_MARGIN_SECONDS
    ):
        raise ConfigurationError(
            f"margin_seconds is no whole number from {LEAST_MARGIN_SECONDS} to {MOST_MARGIN_SECONDS}.",
            key="margin_seconds",
        )
    return seconds


def address_wish(url: object, *, key: str) -> str:
    """Return an address with a slash at its end.

    Raises:
        ConfigurationError: It is none of the web.
    """
    base = public_base(url) if isinstance(url, str) else None
    try:
        has_port = base is not None and urlsplit(base).port != 0
    except ValueError:
        has_port = False
    if base is None or not has_port:
        raise ConfigurationError(f"{key} is no http or https address without user, query and fragment.", key=key)
    return base
