"""What is shown follows from settings, providers, answers and errors: pure functions to `IdentityState`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

from micromegas_jupyter.errors import LoginRequired, MicromegasError, ProviderUnavailable, ServerUnavailable
from micromegas_jupyter.notebook.identity_state import IdentityState, IdentityStatus
from micromegas_jupyter.notebook.parts import PersonalProvider
from micromegas_jupyter.notebook.sign_in_offer import offer_of
from micromegas_jupyter.notebook.words import cut, host_text, printable, provider_text

if TYPE_CHECKING:
    from datetime import datetime

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
        LoginRequired: The sign-in is gone, or its tokens do not say whose it is.
        TokenStoreError: The stored sign-in cannot be read.
    """
    server = host_text(settings.uri)
    if provider is None:
        return IdentityState(status=IdentityStatus.NOT_CONFIGURED, server=server)
    issuer = "" if settings.issuer is None else host_text(settings.issuer)
    if isinstance(provider, PersonalProvider):
        identity = provider.identity()
        through = getattr(provider, "through", "")
        name = _name(identity.name or identity.email or identity.subject)
        email = None if identity.email is None else _name(identity.email)
        return IdentityState(
            status=IdentityStatus.SIGNED_IN,
            server=server,
            issuer=host_text(identity.issuer),
            name=name,
            email=None if email == name else email,
            subject=_name(identity.subject),
            groups=tuple(map(_name, identity.groups)),
            group_count=len(identity.groups),
            is_personal=True,
            through=through,
            ends_at=identity.expires_at,
            renews=identity.renews,
            # What signs them in renews when it is asked for a token, so there is no moment of that.
            renews_at=None if through else _renews_at(provider),
        )
    if settings.api_key_file is not None or settings.client_id is None:
        return IdentityState(status=IdentityStatus.SIGNED_IN, server=server, name="the holder of an API key")
    return IdentityState(
        status=IdentityStatus.SIGNED_IN,
        server=server,
        issuer=issuer,
        name=f"service account {_name(settings.client_id or '')}",
    )


def unnamed_state(settings: ClientSettings) -> IdentityState:
    """Return the state of somebody who is signed in with tokens that do not say who it is."""
    return IdentityState(
        status=IdentityStatus.SIGNED_IN,
        server=host_text(settings.uri),
        issuer=host_text(settings.issuer or ""),
        is_personal=True,
    )


def wrapped_state(settings: ClientSettings) -> IdentityState:
    """Return the state where a wrapper module makes the client."""
    return IdentityState(status=IdentityStatus.WRAPPED, server=host_text(settings.uri))


def waiting_state(settings: ClientSettings, login: Login, *, reason: str = "") -> IdentityState:
    """Return the state while a person is expected to sign in; `reason` says why in this way, when that is news."""
    return IdentityState(
        status=IdentityStatus.WAITING,
        server=host_text(settings.uri),
        issuer=provider_text(settings.issuer),
        ends_at=login.expires_at,
        offer=offer_of(login),
        detail=shown_detail(reason),
    )


def started_state(state: IdentityState, redirect_uri: str) -> IdentityState:
    """Return the state once a browser was sent to the provider; `redirect_uri` is what it is to come back to."""
    if state.status is not IdentityStatus.WAITING:
        return state
    return replace(
        state,
        detail=shown_detail(
            f"The browser comes back to {redirect_uri}. If {state.issuer} says that it does not know that address, "
            "have it registered there, or run %micromegas_login --flow device."
        ),
    )


def signed_out_state(settings: ClientSettings, *, detail: str = "", through: str = "") -> IdentityState:
    """Return the state when nobody is signed in.

    Args:
        settings: Where.
        detail: Why, when there is a reason to say so.
        through: What would sign them in again by itself.
    """
    return IdentityState(
        status=IdentityStatus.SIGNED_OUT,
        server=host_text(settings.uri),
        issuer=host_text(settings.issuer or ""),
        detail=shown_detail(detail),
        through=through,
    )


def failed_login_state(settings: ClientSettings, error: MicromegasError) -> IdentityState:
    """Return the state after a sign-in that ended without a token."""
    return signed_out_state(settings, detail=f"{error.what} {_ATTEMPT_ENDED}")


def after_answer(state: IdentityState, answer: ServerIdentity | None, seconds: float) -> IdentityState:
    """Return a signed-in state with what the server answered to "who am I"; None when it does not offer that."""
    milliseconds = f"{seconds * 1000:.0f} ms"
    if answer is None:
        if state.status is IdentityStatus.WRAPPED:
            return state  # another client cannot ask, and nothing was sent
        return replace(state, server_line=f"connected, does not say as whom, {milliseconds}")
    who = _name(answer.email or answer.name or answer.subject)
    return replace(
        state,
        is_admin=answer.is_admin,
        groups=tuple(map(_name, answer.groups)) or state.groups,
        group_count=answer.group_count or state.group_count,
        server_line=f"connected as {who}, {milliseconds}",
    )


def after_failure(state: IdentityState, error: MicromegasError) -> IdentityState:
    """Return the state after a call that failed; errors that say nothing of the sign-in leave it."""
    if state.status not in _HAS_TOKEN:
        return state
    match error:
        case LoginRequired():
            return replace(
                state,
                status=IdentityStatus.EXPIRED,
                detail=shown_detail(error.what),
                ends_at=None,
                renews=False,
                renews_at=None,
                is_admin=False,
                groups=(),
                group_count=0,
                server_line="",
            )
        case ProviderUnavailable():
            return replace(
                state, status=IdentityStatus.RENEWAL_FAILED, detail=shown_detail(f"Could not renew: {error.what}")
            )
        case ServerUnavailable():
            return replace(state, status=IdentityStatus.OFFLINE, detail=shown_detail(error.what), server_line="")
        case _:
            return state


def has_token(state: IdentityState | None) -> bool:
    """Whether there was a token that worked when the state was last looked at."""
    return state is not None and state.status in _HAS_TOKEN


def after_success(state: IdentityState, fresh: IdentityState) -> IdentityState:
    """Return the state after a call that worked: `fresh` of the provider, with what the server had said before.

    What it had said of somebody else says nothing: a person may have signed in elsewhere meanwhile.
    """
    if state.subject and state.subject != fresh.subject:
        return fresh
    return replace(
        fresh,
        is_admin=state.is_admin,
        groups=state.groups or fresh.groups,
        group_count=state.group_count or fresh.group_count,
        server_line=state.server_line,
    )


def shown_detail(text: str) -> str:
    """Return what happened as it is shown: foreign control characters written out, and cut when it is long."""
    return cut(printable(text), _MAX_DETAIL_CHARACTERS)


def _renews_at(provider: PersonalProvider) -> datetime | None:
    renewal_due_at = getattr(provider, "renewal_due_at", None)
    return cast("datetime | None", renewal_due_at()) if callable(renewal_due_at) else None


def _name(text: str) -> str:
    return cut(printable(text), _MAX_NAME_CHARACTERS)
