"""The state of a sign-in: its sentences, its offers, its buttons, and who is told of it."""

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from threading import Event, current_thread

import pytest

from micromegas_jupyter.config.client import Flow
from micromegas_jupyter.notebook.login.display import (
    QUIET_MODULES,
    TOO_LATE,
    IdentityButtons,
    IdentityWidget,
    build_qr_code,
)
from micromegas_jupyter.notebook.login.session import (
    IdentityAction,
    IdentityState,
    IdentityStatus,
    NotebookSession,
    SignInOffer,
    accepted_actions,
    offer_of,
    offered_actions,
    waiting_address,
    waiting_line,
)
from tests.fakes.clock import FakeClock
from tests.fakes.notebook_people import SECRET_TOKEN
from tests.fakes.notebook_world import (
    PASTE_URL,
    SCAN_URI,
    SETTINGS,
    START_URL,
    USER_CODE,
    VERIFICATION_URI,
    FakeLogin,
    FakeWorld,
)

SOON = datetime(2026, 11, 24, 12, 10, tzinfo=UTC)
ENDS_AT = datetime(2026, 11, 24, 13, 0, tzinfo=UTC)
SIGN_IN, SHOW_CODE, CANCEL, REFRESH, SIGN_OUT = IdentityAction
SIGNED_OUT = IdentityState(status=IdentityStatus.SIGNED_OUT, server="lake.example.com")
SIGNED_IN = replace(SIGNED_OUT, status=IdentityStatus.SIGNED_IN)


def login(flow: Flow = Flow.BROWSER) -> FakeLogin:
    return FakeLogin(expires_at=SOON, flow=flow)


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


WAITING = IdentityState(
    status=IdentityStatus.WAITING,
    server="lake.example.com",
    issuer="id.example.com",
    offer=SignInOffer(flow=Flow.BROWSER, address=START_URL),
    ends_at=datetime(2026, 11, 24, 12, 10, tzinfo=UTC),
)
CODE = replace(
    WAITING,
    offer=SignInOffer(flow=Flow.DEVICE, address=VERIFICATION_URI, user_code=USER_CODE, scan_address=SCAN_URI),
)
PASTE = replace(WAITING, offer=SignInOffer(flow=Flow.PASTE, address=PASTE_URL))
SIGNED_IN = IdentityState(
    status=IdentityStatus.SIGNED_IN,
    server="lake.example.com",
    issuer="id.example.com",
    name="Alice Martin",
    email="alice@example.com",
    is_admin=True,
    server_line="connected as alice@example.com, 14 ms",
    ends_at=datetime(2026, 11, 24, 13, 0, tzinfo=UTC),
    renews=True,
    renews_at=datetime(2026, 11, 24, 12, 55, tzinfo=UTC),
    subject="user-1",
    groups=("analysts", "lake-admins"),
    group_count=2,
    is_personal=True,
)
MODULES = re.compile(r"M(\d+) (\d+)h(\d+)v1h-(\d+)z")


@pytest.fixture
def widget(clock: FakeClock) -> IdentityWidget:
    return IdentityWidget(clock=clock)


@pytest.mark.parametrize(
    ("waiting", "asked"), [(WAITING, START_URL), (CODE, USER_CODE), (PASTE, PASTE_URL)], ids=["link", "code", "paste"]
)
def test_what_a_sign_in_asks_goes_when_it_is_done(widget: IdentityWidget, waiting: IdentityState, asked: str) -> None:
    widget.apply(waiting)
    during = json.dumps(widget.get_state())

    widget.apply(SIGNED_IN)

    assert asked in during
    after = json.dumps(widget.get_state()) + str(widget._repr_mimebundle_())
    assert asked not in after
    assert '"qr_path": ""' in json.dumps(widget.get_state())


def test_a_page_that_is_loaded_later_gets_the_time_that_remains_then(widget: IdentityWidget, clock: FakeClock) -> None:
    widget.apply(SIGNED_IN)

    clock.advance(600)

    state = widget.get_state()
    assert (state["remaining_seconds"], state["as_of"]) == (3000.0, "2026-11-24T12:10:00+00:00")


