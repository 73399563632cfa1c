"""An issuer's public keys, fetched once for all waiting threads and kept for a limited time during an outage.

A fetch runs on its own thread. `KeyCache` never waits for it: callers get `KeysPending` with a future, wait for it in
their own way, and retry.
"""

import enum
import logging
import os
import re
import stat
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from http import HTTPStatus
from operator import attrgetter
from pathlib import Path
from typing import TypeAlias
from urllib.parse import urlsplit

from micromegas_jupyter.access.audit import AccessMetrics, TokenBuckets, current_network, record_event
from micromegas_jupyter.config.issuers import IssuerSetting
from micromegas_jupyter.core.files import FileProblem, FileWatch, read_shared_file
from micromegas_jupyter.core.http import FormFields, HttpAnswer, ProviderHttp
from micromegas_jupyter.core.system import Clock, Secret, start_thread
from micromegas_jupyter.core.text import JsonError, decode_strict_json
from micromegas_jupyter.errors import MicromegasError, ProviderMisbehaved, ProviderUnavailable, Unavailable
from micromegas_jupyter.oidc.authorization import build_metadata_url, parse_jwks_uri
from micromegas_jupyter.oidc.jwt import KeySet, parse_key_set

MAX_KEY_SET_BYTES = 1_000_000
MAX_TOKEN_FILE_BYTES = 16 * 1024

_VISIBLE_ASCII = re.compile(rb"[\x21-\x7e]+")
_DEFAULT_PORTS = {"https": 443, "http": 80}
# From this fraction of the refresh interval on, new keys are fetched while the current ones are still valid.
_REFRESH_AHEAD_FRACTION = 0.8
# Pauses after consecutive failures of a provider that never returned keys; later failures use the cool-down.
_FIRST_PAUSES_SECONDS = (1.0, 2.0, 5.0, 10.0)
_FILE_CHECK_SECONDS = 1.0
_SLOW_FETCH_SECONDS = 1.0
_LONG_AGO = float("-inf")
# A network that sends tokens with unknown keys can cause a few fetches, and then only a fraction of those that the
# cool-down allows. The rest remain available for valid tokens after a rotation.
_MAX_FETCHES_OF_NETWORK = 3
_COOL_DOWNS_PER_FETCH = 4
_MAX_NETWORKS = 10_000


def find_permission_problem(status: os.stat_result, *, any_owner: bool) -> str | None:
    """Return why a configuration file cannot be trusted, as a phrase that follows its name, or None."""
    if status.st_mode & stat.S_IWOTH:
        return "can be changed by every user of this machine"
    if not any_owner and status.st_uid not in {0, os.geteuid()}:
        return "belongs to another user"
    return None


