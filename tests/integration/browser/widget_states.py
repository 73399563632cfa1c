"""Every state of the sign-in card by name, and a function with which a notebook's cell shows one."""

from dataclasses import replace
from datetime import timedelta

from IPython.display import display

from micromegas_jupyter.config.client import Flow
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.notebook.login.display import IdentityCard
from micromegas_jupyter.notebook.login.session import IdentityState, IdentityStatus

_NOW = SYSTEM_CLOCK.now()
_NOBODY = IdentityState(status=IdentityStatus.SIGNED_OUT, server="lake.example.com:50051", issuer="id.example.com")
_WAITING = replace(
    _NOBODY,
    status=IdentityStatus.WAITING,
    flow=Flow.BROWSER,
    address="http://127.0.0.1:9/start",
    ends_at=_NOW + timedelta(seconds=581),
)
_ALICE = replace(
    _NOBODY,
    status=IdentityStatus.SIGNED_IN,
    name="Alice Martin",
    email="alice@example.com",
    subject="248289761001",
    groups=("analysts", "lake-admins"),
    group_count=2,
    is_admin=True,
    is_personal=True,
    server_line="connected as alice@example.com, 14 ms",
    ends_at=_NOW + timedelta(seconds=3492),
    renews=True,
)

STATES = {
    "not configured": replace(
        _NOBODY, status=IdentityStatus.SIGNED_IN, issuer="", title="No sign-in is configured.", detail="It needs none."
    ),
    "signed out": _NOBODY,
    "waiting": _WAITING,
    "waiting cell": replace(_WAITING, is_awaited=True, detail="Not by device: the provider has no codes."),
    "waiting by redirect": replace(_WAITING, flow=Flow.REDIRECT, address="/elsewhere/micromegas/start/abc.def"),
    "waiting with a code": replace(
        _WAITING,
        flow=Flow.DEVICE,
        address="https://id.example.com/device",
        user_code="WDJB-MJHT",
        scan_address="https://id.example.com/device?user_code=WDJB-MJHT",
    ),
    "waiting for an address": replace(_WAITING, flow=Flow.PASTE, address="https://id.example.com/authorize?state=1"),
    "signed in": _ALICE,
    "working": _ALICE,
    "action failed": _ALICE,
    "many groups": replace(
        _ALICE, groups=tuple(f"organisation-unit-{number:03}" for number in range(256)), group_count=256, is_admin=False
    ),
    "not renewed": replace(_ALICE, ends_at=_NOW + timedelta(seconds=252), renews=False),
    "renewal failed": replace(
        _ALICE,
        status=IdentityStatus.FAILED,
        server_line="",
        detail="Could not renew: id.example.com did not answer in 10 s.",
        ends_at=_NOW + timedelta(seconds=723),
    ),
    "ended": replace(_NOBODY, detail="The provider ended the session."),
    "offline": replace(
        _ALICE,
        status=IdentityStatus.FAILED,
        detail="lake.example.com:50051 could not be reached: the connection was refused.",
        server_line="",
    ),
}


def show(name):
    """Show the state of this name in the running cell."""
    card = IdentityCard(STATES[name], clock=SYSTEM_CLOCK)
    if name == "working":
        card.begin_action("refresh")
    if name == "action failed":
        card.end_action(error="✗ The identity provider id.example.com did not answer. Try again later. · AVAIL002")
    display(card)
    return card
