"""A Hub whose programs speak TLS with each other (`internal_ssl`). Runs with `--long` only."""

import pytest

from tests.fakes.raw_client import claims_of
from tests.integration.hub.guide import filled_in
from tests.integration.hub.running import RunningHub
from tests.integration.hub.test_tokens import post_token
from tests.integration.hub.test_with_time import asked_by

# The first test starts two Hubs.
pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]


class HubWithTls(RunningHub):
    """The same programs with another configuration."""

    def own_guide(self, text):
        tls = f"""c.JupyterHub.internal_ssl = True
c.ConfigurableHTTPProxy.api_url = "https://127.0.0.1:{self.ports[2]}"
"""
        return filled_in(text, {"c.Spawner.environment = ": f"{tls}c.Spawner.environment = "})


@pytest.fixture(scope="module")
def tls_hub(hub, tmp_path_factory):
    """A second Hub, for the same system users; alice has a server."""
    with HubWithTls.beside(hub, folder=tmp_path_factory.mktemp("tls-hub")) as second:
        second.browser().sign_in("alice")
        second.start_server("alice")
        yield second


def test_the_service_asks_the_hub_over_tls_and_kernels_are_signed_in(tls_hub):
    assert tls_hub.service_process().environ()["JUPYTERHUB_API_URL"].startswith("https://")
    answer = post_token(tls_hub, tls_hub.server_token("alice"))

    assert claims_of(answer.json()["access_token"])["sub"] == "alice"
    with tls_hub.kernel("alice") as kernel:
        kernel.run("%load_ext micromegas_jupyter")
        assert asked_by(kernel) == "alice"
