"""What a balancer asks for: over HTTP and gRPC a server says the same, and says when it changes."""

import grpc
import pytest
import requests

from micromegas_jupyter.config.server import ServerSettings
from micromegas_jupyter.flightsql.commands import messages
from micromegas_jupyter.server import flight_service
from micromegas_jupyter.wiring import server as wiring
from tests.fakes.waiting import wait_until

pytestmark = pytest.mark.integration

SERVING, NOT_SERVING = messages.HealthCheckResponse.SERVING, messages.HealthCheckResponse.NOT_SERVING


def test_a_server_without_storage_or_disk_asks_for_no_calls(tmp_path, monkeypatch):
    monkeypatch.setattr(flight_service, "_WATCH_SECONDS", 0.05)
    settings = ServerSettings(lake=str(tmp_path / "lake"), port=0, disable_auth=True, no_telemetry=True)
    request = messages.HealthCheckRequest().SerializeToString()
    with (
        wiring.ServerStack(settings, environ={}) as server,
        grpc.insecure_channel(server.uri.removeprefix("grpc://")) as channel,
    ):
        watch = channel.unary_stream("/grpc.health.v1.Health/Watch")(request, timeout=60)

        def health(reply):
            return messages.HealthCheckResponse.FromString(reply).status

        def ready():
            return requests.get(f"{server.http_url}/ready", timeout=60).json().get("reason")

        def check():
            return health(channel.unary_unary("/grpc.health.v1.Health/Check")(request, timeout=60))

        assert (health(next(watch)), check(), ready()) == (SERVING, SERVING, None)

        with monkeypatch.context() as patch:
            patch.setattr(wiring, "_MIN_FREE_BYTES", 1 << 60)
            assert health(next(watch)) == NOT_SERVING
            assert check() == NOT_SERVING
            wait_until(lambda: ready() == "disk", "it says why")
            (tmp_path / "lake").rename(tmp_path / "away")
        wait_until(lambda: ready() == "storage", "it says why")
        assert check() == NOT_SERVING

        (tmp_path / "away").rename(tmp_path / "lake")
        assert health(next(watch)) == SERVING
        watch.cancel()
