"""The authorization endpoint: sign-in, consent, and the redirect back.

The request is checked by Authlib and the grants' rules, on every step anew: nothing about it is kept between steps.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import flask
from authlib.oauth2 import OAuth2Error

from micromegas_jupyter.demo.provider.browser import describe_scopes

if TYPE_CHECKING:
    from werkzeug.wrappers import Response

    from micromegas_jupyter.demo.provider.browser import Browsers
    from micromegas_jupyter.demo.provider.server import DemoAuthorizationServer
    from micromegas_jupyter.demo.provider.sessions import BrowserSession

log = logging.getLogger("micromegas_jupyter.demo.provider")


class AuthorizePages:
    """The pages at `/authorize`."""

    def __init__(self, server: DemoAuthorizationServer, browsers: Browsers) -> None:
        self._server = server
        self._browsers = browsers

    def register(self, app: flask.Flask) -> None:
        """Add the route."""
        app.add_url_rule("/authorize", "authorize", self.authorize, methods=["GET", "POST"])

    def authorize(self) -> Response:
        """Answer a step of the authorization request in the query."""
        try:
            grant = self._server.get_consent_grant()
        except (OAuth2Error, ValueError) as error:
            return self._refuse(error)
        if flask.request.method == "POST":
            return self._answer_form(grant)
        return self._ask(grant)

    def _ask(self, grant: Any) -> Response:
        session = self._browsers.current()
        prompts = set(grant.request.payload.data.get("prompt", "").split())
        if "none" in prompts:
            return self._answer_silently(session, grant)
        if self._needs_sign_in(session, grant):
            return self._browsers.sign_in_page(application=grant.client.display_name)
        # RFC 8252 section 8.6: anybody on this machine can call itself this application, so the person is asked
        # each time.
        redirect = urlsplit(grant.redirect_uri)
        return self._browsers.page(
            "consent.html",
            application=grant.client.display_name,
            destination=f"{redirect.scheme}://{redirect.netloc}",
            permissions=describe_scopes(_scope_of(grant)),
            user_code=None,
        )

    def _answer_form(self, grant: Any) -> Response:
        if not self._browsers.is_own_form():
            return self._browsers.foreign_form_page()
        if flask.request.form.get("step") == "sign-in":
            if not self._browsers.sign_in_from_form(fresh_for=_request_text()):
                return self._browsers.sign_in_page(application=grant.client.display_name, wrong=True)
            return _same_request_again()
        return self._answer_consent(grant)

    def _answer_consent(self, grant: Any) -> Response:
        session = self._browsers.current()
        decision = flask.request.form.get("decision")
        if decision == "switch":
            self._browsers.sign_out()
            return _same_request_again()
        if self._needs_sign_in(session, grant):
            return _same_request_again()
        if decision != "allow":
            log.info("consent denied", extra={"client_id": grant.client.client_id})
            return self._refuse(_redirected(grant, "access_denied", "The person said no."))
        session.remember_consent(_consent_of(grant))
        return self._finish(grant, session)

    def _answer_silently(self, session: BrowserSession, grant: Any) -> Response:
        # OpenID Connect Core 1.0 section 3.1.2.1: no page at all. Consent counts for the exact redirect URI, port
        # included, in which it was given, for the reason above.
        if self._needs_sign_in(session, grant):
            return self._refuse(_redirected(grant, "login_required", "Nobody is signed in here."))
        if _consent_of(grant) not in session.consents:
            return self._refuse(_redirected(grant, "consent_required", "The person has not been asked yet."))
        return self._finish(grant, session)

    def _finish(self, grant: Any, session: BrowserSession) -> Response:
        session.fresh_for = None
        log.info("consent given", extra={"client_id": grant.client.client_id})
        response: Response = self._server.create_authorization_response(
            grant.request, grant_user=session.signed_in, grant=grant
        )
        return response

    def _needs_sign_in(self, session: BrowserSession, grant: Any) -> bool:
        if session.signed_in is None:
            return True
        if session.fresh_for == _request_text():
            return False
        data = grant.request.payload.data
        if {"login", "select_account"} & set(data.get("prompt", "").split()):
            return True
        age = self._server.clock.now() - session.signed_in.authenticated_at
        return "max_age" in data and age.total_seconds() > int(data["max_age"])

    def _refuse(self, error: OAuth2Error | ValueError) -> Response:
        """Redirect an error to a client that is known and may be sent there; otherwise show it (RFC 9700 4.11)."""
        log.info("authorization request refused", extra={"error": getattr(error, "error", "invalid_request")})
        if isinstance(error, OAuth2Error) and error.redirect_uri:
            response: Response = self._server.handle_error_response(None, error)
            return response
        return self._browsers.error_page(
            "Signing in cannot start",
            "The application that sent you here is not registered, names a place to return to that is not "
            "registered for it, or sent a request that cannot be read.",
            "Check the client id and the redirect URI in the application's settings. Nothing was sent back to it.",
        )


def _request_text() -> str:
    return flask.request.query_string.decode("ascii", "replace")


def _same_request_again() -> Response:
    return flask.Response(status=303, headers={"Location": f"authorize?{_request_text()}"})


def _scope_of(grant: Any) -> str:
    scope: str = grant.client.get_allowed_scope(grant.request.payload.scope)
    return scope


def _consent_of(grant: Any) -> tuple[str, str, str]:
    return grant.client.client_id, grant.redirect_uri, _scope_of(grant)


def _redirected(grant: Any, code: str, description: str) -> OAuth2Error:
    return OAuth2Error(
        error=code,
        description=description,
        redirect_uri=grant.redirect_uri,
        state=grant.request.payload.state,
    )
