"""One application's dealings with one identity provider: its documents, its token endpoint, its keys.

What requests and answers look like is `oidc`'s; when to renew and what to keep is `session_keeper`'s.
"""

import threading
from collections.abc import Mapping
from datetime import datetime

from micromegas_jupyter.contracts import Secret
from micromegas_jupyter.errors import ProviderMisbehaved, ProviderUnavailable, Unavailable
from micromegas_jupyter.http import HttpAnswer, ProviderCalls, ProviderHttp
from micromegas_jupyter.oidc.authorization import AuthorizationRequest
from micromegas_jupyter.oidc.client_authentication import build_client_authentication, choose_authentication_method
from micromegas_jupyter.oidc.discovery import ProviderMetadata, build_metadata_url, parse_metadata
from micromegas_jupyter.oidc.id_token import IdTokenClaims, verify_id_token
from micromegas_jupyter.oidc.keys import KeySet, parse_key_set
from micromegas_jupyter.oidc.signature import UnknownKey
from micromegas_jupyter.oidc.token import (
    TokenSet,
    build_client_credentials_request,
    build_code_request,
    build_refresh_request,
    build_revocation_request,
    build_token_error,
    parse_token_answer,
)
from micromegas_jupyter.seams import Clock
from micromegas_jupyter.settings import check_issuer_url

DOCUMENT_AGE_SECONDS = 3600.0
KEY_REFETCH_SECONDS = 10.0


