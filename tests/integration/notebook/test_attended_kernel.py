"""A notebook with a person in front of it, in a real kernel."""

import pytest

from tests.fakes.notebook_world import SECRET_CHALLENGE, SECRET_STATE, SECRET_TOKEN, START_URL, USER_CODE
from tests.integration.notebook.kernels import LOAD, AttendedKernel, attended_kernel, card_views

pytestmark = pytest.mark.integration

FINISH_WHEN_A_CELL_WAITS = """
import threading
def finish():
    assert world.logins[0].waited_for.wait(30)
    world.logins[0].succeed()
thread = threading.Thread(target=finish); thread.start()
"""


UNLOAD = "%unload_ext tests.fakes.notebook_extension"


@pytest.fixture(scope="module")
def module_kernel():
    with attended_kernel() as running:
        yield running


@pytest.fixture
def kernel(module_kernel):
    """The module's kernel in a new world."""
    module_kernel.run(UNLOAD)
    module_kernel.later_messages(0.2)
    module_kernel.all_messages.clear()
    module_kernel.run(LOAD)
    return module_kernel


@pytest.fixture(params=["unloaded", "shut down"])
def end(request):
    """Ends what is shown in a kernel."""
    return (lambda kernel: kernel.run(UNLOAD)) if request.param == "unloaded" else AttendedKernel.shut_down


@pytest.fixture
def ending_kernel(request):
    """A kernel that `end` ends: the module's, unless it is shut down."""
    if "unloaded" in request.node.callspec.id:
        yield request.getfixturevalue("kernel")
        return
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
    assert offer["data"]["text/plain"].split("\n") == [
        "Sign in to id.example.com",
        "for lake.example.com:50051 · this notebook continues by itself · valid until 12:10 UTC",
        f"Open {START_URL} to sign in.",
    ]
    first_line = query.of("display_data")[0]["data"]["text/plain"]
    last_line = query.of("update_display_data")[-1]["data"]["text/plain"]
    assert first_line.startswith("Sign in to continue\nat id.example.com for lake.example.com:50051 · this cell ")
    assert first_line.endswith(f"Open {START_URL} to sign in; interrupt to stop waiting.")
    assert f'<a href="{START_URL}" target="_blank"' in query.of("display_data")[0]["data"]["text/html"]
    assert "application/vnd.jupyter.widget-view+json" in query.of("display_data")[0]["data"]
    assert START_URL not in str(card_views(kernel.all_messages))
    assert last_line.startswith("✓ 3 rows in 1.0 s")
    assert query.reply["status"] == "ok"
    kernel.run("assert world.was_asked_whoami.wait(30); thread.join(60)")
    kernel.wait_until(lambda: any("connected as" in str(state) for state in card_views(kernel.all_messages)))
    kernel.later_messages(0.2)
    views = card_views(kernel.all_messages)
    shown = list(dict.fromkeys((view["status"], view["title"], view["awaited"]) for view in views))
    assert shown == [
        ("waiting", "Sign in to id.example.com", False),
        ("waiting", "Sign in to continue", True),
        ("signed_in", "Signed in as Alice Martin (alice@example.com)", False),
    ]
    updates = [m["content"]["data"] for m in kernel.all_messages if m["msg_type"] == "update_display_data"]
    assert any(data["text/plain"].startswith("Signed in as Alice Martin") for data in updates)
    assert "lake.example.com:50051: connected as alice@example.com, 14 ms" in views[-1]["lines"]
    assert SECRET_TOKEN not in str(kernel.all_messages)


FINISH_ONE_THAT_A_CELL_BEGINS = """
import threading
from micromegas_jupyter.config.client import Flow
from micromegas_jupyter.notebook.login.connections import FlowToUse
world.flow = FlowToUse(flow=Flow("{flow}"))
begin = world.begin_login
def begin_and_finish(settings, flow):
    login = begin(settings, flow)
    threading.Thread(target=lambda: login.waited_for.wait(30) and login.succeed()).start()
    return login
world.begin_login = begin_and_finish
"""


@pytest.mark.parametrize(("flow", "title"), [("redirect", ""), ("device", ": go to id.example.com/device and type")])
@pytest.mark.parametrize("has_ended", [False, True])
def test_a_query_of_somebody_who_is_not_signed_in_asks_for_it_and_continues(kernel, flow, title, has_ended):
    ended = "from micromegas_jupyter.errors import LoginRequired; world.stored.failure = LoginRequired('It ended.')"
    kernel.run(ended if has_ended else NOBODY)
    kernel.run(FINISH_ONE_THAT_A_CELL_BEGINS.format(flow=flow))

    query = kernel.run("%sql rows << SELECT 1")

    assert query.reply["status"] == "ok"
    assert "interrupt to stop waiting" in query.of("display_data")[0]["data"]["text/plain"]
    assert query.of("update_display_data")[-1]["data"]["text/plain"].startswith("✓ 3 rows in 1.0 s")
    views = [view for view in card_views(kernel.all_messages) if view["awaited"]]
    assert {(view["title"], view["code"] if title else "") for view in views} == {
        (f"Sign in to continue{title}", USER_CODE if title else "")
    }