def test_a_button_is_passed_on_and_what_is_none_is_not(clock: FakeClock) -> None:
    pressed: list[IdentityAction] = []
    widget = IdentityWidget(clock=clock, on_press=lambda action, _board: pressed.append(action))

    for content in ({"action": "sign_out"}, {"action": "eval"}, {"action": ["refresh"]}, {}, "refresh", None, 7):
        widget._handle_custom_msg(content, [])

    assert pressed == [IdentityAction.SIGN_OUT]


def test_the_browser_half_writes_text_and_never_markup() -> None:
    source = IdentityWidget._esm

    assert not any(word in source for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "eval(", "fetch("))
    assert 'link.rel = "noopener noreferrer"' in source


def dark_modules(path: str) -> set[tuple[int, int]]:
    assert MODULES.sub("", path) == ""
    return {
        (int(x) + step, int(y))
        for x, y, width, back in MODULES.findall(path)
        for step in range(int(width))
        if width == back
    }


def test_the_path_draws_exactly_the_dark_modules_within_the_white_frame() -> None:
    import segno

    code = build_qr_code(SCAN_URI)

    matrix = segno.make_qr(SCAN_URI, error="m").matrix
    expected = {
        (x + QUIET_MODULES, y + QUIET_MODULES)
        for y, row in enumerate(matrix)
        for x, is_dark in enumerate(row)
        if is_dark
    }
    assert code is not None
    assert code.side_modules == len(matrix) + 2 * QUIET_MODULES
    assert dark_modules(code.path) == expected


WAIT_SECONDS = 60


class FakeBoard:
    """Stands in for the widget: notes what it is told."""

    def __init__(self) -> None:
        self.began: list[IdentityAction] = []
        self.errors: list[str] = []
        self.news: list[str] = []
        self.ended = Event()
        self.told = Event()

    def begin_action(self, action: IdentityAction) -> None:
        self.began.append(action)

    def end_action(self, *, error: str = "") -> None:
        self.errors.append(error)
        self.ended.set()

    def notify(self, news: str) -> None:
        self.news.append(news)
        self.told.set()


@pytest.fixture
def board() -> FakeBoard:
    return FakeBoard()


@pytest.fixture
def buttons(session: NotebookSession) -> IdentityButtons:
    return IdentityButtons(session)


def press(buttons: IdentityButtons, action: IdentityAction, board: FakeBoard) -> None:
    buttons.press(action, board)
    assert board.ended.wait(WAIT_SECONDS)


def test_a_button_that_came_too_late_does_nothing_and_is_answered(
    world: FakeWorld, session: NotebookSession, buttons: IdentityButtons, board: FakeBoard
) -> None:
    buttons.press(IdentityAction.REFRESH, board)
    session.logout(SETTINGS)
    world.logouts.clear()

    buttons.press(IdentityAction.SIGN_OUT, board)

    assert (board.news, board.began, world.logouts) == ([TOO_LATE, TOO_LATE], [], [])


def test_one_thing_is_done_at_a_time_and_beside_the_kernels_thread(
    world: FakeWorld, session: NotebookSession, buttons: IdentityButtons, board: FakeBoard
) -> None:
    began, go_on = Event(), Event()
    threads: list[str] = []
    session.signed_in(SETTINGS)

    def slow() -> None:
        threads.append(current_thread().name)
        began.set()
        assert go_on.wait(WAIT_SECONDS)

    world.stored.renew = slow
    buttons.press(IdentityAction.REFRESH, board)
    assert began.wait(WAIT_SECONDS)
    buttons.press(IdentityAction.SIGN_OUT, board)
    go_on.set()

    assert board.ended.wait(WAIT_SECONDS)
    assert (board.began, world.logouts) == ([IdentityAction.REFRESH], [])
    assert board.news[0] == TOO_LATE
    assert threads == ["micromegas-refresh"]


def test_what_nobody_expected_is_a_line_too_and_the_buttons_work_again(
    world: FakeWorld, session: NotebookSession, buttons: IdentityButtons, board: FakeBoard, caplog
) -> None:
    def broken() -> None:
        raise RuntimeError(SECRET_TOKEN)

    session.signed_in(SETTINGS)
    world.stored.renew = broken
    press(buttons, IdentityAction.REFRESH, board)
    board.ended.clear()
    press(buttons, IdentityAction.SIGN_OUT, board)

    assert board.errors[0].startswith("✗ That did not work.")
    assert board.errors[1] == ""
    assert SECRET_TOKEN not in caplog.text + str(board.errors)
