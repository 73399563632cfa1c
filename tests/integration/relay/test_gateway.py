"""A kernel that runs behind a real Kernel Gateway signs in by redirect through the Jupyter server in front of it."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.fakes.ports import free_port
from tests.integration.relay.gateway import AUTH_TOKEN, kernel_gateway
from tests.integration.relay.servers import jupyter_server, kernel_environment
from tests.integration.relay.signing_in import SignIn

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from micromegas_jupyter.demo.provider import DemoProvider
    from tests.integration.relay.servers import JupyterServer, ServerKernel

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture(scope="module")
def server(provider: DemoProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[JupyterServer]:
    """A server whose kernels all run behind a gateway, which alone knows the kernels' settings."""
    folder: Path = tmp_path_factory.mktemp("gateway")
    environ = kernel_environment(folder, issuer=provider.issuer, client_id=provider.client_id)
    bare = {name: value for name, value in environ.items() if not name.startswith("MICROMEGAS_")}
    with kernel_gateway(folder, environ=environ, port=free_port()) as gateway:
        options = (f"--GatewayClient.url={gateway}", f"--GatewayClient.auth_token={AUTH_TOKEN}")
        with jupyter_server(folder, *options, environ=bare, base_url="/front/") as running:
            running.kernel_folders.append(folder / "gateway-runtime")
            yield running


def test_a_kernel_behind_a_gateway_signs_in(kernel: ServerKernel, sign_in: SignIn) -> None:
    callback = sign_in.answer()

    page = sign_in.come_back(callback)
    kernel.wait_until_saved("Signed in as Alice Martin")

    assert "Signed in as Alice Martin." in page
    assert "Signed in as Alice Martin" in kernel.saved()
    code = parse_qs(urlsplit(callback).query)["code"][0]
    assert code not in kernel.server.log


def test_it_signs_in_while_a_cell_runs(kernel: ServerKernel, sign_in: SignIn) -> None:
    pages: list[str] = []

    def come_back_while_running(message: dict[str, object]) -> None:
        if message["msg_type"] == "stream" and not pages:
            pages.append(sign_in.come_back(sign_in.answer()))

    cell = kernel.run(
        "login = get_ipython()._micromegas_extension.session.sign_in.login\n"
        "print('running', flush=True)\n"
        "assert login.result(60).identity().name == 'Alice Martin'",
        while_running=come_back_while_running,
    )

    assert cell.reply["status"] == "ok", cell
    assert "Signed in as Alice Martin." in pages[0]


def test_a_sign_in_that_is_not_there_any_more_is_told_at_once(kernel: ServerKernel) -> None:
    first = SignIn(kernel)
    SignIn(kernel)

    assert first.get(first.start_url).status_code == 404


def test_a_kernel_that_the_gateway_has_no_more_is_said_to_have_gone(server: JupyterServer) -> None:
    with server.kernel() as kernel:
        waiting = SignIn(kernel)

    gone = waiting.get(waiting.start_url)

    assert gone.status_code == 409
    assert "is not running any more" in gone.text
