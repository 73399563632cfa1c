"""The JupyterHub flows: the user's bearer token from the Hub, and the Hub's shared redirect for all users.

The Hub signs users in, stores their refresh tokens, and refreshes. This program keeps only the bearer token, in
memory. During a redirect sign-in, the verifier, state, nonce, and tokens stay in this program, and the Hub's service
checks that the browser belongs to the user. docs/jupyterhub.md documents the service's responses.
"""

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol, TypeVar

from micromegas_jupyter.auth.flows.base import HUB_TOKEN_VARIABLE, HUB_VARIABLE, LoginFlow, LoginRequest, is_below_hub
from micromegas_jupyter.auth.flows.jupyter import REDIRECT_TIMEOUT_SECONDS, is_callback_address, is_web_address
from micromegas_jupyter.auth.tokens.source import CachedTokenSource, Identity, ServiceToken, identity_of_bearer
from micromegas_jupyter.config.client import Flow
from micromegas_jupyter.core.http import HUB_SERVICE, HUB_UNAVAILABLE_REMEDY, HubHttp
from micromegas_jupyter.core.protocols import AuthProvider
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Clock, Secret, SecretObject
from micromegas_jupyter.core.text import (
    MAX_URL_CHARACTERS,
    host_text,
    is_loopback_url,
    scheme_and_host,
    split_plain_url,
)
from micromegas_jupyter.errors import (
    ConfigurationError,
    LoginFailed,
    LoginRequired,
    MicromegasError,
    ProviderMisbehaved,
    ProviderUnavailable,
)
from micromegas_jupyter.oidc.authorization import TokenSet, usable_token

HUB = "JupyterHub"
MAX_TOKEN_CHARACTERS = 4096
MAX_TEXT_CHARACTERS = 2048
MAX_LIFE_SECONDS = 7 * 24 * 3600
# The service waits 25 seconds for the browser before it responds that there is no callback yet.
CALLBACK_TIMEOUT_SECONDS = 40.0
PAUSE_SECONDS = 0.5
UNKNOWN_SIGN_IN = "unknown_sign_in"
# Codes from other versions of the service.
NOT_UNDERSTOOD = frozenset({"invalid_request", "invalid_sign_in"})

_ADMIN = "Ask the Hub's administrator to correct it (docs/jupyterhub.md, kernel_url)."
_OTHERWISE = "Until then, use %micromegas_login (`micromegas login` in a terminal) to sign in another way."
_OK, _CREATED, _NO_CONTENT, _NOT_FOUND, _TOO_MANY_REQUESTS = 200, 201, 204, 404, 429
_CLIENT_ERRORS = range(400, 500)
_SERVER_ERRORS = range(500, 600)

_Error = TypeVar("_Error", bound=MicromegasError)


def _from_hub(error: _Error) -> _Error:
    error.sign_in_service = HUB
    return error


class Refusal(NamedTuple):
    """The error for a service's error code: the user must act (`LoginRequired`) or wait."""

    error_class: type[LoginRequired] | type[ProviderUnavailable] | type[ProviderMisbehaved]
    what: str
    remedy: str

    def error(self) -> MicromegasError:
        """Return the error."""
        return _from_hub(self.error_class(self.what, remedy=self.remedy))


