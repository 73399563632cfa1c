"""Logout: deletes the tokens, revokes them with the provider (RFC 7009), and reports what remains valid.

On request it also ends the user's browser session with the provider (OpenID Connect RP-Initiated Logout).
"""

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache, partial
from typing import TypeVar
from urllib.parse import urlencode, urlsplit, urlunsplit

from micromegas_jupyter.auth.provider_connection import ProviderConnection
from micromegas_jupyter.auth.tokens.source import Session, session_of
from micromegas_jupyter.auth.tokens.store import StoredLogin, TokenStore
from micromegas_jupyter.core.system import Browser, Clock, duration_text
from micromegas_jupyter.core.text import host_text
from micromegas_jupyter.errors import LoginRequired, MicromegasError, TokenStoreError, Unavailable
from micromegas_jupyter.oidc.authorization import TokenSet

REVOCATION_SECONDS = 20.0  # no call starts later than this
LOCK_WAIT_SECONDS = 10.0  # for the locks of all stores together

# Many providers can't revoke access tokens; that isn't a failure.
_TOLERATED = "unsupported_token_type"

_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogoutReport:
    """The result of a logout; `str` returns it as one line.

    Attributes:
        issuer: The provider of the sign-in.
        was_signed_in: Whether a sign-in existed.
        files_removed: The number of stored files and keyring entries that were removed.
        refresh_token_revoked: Whether the provider revoked the refresh token.
        access_token_revoked: Whether the provider revoked the access token.
        valid_until: When the last bearer token that was not revoked expires (aware UTC), or None if all were.
        left_valid: The tokens that remain valid: `access token`, `ID token`.
        ended_at: The time of the logout (aware UTC).
        problem: Why a token could not be revoked, or None.
        provider_answered: Whether the provider could be reached.
        end_session_url: The provider's page that ends the user's session there, if requested.
        end_session_opened: Whether a browser opened that page.
        end_session_problem: Why there is no such page, although it was requested.
        others: The reports for the profile's sign-ins with other providers.
    """

    issuer: str
    was_signed_in: bool
    files_removed: int = 0
    refresh_token_revoked: bool = False
    access_token_revoked: bool = False
    valid_until: datetime | None = None
    left_valid: tuple[str, ...] = ()
    ended_at: datetime | None = None
    problem: str | None = None
    provider_answered: bool = True
    end_session_url: str | None = None
    end_session_opened: bool = False
    end_session_problem: str | None = None
    others: tuple["LogoutReport", ...] = ()

    def __str__(self) -> str:
        return " ".join(sentence for report in (self, *self.others) for sentence in report.sentences())

    @property
    def host(self) -> str:
        """The provider's host, with a nondefault port, for display."""
        return host_text(self.issuer)

    def sentences(self) -> list[str]:
        """Return the report for this provider only, as sentences."""
        files = f"{self.files_removed} {'file' if self.files_removed == 1 else 'files'} removed"
        if not self.was_signed_in:
            removed = f" {files}." if self.files_removed else ""
            where = f" to {self.host}" if self.issuer else ""
            return [f"No user was signed in{where}.{removed}", *self._about_session()]
        revoked = {"refresh token": self.refresh_token_revoked, "access token": self.access_token_revoked}
        done = [*(f"{name} revoked" for name, is_revoked in revoked.items() if is_revoked), files]
        return [
            f"Signed out of {self.host}: {', '.join(done)}.",
            *self._about_problem(),
            *self._about_tokens(),
            *self._about_session(),
        ]

    def _about_problem(self) -> list[str]:
        if self.problem is None:
            return []
        detail = self.problem.rstrip(".")
        if self.provider_answered:
            return [f"{self.host} did not revoke everything ({detail})."]
        left = "" if self.refresh_token_revoked else ", but the refresh token is still valid there"
        why = detail.rpartition(": ")[2]
        return [
            f"{self.host} could not be reached to revoke everything ({why}): you are signed out here{left}.",
            "End the session on its account page.",
        ]

    def _about_tokens(self) -> list[str]:
        if self.valid_until is None:
            return []
        names = " and ".join(self.left_valid) or "tokens that were already given out"
        stay, them = ("stays", "it") if len(self.left_valid) == 1 else ("stay", "them")
        why = f": the provider cannot revoke {them}" if self.problem is None else ""
        end, now = self.valid_until, self.ended_at
        date = "" if now is not None and end.date() == now.date() else f"{end:%Y-%m-%d} "
        distance = "" if now is None else f" (in {duration_text(end - now)})"
        return [f"The {names} {stay} valid until {date}{end:%H:%M} UTC{distance}{why}."]

    def _about_session(self) -> list[str]:
        if self.end_session_problem is not None:
            return [f"Your session at {self.host} continues ({self.end_session_problem.rstrip('.')})."]
        if self.end_session_url is None:
            return []
        if self.end_session_opened:
            return [f"Your browser shows the page of {self.host} that ends your session there."]
        return [f"To end your session at {self.host} too, open {self.end_session_url} in your browser."]


