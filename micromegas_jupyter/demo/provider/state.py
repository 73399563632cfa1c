"""The provider's state, and the tokens that it issues. Requests are handled one at a time, so there are no locks."""

import base64
import hashlib
import hmac
import math
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

from cachetools import TTLCache
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey
from werkzeug.datastructures import MultiDict

from micromegas_jupyter.core.system import Clock, Secret
from micromegas_jupyter.core.text import MAX_URL_CHARACTERS, is_loopback_url, split_plain_url

PASSWORD = "demo"  # noqa: S105 - stated on the sign-in page: the demo protects nothing

# The path below a Jupyter server's base URL at which its proxy shows the pages.
PAGES = "micromegas-demo"

AUTHORIZATION_CODE = "authorization_code"
REFRESH_TOKEN = "refresh_token"  # noqa: S105 - the name of a grant, RFC 6749 section 6
CLIENT_CREDENTIALS = "client_credentials"
DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"

CODE_LIFETIME_SECONDS = 60
DEVICE_LIFETIME_SECONDS = 600
_REFRESH_LIFETIME_SECONDS = 24 * 3600
_SESSION_LIFETIME_SECONDS = 8 * 3600
_MAX_ENTRIES = 10_000
_MAX_URL_CLIENTS = 1_000

SCOPE_MEANINGS = {
    "openid": "Know that it is you",
    "profile": "See your name and your groups",
    "email": "See your e-mail address",
    "offline_access": "Keep you signed in, renewing automatically until you sign out",
}

# RFC 8252 section 7.3: any port, chosen by the application for each request; nothing else may vary except a Jupyter
# server's base URL, which the demo's user chose.
_LOOPBACK_CALLBACK = r"http://(127\.0\.0\.1|\[::1\]|localhost)(:[1-9]\d{0,4})?(?:(?:/[\w~-]+)*/micromegas)?/callback"
# The callback of OAuthenticator, for a Hub on this machine.
_HUB_CALLBACK = r"http://(127\.0\.0\.1|\[::1\]|localhost)(:[1-9]\d{0,4})?(?:/[\w~-]+)*/hub/oauth_callback"
# RFC 3986 section 3.2: a name or an IPv4 or bracketed IPv6 address, and a port, but no user.
_ORIGIN = r"https?://(?:[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?"


@dataclass(frozen=True, slots=True)
class Person:
    """A user who can sign in. The server's settings define administrators, not a claim from this provider."""

    key: str
    name: str
    groups: tuple[str, ...]

    @property
    def subject(self) -> str:
        """The `sub` claim, which is the same after every start."""
        return f"demo-{self.key}"

    @property
    def initials(self) -> str:
        """Two letters for the avatar on the page."""
        return "".join(part[0] for part in self.name.split())

    @property
    def email(self) -> str:
        """An email address that this provider vouches for."""
        return f"{self.key}@example.com"

    def build_claims(self, scope: str) -> dict[str, object]:
        """Return the claims for the scopes (OpenID Connect Core 1.0, 5.4); `groups` belongs to `profile`."""
        claims: dict[str, object] = {}
        if "profile" in scope.split():
            first, _, last = self.name.partition(" ")
            claims |= {"name": self.name, "given_name": first, "family_name": last}
            claims |= {"preferred_username": self.key, "groups": list(self.groups)}
        if "email" in scope.split():
            claims |= {"email": self.email, "email_verified": True}
        return claims