REFUSALS: dict[str, Refusal] = {
    "invalid_token": Refusal(
        LoginRequired,
        "JupyterHub no longer accepts this server's token.",
        "Stop your server in the Hub's control panel and start it again.",
    ),
    "not_a_user": Refusal(
        LoginRequired,
        "JupyterHub only signs in users, and this program's token doesn't belong to a user.",
        "Run it in your own server, or give it its own credentials (docs/service-accounts.md).",
    ),
    "not_their_server": Refusal(
        LoginRequired,
        "JupyterHub only signs in programs that run in a user's own server.",
        "Run it in a notebook or terminal in your own server.",
    ),
    "dangerous_role": Refusal(
        LoginRequired,
        "JupyterHub doesn't sign users in while a role lets servers read the stored sign-ins.",
        f"Ask the Hub's administrator to remove the admin:auth_state scope from users and servers. {_OTHERWISE}",
    ),
    "no_auth_state": Refusal(
        LoginRequired,
        "JupyterHub hasn't stored a sign-in for you that it can pass on.",
        "Log out of the Hub and in again. If that does not help, ask its administrator for an OAuthenticator "
        f"authenticator with enable_auth_state (docs/jupyterhub.md). {_OTHERWISE}",
    ),
    "sign_in_again": Refusal(
        LoginRequired, "Your sign-in to JupyterHub has expired.", "Log out of the Hub and in again, then continue here."
    ),
    "not_renewed": Refusal(
        LoginRequired,
        "The identity provider renews your JupyterHub sign-in without the token that the Hub passes on, and "
        "the last one has expired.",
        "Log out of the Hub and in again. The Hub's administrator can pass on the other kind of token (bearer, "
        f"docs/jupyterhub.md). {_OTHERWISE}",
    ),
    "exchange_refused": Refusal(
        LoginRequired,
        "The identity provider does not let JupyterHub exchange your token for one that the server accepts.",
        f"Ask the Hub's administrator to enable token exchange for the Hub's application. {_OTHERWISE}",
    ),
    "no_redirect": Refusal(
        LoginRequired,
        "JupyterHub doesn't have a redirect URI for notebooks.",
        "Sign in with --flow device. The Hub's administrator can add redirect_client_id and public_url "
        "(docs/jupyterhub.md).",
    ),
    "slow_down": Refusal(ProviderUnavailable, f"{HUB_SERVICE} received too many requests.", "Try again in a minute."),
    "hub_unavailable": Refusal(ProviderUnavailable, f"{HUB_SERVICE} cannot reach the Hub.", HUB_UNAVAILABLE_REMEDY),
    "provider_unavailable": Refusal(
        ProviderUnavailable,
        "JupyterHub cannot reach the identity provider.",
        "Your sign-in is not at fault. Try again in a moment.",
    ),
}
NO_SERVICE = Refusal(
    LoginRequired,
    "JupyterHub doesn't have a sign-in service at the address configured for this server.",
    f"Ask the Hub's administrator to add the service `micromegas` (docs/jupyterhub.md). {_OTHERWISE}",
)
_UNREADABLE = Refusal(
    ProviderMisbehaved,
    f"{HUB_SERVICE} returned an unusable response.",
    "Contact the Hub's administrator; the service and the notebook may have incompatible versions.",
)


def refusal_of(status: int, body: SecretObject | None) -> Refusal:
    """Return the error that a failed response represents. The service's own messages are not shown."""
    code = None if body is None else body.get("error")
    if isinstance(code, str) and code in REFUSALS:
        return REFUSALS[code]
    if status == _NOT_FOUND and body is None:
        return NO_SERVICE
    if code in NOT_UNDERSTOOD:
        return _UNREADABLE
    if status in _SERVER_ERRORS or status == _TOO_MANY_REQUESTS:
        return Refusal(ProviderUnavailable, f"{HUB_SERVICE} returned status {status}.", HUB_UNAVAILABLE_REMEDY)
    if status in _CLIENT_ERRORS:
        return Refusal(
            LoginRequired,
            f"{HUB_SERVICE} refused this server (status {status}).",
            f"Ask the Hub's administrator to look at the service's log. {_OTHERWISE}",
        )
    return _UNREADABLE


@dataclass(frozen=True, slots=True, kw_only=True)
class HubEndpoint:
    """The service's URL, with a trailing slash, and this server's Hub token."""

    url: str
    token: Secret = field(repr=False)


