"""Has a provider end the tokens of a sign-in that has ended here, within one deadline for all of it.

The calls themselves are `provider_connection`'s; ending it here is `logout`'s job.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from micromegas_jupyter.auth.provider_connection import ProviderConnection
from micromegas_jupyter.auth.timely_call import CallTookTooLong, TimelyCalls
from micromegas_jupyter.core.protocols import Secret
from micromegas_jupyter.core.system import Clock
from micromegas_jupyter.errors import MicromegasError, Unavailable
from micromegas_jupyter.oidc.tokens import TokenSet

LOGOUT_SECONDS = 20.0

# Many providers revoke no access tokens, because nobody asks them about those; it is no failure.
_TOLERATED = "unsupported_token_type"

_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """What a provider did about the tokens of one sign-in.

    Attributes:
        refresh_token_revoked: Whether it ended the refresh token.
        access_token_revoked: Whether it ended the access token.
        problem: Why it did not do all that it should; None when it did.
        provider_answered: Whether it could be reached.
    """

    refresh_token_revoked: bool = False
    access_token_revoked: bool = False
    problem: str | None = None
    provider_answered: bool = True


class ProviderCallFailed(Exception):
    """A provider did not do what it was asked; `args[0]` says why.

    Attributes:
        provider_answered: Whether it could be reached.
    """

    def __init__(self, why: str, *, provider_answered: bool) -> None:
        super().__init__(why)
        self.provider_answered = provider_answered


class LogoutCalls:
    """Makes the calls of one logout; from its making on there are `LOGOUT_SECONDS` for all of them together.

    A provider that could not be reached once is not called again.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ends_at = clock.monotonic() + LOGOUT_SECONDS
        self._calls = TimelyCalls()
        self._unreachable: dict[str, str] = {}

    def revoke(self, tokens: TokenSet, connection: ProviderConnection) -> Revocation:
        """Have the refresh token revoked, then the access token. Source: RFC 7009 section 2."""
        revoked = {"refresh_token": False, "access_token": False}
        wanted = {"refresh_token": tokens.refresh_token, "access_token": tokens.access_token}
        for kind, token in wanted.items():
            if token is None:
                continue
            try:
                refusal = self._revoke(connection, token, kind)
            except ProviderCallFailed as failure:
                return _revocation(revoked, str(failure), provider_answered=failure.provider_answered)
            revoked[kind] = refusal is None
            if refusal is not None and not (kind == "access_token" and refusal == _TOLERATED):
                return _revocation(revoked, refusal)  # what refuses one token refuses the next
        return _revocation(revoked, None)

    def call(self, issuer: str, make: Callable[[], _Answer]) -> _Answer:
        """Return a call's answer.

        Raises:
            ProviderCallFailed: It failed, or there is no time left for it.
        """
        if issuer in self._unreachable:
            raise ProviderCallFailed(self._unreachable[issuer], provider_answered=False)
        seconds_left = self._ends_at - self._clock.monotonic()
        if seconds_left <= 0:
            raise ProviderCallFailed("There was no time left to ask.", provider_answered=False)
        why = "It did not answer in time."
        try:
            return self._calls.run(make, timeout_seconds=seconds_left)
        except CallTookTooLong:
            pass
        except Unavailable as error:
            why = error.what
        except MicromegasError as error:
            raise ProviderCallFailed(error.what, provider_answered=True) from None
        self._unreachable[issuer] = why
        raise ProviderCallFailed(why, provider_answered=False)

    def _revoke(self, connection: ProviderConnection, token: Secret, kind: str) -> str | None:
        return self.call(connection.issuer, lambda: connection.revoke(token, kind=kind))


def _revocation(revoked: dict[str, bool], problem: str | None, *, provider_answered: bool = True) -> Revocation:
    return Revocation(
        refresh_token_revoked=revoked["refresh_token"],
        access_token_revoked=revoked["access_token"],
        problem=problem,
        provider_answered=provider_answered,
    )
