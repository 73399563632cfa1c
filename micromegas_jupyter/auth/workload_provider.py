"""`WorkloadProvider`: a program that signs in as what its platform says it is.

How each platform is asked is the sources' job (`workload_github` and its siblings).
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Protocol, TypeAlias

from micromegas_jupyter.auth.service_token import KeptServiceToken, ServiceToken, opaque_service_token
from micromegas_jupyter.auth.workload_source import WorkloadSource
from micromegas_jupyter.core.protocols import Secret
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Clock
from micromegas_jupyter.oidc.tokens import (
    TokenSet,
    build_client_assertion_request,
    build_token_exchange_request,
    parse_token_answer,
    parse_token_exchange_answer,
)

# Turns the platform's token into the bearer token.
TokenTrade: TypeAlias = Callable[[Secret], ServiceToken]


class TokenRequests(Protocol):
    """What a trade needs of `ProviderConnection`."""

    def request_token_answer(self, fields: Mapping[str, str | Secret], *, asked_scope: str | None) -> dict[str, object]:
        """Ask the token endpoint and return its successful answer."""
        ...


class AnswerParser(Protocol):
    """Reads a token answer of one grant."""

    def __call__(self, body: object, *, now: datetime, asked_scope: str | None) -> TokenSet:
        """Return the tokens."""
        ...


def token_exchange_trade(
    connection: TokenRequests,
    *,
    scope: str | None = None,
    audience: str | None = None,
    resource: str | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> TokenTrade:
    """Return the trade that exchanges the platform's token at the provider (RFC 8693)."""

    def build(platform_token: Secret) -> Mapping[str, str | Secret]:
        return build_token_exchange_request(platform_token, audience=audience, resource=resource, scope=scope)

    return _trade(connection, build, parse_token_exchange_answer, scope=scope, clock=clock)


def client_assertion_trade(
    connection: TokenRequests,
    *,
    scope: str | None = None,
    audience: str | None = None,
    resource: str | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> TokenTrade:
    """Return the trade in which the platform's token authenticates the client for client credentials (RFC 7523)."""

    def build(platform_token: Secret) -> Mapping[str, str | Secret]:
        return build_client_assertion_request(platform_token, scope=scope, audience=audience, resource=resource)

    return _trade(connection, build, parse_token_answer, scope=scope, clock=clock)


def _trade(
    connection: TokenRequests,
    build: Callable[[Secret], Mapping[str, str | Secret]],
    parse: AnswerParser,
    *,
    scope: str | None,
    clock: Clock,
) -> TokenTrade:
    def trade(platform_token: Secret) -> ServiceToken:
        answer = connection.request_token_answer(build(platform_token), asked_scope=scope)
        now = clock.now()
        tokens = parse(answer, now=now, asked_scope=scope)
        return opaque_service_token(tokens.access_token, now=now, expires_at=tokens.expires_at)

    return trade


class WorkloadProvider:
    """Gives tokens of a program that its platform vouches for.

    Args:
        source: Asks the platform.
        trade: What becomes of the platform's token; None when it is the bearer token.
        clock: Tells the time.
    """

    def __init__(self, source: WorkloadSource, *, trade: TokenTrade | None = None, clock: Clock = SYSTEM_CLOCK) -> None:
        self._source = source
        self._trade = trade
        self._kept = KeptServiceToken(self._fetch, clock=clock)

    def get_token(self) -> str:
        """Return a token that is valid now.

        Raises:
            LoginFailed: The platform or the provider does not accept the program.
            ProviderUnavailable: A token is needed, and the platform or the provider does not answer.
            ProviderMisbehaved: An answer breaks the protocol.
            ConfigurationError: The program does not run on that platform, or not as it was set up.
        """
        if self._trade is None and self._source.is_read_each_time:
            return self._source.fetch().text.reveal()
        return self._kept.get_token()

    def invalidate(self, token: str) -> None:
        """Forget `token`, because the server refused it; one that is read each time is read again anyway."""
        self._kept.invalidate(token)

    def renewal_due_at(self) -> datetime | None:
        """Return from when on `get_token` fetches the next token (aware UTC); None when none is kept."""
        return self._kept.renewal_due_at()

    def _fetch(self) -> ServiceToken:
        platform_token = self._source.fetch()
        return platform_token if self._trade is None else self._trade(platform_token.text)

    def __repr__(self) -> str:
        return f"WorkloadProvider(platform={self._source.name!r})"

    def __reduce__(self) -> str:
        raise TypeError("a sign-in cannot be pickled")
