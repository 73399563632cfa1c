"""The cookies of a sign-in by redirect: one ties its callback to the browser that started it, one names its last page.

Signing them is tornado's, with the secret of a Jupyter server or of the Hub's service; setting them is the handlers'.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from micromegas_jupyter.redirect.routing import is_kernel_id

if TYPE_CHECKING:
    from collections.abc import Iterable

BINDING_SECONDS = 600
ENDING_SECONDS = 120
MAX_BINDINGS = 20
"""How many sign-ins one browser may have under way."""

_BINDING = "micromegas-login-"
_ENDING = "micromegas-done"
_HOST_PREFIX = "__Host-"
_DIGEST_CHARACTERS = 16
_DIGEST_PARTS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class CookiePlace:
    """Where the cookies of one server hold.

    Attributes:
        is_secure: Whether browsers reach the server over TLS.
        base_url: The server's base URL, or the path that browsers know for it.
        folder: What the addresses of a sign-in begin with below it.
    """

    is_secure: bool
    base_url: str
    folder: str = "micromegas/"

    @property
    def prefix(self) -> str:
        """What makes browsers refuse such a cookie from a neighbouring host (RFC 6265bis section 4.1.3.2)."""
        return _HOST_PREFIX if self.is_secure and self.base_url == "/" else ""

    @property
    def path(self) -> str:
        """Below which path the cookies are sent; the prefix asks for the whole host."""
        return "/" if self.prefix else f"{self.base_url}{self.folder}"


def binding_name(place: CookiePlace, state_digest: str) -> str:
    """Return the name of the cookie that ties a sign-in to a browser; each sign-in has one of its own."""
    return f"{place.prefix}{_BINDING}{state_digest[:_DIGEST_CHARACTERS]}"


def binding_value(username: str, state_digest: str) -> str:
    """Return what that cookie says: whose browser may bring back which state."""
    return f"{state_digest} {username}"


def ending_name(place: CookiePlace) -> str:
    """Return the name of the cookie that says which sign-in the last page is about."""
    return f"{place.prefix}{_ENDING}"


def ending_value(kernel_id: str, state_digest: str) -> str:
    """Return what that cookie says."""
    return f"{kernel_id} {state_digest}"


def parse_ending_value(value: str) -> tuple[str, str] | None:
    """Return the kernel and the state's digest that such a cookie names; None when it names none."""
    parts = value.split(" ")
    if len(parts) != _DIGEST_PARTS or not is_kernel_id(parts[0]):
        return None
    return parts[0], parts[1]


def names_in(headers: Iterable[str]) -> Counter[str]:
    """Return how often each name stands in a request's `Cookie` headers.

    Source: RFC 6265bis section 5.8.3: of two cookies of one name, the order says nothing about which is whose.
    """
    return Counter(part.partition("=")[0].strip() for header in headers for part in header.split(";"))


def bindings_in(place: CookiePlace, names: Iterable[str]) -> list[str]:
    """Return the names of those cookies that tie a sign-in to this browser.

    Others that only begin so are left aside: a neighbouring host can set them, and not every name can be sent back.
    """
    form = re.compile(rf"{place.prefix}{_BINDING}[0-9a-f]{{{_DIGEST_CHARACTERS}}}")
    return [name for name in names if form.fullmatch(name)]
