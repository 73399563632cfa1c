"""Ending everything that a profile keeps."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.config.client import ClientSettings
from micromegas_jupyter.core.secrets import Secret
from micromegas_jupyter.wiring.token_stores import logout
from tests.fakes.scripted_provider import DirectCalls, ScriptedProvider

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fakes.clock import FakeClock


@pytest.fixture
def idp(clock: FakeClock) -> ScriptedProvider:
    return ScriptedProvider(clock=clock)


@pytest.fixture
def settings(idp: ScriptedProvider) -> ClientSettings:
    return ClientSettings(issuer=idp.issuer, client_id="notebook", profile="work")


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"MICROMEGAS_CONFIG_DIR": str(tmp_path)}


class Browser:
    """Implements `seams.Browser`: notes what it is to open."""

    def __init__(self) -> None:
        self.opened: list[str] = []

    def open(self, url: str) -> bool:
        self.opened.append(url)
        return False


def keep(idp: ScriptedProvider, path: Path, *, client_id: str = "notebook") -> str:
    idp.client_id = client_id
    token = idp.stored_token(ends_in_seconds=3600)
    path.write_text(json.dumps({"issuer": idp.issuer, "client_id": client_id, "token": token}))
    return str(token["refresh_token"])


def test_all_files_of_the_profile_are_removed_and_none_of_another(
    idp: ScriptedProvider, settings: ClientSettings, environ: dict[str, str], tmp_path: Path, clock: FakeClock
) -> None:
    tokens = [
        keep(idp, tmp_path / "tokens-work.json"),
        keep(idp, tmp_path / "tokens-work.0123456789ab.json", client_id="other"),
    ]
    (tmp_path / "tokens-work.json.extras.json").write_text("{}")
    keep(idp, tmp_path / "tokens.json")

    report = logout(settings, environ=environ, http=DirectCalls(idp), clock=clock)

    assert (report.was_signed_in, report.files_removed, report.refresh_token_revoked) == (True, 3, True)
    assert [path.name for path in tmp_path.glob("*.json")] == ["tokens.json"]
    revoked = {seen.form["token"] for seen in idp.seen("/revoke") if seen.form["token_type_hint"] == "refresh_token"}
    assert revoked == set(tokens)


def test_nobody_signed_in_is_no_failure_and_no_request(
    idp: ScriptedProvider, settings: ClientSettings, environ: dict[str, str], clock: FakeClock
) -> None:
    report = logout(settings, environ=environ, http=DirectCalls(idp), clock=clock)

    assert str(report) == "Nobody was signed in to 127.0.0.1:1."
    assert idp.requests == []


def test_the_configured_application_proves_itself(
    idp: ScriptedProvider, settings: ClientSettings, environ: dict[str, str], tmp_path: Path, clock: FakeClock
) -> None:
    keep(idp, tmp_path / "tokens-work.json")
    with_secret = replace(settings, client_secret=Secret("s3cret"))

    logout(with_secret, environ=environ, http=DirectCalls(idp), clock=clock)

    assert all(seen.headers["authorization"].startswith("Basic ") for seen in idp.seen("/revoke"))


def test_a_proof_that_cannot_be_read_keeps_nobody_signed_in(
    idp: ScriptedProvider, settings: ClientSettings, environ: dict[str, str], tmp_path: Path, clock: FakeClock
) -> None:
    keep(idp, tmp_path / "tokens-work.json")
    broken = replace(settings, client_secret_file=tmp_path / "missing")

    report = logout(broken, environ=environ, http=DirectCalls(idp), clock=clock)

    assert report.problem is not None
    assert not (tmp_path / "tokens-work.json").exists()


def test_the_session_at_the_provider_ends_only_when_asked(
    idp: ScriptedProvider, settings: ClientSettings, environ: dict[str, str], clock: FakeClock
) -> None:
    idp.metadata_changes["end_session_endpoint"] = f"{idp.base}/end"
    browser = Browser()

    logout(settings, environ=environ, http=DirectCalls(idp), clock=clock, browser=browser)
    assert browser.opened == []
    report = logout(settings, environ=environ, http=DirectCalls(idp), clock=clock, browser=browser, end_session=True)

    assert browser.opened == [f"{idp.base}/end?client_id=notebook"]
    assert str(report).endswith(f"open {idp.base}/end?client_id=notebook in your browser.")


def test_sign_ins_end_also_where_no_provider_is_configured(
    idp: ScriptedProvider, environ: dict[str, str], tmp_path: Path, clock: FakeClock
) -> None:
    keep(idp, tmp_path / "tokens.json")

    report = logout(ClientSettings(), environ=environ, http=DirectCalls(idp), clock=clock)

    assert (report.issuer, report.refresh_token_revoked) == (idp.issuer, True)