class KeyFetcher:
    """Fetches one issuer's keys: from a file, a URL, or the discovery document's URL. For one thread."""

    def __init__(self, setting: IssuerSetting, *, http: ProviderHttp) -> None:
        self._setting = setting
        self._http = http
        # The URL, and whether it must not be private, because a provider with a public address returned it.
        self._known_location: tuple[str, bool] | None = None

    def fetch(self, *, rediscover: bool) -> KeySet:
        """Return the issuer's keys."""
        setting = self._setting
        if setting.jwks_file is not None:
            try:
                document = decode_strict_json(self._read(setting.jwks_file, MAX_KEY_SET_BYTES).decode("utf-8"))
            except (UnicodeDecodeError, JsonError):
                raise ProviderMisbehaved(f"The file with the keys of {setting.issuer} is not valid JSON.") from None
            return parse_key_set(document, issuer=setting.issuer, tenant=setting.tenant)
        location, self._known_location = self._known_location, None
        if location is None or rediscover:
            location = self._find_location()
        keys = parse_key_set(self._fetch_document(*location).body, issuer=setting.issuer, tenant=setting.tenant)
        self._known_location = location
        return keys

    def _find_location(self) -> tuple[str, bool]:
        setting = self._setting
        if setting.jwks_url is not None:
            return setting.jwks_url, False
        url = setting.discovery_url or build_metadata_url(setting.issuer)
        answer = self._fetch_document(url, refuses_private=False)
        named = parse_jwks_uri(answer.body, issuer=setting.issuer, tenant=setting.tenant, read_from=url)
        return named, not answer.reached_private

    def _fetch_document(self, url: str, refuses_private: bool) -> HttpAnswer:  # noqa: FBT001 - as it is kept
        answer = self._http.fetch_json(url, headers=self._headers_for(url), refuses_private=refuses_private)
        if answer.status != HTTPStatus.OK:
            raise ProviderUnavailable(f"{self._setting.issuer} returned status {answer.status}.")
        return answer

    def _headers_for(self, url: str) -> FormFields | None:
        setting = self._setting
        configured = setting.jwks_url or setting.discovery_url or setting.issuer
        # If this issuer has its own CA file, the administrator trusts all of its hosts. Without one, a discovery
        # document could send the token anywhere.
        is_trusted = setting.ca_file is not None or _origin(url) == _origin(configured)
        if setting.bearer_token_file is None or not is_trusted:
            return None
        text = self._read(setting.bearer_token_file, MAX_TOKEN_FILE_BYTES, any_owner=True).strip()
        if not _VISIBLE_ASCII.fullmatch(text):
            raise ProviderUnavailable(
                f"The file with the token for fetching the keys of {setting.issuer} contains no token."
            )
        return {"Authorization": Secret(f"Bearer {text.decode('ascii')}")}

    def _read(self, path: str, max_bytes: int, *, any_owner: bool = False) -> bytes:
        try:
            content, status = read_shared_file(Path(path), max_bytes=max_bytes)
            problem = find_permission_problem(status, any_owner=any_owner)
        except FileProblem as error:
            problem = str(error.args[0])
        if problem is not None:
            raise ProviderUnavailable(f"A file that {self._setting.issuer} requires {problem}.")
        return content


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or _DEFAULT_PORTS.get(parts.scheme)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPolicy:
    """How long an issuer's keys are valid, and how often its provider is contacted.

    Keys younger than the refresh interval are used without waiting for newer ones. Older keys are used up to the stale
    limit while the provider is down. An unknown key ID causes one fetch per cool-down, and unknown keys from one
    network cause even fewer. After a failed fetch, the provider is not contacted for the same time.
    """

    refresh_interval_seconds: float = 3600.0
    stale_limit_seconds: float = 24 * 3600.0
    cool_down_seconds: float = 30.0

    def pause_seconds(self, *, failures: int, has_keys: bool) -> float:
        """Return how long to wait after this many consecutive failures."""
        if has_keys or failures > len(_FIRST_PAUSES_SECONDS):
            return self.cool_down_seconds
        return _FIRST_PAUSES_SECONDS[failures - 1]


Fetch: TypeAlias = Future[KeySet | None]


class KeysPending(Exception):
    """The result depends on a fetch that hasn't finished yet."""

    def __init__(self, fetch: Fetch) -> None:
        super().__init__("the keys are being fetched")
        self.fetch = fetch


class RefetchDue(Exception):
    """Yield readers of possibly usable contents: the newest, one with a file from `last`, then `last`."""


class _Freshness(enum.IntEnum):
    FRESH = 0
    STALE = 1
    EXPIRED = 2


def _start(work: Callable[[], None]) -> None:
    start_thread(work, name="micromegas-key-fetch")


