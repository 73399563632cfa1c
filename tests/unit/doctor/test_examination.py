"""Tests of `doctor.examination`: all checks together, against a provider on loopback."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.auth.flows.select import Facts
from micromegas_jupyter.doctor import Finding, Outcome, examine
from tests.fakes.scripted_provider import ScriptedProvider

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NO_SCREEN = Facts(has_terminal=True)


@pytest.fixture
def idp() -> Iterator[ScriptedProvider]:
    with ScriptedProvider() as running:
        yield running


def _examined(folder: Path, issuer: str, **more: str) -> dict[str, Finding]:
    environ = {
        "MICROMEGAS_CONFIG_DIR": str(folder),
        "MICROMEGAS_ANALYTICS_URI": "grpc://127.0.0.1:1",
        "MICROMEGAS_OIDC_ISSUER": issuer,
        "MICROMEGAS_OIDC_CLIENT_ID": "notebook",
        **more,
    }
    return {finding.check: finding for finding in examine(environ=environ, facts=NO_SCREEN)}


@pytest.mark.parametrize("offers_device", [True, False])
def test_the_way_to_sign_in_follows_from_what_the_provider_offers(
    tmp_path: Path, idp: ScriptedProvider, offers_device: bool
) -> None:
    if not offers_device:
        idp.metadata_changes["device_authorization_endpoint"] = None

    found = _examined(tmp_path, idp.issuer)

    assert found["sign-in"].facts["flow"] == ("device" if offers_device else "paste")
    assert len(idp.seen("/.well-known/openid-configuration")) == 1


def _outcomes(found: dict[str, Finding]) -> dict[str, str]:
    return {check: finding.outcome.value for check, finding in found.items()}


def test_with_half_a_sign_in_the_settings_are_the_failure_and_the_provider_is_asked_all_the_same(
    tmp_path: Path, idp: ScriptedProvider
) -> None:
    found = _examined(tmp_path, idp.issuer, MICROMEGAS_OIDC_CLIENT_ID="")

    outcomes = _outcomes(found)
    assert outcomes.pop("server") == "failed"
    assert outcomes == {
        "program": "ok",
        "settings": "failed",
        "sign-in": "skipped",
        "store": "skipped",
        "issuer": "ok",
        "clock": "ok",
        "token": "skipped",
    }


def test_authorities_that_cannot_be_read_are_one_failure(tmp_path: Path, idp: ScriptedProvider) -> None:
    found = _examined(tmp_path, idp.issuer, MICROMEGAS_CA_BUNDLE=str(tmp_path / "missing.pem"))

    assert _outcomes(found) == {
        "program": "ok",
        "settings": "failed",
        "sign-in": "ok",
        "store": "ok",
        "issuer": "skipped",
        "clock": "skipped",
        "token": "skipped",
        "server": "skipped",
    }
    assert "MICROMEGAS_CA_BUNDLE" in found["settings"].found
    assert found["issuer"].found == "see settings"


@pytest.mark.filterwarnings("error")
def test_where_a_wrapper_makes_the_client_nothing_is_claimed_of_it(tmp_path: Path, idp: ScriptedProvider) -> None:
    found = _examined(tmp_path, idp.issuer, MICROMEGAS_PYTHON_MODULE_WRAPPER="no_such_module")

    assert _outcomes(found) == {"program": "ok", "wrapper": "failed", "settings": "ok"} | dict.fromkeys(
        ["sign-in", "store", "issuer", "clock", "token", "server"], "skipped"
    )
    assert {found[check].found for check in ("sign-in", "store", "token", "server")} == {"the wrapper's client is used"}
    assert "deprecated" in found["wrapper"].remedy
    assert idp.requests == []


def test_a_description_that_is_not_acceptable_is_no_silence(tmp_path: Path, idp: ScriptedProvider) -> None:
    idp.metadata_changes["issuer"] = "https://other.example.com"

    found = _examined(tmp_path, idp.issuer)

    assert found["issuer"].code == "AUTH005"
    assert "If https://other.example.com is your provider, set the issuer to exactly that." in found["issuer"].remedy
    assert found["clock"].found == "the provider's description is not acceptable"


def test_an_api_key_file_is_looked_at_where_the_settings_name_one(tmp_path: Path) -> None:
    key_file = tmp_path / "robot.key"
    key_file.write_text("sesame")
    key_file.chmod(0o644)
    config = {"uri": "grpc://127.0.0.1:1", "api_key_file": str(key_file)}
    (tmp_path / "config.json").write_text(json.dumps({"profiles": {"robot": config}}))
    environ = {"MICROMEGAS_CONFIG_DIR": str(tmp_path)}

    found = {finding.check: finding for finding in examine(profile="robot", environ=environ, facts=NO_SCREEN)}

    assert found["api key file"].outcome is Outcome.FAILED
    assert "chmod 600" in found["api key file"].remedy
