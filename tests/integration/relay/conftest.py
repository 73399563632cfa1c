"""One demo provider, a server and a kernel that live as long as a module's tests, and one sign-in for each test."""

import pytest

from micromegas_jupyter.demo.provider import DemoProvider
from tests.integration.relay.servers import SignIn, jupyter_server, kernel_environment


@pytest.fixture(scope="module")
def provider():
    with DemoProvider() as running:
        yield running


@pytest.fixture(scope="module")
def server(provider, tmp_path_factory):
    """A server with a token, at a base URL, that lets pages of every site read what it answers elsewhere."""
    folder = tmp_path_factory.mktemp("server")
    environ = kernel_environment(folder, issuer=provider.issuer, client_id=provider.client_id)
    options = (
        "--ServerApp.allow_origin=*",
        "--ServerApp.tornado_settings={'headers': {'Access-Control-Allow-Origin': '*'}}",
    )
    with jupyter_server(folder, *options, environ=environ, base_url="/team/x/") as running:
        yield running


@pytest.fixture(scope="module")
def kernel(server):
    with server.kernel() as running:
        yield running


@pytest.fixture
def sign_in(kernel):
    """A sign-in of the module's kernel that waits for its browser."""
    return SignIn(kernel)
