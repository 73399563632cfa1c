"""The service's addresses over real sockets, with a Hub that does what a real one does seldom."""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from tornado.httpclient import AsyncHTTPClient, HTTPResponse
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from micromegas_jupyter.hub.application import build_application
from micromegas_jupyter.hub.hub_api import HubApi, TokenOwner
from micromegas_jupyter.hub.limits import AUDIT_LOGGER, BURST_CALLS, BURST_UNKNOWN
from micromegas_jupyter.hub.refresh import REFUSED_KEY, STALE_KEY
from micromegas_jupyter.hub.refusals import refuse
from micromegas_jupyter.hub.service import build_service
from micromegas_jupyter.hub.settings import read_service_settings
from tests.fakes.clock import FakeClock
from tests.fakes.mint import NOW, mint
from tests.unit.hub.test_settings import ENVIRON

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX = "/services/micromegas/"
KERNEL = {"Authorization": "Bearer hub-token-of-alice"}
ALICE = TokenOwner(kind="user", name="alice", scopes=frozenset({"access:servers!server=alice/"}))
SECRETS = ("the refresh token", "hub-token-of-alice")


class Hub:
    """Stands in for `HubApi`."""

    def __init__(self, state: dict[str, Any] | None = None, *, is_down: bool = False) -> None:
        self.state = state
        self.is_down = is_down

    async def fetch_owner(self, _token: object) -> TokenOwner | None:
        if self.is_down:
            raise refuse("hub_unavailable")
        return ALICE

    async def fetch_auth_state(self, name: str) -> dict[str, Any] | None:
        assert name == "alice"
        return self.state


def state_of(expires_in: float, **members: Any) -> dict[str, Any]:
    return {"id_token": mint(expires_in=expires_in), "refresh_token": "the refresh token", **members}


@pytest.fixture(autouse=True)
def _service_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)


def ask(
    hub: object,
    *paths: str,
    method: str = "POST",
    body: bytes = b"{}",
    headers: Mapping[str, str] = KERNEL,
    environ: Mapping[str, str] = ENVIRON,
) -> list[HTTPResponse]:
    """Run the service for as long as it takes to ask it for the paths, one after the other."""

    async def run() -> list[HTTPResponse]:
        service = build_service(read_service_settings(environ), clock=FakeClock(NOW))
        server = HTTPServer(build_application(replace(service, hub=hub)))
        sockets = bind_sockets(0, "127.0.0.1")
        server.add_sockets(sockets)
        base = f"http://127.0.0.1:{sockets[0].getsockname()[1]}{PREFIX}"
        http = AsyncHTTPClient(force_instance=True)
        options = {"body": body} if method in {"POST", "PUT"} else {}
        try:
            return [
                await http.fetch(base + path, method=method, headers=headers, raise_error=False, **options)
                for path in paths
            ]
        finally:
            http.close()
            server.stop()
            await server.close_all_connections()
            service.provider.close()

    return asyncio.run(run())


def last_audit_line(caplog: pytest.LogCaptureFixture) -> dict[str, Any]:
    """Return the last line of the audit log, whatever else of this process logs something."""
    lines = [record.getMessage() for record in caplog.records if record.name == AUDIT_LOGGER]
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def test_a_kernel_gets_the_bearer_its_end_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    state = state_of(300)
    with caplog.at_level(logging.INFO, logger=AUDIT_LOGGER):
        (answer,) = ask(Hub(state), "token")

    assert (answer.code, answer.headers["Cache-Control"]) == (200, "no-store")
    assert json.loads(answer.body) == {
        "access_token": state["id_token"],
        "token_type": "Bearer",
        "expires_at": int(NOW.timestamp()) + 300,
        "expires_in": 300,
        "issuer": "https://id.example.com",
        "user": "alice",
    }
    line = last_audit_line(caplog)
    assert (line["event"], line["owner"], line["expires_at"]) == ("token_given", "alice", int(NOW.timestamp()) + 300)
    assert not any(secret in caplog.text for secret in (*SECRETS, state["id_token"]))


class SlowHub(Hub):
    """Renews while it is asked a second time whose a token is."""

    asked = 0

    async def fetch_owner(self, _token: object) -> TokenOwner | None:
        self.asked += 1
        if self.asked > 1:
            self.state = state_of(300)
        return ALICE