class KeyCache:
    """One issuer's keys for any number of threads: one fetch at a time, shared by all that wait for it.

    One lock guards the state and is released during I/O. The first call causes the first fetch.
    """

    def __init__(  # noqa: PLR0913 - the outside world of one cache
        self,
        setting: IssuerSetting,
        *,
        http: ProviderHttp,
        clock: Clock,
        policy: KeyPolicy,
        metrics: AccessMetrics | None = None,
        start: Callable[[Callable[[], None]], None] = _start,
    ) -> None:
        self._issuer = setting.issuer
        self._fetcher = KeyFetcher(setting, http=http)
        self._clock = clock
        self._policy = policy
        self._metrics = metrics or AccessMetrics()
        self._start_work = start
        path = setting.jwks_file
        self._watch = None if path is None else FileWatch([Path(path)], clock=clock, follows_links=True)
        self._file_checked_at = _LONG_AGO
        self._lock = threading.Lock()
        self._fetch: Fetch | None = None
        self._fetch_began_at = _LONG_AGO
        self._keys: KeySet | None = None
        self._fetched_at = 0.0
        self._discovered_at = _LONG_AGO
        self._failures = 0
        # Before this time, unknown key IDs don't cause a fetch; after a failure, nothing does.
        self._retry_at = _LONG_AGO
        # The signature of the token that caused the last fetch, whose result is final for that token.
        self._sought: bytes | None = None
        self._fetches_of_networks: TokenBuckets[str | bytes] = TokenBuckets(
            per_second=1 / (_COOL_DOWNS_PER_FETCH * policy.cool_down_seconds),
            burst=_MAX_FETCHES_OF_NETWORK,
            max_tracked=_MAX_NETWORKS,
            clock=clock,
        )
        self._reported = _Freshness.FRESH

    def age_seconds(self) -> float | None:
        """Return the age of the keys, or None if there are none."""
        with self._lock:
            return None if self._keys is None else self._clock.monotonic() - self._fetched_at

    def get(self) -> KeySet:
        """Return fresh keys, or the last valid ones during a provider outage."""
        is_outdated = self._has_file_changed()
        with self._lock:
            now = self._clock.monotonic()
            age = now - self._fetched_at
            usable = self._keys if age < self._policy.stale_limit_seconds else None
            is_old = age >= self._policy.refresh_interval_seconds * _REFRESH_AHEAD_FRACTION
            if usable is not None and not is_old and not is_outdated:
                return usable
            is_late = self._keys is not None and age >= self._policy.refresh_interval_seconds
            # A failure older than two cool-downs is outdated, so one caller waits to find out.
            is_known_down = self._failures > 0 and now < self._retry_at + self._policy.cool_down_seconds
            is_slow = self._fetch is not None and now >= self._fetch_began_at + _SLOW_FETCH_SECONDS
            may_wait = usable is None or is_outdated or (is_late and not is_known_down and not is_slow)
            may_fetch = not self._failures or now >= self._retry_at or is_outdated
            is_new = self._fetch is None and may_fetch
            pending = self._board(now) if is_new else self._fetch
        if pending is not None and is_new:
            self._run_in_background(pending, rediscover=True)
        if may_wait and pending is not None:
            raise KeysPending(pending)
        if is_late:
            self._report_age(age)
        if usable is None:
            raise self._unavailable()
        return usable

    def get_newer(self, seen: KeySet, *, signature: bytes) -> KeySet:
        """Return a key set fetched after `seen`, or `seen` itself if it was fetched for the token with this signature.

        Raises:
            RefetchDue: `seen` is older than the token, and it is too early to fetch keys again.
        """
        network = current_network()
        with self._lock:
            if self._keys is not None and self._keys is not seen:
                return self._keys
            now = self._clock.monotonic()
            is_new = self._fetch is None
            is_too_early = is_new and now < self._retry_at
            # While the provider is known to be down, no caller waits for another caller's retry.
            if self._failures and (is_too_early or not is_new):
                raise self._unavailable()
            if is_too_early and signature == self._sought:
                return seen
            if is_too_early:
                raise RefetchDue
            if is_new:
                if network is not None and self._fetches_of_networks.take(network):
                    raise RefetchDue
                self._retry_at = now + self._policy.cool_down_seconds
                self._sought = signature
            pending = self._fetch or self._board(now)
            rediscover = now >= self._discovered_at + self._policy.refresh_interval_seconds
        if is_new:
            self._run_in_background(pending, rediscover=rediscover)
        raise KeysPending(pending)

    def _board(self, now: float) -> Fetch:
        self._fetch, self._fetch_began_at = Fetch(), now
        return self._fetch

    def _has_file_changed(self) -> bool:
        if self._watch is None:
            return False
        with self._lock:
            now = self._clock.monotonic()
            if now < self._file_checked_at + _FILE_CHECK_SECONDS:
                return False
            self._file_checked_at = now
        return self._watch.has_changed()

    def _run_in_background(self, fetch: Fetch, *, rediscover: bool) -> None:
        try:
            self._start_work(lambda: self._run(fetch, rediscover=rediscover))
        except RuntimeError as error:
            # No thread could be started. Without a result, callers would wait for this fetch repeatedly.
            self._fail(error)
            fetch.set_result(None)

    def _run(self, fetch: Fetch, *, rediscover: bool) -> None:
        started_at = self._clock.monotonic()
        keys: KeySet | None = None
        try:
            keys = self._fetcher.fetch(rediscover=rediscover)
            self._store(keys, started_at, rediscover=rediscover)
        except BaseException as error:  # noqa: BLE001 - whatever fails on the way, there are no keys
            self._fail(error)
        finally:
            fetch.set_result(keys)

    def _store(self, keys: KeySet, started_at: float, *, rediscover: bool) -> None:
        with self._lock:
            previous, previous_age = self._keys, self._clock.monotonic() - self._fetched_at
            self._keys, self._fetched_at, self._failures, self._fetch = keys, started_at, 0, None
            if rediscover:
                self._discovered_at = started_at
            reported, self._reported = self._reported, _Freshness.FRESH
        self._metrics.count_key_fetch(self._issuer, succeeded=True)
        if reported is not _Freshness.FRESH:
            record_event(
                logging.INFO,
                "An issuer responds again; its keys are fresh.",
                issuer=self._issuer,
                age_seconds=round(previous_age),
            )
        if previous is None or [key.key_id for key in previous.keys] != [key.key_id for key in keys.keys]:
            record_event(
                logging.INFO if keys.keys else logging.WARNING,
                "An issuer's keys changed.",
                issuer=self._issuer,
                usable=len(keys.keys),
                ignored=keys.ignored_count,
            )

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            now = self._clock.monotonic()
            has_keys = self._keys is not None and now - self._fetched_at < self._policy.stale_limit_seconds
            self._failures += 1
            self._retry_at = now + self._policy.pause_seconds(failures=self._failures, has_keys=has_keys)
            self._fetch = None
        self._metrics.count_key_fetch(self._issuer, succeeded=False)
        # Other libraries' messages may contain anything, so only their error's type is logged.
        reason, detail = type(error).__name__, None
        if isinstance(error, MicromegasError):
            reason, detail = error.code, error.what
        record_event(
            logging.WARNING, "An issuer's keys could not be fetched.", issuer=self._issuer, reason=reason, detail=detail
        )

    def _report_age(self, age_seconds: float) -> None:
        """Log once that no keys newer than this age could be fetched."""
        found = _Freshness.EXPIRED if age_seconds >= self._policy.stale_limit_seconds else _Freshness.STALE
        with self._lock:
            if found <= self._reported:
                return
            self._reported = found
        record_event(
            logging.WARNING,
            "An issuer doesn't respond, and its last keys are too old to be used."
            if found is _Freshness.EXPIRED
            else "An issuer doesn't respond; its last keys are used beyond their refresh interval.",
            issuer=self._issuer,
            age_seconds=round(age_seconds),
        )

    def _unavailable(self) -> Unavailable:
        return Unavailable(f"The keys of {self._issuer} cannot be fetched right now.")