def end_login(
    session: Session | None,
    files_removed: int,
    connection: ProviderConnection,
    *,
    clock: Clock,
    browser: Browser | None = None,
) -> LogoutReport:
    """Revoke the tokens of a sign-in that was removed locally; `browser` opens the page that ends the session."""
    calls = RevocationCalls(clock)
    if session is None:
        report = LogoutReport(issuer=connection.issuer, was_signed_in=files_removed > 0, files_removed=files_removed)
    else:
        revocation = calls.revoke(session.tokens, connection)
        report = _report(session, revocation, issuer=connection.issuer, now=connection.now())
        report = replace(report, files_removed=files_removed)
    return report if browser is None else calls.end_session(report, connection, browser)


def end_stored_logins(  # noqa: PLR0913 - its dependencies
    stores: Iterable[TokenStore],
    connect: Callable[[str, str], ProviderConnection],
    *,
    issuer: str | None,
    client_id: str | None,
    clock: Clock,
    browser: Browser | None = None,
) -> LogoutReport:
    """Remove all sign-ins from their stores, and then revoke their tokens.

    `connect` connects to a provider as an application. The report is about `issuer`, or the first sign-in's provider
    if None. `browser` opens the pages that end the user's sessions with the providers.
    """
    waits_until = clock.monotonic() + LOCK_WAIT_SECONDS
    removals = [_remove(store, wait_seconds=max(0.0, waits_until - clock.monotonic())) for store in stores]
    calls, connected = RevocationCalls(clock), cache(connect)
    reports = {} if issuer is None else {issuer: LogoutReport(issuer=issuer, was_signed_in=False)}
    applications = {} if issuer is None or client_id is None else {issuer: client_id}
    for removal in removals:
        report = _report_removal(removal, calls, connected, default_issuer=issuer or "")
        reports[report.issuer] = _joined(reports[report.issuer], report) if report.issuer in reports else report
        if removal.login is not None:
            applications.setdefault(removal.login.key.issuer, removal.login.key.client_id)
    if browser is not None:
        for name, application in applications.items():
            try:
                reports[name] = calls.end_session(reports[name], connected(name, application), browser)
            except MicromegasError as error:
                reports[name] = replace(reports[name], end_session_problem=error.what)
    failures = [removal.problem for removal in removals if removal.failed and removal.problem]
    if failures:
        raise TokenStoreError(failures[0])
    first, *others = reports.values() or [LogoutReport(issuer="", was_signed_in=False)]
    return replace(first, others=tuple(each for each in others if each.was_signed_in))


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """Which tokens of a sign-in a provider revoked, why the others weren't, and whether the provider was reachable."""

    revoked: frozenset[str] = frozenset()
    problem: str | None = None
    provider_answered: bool = True


class RevocationCalls:
    """Makes the calls of one logout. No call starts after `REVOCATION_SECONDS`, and each has its own deadline.

    A provider that was unreachable once is not called again.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._ends_at = clock.monotonic() + REVOCATION_SECONDS
        self._unreachable: dict[str, Unavailable] = {}

    def revoke(self, tokens: TokenSet, connection: ProviderConnection) -> Revocation:
        """Revoke the refresh token, then the access token. Source: RFC 7009 section 2."""
        revoked: frozenset[str] = frozenset()
        for kind, token in (("refresh_token", tokens.refresh_token), ("access_token", tokens.access_token)):
            if token is None:
                continue
            try:
                refusal = self._call(connection.issuer, partial(connection.revoke, token, kind=kind))
            except MicromegasError as error:
                is_down = isinstance(error, Unavailable)
                return Revocation(revoked=revoked, problem=error.what, provider_answered=not is_down)
            if refusal is None:
                revoked |= {kind}
            elif not (kind == "access_token" and refusal == _TOLERATED):
                return Revocation(revoked=revoked, problem=refusal)  # it would reject the next token, too
        return Revocation(revoked=revoked)

    def end_session(self, report: LogoutReport, connection: ProviderConnection, browser: Browser) -> LogoutReport:
        """Open the provider's sign-out page, which may ask the user to confirm."""
        try:
            endpoint = self._call(connection.issuer, connection.metadata).end_session_endpoint
        except MicromegasError as error:
            return replace(report, end_session_problem=error.what)
        if endpoint is None:
            return replace(report, end_session_problem="The identity provider has no page that ends a session.")
        url = build_end_session_url(endpoint, client_id=connection.client_id)
        return replace(report, end_session_url=url, end_session_opened=browser.open(url))

    def _call(self, issuer: str, call: Callable[[], _Answer]) -> _Answer:
        if issuer in self._unreachable:
            raise self._unreachable[issuer]
        if self.clock.monotonic() >= self._ends_at:
            raise Unavailable("The time limit was reached.")
        try:
            return call()
        except Unavailable as error:
            self._unreachable[issuer] = error
            raise


