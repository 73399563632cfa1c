"""A Hub's service and kernels are upgraded separately: each works with the previous version of the other.

`previous_version.json` holds the messages that kernel and service exchanged over HTTP before they were changed last
(commit c133a4fe), with the issuer, the ID token, and the name of the sign-in as placeholders.
"""

import asyncio
import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from tornado.httpclient import AsyncHTTPClient

from micromegas_jupyter import errors
from micromegas_jupyter.auth.flows.hub import HubRedirect, HubService, HubSignIn, find_hub
from micromegas_jupyter.core.http import HubHttp
from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.hub import kernel_handlers
from micromegas_jupyter.hub.__main__ import build_application
from micromegas_jupyter.hub.callers import refuse
from micromegas_jupyter.hub.settings import read_service_settings
from tests.fakes.clock import FakeClock
from tests.fakes.loopback_http import LoopbackHttp, Reply
from tests.fakes.mint import NOW
from tests.unit.hub.test_service import ENVIRON, Hub, serving, state_of

RECORDED = (Path(__file__).parent / "previous_version.json").read_text(encoding="utf-8")
CALLBACK = f"code=c0de&state={'S' * 43}"
NAME = "n" * 43
REDIRECT = {"MICROMEGAS_HUB_REDIRECT_CLIENT_ID": "notebooks", "MICROMEGAS_HUB_PUBLIC_URL": "https://hub.example.com/"}


def exchanges(issuer, token):
    return json.loads(RECORDED.replace("{issuer}", issuer).replace("{token}", token))


class Provider(LoopbackHttp):
    """A provider that serves its discovery document only."""

    def handle(self, seen):
        assert seen.path == "/.well-known/openid-configuration"
        addresses = {name: f"{self.base}/{name}" for name in ("jwks_uri", "token_endpoint")}
        return Reply(body={"issuer": self.base, "authorization_endpoint": f"{self.base}/authorize", **addresses})


class HubWithOneUser(Hub):
    async def fetch_owner(self, token):
        if token.reveal() != "hub-token-of-alice":
            raise refuse("invalid_token")
        return await super().fetch_owner(token)


class PreviousService(LoopbackHttp):
    """Returns the recorded responses in order, to the recorded requests only."""

    def __init__(self, recorded):
        super().__init__()
        self.recorded = iter(recorded)

    def handle(self, seen):
        expected = next(self.recorded)
        headers = {name: seen.headers.get(name.lower()) for name in expected["headers"]}
        assert (seen.method, seen.path, headers) == (expected["method"], expected["path"], expected["headers"])
        assert seen.body.decode() == expected["body"]
        if expected["answer"] is None:
            return Reply(status=expected["status"], text="")
        headers = {"Content-Type": expected["media_type"]}
        return Reply(status=expected["status"], body=expected["answer"], headers=headers)


@pytest.fixture(autouse=True)
def _short_poll(monkeypatch):
    monkeypatch.setattr(kernel_handlers, "POLL_SECONDS", 0.05)  # how long the service waits for the browser
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)


def test_a_service_answers_kernels_of_the_previous_version():
    """Every recorded request gets the recorded status and members; only the sentences may differ."""

    async def replay(issuer):
        hub = HubWithOneUser(state_of(300))
        settings = read_service_settings({**ENVIRON, **REDIRECT, "MICROMEGAS_HUB_ISSUER": issuer})
        service = replace(kernel_handlers.build_service(settings, clock=FakeClock(NOW)), hub=hub)
        http, name = AsyncHTTPClient(force_instance=True), ""
        async with serving(build_application(service)) as port:
            for sent in exchanges(issuer, hub.state["id_token"]):
                url = f"http://127.0.0.1:{port}{sent['path'].replace('{name}', name)}"
                hub.state = None if sent["error"] == "LoginRequired" else hub.state
                body = {"body": sent["body"]} if sent["method"] == "POST" else {}
                got = await http.fetch(url, method=sent["method"], headers=sent["headers"], raise_error=False, **body)
                answer = json.loads(got.body) if got.body else None
                name = answer["name"] if sent["status"] == 201 else name
                expected = json.loads(json.dumps(sent["answer"]).replace("{name}", name))
                if sent["error"]:
                    answer["message"] = expected["message"]
                assert (got.code, got.headers.get("Content-Type")) == (sent["status"], sent["media_type"])
                assert answer == expected or expected.items() <= answer.items()
                if sent["status"] == 204:
                    service.sign_ins.hand_over(service.sign_ins.by_name(name), Secret(CALLBACK))
        http.close()
        service.provider.close()

    with Provider() as provider:
        asyncio.run(replay(provider.base))


def test_a_kernel_understands_a_service_of_the_previous_version():
    """Every call sends what the previous kernel sent, and returns or raises the same."""
    issuer, token = "https://id.example.com", "t0ken"
    recorded = json.loads(json.dumps(exchanges(issuer, token)).replace("{name}", NAME))
    start_url = f"https://hub.example.com/services/micromegas/start/{NAME}"
    redirect_uri = "https://hub.example.com/services/micromegas/callback"
    results = iter(
        (
            ("t0ken", 300, issuer, "alice"),
            HubRedirect(redirect_uri=redirect_uri, issuer=issuer, client_id="notebooks"),
            HubSignIn(name=NAME, start_url=start_url, expires_in_seconds=600),
            None,
            {"code": ["c0de"], "state": ["S" * 43]},
        )
    )
    with PreviousService(recorded) as service:
        for sent in recorded:
            environ = {
                "KERNEL_MICROMEGAS_HUB": f"{service.base}/services/micromegas/",
                "JUPYTERHUB_API_TOKEN": sent["headers"]["Authorization"].removeprefix("Bearer "),
                "JUPYTERHUB_API_URL": "http://127.0.0.1:8081/hub/api",
            }
            kernel = HubService(find_hub(environ), http=HubHttp(timeout_seconds=30))
            arguments = {
                "begin": lambda sent=sent: [json.loads(sent["body"])["authorization_url"]],
                "callback": lambda: [NAME],
            }.get(sent["call"], list)()
            options = {"timeout_seconds": 30} if sent["call"] == "callback" else {}
            raised = getattr(errors, sent["error"]) if sent["error"] else None
            with pytest.raises(raised) if raised else nullcontext():
                found = getattr(kernel, sent["call"])(*arguments, **options)
                if sent["call"] == "token":
                    found = (found.text.reveal(), found.expires_in_seconds, found.issuer, found.user)
                elif sent["call"] == "callback" and found is not None:
                    found = parse_qs(found.reveal())
                assert found == next(results)
            kernel.close()

    assert next(results, "all") == "all"
