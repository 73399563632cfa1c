"""One provider's discovery document and keys: fetched when first needed, kept for an hour.

What the documents say is `oidc`'s to read; what is done with them is `provider_connection`'s.
"""

import threading

from micromegas_jupyter.core.http import HttpAnswer, ProviderCalls
from micromegas_jupyter.core.system import Clock
from micromegas_jupyter.errors import ProviderUnavailable, Unavailable
from micromegas_jupyter.oidc.discovery import ProviderMetadata, build_metadata_url, parse_metadata
from micromegas_jupyter.oidc.keys import KeySet, parse_key_set

DOCUMENT_AGE_SECONDS = 3600.0
KEY_REFETCH_SECONDS = 10.0


class ProviderDocuments:
    """Safe to use from several threads: its lock covers the kept documents and is free during calls.

    Args:
        issuer: The provider.
        http: Makes the calls.
        clock: Tells the monotonic time.
    """

    def __init__(self, issuer: str, *, http: ProviderCalls, clock: Clock) -> None:
        self._issuer = issuer
        self._http = http
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
            answer = self._http.fetch_json(build_metadata_url(self._issuer))
        except Unavailable:
            if kept is None:
                raise
            return kept[0]
        metadata = parse_metadata(self._document(answer), issuer=self._issuer)
        with self._lock:
            self._metadata = (metadata, self._clock.monotonic())
        return metadata

    def keys(self) -> KeySet:
        """Return the provider's keys, kept beyond their age while the provider is down.

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

    def keys_after_rotation(self) -> KeySet:
        """Return the keys for a token whose key is not among the kept ones; raises as `keys` does.

        They are fetched again, but not more often than every `KEY_REFETCH_SECONDS`, failures included.
        """
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
            f"The identity provider {self._issuer} answered with status {answer.status}.",
            remedy="Check the issuer setting.",
        )
