"""One issuer's keys: fetched when needed, shared by all callers, kept for a while when the provider is down.

Reading the documents is `oidc`'s job, the call itself `http`'s; which key verifies a token is not decided here.
"""

import logging
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol

from micromegas_jupyter.access.audit import record_event
from micromegas_jupyter.errors import MicromegasError, ProviderUnavailable, Unavailable
from micromegas_jupyter.oidc.discovery import build_metadata_url, parse_metadata
from micromegas_jupyter.oidc.keys import KeySet, parse_key_set
from micromegas_jupyter.seams import Clock

# By the number of failures in a row: how long to leave a provider alone that did not answer.
_RETRY_SECONDS = (0.0, 1.0, 2.0, 5.0, 10.0)
# A fetch is two calls, each with `http`'s total deadline of ten seconds; nobody waits longer for somebody else's.
_JOIN_SECONDS = 30.0


class ProviderAnswer(Protocol):
    """A provider's answer."""

    @property
    def status(self) -> int:
        """The HTTP status: 2xx, or 4xx with an error in JSON."""
        ...

    @property
    def body(self) -> object:
        """The decoded JSON document."""
        ...


class ProviderDocuments(Protocol):
    """The way to a provider's documents."""

    def fetch_json(self, url: str) -> ProviderAnswer:
        """Fetch one document within a total deadline and a size cap, following no redirect.

        Raises:
            Unavailable: No proper answer in time.
            ProviderMisbehaved: The answer breaks the protocol.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPolicy:
    """How long keys are believed.

    Attributes:
        refresh_interval_seconds: A set younger than this is used without asking.
        stale_limit_seconds: An older set is used up to this age, but only while the provider does not answer.
        cool_down_seconds: An unknown key name causes one fetch, and the next not before this time has passed.
    """

    refresh_interval_seconds: float = 3600.0
    stale_limit_seconds: float = 24 * 3600.0
    cool_down_seconds: float = 30.0


class KeySource:
    """One issuer's keys for any number of threads.

    One lock guards the state and is free during I/O; whoever needs keys while a fetch is under way waits for
    that fetch. Nothing is fetched before the first call.
    """

    def __init__(self, issuer: str, *, http: ProviderDocuments, clock: Clock, policy: KeyPolicy) -> None:
        self._issuer = issuer
        self._http = http
        self._clock = clock
        self._policy = policy
        self._lock = threading.Lock()
        self._keys: KeySet | None = None
        self._fetched_at = 0.0
        self._jwks_uri: str | None = None
        self._failures = 0
        self._retry_at = 0.0
        self._next_forced_at = 0.0
        self._flight: Future[KeySet | None] | None = None

    def current(self) -> KeySet:
        """Return keys that are fresh, or the last good ones while the provider does not answer.

        Raises:
            Unavailable: There are none, and none can be had now.
        """
        with self._lock:
            now = self._clock.monotonic()
            age = now - self._fetched_at
            usable = self._keys if age < self._policy.stale_limit_seconds else None
            if usable is not None and age < self._policy.refresh_interval_seconds:
                return usable
            # In an outage one caller at a time tries again; the others do not wait for what will probably fail.
            is_left_alone = self._flight is None and now < self._retry_at
            is_tried_by_another = self._flight is not None and self._failures > 0
            if usable is not None and (is_left_alone or is_tried_by_another):
                return usable
            if is_left_alone:
                raise self._unavailable()
            flight, is_mine = self._board(rediscover=True)
        fetched = self._land(flight, is_mine=is_mine)
        if fetched is not None:
            return fetched
        if usable is not None:
            return usable
        raise self._unavailable()

    def newer_than(self, seen: KeySet) -> KeySet:
        """Return a set fetched after `seen`, or `seen` itself when it is too early to ask again.

        Raises:
            Unavailable: The provider does not answer, so whether it has newer keys is not known.
        """
        with self._lock:
            if self._keys is not None and self._keys is not seen:
                return self._keys
            now = self._clock.monotonic()
            if self._flight is None and now < self._next_forced_at:
                if self._failures:
                    raise self._unavailable()
                return seen
            flight, is_mine = self._board(rediscover=False)
            if is_mine:
                self._next_forced_at = now + self._policy.cool_down_seconds
        fetched = self._land(flight, is_mine=is_mine)
        if fetched is None:
            raise self._unavailable()
        return fetched

    def _board(self, *, rediscover: bool) -> tuple[Future[KeySet | None], bool]:
        """Return the fetch under way, or a new one and True; called with the lock held."""
        if self._flight is not None:
            return self._flight, False
        if rediscover:
            self._jwks_uri = None
        self._flight = Future()
        return self._flight, True

    def _land(self, flight: Future[KeySet | None], *, is_mine: bool) -> KeySet | None:
        if is_mine:
            self._fly(flight)
        try:
            return flight.result(timeout=_JOIN_SECONDS)
        except TimeoutError:
            return None

    def _fly(self, flight: Future[KeySet | None]) -> None:
        started_at = self._clock.monotonic()
        fetched: KeySet | None = None
        try:
            fetched = self._fetch()
        except MicromegasError as error:
            self._record_failure(error.code)
        except Exception as error:  # noqa: BLE001 - whatever fails between here and the provider, the keys are not had
            self._record_failure(type(error).__name__)
        finally:
            self._arrive(fetched, started_at)
            flight.set_result(fetched)

    def _fetch(self) -> KeySet:
        # Only the one fetch under way touches the address, so it needs no lock.
        if self._jwks_uri is None:
            document = self._fetch_document(build_metadata_url(self._issuer))
            self._jwks_uri = parse_metadata(document, issuer=self._issuer).jwks_uri
        return parse_key_set(self._fetch_document(self._jwks_uri))

    def _fetch_document(self, url: str) -> object:
        answer = self._http.fetch_json(url)
        if answer.status != HTTPStatus.OK:
            raise ProviderUnavailable(f"{self._issuer} answered with status {answer.status}.")
        return answer.body

    def _arrive(self, fetched: KeySet | None, started_at: float) -> None:
        with self._lock:
            previous, self._flight = self._keys, None
            if fetched is None:
                self._failures += 1
                pause_seconds = _RETRY_SECONDS[min(self._failures, len(_RETRY_SECONDS)) - 1]
                self._retry_at = self._clock.monotonic() + pause_seconds
                self._jwks_uri = None
                return
            self._keys, self._fetched_at, self._failures, self._retry_at = fetched, started_at, 0, 0.0
        if previous is None or _key_ids(previous) != _key_ids(fetched):
            record_event(
                logging.INFO,
                "An issuer's keys changed.",
                issuer=self._issuer,
                usable=len(fetched.keys),
                ignored=fetched.ignored_count,
            )

    def _record_failure(self, reason: str) -> None:
        record_event(logging.WARNING, "An issuer's keys could not be fetched.", issuer=self._issuer, reason=reason)

    def _unavailable(self) -> Unavailable:
        return Unavailable(f"The keys of {self._issuer} cannot be fetched at the moment.")


def _key_ids(keys: KeySet) -> list[str | None]:
    return [key.key_id for key in keys.keys]
