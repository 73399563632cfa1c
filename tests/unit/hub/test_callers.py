from __future__ import annotations

import pytest

from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.hub.hub_api import SERVICE_SCOPES, TokenOwner, check_caller, check_service_rights
from micromegas_jupyter.hub.refusals import Refused


def owner(*scopes: str, kind: str = "user", name: str = "alice") -> TokenOwner:
    return TokenOwner(kind=kind, name=name, scopes=frozenset(scopes))


@pytest.mark.parametrize(
    "scope",
    ["access:servers!server=alice/", "access:servers!server=alice/lab", "access:servers!user=alice", "access:servers"],
)
def test_a_token_that_may_use_a_server_of_the_person_gets_that_persons_tokens(scope: str) -> None:
    assert check_caller(owner("users:activity!user=alice", scope)) == "alice"


@pytest.mark.parametrize(
    "scopes",
    [
        (),
        ("read:users:name!user=alice",),
        ("access:services!service=other",),
        # What the shared server of somebody else is given when alice looks at it.
        ("access:servers!server=bob/", "read:users:name!user=alice"),
        ("access:servers!user=bob",),
        ("access:servers!server=alice2/",),
    ],
)
def test_a_token_that_was_given_to_another_program_gets_nothing(scopes: tuple[str, ...]) -> None:
    with pytest.raises(Refused) as caught:
        check_caller(owner(*scopes))

    assert (caught.value.status, caught.value.error) == (403, "not_their_server")


@pytest.mark.parametrize(
    "scope", ["admin:auth_state!user=alice", "admin:auth_state", "admin:users", "admin:users!user=a"]
)
def test_a_token_that_can_read_refresh_tokens_gets_nothing_and_is_told_why(scope: str) -> None:
    with pytest.raises(Refused, match="read refresh tokens") as caught:
        check_caller(owner("access:servers!server=alice/", scope))

    assert caught.value.error == "dangerous_role"
    assert scope in caught.value.message


def test_a_service_gets_nothing() -> None:
    with pytest.raises(Refused) as caught:
        check_caller(owner("access:servers", kind="service", name="culler"))

    assert caught.value.error == "not_a_user"


def test_the_service_is_content_with_exactly_its_own_rights() -> None:
    check_service_rights(owner(*SERVICE_SCOPES, kind="service", name="micromegas"))


@pytest.mark.parametrize("lacking", SERVICE_SCOPES)
def test_the_service_does_not_start_with_too_few_rights(lacking: str) -> None:
    with pytest.raises(ConfigurationError, match=f"lacks {lacking}"):
        check_service_rights(owner(*(set(SERVICE_SCOPES) - {lacking}), kind="service"))


@pytest.mark.parametrize("more", ["admin:users", "tokens", "servers", "read:users:activity", "access:servers"])
def test_the_service_does_not_start_with_more_rights_than_it_needs(more: str) -> None:
    with pytest.raises(ConfigurationError, match=f"more rights at the Hub than it needs: {more}"):
        check_service_rights(owner(*SERVICE_SCOPES, more, kind="service"))


@pytest.mark.parametrize("found", [None, owner(*SERVICE_SCOPES)])
def test_the_service_does_not_start_as_anything_else(found: TokenOwner | None) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_service_rights(found)

    assert caught.value.key == "JUPYTERHUB_API_TOKEN"
