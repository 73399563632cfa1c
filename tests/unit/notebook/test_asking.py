import threading
from datetime import UTC, datetime

import pytest

from micromegas_jupyter.config.client import Flow
from micromegas_jupyter.errors import LoginTimedOut
from micromegas_jupyter.notebook.magics.identity import LoginEnded, prompt_until_done
from tests.fakes.notebook_world import FakeLogin

DEADLINE_SECONDS = 60


@pytest.fixture
def login() -> FakeLogin:
    return FakeLogin(expires_at=datetime(2026, 11, 24, 12, 10, tzinfo=UTC), flow=Flow.PASTE)


def wait_to_be_interrupted() -> str:
    # Short waits, as a kernel's input request: an interrupt of the main thread ends none that is under way.
    for _ in range(DEADLINE_SECONDS * 100):
        threading.Event().wait(0.01)
    return "nobody interrupted"


def test_an_answer_is_returned(login: FakeLogin) -> None:
    assert prompt_until_done(login, lambda: "an answer") == "an answer"


def test_a_sign_in_that_ends_ends_the_question(login: FakeLogin) -> None:
    ending = threading.Timer(0.05, lambda: login.fail(LoginTimedOut("Nobody signed in.")))
    ending.start()

    with pytest.raises(LoginEnded):
        prompt_until_done(login, wait_to_be_interrupted)

    ending.join(DEADLINE_SECONDS)


def test_a_sign_in_that_ends_after_the_answer_interrupts_nobody(login: FakeLogin) -> None:
    prompt_until_done(login, lambda: "an answer")

    login.succeed()

    threading.Event().wait(0.01)  # where an interrupt would be raised


def test_a_person_who_interrupts_is_no_end_of_the_sign_in(login: FakeLogin) -> None:
    def interrupted() -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prompt_until_done(login, interrupted)


def test_off_the_main_thread_nobody_is_interrupted_and_a_late_answer_is_not_used(login: FakeLogin) -> None:
    outcomes: list[str] = []

    def answer_late() -> str:
        login.fail(LoginTimedOut("Nobody signed in."))
        return "an answer"

    def ask() -> None:
        try:
            outcomes.append(prompt_until_done(login, answer_late))
        except LoginEnded:
            outcomes.append("ended")

    asking = threading.Thread(target=ask)
    asking.start()
    asking.join(DEADLINE_SECONDS)

    assert outcomes == ["ended"]
