"""What the doctor says of settings: what is set, what is missing, and files that cannot be used."""

from __future__ import annotations

import json
from pathlib import PurePath

import pytest

from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.doctor.findings import Outcome, findings_as_json, findings_as_lines
from micromegas_jupyter.doctor.local_checks import AUTHORITIES, CREDENTIAL, NO_PROVIDER, check_settings, find_obstacle
from tests.unit.doctor.cases import ISSUER, bare_case, person_case


def test_a_secret_is_only_said_to_be_set(tmp_path):
    case = person_case(
        tmp_path,
        MICROMEGAS_OIDC_CLIENT_SECRET="sesame-123",
        MICROMEGAS_OIDC_PROXY="http://alice:sesame-123@proxy.example.com:3128",
    )

    finding = check_settings(case)

    assert isinstance(case.settings.client_secret, Secret)
    assert "client_secret = set, not shown  (MICROMEGAS_OIDC_CLIENT_SECRET)" in finding.details
    assert "sesame" not in "\n".join(findings_as_lines([finding])) + findings_as_json([finding])


def test_a_group_of_settings_is_one_line(tmp_path):
    case = person_case(tmp_path, MICROMEGAS_OIDC_PRIVATE_KEY_FILE="/etc/key.pem", MICROMEGAS_OIDC_PRIVATE_KEY_ID="k1")

    (line,) = [detail for detail in check_settings(case).details if detail.startswith("private_key")]

    assert f"file {PurePath('/etc/key.pem')}" in line
    assert "key_id k1" in line


class TestWhatIsMissing:
    """Nothing set, or half of it."""

    def test_with_nothing_set_it_says_what_could_be(self, tmp_path):
        case = bare_case(tmp_path)

        finding = check_settings(case, find_obstacle(case))

        assert finding.outcome is Outcome.OK
        assert finding.details == (
            NO_PROVIDER,
            "no server is configured: the default is used, grpc://localhost:50051",
        )

    @pytest.mark.parametrize(
        ("variable", "value", "counterpart"),
        [
            ("MICROMEGAS_OIDC_ISSUER", ISSUER, "MICROMEGAS_OIDC_CLIENT_ID"),
            ("MICROMEGAS_OIDC_CLIENT_ID", "notebook", "MICROMEGAS_OIDC_ISSUER"),
        ],
    )
    def test_one_half_of_the_sign_in_is_a_failure_that_names_the_other(self, tmp_path, variable, value, counterpart):
        case = bare_case(tmp_path, **{variable: value})

        finding = check_settings(case, find_obstacle(case))

        assert (finding.outcome, finding.code, finding.exit_code) == (Outcome.FAILED, "CONF001", 2)
        assert finding.found == f"{counterpart} is not set, but {variable} is."
        assert counterpart in finding.remedy
        assert NO_PROVIDER not in finding.details
        assert f"({variable})" in finding.details[0]

    def test_a_program_with_a_key_file_lacks_no_provider(self, tmp_path):
        config = {"profiles": {"robot": {"api_key_file": str(tmp_path / "robot.key")}}, "default_profile": "robot"}
        (tmp_path / "config.json").write_text(json.dumps(config))
        (tmp_path / "robot.key").write_text("sesame")
        (tmp_path / "robot.key").chmod(0o600)
        case = bare_case(tmp_path)

        obstacle = find_obstacle(case)

        assert obstacle is None
        assert NO_PROVIDER not in check_settings(case).details


class TestFiles:
    """Files that the settings name and that cannot be used."""

    @pytest.mark.parametrize(
        ("variable", "kind"),
        [
            ("MICROMEGAS_CA_BUNDLE", AUTHORITIES),
            ("MICROMEGAS_OIDC_CLIENT_SECRET_FILE", CREDENTIAL),
            ("MICROMEGAS_OIDC_PRIVATE_KEY_FILE", CREDENTIAL),
            ("MICROMEGAS_OIDC_SERVICE_ACCOUNT_FILE", CREDENTIAL),
        ],
    )
    def test_a_file_that_is_missing_is_a_failure_that_names_its_setting(self, tmp_path, variable, kind):
        case = person_case(tmp_path, **{variable: str(tmp_path / "missing")})

        obstacle = find_obstacle(case)
        finding = check_settings(case, obstacle)

        assert obstacle is not None
        assert obstacle.prevented == kind
        assert (finding.outcome, finding.code) == (Outcome.FAILED, "CONF001")
        assert variable in finding.found
        assert str(tmp_path) not in finding.found

    def test_a_file_of_authorities_that_the_environment_names_counts_too(self, tmp_path, monkeypatch):
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "missing"))

        obstacle = find_obstacle(person_case(tmp_path))

        assert obstacle is not None
        assert obstacle.prevented == AUTHORITIES
        assert "REQUESTS_CA_BUNDLE" in obstacle.error.remedy
