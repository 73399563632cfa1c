"""The start page, and signing out of the provider (OpenID Connect RP-Initiated Logout 1.0)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import flask
from authlib.common.urls import add_params_to_uri
from joserfc.errors import JoseError

from micromegas_jupyter.demo.provider.people import PEOPLE

if TYPE_CHECKING:
    from werkzeug.wrappers import Response

    from micromegas_jupyter.demo.provider.browser import Browsers
    from micromegas_jupyter.demo.provider.keys import SigningKeys
    from micromegas_jupyter.demo.provider.server import DemoAuthorizationServer

_LOOPBACK_PAGE = re.compile(r"http://(127\.0\.0\.1|\[::1\]|localhost)(:[1-9]\d{0,4})?(/[\x21-\x7e]*)?", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Hint:
    subject: str
    audience: str


class SessionPages:
    """The pages at `/` and `/logout`."""

    def __init__(self, server: DemoAuthorizationServer, keys: SigningKeys, browsers: Browsers) -> None:
        self._server = server
        self._keys = keys
        self._browsers = browsers

    def register(self, app: flask.Flask) -> None:
        """Add the routes."""
        app.add_url_rule("/", "home", self.home, methods=["GET"])
        app.add_url_rule("/logout", "logout", self.logout, methods=["GET", "POST"])

    def home(self) -> Response:
        """Say what this is."""
        return self._browsers.page("home.html", issuer=self._server.tokens.policy.issuer, people=PEOPLE.values())

    def logout(self) -> Response:
        """End the session at once for an application that shows the person's ID token, else ask first."""
        values = flask.request.values
        try:
            hint = self._read_hint(values.get("id_token_hint"))
        except (JoseError, ValueError):
            return self._browsers.error_page(
                "Signing out cannot start",
                "The application sent an ID token that this provider did not make.",
                "Open this provider's start page to sign out by hand.",
            )
        is_confirmed = flask.request.method == "POST" and "form_token" in values
        if is_confirmed and not self._browsers.is_own_form():
            return self._browsers.foreign_form_page()
        signed_in = self._browsers.current().signed_in
        is_own_hint = hint is not None and (signed_in is None or hint.subject == signed_in.person.subject)
        if signed_in is not None and not is_confirmed and not is_own_hint:
            return self._browsers.page("sign_out.html")
        self._browsers.sign_out()
        return self._leave(hint)

    def _leave(self, hint: _Hint | None) -> Response:
        values = flask.request.values
        target = values.get("post_logout_redirect_uri", "")
        client_id = values.get("client_id", hint.audience if hint else None)
        # Section 3: without an ID token nothing proves that the application itself asked.
        is_known = hint is not None and client_id == hint.audience
        if is_known and _LOOPBACK_PAGE.fullmatch(target):
            state = values.get("state")
            location = add_params_to_uri(target, [("state", state)]) if state else target
            return flask.Response(status=303, headers={"Location": location})
        return self._browsers.page(
            "message.html",
            title="You are signed out",
            what="This browser is signed out of the demo's identity provider.",
            remedy="You can close this page.",
            is_error=False,
        )

    def _read_hint(self, token: str | None) -> _Hint | None:
        if not token:
            return None
        # Keys that no other issuer has; its times do not matter (RP-Initiated Logout 1.0 section 2).
        claims = self._keys.read_own(token)
        subject, audience = claims.get("sub"), claims.get("aud")
        # An access token is signed by the same keys, but no application is its audience.
        if not isinstance(subject, str) or not isinstance(audience, str) or not self._server.query_client(audience):
            return None
        return _Hint(subject=subject, audience=audience)
