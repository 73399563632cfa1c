"""The magics over the real stack: provider, server and live telemetry of the demo."""

import re
from urllib.parse import parse_qs, urlsplit

import nbformat
import pytest

from micromegas_jupyter.config.client import Flow
from micromegas_jupyter.demo.provider.scripted_person import ScriptedPerson, sign_in
from micromegas_jupyter.demo.stack import DemoStack, wait_for_rows
from micromegas_jupyter.wiring.client_side import (
    load_client_settings,
    open_client,
    remembered_flow,
    service_account_provider,
)
from tests.integration.notebook.kernels import REPOSITORY, attended_kernel, card_address, card_views, run_unattended

pytestmark = pytest.mark.integration

QUICKSTART = REPOSITORY / "notebooks" / "quickstart.ipynb"
BEARER_TOKEN = re.compile(r"eyJ[A-Za-z0-9_-]{10,}\.")
LOAD = "%load_ext micromegas_jupyter"


@pytest.fixture(scope="module")
def stack():
    with DemoStack() as running:
        wait_for_telemetry(running)
        yield running


def wait_for_telemetry(stack):
    settings = load_client_settings(environ=stack.service_environment())
    with open_client(settings, service_account_provider(settings)) as client:
        wait_for_rows(client)


@pytest.fixture(autouse=True)
def environment(stack, monkeypatch, tmp_path):
    """Variables of a person who is not signed in."""
    variables = {**stack.client_environment(), "MICROMEGAS_CONFIG_DIR": str(tmp_path)}
    use(variables, monkeypatch)
    return variables


def use(variables, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def module_kernel(stack, tmp_path_factory):
    with attended_kernel({**stack.client_environment(), "HOME": str(tmp_path_factory.mktemp("home"))}) as running:
        yield running


@pytest.fixture
def kernel(module_kernel, tmp_path):
    """The module's kernel, in which nobody is signed in and the extension has just been loaded."""
    module_kernel.run("%unload_ext micromegas_jupyter")
    module_kernel.run(f"%env MICROMEGAS_CONFIG_DIR={tmp_path}")
    module_kernel.later_messages(0.2)
    module_kernel.all_messages.clear()
    module_kernel.run(LOAD)
    return module_kernel


def quickstart_sources():
    notebook = nbformat.read(QUICKSTART, as_version=4)
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def test_the_quickstart_runs_with_a_service_account_and_saves_no_secret(stack, monkeypatch):
    environment = stack.service_environment()
    use(environment, monkeypatch)

    run = run_unattended(*quickstart_sources())

    assert run.stopped_by is None
    newest = next(cell.outputs for cell in run.notebook.cells if "log_entries" in cell.source)
    assert re.match(r"✓ [1-9]\d* rows? in ", newest[0].data["text/plain"])
    assert "timestamp (UTC)" in newest[1].data["text/html"]
    assert not BEARER_TOKEN.search(run.saved)
    assert environment["MICROMEGAS_OIDC_CLIENT_SECRET"] not in run.saved
    assert str(stack.folder) not in run.saved


def sign_in_once(kernel, person):
    """Return what has the person open the address of the sign-in once the running cell waits for it."""
    opened = []

    def look(message):
        if not opened and "interrupt to stop waiting" in message["content"].get("data", {}).get("text/plain", ""):
            opened.append(message["content"]["data"]["text/plain"])
            person.open(re.search(r"Open (\S+) to sign in;", opened[0])[1])

    return look


def test_a_person_signs_in_while_a_query_waits_and_signs_out_while_a_reader_reads_on(kernel, tmp_path):
    with ScriptedPerson(person="alice") as person:
        query = kernel.run("%sql rows << SELECT 1 AS one", while_running=sign_in_once(kernel, person))
        again = kernel.run("%micromegas_login")
        whoami = kernel.run("%micromegas_whoami")
        wrong = kernel.run("%%sql\nSELECT tagret\nFROM log_entries")
        kernel.run("%sql reader << --format reader SELECT value FROM generate_series(1, 6000000)")
        logout = kernel.run("%micromegas_logout")
        is_stored = (tmp_path / "tokens.json").exists()
        afterwards = kernel.run("%sql rows << SELECT 1 AS one", while_running=sign_in_once(kernel, person))
        read = kernel.run("print(sum(batch.num_rows for batch in reader))")
        kernel.later_messages(0.5)
        everything = str(kernel.all_messages)

    assert query.of("update_display_data")[-1]["data"]["text/plain"].startswith("✓ 1 row in ")
    assert again.of("display_data")[0]["data"]["text/plain"].startswith("Signed in as Alice")
    assert "connected as alice@example.com, " in whoami.of("display_data")[0]["data"]["text/plain"]
    (error,) = wrong.of("error")
    assert error["ename"] == "InvalidStatement"
    assert "    SELECT tagret" in error["traceback"]
    assert logout.printed.startswith("Signed out of ")
    assert not is_stored
    assert afterwards.reply["status"] == "ok"
    assert read.printed == "6000000\n"
    assert not BEARER_TOKEN.search(everything)
    assert "code=" not in everything


def test_a_person_signs_in_by_options_with_less_scope(stack, monkeypatch, tmp_path):
    for name in ("MICROMEGAS_OIDC_ISSUER", "MICROMEGAS_OIDC_CLIENT_ID"):
        monkeypatch.delenv(name, raising=False)
    provider = f"--issuer {stack.provider.issuer} --client-id {stack.provider.client_id}"
    with attended_kernel() as kernel, ScriptedPerson(person="alice") as person:
        kernel.run(LOAD)
        login = kernel.run(f'%micromegas_login --flow browser {provider} --scope "openid email"')
        start_url = card_address(login.messages)
        kernel.run_until_signed_in("%sql rows << SELECT 1 AS one", person, start_url)
        shown = kernel.run("%micromegas_whoami").of("display_data")[0]["data"]["text/plain"]

    assert "connected as alice@example.com, " in shown
    assert "Alice Martin" not in shown


def test_a_person_types_a_code_while_a_query_waits(kernel, tmp_path):
    with ScriptedPerson(person="alice") as person:
        login = kernel.run("%micromegas_login --flow device")
        code = card_views(login.messages)[-1]["code"]
        address = f"{card_address(login.messages)}?user_code={code}"
        query = kernel.run_until_signed_in("%sql rows << SELECT 1 AS one", person, address)
        # What is remembered of a sign-in is written once it has ended.
        remembered = {"MICROMEGAS_CONFIG_DIR": str(tmp_path)}
        kernel.wait_until(lambda: remembered_flow(load_client_settings(), remembered) is Flow.DEVICE)
        kernel.later_messages(0.5)
        saved = kernel.saved()

    assert login.reply["status"] == "ok"
    assert query.of("update_display_data")[-1]["data"]["text/plain"].startswith("✓ 1 row in ")
    assert code not in saved
    assert not BEARER_TOKEN.search(saved)


def test_a_kernel_over_ssh_is_offered_a_code(stack, monkeypatch, tmp_path):
    monkeypatch.setenv("SSH_CONNECTION", "192.0.2.1 50000 192.0.2.2 22")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "CI"):
        monkeypatch.delenv(name, raising=False)

    with attended_kernel() as kernel:
        kernel.run(LOAD)
        messages = kernel.run("%micromegas_login").messages

    assert card_views(messages)[-1]["code"]
    assert card_address(messages).startswith(stack.provider.issuer)


