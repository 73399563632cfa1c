"""Where a server says that it answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from micromegas_jupyter.wiring.serve_options import ServeOptions

PEM = Path("server.pem")


@pytest.mark.parametrize(
    ("host", "certificate", "http_url"),
    [
        ("127.0.0.1", None, "http://127.0.0.1:8"),
        ("::1", None, "http://[::1]:8"),
        ("lake.example", PEM, "https://lake.example:8"),
    ],
)
def test_addresses_have_the_scheme_and_the_port_that_was_taken(
    host: str, certificate: Path | None, http_url: str
) -> None:
    options = ServeOptions(lake=Path("lake"), host=host, http_host=host, certificate_file=certificate)

    assert options.http_url_at(8) == http_url