def build_end_session_url(endpoint: str, *, client_id: str) -> str:
    """Return the URL to open.

    It omits the `id_token_hint` that section 2 recommends: the server accepts the ID token as bearer token, and URLs
    remain in browser histories, proxies, and logs.
    """
    parts = urlsplit(endpoint)
    query = "&".join(each for each in (parts.query, urlencode({"client_id": client_id})) if each)
    return urlunsplit((parts.scheme, parts.netloc, parts.path, query, ""))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Removal:
    """The stored sign-in, if it was readable, and the error from removing it."""

    login: StoredLogin | None
    was_there: bool
    removed_count: int
    problem: str | None
    failed: bool


def _remove(store: TokenStore, *, wait_seconds: float) -> _Removal:
    problem = None
    try:
        with store.locked(wait_seconds=wait_seconds):
            return _remove_locked(store)
    except Unavailable as error:
        problem = error.what
    except TokenStoreError:
        pass  # an untrusted directory or lock is one more reason to end the sign-in
    # Remove it without the lock, too: a lock holder does not write to a store that was emptied in the meantime.
    removal = _remove_locked(store)
    return removal if removal.problem is not None else replace(removal, problem=problem)


def _remove_locked(store: TokenStore) -> _Removal:
    problem, login, was_there = None, None, True
    try:
        was_there = store.mark() is not None
        login, _ = store.load()
    except LoginRequired:
        pass
    except TokenStoreError as error:
        problem = error.what
    removed_count, failed = 0, False
    try:
        removed_count = store.remove()
    except TokenStoreError as error:
        problem, failed = error.what, True
        with suppress(TokenStoreError):
            failed = store.mark() is not None
    return _Removal(login=login, was_there=was_there, removed_count=removed_count, problem=problem, failed=failed)


def _report_removal(
    removal: _Removal, calls: RevocationCalls, connect: Callable[[str, str], ProviderConnection], *, default_issuer: str
) -> LogoutReport:
    if removal.login is None:
        return LogoutReport(
            issuer=default_issuer,
            was_signed_in=removal.was_there,
            files_removed=removal.removed_count,
            problem=removal.problem if removal.was_there else None,
        )
    key, tokens = removal.login.key, removal.login.tokens
    try:
        session = session_of(tokens, issuer=key.issuer, client_id=key.client_id)
    except LoginRequired:
        session = Session(tokens=tokens, claims=None)
    now = calls.clock.now()
    try:
        connection = connect(key.issuer, key.client_id)
        revocation = calls.revoke(tokens, connection)
        now = connection.now()
    except MicromegasError as error:
        revocation = Revocation(problem=error.what)
    report = _report(session, revocation, issuer=key.issuer, now=now)
    return replace(report, files_removed=removal.removed_count, problem=report.problem or removal.problem)


def _report(session: Session, revocation: Revocation, *, issuer: str, now: datetime) -> LogoutReport:
    ends: dict[str, datetime] = {}
    if session.claims is not None:
        ends["ID token"] = session.claims.expires_at
    if "access_token" not in revocation.revoked and session.tokens.expires_at is not None:
        ends["access token"] = session.tokens.expires_at
    left = {name: end for name, end in ends.items() if end > now}
    return LogoutReport(
        issuer=issuer,
        was_signed_in=True,
        refresh_token_revoked="refresh_token" in revocation.revoked,
        access_token_revoked="access_token" in revocation.revoked,
        valid_until=max(left.values(), default=None),
        left_valid=tuple(left),
        ended_at=now,
        problem=revocation.problem,
        provider_answered=revocation.provider_answered,
    )


def _joined(first: LogoutReport, second: LogoutReport) -> LogoutReport:
    """Combine two logouts with one provider; a token counts as revoked only if both revoked it."""
    files_removed, problem = first.files_removed + second.files_removed, first.problem or second.problem
    if not (first.was_signed_in and second.was_signed_in):
        return replace(first if first.was_signed_in else second, files_removed=files_removed, problem=problem)
    ends = [each.valid_until for each in (first, second) if each.valid_until is not None]
    return replace(
        first,
        files_removed=files_removed,
        refresh_token_revoked=first.refresh_token_revoked and second.refresh_token_revoked,
        access_token_revoked=first.access_token_revoked and second.access_token_revoked,
        valid_until=max(ends, default=None),
        left_valid=tuple(dict.fromkeys(first.left_valid + second.left_valid)),
        problem=problem,
        provider_answered=first.provider_answered and second.provider_answered,
    )
