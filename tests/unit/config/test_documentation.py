"""The pages of the settings list what is read, and their examples are ones that work."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from micromegas_jupyter.config.access import CONFIG_MEMBERS, RATE_LIMIT_MEMBERS, ApiKeySetting, parse_access_settings
from micromegas_jupyter.config.client import CLIENT_PRESETS, Bearer, parse_client_settings
from micromegas_jupyter.config.issuers import ISSUER_MEMBERS, OIDC_MEMBERS, PRESETS
from micromegas_jupyter.config.server import parse_server_settings

DOCS = Path(__file__).parents[3] / "docs"
PAGES = ("client-settings.md", "server-settings.md")
TEXT = "".join((DOCS / page).read_text(encoding="utf-8") for page in PAGES)


def section(title):
    found = re.search(rf"^##+ {title}\n(.*?)(?=^##|\Z)", TEXT, flags=re.MULTILINE | re.DOTALL)
    return found[1]


@pytest.mark.parametrize(
    ("title", "names"),
    [
        ("Access configuration", CONFIG_MEMBERS), ("Issuers", OIDC_MEMBERS | ISSUER_MEMBERS),
        ("Presets", frozenset(PRESETS)), ("Provider presets", frozenset({*CLIENT_PRESETS, "none"})),
        ("API keys", frozenset(field.name for field in fields(ApiKeySetting))),
        ("Rate limits", RATE_LIMIT_MEMBERS),
    ],
)  # fmt: skip
def test_each_table_has_exactly_the_names_that_are_read(title, names):
    documented = set(re.findall(r"^\| `(\w+)` \|", section(title), flags=re.MULTILINE))

    assert documented == names


def test_the_example_of_a_configuration_file_can_be_used():
    example = re.search(r"```json\n(.*?)```", section("Access configuration"), flags=re.DOTALL)

    settings = parse_access_settings({}, config_text=example[1])

    assert settings.oidc.issuers[0].audiences == ("lake", "lake-notebooks")
    assert set(settings.roles or ()) == {"viewer", "operator"}


def test_the_example_of_a_file_for_serve_can_be_used():
    example = re.search(r"```toml\n(.*?)```", TEXT, flags=re.DOTALL)

    settings = parse_server_settings({}, config_text=example[1])

    assert (settings.lake, settings.query_timeout_seconds) == ("/srv/lake", 600)


@pytest.mark.parametrize(
    ("profile", "field"),
    [("production", "issuer"), ("nightly", "private_key"), ("ci", "workload"), ("robot", "api_key_file")],
)
def test_the_example_of_a_profile_file_can_be_used(profile, field):
    example = re.search(r"```json\n(.*?)```", section("`config.json`"), flags=re.DOTALL)

    settings = parse_client_settings({}, config_text=example[1], profile=profile)

    assert getattr(settings, field) is not None
    assert settings.bearer is (Bearer.ACCESS_TOKEN if profile == "production" else Bearer.ID_TOKEN)
