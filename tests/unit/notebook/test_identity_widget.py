"""The identity widget's kernel half."""

import json
import re
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from micromegas_jupyter.config.client import Flow
from micromegas_jupyter.notebook.login.display import QUIET_MODULES, IdentityWidget, build_qr_code
from micromegas_jupyter.notebook.login.session import IdentityAction, IdentityState, IdentityStatus, SignInOffer
from tests.fakes.clock import FakeClock
from tests.fakes.notebook_world import PASTE_URL, SCAN_URI, START_URL, USER_CODE, VERIFICATION_URI

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


def test_a_code_comes_with_a_drawing_of_the_address_that_holds_it(widget: IdentityWidget) -> None:
    widget.apply(CODE)

    state = widget.get_state()

    assert (state["flow"], state["start_url"], state["user_code"]) == ("device", VERIFICATION_URI, USER_CODE)
    assert state["qr_path"].startswith("M4 4h7v1h-7z")
    assert state["qr_side"] > 2 * 4
    assert SCAN_URI not in json.dumps(state)


def test_a_page_that_is_loaded_later_gets_the_time_that_remains_then(widget: IdentityWidget, clock: FakeClock) -> None:
    widget.apply(SIGNED_IN)

    clock.advance(600)

    state = widget.get_state()
    assert (state["remaining_seconds"], state["as_of"]) == (3000.0, "2026-11-24T12:10:00+00:00")


def test_there_is_an_end_to_the_groups_that_a_page_is_told(widget: IdentityWidget) -> None:
    widget.apply(replace(SIGNED_IN, groups=tuple(f"group{number}" for number in range(256)), group_count=300))

    state = widget.get_state()

    assert (len(state["groups"]), state["group_count"]) == (32, 300)


def test_a_button_is_passed_on_and_what_is_none_is_not(clock: FakeClock) -> None:
    pressed: list[IdentityAction] = []
    widget = IdentityWidget(clock=clock, on_press=lambda action, _board: pressed.append(action))

    for content in ({"action": "sign_out"}, {"action": "eval"}, {"action": ["refresh"]}, {}, "refresh", None, 7):
        widget._handle_custom_msg(content, [])

    assert pressed == [IdentityAction.SIGN_OUT]


def test_what_a_page_saves_beside_a_code_has_no_picture(widget: IdentityWidget) -> None:
    widget.apply(CODE)

    bundle, _ = widget._repr_mimebundle_()

    assert USER_CODE in bundle["text/html"]
    assert "<svg" not in bundle["text/html"]


def test_the_browser_half_writes_text_and_never_markup() -> None:
    source = IdentityWidget._esm

    assert not any(word in source for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "eval(", "fetch("))
    assert 'link.rel = "noopener noreferrer"' in source


def test_the_browser_half_calls_the_kernel_for_a_button_and_for_nothing_else() -> None:
    source = IdentityWidget._esm

    assert source.count("model.send(") == source.count("model.send({ action })") == 1
    assert not any(word in source for word in ("save_changes", "model.set(", ".invoke("))


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


@pytest.mark.parametrize("address", ["", "https://id.example.com/" + "x" * 500])
def test_an_address_that_is_missing_or_too_long_to_scan_has_no_code(address: str) -> None:
    assert build_qr_code(address) is None
