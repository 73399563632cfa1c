from __future__ import annotations

from datetime import timedelta

import pytest

from micromegas_jupyter.core.secrets import Secret
from micromegas_jupyter.errors import ProviderMisbehaved, UsageError
from micromegas_jupyter.oidc.tokens import build_token_exchange_request, parse_token_exchange_answer
from tests.fakes.mint import NOW
from tests.fakes.tracebacks import traceback_with_variables

TYPE = "urn:ietf:params:oauth:token-type:"
ANSWER = {
    "access_token": "issued",
    "issued_token_type": f"{TYPE}access_token",
    "token_type": "Bearer",
    "expires_in": 60,
}


def test_a_request_has_the_fields_of_rfc_8693() -> None:
    fields = build_token_exchange_request(
        Secret("a.b.c"), audience="lake", resource="https://lake.example.com", scope="read"
    )

    assert fields == {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token": Secret("a.b.c"),
        "subject_token_type": f"{TYPE}jwt",
        "audience": "lake",
        "resource": "https://lake.example.com",
        "scope": "read",
    }


def test_what_is_not_wanted_is_not_asked_for() -> None:
    fields = build_token_exchange_request(Secret("a.b.c"), audience=None, resource="", scope=None)

    assert fields.keys() == {"grant_type", "subject_token", "subject_token_type"}


def test_a_resource_that_is_no_uri_is_refused() -> None:
    with pytest.raises(UsageError):
        build_token_exchange_request(Secret("a.b.c"), audience=None, resource="lake", scope=None)


def test_the_issued_token_is_read_with_its_life() -> None:
    tokens = parse_token_exchange_answer(ANSWER, now=NOW, asked_scope="read")

    assert tokens.access_token == Secret("issued")
    assert tokens.expires_at == NOW + timedelta(seconds=60)
    assert tokens.scope == "read"


@pytest.mark.parametrize("kind", ["access_token", "jwt", "id_token"])
@pytest.mark.parametrize("token_type", ["N_A", "n_a", "Bearer"])
def test_a_token_that_can_be_sent_is_accepted_whatever_its_kind(kind: str, token_type: str) -> None:
    answer = {**ANSWER, "issued_token_type": f"{TYPE}{kind}", "token_type": token_type}

    assert parse_token_exchange_answer(answer, now=NOW, asked_scope=None).access_token == Secret("issued")


def test_a_bearer_token_needs_no_stated_kind() -> None:
    answer = {name: value for name, value in ANSWER.items() if name != "issued_token_type"}

    assert parse_token_exchange_answer(answer, now=NOW, asked_scope=None).access_token == Secret("issued")


@pytest.mark.parametrize(
    "answer",
    [
        {**ANSWER, "issued_token_type": f"{TYPE}refresh_token"},
        {**ANSWER, "issued_token_type": f"{TYPE}saml2"},
        {**ANSWER, "issued_token_type": ["x"]},
        {**ANSWER, "token_type": "N_A", "issued_token_type": None},
        {**ANSWER, "token_type": "DPoP"},
        {**ANSWER, "access_token": ""},
        {**ANSWER, "expires_in": -1},
        {},
        [],
        None,
        "text",
    ],
)
def test_an_answer_that_cannot_be_used_is_refused(answer: object) -> None:
    with pytest.raises(ProviderMisbehaved) as caught:
        parse_token_exchange_answer(answer, now=NOW, asked_scope=None)

    assert caught.value.remedy
    assert "issued" not in caught.value.what


UNUSABLE_ANSWERS: dict[str, object] = {
    "another kind": {**ANSWER, "access_token": "s3same", "issued_token_type": f"{TYPE}saml2"},
    "another type": {**ANSWER, "access_token": "s3same", "token_type": "DPoP"},
    "no life": {**ANSWER, "access_token": "s3same", "token_type": "N_A", "expires_in": -1},
    "no object": ["s3same"],
}


@pytest.mark.parametrize("name", UNUSABLE_ANSWERS)
def test_a_refusal_shows_nothing_of_the_answer_not_even_with_all_variables(name: str) -> None:
    with pytest.raises(ProviderMisbehaved) as caught:
        parse_token_exchange_answer(UNUSABLE_ANSWERS[name], now=NOW, asked_scope=None)

    shown = traceback_with_variables(caught.value)
    assert "asked_scope = None" in shown
    assert "s3same" not in shown
