"""What is shown follows from settings, providers, answers and errors: pure functions to `IdentityState`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from micromegas_jupyter.errors import LoginRequired, MicromegasError, ProviderUnavailable, ServerUnavailable
from micromegas_jupyter.notebook.identity_state import IdentityState, IdentityStatus
from micromegas_jupyter.notebook.parts import PersonalProvider
from micromegas_jupyter.notebook.words import cut, host_text, printable

if TYPE_CHECKING:
    from micromegas_jupyter.client import ServerIdentity
    from micromegas_jupyter.contracts import AuthProvider
    from micromegas_jupyter.notebook.parts import Login
    from micromegas_jupyter.settings import ClientSettings

_MAX_NAME_CHARACTERS = 120
_MAX_DETAIL_CHARACTERS = 300
_HAS_TOKEN = frozenset({IdentityStatus.SIGNED_IN, IdentityStatus.RENEWAL_FAILED, IdentityStatus.OFFLINE})
_ATTEMPT_ENDED = "Run %micromegas_login to try again."


def signed_in_state(settings: ClientSettings, provider: AuthProvider | None) -> IdentityState:
    """Return the state of a provider that was just found or made.

    Raises:
        AuthenticationError: The provider's sign-in cannot be read.
    """
    server = host_text(settings.uri)
    if provider is None:
        return IdentityState(status=IdentityStatus.NOT_CONFIGURED, server=server)
    issuer = "" if settings.issuer is None else host_text(settings.issuer)
    if isinstance(provider, PersonalProvider):
        identity = provider.identity()
        name = _name(identity.name or identity.email or identity.subject)
        email = None if identity.email is None else _name(identity.email)
        return IdentityState(
            status=IdentityStatus.SIGNED_IN,
            server=server,
            issuer=host_text(identity.issuer),
            name=name,
            email=None if email == name else email,
            ends_at=identity.expires_at,
            renews=identity.renews,
        )
    if settings.api_key_file is not None:
        return IdentityState(status=IdentityStatus.SIGNED_IN, server=server, name="the holder of an API key")
    return IdentityState(
        status=IdentityStatus.SIGNED_IN,
        server=server,
        issuer=issuer,
        name=f"service account {_name(settings.client_id or '')}",
    )


def waiting_state(settings: ClientSettings, login: Login) -> IdentityState:
    """Return the state while a person is expected to sign in."""
    return IdentityState(
        status=IdentityStatus.WAITING,
        server=host_text(settings.uri),
        issuer=host_text(settings.issuer or ""),
        ends_at=login.expires_at,
        start_url=login.start_url,
    )


def signed_out_state(settings: ClientSettings, *, detail: str = "") -> IdentityState:
    """Return the state when nobody is signed in; `detail` says why, when there is a reason to."""
    return IdentityState(
        status=IdentityStatus.SIGNED_OUT,
        server=host_text(settings.uri),
        issuer=host_text(settings.issuer or settings.uri),
        detail=_detail(detail),
    )


def failed_login_state(settings: ClientSettings, error: MicromegasError) -> IdentityState:
    """Return the state after a sign-in that ended without a token."""
    return signed_out_state(settings, detail=f"{error.what} {_ATTEMPT_ENDED}")


def after_answer(state: IdentityState, answer: ServerIdentity | None, seconds: float) -> IdentityState:
    """Return a signed-in state with what the server answered to "who am I"; None when it does not offer that."""
    milliseconds = f"{seconds * 1000:.0f} ms"
    if answer is None:
        return replace(state, server_line=f"connected, does not say as whom, {milliseconds}")
    who = _name(answer.email or answer.name or answer.subject)
    return replace(state, is_admin=answer.is_admin, server_line=f"connected as {who}, {milliseconds}")


def after_failure(state: IdentityState, error: MicromegasError) -> IdentityState:
    """Return the state after a call that failed; errors that say nothing of the sign-in leave it."""
    if state.status not in _HAS_TOKEN:
        return state
    match error:
        case LoginRequired():
            return replace(
                state,
                status=IdentityStatus.EXPIRED,
                detail=_detail(error.what),
                ends_at=None,
                renews=False,
                is_admin=False,
                server_line="",
            )
        case ProviderUnavailable():
            return replace(
                state, status=IdentityStatus.RENEWAL_FAILED, detail=_detail(f"Could not renew: {error.what}")
            )
        case ServerUnavailable():
            return replace(state, status=IdentityStatus.OFFLINE, detail=_detail(error.what), server_line="")
        case _:
            return state


def after_success(state: IdentityState, fresh: IdentityState) -> IdentityState:
    """Return the state after a call that worked: `fresh` of the provider, with what the server had said before."""
    return replace(fresh, is_admin=state.is_admin, server_line=state.server_line)


def _name(text: str) -> str:
    return cut(printable(text), _MAX_NAME_CHARACTERS)


def _detail(text: str) -> str:
    return cut(printable(text), _MAX_DETAIL_CHARACTERS)
