"""Calls to a Hub that asks for a certificate, over real sockets."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING

import pytest
from tornado import web
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from micromegas_jupyter.core.protocols import Secret
from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.hub.refusals import Refused
from micromegas_jupyter.hub.service import build_service
from micromegas_jupyter.hub.settings import InternalTls, read_internal_tls, read_service_settings
from tests.fakes.certificates import Authority, Pair
from tests.unit.hub.test_settings import ENVIRON

if TYPE_CHECKING:
    from pathlib import Path

    from micromegas_jupyter.hub.hub_api import TokenOwner

KEY, CERTIFICATE, AUTHORITY = "JUPYTERHUB_SSL_KEYFILE", "JUPYTERHUB_SSL_CERTFILE", "JUPYTERHUB_SSL_CLIENT_CA"


class UserHandler(web.RequestHandler):
    """The Hub's answer about a token."""

    def get(self) -> None:
        self.finish({"kind": "user", "name": "alice", "scopes": []})


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def asked(hub_pair: Pair, client_authority: Authority, environ: dict[str, str]) -> TokenOwner | None:
    """Run a Hub that takes only callers with a certificate of the authority, and ask it with a service's settings."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(client_authority.ca_file))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(hub_pair.certificate_file, hub_pair.key_file)

    async def run() -> TokenOwner | None:
        server = HTTPServer(web.Application([("/hub/api/user", UserHandler)]), ssl_options=context)
        sockets = bind_sockets(0, "127.0.0.1")
        server.add_sockets(sockets)
        url = f"https://127.0.0.1:{sockets[0].getsockname()[1]}/hub/api"
        service = build_service(read_service_settings({**ENVIRON, **environ, "JUPYTERHUB_API_URL": url}))
        try:
            return await service.hub.fetch_owner(Secret("t"))
        finally:
            server.stop()
            await server.close_all_connections()
            service.provider.close()

    return asyncio.run(run())


def variables(pair: Pair, authority: Authority) -> dict[str, str]:
    return {KEY: str(pair.key_file), CERTIFICATE: str(pair.certificate_file), AUTHORITY: str(authority.ca_file)}


def test_a_hub_that_asks_for_a_certificate_is_called_with_the_one_that_it_gave(authority: Authority) -> None:
    owner = asked(authority.issue("hub"), authority, variables(authority.issue("service"), authority))

    assert owner is not None
    assert owner.name == "alice"


def test_without_its_certificate_or_at_a_stranger_the_hub_counts_as_unavailable(
    authority: Authority, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path, "stranger")
    own = variables(authority.issue("service"), authority)

    for hub_pair, environ in ((authority.issue("hub"), {}), (stranger.issue("imposter"), own)):
        with pytest.raises(Refused) as caught:
            asked(hub_pair, authority, environ)
        assert caught.value.error == "hub_unavailable"


def test_plain_http_needs_none() -> None:
    assert read_internal_tls({}) is None


@pytest.mark.parametrize("missing", [KEY, CERTIFICATE, AUTHORITY])
def test_a_part_that_is_missing_is_named(missing: str) -> None:
    environ = {name: "/etc/hub.pem" for name in (KEY, CERTIFICATE, AUTHORITY) if name != missing}

    with pytest.raises(ConfigurationError) as caught:
        read_internal_tls(environ)

    assert caught.value.key == missing


def test_files_that_cannot_be_used_are_said_without_their_places(tmp_path: Path) -> None:
    nowhere = str(tmp_path / "none.pem")
    with pytest.raises(ConfigurationError) as caught:
        InternalTls(key_file=nowhere, certificate_file=nowhere, authority_file=nowhere).context()

    assert str(tmp_path) not in str(caught.value)
