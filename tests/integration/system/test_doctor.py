"""`micromegas doctor` on a running system: what it finds when all is well, and what to do when something is not."""

import json

import pytest

from micromegas_jupyter.config.server import ServerSettings
from micromegas_jupyter.wiring.server import ServerStack

pytestmark = pytest.mark.integration

CHECKS = ["program", "settings", "sign-in", "store", "issuer", "clock", "token", "server"]


@pytest.fixture
def doctor(micromegas_here):
    def run(environ):
        result = micromegas_here("doctor", "--json", environ=environ)
        return result.returncode, {check["check"]: check for check in json.loads(result.stdout)["checks"]}

    return run


def test_every_check_is_a_line_and_all_is_well_after_a_sign_in(stack, person, sign_in, doctor):
    sign_in(person)

    exit_code, found = doctor(person)

    assert list(found) == CHECKS
    assert {name: check["outcome"] for name, check in found.items()} == dict.fromkeys(CHECKS, "ok")
    assert exit_code == 0
    assert found["token"]["found"].startswith("of Alice Martin, valid for ")
    assert found["server"]["facts"]["email"] == "alice@example.com"
    assert found["server"]["facts"]["is_admin"] is True
    assert found["issuer"]["facts"]["offers"]["device codes"] is True
    assert found["clock"]["facts"]["offset_seconds"] == 0.0
    assert found["store"]["facts"]["mode"] == "0600"


def test_without_a_sign_in_it_leaves_with_3_and_the_remedy(stack, person, doctor):
    exit_code, found = doctor(person)

    assert exit_code == 3
    assert (found["token"]["outcome"], found["token"]["code"]) == ("failed", "AUTH001")
    assert "micromegas login" in found["token"]["remedy"]
    assert found["server"]["found"].endswith("answers. Sign in to see who it says you are.")


def test_a_server_that_is_down_is_one_failure_with_4(stack, person, sign_in, doctor, unused_address):
    sign_in(person)

    exit_code, found = doctor({**person, "MICROMEGAS_ANALYTICS_URI": f"grpc://{unused_address}"})

    assert exit_code == 4
    assert found["token"]["outcome"] == "ok"
    assert (found["server"]["outcome"], found["server"]["code"]) == ("failed", "AVAIL003")


def test_a_provider_that_is_down_is_said_and_the_server_is_asked_all_the_same(
    stack, person, micromegas_here, unused_address
):
    environ = {**person, "MICROMEGAS_OIDC_ISSUER": f"http://{unused_address}"}

    result = micromegas_here("doctor", environ=environ)

    assert "✗ issuer: " in result.stdout
    assert "AVAIL002" in result.stdout
    assert f"The identity provider {unused_address} could not be reached" in result.stdout
    assert "→ Check the address of the issuer" in result.stdout
    assert "- clock: the provider does not answer properly" in result.stdout
    assert "✓ server: " in result.stdout
    assert "Traceback" not in result.stdout + result.stderr


def test_a_local_server_without_a_sign_in_is_in_order(nobody, doctor, tmp_path):
    with ServerStack(
        ServerSettings(no_http=True, lake=tmp_path / "lake", port=0, disable_auth=True, no_telemetry=True)
    ) as server:
        exit_code, found = doctor({**nobody, "MICROMEGAS_ANALYTICS_URI": server.uri})

    assert exit_code == 0
    assert [name for name, check in found.items() if check["outcome"] == "failed"] == []
    assert found["server"]["outcome"] == "ok"
    assert found["settings"]["details"][-1].startswith("no provider is configured: set MICROMEGAS_OIDC_ISSUER")


def test_a_damaged_token_file_is_a_failure_that_a_logout_mends(stack, person, sign_in, doctor, micromegas_here):
    token_file = sign_in(person).token_file
    token_file.write_text("{")

    _, damaged = doctor(person)
    micromegas_here("logout", environ=person)
    _, mended = doctor(person)

    assert (damaged["store"]["outcome"], mended["store"]["outcome"]) == ("failed", "ok")
    assert "micromegas logout" in damaged["store"]["remedy"]


def test_settings_that_cannot_be_read_are_the_only_finding_and_leave_with_2(stack, person, micromegas_here):
    result = micromegas_here("doctor", environ={**person, "MICROMEGAS_OIDC_ISSUER": "http://id.example.com"})

    assert result.returncode == 2
    assert "✗ settings: MICROMEGAS_OIDC_ISSUER specifies an issuer that uses http" in result.stdout
    assert "- server: the settings cannot be read" in result.stdout
