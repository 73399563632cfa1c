"""Tests of `access.building`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.access import Rejected, Unavailable
from micromegas_jupyter.access.config import ValidatorBuilder, split_denied
from micromegas_jupyter.config.access import (
    AccessSettings,
    ApiKeySetting,
    IssuerSetting,
    LegacyApiKeys,
    OidcServerSettings,
    RoleSetting,
)
from micromegas_jupyter.core.protocols import Secret, TableAccess
from micromegas_jupyter.errors import ConfigurationError
from tests.fakes.clock import FakeClock
from tests.fakes.mint import NOW, ec_key, mint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEY = "a-plain-text-key"
KEYS = (ApiKeySetting(name="report", key=Secret(KEY)),)
ISSUER = "https://id.example.com"


@pytest.fixture
def builder() -> Iterator[ValidatorBuilder]:
    builder = ValidatorBuilder(clock=FakeClock(NOW))
    yield builder
    builder.close()


def oidc(tmp_path: Path, *, issuer: str = ISSUER) -> OidcServerSettings:
    """Settings of an issuer whose keys lie in a file."""
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": [ec_key().jwk()]}))
    return OidcServerSettings(issuers=(IssuerSetting(issuer=issuer, audiences=("lake",), jwks_file=str(path)),))


def test_keys_and_tokens_are_accepted_side_by_side(builder: ValidatorBuilder, tmp_path: Path) -> None:
    validator = builder.build(AccessSettings(api_keys=KEYS, oidc=oidc(tmp_path)))

    assert validator.validate_token(KEY).subject == "report"
    assert validator.validate_token(mint(key=ec_key())).subject == "alice"


def test_without_anything_configured_nobody_is_accepted(builder: ValidatorBuilder) -> None:
    with pytest.raises(Rejected):
        builder.build(AccessSettings()).validate_token(KEY)


def test_what_becomes_of_plain_text_keys_follows_the_setting(builder: ValidatorBuilder) -> None:
    validator = builder.build(AccessSettings(api_keys=KEYS, legacy_api_keys=LegacyApiKeys.REFUSE))

    with pytest.raises(Rejected) as caught:
        validator.validate_token(KEY)
    assert caught.value.reason == "legacy_api_key_refused"


def test_roles_count_for_keys_and_for_tokens(builder: ValidatorBuilder, tmp_path: Path) -> None:
    settings = AccessSettings(
        api_keys=KEYS, oidc=oidc(tmp_path), roles={"all": RoleSetting(tables={"logs": None})}, default_roles=("all",)
    )
    validator = builder.build(settings)

    for credential in (KEY, mint(key=ec_key())):
        assert validator.validate_token(credential).table_access == TableAccess(filters={"logs": ()})


def test_administrators_count_for_tokens(builder: ValidatorBuilder, tmp_path: Path) -> None:
    validator = builder.build(AccessSettings(oidc=oidc(tmp_path), admins=("alice",)))

    assert validator.validate_token(mint(key=ec_key())).is_admin


@pytest.mark.parametrize("entry", ["api_key|report", f"{ISSUER}|alice"])
def test_who_is_denied_is_refused_and_nobody_else(builder: ValidatorBuilder, tmp_path: Path, entry: str) -> None:
    credentials = {"api_key|report": KEY, f"{ISSUER}|alice": mint(key=ec_key())}
    validator = builder.build(AccessSettings(api_keys=KEYS, oidc=oidc(tmp_path), denied=(entry,)))

    with pytest.raises(Rejected) as caught:
        validator.validate_token(credentials.pop(entry))
    assert caught.value.reason == "denied"
    assert validator.validate_token(credentials.popitem()[1]) is not None


def test_settings_that_contradict_each_other_are_refused(builder: ValidatorBuilder) -> None:
    with pytest.raises(ConfigurationError):
        builder.build(AccessSettings(api_keys=KEYS * 2))


def test_a_wrong_administrator_is_refused_by_the_place_where_it_stands(
    builder: ValidatorBuilder, tmp_path: Path
) -> None:
    settings = AccessSettings(oidc=oidc(tmp_path), admins=("https://other.example|x",), admins_place="FILE.admins")

    with pytest.raises(ConfigurationError) as caught:
        builder.build(settings)
    assert caught.value.key == "FILE.admins"


def test_a_successor_uses_the_keys_that_were_fetched_before(builder: ValidatorBuilder, tmp_path: Path) -> None:
    settings = AccessSettings(oidc=oidc(tmp_path))
    builder.build(settings).validate_token(mint(key=ec_key()))
    builder.forget_all_but(settings)
    (tmp_path / "jwks.json").unlink()

    assert builder.build(settings).validate_token(mint(key=ec_key())).subject == "alice"


def test_keys_of_an_issuer_that_is_no_longer_accepted_are_forgotten(builder: ValidatorBuilder, tmp_path: Path) -> None:
    settings = AccessSettings(oidc=oidc(tmp_path))
    builder.build(settings).validate_token(mint(key=ec_key()))
    builder.forget_all_but(AccessSettings())
    (tmp_path / "jwks.json").unlink()

    with pytest.raises(Unavailable):
        builder.build(settings).validate_token(mint(key=ec_key()))


def test_fetches_of_accepted_issuers_are_reported_before_there_are_any(
    builder: ValidatorBuilder, tmp_path: Path
) -> None:
    builder.forget_all_but(AccessSettings(oidc=oidc(tmp_path)))

    name = "micromegas_access_key_fetches_total"
    assert builder.metrics.registry.get_sample_value(name, {"issuer": ISSUER, "outcome": "failed"}) == 0


def test_a_denied_entry_belongs_to_the_longest_issuer_that_fits_and_may_hold_bars() -> None:
    issuers = [IssuerSetting(issuer=name) for name in ("https://a.example", "https://a.example|b")]
    entries = ("https://a.example|auth0|1", "https://a.example|b|2", "api_key|x|y", "https://other.example|z")

    assert split_denied(entries, issuers=issuers) == {
        ("https://a.example", "auth0|1"),
        ("https://a.example|b", "2"),
        ("api_key", "x|y"),
    }
