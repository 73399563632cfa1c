"""Tests of what the identity widget offers."""

from datetime import UTC, datetime

import pytest

from micromegas_jupyter.config.client import Flow
from micromegas_jupyter.notebook.login.state import (
    IdentityAction,
    IdentityState,
    IdentityStatus,
    SignInOffer,
    accepted_actions,
    offered_actions,
)

ENDS_AT = datetime(2026, 11, 24, 13, 0, tzinfo=UTC)
SIGN_IN, SHOW_CODE, CANCEL, REFRESH, SIGN_OUT = IdentityAction


def state(status: IdentityStatus, **facts: object) -> IdentityState:
    return IdentityState(status=status, server="lake", **{"issuer": "id", **facts})  # type: ignore[arg-type]


def waiting(flow: Flow) -> IdentityState:
    return state(IdentityStatus.WAITING, offer=SignInOffer(flow=flow, address="https://id"))


@pytest.mark.parametrize(
    ("shown", "offered"),
    [
        (state(IdentityStatus.SIGNED_OUT), (SIGN_IN,)),
        (state(IdentityStatus.SIGNED_OUT, issuer=""), ()),
        (state(IdentityStatus.EXPIRED), (SIGN_IN,)),
        (waiting(Flow.BROWSER), (SHOW_CODE, CANCEL)),
        (waiting(Flow.DEVICE), (CANCEL,)),
        (waiting(Flow.PASTE), ()),
        (state(IdentityStatus.SIGNED_IN, is_personal=True, renews=True), (REFRESH, SIGN_OUT)),
        (state(IdentityStatus.RENEWAL_FAILED, is_personal=True, renews=True), (REFRESH, SIGN_OUT)),
        (state(IdentityStatus.OFFLINE, is_personal=True, renews=True), (REFRESH, SIGN_OUT)),
        (state(IdentityStatus.SIGNED_IN, is_personal=True, ends_at=ENDS_AT), (SIGN_IN, REFRESH, SIGN_OUT)),
        (state(IdentityStatus.SIGNED_IN, is_personal=True), (REFRESH, SIGN_OUT)),
        (state(IdentityStatus.SIGNED_IN), (REFRESH,)),
        (state(IdentityStatus.SIGNED_IN, is_personal=True, renews=True, through="JupyterHub"), (REFRESH,)),
        (state(IdentityStatus.NOT_CONFIGURED, issuer=""), (REFRESH,)),
        (state(IdentityStatus.WRAPPED, issuer=""), (REFRESH,)),
    ],
)
def test_each_state_offers_what_a_person_can_do_then(shown: IdentityState, offered: tuple[IdentityAction, ...]) -> None:
    assert offered_actions(shown) == offered
    assert accepted_actions(shown) >= set(offered)


@pytest.mark.parametrize(
    "shown", [waiting(Flow.BROWSER), state(IdentityStatus.SIGNED_IN, is_personal=True, ends_at=ENDS_AT)]
)
def test_a_page_that_has_counted_down_to_the_end_may_ask_for_a_new_sign_in(shown: IdentityState) -> None:
    assert SIGN_IN in accepted_actions(shown)


def test_nobody_signs_out_who_is_not_signed_in() -> None:
    assert SIGN_OUT not in accepted_actions(state(IdentityStatus.SIGNED_OUT))
    assert SIGN_OUT not in accepted_actions(state(IdentityStatus.SIGNED_IN))
