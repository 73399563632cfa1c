"""Completion of SQL in a real kernel: over a real server, one that hangs, and after another sign-in."""

import pytest

from micromegas_jupyter.demo.provider.scripted_person import ScriptedPerson
from tests.fakes.raw_server import SilentServer
from tests.integration.notebook.kernels import attended_kernel, card_address

pytestmark = pytest.mark.integration

LOAD = "%load_ext micromegas_jupyter"
WAIT_UNTIL_ASKED = """
extension = get_ipython()._micromegas_extension
answered = extension.schemas._fetching.get(extension.session.settings())
if answered is not None: answered.wait(60)
"""
WAS_ASKED = """
schemas = get_ipython()._micromegas_extension.schemas
bool(schemas._fetching or schemas._known)
"""


@pytest.fixture
def kernel(stack, monkeypatch, tmp_path):
    """A kernel with settings of its own, in which nobody is signed in."""
    for name, value in {**stack.client_environment(), "MICROMEGAS_CONFIG_DIR": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    with attended_kernel() as running:
        running.run(LOAD)
        yield running


def sign_in(kernel, *, person):
    with ScriptedPerson(person=person) as browser:
        login = kernel.run("%micromegas_login --flow browser")
        start_url = card_address(login.messages)
        assert kernel.run_until_signed_in("%sql SELECT 1 AS one", browser, start_url).reply["status"] == "ok"


def test_tables_columns_and_functions_come_from_the_server_of_whoever_is_signed_in(kernel):
    signed_out = kernel.complete("%%sql\nSELECT * FROM |")
    sign_in(kernel, person="alice")
    kernel.complete("%%sql\nSELECT * FROM |")
    kernel.run(WAIT_UNTIL_ASKED)

    assert not [text for text, kind in signed_out if kind == "table"]
    assert ("log_entries", "table") in kernel.complete("%%sql\nSELECT * FROM lo|")
    assert ("target", "column text") in kernel.complete("%%sql rows << --begin 1h\nSELECT l.ta| FROM log_entries l")
    assert ("date_bin", "function") in kernel.complete("%sql SELECT date_b|")
    assert ("property_get", "function") in kernel.complete("%sql SELECT property_g|")
    assert ("make_histogram", "function") in kernel.complete("%sql SELECT make_h|")
    assert ("getattr", "function") in kernel.complete("getat|")

    kernel.run("%micromegas_logout")

    assert ("log_entries", "table") not in kernel.complete("%%sql\nSELECT * FROM lo|")
    assert "Traceback" not in str(kernel.all_messages)


def test_typing_goes_on_while_the_server_hangs(stack, monkeypatch, tmp_path):
    with SilentServer() as silent:
        monkeypatch.setenv("MICROMEGAS_CONFIG_DIR", str(tmp_path))
        monkeypatch.setenv("MICROMEGAS_ANALYTICS_URI", f"grpc://127.0.0.1:{silent.port}")
        with attended_kernel() as kernel:
            kernel.run(LOAD)

            # Each of these would last as long as a call's deadline, ten seconds, if it waited for the server.
            offered = [kernel.complete("%%sql\nSELECT * FROM t QUAL|") for _ in range(20)]

            assert offered == [[("QUALIFY", "keyword")]] * 20
            assert kernel.run(WAS_ASKED).of("execute_result")[0]["data"]["text/plain"] == "True"
            assert kernel.later_messages(0.2) == []
