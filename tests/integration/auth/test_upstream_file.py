"""The token file goes back and forth between this package and upstream's own client."""

import json
import os
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from micromegas.auth import OidcAuthProvider as UpstreamProvider

from micromegas_jupyter.auth import OidcAuthProvider
from micromegas_jupyter.config.client import ClientSettings
from micromegas_jupyter.errors import LoginRequired
from micromegas_jupyter.wiring.client_side import logout, token_store
from tests.fakes.scripted_browser import ScriptedBrowser

pytestmark = pytest.mark.integration


@pytest.fixture
def path(idp, tmp_path):
    """A token file that this package wrote."""
    place = tmp_path / "t.json"
    OidcAuthProvider.login(idp.issuer, "notebook", token_file=place, scope="openid lake", browser=ScriptedBrowser())
    return place


def test_upstream_reads_what_this_package_wrote(idp, path):
    upstream = UpstreamProvider.from_file(str(path))

    assert upstream.get_token() == OidcAuthProvider.from_file(path).get_token()
    assert idp.refreshes() == []


def test_a_renewal_by_upstream_is_taken_over_and_the_scope_that_upstream_drops_is_stored_again(idp, path):
    ours = OidcAuthProvider.from_file(path)
    before = ours.get_token()

    renewed = upstream_renews(idp, path)

    assert renewed != before
    assert ours.get_token() == renewed
    assert ours.scope == "openid lake"
    assert len(idp.refreshes()) == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    ours.save()
    assert OidcAuthProvider.from_file(path).scope == "openid lake"


def keep_in_profile(idp, environ, settings):
    store = token_store(settings, environ)
    options = {"audience": settings.audience, "scope": settings.scope, "browser": ScriptedBrowser()}
    OidcAuthProvider.login(idp.issuer, settings.client_id, store=store, **options)
    return token_store(settings, environ)


@pytest.fixture
def environ(tmp_path):
    return {"MICROMEGAS_CONFIG_DIR": str(tmp_path)}


def upstream_renews(idp, path):
    document = json.loads(path.read_text())
    document["token"]["id_token"] = idp.mint_id_token(exp=1_700_000_000, iat=1_600_000_000)
    path.write_text(json.dumps(document))
    return UpstreamProvider.from_file(str(path)).get_token()


def test_a_profiles_sign_in_is_the_one_that_upstream_uses(idp, environ, tmp_path):
    settings = ClientSettings(issuer=idp.issuer, client_id="notebook", audience="lake", profile="work")
    store = keep_in_profile(idp, environ, settings)

    upstream = UpstreamProvider.from_file(str(tmp_path / "tokens-work.json"))

    assert upstream.get_token() == store.load()[0].tokens.id_token.reveal()
    assert upstream.audience == "lake"


def test_upstreams_sign_in_is_not_touched_by_one_that_differs(idp, environ, tmp_path):
    own = ClientSettings(issuer=idp.issuer, client_id="notebook")
    keep_in_profile(idp, environ, own)
    upstream_renews(idp, tmp_path / "tokens.json")
    content = (tmp_path / "tokens.json").read_bytes()

    keep_in_profile(idp, environ, replace(own, audience="lake"))

    assert (tmp_path / "tokens.json").read_bytes() == content
    assert UpstreamProvider.from_file(str(tmp_path / "tokens.json")).get_token()


def test_a_logout_here_is_a_logout_for_upstream(idp, environ, tmp_path):
    settings = ClientSettings(issuer=idp.issuer, client_id="notebook")
    keep_in_profile(idp, environ, settings)
    keep_in_profile(idp, environ, replace(settings, scope="openid lake"))

    report = logout(settings, environ=environ)

    assert (report.refresh_token_revoked, report.problem) == (True, None)
    assert not list(tmp_path.glob("*.json"))
    with pytest.raises(FileNotFoundError):
        UpstreamProvider.from_file(str(tmp_path / "tokens.json"))


def test_a_logout_by_upstream_is_a_logout_here(idp):
    home = Path.home()
    settings = ClientSettings(issuer=idp.issuer, client_id="notebook")
    environ = {"MICROMEGAS_CONFIG_DIR": str(home / ".micromegas")}
    store = keep_in_profile(idp, environ, settings)

    upstreams = {"PATH": os.environ["PATH"], "HOME": str(home)}
    command = [sys.executable, "-m", "micromegas.cli.logout"]
    subprocess.run(command, env=upstreams, check=True, capture_output=True, timeout=60)

    with pytest.raises(LoginRequired):
        store.load()
