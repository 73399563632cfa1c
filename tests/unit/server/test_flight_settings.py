"""Settings are valid once built."""

from pathlib import Path

import pytest

from micromegas_jupyter.server import FlightServerSettings


def test_the_defaults_listen_on_loopback() -> None:
    settings = FlightServerSettings()

    assert (settings.host, settings.port) == ("127.0.0.1", 50051)


@pytest.mark.parametrize(
    "changes",
    [
        {"port": 65536},
        {"port": -1},
        {"certificate_file": Path("server.pem")},
        {"key_file": Path("server.key")},
        {"client_ca_file": Path("clients.pem")},
        {"max_concurrent_calls": 0},
        {"write_timeout_seconds": 0.0},
        {"connection_age_seconds": 0.0},
        {"max_rows": 0},
        {"ticket_life_seconds": 0.0},
        {"max_result_bytes": -1},
    ],
)
def test_other_values_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"port|TLS|limits"):
        FlightServerSettings(**changes)  # type: ignore[arg-type]
