"""The service over real sockets, with a Hub that does what a real one does seldom; its settings and limits."""

import asyncio
import json
import logging
import ssl
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from tornado import web
from tornado.httpclient import AsyncHTTPClient
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.hub.__main__ import build_application
from micromegas_jupyter.hub.callers import AUDIT_LOGGER, Refused, TokenOwner, refuse
from micromegas_jupyter.hub.kernel_handlers import build_service
from micromegas_jupyter.hub.settings import read_internal_tls, read_service_settings
from micromegas_jupyter.hub.tokens import REFUSED_KEY, STALE_KEY
from tests.fakes.certificates import Authority
from tests.fakes.clock import FakeClock
from tests.fakes.mint import NOW, mint

ENVIRON = {
    "JUPYTERHUB_API_URL": "http://127.0.0.1:8081/hub/api",
    "JUPYTERHUB_API_TOKEN": "token-of-the-service",
    "JUPYTERHUB_SERVICE_PREFIX": "/services/micromegas/",
    "JUPYTERHUB_SERVICE_URL": "http://127.0.0.1:8190",
    "MICROMEGAS_HUB_ISSUER": "https://id.example.com",
    "MICROMEGAS_HUB_CLIENT_ID": "hub",
}
PREFIX = "/services/micromegas/"
KERNEL = {"Authorization": "Bearer hub-token-of-alice"}
ALICE = TokenOwner(kind="user", name="alice", scopes=frozenset({"access:servers!server=alice/"}))
KEY, CERTIFICATE, AUTHORITY = "JUPYTERHUB_SSL_KEYFILE", "JUPYTERHUB_SSL_CERTFILE", "JUPYTERHUB_SSL_CLIENT_CA"


@pytest.mark.parametrize(
    ("configured", "of_hub", "host"),
    [
        ("https://hub.example.com/", "", "hub.example.com"),
        ("", "https://micromegas.hub.example.com/services/micromegas/", "micromegas.hub.example.com"),
        ("https://a.example.com/", "https://b.example.com/", "a.example.com"),
        ("", "no address", None),
    ],
)
def test_the_redirect_address_is_at_the_host_that_browsers_know(configured, of_hub, host):
    environ = {**ENVIRON, "MICROMEGAS_HUB_PUBLIC_URL": configured, "JUPYTERHUB_PUBLIC_URL": of_hub}

    assert read_service_settings(environ).redirect_uri == (host and f"https://{host}/services/micromegas/callback")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *((key, "") for key in ENVIRON),
        ("MICROMEGAS_HUB_ISSUER", "http://id.example.com"),
        ("MICROMEGAS_HUB_BEARER", "refresh_token"),
        ("JUPYTERHUB_SERVICE_URL", "https://127.0.0.1:8190"),
        ("JUPYTERHUB_SERVICE_URL", "http://127.0.0.1"),
        ("JUPYTERHUB_SERVICE_URL", "http://127.0.0.1:no"),
    ],
)
def test_what_is_missing_or_cannot_be_read_is_named(key, value):
    with pytest.raises(ConfigurationError) as caught:
        read_service_settings({**ENVIRON, key: value})

    assert caught.value.key == key


class Hub:
    """Stands in for `HubApi`."""

    def __init__(self, state=None, *, is_down=False):
        self.state = state
        self.is_down = is_down

    async def fetch_owner(self, _token):
        if self.is_down:
            raise refuse("hub_unavailable")
        return ALICE

    async def fetch_auth_state(self, name):
        assert name == "alice"
        return self.state


def state_of(expires_in, **members):
    return {"id_token": mint(expires_in=expires_in), "refresh_token": "the refresh token", **members}


@pytest.fixture(autouse=True)
def _service_environment(monkeypatch):
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)


@asynccontextmanager
async def serving(application, **options):
    """Serve on loopback; gives the port."""
    server = HTTPServer(application, **options)
    sockets = bind_sockets(0, "127.0.0.1")
    server.add_sockets(sockets)
    try:
        yield sockets[0].getsockname()[1]
    finally:
        server.stop()
        await server.close_all_connections()


def ask(hub, path="token", *, method="POST", body=b"{}", headers=KERNEL):
    """Run the service for as long as it takes to ask it for the path."""

    async def run():
        service = build_service(read_service_settings(ENVIRON), clock=FakeClock(NOW))
        http = AsyncHTTPClient(force_instance=True)
        options = {"body": body} if method == "POST" else {}
        try:
            async with serving(build_application(replace(service, hub=hub))) as port:
                url = f"http://127.0.0.1:{port}{PREFIX}{path}"
                return await http.fetch(url, method=method, headers=headers, raise_error=False, **options)
        finally:
            http.close()
            service.provider.close()

    return asyncio.run(run())


