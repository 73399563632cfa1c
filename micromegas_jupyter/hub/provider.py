"""The identity provider as the service sees it: where its pages are, and the exchange of a person's token.

Both block, so they run on threads; the number of threads is bounded, and so is what is kept of exchanges.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeVar
from weakref import WeakValueDictionary

from cachetools import LRUCache, TTLCache

from micromegas_jupyter.auth.provider_documents import ProviderDocuments
from micromegas_jupyter.config.client import Bearer
from micromegas_jupyter.core.http import HttpAnswer, ProviderCalls, ProviderHttp
from micromegas_jupyter.core.system import SYSTEM_RANDOMNESS, Clock
from micromegas_jupyter.errors import MicromegasError
from micromegas_jupyter.hub.refreshing import HeldBearer
from micromegas_jupyter.hub.refusals import Refused, exchange_refused, provider_unavailable
from micromegas_jupyter.oidc.client_auth import build_client_authentication, choose_authentication_method
from micromegas_jupyter.oidc.tokens import (
    ACCESS_TOKEN_TYPE,
    ID_TOKEN_TYPE,
    build_token_error,
    build_token_exchange_request,
    parse_token_exchange_answer,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from micromegas_jupyter.hub.settings import ExchangeSetting, ServiceSettings
    from micromegas_jupyter.oidc.discovery import ProviderMetadata

MAX_THREADS: Final = 8
MAX_KEPT: Final = 10_000
MARGIN_SECONDS: Final = 30.0
FAILURE_PAUSE_SECONDS: Final = 5.0
"""How long an exchange that failed is not tried again for that person, so that no failure becomes many requests."""

_SHARE_OF_LIFETIME: Final = 0.5
_LOG: Final = logging.getLogger("micromegas_jupyter.hub")
_SUBJECT_TOKEN_TYPES: Final = {Bearer.ID_TOKEN: ID_TOKEN_TYPE, Bearer.ACCESS_TOKEN: ACCESS_TOKEN_TYPE}

Answer = TypeVar("Answer")


class HubProvider:
    """The provider, for one event loop."""

    def __init__(self, settings: ServiceSettings, *, clock: Clock, http: ProviderCalls | None = None) -> None:
        self._settings = settings
        self._clock = clock
        self._http = http or ProviderHttp()
        self._documents = ProviderDocuments(settings.issuer, http=self._http, clock=clock)
        self._threads = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="provider")
        self._kept: LRUCache[str, HeldBearer] = LRUCache(MAX_KEPT)
        self._failures: TTLCache[str, Refused] = TTLCache(MAX_KEPT, FAILURE_PAUSE_SECONDS, timer=clock.monotonic)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def authorization_endpoint(self) -> str | None:
        """Return where people sign in; None when the provider has no such page."""
        try:
            metadata = await self._on_thread(self._documents.metadata)
        except MicromegasError:
            raise provider_unavailable() from None
        return metadata.authorization_endpoint

    async def exchanged(self, owner: str, held: HeldBearer) -> HeldBearer:
        """Return the token that a person's token is exchanged for, one exchange for each expiry; as it is without one.

        Source: RFC 8693.

        Raises:
            Refused: The provider gives none, or does not answer properly.
        """
        setting = self._settings.exchange
        if setting is None:
            return held
        lock = self._locks.setdefault(owner, asyncio.Lock())
        async with lock:
            kept = self._kept.get(owner)
            # A name at the Hub may be given to another person.
            if kept is not None and kept.subject != held.subject:
                kept = None
            if kept is not None and self._has_time_left(kept):
                return kept
            try:
                fresh = await self._exchange_unless_failed(owner, setting, held)
            except Refused as refused:
                # One that has not ended serves on in an outage.
                if kept is None or refused.retry_after_seconds is None or kept.expires_at <= self._clock.now():
                    raise
                return kept
            self._kept[owner] = fresh
            return fresh

    async def _exchange_unless_failed(self, owner: str, setting: ExchangeSetting, held: HeldBearer) -> HeldBearer:
        with suppress(KeyError):  # `get` would look twice, and it may end in between
            raise self._failures[owner].with_traceback(None)
        try:
            return await self._on_thread(lambda: self._exchange(setting, held))
        except Refused as error:
            _LOG.warning("The token of %s could not be exchanged: %s", owner, error.message)
            self._failures[owner] = error
            raise

    def close(self) -> None:
        """Wait for no call any more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _has_time_left(self, held: HeldBearer) -> bool:
        left = held.expires_at.timestamp() - self._clock.now().timestamp()
        lifetime = held.lifetime_seconds
        return left > (MARGIN_SECONDS if lifetime is None else min(MARGIN_SECONDS, lifetime * _SHARE_OF_LIFETIME))

    def _exchange(self, setting: ExchangeSetting, held: HeldBearer) -> HeldBearer:
        try:
            metadata = self._documents.metadata()
            answer = self._post(metadata, setting, held)
        except MicromegasError:
            raise provider_unavailable() from None
        if not answer.is_success:
            secrets = [secret for secret in (held.token, self._settings.client_secret) if secret is not None]
            error = build_token_error(answer.body, is_refresh=False, secrets=secrets)
            raise provider_unavailable() if error.retryable else exchange_refused(error.what)
        now = self._clock.now()
        try:
            issued = parse_token_exchange_answer(answer.body, now=now, asked_scope=setting.scope)
        except MicromegasError as error:
            raise exchange_refused(error.what) from None
        expires_at = issued.expires_at or held.expires_at
        return HeldBearer(
            token=issued.access_token,
            expires_at=expires_at,
            subject=held.subject,
            lifetime_seconds=(expires_at - now).total_seconds(),
        )

    def _post(self, metadata: ProviderMetadata, setting: ExchangeSetting, held: HeldBearer) -> HttpAnswer:
        secret = self._settings.client_secret
        endpoint = metadata.require_token_endpoint()
        proof = build_client_authentication(
            choose_authentication_method(metadata.token_endpoint_auth_methods, proof=secret),
            client_id=self._settings.client_id,
            proof=secret,
            assertion_audience=endpoint,
            now=self._clock.now(),
            randomness=SYSTEM_RANDOMNESS,
        )
        fields = build_token_exchange_request(
            held.token,
            audience=setting.audience,
            resource=setting.resource,
            scope=setting.scope,
            subject_token_type=_SUBJECT_TOKEN_TYPES[self._settings.bearer],
        )
        return self._http.post_form(endpoint, {**fields, **proof.fields}, headers=proof.headers)

    async def _on_thread(self, call: Callable[[], Answer]) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)
