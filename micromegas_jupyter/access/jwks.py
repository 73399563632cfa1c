"""An issuer's public keys: fetched once for all who wait, and kept for a bounded time while its provider is down."""

import enum
import errno
import logging
import os
import re
import stat
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Protocol, TypeAlias
from urllib.parse import urlsplit

from micromegas_jupyter.access.audit import record_event
from micromegas_jupyter.access.metrics import AccessMetrics
from micromegas_jupyter.config.access import IssuerSetting
from micromegas_jupyter.core.files import FileMark, FileProblem, mark_of
from micromegas_jupyter.core.http import FormFields, ProviderHttp
from micromegas_jupyter.core.json import JsonError, decode_strict_json
from micromegas_jupyter.core.protocols import Secret
from micromegas_jupyter.core.system import Clock
from micromegas_jupyter.errors import (
    ConfigurationError,
    MicromegasError,
    ProviderMisbehaved,
    ProviderUnavailable,
    Unavailable,
)
from micromegas_jupyter.oidc.discovery import build_metadata_url, parse_jwks_uri
from micromegas_jupyter.oidc.keys import KeySet, parse_key_set

# Path and size cap; raises `OSError`.
ReadFile: TypeAlias = Callable[[str, int], bytes]


def read_named_file(path: str, max_bytes: int) -> bytes:
    """Return what the file holds; links are followed, as mounted secrets are links.

    Raises:
        OSError: It cannot be read, is no ordinary file, holds more than `max_bytes`, or every user of this machine
            can change it.
    """
    # Without O_NONBLOCK, opening a pipe would wait for somebody to write into it.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "It is not an ordinary file")
        if mode & stat.S_IWOTH:
            raise PermissionError(errno.EPERM, "Every user of this machine can change it")
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    return data


def mark_of_named_file(path: str | Path) -> FileMark | None:
    """Return the present mark of the file, behind links too; None when it is missing or cannot be looked at."""
    try:
        return mark_of(Path(path), follows_links=True)
    except (FileProblem, ValueError):
        return None


def find_rights_problem(found: os.stat_result, *, any_owner: bool = False) -> str | None:
    """Return what keeps a file from being trusted, as it goes on after the file's name; None when nothing does.

    Args:
        found: What the system says of the file.
        any_owner: Whether it may belong to somebody who is neither root nor this account.
    """
    if found.st_mode & stat.S_IWOTH:
        return "can be changed by every user of this machine"
    if not any_owner and found.st_uid not in {0, os.geteuid()}:
        return "belongs to another user"
    return None


def check_rights(found: os.stat_result, *, setting: str, any_owner: bool = False) -> None:
    """Check that a file that `setting` names can be trusted.

    Raises:
        ConfigurationError: It cannot.
    """
    problem = find_rights_problem(found, any_owner=any_owner)
    if problem is not None:
        remedy = "Let it belong to the account that the server runs as, or to root, and take the right to write from "
        raise ConfigurationError(
            f"The file that {setting} names {problem}.", key=setting, remedy=f"{remedy}others: chmod o-w."
        )


def warn_of_group(found: os.stat_result, *, setting: str) -> None:
    """Tell the log when the file's group may change it, which is allowed and seldom meant."""
    if found.st_mode & stat.S_IWGRP:
        record_event(
            logging.WARNING, "A file of the access configuration can be changed by its group.", setting=setting
        )


