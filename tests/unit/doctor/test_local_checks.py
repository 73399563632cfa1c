"""Tests of `doctor.local_checks`: what can be seen without asking anybody."""

from __future__ import annotations

from dataclasses import replace

import pytest

from micromegas_jupyter.auth.flows.select import Facts
from micromegas_jupyter.config.client import Flow
from micromegas_jupyter.doctor.findings import Case, Outcome, findings_as_json, guarded
from micromegas_jupyter.doctor.local_checks import check_api_key_file, check_flow
from tests.unit.doctor.cases import person_case


def test_where_nobody_is_there_nobody_can_sign_in(tmp_path):
    finding = check_flow(person_case(tmp_path, Facts()))

    assert finding.outcome is Outcome.OK
    assert finding.found == "a program without a terminal: nobody can sign in here"


NO_SCREEN = Facts(has_terminal=True)


@pytest.mark.parametrize(
    ("offers_device", "flow", "hint"), [(True, "device", 0), (False, "paste", 0), (None, "device", 1)]
)
def test_the_way_follows_what_is_known_of_the_provider_who_is_not_asked(tmp_path, offers_device, flow, hint):
    # Nobody answers at that address, so a question would be an error.
    finding = check_flow(
        person_case(tmp_path, NO_SCREEN, MICROMEGAS_OIDC_ISSUER="http://127.0.0.1:1"), offers_device=offers_device
    )

    assert (finding.outcome, finding.facts["flow"]) == (Outcome.OK, flow)
    assert len([detail for detail in finding.details if detail.endswith("see issuer")]) == hint


def test_a_way_that_cannot_be_carried_out_is_a_failure_with_a_remedy(tmp_path):
    case = person_case(tmp_path)
    impossible = Case(
        settings=replace(case.settings, flow=Flow.HUB), environ=case.environ, facts=case.facts, clock=case.clock
    )

    finding = check_flow(impossible)

    assert finding.outcome is Outcome.FAILED
    assert "Choose another way" in finding.remedy


def test_a_program_with_a_credential_of_its_own_needs_no_sign_in(tmp_path):
    case = person_case(tmp_path, MICROMEGAS_OIDC_CLIENT_SECRET="sesame-123", MICROMEGAS_OIDC_PRESET="none")

    finding = check_flow(case)

    assert (finding.outcome, finding.found) == (Outcome.SKIPPED, "not needed: a service account is used")


@pytest.mark.parametrize(("mode", "outcome"), [(0o600, Outcome.OK), (0o644, Outcome.FAILED), (0o666, Outcome.FAILED)])
def test_an_api_key_file_that_others_can_read_or_change_is_a_failure_with_a_remedy(tmp_path, mode, outcome):
    path = tmp_path / "robot.key"
    path.write_text("sesame-123")
    path.chmod(mode)

    finding = guarded("api key file", lambda: check_api_key_file(path))

    assert finding.outcome is outcome
    assert ("chmod 600" in finding.remedy) is (outcome is Outcome.FAILED)
    assert "sesame" not in findings_as_json([finding])
    assert path.stat().st_mode & 0o777 == mode
