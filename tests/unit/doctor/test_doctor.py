"""What the doctor finds with which settings, files and providers, and how its findings read."""

import json
from datetime import timedelta
from unittest.mock import Mock

import pytest

from micromegas_jupyter.auth import OidcAuthProvider
from micromegas_jupyter.auth.flows.base import RuntimeInfo
from micromegas_jupyter.auth.flows.hub import HubService, HubTokenProvider, find_hub
from micromegas_jupyter.auth.provider_connection import ProviderConnection
from micromegas_jupyter.config.client import Bearer
from micromegas_jupyter.core.http import HubHttp
from micromegas_jupyter.doctor.examination import (
    check_clock,
    check_issuer,
    check_token,
    complaint,
    examine,
    exit_code_of,
    failed,
    findings_as_json,
    findings_as_lines,
    guarded,
    ok,
    skipped,
)
from micromegas_jupyter.errors import ConfigurationError, LoginRequired, ProviderUnavailable
from tests.fakes.clock import FakeClock
from tests.fakes.hub_service import FakeHubService
from tests.fakes.scripted_provider import ScriptedProvider
from tests.fakes.stored_sign_in import DatedCalls

NO_SCREEN = RuntimeInfo(has_terminal=True)
NOBODY = "http://127.0.0.1:1"
DOCUMENT = {
    "issuer": NOBODY,
    "client_id": "notebook",
    "token": {"access_token": "sesame", "token_type": "Bearer", "expires_at": 1},
}


@pytest.fixture
def idp():
    with ScriptedProvider() as running:
        yield running


def examined(folder, issuer=NOBODY, facts=NO_SCREEN, **more):
    environ = {
        "MICROMEGAS_CONFIG_DIR": str(folder),
        "MICROMEGAS_ANALYTICS_URI": "no-scheme://",  # refused at once, where a silent server takes its time
        "MICROMEGAS_OIDC_ISSUER": issuer,
        "MICROMEGAS_OIDC_CLIENT_ID": "notebook",
        **more,
    }
    findings = examine(environ=environ, facts=facts)
    assert "sesame" not in findings_as_json(findings) + "\n".join(findings_as_lines(findings))
    return {finding.check: finding for finding in findings}


# All checks together


@pytest.mark.parametrize(("offers_device", "flow"), [(True, "device"), (False, "paste")])
def test_the_flow_follows_from_what_the_provider_offers(tmp_path, idp, offers_device, flow):
    if not offers_device:
        idp.metadata_changes["device_authorization_endpoint"] = None

    assert examined(tmp_path, idp.issuer)["sign-in"].facts["flow"] == flow
    assert len(idp.seen("/.well-known/openid-configuration")) == 1


def test_half_a_sign_in_is_the_failure_and_the_provider_is_asked_all_the_same(tmp_path, idp):
    found = examined(tmp_path, idp.issuer, MICROMEGAS_OIDC_CLIENT_ID="")

    outcomes = {check: finding.outcome.value for check, finding in found.items()}
    skipped_checks = dict.fromkeys(("sign-in", "store", "token"), "skipped")
    fine, wrong = dict.fromkeys(("program", "issuer", "clock"), "ok"), dict.fromkeys(("settings", "server"), "failed")
    assert outcomes == fine | wrong | skipped_checks
    assert (found["settings"].code, found["settings"].exit_code) == ("CONF001", 2)
    assert "MICROMEGAS_OIDC_CLIENT_ID" in found["settings"].remedy


@pytest.mark.parametrize(
    ("variable", "prevented"),
    [
        ("MICROMEGAS_CA_BUNDLE", {"issuer", "clock", "token", "server"}),
        ("MICROMEGAS_OIDC_CLIENT_SECRET_FILE", {"token"}),
        ("MICROMEGAS_OIDC_PRIVATE_KEY_FILE", {"token"}),
        ("MICROMEGAS_OIDC_SERVICE_ACCOUNT_FILE", {"token"}),
    ],
)
def test_a_file_that_is_missing_is_one_failure_that_names_its_setting(tmp_path, idp, variable, prevented):
    found = examined(tmp_path, idp.issuer, **{variable: str(tmp_path / "missing")})

    assert found["settings"].outcome == "failed"
    assert variable in found["settings"].found
    assert {check for check, finding in found.items() if finding.found == "see settings"} == prevented


def test_a_description_that_is_not_acceptable_is_no_silence(tmp_path, idp):
    idp.metadata_changes["issuer"] = "https://other.example.com"

    found = examined(tmp_path, idp.issuer)

    assert found["issuer"].code == "AUTH005"
    assert "set the issuer to exactly that." in found["issuer"].remedy
    assert found["clock"].found == "the provider's description is not acceptable"


@pytest.mark.parametrize(
    ("facts", "flow", "outcome", "said"),
    [
        (RuntimeInfo(), "auto", "ok", "a program without a terminal: nobody can sign in here"),
        (NO_SCREEN, "hub", "failed", "Choose a different flow"),
    ],
    ids=["nobody", "impossible"],
)
def test_where_nobody_can_sign_in_that_is_said(tmp_path, facts, flow, outcome, said):
    found = examined(tmp_path, facts=facts, MICROMEGAS_OIDC_FLOW=flow)["sign-in"]

    assert found.outcome == outcome
    assert said in found.found + found.remedy


