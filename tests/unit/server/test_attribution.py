"""Only a delegating API key may speak for others; everybody else is who they are."""

import pytest

from micromegas_jupyter.core.protocols import AuthContext, AuthType
from micromegas_jupyter.errors import PermissionDenied, UsageError
from micromegas_jupyter.server.authentication import Attribution, resolve_attribution
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
    with pytest.raises(PermissionDenied) as caught:
        resolve_attribution(caller, {"x-user-id": ("carol",)})

    assert caught.value.reason == "impersonation"


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
    with pytest.raises(UsageError):
        resolve_attribution(ANYONE, {"x-user-id": ("a%FFb\u00e9",)})


@pytest.mark.parametrize("caller", [ANYONE, SERVICE, ALICE])
@pytest.mark.parametrize("name", ["x-user-id", "x-user-email", "x-user-name"])
@pytest.mark.parametrize(
    "value",
    [
        "a%0Ab",
        "a%0D%0Ab",
        "%00",
        "%1B%5B31m",
        "%7F",
        "%C2%85",
        "%E2%80%A8",
        "%E2%80%AE",
        "%EF%BB%BFroot",
        "a\tb",
        "x" * 257,
        "%C3%A9" * 257,
        "%FF" + "x" * 254,
        "%FF%0A\n",
    ],
)
def test_a_value_that_cannot_be_shown_is_refused_by_its_header(caller: AuthContext, name: str, value: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve_attribution(caller, {name: (value,)})

    assert f"The header {name} " in caught.value.what
    assert value not in str(caught.value)


@pytest.mark.parametrize("name", ["x-user-id", "x-user-email", "x-user-name"])
def test_several_values_of_one_header_are_refused(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve_attribution(SERVICE, {name: ("carol", "carol")})

    assert caught.value.what == f"The header {name} was sent 2 times."


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("x" * 256, "x" * 256),
        ("%C3%A9" * 256, "é" * 256),
        ("%E6%97%A5%E6%9C%AC", "日本"),
        ("a%20b", "a b"),
        ("%FF%FE", "%FF%FE"),
        ("a+b", "a+b"),
    ],
)
def test_printable_text_of_every_script_is_taken(sent: str, shown: str) -> None:
    assert resolve_attribution(SERVICE, {"x-user-id": (sent,)}).user == shown


def test_an_empty_value_counts_as_not_sent() -> None:
    assert resolve_attribution(SERVICE, {"x-user-id": ("",)}).user == "grafana"


@pytest.mark.parametrize("subject", ["zo\u00eb", "\u65e5\u672c", "\U0001f600"])
def test_s12_a_subject_beyond_ascii_does_not_make_a_claimed_user_believed(subject: str) -> None:
    caller = AuthContext(subject=subject, issuer="https://id.example", auth_type=AuthType.OIDC)

    assert resolve_attribution(caller, {}).user == subject
    with pytest.raises(PermissionDenied):
        resolve_attribution(caller, {"x-user-id": ("root",)})


@pytest.mark.parametrize("subject", ["a\nb", "a\x00b", "\x1b[31m", "\x7f"])
def test_s13_a_control_character_in_the_subject_neither_fails_nor_makes_a_claimed_user_believed(subject: str) -> None:
    caller = AuthContext(
        subject=subject, issuer="https://id.example", auth_type=AuthType.OIDC, email="a\nb@example.com"
    )

    assert resolve_attribution(caller, {}).user == subject
    with pytest.raises(PermissionDenied):
        resolve_attribution(caller, {"x-user-id": ("root",)})
    with pytest.raises(PermissionDenied):
        resolve_attribution(caller, {"x-user-email": ("root@example.com",)})
