"""The examples of docs/clients.md run."""

import gc

import adbc_driver_flightsql.dbapi
import pytest
from adbc_driver_flightsql import DatabaseOptions, OAuthFlowType
from adbc_driver_manager import OperationalError, ProgrammingError

from micromegas_jupyter import connect
from micromegas_jupyter.auth import StaticTokenAuthProvider
from micromegas_jupyter.demo.provider import DemoProvider
from tests.integration.clients.guide_examples import EXAMPLES, OAUTH_EXAMPLES

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda block: block.place)
def test_an_example_runs(server, example):
    code = compile(example.text, example.place, "exec")
    token = server.tokens["reader"]

    with connect(server.uri, auth_provider=StaticTokenAuthProvider(token)) as client:
        exec(code, {"uri": server.uri, "url": server.url, "token": token, "client": client})
    gc.collect()  # what an example leaves open is told of now


def run_with_account(example, encrypted, provider):
    secret = provider.service_secret.reveal()
    own = {"token_uri": f"{provider.issuer}/token", "client_id": provider.service_client_id, "client_secret": secret}
    names = {"uri": encrypted.server.uri, "authority": encrypted.authority, **own}
    exec(compile(example.text, example.place, "exec"), names)
    return names


@pytest.mark.parametrize("example", OAUTH_EXAMPLES, ids=lambda block: block.place)
def test_adbc_signs_a_service_account_in(encrypted, example):
    assert run_with_account(example, encrypted, encrypted.provider)["name"] == encrypted.provider.service_client_id


def test_adbc_does_not_renew_its_token_and_tells_of_a_wrong_secret(encrypted):
    (example,) = OAUTH_EXAMPLES
    # Such a token counts as expired when it comes.
    with DemoProvider(token_lifetime_seconds=10) as short, pytest.raises(ProgrammingError, match="token expired"):
        run_with_account(example, encrypted, short)
    provider = encrypted.provider
    account = {
        DatabaseOptions.OAUTH_FLOW.value: OAuthFlowType.CLIENT_CREDENTIALS.value,
        DatabaseOptions.OAUTH_TOKEN_URI.value: f"{provider.issuer}/token",
        DatabaseOptions.OAUTH_CLIENT_ID.value: provider.service_client_id,
        DatabaseOptions.OAUTH_CLIENT_SECRET.value: "another",
    }
    with pytest.raises(OperationalError, match="invalid_client"):
        adbc_driver_flightsql.dbapi.connect(encrypted.server.uri, db_kwargs=account, autocommit=True)
