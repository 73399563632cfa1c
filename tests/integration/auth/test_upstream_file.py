"""The token file goes back and forth between this package and upstream's own client."""

from __future__ import annotations

import json
import stat
from typing import TYPE_CHECKING

import pytest
from micromegas.auth import OidcAuthProvider as UpstreamProvider

from micromegas_jupyter.auth import OidcAuthProvider
from tests.fakes.scripted_browser import ScriptedBrowser
from tests.fakes.scripted_provider import ScriptedProvider

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.integration


@pytest.fixture
def idp() -> Iterator[ScriptedProvider]:
    with ScriptedProvider() as running:
        yield running


@pytest.fixture
def path(idp: ScriptedProvider, tmp_path: Path) -> Path:
    """A token file that this package wrote."""
    place = tmp_path / "t.json"
    OidcAuthProvider.login(idp.issuer, "notebook", token_file=place, scope="openid lake", browser=ScriptedBrowser())
    return place


def test_upstream_reads_what_this_package_wrote(idp: ScriptedProvider, path: Path) -> None:
    upstream = UpstreamProvider.from_file(str(path))

    assert upstream.get_token() == OidcAuthProvider.from_file(path).get_token()
    assert idp.refreshes() == []


def test_a_renewal_by_upstream_is_taken_over_with_the_scope_that_upstream_drops(
    idp: ScriptedProvider, path: Path
) -> None:
    ours = OidcAuthProvider.from_file(path)
    before = ours.get_token()
    document = json.loads(path.read_text())
    document["token"]["id_token"] = idp.mint_id_token(exp=1_900_000_000 - 200_000_000, iat=1_600_000_000)
    path.write_text(json.dumps(document))

    renewed = UpstreamProvider.from_file(str(path)).get_token()

    assert renewed != before
    assert ours.get_token() == renewed
    assert OidcAuthProvider.from_file(path).scope == "openid lake"
    assert len(idp.refreshes()) == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
