"""The state of a sign-in: its offers, its buttons, and the card that shows it."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from threading import Event

import pytest

from micromegas_jupyter.config.client import Flow
from micromegas_jupyter.notebook.login.display import TOO_LATE, IdentityCard, IdentityDisplay, build_view
from micromegas_jupyter.notebook.login.session import (
    IdentityState,
    IdentityStatus,
    offered_actions,
    waiting_state,
)
from tests.fakes.notebook_world import (
    PASTE_URL,
    SCAN_URI,
    SECRET_TOKEN,
    SETTINGS,
    START_URL,
    USER_CODE,
    VERIFICATION_URI,
    FakeLogin,
)

SOON = datetime(2026, 11, 24, 12, 10, tzinfo=UTC)
ENDS_AT = datetime(2026, 11, 24, 13, 0, tzinfo=UTC)
SIGN_IN, SHOW_CODE, CANCEL, REFRESH, SIGN_OUT = "sign_in", "show_code", "cancel", "refresh", "sign_out"


def test_a_server_with_a_name_is_called_by_it_and_its_addresses_are_below():
    named = replace(WAITING, server_name="Micromegas demo")
    signed_out = state(IdentityStatus.SIGNED_OUT, server_name="Micromegas demo")
    shown = [build_view(each, now=NOW) for each in (named, replace(named, is_awaited=True), signed_out)]

    assert [each["title"] for each in shown] == [
        "Sign in to Micromegas demo",
        "Sign in to Micromegas demo to continue",
        "Not signed in to Micromegas demo.",
    ]
    assert all("at id " in str(each["lines"]) for each in shown)


def login(flow=Flow.BROWSER):
    return FakeLogin(expires_at=SOON, flow=flow)


@pytest.mark.parametrize(
    ("address", "is_offered"),
    [
        ("/x/micromegas/start/kernel-1.AbC_d-0", True),
        ("https://id.example.com/device", True),
        ("//evil.example/micromegas/start/a.b", False),
        ("/x/elsewhere", False),
        ("/micromegas/start/a b", False),
        ("/micromegas/start/a?b", False),
        ("javascript:/micromegas/start/a", False),
        ("data:text/html,x", False),
        ("file:///etc/passwd", False),
        ("", False),
    ],
)
def test_only_web_addresses_and_the_jupyter_servers_own_page_are_offered(address, is_offered):
    redirect = FakeLogin(expires_at=SOON, flow=Flow.REDIRECT, start_url=address)
    device = login(Flow.DEVICE)
    device.verification_uri = device.verification_uri_complete = address

    assert waiting_state(SETTINGS, redirect).address == (address if is_offered else "")
    is_web = address.startswith("https://")
    shown = waiting_state(SETTINGS, device)
    assert (shown.address, shown.scan_address) == ((address,) * 2 if is_web else ("", ""))


def test_what_a_provider_gives_is_written_out():
    asked = login(Flow.DEVICE)
    asked.user_code = "AB\x1b[2J" + "C" * 100
    asked.verification_uri = "https://id.example.com/\u202edevice"

    offer = waiting_state(SETTINGS, asked)

    assert offer.user_code == "AB\\x1b[2J" + "C" * 54 + "…"
    assert offer.address == "https://id.example.com/\\u202edevice"


def state(status, **facts):
    return IdentityState(status=status, server="lake", **{"issuer": "id", **facts})  # type: ignore[arg-type]


def waiting_for(flow):
    return state(IdentityStatus.WAITING, flow=flow, address="https://id")


@pytest.mark.parametrize(
    ("shown", "offered"),
    [
        (state(IdentityStatus.SIGNED_OUT), (SIGN_IN,)),
        (state(IdentityStatus.SIGNED_OUT, issuer=""), ()),
        (waiting_for(Flow.BROWSER), (SIGN_IN, SHOW_CODE, CANCEL)),
        (waiting_for(Flow.DEVICE), (SIGN_IN, CANCEL)),
        (waiting_for(Flow.PASTE), (SIGN_IN,)),
        (state(IdentityStatus.SIGNED_IN, is_personal=True, renews=True), (REFRESH, SIGN_OUT)),
        (state(IdentityStatus.FAILED, is_personal=True, renews=True), (REFRESH, SIGN_OUT)),
        (state(IdentityStatus.SIGNED_IN, is_personal=True, ends_at=ENDS_AT), (SIGN_IN, REFRESH, SIGN_OUT)),
        (state(IdentityStatus.SIGNED_IN), (REFRESH,)),
        (state(IdentityStatus.SIGNED_IN, is_personal=True, renews=True, through="JupyterHub"), (REFRESH,)),
        (state(IdentityStatus.SIGNED_IN, issuer=""), (REFRESH,)),
    ],
)
def test_each_state_offers_what_a_person_can_do_then(shown, offered):
    assert offered_actions(shown) == offered


WAITING = state(IdentityStatus.WAITING, flow=Flow.BROWSER, address=START_URL, ends_at=SOON)
CODE = replace(WAITING, flow=Flow.DEVICE, address=VERIFICATION_URI, user_code=USER_CODE, scan_address=SCAN_URI)
PASTE = replace(WAITING, flow=Flow.PASTE, address=PASTE_URL)
SIGNED_IN = state(IdentityStatus.SIGNED_IN, name="Alice Martin", ends_at=ENDS_AT, is_personal=True)


@pytest.fixture
def card(clock):
    return IdentityCard(SIGNED_IN, clock=clock)


@pytest.fixture
def sent(card, monkeypatch):
    """What the card sends to the open pages."""
    found = []
    monkeypatch.setattr(card, "send", found.append)
    return found


@pytest.mark.parametrize(
    ("waiting", "asked"),
    [(WAITING, START_URL), (CODE, VERIFICATION_URI), (PASTE, PASTE_URL)],
    ids=["link", "code", "paste"],
)
def test_an_address_is_sent_to_the_pages_and_is_in_no_state(card, sent, waiting, asked):
    card.apply(waiting)
    during = json.dumps(card.get_state())
    card._handle_custom_msg({"action": ""}, [])

    card.apply(SIGNED_IN)

    assert [message["address"] for message in sent] == [asked, asked, ""]
    assert asked not in during
    assert (USER_CODE in during) is (waiting is CODE)
    after = json.dumps(card.get_state()) + str(card._repr_mimebundle_())
    assert asked not in after
    assert USER_CODE not in after
    assert '"path"' not in after


def test_a_button_is_passed_on_and_what_is_none_is_not(clock):
    pressed = []
    card = IdentityCard(SIGNED_IN, clock=clock, on_press=lambda action, _card: pressed.append(action))

    for content in ({"action": "sign_out"}, {"action": "eval"}, {"action": ["refresh"]}, {}, "refresh", None, 7):
        card._handle_custom_msg(content, [])

    assert pressed == [SIGN_OUT]


NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
RENEWS = replace(SIGNED_IN, renews=True)


@pytest.mark.parametrize(
    ("shown", "seconds", "line", "ended"),
    [
        (WAITING, 600, "valid for {left}", "The link has expired."),
        (CODE, 600, "valid for {left}", "The code has expired."),
        (RENEWS, 3600, "expires in {left}, renews", "renewing now"),
        (SIGNED_IN, 3600, "does not renew", "The sign-in to id has expired."),
        (replace(RENEWS, through="JupyterHub"), 3600, "renews by itself", "renews at the next query"),
        (replace(RENEWS, status=IdentityStatus.FAILED, detail="No."), 3600, "No.", "renewing now"),
        (state(IdentityStatus.SIGNED_OUT, detail="Signed out."), None, "Signed out.", ""),
    ],
)
def test_a_view_has_at_most_two_lines_and_the_one_that_replaces_the_countdown(shown, seconds, line, ended):
    view = build_view(shown, now=NOW)

    assert (view["seconds"], view["ended"]) == (seconds, ended)
    assert line in " ".join(view["lines"])
    assert len(view["lines"]) <= 2


def test_signing_out_has_to_be_confirmed_since_it_concerns_other_notebooks():
    _, out = build_view(RENEWS, now=NOW)["buttons"]

    assert out["action"] == SIGN_OUT
    assert out["confirm"]["line"] == "This also signs out your other notebooks and terminals on this machine."


def test_the_browser_half_writes_text_and_never_markup():
    source = str(IdentityCard._esm)

    assert not any(word in source for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "eval(", "fetch("))


WAIT_SECONDS = 60


class FakeBoard:
    """Stands in for the card: notes what it is told."""

    def __init__(self):
        self.began = []
        self.errors = []
        self.news = []
        self.ended = Event()
        self.begin_action, self.send_address = self.began.append, self.news.append

    def end_action(self, *, error="", news=""):
        self.errors.append(error)
        self.ended.set()


@pytest.fixture
def board():
    return FakeBoard()


@pytest.fixture
def buttons(session):
    return IdentityDisplay(None, session)


def press(buttons, action, board):
    buttons.press(action, board)
    assert board.ended.wait(WAIT_SECONDS)


def test_a_button_that_came_too_late_does_nothing_and_is_answered(world, session, buttons, board):
    buttons.press(REFRESH, board)
    session.logout(SETTINGS)
    world.logouts.clear()

    buttons.press(SIGN_OUT, board)

    assert (board.news, board.began, world.logouts) == ([TOO_LATE, TOO_LATE], [], [])


def test_what_nobody_expected_is_a_line_too_and_the_buttons_work_again(world, session, buttons, board, caplog):
    def broken():
        raise RuntimeError(SECRET_TOKEN)

    session.signed_in(SETTINGS)
    world.stored.renew = broken
    press(buttons, REFRESH, board)
    board.ended.clear()
    press(buttons, SIGN_OUT, board)

    assert board.errors[0].startswith("✗ The action failed.")
    assert board.errors[1] == ""
    assert SECRET_TOKEN not in caplog.text + str(board.errors)
