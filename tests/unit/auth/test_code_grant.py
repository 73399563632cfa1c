from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest

from micromegas_jupyter.auth.flows.base import CodeGrant
from micromegas_jupyter.auth.provider_connection import ProviderConnection
from micromegas_jupyter.core.protocols import Secret
from micromegas_jupyter.core.system import SYSTEM_RANDOMNESS
from micromegas_jupyter.errors import LoginFailed, ProviderMisbehaved
from micromegas_jupyter.oidc.authorization import build_authorization_request
from tests.fakes.scripted_provider import DirectCalls, ScriptedProvider, Seen

if TYPE_CHECKING:
    from tests.fakes.clock import FakeClock


@pytest.fixture
def grant(idp: ScriptedProvider, calls: DirectCalls, clock: FakeClock) -> CodeGrant:
    connection = ProviderConnection(idp.issuer, "notebook", None, http=calls, clock=clock)
    metadata = connection.metadata()
    request = build_authorization_request(
        metadata,
        client_id="notebook",
        redirect_uri="http://127.0.0.1:48080/callback",
        scope="openid",
        randomness=SYSTEM_RANDOMNESS,
    )
    return CodeGrant(request=request, metadata=metadata, connection=connection)


def answer_to(grant: CodeGrant, idp: ScriptedProvider) -> str:
    asked = dict(parse_qsl(urlsplit(grant.request.url).query))
    seen = Seen(method="GET", path="/authorize", query=asked, form={}, headers={})
    return urlsplit(idp.handle(seen).headers["Location"]).query


def test_an_answer_leads_to_tokens(grant: CodeGrant, idp: ScriptedProvider) -> None:
    query = answer_to(grant, idp)

    tokens = grant.redeem(grant.code_in(query))

    assert grant.is_answered_by(query)
    assert tokens.id_token is not None


def test_a_code_is_worth_something_once(grant: CodeGrant, idp: ScriptedProvider) -> None:
    code = grant.code_in(answer_to(grant, idp))
    grant.redeem(code)

    with pytest.raises(LoginFailed):
        grant.redeem(code)


def test_an_answer_of_another_grant_is_not_its_own(grant: CodeGrant, idp: ScriptedProvider) -> None:
    query = urlencode({"code": "c", "state": "guess", "iss": idp.issuer})

    assert not grant.is_answered_by(query)
    with pytest.raises(ProviderMisbehaved):
        grant.code_in(query)


def test_nothing_secret_is_in_its_repr(grant: CodeGrant) -> None:
    secrets = [grant.request.state, grant.request.nonce, grant.request.code_verifier]

    assert all(isinstance(secret, Secret) for secret in secrets)
    assert not [secret for secret in secrets if secret.reveal() in repr(grant)]
