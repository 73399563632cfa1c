"""Only a delegating API key may speak for others; everybody else is who they are."""

import pytest

from micromegas_jupyter.contracts import AuthContext, AuthType
from micromegas_jupyter.errors import PermissionDenied
from micromegas_jupyter.server.attribution import Attribution, resolve_attribution
from tests.fakes.validator import ALICE, BOB, SERVICE

ANYONE = AuthContext(subject="anonymous", issuer="none", auth_type=AuthType.NONE)
PLAIN_KEY = AuthContext(subject="cron", issuer="api_key", auth_type=AuthType.API_KEY)
CLAIM = {"x-user-id": ("carol",), "x-user-email": ("carol%40example.com",), "x-user-name": ("Zo%C3%AB",)}


def test_without_authentication_the_claim_is_taken() -> None:
    assert resolve_attribution(ANYONE, CLAIM) == Attribution(user="carol", email="carol@example.com", name="Zoë")
    assert resolve_attribution(ANYONE, {}) == Attribution(user="unknown", email="unknown")


def test_a_delegating_key_speaks_for_somebody() -> None:
    assert resolve_attribution(SERVICE, CLAIM) == Attribution(
        user="carol", email="carol@example.com", name="Zoë", service_account_name="grafana"
    )


def test_a_delegating_key_without_a_claim_speaks_for_itself() -> None:
    assert resolve_attribution(SERVICE, {}) == Attribution(user="grafana", email="service-account")


@pytest.mark.parametrize("caller", [ALICE, BOB, PLAIN_KEY])
def test_nobody_else_may_name_another_user(caller: AuthContext) -> None:
    with pytest.raises(PermissionDenied):
        resolve_attribution(caller, {"x-user-id": ("carol",)})


def test_another_email_than_the_tokens_is_refused() -> None:
    with pytest.raises(PermissionDenied):
        resolve_attribution(ALICE, {"x-user-id": ("alice",), "x-user-email": ("root@example.com",)})


def test_naming_oneself_is_fine() -> None:
    headers = {"x-user-id": ("alice",), "x-user-email": ("alice%40example.com",)}

    assert resolve_attribution(ALICE, headers) == Attribution(user="alice", email="alice@example.com")
    assert resolve_attribution(BOB, {"x-user-email": ("bob@example.com",)}) == Attribution(user="bob", email="unknown")
    assert resolve_attribution(PLAIN_KEY, {}) == Attribution(user="cron", email="service-account")


def test_text_that_does_not_decode_stays_as_it_was_sent() -> None:
    assert resolve_attribution(ANYONE, {"x-user-id": ("a%FFb",)}).user == "a%FFb"
