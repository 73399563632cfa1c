"""The pages for users: sign-in and consent, for applications and for other devices, and sign-out.

All links are relative, so that the pages work below a prefix. Every step checks the request in the query again.
"""

import hmac
import logging
import re
import secrets
from datetime import timedelta
from urllib.parse import quote, urlencode, urlsplit

import flask
from joserfc.errors import JoseError
from werkzeug.wrappers import Response

from micromegas_jupyter.core.text import printable
from micromegas_jupyter.demo.provider.client_documents import fetch_client, is_document_url, open_http
from micromegas_jupyter.demo.provider.state import (
    CODE_LIFETIME_SECONDS,
    PASSWORD,
    PEOPLE,
    SCOPE_MEANINGS,
    AuthorizationCode,
    Client,
    Grant,
    OAuthError,
    Session,
    SignedIn,
    TokenIssuer,
)
from micromegas_jupyter.errors import MicromegasError

log = logging.getLogger("micromegas_jupyter.demo.provider")

_KNOWN_PROMPTS = frozenset({"none", "login", "consent", "select_account"})
# RFC 7636 section 4.2: base64url of a SHA-256.
_CODE_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
_LOOPBACK_PAGE = re.compile(r"http://(127\.0\.0\.1|\[::1\]|localhost)(:[1-9]\d{0,4})?(/[\x21-\x7e]*)?", re.ASCII)


