"""Ends a sign-in: first here, then at the provider, and says what stays valid.

The file is `token_store`'s and the call `provider_connection`'s.
"""

from datetime import datetime

from micromegas_jupyter.auth.identity import LogoutReport
from micromegas_jupyter.auth.provider_connection import ProviderConnection
from micromegas_jupyter.auth.session import Session
from micromegas_jupyter.auth.session_keeper import SessionKeeper
from micromegas_jupyter.contracts import Secret
from micromegas_jupyter.errors import MicromegasError
from micromegas_jupyter.seams import Clock

# Many providers revoke no access tokens, because nobody asks them about those; it is no failure.
_TOLERATED = "unsupported_token_type"


def end_session(keeper: SessionKeeper, connection: ProviderConnection, *, clock: Clock) -> LogoutReport:
    """Forget the session and revoke its refresh token, then its access token.

    The local end comes first: it holds even when the provider is down or this program is killed meanwhile.
    Source: RFC 7009 section 2.

    Raises:
        TokenStoreError: The file cannot be removed.
        Unavailable: Another program holds the file's lock.
    """
    session, files_removed = keeper.end()
    if session is None:
        return LogoutReport(issuer=connection.issuer, was_signed_in=files_removed > 0, files_removed=files_removed)
    problem = None
    revoked = {"refresh_token": False, "access_token": False}
    tokens = {"refresh_token": session.tokens.refresh_token, "access_token": session.tokens.access_token}
    for kind, token in tokens.items():
        if token is None:
            continue
        refusal = _revoke(connection, token, kind)
        revoked[kind] = refusal is None
        if refusal is not None and not (kind == "access_token" and refusal == _TOLERATED):
            problem = problem or refusal
            break  # what refuses or does not answer for one token does so for the next
    return LogoutReport(
        issuer=connection.issuer,
        was_signed_in=True,
        files_removed=files_removed,
        refresh_token_revoked=revoked["refresh_token"],
        access_token_revoked=revoked["access_token"],
        valid_until=_valid_until(session, now=clock.now(), access_token_revoked=revoked["access_token"]),
        problem=problem,
    )


def _revoke(connection: ProviderConnection, token: Secret, kind: str) -> str | None:
    try:
        return connection.revoke(token, kind=kind)
    except MicromegasError as error:
        return error.what


def _valid_until(session: Session, *, now: datetime, access_token_revoked: bool) -> datetime | None:
    ends = [session.claims.expires_at] if session.claims is not None else []
    if not access_token_revoked and session.tokens.expires_at is not None:
        ends.append(session.tokens.expires_at)
    latest = max(ends, default=None)
    return latest if latest is not None and latest > now else None
