"""`WorkloadProvider`: a program that signs in as what its platform says it is."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Protocol, TypeAlias

from micromegas_jupyter.auth.tokens.service import ServiceToken, ServiceTokenProvider, opaque_service_token
from micromegas_jupyter.auth.workloads.platforms import WorkloadSource
from micromegas_jupyter.core.secrets import Secret
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Clock
from micromegas_jupyter.oidc.tokens import (
    TokenSet,
    build_client_assertion_request,
    build_token_exchange_request,
    parse_token_answer,
    parse_token_exchange_answer,
)

# Turns the platform's token into the bearer token.
TokenExchange: TypeAlias = Callable[[Secret], ServiceToken]


class TokenRequests(Protocol):
    """What an exchange needs of `ProviderConnection`."""

    def request_token_answer(self, fields: Mapping[str, str | Secret], *, asked_scope: str | None) -> dict[str, object]:
        """Ask the token endpoint and return its successful answer."""
        ...


class AnswerParser(Protocol):
    """Reads a token answer of one grant."""

    def __call__(self, body: object, *, now: datetime, asked_scope: str | None) -> TokenSet:
        """Return the tokens."""
        ...


def token_exchange(
    connection: TokenRequests,
    *,
    scope: str | None = None,
    audience: str | None = None,
    resource: str | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> TokenExchange:
    """Exchange the platform's token at the provider (RFC 8693)."""

    def build(platform_token: Secret) -> Mapping[str, str | Secret]:
        return build_token_exchange_request(platform_token, audience=audience, resource=resource, scope=scope)

    return _exchange(connection, build, parse_token_exchange_answer, scope=scope, clock=clock)


def client_assertion_exchange(
    connection: TokenRequests,
    *,
    scope: str | None = None,
    audience: str | None = None,
    resource: str | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> TokenExchange:
    """Use the platform's token to authenticate the client for client credentials (RFC 7523)."""

    def build(platform_token: Secret) -> Mapping[str, str | Secret]:
        return build_client_assertion_request(platform_token, scope=scope, audience=audience, resource=resource)

    return _exchange(connection, build, parse_token_answer, scope=scope, clock=clock)


def _exchange(
    connection: TokenRequests,
    build: Callable[[Secret], Mapping[str, str | Secret]],
    parse: AnswerParser,
    *,
    scope: str | None,
    clock: Clock,
) -> TokenExchange:
    def exchange(platform_token: Secret) -> ServiceToken:
        answer = connection.request_token_answer(build(platform_token), asked_scope=scope)
        now = clock.now()
        tokens = parse(answer, now=now, asked_scope=scope)
        return opaque_service_token(tokens.access_token, now=now, expires_at=tokens.expires_at)

    return exchange


class WorkloadProvider(ServiceTokenProvider):
    """Gives tokens of a program that its platform vouches for.

    Args:
        source: Asks the platform.
        exchange: Turns the platform's token into the bearer token; None when it is the bearer token.
        clock: Tells the time.
    """

    def __init__(
        self, source: WorkloadSource, *, exchange: TokenExchange | None = None, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        super().__init__(clock)
        self._source = source
        self._exchange = exchange

    def get_token(self) -> str:
        """Return a token that is valid now; one that is read each time is not cached."""
        if self._exchange is None and self._source.is_read_each_time:
            return self._source.fetch().text.reveal()
        return super().get_token()

    def _fetch(self) -> ServiceToken:
        platform_token = self._source.fetch()
        return platform_token if self._exchange is None else self._exchange(platform_token.text)

    def __repr__(self) -> str:
        return f"WorkloadProvider(platform={self._source.name!r})"
