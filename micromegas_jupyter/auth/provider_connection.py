"""An application's calls to an identity provider: its documents, its token endpoint, and their responses."""

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from micromegas_jupyter.config.client import AssertionAudience, ClientSettings
from micromegas_jupyter.core.files import read_secret_file, read_secret_line
from micromegas_jupyter.core.http import HttpAnswer, ProviderCalls, ProviderHttp
from micromegas_jupyter.core.system import SYSTEM_CLOCK, SYSTEM_RANDOMNESS, Clock, Randomness, Secret, secret_object
from micromegas_jupyter.core.text import as_issuer
from micromegas_jupyter.errors import ProviderMisbehaved, ProviderUnavailable, Unavailable, UsageError
from micromegas_jupyter.oidc.authorization import (
    AuthorizationRequest,
    ClientCredential,
    ProviderMetadata,
    TokenSet,
    build_client_authentication,
    build_client_credentials_request,
    build_code_request,
    build_metadata_url,
    build_refresh_request,
    build_revocation_request,
    build_token_error,
    describe_provider_error,
    parse_metadata,
    parse_token_answer,
)
from micromegas_jupyter.oidc.device import (
    DeviceAuthorization,
    DevicePending,
    build_device_request,
    build_device_token_request,
    parse_device_answer,
    parse_device_token_error,
)
from micromegas_jupyter.oidc.jwt import IdTokenClaims, KeySet, UnknownKey, parse_key_set, verify_id_token
from micromegas_jupyter.oidc.private_key import PrivateKey, parse_private_key

DOCUMENT_AGE_SECONDS = 3600.0
KEY_REFETCH_SECONDS = 10.0
# Clocks that differ by at most two seconds count as equal. The rest covers the header's one-second resolution.
_TOLERANCE = timedelta(seconds=2.5)
# A larger offset is ignored. The header is trusted because of TLS, and TLS itself needs a correct clock: a machine
# whose clock is days off accepts expired certificates. Token checks then fail, and the user is told to set the clock.
MAX_OFFSET_SECONDS = 24 * 3600.0

_Document = TypeVar("_Document")