_CacheName: TypeAlias = tuple[tuple[str | None, ...], KeyPolicy]


class KeyCaches:
    """One key cache per setting and policy, so that reloads keep fetched keys; thread-safe."""

    def __init__(self, *, http: ProviderHttp, clock: Clock, metrics: AccessMetrics | None = None) -> None:
        self._http = http
        self._clock = clock
        self._metrics = metrics or AccessMetrics()
        self._lock = threading.Lock()
        self._caches: dict[_CacheName, tuple[KeyCache, ProviderHttp | None]] = {}

    def cache_of(self, setting: IssuerSetting, policy: KeyPolicy) -> KeyCache:
        """Return the cache of this issuer's keys, the same one until its settings change."""
        name = (_key_source(setting), policy)
        with self._lock:
            if name not in self._caches:
                own_http = None if setting.ca_file is None else ProviderHttp(ca_bundle=setting.ca_file)
                http = own_http or self._http
                cache = KeyCache(setting, http=http, clock=self._clock, policy=policy, metrics=self._metrics)
                self._caches[name] = cache, own_http
            return self._caches[name][0]

    def retain(self, settings: Iterable[IssuerSetting], policy: KeyPolicy | None) -> None:
        """Drop all other caches, and report the age of these keys."""
        wanted = {(_key_source(setting), policy): setting.issuer for setting in settings}
        with self._lock:
            dropped = [self._caches.pop(name)[1] for name in self._caches.keys() - wanted.keys()]
            self._metrics.key_ages = {wanted[name]: cache.age_seconds for name, (cache, _) in self._caches.items()}
        for http in dropped:
            if http is not None:
                http.close()

    def close(self) -> None:
        """Close all caches and drop their keys; safe to call twice."""
        self.retain((), None)


# An issuer's settings that determine its keys.
_key_source = attrgetter("issuer", "tenant", "discovery_url", "jwks_url", "jwks_file", "ca_file", "bearer_token_file")
