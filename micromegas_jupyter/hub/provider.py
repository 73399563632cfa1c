"""The service's calls to the identity provider: discovery, and the exchange of a person's token.

They block, so they run on a bounded number of threads.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeVar
from weakref import WeakValueDictionary

from cachetools import LRUCache, TTLCache

from micromegas_jupyter.auth.provider_connection import ProviderDocuments
from micromegas_jupyter.config.client import Bearer
from micromegas_jupyter.core.http import HttpAnswer, ProviderCalls, ProviderHttp
from micromegas_jupyter.core.system import SYSTEM_RANDOMNESS, Clock
from micromegas_jupyter.errors import MicromegasError
from micromegas_jupyter.hub.refresh import StoredBearer
from micromegas_jupyter.hub.refusals import Refused, refuse
from micromegas_jupyter.oidc.authorization import (
    ACCESS_TOKEN_TYPE,
    ID_TOKEN_TYPE,
    build_client_authentication,
    build_token_error,
    build_token_exchange_request,
    parse_token_exchange_answer,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from micromegas_jupyter.hub.settings import ExchangeSettings, ServiceSettings
    from micromegas_jupyter.oidc.discovery import ProviderMetadata

MAX_THREADS: Final = 8
MAX_CACHED: Final = 10_000
MARGIN_SECONDS: Final = 30.0
FAILURE_PAUSE_SECONDS: Final = 5.0
"""The pause after a failed exchange of a person, so that no failure becomes many requests."""

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
        self._cached: LRUCache[str, StoredBearer] = LRUCache(MAX_CACHED)
        self._failures: TTLCache[str, Refused] = TTLCache(MAX_CACHED, FAILURE_PAUSE_SECONDS, timer=clock.monotonic)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def authorization_endpoint(self) -> str | None:
        """Return the address of the sign-in page; None when the provider has none."""
        try:
            metadata = await self._on_thread(self._documents.metadata)
        except MicromegasError:
            raise refuse("provider_unavailable") from None
        return metadata.authorization_endpoint

    async def exchange(self, owner: str, stored: StoredBearer) -> StoredBearer:
        """Exchange a person's token (RFC 8693), once for each expiry; without a setting, return it unchanged.

        Raises `Refused` when the provider gives none.
        """
        setting = self._settings.exchange
        if setting is None:
            return stored
        lock = self._locks.setdefault(owner, asyncio.Lock())
        async with lock:
            cached = self._cached.get(owner)
            # A name at the Hub may be given to another person.
            if cached is not None and cached.subject != stored.subject:
                cached = None
            if cached is not None and self._has_time_left(cached):
                return cached
            try:
                fresh = await self._exchange_unless_paused(owner, setting, stored)
            except Refused as refused:
                # A token that has not expired is used on during an outage.
                if cached is None or refused.retry_after_seconds is None or cached.expires_at <= self._clock.now():
                    raise
                return cached
            self._cached[owner] = fresh
            return fresh

    async def _exchange_unless_paused(
        self, owner: str, setting: ExchangeSettings, stored: StoredBearer
    ) -> StoredBearer:
        with suppress(KeyError):  # `get` would look twice, and it may expire in between
            raise self._failures[owner].with_traceback(None)
        try:
            return await self._on_thread(lambda: self._exchange(setting, stored))
        except Refused as error:
            _LOG.warning("The token of %s could not be exchanged: %s", owner, error.message)
            self._failures[owner] = error
            raise

    def close(self) -> None:
        """Stop waiting for calls."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _has_time_left(self, stored: StoredBearer) -> bool:
        left = stored.expires_at.timestamp() - self._clock.now().timestamp()
        lifetime = stored.lifetime_seconds
        return left > (MARGIN_SECONDS if lifetime is None else min(MARGIN_SECONDS, lifetime * _SHARE_OF_LIFETIME))

    def _exchange(self, setting: ExchangeSettings, stored: StoredBearer) -> StoredBearer:
        try:
            metadata = self._documents.metadata()
            answer = self._post(metadata, setting, stored)
        except MicromegasError:
            raise refuse("provider_unavailable") from None
        if not answer.is_success:
            secrets = [secret for secret in (stored.token, self._settings.client_secret) if secret is not None]
            error = build_token_error(answer.body, is_refresh=False, secrets=secrets)
            raise refuse("provider_unavailable") if error.retryable else refuse("exchange_refused", what=error.what)
        now = self._clock.now()
        try:
            issued = parse_token_exchange_answer(answer.body, now=now, requested_scope=setting.scope)
        except MicromegasError as error:
            raise refuse("exchange_refused", what=error.what) from None
        expires_at = issued.expires_at or stored.expires_at
        return StoredBearer(
            token=issued.access_token,
            expires_at=expires_at,
            subject=stored.subject,
            lifetime_seconds=(expires_at - now).total_seconds(),
        )

    def _post(self, metadata: ProviderMetadata, setting: ExchangeSettings, stored: StoredBearer) -> HttpAnswer:
        secret = self._settings.client_secret
        endpoint = metadata.require_token_endpoint()
        proof = build_client_authentication(
            metadata.token_endpoint_auth_methods,
            client_id=self._settings.client_id,
            proof=secret,
            assertion_audience=endpoint,
            now=self._clock.now(),
            randomness=SYSTEM_RANDOMNESS,
        )
        fields = build_token_exchange_request(
            stored.token,
            audience=setting.audience,
            resource=setting.resource,
            scope=setting.scope,
            subject_token_type=_SUBJECT_TOKEN_TYPES[self._settings.bearer],
        )
        return self._http.post_form(endpoint, {**fields, **proof.fields}, headers=proof.headers)

    async def _on_thread(self, call: Callable[[], Answer]) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)
