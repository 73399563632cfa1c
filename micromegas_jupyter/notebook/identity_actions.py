"""What a person can do from the identity widget, and in which state; doing it is `identity_buttons`' job."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from micromegas_jupyter.notebook.identity_state import IdentityStatus
from micromegas_jupyter.settings import Flow

if TYPE_CHECKING:
    from micromegas_jupyter.notebook.identity_state import IdentityState


class IdentityAction(enum.StrEnum):
    """A button of the widget."""

    SIGN_IN = "sign_in"
    SHOW_CODE = "show_code"
    CANCEL = "cancel"
    REFRESH = "refresh"
    SIGN_OUT = "sign_out"


def offered_actions(state: IdentityState) -> tuple[IdentityAction, ...]:
    """Return what the widget offers in this state, in the order of its buttons."""
    match state.status:
        case IdentityStatus.SIGNED_OUT | IdentityStatus.EXPIRED:
            return (IdentityAction.SIGN_IN,) if state.issuer or state.through else ()
        case IdentityStatus.WAITING:
            return _while_waiting(state)
        case IdentityStatus.SIGNED_IN | IdentityStatus.RENEWAL_FAILED | IdentityStatus.OFFLINE:
            if not state.is_personal or state.through:
                return (IdentityAction.REFRESH,)
            if state.renews or state.ends_at is None:
                return (IdentityAction.REFRESH, IdentityAction.SIGN_OUT)
            return (IdentityAction.SIGN_IN, IdentityAction.REFRESH, IdentityAction.SIGN_OUT)
        case IdentityStatus.NOT_CONFIGURED | IdentityStatus.WRAPPED:
            return (IdentityAction.REFRESH,)


def accepted_actions(state: IdentityState) -> frozenset[IdentityAction]:
    """Return what may be asked for in this state: a page that has counted down to the end offers a new sign-in."""
    anew = (IdentityAction.SIGN_IN,) if state.is_personal or state.status is IdentityStatus.WAITING else ()
    return frozenset((*offered_actions(state), *anew))


def _while_waiting(state: IdentityState) -> tuple[IdentityAction, ...]:
    match None if state.offer is None else state.offer.flow:
        case Flow.PASTE:
            return ()  # the cell below asks for the address, and is what ends it
        case Flow.DEVICE:
            return (IdentityAction.CANCEL,)
        case _:
            return (IdentityAction.SHOW_CODE, IdentityAction.CANCEL)