def test_a_pasted_address_signs_in_and_leaves_no_state_challenge_or_code_in_the_notebook(kernel):
    shown = []

    def paste(_request):
        shown.append(card_address(kernel.all_messages))
        return sign_in(shown[0], visit_callback=False)

    login = kernel.run("%micromegas_login --flow paste", answer=paste)
    query = kernel.run("%sql rows << SELECT 1 AS one")
    kernel.wait_until_saved("Signed in as Alice Martin")
    saved = kernel.saved()

    asked = parse_qs(urlsplit(shown[0]).query)
    assert (login.reply["status"], query.reply["status"]) == ("ok", "ok")
    assert "Signed in as Alice Martin" in saved
    for secret in (asked["state"][0], asked["code_challenge"][0], asked["nonce"][0], "code="):
        assert secret not in saved
    assert not BEARER_TOKEN.search(saved)


def test_a_session_at_the_provider_is_ended_in_the_persons_own_browser(stack, kernel):
    logout = kernel.run("%micromegas_logout --end-session")

    text = logout.printed
    assert f"open {stack.provider.issuer}/" in text
    assert "id_token_hint" not in text


def test_an_interrupt_stops_a_long_query_at_once_and_the_next_one_works(stack, monkeypatch):
    use(stack.service_environment(), monkeypatch)
    with attended_kernel() as kernel:
        kernel.run(LOAD)

        def interrupt_when_running(message):
            if message["msg_type"] == "display_data":
                kernel.interrupt()

        long = kernel.run(
            "%sql SELECT sum(sqrt(value)) FROM generate_series(1, 5000000000)", while_running=interrupt_when_running
        )
        again = kernel.run("%sql rows << SELECT 1 AS one")

    (error,) = long.of("error")
    assert error["ename"] == "QueryCancelled"
    assert re.fullmatch(r"✗ cancelled after \d+\.\d+ s, .*", error["traceback"][0])
    assert again.reply["status"] == "ok"


def test_nobody_signed_in_and_nobody_there_fails_at_once(stack, tmp_path):
    run = run_unattended(LOAD, "%micromegas_login", "%micromegas_login --flow paste", allow_errors=True)

    assert [run.outputs(cell)[0].ename for cell in (1, 2)] == ["LoginRequired"] * 2
    assert str(tmp_path) not in run.saved
    assert list(tmp_path.iterdir()) == []