PEOPLE = {
    "alice": Person("alice", "Alice Martin", ("lake-admins", "analysts")),
    "bob": Person("bob", "Bob Singh", ("analysts",)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """A registered application; `redirect_uris` is a regular expression that matches a complete redirect URI.

    Its `name` is for display.
    """

    client_id: str
    grant_types: tuple[str, ...]
    secret: Secret | None = None
    redirect_uris: str | None = None
    name: str = "Micromegas notebooks"

    def is_redirect_uri(self, redirect_uri: str) -> bool:
        """Whether a response may be sent there."""
        return self.redirect_uris is not None and bool(re.fullmatch(self.redirect_uris, redirect_uri, re.ASCII))

    def is_secret(self, secret: str | None) -> bool:
        """Whether this is the client's secret, or None for a public client."""
        if self.secret is None or secret is None:
            return self.secret is None and secret is None
        return hmac.compare_digest(secret.encode("utf-8", "replace"), self.secret.reveal().encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedIn:
    """A user, and when they entered their password (aware UTC)."""

    person: Person
    authenticated_at: datetime


@dataclass(slots=True, kw_only=True)
class Session:
    """A browser's session; `fresh_for` is the query of the request for which the user just entered the password."""

    cookie: str = field(default_factory=secrets.token_urlsafe, repr=False)
    form_token: str = field(default_factory=secrets.token_urlsafe, repr=False)
    signed_in: SignedIn | None = None
    fresh_for: bytes | None = None


@dataclass(slots=True, kw_only=True)
class Grant:
    """A user's consent for an application; revoking it invalidates everything issued from it.

    Its access tokens are for `resource` (RFC 8707), by default the lake.
    """

    client: Client
    signed_in: SignedIn
    scope: str
    resource: str | None = None
    is_revoked: bool = False


@dataclass(slots=True, kw_only=True)
class AuthorizationCode:
    """A code, and the values to compare with the token request."""

    grant: Grant
    redirect_uri: str
    code_challenge: str
    nonce: str | None
    expires_at: datetime
    is_used: bool = False


@dataclass(slots=True, kw_only=True)
class RefreshToken:
    """A refresh token, remembered after its use so that a second use is detected."""

    grant: Grant
    is_used: bool = False


@dataclass(slots=True, kw_only=True)
class DeviceAuthorization:
    """A device that is waiting for a user (RFC 8628); `grant` is the decision, or None if denied or pending."""

    client: Client
    scope: str
    user_code: str
    expires_at: datetime
    interval_seconds: float
    resource: str | None = None
    last_polled_at: float | None = None
    is_decided: bool = False
    grant: Grant | None = None


class OAuthError(Exception):
    """A request that is rejected with an error code from RFC 6749 and related RFCs."""

    def __init__(self, code: str, description: str = "") -> None:
        super().__init__(code)
        self.code = code
        self.description = description


class ProviderState:
    """Everything that is remembered, keyed by its secret value and kept for a limited time."""

    def __init__(self, clock: Clock) -> None:
        timer = clock.monotonic
        # Codes are remembered longer than they are valid, so that a second use is detected, and expired codes are
        # distinguished from unknown ones.
        self.codes: TTLCache[str, AuthorizationCode] = TTLCache(_MAX_ENTRIES, 10 * CODE_LIFETIME_SECONDS, timer)
        self.devices: TTLCache[str, DeviceAuthorization] = TTLCache(_MAX_ENTRIES, 2 * DEVICE_LIFETIME_SECONDS, timer)
        self.refresh_tokens: TTLCache[str, RefreshToken] = TTLCache(_MAX_ENTRIES, _REFRESH_LIFETIME_SECONDS, timer)
        self.sessions: TTLCache[str, Session] = TTLCache(_MAX_ENTRIES, _SESSION_LIFETIME_SECONDS, timer)
        # Keyed by URL and kept as long as their refresh tokens, because the token endpoint doesn't fetch anything.
        self.url_clients: TTLCache[str, Client] = TTLCache(_MAX_URL_CLIENTS, _REFRESH_LIFETIME_SECONDS, timer)

    def open_session(self, signed_in: SignedIn | None = None, *, fresh_for: bytes | None = None) -> Session:
        """Return a new browser session."""
        session = Session(signed_in=signed_in, fresh_for=fresh_for)
        self.sessions[session.cookie] = session
        return session

    def find_waiting_device(self, user_code: str, *, now: datetime) -> DeviceAuthorization | None:
        """Return the device that is waiting for this code to be entered."""
        waiting = (device for device in self.devices.values() if not device.is_decided and now < device.expires_at)
        return next((device for device in waiting if device.user_code == user_code), None)


HOST = "127.0.0.1"
SIGNING_ALGORITHM = "RS256"

Json = dict[str, object]


class TokenIssuer:
    """Signs tokens for the applications; `port` is the provider's port once it is listening."""

    client_id = "micromegas-demo"
    service_client_id = "micromegas-demo-service"
    hub_client_id = "micromegas-demo-hub"
    lake_audience = "micromegas-demo-lake"

    def __init__(self, *, token_lifetime_seconds: int, jupyter_base_url: str | None, clock: Clock) -> None:
        self.service_secret = Secret(secrets.token_urlsafe())
        self.clock = clock
        self.token_lifetime_seconds = token_lifetime_seconds
        self.jupyter_base_url = jupyter_base_url
        self.state = ProviderState(clock)
        self.port = 0

    @property
    def issuer(self) -> str:
        """The issuer URL, which is known once the provider has started."""
        return f"http://{HOST}:{self.port}"

    @property
    def cookie(self) -> tuple[str, str]:
        """The name and path of the browser's cookie."""
        # A host's cookies are sent to all its ports, so the name contains the port. Behind Jupyter, other servers on
        # the same host, as on a Hub, do not receive them.
        path = "/" if self.jupyter_base_url is None else f"{self.jupyter_base_url}{PAGES}/"
        return f"micromegas_demo_{self.port}", path

    @cached_property
    def clients(self) -> dict[str, Client]:
        """The applications for users, the service account, and a Hub. A Jupyter server may have any host."""
        redirect_uris = _LOOPBACK_CALLBACK
        if self.jupyter_base_url is not None:
            redirect_uris += f"|{_ORIGIN}{re.escape(self.jupyter_base_url)}micromegas/callback"
        grants = (AUTHORIZATION_CODE, REFRESH_TOKEN, DEVICE_CODE)
        person = Client(client_id=self.client_id, grant_types=grants, redirect_uris=redirect_uris)
        service = Client(
            client_id=self.service_client_id, grant_types=(CLIENT_CREDENTIALS,), secret=self.service_secret
        )
        # A JupyterHub alongside the demo; its secret is public, like the users' passwords.
        hub = Client(
            client_id=self.hub_client_id,
            grant_types=(AUTHORIZATION_CODE, REFRESH_TOKEN),
            secret=Secret(PASSWORD),
            redirect_uris=_HUB_CALLBACK,
            name="JupyterHub",
        )
        return {client.client_id: client for client in (person, service, hub)}

    def find_client(self, client_id: str) -> Client | None:
        """Return the application with this ID: a registered one, or one fetched from its URL."""
        return self.clients.get(client_id) or self.state.url_clients.get(client_id)

    @cached_property
    def signing_key(self) -> RSAKey:
        """The signing key, which is new on each start."""
        return RSAKey.generate_key(2048, {"alg": SIGNING_ALGORITHM, "use": "sig"}, auto_kid=True)

    def public_keys(self) -> Json:
        """Return the JWK set with only public parts (RFC 7517 section 5)."""
        return {**KeySet([self.signing_key]).as_dict(private=False)}

    def check_request(self, parameters: MultiDict[str, str]) -> None:
        """Check that each parameter occurs once (RFC 6749 section 3.2) and the resource is valid (RFC 8707)."""
        for name, values in parameters.lists():
            if len(values) > 1 and name != "resource":
                raise OAuthError("invalid_request", "A parameter appears more than once.")
            if name == "audience" and values != [self.lake_audience]:
                raise OAuthError(
                    "invalid_target", "The lake is the only supported audience. Use resource to specify a URL."
                )
            if name == "resource" and len(set(values)) > 1:
                raise OAuthError("invalid_target", "A token can be issued for only one resource.")
            if name == "resource" and not (values[0] == self.lake_audience or _is_resource(values[0])):
                raise OAuthError("invalid_target", "The resource must be an https URL, or an http URL on this machine.")

    def select_scope(self, client: Client, scope: str | None) -> str:
        """Return the requested scopes that a client may have, and drop the others."""
        known = SCOPE_MEANINGS if client.redirect_uris is not None else ()
        return " ".join(name for name in dict.fromkeys((scope or "").split()) if name in known)

    def read_own_token(self, token: str) -> Mapping[str, object]:
        """Return the claims of a token that was signed here, ignoring its times (raises `JoseError`, `ValueError`)."""
        return jwt.decode(token, self.signing_key, algorithms=[SIGNING_ALGORITHM]).claims

    def sign(self, token_type: str, claims: Json) -> str:
        """Return a token with these claims, issued now."""
        now = self.clock.now().timestamp()
        header = {"alg": SIGNING_ALGORITHM, "kid": self.signing_key.kid, "typ": token_type}
        # Not before `expires_in` has passed.
        issued = {"iss": self.issuer, "iat": int(now), "exp": math.ceil(now) + self.token_lifetime_seconds, **claims}
        return jwt.encode(header, issued, self.signing_key, algorithms=[SIGNING_ALGORITHM])

    def issue_access_token(
        self, client: Client, grant: Grant | None, scope: str, *, resource: str | None = None
    ) -> Json:
        """Return the token response with an access token (RFC 9068 section 2.2); a service account has no grant."""
        scopes = {"scope": scope} if scope else {}
        audience = resource or self.lake_audience
        claims: Json = {"aud": audience, "client_id": client.client_id, "jti": secrets.token_urlsafe()}
        claims |= {"sub": client.client_id} if grant is None else _describe_person(grant, scope)
        access_token = self.sign("at+jwt", claims | scopes)
        lifetime = {"expires_in": self.token_lifetime_seconds}
        return {"token_type": "Bearer", "access_token": access_token, **lifetime, **scopes}

    def issue_tokens(self, grant: Grant, *, scope: str, nonce: str | None = None) -> Json:
        """Return the token response for a grant; a refresh has no nonce (OpenID Connect Core 1.0 section 12.2)."""
        response = self.issue_access_token(grant.client, grant, scope, resource=grant.resource)
        if "openid" in scope.split():
            # OpenID Connect Core 1.0 sections 2 and 3.1.3.6.
            digest = hashlib.sha256(str(response["access_token"]).encode()).digest()[:16]
            claims: Json = {"aud": grant.client.client_id, "amr": ["pwd"], "at_hash": encode_base64url(digest)}
            claims |= _describe_person(grant, scope) | ({} if nonce is None else {"nonce": nonce})
            response["id_token"] = self.sign("JWT", claims)
        if "offline_access" in grant.scope.split():
            response["refresh_token"] = refresh_token = secrets.token_urlsafe()
            self.state.refresh_tokens[refresh_token] = RefreshToken(grant=grant)
        return response


def _is_resource(url: str) -> bool:
    """Whether tokens are issued for this URL. Servers accept only tokens for their own URL."""
    parts = split_plain_url(url, max_characters=MAX_URL_CHARACTERS)
    is_protected = parts is not None and (parts.scheme == "https" or (parts.scheme == "http" and is_loopback_url(url)))
    return is_protected and "@" not in url and "#" not in url


def _describe_person(grant: Grant, scope: str) -> Json:
    person, authenticated_at = grant.signed_in.person, grant.signed_in.authenticated_at
    return {"sub": person.subject, "auth_time": int(authenticated_at.timestamp()), **person.build_claims(scope)}


def encode_base64url(data: bytes) -> str:
    """Return unpadded base64url."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
