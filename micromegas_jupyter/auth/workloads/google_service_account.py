"""`GoogleServiceAccountProvider`: a program that signs in at Google with a service account's key file.

Google has no client credentials grant: the program signs an assertion with its key and exchanges it for an ID token
for one audience, or for an access token, which only Google's own APIs can read.
"""

from dataclasses import dataclass, field
from datetime import timedelta

from micromegas_jupyter.auth.tokens.service import (
    ServiceToken,
    ServiceTokenProvider,
    checked_token,
    clock_offset,
    jwt_service_token,
    opaque_service_token,
)
from micromegas_jupyter.config.decoding import as_fetch_url
from micromegas_jupyter.core.http import HttpAnswer, ProviderCalls
from micromegas_jupyter.core.json import JsonError, decode_strict_json
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Clock, Secret, SecretObject, secret_object
from micromegas_jupyter.errors import ConfigurationError, LoginFailed
from micromegas_jupyter.oidc.authorization import (
    build_assertion,
    build_jwt_bearer_request,
    build_token_error,
    parse_token_answer,
)
from micromegas_jupyter.oidc.private_key import PrivateKey, parse_private_key

# Google accepts an hour at most; the exchange takes seconds.
ASSERTION_LIFETIME_SECONDS = 600
# A refused assertion is made again when its times were further off than this.
_MAX_TOLERATED_OFFSET = timedelta(seconds=10)
_SOURCE = "Google"
_MISSING_REMEDY = "Set MICROMEGAS_OIDC_AUDIENCE, or both MICROMEGAS_OIDC_BEARER=access_token and MICROMEGAS_OIDC_SCOPE."
_REFUSED_REMEDY = (
    "Check that the service account and this key still exist (IAM & Admin, Service Accounts, Keys), and the clock of "
    "this machine."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceAccountKey:
    """What a service account's key file holds: who signs, with what, and where assertions are exchanged."""

    email: str
    private_key: PrivateKey = field(repr=False)
    token_uri: str

    def __reduce__(self) -> str:
        raise TypeError("a private key cannot be pickled")


def parse_service_account_key(text: Secret, *, source_name: str) -> ServiceAccountKey:
    """Read a key file as Google's console makes it; `source_name` is the setting that names it, for errors."""
    members = _decoded(text)
    if not members:
        raise _unusable(source_name, "is not a JSON object")
    if members.get("type") != "service_account":
        raise _unusable(source_name, 'is not a service account\'s key ("type": "service_account")')
    for name in ("client_email", "token_uri", "private_key_id", "private_key"):
        if not isinstance(members.get(name), str) or not members[name]:
            raise _unusable(source_name, f"has no {name}")
    token_uri = str(members["token_uri"])
    as_fetch_url(token_uri, source_name)
    private_key = parse_private_key(
        Secret(str(members["private_key"])),
        key_id=str(members["private_key_id"]),
        algorithm="RS256",
        source_name=source_name,
    )
    return ServiceAccountKey(email=str(members["client_email"]), private_key=private_key, token_uri=token_uri)


class GoogleServiceAccountProvider(ServiceTokenProvider):
    """Gives ID tokens of a service account for `audience`, or else access tokens with `scope`."""

    def __init__(
        self,
        key: ServiceAccountKey,
        *,
        audience: str | None = None,
        scope: str | None = None,
        http: ProviderCalls,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        super().__init__(clock)
        if bool(audience) == bool(scope):
            raise ConfigurationError(
                "A Google service account needs an audience for ID tokens, or else a scope for access tokens.",
                key="MICROMEGAS_OIDC_AUDIENCE",
                remedy=_MISSING_REMEDY,
            )
        self.audience = audience or None
        self.scope = scope or None
        self._key = key
        self._http = http
        self._offset = timedelta()

    def _fetch(self) -> ServiceToken:
        used_offset = self._offset
        answer = self._request()
        if not answer.is_success and abs(self._offset - used_offset) > _MAX_TOLERATED_OFFSET:
            answer = self._request()  # this machine's clock is wrong, and by now it is known by how much
        if not answer.is_success:
            error = build_token_error(answer.body, is_refresh=False)
            raise LoginFailed(error.what, remedy=_REFUSED_REMEDY) if type(error) is LoginFailed else error
        now = self._clock.now()
        if self.audience is None:
            tokens = parse_token_answer(answer.body, now=now, requested_scope=self.scope)
            return opaque_service_token(tokens.access_token, now=now, expires_at=tokens.expires_at)
        id_token = checked_token(answer.body.get("id_token") if isinstance(answer.body, dict) else None, source=_SOURCE)
        return jwt_service_token(id_token, audience=self.audience, now=now, source=_SOURCE, date=answer.date)

    def _request(self) -> HttpAnswer:
        # No `sub`: at Google that is a person to act for. Source: Google, "Using OAuth 2.0 for Server to Server
        # Applications", and its client libraries for `target_audience`.
        claims = {"iss": self._key.email, "aud": self._key.token_uri}
        if self.audience is not None:
            claims["target_audience"] = self.audience
        if self.scope is not None:
            claims["scope"] = self.scope
        assertion = build_assertion(
            self._key.private_key,
            claims,
            now=self._clock.now() + self._offset,
            lifetime_seconds=ASSERTION_LIFETIME_SECONDS,
        )
        answer = self._http.post_form(self._key.token_uri, build_jwt_bearer_request(assertion))
        self._offset = clock_offset(answer.date, self._clock.now())
        return answer

    def __repr__(self) -> str:
        return f"GoogleServiceAccountProvider(email={self._key.email!r}, private_key=***)"


def _decoded(text: Secret) -> SecretObject | None:
    try:
        return secret_object(decode_strict_json(text.reveal()))
    except JsonError:
        return None


def _unusable(source_name: str, what: str) -> ConfigurationError:
    return ConfigurationError(
        f"The file that {source_name} names {what}.",
        key=source_name,
        remedy="Give the JSON key file of a Google service account; files of other kinds of accounts do not work.",
    )