class Pages:
    """All pages; the browser's session is found once per request, and its cookie is set on the response."""

    def __init__(self, provider: TokenIssuer) -> None:
        self._provider = provider
        self._state = provider.state
        self._clock = provider.clock
        self._http = open_http()

    def register(self, app: flask.Flask) -> None:
        """Add the routes and the cookie."""
        app.add_url_rule("/", "home", self.home)
        app.add_url_rule("/authorize", "authorize", self.authorize, methods=["GET", "POST"])
        app.add_url_rule("/device", "device", self.type_code, methods=["GET", "POST"])
        app.add_url_rule("/device-confirm", "device_confirm", self.confirm_device, methods=["GET", "POST"])
        app.add_url_rule("/logout", "logout", self.logout, methods=["GET", "POST"])
        app.before_request(self._fetch_client)
        app.after_request(self._set_cookie)

    def home(self) -> Response:
        """Return a page that explains the provider."""
        return self._page("home.html", issuer=self._provider.issuer, people=PEOPLE.values())

    def authorize(self) -> Response:
        """Handle a step of the authorization request in the query."""
        query = flask.request.args
        fetched: Client | MicromegasError | None = flask.g.get("fetched_client")
        if isinstance(fetched, MicromegasError):
            return self._error_page(
                "Signing in cannot start",
                f"The application that sent you here could not be identified. {printable(fetched.what)}",
                "Try again, or use an application with a registered client ID. Nothing was sent back to it.",
            )
        if fetched is not None:
            self._state.url_clients[fetched.client_id] = fetched
        client, redirect_uri = self._provider.find_client(query.get("client_id", "")), query.get("redirect_uri", "")
        is_repeated = any(len(query.getlist(name)) > 1 for name in ("client_id", "redirect_uri"))
        if client is None or is_repeated or not client.is_redirect_uri(redirect_uri):
            # RFC 9700 section 4.11: never redirect to a URI that is not the application's.
            return self._error_page(
                "Signing in cannot start",
                "The application that sent you here is not registered, names a redirect URI that is not "
                "registered for it, or sent a request that cannot be read.",
                "Check the client id and the redirect URI in the application's settings. Nothing was sent back to it.",
            )
        try:
            return self._authorize(client, redirect_uri)
        except OAuthError as error:
            log.info("authorization request refused", extra={"error": error.code})
            return self._send_back(redirect_uri, error=error.code, error_description=error.description)

    def type_code(self) -> Response:
        """Prompt for a device's code. A link with a code only fills in the field (RFC 8628 section 5.4)."""
        if flask.request.method == "GET":
            return self._code_page(flask.request.args.get("user_code", ""))
        if not self._is_own_form():
            return self._foreign_form_page()
        typed = flask.request.form.get("user_code", "")
        user_code = normalize_user_code(typed)
        if self._state.find_waiting_device(user_code, now=self._clock.now()) is None:
            return self._code_page(typed, wrong=True)
        return flask.Response(status=303, headers={"Location": f"device-confirm?user_code={quote(user_code)}"})

    def confirm_device(self) -> Response:
        """Sign in, then allow or deny the device with the code in the query (RFC 8628 section 3.3)."""
        user_code = normalize_user_code(flask.request.args.get("user_code", ""))
        device = self._state.find_waiting_device(user_code, now=self._clock.now())
        if device is None:
            return self._code_page(user_code, wrong=True)
        answer = self._request_consent(device.client, device.scope, resource=device.resource, user_code=user_code)
        if not isinstance(answer, Grant | None):
            return answer
        device.is_decided, device.grant = True, answer
        log.info("device answered", extra={"client_id": device.client.client_id, "is_allowed": answer is not None})
        if answer is None:
            return self._done_page("The other device was rejected", "It doesn't get access.")
        return self._done_page("The other device is signed in", "It continues automatically.")

    def logout(self) -> Response:
        """End the session, asking first if the user's ID token isn't sent (RP-Initiated Logout 1.0)."""
        values = flask.request.values
        try:
            subject, audience = self._read_hint(values.get("id_token_hint"))
        except (JoseError, ValueError):
            return self._error_page(
                "Signing out cannot start",
                "The application sent an ID token that this provider did not make.",
                "Open this provider's start page to sign out by hand.",
            )
        is_confirmed = flask.request.method == "POST" and "form_token" in values
        if is_confirmed and not self._is_own_form():
            return self._foreign_form_page()
        signed_in = self._session().signed_in
        if signed_in is not None and not is_confirmed and subject != signed_in.person.subject:
            return self._page("sign_out.html")
        self._replace_session(None)
        target = values.get("post_logout_redirect_uri", "")
        # Section 3: without an ID token, nothing proves that the application itself made the request.
        if audience and values.get("client_id", audience) == audience and _LOOPBACK_PAGE.fullmatch(target):
            return _redirect(target, state=values.get("state"))
        return self._done_page("You are signed out", "This browser is signed out of the demo's identity provider.")

    def _fetch_client(self) -> None:
        """Fetch the document of an application whose ID is a URL, before acquiring the lock, because it takes time."""
        request, client_id = flask.request, flask.request.args.get("client_id", "")
        if request.endpoint == "authorize" and request.method == "GET" and is_document_url(client_id):
            try:
                flask.g.fetched_client = fetch_client(self._http, client_id)
            except MicromegasError as error:
                log.warning("client document not usable", extra={"error": error.code})
                flask.g.fetched_client = error

    def _authorize(self, client: Client, redirect_uri: str) -> Response:
        query = flask.request.args
        prompts = self._check_request()
        if "none" in prompts:
            # OpenID Connect Core 1.0 section 3.1.2.1: no page may be shown. RFC 8252 section 8.6: any program on this
            # machine can impersonate this application, so the user must consent each time.
            raise OAuthError("login_required" if self._needs_sign_in() else "consent_required")
        redirect = urlsplit(redirect_uri)
        scope = self._provider.select_scope(client, query.get("scope"))
        resource = query.get("resource")
        destination = f"{redirect.scheme}://{redirect.netloc}"
        grant = self._request_consent(client, scope, resource=resource, destination=destination)
        if not isinstance(grant, Grant | None):
            return grant
        if grant is None:
            raise OAuthError("access_denied", "The user denied access.")
        self._session().fresh_for = None
        code = secrets.token_urlsafe()
        self._state.codes[code] = AuthorizationCode(
            grant=grant,
            redirect_uri=redirect_uri,
            code_challenge=query["code_challenge"],
            nonce=query.get("nonce"),
            expires_at=self._clock.now() + timedelta(seconds=CODE_LIFETIME_SECONDS),
        )
        return self._send_back(redirect_uri, code=code)

    def _check_request(self) -> set[str]:
        """Check the rest of an authorization request and return its prompts (OpenID Connect Core 1.0, 3.1.2.6)."""
        query = flask.request.args
        self._provider.check_request(query)
        if query.get("response_type") != "code":
            raise OAuthError("unsupported_response_type" if "response_type" in query else "invalid_request")
        # RFC 9700 section 2.1.1.
        if query.get("code_challenge_method") != "S256" or not _CODE_CHALLENGE.fullmatch(
            query.get("code_challenge", "")
        ):
            raise OAuthError("invalid_request", "This provider requires PKCE with code_challenge_method S256.")
        prompts = set(query.get("prompt", "").split())
        if not prompts <= _KNOWN_PROMPTS or ("none" in prompts and len(prompts) > 1):
            raise OAuthError("invalid_request", "The prompt parameter is not supported.")
        return prompts

    def _request_consent(
        self,
        client: Client,
        scope: str,
        *,
        resource: str | None,
        destination: str | None = None,
        user_code: str | None = None,
    ) -> Response | Grant | None:
        """Return the next sign-in or consent page, or finally the user's decision (None if denied)."""
        session, form = self._session(), flask.request.form
        again = flask.Response(
            status=303, headers={"Location": f"{flask.request.path[1:]}?{flask.request.query_string.decode('latin-1')}"}
        )
        is_post = flask.request.method == "POST"
        if is_post and not self._is_own_form():
            return self._foreign_form_page()
        if is_post and form.get("step") == "sign-in":
            is_signed_in = self._sign_in(form.get("person", ""), form.get("password", ""))
            return again if is_signed_in else self._sign_in_page(client, wrong=True)
        if is_post and form.get("decision") == "switch":
            self._replace_session(None)
            return again
        if session.signed_in is None or self._needs_sign_in():
            return again if is_post else self._sign_in_page(client)
        if is_post:
            is_allowed = form.get("decision") == "allow"
            grant = Grant(client=client, signed_in=session.signed_in, scope=scope, resource=resource)
            return grant if is_allowed else None
        return self._page(
            "consent.html",
            application=client.name,
            destination=destination,
            permissions=[SCOPE_MEANINGS[name] for name in scope.split()],
            user_code=user_code,
        )

    def _needs_sign_in(self) -> bool:
        session, query = self._session(), flask.request.args
        if session.signed_in is None:
            return True
        if session.fresh_for == flask.request.query_string:
            return False
        return bool({"login", "select_account"} & set(query.get("prompt", "").split()))

    def _sign_in(self, key: str, password: str) -> bool:
        person = PEOPLE.get(key)
        if person is None or not hmac.compare_digest(password.encode("utf-8", "replace"), PASSWORD.encode()):
            log.info("sign-in refused")
            return False
        # A cookie from before the sign-in becomes invalid (session fixation).
        self._replace_session(SignedIn(person=person, authenticated_at=self._clock.now()))
        log.info("signed in", extra={"subject": person.subject})
        return True

    def _session(self) -> Session:
        """Return this browser's session, creating one if needed."""
        if "session" not in flask.g:
            cookie = flask.request.cookies.get(self._provider.cookie[0], "")
            flask.g.session = self._state.sessions.get(cookie) or self._state.open_session()
        session: Session = flask.g.session
        return session

    def _replace_session(self, signed_in: SignedIn | None) -> None:
        """End this browser's session, including copied cookies, and create a new one."""
        self._state.sessions.pop(self._session().cookie, None)
        flask.g.session = self._state.open_session(signed_in, fresh_for=flask.request.query_string)

    def _set_cookie(self, response: Response) -> Response:
        session: Session | None = flask.g.get("session")
        name, path = self._provider.cookie
        if session is not None and flask.request.cookies.get(name) != session.cookie:
            response.set_cookie(name, session.cookie, path=path, httponly=True, samesite="Lax")
        return response

    def _is_own_form(self) -> bool:
        """Whether the submitted form was created for this browser."""
        given = flask.request.form.get("form_token", "").encode("utf-8", "replace")
        return hmac.compare_digest(given, self._session().form_token.encode())

    def _send_back(self, redirect_uri: str, **answer: str) -> Response:
        """Redirect to the application; errors also contain the issuer (RFC 9207 section 2)."""
        return _redirect(redirect_uri, **answer, state=flask.request.args.get("state"), iss=self._provider.issuer)

    def _read_hint(self, token: str | None) -> tuple[str | None, str | None]:
        """Return the subject and application from an ID token; its times are ignored (section 2)."""
        claims = self._provider.read_own_token(token) if token else {}
        subject, audience = claims.get("sub"), claims.get("aud")
        # Access tokens are signed with the same key, but their audience is never an application.
        return (str(subject), str(audience)) if audience in self._provider.clients else (None, None)

    def _page(self, template: str, *, status: int = 200, **values: object) -> Response:
        """Return a page; every template has the browser's form token and the signed-in user."""
        session = self._session()
        person = session.signed_in.person if session.signed_in else None
        text = flask.render_template(template, form_token=session.form_token, signed_in=person, **values)
        return flask.Response(text, status=status, mimetype="text/html")

    def _sign_in_page(self, client: Client, *, wrong: bool = False) -> Response:
        status = 403 if wrong else 200
        return self._page("sign_in.html", status=status, people=PEOPLE.values(), application=client.name, wrong=wrong)

    def _code_page(self, user_code: str, *, wrong: bool = False) -> Response:
        status = 400 if wrong else 200
        return self._page("device.html", status=status, user_code=user_code, wrong=wrong)

    def _foreign_form_page(self) -> Response:
        log.warning("form refused")
        return self._error_page(
            "This form is no longer valid",
            "It was created for a different browser, or for a session that has ended.",
            "Go back to the application and start the sign-in again.",
        )

    def _done_page(self, title: str, what: str) -> Response:
        return self._page("message.html", title=title, what=what, remedy="You can close this page.", is_error=False)

    def _error_page(self, title: str, what: str, remedy: str) -> Response:
        """Return a page with the error and the remedy, without links."""
        return self._page("message.html", status=400, title=title, what=what, remedy=remedy, is_error=True)


def normalize_user_code(typed: str) -> str:
    """Return a typed code in canonical form: uppercase letters with a hyphen in the middle."""
    letters = "".join(character for character in typed.upper() if character.isalnum())
    return f"{letters[:4]}-{letters[4:]}"


def _redirect(target: str, **parameters: str | None) -> Response:
    """Redirect the browser with all nonempty parameters; RFC 9700 section 4.12 requires 303."""
    given = urlencode({name: value for name, value in parameters.items() if value})
    separator = "&" if "?" in target else "?"
    return flask.Response(status=303, headers={"Location": f"{target}{separator}{given}" if given else target})
