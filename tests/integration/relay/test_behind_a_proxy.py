"""A server that browsers reach at another address than its own, because a proxy with TLS stands before it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.relay.servers import jupyter_server, kernel_environment
from tests.integration.relay.signing_in import SignIn

if TYPE_CHECKING:
    from pathlib import Path

    from micromegas_jupyter.demo.provider import DemoProvider

pytestmark = [pytest.mark.integration, pytest.mark.slow]

PUBLIC = "https://lab.example.com/"


def test_the_configured_address_is_what_notebook_provider_and_cookies_go_by(
    provider: DemoProvider, tmp_path: Path
) -> None:
    environ = kernel_environment(tmp_path, issuer=provider.issuer, client_id=provider.client_id)
    options = (f"--MicromegasRelay.public_url={PUBLIC}",)

    with jupyter_server(tmp_path, *options, environ=environ) as server, server.kernel() as kernel:
        sign_in = SignIn(kernel)
        shown = sign_in.start_url
        # What the proxy does.
        sign_in.start_url = shown.replace(PUBLIC, server.url)
        started = sign_in.start(headers={"X-Forwarded-Proto": "http"})

    assert shown.startswith(f"{PUBLIC}micromegas/start/")
    assert sign_in.redirect_uri == f"{PUBLIC}micromegas/callback"
    cookie = started.headers["Set-Cookie"]
    assert cookie.startswith("__Host-micromegas-login-")
    assert {"Secure", "HttpOnly", "Path=/", "SameSite=Lax"} <= {part.strip() for part in cookie.split(";")}


def test_a_forwarded_protocol_counts_where_the_server_trusts_its_proxy(provider: DemoProvider, tmp_path: Path) -> None:
    environ = kernel_environment(tmp_path, issuer=provider.issuer, client_id=provider.client_id)

    trusting = "--ServerApp.trust_xheaders=True"
    with jupyter_server(tmp_path, trusting, environ=environ) as server, server.kernel() as kernel:
        sign_in = SignIn(kernel)
        sign_in.start(headers={"X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil.example"})

    assert sign_in.redirect_uri == f"{server.url.replace('http://', 'https://')}micromegas/callback"