def test_a_token_that_ended_while_the_hub_had_much_to_do_is_asked_for_once_more() -> None:
    hub = SlowHub(state_of(-1))

    (answer,) = ask(hub, "token")

    assert (answer.code, hub.asked) == (200, 2)


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
    ids=[
        "Hub down",
        "nothing kept",
        "no ID token",
        "opaque",
        "no end",
        "provider down",
        "refused",
        "no refresh token",
        "stale",
    ],
)
def test_a_refusal_says_what_happened_and_what_to_do(
    hub: Hub, status: int, error: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger=AUDIT_LOGGER):
        (answer,) = ask(hub, "token")

    members = json.loads(answer.body)
    assert (answer.code, members["error"]) == (status, error)
    assert set(members) == {"error", "message", "remedy"}
    assert members["remedy"]
    assert ("Retry-After" in answer.headers) is (status == 503)
    assert last_audit_line(caplog)["reason"] == error


def test_a_hub_that_is_not_there_is_unavailable() -> None:
    settings = read_service_settings(ENVIRON)
    hub = HubApi("http://127.0.0.1:1/hub/api", settings.api_token)

    (answer,) = ask(hub, "token")

    assert (answer.code, json.loads(answer.body)["error"]) == (503, "hub_unavailable")


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", "Basic YTpi", "token hub-token", "Bearer " + "x" * 2000, "Bearer h\u00fcb"],
    ids=["none", "no token", "blank", "Basic", "other scheme", "long", "no ASCII"],
)
def test_what_is_no_bearer_token_is_not_asked_about(header: str) -> None:
    hub = Hub(is_down=True)

    (answer,) = ask(hub, "token", headers={"Authorization": header} if header else {})

    assert (answer.code, json.loads(answer.body)["error"]) == (401, "invalid_token")
    assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("body", [b"[]", b"no JSON", b'"text"', b"[" * 50_000], ids=["list", "none", "text", "deep"])
def test_a_body_that_is_no_object_is_refused(body: bytes) -> None:
    (answer,) = ask(Hub(state_of(300)), "token", body=body)

    assert (answer.code, json.loads(answer.body)["error"]) == (400, "invalid_request")


def test_who_asks_too_often_is_told_when_to_come_back() -> None:
    answers = ask(Hub(state_of(300)), *["token"] * (BURST_CALLS + 1))

    codes = [answer.code for answer in answers]
    assert codes[: BURST_CALLS - 1] == [200] * (BURST_CALLS - 1)
    assert codes[-1] == 429
    assert (json.loads(answers[-1].body)["error"], answers[-1].headers["Retry-After"]) == ("slow_down", "1")


class ForgetfulHub(Hub):
    """Knows no token."""

    async def fetch_owner(self, _token: object) -> TokenOwner | None:
        return None


def test_a_flood_without_a_token_of_the_hub_is_turned_away_by_the_address_that_the_proxy_names() -> None:
    flood = {"Authorization": "Bearer nobody's", "X-Forwarded-For": "203.0.113.5, 192.0.2.9"}

    answers = ask(ForgetfulHub(), *["token"] * (BURST_UNKNOWN + 1), headers=flood)

    assert {answer.code for answer in answers[:BURST_UNKNOWN]} == {401}
    assert (answers[-1].code, json.loads(answers[-1].body)["error"]) == (429, "slow_down")
    assert answers[-1].headers["Retry-After"] == "1"


@pytest.mark.parametrize("path", ["redirect", "sign-ins"])
def test_without_an_application_or_a_public_address_there_is_no_redirect(path: str) -> None:
    method = "GET" if path == "redirect" else "POST"

    (answer,) = ask(Hub(), path, method=method)

    assert (answer.code, json.loads(answer.body)["error"]) == (409, "no_redirect")
    assert "device code" in json.loads(answer.body)["remedy"]


def test_health_needs_no_login() -> None:
    (answer,) = ask(Hub(is_down=True), "health", method="GET", headers={})

    assert (answer.code, json.loads(answer.body)) == (200, {"status": "ok"})


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "token", 405), ("PUT", "token", 405), ("GET", "nothing", 404), ("GET", "../hub/api", 404)],
)
def test_other_addresses_and_methods_are_answered_in_the_same_form(method: str, path: str, status: int) -> None:
    (answer,) = ask(Hub(), path, method=method)

    assert (answer.code, json.loads(answer.body)["error"]) == (status, "invalid_request")