# From this part of the refresh interval on, keys are fetched while the ones at hand are still good.
_REFRESH_AHEAD_FRACTION = 0.8
# By the number of failures in a row: how long to leave a provider alone that never gave keys; then the cool-down.
_FIRST_PAUSES_SECONDS = (0.0, 1.0, 2.0, 5.0, 10.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPolicy:
    """How long keys are believed.

    Attributes:
        refresh_interval_seconds: A set younger than this is used without waiting for a newer one.
        stale_limit_seconds: An older set is used up to this age, but only while the provider does not answer.
        cool_down_seconds: An unknown key id causes one fetch, and the next not before this time has passed; after a
            failed fetch the provider is left alone for as long.
    """

    refresh_interval_seconds: float = 3600.0
    stale_limit_seconds: float = 24 * 3600.0
    cool_down_seconds: float = 30.0

    @property
    def refresh_ahead_seconds(self) -> float:
        """The age from which a set is renewed in the background."""
        return self.refresh_interval_seconds * _REFRESH_AHEAD_FRACTION

    def pause_seconds(self, *, failures: int, has_keys: bool) -> float:
        """Return how long to leave a provider alone after so many failures in a row."""
        if has_keys or failures > len(_FIRST_PAUSES_SECONDS):
            return self.cool_down_seconds
        return _FIRST_PAUSES_SECONDS[max(failures, 1) - 1]


class KeyWait(enum.Enum):
    """How a check waits for keys.

    Attributes:
        IN_THREAD: In the thread that checks.
        OUTSIDE: The check ends with `KeysOnTheWay`, and the thread is free.
        NOT_AT_ALL: The check goes on with the keys that there are, and starts no fetch.
    """

    IN_THREAD = "in thread"
    OUTSIDE = "outside"
    NOT_AT_ALL = "not at all"


class KeysOnTheWay(Exception):
    """Nothing can be said before a fetch has ended; raised only where `KeyWait.OUTSIDE` was asked for.

    Attributes:
        fetch: The fetch; shared by all who wait for it, so it must not be cancelled.
    """

    def __init__(self, fetch: Future[KeySet | None]) -> None:
        super().__init__("the keys are being fetched")
        self.fetch = fetch


_current: ContextVar[KeyWait] = ContextVar("micromegas_key_wait", default=KeyWait.IN_THREAD)


def current_key_wait() -> KeyWait:
    """Return how the check that runs now waits for keys."""
    return _current.get()


@contextmanager
def waiting_for_keys(how: KeyWait) -> Iterator[None]:
    """Let checks inside wait for keys in this way."""
    token = _current.set(how)
    try:
        yield
    finally:
        _current.reset(token)


class _Freshness(enum.IntEnum):
    FRESH = 0
    STALE = 1
    EXPIRED = 2


_SENTENCES = {
    _Freshness.STALE: "An issuer does not answer; its last keys are used beyond their refresh interval.",
    _Freshness.EXPIRED: "An issuer does not answer, and its last keys are too old to be used.",
}


class KeyEvents:
    """Records what happens to one issuer's keys; each change between fresh, stale and expired leaves one event.

    One lock guards which of the three it is.
    """

    def __init__(self, issuer: str, *, policy: KeyPolicy, metrics: AccessMetrics | None) -> None:
        self._issuer = issuer
        self._policy = policy
        self._metrics = metrics
        self._lock = threading.Lock()
        self._freshness = _Freshness.FRESH

    def record_failure(self, error: BaseException) -> None:
        """Record that a fetch failed."""
        if self._metrics is not None:
            self._metrics.count_key_fetch(self._issuer, succeeded=False)
        # Sentences of other libraries may hold anything, so of their errors only the kind is told.
        reason, detail = type(error).__name__, None
        if isinstance(error, MicromegasError):
            reason, detail = error.code, error.what
        record_event(
            logging.WARNING,
            "An issuer's keys could not be fetched.",
            issuer=self._issuer,
            reason=reason,
            detail=detail,
        )

    def record_arrival(self, fetched: KeySet, *, previous: KeySet | None, previous_age_seconds: float) -> None:
        """Record that a fetch brought keys."""
        if self._metrics is not None:
            self._metrics.count_key_fetch(self._issuer, succeeded=True)
        with self._lock:
            was, self._freshness = self._freshness, _Freshness.FRESH
        if was is not _Freshness.FRESH:
            record_event(
                logging.INFO,
                "An issuer answers again; its keys are fresh.",
                issuer=self._issuer,
                age_seconds=round(previous_age_seconds),
            )
        if previous is None or _key_ids(previous) != _key_ids(fetched):
            record_event(
                logging.INFO if fetched.keys else logging.WARNING,
                "An issuer's keys changed.",
                issuer=self._issuer,
                usable=len(fetched.keys),
                ignored=fetched.ignored_count,
            )

    def record_age(self, age_seconds: float) -> None:
        """Record that no newer keys could be had than those of this age."""
        found = _Freshness.FRESH
        if age_seconds >= self._policy.stale_limit_seconds:
            found = _Freshness.EXPIRED
        elif age_seconds >= self._policy.refresh_interval_seconds:
            found = _Freshness.STALE
        with self._lock:
            if found <= self._freshness:
                return
            self._freshness = found
        record_event(logging.WARNING, _SENTENCES[found], issuer=self._issuer, age_seconds=round(age_seconds))


def _key_ids(keys: KeySet) -> list[str | None]:
    return [key.key_id for key in keys.keys]


MAX_KEY_SET_BYTES = 1_000_000
MAX_TOKEN_FILE_BYTES = 16 * 1024

_VISIBLE_ASCII = re.compile(rb"[\x21-\x7e]+")
_DEFAULT_PORTS = {"https": 443, "http": 80}


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

    @property
    def reached_private(self) -> bool:
        """Whether it came from an address inside a network."""
        ...


class ProviderDocuments(Protocol):
    """The way to a provider's documents."""

    def fetch_json(
        self, url: str, *, headers: FormFields | None = None, refuses_private: bool = False
    ) -> ProviderAnswer:
        """Fetch one document within a total deadline and a size cap, following no redirect.

        Raises:
            Unavailable: No proper answer in time, or a private address that is refused.
            ProviderMisbehaved: The answer breaks the protocol.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where keys are; an address that a provider named may be private only if the provider is at one itself."""

    url: str
    refuses_private: bool = False


class KeyFetch:
    """Fetches one issuer's keys. Used by one thread at a time, but for `is_outdated`.

    Args:
        setting: Says where the keys are: in a file, at an address, or where the discovery document says.
        http: The way to the provider; the caller closes it.
        read_file: Reads the files that the setting names.
    """

    def __init__(
        self, setting: IssuerSetting, *, http: ProviderDocuments, read_file: ReadFile = read_named_file
    ) -> None:
        self._setting = setting
        self._http = http
        self._read_file = read_file
        self._known_place: _Place | None = None
        self._mark: FileMark | None = None

    def is_outdated(self) -> bool:
        """Whether the key file has changed since it was read; never for keys that a provider publishes."""
        path = self._setting.jwks_file
        return path is not None and mark_of_named_file(path) != self._mark

    def fetch(self, *, rediscover: bool) -> KeySet:
        """Return the issuer's keys.

        Args:
            rediscover: Whether to ask again where they are. After a failure that is done in any case.

        Raises:
            Unavailable: The provider or the file gives no answer.
            ProviderMisbehaved: What it gives is not acceptable.
        """
        if self._setting.jwks_file is not None:
            # The mark comes first: a change during the reading is then seen as one.
            self._mark = mark_of_named_file(self._setting.jwks_file)
            self._check_rights(self._setting.jwks_file)
            return self._parsed(self._read_document(self._setting.jwks_file))
        place, self._known_place = self._known_place, None
        if place is None or rediscover:
            place = self._find_place()
        keys = self._parsed(self._fetch_document(place).body)
        self._known_place = place
        return keys

    def _find_place(self) -> _Place:
        setting = self._setting
        if setting.jwks_url is not None:
            return _Place(url=setting.jwks_url)
        url = setting.discovery_url or build_metadata_url(setting.issuer)
        answer = self._fetch_document(_Place(url=url))
        named = parse_jwks_uri(answer.body, issuer=setting.issuer, tenant=setting.tenant, read_from=url)
        return _Place(url=named, refuses_private=not answer.reached_private)

    def _parsed(self, document: object) -> KeySet:
        return parse_key_set(document, issuer=self._setting.issuer, tenant=self._setting.tenant)

    def _fetch_document(self, place: _Place) -> ProviderAnswer:
        headers = self._headers_for(place.url)
        answer = self._http.fetch_json(place.url, headers=headers, refuses_private=place.refuses_private)
        if answer.status != HTTPStatus.OK:
            raise ProviderUnavailable(f"{self._setting.issuer} answered with status {answer.status}.")
        return answer

    def _headers_for(self, url: str) -> FormFields | None:
        path = self._setting.bearer_token_file
        if path is None or not self._may_see_token(url):
            return None
        text = self._read(path, MAX_TOKEN_FILE_BYTES).strip()
        if not _VISIBLE_ASCII.fullmatch(text):
            raise ProviderUnavailable(
                f"The file with the token for fetching the keys of {self._setting.issuer} holds no token."
            )
        return {"Authorization": Secret(f"Bearer {text.decode('ascii')}")}

    def _may_see_token(self, url: str) -> bool:
        # With certificates of its own, every host of this issuer is one that the administrator vouches for. Without,
        # a document could send the token anywhere.
        configured = self._setting.jwks_url or self._setting.discovery_url or self._setting.issuer
        return self._setting.ca_file is not None or _origin(url) == _origin(configured)

    def _check_rights(self, path: str) -> None:
        # One that cannot be looked at cannot be read either, and the reading says why.
        with suppress(OSError, ValueError):
            problem = find_rights_problem(Path(path).stat())
            if problem is not None:
                raise ProviderUnavailable(f"A file that {self._setting.issuer} needs {problem}.")

    def _read_document(self, path: str) -> object:
        try:
            return decode_strict_json(self._read(path, MAX_KEY_SET_BYTES).decode("utf-8"))
        except (UnicodeDecodeError, JsonError):
            raise ProviderMisbehaved(f"The file with the keys of {self._setting.issuer} is not valid JSON.") from None

    def _read(self, path: str, max_bytes: int) -> bytes:
        try:
            return self._read_file(path, max_bytes)
        except OSError as error:
            reason = error.strerror or "it cannot be opened"
        except ValueError:
            reason = "its name is malformed"
        raise ProviderUnavailable(f"A file that {self._setting.issuer} needs cannot be read: {reason}.")


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or _DEFAULT_PORTS.get(parts.scheme)


# A fetch is two calls, each with `http`'s total deadline of ten seconds; nobody waits longer for somebody else's.
_JOIN_SECONDS = 30.0
# How often a key file is looked at.
_LOOK_SECONDS = 1.0
_LONG_AGO = float("-inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """What a caller does next.

    Attributes:
        usable: The keys to use, unless a fetch brings others.
        flight: The fetch that the caller waits for, or starts in the background when it does not wait.
        waits: Whether it waits.
        is_mine: Whether it carries out the fetch that it waits for.
        is_late: Whether the keys are older than their refresh interval.
    """

    usable: KeySet | None
    flight: Future[KeySet | None] | None = None
    waits: bool = False
    is_mine: bool = False
    is_late: bool = False


def start_daemon(work: Callable[[], None]) -> None:
    """Run `work` on a thread that does not keep the process alive."""
    threading.Thread(target=work, name="micromegas-key-refresh", daemon=True).start()


class KeySource:
    """One issuer's keys for any number of threads.

    One lock guards the state and is free during I/O; whoever needs keys while a fetch is under way waits for that
    fetch, in the way that `key_waits` says. Nothing is fetched before the first call.

    Args:
        setting: Says where the keys are.
        http: The way to the provider; the caller closes it.
        clock: Tells the time.
        policy: How long keys are believed.
        metrics: Where fetches are counted and the keys' age is reported.
        read_file: Reads the files that the setting names.
        start_background: Starts what nobody waits for.
    """

    def __init__(  # noqa: PLR0913 - the outside world of one source
        self,
        setting: IssuerSetting,
        *,
        http: ProviderDocuments,
        clock: Clock,
        policy: KeyPolicy,
        metrics: AccessMetrics | None = None,
        read_file: ReadFile = read_named_file,
        start_background: Callable[[Callable[[], None]], None] = start_daemon,
    ) -> None:
        self._issuer = setting.issuer
        self._fetch = KeyFetch(setting, http=http, read_file=read_file)
        self._is_file = setting.jwks_file is not None
        self._clock = clock
        self._policy = policy
        self._metrics = metrics
        self._events = KeyEvents(setting.issuer, policy=policy, metrics=metrics)
        self._start_background = start_background
        self._lock = threading.Lock()
        self._keys: KeySet | None = None
        self._fetched_at = 0.0
        self._discovered_at = _LONG_AGO
        self._failures = 0
        # Until then nothing is asked for an unknown key id; after a failure, nothing at all.
        self._gate_opens_at = _LONG_AGO
        self._looked_at = _LONG_AGO
        self._flight: Future[KeySet | None] | None = None
        self.report_age()

    def report_age(self) -> None:
        """Let the metrics report the age of this source's keys, from now on and instead of another source's."""
        if self._metrics is not None:
            self._metrics.watch_keys(self._issuer, self.age_seconds)

    def age_seconds(self) -> float | None:
        """Return how old the keys are; None when there are none."""
        with self._lock:
            return None if self._keys is None else self._clock.monotonic() - self._fetched_at

    def current(self) -> KeySet:
        """Return keys that are fresh, or the last good ones while the provider does not answer.

        Raises:
            Unavailable: There are none, and none can be had now.
            KeysOnTheWay: They are being fetched, and the caller waits outside.
        """
        is_outdated = self._is_file and self._is_outdated()
        with self._lock:
            step = self._next_step(self._clock.monotonic(), is_outdated=is_outdated)
        if step.flight is not None:
            if not step.waits:
                self._fly_in_background(step.flight, rediscover=True)
            else:
                fetched = self._land(step.flight, is_mine=step.is_mine, rediscover=True)
                if fetched is not None:
                    return fetched
        if step.is_late:
            self._events.record_age(self.age_seconds() or 0.0)
        if step.usable is None:
            raise self._unavailable()
        return step.usable

    def newer_than(self, seen: KeySet) -> KeySet:
        """Return a set fetched after `seen`, or `seen` itself when it is too early to ask again.

        Raises:
            Unavailable: The provider does not answer, so whether it has newer keys is not known.
            KeysOnTheWay: It is being asked, and the caller waits outside.
        """
        with self._lock:
            if self._keys is not None and self._keys is not seen:
                return self._keys
            now = self._clock.monotonic()
            is_shut = self._flight is None and now < self._gate_opens_at
            # While the provider is known not to answer, nobody waits for the one who tries again.
            if self._failures and (is_shut or self._flight is not None):
                raise self._unavailable()
            if is_shut:
                return seen
            if self._flight is None and current_key_wait() is KeyWait.NOT_AT_ALL:
                raise self._unavailable()
            flight, is_mine = self._board()
            if is_mine:
                self._gate_opens_at = now + self._policy.cool_down_seconds
            rediscover = now >= self._discovered_at + self._policy.refresh_interval_seconds
        fetched = self._land(flight, is_mine=is_mine, rediscover=rediscover)
        if fetched is None:
            raise self._unavailable()
        return fetched

    def _next_step(self, now: float, *, is_outdated: bool) -> _Step:
        """Decide what a caller of `current` does; called with the lock held."""
        age = now - self._fetched_at
        usable = self._keys if age < self._policy.stale_limit_seconds else None
        if usable is not None and age < self._policy.refresh_ahead_seconds and not is_outdated:
            return _Step(usable=usable)
        is_late = self._keys is not None and age >= self._policy.refresh_interval_seconds
        is_open = not self._failures or now >= self._gate_opens_at or is_outdated
        may_fetch = self._flight is None and is_open and current_key_wait() is not KeyWait.NOT_AT_ALL
        # What was learnt two cool-downs ago says little about now; then somebody waits to see.
        is_known_down = self._failures > 0 and now < self._gate_opens_at + self._policy.cool_down_seconds
        if usable is not None and not is_outdated and (is_known_down or not is_late):
            return _Step(usable=usable, flight=self._board()[0] if may_fetch else None, is_late=is_late)
        if self._flight is None and not may_fetch:
            return _Step(usable=usable, is_late=is_late)
        flight, is_mine = self._board()
        return _Step(usable=usable, flight=flight, waits=True, is_mine=is_mine, is_late=is_late)

    def _is_outdated(self) -> bool:
        with self._lock:
            now = self._clock.monotonic()
            if now < self._looked_at + _LOOK_SECONDS:
                return False
            self._looked_at = now
        return self._fetch.is_outdated()

    def _board(self) -> tuple[Future[KeySet | None], bool]:
        """Return the fetch under way, or a new one and True; called with the lock held."""
        if self._flight is not None:
            return self._flight, False
        self._flight = Future()
        return self._flight, True

    def _land(self, flight: Future[KeySet | None], *, is_mine: bool, rediscover: bool) -> KeySet | None:
        how = current_key_wait()
        if how is not KeyWait.IN_THREAD:
            if is_mine:
                self._fly_in_background(flight, rediscover=rediscover)
            if flight.done():
                return flight.result()
            if how is KeyWait.OUTSIDE:
                raise KeysOnTheWay(flight)
            return None
        if is_mine:
            self._fly(flight, rediscover=rediscover)
        try:
            return flight.result(timeout=_JOIN_SECONDS)
        except TimeoutError:
            return None

    def _fly_in_background(self, flight: Future[KeySet | None], *, rediscover: bool) -> None:
        try:
            self._start_background(lambda: self._fly(flight, rediscover=rediscover))
        except RuntimeError as error:
            # No thread is left for it. Without an end, the flight would be waited for again and again.
            self._fail(error)
            flight.set_result(None)

    def _fly(self, flight: Future[KeySet | None], *, rediscover: bool) -> None:
        started_at = self._clock.monotonic()
        fetched: KeySet | None = None
        try:
            fetched = self._fetch.fetch(rediscover=rediscover)
            self._arrive(fetched, started_at, rediscover=rediscover)
        except BaseException as error:
            self._fail(error)
            # Whatever fails between here and the provider, the keys are not had; only an interrupt goes on.
            if not isinstance(error, Exception):
                raise
        finally:
            flight.set_result(fetched)

    def _arrive(self, fetched: KeySet, started_at: float, *, rediscover: bool) -> None:
        with self._lock:
            previous, previous_age = self._keys, self._clock.monotonic() - self._fetched_at
            self._keys, self._fetched_at, self._failures, self._flight = fetched, started_at, 0, None
            if rediscover:
                self._discovered_at = started_at
        self._events.record_arrival(fetched, previous=previous, previous_age_seconds=previous_age)

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            now = self._clock.monotonic()
            has_keys = self._keys is not None and now - self._fetched_at < self._policy.stale_limit_seconds
            self._failures += 1
            self._gate_opens_at = now + self._policy.pause_seconds(failures=self._failures, has_keys=has_keys)
            self._flight = None
        self._events.record_failure(error)

    def _unavailable(self) -> Unavailable:
        return Unavailable(f"The keys of {self._issuer} cannot be fetched at the moment.")


MAX_SOURCES = 1000


class CloseableDocuments(ProviderDocuments, Protocol):
    """A way to a provider's documents that is closed when it is not needed any more."""

    def close(self) -> None:
        """Cut running calls; safe to call twice."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Origin:
    """What of an issuer's setting decides which keys it has."""

    issuer: str
    tenant: str | None
    discovery_url: str | None
    jwks_url: str | None
    jwks_file: str | None
    ca_file: str | None
    bearer_token_file: str | None


class KeySources:
    """Makes and remembers one source for each setting and policy; safe to share between threads.

    One lock guards what is remembered. The `MAX_SOURCES` that were asked for last are kept.

    Args:
        http: The way to the providers whose setting names no `ca_file`; the caller closes it.
        clock: Tells the time.
        metrics: Where the sources report.
        http_for_ca: Makes the way to the providers that only the certificates in a file vouch for; closed here.
    """

    def __init__(
        self,
        *,
        http: ProviderDocuments,
        clock: Clock,
        metrics: AccessMetrics | None = None,
        http_for_ca: Callable[[str], CloseableDocuments] | None = None,
    ) -> None:
        self._http = http
        self._clock = clock
        self._metrics = metrics
        self._http_for_ca = http_for_ca or _trusting_only
        self._lock = threading.Lock()
        self._sources: OrderedDict[tuple[_Origin, KeyPolicy], KeySource] = OrderedDict()
        self._https: dict[str, CloseableDocuments] = {}
        # Calls that began before a reload may still be waiting for these.
        self._retired: list[CloseableDocuments] = []

    def source_of(self, setting: IssuerSetting, policy: KeyPolicy) -> KeySource:
        """Return the source of this issuer's keys, the same one as long as nothing about them has changed.

        Raises:
            ConfigurationError: The setting's `ca_file` does not exist.
        """
        name = (_origin_of(setting), policy)
        with self._lock:
            known = self._sources.get(name)
            if known is None:
                http = self._http if setting.ca_file is None else self._http_of(setting.ca_file)
                known = KeySource(setting, http=http, clock=self._clock, policy=policy, metrics=self._metrics)
                self._sources[name] = known
            self._sources.move_to_end(name)
            self._forget(list(self._sources)[:-MAX_SOURCES])
            closing, self._retired = self._retired[:-MAX_SOURCES], self._retired[-MAX_SOURCES:]
        _close(closing)
        return known

    def retain(self, settings: Iterable[IssuerSetting]) -> None:
        """Forget the sources of all other settings, and of two policies for one setting the one asked for earlier.

        A source that is still in use goes on; what it fetches with is closed the next time.
        """
        wanted = {_origin_of(setting) for setting in settings}
        with self._lock:
            closing, self._retired = self._retired, []
            latest = {origin: (origin, policy) for origin, policy in self._sources}
            self._forget([name for name in self._sources if name[0] not in wanted or latest[name[0]] != name])
            for source in self._sources.values():
                source.report_age()
        _close(closing)

    def close(self) -> None:
        """Close what was made here and forget all sources; safe to call twice."""
        with self._lock:
            closing = [*self._retired, *self._https.values()]
            self._retired, self._https = [], {}
            self._sources.clear()
        _close(closing)

    def _http_of(self, ca_file: str) -> CloseableDocuments:
        if ca_file not in self._https:
            self._https[ca_file] = self._http_for_ca(ca_file)
        return self._https[ca_file]

    def _forget(self, names: list[tuple[_Origin, KeyPolicy]]) -> None:
        if not names:
            return
        for name in names:
            del self._sources[name]
        origins = {origin for origin, _policy in self._sources}
        if self._metrics is not None:
            for issuer in {origin.issuer for origin, _policy in names} - {origin.issuer for origin in origins}:
                self._metrics.forget_keys(issuer)
        for ca_file in self._https.keys() - {origin.ca_file for origin in origins}:
            self._retired.append(self._https.pop(ca_file))


def _close(https: Iterable[CloseableDocuments]) -> None:
    for http in https:
        http.close()


def _origin_of(setting: IssuerSetting) -> _Origin:
    return _Origin(
        issuer=setting.issuer,
        tenant=setting.tenant,
        discovery_url=setting.discovery_url,
        jwks_url=setting.jwks_url,
        jwks_file=setting.jwks_file,
        ca_file=setting.ca_file,
        bearer_token_file=setting.bearer_token_file,
    )


def _trusting_only(ca_file: str) -> CloseableDocuments:
    return ProviderHttp(ca_bundle=ca_file)