@pytest.mark.parametrize(("mode", "outcome"), [(0o600, "ok"), (0o644, "failed")])
def test_a_file_that_others_can_read_is_a_failure(tmp_path, mode, outcome):
    config = {"profiles": {"robot": {"uri": "no-scheme://", "api_key_file": str(tmp_path / "robot.key")}}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    for name, text in (("robot.key", "sesame"), ("tokens.json", json.dumps(DOCUMENT))):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(mode)

    findings = examine(profile="robot", environ={"MICROMEGAS_CONFIG_DIR": str(tmp_path)}, facts=NO_SCREEN)
    (tmp_path / "config.json").unlink()
    store = examined(tmp_path)["store"]

    (key,) = [finding for finding in findings if finding.check == "api key file"]
    assert (key.outcome, "chmod 600" in key.remedy) == (outcome, outcome != "ok")
    assert (store.outcome, store.facts["mode"]) == (outcome, f"{mode:04o}")
    assert (tmp_path / "tokens.json").stat().st_mode & 0o777 == 0o600


def test_a_folder_that_others_can_change_is_a_failure_with_a_remedy(tmp_path):
    tmp_path.chmod(0o777)

    assert "chmod go-w" in examined(tmp_path)["store"].remedy


def test_another_sign_in_of_the_profile_is_listed(tmp_path):
    path = tmp_path / "tokens.json"
    path.write_text(json.dumps({**DOCUMENT, "client_id": "other"}))
    path.chmod(0o600)

    found = examined(tmp_path)["store"]

    assert (found.outcome, "nothing kept yet for these settings" in found.found) == ("ok", True)
    assert found.details == (f"another sign-in of this profile is kept in the file {path}",)


# Tokens and clocks


def test_a_token_says_whose_it_is_and_how_long_it_is_good(clock):
    idp = ScriptedProvider(clock=clock)
    person = OidcAuthProvider(idp.issuer, "notebook", token=idp.stored_token(ends_in_seconds=3600), clock=clock)
    opaque = {"access_token": "opaque", "token_type": "Bearer", "expires_at": int(clock.now().timestamp()) + 600}
    unnamed = OidcAuthProvider(NOBODY, "notebook", token=opaque, bearer=Bearer.ACCESS_TOKEN, clock=clock)
    with FakeHubService() as hub:
        through_hub = check_token(
            HubTokenProvider(HubService(find_hub(hub.environ), http=HubHttp()), clock=clock), clock
        )

    assert check_token(person, clock).found == "of Alice Example, valid for 1 h 0 min"
    assert check_token(unnamed, clock).found == "of somebody whom it does not name"
    assert "it does not renew by itself" in check_token(unnamed, clock).details
    assert through_hub.found == "of Alice Martin, through JupyterHub, valid for 1 h 0 min"


@pytest.mark.parametrize(
    ("ahead", "said"),
    [
        (timedelta(minutes=7, seconds=20), "7 min behind"),
        (timedelta(hours=25, minutes=30), "25 h 30 min behind"),
        (timedelta(days=-3, hours=-1), "3 days ahead of"),
    ],
)
def test_a_clock_that_is_off_is_a_failure(clock, ahead, said):
    idp = ScriptedProvider(clock=clock)
    calls = DatedCalls(idp, FakeClock(clock.now() + ahead))
    connection = ProviderConnection(idp.issuer, "notebook", None, http=calls, clock=clock)
    check_issuer(connection, clock)

    finding = check_clock(connection)

    assert (finding.outcome, finding.found) == ("failed", f"this machine's clock is {said} the provider's")


# How findings read

FINE = ok("flow", "browser: it opens here", details=["then device"], facts={"flow": "browser"})


@pytest.mark.parametrize(
    ("findings", "expected"),
    [
        ([FINE, skipped("a", "b")], 0),
        ([FINE, complaint("clock", "late", remedy="Set it.")], 1),
        ([failed("settings", ConfigurationError("Bad.", key="k")), failed("token", LoginRequired("x"))], 2),
        ([failed("token", LoginRequired("x"))], 3),
        ([FINE, failed("issuer", ProviderUnavailable("x")), failed("token", LoginRequired("x"))], 4),
    ],
)
def test_the_exit_code_is_that_of_the_first_failure(findings, expected):
    assert exit_code_of(findings) == expected
    assert json.loads(findings_as_json(findings))["ok"] is (expected == 0)


def test_nothing_found_can_steer_a_terminal_or_break_a_line_and_a_defect_is_a_finding_without_its_text():
    look = Mock(side_effect=KeyError("sesame"))

    lines = findings_as_lines([ok("issuer", "a\x1b[2Jb\nc"), guarded("store", look)])

    assert lines[0] == "✓ issuer: a\ufffd[2Jb c"
    assert "INT001" in lines[1]
    assert "sesame" not in "".join(lines)
