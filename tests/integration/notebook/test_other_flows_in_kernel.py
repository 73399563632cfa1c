"""Codes and pasted addresses in a real kernel, and what the notebook holds afterwards."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.notebook_world import (
    FITTING_ADDRESS,
    SCAN_URI,
    SECRET_CHALLENGE,
    SECRET_STATE,
    USER_CODE,
    VERIFICATION_URI,
)
from tests.integration.notebook.kernels import LOAD, AttendedKernel, attended_kernel, widget_states

pytestmark = pytest.mark.integration

NOBODY = "world.stored = None"
ONE_TIME_CODE = "one-time"


@pytest.fixture
def kernel() -> Iterator[AttendedKernel]:
    with attended_kernel() as running:
        running.run(LOAD)
        running.run(NOBODY)
        yield running


def check_nothing_is_left(kernel: AttendedKernel) -> None:
    ends = ("Signed in as Alice Martin", "Not signed in at id.example.com (for lake.example.com:50051)")
    secrets = (SECRET_STATE, SECRET_CHALLENGE, ONE_TIME_CODE, USER_CODE)
    kernel.wait_until(lambda: any(end in kernel.saved() for end in ends))
    kernel.wait_until(lambda: not any(secret in kernel.saved() for secret in secrets))
    kernel.later_messages(0.5)
    saved = kernel.saved()
    for secret in secrets:
        assert secret not in saved


def test_a_code_is_shown_at_once_with_a_drawing_and_waited_for_by_the_next_cell(kernel: AttendedKernel) -> None:
    cell = kernel.run("%micromegas_login --flow device")
    kernel.run(
        "import threading\n"
        "def finish():\n"
        "    assert world.logins[0].waited_for.wait(30)\n"
        "    world.logins[0].succeed()\n"
        "threading.Thread(target=finish).start()"
    )
    query = kernel.run("%sql rows << SELECT 1")

    (shown,) = cell.of("display_data")
    assert cell.reply["status"] == "ok"
    assert shown["data"]["text/plain"].startswith(
        f"Sign in at id.example.com: go to {VERIFICATION_URI} and type {USER_CODE} until 12:10 UTC. "
        "Only type it if you started this."
    )
    html = shown["data"]["text/html"]
    assert f'<a href="{VERIFICATION_URI}" target="_blank" rel="noopener noreferrer">Open the page</a>' in html
    assert "<svg" not in kernel.saved()
    state = widget_states(cell.messages)[-1]
    assert (state["flow"], state["user_code"], state["start_url"]) == ("device", USER_CODE, VERIFICATION_URI)
    assert state["qr_path"].startswith("M4 4h7v1h-7z")
    assert SCAN_URI not in str(kernel.all_messages)
    assert query.of("display_data")[0]["data"]["text/plain"] == (
        f"⏳ waiting for you to type {USER_CODE} at {VERIFICATION_URI} (until 12:10 UTC) · interrupt to stop waiting"
    )
    assert query.reply["status"] == "ok"
    kernel.run("assert world.remembered == [__import__('micromegas_jupyter.config').settings.Flow.DEVICE]")
    check_nothing_is_left(kernel)


def test_an_address_is_asked_for_with_the_hidden_input_and_leaves_nothing_in_the_notebook(
    kernel: AttendedKernel,
) -> None:
    asked: list[dict[str, Any]] = []
    during: list[str] = []

    def paste(request: dict[str, Any]) -> str:
        asked.append(request)
        during.append(kernel.saved())
        return FITTING_ADDRESS

    cell = kernel.run("%micromegas_login --flow paste", answer=paste)

    assert cell.reply["status"] == "ok"
    assert asked == [{"prompt": "Paste the address here (it is not shown): ", "password": True}]
    assert SECRET_STATE in during[0]
    check_nothing_is_left(kernel)


def test_a_wrong_address_is_asked_for_again_and_not_shown(kernel: AttendedKernel) -> None:
    answers = ["http://127.0.0.1:1/callback?code=one-time&state=other", FITTING_ADDRESS]

    cell = kernel.run("%micromegas_login --flow paste", answer=lambda _: answers.pop(0))

    assert cell.reply["status"] == "ok"
    assert cell.printed == ("✗ The pasted text is not the address that this sign-in ended at. Try again. · USE001\n")
    assert [content["wait"] for content in cell.of("clear_output")] == [True]
    assert cell.messages[-1]["content"]["data"]["text/plain"].startswith("Signed in as Alice Martin")
    check_nothing_is_left(kernel)


def test_a_question_ends_with_its_sign_in(kernel: AttendedKernel) -> None:
    kernel.run(
        "import threading\n"
        "from micromegas_jupyter.errors import LoginTimedOut\n"
        "def expire():\n"
        "    world.logins[0].fail(LoginTimedOut('Nobody signed in within 300 seconds.'))\n"
        "asked = world.prompt\n"
        "def ask(prompt):\n"
        "    threading.Timer(0.3, expire).start()\n"
        "    return asked(prompt)\n"
        "world.prompt = ask"
    )

    cell = kernel.run("%micromegas_login --flow paste")

    (error,) = cell.of("error")
    assert error["traceback"] == ["✗ Nobody signed in within 300 seconds. Start the sign-in again. · AUTH003"]
    assert kernel.run("1 + 1").reply["status"] == "ok"
    check_nothing_is_left(kernel)


@pytest.mark.parametrize("end", ["%unload_ext tests.fakes.notebook_extension", "%micromegas_logout"])
def test_whatever_ends_a_code_leaves_nothing_in_the_notebook(kernel: AttendedKernel, end: str) -> None:
    kernel.run("%micromegas_login --flow device")

    kernel.run(end)

    check_nothing_is_left(kernel)


def test_a_kernel_that_is_shut_down_leaves_nothing_in_the_notebook(kernel: AttendedKernel) -> None:
    kernel.run("%micromegas_login --flow device")

    kernel.shut_down()

    check_nothing_is_left(kernel)


def test_a_renewal_changes_the_widget_and_no_output_of_a_cell(kernel: AttendedKernel, tmp_path: Path) -> None:
    may_fail = tmp_path / "may-fail"
    kernel.run("world.stored = __import__('tests.fakes.notebook_world').fakes.notebook_world.FakePersonalProvider()")
    kernel.run("%micromegas_login")
    kernel.wait_until(lambda: "connected as" in str(widget_states(kernel.all_messages)))
    kernel.later_messages(0.5)
    kernel.run(
        "from micromegas_jupyter.errors import ProviderUnavailable\n"
        "import pathlib, threading\n"
        f"may_fail = pathlib.Path({str(may_fail)!r})\n"
        "def fail():\n"
        "    while not may_fail.exists():\n"
        "        threading.Event().wait(0.05)\n"
        "    world.clock.advance(60)\n"
        "    world.renewals[0].on_change(ProviderUnavailable('No answer.'))\n"
        "threading.Thread(target=fail, daemon=True).start()"
    )

    seen = len(kernel.all_messages)
    may_fail.touch()
    kernel.wait_until(lambda: bool(widget_states(kernel.all_messages[seen:])))
    kernel.later_messages(0.5)

    later = kernel.all_messages[seen:]
    states = widget_states(later)
    assert [(state["status"], state["detail"]) for state in states] == [
        ("renewal_failed", "Could not renew: No answer.")
    ]
    assert {message["msg_type"] for message in later} <= {"comm_msg", "status"}
