"""`docs/settings.md` says what the settings are, and its examples are ones that work."""

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest

from micromegas_jupyter.auth import workloads
from micromegas_jupyter.config.access import RATE_LIMIT_MEMBERS, ApiKeySetting
from micromegas_jupyter.config.access_config import CONFIG_MEMBERS, parse_access_settings
from micromegas_jupyter.config.client import Bearer
from micromegas_jupyter.config.client_config import CLIENT_PRESETS, parse_client_settings
from micromegas_jupyter.config.decoding import SIGNATURE_ALGORITHMS
from micromegas_jupyter.config.issuer_config import ISSUER_MEMBERS, OIDC_MEMBERS
from micromegas_jupyter.config.presets import PRESETS
from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.wiring import credentials

TEXT = (Path(__file__).parents[3] / "docs" / "settings.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    found = re.search(rf"^### {title}\n(.*?)(?=^##|\Z)", TEXT, flags=re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


@pytest.mark.parametrize(
    ("title", "names"),
    [
        ("Configuration file", CONFIG_MEMBERS),
        ("Issuers", OIDC_MEMBERS | ISSUER_MEMBERS),
        ("Presets", frozenset(PRESETS)),
        ("API keys", frozenset(field.name for field in fields(ApiKeySetting))),
        ("Rate limits", RATE_LIMIT_MEMBERS),
    ],
)
def test_each_table_has_exactly_the_names_that_are_read(title, names):
    documented = set(re.findall(r"^\| `(\w+)` \|", section(title), flags=re.MULTILINE))

    assert documented == names


def test_every_signature_algorithm_is_named():
    assert all(name in section("Issuers") for name in SIGNATURE_ALGORITHMS)


def test_the_example_of_a_configuration_file_can_be_used():
    example = re.search(r"```json\n(.*?)```", section("Configuration file"), flags=re.DOTALL)
    assert example is not None

    settings = parse_access_settings({}, config_text=example[1])

    assert settings.oidc is not None
    assert settings.oidc.issuers[0].audiences == ("lake", "lake-notebooks")
    assert set(settings.roles or ()) == {"viewer", "operator"}


def test_each_setting_of_the_configuration_file_but_the_inline_keys_is_in_the_example():
    example = re.search(r"```json\n(.*?)```", section("Configuration file"), flags=re.DOTALL)
    assert example is not None

    assert json.loads(example[1]).keys() == CONFIG_MEMBERS - {"api_keys"}


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


@pytest.mark.parametrize("member", ["profiles", "default_profile", *MEMBERS_WITHOUT_A_VARIABLE])
def test_members_without_a_variable_are_documented(member):
    assert f"| `{member}` |" in CLIENT_TEXT


def test_each_variable_has_the_member_that_its_name_promises():
    renamed = {"workload": "workload.platform"}
    for variable, member in CLIENT_ROWS.items():
        if member is not None:
            plain = variable.removeprefix("MICROMEGAS_").removeprefix("OIDC_").removeprefix("ANALYTICS_").lower()
            promised = {
                plain,
                renamed.get(plain, plain),
                plain.replace("workload_", "workload."),
                f"issuers[0].{plain}",
            }
            assert member in promised


def test_every_preset_of_a_client_is_documented():
    documented = set(re.findall(r"^\| `(\w+)` \|", section("Provider presets"), flags=re.MULTILINE))

    assert documented == {*CLIENT_PRESETS, "none"}


@pytest.mark.parametrize(("name", "preset"), CLIENT_PRESETS.items())
def test_what_a_preset_fills_in_is_documented(name, preset):
    row = next(line for line in section("Provider presets").splitlines() if line.startswith(f"| `{name}` |"))

    assert all(f"`{parameter}={value}`" in row for parameter, value in preset.authorize_params)
    assert preset.scope is None or f"`{preset.scope}`" in row
    assert preset.private_key_audience is None or f"`private_key_audience` `{preset.private_key_audience}`" in row


PLATFORM_VARIABLES = {
    workloads.GITHUB_URL_VARIABLE,
    workloads.GITHUB_TOKEN_VARIABLE,
    workloads.GOOGLE_HOST_VARIABLE,
    workloads.AZURE_APP_ENDPOINT_VARIABLE,
    workloads.AZURE_APP_HEADER_VARIABLE,
    workloads.AZURE_MACHINE_HOST_VARIABLE,
    credentials.AZURE_TOKEN_FILE_VARIABLE,
    credentials.AZURE_CLIENT_ID_VARIABLE,
}


def test_the_variables_of_platforms_that_are_read_are_named_and_no_others():
    listed = section("Signing in without a person").partition("what the platforms themselves set")[2]

    assert set(re.findall(r"`([A-Z][A-Z_]{4,})`", listed)) == PLATFORM_VARIABLES


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
