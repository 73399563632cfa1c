"""A notebook with a person in front of it, in a real kernel."""

import pytest

from tests.fakes.notebook_world import SECRET_CHALLENGE, SECRET_STATE, SECRET_TOKEN, START_URL, USER_CODE
from tests.integration.notebook.kernels import LOAD, attended_kernel, widget_states

pytestmark = pytest.mark.integration

FINISH_WHEN_A_CELL_WAITS = """
import threading
def finish():
    assert world.logins[0].waited_for.wait(30)
    world.logins[0].succeed()
thread = threading.Thread(target=finish); thread.start()
"""


@pytest.fixture
def kernel():
    with attended_kernel() as running:
        running.run(LOAD)
        yield running


def test_run_all_goes_on_when_the_sign_in_ends_in_the_middle(kernel):
    kernel.run(NOBODY)
    login = kernel.run("%micromegas_login")
    kernel.run(FINISH_WHEN_A_CELL_WAITS)

    query = kernel.run("%sql rows << SELECT 1")

    (offer,) = login.of("display_data")
    assert "application/vnd.jupyter.widget-view+json" in offer["data"]
    assert f"open {START_URL} until 12:10 UTC" in offer["data"]["text/plain"]
    first_line = query.of("display_data")[0]["data"]["text/plain"]
    last_line = query.of("update_display_data")[-1]["data"]["text/plain"]
    assert first_line == (
        f"⏳ waiting for you to sign in at id.example.com: open {START_URL} (until 12:10 UTC) · "
        "interrupt to stop waiting"
    )
    assert f'<a href="{START_URL}" target="_blank"' in query.of("display_data")[0]["data"]["text/html"]
    assert last_line.startswith("✓ 3 rows in 1.0 s")
    assert query.reply["status"] == "ok"
    kernel.run("assert world.was_asked_whoami.wait(30); thread.join(60)")
    kernel.wait_until(lambda: any("connected as" in str(state) for state in widget_states(kernel.all_messages)))
    kernel.later_messages(0.2)
    states = widget_states(kernel.all_messages)
    assert [state["status"] for state in states if "status" in state] == ["signed_out", "waiting", "signed_in"]
    updates = [m["content"]["data"] for m in kernel.all_messages if m["msg_type"] == "update_display_data"]
    assert any(data["text/plain"].startswith("Signed in as Alice Martin") for data in updates)
    last = {name: value for state in states for name, value in state.items()}
    assert last["server_line"] == "connected as alice@example.com, 14 ms"
    assert SECRET_TOKEN not in str(kernel.all_messages)


def test_a_button_that_is_pressed_while_a_cell_runs_waits_for_its_turn(kernel):
    kernel.run("%micromegas_login")
    kernel.run("assert world.was_asked_whoami.wait(30)")

    cell = kernel.run(
        "print('running', flush=True); import threading; threading.Event().wait(0.5); print(world.logouts)",
        while_running=lambda message: kernel.press("sign_out") if "running" in str(message["content"]) else None,
    )
    kernel.run("pass")
    kernel.wait_until(lambda: widget_states(kernel.all_messages)[-1].get("status") == "signed_out")

    assert cell.printed.endswith("[]\n")
    assert widget_states(kernel.all_messages)[-1]["status"] == "signed_out"
    assert kernel.run("assert len(world.logouts) == 1").reply["status"] == "ok"


@pytest.mark.parametrize("end", ["%unload_ext tests.fakes.notebook_extension", "shutdown"])
def test_whatever_ends_the_widget_leaves_text_in_its_place(kernel, end):
    kernel.run("%micromegas_login")
    kernel.run("assert world.was_asked_whoami.wait(30)")
    kernel.run("%micromegas_whoami")

    if end == "shutdown":
        kernel.shut_down()
    else:
        kernel.run(end)

    signed_in = "Signed in as Alice Martin (alice@example.com) at id.example.com until 15:42 UTC.\\n"
    kernel.wait_until_saved(signed_in, times=2)
    kernel.later_messages(0.2)
    saved = kernel.saved()
    assert "application/vnd.jupyter.widget-view+json" not in saved
    assert saved.count(signed_in) == 2
    assert "renews by itself." not in saved


NOBODY = "world.stored = None"
ONE_TIME_CODE = "one-time"


def check_nothing_is_left(kernel):
    ends = ("Signed in as Alice Martin", "Not signed in at id.example.com (for lake.example.com:50051)")
    secrets = (SECRET_STATE, SECRET_CHALLENGE, ONE_TIME_CODE, USER_CODE)
    kernel.wait_until(lambda: any(end in kernel.saved() for end in ends))
    kernel.wait_until(lambda: not any(secret in kernel.saved() for secret in secrets))
    kernel.later_messages(0.5)
    saved = kernel.saved()
    for secret in secrets:
        assert secret not in saved


def test_a_question_ends_with_its_sign_in(kernel):
    kernel.run(NOBODY)
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
def test_whatever_ends_a_code_leaves_nothing_in_the_notebook(kernel, end):
    kernel.run(NOBODY)
    kernel.run("%micromegas_login --flow device")

    if end == "shutdown":
        kernel.shut_down()
    else:
        kernel.run(end)

    check_nothing_is_left(kernel)
