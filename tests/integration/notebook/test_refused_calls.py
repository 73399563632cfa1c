"""Calls that a real server does not answer with rows for want of a sign-in, in cells of a real kernel."""

from __future__ import annotations

import json
import re

import pytest

from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.demo.stack import DemoStack
from tests.fakes.scripted_provider import ScriptedProvider
from tests.integration.notebook.interrupting import LOAD
from tests.integration.notebook.kernels import REPOSITORY, attended_kernel

pytestmark = pytest.mark.integration

BEARER_TOKEN = re.compile(r"eyJ[A-Za-z0-9_-]{10,}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("config")


@pytest.fixture(scope="module")
def stack(folder):
    with DemoStack(spare_executors=1) as running:
        provider = ScriptedProvider(clock=SYSTEM_CLOCK)
        provider.issuer = running.provider.issuer
        tokens = {"other": provider.mint_id_token(aud="other-app")}
        profiles = {
            "person": {
                "uri": running.server.uri,
                "issuers": [{"issuer": running.provider.issuer}],
                "client_id": running.provider.client_id,
            }
        }
        for name, token in tokens.items():
            (folder / name).write_text(token)
            (folder / name).chmod(0o600)
            profiles[name] = {"uri": running.server.uri, "api_key_file": str(folder / name)}
        (folder / "config.json").write_text(json.dumps({"profiles": profiles, "default_profile": "person"}))
        (folder / "config.json").chmod(0o600)
        yield running


@pytest.fixture(scope="module")
def kernel(stack, folder):
    with attended_kernel({"MICROMEGAS_CONFIG_DIR": str(folder), "HOME": str(folder)}) as running:
        assert running.run(LOAD).reply["status"] == "ok"
        yield running


def lines(kernel, stack, source):
    """Run a cell that fails and return what is shown, with the stack's addresses by name and no query's id."""
    cell = kernel.run(source)
    (error,) = cell.of("error")
    everything = str([message["content"] for message in cell.messages])
    assert not BEARER_TOKEN.search(everything)
    assert not re.search(r"Traceback|site-packages|\.py\b", everything)
    assert str(REPOSITORY) not in everything
    server, provider = stack.server.uri.removeprefix("grpc://"), stack.provider.issuer.removeprefix("http://")
    text = "\n".join(error["traceback"]).replace(server, "SERVER").replace(provider, "PROVIDER")
    return re.sub(r"query [0-9a-f]{8}", "query ID", text).split("\n")


def test_nobody_is_signed_in(kernel, stack):
    found = lines(kernel, stack, "%sql SELECT 1")

    assert found == [
        (
            "✗ Not signed in at PROVIDER (for SERVER). Run %micromegas_login --profile person, or set "
            "MICROMEGAS_OIDC_CLIENT_SECRET for a service account. · AUTH001"
        )
    ]


def test_a_token_for_another_audience_is_explained_from_the_token(kernel, stack):
    found = lines(kernel, stack, "%sql --profile other SELECT 1")

    assert found == [
        (
            '✗ The server does not accept this credential. The token is for audience "other-app", from '
            "http://PROVIDER. If the server expects another audience, request a token with --audience NAME; its "
            "administrator knows the name. Else sign in again."
        ),
        "  query ID · AUTH010 · docs/errors.md#auth010",
    ]