class ProviderConnection:
    """Calls one provider as one application; safe to use from several threads.

    The discovery document and keys are cached for an hour, or longer while the provider is down. Calls raise
    `ProviderUnavailable` if the provider does not respond, `ProviderMisbehaved` if its response breaks the protocol or
    an ID token is missing or invalid, and `LoginFailed` if it rejects the request.
    """

    def __init__(  # noqa: PLR0913 - its parts
        self,
        issuer: str,
        client_id: str,
        client_credential: ClientCredential,
        *,
        http: ProviderCalls | None = None,
        clock: Clock = SYSTEM_CLOCK,
        randomness: Randomness = SYSTEM_RANDOMNESS,
    ) -> None:
        as_issuer(issuer, "issuer")
        self.issuer = issuer
        self.client_id = client_id
        self._credential = client_credential
        self.clock = clock
        self.randomness = randomness
        self._http = ProviderHttp() if http is None else http
        self._was_post = False
        # The measured offset, even if it is more than a day; None before the first response.
        self.measured_clock_offset_seconds: float | None = None
        self._lock = threading.Lock()
        self._metadata: tuple[ProviderMetadata, float] | None = None
        self._keys: tuple[KeySet, float] | None = None
        self._refetched_at: float | None = None

    @property
    def clock_offset_seconds(self) -> float:
        """Return how many seconds the provider's clock is ahead; 0 if unknown, small, or over a day."""
        measured = self.measured_clock_offset_seconds or 0.0
        return measured if abs(measured) <= MAX_OFFSET_SECONDS else 0.0

    def now(self) -> datetime:
        """Return the provider's estimated time, which token times are compared with."""
        return self.clock.now() + timedelta(seconds=self.clock_offset_seconds)

    def metadata(self) -> ProviderMetadata:
        """Return the provider's discovery document."""
        return self._cached_or_fetched(self._metadata, self._fetch_metadata)

    def keys(self) -> KeySet:
        """Return the provider's keys."""
        return self._cached_or_fetched(self._keys, self._fetch_keys)

    def keys_after_rotation(self) -> KeySet:
        """Fetch the keys again and return them, but at most once per `KEY_REFETCH_SECONDS`, counting failures."""
        now = self.clock.monotonic()
        with self._lock:
            is_due = self._refetched_at is None or now - self._refetched_at >= KEY_REFETCH_SECONDS
            if is_due:
                self._refetched_at = now
        return self._fetch_keys() if is_due else self.keys()

    def exchange_code(self, request: AuthorizationRequest, code: Secret, *, needs_id_token: bool = True) -> TokenSet:
        """Exchange a code for tokens and verify the ID token, which may be missing unless `needs_id_token` is set."""
        tokens = self._redeem(build_code_request(request, code), requested_scope=request.scope, is_refresh=False)
        return self._checked(tokens, nonce=request.nonce, needs_id_token=needs_id_token)

    def start_device(self, *, scope: str, audience: str | None, resource: str | None) -> DeviceAuthorization:
        """Start a sign-in for which the user enters a short code on any device."""
        endpoint = self.metadata().device_authorization_endpoint
        if endpoint is None:
            raise ProviderMisbehaved(
                f"The identity provider {self.issuer} does not support device sign-in.",
                remedy="Sign in with a browser, or paste the browser's final URL.",
            )
        fields = build_device_request(client_id=self.client_id, scope=scope, audience=audience, resource=resource)
        answer, secrets = self._post(endpoint, fields)
        if not answer.is_success:
            raise build_token_error(answer.body, is_refresh=False, secrets=secrets)
        return parse_device_answer(answer.body, issuer=self.issuer, now=self.clock.now(), resource=resource)

    def poll_device(
        self, authorization: DeviceAuthorization, *, scope: str, needs_id_token: bool = True
    ) -> TokenSet | DevicePending:
        """Poll once to check whether the user has signed in.

        Raises `LoginRefused`, or `LoginTimedOut` if the code has expired.
        """
        fields = build_device_token_request(authorization)
        answer, secrets = self._post(self.metadata().require_token_endpoint(), fields)
        if answer.is_success:
            tokens = parse_token_answer(answer.body, now=self.now(), requested_scope=scope)
            # The device flow does not support a nonce: RFC 8628 section 3.1.
            return self._checked(tokens, nonce=None, needs_id_token=needs_id_token)
        meaning = parse_device_token_error(answer.body)
        if isinstance(meaning, DevicePending):
            return meaning
        raise meaning or build_token_error(answer.body, is_refresh=False, secrets=secrets)

    def refresh(self, refresh_token: Secret, *, granted_scope: str | None, resource: str | None = None) -> TokenSet:
        """Exchange a refresh token for new tokens; their ID token is not yet verified.

        Raises `LoginRequired` if the provider responds that the sign-in has ended.
        """
        fields = build_refresh_request(refresh_token, granted_scope=granted_scope, resource=resource)
        return self._redeem(fields, requested_scope=granted_scope, is_refresh=True)

    def client_credentials(self, *, scope: str | None, audience: str | None, resource: str | None = None) -> TokenSet:
        """Get a token for the application itself; raises the errors of `exchange_code`."""
        fields = build_client_credentials_request(scope=scope, audience=audience, resource=resource)
        return self._redeem(fields, requested_scope=scope, is_refresh=False)

    def request_token_answer(
        self, fields: Mapping[str, str | Secret], *, requested_scope: str | None
    ) -> dict[str, object]:
        """Request a token with any other grant; return the response, including its scope (RFC 6749 section 5.1)."""
        body = secret_object(self._token_answer(fields, is_refresh=False))
        if body is None:
            raise ProviderMisbehaved("The identity provider's token response is not a JSON object.")
        if requested_scope is not None:
            body.setdefault("scope", requested_scope)
        return body

    def verify(self, tokens: TokenSet, *, nonce: Secret | None) -> IdTokenClaims | None:
        """Verify the ID token and return its claims, or None if there is no ID token; refetches the keys once."""
        if tokens.id_token is None:
            return None
        for keys in (self.keys, self.keys_after_rotation):
            with suppress(UnknownKey):
                return verify_id_token(
                    tokens.id_token,
                    keys(),
                    issuer=self.issuer,
                    client_id=self.client_id,
                    now=self.now(),
                    nonce=nonce,
                    access_token=tokens.access_token,
                )
        raise ProviderMisbehaved("The identity provider signed the token with an unpublished key.")

    def revoke(self, token: Secret, *, kind: str) -> str | None:
        """Revoke a token; return None, or the provider's error code, such as `unsupported_token_type`."""
        endpoint = self.metadata().revocation_endpoint
        if endpoint is None:
            raise ProviderMisbehaved("The identity provider does not support token revocation.", remedy="")
        answer, secrets = self._post(endpoint, build_revocation_request(token, kind=kind), needs_body=False)
        if answer.is_success:
            return None
        code = answer.body.get("error") if isinstance(answer.body, dict) else None
        return describe_provider_error(code, None, secrets=secrets) if isinstance(code, str) else "an unnamed error"

    def _cached_or_fetched(self, cached: tuple[_Document, float] | None, fetch: Callable[[], _Document]) -> _Document:
        if cached is not None and self.clock.monotonic() - cached[1] < DOCUMENT_AGE_SECONDS:
            return cached[0]
        try:
            return fetch()
        except Unavailable:
            if cached is None:
                raise
            return cached[0]

    def _fetch_metadata(self) -> ProviderMetadata:
        metadata = parse_metadata(self._fetch(build_metadata_url(self.issuer)), issuer=self.issuer)
        self._metadata = (metadata, self.clock.monotonic())
        return metadata

    def _fetch_keys(self) -> KeySet:
        keys = parse_key_set(self._fetch(self.metadata().jwks_uri))
        self._keys = (keys, self.clock.monotonic())
        return keys

    def _fetch(self, url: str) -> object:
        answer = self._timed(lambda: self._http.fetch_json(url), is_post=False)
        if answer.is_success:
            return answer.body
        raise ProviderUnavailable(
            f"The identity provider {self.issuer} returned status {answer.status}.",
            remedy="Check the issuer setting.",
        )

    def _redeem(self, fields: Mapping[str, str | Secret], *, requested_scope: str | None, is_refresh: bool) -> TokenSet:
        sent_at = self.clock.now()  # counting the lifetime from the response's arrival would set its end too late
        # The response isn't a local variable, because a verbose traceback would show it.
        return parse_token_answer(
            self._token_answer(fields, is_refresh=is_refresh),
            now=sent_at + timedelta(seconds=self.clock_offset_seconds),  # the offset may have changed with the response
            requested_scope=requested_scope,
        )

    def _token_answer(self, fields: Mapping[str, str | Secret], *, is_refresh: bool) -> object:
        answer, secrets = self._post(self.metadata().require_token_endpoint(), fields)
        if not answer.is_success:
            raise build_token_error(answer.body, is_refresh=is_refresh, secrets=secrets)
        return answer.body

    def _post(
        self, url: str, fields: Mapping[str, str | Secret], *, needs_body: bool = True
    ) -> tuple[HttpAnswer, list[Secret]]:
        """Post a form as this application; return the response, and the secrets to redact when quoting it."""
        metadata = self.metadata()
        authentication = build_client_authentication(
            metadata.token_endpoint_auth_methods,
            client_id=self.client_id,
            client_credential=self._credential,
            assertion_audience=self._assertion_audience(url, metadata.token_endpoint or url),
            now=self.now(),
            randomness=self.randomness,
        )
        sent, headers = {**fields, **authentication.fields}, authentication.headers
        answer = self._timed(
            lambda: self._http.post_form(url, sent, headers=headers, needs_body=needs_body), is_post=True
        )
        secrets = [value for value in (*sent.values(), *headers.values()) if isinstance(value, Secret)]
        credentials = [
            Secret(value.reveal().partition(" ")[2]) for value in headers.values() if isinstance(value, Secret)
        ]
        return answer, [*secrets, *credentials, *([self._credential] if isinstance(self._credential, Secret) else [])]

    def _timed(self, call: Callable[[], HttpAnswer], *, is_post: bool) -> HttpAnswer:
        """Make a call, and measure the provider's clock offset from the response's `Date`.

        The date is used only if it is outside the duration of the call. After the first POST, document responses are
        ignored, because caches may have stored them. Only the provider with the trusted keys is measured, so only a
        party that can forge tokens anyway could shift the time.
        """
        started_at = self.clock.now()
        answer = call()
        if answer.date is not None and answer.is_success and (is_post or not self._was_post):
            first, last = sorted((started_at, self.clock.now()))  # the local clock may have been set back
            date = answer.date + timedelta(seconds=0.5)  # the header has one-second resolution
            is_within = first - _TOLERANCE <= date <= last + _TOLERANCE
            offset = 0.0 if is_within else (date - first - (last - first) / 2).total_seconds()
            self.measured_clock_offset_seconds, self._was_post = offset, is_post
        return answer

    def _assertion_audience(self, url: str, token_endpoint: str) -> str:
        if (
            isinstance(self._credential, PrivateKey)
            and self._credential.audience is not AssertionAudience.TOKEN_ENDPOINT
        ):
            return self.issuer if self._credential.audience is AssertionAudience.ISSUER else url
        # A provider could list another provider's token endpoint alongside its own endpoint for a different purpose. It
        # would then receive an assertion that the other provider accepts (CVE-2025-27370). So assertions for a
        # different host use that URL as the audience.
        return token_endpoint if urlsplit(url)[:2] == urlsplit(token_endpoint)[:2] else url

    def _checked(self, tokens: TokenSet, *, nonce: Secret | None, needs_id_token: bool) -> TokenSet:
        if self.verify(tokens, nonce=nonce) is None and needs_id_token:
            raise ProviderMisbehaved("The identity provider didn't return an ID token.")
        return tokens