def test_a_query_cannot_ask_for_an_address(kernel):
    kernel.run(NOBODY)
    kernel.run(FINISH_ONE_THAT_A_CELL_BEGINS.format(flow="paste"))

    (error,) = kernel.run("%sql SELECT 1").of("error")

    assert error["ename"] == "LoginRequired"
    assert "Run %micromegas_login in a separate cell." in error["traceback"][0]


def test_a_button_that_is_pressed_while_a_cell_runs_waits_for_its_turn(kernel):
    kernel.run("%micromegas_login")
    kernel.run("assert world.was_asked_whoami.wait(30)")

    cell = kernel.run(
        "print('running', flush=True); import threading; threading.Event().wait(0.5); print(world.logouts)",
        while_running=lambda message: kernel.press("sign_out") if "running" in str(message["content"]) else None,
    )
    kernel.run("pass")
    kernel.wait_until(lambda: card_views(kernel.all_messages)[-1]["status"] == "signed_out")

    assert cell.printed.endswith("[]\n")
    assert kernel.run("assert len(world.logouts) == 1").reply["status"] == "ok"


def test_whatever_ends_the_widget_leaves_text_in_its_place(ending_kernel, end):
    ending_kernel.run("%micromegas_login")
    ending_kernel.run("assert world.was_asked_whoami.wait(30)")
    ending_kernel.run("%micromegas_whoami")

    end(ending_kernel)

    signed_in = "Signed in as Alice Martin (alice@example.com)\\nid.example.com \\u00b7 expires at 15:42 UTC\\n"
    ending_kernel.wait_until_saved(signed_in, times=2)
    ending_kernel.later_messages(0.2)
    saved = ending_kernel.saved()
    assert "application/vnd.jupyter.widget-view+json" not in saved
    assert saved.count(signed_in) == 2
    assert "renews by itself\\n" not in saved


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


def test_whatever_ends_a_code_leaves_nothing_in_the_notebook(ending_kernel, end):
    ending_kernel.run(NOBODY)
    ending_kernel.run("%micromegas_login --flow device")

    end(ending_kernel)

    check_nothing_is_left(ending_kernel)


DENY_WHEN_A_CELL_WAITS = FINISH_WHEN_A_CELL_WAITS.replace(
    "world.logins[0].succeed()",
    "from micromegas_jupyter.errors import LoginRefused; world.logins[0].fail(LoginRefused('You said no.'))",
)


def test_a_cell_whose_sign_in_was_denied_keeps_the_card_with_the_reason_and_a_button(kernel):
    kernel.run(NOBODY)
    kernel.run("%micromegas_login")
    kernel.run(DENY_WHEN_A_CELL_WAITS)

    query = kernel.run("%sql SELECT 1")

    kernel.run("thread.join(60)")
    assert query.reply["status"] == "error"
    assert not query.of("update_display_data") or "widget-view" in str(query.of("update_display_data")[-1])
    view = card_views(kernel.all_messages)[-1]
    assert view["lines"] == ["You said no. Try again here, or run %micromegas_login."]
    assert [button["action"] for button in view["buttons"]] == ["sign_in"]


FAILING = """
from micromegas_jupyter.errors import Correction, InvalidStatement
world.open_failure = InvalidStatement("No <b>.", line=1, column=10)
world.open_failure.correction = Correction(1, 8, 3, "msg")
"""


def test_a_failed_statement_is_explained_below_its_error_with_the_corrected_cell(kernel):
    kernel.run(FAILING)

    cell = kernel.run("%%sql --limit 5\nSELECT mgs FROM log_entries\n")

    kinds = [message["msg_type"] for message in cell.messages]
    data = cell.of("display_data")[-1]["data"]
    assert kinds.index("error") < len(kinds) - kinds[::-1].index("display_data") - 1
    assert "application/vnd.jupyter.widget-view+json" in data
    assert "Corrected:\n%%sql --limit 5\nSELECT msg FROM log_entries" in data["text/plain"]
    assert data["text/html"].startswith("<details><summary>Explain SQL001</summary>")
    for caught in ("try:\n  get_ipython().run_line_magic('sql', 'SELECT mgs')\nexcept Exception: pass", "1 + 1"):
        assert not [each for each in kernel.run(caught).of("display_data") if "Explain" in str(each)]
