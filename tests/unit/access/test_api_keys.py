"""Tests of `access.api_keys`."""

import logging

import pytest

from micromegas_jupyter.access import ApiKeyValidator, AuthContext, AuthType, Rejected, TokenValidator
from micromegas_jupyter.contracts import Secret
from micromegas_jupyter.settings import ApiKeySetting

KEY = "mmk_8c1f0a6de2b94b7f"


def validator_of(**keys: str) -> ApiKeyValidator:
    return ApiKeyValidator([ApiKeySetting(name=name, key=Secret(key)) for name, key in keys.items()])


def test_a_key_gives_its_name_may_delegate_and_never_administers():
    assert validator_of(grafana=KEY).validate_token(KEY) == AuthContext(
        subject="grafana", issuer="api_key", auth_type=AuthType.API_KEY, may_delegate=True
    )


def test_a_key_is_known_without_io():
    validator = validator_of(grafana=KEY)

    context = validator.cached_context(KEY)

    assert context is not None
    assert context.subject == "grafana"
    assert isinstance(validator, TokenValidator)


def test_each_key_has_its_own_name():
    validator = validator_of(first=KEY, second=KEY + "2")

    assert validator.validate_token(KEY + "2").subject == "second"


def test_a_key_beyond_ascii_is_a_key():
    assert validator_of(zoe="clé-très-secrète-1234").validate_token("clé-très-secrète-1234").subject == "zoe"


@pytest.mark.parametrize(
    "token",
    ["", KEY[:-1], KEY + "x", KEY.upper(), f" {KEY}", f"{KEY}\0", "grafana", "\ud800"],
    ids=["empty", "shorter", "longer", "capitals", "space", "null", "its name", "half a pair"],
)
def test_anything_else_is_rejected(token):
    with pytest.raises(Rejected) as caught:
        validator_of(grafana=KEY).validate_token(token)

    assert type(caught.value) is Rejected
    assert caught.value.reason == "unknown_api_key"


@pytest.mark.parametrize("token", ["x" * 16385, None, 5, b"key"], ids=["huge", "None", "5", "bytes"])
def test_what_cannot_be_a_key_is_rejected_unread(token):
    validator = validator_of(grafana=KEY)

    with pytest.raises(Rejected) as caught:
        validator.validate_token(token)
    assert caught.value.reason == "token_implausible"
    assert validator.cached_context(token) is None


def test_without_keys_nothing_is_accepted():
    with pytest.raises(Rejected):
        validator_of().validate_token("")


def test_the_keys_themselves_are_not_kept():
    validator = validator_of(grafana=KEY)

    assert KEY not in str(vars(validator))


def test_a_key_that_can_be_guessed_leaves_a_warning_without_it(caplog):
    with caplog.at_level(logging.WARNING, "micromegas_jupyter.access"):
        validator_of(short="hunter2", long=KEY)

    assert [vars(record)["subject"] for record in caplog.records] == ["short"]
    assert "hunter2" not in str([vars(record) for record in caplog.records])
