"""Reading, giving and taking the cookies of a sign-in by redirect, for any of tornado's request handlers.

What they are called and where they hold is `cookies`'s; the secret that signs them is the server's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from micromegas_jupyter.redirect.cookies import CookiePlace, names_in

if TYPE_CHECKING:
    from tornado.web import RequestHandler
else:
    RequestHandler = object  # this room loads no web server

_SECONDS_PER_DAY = 86_400


class SignedCookies(RequestHandler):
    """A handler's signed cookies; comes before tornado's handler among the base classes."""

    def cookie_place(self) -> CookiePlace:
        """Return where the cookies hold."""
        raise NotImplementedError

    def cookie_names(self) -> dict[str, int]:
        """Return how often each cookie was sent."""
        return names_in(self.request.headers.get_list("Cookie"))

    def read_cookie(self, name: str, life_seconds: int) -> str:
        """Return what a signed cookie says; empty when it was not sent, is not ours or too old, or was sent twice."""
        if self.cookie_names().get(name) != 1:
            return ""
        value = self.get_signed_cookie(name, max_age_days=life_seconds / _SECONDS_PER_DAY)
        return "" if value is None else value.decode("utf-8", "replace")

    def give_cookie(self, name: str, value: str, life_seconds: int) -> None:
        """Give the browser a signed cookie that scripts cannot read and other sites cannot send along in a form."""
        place = self.cookie_place()
        self.set_signed_cookie(
            name,
            value,
            expires_days=None,
            max_age=life_seconds,
            path=place.path,
            secure=place.is_secure,
            httponly=True,
            samesite="Lax",
        )

    def take_cookie(self, name: str) -> None:
        """Have the browser forget such a cookie."""
        place = self.cookie_place()
        self.clear_cookie(name, path=place.path, secure=place.is_secure, httponly=True, samesite="Lax")