class ProviderConnection:
    """Calls one provider as one application; fetches its documents when first needed and keeps them for an hour.

    Safe to use from several threads: its lock covers the kept documents and is free during calls.

    Args:
        issuer: The provider.
        client_id: The application.
        client_secret: Its secret; None for a public client.
        http: Makes the calls; an own `ProviderHttp` when None.
        clock: Tells the time.

    Raises:
        ConfigurationError: The issuer is not an https URL, or http on loopback.
    """

    def __init__(
        self,
        issuer: str,
        client_id: str,
        client_secret: Secret | None,
        *,
        http: ProviderCalls | None,
        clock: Clock,
    ) -> None:
        check_issuer_url(issuer, key="issuer")
        self.issuer = issuer
        self.client_id = client_id
        self._client_secret = client_secret
        self._http: ProviderCalls = ProviderHttp() if http is None else http
        self._clock = clock
        self._lock = threading.Lock()
        self._metadata: tuple[ProviderMetadata, float] | None = None
        self._keys: tuple[KeySet, float] | None = None
        self._refetched_at: float | None = None

    def metadata(self) -> ProviderMetadata:
        """Return the provider's discovery document, kept beyond its age while the provider is down.

        Raises:
            ProviderUnavailable: The provider does not answer and nothing is kept.
            ProviderMisbehaved: The document is not acceptable.
        """
        with self._lock:
            kept = self._metadata
        if kept is not None and self._clock.monotonic() - kept[1] < DOCUMENT_AGE_SECONDS:
            return kept[0]
        try:
            answer = self._http.fetch_json(build_metadata_url(self.issuer))
        except Unavailable:
            if kept is None:
                raise
            return kept[0]
        metadata = parse_metadata(self._document(answer), issuer=self.issuer)
        with self._lock:
            self._metadata = (metadata, self._clock.monotonic())
        return metadata

    def keys(self) -> KeySet:
        """Return the provider's keys.

        Raises:
            ProviderUnavailable: The provider does not answer and no keys are kept.
            ProviderMisbehaved: The document is not a key set.
        """
        with self._lock:
            kept = self._keys
        if kept is not None and self._clock.monotonic() - kept[1] < DOCUMENT_AGE_SECONDS:
            return kept[0]
        try:
            return self._fetch_keys()
        except Unavailable:
            if kept is None:
                raise
            return kept[0]

    def exchange_code(self, request: AuthorizationRequest, code: Secret) -> TokenSet:
        """Exchange a code for tokens, whose ID token was checked.

        Raises:
            LoginFailed: The provider refuses the code.
            ProviderMisbehaved: The answer breaks the protocol, or its ID token is missing or not acceptable.
            ProviderUnavailable: The provider does not answer.
        """
        tokens = self._redeem(build_code_request(request, code), asked_scope=request.scope, is_refresh=False)
        if self.verify(tokens, nonce=request.nonce) is None:
            raise ProviderMisbehaved("The identity provider gave no ID token.")
        return tokens

    def refresh(self, refresh_token: Secret, *, granted_scope: str | None) -> TokenSet:
        """Spend a refresh token for new tokens; the ID token among them is not checked yet.

        Raises:
            LoginRequired: The provider says that the sign-in has ended.
            ProviderMisbehaved: The answer breaks the protocol.
            ProviderUnavailable: The provider does not answer.
        """
        fields = build_refresh_request(refresh_token, granted_scope=granted_scope)
        return self._redeem(fields, asked_scope=granted_scope, is_refresh=True)

    def client_credentials(self, *, scope: str | None, audience: str | None) -> TokenSet:
        """Get a token for the application itself; raises as `exchange_code` does."""
        fields = build_client_credentials_request(scope=scope, audience=audience)
        return self._redeem(fields, asked_scope=scope, is_refresh=False)

    def verify(self, tokens: TokenSet, *, nonce: Secret | None) -> IdTokenClaims | None:
        """Check the set's ID token, fetching keys again once when its key is not known.

        Returns:
            Its claims; None when the set has no ID token.

        Raises:
            ProviderMisbehaved: The ID token is not acceptable.
            ProviderUnavailable: Keys are needed and the provider does not answer.
        """
        if tokens.id_token is None:
            return None
        now = self._clock.now()
        try:
            return self._verified(tokens, self.keys(), now=now, nonce=nonce)
        except UnknownKey:
            newest = self._keys_after_rotation()
        try:
            return self._verified(tokens, newest, now=now, nonce=nonce)
        except UnknownKey:
            raise ProviderMisbehaved("The identity provider signed with a key that it does not publish.") from None

    def revoke(self, token: Secret, *, kind: str) -> str | None:
        """Ask the provider to end a token.

        Returns:
            None when it did, else its error code (`unsupported_token_type` among them).

        Raises:
            ProviderUnavailable: The provider does not answer.
            ProviderMisbehaved: It cannot revoke, or answers with something else.
        """
        endpoint = self.metadata().revocation_endpoint
        if endpoint is None:
            raise ProviderMisbehaved("The identity provider has no way to revoke tokens.", remedy="")
        answer = self._post(endpoint, build_revocation_request(token, kind=kind), needs_body=False)
        if answer.is_success:
            return None
        code = answer.body.get("error") if isinstance(answer.body, dict) else None
        return code if isinstance(code, str) else "an unnamed error"

    def _redeem(self, fields: Mapping[str, str | Secret], *, asked_scope: str | None, is_refresh: bool) -> TokenSet:
        answer = self._post(self.metadata().require_token_endpoint(), fields)
        if not answer.is_success:
            secrets = [value for value in fields.values() if isinstance(value, Secret)]
            raise build_token_error(answer.body, is_refresh=is_refresh, secrets=secrets)
        return parse_token_answer(answer.body, now=self._clock.now(), asked_scope=asked_scope)

    def _post(self, url: str, fields: Mapping[str, str | Secret], *, needs_body: bool = True) -> HttpAnswer:
        method = choose_authentication_method(
            self.metadata().token_endpoint_auth_methods, has_secret=self._client_secret is not None
        )
        proof = build_client_authentication(method, client_id=self.client_id, client_secret=self._client_secret)
        return self._http.post_form(url, {**fields, **proof.fields}, headers=proof.headers, needs_body=needs_body)

    def _verified(self, tokens: TokenSet, keys: KeySet, *, now: datetime, nonce: Secret | None) -> IdTokenClaims:
        if tokens.id_token is None:
            raise ProviderMisbehaved("The identity provider gave no ID token.")
        return verify_id_token(
            tokens.id_token,
            keys,
            issuer=self.issuer,
            client_id=self.client_id,
            now=now,
            nonce=nonce,
            access_token=tokens.access_token,
        )

    def _keys_after_rotation(self) -> KeySet:
        # An unknown key id has the keys fetched again, but not more often than this, failures included.
        now = self._clock.monotonic()
        with self._lock:
            is_due = self._refetched_at is None or now - self._refetched_at >= KEY_REFETCH_SECONDS
            if is_due:
                self._refetched_at = now
        return self._fetch_keys() if is_due else self.keys()

    def _fetch_keys(self) -> KeySet:
        keys = parse_key_set(self._document(self._http.fetch_json(self.metadata().jwks_uri)))
        with self._lock:
            self._keys = (keys, self._clock.monotonic())
        return keys

    def _document(self, answer: HttpAnswer) -> object:
        if answer.is_success:
            return answer.body
        raise ProviderUnavailable(
            f"The identity provider {self.issuer} answered with status {answer.status}.",
            remedy="Check the issuer setting.",
        )
