"""Waits for a person or for an identity provider, interrupted in a real kernel."""

import json

import pytest

from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.demo.provider.scripted_person import ScriptedPerson
from micromegas_jupyter.wiring.client_side import load_client_settings, token_file
from tests.fakes.raw_server import SilentServer
from tests.fakes.scripted_provider import ScriptedProvider
from tests.integration.notebook.interrupting import LOAD, check_stopped, interrupt, says
from tests.integration.notebook.kernels import attended_kernel, card_address, card_views

pytestmark = pytest.mark.integration

# The tables for completions are fetched on other threads, which use a sign-in that is stored.
JOIN = """import threading
for thread in threading.enumerate():
    if thread.name.endswith("schema"):
        thread.join(30)"""
WAITING = says("interrupt to stop waiting")


@pytest.fixture(scope="module")
def kernel(stack, tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    with attended_kernel({**stack.client_environment(), "HOME": str(home)}) as running:
        assert running.run(LOAD).reply["status"] == "ok"
        yield running


def open_address(kernel, flow):
    address = card_address(kernel.all_messages)
    return address if flow == "browser" else f"{address}?user_code={card_views(kernel.all_messages)[-1]['code']}"


@pytest.mark.parametrize("flow", ["browser", "device"])
def test_a_query_that_waits_for_a_sign_in_is_stopped_and_the_sign_in_goes_on(kernel, flow):
    kernel.run(f"%micromegas_login --flow {flow}")

    found = interrupt(kernel, "%sql SELECT 1 AS one", when=WAITING)
    with ScriptedPerson(person="alice") as person:
        person.open(open_address(kernel, flow))
    again = kernel.run("%sql rows << SELECT 1 AS one")

    check_stopped(found, name=f"waiting for a sign-in by {flow}")
    assert "it stays open" in found.line
    assert again.reply["status"] == "ok"
    kernel.run("%micromegas_logout")


def test_a_renewal_at_a_provider_that_never_answers_is_stopped(stack, tmp_path):
    with SilentServer() as silent:
        provider = ScriptedProvider(clock=SYSTEM_CLOCK)
        provider.issuer = f"http://127.0.0.1:{silent.port}"
        variables = {
            "MICROMEGAS_ANALYTICS_URI": stack.server.uri,
            "MICROMEGAS_OIDC_ISSUER": provider.issuer,
            "MICROMEGAS_OIDC_CLIENT_ID": provider.client_id,
            "MICROMEGAS_CONFIG_DIR": str(tmp_path),
        }
        file = token_file(load_client_settings(environ=variables), variables)
        token = provider.stored_token(ends_in_seconds=-60)
        with attended_kernel(variables) as kernel:
            kernel.run(f"{LOAD}\n{JOIN}")
            file.write_text(json.dumps({"issuer": provider.issuer, "client_id": provider.client_id, "token": token}))
            file.chmod(0o600)

            found = interrupt(kernel, "%sql SELECT 1", when=lambda _: silent.was_called())
            again = kernel.run("print('alive')")

    check_stopped(found, name="a query while a token is renewed at a silent provider")
    assert again.reply["status"] == "ok"
