"""The pages for signing in on another device: type the code, sign in, allow or deny (RFC 8628 section 3.3)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING
from urllib.parse import quote

import flask

from micromegas_jupyter.demo.provider.browser import describe_scopes
from micromegas_jupyter.demo.provider.records import Grant

if TYPE_CHECKING:
    from werkzeug.wrappers import Response

    from micromegas_jupyter.demo.provider.browser import Browsers
    from micromegas_jupyter.demo.provider.records import DeviceAuthorization
    from micromegas_jupyter.demo.provider.server import DemoAuthorizationServer

log = logging.getLogger("micromegas_jupyter.demo.provider")
_MAX_CODE_LENGTH = 32


class DevicePages:
    """The pages at `/device` and `/device-confirm`."""

    def __init__(self, server: DemoAuthorizationServer, browsers: Browsers) -> None:
        self._server = server
        self._browsers = browsers

    def register(self, app: flask.Flask) -> None:
        """Add the routes."""
        app.add_url_rule("/device", "device", self.type_code, methods=["GET", "POST"])
        app.add_url_rule("/device-confirm", "device_confirm", self.confirm, methods=["GET", "POST"])

    def type_code(self) -> Response:
        """Take the code. A link that holds one only fills the field (RFC 8628 section 5.4)."""
        if flask.request.method == "GET":
            return self._code_page(flask.request.args.get("user_code", ""))
        if not self._browsers.is_own_form():
            return self._browsers.foreign_form_page()
        typed = flask.request.form.get("user_code", "")
        user_code = normalise_user_code(typed)
        if self._server.state.find_waiting_device(user_code) is None:
            return self._code_page(typed, wrong=True)
        return flask.Response(status=303, headers={"Location": f"device-confirm?user_code={quote(user_code)}"})

    def confirm(self) -> Response:
        """Sign in, then allow or deny the device whose code is in the query."""
        user_code = normalise_user_code(flask.request.args.get("user_code", ""))
        device = self._server.state.find_waiting_device(user_code)
        if device is None:
            return self._code_page(user_code, wrong=True)
        if flask.request.method == "POST":
            return self._answer_form(device)
        session = self._browsers.current()
        application = self._server.query_client(device.client_id).display_name
        if session.signed_in is None:
            return self._browsers.sign_in_page(application=application)
        return self._browsers.page(
            "consent.html",
            application=application,
            destination=None,
            permissions=describe_scopes(device.scope),
            user_code=device.user_code,
        )

    def _answer_form(self, device: DeviceAuthorization) -> Response:
        if not self._browsers.is_own_form():
            return self._browsers.foreign_form_page()
        form = flask.request.form
        again = flask.Response(status=303, headers={"Location": f"device-confirm?user_code={quote(device.user_code)}"})
        if form.get("step") == "sign-in":
            if not self._browsers.sign_in_from_form(fresh_for=""):
                application = self._server.query_client(device.client_id).display_name
                return self._browsers.sign_in_page(application=application, wrong=True)
            return again
        if form.get("decision") == "switch":
            self._browsers.sign_out()
            return again
        return self._decide(device, is_allowed=form.get("decision") == "allow") or again

    def _decide(self, device: DeviceAuthorization, *, is_allowed: bool) -> Response | None:
        signed_in = self._browsers.current().signed_in
        if signed_in is None:
            return None
        grant = Grant(client_id=device.client_id, signed_in=signed_in, scope=device.scope, audience=device.audience)
        if not self._server.state.decide_device(device.user_code, grant if is_allowed else None):
            return self._code_page(device.user_code, wrong=True)
        log.info("device answered", extra={"client_id": device.client_id, "is_allowed": is_allowed})
        title = "The other device is signed in" if is_allowed else "The other device was refused"
        return self._browsers.page(
            "message.html",
            title=title,
            what="It goes on by itself." if is_allowed else "It was told so and gets no access.",
            remedy="You can close this page.",
            is_error=False,
        )

    def _code_page(self, user_code: str, *, wrong: bool = False) -> Response:
        status = 400 if wrong else 200
        return self._browsers.page("device.html", status=status, user_code=user_code[:_MAX_CODE_LENGTH], wrong=wrong)


def normalise_user_code(typed: str) -> str:
    """Return a typed code in the form in which codes are made: capital letters, a hyphen in the middle."""
    letters = "".join(character for character in typed[:_MAX_CODE_LENGTH].upper() if character.isalnum())
    return f"{letters[:4]}-{letters[4:]}"
