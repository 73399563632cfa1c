"""The state of a sign-in: its sentences, its offers, its buttons, and who is told of it."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from micromegas_jupyter.config.client import Flow
from micromegas_jupyter.notebook.login.session import (
    IdentityAction,
    IdentityState,
    IdentityStatus,
    ShownState,
    SignInOffer,
    accepted_actions,
    identity_lines,
    lines_as_html,
    offer_line,
    offer_of,
    offered_actions,
    waiting_address,
    waiting_line,
)
from tests.fakes.notebook_world import SCAN_URI, SETTINGS, START_URL, USER_CODE, VERIFICATION_URI, FakeLogin

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
ALICE = IdentityState(
    status=IdentityStatus.SIGNED_IN,
    server="lake.example.com",
    issuer="id.example.com",
    name="Alice Martin",
    email="alice@example.com",
    ends_at=datetime(2026, 11, 24, 15, 42, tzinfo=UTC),
    renews=True,
)
SOON = datetime(2026, 11, 24, 12, 10, tzinfo=UTC)
ENDS_AT = datetime(2026, 11, 24, 13, 0, tzinfo=UTC)
SIGN_IN, SHOW_CODE, CANCEL, REFRESH, SIGN_OUT = IdentityAction
SIGNED_OUT = IdentityState(status=IdentityStatus.SIGNED_OUT, server="lake.example.com")
SIGNED_IN = replace(SIGNED_OUT, status=IdentityStatus.SIGNED_IN)


def test_what_somebody_may_do_is_said_once_the_server_has_answered() -> None:
    groups = tuple(f"group{number}" for number in range(40))
    unknown = replace(ALICE, is_admin=True, groups=groups, group_count=250)

    answered = replace(unknown, server_line="connected as alice, 14 ms")

    assert len(identity_lines(unknown, now=NOW)) == 1
    rights = identity_lines(answered, now=NOW)[2]
    assert rights.startswith("admin · groups: group0, group1, ")
    assert rights.endswith(", group31, and 218 more")


def test_html_of_a_code_has_no_picture_and_no_link_that_holds_the_code() -> None:
    offer = SignInOffer(flow=Flow.DEVICE, address=VERIFICATION_URI, user_code=USER_CODE, scan_address=SCAN_URI)

    html = lines_as_html(["one"], offer=offer)

    assert html == (
        f'<p>one<br><a href="{VERIFICATION_URI}" target="_blank" rel="noopener noreferrer">Open the page</a></p>'
    )


def login(flow: Flow = Flow.BROWSER) -> FakeLogin:
    return FakeLogin(expires_at=SOON, flow=flow)


def test_the_jupyter_servers_own_page_may_be_a_path() -> None:
    path = "/x/micromegas/start/kernel-1.AbC_d-0"
    offer = offer_of(FakeLogin(expires_at=SOON, flow=Flow.REDIRECT, start_url=path))

    line = offer_line(offer, issuer="id.example.com", until="")

    assert offer == SignInOffer(flow=Flow.REDIRECT, address=path)
    assert line == f"Sign in at id.example.com: open {path} of this Jupyter server. This notebook continues by itself."


@pytest.mark.parametrize(
    "address",
    [
        "//evil.example/micromegas/start/a.b",
        "/x/elsewhere",
        "javascript:/micromegas/start/a",
        "/micromegas/start/a b",
        "/micromegas/start/a?b",
    ],
)
def test_no_other_path_is_offered(address: str) -> None:
    offer = offer_of(FakeLogin(expires_at=SOON, flow=Flow.REDIRECT, start_url=address))

    assert offer.address == ""


def test_an_address_that_holds_the_code_is_for_scanning_only() -> None:
    offer = offer_of(login(Flow.DEVICE))

    assert offer.scan_address == SCAN_URI
    assert SCAN_URI not in offer_line(offer, issuer="id.example.com", until="")
    assert offer.address == VERIFICATION_URI


@pytest.mark.parametrize("address", [None, "", "javascript:alert(1)", "data:text/html,x", "file:///etc/passwd"])
def test_only_web_addresses_are_offered(address: str | None) -> None:
    asked = login(Flow.DEVICE)
    asked.verification_uri = address
    asked.verification_uri_complete = address

    offer = offer_of(asked)

    assert (offer.address, offer.scan_address) == ("", "")


def test_what_a_provider_gives_is_written_out() -> None:
    asked = login(Flow.DEVICE)
    asked.user_code = "AB\x1b[2J" + "C" * 100
    asked.verification_uri = "https://id.example.com/\u202edevice"

    offer = offer_of(asked)

    assert offer.user_code == "AB\\x1b[2J" + "C" * 54 + "…"
    assert offer.address == "https://id.example.com/\\u202edevice"


@pytest.mark.parametrize(
    ("flow", "line", "address"),
    [
        (Flow.BROWSER, f"waiting for you to sign in at id.example.com: open {START_URL} (until 12:10 UTC)", START_URL),
        (
            Flow.DEVICE,
            f"waiting for you to type {USER_CODE} at {VERIFICATION_URI} (until 12:10 UTC)",
            VERIFICATION_URI,
        ),
        (Flow.PASTE, "waiting for you to sign in at id.example.com (until 12:10 UTC)", ""),
    ],
)
def test_a_cell_that_waits_says_where_to_go_unless_the_address_holds_the_sign_ins_state(
    flow: Flow, line: str, address: str
) -> None:
    offer = offer_of(login(flow))

    assert waiting_line(offer, issuer="id.example.com", until=" (until 12:10 UTC)") == line
    assert waiting_address(offer) == address


@pytest.mark.parametrize("flow", [Flow.BROWSER, Flow.DEVICE, Flow.PASTE])
def test_what_a_person_is_shown_is_in_no_representation(flow: Flow) -> None:
    assert repr(offer_of(login(flow))) == f"SignInOffer(flow={flow!r})"


def state(status: IdentityStatus, **facts: object) -> IdentityState:
    return IdentityState(status=status, server="lake", **{"issuer": "id", **facts})  # type: ignore[arg-type]


def waiting_for(flow: Flow) -> IdentityState:
    return state(IdentityStatus.WAITING, offer=SignInOffer(flow=flow, address="https://id"))


@pytest.mark.parametrize(
    ("shown", "offered"),
    [
        (state(IdentityStatus.SIGNED_OUT), (SIGN_IN,)),
        (state(IdentityStatus.SIGNED_OUT, issuer=""), ()),
        (state(IdentityStatus.EXPIRED), (SIGN_IN,)),
        (waiting_for(Flow.BROWSER), (SHOW_CODE, CANCEL)),
        (waiting_for(Flow.DEVICE), (CANCEL,)),
        (waiting_for(Flow.PASTE), ()),
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


def test_nobody_signs_out_who_is_not_signed_in() -> None:
    assert SIGN_OUT not in accepted_actions(state(IdentityStatus.SIGNED_OUT))
    assert SIGN_OUT not in accepted_actions(state(IdentityStatus.SIGNED_IN))


def test_every_listener_is_told_what_is_shown() -> None:
    shown = ShownState()
    first: list[IdentityState] = []
    second: list[IdentityState] = []
    shown.subscribe(first.append)
    shown.subscribe(second.append)

    shown.show(SETTINGS, SIGNED_OUT)
    shown.change(SETTINGS, lambda _: SIGNED_IN)

    assert first == second == [SIGNED_OUT, SIGNED_IN]
    assert shown.shown == (SETTINGS, SIGNED_IN)


def test_a_change_that_changes_nothing_is_not_told() -> None:
    shown = ShownState()
    told: list[IdentityState] = []
    shown.show(SETTINGS, SIGNED_OUT)
    shown.subscribe(told.append)

    shown.change(SETTINGS, replace)

    assert told == []
