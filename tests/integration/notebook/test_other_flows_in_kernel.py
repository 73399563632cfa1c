"""Codes and pasted addresses in a real kernel, and what the notebook holds afterwards."""

from collections.abc import Iterator

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


@pytest.mark.parametrize("end", ["%unload_ext tests.fakes.notebook_extension", "shutdown"])
def test_whatever_ends_a_code_leaves_nothing_in_the_notebook(kernel: AttendedKernel, end: str) -> None:
    kernel.run("%micromegas_login --flow device")

    if end == "shutdown":
        kernel.shut_down()
    else:
        kernel.run(end)

    check_nothing_is_left(kernel)
