"""What the doctor says of the store: what is kept, whether it can be read, and what else there is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.doctor.findings import Outcome, guarded
from micromegas_jupyter.doctor.local_checks import check_store
from tests.unit.doctor.cases import ISSUER, person_case

if TYPE_CHECKING:
    from pathlib import Path

DOCUMENT = {
    "issuer": ISSUER,
    "client_id": "notebook",
    "token": {"access_token": "sesame", "token_type": "Bearer", "expires_at": 1},
}


def _write(path: Path, *, scope: str | None = None, text: str | None = None, **changes: str) -> None:
    path.write_text(json.dumps({**DOCUMENT, **changes}) if text is None else text)
    path.chmod(0o600)
    if scope is not None:
        place = path.with_name(f"{path.name}.extras.json")
        entry = {"issuer": ISSUER, "client_id": "notebook", **changes, "scope": scope}
        place.write_text(json.dumps(entry))
        place.chmod(0o600)


@pytest.mark.parametrize(("mode", "outcome"), [(0o600, Outcome.OK), (0o644, Outcome.FAILED)])
def test_a_token_file_that_others_can_read_is_a_failure(tmp_path, mode, outcome):
    path = tmp_path / "tokens.json"
    path.write_text(json.dumps(DOCUMENT))
    path.chmod(mode)

    finding = check_store(person_case(tmp_path))

    assert finding.outcome is outcome
    assert f"{mode:04o}" in finding.found
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_folder_that_others_can_change_is_a_failure_with_a_remedy(tmp_path):
    tmp_path.chmod(0o777)

    finding = guarded("store", lambda: check_store(person_case(tmp_path)))

    assert finding.outcome is Outcome.FAILED
    assert "can be changed by everybody" in finding.found
    assert "chmod go-w" in finding.remedy


@pytest.mark.parametrize(
    "text", ["", "{", '{"issuer": "https://id.example.com", "client_id": "notebook", "token": {}}']
)
def test_a_damaged_token_file_is_a_failure_with_a_remedy(tmp_path, text):
    _write(tmp_path / "tokens.json", text=text)

    finding = check_store(person_case(tmp_path))

    assert (finding.outcome, finding.code) == (Outcome.FAILED, "AUTH001")
    assert finding.found == f"The sign-in in the file {tmp_path / 'tokens.json'} is damaged."
    assert "`micromegas logout`" in finding.remedy


@pytest.mark.parametrize(
    ("scope", "changes", "said"),
    [
        ("openid email", {}, " (scope openid email)"),
        (None, {"client_id": "other"}, " (client id other)"),
        (None, {"audience": "lake"}, " (audience lake)"),
        (None, {"issuer": "https://other.example.com"}, " (issuer https://other.example.com)"),
    ],
)
def test_a_sign_in_with_other_settings_is_said_with_what_is_other(tmp_path, scope, changes, said):
    _write(tmp_path / "tokens.json", scope=scope, **changes)

    finding = check_store(person_case(tmp_path))

    assert finding.outcome is Outcome.OK
    assert finding.found.endswith(", nothing kept yet for these settings")
    assert finding.details == (f"a sign-in with other settings{said} is kept in the file {tmp_path / 'tokens.json'}",)


def test_another_sign_in_that_cannot_be_read_is_said_and_no_failure(tmp_path):
    _write(tmp_path / "tokens.json")
    _write(tmp_path / "tokens.0123456789ab.json", text="{")

    finding = check_store(person_case(tmp_path))

    assert finding.outcome is Outcome.OK
    assert finding.details[0].startswith("another sign-in of this profile, which cannot be read: ")


class TestProgramsWithACredential:
    """Where no person signs in, nothing is said of a sign-in."""

    @pytest.mark.parametrize(
        ("variables", "why"),
        [
            ({"MICROMEGAS_OIDC_CLIENT_SECRET": "sesame-123"}, "a service account is used"),
            ({"MICROMEGAS_OIDC_PRIVATE_KEY_FILE": "/etc/key.pem"}, "a service account is used"),
            ({"MICROMEGAS_OIDC_SERVICE_ACCOUNT_FILE": "/etc/key.json"}, "a service account is used"),
            ({"MICROMEGAS_OIDC_WORKLOAD": "github-actions"}, "a workload identity is used"),
        ],
    )
    def test_nothing_needs_to_be_kept(self, tmp_path, variables, why):
        finding = check_store(person_case(tmp_path, **variables))

        assert (finding.outcome, finding.found) == (Outcome.SKIPPED, f"not needed: {why}")

    def test_a_stored_sign_in_comes_before_the_application_s_secret(self, tmp_path):
        _write(tmp_path / "tokens.json")

        finding = check_store(person_case(tmp_path, MICROMEGAS_OIDC_CLIENT_SECRET="sesame-123"))

        assert finding.outcome is Outcome.OK
        assert "holds a sign-in" in finding.found
