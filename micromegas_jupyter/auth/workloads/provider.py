"""`WorkloadProvider`: a program that signs in as what its platform says it is."""

from collections.abc import Callable
from typing import TypeAlias

from micromegas_jupyter.auth.provider_connection import ProviderConnection
from micromegas_jupyter.auth.tokens.service import ServiceToken, ServiceTokenProvider, opaque_service_token
from micromegas_jupyter.auth.workloads.platforms import WorkloadSource
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Clock, Secret
from micromegas_jupyter.oidc.authorization import (
    build_client_assertion_request,
    build_token_exchange_request,
    parse_token_answer,
    parse_token_exchange_answer,
)

# Turns the platform's token into the bearer token.
TokenExchange: TypeAlias = Callable[[Secret], ServiceToken]


def token_exchange(  # noqa: PLR0913 - what the provider is asked
    connection: ProviderConnection,
    *,
    is_assertion: bool = False,
    scope: str | None = None,
    audience: str | None = None,
    resource: str | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> TokenExchange:
    """Return the exchange of the platform's token at the provider (RFC 8693).

    Args:
        connection: Calls the provider.
        is_assertion: Whether the platform's token authenticates the client for client credentials instead (RFC 7523).
        scope: What the new token may do.
        audience: What the new token is for.
        resource: What the new token is for, at providers that follow RFC 8707.
        clock: Tells the time.
    """
    build = build_client_assertion_request if is_assertion else build_token_exchange_request
    parse = parse_token_answer if is_assertion else parse_token_exchange_answer

    def exchange(platform_token: Secret) -> ServiceToken:
        fields = build(platform_token, scope=scope, audience=audience, resource=resource)
        answer = connection.request_token_answer(fields, requested_scope=scope)
        now = clock.now()
        tokens = parse(answer, now=now, requested_scope=scope)
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
