"""A kernel that runs behind a real Kernel Gateway signs in by redirect through the Jupyter server in front of it."""

import subprocess
import sys
from contextlib import contextmanager, suppress
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from tests.fakes.ports import free_port
from tests.integration.relay.servers import jupyter_server, kernel_environment, until

pytestmark = [pytest.mark.integration, pytest.mark.slow]

AUTH_TOKEN = "a-token-of-the-gateway"


@contextmanager
def kernel_gateway(folder, *, environ, port):
    """Run a gateway with a token and return its address; its log lies in `folder`."""
    own = {
        **environ,
        "HOME": str(folder),
        "JUPYTER_RUNTIME_DIR": str(folder / "gateway-runtime"),
        "JUPYTER_CONFIG_DIR": str(folder / "gateway-config"),
        "KG_AUTH_TOKEN": AUTH_TOKEN,
    }
    command = [
        sys.executable, "-m", "kernel_gateway", "--KernelGatewayApp.ip=127.0.0.1", f"--KernelGatewayApp.port={port}",
        "--KernelGatewayApp.port_retries=0", "--JupyterWebsocketPersonality.list_kernels=True", "--debug",
    ]  # fmt: skip
    # A gateway gives its kernels no more of its variables than these, and those that begin with KERNEL_ of a server.
    command += [f"--KernelGatewayApp.env_process_whitelist={name}" for name in own]
    url = f"http://127.0.0.1:{port}"
    with (folder / "gateway.log").open("wb") as log:
        process = subprocess.Popen(command, env=own, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        until(lambda: _answers(url, process, folder / "gateway.log"), "a gateway that listens")
        yield url
    finally:
        process.terminate()
        process.wait(timeout=60)


def _answers(url, process, log):
    assert process.poll() is None, log.read_text()[-3000:]
    with suppress(requests.ConnectionError):
        return requests.get(f"{url}/api", timeout=30) is not None


@pytest.fixture(scope="module")
def server(provider, tmp_path_factory):
    """A server whose kernels all run behind a gateway, which alone knows the kernels' settings."""
    folder = tmp_path_factory.mktemp("gateway")
    environ = kernel_environment(folder, issuer=provider.issuer, client_id=provider.client_id)
    bare = {name: value for name, value in environ.items() if not name.startswith("MICROMEGAS_")}
    with kernel_gateway(folder, environ=environ, port=free_port()) as gateway:
        options = (f"--GatewayClient.url={gateway}", f"--GatewayClient.auth_token={AUTH_TOKEN}")
        with jupyter_server(folder, *options, environ=bare, base_url="/front/") as running:
            running.kernel_folders.append(folder / "gateway-runtime")
            yield running


def test_a_kernel_behind_a_gateway_signs_in(kernel, sign_in):
    callback = sign_in.answer()

    page = sign_in.come_back(callback)
    kernel.wait_until_saved("Signed in as Alice Martin")

    assert "Signed in as Alice Martin." in page
    assert "Signed in as Alice Martin" in kernel.saved()
    code = parse_qs(urlsplit(callback).query)["code"][0]
    assert code not in kernel.server.log
