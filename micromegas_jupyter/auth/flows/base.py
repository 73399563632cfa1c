"""What all flows share: the prompt that a person is shown, the wait for that person, and the code grant behind most."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from micromegas_jupyter.auth.flows.pages import LoginOutcome
from micromegas_jupyter.auth.provider_connection import LoginRequest, ProviderConnection
from micromegas_jupyter.config.client import Flow
from micromegas_jupyter.core.system import Clock, Randomness, Secret
from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.oidc.authorization import (
    AuthorizationRequest,
    TokenSet,
    build_authorization_request,
    is_callback_of,
    parse_callback,
)
from micromegas_jupyter.oidc.discovery import ProviderMetadata


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginPrompt:
    """What a person is shown, and for how long it holds.

    Attributes:
        flow: The flow.
        timeout_seconds: How long to wait for the person.
        expires_at: When that ends (aware UTC).
        start_url: The address to open.
        user_code: The code to type.
        verification_uri: Where to type it.
        verification_uri_complete: The same with the code in it, for a QR code.
    """

    flow: Flow
    timeout_seconds: float
    expires_at: datetime
    start_url: str | None = field(default=None, repr=False)
    user_code: str | None = field(default=None, repr=False)
    verification_uri: str | None = None
    verification_uri_complete: str | None = field(default=None, repr=False)


class LoginFlow(ABC):
    """A flow that is waiting for a person. Used by one `PendingSignIn`, from several threads."""

    def __init__(self, prompt: LoginPrompt) -> None:
        self.prompt = prompt

    @abstractmethod
    def tokens(self) -> TokenSet | None:
        """Wait for the person and return the provider's tokens, with the ID token checked.

        None means that nobody came in time or `stop` ended the wait.
        """

    @abstractmethod
    def stop(self) -> None:
        """End the wait for the person."""

    def submit(self, text: str | Secret) -> None:  # noqa: ARG002 - only one flow takes it
        """Take what the person pasted."""
        raise UsageError(
            "This sign-in does not wait for a pasted address.", remedy="Start one with the flow `paste` for that."
        )

    def on_started(self, callback: Callable[[str], None]) -> None:  # noqa: B027 - only one flow calls it
        """Call `callback` with the redirect URI when a browser is sent to the provider, where only then it is known."""

    def show(self, outcome: LoginOutcome) -> None:  # noqa: B027 - a flow without a page of its own shows nothing
        """Show the person how it ended."""

    def close(self, *, linger_seconds: float = 0.0) -> None:  # noqa: B027 - a flow may hold nothing
        """Release what is held, once the page was seen or after `linger_seconds`; safe to call twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeGrant:
    """An authorization code grant with PKCE: the request, and the provider's description when it was made."""

    request: AuthorizationRequest
    metadata: ProviderMetadata
    connection: ProviderConnection
    needs_id_token: bool = True

    def is_answered_by(self, query: str) -> bool:
        """Whether a query string carries this grant's state."""
        return is_callback_of(query, self.request)

    def code_in(self, query: Secret) -> Secret:
        """Return the code that a callback carries; raises as `parse_callback`."""
        return parse_callback(query, request=self.request, metadata=self.metadata)

    def redeem(self, code: Secret) -> TokenSet:
        """Exchange the code for tokens, whose ID token is checked; raises as `ProviderConnection.exchange_code`."""
        return self.connection.exchange_code(self.request, code, needs_id_token=self.needs_id_token)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginContext:
    """What every flow is started with: the request, the provider, and the outside world."""

    request: LoginRequest
    connection: ProviderConnection
    clock: Clock
    randomness: Randomness

    def build_grant(self, metadata: ProviderMetadata, redirect_uri: str, *, state_prefix: str = "") -> CodeGrant:
        """Make an authorization request; touches no network."""
        authorization = build_authorization_request(
            metadata,
            client_id=self.connection.client_id,
            redirect_uri=redirect_uri,
            scope=self.request.scope,
            randomness=self.randomness,
            audience=self.request.audience,
            resource=self.request.resource,
            extra_parameters=self.request.authorize_params,
            state_prefix=state_prefix,
        )
        return CodeGrant(
            request=authorization,
            metadata=metadata,
            connection=self.connection,
            needs_id_token=self.request.needs_id_token,
        )

    def timeout_seconds(self, default_seconds: float, *, maximum: float | None = None) -> float:
        """Return how long to wait for the person."""
        asked = self.request.timeout_seconds
        seconds = default_seconds if asked is None else asked
        return seconds if maximum is None else min(seconds, maximum)

    def build_prompt(self, flow: Flow, timeout_seconds: float, **shown: str | None) -> LoginPrompt:
        """Make a prompt that holds from now on."""
        expires_at = self.clock.now() + timedelta(seconds=timeout_seconds)
        return LoginPrompt(flow=flow, timeout_seconds=timeout_seconds, expires_at=expires_at, **shown)