def client_credential(client_secret: str | Secret | None, private_key: PrivateKey | None) -> ClientCredential:
    """Return the application's credential, or None for an empty secret."""
    secret = hidden_secret(client_secret)
    has_secret = secret is not None and secret.reveal() != ""
    if has_secret and private_key is not None:
        raise UsageError(
            "An application authenticates with a client secret or a private key, not both.", remedy="Give one."
        )
    return secret if has_secret else private_key


def hidden_secret(client_secret: str | Secret | None) -> Secret | None:
    """Wrap a secret so that tracebacks don't show it."""
    return Secret(client_secret) if isinstance(client_secret, str) else client_secret


def configured_connection(settings: ClientSettings, issuer: str, client_id: str) -> ProviderConnection:
    """Return the connection for the configured application, with its configured credential."""
    return ProviderConnection(issuer, client_id, configured_credential(settings), http=provider_http(settings))


def provider_http(settings: ClientSettings) -> ProviderHttp:
    """Return the HTTP client for the identity provider; raises `ConfigurationError` for unusable certificates."""
    return ProviderHttp(
        timeout_seconds=settings.provider_timeout_seconds,
        extra_ca_bundle=ca_bundle_file(settings),
        proxy=settings.proxy,
    )


def ca_bundle_file(settings: ClientSettings) -> Path | None:
    """Return the file of additional trusted CAs with `~` expanded, or None if not set."""
    if settings.ca_bundle is None:
        return None
    written = Path(settings.ca_bundle)
    try:
        return written.expanduser()
    except RuntimeError:  # the home directory doesn't exist; the code that reads the file reports it
        return written


def configured_credential(settings: ClientSettings) -> ClientCredential:
    """Return the application's configured credential, or None for a public client."""
    if settings.client_secret is not None:
        return settings.client_secret
    if settings.client_secret_file is not None:
        name = settings.origin_of("client_secret_file") or "client_secret_file"
        return read_secret_line(settings.client_secret_file, setting=name)
    if settings.private_key is not None:
        name = settings.origin_of("private_key") or "private_key"
        return parse_private_key(
            read_secret_file(settings.private_key.file, setting=name),
            key_id=settings.private_key.key_id,
            algorithm=settings.private_key.algorithm,
            source_name=name,
            audience=settings.private_key.audience,
        )
    return None
