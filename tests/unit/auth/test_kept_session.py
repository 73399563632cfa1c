"""How a provider object follows its token file."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.auth.tokens.store import FileTokenStore
from micromegas_jupyter.errors import LoginRequired
from tests.fakes.stored_sign_in import StoredSignIn

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fakes.clock import FakeClock
    from tests.fakes.scripted_provider import ScriptedProvider


@pytest.fixture
def sign_in(idp: ScriptedProvider, clock: FakeClock, tmp_path: Path) -> StoredSignIn:
    return StoredSignIn(idp, tmp_path / "tokens.json", clock=clock)


def test_a_logout_elsewhere_counts_here_and_the_file_is_not_written_again(
    sign_in: StoredSignIn, idp: ScriptedProvider, clock: FakeClock
) -> None:
    provider = sign_in.opened()
    provider.get_token()
    sign_in.path.unlink()
    clock.advance(3590)

    with pytest.raises(LoginRequired):
        provider.get_token()

    assert not sign_in.path.exists()
    assert idp.requests == []


def test_a_logout_during_a_renewal_wins(sign_in: StoredSignIn, idp: ScriptedProvider) -> None:
    provider = sign_in.opened(ends_in_seconds=-10)
    answer = idp.issue

    def log_out_meanwhile(**arguments: object) -> dict[str, object]:
        sign_in.path.unlink()
        return answer(**arguments)  # type: ignore[arg-type]

    idp.issue = log_out_meanwhile  # type: ignore[method-assign]

    with pytest.raises(LoginRequired):
        provider.get_token()

    assert not sign_in.path.exists()


def test_a_newer_login_elsewhere_is_used_here(sign_in: StoredSignIn, idp: ScriptedProvider) -> None:
    provider = sign_in.opened(ends_in_seconds=-10)
    idp.id_token_changes["sub"] = "bob-2"
    sign_in.opened()

    assert provider.identity().subject == "bob-2"
    assert provider.get_token() == sign_in.token()["id_token"]
    assert idp.requests == []


def test_a_login_elsewhere_after_a_logout_is_used_here(sign_in: StoredSignIn) -> None:
    provider = sign_in.opened()
    sign_in.path.unlink()
    with pytest.raises(LoginRequired):
        provider.get_token()

    sign_in.opened()

    assert provider.get_token() == sign_in.token()["id_token"]


@pytest.mark.parametrize("change", [{"issuer": "https://evil.example"}, {"client_id": "other"}])
def test_a_login_of_another_provider_or_application_is_not_used(
    change: dict[str, str], sign_in: StoredSignIn, idp: ScriptedProvider
) -> None:
    provider = sign_in.opened(ends_in_seconds=-10)
    document = {**json.loads(sign_in.path.read_text()), **change}
    sign_in.path.write_text(json.dumps(document))

    with pytest.raises(LoginRequired):
        provider.get_token()

    assert idp.requests == []
    assert json.loads(sign_in.path.read_text()) == document


def test_tokens_that_cannot_be_stored_serve_from_memory(
    sign_in: StoredSignIn, idp: ScriptedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = sign_in.opened(ends_in_seconds=-10)
    before = sign_in.path.read_text()

    def fail(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full_disk:
        full_disk.setattr(os, "fsync", fail)
        token = provider.get_token()

    assert sign_in.path.read_text() == before
    assert provider.get_token() == token
    assert len(idp.refreshes()) == 1


def test_a_sign_in_for_another_scope_or_audience_is_not_used(sign_in: StoredSignIn, idp: ScriptedProvider) -> None:
    with sign_in.store().locked():
        sign_in.store().save(sign_in.login(audience="lake", scope="openid lake"))

    for wanted in ({"audience": "other"}, {"scope": "openid"}, {}):
        with pytest.raises(LoginRequired, match="another"):
            sign_in.open(**wanted).get_token()
    assert sign_in.open(audience="lake", scope="lake openid").get_token() == sign_in.token()["id_token"]
    assert idp.requests == []


def test_a_scope_that_upstream_did_not_store_fits_any(sign_in: StoredSignIn) -> None:
    sign_in.write()

    assert sign_in.open(scope="openid lake").get_token() == sign_in.token()["id_token"]


def test_what_was_asked_for_is_stored_with_each_renewal(sign_in: StoredSignIn) -> None:
    sign_in.write(ends_in_seconds=-10)

    sign_in.open(scope="openid lake", resource="https://api.example").get_token()

    login, _ = sign_in.store().load()
    assert (login.key.scope, login.key.resource) == ("openid lake", "https://api.example")


def test_a_thread_that_reads_anew_does_not_take_the_session_from_the_others(sign_in: StoredSignIn) -> None:
    provider = sign_in.opened(ends_in_seconds=60)
    manager = provider._manager
    provider.identity()
    seen: list[object] = []

    def load() -> object:
        seen.append(manager._state.session)
        return FileTokenStore(sign_in.path).load()

    sign_in.write()
    manager.store = sign_in.store()
    manager.store.load = load  # type: ignore[method-assign, assignment]
    provider.identity()

    assert len(seen) == 1
    assert seen[0] is not None