def find_hub(environ: Mapping[str, str]) -> HubEndpoint | None:
    """Return the service's endpoint, or None outside a Hub that has the service."""
    if not is_below_hub(environ):
        return None
    url, token = environ[HUB_VARIABLE], Secret(environ[HUB_TOKEN_VARIABLE])
    check_hub_url(url, hub_api_url=environ.get("JUPYTERHUB_API_URL", ""))
    text = token.reveal()
    if len(text) > MAX_TOKEN_CHARACTERS or not text.isascii() or not text.isprintable() or " " in text:
        raise ConfigurationError(
            "The Hub rejected this server's token.",
            key=HUB_TOKEN_VARIABLE,
            remedy="Stop your server in the Hub's control panel and start it again.",
        )
    return HubEndpoint(url=url, token=token)


def check_hub_url(url: str, *, hub_api_url: str) -> None:
    """Check that this server's token may be sent to `url`: over https, or over http to this machine or the Hub."""
    parts = split_plain_url(url, max_characters=MAX_URL_CHARACTERS)
    if parts is None or not url.endswith("/") or set(url) & set("@?#"):
        raise ConfigurationError(f"{HUB_VARIABLE} is not a valid service URL.", key=HUB_VARIABLE, remedy=_ADMIN)
    is_own_host = parts.hostname == scheme_and_host(hub_api_url)[1]
    if parts.scheme == "https" or (parts.scheme == "http" and (is_loopback_url(url) or is_own_host)):
        return
    raise ConfigurationError(
        f"{HUB_VARIABLE} uses plain http to {parts.hostname}, which is not the Hub's own host, so this server's token "
        "is not sent there.",
        key=HUB_VARIABLE,
        remedy=_ADMIN,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class HubToken:
    """A bearer token of the server's owner, its remaining lifetime, its issuer, and the owner's Hub user name."""

    text: Secret
    expires_in_seconds: int
    issuer: str
    user: str


class HubRedirect(NamedTuple):
    """The Hub's shared redirect: its redirect URI, provider, and application."""

    redirect_uri: str
    issuer: str
    client_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HubSignIn:
    """A sign-in on the service: its name, the page that the user opens, and how long the service waits."""

    name: str = field(repr=False)
    start_url: str = field(repr=False)
    expires_in_seconds: int


class HubService:
    """Calls the service; safe to use from several threads. Its methods raise `LoginRequired` or `Unavailable`."""

    def __init__(self, endpoint: HubEndpoint, *, http: HubHttp) -> None:
        self._endpoint = endpoint
        self._http = http

    def token(self) -> HubToken:
        """Fetch a bearer token."""
        body = self._call("token", {})
        seconds = _seconds(body, "expires_in", minimum=0)
        if seconds == 0:
            raise REFUSALS["provider_unavailable"].error()  # otherwise the Hub would have refreshed it
        return HubToken(
            text=_secret(body, "access_token"),
            expires_in_seconds=seconds,
            issuer=_text(body, "issuer"),
            user=_text(body, "user"),
        )

    def redirect(self) -> HubRedirect:
        """Fetch the parameters of the Hub's redirect."""
        body = self._call("redirect", None)
        return HubRedirect(
            redirect_uri=_text(body, "redirect_uri"), issuer=_text(body, "issuer"), client_id=_text(body, "client_id")
        )

    def begin(self, authorization_url: str) -> HubSignIn:
        """Have the service redirect the user's browser to `authorization_url`."""
        body = self._call("sign-ins", {"authorization_url": authorization_url}, expected=_CREATED)
        name = _text(body, "name")
        if not name.isascii() or not all(character.isalnum() or character in "-_." for character in name):
            raise _UNREADABLE.error()  # the name becomes part of a URL
        return HubSignIn(name=name, start_url=_text(body, "start_url"), expires_in_seconds=_seconds(body, "expires_in"))

    def callback(self, name: str, *, timeout_seconds: float) -> Secret | None:
        """Wait briefly for the query that the browser returned with; return None if it hasn't returned yet."""
        body = self._call(f"sign-ins/{name}/answer", {}, timeout_seconds=timeout_seconds)
        return None if body is None else _secret(body, "query")

    def close(self) -> None:
        """Abort any waiting call, and reject further calls."""
        self._http.close()

    def _call(
        self, path: str, body: Mapping[str, object] | None, *, expected: int = _OK, timeout_seconds: float | None = None
    ) -> SecretObject | None:
        """Return the response body, or None if the service has no result yet."""
        url = f"{self._endpoint.url}{path}"
        try:
            status, answer = self._http.call(
                url, token=self._endpoint.token, body=body, timeout_seconds=timeout_seconds
            )
        except MicromegasError as error:
            _from_hub(error)
            raise
        if status == _NO_CONTENT or (status == expected and answer is not None):
            return answer
        if answer is not None and answer.get("error") == UNKNOWN_SIGN_IN:
            raise LoginFailed("This sign-in no longer exists on JupyterHub.")
        raise refusal_of(status, answer).error()

    def __repr__(self) -> str:
        return f"HubService(url={self._endpoint.url!r})"


def _secret(body: SecretObject | None, name: str) -> Secret:
    value = usable_token(None if body is None else body.get(name))
    if value is None or not value.reveal() or " " in value.reveal():
        raise _UNREADABLE.error()
    return value


def _text(body: SecretObject | None, name: str) -> str:
    value = None if body is None else body.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT_CHARACTERS or not value.isprintable():
        raise _UNREADABLE.error()
    return value


def _seconds(body: SecretObject | None, name: str, *, minimum: int = 1) -> int:
    value = None if body is None else body.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not minimum <= value <= MAX_LIFE_SECONDS:
        raise _UNREADABLE.error()
    return value


class HubRedirectFlow(LoginFlow):
    """A code grant whose redirect the Hub's service receives. The flow owns the service client."""

    def __init__(self, request: LoginRequest, service: HubService) -> None:
        connection = request.connection
        metadata = connection.metadata()
        offered = service.redirect()
        if (offered.issuer, offered.client_id) != (connection.issuer, connection.client_id):
            raise _from_hub(
                LoginFailed(
                    f"The Hub's redirect is for the application {offered.client_id} at {host_text(offered.issuer)}, "
                    f"but the settings specify {connection.client_id} at {host_text(connection.issuer)}.",
                    remedy="Correct MICROMEGAS_OIDC_ISSUER and MICROMEGAS_OIDC_CLIENT_ID, or remove them.",
                )
            )
        if not is_callback_address(offered.redirect_uri):
            raise _UNREADABLE.error()
        self._grant = request.build_grant(metadata, offered.redirect_uri)
        sign_in = service.begin(self._grant.request.url)
        if not is_web_address(sign_in.start_url):
            raise _UNREADABLE.error()
        maximum = min(REDIRECT_TIMEOUT_SECONDS, float(sign_in.expires_in_seconds))
        timeout_seconds = request.wait_seconds(REDIRECT_TIMEOUT_SECONDS, maximum=maximum)
        super().__init__(request.build_prompt(Flow.REDIRECT, timeout_seconds, start_url=sign_in.start_url))
        self._service = service
        self._name = Secret(sign_in.name)
        self._clock = connection.clock
        self._stopped = threading.Event()

    def tokens(self) -> TokenSet | None:
        """Wait for the callback and exchange its code."""
        deadline = self._clock.monotonic() + self.prompt.timeout_seconds
        while not self._stopped.is_set() and self._clock.monotonic() < deadline:
            try:
                query = self._service.callback(self._name.reveal(), timeout_seconds=CALLBACK_TIMEOUT_SECONDS)
            except ProviderUnavailable:
                query = None  # the service may be restarting
            if query is not None:
                return self._grant.redeem(self._grant.code_in(query))
            self._stopped.wait(PAUSE_SECONDS)
        return None

    def stop(self) -> None:
        """Stop waiting."""
        self._stopped.set()
        self._service.close()

    def close(self, *, linger_seconds: float = 0.0) -> None:  # noqa: ARG002 - the last page is the Hub's
        """Close the service client."""
        self._service.close()


class StoredSignIn(AuthProvider, Protocol):
    """The part of the user's own sign-in (`OidcAuthProvider`) that `HubTokenProvider` uses."""

    def identity(self) -> Identity: ...  # noqa: D102
    def renew(self) -> None: ...  # noqa: D102
    def renewal_due_at(self) -> datetime | None: ...  # noqa: D102
    def invalidate(self, token: str) -> None: ...  # noqa: D102


class HubTokenProvider(CachedTokenSource):
    """Returns the user's token from the Hub. Safe to use from several threads: one fetches for all.

    Tokens from a provider other than `issuer` are not used. `stored` returns the user's own sign-in with the same
    settings. It is used if the Hub denies a token, but not if the Hub is unreachable.
    """

    def __init__(
        self,
        service: HubService,
        *,
        issuer: str | None = None,
        stored: Callable[[], StoredSignIn | None] = lambda: None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        super().__init__(clock)
        self._service = service
        self._issuer = issuer
        self._stored = stored
        self._newest: HubToken | None = None
        self._ends_at = self._clock.now()
        self._substitute: StoredSignIn | None = None

    @property
    def through(self) -> str:
        """The sign-in's source: `JupyterHub`, or empty while the user's own sign-in is used instead."""
        return HUB if self._substitute is None else ""

    def get_token(self) -> str:
        """Return a currently valid token."""
        substitute = self._substitute
        if substitute is not None:
            try:
                return substitute.get_token()
            except LoginRequired:
                self._substitute = None  # it has expired, so try the Hub again
        try:
            return super().get_token()
        except LoginRequired:
            with suppress(MicromegasError):  # the Hub's error takes precedence
                substitute = self._stored()
                if substitute is not None:
                    token = substitute.get_token()
                    self._substitute = substitute
                    return token
            raise

    def identity(self) -> Identity:
        """Return the signed-in user according to the newest token, without network I/O."""
        newest = self._newest
        if self._substitute is None and newest is not None:
            return identity_of_bearer(newest.text, user=newest.user, issuer=newest.issuer, expires_at=self._ends_at)
        stored = self._substitute or self._stored()  # it is used when the Hub rejects the token
        if stored is None:
            raise LoginRequired("No user has signed in through JupyterHub yet.")
        return stored.identity()

    def renew(self) -> None:
        """Fetch the token again. The Hub returns the same one while enough of its lifetime is left."""
        if self._substitute is not None:
            self._substitute.renew()
        else:
            super().renew()

    def invalidate(self, token: str) -> None:
        """Discard `token`, because the server rejected it."""
        if self._substitute is not None:
            self._substitute.invalidate(token)
        else:
            super().invalidate(token)

    def renewal_due_at(self) -> datetime | None:
        """Return the time after which `get_token` fetches the token again (aware UTC, local clock)."""
        substitute = self._substitute
        return super().renewal_due_at() if substitute is None else substitute.renewal_due_at()

    def _fetch(self) -> ServiceToken:
        began_at = self._clock.now()  # the remaining lifetime was measured before the response arrived
        found = self._service.token()
        if self._issuer is not None and found.issuer != self._issuer:
            raise _from_hub(
                LoginRequired(
                    f"JupyterHub signs you in with {host_text(found.issuer)}, but the settings specify {self._issuer} "
                    "as the provider.",
                    remedy="Sign in with that provider using %micromegas_login (`micromegas login` in a terminal). If "
                    "the server accepts tokens from the Hub's provider, correct or remove MICROMEGAS_OIDC_ISSUER.",
                )
            )
        ends_at = began_at + timedelta(seconds=found.expires_in_seconds)
        self._newest, self._ends_at = found, ends_at
        return ServiceToken(text=found.text, obtained_at=began_at, expires_at=ends_at)

    def __repr__(self) -> str:
        return f"HubTokenProvider(service={self._service!r})"
