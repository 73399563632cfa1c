"""Starting each flow, and the loopback flow from the listener to the last page."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.auth.flows.base import LoginContext
from micromegas_jupyter.auth.flows.loopback import LoopbackAddress, parse_loopback_address
from micromegas_jupyter.auth.provider import start_flow
from micromegas_jupyter.auth.provider_connection import LoginRequest, ProviderConnection
from micromegas_jupyter.config.client import Flow
from micromegas_jupyter.core.system import SYSTEM_RANDOMNESS
from micromegas_jupyter.errors import ProviderMisbehaved, UsageError
from tests.fakes.ports import free_port
from tests.fakes.scripted_provider import DirectCalls, ScriptedProvider

if TYPE_CHECKING:
    from collections.abc import Iterator

    from micromegas_jupyter.auth.flows.base import LoginFlow
    from tests.fakes.clock import FakeClock

THREE_FLOWS = [Flow.BROWSER, Flow.DEVICE, Flow.PASTE]


class Starter:
    """Starts flows and closes them when the test ends."""

    def __init__(self, idp: ScriptedProvider, clock: FakeClock) -> None:
        self.connection = ProviderConnection(idp.issuer, "notebook", None, http=DirectCalls(idp), clock=clock)
        self.clock, self.idp = clock, idp
        self.started: list[LoginFlow] = []

    def start(self, flow: Flow, **options: object) -> LoginFlow:
        request = LoginRequest(**options)  # type: ignore[arg-type]
        running = start_flow(
            flow,
            LoginContext(request=request, connection=self.connection, clock=self.clock, randomness=SYSTEM_RANDOMNESS),
        )
        self.started.append(running)
        return running


@pytest.fixture
def starter(idp: ScriptedProvider, clock: FakeClock) -> Iterator[Starter]:
    starter = Starter(idp, clock)
    yield starter
    for running in starter.started:
        running.close()


@pytest.mark.parametrize("flow", [Flow.REDIRECT, Flow.HUB])
def test_a_flow_that_needs_a_server_cannot_be_started(flow: Flow, starter: Starter, idp: ScriptedProvider) -> None:
    with pytest.raises(UsageError, match=flow.value):
        starter.start(flow)
    assert idp.requests == []


@pytest.mark.parametrize("flow", [Flow.BROWSER, Flow.PASTE])
def test_a_redirect_uri_off_loopback_is_refused_before_the_provider_is_asked(
    flow: Flow, starter: Starter, idp: ScriptedProvider
) -> None:
    with pytest.raises(UsageError):
        starter.start(flow, redirect_uri="https://lake.example.com/callback")
    assert idp.requests == []


def test_a_request_that_cannot_be_built_leaves_no_port_taken(starter: Starter, idp: ScriptedProvider) -> None:
    idp.metadata_changes["code_challenge_methods_supported"] = ["plain"]
    port = free_port()

    with pytest.raises(ProviderMisbehaved):
        starter.start(Flow.BROWSER, redirect_uri=f"http://127.0.0.1:{port}/callback")

    with socket.create_server(("127.0.0.1", port)) as again:
        assert again.getsockname()[1] == port


@pytest.mark.parametrize("flow", [Flow.BROWSER, Flow.PASTE])
def test_resource_and_further_parameters_are_part_of_the_request(flow: Flow, starter: Starter) -> None:
    running = starter.start(
        flow, resource="https://lake.example.com", audience="api", authorize_params={"access_type": "offline"}
    )

    url = running._grant.request.url  # type: ignore[attr-defined]
    assert "resource=https%3A%2F%2Flake.example.com" in url
    assert "audience=api" in url
    assert "access_type=offline" in url


# The redirect URI


@pytest.mark.parametrize(
    ("uri", "address", "bind_host", "authority"),
    [
        (
            "http://localhost:48080/callback",
            LoopbackAddress(host="localhost", port=48080, path="/callback"),
            "127.0.0.1",
            "localhost:48080",
        ),
        ("http://127.0.0.1:8765", LoopbackAddress(port=8765, path="/"), "127.0.0.1", "127.0.0.1:8765"),
        ("http://[::1]:8765/cb", LoopbackAddress(host="::1", port=8765, path="/cb"), "::1", "[::1]:8765"),
    ],
)
def test_a_fixed_uri_on_loopback_is_taken_as_registered(
    uri: str, address: LoopbackAddress, bind_host: str, authority: str
) -> None:
    found = parse_loopback_address(uri)

    assert found == address
    assert found.bind_host == bind_host
    assert found.authority(found.port) == authority


@pytest.mark.parametrize(
    "uri",
    [
        "http://example.com:48080/callback",
        "http://0.0.0.0:48080/callback",
        "http://127.0.0.2:48080/callback",
        "http://127.0.0.1.example.com:1/callback",
        "http://localhost.example.com:1/callback",
        "https://127.0.0.1:48080/callback",
        "http://127.0.0.1@example.com:1/",
        "http://alice@127.0.0.1:1/callback",
        "http://127.0.0.1:1/callback?a=1",
        "http://127.0.0.1:1/callback#a",
        "http://127.0.0.1:99999/callback",
        "http://127.0.0.1:1/done",
        "http://127.0.0.1:1/start/x",
        "http://[::1",
        "urn:ietf:wg:oauth:2.0:oob",
        "",
    ],
)
def test_every_other_redirect_uri_is_a_usage_error(uri: str) -> None:
    with pytest.raises(UsageError):
        parse_loopback_address(uri)
