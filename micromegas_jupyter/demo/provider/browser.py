"""The ground under every page: the browser's session and cookie, forms that came from here, sign-in, error pages.

Which page comes next is decided by the modules that draw them; all links are relative, so that the pages also work
below a prefix.
"""

from __future__ import annotations

import hmac
import logging
from typing import TYPE_CHECKING

import flask

from micromegas_jupyter.demo.provider.people import PASSWORD, PEOPLE

if TYPE_CHECKING:
    from werkzeug.wrappers import Response

    from micromegas_jupyter.demo.provider.sessions import BrowserSession, BrowserSessions

log = logging.getLogger("micromegas_jupyter.demo.provider")

SCOPE_MEANINGS = {
    "openid": "Know that it is you",
    "profile": "See your name and your groups",
    "email": "See your e-mail address",
    "offline_access": "Keep you signed in, renewing by itself until you sign out",
}


class Browsers:
    """Sessions as the pages use them: one per request, its cookie set on the answer.

    Args:
        sessions: Where sessions are kept.
        cookie_name: The cookie's name. Cookies of one host reach all its ports, so the name holds the port.
        cookie_path: The path below which the pages lie.
    """

    def __init__(self, sessions: BrowserSessions, *, cookie_name: str, cookie_path: str) -> None:
        self._sessions = sessions
        self._cookie_name = cookie_name
        self._cookie_path = cookie_path

    def current(self) -> BrowserSession:
        """Return this browser's session, a new one when it has none."""
        session: BrowserSession | None = flask.g.get("browser")
        if session is None:
            session = self._sessions.find(flask.request.cookies.get(self._cookie_name)) or self._sessions.open()
            flask.g.browser = session
        return session

    def sign_in_from_form(self, *, fresh_for: str) -> bool:
        """Sign in the person whose button was pressed; False when name or password is wrong."""
        form = flask.request.form
        person = PEOPLE.get(form.get("person", ""))
        given = form.get("password", "").encode("utf-8", "replace")
        if person is None or not hmac.compare_digest(given, PASSWORD.encode()):
            log.info("sign-in refused")
            return False
        flask.g.browser = self._sessions.sign_in(self.current(), person, fresh_for=fresh_for)
        log.info("signed in", extra={"subject": person.subject})
        return True

    def sign_out(self) -> None:
        """End this browser's session and give it a new one with nobody in it."""
        self._sessions.end(self.current())
        flask.g.browser = self._sessions.open()

    def is_own_form(self) -> bool:
        """Whether the posted form was made for this browser."""
        return self.current().is_own_form(flask.request.form.get("form_token", ""))

    def set_cookie(self, response: Response) -> Response:
        """Give the browser its cookie, when a page asked who it is."""
        session: BrowserSession | None = flask.g.get("browser")
        if session is not None and flask.request.cookies.get(self._cookie_name) != session.cookie:
            response.set_cookie(
                self._cookie_name, session.cookie, path=self._cookie_path, httponly=True, samesite="Lax"
            )
        return response

    def page(self, template: str, *, status: int = 200, **values: object) -> Response:
        """Return a page; every template finds the browser's form token and who is signed in."""
        session = self.current()
        text = flask.render_template(
            template,
            form_token=session.form_token,
            signed_in=session.signed_in.person if session.signed_in else None,
            **values,
        )
        return flask.Response(text, status=status, mimetype="text/html")

    def sign_in_page(self, *, application: str | None, wrong: bool = False) -> Response:
        """Return the page on which one of the two people is chosen."""
        status = 403 if wrong else 200
        return self.page("sign_in.html", status=status, people=PEOPLE.values(), application=application, wrong=wrong)

    def foreign_form_page(self) -> Response:
        """Return the answer to a form that was not made for this browser."""
        log.warning("form refused")
        return self.error_page(
            "This form is no longer valid",
            "It was made for another browser, or for a session that has ended.",
            "Go back to the application and start the sign-in again.",
        )

    def error_page(self, title: str, what: str, remedy: str, *, status: int = 400) -> Response:
        """Return a page that says what happened and what to do; it leads nowhere else."""
        return self.page("message.html", status=status, title=title, what=what, remedy=remedy, is_error=True)


def describe_scopes(scope: str) -> list[str]:
    """Return what the scopes mean, in words."""
    return [SCOPE_MEANINGS[name] for name in scope.split() if name in SCOPE_MEANINGS]
