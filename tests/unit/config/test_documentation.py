"""`docs/settings.md` says what the settings are, and its examples are ones that work."""

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest

from micromegas_jupyter.config.access import CONFIG_MEMBERS, RATE_LIMIT_MEMBERS, ApiKeySetting, parse_access_settings
from micromegas_jupyter.config.client import CLIENT_PRESETS, Bearer, parse_client_settings
from micromegas_jupyter.config.issuers import ISSUER_MEMBERS, OIDC_MEMBERS, PRESETS
from micromegas_jupyter.errors import ConfigurationError

TEXT = (Path(__file__).parents[3] / "docs" / "settings.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    found = re.search(rf"^### {title}\n(.*?)(?=^##|\Z)", TEXT, flags=re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


@pytest.mark.parametrize(
    ("title", "names"),
    [
        ("Configuration file", CONFIG_MEMBERS), ("Issuers", OIDC_MEMBERS | ISSUER_MEMBERS),
        ("Presets", frozenset(PRESETS)), ("Provider presets", frozenset({*CLIENT_PRESETS, "none"})),
        ("API keys", frozenset(field.name for field in fields(ApiKeySetting))),
        ("Rate limits", RATE_LIMIT_MEMBERS),
    ],
)  # fmt: skip
def test_each_table_has_exactly_the_names_that_are_read(title, names):
    documented = set(re.findall(r"^\| `(\w+)` \|", section(title), flags=re.MULTILINE))

    assert documented == names


def test_the_example_of_a_configuration_file_can_be_used():
    example = re.search(r"```json\n(.*?)```", section("Configuration file"), flags=re.DOTALL)
    assert example is not None

    settings = parse_access_settings({}, config_text=example[1])

    assert settings.oidc is not None
    assert settings.oidc.issuers[0].audiences == ("lake", "lake-notebooks")
    assert set(settings.roles or ()) == {"viewer", "operator"}


CLIENT_TEXT = TEXT.partition("\n## Client\n")[2].partition("\n## The JupyterHub service\n")[0]
# Variables with the members of `config.json` that stand for the same, None where there is none.
CLIENT_ROWS = {
    variable: member or None
    for variable, member in re.findall(r"^\| `(MICROMEGAS_\w+)` \| (?:`([^`]+)`)? ?\|", CLIENT_TEXT, flags=re.MULTILINE)
}
# Read by others than the parser of settings.
READ_ELSEWHERE = {
    "MICROMEGAS_CONFIG_DIR",
    "MICROMEGAS_CLIENT_AGENT",
    "MICROMEGAS_CLIENT_ENTRYPOINT",
    "MICROMEGAS_PYTHON_MODULE_WRAPPER",
    "MICROMEGAS_RESULT_ROWS",
}
MEMBERS_WITHOUT_A_VARIABLE = ("api_key_file", "issuers", "issuers[0].authorize_params", "workload")


class RecordingEnvironment(dict[str, str]):
    """An environment that remembers what was looked for."""

    def __init__(self) -> None:
        super().__init__()
        self.wanted: set[str] = set()

    def get(self, name: str, default: object = None) -> None:  # type: ignore[override]
        self.wanted.add(name)


def config_with(member: str, *, value: object) -> str:
    for prefix, wrap in (
        ("issuers[0].", lambda inner: {"issuers": [inner]}),
        ("workload.", lambda inner: {"workload": inner}),
    ):
        if member.startswith(prefix):
            return json.dumps(wrap({member.removeprefix(prefix): value}))
    return json.dumps({member: value})


def test_every_variable_of_the_client_is_documented_and_no_other():
    environ = RecordingEnvironment()

    parse_client_settings(environ)

    assert CLIENT_ROWS.keys() == environ.wanted | READ_ELSEWHERE


@pytest.mark.parametrize("member", [*filter(None, CLIENT_ROWS.values()), *MEMBERS_WITHOUT_A_VARIABLE])
def test_every_documented_member_of_the_profile_file_is_read(member):
    with pytest.raises(ConfigurationError) as caught:
        parse_client_settings({}, config_text=config_with(member, value=True))

    assert caught.value.key == f"config.json: {member}"


@pytest.mark.parametrize(
    ("profile", "field"),
    [("production", "issuer"), ("nightly", "private_key"), ("ci", "workload"), ("robot", "api_key_file")],
)
def test_the_example_of_a_profile_file_can_be_used(profile, field):
    example = re.search(r"```json\n(.*?)```", section("`config.json`"), flags=re.DOTALL)
    assert example is not None

    settings = parse_client_settings({}, config_text=example[1], profile=profile)

    assert getattr(settings, field) is not None
    assert settings.bearer is (Bearer.ACCESS_TOKEN if profile == "production" else Bearer.ID_TOKEN)