def last_audit_line(caplog):
    """Return the last line of the audit log, whatever else of this process logs something."""
    lines = [record.getMessage() for record in caplog.records if record.name == AUDIT_LOGGER]
    return json.loads(lines[-1])


@pytest.mark.parametrize(
    ("hub", "status", "error"),
    [
        (Hub(is_down=True), 503, "hub_unavailable"),
        (Hub(None), 409, "no_auth_state"),
        (Hub({"refresh_token": "the refresh token"}), 409, "no_auth_state"),
        (Hub(state_of(300) | {"id_token": "opaque"}), 409, "no_auth_state"),
        (Hub(state_of(300) | {"id_token": mint(without=["exp"])}), 409, "no_auth_state"),
        (Hub(state_of(-1)), 503, "provider_unavailable"),
        (Hub(state_of(-1, **{REFUSED_KEY: True})), 409, "sign_in_again"),
        (Hub(state_of(-1, refresh_token=None)), 409, "sign_in_again"),
        (Hub(state_of(-1, **{STALE_KEY: True})), 409, "not_renewed"),
    ],
    ids=range(9),
)
def test_a_refusal_says_what_happened_and_what_to_do(hub, status, error, caplog):
    with caplog.at_level(logging.INFO, logger=AUDIT_LOGGER):
        answer = ask(hub)

    members = json.loads(answer.body)
    assert (answer.code, members["error"]) == (status, error)
    assert set(members) == {"error", "message"}
    assert ("Retry-After" in answer.headers) is (status == 503)
    assert last_audit_line(caplog)["reason"] == error


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", "Basic YTpi", "token hub-token", "Bearer " + "x" * 2000, "Bearer h\u00fcb"],
    ids=["none", "no token", "blank", "Basic", "other scheme", "long", "no ASCII"],
)
def test_what_is_no_bearer_token_is_not_asked_about(header):
    hub = Hub(is_down=True)

    answer = ask(hub, headers={"Authorization": header} if header else {})

    assert (answer.code, json.loads(answer.body)["error"]) == (401, "invalid_token")
    assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("options", "path", "status"),
    [
        ({"body": b"[]"}, "token", 400),
        ({"body": b"no JSON"}, "token", 400),
        ({"body": b"[" * 50_000}, "token", 400),
        ({"method": "GET"}, "token", 405),
        ({"method": "GET"}, "../hub/api", 404),
    ],
    ids=["list", "no JSON", "deep", "method", "address"],
)
def test_what_is_no_call_is_refused_in_the_same_form(options, path, status):
    answer = ask(Hub(state_of(300)), path, **options)

    assert (answer.code, json.loads(answer.body)["error"]) == (status, "invalid_request")


class UserHandler(web.RequestHandler):
    """The Hub's answer about a token."""

    def get(self):
        self.finish({"kind": "user", "name": "alice", "scopes": []})


def asked(hub_pair, client_authority, environ):
    """Run a Hub that takes only callers with a certificate of the authority, and ask it with a service's settings."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(client_authority.ca_file))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(hub_pair.certificate_file, hub_pair.key_file)

    async def run():
        async with serving(web.Application([("/hub/api/user", UserHandler)]), ssl_options=context) as port:
            url = f"https://127.0.0.1:{port}/hub/api"
            service = build_service(read_service_settings({**ENVIRON, **environ, "JUPYTERHUB_API_URL": url}))
            try:
                return await service.hub.fetch_owner(Secret("t"))
            finally:
                service.provider.close()

    return asyncio.run(run())


def variables(pair, authority):
    return {KEY: str(pair.key_file), CERTIFICATE: str(pair.certificate_file), AUTHORITY: str(authority.ca_file)}


def test_a_hub_is_called_with_the_certificate_that_it_gave_and_no_stranger_is_believed(tmp_path):
    authority, stranger = Authority(tmp_path), Authority(tmp_path, "stranger")
    own = variables(authority.issue("service"), authority)

    assert asked(authority.issue("hub"), authority, own).name == "alice"
    for hub_pair, environ in ((authority.issue("hub"), {}), (stranger.issue("imposter"), own)):
        with pytest.raises(Refused) as caught:
            asked(hub_pair, authority, environ)
        assert caught.value.error == "hub_unavailable"


@pytest.mark.parametrize(("missing", "key"), [(KEY, KEY), (AUTHORITY, AUTHORITY), (None, CERTIFICATE)])
def test_a_part_that_is_missing_or_cannot_be_used_is_named(missing, key):
    environ = {name: "/nowhere/hub.pem" for name in (KEY, CERTIFICATE, AUTHORITY) if name != missing}

    with pytest.raises(ConfigurationError) as caught:
        read_internal_tls(environ)

    assert caught.value.key == key
    assert "/nowhere" not in str(caught.value)
