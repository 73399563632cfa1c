"""Ends sign-ins: first here, then at the provider, and says what stays valid.

The places are `sign_in_store`'s, the calls `revocation`'s and the words `logout_report`'s.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from micromegas_jupyter.auth.logout_report import LogoutReport, join_reports
from micromegas_jupyter.auth.provider_connection import ProviderConnection
from micromegas_jupyter.auth.provider_session import end_provider_session
from micromegas_jupyter.auth.revocation import LogoutCalls, Revocation
from micromegas_jupyter.auth.session import Session, session_from_storage
from micromegas_jupyter.auth.session_keeper import SessionKeeper
from micromegas_jupyter.auth.sign_in_store import SignInStore
from micromegas_jupyter.auth.token_format import StoredLogin
from micromegas_jupyter.core.system import Browser, Clock
from micromegas_jupyter.errors import LoginRequired, MicromegasError, TokenStoreError, Unavailable

STORE_WAIT_SECONDS = 10.0  # for the locks of all places together


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedSignIn:
    """A sign-in that was removed from the place that kept it.

    Attributes:
        login: What it was; None when nothing readable was there.
        was_there: Whether anything was.
        removed_count: How many files and entries were removed.
        problem: What went wrong with the place.
        remains: Whether it could not be removed.
    """

    login: StoredLogin | None = None
    was_there: bool = False
    removed_count: int = 0
    problem: str | None = None
    remains: bool = False


def end_session(
    keeper: SessionKeeper, connection: ProviderConnection, *, clock: Clock, browser: Browser | None = None
) -> LogoutReport:
    """Forget one session and have its tokens revoked.

    The local end comes first: it holds even when the provider is down or this program is killed meanwhile.

    Args:
        keeper: Holds the session.
        connection: Calls its provider.
        clock: Tells the time.
        browser: Shows the provider's page that ends the person's session there; None leaves that session alone.

    Raises:
        TokenStoreError: The stored sign-in cannot be removed.
        Unavailable: Another program holds its lock.
    """
    session, files_removed = keeper.end()
    calls = LogoutCalls(clock)
    if session is None:
        report = LogoutReport(issuer=connection.issuer, was_signed_in=files_removed > 0, files_removed=files_removed)
    else:
        revocation = calls.revoke(session.tokens, connection)
        report = _report(session, revocation, issuer=connection.issuer, now=connection.now())
        report = replace(report, files_removed=files_removed)
    return report if browser is None else _with_session_end(report, connection, calls, browser)


def end_stored_sign_ins(  # noqa: PLR0913 - its parts
    stores: Iterable[SignInStore],
    connect: Callable[[str, str], ProviderConnection],
    *,
    issuer: str | None,
    client_id: str | None,
    clock: Clock,
    browser: Browser | None = None,
) -> LogoutReport:
    """Remove sign-ins from the places that keep them, then have their tokens revoked.

    All of them end here before any provider is called.

    Args:
        stores: The places.
        connect: Makes the connection to a provider as an application; called once for each pair.
        issuer: The provider that the report is about first; None takes that of the first sign-in.
        client_id: The application there.
        clock: Tells the time.
        browser: Shows the pages that end the person's sessions at the providers; None leaves those alone.

    Raises:
        TokenStoreError: A sign-in could not be removed; all others have ended.
    """
    waits_until = clock.monotonic() + STORE_WAIT_SECONDS
    ended = [_end(store, wait_seconds=max(0.0, waits_until - clock.monotonic())) for store in stores]
    calls = LogoutCalls(clock)
    connections = _Connections(connect)
    reports: dict[str, LogoutReport] = {}
    if issuer is not None:
        reports[issuer] = LogoutReport(issuer=issuer, was_signed_in=False)
    applications = {issuer: client_id}
    for each in ended:
        report = _report_of(each, calls, connections, default_issuer=issuer or "", clock=clock)
        reports[report.issuer] = join_reports(reports[report.issuer], report) if report.issuer in reports else report
        if each.login is not None:
            applications.setdefault(each.login.issuer, each.login.client_id)
    if browser is not None:
        for name, report in reports.items():
            reports[name] = _session_ended(report, applications.get(name), connections, calls, browser)
    if any(each.remains for each in ended):
        raise TokenStoreError(next(each.problem for each in ended if each.remains and each.problem))
    first, *others = reports.values() or [LogoutReport(issuer="", was_signed_in=False)]
    return replace(first, others=tuple(each for each in others if each.was_signed_in))


class _Connections:
    def __init__(self, connect: Callable[[str, str], ProviderConnection]) -> None:
        self._connect = connect
        self._made: dict[tuple[str, str], ProviderConnection] = {}

    def to(self, issuer: str, client_id: str) -> ProviderConnection:
        if (issuer, client_id) not in self._made:
            self._made[issuer, client_id] = self._connect(issuer, client_id)
        return self._made[issuer, client_id]


def _end(store: SignInStore, *, wait_seconds: float) -> EndedSignIn:
    problem = None
    try:
        with store.locked(wait_seconds=wait_seconds):
            return _end_held(store)
    except Unavailable as error:
        problem = error.what
    except TokenStoreError:
        pass  # the folder or the lock is not to be trusted: one more reason to end it
    # Without the lock it ends as well: who holds that does not write to a place that was emptied meanwhile.
    ended = _end_held(store)
    return ended if ended.problem is not None else replace(ended, problem=problem)


def _end_held(store: SignInStore) -> EndedSignIn:
    problem, login, was_there = None, None, True
    try:
        was_there = store.mark() is not None
        login, _ = store.load()
    except LoginRequired:
        pass
    except TokenStoreError as error:
        problem = error.what
    try:
        removed_count, remains = store.remove(), False
    except TokenStoreError as error:
        problem, removed_count = error.what, 0
        remains = _is_there(store)
    return EndedSignIn(login=login, was_there=was_there, removed_count=removed_count, problem=problem, remains=remains)


def _is_there(store: SignInStore) -> bool:
    try:
        return store.mark() is not None
    except TokenStoreError:
        return True


def _report_of(
    ended: EndedSignIn, calls: LogoutCalls, connections: _Connections, *, default_issuer: str, clock: Clock
) -> LogoutReport:
    if ended.login is None:
        return LogoutReport(
            issuer=default_issuer,
            was_signed_in=ended.was_there,
            files_removed=ended.removed_count,
            problem=ended.problem if ended.was_there else None,
        )
    login = ended.login
    try:
        session = session_from_storage(login.tokens, issuer=login.issuer, client_id=login.client_id)
    except LoginRequired:
        session = Session(tokens=login.tokens, claims=None)
    try:
        revocation = calls.revoke(login.tokens, connections.to(login.issuer, login.client_id))
    except MicromegasError as error:
        revocation = Revocation(problem=error.what)
    # The tokens' times are the provider's.
    now = clock.now() + timedelta(seconds=login.clock_offset_seconds)
    report = _report(session, revocation, issuer=login.issuer, now=now)
    return replace(report, files_removed=ended.removed_count, problem=report.problem or ended.problem)


def _report(session: Session, revocation: Revocation, *, issuer: str, now: datetime) -> LogoutReport:
    ends: dict[str, datetime] = {}
    if session.claims is not None:
        ends["ID token"] = session.claims.expires_at
    if not revocation.access_token_revoked and session.tokens.expires_at is not None:
        ends["access token"] = session.tokens.expires_at
    left = {name: end for name, end in ends.items() if end > now}
    return LogoutReport(
        issuer=issuer,
        was_signed_in=True,
        refresh_token_revoked=revocation.refresh_token_revoked,
        access_token_revoked=revocation.access_token_revoked,
        valid_until=max(left.values(), default=None),
        left_valid=tuple(left),
        ended_at=now,
        problem=revocation.problem,
        provider_answered=revocation.provider_answered,
    )


def _session_ended(
    report: LogoutReport, client_id: str | None, connections: _Connections, calls: LogoutCalls, browser: Browser
) -> LogoutReport:
    if client_id is None:
        return report
    try:
        connection = connections.to(report.issuer, client_id)
    except MicromegasError as error:
        return replace(report, end_session_problem=error.what)
    return _with_session_end(report, connection, calls, browser)


def _with_session_end(
    report: LogoutReport, connection: ProviderConnection, calls: LogoutCalls, browser: Browser
) -> LogoutReport:
    end = end_provider_session(connection, calls, browser)
    return replace(report, end_session_url=end.url, end_session_opened=end.opened, end_session_problem=end.problem)
