"""A notebook with a person in front of it, in a real kernel."""

from collections.abc import Iterator

import pytest

from tests.fakes.notebook_people import SECRET_TOKEN
from tests.fakes.notebook_world import START_URL
from tests.integration.notebook.kernels import LOAD, AttendedKernel, attended_kernel, widget_states

pytestmark = pytest.mark.integration

FINISH_WHEN_A_CELL_WAITS = """
import threading
def finish():
    assert world.logins[0].waited_for.wait(30)
    world.logins[0].succeed()
thread = threading.Thread(target=finish); thread.start()
"""


@pytest.fixture
def kernel() -> Iterator[AttendedKernel]:
    with attended_kernel() as running:
        running.run(LOAD)
        yield running


def test_a_sign_in_shows_a_widget_and_returns_at_once(kernel: AttendedKernel) -> None:
    kernel.run("world.stored = None")

    cell = kernel.run("%micromegas_login")

    (shown,) = cell.of("display_data")
    assert cell.reply["status"] == "ok"
    assert "application/vnd.jupyter.widget-view+json" in shown["data"]
    assert f"open {START_URL} until 12:10 UTC" in shown["data"]["text/plain"]
    assert widget_states(cell.messages)[-1]["status"] == "waiting"


def test_run_all_goes_on_when_the_sign_in_ends_in_the_middle(kernel: AttendedKernel) -> None:
    kernel.run("world.stored = None")
    kernel.run("%micromegas_login")
    kernel.run(FINISH_WHEN_A_CELL_WAITS)

    query = kernel.run("%sql rows << SELECT 1")

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


def test_a_button_that_is_pressed_while_a_cell_runs_waits_for_its_turn(kernel: AttendedKernel) -> None:
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
def test_whatever_ends_the_widget_leaves_text_in_its_place(kernel: AttendedKernel, end: str) -> None:
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
