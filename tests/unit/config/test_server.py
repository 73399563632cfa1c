"""Tests of `config.access`."""

from micromegas_jupyter.config.access import AccessSettings, LegacyApiKeys, OidcServerSettings, RateLimits


def test_without_roles_every_caller_may_read_every_table():
    assert AccessSettings().roles is None


def test_plain_keys_are_accepted_with_a_warning_unless_something_else_is_said():
    assert AccessSettings().legacy_api_keys is LegacyApiKeys.WARN


def test_callers_are_limited_unless_something_else_is_said():
    assert AccessSettings().rate_limits == RateLimits(calls_per_second=2000.0, burst_calls=10_000)


def test_a_key_set_is_used_longer_than_it_counts_as_fresh():
    settings = OidcServerSettings(issuers=())

    assert settings.jwks_refresh_interval_seconds < settings.jwks_stale_limit_seconds
