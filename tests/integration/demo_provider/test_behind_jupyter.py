"""The demo provider whose pages a Jupyter server shows to browsers, at a host that nobody knows."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.demo.provider import DemoProvider
from tests.fakes.raw_client import RawClient

if TYPE_CHECKING:
    from tests.fakes.clock import FakeClock

pytestmark = pytest.mark.integration


def test_pages_cookies_and_redirects_stay_below_its_base_url(
    clock: FakeClock,
) -> None:
    callback = "https://hub.example.org/user/x/micromegas/callback"

    with DemoProvider(clock=clock, jupyter_base_url="/user/x/") as provider:
        client = RawClient(provider.issuer, provider.client_id, redirect_uri=callback)
        page = client.get(client.authorization_url().removeprefix(provider.issuer))
        elsewhere = client.authorization_url(redirect_uri=callback.replace("/x/", "/y/"))
        refused = client.get(elsewhere.removeprefix(provider.issuer))

    assert "Path=/user/x/micromegas-demo/" in page.headers["Set-Cookie"]
    assert not re.search(r"(?:href|action|src)=\"(?:https?:|/)", page.text)
    assert "<h1>Sign in</h1>" in page.text
    assert refused.status_code == 400
    assert client.metadata["authorization_endpoint"] == f"{provider.issuer}/authorize"
    # Nobody could open these.
    assert not {"end_session_endpoint", "device_authorization_endpoint"} & set(client.metadata)
