"""`micromegas access explain` with tokens of the running provider."""

import json

import pytest

from micromegas_jupyter.auth import OidcClientCredentialsProvider

pytestmark = pytest.mark.integration


@pytest.fixture
def environ(stack):
    return {**stack.process_environment(), **stack.server_environment()}


@pytest.fixture(scope="module")
def token(stack):
    settings = stack.service_environment()
    provider = OidcClientCredentialsProvider(
        settings["MICROMEGAS_OIDC_ISSUER"],
        settings["MICROMEGAS_OIDC_CLIENT_ID"],
        settings["MICROMEGAS_OIDC_CLIENT_SECRET"],
        audience=settings["MICROMEGAS_OIDC_AUDIENCE"],
    )
    return provider.get_token()


@pytest.fixture
def explain(micromegas_here):
    return lambda *arguments, environ, text="": micromegas_here(
        "access", "explain", *arguments, environ=environ, text=text
    )


@pytest.mark.parametrize("prefix", ["", "Bearer ", "\n  "])
def test_a_good_token_passes_each_step(explain, environ, token, prefix):
    result = explain("-", environ=environ, text=f"{prefix}{token}\n")

    assert result.returncode == 0, result.stderr
    assert result.stdout.count("✓") == 15
    assert "✓ accepted: subject " in result.stdout


def test_a_token_in_a_file_for_another_server_is_refused_at_the_audience(explain, environ, token, tmp_path):
    (tmp_path / "token").write_text(token)
    issuer = json.loads(environ["MICROMEGAS_OIDC_CONFIG"])["issuers"][0]["issuer"]
    other = {"issuers": [{"issuer": issuer, "audience": "another-server"}]}

    result = explain(
        str(tmp_path / "token"),
        environ={**environ, "MICROMEGAS_OIDC_CONFIG": json.dumps(other), "MICROMEGAS_ADMINS": ""},
    )

    assert result.returncode == 3
    assert "✗ audience   aud micromegas-demo-lake, accepted: another-server" in result.stdout
    assert "audience_mismatch" in result.stdout


def test_with_the_provider_out_of_reach_nothing_is_decided(explain, environ, token, unused_address):
    moved = json.loads(environ["MICROMEGAS_OIDC_CONFIG"])
    for issuer in moved["issuers"]:
        issuer["discovery_url"] = f"http://{unused_address}/.well-known/openid-configuration"

    result = explain(environ={**environ, "MICROMEGAS_OIDC_CONFIG": json.dumps(moved)}, text=token)

    assert result.returncode == 4
    assert "· key" in result.stdout
    assert "keys_unavailable" in result.stdout


def test_json_has_the_outcome_and_each_step(explain, environ, token):
    result = explain("--json", environ=environ, text=token)

    found = json.loads(result.stdout)
    assert found["outcome"].startswith("accepted: ")
    assert found["accepted"]
    assert found["scopes"] == ["read"]
    assert all(step["passed"] for step in found["steps"])


def test_configuration_and_key_file_may_be_named_as_for_a_server(explain, micromegas_here, environ, token, tmp_path):
    bare = {name: value for name, value in environ.items() if not name.startswith("MICROMEGAS_")}
    config, keys = tmp_path / "access.json", tmp_path / "keys.json"
    config.write_text(json.dumps({"oidc": json.loads(environ["MICROMEGAS_OIDC_CONFIG"])}))
    key = micromegas_here("keys", "create", "robot", "--file", str(keys), environ=bare).stdout

    results = [
        explain("--access-config", str(config), environ=bare, text=token),
        explain("--api-key-file", str(keys), environ=bare, text=key),
        explain("--api-key-file", str(keys), environ=bare, text=token),
    ]

    assert [result.returncode for result in results] == [0, 0, 3], results
    assert key.strip() not in results[1].stdout + results[1].stderr


def test_a_token_on_the_command_line_is_refused_and_not_repeated(explain, environ, token):
    result = explain(token, environ=environ)

    assert result.returncode == 2
    assert "never put it on the command line" in result.stderr
    assert token[:30] not in result.stderr + result.stdout


def test_no_part_of_the_token_is_printed(explain, environ, token):
    damaged = token[:-10] + "AAAAAAAAAA"

    for text in (token, damaged, token.replace(".", "", 1)):
        result = explain(environ=environ, text=text)

        assert all(part not in result.stdout + result.stderr for part in text.split(".") if part)
