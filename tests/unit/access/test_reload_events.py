"""Tests of `access.reload_events`; when what is told is tested with `reloading`."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import pytest

from micromegas_jupyter.access.config import count_settings, record_problem, warn_of_idle_names
from micromegas_jupyter.config.access import AccessSettings, ApiKeySetting, IssuerSetting, OidcServerSettings
from micromegas_jupyter.errors import ConfigurationError

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def test_only_keys_that_let_somebody_in_are_counted():
    keys = (
        ApiKeySetting(name="a", sha256=b"a" * 32),
        ApiKeySetting(name="b", sha256=b"b" * 32, expires_at=NOON),
        ApiKeySetting(name="c", sha256=b"c" * 32, revoked_at=NOON),
    )
    issuers = tuple(IssuerSetting(issuer=name, admin_groups=("x", "y")) for name in ("first", "second"))

    counts = count_settings(AccessSettings(api_keys=keys, oidc=OidcServerSettings(issuers=issuers)), now=NOON)

    assert counts == {"issuers": 2, "api_keys": 1, "denied": 0, "roles": 0, "admins": 0, "admin_groups": 4}


def test_names_that_are_denied_and_not_there_do_not_flood_the_log(caplog):
    warn_of_idle_names(AccessSettings(denied=tuple(f"api_key|{number}" for number in range(300))))

    assert len(caplog.records) == 100


@pytest.mark.parametrize(
    ("error", "is_part", "beginning"),
    [
        (ConfigurationError("Wrong.", key="x", remedy="Mend it."), False, "A new version"),
        (ConfigurationError("Wrong.", key="x", remedy="Mend it."), True, "A part of a new version"),
        (RuntimeError("secret"), False, "A new version"),
    ],
)
def test_a_problem_comes_with_its_remedy_and_no_foreign_text(caplog, error, is_part, beginning):
    with caplog.at_level(logging.ERROR, "micromegas_jupyter.access"):
        record_problem(error, is_part=is_part, issuers=1)

    (event,) = [vars(record) for record in caplog.records]
    assert event["message"].startswith(beginning)
    assert (event["kind"], event["issuers"]) == (type(error).__name__, 1)
    tried = "It is read again by itself when it has changed; nothing has to be restarted."
    assert event["remedy"] == (f"Mend it. {tried}" if isinstance(error, ConfigurationError) else None)
    assert "secret" not in str(event)


def test_nobody_is_told_to_start_a_server_again_that_goes_on(caplog):
    with caplog.at_level(logging.ERROR):
        record_problem(ConfigurationError("Wrong.", key="x"), is_part=False)

    (record,) = caplog.records
    assert "start again" not in record.remedy
    assert record.remedy.startswith("Correct what it says. It is read again by itself")


@pytest.mark.parametrize(
    ("oidc", "count"), [(None, 1), (OidcServerSettings(issuers=(IssuerSetting(issuer="https://id.example"),)), 0)]
)
def test_administrators_that_nobody_can_sign_in_as_are_told_of(caplog, oidc, count):
    warn_of_idle_names(AccessSettings(admins=("api_key|ops",), oidc=oidc))

    told = [record for record in caplog.records if "API keys administer nothing" in record.message]
    assert [record.setting for record in told] == ["MICROMEGAS_ADMINS"] * count
