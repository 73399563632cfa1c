"""The identity widget's buttons."""

from threading import Event, current_thread

import pytest

from micromegas_jupyter.config.client import Flow
from micromegas_jupyter.errors import ProviderUnavailable
from micromegas_jupyter.notebook.login.connections import FlowToUse
from micromegas_jupyter.notebook.login.display import TOO_LATE, IdentityButtons
from micromegas_jupyter.notebook.login.session import IdentityAction, IdentityStatus, NotebookSession
from tests.fakes.notebook_world import SECRET_TOKEN, SETTINGS, FakeWorld, shown

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


def test_a_refresh_that_fails_is_one_line_and_the_sign_in_is_what_it_was(
    world: FakeWorld, session: NotebookSession, buttons: IdentityButtons, board: FakeBoard
) -> None:
    session.signed_in(SETTINGS)
    world.stored.renewal_failure = ProviderUnavailable("id.example.com did not answer.", remedy="Try later.")

    press(buttons, IdentityAction.REFRESH, board)

    assert board.errors == ["✗ id.example.com did not answer. Try later. · AVAIL002"]
    assert shown(session) is IdentityStatus.SIGNED_IN


def test_where_an_address_must_be_pasted_the_cell_is_named(
    world: FakeWorld, session: NotebookSession, buttons: IdentityButtons, board: FakeBoard
) -> None:
    world.flow = FlowToUse(flow=Flow.PASTE)
    session.logout(SETTINGS)

    press(buttons, IdentityAction.SIGN_IN, board)

    assert "Run %micromegas_login in a cell." in board.errors[0]
    assert world.logins == []


def test_a_code_takes_the_place_of_a_link_and_cancel_ends_it(
    world: FakeWorld, session: NotebookSession, buttons: IdentityButtons, board: FakeBoard
) -> None:
    session.sign_in.begin(SETTINGS, FlowToUse(flow=Flow.BROWSER))

    press(buttons, IdentityAction.SHOW_CODE, board)
    offer = session.state and session.state.offer
    board.ended.clear()
    press(buttons, IdentityAction.CANCEL, board)

    assert world.logins[0].is_cancelled
    assert offer is not None
    assert offer.flow is Flow.DEVICE
    assert world.logins[1].is_cancelled
    assert shown(session) is IdentityStatus.SIGNED_OUT


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
