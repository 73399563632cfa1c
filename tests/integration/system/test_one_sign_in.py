"""One sign-in serves every notebook and terminal of a person, and one sign-out ends it for all."""

import json
import re

import pytest
from micromegas.auth import StaticTokenAuthProvider as UpstreamStaticTokenAuthProvider

from micromegas_jupyter import FlightSQLClient
from micromegas_jupyter.demo.provider.scripted_person import ScriptedPerson
from micromegas_jupyter.errors import LoginRequired
from micromegas_jupyter.wiring import client_side
from micromegas_jupyter.wiring import sign_in as signing_in

pytestmark = pytest.mark.integration

SQL = "SELECT count(*) AS n FROM log_entries"


def _sign_in(environ, person="alice"):
    settings = client_side.load_client_settings(environ=environ)
    with ScriptedPerson(person=person) as browser:
        return signing_in.login(settings, browser=browser, environ=environ)


def test_a_terminal_uses_the_sign_in_of_a_notebook(stack, person, micromegas):
    _sign_in(person)

    result = micromegas("query", SQL, "--format", "json", environ=person)

    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)[0]["n"] > 0


def test_whoami_names_the_person_and_what_the_server_knows(stack, person, micromegas):
    _sign_in(person)

    result = micromegas("whoami", environ=person)

    assert result.returncode == 0, result.stderr
    mine, servers = result.stdout.splitlines()
    assert re.fullmatch(
        r"Alice Martin <alice@example\.com> · 127\.0\.0\.1:\d+ · token valid \d+ min, renews by itself", mine
    )
    assert re.fullmatch(r"server 127\.0\.0\.1:\d+ knows you as alice@example\.com \(admin\) · \d+ ms", servers)


def test_logout_in_a_terminal_ends_it_for_a_client_that_is_open(stack, person, micromegas):
    _sign_in(person)
    client = client_side.connect(environ=person)
    assert client.query_arrow(SQL)["n"][0].as_py() > 0

    result = micromegas("logout", environ=person)

    assert result.returncode == 0, result.stderr
    assert "refresh token revoked" in result.stdout
    with pytest.raises(LoginRequired):
        client.query_arrow(SQL)
    assert micromegas("query", SQL, environ=person).returncode == 3
    client.close()


def test_a_query_without_a_sign_in_says_what_to_do_and_leaves_with_3(stack, person, micromegas):
    result = micromegas("query", SQL, environ=person)

    assert result.returncode == 3
    assert result.stdout == ""
    assert "micromegas login" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_service_account_needs_no_person(service, micromegas):
    result = micromegas("query", SQL, "--format", "csv", environ=service)
    mine, servers = micromegas("whoami", environ=service).stdout.splitlines()

    name = service["MICROMEGAS_OIDC_CLIENT_ID"]
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("n\n")
    assert re.fullmatch(rf"{name} \(service account\) · 127\.0\.0\.1:\d+ · token valid \d+ min, renews by itself", mine)
    assert f"knows you as {name}" in servers


def test_a_service_account_by_option(stack, person, micromegas):
    service = stack.service_environment()
    environ = {**person, "MICROMEGAS_OIDC_AUDIENCE": service["MICROMEGAS_OIDC_AUDIENCE"]}

    result = micromegas(
        "query", SQL, "--client-id", service["MICROMEGAS_OIDC_CLIENT_ID"],
        "--client-secret", service["MICROMEGAS_OIDC_CLIENT_SECRET"], "--issuer", service["MICROMEGAS_OIDC_ISSUER"],
        environ=environ,
    )  # fmt: skip

    assert result.returncode == 0, result.stderr


def test_our_client_accepts_a_provider_of_upstream(stack, person):
    token = _sign_in(person).get_token()

    with FlightSQLClient(stack.server.uri, auth_provider=UpstreamStaticTokenAuthProvider(token)) as client:
        assert len(client.query(SQL)) == 1
